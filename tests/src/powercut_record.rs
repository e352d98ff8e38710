//! From system calls to operations on files and names: the recording half of [`crate::powercut`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::powercut::{Ino, Inode, Op, Tree, What};
use crate::strace::{Call, Open};

/// Follows a trace.
pub(crate) struct Recorder<'a> {
    root: &'a Path,
    /// As the running system sees it.
    live: Tree,
    /// Files that had no name when they were made, by the path strace shows for them.
    unnamed: HashMap<PathBuf, Ino>,
    /// The same files, by the process and the number of the descriptor they were opened as.
    descriptors: HashMap<(u32, u64), Ino>,
    /// Where the next plain write of a file goes.
    places: HashMap<Ino, Place>,
    ops: Vec<Op>,
}

#[derive(Clone, Copy)]
enum Place {
    At(usize),
    Append,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(root: &'a Path, live: Tree) -> Self {
        Self {
            root,
            live,
            unnamed: HashMap::new(),
            descriptors: HashMap::new(),
            places: HashMap::new(),
            ops: Vec::new(),
        }
    }

    /// The last state, and how it came to be.
    pub(crate) fn all(mut self, calls: &[Call]) -> (Tree, Vec<Op>) {
        for call in calls {
            self.call(call);
        }
        (self.live, self.ops)
    }

    fn call(&mut self, call: &Call) {
        match call.name.as_str() {
            "openat" | "openat2" => self.open(call, call.path(Some(0), 1), call.arg(2)),
            "open" => self.open(call, call.path(None, 0), call.arg(1)),
            "creat" => self.open(call, call.path(None, 0), "O_CREAT|O_TRUNC"),
            "write" | "writev" | "sendto" | "sendmsg" => self.write(call),
            "pwrite64" | "pwritev" => {
                if let Some(ino) = self.file(call.open(0)) {
                    let at = usize::try_from(call.number(3)).unwrap();
                    self.write_at(call, ino, at);
                }
            }
            "lseek" => {
                if let Some(ino) = self.file(call.open(0)) {
                    self.places
                        .insert(ino, Place::At(usize::try_from(call.result()).unwrap()));
                }
            }
            "ftruncate" => {
                if let Some(ino) = self.file(call.open(0)) {
                    let length = usize::try_from(call.number(1)).unwrap();
                    self.done(call, What::Truncate { ino, length });
                }
            }
            "fchmod" => {
                if let Some(ino) = self.file(call.open(0)) {
                    let mode = u32::try_from(call.number(1)).unwrap();
                    self.done(call, What::Chmod { ino, mode });
                }
            }
            "fchmodat" => {
                let path = self.below(&call.path(Some(0), 1));
                if let Some(ino) = path.and_then(|path| self.live.names.get(&path).copied()) {
                    let mode = u32::try_from(call.number(2)).unwrap();
                    self.done(call, What::Chmod { ino, mode });
                }
            }
            "fsync" | "fdatasync" => self.sync(call),
            "sync" | "syncfs" => self.done(call, What::SyncAll),
            _ => self.names(call),
        }
    }

    fn names(&mut self, call: &Call) {
        match call.name.as_str() {
            "linkat" => self.link(call, &call.path(Some(0), 1), &call.path(Some(2), 3)),
            "link" => self.link(call, &call.path(None, 0), &call.path(None, 1)),
            "rename" => self.rename(call, &call.path(None, 0), &call.path(None, 1)),
            "renameat" | "renameat2" => {
                self.rename(call, &call.path(Some(0), 1), &call.path(Some(2), 3))
            }
            "unlink" => self.unlink(call, &call.path(None, 0)),
            "unlinkat" if call.arg(2).contains("AT_REMOVEDIR") => {
                self.rmdir(call, &call.path(Some(0), 1))
            }
            "unlinkat" => self.unlink(call, &call.path(Some(0), 1)),
            "rmdir" => self.rmdir(call, &call.path(None, 0)),
            "mkdir" => self.mkdir(call, &call.path(None, 0)),
            "mkdirat" => self.mkdir(call, &call.path(Some(0), 1)),
            // Anything else would be seen in the comparison with the real directory.
            _ => (),
        }
    }

    fn done(&mut self, call: &Call, what: What) {
        self.live.apply(&what, usize::MAX);
        self.ops.push(Op {
            began: call.began,
            ended: call.ended,
            what,
        });
    }

    /// The path relative to the root; `None` for what is elsewhere.
    fn below(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(self.root).ok().map(Into::into)
    }

