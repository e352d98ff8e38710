//! What there is to do and who does it: the entries of our lane by the time they are due, those in
//! work, those that wait for a busy destination, and what is known of the destinations.
//!
//! It is a cache of the directory and may be thrown away at any time. The watcher announces,
//! workers take; nobody holds the lock while he does anything else.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use queue::{Listed, QueueId};
use rules::NextHop;

use crate::destinations::{Destinations, Entrance, Visit};
use crate::schedule::Backoff;

/// A worker looks again at the clock at least so often: it may be set.
const LOOK: Duration = Duration::from_secs(30);

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The entry has left the lane.
    Finished,
    /// It waits until then.
    Due(SystemTime),
    /// It waits for a place at a destination.
    Waits(NextHop),
}

/// An entry's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) id: QueueId,
    /// It began then and waited for a place: only who was not tried since is to be tried now.
    pub(crate) since: Option<SystemTime>,
}

/// A turn that is under way.
#[derive(Debug)]
struct Busy {
    since: SystemTime,
    /// What it waited for before.
    waited_for: Option<NextHop>,
}

/// Shared by the watcher and the workers.
#[derive(Debug)]
pub(crate) struct Board {
    /// Everything is tried once, whenever it is due.
    once: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    by_time: BTreeSet<(SystemTime, QueueId)>,
    due: HashMap<QueueId, SystemTime>,
    busy: HashMap<QueueId, Busy>,
    /// Who waits for a place, and since when it is his turn.
    parked: HashMap<QueueId, SystemTime>,
    /// Of those that are due, who waited for a place before, and where.
    again: HashMap<QueueId, (NextHop, SystemTime)>,
    /// In a single run: what had its turn.
    tried: HashSet<QueueId>,
    destinations: Destinations<NextHop, QueueId>,
    paused: Option<Instant>,
    stopping: bool,
    /// Whose final dot is sent or about to be, and whose answer is not recorded yet: who is cut off
    /// here may be sent twice.
    unanswered: HashSet<QueueId>,
    /// No message is ended any more.
    closing: bool,
}

