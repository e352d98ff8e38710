//! Content-Transfer-Encoding (RFC 2045 6): base64 and quoted-printable, both ways.
//!
//! The decoders take the text in pieces of any size, keep only a few bytes between them, and never
//! fail: what is no part of the encoding is passed over (base64) or kept as it is (quoted-printable).

/// What stands in Content-Transfer-Encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// 7bit, 8bit, binary, and whatever we do not know: bytes as they are.
    Identity,
    Base64,
    QuotedPrintable,
}

impl Encoding {
    /// From the field's value, any case.
    pub fn parse(value: &[u8]) -> Self {
        let value = value.trim_ascii();
        if value.eq_ignore_ascii_case(b"base64") {
            Self::Base64
        } else if value.eq_ignore_ascii_case(b"quoted-printable") {
            Self::QuotedPrintable
        } else {
            Self::Identity
        }
    }

    /// A decoder that starts at the beginning of a body.
    pub fn decoder(self) -> Decoder {
        match self {
            Self::Identity => Decoder::Identity,
            Self::Base64 => Decoder::Base64(Base64::default()),
            Self::QuotedPrintable => Decoder::QuotedPrintable(QuotedPrintable::default()),
        }
    }

    /// A whole body at once.
    pub fn decode(self, body: &[u8]) -> Vec<u8> {
        let mut plain = Vec::with_capacity(body.len());
        let mut decoder = self.decoder();
        decoder.feed(body, &mut plain);
        decoder.finish(&mut plain);
        plain
    }
}

/// Decodes a body piece by piece.
#[derive(Debug)]
pub enum Decoder {
    Identity,
    Base64(Base64),
    QuotedPrintable(QuotedPrintable),
}

impl Decoder {
    /// Appends what `text` decodes to: never more bytes than were fed.
    pub fn feed(&mut self, text: &[u8], plain: &mut Vec<u8>) {
        match self {
            Self::Identity => plain.extend_from_slice(text),
            Self::Base64(state) => text.iter().for_each(|b| state.byte(*b, plain)),
            Self::QuotedPrintable(state) => text.iter().for_each(|b| state.byte(*b, plain)),
        }
    }

    /// Appends what was held back.
    pub fn finish(&mut self, plain: &mut Vec<u8>) {
        match self {
            Self::Identity => {}
            Self::Base64(state) => state.flush(plain),
            Self::QuotedPrintable(state) => state.finish(plain),
        }
    }
}

/// RFC 2045 6.8. Padding ends a quantum and another may follow, as in concatenated encodings.
#[derive(Debug, Default)]
pub struct Base64 {
    bits: u32,
    symbols: u8,
}

impl Base64 {
    fn byte(&mut self, byte: u8, plain: &mut Vec<u8>) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => return self.flush(plain),
            _ => return,
        };
        self.bits = self.bits << 6 | u32::from(value);
        self.symbols += 1;
        if self.symbols == 4 {
            let [_, a, b, c] = self.bits.to_be_bytes();
            plain.extend_from_slice(&[a, b, c]);
            *self = Self::default();
        }
    }

    fn flush(&mut self, plain: &mut Vec<u8>) {
        let [_, a, b, _] = (self.bits << (6 * (4 - u32::from(self.symbols.min(4))))).to_be_bytes();
        match self.symbols {
            2 => plain.push(a),
            3 => plain.extend_from_slice(&[a, b]),
            _ => {}
        }
        *self = Self::default();
    }
}

/// RFC 2045 6.7. White space at the end of a line is dropped (rule 3), `=` there joins lines.
#[derive(Debug, Default)]
pub struct QuotedPrintable {
    /// White space that may turn out to end the line; a flood of it is text.
    blanks: Vec<u8>,
    escape: Escape,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// `=` was read.
    Start,
    /// `=` and white space: a soft break if only more of it follows.
    Blank,
    /// `=` CR was read.
    Cr,
    /// `=` and this hexadecimal digit.
    Digit(u8),
}

impl QuotedPrintable {
    fn byte(&mut self, byte: u8, plain: &mut Vec<u8>) {
        match (std::mem::take(&mut self.escape), byte) {
            (Escape::None, b'=') => {
                plain.append(&mut self.blanks);
                self.escape = Escape::Start;
            }
            (Escape::None, b' ' | b'\t') if self.blanks.len() < 998 => self.blanks.push(byte),
            (Escape::None, b'\r' | b'\n') => {
                self.blanks.clear();
                plain.push(byte);
            }
            (Escape::None, _) => {
                plain.append(&mut self.blanks);
                plain.push(byte);
            }
            (Escape::Start | Escape::Blank | Escape::Cr, b'\n') => {}
            (Escape::Start | Escape::Blank, b'\r') => self.escape = Escape::Cr,
            (Escape::Start | Escape::Blank, b' ' | b'\t') => self.escape = Escape::Blank,
            (Escape::Start, _) if byte.is_ascii_hexdigit() => self.escape = Escape::Digit(byte),
            (Escape::Start | Escape::Blank, _) => {
                plain.push(b'=');
                self.byte(byte, plain);
            }
            (Escape::Cr, _) => self.byte(byte, plain),
            (Escape::Digit(high), low) => match (hex(high), hex(low)) {
                (Some(h), Some(l)) => plain.push(h << 4 | l),
                _ => {
                    plain.extend_from_slice(&[b'=', high]);
                    self.byte(byte, plain);
                }
            },
        }
    }

