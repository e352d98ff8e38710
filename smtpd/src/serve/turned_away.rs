//! The porter at the door of a session, and refusals that are held back by the loop's timer: against
//! guessing, and from who offends.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use base::{Address, LocalPart, ReversePath, date};
use net::Control;
use queue::Lane;

use super::asking::Asked;
use super::{Connection, Done, SMTP, Shared};
use crate::gate::{Ruling, Stage};
use crate::porter::{Account, Client, Notice, Porter, Refusal, Vouching};
use crate::reply::Reply;
use crate::session::{Action, Admission, AuthAnswer, Input, Transaction, Verdict};

/// An answer that the session gets later.
pub(super) enum Later {
    Auth(AuthAnswer),
    Client(Reply),
    Sender(Reply),
    Recipient(Reply),
    Data(Reply),
}

impl Later {
    fn input(self, shown: &str) -> Input<'static> {
        match self {
            Self::Auth(answer) => Input::Auth(answer),
            Self::Client(refusal) => Input::Client(Admission {
                shown: shown.to_owned(),
                answer: Err(refusal),
                took: Duration::ZERO,
                welcome: false,
            }),
            Self::Sender(refusal) => Input::Sender(Err(refusal)),
            Self::Recipient(refusal) => Input::Recipient(Verdict::Refuse(refusal)),
            Self::Data(refusal) => Input::Data(Err(refusal)),
        }
    }
}

/// A transaction that may be put off.
#[derive(Debug, Clone)]
pub(super) struct Meeting {
    from: ReversePath,
    /// The first recipient.
    to: Option<Address>,
    helo: String,
    /// Whether the sender's domain vouches for him, once that was asked.
    vouched: Option<bool>,
}

/// Whether this client has waited for our greeting before.
pub(super) fn has_waited(shared: &Shared, ip: Option<IpAddr>) -> bool {
    match (&shared.porter, ip) {
        (Some(porter), Some(ip)) => porter.knows(ip, SystemTime::now()),
        _ => false,
    }
}

impl Connection {
    /// Gives the session this answer, after a while.
    pub(super) fn later(
        &mut self,
        answer: Later,
        after: Duration,
        control: &mut Control<'_, Done>,
    ) {
        if after.is_zero() {
            let input = answer.input(&self.shown);
            self.step(input, control);
        } else {
            self.penalty = Some(answer);
            control.deadline(after);
        }
    }

    /// Its time has come; `false` where there is none.
    pub(super) fn give_answer(&mut self, control: &mut Control<'_, Done>) -> bool {
        let Some(answer) = self.penalty.take() else {
            return false;
        };
        let input = answer.input(&self.shown);
        self.step(input, control);
        true
    }

    /// With the porter's view of who comes here: a stranger's address.
    fn stranger(&self) -> Option<(&Porter, IpAddr)> {
        let porter = self.shared.porter.as_ref()?;
        let ip = self.sender.ip.filter(|_| !self.session.may_relay())?;
        porter.counts(ip).then_some((porter, ip))
    }

    /// The session is ended for this.
    pub(super) fn offence(&self, what: &str) {
        if let Some((porter, ip)) = self.stranger() {
            porter.offence(ip, what, SystemTime::now());
        }
    }

    /// Whether the porter lets this be asked; where not, the answer is on its way.
    pub(super) fn is_turned_away(
        &mut self,
        action: &Action,
        control: &mut Control<'_, Done>,
    ) -> bool {
        let is_asked = matches!(
            action,
            Action::AskClient
                | Action::AskSender { .. }
                | Action::AskRecipient { .. }
                | Action::Authenticate { .. }
        );
        let Some((porter, ip)) = is_asked.then(|| self.stranger()).flatten() else {
            return false;
        };
        let now = SystemTime::now();
        let (answer, later): (_, fn(Reply) -> Later) = match action {
            Action::AskClient => (porter.client(ip, self.service != SMTP, now), Later::Client),
            Action::AskSender { reverse_path, .. } => {
                let answer = porter.sender(ip, now);
                if porter.greylists() {
                    self.meeting = Some(Box::new(Meeting {
                        from: reverse_path.clone(),
                        to: None,
                        helo: String::new(),
                        vouched: None,
                    }));
                }
                (answer, Later::Sender)
            }
            Action::AskRecipient { helo, .. } => {
                let answer = porter.recipient(ip, now);
                if let Some(meeting) = &mut self.meeting {
                    meeting.helo.clone_from(helo);
                }
                (answer, Later::Recipient)
            }
            Action::Authenticate { .. } => (porter.login(ip, now), |refusal| {
                Later::Auth(AuthAnswer::NotNow(refusal))
            }),
            _ => return false,
        };
        if answer.is_err() && matches!(action, Action::AskClient) {
            log::info!("connect from {}", self.shown);
        }
        self.refused(answer, later, control)
    }

