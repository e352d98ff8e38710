//! Changing the middle of an mbox so that a crash leaves the old or the new file, never a mixture.
//!
//! Order of every such change, under the mailbox's locks:
//!
//! 1. `redo`: what the region shall be, with the inode, the offset, the sizes before and after and
//!    checksums of what stands around it; fsync of it and its directory
//! 2. its commit octet is written; fsync. From here on the change will happen
//! 3. the mailbox is written over, cut or grown; fsync
//! 4. `redo` is unlinked; fsync of its directory
//!
//! Who finds a committed `redo` carries it out before anything else. The inode stays, because other
//! programs wait on its lock. A program of others may have appended between the crash and us: what
//! stands beyond the size that the mailbox had is kept. Where a mailbox does not look like one that
//! we were changing, nothing is written and the file is put aside for the operator.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use base::{Doing, Fail};
use nix::fcntl::OFlag;

use super::scan::each_piece;
use crate::beneath::Dir;

pub(super) const NAME: &str = "redo";
pub(super) const MAGIC: &[u8; 14] = b"yubin redo 01\n";
/// Magic, the commit octet, eight numbers.
pub(super) const HEADER: u64 = 14 + 1 + 8 * 8;
pub(super) const COMMITTED: u8 = b'C';
/// Octets before and behind the region that are checked.
pub(super) const CONTEXT: u64 = 4096;

/// What a redo file says of its change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Plan {
    pub(super) inode: u64,
    pub(super) offset: u64,
    /// The mailbox's size before and after.
    pub(super) old: u64,
    pub(super) new: u64,
    pub(super) length: u64,
    pub(super) checksum: u32,
    /// Of up to [`CONTEXT`] octets before the offset.
    pub(super) before: u32,
    /// Of up to as many before the old end that are not written over.
    pub(super) behind: u32,
}

impl Plan {
    pub(super) fn encode(&self, state: u8) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(state);
        let sums = [self.checksum, self.before, self.behind].map(u64::from);
        let sizes = [self.inode, self.offset, self.old, self.new, self.length];
        for n in sizes.into_iter().chain(sums) {
            bytes.extend_from_slice(&n.to_be_bytes());
        }
        bytes
    }

    /// The plan of a redo file that was committed.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(&[COMMITTED])?;
        let mut numbers = rest
            .chunks_exact(8)
            .filter_map(|n| Some(u64::from_be_bytes(n.try_into().ok()?)));
        let mut next = || numbers.next();
        let plan = Self {
            inode: next()?,
            offset: next()?,
            old: next()?,
            new: next()?,
            length: next()?,
            checksum: u32::try_from(next()?).ok()?,
            before: u32::try_from(next()?).ok()?,
            behind: u32::try_from(next()?).ok()?,
        };
        let end = plan.offset.checked_add(plan.length)?;
        let sound =
            plan.offset <= plan.old && (end == plan.new || plan.old == plan.new && end <= plan.new);
        sound.then_some(plan)
    }

    /// Where the octets begin whose checksum is `behind`.
    pub(super) fn behind_from(&self) -> u64 {
        let written = self.offset + self.length;
        self.old.saturating_sub(CONTEXT).max(written).min(self.old)
    }
}

/// A change that is being written down.
pub(crate) struct Redo<'a> {
    journal: &'a Dir,
    mailbox: &'a File,
    file: File,
    plan: Plan,
}

impl<'a> Redo<'a> {
    /// Begins a change of `mailbox` at `offset`.
    pub(crate) fn begin(journal: &'a Dir, mailbox: &'a File, offset: u64) -> Result<Self, Fail> {
        let doing = || format!("write {}", journal.at(NAME));
        let meta = mailbox.metadata().doing(doing)?;
        let flags = OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_RDWR;
        let file = journal.file(NAME, flags, 0o600).doing(doing)?;
        let plan = Plan {
            inode: meta.ino(),
            offset,
            old: meta.len(),
            ..Plan::default()
        };
        let begun = Self {
            journal,
            mailbox,
            file,
            plan,
        };
        match begun.file.write_all_at(&plan.encode(b'P'), 0) {
            Ok(()) => Ok(begun),
            Err(e) => begun.abandon(Fail::io(doing(), e)),
        }
    }

