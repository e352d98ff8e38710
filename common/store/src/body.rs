//! A copy of a message's octets, in memory up to 8 MB, beyond that in a file without a name.
//!
//! A message is copied under one lock before its length is told to anybody, so that no other
//! program's change to the mailbox can make the length wrong or mix two messages.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use base::{Doing, Fail};

use crate::beneath::Dir;

/// Octets that are kept in memory.
const IN_MEMORY: usize = 8 << 20;

/// Octets that can be added to, and read at any place.
#[derive(Debug)]
pub(crate) struct Body {
    memory: Vec<u8>,
    file: Option<File>,
    size: u64,
    /// Where the file without a name is made.
    dir: Dir,
    at: u64,
}

impl Body {
    pub(crate) fn new(dir: &Dir) -> Self {
        Self {
            memory: Vec::new(),
            file: None,
            size: 0,
            dir: dir.clone(),
            at: 0,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds to the end.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        if self.file.is_none() && self.memory.len() + bytes.len() > IN_MEMORY {
            let doing = || format!("make a temporary file in {}", self.dir.path().display());
            let file = self.dir.temporary().doing(doing)?;
            file.write_all_at(&self.memory, 0).doing(doing)?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        match &self.file {
            Some(file) => file
                .write_all_at(bytes, self.size)
                .doing(|| format!("write a temporary file in {}", self.dir.path().display()))?,
            None => self.memory.extend_from_slice(bytes),
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Cuts what is beyond `size`.
    pub(crate) fn truncate(&mut self, size: u64) {
        self.size = self.size.min(size);
        if self.file.is_none()
            && let Ok(size) = usize::try_from(self.size)
        {
            self.memory.truncate(size);
        }
    }

    /// Up to `length` octets from `offset`; none at or beyond the end.
    pub(crate) fn piece(&self, offset: u64, length: usize) -> Result<Vec<u8>, Fail> {
        let left = self.size.saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(length);
        let mut bytes = vec![0; length];
        match &self.file {
            Some(file) => file
                .read_exact_at(&mut bytes, offset)
                .doing(|| "read a copied message")?,
            None => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let found = self.memory.get(start..).and_then(|rest| rest.get(..length));
                bytes.copy_from_slice(found.unwrap_or(&vec![0; length]));
            }
        }
        Ok(bytes)
    }
}

impl Write for Body {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self
            .piece(self.at, buffer.len())
            .map_err(io::Error::other)?;
        let (to, _) = buffer.split_at_mut(bytes.len());
        to.copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

impl Seek for Body {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_read_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::root(temp.path()).unwrap();
        for size in [0, 10, IN_MEMORY + 3] {
            let mut body = Body::new(&dir);
            let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
            for chunk in bytes.chunks(1 << 20) {
                body.push(chunk).unwrap();
            }
            assert_eq!(body.size(), size as u64);
            assert_eq!(body.piece(0, size + 9).unwrap(), bytes);
            assert!(body.piece(size as u64, 9).unwrap().is_empty());
            assert!(body.piece(u64::MAX, 9).unwrap().is_empty());
            let mut back = Vec::new();
            body.seek(SeekFrom::Start(0)).unwrap();
            body.read_to_end(&mut back).unwrap();
            assert_eq!(back, bytes);
            body.truncate(5);
            assert_eq!(body.piece(3, 9).unwrap(), bytes[3.min(size)..5.min(size)]);
        }
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
