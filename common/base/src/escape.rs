//! Bytes that a peer, a file or a user wrote, made fit for one line of a log or a terminal.

use std::fmt;

/// Displays bytes with every control character, backslash and non-UTF-8 byte as `\xNN`, so that
/// nothing a peer says can end a log line or move a terminal's cursor. At most `LIMIT` bytes.
pub struct Escaped<'a>(&'a [u8]);

/// How many bytes of a peer's words a log line shows.
pub const LIMIT: usize = 512;

/// `log::info!("from={}", escape(bytes))`
pub fn escape<B: AsRef<[u8]> + ?Sized>(bytes: &B) -> Escaped<'_> {
    Escaped(bytes.as_ref())
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, cut) = match self.0.get(..LIMIT) {
            Some(head) if self.0.len() > LIMIT => (head, true),
            _ => (self.0, false),
        };
        for chunk in shown.utf8_chunks() {
            for c in chunk.valid().chars() {
                if is_control(c) || c == '\\' {
                    let mut buf = [0; 4];
                    for b in c.encode_utf8(&mut buf).bytes() {
                        write!(f, "\\x{b:02x}")?;
                    }
                } else {
                    fmt::Write::write_char(f, c)?;
                }
            }
            for b in chunk.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        if cut { f.write_str("...") } else { Ok(()) }
    }
}

/// C0, C1, DEL, and the Unicode characters that break lines or turn the writing direction.
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_and_no_broken_utf8_gets_through() {
        assert_eq!(escape(b"a\r\nb\x1b[0m").to_string(), "a\\x0d\\x0ab\\x1b[0m");
        assert_eq!(
            escape("件名\u{202e}".as_bytes()).to_string(),
            "件名\\xe2\\x80\\xae"
        );
        assert_eq!(escape(b"\xff\\").to_string(), "\\xff\\x5c");
        assert!(escape(&vec![b'x'; 600]).to_string().ends_with("x..."));
    }
}
