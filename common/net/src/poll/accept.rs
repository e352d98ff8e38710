//! New connections: accepted until the kernel has no more, within the caps.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use mio::{Interest, Token};

use super::turn::Session;
use super::{ACCEPT_PAUSE, ACCEPTS, FIRST_CONNECTION, Server};
use crate::activate::{Accepted, Connected, Encryption, Listen, Listener, Peer, Stream};
use crate::caps::Full;
use crate::connection::{Io, Socket};
use crate::protocol::{Key, Protocol};

pub(super) struct Port {
    pub(super) listener: Acceptable,
    pub(super) listen: Listen,
    pub(super) pending: bool,
}

pub(super) enum Acceptable {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

impl<P, F> Server<P, F>
where
    P: Protocol,
    F: FnMut(&Accepted) -> P,
{
    pub(super) fn watch(&self, listener: Listener, token: Token) -> io::Result<Acceptable> {
        Ok(match listener {
            Listener::Tcp(tcp) => {
                tcp.set_nonblocking(true)?;
                let mut tcp = mio::net::TcpListener::from_std(tcp);
                self.poll
                    .registry()
                    .register(&mut tcp, token, Interest::READABLE)?;
                Acceptable::Tcp(tcp)
            }
            Listener::Unix(unix) => {
                unix.set_nonblocking(true)?;
                let mut unix = mio::net::UnixListener::from_std(unix);
                self.poll
                    .registry()
                    .register(&mut unix, token, Interest::READABLE)?;
                Acceptable::Unix(unix)
            }
        })
    }

    pub(super) fn adopt(&mut self, connected: Connected) -> io::Result<()> {
        let socket = match connected.stream {
            Stream::Tcp(tcp) => {
                tcp.set_nonblocking(true)?;
                Socket::Tcp(mio::net::TcpStream::from_std(tcp))
            }
            Stream::Unix(unix) => {
                unix.set_nonblocking(true)?;
                Socket::Unix(mio::net::UnixStream::from_std(unix))
            }
        };
        self.admit(socket, connected.listen);
        Ok(())
    }

    pub(super) fn accept(&mut self) {
        if self.accept_again.is_some() {
            return;
        }
        for at in 0..self.listeners.len() {
            for _ in 0..ACCEPTS {
                let Some(port) = self.listeners.get_mut(at).filter(|port| port.pending) else {
                    break;
                };
                let listen = port.listen;
                match port.accept() {
                    Ok(socket) => self.admit(socket, listen),
                    Err(e) => self.accept_failed(at, &e),
                }
                if self.accept_again.is_some() {
                    return;
                }
            }
        }
    }

    /// Out of descriptors: wait for one, or a second; the clients wait in the backlog.
    fn accept_failed(&mut self, at: usize, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                if let Some(port) = self.listeners.get_mut(at) {
                    port.pending = false;
                }
            }
            // The client left before we came to it.
            io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
            _ => {
                log::warn!(
                    "accept: {error}; {} connections are open",
                    self.connections.len()
                );
                self.accept_again = Instant::now().checked_add(ACCEPT_PAUSE);
            }
        }
    }

    fn admit(&mut self, socket: Socket, listen: Listen) {
        let accepted = self.describe(&socket, listen);
        match (socket, accepted.peer) {
            (Socket::Tcp(stream), Peer::Ip(from)) if self.is_proxy(from, listen.service) => {
                // Whose it is will be counted when that is known.
                match self.caps.enter(None) {
                    Ok(()) => self.let_knock(stream, from, accepted),
                    Err(full) => self.turn_away(stream.into(), &accepted, full),
                }
            }
            (socket, _) => self.admit_as(socket, accepted),
        }
    }

    fn turn_away(&self, mut socket: Socket, accepted: &Accepted, full: Full) {
        log::warn!(
            "refused {}: {}",
            Shown(accepted.peer),
            match full {
                Full::Process => "too many connections",
                Full::Client => "too many connections from this client",
            }
        );
        if accepted.encryption == Encryption::OnRequest {
            // One try: who does not take it, learns by the close.
            io::Write::write(&mut socket, self.options.busy).ok();
        }
    }

    /// Who it is, is known.
    pub(super) fn admit_as(&mut self, socket: Socket, accepted: Accepted) {
        let ip = accepted.peer.ip();
        if let Err(full) = self.caps.enter(ip) {
            return self.turn_away(socket, &accepted, full);
        }
        self.serial = self.serial.wrapping_add(1);
        let slot = self.connections.vacant_key();
        let key = Key {
            slot,
            serial: self.serial,
        };
        let token = FIRST_CONNECTION + slot * 2;
        let asks = self.options.people.contains(&accepted.service);
        let acceptor = self.options.acceptor.as_ref().map(|all| all.asking(asks));
        let mut io = Io::new(
            key,
            socket,
            accepted,
            acceptor,
            Arc::clone(&self.registry),
            Token(token + 1),
        );
        match io.register(Token(token)) {
            Ok(()) => {
                let protocol = (self.factory)(&accepted);
                self.connections.insert(Session {
                    io,
                    protocol,
                    queued: true,
                    opened: false,
                });
                self.waiting.push_back(key);
            }
            Err(e) => {
                log::warn!("serve {}: {e}", Shown(accepted.peer));
                self.caps.leave(ip);
            }
        }
    }

    fn describe(&self, socket: &Socket, listen: Listen) -> Accepted {
        let (peer, local) = match socket {
            Socket::Tcp(tcp) => {
                // Replies are small and waited for; peers that vanish are to be noticed.
                tcp.set_nodelay(true).ok();
                nix::sys::socket::setsockopt(tcp, nix::sys::socket::sockopt::KeepAlive, &true).ok();
                let peer = tcp.peer_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
                (Peer::Ip(peer), tcp.local_addr().ok())
            }
            Socket::Unix(_) => (Peer::Local, None),
        };
        Accepted {
            peer,
            local,
            service: listen.service,
            encryption: listen.encryption,
            tls: self.options.acceptor.is_some(),
            check: false,
        }
    }
}

struct Shown(Peer);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.ip() {
            Some(ip) => ip.fmt(f),
            None => f.write_str("a local client"),
        }
    }
}

impl Port {
    fn accept(&self) -> io::Result<Socket> {
        Ok(match &self.listener {
            Acceptable::Tcp(tcp) => Socket::Tcp(tcp.accept()?.0),
            Acceptable::Unix(unix) => Socket::Unix(unix.accept()?.0),
        })
    }
}
