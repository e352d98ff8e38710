//! A whole message as doors see and change it.
//!
//! Its header is in memory, bounded; its body is read from where it lies, from its beginning as often
//! as a door likes, and replaced as a whole.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use base::{Address, Recipient, ReversePath};

/// A message with a longer header is refused: what is in it could not be looked into.
const MAX_HEADER: usize = 256 * 1024;
/// Octets read at a time.
const PIECE: usize = 64 * 1024;

/// A message and its envelope, before it is written. What a door changes, later doors see.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) content: Content,
    /// Fields that go above our own Received, the topmost first, each with its line end: our
    /// Authentication-Results is there already.
    pub(crate) above: Vec<String>,
    pub(crate) reverse_path: ReversePath,
    /// Recipients to be added; they are the operator's will, and may be anywhere.
    pub(crate) added: Vec<Recipient>,
    /// Recipients that shall not have it.
    pub(crate) removed: Vec<Address>,
}

/// The text of a message.
#[derive(Debug)]
pub(crate) struct Content {
    /// Its own fields, with the empty line where there is one, in CRLF. Empty where the message
    /// begins with no header.
    pub(crate) header: Vec<u8>,
    pub(crate) body: Body,
}

/// What follows the header: as a reader that begins with the body. Where it stands is left open:
/// rewind it first.
#[derive(Debug)]
pub(crate) enum Body {
    Memory(Cursor<Vec<u8>>),
    /// From this octet of the file on. [`queue::Queue::scratch`] makes files.
    File(File, u64),
}

impl Content {
    /// Divides a message that begins where `whole` does; `None` where its header is too long. Blocks.
    pub(crate) fn read(mut whole: Body) -> io::Result<Option<Self>> {
        whole.rewind()?;
        let Some(header) = read_header(&mut whole)? else {
            return Ok(None);
        };
        let body = match whole {
            Body::Memory(text) => {
                let mut text = text.into_inner();
                Body::Memory(Cursor::new(text.split_off(header.len().min(text.len()))))
            }
            Body::File(file, start) => Body::File(file, start.saturating_add(header.len() as u64)),
        };
        let mut content = Self { header, body };
        content.body.rewind()?;
        Ok(Some(content))
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(text) => text.read(into),
            Self::File(file, _) => file.read(into),
        }
    }
}

impl Seek for Body {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (file, start) = match self {
            Self::Memory(text) => return text.seek(to),
            Self::File(file, start) => (file, *start),
        };
        let to = match to {
            SeekFrom::Start(at) => SeekFrom::Start(at.saturating_add(start)),
            other => other,
        };
        let at = file.seek(to)?;
        at.checked_sub(start)
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

/// The header with its empty line. Where there is none the header ends before the first line that is
/// no field (RFC 5322 2.1), because that is how readers take it. `None`: it is too long.
fn read_header(content: &mut Body) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        let n = content.read(&mut piece)?;
        text.extend_from_slice(piece.get(..n).unwrap_or_default());
        let end = match header_end(&text) {
            Some(end) => end,
            None if n == 0 => fields_end(&text),
            None if text.len() > MAX_HEADER => {
                let end = fields_end(&text);
                if !text.get(end..).unwrap_or_default().contains(&b'\n') {
                    return Ok(None);
                }
                end
            }
            None => continue,
        };
        text.truncate(end);
        return Ok(Some(text));
    }
}

/// Where the first line begins that belongs to no field. The line that mbox files begin messages with
/// is none.
fn fields_end(text: &[u8]) -> usize {
    let mut end = match text.starts_with(b"From ") {
        true => memchr::memchr(b'\n', text).map_or(text.len(), |at| at + 1),
        false => 0,
    };
    for field in mime::header::fields(text) {
        if field.range.start != end {
            break;
        }
        end = field.range.end;
    }
    end
}

/// Where the body begins.
pub(crate) fn header_end(text: &[u8]) -> Option<usize> {
    match text.starts_with(b"\r\n") {
        true => Some(2),
        false => memchr::memmem::find(text, b"\r\n\r\n").map(|at| at + 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn both(text: &[u8]) -> [Body; 2] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        [
            Body::Memory(Cursor::new(text.to_vec())),
            Body::File(file, 0),
        ]
    }

    #[test]
    fn header_and_body_are_divided_by_the_empty_line() {
        let late_body = format!("hello\r\n{}\r\n\r\nx", "y: z\r\n".repeat(MAX_HEADER));
        let late = format!("A: b\r\n{late_body}");
        for (text, header, body) in [
            ("A: b\r\n\r\nc\r\n", "A: b\r\n\r\n", "c\r\n"),
            ("\r\nc\r\n\r\n", "\r\n", "c\r\n\r\n"),
            ("A: b\r\n c\r\n", "A: b\r\n c\r\n", ""),
            ("hello\r\n", "", "hello\r\n"),
            // Readers take the lines before it for a header all the same.
            ("A: b\r\nhello\r\n", "A: b\r\n", "hello\r\n"),
            (
                "A: b\r\n c\r\nhello\r\nD: e\r\n",
                "A: b\r\n c\r\n",
                "hello\r\nD: e\r\n",
            ),
            (&late, "A: b\r\n", &late_body),
            ("", "", ""),
        ] {
            for whole in both(text.as_bytes()) {
                let mut content = Content::read(whole).unwrap().unwrap();
                assert_eq!(String::from_utf8_lossy(&content.header), header);
                for _ in 0..2 {
                    let mut read = String::new();
                    content.body.rewind().unwrap();
                    content.body.read_to_string(&mut read).unwrap();
                    assert_eq!(read, body);
                }
            }
        }
    }

    /// What cannot be looked into must not get through by it.
    #[test]
    fn a_header_that_is_too_long_is_told_from_none() {
        for text in [
            format!("Subject: {}\r\n\r\nx", "x".repeat(2 * MAX_HEADER)),
            format!("A: b\r\n{}\r\nx", " c\r\n".repeat(MAX_HEADER)),
            "A: b\r\n".repeat(MAX_HEADER),
        ] {
            for whole in both(text.as_bytes()) {
                assert!(Content::read(whole).unwrap().is_none());
            }
        }
    }
}
