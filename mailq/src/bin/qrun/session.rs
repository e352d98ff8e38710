//! One connection to one host: the socket, TLS and the clock around the [`Client`].
//!
//! Guarantees: it ends. Each reply and each block of the message has its time (RFC 5321 4.5.3.2),
//! however slowly the bytes come and however many commands were pipelined; there are as many replies
//! as commands, and the message as a whole has its time too. The final dot is written only after the
//! whole message was read from the queue and written, and then its reply has all of its ten minutes.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use base::{Fail, Status};
use dns::Target;
use net::tls::{ClientStream, Connector, Verify};

use crate::client::{Action, Client, Input, Outcome, Progress, Tls, Verdict};
use crate::content::Stuffing;
use crate::mail::Mail;

/// For one address.
const CONNECT: Duration = Duration::from_secs(30);
/// For the message, plus a second for each [`SLOWEST`] octets of it.
const LONGEST: Duration = Duration::from_secs(3600);
const SLOWEST: u64 = 1024;
/// Octets of the message in one write.
const BLOCK: usize = 32 * 1024;
/// How long we look for the reason after a server has closed in mid-message.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What went wrong with ourselves: nobody is to blame but this host.
#[derive(Debug)]
pub(crate) enum Ours {
    /// No socket to be had, or the like.
    System(io::Error),
    /// The message cannot be read.
    Content(io::Error),
    /// We are to end, and nobody would wait for the server's answer.
    Stopping,
}

/// How a message is sent.
pub(crate) struct Terms<'a> {
    /// None: in the clear.
    pub(crate) tls: Option<&'a Connector>,
    /// Asked before the final dot: whether somebody will wait for the answer to it.
    pub(crate) may_end: &'a dyn Fn() -> bool,
    /// What the times of RFC 5321 are divided by; 1 but in tests.
    pub(crate) hurry: u32,
}

impl From<Ours> for Fail {
    fn from(ours: Ours) -> Self {
        match ours {
            Ours::System(e) => Self::io("connect", e),
            Ours::Content(e) => Self::io("read the message", e),
            Ours::Stopping => Self::temp("stopped before the end of the message"),
        }
    }
}

/// A message, in the forms that it can go in.
pub(crate) struct Forms<'a> {
    pub(crate) by_lines: &'a mut dyn Read,
    /// As it is; read only where [`Mail::binary`] says its size.
    pub(crate) binary: &'a mut dyn Read,
}

/// Sends a message to one host.
pub(crate) fn run(
    target: &Target,
    port: u16,
    mail: &Mail,
    content: &mut Forms<'_>,
    terms: &Terms<'_>,
) -> Result<Outcome, Ours> {
    let peer = peer(target, port);
    let stream = match TcpStream::connect_timeout(&SocketAddr::new(target.ip, port), CONNECT) {
        Ok(stream) => stream,
        Err(e) if is_ours(&e, target.ip) => return Err(Ours::System(e)),
        Err(e) => return Ok(unreachable(mail, &peer, &e)),
    };
    let wish = match terms.tls {
        Some(_) => Tls::May,
        None => Tls::Failed,
    };
    // Commands are written whole; waiting to join them would only cost time.
    stream.set_nodelay(true).map_err(Ours::System)?;
    let mut session = Session {
        client: Client::new(mail.clone(), peer, wish),
        stream: Some(Stream::Plain(Timed {
            socket: stream,
            by: Cell::new(Instant::now() + CONNECT),
        })),
        name: tls_name(target),
        terms,
        verify: match mail.needs.require_tls {
            true => Verify::Name,
            false => Verify::Never,
        },
        message: LONGEST + Duration::from_secs(mail.size / SLOWEST),
    };
    session.drive(content)?;
    Ok(session.client.outcome())
}

/// `mx.example.org[192.0.2.1]:25`
pub(crate) fn peer(target: &Target, port: u16) -> String {
    if target.host.ip().is_some() {
        return format!("{}:{port}", target.host);
    }
    format!("{}[{}]:{port}", target.host, target.ip)
}

/// What we ask for in SNI.
fn tls_name(target: &Target) -> String {
    match target.host.ip() {
        Some(ip) => ip.to_string(),
        None => target.host.as_str().to_owned(),
    }
}

