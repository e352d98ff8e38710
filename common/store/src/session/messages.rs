//! Reading messages, changing their flags, bringing new ones, copying.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use base::Fail;

use super::{Appending, Reading, Session, not_selected};
use crate::body::Body;
use crate::flags::{Flags, Keyword};
use crate::folder::FolderName;
use crate::mailbox::{Copied, Mailbox, Still};
use crate::request::{Answer, Change, Content, MAX_PIECE, Messages, Part, Updates, Why};
use crate::set::{Ranges, Set};
use crate::trouble::{Result, Trouble};

/// Messages in one COPY.
const MAX_COPY: usize = 500_000;

impl Session {
    pub(super) fn content(
        &mut self,
        uid: u32,
        part: Part,
        offset: u64,
        length: usize,
    ) -> Result<Answer> {
        let open = self.open.as_mut().ok_or_else(not_selected)?;
        if self.reading.as_ref().is_none_or(|r| r.uid != uid) {
            self.reading = None;
            let body = open.mailbox.content(uid)?;
            open.check()?;
            let header_size = open.mailbox.item(uid).map_or(0, |item| item.header_size);
            // A Maildir's file names say the size of the whole, not of the header.
            let header_size = match header_size {
                0 => header_of(&body)?,
                known => known.min(body.size()),
            };
            self.reading = Some(Reading {
                uid,
                header_size,
                body,
            });
        }
        let Some(Reading {
            header_size, body, ..
        }) = &self.reading
        else {
            return Err(Trouble::new(Why::Gone, format!("message {uid} is no more")));
        };
        let (start, end) = match part {
            Part::Whole => (0, body.size()),
            Part::Header => (0, *header_size),
            Part::Text => (*header_size, body.size()),
        };
        let size = end - start;
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = body.piece(start.saturating_add(offset), length.min(left))?;
        Ok(Answer::Content(Content { uid, size, bytes }))
    }

    pub(super) fn contents(
        &mut self,
        uids: &[u32],
        headers: bool,
        octets: usize,
    ) -> Result<Answer> {
        let open = self.open.as_mut().ok_or_else(not_selected)?;
        let list = open.mailbox.contents(uids, headers, octets)?;
        open.check()?;
        Ok(Answer::Contents(list))
    }

    pub(super) fn store(
        &mut self,
        set: &Set,
        change: Change,
        flags: Flags,
        keywords: &[Keyword],
    ) -> Result<Answer> {
        let open = self.writable()?;
        let uids = open.view.resolve(set);
        open.mailbox
            .store(open.uidvalidity, &uids, change, flags, keywords)?;
        open.check()?;
        open.view.know(&uids, |uid| open.mailbox.item(uid));
        let (list, more) = open.view.messages(set, open.mailbox.table());
        Ok(Answer::Stored(Messages { list, more }))
    }

    pub(super) fn begin_append(
        &mut self,
        folder: FolderName,
        flags: Flags,
        keywords: Vec<Keyword>,
        date: Option<i64>,
        size: u64,
    ) -> Result<Answer> {
        self.appending = None;
        let place = self.home.place(&folder);
        if place.format()?.is_none() && !folder.is_inbox() {
            let text = format!("folder {folder} does not exist");
            return Err(Trouble::new(Why::NoSuchFolder, text));
        }
        if size > self.home.settings.max_message {
            let most = self.home.settings.max_message;
            let text = format!("a message of {size} octets, MESSAGE_SIZE_LIMIT is {most}");
            return Err(Trouble::new(Why::TooBig, text));
        }
        let body = Body::new(self.temporary());
        self.appending = Some(Appending {
            folder,
            flags,
            keywords,
            date,
            size,
            body,
        });
        Ok(Answer::Done)
    }

    pub(super) fn append_data(&mut self, bytes: &[u8]) -> Result<Answer> {
        let appending = self.appending.as_mut().ok_or_else(not_appending)?;
        let size = appending.body.size() + bytes.len() as u64;
        if bytes.len() > MAX_PIECE || size > appending.size {
            self.appending = None;
            return Err(Trouble::new(
                Why::Bad,
                "more octets than the append announced",
            ));
        }
        appending.body.push(bytes)?;
        Ok(Answer::Done)
    }

    pub(super) fn end_append(&mut self) -> Result<Answer> {
        let Appending {
            folder,
            flags,
            keywords,
            date,
            size,
            body,
        } = self.appending.take().ok_or_else(not_appending)?;
        if body.size() != size {
            return Err(Trouble::new(
                Why::Bad,
                "fewer octets than the append announced",
            ));
        }
        let mut mailbox = Mailbox::open(self.home.place(&folder))?;
        let date = date.unwrap_or_else(base::date::now);
        let body = Slice::of(&Arc::new(body), 0, size);
        let uids = mailbox.append(&mut [Copied {
            body,
            date,
            flags,
            keywords,
        }])?;
        let uid = uids.first().copied().unwrap_or(0);
        Ok(Answer::Appended {
            uidvalidity: mailbox.uidvalidity(),
            uid,
        })
    }

