//! What has to be remembered of a mailbox when the mailbox itself cannot say it: its UIDVALIDITY
//! while it is empty, and UIDs that may have been given when others deleted the first message with
//! its X-IMAPbase or put an older file in its place; and of a user, the last UIDVALIDITY, so that
//! no two of his folders, present or past, have the same.
//!
//! Both are small files in the journal directory, replaced whole and durably once in many UIDs; the
//! last UID given is written over between.

use std::os::unix::fs::FileExt;

use base::{Doing, Fail, sys};
use nix::fcntl::OFlag;

use crate::beneath::Dir;

const BASE: &str = "base";
/// With a dot, which no folder's directory beside it has.
const VALIDITY: &str = "uid.validity";
/// UIDs that are reserved at once. After others' deletions this many numbers may stay unused.
const STEP: u32 = 256;
/// UIDs beyond this are not given; the mailbox gets a new UIDVALIDITY instead.
pub(crate) const LAST_UID: u32 = 4_000_000_000;

/// UIDVALIDITY, a number above which no UID was given, and the last that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) uidvalidity: u32,
    /// Durable.
    pub(crate) reserved: u32,
    /// Not synced: after power loss it may be an older number.
    given: u32,
}

impl Base {
    /// `None` if there is none, or if it makes no sense.
    pub(crate) fn read(journal: &Dir) -> Result<Option<Self>, Fail> {
        let Some([uidvalidity, reserved, given]) = numbers(journal.read(BASE, 64)?) else {
            return Ok(None);
        };
        let sound = uidvalidity > 0 && reserved <= LAST_UID && given <= reserved;
        Ok(sound.then_some(Self {
            uidvalidity,
            reserved,
            given,
        }))
    }

    /// The last UID of a mailbox that says `last`: more, where more was given since what now stands
    /// there was written.
    pub(crate) fn last(kept: Option<Self>, uidvalidity: u32, last: u32) -> u32 {
        let newer = kept.filter(|base| base.uidvalidity == uidvalidity && base.given > last);
        newer.map_or(last, |base| base.reserved)
    }

    /// The last number always has ten digits, so that it can be written over.
    fn text(&self) -> String {
        format!(
            "{} {} {:010}\n",
            self.uidvalidity, self.reserved, self.given
        )
    }
}

/// Makes it durable that UIDs up to `last` may be in use. To be called before they are.
pub(crate) fn reserve(journal: &Dir, uidvalidity: u32, last: u32) -> Result<(), Fail> {
    reserve_beyond(journal, Base::read(journal)?, uidvalidity, last)
}

/// The same where it is known what the file says.
pub(crate) fn reserve_beyond(
    journal: &Dir,
    kept: Option<Base>,
    uidvalidity: u32,
    last: u32,
) -> Result<(), Fail> {
    let within = kept.filter(|base| base.uidvalidity == uidvalidity && last <= base.reserved);
    match within {
        Some(base) if last <= base.given => Ok(()),
        Some(base) => {
            let text = Base {
                given: last,
                ..base
            }
            .text();
            journal
                .file(BASE, OFlag::O_WRONLY, 0)
                .and_then(|file| file.write_all_at(text.as_bytes(), 0))
                .doing(|| format!("write {}", journal.at(BASE)))
        }
        None => {
            let base = Base {
                uidvalidity,
                reserved: last.saturating_add(STEP).min(LAST_UID),
                given: last,
            };
            journal.replace(BASE, base.text().as_bytes(), 0o600)
        }
    }
}

/// A UIDVALIDITY that no folder of this user has or had: the time, or the last one and 1.
pub(crate) fn new_uidvalidity(journals: &Dir) -> Result<u32, Fail> {
    let flags = OFlag::O_CREAT | OFlag::O_RDWR;
    let name = "uid.validity.lock";
    let lock = journals
        .file(name, flags, 0o600)
        .map_err(|e| Fail::io(format!("open {}", journals.at(name)), e))?;
    // The lock is held for one small write.
    for _ in 0..200 {
        if sys::try_ofd_lock(&lock, sys::LockKind::Exclusive).unwrap_or(false) {
            let last = numbers::<1>(journals.read(VALIDITY, 64)?).map_or(0, |[last]| last);
            let now = u32::try_from(base::date::now()).unwrap_or(u32::MAX);
            let next = now.max(last.saturating_add(1)).max(1);
            journals.replace(VALIDITY, format!("{next}\n").as_bytes(), 0o600)?;
            return Ok(next);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Err(Fail::temp(format!(
        "lock {}: another process has it",
        journals.at(name)
    )))
}

fn numbers<const N: usize>(bytes: Option<Vec<u8>>) -> Option<[u32; N]> {
    let text = String::from_utf8(bytes?).ok()?;
    let text = text.strip_suffix('\n')?;
    let list: Vec<u32> = text
        .split(' ')
        .map(|n| n.parse().ok())
        .collect::<Option<_>>()?;
    list.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uidvalidity_is_never_given_twice() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::root(temp.path()).unwrap();
        let mut last = 0;
        for _ in 0..5 {
            let next = new_uidvalidity(&dir).unwrap();
            assert!(next > last);
            last = next;
        }
    }

    #[test]
    fn uids_are_reserved_in_steps_and_damage_is_ignored() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::root(temp.path()).unwrap();
        assert_eq!(Base::read(&dir).unwrap(), None);
        reserve(&dir, 7, 1).unwrap();
        let base = |reserved, given| {
            Some(Base {
                uidvalidity: 7,
                reserved,
                given,
            })
        };
        assert_eq!(Base::read(&dir).unwrap(), base(257, 1));
        reserve(&dir, 7, 257).unwrap();
        assert_eq!(Base::read(&dir).unwrap(), base(257, 257));
        reserve(&dir, 8, 2).unwrap();
        assert_eq!(Base::read(&dir).unwrap().unwrap().reserved, 258);
        for bad in [
            "",
            "7 1",
            "7 1 1",
            "x 1 1\n",
            "0 1 1\n",
            "7 4294967295 1\n",
            "7 1 2\n",
        ] {
            std::fs::write(temp.path().join(BASE), bad).unwrap();
            assert_eq!(Base::read(&dir).unwrap(), None);
        }
    }
}
