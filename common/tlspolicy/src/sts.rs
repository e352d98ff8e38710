//! MTA-STS (RFC 8461): a domain says over HTTPS which hosts its mail goes to, and that they have good
//! certificates; who has read that once believes it for as long as it says.
//!
//! What stands in the cache counts until its time is over, whatever DNS and the web say later, so
//! that nobody can make us forget it by getting in the way. It is read again when its id in DNS
//! changes, and once a day behind the sender's back. A domain whose policy was never read is as one
//! without (RFC 8461 5.1).

mod cache;
pub mod https;
mod policy;
mod record;

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use base::Domain;
use dns::{DnsError, Resolve};

use self::cache::{Cache, Cached, since};
pub use self::policy::{Mode, Pattern, Policy};
use self::record::record;

/// RFC 8461 3.3: no more is read.
pub const MAX_POLICY: usize = 64 * 1024;
/// RFC 8461 3.3: for all of a fetch.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// How old a policy may be that is not asked for again.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// How long a policy is read again without any mail.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a fetch is not tried again that has failed.
const PAUSE: Duration = Duration::from_secs(300);
/// Domains whose failure is remembered.
const MAX_FAILED: usize = 10_000;
/// Domains that wait to be read again.
const MAX_WAITING: usize = 1000;

/// Gets `https://mta-sts.DOMAIN/.well-known/mta-sts.txt`, given as host and path: over TLS with a
/// certificate for that host, 200 and text/plain, without following a redirection, no longer than
/// [`MAX_POLICY`] and [`FETCH_TIMEOUT`] (RFC 8461 3.3).
pub type Fetch = dyn Fn(&str, &str) -> Result<Vec<u8>, FetchError> + Send + Sync;

/// Why a policy could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// The web server's certificate.
    Certificate(String),
    /// All else on the way there.
    Failed(String),
    /// What came is no policy.
    Invalid(String),
}

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Certificate(why) | Self::Failed(why) | Self::Invalid(why)) = self;
        f.write_str(why)
    }
}

/// What counts for a domain now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sts {
    /// It has no policy.
    None,
    /// It says that it has one, which was never read.
    Unknown(FetchError),
    /// It stands until then.
    Policy(Arc<Policy>),
}

/// The policies of all domains. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Policies(Arc<Inner>);

struct Inner {
    dns: Arc<dyn Resolve>,
    fetch: Box<Fetch>,
    cache: Cache,
    failed: Mutex<HashMap<Domain, Failed>>,
    /// To the thread that reads again, where there is one.
    stale: Mutex<Option<SyncSender<Domain>>>,
}

struct Failed {
    id: String,
    until: Instant,
    why: FetchError,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").finish_non_exhaustive()
    }
}

impl Policies {
    /// `directory` is made when the first policy is kept.
    pub fn new(directory: &Path, dns: Arc<dyn Resolve>, fetch: Box<Fetch>) -> Self {
        Self(Arc::new(Inner {
            dns,
            fetch,
            cache: Cache::new(directory),
            failed: Mutex::new(HashMap::new()),
            stale: Mutex::new(None),
        }))
    }

    /// What counts for `domain`. Blocks for a look-up in DNS, and for a fetch where its policy is new.
    pub fn of(&self, domain: &Domain) -> Sts {
        if domain.ip().is_some() {
            return Sts::None;
        }
        let now = SystemTime::now();
        let cached = self.0.cache.get(domain, now);
        let id = self.0.id(domain);
        match (cached, id) {
            (Some(cached), Ok(Some(id))) if cached.id != id => {
                match self.0.read(domain, &id, now) {
                    Ok(policy) => Sts::Policy(policy),
                    // The new one cannot be had: the old one stands.
                    Err(_) => Sts::Policy(cached.policy),
                }
            }
            (Some(cached), _) => {
                self.0.cache.used(domain, now);
                if cached.is_stale(now) {
                    self.read_later(domain);
                }
                Sts::Policy(cached.policy)
            }
            (None, Ok(Some(id))) => match self.0.read(domain, &id, now) {
                Ok(policy) => Sts::Policy(policy),
                Err(why) => Sts::Unknown(why),
            },
            // RFC 8461 3.1: without a record there is none; and who cannot say is no reason to wait.
            (None, Ok(None) | Err(_)) => Sts::None,
        }
    }

