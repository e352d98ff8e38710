//! What the operator wants for a destination: the lines of `TLS_POLICY`, as Postfix's
//! smtp_tls_policy_maps has them.
//!
//! ```text
//! example.org                  dane-only
//! .example.net                 encrypt
//! [relay.example.com]:587      secure match=relay.example.com
//! old.example                  none
//! *                            auto
//! ```

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use base::{Domain, Fail};
use net::tls::Name;

/// Lines beyond this many are a mistake.
const MAX_LINES: usize = 100_000;

/// How a destination is to be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Level {
    /// DANE where there is, then MTA-STS, then TLS where it is offered.
    #[default]
    Auto,
    None,
    May,
    Encrypt,
    /// Where there is DANE; else [`Level::May`].
    Dane,
    DaneOnly,
    /// A certificate of a trusted authority with one of these names.
    Verify(Vec<Match>),
    /// A certificate with one of these SHA-256, of itself or its key.
    Fingerprint(Vec<[u8; 32]>),
}

/// Which name a certificate must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The host's that we connect to, as DNS gave it.
    Hostname,
    /// That of the destination.
    Nexthop,
    /// Any below that.
    DotNexthop,
    This(Name),
}

/// The operator's file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// `example.org`, `.example.org`, `[host]`, `[host]:587`, in lower case.
    levels: HashMap<String, Level>,
    /// `*`
    default: Level,
}

impl Table {
    /// A file that is not there says nothing.
    pub fn load(path: &Path) -> Result<Self, Fail> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Fail::config(format!("read {}: {e}", path.display()))),
        };
        Self::parse(&text)
            .map_err(|(line, what)| Fail::config(format!("{}:{line}: {what}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut table = Self::default();
        let mut has_default = false;
        for (number, line) in (1..).zip(text.lines()) {
            let at = |what: String| (number, what);
            let mut words = line.split_ascii_whitespace();
            let Some(key) = words.next().filter(|word| !word.starts_with('#')) else {
                continue;
            };
            if number > MAX_LINES {
                return Err(at(format!("more than {MAX_LINES} lines")));
            }
            let words: Vec<&str> = words.collect();
            let level = level(&words).map_err(at)?;
            let is_new = match key {
                "*" => !std::mem::replace(&mut has_default, true),
                _ => !table.levels.contains_key(&self::key(key).map_err(at)?),
            };
            if !is_new {
                return Err(at(format!("`{key}' has a line already, remove one")));
            }
            match key {
                "*" => table.default = level,
                _ => _ = table.levels.insert(self::key(key).map_err(at)?, level),
            }
        }
        Ok(table)
    }

    /// The domain whose mail exchangers are asked.
    pub(crate) fn of_domain(&self, domain: &Domain) -> &Level {
        self.first(&[domain.as_str().to_owned()], domain)
    }

    /// A host that is named without a look at MX records.
    pub(crate) fn of_host(&self, host: &Domain, port: u16) -> &Level {
        let name = host.as_str();
        let name = match host.ip() {
            Some(_) => name.to_owned(),
            None => format!("[{name}]"),
        };
        self.first(&[format!("{name}:{port}"), name], host)
    }

    /// Then the domains above.
    fn first(&self, keys: &[String], name: &Domain) -> &Level {
        if self.levels.is_empty() {
            return &self.default;
        }
        if let Some(level) = keys.iter().find_map(|key| self.levels.get(key)) {
            return level;
        }
        let mut rest = name.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(level) = self.levels.get(&format!(".{parent}")) {
                return level;
            }
            rest = parent;
        }
        &self.default
    }
}

fn key(word: &str) -> Result<String, String> {
    let bad = || {
        format!(
            "`{word}' is no destination, write example.org, .example.org, [host], [host]:587 or *"
        )
    };
    let name = |text: &str| Domain::parse(text).map_err(|_| bad());
    if let Some(parent) = word.strip_prefix('.') {
        return Ok(format!(".{}", name(parent)?));
    }
    let Some(inner) = word.strip_prefix('[') else {
        return Ok(name(word)?.as_str().to_owned());
    };
    let (host, port) = inner.split_once(']').ok_or_else(bad)?;
    let port = match port.strip_prefix(':') {
        Some(port) => format!(":{}", port.parse::<u16>().map_err(|_| bad())?),
        None if port.is_empty() => String::new(),
        None => return Err(bad()),
    };
    // Of the name of a host, or of an address: `[192.0.2.1]`, `[IPv6:2001:db8::1]`.
    let host = match Domain::parse(&format!("[{host}]")) {
        Ok(literal) => literal.as_str().to_owned(),
        Err(_) => format!("[{}]", name(host)?.as_str()),
    };
    Ok(format!("{host}{port}"))
}

fn level(words: &[&str]) -> Result<Level, String> {
    let Some((word, attributes)) = words.split_first() else {
        return Err("a level is missing, write for example: example.org encrypt".into());
    };
    let mut matches = Vec::new();
    for attribute in attributes {
        match attribute.split_once('=') {
            Some(("match", value)) if !value.is_empty() => matches.push(value),
            _ => return Err(format!("`{attribute}' is not known, only match=... is")),
        }
    }
    let names = |default: &[Match]| -> Result<Level, String> {
        let words = matches.iter().flat_map(|value| value.split(':'));
        let given: Vec<Match> = words.map(name_match).collect::<Result<_, _>>()?;
        Ok(Level::Verify(match given.is_empty() {
            true => default.to_vec(),
            false => given,
        }))
    };
    let level = match *word {
        "auto" => Level::Auto,
        "none" => Level::None,
        "may" => Level::May,
        "encrypt" => Level::Encrypt,
        "dane" => Level::Dane,
        "dane-only" => Level::DaneOnly,
        "verify" => return names(&[Match::Hostname]),
        "secure" => return names(&[Match::Nexthop, Match::DotNexthop]),
        "fingerprint" if matches.is_empty() => {
            return Err("fingerprint needs match=SHA-256 of the certificate or its key".into());
        }
        "fingerprint" => {
            let words = matches.iter().flat_map(|value| value.split('|'));
            return Ok(Level::Fingerprint(
                words.map(fingerprint).collect::<Result<_, _>>()?,
            ));
        }
        _ => {
            return Err(format!(
                "`{word}' is no level, write auto, none, may, encrypt, dane, dane-only, verify, secure or fingerprint"
            ));
        }
    };
    match matches.is_empty() {
        true => Ok(level),
        false => Err(format!("match= means nothing with {word}")),
    }
}

