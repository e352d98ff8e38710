//! A connection's way to its user's mail: a store session that takes turns with the pool, or a
//! worker process behind a socket. One request at a time.

use net::Control;
use store::request::{Answer, Request};
use store::{Session, wire};

use crate::serve::Done;

/// The way to the mail.
pub(crate) enum Mail {
    /// Nobody has logged in, or a job has the session.
    Away,
    /// The spool is read here.
    Pool(Box<Session>),
    /// Octets of a frame that is not whole.
    Worker(Vec<u8>),
}

/// The worker said what no worker says.
#[derive(Debug)]
pub(crate) struct Nonsense;

impl Mail {
    /// Asks; `false` when there is nobody to ask.
    pub(crate) fn ask(&mut self, request: Request, control: &mut Control<'_, Done>) -> bool {
        if let Self::Worker(_) = self {
            let frame = request.encode();
            let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            control.side_write(&length.to_be_bytes());
            control.side_write(&frame);
            return true;
        }
        let Self::Pool(mut session) = std::mem::replace(self, Self::Away) else {
            return false;
        };
        control.job(move || {
            let answer = session.handle(request);
            Done::Store(session, answer)
        });
        true
    }

    /// Octets from the worker; the answers that they complete.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Answer>, Nonsense> {
        let Self::Worker(partial) = self else {
            return Err(Nonsense);
        };
        if let Some(size) = wire::frame_size(partial) {
            partial.reserve(size.saturating_sub(partial.len()));
        }
        partial.extend_from_slice(bytes);
        let mut answers = Vec::new();
        let mut at = 0;
        while let Some((frame, length)) =
            wire::split_frame(partial.get(at..).unwrap_or_default()).map_err(|_| Nonsense)?
        {
            answers.push(Answer::decode(frame).ok_or(Nonsense)?);
            at += length;
        }
        partial.drain(..at);
        if partial.is_empty() {
            // A session between two commands keeps no buffer.
            *partial = Vec::new();
        }
        Ok(answers)
    }
}
