//! Before the login: CAPABILITY, STARTTLS, LOGIN and AUTHENTICATE (RFC 3501 6.2, RFC 4959).
//!
//! The session never decides who somebody is: it passes what the client says to checkpw, whose grant
//! also brings the way to the user's mail.

use std::fmt;

use account::{Channel, Mechanism};
use mime::encoding::{Encoding, base64};

use crate::command::{Command, Secret};
use crate::response::line;
use crate::session::{Action, Actions, Ended, Session, State, Task};

/// What checkpw is asked.
#[derive(PartialEq, Eq)]
pub(crate) enum LoginRequest {
    Password {
        user: Vec<u8>,
        password: Vec<u8>,
    },
    /// The first step of a SASL exchange.
    Begin {
        mechanism: Mechanism,
        initial: Option<Vec<u8>>,
    },
    /// A further step.
    Continue(Vec<u8>),
    /// The client gave up.
    Cancel,
}

impl fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { .. } => f.write_str("Password"),
            Self::Begin { mechanism, .. } => write!(f, "Begin {}", mechanism.name()),
            Self::Continue(_) => f.write_str("Continue"),
            Self::Cancel => f.write_str("Cancel"),
        }
    }
}

/// What checkpw answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoginAnswer {
    Challenge(Vec<u8>),
    Granted,
    Refused,
    /// Nobody of this network may try now.
    NotNow,
    /// That is no answer in this mechanism.
    Malformed,
    /// Nobody can tell now.
    Unavailable,
}

const PRIVACY: &str = "NO [PRIVACYREQUIRED] Passwords are taken over TLS only";
/// After so many refusals the connection ends.
const MAX_FAILURES: u8 = 3;

impl Session {
    /// `capability-data` without its first word, for the present state.
    pub(crate) fn capabilities(&self) -> String {
        let mut words = vec![
            "IMAP4rev1",
            "LITERAL+",
            "SASL-IR",
            "ID",
            "IDLE",
            "NAMESPACE",
            "CHILDREN",
            "UIDPLUS",
            "UNSELECT",
            "MOVE",
        ];
        let mechanisms = self.mechanisms();
        let mechanisms: Vec<String> = mechanisms.map(|m| format!("AUTH={}", m.name())).collect();
        if matches!(self.state, State::NotAuthenticated) {
            if self.options.starttls {
                words.push("STARTTLS");
            }
            words.extend(mechanisms.iter().map(String::as_str));
            if !self.options.login_allowed {
                words.push("LOGINDISABLED");
            }
        }
        words.join(" ")
    }

    /// Those that may be used on this connection.
    fn mechanisms(&self) -> impl Iterator<Item = Mechanism> {
        let options = &self.options;
        self.channel
            .offers(&options.mechanisms, options.login_allowed)
    }

    pub(crate) fn before_login(&mut self, tag: String, command: Command, actions: &mut Actions) {
        match command {
            Command::StartTls if self.options.starttls => {
                line(
                    &mut actions.output,
                    &format!("{tag} OK Begin TLS negotiation now"),
                );
                self.task = Task::StartingTls;
                actions.next.push(Action::StartTls);
            }
            Command::StartTls => {
                line(
                    &mut actions.output,
                    &format!("{tag} BAD TLS is not available here"),
                );
            }
            Command::Login { .. } if !self.options.login_allowed => {
                line(&mut actions.output, &format!("{tag} {PRIVACY}"));
            }
            Command::Login { user, password } => {
                self.task = Task::LoggingIn { tag };
                let request = LoginRequest::Password {
                    user,
                    password: password.0,
                };
                actions.next.push(Action::Login(request));
            }
            Command::Authenticate { mechanism, initial } => {
                self.authenticate(tag, &mechanism, initial, actions);
            }
            _ => line(&mut actions.output, &format!("{tag} BAD Log in first")),
        }
    }

