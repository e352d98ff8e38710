//! Requests and answers as bytes: big-endian integers, lists and texts with their length in front.
//!
//! Both ends are yubin of the same version. Still the reader believes nothing: each length is
//! checked against what is left of the frame before anything is allocated for it.

use std::io::{self, Read, Write};

use crate::flags::{Flags, Keyword};
use crate::folder::FolderName;
use crate::pattern::Pattern;
use crate::request::{
    Answer, Change, Content, Expunge, Failed, Folder, MAX_FRAME, Message, Messages, Part, Request,
    Selected, Status, Updates, Whole, Why,
};
use crate::set::{Ranges, Set};

/// Writes one frame: its length in four octets, then the bytes.
pub fn write_frame(to: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let mut whole = Vec::with_capacity(frame.len() + LENGTH);
    whole.extend_from_slice(&[0; LENGTH]);
    whole.extend_from_slice(frame);
    write_framed(to, whole)
}

/// The same for bytes that have room for the length before them, so that they are not copied.
fn write_framed(to: &mut impl Write, mut whole: Vec<u8>) -> io::Result<()> {
    let length = whole.len().saturating_sub(LENGTH);
    let number = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_FRAME)
        .ok_or_else(|| io::Error::other("frame too long"))?;
    if let Some(space) = whole.first_chunk_mut::<LENGTH>() {
        *space = number.to_be_bytes();
    }
    to.write_all(&whole)
}

/// Octets of a frame's length.
const LENGTH: usize = 4;

/// Octets that the frame at the head of a buffer takes with its length, as far as that is known.
pub fn frame_size(buffer: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(*buffer.first_chunk::<LENGTH>()?);
    let length = usize::try_from(length).ok()?;
    (length <= MAX_FRAME).then_some(length + LENGTH)
}

/// Reads one frame; `None` at the end of the stream.
pub fn read_frame(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let length = u64::from(u32::from_be_bytes(length));
    if length > MAX_FRAME as u64 {
        return Err(io::Error::other("frame too long"));
    }
    let mut frame = Vec::new();
    from.take(length).read_to_end(&mut frame)?;
    if frame.len() as u64 == length {
        Ok(Some(frame))
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Takes the first whole frame off a buffer: its bytes, and how many of the buffer it took. `None`
/// if more is needed; an error if the frame is longer than allowed.
pub fn split_frame(buffer: &[u8]) -> Result<Option<(&[u8], usize)>, TooLong> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| TooLong)?;
    if length > MAX_FRAME {
        return Err(TooLong);
    }
    Ok(rest.get(..length).map(|frame| (frame, length + 4)))
}

/// A frame over [`MAX_FRAME`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl Request {
    /// As a frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// From a frame's bytes; `None` if they are not a request.
    pub fn decode(frame: &[u8]) -> Option<Self> {
        decode(frame)
    }
}

impl Answer {
    /// As a frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Writes it as a frame.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let octets = match self {
            Self::Content(content) => content.bytes.len(),
            Self::Contents(list) => list.iter().map(|whole| whole.bytes.len() + 24).sum(),
            _ => 0,
        };
        let mut whole = Vec::with_capacity(octets + 64);
        whole.extend_from_slice(&[0; LENGTH]);
        self.put(&mut whole);
        write_framed(to, whole)
    }

    /// From a frame's bytes; `None` if they are not an answer.
    pub fn decode(frame: &[u8]) -> Option<Self> {
        decode(frame)
    }
}

fn encode(value: &impl Wire) -> Vec<u8> {
    let mut out = Vec::new();
    value.put(&mut out);
    out
}

fn decode<T: Wire>(frame: &[u8]) -> Option<T> {
    let mut rest = frame;
    T::take(&mut rest).filter(|_| rest.is_empty())
}

/// What can be put into a frame and taken out of it.
pub(crate) trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(from: &mut &[u8]) -> Option<Self>;
}

