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
    let mut wire = Wire::default();
    let mut served = wire.feed(&raw);
    served.extend(wire.finish());
    if headers {
        let header = header_in(&served);
        if header == served.len() && length < stored {
            return Ok(None);
        }
        served.truncate(header);
    }
    Ok((served.len() <= room).then_some(served))
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
