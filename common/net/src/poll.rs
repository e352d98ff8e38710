//! The one loop: thousands of sessions on one thread, by mio.
//!
//! Edge-triggered done right: an event only notes readiness; a session's turn goes on until the
//! kernel says WouldBlock or the turn is used up, and then it queues behind the others. SIGTERM
//! drains: no new connections, each session may finish what it began, in bounded time. SIGHUP
//! reads the certificate again and calls back.

mod accept;
mod knock;
mod signals;
mod turn;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base::config::Network;
use base::fail::{Doing, Fail};
use mio::{Events, Poll, Registry, Token};
use slab::Slab;

use accept::Port;
use knock::Knock;
use signals::Signals;
use turn::{Session, Tools};

use crate::activate::{Accepted, Sockets, notify, watchdog};
use crate::caps::Caps;
use crate::connection::{Expired, Ready};
use crate::pool::Pool;
use crate::protocol::{Answers, Closed, Key, Protocol};
use crate::timer::Timers;
use crate::tls::Acceptor;

/// How a daemon wants its loop.
pub struct Options {
    /// The certificate; without one there is no TLS.
    pub acceptor: Option<Acceptor>,
    /// The services whose clients are people's programs: these are asked for a certificate, where
    /// there are authorities of such.
    pub people: &'static [&'static str],
    /// Connections in this process.
    pub max_connections: usize,
    /// Of so many descriptors one is kept for the work on connections: 2 where each connection may
    /// have work that holds one all the time.
    pub work_share: u64,
    /// Connections from one client: an IPv4 address or an IPv6 /64. Loopback is not counted.
    pub max_per_client: usize,
    /// What one connection too many is told, with its CRLF; not said where TLS is implicit.
    pub busy: &'static [u8],
    /// Connections from here begin with a PROXY header, which says whose they are.
    pub proxies: Vec<Network>,
    /// But at these services nobody stands before the client.
    pub direct: &'static [&'static str],
    /// Threads for [`crate::Control::job`], at most.
    pub threads: usize,
    /// How long SIGTERM lets sessions finish.
    pub drain: Duration,
    /// Called on SIGHUP.
    pub on_hangup: Option<Box<dyn FnMut()>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            acceptor: None,
            people: &[],
            max_connections: 4096,
            work_share: 2,
            max_per_client: 50,
            busy: b"",
            proxies: Vec::new(),
            direct: &[],
            threads: 16,
            drain: Duration::from_secs(30),
            on_hangup: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_connections", &self.max_connections)
            .field("max_per_client", &self.max_per_client)
            .finish_non_exhaustive()
    }
}

const WAKER: Token = Token(usize::MAX - 1);
const SIGNALS: Token = Token(usize::MAX - 2);
/// Listeners have the tokens below; a connection's slot has the next free pair above.
const FIRST_CONNECTION: usize = 4096;
/// Connections that wait for their proxy's header have those from here on.
const FIRST_KNOCK: usize = usize::MAX / 2;
/// How many steps a session may take before others have their turn.
const STEPS: usize = 16;
/// How many connections are accepted before sessions have their turn.
const ACCEPTS: usize = 128;
/// After accept fails for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
const SCRATCH: usize = 64 * 1024;

/// Serves `sockets` until SIGTERM, or, where they are single connections, until these end.
/// `factory` makes the protocol of each new connection.
pub fn run<P, F>(mut sockets: Sockets, factory: F, mut options: Options) -> Result<(), Fail>
where
    P: Protocol,
    F: FnMut(&Accepted) -> P,
{
    let bridge = sockets.take_bridge();
    if let Some(descriptors) = raise_descriptor_limit() {
        options.max_connections =
            served_by(descriptors, options.work_share, options.max_connections);
    }
    let mut server = Server::new(sockets, factory, options)?;
    notify("READY=1");
    let served = server.serve();
    drop(server);
    Sockets::finish(bridge);
    served
}

/// As many descriptors as we may have; gives how many.
fn raise_descriptor_limit() -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    raised
        .inspect_err(|e| log::warn!("raise the limit of open files: {e}"))
        .ok()
}

/// A connection needs one descriptor, and its work another: who fills the house with connections
/// must not keep those inside from being served.
fn served_by(descriptors: u64, work_share: u64, wanted: usize) -> usize {
    let work = descriptors.div_ceil(work_share.max(2));
    let rest = usize::try_from(descriptors - work).unwrap_or(usize::MAX);
    wanted.min(rest.max(1))
}

