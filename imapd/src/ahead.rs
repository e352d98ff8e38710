//! Reading ahead in a FETCH: the store is asked for many small messages at once, up to [`MOST`]
//! octets of them, instead of for each as its turn comes.

use std::collections::VecDeque;

use store::request::{Message, Request, Whole};

use crate::item::{Item, SectionText};
use crate::section;

/// Octets asked for at once; a larger message is asked for in pieces.
const MOST: u32 = 128 << 10;
/// Headers asked for at once.
const HEADERS: usize = 256;

/// What is worth asking for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Each piece when it is due.
    Nothing,
    Headers,
    Messages,
}

/// The messages that come next.
#[derive(Debug)]
pub(crate) struct Ahead {
    kind: Kind,
    ready: VecDeque<Whole>,
}

impl Ahead {
    pub(crate) fn new(items: &[Item]) -> Self {
        let mut kinds = items.iter().map(kind);
        let most = kinds.try_fold(Kind::Nothing, |most, kind| Some(most.max(kind?)));
        Self {
            kind: most.unwrap_or(Kind::Nothing),
            ready: VecDeque::new(),
        }
    }

    /// What came from the store.
    pub(crate) fn fill(&mut self, list: Vec<Whole>) {
        self.ready = list.into();
    }

    /// Whether this is the next one.
    pub(crate) fn has(&self, uid: u32) -> bool {
        self.ready.front().is_some_and(|whole| whole.uid == uid)
    }

    /// A message, if it is here. Those before it are not kept.
    pub(crate) fn take(&mut self, uid: u32) -> Option<Whole> {
        while let Some(whole) = self.ready.pop_front() {
            if whole.uid == uid {
                return Some(whole);
            }
        }
        self.ready = VecDeque::new();
        None
    }

    /// The same message may be needed again for the next item.
    pub(crate) fn put_back(&mut self, whole: Whole) {
        self.ready.push_front(whole);
    }

    /// Whether only headers are asked for.
    pub(crate) fn headers(&self) -> bool {
        self.kind == Kind::Headers
    }

    /// The request for a message and those behind it; `None` where it is to be asked for alone.
    pub(crate) fn plan(&self, first: &Message, rest: &[Message]) -> Option<Request> {
        let all = std::iter::once(first).chain(rest);
        let uids: Vec<u32> = match self.kind {
            Kind::Nothing => return None,
            Kind::Headers => all.take(HEADERS).map(|m| m.uid).collect(),
            Kind::Messages => {
                let mut left = u64::from(MOST);
                let fits = |m: &&Message| {
                    let rest = left.checked_sub(m.size);
                    left = rest.unwrap_or(0);
                    rest.is_some()
                };
                all.take_while(fits).map(|m| m.uid).collect()
            }
        };
        (!uids.is_empty()).then_some(Request::Contents {
            uids,
            headers: self.headers(),
            octets: MOST,
        })
    }
}

/// What one item is made from; `None` if nothing is to be read ahead for its sake.
fn kind(item: &Item) -> Option<Kind> {
    if section::needs_structure(item) {
        return Some(Kind::Messages);
    }
    match item {
        Item::Envelope | Item::Rfc822Header => Some(Kind::Headers),
        Item::Rfc822 | Item::Rfc822Text => Some(Kind::Messages),
        // Of a message of which a part is wanted, the whole may be too much.
        Item::Section {
            partial: Some(_), ..
        } => None,
        Item::Section { section, .. } => match section.text {
            SectionText::Header | SectionText::HeaderFields { .. } => Some(Kind::Headers),
            _ => Some(Kind::Messages),
        },
        _ => Some(Kind::Nothing),
    }
}