    /// Reads again what is a day old and was asked for in the last month: for who runs once a day, so
    /// that no policy ends because no mail went there meanwhile. Removes what is over.
    pub fn upkeep(&self) {
        let now = SystemTime::now();
        let cache = &self.0.cache;
        for domain in cache.domains() {
            let Some(cached) = cache.get(&domain, now) else {
                cache.remove(&domain);
                continue;
            };
            let used = cache.last_used(&domain).unwrap_or(now);
            if cached.is_stale(now) && since(used, now) < REMEMBERED {
                self.0.read_again(&domain, now);
                cache.set_used(&domain, used);
            }
        }
    }

    /// By the thread. Where it has too much to do, another mail will ask again.
    fn read_later(&self, domain: &Domain) {
        let mut stale = self.0.stale.lock().unwrap_or_else(PoisonError::into_inner);
        if stale.is_none() {
            let (to, waiting) = sync_channel::<Domain>(MAX_WAITING);
            let inner = Arc::downgrade(&self.0);
            let thread = thread::Builder::new()
                .name("mta-sts".into())
                .spawn(move || {
                    for domain in waiting {
                        match inner.upgrade() {
                            Some(inner) => inner.read_again(&domain, SystemTime::now()),
                            None => return,
                        }
                    }
                });
            match thread {
                Ok(_) => *stale = Some(to),
                Err(e) => return log::warn!("MTA-STS: start a thread: {e}"),
            }
        }
        if let Some(to) = &*stale {
            // Full: it waits there already, or for the next mail.
            to.try_send(domain.clone()).ok();
        }
    }
}

impl Cached {
    fn is_stale(&self, now: SystemTime) -> bool {
        self.age(now) > FRESH.min(self.policy.max_age / 2)
    }
}

impl Inner {
    /// The id that DNS has; `None` where there is no policy.
    fn id(&self, domain: &Domain) -> Result<Option<String>, DnsError> {
        let Ok(name) = Domain::parse(&format!("_mta-sts.{domain}")) else {
            return Ok(None);
        };
        match self.dns.txt(&name) {
            Ok(texts) => Ok(record(&texts)),
            Err(DnsError::NxDomain | DnsError::NoData) => Ok(None),
            Err(e @ DnsError::Temporary(_)) => Err(e),
        }
    }

    fn read_again(&self, domain: &Domain, now: SystemTime) {
        // Another mail was here before.
        let is_fresh = |cached: Cached| cached.age(now) < PAUSE;
        if self.cache.get(domain, now).is_some_and(is_fresh) {
            return;
        }
        if let Ok(Some(id)) = self.id(domain) {
            // What goes wrong was logged; the policy stands as long as it says.
            self.read(domain, &id, now).ok();
        }
    }

    /// Fetches and keeps it.
    fn read(&self, domain: &Domain, id: &str, now: SystemTime) -> Result<Arc<Policy>, FetchError> {
        if let Some(why) = self.failure(domain, id) {
            return Err(why);
        }
        let host = format!("mta-sts.{domain}");
        let found = (self.fetch)(&host, "/.well-known/mta-sts.txt");
        let policy = found.and_then(|text| {
            let policy = Policy::parse(&text).map_err(|e| FetchError::Invalid(e.to_string()))?;
            Ok((policy, text))
        });
        match policy {
            Ok((policy, text)) => {
                let policy = Arc::new(policy);
                let cached = Cached {
                    id: id.into(),
                    fetched: now,
                    policy: Arc::clone(&policy),
                };
                if let Err(e) = self.cache.put(domain, &cached, &text) {
                    log::warn!("MTA-STS: keep the policy of {domain}: {e}");
                }
                log::info!(
                    "MTA-STS: policy of {domain} read, id={id}, mode={}",
                    policy.mode
                );
                Ok(policy)
            }
            Err(why) => {
                log::warn!("MTA-STS: the policy of {domain} cannot be read: {why}");
                self.note(domain, id, &why);
                Err(why)
            }
        }
    }

    fn failure(&self, domain: &Domain, id: &str) -> Option<FetchError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = failed.get(domain)?;
        (known.id == id && Instant::now() < known.until).then(|| known.why.clone())
    }

    fn note(&self, domain: &Domain, id: &str, why: &FetchError) {
        let now = Instant::now();
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= MAX_FAILED {
            failed.retain(|_, known| now < known.until);
        }
        if failed.len() < MAX_FAILED {
            failed.insert(
                domain.clone(),
                Failed {
                    id: id.into(),
                    until: now + PAUSE,
                    why: why.clone(),
                },
            );
        }
    }
}

#[cfg(test)]
mod tests;
