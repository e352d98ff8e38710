//! ETRN: a client asks for the mail that waits for its domain. RFC 1985
//!
//! What waits is qrun's to know, so the answer is 250 or no; never 251 to 253, which count messages.

use base::Status;
use base::escape::escape;

use super::{Action, Actions, Session, State};
use crate::command::Node;
use crate::reply::{self, Reply};

impl Session {
    /// Whether there is a domain for it. A client of the submission ports has none.
    pub(super) fn flushes(&self) -> bool {
        !self.terms.etrn_domains.is_empty() && !self.client.submission
    }

    pub(super) fn etrn(&mut self, node: Node, actions: &mut Actions) {
        if !self.flushes() {
            return self.refuse(reply::NOT_OFFERED, actions);
        }
        if self.hello.is_none() {
            return self.refuse(reply::HELLO_FIRST, actions);
        }
        if !matches!(self.state, State::Idle) {
            return self.refuse(reply::ETRN_IN_MAIL, actions);
        }
        let flush = match node {
            Node::Domain(flush) => flush,
            Node::Queue(name) => return self.not_for(&name, "no such queue", actions),
        };
        let mut domains = self.terms.etrn_domains.iter();
        if !domains.any(|of| flush.domain().is_within(of)) {
            let why = "no mail is kept for it here";
            return self.not_for(&flush.to_string(), why, actions);
        }
        actions.push(Action::AskFlush(flush.clone()));
        self.enter(State::AskingFlush(flush));
    }

    fn not_for(&mut self, node: &str, why: &str, actions: &mut Actions) {
        let text = format!("Node <{}> not allowed: {why}", escape(node));
        let refusal = Reply::made(459, Some(Status::new(4, 7, 1)), text);
        self.log_reject("ETRN", &refusal, None, None, actions);
        self.refuse(refusal, actions);
    }

    pub(super) fn flush_answer(&mut self, answer: Result<(), Reply>, actions: &mut Actions) {
        let held = self.take(|state| match state {
            State::AskingFlush(flush) => Ok(flush),
            other => Err(other),
        });
        let Some(flush) = held else { return };
        if let Err(refusal) = answer {
            return actions.push(Action::Reply(refusal.about(&flush.to_string())));
        }
        let client = &self.client.shown;
        actions.push(Action::Log(format!("flush {flush}: asked for by {client}")));
        let text = format!("OK, queuing for node <{flush}> started");
        actions.push(Action::Reply(Reply::made(250, Some(Status::OK), text)));
    }
}
