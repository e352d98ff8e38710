//! One message in the hands of its owner.
//!
//! An [`Entry`] is the lock: while it lives nobody else works on the message, and when it goes, by
//! `drop` or by `kill -9`, the message is free again as its journal says. The lock belongs to the
//! open file description: a child process that was forked and keeps the descriptor keeps the lock.
//!
//! After a failed sync an entry refuses everything: nobody knows what the disk has. Drop it; the
//! next claim reads what there is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use base::{Doing, Envelope, Fail};

use crate::content::Content;
use crate::crash;
use crate::dir::Dir;
use crate::draft::set_mtime;
use crate::event::{Event, Intent, Record};
use crate::file::Contents;
use crate::frame::{self, Kind};
use crate::id::QueueId;
use crate::log::Log;
use crate::origin::{Origin, Source};
use crate::queue::{Lane, Place, Queue};
use crate::state::RecipientState;

/// An entry that went from lane to lane so often is due at once in the next.
const AT_ONCE: u32 = 3;
/// Beyond that, after this time.
const DISPUTED: Duration = Duration::from_secs(60);

/// A message that this process owns.
#[derive(Debug)]
pub struct Entry {
    pub(crate) queue: Queue,
    pub(crate) id: QueueId,
    /// Where it is: its lane, or hold/ and damaged/ while it is being released.
    pub(crate) place: Place,
    pub(crate) lane: Lane,
    pub(crate) file: File,
    pub(crate) contents: Contents,
    pub(crate) origin: Origin,
    pub(crate) envelope: Envelope,
    pub(crate) due: SystemTime,
    /// Data and name are known to be durable.
    pub(crate) durable: bool,
    /// Its creator says so. Of any other a commit log may have a copy: what takes it from its lane is
    /// noted there first.
    pub(crate) marked: bool,
    pub(crate) failed: bool,
}

/// Appends that are in their journals, and not durable before [`announce`].
#[derive(Debug)]
pub struct Announcement {
    log: Log,
    id: QueueId,
    record: Record,
}

/// Makes announced appends durable, all with one sync. After an error nobody knows: they are to be
/// looked for before anything else.
pub fn announce(announcements: Vec<Announcement>) -> Result<(), Fail> {
    let Some(log) = announcements.first().map(|one| one.log.clone()) else {
        return Ok(());
    };
    log.intents(
        announcements
            .into_iter()
            .map(|one| (one.id, one.record))
            .collect(),
    )
}

impl Entry {
    pub fn id(&self) -> &QueueId {
        &self.id
    }

    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// As it was accepted.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Where it came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// When this host got it.
    pub fn arrived(&self) -> SystemTime {
        self.origin.received_at
    }

    /// Until when it waits because its sender wants that, if that lies ahead and the operator has not let
    /// it go.
    pub fn waits_until(&self, now: SystemTime) -> Option<SystemTime> {
        waits_until(&self.contents, now)
    }

    /// From when on it may be delivered: the age that counts is from then.
    pub fn ready_at(&self) -> SystemTime {
        let released = self.contents.state.released;
        let ready = released.or_else(|| wished(&self.contents));
        let arrived = self.arrived();
        ready.map_or(arrived, |ready| ready.max(arrived))
    }

    /// When it was to be tried next, as far as the file says.
    pub fn due(&self) -> SystemTime {
        self.due
    }

    /// The recipients in the order of the envelope, and how it stands with each.
    pub fn recipients(&self) -> &[RecipientState] {
        &self.contents.state.recipients
    }

    /// Every child that the journal names.
    pub(crate) fn children(&self) -> &[crate::Child] {
        &self.contents.state.children
    }

    /// Why it belongs into `hold/`, if it does.
    pub(crate) fn held(&self) -> Option<&str> {
        self.contents.state.held.as_deref()
    }

    /// Of the content, in bytes.
    pub fn size(&self) -> u64 {
        self.contents.content_length
    }

