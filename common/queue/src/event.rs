//! What happened to a message: the records of its journal.
//!
//! The journal is the only memory of an entry. What must be known together after a crash stands in
//! one record, because a record is there whole or not at all: a recipient that became two children
//! is one [`Event::Became`].

use std::path::PathBuf;
use std::time::SystemTime;

use base::Status;

use crate::fields::{self, Fields};
use crate::id::QueueId;
use crate::queue::Lane;

/// One thing that happened. Recipients are named by their place in [`crate::Entry::recipients`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// In a mailbox, or accepted by the next host.
    Delivered { recipient: usize, attempt: Attempt },
    /// Not this time; `next` is when it will be tried again.
    Deferred {
        recipient: usize,
        attempt: Attempt,
        next: SystemTime,
    },
    /// Never.
    Failed { recipient: usize, attempt: Attempt },
    /// What is going to be appended where: durable before the first byte is.
    Intent(Intent),
    /// These recipients are the children's business now. Written by [`crate::Entry::spawn`].
    Became {
        recipients: Vec<usize>,
        children: Vec<Child>,
    },
    /// The sender was told, by the children. Written by [`crate::Entry::spawn`], or by hand with no
    /// children when nobody wants to be told.
    Reported {
        recipients: Vec<usize>,
        report: Report,
        children: Vec<Child>,
    },
    /// The message moved to the other lane.
    HandedOver { lane: Lane },
    /// Put aside, out of this lane.
    Held { lane: Lane, reason: String },
    /// Back from `hold/` or `damaged/`; of one that is in neither, that it need not wait for the time
    /// that its sender asked for.
    Released,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// RFC 3463
    pub status: Status,
    /// The peer's reply with its code, or our own reason: `550 5.1.1 no such user`.
    pub reply: String,
    /// Who said so, `mx.example.org[192.0.2.1]:25`, or where it was put, `/var/spool/mail/ann`.
    pub host: Option<String>,
}

/// An append that is about to be made, with all that recognises it afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub recipient: usize,
    /// The id of this delivery, which stands in the delivered message too.
    pub delivery: String,
    /// The mailbox.
    pub path: PathBuf,
    /// Where the mailbox ended before.
    pub offset: u64,
    /// How many bytes are appended.
    pub length: u64,
    /// Of those bytes, in the store's own kind.
    pub checksum: u64,
    /// What else the store wants to read again at a redo. Opaque here, at most 64 KiB.
    pub note: Vec<u8>,
}

/// A message that was made out of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    pub id: QueueId,
    pub lane: Lane,
}

/// What the sender was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    Failure,
    Delay,
    Success,
    /// Not a report on delivery: vacation and its kin.
    Reply,
}

/// An event with its time and the program that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub at: SystemTime,
    pub by: String,
    pub event: Event,
}

/// Text beyond this is cut before it is written: a peer's reply is as long as the peer likes.
const MAX_TEXT: usize = 4096;
/// The store's note beyond this would be a mistake; it is refused by [`Event::is_sound`].
const MAX_NOTE: usize = 64 * 1024;

impl Event {
    /// Whether the journal can hold it.
    pub(crate) fn is_sound(&self) -> bool {
        match self {
            Self::Intent(intent) => intent.note.len() <= MAX_NOTE,
            _ => true,
        }
    }
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = fields::Writer::default();
        out.time(TIME, self.at);
        out.bytes(BY, cut(&self.by));
        match &self.event {
            Event::Delivered { recipient, attempt } => {
                out.number(KIND, DELIVERED);
                write_attempt(&mut out, *recipient, attempt);
            }
            Event::Deferred {
                recipient,
                attempt,
                next,
            } => {
                out.number(KIND, DEFERRED);
                write_attempt(&mut out, *recipient, attempt);
                out.time(NEXT, *next);
            }
            Event::Failed { recipient, attempt } => {
                out.number(KIND, FAILED);
                write_attempt(&mut out, *recipient, attempt);
            }
            Event::Intent(intent) => write_intent(&mut out, intent),
            Event::Became {
                recipients,
                children,
            } => {
                out.number(KIND, BECAME);
                write_family(&mut out, recipients, children);
            }
            Event::Reported {
                recipients,
                report,
                children,
            } => {
                out.number(KIND, REPORTED);
                out.number(REPORT, report.number());
                write_family(&mut out, recipients, children);
            }
            Event::HandedOver { lane } => {
                out.number(KIND, HANDED_OVER);
                out.bytes(LANE, lane.as_str().as_bytes());
            }
            Event::Held { lane, reason } => {
                out.number(KIND, HELD);
                out.bytes(LANE, lane.as_str().as_bytes());
                out.bytes(REPLY, cut(reason));
            }
            Event::Released => out.number(KIND, RELEASED),
        }
        out.finish()
    }

    /// `Ok(None)` for a kind of event that a later version added; `Err` for nonsense.
    pub(crate) fn decode(payload: &[u8]) -> Result<Option<Self>, ()> {
        let fields = Fields::read(payload).ok_or(())?;
        let kind = fields.number(KIND).ok_or(())?;
        if !(DELIVERED..=RELEASED).contains(&kind) {
            return Ok(None);
        }
        let event = read_event(kind, &fields).ok_or(())?;
        let at = fields.time(TIME).ok_or(())?;
        Ok(Some(Self {
            at,
            by: fields.text(BY).unwrap_or_default(),
            event,
        }))
    }
}

