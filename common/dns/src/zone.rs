//! Answers from a file, in the words of a zone file (RFC 1035 5.1), for tests and private roots.
//!
//! ```text
//! $ORIGIN yubin.test.        ; names without a dot at their end are below it; default: the root
//! @        IN MX    10 mx1   ; owner, optional TTL and class, type, data
//!          IN MX    20 mx2   ; no owner: the one before
//! mx1      IN A     192.0.2.1
//! mx1      IN AAAA  2001:db8::1
//! www      IN CNAME mx1
//! @        IN TXT   "v=spf1" " -all"
//! 1.2.0.192.in-addr.arpa. IN PTR mx1
//! nomail   IN MX    0 .      ; null MX, RFC 7505
//! broken   IN FAIL           ; our own: every question fails as with SERVFAIL
//! half     IN FAIL  MX       ; only this type fails
//! ```
//!
//! A name that is not there does not exist. The file is read again when it changes; where the new
//! one is wrong, the old answers stay and the log says so. Parentheses, wildcards and `\` are not
//! understood.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use base::{Domain, Fail};

use crate::resolve::{self, DnsError, Mx, MxAnswer, Resolve};

/// How many aliases are followed to a name.
const MAX_ALIASES: usize = 8;

/// A zone file and what it said.
#[derive(Debug)]
pub struct Zone {
    path: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    modified: Option<SystemTime>,
    records: Records,
}

/// By owner, in lower case, without the dot at the end.
type Records = BTreeMap<String, Vec<Data>>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Data {
    Address(IpAddr),
    Mx(Mx),
    NullMx,
    Txt(Vec<u8>),
    /// What PTR says.
    Name(Domain),
    Alias(String),
    /// `None`: whatever is asked.
    Fail(Option<Kind>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    A,
    Aaaa,
    Mx,
    Txt,
    Ptr,
}

impl Zone {
    /// Reads it. A file that is not there or wrong is a mistake in the configuration.
    pub fn load(path: &Path) -> Result<Self, Fail> {
        let modified = modified(path);
        let text = fs::read_to_string(path)
            .map_err(|e| Fail::config(format!("read {}: {e}", path.display())))?;
        let records = parse(&text)
            .map_err(|(line, what)| Fail::config(format!("{}:{line}: {what}", path.display())))?;
        Ok(Self {
            path: path.into(),
            read: Mutex::new(Read { modified, records }),
        })
    }

    /// What stands at a name, after its aliases, or why there is nothing.
    fn find(&self, name: &Domain, kinds: &[Kind]) -> Result<Vec<Data>, DnsError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let modified = modified(&self.path);
        if modified != read.modified {
            read.modified = modified;
            match Self::load(&self.path) {
                Ok(new) => {
                    read.records = new
                        .read
                        .into_inner()
                        .unwrap_or_else(PoisonError::into_inner)
                        .records;
                }
                Err(fail) => log::error!("{fail}; keeping what was there before"),
            }
        }
        let mut name = name.as_str();
        for _ in 0..MAX_ALIASES {
            let found = read.records.get(name).ok_or(DnsError::NxDomain)?;
            let fails = |d: &Data| match d {
                Data::Fail(kind) => kind.is_none_or(|k| kinds.contains(&k)),
                _ => false,
            };
            if found.iter().any(fails) {
                return Err(DnsError::Temporary(format!("{name}: server failure")));
            }
            match found.iter().find_map(Data::alias) {
                Some(other) => name = other,
                None => return Ok(found.clone()),
            }
        }
        Err(DnsError::Temporary(format!("{name}: aliases without end")))
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

impl Data {
    fn alias(&self) -> Option<&str> {
        match self {
            Self::Alias(name) => Some(name),
            _ => None,
        }
    }
}

fn some<T>(all: Vec<T>) -> Result<Vec<T>, DnsError> {
    match all.is_empty() {
        true => Err(DnsError::NoData),
        false => Ok(all),
    }
}

impl Resolve for Zone {
    fn mx(&self, domain: &Domain) -> Result<MxAnswer, DnsError> {
        let found = self.find(domain, &[Kind::Mx])?;
        let hosts: Vec<Mx> = found
            .iter()
            .filter_map(|d| match d {
                Data::Mx(mx) => Some(mx.clone()),
                _ => None,
            })
            .collect();
        if !hosts.is_empty() {
            Ok(MxAnswer::Found(hosts))
        } else if found.contains(&Data::NullMx) {
            Ok(MxAnswer::Null)
        } else {
            Err(DnsError::NoData)
        }
    }

    fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, DnsError> {
        let found = self.find(host, &[Kind::A, Kind::Aaaa])?;
        let all: Vec<IpAddr> = found
            .iter()
            .filter_map(|d| match d {
                Data::Address(ip) => Some(*ip),
                _ => None,
            })
            .collect();
        if all.is_empty() {
            return Err(DnsError::NoData);
        }
        Ok(all)
    }

    fn ipv4(&self, host: &Domain) -> Result<Vec<Ipv4Addr>, DnsError> {
        let found = self.find(host, &[Kind::A])?;
        let all = found.iter().filter_map(|d| match d {
            Data::Address(IpAddr::V4(ip)) => Some(*ip),
            _ => None,
        });
        some(all.collect())
    }

    fn ipv6(&self, host: &Domain) -> Result<Vec<Ipv6Addr>, DnsError> {
        let found = self.find(host, &[Kind::Aaaa])?;
        let all = found.iter().filter_map(|d| match d {
            Data::Address(IpAddr::V6(ip)) => Some(*ip),
            _ => None,
        });
        some(all.collect())
    }

    fn ptr(&self, ip: IpAddr) -> Result<Vec<Domain>, DnsError> {
        let name = Domain::parse(&resolve::reverse(ip)).map_err(|_| DnsError::NxDomain)?;
        let found = self.find(&name, &[Kind::Ptr])?;
        let all = found.into_iter().filter_map(|d| match d {
            Data::Name(name) => Some(name),
            _ => None,
        });
        some(all.collect())
    }

    fn txt(&self, name: &Domain) -> Result<Vec<Vec<u8>>, DnsError> {
        let found = self.find(name, &[Kind::Txt])?;
        let all: Vec<_> = found
            .into_iter()
            .filter_map(|d| match d {
                Data::Txt(text) => Some(text),
                _ => None,
            })
            .collect();
        if all.is_empty() {
            return Err(DnsError::NoData);
        }
        Ok(all)
    }
}

/// The whole file, or the first wrong line.
fn parse(text: &str) -> Result<Records, (usize, String)> {
    let mut records = Records::new();
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
            records.entry(owner.clone()).or_default().push(data);
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
        ("FAIL", []) => Data::Fail(None),
        ("FAIL", [kind]) => Data::Fail(Some(match kind.to_ascii_uppercase().as_str() {
            "A" => Kind::A,
            "AAAA" => Kind::Aaaa,
            "MX" => Kind::Mx,
            "TXT" => Kind::Txt,
            "PTR" => Kind::Ptr,
            _ => return Err(bad()),
        })),
        ("SOA" | "NS" | "SRV" | "CAA" | "TLSA", _) => return Ok(None),
        _ => {
            return Err(format!(
                "{kind} is no type that is known here, or its data is wrong"
            ));
        }
    }))
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

    fn d(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    fn zone(text: &str) -> (tempfile::NamedTempFile, Zone) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let zone = Zone::load(file.path()).unwrap();
        (file, zone)
    }

    const SAMPLE: &str = "\
$TTL 3600
$ORIGIN yubin.test.
@        3600 IN SOA ns1 hostmaster 1 2 3 4 5
@        IN MX 10 mx1        ; a comment
         IN MX 20 MX2.Other.
