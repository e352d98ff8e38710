//! Refusals, and how a session ends: by a last word of ours, by the client's going, by time, or because
//! there were too many errors. All that is refused stands in the log.

use base::Address;
use base::escape::escape;

use super::{Action, Actions, How, MAX_ERRORS, Session, State, protocol};
use crate::reply::{self, Reply};

impl Session {
    pub(super) fn timeout(&mut self, actions: &mut Actions) {
        let (what, last_word) = match self.state {
            State::Committing(..) | State::Handshake | State::Closed => return,
            State::Greeting => return self.waited(actions),
            // Its answer, should it still come, finds nobody.
            State::AskingClient
            | State::AskingHello(_)
            | State::AskingSender(_)
            | State::AskingRecipient(..)
            | State::AskingData(..)
            | State::AskingFlush(_)
            | State::AskingUnknown(..)
            | State::Authenticating(_) => ("warning: no answer to the look-up", reply::NO_ANSWER),
            State::Idle
            | State::Mail(_)
            | State::Body(..)
            | State::Chunk(..)
            | State::BetweenChunks(..)
            | State::Swallow(..)
            | State::AuthLine(_) => ("timeout", reply::TIMEOUT),
        };
        let text = format!("{what} after {} from {}", self.last, self.client.shown);
        actions.push(Action::Log(text));
        self.part(last_word, actions);
    }

    pub(super) fn eof(&mut self, actions: &mut Actions) {
        if matches!(self.state, State::Closed) {
            return;
        }
        let text = format!(
            "lost connection after {} from {}",
            self.last, self.client.shown
        );
        actions.push(Action::LogEnd(text));
        self.end(actions);
    }

    /// Says a last word and closes.
    pub(super) fn part(&mut self, last_word: Reply, actions: &mut Actions) {
        actions.push(Action::Reply(last_word));
        self.end(actions);
    }

    pub(super) fn end(&mut self, actions: &mut Actions) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        self.state = match state {
            State::AskingUnknown(before, _) => *before,
            other => other,
        };
        match self.state {
            State::Body(..) | State::Chunk(..) | State::BetweenChunks(..) => {
                actions.push(Action::Discard);
            }
            State::AuthLine(_) => actions.push(Action::AbandonAuth),
            _ => {}
        }
        actions.push(Action::Close);
        self.enter(State::Closed);
    }

    /// For who does not speak SMTP.
    pub(super) fn hang_up(&mut self, said: &[u8], actions: &mut Actions) {
        self.log_improper(&reply::NOT_SMTP, said, actions);
        self.part(reply::NOT_SMTP, actions);
    }

    pub(super) fn refuse(&mut self, refusal: Reply, actions: &mut Actions) {
        actions.push(Action::Reply(refusal));
        self.counts.errors = self.counts.errors.saturating_add(1);
        if self.counts.errors >= MAX_ERRORS {
            let text = format!(
                "too many errors after {} from {}",
                self.last, self.client.shown
            );
            actions.push(Action::Log(text));
            actions.push(Action::Offence("too many errors"));
            self.part(reply::TOO_MANY_ERRORS, actions);
        }
    }

    /// A refusal that comes from outside of this machine may end the session: RFC 5321 3.8, and RFC
    /// 7504 4 for the greeting.
    pub(super) fn reject(&mut self, refusal: Reply, actions: &mut Actions) {
        if matches!(refusal.code(), 421 | 521) {
            self.part(refusal, actions);
        } else {
            actions.push(Action::Reply(refusal));
        }
    }

    pub(super) fn log_reject(
        &self,
        stage: &str,
        refusal: &Reply,
        from: Option<&str>,
        to: Option<&Address>,
        actions: &mut Actions,
    ) {
        let to = to
            .map(|to| format!(" to=<{}>", escape(&to.to_string())))
            .unwrap_or_default();
        let from = from
            .map(|from| format!(" from=<{}>", escape(from)))
            .unwrap_or_default();
        let (helo, how) = match &self.hello {
            Some(hello) if hello.extended => (hello.name.as_str(), How::Extended),
            Some(hello) => (hello.name.as_str(), How::Plain),
            None => ("", How::Plain),
        };
        actions.push(Action::Log(format!(
            "NOQUEUE: reject: {stage} from {}: {refusal};{from}{to} proto={} helo=<{}>",
            self.client.shown,
            protocol(how, self.tls, self.login.is_some()),
            escape(helo),
        )));
    }
}
