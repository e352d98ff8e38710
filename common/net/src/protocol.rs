//! What a daemon implements, and what it may do with its connection.
//!
//! The loop calls a [`Protocol`] with what happened, one event at a time and never two at once; the
//! protocol answers by the methods of [`Control`], which only note what is to be done. Nothing here
//! blocks. Work that does goes to the pool by [`Control::job`], and its answer comes back as
//! [`Protocol::done`].

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::activate::Peer;
use crate::connection::Io;
use crate::pool::Pool;
use crate::tls::TlsInfo;

/// One connection's protocol, driven by [`crate::poll::run`].
pub trait Protocol {
    /// What a job, or another thread by a [`Handle`], answers with.
    type Done: Send + 'static;

    /// The connection is there (with implicit TLS: after the handshake). Say the greeting, set the
    /// first deadline.
    fn open(&mut self, control: &mut Control<'_, Self::Done>);

    /// Bytes have come: all that are buffered, never none. Says how many were consumed; 0 asks for
    /// more. Called again at once while it consumes something and is not paused.
    fn input(&mut self, bytes: &[u8], control: &mut Control<'_, Self::Done>) -> usize;

    /// A job's answer.
    fn done(&mut self, done: Self::Done, control: &mut Control<'_, Self::Done>);

    /// The deadline has passed. It is off now.
    fn timeout(&mut self, control: &mut Control<'_, Self::Done>);

    /// The handshake that [`Control::start_tls`] asked for is through.
    fn tls_up(&mut self, info: &TlsInfo, control: &mut Control<'_, Self::Done>) {
        let _ = (info, control);
    }

    /// The peer sends no more, and all it sent was offered. With TLS: by close_notify only; a TCP
    /// end without it is a lost connection and comes as [`Protocol::closed`] alone.
    fn eof(&mut self, control: &mut Control<'_, Self::Done>) {
        control.close();
    }

    /// The daemon ends. Close as soon as what was begun can be finished; after a bounded time the
    /// loop closes.
    fn drain(&mut self, control: &mut Control<'_, Self::Done>) {
        control.close();
    }

    /// What was written has gone to the peer, all but a small rest. Who streams writes the next
    /// piece here.
    fn flushed(&mut self, control: &mut Control<'_, Self::Done>) {
        let _ = control;
    }

    /// Bytes from the attached socket; as [`Protocol::input`]. Not called while the peer is slow to
    /// take our output.
    fn side(&mut self, bytes: &[u8], control: &mut Control<'_, Self::Done>) -> usize {
        let _ = control;
        bytes.len()
    }

    /// The attached socket was closed by its other end, or failed; it is detached.
    fn side_closed(&mut self, control: &mut Control<'_, Self::Done>) {
        control.close();
    }

    /// The connection is gone; the last call.
    fn closed(&mut self, why: &Closed) {
        let _ = why;
    }
}

/// How a connection ended.
#[derive(Debug)]
pub enum Closed {
    /// By our [`Control::close`], with everything written.
    ByUs,
    /// The peer is gone, or the network.
    Lost(io::Error),
    /// TLS failed: the handshake, a record, or an end without close_notify.
    Tls(String),
    /// The peer spoke plaintext between its STARTTLS and the handshake.
    PlaintextAfterStartTls,
    /// The protocol left its input buffer full.
    InputOverflow,
    /// The peer did not take our last words in time, or the drain time was over.
    TooSlow,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByUs => f.write_str("closed"),
            Self::Lost(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("lost connection")
            }
            Self::Lost(e) => write!(f, "lost connection: {e}"),
            Self::Tls(text) => write!(f, "TLS: {text}"),
            Self::PlaintextAfterStartTls => f.write_str("plaintext after STARTTLS"),
            Self::InputOverflow => f.write_str("input without an end"),
            Self::TooSlow => f.write_str("peer does not read"),
        }
    }
}

/// What a protocol may do with its connection, for the time of one call.
pub struct Control<'a, D> {
    pub(crate) io: &'a mut Io,
    pub(crate) answers: &'a Arc<Answers<D>>,
    pub(crate) pool: &'a Pool,
}

impl<D: Send + 'static> Control<'_, D> {
    /// Appends to the output. There is no limit: what stops a protocol from writing more than the
    /// peer reads is that it gets no input above the high-water mark, and [`Protocol::flushed`].
    pub fn write(&mut self, bytes: &[u8]) {
        self.io.write(bytes);
    }

    /// Bytes written that the kernel has not yet taken.
    pub fn pending_output(&self) -> usize {
        self.io.pending_output()
    }

    /// No input is fed (and none read) until [`Control::resume`].
    pub fn pause(&mut self) {
        self.io.set_paused(true);
    }

    pub fn resume(&mut self) {
        self.io.set_paused(false);
    }

    pub fn is_paused(&self) -> bool {
        self.io.is_paused()
    }

