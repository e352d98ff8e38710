//! The loop: what is due in the local lane is claimed, its recipients are looked up, and the work
//! goes to the threads. The directory is the schedule; being woken only makes it faster.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use account::Users;
use base::{Config, Doing, Fail, Status};
use bounce::Reporter;
use queue::{Claim, Entry, Lane, Logging, Queue, QueueId, Watch};
use rules::Router;
use rules::aliases::Aliases;

use crate::conclude::Ending;
use crate::dispatch::Dispatch;
use crate::flight::Flight;
use crate::header::Head;
use crate::helper::Helper;
use crate::mailbox::Local;
use crate::message::{Message, Rest};
use crate::plan::{Place, Step};
use crate::recipient;
use crate::signals::Signals;
use crate::worker::{Delivery, Unsettled, Work, Workers, from_journal};

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
    /// The users, where there is one uid.
    pub(crate) users: Option<Users>,
    /// The spool, where there is one uid.
    pub(crate) local: Option<Local>,
    /// The way to other uids, where there are some.
    pub(crate) helper: Option<Helper>,
}

/// What the loop hands its work to.
struct Air<'a> {
    router: &'a Router,
    dispatch: &'a Dispatch<Work>,
    flight: &'a Flight,
    signals: &'a Signals,
    helper: Option<&'a Helper>,
    unsettled: &'a Unsettled,
}

impl Air<'_> {
    /// Whether nothing new is to be begun.
    fn stop(&self) -> bool {
        self.signals.stop() || self.helper.is_some_and(Helper::is_gone)
    }
}

/// Whether the loop goes on after everything has been tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Once,
    Daemon,
}

