//! Tells when a mailbox may have changed: one inotify instance and one thread for a whole process.
//!
//! All INBOXes lie in one directory, so one watch serves every user's mbox; a Maildir has two. It
//! is a hint: where inotify is lost (NFS, an overflow, a limit) the client's next NOOP finds the
//! change all the same. After an overflow everybody is told.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{Doing, Fail};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

type Callback = Arc<dyn Fn() + Send + Sync>;

/// Watches mailboxes for the sessions of a process. Cheap to clone.
#[derive(Clone)]
pub struct Watcher {
    shared: Arc<Shared>,
    /// The last clone that goes ends the thread.
    _end: Arc<End>,
}

/// One session's interest; dropping it ends it.
pub struct Watch {
    watcher: Watcher,
    id: u64,
}

struct Shared {
    inotify: Inotify,
    state: Mutex<State>,
    /// A watch that never fires, but whose removal wakes the thread.
    wake: WatchDescriptor,
}

#[derive(Default)]
struct State {
    ended: bool,
    next: u64,
    directories: HashMap<PathBuf, WatchDescriptor>,
    interests: HashMap<WatchDescriptor, Vec<Interest>>,
}

struct Interest {
    id: u64,
    /// One name in the directory, or any.
    name: Option<OsString>,
    changed: Callback,
}

struct End(Arc<Shared>);

impl Watcher {
    /// Starts the thread.
    pub fn start() -> Result<Self, Fail> {
        let doing = || "start inotify (see fs.inotify.max_user_instances)";
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).doing(doing)?;
        let wake = inotify
            .add_watch("/", AddWatchFlags::IN_DELETE_SELF)
            .doing(doing)?;
        let shared = Arc::new(Shared {
            inotify,
            state: Mutex::default(),
            wake,
        });
        let thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || thread.run())
            .doing(|| "start the watching thread")?;
        Ok(Self {
            _end: Arc::new(End(Arc::clone(&shared))),
            shared,
        })
    }

    /// Calls `changed` when one of `paths` (those of [`crate::Session::paths`]) may have changed,
    /// until the result is dropped. `changed` must not block: it runs on the one thread.
    pub fn watch(
        &self,
        paths: &[PathBuf],
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Result<Watch, Fail> {
        let changed: Callback = Arc::new(changed);
        let mut state = self.shared.lock();
        state.next += 1;
        let watch = Watch {
            watcher: self.clone(),
            id: state.next,
        };
        for path in paths {
            let (dir, name) = if path.is_dir() {
                (path.as_path(), None)
            } else {
                let dir = path.parent().unwrap_or_else(|| Path::new("/"));
                (dir, path.file_name().map(OsString::from))
            };
            let flags = AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVED_FROM
                | AddWatchFlags::IN_MOVED_TO;
            let added = self.shared.inotify.add_watch(dir, flags);
            let descriptor = match added {
                Ok(descriptor) => descriptor,
                Err(e) => {
                    drop(state);
                    drop(watch);
                    let text = format!("watch {} (see fs.inotify.max_user_watches)", dir.display());
                    return Err(Fail::io(text, e.into()));
                }
            };
            state.directories.insert(dir.into(), descriptor);
            let changed = Arc::clone(&changed);
            let interest = Interest {
                id: watch.id,
                name,
                changed,
            };
            state
                .interests
                .entry(descriptor)
                .or_default()
                .push(interest);
        }
        drop(state);
        Ok(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let shared = &self.watcher.shared;
        let mut state = shared.lock();
        let mut idle = Vec::new();
        state.interests.retain(|descriptor, list| {
            list.retain(|interest| interest.id != self.id);
            if list.is_empty() {
                idle.push(*descriptor);
            }
            !list.is_empty()
        });
        state
            .directories
            .retain(|_, descriptor| !idle.contains(descriptor));
        for descriptor in idle {
            // It fails where the directory itself is gone, and the watch with it.
            shared.inotify.rm_watch(descriptor).ok();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        // Its removal is an event, which the thread wakes for.
        self.0.inotify.rm_watch(self.0.wake).ok();
    }
}

impl Shared {
    /// A callback that panicked has left nothing half done here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    let callbacks = self.interested(&events);
                    if self.lock().ended {
                        return;
                    }
                    callbacks.iter().for_each(|changed| changed());
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => {
                    log::error!("inotify: {e}; sessions in IDLE are not told of new mail");
                    return;
                }
            }
        }
    }

    /// Whom these events concern, each once.
    fn interested(&self, events: &[InotifyEvent]) -> Vec<Callback> {
        let state = self.lock();
        let mut told: HashMap<u64, Callback> = HashMap::new();
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                let all = state.interests.values().flatten();
                told.extend(all.map(|i| (i.id, Arc::clone(&i.changed))));
            }
            for interest in state.interests.get(&event.wd).into_iter().flatten() {
                if interest.name.is_none() || interest.name == event.name {
                    told.insert(interest.id, Arc::clone(&interest.changed));
                }
            }
        }
        told.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn tells_of_the_watched_name_only_and_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ann");
        std::fs::write(&path, "").unwrap();
        let watcher = Watcher::start().unwrap();
        let (send, receive) = mpsc::channel();
        let watch = watcher
            .watch(std::slice::from_ref(&path), move || {
                send.send(()).unwrap_or(());
            })
            .unwrap();
        std::fs::write(dir.path().join("bob"), "x").unwrap();
        assert!(receive.recv_timeout(Duration::from_millis(100)).is_err());
        std::fs::write(&path, "x").unwrap();
        receive.recv_timeout(Duration::from_secs(5)).unwrap();
        drop(watch);
        std::fs::write(&path, "y").unwrap();
        while receive.recv_timeout(Duration::from_millis(100)).is_ok() {}
        // The callback is gone, and with it the sender.
        assert_eq!(receive.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
