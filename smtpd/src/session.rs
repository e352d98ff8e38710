//! One SMTP session: RFC 5321 as a pure state machine. No sockets, files or clock in it: it is
//! given what happened ([`Input`]) and says what is to be done ([`Action`]).
//!
//! An action that wants an answer makes the session wait: until the answer comes it takes no
//! input, so that pipelined commands stay in order. Any split of the client's bytes gives the same
//! actions.

mod chunking;
mod ending;
mod etrn;
#[cfg(any(test, fuzzing))]
#[allow(clippy::panic, clippy::unwrap_used, reason = "it is for tests only")]
mod fake;
mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod manners;
mod secure;
mod transaction;
#[cfg(test)]
mod transcripts;
mod words;

use std::sync::Arc;
use std::time::Duration;

use account::{Channel, Mechanism};
use base::Recipient;
use queue::Flush;

use crate::body::Body;
use crate::command::{self, Command};
use crate::reply::{self, Reply};
use crate::xforward::Xforward;

pub(crate) use words::{
    Action, Admission, AuthAnswer, Client, Input, Queued, Terms, Transaction, Verdict,
};

/// Errors after which the client is sent away.
const MAX_ERRORS: u32 = 20;
/// Refused recipients after which it is.
const MAX_REFUSED: u32 = 100;
/// Commands that bring no mail forward, since the last message.
const MAX_IDLE_COMMANDS: u32 = 100;
const MAX_AUTH_FAILURES: u32 = 3;
/// Recipients named again or beyond the limit, since the last message, after which it is too.
const MAX_SURPLUS: u32 = 1000;
/// How long an answer of ours may take; a client waits two minutes for that to DATA, and five for
/// others (RFC 5321 4.5.3.2).
const LOOK_UP: Duration = Duration::from_secs(100);
/// How short the wait for the greeting may become: long enough to see who has not waited.
const GLANCE: Duration = Duration::from_millis(20);

/// Who the client says it is.
#[derive(Debug, Clone)]
struct Hello {
    name: String,
    extended: bool,
}

/// What is expected next.
#[derive(Debug)]
enum State {
    /// Nothing: a stranger has to wait for the greeting.
    Greeting,
    /// A command; no transaction is open.
    Idle,
    /// A command; MAIL was accepted.
    Mail(Box<Transaction>),
    /// The message.
    Body(Box<Transaction>, Box<Body>),
    /// A piece of the message with so many octets to come, and whether it is the last.
    Chunk(Box<Transaction>, Box<Body>, u64, bool),
    /// A command, between two pieces of the message.
    BetweenChunks(Box<Transaction>, Box<Body>),
    /// So many octets of a piece that nobody wants, then the reply to it; whether that is the last word.
    Swallow(u64, Reply, bool),
    /// A line of an AUTH exchange by this mechanism.
    AuthLine(Mechanism),
    // From here on: an answer to one of our actions. No input is taken.
    AskingClient,
    AskingHello(Hello),
    AskingData(Box<Transaction>, Start),
    AskingFlush(Flush),
    /// What it was before, and how we refuse a line that is no command.
    AskingUnknown(Box<Self>, Reply),
    AskingSender(Box<Transaction>),
    AskingRecipient(Box<Transaction>, Recipient),
    Committing(Box<Transaction>, u64),
    Authenticating(Mechanism),
    Handshake,
    Closed,
}

/// How a message begins.
#[derive(Debug, Clone, Copy)]
enum Start {
    Data,
    Chunk { size: u64, last: bool },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    terms: Arc<Terms>,
    client: Client,
    state: State,
    hello: Option<Hello>,
    tls: bool,
    /// What there is to bind a login to.
    channel: Channel,
    login: Option<String>,
    /// What a content filter says of the next message's client.
    forwarded: Option<Box<Xforward>>,
    /// An over-long line is being thrown away.
    skipping: bool,
    draining: bool,
    /// It was refused instead of greeted: nothing but QUIT is obeyed.
    denied: bool,
    /// The last verb, for the log.
    last: &'static str,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    errors: u32,
    refused: u32,
    /// Of these, for good.
    unwanted: u32,
    idle: u32,
    surplus: u32,
    auth_failures: u32,
    messages: u32,
}

type Actions = Vec<Action>;

impl Session {
    pub(crate) fn new(terms: Arc<Terms>, client: Client, tls: bool) -> Self {
        Self {
            terms,
            client,
            state: State::Idle,
            hello: None,
            tls,
            channel: Channel::default(),
            login: None,
            forwarded: None,
            skipping: false,
            draining: false,
            denied: false,
            last: "CONNECT",
            counts: Counts::default(),
        }
    }

    /// It is a proxy's: it waits for no greeting, and may say again whose it is. So many messages came
    /// before.
    pub(crate) fn come_by_proxy(&mut self, messages: u32) {
        self.client.greet_delay = Duration::ZERO;
        self.client.xclient = true;
        self.counts.messages = messages;
    }

