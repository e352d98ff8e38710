//! Writes a queue file from its first line to END, through one buffer. What never fills the buffer needs
//! no file until it is committed.

use std::fs::File;
use std::io::Write;

use base::{Doing, Fail, Recipient};

use crate::event::Record;
use crate::file::MAX_RECIPIENTS;
use crate::frame::{self, CHUNK, HEADER, Kind};
use crate::origin::Origin;
use crate::records::{End, Wishes, encode_recipient};

/// What came of a [`Writer`].
#[derive(Debug)]
pub(crate) enum Written {
    File(File),
    /// It never had a file.
    Memory(Image),
}

/// A whole queue file in memory.
#[derive(Debug)]
pub(crate) struct Image {
    bytes: Vec<u8>,
    /// Where the room for its journal begins.
    end: usize,
}

impl Image {
    /// All that belongs into the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is said in it, without the room.
    pub(crate) fn records(&self) -> &[u8] {
        self.bytes.get(..self.end).unwrap_or_default()
    }
}

/// A file that is being written. After a failed write it stays failed.
#[derive(Debug)]
pub(crate) struct Writer {
    file: Option<File>,
    /// For messages.
    name: String,
    /// What is not in the file yet: whole records, then the open chunk behind room for its header.
    buffer: Vec<u8>,
    /// Where the open chunk's header goes, when there is one.
    chunk: Option<usize>,
    end: End,
    /// What is in the file already.
    written: u64,
    /// There will be a journal; a drop file has none.
    journal: bool,
    failed: bool,
}

impl Writer {
    /// Without a file it asks for one when it needs it: [`Writer::needs_file`].
    pub(crate) fn new(
        file: Option<File>,
        name: String,
        origin: Option<&Origin>,
        wishes: &Wishes,
        recipients: &[Recipient],
    ) -> Result<Self, Fail> {
        let too_many = || Fail::data(format!("queue {name}: {} recipients", recipients.len()));
        if recipients.is_empty() || recipients.len() > MAX_RECIPIENTS {
            return Err(too_many());
        }
        let mut buffer = frame::magic_line();
        let mut append = |kind, payload: &[u8]| {
            frame::append(&mut buffer, kind, payload).ok_or_else(|| too_long(&name))
        };
        if let Some(origin) = origin {
            append(Kind::Origin, &origin.encode())?;
        }
        append(Kind::Envelope, &wishes.encode())?;
        for recipient in recipients {
            append(Kind::Recipient, &encode_recipient(recipient))?;
        }
        Ok(Self {
            file,
            name,
            buffer,
            chunk: None,
            end: End::default(),
            written: 0,
            journal: origin.is_some(),
            failed: false,
        })
    }

    /// Whether this much more content is more than the buffer holds, and there is no file.
    pub(crate) fn needs_file(&self, more: usize) -> bool {
        self.file.is_none() && self.size().saturating_add(more as u64) >= CHUNK as u64
    }

    pub(crate) fn set_file(&mut self, file: File) {
        self.file = Some(file);
    }

    /// Appends content.
    pub(crate) fn write(&mut self, mut content: &[u8]) -> Result<(), Fail> {
        while !content.is_empty() {
            let start = match self.chunk {
                Some(start) => start,
                None => {
                    let start = self.buffer.len();
                    self.buffer.resize(start + HEADER, 0);
                    *self.chunk.insert(start)
                }
            };
            let room = (start + HEADER + CHUNK).saturating_sub(self.buffer.len());
            let (now, later) = content.split_at(room.min(content.len()));
            self.buffer.extend_from_slice(now);
            content = later;
            if now.len() == room {
                self.close_chunk()?;
                self.flush()?;
            }
        }
        Ok(())
    }

    /// How much content there is.
    pub(crate) fn size(&self) -> u64 {
        let open = self
            .chunk
            .map_or(0, |start| self.buffer.len().saturating_sub(start + HEADER));
        self.end.content_length + open as u64
    }

    /// Writes END and what has happened already.
    pub(crate) fn finish(mut self, journal: &[Record]) -> Result<Written, Fail> {
        self.close_chunk()?;
        self.end.whole = crc32c::crc32c_append(self.end.whole, &self.buffer);
        let end = self.end.encode();
        if frame::append(&mut self.buffer, Kind::End, &end).is_none() {
            self.failed = true;
        }
        for record in journal {
            if frame::append(&mut self.buffer, Kind::Journal, &record.encode()).is_none() {
                self.failed = true;
            }
        }
        let end = self.buffer.len();
        if self.journal {
            frame::append_room(&mut self.buffer, self.written, frame::ROOM);
        }
        if self.file.is_some() {
            self.put()?;
        }
        Ok(match self.file {
            Some(file) => Written::File(file),
            None if self.failed => return Err(too_long(&self.name)),
            None => Written::Memory(Image {
                bytes: self.buffer,
                end,
            }),
        })
    }

    fn close_chunk(&mut self) -> Result<(), Fail> {
        let Some(start) = self.chunk.take() else {
            return Ok(());
        };
        let doing = || {
            Fail::new(
                base::Sysexit::Software,
                format!("queue {}: chunk out of bounds", self.name),
            )
        };
        let (room, payload) = self
            .buffer
            .get_mut(start..)
            .and_then(|b| b.split_at_mut_checked(HEADER))
            .ok_or_else(doing)?;
        room.copy_from_slice(&frame::header(Kind::Content, payload).ok_or_else(doing)?);
        self.end.content_length += payload.len() as u64;
        self.end.content_sum = crc32c::crc32c_append(self.end.content_sum, payload);
        Ok(())
    }

    /// Takes the buffer, all whole records, into the checksum and to the file.
    fn flush(&mut self) -> Result<(), Fail> {
        self.end.whole = crc32c::crc32c_append(self.end.whole, &self.buffer);
        self.put()?;
        self.buffer.clear();
        Ok(())
    }

    fn put(&mut self) -> Result<(), Fail> {
        if self.failed {
            return Err(Fail::temp(format!(
                "write queue file {}: it failed before",
                self.name
            )));
        }
        let file = self.file.as_mut().ok_or_else(|| {
            let text = format!("write queue file {}: it has none", self.name);
            Fail::new(base::Sysexit::Software, text)
        })?;
        let written = file.write_all(&self.buffer);
        self.failed = written.is_err();
        self.written += self.buffer.len() as u64;
        written.doing(|| format!("write queue file {}", self.name))
    }
}

fn too_long(name: &str) -> Fail {
    Fail::data(format!("queue {name}: a field of the envelope is too long"))
}
