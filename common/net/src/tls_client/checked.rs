//! A handshake in which the server must prove itself as its caller wants, or is only looked at.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::{AnyCertificate, Judged, broken};
use crate::tls::proof::Shown;
use crate::tls::{Problem, Proof, provider};
use base::Fail;

/// Where the verifier leaves what it found.
#[derive(Debug, Clone, Default)]
pub(super) struct Judgement(Arc<Mutex<Judged>>);

impl Judgement {
    pub(super) fn get(&self) -> Judged {
        let judged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        judged.clone()
    }

    fn set(&self, judged: Judged) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = judged;
    }
}

/// A configuration for one connection. Nothing is resumed, since who resumes shows no certificate.
pub(super) fn config(
    proof: Proof,
    must: bool,
    roots: Arc<RootCertStore>,
    judgement: Judgement,
) -> Result<ClientConfig, Fail> {
    let provider = provider();
    let verifier = Checked {
        proof,
        must,
        roots,
        judgement,
        signatures: AnyCertificate(Arc::clone(&provider)),
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| broken(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[derive(Debug)]
struct Checked {
    proof: Proof,
    /// Whether a connection is of no use without.
    must: bool,
    roots: Arc<RootCertStore>,
    judgement: Judgement,
    signatures: AnyCertificate,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Shown {
            end_entity,
            intermediates,
            now: Duration::from_secs(now.as_secs()),
            algorithms: self.provider.signature_verification_algorithms.all,
        };
        let found = self.proof.judge(shown, &self.roots);
        let refused = match &found {
            Err(problem) if self.must => Some(alert(problem)),
            _ => None,
        };
        self.judgement.set(match found {
            Ok(way) => Judged::Proven(way),
            Err(problem) => Judged::Failed(problem),
        });
        match refused {
            Some(error) => Err(error.into()),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}

/// What the server is told.
fn alert(problem: &Problem) -> CertificateError {
    match problem {
        Problem::NotTrusted(_) => CertificateError::UnknownIssuer,
        Problem::Expired => CertificateError::Expired,
        Problem::WrongName => CertificateError::NotValidForName,
        Problem::NoTlsa | Problem::NoFingerprint => {
            CertificateError::ApplicationVerificationFailure
        }
        Problem::Malformed(_) => CertificateError::BadEncoding,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection};

    use super::*;
    use crate::tls::{Connector, Tlsa, Way};

    fn server() -> (ServerConnection, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["mx.example.org".to_owned()];
        let certificate = CertificateParams::new(names).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let chain = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        (connection, certificate.der().to_vec())
    }

    #[test]
    fn a_server_is_turned_away_or_only_judged() {
        let connector = Connector::new().unwrap();
        let wrong = Tlsa {
            usage: 3,
            selector: 0,
            matching: 0,
            data: vec![1],
        };
        // Whether the right record is there, and whether it must fit.
        for (fits, must, goes) in [
            (true, true, true),
            (true, false, true),
            (false, true, false),
            (false, false, true),
        ] {
            let (mut server, certificate) = server();
            let right = Tlsa {
                data: certificate,
                ..wrong.clone()
            };
            let records = vec![if fits { right } else { wrong.clone() }];
            let proof = Proof::Dane {
                records,
                names: vec![],
            };
            let mut session = connector.checked("mx.example.org", proof, must).unwrap();
            assert_eq!(session.judged(), Judged::Unseen);
            let mut result = Ok(());
            let mut wire = Vec::new();
            while session.is_handshaking() && result.is_ok() {
                wire.clear();
                session.write_tls(&mut wire).unwrap();
                server.read_tls(&mut wire.as_slice()).unwrap();
                server.process_new_packets().unwrap();
                wire.clear();
                while server.wants_write() {
                    server.write_tls(&mut wire).unwrap();
                }
                let mut unread = wire.as_slice();
                while !unread.is_empty() && result.is_ok() {
                    result = session.read_tls(&mut unread).map(|_| ());
                }
            }
            assert_eq!(result.is_ok(), goes);
            let want = match fits {
                true => Judged::Proven(Way::DaneEe),
                false => Judged::Failed(Problem::NoTlsa),
            };
            assert_eq!(session.judged(), want);
            assert_eq!(session.judged().is_proven(), fits);
        }
        assert!(connector.checked("not a host", Proof::Any, false).is_err());
        assert!(connector.checked("192.0.2.1", Proof::Any, true).is_ok());
    }
}
