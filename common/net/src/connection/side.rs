//! The attached socket of a connection, with the same care: readiness remembered, output that the
//! peer does not take stops reading.

use std::io::{self, Read, Write};

use mio::Interest;

use super::{HIGH_WATER, Io, Ready, note_written};
use crate::buffer::Buffer;

/// The attached socket.
pub(super) struct Side {
    stream: mio::net::UnixStream,
    input: Buffer,
    pub(super) output: Buffer,
    readable: bool,
    writable: bool,
    ended: bool,
}

impl Io {
    pub(crate) fn attach(&mut self, stream: std::os::unix::net::UnixStream) -> io::Result<()> {
        self.detach();
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::UnixStream::from_std(stream);
        self.registry.register(
            &mut stream,
            self.side_token,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.side = Some(Side {
            stream,
            input: Buffer::default(),
            output: Buffer::default(),
            readable: true,
            writable: true,
            ended: false,
        });
        Ok(())
    }

    pub(crate) fn detach(&mut self) {
        if let Some(mut side) = self.side.take() {
            self.registry.deregister(&mut side.stream).ok();
        }
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.side.is_some()
    }

    pub(crate) fn side_write(&mut self, bytes: &[u8]) {
        if let Some(side) = &mut self.side {
            side.output.push(bytes);
        }
    }

    pub(crate) fn side_pending(&self) -> usize {
        self.side.as_ref().map_or(0, |side| side.output.len())
    }

    pub(crate) fn note_side_ready(&mut self, ready: Ready) {
        if let Some(side) = &mut self.side {
            side.readable |= ready.readable || ready.ended;
            side.writable |= ready.writable || ready.ended;
        }
    }

    pub(super) fn flush_side(&mut self) -> io::Result<()> {
        if let Some(side) = &mut self.side {
            while side.writable && !side.output.is_empty() {
                let sent = side.stream.write(side.output.bytes());
                let n = note_written(sent, &mut side.writable)?;
                side.output.consume(n);
            }
        }
        Ok(())
    }

    pub(crate) fn fill_side(&mut self, scratch: &mut [u8]) -> bool {
        let full = self.output.len() >= HIGH_WATER;
        let Some(side) = &mut self.side else {
            return false;
        };
        if !side.readable || side.ended || full || side.input.len() >= HIGH_WATER {
            return false;
        }
        match side.stream.read(scratch) {
            Ok(0) => side.ended = true,
            Ok(n) => side.input.push(scratch.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                side.readable = false;
                return false;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => side.ended = true,
        }
        true
    }

    pub(crate) fn may_feed_side(&self) -> bool {
        !self.is_closing() && self.side.is_some() && self.output.len() < HIGH_WATER
    }

    pub(crate) fn take_side_input(&mut self) -> Option<Buffer> {
        if !self.may_feed_side() {
            return None;
        }
        let side = self.side.as_mut().filter(|side| !side.input.is_empty())?;
        Some(std::mem::take(&mut side.input))
    }

    pub(crate) fn put_side_back(&mut self, rest: Buffer) {
        if let Some(side) = &mut self.side
            && side.input.is_empty()
        {
            side.input = rest;
        }
    }

    /// Whether the attached socket has ended and all it sent was offered; then it is detached.
    pub(crate) fn take_side_end(&mut self) -> bool {
        let ended = self.side.as_ref().is_some_and(|side| side.ended)
            && self.output.len() < HIGH_WATER
            && !self.is_closing();
        if ended {
            self.detach();
        }
        ended
    }
}
