//! A mail user, and the names that one can have.

use std::fmt;
use std::path::PathBuf;

use base::international;

/// A user's name: it becomes a file's name in the spool, so it has no `/`, no control character
/// and no leading dot or hyphen. Letters, digits and `._-+@=`, at most 64 octets; beyond ASCII what a
/// local-part may have (RFC 6531), in normal form C.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(String);

impl UserName {
    /// `None` for what cannot be a user.
    pub fn parse(text: &str) -> Option<Self> {
        let good = |c: char| match c.is_ascii() {
            true => c.is_ascii_alphanumeric() || "._-+@=".contains(c),
            false => international::is_visible(c),
        };
        let text = international::normal(text);
        let fits = (1..=64).contains(&text.len()) && text.chars().all(good);
        (fits && !text.starts_with(['.', '-'])).then(|| Self(text.into_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose mail it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: UserName,
    pub uid: u32,
    pub gid: u32,
    /// The full name, as `sendmail` writes it into From.
    pub gecos: String,
    pub home: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_path() {
        for good in ["ann", "ann.b", "a-b_c", "ann@example.org", "0", "j\u{f6}rg"] {
            assert!(UserName::parse(good).is_some(), "{good}");
        }
        assert_eq!(UserName::parse("jo\u{308}rg"), UserName::parse("j\u{f6}rg"));
        let long = "a".repeat(65);
        for bad in [
            "",
            ".",
            "..",
            ".ann",
            "-rf",
            "a/b",
            "a b",
            "a\n",
            "a\0",
            "\u{e4}\u{a0}b",
            "\u{202e}ann",
            "a:b",
            long.as_str(),
        ] {
            assert!(UserName::parse(bad).is_none(), "{bad}");
        }
    }
}
