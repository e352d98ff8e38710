//! How mail gets in, exactly once across kill -9 (DESIGN 4).
//!
//! The order, which deliver keeps:
//!
//! 1. [`begin`] locks the mailbox and works out the octets that will be written and where: the
//!    [`Intent`] of each message
//! 2. the caller makes the intents durable in the queue's journal
//! 3. [`Pending::commit`] writes and syncs; on any error it cuts what it wrote
//! 4. the caller journals the delivery
//!
//! After a crash between 2 and 4, [`redo`] tells whether the message is in the mailbox. It cuts a
//! torn tail only if everything from the recorded offset on is a prefix of our own octets;
//! otherwise nothing is cut, and the delivery is looked for by its id and its content. A message
//! that its user already removed by then is not found and comes again.
//!
//! In a Maildir the file's name comes from the delivery id, so looking for it is a look-up.

use std::io::{Read, Seek, SeekFrom};

use base::{Doing, Fail};

use crate::flags::{Flags, Keyword};
use crate::folder::FolderName;
use crate::mailbox::Copied;
use crate::request::Why;
use crate::spool::{Format, Place, Spool};
use crate::trouble::{Result, Trouble};
use crate::wire::Wire;
use crate::{maildir, mbox};

/// Where a message's octets come from. They are read more than once, from the start.
pub trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// A message on its way into a mailbox.
pub struct New<'a> {
    /// In CRLF form.
    pub content: &'a mut dyn Source,
    /// Names this delivery for ever, so that no other has the same: 1 to 128 of letters, digits,
    /// `-`, `_`, `.`. A queue id and the number of the recipient will do.
    pub delivery_id: String,
    /// For the From_ line; empty for the null reverse-path.
    pub reverse_path: String,
    /// INTERNALDATE and the From_ line's date, in seconds since 1970.
    pub date: i64,
    pub flags: Flags,
    pub keywords: Vec<Keyword>,
}

impl<'a> New<'a> {
    /// A new message without flags, received now.
    pub fn unmarked(content: &'a mut dyn Source, delivery_id: &str, reverse_path: &str) -> Self {
        Self {
            content,
            delivery_id: delivery_id.into(),
            reverse_path: reverse_path.into(),
            date: base::date::now(),
            flags: Flags::NONE,
            keywords: Vec::new(),
        }
    }

    /// One that a client brought or copies.
    pub(crate) fn copied(copied: &'a mut Copied) -> Self {
        Self {
            content: &mut copied.body,
            delivery_id: String::new(),
            reverse_path: String::new(),
            date: copied.date,
            flags: copied.flags,
            keywords: copied.keywords.clone(),
        }
    }

    fn check(&self) -> Result<()> {
        let id = self.delivery_id.as_bytes();
        let good = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if (1..=128).contains(&id.len()) && id.iter().all(good) {
            return Ok(());
        }
        let text = format!("{:?} cannot be a delivery's id", self.delivery_id);
        Err(Trouble::new(Why::Bad, text))
    }

    /// Whether the content ends with the end of a line, or is empty.
    pub(crate) fn ends_a_line(&mut self) -> std::result::Result<bool, Fail> {
        let doing = || "read a message that is to be delivered";
        if self.content.seek(SeekFrom::End(0)).doing(doing)? == 0 {
            return Ok(true);
        }
        self.content.seek(SeekFrom::End(-1)).doing(doing)?;
        let mut last = [0];
        self.content.read_exact(&mut last).doing(doing)?;
        Ok(last == *b"\n")
    }

    /// The content in pieces, from its start.
    pub(crate) fn each_piece(
        &mut self,
        mut with: impl FnMut(&[u8]) -> std::result::Result<(), Fail>,
    ) -> std::result::Result<(), Fail> {
        let doing = || "read a message that is to be delivered";
        self.content.seek(SeekFrom::Start(0)).doing(doing)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.content.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                n => with(buffer.get(..n.doing(doing)?).unwrap_or_default())?,
            }
        }
    }
}

/// What is about to be written: enough to find out after a crash whether it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub user: String,
    pub folder: FolderName,
    pub format: Format,
    /// Where in an mbox it begins; 0 in a Maildir.
    pub offset: u64,
    pub length: u64,
    /// CRC-32C of the octets as they will stand in the file.
    pub checksum: u32,
    pub delivery_id: String,
    pub(crate) stamp: Stamp,
}

/// What a message's form depends on besides the message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    pub(crate) uidvalidity: u32,
    /// 0 if the next reader gives it.
    pub(crate) uid: u32,
    /// In the first message of an mbox, the last UID given; else 0.
    pub(crate) last: u32,
    pub(crate) date: i64,
    /// What the file lacked at its end.
    pub(crate) before: &'static str,
}

/// The first octet of an encoded intent.
const VERSION: u8 = 1;

