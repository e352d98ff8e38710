//! The queue's directories: opened once, made where that is allowed, and named when one is missing.

use std::ffi::OsStr;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{Doing, Fail, Root, Status, Sysexit};
use nix::sys::stat::FileStat;

use crate::dir::Dir;
use crate::flush::FLUSH;
use crate::id::QueueId;
use crate::log::Log;

/// Below the root.
const SPOOL: &str = "/var/spool/yubin";

/// The directory of the commit log, beside the others.
pub(crate) const LOG: &str = "log";
/// Whose work an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// deliver's
    Local,
    /// qrun's
    Relay,
}

impl Lane {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Relay => "relay",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Local, Self::Relay]
            .into_iter()
            .find(|lane| lane.as_str() == text)
    }
}

/// Where a message can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Written by sendmail(1), not yet taken in.
    Drop,
    /// Being made.
    Incoming,
    Local,
    Relay,
    /// Put aside by the operator, or because nobody could tell whose it is.
    Hold,
    /// Its checksums are wrong.
    Damaged,
}

impl Place {
    pub const ALL: [Self; 6] = [
        Self::Drop,
        Self::Incoming,
        Self::Local,
        Self::Relay,
        Self::Hold,
        Self::Damaged,
    ];

    /// The directory's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Incoming => "incoming",
            Self::Local => "local",
            Self::Relay => "relay",
            Self::Hold => "hold",
            Self::Damaged => "damaged",
        }
    }

    /// The mode in an installed system. Lanes: smtpd's group makes names and reads none; everyone
    /// removes only his own. drop: everyone makes names and nobody but yubin reads them.
    fn mode(self) -> u32 {
        match self {
            Self::Drop => 0o3733,
            Self::Incoming | Self::Local | Self::Relay => 0o3730,
            Self::Hold | Self::Damaged => 0o700,
        }
    }

    /// The group in an installed system.
    fn group(self) -> &'static str {
        match self {
            Self::Incoming | Self::Local | Self::Relay => "yubin-smtp",
            Self::Drop | Self::Hold | Self::Damaged => "yubin",
        }
    }
}

impl From<Lane> for Place {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Local => Self::Local,
            Lane::Relay => Self::Relay,
        }
    }
}

/// An entry as the directory shows it, unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub id: QueueId,
    /// The time of the next attempt.
    pub due: SystemTime,
    /// Of the file.
    pub size: u64,
}

/// The queue of one host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) path: PathBuf,
    /// In the order of [`Place::ALL`]; what this process may not open is remembered as such.
    pub(crate) dirs: Vec<Result<Arc<Dir>, io::ErrorKind>>,
    /// Where commit logs are kept, if that is possible.
    pub(crate) log_dir: Option<Arc<Dir>>,
    /// Where requests are left, if it is there.
    pub(crate) flush_dir: Option<Arc<Dir>>,
    /// Ours, if we keep one.
    pub(crate) log: OnceLock<Log>,
    /// One for notes, where we keep none.
    pub(crate) notes: OnceLock<Log>,
    /// The name this program signs its journal records with.
    by: String,
}

impl Queue {
    /// Opens all directories that this process may open. In a private root, or as root, those that
    /// are missing are made; elsewhere a missing one is a failure that says how to mend it.
    pub fn open(root: &Root) -> Result<Self, Fail> {
        if root.is_private() || nix::unistd::geteuid().is_root() {
            make_directories(root)?;
        }
        let path = root.path(SPOOL);
        let dirs = Place::ALL
            .into_iter()
            .map(|place| open_directory(&path, place))
            .collect::<Result<_, Fail>>()?;
        let log_dir = Dir::open(&path.join(LOG)).ok().map(Arc::new);
        let flush_dir = Dir::open(&path.join(FLUSH)).ok().map(Arc::new);
        Ok(Self(Arc::new(Inner {
            path,
            dirs,
            log_dir,
            flush_dir,
            log: OnceLock::new(),
            notes: OnceLock::new(),
            by: program_name(),
        })))
    }

    /// Makes the directories, with owners and modes when this is an installed system and we are
    /// root, and opens them. For `make run` and installation.
    pub fn create(root: &Root) -> Result<Self, Fail> {
        make_directories(root)?;
        Self::open(root)
    }

