//! Work for a few threads, in heaps: everything for one mailbox is one heap, and one thread at a
//! time works on a heap. So mail for the same user goes under one lock and one sync, mail for
//! different users goes at the same time, and a mailbox that takes long keeps one thread and
//! nobody else's mail.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The heaps.
#[derive(Debug)]
pub(crate) struct Dispatch<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: HashMap<String, VecDeque<(u64, T)>>,
    /// Whose heaps can be taken, the longest waiting first; nobody twice.
    ready: VecDeque<String>,
    busy: HashSet<String>,
    /// Nothing is given out for now.
    held: bool,
    closed: bool,
}

impl<T> Dispatch<T> {
    pub(crate) fn new() -> Self {
        let state = State {
            waiting: HashMap::new(),
            ready: VecDeque::new(),
            busy: HashSet::new(),
            held: false,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
        }
    }

    /// Puts work that weighs so many octets on a heap.
    pub(crate) fn add(&self, heap: &str, weight: u64, work: T) {
        let mut state = self.state();
        let waiting = state.waiting.entry(heap.to_owned()).or_default();
        waiting.push_back((weight, work));
        if waiting.len() == 1 && !state.busy.contains(heap) {
            state.ready.push_back(heap.to_owned());
            self.wake.notify_one();
        }
    }

    /// Waits for work: the first of a heap, at most `count` and about `weight` octets of it. The
    /// heap is the caller's until [`Dispatch::done`]. `None` when there will be no more.
    pub(crate) fn take(&self, count: usize, weight: u64) -> Option<(String, Vec<T>)> {
        let mut state = self.state();
        let heap = loop {
            let ready = match state.held {
                true => None,
                false => state.ready.pop_front(),
            };
            match ready {
                Some(heap) => break heap,
                None if state.closed => return None,
                None => {
                    let woken = self.wake.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        let mut taken = Vec::new();
        let mut heavy: u64 = 0;
        if let Some(waiting) = state.waiting.get_mut(&heap) {
            while taken.len() < count
                && let Some((one, _)) = waiting.front()
                && (taken.is_empty() || heavy.saturating_add(*one) <= weight)
                && let Some((one, work)) = waiting.pop_front()
            {
                heavy = heavy.saturating_add(one);
                taken.push(work);
            }
        }
        state.busy.insert(heap.clone());
        Some((heap, taken))
    }

    /// Gives a heap back.
    pub(crate) fn done(&self, heap: &str) {
        let mut state = self.state();
        state.busy.remove(heap);
        match state.waiting.get(heap) {
            Some(waiting) if !waiting.is_empty() => {
                state.ready.push_back(heap.to_owned());
                self.wake.notify_one();
            }
            _ => {
                state.waiting.remove(heap);
            }
        }
    }

    /// Gives nothing out until [`Dispatch::release`].
    pub(crate) fn hold(&self) {
        self.state().held = true;
    }

    pub(crate) fn release(&self) {
        self.state().held = false;
        self.wake.notify_all();
    }

    /// Ends every [`Dispatch::take`], once the heaps are empty.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.wake.notify_all();
    }

    /// No operation leaves it half changed, so a thread that ended with the lock does not matter.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heap_is_one_thread_s_at_a_time() {
        let d = Dispatch::new();
        for n in 0..3 {
            d.add("ann", 1, n);
        }
        d.add("bob", 1, 10);
        assert_eq!(d.take(2, 100), Some(("ann".into(), vec![0, 1])));
        assert_eq!(d.take(2, 100), Some(("bob".into(), vec![10])));
        d.add("ann", 1, 3);
        d.done("bob");
        d.done("ann");
        assert_eq!(d.take(9, 100), Some(("ann".into(), vec![2, 3])));
        d.done("ann");
        d.close();
        assert_eq!(d.take(9, 100), None);
        assert!(d.state().waiting.is_empty());
    }

    #[test]
    fn a_batch_is_not_too_heavy_but_has_one_at_least() {
        let d = Dispatch::new();
        for (n, weight) in [500, 40, 40, 40].into_iter().enumerate() {
            d.add("ann", weight, n);
        }
        for want in [vec![0], vec![1, 2], vec![3]] {
            assert_eq!(d.take(9, 100), Some(("ann".into(), want)));
            d.done("ann");
        }
    }

    #[test]
    fn what_is_held_is_given_out_later() {
        let d = Dispatch::new();
        d.hold();
        std::thread::scope(|s| {
            let taken = s.spawn(|| d.take(9, 100));
            d.add("ann", 1, 0);
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!taken.is_finished());
            d.add("ann", 1, 1);
            d.release();
            assert_eq!(taken.join().unwrap(), Some(("ann".into(), vec![0, 1])));
        });
    }

    #[test]
    fn closing_wakes_who_waits_and_lets_the_rest_be_done() {
        let d = Dispatch::new();
        std::thread::scope(|s| {
            let waits = s.spawn(|| {
                let first = d.take(1, 1);
                if let Some((heap, _)) = &first {
                    d.done(heap);
                }
                (first, d.take(1, 1))
            });
            d.add("ann", 1, 7);
            d.close();
            assert_eq!(waits.join().unwrap(), (Some(("ann".into(), vec![7])), None));
        });
    }
}
