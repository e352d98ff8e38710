//! Inputs that say in which pieces they come.

/// The octets of an input, and the lengths of the pieces in which they come: those of its first line,
/// where `1` to `9` are that many and what is above in ASCII is more.
pub(crate) fn cut(input: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let Some(at) = input.iter().position(|b| *b == b'\n') else {
        return (input, vec![input]);
    };
    let (lengths, whole) = (&input[..at], &input[at + 1..]);
    let mut lengths = lengths.iter().cycle();
    let (mut pieces, mut rest) = (Vec::new(), whole);
    while !rest.is_empty() {
        let length = lengths
            .next()
            .map_or(rest.len(), |b| usize::from(b.wrapping_sub(b'0')));
        let (piece, behind) = rest.split_at(length.clamp(1, rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    (whole, pieces)
}
