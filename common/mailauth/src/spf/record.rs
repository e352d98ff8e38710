//! An SPF record as types (RFC 7208 4.6 and 12). What breaks the grammar anywhere is no record.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::spf::macros::{Bad, Text};

/// Terms of a record; one of DNS's size cannot have more that mean anything.
const MAX_TERMS: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) directives: Vec<Directive>,
    pub(crate) redirect: Option<Text>,
    pub(crate) explain: Option<Text>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directive {
    pub(crate) qualifier: Qualifier,
    pub(crate) mechanism: Mechanism,
}

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Qualifier {
    Pass,
    Fail,
    SoftFail,
    Neutral,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mechanism {
    All,
    Include(Text),
    A(Option<Text>, Prefixes),
    Mx(Option<Text>, Prefixes),
    Ptr(Option<Text>),
    Ip(Net),
    Exists(Text),
}

/// How many leading bits of an address count, by family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefixes {
    pub(crate) v4: u8,
    pub(crate) v6: u8,
}

/// Addresses with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Net {
    pub(crate) ip: IpAddr,
    pub(crate) prefix: u8,
}

impl Net {
    /// Addresses of the other family are never in it.
    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                shift == 32 || net.to_bits() >> shift == ip.to_bits() >> shift
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                shift == 128 || net.to_bits() >> shift == ip.to_bits() >> shift
            }
            _ => false,
        }
    }
}

/// Whether a TXT record is one of SPF: the version, then a space or nothing (RFC 7208 4.5).
pub(crate) fn is_spf(text: &[u8]) -> bool {
    let (version, rest) = text.split_at_checked(6).unwrap_or((text, b""));
    version.eq_ignore_ascii_case(b"v=spf1") && matches!(rest.first(), None | Some(b' '))
}

impl Record {
    /// `text` begins with the version.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Bad> {
        let text = std::str::from_utf8(text).map_err(|_| Bad)?;
        let mut record = Self::default();
        for (number, term) in text
            .split(' ')
            .filter(|term| !term.is_empty())
            .skip(1)
            .enumerate()
        {
            if number >= MAX_TERMS {
                return Err(Bad);
            }
            record.add(term)?;
        }
        Ok(record)
    }

    fn add(&mut self, term: &str) -> Result<(), Bad> {
        let word = term.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
        let (name, rest) = term.split_at(word.unwrap_or(term.len()));
        if let Some(value) = rest.strip_prefix('=') {
            return self.modifier(name, value);
        }
        let (qualifier, term) = match term.chars().next() {
            Some('+') => (Qualifier::Pass, term.get(1..)),
            Some('-') => (Qualifier::Fail, term.get(1..)),
            Some('~') => (Qualifier::SoftFail, term.get(1..)),
            Some('?') => (Qualifier::Neutral, term.get(1..)),
            _ => (Qualifier::Pass, Some(term)),
        };
        let mechanism = mechanism(term.ok_or(Bad)?)?;
        self.directives.push(Directive {
            qualifier,
            mechanism,
        });
        Ok(())
    }

    fn modifier(&mut self, name: &str, value: &str) -> Result<(), Bad> {
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(Bad);
        }
        let slot = match name.to_ascii_lowercase().as_str() {
            "redirect" => &mut self.redirect,
            "exp" => &mut self.explain,
            // RFC 7208 6: others are passed over, as long as they are macro strings.
            _ => return Text::parse(value, false).map(drop),
        };
        match slot.replace(Text::parse_domain(value)?) {
            Some(_) => Err(Bad),
            None => Ok(()),
        }
    }
}

fn mechanism(term: &str) -> Result<Mechanism, Bad> {
    let end = term.find([':', '/']).unwrap_or(term.len());
    let (name, rest) = term.split_at(end);
    let domain = || {
        rest.strip_prefix(':')
            .ok_or(Bad)
            .and_then(Text::parse_domain)
    };
    Ok(match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(domain()?),
        "exists" => Mechanism::Exists(domain()?),
        "a" => {
            let (domain, prefixes) = with_prefixes(rest)?;
            Mechanism::A(domain, prefixes)
        }
        "mx" => {
            let (domain, prefixes) = with_prefixes(rest)?;
            Mechanism::Mx(domain, prefixes)
        }
        "ptr" if rest.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(domain()?)),
        "ip4" => {
            let (ip, prefix) = network(rest, 32)?;
            let ip = ip.parse::<Ipv4Addr>().map_err(|_| Bad)?.into();
            Mechanism::Ip(Net { ip, prefix })
        }
        "ip6" => {
            let (ip, prefix) = network(rest, 128)?;
            let ip = ip.parse::<Ipv6Addr>().map_err(|_| Bad)?.into();
            Mechanism::Ip(Net { ip, prefix })
        }
        _ => return Err(Bad),
    })
}

