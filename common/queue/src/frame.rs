//! The framing of a queue file: a line that names the format, then records of
//! `type (1), length (4, little-endian), crc32c of type, length and payload (4), payload`.
//!
//! A length is checked against the limit of its type before anything is allocated or read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The first bytes of every queue file; the number behind them is the version.
pub(crate) const MAGIC: &[u8] = b"yubin queue ";
/// The version that this program writes.
pub(crate) const VERSION: u32 = 1;
/// Bytes before a payload.
pub(crate) const HEADER: usize = 9;
/// Content is cut into pieces of exactly this size; only the last is shorter.
pub(crate) const CHUNK: usize = 64 * 1024;
/// No other record before END is longer.
const MAX_HEAD: usize = 64 * 1024;
/// A journal record can name all recipients of a large list.
const MAX_EVENT: usize = 1024 * 1024;

/// Journal records are written over zeros behind END, so that a sync of one finds nothing to do but
/// its data: no new block, no new length, and so no commit of the file system's journal.
const BLOCK: usize = 4096;
/// A new file has at least this much room: what is recorded of an ordinary delivery.
pub(crate) const ROOM: usize = 768;
/// Zeros at the end of a file are room; there are never more.
pub(crate) const MAX_ROOM: usize = ROOM + BLOCK;

/// Appends the zeros that end a file whose first byte of `out` stands at `at`: at least `room`, up
/// to the end of a block.
pub(crate) fn append_room(out: &mut Vec<u8>, at: u64, room: usize) {
    let filled = usize::try_from(at % BLOCK as u64).unwrap_or(0) + out.len();
    let until = (filled + room).next_multiple_of(BLOCK);
    out.resize(out.len() + (until - filled), 0);
}

/// The types of records, in the order in which they stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Origin,
    Envelope,
    Recipient,
    Content,
    End,
    Journal,
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Self::Origin => b'O',
            Self::Envelope => b'E',
            Self::Recipient => b'R',
            Self::Content => b'C',
            Self::End => b'Z',
            Self::Journal => b'J',
        }
    }

    fn from_letter(letter: u8) -> Option<Self> {
        [
            Self::Origin,
            Self::Envelope,
            Self::Recipient,
            Self::Content,
            Self::End,
            Self::Journal,
        ]
        .into_iter()
        .find(|k| k.letter() == letter)
    }

    /// The longest payload.
    pub(crate) fn limit(self) -> usize {
        match self {
            Self::Content => CHUNK,
            Self::Journal => MAX_EVENT,
            Self::Origin | Self::Envelope | Self::Recipient | Self::End => MAX_HEAD,
        }
    }
}

/// The line a file of this version starts with.
pub(crate) fn magic_line() -> Vec<u8> {
    let mut line = MAGIC.to_vec();
    line.extend_from_slice(VERSION.to_string().as_bytes());
    line.push(b'\n');
    line
}

/// The bytes before a payload; `None` when it is longer than its type allows.
pub(crate) fn header(kind: Kind, payload: &[u8]) -> Option<[u8; HEADER]> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= kind.limit())?;
    let mut header = [0; HEADER];
    let (front, sum) = header.split_at_mut(5);
    let (letter, size) = front.split_at_mut(1);
    letter.copy_from_slice(&[kind.letter()]);
    size.copy_from_slice(&length.to_le_bytes());
    sum.copy_from_slice(&checksum(kind.letter(), length, payload).to_le_bytes());
    Some(header)
}

/// Appends a whole record to `out`; `None` when it is longer than its type allows.
pub(crate) fn append(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) -> Option<()> {
    out.extend_from_slice(&header(kind, payload)?);
    out.extend_from_slice(payload);
    Some(())
}

fn checksum(letter: u8, length: u32, payload: &[u8]) -> u32 {
    let mut front = [letter, 0, 0, 0, 0];
    if let Some(size) = front.get_mut(1..) {
        size.copy_from_slice(&length.to_le_bytes());
    }
    crc32c::crc32c_append(crc32c::crc32c(&front), payload)
}

/// A record's header, read and found possible.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) length: usize,
    sum: u32,
}

