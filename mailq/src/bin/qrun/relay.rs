//! One attempt at one entry: where its recipients go now, the conversations with the hosts there,
//! and what came of them in the journal, the log and the reports.
//!
//! Guarantees: an outcome is durable before the entry goes; a recipient that a server took is not
//! sent again, unless we die before that is recorded or the server's answer is lost. Our own
//! troubles are never the recipient's: they defer.

mod visit;

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use base::{Address, Envelope, Fail, Status};
use bounce::About;
use queue::{Attempt, Entry, Event, Lane, Outcome as Stands, Spawn};
use rules::{Mailer, NextHop, Route};

use crate::board::{Board, Ended};
use crate::client::Verdict;
use crate::destinations::Entrance;
use crate::forms::Forms;
use crate::intake;
use crate::report;
use crate::schedule;
use crate::world::World;

/// Journal records that are written at once.
const RECORDS: usize = 500;

/// One attempt.
pub(crate) struct Relay<'a> {
    world: &'a World,
    board: &'a Board,
    entry: Box<Entry>,
    /// When the turn began that goes on.
    since: Option<SystemTime>,
    now: SystemTime,
    /// When what is deferred now is tried again.
    next: SystemTime,
    /// The forms that it can go in, once they are known.
    forms: Option<Forms>,
    /// What was passed on to a server that does not report successes.
    unreported: Vec<usize>,
}

/// What the rules say of those who are left.
#[derive(Default)]
struct Plan {
    local: Vec<usize>,
    elsewhere: Vec<(NextHop, Vec<Way>)>,
    settled: Vec<Settled>,
}

/// Where one recipient is to go.
struct Way {
    recipient: usize,
    user: Address,
}

/// What an attempt came to for a recipient, before it is recorded.
struct Settled {
    recipient: usize,
    verdict: Verdict,
    host: Option<String>,
}

impl<'a> Relay<'a> {
    /// `since`: the turn that began then goes on, for those who waited for a place.
    pub(crate) fn new(
        world: &'a World,
        board: &'a Board,
        entry: Box<Entry>,
        since: Option<SystemTime>,
    ) -> Self {
        let now = SystemTime::now();
        let random = getrandom::u32().unwrap_or(0);
        let next = world.backoff.next(entry.ready_at(), now, random);
        Self {
            world,
            board,
            entry,
            since,
            now,
            next,
            forms: None,
            unreported: Vec::new(),
        }
    }

    /// Tries every recipient that is left.
    pub(crate) fn run(mut self) -> Result<Ended, Fail> {
        let Plan {
            local,
            elsewhere,
            mut settled,
        } = self.plan()?;
        if elsewhere.is_empty() && settled.is_empty() && !local.is_empty() {
            self.report()?;
            log::info!("{}: handed over to local", self.entry.id());
            self.entry.hand_over(Lane::Local)?;
            return Ok(Ended::Finished);
        }
        self.pass_on(local)?;
        let mut full = None;
        for (next, ways) in elsewhere {
            match self.board.enter(&next) {
                Entrance::Open => settled.extend(self.visit(&next, &ways)?),
                Entrance::Full => full = Some(next),
                Entrance::Dead { why, .. } => {
                    let text = format!("delivery temporarily suspended: {why}");
                    let verdict = Verdict {
                        status: Status::NO_ANSWER,
                        text,
                    };
                    settled.extend(all(&ways, &verdict, None));
                }
            }
        }
        self.conclude(settled, full)
    }

    /// Asks the rules about everybody who is left.
    fn plan(&self) -> Result<Plan, Fail> {
        let mut plan = Plan::default();
        let mut places: HashMap<NextHop, usize> = HashMap::new();
        let filter = self.entry.envelope().filter.as_ref();
        let filter = filter.map(|filter| self.world.router.host(filter.host()));
        let looping = intake::is_looping(&self.entry, self.world.hop_limit)?;
        for (recipient, state) in self.entry.recipients().iter().enumerate() {
            if !state.outcome.is_pending() || self.had_its_turn(&state.outcome) {
                continue;
            }
            let mut settle = |status, text| {
                plan.settled.push(Settled {
                    recipient,
                    verdict: Verdict { status, text },
                    host: None,
                });
            };
            if looping {
                settle(Status::LOOP, "too many hops, this is a mail loop".into());
                continue;
            }
            let address = &state.recipient.address;
            let route = match &filter {
                // Whoever they are; it brings the message back.
                Some(next) => Route::by(next.clone(), address),
                None => self.world.router.route(address),
            };
            match route.mailer {
                Mailer::Local { .. } => plan.local.push(recipient),
                Mailer::Error { status, text } => settle(status, text),
                Mailer::Discard => settle(Status::OK, "discarded".into()),
                Mailer::Relay { next } => {
                    let way = Way {
                        recipient,
                        user: route.user,
                    };
                    let new = plan.elsewhere.len();
                    let place = *places.entry(next.clone()).or_insert(new);
                    match plan.elsewhere.get_mut(place) {
                        Some((_, ways)) => ways.push(way),
                        None => plan.elsewhere.push((next, vec![way])),
                    }
                }
            }
        }
        Ok(plan)
    }

    /// Whether a recipient was tried in this turn, before the entry waited for a place elsewhere.
    fn had_its_turn(&self, stands: &Stands) -> bool {
        let last = match stands {
            Stands::Pending { last } => last.as_ref().map(|(at, _)| *at),
            _ => None,
        };
        self.since
            .zip(last)
            .is_some_and(|(since, last)| last >= since)
    }

