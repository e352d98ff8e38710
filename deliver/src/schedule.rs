//! When a message that could not be delivered is tried again, and when we give up. Pure.
//!
//! Local troubles are short (a lock, a full disk, a directory service that restarts), so the first
//! pauses are too: the pause is as long as the message is old, between a minute and an hour.

use std::time::{Duration, SystemTime};

/// The first pause.
const SHORTEST: Duration = Duration::from_secs(60);
/// The longest.
const LONGEST: Duration = Duration::from_secs(3600);
/// The pause after somebody else held the mailbox's lock: he is likely to be done soon.
const LOCKED: Duration = Duration::from_secs(10);

/// The longest for that reason.
const LONGEST_LOCKED: Duration = Duration::from_secs(300);

/// Why the next attempt is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The mailbox is locked by another program.
    Locked,
    /// Everything else.
    Other,
}

/// When a message that arrived at `arrived` is tried again. The pauses grow with the message's age.
pub(crate) fn next(arrived: SystemTime, now: SystemTime, trouble: Trouble) -> SystemTime {
    let age = now.duration_since(arrived).unwrap_or_default();
    let pause = match trouble {
        Trouble::Locked => age.clamp(LOCKED, LONGEST_LOCKED),
        Trouble::Other => age.clamp(SHORTEST, LONGEST),
    };
    now.checked_add(pause).unwrap_or(now)
}

/// Whether a message has been tried for as long as the operator wants.
pub(crate) fn expired(arrived: SystemTime, now: SystemTime, lifetime: Duration) -> bool {
    now.duration_since(arrived).is_ok_and(|age| age >= lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_age() {
        let table = [
            (0, Trouble::Other, 60),
            (59, Trouble::Other, 60),
            (90, Trouble::Other, 90),
            (1_000_000, Trouble::Other, 3600),
            (0, Trouble::Locked, 10),
            (30, Trouble::Locked, 30),
            (7200, Trouble::Locked, 300),
        ];
        let arrived = SystemTime::UNIX_EPOCH;
        for (age, trouble, pause) in table {
            let now = arrived + Duration::from_secs(age);
            assert_eq!(
                next(arrived, now, trouble),
                now + Duration::from_secs(pause),
                "{age}"
            );
        }
    }

    #[test]
    fn a_clock_set_back_neither_expires_nor_panics() {
        let now = SystemTime::UNIX_EPOCH;
        let arrived = now + Duration::from_secs(1000);
        assert_eq!(next(arrived, now, Trouble::Other), now + SHORTEST);
        assert!(!expired(arrived, now, Duration::ZERO));
        assert!(expired(now, arrived, Duration::from_secs(1000)));
        assert!(!expired(now, arrived, Duration::from_secs(1001)));
    }
}
