//! After power loss: what the logs have and the disk has not.
//!
//! 1. Every segment that no process holds is taken over.
//! 2. A message that was accepted, and of which neither a sound file is in its lane nor a note says
//!    that it was finished or went elsewhere, is made again. Its name is looked for before the notes
//!    are read, since who finishes a message writes the note first.
//! 3. A message that was finished and is still there is removed.
//! 4. What was announced of a message, and is not in its journal, is put there.
//! 5. All of it is made durable, and the segments are removed. Notes stay for as long as a segment
//!    with messages is in force that was so at this time: that one may be recovered another day.
//!
//! All of it can be done twice. Where the power did not fail it finds nothing to do: every step is in
//! the files before it is in a log.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use base::{Doing, Fail};
use nix::fcntl::OFlag;

use super::record::{Entry, entries};
use super::segment::{self, Name, Segment, Side};
use crate::claim::{Locked, lock};
use crate::commit::DURABLE;
use crate::crash;
use crate::dir::Dir;
use crate::event::Record;
use crate::file::{self, Depth, Unreadable};
use crate::id::QueueId;
use crate::queue::{Lane, Place, Queue};

/// What was found in the logs of processes that are no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// Messages made again.
    pub(crate) restored: usize,
    /// Finished ones removed again.
    pub(crate) removed: usize,
    /// Journals that were made whole.
    pub(crate) mended: usize,
}

/// All segments of a directory.
fn names(dir: &Dir) -> Result<Vec<Name>, Fail> {
    let mut names = Vec::new();
    dir.names(|name| {
        names.extend(Name::parse(name.as_encoded_bytes()));
        true
    })?;
    names.sort_unstable();
    Ok(names)
}

/// `None` where it went meanwhile, or is no file.
fn open(dir: &Dir, name: Name) -> Result<Option<File>, Fail> {
    let name = name.file();
    let doing = || format!("open {}", dir.name(&name));
    match dir.open_file(std::ffi::OsStr::new(&name), OFlag::O_RDONLY) {
        Ok(file) => {
            let is_file = file.metadata().doing(doing)?.is_file();
            Ok(is_file.then_some(file))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Fail::io(doing(), e)),
    }
}

/// The segments with messages that count now.
fn in_force(dir: &Dir) -> Result<Vec<(Name, u64)>, Fail> {
    let mut found = Vec::new();
    for name in names(dir)? {
        if name.side != Side::Accept {
            continue;
        }
        let Some(file) = open(dir, name)? else {
            continue;
        };
        let generation =
            segment::generation(&file).doing(|| format!("read {}", dir.name(name.file())))?;
        found.extend(
            generation
                .filter(|generation| segment::has_batch(&file, *generation))
                .map(|generation| (name, generation)),
        );
    }
    Ok(found)
}

/// See the module. Every runner calls it when it starts, before it claims anything, and now and then.
pub(crate) fn recover(queue: &Queue, dir: &Dir) -> Result<Found, Fail> {
    let doing = || format!("lock {}", dir.path().display());
    // The other runner waits here until everything is in its place.
    let turn = File::open(dir.path()).doing(doing)?;
    turn.lock().doing(doing)?;
    let mut dead = Vec::new();
    for name in names(dir)? {
        let taken = Segment::take_over(dir, name);
        dead.extend(taken.doing(|| format!("open {}", dir.name(name.file())))?);
    }
    if dead.is_empty() {
        return Ok(Found::default());
    }
    let missing = missing(queue, &dead)?;
    let with_messages = dead.iter().any(|s| s.name.side == Side::Accept);
    let notes = Notes::read(dir, &dead, with_messages)?;
    let mut found = Found::default();
    for segment in dead.iter().filter(|s| s.name.side == Side::Accept) {
        found.restored += restore(queue, segment, &missing, &notes)?;
    }
    for (lane, id) in &notes.finished_by_the_dead {
        found.removed += usize::from(remove(queue, *lane, id)?);
    }
    for (id, records) in &notes.intents {
        found.mended += usize::from(mend(queue, id, records)?);
    }
    crash::point("log replayed");
    super::sync_all(queue.dir(Lane::Local)?).doing(|| "sync the queue".to_owned())?;
    let_go(dir, dead)?;
    Ok(found)
}

