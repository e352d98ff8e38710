//! How mail gets in, exactly once across kill -9 (DESIGN 4).
use std::io::{Read, Seek};
use base::Fail;
use crate::flags::{Flags, Keyword};
use crate::folder::FolderName;
use crate::spool::{Format, Spool};

/// Where a message's octets come from: they are read more than once.
pub trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// A message on its way into a mailbox, in CRLF form.
pub struct New<'a> {
    pub content: &'a mut dyn Source,
    /// Names this delivery for ever: 1 to 128 of letters, digits, `-`, `_`, `.`.
    pub delivery_id: String,
    /// For the From_ line; empty for the null reverse-path.
    pub reverse_path: String,
    /// Seconds since 1970: INTERNALDATE, From_ line.
    pub date: i64,
    pub flags: Flags,
    pub keywords: Vec<Keyword>,
}

/// What is about to be written, for the queue's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub user: String,
    pub folder: FolderName,
    pub format: Format,
    pub offset: u64,
    pub length: u64,
    pub checksum: u32,
    pub delivery_id: String,
    pub(crate) stamp: Stamp,
}

/// What a message's rendering depends on besides the message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    pub(crate) uidvalidity: u32,
    pub(crate) uid: u32,
    pub(crate) first: bool,
    pub(crate) date: i64,
}

impl Intent {
    /// For the journal.
    pub fn encode(&self) -> Vec<u8> { vec![] }
    /// From the journal.
    pub fn decode(_bytes: &[u8]) -> Option<Self> { None }
}

/// Whether a delivery that was interrupted is in the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redo { Done, NotThere }

/// Messages about to be written: the mailbox is locked.
pub struct Pending<'a> { intents: Vec<Intent>, new: Vec<New<'a>> }

/// Locks the mailbox of `user` (made if it is not there) and works out what will be written.
pub fn begin<'a>(_spool: &Spool, _user: &str, _folder: &FolderName, new: Vec<New<'a>>) -> Result<Pending<'a>, Fail> {
    Ok(Pending { intents: vec![], new })
}

impl Pending<'_> {
    /// One for each message, in order: make them durable before `commit`.
    pub fn intents(&self) -> &[Intent] { &self.intents }
    /// Writes and syncs. On an error nothing of it stays.
    pub fn commit(self) -> Result<(), Fail> { drop(self.new); Ok(()) }
}

/// After a crash: whether `intent` was carried out. A torn tail of ours is cut.
pub fn redo(_spool: &Spool, _intent: &Intent, _new: &mut New<'_>) -> Result<Redo, Fail> { Ok(Redo::NotThere) }
