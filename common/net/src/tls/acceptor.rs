//! The server's certificate, read again when its files change. A bad new file is reported and the
//! old certificate stays in use.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::fail::{Doing, Fail, Sysexit};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};

use super::certificate::Certificate;
use super::{ServerSession, provider};

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
    serving: Serving,
    stamp: Stamp,
    looked: Instant,
}

/// What is served between two changes. Tickets of one are worth nothing to the next, so that who
/// resumes a session has seen the certificate that we have in mind.
#[derive(Clone)]
struct Serving {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
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
        let serving = Serving::load(cert, key)?;
        Ok(Self(Arc::new(Inner {
            cert: cert.into(),
            key: key.into(),
            current: Mutex::new(Current {
                serving,
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

    fn serving(&self) -> Serving {
        let mut current = self
            .0
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_EVERY {
            self.refresh(&mut current);
        }
        current.serving.clone()
    }

    /// A stamp is remembered whether or not its files were good, so that a bad one is reported once.
    fn refresh(&self, current: &mut Current) {
        current.looked = Instant::now();
        let new = stamp(&self.0.cert, &self.0.key);
        match new {
            Ok(stamp) if stamp == current.stamp => {}
            Ok(stamp) => {
                current.stamp = stamp;
                match Serving::load(&self.0.cert, &self.0.key) {
                    Ok(serving) => {
                        current.serving = serving;
                        log::info!("certificate {} read again", self.0.cert.display());
                    }
                    Err(e) => log::error!("{e}; the certificate read before stays in use"),
                }
            }
            Err(e) => log::warn!("{e}; the certificate read before stays in use"),
        }
    }

    pub(crate) fn session(&self) -> Result<ServerSession, String> {
        let Serving {
            config,
            certificates,
        } = self.serving();
        match ServerConnection::new(config) {
            Ok(mut connection) => {
                connection.set_buffer_limit(Some(64 * 1024));
                Ok(ServerSession {
                    connection,
                    certificates,
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

impl Serving {
    fn load(cert: &Path, key: &Path) -> Result<Self, Fail> {
        let bad = |why: &dyn fmt::Display| {
            Fail::new(Sysexit::Config, format!("{}: {why}", cert.display()))
        };
        let certificates = Arc::new(Certificates {
            default: Certificate::load(cert, key)?,
        });
        let shown: Arc<dyn ResolvesServerCert> = Arc::<Certificates>::clone(&certificates);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| bad(&e))?
            .with_no_client_auth()
            .with_cert_resolver(shown);
        // Tickets keep the state of a resumable session with the client, not in our memory.
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|e| bad(&e))?;
        config.send_tls13_tickets = 1;
        Ok(Self {
            config: Arc::new(config),
            certificates,
        })
    }
}

/// Which certificate a client is shown.
#[derive(Debug)]
pub(super) struct Certificates {
    default: Certificate,
}

impl Certificates {
    /// By the name that the client asked for, and by nothing else: what was shown can be told later.
    pub(super) fn of(&self, _name: Option<&str>) -> &Certificate {
        &self.default
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.of(hello.server_name()).key))
    }
}
