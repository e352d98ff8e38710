//! A Maildir's file in the form in which it is served.

use crate::lines::{Event, Lines};

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
