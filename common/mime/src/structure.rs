//! The tree of parts of a message (RFC 2045, 2046), as ranges of the message's own bytes.
//!
//! One pass over the lines, no recursion: memory and time are bounded by the message's length and the
//! limits below. A part beyond a limit, a multipart without a boundary or without parts, and a
//! Content-Type that cannot be read, are text/plain (RFC 2045 5.2); nothing is ever refused.

use std::ops::Range;

use memchr::memchr;

use crate::content::Content;

/// The most parts of one message; the last one holds the rest.
pub const MAX_PARTS: usize = 1000;
/// The deepest nesting of multiparts and messages.
pub const MAX_DEPTH: usize = 50;
/// RFC 2046 5.1.1 allows 70; a longer boundary than this is no boundary.
const MAX_BOUNDARY: usize = 1000;

/// One part: of a multipart, or a whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// With the empty line that ends it; for the root and for embedded messages the message's header.
    pub header: Range<usize>,
    pub body: Range<usize>,
    /// Line ends in the body.
    pub lines: usize,
    pub content: Content,
    /// The parts of a multipart; of message/rfc822 the one embedded message.
    pub children: Vec<usize>,
    /// The part that this one is in.
    pub parent: Option<usize>,
}

/// The parts of a message; the first one is the message itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    pub parts: Vec<Part>,
}

impl Structure {
    /// Reads `message`.
    pub fn parse(message: &[u8]) -> Self {
        let mut scan = Scan::new(message);
        while scan.line() {}
        scan.finish()
    }

    /// The message itself.
    pub fn root(&self) -> Option<&Part> {
        self.parts.first()
    }

    pub fn part(&self, index: usize) -> Option<&Part> {
        self.parts.get(index)
    }

    /// The part that IMAP calls `1.2.3` (RFC 3501 6.4.5), from the root.
    ///
    /// Numbers count the parts of a multipart; the only part of anything else is its part 1. Below a
    /// message/rfc822 the numbers are those of the message embedded in it.
    pub fn find(&self, path: &[u32]) -> Option<usize> {
        let mut at = 0;
        let mut inside_message = true;
        for &number in path {
            let mut holder = at;
            if !inside_message {
                let part = self.part(at)?;
                if part.content.is_message() {
                    holder = *part.children.first()?;
                } else if !part.content.is_multipart() {
                    return None;
                }
            }
            let part = self.part(holder)?;
            let index = usize::try_from(number).ok()?.checked_sub(1)?;
            at = match (part.content.is_multipart(), index) {
                (true, _) => *part.children.get(index)?,
                (false, 0) => holder,
                (false, _) => return None,
            };
            inside_message = false;
        }
        Some(at)
    }

    /// Whether the path `find` took ends at the content of a message that is no multipart: then its
    /// MIME header is that message's header.
    pub fn embedded(&self, index: usize) -> Option<&Part> {
        let part = self.part(index)?;
        if part.content.is_message() {
            self.part(*part.children.first()?)
        } else {
            None
        }
    }
}

/// A multipart or message whose parts are being read.
struct Open {
    part: usize,
    /// Empty for an embedded message, and for a multipart behind its closing delimiter.
    boundary: Vec<u8>,
    digest: bool,
}

struct Scan<'a> {
    message: &'a [u8],
    at: usize,
    /// Line ends before `at`.
    lines: usize,
    parts: Vec<Part>,
    /// Line ends before the body of each part.
    first_line: Vec<usize>,
    open: Vec<Open>,
    /// The part whose header is being read.
    in_header: Option<usize>,
    /// The part whose body ends at the next boundary.
    leaf: Option<usize>,
}

