//! From a destination to what each of its hosts must show: the operator's table, then DANE, then
//! MTA-STS, then TLS where it is offered; and what REQUIRETLS and `TLS-Required: No` make of that.
//!
//! DANE goes first, so that MTA-STS never makes up for a proof that fails (RFC 8461 2). It all
//! blocks, for as long as DNS and one web server may take.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::config::Dnssec;
use base::{Config, Domain, Fail, Root};
use dns::{Dane, MxAnswer, Proven, ProvenError, Resolve, Target};
use net::tls::{Name, Proof, Tlsa};

use crate::security::{Failure, Published, Refused, Security, Tls, Why};
use crate::sts::{self, Fetch, Mode, Sts};
use crate::table::{Level, Match, Table};

/// Below the root: the policies of MTA-STS.
pub const STS_DIRECTORY: &str = "/var/spool/yubin/mta-sts";
/// How long what DNS proved is not asked for again: a burst of mail to one place asks once.
const REMEMBER: Duration = Duration::from_secs(60);
/// Names that are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// Where a message goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// To the mail exchangers of this domain.
    Mx(&'a Domain),
    /// To this host, which the operator names.
    Host(&'a Domain),
}

impl<'a> Next<'a> {
    pub fn domain(self) -> &'a Domain {
        match self {
            Self::Mx(domain) | Self::Host(domain) => domain,
        }
    }
}

/// What the sender wants: RFC 8689.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Nothing,
    /// REQUIRETLS: to proven hosts only.
    RequireTls,
    /// `TLS-Required: No`: what the recipient's domain has published shall not matter.
    TlsNotRequired,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub next: Next<'a>,
    /// Those that will be tried.
    pub targets: &'a [Target],
    pub port: u16,
    pub wish: Wish,
}

/// Who decides. All that follows from the configuration and what was found out; one a process.
pub struct Decider {
    dns: Arc<dyn Resolve>,
    table: Table,
    /// Whether anything in DNS can be proven.
    proves: bool,
    sts: Option<sts::Policies>,
    exchangers: Remembered<Domain, Exchangers>,
    records: Remembered<(Domain, u16), Option<Dane>>,
}

impl std::fmt::Debug for Decider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decider").finish_non_exhaustive()
    }
}

/// What is proven of a domain's exchangers.
#[derive(Debug, Clone)]
enum Exchangers {
    /// Nothing: anybody may have said so.
    Unproven,
    Proven(Arc<[Domain]>),
    /// There are none: the domain is its own host.
    Itself,
}

impl Decider {
    /// `fetch` gets the policies of MTA-STS.
    pub fn open(
        root: &Root,
        config: &Config,
        dns: Arc<dyn Resolve>,
        fetch: Box<Fetch>,
    ) -> Result<Self, Fail> {
        let directory = root.path(Path::new(STS_DIRECTORY));
        let sts = sts::Policies::new(&directory, Arc::clone(&dns), fetch);
        Ok(Self {
            table: Table::load(&config.tls_policy)?,
            proves: config.dnssec != Dnssec::No,
            sts: config.mta_sts.then_some(sts),
            dns,
            exchangers: Remembered::new(),
            records: Remembered::new(),
        })
    }

    /// The policies of MTA-STS, for their daily upkeep; `None` where they are not asked for.
    pub fn sts(&self) -> Option<&sts::Policies> {
        self.sts.as_ref()
    }

    /// What each target must show, in their order.
    pub fn policy_for(&self, asked: &Asked<'_>) -> Vec<Result<Security, Refused>> {
        let level = match asked.next {
            Next::Mx(domain) => self.table.of_domain(domain),
            Next::Host(host) => self.table.of_host(host, asked.port),
        };
        let published = Known::new(self, asked);
        let all = asked.targets.iter();
        all.map(|target| self.one(asked, level, &published, target))
            .collect()
    }

    fn one(
        &self,
        asked: &Asked<'_>,
        level: &Level,
        known: &Known<'_>,
        target: &Target,
    ) -> Result<Security, Refused> {
        let host = &target.host;
        let name = name_of(host);
        let own = |tls, proof: Proof| Security {
            tls,
            strict: proof != Proof::Any,
            proof,
            name: name.clone(),
            why: Why::Table,
            published: Published::Nothing,
        };
        let free = asked.wish == Wish::TlsNotRequired;
        let security = match level {
            Level::None => own(Tls::Never, Proof::Any),
            Level::May => own(Tls::May, Proof::Any),
            Level::Encrypt => own(Tls::Must, Proof::Any),
            Level::Verify(names) => {
                let names = names.iter().map(|m| m.name(host, asked.next.domain()));
                let names = names.collect();
                own(Tls::Must, Proof::Pkix { names })
            }
            Level::Fingerprint(all) => own(Tls::Must, Proof::Fingerprint(all.clone())),
            Level::DaneOnly => known.dane(target)?.ok_or_else(|| {
                let text = format!("{host} has no TLSA records, which TLS_POLICY wants");
                Refused::later(Failure::DaneRequired, text, Published::Nothing)
            })?,
            Level::Dane => match known.dane(target)? {
                Some(security) => security,
                None => own(Tls::May, Proof::Any),
            },
            Level::Auto if free => Security::opportunistic(name, Published::Nothing),
            Level::Auto => match known.dane(target)? {
                Some(security) => security,
                None => known.sts(target)?,
            },
        };
        match asked.wish {
            Wish::RequireTls => known.required(target, security),
            Wish::Nothing | Wish::TlsNotRequired => Ok(security),
        }
    }