impl Runner<'_> {
    /// Until `signals` say stop, or, in [`Mode::Once`], until everything has been tried.
    pub(crate) fn run(mut self, mode: Mode, signals: &Signals) -> Result<(), Fail> {
        let Some(_lane) = self.have_lane(mode, signals)? else {
            return Ok(());
        };
        // The log of one run is not worth its making: notes alone go into one.
        if mode == Mode::Daemon {
            self.queue.keep_log(Logging::Works, self.config.commit_log);
        }
        let recovered = self.queue.recover()?;
        if recovered != queue::Recovered::default() {
            log::info!("recovered: {recovered:?}");
        }
        let router = Router::new(self.config);
        let reporter = Reporter::new(self.config);
        let dispatch = Dispatch::new();
        let flight = Flight::default();
        let unsettled = Unsettled::default();
        // Taken out, so that the loop can change the rest while the threads use these.
        let (local, helper) = (self.local.take(), self.helper.take());
        let workers = Workers {
            dispatch: &dispatch,
            flight: &flight,
            ending: Ending {
                reporter: &reporter,
                lifetime: self.config.queue_lifetime,
            },
            local: local.as_ref(),
            helper: helper.as_ref(),
            unsettled: &unsettled,
            signals,
        };
        let air = Air {
            router: &router,
            dispatch: &dispatch,
            flight: &flight,
            signals,
            helper: helper.as_ref(),
            unsettled: &unsettled,
        };
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| workers.run());
            }
            let done = self.settle(&air).and_then(|()| match mode {
                Mode::Once => self.once(&air),
                Mode::Daemon => self.watch(&air),
            });
            flight.wait(0);
            dispatch.close();
            self.queue.flush();
            match air.helper.is_some_and(Helper::is_gone) {
                true => Err(Fail::temp("the helper is gone: start deliver again")),
                false => done,
            }
        })
    }

    /// The lane is one program's at a time: what another one has announced, this one would not know.
    /// The lock is on the directory and ends with the process.
    fn have_lane(&self, mode: Mode, signals: &Signals) -> Result<Option<File>, Fail> {
        let path = self.queue.path().join(Lane::Local.as_str());
        let doing = || format!("lock {}", path.display());
        let lane = File::open(&path).doing(doing)?;
        let mut said = false;
        while !signals.stop() {
            match lane.try_lock() {
                Ok(()) => return Ok(Some(lane)),
                Err(TryLockError::Error(e)) => return Err(Fail::io(doing(), e)),
                Err(TryLockError::WouldBlock) if mode == Mode::Once => {
                    self.make_due()?;
                    return Ok(None);
                }
                Err(TryLockError::WouldBlock) if said => {}
                Err(TryLockError::WouldBlock) => log::info!("another deliver works the lane"),
            }
            said = true;
            signals.wait(None, BUSY)?;
        }
        Ok(None)
    }

    /// Another deliver works the lane: everything it has put off is due now. Its next look through
    /// the lane finds that.
    fn make_due(&self) -> Result<(), Fail> {
        let now = SystemTime::now();
        for listed in self.queue.scan(Lane::Local)? {
            if listed.due > now
                && let Claim::Entry(mut entry) = self.queue.claim(Lane::Local, &listed.id)?
                && entry.waits_until(now).is_none()
            {
                entry.set_due(now)?;
            }
        }
        Ok(())
    }

    /// After a crash: the messages with an announced append before all others, so that nothing
    /// comes behind a torn tail. None is worked on before all are known: where two were written
    /// together, what is left of the one is to be cut before the other comes again.
    fn settle(&self, air: &Air<'_>) -> Result<(), Fail> {
        air.dispatch.hold();
        let known = self.claim_announced(air);
        air.dispatch.release();
        air.flight.wait(0);
        known
    }

    fn claim_announced(&self, air: &Air<'_>) -> Result<(), Fail> {
        let mut flying = 0;
        for listed in self.queue.scan(Lane::Local)? {
            // Also those that are not due: the last process may have put off the look for one.
            if air.stop() {
                break;
            }
            if flying == MAX_FLYING {
                // More than one process had in work: they were put off again and again.
                air.dispatch.release();
                air.flight.wait(0);
                air.dispatch.hold();
                flying = 0;
            }
            if let Claim::Entry(entry) = self.queue.claim(Lane::Local, &listed.id)?
                && entry.recipients().iter().any(|r| r.intent.is_some())
                && air.flight.depart(&listed.id)
            {
                self.begin(air, entry);
                flying += 1;
            }
        }
        Ok(())
    }

    /// Everything, and what is made of it for this lane; nothing twice.
    fn once(&mut self, air: &Air<'_>) -> Result<(), Fail> {
        let mut tried = HashSet::new();
        loop {
            let before = tried.len();
            self.round(air, Mode::Once, |id| tried.insert(*id))?;
            air.flight.wait(0);
            if tried.len() == before || air.stop() {
                return Ok(());
            }
        }
    }

    fn watch(&mut self, air: &Air<'_>) -> Result<(), Fail> {
        // Before the first look, so that nothing comes unseen between them.
        let watch = Watch::start(&self.queue, &[queue::Place::Local]);
        let watch = watch
            .inspect_err(|fail| log::warn!("{fail}: looking every {UNWATCHED:?}"))
            .ok();
        let rescan = if watch.is_some() { RESCAN } else { UNWATCHED };
        log::info!("ready");
        let mut look = Instant::now();
        let mut announced = Vec::new();
        while !air.stop() {
            self.refresh();
            let now = Instant::now();
            if now >= look {
                self.queue
                    .recover_logs()
                    .unwrap_or_else(|fail| log::error!("{fail}"));
                let next = self.round(air, Mode::Daemon, |_| true);
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
                        false => self.attempt(air, &id),
                    };
                    look = look.min(soonest(now, rescan, next));
                }
            }
            // What a thread put off wakes nobody else.
            if let Some(due) = air.flight.take_due() {
                look = look.min(soonest(Instant::now(), rescan, Some(due)));
            }
            let alone = air.flight.next().unwrap_or(rescan);
            let pause = look.saturating_duration_since(Instant::now()).min(alone);
            if air.signals.wait(watch.as_ref(), pause)? {
                look = Instant::now();
            }
            if let Some(woken) = watch.as_ref().map(Watch::take).transpose()? {
                announced = woken.names;
                if woken.overflow {
                    look = Instant::now();
                }
            }
            if air.flight.next().is_some_and(|left| left.is_zero()) {
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

    /// Begins everything that is due, or in [`Mode::Once`] everything; gives when the next is due.
    fn round(
        &self,
        air: &Air<'_>,
        mode: Mode,
        mut wanted: impl FnMut(&QueueId) -> bool,
    ) -> Result<Option<SystemTime>, Fail> {
        let mut next: Option<SystemTime> = None;
        for listed in self.queue.scan(Lane::Local)? {
            if air.stop() {
                break;
            }
            let now = SystemTime::now();
            if mode == Mode::Daemon && listed.due > now {
                next = Some(next.map_or(listed.due, |next| next.min(listed.due)));
                break; // they are in the order of their times
            }
            if wanted(&listed.id)
                && let Some(again) = self.attempt(air, &listed.id)
            {
                next = Some(again);
            }
        }
        Ok(next)
    }

    /// Begins the work on an entry that is due, unless it is in work. Gives when to come back, if
    /// that is before anything is announced.
    fn attempt(&self, air: &Air<'_>, id: &QueueId) -> Option<SystemTime> {
        air.flight.wait(MAX_FLYING.saturating_sub(1));
        if !air.flight.depart(id) {
            return None;
        }
        match self.queue.claim(Lane::Local, id) {
            Ok(Claim::Entry(mut entry)) => {
                if let Some(due) = entry.waits_until(SystemTime::now()) {
                    let put_off = entry.set_due(due);
                    put_off.unwrap_or_else(|fail| log::error!("{id}: {fail}"));
                    air.flight.landed(id, None);
                    return Some(due);
                }
                self.begin(air, entry);
                return None;
            }
            Ok(Claim::Busy) => {
                air.flight.landed(id, None);
                return SystemTime::now().checked_add(BUSY);
            }
            Ok(Claim::Gone | Claim::Damaged(_)) => air.flight.landed(id, None),
            Err(fail) => {
                log::error!("{id}: {fail}");
                air.flight.crashed(id);
            }
        }
        None
    }

    /// Works out what to do for each recipient, and gives it to the threads.
    fn begin(&self, air: &Air<'_>, entry: Box<Entry>) {
        let id = *entry.id();
        let weight = entry.size();
        let user = |name: &str| match (&self.users, air.helper) {
            (Some(users), _) => recipient::known(users, name),
            (None, Some(helper)) => helper.user(name),
            (None, None) => Err(Fail::temp("no users")),
        };
        let place = Place {
            router: air.router,
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
            return air
                .dispatch
                .add(&heap, 0, Work::Conclude(Rest { entry, verdicts }));
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
            air.unsettled.add(&user, &delivery);
            air.dispatch
                .add(&user, weight, Work::Deliver(Box::new(delivery)));
        }
    }
}

/// When to look through the lane again: at `due`, at the latest after `rescan`.
fn soonest(now: Instant, rescan: Duration, due: Option<SystemTime>) -> Instant {
    let left = due.map(|due| due.duration_since(SystemTime::now()).unwrap_or_default());
    let left = left.map_or(rescan, |left| left.min(rescan));
    now.checked_add(left).unwrap_or(now)
}
