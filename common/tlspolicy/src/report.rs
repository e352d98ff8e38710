//! What is told to a domain about the security of the mail that went there: RFC 8460.
//!
//! [`Reports`] counts sessions as they end and writes the counts into a file a day, in lines that are
//! only appended: nothing is synced, and a crash costs the counts of a minute. [`day`] adds a day's
//! lines up, [`render`] makes the report of each domain, [`mail`] the message that it goes by, and
//! [`rua`] says whether the domain wants one at all.

pub mod day;
mod json;
mod line;
pub mod mail;
pub mod render;
pub mod rua;

use std::collections::HashMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::date::{self, Date};
use base::{Config, Doing, Domain, Fail, Root};

use self::line::{Key, Kind};
use crate::security::{Failure, Published};

/// Below the root: a file a day, called `2026-11-23`.
pub const DIRECTORY: &str = "/var/spool/yubin/tlsrpt";
/// How long counts stay in memory.
const FLUSH: Duration = Duration::from_secs(60);
/// Different counts in memory; more are written out at once.
const MAX_COUNTS: usize = 2000;
/// Octets of a day's file: what is more is not counted.
const MAX_FILE: u64 = 256 * 1024 * 1024;
/// Octets of what is said about a failure.
const MAX_DETAIL: usize = 200;

/// One session, or one host that was given up before there was one.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// The domain in the recipients' addresses, whose policy it was.
    pub domain: &'a Domain,
    pub published: &'a Published,
    pub host: &'a Domain,
    pub ip: IpAddr,
    /// Ours.
    pub from: Option<IpAddr>,
    /// What failed, and more about it in words.
    pub result: Result<(), (Failure, &'a str)>,
}

/// Counts. Whoever notes something may come to write what is a minute old: some kilobytes, unsynced.
pub struct Reports {
    directory: PathBuf,
    counts: Mutex<Counts>,
}

struct Counts {
    since: Instant,
    day: i64,
    counted: HashMap<Key, u64>,
}

impl std::fmt::Debug for Reports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reports")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Reports {
    /// `None` where nobody is told anything, which is without TLS_REPORT_FROM.
    pub fn open(root: &Root, config: &Config) -> Option<Self> {
        config.tls_report_from.as_ref()?;
        Some(Self::new(&root.path(DIRECTORY)))
    }

    fn new(directory: &Path) -> Self {
        Self {
            directory: directory.into(),
            counts: Mutex::new(Counts {
                since: Instant::now(),
                day: today(),
                counted: HashMap::new(),
            }),
        }
    }

    pub fn note(&self, outcome: &Outcome<'_>) {
        // A policy that cannot be read is a failure, whatever else went well.
        let unread = match outcome.published {
            Published::UnknownSts(why) => Some((Failure::from(why), why.to_string())),
            _ => None,
        };
        let failure = match (&unread, outcome.result) {
            (_, Err((failure, detail))) => Some((failure, detail)),
            (Some((failure, detail)), Ok(())) => Some((*failure, detail.as_str())),
            (None, Ok(())) => None,
        };
        let kind = match failure {
            None => Kind::Success,
            Some((failure, detail)) => Kind::Failure {
                failure,
                host: outcome.host.clone(),
                ip: outcome.ip,
                from: outcome.from,
                detail: detail.chars().take(MAX_DETAIL).collect(),
            },
        };
        let key = Key::new(outcome.domain, outcome.published, kind);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.day != today() {
            self.write(&mut counts);
        }
        *counts.counted.entry(key).or_default() += 1;
        if counts.counted.len() >= MAX_COUNTS || counts.since.elapsed() >= FLUSH {
            self.write(&mut counts);
        }
    }

    /// Writes what is counted: for who ends, or has nothing to do.
    pub fn flush(&self) {
        self.write(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn write(&self, counts: &mut Counts) {
        let lines: String = counts
            .counted
            .drain()
            .map(|(key, count)| key.line(count))
            .collect();
        let day = std::mem::replace(&mut counts.day, today());
        counts.since = Instant::now();
        if lines.is_empty() {
            return;
        }
        if let Err(fail) = append(&self.directory, day, lines.as_bytes()) {
            log::warn!("{fail}; the TLS reports will not have it");
        }
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Since 1970, in UTC: RFC 8460 4.1 has reports of whole days.
pub(crate) fn today() -> i64 {
    date::now().div_euclid(86_400)
}

/// `2026-11-23`
pub(crate) fn name_of(day: i64) -> String {
    let date = Date::utc(day.saturating_mul(86_400));
    format!("{:04}-{:02}-{:02}", date.year, date.month, date.day)
}

fn append(directory: &Path, day: i64, lines: &[u8]) -> Result<(), Fail> {
    let path = directory.join(name_of(day));
    let doing = || format!("write {}", path.display());
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(directory)
        .doing(doing)?;
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .doing(doing)?;
    if file.metadata().doing(doing)?.len() > MAX_FILE {
        return Err(Fail::temp(format!("{} is full", path.display())));
    }
    file.write_all(lines).doing(doing)
}

#[cfg(test)]
mod tests;
