//! The commit log: one sync for all that comes together, so that a message or a step of its delivery
//! costs a part of a sync and not two of its own (DESIGN 4).
//!
//! A process that accepts writes the messages that ended together into its segment, syncs that, and
//! gives the files their names without syncing them. A process that works on them writes down what
//! it is going to append and what it has finished. Nobody reads any of it but recovery
//! ([`recover`]), after power loss: the files are the interface.
//!
//! Three threads, started by the first record: one writes and syncs ([`Log::writer`]); one tells
//! those who wait, so that the next sync need not ([`Log::teller`]); one makes segments, and makes
//! those that are full empty again by syncing the file system once ([`Log::keeper`]).
//!
//! A log is never in the way: where there is no room in it, or no file for it, [`Log::is_ready`] says
//! no and every file is synced by itself.

mod keeper;
mod record;
pub(crate) mod recover;
mod segment;

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base::Fail;

use crate::crash;
use crate::dir::Dir;
use crate::event::Record;
use crate::id::QueueId;
use crate::queue::Lane;
use record::Entry;
use segment::Segment;
pub(crate) use segment::Side;

/// Octets of records in one batch, unless one alone has more.
const MAX_BATCH: usize = 1 << 20;
/// What can wait, waits this long for company.
const LINGER: Duration = Duration::from_millis(10);
/// Unless so much of it is there.
const CROWD: usize = 128;
/// How long a record waits for a segment.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// For the writer: a record, or a segment.
    pending: Condvar,
    /// For the keeper.
    work: Condvar,
}

#[derive(Default)]
struct State {
    started: bool,
    queue: VecDeque<Pending>,
    /// Something in the queue wants no company.
    urgent: bool,
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

/// What the teller gets, in order.
enum Tell {
    Batch(Vec<Then>, Result<(), Arc<io::Error>>),
    Full(Box<Segment>),
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
            pending: Condvar::new(),
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
        let (writer, teller, keeper) = (self.clone(), self.clone(), self.clone());
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let started = thread("log-keeper")
            .spawn(move || keeper.keeper())
            .and_then(|_| thread("log-teller").spawn(move || teller.teller(&told)))
            .and_then(|_| thread("log-writer").spawn(move || writer.writer(&tell)));
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
        self.push(records, true, then);
    }

    /// These appends are about to be made. Waits until that is durable.
    pub(crate) fn intents(&self, intents: Vec<(QueueId, Record)>) -> Result<(), Fail> {
        let count = intents.len();
        let (said, heard) = mpsc::channel();
        for (id, record) in intents {
            let said = said.clone();
            let then = Box::new(move |result| drop(said.send(result)));
            self.submit(&Entry::Intent { id, record }, true, then);
        }
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
        self.push(
            Vec::new(),
            true,
            Box::new(move |result| drop(said.send(result))),
        );
        // Whoever failed was told so himself.
        wait(&heard, 1).ok();
    }

    fn submit(&self, entry: &Entry<'_>, urgent: bool, then: Then) {
        match entry.encode().filter(|record| record.len() <= self.limit()) {
            Some(record) => self.push(record, urgent, then),
            None => then(Err(too_long())),
        }
    }

    fn push(&self, record: Vec<u8>, urgent: bool, then: Then) {
        let mut state = self.lock();
        if !self.has_room(&state) {
            drop(state);
            return then(Err(no_room()));
        }
        state.queue.push_back(Pending { record, then });
        state.urgent |= urgent;
        self.0.pending.notify_one();
    }

    // The writer.

    fn writer(&self, tell: &Sender<Tell>) {
        let mut current: Option<Segment> = None;
        loop {
            let (mut records, mut thens) = self.next_batch();
            if self.close_is_due() {
                self.retire(&mut current, tell);
            }
            if current
                .as_ref()
                .is_none_or(|segment| segment.room() < records.len())
            {
                self.retire(&mut current, tell);
                current = self.next_segment();
            }
            let Some(segment) = &mut current else {
                refuse(std::mem::take(&mut thens));
                continue;
            };
            if records.is_empty() && thens.is_empty() {
                continue;
            }
            self.lock().since.get_or_insert_with(Instant::now);
            let written = segment.write(&records).and_then(|()| {
                crash::point("log written");
                segment.sync()
            });
            crash::point("log synced");
            records.clear();
            let failed = written.is_err();
            if let Err(e) = &written {
                log::error!("write the commit log {}: {e}", segment.name.file());
            }
            if tell
                .send(Tell::Batch(thens, written.map_err(Arc::new)))
                .is_err()
            {
                return;
            }
            if failed {
                // What the disk has of it nobody knows: it is not written to again.
                self.retire(&mut current, tell);
            }
        }
    }

    /// Waits for records, and a little for company where none is urgent. Nothing, where the segment
    /// is to be closed.
    fn next_batch(&self) -> (Vec<u8>, Vec<Then>) {
        let mut state = self.lock();
        while state.queue.is_empty() && !state.close {
            state = self
                .0
                .pending
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + LINGER;
        while !state.urgent && !state.close && state.queue.len() < CROWD {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self
                .0
                .pending
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let (mut records, mut thens) = (Vec::new(), Vec::new());
        while let Some(next) = state.queue.front() {
            if !thens.is_empty() && records.len() + next.record.len() > MAX_BATCH {
                break;
            }
            let Some(Pending { record, then }) = state.queue.pop_front() else {
                break;
            };
            records.extend_from_slice(&record);
            thens.push(then);
        }
        state.urgent &= !state.queue.is_empty();
        (records, thens)
    }

    fn close_is_due(&self) -> bool {
        std::mem::take(&mut self.lock().close)
    }

    /// Nothing more is written to this one.
    fn retire(&self, current: &mut Option<Segment>, tell: &Sender<Tell>) {
        let Some(segment) = current.take() else {
            return;
        };
        let mut state = self.lock();
        state.writing = false;
        state.since = None;
        if segment.is_fresh() {
            state.free.push(segment);
        } else if let Err(lost) = tell.send(Tell::Full(Box::new(segment))) {
            drop(lost);
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
            state = self
                .0
                .pending
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        };
        state.writing = segment.is_some();
        segment
    }

    // The teller.

    fn teller(&self, told: &Receiver<Tell>) {
        while let Ok(tell) = told.recv() {
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

fn refuse(thens: Vec<Then>) {
    for then in thens {
        then(Err(no_room()));
    }
}