struct Server<P: Protocol, F> {
    poll: Poll,
    registry: Arc<Registry>,
    listeners: Vec<Port>,
    connections: Slab<Session<P>>,
    knocks: Slab<Knock>,
    /// When the patience with each is over, in this order: all have the same.
    knock_ends: VecDeque<(Instant, usize, u64)>,
    timers: Timers<Key>,
    caps: Caps,
    answers: Arc<Answers<P::Done>>,
    pool: Pool,
    /// Sessions whose turn was used up.
    waiting: VecDeque<Key>,
    scratch: Vec<u8>,
    options: Options,
    factory: F,
    serial: u64,
    signals: Signals,
    /// Set by SIGTERM: when what is left is cut off.
    drain_until: Option<Instant>,
    accept_again: Option<Instant>,
    /// How often systemd hears that the loop turns, and when it does next.
    watchdog: Option<(Duration, Instant)>,
}

impl<P, F> Server<P, F>
where
    P: Protocol,
    F: FnMut(&Accepted) -> P,
{
    fn new(sockets: Sockets, factory: F, options: Options) -> Result<Self, Fail> {
        let poll = Poll::new().doing(|| "make an epoll instance")?;
        let waker = mio::Waker::new(poll.registry(), WAKER).doing(|| "make a waker")?;
        // One more descriptor for all connections, not one for each.
        let registry = poll
            .registry()
            .try_clone()
            .doing(|| "share an epoll instance")?;
        let mut server = Self {
            registry: Arc::new(registry),
            signals: Signals::register(&poll).doing(|| "watch for signals")?,
            poll,
            listeners: Vec::new(),
            connections: Slab::new(),
            knocks: Slab::new(),
            knock_ends: VecDeque::new(),
            timers: Timers::default(),
            caps: Caps::new(options.max_connections, options.max_per_client),
            answers: Arc::new(Answers::new(waker)),
            pool: Pool::new(options.threads),
            waiting: VecDeque::new(),
            scratch: vec![0; SCRATCH],
            options,
            factory,
            serial: 0,
            drain_until: None,
            accept_again: None,
            watchdog: watchdog().map(|every| (every, Instant::now())),
        };
        for (at, listening) in sockets.listeners.into_iter().enumerate() {
            let port = server
                .watch(listening.listener, Token(at))
                .doing(|| "watch a listener")?;
            server.listeners.push(Port {
                listener: port,
                listen: listening.listen,
                pending: true,
            });
        }
        for connected in sockets.connections {
            server
                .adopt(connected)
                .doing(|| "serve the connection given to us")?;
        }
        Ok(server)
    }

    fn serve(&mut self) -> Result<(), Fail> {
        let mut events = Events::with_capacity(1024);
        while !self.is_finished() {
            match self.poll.poll(&mut events, self.sleep()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other.doing(|| "wait for events")?,
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    SIGNALS => self.signals.drain(),
                    Token(n) if n < FIRST_CONNECTION => {
                        if let Some(port) = self.listeners.get_mut(n) {
                            port.pending = true;
                        }
                    }
                    Token(n) if n >= FIRST_KNOCK => self.heed_knock(n - FIRST_KNOCK),
                    Token(n) => self.note(
                        n - FIRST_CONNECTION,
                        Ready {
                            readable: event.is_readable(),
                            writable: event.is_writable() || event.is_write_closed(),
                            ended: event.is_read_closed() || event.is_error(),
                        },
                    ),
                }
            }
            self.heed_signals();
            self.tell_watchdog();
            self.hand_out_answers();
            self.expire();
            for _ in 0..self.waiting.len() {
                if let Some(key) = self.waiting.pop_front() {
                    if let Some(session) = self.session(key) {
                        session.queued = false;
                    }
                    self.turn_of(key);
                }
            }
            self.accept();
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        let empty = self.connections.is_empty() && self.knocks.is_empty();
        match self.drain_until {
            Some(until) => empty || Instant::now() >= until,
            None => empty && self.listeners.is_empty(),
        }
    }

    fn sleep(&self) -> Option<Duration> {
        let accepting = self.accept_again.is_none() && self.listeners.iter().any(|p| p.pending);
        if !self.waiting.is_empty() || accepting {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let until = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
        [
            self.timers.sleep(now),
            until(self.drain_until),
            until(self.accept_again),
            until(self.knock_ends.front().map(|(end, ..)| *end)),
            until(self.watchdog.map(|(_, next)| next)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// A loop that hangs says nothing, and is started again.
    fn tell_watchdog(&mut self) {
        let now = Instant::now();
        if let Some((every, next)) = &mut self.watchdog
            && now >= *next
        {
            notify("WATCHDOG=1");
            *next = now + *every;
        }
    }

    /// An event of a connection (even) or of its attached socket (odd).
    fn note(&mut self, n: usize, ready: Ready) {
        let Some(session) = self.connections.get_mut(n / 2) else {
            return;
        };
        if n.is_multiple_of(2) {
            session.io.note_ready(ready);
        } else {
            session.io.note_side_ready(ready);
        }
        if !session.queued {
            session.queued = true;
            self.waiting.push_back(session.io.key());
        }
    }

    fn heed_signals(&mut self) {
        if self.signals.hangup.swap(false, Ordering::Relaxed) {
            if let Some(acceptor) = &self.options.acceptor {
                acceptor.reload();
            }
            if let Some(callback) = &mut self.options.on_hangup {
                callback();
            }
        }
        if self.signals.terminate.swap(false, Ordering::Relaxed) {
            self.drain();
        }
    }

    fn drain(&mut self) {
        let now = Instant::now();
        if self.drain_until.is_some() {
            // Asked twice: no more waiting.
            self.drain_until = Some(now);
            return;
        }
        notify("STOPPING=1");
        log::info!("ending, {} connections to finish", self.connections.len());
        self.drain_until = now.checked_add(self.options.drain).or(Some(now));
        self.listeners.clear();
        self.knocks.clear();
        self.knock_ends.clear();
        self.accept_again = None;
        let keys: Vec<Key> = self.connections.iter().map(|(_, s)| s.io.key()).collect();
        for key in keys {
            self.tell(key, |session, tools| {
                if session.opened {
                    session.call(tools, P::drain);
                } else {
                    session.io.abort();
                }
            });
        }
    }

    fn hand_out_answers(&mut self) {
        for (key, done) in self.answers.take() {
            self.tell(key, |session, tools| {
                session.call(tools, |protocol, control| protocol.done(done, control));
            });
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some((at, key)) = self.timers.due(now) {
            let Some(session) = self
                .connections
                .get_mut(key.slot)
                .filter(|s| s.io.key() == key)
            else {
                continue;
            };
            if session.io.expire(&mut self.timers, at, now) == Expired::Protocol {
                self.tell(key, |session, tools| session.call(tools, P::timeout));
            } else {
                self.turn_of(key);
            }
        }
        self.expire_knocks(now);
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
        }
    }

    /// Tells a session something, if it is there and not closing, and gives it its turn.
    fn tell(&mut self, key: Key, what: impl FnOnce(&mut Session<P>, &Tools<'_, P::Done>)) {
        let tools = Tools {
            answers: &self.answers,
            pool: &self.pool,
        };
        if let Some(session) = self
            .connections
            .get_mut(key.slot)
            .filter(|s| s.io.key() == key)
            && !session.io.is_closing()
        {
            what(session, &tools);
            self.turn_of(key);
        }
    }

    fn turn_of(&mut self, key: Key) {
        let Some(session) = self
            .connections
            .get_mut(key.slot)
            .filter(|s| s.io.key() == key)
        else {
            return;
        };
        let tools = Tools {
            answers: &self.answers,
            pool: &self.pool,
        };
        let used_up = (0..STEPS).all(|_| session.step(&tools, &mut self.scratch));
        session.io.arm(&mut self.timers);
        if let Some(why) = session.io.take_gone() {
            self.remove(key, &why);
        } else if used_up && !session.queued {
            session.queued = true;
            self.waiting.push_back(key);
        }
    }

    fn session(&mut self, key: Key) -> Option<&mut Session<P>> {
        self.connections
            .get_mut(key.slot)
            .filter(|s| s.io.key() == key)
    }

    fn remove(&mut self, key: Key, why: &Closed) {
        if let Some(mut session) = self.connections.try_remove(key.slot) {
            session.io.deregister();
            session.protocol.closed(why);
            self.caps.leave(session.io.peer().ip());
            // A descriptor is free again.
            self.accept_again = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_their_work() {
        assert_eq!(served_by(1024, 2, 10_000), 512);
        assert_eq!(served_by(524_288, 2, 10_000), 10_000);
        assert_eq!(served_by(u64::MAX, 4, 10_000), 10_000);
        assert_eq!(served_by(1, 2, 10_000), 1);
        assert_eq!(served_by(20_000, 4, 20_000), 15_000);
    }
}
