//! Encoded words (RFC 2047): header text to and from Unicode.
//!
//! Decoding is liberal: neighbouring words of one charset are joined before the charset is decoded
//! (senders cut characters in two), words are found inside quoted strings and without white space
//! around them, raw 8-bit text is guessed. Encoding never splits a character, keeps a word within 75
//! bytes and a line within 76.

use memchr::memmem;

use crate::encoding::{Encoding, base64};
use crate::{charset, header};

/// An encoded word longer than this is text.
const MAX_WORD: usize = 4096;
/// Longest charset name with its language.
const MAX_CHARSET: usize = 64;

/// The text of a field's value; line ends are removed, those in encoded words too (RFC 2047 5).
pub fn decode(value: &[u8]) -> String {
    let value = header::unfold(value);
    let mut text = String::with_capacity(value.len());
    let mut pending = Pending::default();
    let mut rest = value.as_slice();
    // Where `raw` text since the last word began.
    let mut raw = rest;
    while let Some(at) = memmem::find(rest, b"=?") {
        let tail = rest.get(at..).unwrap_or_default();
        let Some((word, length)) = word(tail) else {
            rest = tail.get(2..).unwrap_or_default();
            continue;
        };
        let before = raw.len() - tail.len();
        let between = raw.get(..before).unwrap_or_default();
        if pending.charset.is_empty() || !between.trim_ascii().is_empty() {
            pending.flush(&mut text);
            text.push_str(&charset::guess(between));
        }
        pending.push(word, &mut text);
        rest = tail.get(length..).unwrap_or_default();
        raw = rest;
    }
    pending.flush(&mut text);
    text.push_str(&charset::guess(raw));
    text.retain(|c| !matches!(c, '\r' | '\n' | '\0'));
    text
}

/// Words of one charset that follow each other.
#[derive(Debug, Default)]
struct Pending {
    charset: Vec<u8>,
    bytes: Vec<u8>,
}

impl Pending {
    fn push(&mut self, word: Word<'_>, text: &mut String) {
        if !self.charset.eq_ignore_ascii_case(word.charset) {
            self.flush(text);
            self.charset = word.charset.to_vec();
        }
        self.bytes.extend(word.bytes);
    }

    fn flush(&mut self, text: &mut String) {
        if !self.charset.is_empty() {
            text.push_str(&charset::decode(&self.charset, &self.bytes));
            *self = Self::default();
        }
    }
}

struct Word<'a> {
    charset: &'a [u8],
    bytes: Vec<u8>,
}

/// RFC 2047 2: `"=?" charset "?" encoding "?" encoded-text "?="`, and its length.
fn word(text: &[u8]) -> Option<(Word<'_>, usize)> {
    let window = text.get(..text.len().min(MAX_WORD))?;
    let inner = window.get(2..)?;
    let name_end = inner.iter().take(MAX_CHARSET).position(|b| *b == b'?')?;
    let (name, rest) = inner.split_at_checked(name_end)?;
    let &[b'?', encoding, b'?', ref data @ ..] = rest else {
        return None;
    };
    // A Q word may begin with an escape: `=?utf-8?Q?=E3?=`; `?=` is looked for behind it.
    let data_end = memmem::find(data, b"?=")?;
    let data = data.get(..data_end)?;
    let bytes = match encoding {
        b'B' | b'b' => Encoding::Base64.decode(data),
        b'Q' | b'q' => {
            let spaced: Vec<u8> = data
                .iter()
                .map(|b| if *b == b'_' { b' ' } else { *b })
                .collect();
            q_decode(&spaced)
        }
        _ => return None,
    };
    // RFC 2231 5: `charset*language`.
    let charset = name
        .split(|b| *b == b'*')
        .next()
        .filter(|c| !c.is_empty())?;
    let length = 2 + name_end + 3 + data_end + 2;
    Some((Word { charset, bytes }, length))
}

/// RFC 2047 4.2: as quoted-printable, but a space at the end counts.
fn q_decode(data: &[u8]) -> Vec<u8> {
    let kept = data.trim_ascii_end().len();
    let mut bytes = Encoding::QuotedPrintable.decode(data);
    bytes.extend_from_slice(data.get(kept..).unwrap_or_default());
    bytes
}

/// The charset to write words in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Utf8,
    /// For readers of old; text that does not fit is written in UTF-8 all the same.
    Iso2022Jp,
}

impl Target {
    /// The name in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Iso2022Jp => "ISO-2022-JP",
        }
    }

    fn encode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Utf8 => Some(text.into()),
            Self::Iso2022Jp => charset::encode(b"ISO-2022-JP", text),
        }
    }

    /// This charset if `text` fits in it, else UTF-8.
    pub fn fitting(self, text: &str) -> Self {
        if self.encode(text).is_some() {
            self
        } else {
            Self::Utf8
        }
    }
}

/// An unstructured value (Subject) as it goes behind `Name: `, folded; `column` is where it starts.
/// Line ends in `text` become spaces: a value cannot add a field.
pub fn encode(text: &str, column: usize, target: Target) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.is_ascii() && !text.contains("=?") {
        return fold(&text, column);
    }
    let mut encoded = String::new();
    for word in split_words(&text, column, target.fitting(&text)) {
        if !encoded.is_empty() {
            encoded.push_str("\r\n ");
        }
        encoded.push_str(&word);
    }
    encoded
}

