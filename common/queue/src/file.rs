//! A queue file, read: the head (origin, envelope, recipients), the content, END, the journal.
//!
//! The order of records is fixed: one origin (a drop file has none), one envelope, the recipients,
//! content in chunks of [`CHUNK`] bytes, END with the length of the content and checksums of
//! everything before it, then the journal for as long as its records are sound. What stands behind
//! the last sound journal record is a torn append: the next writer cuts it off.

use std::fmt;
use std::fs::File;
use std::io;

use base::envelope::{Body, Notify, Ret};
use base::{Address, Envelope, Recipient, ReversePath};

use crate::event::Record;
use crate::fields::{self, Fields};
use crate::frame::{self, CHUNK, HEADER, Kind, MAGIC, Scanner, VERSION};
use crate::origin::Origin;
use crate::queue::Lane;
use crate::state::State;

/// More recipients than this are never written and never read.
pub(crate) const MAX_RECIPIENTS: usize = 100_000;
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
    /// The lane it was made for.
    pub(crate) lane: Option<Lane>,
    pub(crate) state: State,
    /// Where the first content record starts.
    pub(crate) content_at: u64,
    pub(crate) content_length: u64,
    pub(crate) content_sum: u32,
    /// Where the last sound record ends: the place of the next journal record.
    pub(crate) end: u64,
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
        lane: wishes.lane,
        state: State::new(recipients),
        content_at: 0,
        content_length: 0,
        content_sum: 0,
        end: 0,
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

/// The END record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) content_length: u64,
    /// crc32c of the content.
    pub(crate) content_sum: u32,
    /// crc32c of the file up to this record.
    pub(crate) whole: u32,
}

impl End {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = fields::Writer::default();
        out.number(LENGTH, self.content_length);
        out.number(CONTENT_SUM, self.content_sum.into());
        out.number(WHOLE_SUM, self.whole.into());
        out.finish()
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let fields = Fields::read(payload)?;
        Some(Self {
            content_length: fields.number(LENGTH)?,
            content_sum: u32::try_from(fields.number(CONTENT_SUM)?).ok()?,
            whole: u32::try_from(fields.number(WHOLE_SUM)?).ok()?,
        })
    }
}

/// The envelope record: everything but the recipients.
pub(crate) struct Wishes {
    pub(crate) reverse_path: Option<ReversePath>,
    pub(crate) body: Body,
    pub(crate) ret: Option<Ret>,
    pub(crate) envid: Option<String>,
    pub(crate) lane: Option<Lane>,
}

impl Wishes {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = fields::Writer::default();
        if let Some(reverse_path) = &self.reverse_path {
            out.bytes(REVERSE_PATH, reverse_path.to_string().as_bytes());
        }
        out.number(
            BODY,
            match self.body {
                Body::SevenBit => 7,
                Body::EightBitMime => 8,
            },
        );
        match self.ret {
            Some(Ret::Full) => out.number(RET, 1),
            Some(Ret::Headers) => out.number(RET, 2),
            None => (),
        }
        if let Some(envid) = &self.envid {
            out.bytes(ENVID, envid.as_bytes());
        }
        if let Some(lane) = self.lane {
            out.bytes(LANE, lane.as_str().as_bytes());
        }
        out.finish()
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let fields = Fields::read(payload)?;
        Some(Self {
            reverse_path: match fields.text(REVERSE_PATH) {
                Some(path) if path.is_empty() => Some(ReversePath::Null),
                Some(path) => Some(ReversePath::Address(Address::parse(&path).ok()?)),
                None => None,
            },
            body: match fields.number(BODY)? {
                7 => Body::SevenBit,
                8 => Body::EightBitMime,
                _ => return None,
            },
            ret: match fields.number(RET) {
                None => None,
                Some(1) => Some(Ret::Full),
                Some(2) => Some(Ret::Headers),
                Some(_) => return None,
            },
            envid: fields.text(ENVID),
            lane: match fields.text(LANE) {
                Some(lane) => Some(Lane::parse(&lane)?),
                None => None,
            },
        })
    }
}

pub(crate) fn encode_recipient(recipient: &Recipient) -> Vec<u8> {
    let mut out = fields::Writer::default();
    out.bytes(ADDRESS, recipient.address.to_string().as_bytes());
    if let Some(orcpt) = &recipient.orcpt {
        out.bytes(ORCPT, orcpt.as_bytes());
    }
    out.number(
        NOTIFY,
        match recipient.notify {
            Notify::Never => 0,
            Notify::On {
                success,
                failure,
                delay,
            } => 8 | u64::from(success) | u64::from(failure) << 1 | u64::from(delay) << 2,
        },
    );
    out.finish()
}

fn decode_recipient(payload: &[u8]) -> Option<Recipient> {
    let fields = Fields::read(payload)?;
    Some(Recipient {
        address: Address::parse(&fields.text(ADDRESS)?).ok()?,
        orcpt: fields.text(ORCPT),
        notify: match fields.number(NOTIFY)? {
            0 => Notify::Never,
            bits @ 8..16 => Notify::On {
                success: bits & 1 != 0,
                failure: bits & 2 != 0,
                delay: bits & 4 != 0,
            },
            _ => return None,
        },
    })
}

// Fields of the records of version 1. A number is never used again for something else.
const REVERSE_PATH: u8 = 1;
const BODY: u8 = 2;
const RET: u8 = 3;
const ENVID: u8 = 4;
const LANE: u8 = 5;

const ADDRESS: u8 = 1;
const ORCPT: u8 = 2;
const NOTIFY: u8 = 3;

const LENGTH: u8 = 1;
const CONTENT_SUM: u8 = 2;
const WHOLE_SUM: u8 = 3;
