//! What an operator does to single entries, through mailq: hold, release, remove, hasten.
//!
//! Each takes the entry's lock first, so none of it happens under the hands of deliver or qrun.

use base::{Doing, Fail};

use crate::claim::{Claim, Locked, lock};
use crate::entry::touch;
use crate::id::QueueId;
use crate::queue::{Lane, Place, Queue};

impl Queue {
    /// Puts an entry aside. `false` when it is not there.
    pub fn hold(&self, lane: Lane, id: &QueueId, reason: &str) -> Result<bool, Fail> {
        match self.claim(lane, id)? {
            Claim::Entry(entry) => entry.hold(reason).map(|()| true),
            Claim::Gone => Ok(false),
            Claim::Busy => Err(busy(id)),
            Claim::Damaged(reason) => Err(damaged(id, &reason)),
        }
    }

    /// Puts an entry of `hold/` or `damaged/` back into its lane, due at once, and says into which;
    /// `None` when it is in neither. What is still damaged is refused.
    pub fn release(&self, id: &QueueId) -> Result<Option<Lane>, Fail> {
        for place in [Place::Hold, Place::Damaged] {
            match self.claim_in(place, id)? {
                Claim::Entry(entry) => return entry.release().map(Some),
                Claim::Gone => (),
                Claim::Busy => return Err(busy(id)),
                Claim::Damaged(reason) => return Err(damaged(id, &reason)),
            }
        }
        Ok(None)
    }

    /// Deletes a message, wherever it is. `false` when it is not there.
    pub fn remove(&self, place: Place, id: &QueueId) -> Result<bool, Fail> {
        let dir = self.dir(place)?;
        // Held until the name is gone.
        let _locked = match place {
            // Its owner's file: qrun can read it and nobody locks it.
            Place::Drop => None,
            _ => match lock(dir, id)? {
                Locked::File(file, _) => Some(file),
                Locked::Gone => return Ok(false),
                Locked::Busy => return Err(busy(id)),
                Locked::Strange => None,
            },
        };
        if matches!(place, Place::Local | Place::Relay | Place::Hold) {
            // What a crash left of its submission must not bring it back.
            let drop = self.dir(Place::Drop)?;
            if drop
                .unlink(id.as_str())
                .doing(|| format!("remove {}", drop.name(id.as_str())))?
            {
                drop.sync()?;
            }
        }
        let removed = dir
            .unlink(id.as_str())
            .doing(|| format!("remove {}", dir.name(id.as_str())))?;
        dir.sync()?;
        Ok(removed)
    }

    /// Makes an entry due now. `false` when it is not there.
    pub fn hasten(&self, lane: Lane, id: &QueueId) -> Result<bool, Fail> {
        let there = self.due(lane, id)?.is_some();
        if there {
            touch(self.dir(lane)?, id);
        }
        Ok(there)
    }
}

fn busy(id: &QueueId) -> Fail {
    Fail::temp(format!("{id}: is being delivered; try again"))
}

fn damaged(id: &QueueId, reason: &str) -> Fail {
    Fail::data(format!("{id}: damaged: {reason}"))
}
