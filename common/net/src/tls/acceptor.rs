//! The server's certificates, read again when their files change. A bad new file is reported and
//! the old certificate stays in use.
//!
//! A client is shown the certificate of the name that it asks for, or the default one. Where there
//! are authorities of users' certificates, people's programs are asked for one, and need not have
//! it; one that they have must be good, or there is no connection.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::Config;
use base::fail::{Fail, Sysexit};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use super::certificate::{Certificate, Pair, Stamp, stamp};
use super::{ServerSession, provider};

/// How often, at most, the certificates' files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Certificates beside the default one. Each costs a look at two files, now and then.
const MAX_NAMES: usize = 2000;

/// The server's certificates and keys. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Acceptor {
    inner: Arc<Inner>,
    /// Clients are asked for a certificate.
    asks: bool,
}

struct Inner {
    default: Pair,
    /// Directories of further names.
    names: Option<PathBuf>,
    authorities: Option<PathBuf>,
    current: Mutex<Current>,
}

struct Current {
    serving: Serving,
    stamps: Vec<Stamp>,
    looked: Instant,
}

/// What is served between two changes. Tickets of one are worth nothing to the next, so that who
/// resumes a session has seen the certificate that we have in mind.
#[derive(Clone)]
struct Serving {
    plain: Arc<ServerConfig>,
    /// The same, which asks for a certificate; where there are no authorities it is `plain`.
    asking: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("cert", &self.inner.default.cert)
            .finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Reads a certificate chain and its key, both PEM.
    pub fn open(cert: &Path, key: &Path) -> Result<Self, Fail> {
        Self::with(Pair::new(cert, key), None, None)
    }

    /// As the operator wants it. `None` when there is no certificate file: then TLS is not offered.
    /// One that is there but cannot be used is an error.
    pub fn configured(config: &Config) -> Result<Option<Self>, Fail> {
        let (cert, key) = (&config.tls_cert_file, &config.tls_key_file);
        if !cert.exists() && !key.exists() {
            return Ok(None);
        }
        Self::with(
            Pair::new(cert, key),
            Some(config.tls_cert_dir.clone()),
            config.tls_client_ca_file.clone(),
        )
        .map(Some)
    }

    fn with(
        default: Pair,
        names: Option<PathBuf>,
        authorities: Option<PathBuf>,
    ) -> Result<Self, Fail> {
        let pairs = pairs(names.as_deref())?;
        let stamps = stamps(&default, &pairs, authorities.as_deref());
        let mut certificates = Certificates {
            default: Arc::new(Certificate::load(&default)?),
            named: HashMap::new(),
        };
        for (name, pair) in pairs {
            let certificate = Certificate::load(&pair)?;
            certificates.named.insert(name, Arc::new(certificate));
        }
        let serving = Serving::of(Arc::new(certificates), authorities.as_deref())?;
        let current = Mutex::new(Current {
            serving,
            stamps,
            looked: Instant::now(),
        });
        Ok(Self {
            inner: Arc::new(Inner {
                default,
                names,
                authorities,
                current,
            }),
            asks: false,
        })
    }

    /// The same, which asks its clients for a certificate or does not.
    #[must_use]
    pub fn asking(&self, asks: bool) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            asks,
        }
    }

    /// Looks at the files now: for SIGHUP.
    pub fn reload(&self) {
        self.inner.refresh(&mut self.inner.lock());
    }

    pub(crate) fn session(&self) -> Result<ServerSession, String> {
        let mut current = self.inner.lock();
        if current.looked.elapsed() >= LOOK_EVERY {
            self.inner.refresh(&mut current);
        }
        let serving = current.serving.clone();
        drop(current);
        let config = match self.asks {
            true => serving.asking,
            false => serving.plain,
        };
        match ServerConnection::new(config) {
            Ok(mut connection) => {
                connection.set_buffer_limit(Some(64 * 1024));
                Ok(ServerSession {
                    connection,
                    certificates: serving.certificates,
                    info: None,
                })
            }
            Err(e) => Err(e.to_string()),
        }
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stamps are remembered whether or not their files were good, so that a bad one is reported
    /// once.
    fn refresh(&self, current: &mut Current) {
        current.looked = Instant::now();
        let pairs = match pairs(self.names.as_deref()) {
            Ok(pairs) => pairs,
            Err(e) => return log::warn!("{e}; the certificates read before stay in use"),
        };
        let stamps = stamps(&self.default, &pairs, self.authorities.as_deref());
        if stamps == current.stamps {
            return;
        }
        current.stamps = stamps;
        let old = &current.serving.certificates;
        let mut certificates = Certificates {
            default: again(&self.default, Some(&old.default))
                .unwrap_or_else(|| Arc::clone(&old.default)),
            named: HashMap::new(),
        };
        for (name, pair) in &pairs {
            if let Some(certificate) = again(pair, old.named.get(name)) {
                certificates.named.insert(name.clone(), certificate);
            }
        }
        match Serving::of(Arc::new(certificates), self.authorities.as_deref()) {
            Ok(serving) => current.serving = serving,
            Err(e) => log::error!("{e}; what was read before stays in use"),
        }
    }
}