    /// Starts the handshake when all output written so far has gone. Input that is unread by then
    /// came in plaintext: the connection is closed, none of it is ever fed (RFC 3207 4.2).
    /// Without a certificate ([`Control::has_tls`]) this closes.
    pub fn start_tls(&mut self) {
        self.io.want_tls();
    }

    /// Whether [`Control::start_tls`] can be had: there is a certificate and no TLS yet.
    pub fn has_tls(&self) -> bool {
        self.io.has_tls()
    }

    /// Runs `job` on the pool; [`Protocol::done`] gets its answer, if the connection is still there.
    /// To read no input meanwhile, [`Control::pause`].
    pub fn job(&mut self, job: impl FnOnce() -> D + Send + 'static) {
        let handle = self.handle();
        self.pool.submit(move || handle.post(job()));
    }

    /// Runs `work` on the pool; its answer, if it has one, comes by a [`Handle`].
    pub fn work(&mut self, work: impl FnOnce() + Send + 'static) {
        self.pool.submit(work);
    }

    /// For answers from elsewhere.
    pub fn handle(&self) -> Handle<D> {
        Handle {
            key: self.io.key(),
            answers: Arc::clone(self.answers),
        }
    }

    /// Sets the deadline, in place of the one before. While the peer is taking our output the time
    /// counts from its last progress.
    pub fn deadline(&mut self, after: Duration) {
        self.io.set_deadline(Some(after));
    }

    pub fn no_deadline(&mut self) {
        self.io.set_deadline(None);
    }

    /// Closes when all output has gone; no more input is fed.
    pub fn close(&mut self) {
        self.io.close();
    }

    /// Closes at once, whatever is unwritten.
    pub fn abort(&mut self) {
        self.io.abort();
    }

    pub fn is_closing(&self) -> bool {
        self.io.is_closing()
    }

    /// How many unconsumed bytes of input are kept; a protocol that consumes nothing of that many
    /// loses its connection.
    pub fn input_limit(&mut self, bytes: usize) {
        self.io.set_input_limit(bytes);
    }

    /// Attaches a socket, in place of the one before: a store worker's. It is served beside the
    /// connection, with the same back-pressure.
    pub fn attach(&mut self, stream: UnixStream) -> io::Result<()> {
        self.io.attach(stream)
    }

    /// Lets go of the attached socket and closes it.
    pub fn detach(&mut self) {
        self.io.detach();
    }

    pub fn is_attached(&self) -> bool {
        self.io.is_attached()
    }

    /// Appends to what the attached socket is to be sent; nothing when none is attached.
    pub fn side_write(&mut self, bytes: &[u8]) {
        self.io.side_write(bytes);
    }

    /// Bytes for the attached socket that the kernel has not yet taken.
    pub fn side_pending(&self) -> usize {
        self.io.side_pending()
    }

    pub fn peer(&self) -> Peer {
        self.io.peer()
    }

    /// Our own end; `None` on a Unix socket or a pipe.
    pub fn local(&self) -> Option<SocketAddr> {
        self.io.local()
    }

    /// The peer's IP address; `None` on a Unix socket or a pipe.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        self.io.peer().ip()
    }

    /// The [`crate::Listen::service`] that the connection came in by.
    pub fn service(&self) -> &'static str {
        self.io.service()
    }

    pub fn is_tls(&self) -> bool {
        self.io.tls_info().is_some()
    }

    pub fn tls_info(&self) -> Option<&TlsInfo> {
        self.io.tls_info()
    }
}

/// A way to one connection from any thread.
pub struct Handle<D> {
    key: Key,
    answers: Arc<Answers<D>>,
}

impl<D> Clone for Handle<D> {
    fn clone(&self) -> Self {
        Self {
            key: self.key,
            answers: Arc::clone(&self.answers),
        }
    }
}

impl<D> fmt::Debug for Handle<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl<D: Send> Handle<D> {
    /// [`Protocol::done`] is called with this, if the connection is still there. Never blocks.
    pub fn post(&self, done: D) {
        self.answers.push(self.key, done);
    }
}

/// Names one connection for ever: slots are used again, serials are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) slot: usize,
    pub(crate) serial: u64,
}

/// Answers on their way to the loop.
pub(crate) struct Answers<D> {
    queue: Mutex<VecDeque<(Key, D)>>,
    waker: mio::Waker,
}

impl<D> Answers<D> {
    pub(crate) fn new(waker: mio::Waker) -> Self {
        Self {
            queue: Mutex::new(VecDeque::new()),
            waker,
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Key, D)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, key: Key, done: D) {
        let mut queue = self.lock();
        let first = queue.is_empty();
        queue.push_back((key, done));
        drop(queue);
        // Where others wait already, the loop has been woken and has not yet looked.
        if first && let Err(e) = self.waker.wake() {
            log::error!("wake the loop: {e}");
        }
    }

    /// All that are there.
    pub(crate) fn take(&self) -> VecDeque<(Key, D)> {
        std::mem::take(&mut *self.lock())
    }
}
