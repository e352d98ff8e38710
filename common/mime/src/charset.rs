//! Charsets by the names mail gives them, to Unicode and back; the tables are encoding_rs'.
//!
//! Decoding never fails: a byte that means nothing becomes U+FFFD, an unknown charset is guessed.
//! The Japanese ones are what is really sent under their names: ISO-2022-JP with half-width kana and
//! the NEC and IBM rows (CP50221), Shift_JIS as Windows-31J, EUC-JP with the same extensions.

use encoding_rs::{
    EUC_JP, Encoding, ISO_2022_JP, REPLACEMENT, SHIFT_JIS, UTF_8, WINDOWS_1252, X_USER_DEFINED,
};

/// The text of `bytes` in the charset called `label`.
pub fn decode(label: &[u8], bytes: &[u8]) -> String {
    if is_ascii_label(label) {
        return guess(bytes);
    }
    match encoding(label) {
        Some(encoding) if encoding == ISO_2022_JP => encoding
            .decode_without_bom_handling(&tidy_escapes(bytes))
            .0
            .into(),
        Some(encoding) => encoding
            .decode_without_bom_handling(strip_bom(encoding, bytes))
            .0
            .into(),
        None => guess(bytes),
    }
}

/// Whether `label` names a charset that we can decode.
pub fn is_known(label: &[u8]) -> bool {
    is_ascii_label(label) || encoding(label).is_some()
}

/// `text` in the charset called `label`; `None` when a character does not exist there, or for a
/// charset we do not write.
pub fn encode(label: &[u8], text: &str) -> Option<Vec<u8>> {
    if is_ascii_label(label) {
        return text.is_ascii().then(|| text.into());
    }
    let encoding = encoding(label)?;
    if encoding.output_encoding() != encoding {
        return None;
    }
    let attempt = |text: &str| {
        let (bytes, _, unmappable) = encoding.encode(text);
        (!unmappable).then(|| bytes.into_owned())
    };
    // Wave dash and minus have two code points each; Windows' table knows the other one.
    attempt(text).or_else(|| {
        let other = |c| match c {
            '\u{301C}' => '\u{FF5E}',
            '\u{2212}' => '\u{FF0D}',
            '\u{2016}' => '\u{2225}',
            _ => c,
        };
        attempt(&text.chars().map(other).collect::<String>())
    })
}

/// The text of bytes whose charset nobody said: ISO-2022-JP by its escapes, UTF-8 if it is valid,
/// EUC-JP or Shift_JIS if that gives kana, else windows-1252, which loses nothing of Latin-1.
pub fn guess(bytes: &[u8]) -> String {
    if has_escape(bytes) {
        let tidy = tidy_escapes(bytes);
        let (text, broken) = ISO_2022_JP.decode_without_bom_handling(&tidy);
        if !broken {
            return text.into();
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    for encoding in [EUC_JP, SHIFT_JIS] {
        if let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(bytes)
            && text.chars().any(|c| matches!(c, '\u{3041}'..='\u{30FE}'))
        {
            return text.into();
        }
    }
    WINDOWS_1252.decode_without_bom_handling(bytes).0.into()
}

/// What the Encoding Standard calls errors and real ISO-2022-JP has: an escape with nothing before the
/// next one (joined encoded words), a line that ends without going back to ASCII.
fn tidy_escapes(bytes: &[u8]) -> Vec<u8> {
    let mut tidy = Vec::with_capacity(bytes.len() + 16);
    let mut rest = bytes;
    let mut ascii = true;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (0x1b, [b'$' | b'(', _, 0x1b, ..]) => rest = after.get(2..).unwrap_or_default(),
            (0x1b, [b'(', b'B', ..]) if tidy.is_empty() => {
                rest = after.get(2..).unwrap_or_default();
            }
            (0x1b, [kind, set, ..]) => {
                ascii = (*kind, *set) == (b'(', b'B');
                tidy.push(byte);
            }
            (b'\r' | b'\n', _) if !ascii => {
                tidy.extend_from_slice(b"\x1b(B");
                tidy.push(byte);
                ascii = true;
            }
            _ => tidy.push(byte),
        }
    }
    tidy
}

/// ESC $ or ESC ( followed by what ISO-2022-JP uses.
fn has_escape(bytes: &[u8]) -> bool {
    memchr::memchr_iter(0x1b, bytes).any(|at| {
        matches!(
            bytes.get(at + 1..at + 3),
            Some(b"$@" | b"$B" | b"$(" | b"(J" | b"(I")
        )
    })
}

