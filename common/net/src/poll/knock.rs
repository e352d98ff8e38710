//! Connections from proxies, until they have said whose they are.
//!
//! The header is looked at where it lies, in the kernel, and then taken off to its last octet: what
//! follows, be it TLS or a command, is read by who serves the connection. Nobody is greeted before.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base::escape::escape;
use mio::{Interest, Token};

use super::{FIRST_KNOCK, Server};
use crate::activate::{Accepted, Peer};
use crate::protocol::Protocol;
use crate::proxy::{self, MAX_HEADER, Said, Start};

/// How long a proxy may take: it sends its header at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// One that has not said whose it is.
pub(super) struct Knock {
    stream: mio::net::TcpStream,
    accepted: Accepted,
    /// The proxy's own.
    from: SocketAddr,
    serial: u64,
}

/// What became of a look at it.
enum Look {
    Waits,
    Gone(String),
    Said(Said),
}

impl<P, F> Server<P, F>
where
    P: Protocol,
    F: FnMut(&Accepted) -> P,
{
    /// Whether such a connection must begin with a header.
    pub(super) fn is_proxy(&self, from: SocketAddr, service: &str) -> bool {
        let (ip, options) = (from.ip(), &self.options);
        let mut proxies = options.proxies.iter();
        proxies.any(|network| network.contains(ip)) && !options.direct.contains(&service)
    }

    /// Counted already, as one of nobody's.
    pub(super) fn let_knock(
        &mut self,
        stream: mio::net::TcpStream,
        from: SocketAddr,
        accepted: Accepted,
    ) {
        self.serial = self.serial.wrapping_add(1);
        let mut knock = Knock {
            stream,
            accepted,
            from,
            serial: self.serial,
        };
        let token = Token(FIRST_KNOCK + self.knocks.vacant_key());
        let registered = self
            .registry
            .register(&mut knock.stream, token, Interest::READABLE);
        if let Err(e) = registered {
            log::warn!("serve {}: {e}", from.ip());
            self.caps.leave(None);
            return;
        }
        let serial = knock.serial;
        let slot = self.knocks.insert(knock);
        if let Some(until) = Instant::now().checked_add(PATIENCE) {
            self.knock_ends.push_back((until, slot, serial));
        }
    }

    /// An event of one.
    pub(super) fn heed_knock(&mut self, slot: usize) {
        let Some(knock) = self.knocks.get_mut(slot) else {
            return;
        };
        let from = knock.from.ip();
        match knock.look() {
            Look::Waits => {}
            Look::Gone(why) => {
                if why.is_empty() {
                    log::debug!("proxy {from}: closed without a word");
                } else {
                    log::warn!("proxy {from}: {why}");
                }
                self.forget_knock(slot);
            }
            Look::Said(said) => {
                let Some(knock) = self.forget_knock(slot) else {
                    return;
                };
                let mut accepted = knock.accepted;
                match said {
                    Said::Proxied {
                        source,
                        destination,
                    } => {
                        accepted.peer = Peer::Ip(source);
                        accepted.local = Some(destination);
                    }
                    Said::Local => accepted.check = true,
                    Said::Unknown => {}
                }
                self.admit_as(knock.stream.into(), accepted);
            }
        }
    }

    fn forget_knock(&mut self, slot: usize) -> Option<Knock> {
        let mut knock = self.knocks.try_remove(slot)?;
        self.registry.deregister(&mut knock.stream).ok();
        self.caps.leave(None);
        Some(knock)
    }

    pub(super) fn expire_knocks(&mut self, now: Instant) {
        while let Some((until, slot, serial)) = self.knock_ends.front().copied() {
            let there = self.knocks.get(slot);
            let there = there.is_some_and(|knock| knock.serial == serial);
            if there && until > now {
                return;
            }
            self.knock_ends.pop_front();
            if there && let Some(knock) = self.forget_knock(slot) {
                let seconds = PATIENCE.as_secs();
                let from = knock.from.ip();
                log::warn!("proxy {from}: no PROXY header in {seconds} s");
            }
        }
    }
}

impl Knock {
    fn look(&mut self) -> Look {
        let mut bytes = [0; MAX_HEADER];
        loop {
            let there = match self.stream.peek(&mut bytes) {
                // So do health checks that look for no more than an open port.
                Ok(0) => return Look::Gone(String::new()),
                Ok(n) => bytes.get(..n).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Look::Waits,
                Err(_) => return Look::Gone(String::new()),
            };
            return match proxy::read(there) {
                Start::Partial => Look::Waits,
                Start::Bad => {
                    let head = there.get(..40).unwrap_or(there);
                    Look::Gone(format!("no PROXY header: {}", escape(head)))
                }
                Start::Header(length, said) => match self.take(length) {
                    Ok(()) => Look::Said(said),
                    Err(e) => Look::Gone(format!("read a PROXY header: {e}")),
                },
            };
        }
    }

    /// What was seen is there, so reading it does not wait.
    fn take(&mut self, length: usize) -> io::Result<()> {
        let mut bytes = [0; MAX_HEADER];
        let header = bytes.get_mut(..length).unwrap_or_default();
        self.stream.read_exact(header)
    }
}
