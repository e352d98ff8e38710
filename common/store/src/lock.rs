//! The locks on an mbox that other programs know: fcntl, dotlock, flock; all or none.
//!
//! Postfix takes fcntl first, Dovecot and procmail the dotlock first. So we wait for none while we
//! hold another: each of the configured set is tried once, and if one is taken all are let go, and
//! after a random moment it begins again. No order of another program's can deadlock with that.
//!
//! The fcntl lock is of the open file description (OFD): it excludes other programs' record locks,
//! and no stray close(2) in this process drops it. Dropping a [`MailLock`] lets go of everything.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use base::sys::{self, LockKind};
use base::{Config, Doing, Fail};
use nix::fcntl::OFlag;
use nix::unistd::Pid;

use crate::beneath::{self, Dir};
use crate::request::Why;
use crate::trouble::{Result, Trouble};

/// A dotlock this old, whose process is gone, is nobody's.
const STALE: Duration = Duration::from_secs(300);
/// Others break dotlocks by age, so a long holder shows that it lives.
const TOUCH: Duration = Duration::from_secs(30);

/// Which locks are used, and how long they are waited for: MAILBOX_LOCKS, MAILBOX_LOCK_TIMEOUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locks {
    pub fcntl: bool,
    pub dotlock: bool,
    pub flock: bool,
    pub timeout: Duration,
}

impl Locks {
    /// What the configuration says.
    pub fn new(config: &Config) -> Self {
        let has = |word: &str| config.mailbox_locks.iter().any(|l| l == word);
        Self {
            fcntl: has("fcntl"),
            dotlock: has("dotlock"),
            flock: has("flock"),
            timeout: config.mailbox_lock_timeout,
        }
    }
}

/// The locks of one mailbox, held until this is dropped.
#[derive(Debug)]
pub struct MailLock {
    file: File,
    locks: Locks,
    dotlock: Option<Dotlock>,
}

impl MailLock {
    /// Opens the mbox at `path` for reading and writing and locks it against everybody.
    pub fn acquire(path: &Path, locks: Locks) -> std::result::Result<Self, Fail> {
        let (dir, name) = match (path.parent(), path.file_name().and_then(|n| n.to_str())) {
            (Some(dir), Some(name)) if !dir.as_os_str().is_empty() => (dir, name),
            (_, Some(name)) => (Path::new("."), name),
            _ => return Err(Fail::usage(format!("{}: not a mailbox", path.display()))),
        };
        let dir = Dir::root(dir)?;
        Ok(Self::beneath(&dir, name, LockKind::Exclusive, locks)?)
    }

    /// The same for a name in a directory. To read, a shared fcntl and flock are enough: who
    /// writes takes these too.
    pub(crate) fn beneath(dir: &Dir, name: &str, kind: LockKind, locks: Locks) -> Result<Self> {
        let begin = Instant::now();
        loop {
            let flags = match kind {
                LockKind::Shared => OFlag::O_RDONLY,
                LockKind::Exclusive => OFlag::O_RDWR,
            };
            let file = dir
                .file(name, flags, 0)
                .doing(|| format!("open {}", dir.at(name)))?;
            let busy = match Self::once(dir, name, file, kind, locks)? {
                Ok(lock) => return Ok(lock),
                Err(busy) => busy,
            };
            if begin.elapsed() >= locks.timeout {
                let text = format!("lock {}: another program has its {busy}", dir.at(name));
                return Err(Trouble::new(Why::InUse, text));
            }
            let moment = 50 + u64::from(beneath::random() % 100);
            std::thread::sleep(Duration::from_millis(moment).min(locks.timeout));
        }
    }

    /// One try of all; the inner error names the lock that is taken.
    fn once(
        dir: &Dir,
        name: &str,
        file: File,
        kind: LockKind,
        locks: Locks,
    ) -> Result<std::result::Result<Self, &'static str>> {
        let doing = || format!("lock {}", dir.at(name));
        if locks.fcntl && !sys::try_ofd_lock(&file, kind).doing(doing)? {
            return Ok(Err("fcntl lock"));
        }
        if locks.flock && !flock(&file, kind).doing(doing)? {
            return Ok(Err("flock"));
        }
        let mut lock = Self {
            file,
            locks,
            dotlock: None,
        };
        if locks.dotlock && kind == LockKind::Exclusive {
            lock.dotlock = Dotlock::once(dir, name)?;
            if lock.dotlock.is_none() {
                return Ok(Err("dotlock"));
            }
        }
        // While we waited another program may have put a new file in the old one's place.
        let (named, ours) = (
            dir.stat(name).doing(doing)?,
            lock.file.metadata().doing(doing)?,
        );
        match named {
            Some(named) if named.st_ino == ours.ino() && named.st_dev == ours.dev() => Ok(Ok(lock)),
            _ => Ok(Err("place")),
        }
    }

    /// The locked file. Reading and writing is through this: another open file of the same
    /// mailbox does not have the lock.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// To be called now and then by whoever holds it long.
    pub fn touch(&mut self) {
        if let Some(dotlock) = &mut self.dotlock {
            dotlock.touch();
        }
    }
}

