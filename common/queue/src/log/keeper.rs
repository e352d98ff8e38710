//! The segments of a log: one is always ready before it is needed, and those that are full are made
//! empty again when there are many of them or they are old.

use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use base::Doing;

use super::recover;
use super::segment::{Segment, Side};
use super::{Full, Log};
use crate::crash;
use crate::dir::Dir;
use crate::id::QueueId;

/// Segments of a process at most.
pub(super) const MAX_SEGMENTS: usize = 16;
/// Full segments are emptied when there are so many of them,
const EMPTY_AT: usize = 10;
/// or after this time, in which most of the messages were delivered and need no sync any more.
const EMPTY_AFTER: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// A segment that could not be made is tried again after this time.
const AGAIN: Duration = Duration::from_secs(60);

impl Log {
    /// The keeper's life.
    pub(super) fn keeper(&self) {
        loop {
            let mut state = self.lock();
            let held =
                state.free.len() + state.full.len() + state.in_hand + usize::from(state.writing);
            let wants = state.free.is_empty()
                && held < MAX_SEGMENTS
                && state.failed.is_none_or(|until| Instant::now() >= until);
            if wants {
                drop(state);
                self.make_segment();
                continue;
            }
            let old = |since: Instant| since.elapsed() >= EMPTY_AFTER;
            if state.since.is_some_and(old) && !state.close {
                state.close = true;
                self.0.pending.notify_one();
            }
            let due = state.full.len() >= EMPTY_AT || state.full.iter().any(|full| old(full.since));
            if due {
                let full = std::mem::take(&mut state.full);
                state.in_hand = full.len();
                drop(state);
                self.empty(full);
            } else {
                drop(
                    self.0
                        .work
                        .wait_timeout(state, LOOK)
                        .unwrap_or_else(PoisonError::into_inner),
                );
            }
        }
    }

    fn make_segment(&self) {
        let made = Segment::create(&self.0.dir, self.0.side, self.0.size)
            .doing(|| format!("make a commit log in {}", self.0.dir.path().display()));
        let mut state = self.lock();
        match made {
            Ok(segment) => {
                state.free.push(segment);
                state.failed = None;
                self.0.supply.notify_one();
            }
            Err(fail) => {
                if state.failed.is_none() {
                    log::warn!("{fail}; every message is synced by itself");
                }
                state.failed = Some(Instant::now() + AGAIN);
                self.0.supply.notify_one();
            }
        }
    }

    /// Makes durable what the records of full segments stand for, and takes those out of force.
    fn empty(&self, full: Vec<Full>) {
        let mut segments: Vec<Segment> = full.into_iter().map(|full| full.segment).collect();
        let made_durable = sync_all(&self.0.lane)
            .doing(|| format!("sync {}", self.0.lane.path().display()))
            .and_then(|()| match self.0.side {
                Side::Accept => Ok(()),
                Side::Work => recover::keep_notes(&self.0.dir, &segments),
            });
        let mut free = Vec::new();
        let mut left = Vec::new();
        match made_durable {
            Ok(()) => {
                crash::point("log made durable");
                for mut segment in segments.drain(..) {
                    match segment.renew() {
                        Ok(()) => free.push(segment),
                        Err(e) => {
                            log::error!("empty the commit log {}: {e}", segment.name.file());
                            left.push(segment);
                        }
                    }
                }
            }
            Err(fail) => log::error!("{fail}"),
        }
        left.append(&mut segments);
        let since = Instant::now();
        let mut state = self.lock();
        state.in_hand = 0;
        let left = left.into_iter().map(|segment| Full { segment, since });
        state.full.extend(left);
        state.free.extend(free);
        self.0.supply.notify_one();
    }
}

/// All that this file system has in memory goes to the disk: files, names and removals.
pub(super) fn sync_all(lane: &Dir) -> io::Result<()> {
    // A directory that may not be read cannot be synced, but any file in it can.
    let file = match lane.unnamed()? {
        Some(file) => file,
        None => {
            let name = format!("sync.{}", QueueId::generate().map_err(io::Error::other)?);
            let file = lane.named(&name)?;
            lane.unlink(&name)?;
            file
        }
    };
    Ok(nix::unistd::syncfs(&file)?)
}