fn name_match(word: &str) -> Result<Match, String> {
    let name = |text: &str| match Domain::parse(text) {
        Ok(name) if name.ip().is_none() => Ok(name.as_str().to_owned()),
        _ => Err(format!(
            "`{word}' is no name, write mail.example.org, .example.org, hostname, nexthop or dot-nexthop"
        )),
    };
    Ok(match (word, word.strip_prefix('.')) {
        ("hostname", _) => Match::Hostname,
        ("nexthop", _) => Match::Nexthop,
        ("dot-nexthop", _) => Match::DotNexthop,
        (_, Some(parent)) => Match::This(Name::Below(name(parent)?)),
        (word, None) => Match::This(Name::Is(name(word)?)),
    })
}

/// `AB:CD:...`, 32 octets in hexadecimal, with colons or without.
fn fingerprint(text: &str) -> Result<[u8; 32], String> {
    let bad = || format!("`{text}' is no SHA-256, write 64 hexadecimal digits");
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()
        .ok_or_else(bad)?;
    let octets = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high * 16 + low).map_err(|_| bad()),
        _ => Err(bad()),
    });
    let octets: Vec<u8> = octets.collect::<Result<_, _>>()?;
    octets.try_into().map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    #[test]
    fn the_nearest_line_counts() {
        let table = Table::parse(
            "# ours\n\nexample.org dane-only\n.example.org encrypt\n.org may\n[Relay.example.com]:587 none\n[relay.example.com] dane\n[192.0.2.1] may\n* encrypt\nback.example auto\n",
        )
        .unwrap();
        for (name, want) in [
            ("example.org", Level::DaneOnly),
            ("a.example.org", Level::Encrypt),
            ("a.b.example.org", Level::Encrypt),
            ("anexample.org", Level::May),
            ("org", Level::Encrypt),
            ("relay.example.com", Level::Encrypt),
            ("back.example", Level::Auto),
        ] {
            assert_eq!(*table.of_domain(&d(name)), want, "{name}");
        }
        for (name, port, want) in [
            ("relay.example.com", 587, Level::None),
            ("relay.example.com", 25, Level::Dane),
            ("mx.example.org", 25, Level::Encrypt),
            ("example.org", 25, Level::May),
            ("[192.0.2.1]", 25, Level::May),
        ] {
            assert_eq!(*table.of_host(&d(name), port), want, "{name}:{port}");
        }
        let none = Table::load(Path::new("/nonexistent")).unwrap();
        assert_eq!(*none.of_domain(&d("example.org")), Level::Auto);
    }

    #[test]
    fn levels_and_their_matches() {
        let sha = "ab".repeat(32);
        let colons = ["AB"; 32].join(":");
        let is = |name: &str| Match::This(Name::Is(name.into()));
        for (words, want) in [
            ("verify", Level::Verify(vec![Match::Hostname])),
            (
                "secure",
                Level::Verify(vec![Match::Nexthop, Match::DotNexthop]),
            ),
            (
                "secure match=a.org:nexthop",
                Level::Verify(vec![is("a.org"), Match::Nexthop]),
            ),
            (
                "verify match=.a.org match=hostname",
                Level::Verify(vec![
                    Match::This(Name::Below("a.org".into())),
                    Match::Hostname,
                ]),
            ),
            (
                &format!("fingerprint match={sha}"),
                Level::Fingerprint(vec![[0xab; 32]]),
            ),
            (
                &format!("fingerprint match={colons}|{sha}"),
                Level::Fingerprint(vec![[0xab; 32]; 2]),
            ),
        ] {
            let words: Vec<_> = words.split(' ').collect();
            assert_eq!(level(&words), Ok(want), "{words:?}");
        }
    }

    #[test]
    fn mistakes_have_a_line_and_a_mend() {
        for (text, line, part) in [
            ("example.org", 1, "a level is missing"),
            ("\nexample.org verifi", 2, "`verifi' is no level"),
            ("example.org may\nExample.org may", 2, "has a line already"),
            ("* may\n* may", 2, "has a line already"),
            ("a@b may", 1, "is no destination"),
            ("[a may", 1, "is no destination"),
            ("[a]:x may", 1, "is no destination"),
            ("[a]25 may", 1, "is no destination"),
            ("a may match=b", 1, "match= means nothing with may"),
            ("a verify protocols=TLSv1", 1, "only match=... is"),
            ("a verify match=[192.0.2.1]", 1, "is no name"),
            ("a fingerprint", 1, "fingerprint needs match="),
            ("a fingerprint match=abc", 1, "is no SHA-256"),
            ("a fingerprint match=xy", 1, "is no SHA-256"),
        ] {
            let (at, what) = Table::parse(text).unwrap_err();
            assert_eq!(at, line, "{text}");
            assert!(what.contains(part), "{text}: {what}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tls_policy");
        fs::write(&path, "a b c\n").unwrap();
        let fail = Table::load(&path).unwrap_err().to_string();
        assert!(fail.contains("tls_policy:1: "), "{fail}");
    }
}
