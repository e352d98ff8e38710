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

use super::from_line;
use super::scan::{PIECE, each_piece};
use crate::beneath::Dir;

const NAME: &str = "redo";
const MAGIC: &[u8; 14] = b"yubin redo 01\n";
/// Magic, the commit octet, eight numbers.
const HEADER: u64 = 14 + 1 + 8 * 8;
const COMMITTED: u8 = b'C';
/// Octets before and behind the region that are checked.
const CONTEXT: u64 = 4096;

/// What a redo file says of its change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Plan {
    inode: u64,
    offset: u64,
    /// The mailbox's size before and after.
    old: u64,
    new: u64,
    length: u64,
    checksum: u32,
    /// Of up to [`CONTEXT`] octets before the offset.
    before: u32,
    /// Of up to as many before the old end that are not written over.
    behind: u32,
}

impl Plan {
    fn encode(&self, state: u8) -> Vec<u8> {
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
    fn decode(bytes: &[u8]) -> Option<Self> {
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
    fn behind_from(&self) -> u64 {
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

    fn promise(&mut self, patch: bool) -> Result<(), Fail> {
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
fn apply(journal: &Dir, mailbox: &File, redo: &File, plan: Plan) -> Result<(), Fail> {
    let doing = || "write over the mailbox";
    // What is added to the file comes first, see `commit`; `grown` tells how far that came.
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

fn checksum(file: &File, from: u64, to: u64) -> io::Result<u32> {
    let mut sum = 0;
    each_piece(file, from, to, |piece| {
        sum = crc32c::crc32c_append(sum, piece)
    })?;
    Ok(sum)
}

/// Carries out a change that was promised and not finished. To be called under the mailbox's
/// exclusive locks before anything is read.
pub(crate) fn recover(journal: &Dir, mailbox: &File) -> Result<(), Fail> {
    let doing = || format!("carry out {}", journal.at(NAME));
    let redo = match journal.file(NAME, OFlag::O_RDWR, 0) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.doing(doing)?,
    };
    let mut header = Vec::new();
    each_piece(&redo, 0, HEADER, |piece| header.extend_from_slice(piece)).doing(doing)?;
    let Some(plan) = Plan::decode(&header) else {
        journal.unlink(NAME).doing(doing)?;
        return journal.sync();
    };
    let whole = checksum(&redo, HEADER, HEADER + plan.length).doing(doing)? == plan.checksum
        && redo.metadata().doing(doing)?.len() == HEADER + plan.length;
    let next = if whole {
        judge(mailbox, &redo, &plan).doing(doing)?
    } else {
        Next::Aside
    };
    match next {
        Next::Finished => {
            mailbox.sync_all().doing(doing)?;
            journal.unlink(NAME).doing(doing)?;
            journal.sync()
        }
        Next::Apply => apply(journal, mailbox, &redo, plan),
        Next::Keep(from) => {
            let replaced = extend(journal, mailbox, &redo, plan, from)?;
            apply(journal, mailbox, &replaced.0, replaced.1)
        }
        Next::Aside => {
            let aside = format!("{NAME}.kept-{}", base::date::now());
            log::error!(
                "{}: does not fit its mailbox, kept as {aside}",
                journal.at(NAME)
            );
            journal.rename(NAME, journal, &aside).doing(doing)?;
            journal.sync()
        }
    }
}

/// What is to be done with a committed change.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It was made.
    Finished,
    Apply,
    /// The same, and what others wrote from this offset on comes behind it.
    Keep(u64),
    /// The mailbox is not one that we were changing.
    Aside,
}

fn judge(mailbox: &File, redo: &File, plan: &Plan) -> io::Result<Next> {
    let meta = mailbox.metadata()?;
    let size = meta.len();
    let before = checksum(mailbox, plan.offset.saturating_sub(CONTEXT), plan.offset)?;
    if meta.ino() != plan.inode || before != plan.before {
        return Ok(Next::Aside);
    }
    if plan.new > plan.old {
        return if size < plan.old {
            Ok(Next::Aside)
        } else {
            grown(mailbox, redo, plan, size)
        };
    }
    if size >= plan.old {
        if checksum(mailbox, plan.behind_from(), plan.old)? != plan.behind {
            return Ok(Next::Aside);
        }
        let tail = size > plan.old && plan.new < plan.old;
        return Ok(if tail {
            Next::Keep(plan.old)
        } else {
            Next::Apply
        });
    }
    // Already cut to the new size, and perhaps something was appended.
    if size >= plan.new && checksum(mailbox, plan.offset, plan.new)? == plan.checksum {
        return Ok(Next::Finished);
    }
    Ok(if size == plan.new {
        Next::Apply
    } else {
        Next::Aside
    })
}

/// The mailbox was to grow: what beyond its old size is ours, and what did others append?
fn grown(mailbox: &File, redo: &File, plan: &Plan, size: u64) -> io::Result<Next> {
    let to = size.min(plan.new);
    let same = same_octets(
        mailbox,
        plan.old,
        redo,
        HEADER + plan.old - plan.offset,
        to - plan.old,
    )?;
    let differs = plan.old + same;
    if differs == to {
        return Ok(if size > plan.new {
            Next::Keep(plan.new)
        } else {
            Next::Apply
        });
    }
    // Another's message begins with a From_ line, at the last such place before the difference; not
    // always at the beginning of a line, since ours may have been cut anywhere.
    let reach = differs.saturating_sub(64 << 10).max(plan.old);
    let mut text = Vec::new();
    each_piece(mailbox, reach, differs + from_line::MAX as u64 + 1, |p| {
        text.extend_from_slice(p);
    })?;
    let is_from = |at: &usize| {
        let line = text
            .get(*at..)
            .and_then(|rest| rest.split(|b| *b == b'\n').next());
        line.is_some_and(|line| from_line::parse(line).is_some())
    };
    let found = memchr::memmem::find_iter(&text, b"From ")
        .take_while(|at| reach + *at as u64 <= differs)
        .filter(is_from)
        .last();
    Ok(match found {
        Some(at) => Next::Keep(reach + at as u64),
        None if size <= plan.new => Next::Apply,
        None => Next::Aside,
    })
}

/// How many octets of two files are the same, from two offsets on.
fn same_octets(one: &File, at: u64, two: &File, from: u64, length: u64) -> io::Result<u64> {
    let mut other = vec![0; PIECE];
    let (mut same, mut differ, mut error) = (0, false, None);
    each_piece(one, at, at + length, |piece| {
        let (other, _) = other.split_at_mut(piece.len().min(PIECE));
        if differ || error.is_some() {
            return;
        }
        error = two.read_exact_at(other, from + same).err();
        let n = piece
            .iter()
            .zip(other.iter())
            .take_while(|(a, b)| a == b)
            .count();
        same += n as u64;
        differ = n < piece.len();
    })?;
    error.map_or(Ok(same), Err)
}

/// The same change with what others appended behind it, as a redo file of its own that takes the
/// old one's place in one step.
fn extend(
    journal: &Dir,
    mailbox: &File,
    redo: &File,
    plan: Plan,
    from: u64,
) -> Result<(File, Plan), Fail> {
    let doing = || format!("carry out {}", journal.at(NAME));
    let name = "redo.next";
    let size = mailbox.metadata().doing(doing)?.len();
    let flags = OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_RDWR;
    let next = journal.file(name, flags, 0o600).doing(doing)?;
    let mut more = plan;
    (more.length, more.checksum) = (0, 0);
    for (file, from, to) in [(redo, HEADER, HEADER + plan.length), (mailbox, from, size)] {
        let mut written = Ok(());
        each_piece(file, from, to, |piece| {
            if written.is_ok() {
                written = next.write_all_at(piece, HEADER + more.length);
                more.checksum = crc32c::crc32c_append(more.checksum, piece);
                more.length += piece.len() as u64;
            }
        })
        .doing(doing)?;
        written.doing(doing)?;
    }
    more.new = more.offset + more.length;
    more.old = size;
    more.behind = checksum(mailbox, more.behind_from(), size).doing(doing)?;
    next.write_all_at(&more.encode(COMMITTED), 0).doing(doing)?;
    next.sync_all().doing(doing)?;
    journal.rename(name, journal, NAME).doing(doing)?;
    journal.sync()?;
    Ok((next, more))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "From ann@example.org Thu Jan  1 00:00:00 1970\n";

    /// A mailbox of messages with these bodies.
    fn mbox(bodies: &[&str]) -> Vec<u8> {
        bodies
            .iter()
            .map(|b| format!("{FROM}A: b\n\n{b}\n\n"))
            .collect::<String>()
            .into_bytes()
    }

    struct Bench {
        temp: tempfile::TempDir,
        journal: Dir,
        old: Vec<u8>,
        new: Vec<u8>,
        offset: usize,
        patch: bool,
    }

    impl Bench {
        fn new(old: Vec<u8>, new: Vec<u8>, patch: bool) -> Self {
            let temp = tempfile::tempdir().unwrap();
            std::fs::write(temp.path().join("mbox"), &old).unwrap();
            let journal = Dir::root(temp.path()).unwrap();
            let offset = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
            Self {
                temp,
                journal,
                old,
                new,
                offset,
                patch,
            }
        }

        fn mailbox(&self) -> File {
            let path = self.temp.path().join("mbox");
            File::options().read(true).write(true).open(path).unwrap()
        }

        /// The mailbox with these octets, the same inode.
        fn set(&self, octets: &[u8]) {
            let file = self.mailbox();
            file.set_len(0).unwrap();
            file.write_all_at(octets, 0).unwrap();
        }

        fn octets(&self) -> Vec<u8> {
            std::fs::read(self.temp.path().join("mbox")).unwrap()
        }

        fn region(&self) -> &[u8] {
            let end = if self.patch {
                let same = self.old.iter().rev().zip(self.new.iter().rev());
                self.new.len() - same.take_while(|(a, b)| a == b).count()
            } else {
                self.new.len()
            };
            &self.new[self.offset..end.max(self.offset)]
        }

        /// Promises the change, and leaves it at that.
        fn promise(&self) -> Vec<u8> {
            let mailbox = self.mailbox();
            let mut redo = Redo::begin(&self.journal, &mailbox, self.offset as u64).unwrap();
            redo.push(self.region()).unwrap();
            redo.promise(self.patch).unwrap();
            std::fs::read(self.temp.path().join(NAME)).unwrap()
        }

        fn recover(&self, redo: &[u8]) -> Vec<u8> {
            std::fs::write(self.temp.path().join(NAME), redo).unwrap();
            recover(&self.journal, &self.mailbox()).unwrap();
            assert_eq!(self.journal.stat(NAME).unwrap().is_none(), true);
            self.octets()
        }

        /// Every state in which the steps of `apply` can be cut.
        fn states(&self) -> Vec<Vec<u8>> {
            let region = self.region();
            let mut states = vec![self.old.clone()];
            let mut now = self.old.clone();
            let within = region.len().min(self.old.len() - self.offset);
            for byte in &region[within..] {
                now.push(*byte);
                states.push(now.clone());
            }
            for (at, byte) in region[..within].iter().enumerate() {
                now[self.offset + at] = *byte;
                states.push(now.clone());
            }
            now.truncate(self.new.len());
            states.push(now);
            states
        }
    }

    fn benches() -> Vec<Bench> {
        let five = mbox(&["one", "two", "three", "four", "five"]);
        vec![
            Bench::new(five.clone(), mbox(&["one", "three", "five"]), false),
            Bench::new(five.clone(), Vec::new(), false),
            Bench::new(five.clone(), mbox(&["one", "two", "three", "four"]), false),
            Bench::new(
                five.clone(),
                mbox(&["one", "two, longer", "three", "four", "five!"]),
                false,
            ),
            Bench::new(
                mbox(&["one"]),
                mbox(&["one and much more of it", "x"]),
                false,
            ),
            Bench::new(five, mbox(&["one", "TWO", "THREE", "four", "five"]), true),
        ]
    }

    #[test]
    fn a_change_is_made() {
        for bench in benches() {
            let mailbox = bench.mailbox();
            let mut redo = Redo::begin(&bench.journal, &mailbox, bench.offset as u64).unwrap();
            redo.push(bench.region()).unwrap();
            redo.commit(bench.patch).unwrap();
            assert_eq!(bench.octets(), bench.new);
            assert_eq!(bench.journal.list().unwrap().len(), 1);
        }
    }

    #[test]
    fn a_crash_at_any_octet_leaves_the_old_or_the_new_mailbox() {
        for bench in benches() {
            let redo = bench.promise();
            // While the redo file was written: nothing happened yet.
            for cut in 0..redo.len() {
                let mut uncommitted = redo[..cut].to_vec();
                if let Some(state) = uncommitted.get_mut(MAGIC.len()) {
                    *state = b'P';
                }
                bench.set(&bench.old);
                assert_eq!(bench.recover(&uncommitted), bench.old);
            }
            for state in bench.states() {
                bench.set(&state);
                assert_eq!(bench.recover(&redo), bench.new);
            }
        }
    }

    #[test]
    fn what_others_appended_in_between_is_kept() {
        let foreign = mbox(&["from another program"]);
        for bench in benches() {
            let redo = bench.promise();
            for (at, state) in bench.states().into_iter().enumerate() {
                bench.set(&[state.as_slice(), &foreign].concat());
                let got = bench.recover(&redo);
                let expected = [bench.new.as_slice(), &foreign].concat();
                assert_eq!(
                    String::from_utf8_lossy(&got),
                    String::from_utf8_lossy(&expected),
                    "state {at}"
                );
            }
        }
    }

    #[test]
    fn a_damaged_redo_file_and_a_foreign_mailbox_change_nothing() {
        for bench in benches() {
            let redo = bench.promise();
            let other = mbox(&["quite", "another", "mailbox", "with", "more", "messages"]);
            bench.set(&other);
            assert_eq!(bench.recover(&redo), other);
            for at in MAGIC.len() + 1..redo.len() {
                let mut damaged = redo.clone();
                damaged[at] ^= 0x40;
                bench.set(&bench.old);
                let got = bench.recover(&damaged);
                assert!(got == bench.old || got == bench.new, "octet {at}");
                for (name, _) in bench.journal.list().unwrap() {
                    if name.starts_with("redo.kept") {
                        bench.journal.unlink(&name).unwrap();
                    }
                }
            }
        }
    }
}
