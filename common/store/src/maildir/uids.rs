//! UIDs of a Maildir: who has none gets one, and keeps it in its file's name.

use std::collections::{HashMap, HashSet};
use std::io;

use base::{Doing, sys};
use nix::fcntl::OFlag;

use super::{Maildir, Record, Time};
use crate::base_file::{self, LAST_UID};
use crate::request::Why;
use crate::trouble::{Result, Trouble};

const FILE: &str = ".uidvalidity";
const LOCK: &str = ".uidlock";

impl Record {
    fn arrival(&self) -> (u64, Time, &str) {
        let unique = self.name.unique.as_str();
        let seconds = unique
            .split('.')
            .next()
            .and_then(|s| s.parse().ok())
            .unwrap_or(0);
        (seconds, self.named, unique)
    }
}

impl Maildir {
    /// Held while UIDs or keywords are given.
    pub(super) fn uid_lock(&self) -> Result<std::fs::File> {
        let at = self.dir.at(LOCK);
        let flags = OFlag::O_CREAT | OFlag::O_RDWR;
        let file = self
            .dir
            .file(LOCK, flags, 0o600)
            .doing(|| format!("open {at}"))?;
        let begin = std::time::Instant::now();
        while !sys::try_ofd_lock(&file, sys::LockKind::Exclusive).doing(|| format!("lock {at}"))? {
            if begin.elapsed() >= self.place.settings.locks.timeout {
                let text = format!("lock {at}: another program has it");
                return Err(Trouble::new(Why::InUse, text));
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(file)
    }

    /// Whether every message has a UID of its own that is in its name.
    pub(super) fn is_settled(&mut self) -> bool {
        if !matches!(self.read_uidvalidity(), Ok(true)) {
            return false;
        }
        let mut previous = 0;
        self.records.iter().all(|r| {
            let good = self.is_ours(r) && r.item.uid > previous;
            previous = r.item.uid;
            good
        })
    }

    fn is_ours(&self, record: &Record) -> bool {
        record.name.uidvalidity == self.uidvalidity && (1..=self.last).contains(&record.name.uid)
    }

    /// Takes over what `.uidvalidity` says; `false` if it says nothing.
    fn read_uidvalidity(&mut self) -> Result<bool> {
        let bytes = self.dir.read(FILE, 64)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text
            .strip_suffix('\n')
            .unwrap_or_default()
            .lines()
            .map(str::parse);
        match (lines.next(), lines.next()) {
            (Some(Ok(uidvalidity)), Some(Ok(last))) if uidvalidity > 0 && last <= LAST_UID => {
                (self.uidvalidity, self.last) = (uidvalidity, last);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn write_uidvalidity(&self) -> Result<()> {
        let text = format!("{}\n{}\n", self.uidvalidity, self.last);
        Ok(self.dir.replace(FILE, text.as_bytes(), 0o600)?)
    }

    /// Reads or makes `.uidvalidity`, under the lock.
    pub(super) fn ensure_uidvalidity(&mut self) -> Result<()> {
        if self.read_uidvalidity()? {
            return Ok(());
        }
        // The file is lost: most names agree on what it said.
        let mut count: HashMap<u32, (usize, u32)> = HashMap::new();
        for name in self
            .records
            .iter()
            .map(|r| &r.name)
            .filter(|n| n.uidvalidity > 0)
        {
            let entry = count.entry(name.uidvalidity).or_default();
            *entry = (entry.0 + 1, entry.1.max(name.uid));
        }
        let most = count
            .into_iter()
            .filter(|(_, (_, last))| *last <= LAST_UID)
            .max_by_key(|e| e.1.0);
        (self.uidvalidity, self.last) = match most {
            Some((uidvalidity, (_, last))) => (uidvalidity, last),
            None => (base_file::new_uidvalidity(&self.place.journals)?, 0),
        };
        self.write_uidvalidity()
    }

    /// The next `count` UIDs, durably taken. Returns the first.
    pub(super) fn take_uids(&mut self, count: usize) -> Result<u32> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let first = self.last.saturating_add(1);
        if self.last.saturating_add(count) > LAST_UID {
            (self.uidvalidity, self.last) = (base_file::new_uidvalidity(&self.place.journals)?, 0);
            self.write_uidvalidity()?;
            let text = format!("{}: UIDs are used up, all get new ones", self.at());
            return Err(Trouble::new(Why::Replaced, text));
        }
        self.last += count;
        self.write_uidvalidity()?;
        Ok(first)
    }

    /// Gives UIDs; with `claim`, moves what is in new/ to cur/, still `recent` here.
    pub(super) fn settle(&mut self, claim: bool) -> Result<()> {
        let _lock = self.uid_lock()?;
        self.load()?;
        self.ensure_uidvalidity()?;
        // Of two files with one UID the first keeps it.
        let mut taken = HashSet::new();
        let mut without: Vec<usize> = Vec::new();
        for (at, record) in self.records.iter().enumerate() {
            if !self.is_ours(record) || !taken.insert(record.name.uid) {
                without.push(at);
            }
        }
        // New ones in the order in which they came: the time in the name, and within a second the
        // time at which the file got it.
        without.sort_by(|a, b| {
            let key = |at: &usize| self.records.get(*at).map(Record::arrival);
            key(a).cmp(&key(b))
        });
        if !without.is_empty() {
            let first = self.take_uids(without.len())?;
            for (uid, at) in (first..).zip(&without) {
                self.number(*at, uid)?;
            }
        }
        if claim {
            for at in 0..self.records.len() {
                self.claim(at)?;
            }
        }
        self.new.sync()?;
        self.cur.sync()?;
        self.read = None;
        self.records.retain(|r| r.item.uid > 0);
        self.records.sort_by_key(|r| r.item.uid);
        Ok(())
    }

    /// Puts a UID into a file's name, with the sizes, for which the file is read once.
    fn number(&mut self, at: usize, uid: u32) -> Result<()> {
        let Some((file, in_new)) = self.records.get(at).map(|r| (r.file.clone(), r.in_new)) else {
            return Ok(());
        };
        let sizes = self.measure(&file, in_new)?;
        let uidvalidity = self.uidvalidity;
        let dir = if in_new { &self.new } else { &self.cur };
        let Some(record) = self.records.get_mut(at) else {
            return Ok(());
        };
        // 0 for one that is gone: it is dropped from the list.
        record.item.uid = 0;
        let Some((size, header_size)) = sizes else {
            return Ok(());
        };
        let mut name = record.name.clone();
        (name.uid, name.uidvalidity, name.wire_size) = (uid, uidvalidity, Some(size));
        let new_file = name.format();
        match dir.rename(&file, dir, &new_file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.doing(|| format!("rename {}", dir.at(&file)))?,
        }
        (record.item.uid, record.item.size, record.item.header_size) = (uid, size, header_size);
        (record.name, record.file) = (name, new_file);
        Ok(())
    }

    fn claim(&mut self, at: usize) -> Result<()> {
        let Some(record) = self
            .records
            .get_mut(at)
            .filter(|r| r.in_new && r.item.uid > 0)
        else {
            return Ok(());
        };
        let mut name = record.name.clone();
        name.mark(record.item.flags, name.keywords());
        let file = name.format();
        match self.new.rename(&record.file, &self.cur, &file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => record.item.uid = 0,
            renamed => {
                renamed.doing(|| format!("rename {}", self.new.at(&record.file)))?;
                record.in_new = false;
                (record.name, record.file) = (name, file);
            }
        }
        Ok(())
    }
}
