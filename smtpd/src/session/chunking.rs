//! BDAT: the message in pieces of counted octets. RFC 3030 2
//!
//! The octets behind a BDAT are taken whether it is refused or not, so that session and client stay
//! in step. A refused piece ends the transaction: further ones are answered with 503.

use super::framing::keep;
use super::{Action, Actions, Session, Start, State};
use crate::command::Chunk;
use crate::reply::{self, Reply};

impl Session {
    pub(super) fn bdat(&mut self, chunk: Chunk, actions: &mut Actions) {
        let Chunk { size, last } = chunk;
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Mail(transaction) if transaction.len() > 0 => {
                actions.push(Action::AskData);
                return self.enter(State::AskingData(transaction, Start::Chunk { size, last }));
            }
            State::BetweenChunks(transaction, body) => {
                self.enter(State::Chunk(transaction, body, size, last));
            }
            other => {
                let refusal = match &other {
                    State::Mail(_) => reply::NO_RECIPIENTS,
                    _ => reply::MAIL_FIRST,
                };
                self.swallow_piece(size, refusal);
            }
        }
        self.empty_chunk(actions);
    }

    /// A piece that nobody wants comes first, up to what is taken of any message.
    pub(super) fn swallow_piece(&mut self, size: u64, refusal: Reply) {
        let most = self.limits().most();
        let is_last_word = size > most || matches!(refusal.code(), 421 | 521);
        self.enter(State::Swallow(size.min(most), refusal, is_last_word));
    }

    /// A piece without octets is over when it has begun.
    pub(super) fn empty_chunk(&mut self, actions: &mut Actions) {
        if let State::Chunk(_, _, 0, _) | State::Swallow(0, ..) = &self.state {
            self.swallow(&[], actions);
            self.chunk(&[], actions);
        }
    }

    /// Octets of a piece.
    pub(super) fn chunk(&mut self, rest: &[u8], actions: &mut Actions) -> usize {
        let State::Chunk(_, body, left, last) = &mut self.state else {
            return 0;
        };
        let (now, last) = (up_to(rest, *left), *last);
        *left = left.saturating_sub(now.len() as u64);
        let ended = *left == 0;
        keep(body, actions, |body, out| {
            body.take(now, out);
            if ended && last {
                body.finish(out);
            }
        });
        if !ended && body.is_endless() {
            self.cut_off(actions);
        } else if ended && last {
            self.end_of_content(actions);
        } else if ended {
            self.next_chunk(actions);
        }
        now.len()
    }

    fn next_chunk(&mut self, actions: &mut Actions) {
        let held = self.take(|state| match state {
            State::Chunk(transaction, body, ..) => Ok((transaction, body)),
            other => Err(other),
        });
        let Some((transaction, body)) = held else {
            return;
        };
        match body.fault() {
            Some(fault) => self.refuse_content(&transaction, fault, actions),
            None => {
                let text = format!("Ok: {} octets", body.size());
                let status = Some(base::Status::OK);
                actions.push(Action::Reply(Reply::made(250, status, text)));
                self.enter(State::BetweenChunks(transaction, body));
            }
        }
    }

    /// Octets of a piece that nobody wants.
    pub(super) fn swallow(&mut self, rest: &[u8], actions: &mut Actions) -> usize {
        let State::Swallow(left, refusal, is_last_word) = &mut self.state else {
            return 0;
        };
        let now = up_to(rest, *left);
        *left = left.saturating_sub(now.len() as u64);
        if *left == 0 {
            let (refusal, is_last_word) = (refusal.clone(), *is_last_word);
            self.enter(State::Idle);
            match is_last_word {
                true => self.part(refusal, actions),
                false => self.refuse(refusal, actions),
            }
        }
        now.len()
    }
}

fn up_to(rest: &[u8], octets: u64) -> &[u8] {
    let octets = usize::try_from(octets).unwrap_or(usize::MAX);
    rest.get(..octets).unwrap_or(rest)
}
