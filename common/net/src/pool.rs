//! A small pool of threads for work that blocks: files, syncs, locks. Threads are started when
//! there is work for them, so a daemon at rest has none. Who fell idle last is woken first: his
//! memory is warm, and those who are not needed any more end.
//!
//! The queue needs no bound of its own: a session has few jobs under way, and sessions are bounded.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

type Job = Box<dyn FnOnce() + Send>;

/// A worker with nothing to do ends after this time.
const LINGER: Duration = Duration::from_secs(10);

/// Handles to one pool; the workers end when idle, whoever holds handles.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    workers: usize,
    /// Those who sleep and whom nobody has called yet.
    idle: Vec<Thread>,
}

impl Pool {
    /// A pool of at most `most` threads, none yet.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Shared {
            most: most.max(1),
            state: Mutex::new(State::default()),
        }))
    }

    /// Runs `job` soon, on some thread. Jobs of one session may run at the same time.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        state.jobs.push_back(Box::new(job));
        if let Some(sleeper) = state.idle.pop() {
            drop(state);
            return sleeper.unpark();
        }
        if state.workers >= self.0.most {
            // Who is at work looks again.
            return;
        }
        state.workers = state.workers.saturating_add(1);
        drop(state);
        let shared = Arc::clone(&self.0);
        let started = thread::Builder::new()
            .name("pool".into())
            .spawn(move || shared.work());
        if let Err(e) = started {
            self.no_thread(&e);
        }
    }

    /// No thread is to be had: others will do the work, or, when there are none, the caller.
    fn no_thread(&self, why: &std::io::Error) {
        log::warn!("start a thread: {why}");
        let mut state = self.0.lock();
        state.workers = state.workers.saturating_sub(1);
        let job = if state.workers == 0 {
            state.jobs.pop_front()
        } else {
            None
        };
        drop(state);
        if let Some(job) = job {
            job();
        }
    }
}

impl Shared {
    /// A poisoned lock is no reason to stop: the state is whole after every statement.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // In a debug build a panic unwinds; it must not take the worker's place with it.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    log::error!("a job panicked");
                }
                state = self.lock();
                continue;
            }
            let me = thread::current();
            let id = me.id();
            state.idle.push(me);
            drop(state);
            let since = Instant::now();
            thread::park_timeout(LINGER);
            state = self.lock();
            // Not called: the time is over, or nothing was meant.
            if let Some(at) = state.idle.iter().position(|sleeper| sleeper.id() == id) {
                state.idle.remove(at);
                if state.jobs.is_empty() && since.elapsed() >= LINGER {
                    state.workers = state.workers.saturating_sub(1);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn runs_every_job_and_no_more_threads_than_allowed() {
        let pool = Pool::new(3);
        let (send, receive) = mpsc::channel();
        for i in 0..200 {
            let send = send.clone();
            pool.submit(move || send.send(i).unwrap());
        }
        let mut seen: Vec<i32> = receive.iter().take(200).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        assert!(pool.0.lock().workers <= 3);
    }

    #[test]
    fn jobs_run_side_by_side() {
        let pool = Pool::new(2);
        let (a_send, a) = mpsc::channel();
        let (b_send, b) = mpsc::channel();
        let (done_send, done) = mpsc::channel();
        let other = done_send.clone();
        pool.submit(move || {
            b_send.send(()).unwrap();
            a.recv().unwrap();
            done_send.send(()).unwrap();
        });
        pool.submit(move || {
            b.recv().unwrap();
            a_send.send(()).unwrap();
            other.send(()).unwrap();
        });
        for _ in 0..2 {
            done.recv_timeout(Duration::from_secs(10)).unwrap();
        }
    }

    #[test]
    fn a_panic_leaves_the_pool_at_work() {
        let pool = Pool::new(1);
        pool.submit(|| panic!("on purpose"));
        let (send, receive) = mpsc::channel();
        pool.submit(move || send.send(7).unwrap());
        assert_eq!(receive.recv_timeout(Duration::from_secs(10)), Ok(7));
    }
}
