//! One folder's messages, whichever way they are kept.

use crate::body::Body;
use crate::flags::{Flags, Keyword, Table};
use crate::folder::FolderName;
use crate::maildir::Maildir;
use crate::mbox::Mbox;
use crate::request::{Change, Whole, Why};
use crate::session::Slice;
use crate::spool::{Format, Place};
use crate::trouble::{Result, Trouble};

/// What is known of a message without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Item {
    pub(crate) uid: u32,
    pub(crate) flags: Flags,
    /// Bits of the mailbox's [`Table`].
    pub(crate) keywords: u64,
    /// No session has claimed it yet.
    pub(crate) recent: bool,
    pub(crate) date: i64,
    /// Octets as served, of the whole and of the header with its empty line.
    pub(crate) size: u64,
    pub(crate) header_size: u64,
}

/// A change of flags.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    pub(crate) change: Change,
    pub(crate) flags: Flags,
    pub(crate) keywords: u64,
}

impl Marks {
    /// Flags and keywords after the change.
    pub(crate) fn apply(&self, item: &Item) -> (Flags, u64) {
        match self.change {
            Change::Add => (item.flags.with(self.flags), item.keywords | self.keywords),
            Change::Remove => (
                item.flags.without(self.flags),
                item.keywords & !self.keywords,
            ),
            Change::Replace => (self.flags, self.keywords),
        }
    }
}

/// What has to hold, looked at again under the lock, for messages to be removed. Between the look at
/// a mailbox and its lock another session may have taken back a deletion, and another program may
/// have put another mailbox there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Still {
    pub(crate) uidvalidity: u32,
    /// Only what is marked as deleted.
    pub(crate) deleted: bool,
}

impl Still {
    pub(crate) fn allows(self, item: &Item) -> bool {
        !self.deleted || item.flags.has(Flags::DELETED)
    }
}

/// UIDs of before must still mean the same messages.
pub(crate) fn same(folder: &FolderName, before: u32, now: u32) -> Result<()> {
    if before == now {
        return Ok(());
    }
    let text = format!("folder {folder} has a new UIDVALIDITY");
    Err(Trouble::new(Why::Replaced, text))
}

/// A message as it is copied from one folder to another.
pub(crate) struct Copied {
    pub(crate) body: Slice,
    pub(crate) date: i64,
    pub(crate) flags: Flags,
    pub(crate) keywords: Vec<Keyword>,
}

/// A folder that exists.
#[derive(Debug)]
pub(crate) enum Mailbox {
    Mbox(Box<Mbox>),
    Maildir(Box<Maildir>),
}

impl Mailbox {
    /// Opens a folder; INBOX is made if it is not there.
    pub(crate) fn open(place: Place) -> Result<Self> {
        let format = match place.format()? {
            Some(format) => format,
            None if place.folder.is_inbox() => {
                create(&place)?;
                place.format_of_new()
            }
            None => {
                let text = format!("folder {} does not exist", place.folder);
                return Err(Trouble::new(Why::NoSuchFolder, text));
            }
        };
        Ok(match format {
            Format::Mbox => Self::Mbox(Box::new(Mbox::open(place)?)),
            Format::Maildir => Self::Maildir(Box::new(Maildir::open(place)?)),
        })
    }

    /// Brings what is known up to what is in the mail, durably giving UIDs to what has none. With
    /// `claim`, messages that are new to all sessions stop being so; they are still `recent` here.
    pub(crate) fn refresh(&mut self, claim: bool) -> Result<()> {
        match self {
            Self::Mbox(mbox) => mbox.refresh(claim),
            Self::Maildir(maildir) => maildir.refresh(claim),
        }
    }

    /// The messages as of the last refresh, ascending by UID.
    pub(crate) fn items(&self) -> Vec<Item> {
        match self {
            Self::Mbox(mbox) => mbox.items().copied().collect(),
            Self::Maildir(maildir) => maildir.items().copied().collect(),
        }
    }

    pub(crate) fn item(&self, uid: u32) -> Option<Item> {
        match self {
            Self::Mbox(mbox) => mbox.item(uid),
            Self::Maildir(maildir) => maildir.item(uid),
        }
    }

    pub(crate) fn uidvalidity(&self) -> u32 {
        match self {
            Self::Mbox(mbox) => mbox.uidvalidity(),
            Self::Maildir(maildir) => maildir.uidvalidity(),
        }
    }

    pub(crate) fn uidnext(&self) -> u32 {
        match self {
            Self::Mbox(mbox) => mbox.uidnext(),
            Self::Maildir(maildir) => maildir.uidnext(),
        }
    }

    pub(crate) fn table(&self) -> &Table {
        match self {
            Self::Mbox(mbox) => mbox.table(),
            Self::Maildir(maildir) => maildir.table(),
        }
    }

