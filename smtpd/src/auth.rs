//! The base64 of AUTH: RFC 4954 4, with limits. What is said in it is `checkpw`'s business.

use account::sasl::MAX_RESPONSE;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Octets of a line in an AUTH exchange, CRLF included: RFC 4954 4.
pub(crate) const MAX_LINE: usize = 12_288;

/// Whether this is the beginning of the command.
pub(crate) fn is_begun(line: &[u8]) -> bool {
    line.get(..5)
        .is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "))
}

/// One response, decoded. Padding is required, and nothing may follow it. What is longer than any
/// mechanism's response is none.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > MAX_LINE {
        return None;
    }
    STANDARD
        .decode(text)
        .ok()
        .filter(|response| response.len() <= MAX_RESPONSE)
}

/// One challenge, encoded.
pub(crate) fn encode(challenge: &[u8]) -> String {
    STANDARD.encode(challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_a_blank_behind_it() {
        for (line, want) in [
            ("auth plain", true),
            ("AUTH", false),
            ("AUTHOR x", false),
            ("", false),
        ] {
            assert_eq!(is_begun(line.as_bytes()), want, "{line}");
        }
    }

    #[test]
    fn strict_base64_only() {
        assert_eq!(decode(b""), Some(vec![]));
        assert_eq!(decode(b"YWJj"), Some(b"abc".to_vec()));
        assert_eq!(decode(b"AGEAYg=="), Some(b"\0a\0b".to_vec()));
        for bad in ["AGEAYg", "AGEAYg=", "YW Jj", "*", "YWJj=", "=YWJ", "YWJj\r"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(decode(&vec![b'A'; MAX_LINE + 4]), None);
    }
}
