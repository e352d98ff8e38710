//! The sequence numbers of one session: what it was told, against what is.
//!
//! A message that is gone keeps its number until the session may be told (RFC 3501 7.4.1), and new
//! ones come behind it, so that numbers never mean something else to the two ends.

use crate::flags::Table;
use crate::mailbox::Item;
use crate::request::{MAX_MESSAGES, Message, Updates};
use crate::set::{Ranges, Set};

/// Octets of descriptions in one answer, well below a frame.
const MAX_OCTETS: usize = 8 << 20;
/// Expunges in one answer.
const MAX_EXPUNGED: usize = 500_000;

#[derive(Debug)]
struct Slot {
    item: Item,
    /// `\Recent` for this session.
    recent: bool,
}

/// The messages as this session numbers them, ascending by UID.
#[derive(Debug, Default)]
pub(crate) struct View {
    slots: Vec<Slot>,
    /// The highest UID that ever was in view.
    last: u32,
    told_recent: u32,
    told_keywords: usize,
}

impl View {
    /// At the time of SELECT.
    pub(crate) fn new(items: &[Item], table: &Table) -> Self {
        let mut view = Self::default();
        view.add(items);
        view.told_recent = view.recent();
        view.told_keywords = table.names().len();
        view
    }

    pub(crate) fn exists(&self) -> u32 {
        count(self.slots.len())
    }

    pub(crate) fn recent(&self) -> u32 {
        count(self.slots.iter().filter(|s| s.recent).count())
    }

    /// The number of the first message that passes.
    pub(crate) fn first(&self, with: impl Fn(&Item) -> bool) -> Option<u32> {
        self.slots
            .iter()
            .position(|s| with(&s.item))
            .map(|at| count(at + 1))
    }

    /// UIDs of a set.
    pub(crate) fn resolve(&self, set: &Set) -> Vec<u32> {
        self.of(set)
            .filter_map(|at| self.slots.get(at))
            .map(|s| s.item.uid)
            .collect()
    }

    fn of<'a>(&'a self, set: &'a Set) -> impl Iterator<Item = usize> + 'a {
        let (ranges, by_uid): (&Ranges, bool) = match set {
            Set::Seq(ranges) => (ranges, false),
            Set::Uid(ranges) => (ranges, true),
        };
        let last = if by_uid {
            self.slots.last().map_or(0, |s| s.item.uid)
        } else {
            self.exists()
        };
        let named = move |(at, slot): &(usize, &Slot)| {
            let n = if by_uid { slot.item.uid } else { count(at + 1) };
            ranges.contains(n, last)
        };
        self.slots
            .iter()
            .enumerate()
            .filter(named)
            .map(|(at, _)| at)
    }

    /// Descriptions of a set, and whether there are more than fit.
    pub(crate) fn messages(&self, set: &Set, table: &Table) -> (Vec<Message>, bool) {
        let (mut list, mut octets) = (Vec::new(), 0);
        for at in self.of(set) {
            let Some(message) = self.message(at, table) else {
                continue;
            };
            octets += octets_of(&message);
            if list.len() >= MAX_MESSAGES || octets > MAX_OCTETS {
                return (list, true);
            }
            list.push(message);
        }
        (list, false)
    }

    fn message(&self, at: usize, table: &Table) -> Option<Message> {
        let slot = self.slots.get(at)?;
        Some(Message {
            seq: count(at + 1),
            uid: slot.item.uid,
            flags: slot.item.flags,
            recent: slot.recent,
            keywords: table.of(slot.item.keywords),
            date: slot.item.date,
            size: slot.item.size,
        })
    }

    /// Takes over the flags of messages that this session itself changed: it knows them.
    pub(crate) fn know(&mut self, uids: &[u32], item: impl Fn(u32) -> Option<Item>) {
        for uid in uids {
            if let Ok(at) = self.slots.binary_search_by_key(uid, |s| s.item.uid)
                && let Some(slot) = self.slots.get_mut(at)
                && let Some(item) = item(*uid)
            {
                slot.item.flags = item.flags;
                slot.item.keywords = item.keywords;
            }
        }
    }

