//! What a session is told and what it says: the vocabulary between it and its driver.

use std::time::{Duration, SystemTime};

use account::Mechanism;
use base::envelope::{Body as BodyType, Needs, Ret};
use base::release::Hold;
use base::{Address, Domain, Recipient, ReversePath};
use queue::Flush;

use crate::reply::Reply;
use crate::xclient::Xclient;
use crate::xforward::Xforward;

/// What the operator allows: the same for all sessions of the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// The name we greet with.
    pub(crate) name: Domain,
    /// What our own users' addresses without a domain get.
    pub(crate) here: Domain,
    pub(crate) size_limit: u64,
    pub(crate) recipient_limit: usize,
    pub(crate) hop_limit: usize,
    /// The longest that a submission may be told to wait; zero where that is not offered.
    pub(crate) future_release: Duration,
    /// Domains whose mail may be asked for (ETRN).
    pub(crate) etrn_domains: Vec<Domain>,
    /// How long a client may be silent. RFC 5321 4.5.3.2
    pub(crate) patience: Duration,
    /// SASL mechanisms; none where logins are not offered.
    pub(crate) mechanisms: Vec<Mechanism>,
}

/// What is known of the client before it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// As in the log: `unknown[192.0.2.1]`.
    pub(crate) shown: String,
    /// It is in our networks: it may relay.
    pub(crate) trusted: bool,
    /// How long it has to wait for our greeting; zero for who is known.
    pub(crate) greet_delay: Duration,
    /// It may log in without TLS.
    pub(crate) plaintext_login: bool,
    /// It came by a submission port: only mail of our own users is taken.
    pub(crate) submission: bool,
    /// STARTTLS can be had.
    pub(crate) tls_offered: bool,
    /// It may say whose connection it brings.
    pub(crate) xclient: bool,
    /// It is a content filter that brings mail back: it says who brought it first.
    pub(crate) filter: bool,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    Open,
    Bytes(&'a [u8]),
    TlsUp,
    /// Answer to [`Action::AskClient`].
    Client(Admission),
    /// Answer to [`Action::AskHello`]: what time it is.
    Hello(Result<SystemTime, Reply>),
    /// Answer to [`Action::AskSender`]: why the message is not to begin.
    Sender(Result<(), Reply>),
    /// Answer to [`Action::AskRecipient`].
    Recipient(Verdict),
    /// Answer to [`Action::AskData`].
    Data(Result<(), Reply>),
    /// Answer to [`Action::AskUnknown`]: what is said instead of our own words.
    Unknown(Option<Reply>),
    /// Answer to [`Action::AskFlush`].
    Flush(Result<(), Reply>),
    /// Answer to [`Action::Authenticate`] and [`Action::Respond`].
    Auth(AuthAnswer),
    /// Answer to [`Action::Commit`].
    Queued(Result<Vec<Queued>, Reply>),
    /// The client was silent for [`super::Session::patience`].
    Timeout,
    /// The client sends no more.
    Eof,
    /// The daemon ends.
    Drain,
}

/// What is to be done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Reply(Reply),
    StartTls,
    /// The session begins anew, as the one of this client.
    Become(Box<Xclient>),
    /// May this client be served? It comes before the greeting.
    AskClient,
    /// May the client call itself so?
    AskHello {
        name: String,
        extended: bool,
    },
    /// Is there room for a message of so many octets (0: not said), and may it have this sender?
    AskSender {
        size: u64,
        reverse_path: ReversePath,
        login: Option<String>,
        body: BodyType,
        ret: Option<Ret>,
        envid: Option<String>,
        needs: Needs,
        hold: Option<Hold>,
    },
    AskRecipient {
        recipient: Recipient,
        may_relay: bool,
        helo: String,
        reverse_path: ReversePath,
    },
    /// May the message come?
    AskData,
    /// This line is no command: does somebody else refuse it?
    AskUnknown(String),
    /// Have this domain's mail tried now.
    AskFlush(Flush),
    /// The transaction is over, whatever came of it.
    Forget,
    Authenticate {
        mechanism: Mechanism,
        initial: Option<Vec<u8>>,
    },
    /// The client's next words in the exchange of [`Action::Authenticate`].
    Respond(Vec<u8>),
    AbandonAuth,
    /// A message begins.
    Begin(Box<Transaction>),
    /// Content of the message, dots unstuffed.
    Append(Vec<u8>),
    /// The message is whole: make it durable, then answer.
    Commit,
    /// The message is not to be: forget it.
    Discard,
    Log(String),
    /// That the client has gone; of who only looked whether we are well it is not worth a line.
    LogEnd(String),
    /// The client has waited for our greeting: the next time it need not.
    Acquaint,
    /// The client behaved so badly that the session ends.
    Offence(&'static str),
    Close,
}

/// What came of looking at a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admission {
    /// As in the log, now that its name is known.
    pub(crate) shown: String,
    /// Why we do not serve it.
    pub(crate) answer: Result<(), Reply>,
    /// How long it took to find out; the client need not wait that long again.
    pub(crate) took: Duration,
    /// It need not wait for our greeting at all.
    pub(crate) welcome: bool,
}

/// What becomes of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Local(Address),
    Relay(Address),
    /// Accepted and thrown away, because the rules say so.
    Discard(Address),
    Refuse(Reply),
}

/// What `checkpw` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuthAnswer {
    Challenge(Vec<u8>),
    Granted(String),
    Refused,
    Malformed,
    Unavailable,
    /// Nobody of this network may try now.
    NotNow(Reply),
}

/// One queue entry that a message became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) id: String,
    pub(crate) recipients: usize,
}

/// One mail transaction: RFC 5321 3.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) reverse_path: ReversePath,
    pub(crate) body: BodyType,
    pub(crate) ret: Option<Ret>,
    pub(crate) envid: Option<String>,
    pub(crate) needs: Needs,
    pub(crate) hold: Option<Hold>,
    pub(crate) local: Vec<Recipient>,
    pub(crate) relay: Vec<Recipient>,
    pub(super) discarded: Vec<Address>,
    pub(crate) helo: String,
    /// RFC 3848, RFC 6531 4.3.
    pub(crate) protocol: &'static str,
    pub(crate) login: Option<String>,
    /// It comes from its author, one of our users: what it lacks is added.
    pub(crate) submitted: bool,
    /// What a content filter says of who brought it here first.
    pub(crate) forwarded: Option<Box<Xforward>>,
}

impl Transaction {
    pub(super) fn len(&self) -> usize {
        self.local
            .len()
            .saturating_add(self.relay.len())
            .saturating_add(self.discarded.len())
    }

    pub(crate) fn contains(&self, address: &Address) -> bool {
        self.local
            .iter()
            .chain(&self.relay)
            .any(|r| r.address == *address)
            || self.discarded.contains(address)
    }
}