    /// What the doors are to be asked, unless a stranger has to come again with it, or it is to be found
    /// out first whether his domain vouches for him.
    pub(super) fn unless_put_off(
        &mut self,
        asked: Asked,
        control: &mut Control<'_, Done>,
    ) -> Option<Asked> {
        let Some(refusal) = self.put_off(&asked) else {
            return Some(asked);
        };
        if let (Asked::Recipient(..), Some((vouching, client))) = (&asked, self.vouching()) {
            let handle = control.handle();
            self.shared.gate.ask(Stage::Recipient, move || {
                handle.post(Done::Vouched(vouching.vouches(&client), asked));
            });
            return None;
        }
        let later = match asked {
            Asked::Data => Later::Data,
            _ => Later::Recipient,
        };
        self.later(later(refusal.reply), refusal.after, control);
        None
    }

    /// It was found out.
    pub(super) fn vouched(&mut self, vouched: bool, asked: Asked, control: &mut Control<'_, Done>) {
        if let Some(meeting) = &mut self.meeting {
            meeting.vouched = Some(vouched);
        }
        self.ask_doors(asked, control);
    }

    /// Whether a stranger has to come again with this, which we would take otherwise.
    fn put_off(&mut self, asked: &Asked) -> Option<Refusal> {
        if self.welcome || self.permitted {
            return None;
        }
        let mut meeting = self.meeting.take()?;
        let now = SystemTime::now();
        let vouched = meeting.vouched.unwrap_or(false);
        let answer = match (self.stranger(), asked) {
            (Some((porter, ip)), Asked::Recipient(recipient, _)) => {
                let to = &recipient.address;
                meeting.to.get_or_insert_with(|| to.clone());
                match meeting.from {
                    // It may be a question whether this recipient exists: RFC 6647 5.
                    ReversePath::Null => Ok(()),
                    ref from @ ReversePath::Address(_) => {
                        porter.greylist(ip, vouched, from, to, now)
                    }
                }
            }
            (Some((porter, ip)), Asked::Data) => match (&meeting.from, &meeting.to) {
                (from @ ReversePath::Null, Some(to)) => porter.greylist(ip, false, from, to, now),
                _ => Ok(()),
            },
            _ => Ok(()),
        };
        self.meeting = Some(meeting);
        answer.err()
    }

    /// Who is still to be asked whether the sender's domain vouches for the client; once a transaction.
    fn vouching(&self) -> Option<(Vouching, Client)> {
        let meeting = self.meeting.as_ref().filter(|m| m.vouched.is_none())?;
        let (porter, ip) = self.stranger()?;
        let client = Client {
            ip,
            helo: meeting.helo.clone(),
            from: meeting.from.clone(),
            now: u64::try_from(date::unix(SystemTime::now())).unwrap_or(0),
        };
        Some((porter.vouching()?.clone(), client))
    }

    fn refused(
        &mut self,
        answer: Result<(), Refusal>,
        later: fn(Reply) -> Later,
        control: &mut Control<'_, Done>,
    ) -> bool {
        let Err(refusal) = answer else { return false };
        self.later(later(refusal.reply), refusal.after, control);
        true
    }

    /// A recipient is refused: who offended lately waits for it.
    pub(super) fn refuse_recipient(&mut self, refusal: Reply, control: &mut Control<'_, Done>) {
        let after = match self.stranger() {
            Some((porter, ip)) => porter.tarpit(ip, SystemTime::now()),
            None => Duration::ZERO,
        };
        self.later(Later::Recipient(refusal), after, control);
    }

    /// How long a refused login waits for its answer.
    pub(super) fn login_failed(&self, delay: Duration) -> Duration {
        match self.stranger() {
            Some((porter, ip)) => delay.max(porter.login_failed(ip, SystemTime::now())),
            None => delay,
        }
    }

    /// A message of somebody who logged in: it is held where the account is over its limit.
    pub(super) fn count_account(&self, transaction: &Transaction, ruling: &mut Ruling) {
        let (Some(porter), Some(login)) = (&self.shared.porter, &transaction.login) else {
            return;
        };
        let recipients = transaction
            .local
            .len()
            .saturating_add(transaction.relay.len());
        let recipients = u32::try_from(recipients).unwrap_or(u32::MAX);
        match porter.account(login, recipients, SystemTime::now()) {
            Account::WithinLimits => {}
            Account::Over { first } => {
                let reason = tally::account::reason(login);
                if first {
                    let shown = base::escape::escape(login);
                    log::warn!("account {shown} is over its limit: what it sends is held");
                    self.tell_people(login);
                }
                ruling.hold.get_or_insert(reason);
            }
        }
    }

    fn tell_people(&self, login: &str) {
        let host = self.shared.terms.name.clone();
        let owner = Address::parse(login)
            .or_else(|_| LocalPart::new(login).map(|local| Address::new(local, host.clone())));
        let owner = owner
            .ok()
            .and_then(|owner| match self.shared.policy.judge(&owner, true) {
                Some(Verdict::Relay(address)) => Some((Lane::Relay, address)),
                Some(Verdict::Local(_)) | None => Some((Lane::Local, owner)),
                Some(Verdict::Discard(_) | Verdict::Refuse(_)) => None,
            });
        let Ok(postmaster) = LocalPart::new("postmaster") else {
            return;
        };
        let notice = Notice {
            login: login.to_owned(),
            owner,
            postmaster: Address::new(postmaster, host.clone()),
            host,
        };
        let queue = self.shared.queue.clone();
        self.shared.gate.run(move || {
            if let Err(fail) = notice.send(&queue) {
                log::error!("tell people that an account is held: {fail}");
            }
        });
    }
}
