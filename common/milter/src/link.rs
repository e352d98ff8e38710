//! A milter's stream: packets go out together and come back one by one, each before its deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use base::config::MilterSocket;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt::SendTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::conversation::Trouble;
use crate::packet;

/// Octets read at a time.
const PIECE: usize = 16 << 10;

#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Connects within `patience`.
    pub(crate) fn open(to: &MilterSocket, patience: Duration) -> io::Result<Self> {
        let until = Instant::now() + patience;
        match to {
            MilterSocket::Unix(path) => {
                let flags = SockFlag::SOCK_CLOEXEC;
                let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
                // While the milter's backlog is full connect(2) waits as long as a send would.
                setsockopt(&fd, SendTimeout, &time_val(left(until)?))?;
                connect(fd.as_raw_fd(), &UnixAddr::new(path.as_path())?)?;
                Ok(Self::Unix(fd.into()))
            }
            MilterSocket::Inet(host, port) => {
                let mut last = io::Error::from(ErrorKind::NotFound);
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, left(until)?) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(e) => last = e,
                    }
                }
                Err(last)
            }
        }
    }

    fn read(&mut self, into: &mut [u8], patience: Duration) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.read(into)
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.read(into)
            }
        }
    }

    fn write(&mut self, bytes: &[u8], patience: Duration) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => {
                stream.set_write_timeout(Some(patience))?;
                stream.write(bytes)
            }
            Self::Tcp(stream) => {
                stream.set_write_timeout(Some(patience))?;
                stream.write(bytes)
            }
        }
    }

    /// Writes what goes at once; the rest is nobody's loss.
    fn last_words(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => {
                stream.set_nonblocking(true)?;
                stream.write(bytes)
            }
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.write(bytes)
            }
        }
    }
}

/// The time up to `until`; an error when there is none.
fn left(until: Instant) -> io::Result<Duration> {
    until
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
        .ok_or_else(|| ErrorKind::TimedOut.into())
}

/// A timeout for a socket; one of nothing would be none.
fn time_val(time: Duration) -> TimeVal {
    TimeVal::microseconds(i64::try_from(time.as_micros()).unwrap_or(i64::MAX).max(1))
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    stream: Stream,
    /// What waits to be sent.
    out: Vec<u8>,
    input: Vec<u8>,
    /// Where in the input the next packet begins.
    at: usize,
}

impl Link {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            out: Vec::new(),
            input: Vec::new(),
            at: 0,
        }
    }

    /// What is appended here goes out with [`Link::send`].
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Sends all that waits.
    pub(crate) fn send(&mut self, until: Instant) -> Result<(), Trouble> {
        let mut bytes = self.out.as_slice();
        while !bytes.is_empty() {
            match self.stream.write(bytes, left(until)?) {
                Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.out.clear();
        Ok(())
    }

    /// The next packet, understood by `read`.
    pub(crate) fn receive<T>(
        &mut self,
        until: Instant,
        read: impl FnOnce(packet::Packet<'_>) -> Result<T, packet::Garbage>,
    ) -> Result<T, Trouble> {
        while packet::first(self.waiting())?.is_none() {
            self.fill(until)?;
        }
        let Some((packet, length)) = packet::first(self.waiting())? else {
            return Err(Trouble::Gone);
        };
        let understood = read(packet)?;
        self.at = self.at.saturating_add(length);
        if self.at == self.input.len() {
            self.input.clear();
            self.input.shrink_to(PIECE);
            self.at = 0;
        }
        Ok(understood)
    }

    /// Nothing came that nobody asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting().is_empty()
    }

    /// What came and was not taken yet.
    fn waiting(&self) -> &[u8] {
        self.input.get(self.at..).unwrap_or_default()
    }

    fn fill(&mut self, until: Instant) -> Result<(), Trouble> {
        // Bounded: a packet is at most packet::MAX, and no more is read before it is taken.
        self.input.drain(..self.at);
        self.at = 0;
        let had = self.input.len();
        self.input.resize(had + PIECE, 0);
        let patience = left(until);
        let read = patience.and_then(|patience| {
            let room = self.input.get_mut(had..).unwrap_or_default();
            self.stream.read(room, patience)
        });
        let n = match &read {
            Ok(n) => *n,
            Err(_) => 0,
        };
        self.input.truncate(had + n);
        match read {
            Ok(0) => Err(Trouble::Gone),
            Err(e) if e.kind() != ErrorKind::Interrupted => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Says so without waiting, for who leaves.
    pub(crate) fn leave(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        // It may be gone already; it notices the end of the stream as well.
        self.stream.last_words(&self.out).ok();
    }
}