impl Head {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let [letter, l0, l1, l2, l3, s0, s1, s2, s3] = *header;
        let kind = Kind::from_letter(letter)?;
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
        let sum = u32::from_le_bytes([s0, s1, s2, s3]);
        (length <= kind.limit()).then_some(Self { kind, length, sum })
    }

    pub(crate) fn matches(&self, payload: &[u8]) -> bool {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        payload.len() == self.length && checksum(self.kind.letter(), length, payload) == self.sum
    }
}

/// Reads a file forwards through a buffer that never holds more than one record and a bit.
pub(crate) struct Scanner<'a> {
    file: &'a File,
    /// Where the next byte to hand out stands in the file.
    at: u64,
    buffer: Vec<u8>,
    /// The part of the buffer that was handed out.
    used: usize,
}

/// How much a scanner reads at a time: most messages come in one piece.
const READ_AHEAD: usize = 80 * 1024;

impl<'a> Scanner<'a> {
    pub(crate) fn new(file: &'a File, at: u64) -> Self {
        Self {
            file,
            at,
            buffer: Vec::new(),
            used: 0,
        }
    }

    /// Where the next byte stands.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The next bytes without moving on; fewer than `wanted` only at the end of the file.
    pub(crate) fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        let have = self.buffer.len() - self.used;
        if have < wanted {
            self.buffer.drain(..self.used);
            self.used = 0;
            let mut filled = self.buffer.len();
            self.buffer.resize(wanted.max(READ_AHEAD), 0);
            while filled < wanted {
                let from = self.at.saturating_add(filled as u64);
                match self
                    .file
                    .read_at(self.buffer.get_mut(filled..).unwrap_or_default(), from)
                {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                    Err(e) => return Err(e),
                }
            }
            self.buffer.truncate(filled);
        }
        let rest = self.buffer.get(self.used..).unwrap_or_default();
        Ok(rest.get(..wanted).unwrap_or(rest))
    }

    /// Moves on.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes as u64);
        self.used = self.used.saturating_add(bytes).min(self.buffer.len());
    }

    /// Moves on without reading, to an absolute place.
    pub(crate) fn seek(&mut self, at: u64) {
        self.at = at;
        self.buffer.clear();
        self.used = 0;
    }

    /// The next record's type and payload, without moving on. `Ok(None)` where there is no sound
    /// record: the end of the file, a torn tail or damage.
    pub(crate) fn record(&mut self) -> io::Result<Option<(Head, &[u8])>> {
        let Some(head) = Head::parse(self.peek(HEADER)?) else {
            return Ok(None);
        };
        let whole = self.peek(HEADER + head.length)?;
        let payload = whole.get(HEADER..).unwrap_or_default();
        Ok(head.matches(payload).then_some((head, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn records_are_read_back_in_order() {
        let mut bytes = Vec::new();
        let chunk = vec![7; CHUNK];
        for (kind, payload) in [
            (Kind::Origin, &b"o"[..]),
            (Kind::Content, &chunk),
            (Kind::End, b""),
        ] {
            append(&mut bytes, kind, payload).unwrap();
        }
        let file = file(&bytes);
        let mut scanner = Scanner::new(&file, 0);
        let mut seen = Vec::new();
        while let Some((head, payload)) = scanner.record().unwrap() {
            seen.push((head.kind, payload.len()));
            let length = HEADER + payload.len();
            scanner.skip(length);
        }
        assert_eq!(
            seen,
            [(Kind::Origin, 1), (Kind::Content, CHUNK), (Kind::End, 0)]
        );
        assert_eq!(scanner.at(), bytes.len() as u64);
    }

    #[test]
    fn a_length_beyond_its_limit_is_never_allocated() {
        for (kind, length) in [
            (b'C', u32::MAX),
            (b'C', 65_537),
            (b'J', 1 << 20 | 1),
            (b'?', 1),
            (0, 0),
        ] {
            let mut bytes = vec![kind];
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&[0; 64]);
            assert!(Head::parse(&bytes).is_none(), "{kind} {length}");
        }
        assert!(append(&mut Vec::new(), Kind::Content, &vec![0; CHUNK + 1]).is_none());
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let mut bytes = Vec::new();
        append(&mut bytes, Kind::Journal, b"payload").unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Scanner::new(&file(&bad), 0).record().unwrap().is_none(),
                "bit {bit}"
            );
        }
    }
}