    /// As if the client had said and proven this.
    pub(crate) fn presume(&mut self, helo: Option<(String, bool)>, login: Option<String>) {
        self.hello = helo.map(|(name, extended)| Hello { name, extended });
        self.login = login;
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// Takes what happened; the number of bytes consumed of [`Input::Bytes`], else 0.
    pub(crate) fn step(&mut self, input: Input<'_>, actions: &mut Actions) -> usize {
        let mut consumed = 0;
        match input {
            Input::Bytes(bytes) => consumed = self.bytes(bytes, actions),
            Input::Open => self.open(actions),
            Input::TlsUp => self.tls_up(),
            Input::Client(answer) => self.admitted(answer, actions),
            Input::Hello(answer) => self.hello_answer(answer, actions),
            Input::Data(answer) => self.data_answer(answer, actions),
            Input::Unknown(answer) => self.unknown_answer(answer, actions),
            Input::Flush(answer) => self.flush_answer(answer, actions),
            Input::Sender(verdict) => self.sender(verdict, actions),
            Input::Recipient(verdict) => self.recipient(verdict, actions),
            Input::Auth(answer) => self.auth_answer(answer, actions),
            Input::Queued(result) => self.queued(result, actions),
            Input::Timeout => self.timeout(actions),
            Input::Eof => self.eof(actions),
            Input::Drain => self.draining = true,
        }
        self.leave(actions);
        consumed
    }

    /// Where the daemon ends, the session does as soon as no message is on its way.
    fn leave(&mut self, actions: &mut Actions) {
        let between = matches!(
            self.state,
            State::Greeting | State::Idle | State::Mail(_) | State::AuthLine(_)
        );
        if self.draining && between {
            self.part(reply::SHUTTING_DOWN, actions);
        }
    }

    /// Whether an answer is wanted; no input is taken then.
    pub(crate) fn is_waiting(&self) -> bool {
        match self.state {
            State::AskingClient
            | State::AskingHello(_)
            | State::AskingData(..)
            | State::AskingFlush(_)
            | State::AskingUnknown(..)
            | State::AskingSender(_)
            | State::AskingRecipient(..)
            | State::Committing(..)
            | State::Authenticating(_)
            | State::Handshake => true,
            State::Greeting
            | State::Idle
            | State::Mail(_)
            | State::Body(..)
            | State::Chunk(..)
            | State::BetweenChunks(..)
            | State::Swallow(..)
            | State::AuthLine(_)
            | State::Closed => false,
        }
    }

    /// Whether the client has to wait for the greeting.
    pub(crate) fn is_greeting(&self) -> bool {
        matches!(self.state, State::Greeting)
    }

    /// Whether the client is sending a message.
    pub(crate) fn is_in_body(&self) -> bool {
        matches!(
            self.state,
            State::Body(..) | State::Chunk(..) | State::Swallow(..)
        )
    }

    /// How long the client may be silent, or a look-up may take; `None` while the client waits for
    /// what has to come to its end. RFC 5321 4.5.3.2
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self.state {
            State::Greeting => Some(self.client.greet_delay),
            State::AskingClient
            | State::AskingHello(_)
            | State::AskingSender(_)
            | State::AskingRecipient(..)
            | State::AskingData(..)
            | State::AskingFlush(_)
            | State::AskingUnknown(..)
            | State::Authenticating(_) => Some(LOOK_UP),
            State::Committing(..) | State::Handshake => None,
            State::Idle
            | State::Mail(_)
            | State::Body(..)
            | State::Chunk(..)
            | State::BetweenChunks(..)
            | State::Swallow(..)
            | State::AuthLine(_)
            | State::Closed => Some(self.terms.patience),
        }
    }

    /// Messages accepted so far.
    pub(crate) fn messages(&self) -> u32 {
        self.counts.messages
    }

    fn enter(&mut self, state: State) {
        log::trace!(
            "{}: {:?}",
            self.client.shown,
            std::mem::discriminant(&state)
        );
        self.state = state;
    }

    /// Takes out what the state holds, where it is the one that `pick` wants; another stays.
    fn take<T>(&mut self, pick: impl FnOnce(State) -> Result<T, State>) -> Option<T> {
        match pick(std::mem::replace(&mut self.state, State::Idle)) {
            Ok(held) => Some(held),
            Err(other) => {
                self.state = other;
                None
            }
        }
    }

    // Commands.

