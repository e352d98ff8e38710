//! Adding messages to an mbox: at its end, under its locks, in one write and one sync, and
//! recognisable after a crash.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use base::sys::LockKind;
use base::{Doing, Fail};

use super::edit::Want;
use super::render::{Form, Render};
use super::scan::{self, Found, Record, Serve};
use super::{Mbox, field, recover, uids};
use crate::append::{New, Redo, Stamp};
use crate::base_file::{self, Base, LAST_UID};
use crate::beneath::Dir;
use crate::body::Body;
use crate::flags::Table;
use crate::lock::MailLock;
use crate::mailbox::Copied;
use crate::request::Why;
use crate::spool::Place;
use crate::trouble::{Result, Trouble};

/// Octets that are rendered in memory; a larger message is rendered twice.
const IN_MEMORY: u64 = 8 << 20;
/// Where the X-IMAPbase of the first message must stand for an append to find it.
const FIRST_HEADER: u64 = 256 << 10;

/// One message as it will stand in the file.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) stamp: Stamp,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) checksum: u32,
    /// Its octets, unless they are many.
    octets: Option<Vec<u8>>,
}

/// Messages that are about to be written, and the locks.
#[derive(Debug)]
pub(crate) struct Pending {
    place: Place,
    lock: MailLock,
    size: u64,
    pub(crate) rendered: Vec<Rendered>,
    /// Where the last UID stands in the file, and its new digits.
    last: Option<(u64, String)>,
}

