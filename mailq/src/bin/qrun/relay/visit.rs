//! The conversations of an attempt: destination, hosts, transactions, and what they leave open.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use base::{Fail, Status};
use dns::{NoTarget, Target, Us as _};
use queue::{Attempt, Event};
use rules::NextHop;

use super::{Relay, Settled, Way, all};
use crate::client::{Outcome, Progress, Verdict};
use crate::destinations::Visit;
use crate::forms::Forms;
use crate::forward::Forward;
use crate::mail::Mail;
use crate::needs;
use crate::session::{self, Ours, Terms};

/// Hosts that are tried in one attempt.
const MAX_HOSTS: usize = 5;
/// Recipients of one transaction: RFC 5321 4.5.3.1.8 lets a server stop here.
const MAX_RECIPIENTS: usize = 100;
/// Transactions with one host in one attempt, where it takes a part of the recipients each time.
const MAX_ROUNDS: usize = 20;
/// The pause after a trouble of our own.
const OWN_TROUBLE: Duration = Duration::from_secs(60);

impl Relay<'_> {
    /// Everything that is tried at one destination. Gives the recipients that are not through.
    pub(super) fn visit(&mut self, next: &NextHop, ways: &[Way]) -> Result<Vec<Settled>, Fail> {
        let (visit, result) = match self.targets(next, ways) {
            Ok((targets, port)) => self.hosts(&targets, port, ways),
            Err(why) => {
                let domain = destination(next);
                let (mut status, text) = (why.status(), why.text(&domain));
                // A relay is our configuration's word, and no fault of the message.
                if self.is_relay(next, ways) {
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

    fn targets(&self, next: &NextHop, ways: &[Way]) -> Result<(Vec<Target>, u16), NoTarget> {
        let dns = &*self.world.dns;
        match next {
            NextHop::Mx { domain, port } => {
                dns::targets(dns, domain, &self.world.us(*port)).map(|t| (t, *port))
            }
            NextHop::Host { name, port } => dns::host_targets(dns, name).map(|t| (t, *port)),
            // `ann@[127.0.0.1]`: our own smtpd would send it here again.
            NextHop::Ip { ip, port }
                if !self.is_relay(next, ways) && self.world.us(*port).is_our_address(*ip) =>
            {
                Err(NoTarget::Loop)
            }
            NextHop::Ip { ip, port } => Ok((
                vec![Target {
                    host: (*ip).into(),
                    ip: *ip,
                }],
                *port,
            )),
        }
    }

    /// Whether a destination is a relay from the configuration and not the recipients' own domain.
    fn is_relay(&self, next: &NextHop, ways: &[Way]) -> bool {
        let is_other = |domain: base::Domain| ways.iter().any(|way| *way.user.domain() != domain);
        let is_filter = self.entry.envelope().filter.is_some();
        is_filter
            || match next {
                NextHop::Mx { domain, .. } => is_other(domain.clone()),
                NextHop::Ip { ip, .. } => is_other((*ip).into()),
                NextHop::Host { .. } => true,
            }
    }

    /// Host after host, until everybody has a final answer.
    fn hosts(
        &mut self,
        targets: &[Target],
        port: u16,
        ways: &[Way],
    ) -> (Visit, Result<Vec<Settled>, Fail>) {
        let mut left: HashMap<usize, Settled> = HashMap::new();
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
        let require_tls = self.entry.envelope().needs.require_tls;
        let mut todo: Vec<&Way> = ways.to_vec();
        // A server without SMTPUTF8 gets those that it can take, in transactions of their own.
        todo.sort_by_key(|way| !way.user.is_ascii());
        let mut answer = Answer {
            left: Vec::new(),
            progress: Progress::Unreached,
        };
        for _ in 0..MAX_ROUNDS {
            let first = todo.first().map(|way| way.user.is_ascii());
            let alike = |way: &&&Way| Some(way.user.is_ascii()) == first;
            let alike = todo.iter().take(MAX_RECIPIENTS).take_while(alike).count();
            let batch: Vec<&Way> = todo.drain(..alike).collect();
            let outcome = self.transaction(target, port, &batch, tls)?;
            if outcome.tls_failed && tls.is_some() && !require_tls {
                tls = None;
                todo.splice(..0, batch);
                continue;
            }
            let progress = outcome.progress;
            answer.progress = answer.progress.max(progress);
            let left = self.record(&session::peer(target, port), &batch, outcome)?;
            self.board.answered(self.entry.id());
            if left.len() == batch.len() || progress == Progress::Ended {
                // It takes nothing now; those whose turn had not come hear the same.
                let same = left.first().map(|r| (r.verdict.clone(), r.host.clone()));
                answer.left.extend(left);
                let rest = same.iter().flat_map(|(verdict, host)| {
                    todo.iter().map(|way| Settled {
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
        let forms = match self.forms.take() {
            Some(made) => made,
            None => Forms::of(&self.entry, &self.world.signing)?,
        };
        let states = self.entry.recipients();
        let mail = Mail::new(&self.world.host, self.entry.envelope(), forms.size())
            .or_binary(forms.binary_size(&self.entry));
        let to = ways
            .iter()
            .filter_map(|way| Some((&states.get(way.recipient)?.recipient, &way.user)));
        let mut mail = mail.to(to).needing(needs::of(&self.entry)?);
        if self.entry.envelope().filter.is_some() {
            let origin = self.entry.origin();
            let ours = self.world.signing.is_ours(&origin.source);
            mail.forward = Some(Forward::new(self.entry.id(), origin, ours));
        }
        let (board, id) = (self.board, *self.entry.id());
        let terms = Terms {
            tls,
            may_end: &|| board.ends(id),
            hurry: 1,
        };
        let result = {
            let mut by_lines = forms.by_lines(&self.entry);
            let mut content = session::Forms {
                by_lines: &mut *by_lines,
                binary: &mut self.entry.content(),
            };
            session::run(target, port, &mail, &mut content, &terms)
        };
        self.forms = Some(forms);
        result.map_err(|ours| {
            let what = match ours {
                Ours::System(_) => session::peer(target, port),
                Ours::Content(_) | Ours::Stopping => self.entry.id().to_string(),
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
    ) -> Result<Vec<Settled>, Fail> {
        let mut left = Vec::new();
        let mut events = Vec::new();
        let mut lines = Vec::new();
        // Where nobody was met, nobody said anything.
        let said_by = (outcome.progress > Progress::Unreached).then(|| peer.to_owned());
        for (way, verdict) in ways.iter().zip(outcome.verdicts) {
            let recipient = way.recipient;
            let Verdict { status, text } = verdict;
            if status.class() == 4 || outcome.unfit {
                let host = said_by.clone();
                let verdict = Verdict { status, text };
                left.push(Settled {
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
}

/// What one host made of some recipients.
struct Answer {
    left: Vec<Settled>,
    progress: Progress,
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
