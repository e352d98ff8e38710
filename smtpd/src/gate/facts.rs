//! What is known of a session when its doors are asked.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use base::envelope::{Body, Needs, Ret};
use base::escape::escape;
use base::{Recipient, ReversePath};
use mailauth::iprev::Iprev;
use net::{Accepted, Peer, TlsInfo};
use queue::Lane;

/// See the module. It is kept up to date by the connection, between questions.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// As in the log: `mail.example.com[192.0.2.1]`.
    pub(crate) shown: String,
    /// What the client's host is called, where that was looked up.
    pub(crate) name: Option<Iprev>,
    /// `None` for a client on a pipe or a Unix socket.
    pub(crate) client: Option<SocketAddr>,
    /// Our own end.
    pub(crate) local: Option<SocketAddr>,
    /// `smtp`, `submission` or `smtps`.
    pub(crate) service: &'static str,
    /// It is in our networks.
    pub(crate) trusted: bool,
    /// A list of good clients has it: it need not prove itself.
    pub(crate) welcome: bool,
    /// The access table says OK to the recipient that is asked about: what keeps strangers out in
    /// general is not for him.
    pub(crate) permitted: bool,
    pub(crate) hello: Option<Hello>,
    pub(crate) tls: Option<Tls>,
    pub(crate) login: Option<Login>,
    /// From MAIL on.
    pub(crate) transaction: Option<Opened>,
}

/// What the client says that it is.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    pub(crate) name: String,
    /// By EHLO.
    pub(crate) extended: bool,
}

/// What was agreed.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    /// `TLSv1.3`
    pub(crate) version: &'static str,
    /// `TLS_AES_256_GCM_SHA384`
    pub(crate) cipher: String,
    /// Of the cipher's key.
    pub(crate) bits: u16,
}

/// Who logged in.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    /// `PLAIN`
    pub(crate) mechanism: &'static str,
}

/// A transaction, as far as it has come.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) reverse_path: ReversePath,
    /// Octets that MAIL announced; 0 where it did not.
    pub(crate) size: u64,
    pub(crate) body: Body,
    pub(crate) ret: Option<Ret>,
    pub(crate) envid: Option<String>,
    pub(crate) needs: Needs,
    /// Those that were taken so far.
    pub(crate) recipients: Vec<Recipient>,
    /// Where the recipient goes who is asked about, at [`super::Stage::Recipient`].
    pub(crate) lane: Option<Lane>,
    /// At [`super::Stage::Message`].
    pub(crate) queue_id: Option<String>,
}

impl Facts {
    /// Of a new connection.
    pub(crate) fn new(accepted: &Accepted, shown: String, trusted: bool) -> Self {
        let client = match accepted.peer {
            Peer::Ip(address) => Some(SocketAddr::new(address.ip().to_canonical(), address.port())),
            Peer::Local => None,
        };
        Self {
            shown,
            name: None,
            client,
            local: accepted.local,
            service: accepted.service,
            trusted,
            welcome: false,
            permitted: false,
            hello: None,
            tls: None,
            login: None,
            transaction: None,
        }
    }

    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.client.map(|client| client.ip())
    }

    pub(crate) fn learn(&mut self, name: &Iprev) {
        if let (Some(ip), Some(name)) = (self.ip(), name.name()) {
            self.shown = format!("{name}[{ip}]");
        }
        self.name = Some(name.clone());
    }

    /// It may relay: it is one of our own.
    pub(crate) fn is_ours(&self) -> bool {
        self.trusted || self.login.is_some()
    }
}

impl From<&TlsInfo> for Tls {
    fn from(info: &TlsInfo) -> Self {
        Self {
            version: info.version,
            cipher: info.cipher.clone(),
            bits: info.bits,
        }
    }
}

/// All of it, for the log.
impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: service={}", self.shown, self.service)?;
        if let (Some(ip), Some(local)) = (self.ip(), self.local) {
            write!(f, ", client={ip}, local={local}")?;
        }
        for (is_so, word) in [
            (self.is_ours(), "ours"),
            (self.welcome, "welcome"),
            (self.permitted, "permitted"),
        ] {
            if is_so {
                write!(f, ", {word}")?;
            }
        }
        if let Some(hello) = &self.hello {
            let verb = if hello.extended { "ehlo" } else { "helo" };
            write!(f, ", {verb}=<{}>", escape(&hello.name))?;
        }
        if let Some(tls) = &self.tls {
            write!(f, ", tls={} {} {}", tls.version, tls.cipher, tls.bits)?;
        }
        if let Some(login) = &self.login {
            let (method, user) = (login.mechanism, escape(&login.user));
            write!(f, ", sasl_method={method}, sasl_username={user}")?;
        }
        match &self.transaction {
            Some(opened) => write!(f, ", {opened}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.reverse_path.to_string();
        write!(f, "from=<{}>, size={}", escape(&from), self.size)?;
        write!(f, ", nrcpt={}, body={:?}", self.recipients.len(), self.body)?;
        if let Some(ret) = self.ret {
            write!(f, ", ret={ret:?}")?;
        }
        if let Some(envid) = &self.envid {
            write!(f, ", envid={}", escape(envid))?;
        }
        if self.needs != Needs::default() {
            write!(f, ", needs={:?}", self.needs)?;
        }
        match &self.queue_id {
            Some(id) => write!(f, ", id={id}"),
            None => Ok(()),
        }
    }
}