macro_rules! integers {
    ($($int:ty)*) => {$(
        impl Wire for $int {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_be_bytes(*bytes))
            }
        }
    )*};
}
integers!(u8 u32 u64 i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Wire for Vec<u8> {
    fn put(&self, out: &mut Vec<u8>) {
        length(self.len(), out);
        out.extend_from_slice(self);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let length = usize::try_from(u32::take(from)?).ok()?;
        let (bytes, rest) = from.split_at_checked(length)?;
        *from = rest;
        Some(bytes.to_vec())
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        length(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(Vec::take(from)?).ok()
    }
}

/// Lists; each element takes an octet at least, which bounds what is allocated.
macro_rules! lists {
    ($($element:ty),*) => {$(
        impl Wire for Vec<$element> {
            fn put(&self, out: &mut Vec<u8>) {
                length(self.len(), out);
                self.iter().for_each(|e| e.put(out));
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                let count = usize::try_from(u32::take(from)?).ok().filter(|n| *n <= from.len())?;
                (0..count).map(|_| <$element>::take(from)).collect()
            }
        }
    )*};
}
lists!(u32, (u32, u32), Keyword, Folder, Message, Whole);

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?))
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        match bool::take(from)? {
            true => T::take(from).map(Some),
            false => Some(None),
        }
    }
}

/// Nothing of 4 GiB is ever put; were it, the frame would be too long to be sent anyway.
fn length(n: usize, out: &mut Vec<u8>) {
    u32::try_from(n).unwrap_or(u32::MAX).put(out);
}

impl Wire for Flags {
    fn put(&self, out: &mut Vec<u8>) {
        self.bits().put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        u8::take(from).map(Self::from_bits)
    }
}

impl Wire for Keyword {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_str().to_owned().put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::new(&String::take(from)?)
    }
}

impl Wire for FolderName {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_str().to_owned().put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::parse(&String::take(from)?)
    }
}

impl Wire for Pattern {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_string().put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::parse(&String::take(from)?)
    }
}

impl Wire for Ranges {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_slice().to_vec().put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::from_list(Vec::take(from)?)
    }
}

/// Enums without data: their place in a list that both directions share.
macro_rules! plain_enum {
    ($name:ident: $($variant:ident)*) => {
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                const ALL: &[$name] = &[$($name::$variant),*];
                let at = ALL.iter().position(|v| v == self).unwrap_or(255);
                out.push(u8::try_from(at).unwrap_or(255));
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                const ALL: &[$name] = &[$($name::$variant),*];
                ALL.get(usize::from(u8::take(from)?)).copied()
            }
        }
    };
}
plain_enum!(Part: Whole Header Text);
plain_enum!(Change: Add Remove Replace);
plain_enum!(Why: NotSelected ReadOnly NoSuchFolder Exists Cannot Gone TooBig Full InUse Replaced Temporary Bad);

/// Structs: their fields in order.
macro_rules! fields {
    ($name:ident: $($field:ident)*) => {
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                $(let $field = Wire::take(from)?;)*
                Some(Self { $($field),* })
            }
        }
    };
}
fields!(Selected: uidvalidity uidnext exists recent first_unseen keywords new_keywords read_only);
fields!(Status: uidvalidity uidnext exists recent unseen);
fields!(Folder: name selectable children);
fields!(Message: seq uid flags recent keywords date size);
fields!(Messages: list more);
fields!(Content: uid size bytes);
fields!(Whole: uid header bytes);
fields!(Updates: expunged expunged_uids exists recent changed keywords more);
fields!(Failed: why text);

