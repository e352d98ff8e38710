//! Reading ahead: who fetches one message after the other gets most of them without asking the
//! store for each. What is kept here has a bound, and a client that picks single messages keeps
//! nothing.

use std::collections::VecDeque;

use store::request::Whole;

use crate::maildrop::Listed;

/// Octets of messages asked for at once; a larger message is asked for in pieces.
pub(crate) const MOST: u32 = 128 << 10;
/// The same when a client has just begun to take them in their order.
const LEAST: u32 = 32 << 10;

/// The messages behind the last one that was sent, and how many it pays to have.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    ready: VecDeque<Whole>,
    /// Octets to ask for, while the messages are taken in their order.
    window: u32,
    /// The UID with which that order goes on.
    expected: Option<u32>,
}

impl Ahead {
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

    /// What came from the store.
    pub(crate) fn fill(&mut self, list: Vec<Whole>) {
        self.ready = list.into();
    }

    /// The UIDs to ask for together, of the message that is wanted and those behind it. None when
    /// that one has to be asked for alone, in pieces.
    pub(crate) fn plan(&mut self, messages: impl IntoIterator<Item = Listed>) -> Vec<u32> {
        let mut messages = messages.into_iter().peekable();
        let first = messages.peek().map(|m| m.uid);
        self.window = if first.is_some() && first == self.expected {
            self.window.saturating_mul(2).clamp(LEAST, MOST)
        } else {
            0
        };
        let (mut uids, mut octets) = (Vec::new(), 0_u64);
        while let Some(message) = messages.peek() {
            octets = octets.saturating_add(message.size);
            let limit = if uids.is_empty() { MOST } else { self.window };
            if octets > limit.into() {
                break;
            }
            uids.push(message.uid);
            messages.next();
        }
        if uids.is_empty() {
            messages.next();
        }
        self.expected = messages.peek().map(|m| m.uid);
        uids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(from: u32, size: u64) -> impl Iterator<Item = Listed> {
        (from..=1000).map(move |uid| Listed { uid, size })
    }

    fn whole(uid: u32) -> Whole {
        Whole {
            uid,
            header: 0,
            bytes: Vec::new(),
        }
    }

    #[test]
    fn the_window_grows_while_the_order_is_kept() {
        let mut ahead = Ahead::default();
        let (mut from, mut counts) = (1, Vec::new());
        for _ in 0..7 {
            let uids = ahead.plan(listed(from, 4096));
            assert_eq!(uids.first(), Some(&from));
            counts.push(uids.len());
            from += u32::try_from(uids.len()).unwrap();
        }
        assert_eq!(counts, [1, 8, 16, 32, 32, 32, 32]);
        assert_eq!(ahead.plan(listed(900, 4096)), [900]);
        assert_eq!(ahead.plan(listed(900, 4096)), [900]);
        assert_eq!(ahead.plan(listed(901, 4096)).len(), 8);
    }

    #[test]
    fn a_large_message_is_asked_for_alone_and_keeps_the_order() {
        let mut ahead = Ahead::default();
        assert!(ahead.plan(listed(1, 1 << 20)).is_empty());
        assert_eq!(ahead.plan(listed(2, 4096)).len(), 8);
        assert!(ahead.plan([]).is_empty());
    }

    #[test]
    fn what_was_passed_over_is_not_kept() {
        let mut ahead = Ahead::default();
        ahead.fill(vec![whole(1), whole(2), whole(3)]);
        assert_eq!(ahead.take(2), Some(whole(2)));
        assert_eq!(ahead.take(1), None);
        assert_eq!(ahead.take(3), None);
    }
}