fn read_event(kind: u64, fields: &Fields<'_>) -> Option<Event> {
    Some(match kind {
        DELIVERED => Event::Delivered {
            recipient: read_recipient(fields)?,
            attempt: read_attempt(fields)?,
        },
        DEFERRED => Event::Deferred {
            recipient: read_recipient(fields)?,
            attempt: read_attempt(fields)?,
            next: fields.time(NEXT)?,
        },
        FAILED => Event::Failed {
            recipient: read_recipient(fields)?,
            attempt: read_attempt(fields)?,
        },
        INTENT => Event::Intent(read_intent(fields)?),
        BECAME => Event::Became {
            recipients: read_recipients(fields)?,
            children: read_children(fields)?,
        },
        REPORTED => Event::Reported {
            recipients: read_recipients(fields)?,
            report: Report::from_number(fields.number(REPORT)?)?,
            children: read_children(fields)?,
        },
        HANDED_OVER => Event::HandedOver {
            lane: read_lane(fields)?,
        },
        HELD => Event::Held {
            lane: read_lane(fields)?,
            reason: fields.text(REPLY).unwrap_or_default(),
        },
        RELEASED => Event::Released,
        _ => return None,
    })
}

fn write_attempt(out: &mut fields::Writer, recipient: usize, attempt: &Attempt) {
    out.number(RECIPIENT, index(recipient));
    out.bytes(STATUS, attempt.status.to_string().as_bytes());
    out.bytes(REPLY, cut(&attempt.reply));
    if let Some(host) = &attempt.host {
        out.bytes(HOST, cut(host));
    }
}

fn read_attempt(fields: &Fields<'_>) -> Option<Attempt> {
    Some(Attempt {
        status: Status::parse(&fields.text(STATUS)?)?,
        reply: fields.text(REPLY)?,
        host: fields.text(HOST),
    })
}

fn write_intent(out: &mut fields::Writer, intent: &Intent) {
    use std::os::unix::ffi::OsStrExt;
    out.number(KIND, INTENT);
    out.number(RECIPIENT, index(intent.recipient));
    out.bytes(DELIVERY, intent.delivery.as_bytes());
    out.bytes(PATH, intent.path.as_os_str().as_bytes());
    out.number(OFFSET, intent.offset);
    out.number(LENGTH, intent.length);
    out.number(CHECKSUM, intent.checksum);
    if !intent.note.is_empty() {
        out.bytes(NOTE, &intent.note);
    }
}

fn read_intent(fields: &Fields<'_>) -> Option<Intent> {
    use std::os::unix::ffi::OsStrExt;
    Some(Intent {
        recipient: read_recipient(fields)?,
        delivery: fields.text(DELIVERY)?,
        path: std::ffi::OsStr::from_bytes(fields.bytes(PATH)?).into(),
        offset: fields.number(OFFSET)?,
        length: fields.number(LENGTH)?,
        checksum: fields.number(CHECKSUM)?,
        note: fields.bytes(NOTE).unwrap_or_default().to_vec(),
    })
}

/// Recipients as one field of 32-bit numbers, children as one field each: `local ID`.
fn write_family(out: &mut fields::Writer, recipients: &[usize], children: &[Child]) {
    let numbers: Vec<u8> = recipients
        .iter()
        .flat_map(|r| u32::try_from(*r).unwrap_or(u32::MAX).to_le_bytes())
        .collect();
    out.bytes(RECIPIENTS, &numbers);
    for child in children {
        out.bytes(
            CHILD,
            format!("{} {}", child.lane.as_str(), child.id).as_bytes(),
        );
    }
}

fn read_recipients(fields: &Fields<'_>) -> Option<Vec<usize>> {
    let (numbers, rest) = fields.bytes(RECIPIENTS)?.as_chunks::<4>();
    rest.is_empty().then_some(())?;
    numbers
        .iter()
        .map(|n| usize::try_from(u32::from_le_bytes(*n)).ok())
        .collect()
}

fn read_children(fields: &Fields<'_>) -> Option<Vec<Child>> {
    fields
        .all(CHILD)
        .map(|bytes| {
            let (lane, id) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
            Some(Child {
                lane: Lane::parse(lane)?,
                id: QueueId::parse(id).ok()?,
            })
        })
        .collect()
}

fn read_recipient(fields: &Fields<'_>) -> Option<usize> {
    usize::try_from(fields.number(RECIPIENT)?).ok()
}