/// A display name (RFC 5322 `phrase`): atoms, a quoted string, or encoded words.
pub fn encode_phrase(text: &str, column: usize, target: Target) -> String {
    let plain: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if !plain.is_ascii() || plain.contains("=?") {
        return encode(&plain, column, target);
    }
    let atoms = plain
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~ ".contains(&b));
    if atoms {
        return plain;
    }
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

/// B words of at most 75 bytes; the first one has `column` bytes less.
fn split_words(text: &str, column: usize, target: Target) -> Vec<String> {
    let name = target.name();
    let frame = name.len() + "=??B??=".len();
    let mut words = Vec::new();
    let mut chunk = String::new();
    let mut bytes = Vec::new();
    let mut room = 75_usize.saturating_sub(column).max(frame + 24);
    for c in text.chars() {
        chunk.push(c);
        let longer = target.encode(&chunk).unwrap_or_default();
        if frame + longer.len().div_ceil(3) * 4 > room && !bytes.is_empty() {
            words.push(format!("=?{name}?B?{}?=", base64(&bytes)));
            room = 75;
            chunk = c.to_string();
            bytes = target.encode(&chunk).unwrap_or_default();
        } else {
            bytes = longer;
        }
    }
    if !bytes.is_empty() {
        words.push(format!("=?{name}?B?{}?=", base64(&bytes)));
    }
    words
}

/// ASCII text folded at white space so that lines stay within 76 where words allow it.
pub fn fold(text: &str, column: usize) -> String {
    let mut folded = String::with_capacity(text.len() + text.len() / 32);
    let mut at = column;
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            // A line of nothing but white space must not arise: fold only before a word.
            if at + 1 + word.len() > 76 && at > 1 && !word.is_empty() {
                folded.push_str("\r\n");
                at = 0;
            }
            folded.push(' ');
            at += 1;
        }
        folded.push_str(word);
        at += word.len();
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes() {
        let table: &[(&[u8], &str)] = &[
            (b"plain", "plain"),
            (
                b"=?us-ascii?B?YQ0KQmNjOiBi?= =?utf-8?q?=00c=0A?=",
                "aBcc: bc",
            ),
            // RFC 2047 8
            (b"=?ISO-8859-1?Q?a?=", "a"),
            (b"=?ISO-8859-1?Q?a?= b", "a b"),
            (b"=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
            (b"=?ISO-8859-1?Q?a?=\r\n  =?ISO-8859-1?Q?b?=", "ab"),
            (b"=?ISO-8859-1?Q?a_b?=", "a b"),
            (b"=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
            (
                b"=?US-ASCII?Q?Keith_Moore?= <moore@cs.utk.edu>",
                "Keith Moore <moore@cs.utk.edu>",
            ),
            (b"=?ISO-8859-1?Q?Patrik_F=E4ltstr=F6m?=", "Patrik Fältström"),
            // RFC 2231 5
            (b"=?US-ASCII*EN?Q?Keith_Moore?=", "Keith Moore"),
            // one character over two words
            (b"=?UTF-8?B?44E=?= =?utf-8?B?gg==?=", "あ"),
            (b"=?utf-8?Q?=E3=81?= =?UTF-8?Q?=82?=", "あ"),
            // ISO-2022-JP
            (b"=?ISO-2022-JP?B?GyRCJCIbKEI=?=", "あ"),
            // no white space around, inside quotes
            (b"\"x=?UTF-8?B?44GC?=y\"", "\"xあy\""),
            (b"=?UTF-8?Q?a_?=", "a "),
            // raw
            ("あ".as_bytes(), "あ"),
            (b"\x1b$B$\"\x1b(B", "あ"),
            // not words
            (b"=?", "=?"),
            (b"=?a?b", "=?a?b"),
            (b"=?UTF-8?X?abc?=", "=?UTF-8?X?abc?="),
            (b"=?=?=?UTF-8?Q?ok?=", "=?=?ok"),
        ];
        for (value, want) in table {
            assert_eq!(decode(value), *want, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn encoded_lines_are_short_and_read_back() {
        let texts = [
            "short",
            "日本語の件名はとても長いので何行にもわたって折り返されることになります。そうでしょう?",
            "naïve café 😀 mixed with plain ASCII words that go on and on beyond the first line",
            "looks =?UTF-8?Q?encoded?=",
            "one  two   spaces",
        ];
        for text in texts {
            for target in [Target::Utf8, Target::Iso2022Jp] {
                let encoded = encode(text, 9, target);
                assert_eq!(decode(encoded.as_bytes()), text);
                for (at, line) in encoded.split("\r\n").enumerate() {
                    assert!(line.len() + if at == 0 { 9 } else { 0 } <= 78, "{line}");
                    for word in line.split(' ').filter(|w| w.starts_with("=?")) {
                        assert!(word.len() <= 75, "{word}");
                        assert!(!decode(word.as_bytes()).contains('\u{fffd}'), "{word}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_value_cannot_add_a_field() {
        assert_eq!(encode("a\r\nBcc: b", 0, Target::Utf8), "a  Bcc: b");
        assert!(!encode("é\r\nBcc: b", 0, Target::Utf8).contains("\r\nB"));
    }

    #[test]
    fn phrases() {
        assert_eq!(encode_phrase("Ann B", 0, Target::Utf8), "Ann B");
        assert_eq!(
            encode_phrase("B. \"Ann\"", 0, Target::Utf8),
            "\"B. \\\"Ann\\\"\""
        );
        assert_eq!(encode_phrase("あ", 0, Target::Utf8), "=?UTF-8?B?44GC?=");
    }

    #[test]
    fn a_flood_of_starts_is_linear() {
        let flood = b"=?x?Q?".repeat(100_000);
        assert!(decode(&flood).len() <= flood.len());
    }
}
