//! One SMTP session: RFC 5321 as a pure state machine. No sockets, files or clock in it: it is
//! given what happened ([`Input`]) and says what is to be done ([`Action`]).
//!
//! An action that wants an answer makes the session wait: until the answer comes it takes no
//! input, so that pipelined commands stay in order. Any split of the client's bytes gives the same
//! actions.

use std::sync::Arc;
use std::time::Duration;

use base::envelope::Body as BodyType;
use base::escape::escape;
use base::{Address, Domain, Recipient, ReversePath};
use net::line::{self, Line, Skip};

use crate::auth;
use crate::body::{Body, Fault, Limits};
use crate::command::{self, Command, Mail, Path};
use crate::reply::{self, Reply};

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
    /// SASL mechanisms; none where logins are not offered.
    pub(crate) mechanisms: Vec<&'static str>,
}

/// What is known of the client before it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// As in the log: `unknown[192.0.2.1]`.
    pub(crate) shown: String,
    /// It is in our networks: it may relay.
    pub(crate) trusted: bool,
    /// It may log in without TLS.
    pub(crate) plaintext_login: bool,
    /// It came by a submission port: only mail of our own users is taken.
    pub(crate) submission: bool,
    /// STARTTLS can be had.
    pub(crate) tls_offered: bool,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    Open,
    Bytes(&'a [u8]),
    TlsUp,
    /// Answer to [`Action::AskRoom`].
    Room(bool),
    /// Answer to [`Action::AskRecipient`].
    Recipient(Verdict),
    /// Answer to [`Action::Authenticate`] and [`Action::Respond`].
    Auth(AuthAnswer),
    /// Answer to [`Action::Commit`].
    Queued(Result<Vec<Queued>, Reply>),
    /// The client was silent for [`Session::patience`].
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
    /// Is there room for a message of so many octets (0: not said)?
    AskRoom(u64),
    AskRecipient {
        address: Address,
        may_relay: bool,
    },
    Authenticate {
        mechanism: String,
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
    Close,
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
    pub(crate) local: Vec<Recipient>,
    pub(crate) relay: Vec<Recipient>,
    discarded: Vec<Address>,
    pub(crate) helo: String,
    /// RFC 3848.
    pub(crate) protocol: &'static str,
    pub(crate) login: Option<String>,
}

impl Transaction {
    fn len(&self) -> usize {
        self.local
            .len()
            .saturating_add(self.relay.len())
            .saturating_add(self.discarded.len())
    }

    fn contains(&self, address: &Address) -> bool {
        self.local
            .iter()
            .chain(&self.relay)
            .any(|r| r.address == *address)
            || self.discarded.contains(address)
    }
}

/// Octets of a command line, CRLF included. RFC 5321 4.5.3.1.4 says 512, and more for parameters.
const MAX_COMMAND: usize = 2048;
/// Errors after which the client is sent away.
const MAX_ERRORS: u32 = 20;
/// Refused recipients after which it is.
const MAX_REFUSED: u32 = 100;
/// Commands that bring no mail forward, since the last message.
const MAX_IDLE_COMMANDS: u32 = 100;
const MAX_AUTH_FAILURES: u32 = 3;
/// RFC 5321 4.5.3.2.7: at least five minutes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Who the client says it is.
#[derive(Debug, Clone)]
struct Hello {
    name: String,
    extended: bool,
}

/// What is expected next.
#[derive(Debug)]
enum State {
    /// A command; no transaction is open.
    Idle,
    /// A command; MAIL was accepted.
    Mail(Box<Transaction>),
    /// The message.
    Body(Box<Transaction>, Box<Body>),
    /// A line of an AUTH exchange.
    AuthLine,
    // From here on: an answer to one of our actions. No input is taken.
    AskingRoom(Box<Transaction>),
    AskingRecipient(Box<Transaction>, Address),
    Committing(Box<Transaction>, u64),
    Authenticating,
    Handshake,
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    terms: Arc<Terms>,
    client: Client,
    state: State,
    hello: Option<Hello>,
    tls: bool,
    login: Option<String>,
    /// An over-long line is being thrown away.
    skipping: bool,
    draining: bool,
    /// The last verb, for the log.
    last: &'static str,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    errors: u32,
    refused: u32,
    idle: u32,
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
            login: None,
            skipping: false,
            draining: false,
            last: "CONNECT",
            counts: Counts::default(),
        }
    }

    /// Takes what happened; the number of bytes consumed of [`Input::Bytes`], else 0.
    pub(crate) fn step(&mut self, input: Input<'_>, actions: &mut Actions) -> usize {
        let mut consumed = 0;
        match input {
            Input::Bytes(bytes) => consumed = self.bytes(bytes, actions),
            Input::Open => self.open(actions),
            Input::TlsUp => self.tls_up(),
            Input::Room(room) => self.room(room, actions),
            Input::Recipient(verdict) => self.recipient(verdict, actions),
            Input::Auth(answer) => self.auth_answer(answer, actions),
            Input::Queued(result) => self.queued(result, actions),
            Input::Timeout => self.timeout(actions),
            Input::Eof => self.eof(actions),
            Input::Drain => self.draining = true,
        }
        if self.draining && matches!(self.state, State::Idle | State::Mail(_) | State::AuthLine) {
            self.part(reply::SHUTTING_DOWN, actions);
        }
        consumed
    }

    /// Whether an answer is wanted; no input is taken then.
    pub(crate) fn is_waiting(&self) -> bool {
        match self.state {
            State::AskingRoom(_)
            | State::AskingRecipient(..)
            | State::Committing(..)
            | State::Authenticating
            | State::Handshake => true,
            State::Idle | State::Mail(_) | State::Body(..) | State::AuthLine | State::Closed => {
                false
            }
        }
    }

    /// Whether the client is sending a message.
    pub(crate) fn is_in_body(&self) -> bool {
        matches!(self.state, State::Body(..))
    }

    /// How long the client may be silent; `None` while it waits for us. RFC 5321 4.5.3.2
    pub(crate) fn patience(&self) -> Option<Duration> {
        (!self.is_waiting()).then_some(PATIENCE)
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

    fn open(&mut self, actions: &mut Actions) {
        let text = format!("{} ESMTP yubin", self.terms.name);
        actions.push(Action::Reply(Reply::made(220, None, text)));
    }

    // Framing.

    fn bytes(&mut self, input: &[u8], actions: &mut Actions) -> usize {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            let consumed = match self.state {
                State::Body(..) => self.content(rest, actions),
                _ if self.is_waiting() => break,
                State::Closed => return input.len(),
                _ if self.skipping => self.skip(rest, actions),
                _ => self.line(rest, actions),
            };
            if consumed == 0 {
                break;
            }
            at = at.saturating_add(consumed);
        }
        at
    }

    fn line(&mut self, rest: &[u8], actions: &mut Actions) -> usize {
        // A TLS hello or other binary talk has no lines to wait for.
        if self.hello.is_none() && rest.first().is_some_and(|b| *b < b'\t' || *b == 0x16) {
            self.hang_up(rest, actions);
            return rest.len();
        }
        let max = match self.state {
            State::AuthLine => auth::MAX_LINE,
            _ => MAX_COMMAND,
        };
        match line::next(rest, max) {
            Line::Partial => 0,
            Line::Complete(line, consumed) => {
                match self.state {
                    State::AuthLine => self.auth_line(line, actions),
                    _ => self.command(line, actions),
                }
                consumed
            }
            Line::TooLong(consumed) => {
                self.skipping = true;
                consumed
            }
            Line::BareCr(_) | Line::BareLf(_) => {
                // Where its lines end is not to be known: there is no way to go on.
                self.part(reply::BARE_LINE_END, actions);
                rest.len()
            }
        }
    }

    fn skip(&mut self, rest: &[u8], actions: &mut Actions) -> usize {
        match line::skip(rest) {
            Skip::More(consumed) => consumed,
            Skip::Ended(consumed) => {
                self.skipping = false;
                if matches!(self.state, State::AuthLine) {
                    actions.push(Action::AbandonAuth);
                    self.enter(State::Idle);
                }
                self.refuse(reply::LINE_TOO_LONG, actions);
                consumed
            }
        }
    }

    fn content(&mut self, rest: &[u8], actions: &mut Actions) -> usize {
        let State::Body(_, body) = &mut self.state else {
            return 0;
        };
        let mut out = Vec::new();
        let was_good = body.fault().is_none();
        let consumed = body.take(rest, &mut out);
        let (fault, ended, size) = (body.fault(), body.is_ended(), body.size());
        match fault {
            Some(_) if was_good => actions.push(Action::Discard),
            None if !out.is_empty() => actions.push(Action::Append(out)),
            _ => {}
        }
        if ended {
            self.end_of_content(fault, size, actions);
        }
        consumed
    }

    fn end_of_content(&mut self, fault: Option<Fault>, size: u64, actions: &mut Actions) {
        let State::Body(transaction, _) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        let Some(fault) = fault else {
            actions.push(Action::Commit);
            self.enter(State::Committing(transaction, size));
            return;
        };
        let refusal = match fault {
            Fault::BareLineEnd => reply::BARE_IN_BODY,
            Fault::LineTooLong => reply::BODY_LINE_TOO_LONG,
            Fault::TooBig => reply::TOO_BIG,
            Fault::Loop => reply::LOOP,
        };
        let from = transaction.reverse_path.to_string();
        self.log_reject("END-OF-MESSAGE", &refusal, &from, None, actions);
        self.refuse(refusal, actions);
    }

    // Commands.

    fn command(&mut self, line: &[u8], actions: &mut Actions) {
        if command::is_foreign(line) {
            self.hang_up(line, actions);
            return;
        }
        let command = match command::parse(line) {
            Ok(command) => command,
            Err(bad) => {
                if matches!(bad.code(), 501 | 555) {
                    log::debug!("{}: {bad} to: {}", self.client.shown, escape(line));
                }
                self.refuse(bad, actions);
                return;
            }
        };
        self.last = name(&command);
        if !matches!(command, Command::Rcpt(_) | Command::Data | Command::Quit) {
            self.counts.idle = self.counts.idle.saturating_add(1);
            if self.counts.idle > MAX_IDLE_COMMANDS {
                self.part(reply::TOO_MANY_COMMANDS, actions);
                return;
            }
        }
        self.obey(command, actions);
    }

    fn obey(&mut self, command: Command, actions: &mut Actions) {
        match command {
            Command::Ehlo(name) => self.hello(name, true, actions),
            Command::Helo(name) => self.hello(name, false, actions),
            Command::Mail(mail) => self.mail(mail, actions),
            Command::Rcpt(path) => self.rcpt(path, actions),
            Command::Data => self.data(actions),
            Command::Rset => {
                self.enter(State::Idle);
                actions.push(Action::Reply(reply::OK));
            }
            Command::Noop => actions.push(Action::Reply(reply::OK)),
            Command::Help => actions.push(Action::Reply(reply::HELP)),
            Command::Quit => self.part(reply::BYE, actions),
            // RFC 5321 3.5.3 and 7.3: whether somebody lives here is told in a transaction only.
            Command::Vrfy => actions.push(Action::Reply(reply::CANNOT_VERIFY)),
            Command::Expn => self.refuse(reply::NOT_OFFERED, actions),
            Command::StartTls => self.start_tls(actions),
            Command::Auth { mechanism, initial } => self.auth(mechanism, initial, actions),
        }
    }

    /// RFC 5321 4.1.1.1 and 4.1.4: it also clears a transaction.
    fn hello(&mut self, name: String, extended: bool, actions: &mut Actions) {
        self.enter(State::Idle);
        let mut text = self.terms.name.to_string();
        if extended {
            text.push_str(&format!(
                "\nPIPELINING\nSIZE {}\n8BITMIME",
                self.terms.size_limit
            ));
            if self.client.tls_offered && !self.tls {
                text.push_str("\nSTARTTLS");
            }
            if self.may_log_in() {
                text.push_str(&format!("\nAUTH {}", self.terms.mechanisms.join(" ")));
            }
            text.push_str("\nENHANCEDSTATUSCODES\nHELP");
        }
        self.hello = Some(Hello { name, extended });
        actions.push(Action::Reply(Reply::made(250, None, text)));
    }

    fn may_log_in(&self) -> bool {
        !self.terms.mechanisms.is_empty() && (self.tls || self.client.plaintext_login)
    }

    fn may_relay(&self) -> bool {
        self.client.trusted || self.login.is_some()
    }

    /// RFC 5321 4.1.1.2
    fn mail(&mut self, mail: Mail, actions: &mut Actions) {
        let Some(hello) = &self.hello else {
            return self.refuse(reply::HELLO_FIRST, actions);
        };
        if !matches!(self.state, State::Idle) {
            return self.refuse(reply::NESTED_MAIL, actions);
        }
        if self.client.submission && !self.may_relay() {
            return self.refuse(reply::AUTH_FIRST, actions);
        }
        let reverse_path = match mail.from {
            None => ReversePath::Null,
            Some(Path::Full(address)) => ReversePath::Address(address),
            Some(Path::Local(local)) if self.may_relay() => {
                ReversePath::Address(Address::new(local, self.terms.here.clone()))
            }
            Some(Path::Local(_)) => return self.refuse(reply::BAD_SENDER, actions),
        };
        let size = mail.size.unwrap_or(0);
        if size > self.terms.size_limit {
            let from = reverse_path.to_string();
            self.log_reject("MAIL", &reply::TOO_BIG, &from, None, actions);
            return self.refuse(reply::TOO_BIG, actions);
        }
        let transaction = Box::new(Transaction {
            reverse_path,
            body: mail.body,
            local: Vec::new(),
            relay: Vec::new(),
            discarded: Vec::new(),
            helo: hello.name.clone(),
            protocol: protocol(hello.extended, self.tls, self.login.is_some()),
            login: self.login.clone(),
        });
        actions.push(Action::AskRoom(size));
        self.enter(State::AskingRoom(transaction));
    }

    fn room(&mut self, room: bool, actions: &mut Actions) {
        let State::AskingRoom(transaction) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        if room {
            self.enter(State::Mail(transaction));
            actions.push(Action::Reply(reply::SENDER_OK));
        } else {
            let from = transaction.reverse_path.to_string();
            self.log_reject("MAIL", &reply::NO_ROOM, &from, None, actions);
            actions.push(Action::Reply(reply::NO_ROOM));
        }
    }

    /// RFC 5321 4.1.1.3
    fn rcpt(&mut self, path: Path, actions: &mut Actions) {
        let may_relay = self.may_relay();
        let State::Mail(transaction) = &self.state else {
            return self.refuse(reply::MAIL_FIRST, actions);
        };
        if transaction.len() >= self.terms.recipient_limit {
            return actions.push(Action::Reply(reply::TOO_MANY_RECIPIENTS));
        }
        let address = match path {
            Path::Full(address) => address,
            // RFC 5321 4.5.1: postmaster needs no domain, from anybody.
            Path::Local(local) if may_relay || local.fold() == "postmaster" => {
                Address::new(local, self.terms.name.clone())
            }
            Path::Local(_) => return self.refuse(reply::BAD_RECIPIENT, actions),
        };
        let State::Mail(transaction) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        actions.push(Action::AskRecipient {
            address: address.clone(),
            may_relay,
        });
        self.enter(State::AskingRecipient(transaction, address));
    }

    fn recipient(&mut self, verdict: Verdict, actions: &mut Actions) {
        let State::AskingRecipient(mut transaction, asked) =
            std::mem::replace(&mut self.state, State::Idle)
        else {
            return;
        };
        let refusal = match verdict {
            Verdict::Refuse(refusal) => Some(refusal),
            // A recipient named twice gets one copy.
            Verdict::Local(a) | Verdict::Relay(a) | Verdict::Discard(a)
                if transaction.contains(&a) =>
            {
                None
            }
            Verdict::Local(address) => {
                transaction.local.push(Recipient::new(address));
                None
            }
            Verdict::Relay(address) => {
                transaction.relay.push(Recipient::new(address));
                None
            }
            Verdict::Discard(address) => {
                transaction.discarded.push(address);
                None
            }
        };
        let from = transaction.reverse_path.to_string();
        self.enter(State::Mail(transaction));
        let Some(refusal) = refusal else {
            return actions.push(Action::Reply(reply::RECIPIENT_OK));
        };
        self.log_reject("RCPT", &refusal, &from, Some(&asked), actions);
        self.counts.refused = self.counts.refused.saturating_add(1);
        actions.push(Action::Reply(refusal));
        if self.counts.refused >= MAX_REFUSED {
            self.part(reply::TOO_MANY_ERRORS, actions);
        }
    }

    /// RFC 5321 4.1.1.4
    fn data(&mut self, actions: &mut Actions) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Mail(transaction) if transaction.len() > 0 => {
                let limits = Limits {
                    size: self.terms.size_limit,
                    hops: self.terms.hop_limit,
                };
                actions.push(Action::Begin(transaction.clone()));
                actions.push(Action::Reply(reply::START_MAIL));
                self.enter(State::Body(transaction, Box::new(Body::new(limits))));
            }
            State::Mail(transaction) => {
                self.enter(State::Mail(transaction));
                self.refuse(reply::NO_RECIPIENTS, actions);
            }
            _ => self.refuse(reply::MAIL_FIRST, actions),
        }
    }

    fn queued(&mut self, result: Result<Vec<Queued>, Reply>, actions: &mut Actions) {
        let State::Committing(transaction, size) = std::mem::replace(&mut self.state, State::Idle)
        else {
            return;
        };
        let from = transaction.reverse_path.to_string();
        let entries = match result {
            Ok(entries) => entries,
            Err(refusal) => {
                self.log_reject("END-OF-MESSAGE", &refusal, &from, None, actions);
                return actions.push(Action::Reply(refusal));
            }
        };
        let login = match &transaction.login {
            Some(login) => format!(", sasl_username={}", escape(login)),
            None => String::new(),
        };
        for entry in &entries {
            let Queued { id, recipients } = entry;
            actions.push(Action::Log(format!(
                "{id}: client={}{login}",
                self.client.shown
            )));
            actions.push(Action::Log(format!(
                "{id}: from=<{}>, size={size}, nrcpt={recipients} (queue active)",
                escape(&from)
            )));
        }
        self.counts.idle = 0;
        self.counts.messages = self.counts.messages.saturating_add(1);
        let text = match entries.first() {
            Some(entry) => format!("Ok: queued as {}", entry.id),
            None => "Ok: discarded".into(),
        };
        actions.push(Action::Reply(Reply::made(
            250,
            Some(base::Status::OK),
            text,
        )));
    }

    // TLS and AUTH.

    /// RFC 3207 4
    fn start_tls(&mut self, actions: &mut Actions) {
        if self.tls {
            return self.refuse(reply::TLS_ALREADY, actions);
        }
        if !self.client.tls_offered {
            return self.refuse(reply::NO_TLS, actions);
        }
        actions.push(Action::Reply(reply::START_TLS));
        actions.push(Action::StartTls);
        self.enter(State::Handshake);
    }

    /// RFC 3207 4.2: all that was said before is forgotten.
    fn tls_up(&mut self) {
        self.tls = true;
        self.hello = None;
        self.login = None;
        self.enter(State::Idle);
    }

    /// RFC 4954 4
    fn auth(&mut self, mechanism: String, initial: Option<Vec<u8>>, actions: &mut Actions) {
        let refusal = if self.hello.is_none() {
            reply::HELLO_FIRST
        } else if self.login.is_some() {
            reply::AUTH_ALREADY
        } else if !matches!(self.state, State::Idle) {
            reply::AUTH_IN_MAIL
        } else if self.terms.mechanisms.is_empty() {
            reply::NOT_OFFERED
        } else if !self.may_log_in() {
            reply::AUTH_NEEDS_TLS
        } else if !self.terms.mechanisms.contains(&mechanism.as_str()) {
            reply::BAD_MECHANISM
        } else {
            actions.push(Action::Authenticate { mechanism, initial });
            return self.enter(State::Authenticating);
        };
        self.refuse(refusal, actions);
    }

    fn auth_line(&mut self, line: &[u8], actions: &mut Actions) {
        let refusal = match auth::decode(line) {
            _ if line == b"*" => reply::AUTH_CANCELLED,
            None => reply::BAD_BASE64,
            Some(response) => {
                actions.push(Action::Respond(response));
                return self.enter(State::Authenticating);
            }
        };
        actions.push(Action::AbandonAuth);
        self.enter(State::Idle);
        self.refuse(refusal, actions);
    }

    fn auth_answer(&mut self, answer: AuthAnswer, actions: &mut Actions) {
        if !matches!(self.state, State::Authenticating) {
            return;
        }
        self.enter(State::Idle);
        match answer {
            AuthAnswer::Challenge(challenge) => {
                let text = auth::encode(&challenge);
                actions.push(Action::Reply(Reply::made(334, None, text)));
                self.enter(State::AuthLine);
            }
            AuthAnswer::Granted(login) => {
                self.login = Some(login);
                actions.push(Action::Reply(reply::AUTHENTICATED));
            }
            AuthAnswer::Unavailable => actions.push(Action::Reply(reply::AUTH_TROUBLE)),
            AuthAnswer::Malformed => self.refuse(reply::AUTH_MALFORMED, actions),
            AuthAnswer::Refused => {
                let shown = &self.client.shown;
                actions.push(Action::Log(format!("{shown}: SASL authentication failed")));
                self.counts.auth_failures = self.counts.auth_failures.saturating_add(1);
                actions.push(Action::Reply(reply::AUTH_REFUSED));
                if self.counts.auth_failures >= MAX_AUTH_FAILURES {
                    self.part(reply::TOO_MANY_ERRORS, actions);
                }
            }
        }
    }

    // Endings.

    fn timeout(&mut self, actions: &mut Actions) {
        if self.is_waiting() || matches!(self.state, State::Closed) {
            return;
        }
        let text = format!("timeout after {} from {}", self.last, self.client.shown);
        actions.push(Action::Log(text));
        self.part(reply::TIMEOUT, actions);
    }

    fn eof(&mut self, actions: &mut Actions) {
        if matches!(self.state, State::Closed) {
            return;
        }
        let text = format!(
            "lost connection after {} from {}",
            self.last, self.client.shown
        );
        actions.push(Action::Log(text));
        self.end(actions);
    }

    /// Says a last word and closes.
    fn part(&mut self, last_word: Reply, actions: &mut Actions) {
        actions.push(Action::Reply(last_word));
        self.end(actions);
    }

    fn end(&mut self, actions: &mut Actions) {
        match self.state {
            State::Body(..) => actions.push(Action::Discard),
            State::AuthLine => actions.push(Action::AbandonAuth),
            _ => {}
        }
        actions.push(Action::Close);
        self.enter(State::Closed);
    }

    /// For who does not speak SMTP.
    fn hang_up(&mut self, said: &[u8], actions: &mut Actions) {
        let head = said.get(..80).unwrap_or(said);
        actions.push(Action::Log(format!(
            "improper command from {}: {}",
            self.client.shown,
            escape(head)
        )));
        self.part(reply::NOT_SMTP, actions);
    }

    fn refuse(&mut self, refusal: Reply, actions: &mut Actions) {
        actions.push(Action::Reply(refusal));
        self.counts.errors = self.counts.errors.saturating_add(1);
        if self.counts.errors >= MAX_ERRORS {
            let text = format!(
                "too many errors after {} from {}",
                self.last, self.client.shown
            );
            actions.push(Action::Log(text));
            self.part(reply::TOO_MANY_ERRORS, actions);
        }
    }

    fn log_reject(
        &self,
        stage: &str,
        refusal: &Reply,
        from: &str,
        to: Option<&Address>,
        actions: &mut Actions,
    ) {
        let to = to
            .map(|to| format!(" to=<{}>", escape(&to.to_string())))
            .unwrap_or_default();
        let (helo, extended) = match &self.hello {
            Some(hello) => (hello.name.as_str(), hello.extended),
            None => ("", false),
        };
        actions.push(Action::Log(format!(
            "NOQUEUE: reject: {stage} from {}: {refusal}; from=<{}>{to} proto={} helo=<{}>",
            self.client.shown,
            escape(from),
            protocol(extended, self.tls, self.login.is_some()),
            escape(helo),
        )));
    }
}

/// RFC 3848: what stands behind `with` in Received.
fn protocol(extended: bool, tls: bool, login: bool) -> &'static str {
    match (extended, tls, login) {
        (false, false, _) => "SMTP",
        (false, true, _) | (true, true, false) => "ESMTPS",
        (true, false, false) => "ESMTP",
        (true, true, true) => "ESMTPSA",
        (true, false, true) => "ESMTPA",
    }
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::Helo(_) => "HELO",
        Command::Ehlo(_) => "EHLO",
        Command::Mail(_) => "MAIL",
        Command::Rcpt(_) => "RCPT",
        Command::Data => "DATA",
        Command::Rset => "RSET",
        Command::Noop => "NOOP",
        Command::Quit => "QUIT",
        Command::Vrfy => "VRFY",
        Command::Expn => "EXPN",
        Command::Help => "HELP",
        Command::StartTls => "STARTTLS",
        Command::Auth { .. } => "AUTH",
    }
}

#[cfg(test)]
#[path = "transcripts.rs"]
mod transcripts;
