//! A queue file, read: the head (origin, envelope, recipients), the content, END, the journal.
//!
//! The order of records is fixed: one origin (a drop file has none), one envelope, the recipients,
//! content in chunks of [`CHUNK`] bytes, END with the length of the content and checksums of
//! everything before it, then the journal for as long as its records are sound. Behind the last sound
//! journal record are zeros, the room of the next; anything else there is a torn append, which the
//! next writer cuts off.

use std::fmt;
use std::fs::File;
use std::io;

use base::envelope::{Body, Needs, Ret};
use base::release::Release;
use base::{Envelope, Filter, ReversePath};

use crate::event::Record;
use crate::frame::{self, CHUNK, HEADER, Kind, MAGIC, Scanner, VERSION};
use crate::origin::Origin;
use crate::queue::Lane;
use crate::records::{End, Wishes, decode_recipient};
use crate::state::State;

/// More recipients than this are never written and never read.
pub const MAX_RECIPIENTS: usize = 100_000;
/// How many journal records [`Depth::History`] keeps: the last ones.
const MAX_HISTORY: usize = 10_000;

/// Why a file cannot be read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// The disk's fault; perhaps another time.
    Io(io::Error),
    /// A newer program wrote it: leave it alone.
    Newer(u32),
    /// It is not what was committed, for this reason.
    Damaged(&'static str),
}

impl From<io::Error> for Unreadable {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "{e}"),
            Self::Newer(version) => {
                write!(
                    f,
                    "queue file of version {version}, this program knows {VERSION}: upgrade it"
                )
            }
            Self::Damaged(reason) => f.write_str(reason),
        }
    }
}

/// How much of a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// All, with every checksum.
    Verify,
    /// All but the bytes of the content.
    Skim,
    /// Like `Skim`, and the journal's records are kept.
    History,
}

/// What stands in a file.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) origin: Option<Origin>,
    /// None where sendmail(1) left the sender to qrun.
    pub(crate) reverse_path: Option<ReversePath>,
    pub(crate) body: Body,
    pub(crate) ret: Option<Ret>,
    pub(crate) envid: Option<String>,
    pub(crate) needs: Needs,
    pub(crate) release: Option<Release>,
    pub(crate) filter: Option<Filter>,
    /// The lane it was made for.
    pub(crate) lane: Option<Lane>,
    pub(crate) state: State,
    /// Where the first content record starts.
    pub(crate) content_at: u64,
    pub(crate) content_length: u64,
    pub(crate) content_sum: u32,
    /// Where the last sound record ends: the place of the next journal record.
    pub(crate) end: u64,
    /// Zeros behind that.
    pub(crate) room: u64,
    /// Something else is behind that.
    pub(crate) torn: bool,
    pub(crate) history: Vec<Record>,
}

impl Contents {
    /// The envelope as it was accepted; `None` when it has no sender (only in drop/).
    pub(crate) fn envelope(&self) -> Option<Envelope> {
        Some(Envelope {
            reverse_path: self.reverse_path.clone()?,
            recipients: self
                .state
                .recipients
                .iter()
                .map(|r| r.recipient.clone())
                .collect(),
            body: self.body,
            ret: self.ret,
            envid: self.envid.clone(),
            needs: self.needs,
            release: self.release,
            filter: self.filter.clone(),
        })
    }
}

/// Reads a file. Whatever it holds, the answer is one of [`Unreadable`] or sound.
pub(crate) fn read(file: &File, depth: Depth) -> Result<Contents, Unreadable> {
    let mut scanner = Scanner::new(file, 0);
    let mut whole = 0;
    version(&mut scanner, &mut whole)?;
    let mut contents = head(&mut scanner, &mut whole)?;
    contents.content_at = scanner.at();
    let end = match depth {
        Depth::Verify => content(&mut scanner, &mut whole)?,
        Depth::Skim | Depth::History => skim_content(&mut scanner)?,
    };
    let sums = expect(&mut scanner, Kind::End, None, End::decode)?;
    if sums.content_length != end.content_length
        || (depth == Depth::Verify && (sums.content_sum != end.content_sum || sums.whole != whole))
    {
        return Err(Unreadable::Damaged("content is not what END says"));
    }
    contents.content_length = sums.content_length;
    contents.content_sum = sums.content_sum;
    journal(&mut scanner, &mut contents, depth)?;
    contents.end = scanner.at();
    let tail = scanner.peek(frame::MAX_ROOM + 1)?;
    contents.torn = tail.len() > frame::MAX_ROOM || tail.iter().any(|byte| *byte != 0);
    contents.room = if contents.torn { 0 } else { tail.len() as u64 };
    Ok(contents)
}

