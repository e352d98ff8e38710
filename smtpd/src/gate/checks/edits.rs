//! Changes to a text, in its order, made in the end.

use std::io::{self, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use base::{Doing, Fail};
use queue::Queue;

use crate::gate::Body;

/// Changes of one text; a rule that changes more lines belongs into another program.
const MAX_EDITS: usize = 10_000;
/// Octets of a line that we write; RFC 5322 2.1.1 has 998.
const MAX_LINE: usize = 990;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Edits {
    /// What each range becomes; ascending, none within another.
    all: Vec<(Range<u64>, Vec<u8>)>,
    /// There were too many.
    pub(super) overflow: bool,
}

impl Edits {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// `range` lies behind those before; it becomes `text`.
    pub(super) fn replace(&mut self, range: Range<u64>, text: Vec<u8>) {
        if let Some((last, before)) = self.all.last_mut()
            && last.end == range.start
            && before.is_empty()
            && text.is_empty()
        {
            last.end = range.end;
        } else if self.all.len() >= MAX_EDITS {
            self.overflow = true;
        } else {
            self.all.push((range, text));
        }
    }

    /// Of a text in memory.
    pub(super) fn apply(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        for (range, new) in &self.all {
            let start = usize::try_from(range.start).unwrap_or(usize::MAX);
            out.extend_from_slice(text.get(at..start).unwrap_or_default());
            out.extend_from_slice(new);
            at = usize::try_from(range.end).unwrap_or(usize::MAX);
        }
        out.extend_from_slice(text.get(at..).unwrap_or_default());
        out
    }

    /// Of a body, which is written anew. Blocks.
    pub(super) fn apply_to(&self, body: &mut Body, queue: &Queue) -> Result<Body, Fail> {
        if let Body::Memory(text) = body {
            return Ok(Body::Memory(Cursor::new(self.apply(text.get_ref()))));
        }
        let doing = || "write a message anew";
        let mut out = BufWriter::new(queue.scratch()?);
        self.copy(body, &mut out).doing(doing)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error);
        Ok(Body::File(file.doing(doing)?, 0))
    }

    fn copy(&self, body: &mut Body, out: &mut impl Write) -> io::Result<()> {
        body.rewind()?;
        let mut at = 0;
        for (range, new) in &self.all {
            let kept = range.start.saturating_sub(at);
            io::copy(&mut body.by_ref().take(kept), out)?;
            out.write_all(new)?;
            body.seek(SeekFrom::Start(range.end))?;
            at = range.end;
        }
        io::copy(body, out).map(drop)
    }
}

/// A line of ours, with its end; a long one is folded at blanks, or cut where it has none.
pub(super) fn line(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len().saturating_add(2));
    let mut length = 0;
    for &byte in text {
        if length > MAX_LINE / 2 && byte == b' ' {
            out.extend_from_slice(b"\r\n");
            length = 0;
        }
        if length < MAX_LINE {
            out.push(byte);
            length += 1;
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_is_the_same_in_memory_and_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::create(&base::Root::new(dir.path())).unwrap();
        let text = b"xxone\r\ntwo\r\nthree\r\nfour\r\n";
        let mut edits = Edits::default();
        assert!(edits.is_empty());
        edits.replace(0..0, b"zero\r\n".to_vec());
        edits.replace(5..10, Vec::new());
        edits.replace(10..17, Vec::new());
        edits.replace(17..23, b"4\r\n".to_vec());
        assert_eq!(edits.all.len(), 3);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let memory = Body::Memory(Cursor::new(text[2..].to_vec()));
        for mut body in [memory, Body::File(file, 2)] {
            let mut new = edits.apply_to(&mut body, &queue).unwrap();
            let mut read = String::new();
            new.rewind().unwrap();
            new.read_to_string(&mut read).unwrap();
            assert_eq!(read, "zero\r\none\r\n4\r\n");
        }
    }

    #[test]
    fn there_are_not_too_many() {
        let mut edits = Edits::default();
        for at in 0..=MAX_EDITS as u64 {
            assert!(!edits.overflow);
            edits.replace(at..at, b"x".to_vec());
        }
        assert!(edits.overflow);
        assert_eq!(edits.all.len(), MAX_EDITS);
    }

    #[test]
    fn a_long_line_is_folded_or_cut() {
        assert_eq!(line(b"a b"), b"a b\r\n");
        let words = "word ".repeat(400);
        let folded = line(words.as_bytes());
        assert!(folded.split(|b| *b == b'\n').all(|l| l.len() <= 998));
        assert_eq!(
            String::from_utf8(folded).unwrap().replace("\r\n", ""),
            words
        );
        assert_eq!(line(&[b'x'; 2000]).len(), MAX_LINE + 2);
    }
}
