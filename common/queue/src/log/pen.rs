//! The pen of the log: one thread at a time has it, and writes and syncs for all.
//!
//! Who brings a record that wants no company and finds the pen free takes it ([`Log::lead`]): a
//! message alone wakes nobody. The writer takes it for what waits for company and for what a leader
//! leaves after a few batches, since a leader has work of its own. Who has the pen looks for more
//! before it is laid down, under the lock of the queue, so nothing is left behind.
//!
//! All is said in the order in which it became durable. A batch of a few is told by who wrote it; one
//! of many, while the next waits to be written, by the teller.

use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use base::Fail;

use super::segment::Segment;
use super::{Full, Log, Pending, Then, no_room, wait_for, wait_on};
use crate::crash;

/// Octets of records in one batch, unless one alone has more.
const MAX_BATCH: usize = 1 << 20;
/// What can wait, waits this long for company.
const LINGER: Duration = Duration::from_millis(10);
/// Unless so much of it is there.
const CROWD: usize = 128;
/// So many are told by who has the pen.
const FEW: usize = 8;
/// Batches that a leader writes before it goes about its own work again.
const ROUNDS: usize = 4;
/// How long a record waits for a segment.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be said, in order.
pub(super) enum Tell {
    Batch(Vec<Then>, Result<(), Arc<io::Error>>),
    Full(Box<Segment>),
}

impl Log {
    /// A few batches; what comes after them is the writer's.
    pub(super) fn lead(&self) {
        for _ in 0..ROUNDS {
            self.let_others_come();
            if !self.write_batch() {
                return;
            }
        }
        let mut state = self.lock();
        state.pen_taken = false;
        self.0.pending.notify_one();
    }

    /// Where the last batch had company, more of it is on its way: the sync that it then shares costs
    /// more than the moment in which who can run does.
    fn let_others_come(&self) {
        if self.lock().company {
            std::thread::yield_now();
        }
    }

    /// The writer's life: what waits for company, what leaders leave, and what is to be closed.
    pub(super) fn writer(&self) {
        loop {
            let mut state = self.lock();
            while state.pen_taken || state.queue.is_empty() && !state.close {
                state = wait_on(&self.0.pending, state);
            }
            let until = Instant::now() + LINGER;
            while !state.urgent && !state.close && state.queue.len() < CROWD {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                state = wait_for(&self.0.pending, state, left);
            }
            if state.pen_taken {
                continue;
            }
            state.pen_taken = true;
            drop(state);
            while self.write_batch() {}
        }
    }

    /// Writes, syncs and tells what is there. `false` when there was nothing: then the pen is free.
    fn write_batch(&self) -> bool {
        let Some((records, thens, close)) = self.next_batch() else {
            return false;
        };
        let mut current = self
            .0
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_full = |segment: &Segment| segment.room() < records.len();
        if close || !thens.is_empty() && current.as_ref().is_none_or(is_full) {
            self.retire(&mut current);
        }
        if thens.is_empty() {
            return true;
        }
        if current.is_none() {
            *current = self.next_segment();
        }
        let Some(segment) = current.as_mut() else {
            drop(current);
            refuse(thens);
            return true;
        };
        self.lock().since.get_or_insert_with(Instant::now);
        let written = segment.write(&records).and_then(|()| {
            crash::point("log written");
            segment.sync()
        });
        crash::point("log synced");
        let failed = written.is_err();
        if let Err(e) = &written {
            log::error!("write the commit log {}: {e}", segment.name.file());
        }
        self.say(Tell::Batch(thens, written.map_err(Arc::new)));
        if failed {
            // What the disk has of it nobody knows: it is not written to again.
            self.retire(&mut current);
        }
        true
    }

    /// What is there, up to a bound, and whether the segment is to be closed before it. Nothing
    /// lays the pen down.
    fn next_batch(&self) -> Option<(Vec<u8>, Vec<Then>, bool)> {
        let mut state = self.lock();
        let close = std::mem::take(&mut state.close);
        if state.queue.is_empty() && !close {
            state.pen_taken = false;
            return None;
        }
        let (mut records, mut thens) = (Vec::new(), Vec::new());
        while let Some(next) = state.queue.front() {
            if !thens.is_empty() && records.len() + next.record.len() > MAX_BATCH {
                break;
            }
            let Some(Pending { record, then }) = state.queue.pop_front() else {
                break;
            };
            if records.is_empty() {
                records = record;
            } else {
                records.extend_from_slice(&record);
            }
            thens.push(then);
        }
        state.urgent &= !state.queue.is_empty();
        state.company = thens.len() > 1;
        Some((records, thens, close))
    }

    /// Nothing more is written to this one.
    fn retire(&self, current: &mut Option<Segment>) {
        let Some(segment) = current.take() else {
            return;
        };
        let mut state = self.lock();
        state.writing = false;
        state.since = None;
        if segment.is_fresh() {
            state.free.push(segment);
        } else {
            drop(state);
            self.say(Tell::Full(Box::new(segment)));
        }
    }

    fn next_segment(&self) -> Option<Segment> {
        let mut state = self.lock();
        let until = Instant::now() + PATIENCE;
        let segment = loop {
            let segment = state.free.pop();
            // The keeper makes the next one, or this one.
            if state.free.is_empty() {
                self.0.work.notify_one();
            }
            let left = until.saturating_duration_since(Instant::now());
            if segment.is_some() || state.failed.is_some() || left.is_zero() {
                break segment;
            }
            state = wait_for(&self.0.supply, state, left);
        };
        state.writing = segment.is_some();
        segment
    }

    // What is said.

    /// At once, or by the teller, where that would make others wait or come before what it has to
    /// say. Only who has the pen calls this, so all is said in order.
    fn say(&self, tell: Tell) {
        let mut state = self.lock();
        let many = matches!(&tell, Tell::Batch(thens, _) if thens.len() > FEW);
        if state.untold == 0 && (state.queue.is_empty() || !many) {
            drop(state);
            return self.speak(tell);
        }
        state.untold += 1;
        drop(state);
        if let Some(Err(lost)) = self.0.teller.get().map(|teller| teller.send(tell)) {
            // The teller never ends.
            self.speak(lost.0);
        }
    }

    pub(super) fn teller(&self, told: &Receiver<Tell>) {
        while let Ok(tell) = told.recv() {
            self.speak(tell);
            let mut state = self.lock();
            state.untold = state.untold.saturating_sub(1);
        }
    }

    fn speak(&self, tell: Tell) {
        match tell {
            Tell::Batch(thens, result) => {
                for then in thens {
                    then(match &result {
                        Ok(()) => Ok(()),
                        Err(e) => Err(Fail::temp(format!("write the commit log: {e}"))),
                    });
                }
            }
            Tell::Full(segment) => self.keep_full(*segment),
        }
    }

    fn keep_full(&self, segment: Segment) {
        // After all of its records: who was told of one has done what it stands for.
        let mut state = self.lock();
        state.full.push(Full {
            segment,
            since: Instant::now(),
        });
        self.0.work.notify_one();
    }
}

fn refuse(thens: Vec<Then>) {
    for then in thens {
        then(Err(no_room()));
    }
}