    /// The content, from its start.
    pub fn content(&self) -> Content<'_> {
        Content::new(&self.file, &self.contents)
    }

    /// Appends to the journal. It survives the death of this process, and perhaps power loss. The
    /// time of the next attempt stays as it was.
    pub fn record(&mut self, events: &[Event]) -> Result<(), Fail> {
        self.journal(events)?;
        self.restore_due()
    }

    /// After an error nothing was recorded.
    pub(crate) fn journal(&mut self, events: &[Event]) -> Result<(), Fail> {
        let at = SystemTime::now();
        let by = self.queue.by().to_owned();
        let records: Vec<Record> = events
            .iter()
            .map(|event| Record {
                at,
                by: by.clone(),
                event: event.clone(),
            })
            .collect();
        self.journal_records(&records)
    }

    /// The same for what was recorded elsewhere before.
    pub(crate) fn journal_records(&mut self, records: &[Record]) -> Result<(), Fail> {
        self.usable()?;
        let mut bytes = Vec::new();
        for record in records {
            let sound = record.event.is_sound()
                && frame::append(&mut bytes, Kind::Journal, &record.encode()).is_some();
            if !sound {
                return Err(Fail::data(format!("{}: journal record too long", self.id)));
            }
        }
        self.append(bytes)?;
        crash::point("journal written");
        for record in records {
            self.contents.state.apply(record);
        }
        Ok(())
    }

    /// Appends to the journal and makes it durable; the first time, on an entry that is not known
    /// to be durable itself, that too. After an error the entry is of no more use.
    pub fn record_synced(&mut self, events: &[Event]) -> Result<(), Fail> {
        self.record(events)?;
        self.sync()
    }

    /// Makes durable what was recorded.
    pub fn sync(&mut self) -> Result<(), Fail> {
        self.usable()?;
        let synced = self
            .file
            .sync_data()
            .doing(|| format!("sync queue file {}", self.id));
        let synced = synced.and_then(|()| {
            if self.durable {
                Ok(())
            } else {
                self.queue.dir(self.place)?.sync()
            }
        });
        self.failed = synced.is_err();
        self.durable |= synced.is_ok();
        synced
    }

    /// Not to be tried before then. Also after a crash; nearly so after power loss.
    pub fn set_due(&mut self, due: SystemTime) -> Result<(), Fail> {
        self.usable()?;
        self.due = due;
        match set_mtime(&self.file, due) {
            // Only the owner may set another time than now: smtpd made the file, so make it ours.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                self.adopt()?;
                set_mtime(&self.file, due)
            }
            other => other,
        }
        .doing(|| format!("set the time of queue file {}", self.id))
    }

    /// Announces an append: like [`Entry::record`], and with [`announce`] for what comes back it is
    /// durable. Where no commit log is kept it is durable at once, and nothing comes back.
    pub fn intend(&mut self, intent: Intent) -> Result<Option<Announcement>, Fail> {
        let event = Event::Intent(intent);
        let Some(log) = self.queue.ready_log().cloned() else {
            return self.record_synced(&[event]).map(|()| None);
        };
        let record = Record {
            at: SystemTime::now(),
            by: self.queue.by().to_owned(),
            event,
        };
        // Who dies finds it in the journal, who loses the power in the log.
        self.journal_records(std::slice::from_ref(&record))?;
        self.restore_due()?;
        let id = self.id;
        Ok(Some(Announcement { log, id, record }))
    }

    /// Removes the message: every recipient is dealt with, as the journal says. That is durable
    /// before the file goes, and the file goes soon, at the latest at [`Queue::flush`]. A removal that
    /// was not on the disk is done again after power loss, by the log's note or the journal.
    pub fn finish(mut self) -> Result<(), Fail> {
        self.usable()?;
        let (log, at_once) = match self.queue.ready_log() {
            Some(log) => (Some(log.clone()), false),
            None if self.marked => (None, true),
            None => (self.queue.work_log()?.cloned(), true),
        };
        let Some(log) = log else {
            self.sync()?;
            return self.unlink();
        };
        let (lane, id) = (self.place_as_lane(), self.id);
        let then = move |noted: Result<(), Fail>| {
            if let Err(fail) = noted.and_then(|()| self.unlink()) {
                log::error!("{id}: it stays in the queue, finished: {fail}");
            }
        };
        log.finished(lane, id, Box::new(then));
        if at_once {
            log.flush();
        }
        Ok(())
    }

    fn unlink(self) -> Result<(), Fail> {
        let dir = self.queue.dir(self.place)?;
        dir.unlink(self.id.as_str())
            .doing(|| format!("remove {}", dir.name(self.id.as_str())))?;
        crash::point("entry unlinked");
        Ok(())
    }

    fn place_as_lane(&self) -> Lane {
        match self.place {
            Place::Local => Lane::Local,
            Place::Relay => Lane::Relay,
            Place::Drop | Place::Incoming | Place::Hold | Place::Damaged => self.lane,
        }
    }

    /// Puts the message aside until [`Queue::release`].
    pub fn hold(mut self, reason: &str) -> Result<(), Fail> {
        self.record_synced(&[Event::Held {
            lane: self.lane,
            reason: reason.into(),
        }])?;
        self.move_to(Place::Hold)
    }

    /// Gives the message to the other program. It is due at once, unless it went to and fro: two
    /// programs that disagree, as with an old and a new configuration, send it slowly.
    pub fn hand_over(mut self, lane: Lane) -> Result<(), Fail> {
        if lane == self.lane {
            return self.set_due(SystemTime::now());
        }
        self.record_synced(&[Event::HandedOver { lane }])?;
        if self.contents.state.handed_over <= AT_ONCE {
            return self.move_into(lane);
        }
        self.set_due(SystemTime::now() + DISPUTED)?;
        self.move_to(lane.into())
    }

    /// Back into the lane that it was held or damaged in. It is due at once.
    pub(crate) fn release(mut self) -> Result<Lane, Fail> {
        let lane = self.lane;
        self.record_synced(&[Event::Released])?;
        self.move_into(lane)?;
        Ok(lane)
    }

    fn move_into(self, lane: Lane) -> Result<(), Fail> {
        self.move_to(lane.into())?;
        let (queue, id) = (self.queue.clone(), self.id);
        // The lock first, then the wake-up: who wakes must find it free.
        drop(self);
        touch(queue.dir(lane)?, &id);
        Ok(())
    }

    /// A rename loses nothing at any point; both directories are durable before the lock goes.
    pub(crate) fn move_to(&self, place: Place) -> Result<(), Fail> {
        if !self.marked
            && let Some(log) = self.queue.work_log()?
        {
            log.left(self.id)?;
        }
        let (from, to) = (self.queue.dir(self.place)?, self.queue.dir(place)?);
        to.take(from, &self.id).doing(|| {
            format!(
                "move {} to {}",
                from.name(self.id.as_str()),
                to.path().display()
            )
        })?;
        crash::point("entry moved");
        to.sync()?;
        from.sync()
    }

    pub(crate) fn usable(&self) -> Result<(), Fail> {
        if self.failed {
            return Err(Fail::temp(format!(
                "queue file {}: a sync of it failed before",
                self.id
            )));
        }
        Ok(())
    }

    /// From here on nothing is known for certain: the next claim reads what there is.
    pub(crate) fn give_up(&mut self) {
        self.failed = true;
    }

    /// Writes behind the last sound record, and takes a failed write back.
    fn append(&mut self, mut bytes: Vec<u8>) -> Result<(), Fail> {
        let doing = || format!("append to queue file {}", self.id);
        let end = self.contents.end;
        if self.contents.torn {
            log::warn!(
                "{}: journal: a torn record behind byte {end} is cut off",
                self.id
            );
            self.file.set_len(end).doing(doing)?;
            self.contents.torn = false;
        }
        let length = bytes.len() as u64;
        if self.contents.room < length {
            frame::append_room(&mut bytes, end, 0);
            self.contents.room = bytes.len() as u64;
        }
        let written = self.file.write_all_at(&bytes, end);
        if written.is_err() {
            // If this fails too, the next append or claim sees a torn tail.
            self.contents.torn = self.file.set_len(end).is_err();
            self.contents.room = 0;
        }
        written.doing(doing)?;
        self.contents.end += length;
        self.contents.room -= length;
        Ok(())
    }

    /// An append makes the mtime now; the time of the next attempt is another.
    pub(crate) fn restore_due(&self) -> Result<(), Fail> {
        match set_mtime(&self.file, self.due) {
            // Not our file: it is due at once if we die now, and set_due makes it ours.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other.doing(|| format!("set the time of queue file {}", self.id)),
        }
    }

    /// What sendmail(1) wrote is removed as soon as anybody owns its entry, before anything is done
    /// with it: so a drop file that is there was never worked on, and is taken in once.
    pub(crate) fn forget_drop(&mut self) -> Result<(), Fail> {
        if !matches!(self.origin.source, Source::Submission { .. }) {
            return Ok(());
        }
        let drop = self.queue.dir(Place::Drop)?;
        let doing = || format!("remove {}", drop.name(self.id.as_str()));
        if drop.stat(self.id.as_str()).doing(doing)?.is_none() {
            return Ok(());
        }
        self.sync()?;
        let drop = self.queue.dir(Place::Drop)?;
        drop.unlink(self.id.as_str())
            .doing(|| format!("remove {}", drop.name(self.id.as_str())))?;
        drop.sync()
    }
}