    fn authenticate(
        &mut self,
        tag: String,
        mechanism: &str,
        initial: Option<Secret>,
        actions: &mut Actions,
    ) {
        let known = Mechanism::parse(mechanism);
        let Some(mechanism) = known.filter(|m| self.options.mechanisms.contains(m)) else {
            let text = format!("{tag} NO [CANNOT] No such mechanism");
            return line(&mut actions.output, &text);
        };
        if self.mechanisms().all(|allowed| allowed != mechanism) {
            return line(&mut actions.output, &format!("{tag} {PRIVACY}"));
        }
        let initial = match initial {
            None => None,
            // RFC 4959 3: a single `=` is an empty initial response.
            Some(Secret(text)) if text == b"=" => Some(Vec::new()),
            Some(Secret(text)) => match decode(&text) {
                Some(bytes) => Some(bytes),
                None => return line(&mut actions.output, &format!("{tag} BAD Not base64")),
            },
        };
        self.task = Task::LoggingIn { tag };
        actions
            .next
            .push(Action::Login(LoginRequest::Begin { mechanism, initial }));
    }

    /// A line of the client in a SASL exchange.
    pub(crate) fn sasl_answer(&mut self, text: &[u8], actions: &mut Actions) {
        let Task::Sasl { tag } = std::mem::replace(&mut self.task, Task::Ready) else {
            return;
        };
        let decoded = if text == b"*" { None } else { decode(text) };
        match decoded {
            Some(bytes) => {
                self.task = Task::LoggingIn { tag };
                actions
                    .next
                    .push(Action::Login(LoginRequest::Continue(bytes)));
            }
            None => {
                actions.next.push(Action::Login(LoginRequest::Cancel));
                let why = if text == b"*" {
                    "Cancelled"
                } else {
                    "Not base64"
                };
                line(&mut actions.output, &format!("{tag} BAD {why}"));
            }
        }
    }

    pub(crate) fn login_answer(&mut self, answer: LoginAnswer, actions: &mut Actions) {
        let Task::LoggingIn { tag } = std::mem::replace(&mut self.task, Task::Ready) else {
            return;
        };
        match answer {
            LoginAnswer::Challenge(challenge) => {
                line(&mut actions.output, &format!("+ {}", base64(&challenge)));
                self.task = Task::Sasl { tag };
            }
            LoginAnswer::Granted => {
                self.state = State::Authenticated;
                let capabilities = self.capabilities();
                let text = format!("{tag} OK [CAPABILITY {capabilities}] Logged in");
                line(&mut actions.output, &text);
            }
            LoginAnswer::Malformed => {
                line(
                    &mut actions.output,
                    &format!("{tag} BAD Not what the mechanism says"),
                );
            }
            LoginAnswer::Unavailable => {
                let text = format!("{tag} NO [UNAVAILABLE] Cannot check passwords now, try later");
                line(&mut actions.output, &text);
            }
            LoginAnswer::NotNow => {
                let text = format!(
                    "{tag} NO [UNAVAILABLE] Too many failed logins from your network, try later"
                );
                line(&mut actions.output, &text);
            }
            LoginAnswer::Refused => {
                let text = format!("{tag} NO [AUTHENTICATIONFAILED] Wrong user name or password");
                line(&mut actions.output, &text);
                self.failures = self.failures.saturating_add(1);
                if self.failures >= MAX_FAILURES {
                    line(&mut actions.output, "* BYE Too many login failures");
                    self.end(Ended::LoginFailures, actions);
                }
            }
        }
    }

    /// TLS is on, and this is what it gives to logins.
    pub(crate) fn bind(&mut self, channel: Channel) {
        self.channel = channel;
    }

    /// TLS is there: passwords may come, and nothing that was said before counts (RFC 3501 6.2.1).
    pub(crate) fn tls_up(&mut self) {
        self.options.starttls = false;
        self.options.login_allowed = true;
        self.framer = crate::framer::Framer::new();
        if matches!(self.task, Task::StartingTls) {
            self.task = Task::Ready;
        }
    }
}

/// Base64 in its one right form.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let bytes = Encoding::Base64.decode(text);
    (base64(&bytes).as_bytes() == text).then_some(bytes)
}
