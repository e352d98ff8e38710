//! One attempt at one entry: where its recipients go now, the conversations with the hosts there,
//! and what came of them in the journal, the log and the reports.
//!
//! Guarantees: an outcome is durable before the entry goes; a recipient that a server took is not
//! sent again, unless we die before that is recorded or the server's answer is lost. Our own
//! troubles are never the recipient's: they defer.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use base::{Address, Envelope, Fail, Status};
use bounce::About;
use dns::{NoTarget, Target};
use queue::{Attempt, Entry, Event, Lane, Spawn};
use rules::{Mailer, NextHop};

use crate::board::{Board, Ended};
use crate::client::{Outcome, Progress, Verdict};
use crate::destinations::{Entrance, Visit};
use crate::mail::Mail;
use crate::report;
use crate::schedule;
use crate::session::{self, Ours};
use crate::world::World;

/// Hosts that are tried in one attempt.
const MAX_HOSTS: usize = 5;
/// Recipients of one transaction: RFC 5321 4.5.3.1.8 lets a server stop here.
const MAX_RECIPIENTS: usize = 100;
/// Transactions with one host in one attempt, where it takes a part of the recipients each time.
const MAX_ROUNDS: usize = 20;
/// The pause after a trouble of our own.
const OWN_TROUBLE: Duration = Duration::from_secs(60);

/// One attempt.
pub(crate) struct Relay<'a> {
    world: &'a World,
    board: &'a Board,
    entry: Box<Entry>,
    now: SystemTime,
    /// When what is deferred now is tried again.
    next: SystemTime,
    /// What was passed on to a server that does not report successes.
    unreported: Vec<usize>,
}

/// Where one recipient is to go.
struct Way {
    recipient: usize,
    user: Address,
}

/// What is known of a recipient after an attempt that did not bring it further.
struct Refused {
    recipient: usize,
    verdict: Verdict,
    host: Option<String>,
}

impl<'a> Relay<'a> {
    pub(crate) fn new(world: &'a World, board: &'a Board, entry: Box<Entry>) -> Self {
        let now = SystemTime::now();
        let random = getrandom::u32().unwrap_or(0);
        let next = world.backoff.next(entry.arrived(), now, random);
        Self {
            world,
            board,
            entry,
            now,
            next,
            unreported: Vec::new(),
        }
    }

    /// Tries every recipient that is left.
    pub(crate) fn run(mut self) -> Result<Ended, Fail> {
        let mut local = Vec::new();
        let mut elsewhere: Vec<(NextHop, Vec<Way>)> = Vec::new();
        let mut refused = Vec::new();
        for recipient in self.pending() {
            let Some(state) = self.entry.recipients().get(recipient) else {
                continue;
            };
            let route = self.world.router.route(&state.recipient.address);
            match route.mailer {
                Mailer::Local { .. } => local.push(recipient),
                Mailer::Relay { next } => {
                    let way = Way {
                        recipient,
                        user: route.user,
                    };
                    match elsewhere.iter_mut().find(|(known, _)| *known == next) {
                        Some((_, ways)) => ways.push(way),
                        None => elsewhere.push((next, vec![way])),
                    }
                }
                Mailer::Error { status, text } => {
                    refused.push(Refused {
                        recipient,
                        verdict: Verdict { status, text },
                        host: None,
                    });
                }
                Mailer::Discard => {
                    self.settle(recipient, Status::OK, "discarded".into(), None)?;
                }
            }
        }
        if elsewhere.is_empty() && refused.is_empty() && !local.is_empty() {
            self.report()?;
            log::info!("{}: handed over to local", self.entry.id());
            self.entry.hand_over(Lane::Local)?;
            return Ok(Ended::Finished);
        }
        self.pass_on(local)?;
        let mut full = None;
        for (next, ways) in elsewhere {
            match self.board.enter(&next) {
                Entrance::Open => refused.extend(self.visit(&next, &ways)?),
                Entrance::Full => full = Some(next),
                Entrance::Dead { why, .. } => {
                    let text = format!("delivery temporarily suspended: {why}");
                    let verdict = Verdict {
                        status: Status::NO_ANSWER,
                        text,
                    };
                    refused.extend(all(&ways, &verdict, None));
                }
            }
        }
        self.conclude(refused, full)
    }

    fn pending(&self) -> Vec<usize> {
        let states = self.entry.recipients().iter().enumerate();
        states
            .filter(|(_, s)| s.outcome.is_pending())
            .map(|(i, _)| i)
            .collect()
    }

