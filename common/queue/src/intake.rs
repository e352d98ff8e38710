//! From `drop/` into the queue: qrun's side of a submission.
//!
//! A message is taken in once, although its file may be found again after a crash. The entry has
//! the drop file's name as its id. The drop file is removed after the entry is durable and before
//! its lock is let go; whoever claims an entry of that kind removes what a crash left in `drop/`
//! before he does anything with it. So a drop file beside an entry is a finished copy, and a drop
//! file without one was never worked on. One intake runs at a time (a lock on the directory).
//!
//! Nothing in `drop/` is trusted: it may be a link, a pipe, a file that changes while it is read.
//! What cannot be a message is moved to `damaged/`, up to a bound, and skipped beyond it.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead};
use std::time::{Duration, SystemTime};

use base::{Doing, Fail, Sysexit};
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};

use crate::commit::{Filed, Sealed};
use crate::content::Content;
use crate::crash;
use crate::drop::UNFINISHED;
use crate::dropped::{Dropped, TakenIn, Verdict};
use crate::file::{self, Depth, Unreadable};
use crate::id::QueueId;
use crate::origin::{Origin, Source};
use crate::queue::{Place, Queue, modified, size};

/// Messages that are made durable together.
const BATCH: usize = 64;
/// Names looked at in one run; the next run sees the rest.
const NAMES: usize = 10_000;
/// `damaged/` gets no more from `drop/` when it has so many.
const MAX_DAMAGED: usize = 1000;
/// A second link, or a file under its working name, is given this long to go.
const PATIENCE: Duration = Duration::from_secs(60);
const ABANDONED: Duration = Duration::from_secs(36 * 60 * 60);

/// Takes in what is in `drop/`. Keep it: it remembers what it warned about.
#[derive(Debug)]
pub struct Intake {
    queue: Queue,
    max_size: u64,
    per_user: usize,
    warned: HashSet<OsString>,
}

/// What one name came to.
enum One {
    Sealed(Sealed),
    /// Taken in before, gone, or none of our business.
    Nothing,
    Left,
    /// Not to be read now, which is no reason to keep the others waiting.
    Trouble(String),
    Garbage(String),
}

impl Intake {
    /// Files larger than `max_size` are refused; of one user's at most `per_user` are taken in one
    /// run, so that nobody's flood stops the others.
    pub fn new(queue: &Queue, max_size: u64, per_user: usize) -> Self {
        Self {
            queue: queue.clone(),
            max_size,
            per_user,
            warned: HashSet::new(),
        }
    }

    /// Another limit than that of [`Intake::new`] from now on.
    pub fn set_max_size(&mut self, max_size: u64) {
        self.max_size = max_size;
    }

    /// Takes in everything that is there, as `judge` says. When another process is at it, nothing
    /// happens. An error means that the queue cannot take more now; what was accepted is accepted.
    pub fn run(&mut self, mut judge: impl FnMut(&Dropped) -> Verdict) -> Result<TakenIn, Fail> {
        self.run_with(|dropped, _| (judge(dropped), Vec::new()))
    }

    /// The same with a judge who may read the content and who writes what is put before it: trace
    /// fields, and those that a submission must have and this one lacks (RFC 6409 8).
    pub fn run_with(
        &mut self,
        mut judge: impl FnMut(&Dropped, &mut dyn BufRead) -> (Verdict, Vec<u8>),
    ) -> Result<TakenIn, Fail> {
        let mut done = TakenIn::default();
        let Some(_alone) = self.lock()? else {
            return Ok(done);
        };
        let mut names = Vec::new();
        let mut fresh: usize = 0;
        self.queue.dir(Place::Drop)?.names(|name| {
            // What has to stay there does not hide what came later.
            fresh += usize::from(!self.warned.contains(name));
            names.push(name.to_owned());
            fresh < NAMES
        })?;
        names.sort_unstable();
        self.warned.retain(|name| names.binary_search(name).is_ok());
        let mut users = HashMap::new();
        let mut batch = Vec::new();
        let mut room = self.room_for_damage()?;
        for name in names {
            match self.one(&name, &mut users, &mut judge)? {
                One::Sealed(sealed) => batch.push(sealed),
                One::Nothing => (),
                One::Left => done.left += 1,
                One::Trouble(reason) => {
                    let shown = base::escape::escape(name.as_encoded_bytes()).to_string();
                    self.warn(&name, &format!("drop/{shown}: {reason}: left there"));
                    done.left += 1;
                }
                One::Garbage(reason) => self.put_away(&name, &reason, &mut room, &mut done)?,
            }
            if batch.len() == BATCH {
                done.accepted
                    .extend(self.accept(std::mem::take(&mut batch))?);
            }
        }
        if !batch.is_empty() {
            done.accepted.extend(self.accept(batch)?);
        }
        Ok(done)
    }

