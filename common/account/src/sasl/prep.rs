//! SASLprep (RFC 4013): the one form of a name or a password that can be written in several. The
//! tables and the normal form are the `stringprep` crate's; ASCII is its own form.

use std::borrow::Cow;

/// `None` for what SASLprep forbids: control characters, mixed directions, characters that Unicode
/// 3.2 did not have.
pub fn prepare(text: &str) -> Option<Cow<'_, str>> {
    stringprep::saslprep(text).ok()
}

/// As it is where it cannot be prepared: who has such a password may well use it.
pub fn prepare_or_keep(text: &str) -> Cow<'_, str> {
    prepare(text).unwrap_or(Cow::Borrowed(text))
}

/// The same for octets that need not be UTF-8.
pub fn prepare_octets(octets: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(octets).map(prepare_or_keep) {
        Ok(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        Ok(Cow::Borrowed(_)) | Err(_) => Cow::Borrowed(octets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_examples() {
        // RFC 4013 3, and some of our own.
        let table = [
            ("I\u{ad}X", Some("IX")),
            ("user", Some("user")),
            ("USER", Some("USER")),
            ("\u{aa}", Some("a")),
            ("\u{2168}", Some("IX")),
            ("\u{7}", None),
            ("\u{627}1", None),
            ("\u{ff41}nn", Some("ann")),
            ("a\u{308}", Some("\u{e4}")),
            ("a\u{a0}b", Some("a b")),
            ("", Some("")),
            ("\u{1f600}", None), // of Unicode 6.1
        ];
        for (text, want) in table {
            assert_eq!(prepare(text).as_deref(), want, "{}", text.escape_unicode());
            let kept = prepare_octets(text.as_bytes());
            assert_eq!(&*kept, want.unwrap_or(text).as_bytes());
        }
        assert_eq!(&*prepare_octets(b"\xffa"), b"\xffa");
    }
}
