//! A Maildir: one file a message, LF line ends, state in the file's name.
//!
//! There is no lock on messages: a file is whole before it gets its name, and changes by rename
//! only. UIDs are given under an OFD lock on `.uidlock`: `.uidvalidity` (UIDVALIDITY and the last
//! UID) is replaced first, then the files are renamed and their directories synced, and only then
//! are the UIDs told. `.keywords` says which keyword a letter `a` to `z` stands for.
//!
//! readdir(2) may miss a file that is renamed meanwhile. So a message counts as gone only if it is
//! missing in a reading of directories that did not change while they were read.

mod append;
mod keywords;
mod name;
mod serve;
mod uids;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::Doing;
use nix::fcntl::OFlag;

pub(crate) use append::{Pending, begin, redo};
use name::Name;
use serve::Wire;

use crate::beneath::Dir;
use crate::body::Body;
use crate::flags::{Flags, Keyword, Table};
use crate::mailbox::{self, Item, Marks, Still};
use crate::request::{Change, Whole, Why};
use crate::session::header_in;
use crate::spool::Place;
use crate::trouble::{Result, Trouble};

/// Messages in a folder.
const MAX_MESSAGES: usize = 4_000_000;
/// A directory that changed less long ago may change again without its time showing it.
const FRESH: Duration = Duration::from_secs(2);
/// Readings of directories that keep changing before we take what there is.
const READINGS: usize = 5;
/// Keywords: the letters of the alphabet.
const MAX_KEYWORDS: usize = 26;

/// When a directory last changed.
type Time = (i64, i64);

#[derive(Debug, Clone)]
struct Record {
    item: Item,
    name: Name,
    file: String,
    in_new: bool,
    /// When it got its name.
    named: Time,
}

/// One Maildir.
#[derive(Debug)]
pub(crate) struct Maildir {
    place: Place,
    journal: Dir,
    dir: Dir,
    new: Dir,
    cur: Dir,
    records: Vec<Record>,
    table: Table,
    uidvalidity: u32,
    last: u32,
    /// Of new/ and cur/, when they were read; `None` if they have to be read again.
    read: Option<(Time, Time)>,
    /// Sizes of files whose names do not say them, by unique part.
    sizes: HashMap<String, (u64, u64)>,
}

/// Makes an empty one.
pub(crate) fn create(place: &Place) -> Result<()> {
    directories(place).map(drop)
}

/// The Maildir with its three directories, which are made where they are missing.
fn directories(place: &Place) -> Result<(Dir, [Dir; 3])> {
    let dir = place.dir.make_directory(&place.name, 0o700)?;
    let three = [
        dir.make_directory("tmp", 0o700)?,
        dir.make_directory("new", 0o700)?,
        dir.make_directory("cur", 0o700)?,
    ];
    Ok((dir, three))
}

impl Maildir {
    pub(crate) fn open(place: Place) -> Result<Self> {
        let (dir, [_, new, cur]) = directories(&place)?;
        Ok(Self {
            journal: place.journal()?,
            place,
            dir,
            new,
            cur,
            records: Vec::new(),
            table: Table::default(),
            uidvalidity: 0,
            last: 0,
            read: None,
            sizes: HashMap::new(),
        })
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        self.records.iter().map(|r| &r.item)
    }

    pub(crate) fn item(&self, uid: u32) -> Option<Item> {
        Some(self.records.get(self.index(uid)?)?.item)
    }

