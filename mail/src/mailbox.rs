//! A mailbox as the reader sees it: messages by number, which do not change until it is left, and
//! what is to become of each. What others do meanwhile, a server, a deliverer, another reader, is
//! the store's to reconcile: nothing here touches the file.
//!
//! What the user decides is held here and done in [`Mailbox::apply`], as mailx does: `exit` leaves
//! everything as it was.

use std::collections::HashMap;

use base::{Fail, Sysexit};
use mime::{address, header, words};
use store::{
    Answer, Change, Expunge, Flags, FolderName, Part, Pattern, Ranges, Request, Session, Set,
};

/// Octets of a message that are read into memory to show it.
const MAX_SHOWN: u64 = 64 << 20;
/// Messages changed at once: fewer than a set has ranges.
const AT_ONCE: usize = 50_000;
/// Octets asked for at once.
const PIECE: u32 = 1 << 20;

/// What is to become of a message when the mailbox is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Plain,
    Deleted,
    /// In a file of the user's; goes, unless `keepsave` is set.
    Saved,
    /// Stays, whatever else is set.
    Held,
    /// Goes into the user's mbox.
    ToMbox,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) uid: u32,
    /// When it arrived, seconds since 1970.
    pub(crate) date: i64,
    /// Octets with CRLF line ends.
    pub(crate) size: u64,
    pub(crate) recent: bool,
    pub(crate) seen: bool,
    pub(crate) answered: bool,
    pub(crate) state: State,
    /// The flags as the store has them.
    pub(crate) stored: Flags,
}

impl Message {
    /// One that nobody has looked at.
    pub(crate) fn new(uid: u32, date: i64, size: u64) -> Self {
        Self {
            uid,
            date,
            size,
            recent: false,
            seen: false,
            answered: false,
            state: State::Plain,
            stored: Flags::NONE,
        }
    }

    fn from_store(message: &store::Message) -> Self {
        Self {
            recent: message.recent,
            seen: message.flags.has(Flags::SEEN),
            answered: message.flags.has(Flags::ANSWERED),
            stored: message.flags,
            ..Self::new(message.uid, message.date, message.size)
        }
    }
}

/// What the list and the search need of a header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) address: String,
    /// The display name; empty where there is none.
    pub(crate) name: String,
    pub(crate) subject: String,
}

impl Envelope {
    fn read(header: &[u8]) -> Self {
        let from = ["From", "Sender", "Return-Path"]
            .iter()
            .find_map(|name| {
                address::mailboxes(&header::value(header, name)?)
                    .into_iter()
                    .next()
            })
            .unwrap_or_default();
        Self {
            address: match from.local.is_empty() {
                true => String::new(),
                false => String::from_utf8_lossy(&from.address()).into_owned(),
            },
            name: words::decode(from.name.as_deref().unwrap_or_default()),
            subject: words::decode(&header::value(header, "Subject").unwrap_or_default()),
        }
    }
}

/// An open mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox {
    session: Session,
    /// What it is called to the user.
    pub(crate) place: String,
    pub(crate) read_only: bool,
    pub(crate) messages: Vec<Message>,
    envelopes: HashMap<u32, Envelope>,
    lines: HashMap<u32, usize>,
}

/// How a mailbox was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) kept: usize,
    pub(crate) removed: usize,
}

impl Mailbox {
    /// Opens a folder of the session.
    pub(crate) fn open(
        mut session: Session,
        folder: FolderName,
        place: String,
    ) -> Result<Self, Fail> {
        let selected = match session.handle(Request::Select {
            folder,
            read_only: false,
        }) {
            Answer::Selected(selected) => selected,
            other => return Err(unexpected(other, &format!("open {place}"))),
        };
        let mut mailbox = Self {
            session,
            place,
            read_only: selected.read_only,
            messages: Vec::new(),
            envelopes: HashMap::new(),
            lines: HashMap::new(),
        };
        mailbox.fetch(1)?;
        Ok(mailbox)
    }

