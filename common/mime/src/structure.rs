//! The tree of parts of a message (RFC 2045, 2046), as ranges of the message's own bytes.
//!
//! A part beyond a limit, a multipart without a boundary or without parts, and a Content-Type that
//! cannot be read, are text/plain (RFC 2045 5.2); nothing is ever refused. [`Builder`] does the work.

use std::ops::Range;

use crate::content::Content;
pub use crate::scan::Builder;

/// The most parts of one message; the last one holds the rest.
pub const MAX_PARTS: usize = 1000;
/// The deepest nesting of multiparts and messages.
pub const MAX_DEPTH: usize = 50;
/// One part: of a multipart, or a whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// With the empty line that ends it; for the root and for embedded messages the message's header.
    pub header: Range<u64>,
    pub body: Range<u64>,
    /// Line ends in the body.
    pub lines: u64,
    pub content: Content,
    /// The parts of a multipart; of message/rfc822 the one embedded message.
    pub children: Vec<usize>,
    /// The part that this one is in.
    pub parent: Option<usize>,
    /// The header's octets, of the root and of embedded messages (for their envelope); empty where
    /// all of them together are too many.
    pub header_text: Vec<u8>,
}

/// The parts of a message; the first one is the message itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    pub parts: Vec<Part>,
}

impl Structure {
    /// Reads `message`.
    pub fn parse(message: &[u8]) -> Self {
        let mut builder = Builder::new();
        builder.feed(message);
        builder.finish()
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

    /// The octets of a range of this message, which must be the one that was read.
    pub fn slice<'a>(&self, message: &'a [u8], range: &Range<u64>) -> &'a [u8] {
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        message
            .get(at(range.start)..at(range.end))
            .unwrap_or_default()
    }

    /// The message that a message/rfc822 part holds.
    pub fn embedded(&self, index: usize) -> Option<&Part> {
        let part = self.part(index)?;
        if part.content.is_message() {
            self.part(*part.children.first()?)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<'a>(message: &'a str, range: &Range<u64>) -> &'a str {
        let structure = Structure { parts: Vec::new() };
        std::str::from_utf8(structure.slice(message.as_bytes(), range)).unwrap()
    }

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
                let body = text(message, &part.body);
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
                .map(|i| text(message, &structure.parts[i].body));
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

    /// The line end before a delimiter is not both the delimiter's and the header's of a message inside.
    #[test]
    fn an_embedded_message_without_a_body_is_within_its_part() {
        let message = "Content-Type: multipart/digest; boundary=d\r\n\r\n\
            --d\r\n\r\nSubject: x\r\n\r\n--d--\r\n";
        let structure = Structure::parse(message.as_bytes());
        let (part, inside) = (&structure.parts[1], &structure.parts[2]);
        assert_eq!(text(message, &part.body), "Subject: x\r\n\r\n");
        assert_eq!(text(message, &inside.header), "Subject: x\r\n\r\n");
        assert!(inside.body.is_empty() && inside.body.end <= part.body.end);
        assert_eq!((part.lines, inside.lines), (2, 0));
    }

    #[test]
    fn every_range_is_within_the_message() {
        let message = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nA: b\r\n\r\nx\r\n--b\r\n\r\n--b--\r\n";
        for end in 0..message.len() {
            let structure = Structure::parse(&message.as_bytes()[..end]);
            let mut pieces = Builder::new();
            message.as_bytes()[..end]
                .chunks(3)
                .for_each(|piece| pieces.feed(piece));
            assert_eq!(pieces.finish(), structure);
            for part in &structure.parts {
                assert!(part.header.start <= part.header.end && part.header.end <= part.body.start);
                assert!(part.body.start <= part.body.end && part.body.end <= end as u64);
            }
        }
    }
}
