//! The end of an attempt: what was found out about a message's recipients is written into its
//! journal, made into new messages, told to the sender and to the log; then the message waits for
//! its next attempt or leaves the lane.
//!
//! Guarantees: nothing leaves before its outcome is durable. On an error the entry is let go as it
//! is, and the next claim goes on from what the journal has.

use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, SystemTime};

use base::{Address, Doing, Envelope, Fail, Recipient, Status};
use bounce::{About, Reporter};
use queue::{Attempt, Entry, Event, Lane, Spawn};

use crate::header::Head;
use crate::message::Rest;
use crate::plan::{Child, Step};
use crate::report::Line;
use crate::schedule::{self, Trouble};
use crate::worker::LOCKED;

/// What concluding needs besides the message.
pub(crate) struct Ending<'a> {
    pub(crate) reporter: &'a Reporter,
    pub(crate) lifetime: Duration,
}

impl Ending<'_> {
    /// Does what is left to do. Gives the time of the next attempt, if there is one.
    pub(crate) fn conclude(&self, rest: Rest) -> Result<Option<SystemTime>, Fail> {
        let Rest {
            mut entry,
            mut verdicts,
        } = rest;
        verdicts.sort_by_key(|(recipient, _)| *recipient);
        let now = SystemTime::now();
        let mut events = Vec::new();
        let mut lines = Vec::new();
        let mut elsewhere = Vec::new();
        let mut due: Option<SystemTime> = None;
        for (recipient, step) in verdicts {
            match self.outcome(&entry, recipient, step, now) {
                Outcome::Event(event, line) => {
                    if let Event::Deferred { next, .. } = *event {
                        due = Some(due.map_or(next, |due| due.min(next)));
                    }
                    events.push(*event);
                    lines.extend(line);
                }
                Outcome::Elsewhere => elsewhere.push(recipient),
                Outcome::Spread { children, to } => spread(&mut entry, recipient, children, &to)?,
            }
        }
        // Made durable by what follows: a child, a move, the next attempt's time or the end.
        entry.record(&events)?;
        lines.iter().for_each(Line::say);
        self.reporter.report(&mut entry, About::Failures)?;
        self.reporter.report(&mut entry, About::Deliveries)?;
        let pending = entry
            .recipients()
            .iter()
            .filter(|r| r.outcome.is_pending())
            .count();
        let id = *entry.id();
        if !elsewhere.is_empty() && elsewhere.len() == pending {
            log::info!("{id}: handed over to relay");
            return entry.hand_over(Lane::Relay).map(|()| None);
        }
        if !elsewhere.is_empty() {
            pass_on(&mut entry, &elsewhere)?;
        }
        if entry.recipients().iter().any(|r| r.outcome.is_pending()) {
            let soon = schedule::next(entry.ready_at(), now, Trouble::Other);
            let due = due.unwrap_or(soon);
            entry.sync()?;
            return entry.set_due(due).map(|()| Some(due));
        }
        entry.finish()?;
        log::info!("{id}: removed");
        Ok(None)
    }

    fn outcome(&self, entry: &Entry, recipient: usize, step: Step, now: SystemTime) -> Outcome {
        let line = |status, text: &str| Line::new(entry, recipient, now, status, text);
        match step {
            Step::Fail { status, text } => {
                let line = line(status, &text);
                Outcome::event(
                    Event::Failed {
                        recipient,
                        attempt: attempt(status, text),
                    },
                    line,
                )
            }
            Step::Defer { text, .. } if schedule::expired(entry.ready_at(), now, self.lifetime) => {
                // RFC 3463: the class is that of the outcome now.
                let status = Status::EXPIRED.with_class(5);
                let text = format!("delivery time expired, last: {text}");
                let line = line(status, &text);
                Outcome::event(
                    Event::Failed {
                        recipient,
                        attempt: attempt(status, text),
                    },
                    line,
                )
            }
            Step::Defer { status, text } => {
                let trouble = if status == LOCKED {
                    Trouble::Locked
                } else {
                    Trouble::Other
                };
                let next = schedule::next(entry.ready_at(), now, trouble);
                let line = line(status, &text);
                let attempt = attempt(status, text);
                Outcome::event(
                    Event::Deferred {
                        recipient,
                        attempt,
                        next,
                    },
                    line,
                )
            }
            Step::Discard => {
                let line = line(Status::OK, "discarded");
                let attempt = attempt(Status::OK, "discarded".to_owned());
                Outcome::event(Event::Delivered { recipient, attempt }, line)
            }
            Step::Spread {
                children,
                to,
                refused,
            } => {
                for what in refused {
                    log::error!("{}: alias {to}: no copy to {what}", entry.id());
                }
                Outcome::Spread { children, to }
            }
            Step::Elsewhere => Outcome::Elsewhere,
            // Answered by the thread that had the mailbox; here only if that went wrong unseen.
            Step::Deliver { .. } => {
                let text = "not delivered in this attempt".to_owned();
                let next = schedule::next(entry.ready_at(), now, Trouble::Other);
                let line = line(Status::SYSTEM, &text);
                let attempt = attempt(Status::SYSTEM, text);
                Outcome::event(
                    Event::Deferred {
                        recipient,
                        attempt,
                        next,
                    },
                    line,
                )
            }
        }
    }
}

