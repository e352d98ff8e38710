//! The envelope of a message: RFC 5321 2.3.1, with what RFC 3461 (DSN) and RFC 6152 (8BITMIME)
//! add to it. Pure data; the queue stores it, the sessions fill it.

use crate::address::{Address, ReversePath};

/// Who sent it, to whom, and what the sender asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub reverse_path: ReversePath,
    pub recipients: Vec<Recipient>,
    pub body: Body,
    /// RFC 3461 4.3: how much of the message a failure report returns.
    pub ret: Option<Ret>,
    /// RFC 3461 4.4: the sender's own id of this envelope, in xtext as it came.
    pub envid: Option<String>,
}

impl Envelope {
    /// An envelope with no wishes.
    pub fn new(reverse_path: ReversePath, recipients: Vec<Recipient>) -> Self {
        Self {
            reverse_path,
            recipients,
            body: Body::default(),
            ret: None,
            envid: None,
        }
    }
}

/// One forward-path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pub address: Address,
    /// RFC 3461 4.2: `rfc822;ann@example.org`, in xtext as it came.
    pub orcpt: Option<String>,
    pub notify: Notify,
}

impl Recipient {
    /// A recipient with no wishes.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            orcpt: None,
            notify: Notify::default(),
        }
    }
}

/// RFC 3461 4.1: when the sender wants to hear of this recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notify {
    Never,
    On {
        success: bool,
        failure: bool,
        delay: bool,
    },
}

impl Default for Notify {
    /// No NOTIFY parameter: failures, and delays if we like.
    fn default() -> Self {
        Self::On {
            success: false,
            failure: true,
            delay: true,
        }
    }
}

impl Notify {
    /// Whether a failure is to be reported.
    pub fn wants_failure(self) -> bool {
        matches!(self, Self::On { failure: true, .. })
    }

    /// Whether a success is to be reported.
    pub fn wants_success(self) -> bool {
        matches!(self, Self::On { success: true, .. })
    }
}

/// RFC 3461 4.3
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    Full,
    Headers,
}

/// What the sender declared of the content: RFC 6152.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Body {
    #[default]
    SevenBit,
    EightBitMime,
}
