//! Adding messages to a Maildir: written and synced in tmp/, then given a name in new/ or cur/.

use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{Doing, Fail};
use nix::fcntl::OFlag;

use super::name::Name;
use super::{Maildir, directories};
use crate::append::{New, Redo};
use crate::beneath::{self, Dir};
use crate::lines::{Event, Lines};
use crate::mailbox::Copied;
use crate::request::Why;
use crate::spool::Place;
use crate::trouble::{Result, Trouble};

/// One message as it will be.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) length: u64,
    pub(crate) checksum: u32,
    name: Name,
    /// A message with flags goes to cur/, since names in new/ have none.
    marked: bool,
}

/// Messages that are about to be written. Nothing is locked: each has its own file.
#[derive(Debug)]
pub(crate) struct Pending {
    dirs: [Dir; 3],
    pub(crate) files: Vec<Planned>,
}

pub(crate) fn begin(place: &Place, new: &mut [New<'_>]) -> Result<Pending> {
    let (_, dirs) = directories(place)?;
    let mut files = Vec::with_capacity(new.len());
    for message in new {
        let keywords = match message.keywords.as_slice() {
            [] => 0,
            some => Maildir::open(place.clone())?.learn_keywords(some)?,
        };
        files.push(plan(message, keywords)?);
    }
    Ok(Pending { dirs, files })
}

/// The name that a delivery's file begins with, whenever it is tried.
fn unique(new: &New<'_>) -> String {
    format!(
        "{}.{}.{}",
        new.date.max(0),
        new.delivery_id,
        beneath::host()
    )
}

fn plan(new: &mut New<'_>, keywords: u64) -> Result<Planned> {
    let (mut length, mut wire, mut checksum) = (0, 0, 0);
    each_stored(new, |piece, wire_length| {
        length += piece.len() as u64;
        wire += wire_length;
        checksum = crc32c::crc32c_append(checksum, piece);
        Ok(())
    })?;
    let mut name = Name::new(unique(new), length, wire);
    let marked = keywords != 0 || new.flags.bits() != 0;
    if marked {
        name.mark(new.flags, keywords);
    }
    Ok(Planned {
        length,
        checksum,
        name,
        marked,
    })
}

/// The octets of a message as they are stored, with how many each piece will be when it is served.
fn each_stored(
    new: &mut New<'_>,
    mut with: impl FnMut(&[u8], u64) -> std::result::Result<(), Fail>,
) -> Result<()> {
    let mut lines = Lines::default();
    let mut out = Vec::new();
    let mut wire = 0;
    let sink = |out: &mut Vec<u8>, wire: &mut u64, event: Event<'_>| match event {
        Event::Head(octets) | Event::Rest(octets) => {
            out.extend_from_slice(octets);
            *wire += octets.len() as u64;
        }
        Event::End(eol) if eol.len() > 0 => {
            out.push(b'\n');
            *wire += 2;
        }
        Event::End(_) => {}
    };
    new.each_piece(|piece| {
        lines.feed(piece, &mut |event| sink(&mut out, &mut wire, event));
        with(&out, std::mem::take(&mut wire))?;
        out.clear();
        Ok(())
    })?;
    lines.finish(&mut |event| sink(&mut out, &mut wire, event));
    Ok(with(&out, wire)?)
}

impl Pending {
    /// Writes, syncs, names. On an error what was named is removed again.
    pub(crate) fn commit(self, new: &mut [New<'_>]) -> Result<()> {
        let mut named = Vec::new();
        let done = self.write(new, &mut named);
        if done.is_err() {
            for (in_new, file) in named {
                let [_, new, cur] = &self.dirs;
                // The error that is returned says what is wrong.
                if in_new { new } else { cur }.unlink(&file).ok();
            }
        }
        done
    }

    fn write(&self, new: &mut [New<'_>], named: &mut Vec<(bool, String)>) -> Result<()> {
        let [tmp, dir_new, dir_cur] = &self.dirs;
        for (planned, message) in self.files.iter().zip(new) {
            let temporary = planned.name.unique.clone();
            write_file(tmp, &temporary, message, planned)?;
            let (to, file) = (
                if planned.marked { dir_cur } else { dir_new },
                planned.name.format(),
            );
            let linked = publish(tmp, &temporary, to, &file);
            tmp.unlink(&temporary)
                .or_else(not_found)
                .doing(|| format!("remove {}", tmp.at(&temporary)))?;
            linked.doing(|| format!("name {}", to.at(&file)))?;
            named.push((!planned.marked, file));
        }
        dir_new.sync()?;
        Ok(dir_cur.sync()?)
    }
}

/// Gives a finished file its name. link(2) does not replace; where there are no links, rename(2)
/// does, but the name is this delivery's own.
fn publish(tmp: &Dir, temporary: &str, to: &Dir, file: &str) -> io::Result<()> {
    match tmp.link(temporary, to, file) {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
            ) =>
        {
            tmp.rename(temporary, to, file)
        }
        linked => linked,
    }
}

fn not_found(e: io::Error) -> io::Result<()> {
    if e.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(e)
    }
}