/// See [`Entry::waits_until`].
pub(crate) fn waits_until(contents: &Contents, now: SystemTime) -> Option<SystemTime> {
    let waits = contents.state.released.is_none();
    wished(contents).filter(|at| waits && *at > now)
}

/// The time of release that the sender asked for. What was made out of a message has only the words of
/// that one's envelope: it is made when the time has come.
fn wished(contents: &Contents) -> Option<SystemTime> {
    let is_child = matches!(
        contents.origin,
        Some(Origin {
            source: Source::Child { .. },
            ..
        })
    );
    contents
        .release
        .filter(|_| !is_child)
        .map(|release| release.at)
}

/// Makes an entry due now, which wakes who watches its lane. Best effort: the scan finds it too.
pub(crate) fn touch(dir: &Dir, id: &QueueId) {
    use nix::sys::stat::{UtimensatFlags, utimensat};
    use nix::sys::time::TimeSpec;
    let now = TimeSpec::UTIME_NOW;
    match utimensat(
        dir.fd(),
        id.as_str(),
        &now,
        &now,
        UtimensatFlags::NoFollowSymlink,
    ) {
        Ok(()) | Err(nix::errno::Errno::ENOENT) => (),
        Err(e) => log::warn!("{id}: touch {}: {e}", dir.name(id.as_str())),
    }
}

#[cfg(test)]
pub(crate) mod tests;
