//! The connections to one policy server: opened when they are wanted, kept, and used again by
//! whichever session asks next. Every wait has an end.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::config::PolicyService;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// For one question, with the connection that it may need.
const TIME: Duration = Duration::from_secs(20);
/// A connection that nobody used for so long is closed: the server may have done so too.
const IDLE: Duration = Duration::from_secs(60);
/// Connections that are kept.
const KEPT: usize = 50;
/// Octets of an answer.
const MAX_ANSWER: usize = 8192;
/// While the server's backlog is full.
const PAUSE: Duration = Duration::from_millis(20);

/// One of them.
#[derive(Debug)]
pub(super) struct Server {
    service: PolicyService,
    idle: Mutex<Vec<(Stream, Instant)>>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.service.fmt(f)
    }
}

impl Server {
    pub(super) fn new(service: PolicyService) -> Self {
        Self {
            service,
            idle: Mutex::default(),
        }
    }

    /// The answer up to its empty line. A connection that was kept may have died meanwhile: then a
    /// new one is tried, once. Blocks, for a bounded time.
    pub(super) fn ask(&self, request: &[u8]) -> Result<String, String> {
        let until = Instant::now() + TIME;
        if let Some(mut stream) = self.kept()
            && let Ok(answer) = exchange(&mut stream, request, until)
        {
            self.keep(stream);
            return Ok(answer);
        }
        let mut stream = open(&self.service, until).map_err(|e| format!("connect: {e}"))?;
        let answer = exchange(&mut stream, request, until).map_err(|e| e.to_string())?;
        self.keep(stream);
        Ok(answer)
    }

    fn kept(&self) -> Option<Stream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        idle.pop().map(|(stream, _)| stream)
    }

    fn keep(&self, stream: Stream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push((stream, Instant::now()));
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

fn open(service: &PolicyService, until: Instant) -> io::Result<Stream> {
    match service {
        PolicyService::Inet(address) => open_tcp(*address, until).map(Stream::Tcp),
        PolicyService::Unix(path) => open_unix(path, until).map(Stream::Unix),
    }
}

fn open_tcp(address: SocketAddr, until: Instant) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, left(until)?)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Without waiting in the kernel, where a full backlog would keep us for ever.
fn open_unix(path: &Path, until: Instant) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let address = UnixAddr::new(path)?;
    loop {
        let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => {
                let stream = UnixStream::from(socket);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {
                std::thread::sleep(PAUSE.min(left(until)?));
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// What is left of the time; never nothing, which would mean for ever.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
    }
    Ok(left)
}

fn exchange(stream: &mut Stream, request: &[u8], until: Instant) -> io::Result<String> {
    stream.patience(left(until)?)?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    loop {
        if let Some(end) = memchr::memmem::find(&answer, b"\n\n") {
            answer.truncate(end);
            return String::from_utf8(answer)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "an answer beyond UTF-8"));
        }
        if answer.len() > MAX_ANSWER {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an answer without an end",
            ));
        }
        stream.patience(left(until)?)?;
        match stream.read(&mut piece) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "closed the connection",
                ));
            }
            Ok(n) => answer.extend_from_slice(piece.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

impl Stream {
    fn patience(&self, time: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(time))?;
                stream.set_write_timeout(Some(time))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(time))?;
                stream.set_write_timeout(Some(time))
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(from),
            Self::Unix(stream) => stream.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A server that gives these answers, one connection each list.
    fn server(answers: Vec<Vec<&'static str>>) -> (tempfile::TempDir, Server) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for answers in answers {
                let (mut stream, _) = listener.accept().unwrap();
                for answer in answers {
                    let mut asked = *b"request\n\n";
                    stream.read_exact(&mut asked).unwrap();
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        (dir, Server::new(PolicyService::Unix(path)))
    }

    #[test]
    fn a_connection_is_used_again_and_a_dead_one_replaced() {
        let (_dir, server) = server(vec![
            vec!["action=a\n\n", "action=b\n\n"],
            vec!["x=y\naction=c\n\n"],
        ]);
        for wanted in ["action=a", "action=b", "x=y\naction=c"] {
            assert_eq!(server.ask(b"request\n\n").unwrap(), wanted);
        }
        assert_eq!(server.idle.lock().unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_answer() {
        let long: &'static str = Box::leak("x".repeat(MAX_ANSWER + 1).into_boxed_str());
        for answer in ["action=a", "action=\u{0}", long] {
            let (_dir, server) = server(vec![vec![answer]]);
            assert!(server.ask(b"request\n\n").is_err(), "{answer:.20}");
            assert!(server.idle.lock().unwrap().is_empty());
        }
        let nobody = Server::new(PolicyService::Unix("/nonexistent/policy".into()));
        assert!(nobody.ask(b"x").unwrap_err().starts_with("connect: "));
    }
}
