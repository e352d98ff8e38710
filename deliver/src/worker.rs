//! One mailbox's batch, from its letters to its answers.
//!
//! Guarantees (DESIGN 4): a delivery that was announced before is looked for before anything is
//! appended; nothing is appended that is not announced durably; what cannot be announced is not
//! delivered and does not hold up the others.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base::{Address, Fail, Status};
use queue::QueueId;
use store::FolderName;
use store::append::{Intent, Redo};
use store::spool::Format;

use crate::conclude::Ending;
use crate::dispatch::Dispatch;
use crate::flight::Flight;
use crate::helper::Helper;
use crate::mailbox::{Item, Local, MAX_BATCH, Mailbox};
use crate::message::{Message, Rest};
use crate::plan::Step;
use crate::report::Line;
use crate::signals::Signals;

/// Octets in one batch, unless one message alone has more.
const MAX_WEIGHT: u64 = 16 << 20;

/// The status of a mailbox that others have, so that we come back soon.
pub(crate) const LOCKED: Status = Status::new(4, 2, 0);
/// After this an announced append is not waited for: its entry was taken away by the operator.
const FORGOTTEN: Duration = Duration::from_secs(900);

/// One message for one mailbox.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    pub(crate) recipient: usize,
    /// What Delivered-To says.
    pub(crate) to: Address,
    pub(crate) weight: u64,
    /// An append that was announced by an attempt that did not end, into this mailbox.
    pub(crate) redo: Option<Intent>,
    /// What to do now, if that append was not made; if there was none, to deliver here.
    pub(crate) then: Step,
}

/// What a worker gets.
#[derive(Debug)]
pub(crate) enum Work {
    Deliver(Box<Delivery>),
    /// A message without a delivery.
    Conclude(Rest),
}

/// What all workers share.
pub(crate) struct Workers<'a> {
    pub(crate) dispatch: &'a Dispatch<Work>,
    pub(crate) flight: &'a Flight,
    pub(crate) ending: Ending<'a>,
    pub(crate) local: Option<&'a Local>,
    pub(crate) helper: Option<&'a Helper>,
    pub(crate) unsettled: &'a Unsettled,
    pub(crate) signals: &'a Signals,
}

/// Announced appends of which nobody knows yet whether they were made, by mailbox.
#[derive(Debug, Default)]
pub(crate) struct Unsettled(Mutex<ByUser>);

/// Message and recipient, with the time since when, by mailbox.
type ByUser = HashMap<String, HashMap<(QueueId, usize), Instant>>;

impl Unsettled {
    /// A delivery with an announced append. In a Maildir nothing stands behind anything.
    pub(crate) fn add(&self, user: &str, delivery: &Delivery) {
        let intent = delivery.redo.as_ref();
        if intent.is_none_or(|intent| intent.format == Format::Maildir) {
            return;
        }
        let key = (delivery.message.id, delivery.recipient);
        self.all()
            .entry(user.to_owned())
            .or_default()
            .insert(key, Instant::now());
    }

    fn settle(&self, user: &str, delivery: &Delivery) {
        if let Some(of_user) = self.all().get_mut(user) {
            of_user.remove(&(delivery.message.id, delivery.recipient));
        }
    }

    fn has(&self, user: &str) -> bool {
        let mut all = self.all();
        if let Some(of_user) = all.get_mut(user) {
            of_user.retain(|_, since| since.elapsed() < FORGOTTEN);
        }
        all.retain(|_, of_user| !of_user.is_empty());
        all.contains_key(user)
    }

    fn all(&self) -> MutexGuard<'_, ByUser> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery with its letter.
struct Loaded {
    delivery: Delivery,
    item: Item,
}

impl Workers<'_> {
    /// A worker thread: until the dispatch is closed.
    pub(crate) fn run(&self) {
        while let Some((user, works)) = self.dispatch.take(MAX_BATCH, MAX_WEIGHT) {
            let mut deliveries = Vec::new();
            for work in works {
                match work {
                    Work::Deliver(delivery) => deliveries.push(*delivery),
                    Work::Conclude(rest) => self.conclude(rest),
                }
            }
            if !deliveries.is_empty() {
                self.batch(&user, deliveries);
            }
            self.dispatch.done(&user);
        }
    }

    fn batch(&self, user: &str, deliveries: Vec<Delivery>) {
        let mut loaded = Vec::new();
        for delivery in deliveries {
            match load(&delivery) {
                Ok(item) => loaded.push(Loaded { delivery, item }),
                Err(fail) => self.answer(&delivery, Some(Step::later(&fail))),
            }
        }
        let loaded = self.settled(user, loaded);
        let Err((fail, failed)) = self.append(user, loaded) else {
            return;
        };
        // One letter may have spoiled it for all: each alone, once. A lock is nobody's fault.
        if failed.len() == 1 || is_locked(&fail) || fail.is_full() {
            return self.put_off(&failed, &fail);
        }
        for one in self.settled(user, failed) {
            if let Err((fail, failed)) = self.append(user, vec![one]) {
                self.put_off(&failed, &fail);
            }
        }
    }

