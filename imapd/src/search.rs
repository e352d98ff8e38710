//! SEARCH (RFC 3501 6.4.4) as a machine of its own: requests to the store, a list of numbers out.
//!
//! A key is decided by the least that decides it: what the list of messages tells, then the header,
//! then the whole message, of which at most [`MAX_TEXT`] octets are looked at and kept for the time
//! of one message.

use std::sync::Arc;

use store::Set;
use store::request::{Answer, Message, Part, Request, Why};
use store::set::STAR;

use crate::fetch::{behind, unexpected};
use crate::key::Key;
use crate::matcher::{Charset, Matcher, Seen};

/// Octets asked of the store at once.
const PIECE: u32 = 1 << 20;
/// Octets of one message that are searched.
pub(crate) const MAX_TEXT: usize = 32 << 20;

/// What the machine wants next.
#[derive(Debug)]
pub(crate) enum Step {
    Ask(Request),
    /// [`Thought::decide`] somewhere, and its result to [`Search::decided`].
    Decide(Box<Thought>),
    /// The numbers or UIDs found, ascending.
    Found(Vec<u32>),
    Failed(store::Failed),
}

/// A SEARCH at work.
#[derive(Debug)]
pub(crate) struct Search {
    matcher: Arc<Matcher>,
    uid: bool,
    set: Set,
    list: std::vec::IntoIter<Message>,
    more: bool,
    found: Vec<u32>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The last message, for what `*` means.
    Last,
    Listing,
    Header {
        message: Message,
        header: Vec<u8>,
    },
    Text {
        message: Message,
        header: Vec<u8>,
        text: Vec<u8>,
    },
    Deciding(Message),
    Next,
}

/// A message whose text must be searched: work for longer than a session may hold up others.
#[derive(Debug)]
pub(crate) struct Thought {
    matcher: Arc<Matcher>,
    message: Message,
    header: Vec<u8>,
    text: Vec<u8>,
}

impl Thought {
    pub(crate) fn decide(&self) -> bool {
        let seen = Seen::whole(&self.message, &self.header, &self.text);
        self.matcher.decide(&seen) == Some(true)
    }
}

impl Search {
    /// `Err` is for a charset that we do not know.
    pub(crate) fn new(
        key: Key,
        charset: Option<&[u8]>,
        uid: bool,
    ) -> Result<(Self, Request), Charset> {
        let set = narrowed(&key);
        let needs_last = has_star(&key);
        let matcher = Arc::new(Matcher::new(key, charset)?);
        let (phase, request) = if needs_last {
            let last = store::Ranges::new([(STAR, STAR)]).unwrap_or_default();
            (Phase::Last, Request::Fetch(Set::Seq(last)))
        } else {
            (Phase::Listing, Request::Fetch(set.clone()))
        };
        let list = Vec::new().into_iter();
        Ok((
            Self {
                matcher,
                uid,
                set,
                list,
                more: false,
                found: Vec::new(),
                phase,
            },
            request,
        ))
    }