/// Enums with data: a number, then the fields.
macro_rules! tagged {
    ($name:ident: $($tag:literal $variant:ident
        $(($($part:ident),*))? $({$($field:ident),*})?;)*) => {
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $(($($part),*))? $({$($field),*})? => {
                        out.push($tag);
                        $($($part.put(out);)*)?
                        $($($field.put(out);)*)?
                    })*
                }
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                match u8::take(from)? {
                    $($tag => {
                        $($(let $part = Wire::take(from)?;)*)?
                        $($(let $field = Wire::take(from)?;)*)?
                        Some(Self::$variant $(($($part),*))? $({$($field),*})?)
                    })*
                    _ => None,
                }
            }
        }
    };
}
tagged!(Set: 0 Seq(ranges); 1 Uid(ranges););
tagged!(Expunge: 0 Deleted; 1 DeletedIn(set); 2 Messages(set););
tagged!(Request:
    0 Select { folder, read_only };
    1 Unselect;
    2 Close;
    3 Status(folder);
    4 List(pattern);
    5 Lsub(pattern);
    6 Create(folder);
    7 Delete(folder);
    8 Rename { from, to };
    9 Subscribe(folder);
    10 Unsubscribe(folder);
    11 Fetch(set);
    12 Content { uid, part, offset, length };
    13 StoreFlags { set, change, flags, keywords };
    14 Append { folder, flags, keywords, date, size };
    15 AppendData(bytes);
    16 AppendEnd;
    17 AppendAbort;
    18 Copy { set, to };
    19 Move { set, to };
    20 Expunge(which);
    21 Poll { expunges };
    22 Watch(on);
    23 Contents { uids, headers, octets };
);
tagged!(Answer:
    0 Done;
    1 Selected(selected);
    2 Status(status);
    3 Folders(folders);
    4 Messages(messages);
    5 Content(content);
    6 Stored(messages);
    7 Appended { uidvalidity, uid };
    8 Copied { uidvalidity, source, copies, updates };
    9 Updates(updates);
    10 Changed;
    11 Failed(failed);
    12 Contents(contents);
);

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        let folder = FolderName::parse("Work/件名").unwrap();
        let set = Set::Seq(Ranges::new([(3, 9), (1, 1)]).unwrap());
        vec![
            Request::Select {
                folder: folder.clone(),
                read_only: true,
            },
            Request::Close,
            Request::Rename {
                from: folder.clone(),
                to: FolderName::inbox(),
            },
            Request::Content {
                uid: 7,
                part: Part::Text,
                offset: 1 << 40,
                length: 9,
            },
            Request::StoreFlags {
                set: set.clone(),
                change: Change::Remove,
                flags: Flags::SEEN,
                keywords: vec![Keyword::new("$Junk").unwrap()],
            },
            Request::AppendData(vec![0, 255]),
            Request::Expunge(Expunge::DeletedIn(set)),
            Request::Lsub(Pattern::parse("Wörk/%").unwrap()),
            Request::Watch(true),
            Request::Contents {
                uids: vec![3, 9],
                headers: true,
                octets: 1 << 18,
            },
        ]
    }

    /// What POP3 removes may be more than a client of IMAP may name: the rest was kept in silence.
    #[test]
    fn many_messages_are_removed_at_once() {
        let uids = Ranges::of((1..300_000).step_by(2));
        let request = Request::Expunge(Expunge::Messages(Set::Uid(uids)));
        assert_eq!(Request::decode(&request.encode()), Some(request));
    }

    #[test]
    fn requests_and_answers_come_back_as_they_went() {
        for request in requests() {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        let message = Message {
            seq: 1,
            uid: 2,
            flags: Flags::DRAFT,
            recent: true,
            keywords: vec![],
            date: -5,
            size: 1 << 33,
        };
        for answer in [
            Answer::Messages(Messages {
                list: vec![message.clone()],
                more: true,
            }),
            Answer::Failed(Failed {
                why: Why::InUse,
                text: "locked".into(),
            }),
            Answer::Contents(vec![Whole {
                uid: 9,
                header: 2,
                bytes: b"\r\n".to_vec(),
            }]),
            Answer::Updates(Updates {
                exists: Some(3),
                changed: vec![message],
                ..Updates::default()
            }),
        ] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn cut_and_changed_frames_are_refused_without_a_panic() {
        for request in requests() {
            let frame = request.encode();
            for cut in 0..frame.len() {
                assert_eq!(Request::decode(&frame[..cut]), None);
            }
            for at in 0..frame.len() {
                let mut bad = frame.clone();
                bad[at] ^= 0x80;
                Request::decode(&bad);
                Answer::decode(&bad);
            }
        }
        assert_eq!(Answer::decode(&[3, 255, 255, 255, 255]), None);
    }

    #[test]
    fn frames_on_a_stream() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, b"abc").unwrap();
        write_frame(&mut bytes, b"").unwrap();
        assert_eq!(split_frame(&bytes), Ok(Some((&b"abc"[..], 7))));
        assert_eq!(split_frame(&bytes[..6]), Ok(None));
        assert_eq!(split_frame(&[255; 4]), Err(TooLong));
        let mut from = bytes.as_slice();
        assert_eq!(read_frame(&mut from).unwrap(), Some(b"abc".to_vec()));
        assert_eq!(read_frame(&mut from).unwrap(), Some(vec![]));
        assert_eq!(read_frame(&mut from).unwrap(), None);
        assert!(read_frame(&mut &bytes[..5]).is_err());
    }
}
