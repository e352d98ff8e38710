//! Who the client is: STARTTLS (RFC 3207), AUTH (RFC 4954), XCLIENT and XFORWARD.

use account::{Channel, Mechanism};

use super::{Action, Actions, AuthAnswer, MAX_AUTH_FAILURES, Session, State};
use crate::auth;
use crate::reply::{self, Reply};
use crate::xclient::Xclient;
use crate::xforward::Xforward;

impl Session {
    /// Postfix's XCLIENT_README. This session is over, and another one begins for that client.
    pub(super) fn xclient(&mut self, said: Box<Xclient>, actions: &mut Actions) {
        if !self.client.xclient {
            return self.refuse(reply::NO_XCLIENT, actions);
        }
        if !matches!(self.state, State::Idle) {
            return self.refuse(reply::XCLIENT_IN_MAIL, actions);
        }
        actions.push(Action::Become(said));
        self.enter(State::Closed);
    }

    /// Postfix's XFORWARD_README: for the next message.
    pub(super) fn xforward(&mut self, said: Xforward, actions: &mut Actions) {
        if !self.client.filter {
            return self.refuse(reply::NO_XFORWARD, actions);
        }
        if !matches!(self.state, State::Idle) {
            return self.refuse(reply::XFORWARD_IN_MAIL, actions);
        }
        self.forwarded.get_or_insert_default().add(said);
        actions.push(Action::Reply(reply::OK));
    }

    /// RFC 3207 4
    pub(super) fn start_tls(&mut self, actions: &mut Actions) {
        if self.tls {
            return self.refuse(reply::TLS_ALREADY, actions);
        }
        if !self.client.tls_offered {
            return self.refuse(reply::NO_TLS, actions);
        }
        self.forget(actions);
        actions.push(Action::Reply(reply::START_TLS));
        actions.push(Action::StartTls);
        self.enter(State::Handshake);
    }

    /// TLS is on, and this is what it gives to logins.
    pub(crate) fn bind(&mut self, channel: Channel) {
        self.channel = channel;
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// RFC 3207 4.2: all that was said before is forgotten.
    pub(super) fn tls_up(&mut self) {
        self.tls = true;
        self.hello = None;
        self.login = None;
        self.enter(State::Idle);
    }

    /// RFC 4954 4
    pub(super) fn auth(
        &mut self,
        mechanism: &str,
        initial: Option<Vec<u8>>,
        actions: &mut Actions,
    ) {
        let known = Mechanism::parse(mechanism);
        let known = known.filter(|known| self.terms.mechanisms.contains(known));
        let refusal = if self.hello.is_none() {
            reply::HELLO_FIRST
        } else if self.login.is_some() {
            reply::AUTH_ALREADY
        } else if !matches!(self.state, State::Idle) {
            reply::AUTH_IN_MAIL
        } else if self.terms.mechanisms.is_empty() {
            reply::NOT_OFFERED
        } else if let Some(mechanism) = known {
            if self.mechanisms().any(|allowed| allowed == mechanism) {
                actions.push(Action::Authenticate { mechanism, initial });
                return self.enter(State::Authenticating(mechanism));
            }
            reply::AUTH_NEEDS_TLS
        } else {
            reply::BAD_MECHANISM
        };
        self.refuse(refusal, actions);
    }

    pub(super) fn auth_line(&mut self, line: &[u8], actions: &mut Actions) {
        let held = self.take(|state| match state {
            State::AuthLine(mechanism) => Ok(mechanism),
            other => Err(other),
        });
        let Some(mechanism) = held else { return };
        let refusal = match auth::decode(line) {
            _ if line == b"*" => reply::AUTH_CANCELLED,
            None => reply::BAD_BASE64,
            Some(response) => {
                actions.push(Action::Respond(response));
                return self.enter(State::Authenticating(mechanism));
            }
        };
        actions.push(Action::AbandonAuth);
        self.refuse(refusal, actions);
    }

    pub(super) fn auth_answer(&mut self, answer: AuthAnswer, actions: &mut Actions) {
        let held = self.take(|state| match state {
            State::Authenticating(mechanism) => Ok(mechanism),
            other => Err(other),
        });
        let Some(mechanism) = held else { return };
        match answer {
            AuthAnswer::Challenge(challenge) => {
                let text = auth::encode(&challenge);
                actions.push(Action::Reply(Reply::made(334, None, text)));
                self.enter(State::AuthLine(mechanism));
            }
            AuthAnswer::Granted(login) => {
                self.login = Some(login);
                actions.push(Action::Reply(reply::AUTHENTICATED));
            }
            AuthAnswer::Unavailable => actions.push(Action::Reply(reply::AUTH_TROUBLE)),
            AuthAnswer::NotNow(refusal) => {
                let text = format!(
                    "NOQUEUE: reject: AUTH from {}: {refusal}",
                    self.client.shown
                );
                actions.push(Action::Log(text));
                self.refuse(refusal, actions);
            }
            AuthAnswer::Malformed => self.refuse(reply::AUTH_MALFORMED, actions),
            AuthAnswer::Refused => {
                actions.push(Action::Log(format!(
                    "warning: {}: SASL {} authentication failed",
                    self.client.shown,
                    mechanism.name()
                )));
                self.counts.auth_failures = self.counts.auth_failures.saturating_add(1);
                actions.push(Action::Reply(reply::AUTH_REFUSED));
                if self.counts.auth_failures >= MAX_AUTH_FAILURES {
                    self.part(reply::TOO_MANY_ERRORS, actions);
                }
            }
        }
    }
}