    /// The next octets of the region.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        self.file
            .write_all_at(bytes, HEADER + self.plan.length)
            .doing(|| format!("write {}", self.journal.at(NAME)))?;
        self.plan.checksum = crc32c::crc32c_append(self.plan.checksum, bytes);
        self.plan.length += bytes.len() as u64;
        Ok(())
    }

    /// The next octets of the region are those of the mailbox from `from` to `to`.
    pub(crate) fn copy(&mut self, from: u64, to: u64) -> Result<(), Fail> {
        let mailbox = self.mailbox;
        let mut pushed = Ok(());
        let mut copied = 0;
        each_piece(mailbox, from, to, |piece| {
            if pushed.is_ok() {
                copied += piece.len() as u64;
                pushed = self.push(piece);
            }
        })
        .doing(|| "read the mailbox")?;
        pushed?;
        if copied == to.saturating_sub(from) {
            Ok(())
        } else {
            Err(Fail::temp("the mailbox was cut by another program"))
        }
    }

    /// Nothing happens to the mailbox.
    pub(crate) fn abandon<T>(self, why: Fail) -> Result<T, Fail> {
        // Uncommitted, it means nothing; should it stay, the next reader removes it.
        self.journal.unlink(NAME).ok();
        Err(why)
    }

    /// Makes the change: to the mailbox's end, or (`patch`) of as many octets as were pushed.
    pub(crate) fn commit(mut self, patch: bool) -> Result<(), Fail> {
        match self.promise(patch) {
            Ok(()) => {}
            Err(fail) => return self.abandon(fail),
        }
        let failed = match self.grow() {
            Ok(()) => return apply(self.journal, self.mailbox, &self.file, self.plan),
            Err(failed) => failed,
        };
        // The disk is full: nothing of the old octets was written over, so the mailbox is as it was.
        self.mailbox
            .set_len(self.plan.old)
            .doing(|| "cut the mailbox back")?;
        self.journal
            .unlink(NAME)
            .doing(|| format!("remove {}", self.journal.at(NAME)))?;
        self.journal.sync()?;
        Err(Fail::io("write over the mailbox", failed))
    }

    /// Writes what is beyond the mailbox's old end.
    fn grow(&self) -> io::Result<()> {
        let plan = &self.plan;
        let within = plan.length.min(plan.old - plan.offset);
        write(self.mailbox, &self.file, plan, within, plan.length)
    }

    pub(super) fn promise(&mut self, patch: bool) -> Result<(), Fail> {
        let doing = || format!("write {}", self.journal.at(NAME));
        let plan = &mut self.plan;
        plan.new = if patch {
            plan.old
        } else {
            plan.offset + plan.length
        };
        plan.before = checksum(
            self.mailbox,
            plan.offset.saturating_sub(CONTEXT),
            plan.offset,
        )
        .doing(doing)?;
        plan.behind = checksum(self.mailbox, plan.behind_from(), plan.old).doing(doing)?;
        self.file.write_all_at(&plan.encode(b'P'), 0).doing(doing)?;
        self.file.sync_all().doing(doing)?;
        self.journal.sync()?;
        self.file
            .write_all_at(&[COMMITTED], MAGIC.len() as u64)
            .doing(doing)?;
        self.file.sync_all().doing(doing)
    }
}

/// Steps 3 and 4.
pub(super) fn apply(journal: &Dir, mailbox: &File, redo: &File, plan: Plan) -> Result<(), Fail> {
    let doing = || "write over the mailbox";
    // What is added to the file comes first, see `commit`; recovery tells how far that came.
    let within = plan.length.min(plan.old - plan.offset);
    write(mailbox, redo, &plan, within, plan.length).doing(doing)?;
    write(mailbox, redo, &plan, 0, within).doing(doing)?;
    if plan.new != plan.old {
        // A patch leaves what others appended since.
        mailbox.set_len(plan.new).doing(doing)?;
    }
    mailbox.sync_all().doing(doing)?;
    journal
        .unlink(NAME)
        .doing(|| format!("remove {}", journal.at(NAME)))?;
    journal.sync()
}

/// Writes the octets `from` to `to` of the region.
fn write(mailbox: &File, redo: &File, plan: &Plan, from: u64, to: u64) -> io::Result<()> {
    let mut at = plan.offset + from;
    let mut written = Ok(());
    each_piece(redo, HEADER + from, HEADER + to, |piece| {
        if written.is_ok() {
            written = mailbox.write_all_at(piece, at);
            at += piece.len() as u64;
        }
    })?;
    written
}

pub(super) fn checksum(file: &File, from: u64, to: u64) -> io::Result<u32> {
    let mut sum = 0;
    each_piece(file, from, to, |piece| {
        sum = crc32c::crc32c_append(sum, piece);
    })?;
    Ok(sum)
}
