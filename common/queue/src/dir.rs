//! One directory of the queue, held open: names are made, found, moved and removed through the
//! descriptor, so that a daemon can drop its privileges after [`crate::Queue::open`].

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use base::{Doing, Fail, sys};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags};
use nix::sys::stat::{FileStat, Mode};
use nix::unistd::UnlinkatFlags;

use crate::id::QueueId;

#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    fd: OwnedFd,
    /// Without the right to read a directory it can be written but not synced.
    readable: bool,
    group: GroupSync,
}

impl Dir {
    /// Opens it for reading, or, where only writing is allowed, as a mere place.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let (fd, readable) = match nix::fcntl::open(path, flags | OFlag::O_RDONLY, Mode::empty()) {
            Ok(fd) => (fd, true),
            Err(Errno::EACCES) => (
                nix::fcntl::open(path, flags | OFlag::O_PATH, Mode::empty())?,
                false,
            ),
            Err(e) => return Err(e.into()),
        };
        Ok(Self {
            path: path.into(),
            fd,
            readable,
            group: GroupSync::default(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A file's path, for messages.
    pub(crate) fn name(&self, name: impl AsRef<OsStr>) -> String {
        self.path.join(name.as_ref()).display().to_string()
    }

    /// Whether [`Dir::sync`] can work here.
    pub(crate) fn can_sync(&self) -> bool {
        self.readable
    }

    /// Makes all names durable that were made or removed before this call. Calls that come while
    /// another one's sync runs share the next.
    pub(crate) fn sync(&self) -> Result<(), Fail> {
        self.group
            .run(|| nix::unistd::fsync(&self.fd))
            .map_err(io::Error::from)
            .doing(|| format!("sync {}", self.path.display()))
    }

    /// Opens an existing entry for reading and writing, never through a link.
    pub(crate) fn open_entry(&self, id: &QueueId, flags: OFlag) -> io::Result<File> {
        self.open_file(OsStr::new(id.as_str()), flags)
    }

    pub(crate) fn open_file(&self, name: &OsStr, flags: OFlag) -> io::Result<File> {
        // O_NONBLOCK: a FIFO that somebody put here must not stop us.
        let flags =
            flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        Ok(nix::fcntl::openat(&self.fd, name, flags, Mode::empty())?.into())
    }

    /// A new file without a name; `Ok(None)` where the file system has no O_TMPFILE.
    pub(crate) fn unnamed(&self) -> io::Result<Option<File>> {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        match nix::fcntl::openat(&self.fd, ".", flags, Mode::from_bits_truncate(0o600)) {
            Ok(fd) => Ok(Some(fd.into())),
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// A new file of our own with a name that must not exist.
    pub(crate) fn named(&self, name: &str) -> io::Result<File> {
        self.create(name, Mode::from_bits_truncate(0o600))
    }

    /// The same for others too; the umask counts.
    pub(crate) fn create(&self, name: &str, mode: Mode) -> io::Result<File> {
        let flags =
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        Ok(nix::fcntl::openat(&self.fd, name, flags, mode)?.into())
    }

    /// Gives an unnamed file its name.
    pub(crate) fn link(&self, file: &File, name: &str) -> io::Result<()> {
        sys::link_tmpfile(file, &self.fd, name)
    }

    /// A second name, here, for an entry of `from`.
    pub(crate) fn link_from(&self, from: &Self, id: &QueueId) -> io::Result<()> {
        let name = id.as_str();
        Ok(nix::unistd::linkat(
            &from.fd,
            name,
            &self.fd,
            name,
            AtFlags::empty(),
        )?)
    }

    /// Moves an entry here; never over another.
    pub(crate) fn take(&self, from: &Self, id: &QueueId) -> io::Result<()> {
        self.take_as(from, OsStr::new(id.as_str()), OsStr::new(id.as_str()))
    }

    pub(crate) fn take_as(&self, from: &Self, name: &OsStr, here: &OsStr) -> io::Result<()> {
        let flags = RenameFlags::RENAME_NOREPLACE;
        match nix::fcntl::renameat2(&from.fd, name, &self.fd, here, flags) {
            // A file system without the flag: two steps, in the order that loses nothing.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                nix::unistd::linkat(&from.fd, name, &self.fd, here, AtFlags::empty())?;
                Ok(nix::unistd::unlinkat(
                    &from.fd,
                    name,
                    UnlinkatFlags::NoRemoveDir,
                )?)
            }
            other => Ok(other?),
        }
    }

    /// Moves `name` here, over the entry that is.
    pub(crate) fn replace(&self, from: &Self, name: &str, id: &QueueId) -> io::Result<()> {
        Ok(nix::fcntl::renameat(&from.fd, name, &self.fd, id.as_str())?)
    }

    /// Removes a name; one that is not there is no error, and answered with `false`.
    pub(crate) fn unlink(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
        match nix::unistd::unlinkat(&self.fd, name.as_ref(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// What stands under a name; `Ok(None)` for nothing.
    pub(crate) fn stat(&self, name: impl AsRef<OsStr>) -> io::Result<Option<FileStat>> {
        match nix::sys::stat::fstatat(&self.fd, name.as_ref(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether the name still means this open file.
    pub(crate) fn still_names(&self, id: &QueueId, file: &File) -> io::Result<bool> {
        let open = nix::sys::stat::fstat(file)?;
        Ok(self
            .stat(id.as_str())?
            .is_some_and(|named| named.st_ino == open.st_ino && named.st_dev == open.st_dev))
    }

    /// Calls `each` with every name but `.` and `..`, until it says stop.
    pub(crate) fn names(&self, mut each: impl FnMut(&OsStr) -> bool) -> Result<(), Fail> {
        let doing = || format!("read {}", self.path.display());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // A description of its own, so that two readers do not share a place.
        let mut dir = nix::dir::Dir::openat(&self.fd, ".", flags, Mode::empty()).doing(doing)?;
        for entry in dir.iter() {
            let entry = entry.doing(doing)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && !each(OsStr::from_bytes(name)) {
                break;
            }
        }
        Ok(())
    }

    /// Calls `each` with every name that is a queue id; others are not ours to touch.
    pub(crate) fn ids(&self, mut each: impl FnMut(QueueId)) -> Result<(), Fail> {
        self.names(|name| {
            if let Ok(id) = QueueId::parse(name.as_bytes()) {
                each(id);
            }
            true
        })
    }
}

/// Many callers, few syncs: a caller is content with any sync that began after its call.
#[derive(Debug, Default)]
struct GroupSync {
    turns: Mutex<Turns>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    running: bool,
    begun: u64,
    done: u64,
    /// The last turn that failed. Who waited for it or an earlier one cannot know that its names
    /// are durable, since the kernel reports a write error once.
    failed: Option<(u64, Errno)>,
}

impl GroupSync {
    fn run(&self, sync: impl FnOnce() -> nix::Result<()>) -> nix::Result<()> {
        let mut turns = self.lock();
        let wanted = turns.begun + 1;
        while turns.running && turns.done < wanted {
            turns = self
                .ended
                .wait(turns)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if turns.done < wanted {
            turns.running = true;
            turns.begun += 1;
            let mine = turns.begun;
            drop(turns);
            let result = sync();
            turns = self.lock();
            turns.running = false;
            turns.done = mine;
            if let Err(e) = result {
                turns.failed = Some((mine, e));
            }
            self.ended.notify_all();
        }
        match turns.failed {
            Some((turn, e)) if turn >= wanted => Err(e),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn callers_share_a_sync_that_began_after_them() {
        let group = GroupSync::default();
        let (syncs, started) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    started.fetch_add(1, Ordering::SeqCst);
                    group
                        .run(|| {
                            syncs.fetch_add(1, Ordering::SeqCst);
                            std::thread::sleep(Duration::from_millis(20));
                            Ok(())
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(started.load(Ordering::SeqCst), 16);
        assert!(syncs.load(Ordering::SeqCst) < 16);
        let before = syncs.load(Ordering::SeqCst);
        group
            .run(|| {
                syncs.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
            .unwrap();
        assert_eq!(syncs.load(Ordering::SeqCst), before + 1);
    }

    #[test]
    fn a_failed_sync_fails_its_callers_and_no_later_one() {
        let group = GroupSync::default();
        assert_eq!(group.run(|| Err(Errno::EIO)), Err(Errno::EIO));
        assert_eq!(group.run(|| Ok(())), Ok(()));
    }
}
