//! The store worker: a process that became the user who logged in, and serves the store's requests
//! on a socket. `checkpw` starts it by executing itself, so that no fork happens beside threads.
//!
//! In a private root, or without root, there is one uid and no worker: the daemon opens the spool.

use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use base::{Config, Doing, Fail, Root, Sysexit, privilege, sys};
use nix::unistd::{Gid, Uid, chown};

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
        Ok(()) => chown(&path, Some(uid), Some(gid)).doing(doing),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e).doing(doing),
    }
}
