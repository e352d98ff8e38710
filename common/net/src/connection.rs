//! One connection's input, output, TLS and attached socket, without its protocol.
//!
//! mio is edge-triggered: readiness is remembered here until the kernel says WouldBlock, so that a
//! turn may stop anywhere and go on later. Buffers give their memory back when they are empty.

mod side;
mod socket;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};

use side::Side;
pub(crate) use socket::Socket;

use crate::activate::{Accepted, Encryption, Peer};
use crate::buffer::Buffer;
use crate::protocol::{Closed, Key};
use crate::timer::{Slot, Timers};
use crate::tls::{Acceptor, Got, ServerSession, TlsInfo};

/// Output above this stops reading, from the peer and from the attached socket.
pub(crate) const HIGH_WATER: usize = 256 * 1024;
/// Output below this counts as gone for `flushed`.
const LOW_WATER: usize = 32 * 1024;
/// Input kept for a protocol that does not consume it, unless the protocol says otherwise.
const INPUT_LIMIT: usize = 64 * 1024;
/// How long the peer may take for our last words.
const CLOSE_TIME: Duration = Duration::from_secs(30);
/// How long we read on after our end is closed, so that a reset does not eat our last words.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// Octets that are read and thrown away meanwhile, in one turn and in all: who reads our last words
/// stops before that.
const DISCARD_AT_ONCE: usize = 256 << 10;
const DISCARD_MOST: usize = 64 << 20;
/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);

/// What an event of the kernel says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer sends no more, or the connection is broken.
    pub(crate) ended: bool,
}

/// How the bytes go over the socket.
enum Crypt {
    Plain,
    /// STARTTLS was answered; the handshake starts when that answer has gone.
    Wanted,
    /// `true` once the handshake is through.
    Tls(Box<ServerSession>, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// The output is still to go.
    Flushing,
    /// Our end is closed; what comes is thrown away.
    Lingering,
}

pub(crate) struct Io {
    key: Key,
    socket: Socket,
    accepted: Accepted,
    acceptor: Option<Acceptor>,
    registry: Arc<Registry>,
    side_token: Token,
    crypt: Crypt,
    input: Buffer,
    output: Buffer,
    input_limit: usize,
    readable: bool,
    writable: bool,
    /// The kernel has the peer's end, or an error, behind what is to be read: there is no other event.
    end_in_sight: bool,
    ended: bool,
    eof_told: bool,
    paused: bool,
    /// Something was written since `flushed` was last called.
    wrote: bool,
    closing: Closing,
    /// Octets thrown away behind our last words.
    discarded: usize,
    gone: Option<Closed>,
    side: Option<Side>,
    clock: Clock,
}

/// The deadline of one connection.
#[derive(Default)]
struct Clock {
    slot: Slot,
    period: Duration,
    /// Set by the protocol and not yet in the heap.
    changed: Option<Option<Duration>>,
    /// The peer took output since the deadline was set.
    progress: bool,
}

/// What became of a deadline.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The protocol's: tell it.
    Protocol,
    /// The loop's own, or not due.
    Handled,
}

impl Io {
    /// Its first turn begins TLS where that is implicit.
    pub(crate) fn new(
        key: Key,
        socket: Socket,
        accepted: Accepted,
        acceptor: Option<Acceptor>,
        registry: Arc<Registry>,
        side_token: Token,
    ) -> Self {
        let mut io = Self {
            key,
            socket,
            accepted,
            acceptor,
            registry,
            side_token,
            crypt: Crypt::Plain,
            input: Buffer::default(),
            output: Buffer::default(),
            input_limit: INPUT_LIMIT,
            readable: true,
            writable: true,
            end_in_sight: false,
            ended: false,
            eof_told: false,
            paused: false,
            wrote: false,
            closing: Closing::No,
            discarded: 0,
            gone: None,
            side: None,
            clock: Clock::default(),
        };
        if accepted.encryption == Encryption::Implicit {
            io.begin_tls();
        }
        io
    }

