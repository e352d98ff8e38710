//! The process that becomes a mailbox's user: started by the helper with root's rights, it makes
//! what only root may make, gives everything up, and serves the batches of a while.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::time::Duration;

use account::Users;
use base::privilege::{self, QUEUE_USER};
use base::{Config, Doing, Fail, Root, Status, sys};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};
use store::Spool;

use crate::helper;
use crate::mailbox;
use base::packet::Packets;

/// deliver has a queue, so it does not wait long for a mailbox: it comes back.
const PATIENCE: Duration = Duration::from_secs(2);

/// The configuration with deliver's patience.
pub(crate) fn patient(config: &Config) -> Config {
    let mailbox_lock_timeout = config.mailbox_lock_timeout.min(PATIENCE);
    Config {
        mailbox_lock_timeout,
        ..config.clone()
    }
}

/// What the helper has of the host.
pub(crate) struct Rights<'a> {
    pub(crate) root: &'a Root,
    pub(crate) config: &'a Config,
    pub(crate) users: Users,
    /// [`privilege::MAIL_GROUP`]
    pub(crate) mail: Gid,
}

impl helper::Root for Rights<'_> {
    fn user(&self, name: &str) -> Result<Option<String>, Fail> {
        known(&self.users, name)
    }

    fn work(&self, user: &str, socket: &Packets) -> Result<(), Fail> {
        serve(self, user, socket)
    }
}

/// The name of a user's mailbox.
pub(crate) fn known(users: &Users, name: &str) -> Result<Option<String>, Fail> {
    Ok(users
        .lookup(name)?
        .map(|user| user.name.as_str().to_owned()))
}

/// Becomes `user` for good, then does what deliver asks.
fn serve(rights: &Rights<'_>, user: &str, socket: &Packets) -> Result<(), Fail> {
    let Rights {
        root,
        config,
        users,
        mail,
    } = rights;
    // Looked up again, with root's rights: deliver's word is not enough to become somebody.
    let found = users
        .lookup(user)?
        .ok_or_else(|| Fail::temp(format!("user {user} is gone")))?;
    let (uid, gid) = match found.uid {
        // Nothing is written as root: see deliver(8).
        0 => {
            let queue = privilege::unix_user(QUEUE_USER)?;
            (queue.uid, queue.gid)
        }
        uid => (Uid::from_raw(uid), Gid::from_raw(found.gid)),
    };
    let home = make_home(root, user, uid, gid);
    privilege::become_user(uid, gid, &[*mail])?;
    sys::no_new_privileges().doing(|| "set no_new_privs")?;
    umask(Mode::S_IRWXO);
    let config = patient(config);
    let spool = || match &home {
        Ok(()) => Spool::open(root, &config),
        Err(fail) => {
            Err(Fail::temp(fail.to_string()).with_status(fail.status().unwrap_or(Status::SYSTEM)))
        }
    };
    mailbox::serve(socket, spool, user)
}

/// The user's directory in the store. The directory above is root's, so nobody can put a link in
/// the new one's place.
fn make_home(root: &Root, user: &str, uid: Uid, gid: Gid) -> Result<(), Fail> {
    let store = root.path(store::spool::STORE);
    let home = store.join(user);
    let doing = || format!("make directory {}", home.display());
    if user.is_empty() || user.starts_with('.') || user.contains(['/', '\0']) {
        return Err(Fail::temp(format!("{}: not a user's name", doing())));
    }
    match DirBuilder::new().mode(0o700).create(&home) {
        Ok(()) => {
            std::fs::set_permissions(&home, Permissions::from_mode(0o700)).doing(doing)?;
        }
        // Root's own: whoever made it ended before it was the user's.
        Err(e)
            if e.kind() == io::ErrorKind::AlreadyExists
                && !uid.is_root()
                && home
                    .symlink_metadata()
                    .is_ok_and(|m| m.is_dir() && m.uid() == 0) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => return Err(Fail::io(doing(), e)),
    }
    lchown(&home, Some(uid.as_raw()), Some(gid.as_raw())).doing(doing)
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
            make_home(&root, name, uid, gid).unwrap();
        }
        for (name, owner) in [("ann", 4711), ("bob", 0), ("cy", 4711)] {
            let meta = store.join(name).symlink_metadata().unwrap();
            assert_eq!(meta.uid(), owner, "{name}");
        }
        assert!(make_home(&root, "../x", uid, gid).is_err());
    }
}
