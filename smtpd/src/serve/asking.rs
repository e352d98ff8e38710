//! What a session asks: first of what the operator wrote down and of who lives here, then of the
//! doors. Where no door wants to be asked the answer comes in the same step.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base::release::Hold;
use base::{Address, Recipient, ReversePath};
use net::Control;
use queue::{Flush, Lane};

use super::{Connection, Done, REINJECT};
use crate::access;
use crate::gate::{Hello, Opened, Question, Ruling};
use crate::reply::{self, Reply};
use crate::session::{Action, Admission, Input, Verdict};

/// What the doors were asked.
pub(crate) enum Asked {
    /// At this time.
    Client(Instant),
    Hello,
    Sender,
    /// And what becomes of him, if they have nothing against it.
    Recipient(Box<Recipient>, Verdict),
    Data,
    Unknown(String),
}

impl Asked {
    fn lane(&self) -> Option<Lane> {
        match self {
            Self::Recipient(_, Verdict::Local(_)) => Some(Lane::Local),
            Self::Recipient(_, Verdict::Relay(_)) => Some(Lane::Relay),
            _ => None,
        }
    }

    fn question(&self) -> Question<'_> {
        match self {
            Self::Client(_) => Question::Client,
            Self::Hello => Question::Hello,
            Self::Sender => Question::Sender,
            Self::Recipient(recipient, _) => Question::Recipient(recipient),
            Self::Data => Question::Data,
            Self::Unknown(line) => Question::Unknown(line),
        }
    }
}

impl Connection {
    pub(super) fn ask(&mut self, action: Action, control: &mut Control<'_, Done>) {
        match action {
            // A filter's port, and not the filter.
            Action::AskClient if self.service == REINJECT && !self.trusted => {
                log::log!(self.level, "connect from {}", self.shown);
                let answer = Admission {
                    shown: self.shown.clone(),
                    took: Duration::ZERO,
                    welcome: false,
                    answer: Err(reply::NOT_A_FILTER),
                };
                self.step(Input::Client(answer), control);
            }
            Action::AskClient => self.ask_doors(Asked::Client(Instant::now()), control),
            Action::AskHello { name, extended } => {
                if let Some(visit) = &mut self.visit {
                    visit.facts.hello = Some(Hello { name, extended });
                }
                self.ask_doors(Asked::Hello, control);
            }
            Action::AskSender {
                size,
                reverse_path,
                login,
                body,
                ret,
                envid,
                needs,
                hold,
            } => {
                self.ruling = Ruling::default();
                let answer = self.may_send(size, &reverse_path, login.as_deref());
                if let Err(refusal) = answer.and_then(|()| self.may_wait(hold)) {
                    self.step(Input::Sender(Err(refusal)), control);
                    return;
                }
                if let Some(visit) = &mut self.visit {
                    visit.facts.transaction = Some(Opened {
                        reverse_path,
                        size,
                        body,
                        ret,
                        envid,
                        needs,
                        recipients: Vec::new(),
                        lane: None,
                        queue_id: None,
                    });
                }
                self.ask_doors(Asked::Sender, control);
            }
            // The table was asked before the message went to the filter.
            Action::AskRecipient {
                recipient,
                may_relay,
                ..
            } if self.service == REINJECT => {
                self.ask_recipient(recipient, may_relay, access::Ruling::GoOn, control);
            }
            Action::AskRecipient {
                recipient,
                may_relay,
                helo,
                reverse_path,
            } => {
                let answer = self.shared.policy.access(access::Question {
                    client: self.sender.ip,
                    name: self.sender.name.as_ref(),
                    helo: &helo,
                    from: &reverse_path,
                    to: &recipient.address,
                    may_relay,
                });
                self.permitted = answer.permitted;
                if let Some(visit) = &mut self.visit {
                    visit.facts.permitted = answer.permitted;
                }
                self.ruling.add(Ruling {
                    hold: answer.hold,
                    filter: answer.filter.map(Box::new),
                    prepend: answer.prepend,
                    ..Ruling::default()
                });
                self.ask_recipient(recipient, may_relay, answer.ruling, control);
            }
            Action::AskData => self.ask_doors(Asked::Data, control),
            Action::AskUnknown(line) => self.ask_doors(Asked::Unknown(line), control),
            _ => {}
        }
    }

    /// qrun is asked by way of the queue.
    pub(super) fn ask_flush(&mut self, flush: Flush, control: &mut Control<'_, Done>) {
        let queue = self.shared.queue.clone();
        control.job(move || {
            let left = queue.request_flush(&flush);
            Done::Flush(left.map_err(|fail| {
                log::error!("{fail}");
                reply::CANNOT_FLUSH
            }))
        });
    }

    /// The transaction is over.
    pub(super) fn forget(&mut self) {
        self.ruling = Ruling::default();
        self.meeting = None;
        if let Some(visit) = &mut self.visit {
            visit.forget();
        }
    }

    fn may_send(
        &self,
        size: u64,
        reverse_path: &ReversePath,
        login: Option<&str>,
    ) -> Result<(), Reply> {
        let policy = &self.shared.policy;
        let foreign = reverse_path
            .address()
            .filter(|address| login.is_some_and(|login| !policy.may_send_as(login, address)));
        if let Some(address) = foreign {
            return Err(reply::NOT_YOURS.about(&address.to_string()));
        }
        let room = self.shared.queue.has_space(size, self.shared.spare);
        room.map_err(|fail| {
            log::warn!("{fail}");
            reply::NO_ROOM
        })
    }