    fn file(&self, open: Open) -> Option<Ino> {
        match open {
            Open::Path(path) => self.live.names.get(&self.below(&path)?).copied(),
            Open::Unnamed(path) => self.unnamed.get(&path).copied(),
            Open::Deleted | Open::Other => None,
        }
    }

    fn new_inode(&mut self) -> Ino {
        self.live.inodes.push(Inode::default());
        self.live.inodes.len() - 1
    }

    fn open(&mut self, call: &Call, path: PathBuf, flags: &str) {
        let Some(path) = self.below(&path) else {
            return;
        };
        if flags.contains("O_TMPFILE") {
            if let Open::Unnamed(shown) = call.result_open() {
                let ino = self.new_inode();
                self.unnamed.insert(shown, ino);
                self.descriptors.insert((call.process, call.result()), ino);
                self.places.insert(ino, Place::At(0));
            }
            return;
        }
        if flags.contains("O_CREAT") && !self.live.names.contains_key(&path) {
            let ino = self.new_inode();
            self.done(
                call,
                What::Link {
                    path: path.clone(),
                    ino,
                },
            );
        }
        let Some(ino) = self.live.names.get(&path).copied() else {
            return;
        };
        if flags.contains("O_TRUNC") {
            self.done(call, What::Truncate { ino, length: 0 });
        }
        if flags.contains("O_WRONLY") || flags.contains("O_RDWR") {
            let place = if flags.contains("O_APPEND") {
                Place::Append
            } else {
                Place::At(0)
            };
            self.places.insert(ino, place);
        }
    }

    fn write(&mut self, call: &Call) {
        let open = call.open(0);
        let Some(ino) = self.file(open.clone()) else {
            let elsewhere = match &open {
                Open::Path(path) => self.below(path).is_none(),
                Open::Other => true,
                Open::Unnamed(_) | Open::Deleted => false,
            };
            if elsewhere {
                self.done(
                    call,
                    What::Say {
                        text: call.bytes(1),
                    },
                );
            }
            return;
        };
        let length = self.live.inode(ino).data.len();
        match self.places.get(&ino).copied().unwrap_or(Place::Append) {
            Place::Append => self.write_at(call, ino, length),
            Place::At(at) => {
                self.write_at(call, ino, at);
                self.places
                    .insert(ino, Place::At(at + usize::try_from(call.result()).unwrap()));
            }
        }
    }

    fn write_at(&mut self, call: &Call, ino: Ino, at: usize) {
        let mut data = call.bytes(1);
        data.truncate(usize::try_from(call.result()).unwrap());
        self.done(call, What::Write { ino, at, data });
    }

    fn sync(&mut self, call: &Call) {
        let open = call.open(0);
        if let Open::Path(path) = &open
            && let Some(path) = self.below(path)
            && self.live.dirs.contains(&path)
        {
            return self.done(call, What::SyncDir { path });
        }
        let path = match &open {
            Open::Path(path) | Open::Unnamed(path) => self.below(path),
            Open::Deleted | Open::Other => None,
        };
        if let Some((ino, path)) = self.file(open).zip(path) {
            self.done(call, What::SyncFile { ino, path });
        }
    }

    fn link(&mut self, call: &Call, from: &Path, to: &Path) {
        let Some(path) = self.below(to) else { return };
        // strace shows no path for the N of /proc/self/fd/N.
        let ino = match self.below(from) {
            Some(from) => self.live.names.get(&from).copied(),
            None => self.by_descriptor(call.process, from),
        };
        let ino = ino.unwrap_or_else(|| panic!("{} links from nowhere", path.display()));
        self.done(call, What::Link { path, ino });
    }

    /// `/proc/self/fd/7`
    fn by_descriptor(&self, process: u32, path: &Path) -> Option<Ino> {
        let number = path
            .strip_prefix("/proc/self/fd")
            .ok()?
            .to_str()?
            .parse()
            .ok()?;
        self.descriptors.get(&(process, number)).copied()
    }

    fn rename(&mut self, call: &Call, from: &Path, to: &Path) {
        match (self.below(from), self.below(to)) {
            (Some(from), Some(to)) => self.done(call, What::Rename { from, to }),
            (None, None) => (),
            _ => panic!("moved in or out: {call:?}"),
        }
    }

    fn unlink(&mut self, call: &Call, path: &Path) {
        if let Some(path) = self.below(path) {
            self.done(call, What::Unlink { path });
        }
    }

    fn mkdir(&mut self, call: &Call, path: &Path) {
        if let Some(path) = self.below(path) {
            self.done(call, What::Mkdir { path });
        }
    }

    fn rmdir(&mut self, call: &Call, path: &Path) {
        if let Some(path) = self.below(path) {
            self.done(call, What::Rmdir { path });
        }
    }
}
