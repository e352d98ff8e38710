//! The client half of TLS, for who relays: over any blocking stream, or without one.
//!
//! [`Verify::Never`] is opportunistic: it keeps out who only listens, and an expired or foreign
//! certificate is still better than plaintext (RFC 7435). [`Verify::Name`] asks the system's trust
//! store and the name. [`Connector::checked`] asks for any other [`Proof`], or only looks whether there is
//! one.

mod checked;

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use std::path::{Path, PathBuf};

use base::Config;
use base::fail::{Fail, Sysexit};
use base::status::Status;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use self::checked::Judgement;
use crate::tls::{Problem, Proof, TlsInfo, Way, provider};

/// Whether the server must prove its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    Never,
    Name,
}

/// What came of a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Judged {
    /// It was not looked at, or there was none yet.
    #[default]
    Unseen,
    Proven(Way),
    Failed(Problem),
}

impl Judged {
    /// Whether the server is who it says, so that it may have a secret.
    pub fn is_proven(&self) -> bool {
        matches!(self, Self::Proven(way) if *way != Way::Unasked)
    }
}

/// Makes client sessions. Cheap to clone; the trust store is read when first needed.
#[derive(Clone)]
pub struct Connector(Arc<Inner>);

struct Inner {
    opportunistic: Arc<ClientConfig>,
    /// Trusted authorities, where they are not the system's.
    authorities: Option<PathBuf>,
    verified: Mutex<Option<Verified>>,
}

/// What waits until somebody asks for a name.
#[derive(Clone)]
struct Verified {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// Trusts the system's authorities.
    pub fn new() -> Result<Self, Fail> {
        Self::trusting(None)
    }

    /// Trusts those of TLS_CA_FILE, or the system's.
    pub fn configured(config: &Config) -> Result<Self, Fail> {
        Self::trusting(config.tls_ca_file.clone())
    }

    fn trusting(authorities: Option<PathBuf>) -> Result<Self, Fail> {
        let provider = provider();
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| broken(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        config.enable_early_data = false;
        Ok(Self(Arc::new(Inner {
            opportunistic: Arc::new(config),
            authorities,
            verified: Mutex::new(None),
        })))
    }

    fn config(&self, verify: Verify) -> Result<Arc<ClientConfig>, Fail> {
        if verify == Verify::Never {
            return Ok(Arc::clone(&self.0.opportunistic));
        }
        self.verified().map(|verified| verified.config)
    }

    fn verified(&self) -> Result<Verified, Fail> {
        let mut verified = self
            .0
            .verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(verified) = &*verified {
            return Ok(verified.clone());
        }
        let roots = Arc::new(match &self.0.authorities {
            Some(file) => roots_in(file)?,
            None => system_roots()?,
        });
        let config = Arc::new(verifying(Arc::clone(&roots))?);
        Ok(verified.insert(Verified { roots, config }).clone())
    }

    /// A session in which the server is asked for `name`, and must give `proof` or, without `must`, is
    /// only judged by it: see [`ClientSession::judged`].
    pub fn checked(&self, name: &str, proof: Proof, must: bool) -> Result<ClientSession, Fail> {
        let roots = match proof.needs_roots() {
            true => self.verified()?.roots,
            false => Arc::new(RootCertStore::empty()),
        };
        let judgement = Judgement::default();
        let config = checked::config(proof, must, roots, judgement.clone())?;
        session(name, Arc::new(config), judgement)
    }

    /// A session to `name` (a host name, or an address), for a caller with its own loop.
    pub fn session(&self, name: &str, verify: Verify) -> Result<ClientSession, Fail> {
        session(name, self.config(verify)?, Judgement::default())
    }

    /// The whole handshake on a blocking stream, whose own timeouts apply to each read and write.
    pub fn connect<S: Read + Write>(
        &self,
        mut stream: S,
        name: &str,
        verify: Verify,
    ) -> Result<ClientStream<S>, Fail> {
        let mut session = self.session(name, verify)?;
        session.handshake(&mut stream, name)?;
        Ok(ClientStream { session, stream })
    }

    /// The same with a server that must give `proof`; where it does not come about, with what came of
    /// the certificate.
    pub fn connect_checked<S: Read + Write>(
        &self,
        mut stream: S,
        name: &str,
        proof: Proof,
    ) -> Result<ClientStream<S>, (Fail, Judged)> {
        let session = self.checked(name, proof, true);
        let mut session = session.map_err(|fail| (fail, Judged::Unseen))?;
        match session.handshake(&mut stream, name) {
            Ok(()) => Ok(ClientStream { session, stream }),
            Err(fail) => Err((fail, session.judged())),
        }
    }
}

fn session(
    name: &str,
    config: Arc<ClientConfig>,
    judgement: Judgement,
) -> Result<ClientSession, Fail> {
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| Fail::data(format!("TLS to {name}: not a host name")))?;
    let connection = ClientConnection::new(config, server).map_err(|e| failed(name, &e))?;
    Ok(ClientSession {
        connection,
        judgement,
    })
}

