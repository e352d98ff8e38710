//! Acceptance through the commit log (DESIGN 4), for messages small enough to be in memory until then.
//!
//! 1. every message gets its file in its lane, locked, and nothing is synced;
//! 2. one record, the files of all of them, goes into the log, whose sync they share with whoever
//!    comes at the same time.
//!
//! Then, and only then, `Ok`. The process may die at any step: then its files are whole, or empty and
//! removed some seconds later ([`Queue::claim`]), and what the page cache holds survives. Where the power
//! fails, recovery makes the files again that the log has; of the others there may be a part, and
//! their senders were promised nothing.

use std::io::Write;

use base::{Doing, Fail};
use nix::sys::stat::Mode;

use crate::commit::{Committed, Contents, Filed, Sealed};
use crate::crash;
use crate::draft::{MODE, lock_own};
use crate::id::QueueId;
use crate::log::Log;
use crate::queue::{Lane, Queue};
use crate::write::Image;

/// A queue file that the commit log has, and that may not be durable itself: the mark wakes the
/// runner.
pub(crate) const LOGGED: Mode = Mode::from_bits_truncate(0o670);

/// What a record has beside the files in it, at most.
const FRAME: usize = 100;

impl Queue {
    /// Like [`Queue::commit`], through the commit log where one is kept: `then` is told, on this thread
    /// or on another, and must not wait for anything. What is no matter for the log is committed at
    /// once.
    pub fn commit_soon(&self, batch: Vec<Sealed>, then: impl FnOnce(Committed) + Send + 'static) {
        let fits = |log: &&Log, images: &[(Lane, QueueId, &Image)]| {
            let lengths = images.iter().map(|(_, _, image)| image.records().len());
            lengths.map(|length| length + FRAME).sum::<usize>() <= log.limit()
        };
        let log = self.ready_log().zip(images(&batch));
        let Some((log, images)) = log.filter(|(log, images)| fits(log, images)) else {
            return then(self.commit(batch));
        };
        let filed = match self.all_in_lanes(&images) {
            Ok(filed) => filed,
            Err(fail) => return then(Err(fail)),
        };
        let queue = self.clone();
        let told = move |result: Result<(), Fail>| match result {
            Ok(()) => then(Ok(queue.let_go_with(filed, LOGGED))),
            Err(fail) => then(queue.commit_otherwise(filed, &fail)),
        };
        let accepted = images
            .into_iter()
            .map(|(lane, id, image)| (lane, id, image.records()));
        log.accepted(accepted, Box::new(told));
    }

    /// All of them or none.
    fn all_in_lanes(&self, images: &[(Lane, QueueId, &Image)]) -> Result<Vec<Filed>, Fail> {
        let mut filed = Vec::with_capacity(images.len());
        for (lane, id, image) in images {
            match self.filed_in_lane(*id, *lane, image) {
                Ok(file) => filed.push(file),
                Err(fail) => {
                    self.forget(&filed);
                    return Err(fail);
                }
            }
            crash::point("file made");
        }
        Ok(filed)
    }

    fn forget(&self, batch: &[Filed]) {
        for filed in batch {
            self.unlink_again(filed.lane, &filed.id);
        }
    }

    /// The log did not take it: the files are synced.
    fn commit_otherwise(&self, batch: Vec<Filed>, why: &Fail) -> Committed {
        log::debug!("{why}: syncing the files");
        match self.sync_linked(&batch) {
            Ok(()) => Ok(self.let_go(batch)),
            Err(fail) => {
                self.forget(&batch);
                Err(fail)
            }
        }
    }

    /// A file that is locked until it is whole and logged.
    fn filed_in_lane(&self, id: QueueId, lane: Lane, image: &Image) -> Result<Filed, Fail> {
        let dir = self.dir(lane)?;
        let doing = || format!("write queue file {}", dir.name(id.as_str()));
        let mut file = dir.create(id.as_str(), MODE).doing(doing)?;
        crash::point("file created");
        let gone = || Fail::temp(format!("{}: it was removed", doing()));
        let made = lock_own(&file).and_then(|()| {
            let stat = nix::sys::stat::fstat(&file).doing(doing)?;
            if stat.st_nlink == 0 {
                return Ok(false);
            }
            if stat.st_mode & MODE.bits() != MODE.bits() {
                // Whatever the umask says: the owner of the lane has to read and to append.
                nix::sys::stat::fchmod(&file, MODE).doing(doing)?;
            }
            file.write_all(image.bytes()).doing(doing).map(|()| true)
        });
        match made {
            Ok(true) => Ok(Filed {
                id,
                lane,
                file,
                aside: self.aside(id),
            }),
            // Whoever claims looked at it before it was locked, long after it was made.
            Ok(false) => Err(gone()),
            Err(fail) => {
                self.unlink_again(lane, &id);
                Err(fail)
            }
        }
    }
}

