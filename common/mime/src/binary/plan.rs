//! What becomes of each stretch of a message with binary parts. Two passes: one finds the parts, with
//! CRLF alone as the end of a line, one looks at the octets of their bodies.

use std::io::{self, BufRead, Seek};
use std::ops::Range;

use super::fields::Label;
use crate::content::Content;
use crate::encoding::Encoding;
use crate::structure::Builder;

/// Octets without CRLF that a line of a part may have that is sent as 8bit: RFC 5321 4.5.3.1.6.
const MAX_LINE: u64 = 998;

/// What becomes of a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes by lines.
    Keep,
    /// Text around parts.
    Tidy,
    Header(Label),
    /// A body, which is decoded so before it is encoded.
    Encode(Encoding),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) length: u64,
    pub(super) fate: Fate,
}

/// How a message is converted. It fits the message that it was made of, and no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(super) stretches: Vec<Stretch>,
}

impl Plan {
    /// Reads the message, twice, from its start; that is where it is left.
    pub fn of(message: &mut (impl BufRead + Seek)) -> io::Result<Self> {
        let mut builder = Builder::strict();
        message.rewind()?;
        let size = each(message, u64::MAX, |piece| builder.feed(piece))?;
        message.rewind()?;
        let mut plan = Self {
            stretches: Vec::new(),
        };
        let mut at = 0;
        for part in &builder.parts() {
            let between = part.header.start.saturating_sub(at);
            let header = length(&part.header);
            each(message, between.saturating_add(header), |_| ())?;
            plan.push(between, Fate::Tidy);
            at = part.header.end;
            if !part.children.is_empty() {
                plan.push(header, Fate::Header(container(&part.content)));
                continue;
            }
            let mut octets = Octets::default();
            each(message, length(&part.body), |piece| octets.see(piece))?;
            let is_last = part.body.end == size;
            let (label, body) = judge(&part.content, octets, is_last);
            plan.push(header, Fate::Header(label));
            plan.push(length(&part.body), body);
            at = part.body.end;
        }
        plan.push(size.saturating_sub(at), Fate::Tidy);
        message.rewind()?;
        Ok(plan)
    }

    fn push(&mut self, length: u64, fate: Fate) {
        if length > 0 {
            self.stretches.push(Stretch { length, fate });
        }
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// Gives up to `length` octets in pieces; how many there were.
fn each(message: &mut impl BufRead, length: u64, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut left = length;
    while left > 0 {
        let piece = match message.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let n = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if n == 0 {
            break;
        }
        take(piece.get(..n).unwrap_or_default());
        message.consume(n);
        left = left.saturating_sub(n as u64);
    }
    Ok(length.saturating_sub(left))
}

/// Of a multipart or message whose parts were found: they are 8bit at most, now.
fn container(content: &Content) -> Label {
    match content.encoding.as_str() {
        "BINARY" => Label::EightBit,
        _ => Label::Same,
    }
}

/// What becomes of a part without parts.
fn judge(content: &Content, octets: Octets, is_last: bool) -> (Label, Fate) {
    let is_binary = content.encoding == "BINARY";
    // Lines that are too long, or the last that does not end, are nothing new in what is called text.
    let is_text = !is_binary || octets.longest <= MAX_LINE && !(is_last && octets.line > 0);
    if octets.is_by_lines() && is_text {
        return match is_binary {
            true => (Label::EightBit, Fate::Keep),
            false => (Label::Same, Fate::Keep),
        };
    }
    let label = match content.kind.as_str() {
        "MULTIPART" | "MESSAGE" => Label::Opaque,
        _ => Label::Base64,
    };
    (label, Fate::Encode(content.transfer_encoding()))
}

/// What a body's octets are like.
#[derive(Debug, Clone, Copy, Default)]
struct Octets {
    /// NUL, or a CR or LF alone.
    spoiled: bool,
    after_cr: bool,
    /// Of the line so far, and of the longest.
    line: u64,
    longest: u64,
}

impl Octets {
    fn see(&mut self, piece: &[u8]) {
        for &byte in piece {
            let ends = self.after_cr && byte == b'\n';
            self.spoiled |= byte == 0 || self.after_cr != (byte == b'\n');
            self.after_cr = byte == b'\r';
            if ends {
                self.line = 0;
            } else if !self.after_cr {
                self.line = self.line.saturating_add(1);
                self.longest = self.longest.max(self.line);
            }
        }
    }

    fn is_by_lines(self) -> bool {
        !self.spoiled && !self.after_cr
    }
}
