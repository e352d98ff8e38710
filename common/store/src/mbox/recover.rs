//! Finding a promised change of an mbox after a crash, and finishing it.
//!
//! The mailbox may be as it was, changed in part, or changed; and a program of others may have
//! appended to any of these before we came. Our octets are told from theirs by what the redo file
//! says: what stands where ours would be and is not ours begins with a From_ line.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use base::{Doing, Fail};
use nix::fcntl::OFlag;

use super::from_line;
use super::redo::{COMMITTED, CONTEXT, HEADER, NAME, Plan, apply, checksum};
use super::scan::{PIECE, each_piece};
use crate::beneath::Dir;

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
    use super::super::redo::{MAGIC, Redo};
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
            assert!(self.journal.stat(NAME).unwrap().is_none());
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
