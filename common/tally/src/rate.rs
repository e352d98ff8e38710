//! So many in such a time: a token bucket.
//!
//! Who has done nothing lately may do all of `count` at once, and then one more each time that a
//! `count`th of `per` has gone by; so no stretch of `per` ever sees twice `count`.

use std::time::{Duration, SystemTime};

use base::config::Rate;

use crate::{Key, Slot, Tally, Worth};

/// Not now: so long until it would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    pub wait: Duration,
}

impl Tally {
    /// Counts `amount` against the rate, all of it or nothing.
    pub fn spend(&self, key: &Key, rate: Rate, amount: u32, now: SystemTime) -> Result<(), Over> {
        self.update(key, now, |slot| spend(slot, rate, amount, now))
    }
}

/// The first number is the debt: the microseconds until everything is forgotten.
fn spend(slot: &mut Slot, rate: Rate, amount: u32, now: SystemTime) -> Result<(), Over> {
    let whole = micros(rate.per);
    let each = whole / u64::from(rate.count.get());
    let cost = each.max(1).saturating_mul(u64::from(amount));
    let [debt, ..] = slot.numbers;
    // A debt to a slower rate is none that this one knows.
    let debt = debt.min(whole).saturating_sub(micros(slot.age(now)));
    let after = debt.saturating_add(cost);
    if after > whole {
        let wait = Duration::from_micros(after - whole);
        return Err(Over { wait });
    }
    slot.worth = Worth::Count;
    slot.numbers = [after, 0, 0];
    // A record that is over is an empty one, and so is a debt of nothing.
    slot.keep(now, Duration::from_micros(after) + Duration::from_millis(1));
    Ok(())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use std::time::UNIX_EPOCH;

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
    }

    fn rate(count: u32, seconds: u64) -> Rate {
        Rate {
            count: NonZeroU32::new(count).unwrap(),
            per: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_burst_and_then_one_by_one() {
        let tally = Tally::private().unwrap();
        let key = Key::new("t", [b"a"]);
        let ten = rate(10, 60);
        for n in 0..10 {
            assert_eq!(tally.spend(&key, ten, 1, at(n)), Ok(()), "{n}");
        }
        let over = tally.spend(&key, ten, 1, at(10)).unwrap_err();
        assert!(over.wait > Duration::from_millis(5900) && over.wait < Duration::from_secs(6));
        assert!(tally.spend(&key, ten, 1, at(5900)).is_err());
        assert!(tally.spend(&key, ten, 1, at(6100)).is_ok());
        assert!(tally.spend(&key, ten, 1, at(6200)).is_err());
        assert!(
            tally.spend(&key, ten, 10, at(66_300)).is_ok(),
            "all is forgotten"
        );
    }

    #[test]
    fn all_or_nothing() {
        let tally = Tally::private().unwrap();
        let key = Key::new("t", [b"a"]);
        assert!(tally.spend(&key, rate(10, 60), 8, at(0)).is_ok());
        assert!(tally.spend(&key, rate(10, 60), 3, at(0)).is_err());
        assert!(tally.spend(&key, rate(10, 60), 2, at(0)).is_ok());
        assert!(
            tally.spend(&key, rate(10, 60), 11, at(900_000)).is_err(),
            "never"
        );
        assert!(
            tally
                .spend(&Key::new("t", [b"b"]), rate(10, 60), 10, at(0))
                .is_ok()
        );
    }

    #[test]
    fn a_clock_that_is_set_makes_nobody_wait_longer() {
        let tally = Tally::private().unwrap();
        let key = Key::new("t", [b"a"]);
        let now = at(3_600_000);
        assert!(tally.spend(&key, rate(2, 60), 2, now).is_ok());
        // An hour back: as if no time had gone by.
        let over = tally.spend(&key, rate(2, 60), 1, at(0)).unwrap_err();
        assert!(over.wait <= Duration::from_secs(31), "{over:?}");
        assert!(tally.spend(&key, rate(2, 60), 1, at(32_000)).is_ok());
    }

    #[test]
    fn a_rate_that_was_made_smaller_has_no_memory_of_the_larger() {
        let tally = Tally::private().unwrap();
        let key = Key::new("t", [b"a"]);
        assert!(tally.spend(&key, rate(100, 86_400), 100, at(0)).is_ok());
        assert!(tally.spend(&key, rate(100, 60), 1, at(0)).is_err());
        assert!(tally.spend(&key, rate(100, 60), 1, at(61_000)).is_ok());
    }
}