    pub(crate) fn register(&mut self, token: Token) -> io::Result<()> {
        self.registry.register(
            self.socket.source(),
            token,
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    pub(crate) fn deregister(&mut self) {
        // The descriptor is closed next; an error here changes nothing.
        self.registry.deregister(self.socket.source()).ok();
        self.detach();
    }

    // What a protocol asks for, by `Control`.

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn peer(&self) -> Peer {
        self.accepted.peer
    }

    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.accepted.local
    }

    pub(crate) fn service(&self) -> &'static str {
        self.accepted.service
    }

    pub(crate) fn tls_info(&self) -> Option<&TlsInfo> {
        match &self.crypt {
            Crypt::Tls(session, _) => session.info(),
            Crypt::Plain | Crypt::Wanted => None,
        }
    }

    pub(crate) fn has_tls(&self) -> bool {
        self.acceptor.is_some() && matches!(self.crypt, Crypt::Plain)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.closing == Closing::No && self.gone.is_none() {
            self.output.push(bytes);
            self.wrote = true;
        }
    }

    pub(crate) fn pending_output(&self) -> usize {
        self.output.len()
    }

    pub(crate) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn want_tls(&mut self) {
        if self.has_tls() {
            self.crypt = Crypt::Wanted;
        } else {
            self.lose(Closed::Tls("no certificate".into()));
        }
    }

    pub(crate) fn set_deadline(&mut self, after: Option<Duration>) {
        if self.closing == Closing::No {
            self.clock.changed = Some(after);
        }
    }

    pub(crate) fn close(&mut self) {
        if self.closing == Closing::No {
            self.closing = Closing::Flushing;
            self.clock.changed = Some(Some(CLOSE_TIME));
            self.detach();
        }
    }

    pub(crate) fn abort(&mut self) {
        self.lose(Closed::ByUs);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing != Closing::No || self.gone.is_some()
    }

    pub(crate) fn set_input_limit(&mut self, bytes: usize) {
        self.input_limit = bytes.max(1);
    }

    // What the loop asks for.

    pub(crate) fn note_ready(&mut self, ready: Ready) {
        self.readable |= ready.readable || ready.ended;
        self.writable |= ready.writable || ready.ended;
        self.end_in_sight |= ready.ended;
    }

    /// Ends it, for the first of several reasons.
    pub(crate) fn lose(&mut self, why: Closed) {
        if self.gone.is_none() {
            self.gone = Some(why);
        }
    }

