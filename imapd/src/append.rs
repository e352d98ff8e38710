//! APPEND (RFC 3501 6.3.11): a message goes to the store in pieces as it comes.
//!
//! A message that is refused although the client sends it all the same (LITERAL+) is passed over to
//! its end, so that nothing in it is taken for a command.

use store::request::{Answer, Failed, Request, Why};

use crate::command::Append;
use crate::fetch::unexpected;
use crate::framer::{Frame, Framer, Limit};
use crate::response::line;
use crate::session::{Actions, Session, Task, refusal};

/// The most octets passed to the store at once.
const PIECE: u64 = 256 << 10;

/// An APPEND at work.
#[derive(Debug)]
pub(crate) struct Appending {
    tag: String,
    /// Octets of the message that have not come.
    left: u64,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The store is being told; `waits` when the client then is.
    Beginning { waits: bool },
    /// Octets are wanted.
    Receiving,
    /// Some are on their way to the store.
    Passing,
    /// The end of the command line is wanted.
    LineEnd,
    /// The store makes it durable.
    Ending,
    /// The store forgets it; the response is ready.
    Aborting(String),
}

impl Appending {
    pub(crate) fn wants_input(&self) -> bool {
        matches!(self.phase, Phase::Receiving | Phase::LineEnd)
    }
}

impl Session {
    pub(crate) fn append(&mut self, append: Append, size: u64, waits: bool, actions: &mut Actions) {
        let Append {
            tag,
            mailbox,
            flags,
            date,
        } = append;
        let limit = self.options.message_size;
        let refused = match mailbox {
            None => "NO [CANNOT] No mailbox can have this name".to_owned(),
            Some(_) if size > limit => format!("NO [TOOBIG] A message may have {limit} octets"),
            Some(_) if size == 0 => "NO A message of nothing is not stored".to_owned(),
            Some(folder) => {
                let (flags, keywords) = (flags.flags, flags.keywords);
                let request = Request::Append {
                    folder,
                    flags,
                    keywords,
                    date,
                    size,
                };
                let phase = Phase::Beginning { waits };
                let task = Task::Appending(Appending {
                    tag,
                    left: size,
                    phase,
                });
                return self.ask(task, request, actions);
            }
        };
        if !waits {
            self.framer.discard(size);
        }
        self.finish(&tag, &refused, true, actions);
    }

    pub(crate) fn append_input(&mut self, bytes: &[u8], actions: &mut Actions) -> usize {
        let Task::Appending(appending) = &mut self.task else {
            return 0;
        };
        if matches!(appending.phase, Phase::LineEnd) {
            return self.append_line(bytes, actions);
        }
        let most = usize::try_from(appending.left.min(PIECE)).unwrap_or(usize::MAX);
        let piece = bytes.get(..bytes.len().min(most)).unwrap_or_default();
        appending.left = appending.left.saturating_sub(piece.len() as u64);
        appending.phase = Phase::Passing;
        actions
            .next
            .push(crate::session::Action::Ask(Request::AppendData(
                piece.to_vec(),
            )));
        piece.len()
    }

    fn append_line(&mut self, bytes: &[u8], actions: &mut Actions) -> usize {
        let (took, frame) = self.framer.feed(bytes, Limit::AFTER_LOGIN, false, false);
        let end = match frame {
            Frame::Partial => return took,
            Frame::Command(rest) => rest.is_empty(),
            Frame::Continue | Frame::Append { .. } => {
                self.framer = Framer::new();
                false
            }
            Frame::Bad { .. } => false,
        };
        let Task::Appending(mut appending) = std::mem::replace(&mut self.task, Task::Ready) else {
            return took;
        };
        let request = if end {
            appending.phase = Phase::Ending;
            Request::AppendEnd
        } else {
            appending.phase = Phase::Aborting("BAD Expected the end of the command".into());
            Request::AppendAbort
        };
        self.ask(Task::Appending(appending), request, actions);
        took
    }

    pub(crate) fn append_answer(
        &mut self,
        mut appending: Appending,
        answer: Answer,
        actions: &mut Actions,
    ) {
        match (
            std::mem::replace(&mut appending.phase, Phase::Receiving),
            answer,
        ) {
            (Phase::Aborting(response), _) => {
                return self.finish(&appending.tag, &response, true, actions);
            }
            (Phase::Beginning { waits }, Answer::Done) => {
                if waits {
                    line(&mut actions.output, "+ Ready for the message");
                }
            }
            (Phase::Passing, Answer::Done) => {
                if appending.left == 0 {
                    appending.phase = Phase::LineEnd;
                }
            }
            (Phase::Ending, Answer::Appended { uidvalidity, uid }) => {
                let text = match uid {
                    0 => "OK APPEND completed".into(),
                    uid => format!("OK [APPENDUID {uidvalidity} {uid}] APPEND completed"),
                };
                return self.finish(&appending.tag, &text, true, actions);
            }
            (phase, Answer::Failed(failed)) => {
                return self.append_failed(&appending, &phase, &failed, actions);
            }
            (phase, other) => {
                let failed = unexpected(&other);
                return self.append_failed(&appending, &phase, &failed, actions);
            }
        }
        self.task = Task::Appending(appending);
    }

    fn append_failed(
        &mut self,
        appending: &Appending,
        phase: &Phase,
        failed: &Failed,
        actions: &mut Actions,
    ) {
        let sent = !matches!(phase, Phase::Ending | Phase::Beginning { waits: true });
        if sent {
            self.framer.discard(appending.left);
        }
        if failed.why == Why::Replaced {
            return self.replaced(actions);
        }
        self.finish(&appending.tag, &refusal(failed, true), true, actions);
    }
}
