//! What a session is asked and what it answers, as data: in one process by a call, over a socket
//! in frames ([`Request::encode`], [`Answer::decode`] ...).
//!
//! Every list and every piece of a body is bounded, so that no frame exceeds [`MAX_FRAME`].

use crate::flags::{Flags, Keyword};
use crate::folder::FolderName;
use crate::pattern::Pattern;
use crate::set::Set;

/// Octets in a frame, without the four of its length.
pub const MAX_FRAME: usize = 16 << 20;
/// Octets of a body in one request or answer.
pub const MAX_PIECE: usize = 1 << 20;
/// Messages described in one answer.
pub const MAX_MESSAGES: usize = 50_000;

/// A request to a [`crate::Session`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Opens a folder; what was selected before is left without an expunge. -> Selected
    Select {
        folder: FolderName,
        read_only: bool,
    },
    /// Leaves the selected folder. -> Done
    Unselect,
    /// Expunges without telling (nothing when read-only), then leaves. -> Done
    Close,
    /// -> Status
    Status(FolderName),
    /// The folders that match, INBOX first, then by name; levels above a folder that are none
    /// themselves are there with `selectable: false`. -> Folders
    List(Pattern),
    /// The subscribed names that match. Where the pattern ends in `%`, also levels that match above
    /// one that does not, with `selectable: false` (RFC 3501 6.3.9). -> Folders
    Lsub(Pattern),
    Create(FolderName),
    Delete(FolderName),
    /// Levels below go along; renaming INBOX moves its messages (RFC 3501 6.3.5). -> Done
    Rename {
        from: FolderName,
        to: FolderName,
    },
    Subscribe(FolderName),
    Unsubscribe(FolderName),
    /// Number, UID, flags, date and size of messages. -> Messages; when its `more` is set, ask again
    /// from behind the last.
    Fetch(Set),
    /// A piece of a message: at most `length` octets (and at most [`MAX_PIECE`]) from `offset` of
    /// the part. All pieces come from one copy that was made when the first was asked for, as long
    /// as no other message is asked for in between. -> Content
    Content {
        uid: u32,
        part: Part,
        offset: u64,
        length: u32,
    },
    /// Small messages together: whole, or only their headers. The answer has the first of these UIDs
    /// up to, not including, one that is gone or with which it would have more than `octets` (and
    /// [`MAX_PIECE`]); that one is to be asked for by Content. -> Contents
    Contents {
        uids: Vec<u32>,
        headers: bool,
        octets: u32,
    },
    /// -> Stored: the messages as they are now, up to [`MAX_MESSAGES`] of them.
    StoreFlags {
        set: Set,
        change: Change,
        flags: Flags,
        keywords: Vec<Keyword>,
    },
    /// Begins an append of a message in CRLF form. The target must exist. `date` is seconds since
    /// 1970, now if absent. -> Done
    Append {
        folder: FolderName,
        flags: Flags,
        keywords: Vec<Keyword>,
        date: Option<i64>,
        size: u64,
    },
    /// The next octets of it, at most [`MAX_PIECE`]. -> Done
    AppendData(Vec<u8>),
    /// Stores it durably. -> Appended
    AppendEnd,
    /// Forgets it. -> Done
    AppendAbort,
    /// All or nothing. -> Copied
    Copy {
        set: Set,
        to: FolderName,
    },
    /// Copy, then expunge of what was copied (RFC 6851). -> Copied, with updates
    Move {
        set: Set,
        to: FolderName,
    },
    /// Removes messages. -> Updates, with expunges
    Expunge(Expunge),
    /// What changed since the last Poll or Select. Expunges are told only if they may be: not
    /// during FETCH, STORE and SEARCH (RFC 3501 7.4.1). -> Updates
    Poll {
        expunges: bool,
    },
    /// Whether [`Answer::Changed`] is to be pushed when the selected folder may have changed. Only
    /// over a socket; in one process use [`crate::Watcher`]. -> Done
    Watch(bool),
}

/// Which octets of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// Up to and with the empty line.
    Header,
    /// What follows the empty line.
    Text,
}

/// How flags are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Add,
    Remove,
    Replace,
}

/// Which messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expunge {
    /// All with `\Deleted`.
    Deleted,
    /// Of these, those with `\Deleted` (UID EXPUNGE of RFC 4315).
    DeletedIn(Set),
    /// These, whatever their flags: POP3's UPDATE state.
    Messages(Set),
}

