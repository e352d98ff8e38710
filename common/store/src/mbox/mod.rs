//! An mbox file: the messages of one folder in one file, which other programs read and write too.
//!
//! What is known of it is in memory and comes from a scan; a fingerprint of the file (inode, size,
//! times) tells whether the scan still holds. All that must survive is in the file itself before it
//! is answered: a change of flags is written over the old values and synced, UIDs are written
//! before they are told, an expunge goes through a redo file.

mod append;
mod bulk;
mod contents;
mod edit;
mod field;
mod from_line;
mod recover;
mod redo;
mod render;
mod rewrite;
mod scan;
mod uids;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base::sys::LockKind;
use base::{Doing, Fail};
use nix::fcntl::OFlag;

pub(crate) use append::{Pending, begin, redo};

use crate::base_file;
use crate::beneath::Dir;
use crate::body::Body;
use crate::flags::{Flags, Keyword, Table};
use crate::lock::MailLock;
use crate::mailbox::{self, Item, Marks, Still};
use crate::request::{Change, Why};
use crate::spool::{Format, Place};
use crate::trouble::{Result, Trouble};
use rewrite::Changes;
pub(crate) use scan::each_piece;
use scan::{Bad, Found, Record, Serve};

/// A larger file is not read again as a whole for each message that comes in.
const LARGE: u64 = 16 << 20;
/// How long a large file's older part may stay unverified.
const VERIFY: Duration = Duration::from_secs(2);
/// Two changes this near may carry the same time.
const TICK: Duration = Duration::from_millis(50);

/// What tells a file from what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Print {
    fn of(meta: &std::fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether a later change could look the same.
    fn is_fresh(&self) -> bool {
        let (seconds, nanos) = self.modified.max(self.changed);
        let at = Duration::new(
            u64::try_from(seconds).unwrap_or(0),
            u32::try_from(nanos).unwrap_or(0),
        );
        SystemTime::now()
            .duration_since(UNIX_EPOCH + at)
            .is_ok_and(|age| age < TICK)
            || UNIX_EPOCH + at > SystemTime::now()
    }
}

/// One mbox.
#[derive(Debug)]
pub(crate) struct Mbox {
    place: Place,
    journal: Dir,
    records: Vec<Record>,
    table: Table,
    uidvalidity: u32,
    /// The last UID that was given.
    last: u32,
    /// Of the file as `records` describe it.
    print: Option<Print>,
    /// Since when something may be different although the fingerprint is the same.
    doubt: Option<Instant>,
}

/// Makes an empty one.
pub(crate) fn create(place: &Place) -> Result<()> {
    let doing = || format!("make {}", place.dir.at(&place.name));
    let mode = if place.folder.is_inbox() {
        0o660
    } else {
        0o600
    };
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR;
    match place.dir.file(&place.name, flags, mode) {
        Ok(file) => {
            // Whatever the umask is: the group mail has to be able to write an INBOX.
            file.set_permissions(std::fs::Permissions::from_mode(mode))
                .doing(doing)?;
            Ok(place.dir.sync()?)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e).doing(doing)?,
    }
}

impl Mbox {
    pub(crate) fn open(place: Place) -> Result<Self> {
        Ok(Self {
            journal: place.journal()?,
            place,
            records: Vec::new(),
            table: Table::default(),
            uidvalidity: 0,
            last: 0,
            print: None,
            doubt: None,
        })
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        self.records.iter().filter(|r| !r.pseudo).map(|r| &r.item)
    }

    pub(crate) fn item(&self, uid: u32) -> Option<Item> {
        Some(self.records.get(self.index(uid)?)?.item)
    }

    pub(crate) fn uidvalidity(&self) -> u32 {
        self.uidvalidity
    }

    pub(crate) fn uidnext(&self) -> u32 {
        self.last.saturating_add(1)
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        vec![self.place.dir.path().join(&self.place.name)]
    }

    /// Where a UID's record is. They ascend; a pseudo message's is 0, and so are those at the end
    /// which another program has just appended and which have no UID yet.
    fn index(&self, uid: u32) -> Option<usize> {
        let last = self.records.iter().rposition(|r| r.item.uid > 0)?;
        let known = self.records.get(..=last)?;
        let found = known.binary_search_by_key(&uid, |r| r.item.uid).ok()?;
        (uid > 0).then_some(found)
    }

    fn at(&self) -> String {
        self.place.dir.at(&self.place.name)
    }

    pub(crate) fn refresh(&mut self, claim: bool) -> Result<()> {
        if self.is_known()? && !(claim && self.has_unclaimed()) {
            return Ok(());
        }
        let lock = self.lock(LockKind::Shared)?;
        let settled = self.load(lock.file())?;
        if settled && !(claim && self.has_unclaimed()) {
            return Ok(());
        }
        drop(lock);
        self.exclusive(claim).map(drop)
    }

    fn has_unclaimed(&self) -> bool {
        self.records.iter().any(|r| !r.old && !r.pseudo)
    }

