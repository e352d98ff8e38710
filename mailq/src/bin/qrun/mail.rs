//! The envelope as the client sends it: RFC 5321 4.1.1.2 and 4.1.1.3 with RFC 3461's parameters, and
//! what it needs of the server.
//!
//! What senders wrote into parameters is passed on only where it is what RFC 3461 allows there, so
//! that nothing can break out of its command. Addresses cannot hold what is illegal anyway.

use base::envelope::{self, Body, Needs, Ret, is_envid, is_orcpt};
use base::{Address, Domain, Envelope, Recipient};

use crate::forward::Forward;

/// What a transaction needs besides the content.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    /// Our own name.
    pub(crate) helo: String,
    /// Without brackets; empty for the null one.
    pub(crate) reverse_path: String,
    /// Of the message as it goes by DATA.
    pub(crate) size: u64,
    pub(crate) eight_bit: bool,
    /// Its octets where it may go as it is, to a server that takes binary parts.
    pub(crate) binary: Option<u64>,
    /// What the server has to have, or it does not get the message.
    pub(crate) needs: Needs,
    pub(crate) recipients: Vec<To>,
    ret: Option<Ret>,
    envid: Option<String>,
    /// For a content filter.
    pub(crate) forward: Option<Forward>,
}

/// A recipient of the transaction.
#[derive(Debug, Clone)]
pub(crate) struct To {
    /// Without brackets.
    pub(crate) path: String,
    pub(crate) notify: Notify,
    /// xtext
    pub(crate) orcpt: Option<String>,
}

/// RFC 3461 4.1
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notify {
    Default,
    Given(&'static str),
}

impl Mail {
    pub(crate) fn new(helo: &Domain, envelope: &Envelope, size: u64) -> Self {
        Self {
            helo: helo.to_string(),
            reverse_path: envelope.reverse_path.to_string(),
            size,
            // A text in one that was binary may have eight bits still.
            eight_bit: envelope.body != Body::SevenBit,
            binary: None,
            needs: Needs {
                smtputf8: !envelope.reverse_path.is_ascii(),
                ..Needs::default()
            },
            recipients: Vec::new(),
            ret: envelope.ret,
            envid: envelope.envid.clone().filter(|e| is_envid(e)),
            forward: None,
        }
    }

    /// The same for a message that needs this too.
    pub(crate) fn needing(mut self, needs: Needs) -> Self {
        self.needs.smtputf8 |= needs.smtputf8;
        self.needs.require_tls |= needs.require_tls;
        self
    }

    /// The same for a message that may go as it is, too, in so many octets.
    pub(crate) fn or_binary(mut self, size: Option<u64>) -> Self {
        self.binary = size;
        self
    }

    /// The same for some recipients, given as who is asked for and where it goes now.
    pub(crate) fn to<'a>(
        &self,
        recipients: impl IntoIterator<Item = (&'a Recipient, &'a Address)>,
    ) -> Self {
        let mut needs = self.needs;
        let recipients = recipients
            .into_iter()
            .inspect(|(_, user)| needs.smtputf8 |= !user.is_ascii())
            .map(|(recipient, user)| To {
                path: user.to_string(),
                notify: notify(recipient.notify),
                orcpt: recipient.orcpt.clone().filter(|o| is_orcpt(o)),
            })
            .collect();
        Self {
            recipients,
            needs,
            ..self.clone()
        }
    }

    /// ` RET=... ENVID=...`, as far as the sender gave them.
    pub(crate) fn dsn_parameters(&self) -> String {
        let mut out = String::new();
        if let Some(ret) = self.ret {
            out.push_str(match ret {
                Ret::Full => " RET=FULL",
                Ret::Headers => " RET=HDRS",
            });
        }
        if let Some(envid) = &self.envid {
            out.push_str(" ENVID=");
            out.push_str(envid);
        }
        out
    }
}

fn notify(notify: envelope::Notify) -> Notify {
    if notify == envelope::Notify::default() {
        return Notify::Default;
    }
    Notify::Given(match notify {
        envelope::Notify::On {
            success: true,
            failure: true,
            delay: true,
        } => "SUCCESS,FAILURE,DELAY",
        envelope::Notify::On {
            success: true,
            failure: true,
            delay: false,
        } => "SUCCESS,FAILURE",
        envelope::Notify::On {
            success: true,
            failure: false,
            delay: true,
        } => "SUCCESS,DELAY",
        envelope::Notify::On {
            success: true,
            failure: false,
            delay: false,
        } => "SUCCESS",
        envelope::Notify::On {
            success: false,
            failure: true,
            delay: true,
        } => "FAILURE,DELAY",
        envelope::Notify::On {
            success: false,
            failure: true,
            delay: false,
        } => "FAILURE",
        envelope::Notify::On {
            success: false,
            failure: false,
            delay: true,
        } => "DELAY",
        envelope::Notify::On {
            success: false,
            failure: false,
            delay: false,
        }
        | envelope::Notify::Never => "NEVER",
    })
}
