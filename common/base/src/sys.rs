//! The one module with `unsafe`: what the operating system offers and no safe crate wraps.
//!
//! Each function here is safe to call; what makes it so stands at its `SAFETY` line.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
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

fn set_lock(file: impl AsFd, kind: c_int, part: &Range<u64>) -> io::Result<bool> {
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

/// Asks PAM (pam(3)) whether this password is this user's, and whether the account may be used. The
/// library is loaded on demand, so that a host without PAM needs none. `dir` is looked in for the
/// service's file in the place of `/etc/pam.d`. Whatever modules do happens in this process: it
/// should be one of its own. An error is a doubt.
pub fn pam(service: &CStr, user: &CStr, password: &CStr, dir: Option<&CStr>) -> io::Result<bool> {
    let library = Library::open(c"libpam.so.0")?;
    let end: extern "C" fn(*mut c_void, c_int) -> c_int = library.function(c"pam_end")?;
    let ask: extern "C" fn(*mut c_void, c_int) -> c_int = library.function(c"pam_authenticate")?;
    let account: extern "C" fn(*mut c_void, c_int) -> c_int = library.function(c"pam_acct_mgmt")?;
    let set: extern "C" fn(*mut c_void, c_int, *const c_void) -> c_int =
        library.function(c"pam_set_item")?;
    let get: extern "C" fn(*const c_void, c_int, *mut *const c_void) -> c_int =
        library.function(c"pam_get_item")?;
    let talk = PamConversation {
        answer: pam_answer,
        data: password.as_ptr().cast::<c_void>().cast_mut(),
    };
    let mut pam = std::ptr::null_mut();
    let (user, service, name) = (user.as_ptr(), service.as_ptr(), user);
    let begun = match dir {
        None => {
            let start: PamStart = library.function(c"pam_start")?;
            start(service, user, &raw const talk, &raw mut pam)
        }
        Some(dir) => {
            let start: PamStartIn = library.function(c"pam_start_confdir")?;
            start(service, user, &raw const talk, dir.as_ptr(), &raw mut pam)
        }
    };
    let mut code = begun;
    if code == PAM_SUCCESS {
        // The pause after a failure is our caller's, and must not say by its length what failed.
        let delay: extern "C" fn(c_int, libc::c_uint, *mut c_void) = no_delay;
        set(pam, PAM_FAIL_DELAY, delay as *const c_void);
        code = ask(pam, PAM_FLAGS);
    }
    if code == PAM_SUCCESS {
        code = account(pam, PAM_FLAGS);
    }
    let mut now = std::ptr::null();
    let same = code == PAM_SUCCESS && get(pam, PAM_USER, &raw mut now) == PAM_SUCCESS && {
        let now = now.cast::<c_char>();
        // SAFETY: PAM_USER is a string that lives until pam_end, or none.
        !now.is_null() && unsafe { CStr::from_ptr(now) } == name
    };
    if begun == PAM_SUCCESS {
        end(pam, code);
    }
    match code {
        PAM_SUCCESS => Ok(same),
        // PERM_DENIED, AUTH_ERR, CRED_INSUFFICIENT, USER_UNKNOWN, MAXTRIES, NEW_AUTHTOK_REQD,
        // ACCT_EXPIRED
        6 | 7 | 8 | 10 | 11 | 12 | 13 => Ok(false),
        code => Err(io::Error::other(format!("PAM answers {code}, see pam(3)"))),
    }
}

type PamStart =
    extern "C" fn(*const c_char, *const c_char, *const PamConversation, *mut *mut c_void) -> c_int;
type PamStartIn = extern "C" fn(
    *const c_char,
    *const c_char,
    *const PamConversation,
    *const c_char,
    *mut *mut c_void,
) -> c_int;

/// `struct pam_conv`
#[repr(C)]
struct PamConversation {
    answer: PamAnswer,
    data: *mut c_void,
}

type PamAnswer =
    extern "C" fn(c_int, *mut *const PamMessage, *mut *mut PamResponse, *mut c_void) -> c_int;

/// `struct pam_message`
#[repr(C)]
struct PamMessage {
    style: c_int,
    text: *const c_char,
}

/// `struct pam_response`
#[repr(C)]
struct PamResponse {
    text: *mut c_char,
    code: c_int,
}

const PAM_SUCCESS: c_int = 0;
const PAM_CONV_ERR: c_int = 19;
const PAM_USER: c_int = 2;
const PAM_FAIL_DELAY: c_int = 10;
/// PAM_SILENT and PAM_DISALLOW_NULL_AUTHTOK.
const PAM_FLAGS: c_int = 0x8001;
const PAM_PROMPT_ECHO_OFF: c_int = 1;
const PAM_PROMPT_ECHO_ON: c_int = 2;

extern "C" fn no_delay(_code: c_int, _micros: libc::c_uint, _data: *mut c_void) {}

/// Answers each question that is not to be seen with the password, which is `data`. To any other
/// there is no answer; what only wants to be shown is not.
extern "C" fn pam_answer(
    count: c_int,
    messages: *mut *const PamMessage,
    answers: *mut *mut PamResponse,
    data: *mut c_void,
) -> c_int {
    let Some(number) = usize::try_from(count).ok().filter(|n| (1..=32).contains(n)) else {
        return PAM_CONV_ERR;
    };
    // SAFETY: Linux-PAM gives an array of so many pointers (pam_conv(3)).
    let messages = unsafe { std::slice::from_raw_parts(messages, number) };
    // SAFETY: PAM frees it with free(3), so it is to be malloc's; zeros are no answers.
    let first = unsafe { libc::calloc(number, size_of::<PamResponse>()) }.cast::<PamResponse>();
    if first.is_null() {
        return PAM_CONV_ERR;
    }
    // SAFETY: it was just made, for so many, and nobody else has it.
    let filled = unsafe { std::slice::from_raw_parts_mut(first, number) };
    for (message, answer) in messages.iter().zip(filled) {
        // SAFETY: each is a message that lives during this call, or none.
        match unsafe { message.as_ref() }.map(|message| message.style) {
            Some(PAM_PROMPT_ECHO_OFF) => {
                // SAFETY: `data` is the password, a string that outlives the conversation.
                answer.text = unsafe { libc::strdup(data.cast()) };
            }
            // Who asks for something else gets none; the module then fails.
            Some(PAM_PROMPT_ECHO_ON) | None => {}
            Some(_) => {}
        }
    }
    // SAFETY: PAM gives a place for the answers.
    if let Some(place) = unsafe { answers.as_mut() } {
        *place = first;
    }
    PAM_SUCCESS
}

/// A shared library, which stays loaded.
struct Library(*mut c_void);

impl Library {
    fn open(name: &CStr) -> io::Result<Self> {
        // SAFETY: a system library; what its initialisers do is the operator's choice.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        match handle.is_null() {
            true => Err(io::Error::other(format!(
                "{} cannot be loaded: install it, or take another CHECKPASSWORD",
                name.to_string_lossy()
            ))),
            false => Ok(Self(handle)),
        }
    }

    /// A function of this library. `F` has to be its type, by its manual page.
    fn function<F: Copy>(&self, name: &CStr) -> io::Result<F> {
        // SAFETY: the handle is dlopen's.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        if address.is_null() || size_of::<F>() != size_of::<*mut c_void>() {
            let name = name.to_string_lossy();
            return Err(io::Error::other(format!("there is no {name} in it")));
        }
        // SAFETY: a function's address as a function pointer of the same size, of the type that the
        // manual page gives.
        Ok(unsafe { std::mem::transmute_copy(&address) })
    }
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
