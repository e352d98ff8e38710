//! DNSBL: lists of clients in DNS, and what each is worth, in the words of Postfix's
//! postscreen_dnsbl_sites: `zone[=filter][*weight]`.

use std::net::Ipv4Addr;

use crate::address::Domain;

/// One list, or one kind of its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dnsbl {
    pub zone: Domain,
    /// Which answers count; all of 127.0.0.0/8 where none is given.
    filter: Option<[Octets; 4]>,
    /// Below 0 for a list of those who are welcome.
    pub weight: i32,
}

/// What one octet of an answer may be: ranges with both ends.
type Octets = Vec<(u8, u8)>;

/// A weight beyond this would be a slip of the hand.
const MAX_WEIGHT: i32 = 1000;

impl Dnsbl {
    /// Whether this answer of the zone counts. Lists answer from 127.0.0.0/8, and say by
    /// 127.255.255.0/24 that they do not answer us at all.
    pub fn matches(&self, answer: Ipv4Addr) -> bool {
        let octets = answer.octets();
        match &self.filter {
            Some(filter) => octets.iter().zip(filter).all(|(octet, ranges)| {
                ranges
                    .iter()
                    .any(|(from, to)| (*from..=*to).contains(octet))
            }),
            None => octets.starts_with(&[127]) && !octets.starts_with(&[127, 255, 255]),
        }
    }
}

pub(super) fn dnsbl(text: &str) -> Result<Dnsbl, String> {
    let bad = || {
        "is no list, write zen.example.org, zen.example.org=127.0.0.[2..11] or list.example.org*-2"
            .to_owned()
    };
    let (rest, weight) = match text.split_once('*') {
        Some((rest, weight)) => (rest, weight.parse().map_err(|_| bad())?),
        None => (text, 1),
    };
    if weight == 0 || !(-MAX_WEIGHT..=MAX_WEIGHT).contains(&weight) {
        return Err(format!(
            "has a weight of nothing or too much, write {} to {MAX_WEIGHT}",
            -MAX_WEIGHT
        ));
    }
    let (zone, filter) = match rest.split_once('=') {
        Some((zone, filter)) => (zone, Some(parse_filter(filter).ok_or_else(bad)?)),
        None => (rest, None),
    };
    let zone = Domain::parse(zone).map_err(|_| bad())?;
    Ok(Dnsbl {
        zone,
        filter,
        weight,
    })
}

pub(super) fn limit(text: &str) -> Result<i32, String> {
    let limit = text.parse().ok().filter(|n| *n > 0);
    limit.ok_or_else(|| "is no number, write 1 or more".into())
}

/// ```text
/// filter = octet "." octet "." octet "." octet
/// octet  = number / "[" range *( ";" range ) "]"
/// range  = number [ ".." number ]
/// ```
fn parse_filter(text: &str) -> Option<[Octets; 4]> {
    let mut rest = text;
    let mut octets = Vec::new();
    while octets.len() < 4 {
        if !octets.is_empty() {
            rest = rest.strip_prefix('.')?;
        }
        let octet = match rest.strip_prefix('[') {
            Some(inside) => {
                let (list, after) = inside.split_once(']')?;
                rest = after;
                list.split(';').map(range).collect::<Option<_>>()?
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                let (number, after) = rest.split_at_checked(end)?;
                rest = after;
                vec![(number.parse().ok()?, number.parse().ok()?)]
            }
        };
        octets.push(octet);
    }
    rest.is_empty().then_some(())?;
    octets.try_into().ok()
}

fn range(text: &str) -> Option<(u8, u8)> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
    (from <= to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_filters_and_weights() {
        for (text, weight, yes, no) in [
            ("a.b", 1, "127.0.0.2", "192.0.2.1"),
            ("a.b", 1, "127.1.255.2", "127.255.255.254"),
            ("a.b*-3", -3, "127.0.0.9", "128.0.0.9"),
            ("a.b=127.0.0.4", 1, "127.0.0.4", "127.0.0.5"),
            ("a.b=127.0.0.[2..4]*2", 2, "127.0.0.3", "127.0.0.5"),
            (
                "a.b=127.[0;2].[0..255].[1;3..5]",
                1,
                "127.2.9.4",
                "127.1.9.4",
            ),
            (
                "a.b=127.[0;2].[0..255].[1;3..5]",
                1,
                "127.0.0.1",
                "127.0.0.2",
            ),
        ] {
            let list = dnsbl(text).unwrap();
            assert_eq!(list.weight, weight, "{text}");
            assert!(list.matches(yes.parse().unwrap()), "{text} {yes}");
            assert!(!list.matches(no.parse().unwrap()), "{text} {no}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            "",
            "a b",
            "a.b*",
            "a.b*x",
            "a.b*0",
            "a.b*1001",
            "a.b=",
            "a.b=127.0.0",
            "a.b=127.0.0.2.",
            "a.b=127.0.0.256",
            "a.b=127.0.0.[]",
            "a.b=127.0.0.[2",
            "a.b=127.0.0.[4..2]",
            "=127.0.0.2",
        ] {
            assert!(dnsbl(text).is_err(), "{text}");
        }
    }
}