    /// The directory that holds the others.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    pub(crate) fn by(&self) -> &str {
        &self.0.by
    }

    pub(crate) fn dir(&self, place: impl Into<Place>) -> Result<&Dir, Fail> {
        let place = place.into();
        let slot = Place::ALL
            .iter()
            .position(|p| *p == place)
            .and_then(|i| self.0.dirs.get(i));
        match slot {
            Some(Ok(dir)) => Ok(dir),
            Some(Err(kind)) => Err(io::Error::from(*kind)).doing(|| self.name_of(place)),
            None => Err(Fail::new(Sysexit::Software, self.name_of(place))),
        }
    }

    fn name_of(&self, place: Place) -> String {
        format!("open {}", self.0.path.join(place.as_str()).display())
    }

    /// Every entry of a lane, the longest due first. Entries may come and go meanwhile.
    pub fn scan(&self, lane: Lane) -> Result<Vec<Listed>, Fail> {
        let dir = self.dir(lane)?;
        let mut found = Vec::new();
        dir.ids(|id| {
            if let Ok(Some(stat)) = dir.stat(id.as_str()) {
                found.push(Listed {
                    id,
                    due: modified(&stat),
                    size: size(&stat),
                });
            }
        })?;
        found.sort_unstable_by_key(|listed| (listed.due, listed.id));
        Ok(found)
    }

    /// When an entry is due, without opening it; `None` when it is not there.
    pub fn due(&self, lane: Lane, id: &QueueId) -> Result<Option<SystemTime>, Fail> {
        let dir = self.dir(lane)?;
        let stat = dir
            .stat(id.as_str())
            .doing(|| format!("stat {}", dir.name(id.as_str())))?;
        Ok(stat.map(|stat| modified(&stat)))
    }

    /// Where an entry is, if it is in a lane or in `hold/`.
    pub(crate) fn find(&self, id: &QueueId) -> Result<Option<Place>, Fail> {
        for place in [Place::Local, Place::Relay, Place::Hold] {
            let dir = self.dir(place)?;
            if dir
                .stat(id.as_str())
                .doing(|| format!("stat {}", dir.name(id.as_str())))?
                .is_some()
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Makes durable that entries were finished in this lane. One call is enough for many.
    pub fn sync(&self, lane: Lane) -> Result<(), Fail> {
        self.dir(lane)?.sync()
    }

    /// Whether a message of `size` bytes can be accepted and `spare` bytes stay free: asked before
    /// the data, so that a full disk is a 452 there. The failure has status 4.3.1 and
    /// [`Fail::is_full`].
    pub fn has_space(&self, size: u64, spare: u64) -> Result<(), Fail> {
        let dir = self.dir(Place::Local)?;
        let stat = nix::sys::statvfs::fstatvfs(dir.fd())
            .doing(|| format!("look at the free space of {}", dir.path().display()))?;
        // Some file systems count no inodes.
        let inodes = stat.files() == 0 || stat.files_available() > 64;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        if inodes && free >= size.saturating_add(spare) {
            return Ok(());
        }
        let full = io::Error::from(io::ErrorKind::StorageFull);
        Err(Fail::io(format!("queue in {}", self.0.path.display()), full).with_status(Status::FULL))
    }
}

/// Of a directory that may not be opened, `Ok(Err)`.
fn open_directory(spool: &Path, place: Place) -> Result<Result<Arc<Dir>, io::ErrorKind>, Fail> {
    let path = spool.join(place.as_str());
    match Dir::open(&path) {
        Ok(dir) => Ok(Ok(Arc::new(dir))),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(Err(e.kind())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Fail::config(format!(
            "queue directory {path} is missing: make it with `install -d -o yubin -g {group} -m {mode:o} {path}`",
            path = path.display(),
            group = place.group(),
            mode = place.mode(),
        ))),
        Err(e) => Err(Fail::io(format!("open {}", path.display()), e)),
    }
}

/// The directory where anyone submits, for a process that opens nothing else.
pub(crate) fn open_drop(root: &Root) -> Result<Arc<Dir>, Fail> {
    if root.is_private() {
        make_directories(root)?;
    }
    let spool = root.path(SPOOL);
    open_directory(&spool, Place::Drop)?
        .map_err(io::Error::from)
        .doing(|| format!("open {}", spool.join(Place::Drop.as_str()).display()))
}

/// Makes what is missing and leaves what is there as it is.
fn make_directories(root: &Root) -> Result<(), Fail> {
    let spool = root.path(SPOOL);
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&spool)
        .doing(|| format!("make directory {}", spool.display()))?;
    let places = Place::ALL.map(|place| (place.as_str(), place.mode(), place.group()));
    let (mode, group) = (Place::Incoming.mode(), Place::Incoming.group());
    // smtpd counts the requests.
    let others = [(LOG, mode, group), (FLUSH, 0o3770, group)];
    for (name, mode, group) in places.into_iter().chain(others) {
        let path = spool.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) if !root.is_private() && nix::unistd::geteuid().is_root() => {
                give_away(&path, mode, group)?;
            }
            Ok(()) => (),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => (),
            Err(e) => return Err(Fail::io(format!("make directory {}", path.display()), e)),
        }
    }
    base::durable::sync_directory(&spool)
}

