//! Whether a server has proven who it is: by the authorities that a system trusts and its name (RFC
//! 9525), by what its domain publishes (DANE: RFC 6698, RFC 7671, RFC 7672), or by a fingerprint.
//!
//! [`Proof::judge`] is a function of the certificates, the roots and the time. That the server holds
//! its certificate's key is the handshake's to check, whatever is asked for here.

use std::fmt;
use std::time::Duration;

use ring::digest::{SHA256, SHA512, digest};
use rustls::RootCertStore;
use rustls::pki_types::{
    CertificateDer, ServerName, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// What a server must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Any certificate.
    Any,
    /// One that a trusted authority has issued for one of these names.
    Pkix { names: Vec<Name> },
    /// One that a usable record fits, and one of these names where its usage asks for a name.
    Dane {
        records: Vec<Tlsa>,
        names: Vec<String>,
    },
    /// One with one of these hashes, SHA-256, of itself or of its public key.
    Fingerprint(Vec<[u8; 32]>),
}

/// A name that a certificate may bear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    Is(String),
    /// Or any below this.
    Below(String),
}

/// One TLSA record: RFC 6698 2.1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tlsa {
    pub usage: u8,
    pub selector: u8,
    pub matching: u8,
    pub data: Vec<u8>,
}

const DANE_TA: u8 = 2;
const DANE_EE: u8 = 3;
const FULL: u8 = 0;
const SPKI: u8 = 1;
const EXACT: u8 = 0;
const SHA2_256: u8 = 1;
const SHA2_512: u8 = 2;

impl Tlsa {
    /// Whether it means something here: RFC 7672 3.1.3 leaves usages 2 and 3.
    pub fn is_usable(&self) -> bool {
        let fits = match self.matching {
            EXACT => !self.data.is_empty(),
            SHA2_256 => self.data.len() == 32,
            SHA2_512 => self.data.len() == 64,
            _ => false,
        };
        fits && matches!(self.usage, DANE_TA | DANE_EE) && matches!(self.selector, FULL | SPKI)
    }

    fn fits(&self, certificate: &CertificateDer<'_>, key: &[u8]) -> bool {
        let selected: &[u8] = match self.selector {
            FULL => certificate,
            _ => key,
        };
        match self.matching {
            EXACT => self.data == selected,
            SHA2_256 => self.data == digest(&SHA256, selected).as_ref(),
            SHA2_512 => self.data == digest(&SHA512, selected).as_ref(),
            _ => false,
        }
    }
}

/// How a server has proven itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing was asked for.
    Unasked,
    Authority,
    DaneEe,
    DaneTa,
    Fingerprint,
}

/// Why a server has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// No trusted authority vouches for it.
    NotTrusted(String),
    /// It is over, or has not begun.
    Expired,
    WrongName,
    /// No TLSA record fits.
    NoTlsa,
    NoFingerprint,
    /// It cannot be read.
    Malformed(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTrusted(why) => write!(f, "certificate not trusted: {why}"),
            Self::Expired => f.write_str("certificate has expired, or is not yet valid"),
            Self::WrongName => f.write_str("certificate is for another name"),
            Self::NoTlsa => f.write_str("certificate does not match the TLSA records"),
            Self::NoFingerprint => f.write_str("certificate has another fingerprint"),
            Self::Malformed(why) => write!(f, "certificate cannot be read: {why}"),
        }
    }
}

/// What a server showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) end_entity: &'a CertificateDer<'a>,
    pub(crate) intermediates: &'a [CertificateDer<'a>],
    /// Since 1970.
    pub(crate) now: Duration,
    pub(crate) algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
}

impl Proof {
    /// Whether the authorities that the system trusts are asked.
    pub(crate) fn needs_roots(&self) -> bool {
        matches!(self, Self::Pkix { .. })
    }

    /// `roots` matter where the authorities are asked.
    pub(crate) fn judge(&self, shown: Shown<'_>, roots: &RootCertStore) -> Result<Way, Problem> {
        match self {
            Self::Any => Ok(Way::Unasked),
            Self::Pkix { names } => {
                let certificate = read(shown.end_entity)?;
                shown.chain(&certificate, &roots.roots)?;
                match names.iter().any(|name| name.is_of(&certificate)) {
                    true => Ok(Way::Authority),
                    false => Err(Problem::WrongName),
                }
            }
            Self::Dane { records, names } => dane(records, names, shown),
            Self::Fingerprint(wanted) => {
                let certificate = read(shown.end_entity)?;
                let key = certificate.subject_public_key_info();
                let has = |bytes: &[u8]| {
                    let hash = digest(&SHA256, bytes);
                    wanted.iter().any(|one| one == hash.as_ref())
                };
                match has(shown.end_entity) || has(&key) {
                    true => Ok(Way::Fingerprint),
                    false => Err(Problem::NoFingerprint),
                }
            }
        }
    }
}