    /// A lock on the directory itself, which only yubin can open; `None` when another has it.
    fn lock(&self) -> Result<Option<Flock<File>>, Fail> {
        let drop = self.queue.dir(Place::Drop)?;
        let doing = || format!("lock {}", drop.path().display());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let own = nix::fcntl::openat(drop.fd(), ".", flags, Mode::empty()).doing(doing)?;
        match Flock::lock(File::from(own), FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, e)) => Err(Fail::io(doing(), e.into())),
        }
    }

    fn one(
        &self,
        name: &OsStr,
        users: &mut HashMap<u32, usize>,
        judge: &mut impl FnMut(&Dropped, &mut dyn BufRead) -> (Verdict, Vec<u8>),
    ) -> Result<One, Fail> {
        let drop = self.queue.dir(Place::Drop)?;
        let Ok(id) = QueueId::parse(name.as_encoded_bytes()) else {
            return self.strange_name(name);
        };
        let file = match drop.open_file(name, OFlag::O_RDONLY) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(One::Nothing),
            // Our own trouble is not the sender's.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(
                        nix::libc::EMFILE | nix::libc::ENFILE | nix::libc::ENOMEM | nix::libc::EIO
                    )
                ) =>
            {
                return Err(Fail::io(format!("open {}", drop.name(name)), e));
            }
            Err(e) => return Ok(One::Garbage(e.to_string())),
        };
        let stat = nix::sys::stat::fstat(&file).doing(|| format!("stat {}", drop.name(name)))?;
        if let Some(one) = self.unfit(&stat) {
            return Ok(one);
        }
        let taken = users.entry(stat.st_uid).or_insert(0_usize);
        if *taken >= self.per_user {
            return Ok(One::Left);
        }
        *taken += 1;
        if let Some(place) = self.queue.find(&id)? {
            return self.found_again(&id, place, stat.st_uid);
        }
        // An owner removes the drop file before he finishes the entry: if the entry was finished
        // between the two looks, the file is gone by now.
        if !drop
            .still_names(&id, &file)
            .doing(|| format!("stat {}", drop.name(name)))?
        {
            return Ok(One::Nothing);
        }
        self.copy(id, &file, stat.st_uid, judge)
    }

    /// A name that no submission has.
    fn strange_name(&self, name: &OsStr) -> Result<One, Fail> {
        let drop = self.queue.dir(Place::Drop)?;
        let being_written = name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
        if !being_written {
            return Ok(One::Garbage("its name is not a queue id".into()));
        }
        let stat = drop
            .stat(name)
            .doing(|| format!("stat {}", drop.name(name)))?;
        if stat.is_some_and(|stat| is_older(&stat, ABANDONED)) {
            return Ok(One::Garbage("nobody finished it".into()));
        }
        Ok(One::Nothing)
    }

    fn unfit(&self, stat: &FileStat) -> Option<One> {
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
            return Some(One::Garbage("not a regular file".into()));
        }
        if stat.st_nlink != 1 {
            let known_elsewhere = || One::Garbage("it has a second name".into());
            return Some(if is_older(stat, PATIENCE) {
                known_elsewhere()
            } else {
                One::Left
            });
        }
        if size(stat) > self.max_size {
            return Some(One::Garbage(format!("{} bytes are too many", size(stat))));
        }
        None
    }

    /// There is an entry of this id: our own, from before a crash, or somebody else's.
    fn found_again(&self, id: &QueueId, place: Place, uid: u32) -> Result<One, Fail> {
        let dir = self.queue.dir(place)?;
        let doing = || format!("open {}", dir.name(id.as_str()));
        let entry = match dir.open_entry(id, OFlag::O_RDWR) {
            Ok(entry) => entry,
            // It moved just now; the next run knows more.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(One::Left),
            Err(e) => return Err(Fail::io(doing(), e)),
        };
        let same =
            file::read_origin(&entry).is_some_and(|o| o.source == Source::Submission { uid });
        if !same {
            return Ok(One::Garbage(
                "its name is another message's queue id".into(),
            ));
        }
        entry.sync_all().doing(doing)?;
        dir.sync()?;
        let drop = self.queue.dir(Place::Drop)?;
        drop.unlink(id.as_str())
            .doing(|| format!("remove {}", drop.name(id.as_str())))?;
        drop.sync()?;
        log::info!("{id}: was taken in before");
        Ok(One::Nothing)
    }

    /// Copies a submission into a draft and makes sure that the copy is what was read first.
    fn copy(
        &self,
        id: QueueId,
        file: &File,
        uid: u32,
        judge: &mut impl FnMut(&Dropped, &mut dyn BufRead) -> (Verdict, Vec<u8>),
    ) -> Result<One, Fail> {
        let contents = match file::read(file, Depth::Verify) {
            Ok(contents) => contents,
            Err(Unreadable::Io(e)) => return Ok(One::Trouble(e.to_string())),
            Err(other) => return Ok(One::Garbage(other.to_string())),
        };
        let dropped = Dropped::read(id, uid, &contents);
        let (verdict, prologue) = judge(&dropped, &mut Content::new(file, &contents));
        let (lane, envelope) = match verdict {
            Verdict::Accept { lane, envelope } => (lane, envelope),
            Verdict::Refuse { reason } => return Ok(One::Garbage(reason)),
            Verdict::Later => return Ok(One::Left),
        };
        let origin = Origin::now(Source::Submission { uid });
        let mut draft = match self.queue.draft_as(id, lane, &envelope, &origin) {
            // A file that its owner wrote without sendmail(1), at the limit of what a record holds.
            Err(fail) if fail.code() == Sysexit::DataErr => {
                return Ok(One::Garbage(fail.to_string()));
            }
            other => other?,
        };
        draft.write(&prologue)?;
        let prologue = draft.size();
        let mut sum = 0;
        let mut content = Content::new(file, &contents);
        loop {
            let part = match content.fill_buf() {
                Ok([]) => break,
                Ok(part) => part,
                Err(e)
                    if e.kind() == io::ErrorKind::InvalidData
                        || e.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    return Ok(One::Garbage("it changed while it was read".into()));
                }
                Err(e) => return Ok(One::Trouble(e.to_string())),
            };
            sum = crc32c::crc32c_append(sum, part);
            draft.write(part)?;
            let length = part.len();
            content.consume(length);
        }
        if sum != contents.content_sum || draft.size() - prologue != contents.content_length {
            return Ok(One::Garbage("it changed while it was read".into()));
        }
        Ok(One::Sealed(draft.finish()?))
    }

    /// Makes entries durable, then removes their drop files, then lets the entries go.
    fn accept(&self, batch: Vec<Sealed>) -> Result<Vec<QueueId>, Fail> {
        let batch = self.queue.all_filed(batch)?;
        self.queue.make_durable(&batch)?;
        crash::point("taken in");
        let drop = self.queue.dir(Place::Drop)?;
        for Filed { id, .. } in &batch {
            if let Err(e) = drop.unlink(id.as_str()) {
                // Who claims the entry tries again, and does nothing before it succeeds.
                log::error!("{id}: remove {}: {e}", drop.name(id.as_str()));
            }
            crash::point("drop file removed");
        }
        drop.sync()?;
        Ok(self.queue.let_go(batch))
    }

    /// How many files `damaged/` may still get from `drop/`.
    fn room_for_damage(&self) -> Result<usize, Fail> {
        let mut room = MAX_DAMAGED;
        self.queue.dir(Place::Damaged)?.names(|_| {
            room = room.saturating_sub(1);
            room > 0
        })?;
        Ok(room)
    }

    /// Out of the way, with its reason in the log; once.
    fn put_away(
        &mut self,
        name: &OsStr,
        reason: &str,
        room: &mut usize,
        done: &mut TakenIn,
    ) -> Result<(), Fail> {
        let (drop, damaged) = (
            self.queue.dir(Place::Drop)?,
            self.queue.dir(Place::Damaged)?,
        );
        let shown = base::escape::escape(name.as_encoded_bytes()).to_string();
        if *room > 0 {
            // A name of its own: it may be no queue id, or that of something which is there.
            let id = QueueId::generate()?;
            match damaged.take_as(drop, name, id.as_str().as_ref()) {
                Ok(()) => {
                    log::warn!(
                        "drop/{shown}: {reason}: moved to {}",
                        damaged.name(id.as_str())
                    );
                    done.refused += 1;
                    *room = room.saturating_sub(1);
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => self.warn(
                    name,
                    &format!("drop/{shown}: {reason}: cannot be moved: {e}"),
                ),
            }
        } else {
            self.warn(
                name,
                &format!("drop/{shown}: {reason}: left there, damaged has enough"),
            );
        }
        done.left += 1;
        Ok(())
    }

    fn warn(&mut self, name: &OsStr, text: &str) {
        if self.warned.insert(name.to_owned()) {
            log::warn!("{text}");
        }
    }
}