/// The messages of these segments that are not, or not whole, in their lanes.
fn missing(queue: &Queue, dead: &[Segment]) -> Result<HashSet<QueueId>, Fail> {
    let mut missing = HashSet::new();
    for segment in dead.iter().filter(|s| s.name.side == Side::Accept) {
        segment::batches(&segment.file, |batch| {
            let mut result = Ok(());
            entries(batch, |entry| {
                if let Entry::Accepted { lane, id, .. } = entry
                    && result.is_ok()
                {
                    match is_there(queue, lane, &id) {
                        Ok(true) => {}
                        Ok(false) => drop(missing.insert(id)),
                        Err(fail) => result = Err(fail),
                    }
                }
            });
            result
        })?;
    }
    Ok(missing)
}

/// Whether a sound file is there, or somebody has it, who has looked.
fn is_there(queue: &Queue, lane: Lane, id: &QueueId) -> Result<bool, Fail> {
    let dir = queue.dir(lane)?;
    match lock(dir, id)? {
        Locked::Busy => Ok(true),
        Locked::Gone | Locked::Strange => Ok(false),
        Locked::File(file, _) => match file::read(&file, Depth::Verify) {
            Ok(_) | Err(Unreadable::Newer(_)) => Ok(true),
            Err(Unreadable::Damaged(_)) => Ok(false),
            Err(Unreadable::Io(e)) => Err(Fail::io(format!("read {}", dir.name(id.as_str())), e)),
        },
    }
}

/// What those who worked on messages wrote down.
#[derive(Default)]
struct Notes {
    /// Finished, or gone from their lanes.
    gone: HashSet<QueueId>,
    finished_by_the_dead: BTreeSet<(Lane, QueueId)>,
    /// Announced by the dead, the oldest first.
    intents: BTreeMap<QueueId, Vec<Record>>,
}

impl Notes {
    /// Of the dead, and of the living where somebody asks for those.
    fn read(dir: &Dir, dead: &[Segment], all: bool) -> Result<Self, Fail> {
        let mut notes = Self::default();
        for name in names(dir)? {
            if name.side != Side::Work {
                continue;
            }
            let of_the_dead = dead.iter().find(|segment| segment.name == name);
            let opened;
            let file = match of_the_dead {
                Some(segment) => &segment.file,
                None if !all => continue,
                None => match open(dir, name)? {
                    Some(file) => {
                        opened = file;
                        &opened
                    }
                    None => continue,
                },
            };
            segment::batches(file, |batch| {
                entries(batch, |entry| notes.take(entry, of_the_dead.is_some()));
                Ok(())
            })?;
        }
        Ok(notes)
    }

    fn take(&mut self, entry: Entry<'_>, dead: bool) {
        match entry {
            Entry::Finished { lane, id } => {
                self.gone.insert(id);
                if dead {
                    self.finished_by_the_dead.insert((lane, id));
                }
            }
            Entry::Left { id } => drop(self.gone.insert(id)),
            Entry::Intent { id, record } if dead => {
                self.intents.entry(id).or_default().push(record);
            }
            Entry::Intent { .. } | Entry::Accepted { .. } | Entry::Needs { .. } => {}
        }
    }
}

/// Makes again what is missing and was not finished.
fn restore(
    queue: &Queue,
    segment: &Segment,
    missing: &HashSet<QueueId>,
    notes: &Notes,
) -> Result<usize, Fail> {
    let mut restored = 0;
    segment::batches(&segment.file, |batch| {
        let mut result = Ok(());
        entries(batch, |entry| {
            if let Entry::Accepted { lane, id, file } = entry
                && result.is_ok()
                && missing.contains(&id)
                && !notes.gone.contains(&id)
            {
                result = make_again(queue, lane, &id, file);
                restored += 1;
            }
        });
        result
    })?;
    Ok(restored)
}

