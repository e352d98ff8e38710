//! How a daemon comes by its sockets: a connection on fd 0 from inetd, descriptors from systemd
//! (`LISTEN_FDS`, listeners with Accept=no and connections with Accept=yes), or our own bind.
//!
//! The same sessions serve all of them. Where the connection came from is matched to the
//! configured [`Listen`]s by systemd's name, else by the local port, else it is the first.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::thread::JoinHandle;
use std::time::Duration;

use base::fail::{Doing, Fail};
use base::sys;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike,
    SockaddrStorage, sockopt,
};

/// When TLS starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// With the first byte (ports 465, 993, 995).
    Implicit,
    /// When the protocol asks for it, or never.
    OnRequest,
}

/// One address to listen on, and what is served there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    pub addr: SocketAddr,
    pub encryption: Encryption,
    /// The protocol's own word for it (`smtp`, `submission`), which is also systemd's
    /// FileDescriptorName.
    pub service: &'static str,
}

impl Listen {
    /// The addresses that `addrs` and `port` make.
    pub fn each(
        addrs: &[IpAddr],
        port: u16,
        encryption: Encryption,
        service: &'static str,
    ) -> Vec<Self> {
        addrs
            .iter()
            .map(|ip| Self {
                addr: SocketAddr::new(*ip, port),
                encryption,
                service,
            })
            .collect()
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Ip(SocketAddr),
    /// A Unix socket or a pipe: a program of this host that started us or was let in by file
    /// permissions.
    Local,
}

impl Peer {
    /// With its port.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(address),
            Self::Local => None,
        }
    }

    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(addr) => Some(addr.ip().to_canonical()),
            Self::Local => None,
        }
    }

    /// Whether what is said stays within this host.
    pub fn is_loopback(self) -> bool {
        self.ip().is_none_or(|ip| ip.is_loopback())
    }
}

/// What a new connection is, for the protocol's constructor.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    pub peer: Peer,
    pub local: Option<SocketAddr>,
    pub service: &'static str,
    pub encryption: Encryption,
    /// Whether a certificate is there.
    pub tls: bool,
    /// It is a proxy's own, to see whether we are well.
    pub check: bool,
}

impl Accepted {
    /// What its coming and going is worth in the log.
    pub fn level(&self) -> log::Level {
        match self.check {
            true => log::Level::Debug,
            false => log::Level::Info,
        }
    }
}

/// The sockets to serve.
#[derive(Debug)]
pub struct Sockets {
    pub(crate) listeners: Vec<Listening>,
    pub(crate) connections: Vec<Connected>,
    bridge: Option<Bridge>,
    own: bool,
}

#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: Listener,
    pub(crate) listen: Listen,
}

#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) listen: Listen,
}

#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Sockets for `listens`: inetd's, else systemd's, else our own. `inetd` is `-i`: fd 0 is the
/// connection even if it is a pipe (with fd 1 for the answers).
pub fn listen(listens: &[Listen], inetd: bool) -> Result<Sockets, Fail> {
    let Some(first) = listens.first() else {
        return Err(Fail::config(
            "no address to listen on; set LISTEN in yubin.def",
        ));
    };
    if let Some(sockets) = from_stdin(listens, *first, inetd)? {
        return Ok(sockets);
    }
    if let Some(sockets) = from_systemd(listens, *first)? {
        return Ok(sockets);
    }
    let mut sockets = Sockets {
        own: true,
        ..Sockets::none()
    };
    for listen in listens {
        let listener = match bind(listen.addr) {
            // `::` beside `0.0.0.0` means "IPv6 too, where there is any".
            Err(e) if lacks_ipv6(&e) && listen.addr.ip() == Ipv6Addr::UNSPECIFIED => {
                log::info!("no IPv6 on this host, {} is left out", listen.addr);
                continue;
            }
            other => other.doing(|| format!("listen on {}", listen.addr))?,
        };
        sockets.listeners.push(Listening {
            listener: Listener::Tcp(listener),
            listen: *listen,
        });
    }
    if sockets.listeners.is_empty() {
        return Err(Fail::config(
            "no address to listen on; set LISTEN in yubin.def",
        ));
    }
    Ok(sockets)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    let lack = [nix::libc::EAFNOSUPPORT, nix::libc::EADDRNOTAVAIL];
    error
        .raw_os_error()
        .is_some_and(|errno| lack.contains(&errno))
}

impl Sockets {
    fn none() -> Self {
        Self {
            listeners: Vec::new(),
            connections: Vec::new(),
            bridge: None,
            own: false,
        }
    }