/// The certificate as it is now, or as it was last good.
fn again(pair: &Pair, old: Option<&Arc<Certificate>>) -> Option<Arc<Certificate>> {
    let unchanged = old.filter(|old| old.stamp == stamp(pair));
    if let Some(old) = unchanged {
        return Some(Arc::clone(old));
    }
    match Certificate::load(pair) {
        Ok(new) => {
            log::info!("certificate {} read again", pair.cert.display());
            Some(Arc::new(new))
        }
        Err(e) => {
            log::error!("{e}; the certificate read before stays in use");
            old.cloned()
        }
    }
}

/// `NAME/cert.pem` and `NAME/key.pem`, or as certbot has them, for each directory; none where there
/// is no such place. A name may be `*.example.org`.
fn pairs(names: Option<&Path>) -> Result<HashMap<String, Pair>, Fail> {
    let mut pairs = HashMap::new();
    let Some(dir) = names else {
        return Ok(pairs);
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(pairs),
        Err(e) => {
            return Err(Fail::config(format!(
                "TLS_CERT_DIR: {}: {e}",
                dir.display()
            )));
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') || !path.is_dir() {
            continue;
        }
        if pairs.len() >= MAX_NAMES {
            let dir = dir.display();
            return Err(Fail::config(format!(
                "TLS_CERT_DIR: {dir}: more than {MAX_NAMES} names"
            )));
        }
        pairs.insert(name.to_ascii_lowercase(), Pair::within(&path));
    }
    Ok(pairs)
}

/// Of every file that counts, in one order.
fn stamps(default: &Pair, named: &HashMap<String, Pair>, authorities: Option<&Path>) -> Vec<Stamp> {
    let mut names: Vec<_> = named.iter().collect();
    names.sort_unstable_by_key(|(name, _)| *name);
    let authorities = authorities.map(|file| stamp(&Pair::new(file, file)));
    [stamp(default)]
        .into_iter()
        .chain(authorities)
        .chain(names.into_iter().map(|(_, pair)| stamp(pair)))
        .collect()
}

impl Serving {
    fn of(certificates: Arc<Certificates>, authorities: Option<&Path>) -> Result<Self, Fail> {
        let plain = Arc::new(config(&certificates, None)?);
        let asking = match authorities {
            Some(file) => Arc::new(config(&certificates, Some(file))?),
            None => Arc::clone(&plain),
        };
        Ok(Self {
            plain,
            asking,
            certificates,
        })
    }
}

fn config(
    certificates: &Arc<Certificates>,
    authorities: Option<&Path>,
) -> Result<ServerConfig, Fail> {
    let bad = |why: &dyn fmt::Display| Fail::new(Sysexit::Software, format!("set up TLS: {why}"));
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&e))?;
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let unfit = |why: &dyn fmt::Display| {
                let file = file.display();
                Fail::config(format!("TLS_CLIENT_CA_FILE: {file}: {why}"))
            };
            let mut roots = RootCertStore::empty();
            let all = CertificateDer::pem_file_iter(file).map_err(|e| unfit(&e))?;
            for one in all {
                roots
                    .add(one.map_err(|e| unfit(&e))?)
                    .map_err(|e| unfit(&e))?;
            }
            // It says so where there are none.
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider())
                .allow_unauthenticated()
                .build()
                .map_err(|e| unfit(&e))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let shown: Arc<dyn ResolvesServerCert> = Arc::<Certificates>::clone(certificates);
    let mut config = builder.with_cert_resolver(shown);
    // Tickets keep the state of a resumable session with the client, not in our memory.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|e| bad(&e))?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// Which certificate a client is shown.
#[derive(Debug)]
pub(super) struct Certificates {
    default: Arc<Certificate>,
    named: HashMap<String, Arc<Certificate>>,
}

impl Certificates {
    /// By the name that the client asked for, and by nothing else: what was shown can be told later.
    /// `*` stands for one label, the first (RFC 9525 6.3).
    pub(super) fn of(&self, name: Option<&str>) -> &Certificate {
        let Some(name) = name.filter(|_| !self.named.is_empty()) else {
            return &self.default;
        };
        let name = name.to_ascii_lowercase();
        let wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.named.get(&format!("*.{parent}"))
        };
        self.named
            .get(&name)
            .or_else(wildcard)
            .unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.of(hello.server_name()).key))
    }
}