/// The origin alone, of a file that may be cut off behind it.
pub(crate) fn read_origin(file: &File) -> Option<Origin> {
    let mut scanner = Scanner::new(file, 0);
    let mut whole = 0;
    version(&mut scanner, &mut whole).ok()?;
    expect(&mut scanner, Kind::Origin, None, Origin::decode).ok()
}

/// `yubin queue 1` and a newline.
fn version(scanner: &mut Scanner<'_>, whole: &mut u32) -> Result<(), Unreadable> {
    let line = scanner.peek(MAGIC.len() + 11)?;
    let damaged = Unreadable::Damaged("not a queue file");
    let Some(rest) = line.strip_prefix(MAGIC) else {
        return Err(damaged);
    };
    let Some(digits) = memchr::memchr(b'\n', rest).and_then(|end| rest.get(..end)) else {
        return Err(damaged);
    };
    let number = std::str::from_utf8(digits)
        .ok()
        .and_then(|d| d.parse::<u32>().ok());
    match number {
        Some(VERSION) => (),
        Some(newer) if newer > VERSION => return Err(Unreadable::Newer(newer)),
        _ => return Err(damaged),
    }
    let length = MAGIC.len() + digits.len() + 1;
    *whole = crc32c::crc32c_append(*whole, line.get(..length).unwrap_or_default());
    scanner.skip(length);
    Ok(())
}