fn read_lane(fields: &Fields<'_>) -> Option<Lane> {
    Lane::parse(&fields.text(LANE)?)
}

fn index(recipient: usize) -> u64 {
    u64::try_from(recipient).unwrap_or(u64::MAX)
}

/// The first [`MAX_TEXT`] bytes; a character that is cut in two is shown as one that is missing.
fn cut(text: &str) -> &[u8] {
    text.as_bytes().get(..MAX_TEXT).unwrap_or(text.as_bytes())
}

impl Report {
    fn number(self) -> u64 {
        match self {
            Self::Failure => 1,
            Self::Delay => 2,
            Self::Success => 3,
            Self::Reply => 4,
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        [Self::Failure, Self::Delay, Self::Success, Self::Reply]
            .into_iter()
            .find(|r| r.number() == number)
    }
}

// Fields of a journal record, version 1. A number is never used again for something else.
const TIME: u8 = 1;
const BY: u8 = 2;
const KIND: u8 = 3;
const RECIPIENT: u8 = 4;
const STATUS: u8 = 5;
const REPLY: u8 = 6;
const HOST: u8 = 7;
const NEXT: u8 = 8;
const DELIVERY: u8 = 9;
const PATH: u8 = 10;
const OFFSET: u8 = 11;
const LENGTH: u8 = 12;
const CHECKSUM: u8 = 13;
const NOTE: u8 = 14;
const RECIPIENTS: u8 = 15;
const CHILD: u8 = 16;
const REPORT: u8 = 17;
const LANE: u8 = 18;

// Kinds of events.
const DELIVERED: u64 = 1;
const DEFERRED: u64 = 2;
const FAILED: u64 = 3;
const INTENT: u64 = 4;
const BECAME: u64 = 5;
const REPORTED: u64 = 6;
const HANDED_OVER: u64 = 7;
const HELD: u64 = 8;
const RELEASED: u64 = 9;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    /// One of each kind.
    pub(crate) fn samples() -> Vec<Event> {
        let attempt = |class, reply: &str| Attempt {
            status: Status::new(class, 1, 1),
            reply: reply.into(),
            host: Some("mx.example.org[192.0.2.1]:25".into()),
        };
        let child = |lane| Child {
            id: QueueId::generate().unwrap(),
            lane,
        };
        vec![
            Event::Deferred {
                recipient: 1,
                attempt: attempt(4, "450 4.1.1 later"),
                next: UNIX_EPOCH + Duration::from_secs(1_795_309_200),
            },
            Event::Intent(Intent {
                recipient: 0,
                delivery: "d1".into(),
                path: "/var/spool/mail/ann".into(),
                offset: 17,
                length: 42,
                checksum: u64::MAX,
                note: vec![0, 255],
            }),
            Event::Delivered {
                recipient: 0,
                attempt: attempt(2, "250 2.6.0 ok"),
            },
            Event::Became {
                recipients: vec![2, 3],
                children: vec![child(Lane::Local), child(Lane::Relay)],
            },
            Event::Failed {
                recipient: 1,
                attempt: attempt(5, "550 5.1.1 no such user"),
            },
            Event::Reported {
                recipients: vec![1],
                report: Report::Failure,
                children: vec![child(Lane::Relay)],
            },
            Event::Reported {
                recipients: vec![],
                report: Report::Reply,
                children: vec![],
            },
            Event::HandedOver { lane: Lane::Relay },
            Event::Held {
                lane: Lane::Local,
                reason: "by ann".into(),
            },
            Event::Released,
        ]
    }

    #[test]
    fn there_and_back() {
        for event in samples() {
            let at = UNIX_EPOCH + Duration::from_micros(1_795_309_200_000_001);
            let record = Record {
                at,
                by: "qrun".into(),
                event,
            };
            assert_eq!(Record::decode(&record.encode()), Ok(Some(record)));
        }
    }

    #[test]
    fn no_part_of_a_record_makes_sense_alone_or_panics() {
        for event in samples() {
            let whole = Record {
                at: UNIX_EPOCH,
                by: "x".into(),
                event,
            }
            .encode();
            for at in 0..whole.len() {
                let _ignored = Record::decode(&whole[..at]);
                let mut flipped = whole.clone();
                flipped[at] ^= 0x80;
                let _ignored = Record::decode(&flipped);
            }
        }
    }

    #[test]
    fn long_replies_are_cut_and_unknown_kinds_are_skipped() {
        let attempt = Attempt {
            status: Status::OK,
            reply: "ü".repeat(5000),
            host: None,
        };
        let event = Event::Delivered {
            recipient: 0,
            attempt,
        };
        let payload = Record {
            at: UNIX_EPOCH,
            by: "x".into(),
            event,
        }
        .encode();
        assert!(payload.len() < MAX_TEXT + 200);
        assert!(Record::decode(&payload).unwrap().is_some());
        let mut out = fields::Writer::default();
        out.number(KIND, 99);
        assert_eq!(Record::decode(&out.finish()), Ok(None));
    }
}
