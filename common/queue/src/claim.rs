//! How a process becomes the owner of an entry: open, lock, look the name up again, read.
//!
//! What is not what was committed goes to `damaged/`; what a newer program wrote stays. A file that was
//! begun and has nothing in it goes, when its maker is no more.

use std::fs::File;
use std::io;
use std::time::Duration;

use base::sys::{self, LockKind};
use base::{Doing, Fail};
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag};

use crate::commit::{self, is_marked};
use crate::dir::Dir;
use crate::entry::Entry;
use crate::file::{self, Depth, Unreadable};
use crate::id::QueueId;
use crate::queue::{Lane, Place, Queue, modified};

/// What came of an attempt to get an entry.
#[derive(Debug)]
pub enum Claim {
    /// It is ours.
    Entry(Box<Entry>),
    /// Somebody works on it, or its creator is not done.
    Busy,
    /// It is not there any more.
    Gone,
    /// It was, and has been moved to `damaged/` for this reason.
    Damaged(String),
}

/// A file opened and locked, before anybody has read it.
pub(crate) enum Locked {
    File(File, FileStat),
    Busy,
    Gone,
    /// Something else than a file has the name.
    Strange,
}

/// Opens and locks what `id` names in `dir`, and makes sure that it is still named so.
pub(crate) fn lock(dir: &Dir, id: &QueueId) -> Result<Locked, Fail> {
    let doing = || format!("open {}", dir.name(id.as_str()));
    // A name that changes its file three times while we look has a busy owner.
    for _ in 0..3 {
        let file = match dir.open_entry(id, OFlag::O_RDWR) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Locked::Gone),
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(nix::libc::ELOOP | nix::libc::EISDIR | nix::libc::ENXIO)
                ) =>
            {
                return Ok(Locked::Strange);
            }
            Err(e) => return Err(Fail::io(doing(), e)),
        };
        let stat = nix::sys::stat::fstat(&file).doing(doing)?;
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
            return Ok(Locked::Strange);
        }
        if !sys::try_ofd_lock(&file, LockKind::Exclusive).doing(doing)? {
            return Ok(Locked::Busy);
        }
        if dir.still_names(id, &file).doing(doing)? {
            // Again, because what counts is what the last owner left.
            let stat = nix::sys::stat::fstat(&file).doing(doing)?;
            return Ok(Locked::File(file, stat));
        }
    }
    Ok(Locked::Busy)
}

/// A file with nothing in it that is older than this will get nothing. Its maker may have stopped
/// between making and locking it: then it sees that its file was removed, and makes another.
const NEVER_WRITTEN: Duration = Duration::from_secs(5);

/// Whether it was begun by [`Queue::commit_soon`] and never written: its sender was promised nothing.
pub(crate) fn never_written(place: Place, stat: &FileStat) -> bool {
    let lane = matches!(place, Place::Local | Place::Relay);
    lane && stat.st_size == 0 && stat.st_mode & commit::MARKS == 0
}

/// Why a file cannot be read, and what that means.
pub(crate) fn explain(reason: &str, marked: bool) -> String {
    if marked {
        return reason.into();
    }
    // The name comes before the data, and the mark after both.
    format!(
        "{reason}; most likely it was being written when its writer or the power failed: its sender has it still"
    )
}

/// Under its lock, so that its maker does not write into it meanwhile.
fn remove_empty(dir: &Dir, id: &QueueId, stat: &FileStat) -> Result<Claim, Fail> {
    let age = modified(stat).elapsed();
    if !age.is_ok_and(|age| age > NEVER_WRITTEN) {
        return Ok(Claim::Busy);
    }
    dir.unlink(id.as_str())
        .doing(|| format!("remove {}", dir.name(id.as_str())))?;
    log::info!("{id}: removed: begun and never written, its sender has it still");
    Ok(Claim::Gone)
}

impl Queue {
    /// Takes an entry, if it is there and nobody has it. Its whole file is verified first.
    pub fn claim(&self, lane: Lane, id: &QueueId) -> Result<Claim, Fail> {
        let mut claim = self.claim_in(lane.into(), id)?;
        match &mut claim {
            Claim::Entry(entry) => {
                entry.lane = lane;
                if let Some(reason) = entry.held() {
                    log::info!("{id}: held: {}", base::escape::escape(reason));
                    entry.move_to(Place::Hold)?;
                    return Ok(Claim::Gone);
                }
                entry.forget_drop()?;
                entry.settle()?;
            }
            Claim::Damaged(reason) => self.put_aside(lane, id, reason)?,
            Claim::Busy | Claim::Gone => (),
        }
        Ok(claim)
    }

    /// Locks and reads; what is damaged stays where it is.
    pub(crate) fn claim_in(&self, place: Place, id: &QueueId) -> Result<Claim, Fail> {
        let dir = self.dir(place)?;
        let (file, stat) = match lock(dir, id)? {
            Locked::File(file, stat) => (file, stat),
            Locked::Busy => return Ok(Claim::Busy),
            Locked::Gone => return Ok(Claim::Gone),
            Locked::Strange => return Ok(Claim::Damaged("not a regular file".into())),
        };
        if never_written(place, &stat) {
            return remove_empty(dir, id, &stat);
        }
        let doing = || format!("read {}", dir.name(id.as_str()));
        let contents = match file::read(&file, Depth::Verify) {
            Ok(contents) => contents,
            Err(Unreadable::Damaged(reason)) => {
                return Ok(Claim::Damaged(explain(reason, is_marked(stat.st_mode))));
            }
            Err(Unreadable::Io(e)) => return Err(Fail::io(doing(), e)),
            Err(newer @ Unreadable::Newer(_)) => {
                return Err(Fail::temp(format!("{}: {newer}", doing())));
            }
        };
        let (Some(origin), Some(envelope)) = (contents.origin.clone(), contents.envelope()) else {
            return Ok(Claim::Damaged("no origin or no sender".into()));
        };
        Ok(Claim::Entry(Box::new(Entry {
            queue: self.clone(),
            id: *id,
            place,
            lane: contents.state.lane.or(contents.lane).unwrap_or(Lane::Local),
            due: modified(&stat),
            durable: is_marked(stat.st_mode),
            marked: is_marked(stat.st_mode),
            file,
            contents,
            origin,
            envelope,
            failed: false,
        })))
    }

    fn put_aside(&self, lane: Lane, id: &QueueId, reason: &str) -> Result<(), Fail> {
        let (dir, damaged) = (self.dir(lane)?, self.dir(Place::Damaged)?);
        match damaged.take(dir, id) {
            Ok(()) => (),
            // Somebody else found it damaged too.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => {
                let from = dir.name(id.as_str());
                return Err(Fail::io(
                    format!("move {from} to {}", damaged.path().display()),
                    e,
                ));
            }
        }
        damaged.sync()?;
        dir.sync()?;
        log::error!(
            "{id}: damaged: {reason}: moved to {}",
            damaged.name(id.as_str())
        );
        Ok(())
    }
}
