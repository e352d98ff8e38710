//! One folder's messages, whichever way they are kept.

use crate::body::Body;
use crate::flags::{Flags, Keyword, Table};
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

    /// Changes flags, durably. Messages that are gone are passed over.
    pub(crate) fn store(
        &mut self,
        uids: &[u32],
        change: Change,
        flags: Flags,
        keywords: &[Keyword],
    ) -> Result<()> {
        match self {
            Self::Mbox(mbox) => mbox.store(uids, change, flags, keywords),
            Self::Maildir(maildir) => maildir.store(uids, change, flags, keywords),
        }
    }

    /// Removes messages, durably.
    pub(crate) fn expunge(&mut self, uids: &[u32]) -> Result<()> {
        match self {
            Self::Mbox(mbox) => mbox.expunge(uids),
            Self::Maildir(maildir) => maildir.expunge(uids),
        }
    }

    /// Adds messages, all or none, durably; their UIDs.
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
