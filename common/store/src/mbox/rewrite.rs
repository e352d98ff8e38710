//! Writing changes into an mbox: values over values where they fit, else a region of the file
//! through [`mod@super::redo`].

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use base::Doing;

use super::Mbox;
use super::edit::{self, Edit, Values, Want};
use super::redo::Redo;
use super::scan::Record;
use crate::lock::MailLock;
use crate::request::Why;
use crate::trouble::{Result, Trouble};

/// Octets of a header that is changed; a longer one is not touched.
const MAX_HEADER: u64 = 64 << 20;

/// What is to be done, by index of record.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// These say what is known of them.
    pub(super) edited: BTreeSet<usize>,
    /// These go.
    pub(super) removed: BTreeSet<usize>,
    /// Whether it must be on the disk before it is answered.
    pub(super) sync: bool,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.edited.is_empty() && self.removed.is_empty()
    }
}

/// What [`Changes`] mean for the file.
struct Plan {
    edited: BTreeSet<usize>,
    /// The first message that stays.
    first: Option<usize>,
    /// Octets that are written over others: the record, its header's offset, the octets.
    values: Vec<(usize, u64, Values)>,
    /// The records of the region that is written anew, if there is one.
    from: Option<usize>,
    to: usize,
    /// Whether nothing behind the region moves.
    same_length: bool,
}

impl Mbox {
    /// Does it. `true` if octets moved, so that the file has to be read again.
    pub(super) fn rewrite(&self, lock: &mut MailLock, changes: &Changes) -> Result<bool> {
        let file = lock
            .file()
            .try_clone()
            .doing(|| format!("open {}", self.at()))?;
        let plan = self.plan(&file, changes)?;
        let inside = |at: usize| plan.from.is_some_and(|from| at >= from) && at <= plan.to;
        let outside = plan.values.iter().filter(|(at, _, _)| !inside(*at));
        self.write_values(&file, outside.map(|(_, header, list)| (*header, list)))?;
        match plan
            .from
            .and_then(|from| Some((from, self.records.get(from)?)))
        {
            Some((from, first)) => {
                self.write_region(&file, lock, changes, &plan, from, first.start)?;
                Ok(true)
            }
            None => {
                if changes.sync {
                    file.sync_data().doing(|| format!("sync {}", self.at()))?;
                }
                Ok(false)
            }
        }
    }

    /// What fits where it is, and what has to move.
    fn plan(&self, file: &File, changes: &Changes) -> Result<Plan> {
        let stays = |at: &usize| !changes.removed.contains(at);
        let mut plan = Plan {
            edited: changes.edited.iter().copied().filter(stays).collect(),
            // The first message that stays has to hold the last UID.
            first: (0..self.records.len()).find(stays),
            values: Vec::new(),
            from: changes.removed.first().copied(),
            to: changes.removed.last().copied().unwrap_or(0),
            same_length: changes.removed.is_empty(),
        };
        if changes.removed.contains(&0) {
            plan.edited.extend(plan.first);
        }
        for at in plan.edited.iter().copied() {
            let Some(record) = self.records.get(at) else {
                continue;
            };
            let header = self.header(file, record)?;
            match edit::edit(&header, &self.want(record, plan.first == Some(at))) {
                Edit::Values(list) => plan.values.push((at, record.header, list)),
                Edit::Header(new) => {
                    plan.same_length &= new.len() == header.len();
                    plan.from = Some(plan.from.map_or(at, |from| from.min(at)));
                    plan.to = plan.to.max(at);
                }
            }
        }
        if !plan.same_length {
            plan.to = usize::MAX;
        }
        Ok(plan)
    }

    /// The messages of the region as they shall be, through the redo file.
    fn write_region(
        &self,
        file: &File,
        lock: &mut MailLock,
        changes: &Changes,
        plan: &Plan,
        from: usize,
        start: u64,
    ) -> Result<()> {
        let mut redo = Redo::begin(&self.journal, file, start)?;
        for (at, record) in self.records.iter().enumerate().skip(from) {
            lock.touch();
            if at > plan.to || changes.removed.contains(&at) {
                continue;
            }
            let copied = if plan.edited.contains(&at) {
                let want = self.want(record, plan.first == Some(at));
                let end = (at != plan.to).then_some(record.end);
                self.copy_edited(file, &mut redo, record, &want, end)
            } else {
                redo.copy(record.start, record.end).map_err(Into::into)
            };
            if let Err(trouble) = copied {
                return Ok(redo.abandon(trouble.fail)?);
            }
        }
        Ok(redo.commit(plan.same_length)?)
    }

    /// One message with its new header; without `end`, not its body.
    fn copy_edited(
        &self,
        file: &File,
        redo: &mut Redo<'_>,
        record: &Record,
        want: &Want,
        end: Option<u64>,
    ) -> Result<()> {
        let header = self.header(file, record)?;
        redo.copy(record.start, record.header)?;
        match edit::edit(&header, want) {
            Edit::Header(new) => redo.push(&new)?,
            Edit::Values(list) => {
                let mut new = header;
                for (at, value) in list {
                    if let Some(old) = new.get_mut(at..at + value.len()) {
                        old.copy_from_slice(&value);
                    }
                }
                redo.push(&new)?;
            }
        }
        if let Some(end) = end {
            redo.copy(record.header + record.header_length, end)?;
        }
        Ok(())
    }

    /// What a record's fields shall say.
    fn want(&self, record: &Record, first: bool) -> Want {
        Want {
            uid: record.item.uid,
            uidvalidity: self.uidvalidity,
            last: first.then_some(self.last),
            flags: record.item.flags,
            old: record.old,
            keywords: self.table.of(record.item.keywords),
        }
    }

    fn header(&self, file: &File, record: &Record) -> Result<Vec<u8>> {
        if record.header_length > MAX_HEADER {
            let text = format!("{}: a header of {} octets", self.at(), record.header_length);
            return Err(Trouble::new(Why::TooBig, text));
        }
        let mut header = vec![0; usize::try_from(record.header_length).unwrap_or(0)];
        file.read_exact_at(&mut header, record.header)
            .doing(|| format!("read {}", self.at()))?;
        Ok(header)
    }

    fn write_values<'a>(
        &self,
        file: &File,
        values: impl Iterator<Item = (u64, &'a Values)>,
    ) -> Result<()> {
        for (header, list) in values {
            for (at, value) in list {
                file.write_all_at(value, header + *at as u64)
                    .doing(|| format!("write {}", self.at()))?;
            }
        }
        Ok(())
    }
}
