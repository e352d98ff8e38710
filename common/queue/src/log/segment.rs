//! One file of a log: a block that says which generation counts, then batches.
//!
//! A batch is what one sync made durable. It begins at a block of its own, so that no later write
//! touches it, and bears the generation of its segment: when a segment is used again, one write of
//! the first block takes all that stands in it out of force. The file is written full of zeros when
//! it is made, so that a sync finds nothing to do but its data: no new block, no new length, and so
//! no commit of the file system's journal.
//!
//! | where | what |
//! |---|---|
//! | 0 | `yubin log 1⏎`, generation (8), crc32c of both (4); zeros up to 4096 |
//! | a multiple of 4096 | `batch` (5 octets), length of the records (4), generation (8), crc32c of length, generation and records (4), records; zeros up to the next multiple |
//!
//! Numbers are little-endian. A reader looks at every block, so a batch that the disk has lost hides
//! none behind it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use base::Fail;
use base::sys::{self, LockKind};

use crate::dir::Dir;
use crate::id::QueueId;

/// The unit of the disk and of the page cache.
pub(super) const BLOCK: usize = 4096;
/// Before the records of a batch.
const HEAD: usize = 21;
const MAGIC: &[u8] = b"yubin log 1\n";
const BATCH: &[u8; 5] = b"batch";
/// No segment is larger; what claims to be is not read.
const MAX_SIZE: u64 = 1 << 30;

/// Whose log it is: what its records are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Messages, by who accepts them.
    Accept,
    /// What became of them, by who works on them.
    Work,
}

/// The name of a segment: its side, and an id that no other has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) side: Side,
    id: QueueId,
}

impl Name {
    fn new(side: Side) -> Result<Self, Fail> {
        let id = QueueId::generate()?;
        Ok(Self { side, id })
    }

    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        let (side, id) = match name.strip_prefix(b"accept.") {
            Some(id) => (Side::Accept, id),
            None => (Side::Work, name.strip_prefix(b"work.")?),
        };
        let id = QueueId::parse(id).ok()?;
        Some(Self { side, id })
    }

    pub(super) fn file(&self) -> String {
        let side = match self.side {
            Side::Accept => "accept",
            Side::Work => "work",
        };
        format!("{side}.{}", self.id)
    }
}

/// A segment that this process writes, or has taken over; locked.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: Name,
    pub(super) file: File,
    pub(super) generation: u64,
    size: u64,
    /// Where the next batch goes.
    at: u64,
}

impl Segment {
    /// A new one of this many octets, durable with its name.
    pub(super) fn create(dir: &Dir, side: Side, size: u64) -> io::Result<Self> {
        let name = Name::new(side).map_err(io::Error::other)?;
        let (file, named) = match dir.unnamed()? {
            Some(file) => (file, false),
            None => (dir.named(&name.file())?, true),
        };
        let mut segment = Self {
            name,
            file,
            generation: 1,
            size: size.max(2 * BLOCK as u64),
            at: BLOCK as u64,
        };
        let made = segment.fill(dir, named);
        if made.is_err() && named {
            dir.unlink(name.file()).ok();
        }
        made.map(|()| segment)
    }

