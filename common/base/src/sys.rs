//! The one module with `unsafe`: what the operating system offers and no safe crate wraps.
//!
//! Each function here is safe to call; what makes it so stands at its `SAFETY` line.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::unistd::{ForkResult, Pid};

/// What [`fork`] came back as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    Parent(Pid),
    Child,
}

/// Forks, in a process that has one thread; in any other it refuses, because a child of a process
/// with threads may find a lock held for ever.
///
/// What every child would find out for itself is found out here once: the processor's features,
/// which a virtual machine asks its host for, and the time zone.
pub fn fork() -> io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task")
        .map(Iterator::count)
        .unwrap_or(2)
        > 1
    {
        return Err(io::Error::other("fork in a process with threads"));
    }
    #[cfg(target_arch = "x86_64")]
    std::hint::black_box(std::arch::is_x86_feature_detected!("avx2"));
    local_offset(0);
    // SAFETY: there is one thread, as was just counted, so no lock is held by another.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Takes over a file descriptor that the parent left open for us (inetd's 0, systemd's 3 and up, a
/// socketpair's end named on the command line), and marks it close-on-exec.
///
/// Call it once for a number. A number that is not open is an error.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: fcntl(F_GETFD) on any number is harmless; it fails with EBADF when it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and by this function's contract nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    Shared,
    Exclusive,
}

/// Tries to lock the whole file by an open-file-description lock (fcntl(2) F_OFD_SETLK), which
/// excludes the fcntl locks of other programs and is let go when `file`'s description is closed.
/// `false` when somebody else holds it.
pub fn try_ofd_lock(file: impl AsFd, kind: LockKind) -> io::Result<bool> {
    let kind = match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
    };
    set_lock(file, kind, &WHOLE_FILE)
}

/// Lets go of an open-file-description lock before the file is closed.
pub fn ofd_unlock(file: impl AsFd) -> io::Result<()> {
    set_lock(file, libc::F_UNLCK, &WHOLE_FILE).map(drop)
}

/// As [`try_ofd_lock`], exclusively, for a part of the file that need not be there.
pub fn try_ofd_lock_part(file: impl AsFd, part: &Range<u64>) -> io::Result<bool> {
    set_lock(file, libc::F_WRLCK, part)
}

/// Lets go of what [`try_ofd_lock_part`] locked.
pub fn ofd_unlock_part(file: impl AsFd, part: &Range<u64>) -> io::Result<()> {
    set_lock(file, libc::F_UNLCK, part).map(drop)
}

/// fcntl(2): a length of 0 reaches to the end, however far that may move.
const WHOLE_FILE: Range<u64> = 0..0;

fn set_lock(file: impl AsFd, kind: libc::c_int, part: &Range<u64>) -> io::Result<bool> {
    let offset = |n: u64| libc::off_t::try_from(n).map_err(io::Error::other);
    let lock = libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or(0),
        l_whence: 0, // SEEK_SET
        l_start: offset(part.start)?,
        l_len: offset(part.end.saturating_sub(part.start))?,
        l_pid: 0,
    };
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Gives an O_TMPFILE its name: linkat(2) from /proc/self/fd, which needs no privilege. Fails with
/// `AlreadyExists` when the name is taken.
pub fn link_tmpfile(file: &File, dir: impl AsFd, name: &str) -> io::Result<()> {
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    nix::unistd::linkat(
        nix::fcntl::AT_FDCWD,
        from.as_str(),
        dir.as_fd(),
        name,
        nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW,
    )?;
    Ok(())
}

/// Seconds east of UTC at `unix`, in the zone that TZ or /etc/localtime names; 0 where that fails.
pub fn local_offset(unix: i64) -> i32 {
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    let time: libc::time_t = unix;
    // SAFETY: both pointers are to live values of the right type; localtime_r keeps neither.
    let filled = unsafe { libc::localtime_r(&raw const time, parts.as_mut_ptr()) };
    if filled.is_null() {
        return 0;
    }
    // SAFETY: localtime_r filled it, and all-zero was a valid `tm` before.
    let parts = unsafe { parts.assume_init() };
    i32::try_from(parts.tm_gmtoff).unwrap_or(0)
}

/// Rows and columns of the terminal behind `fd`; `None` where there is none, or it does not say.
pub fn window_size(fd: impl AsFd) -> Option<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize to a pointer to a live one.
    let answer = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// `no_new_privs`: from here on no exec can gain a privilege (prctl(2)).
pub fn no_new_privileges() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_descriptions_exclude_each_other_and_close_lets_go() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let a = File::options().write(true).open(file.path()).unwrap();
        let b = File::options().write(true).open(file.path()).unwrap();
        assert!(try_ofd_lock(&a, LockKind::Exclusive).unwrap());
        assert!(!try_ofd_lock(&b, LockKind::Exclusive).unwrap());
        drop(a);
        assert!(try_ofd_lock(&b, LockKind::Exclusive).unwrap());
        ofd_unlock(&b).unwrap();
    }

    #[test]
    fn parts_of_a_file_are_locked_apart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let a = File::options().write(true).open(file.path()).unwrap();
        let b = File::options().write(true).open(file.path()).unwrap();
        assert!(try_ofd_lock_part(&a, &(0..64)).unwrap());
        assert!(try_ofd_lock_part(&b, &(64..128)).unwrap());
        assert!(!try_ofd_lock_part(&b, &(63..64)).unwrap());
        ofd_unlock_part(&a, &(0..64)).unwrap();
        assert!(try_ofd_lock_part(&b, &(63..64)).unwrap());
        assert!(!try_ofd_lock(&a, LockKind::Exclusive).unwrap());
    }

    #[test]
    fn a_number_that_is_not_open_is_refused() {
        assert!(inherited(-1).is_err());
        assert!(inherited(987_654).is_err());
    }

    #[test]
    fn fork_refuses_where_threads_run() {
        // The test harness itself has threads.
        let waits = std::thread::spawn(std::thread::park);
        assert!(fork().is_err());
        waits.thread().unpark();
        waits.join().unwrap();
    }

    #[test]
    fn the_local_offset_is_less_than_a_day() {
        assert!(local_offset(0).abs() <= 86_400);
    }
}
