//! Folders: making, removing, renaming, listing them, and subscriptions.

use std::collections::BTreeSet;

use base::sys::{self, LockKind};
use base::{Doing, Fail};
use nix::fcntl::OFlag;

use super::Session;
use crate::beneath::{self, Dir};
use crate::flags::Flags;
use crate::folder::FolderName;
use crate::mailbox::{self, Mailbox};
use crate::pattern::Pattern;
use crate::request::{Answer, Folder, Status, Why};
use crate::spool::Format;
use crate::trouble::{Result, Trouble};

/// Folders of a user, and his subscriptions.
const MAX_FOLDERS: usize = 10_000;
/// Folders, and levels above them that are none.
const MAX_LEVELS: usize = 3 * MAX_FOLDERS;
const SUBSCRIPTIONS: &str = "subscriptions";

impl Session {
    pub(super) fn status(&mut self, folder: &FolderName) -> Result<Answer> {
        let mut mailbox = Mailbox::open(self.home.place(folder))?;
        mailbox.refresh(false)?;
        let mut status = Status {
            uidvalidity: mailbox.uidvalidity(),
            uidnext: mailbox.uidnext(),
            ..Status::default()
        };
        for item in mailbox.items() {
            status.exists += 1;
            status.recent += u32::from(item.recent);
            status.unseen += u32::from(!item.flags.has(Flags::SEEN));
        }
        Ok(Answer::Status(status))
    }

    /// All that are there, in the order of their names.
    fn folders(&self) -> Result<BTreeSet<FolderName>> {
        let dir = &self.home.folders;
        let names = dir
            .list()
            .doing(|| format!("read {}", dir.path().display()))?;
        Ok(names
            .iter()
            .filter_map(|(file, _)| FolderName::from_file_name(file))
            .collect())
    }

    pub(super) fn list(&self, pattern: &Pattern) -> Result<Answer> {
        let there = self.folders()?;
        let mut names = there.clone();
        for folder in &there {
            names.extend(levels_above(folder));
            if names.len() > MAX_LEVELS {
                let text = format!("more than {MAX_LEVELS} levels of folders");
                return Err(Trouble::new(Why::Cannot, text));
            }
        }
        let inbox = FolderName::inbox();
        names.remove(&inbox);
        let all = std::iter::once(inbox).chain(names);
        let matching = all.filter(|name| pattern.matches(name));
        Ok(Answer::Folders(
            matching.map(|name| described(name, &there)).collect(),
        ))
    }

    pub(super) fn lsub(&self, pattern: &Pattern) -> Result<Answer> {
        let there = self.folders()?;
        let subscribed = read_subscriptions(&self.home.own)?;
        let mut shown = Vec::new();
        let mut levels = BTreeSet::new();
        for name in &subscribed {
            if pattern.matches(name) {
                shown.push(described(name.clone(), &there));
            } else if pattern.ends_at_a_level() {
                let above = levels_above(name);
                levels.extend(above.filter(|level| !subscribed.contains(level)));
            }
        }
        let matching = levels.into_iter().filter(|level| pattern.matches(level));
        shown.extend(matching.map(|name| Folder {
            name,
            selectable: false,
            children: true,
        }));
        Ok(Answer::Folders(shown))
    }

    pub(super) fn create(&mut self, folder: &FolderName) -> Result<Answer> {
        let place = self.home.place(folder);
        if folder.is_inbox() || place.format()?.is_some() {
            return Err(exists(folder));
        }
        if self.folders()?.len() >= MAX_FOLDERS {
            let text = format!("more than {MAX_FOLDERS} folders");
            return Err(Trouble::new(Why::Cannot, text));
        }
        mailbox::create(&place)?;
        Ok(Answer::Done)
    }

    pub(super) fn delete(&mut self, folder: &FolderName) -> Result<Answer> {
        if folder.is_inbox() {
            return Err(Trouble::new(Why::Cannot, "INBOX cannot be deleted"));
        }
        let place = self.home.place(folder);
        let dir = &place.dir;
        let doing = || format!("remove {}", dir.at(&place.name));
        match place.format()? {
            None => return Err(missing(folder)),
            Some(Format::Mbox) => dir.unlink(&place.name).doing(doing)?,
            Some(Format::Maildir) => {
                // Gone for everybody in one step; then its files at leisure.
                let aside = format!(".{}.{}", place.name, beneath::unique());
                let aside = aside
                    .get(aside.len().saturating_sub(240)..)
                    .unwrap_or(".removed");
                dir.rename(&place.name, dir, aside).doing(doing)?;
                dir.sync()?;
                remove_maildir(dir, aside)?;
            }
        }
        dir.sync()?;
        remove_journal(&self.home.journals, &folder.file_name())?;
        Ok(Answer::Done)
    }