impl<'a> Scan<'a> {
    fn new(message: &'a [u8]) -> Self {
        let mut scan = Self {
            message,
            at: 0,
            lines: 0,
            parts: Vec::new(),
            first_line: Vec::new(),
            open: Vec::new(),
            in_header: None,
            leaf: None,
        };
        scan.begin(None);
        scan
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
        });
        self.first_line.push(self.lines);
        if let Some(parent) = parent.and_then(|p| self.parts.get_mut(p)) {
            parent.children.push(index);
        }
        self.in_header = Some(index);
        self.leaf = None;
    }

    /// Reads one line; false at the end of the message.
    fn line(&mut self) -> bool {
        let rest = self.message.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return false;
        }
        let (length, ended) = match memchr(b'\n', rest) {
            Some(newline) => (newline + 1, true),
            None => (rest.len(), false),
        };
        let line = rest.get(..length).unwrap_or_default();
        if line.starts_with(b"--")
            && let Some((level, closing)) = self.delimiter(line)
        {
            self.close_above(level);
            self.at += length;
            self.lines += usize::from(ended);
            self.boundary(level, closing);
            return true;
        }
        self.at += length;
        self.lines += usize::from(ended);
        if let Some(part) = self.in_header
            && matches!(line, b"\n" | b"\r\n")
        {
            self.header_ends(part);
        }
        true
    }

    /// The innermost open multipart whose delimiter this line is, and whether it is the closing one.
    fn delimiter(&self, line: &[u8]) -> Option<(usize, bool)> {
        let text = line.get(2..)?.trim_ascii_end();
        let level = self.open.iter().rposition(|open| {
            !open.boundary.is_empty()
                && text
                    .strip_prefix(open.boundary.as_slice())
                    .is_some_and(|r| matches!(r, b"" | b"--"))
        })?;
        let closing = self
            .open
            .get(level)
            .is_some_and(|o| text.len() > o.boundary.len());
        (closing || self.parts.len() < MAX_PARTS).then_some((level, closing))
    }

    /// Ends everything inside `open[level]` at the line that begins here.
    fn close_above(&mut self, level: usize) {
        if let Some(part) = self.in_header.take() {
            self.set_header(part);
            self.end_body(part);
        }
        if let Some(part) = self.leaf.take() {
            self.end_body(part);
        }
        while self.open.len() > level + 1 {
            if let Some(open) = self.open.pop() {
                self.end_body(open.part);
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

    /// The line end before a delimiter belongs to the delimiter (RFC 2046 5.1.1).
    fn end_body(&mut self, index: usize) {
        let first = self.first_line.get(index).copied().unwrap_or(0);
        let at_end = self.at >= self.message.len();
        let Some(part) = self.parts.get_mut(index) else {
            return;
        };
        let mut end = self.at;
        let mut lines = self.lines - first;
        if !at_end {
            let before = self.message.get(part.body.start..end).unwrap_or_default();
            let trimmed = match before {
                [.., b'\r', b'\n'] => 2,
                [.., b'\n'] => 1,
                _ => 0,
            };
            end -= trimmed;
            lines -= usize::from(trimmed > 0);
        }
        part.body.end = end.max(part.body.start);
        part.lines = lines;
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
        part.content = Content::read(
            self.message.get(part.header.clone()).unwrap_or_default(),
            digest,
        );
    }

    fn header_ends(&mut self, index: usize) {
        self.in_header = None;
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
            }
            None => self.leaf = Some(index),
        }
    }

    fn finish(mut self) -> Structure {
        if let Some(part) = self.in_header.take() {
            self.set_header(part);
        }
        // Whatever is open reaches to the end.
        let open: Vec<_> = self.open.iter().map(|o| o.part).collect();
        for part in open.into_iter().chain(self.leaf) {
            self.end_body(part);
        }
        for part in &mut self.parts {
            let needs_parts = part.content.is_multipart() || part.content.is_message();
            if needs_parts && part.children.is_empty() {
                let shown = Content::plain();
                part.content.set_type(&shown.kind, &shown.subtype);
                part.content
                    .parameters
                    .retain(|p| p.name.eq_ignore_ascii_case(b"charset"));
            }
        }
        Structure { parts: self.parts }
    }
}

