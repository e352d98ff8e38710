//! The one pass over a message's lines that finds its parts (RFC 2046 5.1).
//!
//! No recursion and no look back: time is linear, memory is bounded by the limits of `structure`,
//! however large the message is and in whatever pieces it comes.

use memchr::memchr_iter;

use crate::binary;
use crate::content::{Content, MAX_HEADER};
use crate::structure::{MAX_DEPTH, MAX_PARTS, Part, Structure};

/// RFC 2046 5.1.1 allows 70; a longer boundary than this is no boundary.
const MAX_BOUNDARY: usize = 1000;
/// How much of a line of a body is looked at.
const MAX_LINE: usize = MAX_BOUNDARY + 100;
/// The most header octets that are kept in the parts.
const MAX_KEPT: usize = 4 << 20;

/// A multipart or message whose parts are being read.
#[derive(Debug)]
struct Open {
    part: usize,
    /// Empty for an embedded message, and for a multipart behind its closing delimiter.
    boundary: Vec<u8>,
    digest: bool,
}

/// Reads a message piece by piece; it keeps the header being read and part of one line.
#[derive(Debug)]
pub struct Builder {
    /// Where the line begins that comes next.
    at: u64,
    /// Line ends before `at`.
    lines: u64,
    /// How long the line end before `at` was.
    line_end: u64,
    parts: Vec<Part>,
    /// Line ends before the body of each part.
    first_line: Vec<u64>,
    open: Vec<Open>,
    state: State,
    /// The header being read, up to [`MAX_HEADER`].
    header: Vec<u8>,
    /// Header octets kept in the parts.
    kept: usize,
    /// What has come of a line that has not ended, up to [`MAX_LINE`]; and its whole length.
    partial: Vec<u8>,
    partial_length: u64,
    /// The last octet that came.
    last: u8,
    /// Only CRLF ends a line.
    strict: bool,
}

