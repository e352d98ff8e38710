//! One POP3 session: RFC 1939 as a pure state machine, with response codes (RFC 2449 8, RFC 3206).
//! No sockets, files or clock in it. How one logs in is in `login`.
//!
//! An action that wants an answer makes the session wait: until the answer comes it takes no
//! input, so that pipelined commands stay in order. Any split of the client's bytes gives the same
//! actions.

mod login;
#[cfg(test)]
mod transcripts;

use std::fmt::Write as _;
use std::mem;
use std::time::Duration;

use account::{Channel, Mechanism};
use net::line::{self, Line};

use crate::command::{self, Bad, Command};
use crate::maildrop::{Listed, Maildrop};

/// What is known before the client speaks.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// `<4711.1795309200.d3adb33f@mail.example.org>`: RFC 1939 7. Never the same twice.
    pub(crate) timestamp: String,
    /// STLS can be had.
    pub(crate) tls_offered: bool,
    /// A password may travel without TLS.
    pub(crate) plaintext_login: bool,
    /// SASL mechanisms of `checkpw`.
    pub(crate) mechanisms: Vec<Mechanism>,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    Open,
    Bytes(&'a [u8]),
    TlsUp,
    /// Answer to [`Action::Ask`].
    Login(Login),
    /// Answer to [`Action::OpenMaildrop`].
    Opened(Result<Maildrop, Trouble>),
    /// Answer to [`Action::Send`]: it is on its way, or it cannot be had.
    Sent(Result<(), Trouble>),
    /// Answer to [`Action::Remove`].
    Removed(Result<(), Trouble>),
    Timeout,
    Eof,
    Drain,
}

/// What `checkpw` says.
#[derive(Debug)]
pub(crate) enum Login {
    Challenge(Vec<u8>),
    Granted(String),
    Refused,
    /// Nobody of this network may try now.
    NotNow,
    Malformed(String),
    Unavailable,
}

/// Why the store did not do it, as a response code (RFC 2449 8.1, RFC 3206 4) and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) code: &'static str,
    pub(crate) text: String,
}

/// A question for `checkpw`. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Question {
    Password {
        name: String,
        password: Vec<u8>,
    },
    Apop {
        name: String,
        digest: String,
    },
    Begin {
        mechanism: Mechanism,
        initial: Option<Vec<u8>>,
    },
    Continue(Vec<u8>),
}

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Write(Vec<u8>),
    StartTls,
    Ask(Question),
    /// The client gave up its AUTH.
    Abandon,
    OpenMaildrop,
    /// A message as a multi-line response, its `+OK` included.
    Send {
        message: Listed,
        lines: Option<u64>,
    },
    /// UPDATE: these UIDs go.
    Remove(Vec<u32>),
    Log(String),
    Close,
}

enum State {
    Authorization {
        user: Option<String>,
    },
    /// AUTH: the client's next line is a response.
    Exchange,
    /// RFC 1939 5
    Transaction(Box<Maildrop>),
    /// An answer is wanted; no line is read.
    Waiting(Wanted),
    Closed,
}

/// Which answer.
enum Wanted {
    Tls,
    Login,
    Opened,
    Sent(Box<Maildrop>),
    Removed(usize),
}

/// Octets of a command, CRLF included: RFC 2449 4.
const MAX_COMMAND: usize = 255;
/// Octets of a response of AUTH, or of the command with one: room for a token in base64.
const MAX_RESPONSE: usize = 12_288;
/// RFC 1939 3: the autologout timer is at least ten minutes, before the login too.
const AUTOLOGOUT: Duration = Duration::from_secs(600);
/// Commands that are none, in a row.
const MAX_BAD: u32 = 20;

pub(crate) struct Session {
    terms: Terms,
    state: State,
    tls: bool,
    /// What there is to bind a login to.
    channel: Channel,
    user: Option<String>,
    failures: u32,
    bad: u32,
    /// Messages and octets given, for the log.
    sent: (usize, u64),
    /// The daemon ends: no further command.
    draining: bool,
}

impl Session {
    pub(crate) fn new(terms: Terms, tls: bool) -> Self {
        let state = State::Authorization { user: None };
        Self {
            terms,
            state,
            tls,
            channel: Channel::default(),
            user: None,
            failures: 0,
            bad: 0,
            sent: (0, 0),
            draining: false,
        }
    }

    /// What happened; what is to be done is appended. Gives the octets consumed, of `Bytes`.
    pub(crate) fn step(&mut self, input: Input<'_>, actions: &mut Vec<Action>) -> usize {
        match input {
            Input::Bytes(bytes) => return self.bytes(bytes, actions),
            Input::Open => ok(
                actions,
                &format!("yubin POP3 ready {}", self.terms.timestamp),
            ),
            Input::TlsUp => {
                self.tls = true;
                self.enter(State::Authorization { user: None });
            }
            Input::Login(login) => self.login(login, actions),
            Input::Opened(opened) => self.opened(opened, actions),
            Input::Sent(outcome) => self.message_sent(outcome, actions),
            Input::Removed(outcome) => self.removed(outcome, actions),
            Input::Timeout => {
                // RFC 1939 3: closed without UPDATE.
                self.farewell("-ERR [SYS/TEMP] autologout", actions);
            }
            Input::Eof => self.close(actions),
            Input::Drain => {
                self.draining = true;
                if !self.is_waiting() {
                    self.farewell("-ERR [SYS/TEMP] shutting down, try again", actions);
                }
            }
        }
        if self.draining && !self.is_waiting() {
            self.close(actions);
        }
        0
    }

