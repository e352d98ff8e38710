//! Which mailbox is meant: `%` the system's, `+name` a folder, `&` the user's mbox, or a file.

use std::path::{Path, PathBuf};

use base::{Config, Fail, Root, Sysexit};
use store::{FolderName, Spool};

use crate::mailbox::Mailbox;
use crate::settings::Settings;

/// A mailbox by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The system mailbox of a user.
    Inbox(String),
    /// A folder beside it, as IMAP has them.
    Folder(FolderName),
    File(PathBuf),
}

/// Where mailboxes are.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) root: Root,
    pub(crate) config: Config,
    pub(crate) user: String,
}

impl Places {
    /// What `name` means.
    pub(crate) fn parse(&self, name: &str, settings: &Settings) -> Result<Place, Fail> {
        match name.strip_prefix('%') {
            Some("") => return Ok(Place::Inbox(self.user.clone())),
            Some(user) => return Ok(Place::Inbox(user.into())),
            None => {}
        }
        match name.strip_prefix('+') {
            Some(folder) => FolderName::parse(folder)
                .map(Place::Folder)
                .ok_or_else(|| Fail::data(format!("{name}: not a name for a folder"))),
            None => Ok(Place::File(settings.path(name))),
        }
    }

    /// Opens it; `None` where there is nothing.
    pub(crate) fn open(&self, place: &Place) -> Result<Option<Mailbox>, Fail> {
        match place {
            Place::Inbox(user) => {
                let path = self.root.path(store::spool::MAIL).join(user);
                if !exists(&path)? {
                    return Ok(None);
                }
                let session = Spool::open(&self.root, &self.config)?.session(user)?;
                let name = path.display().to_string();
                Mailbox::open(session, FolderName::inbox(), name).map(Some)
            }
            Place::Folder(folder) => {
                let session = Spool::open(&self.root, &self.config)?.session(&self.user)?;
                Mailbox::open(session, folder.clone(), format!("+{folder}")).map(Some)
            }
            Place::File(path) => {
                let missing = || {
                    let text = format!("{}: No such file or directory", path.display());
                    Fail::new(Sysexit::NoInput, text)
                };
                if !exists(path)? {
                    return Err(missing());
                }
                let spool = Spool::open(&self.root, &self.config)?;
                let session = spool.file_session(&self.user, path)?;
                let name = path.display().to_string();
                Mailbox::open(session, FolderName::inbox(), name).map(Some)
            }
        }
    }
}

fn exists(path: &Path) -> Result<bool, Fail> {
    path.try_exists()
        .map_err(|e| Fail::io(format!("open {}", path.display()), e))
}