    fn put_off(&self, failed: &[Loaded], fail: &Fail) {
        for one in failed {
            self.answer(&one.delivery, Some(Step::later(fail)));
        }
    }

    /// Looks for all that was announced, then gives what is still to be delivered: nothing while
    /// another announced append may have left a torn tail, because what came behind it would keep
    /// it from being cut.
    fn settled(&self, user: &str, loaded: Vec<Loaded>) -> Vec<Loaded> {
        let rest = self.redo(user, loaded);
        if !self.unsettled.has(user) {
            return rest;
        }
        let fail = Fail::temp(format!(
            "an earlier delivery to {user} has to be looked for first"
        ));
        self.put_off(&rest, &fail.with_status(LOCKED));
        Vec::new()
    }

    /// Looks for what was announced. Gives what is still to be delivered here.
    fn redo(&self, user: &str, loaded: Vec<Loaded>) -> Vec<Loaded> {
        let mut rest = Vec::new();
        for mut one in loaded {
            let Some(intent) = one.delivery.redo.clone() else {
                rest.push(one);
                continue;
            };
            let found = Mailbox::open(self.local, self.helper, user)
                .and_then(|mailbox| mailbox.redo(&intent, &mut one.item));
            if found.is_ok() {
                self.unsettled.settle(user, &one.delivery);
            }
            match found {
                Ok(Redo::Done) => self.delivered(&one.delivery, user, "found in mailbox"),
                Ok(Redo::NotThere) => rest.extend(self.go_on(user, one)),
                // Soon again: until it is found out, nothing else goes into this mailbox.
                Err(fail) => {
                    self.answer(&one.delivery, Some(Step::later(&fail.with_status(LOCKED))));
                }
            }
        }
        rest
    }

    /// The announced append was not made, so what counts is what the rules say now.
    fn go_on(&self, user: &str, mut one: Loaded) -> Option<Loaded> {
        match &one.delivery.then {
            Step::Deliver { user: now, to } if now == user && *to == one.delivery.to => {
                one.delivery.redo = None;
                return Some(one);
            }
            Step::Deliver { user: now, to } => {
                let heap = now.clone();
                let (to, then) = (to.clone(), one.delivery.then.clone());
                let delivery = Delivery {
                    to,
                    then,
                    redo: None,
                    ..one.delivery
                };
                let weight = delivery.weight;
                self.dispatch
                    .add(&heap, weight, Work::Deliver(Box::new(delivery)));
            }
            then => {
                let then = then.clone();
                self.answer(&one.delivery, Some(then));
            }
        }
        None
    }

    /// Appends all; on an error gives back those that were not, each with its announced append if
    /// it has one.
    fn append(&self, user: &str, mut loaded: Vec<Loaded>) -> Result<(), (Fail, Vec<Loaded>)> {
        loop {
            if loaded.is_empty() {
                return Ok(());
            }
            // Those that could not be announced.
            let mute: Mutex<Vec<usize>> = Mutex::default();
            let mut announced: Vec<Intent> = Vec::new();
            let appended = {
                let (deliveries, mut items): (Vec<_>, Vec<_>) =
                    loaded.into_iter().map(|l| (l.delivery, l.item)).unzip();
                let appended = Mailbox::open(self.local, self.helper, user).and_then(|mailbox| {
                    mailbox.append(&mut items, |intents| {
                        announced = intents.to_vec();
                        announce(&deliveries, intents, &mute)
                    })
                });
                loaded = deliveries
                    .into_iter()
                    .zip(items)
                    .map(|(delivery, item)| Loaded { delivery, item })
                    .collect();
                appended
            };
            let mute = mute.into_inner().unwrap_or_else(PoisonError::into_inner);
            match appended {
                Ok(()) => {
                    for one in loaded {
                        self.delivered(&one.delivery, user, "delivered to mailbox");
                    }
                    return Ok(());
                }
                Err(fail) if mute.is_empty() => {
                    for (one, intent) in loaded.iter_mut().zip(announced) {
                        one.delivery.redo = Some(intent);
                        self.unsettled.add(user, &one.delivery);
                    }
                    return Err((fail, loaded));
                }
                Err(fail) => {
                    // Nothing was written: the others once more, without these.
                    let mut rest = Vec::new();
                    for (index, one) in loaded.into_iter().enumerate() {
                        if mute.contains(&index) {
                            self.answer(&one.delivery, Some(Step::later(&fail)));
                        } else {
                            rest.push(one);
                        }
                    }
                    loaded = rest;
                }
            }
        }
    }

