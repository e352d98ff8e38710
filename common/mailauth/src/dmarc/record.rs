//! A policy record as types (RFC 9989 4.7 and 4.8). Only the version must be right: whatever else
//! cannot be read counts as not written.

use crate::dkim::tags::trim;

/// Tags of a record that are looked at; the RFC has eleven.
const MAX_TAGS: usize = 64;

/// What a domain's owner wants done with mail that does not pass, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    None,
    Quarantine,
    Reject,
}

impl Policy {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let all = [Self::None, Self::Quarantine, Self::Reject];
        let same = |policy: &Self| policy.as_str().as_bytes().eq_ignore_ascii_case(value);
        all.into_iter().find(same)
    }

    /// One level below: what the owner of a record under test wants (RFC 9989 4.7, `t`).
    pub(crate) fn milder(self) -> Self {
        match self {
            Self::Reject => Self::Quarantine,
            Self::Quarantine | Self::None => Self::None,
        }
    }
}

/// Whether a domain is one under which others register theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Psd {
    Yes,
    No,
    #[default]
    Unknown,
}

/// A tag that has a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Wish {
    #[default]
    Absent,
    Bad,
    Is(Policy),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Record {
    p: Wish,
    sp: Wish,
    np: Wish,
    pub(crate) strict_dkim: bool,
    pub(crate) strict_spf: bool,
    pub(crate) psd: Psd,
    pub(crate) testing: bool,
    has_reports: bool,
}

impl Record {
    /// `None` where the text is no DMARC record: `v=DMARC1` must be its first tag.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut tags = text.split(|b| *b == b';').take(MAX_TAGS).map(tag);
        match tags.next()? {
            Some((name, b"DMARC1")) if name.eq_ignore_ascii_case("v") => {}
            _ => return None,
        }
        let mut record = Self::default();
        let mut known: Vec<String> = Vec::new();
        for (name, value) in tags.flatten() {
            let name = name.to_ascii_lowercase();
            // The first of two counts.
            if !known.contains(&name) {
                record.set(&name, value);
                known.push(name);
            }
        }
        Some(record)
    }

    fn set(&mut self, name: &str, value: &[u8]) {
        let is = |word: &str| value.eq_ignore_ascii_case(word.as_bytes());
        let wish = || Policy::parse(value).map_or(Wish::Bad, Wish::Is);
        match name {
            "p" => self.p = wish(),
            "sp" => self.sp = wish(),
            "np" => self.np = wish(),
            "adkim" => self.strict_dkim = is("s"),
            "aspf" => self.strict_spf = is("s"),
            "psd" if is("y") => self.psd = Psd::Yes,
            "psd" if is("n") => self.psd = Psd::No,
            "t" if is("y") => self.testing = true,
            // RFC 7489's way to say t=y. Its other values asked us to throw dice; RFC 9989 A.6 gave
            // them up.
            "pct" if is("0") => self.testing = true,
            "rua" => self.has_reports = value.split(|b| *b == b',').any(is_uri),
            _ => {}
        }
    }

    /// For the domain of the record itself. `None`: DMARC does not apply (RFC 9989 4.10.1).
    pub(crate) fn own(&self) -> Option<Policy> {
        self.sound(match self.p {
            Wish::Is(policy) => policy,
            Wish::Absent | Wish::Bad => Policy::None,
        })
    }

    /// Whether mail under names that do not exist has a policy of its own.
    pub(crate) fn tells_missing(&self) -> bool {
        matches!(self.np, Wish::Is(_))
    }

    /// For a name below it. `None`: DMARC does not apply (RFC 9989 4.10.1).
    pub(crate) fn below(&self, exists: bool) -> Option<Policy> {
        let wishes = match exists {
            true => [Wish::Absent, self.sp, self.p],
            false => [self.np, self.sp, self.p],
        };
        let policy = wishes.into_iter().find_map(|wish| match wish {
            Wish::Is(policy) => Some(policy),
            Wish::Absent | Wish::Bad => None,
        });
        self.sound(policy.unwrap_or(Policy::None))
    }

    /// A record whose policy cannot be read asks for nothing, if it asks for reports, and is none
    /// otherwise.
    fn sound(&self, policy: Policy) -> Option<Policy> {
        let bad = !matches!(self.p, Wish::Is(_)) || self.sp == Wish::Bad || self.np == Wish::Bad;
        match (bad, self.has_reports) {
            (false, _) => Some(policy),
            (true, true) => Some(Policy::None),
            (true, false) => None,
        }
    }
}