/// A whole, synced file in tmp/. One that a crash left under this name is replaced: the delivery
/// id is ours alone.
fn write_file(tmp: &Dir, name: &str, new: &mut New<'_>, planned: &Planned) -> Result<()> {
    let doing = || format!("write {}", tmp.at(name));
    tmp.unlink(name).or_else(not_found).doing(doing)?;
    let mut file: File = tmp
        .file(
            name,
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY,
            0o600,
        )
        .doing(doing)?;
    let write = || -> Result<()> {
        let mut checksum = 0;
        each_stored(new, |piece, _| {
            checksum = crc32c::crc32c_append(checksum, piece);
            file.write_all(piece).doing(doing)
        })?;
        if checksum != planned.checksum {
            let text = "the message changed while it was delivered";
            return Err(Trouble::new(Why::Temporary, text));
        }
        let date = Duration::from_secs(u64::try_from(new.date).unwrap_or(0).min(1 << 40));
        file.set_modified(UNIX_EPOCH + date).doing(doing)?;
        Ok(file.sync_all().doing(doing)?)
    };
    let written = { write }();
    if written.is_err() {
        // Unfinished; the error that is returned says why.
        tmp.unlink(name).ok();
    }
    written
}

/// After a crash: whether the delivery's file has its name.
pub(crate) fn redo(place: &Place, new: &New<'_>) -> Result<Redo> {
    let (_, [tmp, dir_new, dir_cur]) = directories(place)?;
    let unique = unique(new);
    // A file may go from new/ to cur/ between the two readings; so new/ is read first.
    for dir in [&dir_new, &dir_cur] {
        let names = dir
            .list()
            .doing(|| format!("read {}", dir.path().display()))?;
        if names
            .iter()
            .any(|(file, _)| Name::parse(file).is_some_and(|n| n.unique == unique))
        {
            dir.sync()?;
            return Ok(Redo::Done);
        }
    }
    tmp.unlink(&unique)
        .or_else(not_found)
        .doing(|| format!("remove {}", tmp.at(&unique)))?;
    Ok(Redo::NotThere)
}

impl Maildir {
    /// Adds messages, all or none; their UIDs.
    pub(crate) fn append(&mut self, messages: &mut [Copied]) -> Result<Vec<u32>> {
        self.refresh(false)?;
        let mut keywords = Vec::with_capacity(messages.len());
        for message in messages.iter() {
            keywords.push(self.learn_keywords(&message.keywords)?);
        }
        // Until the files have their names: no one may see a later UID before these.
        let lock = self.uid_lock()?;
        self.ensure_uidvalidity()?;
        let first = self.take_uids(messages.len())?;
        let mut uids = Vec::with_capacity(messages.len());
        let mut files = Vec::new();
        let mut new: Vec<New<'_>> = messages.iter_mut().map(New::copied).collect();
        for ((message, uid), keywords) in new.iter_mut().zip(first..).zip(keywords) {
            message.delivery_id = beneath::unique();
            let mut planned = plan(message, keywords)?;
            (planned.name.uid, planned.name.uidvalidity) = (uid, self.uidvalidity);
            // The time in the name is when it came here, not when it was received.
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            planned.name.unique = format!(
                "{}.{}.{}",
                now.as_secs(),
                message.delivery_id,
                beneath::host()
            );
            files.push(planned);
            uids.push(uid);
        }
        let (_, dirs) = directories(&self.place)?;
        Pending { dirs, files }.commit(&mut new)?;
        drop(lock);
        self.read = None;
        if let Err(trouble) = self.refresh(false) {
            // They are stored: a no would make the client send again. The next look reads them.
            log::debug!("{}", trouble.fail);
        }
        Ok(uids)
    }
}