    /// Brings the view up to `items`, and says what to tell.
    pub(crate) fn update(&mut self, items: &[Item], expunges: bool, table: &Table) -> Updates {
        let mut updates = Updates::default();
        if expunges {
            self.expunge(items, &mut updates);
        }
        self.change(items, table, &mut updates);
        let before = self.slots.len();
        let newer = items.partition_point(|i| i.uid <= self.last);
        self.add(items.get(newer..).unwrap_or_default());
        updates.exists = (self.slots.len() > before).then(|| self.exists());
        let recent = self.recent();
        if updates.exists.is_some() || recent != self.told_recent {
            updates.recent = Some(recent);
            self.told_recent = recent;
        }
        if table.names().len() > self.told_keywords {
            updates.keywords = Some(table.names().to_vec());
            self.told_keywords = table.names().len();
        }
        updates
    }

    fn expunge(&mut self, items: &[Item], updates: &mut Updates) {
        let mut seq = 0;
        self.slots.retain(|slot| {
            let there = find(items, slot.item.uid).is_some();
            let full = updates.expunged.len() >= MAX_EXPUNGED;
            updates.more |= full && !there;
            if there || full {
                seq += 1;
                return true;
            }
            updates.expunged.push(seq + 1);
            updates.expunged_uids.push(slot.item.uid);
            false
        });
    }

    fn change(&mut self, items: &[Item], table: &Table, updates: &mut Updates) {
        let mut octets = 0;
        for at in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(at) else {
                continue;
            };
            let Some(item) = find(items, slot.item.uid) else {
                continue;
            };
            if (item.flags, item.keywords) == (slot.item.flags, slot.item.keywords) {
                continue;
            }
            if updates.changed.len() >= MAX_MESSAGES || octets > MAX_OCTETS {
                updates.more = true;
                return;
            }
            slot.item.flags = item.flags;
            slot.item.keywords = item.keywords;
            if let Some(message) = self.message(at, table) {
                octets += octets_of(&message);
                updates.changed.push(message);
            }
        }
    }

    fn add(&mut self, items: &[Item]) {
        self.slots.extend(items.iter().map(|item| Slot {
            item: *item,
            recent: item.recent,
        }));
        self.last = self.last.max(items.last().map_or(0, |i| i.uid));
    }
}

fn find(items: &[Item], uid: u32) -> Option<&Item> {
    items.get(items.binary_search_by_key(&uid, |i| i.uid).ok()?)
}

/// Mailboxes are bounded far below this.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn octets_of(message: &Message) -> usize {
    40 + message
        .keywords
        .iter()
        .map(|k| k.as_str().len() + 4)
        .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;

    fn items(list: &[(u32, Flags)]) -> Vec<Item> {
        list.iter()
            .map(|(uid, flags)| Item {
                uid: *uid,
                flags: *flags,
                ..Item::default()
            })
            .collect()
    }

    const N: Flags = Flags::NONE;

    #[test]
    fn expunges_wait_until_they_may_be_told() {
        let table = Table::default();
        let mut view = View::new(&items(&[(1, N), (2, N), (5, N)]), &table);
        let now = items(&[(2, Flags::SEEN), (7, N)]);
        let updates = view.update(&now, false, &table);
        assert_eq!((updates.expunged.len(), updates.exists), (0, Some(4)));
        assert_eq!(
            updates
                .changed
                .iter()
                .map(|m| (m.seq, m.uid))
                .collect::<Vec<_>>(),
            [(2, 2)]
        );
        assert_eq!(
            view.resolve(&Set::Seq(Ranges::new([(3, 4)]).unwrap())),
            [5, 7]
        );
        let updates = view.update(&now, true, &table);
        assert_eq!(
            (updates.expunged, updates.expunged_uids),
            (vec![1, 2], vec![1, 5])
        );
        assert_eq!(updates.exists, None);
        assert!(view.update(&now, true, &table).is_empty());
        assert_eq!(view.resolve(&Set::all()), [2, 7]);
    }

    #[test]
    fn stars_and_own_changes() {
        let table = Table::default();
        let mut view = View::new(&items(&[(3, N), (9, N)]), &table);
        let star = Ranges::new([(100, crate::set::STAR)]).unwrap();
        assert_eq!(view.resolve(&Set::Uid(star.clone())), [9]);
        assert_eq!(view.resolve(&Set::Seq(star)), [9]);
        let now = items(&[(3, Flags::SEEN), (9, N)]);
        view.know(&[3], |_| Some(now[0]));
        assert!(view.update(&now, true, &table).is_empty());
    }
}