    /// The store has answered.
    pub(crate) fn answer(&mut self, answer: Answer) -> Step {
        match (std::mem::replace(&mut self.phase, Phase::Next), answer) {
            (Phase::Last, Answer::Messages(messages)) => {
                if let Some(last) = messages.list.last()
                    && let Some(matcher) = Arc::get_mut(&mut self.matcher)
                {
                    matcher.last(last.seq, last.uid);
                }
                self.phase = Phase::Listing;
                Step::Ask(Request::Fetch(self.set.clone()))
            }
            (Phase::Listing, Answer::Messages(messages)) => {
                self.more = messages.more;
                self.list = messages.list.into_iter();
                self.go_on()
            }
            (
                Phase::Header {
                    message,
                    mut header,
                },
                Answer::Content(content),
            ) => {
                header.extend_from_slice(&content.bytes);
                let whole = header.len() as u64 >= content.size.min(PIECE.into());
                if !whole && !content.bytes.is_empty() {
                    return self.ask_header(message, header);
                }
                let seen = Seen::header(&message, &header);
                match self.matcher.decide(&seen) {
                    Some(matches) => {
                        self.take(&message, matches);
                        self.go_on()
                    }
                    None => self.ask_text(message, header, Vec::new()),
                }
            }
            (
                Phase::Text {
                    message,
                    header,
                    mut text,
                },
                Answer::Content(content),
            ) => {
                let last = content.bytes.is_empty();
                text.extend_from_slice(&content.bytes);
                if !last && (text.len() as u64) < content.size && text.len() < MAX_TEXT {
                    return self.ask_text(message, header, text);
                }
                let matcher = Arc::clone(&self.matcher);
                self.phase = Phase::Deciding(message.clone());
                Step::Decide(Box::new(Thought {
                    matcher,
                    message,
                    header,
                    text,
                }))
            }
            // Another session expunged it: it matches nothing.
            (Phase::Header { .. } | Phase::Text { .. }, Answer::Failed(f))
                if f.why == Why::Gone =>
            {
                self.go_on()
            }
            (_, Answer::Failed(failed)) => Step::Failed(failed),
            (_, other) => Step::Failed(unexpected(&other)),
        }
    }

    /// What a [`Thought`] came to.
    pub(crate) fn decided(&mut self, matches: bool) -> Step {
        if let Phase::Deciding(message) = std::mem::replace(&mut self.phase, Phase::Next) {
            self.take(&message, matches);
        }
        self.go_on()
    }

    fn go_on(&mut self) -> Step {
        while let Some(message) = self.list.next() {
            if self.list.len() == 0 && self.more {
                self.set = behind(&self.set, (message.seq, message.uid));
            }
            match self.matcher.decide(&Seen::listed(&message)) {
                Some(matches) => self.take(&message, matches),
                None => {
                    return self.ask_header(message, Vec::new());
                }
            }
        }
        if std::mem::take(&mut self.more) {
            self.phase = Phase::Listing;
            return Step::Ask(Request::Fetch(self.set.clone()));
        }
        Step::Found(std::mem::take(&mut self.found))
    }

    fn ask_header(&mut self, message: Message, header: Vec<u8>) -> Step {
        let request = Request::Content {
            uid: message.uid,
            part: Part::Header,
            offset: header.len() as u64,
            length: PIECE,
        };
        self.phase = Phase::Header { message, header };
        Step::Ask(request)
    }

    fn ask_text(&mut self, message: Message, header: Vec<u8>, text: Vec<u8>) -> Step {
        let request = Request::Content {
            uid: message.uid,
            part: Part::Whole,
            offset: text.len() as u64,
            length: PIECE,
        };
        self.phase = Phase::Text {
            message,
            header,
            text,
        };
        Step::Ask(request)
    }

    fn take(&mut self, message: &Message, matches: bool) {
        if matches {
            self.found
                .push(if self.uid { message.uid } else { message.seq });
        }
    }
}

/// The messages that can match at all: those of a set that everything else is ANDed with.
fn narrowed(key: &Key) -> Set {
    let set = |key: &Key| match key {
        Key::Seq(ranges) => Some(Set::Seq(ranges.clone())),
        Key::Uid(ranges) => Some(Set::Uid(ranges.clone())),
        _ => None,
    };
    match key {
        Key::And(keys) => keys.iter().find_map(set).unwrap_or_else(Set::all),
        key => set(key).unwrap_or_else(Set::all),
    }
}

fn has_star(key: &Key) -> bool {
    match key {
        Key::Seq(ranges) | Key::Uid(ranges) => {
            ranges.as_slice().iter().any(|(_, end)| *end == STAR)
        }
        Key::Not(key) => has_star(key),
        Key::Or(both) => has_star(&both.0) || has_star(&both.1),
        Key::And(keys) => keys.iter().any(has_star),
        _ => false,
    }
}
