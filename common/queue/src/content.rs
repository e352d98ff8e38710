//! The content of an entry as a stream: `Read` and `Seek` over the bytes that were accepted.
//!
//! Each chunk's checksum is verified again when it is read, so a disk that forgets between the
//! claim and the delivery gives an error and never wrong bytes.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use crate::file::Contents;
use crate::frame::{CHUNK, HEADER, Head, Kind};

/// Reads an entry's content. It keeps its own place and may be made again at any time.
#[derive(Debug)]
pub struct Content<'a> {
    file: &'a File,
    /// Where the first chunk's record starts in the file.
    start: u64,
    length: u64,
    at: u64,
    /// The chunk in memory.
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl<'a> Content<'a> {
    pub(crate) fn new(file: &'a File, contents: &Contents) -> Self {
        Self {
            file,
            start: contents.content_at,
            length: contents.content_length,
            at: 0,
            chunk: Vec::new(),
            chunk_at: 0,
        }
    }

    /// How many bytes there are in all.
    pub fn size(&self) -> u64 {
        self.length
    }

    /// Reads the chunk that holds `self.at`, which is inside the content.
    fn load(&mut self) -> io::Result<()> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "queue file changed on disk");
        let number = self.at / CHUNK as u64;
        let chunk_at = number * CHUNK as u64;
        let length =
            usize::try_from((self.length - chunk_at).min(CHUNK as u64)).map_err(|_| damaged())?;
        let record_at = self.start + number * (HEADER + CHUNK) as u64;
        let mut header = [0; HEADER];
        self.file.read_exact_at(&mut header, record_at)?;
        self.chunk.resize(length, 0);
        self.file
            .read_exact_at(&mut self.chunk, record_at + HEADER as u64)?;
        let sound =
            Head::parse(&header).is_some_and(|h| h.kind == Kind::Content && h.matches(&self.chunk));
        if !sound {
            self.chunk.clear();
            return Err(damaged());
        }
        self.chunk_at = chunk_at;
        Ok(())
    }
}

impl BufRead for Content<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.length {
            return Ok(&[]);
        }
        let inside = |chunk_at: u64, chunk: &[u8], at: u64| {
            at.checked_sub(chunk_at)
                .and_then(|o| usize::try_from(o).ok())
                .filter(|o| *o < chunk.len())
        };
        if inside(self.chunk_at, &self.chunk, self.at).is_none() {
            self.load()?;
        }
        let offset = inside(self.chunk_at, &self.chunk, self.at).unwrap_or(self.chunk.len());
        Ok(self.chunk.get(offset..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.at.saturating_add(amount as u64).min(self.length);
    }
}

impl Read for Content<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

impl Seek for Content<'_> {
    /// Beyond the end is the end.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek before the start"))?
            .min(self.length);
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Lane;
    use crate::queue::tests::{claimed, put, scratch};

    #[test]
    fn any_part_can_be_read_from_anywhere() {
        let (_dir, queue) = scratch();
        let bytes: Vec<u8> = (0..=252).cycle().take(3 * CHUNK + 5).collect();
        let id = put(&queue, Lane::Local, &bytes);
        let entry = claimed(&queue, Lane::Local, &id);
        let mut content = entry.content();
        let mut all = Vec::new();
        content.read_to_end(&mut all).unwrap();
        assert!(all == bytes);
        for at in [
            0,
            1,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
            2 * CHUNK,
            bytes.len() - 1,
            bytes.len(),
        ] {
            content.seek(SeekFrom::Start(at as u64)).unwrap();
            let mut part = vec![0; 10.min(bytes.len() - at)];
            content.read_exact(&mut part).unwrap();
            assert_eq!(part, bytes[at..at + part.len()], "at {at}");
        }
        assert_eq!(
            content.seek(SeekFrom::End(-5)).unwrap(),
            bytes.len() as u64 - 5
        );
        assert_eq!(
            content.seek(SeekFrom::Current(100)).unwrap(),
            bytes.len() as u64
        );
        assert!(content.seek(SeekFrom::Current(i64::MIN)).is_err());
        assert_eq!(content.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn bytes_that_changed_on_disk_are_an_error() {
        let (_dir, queue) = scratch();
        let id = put(&queue, Lane::Local, &vec![b'x'; 2 * CHUNK]);
        let entry = claimed(&queue, Lane::Local, &id);
        let file = File::options()
            .write(true)
            .open(queue.path().join("local").join(id.as_str()))
            .unwrap();
        file.write_all_at(b"y", CHUNK as u64 + 2000).unwrap();
        let mut content = entry.content();
        let mut all = Vec::new();
        let fail = content.read_to_end(&mut all).unwrap_err();
        assert_eq!(fail.kind(), io::ErrorKind::InvalidData);
        assert_eq!(all.len(), CHUNK);
    }
}