/// Errors that say something about this host, not about the other one. A host that has no IPv6
/// finds no address of its own for the way there; that one cannot be reached, others can.
fn is_ours(e: &io::Error, ip: IpAddr) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    match e.raw_os_error() {
        Some(EADDRNOTAVAIL) => ip.to_canonical().is_ipv4(),
        Some(n) => [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(&n),
        None => false,
    }
}

fn unreachable(mail: &Mail, peer: &str, e: &io::Error) -> Outcome {
    let text = e.to_string();
    let why = match e.kind() {
        io::ErrorKind::TimedOut => "Connection timed out",
        _ => text.split(" (os error").next().unwrap_or(&text),
    };
    let verdict = Verdict {
        status: Status::NO_ANSWER,
        text: format!("connect to {peer}: {why}"),
    };
    Outcome {
        verdicts: vec![verdict; mail.recipients.len()],
        progress: Progress::Unreached,
        tls_failed: false,
        dsn: false,
        unfit: false,
    }
}

/// A socket whose every read and write ends in time, however slowly the bytes come.
struct Timed {
    socket: TcpStream,
    by: Cell<Instant>,
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(left(self.by.get())?))?;
        self.socket.read(into)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(left(self.by.get())?))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Stream {
    Plain(Timed),
    Tls(Box<ClientStream<Timed>>),
}