    fn finish(&mut self, plain: &mut Vec<u8>) {
        if let Escape::Digit(high) = self.escape {
            plain.extend_from_slice(&[b'=', high]);
        }
        *self = Self::default();
    }
}

/// The value of a hexadecimal digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|v| u8::try_from(v).ok())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 on one line, padded.
pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap_or(0);
            let symbol = ALPHABET.get(index).copied().unwrap_or(b'A');
            text.push(if at > chunk.len() {
                '='
            } else {
                char::from(symbol)
            });
        }
    }
    text
}

/// Base64 as a body: lines of 76 ended by `eol`.
pub fn base64_lines(bytes: &[u8], eol: &str) -> String {
    let mut text = String::with_capacity(bytes.len() / 57 * 78 + 80);
    for chunk in bytes.chunks(57) {
        text.push_str(&base64(chunk));
        text.push_str(eol);
    }
    text
}

/// Quoted-printable of a text whose lines end in LF or CRLF; each ends in `eol` in the result.
pub fn quoted_printable(text: &[u8], eol: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + text.len() / 8);
    for line in text.split_inclusive(|b| *b == b'\n') {
        let (content, end) = match line.strip_suffix(b"\n") {
            Some(content) => (content.strip_suffix(b"\r").unwrap_or(content), eol),
            None => (line, ""),
        };
        let mut column = 0;
        for (at, &byte) in content.iter().enumerate() {
            let last = at + 1 == content.len();
            let plain = match byte {
                b' ' | b'\t' => !last,
                // Some transports harm a leading dot or `From `.
                b'.' | b'F' => column != 0,
                33..=126 => byte != b'=',
                _ => false,
            };
            let width = if plain { 1 } else { 3 };
            if column + width > if last { 76 } else { 75 } {
                encoded.push('=');
                encoded.push_str(eol);
                column = 0;
            }
            if plain {
                encoded.push(char::from(byte));
            } else {
                encoded.push_str(&format!("={byte:02X}"));
            }
            column += width;
        }
        encoded.push_str(end);
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_decodes() {
        let table: &[(&str, &str)] = &[
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9v\r\nYmFy", "foobar"),
            ("Z m*8", "fo"),
            ("Zg==Zm8=", "ffo"),
            ("Z", ""),
            ("====", ""),
        ];
        for (text, want) in table {
            assert_eq!(
                Encoding::Base64.decode(text.as_bytes()),
                want.as_bytes(),
                "{text}"
            );
        }
    }

    #[test]
    fn quoted_printable_decodes() {
        let table: &[(&str, &[u8])] = &[
            ("a=3Db", b"a=b"),
            ("a=3db", b"a=b"),
            ("soft=\r\nbreak", b"softbreak"),
            ("soft=  \r\nbreak", b"softbreak"),
            ("soft=\nbreak", b"softbreak"),
            ("trailing  \t\r\nnext", b"trailing\r\nnext"),
            ("kept  x", b"kept  x"),
            ("bad=ZZ =4", b"bad=ZZ =4"),
            ("=E3=81=82", "あ".as_bytes()),
            ("end=", b"end"),
        ];
        for (text, want) in table {
            let found = Encoding::QuotedPrintable.decode(text.as_bytes());
            assert_eq!(found, *want, "{text}: {}", found.escape_ascii());
        }
    }

    #[test]
    fn any_split_decodes_the_same() {
        let text = b"a=3Db =\r\n c  \r\n=E3=81=82=x";
        let whole = Encoding::QuotedPrintable.decode(text);
        for cut in 0..text.len() {
            let mut plain = Vec::new();
            let mut decoder = Encoding::QuotedPrintable.decoder();
            decoder.feed(&text[..cut], &mut plain);
            decoder.feed(&text[cut..], &mut plain);
            decoder.finish(&mut plain);
            assert_eq!(plain, whole, "{cut}");
        }
    }

    #[test]
    fn round_trips() {
        let all: Vec<u8> = (0..=255).collect();
        for length in 0..=all.len() {
            let bytes = &all[..length];
            assert_eq!(
                Encoding::Base64.decode(base64_lines(bytes, "\r\n").as_bytes()),
                bytes
            );
        }
        let text = "From me \r\n.dot=\r\n\u{3042}".repeat(9) + &"x".repeat(200) + " ";
        let encoded = quoted_printable(text.as_bytes(), "\r\n");
        assert!(
            encoded.split("\r\n").all(|line| line.len() <= 76),
            "{encoded}"
        );
        assert_eq!(
            Encoding::QuotedPrintable.decode(encoded.as_bytes()),
            text.as_bytes()
        );
    }
}
