//! What a log says: the records of a batch, each its kind (1 octet), the length of its payload (4) and
//! the payload. The batch's checksum covers them.

use crate::event::Record;
use crate::id::QueueId;
use crate::log::segment::Name;
use crate::queue::Lane;

const ID: usize = 20;
const HEAD: usize = 5;

const ACCEPTED: u8 = b'A';
const INTENT: u8 = b'I';
const FINISHED: u8 = b'F';
const LEFT: u8 = b'L';
const NEEDS: u8 = b'N';

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// A message was accepted, as this queue file up to its END.
    Accepted {
        lane: Lane,
        id: QueueId,
        file: &'a [u8],
    },
    /// An append to a mailbox is about to be made.
    Intent { id: QueueId, record: Record },
    /// Every recipient is dealt with, the file is about to be removed.
    Finished { lane: Lane, id: QueueId },
    /// The file is about to leave its lane for another place, and is durable.
    Left { id: QueueId },
    /// The notes of this segment are needed until this generation of that segment is out of force.
    Needs { segment: Name, generation: u64 },
}

fn letter(lane: Lane) -> u8 {
    match lane {
        Lane::Local => b'l',
        Lane::Relay => b'r',
    }
}

fn lane(letter: u8) -> Option<Lane> {
    [Lane::Local, Lane::Relay]
        .into_iter()
        .find(|lane| self::letter(*lane) == letter)
}

/// Appends a record; `None` where it is too long for its length.
fn put(out: &mut Vec<u8>, kind: u8, parts: [&[u8]; 3]) -> Option<()> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    out.push(kind);
    out.extend_from_slice(&u32::try_from(length).ok()?.to_le_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    Some(())
}

impl Entry<'_> {
    /// `None` where it is too long.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Accepted { lane, id, file } => {
                let id = id.as_str().as_bytes();
                put(&mut out, ACCEPTED, [&[letter(*lane)], id, file])?;
            }
            Self::Intent { id, record } => {
                let id = id.as_str().as_bytes();
                put(&mut out, INTENT, [id, &record.encode(), b""])?;
            }
            Self::Finished { lane, id } => {
                let id = id.as_str().as_bytes();
                put(&mut out, FINISHED, [&[letter(*lane)], id, b""])?;
            }
            Self::Left { id } => put(&mut out, LEFT, [id.as_str().as_bytes(), b"", b""])?,
            Self::Needs {
                segment,
                generation,
            } => {
                let name = segment.file();
                put(
                    &mut out,
                    NEEDS,
                    [&generation.to_le_bytes(), name.as_bytes(), b""],
                )?;
            }
        }
        Some(out)
    }
}

/// The records of a batch; an unknown kind is skipped, and what makes no sense ends it.
pub(super) fn entries(mut records: &[u8], mut each: impl FnMut(Entry<'_>)) {
    while let Some((head, rest)) = records.split_first_chunk::<HEAD>() {
        let [kind, l0, l1, l2, l3] = *head;
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            return;
        };
        records = rest;
        if let Some(entry) = decode(kind, payload) {
            each(entry);
        }
    }
}

fn decode(kind: u8, payload: &[u8]) -> Option<Entry<'_>> {
    let of_lane = || {
        let (first, rest) = payload.split_first()?;
        let (id, rest) = id(rest)?;
        Some((lane(*first)?, id, rest))
    };
    Some(match kind {
        ACCEPTED => {
            let (lane, id, file) = of_lane()?;
            Entry::Accepted { lane, id, file }
        }
        INTENT => {
            let (id, rest) = id(payload)?;
            let record = Record::decode(rest).ok()??;
            Entry::Intent { id, record }
        }
        FINISHED => {
            let (lane, id, _) = of_lane()?;
            Entry::Finished { lane, id }
        }
        LEFT => {
            let (id, _) = id(payload)?;
            Entry::Left { id }
        }
        NEEDS => {
            let (generation, name) = payload.split_first_chunk::<8>()?;
            Entry::Needs {
                segment: Name::parse(name)?,
                generation: u64::from_le_bytes(*generation),
            }
        }
        _ => return None,
    })
}

fn id(payload: &[u8]) -> Option<(QueueId, &[u8])> {
    let (id, rest) = payload.split_at_checked(ID)?;
    Some((QueueId::parse(id).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::samples;
    use std::time::UNIX_EPOCH;

    #[test]
    fn what_is_put_in_comes_out() {
        let id = QueueId::generate().unwrap();
        let lane = Lane::Relay;
        let record = |event| Record {
            at: UNIX_EPOCH,
            by: "deliver".into(),
            event,
        };
        let file = vec![b'x'; 100_000];
        let mut all = vec![
            Entry::Accepted {
                lane,
                id,
                file: &file,
            },
            Entry::Finished { lane, id },
            Entry::Left { id },
            Entry::Needs {
                segment: Name::parse(b"accept.1kp9Mp9SFpDQ8X7XfvHs").unwrap(),
                generation: 7,
            },
        ];
        all.extend(samples().into_iter().map(|event| Entry::Intent {
            id,
            record: record(event),
        }));
        let mut bytes = Vec::new();
        for entry in &all {
            bytes.extend(entry.encode().unwrap());
        }
        bytes.extend([b'?', 2, 0, 0, 0, 1, 2]);
        bytes.extend([FINISHED, 3, 0, 0, 0, 1, 2, 3]);
        let mut at = 0;
        entries(&bytes, |entry| {
            assert_eq!(entry, all[at]);
            at += 1;
        });
        assert_eq!(at, all.len());
        for cut in 0..bytes.len() {
            entries(&bytes[..cut], |_| ());
        }
    }
}
