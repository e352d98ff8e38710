//! Penalties that grow: who offends is shut out for a while, twice as long each time, and an hour
//! without an offence takes one of them off.

use std::time::{Duration, SystemTime};

use crate::{Key, Slot, Tally, Worth, length};

/// The longest, unless the first is longer.
const LONGEST: Duration = Duration::from_secs(3600);
/// What an offence is forgotten in.
const FORGOTTEN_IN: Duration = Duration::from_secs(3600);
/// Offences are counted in these parts, so that they decay evenly.
const PART: u64 = 1000;
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// More of them make no difference.
const MOST: u64 = 24;

/// How somebody stands with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Offences that are not forgotten.
    pub offences: u32,
    /// For so long nothing is granted to him.
    pub shut_out: Duration,
}

impl Standing {
    pub fn is_shut_out(&self) -> bool {
        !self.shut_out.is_zero()
    }

    /// How long a refusal is held back from him: a second after the first offence, twice as long
    /// after each further one, and never longer than this.
    pub fn delay(&self, longest: Duration) -> Duration {
        let Some(doublings) = self.offences.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        FIRST_DELAY.saturating_mul(factor).min(longest)
    }
}

impl Tally {
    /// How `key` stands.
    pub fn standing(&self, key: &Key, now: SystemTime) -> Standing {
        let slot = self.look(key, now);
        slot.map(|slot| standing(&slot, now)).unwrap_or_default()
    }

    /// An offence, which costs `first` the first time. What is done while a penalty lasts makes it
    /// no longer: a sender with many connections offends once.
    pub fn offence(&self, key: &Key, first: Duration, now: SystemTime) -> Standing {
        self.update(key, now, |slot| {
            let before = standing(slot, now);
            if before.is_shut_out() || first.is_zero() {
                return before;
            }
            let parts = parts(slot, now).saturating_add(PART).min(MOST * PART);
            let doublings = u32::try_from(parts.div_ceil(PART).saturating_sub(1)).unwrap_or(0);
            let longest = length(LONGEST.max(first));
            let penalty = length(first)
                .saturating_mul(1 << doublings.min(u64::BITS / 2))
                .min(longest);
            slot.worth = Worth::Reputation;
            slot.numbers = [parts, penalty, 0];
            let decay = parts.saturating_mul(length(FORGOTTEN_IN)) / PART;
            slot.keep(now, Duration::from_millis(decay.max(penalty)));
            standing(slot, now)
        })
    }
}

/// The first number: offences when it was dated, in parts; the second: milliseconds of penalty.
fn standing(slot: &Slot, now: SystemTime) -> Standing {
    let [_, penalty, _] = slot.numbers;
    Standing {
        // Who has just begun to decay has still done it.
        offences: u32::try_from(parts(slot, now).div_ceil(PART)).unwrap_or(u32::MAX),
        shut_out: Duration::from_millis(penalty).saturating_sub(slot.age(now)),
    }
}

fn parts(slot: &Slot, now: SystemTime) -> u64 {
    let [parts, ..] = slot.numbers;
    let forgotten = length(slot.age(now)).saturating_mul(PART) / length(FORGOTTEN_IN);
    parts.saturating_sub(forgotten)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const FIRST: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn it_doubles_and_is_forgotten() {
        let tally = Tally::private().unwrap();
        let key = Key::new("t", [b"a"]);
        assert_eq!(tally.standing(&key, at(0)), Standing::default());
        let mut now = 0;
        for (offences, seconds) in [
            (1, 30),
            (2, 60),
            (3, 120),
            (4, 240),
            (5, 480),
            (6, 960),
            (7, 1920),
            (7, 1920),
        ] {
            let got = tally.offence(&key, FIRST, at(now));
            let want = Standing {
                offences,
                shut_out: Duration::from_secs(seconds),
            };
            assert_eq!(got, want);
            assert!(tally.standing(&key, at(now + seconds - 1)).is_shut_out());
            now += seconds;
            assert!(!tally.standing(&key, at(now)).is_shut_out());
        }
        assert_eq!(tally.standing(&key, at(now + 3600)).offences, 6);
        assert_eq!(tally.standing(&key, at(now + 8 * 3600)).offences, 0);
    }

    #[test]
    fn refusals_come_later_and_later() {
        let longest = Duration::from_secs(20);
        for (offences, seconds) in [(0, 0), (1, 1), (2, 2), (5, 16), (6, 20), (u32::MAX, 20)] {
            let standing = Standing {
                offences,
                ..Standing::default()
            };
            assert_eq!(standing.delay(longest), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn never_more_than_an_hour_nor_less_than_the_operator_says() {
        let tally = Tally::private().unwrap();
        let (a, b) = (Key::new("t", [b"a"]), Key::new("t", [b"b"]));
        let hour = Duration::from_secs(3600);
        for n in 0..40 {
            let got = tally.offence(&a, Duration::from_secs(2000), at(n * 4000));
            assert!(got.shut_out <= hour);
        }
        let long = tally.offence(&b, 2 * hour, at(0));
        assert_eq!(long.shut_out, 2 * hour);
        let none = Key::new("t", [b"c"]);
        assert_eq!(
            tally.offence(&none, Duration::ZERO, at(0)),
            Standing::default()
        );
    }

    #[test]
    fn offences_of_one_time_are_one() {
        let tally = Tally::private().unwrap();
        let key = Key::new("t", [b"a"]);
        tally.offence(&key, FIRST, at(0));
        for _ in 0..10 {
            let got = tally.offence(&key, FIRST, at(10));
            assert_eq!((got.offences, got.shut_out.as_secs()), (1, 20));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_makes_it_no_longer() {
        let tally = Tally::private().unwrap();
        let key = Key::new("t", [b"a"]);
        tally.offence(&key, FIRST, at(7200));
        assert!(tally.standing(&key, at(0)).is_shut_out());
        assert!(!tally.standing(&key, at(30)).is_shut_out());
    }
}