    fn index(&self, uid: u32) -> Option<usize> {
        self.records.binary_search_by_key(&uid, |r| r.item.uid).ok()
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

    pub(crate) fn takes_keywords(&self) -> bool {
        self.table.names().len() < MAX_KEYWORDS
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        vec![self.new.path().into(), self.cur.path().into()]
    }

    fn at(&self) -> String {
        self.dir.path().display().to_string()
    }

    pub(crate) fn refresh(&mut self, claim: bool) -> Result<()> {
        self.check_place()?;
        let unclaimed = claim && self.records.iter().any(|r| r.in_new);
        if !unclaimed && self.read.is_some() && self.read == Some(self.times()?) {
            return Ok(());
        }
        self.load()?;
        let settled = self.is_settled();
        if !settled || (claim && self.records.iter().any(|r| r.in_new)) {
            self.settle(claim)?;
        }
        Ok(())
    }

    /// The directory that we hold open must still be the one of this name.
    fn check_place(&self) -> Result<()> {
        let doing = || format!("look at {}", self.at());
        let named = self.place.dir.stat(&self.place.name).doing(doing)?;
        let ours = nix::sys::stat::fstat(&self.dir).doing(doing)?;
        if named.is_some_and(|n| (n.st_dev, n.st_ino) == (ours.st_dev, ours.st_ino)) {
            return Ok(());
        }
        let text = format!("folder {} was removed or made anew", self.place.folder);
        Err(Trouble::new(Why::Replaced, text))
    }

    fn times(&self) -> Result<(Time, Time)> {
        let time = |dir: &Dir| -> Result<Time> {
            let stat = nix::sys::stat::fstat(dir).doing(|| format!("look at {}", self.at()))?;
            Ok((stat.st_mtime, stat.st_mtime_nsec))
        };
        Ok((time(&self.new)?, time(&self.cur)?))
    }

    /// Reads the directories until they hold still.
    fn load(&mut self) -> Result<()> {
        self.load_keywords()?;
        let mut found = Vec::new();
        let mut still = false;
        for _ in 0..READINGS {
            let before = self.times()?;
            found = self.list()?;
            self.read = Some(before);
            still = self.times()? == before;
            if still {
                break;
            }
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let fresh = |(seconds, _): Time| {
            now.as_secs()
                .saturating_sub(u64::try_from(seconds).unwrap_or(0))
                <= FRESH.as_secs()
        };
        if !still || self.read.is_some_and(|(new, cur)| fresh(new) || fresh(cur)) {
            self.read = None;
        }
        let mut records = Vec::with_capacity(found.len());
        let before = std::mem::take(&mut self.records);
        let mut known: HashMap<(&str, bool), &Record> = HashMap::with_capacity(before.len());
        known.extend(before.iter().map(|r| ((r.file.as_str(), r.in_new), r)));
        for (file, in_new) in found {
            // A file that kept its name is what it was.
            let found = match known.get(&(file.as_str(), in_new)) {
                Some(record) => {
                    let mut record = Record::clone(record);
                    record.item.keywords = record.name.keywords() & self.letters();
                    record.item.recent = in_new;
                    Ok(Some(record))
                }
                None => self.record(file, in_new),
            };
            match found {
                Ok(record) => records.extend(record),
                Err(trouble) => {
                    self.records = before;
                    return Err(trouble);
                }
            }
        }
        drop(known);
        if !still {
            // Files in motion may have been missed: what was known stays until we can be sure.
            let seen: std::collections::HashSet<&str> =
                records.iter().map(|r| r.name.unique.as_str()).collect();
            let missed: Vec<Record> = before
                .into_iter()
                .filter(|r| !seen.contains(r.name.unique.as_str()))
                .collect();
            records.extend(missed);
        }
        records.sort_by(|a, b| (a.item.uid, &a.file).cmp(&(b.item.uid, &b.file)));
        self.records = records;
        Ok(())
    }

    fn list(&self) -> Result<Vec<(String, bool)>> {
        let mut found = Vec::new();
        for (dir, in_new) in [(&self.new, true), (&self.cur, false)] {
            let names = dir
                .list()
                .doing(|| format!("read {}", dir.path().display()))?;
            found.extend(names.into_iter().map(|(name, _)| (name, in_new)));
        }
        if found.len() > MAX_MESSAGES {
            let text = format!("{} has more than {MAX_MESSAGES} messages", self.at());
            return Err(Trouble::new(Why::Temporary, text));
        }
        Ok(found)
    }

    /// What is known of a file; `None` if it is no message, or gone.
    fn record(&mut self, file: String, in_new: bool) -> Result<Option<Record>> {
        let Some(name) = Name::parse(&file) else {
            return Ok(None);
        };
        let dir = if in_new { &self.new } else { &self.cur };
        let stat = dir
            .stat(&file)
            .doing(|| format!("look at {}", dir.at(&file)))?;
        // A link or a directory is no message.
        let Some(stat) = stat.filter(|s| s.st_mode & nix::libc::S_IFMT == nix::libc::S_IFREG)
        else {
            return Ok(None);
        };
        let known = self.sizes.get(&name.unique).copied();
        let sizes = match (known, name.wire_size) {
            (Some(sizes), _) => sizes,
            (None, Some(size)) => (size, 0),
            (None, None) => match self.measure(&file, in_new)? {
                Some(sizes) => sizes,
                None => return Ok(None),
            },
        };
        let item = Item {
            uid: name.uid,
            flags: name.flags(),
            keywords: name.keywords() & self.letters(),
            recent: in_new,
            date: stat.st_mtime,
            size: sizes.0,
            header_size: sizes.1,
        };
        Ok(Some(Record {
            named: (stat.st_ctime, stat.st_ctime_nsec),
            item,
            name,
            file,
            in_new,
        }))
    }

    /// Letters that stand for a keyword.
    fn letters(&self) -> u64 {
        (1 << self.table.names().len().min(MAX_KEYWORDS)) - 1
    }

    /// Reads a file for its size as served; `None` if it is gone.
    fn measure(&mut self, file: &str, in_new: bool) -> Result<Option<(u64, u64)>> {
        let dir = if in_new { &self.new } else { &self.cur };
        let doing = || format!("read {}", dir.at(file));
        let open = match dir.file(file, OFlag::O_RDONLY, 0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            open => open.doing(doing)?,
        };
        let mut wire = Wire::default();
        let mut count = 0;
        each_piece(&open, |piece| count += wire.feed(piece).len() as u64).doing(doing)?;
        count += wire.finish().len() as u64;
        if let Some(name) = Name::parse(file) {
            self.sizes.insert(name.unique, (count, wire.header_size));
        }
        Ok(Some((count, wire.header_size)))
    }

    pub(crate) fn content(&mut self, uid: u32) -> Result<Body> {
        for again in [false, true] {
            if again {
                self.read = None;
                self.refresh(false)?;
            }
            let Some(record) = self.index(uid).and_then(|at| self.records.get(at)) else {
                continue;
            };
            let dir = if record.in_new { &self.new } else { &self.cur };
            let doing = || format!("read {}", dir.at(&record.file));
            let file = match dir.file(&record.file, OFlag::O_RDONLY, 0) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                file => file.doing(doing)?,
            };
            let (mut body, mut wire) = (Body::new(&self.journal), Wire::default());
            let mut pushed = Ok(());
            each_piece(&file, |piece| {
                let out = wire.feed(piece);
                if pushed.is_ok() {
                    pushed = body.push(&out);
                }
            })
            .doing(doing)?;
            pushed?;
            body.push(&wire.finish())?;
            return Ok(body);
        }
        Err(Trouble::new(
            Why::Gone,
            format!("message {uid} of {} is no more", self.place.folder),
        ))
    }

    /// Copies of the first of these messages, or of their headers. It ends before one that is not
    /// where it was, and before one that would make it too much.
    pub(crate) fn contents(
        &mut self,
        uids: &[u32],
        headers: bool,
        octets: usize,
    ) -> Result<Vec<Whole>> {
        let (mut list, mut room) = (Vec::with_capacity(uids.len().min(1000)), octets);
        for uid in uids {
            let Some(record) = self.index(*uid).and_then(|at| self.records.get(at)) else {
                break;
            };
            if !headers && record.item.size > room as u64 {
                break;
            }
            let dir = if record.in_new { &self.new } else { &self.cur };
            let doing = || format!("read {}", dir.at(&record.file));
            let (file, size) = match dir.sized(&record.file) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                found => found.doing(doing)?,
            };
            let Some(served) = serve::small(&file, size, headers, room).doing(doing)? else {
                break;
            };
            room = room.saturating_sub(served.len());
            list.push(Whole {
                uid: *uid,
                header: header_in(&served) as u64,
                bytes: served,
            });
        }
        Ok(list)
    }

