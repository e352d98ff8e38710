//! Framing: four octets of length, most significant first, then a code and its data. The length
//! counts the code.

/// Octets of a packet that is taken, with its code: the largest that a milter may ask for, one MiB
/// of data less one.
pub const MAX: usize = 1 << 20;
const HEAD: usize = 4;

/// What a milter sent that the protocol does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbage(pub &'static str);

/// A code with its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    pub code: u8,
    pub data: &'a [u8],
}

/// Appends a packet, its data in pieces. What would make it longer than [`MAX`] is left out.
pub fn write(code: u8, pieces: &[&[u8]], out: &mut Vec<u8>) {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut room = length.min(MAX - 1);
    let head = u32::try_from(room + 1).unwrap_or(u32::MAX);
    out.extend_from_slice(&head.to_be_bytes());
    out.push(code);
    for piece in pieces {
        let piece = piece.get(..room).unwrap_or(piece);
        out.extend_from_slice(piece);
        room = room.saturating_sub(piece.len());
    }
}

/// The first packet in what has come, and the octets it takes; `None` while it is not whole.
pub fn first(input: &[u8]) -> Result<Option<(Packet<'_>, usize)>, Garbage> {
    let Some((head, rest)) = input.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if length == 0 {
        return Err(Garbage("a packet of no octets"));
    }
    if length > MAX {
        return Err(Garbage("a packet of more than 1 MiB"));
    }
    let whole = rest.get(..length).and_then(<[u8]>::split_first);
    Ok(whole.map(|(&code, data)| (Packet { code, data }, HEAD + length)))
}

/// The text up to the next NUL, and what follows it.
pub(crate) fn text(data: &[u8]) -> Result<(&[u8], &[u8]), Garbage> {
    let end = data.iter().position(|&b| b == 0);
    end.and_then(|at| Some((data.get(..at)?, data.get(at + 1..)?)))
        .ok_or(Garbage("a text without its NUL"))
}

/// A number of four octets, and what follows it.
pub(crate) fn number(data: &[u8]) -> Result<(u32, &[u8]), Garbage> {
    let (number, rest) = data
        .split_first_chunk::<4>()
        .ok_or(Garbage("a number of less than four octets"))?;
    Ok((u32::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_packet_is_whole_or_waited_for() {
        let mut bytes = Vec::new();
        write(b'H', &[b"mx", b"\0"], &mut bytes);
        assert_eq!(bytes, b"\0\0\0\x04Hmx\0");
        for cut in 0..bytes.len() {
            assert_eq!(first(bytes.get(..cut).unwrap()), Ok(None), "{cut}");
        }
        bytes.extend_from_slice(b"\0\0");
        let packet = Packet {
            code: b'H',
            data: b"mx\0",
        };
        assert_eq!(first(&bytes), Ok(Some((packet, 8))));
    }

    #[test]
    fn lengths_are_checked_before_anything_is_waited_for() {
        assert!(first(&[0, 0, 0, 0]).is_err());
        assert!(first(&[0, 16, 0, 1]).is_err());
        assert!(first(&[255; 4]).is_err());
        assert_eq!(first(&[0, 16, 0, 0]), Ok(None));
    }

    #[test]
    fn nothing_longer_than_a_packet_is_written() {
        let mut bytes = Vec::new();
        write(b'B', &[&vec![b'x'; MAX], b"y"], &mut bytes);
        let (packet, length) = first(&bytes).unwrap().unwrap();
        assert_eq!((packet.data.len(), length), (MAX - 1, bytes.len()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(code: u8, a: Vec<u8>, b: Vec<u8>) {
            let mut bytes = Vec::new();
            write(code, &[&a, &b], &mut bytes);
            let (packet, length) = first(&bytes).unwrap().unwrap();
            prop_assert_eq!(length, bytes.len());
            prop_assert_eq!(packet.code, code);
            prop_assert_eq!(packet.data, [a, b].concat());
        }

        #[test]
        fn anything_is_a_packet_or_none(bytes: Vec<u8>) {
            if let Ok(Some((packet, length))) = first(&bytes) {
                prop_assert!(length <= bytes.len() && packet.data.len() + 5 == length);
            }
        }
    }
}
