//! Answers with what DNSSEC makes of them (RFC 4035 4.3), for who rests a decision on one.
//!
//! A secure answer has a chain of signatures from a trust anchor; an insecure one lies where it is
//! proven that nobody signs, or nobody here can tell signed from unsigned. A bogus one is none: it is
//! [`ProvenError::Bogus`], and RFC 7672 2.1.1 has the mail wait.

use std::fmt;

use base::Domain;

use crate::resolve::DnsError;

/// How far an answer can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Secure,
    Insecure,
}

/// An answer and its state; all records on the way to it count, aliases too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven<T> {
    pub state: State,
    pub value: T,
}

impl<T> Proven<T> {
    pub fn insecure(value: T) -> Self {
        Self {
            state: State::Insecure,
            value,
        }
    }

    pub fn is_secure(&self) -> bool {
        self.state == State::Secure
    }
}

/// Where a host's addresses are found: what RFC 7672 2.2.3 wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The name that has the addresses, where the host's own is an alias.
    pub alias: Option<Domain>,
    /// The state of the first record: of the alias if there is one, else of the addresses.
    pub first: State,
}

/// One TLSA record: RFC 6698 2.1. Its numbers as they came; who compares knows which it can use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tlsa {
    pub usage: u8,
    pub selector: u8,
    pub matching: u8,
    pub data: Vec<u8>,
}

impl fmt::Display for Tlsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.usage, self.selector, self.matching)?;
        self.data.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// No answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProvenError {
    /// There is no such name, or no record of this kind; where the zone is signed, that is proven.
    None,
    /// What came is not what the zone has signed: forged, or broken at its owner's.
    Bogus(String),
    /// Nobody knows now.
    Temporary(String),
}

impl From<DnsError> for ProvenError {
    fn from(e: DnsError) -> Self {
        match e {
            DnsError::NxDomain | DnsError::NoData => Self::None,
            DnsError::Temporary(why) => Self::Temporary(why),
        }
    }
}

impl fmt::Display for ProvenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no such record"),
            Self::Bogus(why) | Self::Temporary(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ProvenError {}
