//! Names of folders, and the safe file names they have below `folders/`.
//!
//! A name is UTF-8 with `/` as its hierarchy separator (imapd turns modified UTF-7 into it). On
//! disk every folder is one entry of one directory: each octet that is not a letter, a digit, `-`,
//! `_`, a space or beyond ASCII stands as `%XX`, so that no name reaches another directory, none
//! is hidden, and none looks like a lock file (which have a dot).

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Bound;

/// `INBOX`, or a folder's name: 1 to [`FolderName::MAX`] octets without empty levels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FolderName(String);

impl FolderName {
    /// Octets in a name; as a file name it may be three times as long, but not over 255.
    pub const MAX: usize = 200;
    const MAX_FILE: usize = 240;

    /// A name from a client. `inbox` in any case is `INBOX`, and so is it as the first level.
    pub fn parse(text: &str) -> Option<Self> {
        let bad = text.is_empty()
            || text.len() > Self::MAX
            || text.chars().any(char::is_control)
            || text.split('/').any(str::is_empty);
        if bad {
            return None;
        }
        let (first, rest) = match text.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (text, None),
        };
        let name = match rest {
            _ if !first.eq_ignore_ascii_case("INBOX") => text.to_owned(),
            Some(rest) => format!("INBOX/{rest}"),
            None => "INBOX".to_owned(),
        };
        let name = Self(name);
        (name.file_name().len() <= Self::MAX_FILE).then_some(name)
    }

    /// The mailbox in /var/spool/mail.
    pub fn inbox() -> Self {
        Self("INBOX".into())
    }

    /// As the client writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the INBOX itself.
    pub fn is_inbox(&self) -> bool {
        self.0 == "INBOX"
    }

    /// Whether it lies below `other` in the hierarchy.
    pub fn is_below(&self, other: &Self) -> bool {
        self.0
            .strip_prefix(other.as_str())
            .is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether some of these lie below it.
    pub(crate) fn has_below(&self, names: &BTreeSet<Self>) -> bool {
        let first = format!("{self}/");
        let next = names.range::<str, _>((Bound::Included(first.as_str()), Bound::Unbounded));
        next.into_iter()
            .next()
            .is_some_and(|name| name.0.starts_with(&first))
    }

    /// Its name after `from` was renamed to `to`; `None` if it is neither `from` nor below it, or
    /// if the new name is too long.
    pub fn moved(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(from.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then_some(())?;
        Self::parse(&format!("{}{rest}", to.as_str()))
    }

    /// The name of its file or directory.
    pub(crate) fn file_name(&self) -> String {
        let mut file = String::with_capacity(self.0.len());
        for c in self.0.chars() {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ' ') || !c.is_ascii() {
                file.push(c);
            } else {
                file.push_str(&format!("%{:02X}", u32::from(c)));
            }
        }
        file
    }

    /// The folder of a file name; `None` for what this program did not name.
    pub(crate) fn from_file_name(file: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(file.len());
        let mut rest = file.bytes();
        while let Some(b) = rest.next() {
            if b == b'%' {
                let digit = |b: Option<u8>| char::from(b?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            } else {
                bytes.push(b);
            }
        }
        let name = Self::parse(std::str::from_utf8(&bytes).ok()?)?;
        (name.file_name() == file).then_some(name)
    }
}

/// The order of names is that of their octets.
impl Borrow<str> for FolderName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FolderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_files() {
        for (name, file) in [
            ("Work", "Work"),
            ("Work/2026", "Work%2F2026"),
            ("../../etc/passwd", "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd"),
            (".hidden", "%2Ehidden"),
            ("a.lock", "a%2Elock"),
            ("50%", "50%25"),
            ("件名", "件名"),
            ("InBox", "INBOX"),
            ("inbox/x", "INBOX%2Fx"),
        ] {
            let folder = FolderName::parse(name).unwrap();
            assert_eq!(folder.file_name(), file);
            assert_eq!(FolderName::from_file_name(file), Some(folder));
        }
    }

    #[test]
    fn names_that_are_none() {
        for name in [
            "",
            "/",
            "a//b",
            "/a",
            "a/",
            "a\nb",
            "a\0",
            &"x".repeat(201),
            &"/x".repeat(99),
        ] {
            assert_eq!(FolderName::parse(name), None, "{name}");
        }
        for file in ["a.lock", ".x", "%", "%2", "%2f", "%zz", "a%00", "%41"] {
            assert_eq!(FolderName::from_file_name(file), None, "{file}");
        }
    }

    #[test]
    fn renaming_takes_the_levels_below_along() {
        let f = |s| FolderName::parse(s).unwrap();
        assert_eq!(f("a/b/c").moved(&f("a/b"), &f("z")), Some(f("z/c")));
        assert_eq!(f("a/bc").moved(&f("a/b"), &f("z")), None);
        assert!(f("a/b").is_below(&f("a")) && !f("ab").is_below(&f("a")));
    }
}