    /// Whether these are connections only (inetd, systemd with Accept=yes): serve them and end.
    pub fn is_single(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Whether we bound them ourselves.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// The addresses we listen on, as bound: a port 0 has become a number.
    pub fn addresses(&self) -> Vec<(SocketAddr, &'static str)> {
        let addr = |l: &Listening| match &l.listener {
            Listener::Tcp(tcp) => tcp.local_addr().ok().map(|a| (a, l.listen.service)),
            Listener::Unix(_) => None,
        };
        self.listeners.iter().filter_map(addr).collect()
    }

    /// Waits until what was said to a bridged pipe has been written to it.
    pub(crate) fn finish(bridge: Option<Bridge>) {
        if let Some(Bridge(writer)) = bridge {
            writer.join().ok();
        }
    }

    pub(crate) fn take_bridge(&mut self) -> Option<Bridge> {
        self.bridge.take()
    }
}

/// Whether fd 0 is the client, from inetd or because `-i` says so: then a daemon that cannot start
/// can still say so to it, on fd 1.
pub fn is_inetd(forced: bool) -> bool {
    let listens = socket::getsockopt(&io::stdin(), sockopt::AcceptConn).unwrap_or(false);
    !listens && (forced || stdin_address().as_ref().is_some_and(is_ip))
}

fn stdin_address() -> Option<SockaddrStorage> {
    socket::getsockname::<SockaddrStorage>(0).ok()
}

fn is_ip(address: &SockaddrStorage) -> bool {
    matches!(
        address.family(),
        Some(AddressFamily::Inet | AddressFamily::Inet6)
    )
}

/// inetd. A listening socket on fd 0 is inetd's `wait`; a connected one its `nowait`. A Unix socket
/// counts only with `-i`, because some shells and supervisors give one as stdin.
fn from_stdin(listens: &[Listen], first: Listen, forced: bool) -> Result<Option<Sockets>, Fail> {
    let address = stdin_address();
    if !forced && !address.as_ref().is_some_and(is_ip) {
        return Ok(None);
    }
    let fd = sys::inherited(0).doing(|| "take fd 0 from inetd")?;
    let mut sockets = Sockets::none();
    if address.is_some() {
        let local = address.as_ref().and_then(socket_addr);
        add(&mut sockets, fd, local, choose(listens, first, None, local))?;
    } else {
        let (stream, bridge) = bridge(fd)?;
        sockets.bridge = Some(bridge);
        sockets.connections.push(Connected {
            stream: Stream::Unix(stream),
            listen: first,
        });
    }
    Ok(Some(sockets))
}

/// systemd: sd_listen_fds(3). The descriptors begin at 3.
fn from_systemd(listens: &[Listen], first: Listen) -> Result<Option<Sockets>, Fail> {
    let number = |name: &str| -> Option<u32> { std::env::var(name).ok()?.parse().ok() };
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    let Some(count) = number("LISTEN_FDS").filter(|n| (1..=1024).contains(n)) else {
        return Ok(None);
    };
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = Sockets::none();
    for fd in (3..).take(usize::try_from(count).unwrap_or(0)) {
        let fd: RawFd = fd;
        let name = names.next().unwrap_or_default();
        let owned = sys::inherited(fd).doing(|| format!("take fd {fd} from systemd"))?;
        let local = socket::getsockname::<SockaddrStorage>(fd)
            .doing(|| format!("fd {fd} from systemd is not a socket"))?;
        let local = socket_addr(&local);
        add(
            &mut sockets,
            owned,
            local,
            choose(listens, first, Some(name), local),
        )?;
    }
    Ok(Some(sockets))
}

/// Which of ours a socket stands for: by name (`smtps`, or `smtps-2`), by port, or the first.
fn choose(
    listens: &[Listen],
    first: Listen,
    name: Option<&str>,
    local: Option<SocketAddr>,
) -> Listen {
    let named = name.and_then(|name| {
        listens.iter().find(|l| {
            name.strip_prefix(l.service)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    });
    let by_port = || {
        listens
            .iter()
            .find(|l| local.is_some_and(|a| a.port() == l.addr.port()))
    };
    named.or_else(by_port).copied().unwrap_or(first)
}

fn add(
    sockets: &mut Sockets,
    fd: OwnedFd,
    local: Option<SocketAddr>,
    listen: Listen,
) -> Result<(), Fail> {
    let listening =
        socket::getsockopt(&fd, sockopt::AcceptConn).doing(|| "ask whether a socket listens")?;
    match (listening, local) {
        (true, Some(_)) => sockets.listeners.push(Listening {
            listener: Listener::Tcp(fd.into()),
            listen,
        }),
        (true, None) => sockets.listeners.push(Listening {
            listener: Listener::Unix(fd.into()),
            listen,
        }),
        (false, Some(_)) => sockets.connections.push(Connected {
            stream: Stream::Tcp(fd.into()),
            listen,
        }),
        (false, None) => sockets.connections.push(Connected {
            stream: Stream::Unix(fd.into()),
            listen,
        }),
    }
    Ok(())
}

fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    address
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::new(v6.ip().into(), v6.port()))
}

/// A listener with SO_REUSEADDR, so that a restart need not wait for old connections; a v6 one is
/// v6 only, so that both families can be named.
fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let family = if addr.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    match addr {
        SocketAddr::V4(v4) => socket::bind(fd.as_raw_fd(), &SockaddrIn::from(v4))?,
        SocketAddr::V6(v6) => {
            socket::setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
            socket::bind(fd.as_raw_fd(), &SockaddrIn6::from(v6))?;
        }
    }
    socket::listen(&fd, Backlog::new(1024)?)?;
    Ok(fd.into())
}

