//! The file: a head of one disk block, then buckets. Its size never changes, and blocks that nobody
//! wrote to take no room.
//!
//! | octets of the head | |
//! |---|---|
//! | 0..16 | `yubin tally 1\n`, padded with NUL |
//! | 16..48 | the secret that keys are hashed with |
//! | 48..52 | CRC-32C of these |
//!
//! It is made whole under no name and then linked, so that nobody ever sees half of one. One that is
//! damaged, or not of this version, is replaced; who has it open goes on with the old one.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base::{Doing, Fail, Root, Sysexit, sys};
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::record::BUCKET;

/// Below the root.
pub(crate) const PATH: &str = "/var/spool/yubin/tally";
const DIRECTORY: &str = "/var/spool/yubin";
const NAME: &str = "tally";
/// smtpd's, which may write to it; the servers that root starts have it open before they give root up.
const GROUP: &str = base::privilege::SMTP_USER;

const MAGIC: &[u8; 16] = b"yubin tally 1\n\0\0";
const SECRET: usize = 32;
const HEAD: usize = 4096;
/// A quarter of a million records: what a day of strangers leaves at a large site.
const BUCKETS: u64 = 16_384;
/// Of memory that one process has to itself.
pub(crate) const PRIVATE_BUCKETS: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    buckets: u64,
}

impl Geometry {
    pub(crate) fn bucket(self, hash: u64) -> Bucket {
        Bucket(hash.checked_rem(self.buckets).unwrap_or(0))
    }

    fn file_size(self) -> u64 {
        Bucket(self.buckets).range().start
    }
}

/// One of the file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bucket(u64);

impl Bucket {
    /// Where it is in the file.
    pub(crate) fn range(self) -> Range<u64> {
        let (head, size) = (octets(HEAD), octets(BUCKET));
        let start = head.saturating_add(self.0.saturating_mul(size));
        start..start.saturating_add(size)
    }

    /// Which of so many in-process locks is its.
    pub(crate) fn stripe(self, stripes: usize) -> usize {
        usize::try_from(self.0)
            .unwrap_or(0)
            .checked_rem(stripes)
            .unwrap_or(0)
    }
}

fn octets(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// What the head says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) geometry: Geometry,
    pub(crate) secret: [u8; SECRET],
}

type Opened = (File, Head);

/// Opens the file, and makes it where there is none or a damaged one.
pub(crate) fn open(root: &Root) -> Result<Opened, Fail> {
    if root.is_private() {
        let dir = root.path(DIRECTORY);
        std::fs::create_dir_all(&dir).doing(|| format!("make directory {}", dir.display()))?;
    }
    if let Some(opened) = open_existing(root)? {
        return Ok(opened);
    }
    // Who has found none has made one meanwhile, at worst.
    make(root)?;
    let made = open_existing(root)?;
    made.ok_or_else(|| Fail::temp(format!("{} comes and goes", root.path(PATH).display())))
}

/// The file, where there is a good one.
pub(crate) fn open_existing(root: &Root) -> Result<Option<Opened>, Fail> {
    let path = root.path(PATH);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Fail::io(format!("open {}", path.display()), e)),
    };
    let stat = file
        .metadata()
        .doing(|| format!("stat {}", path.display()))?;
    // The directory is the user yubin's: root does not write to just anything that is put there.
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    let owner = dir
        .metadata()
        .doing(|| format!("stat {}", dir.display()))?
        .uid();
    let owners = [owner, nix::unistd::geteuid().as_raw()];
    if !stat.is_file() || stat.nlink() > 1 || !owners.contains(&stat.uid()) {
        let text = format!("{}: not the file that we made, remove it", path.display());
        return Err(Fail::new(Sysexit::Config, text));
    }
    let Some(head) = read_head(&file).filter(|head| stat.len() == head.geometry.file_size()) else {
        log::warn!("{}: damaged, begun anew", path.display());
        return Ok(None);
    };
    // So that nobody waits for the disk later.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_WILLNEED).ok();
    Ok(Some((file, head)))
}

/// A new file in the place of what is there.
fn make(root: &Root) -> Result<(), Fail> {
    let dir = root.path(DIRECTORY);
    let path = root.path(PATH);
    let doing = || format!("make {}", path.display());
    let dir = File::open(&dir).doing(|| format!("open {}", dir.display()))?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .open(root.path(DIRECTORY))
        .doing(doing)?;
    fill(&file, BUCKETS).doing(doing)?;
    if base::privilege::is_installed_root(root) {
        let owner = dir.metadata().doing(doing)?.uid();
        let group = base::privilege::unix_group(GROUP)?;
        std::os::unix::fs::fchown(&file, Some(owner), Some(group.as_raw())).doing(doing)?;
        file.set_permissions(Permissions::from_mode(0o660))
            .doing(doing)?;
    }
    match sys::link_tmpfile(&file, &dir, NAME) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if open_existing(root)?.is_some() {
                // Another process was first.
                return Ok(());
            }
            let name = format!("{NAME}.{}", std::process::id());
            sys::link_tmpfile(&file, &dir, &name).doing(doing)?;
            nix::fcntl::renameat(&dir, name.as_str(), &dir, NAME).doing(doing)
        }
        Err(e) => Err(e).doing(doing),
    }
}

/// In memory.
pub(crate) fn anonymous(buckets: u64) -> Result<Opened, Fail> {
    let doing = || "make a file in memory";
    let file = File::from(memfd_create(NAME, MFdFlags::MFD_CLOEXEC).doing(doing)?);
    let head = fill(&file, buckets).doing(doing)?;
    Ok((file, head))
}

fn fill(file: &File, buckets: u64) -> io::Result<Head> {
    let mut secret = [0; SECRET];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let geometry = Geometry { buckets };
    let mut text = Vec::with_capacity(MAGIC.len() + SECRET + 4);
    text.extend_from_slice(MAGIC);
    text.extend_from_slice(&secret);
    text.extend_from_slice(&crc32c::crc32c(&text).to_le_bytes());
    file.set_len(geometry.file_size())?;
    file.write_all_at(&text, 0)?;
    Ok(Head { geometry, secret })
}

fn read_head(file: &File) -> Option<Head> {
    let mut text = [0; MAGIC.len() + SECRET + 4];
    file.read_exact_at(&mut text, 0).ok()?;
    let (said, sum) = text.split_last_chunk::<4>()?;
    let (magic, secret) = said.split_first_chunk::<16>()?;
    let good = magic == MAGIC && crc32c::crc32c(said) == u32::from_le_bytes(*sum);
    let geometry = Geometry { buckets: BUCKETS };
    let secret = secret.try_into().ok()?;
    good.then_some(Head { geometry, secret })
}