impl Name {
    fn is_of(&self, certificate: &EndEntityCert<'_>) -> bool {
        match self {
            Self::Is(name) => is_named(certificate, name),
            Self::Below(name) => certificate.valid_dns_names().any(|shown| {
                let shown = shown
                    .strip_prefix("*.")
                    .unwrap_or(shown)
                    .to_ascii_lowercase();
                let name = name.to_ascii_lowercase();
                let is_below = shown
                    .strip_suffix(&name)
                    .is_some_and(|rest| rest.ends_with('.'));
                // `*.example.org` is below example.org too.
                is_below || shown == name
            }),
        }
    }
}

fn is_named(certificate: &EndEntityCert<'_>, name: &str) -> bool {
    ServerName::try_from(name)
        .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

fn read<'a>(der: &'a CertificateDer<'a>) -> Result<EndEntityCert<'a>, Problem> {
    EndEntityCert::try_from(der).map_err(|e| Problem::Malformed(e.to_string()))
}

impl Shown<'_> {
    /// The way from the certificate to one of the anchors.
    fn chain(
        &self,
        certificate: &EndEntityCert<'_>,
        anchors: &[TrustAnchor<'_>],
    ) -> Result<(), Problem> {
        let now = UnixTime::since_unix_epoch(self.now);
        let usage = KeyUsage::server_auth();
        certificate
            .verify_for_usage(
                self.algorithms,
                anchors,
                self.intermediates,
                now,
                usage,
                None,
                None,
            )
            .map(|_| ())
            .map_err(|e| match e {
                webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
                    Problem::Expired
                }
                e => Problem::NotTrusted(e.to_string()),
            })
    }
}

/// RFC 7672 3: of usages 3 and 2 one usable record must fit. Where none is usable, TLS must be, and
/// that is all (RFC 7672 2.2).
fn dane(records: &[Tlsa], names: &[String], shown: Shown<'_>) -> Result<Way, Problem> {
    let usable: Vec<&Tlsa> = records.iter().filter(|r| r.is_usable()).collect();
    if usable.is_empty() {
        return Ok(Way::Unasked);
    }
    // RFC 7671 9: of one usage and selector, only the strongest hash counts.
    let is_weak = |record: &Tlsa| {
        let same = |r: &&&Tlsa| (r.usage, r.selector) == (record.usage, record.selector);
        let strongest = usable.iter().filter(same).map(|r| r.matching).max();
        record.matching == SHA2_256 && strongest == Some(SHA2_512)
    };
    let counts = |usage: u8| {
        let all = usable.iter().filter(move |r| r.usage == usage);
        all.copied().filter(|r| !is_weak(r))
    };
    let certificate = read(shown.end_entity)?;
    let key = certificate.subject_public_key_info();
    // RFC 7672 3.1.1: neither its names nor its dates count.
    if counts(DANE_EE).any(|record| record.fits(shown.end_entity, &key)) {
        return Ok(Way::DaneEe);
    }
    // RFC 7672 3.1.2: an issuer in the chain, or one that the record has in full.
    let mut issuers: Vec<CertificateDer<'_>> = Vec::new();
    for record in counts(DANE_TA) {
        if (record.selector, record.matching) == (FULL, EXACT) {
            issuers.push(CertificateDer::from(record.data.as_slice()));
        }
        let chosen = shown.intermediates.iter().filter(|issuer| {
            let key = read(issuer).map(|c| c.subject_public_key_info());
            key.is_ok_and(|key| record.fits(issuer, &key))
        });
        issuers.extend(chosen.cloned());
    }
    let anchors: Vec<TrustAnchor<'_>> = issuers
        .iter()
        .filter_map(|issuer| anchor_from_trusted_cert(issuer).ok())
        .collect();
    if anchors.is_empty() {
        return Err(Problem::NoTlsa);
    }
    shown.chain(&certificate, &anchors)?;
    match names.iter().any(|name| is_named(&certificate, name)) {
        true => Ok(Way::DaneTa),
        false => Err(Problem::WrongName),
    }
}

#[cfg(test)]
mod tests;