/// Locks the mbox, which is made if it is not there, and renders the messages.
pub(crate) fn begin(place: &Place, new: &mut [New<'_>]) -> Result<Pending> {
    if place.format()?.is_none() {
        super::create(place)?;
    }
    let lock = lock(place)?;
    begin_locked(place, lock, new)
}

fn lock(place: &Place) -> Result<MailLock> {
    let locks = place.settings.locks;
    let lock = MailLock::beneath(&place.dir, &place.name, LockKind::Exclusive, locks)?;
    recover::recover(&place.journal()?, lock.file())?;
    Ok(lock)
}

fn begin_locked(place: &Place, lock: MailLock, new: &mut [New<'_>]) -> Result<Pending> {
    let at = || place.dir.at(&place.name);
    let size = lock
        .file()
        .metadata()
        .doing(|| format!("look at {}", at()))?
        .len();
    let base = match size {
        0 => Some((uids::base_of_empty(place)?, None)),
        _ => find_base(lock.file()).doing(|| format!("read {}", at()))?,
    };
    let journal = place.journal()?;
    let kept = Base::read(&journal)?;
    // As `believe` does it: a file from a backup must not make us give UIDs again.
    let base = base
        .map(|((uidvalidity, last), at)| ((uidvalidity, Base::last(kept, uidvalidity, last)), at));
    let count = u32::try_from(new.len()).unwrap_or(u32::MAX);
    // Where no UID can be given, the next reader gives it.
    let base = base.filter(|((_, last), _)| last.saturating_add(count) <= LAST_UID);
    let mut before = missing_end(lock.file(), size).doing(|| format!("read {}", at()))?;
    let (mut rendered, mut offset, mut in_memory) = (Vec::new(), size, 0);
    let end = base.map_or(0, |((_, last), _)| last + count);
    if let Some(((uidvalidity, _), _)) = base {
        base_file::reserve_beyond(&journal, kept, uidvalidity, end)?;
    }
    let mut uid = base.map_or(0, |((_, last), _)| last);
    for message in new {
        uid += u32::from(base.is_some());
        let stamp = Stamp {
            uidvalidity: base.map_or(0, |((uidvalidity, _), _)| uidvalidity),
            uid,
            last: if size == 0 && rendered.is_empty() {
                end
            } else {
                0
            },
            date: message.date,
            before: std::mem::take(&mut before),
        };
        let one = render(message, stamp, offset, &mut in_memory)?;
        offset += one.length;
        rendered.push(one);
    }
    let last = match base {
        Some((_, Some((at, width)))) => Some((at, format!("{end:0width$}"))),
        _ => None,
    };
    Ok(Pending {
        place: place.clone(),
        lock,
        size,
        rendered,
        last,
    })
}

/// UIDVALIDITY and the last UID, and where and how wide the latter stands, if it can be written
/// over.
type FoundBase = ((u32, u32), Option<(u64, usize)>);

/// Looks in the first message's header, which is short as a rule.
fn find_base(file: &File) -> io::Result<Option<FoundBase>> {
    for most in [8 << 10, FIRST_HEADER] {
        let mut text = Vec::new();
        scan::each_piece(file, 0, most, |piece| text.extend_from_slice(piece))?;
        let mut at = 0;
        for line in text
            .split_inclusive(|b| *b == b'\n')
            .filter(|l| l.ends_with(b"\n"))
        {
            let bare = line.trim_ascii_end();
            if bare.is_empty() && at > 0 {
                return Ok(None);
            }
            if let Some((field::Field::Base | field::Field::Pseudo, value)) = field::parse(bare)
                && let Some((uidvalidity, last, _)) = field::base(value)
            {
                let (before, width) = last_digits(value);
                let place = (at + bare.len() - value.len() + before) as u64;
                let found = ((uidvalidity, last), Some((place, width)));
                // Ten digits hold every UID; a shorter number cannot always be written over.
                return Ok((width >= 10).then_some(found));
            }
            at += line.len();
        }
    }
    Ok(None)
}

/// Where in an X-IMAPbase's value the last UID stands, and how many digits it has.
fn last_digits(value: &[u8]) -> (usize, usize) {
    let run = |from: usize, digits: bool| {
        let rest = value.get(from..).unwrap_or_default();
        rest.iter()
            .take_while(|b| b.is_ascii_digit() == digits)
            .count()
    };
    let first = run(0, false);
    let gap = first + run(first, true);
    let last = gap + run(gap, false);
    (last, run(last, true))
}

/// What the file lacks before a From_ line can begin: the end of a line, an empty line.
fn missing_end(file: &File, size: u64) -> io::Result<&'static str> {
    let mut end = Vec::new();
    scan::each_piece(file, size.saturating_sub(2), size, |piece| {
        end.extend_from_slice(piece);
    })?;
    Ok(match end.as_slice() {
        [] | [b'\n', b'\n'] => "",
        [.., b'\n'] => "\n",
        _ => "\n\n",
    })
}

fn render(new: &mut New<'_>, stamp: Stamp, offset: u64, in_memory: &mut u64) -> Result<Rendered> {
    let mut octets = Some(Vec::new());
    let (mut length, mut checksum) = (0, 0);
    each_rendered(new, &stamp, |piece| {
        length += piece.len() as u64;
        checksum = crc32c::crc32c_append(checksum, piece);
        match &mut octets {
            Some(all) if *in_memory + length <= IN_MEMORY => all.extend_from_slice(piece),
            _ => octets = None,
        }
        Ok(())
    })?;
    *in_memory += octets.as_ref().map_or(0, |_| length);
    Ok(Rendered {
        stamp,
        offset,
        length,
        checksum,
        octets,
    })
}

/// The octets of a message in its mbox form, in pieces.
fn each_rendered(
    new: &mut New<'_>,
    stamp: &Stamp,
    mut with: impl FnMut(&[u8]) -> std::result::Result<(), Fail>,
) -> Result<()> {
    let no_eol = !new.ends_a_line()?;
    let form = Form {
        before: stamp.before.as_bytes(),
        reverse_path: &new.reverse_path,
        date: stamp.date,
        delivery_id: &new.delivery_id,
        no_eol,
        want: Want {
            uid: stamp.uid,
            uidvalidity: stamp.uidvalidity,
            last: (stamp.last > 0).then_some(stamp.last),
            flags: new.flags,
            old: false,
            keywords: new.keywords.clone(),
        },
    };
    let mut render = Render::new(&form);
    new.each_piece(|piece| with(&render.feed(piece)))?;
    Ok(with(&render.finish())?)
}

impl Pending {
    /// Writes, syncs, and lets go of the locks. On an error the file is cut to its old size.
    pub(crate) fn commit(self, new: &mut [New<'_>]) -> Result<()> {
        let written = self.write(new);
        if let Err(trouble) = written {
            let doing = || format!("cut {} back", self.place.dir.at(&self.place.name));
            self.lock.file().set_len(self.size).doing(doing)?;
            return Err(trouble);
        }
        Ok(())
    }

    fn write(&self, new: &mut [New<'_>]) -> Result<()> {
        let file = self.lock.file();
        let doing = || format!("write {}", self.place.dir.at(&self.place.name));
        if let Some((at, digits)) = &self.last {
            file.write_all_at(digits.as_bytes(), *at).doing(doing)?;
        }
        let mut together = Vec::new();
        for (one, message) in self.rendered.iter().zip(new) {
            match &one.octets {
                Some(octets) => together.extend_from_slice(octets),
                None => {
                    let at = one.offset - together.len() as u64;
                    file.write_all_at(&together, at).doing(doing)?;
                    together.clear();
                    write_rendered(file, one, message).doing(doing)?;
                }
            }
        }
        let end = self
            .rendered
            .last()
            .map_or(self.size, |one| one.offset + one.length);
        file.write_all_at(&together, end - together.len() as u64)
            .doing(doing)?;
        Ok(file.sync_data().doing(doing)?)
    }
}

/// Writes a message that was too large to be kept since it was rendered first.
fn write_rendered(file: &File, one: &Rendered, new: &mut New<'_>) -> std::result::Result<(), Fail> {
    let (mut at, mut checksum) = (one.offset, 0);
    each_rendered(new, &one.stamp, |piece| {
        file.write_all_at(piece, at).doing(|| "append")?;
        at += piece.len() as u64;
        checksum = crc32c::crc32c_append(checksum, piece);
        Ok(())
    })?;
    if at == one.offset + one.length && checksum == one.checksum {
        Ok(())
    } else {
        Err(Fail::temp("the message changed while it was delivered"))
    }
}

/// After a crash: whether the message stands in the mbox. A torn tail of ours is cut.
pub(crate) fn redo(
    place: &Place,
    offset: u64,
    length: u64,
    checksum: u32,
    stamp: &Stamp,
    new: &mut New<'_>,
) -> Result<Redo> {
    let lock = lock(place)?;
    let file = lock.file();
    let doing = || format!("look for a delivery in {}", place.dir.at(&place.name));
    let size = file.metadata().doing(doing)?.len();
    let end = offset.saturating_add(length);
    if size >= end {
        let mut sum = 0;
        scan::each_piece(file, offset, end, |piece| {
            sum = crc32c::crc32c_append(sum, piece);
        })
        .doing(doing)?;
        if sum == checksum {
            file.sync_data().doing(doing)?;
            return Ok(Redo::Done);
        }
    } else if size == offset {
        return Ok(Redo::NotThere);
    } else if size > offset && is_prefix(file, offset, size, stamp, new)? {
        file.set_len(offset).doing(doing)?;
        file.sync_all().doing(doing)?;
        return Ok(Redo::NotThere);
    }
    let found = search(place, file, size, new)?;
    if found == Redo::Done {
        file.sync_data().doing(doing)?;
    }
    Ok(found)
}

/// Whether everything from `offset` to the end is the beginning of what we would have written.
fn is_prefix(
    file: &File,
    offset: u64,
    size: u64,
    stamp: &Stamp,
    new: &mut New<'_>,
) -> Result<bool> {
    let (mut at, mut same) = (offset, true);
    each_rendered(new, stamp, |piece| {
        let within = usize::try_from(size.saturating_sub(at))
            .unwrap_or(usize::MAX)
            .min(piece.len());
        let ours = piece.get(..within).unwrap_or_default();
        let mut there = vec![0; within];
        file.read_exact_at(&mut there, at)
            .doing(|| "read the tail")?;
        same &= there == ours;
        at += within as u64;
        Ok(())
    })?;
    Ok(same && at == size)
}

/// Looks for a whole message of this delivery anywhere in the file; other programs may have
/// changed its flags or moved it.
fn search(place: &Place, file: &File, size: u64, new: &mut New<'_>) -> Result<Redo> {
    let journal = place.journal()?;
    let expected = expected(&journal, new)?;
    let found = scan::scan(file, 0, size, Found::default(), &mut Table::default());
    let Ok(found) = found else {
        let text = format!("{} cannot be read as an mbox", place.dir.at(&place.name));
        return Err(Trouble::new(Why::Temporary, text));
    };
    let same = |r: &&Record| r.hash == expected.0 && r.item.size == expected.1.size();
    for record in found.records.iter().filter(same) {
        if has_id(file, record, &new.delivery_id)? {
            let mut there = Body::new(&journal);
            serve(file, record, &mut there)?;
            if equal(&there, &expected.1)? {
                return Ok(Redo::Done);
            }
        }
    }
    Ok(Redo::NotThere)
}

/// What readers are to see of the message, and the hash of its header.
fn expected(journal: &Dir, new: &mut New<'_>) -> Result<(u64, Body)> {
    let doing = || format!("make a temporary file in {}", journal.path().display());
    let file = journal.temporary().doing(doing)?;
    let mut at = 0;
    each_rendered(new, &Stamp::default(), |piece| {
        file.write_all_at(piece, at).doing(doing)?;
        at += piece.len() as u64;
        Ok(())
    })?;
    let mut body = Body::new(journal);
    let found = scan::scan(&file, 0, at, Found::default(), &mut Table::default());
    let record = found
        .ok()
        .and_then(|found| found.records.into_iter().next())
        .unwrap_or_default();
    serve(&file, &record, &mut body)?;
    Ok((record.hash, body))
}

fn serve(file: &File, record: &Record, body: &mut Body) -> Result<()> {
    let mut serve = Serve::default();
    let mut pushed = Ok(());
    scan::each_piece(file, record.header, record.end, |piece| {
        let out = serve.feed(piece);
        if pushed.is_ok() {
            pushed = body.push(&out);
        }
    })
    .doing(|| "read the mailbox")?;
    pushed?;
    body.push(&serve.finish().0)?;
    body.truncate(record.item.size);
    Ok(())
}

fn equal(one: &Body, two: &Body) -> Result<bool> {
    let mut at = 0;
    while at < one.size().max(two.size()) {
        if one.piece(at, scan::PIECE)? != two.piece(at, scan::PIECE)? {
            return Ok(false);
        }
        at += scan::PIECE as u64;
    }
    Ok(true)
}

fn has_id(file: &File, record: &Record, id: &str) -> Result<bool> {
    let mut header = Vec::new();
    let end = record.header + record.header_length.min(64 << 20);
    scan::each_piece(file, record.header, end, |piece| {
        header.extend_from_slice(piece);
    })
    .doing(|| "read the mailbox")?;
    Ok(header.split(|b| *b == b'\n').any(|line| {
        matches!(field::parse(line), Some((field::Field::DeliveryId, value)) if value.trim_ascii() == id.as_bytes())
    }))
}

impl Mbox {
    /// Adds messages, all or none; their UIDs, or none where the next reader is to give them.
    pub(crate) fn append(&mut self, messages: &mut [Copied]) -> Result<Vec<u32>> {
        let lock = self.exclusive(false)?;
        let mut new: Vec<New<'_>> = messages.iter_mut().map(New::copied).collect();
        let pending = begin_locked(&self.place, lock, &mut new)?;
        let uids: Vec<u32> = pending.rendered.iter().map(|r| r.stamp.uid).collect();
        pending.commit(&mut new)?;
        if let Err(trouble) = self.refresh(false) {
            // They are stored, whoever has the lock now: a no would make the client send again.
            log::debug!("{}", trouble.fail);
        }
        let given = !uids.contains(&0);
        Ok(if given { uids } else { Vec::new() })
    }
}