impl Intent {
    /// For the journal.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        self.user.put(&mut out);
        self.folder.put(&mut out);
        (self.format == Format::Maildir).put(&mut out);
        self.offset.put(&mut out);
        self.length.put(&mut out);
        self.checksum.put(&mut out);
        self.delivery_id.put(&mut out);
        self.stamp.uidvalidity.put(&mut out);
        self.stamp.uid.put(&mut out);
        self.stamp.last.put(&mut out);
        self.stamp.date.put(&mut out);
        out.push(u8::try_from(self.stamp.before.len()).unwrap_or(0));
        out
    }

    /// From the journal; `None` if it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = bytes.strip_prefix(&[VERSION])?;
        let from = &mut from;
        let intent = Self {
            user: Wire::take(from)?,
            folder: Wire::take(from)?,
            format: if bool::take(from)? {
                Format::Maildir
            } else {
                Format::Mbox
            },
            offset: Wire::take(from)?,
            length: Wire::take(from)?,
            checksum: Wire::take(from)?,
            delivery_id: Wire::take(from)?,
            stamp: Stamp {
                uidvalidity: Wire::take(from)?,
                uid: Wire::take(from)?,
                last: Wire::take(from)?,
                date: Wire::take(from)?,
                before: ["", "\n", "\n\n"].get(usize::from(u8::take(from)?))?,
            },
        };
        from.is_empty().then_some(intent)
    }
}

/// Whether a delivery that was interrupted is in the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redo {
    Done,
    NotThere,
}

/// Messages that are about to be written. The mailbox stays locked until this is committed or
/// dropped, so make haste.
pub struct Pending<'a> {
    new: Vec<New<'a>>,
    intents: Vec<Intent>,
    inner: Inner,
}

enum Inner {
    Mbox(Box<mbox::Pending>),
    Maildir(maildir::Pending),
}

/// Locks a folder of `user` and works out what will be written. INBOX is made if it is not there,
/// another folder must exist. All of `new` are for this folder: one lock, one sync.
pub fn begin<'a>(
    spool: &Spool,
    user: &str,
    folder: &FolderName,
    mut new: Vec<New<'a>>,
) -> std::result::Result<Pending<'a>, Fail> {
    new.iter().try_for_each(New::check)?;
    let place = spool.home(user)?.place(folder);
    let format = match place.format()? {
        Some(format) => format,
        None if folder.is_inbox() => place.format_of_new(),
        None => return Err(Fail::temp(format!("{user} has no folder {folder}"))),
    };
    let intent = |id: &New<'_>, offset, length, checksum, stamp: &Stamp| Intent {
        user: user.into(),
        folder: folder.clone(),
        format,
        offset,
        length,
        checksum,
        delivery_id: id.delivery_id.clone(),
        stamp: stamp.clone(),
    };
    let (intents, inner) = match format {
        Format::Mbox => {
            let pending = mbox::begin(&place, &mut new)?;
            let intents = pending
                .rendered
                .iter()
                .zip(&new)
                .map(|(r, n)| intent(n, r.offset, r.length, r.checksum, &r.stamp))
                .collect();
            (intents, Inner::Mbox(Box::new(pending)))
        }
        Format::Maildir => {
            let pending = maildir::begin(&place, &mut new)?;
            let intents = pending
                .files
                .iter()
                .zip(&new)
                .map(|(f, n)| {
                    let stamp = Stamp {
                        date: n.date,
                        ..Stamp::default()
                    };
                    intent(n, 0, f.length, f.checksum, &stamp)
                })
                .collect();
            (intents, Inner::Maildir(pending))
        }
    };
    Ok(Pending {
        new,
        intents,
        inner,
    })
}

impl Pending<'_> {
    /// One for each message, in order: make them durable before [`Pending::commit`].
    pub fn intents(&self) -> &[Intent] {
        &self.intents
    }

    /// Writes and syncs. On an error nothing of it stays.
    pub fn commit(mut self) -> std::result::Result<(), Fail> {
        match self.inner {
            Inner::Mbox(pending) => Ok(pending.commit(&mut self.new)?),
            Inner::Maildir(pending) => Ok(pending.commit(&mut self.new)?),
        }
    }
}

/// After a crash: whether `intent` was carried out. `new` is the same message with the same flags
/// as then. A torn tail of ours is cut.
pub fn redo(spool: &Spool, intent: &Intent, new: &mut New<'_>) -> std::result::Result<Redo, Fail> {
    new.delivery_id.clone_from(&intent.delivery_id);
    new.date = intent.stamp.date;
    new.check()?;
    let place: Place = spool.home(&intent.user)?.place(&intent.folder);
    match place.format()? {
        None => Ok(Redo::NotThere),
        Some(Format::Mbox) => {
            let Intent {
                offset,
                length,
                checksum,
                ..
            } = *intent;
            Ok(mbox::redo(
                &place,
                offset,
                length,
                checksum,
                &intent.stamp,
                new,
            )?)
        }
        Some(Format::Maildir) => Ok(maildir::redo(&place, new)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intents_come_back_as_they_went() {
        let intent = Intent {
            user: "ann".into(),
            folder: FolderName::inbox(),
            format: Format::Mbox,
            offset: 1 << 40,
            length: 7,
            checksum: 9,
            delivery_id: "4F2c1a-1".into(),
            stamp: Stamp {
                uidvalidity: 1,
                uid: 2,
                last: 3,
                date: -4,
                before: "\n\n",
            },
        };
        let bytes = intent.encode();
        assert_eq!(Intent::decode(&bytes), Some(intent));
        for cut in 0..bytes.len() {
            assert_eq!(Intent::decode(&bytes[..cut]), None);
        }
    }
}