    pub(super) fn copy(&mut self, set: &Set, to: &FolderName, remove: bool) -> Result<Answer> {
        if remove {
            self.writable()?;
        }
        let mut target = Mailbox::open(self.home.place(to))?;
        let mut all = Body::new(self.temporary());
        let open = self.open.as_mut().ok_or_else(not_selected)?;
        open.refresh()?;
        let uids = open.view.resolve(set);
        if uids.len() > MAX_COPY {
            let text = format!("more than {MAX_COPY} messages at once");
            return Err(Trouble::new(Why::Cannot, text));
        }
        let (mut source, mut ends) = (Vec::new(), Vec::new());
        for uid in uids {
            match open.mailbox.content(uid) {
                Ok(body) => each_piece(&body, |piece| all.push(piece))?,
                // Also where another session expunged one: a client that deletes what it copied
                // must not hear OK for less than all (RFC 3501 6.4.7, RFC 2180 4.4).
                Err(trouble) => return Err(trouble),
            }
            if let Some(item) = open.mailbox.item(uid) {
                source.push(item);
                ends.push(all.size());
            }
        }
        let (all, mut start) = (Arc::new(all), 0);
        let mut messages = Vec::with_capacity(source.len());
        for (item, end) in source.iter().zip(ends) {
            messages.push(Copied {
                body: Slice::of(&all, start, end - start),
                date: item.date,
                flags: item.flags,
                keywords: open.mailbox.table().of(item.keywords),
            });
            start = end;
        }
        let source: Vec<u32> = source.iter().map(|item| item.uid).collect();
        let copies = if messages.is_empty() {
            Vec::new()
        } else {
            target.append(&mut messages)?
        };
        let mut updates = Updates::default();
        if remove && !source.is_empty() {
            let still = Still {
                uidvalidity: open.uidvalidity,
                deleted: false,
            };
            if let Err(trouble) = open.mailbox.expunge(&source, still) {
                if open.has_all(&source) {
                    take_back(&mut target, &copies);
                }
                return Err(trouble);
            }
            updates = self.poll(true)?;
        }
        Ok(Answer::Copied {
            uidvalidity: target.uidvalidity(),
            source,
            copies,
            updates,
        })
    }

    /// All messages of a folder into another that was just made: what RENAME of INBOX does.
    pub(super) fn move_all(&mut self, from: &FolderName, to: &FolderName) -> Result<()> {
        let mut other = Self::new(self.home.clone());
        other.select(from, false)?;
        other.copy(&Set::Uid(Ranges::all()), to, true).map(drop)
    }
}

/// A move that could not remove the messages is not to leave copies.
fn take_back(target: &mut Mailbox, copies: &[u32]) {
    let still = Still {
        uidvalidity: target.uidvalidity(),
        deleted: false,
    };
    if let Err(trouble) = target.expunge(copies, still) {
        log::warn!(
            "copies of messages that could not be moved stay: {}",
            trouble.fail
        );
    }
}

fn not_appending() -> Trouble {
    Trouble::new(Why::Bad, "no append was begun")
}

fn each_piece(
    body: &Body,
    mut with: impl FnMut(&[u8]) -> std::result::Result<(), Fail>,
) -> Result<()> {
    let mut at = 0;
    while at < body.size() {
        let piece = body.piece(at, MAX_PIECE)?;
        at += piece.len() as u64;
        with(&piece)?;
    }
    Ok(())
}

/// Octets up to and with the first empty line; all if there is none.
pub(crate) fn header_in(message: &[u8]) -> usize {
    if message.starts_with(b"\r\n") {
        return 2;
    }
    memchr::memmem::find(message, b"\r\n\r\n").map_or(message.len(), |at| at + 4)
}

/// The same of a message that may be large.
fn header_of(body: &Body) -> Result<u64> {
    let mut at = 0;
    loop {
        // One octet more on each side, so that an empty line is not cut in two.
        let piece = body.piece(at, MAX_PIECE)?;
        if at == 0 && piece.starts_with(b"\r\n") {
            return Ok(2);
        }
        if let Some(found) = memchr::memmem::find(&piece, b"\r\n\r\n") {
            return Ok(at + found as u64 + 4);
        }
        if piece.len() < MAX_PIECE {
            return Ok(body.size());
        }
        at += piece.len() as u64 - 3;
    }
}

/// One message of many that were copied together.
#[derive(Debug)]
pub(crate) struct Slice {
    all: Arc<Body>,
    start: u64,
    size: u64,
    at: u64,
}

impl Slice {
    fn of(all: &Arc<Body>, start: u64, size: u64) -> Self {
        Self {
            all: Arc::clone(all),
            start,
            size,
            at: 0,
        }
    }
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let bytes = self
            .all
            .piece(self.start + self.at, length)
            .map_err(io::Error::other)?;
        let (to, _) = buffer.split_at_mut(bytes.len());
        to.copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

impl Seek for Slice {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?.min(self.size);
        Ok(self.at)
    }
}
