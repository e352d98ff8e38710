//! When a message is tried again, and when we give up. Pure.
//!
//! The pause is as long as the message is old, between MIN_BACKOFF and MAX_BACKOFF: soon after a
//! short trouble, seldom in a long one. A part of it is random, so that what was deferred together
//! does not come back together.

use std::time::{Duration, SystemTime};

/// The shortest and the longest pause.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl Backoff {
    /// When a message that arrived at `arrived` is tried again; `random` is any number.
    pub(crate) fn next(self, arrived: SystemTime, now: SystemTime, random: u32) -> SystemTime {
        // A clock that was set back makes it young again.
        let age = now.duration_since(arrived).unwrap_or_default();
        let pause = age.clamp(self.min, self.max.max(self.min));
        let part = Duration::from_secs_f64(pause.as_secs_f64() / 5.0 * fraction(random));
        now.checked_add(pause.saturating_add(part)).unwrap_or(now)
    }

    /// How long a destination is left alone after it failed so often in a row: short at first,
    /// because it may only be restarting, and never longer than a message that it failed waits.
    pub(crate) fn pause(self, failures: u32) -> Duration {
        let doubled = 1_u32
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u32::MAX);
        (self.min / 8).saturating_mul(doubled).min(self.min)
    }
}

/// From 0 up to 1.
fn fraction(random: u32) -> f64 {
    f64::from(random) / (f64::from(u32::MAX) + 1.0)
}

/// Whether a message has been tried for as long as the operator wants.
pub(crate) fn is_expired(arrived: SystemTime, now: SystemTime, lifetime: Duration) -> bool {
    now.duration_since(arrived).is_ok_and(|age| age >= lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        min: Duration::from_secs(300),
        max: Duration::from_secs(3600),
    };

    #[test]
    fn pauses_grow_with_age_and_vary_by_a_fifth() {
        let table = [
            (0, 300, 360),
            (299, 300, 360),
            (1000, 1000, 1200),
            (3600, 3600, 4320),
            (400_000, 3600, 4320),
        ];
        let arrived = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (age, least, most) in table {
            let now = arrived + Duration::from_secs(age);
            let pause = |random| {
                BACKOFF
                    .next(arrived, now, random)
                    .duration_since(now)
                    .unwrap()
            };
            assert_eq!(pause(0).as_secs(), least, "{age}");
            assert_eq!(pause(u32::MAX).as_secs(), most - 1, "{age}");
        }
    }

    #[test]
    fn five_days_are_some_130_attempts() {
        let arrived = SystemTime::UNIX_EPOCH;
        let (mut now, mut attempts) = (arrived, 0);
        while !is_expired(arrived, now, Duration::from_secs(5 * 86_400)) {
            now = BACKOFF.next(arrived, now, u32::MAX / 2);
            attempts += 1;
        }
        assert!((100..140).contains(&attempts), "{attempts}");
    }

    #[test]
    fn a_dead_destination_rests_longer_and_longer() {
        let pauses = [1, 2, 3, 4, 5, 40].map(|n| BACKOFF.pause(n).as_millis());
        assert_eq!(pauses, [37_500, 75_000, 150_000, 300_000, 300_000, 300_000]);
    }

    #[test]
    fn a_clock_set_back_neither_expires_nor_panics() {
        let now = SystemTime::UNIX_EPOCH;
        let arrived = now + Duration::from_secs(1000);
        assert_eq!(BACKOFF.next(arrived, now, 0), now + BACKOFF.min);
        assert!(!is_expired(arrived, now, Duration::ZERO));
        assert!(is_expired(now, arrived, Duration::from_secs(1000)));
    }
}