/// An answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    Selected(Selected),
    Status(Status),
    Folders(Vec<Folder>),
    Messages(Messages),
    Content(Content),
    Contents(Vec<Whole>),
    Stored(Messages),
    /// `uid` is 0 where it is not known yet.
    Appended {
        uidvalidity: u32,
        uid: u32,
    },
    /// `source[n]` became `copies[n]`; `copies` is empty where they are not known yet.
    Copied {
        uidvalidity: u32,
        source: Vec<u32>,
        copies: Vec<u32>,
        updates: Updates,
    },
    Updates(Updates),
    /// Nobody asked: the selected folder may have changed, Poll will say how.
    Changed,
    Failed(Failed),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selected {
    pub uidvalidity: u32,
    pub uidnext: u32,
    pub exists: u32,
    pub recent: u32,
    /// The sequence number of the first message without `\Seen`.
    pub first_unseen: Option<u32>,
    pub keywords: Vec<Keyword>,
    /// Whether a keyword that is not among these can be stored: `\*` in PERMANENTFLAGS.
    pub new_keywords: bool,
    pub read_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    pub uidvalidity: u32,
    pub uidnext: u32,
    pub exists: u32,
    pub recent: u32,
    pub unseen: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    pub name: FolderName,
    /// Whether it is one, or only a level above one.
    pub selectable: bool,
    pub children: bool,
}

/// One message in the session's view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub seq: u32,
    pub uid: u32,
    pub flags: Flags,
    pub recent: bool,
    pub keywords: Vec<Keyword>,
    /// INTERNALDATE, seconds since 1970.
    pub date: i64,
    /// RFC822.SIZE: octets with CRLF line ends, exactly those that Content gives.
    pub size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Messages {
    pub list: Vec<Message>,
    /// There are more than fit; ask for those behind the last of the list.
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub uid: u32,
    /// Octets of the part that was asked for.
    pub size: u64,
    /// From the offset that was asked for; empty at or beyond the end.
    pub bytes: Vec<u8>,
}

/// A message of [`Answer::Contents`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    pub uid: u32,
    /// Octets of the header with its empty line.
    pub header: u64,
    /// The message, or its header if only that was asked for.
    pub bytes: Vec<u8>,
}

impl Whole {
    /// A piece of it as Content gives it, and its part's size; `None` if only `headers` were asked
    /// for and the part is another.
    pub fn piece(
        &self,
        part: Part,
        offset: u64,
        length: u32,
        headers: bool,
    ) -> Option<(u64, &[u8])> {
        if headers && part != Part::Header {
            return None;
        }
        let header = usize::try_from(self.header).ok()?;
        let bytes = match part {
            Part::Whole => self.bytes.as_slice(),
            Part::Header => self.bytes.get(..header)?,
            Part::Text => self.bytes.get(header..)?,
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = bytes.get(start..).unwrap_or_default();
        let length = usize::try_from(length).unwrap_or(MAX_PIECE).min(rest.len());
        Some((bytes.len() as u64, rest.get(..length).unwrap_or_default()))
    }
}

/// What to tell a client, in this order: expunges, then EXISTS and RECENT, then flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Updates {
    /// Sequence numbers, each as it is after the ones before it are gone.
    pub expunged: Vec<u32>,
    /// The UIDs of these, in the same order.
    pub expunged_uids: Vec<u32>,
    /// The number of messages, if it is to be told.
    pub exists: Option<u32>,
    pub recent: Option<u32>,
    /// Messages whose flags others changed.
    pub changed: Vec<Message>,
    /// All keywords of the folder, when there are new ones.
    pub keywords: Option<Vec<Keyword>>,
    /// More changed than fit: Poll again.
    pub more: bool,
}

impl Updates {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a request was not done. Nothing was changed then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub why: Why,
    /// For the client and the log; names the object and, where the operator can, the mend.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No folder is selected.
    NotSelected,
    ReadOnly,
    NoSuchFolder,
    /// A folder of this name exists.
    Exists,
    /// Not possible with this folder: RFC 3501 would say NO.
    Cannot,
    /// The message is no more.
    Gone,
    TooBig,
    /// The disk or the quota is full.
    Full,
    /// Others hold the mailbox's locks.
    InUse,
    /// The folder was made anew under the session, UIDs of before mean nothing: end the session.
    Replaced,
    /// Anything else of ours: try later.
    Temporary,
    /// The request makes no sense here.
    Bad,
}
