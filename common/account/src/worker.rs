//! The store worker: a process that became the user who logged in, and serves the store's requests
//! on a socket. `checkpw` starts it by executing itself, so that no fork happens beside threads.
//!
//! In a private root, or without root, there is one uid and no worker: the daemon opens the spool.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use base::{Config, Doing, Fail, Root, Sysexit, privilege, sys};
use nix::unistd::{Gid, Uid};

use crate::message::{Service, StoreAccess};
use crate::user::{User, UserName};

/// The workers that `checkpw` has started.
pub(crate) struct Workers {
    /// `None` where no worker is needed.
    program: Option<PathBuf>,
    service: Service,
    children: Mutex<Vec<Child>>,
}

impl Workers {
    pub(crate) fn new(root: &Root, _config: &Config, service: Service) -> Result<Self, Fail> {
        let program = match privilege::is_installed_root(root) {
            true => Some(std::env::current_exe().doing(|| "find my own program file")?),
            false => None,
        };
        Ok(Self {
            program,
            service,
            children: Mutex::new(Vec::new()),
        })
    }

    /// The way to this user's mail.
    pub(crate) fn start(&self, user: &User) -> Result<StoreAccess, Fail> {
        let Some(program) = &self.program else {
            return Ok(StoreAccess::Pool);
        };
        let doing = || format!("start the store worker of {}", user.name);
        let (front, worker) = UnixStream::pair().doing(doing)?;
        let worker: std::os::fd::OwnedFd = worker.into();
        let child = Command::new(program)
            .arg("--worker")
            .args([
                user.name.as_str(),
                &user.uid.to_string(),
                &user.gid.to_string(),
            ])
            .args(["--service", self.service.name()])
            .stdin(Stdio::from(worker))
            .stdout(Stdio::null())
            .spawn()
            .doing(doing)?;
        self.children
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(child);
        self.reap();
        Ok(StoreAccess::Worker(front))
    }

    /// Buries the workers whose sessions are over.
    pub(crate) fn reap(&self) {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
    }
}

/// The life of a worker: makes the user's folder directory while it is root, becomes the user, and
/// serves the socket on fd 0.
pub fn run(root: &Root, config: &Config, name: &str, uid: &str, gid: &str) -> Result<(), Fail> {
    let usage = || Fail::usage("--worker NAME UID GID is for checkpw itself");
    let name = UserName::parse(name).ok_or_else(usage)?;
    let uid: u32 = uid.parse().map_err(|_| usage())?;
    let gid: u32 = gid.parse().map_err(|_| usage())?;
    if uid == 0 {
        return Err(Fail::new(
            Sysexit::NoPerm,
            "root reads no mail here: give root an alias",
        ));
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    make_home(root, &name, uid, gid)?;
    privilege::become_user(uid, gid, &[privilege::unix_group(privilege::MAIL_GROUP)?])?;
    sys::no_new_privileges().doing(|| "set no_new_privs")?;
    let socket = sys::inherited(0).doing(|| "take the socket on fd 0")?;
    let session = store::Spool::open(root, config)?.session(name.as_str())?;
    store::worker::serve(socket.into(), session)
}

/// `/var/spool/yubin-mail/USER`, the user's own.
fn make_home(root: &Root, name: &UserName, uid: Uid, gid: Gid) -> Result<(), Fail> {
    let path = root.path(store::spool::STORE).join(name.as_str());
    let doing = || format!("make directory {}", path.display());
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => {}
        // Root's own: whoever made it ended before it was the user's.
        Err(e)
            if e.kind() == std::io::ErrorKind::AlreadyExists
                && path
                    .symlink_metadata()
                    .is_ok_and(|m| m.is_dir() && m.uid() == 0) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => return Err(e).doing(doing),
    }
    lchown(&path, Some(uid.as_raw()), Some(gid.as_raw())).doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_that_a_crash_left_to_root_is_given_to_its_user() {
        if !nix::unistd::geteuid().is_root() {
            return; // nobody else can give a directory away
        }
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let store = root.path(store::spool::STORE);
        std::fs::create_dir_all(store.join("ann")).unwrap();
        std::os::unix::fs::symlink("/", store.join("bob")).unwrap();
        let (uid, gid) = (Uid::from_raw(4711), Gid::from_raw(4712));
        for name in ["ann", "bob", "cy", "cy"] {
            make_home(&root, &UserName::parse(name).unwrap(), uid, gid).unwrap();
        }
        let owner = |path: PathBuf| path.symlink_metadata().unwrap().uid();
        assert_eq!(
            [owner(store.join("ann")), owner(store.join("cy"))],
            [4711; 2]
        );
        assert_eq!([owner("/".into()), owner(store.join("bob"))], [0; 2]);
    }
}