/// What the lines belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The header of this part.
    Header(usize),
    /// The body of this part, which has no parts.
    Leaf(usize),
    /// Text before, between and behind the parts of a multipart.
    Between,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    pub fn new() -> Self {
        let mut builder = Self {
            at: 0,
            lines: 0,
            line_end: 0,
            parts: Vec::new(),
            first_line: Vec::new(),
            open: Vec::new(),
            state: State::Between,
            header: Vec::new(),
            kept: 0,
            partial: Vec::new(),
            partial_length: 0,
            last: 0,
            strict: false,
        };
        builder.begin(None);
        builder
    }

    /// For a message that may have binary parts (RFC 3030): an LF alone ends no line.
    pub fn strict() -> Self {
        Self {
            strict: true,
            ..Self::new()
        }
    }

    /// The next octets of the message.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = self.line_ends(rest);
            let (line, after) = rest.split_at(end.map_or(rest.len(), |(end, _)| end));
            rest = after;
            self.last = line.last().copied().unwrap_or(self.last);
            if let Some((_, line_end)) = end
                && self.partial_length == 0
            {
                self.line(line, length(line), line_end);
                continue;
            }
            let room = self.limit().saturating_sub(self.partial.len());
            self.partial
                .extend_from_slice(line.get(..line.len().min(room)).unwrap_or_default());
            self.partial_length += length(line);
            if let Some((_, line_end)) = end {
                self.flush(line_end);
            }
        }
    }

    /// Behind the first line end, and how long that is.
    fn line_ends(&self, rest: &[u8]) -> Option<(usize, u64)> {
        let ends = memchr_iter(b'\n', rest).map(|newline| {
            let before = match newline.checked_sub(1) {
                Some(before) => rest.get(before).copied(),
                None => Some(self.last).filter(|_| self.partial_length > 0),
            };
            (newline + 1, 1 + u64::from(before == Some(b'\r')))
        });
        let mut ends = ends.filter(|(_, line_end)| !self.strict || *line_end == 2);
        ends.next()
    }

    fn flush(&mut self, line_end: u64) {
        let line = std::mem::take(&mut self.partial);
        let length = std::mem::take(&mut self.partial_length);
        self.line(&line, length, line_end);
    }

    /// How much of a line matters.
    fn limit(&self) -> usize {
        match self.state {
            State::Header(_) => MAX_HEADER,
            State::Leaf(_) | State::Between => MAX_LINE,
        }
    }

    /// A new part begins here with its header.
    fn begin(&mut self, parent: Option<usize>) {
        let index = self.parts.len();
        self.parts.push(Part {
            header: self.at..self.at,
            body: self.at..self.at,
            lines: 0,
            content: Content::plain(),
            children: Vec::new(),
            parent,
            header_text: Vec::new(),
        });
        self.first_line.push(self.lines);
        if let Some(parent) = parent.and_then(|p| self.parts.get_mut(p)) {
            parent.children.push(index);
        }
        self.header.clear();
        self.state = State::Header(index);
    }

    /// One line; `text` may be less than its whole `length`. `line_end` is 0 at the end of the message.
    fn line(&mut self, text: &[u8], length: u64, line_end: u64) {
        if text.starts_with(b"--")
            && length == text.len() as u64
            && let Some((level, closing)) = self.delimiter(text)
        {
            self.close_above(level);
            self.advance(length, line_end);
            self.boundary(level, closing);
            return;
        }
        self.advance(length, line_end);
        if let State::Header(part) = self.state {
            let room = MAX_HEADER.saturating_sub(self.header.len());
            self.header
                .extend_from_slice(text.get(..text.len().min(room)).unwrap_or_default());
            if line_end == length {
                self.header_ends(part);
            }
        }
    }

    fn advance(&mut self, length: u64, line_end: u64) {
        self.at += length;
        self.lines += u64::from(line_end > 0);
        self.line_end = line_end;
    }

    /// The innermost open multipart whose delimiter this line is, and whether it is the closing one.
    fn delimiter(&self, line: &[u8]) -> Option<(usize, bool)> {
        let line = line.get(2..)?;
        let text = match self.strict {
            // RFC 2046 5.1.1: transport-padding
            true => {
                let text = line.strip_suffix(b"\r\n").unwrap_or(line);
                let padding = text.iter().rev().take_while(|b| matches!(b, b' ' | b'\t'));
                text.get(..text.len().saturating_sub(padding.count()))?
            }
            false => line.trim_ascii_end(),
        };
        let level = self.open.iter().rposition(|open| {
            let rest = text.strip_prefix(open.boundary.as_slice());
            !open.boundary.is_empty() && rest.is_some_and(|r| matches!(r, b"" | b"--"))
        })?;
        let closing = self
            .open
            .get(level)
            .is_some_and(|o| text.len() > o.boundary.len());
        (closing || self.parts.len() < MAX_PARTS).then_some((level, closing))
    }

    /// Ends everything inside `open[level]` at the line that begins here.
    fn close_above(&mut self, level: usize) {
        match self.state {
            State::Header(part) => {
                self.set_header(part);
                self.end_body(part, self.line_end);
            }
            State::Leaf(part) => self.end_body(part, self.line_end),
            State::Between => {}
        }
        self.state = State::Between;
        while self.open.len() > level + 1 {
            if let Some(open) = self.open.pop() {
                self.end_body(open.part, self.line_end);
            }
        }
    }

    fn boundary(&mut self, level: usize, closing: bool) {
        let Some(open) = self.open.get_mut(level) else {
            return;
        };
        if closing {
            open.boundary.clear();
        } else {
            let part = open.part;
            self.begin(Some(part));
        }
    }

    /// The body of `index` ends here; the line end before a delimiter belongs to the delimiter
    /// (RFC 2046 5.1.1).
    fn end_body(&mut self, index: usize, line_end: u64) {
        let first = self.first_line.get(index).copied().unwrap_or(0);
        // Of an embedded message that ends with its header, that line end is the header's.
        let inside = self.end_inside(index);
        let Some(part) = self.parts.get_mut(index) else {
            return;
        };
        let whole = part.body.start..self.at;
        let least = whole.start.max(inside);
        let trimmed = whole.end.saturating_sub(line_end) >= least && line_end > 0;
        part.body.end = if trimmed {
            whole.end - line_end
        } else {
            whole.end.max(whole.start)
        };
        part.lines = self
            .lines
            .saturating_sub(first)
            .saturating_sub(u64::from(trimmed));
    }

    /// Where the last part inside of `index` ends; 0 where there is none.
    fn end_inside(&self, index: usize) -> u64 {
        let last = self.parts.get(index).and_then(|p| p.children.last());
        let last = last.and_then(|&child| self.parts.get(child));
        last.map_or(0, |child| child.body.end)
    }

    /// The header of `index` ends here; the body begins.
    fn set_header(&mut self, index: usize) {
        let digest = self.open.last().is_some_and(|open| open.digest);
        if let Some(first) = self.first_line.get_mut(index) {
            *first = self.lines;
        }
        let Some(part) = self.parts.get_mut(index) else {
            return;
        };
        part.header.end = self.at;
        part.body = self.at..self.at;
        part.content = match self.strict {
            true => Content::read(&binary::tidied(&self.header), digest),
            false => Content::read(&self.header, digest),
        };
        let is_message =
            part.parent.is_none() || self.open.last().is_some_and(|o| o.boundary.is_empty());
        if is_message && self.kept + self.header.len() <= MAX_KEPT {
            self.kept += self.header.len();
            part.header_text = std::mem::take(&mut self.header);
        }
    }

    fn header_ends(&mut self, index: usize) {
        self.set_header(index);
        let Some(content) = self.parts.get(index).map(|p| &p.content) else {
            return;
        };
        let room = self.open.len() < MAX_DEPTH && self.parts.len() < MAX_PARTS;
        if content.is_message() && room {
            self.open.push(Open {
                part: index,
                boundary: Vec::new(),
                digest: false,
            });
            self.begin(Some(index));
            return;
        }
        let boundary = boundary(content).filter(|_| room && content.is_multipart());
        match boundary {
            Some(boundary) => {
                let digest = content.subtype == "DIGEST";
                self.open.push(Open {
                    part: index,
                    boundary,
                    digest,
                });
                self.state = State::Between;
            }
            None => self.state = State::Leaf(index),
        }
    }

    /// The message has ended.
    pub fn finish(self) -> Structure {
        let mut parts = self.parts();
        for part in &mut parts {
            let needs_parts = part.content.is_multipart() || part.content.is_message();
            if needs_parts && part.children.is_empty() {
                part.content.set_type("TEXT", "PLAIN");
                part.content
                    .parameters
                    .retain(|p| p.name.eq_ignore_ascii_case(b"charset"));
            }
        }
        Structure { parts }
    }

    /// The same, with the types that the parts have by their headers.
    pub(crate) fn parts(mut self) -> Vec<Part> {
        if self.partial_length > 0 {
            self.flush(0);
        }
        if let State::Header(part) = self.state {
            self.set_header(part);
        }
        // Whatever is open reaches to the end.
        let open: Vec<_> = self.open.iter().map(|o| o.part).collect();
        for part in open {
            self.end_body(part, 0);
        }
        if let State::Leaf(part) = self.state {
            self.end_body(part, 0);
        }
        self.parts
    }
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

fn boundary(content: &Content) -> Option<Vec<u8>> {
    let found = content
        .parameters
        .iter()
        .find(|p| p.name.eq_ignore_ascii_case(b"boundary"))?;
    let boundary = found.value.trim_ascii_end();
    (!boundary.is_empty() && boundary.len() <= MAX_BOUNDARY).then(|| boundary.to_vec())
}