/// The thread that writes our answers to a pipe.
#[derive(Debug)]
pub(crate) struct Bridge(JoinHandle<()>);

/// Standard input and output that are no socket (`sendmail -bs` of a mail program) become one, so
/// that the loop knows only sockets.
fn bridge(input: OwnedFd) -> Result<(UnixStream, Bridge), Fail> {
    let doing = || "connect standard input and output";
    let output = sys::inherited(1).doing(doing)?;
    let (ours, theirs) = UnixStream::pair().doing(doing)?;
    let to_us = theirs.try_clone().doing(doing)?;
    let spawn = |work: Box<dyn FnOnce() + Send>| std::thread::Builder::new().spawn(work);
    spawn(Box::new(move || {
        copy(&mut std::fs::File::from(input), &mut &to_us);
        to_us.shutdown(Shutdown::Write).ok();
    }))
    .doing(doing)?;
    let writer = spawn(Box::new(move || {
        copy(&mut &theirs, &mut std::fs::File::from(output));
    }));
    Ok((ours, Bridge(writer.doing(doing)?)))
}

/// Copies until either end fails or ends: there is nobody to tell but the session, which sees it.
fn copy(from: &mut dyn Read, to: &mut dyn Write) {
    let mut chunk = [0; 16 * 1024];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(n) if to.write_all(chunk.get(..n).unwrap_or_default()).is_ok() => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// sd_notify(3): one datagram to `NOTIFY_SOCKET`, such as `READY=1`. Without that variable, nothing.
pub fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(e) = send_notice(name.as_encoded_bytes(), state) {
        log::warn!("tell systemd {state}: {e}");
    }
}

/// How often sd_notify(3)'s `WATCHDOG=1` is due, where systemd watches us: twice in its time.
pub(crate) fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let time = number("WATCHDOG_USEC").filter(|time| *time > 0 && ours)?;
    Some(Duration::from_micros((time / 2).max(1)))
}

fn send_notice(name: &[u8], state: &str) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let address = match name.strip_prefix(b"@") {
        Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name)?,
        None => std::os::unix::net::SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_finds_its_service_by_name_port_or_first() {
        let ip = [IpAddr::from([127, 0, 0, 1])];
        let mut listens = Listen::each(&ip, 25, Encryption::OnRequest, "smtp");
        listens.extend(Listen::each(&ip, 465, Encryption::Implicit, "smtps"));
        let first = listens[0];
        let local = |port| Some(SocketAddr::new(ip[0], port));
        let table = [
            (Some("smtps"), local(25), "smtps"),
            (Some("smtps-2"), None, "smtps"),
            (Some("unknown"), local(465), "smtps"),
            (None, local(465), "smtps"),
            (None, local(2525), "smtp"),
            (Some(""), None, "smtp"),
        ];
        for (name, local, want) in table {
            let found = choose(&listens, first, name, local);
            assert_eq!(found.service, want, "{name:?} {local:?}");
        }
    }

    #[test]
    fn peers_are_shown_in_their_own_family() {
        let peer = Peer::Ip("[::ffff:192.0.2.1]:25".parse().unwrap());
        assert_eq!(peer.ip(), Some(IpAddr::from([192, 0, 2, 1])));
        assert!(!peer.is_loopback());
        assert!(Peer::Ip("[::ffff:127.0.0.1]:25".parse().unwrap()).is_loopback());
        assert!(Peer::Local.is_loopback());
    }

    #[test]
    fn a_second_bind_is_refused_and_a_restart_is_not() {
        let any = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let one = bind(any(0)).unwrap();
        let taken = one.local_addr().unwrap();
        assert!(bind(taken).is_err());
        let client = TcpStream::connect(taken).unwrap();
        // Our end closes first and stays in TIME_WAIT.
        drop(one.accept().unwrap());
        drop((one, client));
        bind(taken).unwrap();
    }
}