fn is_ascii_label(label: &[u8]) -> bool {
    let label = label.trim_ascii();
    [&b"us-ascii"[..], b"ascii", b"ansi_x3.4-1968", b"646", b""]
        .iter()
        .any(|name| label.eq_ignore_ascii_case(name))
}

/// Names that mail uses beyond the labels of the Encoding Standard.
const MORE: &[(&str, &Encoding)] = &[
    ("cp50220", ISO_2022_JP),
    ("cp50221", ISO_2022_JP),
    ("cp50222", ISO_2022_JP),
    ("iso-2022-jp-1", ISO_2022_JP),
    ("iso-2022-jp-2", ISO_2022_JP),
    ("iso-2022-jp-3", ISO_2022_JP),
    ("iso-2022-jp-ms", ISO_2022_JP),
    ("cp932", SHIFT_JIS),
    ("shift-jisx0213", SHIFT_JIS),
    ("cp51932", EUC_JP),
    ("eucjp-ms", EUC_JP),
    ("eucjp", EUC_JP),
    ("utf8mb4", UTF_8),
    ("utf-8-mac", UTF_8),
];

fn encoding(label: &[u8]) -> Option<&'static Encoding> {
    let label = label.trim_ascii();
    let known = Encoding::for_label(label).filter(|e| *e != REPLACEMENT && *e != X_USER_DEFINED);
    known.or_else(|| {
        let more = MORE
            .iter()
            .find(|(name, _)| label.eq_ignore_ascii_case(name.as_bytes()));
        more.map(|(_, encoding)| *encoding)
    })
}

fn strip_bom<'a>(encoding: &'static Encoding, bytes: &'a [u8]) -> &'a [u8] {
    match Encoding::for_bom(bytes) {
        Some((found, length)) if found == encoding => bytes.get(length..).unwrap_or_default(),
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes() {
        let table: &[(&str, &[u8], &str)] = &[
            ("utf-8", "あ".as_bytes(), "あ"),
            ("UTF-8", b"\xef\xbb\xbfa", "a"),
            ("ISO-2022-JP", b"\x1b$B$\"\x1b(B!", "あ!"),
            // circled 1 of NEC row 13, ㈱, and half-width kana: what CP50221 adds
            ("iso-2022-jp", b"\x1b$B-!-j\x1b(I1\x1b(B", "①㈱ｱ"),
            ("cp50221", b"\x1b$B-!", "①"),
            ("iso-2022-jp", b"\x1b$B$\"\x1b(B\x1b$B$$\r\nx", "あい\r\nx"),
            ("Shift_JIS", b"\x82\xa0\x87\x40\xb1", "あ①ｱ"),
            ("cp932", b"\x82\xa0", "あ"),
            ("EUC-JP", b"\xa4\xa2", "あ"),
            ("iso-8859-1", b"caf\xe9", "café"),
            ("us-ascii", b"caf\xe9", "café"),
            ("us-ascii", "あ".as_bytes(), "あ"),
            ("x-unknown", b"caf\xe9", "café"),
            ("", b"\x1b$B$\"\x1b(B", "あ"),
        ];
        for (label, bytes, want) in table {
            assert_eq!(decode(label.as_bytes(), bytes), *want, "{label}");
        }
    }

    #[test]
    fn guesses() {
        let table: &[(&[u8], &str)] = &[
            (b"plain", "plain"),
            (b"\xa4\xb3\xa4\xf3", "こん"),
            (b"\x82\xb1\x82\xf1", "こん"),
            (b"na\xefve r\xe9sum\xe9", "naïve résumé"),
        ];
        for (bytes, want) in table {
            assert_eq!(guess(bytes), *want);
        }
    }

    #[test]
    fn encodes_what_fits() {
        assert_eq!(encode(b"iso-2022-jp", "あ").unwrap(), b"\x1b$B$\"\x1b(B");
        assert_eq!(encode(b"iso-2022-jp", "〜").unwrap(), b"\x1b$B!A\x1b(B");
        assert_eq!(encode(b"iso-2022-jp", "😀"), None);
        assert_eq!(encode(b"us-ascii", "é"), None);
        assert_eq!(encode(b"no-such", "a"), None);
    }
}
