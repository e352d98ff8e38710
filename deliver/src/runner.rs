//! The loop: what is due in the local lane is claimed, its recipients are looked up, and the work
//! goes to the threads. The directory is the schedule; being woken only makes it faster.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use account::Users;
use base::{Config, Fail, Status};
use bounce::Reporter;
use queue::{Claim, Entry, Lane, Queue, QueueId, Watch};
use rules::Router;
use rules::aliases::Aliases;
use store::Spool;

use crate::conclude::Ending;
use crate::dispatch::Dispatch;
use crate::flight::Flight;
use crate::header::Head;
use crate::helper::Helper;
use crate::message::{Message, Rest};
use crate::plan::{Place, Step};
use crate::signals::Signals;
use crate::worker::{Delivery, Work, Workers, from_journal};

/// Mailboxes worked on at the same time.
const THREADS: usize = 8;
/// Messages in work at the same time; each has an open file.
const MAX_FLYING: usize = 256;
/// How often the lane is looked through without being woken.
const RESCAN: Duration = Duration::from_secs(30);
/// The same, where the kernel cannot wake us.
const UNWATCHED: Duration = Duration::from_secs(2);
/// How soon an entry is looked at again that somebody else has.
const BUSY: Duration = Duration::from_secs(1);

/// All that the loop works with.
pub(crate) struct Runner<'a> {
    pub(crate) config: &'a Config,
    pub(crate) queue: Queue,
    pub(crate) aliases: Aliases,
    pub(crate) users: Users,
    /// The spool, where there is one uid.
    pub(crate) spool: Option<Spool>,
    /// The way to other uids, where there are some.
    pub(crate) helper: Option<Helper>,
}

/// Whether the loop goes on after everything due has been tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Once,
    Daemon,
}

