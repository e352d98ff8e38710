//! Framing of lines, shared by all protocols: only CRLF ends a line, and a line has a maximum.
//!
//! A bare CR or a bare LF is never an end, because two programs that disagree about it can be made
//! to see different messages (SMTP smuggling). It is reported; the protocol says what it thinks of
//! it. Grammar is the protocol's: here nothing but the two octets counts.

/// What stands at the front of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its CRLF, and how many bytes to consume with it.
    Complete(&'a [u8], usize),
    /// No line end yet, and the maximum is not reached: call again with more.
    Partial,
    /// More than the maximum without a line end. Consume these many bytes; then either close, or
    /// go on by [`skip`].
    TooLong(usize),
    /// A CR that no LF follows, inside the line. The number reaches behind it.
    BareCr(usize),
    /// A LF that no CR precedes. The number reaches behind it.
    BareLf(usize),
}

/// Looks for a line of at most `max` octets, its CRLF included (RFC 5321 4.5.3.1.4 counts so).
pub fn next(bytes: &[u8], max: usize) -> Line<'_> {
    let window = bytes.get(..max).unwrap_or(bytes);
    match memchr::memchr2(b'\r', b'\n', window) {
        Some(at) if window.get(at) == Some(&b'\n') => Line::BareLf(at.saturating_add(1)),
        Some(at) => match window.get(at.saturating_add(1)) {
            Some(b'\n') => {
                Line::Complete(window.get(..at).unwrap_or_default(), at.saturating_add(2))
            }
            Some(_) => Line::BareCr(at.saturating_add(1)),
            None if window.len() < max => Line::Partial,
            None => Line::TooLong(at),
        },
        None if window.len() < max => Line::Partial,
        None => Line::TooLong(window.len()),
    }
}

/// How an over-long line goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// These many bytes end it, CRLF included.
    Ended(usize),
    /// These many bytes belong to it, and there is more to come.
    More(usize),
}

/// Throws away up to the next CRLF, however far that is. A CR at the very end is kept for the next
/// call, because its LF may follow.
pub fn skip(bytes: &[u8]) -> Skip {
    match memchr::memmem::find(bytes, b"\r\n") {
        Some(at) => Skip::Ended(at.saturating_add(2)),
        None if bytes.ends_with(b"\r") => Skip::More(bytes.len().saturating_sub(1)),
        None => Skip::More(bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crlf_ends_a_line() {
        let table: &[(&[u8], Line<'_>)] = &[
            (b"", Line::Partial),
            (b"NOOP", Line::Partial),
            (b"NOOP\r", Line::Partial),
            (b"NOOP\r\n", Line::Complete(b"NOOP", 6)),
            (b"\r\n", Line::Complete(b"", 2)),
            (b"NOOP\r\nQUIT\r\n", Line::Complete(b"NOOP", 6)),
            (b"NOOP\n", Line::BareLf(5)),
            (b"NOOP\rQ", Line::BareCr(5)),
            (b"NOOP\r\r\n", Line::BareCr(5)),
            (b"NOOP\n\r\n", Line::BareLf(5)),
            (b"12345678", Line::TooLong(8)),
            (b"123456\r\n", Line::Complete(b"123456", 8)),
            (b"1234567\r\n", Line::TooLong(7)),
            (b"123456789012\r\n", Line::TooLong(8)),
        ];
        for (input, want) in table {
            assert_eq!(next(input, 8), *want, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn skipping_keeps_a_cr_that_may_be_half_an_end() {
        assert_eq!(skip(b"abc"), Skip::More(3));
        assert_eq!(skip(b"abc\r"), Skip::More(3));
        assert_eq!(skip(b"\r"), Skip::More(0));
        assert_eq!(skip(b"abc\r\nNOOP"), Skip::Ended(5));
        assert_eq!(skip(b"a\rb\nc\r\n"), Skip::Ended(7));
    }
}