/// Takes the next record if it is a sound one of `kind`; its bytes go into `whole`.
fn expect<T>(
    scanner: &mut Scanner<'_>,
    kind: Kind,
    whole: Option<&mut u32>,
    decode: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<T, Unreadable> {
    match scanner.record()? {
        Some((head, payload)) if head.kind == kind => {
            let length = HEADER + payload.len();
            let value = decode(payload).ok_or(Unreadable::Damaged("a record makes no sense"))?;
            if let Some(whole) = whole {
                *whole = crc32c::crc32c_append(*whole, scanner.peek(length)?);
            }
            scanner.skip(length);
            Ok(value)
        }
        Some(_) => Err(Unreadable::Damaged(
            "a record is missing or in the wrong place",
        )),
        None => Err(Unreadable::Damaged("a record is cut off or damaged")),
    }
}

fn next_kind(scanner: &mut Scanner<'_>) -> Result<Option<Kind>, Unreadable> {
    Ok(frame::Head::parse(scanner.peek(HEADER)?).map(|head| head.kind))
}

/// Origin, envelope, recipients.
fn head(scanner: &mut Scanner<'_>, whole: &mut u32) -> Result<Contents, Unreadable> {
    let origin = match next_kind(scanner)? {
        Some(Kind::Origin) => Some(expect(scanner, Kind::Origin, Some(whole), Origin::decode)?),
        _ => None,
    };
    let wishes = expect(scanner, Kind::Envelope, Some(whole), Wishes::decode)?;
    let mut recipients = Vec::new();
    while next_kind(scanner)? == Some(Kind::Recipient) {
        if recipients.len() == MAX_RECIPIENTS {
            return Err(Unreadable::Damaged("too many recipients"));
        }
        recipients.push(expect(
            scanner,
            Kind::Recipient,
            Some(whole),
            decode_recipient,
        )?);
    }
    if recipients.is_empty() {
        return Err(Unreadable::Damaged("no recipient"));
    }
    Ok(Contents {
        origin,
        reverse_path: wishes.reverse_path,
        body: wishes.body,
        ret: wishes.ret,
        envid: wishes.envid,
        needs: wishes.needs,
        release: wishes.release,
        filter: wishes.filter,
        lane: wishes.lane,
        state: State::new(recipients),
        content_at: 0,
        content_length: 0,
        content_sum: 0,
        end: 0,
        room: 0,
        torn: false,
        history: Vec::new(),
    })
}

/// All chunks, each with its checksum; all but the last are full.
fn content(scanner: &mut Scanner<'_>, whole: &mut u32) -> Result<End, Unreadable> {
    let mut end = End::default();
    let mut last = CHUNK;
    while next_kind(scanner)? == Some(Kind::Content) {
        if last != CHUNK {
            return Err(Unreadable::Damaged(
                "a short piece of content before the last",
            ));
        }
        last = expect(scanner, Kind::Content, Some(whole), |payload| {
            end.content_sum = crc32c::crc32c_append(end.content_sum, payload);
            (!payload.is_empty()).then_some(payload.len())
        })?;
        end.content_length += last as u64;
    }
    Ok(end)
}

/// Hops from header to header.
fn skim_content(scanner: &mut Scanner<'_>) -> Result<End, Unreadable> {
    let mut end = End::default();
    while let Some(head) = frame::Head::parse(scanner.peek(HEADER)?) {
        if head.kind != Kind::Content {
            break;
        }
        end.content_length += head.length as u64;
        scanner.seek(scanner.at().saturating_add((HEADER + head.length) as u64));
    }
    Ok(end)
}

/// Records for as long as they are sound.
fn journal(scanner: &mut Scanner<'_>, into: &mut Contents, depth: Depth) -> Result<(), Unreadable> {
    while let Some((head, payload)) = scanner.record()? {
        if head.kind != Kind::Journal {
            break;
        }
        let length = HEADER + payload.len();
        // What is whole but makes no sense was not written by us; what follows cannot be trusted.
        let Ok(record) = Record::decode(payload) else {
            break;
        };
        scanner.skip(length);
        let Some(record) = record else {
            continue;
        };
        into.state.apply(&record);
        if depth == Depth::History {
            if into.history.len() >= 2 * MAX_HISTORY {
                into.history.drain(..MAX_HISTORY);
            }
            into.history.push(record);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::event::tests::samples;
    use crate::queue::Place;
    use crate::queue::tests::{claimed, put, scratch};
    use base::envelope::Notify;
    use std::io::{Read, Write};

    /// A message with one journal record of each kind, up to its last record, and where END ends.
    fn sample(content: &[u8]) -> (Vec<u8>, u64, Vec<Event>) {
        let (_dir, queue) = scratch();
        let id = put(&queue, Lane::Local, content);
        let path = queue.path().join("local").join(id.as_str());
        let mut entry = claimed(&queue, Lane::Local, &id);
        let end_at = entry.contents.end;
        let events = samples();
        for event in &events {
            entry.record(std::slice::from_ref(event)).unwrap();
        }
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(usize::try_from(entry.contents.end).unwrap());
        (bytes, end_at, events)
    }

    fn read_bytes(bytes: &[u8], depth: Depth) -> Result<Contents, Unreadable> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read(&file, depth)
    }

    fn history(contents: &Contents) -> Vec<Event> {
        contents.history.iter().map(|r| r.event.clone()).collect()
    }

    #[test]
    fn cut_anywhere_it_is_damaged_or_has_every_event_before_the_cut() {
        let (bytes, end_at, events) = sample(b"Subject: x\r\n\r\nhello\r\n");
        let mut seen = 0;
        for cut in 0..=bytes.len() {
            let part = &bytes[..cut];
            match read_bytes(part, Depth::Verify) {
                Ok(contents) => assert!(cut as u64 >= end_at && contents.end <= cut as u64),
                Err(Unreadable::Damaged(_)) => assert!((cut as u64) < end_at, "cut at {cut}"),
                Err(other) => panic!("{other}"),
            }
            if let Ok(contents) = read_bytes(part, Depth::History) {
                let history = history(&contents);
                assert!(history.len() >= seen && events.starts_with(&history));
                seen = history.len();
                // Zeros behind the cut are what a file system leaves that grew the file too early;
                // a record that ends in zeros may be made whole by them.
                let zeros = read_bytes(&[part, &[0; 100]].concat(), Depth::History).unwrap();
                let zeros = self::history(&zeros);
                assert!(events.starts_with(&zeros) && zeros.len() >= history.len());
            }
        }
        assert_eq!(seen, events.len());
    }

    #[test]
    fn any_flipped_bit_is_damage_before_end_and_the_end_of_the_journal_behind() {
        let (bytes, end_at, events) = sample(b"hello\r\n");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let behind = (bit / 8) as u64 >= end_at;
            match read_bytes(&bad, Depth::Verify) {
                Ok(_) => assert!(behind, "bit {bit}"),
                Err(Unreadable::Damaged(_)) => assert!(!behind, "bit {bit}"),
                // The version's own bits: a newer program's file stays where it is.
                Err(Unreadable::Newer(_)) => assert!(bit / 8 < 14, "bit {bit}"),
                Err(Unreadable::Io(e)) => panic!("{e}"),
            }
            if behind {
                let history = history(&read_bytes(&bad, Depth::History).unwrap());
                assert!(events.starts_with(&history) && history.len() < events.len());
            }
        }
    }

    #[test]
    fn the_journal_is_written_over_zeros() {
        for length in [0, 1, 3000, 3900, 4096, 70_000] {
            let (_dir, queue) = scratch();
            let id = put(&queue, Lane::Local, &vec![b'x'; length]);
            let path = queue.path().join("local").join(id.as_str());
            let size = || std::fs::metadata(&path).unwrap().len();
            let new = size();
            let mut entry = claimed(&queue, Lane::Local, &id);
            let contents = &entry.contents;
            assert!(
                contents.room >= frame::ROOM as u64 && !contents.torn,
                "{length}"
            );
            assert_eq!((new % 4096, contents.end + contents.room), (0, new));
            let mut records = 0;
            while entry.contents.room >= 300 {
                entry.record(&samples()[..1]).unwrap();
                records += 1;
                assert_eq!(size(), new);
            }
            while size() == new {
                entry.record(&samples()[..1]).unwrap();
                records += 1;
            }
            assert_eq!(size(), new + 4096);
            drop(entry);
            let entry = claimed(&queue, Lane::Local, &id);
            assert_eq!(entry.contents.end + entry.contents.room, size());
            let view = queue.view(&id).unwrap().unwrap();
            assert_eq!(view.history.len(), records);
        }
    }

    #[test]
    fn what_is_not_zero_behind_the_journal_is_torn() {
        let (bytes, ..) = sample(b"x");
        for (tail, torn) in [
            (&b""[..], false),
            (&[0; 4096], false),
            (&[0; 10_000], true),
            (b"\0\0\0J", true),
            (b"J", true),
        ] {
            let contents = read_bytes(&[&bytes, tail].concat(), Depth::Verify).unwrap();
            assert_eq!(contents.torn, torn, "{}", tail.len());
        }
    }

    #[test]
    fn chunks_are_verified_and_streamed() {
        let content: Vec<u8> = (0..=250).cycle().take(2 * CHUNK + 77).collect();
        let (bytes, end_at, _) = sample(&content);
        let contents = read_bytes(&bytes, Depth::Verify).unwrap();
        assert_eq!(contents.content_length, content.len() as u64);
        for at in (0..usize::try_from(end_at).unwrap()).step_by(997) {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(read_bytes(&bad, Depth::Verify).is_err(), "byte {at}");
        }
        // A chunk that is missing or doubled is noticed although each of them is sound.
        let start = usize::try_from(contents.content_at).unwrap();
        let chunk = start..start + HEADER + CHUNK;
        let doubled = [
            &bytes[..chunk.end],
            &bytes[chunk.clone()],
            &bytes[chunk.end..],
        ]
        .concat();
        let missing = [&bytes[..chunk.start], &bytes[chunk.end..]].concat();
        for bad in [doubled, missing] {
            assert!(read_bytes(&bad, Depth::Verify).is_err());
            assert!(read_bytes(&bad, Depth::Skim).is_err());
        }
    }

    #[test]
    fn skimming_sees_what_verifying_sees() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let (bytes, _, _) = sample(&vec![b'x'; length]);
            let (a, b) = (
                read_bytes(&bytes, Depth::Verify).unwrap(),
                read_bytes(&bytes, Depth::Skim).unwrap(),
            );
            assert_eq!(
                (a.content_length, a.content_sum, a.end),
                (b.content_length, b.content_sum, b.end)
            );
            assert_eq!(a.state.recipients, b.state.recipients);
        }
    }

    #[test]
    fn what_is_no_queue_file_is_damaged_and_what_is_newer_is_not() {
        let magic = frame::magic_line();
        let cases: [&[u8]; 6] = [
            b"",
            b"From ann",
            b"yubin queue ",
            b"yubin queue x\n",
            b"yubin queue 0\n",
            &magic,
        ];
        for bytes in cases {
            assert!(
                matches!(
                    read_bytes(bytes, Depth::Verify),
                    Err(Unreadable::Damaged(_))
                ),
                "{bytes:?}"
            );
        }
        assert!(matches!(
            read_bytes(b"yubin queue 2\n", Depth::Verify),
            Err(Unreadable::Newer(2))
        ));
    }

    #[test]
    fn all_wishes_come_back() {
        let (_dir, queue) = scratch();
        let mut envelope =
            crate::queue::tests::envelope(&["bob@example.org", "\"e v e\"@[192.0.2.1]"]);
        envelope.reverse_path = ReversePath::Null;
        envelope.body = Body::EightBitMime;
        envelope.ret = Some(Ret::Headers);
        envelope.envid = Some("id+3D1".into());
        envelope.recipients[0].notify = Notify::Never;
        envelope.recipients[1].notify = Notify::On {
            success: true,
            failure: false,
            delay: true,
        };
        envelope.recipients[1].orcpt = Some("rfc822;x@y".into());
        let origin = Origin::now(crate::Source::Submission { uid: 7 });
        let draft = queue.draft(Lane::Relay, &envelope, &origin).unwrap();
        let id = queue.commit(vec![draft.finish().unwrap()]).unwrap()[0];
        let entry = claimed(&queue, Lane::Relay, &id);
        assert_eq!(*entry.envelope(), envelope);
        assert_eq!(entry.origin().source, origin.source);
        assert_eq!(entry.size(), 0);
        let mut content = Vec::new();
        entry.content().read_to_end(&mut content).unwrap();
        assert_eq!(content, b"");
        assert_eq!(queue.find(&id).unwrap(), Some(Place::Relay));
    }
}