    pub(crate) fn store(
        &mut self,
        uidvalidity: u32,
        uids: &[u32],
        change: Change,
        flags: Flags,
        keywords: &[Keyword],
    ) -> Result<()> {
        self.refresh(false)?;
        mailbox::same(&self.place.folder, uidvalidity, self.uidvalidity)?;
        let keywords = self.learn_keywords(keywords)?;
        let marks = Marks {
            change,
            flags,
            keywords,
        };
        let mut again = Vec::new();
        for uid in uids {
            if !self.mark(*uid, &marks)? {
                again.push(*uid);
            }
        }
        if !again.is_empty() {
            // Another program renamed these: look where they are now, once. What is gone is gone;
            // what is there and was renamed again is not to be called changed.
            self.read = None;
            self.refresh(false)?;
            for uid in again {
                if !self.mark(uid, &marks)? && self.index(uid).is_some() {
                    let text = format!("message {uid} keeps being changed by others");
                    return Err(Trouble::new(Why::Temporary, text));
                }
            }
        }
        self.read = None;
        Ok(self.new.sync().and_then(|()| self.cur.sync())?)
    }

    /// Renames one message; `false` if it is not where it was.
    fn mark(&mut self, uid: u32, marks: &Marks) -> Result<bool> {
        let Some(at) = self.index(uid) else {
            return Ok(false);
        };
        let Some(record) = self.records.get_mut(at) else {
            return Ok(false);
        };
        let (flags, keywords) = marks.apply(&record.item);
        if (flags, keywords) == (record.item.flags, record.item.keywords) {
            return Ok(true);
        }
        let mut name = record.name.clone();
        name.mark(flags, keywords);
        let file = name.format();
        let from = if record.in_new { &self.new } else { &self.cur };
        match from.rename(&record.file, &self.cur, &file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            renamed => renamed.doing(|| format!("rename {}", from.at(&record.file)))?,
        }
        record.item.flags = flags;
        record.item.keywords = keywords;
        record.in_new = false;
        (record.name, record.file) = (name, file);
        Ok(true)
    }

    /// A name says the flags: a file that lost its deletion meanwhile is not found under its old one.
    pub(crate) fn expunge(&mut self, uids: &[u32], still: Still) -> Result<()> {
        for again in [false, true] {
            if again {
                self.read = None;
            }
            self.refresh(false)?;
            mailbox::same(&self.place.folder, still.uidvalidity, self.uidvalidity)?;
            let mut missed = false;
            for record in uids
                .iter()
                .filter_map(|uid| self.records.get(self.index(*uid)?))
                .filter(|record| still.allows(&record.item))
            {
                let dir = if record.in_new { &self.new } else { &self.cur };
                match dir.unlink(&record.file) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => missed = true,
                    done => done.doing(|| format!("remove {}", dir.at(&record.file)))?,
                }
            }
            if !missed {
                break;
            }
        }
        self.read = None;
        self.new.sync()?;
        self.cur.sync()?;
        self.load()
    }
}

fn each_piece(file: &File, with: impl FnMut(&[u8])) -> io::Result<()> {
    crate::mbox::each_piece(file, 0, file.metadata()?.len(), with)
}
