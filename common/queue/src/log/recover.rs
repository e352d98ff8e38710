//! After power loss: what the logs have and the disk has not.
//!
//! 1. Every segment that no process holds is taken over.
//! 2. A message that was accepted, and of which neither a sound file is in its lane nor a note says
//!    that it was finished or went elsewhere, is made again. Its name is looked for before the notes
//!    are read, since who finishes a message writes the note first.
//! 3. A message that was finished and is still there is removed.
//! 4. What was announced of a message, and is not in its journal, is put there.
//! 5. All of it is made durable, and the segments are removed. Notes stay for as long as a segment
//!    with messages is in force that was so at this time: that one may be recovered another day.
//!
//! All of it can be done twice. Where the power did not fail it finds nothing to do: every step is in
//! the files before it is in a log.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use base::{Doing, Fail};
use nix::fcntl::OFlag;

use super::record::{Entry, entries};
use super::segment::{self, Name, Segment, Side};
use crate::claim::{Locked, lock};
use crate::commit::DURABLE;
use crate::crash;
use crate::dir::Dir;
use crate::event::Record;
use crate::file::{self, Depth, Unreadable};
use crate::id::QueueId;
use crate::queue::{Lane, Place, Queue};

/// What was found in the logs of processes that are no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// Messages made again.
    pub(crate) restored: usize,
    /// Finished ones removed again.
    pub(crate) removed: usize,
    /// Journals that were made whole.
    pub(crate) mended: usize,
}

/// All segments of a directory.
fn names(dir: &Dir) -> Result<Vec<Name>, Fail> {
    let mut names = Vec::new();
    dir.names(|name| {
        names.extend(Name::parse(name.as_encoded_bytes()));
        true
    })?;
    names.sort_unstable();
    Ok(names)
}

/// `None` where it went meanwhile, or is no file.
fn open(dir: &Dir, name: Name) -> Result<Option<File>, Fail> {
    let name = name.file();
    let doing = || format!("open {}", dir.name(&name));
    match dir.open_file(std::ffi::OsStr::new(&name), OFlag::O_RDONLY) {
        Ok(file) => {
            let is_file = file.metadata().doing(doing)?.is_file();
            Ok(is_file.then_some(file))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Fail::io(doing(), e)),
    }
}

/// The segments with messages that count now.
fn in_force(dir: &Dir) -> Result<Vec<(Name, u64)>, Fail> {
    let mut found = Vec::new();
    for name in names(dir)? {
        if name.side != Side::Accept {
            continue;
        }
        let Some(file) = open(dir, name)? else {
            continue;
        };
        let generation =
            segment::generation(&file).doing(|| format!("read {}", dir.name(name.file())))?;
        found.extend(
            generation
                .filter(|generation| segment::has_batch(&file, *generation))
                .map(|generation| (name, generation)),
        );
    }
    Ok(found)
}

/// See the module. Every runner calls it when it starts, before it claims anything, and now and then.
pub(crate) fn recover(queue: &Queue, dir: &Dir) -> Result<Found, Fail> {
    let doing = || format!("lock {}", dir.path().display());
    // The other runner waits here until everything is in its place.
    let turn = File::open(dir.path()).doing(doing)?;
    turn.lock().doing(doing)?;
    let mut dead = Vec::new();
    for name in names(dir)? {
        let taken = Segment::take_over(dir, name);
        dead.extend(taken.doing(|| format!("open {}", dir.name(name.file())))?);
    }
    if dead.is_empty() {
        return Ok(Found::default());
    }
    let missing = missing(queue, &dead)?;
    let with_messages = dead.iter().any(|s| s.name.side == Side::Accept);
    let notes = Notes::read(dir, &dead, with_messages)?;
    let mut found = Found::default();
    for segment in dead.iter().filter(|s| s.name.side == Side::Accept) {
        found.restored += restore(queue, segment, &missing, &notes)?;
    }
    for (lane, id) in &notes.finished_by_the_dead {
        found.removed += usize::from(remove(queue, *lane, id)?);
    }
    for (id, records) in &notes.intents {
        found.mended += usize::from(mend(queue, id, records)?);
    }
    crash::point("log replayed");
    super::keeper::sync_all(queue.dir(Lane::Local)?).doing(|| "sync the queue".to_owned())?;
    let_go(dir, dead)?;
    Ok(found)
}