impl Runner<'_> {
    /// Until `signals` say stop, or, in [`Mode::Once`], until everything due has been tried.
    pub(crate) fn run(mut self, mode: Mode, signals: &Signals) -> Result<(), Fail> {
        let recovered = self.queue.recover()?;
        if recovered != queue::Recovered::default() {
            log::info!("recovered: {recovered:?}");
        }
        let router = Router::new(self.config);
        let reporter = Reporter::new(self.config);
        let dispatch = Dispatch::new();
        let flight = Flight::default();
        // Taken out, so that the loop can change the rest while the threads use these.
        let (spool, helper) = (self.spool.take(), self.helper.take());
        let workers = Workers {
            dispatch: &dispatch,
            flight: &flight,
            ending: Ending {
                reporter: &reporter,
                lifetime: self.config.queue_lifetime,
            },
            spool: spool.as_ref(),
            helper: helper.as_ref(),
        };
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| workers.run());
            }
            let done = match mode {
                Mode::Once => self.once(&router, &dispatch, &flight, signals),
                Mode::Daemon => self.watch(&router, &dispatch, &flight, signals),
            };
            flight.wait(0);
            dispatch.close();
            done
        })
    }

    /// Everything due, and what is made of it for this lane; nothing twice.
    fn once(
        &mut self,
        router: &Router,
        dispatch: &Dispatch<Work>,
        flight: &Flight,
        signals: &Signals,
    ) -> Result<(), Fail> {
        let mut tried = HashSet::new();
        loop {
            let before = tried.len();
            self.round(router, dispatch, flight, signals, |id| tried.insert(*id))?;
            flight.wait(0);
            if tried.len() == before || signals.stop() {
                return Ok(());
            }
        }
    }

    fn watch(
        &mut self,
        router: &Router,
        dispatch: &Dispatch<Work>,
        flight: &Flight,
        signals: &Signals,
    ) -> Result<(), Fail> {
        // Before the first look, so that nothing comes unseen between them.
        let watch = Watch::start(&self.queue, &[queue::Place::Local]);
        let watch = watch
            .inspect_err(|fail| log::warn!("{fail}: looking every {UNWATCHED:?}"))
            .ok();
        let rescan = if watch.is_some() { RESCAN } else { UNWATCHED };
        log::info!("ready");
        let mut look = Instant::now();
        let mut announced = Vec::new();
        while !signals.stop() {
            self.refresh();
            let now = Instant::now();
            if now >= look {
                let next = self.round(router, dispatch, flight, signals, |_| true);
                let next = next.unwrap_or_else(|fail| {
                    log::error!("{fail}");
                    None
                });
                look = soonest(now, rescan, next);
            }
            for (_, id) in announced.drain(..) {
                if let Ok(Some(due)) = self.queue.due(Lane::Local, &id) {
                    let next = match due > SystemTime::now() {
                        true => Some(due),
                        false => self.attempt(router, dispatch, flight, &id),
                    };
                    look = look.min(soonest(now, rescan, next));
                }
            }
            let alone = flight.next().unwrap_or(rescan);
            let pause = look.saturating_duration_since(Instant::now()).min(alone);
            if signals.wait(watch.as_ref(), pause)? {
                look = Instant::now();
            }
            if let Some(woken) = watch.as_ref().map(Watch::take).transpose()? {
                announced = woken.names;
                if woken.overflow {
                    look = Instant::now();
                }
            }
            if flight.next().is_some_and(|left| left.is_zero()) {
                look = Instant::now();
            }
        }
        log::info!("stopping");
        Ok(())
    }

    /// The alias files, where they changed.
    fn refresh(&mut self) {
        match self.aliases.refresh() {
            None => {}
            Some(Ok(warnings)) => {
                warnings.iter().for_each(|w| log::warn!("{w}"));
                log::info!("aliases read again");
            }
            Some(Err(fail)) => log::error!("{fail}: the aliases stay as they were"),
        }
    }

    /// Begins everything that is due; gives when the next is.
    fn round(
        &self,
        router: &Router,
        dispatch: &Dispatch<Work>,
        flight: &Flight,
        signals: &Signals,
        mut wanted: impl FnMut(&QueueId) -> bool,
    ) -> Result<Option<SystemTime>, Fail> {
        let mut next: Option<SystemTime> = None;
        for listed in self.queue.scan(Lane::Local)? {
            if signals.stop() {
                break;
            }
            let now = SystemTime::now();
            if listed.due > now {
                next = Some(next.map_or(listed.due, |next| next.min(listed.due)));
                break; // they are in the order of their times
            }
            if wanted(&listed.id)
                && let Some(again) = self.attempt(router, dispatch, flight, &listed.id)
            {
                next = Some(again);
            }
        }
        Ok(next)
    }

    /// Begins the work on an entry that is due, unless it is in work. Gives when to come back, if
    /// that is before anything is announced.
    fn attempt(
        &self,
        router: &Router,
        dispatch: &Dispatch<Work>,
        flight: &Flight,
        id: &QueueId,
    ) -> Option<SystemTime> {
        flight.wait(MAX_FLYING.saturating_sub(1));
        if !flight.depart(id) {
            return None;
        }
        match self.queue.claim(Lane::Local, id) {
            Ok(Claim::Entry(entry)) => {
                self.begin(router, dispatch, entry);
                return None;
            }
            Ok(Claim::Busy) => {
                flight.landed(id);
                return SystemTime::now().checked_add(BUSY);
            }
            Ok(Claim::Gone | Claim::Damaged(_)) => flight.landed(id),
            Err(fail) => {
                log::error!("{id}: {fail}");
                flight.crashed(id);
            }
        }
        None
    }

    /// Works out what to do for each recipient, and gives it to the threads.
    fn begin(&self, router: &Router, dispatch: &Dispatch<Work>, entry: Box<Entry>) {
        let id = *entry.id();
        let weight = entry.size();
        let user = |name: &str| self.users.lookup(name).map(|user| user.map(|u| u.name));
        let place = Place {
            router,
            aliases: &self.aliases,
            delimiter: self.config.recipient_delimiter,
            user: &user,
        };
        let head = Head::read(&mut entry.content());
        let mut verdicts = Vec::new();
        let mut deliveries = Vec::new();
        for (recipient, state) in entry.recipients().iter().enumerate() {
            if !state.outcome.is_pending() {
                continue;
            }
            let then = match &head {
                Ok(head) => place.step(&state.recipient, head),
                Err(e) => Step::later(&Fail::temp(format!("read message {id}: {e}"))),
            };
            match (
                state.intent.as_ref(),
                state.intent.as_ref().and_then(from_journal),
            ) {
                (Some(_), Some((to, intent))) => {
                    deliveries.push((intent.user.clone(), recipient, to, Some(intent), then));
                }
                (Some(_), None) => {
                    // Nobody knows whether it was delivered: a person has to look.
                    let text =
                        format!("{id}: announced append of recipient {recipient} is unreadable");
                    log::error!("{text}: look into the mailbox, then mailq(1)");
                    verdicts.push((
                        recipient,
                        Step::Defer {
                            status: Status::SYSTEM,
                            text,
                        },
                    ));
                }
                (None, _) => match &then {
                    Step::Deliver { user, to } => {
                        deliveries.push((user.clone(), recipient, to.clone(), None, then.clone()));
                    }
                    _ => verdicts.push((recipient, then)),
                },
            }
        }
        if deliveries.is_empty() {
            // No user's name has a slash, so this is nobody's mailbox.
            let heap = format!("/{id}");
            return dispatch.add(&heap, 0, Work::Conclude(Rest { entry, verdicts }));
        }
        let message = Arc::new(Message::new(entry, verdicts, deliveries.len()));
        for (user, recipient, to, redo, then) in deliveries {
            let message = Arc::clone(&message);
            let delivery = Delivery {
                message,
                recipient,
                to,
                weight,
                redo,
                then,
            };
            dispatch.add(&user, weight, Work::Deliver(Box::new(delivery)));
        }
    }
}

/// When to look through the lane again: at `due`, at the latest after `rescan`.
fn soonest(now: Instant, rescan: Duration, due: Option<SystemTime>) -> Instant {
    let left = due.map(|due| due.duration_since(SystemTime::now()).unwrap_or_default());
    let left = left.map_or(rescan, |left| left.min(rescan));
    now.checked_add(left).unwrap_or(now)
}
