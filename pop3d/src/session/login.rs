//! The AUTHORIZATION state (RFC 1939 4): USER and PASS, APOP (RFC 1939 7), AUTH (RFC 5034), STLS
//! (RFC 2595), and the capabilities (RFC 2449).
//!
//! Passwords and responses are passed on and not kept; what they are worth, `checkpw` says.

use account::{Channel, Mechanism};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Action, Login, Question, Session, State, Wanted, err, ok};
use crate::command::Command;

const IN_THE_CLEAR: &str = "[AUTH] no login in the clear: use TLS or APOP";
/// Wrong passwords, then the session ends.
const MAX_FAILURES: u32 = 3;

impl Session {
    /// RFC 2449 5 and 6, RFC 3206, RFC 5034.
    pub(super) fn capa(&self, actions: &mut Vec<Action>) {
        let mut text = String::from("+OK capabilities follow\r\nTOP\r\nUIDL\r\n");
        if self.may_log_in() {
            text.push_str("USER\r\n");
        }
        let names: Vec<_> = self.mechanisms().map(Mechanism::name).collect();
        if !names.is_empty() {
            text.push_str(&format!("SASL {}\r\n", names.join(" ")));
        }
        if self.terms.tls_offered && !self.tls {
            text.push_str("STLS\r\n");
        }
        text.push_str("PIPELINING\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nEXPIRE NEVER\r\nIMPLEMENTATION yubin\r\n.\r\n");
        actions.push(Action::Write(text.into_bytes()));
    }

    /// Whether a password may come as it is.
    fn may_log_in(&self) -> bool {
        self.tls || self.terms.plaintext_login
    }

    /// Those that may be used on this connection.
    fn mechanisms(&self) -> impl Iterator<Item = Mechanism> {
        self.channel
            .offers(&self.terms.mechanisms, self.may_log_in())
    }

    /// TLS is on, and this is what it gives to logins.
    pub(crate) fn bind(&mut self, channel: Channel) {
        self.channel = channel;
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// RFC 1939 4.
    pub(super) fn authorize(
        &mut self,
        command: Command,
        user: Option<String>,
        actions: &mut Vec<Action>,
    ) {
        let stay = State::Authorization { user: user.clone() };
        match (command, user) {
            (Command::Quit, _) => return self.farewell("+OK bye", actions),
            (Command::Stls, _) if self.tls => err(actions, "TLS is on already"),
            (Command::Stls, _) if !self.terms.tls_offered => err(actions, "no TLS here"),
            (Command::Stls, _) => {
                ok(actions, "begin TLS");
                actions.push(Action::StartTls);
                return self.enter(State::Waiting(Wanted::Tls));
            }
            (Command::Auth(None), _) => {
                let names = self.mechanisms().map(|m| format!("{}\r\n", m.name()));
                let names: String = names.collect();
                actions.push(Action::Write(
                    format!("+OK mechanisms follow\r\n{names}.\r\n").into_bytes(),
                ));
            }
            (Command::Apop { name, digest }, _) => {
                return self.ask(
                    Question::Apop {
                        name,
                        digest: digest.to_ascii_lowercase(),
                    },
                    actions,
                );
            }
            (Command::User(_) | Command::Pass(_), _) if !self.may_log_in() => {
                err(actions, IN_THE_CLEAR);
            }
            (Command::User(name), _) => {
                ok(actions, "password, please");
                return self.enter(State::Authorization { user: Some(name) });
            }
            (Command::Pass(password), Some(name)) => {
                return self.ask(Question::Password { name, password }, actions);
            }
            (Command::Pass(_), None) => err(actions, "USER comes first"),
            (Command::Auth(Some((name, initial))), _) => {
                return self.auth(&name, initial.as_deref(), actions);
            }
            (
                Command::Capa
                | Command::Stat
                | Command::List(_)
                | Command::Retr(_)
                | Command::Dele(_)
                | Command::Noop
                | Command::Rset
                | Command::Top { .. }
                | Command::Uidl(_),
                _,
            ) => err(actions, "log in first"),
        }
        self.enter(stay);
    }

    /// RFC 5034 4: `=` is an empty initial response.
    fn auth(&mut self, name: &str, initial: Option<&str>, actions: &mut Vec<Action>) {
        self.enter(State::Authorization { user: None });
        let known = Mechanism::parse(name);
        let Some(mechanism) = known.filter(|m| self.terms.mechanisms.contains(m)) else {
            return err(actions, "this mechanism is not known here");
        };
        if self.mechanisms().all(|allowed| allowed != mechanism) {
            return err(actions, IN_THE_CLEAR);
        }
        let initial = match initial {
            None => None,
            Some("=") => Some(Vec::new()),
            Some(text) => match STANDARD.decode(text) {
                Ok(bytes) => Some(bytes),
                Err(_) => return err(actions, "not base64"),
            },
        };
        self.ask(Question::Begin { mechanism, initial }, actions);
    }

    pub(super) fn response(&mut self, line: &[u8], actions: &mut Vec<Action>) {
        match (line, STANDARD.decode(line)) {
            (b"*", _) => {
                actions.push(Action::Abandon);
                err(actions, "given up");
                self.enter(State::Authorization { user: None });
            }
            (_, Ok(response)) => self.ask(Question::Continue(response), actions),
            (_, Err(_)) => {
                actions.push(Action::Abandon);
                err(actions, "not base64");
                self.enter(State::Authorization { user: None });
            }
        }
    }

    fn ask(&mut self, question: Question, actions: &mut Vec<Action>) {
        actions.push(Action::Ask(question));
        self.enter(State::Waiting(Wanted::Login));
    }

    pub(super) fn login(&mut self, login: Login, actions: &mut Vec<Action>) {
        if !matches!(self.state, State::Waiting(Wanted::Login)) {
            return;
        }
        self.enter(State::Authorization { user: None });
        match login {
            Login::Challenge(challenge) => {
                actions.push(Action::Write(
                    format!("+ {}\r\n", STANDARD.encode(challenge)).into_bytes(),
                ));
                self.enter(State::Exchange);
            }
            Login::Granted(user) => {
                actions.push(Action::Log("login".into()));
                actions.push(Action::OpenMaildrop);
                self.user = Some(user);
                self.enter(State::Waiting(Wanted::Opened));
            }
            Login::Refused => {
                actions.push(Action::Log("login failed".into()));
                self.failures += 1;
                if self.failures >= MAX_FAILURES {
                    self.farewell("-ERR [AUTH] wrong name or password, good bye", actions);
                } else {
                    err(actions, "[AUTH] wrong name or password");
                }
            }
            // RFC 3206 4: it is not the password.
            Login::NotNow => {
                actions.push(Action::Log(
                    "login refused: too many failed from there".into(),
                ));
                err(
                    actions,
                    "[SYS/TEMP] too many failed logins from your network, try later",
                );
            }
            Login::Malformed(what) => err(actions, &what),
            Login::Unavailable => err(actions, "[SYS/TEMP] nobody can log in now, try later"),
        }
    }
}
