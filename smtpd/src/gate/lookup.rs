//! A look-up that was begun before its answer is needed, on threads for look-ups alone: a door that
//! waits for one must not take the place of the look-up that it waits for.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use net::pool::Pool;

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Lookup<T> {
    answer: Receiver<T>,
    until: Instant,
}

impl<T: Send + 'static> Lookup<T> {
    /// Begins it. The answer is waited for until `within` from now; what comes later finds nobody.
    pub(super) fn begin(
        pool: &Pool,
        within: Duration,
        look: impl FnOnce(Instant) -> T + Send + 'static,
    ) -> Self {
        let until = Instant::now() + within;
        let (told, answer) = sync_channel(1);
        pool.submit(move || {
            // So many are waiting that nobody waits for this one any more.
            if Instant::now() >= until {
                return;
            }
            // Who waited for it is gone? So be it.
            drop(told.try_send(look(until)));
        });
        Self { answer, until }
    }

    /// The answer, if it comes in time.
    pub(super) fn wait(&self) -> Option<T> {
        let left = self.until.saturating_duration_since(Instant::now());
        self.answer.recv_timeout(left).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_not_kept_for_long() {
        let pool = Pool::new(2);
        let quick = Lookup::begin(&pool, Duration::from_secs(60), |_| 7);
        assert_eq!(quick.wait(), Some(7));
        let (end, slow) = sync_channel::<()>(1);
        let late = Lookup::begin(&pool, Duration::from_millis(20), move |until| {
            assert!(slow.recv().is_err());
            until
        });
        assert_eq!(late.wait(), None);
        drop(end);
    }
}