    /// Describes the messages from number `first` on.
    fn fetch(&mut self, first: u32) -> Result<(), Fail> {
        let mut next = first;
        loop {
            let ranges = Ranges::new([(next, store::set::STAR)]).unwrap_or_default();
            let answer = self.session.handle(Request::Fetch(Set::Seq(ranges)));
            let Answer::Messages(found) = answer else {
                return Err(unexpected(answer, &format!("read {}", self.place)));
            };
            // `*` is the last message even where `next` is beyond it.
            let fresh = found.list.iter().filter(|m| m.seq >= next);
            self.messages.extend(fresh.map(Message::from_store));
            match found.list.last() {
                Some(last) if found.more => next = last.seq.saturating_add(1),
                _ => return Ok(()),
            }
        }
    }

    /// Takes in what has arrived since; gives how many.
    pub(crate) fn arrived(&mut self) -> Result<usize, Fail> {
        let before = self.messages.len();
        let answer = self.session.handle(Request::Poll { expunges: false });
        let Answer::Updates(updates) = answer else {
            return Err(unexpected(answer, &format!("look at {}", self.place)));
        };
        let known = u32::try_from(before).unwrap_or(u32::MAX);
        if updates.exists.is_some_and(|exists| exists > known) {
            self.fetch(known.saturating_add(1))?;
        }
        Ok(self.messages.len().saturating_sub(before))
    }