mx1      IN A 192.0.2.1
         60 IN AAAA 2001:db8::1
www      CNAME mx1
deep     CNAME www
loop     CNAME pool
pool     CNAME loop
@        IN TXT \"v=spf1; \" \"-all\"
_dmarc   IN TXT v=DMARC1
null     IN MX 0 .
broken   IN FAIL
half     IN FAIL MX
half     IN A 192.0.2.3
mx2.other. IN A 192.0.2.2
";

    #[test]
    fn answers_what_the_file_says() {
        let (_file, zone) = zone(SAMPLE);
        assert_eq!(
            zone.mx(&d("Yubin.Test")),
            Ok(MxAnswer::Found(vec![
                Mx {
                    preference: 10,
                    host: d("mx1.yubin.test")
                },
                Mx {
                    preference: 20,
                    host: d("mx2.other")
                },
            ]))
        );
        let both = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        for name in ["mx1.yubin.test", "www.yubin.test", "deep.yubin.test"] {
            assert_eq!(zone.addresses(&d(name)), Ok(both.clone()), "{name}");
        }
        assert_eq!(zone.mx(&d("null.yubin.test")), Ok(MxAnswer::Null));
        assert_eq!(
            zone.txt(&d("yubin.test")),
            Ok(vec![b"v=spf1; -all".to_vec()])
        );
        assert!(zone.txt(&d("_dmarc.yubin.test")).is_ok());
        assert_eq!(zone.mx(&d("mx1.yubin.test")), Err(DnsError::NoData));
        assert_eq!(zone.mx(&d("no.yubin.test")), Err(DnsError::NxDomain));
        for name in ["broken.yubin.test", "half.yubin.test", "loop.yubin.test"] {
            assert!(zone.mx(&d(name)).unwrap_err().is_temporary(), "{name}");
        }
        assert!(zone.addresses(&d("half.yubin.test")).is_ok());
    }

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
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text:?}");
        }
    }

    #[test]
    fn a_new_file_is_read_and_a_wrong_one_changes_nothing() {
        let (file, zone) = zone("a A 192.0.2.1\n");
        let rewrite = |text: &str, age: u64| {
            fs::write(file.path(), text).unwrap();
            let time = SystemTime::now() - std::time::Duration::from_secs(age);
            file.as_file().set_modified(time).unwrap();
        };
        rewrite("b A 192.0.2.1\n", 100);
        assert!(zone.addresses(&d("b")).is_ok());
        assert_eq!(zone.addresses(&d("a")), Err(DnsError::NxDomain));
        rewrite("b A nonsense\n", 200);
        assert!(zone.addresses(&d("b")).is_ok());
    }
}