    pub(crate) fn take_gone(&mut self) -> Option<Closed> {
        self.gone.take()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.is_some()
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self.crypt, Crypt::Wanted | Crypt::Tls(_, false))
    }

    /// Puts a deadline that was asked for into the heap.
    pub(crate) fn arm(&mut self, timers: &mut Timers<Key>) {
        match self.clock.changed.take() {
            Some(Some(after)) => {
                self.clock.period = after;
                self.clock.progress = false;
                if let Some(at) = Instant::now().checked_add(after) {
                    timers.arm(&mut self.clock.slot, self.key, at);
                }
            }
            Some(None) => self.clock.slot.cancel(),
            None => {}
        }
    }

    /// An entry of the heap for us has come up.
    pub(crate) fn expire(
        &mut self,
        timers: &mut Timers<Key>,
        at: Instant,
        now: Instant,
    ) -> Expired {
        if !timers.fires(&mut self.clock.slot, self.key, at, now) {
            return Expired::Handled;
        }
        if self.is_handshaking() {
            self.lose(Closed::Tls("the handshake took too long".into()));
        } else if self.closing == Closing::Lingering {
            self.lose(Closed::ByUs);
        } else if self.clock.progress && !self.output.is_empty() {
            self.clock.changed = Some(Some(self.clock.period));
        } else if self.closing == Closing::Flushing {
            self.lose(Closed::TooSlow);
        } else {
            return Expired::Protocol;
        }
        Expired::Handled
    }

    /// Sends what it can; a failure ends the connection.
    pub(crate) fn flush(&mut self) {
        if let Err(e) = self.flush_side() {
            log::debug!("attached socket: {e}");
            // What it said before it went is still to be read; then its end shows.
            if let Some(side) = &mut self.side {
                side.output.clear();
            }
        }
        if let Err(e) = self.try_flush() {
            self.lose(Closed::Lost(e));
            return;
        }
        if matches!(self.crypt, Crypt::Wanted) && self.output.is_empty() {
            if self.input.is_empty() {
                self.begin_tls();
            } else {
                self.lose(Closed::PlaintextAfterStartTls);
            }
        }
        if self.closing == Closing::Flushing && self.all_sent() {
            self.say_goodbye();
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        loop {
            if let Crypt::Tls(session, _) = &mut self.crypt {
                let taken = session.put(self.output.bytes());
                self.output.consume(taken);
                while self.writable && session.wants_write() {
                    let sent = session.write_to(&mut self.socket);
                    self.clock.progress |= note_written(sent, &mut self.writable)? > 0;
                }
                if self.output.is_empty() || !self.writable || taken == 0 {
                    return Ok(());
                }
            } else if self.output.is_empty() || !self.writable {
                return Ok(());
            } else {
                let sent = self.socket.write(self.output.bytes());
                let n = note_written(sent, &mut self.writable)?;
                self.clock.progress |= n > 0;
                self.output.consume(n);
            }
        }
    }

    fn all_sent(&self) -> bool {
        let cipher = match &self.crypt {
            Crypt::Tls(session, _) => session.wants_write(),
            Crypt::Plain | Crypt::Wanted => false,
        };
        self.output.is_empty() && !cipher
    }

    /// All is sent: close_notify, our end shut. What the peer still sends is read for a while,
    /// because closing a socket with unread input resets the connection and may take our last
    /// words with it.
    fn say_goodbye(&mut self) {
        if let Crypt::Tls(session, _) = &mut self.crypt {
            session.close_notify();
        }
        if self.try_flush().is_err() {
            self.lose(Closed::ByUs);
            return;
        }
        self.socket.shutdown();
        self.closing = Closing::Lingering;
        self.clock.changed = Some(Some(LINGER_TIME));
        let unread = !self.input.is_empty();
        self.input.clear();
        if self.ended || (!unread && self.discard() == 0) {
            self.lose(Closed::ByUs);
        }
    }

    /// Reads and throws away what fits into one turn; how many octets that were.
    fn discard(&mut self) -> usize {
        let mut chunk = [0; 4096];
        let mut octets = 0;
        while self.readable && !self.ended && octets < DISCARD_AT_ONCE {
            match self.socket.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(n) => octets += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => self.ended = true,
            }
        }
        self.discarded = self.discarded.saturating_add(octets);
        octets
    }

    pub(crate) fn is_lingering(&self) -> bool {
        self.closing == Closing::Lingering
    }

    /// Whether there may be more to read.
    pub(crate) fn linger(&mut self) -> bool {
        let any = self.discard() > 0;
        if self.ended || self.discarded >= DISCARD_MOST {
            self.lose(Closed::ByUs);
            return false;
        }
        any && self.readable
    }

    fn begin_tls(&mut self) {
        let session = self.acceptor.as_ref().map(Acceptor::session);
        match session {
            Some(Ok(session)) => {
                self.crypt = Crypt::Tls(Box::new(session), false);
                self.clock.changed = Some(Some(HANDSHAKE_TIME));
            }
            Some(Err(e)) => self.lose(Closed::Tls(e)),
            None => self.lose(Closed::Tls("no certificate".into())),
        }
    }

    /// Whether the handshake has just come through.
    pub(crate) fn shake_hands(&mut self) -> bool {
        let Crypt::Tls(session, up @ false) = &mut self.crypt else {
            return false;
        };
        if session.is_handshaking() {
            return false;
        }
        session.note_info();
        *up = true;
        self.clock.changed = Some(None);
        true
    }

    /// Whether input may be read now. A handshake is the loop's own business: a protocol that is
    /// paused does not stop it.
    pub(crate) fn may_read(&self) -> bool {
        self.readable
            && !self.ended
            && !matches!(self.crypt, Crypt::Wanted)
            && (!self.paused || self.is_handshaking())
            && self.closing == Closing::No
            && self.input.len() < self.input_limit
            && self.output.len() < HIGH_WATER
    }

    /// Whether the protocol may be given input now.
    pub(crate) fn may_feed(&self) -> bool {
        !self.is_closing()
            && !self.paused
            && !self.is_handshaking()
            && self.output.len() < HIGH_WATER
    }

    /// Reads once. Whether that brought anything (an end counts).
    pub(crate) fn fill(&mut self, scratch: &mut [u8]) -> bool {
        let got = match &mut self.crypt {
            Crypt::Tls(..) => return self.fill_tls(scratch),
            Crypt::Plain | Crypt::Wanted => self.socket.read(scratch),
        };
        match got {
            Ok(0) => self.ended = true,
            Ok(n) => {
                // Less than there was room for: that was all (epoll(7)), and what comes is an event.
                self.readable = n == scratch.len() || self.end_in_sight;
                self.input.push(scratch.get(..n).unwrap_or_default());
            }
            Err(e) => return self.note_unread(e),
        }
        true
    }

    fn fill_tls(&mut self, scratch: &mut [u8]) -> bool {
        let Crypt::Tls(session, up) = &mut self.crypt else {
            return false;
        };
        let got = match session.read_from(&mut self.socket) {
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                // Our alert is for the peer; whether it arrives changes nothing.
                session.write_to(&mut self.socket).ok();
                let what = if *up { "" } else { "handshake: " };
                let why = format!("{what}{e}");
                self.lose(Closed::Tls(why));
                return false;
            }
            Err(e) => return self.note_unread(e),
        };
        loop {
            match session.take(scratch) {
                0 => break,
                n => self.input.push(scratch.get(..n).unwrap_or_default()),
            }
        }
        match got {
            Got::Some => {}
            Got::CloseNotify => self.ended = true,
            Got::Truncated if *up => self.lose(Closed::Tls("connection cut off".into())),
            Got::Truncated => self.lose(Closed::Lost(io::ErrorKind::UnexpectedEof.into())),
        }
        true
    }

    fn note_unread(&mut self, error: io::Error) -> bool {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                self.readable = false;
                false
            }
            io::ErrorKind::Interrupted => true,
            _ => {
                self.lose(Closed::Lost(error));
                false
            }
        }
    }

    /// The input, for the time the protocol looks at it.
    pub(crate) fn take_input(&mut self) -> Buffer {
        std::mem::take(&mut self.input)
    }

    /// What the protocol left of it; `stuck` when it consumed nothing of it.
    pub(crate) fn put_back(&mut self, rest: Buffer, stuck: bool) {
        if matches!(self.crypt, Crypt::Wanted) && !rest.is_empty() {
            self.lose(Closed::PlaintextAfterStartTls);
        }
        if stuck && rest.len() >= self.input_limit && self.may_feed() {
            self.lose(Closed::InputOverflow);
        }
        self.input = rest;
    }

    /// Whether the protocol is to be told, once, that the peer sends no more.
    pub(crate) fn take_eof(&mut self) -> bool {
        let now = self.ended && !self.eof_told && self.may_feed();
        self.eof_told |= now;
        now
    }

    /// Whether the protocol is to be told that its output has gone.
    pub(crate) fn take_flushed(&mut self) -> bool {
        let now = self.wrote && self.output.len() <= LOW_WATER && !self.is_closing();
        if now {
            self.wrote = false;
        }
        now
    }
}

/// What a write did: bytes taken, 0 when the socket is full.
fn note_written(sent: io::Result<usize>, writable: &mut bool) -> io::Result<usize> {
    match sent {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(n) => Ok(n),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            *writable = false;
            Ok(0)
        }
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(e) => Err(e),
    }
}
