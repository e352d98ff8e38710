//! Which commit log a program keeps: one for as long as it runs, a small one where a note must be
//! written, or none.

use std::sync::Arc;

use base::Fail;

use crate::log::recover::{Found, recover};
use crate::log::{Log, Side};
use crate::queue::{LOG, Queue};

/// The commit log of a program that works on a few entries and ends.
const SHORT_LOG: u64 = 256 * 1024;

/// What a program that keeps a commit log does with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logging {
    /// It accepts them.
    Accepts,
    /// It delivers or relays them.
    Works,
}

impl Queue {
    /// Keeps a commit log of segments of this many octets from now on, once there is something to
    /// write into it; 0 is for none. Without its directory there is none either.
    pub fn keep_log(&self, what: Logging, segment: u64) {
        if self.0.log_dir.is_none() {
            log::warn!(
                "{} is missing or closed to us: every message is synced by itself",
                self.0.path.join(LOG).display()
            );
        }
        let side = match what {
            Logging::Accepts => Side::Accept,
            Logging::Works => Side::Work,
        };
        if segment > 0
            && let Some(log) = self.new_log(side, segment)
        {
            // A second call changes nothing.
            self.0.log.set(log).ok();
        }
    }

    fn new_log(&self, side: Side, segment: u64) -> Option<Log> {
        let dir = Arc::clone(self.0.log_dir.as_ref()?);
        let lane = self.0.dirs.get(2).and_then(|dir| dir.as_ref().ok())?;
        Some(Log::new(side, segment, dir, Arc::clone(lane)))
    }

    /// Whether a commit log is kept and takes records now. The first question has it made.
    pub fn has_log(&self) -> bool {
        self.ready_log().is_some()
    }

    /// The log, where one is kept and takes records now.
    pub(crate) fn ready_log(&self) -> Option<&Log> {
        self.0.log.get().filter(|log| log.is_ready())
    }

    /// The log for what must be in one: a small one, where none is kept. `None` where there can be
    /// none, and so no message was accepted by one.
    pub(crate) fn work_log(&self) -> Result<Option<&Log>, Fail> {
        let log = match self.0.log.get().or_else(|| self.0.notes.get()) {
            Some(log) => log,
            None => {
                let Some(log) = self.new_log(Side::Work, SHORT_LOG) else {
                    return Ok(None);
                };
                self.0.notes.get_or_init(|| log)
            }
        };
        log.wait_until_ready()?;
        Ok(Some(log))
    }

    /// Waits until all that was finished is gone from its lane.
    pub fn flush(&self) {
        if let Some(log) = self.0.log.get() {
            log.flush();
        }
    }

    /// Puts into the lanes what power loss took from them, out of the logs of processes that are no
    /// more. Every runner does it before it claims anything, by [`Queue::recover`], and now and then.
    pub fn recover_logs(&self) -> Result<(), Fail> {
        let Some(dir) = self.0.log_dir.as_ref().filter(|dir| dir.can_sync()) else {
            return Ok(());
        };
        let found = recover(self, dir)?;
        if found != Found::default() {
            log::warn!(
                "recovered from the commit log: {} messages, {} journals; {} removals done again",
                found.restored,
                found.mended,
                found.removed
            );
        }
        Ok(())
    }
}
