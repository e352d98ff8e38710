//! Who runs as whom (DESIGN 1): a daemon that was started by root becomes a user that can do
//! nothing but its work, after it has opened what only root may open.
//!
//! Without root, or in a private root, everybody stays who they are: there is one uid.

use nix::unistd::{Gid, Group, Uid, User, setgroups, setresgid, setresuid};

use crate::fail::{Doing, Fail, Sysexit};
use crate::root::Root;
use crate::sys;

/// smtpd: may create queue files.
pub const SMTP_USER: &str = "yubin-smtp";
/// qrun and deliver: owns the queue.
pub const QUEUE_USER: &str = "yubin";
/// pop3d and imapd: owns nothing.
pub const FRONT_USER: &str = "yubin-front";
/// The group of the spool.
pub const MAIL_GROUP: &str = "mail";

/// Whether this process is to give up root: it has it, and serves the whole host.
pub fn is_installed_root(root: &Root) -> bool {
    !root.is_private() && Uid::effective().is_root()
}

/// Becomes `name` for good, with its own groups and `no_new_privs`. Does nothing unless
/// [`is_installed_root`].
pub fn drop_to(root: &Root, name: &str) -> Result<(), Fail> {
    if !is_installed_root(root) {
        return Ok(());
    }
    let user = unix_user(name)?;
    become_user(user.uid, user.gid, &groups_of(name, user.gid)?)?;
    sys::no_new_privileges().doing(|| "set no_new_privs")
}

/// Becomes a uid with a gid and these groups, for good; checks that there is no way back.
pub fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), Fail> {
    let doing = || format!("become uid {uid} gid {gid}");
    setgroups(groups).doing(doing)?;
    setresgid(gid, gid, gid).doing(doing)?;
    setresuid(uid, uid, uid).doing(doing)?;
    if !uid.is_root() && setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        return Err(Fail::new(
            Sysexit::Software,
            format!("{}: root can be had back", doing()),
        ));
    }
    Ok(())
}

/// A user of the system that yubin itself needs.
pub fn unix_user(name: &str) -> Result<User, Fail> {
    User::from_name(name)
        .doing(|| format!("look up user {name}"))?
        .ok_or_else(|| {
            Fail::new(
                Sysexit::NoUser,
                format!("user {name} does not exist; create it with: systemd-sysusers yubin.conf"),
            )
        })
}

/// The gid of a group that yubin itself needs.
pub fn unix_group(name: &str) -> Result<Gid, Fail> {
    Group::from_name(name)
        .doing(|| format!("look up group {name}"))?
        .map(|g| g.gid)
        .ok_or_else(|| Fail::new(Sysexit::NoUser, format!("group {name} does not exist")))
}

fn groups_of(name: &str, gid: Gid) -> Result<Vec<Gid>, Fail> {
    let c_name = std::ffi::CString::new(name).map_err(|_| Fail::usage("NUL in a user name"))?;
    nix::unistd::getgrouplist(&c_name, gid).doing(|| format!("look up the groups of {name}"))
}