    fn delivered(&self, delivery: &Delivery, user: &str, text: &str) {
        let Delivery {
            message,
            recipient,
            to,
            ..
        } = delivery;
        if let Err(fail) = message.delivered(*recipient, format!("/var/spool/mail/{user}")) {
            // The announced append stands, and will be found.
            log::error!("{}: delivered to {user}, but: {fail}", message.id);
        } else if let Some((address, arrived)) = message.recipient(*recipient) {
            let times = (arrived, SystemTime::now());
            Line::of(message.id, &address, Some(to), times, Status::OK, text).say();
        }
        self.answer(delivery, None);
    }

    fn answer(&self, delivery: &Delivery, step: Option<Step>) {
        if let Some(rest) = delivery.message.answer(delivery.recipient, step) {
            self.conclude(rest);
        }
    }

    fn conclude(&self, rest: Rest) {
        let id = *rest.entry.id();
        match self.ending.conclude(rest) {
            Ok(due) => {
                self.flight.landed(&id, due);
                if due.is_some() {
                    self.signals.nudge();
                }
            }
            Err(fail) => {
                log::error!("{id}: {fail}");
                self.flight.crashed(&id);
            }
        }
    }
}

fn load(delivery: &Delivery) -> Result<Item, Fail> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    Ok(Item {
        content: delivery.message.letter(&delivery.to)?,
        delivery_id: format!("{}-{}", delivery.message.id, delivery.recipient),
        reverse_path: delivery.message.reverse_path(),
        date: i64::try_from(now).unwrap_or(i64::MAX),
    })
}

/// Makes all intents durable: with one sync where there is a commit log, else at the same time, since
/// the file system's journal commits once for many.
fn announce(
    deliveries: &[Delivery],
    intents: &[Intent],
    mute: &Mutex<Vec<usize>>,
) -> Result<(), Fail> {
    let one = |index: usize, delivery: &Delivery, intent: &Intent| {
        let announced = delivery.message.intend(for_journal(delivery, intent));
        if announced.is_err() {
            mute.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(index);
        }
        announced
    };
    if deliveries.len() != intents.len() {
        return Err(Fail::temp("the store announced another number of messages"));
    }
    let Some(((first, rest), (intent, intents))) =
        deliveries.split_first().zip(intents.split_first())
    else {
        return Ok(());
    };
    let mut announced = Vec::new();
    let rest = rest.iter().zip(intents).zip(1..);
    match one(0, first, intent)? {
        Some(logged) => {
            announced.push(logged);
            for ((delivery, intent), index) in rest {
                announced.extend(one(index, delivery, intent)?);
            }
        }
        None => {
            announced = std::thread::scope(|scope| {
                let one = &one;
                let threads: Vec<_> = rest
                    .map(|((d, intent), i)| scope.spawn(move || one(i, d, intent)))
                    .collect();
                let lost = || Err(Fail::temp("a thread of deliver ended early"));
                let results = threads
                    .into_iter()
                    .map(|t| t.join().unwrap_or_else(|_| lost()));
                results
                    .filter_map(Result::transpose)
                    .collect::<Result<_, _>>()
            })?;
        }
    }
    queue::announce(announced).inspect_err(|_| {
        let all = 0..deliveries.len();
        mute.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(all);
    })
}

/// The store's intent as the queue's journal keeps it. The note has what a redo needs: the address
/// in Delivered-To, a NUL, and the store's own form.
fn for_journal(delivery: &Delivery, intent: &Intent) -> queue::Intent {
    let mut note = delivery.to.to_string().into_bytes();
    note.push(0);
    note.extend(intent.encode());
    let folder = if intent.folder == FolderName::inbox() {
        ""
    } else {
        intent.folder.as_str()
    };
    queue::Intent {
        recipient: delivery.recipient,
        delivery: intent.delivery_id.clone(),
        path: PathBuf::from(format!("/var/spool/mail/{}{folder}", intent.user)),
        offset: intent.offset,
        length: intent.length,
        checksum: u64::from(intent.checksum),
        note,
    }
}

/// What [`for_journal`] kept.
pub(crate) fn from_journal(intent: &queue::Intent) -> Option<(Address, Intent)> {
    let at = intent.note.iter().position(|b| *b == 0)?;
    let (to, rest) = intent.note.split_at_checked(at)?;
    let to = Address::parse(std::str::from_utf8(to).ok()?).ok()?;
    Some((to, Intent::decode(rest.strip_prefix(&[0])?)?))
}

fn is_locked(fail: &Fail) -> bool {
    fail.status() == Some(LOCKED)
}
