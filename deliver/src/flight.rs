//! Which messages are in work, how many, and which are left alone for a while because their entry
//! could not be written. In memory only: the directory has the truth.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use queue::QueueId;

/// How long an entry is left alone whose journal could not be written.
const ALONE: Duration = Duration::from_secs(60);
/// How long nothing new is begun after that: deliver nothing when you cannot record it.
const PAUSE: Duration = Duration::from_secs(1);

/// Messages in work.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    flying: HashSet<QueueId>,
    alone: HashMap<QueueId, Instant>,
    paused: Option<Instant>,
    /// When the first of those that landed is due again.
    due: Option<SystemTime>,
}

impl Flight {
    /// Whether work on a message may begin; from then on it is in work.
    pub(crate) fn depart(&self, id: &QueueId) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        state.alone.retain(|_, until| *until > now);
        !state.alone.contains_key(id) && state.flying.insert(*id)
    }

    /// The work on it is done for now; with the time of its next attempt, if there is one.
    pub(crate) fn landed(&self, id: &QueueId, due: Option<SystemTime>) {
        let mut state = self.state();
        state.flying.remove(id);
        state.due = state.due.into_iter().chain(due).min();
        drop(state);
        self.changed.notify_all();
    }

    /// When the first of those that landed since the last question is due again.
    pub(crate) fn take_due(&self) -> Option<SystemTime> {
        self.state().due.take()
    }

    /// The work on it ended with an error in the queue.
    pub(crate) fn crashed(&self, id: &QueueId) {
        let mut state = self.state();
        let now = Instant::now();
        state.flying.remove(id);
        state
            .alone
            .extend(now.checked_add(ALONE).map(|until| (*id, until)));
        state.paused = now.checked_add(PAUSE);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until at most `limit` are in work, and until a pause is over.
    pub(crate) fn wait(&self, limit: usize) {
        let mut state = self.state();
        loop {
            let pause = state
                .paused
                .map(|until| until.saturating_duration_since(Instant::now()));
            match pause.filter(|pause| !pause.is_zero()) {
                Some(pause) => {
                    let woken = self.changed.wait_timeout(state, pause);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                None if state.flying.len() <= limit => return,
                None => {
                    let woken = self.changed.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// When the first message that was left alone may be tried again.
    pub(crate) fn next(&self) -> Option<Duration> {
        let now = Instant::now();
        self.state()
            .alone
            .values()
            .min()
            .map(|until| until.saturating_duration_since(now))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_in_work_once_and_a_crashed_one_is_left_alone() {
        let flight = Flight::default();
        let (a, b) = (QueueId::generate().unwrap(), QueueId::generate().unwrap());
        assert!(flight.depart(&a));
        assert!(!flight.depart(&a));
        flight.wait(1);
        flight.landed(&a, None);
        assert!(flight.depart(&a));
        flight.crashed(&a);
        assert!(!flight.depart(&a));
        assert!(flight.depart(&b));
        assert!(flight.next().is_some_and(|d| d <= ALONE && !d.is_zero()));
        std::thread::scope(|s| {
            s.spawn(|| flight.landed(&b, None));
            flight.wait(0);
        });
    }
}
