//! Where a header ends, and its fields (RFC 5322 2.2), as ranges of the message's own bytes.
//!
//! Nothing is refused: a line that is no field (no colon, a mbox `From ` line) belongs to no field
//! and is passed over. The end of the header is the first empty line, whatever stands before it.

use std::ops::Range;

use memchr::{memchr, memchr_iter};

/// The most bytes of one unfolded value that are looked at.
pub const MAX_VALUE: usize = 1 << 20;

/// The offset of the first byte of the body: behind the empty line, or the length of the message when
/// there is none.
pub fn body_start(message: &[u8]) -> usize {
    let mut at = 0;
    for newline in memchr_iter(b'\n', message) {
        let line = message.get(at..newline).unwrap_or_default();
        at = newline + 1;
        if matches!(line, b"" | b"\r") {
            return at;
        }
    }
    message.len()
}

/// Header (with the empty line that ends it) and body.
pub fn split(message: &[u8]) -> (&[u8], &[u8]) {
    message.split_at(body_start(message).min(message.len()))
}

/// One field of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// Before the colon, without white space.
    pub name: &'a [u8],
    /// Behind the colon up to the end of the last continuation line, with its line ends.
    pub raw: &'a [u8],
    /// All of it in the header that was given: name, colon, value, line end.
    pub range: Range<usize>,
}

impl Field<'_> {
    /// Whether this is the field `name`, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value on one line: line ends removed (RFC 5322 2.2.3), outer white space trimmed.
    pub fn value(&self) -> Vec<u8> {
        unfold(self.raw)
    }
}

/// `value` without line ends and outer white space, at most [`MAX_VALUE`] bytes of it.
pub fn unfold(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(value.len().min(MAX_VALUE));
    for &byte in value.iter().take(MAX_VALUE) {
        if !matches!(byte, b'\r' | b'\n' | 0) {
            plain.push(byte);
        }
    }
    plain.trim_ascii().to_vec()
}

/// The fields of a header in their order.
pub fn fields(header: &[u8]) -> Fields<'_> {
    Fields { header, at: 0 }
}

/// The first field called `name`.
pub fn first<'a>(header: &'a [u8], name: &str) -> Option<Field<'a>> {
    fields(header).find(|field| field.is(name))
}

/// The unfolded value of the first field called `name`.
pub fn value(header: &[u8], name: &str) -> Option<Vec<u8>> {
    first(header, name).map(|field| field.value())
}

/// See [`fields`].
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    header: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        loop {
            let start = self.at;
            let rest = self.header.get(start..)?;
            let mut end = line_end(rest)?;
            if matches!(rest.get(..end)?, b"\n" | b"\r\n") {
                self.at = self.header.len();
                return None;
            }
            while let Some(b' ' | b'\t') = rest.get(end) {
                let more = rest.get(end..)?;
                let Some(length) = line_end(more) else { break };
                // A continuation that is only white space and a line end still continues.
                end += length;
            }
            self.at = start + end;
            let text = rest.get(..end)?;
            if let Some((name, raw)) = split_name(text) {
                return Some(Field {
                    name,
                    raw,
                    range: start..start + end,
                });
            }
        }
    }
}

/// The length of the first line with its line end; `None` when nothing is left.
fn line_end(text: &[u8]) -> Option<usize> {
    match memchr(b'\n', text) {
        Some(newline) => Some(newline + 1),
        None if text.is_empty() => None,
        None => Some(text.len()),
    }
}

/// RFC 5322 3.6.8: `field-name = 1*ftext`; white space before the colon is the obsolete form (4.5).
fn split_name(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, raw) = line.split_at_checked(memchr(b':', line)?)?;
    let name = name.trim_ascii_end();
    let printable = !name.is_empty() && name.iter().all(|b| matches!(b, 33..=126));
    printable.then(|| (name, raw.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_ends_at_the_first_empty_line() {
        let table: &[(&[u8], usize)] = &[
            (b"", 0),
            (b"\r\nbody", 2),
            (b"\nbody", 1),
            (b"A: b\r\n\r\nbody", 8),
            (b"A: b\n\nbody\n\n", 6),
            (b"A: b\r\nno end", 12),
            (b"A: b\r\n c\r\n\r\n", 12),
        ];
        for (message, start) in table {
            assert_eq!(body_start(message), *start, "{}", message.escape_ascii());
        }
    }

    #[test]
    fn fields_keep_their_offsets() {
        let header = b"From ann Sun\nA: one\r\n two\r\nnot a field\nB :\tthree\n\nC: body";
        let found: Vec<_> = fields(header)
            .map(|f| (f.name.to_vec(), f.value(), header[f.range.clone()].to_vec()))
            .collect();
        assert_eq!(
            found,
            [
                (
                    b"A".to_vec(),
                    b"one two".to_vec(),
                    b"A: one\r\n two\r\n".to_vec()
                ),
                (b"B".to_vec(), b"three".to_vec(), b"B :\tthree\n".to_vec()),
            ]
        );
        assert_eq!(value(header, "a"), Some(b"one two".to_vec()));
        assert_eq!(first(header, "c"), None);
    }

    #[test]
    fn fields_without_an_end() {
        let header = b"A: 1\r\nB: 2";
        assert_eq!(fields(header).count(), 2);
        assert_eq!(fields(b": nameless\r\nX\x80: 8bit\r\n").count(), 0);
    }
}