    fn exchangers(&self, domain: &Domain) -> Result<Exchangers, ProvenError> {
        self.exchangers.get(domain, || {
            Ok(match self.dns.proven_mx(domain) {
                Ok(answer) if !answer.is_secure() => Exchangers::Unproven,
                Ok(Proven {
                    value: MxAnswer::Found(all),
                    ..
                }) => Exchangers::Proven(all.into_iter().map(|mx| mx.host).collect()),
                Ok(_) => Exchangers::Proven([].into()),
                Err(ProvenError::None) => Exchangers::Itself,
                Err(e) => return Err(e),
            })
        })
    }

    fn records(&self, host: &Domain, port: u16) -> Result<Option<Dane>, ProvenError> {
        self.records.get(&(host.clone(), port), || {
            dns::dane(self.dns.as_ref(), host, port)
        })
    }
}

/// The name that a server is asked for: of an address literal, the address.
fn name_of(host: &Domain) -> String {
    match host.ip() {
        Some(ip) => ip.to_string(),
        None => host.as_str().to_owned(),
    }
}

impl Match {
    fn name(&self, host: &Domain, nexthop: &Domain) -> Name {
        match self {
            Self::Hostname => Name::Is(name_of(host)),
            Self::Nexthop => Name::Is(name_of(nexthop)),
            Self::DotNexthop => Name::Below(name_of(nexthop)),
            Self::This(name) => name.clone(),
        }
    }
}

/// What is found out for one destination, when it is first needed.
struct Known<'a> {
    decider: &'a Decider,
    asked: &'a Asked<'a>,
    exchangers: std::cell::OnceCell<Result<Exchangers, ProvenError>>,
    policy: std::cell::OnceCell<Sts>,
}

impl<'a> Known<'a> {
    fn new(decider: &'a Decider, asked: &'a Asked<'a>) -> Self {
        Self {
            decider,
            asked,
            exchangers: std::cell::OnceCell::new(),
            policy: std::cell::OnceCell::new(),
        }
    }

    fn exchangers(&self) -> Result<Exchangers, ProvenError> {
        let ask = || match self.asked.next {
            _ if !self.decider.proves => Ok(Exchangers::Unproven),
            Next::Host(_) => Ok(Exchangers::Itself),
            Next::Mx(domain) if domain.ip().is_some() => Ok(Exchangers::Itself),
            Next::Mx(domain) => self.decider.exchangers(domain),
        };
        self.exchangers.get_or_init(ask).clone()
    }

    fn policy(&self) -> &Sts {
        self.policy
            .get_or_init(|| match (&self.decider.sts, self.asked.next) {
                (Some(sts), Next::Mx(domain)) => sts.of(domain),
                // RFC 8461 is about a domain's exchangers; a host has none.
                _ => Sts::None,
            })
    }

    /// Whether nobody but the domain, or the operator, can have named this host; an error where that
    /// cannot be known, or where the domain has others.
    fn is_proven(&self, host: &Domain) -> Result<bool, Refused> {
        let domain = self.asked.next.domain();
        match self.exchangers() {
            Ok(Exchangers::Unproven) => Ok(false),
            // Without exchangers the domain is its own host, and a certificate says which it is.
            Ok(Exchangers::Itself) if host == domain => Ok(true),
            Ok(Exchangers::Proven(all)) if all.contains(host) => Ok(true),
            Ok(Exchangers::Itself | Exchangers::Proven(_)) => Err(Refused::later(
                Failure::DnssecInvalid,
                format!("{host} is no mail exchanger that {domain} has signed"),
                Published::Nothing,
            )),
            Err(e) => Err(unknown(domain, &e)),
        }
    }

