//! Small messages between processes of ours on one host: lists of byte strings in one packet, with
//! file descriptors beside them. A packet arrives whole or not at all; what does not parse is an
//! error at the reader's side, because the other side may run as somebody else.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use crate::sys;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
    recvmsg, sendmsg, socketpair,
};

/// Octets in a packet.
const MAX: usize = 128 << 10;
/// Descriptors beside one; the kernel takes 253.
pub const MAX_FDS: usize = 64;

/// One end of a socket on which packets go both ways.
#[derive(Debug)]
pub struct Packets(OwnedFd);

/// What came in one.
pub struct Packet {
    pub parts: Vec<Vec<u8>>,
    pub fds: Vec<OwnedFd>,
}

impl Packets {
    /// Two ends.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self(a), Self(b)))
    }

    /// Sends the strings, with descriptors.
    pub fn send(&self, parts: &[&[u8]], fds: &[RawFd]) -> io::Result<()> {
        self.send_with(parts, fds, MsgFlags::MSG_NOSIGNAL)
    }

    /// Sends, or fails with `WouldBlock` where the other end has too much to read already.
    pub fn try_send(&self, parts: &[&[u8]], fds: &[RawFd]) -> io::Result<()> {
        self.send_with(parts, fds, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)
    }

    fn send_with(&self, parts: &[&[u8]], fds: &[RawFd], flags: MsgFlags) -> io::Result<()> {
        let mut bytes = Vec::new();
        for part in parts {
            let length = u32::try_from(part.len()).map_err(|_| too_long())?;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(part);
        }
        if bytes.is_empty() || bytes.len() > MAX || fds.len() > MAX_FDS {
            return Err(too_long());
        }
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        loop {
            let slices = [IoSlice::new(&bytes)];
            match sendmsg::<()>(self.0.as_raw_fd(), &slices, control, flags, None) {
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Whether a packet, or the end, comes within this time.
    pub fn wait(&self, time: Duration) -> io::Result<bool> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(
                &mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)],
                timeout,
            ) {
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
                Ok(ready) => return Ok(ready > 0),
            }
        }
    }

    /// Waits for a packet; `None` when the other end is closed.
    pub fn receive(&self) -> io::Result<Option<Packet>> {
        let mut space = cmsg_space!([RawFd; MAX_FDS]);
        loop {
            // Its length first: a buffer for the longest would be most of the work.
            let look = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
            let length = match recv(self.0.as_raw_fd(), &mut [], look) {
                Err(Errno::EINTR) => continue,
                Err(Errno::ECONNRESET) => return Ok(None),
                Err(e) => return Err(e.into()),
                Ok(length) => length,
            };
            let mut bytes = vec![0; length.min(MAX)];
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let (length, given) =
                match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                    Err(Errno::EINTR) => continue,
                    Err(Errno::ECONNRESET) => return Ok(None),
                    Err(e) => return Err(e.into()),
                    Ok(message) => {
                        let mut given = Vec::new();
                        for control in message.cmsgs()? {
                            if let ControlMessageOwned::ScmRights(fds) = control {
                                given.extend(fds);
                            }
                        }
                        (message.bytes, given)
                    }
                };
            // Taken over before anything else, so that none stays open.
            let fds = given
                .into_iter()
                .map(sys::inherited)
                .collect::<io::Result<_>>()?;
            if length == 0 {
                return Ok(None);
            }
            let parts = split(bytes.get(..length).unwrap_or_default())
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a packet"))?;
            return Ok(Some(Packet { parts, fds }));
        }
    }
}

impl From<Packets> for OwnedFd {
    fn from(packets: Packets) -> Self {
        packets.0
    }
}

impl From<OwnedFd> for Packets {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Packets {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "packet too long")
}

fn split(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (part, rest) = rest.split_at_checked(length)?;
        parts.push(part.to_vec());
        bytes = rest;
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    #[test]
    fn strings_and_files_arrive_whole() {
        let (a, b) = Packets::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        a.send(&[b"verb", b"", &[0; 1000]], &[file.as_raw_fd()])
            .unwrap();
        a.send(&[b"next"], &[]).unwrap();
        let first = b.receive().unwrap().unwrap();
        assert_eq!(first.parts, [b"verb".to_vec(), vec![], vec![0; 1000]]);
        let mut given = File::from(first.fds.into_iter().next().unwrap());
        given.rewind().unwrap();
        let mut text = String::new();
        given.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        assert!(b.wait(Duration::ZERO).unwrap());
        assert_eq!(b.receive().unwrap().unwrap().parts, [b"next".to_vec()]);
        assert!(!b.wait(Duration::from_millis(1)).unwrap());
        drop(a);
        assert!(b.receive().unwrap().is_none());
        assert!(b.send(&[b"x"], &[]).is_err());
    }

    #[test]
    fn lengths_are_not_believed() {
        let table: [(&[u8], Option<usize>); 6] = [
            (b"", Some(0)),
            (b"\0\0\0\x01a", Some(1)),
            (b"\0\0\0\0\0\0\0\0", Some(2)),
            (b"\0\0\0\x02a", None),
            (b"\xff\xff\xff\xff", None),
            (b"\0\0\0", None),
        ];
        for (bytes, count) in table {
            assert_eq!(split(bytes).map(|p| p.len()), count, "{bytes:?}");
        }
    }
}
