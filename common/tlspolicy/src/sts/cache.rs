//! Policies on the disk, one file a domain, replaced whole: after a crash there is the old or the new.
//!
//! ```text
//! yubin mta-sts 1
//! id=20160831085700Z
//! fetched=1764000000
//!
//! version: STSv1
//! ...
//! ```
//!
//! The time of a file is that of the last mail that its policy was asked for, to a day.
//!
//! Any process may remove a file at any time; then its policy is read anew. One that is damaged, or
//! comes from the future, is as if it were not there.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{Doing, Domain, Fail, durable};

use super::Policy;

const MAGIC: &str = "yubin mta-sts 1";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Domains whose policies are in memory.
const MAX_KNOWN: usize = 10_000;
/// And on the disk: what is more is not kept.
const MAX_FILES: usize = 100_000;

/// A policy, and since when it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cached {
    pub(super) id: String,
    pub(super) fetched: SystemTime,
    pub(super) policy: Arc<Policy>,
}

impl Cached {
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        since(self.fetched, now)
    }

    /// Whether it still stands. A clock that went back makes nothing last longer.
    fn holds(&self, now: SystemTime) -> bool {
        self.fetched <= now && self.age(now) < self.policy.max_age
    }
}

/// Nothing, where that is to come.
pub(super) fn since(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

pub(super) struct Cache {
    directory: PathBuf,
    known: Mutex<HashMap<Domain, Cached>>,
}

impl Cache {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.into(),
            known: Mutex::new(HashMap::new()),
        }
    }

    /// What is kept and still stands.
    pub(super) fn get(&self, domain: &Domain, now: SystemTime) -> Option<Cached> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = known.get(domain) {
            return cached.holds(now).then(|| cached.clone());
        }
        let cached = read(&fs::read(self.path(domain)).ok()?)?;
        remember(&mut known, domain, &cached, now);
        cached.holds(now).then_some(cached)
    }

    /// Keeps it, in memory in any case.
    pub(super) fn put(&self, domain: &Domain, cached: &Cached, text: &[u8]) -> Result<(), Fail> {
        let seconds = cached
            .fetched
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let head = format!(
            "{MAGIC}\nid={}\nfetched={}\n\n",
            cached.id,
            seconds.as_secs()
        );
        let whole = [head.as_bytes(), text].concat();
        remember(
            &mut self.known.lock().unwrap_or_else(PoisonError::into_inner),
            domain,
            cached,
            cached.fetched,
        );
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&self.directory)
            .doing(|| format!("make {}", self.directory.display()))?;
        durable::replace(&self.path(domain), &whole, 0o600)
    }

    /// A mail goes there.
    pub(super) fn used(&self, domain: &Domain, now: SystemTime) {
        if self
            .last_used(domain)
            .is_none_or(|then| since(then, now) > DAY)
        {
            self.set_used(domain, now);
        }
    }

    pub(super) fn last_used(&self, domain: &Domain) -> Option<SystemTime> {
        fs::metadata(self.path(domain))
            .and_then(|m| m.modified())
            .ok()
    }

    /// What cannot be noted costs a fetch at worst.
    pub(super) fn set_used(&self, domain: &Domain, at: SystemTime) {
        let file = File::options().write(true).open(self.path(domain));
        file.and_then(|file| file.set_modified(at)).ok();
    }

    pub(super) fn remove(&self, domain: &Domain) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(domain);
        // One that stays is read again, and found to be over again.
        fs::remove_file(self.path(domain)).ok();
    }

    /// Those on the disk.
    pub(super) fn domains(&self) -> Vec<Domain> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        entries
            .flatten()
            .take(MAX_FILES)
            .filter_map(|entry| Domain::parse(entry.file_name().to_str()?).ok())
            .collect()
    }

    fn path(&self, domain: &Domain) -> PathBuf {
        // The name of a domain has neither a slash nor a dot at its start.
        self.directory.join(domain.as_str())
    }
}

fn remember(
    known: &mut HashMap<Domain, Cached>,
    domain: &Domain,
    cached: &Cached,
    now: SystemTime,
) {
    if known.len() >= MAX_KNOWN {
        known.retain(|_, cached| cached.holds(now));
    }
    if known.len() < MAX_KNOWN || known.contains_key(domain) {
        known.insert(domain.clone(), cached.clone());
    }
}

fn read(whole: &[u8]) -> Option<Cached> {
    let text = std::str::from_utf8(whole).ok()?;
    let (head, policy) = text.split_once("\n\n")?;
    let mut lines = head.lines();
    let is_ours = lines.next() == Some(MAGIC);
    let id = lines.next()?.strip_prefix("id=")?.to_owned();
    let fetched = lines.next()?.strip_prefix("fetched=")?.parse().ok()?;
    is_ours.then_some(Cached {
        id,
        fetched: UNIX_EPOCH.checked_add(Duration::from_secs(fetched))?,
        policy: Arc::new(Policy::parse(policy.as_bytes()).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &[u8] = b"version: STSv1\nmode: testing\nmx: a.b\nmax_age: 1000\n";

    fn cached(fetched: SystemTime) -> Cached {
        Cached {
            id: "1".into(),
            fetched,
            policy: Arc::new(Policy::parse(POLICY).unwrap()),
        }
    }

    #[test]
    fn what_is_kept_is_there_for_the_next_process_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("new");
        let domain = Domain::parse("example.org").unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let later = |seconds| now + Duration::from_secs(seconds);
        Cache::new(&place)
            .put(&domain, &cached(now), POLICY)
            .unwrap();
        let cache = Cache::new(&place);
        assert_eq!(cache.get(&domain, now), Some(cached(now)));
        assert_eq!(cache.get(&domain, later(999)), Some(cached(now)));
        assert_eq!(cache.get(&domain, later(1000)), None);
        let before = now - Duration::from_secs(1);
        assert_eq!(cache.get(&domain, before), None, "from the future");
        assert_eq!(cache.domains().first(), Some(&domain));
        cache.remove(&domain);
        assert_eq!(Cache::new(&place).get(&domain, now), None);
    }

    #[test]
    fn damaged_files_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let domain = Domain::parse("example.org").unwrap();
        let good = "yubin mta-sts 1\nid=1\nfetched=1700000000\n\nversion: STSv1\nmode: testing\nmx: a.b\nmax_age: 1000\n";
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_001);
        let get = |text: &str| {
            fs::write(dir.path().join("example.org"), text).unwrap();
            Cache::new(dir.path()).get(&domain, now)
        };
        assert!(get(good).is_some());
        for bad in [
            "",
            "yubin mta-sts 2\nid=1\nfetched=1700000000\n\nversion: STSv1\nmode: none\nmax_age: 1\n",
            "yubin mta-sts 1\nid=1\nfetched=x\n\nversion: STSv1\nmode: none\nmax_age: 1\n",
            "yubin mta-sts 1\nid=1\nfetched=18446744073709551615\n\nversion: STSv1\nmode: none\nmax_age: 1\n",
            &good.replace('=', ""),
        ] {
            assert_eq!(get(bad), None, "{bad:?}");
        }
    }
}
