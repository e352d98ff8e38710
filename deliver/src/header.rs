//! The trace of the last hop: Return-Path and Delivered-To in front of a message, and the look for
//! our own Delivered-To in it, which is how a circle through other hosts or programs is found.
//!
//! Guarantees: exactly one Return-Path (RFC 5321 4.4), all other octets as they came. Only the
//! first [`MAX`] octets are looked at. Pure.

use std::io::{self, Read};

use base::{Address, ReversePath};

/// How much of a message is held in memory to look at its header.
const MAX: u64 = 256 << 10;

/// The header section of a message, as far as [`MAX`], and whatever was read beyond it.
#[derive(Debug)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    /// Where the body begins in `bytes`, or their end.
    end: usize,
}

impl Head {
    /// Reads the beginning of a message; what is not read yet stays in `content`.
    pub(crate) fn read(content: &mut impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        content.take(MAX).read_to_end(&mut bytes)?;
        let end = fields(&bytes).last().map_or(0, |f| f.end);
        Ok(Self { bytes, end })
    }

    /// How many octets of the message are in here.
    pub(crate) fn length(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }

    /// Whether this message was delivered to `address` before.
    pub(crate) fn was_delivered_to(&self, address: &Address) -> bool {
        fields(&self.bytes)
            .filter(|f| f.is(&self.bytes, b"Delivered-To"))
            .any(|f| {
                let value = f.value(&self.bytes).trim_ascii();
                let value = value
                    .strip_prefix(b"<")
                    .and_then(|v| v.strip_suffix(b">"))
                    .unwrap_or(value);
                std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| Address::parse(text).ok())
                    .is_some_and(|a| {
                        a.domain() == address.domain() && a.local().fold() == address.local().fold()
                    })
            })
    }

    /// What stands in front of the rest of the content: our two fields, then the message's own
    /// without any Return-Path.
    pub(crate) fn with_trace(&self, reverse_path: &ReversePath, to: &Address) -> Vec<u8> {
        let mut out = format!("Return-Path: <{reverse_path}>\r\n").into_bytes();
        out.extend_from_slice(&self.with_delivered_to(to));
        out
    }

    /// The same with Delivered-To only: for a message that goes on to others.
    pub(crate) fn with_delivered_to(&self, to: &Address) -> Vec<u8> {
        let mut out = format!("Delivered-To: {to}\r\n").into_bytes();
        out.reserve(self.bytes.len());
        for field in fields(&self.bytes).filter(|f| !f.is(&self.bytes, b"Return-Path")) {
            out.extend_from_slice(self.bytes.get(field.start..field.end).unwrap_or_default());
        }
        out.extend_from_slice(self.bytes.get(self.end..).unwrap_or_default());
        out
    }
}

/// One field, with its continuation lines and line ends.
struct Field {
    start: usize,
    /// Where its name ends.
    colon: usize,
    end: usize,
}

impl Field {
    fn is(&self, bytes: &[u8], name: &[u8]) -> bool {
        let own = bytes.get(self.start..self.colon).unwrap_or_default();
        own.trim_ascii_end().eq_ignore_ascii_case(name)
    }

    fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes
            .get(self.colon.saturating_add(1)..self.end)
            .unwrap_or_default()
    }
}

/// The complete fields at the beginning: they end at the empty line, or at the first line that is
/// neither a field nor its continuation.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Field> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let mut end = line_end(bytes, start)?;
        let line = bytes.get(start..end)?;
        let colon = line.iter().position(|b| *b == b':')?;
        let name = line.get(..colon)?.trim_ascii_end();
        if name.is_empty() || !name.iter().all(|b| (0x21..=0x7e).contains(b)) {
            return None;
        }
        while matches!(bytes.get(end), Some(b' ' | b'\t')) {
            end = line_end(bytes, end)?;
        }
        at = end;
        Some(Field {
            start,
            colon: start.saturating_add(colon),
            end,
        })
    })
}

/// Behind the line feed of the line that begins at `start`.
fn line_end(bytes: &[u8], start: usize) -> Option<usize> {
    let length = bytes.get(start..)?.iter().position(|b| *b == b'\n')?;
    start.checked_add(length)?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(s: &str) -> Address {
        Address::parse(s).unwrap()
    }

    fn head(text: &[u8]) -> Head {
        Head::read(&mut &*text).unwrap()
    }

    #[test]
    fn finds_its_own_mark_in_the_header_only() {
        let table: [(&[u8], bool); 12] = [
            (b"Delivered-To: ann@x\r\n\r\n", true),
            (b"A: b\r\ndelivered-to :\r\n <Ann@X>\r\n\r\n", true),
            (b"Delivered-To: bob@x\r\nDelivered-To: ann@x\r\n\r\n", true),
            (b"Delivered-To: \"ann\"@x\r\n\r\n", true),
            (b"Delivered-To: ann@y\r\n\r\n", false),
            (b"Delivered-To: ann+d@x\r\n\r\n", false),
            (b"X-Delivered-To: ann@x\r\n\r\n", false),
            (b"A: b\r\n\r\nDelivered-To: ann@x\r\n", false),
            (b"not a field\r\nDelivered-To: ann@x\r\n", false),
            (b"A: b\r\n Delivered-To: ann@x\r\n\r\n", false),
            (b"", false),
            (b"Delivered-To: ann@x", false),
        ];
        for (text, want) in table {
            assert_eq!(
                head(text).was_delivered_to(&address("ann@x")),
                want,
                "{text:?}"
            );
        }
    }

    #[test]
    fn there_is_exactly_one_return_path_and_nothing_else_changes() {
        let from = ReversePath::Address(address("s@y"));
        let table: [(&[u8], &[u8]); 5] = [
            (b"A: b\r\n\r\nbody\r\n", b"A: b\r\n\r\nbody\r\n"),
            (
                b"return-path: <x@y>\r\n folded\r\nA: b\r\n\r\nReturn-Path: <>\r\n",
                b"A: b\r\n\r\nReturn-Path: <>\r\n",
            ),
            (b"A: b\r\nReturn-Path: <x@y>\r\n", b"A: b\r\n"),
            (b"\r\nbody", b"\r\nbody"),
            (b"no header\nat all", b"no header\nat all"),
        ];
        for (text, rest) in table {
            let mut want = b"Return-Path: <s@y>\r\nDelivered-To: ann@x\r\n".to_vec();
            want.extend_from_slice(rest);
            assert_eq!(head(text).with_trace(&from, &address("ann@x")), want);
        }
        let null = head(b"").with_trace(&ReversePath::Null, &address("ann@x"));
        assert!(null.starts_with(b"Return-Path: <>\r\n"));
    }

    #[test]
    fn a_long_message_stays_in_the_reader() {
        let mut text = b"A: b\r\n\r\n".to_vec();
        text.resize(600_000, b'x');
        let mut rest = &*text;
        let head = Head::read(&mut rest).unwrap();
        let mut all = head.with_delivered_to(&address("a@b"));
        all.extend_from_slice(rest);
        assert_eq!(all, [b"Delivered-To: a@b\r\n".as_slice(), &text].concat());
    }
}