    /// RFC 4865 4: as long as EHLO said.
    fn may_wait(&self, hold: Option<Hold>) -> Result<(), Reply> {
        let limit = self.shared.terms.future_release;
        match hold {
            Some(hold) if !hold.is_within(SystemTime::now(), limit) => Err(reply::HOLD_BEYOND),
            _ => Ok(()),
        }
    }

    fn ask_recipient(
        &mut self,
        recipient: Recipient,
        may_relay: bool,
        ruling: access::Ruling,
        control: &mut Control<'_, Done>,
    ) {
        let address = recipient.address.clone();
        let (address, may_relay) = match ruling {
            access::Ruling::GoOn => (address, may_relay),
            // Where the operator sends it, it goes.
            access::Ruling::Redirect(other) => (other, true),
            access::Ruling::Refuse(refusal) => {
                let verdict = Verdict::Refuse(refusal.about(&address.to_string()));
                self.step(Input::Recipient(verdict), control);
                return;
            }
            access::Ruling::Discard => {
                self.step(Input::Recipient(Verdict::Discard(address)), control);
                return;
            }
        };
        self.route(address, may_relay, Some(Box::new(recipient)), control);
    }

    /// What becomes of an address. `asked`: the doors are still to be asked about him.
    fn route(
        &mut self,
        address: Address,
        may_relay: bool,
        asked: Option<Box<Recipient>>,
        control: &mut Control<'_, Done>,
    ) {
        let policy = Arc::clone(&self.shared.policy);
        if let Some(verdict) = policy.judge(&address, may_relay) {
            self.routed(verdict, asked, control);
        } else {
            let handle = control.handle();
            policy.look_up(address, move |verdict| {
                handle.post(Done::Recipient(verdict, asked));
            });
        }
    }

    pub(super) fn routed(
        &mut self,
        verdict: Verdict,
        asked: Option<Box<Recipient>>,
        control: &mut Control<'_, Done>,
    ) {
        match (asked, verdict) {
            (Some(recipient), verdict @ (Verdict::Local(_) | Verdict::Relay(_))) => {
                self.ask_doors(Asked::Recipient(recipient, verdict), control);
            }
            (_, Verdict::Refuse(refusal)) => self.refuse_recipient(refusal, control),
            (_, verdict) => {
                if let Verdict::Local(address) | Verdict::Relay(address) = &verdict {
                    self.taken(Recipient::new(address.clone()));
                }
                self.step(Input::Recipient(verdict), control);
            }
        }
    }

    pub(super) fn ask_doors(&mut self, asked: Asked, control: &mut Control<'_, Done>) {
        let Some(asked) = self.unless_put_off(asked, control) else {
            return;
        };
        let stage = asked.question().stage();
        match self.visit.take() {
            Some(mut visit) if visit.wants(stage) => {
                if let Some(opened) = &mut visit.facts.transaction {
                    opened.lane = asked.lane();
                }
                let handle = control.handle();
                self.shared.gate.ask(stage, move || {
                    let ruling = visit.ask(asked.question());
                    handle.post(Done::Ruled(visit, asked, ruling));
                });
            }
            visit => {
                self.visit = visit;
                self.ruled(asked, Ruling::default(), control);
            }
        }
    }

    /// The doors have answered.
    pub(super) fn ruled(
        &mut self,
        asked: Asked,
        mut ruling: Ruling,
        control: &mut Control<'_, Done>,
    ) {
        let answer = ruling.refuse.take().map_or(Ok(()), Err);
        let input = match asked {
            Asked::Client(since) => {
                let (mut took, welcome) = (Duration::ZERO, ruling.welcome);
                self.welcome = welcome;
                if let Some(visit) = &self.visit {
                    took = since.elapsed();
                    self.shown.clone_from(&visit.facts.shown);
                    self.sender.name = ruling.name;
                }
                if let (Some(name), Some(ip)) = (self.named.take(), self.sender.ip) {
                    let known = name.name().map_or("unknown", |name| name.as_str());
                    self.shown = format!("{known}[{ip}]");
                    if let Some(visit) = &mut self.visit {
                        visit.facts.learn(&name);
                    }
                    self.sender.name = Some(name);
                }
                let shown = self.shown.clone();
                log::log!(self.level, "connect from {shown}");
                Input::Client(Admission {
                    shown,
                    took,
                    welcome,
                    answer,
                })
            }
            Asked::Hello => Input::Hello(answer.map(|()| SystemTime::now())),
            Asked::Sender => {
                self.ruling.add(ruling);
                Input::Sender(answer)
            }
            Asked::Data => {
                self.ruling.add(ruling);
                Input::Data(answer)
            }
            Asked::Unknown(_) => Input::Unknown(answer.err()),
            Asked::Recipient(recipient, verdict) => {
                return self.ruled_recipient(*recipient, verdict, answer, ruling, control);
            }
        };
        self.step(input, control);
    }

    fn ruled_recipient(
        &mut self,
        mut recipient: Recipient,
        verdict: Verdict,
        answer: Result<(), Reply>,
        mut ruling: Ruling,
        control: &mut Control<'_, Done>,
    ) {
        if let Err(refusal) = answer {
            return self.refuse_recipient(refusal, control);
        }
        let elsewhere = ruling.redirect.take();
        self.ruling.add(ruling);
        if let Some(address) = elsewhere {
            return self.route(address, true, None, control);
        }
        if let Verdict::Local(address) | Verdict::Relay(address) = &verdict {
            recipient.address.clone_from(address);
            self.taken(recipient);
        }
        self.step(Input::Recipient(verdict), control);
    }

    /// The doors know who is to have the message.
    fn taken(&mut self, recipient: Recipient) {
        if let Some(visit) = &mut self.visit
            && let Some(opened) = &mut visit.facts.transaction
        {
            opened.recipients.push(recipient);
        }
    }
}
