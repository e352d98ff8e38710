//! The moment of acceptance.
//!
//! 1. every file gets its name in its lane (`linkat`);
//! 2. the data of every file is made durable (`fdatasync`);
//! 3. every directory that got a name is made durable (`fsync`).
//!
//! Then, and only then, `Ok`: 250 may be said. The name comes first because a journalling file system
//! writes it out with the data then, and the last step finds nothing left to do. The files are locked
//! from their creation until all of it is done, so nobody works on a message that is not durable yet;
//! only power loss can leave a name with half a message, whose sender was promised nothing. Last,
//! each file is marked as durable (the owner's x bit), which also wakes the runner. On any failure
//! the names that were made are removed and nothing was promised.

use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{Doing, Fail};
use nix::sys::stat::{FchmodatFlags, Mode};

use crate::crash;
use crate::dir::Dir;
use crate::draft::Aside;
use crate::id::QueueId;
use crate::queue::{Lane, Place, Queue};
use crate::write::Image;

/// A queue file whose data and name are known to be durable. See [`is_marked`].
pub(crate) const DURABLE: Mode = Mode::from_bits_truncate(0o760);

/// The bits by which these marks differ from a file without one.
pub(crate) const MARKS: nix::libc::mode_t = 0o110;

/// What came of a commit.
pub type Committed = Result<Vec<QueueId>, Fail>;

/// How many files of one batch are synced at a time; the file system joins them in one commit.
const PARALLEL: usize = 8;

/// A complete message that is not in the queue yet. Dropped, it never was.
#[derive(Debug)]
pub struct Sealed {
    pub(crate) id: QueueId,
    pub(crate) lane: Lane,
    pub(crate) contents: Contents,
}

#[derive(Debug)]
pub(crate) enum Contents {
    File(File, Aside),
    /// It was never too large for memory, and has no file yet.
    Memory(Image),
}

/// A complete message with its file, which is locked.
#[derive(Debug)]
pub(crate) struct Filed {
    pub(crate) id: QueueId,
    pub(crate) lane: Lane,
    pub(crate) file: File,
    pub(crate) aside: Aside,
}

impl Sealed {
    pub fn id(&self) -> &QueueId {
        &self.id
    }

    pub fn lane(&self) -> Lane {
        self.lane
    }
}

impl Queue {
    /// Puts complete messages into the queue, all of them or none. After `Ok` they survive power
    /// loss. After `Err` nothing was promised.
    pub fn commit(&self, batch: Vec<Sealed>) -> Result<Vec<QueueId>, Fail> {
        let batch = self.all_filed(batch)?;
        self.with_names(&batch, || self.sync_linked(&batch))?;
        Ok(self.let_go(batch))
    }

    pub(crate) fn all_filed(&self, batch: Vec<Sealed>) -> Result<Vec<Filed>, Fail> {
        batch.into_iter().map(|sealed| self.filed(sealed)).collect()
    }

    /// Makes files durable that have their names.
    pub(crate) fn sync_linked(&self, batch: &[Filed]) -> Result<(), Fail> {
        if self.can_sync_lanes(batch)? {
            sync_files(batch, File::sync_data)?;
            crash::point("files synced");
            return self.sync_lanes(batch);
        }
        // Journalling file systems write a file's new name out with the file.
        sync_files(batch, File::sync_all)?;
        crash::point("files synced");
        Ok(())
    }

    /// Like [`Queue::commit`] up to the last step, with the data first: where the file that a message was copied
    /// from goes when its name is found, a name stands for a whole message. The locks are still held.
    pub(crate) fn make_durable(&self, batch: &[Filed]) -> Result<(), Fail> {
        sync_files(batch, File::sync_data)?;
        crash::point("files synced");
        self.with_names(batch, || {
            if self.can_sync_lanes(batch)? {
                return self.sync_lanes(batch);
            }
            sync_files(batch, File::sync_all)
        })
    }

    /// Gives all files their names and then does `sync`; if anything fails no name is left.
    fn with_names(
        &self,
        batch: &[Filed],
        sync: impl FnOnce() -> Result<(), Fail>,
    ) -> Result<(), Fail> {
        let mut linked: Vec<&Filed> = Vec::with_capacity(batch.len());
        let done = batch
            .iter()
            .try_for_each(|filed| {
                self.link(filed)?;
                linked.push(filed);
                crash::point("file linked");
                Ok(())
            })
            .and_then(|()| sync());
        if done.is_err() {
            for filed in linked {
                self.unlink_again(filed.lane, &filed.id);
            }
        }
        done
    }

    /// The last step: from here on the entry is whose lane it is in.
    pub(crate) fn let_go(&self, batch: Vec<Filed>) -> Vec<QueueId> {
        self.let_go_with(batch, DURABLE)
    }