impl Drop for MailLock {
    fn drop(&mut self) {
        // The file may have a second descriptor somewhere, so closing it is not enough. Failing
        // here leaves what closing does.
        if self.locks.fcntl {
            sys::ofd_unlock(&self.file).ok();
        }
        if self.locks.flock {
            self.file.unlock().ok();
        }
    }
}

fn flock(file: &File, kind: LockKind) -> io::Result<bool> {
    let tried = match kind {
        LockKind::Shared => file.try_lock_shared(),
        LockKind::Exclusive => file.try_lock(),
    };
    match tried {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(e)) => Err(e),
    }
}

/// `NAME.lock` beside the mailbox, with the process and the host in it.
#[derive(Debug)]
struct Dotlock {
    dir: Dir,
    name: String,
    file: File,
    touched: Instant,
}

impl Dotlock {
    /// One try; `None` if another has it. link(2) from a name of our own is exclusive everywhere.
    fn once(dir: &Dir, mailbox: &str) -> Result<Option<Self>> {
        let name = format!("{mailbox}.lock");
        let own = format!("{mailbox}.lock.{}", beneath::unique());
        let doing = || {
            format!(
                "make {} (the directory must be writable for the group mail, mode 3775, or \
                 MAILBOX_LOCKS must be without dotlock)",
                dir.at(&name)
            )
        };
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
        let mut file = dir.file(&own, flags, 0o644).doing(doing)?;
        let content = format!("{}\n{}\n", std::process::id(), beneath::host());
        let linked = file
            .write_all(content.as_bytes())
            .and_then(|()| dir.link(&own, dir, &name));
        dir.unlink(&own)
            .doing(|| format!("remove {}", dir.at(&own)))?;
        match linked {
            Ok(()) => Ok(Some(Self {
                dir: dir.clone(),
                name,
                file,
                touched: Instant::now(),
            })),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                break_stale(dir, &name).doing(|| format!("break stale {}", dir.at(&name)))?;
                Ok(None)
            }
            Err(e) => Err(e).doing(doing)?,
        }
    }

    fn touch(&mut self) {
        if self.touched.elapsed() >= TOUCH {
            self.touched = Instant::now();
            // Should it fail, others may think the lock stale; the fcntl lock still holds.
            self.file.set_modified(SystemTime::now()).ok();
        }
    }
}

impl Drop for Dotlock {
    fn drop(&mut self) {
        // Only if it is still ours: it may have been broken as stale and be another's now.
        let ours = self.file.metadata().map(|m| (m.dev(), m.ino())).ok();
        let named = self
            .dir
            .stat(&self.name)
            .ok()
            .flatten()
            .map(|s| (s.st_dev, s.st_ino));
        if ours.is_some() && ours == named {
            self.dir.unlink(&self.name).ok();
        }
    }
}

/// Removes a dotlock whose process on this host is gone and which is old or names its host. What
/// was looked at is first moved aside and looked at again, so that a lock somebody made meanwhile
/// is put back.
fn break_stale(dir: &Dir, name: &str) -> io::Result<()> {
    let seen = match dir.file(name, OFlag::O_RDONLY, 0) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Not readable for us: not ours to break.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        file => file?,
    };
    let meta = seen.metadata()?;
    let modified = meta.modified()?;
    let age = SystemTime::now()
        .duration_since(modified)
        .unwrap_or_default();
    let mut text = String::new();
    seen.take(256).read_to_string(&mut text).ok();
    // We name the host: a process of this host that is gone never takes its lock away, so after
    // kill -9 nobody has to wait.
    let mut lines = text.lines().map(str::trim);
    let named = lines
        .next()
        .is_some_and(|pid| pid.parse::<u32>().is_ok_and(|pid| pid > 0))
        && lines.next().is_some_and(|host| host == beneath::host());
    // After a crash of the machine its number may be another process's.
    let gone = !is_elsewhere(&text) && is_before_boot(modified);
    if !gone && (age < STALE && !named || holder_lives(&text)) {
        return Ok(());
    }
    let aside = format!("{name}.{}", beneath::unique());
    dir.rename(name, dir, &aside)?;
    if dir.stat(&aside)?.is_some_and(|s| s.st_ino != meta.ino()) {
        // If a third one made the lock meanwhile, that one's stands.
        dir.link(&aside, dir, name).ok();
    } else {
        log::warn!("removed stale lock {}", dir.at(name));
    }
    dir.unlink(&aside)
}

/// Whether a dotlock names another host.
fn is_elsewhere(text: &str) -> bool {
    let host = text.lines().nth(1).map(str::trim).unwrap_or_default();
    !host.is_empty() && host != beneath::host()
}