/// Puts a file of these octets into the lane, over one that is not whole.
fn make_again(queue: &Queue, lane: Lane, id: &QueueId, content: &[u8]) -> Result<(), Fail> {
    let (incoming, dir) = (queue.dir(Place::Incoming)?, queue.dir(lane)?);
    let doing = || format!("make {} again", dir.name(id.as_str()));
    let name = format!("{id}.again");
    incoming.unlink(name.as_str()).doing(doing)?;
    let (file, named) = match incoming.unnamed().doing(doing)? {
        Some(file) => (file, false),
        None => (incoming.named(&name).doing(doing)?, true),
    };
    file.write_all_at(content, 0).doing(doing)?;
    nix::sys::stat::fchmod(&file, DURABLE).doing(doing)?;
    file.sync_all().doing(doing)?;
    if !named {
        incoming.link(&file, &name).doing(doing)?;
    }
    crash::point("message made again");
    dir.replace(incoming, &name, id).doing(doing)?;
    log::warn!("{id}: made again from the commit log");
    Ok(())
}

/// A finished message whose removal was not on the disk.
fn remove(queue: &Queue, lane: Lane, id: &QueueId) -> Result<bool, Fail> {
    let dir = queue.dir(lane)?;
    match lock(dir, id)? {
        // Held while the name goes.
        Locked::File(_file, _) => dir
            .unlink(id.as_str())
            .doing(|| format!("remove {}", dir.name(id.as_str()))),
        Locked::Busy | Locked::Gone | Locked::Strange => Ok(false),
    }
}

/// Puts into the journal what was announced and is not in it.
fn mend(queue: &Queue, id: &QueueId, records: &[Record]) -> Result<bool, Fail> {
    let crate::Claim::Entry(mut entry) = queue.claim_in(Place::Local, id)? else {
        return Ok(false);
    };
    let doing = || format!("read queue file {id}");
    let history = match file::read(&entry.file, Depth::History) {
        Ok(contents) => contents.history,
        Err(Unreadable::Io(e)) => return Err(Fail::io(doing(), e)),
        Err(other) => return Err(Fail::temp(format!("{}: {other}", doing()))),
    };
    let new: Vec<Record> = records
        .iter()
        .filter(|record| !history.contains(record))
        .cloned()
        .collect();
    if new.is_empty() {
        return Ok(false);
    }
    entry.journal_records(&new)?;
    entry.restore_due()?;
    entry.sync()?;
    Ok(true)
}

/// Removes the segments; notes that are still needed go into one of their own.
fn let_go(dir: &Dir, dead: Vec<Segment>) -> Result<(), Fail> {
    let messages = in_force(dir)?;
    let (mut kept, mut old) = (Vec::new(), Vec::new());
    for segment in dead {
        match segment.name.side {
            Side::Accept => old.push(segment),
            Side::Work => match needs(&segment.file)? {
                // It says itself until when it is needed.
                needs if needs.iter().any(|need| messages.contains(need)) => {}
                needs if needs.is_empty() => kept.push(segment),
                _ => old.push(segment),
            },
        }
    }
    // Those with messages first: without them nobody asks for the notes.
    old.sort_by_key(|segment| segment.name.side);
    for segment in old {
        let name = segment.name.file();
        dir.unlink(&name)
            .doing(|| format!("remove {}", dir.name(&name)))?;
        crash::point("segment removed");
    }
    keep_notes(dir, &kept)?;
    for segment in kept {
        let name = segment.name.file();
        dir.unlink(&name)
            .doing(|| format!("remove {}", dir.name(&name)))?;
        crash::point("segment removed");
    }
    dir.sync()
}

/// What a segment says of the time for which its notes are needed.
fn needs(file: &File) -> Result<Vec<(Name, u64)>, Fail> {
    let mut needs = Vec::new();
    segment::batches(file, |batch| {
        entries(batch, |entry| {
            if let Entry::Needs {
                segment,
                generation,
            } = entry
            {
                needs.push((segment, generation));
            }
        });
        Ok(())
    })?;
    Ok(needs)
}