/// The messages of these segments that are not, or not whole, in their lanes.
fn missing(queue: &Queue, dead: &[Segment]) -> Result<HashSet<QueueId>, Fail> {
    let mut missing = HashSet::new();
    for segment in dead.iter().filter(|s| s.name.side == Side::Accept) {
        segment::batches(&segment.file, |batch| {
            let mut result = Ok(());
            entries(batch, |entry| {
                if let Entry::Accepted { lane, id, .. } = entry
                    && result.is_ok()
                {
                    match is_there(queue, lane, &id) {
                        Ok(true) => {}
                        Ok(false) => drop(missing.insert(id)),
                        Err(fail) => result = Err(fail),
                    }
                }
            });
            result
        })?;
    }
    Ok(missing)
}

/// Whether a sound file is there, or somebody has it, who has looked.
fn is_there(queue: &Queue, lane: Lane, id: &QueueId) -> Result<bool, Fail> {
    let dir = queue.dir(lane)?;
    match lock(dir, id)? {
        Locked::Busy => Ok(true),
        Locked::Gone | Locked::Strange => Ok(false),
        Locked::File(file, _) => match file::read(&file, Depth::Verify) {
            Ok(_) | Err(Unreadable::Newer(_)) => Ok(true),
            Err(Unreadable::Damaged(_)) => Ok(false),
            Err(Unreadable::Io(e)) => Err(Fail::io(format!("read {}", dir.name(id.as_str())), e)),
        },
    }
}

/// What those who worked on messages wrote down.
#[derive(Default)]
struct Notes {
    /// Finished, or gone from their lanes.
    gone: HashSet<QueueId>,
    finished_by_the_dead: BTreeSet<(Lane, QueueId)>,
    /// Announced by the dead, the oldest first.
    intents: BTreeMap<QueueId, Vec<Record>>,
}

impl Notes {
    /// Of the dead, and of the living where somebody asks for those.
    fn read(dir: &Dir, dead: &[Segment], all: bool) -> Result<Self, Fail> {
        let mut notes = Self::default();
        for name in names(dir)? {
            if name.side != Side::Work {
                continue;
            }
            let of_the_dead = dead.iter().find(|segment| segment.name == name);
            let opened;
            let file = match of_the_dead {
                Some(segment) => &segment.file,
                None if !all => continue,
                None => match open(dir, name)? {
                    Some(file) => {
                        opened = file;
                        &opened
                    }
                    None => continue,
                },
            };
            segment::batches(file, |batch| {
                entries(batch, |entry| notes.take(entry, of_the_dead.is_some()));
                Ok(())
            })?;
        }
        Ok(notes)
    }

    fn take(&mut self, entry: Entry<'_>, dead: bool) {
        match entry {
            Entry::Finished { lane, id } => {
                self.gone.insert(id);
                if dead {
                    self.finished_by_the_dead.insert((lane, id));
                }
            }
            Entry::Left { id } => drop(self.gone.insert(id)),
            Entry::Intent { id, record } if dead => {
                self.intents.entry(id).or_default().push(record);
            }
            Entry::Intent { .. } | Entry::Accepted { .. } | Entry::Needs { .. } => {}
        }
    }
}

/// Makes again what is missing and was not finished.
fn restore(
    queue: &Queue,
    segment: &Segment,
    missing: &HashSet<QueueId>,
    notes: &Notes,
) -> Result<usize, Fail> {
    let mut restored = 0;
    segment::batches(&segment.file, |batch| {
        let mut result = Ok(());
        entries(batch, |entry| {
            if let Entry::Accepted { lane, id, file } = entry
                && result.is_ok()
                && missing.contains(&id)
                && !notes.gone.contains(&id)
            {
                result = make_again(queue, lane, &id, file);
                restored += 1;
            }
        });
        result
    })?;
    Ok(restored)
}

/// Puts a file of these octets into the lane, over one that is not whole.
fn make_again(queue: &Queue, lane: Lane, id: &QueueId, content: &[u8]) -> Result<(), Fail> {
    let (incoming, dir) = (queue.dir(Place::Incoming)?, queue.dir(lane)?);
    let doing = || format!("make {} again", dir.name(id.as_str()));
    let name = format!("{id}.again");
    incoming.unlink(name.as_str()).doing(doing)?;
    let (file, named) = match incoming.unnamed().doing(doing)? {
        Some(file) => (file, false),
        None => (incoming.named(&name).doing(doing)?, true),
    };
    file.write_all_at(content, 0).doing(doing)?;
    nix::sys::stat::fchmod(&file, DURABLE).doing(doing)?;
    file.sync_all().doing(doing)?;
    if !named {
        incoming.link(&file, &name).doing(doing)?;
    }
    crash::point("message made again");
    dir.replace(incoming, &name, id).doing(doing)?;
    log::warn!("{id}: made again from the commit log");
    Ok(())
}