    fn fill(&mut self, dir: &Dir, named: bool) -> io::Result<()> {
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o660);
        nix::sys::stat::fchmod(&self.file, mode)?;
        if !sys::try_ofd_lock(&self.file, LockKind::Exclusive)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let zeros = vec![0; 256 * 1024];
        let mut at = BLOCK as u64;
        while at < self.size {
            let left = usize::try_from(self.size - at).unwrap_or(usize::MAX);
            let piece = zeros.get(..left.min(zeros.len())).unwrap_or(&zeros);
            self.file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        self.file.write_all_at(&front(self.generation), 0)?;
        if !named {
            dir.link(&self.file, &self.name.file())?;
        }
        self.file.sync_all()?;
        if dir.can_sync() {
            dir.sync().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Octets of records that still fit in one batch.
    pub(super) fn room(&self) -> usize {
        usize::try_from(self.size.saturating_sub(self.at))
            .unwrap_or(0)
            .saturating_sub(HEAD)
    }

    /// Whether nothing was written since it was made or used again.
    pub(super) fn is_fresh(&self) -> bool {
        self.at == BLOCK as u64
    }

    /// Writes a batch, not durable yet. The caller has asked for [`Segment::room`].
    pub(super) fn write(&mut self, records: &[u8]) -> io::Result<()> {
        let length = u32::try_from(records.len()).map_err(io::Error::other)?;
        if records.len() > self.room() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut batch = Vec::with_capacity((HEAD + records.len()).next_multiple_of(BLOCK));
        batch.extend_from_slice(BATCH);
        batch.extend_from_slice(&length.to_le_bytes());
        batch.extend_from_slice(&self.generation.to_le_bytes());
        batch.extend_from_slice(&sum(length, self.generation, records).to_le_bytes());
        batch.extend_from_slice(records);
        batch.resize(batch.len().next_multiple_of(BLOCK), 0);
        let at = self.at;
        // Whatever was written of it, it is not written over: a reader knows it by its sum.
        self.at = at.saturating_add(batch.len() as u64);
        self.file.write_all_at(&batch, at)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Takes all that stands in it out of force, durably, so that it can be written again.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        let next = self.generation.wrapping_add(1);
        self.file.write_all_at(&front(next), 0)?;
        self.file.sync_data()?;
        self.generation = next;
        self.at = BLOCK as u64;
        Ok(())
    }

    /// A segment of a process that is no more: locked, with nothing to be written to it. `None` where
    /// somebody has it, or it is none.
    pub(super) fn take_over(dir: &Dir, name: Name) -> io::Result<Option<Self>> {
        let file = match dir.open_file(
            std::ffi::OsStr::new(&name.file()),
            nix::fcntl::OFlag::O_RDWR,
        ) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || !sys::try_ofd_lock(&file, LockKind::Exclusive)? {
            return Ok(None);
        }
        let generation = generation(&file)?.unwrap_or(0);
        Ok(Some(Self {
            name,
            file,
            generation,
            size: metadata.len(),
            at: metadata.len(),
        }))
    }
}

/// The generation in force; `None` where the file is no segment.
pub(super) fn generation(file: &File) -> io::Result<Option<u64>> {
    let mut block = [0; MAGIC.len() + 12];
    match file.read_exact_at(&mut block, 0) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let Some((number, rest)) = block
        .strip_prefix(MAGIC)
        .and_then(<[u8]>::split_first_chunk::<8>)
    else {
        return Ok(None);
    };
    let generation = u64::from_le_bytes(*number);
    Ok((rest == front_sum(generation).to_le_bytes()).then_some(generation))
}

/// Whether anything was written since this generation began: the first batch comes first.
pub(super) fn has_batch(file: &File, generation: u64) -> bool {
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, BLOCK as u64).is_ok()
        && parse_head(&head).is_some_and(|(_, of, _)| of == generation)
}

/// Every batch in force, in the order of the file, until `each` fails.
pub(super) fn batches(
    file: &File,
    mut each: impl FnMut(&[u8]) -> Result<(), Fail>,
) -> Result<(), Fail> {
    let failed = |e| Fail::io("read the commit log", e);
    let size = file.metadata().map_err(failed)?.len().min(MAX_SIZE);
    let Some(generation) = generation(file).map_err(failed)? else {
        return Ok(());
    };
    let mut at = BLOCK as u64;
    let mut records = Vec::new();
    while at + HEAD as u64 <= size {
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, at).map_err(failed)?;
        let mut blocks = 1;
        if let Some((length, of, expected)) = parse_head(&head)
            && of == generation
            && u64::from(length) + HEAD as u64 + at <= size
        {
            let length_here = usize::try_from(length).unwrap_or(usize::MAX);
            records.resize(length_here, 0);
            file.read_exact_at(&mut records, at + HEAD as u64)
                .map_err(failed)?;
            if sum(length, of, &records) == expected {
                each(&records)?;
                blocks = (HEAD + length_here).div_ceil(BLOCK);
            }
        }
        at += (blocks * BLOCK) as u64;
    }
    Ok(())
}

fn parse_head(head: &[u8; HEAD]) -> Option<(u32, u64, u32)> {
    let rest = head.strip_prefix(BATCH)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let (sum, _) = rest.split_first_chunk::<4>()?;
    Some((
        u32::from_le_bytes(*length),
        u64::from_le_bytes(*generation),
        u32::from_le_bytes(*sum),
    ))
}

fn sum(length: u32, generation: u64, records: &[u8]) -> u32 {
    let head = crc32c::crc32c(&length.to_le_bytes());
    let head = crc32c::crc32c_append(head, &generation.to_le_bytes());
    crc32c::crc32c_append(head, records)
}

fn front_sum(generation: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(MAGIC), &generation.to_le_bytes())
}