/// Puts the notes of these segments, of which all is on the disk, into one of their own, for as long as
/// a segment with messages is in force that is so now.
pub(super) fn keep_notes(dir: &Dir, from: &[Segment]) -> Result<(), Fail> {
    let needs = in_force(dir)?;
    if needs.is_empty() {
        return Ok(());
    }
    let mut records = Vec::new();
    for segment in from {
        segment::batches(&segment.file, |batch| {
            entries(batch, |entry| {
                // What was finished is removed by now.
                if let Entry::Finished { id, .. } | Entry::Left { id } = entry {
                    records.extend(Entry::Left { id }.encode().unwrap_or_default());
                }
            });
            Ok(())
        })?;
    }
    if records.is_empty() {
        return Ok(());
    }
    for (segment, generation) in needs {
        let need = Entry::Needs {
            segment,
            generation,
        };
        records.extend(need.encode().unwrap_or_default());
    }
    let size = (records.len() + 2 * segment::BLOCK) as u64;
    let doing = || format!("make a commit log in {}", dir.path().display());
    let mut kept = Segment::create(dir, Side::Work, size).doing(doing)?;
    kept.write(&records).doing(doing)?;
    kept.sync().doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Logging;
    use crate::queue::tests::{claimed, ids, scratch, sealed};
    use crate::{Attempt, Intent, Outcome};
    use base::{Root, Status};
    use std::io::Read;
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    const SEGMENT: u64 = 64 * 1024;

    fn logging(what: Logging) -> (tempfile::TempDir, Queue) {
        let (dir, queue) = scratch();
        queue.keep_log(what, SEGMENT);
        queue.work_log().unwrap().unwrap();
        (dir, queue)
    }

    /// Accepted through the log, one batch of the log each.
    fn accept(queue: &Queue, lane: Lane, content: &[u8]) -> QueueId {
        let (said, heard) = mpsc::channel();
        queue.commit_soon(vec![sealed(queue, lane, content)], move |done| {
            said.send(done).unwrap();
        });
        heard.recv().unwrap().unwrap()[0]
    }

    /// A second queue that has only these files of the first one.
    fn after_power_loss(
        from: &Queue,
        wanted: impl Fn(&Path) -> bool,
    ) -> (tempfile::TempDir, Queue) {
        let (dir, queue) = scratch();
        for entry in std::fs::read_dir(from.path()).unwrap() {
            let place = entry.unwrap().file_name();
            for file in std::fs::read_dir(from.path().join(&place)).unwrap() {
                let name = Path::new(&place).join(file.unwrap().file_name());
                if wanted(&name) {
                    std::fs::copy(from.path().join(&name), queue.path().join(&name)).unwrap();
                }
            }
        }
        (dir, queue)
    }

    fn logs(name: &Path) -> bool {
        name.starts_with("log")
    }

    fn segments(queue: &Queue) -> Vec<std::path::PathBuf> {
        let dir = std::fs::read_dir(queue.path().join("log")).unwrap();
        dir.map(|entry| entry.unwrap().path()).collect()
    }

    fn content(queue: &Queue, lane: Lane, id: &QueueId) -> Vec<u8> {
        let mut content = Vec::new();
        let entry = claimed(queue, lane, id);
        entry.content().read_to_end(&mut content).unwrap();
        content
    }

    fn wait_until(mut done: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_the_disk_has_lost_is_made_again() {
        let (_dir, queue) = logging(Logging::Accepts);
        let local = accept(&queue, Lane::Local, b"one");
        let relay = accept(&queue, Lane::Relay, &vec![b'x'; 5000]);
        let torn = accept(&queue, Lane::Local, b"three");
        assert_eq!(content(&queue, Lane::Local, &local), b"one");
        let (_after, queue) = after_power_loss(&queue, logs);
        // A name that was on the disk before its data.
        let path = queue.path().join("local").join(torn.as_str());
        std::fs::write(path, b"yubin queue 1\nO").unwrap();
        queue.recover().unwrap();
        assert_eq!(content(&queue, Lane::Local, &local), b"one");
        assert_eq!(content(&queue, Lane::Relay, &relay).len(), 5000);
        assert_eq!(content(&queue, Lane::Local, &torn), b"three");
        assert!(segments(&queue).is_empty());
        queue.recover().unwrap();
        assert_eq!(ids(&queue, Place::Local).len(), 2);
        assert_eq!(ids(&queue, Place::Damaged), []);
    }

    #[test]
    fn cut_anywhere_every_batch_before_the_cut_is_there() {
        let (_dir, queue) = logging(Logging::Accepts);
        let accepted: Vec<_> = (0..6)
            .map(|n| accept(&queue, Lane::Local, &vec![b'x'; 1500 * (n + 1)]))
            .collect();
        let mut file = Vec::new();
        let mut name = None;
        for path in segments(&queue) {
            let bytes = std::fs::read(&path).unwrap();
            if memchr::memmem::find(&bytes, accepted[0].as_str().as_bytes()).is_some() {
                (file, name) = (bytes, Some(path.file_name().unwrap().to_owned()));
            }
        }
        let name = Path::new("log").join(name.unwrap());
        let mut ends: Vec<usize> = accepted
            .iter()
            .map(|id| {
                let at = memchr::memmem::find(&file, id.as_str().as_bytes()).unwrap();
                at / segment::BLOCK * segment::BLOCK
            })
            .collect();
        ends.push(file.len());
        // At the start of each batch, around it, and in the middle of it.
        let cuts = ends
            .windows(2)
            .flat_map(|w| [w[0], w[0] + 1, w[0] + 40, w[0] + 700]);
        for cut in cuts {
            let (_after, new) = after_power_loss(&queue, |_| false);
            let mut torn = file.clone();
            torn[cut..].fill(0);
            std::fs::write(new.path().join(&name), torn).unwrap();
            new.recover().unwrap();
            let whole = ends.iter().skip(1).filter(|end| **end <= cut).count();
            let mut wanted = accepted[..whole].to_vec();
            wanted.sort();
            assert_eq!(ids(&new, Place::Local), wanted, "cut at {cut}");
        }
    }

    #[test]
    fn what_was_finished_does_not_come_back() {
        let (dir, acceptor) = logging(Logging::Accepts);
        let queue = Queue::open(&Root::new(dir.path())).unwrap();
        queue.keep_log(Logging::Works, SEGMENT);
        queue.work_log().unwrap();
        let (gone, stays, moved) = (
            accept(&acceptor, Lane::Local, b"gone"),
            accept(&acceptor, Lane::Local, b"stays"),
            accept(&acceptor, Lane::Local, b"moved"),
        );
        claimed(&queue, Lane::Local, &gone).finish().unwrap();
        claimed(&queue, Lane::Local, &moved)
            .hand_over(Lane::Relay)
            .unwrap();
        queue.flush();
        assert_eq!(ids(&queue, Place::Local), [stays]);
        // Nothing of the lanes is on the disk, but what was moved: that is durable.
        let (_after, new) =
            after_power_loss(&queue, |name| logs(name) || name.starts_with("relay"));
        new.recover().unwrap();
        assert_eq!(ids(&new, Place::Local), [stays]);
        assert_eq!(ids(&new, Place::Relay), [moved]);
        // Or all is on the disk, but not the removal.
        let (_after, new) = after_power_loss(&queue, |_| true);
        let back = new.path().join("local").join(gone.as_str());
        std::fs::copy(queue.path().join("local").join(stays.as_str()), back).unwrap();
        new.recover().unwrap();
        assert_eq!(ids(&new, Place::Local), [stays]);
    }

    #[test]
    fn notes_of_the_dead_stay_while_messages_of_the_living_need_them() {
        let (dir, acceptor) = logging(Logging::Accepts);
        let root = Root::new(dir.path());
        let gone = accept(&acceptor, Lane::Relay, b"gone");
        let stays = accept(&acceptor, Lane::Relay, b"stays");
        let worker = "log::recover::tests::finishes_one_and_dies";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", worker, "--nocapture"])
            .env("QUEUE_TEST_ROOT", dir.path())
            .env("QUEUE_TEST_ID", gone.as_str())
            .status()
            .unwrap();
        assert!(status.success());
        let queue = Queue::open(&root).unwrap();
        assert_eq!(ids(&queue, Place::Relay), [stays]);
        for _ in 0..3 {
            queue.recover().unwrap();
            let (_after, new) = after_power_loss(&queue, logs);
            new.recover().unwrap();
            assert_eq!(ids(&new, Place::Relay), [stays]);
        }
        // Its messages are on the disk: the notes go too.
        drop((acceptor, queue));
        let (_after, new) = after_power_loss(&Queue::open(&root).unwrap(), |name| {
            logs(name) && !name.to_string_lossy().contains("accept")
        });
        assert_eq!(segments(&new).len(), 1);
        new.recover().unwrap();
        assert!(segments(&new).is_empty());
    }

    /// The child process of the test before.
    #[test]
    fn finishes_one_and_dies() {
        let Some(root) = crash::tests::role() else {
            return;
        };
        let queue = Queue::open(&Root::new(root)).unwrap();
        let id = std::env::var("QUEUE_TEST_ID").unwrap().parse().unwrap();
        claimed(&queue, Lane::Relay, &id).finish().unwrap();
    }

    #[test]
    fn an_announced_append_is_in_the_journal_again() {
        let (dir, acceptor) = logging(Logging::Accepts);
        let queue = Queue::open(&Root::new(dir.path())).unwrap();
        queue.keep_log(Logging::Works, SEGMENT);
        queue.work_log().unwrap();
        let id = accept(&acceptor, Lane::Local, b"x");
        let intent = |recipient| Intent {
            recipient,
            delivery: "d".into(),
            path: "/var/spool/mail/bob".into(),
            offset: 7,
            length: 8,
            checksum: 9,
            note: Vec::new(),
        };
        let mut entry = claimed(&queue, Lane::Local, &id);
        let announced = [0, 1].map(|r| entry.intend(intent(r)).unwrap().unwrap());
        crate::announce(announced.into()).unwrap();
        let attempt = Attempt {
            status: Status::OK,
            reply: "ok".into(),
            host: None,
        };
        let recipient = 1;
        entry
            .record(&[crate::Event::Delivered { recipient, attempt }])
            .unwrap();
        // What was not synced is lost: the journal, or the whole file.
        let (_after, without) = after_power_loss(&queue, logs);
        without.recover().unwrap();
        let found = claimed(&without, Lane::Local, &id);
        assert_eq!(found.recipients()[0].intent, Some(intent(0)));
        assert_eq!(found.recipients()[1].intent, Some(intent(1)));
        // Where it is there nothing is added.
        let (_after, with) = after_power_loss(&queue, |_| true);
        let size = || with.view(&id).unwrap().unwrap().history.len();
        let before = size();
        with.recover().unwrap();
        assert_eq!(size(), before);
        let found = claimed(&with, Lane::Local, &id);
        assert!(matches!(
            found.recipients()[1].outcome,
            Outcome::Delivered { .. }
        ));
    }

    #[test]
    fn a_full_log_is_emptied_and_nothing_waits_for_it() {
        let (_dir, queue) = logging(Logging::Accepts);
        let content = vec![b'x'; 10_000];
        let first = accept(&queue, Lane::Local, &content);
        let mut all = vec![first];
        // More than all segments together hold.
        for _ in 0..150 {
            all.push(accept(&queue, Lane::Local, &content));
        }
        let large = accept(&queue, Lane::Local, &vec![b'y'; 100_000]);
        all.push(large);
        all.sort();
        assert_eq!(ids(&queue, Place::Local), all);
        assert!(segments(&queue).len() <= super::super::MAX_SEGMENTS);
        // What has been emptied is used again.
        wait_until(|| {
            segments(&queue).iter().any(|path| {
                let generation = segment::generation(&File::open(path).unwrap()).unwrap();
                generation.is_some_and(|generation| generation > 1)
            })
        });
    }
}
