//! Deadlines: a heap with lazy cancelling, so that a session which sets its deadline again with
//! every command costs no heap operation for it.
//!
//! The truth is in the session's [`Slot`]; the heap holds at most a few entries for a slot and an
//! entry that comes up too early is put back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// One session's deadline.
#[derive(Debug, Default, Clone, Copy)]
pub struct Slot {
    deadline: Option<Instant>,
    /// The earliest entry of this slot in the heap.
    scheduled: Option<Instant>,
}

impl Slot {
    /// No deadline any more. What is in the heap for it comes up and is forgotten.
    pub fn cancel(&mut self) {
        self.deadline = None;
    }

    /// Whether there is a deadline.
    pub fn is_armed(&self) -> bool {
        self.deadline.is_some()
    }
}

/// All deadlines of a loop. `K` names a session.
#[derive(Debug)]
pub struct Timers<K> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
        }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Sets `slot`'s deadline, in place of the one before.
    pub fn arm(&mut self, slot: &mut Slot, key: K, deadline: Instant) {
        slot.deadline = Some(deadline);
        self.schedule(slot, key, deadline);
    }

    fn schedule(&mut self, slot: &mut Slot, key: K, at: Instant) {
        if slot.scheduled.is_none_or(|earlier| earlier > at) {
            slot.scheduled = Some(at);
            self.heap.push(Reverse((at, key)));
        }
    }

    /// How long the loop may sleep; `None` for ever.
    pub fn sleep(&self, now: Instant) -> Option<Duration> {
        self.heap
            .peek()
            .map(|Reverse((at, _))| at.saturating_duration_since(now))
    }

    /// The next entry that is due. Ask [`Timers::fires`] with its session's slot; where the
    /// session is gone there is nothing to do.
    pub fn due(&mut self, now: Instant) -> Option<(Instant, K)> {
        match self.heap.peek() {
            Some(Reverse((at, _))) if *at <= now => self.heap.pop().map(|Reverse(entry)| entry),
            _ => None,
        }
    }

    /// Whether the entry that [`Timers::due`] gave is the deadline of `slot`; if so it is used up.
    pub fn fires(&mut self, slot: &mut Slot, key: K, at: Instant, now: Instant) -> bool {
        if slot.scheduled == Some(at) {
            slot.scheduled = None;
        }
        match slot.deadline {
            Some(deadline) if deadline <= now => {
                slot.deadline = None;
                true
            }
            Some(deadline) => {
                self.schedule(slot, key, deadline);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(timers: &mut Timers<u8>, slot: &mut Slot, now: Instant) -> bool {
        let mut fired = false;
        while let Some((at, key)) = timers.due(now) {
            fired |= timers.fires(slot, key, at, now);
        }
        fired
    }

    #[test]
    fn a_deadline_set_again_fires_once_and_late() {
        let (mut timers, mut slot) = (Timers::default(), Slot::default());
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        for s in 10..20 {
            timers.arm(&mut slot, 1, at(s));
        }
        assert_eq!(timers.heap.len(), 1);
        assert!(!run(&mut timers, &mut slot, at(12)));
        assert_eq!(timers.sleep(at(12)), Some(Duration::from_secs(7)));
        assert!(run(&mut timers, &mut slot, at(19)));
        assert!(!run(&mut timers, &mut slot, at(99)));
        assert_eq!(timers.sleep(at(99)), None);
    }

    #[test]
    fn an_earlier_deadline_overtakes_and_a_cancelled_one_is_silent() {
        let (mut timers, mut slot) = (Timers::default(), Slot::default());
        let start = Instant::now();
        timers.arm(&mut slot, 1, start + Duration::from_secs(60));
        timers.arm(&mut slot, 1, start + Duration::from_secs(5));
        assert!(run(&mut timers, &mut slot, start + Duration::from_secs(5)));
        assert!(!run(
            &mut timers,
            &mut slot,
            start + Duration::from_secs(60)
        ));
        timers.arm(&mut slot, 1, start + Duration::from_secs(70));
        slot.cancel();
        assert!(!run(
            &mut timers,
            &mut slot,
            start + Duration::from_secs(70)
        ));
    }
}