fn boundary(content: &Content) -> Option<Vec<u8>> {
    let found = content
        .parameters
        .iter()
        .find(|p| p.name.eq_ignore_ascii_case(b"boundary"))?;
    let boundary = found.value.trim_ascii_end();
    (!boundary.is_empty() && boundary.len() <= MAX_BOUNDARY).then(|| boundary.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `TYPE/SUBTYPE[body]lines` of each part, indented by depth.
    fn show(message: &str) -> Vec<String> {
        let structure = Structure::parse(message.as_bytes());
        let depth = |mut index: usize| {
            let mut depth = 0;
            while let Some(parent) = structure.parts[index].parent {
                (index, depth) = (parent, depth + 1);
            }
            depth
        };
        structure
            .parts
            .iter()
            .enumerate()
            .map(|(index, part)| {
                let body = message.get(part.body.clone()).unwrap();
                let body = if part.children.is_empty() {
                    body.escape_debug().to_string()
                } else {
                    "..".into()
                };
                let content = &part.content;
                format!(
                    "{}{}/{}[{body}]{}",
                    ".".repeat(depth(index)),
                    content.kind,
                    content.subtype,
                    part.lines
                )
            })
            .collect()
    }

    #[test]
    fn trees() {
        let table: &[(&str, &[&str])] = &[
            ("", &["TEXT/PLAIN[]0"]),
            ("A: b", &["TEXT/PLAIN[]0"]),
            ("\nx\ny", &["TEXT/PLAIN[x\\ny]1"]),
            ("Content-Type: image/png\n\nx\n", &["IMAGE/PNG[x\\n]1"]),
            ("Content-Type: nonsense\n\nx\n", &["TEXT/PLAIN[x\\n]1"]),
            (
                "Content-Type: multipart/mixed; boundary=b\n\npre\n--b\n\none\n--b\nContent-Type: text/html\n\ntwo\n\n--b--\npost\n",
                &[
                    "MULTIPART/MIXED[..]11",
                    ".TEXT/PLAIN[one]0",
                    ".TEXT/HTML[two\\n]1",
                ],
            ),
            // no closing delimiter; CRLF
            (
                "Content-Type: multipart/mixed; boundary=\"b c\"\r\n\r\n--b c  \r\n\r\none\r\ntwo",
                &["MULTIPART/MIXED[..]3", ".TEXT/PLAIN[one\\r\\ntwo]1"],
            ),
            // an outer boundary ends inner parts
            (
                "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/alternative; boundary=i\n\n--i\n\none\n--o\n\ntwo\n--o--\n",
                &[
                    "MULTIPART/MIXED[..]10",
                    ".MULTIPART/ALTERNATIVE[..]2",
                    "..TEXT/PLAIN[one]0",
                    ".TEXT/PLAIN[two]0",
                ],
            ),
            // one boundary is the beginning of the other
            (
                "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/mixed; boundary=bb\n\n--bb\n\nx\n--bb--\n--b--\n",
                &[
                    "MULTIPART/MIXED[..]8",
                    ".MULTIPART/MIXED[..]3",
                    "..TEXT/PLAIN[x]0",
                ],
            ),
            // multiparts that are none
            (
                "Content-Type: multipart/mixed\n\nx\n",
                &["TEXT/PLAIN[x\\n]1"],
            ),
            (
                "Content-Type: multipart/mixed; boundary=b\n\nx\n",
                &["TEXT/PLAIN[x\\n]1"],
            ),
            (
                "Content-Type: multipart/mixed; boundary=b\n\n--b--\n",
                &["TEXT/PLAIN[--b--\\n]1"],
            ),
            // embedded message
            (
                "Content-Type: message/rfc822\n\nSubject: in\nContent-Type: text/html\n\nhi\n",
                &["MESSAGE/RFC822[..]4", ".TEXT/HTML[hi\\n]1"],
            ),
            (
                "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nAAAA\n",
                &["MESSAGE/RFC822[AAAA\\n]1"],
            ),
            // digest: a message without saying so
            (
                "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: in\n\nhi\n--b--\n",
                &[
                    "MULTIPART/DIGEST[..]6",
                    ".MESSAGE/RFC822[..]2",
                    "..TEXT/PLAIN[hi]0",
                ],
            ),
            // empty parts, and a header that a delimiter ends
            (
                "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--b\nContent-Type: text/css\n--b--\n",
                &["MULTIPART/MIXED[..]5", ".TEXT/PLAIN[]0", ".TEXT/CSS[]0"],
            ),
        ];
        for (message, want) in table {
            assert_eq!(show(message), *want, "{message}");
        }
    }

    #[test]
    fn numbers_of_parts() {
        // RFC 3501 6.4.5's example: 1 TEXT, 2 APPLICATION, 3 MESSAGE (3.1, 3.2), 4 MULTIPART (4.1, 4.2 MESSAGE (4.2.1, 4.2.2))
        let message = "Content-Type: multipart/mixed; boundary=0\n\n\
            --0\n\na\n--0\nContent-Type: application/x\n\nb\n\
            --0\nContent-Type: message/rfc822\n\nContent-Type: multipart/mixed; boundary=1\n\n--1\n\nc\n--1\n\nd\n--1--\n\
            --0\nContent-Type: multipart/mixed; boundary=2\n\n--2\nContent-Type: image/gif\n\ne\n\
            --2\nContent-Type: message/rfc822\n\nContent-Type: multipart/mixed; boundary=3\n\n--3\n\nf\n--3\n\ng\n--3--\n--2--\n--0--\n";
        let structure = Structure::parse(message.as_bytes());
        let table: &[(&[u32], Option<&str>)] = &[
            (&[1], Some("a")),
            (&[2], Some("b")),
            (&[3, 1], Some("c")),
            (&[3, 2], Some("d")),
            (&[4, 1], Some("e")),
            (&[4, 2, 1], Some("f")),
            (&[4, 2, 2], Some("g")),
            (&[5], None),
            (&[0], None),
            (&[1, 1], None),
            (&[3, 3], None),
        ];
        for (path, want) in table {
            let body = structure
                .find(path)
                .and_then(|i| message.get(structure.parts[i].body.clone()));
            assert_eq!(body, *want, "{path:?}");
        }
        let plain = Structure::parse(b"A: b\n\nbody");
        assert_eq!(plain.find(&[]), Some(0));
        assert_eq!(plain.find(&[1]), Some(0));
        assert_eq!(plain.find(&[1, 1]), None);
        // the embedded message is no multipart: its only part is 1.1
        let nested = Structure::parse(b"Content-Type: message/rfc822\n\nA: b\n\nbody");
        assert_eq!(nested.find(&[1]), Some(0));
        assert_eq!(nested.find(&[1, 1]), Some(1));
        assert_eq!(nested.find(&[1, 1, 1]), None);
    }

    #[test]
    fn floods_are_bounded() {
        let parts = format!(
            "Content-Type: multipart/mixed; boundary=b\n\n{}--b--\n",
            "--b\n\nx\n".repeat(100_000)
        );
        assert_eq!(Structure::parse(parts.as_bytes()).parts.len(), MAX_PARTS);

        let mut deep = String::new();
        for level in 0..10_000 {
            deep += &format!("Content-Type: multipart/mixed; boundary={level}\n\n--{level}\n");
        }
        let structure = Structure::parse(deep.as_bytes());
        assert!(structure.parts.len() <= MAX_DEPTH + 1);

        let messages = "Content-Type: message/rfc822\n\n".repeat(100_000);
        assert!(Structure::parse(messages.as_bytes()).parts.len() <= MAX_DEPTH + 1);
    }

    #[test]
    fn every_range_is_within_the_message() {
        let message = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nA: b\r\n\r\nx\r\n--b\r\n\r\n--b--\r\n";
        for end in 0..message.len() {
            let structure = Structure::parse(&message.as_bytes()[..end]);
            for part in &structure.parts {
                assert!(part.header.start <= part.header.end && part.header.end <= part.body.start);
                assert!(part.body.start <= part.body.end && part.body.end <= end);
            }
        }
    }
}
