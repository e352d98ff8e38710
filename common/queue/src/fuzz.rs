//! What is asserted of any input at all: see docs/fuzzing.md.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a finding is a panic"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use crate::event::Record;
use crate::file::{Depth, read, read_origin};
use crate::frame::{self, Kind};
use crate::log;
use crate::records::{End, Wishes, decode_recipient, encode_recipient};

/// A queue file that anybody might have written, and the records of a commit log.
///
/// An input that begins as a queue file does is one. Any other is a list of records, each its letter, the
/// length of its payload (2, little-endian) and the payload: they are put together with the checksums
/// that they should have, so that these keep nothing from being read. The END is made to fit.
///
/// What is asserted: a file is read, or refused with a reason; what is read without the content's bytes is
/// what is read with them; nothing that was read lies behind the file's end; envelopes, recipients and
/// journal records that are read and written are read the same again.
pub fn queue_file(input: &[u8]) {
    let file = scratch();
    match input.starts_with(frame::MAGIC) {
        true => whole_file(&file, input),
        false => whole_file(&file, &framed(input)),
    }
    log::fuzz::entries(input);
}

/// A file without a name.
fn scratch() -> File {
    let path = std::env::temp_dir().join(format!(
        "yubin-fuzz-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let mut options = fs::OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    fs::remove_file(&path).unwrap();
    file
}

fn framed(mut input: &[u8]) -> Vec<u8> {
    let mut out = frame::magic_line();
    let mut end = End::default();
    while let Some(([letter, low, high], rest)) = input.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (payload, behind) = rest.split_at(length);
        input = behind;
        let kind = match letter {
            b'O' => Kind::Origin,
            b'E' => Kind::Envelope,
            b'R' => Kind::Recipient,
            b'C' => Kind::Content,
            b'J' => Kind::Journal,
            _ => Kind::End,
        };
        match kind {
            Kind::Recipient => recipient(payload),
            Kind::Journal => event(payload),
            Kind::Content => {
                end.content_length += payload.len() as u64;
                end.content_sum = crc32c::crc32c_append(end.content_sum, payload);
            }
            _ => {}
        }
        if kind == Kind::End {
            end.whole = crc32c::crc32c(&out);
            frame::append(&mut out, kind, &end.encode()).unwrap();
        } else if frame::append(&mut out, kind, payload).is_none() {
            break;
        }
    }
    out
}

fn whole_file(file: &File, octets: &[u8]) {
    file.write_all_at(octets, 0).unwrap();
    read_origin(file);
    let verified = read(file, Depth::Verify);
    let skimmed = read(file, Depth::Skim);
    let history = read(file, Depth::History);
    let Ok(verified) = verified else {
        return;
    };
    let skimmed = skimmed.expect("what is sound can be skimmed");
    assert_eq!(verified.envelope(), skimmed.envelope());
    assert_eq!(verified.end, skimmed.end);
    assert_eq!(verified.end, history.expect("and its history read").end);
    let length = octets.len() as u64;
    assert!(verified.content_at <= verified.end && verified.end + verified.room <= length);
    assert!(verified.content_length <= length);
    let (Some(envelope), Some(lane)) = (verified.envelope(), verified.lane) else {
        return;
    };
    let again = Wishes::decode(&Wishes::of(&envelope, lane).encode()).unwrap();
    assert_eq!(again.reverse_path, verified.reverse_path);
    assert_eq!(again.envid, envelope.envid);
    assert_eq!(again.lane, verified.lane);
    assert_eq!((again.ret, again.needs), (envelope.ret, envelope.needs));
}

fn recipient(payload: &[u8]) {
    if let Some(recipient) = decode_recipient(payload) {
        let again = decode_recipient(&encode_recipient(&recipient));
        assert_eq!(again, Some(recipient));
    }
}

fn event(payload: &[u8]) {
    if let Ok(Some(record)) = Record::decode(payload) {
        let again = Record::decode(&record.encode());
        assert_eq!(again, Ok(Some(record)));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_of_queue_file() {
        fuzz_targets::replay("queue_file", super::queue_file);
    }
}
