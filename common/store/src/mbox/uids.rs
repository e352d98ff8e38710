//! Which UIDs an mbox's messages have, and what has to be written so that they keep them.
//!
//! The X-IMAPbase of the first message says UIDVALIDITY and the last UID given. An X-UID is
//! believed if it ascends, is not above that last one, and no X-UIDVALIDITY beside it says that it
//! belongs elsewhere. Where more were given than it says, the file comes from a backup, and the next
//! is beyond all that may have been given. A message without a believed one gets the next; so do
//! those behind it, since UIDs ascend. Where another program lost the field, a message that this
//! session knows by its header keeps its UID.

use std::collections::{BTreeSet, HashMap};

use base::Fail;

use super::Mbox;
use super::rewrite::Changes;
use super::scan::{Found, Record};
use crate::base_file::{self, Base, LAST_UID};
use crate::lock::MailLock;
use crate::trouble::Result;

impl Mbox {
    /// Takes over what a scan found. `false` if something has to be written before UIDs are told:
    /// then they are not final.
    pub(super) fn believe(&mut self, found: Found, before: &[Record]) -> Result<bool> {
        let kept = Base::read(&self.journal)?;
        let Found { records, base } = found;
        self.records = records;
        let sound = base.filter(|(_, last)| *last <= LAST_UID);
        let known = match (sound, base) {
            (Some(sound), _) => Some(sound),
            // A last UID that leaves no room: all is numbered anew.
            (None, Some(_)) => None,
            (None, None) => recovered(&self.records, kept),
        };
        let Some((uidvalidity, last)) = known else {
            // Named by `settle`, under the exclusive lock.
            self.uidvalidity = 0;
            return Ok(false);
        };
        (self.uidvalidity, self.last) = (uidvalidity, Base::last(kept, uidvalidity, last));
        let strict = sound.is_none();
        let mine = |r: &Record| r.uidvalidity == uidvalidity || (r.uidvalidity == 0 && !strict);
        let mut previous = 0;
        let mut all = sound.is_some() || self.records.is_empty();
        for record in self.records.iter_mut().filter(|r| !r.pseudo) {
            let uid = record.item.uid;
            if mine(record) && uid > previous && uid <= last {
                previous = uid;
            } else {
                record.item.uid = 0;
                all = false;
            }
        }
        if !all {
            self.remember(before);
        }
        Ok(all && (!self.records.is_empty() || kept.is_some()))
    }

    /// Gives messages without a UID the one that this session knew them by, where that ascends.
    fn remember(&mut self, before: &[Record]) {
        let known: HashMap<u64, u32> = before.iter().map(|r| (r.hash, r.item.uid)).collect();
        let taken: BTreeSet<u32> = self.records.iter().map(|r| r.item.uid).collect();
        let mut previous = 0;
        for record in self.records.iter_mut().filter(|r| !r.pseudo) {
            if record.item.uid == 0
                && let Some(uid) = known.get(&record.hash)
                && *uid > previous
                && *uid <= self.last
                && !taken.contains(uid)
            {
                record.item.uid = *uid;
                // Still to be written.
                record.uidvalidity = u32::MAX;
            }
            previous = previous.max(record.item.uid);
        }
    }

    /// Gives every message a UID, and writes what is not in the file yet; with `claim`, marks all
    /// as seen by a session.
    pub(super) fn settle(&mut self, lock: &mut MailLock, claim: bool) -> Result<()> {
        if self.uidvalidity == 0 {
            self.renumber()?;
        }
        let (mut changes, mut last) = self.number();
        if last > LAST_UID {
            self.renumber()?;
            (changes, last) = self.number();
        }
        if last != self.last || !changes.edited.is_empty() {
            // The first message holds the last UID.
            changes.edited.insert(0);
        }
        self.last = last;
        base_file::reserve(&self.journal, self.uidvalidity, last)?;
        changes.sync = !changes.edited.is_empty();
        if claim {
            let new = self
                .records
                .iter()
                .enumerate()
                .filter(|(_, r)| !r.old && !r.pseudo);
            changes.edited.extend(new.map(|(at, _)| at));
            self.records.iter_mut().for_each(|r| r.old = true);
        }
        let recent: BTreeSet<u32> = self.items().filter(|i| i.recent).map(|i| i.uid).collect();
        changes.edited.retain(|at| *at < self.records.len());
        self.change(lock, &changes)?;
        if self.print.is_none() {
            // Nothing had to be written, or what was written has to be read.
            self.load(lock.file())?;
        }
        // Claimed by us just now: still recent for the session that did it.
        for record in &mut self.records {
            record.item.recent = recent.contains(&record.item.uid);
        }
        Ok(())
    }

    /// A new UIDVALIDITY, and no UIDs.
    fn renumber(&mut self) -> Result<()> {
        self.uidvalidity = base_file::new_uidvalidity(&self.place.journals)?;
        self.last = 0;
        self.records.iter_mut().for_each(|r| r.item.uid = 0);
        Ok(())
    }

    /// UIDs for those that have none; which records have to be written, and the last UID then.
    fn number(&mut self) -> (Changes, u32) {
        let mut changes = Changes::default();
        let (mut last, mut previous) = (self.last, 0);
        for (at, record) in self
            .records
            .iter_mut()
            .enumerate()
            .filter(|(_, r)| !r.pseudo)
        {
            let known = record.item.uid > previous && record.uidvalidity != u32::MAX;
            if record.item.uid <= previous {
                last = last.saturating_add(1);
                record.item.uid = last;
            }
            if !known {
                changes.edited.insert(at);
                record.uidvalidity = self.uidvalidity;
            }
            previous = record.item.uid;
        }
        (changes, last)
    }
}

/// UIDVALIDITY and last UID of a file without X-IMAPbase: as the journal directory says, or else as
/// our own X-UIDVALIDITY fields say.
fn recovered(records: &[Record], kept: Option<Base>) -> Option<(u32, u32)> {
    let first = || records.iter().find(|r| r.uidvalidity > 0 && r.item.uid > 0);
    let uidvalidity = match kept {
        Some(base) => base.uidvalidity,
        None => first()?.uidvalidity,
    };
    let ours = records.iter().filter(|r| r.uidvalidity == uidvalidity);
    let highest = ours
        .map(|r| r.item.uid)
        .filter(|uid| *uid <= LAST_UID)
        .max()
        .unwrap_or(0);
    Some((
        uidvalidity,
        highest.max(kept.map_or(0, |base| base.reserved)),
    ))
}

/// A base for an mbox that is empty, durably reserved: UIDVALIDITY and the last UID given.
pub(super) fn base_of_empty(place: &crate::spool::Place) -> std::result::Result<(u32, u32), Fail> {
    let journal = place.journal()?;
    match Base::read(&journal)? {
        Some(base) if base.reserved < LAST_UID => Ok((base.uidvalidity, base.reserved)),
        _ => {
            let uidvalidity = base_file::new_uidvalidity(&place.journals)?;
            base_file::reserve(&journal, uidvalidity, 0)?;
            Ok((uidvalidity, 0))
        }
    }
}