    /// Whether an answer is wanted; no input may be given then.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }

    /// How long the client may be silent; `None` while it waits for us.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self.state {
            State::Authorization { .. } | State::Exchange | State::Transaction(_) => {
                Some(AUTOLOGOUT)
            }
            State::Waiting(_) | State::Closed => None,
        }
    }

    /// The greeting's timestamp: what APOP's digest is made of.
    pub(crate) fn timestamp(&self) -> &str {
        &self.terms.timestamp
    }

    /// Who is logged in.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Messages and octets given so far.
    pub(crate) fn sent(&self) -> (usize, u64) {
        self.sent
    }

    /// The message that is being sent, by its UID, and those behind it that are not marked.
    pub(crate) fn following(&self, uid: u32) -> impl Iterator<Item = Listed> {
        let maildrop = match &self.state {
            State::Waiting(Wanted::Sent(maildrop)) => Some(maildrop),
            _ => None,
        };
        maildrop
            .into_iter()
            .flat_map(|maildrop| maildrop.kept())
            .map(|(_, message)| message)
            .skip_while(move |message| message.uid != uid)
    }

    fn enter(&mut self, state: State) {
        self.state = state;
    }

    fn bytes(&mut self, bytes: &[u8], actions: &mut Vec<Action>) -> usize {
        let max = match self.state {
            State::Exchange => MAX_RESPONSE,
            State::Waiting(_) => return 0,
            State::Closed => return bytes.len(),
            // A token is long, and clients send it with the command whatever RFC 5034 4 says.
            State::Authorization { .. }
                if bytes
                    .get(..5)
                    .is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH ")) =>
            {
                MAX_RESPONSE
            }
            State::Authorization { .. } | State::Transaction(_) => MAX_COMMAND,
        };
        match line::next(bytes, max) {
            Line::Complete(line, consumed) => {
                self.line(line, actions);
                consumed
            }
            Line::Partial => 0,
            Line::TooLong(_) => {
                self.farewell("-ERR line too long", actions);
                bytes.len()
            }
            Line::BareCr(_) | Line::BareLf(_) => {
                self.farewell("-ERR a line ends in CR LF", actions);
                bytes.len()
            }
        }
    }

    fn line(&mut self, line: &[u8], actions: &mut Vec<Action>) {
        if matches!(self.state, State::Exchange) {
            return self.response(line, actions);
        }
        match command::parse(line) {
            Ok(command) => {
                self.bad = 0;
                self.command(command, actions);
            }
            Err(bad) => {
                self.bad += 1;
                if self.bad >= MAX_BAD {
                    return self.farewell("-ERR too many commands that are none", actions);
                }
                match bad {
                    Bad::Unknown => err(actions, "unknown command"),
                    Bad::Arguments(usage) => err(actions, &format!("write {usage}")),
                }
            }
        }
    }

    fn command(&mut self, command: Command, actions: &mut Vec<Action>) {
        match (command, mem::replace(&mut self.state, State::Closed)) {
            (Command::Capa, state) => {
                self.state = state;
                self.capa(actions);
            }
            (command, State::Authorization { user }) => self.authorize(command, user, actions),
            (command, State::Transaction(maildrop)) => self.transact(&command, maildrop, actions),
            (_, state) => self.state = state,
        }
    }

    fn opened(&mut self, opened: Result<Maildrop, Trouble>, actions: &mut Vec<Action>) {
        match opened {
            Ok(maildrop) => {
                let (count, size) = maildrop.stat();
                ok(actions, &format!("{count} messages ({size} octets)"));
                self.enter(State::Transaction(Box::new(maildrop)));
            }
            Err(trouble) => {
                actions.push(Action::Log(format!(
                    "maildrop not opened: {}",
                    trouble.text
                )));
                self.farewell(
                    &format!("-ERR [{}] {}", trouble.code, trouble.text),
                    actions,
                );
            }
        }
    }

    /// RFC 1939 5 and 7.
    fn transact(
        &mut self,
        command: &Command,
        mut maildrop: Box<Maildrop>,
        actions: &mut Vec<Action>,
    ) {
        match *command {
            Command::Stat => {
                let (count, size) = maildrop.stat();
                ok(actions, &format!("{count} {size}"));
            }
            Command::List(None) => {
                let (count, size) = maildrop.stat();
                list(
                    actions,
                    &format!("{count} messages ({size} octets)"),
                    &maildrop,
                    |m| m.size.to_string(),
                );
            }
            Command::Uidl(None) => {
                list(actions, "unique ids follow", &maildrop, |m| {
                    maildrop.unique_id(m)
                });
            }
            Command::List(Some(number)) => match maildrop.get(number) {
                Some(message) => ok(actions, &format!("{number} {}", message.size)),
                None => no_message(actions, &maildrop),
            },
            Command::Uidl(Some(number)) => match maildrop.get(number) {
                Some(message) => ok(
                    actions,
                    &format!("{number} {}", maildrop.unique_id(message)),
                ),
                None => no_message(actions, &maildrop),
            },
            Command::Retr(number) => return self.send(number, None, maildrop, actions),
            Command::Top { number, lines } => {
                return self.send(number, Some(lines), maildrop, actions);
            }
            Command::Dele(number) => {
                if maildrop.delete(number) {
                    ok(actions, &format!("message {number} deleted"));
                } else {
                    no_message(actions, &maildrop);
                }
            }
            Command::Noop => ok(actions, "still here"),
            Command::Rset => {
                maildrop.reset();
                let (count, size) = maildrop.stat();
                ok(actions, &format!("{count} messages ({size} octets)"));
            }
            Command::Quit => {
                let uids = maildrop.deleted();
                if uids.is_empty() {
                    return self.farewell("+OK bye", actions);
                }
                let count = uids.len();
                actions.push(Action::Remove(uids));
                return self.enter(State::Waiting(Wanted::Removed(count)));
            }
            Command::User(_)
            | Command::Pass(_)
            | Command::Apop { .. }
            | Command::Auth(_)
            | Command::Stls
            | Command::Capa => err(actions, "you are logged in"),
        }
        self.enter(State::Transaction(maildrop));
    }

    fn send(
        &mut self,
        number: u32,
        lines: Option<u64>,
        maildrop: Box<Maildrop>,
        actions: &mut Vec<Action>,
    ) {
        match maildrop.get(number) {
            Some(message) => {
                if lines.is_none() {
                    self.sent = (self.sent.0 + 1, self.sent.1.saturating_add(message.size));
                }
                actions.push(Action::Send { message, lines });
                self.enter(State::Waiting(Wanted::Sent(maildrop)));
            }
            None => {
                no_message(actions, &maildrop);
                self.enter(State::Transaction(maildrop));
            }
        }
    }

    fn message_sent(&mut self, outcome: Result<(), Trouble>, actions: &mut Vec<Action>) {
        match mem::replace(&mut self.state, State::Closed) {
            State::Waiting(Wanted::Sent(maildrop)) => {
                if let Err(trouble) = outcome {
                    err(actions, &format!("[{}] {}", trouble.code, trouble.text));
                }
                self.enter(State::Transaction(maildrop));
            }
            state => self.state = state,
        }
    }

    /// RFC 1939 6: what was not removed is said.
    fn removed(&mut self, outcome: Result<(), Trouble>, actions: &mut Vec<Action>) {
        let State::Waiting(Wanted::Removed(count)) = self.state else {
            return;
        };
        match outcome {
            Ok(()) => {
                actions.push(Action::Log(format!("deleted {count} messages")));
                self.farewell("+OK bye", actions);
            }
            Err(trouble) => {
                actions.push(Action::Log(format!(
                    "{count} messages not deleted: {}",
                    trouble.text
                )));
                let text = format!(
                    "-ERR [{}] messages were not removed: {}",
                    trouble.code, trouble.text
                );
                self.farewell(&text, actions);
            }
        }
    }

    fn farewell(&mut self, text: &str, actions: &mut Vec<Action>) {
        if !matches!(self.state, State::Closed) || text.starts_with("+OK") {
            actions.push(Action::Write(one_line(text)));
        }
        self.close(actions);
    }

    fn close(&mut self, actions: &mut Vec<Action>) {
        self.enter(State::Closed);
        actions.push(Action::Close);
    }
}

fn ok(actions: &mut Vec<Action>, text: &str) {
    actions.push(Action::Write(one_line(&format!("+OK {text}"))));
}

fn err(actions: &mut Vec<Action>, text: &str) {
    actions.push(Action::Write(one_line(&format!("-ERR {text}"))));
}

fn no_message(actions: &mut Vec<Action>, maildrop: &Maildrop) {
    err(
        actions,
        &format!("no such message, {} in the maildrop", maildrop.stat().0),
    );
}

/// A text of another's (a path, an error) as one line of at most 512 octets: RFC 1939 3.
fn one_line(text: &str) -> Vec<u8> {
    let mut line: Vec<u8> = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .into();
    line.truncate(510);
    line.extend_from_slice(b"\r\n");
    line
}

fn list(
    actions: &mut Vec<Action>,
    head: &str,
    maildrop: &Maildrop,
    show: impl Fn(Listed) -> String,
) {
    let mut text = format!("+OK {head}\r\n");
    for (number, message) in maildrop.kept() {
        // Writing to a String does not fail.
        write!(text, "{number} {}\r\n", show(message)).ok();
    }
    text.push_str(".\r\n");
    actions.push(Action::Write(text.into_bytes()));
}