    pub(crate) fn let_go_with(&self, batch: Vec<Filed>, mark: Mode) -> Vec<QueueId> {
        let mut ids = Vec::with_capacity(batch.len());
        for filed in batch {
            let Filed {
                id,
                lane,
                file,
                aside,
            } = filed;
            // Drops the name in incoming/ if there was one, then the lock.
            drop(aside);
            drop(file);
            if let Ok(dir) = self.dir(lane) {
                set_mark(dir, &id, mark);
            }
            ids.push(id);
        }
        ids
    }

    fn link(&self, filed: &Filed) -> Result<(), Fail> {
        let lane = self.dir(filed.lane)?;
        let linked = if filed.aside.named {
            lane.link_from(self.dir(Place::Incoming)?, &filed.id)
        } else {
            lane.link(&filed.file, filed.id.as_str())
        };
        linked.doing(|| format!("link {}", lane.name(filed.id.as_str())))
    }

    /// smtpd may make names in the lanes of an installed system, but neither read nor sync them.
    fn can_sync_lanes(&self, batch: &[Filed]) -> Result<bool, Fail> {
        for filed in batch {
            if !self.dir(filed.lane)?.can_sync() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Each directory that got a name, once.
    fn sync_lanes(&self, batch: &[Filed]) -> Result<(), Fail> {
        for lane in [Lane::Local, Lane::Relay] {
            if batch.iter().any(|filed| filed.lane == lane) {
                self.dir(lane)?.sync()?;
                crash::point("lane synced");
            }
        }
        Ok(())
    }

    pub(crate) fn unlink_again(&self, lane: Lane, id: &QueueId) {
        let removed = self.dir(lane).and_then(|dir| {
            dir.unlink(id.as_str())
                .doing(|| format!("remove {}", dir.name(id.as_str())))
        });
        if let Err(fail) = removed {
            log::error!("{id}: not accepted, but it stays in the queue: {fail}");
        }
    }
}

/// Syncs all files; several at a time when there are several.
pub(crate) fn sync_files(batch: &[Filed], how: fn(&File) -> io::Result<()>) -> Result<(), Fail> {
    let sync = |filed: &Filed| how(&filed.file).doing(|| format!("sync queue file {}", filed.id));
    if let [one] = batch {
        return sync(one);
    }
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let work = || {
        while let Some(sealed) = batch.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(fail) = sync(sealed)
                && let Ok(mut failed) = failed.lock()
            {
                *failed = Some(fail);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..PARALLEL.min(batch.len()) {
            // Where no thread is to be had, this one does it all.
            let helper = std::thread::Builder::new().spawn_scoped(scope, work);
            if helper.is_err() {
                break;
            }
        }
        work();
    });
    let failed = failed
        .into_inner()
        .unwrap_or_else(|_| Some(Fail::temp("sync queue files: a thread failed")));
    failed.map_or(Ok(()), Err)
}

/// Marks an entry as durable, which is seen by whoever watches the lane. Best effort: without the
/// mark its first journal record is synced with more care, and a scan finds it a little later.
pub(crate) fn mark_durable(dir: &Dir, id: &QueueId) {
    set_mark(dir, id, DURABLE);
}

fn set_mark(dir: &Dir, id: &QueueId, mark: Mode) {
    let marked =
        nix::sys::stat::fchmodat(dir.fd(), id.as_str(), mark, FchmodatFlags::FollowSymlink);
    match marked.map_err(io::Error::from) {
        Ok(()) => (),
        // Done already, and finished.
        Err(e) if e.kind() == io::ErrorKind::NotFound => (),
        Err(e) => log::warn!("{id}: mark {}: {e}", dir.name(id.as_str())),
    }
}

/// Whether the file has the mark. Only its creator sets it, and only after the sync; a power loss
/// may take it away again, never add it.
pub(crate) fn is_marked(mode: nix::libc::mode_t) -> bool {
    mode & 0o100 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::tests::{dies_at, role};
    use crate::queue::tests::{claimed, ids, put, scratch, sealed};
    use base::Root;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    #[test]
    fn a_batch_is_in_its_lanes_and_marked() {
        let (_dir, queue) = scratch();
        let batch = vec![
            sealed(&queue, Lane::Local, b"1"),
            sealed(&queue, Lane::Relay, b"2"),
        ];
        let done = queue.commit(batch).unwrap();
        assert_eq!(ids(&queue, Place::Local), [done[0]]);
        assert_eq!(ids(&queue, Place::Relay), [done[1]]);
        let mode = std::fs::metadata(queue.path().join("local").join(done[0].as_str())).unwrap();
        assert_eq!(mode.permissions().mode() & 0o7777, 0o760);
        assert_eq!(queue.commit(Vec::new()).unwrap(), []);
    }

    #[test]
    fn what_is_given_up_never_was() {
        let (_dir, queue) = scratch();
        drop(sealed(&queue, Lane::Local, b"x"));
        assert!(
            Place::ALL
                .into_iter()
                .all(|place| ids(&queue, place).is_empty())
        );
    }

    #[test]
    fn without_o_tmpfile_the_file_is_in_incoming_until_then() {
        let (_dir, queue) = scratch();
        let named = |sealed: Sealed| {
            let mut filed = queue.filed(sealed).unwrap();
            queue
                .dir(Place::Incoming)
                .unwrap()
                .link(&filed.file, filed.id.as_str())
                .unwrap();
            filed.aside.named = true;
            Sealed {
                id: filed.id,
                lane: filed.lane,
                contents: Contents::File(filed.file, filed.aside),
            }
        };
        drop(named(sealed(&queue, Lane::Local, b"x")));
        assert_eq!(ids(&queue, Place::Incoming), []);
        let id = queue
            .commit(vec![named(sealed(&queue, Lane::Local, b"x"))])
            .unwrap()[0];
        assert_eq!(ids(&queue, Place::Incoming), []);
        assert_eq!(claimed(&queue, Lane::Local, &id).size(), 1);
    }

    #[test]
    fn all_or_nothing() {
        let (_dir, queue) = scratch();
        let second = sealed(&queue, Lane::Relay, b"2");
        let path = queue.path().join("relay").join(second.id().as_str());
        std::fs::write(&path, b"somebody else's").unwrap();
        let fail = queue
            .commit(vec![sealed(&queue, Lane::Local, b"1"), second])
            .unwrap_err();
        assert!(fail.to_string().contains("File exists"), "{fail}");
        assert_eq!(ids(&queue, Place::Local), []);
        assert_eq!(std::fs::read(path).unwrap(), b"somebody else's");
    }

    /// The child of the next test.
    #[test]
    fn commits_until_it_dies() {
        let Some(root) = role() else { return };
        put(&Queue::open(&Root::new(root)).unwrap(), Lane::Local, b"x");
    }

    #[test]
    fn killed_at_any_step_there_is_a_whole_message_or_none() {
        for at in 1.. {
            let (dir, queue) = scratch();
            let died = dies_at("commit::tests::commits_until_it_dies", dir.path(), at);
            for id in ids(&queue, Place::Local) {
                assert_eq!(claimed(&queue, Lane::Local, &id).size(), 1);
            }
            assert_eq!(ids(&queue, Place::Incoming), []);
            if !died {
                assert_eq!(ids(&queue, Place::Local).len(), 1);
                assert!(at > 3, "{at}");
                break;
            }
        }
    }

    /// The child of the next test: a disk that takes 100 KiB of one file and no more.
    #[test]
    fn writes_until_it_is_full() {
        let Some(root) = role() else { return };
        let queue = Queue::open(&Root::new(root)).unwrap();
        let good = put(&queue, Lane::Local, &vec![b'x'; 50_000]);
        let origin = crate::Origin::now(crate::Source::Submission { uid: 1 });
        let mut draft = queue
            .draft(
                Lane::Local,
                &crate::queue::tests::envelope(&["a@b"]),
                &origin,
            )
            .unwrap();
        let full = draft
            .write(&vec![b'x'; 1 << 20])
            .and_then(|()| draft.finish());
        assert!(full.is_err());
        // The journal's end is taken back, and the entry goes on.
        let mut entry = claimed(&queue, Lane::Local, &good);
        let long = crate::Event::Held {
            lane: Lane::Local,
            reason: "y".repeat(4000),
        };
        let many = vec![long; 100];
        assert!(entry.record(&many).is_err());
        entry.record(&many[..1]).unwrap();
        drop(entry);
        let view = queue.view(&good).unwrap().unwrap();
        assert_eq!((view.size, view.history.len()), (50_000, 1));
        assert_eq!(ids(&queue, Place::Local), [good]);
        println!("all is as it should be");
    }

    #[test]
    fn a_full_disk_leaves_nothing_half() {
        let (dir, _queue) = scratch();
        let exe = std::env::current_exe().unwrap();
        let output = Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 200; exec \"$@\"", "sh"])
            .arg(exe)
            .args([
                "--exact",
                "commit::tests::writes_until_it_is_full",
                "--nocapture",
            ])
            .env("QUEUE_TEST_ROOT", dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && said.contains("all is as it should be"),
            "{said}"
        );
    }
}