/// The first block.
fn front(generation: u64) -> Vec<u8> {
    let mut block = MAGIC.to_vec();
    block.extend_from_slice(&generation.to_le_bytes());
    block.extend_from_slice(&front_sum(generation).to_le_bytes());
    block.resize(BLOCK, 0);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(size: u64) -> (tempfile::TempDir, Dir, Segment) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let segment = Segment::create(&dir, Side::Accept, size).unwrap();
        (temp, dir, segment)
    }

    fn read(file: &File) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        batches(file, |records| {
            found.push(records.to_vec());
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn what_is_written_is_read_until_it_is_renewed() {
        let (_temp, dir, mut segment) = segment(64 * 1024);
        assert!(segment.is_fresh());
        let (small, large) = (b"small".to_vec(), vec![7; 3 * BLOCK]);
        segment.write(&small).unwrap();
        segment.write(&large).unwrap();
        segment.write(b"").unwrap();
        assert_eq!(
            read(&segment.file),
            [small.clone(), large.clone(), Vec::new()]
        );
        segment.renew().unwrap();
        assert_eq!(read(&segment.file), Vec::<Vec<u8>>::new());
        segment.write(b"new").unwrap();
        assert_eq!(read(&segment.file), [b"new"]);
        let room = segment.room();
        assert!(segment.write(&vec![0; room + 1]).is_err());
        segment.write(&vec![1; room]).unwrap();
        assert_eq!((segment.room(), read(&segment.file).len()), (0, 2));
        assert!(Segment::take_over(&dir, segment.name).unwrap().is_none());
        let name = segment.name;
        drop(segment);
        let taken = Segment::take_over(&dir, name).unwrap().unwrap();
        assert_eq!((taken.generation, taken.room()), (2, 0));
        assert_eq!(read(&taken.file).len(), 2);
    }

    #[test]
    fn a_lost_batch_hides_no_other() {
        let (_temp, _dir, mut segment) = segment(64 * 1024);
        let all: Vec<Vec<u8>> = (1..6_u8).map(|n| vec![n; 1500 * usize::from(n)]).collect();
        let mut starts = Vec::new();
        for records in &all {
            starts.push(segment.at);
            segment.write(records).unwrap();
        }
        for (lost, start) in starts.iter().enumerate() {
            let mut byte = [0];
            segment.file.read_exact_at(&mut byte, start + 30).unwrap();
            segment
                .file
                .write_all_at(&[byte[0] ^ 1], start + 30)
                .unwrap();
            let mut left = all.clone();
            left.remove(lost);
            assert_eq!(read(&segment.file), left, "batch {lost}");
            segment.file.write_all_at(&byte, start + 30).unwrap();
        }
    }

    #[test]
    fn torn_anywhere_the_last_batch_is_not_there_and_the_others_are() {
        let (_temp, _dir, mut segment) = segment(32 * 1024);
        segment.write(b"first").unwrap();
        let start = segment.at;
        let long = vec![b'x'; BLOCK + 100];
        segment.write(&long).unwrap();
        let end = start + (HEAD + long.len()) as u64;
        for cut in start..end {
            let mut tail = vec![0; usize::try_from(end - cut).unwrap()];
            segment.file.read_exact_at(&mut tail, cut).unwrap();
            segment
                .file
                .write_all_at(&vec![0; tail.len()], cut)
                .unwrap();
            assert_eq!(read(&segment.file), [b"first"], "cut at {cut}");
            segment.file.write_all_at(&tail, cut).unwrap();
        }
        assert_eq!(read(&segment.file), [b"first".to_vec(), long]);
    }

    #[test]
    fn what_is_no_segment_has_no_batches() {
        for text in [
            &b""[..],
            b"yubin log 1\n",
            b"yubin log 2\nxxxxxxxxxxxxxxxxxx",
        ] {
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, text).unwrap();
            assert_eq!(read(&file), Vec::<Vec<u8>>::new());
        }
        let names = [
            ("accept.1kp9Mp9SFpDQ8X7XfvHs", true),
            ("work.1kp9Mp9SFpDQ8X7XfvHs", true),
            ("accept.", false),
            ("work.x", false),
            ("1kp9Mp9SFpDQ8X7XfvHs", false),
        ];
        for (name, good) in names {
            let parsed = Name::parse(name.as_bytes());
            assert_eq!(parsed.map(|name| name.file()), good.then(|| name.into()));
        }
    }
}
