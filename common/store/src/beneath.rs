//! Directories held open, and files opened beneath them without following any link (DESIGN 5).
//!
//! The spool's root is resolved once, links included (Debian's /var/spool/mail is one). From there
//! on openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS keeps us inside, whatever a user puts
//! into the way; where the kernel has no openat2, each name is one component and opened O_NOFOLLOW.
//! Only regular files and directories are served: a fifo or a device is refused, not waited for.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{Doing, Fail};
use nix::dir::{Dir as Stream, Type};
use nix::errno::Errno;
use nix::fcntl::{self, AtFlags, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{self, FileStat, Mode, SFlag};
use nix::unistd::UnlinkatFlags;

/// A directory. Names given to it are single components.
#[derive(Debug, Clone)]
pub(crate) struct Dir {
    fd: Arc<OwnedFd>,
    path: Arc<PathBuf>,
}

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Nothing,
    /// A link, a fifo, a device.
    Other,
}

impl Dir {
    /// The one place where links are followed.
    pub(crate) fn root(path: &Path) -> Result<Self, Fail> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = fcntl::open(path, flags, Mode::empty())
            .doing(|| format!("open directory {}", path.display()))?;
        Ok(Self {
            fd: Arc::new(fd),
            path: Arc::new(path.into()),
        })
    }

    /// Where it is, for messages and for inotify.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a name in it is, for messages.
    pub(crate) fn at(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    pub(crate) fn directory(&self, name: &str) -> io::Result<Self> {
        let fd = self.open(name, OFlag::O_DIRECTORY | OFlag::O_RDONLY, 0)?;
        Ok(Self {
            fd: Arc::new(fd),
            path: Arc::new(self.path.join(name)),
        })
    }

    /// The directory of this name, which is made if it is not there.
    pub(crate) fn make_directory(&self, name: &str, mode: u32) -> Result<Self, Fail> {
        let doing = || format!("make directory {}", self.at(name));
        match self.directory(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            found => return found.doing(doing),
        }
        single(name).doing(doing)?;
        match stat::mkdirat(&self.fd, name, Mode::from_bits_truncate(mode)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e).doing(doing),
        }
        self.sync()?;
        self.directory(name).doing(doing)
    }

    /// A regular file; anything else under this name is an error that says what it is.
    pub(crate) fn file(&self, name: &str, flags: OFlag, mode: u32) -> io::Result<File> {
        self.regular(name, flags, mode).map(|(file, _)| file)
    }

    /// The same to read, with its size.
    pub(crate) fn sized(&self, name: &str) -> io::Result<(File, u64)> {
        self.regular(name, OFlag::O_RDONLY, 0)
    }

    fn regular(&self, name: &str, flags: OFlag, mode: u32) -> io::Result<(File, u64)> {
        // O_NONBLOCK: a fifo must not make us wait for its other end before we see what it is.
        let fd = self.open(name, flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, mode)?;
        let file = File::from(fd);
        let meta = file.metadata()?;
        if meta.is_file() {
            Ok((file, meta.len()))
        } else {
            Err(io::Error::other("not a regular file"))
        }
    }

    fn open(&self, name: &str, flags: OFlag, mode: u32) -> io::Result<OwnedFd> {
        single(name)?;
        let flags = flags | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(mode);
        let how = OpenHow::new()
            .flags(flags)
            .mode(if flags.contains(OFlag::O_CREAT) {
                mode
            } else {
                Mode::empty()
            })
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let opened = match fcntl::openat2(&self.fd, name, how) {
            // ENOSYS: an old kernel. EPERM: a sandbox that does not know the call.
            Err(Errno::ENOSYS | Errno::EPERM) => {
                fcntl::openat(&self.fd, name, flags | OFlag::O_NOFOLLOW, mode)
            }
            other => other,
        };
        opened.map_err(|e| match e {
            Errno::ELOOP => io::Error::other("is a symbolic link, which is not followed here"),
            e => e.into(),
        })
    }

    /// A file without a name, for what a message needs while it is on its way.
    pub(crate) fn temporary(&self) -> io::Result<File> {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        match fcntl::openat(&self.fd, ".", flags, mode) {
            // Not every file system can; then it has a name for a moment.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT) => {
                let name = format!(".{}.tmp", unique());
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR;
                let file = self.file(&name, flags, 0o600)?;
                self.unlink(&name)?;
                Ok(file)
            }
            made => Ok(made?.into()),
        }
    }

    pub(crate) fn stat(&self, name: &str) -> io::Result<Option<FileStat>> {
        single(name)?;
        match stat::fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    pub(crate) fn kind(&self, name: &str) -> io::Result<Kind> {
        Ok(self.stat(name)?.map_or(Kind::Nothing, |stat| {
            match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
                SFlag::S_IFREG => Kind::File,
                SFlag::S_IFDIR => Kind::Directory,
                _ => Kind::Other,
            }
        }))
    }

    /// `name` in `self` becomes `to_name` in `to`; what was there is replaced.
    pub(crate) fn rename(&self, name: &str, to: &Self, to_name: &str) -> io::Result<()> {
        single(name)?;
        single(to_name)?;
        Ok(fcntl::renameat(&self.fd, name, &to.fd, to_name)?)
    }

    /// A second name; an error if it is taken.
    pub(crate) fn link(&self, name: &str, to: &Self, to_name: &str) -> io::Result<()> {
        single(name)?;
        single(to_name)?;
        Ok(nix::unistd::linkat(
            &self.fd,
            name,
            &to.fd,
            to_name,
            AtFlags::empty(),
        )?)
    }

    pub(crate) fn unlink(&self, name: &str) -> io::Result<()> {
        single(name)?;
        Ok(nix::unistd::unlinkat(
            &self.fd,
            name,
            UnlinkatFlags::NoRemoveDir,
        )?)
    }

    pub(crate) fn remove_directory(&self, name: &str) -> io::Result<()> {
        single(name)?;
        Ok(nix::unistd::unlinkat(
            &self.fd,
            name,
            UnlinkatFlags::RemoveDir,
        )?)
    }

    /// The names in it that are UTF-8 (ours all are), without `.` and `..`, with whether each is a
    /// directory where the file system says so.
    pub(crate) fn list(&self) -> io::Result<Vec<(String, Option<Type>)>> {
        let fd = fcntl::openat(
            &self.fd,
            ".",
            OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let mut names = Vec::new();
        for entry in Stream::from_fd(fd)?.iter() {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push((name.to_owned(), entry.file_type()));
            }
        }
        Ok(names)
    }

    /// Makes the names in it durable.
    pub(crate) fn sync(&self) -> Result<(), Fail> {
        nix::unistd::fsync(&self.fd).doing(|| format!("sync directory {}", self.path.display()))
    }

    /// A small file, at most `limit` octets of it; `None` where it does not exist.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Fail> {
        let doing = || format!("read {}", self.at(name));
        let file = match self.file(name, OFlag::O_RDONLY, 0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.doing(doing)?,
        };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, limit), &mut bytes).doing(doing)?;
        Ok(Some(bytes))
    }

    /// Replaces a small file whole and durably: old or new after power loss, never a mixture.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), Fail> {
        let temporary = format!("{name}.{}.tmp", unique());
        let doing = || format!("write {}", self.at(name));
        let write = || -> io::Result<()> {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
            let mut file = self.file(&temporary, flags, mode)?;
            io::Write::write_all(&mut file, bytes)?;
            file.sync_all()?;
            self.rename(&temporary, self, name)
        };
        let written = write();
        if written.is_err() {
            // Ours and unfinished; the error that is returned says why.
            self.unlink(&temporary).ok();
        }
        written.doing(doing)?;
        self.sync()
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One component that stays where it is.
fn single(name: &str) -> io::Result<()> {
    let bad = matches!(name, "" | "." | "..")
        || memchr::memchr2(b'/', 0, name.as_bytes()).is_some()
        || name.len() > 255;
    if bad {
        Err(io::ErrorKind::InvalidInput.into())
    } else {
        Ok(())
    }
}

