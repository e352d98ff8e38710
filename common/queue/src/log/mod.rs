//! The commit log: one sync for all that comes together, so that a message or a step of its delivery
//! costs a part of a sync and not two of its own (DESIGN 4).
//!
//! A process that accepts writes files without syncing them, and the messages that ended together
//! into its segment, which it syncs. A process that works on them writes down what it is going to
//! append and what it has finished. Nobody reads any of it but recovery ([`recover`]), after power
//! loss: the files are the interface.
//!
//! One thread at a time has the pen ([`pen`]). Three threads are started by the first record: the
//! writer and the teller help whoever has it; the keeper makes segments, and makes those that are
//! full empty again by syncing the file system once ([`keeper`]).
//!
//! A log is never in the way: where there is no room in it, or no file for it, [`Log::is_ready`] says
//! no and every file is synced by itself.

#[cfg(any(test, fuzzing))]
#[allow(clippy::expect_used, reason = "a finding is a panic")]
pub(crate) mod fuzz;
mod keeper;
mod pen;
mod record;
pub(crate) mod recover;
mod segment;

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base::Fail;

use crate::dir::Dir;
use crate::event::Record;
use crate::id::QueueId;
use crate::queue::Lane;
use pen::Tell;
use record::Entry;
use segment::Segment;
pub(crate) use segment::Side;

/// Told whether a record is durable. It must not wait for anything.
pub(crate) type Then = Box<dyn FnOnce(Result<(), Fail>) + Send>;

/// The log of this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Log(Arc<Shared>);

struct Shared {
    side: Side,
    /// Octets of a segment.
    size: u64,
    dir: Arc<Dir>,
    /// A directory with messages: what is synced to empty a segment.
    lane: Arc<Dir>,
    state: Mutex<State>,
    /// The segment that is written, for who has the pen ([`State::pen_taken`]).
    current: Mutex<Option<Segment>>,
    teller: OnceLock<Sender<Tell>>,
    /// For the writer: a record.
    pending: Condvar,
    /// For who has the pen: a segment.
    supply: Condvar,
    /// For the keeper.
    work: Condvar,
}

#[derive(Default)]
struct State {
    started: bool,
    queue: VecDeque<Pending>,
    /// Somebody writes, and looks for more before he stops.
    pen_taken: bool,
    /// What the teller has not said yet: until then nobody else says anything.
    untold: usize,
    /// Something in the queue wants no company.
    urgent: bool,
    /// The last batch had more than one record.
    company: bool,
    free: Vec<Segment>,
    full: Vec<Full>,
    /// Full segments that the keeper has in hand.
    in_hand: usize,
    /// The segment that is being written, for who counts them.
    writing: bool,
    /// When the one that is being written got its first record.
    since: Option<Instant>,
    /// The one that is being written is to be closed, to be emptied.
    close: bool,
    /// No room and no new segment before then.
    failed: Option<Instant>,
}

struct Pending {
    record: Vec<u8>,
    then: Then,
}

/// A segment that nothing more is written to.
struct Full {
    segment: Segment,
    since: Instant,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({:?})", self.0.side)
    }
}

impl Log {
    /// A log that has no file yet.
    pub(crate) fn new(side: Side, size: u64, dir: Arc<Dir>, lane: Arc<Dir>) -> Self {
        Self(Arc::new(Shared {
            side,
            size,
            dir,
            lane,
            state: Mutex::new(State::default()),
            current: Mutex::new(None),
            teller: OnceLock::new(),
            pending: Condvar::new(),
            supply: Condvar::new(),
            work: Condvar::new(),
        }))
    }

    /// Whether a record would be taken now. The first question starts the work.
    pub(crate) fn is_ready(&self) -> bool {
        let mut state = self.lock();
        if !state.started {
            state.started = self.start();
        }
        self.has_room(&state)
    }

