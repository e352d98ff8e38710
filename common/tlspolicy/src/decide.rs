//! From a destination to what each of its hosts must show: the operator's table, then DANE, then
//! MTA-STS, then TLS where it is offered; and what REQUIRETLS and `TLS-Required: No` make of that.
//!
//! DANE goes first, so that MTA-STS never makes up for a proof that fails (RFC 8461 2). It all
//! blocks, for as long as DNS and one web server may take.

mod known;

use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::config::{Dnssec, LoginNeeds};
use base::{Config, Domain, Fail, Root};
use dns::{Dane, MxAnswer, Proven, ProvenError, Resolve, Target};
use net::tls::{Connector, Name, Proof};

use self::known::Known;

use crate::security::{Failure, Published, Refused, Security, Tls, Why};
use crate::sts::{self, Fetch};
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
    /// The operator's login there will be used.
    pub login: bool,
}

/// Who decides. All that follows from the configuration and what was found out; one a process.
pub struct Decider {
    dns: Arc<dyn Resolve>,
    table: Table,
    /// Whether anything in DNS can be proven.
    proves: bool,
    login_needs: LoginNeeds,
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
    /// Policies of MTA-STS come by HTTPS, from servers that `connector` trusts.
    pub fn open(
        root: &Root,
        config: &Config,
        dns: Arc<dyn Resolve>,
        connector: Connector,
    ) -> Result<Self, Fail> {
        let fetch = sts::https::fetch(connector, Arc::clone(&dns), config.mta_sts_port);
        Self::with(root, config, dns, fetch)
    }

    /// `fetch` gets the policies of MTA-STS.
    pub fn with(
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
            login_needs: config.relay_login_needs,
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
        let security = match asked.wish {
            Wish::RequireTls => known.required(target, security)?,
            Wish::Nothing | Wish::TlsNotRequired => security,
        };
        match asked.login && !target.ip.to_canonical().is_loopback() {
            true => known.for_secret(target, security),
            false => Ok(security),
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