    /// RFC 7672 2.2: what DANE wants; `None` where it does not apply.
    fn dane(&self, target: &Target) -> Result<Option<Security>, Refused> {
        if !self.decider.proves || !self.is_proven(&target.host)? {
            return Ok(None);
        }
        let records = self.decider.records(&target.host, self.asked.port);
        let Some(dane) = records.map_err(|e| unknown(&target.host, &e))? else {
            return Ok(None);
        };
        let prefix = format!("_{}._tcp.{} IN TLSA", self.asked.port, dane.base);
        let published = dane
            .records
            .iter()
            .map(|record| format!("{prefix} {record}"));
        let published = Published::Tlsa(published.collect());
        let records: Vec<Tlsa> = dane.records.into_iter().map(tlsa).collect();
        // RFC 7672 3.2.2: the base domain, the host as it was named, the destination.
        let mut names = vec![dane.base.as_str().to_owned()];
        for name in [&target.host, self.asked.next.domain()] {
            if name.ip().is_none() && !names.iter().any(|known| known == name.as_str()) {
                names.push(name.as_str().to_owned());
            }
        }
        let is_usable = records.iter().any(Tlsa::is_usable);
        Ok(Some(Security {
            tls: Tls::Must,
            // RFC 7672 2.2: with none that is usable, TLS must be, and that is all.
            proof: match is_usable {
                true => Proof::Dane { records, names },
                false => Proof::Any,
            },
            strict: is_usable,
            name: dane.base.as_str().to_owned(),
            why: Why::Dane,
            published,
        }))
    }

    /// RFC 8461 4: what the domain's policy wants, or nothing in particular.
    fn sts(&self, target: &Target) -> Result<Security, Refused> {
        let (host, name) = (&target.host, name_of(&target.host));
        let policy = match self.policy() {
            Sts::None => return Ok(Security::opportunistic(name, Published::Nothing)),
            Sts::Unknown(why) => {
                let published = Published::UnknownSts(why.clone());
                return Ok(Security::opportunistic(name, published));
            }
            Sts::Policy(policy) => policy,
        };
        let published = Published::Sts(Arc::clone(policy));
        let strict = match policy.mode {
            Mode::None => return Ok(Security::opportunistic(name, Published::Nothing)),
            Mode::Testing => false,
            Mode::Enforce => true,
        };
        if strict && !policy.names(host) {
            let domain = self.asked.next.domain();
            let text = format!("{host} is not in the MTA-STS policy of {domain}");
            return Err(Refused::later(Failure::Validation, text, published));
        }
        Ok(Security {
            tls: match strict {
                true => Tls::Must,
                false => Tls::May,
            },
            // In testing a host that is not named can have no certificate that would do.
            proof: Proof::Pkix {
                names: match policy.names(host) {
                    true => vec![Name::Is(name.clone())],
                    false => Vec::new(),
                },
            },
            strict,
            name,
            why: Why::Sts,
            published,
        })
    }

    /// RFC 8689 4.2.1: a host that the domain has named, as DNSSEC or MTA-STS proves, and that proves
    /// itself.
    fn required(&self, target: &Target, security: Security) -> Result<Security, Refused> {
        let host = &target.host;
        let domain = self.asked.next.domain();
        let is_strict = security.strict && security.tls == Tls::Must;
        if is_strict && security.why != Why::Table {
            return Ok(security);
        }
        if security.tls == Tls::Never {
            let text =
                format!("TLS_POLICY has {domain} reached without TLS, and the sender requires it");
            return Err(Refused::unfit(text));
        }
        let is_in_policy =
            matches!(self.policy(), Sts::Policy(p) if p.mode != Mode::None && p.names(host));
        let is_operators = matches!(self.asked.next, Next::Host(_)) || is_strict;
        if !is_operators && !is_in_policy && !self.is_proven(host)? {
            let text = format!(
                "neither DNSSEC nor MTA-STS proves that {host} is a mail exchanger of {domain}, which REQUIRETLS needs"
            );
            return Err(Refused::unfit(text));
        }
        if is_strict {
            return Ok(security);
        }
        let name = name_of(host);
        Ok(Security {
            tls: Tls::Must,
            proof: Proof::Pkix {
                names: vec![Name::Is(name.clone())],
            },
            strict: true,
            name,
            why: Why::RequireTls,
            published: security.published,
        })
    }
}

/// RFC 7672 2.1.1: what DNSSEC proves to be wrong, or does not say, is no reason to go without.
fn unknown(name: &Domain, error: &ProvenError) -> Refused {
    let failure = match error {
        ProvenError::Bogus(_) => Failure::DnssecInvalid,
        ProvenError::None | ProvenError::Temporary(_) => Failure::Validation,
    };
    let text = format!("looking up the security of {name}: {error}");
    Refused::later(failure, text, Published::Nothing)
}

fn tlsa(record: dns::Tlsa) -> Tlsa {
    Tlsa {
        usage: record.usage,
        selector: record.selector,
        matching: record.matching,
        data: record.data,
    }
}

/// What was found out a short while ago. Errors are not remembered.
struct Remembered<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Clone + Eq + Hash, V: Clone> Remembered<K, V> {
    fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    fn get<E>(&self, key: &K, find: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, value)) = lock().get(key)
            && Instant::now() < *until
        {
            return Ok(value.clone());
        }
        // Others are not held up meanwhile.
        let value = find()?;
        let now = Instant::now();
        let mut known = lock();
        if known.len() >= MAX_REMEMBERED {
            known.retain(|_, (until, _)| now < *until);
        }
        if known.len() < MAX_REMEMBERED {
            known.insert(key.clone(), (now + REMEMBER, value.clone()));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests;
