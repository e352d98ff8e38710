//! What a user marked on a message: the flags of RFC 3501 2.3.2, and keywords.
//!
//! `\Recent` is not here: it is a property of a session's view, not of the message.

use std::fmt;

/// A set of system flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags(u8);

impl Flags {
    pub const NONE: Self = Self(0);
    pub const SEEN: Self = Self(1);
    pub const ANSWERED: Self = Self(2);
    pub const FLAGGED: Self = Self(4);
    pub const DELETED: Self = Self(8);
    pub const DRAFT: Self = Self(16);
    const ALL: u8 = 31;

    /// From its bits; bits that mean nothing are dropped.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL)
    }

    /// The bits, for files and frames.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// A user's own flag: an atom of RFC 3501, 1 to [`Keyword::MAX`] octets, without `\`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keyword(String);

impl Keyword {
    /// Octets in a keyword.
    pub const MAX: usize = 100;
    /// Keywords in a mailbox.
    pub const MOST: usize = 64;

    /// An atom without characters that end one: `$Forwarded`, `work`, but not `a b`.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX).contains(&text.len());
        let atom = text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"(){%*\"\\]".contains(&b));
        (fits && atom).then(|| Self(text.into()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// RFC 3501 2.3.2 leaves case open; clients take keywords as case-insensitive, so do we.
    pub fn is(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The keywords that a mailbox knows, at most [`Keyword::MOST`]; a message has a bit for each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Table(Vec<Keyword>);

impl Table {
    pub(crate) fn names(&self) -> &[Keyword] {
        &self.0
    }

    /// Whether a new keyword has room.
    pub(crate) fn has_room(&self) -> bool {
        self.0.len() < Keyword::MOST
    }

    /// The bit of a keyword, which is added if it is new; 0 when there is no room for it.
    pub(crate) fn bit(&mut self, keyword: &Keyword) -> u64 {
        let at = match self.0.iter().position(|k| k.is(keyword)) {
            Some(at) => at,
            None if self.has_room() => {
                self.0.push(keyword.clone());
                self.0.len() - 1
            }
            None => return 0,
        };
        1 << at
    }

    /// The bits of several.
    pub(crate) fn bits(&mut self, keywords: &[Keyword]) -> u64 {
        keywords.iter().fold(0, |bits, k| bits | self.bit(k))
    }

    /// The keywords of a message's bits.
    pub(crate) fn of(&self, bits: u64) -> Vec<Keyword> {
        self.0
            .iter()
            .enumerate()
            .filter(|(at, _)| bits & (1 << at) != 0)
            .map(|(_, k)| k.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_sets() {
        let f = Flags::SEEN.with(Flags::DRAFT);
        assert!(f.has(Flags::SEEN) && !f.has(Flags::SEEN.with(Flags::DELETED)));
        assert_eq!(f.without(Flags::SEEN), Flags::DRAFT);
        assert_eq!(Flags::from_bits(255).bits(), 31);
    }

    #[test]
    fn keywords_are_atoms() {
        for (text, good) in [
            ("$Forwarded", true),
            ("work", true),
            ("", false),
            ("a b", false),
            ("\\Seen", false),
            ("x\r\ny", false),
            ("é", false),
            (&"k".repeat(101), false),
        ] {
            assert_eq!(Keyword::new(text).is_some(), good, "{text}");
        }
    }

    #[test]
    fn the_table_is_full_at_its_limit() {
        let mut table = Table::default();
        for n in 0..Keyword::MOST {
            assert_eq!(table.bit(&Keyword::new(&format!("k{n}")).unwrap()), 1 << n);
        }
        assert_eq!(table.bit(&Keyword::new("more").unwrap()), 0);
        assert_eq!(table.bit(&Keyword::new("K3").unwrap()), 8);
        assert_eq!(table.of(10).len(), 2);
    }
}
