//! What a connection to one host needs.

use std::sync::Arc;

use base::Status;
use net::tls::Proof;

use crate::sts;

/// Cryptographic failure: RFC 3463 3.8.
const CRYPTO: Status = Status::new(4, 7, 5);
/// REQUIRETLS support required: RFC 8689 5.
const NEEDS_TLS: Status = Status::new(5, 7, 30);

/// Whether a session is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    Never,
    /// Where it is offered; where it fails, in the clear.
    May,
    Must,
}

/// Who wants it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The operator's table.
    Table,
    Dane,
    Sts,
    /// The sender (RFC 8689).
    RequireTls,
    /// The operator, whose password goes there.
    Login,
    Nobody,
}

impl Why {
    /// For the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "TLS_POLICY",
            Self::Dane => "DANE",
            Self::Sts => "MTA-STS",
            Self::RequireTls => "REQUIRETLS",
            Self::Login => "RELAY_LOGINS",
            Self::Nobody => "opportunistic",
        }
    }
}

/// What a connection to one host needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    pub tls: Tls,
    pub proof: Proof,
    /// Whether a server that cannot give the proof gets no mail; else it is only reported.
    pub strict: bool,
    /// The name that the server is asked for (SNI).
    pub name: String,
    pub why: Why,
    /// What the recipients' domain has published, for its report (RFC 8460).
    pub published: Published,
}

impl Security {
    /// TLS where it is offered, by anybody.
    pub(crate) fn opportunistic(name: String, published: Published) -> Self {
        Self {
            tls: Tls::May,
            proof: Proof::Any,
            strict: false,
            name,
            why: Why::Nobody,
            published,
        }
    }

    /// Whether nothing is looked at, so that a session of any host will do.
    pub fn is_opportunistic(&self) -> bool {
        self.tls == Tls::May && self.proof == Proof::Any
    }
}

/// The policy of a domain, as its report has it: RFC 8460 4.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    Nothing,
    /// TLSA records, each with its name.
    Tlsa(Vec<String>),
    Sts(Arc<sts::Policy>),
    /// A policy that could not be read.
    UnknownSts(sts::FetchError),
}

/// Why a host gets no mail, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub status: Status,
    pub text: String,
    /// For its domain's report.
    pub failure: Failure,
    pub published: Published,
}

impl Refused {
    pub(crate) fn later(failure: Failure, text: String, published: Published) -> Self {
        Self {
            status: CRYPTO,
            text,
            failure,
            published,
        }
    }

    /// The message asks for what cannot be had here.
    pub(crate) fn unfit(text: String) -> Self {
        Self {
            status: NEEDS_TLS,
            text,
            failure: Failure::Validation,
            published: Published::Nothing,
        }
    }

    /// Whether another try may help.
    pub fn is_temporary(&self) -> bool {
        self.status.class() == 4
    }
}

/// What went wrong: the result types of RFC 8460 4.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    StarttlsNotSupported,
    HostMismatch,
    Expired,
    NotTrusted,
    Validation,
    TlsaInvalid,
    DnssecInvalid,
    DaneRequired,
    StsFetch,
    StsInvalid,
    StsWebPki,
}

impl Failure {
    const ALL: [Self; 11] = [
        Self::StarttlsNotSupported,
        Self::HostMismatch,
        Self::Expired,
        Self::NotTrusted,
        Self::Validation,
        Self::TlsaInvalid,
        Self::DnssecInvalid,
        Self::DaneRequired,
        Self::StsFetch,
        Self::StsInvalid,
        Self::StsWebPki,
    ];

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }

    /// As a report has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StarttlsNotSupported => "starttls-not-supported",
            Self::HostMismatch => "certificate-host-mismatch",
            Self::Expired => "certificate-expired",
            Self::NotTrusted => "certificate-not-trusted",
            Self::Validation => "validation-failure",
            Self::TlsaInvalid => "tlsa-invalid",
            Self::DnssecInvalid => "dnssec-invalid",
            Self::DaneRequired => "dane-required",
            Self::StsFetch => "sts-policy-fetch-error",
            Self::StsInvalid => "sts-policy-invalid",
            Self::StsWebPki => "sts-webpki-invalid",
        }
    }
}

impl From<&net::tls::Problem> for Failure {
    fn from(problem: &net::tls::Problem) -> Self {
        use net::tls::Problem;
        match problem {
            Problem::NotTrusted(_) => Self::NotTrusted,
            Problem::Expired => Self::Expired,
            Problem::WrongName => Self::HostMismatch,
            // RFC 8460 4.3.1 has no word for a certificate that fits no record but this one.
            Problem::NoTlsa | Problem::NoFingerprint | Problem::Malformed(_) => Self::Validation,
        }
    }
}

impl From<&sts::FetchError> for Failure {
    fn from(error: &sts::FetchError) -> Self {
        match error {
            sts::FetchError::Certificate(_) => Self::StsWebPki,
            sts::FetchError::Failed(_) => Self::StsFetch,
            sts::FetchError::Invalid(_) => Self::StsInvalid,
        }
    }
}
