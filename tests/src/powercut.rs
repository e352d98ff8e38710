//! A disk that loses what was not synced.
//!
//! [`Disk::record`] turns a trace of system calls into operations on files and names. For any
//! moment of the trace, [`Disk::cut`] says what is on the disk when the power fails then:
//!
//! * a file's bytes are there up to its last fsync or fdatasync that began after they were written;
//! * a name is there (or gone) when its directory was synced after it was made (or removed); a
//!   rename is there whole or not at all, for certain when the new directory was synced;
//! * of everything else a [`Luck`] decides, operation by operation and in no order: lost, there, or
//!   a write that is torn in its middle.
//!
//! The last state of the model is compared with the real directory, so an operation that the model
//! does not know is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::powercut_record::Recorder;
use crate::strace::Call;

pub(crate) type Ino = usize;

/// What was done, and when.
#[derive(Debug)]
pub struct Op {
    pub began: usize,
    pub ended: usize,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    Write {
        ino: Ino,
        at: usize,
        data: Vec<u8>,
    },
    Truncate {
        ino: Ino,
        length: usize,
    },
    Chmod {
        ino: Ino,
        mode: u32,
    },
    Link {
        path: PathBuf,
        ino: Ino,
    },
    Unlink {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Mkdir {
        path: PathBuf,
    },
    Rmdir {
        path: PathBuf,
    },
    SyncFile {
        ino: Ino,
        path: PathBuf,
    },
    SyncDir {
        path: PathBuf,
    },
    SyncAll,
    /// Bytes to a socket, a pipe, a terminal: what the world knows.
    Say {
        text: Vec<u8>,
    },
}

/// Files and names at one moment; paths are relative to the root.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    pub(crate) dirs: BTreeSet<PathBuf>,
    pub(crate) names: BTreeMap<PathBuf, Ino>,
    pub(crate) inodes: Vec<Inode>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) data: Vec<u8>,
    mode: u32,
}

impl Default for Inode {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            mode: 0o660,
        }
    }
}

/// The fate of an operation that nobody synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Lost,
    Kept,
    /// A write of which only some parts came to the disk; anything else is lost.
    Torn(usize),
}

/// Decides over what was not synced.
pub type Luck<'a> = &'a mut dyn FnMut(&Op) -> Fate;

/// xorshift64: enough to scatter, and the same each time.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Lost, there, or a torn write.
    pub fn fate(&mut self, op: &Op) -> Fate {
        match (self.next() % 3, &op.what) {
            (0, _) => Fate::Lost,
            (1, What::Write { data, .. }) => {
                let length = u64::try_from(data.len()).unwrap().max(1);
                Fate::Torn(usize::try_from(self.next() % length).unwrap())
            }
            _ => Fate::Kept,
        }
    }
}

/// Everything that was not synced is lost.
pub fn unlucky(_: &Op) -> Fate {
    Fate::Lost
}

/// A directory as it was, and everything that was done to it since.
#[derive(Debug)]
pub struct Disk {
    before: Tree,
    pub ops: Vec<Op>,
}

impl Disk {
    /// The operations of a trace below `root`, which was as `before` says when the trace began.
    pub fn record(root: &Path, before: Tree, calls: &[Call]) -> Self {
        let (live, ops) = Recorder::new(root, before.clone()).all(calls);
        let real = Tree::read(root);
        assert_eq!(
            live.shown(),
            real.shown(),
            "the model is not what was really done"
        );
        Self { before, ops }
    }

    /// For each operation the line from which on it is certainly on the disk; without the sync
    /// `forgotten`, where one is named.
    fn durable_from(&self, forgotten: Option<usize>) -> Vec<Option<usize>> {
        let syncs: Vec<&Op> = self
            .ops
            .iter()
            .enumerate()
            .filter(|(at, op)| op.is_sync() && Some(*at) != forgotten)
            .map(|(_, op)| op)
            .collect();
        let first = |op: &Op| {
            syncs
                .iter()
                .filter(|sync| sync.began > op.ended && sync.covers(op))
                .map(|sync| sync.ended)
                .min()
        };
        self.ops.iter().map(first).collect()
    }

