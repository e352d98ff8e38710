//! What the client's octets are: a line, a part of a message, or nothing that we want. Lines end in
//! CRLF and are bounded (RFC 5321 4.5.3.1); where an end of line is not to be known the session ends.

use net::line::{self, Line, Skip};

use super::{Action, Actions, Session, State, Transaction};
use crate::auth;
use crate::body::{Body, Fault};
use crate::reply::{self, Reply};

/// Octets of a command line, CRLF included. RFC 5321 4.5.3.1.4 says 512, and more for parameters.
const MAX_COMMAND: usize = 2048;

impl Session {
    pub(super) fn bytes(&mut self, input: &[u8], actions: &mut Actions) -> usize {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            let consumed = match self.state {
                State::Body(..) => self.content(rest, actions),
                State::Chunk(..) => self.chunk(rest, actions),
                State::Swallow(..) => self.swallow(rest, actions),
                State::Greeting => {
                    self.out_of_turn(rest, actions);
                    return input.len();
                }
                _ if self.is_waiting() => break,
                State::Closed => return input.len(),
                _ if self.skipping => self.skip(rest, actions),
                _ => self.line(rest, actions),
            };
            if consumed == 0 {
                break;
            }
            at = at.saturating_add(consumed);
            self.leave(actions);
        }
        at
    }

    pub(super) fn line(&mut self, rest: &[u8], actions: &mut Actions) -> usize {
        // A TLS hello or other binary talk has no lines to wait for.
        if self.hello.is_none() && rest.first().is_some_and(|b| *b < b'\t' || *b == 0x16) {
            self.hang_up(rest, actions);
            return rest.len();
        }
        let max = match self.state {
            State::AuthLine(_) => auth::MAX_LINE,
            // A token is long, and clients send it with the command whatever RFC 4954 4 says.
            _ if auth::is_begun(rest) => auth::MAX_LINE,
            _ => MAX_COMMAND,
        };
        match line::next(rest, max) {
            Line::Partial => 0,
            Line::Complete(line, consumed) => {
                match self.state {
                    State::AuthLine(_) => self.auth_line(line, actions),
                    _ => self.command(line, rest.get(consumed..).unwrap_or_default(), actions),
                }
                consumed
            }
            Line::TooLong(consumed) => {
                self.log_improper(&reply::LINE_TOO_LONG, rest, actions);
                self.skipping = true;
                consumed
            }
            Line::BareCr(end) | Line::BareLf(end) => {
                // Where its lines end is not to be known: there is no way to go on.
                let line = rest.get(..end).unwrap_or(rest);
                self.log_improper(&reply::BARE_LINE_END, line, actions);
                self.part(reply::BARE_LINE_END, actions);
                rest.len()
            }
        }
    }

    pub(super) fn skip(&mut self, rest: &[u8], actions: &mut Actions) -> usize {
        match line::skip(rest) {
            Skip::More(consumed) => consumed,
            Skip::Ended(consumed) => {
                self.skipping = false;
                if matches!(self.state, State::AuthLine(_)) {
                    actions.push(Action::AbandonAuth);
                    self.enter(State::Idle);
                }
                self.refuse(reply::LINE_TOO_LONG, actions);
                consumed
            }
        }
    }

    pub(super) fn content(&mut self, rest: &[u8], actions: &mut Actions) -> usize {
        let State::Body(_, body) = &mut self.state else {
            return 0;
        };
        let mut consumed = 0;
        keep(body, actions, |body, out| consumed = body.take(rest, out));
        if body.is_ended() {
            self.end_of_content(actions);
        } else if body.is_endless() {
            self.cut_off(actions);
        }
        consumed
    }

    pub(super) fn end_of_content(&mut self, actions: &mut Actions) {
        let held = self.take(|state| match state {
            State::Body(transaction, body) | State::Chunk(transaction, body, ..) => {
                Ok((transaction, body))
            }
            other => Err(other),
        });
        let Some((transaction, body)) = held else {
            return;
        };
        let size = body.size();
        let Some(fault) = body.fault() else {
            actions.push(Action::Commit);
            self.enter(State::Committing(transaction, size));
            return;
        };
        self.refuse_content(&transaction, fault, actions);
    }

    /// A message that is refused does not end. Its sender may still read why.
    pub(super) fn cut_off(&mut self, actions: &mut Actions) {
        let held = self.take(|state| match state {
            State::Body(transaction, body) | State::Chunk(transaction, body, ..) => {
                Ok((transaction, body))
            }
            other => Err(other),
        });
        let Some((transaction, body)) = held else {
            return;
        };
        let refusal = refusal_of(body.fault().unwrap_or(Fault::TooBig));
        let from = transaction.reverse_path.to_string();
        self.log_reject("DATA", &refusal, Some(&from), None, actions);
        actions.push(Action::Forget);
        self.part(refusal, actions);
    }

    pub(super) fn refuse_content(
        &mut self,
        transaction: &Transaction,
        fault: Fault,
        actions: &mut Actions,
    ) {
        let refusal = refusal_of(fault);
        let from = transaction.reverse_path.to_string();
        self.log_reject("END-OF-MESSAGE", &refusal, Some(&from), None, actions);
        actions.push(Action::Forget);
        self.refuse(refusal, actions);
    }
}

fn refusal_of(fault: Fault) -> Reply {
    match fault {
        Fault::BareLineEnd => reply::BARE_IN_BODY,
        Fault::LineTooLong => reply::BODY_LINE_TOO_LONG,
        Fault::TooBig => reply::TOO_BIG,
        Fault::Loop => reply::LOOP,
    }
}

/// Decodes more of a message and passes on what is good; with its first fault all of it is dropped.
pub(super) fn keep(
    body: &mut Body,
    actions: &mut Actions,
    decode: impl FnOnce(&mut Body, &mut Vec<u8>),
) {
    let mut out = Vec::new();
    let was_good = body.fault().is_none();
    decode(body, &mut out);
    match body.fault() {
        Some(_) if was_good => actions.push(Action::Discard),
        None if !out.is_empty() => actions.push(Action::Append(out)),
        _ => {}
    }
}
