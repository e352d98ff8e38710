//! Sets of messages as IMAP names them: RFC 3501 9 `sequence-set`, by number or by UID.

/// Ascending, disjoint, inclusive ranges of numbers from 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges(Vec<(u32, u32)>);

/// How many ranges a set of a client may have.
pub const MAX_RANGES: usize = 100_000;

/// `*`: the largest number in use.
pub const STAR: u32 = u32::MAX;

impl Ranges {
    /// From ranges in any order, as a client writes them: `5:3` is `3:5`, and [`STAR`] is `*`.
    /// `None` for a 0, or for more than [`MAX_RANGES`].
    pub fn new(ranges: impl IntoIterator<Item = (u32, u32)>) -> Option<Self> {
        let mut list = Vec::new();
        for (a, b) in ranges {
            if a == 0 || b == 0 || list.len() >= MAX_RANGES {
                return None;
            }
            list.push((a.min(b), a.max(b)));
        }
        Some(Self(joined(list)))
    }

    /// All there are.
    pub fn all() -> Self {
        Self(vec![(1, STAR)])
    }

    /// One number. 0 gives the empty set.
    pub fn one(n: u32) -> Self {
        Self::of([n])
    }

    /// These numbers, in any order; zeros are dropped.
    pub fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
        let list = numbers.into_iter().filter(|n| *n > 0).map(|n| (n, n));
        Self(joined(list.collect()))
    }

    /// What [`Ranges::as_slice`] gave.
    pub(crate) fn from_list(list: Vec<(u32, u32)>) -> Option<Self> {
        let sound = list.iter().all(|(first, last)| 0 < *first && first <= last);
        sound.then(|| Self(joined(list)))
    }

    /// The ranges, ascending.
    pub fn as_slice(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// Whether `n` is one of them, where `last` is the largest number in use: RFC 3501 9, `*`
    /// stands for it, so `559:*` always has the last message.
    pub fn contains(&self, n: u32, last: u32) -> bool {
        let below = self.0.partition_point(|(first, _)| *first <= n);
        let within = |at: usize| self.0.get(at).is_some_and(|(_, end)| n <= *end);
        below.checked_sub(1).is_some_and(within)
            || (n == last && self.0.last().is_some_and(|(_, end)| *end == STAR))
    }
}

/// Sorted, and what touches made one.
fn joined(mut list: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    list.sort_unstable();
    list.dedup_by(|next, before| {
        let touches = next.0 <= before.1.saturating_add(1);
        if touches {
            before.1 = before.1.max(next.1);
        }
        touches
    });
    list
}

/// Messages of the selected folder. Numbers that name none are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Set {
    /// By sequence number in this session's view.
    Seq(Ranges),
    Uid(Ranges),
}

impl Set {
    /// Every message in view.
    pub fn all() -> Self {
        Self::Uid(Ranges::all())
    }

    /// One message by UID.
    pub fn uid(uid: u32) -> Self {
        Self::Uid(Ranges::one(uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_turn_round() {
        let r = Ranges::new([(9, 7), (1, 2), (3, 3), (8, 12)]).unwrap();
        assert_eq!(r.as_slice(), [(1, 3), (7, 12)]);
        assert_eq!(Ranges::new([(0, 2)]), None);
        assert_eq!(Ranges::of([5, 4, 0, 9]).as_slice(), [(4, 5), (9, 9)]);
        assert_eq!(Ranges::from_list(vec![(3, 2)]), None);
    }

    #[test]
    fn a_star_is_the_last_even_beyond_it() {
        let r = Ranges::new([(559, STAR)]).unwrap();
        for (n, last, is) in [
            (10, 10, true),
            (9, 10, false),
            (559, 600, true),
            (600, 600, true),
        ] {
            assert_eq!(r.contains(n, last), is, "{n} of {last}");
        }
        let r = Ranges::new([(2, 4)]).unwrap();
        assert!(r.contains(2, 9) && r.contains(4, 9) && !r.contains(5, 5) && !r.contains(1, 9));
    }
}