/// What the commit log would say of them, if all of them are in memory.
fn images(batch: &[Sealed]) -> Option<Vec<(Lane, QueueId, &Image)>> {
    batch
        .iter()
        .map(|sealed| match &sealed.contents {
            Contents::Memory(image) => Some((sealed.lane, sealed.id, image)),
            Contents::File(..) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::tests::{dies_at, role};
    use crate::logging::Logging;
    use crate::queue::tests::{claimed, ids, scratch, sealed};
    use crate::{Claim, Place};
    use base::Root;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc;
    use std::time::{Duration, SystemTime};

    const SEGMENT: u64 = 64 * 1024;

    fn accepts(queue: &Queue) {
        queue.keep_log(Logging::Accepts, SEGMENT);
        queue.ready_log();
        while !queue.has_log() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn accepted(queue: &Queue, batch: Vec<Sealed>) -> Committed {
        let (said, heard) = mpsc::channel();
        queue.commit_soon(batch, move |done| said.send(done).unwrap());
        heard.recv().unwrap()
    }

    fn mode(queue: &Queue, lane: &str, id: &QueueId) -> u32 {
        let file = std::fs::metadata(queue.path().join(lane).join(id.as_str()));
        file.unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_small_message_has_no_file_before_it_is_accepted() {
        let (_dir, queue) = scratch();
        accepts(&queue);
        let batch = vec![
            sealed(&queue, Lane::Local, b"1"),
            sealed(&queue, Lane::Relay, b"2"),
        ];
        let in_memory = |sealed: &Sealed| matches!(sealed.contents, Contents::Memory(_));
        assert!(batch.iter().all(in_memory));
        let ids = accepted(&queue, batch).unwrap();
        assert_eq!(mode(&queue, "local", &ids[0]), 0o670);
        assert_eq!(claimed(&queue, Lane::Local, &ids[0]).size(), 1);
        assert_eq!(claimed(&queue, Lane::Relay, &ids[1]).size(), 1);
    }

    #[test]
    fn what_is_too_large_for_the_log_is_synced() {
        let (_dir, queue) = scratch();
        accepts(&queue);
        // A quarter of a segment at most.
        let half = 8 * 1024;
        for batch in [
            vec![sealed(&queue, Lane::Local, &[b'x'; 100_000])],
            vec![
                sealed(&queue, Lane::Local, &vec![b'x'; half]),
                sealed(&queue, Lane::Local, &vec![b'x'; half]),
            ],
        ] {
            let ids = accepted(&queue, batch).unwrap();
            assert_eq!(mode(&queue, "local", &ids[0]), 0o760);
        }
    }

    #[test]
    fn all_or_nothing() {
        let (_dir, queue) = scratch();
        accepts(&queue);
        let second = sealed(&queue, Lane::Relay, b"2");
        let path = queue.path().join("relay").join(second.id().as_str());
        std::fs::write(&path, b"somebody else's").unwrap();
        let batch = vec![sealed(&queue, Lane::Local, b"1"), second];
        let fail = accepted(&queue, batch).unwrap_err();
        assert!(fail.to_string().contains("File exists"), "{fail}");
        assert_eq!(ids(&queue, Place::Local), []);
        assert_eq!(std::fs::read(path).unwrap(), b"somebody else's");
    }

    /// The child of the next test.
    #[test]
    fn accepts_until_it_dies() {
        let Some(root) = role() else { return };
        let queue = Queue::open(&Root::new(root)).unwrap();
        accepts(&queue);
        let batch = vec![
            sealed(&queue, Lane::Local, b"1"),
            sealed(&queue, Lane::Local, b"2"),
        ];
        accepted(&queue, batch).unwrap();
    }

    #[test]
    fn killed_at_any_step_there_are_whole_messages_and_what_goes_by_itself() {
        let mut empty = 0;
        for at in 1.. {
            let (dir, queue) = scratch();
            let died = dies_at("logged::tests::accepts_until_it_dies", dir.path(), at);
            for id in ids(&queue, Place::Local) {
                let path = queue.path().join("local").join(id.as_str());
                if std::fs::metadata(&path).unwrap().len() > 0 {
                    assert_eq!(claimed(&queue, Lane::Local, &id).size(), 1);
                    continue;
                }
                empty += 1;
                assert!(queue.view(&id).unwrap().is_none());
                // Its maker may be about to write.
                let claim = queue.claim(Lane::Local, &id).unwrap();
                assert!(matches!(claim, Claim::Busy), "{claim:?}");
                let file = std::fs::File::open(&path).unwrap();
                let before = SystemTime::now() - Duration::from_secs(6);
                file.set_modified(before).unwrap();
                let claim = queue.claim(Lane::Local, &id).unwrap();
                assert!(matches!(claim, Claim::Gone), "{claim:?}");
                assert!(!path.exists());
            }
            if !died {
                assert_eq!(ids(&queue, Place::Local).len(), 2);
                break;
            }
        }
        assert_eq!(empty, 2);
    }

    #[test]
    fn a_file_that_was_begun_and_not_ended_is_damaged() {
        let (_dir, queue) = scratch();
        accepts(&queue);
        let ids = accepted(&queue, vec![sealed(&queue, Lane::Local, b"1")]).unwrap();
        // As power loss leaves it, where the log was not synced either: a part, and no mark.
        let path = queue.path().join("local").join(ids[0].as_str());
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(40).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o660))
            .unwrap();
        match queue.claim(Lane::Local, &ids[0]).unwrap() {
            Claim::Damaged(why) => assert!(why.contains("its sender has it still"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert!(queue.path().join("damaged").join(ids[0].as_str()).exists());
    }
}
