//! A message with binary parts (BINARYMIME, RFC 3030) made one that goes by lines, for a mailbox and
//! for servers that take no other (RFC 3030 3: who cannot pass it on as it is converts it).
//!
//! What comes out has CRLF at the end of its lines and nowhere half of it, no NUL, and decodes to the
//! same octets: a part whose body has something else, or is called binary and has lines longer than
//! RFC 5321 allows, is in base64; one that is only called binary is called 8bit. A multipart or message
//! cannot be encoded itself (RFC 2045 6.4): its parts are, and where they cannot be found it becomes
//! application/octet-stream, and its type stands in X-Original-Content-Type. What is no part's (headers,
//! the text around parts) has spaces for such octets.
//!
//! A signature over the octets of a part (RFC 1847) does not survive it; RFC 1847 2.1 wants such parts
//! sent as 7bit. The message is read twice for the [`Plan`] and once by the [`Converter`], in pieces; what is
//! held of it is what [`crate::scan::Builder`] holds, and the plan of 1000 parts.

mod fields;
mod plan;

use std::io::{self, BufRead, Read};

use crate::encoding::{Decoder, base64};
#[cfg(test)]
use crate::structure::Builder;
use fields::{Fields, tidy};
use plan::Fate;
pub use plan::Plan;

/// Octets that are converted at a time.
const PIECE: u64 = 16 * 1024;
/// Octets in a line of base64: RFC 2045 6.8.
const IN_LINE: usize = 57;

/// The converted message, to be read.
#[derive(Debug)]
pub struct Converter<'a, R> {
    plan: &'a Plan,
    /// Stretches that were begun.
    begun: usize,
    /// Octets of the last one that have not come.
    left: u64,
    work: Work,
    message: R,
    out: Vec<u8>,
    given: usize,
    /// The last two octets that went out.
    last: [u8; 2],
    ended: bool,
}

#[derive(Debug)]
enum Work {
    Keep,
    /// Whether the last octet was a CR.
    Tidy(bool),
    Header(Fields),
    Encode(Encoder),
}

impl<'a, R: BufRead> Converter<'a, R> {
    /// `message` is the one that the plan was made of, at its start.
    pub fn new(plan: &'a Plan, message: R) -> Self {
        Self {
            plan,
            begun: 0,
            left: 0,
            work: Work::Keep,
            message,
            out: Vec::new(),
            given: 0,
            last: [0; 2],
            ended: false,
        }
    }

    /// Makes the next piece.
    fn fill(&mut self) -> io::Result<()> {
        self.out.clear();
        self.given = 0;
        while self.out.is_empty() && !self.ended {
            match self.left {
                0 => self.turn(),
                _ => self.convert()?,
            }
        }
        if let [.., before, last] = self.out[..] {
            self.last = [before, last];
        } else if let [last] = self.out[..] {
            self.last = [self.last[1], last];
        }
        Ok(())
    }

    /// From one stretch to the next.
    fn turn(&mut self) {
        match std::mem::replace(&mut self.work, Work::Keep) {
            Work::Keep | Work::Tidy(false) => (),
            Work::Tidy(true) => self.out.push(b' '),
            Work::Header(fields) => fields.finish(&mut self.out),
            Work::Encode(encoder) => encoder.finish(&mut self.out),
        }
        let Some(stretch) = self.plan.stretches.get(self.begun) else {
            self.ended = true;
            let end = match self.out[..] {
                [.., before, last] => [before, last],
                [last] => [self.last[1], last],
                [] => self.last,
            };
            // Every line of a message ends.
            if end != *b"\r\n" && (end != [0; 2] || !self.out.is_empty()) {
                self.out.extend_from_slice(b"\r\n");
            }
            return;
        };
        self.begun = self.begun.saturating_add(1);
        self.left = stretch.length;
        self.work = match stretch.fate {
            Fate::Keep => Work::Keep,
            Fate::Tidy => Work::Tidy(false),
            Fate::Header(label) => Work::Header(Fields::new(label)),
            Fate::Encode(encoding) => Work::Encode(Encoder::new(encoding.decoder())),
        };
    }

    fn convert(&mut self) -> io::Result<()> {
        let piece = match self.message.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let most = usize::try_from(self.left.min(PIECE)).unwrap_or(usize::MAX);
        let piece = piece.get(..piece.len().min(most)).unwrap_or_default();
        match &mut self.work {
            Work::Keep => self.out.extend_from_slice(piece),
            Work::Tidy(after_cr) => {
                for &byte in piece {
                    tidy(after_cr, byte, |octets| self.out.extend_from_slice(octets));
                }
            }
            Work::Header(fields) => fields.feed(piece, &mut self.out),
            Work::Encode(encoder) => encoder.feed(piece, &mut self.out),
        }
        let n = piece.len();
        self.message.consume(n);
        self.left = self.left.saturating_sub(n as u64);
        Ok(())
    }
}

impl<R: BufRead> Read for Converter<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given >= self.out.len() {
            self.fill()?;
        }
        let n = self.out.get(self.given..).unwrap_or_default().read(into)?;
        self.given = self.given.saturating_add(n);
        Ok(n)
    }
}

/// A header without what ends no line.
pub(crate) fn tidied(header: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.len());
    let mut after_cr = false;
    for &byte in header {
        tidy(&mut after_cr, byte, |octets| out.extend_from_slice(octets));
    }
    out
}

/// A body in base64, without the end of its last line: that belongs to what comes behind it.
#[derive(Debug)]
struct Encoder {
    decoder: Decoder,
    /// Less than a line.
    held: Vec<u8>,
    begun: bool,
}

impl Encoder {
    fn new(decoder: Decoder) -> Self {
        Self {
            decoder,
            held: Vec::new(),
            begun: false,
        }
    }

    fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.decoder.feed(piece, &mut self.held);
        let whole = self.held.len() - self.held.len() % IN_LINE;
        let rest = self.held.split_off(whole);
        let lines = std::mem::replace(&mut self.held, rest);
        self.write(&lines, out);
    }

    fn finish(mut self, out: &mut Vec<u8>) {
        self.decoder.finish(&mut self.held);
        let rest = std::mem::take(&mut self.held);
        self.write(&rest, out);
    }

    fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for line in bytes.chunks(IN_LINE) {
            if std::mem::replace(&mut self.begun, true) {
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(base64(line).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
