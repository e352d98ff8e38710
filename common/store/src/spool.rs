//! Where a user's mail is: the INBOX in /var/spool/mail, all else in /var/spool/yubin-mail/USER.
//!
//! | path | what |
//! |---|---|
//! | `mail/USER` | INBOX: an mbox file or a Maildir directory; what is there decides |
//! | `yubin-mail/USER/folders/NAME` | the other folders, the same two ways |
//! | `yubin-mail/USER/subscriptions` | one folder's name a line |
//! | `yubin-mail/USER/idx` | caches; may go at any time |
//! | `yubin-mail/USER/jnl/NAME` | redo files and reserved UIDs: promises, not caches |
//! | `yubin-mail/USER/files/HASH` | the same of mailboxes that the user opened elsewhere |
//!
//! A spool root that is missing (a disk that is not mounted) is a temporary failure, and nothing is
//! made in its place.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use base::{Config, Doing, Fail, Root};

use crate::beneath::{Dir, Kind};
use crate::folder::FolderName;
use crate::lock::Locks;
use crate::request::Why;
use crate::session::Session;
use crate::trouble::{Result, Trouble};

/// INBOXes.
pub const MAIL: &str = "/var/spool/mail";
/// The rest.
pub const STORE: &str = "/var/spool/yubin-mail";

/// The spool of this host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spool {
    mail: Dir,
    store: Dir,
    settings: Settings,
}

/// What of the configuration the engine needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) maildir: bool,
    pub(crate) locks: Locks,
    /// Octets of one message.
    pub(crate) max_message: u64,
}

impl Spool {
    /// Opens the two roots. In a private root the second is made if only the first is there.
    pub fn open(root: &Root, config: &Config) -> std::result::Result<Self, Fail> {
        let mail = Dir::root(&root.path(MAIL))?;
        let path = root.path(STORE);
        let store = match Dir::root(&path) {
            Err(e) if root.is_private() && e.kind() == Some(std::io::ErrorKind::NotFound) => {
                std::fs::create_dir(&path)
                    .or_else(|e| if path.is_dir() { Ok(()) } else { Err(e) })
                    .doing(|| format!("make directory {}", path.display()))?;
                Dir::root(&path)?
            }
            other => other?,
        };
        let settings = Settings {
            maildir: config.maildir,
            locks: Locks::new(config),
            max_message: config.message_size_limit,
        };
        Ok(Self {
            mail,
            store,
            settings,
        })
    }

    /// A session on one user's mail. The user's directories are made if they are not there and
    /// this process may.
    pub fn session(&self, user: &str) -> std::result::Result<Session, Fail> {
        Ok(Session::new(self.home(user)?))
    }

    /// A session of `user` whose INBOX is the mailbox at `path`, anywhere: `mail -f`. Links on the
    /// way are followed, as for any file that a user names. His folders are his folders.
    pub fn file_session(&self, user: &str, path: &Path) -> std::result::Result<Session, Fail> {
        let doing = || format!("open {}", path.display());
        let path = std::fs::canonicalize(path).doing(doing)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let (Some(dir), Some(name)) = (path.parent(), name) else {
            return Err(Fail::usage(format!("{}: not a mailbox", path.display())));
        };
        let home = self.home(user)?;
        let files = home.own.make_directory("files", 0o700)?;
        let own = format!("{:016x}", fnv1a(path.as_os_str().as_bytes()));
        Ok(Session::new(Home {
            mail: Dir::root(dir)?,
            inbox: name.into(),
            inbox_journals: files.make_directory(&own, 0o700)?,
            ..home
        }))
    }

    pub(crate) fn home(&self, user: &str) -> Result<Home> {
        if !is_user(user) {
            let text = format!("user {user:?}: not a name that can have a mailbox");
            return Err(Trouble::new(Why::Bad, text));
        }
        let own = self.store.make_directory(user, 0o700)?;
        let journals = own.make_directory("jnl", 0o700)?;
        Ok(Home {
            mail: self.mail.clone(),
            folders: own.make_directory("folders", 0o700)?,
            inbox_journals: journals.clone(),
            journals,
            own,
            user: user.into(),
            inbox: user.into(),
            settings: self.settings,
        })
    }
}

/// FNV-1a: a name for a path that is the same in every version of this program.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Whether a user's name can be a file's beside others' locks and temporary files.
fn is_user(user: &str) -> bool {
    (1..=128).contains(&user.len())
        && !user.starts_with('.')
        && !user.contains(['/', '\0'])
        && !user.chars().any(char::is_control)
        && !user.contains(".lock")
}

/// One user's mail.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    mail: Dir,
    pub(crate) own: Dir,
    pub(crate) folders: Dir,
    pub(crate) journals: Dir,
    user: Arc<str>,
    /// The INBOX's name in `mail`: the user's, but for a mailbox that is elsewhere.
    inbox: Arc<str>,
    /// Its journals, which are not among the folders' where it is elsewhere.
    inbox_journals: Dir,
    pub(crate) settings: Settings,
}

/// Where one folder is, whether it exists or not.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) folder: FolderName,
    /// The directory that holds it.
    pub(crate) dir: Dir,
    /// Its name there.
    pub(crate) name: String,
    /// All of the user's journals, with the counter of UIDVALIDITY.
    pub(crate) journals: Dir,
    pub(crate) settings: Settings,
}

/// The two ways to keep messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Mbox,
    Maildir,
}

impl Home {
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn place(&self, folder: &FolderName) -> Place {
        let inbox = folder.is_inbox();
        Place {
            folder: folder.clone(),
            dir: if inbox {
                self.mail.clone()
            } else {
                self.folders.clone()
            },
            name: if inbox {
                self.inbox.to_string()
            } else {
                folder.file_name()
            },
            journals: if inbox {
                self.inbox_journals.clone()
            } else {
                self.journals.clone()
            },
            settings: self.settings,
        }
    }
}

impl Place {
    /// What is there; `None` for nothing.
    pub(crate) fn format(&self) -> Result<Option<Format>> {
        let at = || self.dir.at(&self.name);
        match self
            .dir
            .kind(&self.name)
            .doing(|| format!("look at {}", at()))?
        {
            Kind::File => Ok(Some(Format::Mbox)),
            Kind::Directory => Ok(Some(Format::Maildir)),
            Kind::Nothing => Ok(None),
            Kind::Other => Err(Trouble::new(
                Why::Temporary,
                format!(
                    "{} is a link or a special file; put a file or a directory there",
                    at()
                ),
            )),
        }
    }

    /// How it is made if it is not there.
    pub(crate) fn format_of_new(&self) -> Format {
        if self.settings.maildir {
            Format::Maildir
        } else {
            Format::Mbox
        }
    }

    /// The directory of its redo file and reserved UIDs.
    pub(crate) fn journal(&self) -> Result<Dir> {
        Ok(self
            .journals
            .make_directory(&self.folder.file_name(), 0o700)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_users() {
        for name in [
            "",
            ".",
            "..",
            ".ann",
            "a/b",
            "ann.lock",
            "ann.lock.1-2",
            "a\nb",
        ] {
            assert!(!is_user(name), "{name:?}");
        }
        assert!(is_user("ann") && is_user("ann.lee@example.org"));
    }

    #[test]
    fn an_unmounted_spool_is_a_temporary_failure_and_stays_empty() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let config = Config::parse(&root, "", Path::new("yubin.def")).unwrap();
        let fail = Spool::open(&root, &config).unwrap_err();
        assert_eq!(fail.code(), base::Sysexit::TempFail);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
