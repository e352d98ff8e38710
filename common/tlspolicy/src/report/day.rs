//! A day's counts, added up by domain and policy.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use base::{Doing, Domain, Fail};

use super::line::{Key, Kind, Policy};
use super::{MAX_FILE, name_of, today};

/// Octets of one line.
const MAX_LINE: u64 = 64 * 1024;
/// Different failures of one policy in a report.
const MAX_FAILURES: usize = 1000;
/// Domains of one day.
const MAX_DOMAINS: usize = 200_000;

/// What is to be told to each domain.
pub type Day = BTreeMap<Domain, Counted>;

/// Of one domain.
#[derive(Debug, Default)]
pub struct Counted(pub(super) BTreeMap<Policy, Sessions>);

#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) successful: u64,
    pub(super) failed: u64,
    pub(super) failures: BTreeMap<Kind, u64>,
}

/// The days that are over and were not told of yet, the oldest first: the day's first second, since
/// 1970, and its file.
pub fn finished(directory: &Path) -> Result<Vec<(i64, PathBuf)>, Fail> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Fail::io(format!("read {}", directory.display()), e)),
    };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    // Older ones than these are nobody's news.
    let days = (1..=400).rev().map(|back| today() - back);
    Ok(days
        .filter(|day| names.iter().any(|name| *name == *name_of(*day)))
        .map(|day| (day * 86_400, directory.join(name_of(day))))
        .collect())
}

/// Adds a file up. Torn lines count for nothing.
pub fn read(path: &Path) -> Result<Day, Fail> {
    let doing = || format!("read {}", path.display());
    let mut file = BufReader::new(File::open(path).doing(doing)?.take(2 * MAX_FILE));
    let mut day = Day::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let n = (&mut file)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .doing(doing)?;
        if n == 0 {
            return Ok(day);
        }
        let whole = line
            .strip_suffix(b"\n")
            .and_then(|line| std::str::from_utf8(line).ok());
        let Some((key, count)) = whole.and_then(Key::parse) else {
            continue;
        };
        if day.len() >= MAX_DOMAINS && !day.contains_key(&key.domain) {
            continue;
        }
        let counted = day.entry(key.domain).or_default();
        let sessions = counted.0.entry(key.policy).or_default();
        match &key.kind {
            Kind::Success => sessions.successful = sessions.successful.saturating_add(count),
            Kind::Failure { .. } => {
                sessions.failed = sessions.failed.saturating_add(count);
                if sessions.failures.len() < MAX_FAILURES {
                    let known = sessions.failures.entry(key.kind).or_default();
                    *known = known.saturating_add(count);
                }
            }
        }
    }
}
