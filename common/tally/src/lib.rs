//! What the programs remember together: how much a network or an account has done lately, who
//! offended, whom we have met, which account is held back.
//!
//! One file of small records of a fixed size, `/var/spool/yubin/tally`, that all processes read and
//! write in place; a record is found by the keyed hash of what it is about, so that nothing in the
//! file tells who wrote to whom, and nobody outside can choose what falls together. The file does not
//! grow: where a bucket is full, what is worth least goes.
//!
//! It is a cache, never synced. A damaged record is an empty one; the file may be deleted while
//! nobody runs, and all that is lost is that everybody begins anew. Time is the wall clock's, because
//! it has to last longer than a boot; a record holds lengths of time and one date, so that a clock
//! that is set back makes nobody wait longer than he had to, and one that is set forward forgives.
//!
//! What the numbers mean is the programs' business; [`rate`], [`penalty`], [`login`] and [`account`] are
//! what more than one of them asks.

pub mod account;
mod file;
mod key;
pub mod login;
pub mod penalty;
pub mod rate;
mod record;

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{Fail, Root};

use crate::file::Geometry;
pub use crate::key::Key;
use crate::record::{BUCKET, Place, RECORD, Record};
pub use crate::record::{Slot, Worth};

/// In-process locks: the kernel's exclude processes, not the threads of one.
const STRIPES: usize = 64;
/// How often another process's lock on a bucket is waited for; each time another may run meanwhile.
const TRIES: usize = 200;

/// The shared memory. Cheap to clone. None of its calls waits for anything but the page cache and,
/// for some microseconds, for who changes the same bucket.
#[derive(Debug, Clone)]
pub struct Tally(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    geometry: Geometry,
    hasher: ring::hmac::Key,
    stripes: Vec<Mutex<()>>,
}

impl Tally {
    /// The file of this root, made when it is not there. Call it before root is given up. Where it
    /// cannot be had, the cause is logged and what is remembered is this process's alone.
    pub fn open(root: &Root) -> Result<Self, Fail> {
        match file::open(root) {
            Ok(opened) => Ok(Self::new(opened)),
            Err(fail) => {
                log::warn!("{fail}; rates and penalties of this process are its own");
                Self::private()
            }
        }
    }

    /// The file that is there already, for a program that has nothing to remember. `None` when there
    /// is none.
    pub fn open_if_there(root: &Root) -> Result<Option<Self>, Fail> {
        Ok(file::open_existing(root)?.map(Self::new))
    }

    /// In memory, for this process and as long as it lives.
    pub fn private() -> Result<Self, Fail> {
        Ok(Self::new(file::anonymous(file::PRIVATE_BUCKETS)?))
    }

    fn new((file, head): (File, file::Head)) -> Self {
        Self(Arc::new(Inner {
            file,
            geometry: head.geometry,
            hasher: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &head.secret),
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
        }))
    }

    /// What is remembered of `key`; `None` for nothing, or nothing that counts any more.
    pub fn look(&self, key: &Key, now: SystemTime) -> Option<Slot> {
        let (bucket, print) = self.place(key);
        let read = self.0.read(bucket);
        let text = log_trouble(read)?;
        let unix = millis(now);
        let record = Record::all(&text).find(|record| record.print == print)?;
        let slot = record.slot.seen_from(unix);
        if slot != record.slot {
            // The clock was set back: what is left to it is counted from now on.
            self.update(key, now, |_| ());
        }
        slot.counts(unix).then_some(slot)
    }

    /// Changes what is remembered of `key`: `change` gets what is there, or an empty slot dated now,
    /// and what it leaves is kept. No other change of this bucket happens meanwhile. When the file
    /// fails, `change` works on an empty slot and nothing is kept.
    pub fn update<T>(&self, key: &Key, now: SystemTime, change: impl FnOnce(&mut Slot) -> T) -> T {
        let (bucket, print) = self.place(key);
        let now = millis(now);
        let stripe = self.0.stripes.get(bucket.stripe(STRIPES));
        let _one = stripe.map(|stripe| stripe.lock().unwrap_or_else(PoisonError::into_inner));
        let _all = Locked::new(&self.0.file, bucket.range());
        let Some(text) = log_trouble(self.0.read(bucket)) else {
            return change(&mut Slot::new(now));
        };
        let Place { at, slot, is_stale } = record::find(&text, &print, now);
        let mut changed = slot;
        let answer = change(&mut changed);
        if changed != slot || is_stale {
            let mut line = [0; RECORD];
            Record {
                print,
                slot: changed,
            }
            .encode(&mut line);
            log_trouble(self.0.write(bucket, at, &line));
        }
        answer
    }

    /// Nothing is remembered of `key` any more.
    pub fn forget(&self, key: &Key, now: SystemTime) {
        self.update(key, now, |slot| *slot = Slot::new(0));
    }

    fn place(&self, key: &Key) -> (file::Bucket, [u8; 16]) {
        let tag = ring::hmac::sign(&self.0.hasher, key.as_bytes());
        let mut words = tag.as_ref().iter().copied();
        let mut print = [0; 16];
        print.fill_with(|| words.next().unwrap_or_default());
        let mut number = [0; 8];
        number.fill_with(|| words.next().unwrap_or_default());
        (self.0.geometry.bucket(u64::from_le_bytes(number)), print)
    }
}

impl Inner {
    fn read(&self, bucket: file::Bucket) -> io::Result<[u8; BUCKET]> {
        use std::os::unix::fs::FileExt;
        let mut text = [0; BUCKET];
        self.file.read_exact_at(&mut text, bucket.range().start)?;
        Ok(text)
    }

    fn write(&self, bucket: file::Bucket, at: usize, line: &[u8; RECORD]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let at = u64::try_from(at).unwrap_or_default();
        self.file
            .write_all_at(line, bucket.range().start.saturating_add(at))
    }
}

/// The kernel's lock on a bucket. Without it, where its holder was stopped or locks cannot be had,
/// the worst is that a change gets lost.
struct Locked<'a>(Option<(&'a File, std::ops::Range<u64>)>);

impl<'a> Locked<'a> {
    fn new(file: &'a File, range: std::ops::Range<u64>) -> Self {
        for _ in 0..TRIES {
            match base::sys::try_ofd_lock_part(file, &range) {
                Ok(true) => return Self(Some((file, range))),
                Ok(false) => std::thread::yield_now(),
                Err(_) => break,
            }
        }
        Self(None)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Some((file, range)) = &self.0 {
            log_trouble(base::sys::ofd_unlock_part(file, range));
        }
    }
}

/// A full disk, say. Mail goes on without what is remembered; the log says so once a minute.
fn log_trouble<T>(result: io::Result<T>) -> Option<T> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    result
        .inspect_err(|e| {
            let minute = millis(SystemTime::now()) / 60_000;
            if LAST.swap(minute, Ordering::Relaxed) != minute {
                log::warn!("use {}: {e}", file::PATH);
            }
        })
        .ok()
}

/// Milliseconds since 1970, as the records have it.
pub(crate) fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    length(since)
}

pub(crate) fn length(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
