//! TLS, by rustls: all of its names are here and in the client half. TLS 1.2 and 1.3, ring's cryptography,
//! passed explicitly, so that another provider in the build can never make a choice for us.
//!
//! [`Acceptor`] is the server's certificates, read again when their files change. A connection that
//! ends without close_notify is never taken for complete.

mod acceptor;
mod certificate;
pub(crate) mod proof;

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use acceptor::Certificates;
use rustls::crypto::CryptoProvider;
use rustls::{CommonState, ProtocolVersion, ServerConnection};

pub use crate::tls_client::{ClientSession, ClientStream, Connector, Judged, Verify};
pub use acceptor::Acceptor;
pub use proof::{Name, Problem, Proof, Tlsa, Way};

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
    /// The channel binding `tls-exporter` (RFC 9266 2), for SCRAM-PLUS; of TLS 1.3 only, because
    /// before that it is unique only with an extension that a client need not have.
    pub exporter: Option<[u8; 32]>,
    /// The channel binding `tls-server-end-point` (RFC 5929 4): a hash of our certificate.
    pub end_point: Option<Vec<u8>>,
    /// SHA-256 of the certificate that the client showed, and that was verified.
    pub client_certificate: Option<[u8; 32]>,
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
    /// What both sides know; the rest is the server's to add.
    pub(crate) fn of(state: &CommonState) -> Self {
        let version = match state.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
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
            server_name: None,
            exporter: None,
            end_point: None,
            client_certificate: None,
        }
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// One server side of a TLS connection, without its socket.
pub(crate) struct ServerSession {
    connection: ServerConnection,
    /// One of these was shown to the client.
    certificates: Arc<Certificates>,
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
        let (connection, name) = (&self.connection, self.connection.server_name());
        let mut info = TlsInfo::of(connection);
        info.server_name = name.map(Into::into);
        if connection.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            info.exporter = connection
                .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
                .ok();
        }
        info.end_point = self.certificates.of(name).end_point.clone();
        // One that the authorities do not vouch for ended the handshake.
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        info.client_certificate = shown.and_then(|certificate| {
            let hash = ring::digest::digest(&ring::digest::SHA256, certificate);
            hash.as_ref().try_into().ok()
        });
        self.info = Some(info);
    }

    pub(crate) fn info(&self) -> Option<&TlsInfo> {
        self.info.as_ref()
    }

    pub(crate) fn close_notify(&mut self) {
        self.connection.send_close_notify();
    }
}
