//! Group commit: a few threads that commit what sessions hand them, side by side, so that the file
//! system's journal and the directory syncs are shared between messages that end together.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use base::{Doing, Fail};

use crate::commit::Sealed;
use crate::id::QueueId;
use crate::queue::Queue;

/// Enough to keep one disk's journal busy (measured on ext4: no gain beyond 20).
const THREADS: usize = 16;

type Answer = Box<dyn FnOnce(Result<Vec<QueueId>, Fail>) + Send>;

/// The pool. Dropped, it commits what was submitted and then ends.
#[derive(Debug)]
pub struct Committer {
    work: Arc<Work>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Work {
    jobs: Mutex<Jobs>,
    came: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<(Vec<Sealed>, Answer)>,
    closed: bool,
}

impl Committer {
    /// Starts the threads.
    pub fn start(queue: &Queue) -> Result<Self, Fail> {
        let work = Arc::new(Work::default());
        let mut threads = Vec::new();
        for number in 0..THREADS {
            let (queue, work) = (queue.clone(), Arc::clone(&work));
            let thread = std::thread::Builder::new()
                .name(format!("commit-{number}"))
                .spawn(move || {
                    while let Some((batch, answer)) = work.next() {
                        answer(queue.commit(batch));
                    }
                })
                .doing(|| "start a thread to commit to the queue")?;
            threads.push(thread);
        }
        Ok(Self { work, threads })
    }

    /// Commits `batch`, all or nothing, and calls `answer` on one of the pool's threads.
    pub fn submit(
        &self,
        batch: Vec<Sealed>,
        answer: impl FnOnce(Result<Vec<QueueId>, Fail>) + Send + 'static,
    ) {
        self.work
            .lock()
            .waiting
            .push_back((batch, Box::new(answer)));
        self.work.came.notify_one();
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.work.lock().closed = true;
        self.work.came.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread that commits to the queue died");
            }
        }
    }
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<(Vec<Sealed>, Answer)> {
        let mut jobs = self.lock();
        loop {
            if let Some(job) = jobs.waiting.pop_front() {
                return Some(job);
            }
            if jobs.closed {
                return None;
            }
            jobs = self.came.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work")
            .field("waiting", &self.lock().waiting.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::{scratch, sealed};
    use crate::queue::{Lane, Place};
    use std::sync::mpsc;

    #[test]
    fn everything_that_was_submitted_is_answered() {
        let (_dir, queue) = scratch();
        let committer = Committer::start(&queue).unwrap();
        let (tell, told) = mpsc::channel();
        for _ in 0..100 {
            let tell = tell.clone();
            committer.submit(vec![sealed(&queue, Lane::Local, b"x")], move |done| {
                tell.send(done.unwrap().len()).unwrap();
            });
        }
        drop(committer);
        drop(tell);
        assert_eq!(told.iter().sum::<usize>(), 100);
        assert_eq!(crate::queue::tests::ids(&queue, Place::Local).len(), 100);
    }
}
