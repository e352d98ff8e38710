//! A zone file's text (RFC 1035 5.1), as far as [`super`] understands it.

use std::net::IpAddr;

use base::Domain;

use super::{Data, Kind, Records};
use crate::proven::Tlsa;
use crate::resolve::Mx;

/// The whole file, or the first wrong line.
pub(super) fn parse(text: &str) -> Result<Records, (usize, String)> {
    let mut records = Records::default();
    let mut origin = String::new();
    let mut owner: Option<String> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let at = |what: String| (number, what);
        let words = words(line).map_err(|what| at(what.into()))?;
        let mut rest = words.as_slice();
        if let [directive, value] = rest
            && directive.eq_ignore_ascii_case("$ORIGIN")
        {
            origin = absolute(value, "").map_err(at)?;
            continue;
        }
        if let [directive, top] = rest
            && directive.eq_ignore_ascii_case("$SECURE")
        {
            let top = absolute(top, &origin).map_err(at)?;
            records.secure.push(top);
            continue;
        }
        let Some(first) = rest.first() else { continue };
        if first.starts_with('$') && !first.eq_ignore_ascii_case("$ORIGIN") {
            continue; // $TTL and its kin: nothing here is kept for a time
        }
        if !line.starts_with([' ', '\t']) {
            owner = Some(absolute(first, &origin).map_err(at)?);
            rest = rest.get(1..).unwrap_or_default();
        }
        let Some(owner) = &owner else {
            return Err(at("a record without a name".into()));
        };
        while let [first, more @ ..] = rest
            && (first.eq_ignore_ascii_case("IN") || first.bytes().all(|b| b.is_ascii_digit()))
        {
            rest = more;
        }
        if let Some(data) = record(rest, &origin).map_err(at)? {
            records.named.entry(owner.clone()).or_default().push(data);
        }
    }
    Ok(records)
}

/// `TYPE data...`; `None` for the types that say nothing about mail.
fn record(words: &[String], origin: &str) -> Result<Option<Data>, String> {
    let Some((kind, data)) = words.split_first() else {
        return Err("type missing, write for example: host IN A 192.0.2.1".into());
    };
    let bad = || format!("{kind} with wrong data");
    Ok(Some(match (kind.to_ascii_uppercase().as_str(), data) {
        ("A", [ip]) => Data::Address(IpAddr::V4(ip.parse().map_err(|_| bad())?)),
        ("AAAA", [ip]) => Data::Address(IpAddr::V6(ip.parse().map_err(|_| bad())?)),
        ("MX", [_, host]) if host == "." => Data::NullMx,
        ("MX", [preference, host]) => Data::Mx(Mx {
            preference: preference.parse().map_err(|_| bad())?,
            host: Domain::parse(&absolute(host, origin)?).map_err(|_| bad())?,
        }),
        ("CNAME", [name]) => Data::Alias(absolute(name, origin)?),
        ("PTR", [name]) => Data::Name(Domain::parse(&absolute(name, origin)?).map_err(|_| bad())?),
        ("TXT", strings @ [_, ..]) => Data::Txt(strings.concat().into_bytes()),
        ("TLSA", [usage, selector, matching, data @ ..]) => Data::Tlsa(Tlsa {
            usage: usage.parse().map_err(|_| bad())?,
            selector: selector.parse().map_err(|_| bad())?,
            matching: matching.parse().map_err(|_| bad())?,
            data: hexadecimal(&data.concat()).ok_or_else(bad)?,
        }),
        ("FAIL", []) => Data::Fail(None),
        ("FAIL", [of]) => Data::Fail(Some(kind_of(of).ok_or_else(bad)?)),
        ("BOGUS", []) => Data::Bogus(None),
        ("BOGUS", [of]) => Data::Bogus(Some(kind_of(of).ok_or_else(bad)?)),
        ("SOA" | "NS" | "SRV" | "CAA", _) => return Ok(None),
        _ => {
            return Err(format!(
                "{kind} is no type that is known here, or its data is wrong"
            ));
        }
    }))
}

fn kind_of(word: &str) -> Option<Kind> {
    Some(match word.to_ascii_uppercase().as_str() {
        "A" => Kind::A,
        "AAAA" => Kind::Aaaa,
        "MX" => Kind::Mx,
        "TXT" => Kind::Txt,
        "PTR" => Kind::Ptr,
        "TLSA" => Kind::Tlsa,
        _ => return None,
    })
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    });
    pairs.collect()
}

/// The words of a line up to a comment; a quoted string is one word.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            _ if quoted => word.get_or_insert_default().push(c),
            ';' => break,
            ' ' | '\t' => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err("a quotation mark is missing");
    }
    words.extend(word);
    Ok(words)
}

/// A name in lower case without its last dot; one without that dot is below the origin.
fn absolute(name: &str, origin: &str) -> Result<String, String> {
    let name = name.to_ascii_lowercase();
    let whole = match (name.as_str(), name.strip_suffix('.')) {
        ("@", _) => origin.to_owned(),
        (_, Some(whole)) => whole.to_owned(),
        _ if origin.is_empty() => name.clone(),
        _ => format!("{name}.{origin}"),
    };
    // The names of TXT records begin with an underscore, which Domain takes.
    if whole.is_empty() || Domain::parse(&whole).is_ok() {
        Ok(whole)
    } else {
        Err(format!("`{name}' is no name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_lines_are_named() {
        for (text, line) in [
            ("a IN A 1.2.3\n", 1),
            ("\n   IN A 192.0.2.1\n", 2),
            ("a IN\n", 1),
            ("a IN MX mx\n", 1),
            ("a IN WKS x\n", 1),
            ("a IN TXT \"x\n", 1),
            ("a..b IN A 192.0.2.1\n", 1),
            ("a IN TLSA 3 1\n", 1),
            ("a IN TLSA 3 1 1 abc\n", 1),
            ("a IN TLSA 300 1 1 ab\n", 1),
            ("a IN BOGUS WKS\n", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text:?}");
        }
    }
}
