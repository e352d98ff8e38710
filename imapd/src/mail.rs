//! A connection's way to its user's mail: a store session that takes turns with the pool, or a worker
//! process behind a socket.

use std::collections::VecDeque;

use net::{Control, Handle};
use store::request::{Answer, MAX_FRAME, Request};
use store::watch::Watch;
use store::{Session, Watcher, wire};

use crate::serve::Done;

/// The way to the mail.
pub(crate) enum Mail {
    /// Nobody has logged in.
    None,
    /// The spool is read here; `session` is away while a job has it.
    Pool {
        session: Option<Box<Session>>,
        watcher: Option<Watcher>,
        watch: Option<Watch>,
    },
    Worker(Worker),
}

/// What is under way with a worker.
#[derive(Default)]
pub(crate) struct Worker {
    /// Octets of a frame that is not whole.
    partial: Vec<u8>,
    /// For each request that is unanswered: whether the session waits for the answer.
    asked: VecDeque<bool>,
}

/// What came from a worker.
#[derive(Debug)]
pub(crate) enum News {
    Answer(Answer),
    Changed,
}

/// The worker said what no worker says.
#[derive(Debug)]
pub(crate) struct Nonsense;

impl Mail {
    /// Asks; false when there is nobody to ask.
    pub(crate) fn ask(&mut self, request: Request, control: &mut Control<'_, Done>) -> bool {
        match self {
            Self::None => false,
            Self::Pool { session, .. } => {
                let Some(mut session) = session.take() else {
                    return false;
                };
                control.job(move || {
                    let answer = session.handle(request);
                    Done::Store(session, answer)
                });
                true
            }
            Self::Worker(worker) => {
                worker.send(&request, true, control);
                true
            }
        }
    }

    /// A job has brought the session back.
    pub(crate) fn back(&mut self, returned: Box<Session>) {
        if let Self::Pool { session, .. } = self {
            *session = Some(returned);
        }
    }

    /// Whether [`Done::Changed`] or [`News::Changed`] is wanted.
    pub(crate) fn watch(&mut self, on: bool, control: &mut Control<'_, Done>) {
        match self {
            Self::Pool { watch, .. } if !on => *watch = None,
            Self::Pool {
                session: Some(session),
                watcher: Some(watcher),
                watch,
            } => {
                let handle: Handle<Done> = control.handle();
                let changed = move || handle.post(Done::Changed);
                match watcher.watch(&session.paths(), changed) {
                    Ok(new) => *watch = Some(new),
                    // The ticks of IDLE find changes too, only later.
                    Err(fail) => log::warn!("{fail}"),
                }
            }
            Self::Worker(worker) => worker.send(&Request::Watch(on), false, control),
            Self::None | Self::Pool { .. } => {}
        }
    }
}

impl Worker {
    fn send(&mut self, request: &Request, waits: bool, control: &mut Control<'_, Done>) {
        let frame = request.encode();
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        control.side_write(&length.to_be_bytes());
        control.side_write(&frame);
        self.asked.push_back(waits);
    }

    /// Octets from the worker; what they complete is added to `news`.
    pub(crate) fn receive(&mut self, bytes: &[u8], news: &mut Vec<News>) -> Result<(), Nonsense> {
        if let Some(size) = wire::frame_size(&self.partial) {
            self.partial
                .reserve(size.saturating_sub(self.partial.len()));
        }
        self.partial.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((length, rest)) = self
            .partial
            .get(at..)
            .and_then(<[u8]>::split_first_chunk::<4>)
        {
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Nonsense)?;
            if length > MAX_FRAME {
                return Err(Nonsense);
            }
            let Some(frame) = rest.get(..length) else {
                break;
            };
            at += 4 + length;
            match Answer::decode(frame).ok_or(Nonsense)? {
                Answer::Changed => news.push(News::Changed),
                answer => {
                    if self.asked.pop_front().ok_or(Nonsense)? {
                        news.push(News::Answer(answer));
                    }
                }
            }
        }
        self.partial.drain(..at);
        if self.partial.is_empty() {
            // An idle session keeps no buffer.
            self.partial = Vec::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(answers: &[Answer]) -> Vec<u8> {
        let frame = |answer: &Answer| {
            let bytes = answer.encode();
            let length = u32::try_from(bytes.len()).unwrap();
            [&length.to_be_bytes()[..], &bytes].concat()
        };
        answers.iter().flat_map(frame).collect()
    }

    #[test]
    fn answers_come_in_any_pieces() {
        let bytes = frames(&[
            Answer::Done,
            Answer::Changed,
            Answer::Folders(vec![]),
            Answer::Changed,
        ]);
        for size in 1..=bytes.len() {
            // The first request was a watch, for whose answer nobody waits.
            let mut worker = Worker {
                partial: vec![],
                asked: [false, true].into(),
            };
            let mut news = Vec::new();
            for piece in bytes.chunks(size) {
                worker.receive(piece, &mut news).unwrap();
            }
            let [
                News::Changed,
                News::Answer(Answer::Folders(_)),
                News::Changed,
            ] = news.as_slice()
            else {
                panic!("{news:?}");
            };
        }
    }

    #[test]
    fn nonsense_is_seen() {
        let mut news = Vec::new();
        // An answer nobody asked for, a frame that is none, one too long.
        for bytes in [frames(&[Answer::Done]), vec![0, 0, 0, 1, 255], vec![255; 4]] {
            assert!(Worker::default().receive(&bytes, &mut news).is_err());
        }
        assert!(news.is_empty());
    }
}