/// Owner, group and mode of an installed system.
fn give_away(path: &Path, mode: u32, group: &str) -> Result<(), Fail> {
    let doing = || format!("give {} to yubin:{group}", path.display());
    let missing = || {
        Fail::config(format!(
            "{}: no such user or group; make them first",
            doing()
        ))
    };
    let user = nix::unistd::User::from_name("yubin")
        .doing(doing)?
        .ok_or_else(missing)?;
    let group = nix::unistd::Group::from_name(group)
        .doing(doing)?
        .ok_or_else(missing)?;
    nix::unistd::chown(path, Some(user.uid), Some(group.gid)).doing(doing)?;
    // After the change of owner, which takes setgid away.
    std::fs::set_permissions(path, Permissions::from_mode(mode)).doing(doing)
}

/// What this program is called.
fn program_name() -> String {
    std::env::args_os()
        .next()
        .as_deref()
        .and_then(|path| Path::new(path).file_name().map(OsStr::to_string_lossy))
        .map_or_else(|| "yubin".into(), |name| name.chars().take(64).collect())
}

/// A file's mtime; what lies before 1970 is 1970.
pub(crate) fn modified(stat: &FileStat) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0).min(1 << 40));
    let nanos = Duration::from_nanos(
        u64::try_from(stat.st_mtime_nsec)
            .unwrap_or(0)
            .min(999_999_999),
    );
    UNIX_EPOCH + seconds + nanos
}

pub(crate) fn size(stat: &FileStat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A queue in a directory of its own, which goes with it.
    pub(crate) fn scratch() -> (tempfile::TempDir, Queue) {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::create(&Root::new(dir.path())).unwrap();
        (dir, queue)
    }

    /// From ann to as many as are named.
    pub(crate) fn envelope(recipients: &[&str]) -> base::Envelope {
        let recipients = recipients
            .iter()
            .map(|r| base::Recipient::new(r.parse().unwrap()))
            .collect();
        let sender = base::ReversePath::Address("ann@example.org".parse().unwrap());
        base::Envelope::new(sender, recipients)
    }

    /// A complete message that is not committed.
    pub(crate) fn sealed(queue: &Queue, lane: Lane, content: &[u8]) -> crate::Sealed {
        let origin = crate::Origin::now(crate::Source::Network(crate::Client::default()));
        let mut draft = queue
            .draft(
                lane,
                &envelope(&["bob@example.org", "eve@example.org"]),
                &origin,
            )
            .unwrap();
        draft.write(content).unwrap();
        draft.finish().unwrap()
    }

    /// A message in the queue.
    pub(crate) fn put(queue: &Queue, lane: Lane, content: &[u8]) -> QueueId {
        queue
            .commit(vec![sealed(queue, lane, content)])
            .unwrap()
            .remove(0)
    }

    /// Claims what must be free, or soon: another test's fork may hold our locks until its exec.
    pub(crate) fn claimed(queue: &Queue, lane: Lane, id: &QueueId) -> crate::Entry {
        for _ in 0..1000 {
            match queue.claim(lane, id).unwrap() {
                crate::Claim::Entry(entry) => return *entry,
                crate::Claim::Busy => std::thread::sleep(Duration::from_millis(5)),
                other => panic!("{id}: {other:?}"),
            }
        }
        panic!("{id}: still busy");
    }

    /// All ids of a place.
    pub(crate) fn ids(queue: &Queue, place: Place) -> Vec<QueueId> {
        let mut ids = Vec::new();
        queue.dir(place).unwrap().ids(|id| ids.push(id)).unwrap();
        ids.sort();
        ids
    }

    #[test]
    fn a_private_root_gets_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::open(&Root::new(dir.path())).unwrap();
        for place in Place::ALL {
            assert!(queue.path().join(place.as_str()).is_dir());
            assert!(queue.dir(place).unwrap().can_sync());
        }
        assert_eq!(queue.scan(Lane::Local).unwrap(), []);
    }

    #[test]
    fn a_missing_directory_is_named_with_its_mend() {
        let dir = tempfile::tempdir().unwrap();
        let fail = open_directory(dir.path(), Place::Relay).unwrap_err();
        assert_eq!(fail.code(), Sysexit::Config);
        let text = fail.to_string();
        assert!(
            text.contains("/relay is missing") && text.contains("-m 3730"),
            "{text}"
        );
    }

    #[test]
    fn space_is_refused_before_it_is_gone() {
        let (_dir, queue) = scratch();
        queue.has_space(0, 0).unwrap();
        let fail = queue.has_space(1, u64::MAX).unwrap_err();
        assert!(fail.is_full());
        assert_eq!(fail.status(), Some(Status::FULL));
    }
}
