//! Who speaks out of turn: before our greeting, or before a reply that has to be waited for (RFC 5321
//! 4.3.1, RFC 2920 3.1). Mail programs wait; what sends junk often does not, and neither does who
//! smuggles commands behind another's message.
//!
//! Those who may relay are spared: a script on this host may well write its whole part at once.

use std::time::Duration;

use base::escape::escape;

use super::{Action, Actions, Admission, GLANCE, Session, State};
use crate::command::Command;
use crate::reply::{self, Reply};

/// Octets of what a client said that a line of the log shows.
const SHOWN: usize = 80;

impl Session {
    /// The client is there.
    pub(super) fn open(&mut self, actions: &mut Actions) {
        actions.push(Action::AskClient);
        self.enter(State::AskingClient);
    }

    /// Whether we serve it. A stranger is greeted after a while.
    pub(super) fn admitted(&mut self, admission: Admission, actions: &mut Actions) {
        if !matches!(self.state, State::AskingClient) {
            return;
        }
        self.enter(State::Idle);
        self.client.shown = admission.shown;
        if let Err(refusal) = admission.answer {
            self.denied = true;
            self.log_reject("CONNECT", &refusal, None, None, actions);
            return self.reject(refusal, actions);
        }
        let delay = &mut self.client.greet_delay;
        if admission.welcome {
            *delay = Duration::ZERO;
        } else if !delay.is_zero() {
            // Who has not waited is seen even where no time is left.
            *delay = delay.saturating_sub(admission.took).max(GLANCE);
        }
        if self.client.greet_delay.is_zero() {
            self.greet(actions);
        } else {
            self.enter(State::Greeting);
        }
    }

    /// It has waited.
    pub(super) fn waited(&mut self, actions: &mut Actions) {
        actions.push(Action::Acquaint);
        self.enter(State::Idle);
        self.greet(actions);
    }

    fn greet(&self, actions: &mut Actions) {
        let text = format!("{} ESMTP yubin", self.terms.name);
        actions.push(Action::Reply(Reply::made(220, None, text)));
    }

    /// Whether `ahead`, which came together with a command, should have waited for its reply.
    pub(super) fn is_out_of_turn(&self, command: &Command, ahead: &[u8]) -> bool {
        let alone = match command {
            Command::Ehlo(_)
            | Command::Helo(_)
            | Command::Data
            | Command::Noop
            | Command::Vrfy
            | Command::Expn
            | Command::Help
            | Command::StartTls
            | Command::Etrn(_)
            | Command::Auth { .. } => true,
            Command::Mail(_)
            | Command::Rcpt(_)
            | Command::Rset
            | Command::Bdat(_)
            | Command::Xclient(_)
            | Command::Xforward(_)
            | Command::Quit => false,
        };
        // PIPELINING is for who has said EHLO.
        let plain = self.hello.as_ref().is_none_or(|hello| !hello.extended);
        let plain = plain && !matches!(command, Command::Bdat(_) | Command::Quit);
        !ahead.is_empty() && (alone || plain) && !self.may_relay()
    }

    /// There is no knowing what such a client says to which question: it has to go.
    pub(super) fn out_of_turn(&mut self, ahead: &[u8], actions: &mut Actions) {
        actions.push(Action::Log(format!(
            "NOQUEUE: reject: {} from {}: talks before our reply: {}",
            self.last,
            self.client.shown,
            self.words(ahead)
        )));
        self.part(reply::OUT_OF_TURN, actions);
    }

    /// A line that is no command or a wrong one. Of the first kind others may have something to say,
    /// unless a secret may be in it.
    pub(super) fn unknown(&mut self, line: &[u8], refusal: Reply, actions: &mut Actions) {
        let has_secret = self.last == "AUTH" || auth_word(line).is_some();
        if refusal != reply::UNKNOWN_COMMAND || self.denied || has_secret {
            return self.refuse(refusal, actions);
        }
        actions.push(Action::AskUnknown(
            String::from_utf8_lossy(line).into_owned(),
        ));
        let before = std::mem::replace(&mut self.state, State::Idle);
        self.enter(State::AskingUnknown(Box::new(before), refusal));
    }

    pub(super) fn unknown_answer(&mut self, answer: Option<Reply>, actions: &mut Actions) {
        let held = self.take(|state| match state {
            State::AskingUnknown(before, refusal) => Ok((before, refusal)),
            other => Err(other),
        });
        let Some((before, refusal)) = held else {
            return;
        };
        self.enter(*before);
        match answer {
            Some(last_word) if matches!(last_word.code(), 421 | 521) => {
                self.part(last_word, actions);
            }
            answer => self.refuse(answer.unwrap_or(refusal), actions),
        }
    }

    /// What came that is no command, for the log.
    pub(super) fn log_improper(&self, refusal: &Reply, said: &[u8], actions: &mut Actions) {
        actions.push(Action::Log(format!(
            "improper command from {}: {refusal}: {}",
            self.client.shown,
            self.words(said)
        )));
    }

    /// The beginning of what came, escaped, without what may be a secret: what is said in an AUTH
    /// exchange, and behind one that did not go as the client thought.
    fn words(&self, said: &[u8]) -> String {
        if self.last == "AUTH" {
            return "(not shown)".into();
        }
        let head = said.get(..SHOWN).unwrap_or(said);
        match auth_word(head).map(|at| head.get(..at.saturating_add(4)).unwrap_or(head)) {
            Some(known) => format!("{} (not shown)", escape(known)),
            None => escape(head).to_string(),
        }
    }
}

/// Where AUTH stands in a line.
fn auth_word(line: &[u8]) -> Option<usize> {
    line.windows(4)
        .position(|word| word.eq_ignore_ascii_case(b"AUTH"))
}
