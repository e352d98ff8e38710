//! A Maildir's file in the form in which it is served.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::lines::{Event, Lines};
use crate::session::header_in;

/// Of a file of which only the header is wanted.
const HEADER: usize = 16 << 10;

/// A file, or only its header, as it is served; `None` if that has more than `room` octets, or a
/// header is not found in the first of them.
pub(super) fn small(
    file: &File,
    size: u64,
    headers: bool,
    room: usize,
) -> io::Result<Option<Vec<u8>>> {
    let stored = usize::try_from(size).unwrap_or(usize::MAX);
    let length = if headers { stored.min(HEADER) } else { stored };
    if !headers && length > room {
        return Ok(None);
    }
    let mut raw = vec![0; length];
    let mut have = 0;
    while let Some(space) = raw.get_mut(have..).filter(|space| !space.is_empty()) {
        match file.read_at(space, have as u64) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    raw.truncate(have);
    let mut served = with_crlf(&raw);
    if headers {
        let header = header_in(&served);
        if header == served.len() && length < stored {
            return Ok(None);
        }
        served.truncate(header);
    }
    Ok((served.len() <= room).then_some(served))
}

/// What [`Wire`] makes of it, for octets that are all there.
fn with_crlf(raw: &[u8]) -> Vec<u8> {
    let lines = memchr::memchr_iter(b'\n', raw);
    let mut out = Vec::with_capacity(raw.len() + lines.clone().count());
    let mut copied = 0;
    for at in lines {
        let line = raw.get(copied..at).unwrap_or_default();
        out.extend_from_slice(line);
        if !line.ends_with(b"\r") {
            out.push(b'\r');
        }
        out.push(b'\n');
        copied = at + 1;
    }
    out.extend_from_slice(raw.get(copied..).unwrap_or_default());
    out
}

/// LF line ends made CRLF; those that are CRLF already stay.
#[derive(Default)]
pub(super) struct Wire {
    lines: Lines,
    out: Vec<u8>,
    count: u64,
    in_body: bool,
    blank: bool,
    /// Octets of the header with its empty line.
    pub(super) header_size: u64,
}

impl Wire {
    pub(super) fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        self.out.reserve(piece.len() + piece.len() / 16);
        self.run(|lines, sink| lines.feed(piece, sink))
    }

    pub(super) fn finish(&mut self) -> Vec<u8> {
        self.run(|lines, sink| lines.finish(sink))
    }

    fn run(&mut self, with: impl FnOnce(&mut Lines, &mut dyn FnMut(Event<'_>))) -> Vec<u8> {
        let mut lines = std::mem::take(&mut self.lines);
        with(&mut lines, &mut |event| match event {
            Event::Head(head) => {
                self.blank = head.is_empty();
                self.out.extend_from_slice(head);
            }
            Event::Rest(rest) => self.out.extend_from_slice(rest),
            Event::End(eol) => {
                if eol.len() > 0 {
                    self.out.extend_from_slice(b"\r\n");
                }
                if !self.in_body {
                    self.header_size = self.count + self.out.len() as u64;
                    self.in_body = self.blank;
                }
            }
        });
        self.lines = lines;
        self.count += self.out.len() as u64;
        std::mem::take(&mut self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_give_the_same() {
        for (raw, served) in [
            ("", ""),
            ("\n", "\r\n"),
            ("a", "a"),
            ("a\r", "a\r"),
            ("a\n\nb\r\n\r\r\n\rc\n\n", "a\r\n\r\nb\r\n\r\r\n\rc\r\n\r\n"),
        ] {
            assert_eq!(with_crlf(raw.as_bytes()), served.as_bytes(), "{raw:?}");
            let mut wire = Wire::default();
            let mut out = Vec::new();
            for piece in raw.as_bytes().chunks(1) {
                out.extend(wire.feed(piece));
            }
            out.extend(wire.finish());
            assert_eq!(out, served.as_bytes(), "{raw:?}");
        }
    }
}