/// Whether no process that runs now can have made what was last written then.
fn is_before_boot(then: SystemTime) -> bool {
    // Boot is known to a second; without it nothing is said.
    let boot = std::fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|text| boot_time(&text));
    boot.is_some_and(|boot| {
        then.checked_add(Duration::from_secs(2))
            .is_some_and(|then| then < boot)
    })
}

/// `btime` of proc(5).
fn boot_time(stat: &str) -> Option<SystemTime> {
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.trim().parse().ok()?))
}

/// Whether the process named in a dotlock is there. One of another host, or a lock without a
/// process in it, is judged by its age alone.
fn holder_lives(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    let pid = lines
        .next()
        .and_then(|pid| pid.parse().ok())
        .filter(|pid| *pid > 0);
    let local = lines.next().is_none_or(|host| host == beneath::host());
    match pid {
        Some(pid) if local => {
            nix::sys::signal::kill(Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Locks = Locks {
        fcntl: true,
        dotlock: true,
        flock: true,
        timeout: Duration::from_millis(250),
    };

    fn mailbox() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ann");
        std::fs::write(&path, "").unwrap();
        (dir, path)
    }

    #[test]
    fn every_kind_of_foreign_lock_keeps_us_out_and_nothing_is_left() {
        let (dir, path) = mailbox();
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        let dotlock = dir.path().join("ann.lock");

        std::fs::write(&dotlock, "1\n").unwrap();
        let error = MailLock::acquire(&path, ALL).unwrap_err().to_string();
        assert!(error.contains("dotlock"), "{error}");
        std::fs::remove_file(&dotlock).unwrap();
        assert_eq!(names(), 1);

        let other = File::options().write(true).open(&path).unwrap();
        assert!(sys::try_ofd_lock(&other, LockKind::Exclusive).unwrap());
        let error = MailLock::acquire(&path, ALL).unwrap_err().to_string();
        assert!(error.contains("fcntl"), "{error}");
        drop(other);

        let other = File::options().write(true).open(&path).unwrap();
        other.try_lock().unwrap();
        assert!(
            MailLock::acquire(&path, ALL)
                .unwrap_err()
                .to_string()
                .contains("flock")
        );
        other.unlock().unwrap();

        let lock = MailLock::acquire(&path, ALL).unwrap();
        assert_eq!(names(), 2);
        assert!(MailLock::acquire(&path, ALL).is_err());
        drop(lock);
        assert_eq!(names(), 1);
        drop(MailLock::acquire(&path, ALL).unwrap());
    }

    #[test]
    fn readers_share_and_a_writer_waits_for_them() {
        let (temp, path) = mailbox();
        let dir = Dir::root(temp.path()).unwrap();
        let one = MailLock::beneath(&dir, "ann", LockKind::Shared, ALL).unwrap();
        let two = MailLock::beneath(&dir, "ann", LockKind::Shared, ALL).unwrap();
        assert!(MailLock::acquire(&path, ALL).is_err());
        drop((one, two));
        assert!(MailLock::acquire(&path, ALL).is_ok());
    }

    #[test]
    fn a_stale_lock_is_broken_and_a_living_ones_is_not() {
        let (dir, path) = mailbox();
        let dotlock = dir.path().join("ann.lock");
        let boot = boot_time(&std::fs::read_to_string("/proc/stat").unwrap()).unwrap();
        let (old, crashed) = (
            SystemTime::now() - Duration::from_secs(400),
            boot - Duration::from_secs(60),
        );
        let elsewhere = "7\nelsewhere.example\n";
        let lives = format!("{}\n{}\n", std::process::id(), beneath::host());
        for (text, age, broken) in [
            // On a machine that came up just now all else is from before.
            (lives.as_str(), old.max(boot), false),
            (lives.as_str(), crashed, true),
            ("1\n", crashed, true),
            ("999999999\n", old, true),
            ("", old, true),
            (elsewhere, old, true),
            (elsewhere, SystemTime::now(), false),
        ] {
            std::fs::write(&dotlock, text).unwrap();
            File::options()
                .write(true)
                .open(&dotlock)
                .unwrap()
                .set_modified(age)
                .unwrap();
            assert_eq!(MailLock::acquire(&path, ALL).is_ok(), broken, "{text:?}");
            std::fs::remove_file(&dotlock).ok();
        }
    }

    #[test]
    fn a_lock_that_was_broken_is_not_removed_from_under_its_new_holder() {
        let (dir, path) = mailbox();
        let dotlock = dir.path().join("ann.lock");
        let lock = MailLock::acquire(&path, ALL).unwrap();
        std::fs::remove_file(&dotlock).unwrap();
        std::fs::write(&dotlock, "1\n").unwrap();
        drop(lock);
        assert!(dotlock.exists());
    }

    #[test]
    fn what_is_no_file_is_refused_with_a_reason() {
        let (dir, path) = mailbox();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let error = MailLock::acquire(&link, ALL).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
    }
}