    /// The same, and waits for the first segment: for who has no other way.
    pub(crate) fn wait_until_ready(&self) -> Result<(), Fail> {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.is_ready() {
            if self.lock().failed.is_some() || Instant::now() > until {
                return Err(Fail::temp(format!(
                    "no commit log can be kept in {}",
                    self.0.dir.path().display()
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The longest record that is taken.
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.0.size / 4).unwrap_or(0)
    }

    /// Who accepts can do without; who works waits for a segment, if one can be had.
    fn has_room(&self, state: &State) -> bool {
        let room = state.writing || !state.free.is_empty();
        state.started && (room || self.0.side == Side::Work && state.failed.is_none())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> bool {
        let (tell, told) = mpsc::channel();
        self.0.teller.set(tell).ok();
        let (writer, teller, keeper) = (self.clone(), self.clone(), self.clone());
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let started = thread("log-keeper")
            .spawn(move || keeper.keeper())
            .and_then(|_| thread("log-teller").spawn(move || teller.teller(&told)))
            .and_then(|_| thread("log-writer").spawn(move || writer.writer()));
        if let Err(e) = &started {
            log::warn!("start the commit log's threads: {e}");
        }
        started.is_ok()
    }

    // What can be said.

    /// These messages were accepted, all of them or none.
    pub(crate) fn accepted<'a>(
        &self,
        messages: impl Iterator<Item = (Lane, QueueId, &'a [u8])>,
        then: Then,
    ) {
        let mut records = Vec::new();
        for (lane, id, file) in messages {
            match (Entry::Accepted { lane, id, file }).encode() {
                Some(record) => records.extend(record),
                None => return then(Err(too_long())),
            }
        }
        if records.len() > self.limit() {
            return then(Err(too_long()));
        }
        self.push(
            vec![Pending {
                record: records,
                then,
            }],
            true,
        );
    }

    /// These appends are about to be made. Waits until that is durable.
    pub(crate) fn intents(&self, intents: Vec<(QueueId, Record)>) -> Result<(), Fail> {
        let count = intents.len();
        let (said, heard) = mpsc::channel();
        let mut all = Vec::with_capacity(count);
        for (id, record) in intents {
            let said = said.clone();
            let then = Box::new(move |result| drop(said.send(result)));
            all.extend(self.encoded(&Entry::Intent { id, record }, then));
        }
        self.push(all, true);
        wait(&heard, count)
    }

    /// A message was finished: then its file may go.
    pub(crate) fn finished(&self, lane: Lane, id: QueueId, then: Then) {
        self.submit(&Entry::Finished { lane, id }, false, then);
    }

    /// A message, durable in its file, is about to leave its lane. Waits until that is durable.
    pub(crate) fn left(&self, id: QueueId) -> Result<(), Fail> {
        let (said, heard) = mpsc::channel();
        let then = Box::new(move |result| drop(said.send(result)));
        self.submit(&Entry::Left { id }, true, then);
        wait(&heard, 1)
    }

    /// Waits until all that was said before is durable and everybody was told.
    pub(crate) fn flush(&self) {
        if !self.lock().started {
            return;
        }
        let (said, heard) = mpsc::channel();
        let nothing = Pending {
            record: Vec::new(),
            then: Box::new(move |result| drop(said.send(result))),
        };
        self.push(vec![nothing], true);
        // Whoever failed was told so himself.
        wait(&heard, 1).ok();
    }

    fn submit(&self, entry: &Entry<'_>, urgent: bool, then: Then) {
        let one = self.encoded(entry, then);
        self.push(one.into_iter().collect(), urgent);
    }

    fn encoded(&self, entry: &Entry<'_>, then: Then) -> Option<Pending> {
        match entry.encode().filter(|record| record.len() <= self.limit()) {
            Some(record) => Some(Pending { record, then }),
            None => {
                then(Err(too_long()));
                None
            }
        }
    }

    /// Takes all of them, for one batch if it holds them.
    fn push(&self, all: Vec<Pending>, urgent: bool) {
        if all.is_empty() {
            return;
        }
        let mut state = self.lock();
        if !self.has_room(&state) {
            drop(state);
            return all.into_iter().for_each(|one| (one.then)(Err(no_room())));
        }
        state.queue.extend(all);
        state.urgent |= urgent;
        if state.pen_taken {
            return;
        }
        if urgent {
            state.pen_taken = true;
            drop(state);
            self.lead();
        } else {
            self.0.pending.notify_one();
        }
    }
}

/// A poisoned lock is no reason to stop: the state is whole after every statement.
fn wait_on<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    let waited = condition.wait(state);
    waited.unwrap_or_else(PoisonError::into_inner)
}

fn wait_for<'a>(
    condition: &Condvar,
    state: MutexGuard<'a, State>,
    time: Duration,
) -> MutexGuard<'a, State> {
    let waited = condition.wait_timeout(state, time);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

fn wait(heard: &Receiver<Result<(), Fail>>, count: usize) -> Result<(), Fail> {
    let lost = || Err(Fail::temp("the commit log's thread ended"));
    (0..count).try_for_each(|_| heard.recv().unwrap_or_else(|_| lost()))
}

fn too_long() -> Fail {
    Fail::temp("too long for the commit log")
}

fn no_room() -> Fail {
    Fail::temp("no room in the commit log")
}