    /// Every moment at which something had just been done.
    pub fn moments(&self) -> Vec<usize> {
        let mut lines: Vec<usize> = self.ops.iter().map(|op| op.ended).collect();
        lines.dedup();
        lines
    }

    /// What the world had been told by then.
    pub fn said(&self, moment: usize) -> impl Iterator<Item = &[u8]> {
        self.ops
            .iter()
            .filter(move |op| op.began <= moment)
            .filter_map(|op| match &op.what {
                What::Say { text } => Some(&text[..]),
                _ => None,
            })
    }

    /// What is on the disk when the power fails right after line `moment`.
    pub fn cut(&self, moment: usize, forgotten: Option<usize>, luck: Luck<'_>) -> Tree {
        let mut tree = self.before.clone();
        for (op, durable) in self.ops.iter().zip(self.durable_from(forgotten)) {
            if op.began > moment || op.is_sync() {
                continue;
            }
            let certain = durable.is_some_and(|line| line <= moment);
            match if certain { Fate::Kept } else { luck(op) } {
                Fate::Kept => tree.apply(&op.what, usize::MAX),
                Fate::Torn(bytes) => tree.apply(&op.what, bytes),
                Fate::Lost => (),
            }
        }
        tree
    }
}

impl Op {
    pub fn is_sync(&self) -> bool {
        matches!(
            self.what,
            What::SyncFile { .. } | What::SyncDir { .. } | What::SyncAll
        )
    }

    /// Whether this sync makes `op` durable, if `op` was done before it.
    fn covers(&self, op: &Self) -> bool {
        match (&self.what, &op.what) {
            (What::SyncAll, _) => true,
            (
                What::SyncFile { ino: synced, .. },
                What::Write { ino, .. } | What::Truncate { ino, .. } | What::Chmod { ino, .. },
            ) => synced == ino,
            (
                What::SyncDir { path: dir },
                What::Link { path, .. }
                | What::Unlink { path }
                | What::Rename { to: path, .. }
                | What::Mkdir { path }
                | What::Rmdir { path },
            ) => path.parent() == Some(dir),
            _ => false,
        }
    }
}

