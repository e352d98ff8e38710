//! One count as a line of the day's file: fields divided by tabs, the last of which is the count, and
//! `%xx` for what would be no text. A line without its end is what a crash has left of one.

use std::net::IpAddr;

use base::Domain;

use crate::security::{Failure, Published};

/// Policies and words of a domain, kept in bounds.
const MAX_STRINGS: usize = 100;

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) domain: Domain,
    pub(crate) policy: Policy,
    pub(crate) kind: Kind,
}

/// RFC 8460 4.4: `policy`
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Policy {
    /// `tlsa`, `sts` or `no-policy-found`
    pub(crate) name: PolicyType,
    pub(crate) strings: Vec<String>,
    pub(crate) mx: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum PolicyType {
    Tlsa,
    Sts,
    None,
}

impl PolicyType {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tlsa => "tlsa",
            Self::Sts => "sts",
            Self::None => "no-policy-found",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Tlsa, Self::Sts, Self::None]
            .into_iter()
            .find(|one| one.as_str() == word)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Success,
    Failure {
        failure: Failure,
        host: Domain,
        ip: IpAddr,
        from: Option<IpAddr>,
        detail: String,
    },
}

impl Key {
    pub(crate) fn new(domain: &Domain, published: &Published, kind: Kind) -> Self {
        let (name, mut strings, mx) = match published {
            Published::Nothing => (PolicyType::None, Vec::new(), Vec::new()),
            Published::Tlsa(records) => (PolicyType::Tlsa, records.clone(), Vec::new()),
            Published::Sts(policy) => {
                let mx = policy.mx.iter().take(MAX_STRINGS).map(ToString::to_string);
                (PolicyType::Sts, policy.lines(), mx.collect())
            }
            Published::UnknownSts(_) => (PolicyType::Sts, Vec::new(), Vec::new()),
        };
        strings.truncate(MAX_STRINGS);
        strings.sort();
        Self {
            domain: domain.clone(),
            policy: Policy { name, strings, mx },
            kind,
        }
    }

    pub(crate) fn line(&self, count: u64) -> String {
        let list = |all: &[String]| {
            let all: Vec<String> = all.iter().map(|one| escape(one)).collect();
            all.join("|")
        };
        let Policy { name, strings, mx } = &self.policy;
        let (name, strings, mx) = (name.as_str(), list(strings), list(mx));
        let domain = &self.domain;
        let rest = match &self.kind {
            Kind::Success => "ok".to_owned(),
            Kind::Failure {
                failure,
                host,
                ip,
                from,
                detail,
            } => {
                let from = from.map_or_else(|| "-".into(), |from| from.to_string());
                format!(
                    "{}\t{host}\t{ip}\t{from}\t{}",
                    failure.as_str(),
                    escape(detail)
                )
            }
        };
        format!("{domain}\t{name}\t{strings}\t{mx}\t{rest}\t{count}\n")
    }

    /// `None` for what is no whole line of ours.
    pub(crate) fn parse(line: &str) -> Option<(Self, u64)> {
        let mut fields = line.split('\t');
        let mut next = || fields.next();
        let domain = Domain::parse(next()?).ok()?;
        let name = PolicyType::parse(next()?)?;
        let list = |text: &str| -> Option<Vec<String>> {
            match text.is_empty() {
                true => Some(Vec::new()),
                false => text.split('|').take(MAX_STRINGS).map(unescape).collect(),
            }
        };
        let (strings, mx) = (list(next()?)?, list(next()?)?);
        let kind = match next()? {
            "ok" => Kind::Success,
            word => Kind::Failure {
                failure: Failure::parse(word)?,
                host: Domain::parse(next()?).ok()?,
                ip: next()?.parse().ok()?,
                from: match next()? {
                    "-" => None,
                    ip => Some(ip.parse().ok()?),
                },
                detail: unescape(next()?)?,
            },
        };
        let count = next()?.parse().ok()?;
        let policy = Policy { name, strings, mx };
        fields.next().is_none().then_some((
            Self {
                domain,
                policy,
                kind,
            },
            count,
        ))
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '%' | '|' => escaped.push_str(&format!("%{:02x}", u32::from(c))),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut whole = parts.next()?.to_owned();
    for part in parts {
        let (c, rest) = match (part.strip_prefix("25"), part.strip_prefix("7c")) {
            (Some(rest), _) => ('%', rest),
            (_, Some(rest)) => ('|', rest),
            (None, None) => return None,
        };
        whole.push(c);
        whole.push_str(rest);
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_counted() {
        let d = |name: &str| Domain::parse(name).unwrap();
        let published = Published::Tlsa(vec!["b | 100%\tx".into(), "a".into()]);
        let failed = Kind::Failure {
            failure: Failure::Expired,
            host: d("mx.example.org"),
            ip: "2001:db8::1".parse().unwrap(),
            from: Some("192.0.2.1".parse().unwrap()),
            detail: "not\nafter".into(),
        };
        let key = Key::new(&d("example.org"), &published, failed);
        let line = key.line(7);
        assert_eq!(
            line,
            "example.org\ttlsa\ta|b %7c 100%25 x\t\tcertificate-expired\tmx.example.org\t2001:db8::1\t192.0.2.1\tnot after\t7\n"
        );
        let (again, count) = Key::parse(line.trim_end_matches('\n')).unwrap();
        assert_eq!(count, 7);
        assert_eq!(again.line(7), line);
        let ok = Key::new(&d("example.org"), &Published::Nothing, Kind::Success);
        assert_eq!(ok.line(1), "example.org\tno-policy-found\t\t\tok\t1\n");
        assert_eq!(Key::parse(ok.line(1).trim_end()), Some((ok, 1)));
        for torn in 0..line.len() - 2 {
            let part = line.get(..torn).unwrap_or_default();
            assert_eq!(Key::parse(part), None, "{part:?}");
        }
    }
}