    pub(super) fn rename(&mut self, from: &FolderName, to: &FolderName) -> Result<Answer> {
        let target = self.home.place(to);
        if to.is_inbox() || target.format()?.is_some() {
            return Err(exists(to));
        }
        if to.is_below(from) && !from.is_inbox() {
            let text = format!("{to} lies below {from}");
            return Err(Trouble::new(Why::Cannot, text));
        }
        if from.is_inbox() {
            mailbox::create(&target)?;
            self.move_all(from, to)?;
            return Ok(Answer::Done);
        }
        let mut moves = Vec::new();
        for folder in self.folders()? {
            if folder != *from && !folder.is_below(from) {
                continue;
            }
            let Some(new) = folder.moved(from, to) else {
                return Err(Trouble::new(Why::Cannot, "a name gets too long"));
            };
            if self.home.place(&new).format()?.is_some() {
                return Err(exists(&new));
            }
            moves.push((folder, new));
        }
        if moves.is_empty() {
            return Err(missing(from));
        }
        for (folder, new) in moves {
            self.rename_one(&folder, &new)?;
        }
        Ok(Answer::Done)
    }

    fn rename_one(&self, from: &FolderName, to: &FolderName) -> Result<()> {
        let (place, target) = (self.home.place(from), self.home.place(to));
        // Nothing promised may be left in the journal of the old name.
        Mailbox::open(place.clone())?.refresh(false)?;
        let journals = &self.home.journals;
        remove_journal(journals, &to.file_name())?;
        let doing = || format!("rename {}", journals.at(&from.file_name()));
        journals
            .rename(&from.file_name(), journals, &to.file_name())
            .doing(doing)?;
        journals.sync()?;
        let doing = || format!("rename {}", place.dir.at(&place.name));
        place
            .dir
            .rename(&place.name, &target.dir, &target.name)
            .doing(doing)?;
        Ok(place.dir.sync()?)
    }

    pub(super) fn subscribe(&mut self, folder: &FolderName, on: bool) -> Result<Answer> {
        let dir = &self.home.own;
        let name = "subscriptions.lock";
        let doing = || format!("lock {}", dir.at(name));
        let lock = dir
            .file(name, OFlag::O_CREAT | OFlag::O_RDWR, 0o600)
            .doing(doing)?;
        let mut tries = 0;
        while !sys::try_ofd_lock(&lock, LockKind::Exclusive).doing(doing)? {
            tries += 1;
            if tries > 200 {
                return Err(Trouble::new(Why::InUse, format!("{}: in use", doing())));
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let mut names = read_subscriptions(dir)?;
        let changed = if on {
            names.insert(folder.clone())
        } else {
            names.remove(folder)
        };
        if names.len() > MAX_FOLDERS {
            let text = format!("more than {MAX_FOLDERS} subscriptions");
            return Err(Trouble::new(Why::Cannot, text));
        }
        if changed {
            let text: String = names.iter().map(|n| format!("{n}\n")).collect();
            dir.replace(SUBSCRIPTIONS, text.as_bytes(), 0o600)?;
        }
        Ok(Answer::Done)
    }
}

/// The levels of the hierarchy above a folder; some may be no folders.
fn levels_above(folder: &FolderName) -> impl Iterator<Item = FolderName> {
    let name = folder.as_str();
    let ends = name.match_indices('/').map(|(at, _)| at);
    ends.filter_map(move |at| FolderName::parse(name.get(..at)?))
}

fn described(name: FolderName, there: &BTreeSet<FolderName>) -> Folder {
    Folder {
        selectable: name.is_inbox() || there.contains(&name),
        children: name.has_below(there),
        name,
    }
}

fn read_subscriptions(own: &Dir) -> std::result::Result<BTreeSet<FolderName>, Fail> {
    let bytes = own.read(SUBSCRIPTIONS, 4 << 20)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    Ok(text
        .lines()
        .filter_map(FolderName::parse)
        .take(MAX_FOLDERS)
        .collect())
}

fn remove_maildir(dir: &Dir, name: &str) -> Result<()> {
    let maildir = dir
        .directory(name)
        .doing(|| format!("open {}", dir.at(name)))?;
    for sub in ["tmp", "new", "cur"] {
        if let Ok(files) = maildir.directory(sub) {
            remove_files(&files)?;
            maildir
                .remove_directory(sub)
                .doing(|| format!("remove {}", maildir.at(sub)))?;
        }
    }
    remove_files(&maildir)?;
    Ok(dir
        .remove_directory(name)
        .doing(|| format!("remove {}", dir.at(name)))?)
}

fn remove_files(dir: &Dir) -> Result<()> {
    for (file, _) in dir
        .list()
        .doing(|| format!("read {}", dir.path().display()))?
    {
        dir.unlink(&file)
            .doing(|| format!("remove {}", dir.at(&file)))?;
    }
    Ok(())
}

/// Removes what is remembered of a folder that is no more. That its UIDVALIDITY is not given
/// again, the user's own counter sees to.
fn remove_journal(journals: &Dir, name: &str) -> Result<()> {
    match journals.directory(name) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        dir => remove_files(&dir.doing(|| format!("open {}", journals.at(name)))?)?,
    }
    journals
        .remove_directory(name)
        .doing(|| format!("remove {}", journals.at(name)))?;
    Ok(journals.sync()?)
}

fn exists(folder: &FolderName) -> Trouble {
    Trouble::new(Why::Exists, format!("folder {folder} exists"))
}

fn missing(folder: &FolderName) -> Trouble {
    Trouble::new(Why::NoSuchFolder, format!("folder {folder} does not exist"))
}
