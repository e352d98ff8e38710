//! An account that sends more than it may: smtpd marks it and puts aside what it sends, until the
//! operator has looked and says by mailq(1) what becomes of that.

use std::time::{Duration, SystemTime};

use crate::{Key, Tally, Worth};

/// A mark lasts until it is taken away.
const FOR_EVER: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Against what an account's messages count.
pub fn messages(login: &str) -> Key {
    Key::new("account messages", [login.as_bytes()])
}

/// Against what its recipients do.
pub fn recipients(login: &str) -> Key {
    Key::new("account recipients", [login.as_bytes()])
}

fn mark(login: &str) -> Key {
    Key::new("account held", [login.as_bytes()])
}

/// Why a message of this account is put aside: by this mailq knows it again.
pub fn reason(login: &str) -> String {
    format!("account {login} is held back")
}

impl Tally {
    /// Whether the account is marked.
    pub fn is_held(&self, login: &str, now: SystemTime) -> bool {
        self.look(&mark(login), now).is_some()
    }

    /// Marks it; `true` where it was not marked: one of all processes gets that, and tells people.
    pub fn hold_account(&self, login: &str, now: SystemTime) -> bool {
        self.update(&mark(login), now, |slot| {
            let first = slot.is_new();
            if first {
                slot.worth = Worth::Order;
                slot.keep(now, FOR_EVER);
            }
            first
        })
    }

    /// Takes the mark away and begins to count anew; whether there was one.
    pub fn free_account(&self, login: &str, now: SystemTime) -> bool {
        let was_held = self.is_held(login, now);
        for key in [mark(login), messages(login), recipients(login)] {
            self.forget(&key, now);
        }
        was_held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::config::Rate;
    use std::num::NonZeroU32;

    #[test]
    fn marked_once_until_it_is_freed() {
        let tally = Tally::private().unwrap();
        let now = SystemTime::now();
        let rate = Rate {
            count: NonZeroU32::MIN,
            per: Duration::from_secs(60),
        };
        assert!(!tally.is_held("ann", now));
        assert!(tally.spend(&messages("ann"), rate, 1, now).is_ok());
        assert!(tally.hold_account("ann", now));
        assert!(!tally.hold_account("ann", now + FOR_EVER / 2));
        assert!(tally.is_held("ann", now) && !tally.is_held("bob", now));
        assert!(tally.spend(&messages("ann"), rate, 1, now).is_err());
        assert!(tally.free_account("ann", now));
        assert!(!tally.free_account("ann", now));
        assert!(!tally.is_held("ann", now));
        assert!(tally.spend(&messages("ann"), rate, 1, now).is_ok());
    }
}
