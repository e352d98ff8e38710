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
use std::time::SystemTime;

use base::sys::{self, LockKind};
use base::{Doing, Envelope, Fail};
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag};

use crate::commit::{DURABLE, is_marked};
use crate::content::Content;
use crate::crash;
use crate::dir::Dir;
use crate::draft::set_mtime;
use crate::event::{Event, Record};
use crate::file::{self, Contents, Depth, Unreadable};
use crate::frame::{self, Kind};
use crate::id::QueueId;
use crate::origin::{Origin, Source};
use crate::queue::{Lane, Place, Queue, modified, size};
use crate::state::RecipientState;

/// What came of an attempt to get an entry.
#[derive(Debug)]
pub enum Claim {
    /// It is ours.
    Entry(Box<Entry>),
    /// Somebody works on it, or its creator is not done.
    Busy,
    /// It is not there any more.
    Gone,
    /// It was, and has been moved to `damaged/` for this reason.
    Damaged(String),
}

/// A message that this process owns.
#[derive(Debug)]
pub struct Entry {
    pub(crate) queue: Queue,
    pub(crate) id: QueueId,
    /// Where it is: its lane, or hold/ and damaged/ while it is being released.
    place: Place,
    lane: Lane,
    file: File,
    contents: Contents,
    origin: Origin,
    envelope: Envelope,
    due: SystemTime,
    /// Data and name are known to be durable.
    durable: bool,
    /// There are bytes behind the last sound record: a torn append.
    torn: bool,
    failed: bool,
}

/// A file opened and locked, before anybody has read it.
pub(crate) enum Locked {
    File(File, FileStat),
    Busy,
    Gone,
    /// Something else than a file has the name.
    Strange,
}

/// Opens and locks what `id` names in `dir`, and makes sure that it is still named so.
pub(crate) fn lock(dir: &Dir, id: &QueueId) -> Result<Locked, Fail> {
    let doing = || format!("open {}", dir.name(id.as_str()));
    // A name that changes its file three times while we look has a busy owner.
    for _ in 0..3 {
        let file = match dir.open_entry(id, OFlag::O_RDWR) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Locked::Gone),
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(nix::libc::ELOOP | nix::libc::EISDIR | nix::libc::ENXIO)
                ) =>
            {
                return Ok(Locked::Strange);
            }
            Err(e) => return Err(Fail::io(doing(), e)),
        };
        let stat = nix::sys::stat::fstat(&file).doing(doing)?;
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
            return Ok(Locked::Strange);
        }
        if !sys::try_ofd_lock(&file, LockKind::Exclusive).doing(doing)? {
            return Ok(Locked::Busy);
        }
        if dir.still_names(id, &file).doing(doing)? {
            // Again, because what counts is what the last owner left.
            let stat = nix::sys::stat::fstat(&file).doing(doing)?;
            return Ok(Locked::File(file, stat));
        }
    }
    Ok(Locked::Busy)
}

impl Queue {
    /// Takes an entry, if it is there and nobody has it. Its whole file is verified first.
    pub fn claim(&self, lane: Lane, id: &QueueId) -> Result<Claim, Fail> {
        let mut claim = self.claim_in(lane.into(), id)?;
        match &mut claim {
            Claim::Entry(entry) => {
                entry.lane = lane;
                entry.forget_drop()?;
                entry.settle()?;
            }
            Claim::Damaged(reason) => self.put_aside(lane, id, reason)?,
            Claim::Busy | Claim::Gone => (),
        }
        Ok(claim)
    }

    /// Locks and reads; what is damaged stays where it is.
    pub(crate) fn claim_in(&self, place: Place, id: &QueueId) -> Result<Claim, Fail> {
        let dir = self.dir(place)?;
        let (file, stat) = match lock(dir, id)? {
            Locked::File(file, stat) => (file, stat),
            Locked::Busy => return Ok(Claim::Busy),
            Locked::Gone => return Ok(Claim::Gone),
            Locked::Strange => return Ok(Claim::Damaged("not a regular file".into())),
        };
        let doing = || format!("read {}", dir.name(id.as_str()));
        let contents = match file::read(&file, Depth::Verify) {
            Ok(contents) => contents,
            Err(Unreadable::Damaged(reason)) => return Ok(Claim::Damaged(reason.into())),
            Err(Unreadable::Io(e)) => return Err(Fail::io(doing(), e)),
            Err(newer @ Unreadable::Newer(_)) => {
                return Err(Fail::temp(format!("{}: {newer}", doing())));
            }
        };
        let (Some(origin), Some(envelope)) = (contents.origin.clone(), contents.envelope()) else {
            return Ok(Claim::Damaged("no origin or no sender".into()));
        };
        Ok(Claim::Entry(Box::new(Entry {
            queue: self.clone(),
            id: *id,
            place,
            lane: contents.state.lane.or(contents.lane).unwrap_or(Lane::Local),
            torn: size(&stat) > contents.end,
            due: modified(&stat),
            durable: is_marked(stat.st_mode),
            file,
            contents,
            origin,
            envelope,
            failed: false,
        })))
    }

