//! From a domain up to the root, and which of the domains on the way is the organization's: the DNS
//! tree walk of RFC 9989 4.10, which needs no list of public suffixes.

use std::collections::HashMap;

use base::Domain;
use dns::{DnsError, Resolve};

use crate::dmarc::record::{Psd, Record};

/// Labels above which a walk leaves some out (RFC 9989 4.10).
const MAX_LABELS: usize = 8;
/// Names that are asked for on behalf of one message. Eight do for an honest one.
const MAX_QUESTIONS: usize = 64;

/// Why a walk has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// DNS does not say now, or there is no time left.
    Temporary,
    TooMany,
}

/// The records of one message's domains, each asked for once.
pub(crate) struct Walker<'a> {
    dns: &'a dyn Resolve,
    late: &'a dyn Fn() -> bool,
    known: HashMap<Domain, Option<Record>>,
}

/// The records from a domain up, the longest name first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    start: Domain,
    records: Vec<(Domain, Record)>,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(dns: &'a dyn Resolve, late: &'a dyn Fn() -> bool) -> Self {
        Self {
            dns,
            late,
            known: HashMap::new(),
        }
    }

    /// The record at a domain; of several there is none (RFC 9989 4.10 step 2).
    pub(crate) fn record(&mut self, domain: &Domain) -> Result<Option<Record>, Trouble> {
        if let Some(known) = self.known.get(domain) {
            return Ok(known.clone());
        }
        if self.known.len() >= MAX_QUESTIONS {
            return Err(Trouble::TooMany);
        }
        let record = self.ask(domain)?;
        self.known.insert(domain.clone(), record.clone());
        Ok(record)
    }

    fn ask(&self, domain: &Domain) -> Result<Option<Record>, Trouble> {
        // What is too long for a name has no record.
        let Ok(name) = Domain::parse(&format!("_dmarc.{domain}")) else {
            return Ok(None);
        };
        if (self.late)() {
            return Err(Trouble::Temporary);
        }
        let texts = match self.dns.txt(&name) {
            Ok(texts) => texts,
            Err(DnsError::NxDomain | DnsError::NoData) => return Ok(None),
            Err(DnsError::Temporary(_)) => return Err(Trouble::Temporary),
        };
        let mut records = texts.iter().filter_map(|text| Record::parse(text));
        Ok(match (records.next(), records.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        })
    }

    /// Whether a name exists (RFC 8020).
    pub(crate) fn exists(&self, domain: &Domain) -> Result<bool, Trouble> {
        if (self.late)() {
            return Err(Trouble::Temporary);
        }
        match self.dns.txt(domain) {
            Ok(_) | Err(DnsError::NoData) => Ok(true),
            Err(DnsError::NxDomain) => Ok(false),
            Err(DnsError::Temporary(_)) => Err(Trouble::Temporary),
        }
    }

    pub(crate) fn walk(&mut self, start: &Domain) -> Result<Path, Trouble> {
        let mut path = Path {
            start: start.clone(),
            records: Vec::new(),
        };
        for name in names(start) {
            if let Some(record) = self.record(&name)? {
                let ends = record.psd != Psd::Unknown;
                path.records.push((name, record));
                if ends {
                    break;
                }
            }
        }
        Ok(path)
    }
}

impl Path {
    /// RFC 9989 4.10.2.
    pub(crate) fn organization(&self) -> Domain {
        let mut last = &self.start;
        for (domain, record) in &self.records {
            match record.psd {
                Psd::No => return domain.clone(),
                Psd::Yes if *domain != self.start => {
                    return tail(&self.start, labels(domain) + 1).unwrap_or_else(|| domain.clone());
                }
                Psd::Yes | Psd::Unknown => last = domain,
            }
        }
        last.clone()
    }

    /// The record of the organization, or else of the public suffix above it (RFC 9989 4.10.1).
    pub(crate) fn policy(&self) -> Option<&Record> {
        let organization = self.organization();
        let own = self.records.iter().find(|(name, _)| *name == organization);
        let suffix = || {
            self.records
                .iter()
                .find(|(_, record)| record.psd == Psd::Yes)
        };
        own.or_else(suffix).map(|(_, record)| record)
    }
}

/// The names whose records are asked for, at most eight.
fn names(start: &Domain) -> impl Iterator<Item = Domain> {
    let above = labels(start).min(MAX_LABELS) - 1;
    let parents = (1..=above).rev().filter_map(|count| tail(start, count));
    std::iter::once(start.clone()).chain(parents)
}

fn labels(domain: &Domain) -> usize {
    domain.as_str().split('.').count()
}

/// The last labels of a name.
fn tail(domain: &Domain, count: usize) -> Option<Domain> {
    let skipped = labels(domain).checked_sub(count)?;
    let rest = domain.as_str().splitn(skipped + 1, '.').last()?;
    Domain::parse(rest).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dmarc::tests::zone;

    fn d(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    #[test]
    fn the_names_of_the_rfcs_examples() {
        let got = |start: &str| -> Vec<String> {
            names(&d(start))
                .map(|name| name.as_str().to_owned())
                .collect()
        };
        assert_eq!(
            got("a.b.c.d.e.f.g.h.i.j.mail.example.com"),
            [
                "a.b.c.d.e.f.g.h.i.j.mail.example.com",
                "g.h.i.j.mail.example.com",
                "h.i.j.mail.example.com",
                "i.j.mail.example.com",
                "j.mail.example.com",
                "mail.example.com",
                "example.com",
                "com",
            ]
        );
        assert_eq!(got("a.b.c.d.e.f.g.h").len(), 8);
        assert_eq!(got("example.com"), ["example.com", "com"]);
        assert_eq!(got("localhost"), ["localhost"]);
    }

    /// RFC 9989 4.10.2, its examples and more.
    #[test]
    fn organizations() {
        let table = [
            ("", "a.mail.example.com", "a.mail.example.com"),
            (
                "mail.example.com p=none|example.com p=none",
                "a.mail.example.com",
                "example.com",
            ),
            (
                "mail.example.com p=none; psd=n|example.com p=none",
                "a.mail.example.com",
                "mail.example.com",
            ),
            ("com p=none; psd=y", "a.mail.example.com", "example.com"),
            (
                "example.com p=none|com p=none; psd=y",
                "a.mail.example.com",
                "example.com",
            ),
            ("example.com psd=y", "mail.example.com", "mail.example.com"),
            // A suffix that sends mail itself.
            ("com p=none; psd=y", "com", "com"),
            ("com p=none", "example.com", "com"),
            (
                "com p=none; psd=y",
                "a.b.c.d.e.f.g.h.i.example.com",
                "example.com",
            ),
        ];
        for (records, start, wanted) in table {
            let (_file, dns) = zone(records);
            let mut walker = Walker::new(&dns, &|| false);
            let path = walker.walk(&d(start)).unwrap();
            assert_eq!(path.organization().as_str(), wanted, "{records}: {start}");
        }
    }

    #[test]
    fn a_message_has_no_more_than_its_questions() {
        let (_file, dns) = zone("");
        let mut walker = Walker::new(&dns, &|| false);
        for n in 0..MAX_QUESTIONS {
            assert_eq!(walker.record(&d(&format!("d{n}.example"))), Ok(None));
        }
        assert_eq!(walker.record(&d("more.example")), Err(Trouble::TooMany));
        assert_eq!(walker.record(&d("d0.example")), Ok(None));
        let mut late = Walker::new(&dns, &|| true);
        assert_eq!(late.walk(&d("a.example")), Err(Trouble::Temporary));
    }
}