    /// A message as it is, with CRLF line ends; at most the first [`MAX_SHOWN`] octets for showing
    /// it, all of them to save it.
    pub(crate) fn content(&mut self, at: usize, part: Part, whole: bool) -> Result<Vec<u8>, Fail> {
        let mut bytes = Vec::new();
        let limit = if whole { u64::MAX } else { MAX_SHOWN };
        self.pieces(at, part, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX) < limit)
        })?;
        Ok(bytes)
    }

    /// Hands a message on piece by piece, until `each` says that it has enough.
    pub(crate) fn pieces(
        &mut self,
        at: usize,
        part: Part,
        each: &mut dyn FnMut(&[u8]) -> Result<bool, Fail>,
    ) -> Result<(), Fail> {
        let uid = self.uid(at)?;
        let mut offset = 0;
        loop {
            let request = Request::Content {
                uid,
                part,
                offset,
                length: PIECE,
            };
            let answer = self.session.handle(request);
            let Answer::Content(content) = answer else {
                return Err(unexpected(answer, &format!("read message {}", at + 1)));
            };
            offset += u64::try_from(content.bytes.len()).unwrap_or(u64::MAX);
            let more = each(&content.bytes)?;
            if !more || content.bytes.is_empty() || offset >= content.size {
                return Ok(());
            }
        }
    }

    fn uid(&self, at: usize) -> Result<u32, Fail> {
        let message = self.messages.get(at);
        message.map(|m| m.uid).ok_or_else(|| {
            Fail::new(
                Sysexit::DataErr,
                format!("{}: there is no such message", at + 1),
            )
        })
    }

    /// Sender and subject; empty ones for a message that is gone.
    pub(crate) fn envelope(&mut self, at: usize) -> Envelope {
        let Ok(uid) = self.uid(at) else {
            return Envelope::default();
        };
        if let Some(known) = self.envelopes.get(&uid) {
            return known.clone();
        }
        let header = self.content(at, Part::Header, false).unwrap_or_default();
        let envelope = Envelope::read(&header);
        self.envelopes.insert(uid, envelope.clone());
        envelope
    }

    /// How many lines a message has, header and all.
    pub(crate) fn lines(&mut self, at: usize) -> usize {
        let Ok(uid) = self.uid(at) else {
            return 0;
        };
        if let Some(known) = self.lines.get(&uid) {
            return *known;
        }
        let mut lines = 0;
        let counted = self.pieces(at, Part::Whole, &mut |piece| {
            lines += piece.iter().filter(|b| **b == b'\n').count();
            Ok(true)
        });
        if counted.is_ok() {
            self.lines.insert(uid, lines);
        }
        lines
    }

    /// Copies messages into another folder of the same user, which is made if it is not there. All of
    /// them, or it is an error: who saves a message lets go of the one here.
    pub(crate) fn copy_to(&mut self, places: &[usize], to: &FolderName) -> Result<(), Fail> {
        let uids: Vec<u32> = places.iter().filter_map(|at| self.uid(*at).ok()).collect();
        for uids in uids.chunks(AT_ONCE) {
            let set = Set::Uid(Ranges::of(uids.iter().copied()));
            let copy = Request::Copy {
                set,
                to: to.clone(),
            };
            self.copy(copy, uids.len(), to)?;
        }
        Ok(())
    }

    fn copy(&mut self, copy: Request, count: usize, to: &FolderName) -> Result<(), Fail> {
        let doing = format!("copy to +{to}");
        let answer = match self.session.handle(copy.clone()) {
            Answer::Failed(failed) if failed.why == store::Why::NoSuchFolder => {
                match self.session.handle(Request::Create(to.clone())) {
                    Answer::Done => self.session.handle(copy),
                    other => return Err(unexpected(other, &doing)),
                }
            }
            answer => answer,
        };
        match answer {
            Answer::Copied { source, .. } if source.len() == count => Ok(()),
            Answer::Copied { source, .. } => Err(Fail::temp(format!(
                "{doing}: only {} of {count} are there",
                source.len()
            ))),
            other => Err(unexpected(other, &doing)),
        }
    }

    /// The user's folders.
    pub(crate) fn folders(&mut self) -> Result<Vec<String>, Fail> {
        match self.session.handle(Request::List(Pattern::all())) {
            Answer::Folders(list) => {
                let folders = list.into_iter().filter(|f| f.selectable);
                Ok(folders.map(|f| f.name.to_string()).collect())
            }
            other => Err(unexpected(other, "list the folders")),
        }
    }

    /// Does what the user decided: marks what was read or answered, removes what `goes`.
    pub(crate) fn apply(&mut self, goes: &dyn Fn(&Message) -> bool) -> Result<Left, Fail> {
        let doing = format!("change {}", self.place);
        for (flag, now) in [
            (Flags::SEEN, (|m: &Message| m.seen) as fn(&Message) -> bool),
            (Flags::ANSWERED, |m: &Message| m.answered),
        ] {
            for (change, wanted) in [(Change::Add, true), (Change::Remove, false)] {
                let differs = |m: &&Message| m.stored.has(flag) != wanted && now(m) == wanted;
                let uids: Vec<u32> = self
                    .messages
                    .iter()
                    .filter(differs)
                    .map(|m| m.uid)
                    .collect();
                self.store_flags(&uids, change, flag, &doing)?;
            }
        }
        let gone: Vec<u32> = self
            .messages
            .iter()
            .filter(|m| goes(m))
            .map(|m| m.uid)
            .collect();
        for uids in gone.chunks(AT_ONCE) {
            let set = Set::Uid(Ranges::of(uids.iter().copied()));
            let expunge = Request::Expunge(Expunge::Messages(set));
            match self.session.handle(expunge) {
                Answer::Updates(_) => {}
                other => return Err(unexpected(other, &doing)),
            }
        }
        self.messages.retain(|m| !goes(m));
        Ok(Left {
            kept: self.messages.len(),
            removed: gone.len(),
        })
    }

    fn store_flags(
        &mut self,
        uids: &[u32],
        change: Change,
        flags: Flags,
        doing: &str,
    ) -> Result<(), Fail> {
        for uids in uids.chunks(AT_ONCE) {
            let set = Set::Uid(Ranges::of(uids.iter().copied()));
            let request = Request::StoreFlags {
                set,
                change,
                flags,
                keywords: Vec::new(),
            };
            match self.session.handle(request) {
                Answer::Stored(_) => {}
                other => return Err(unexpected(other, doing)),
            }
        }
        Ok(())
    }
}

/// The failure that an answer is.
fn unexpected(answer: Answer, doing: &str) -> Fail {
    match answer {
        Answer::Failed(failed) => Fail::temp(format!("{doing}: {}", failed.text)),
        _ => Fail::new(
            Sysexit::Software,
            format!("{doing}: the store answered something else"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_it_is_from() {
        for (header, address, name, subject) in [
            (
                "From: Ann <ann@x>\r\nSubject: =?UTF-8?Q?=E4=BB=B6?=\r\n",
                "ann@x",
                "Ann",
                "件",
            ),
            ("Sender: bob@y (Bob)\r\n", "bob@y", "Bob", ""),
            ("Return-Path: <>\r\n", "", "", ""),
            ("From: \r\nSender: c@z\r\n", "c@z", "", ""),
            ("", "", "", ""),
        ] {
            let envelope = Envelope::read(header.as_bytes());
            assert_eq!(envelope.address, address, "{header}");
            assert_eq!(
                (envelope.name.as_str(), envelope.subject.as_str()),
                (name, subject)
            );
        }
    }
}
