//! `name=value; name=value`: the lists in DKIM-Signature, ARC-Seal and key records (RFC 6376 3.2).
//!
//! Guaranteed: a list that parses has no name twice, and no more than [`MAX_TAGS`] of them; order is
//! kept. Values are the bytes that stand there, outer white space removed; what they mean is for
//! whoever asks. Octets beyond ASCII are let through in values (RFC 8616 3).

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Octets of a list that is looked at. The longest honest ones have a 4096 bit key or fifty names.
pub const MAX_LIST: usize = 32 << 10;
/// Tags in a list. RFC 6376 has 14.
pub const MAX_TAGS: usize = 64;

/// Why something is no tag-list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadTags {
    TooLong,
    TooMany,
    Syntax,
    Twice,
}

impl fmt::Display for BadTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "tag list too long",
            Self::TooMany => "too many tags",
            Self::Syntax => "not a tag list",
            Self::Twice => "a tag stands twice",
        })
    }
}

impl std::error::Error for BadTags {}

/// A tag-list, borrowed from its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Tags<'a> {
    /// ```text
    /// tag-list  = tag-spec *( ";" tag-spec ) [ ";" ]
    /// tag-spec  = [FWS] tag-name [FWS] "=" [FWS] tag-value [FWS]
    /// ```
    pub fn parse(text: &'a [u8]) -> Result<Self, BadTags> {
        if text.len() > MAX_LIST {
            return Err(BadTags::TooLong);
        }
        let text = trim(text);
        let text = text.strip_suffix(b";").unwrap_or(text);
        let mut list: Vec<(&[u8], &[u8])> = Vec::new();
        for spec in text.split(|b| *b == b';') {
            if list.len() == MAX_TAGS {
                return Err(BadTags::TooMany);
            }
            let at = memchr::memchr(b'=', spec).ok_or(BadTags::Syntax)?;
            let (name, value) = spec.split_at_checked(at).ok_or(BadTags::Syntax)?;
            let (name, value) = (trim(name), trim(value.get(1..).unwrap_or_default()));
            if !is_name(name) || !value.iter().all(|b| is_value(*b)) {
                return Err(BadTags::Syntax);
            }
            if list.iter().any(|(known, _)| *known == name) {
                return Err(BadTags::Twice);
            }
            list.push((name, value));
        }
        Ok(Self(list))
    }

    /// The value of a tag; names are compared with their case.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.0.iter().find(|(known, _)| *known == name.as_bytes());
        found.map(|(_, value)| *value)
    }

    /// The first tag.
    pub fn first(&self) -> Option<(&'a [u8], &'a [u8])> {
        self.0.first().copied()
    }
}

/// `tag-name = ALPHA *( ALPHA / DIGIT / "_" )`
fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// VALCHAR and the white space between; `;` has been cut away before.
fn is_value(byte: u8) -> bool {
    is_space(byte) || matches!(byte, 0x21..=0x7e | 0x80..)
}

/// What FWS is made of.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Without FWS at both ends.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|b| !is_space(*b));
    let end = text.iter().rposition(|b| !is_space(*b));
    match (start, end) {
        (Some(start), Some(end)) => text.get(start..=end).unwrap_or_default(),
        _ => &[],
    }
}

/// The items of a colon list (h=, q=, k's h=, s=, t=), each without white space around it.
pub(crate) fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b':').map(trim)
}

/// Padding may be left out, as it often is. Bits behind the last octet may not: one octet sequence has
/// one spelling.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(false),
);

/// `base64string = ALPHADIGITPS *( [FWS] ALPHADIGITPS ) [ [FWS] "=" [ [FWS] "=" ] ]`
pub(crate) fn base64(value: &[u8]) -> Option<Vec<u8>> {
    let plain: Vec<u8> = value.iter().copied().filter(|b| !is_space(*b)).collect();
    BASE64.decode(plain).ok()
}

/// Decimal digits; more than fit are the largest number there is. `most`: how many digits there may be.
pub(crate) fn number(value: &[u8], most: usize) -> Option<u64> {
    if value.is_empty() || value.len() > most || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0u64, |n, digit| {
        n.saturating_mul(10)
            .saturating_add(u64::from(digit.wrapping_sub(b'0')))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(text: &str) -> String {
        match Tags::parse(text.as_bytes()) {
            Ok(Tags(list)) => list
                .iter()
                .map(|(n, v)| format!("{}={}", n.escape_ascii(), v.escape_ascii()))
                .collect::<Vec<_>>()
                .join("|"),
            Err(e) => format!("{e:?}"),
        }
    }

    #[test]
    fn lists_as_in_rfc_6376_3_2() {
        let table = [
            ("a=b", "a=b"),
            ("a=b;", "a=b"),
            (" a = b ;\r\n c=d e ; \r\n", "a=b|c=d e"),
            ("a=;b=1", "a=|b=1"),
            ("a=x=y", "a=x=y"),
            ("A=1; a=2", "A=1|a=2"),
            ("a_1=x", "a_1=x"),
            ("a=\u{fc}", "a=\\xc3\\xbc"),
            ("", "Syntax"),
            (";", "Syntax"),
            ("a=1;;b=2", "Syntax"),
            ("a=1;;", "Syntax"),
            ("a", "Syntax"),
            ("=x", "Syntax"),
            ("1a=x", "Syntax"),
            ("a b=x", "Syntax"),
            ("a=\0", "Syntax"),
            ("a=\x7f", "Syntax"),
            ("a=1; b=2; a=1", "Twice"),
        ];
        for (text, wanted) in table {
            assert_eq!(say(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn lists_have_bounds() {
        let many: Vec<_> = (0..=MAX_TAGS).map(|n| format!("t{n}=x")).collect();
        assert_eq!(say(&many.join(";")), "TooMany");
        assert!(Tags::parse(many[1..].join(";").as_bytes()).is_ok());
        assert_eq!(say(&format!("a={}", "x".repeat(MAX_LIST))), "TooLong");
    }

    #[test]
    fn numbers_and_base64() {
        let numbers = [
            ("0", Some(0)),
            ("12", Some(12)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("", None),
            ("-1", None),
            ("1 2", None),
        ];
        for (text, wanted) in numbers {
            assert_eq!(number(text.as_bytes(), 76), wanted, "{text}");
        }
        assert_eq!(number(b"123", 2), None);
        let table: &[(&str, Option<&[u8]>)] = &[
            ("YWI=", Some(b"ab")),
            ("Y W\r\n I =", Some(b"ab")),
            ("YWI", Some(b"ab")),
            ("YWJ=", None),
            ("YW*=", None),
            ("", Some(b"")),
        ];
        for (text, wanted) in table {
            assert_eq!(base64(text.as_bytes()).as_deref(), *wanted, "{text}");
        }
    }
}
