//! Wake-ups: inotify on the directories of the queue.
//!
//! A wake-up is only a hint. It can be lost (an overflow, a network file system), so a runner scans
//! its lane every few seconds or minutes as well; with every wake-up gone mail still moves.
//!
//! An entry is announced when it is durable and its lock is free: its creator marks it then
//! (`IN_ATTRIB`). The runner's own journal records announce it too, since they set its time: look
//! at [`Queue::due`] before you claim what was announced.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use base::{Doing, Fail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::id::QueueId;
use crate::queue::{Place, Queue};

/// Watches some of the queue's directories.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    places: Vec<(WatchDescriptor, Place)>,
    requests: Option<WatchDescriptor>,
}

/// What was announced since the last look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Woken {
    /// Each once, oldest id first.
    pub names: Vec<(Place, QueueId)>,
    /// Somebody asks for a domain's mail: see [`Queue::flush_requests`].
    pub requests: bool,
    /// Some were lost: scan everything.
    pub overflow: bool,
}

impl Watch {
    /// Starts to watch. What was there before is found by a scan, after this.
    pub fn start(queue: &Queue, places: &[Place]) -> Result<Self, Fail> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Inotify::init(flags).doing(|| "start inotify")?;
        let mut watched = Vec::new();
        for place in places {
            let path = queue.dir(*place)?.path().to_owned();
            let mask = match place {
                // A drop file is complete when it gets its name.
                Place::Drop => AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO,
                _ => AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVED_TO,
            };
            let descriptor = inotify
                .add_watch(&path, mask | AddWatchFlags::IN_ONLYDIR)
                .doing(|| format!("watch {}", path.display()))?;
            watched.push((descriptor, *place));
        }
        Ok(Self {
            inotify,
            places: watched,
            requests: None,
        })
    }

    /// Watches for requests too.
    pub fn watch_requests(&mut self, queue: &Queue) -> Result<(), Fail> {
        let path = queue.flush_path();
        let mask = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ONLYDIR;
        let watched = self.inotify.add_watch(&path, mask);
        self.requests = Some(watched.doing(|| format!("watch {}", path.display()))?);
        Ok(())
    }

    /// Waits until something was announced, at most for `timeout`; then the answer is empty. A
    /// signal ends the wait too.
    pub fn wait(&self, timeout: Duration) -> Result<Woken, Fail> {
        let until = Instant::now() + timeout;
        loop {
            let woken = self.take()?;
            let left = until.saturating_duration_since(Instant::now());
            if !woken.names.is_empty() || woken.overflow || woken.requests || left.is_zero() {
                return Ok(woken);
            }
            // Rounded up, so that the last millisecond is not spent in a busy loop.
            let millis = left.as_millis().saturating_add(1);
            let poll_for = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
            match nix::poll::poll(
                &mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)],
                poll_for,
            ) {
                Err(Errno::EINTR) => return Ok(Woken::default()),
                other => other.doing(|| "wait for the queue")?,
            };
        }
    }

    /// What was announced until now, without waiting: for callers with a poll of their own.
    pub fn take(&self) -> Result<Woken, Fail> {
        let mut names = BTreeSet::new();
        let (mut overflow, mut requests) = (false, false);
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(Fail::io("read inotify", e.into())),
            };
            for event in events {
                overflow |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                requests |= self.requests == Some(event.wd);
                let place = self
                    .places
                    .iter()
                    .find(|(wd, _)| *wd == event.wd)
                    .map(|(_, place)| *place);
                let id = event
                    .name
                    .and_then(|name| QueueId::parse(name.as_bytes()).ok());
                names.extend(place.zip(id));
            }
        }
        Ok(Woken {
            names: names.into_iter().collect(),
            requests,
            overflow,
        })
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Lane;
    use crate::queue::tests::{claimed, put, scratch};

    #[test]
    fn what_is_announced_is_free() {
        let (_dir, queue) = scratch();
        let watch = Watch::start(&queue, &[Place::Local, Place::Relay]).unwrap();
        assert_eq!(
            watch.wait(Duration::from_millis(20)).unwrap(),
            Woken::default()
        );
        std::thread::scope(|scope| {
            scope.spawn(|| put(&queue, Lane::Local, b"x"));
            let woken = watch.wait(Duration::from_secs(10)).unwrap();
            let (place, id) = woken.names[0];
            assert_eq!(place, Place::Local);
            let entry = claimed(&queue, Lane::Local, &id);
            entry.hand_over(Lane::Relay).unwrap();
            let woken = watch.wait(Duration::from_secs(10)).unwrap();
            assert!(woken.names.contains(&(Place::Relay, id)), "{woken:?}");
        });
        let id = put(&queue, Lane::Relay, b"x");
        watch.take().unwrap();
        assert!(queue.hasten(Lane::Relay, &id).unwrap());
        assert_eq!(watch.take().unwrap().names, [(Place::Relay, id)]);
    }
}
