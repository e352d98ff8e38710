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
//! forged   IN BOGUS          ; our own: what DNSSEC proves to be forged, to who asks for proof
//! $SECURE  example.org.      ; our own: from the root or this name on down all is signed
//! _25._tcp.mx1 IN TLSA 3 1 1 8cb0...
//! ```
//!
//! A name that is not there does not exist. The file is read again when it changes; where the new
//! one is wrong, the old answers stay and the log says so. Parentheses, wildcards and `\` are not
//! understood.

mod parse;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use base::{Domain, Fail};

use self::parse::parse;
use crate::proven::{Place, Proven, ProvenError, State, Tlsa};
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

#[derive(Debug, Default)]
struct Records {
    /// By owner, in lower case, without the dot at the end.
    named: BTreeMap<String, Vec<Data>>,
    /// The tops of what is signed; the root is empty.
    secure: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Data {
    Address(IpAddr),
    Mx(Mx),
    NullMx,
    Txt(Vec<u8>),
    /// What PTR says.
    Name(Domain),
    Alias(String),
    Tlsa(Tlsa),
    /// `None`: whatever is asked.
    Fail(Option<Kind>),
    /// The same.
    Bogus(Option<Kind>),
}

/// What stands at a name, and how it was found.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    data: Vec<Data>,
    /// Where an alias led.
    name: Option<String>,
    first: State,
    whole: State,
    bogus: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    A,
    Aaaa,
    Mx,
    Txt,
    Ptr,
    Tlsa,
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
        self.walk(name, kinds).map(|found| found.data)
    }

    /// The same with proof.
    fn prove(&self, name: &Domain, kinds: &[Kind]) -> Result<Found, ProvenError> {
        let found = self.walk(name, kinds)?;
        match found.bogus {
            Some(name) => Err(ProvenError::Bogus(format!("{name}: forged"))),
            None => Ok(found),
        }
    }

    fn walk(&self, name: &Domain, kinds: &[Kind]) -> Result<Found, DnsError> {
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
        let first = read.records.state(name);
        let (mut whole, mut bogus) = (first, None);
        for turn in 0..MAX_ALIASES {
            let found = read.records.named.get(name).ok_or(DnsError::NxDomain)?;
            let concerns = |kind: &Option<Kind>| kind.is_none_or(|k| kinds.contains(&k));
            let has = |test: &dyn Fn(&Data) -> bool| found.iter().any(test);
            if has(&|d| matches!(d, Data::Fail(kind) if concerns(kind))) {
                return Err(DnsError::Temporary(format!("{name}: server failure")));
            }
            if has(&|d| matches!(d, Data::Bogus(kind) if concerns(kind))) {
                bogus = Some(name.to_owned());
            }
            if read.records.state(name) == State::Insecure {
                whole = State::Insecure;
            }
            match found.iter().find_map(Data::alias) {
                Some(other) => name = other,
                None => {
                    return Ok(Found {
                        data: found.clone(),
                        name: (turn > 0).then(|| name.to_owned()),
                        first,
                        whole,
                        bogus,
                    });
                }
            }
        }
        Err(DnsError::Temporary(format!("{name}: aliases without end")))
    }
}

impl Records {
    fn state(&self, name: &str) -> State {
        let is_below = |top: &String| {
            top.is_empty()
                || name
                    .strip_suffix(top.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        match self.secure.iter().any(is_below) {
            true => State::Secure,
            false => State::Insecure,
        }
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

fn exchangers(found: &[Data]) -> Result<MxAnswer, DnsError> {
    let hosts = found.iter().filter_map(|d| match d {
        Data::Mx(mx) => Some(mx.clone()),
        _ => None,
    });
    match (some(hosts.collect()), found.contains(&Data::NullMx)) {
        (Ok(hosts), _) => Ok(MxAnswer::Found(hosts)),
        (Err(_), true) => Ok(MxAnswer::Null),
        (Err(e), false) => Err(e),
    }
}

impl Resolve for Zone {
    fn mx(&self, domain: &Domain) -> Result<MxAnswer, DnsError> {
        exchangers(&self.find(domain, &[Kind::Mx])?)
    }

    fn proven_mx(&self, domain: &Domain) -> Result<Proven<MxAnswer>, ProvenError> {
        let found = self.prove(domain, &[Kind::Mx])?;
        Ok(Proven {
            state: found.whole,
            value: exchangers(&found.data)?,
        })
    }

    fn place(&self, host: &Domain) -> Result<Proven<Place>, ProvenError> {
        let found = self.prove(host, &[Kind::A, Kind::Aaaa])?;
        if !found.data.iter().any(|d| matches!(d, Data::Address(_))) {
            return Err(ProvenError::None);
        }
        Ok(Proven {
            state: found.whole,
            value: Place {
                alias: found.name.and_then(|name| Domain::parse(&name).ok()),
                first: found.first,
            },
        })
    }

    fn tlsa(&self, name: &Domain) -> Result<Proven<Vec<Tlsa>>, ProvenError> {
        let found = self.prove(name, &[Kind::Tlsa])?;
        let all = found.data.into_iter().filter_map(|d| match d {
            Data::Tlsa(record) => Some(record),
            _ => None,
        });
        Ok(Proven {
            state: found.whole,
            value: some(all.collect())?,
        })
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