/// `[":" domain-spec] ["/" length] ["//" length]`. A domain-spec may have slashes of its own, the
/// lengths are at the end.
fn with_prefixes(rest: &str) -> Result<(Option<Text>, Prefixes), Bad> {
    let mut prefixes = Prefixes { v4: 32, v6: 128 };
    let mut rest = rest;
    if let Some((before, digits)) = rest.rsplit_once("//")
        && !digits.contains(['}', '.'])
    {
        prefixes.v6 = length(digits, 128)?;
        rest = before;
    }
    if let Some((before, digits)) = rest.rsplit_once('/')
        && !digits.contains(['}', '.'])
    {
        prefixes.v4 = length(digits, 32)?;
        rest = before;
    }
    let domain = match rest {
        "" => None,
        _ => Some(Text::parse_domain(rest.strip_prefix(':').ok_or(Bad)?)?),
    };
    Ok((domain, prefixes))
}

fn network(rest: &str, most: u8) -> Result<(&str, u8), Bad> {
    let rest = rest.strip_prefix(':').ok_or(Bad)?;
    match rest.split_once('/') {
        Some((ip, digits)) => Ok((ip, length(digits, most)?)),
        None => Ok((rest, most)),
    }
}

/// Without a sign or leading zeros.
fn length(digits: &str, most: u8) -> Result<u8, Bad> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() <= 3;
    let plain = plain && (digits == "0" || !digits.starts_with('0'));
    let length: u8 = digits.parse().map_err(|_| Bad)?;
    if plain && length <= most {
        Ok(length)
    } else {
        Err(Bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_what_are_none() {
        let table = [
            ("v=spf1", true),
            ("v=spf1  -all ", true),
            (
                "v=spf1 +a:example.com/24//64 mx/30 ?ptr ~ip4:192.0.2.0/24 ip6:2001:db8::/32",
                true,
            ),
            ("v=spf1 a:%{d}/24 exists:%{ir}.x.example.com", true),
            ("v=spf1 redirect=_spf.example.com unknown=a%{d}", true),
            ("v=spf1 A MX INCLUDE:x.org exp=e.org", true),
            ("v=spf1 a//128 a/0", true),
            ("v=spf1 all:x.org", false),
            ("v=spf1 include", false),
            ("v=spf1 include:", false),
            ("v=spf1 a:", false),
            ("v=spf1 a/33", false),
            ("v=spf1 a/024", false),
            ("v=spf1 a//129", false),
            ("v=spf1 a:x.org/", false),
            ("v=spf1 ip4:1.2.3", false),
            ("v=spf1 ip4:1.2.3.4/", false),
            ("v=spf1 ip6:1.2.3.4", false),
            ("v=spf1 redirect=a.org redirect=b.org", false),
            ("v=spf1 foo", false),
            ("v=spf1 -", false),
            ("v=spf1 1x=y", false),
            ("v=spf1 x=%{z}", false),
            ("v=spf1 a:b\tc.org", false),
        ];
        for (text, good) in table {
            assert_eq!(Record::parse(text.as_bytes()).is_ok(), good, "{text}");
        }
        assert!(is_spf(b"V=SPF1 a") && is_spf(b"v=spf1"));
        assert!(!is_spf(b"v=spf10") && !is_spf(b"v=spf2.0/pra") && !is_spf(b""));
    }

    #[test]
    fn networks() {
        let net = |ip: &str, prefix| Net {
            ip: ip.parse().unwrap(),
            prefix,
        };
        let has = |net: Net, ip: &str| net.contains(ip.parse().unwrap());
        assert!(
            has(net("192.0.2.0", 24), "192.0.2.200") && !has(net("192.0.2.0", 24), "192.0.3.0")
        );
        assert!(has(net("10.0.0.0", 0), "192.0.2.1") && !has(net("10.0.0.0", 0), "::1"));
        assert!(has(net("2001:db8::", 32), "2001:db8:1::") && has(net("::", 0), "2001::1"));
        assert!(!has(net("2001:db8::1", 128), "2001:db8::2"));
    }
}