    fn put_aside(&self, lane: Lane, id: &QueueId, reason: &str) -> Result<(), Fail> {
        let (dir, damaged) = (self.dir(lane)?, self.dir(Place::Damaged)?);
        match damaged.take(dir, id) {
            Ok(()) => (),
            // Somebody else found it damaged too.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => {
                let from = dir.name(id.as_str());
                return Err(Fail::io(
                    format!("move {from} to {}", damaged.path().display()),
                    e,
                ));
            }
        }
        damaged.sync()?;
        dir.sync()?;
        log::error!(
            "{id}: damaged: {reason}: moved to {}",
            damaged.name(id.as_str())
        );
        Ok(())
    }
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
        self.usable()?;
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
        let mut bytes = Vec::new();
        for record in &records {
            let sound = record.event.is_sound()
                && frame::append(&mut bytes, Kind::Journal, &record.encode()).is_some();
            if !sound {
                return Err(Fail::data(format!("{}: journal record too long", self.id)));
            }
        }
        self.append(&bytes)?;
        crash::point("journal written");
        for record in &records {
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

    /// Removes the message: every recipient is dealt with. The removal is durable a little later,
    /// or after [`Queue::sync`]; what must not happen twice has to be in the journal before.
    pub fn finish(self) -> Result<(), Fail> {
        self.usable()?;
        let dir = self.queue.dir(self.place)?;
        dir.unlink(self.id.as_str())
            .doing(|| format!("remove {}", dir.name(self.id.as_str())))?;
        crash::point("entry unlinked");
        Ok(())
    }

    /// Puts the message aside until [`Queue::release`].
    pub fn hold(mut self, reason: &str) -> Result<(), Fail> {
        self.record_synced(&[Event::Held {
            lane: self.lane,
            reason: reason.into(),
        }])?;
        self.move_to(Place::Hold)
    }

    /// Gives the message to the other program. It is due at once.
    pub fn hand_over(mut self, lane: Lane) -> Result<(), Fail> {
        if lane == self.lane {
            return self.set_due(SystemTime::now());
        }
        self.record_synced(&[Event::HandedOver { lane }])?;
        self.move_into(lane)
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
    fn move_to(&self, place: Place) -> Result<(), Fail> {
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
    fn append(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        let doing = || format!("append to queue file {}", self.id);
        let end = self.contents.end;
        if self.torn {
            log::warn!(
                "{}: journal: a torn record behind byte {end} is cut off",
                self.id
            );
            self.file.set_len(end).doing(doing)?;
            self.torn = false;
        }
        let written = self.file.write_all_at(bytes, end);
        if written.is_err() {
            // If this fails too, the next append or claim sees a torn tail.
            self.torn = self.file.set_len(end).is_err();
        }
        written.doing(doing)?;
        self.contents.end += bytes.len() as u64;
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
    fn forget_drop(&mut self) -> Result<(), Fail> {
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

    /// Puts a copy that belongs to this program in the file's place, durable before it replaces it.
    pub(crate) fn adopt(&mut self) -> Result<(), Fail> {
        let doing = || format!("copy queue file {}", self.id);
        let incoming = self.queue.dir(Place::Incoming)?;
        let lane = self.queue.dir(self.place)?;
        let name = format!("{}.copy", self.id);
        incoming.unlink(name.as_str()).doing(doing)?;
        let (file, named) = match incoming.unnamed().doing(doing)? {
            Some(file) => (file, false),
            None => (incoming.named(&name).doing(doing)?, true),
        };
        if !sys::try_ofd_lock(&file, LockKind::Exclusive).doing(doing)? {
            return Err(Fail::temp(doing()));
        }
        copy(&self.file, &file, self.contents.end).doing(doing)?;
        nix::sys::stat::fchmod(&file, DURABLE).doing(doing)?;
        file.sync_all().doing(doing)?;
        if !named {
            incoming.link(&file, &name).doing(doing)?;
        }
        crash::point("copy linked");
        lane.replace(incoming, &name, &self.id).doing(doing)?;
        self.file = file;
        self.torn = false;
        self.durable = false;
        lane.sync()?;
        self.durable = true;
        Ok(())
    }
}

/// The first `length` bytes of a file.
fn copy(from: &File, to: &File, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut at = 0;
    while at < length {
        let wanted = usize::try_from(length - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        from.read_exact_at(part, at)?;
        to.write_all_at(part, at)?;
        at += wanted as u64;
    }
    Ok(())
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
mod tests {
    use super::*;
    use crate::event::Attempt;
    use crate::queue::tests::{claimed, ids, put, scratch};
    use crate::state::Outcome;
    use base::Status;
    use std::io::{Read, Write};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn delivered(recipient: usize) -> Event {
        let attempt = Attempt {
            status: Status::OK,
            reply: "ok".into(),
            host: None,
        };
        Event::Delivered { recipient, attempt }
    }

    fn is_delivered(entry: &Entry, recipient: usize) -> bool {
        matches!(
            entry.recipients()[recipient].outcome,
            Outcome::Delivered { .. }
        )
    }

    #[test]
    fn of_many_claimers_one_wins() {
        let (_dir, queue) = scratch();
        for _ in 0..20 {
            let id = put(&queue, Lane::Local, b"x");
            let wins = AtomicUsize::new(0);
            let start = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        start.wait();
                        loop {
                            match queue.claim(Lane::Local, &id).unwrap() {
                                Claim::Entry(entry) => {
                                    wins.fetch_add(1, Ordering::SeqCst);
                                    std::thread::sleep(Duration::from_millis(2));
                                    entry.finish().unwrap();
                                }
                                Claim::Busy => std::thread::yield_now(),
                                Claim::Gone => break,
                                Claim::Damaged(reason) => panic!("{reason}"),
                            }
                        }
                    });
                }
            });
            assert_eq!(wins.into_inner(), 1);
            assert!(matches!(queue.claim(Lane::Local, &id), Ok(Claim::Gone)));
        }
    }

    #[test]
    fn the_journal_and_the_time_are_there_for_the_next_owner() {
        let (_dir, queue) = scratch();
        let id = put(&queue, Lane::Local, b"x");
        let later = SystemTime::now() + Duration::from_secs(3600);
        let mut entry = claimed(&queue, Lane::Local, &id);
        assert!(entry.due() <= SystemTime::now());
        entry.set_due(later).unwrap();
        entry.record_synced(&[delivered(1)]).unwrap();
        assert!(matches!(queue.claim(Lane::Local, &id), Ok(Claim::Busy)));
        drop(entry);
        let entry = claimed(&queue, Lane::Local, &id);
        assert!(is_delivered(&entry, 1) && !is_delivered(&entry, 0));
        let error = later.duration_since(entry.due()).unwrap_or_default();
        assert!(
            error < Duration::from_millis(1),
            "the journal record kept the time"
        );
        assert_eq!(queue.scan(Lane::Local).unwrap()[0].due, entry.due());
    }

    #[test]
    fn a_torn_record_is_cut_off_by_the_next() {
        let (_dir, queue) = scratch();
        let id = put(&queue, Lane::Local, b"x");
        let path = queue.path().join("local").join(id.as_str());
        claimed(&queue, Lane::Local, &id)
            .record(&[delivered(0)])
            .unwrap();
        let sound = std::fs::read(&path).unwrap();
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&sound[sound.len() - 60..])
            .unwrap();
        let mut entry = claimed(&queue, Lane::Local, &id);
        entry.record(&[delivered(1)]).unwrap();
        drop(entry);
        let entry = claimed(&queue, Lane::Local, &id);
        assert!(is_delivered(&entry, 0) && is_delivered(&entry, 1));
        assert!(!entry.torn);
    }

    #[test]
    fn the_damaged_goes_to_damaged_and_comes_back_when_it_is_mended() {
        let (_dir, queue) = scratch();
        let id = put(&queue, Lane::Relay, b"hello");
        let path = queue.path().join("relay").join(id.as_str());
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(
            queue.claim(Lane::Relay, &id),
            Ok(Claim::Damaged(_))
        ));
        assert_eq!(ids(&queue, Place::Relay), []);
        assert_eq!(
            std::fs::read(queue.path().join("damaged").join(id.as_str())).unwrap(),
            bad
        );
        assert!(queue.list().unwrap()[0].damage.is_some());
        assert!(queue.release(&id).is_err());
        std::fs::write(queue.path().join("damaged").join(id.as_str()), &good).unwrap();
        assert_eq!(queue.release(&id).unwrap(), Some(Lane::Relay));
        assert_eq!(claimed(&queue, Lane::Relay, &id).size(), 5);
    }

    #[test]
    fn what_is_no_file_is_put_aside_and_what_is_newer_stays() {
        let (_dir, queue) = scratch();
        let lane = queue.path().join("local");
        let new = || QueueId::generate().unwrap();
        let (link, dir, pipe, newer) = (new(), new(), new(), new());
        std::os::unix::fs::symlink("/etc/passwd", lane.join(link.as_str())).unwrap();
        std::fs::create_dir(lane.join(dir.as_str())).unwrap();
        nix::unistd::mkfifo(&lane.join(pipe.as_str()), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(lane.join(newer.as_str()), "yubin queue 7\nwhatever").unwrap();
        for id in [link, dir, pipe] {
            assert!(
                matches!(queue.claim(Lane::Local, &id), Ok(Claim::Damaged(_))),
                "{id}"
            );
        }
        let fail = queue.claim(Lane::Local, &newer).unwrap_err();
        assert!(fail.to_string().contains("version 7"), "{fail}");
        assert_eq!(ids(&queue, Place::Local), [newer]);
        assert_eq!(queue.list().unwrap().len(), 4);
    }

    #[test]
    fn handing_over_and_holding_move_it_whole() {
        let (_dir, queue) = scratch();
        let id = put(&queue, Lane::Local, b"x");
        claimed(&queue, Lane::Local, &id)
            .hand_over(Lane::Relay)
            .unwrap();
        assert_eq!(ids(&queue, Place::Local), []);
        let mut entry = claimed(&queue, Lane::Relay, &id);
        entry.record(&[delivered(0)]).unwrap();
        entry.hold("by hand").unwrap();
        assert_eq!(ids(&queue, Place::Relay), []);
        let view = queue.view(&id).unwrap().unwrap();
        assert_eq!(
            (view.place, view.held.as_deref()),
            (Place::Hold, Some("by hand"))
        );
        assert_eq!(queue.release(&id).unwrap(), Some(Lane::Relay));
        assert!(is_delivered(&claimed(&queue, Lane::Relay, &id), 0));
        assert_eq!(queue.release(&id).unwrap(), None);
        assert!(queue.remove(Place::Relay, &id).unwrap());
        assert!(!queue.remove(Place::Relay, &id).unwrap());
    }

    #[test]
    fn an_adopted_entry_is_the_same_in_a_file_of_our_own() {
        let (_dir, queue) = scratch();
        let id = put(&queue, Lane::Local, &vec![b'x'; 200_000]);
        let mut entry = claimed(&queue, Lane::Local, &id);
        entry.record(&[delivered(0)]).unwrap();
        let before = nix::sys::stat::fstat(&entry.file).unwrap().st_ino;
        let waiting = queue
            .dir(Place::Local)
            .unwrap()
            .open_entry(&id, OFlag::O_RDWR)
            .unwrap();
        entry.adopt().unwrap();
        assert_ne!(nix::sys::stat::fstat(&entry.file).unwrap().st_ino, before);
        assert!(
            !queue
                .dir(Place::Local)
                .unwrap()
                .still_names(&id, &waiting)
                .unwrap()
        );
        assert!(matches!(queue.claim(Lane::Local, &id), Ok(Claim::Busy)));
        entry.record_synced(&[delivered(1)]).unwrap();
        drop(entry);
        let entry = claimed(&queue, Lane::Local, &id);
        assert!(is_delivered(&entry, 0) && is_delivered(&entry, 1));
        let mut content = Vec::new();
        entry.content().read_to_end(&mut content).unwrap();
        assert!(content == vec![b'x'; 200_000]);
        assert_eq!(
            std::fs::read_dir(queue.path().join("incoming"))
                .unwrap()
                .count(),
            0
        );
    }
}