/// A finished message whose removal was not on the disk.
fn remove(queue: &Queue, lane: Lane, id: &QueueId) -> Result<bool, Fail> {
    let dir = queue.dir(lane)?;
    match lock(dir, id)? {
        // Held while the name goes.
        Locked::File(_file, _) => dir
            .unlink(id.as_str())
            .doing(|| format!("remove {}", dir.name(id.as_str()))),
        Locked::Busy | Locked::Gone | Locked::Strange => Ok(false),
    }
}

/// Puts into the journal what was announced and is not in it.
fn mend(queue: &Queue, id: &QueueId, records: &[Record]) -> Result<bool, Fail> {
    let crate::Claim::Entry(mut entry) = queue.claim_in(Place::Local, id)? else {
        return Ok(false);
    };
    let doing = || format!("read queue file {id}");
    let history = match file::read(&entry.file, Depth::History) {
        Ok(contents) => contents.history,
        Err(Unreadable::Io(e)) => return Err(Fail::io(doing(), e)),
        Err(other) => return Err(Fail::temp(format!("{}: {other}", doing()))),
    };
    let new: Vec<Record> = records
        .iter()
        .filter(|record| !history.contains(record))
        .cloned()
        .collect();
    if new.is_empty() {
        return Ok(false);
    }
    entry.journal_records(&new)?;
    entry.restore_due()?;
    entry.sync()?;
    Ok(true)
}

/// Removes the segments; notes that are still needed go into one of their own.
fn let_go(dir: &Dir, dead: Vec<Segment>) -> Result<(), Fail> {
    let messages = in_force(dir)?;
    let (mut kept, mut old) = (Vec::new(), Vec::new());
    for segment in dead {
        match segment.name.side {
            Side::Accept => old.push(segment),
            Side::Work => match needs(&segment.file)? {
                // It says itself until when it is needed.
                needs if needs.iter().any(|need| messages.contains(need)) => {}
                needs if needs.is_empty() => kept.push(segment),
                _ => old.push(segment),
            },
        }
    }
    // Those with messages first: without them nobody asks for the notes.
    old.sort_by_key(|segment| segment.name.side);
    for segment in old {
        let name = segment.name.file();
        dir.unlink(&name)
            .doing(|| format!("remove {}", dir.name(&name)))?;
        crash::point("segment removed");
    }
    keep_notes(dir, &kept)?;
    for segment in kept {
        let name = segment.name.file();
        dir.unlink(&name)
            .doing(|| format!("remove {}", dir.name(&name)))?;
        crash::point("segment removed");
    }
    dir.sync()
}

/// What a segment says of the time for which its notes are needed.
fn needs(file: &File) -> Result<Vec<(Name, u64)>, Fail> {
    let mut needs = Vec::new();
    segment::batches(file, |batch| {
        entries(batch, |entry| {
            if let Entry::Needs {
                segment,
                generation,
            } = entry
            {
                needs.push((segment, generation));
            }
        });
        Ok(())
    })?;
    Ok(needs)
}

/// Puts the notes of these segments, of which all is on the disk, into one of their own, for as long as
/// a segment with messages is in force that is so now.
pub(super) fn keep_notes(dir: &Dir, from: &[Segment]) -> Result<(), Fail> {
    let needs = in_force(dir)?;
    if needs.is_empty() {
        return Ok(());
    }
    let mut records = Vec::new();
    for segment in from {
        segment::batches(&segment.file, |batch| {
            entries(batch, |entry| {
                // What was finished is removed by now.
                if let Entry::Finished { id, .. } | Entry::Left { id } = entry {
                    records.extend(Entry::Left { id }.encode().unwrap_or_default());
                }
            });
            Ok(())
        })?;
    }
    if records.is_empty() {
        return Ok(());
    }
    for (segment, generation) in needs {
        let need = Entry::Needs {
            segment,
            generation,
        };
        records.extend(need.encode().unwrap_or_default());
    }
    let size = (records.len() + 2 * segment::BLOCK) as u64;
    let doing = || format!("make a commit log in {}", dir.path().display());
    let mut kept = Segment::create(dir, Side::Work, size).doing(doing)?;
    kept.write(&records).doing(doing)?;
    kept.sync().doing(doing)
}

#[cfg(test)]
mod tests;
