//! Several small messages at once: one lock, and one read of the file for many of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use base::Doing;
use base::sys::LockKind;

use super::scan::{Record, Serve};
use super::{Mbox, bulk};
use crate::request::Whole;
use crate::trouble::Result;

/// Octets read at once, if as many are wanted.
const WINDOW: usize = 128 << 10;
/// The same where only headers are wanted.
const HEADER_WINDOW: usize = 16 << 10;

impl Mbox {
    /// Copies of the first of these messages, or of their headers, made under one lock. It ends
    /// before one that is not where it was, and before one that would make it too much.
    pub(crate) fn contents(
        &mut self,
        uids: &[u32],
        headers: bool,
        octets: usize,
    ) -> Result<Vec<Whole>> {
        let lock = self.lock(LockKind::Shared)?;
        self.load(lock.file())?;
        let mut window = Window {
            file: lock.file(),
            least: if headers { HEADER_WINDOW } else { WINDOW },
            start: 0,
            bytes: Vec::new(),
        };
        let (mut list, mut room) = (Vec::new(), octets);
        for uid in uids {
            let Some(record) = self.index(*uid).and_then(|at| self.records.get(at)) else {
                break;
            };
            let whole = window
                .message(record, headers, room)
                .doing(|| format!("read {}", self.at()))?;
            let Some(whole) = whole else { break };
            room = room.saturating_sub(whole.bytes.len());
            list.push(whole);
        }
        Ok(list)
    }
}

/// What was last read of the file.
struct Window<'a> {
    file: &'a File,
    /// Octets that are read at least, where the file has as many.
    least: usize,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// What is served of a record; `None` if it has more than `room`, or is not where it was.
    fn message(
        &mut self,
        record: &Record,
        headers: bool,
        room: usize,
    ) -> io::Result<Option<Whole>> {
        let (size, end) = if headers {
            let end = record.header + record.header_length;
            (record.item.header_size, end)
        } else {
            (record.item.size, record.end)
        };
        let stored = usize::try_from(end - record.header).unwrap_or(usize::MAX);
        // Fields that are not served may be larger than what is.
        let most = room.saturating_mul(2).saturating_add(HEADER_WINDOW);
        let Some(size) = usize::try_from(size).ok().filter(|size| *size <= room) else {
            return Ok(None);
        };
        if stored > most {
            return Ok(None);
        }
        let Some(raw) = self.octets(record.header, stored)? else {
            return Ok(None);
        };
        let header = usize::try_from(record.header_length).unwrap_or(usize::MAX);
        let Some((header, body)) = raw.split_at_checked(header) else {
            return Ok(None);
        };
        // The hash tells that the header still ends here.
        let mut serve = Serve::default();
        let mut bytes = serve.feed(header);
        let (rest, hash) = serve.finish();
        bytes.extend_from_slice(&rest);
        bytes.reserve(body.len() + body.len() / 16);
        bulk::serve(body, &mut bytes);
        if bytes.len() < size || hash != record.hash {
            return Ok(None);
        }
        bytes.truncate(size);
        Ok(Some(Whole {
            uid: record.item.uid,
            header: record.item.header_size,
            bytes,
        }))
    }

    fn octets(&mut self, start: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let within = |window: &Self| {
            let skip = usize::try_from(start.checked_sub(window.start)?).ok()?;
            let end = skip.checked_add(length)?;
            (end <= window.bytes.len()).then_some(skip..end)
        };
        let range = match within(self) {
            Some(range) => range,
            None => {
                self.start = start;
                self.read(length.max(self.least))?;
                0..length
            }
        };
        Ok(self.bytes.get(range))
    }

    /// Reads so many octets, or up to the end of the file.
    fn read(&mut self, length: usize) -> io::Result<()> {
        self.bytes.resize(length, 0);
        let mut have = 0;
        while let Some(space) = self.bytes.get_mut(have..).filter(|s| !s.is_empty()) {
            match self.file.read_at(space, self.start + have as u64) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.bytes.clear();
                    return Err(e);
                }
            }
        }
        self.bytes.truncate(have);
        Ok(())
    }
}