    /// Whether a new keyword can be kept.
    pub(crate) fn takes_keywords(&self) -> bool {
        match self {
            Self::Mbox(mbox) => mbox.table().has_room(),
            Self::Maildir(maildir) => maildir.takes_keywords(),
        }
    }

    /// A copy of one message, exactly as it is served.
    pub(crate) fn content(&mut self, uid: u32) -> Result<Body> {
        match self {
            Self::Mbox(mbox) => mbox.content(uid),
            Self::Maildir(maildir) => maildir.content(uid),
        }
    }

    /// Copies of the first of these messages that are there, as long as they have at most so many
    /// octets together.
    pub(crate) fn contents(
        &mut self,
        uids: &[u32],
        headers: bool,
        octets: usize,
    ) -> Result<Vec<Whole>> {
        match self {
            Self::Mbox(mbox) => mbox.contents(uids, headers, octets),
            Self::Maildir(maildir) => maildir.contents(uids, headers, octets),
        }
    }

    /// Changes flags, durably. Messages that are gone are passed over; with another UIDVALIDITY than
    /// this nothing is changed.
    pub(crate) fn store(
        &mut self,
        uidvalidity: u32,
        uids: &[u32],
        change: Change,
        flags: Flags,
        keywords: &[Keyword],
    ) -> Result<()> {
        match self {
            Self::Mbox(mbox) => mbox.store(uidvalidity, uids, change, flags, keywords),
            Self::Maildir(maildir) => maildir.store(uidvalidity, uids, change, flags, keywords),
        }
    }

    /// Removes messages, durably, those of which that still holds.
    pub(crate) fn expunge(&mut self, uids: &[u32], still: Still) -> Result<()> {
        match self {
            Self::Mbox(mbox) => mbox.expunge(uids, still),
            Self::Maildir(maildir) => maildir.expunge(uids, still),
        }
    }

    /// Adds messages, all or none, durably; their UIDs, or none where they are not known yet.
    pub(crate) fn append(&mut self, messages: &mut [Copied]) -> Result<Vec<u32>> {
        match self {
            Self::Mbox(mbox) => mbox.append(messages),
            Self::Maildir(maildir) => maildir.append(messages),
        }
    }

    /// What to watch.
    pub(crate) fn paths(&self) -> Vec<std::path::PathBuf> {
        match self {
            Self::Mbox(mbox) => mbox.paths(),
            Self::Maildir(maildir) => maildir.paths(),
        }
    }
}

/// Makes a folder that does not exist.
pub(crate) fn create(place: &Place) -> Result<()> {
    match place.format_of_new() {
        Format::Mbox => crate::mbox::create(place),
        Format::Maildir => crate::maildir::create(place),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::path::Path;

    use base::{Config, Root};

    use super::*;
    use crate::append::{self, New};
    use crate::spool::Spool;

    /// What another session took back between a session's look and its lock was removed all the same.
    #[test]
    fn what_is_no_longer_to_be_removed_stays() {
        for format in ["mbox", "maildir"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("var/spool/mail")).unwrap();
            let root = Root::new(dir.path());
            let text = format!("MAILBOX_FORMAT={format}\n");
            let config = Config::parse(&root, &text, Path::new("yubin.def")).unwrap();
            let spool = Spool::open(&root, &config).unwrap();
            for id in ["a", "b"] {
                let mut content = Cursor::new(b"Subject: x\r\n\r\n");
                let new = vec![New::unmarked(&mut content, id, "bob@example.org")];
                let begun = append::begin(&spool, "ann", &FolderName::inbox(), new).unwrap();
                begun.commit().unwrap();
            }
            let place = spool.home("ann").unwrap().place(&FolderName::inbox());
            let mut mailbox = Mailbox::open(place).unwrap();
            mailbox.refresh(true).unwrap();
            let uidvalidity = mailbox.uidvalidity();
            let mark = |mailbox: &mut Mailbox, uidvalidity, uid| {
                mailbox.store(uidvalidity, &[uid], Change::Add, Flags::DELETED, &[])
            };
            let still = Still {
                uidvalidity,
                deleted: true,
            };
            let other = Still {
                uidvalidity: uidvalidity + 1,
                ..still
            };
            mark(&mut mailbox, uidvalidity, 1).unwrap();
            let trouble = mark(&mut mailbox, uidvalidity + 1, 2).unwrap_err();
            assert_eq!(trouble.why, Why::Replaced, "{format}");
            let trouble = mailbox.expunge(&[1, 2], other).unwrap_err();
            assert_eq!(trouble.why, Why::Replaced, "{format}");
            mailbox.expunge(&[1, 2], still).unwrap();
            mailbox.refresh(true).unwrap();
            let left: Vec<u32> = mailbox.items().iter().map(|item| item.uid).collect();
            assert_eq!(left, [2], "{format}");
        }
    }
}