fn is_older(stat: &FileStat, age: Duration) -> bool {
    SystemTime::now()
        .duration_since(modified(stat))
        .is_ok_and(|since| since > age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::tests::{dies_at, role};
    use crate::drop::{Letter, Submission};
    use crate::queue::Lane;
    use crate::queue::tests::{claimed, envelope, ids, put, scratch};
    use base::envelope::{Body, Needs};
    use base::{ReversePath, Root};
    use std::io::Read;
    use std::path::Path;

    fn letter() -> Letter {
        Letter {
            sender: None,
            recipients: envelope(&["bob@example.org"]).recipients,
            body: Body::SevenBit,
            ret: None,
            envid: None,
            needs: Needs::default(),
        }
    }

    fn submit(root: &Path, content: &[u8]) -> QueueId {
        let mut submission = Submission::create(&Root::new(root), &letter()).unwrap();
        submission.write(content).unwrap();
        assert_eq!(submission.size(), content.len() as u64);
        submission.commit().unwrap()
    }

    fn accept(dropped: &Dropped) -> Verdict {
        let sender = ReversePath::Address("ann@example.org".parse().unwrap());
        Verdict::Accept {
            lane: Lane::Local,
            envelope: dropped.envelope(sender),
        }
    }

    fn intake(queue: &Queue) -> Intake {
        Intake::new(queue, 1 << 20, 100)
    }

    #[test]
    fn a_submission_becomes_an_entry_of_the_same_id() {
        let (dir, queue) = scratch();
        let id = submit(dir.path(), &vec![b'x'; 100_000]);
        assert_eq!(queue.list().unwrap()[0].place, Place::Drop);
        let done = intake(&queue).run(accept).unwrap();
        assert_eq!(done.accepted, [id]);
        assert_eq!(ids(&queue, Place::Drop), []);
        let entry = claimed(&queue, Lane::Local, &id);
        let uid = nix::unistd::getuid().as_raw();
        assert_eq!(entry.origin().source, Source::Submission { uid });
        assert_eq!(entry.envelope().reverse_path.to_string(), "ann@example.org");
        let mut content = Vec::new();
        entry.content().read_to_end(&mut content).unwrap();
        assert!(content == vec![b'x'; 100_000]);
    }

    #[test]
    fn judged_and_bounded() {
        let (dir, queue) = scratch();
        for _ in 0..3 {
            submit(dir.path(), b"x");
        }
        assert_eq!(intake(&queue).run(|_| Verdict::Later).unwrap().left, 3);
        let done = Intake::new(&queue, 1 << 20, 2).run(accept).unwrap();
        assert_eq!((done.accepted.len(), done.left), (2, 1));
        let done = intake(&queue)
            .run(|_| Verdict::Refuse {
                reason: "no".into(),
            })
            .unwrap();
        assert_eq!((done.refused, ids(&queue, Place::Damaged).len()), (1, 1));
        submit(dir.path(), &vec![b'x'; 1 << 20]);
        assert_eq!(intake(&queue).run(accept).unwrap().refused, 1);
    }

    #[test]
    fn garbage_never_stops_the_rest() {
        let (dir, queue) = scratch();
        let place = queue.path().join("drop");
        let new = || QueueId::generate().unwrap();
        std::fs::write(place.join("junk"), b"x").unwrap();
        std::fs::write(place.join(new().as_str()), b"x").unwrap();
        std::fs::write(place.join(new().as_str()), b"").unwrap();
        std::fs::write(place.join("new.xyz"), b"being written").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", place.join(new().as_str())).unwrap();
        nix::unistd::mkfifo(&place.join(new().as_str()), Mode::S_IRWXU).unwrap();
        std::fs::create_dir(place.join(new().as_str())).unwrap();
        let (good, cut, twice) = (
            submit(dir.path(), b"x"),
            submit(dir.path(), b"y"),
            submit(dir.path(), b"z"),
        );
        File::options()
            .write(true)
            .open(place.join(cut.as_str()))
            .unwrap()
            .set_len(60)
            .unwrap();
        std::fs::hard_link(place.join(twice.as_str()), dir.path().join("second")).unwrap();
        // Somebody else's id.
        let theirs = put(&queue, Lane::Relay, b"theirs");
        std::fs::copy(place.join(good.as_str()), place.join(theirs.as_str())).unwrap();
        let done = intake(&queue).run(accept).unwrap();
        assert_eq!(done.accepted, [good]);
        assert_eq!((done.refused, done.left), (8, 1));
        assert_eq!(ids(&queue, Place::Relay), [theirs]);
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 2);
        assert_eq!(queue.list().unwrap().len(), 2 + 8 + 1);
    }

    #[test]
    fn an_envelope_that_no_entry_can_hold_stops_nobody() {
        let (dir, queue) = scratch();
        // Its record is as long as it may be, and the entry's has a sender and a lane too.
        let mut poison = letter();
        poison.envid = Some("x".repeat(64 * 1024 - 5 - 13));
        for _ in 0..2 {
            let bad = Submission::create(&Root::new(dir.path()), &poison).unwrap();
            bad.commit().unwrap();
            submit(dir.path(), b"good");
        }
        let done = intake(&queue).run(accept).unwrap();
        assert_eq!((done.accepted.len(), done.refused), (2, 2));
        assert_eq!(ids(&queue, Place::Drop), []);
    }

    /// The child process of the next tests.
    #[test]
    fn takes_in_until_it_dies() {
        let Some(root) = role() else { return };
        let queue = Queue::open(&Root::new(root)).unwrap();
        intake(&queue).run(accept).unwrap();
    }

    #[test]
    fn killed_at_any_step_a_submission_is_taken_in_once() {
        // Whoever comes first after the crash: the next intake, or deliver, which finishes the
        // message before the next intake sees its drop file.
        for deliver_first in [false, true] {
            for at in 1.. {
                let (dir, queue) = scratch();
                let mut wanted = vec![submit(dir.path(), b"1"), submit(dir.path(), b"2")];
                wanted.sort();
                let died = dies_at("intake::tests::takes_in_until_it_dies", dir.path(), at);
                let mut finished = Vec::new();
                let mut deliver = |queue: &Queue| {
                    for id in ids(queue, Place::Local) {
                        claimed(queue, Lane::Local, &id).finish().unwrap();
                        finished.push(id);
                    }
                };
                if deliver_first {
                    deliver(&queue);
                }
                intake(&queue).run(accept).unwrap();
                deliver(&queue);
                intake(&queue).run(accept).unwrap();
                assert_eq!(ids(&queue, Place::Local), []);
                assert_eq!(ids(&queue, Place::Drop), []);
                finished.sort();
                assert_eq!(finished, wanted, "step {at}");
                if !died {
                    assert!(at > 6, "only {at} steps");
                    break;
                }
            }
        }
    }

    #[test]
    fn one_intake_at_a_time() {
        let (dir, queue) = scratch();
        submit(dir.path(), b"x");
        let first = intake(&queue);
        let lock = first.lock().unwrap();
        assert!(lock.is_some());
        assert_eq!(intake(&queue).run(accept).unwrap(), TakenIn::default());
        drop(lock);
        assert_eq!(intake(&queue).run(accept).unwrap().accepted.len(), 1);
    }
}