/// `dmarc-tag = 1*ALPHA equals 1*dmarc-value`
fn tag(text: &[u8]) -> Option<(&str, &[u8])> {
    let at = memchr::memchr(b'=', text)?;
    let (name, value) = text.split_at_checked(at)?;
    let (name, value) = (trim(name), trim(value.get(1..)?));
    let name = std::str::from_utf8(name).ok()?;
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic());
    (good && !value.is_empty()).then_some((name, value))
}

/// `scheme ":" something`; enough to see that somebody wants to hear of it.
fn is_uri(text: &[u8]) -> bool {
    let text = trim(text);
    match memchr::memchr(b':', text) {
        Some(at) if at > 0 && at + 1 < text.len() => {
            let scheme = text.get(..at).unwrap_or_default();
            scheme
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Policy::{Quarantine, Reject};

    fn parse(text: &str) -> Option<Record> {
        Record::parse(text.as_bytes())
    }

    /// For itself, for an existing and for a missing name below.
    #[test]
    fn policies() {
        let none = Some(Policy::None);
        let table = [
            ("v=DMARC1; p=reject", [Some(Reject); 3]),
            ("v=DMARC1;p=reject;", [Some(Reject); 3]),
            (" v = DMARC1 ; P = Reject ;;x", [Some(Reject); 3]),
            (
                "v=DMARC1; sp=none; p=quarantine",
                [Some(Quarantine), none, none],
            ),
            (
                "v=DMARC1; p=none; sp=quarantine; np=reject",
                [none, Some(Quarantine), Some(Reject)],
            ),
            ("v=DMARC1; p=none; np=reject", [none, none, Some(Reject)]),
            ("v=DMARC1; p=none; p=reject", [none; 3]),
            ("v=DMARC1; p=none; future=x; =; y", [none; 3]),
            // No policy that could be read.
            ("v=DMARC1", [None; 3]),
            ("v=DMARC1; p=", [None; 3]),
            ("v=DMARC1; p=refuse", [None; 3]),
            ("v=DMARC1; p=refuse; rua=mailto:x@y.example", [none; 3]),
            ("v=DMARC1; rua=mailto:x@y.example", [none; 3]),
            ("v=DMARC1; rua=x@y.example", [None; 3]),
            ("v=DMARC1; p=reject; sp=maybe", [None; 3]),
            ("v=DMARC1; p=reject; np=maybe; rua=x, mailto:a@b", [none; 3]),
        ];
        for (text, wanted) in table {
            let record = parse(text).unwrap();
            let got = [record.own(), record.below(true), record.below(false)];
            assert_eq!(got, wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_record() {
        for text in [
            "",
            "v=DMARC2; p=reject",
            "v=dmarc1; p=reject",
            "p=reject; v=DMARC1",
            "v=DMARC1 p=reject",
            "v=spf1 -all",
            "DMARC1",
            ";v=DMARC1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn flags() {
        let record = parse("v=DMARC1; p=none; adkim=s; aspf=S; psd=y; t=y").unwrap();
        assert!(record.strict_dkim && record.strict_spf && record.testing);
        assert_eq!(record.psd, Psd::Yes);
        let record = parse("v=DMARC1; p=none; adkim=x; aspf=r; psd=u; t=n; pct=50").unwrap();
        assert!(!record.strict_dkim && !record.strict_spf && !record.testing);
        assert_eq!(record.psd, Psd::Unknown);
        let record = parse("v=DMARC1; p=none; psd=n; pct=0").unwrap();
        assert!(record.testing && record.psd == Psd::No);
        assert_eq!(Reject.milder(), Quarantine);
        assert_eq!(Quarantine.milder(), Policy::None);
    }
}