    /// `ahead` came together with the line, behind it.
    fn command(&mut self, line: &[u8], ahead: &[u8], actions: &mut Actions) {
        if command::is_foreign(line) {
            self.hang_up(line, actions);
            return;
        }
        let command = match command::parse(line) {
            Ok(command) => command,
            // Where its octets end is not to be known: there is no way to go on.
            Err(bad)
                if line
                    .get(..4)
                    .is_some_and(|v| v.eq_ignore_ascii_case(b"BDAT")) =>
            {
                self.log_improper(&bad, line, actions);
                return self.part(bad, actions);
            }
            Err(bad) => {
                self.log_improper(&bad, line, actions);
                self.unknown(line, bad, actions);
                return;
            }
        };
        self.last = name(&command);
        if self.is_out_of_turn(&command, ahead) {
            return self.out_of_turn(ahead, actions);
        }
        let forward = match &command {
            Command::Rcpt(_) | Command::Data | Command::Quit | Command::Xforward(_) => true,
            Command::Bdat(chunk) => chunk.size > 0 || chunk.last,
            _ => false,
        };
        if !forward {
            self.counts.idle = self.counts.idle.saturating_add(1);
            if self.counts.idle > MAX_IDLE_COMMANDS {
                self.part(reply::TOO_MANY_COMMANDS, actions);
                return;
            }
        }
        let anew = matches!(command, Command::Xclient(_));
        if self.denied && !anew {
            return self.deny(&command, actions);
        }
        self.obey(command, actions);
    }

    /// RFC 5321 3.1: whom we do not serve says QUIT, and is told so.
    fn deny(&mut self, command: &Command, actions: &mut Actions) {
        match command {
            Command::Quit => self.part(reply::BYE, actions),
            Command::Bdat(chunk) if chunk.size > 0 => {
                self.swallow_piece(chunk.size, reply::DENIED);
            }
            _ => self.refuse(reply::DENIED, actions),
        }
    }

    fn obey(&mut self, command: Command, actions: &mut Actions) {
        match command {
            Command::Ehlo(name) => self.hello(name, true, actions),
            Command::Helo(name) => self.hello(name, false, actions),
            Command::Mail(mail) => self.mail(mail, actions),
            Command::Rcpt(rcpt) => self.rcpt(rcpt, actions),
            Command::Data => self.data(actions),
            Command::Bdat(chunk) => self.bdat(chunk, actions),
            Command::Rset => {
                self.forget(actions);
                actions.push(Action::Reply(reply::OK));
            }
            Command::Noop => actions.push(Action::Reply(reply::OK)),
            Command::Help => actions.push(Action::Reply(reply::HELP)),
            Command::Quit => self.part(reply::BYE, actions),
            // RFC 5321 3.5.3 and 7.3: whether somebody lives here is told in a transaction only.
            Command::Vrfy => actions.push(Action::Reply(reply::CANNOT_VERIFY)),
            Command::Expn => self.refuse(reply::NOT_OFFERED, actions),
            Command::StartTls => self.start_tls(actions),
            Command::Etrn(node) => self.etrn(node, actions),
            Command::Auth { mechanism, initial } => self.auth(&mechanism, initial, actions),
            Command::Xclient(said) => self.xclient(said, actions),
            Command::Xforward(said) => self.xforward(*said, actions),
        }
    }

    /// No transaction any more.
    fn forget(&mut self, actions: &mut Actions) {
        if matches!(self.state, State::BetweenChunks(..)) {
            actions.push(Action::Discard);
        }
        if matches!(self.state, State::Mail(_) | State::BetweenChunks(..)) {
            actions.push(Action::Forget);
        }
        self.forwarded = None;
        self.enter(State::Idle);
    }
}

/// How a transaction was begun.
#[derive(Debug, Clone, Copy)]
enum How {
    /// By HELO.
    Plain,
    /// By EHLO.
    Extended,
    /// With SMTPUTF8.
    Utf8,
}

/// RFC 3848 and RFC 6531 4.3: what stands behind `with` in Received.
fn protocol(how: How, tls: bool, login: bool) -> &'static str {
    match (how, tls, login) {
        (How::Plain, false, _) => "SMTP",
        (How::Plain, true, _) | (How::Extended, true, false) => "ESMTPS",
        (How::Extended, false, false) => "ESMTP",
        (How::Extended, true, true) => "ESMTPSA",
        (How::Extended, false, true) => "ESMTPA",
        (How::Utf8, false, false) => "UTF8SMTP",
        (How::Utf8, true, false) => "UTF8SMTPS",
        (How::Utf8, false, true) => "UTF8SMTPA",
        (How::Utf8, true, true) => "UTF8SMTPSA",
    }
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::Helo(_) => "HELO",
        Command::Ehlo(_) => "EHLO",
        Command::Mail(_) => "MAIL",
        Command::Rcpt(_) => "RCPT",
        Command::Data => "DATA",
        Command::Bdat(_) => "BDAT",
        Command::Rset => "RSET",
        Command::Noop => "NOOP",
        Command::Quit => "QUIT",
        Command::Vrfy => "VRFY",
        Command::Expn => "EXPN",
        Command::Help => "HELP",
        Command::Xclient(_) => "XCLIENT",
        Command::Xforward(_) => "XFORWARD",
        Command::StartTls => "STARTTLS",
        Command::Etrn(_) => "ETRN",
        Command::Auth { .. } => "AUTH",
    }
}
