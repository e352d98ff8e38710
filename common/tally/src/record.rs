//! A record, 64 octets, and the choice of its place in a bucket of sixteen.
//!
//! | octets | |
//! |---|---|
//! | 0..4 | CRC-32C of the rest |
//! | 4 | worth |
//! | 8..24 | the hash of the key |
//! | 24..32 | when it was dated, milliseconds since 1970 |
//! | 32..40 | for how many milliseconds from then on it counts |
//! | 40..64 | three numbers |
//!
//! All little-endian. What has another checksum is an empty place, as is what does not count any more.

use std::time::Duration;

use crate::length;

pub(crate) const RECORD: usize = 64;
/// Records of a bucket; one place of a disk's block, so that it is read in one piece.
pub(crate) const BUCKET: usize = 16 * RECORD;

/// What goes first when there is no room: who comes once and never again must not push out what
/// somebody earned, or deserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Worth {
    /// Made by one visit of anybody.
    Chance = 1,
    /// How much somebody did lately.
    Count = 2,
    /// That he behaved ill, or well.
    Reputation = 3,
    /// What is kept until an operator says otherwise.
    Order = 4,
}

impl Worth {
    fn parse(octet: u8) -> Option<Self> {
        [Self::Chance, Self::Count, Self::Reputation, Self::Order]
            .into_iter()
            .find(|worth| *worth as u8 == octet)
    }
}

/// What is remembered of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub worth: Worth,
    /// Milliseconds since 1970.
    dated: u64,
    /// Milliseconds from then on.
    counts_for: u64,
    /// Whatever who keeps it wants, but no date: dates move when the clock is set.
    pub numbers: [u64; 3],
}

impl Slot {
    pub(crate) fn new(now: u64) -> Self {
        Self {
            worth: Worth::Chance,
            dated: now,
            counts_for: 0,
            numbers: [0; 3],
        }
    }

    /// Milliseconds since it was dated; the clock may have been set back since.
    pub fn age(&self, now: std::time::SystemTime) -> Duration {
        Duration::from_millis(crate::millis(now).saturating_sub(self.dated))
    }

    /// Whether nothing was remembered.
    pub fn is_new(&self) -> bool {
        self.counts_for == 0
    }

    /// Dates it now, to count for so long.
    pub fn keep(&mut self, now: std::time::SystemTime, counts_for: Duration) {
        self.dated = crate::millis(now);
        self.counts_for = length(counts_for);
    }

    pub(crate) fn counts(&self, now: u64) -> bool {
        now.saturating_sub(self.dated) < self.counts_for
    }

    /// A date that is still to come was written before the clock was set back.
    pub(crate) fn seen_from(mut self, now: u64) -> Self {
        self.dated = self.dated.min(now);
        self
    }

    /// When it counts no more.
    fn ends(&self) -> u64 {
        self.dated.saturating_add(self.counts_for)
    }
}

/// A slot with whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) print: [u8; 16],
    pub(crate) slot: Slot,
}

impl Record {
    pub(crate) fn encode(&self, line: &mut [u8; RECORD]) {
        let slot = &self.slot;
        let mut rest = Vec::with_capacity(RECORD);
        rest.extend_from_slice(&[slot.worth as u8, 0, 0, 0]);
        rest.extend_from_slice(&self.print);
        for number in [slot.dated, slot.counts_for].iter().chain(&slot.numbers) {
            rest.extend_from_slice(&number.to_le_bytes());
        }
        let sum = crc32c::crc32c(&rest).to_le_bytes();
        let mut bytes = sum.into_iter().chain(rest);
        line.fill_with(|| bytes.next().unwrap_or_default());
    }

    pub(crate) fn decode(line: &[u8]) -> Option<Self> {
        let (sum, rest) = line.split_first_chunk::<4>()?;
        let (head, tail) = rest.split_first_chunk::<4>()?;
        let (print, tail) = tail.split_first_chunk::<16>()?;
        let worth = Worth::parse(*head.first()?)?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut numbers = tail
            .chunks_exact(8)
            .filter_map(|octets| Some(u64::from_le_bytes(octets.try_into().ok()?)));
        Some(Self {
            print: *print,
            slot: Slot {
                worth,
                dated: numbers.next()?,
                counts_for: numbers.next()?,
                numbers: [numbers.next()?, numbers.next()?, numbers.next()?],
            },
        })
    }

    /// The good ones of a bucket.
    pub(crate) fn all(text: &[u8; BUCKET]) -> impl Iterator<Item = Self> {
        text.chunks_exact(RECORD).filter_map(Self::decode)
    }
}

/// A place in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Octets from the bucket's begin.
    pub(crate) at: usize,
    pub(crate) slot: Slot,
    /// What stands there has a date that is still to come.
    pub(crate) is_stale: bool,
}