/// A word that no other call on this host gives while this process lives.
pub(crate) fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{count}-{:08x}", std::process::id(), random())
}

/// Not for secrets: where the system gives none, 0 will do.
pub(crate) fn random() -> u32 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}

/// The host's name without characters that file names and lock files cannot hold.
pub(crate) fn host() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let keep = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let name: Vec<u8> = name
        .as_bytes()
        .iter()
        .copied()
        .filter(keep)
        .take(64)
        .collect();
    match String::from_utf8(name) {
        Ok(name) if !name.is_empty() => name,
        _ => "localhost".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_and_nothing_is_waited_for() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::root(temp.path()).unwrap();
        std::fs::write(temp.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", temp.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/", temp.path().join("out")).unwrap();
        nix::unistd::mkfifo(&temp.path().join("fifo"), Mode::S_IRWXU).unwrap();
        assert!(dir.file("file", OFlag::O_RDONLY, 0).is_ok());
        for (name, text) in [
            ("link", "symbolic link"),
            ("out", "symbolic link"),
            ("fifo", "not a regular file"),
            (".", "invalid"),
            ("..", "invalid"),
            ("a/b", "invalid"),
        ] {
            let error = dir.file(name, OFlag::O_RDWR, 0).unwrap_err().to_string();
            assert!(error.contains(text), "{name}: {error}");
        }
        assert!(dir.directory("out").is_err());
        assert_eq!(dir.kind("fifo").unwrap(), Kind::Other);
        assert_eq!(dir.kind("no").unwrap(), Kind::Nothing);
    }

    #[test]
    fn small_files_are_replaced_whole() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::root(temp.path()).unwrap();
        assert_eq!(dir.read("x", 9).unwrap(), None);
        dir.replace("x", b"one", 0o600).unwrap();
        dir.replace("x", b"two", 0o600).unwrap();
        assert_eq!(dir.read("x", 2).unwrap(), Some(b"tw".to_vec()));
        assert_eq!(dir.list().unwrap().len(), 1);
    }
}