    /// Records what is deferred, tells the sender what failed, and lets the entry go or wait.
    fn conclude(mut self, settled: Vec<Settled>, full: Option<NextHop>) -> Result<Ended, Fail> {
        self.settle(settled)?;
        self.report()?;
        if !self
            .entry
            .recipients()
            .iter()
            .any(|s| s.outcome.is_pending())
        {
            let id = *self.entry.id();
            self.entry.finish()?;
            log::info!("{id}: removed");
            return Ok(Ended::Finished);
        }
        // What was deferred earlier in this turn has its time already.
        let due = match self.entry.due() {
            due if self.since.is_some() && due > self.now => due,
            _ => self.next,
        };
        self.entry.set_due(due)?;
        Ok(full.map_or(Ended::Due(due), Ended::Waits))
    }

    fn report(&mut self) -> Result<(), Fail> {
        self.world
            .reporter
            .report(&mut self.entry, About::Failures)?;
        let unreported = std::mem::take(&mut self.unreported);
        self.world
            .reporter
            .report(&mut self.entry, About::Relayed(&unreported))?;
        Ok(())
    }

    /// Recipients that are ours by now, while others are not: a message of their own.
    fn pass_on(&mut self, recipients: Vec<usize>) -> Result<(), Fail> {
        if recipients.is_empty() {
            return Ok(());
        }
        let parent = self.entry.envelope();
        let states = self.entry.recipients();
        let chosen = recipients.iter().filter_map(|i| states.get(*i));
        let envelope = Envelope {
            recipients: chosen.map(|s| s.recipient.clone()).collect(),
            ..parent.clone()
        };
        let mut draft = self.entry.child(Lane::Local, &envelope)?;
        std::io::copy(&mut self.entry.content(), &mut Writing(&mut draft))
            .map_err(|e| Fail::io(format!("copy message {}", self.entry.id()), e))?;
        let sealed = draft.finish()?;
        let became = Spawn::Became { recipients };
        for id in self.entry.spawn(vec![sealed], became)? {
            log::info!("{}: local recipients go on as {id}", self.entry.id());
        }
        Ok(())
    }

    /// Records what an attempt came to for all of these, with one sync.
    fn settle(&mut self, settled: Vec<Settled>) -> Result<(), Fail> {
        let (events, lines): (Vec<Event>, Vec<String>) =
            settled.into_iter().map(|one| self.outcome(one)).unzip();
        self.write(&events)?;
        lines.iter().for_each(|line| log::info!("{line}"));
        Ok(())
    }

    /// What one recipient's verdict means, for the journal and the log: class 4 is for another
    /// time, unless the message is too old.
    fn outcome(&self, settled: Settled) -> (Event, String) {
        let Settled {
            recipient,
            verdict: Verdict { status, text },
            host,
        } = settled;
        let old = schedule::is_expired(self.entry.ready_at(), self.now, self.world.lifetime);
        let (status, text) = match (status.class(), old) {
            (4, true) => {
                // RFC 3463 3.5: the message failed now, and for this reason.
                let said = host
                    .as_ref()
                    .map_or(String::new(), |h| format!("{h} said: "));
                (
                    Status::EXPIRED.with_class(5),
                    format!("delivery time expired, last: {said}{text}"),
                )
            }
            _ => (status, text),
        };
        let line = self.line(recipient, host.as_deref(), status, &text);
        let attempt = Attempt {
            status,
            reply: text,
            host,
        };
        let event = match status.class() {
            2 => Event::Delivered { recipient, attempt },
            4 => Event::Deferred {
                recipient,
                attempt,
                next: self.next,
            },
            _ => Event::Failed { recipient, attempt },
        };
        (event, line)
    }

    /// Into the journal, durably where anything is final.
    fn write(&mut self, events: &[Event]) -> Result<(), Fail> {
        for some in events.chunks(RECORDS) {
            self.append(some)?;
        }
        let is_final = |event: &Event| !matches!(event, Event::Deferred { .. });
        // The end of a message is durable by itself.
        let goes_on = self
            .entry
            .recipients()
            .iter()
            .any(|s| s.outcome.is_pending());
        if goes_on && events.iter().any(is_final) {
            self.entry.sync()?;
        }
        Ok(())
    }

    /// While the journal cannot be written nobody sends, and what is known stays known here until
    /// it can.
    fn append(&mut self, events: &[Event]) -> Result<(), Fail> {
        let mut pause = Duration::from_secs(1);
        while let Err(fail) = self.entry.record(events) {
            log::error!("{fail}; nothing is sent until that can be recorded");
            if self.board.is_stopping() {
                return Err(fail);
            }
            self.board.pause(pause.saturating_mul(2));
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(Duration::from_secs(30));
        }
        Ok(())
    }

    fn line(&self, recipient: usize, host: Option<&str>, status: Status, text: &str) -> String {
        let id = self.entry.id();
        let delay = self.now_delay();
        let to = self.entry.recipients().get(recipient).map(|s| &s.recipient);
        report::line(id, to, host, delay, status, text)
    }

    fn now_delay(&self) -> Duration {
        SystemTime::now()
            .duration_since(self.entry.ready_at())
            .unwrap_or_default()
    }
}

/// The same for all.
fn all<'w>(
    ways: impl IntoIterator<Item = &'w Way>,
    verdict: &Verdict,
    host: Option<&str>,
) -> Vec<Settled> {
    let one = |way: &Way| Settled {
        recipient: way.recipient,
        verdict: verdict.clone(),
        host: host.map(Into::into),
    };
    ways.into_iter().map(one).collect()
}

/// A draft as a writer.
struct Writing<'a>(&'a mut queue::Draft);

impl std::io::Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