    /// Records what is deferred, tells the sender what failed, and lets the entry go or wait.
    fn conclude(mut self, refused: Vec<Refused>, full: Option<NextHop>) -> Result<Ended, Fail> {
        for refused in refused {
            let Refused {
                recipient,
                verdict,
                host,
            } = refused;
            self.settle(recipient, verdict.status, verdict.text, host)?;
        }
        self.report()?;
        if self.pending().is_empty() {
            let id = *self.entry.id();
            self.entry.finish()?;
            log::info!("{id}: removed");
            return Ok(Ended::Finished);
        }
        if let Some(destination) = full {
            return Ok(Ended::Waits(destination));
        }
        self.entry.set_due(self.next)?;
        Ok(Ended::Due(self.next))
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

    /// Everything that is tried at one destination. Gives the recipients that are not through.
    fn visit(&mut self, next: &NextHop, ways: &[Way]) -> Result<Vec<Refused>, Fail> {
        let (visit, result) = match self.targets(next) {
            Ok((targets, port)) => self.hosts(&targets, port, ways),
            Err(why) => {
                let domain = destination(next);
                let (mut status, text) = (why.status(), why.text(&domain));
                // The name of a relay is our configuration's word.
                if matches!(next, NextHop::Host { .. }) || is_relay(next, ways) {
                    status = status.with_class(4);
                }
                let visit = match &why {
                    NoTarget::Temporary(_) => Visit::Unreached(text.clone()),
                    _ => Visit::Unknown,
                };
                (visit, Ok(all(ways, &Verdict { status, text }, None)))
            }
        };
        self.board.leave(next, visit, self.world.backoff);
        result
    }

    fn targets(&self, next: &NextHop) -> Result<(Vec<Target>, u16), NoTarget> {
        let dns = &*self.world.dns;
        match next {
            NextHop::Mx { domain, port } => {
                dns::targets(dns, domain, &self.world.us(*port)).map(|t| (t, *port))
            }
            NextHop::Host { name, port } => dns::host_targets(dns, name).map(|t| (t, *port)),
            NextHop::Ip { ip, port } => Ok((
                vec![Target {
                    host: (*ip).into(),
                    ip: *ip,
                }],
                *port,
            )),
        }
    }

    /// Host after host, until everybody has a final answer.
    fn hosts(
        &mut self,
        targets: &[Target],
        port: u16,
        ways: &[Way],
    ) -> (Visit, Result<Vec<Refused>, Fail>) {
        let mut left: HashMap<usize, Refused> = HashMap::new();
        let mut reached = false;
        let mut open: Vec<&Way> = ways.iter().collect();
        for target in targets.iter().take(MAX_HOSTS) {
            let answer = match self.host(target, port, &open) {
                Ok(answer) => answer,
                Err(fail) => return (Visit::Unknown, Err(fail)),
            };
            reached |= answer.progress >= Progress::Greeted;
            left = answer.left.into_iter().map(|r| (r.recipient, r)).collect();
            open.retain(|way| left.contains_key(&way.recipient));
            // After a message without an answer another host would make a second copy likely.
            if open.is_empty() || answer.progress == Progress::Ended {
                break;
            }
        }
        let why = || {
            left.values()
                .next()
                .map_or_else(String::new, |r| r.verdict.text.clone())
        };
        let visit = if reached {
            Visit::Reached
        } else {
            Visit::Unreached(why())
        };
        (visit, Ok(left.into_values().collect()))
    }

    /// One host: in clear where TLS fails, again where it takes only some recipients at a time.
    fn host(&mut self, target: &Target, port: u16, ways: &[&Way]) -> Result<Answer, Fail> {
        let mut tls = Some(&self.world.tls);
        let mut todo: Vec<&Way> = ways.to_vec();
        let mut answer = Answer {
            left: Vec::new(),
            progress: Progress::Unreached,
        };
        for _ in 0..MAX_ROUNDS {
            let batch: Vec<&Way> = todo.drain(..todo.len().min(MAX_RECIPIENTS)).collect();
            let outcome = self.transaction(target, port, &batch, tls)?;
            if outcome.tls_failed && tls.is_some() {
                tls = None;
                todo.splice(..0, batch);
                continue;
            }
            let progress = outcome.progress;
            answer.progress = answer.progress.max(progress);
            let left = self.record(&session::peer(target, port), &batch, outcome)?;
            if left.len() == batch.len() || progress == Progress::Ended {
                // It takes nothing now; those whose turn had not come hear the same.
                let same = left.first().map(|r| (r.verdict.clone(), r.host.clone()));
                answer.left.extend(left);
                let rest = same.iter().flat_map(|(verdict, host)| {
                    todo.iter().map(|way| Refused {
                        recipient: way.recipient,
                        verdict: verdict.clone(),
                        host: host.clone(),
                    })
                });
                answer.left.extend(rest);
                return Ok(answer);
            }
            for refused in left {
                match batch.iter().find(|way| way.recipient == refused.recipient) {
                    Some(way) if is_too_many(&refused.verdict) => todo.push(way),
                    _ => answer.left.push(refused),
                }
            }
            if todo.is_empty() {
                return Ok(answer);
            }
        }
        let text = "took only some of the recipients".to_owned();
        let verdict = Verdict {
            status: Status::new(4, 5, 3),
            text,
        };
        answer
            .left
            .extend(all(todo, &verdict, Some(&session::peer(target, port))));
        Ok(answer)
    }

    fn transaction(
        &mut self,
        target: &Target,
        port: u16,
        ways: &[&Way],
        tls: Option<&net::tls::Connector>,
    ) -> Result<Outcome, Fail> {
        let states = self.entry.recipients();
        let mail = Mail::new(&self.world.host, self.entry.envelope(), self.entry.size());
        let to = ways
            .iter()
            .filter_map(|way| Some((&states.get(way.recipient)?.recipient, &way.user)));
        let mail = mail.to(to);
        let result = session::run(target, port, &mail, &mut self.entry.content(), tls);
        result.map_err(|ours| {
            let what = match ours {
                Ours::System(_) => session::peer(target, port),
                Ours::Content(_) => self.entry.id().to_string(),
            };
            let due = SystemTime::now() + OWN_TROUBLE;
            if let Err(fail) = self.entry.set_due(due) {
                log::error!("{fail}");
            }
            Fail::from(ours).while_doing(what)
        })
    }

    /// Records the final verdicts of a transaction at once; gives the others.
    fn record(
        &mut self,
        peer: &str,
        ways: &[&Way],
        outcome: Outcome,
    ) -> Result<Vec<Refused>, Fail> {
        let mut left = Vec::new();
        let mut events = Vec::new();
        let mut lines = Vec::new();
        // Where nobody was met, nobody said anything.
        let said_by = (outcome.progress > Progress::Unreached).then(|| peer.to_owned());
        for (way, verdict) in ways.iter().zip(outcome.verdicts) {
            let recipient = way.recipient;
            let Verdict { status, text } = verdict;
            if status.class() == 4 {
                let host = said_by.clone();
                let verdict = Verdict { status, text };
                left.push(Refused {
                    recipient,
                    verdict,
                    host,
                });
                continue;
            }
            lines.push(self.line(recipient, Some(peer), status, &text));
            let attempt = Attempt {
                status,
                reply: text,
                host: Some(peer.to_owned()),
            };
            if status.class() == 2 {
                if !outcome.dsn {
                    self.unreported.push(recipient);
                }
                events.push(Event::Delivered { recipient, attempt });
            } else {
                events.push(Event::Failed { recipient, attempt });
            }
        }
        self.write(&events)?;
        lines.iter().for_each(|line| log::info!("{line}"));
        Ok(left)
    }

    /// Records what an attempt came to for one recipient: class 4 is for another time, unless the
    /// message is too old.
    fn settle(
        &mut self,
        recipient: usize,
        status: Status,
        text: String,
        host: Option<String>,
    ) -> Result<(), Fail> {
        let old = schedule::is_expired(self.entry.arrived(), self.now, self.world.lifetime);
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
        self.write(&[event])?;
        log::info!("{line}");
        Ok(())
    }

    /// Into the journal, durably where it is final. While that cannot be written nobody sends, and
    /// what is known stays known here until it can.
    fn write(&mut self, events: &[Event]) -> Result<(), Fail> {
        if events.is_empty() {
            return Ok(());
        }
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
        let is_final = |event: &Event| !matches!(event, Event::Deferred { .. });
        if events.iter().any(is_final) {
            self.entry.sync()?;
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
            .duration_since(self.entry.arrived())
            .unwrap_or_default()
    }
}

/// What one host made of some recipients.
struct Answer {
    left: Vec<Refused>,
    progress: Progress,
}

/// The same for all.
fn all<'w>(
    ways: impl IntoIterator<Item = &'w Way>,
    verdict: &Verdict,
    host: Option<&str>,
) -> Vec<Refused> {
    let one = |way: &Way| Refused {
        recipient: way.recipient,
        verdict: verdict.clone(),
        host: host.map(Into::into),
    };
    ways.into_iter().map(one).collect()
}

/// RFC 5321 4.5.3.1.10: `452 too many recipients` means these, later, and as well at once.
fn is_too_many(verdict: &Verdict) -> bool {
    verdict.text.starts_with("452") || verdict.text.starts_with("552")
}

fn destination(next: &NextHop) -> base::Domain {
    match next {
        NextHop::Mx { domain: name, .. } | NextHop::Host { name, .. } => name.clone(),
        NextHop::Ip { ip, .. } => (*ip).into(),
    }
}

/// Whether a destination is a relay from the configuration and not the recipients' own domain.
fn is_relay(next: &NextHop, ways: &[Way]) -> bool {
    match next {
        NextHop::Mx { domain, .. } => ways.iter().any(|way| way.user.domain() != domain),
        NextHop::Host { .. } | NextHop::Ip { .. } => true,
    }
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