impl Board {
    pub(crate) fn new(once: bool) -> Self {
        Self {
            once,
            state: Mutex::new(State {
                by_time: BTreeSet::new(),
                due: HashMap::new(),
                busy: HashMap::new(),
                parked: HashMap::new(),
                again: HashMap::new(),
                tried: HashSet::new(),
                destinations: Destinations::new(),
                paused: None,
                stopping: false,
                unanswered: HashSet::new(),
                closing: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An entry is there, due then.
    pub(crate) fn announce(&self, id: QueueId, due: SystemTime) {
        let mut state = self.state();
        if self.once {
            if !state.tried.insert(id) {
                return;
            }
            state.schedule(id, SystemTime::UNIX_EPOCH);
        } else if !state.busy.contains_key(&id)
            && !state.parked.contains_key(&id)
            && !state.again.contains_key(&id)
        {
            state.schedule(id, due);
        } else {
            return;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// What a scan found.
    pub(crate) fn announce_all(&self, found: &[Listed]) {
        for listed in found {
            self.announce(listed.id, listed.due);
        }
    }

    /// Waits for an entry that is due. `None`: there is nothing more to do, ever.
    pub(crate) fn take(&self) -> Option<Turn> {
        let mut state = self.state();
        loop {
            if state.stopping || (self.once && state.is_idle()) {
                self.changed.notify_all();
                return None;
            }
            let (now, clock) = (Instant::now(), SystemTime::now());
            let wait = match (
                state.paused.filter(|until| *until > now),
                state.by_time.first(),
            ) {
                (Some(until), _) => until.duration_since(now),
                (None, Some(&(due, id))) => match due.duration_since(clock) {
                    Err(_) | Ok(Duration::ZERO) => {
                        state.forget(&id);
                        let (waited_for, since) = state.again.remove(&id).unzip();
                        let busy = Busy {
                            since: since.unwrap_or(clock),
                            waited_for,
                        };
                        state.busy.insert(id, busy);
                        // Whoever watched the clock is busy now: another takes over.
                        if !state.by_time.is_empty() {
                            self.changed.notify_one();
                        }
                        return Some(Turn { id, since });
                    }
                    Ok(left) => left,
                },
                (None, None) => LOOK,
            };
            let waited = self.changed.wait_timeout(state, wait.min(LOOK));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends what [`Board::take`] began.
    pub(crate) fn done(&self, id: QueueId, ended: &Ended) {
        let mut state = self.state();
        let Some(Busy { since, waited_for }) = state.busy.remove(&id) else {
            return;
        };
        state.unanswered.remove(&id);
        match ended {
            Ended::Due(due) if !self.once => state.schedule(id, *due),
            Ended::Finished | Ended::Due(_) => (),
            Ended::Waits(destination) => match state.destinations.wait(destination, id) {
                Some(id) => state.resume(id, destination, since),
                None => {
                    state.parked.insert(id, since);
                }
            },
        }
        // It may have gone elsewhere, or be gone: the place that it was given is another's.
        if let Some(destination) = waited_for {
            for id in state.destinations.pass(&destination) {
                state.unpark(id, &destination);
                self.changed.notify_one();
            }
        }
        // The worker that says this looks for the next turn itself.
        if state.stopping {
            self.changed.notify_all();
        }
    }

    /// Whether a connection may be made to a destination; after `Open` say [`Board::leave`].
    pub(crate) fn enter(&self, destination: &NextHop) -> Entrance {
        self.state().destinations.enter(destination, Instant::now())
    }

    /// These are said to be back.
    pub(crate) fn revive(&self, destinations: &HashSet<NextHop>) {
        let mut state = self.state();
        for destination in destinations {
            state.destinations.revive(destination);
        }
    }

    pub(crate) fn leave(&self, destination: &NextHop, visit: Visit, backoff: Backoff) {
        let mut state = self.state();
        let freed = state
            .destinations
            .leave(destination, visit, backoff, Instant::now());
        for id in freed {
            state.unpark(id, destination);
            self.changed.notify_one();
        }
    }

    /// Nobody takes anything for a while: the trouble is ours.
    pub(crate) fn pause(&self, time: Duration) {
        self.state().paused = Some(Instant::now() + time);
    }

    /// Nobody takes anything any more.
    pub(crate) fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// The final dot of this entry's message is about to be sent; `false` when it must not be.
    /// After `true`, and when the answer is recorded, say [`Board::answered`].
    pub(crate) fn ends(&self, id: QueueId) -> bool {
        let mut state = self.state();
        !state.closing && {
            state.unanswered.insert(id);
            true
        }
    }

    pub(crate) fn answered(&self, id: &QueueId) {
        let mut state = self.state();
        state.unanswered.remove(id);
        if state.stopping {
            self.changed.notify_all();
        }
    }

    /// Waits until nothing is in work, at most for `time`.
    pub(crate) fn wait_idle(&self, time: Duration) -> bool {
        self.wait_until(time, |state| state.busy.is_empty())
    }

    /// Lets no further message end and waits for the answers to those that did, at most for `time`.
    pub(crate) fn wait_answered(&self, time: Duration) -> bool {
        self.state().closing = true;
        self.wait_until(time, |state| state.unanswered.is_empty())
    }

    fn wait_until(&self, time: Duration, is_so: impl Fn(&State) -> bool) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        while !is_so(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl State {
    fn schedule(&mut self, id: QueueId, due: SystemTime) {
        self.forget(&id);
        self.due.insert(id, due);
        self.by_time.insert((due, id));
    }

    /// A place is free for one that waited.
    fn unpark(&mut self, id: QueueId, destination: &NextHop) {
        if let Some(since) = self.parked.remove(&id) {
            self.resume(id, destination, since);
        }
    }

    fn resume(&mut self, id: QueueId, destination: &NextHop, since: SystemTime) {
        self.again.insert(id, (destination.clone(), since));
        self.schedule(id, SystemTime::UNIX_EPOCH);
    }

    fn forget(&mut self, id: &QueueId) {
        if let Some(due) = self.due.remove(id) {
            self.by_time.remove(&(due, *id));
        }
    }

    fn is_idle(&self) -> bool {
        self.by_time.is_empty() && self.busy.is_empty() && self.parked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        min: Duration::from_secs(60),
        max: Duration::from_secs(600),
    };

    const NO_PAUSE: Backoff = Backoff {
        min: Duration::ZERO,
        max: Duration::ZERO,
    };

    fn id() -> QueueId {
        QueueId::generate().unwrap()
    }

    fn there() -> NextHop {
        NextHop::Mx {
            domain: "x.test".parse().unwrap(),
            port: 25,
        }
    }

    #[test]
    fn what_is_due_is_taken_once_and_in_order() {
        let board = Board::new(false);
        let (a, b, later) = (id(), id(), id());
        let now = SystemTime::now();
        board.announce(b, now);
        board.announce(a, now - Duration::from_secs(5));
        board.announce(later, now + Duration::from_secs(3600));
        board.announce(a, now - Duration::from_secs(6));
        assert_eq!(board.take().map(|turn| turn.id), Some(a));
        board.announce(a, now - Duration::from_secs(6));
        assert_eq!(board.take().map(|turn| turn.id), Some(b));
        board.done(a, &Ended::Finished);
        board.done(b, &Ended::Due(now));
        assert_eq!(board.take().map(|turn| turn.id), Some(b));
        board.stop();
        assert_eq!(board.take(), None);
    }

    #[test]
    fn who_waits_for_a_destination_comes_when_a_place_is_free() {
        let board = Board::new(false);
        let mut open = 0;
        while board.enter(&there()) == Entrance::Open {
            open += 1;
        }
        let (a, began) = (id(), SystemTime::now());
        board.announce(a, SystemTime::UNIX_EPOCH);
        assert_eq!(board.take().map(|turn| turn.id), Some(a));
        board.done(a, &Ended::Waits(there()));
        board.announce(a, SystemTime::UNIX_EPOCH);
        assert!(board.state().by_time.is_empty());
        board.leave(&there(), Visit::Reached, BACKOFF);
        let turn = board.take().unwrap();
        assert!(turn.id == a && turn.since.is_some_and(|since| since >= began));
        (1..open).for_each(|_| board.leave(&there(), Visit::Unknown, BACKOFF));
        board.done(a, &Ended::Waits(there()));
        assert_eq!(board.take().map(|turn| turn.id), Some(a));
    }

    #[test]
    fn who_does_not_take_its_place_leaves_it_to_the_others() {
        for once in [false, true] {
            let board = Board::new(once);
            assert_eq!(board.enter(&there()), Entrance::Open);
            board.leave(&there(), Visit::Unreached("refused".into()), NO_PAUSE);
            // One at a time finds out whether it is back, and finds it dead again.
            assert_eq!(board.enter(&there()), Entrance::Open);
            let waiting: Vec<_> = (0..5).map(|_| id()).collect();
            for id in &waiting {
                board.announce(*id, SystemTime::UNIX_EPOCH);
                assert_eq!(board.take().map(|turn| turn.id), Some(*id));
            }
            for id in &waiting {
                board.done(*id, &Ended::Waits(there()));
            }
            board.leave(&there(), Visit::Reached, BACKOFF);
            // The operator has removed them all meanwhile.
            for _ in &waiting {
                let turn = board.take().unwrap();
                board.done(turn.id, &Ended::Finished);
            }
            assert!(board.state().is_idle());
        }
    }

    #[test]
    fn who_has_sent_the_final_dot_is_waited_for_and_nobody_else_sends_it() {
        let (board, short) = (Board::new(false), Duration::from_millis(20));
        let (a, b) = (id(), id());
        for id in [a, b] {
            board.announce(id, SystemTime::UNIX_EPOCH);
            assert!(board.take().is_some());
        }
        assert!(board.ends(a));
        board.stop();
        assert!(!board.wait_idle(short));
        assert!(!board.wait_answered(short));
        assert!(!board.ends(b));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(short);
                board.answered(&a);
            });
            assert!(board.wait_answered(Duration::from_secs(60)));
        });
    }

    #[test]
    fn a_single_run_ends() {
        let board = Board::new(true);
        let (a, now) = (id(), SystemTime::now());
        board.announce(a, now + Duration::from_secs(3600));
        assert_eq!(board.take().map(|turn| turn.id), Some(a));
        board.done(a, &Ended::Due(now));
        board.announce(a, now);
        assert_eq!(board.take(), None);
    }
}