enum Outcome {
    Event(Box<Event>, Option<Line>),
    Elsewhere,
    Spread { children: Vec<Child>, to: Address },
}

impl Outcome {
    fn event(event: Event, line: Option<Line>) -> Self {
        Self::Event(Box::new(event), line)
    }
}

fn attempt(status: Status, reply: String) -> Attempt {
    Attempt {
        status,
        reply,
        host: None,
    }
}

/// New messages in the place of a recipient.
fn spread(
    entry: &mut Entry,
    recipient: usize,
    children: Vec<Child>,
    to: &Address,
) -> Result<(), Fail> {
    let mut sealed = Vec::new();
    let mut count: usize = 0;
    for child in children {
        count = count.saturating_add(child.recipients.len());
        let parent = entry.envelope();
        let envelope = match child.reverse_path {
            Some(owner) => Envelope::new(owner, child.recipients),
            None => Envelope {
                recipients: child.recipients,
                ..parent.clone()
            },
        };
        let envelope = Envelope {
            body: parent.body,
            needs: parent.needs,
            ..envelope
        };
        let mut draft = entry.child(child.lane, &envelope)?;
        let mut content = entry.content();
        let doing = || format!("read message {}", entry.id());
        let head = Head::read(&mut content).doing(doing)?;
        draft.write(&head.with_delivered_to(to))?;
        content.seek(SeekFrom::Start(head.length())).doing(doing)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = content.read(&mut buffer).doing(doing)?;
            match buffer.get(..length) {
                Some([]) | None => break,
                Some(part) => draft.write(part)?,
            }
        }
        sealed.push(draft.finish()?);
    }
    let ids = entry.spawn(
        sealed,
        Spawn::Became {
            recipients: vec![recipient],
        },
    )?;
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let text = format!("expanded to {count}, forwarded as {}", ids.join(" "));
    Line::new(entry, recipient, SystemTime::now(), Status::OK, &text)
        .iter()
        .for_each(Line::say);
    Ok(())
}

/// Recipients that are not ours any more, while others still are: a message of their own.
fn pass_on(entry: &mut Entry, indexes: &[usize]) -> Result<(), Fail> {
    let parent = entry.envelope();
    let recipients: Vec<Recipient> = indexes
        .iter()
        .filter_map(|i| entry.recipients().get(*i))
        .map(|state| state.recipient.clone())
        .collect();
    let envelope = Envelope {
        recipients,
        ..parent.clone()
    };
    let mut draft = entry.child(Lane::Relay, &envelope)?;
    let mut content = entry.content();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = content
            .read(&mut buffer)
            .doing(|| format!("read message {}", entry.id()))?;
        match buffer.get(..length) {
            Some([]) | None => break,
            Some(part) => draft.write(part)?,
        }
    }
    let sealed = draft.finish()?;
    let ids = entry.spawn(
        vec![sealed],
        Spawn::Became {
            recipients: indexes.to_vec(),
        },
    )?;
    for (recipient, id) in indexes.iter().flat_map(|i| ids.first().map(|id| (*i, id))) {
        let text = format!("forwarded as {id}");
        Line::new(entry, recipient, SystemTime::now(), Status::OK, &text)
            .iter()
            .for_each(Line::say);
    }
    Ok(())
}