    /// Whether the scan still holds, by a look at the file from outside.
    fn is_known(&self) -> Result<bool> {
        let Some(print) = self.print else {
            return Ok(false);
        };
        let stat = self
            .place
            .dir
            .stat(&self.place.name)
            .doing(|| format!("look at {}", self.at()))?;
        let same = stat.is_some_and(|s| {
            print
                == Print {
                    device: s.st_dev,
                    inode: s.st_ino,
                    size: u64::try_from(s.st_size).unwrap_or(0),
                    modified: (s.st_mtime, s.st_mtime_nsec),
                    changed: (s.st_ctime, s.st_ctime_nsec),
                }
        });
        Ok(same && !self.is_doubtful(print.size))
    }

    fn is_doubtful(&self, size: u64) -> bool {
        self.doubt
            .is_some_and(|since| size <= LARGE || since.elapsed() >= VERIFY)
    }

    /// The locks, with nothing promised left to be done.
    fn lock(&self, kind: LockKind) -> Result<MailLock> {
        match self.place.format()? {
            Some(Format::Mbox) => {}
            None if self.place.folder.is_inbox() => create(&self.place)?,
            None => {
                let text = format!("folder {} does not exist any more", self.place.folder);
                return Err(Trouble::new(Why::NoSuchFolder, text));
            }
            Some(Format::Maildir) => {
                let text = format!("{} has become a Maildir", self.at());
                return Err(Trouble::new(Why::Replaced, text));
            }
        }
        let locks = self.place.settings.locks;
        let lock = MailLock::beneath(&self.place.dir, &self.place.name, kind, locks)?;
        if kind == LockKind::Exclusive {
            recover::recover(&self.journal, lock.file())?;
            return Ok(lock);
        }
        let promised = self.journal.stat("redo").doing(|| "look for a redo file")?;
        if promised.is_none() {
            return Ok(lock);
        }
        drop(lock);
        drop(self.lock(LockKind::Exclusive)?);
        MailLock::beneath(&self.place.dir, &self.place.name, kind, locks)
    }

    /// The exclusive locks, and everything known and written: each message has its UID.
    fn exclusive(&mut self, claim: bool) -> Result<MailLock> {
        let mut lock = self.lock(LockKind::Exclusive)?;
        if !self.load(lock.file())? || (claim && self.has_unclaimed()) {
            self.settle(&mut lock, claim)?;
        }
        Ok(lock)
    }

    /// Reads what has to be read. `false` if UIDs are still to be written.
    fn load(&mut self, file: &File) -> Result<bool> {
        let meta = file.metadata().doing(|| format!("look at {}", self.at()))?;
        let print = Print::of(&meta);
        if self.print == Some(print) && !self.is_doubtful(print.size) {
            return Ok(true);
        }
        let grown = self
            .print
            .filter(|old| old.inode == print.inode && old.size > LARGE && old.size < print.size);
        let from = match grown {
            Some(old) if self.is_doubtful(old.size) => 0,
            Some(old) if self.looks_the_same(file, old.size)? => old.size,
            _ => 0,
        };
        let before = std::mem::take(&mut self.records);
        let kept = if from > 0 { before.clone() } else { Vec::new() };
        self.print = None;
        let found = Found {
            records: kept,
            base: None,
        };
        let mut found = match scan::scan(file, from, print.size, found, &mut self.table) {
            Ok(found) => found,
            Err(bad) => {
                self.records = before;
                return Err(self.cannot_read(bad));
            }
        };
        if from > 0 {
            found.base = Some((self.uidvalidity, self.read_last(file, &found)?));
        }
        let settled = self.believe(found, &before)?;
        // What another program appended may not be on the disk yet. Its UIDs are not to be told
        // before it is, or they could be given twice.
        if self.records.len() > before.len() {
            file.sync_data().doing(|| format!("sync {}", self.at()))?;
        }
        self.print = settled.then_some(print);
        let doubtful = from > 0 || print.is_fresh();
        self.doubt = doubtful.then(Instant::now);
        Ok(settled)
    }

    fn cannot_read(&self, bad: Bad) -> Trouble {
        let at = self.at();
        match bad {
            Bad::Io(e) => Fail::io(format!("read {at}"), e).into(),
            Bad::NotMbox => Trouble::new(
                Why::Temporary,
                format!("{at} is not an mbox: it must begin with a `From ' line"),
            ),
            Bad::TooMany => Trouble::new(
                Why::Temporary,
                format!("{at} has more than {} messages", scan::MAX_MESSAGES),
            ),
        }
    }

