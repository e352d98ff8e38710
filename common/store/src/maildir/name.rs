//! A message's file name in a Maildir: `UNIQUE,S=size,W=size,U=uid,V=uidvalidity:2,FLAGS`.
//!
//! `S` is the file's size, `W` the size with CRLF line ends; Dovecot and Courier know both. `U` is
//! what mbsync and offlineimap write, and `V` (base 36) says to which UIDVALIDITY it belongs: a file
//! that was moved here from another folder has a foreign `V`, and is a new message.

use crate::flags::Flags;

/// A name taken apart. What we do not know is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Name {
    /// Up to the first comma.
    pub(crate) unique: String,
    /// Fields that are not ours, each with its comma.
    others: String,
    pub(crate) size: Option<u64>,
    pub(crate) wire_size: Option<u64>,
    pub(crate) uid: u32,
    pub(crate) uidvalidity: u32,
    /// The letters behind `:2,`; `None` without these.
    info: Option<String>,
}

const LETTERS: [(char, Flags); 5] = [
    ('D', Flags::DRAFT),
    ('F', Flags::FLAGGED),
    ('R', Flags::ANSWERED),
    ('S', Flags::SEEN),
    ('T', Flags::DELETED),
];

impl Name {
    pub(crate) fn new(unique: String, size: u64, wire_size: u64) -> Self {
        let (size, wire_size) = (Some(size), Some(wire_size));
        Self {
            unique,
            size,
            wire_size,
            ..Self::default()
        }
    }

    /// `None` for a file that is no message: hidden ones.
    pub(crate) fn parse(file: &str) -> Option<Self> {
        let (base, info) = match file.split_once(':') {
            Some((base, info)) => (base, Some(info.strip_prefix("2,").unwrap_or_default())),
            None => (file, None),
        };
        let mut fields = base.split(',');
        let unique = fields
            .next()
            .filter(|u| !u.is_empty() && !u.starts_with('.'))?;
        let mut name = Self {
            unique: unique.into(),
            ..Self::default()
        };
        name.info = info.map(str::to_owned);
        for field in fields {
            match field.split_once('=') {
                Some(("S", n)) => name.size = n.parse().ok(),
                Some(("W", n)) => name.wire_size = n.parse().ok(),
                Some(("U", n)) => name.uid = n.parse().unwrap_or(0),
                Some(("V", n)) => name.uidvalidity = u32::from_str_radix(n, 36).unwrap_or(0),
                _ => {
                    name.others.push(',');
                    name.others.push_str(field);
                }
            }
        }
        Some(name)
    }

    pub(crate) fn format(&self) -> String {
        let mut file = format!("{}{}", self.unique, self.others);
        if let Some(n) = self.size {
            file += &format!(",S={n}");
        }
        if let Some(n) = self.wire_size {
            file += &format!(",W={n}");
        }
        if self.uid > 0 {
            file += &format!(",U={},V={}", self.uid, base36(self.uidvalidity));
        }
        if let Some(info) = &self.info {
            file += &format!(":2,{info}");
        }
        file
    }

    pub(crate) fn flags(&self) -> Flags {
        let has = |c: char| self.info.as_ref().is_some_and(|info| info.contains(c));
        let set = LETTERS.iter().filter(|(c, _)| has(*c));
        set.fold(Flags::NONE, |all, (_, flag)| all.with(*flag))
    }

    /// A bit for each letter `a` to `z`.
    pub(crate) fn keywords(&self) -> u64 {
        let letters = self
            .info
            .iter()
            .flat_map(|info| info.bytes())
            .filter(u8::is_ascii_lowercase);
        letters.fold(0, |bits, b| bits | 1 << (b - b'a'))
    }

    /// Letters in ASCII order, as the format wants; those that are neither ours stay.
    pub(crate) fn mark(&mut self, flags: Flags, keywords: u64) {
        let ours = |c: &char| c.is_ascii_lowercase() || LETTERS.iter().any(|(l, _)| l == c);
        let old = self.info.take().unwrap_or_default();
        let mut letters: Vec<char> = old.chars().filter(|c| !ours(c)).collect();
        letters.extend(
            LETTERS
                .iter()
                .filter(|(_, f)| flags.has(*f))
                .map(|(c, _)| c),
        );
        letters.extend(
            ('a'..='z')
                .enumerate()
                .filter(|(at, _)| keywords & (1 << at) != 0)
                .map(|(_, c)| c),
        );
        letters.sort_unstable();
        letters.dedup();
        self.info = Some(letters.into_iter().collect());
    }
}

fn base36(mut n: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit(n % 36, 36).unwrap_or('0'));
        n /= 36;
        if n == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        for file in [
            "1700000000.M1P2.host",
            "1700000000.M1P2.host,S=10,W=12",
            "1700000000.M1P2.host,S=10,W=12,U=7,V=s44we8:2,FS",
            "x:2,",
            "x,Z=1,y:2,Pab",
        ] {
            assert_eq!(Name::parse(file).unwrap().format(), file);
        }
        for file in ["", ".x", ",S=1", ":2,S"] {
            assert_eq!(Name::parse(file), None, "{file}");
        }
    }

    #[test]
    fn damaged_fields_are_as_if_they_were_not_there() {
        let name = Name::parse("x,S=a,W=-1,U=99999999999,V=!!:1,x").unwrap();
        assert_eq!(
            (name.size, name.wire_size, name.uid, name.uidvalidity),
            (None, None, 0, 0)
        );
        assert_eq!(name.flags(), Flags::NONE);
    }

    #[test]
    fn flags_are_letters_in_order() {
        let mut name = Name::parse("x:2,PS").unwrap();
        name.mark(Flags::FLAGGED.with(Flags::DELETED), 5);
        assert_eq!(name.format(), "x:2,FPTac");
        assert_eq!(
            (name.flags(), name.keywords()),
            (Flags::FLAGGED.with(Flags::DELETED), 5)
        );
        assert_eq!(base36(u32::MAX), "1z141z3");
    }
}