impl Stream {
    fn timed(&self) -> &Timed {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.stream(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

struct Session<'a> {
    client: Client,
    /// None once it is closed.
    stream: Option<Stream>,
    name: String,
    terms: &'a Terms<'a>,
    verify: Verify,
    /// What the message as a whole has.
    message: Duration,
}

impl Session<'_> {
    fn drive(&mut self, content: &mut Forms<'_>) -> Result<(), Ours> {
        let mut actions = Vec::new();
        while !self.client.is_closed() {
            self.read(&mut actions);
            // An action can lead to further ones.
            while !actions.is_empty() {
                for action in std::mem::take(&mut actions) {
                    self.act(action, content, &mut actions)?;
                }
            }
        }
        Ok(())
    }

    fn act(
        &mut self,
        action: Action,
        content: &mut Forms<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), Ours> {
        match action {
            Action::Send(text) => {
                let by = self.by();
                if let Err(e) = self.write(text.as_bytes(), by) {
                    self.lost(&e, actions);
                }
            }
            Action::StartTls => self.start_tls(actions),
            // A reply that came too early may have ended it.
            Action::SendContent | Action::SendBinary(_) if self.client.is_closed() => (),
            Action::SendContent => self.send(content.by_lines, actions)?,
            Action::SendBinary(size) => self.send_binary(content.binary, size, actions)?,
            Action::Close => {
                if let Some(Stream::Tls(mut stream)) = self.stream.take() {
                    // The verdicts are there; whether the peer hears our end matters to nobody.
                    stream.close().ok();
                }
            }
        }
        Ok(())
    }

    /// The time by which the server has to do what is awaited now.
    fn by(&self) -> Instant {
        Instant::now() + self.client.deadline() / self.terms.hurry
    }

    /// Reads until the client has something to do, or the time for a reply is over.
    fn read(&mut self, actions: &mut Vec<Action>) {
        let mut by = self.by();
        let mut known = self.client.replies();
        let mut buffer = [0; 4096];
        while actions.is_empty() && !self.client.is_closed() {
            if self.client.replies() != known {
                // The next reply of a flight has its own time.
                known = self.client.replies();
                by = self.by();
            }
            match self.read_some(&mut buffer, by) {
                Ok(0) => self.client.step(Input::Lost("lost connection"), actions),
                Ok(n) => {
                    let bytes = buffer.get(..n).unwrap_or_default();
                    self.client.step(Input::Bytes(bytes), actions);
                }
                Err(e) => self.lost(&e, actions),
            }
        }
    }

    fn read_some(&mut self, into: &mut [u8], by: Instant) -> io::Result<usize> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.timed().by.set(by);
        loop {
            match stream.read(into) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                other => return other,
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8], by: Instant) -> io::Result<()> {
        let Some(stream) = self.stream.as_mut() else {
            return Ok(()); // QUIT to a connection that is gone
        };
        stream.timed().by.set(by);
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) => return Err(e),
            }
        }
        stream.flush()
    }

    fn lost(&mut self, e: &io::Error, actions: &mut Vec<Action>) {
        let why = match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "conversation timed out",
            _ => "lost connection",
        };
        log::debug!("{}: {e}", self.name);
        self.client.step(Input::Lost(why), actions);
    }

    fn start_tls(&mut self, actions: &mut Vec<Action>) {
        let (Some(Stream::Plain(socket)), Some(tls)) = (self.stream.take(), self.terms.tls) else {
            return self.client.step(Input::Lost("lost connection"), actions);
        };
        socket.by.set(self.by());
        match tls.connect(socket, &self.name, self.verify) {
            Ok(stream) => {
                log::debug!("{}: {}", self.name, stream.info());
                self.stream = Some(Stream::Tls(Box::new(stream)));
                self.client.step(Input::TlsUp, actions);
            }
            Err(fail) => {
                log::info!("{fail}");
                let why = match self.verify {
                    Verify::Name => "no TLS with a certificate that can be verified",
                    Verify::Never => "lost connection",
                };
                self.client.step(Input::Lost(why), actions);
            }
        }
    }

    /// The message and its end.
    fn send(&mut self, content: &mut dyn Read, actions: &mut Vec<Action>) -> Result<(), Ours> {
        let mut stuffing = Stuffing::new();
        let mut block = vec![0; BLOCK];
        let mut wire = Vec::with_capacity(BLOCK + BLOCK / 8);
        let end = Instant::now() + self.message / self.terms.hurry;
        loop {
            let n = match content.read(&mut block) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // No final dot: the server throws away what it has.
                Err(e) => return Err(Ours::Content(e)),
            };
            wire.clear();
            match block.get(..n) {
                Some([]) | None => break,
                Some(bytes) => stuffing.push(bytes, &mut wire),
            }
            if !self.send_block(&wire, end, actions) {
                return Ok(());
            }
        }
        wire.clear();
        stuffing.finish(&mut wire);
        if !(self.terms.may_end)() {
            // No final dot here either: it was not sent, and is tried again.
            return Err(Ours::Stopping);
        }
        if self.send_block(&wire, end, actions) {
            self.client.step(Input::ContentSent, actions);
        }
        Ok(())
    }

    /// The message as it is, in one piece (RFC 3030 2), whose last octets are its end.
    fn send_binary(
        &mut self,
        content: &mut dyn Read,
        size: u64,
        actions: &mut Vec<Action>,
    ) -> Result<(), Ours> {
        let end = Instant::now() + self.message / self.terms.hurry;
        let mut wire = format!("BDAT {size} LAST\r\n").into_bytes();
        let mut left = size;
        while left > 0 {
            let next = left.min(BLOCK as u64);
            let mut block = Vec::new();
            let read = content.take(next).read_to_end(&mut block);
            if read.map_err(Ours::Content)? as u64 != next {
                return Err(Ours::Content(io::ErrorKind::UnexpectedEof.into()));
            }
            left -= next;
            wire.append(&mut block);
            if left > 0 {
                if !self.send_block(&wire, end, actions) {
                    return Ok(());
                }
                wire.clear();
            }
        }
        if !(self.terms.may_end)() {
            return Err(Ours::Stopping);
        }
        if self.send_block(&wire, end, actions) {
            self.client.step(Input::ContentSent, actions);
        }
        Ok(())
    }

    /// Writes a piece of the message. A server that does not want the rest may have said why.
    fn send_block(&mut self, wire: &[u8], end: Instant, actions: &mut Vec<Action>) -> bool {
        let Err(e) = self.write(wire, self.by().min(end)) else {
            return true;
        };
        let mut buffer = [0; 4096];
        if let Ok(n @ 1..) = self.read_some(&mut buffer, Instant::now() + LAST_WORDS) {
            self.client
                .step(Input::Bytes(buffer.get(..n).unwrap_or_default()), actions);
        }
        if !self.client.is_closed() {
            self.lost(&e, actions);
        }
        false
    }
}

/// The time that is left.
fn left(by: Instant) -> io::Result<Duration> {
    let left = by.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

#[cfg(test)]
mod tests;