    /// Whether some messages of a file that has grown are where they were.
    fn looks_the_same(&self, file: &File, size: u64) -> Result<bool> {
        let doing = || format!("read {}", self.at());
        let mut line = vec![0; from_line::MAX + 1];
        let n = file.read_at(&mut line, size).doing(doing)?;
        line.truncate(n);
        let from = line.split(|b| *b == b'\n').next().unwrap_or_default();
        if from_line::parse(from).is_none() {
            return Ok(false);
        }
        let step = (self.records.len() / 16).max(1);
        let some = self.records.iter().step_by(step).chain(self.records.last());
        for record in some {
            if header_hash(file, record).doing(doing)? != Some(record.hash) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The last UID given, as the first message says now.
    fn read_last(&self, file: &File, found: &Found) -> Result<u32> {
        let Some(first) = found.records.first() else {
            return Ok(self.last);
        };
        let end = first.header + first.header_length;
        let one = scan::scan(
            file,
            first.start,
            end,
            Found::default(),
            &mut Table::default(),
        );
        let base = one.ok().and_then(|found| found.base);
        Ok(base
            .filter(|(validity, _)| *validity == self.uidvalidity)
            .map_or(self.last, |b| b.1))
    }

    pub(crate) fn content(&mut self, uid: u32) -> Result<Body> {
        for again in [false, true] {
            if again {
                self.print = None;
                self.refresh(false)?;
            }
            let lock = self.lock(LockKind::Shared)?;
            self.load(lock.file())?;
            let Some(record) = self.index(uid).and_then(|at| self.records.get(at)) else {
                break;
            };
            if let Some(body) = self.copy(lock.file(), record)? {
                return Ok(body);
            }
        }
        Err(Trouble::new(
            Why::Gone,
            format!("message {uid} of {} is no more", self.place.folder),
        ))
    }

    /// What is served of a record; `None` if that is not where it was.
    fn copy(&self, file: &File, record: &Record) -> Result<Option<Body>> {
        let mut body = Body::new(&self.journal);
        let mut serve = Serve::default();
        let mut pushed = Ok(());
        each_piece(file, record.header, record.end, |piece| {
            let out = serve.feed(piece);
            if pushed.is_ok() {
                pushed = body.push(&out);
            }
        })
        .doing(|| format!("read {}", self.at()))?;
        pushed?;
        let (rest, hash) = serve.finish();
        body.push(&rest)?;
        let found = body.size() >= record.item.size && hash == record.hash;
        body.truncate(record.item.size);
        Ok(found.then_some(body))
    }

    pub(crate) fn store(
        &mut self,
        uidvalidity: u32,
        uids: &[u32],
        change: Change,
        flags: Flags,
        keywords: &[Keyword],
    ) -> Result<()> {
        let mut lock = self.exclusive(false)?;
        mailbox::same(&self.place.folder, uidvalidity, self.uidvalidity)?;
        let marks = Marks {
            change,
            flags,
            keywords: self.table.bits(keywords),
        };
        let mut changes = Changes {
            sync: true,
            ..Changes::default()
        };
        for uid in uids {
            let at = self.index(*uid);
            let Some((at, record)) = at.and_then(|at| Some((at, self.records.get_mut(at)?))) else {
                continue;
            };
            let (flags, keywords) = marks.apply(&record.item);
            if (flags, keywords) != (record.item.flags, record.item.keywords) {
                record.item.flags = flags;
                record.item.keywords = keywords;
                changes.edited.insert(at);
            }
        }
        self.change(&mut lock, &changes)
    }

    pub(crate) fn expunge(&mut self, uids: &[u32], still: Still) -> Result<()> {
        let mut lock = self.exclusive(false)?;
        mailbox::same(&self.place.folder, still.uidvalidity, self.uidvalidity)?;
        // Should nothing be left, the file cannot say any more which UIDs were given.
        base_file::reserve(&self.journal, self.uidvalidity, self.last)?;
        let allowed = |at: &usize| {
            let record = self.records.get(*at);
            record.is_some_and(|record| still.allows(&record.item))
        };
        let removed = uids.iter().filter_map(|uid| self.index(*uid));
        let removed = removed.filter(allowed).collect();
        self.change(
            &mut lock,
            &Changes {
                sync: true,
                removed,
                ..Changes::default()
            },
        )
    }

    /// Makes changes, and knows the file again afterwards. If that fails, what is known is what
    /// the next reading finds.
    fn change(&mut self, lock: &mut MailLock, changes: &Changes) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.print = None;
        let rewritten = self.rewrite(lock, changes)?;
        if rewritten {
            self.load(lock.file())?;
        } else {
            let print = Print::of(
                &lock
                    .file()
                    .metadata()
                    .doing(|| format!("look at {}", self.at()))?,
            );
            self.print = Some(print);
            self.doubt = print.is_fresh().then(Instant::now);
        }
        Ok(())
    }
}

/// The hash of the header that stands where a record says; `None` where no From_ line is.
fn header_hash(file: &File, record: &Record) -> io::Result<Option<u64>> {
    let end = record.header + record.header_length;
    let found = scan::scan(
        file,
        record.start,
        end,
        Found::default(),
        &mut Table::default(),
    );
    match found {
        Ok(found) => Ok(found.records.first().map(|r| r.hash)),
        Err(Bad::Io(e)) => Err(e),
        Err(Bad::NotMbox | Bad::TooMany) => Ok(None),
    }
}
