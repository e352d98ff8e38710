//! Enhanced mail system status codes: RFC 3463, with the values of RFC 5248's registry that we use.

use std::fmt;

/// `class.subject.detail`. The class is 2 (success), 4 (try later) or 5 (never).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u8, u16, u16);

impl Status {
    /// A code from our own tables. Any class but 2, 4 and 5 counts as 5.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        let class = match class {
            2 | 4 => class,
            _ => 5,
        };
        Self(class, subject, detail)
    }

    /// Reads `5.1.1` at the start of a reply's text. Subject and detail are at most 3 digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let class = match parts.next()? {
            "2" => 2,
            "4" => 4,
            "5" => 5,
            _ => return None,
        };
        let number = |s: &str| -> Option<u16> {
            (1..=3).contains(&s.len()).then_some(())?;
            s.bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| s.parse().ok())?
        };
        Some(Self(class, number(parts.next()?)?, number(parts.next()?)?))
    }

    /// 2, 4 or 5.
    pub const fn class(self) -> u8 {
        self.0
    }

    /// The same subject and detail in another class.
    #[must_use]
    pub const fn with_class(self, class: u8) -> Self {
        Self::new(class, self.1, self.2)
    }

    pub const OK: Self = Self(2, 0, 0);
    pub const RELAYED: Self = Self(2, 6, 0);
    /// Other or undefined status, permanent.
    pub const FAILED: Self = Self(5, 0, 0);
    pub const NO_MAILBOX: Self = Self(5, 1, 1);
    pub const NO_HOST: Self = Self(5, 1, 2);
    pub const BAD_RECIPIENT_SYNTAX: Self = Self(5, 1, 3);
    pub const BAD_SENDER_SYNTAX: Self = Self(5, 1, 7);
    /// Recipient address has null MX: RFC 7505.
    pub const NULL_MX: Self = Self(5, 1, 10);
    pub const MAILBOX_FULL: Self = Self(4, 2, 2);
    pub const TOO_BIG: Self = Self(5, 3, 4);
    /// Mail system full or not able: our own fault, try later.
    pub const SYSTEM: Self = Self(4, 3, 0);
    pub const FULL: Self = Self(4, 3, 1);
    pub const SHUTTING_DOWN: Self = Self(4, 3, 2);
    pub const NO_ANSWER: Self = Self(4, 4, 1);
    pub const BAD_CONNECTION: Self = Self(4, 4, 2);
    pub const NO_DNS: Self = Self(4, 4, 3);
    pub const LOOP: Self = Self(5, 4, 6);
    pub const EXPIRED: Self = Self(4, 4, 7);
    pub const SYNTAX: Self = Self(5, 5, 2);
    /// Non-ASCII addresses not permitted for that sender/recipient: RFC 6531 4.
    pub const NOT_ASCII: Self = Self(5, 6, 7);
    pub const NOT_AUTHORIZED: Self = Self(5, 7, 1);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_well_formed_codes() {
        assert_eq!(Status::parse("5.1.1"), Some(Status::NO_MAILBOX));
        assert_eq!(
            Status::parse("4.4.27").map(|s| s.to_string()),
            Some("4.4.27".into())
        );
        for bad in [
            "", "5", "5.1", "3.1.1", "5.1.1x", "5.1.1000", "5..1", "5.1.1.1", "+5.1.1",
        ] {
            assert_eq!(Status::parse(bad), None, "{bad}");
        }
    }
}