/// Where `print` stands and what is there; or the place that it can have, and a new slot.
pub(crate) fn find(text: &[u8; BUCKET], print: &[u8; 16], now: u64) -> Place {
    let mut least = (0, u64::MAX, 0);
    let mut first = true;
    for (n, line) in text.chunks_exact(RECORD).enumerate() {
        let at = n.saturating_mul(RECORD);
        let record = Record::decode(line);
        if let Some(record) = record.filter(|record| record.print == *print) {
            let slot = record.slot.seen_from(now);
            let is_stale = slot != record.slot;
            let slot = if slot.counts(now) {
                slot
            } else {
                Slot::new(now)
            };
            return Place { at, slot, is_stale };
        }
        let slot = record.map(|record| record.slot.seen_from(now));
        let value = match slot.filter(|slot| slot.counts(now)) {
            None => (0, 0, at),
            Some(slot) => (slot.worth as u8, slot.ends(), at),
        };
        if first || (value.0, value.1) < (least.0, least.1) {
            (least, first) = (value, false);
        }
    }
    Place {
        at: least.2,
        slot: Slot::new(now),
        is_stale: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    fn record(n: u8, worth: Worth, ms: u64) -> Record {
        let mut slot = Slot::new(0);
        slot.worth = worth;
        slot.numbers = [1, u64::MAX, 3];
        slot.keep(at(1000), Duration::from_millis(ms));
        Record {
            print: [n; 16],
            slot,
        }
    }

    fn bucket(records: &[Record]) -> [u8; BUCKET] {
        let mut text = [0; BUCKET];
        for (place, record) in text.chunks_exact_mut(RECORD).zip(records) {
            let mut line = [0; RECORD];
            record.encode(&mut line);
            place.copy_from_slice(&line);
        }
        text
    }

    #[test]
    fn what_is_written_is_read_and_one_bit_makes_it_nothing() {
        let record = record(7, Worth::Reputation, 5);
        let mut line = [0; RECORD];
        record.encode(&mut line);
        assert_eq!(Record::decode(&line), Some(record));
        assert_eq!(Record::decode(&[0; RECORD]), None);
        for octet in 0..RECORD {
            for bit in 0..8 {
                let mut bad = line;
                bad[octet] ^= 1 << bit;
                assert_eq!(Record::decode(&bad), None, "{octet} {bit}");
            }
        }
        for short in 0..RECORD {
            assert_eq!(Record::decode(&line[..short]), None);
        }
    }

    #[test]
    fn the_least_valuable_makes_room() {
        let full = |change: &dyn Fn(u8) -> Record| {
            let records: Vec<_> = (0..16).map(change).collect();
            bucket(&records)
        };
        let place = |text: [u8; BUCKET], now| find(&text, &[99; 16], now).at / RECORD;
        // An empty place before anything; here the last two are empty.
        let some: Vec<_> = (0..14).map(|n| record(n, Worth::Count, 500)).collect();
        assert_eq!(place(bucket(&some), 1000), 14);
        // What does not count any more.
        let text = full(&|n| record(n, Worth::Count, if n == 5 { 100 } else { 5000 }));
        assert_eq!(place(text, 1200), 5);
        // Less worth before less time.
        let text = full(&|n| match n {
            3 => record(n, Worth::Chance, 9000),
            4 => record(n, Worth::Count, 200),
            _ => record(n, Worth::Reputation, 100),
        });
        assert_eq!(place(text, 1000), 3);
        // Less time among the same.
        let text = full(&|n| record(n, Worth::Count, 9000 - u64::from(n)));
        assert_eq!(place(text, 1000), 15);
        // A damaged place is empty.
        let mut text = full(&|n| record(n, Worth::Order, 9000));
        text[8 * RECORD + 60] ^= 1;
        assert_eq!(place(text, 1000), 8);
    }

    #[test]
    fn its_own_place_is_found_wherever_it_is() {
        let records: Vec<_> = (0..16).map(|n| record(n, Worth::Count, 500)).collect();
        let text = bucket(&records);
        for n in 0..16u8 {
            let found = find(&text, &[n; 16], 1100);
            assert_eq!(found.at, usize::from(n) * RECORD);
            assert_eq!(found.slot.numbers, [1, u64::MAX, 3]);
        }
        let found = find(&text, &[3; 16], 1500);
        assert_eq!(
            (found.at, found.slot),
            (3 * RECORD, Slot::new(1500)),
            "its time is over"
        );
    }

    #[test]
    fn a_clock_that_is_set_back_redates() {
        let text = bucket(&[record(1, Worth::Count, 500)]);
        let Place { slot, is_stale, .. } = find(&text, &[1; 16], 200);
        assert!(is_stale);
        assert_eq!(slot.age(at(200)), Duration::ZERO);
        assert!(slot.counts(699) && !slot.counts(700));
    }
}