fn broken(why: &rustls::Error) -> Fail {
    Fail::new(Sysexit::Software, format!("set up TLS: {why}"))
}

fn failed(name: &str, why: &rustls::Error) -> Fail {
    Fail::temp(format!("TLS to {name}: {why}")).with_status(Status::new(4, 7, 5))
}

fn system_roots() -> Result<RootCertStore, Fail> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Fail::temp(
            "no trusted certificates on this system; install ca-certificates",
        ));
    }
    Ok(roots)
}

/// The authorities of a PEM file.
fn roots_in(file: &Path) -> Result<RootCertStore, Fail> {
    let bad = |what: &dyn std::fmt::Display| {
        let file = file.display();
        Fail::config(format!("TLS_CA_FILE: {file}: {what}"))
    };
    let mut roots = RootCertStore::empty();
    for one in CertificateDer::pem_file_iter(file).map_err(|e| bad(&e))? {
        roots.add(one.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
    }
    match roots.is_empty() {
        true => Err(bad(&"no certificate in it")),
        false => Ok(roots),
    }
}

fn verifying(roots: Arc<RootCertStore>) -> Result<ClientConfig, Fail> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|e| Fail::temp(format!("set up certificate checks: {e}")))?;
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| broken(&e))?
        .with_webpki_verifier(verifier)
        .with_no_client_auth())
}

/// Takes every certificate, but checks that the peer holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client's side of TLS without a socket: move bytes by `read_tls` and `write_tls`.
#[derive(Debug)]
pub struct ClientSession {
    connection: ClientConnection,
    judgement: Judgement,
}

impl ClientSession {
    /// All of it, on a blocking stream.
    fn handshake(&mut self, stream: &mut (impl Read + Write), name: &str) -> Result<(), Fail> {
        while self.connection.is_handshaking() {
            self.connection.complete_io(stream).map_err(|e| {
                Fail::io(format!("TLS handshake with {name}"), e).with_status(Status::new(4, 7, 5))
            })?;
        }
        Ok(())
    }

    /// Reads ciphertext once; `Ok(0)` is the end of TCP. An error of TLS is `InvalidData`.
    pub fn read_tls(&mut self, socket: &mut dyn Read) -> io::Result<usize> {
        let n = self.connection.read_tls(socket)?;
        self.connection
            .process_new_packets()
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        Ok(n)
    }

    pub fn write_tls(&mut self, socket: &mut dyn Write) -> io::Result<usize> {
        self.connection.write_tls(socket)
    }

    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    pub fn wants_read(&self) -> bool {
        self.connection.wants_read()
    }

    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Decrypted bytes. `WouldBlock`: none now. `Ok(0)`: close_notify came. `UnexpectedEof`: TCP
    /// ended without it.
    pub fn read_plain(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.connection.reader().read(into)
    }

    pub fn write_plain(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.connection.writer().write(bytes)
    }

    pub fn close_notify(&mut self) {
        self.connection.send_close_notify();
    }

    /// What came of the server's certificate, also where the handshake failed for it; of a session
    /// of [`Connector::checked`].
    pub fn judged(&self) -> Judged {
        self.judgement.get()
    }

    /// What was agreed, once the handshake is through.
    pub fn info(&self) -> TlsInfo {
        TlsInfo::of(&self.connection)
    }
}

/// TLS over a blocking stream. A read gives `Ok(0)` only after close_notify.
#[derive(Debug)]
pub struct ClientStream<S> {
    session: ClientSession,
    stream: S,
}

impl<S: Read + Write> ClientStream<S> {
    pub fn info(&self) -> TlsInfo {
        self.session.info()
    }

    /// The stream below: to set its timeouts, never to read or write.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Says close_notify.
    pub fn close(&mut self) -> io::Result<()> {
        self.session.close_notify();
        self.flush()
    }
}

impl<S: Read + Write> Read for ClientStream<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut self.session.connection, &mut self.stream).read(buf)
    }
}

impl<S: Read + Write> Write for ClientStream<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut self.session.connection, &mut self.stream).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        rustls::Stream::new(&mut self.session.connection, &mut self.stream).flush()
    }
}