impl Tree {
    /// What really is below `root`.
    pub fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        tree.read_below(root, Path::new(""));
        tree
    }

    fn read_below(&mut self, root: &Path, dir: &Path) {
        self.dirs.insert(dir.into());
        for entry in fs::read_dir(root.join(dir)).unwrap() {
            let entry = entry.unwrap();
            let path = dir.join(entry.file_name());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                self.read_below(root, &path);
            } else if kind.is_file() {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                self.names.insert(path, self.inodes.len());
                self.inodes.push(Inode {
                    data: fs::read(entry.path()).unwrap(),
                    mode,
                });
            }
        }
    }

    /// Makes it real, below an empty directory. The power was off for an hour.
    pub fn write(&self, root: &Path) {
        let then = SystemTime::now() - Duration::from_secs(3600);
        for dir in &self.dirs {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for (path, ino) in &self.names {
            let inode = &self.inodes[*ino];
            let mut file = fs::File::create(root.join(path)).unwrap();
            file.write_all(&inode.data).unwrap();
            file.set_modified(then).unwrap();
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(inode.mode)).unwrap();
        }
    }

    /// Without the files whose name `unwanted` knows.
    #[must_use]
    pub fn without(mut self, unwanted: impl Fn(&Path) -> bool) -> Self {
        self.names.retain(|path, _| !unwanted(path));
        self
    }

    /// A file's bytes.
    pub fn file(&self, path: impl AsRef<Path>) -> Option<&[u8]> {
        self.names
            .get(path.as_ref())
            .map(|ino| &self.inodes[*ino].data[..])
    }

    /// Whether both would be the same directory.
    pub fn same(&self, other: &Self) -> bool {
        let inodes = |tree: &Self| {
            tree.names
                .values()
                .map(|ino| tree.inodes[*ino].mode)
                .collect::<Vec<_>>()
        };
        self.dirs == other.dirs && self.shown() == other.shown() && inodes(self) == inodes(other)
    }

    /// For comparing: every path with its bytes.
    fn shown(&self) -> BTreeMap<&Path, &[u8]> {
        self.names
            .iter()
            .map(|(path, ino)| (path.as_path(), &self.inodes[*ino].data[..]))
            .collect()
    }

    pub(crate) fn inode(&mut self, ino: Ino) -> &mut Inode {
        if self.inodes.len() <= ino {
            self.inodes.resize_with(ino + 1, Inode::default);
        }
        &mut self.inodes[ino]
    }

    /// Does what can be done: a rename of a name that is not there is nothing.
    pub(crate) fn apply(&mut self, what: &What, bytes: usize) {
        match what {
            What::Write { ino, at, data } => {
                let data = &data[..bytes.min(data.len())];
                let file = &mut self.inode(*ino).data;
                file.resize(file.len().max(at + data.len()), 0);
                file[*at..at + data.len()].copy_from_slice(data);
            }
            _ if bytes != usize::MAX => (),
            What::Truncate { ino, length } => self.inode(*ino).data.resize(*length, 0),
            What::Chmod { ino, mode } => self.inode(*ino).mode = *mode,
            What::Link { path, ino } => {
                self.inode(*ino);
                self.names.insert(path.clone(), *ino);
            }
            What::Unlink { path } => {
                self.names.remove(path);
            }
            What::Rename { from, to } => {
                if let Some(ino) = self.names.remove(from) {
                    self.names.insert(to.clone(), ino);
                }
            }
            What::Mkdir { path } => {
                self.dirs.insert(path.clone());
            }
            What::Rmdir { path } => {
                self.dirs.remove(path);
            }
            What::SyncFile { .. } | What::SyncDir { .. } | What::SyncAll | What::Say { .. } => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(ops: Vec<What>) -> Disk {
        let ops = ops
            .into_iter()
            .enumerate()
            .map(|(i, what)| Op {
                began: i,
                ended: i,
                what,
            })
            .collect();
        Disk {
            before: Tree::default(),
            ops,
        }
    }

    fn lost(_: &Op) -> Fate {
        Fate::Lost
    }

    #[test]
    fn what_is_synced_is_there_and_nothing_else() {
        let disk = disk(vec![
            What::Write {
                ino: 0,
                at: 0,
                data: b"hello".into(),
            },
            What::SyncFile {
                ino: 0,
                path: "d/#1".into(),
            },
            What::Link {
                path: "d/a".into(),
                ino: 0,
            },
            What::SyncDir { path: "d".into() },
            What::Write {
                ino: 0,
                at: 5,
                data: b" world".into(),
            },
            What::Rename {
                from: "d/a".into(),
                to: "e/a".into(),
            },
            What::SyncDir { path: "e".into() },
        ]);
        assert_eq!(disk.cut(2, None, &mut lost).file("d/a"), None);
        assert_eq!(
            disk.cut(3, None, &mut lost).file("d/a"),
            Some(&b"hello"[..])
        );
        assert_eq!(disk.cut(3, Some(1), &mut lost).file("d/a"), Some(&b""[..]));
        assert_eq!(
            disk.cut(5, None, &mut lost).file("d/a"),
            Some(&b"hello"[..])
        );
        let moved = disk.cut(6, None, &mut lost);
        assert_eq!(
            (moved.file("d/a"), moved.file("e/a")),
            (None, Some(&b"hello"[..]))
        );
        let torn = disk.cut(6, None, &mut |_| Fate::Torn(3));
        assert_eq!(torn.file("e/a"), Some(&b"hello wo"[..]));
    }
}
