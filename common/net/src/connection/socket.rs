//! A socket of either family, in the loop.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::event::Source;

/// A socket in the loop.
pub(crate) enum Socket {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl From<mio::net::TcpStream> for Socket {
    fn from(stream: mio::net::TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl Socket {
    pub(crate) fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(s) => s,
            Self::Unix(s) => s,
        }
    }

    pub(super) fn shutdown(&self) {
        // It fails only where the peer is gone already.
        match self {
            Self::Tcp(s) => s.shutdown(Shutdown::Write).ok(),
            Self::Unix(s) => s.shutdown(Shutdown::Write).ok(),
        };
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buf),
            Self::Unix(s) => s.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(buf),
            Self::Unix(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
