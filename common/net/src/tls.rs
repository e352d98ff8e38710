//! TLS, by rustls: all of its names are here and in the client half. TLS 1.2 and 1.3, ring's cryptography,
//! passed explicitly, so that another provider in the build can never make a choice for us.
//!
//! [`Acceptor`] is the server's certificate, read again when its files change. A bad new file is
//! reported and the old certificate stays in use. A connection that ends without close_notify is
//! never taken for complete.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::fail::{Doing, Fail, Sysexit};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CommonState, ServerConfig, ServerConnection};

pub use crate::tls_client::{ClientSession, ClientStream, Connector, Verify};

/// What was agreed with the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.3`, as Postfix writes it.
    pub version: &'static str,
    /// `TLS_AES_256_GCM_SHA384`
    pub cipher: String,
    /// The key size of the cipher.
    pub bits: u16,
    /// The name the client asked for (SNI).
    pub server_name: Option<String>,
    /// The channel binding `tls-exporter` (RFC 9266), for SCRAM-PLUS.
    pub exporter: Option<[u8; 32]>,
}

impl fmt::Display for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} with cipher {} ({}/{} bits)",
            self.version, self.cipher, self.bits, self.bits
        )
    }
}

impl TlsInfo {
    pub(crate) fn of(
        state: &CommonState,
        server_name: Option<&str>,
        exporter: Option<[u8; 32]>,
    ) -> Self {
        let version = match state.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLS",
        };
        let cipher = state
            .negotiated_cipher_suite()
            .and_then(|s| {
                s.suite()
                    .as_str()
                    .map(|name| name.replace("TLS13_", "TLS_"))
            })
            .unwrap_or_default();
        let bits = if cipher.contains("128") { 128 } else { 256 };
        Self {
            version,
            cipher,
            bits,
            server_name: server_name.map(Into::into),
            exporter,
        }
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// How often, at most, the certificate's files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The server's certificate and key. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Acceptor(Arc<Inner>);

struct Inner {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    stamp: Stamp,
    looked: Instant,
}

/// What changes when a file is replaced or written again: for each, device, inode, mtime, size.
type Stamp = [(u64, u64, i64, i64, u64); 2];

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("cert", &self.0.cert)
            .finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Reads a certificate chain and its key, both PEM.
    pub fn open(cert: &Path, key: &Path) -> Result<Self, Fail> {
        let stamp = stamp(cert, key)?;
        let config = Arc::new(load(cert, key)?);
        Ok(Self(Arc::new(Inner {
            cert: cert.into(),
            key: key.into(),
            current: Mutex::new(Current {
                config,
                stamp,
                looked: Instant::now(),
            }),
        })))
    }

    /// `None` when there is no certificate file: then TLS is not offered. One that is there but
    /// cannot be used is an error.
    pub fn open_if_there(cert: &Path, key: &Path) -> Result<Option<Self>, Fail> {
        if !cert.exists() && !key.exists() {
            return Ok(None);
        }
        Self::open(cert, key).map(Some)
    }

    /// Looks at the files now: for SIGHUP.
    pub fn reload(&self) {
        let mut current = self
            .0
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut current);
    }

    fn config(&self) -> Arc<ServerConfig> {
        let mut current = self
            .0
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_EVERY {
            self.refresh(&mut current);
        }
        Arc::clone(&current.config)
    }

    /// A stamp is remembered whether or not its files were good, so that a bad one is reported once.
    fn refresh(&self, current: &mut Current) {
        current.looked = Instant::now();
        let new = stamp(&self.0.cert, &self.0.key);
        match new {
            Ok(stamp) if stamp == current.stamp => {}
            Ok(stamp) => {
                current.stamp = stamp;
                match load(&self.0.cert, &self.0.key) {
                    Ok(config) => {
                        current.config = Arc::new(config);
                        log::info!("certificate {} read again", self.0.cert.display());
                    }
                    Err(e) => log::error!("{e}; the certificate read before stays in use"),
                }
            }
            Err(e) => log::warn!("{e}; the certificate read before stays in use"),
        }
    }

    pub(crate) fn session(&self) -> Result<ServerSession, String> {
        match ServerConnection::new(self.config()) {
            Ok(mut connection) => {
                connection.set_buffer_limit(Some(64 * 1024));
                Ok(ServerSession {
                    connection,
                    info: None,
                })
            }
            Err(e) => Err(e.to_string()),
        }
    }
}

fn stamp(cert: &Path, key: &Path) -> Result<Stamp, Fail> {
    let of = |path: &Path| {
        std::fs::metadata(path)
            .map(|m| (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size()))
            .doing(|| format!("open {}", path.display()))
    };
    Ok([of(cert)?, of(key)?])
}

fn load(cert: &Path, key: &Path) -> Result<ServerConfig, Fail> {
    let bad = |path: &Path, why: &dyn fmt::Display| {
        Fail::new(Sysexit::Config, format!("{}: {why}", path.display()))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|e| bad(cert, &e))?;
    if chain.is_empty() {
        return Err(bad(
            cert,
            &"no certificate in it; write a PEM chain, the server's own first",
        ));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, &e))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(cert, &e))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| bad(cert, &format!("with key {}: {e}", key.display())))?;
    // Tickets keep the state of a resumable session with the client, not in our memory.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|e| bad(cert, &e))?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// One server side of a TLS connection, without its socket.
pub(crate) struct ServerSession {
    connection: ServerConnection,
    info: Option<TlsInfo>,
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Got {
    /// Bytes of ciphertext.
    Some,
    /// The peer said close_notify: a clean end.
    CloseNotify,
    /// TCP ended without it.
    Truncated,
}

impl ServerSession {
    /// Reads once from the socket and decrypts. An error of TLS itself is `InvalidData`; the alert
    /// for the peer is then in the output.
    pub(crate) fn read_from(&mut self, socket: &mut dyn Read) -> io::Result<Got> {
        let n = self.connection.read_tls(socket)?;
        let state = self
            .connection
            .process_new_packets()
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        if state.peer_has_closed() {
            Ok(Got::CloseNotify)
        } else if n == 0 {
            Ok(Got::Truncated)
        } else {
            Ok(Got::Some)
        }
    }

    /// Decrypted bytes into `chunk`; 0 when there are none.
    pub(crate) fn take(&mut self, chunk: &mut [u8]) -> usize {
        // Its errors say "none now" and "none ever": both are 0 here, read_from knows the end.
        self.connection.reader().read(chunk).unwrap_or(0)
    }

    /// Encrypts as much of `bytes` as its buffer takes.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        self.connection.writer().write(bytes).unwrap_or(0)
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    pub(crate) fn write_to(&mut self, socket: &mut dyn Write) -> io::Result<usize> {
        self.connection.write_tls(socket)
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// To be called once the handshake is through.
    pub(crate) fn note_info(&mut self) {
        let exporter = self
            .connection
            .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
            .ok();
        self.info = Some(TlsInfo::of(
            &self.connection,
            self.connection.server_name(),
            exporter,
        ));
    }

    pub(crate) fn info(&self) -> Option<&TlsInfo> {
        self.info.as_ref()
    }

    pub(crate) fn close_notify(&mut self) {
        self.connection.send_close_notify();
    }
}
