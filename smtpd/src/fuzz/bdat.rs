//! The content of a message, by DATA and by BDAT, beside a second reading of the RFCs that looks at all
//! of it at once and cannot be split.
//!
//! An input is a line with the lengths of pieces ([`Pieces`]), and then the octets.

use std::fmt::Write;

use super::{Pieces, bare_line_ends, halves, stuffed};
use crate::body::{Body, Fault, Framing, Limits, MAX_LINE};

/// Small, so that they are reached.
const LIMITS: Limits = Limits { size: 300, hops: 2 };

/// What is asserted: what is kept, and whether the message is good, is what the second reading says,
/// in whatever pieces the octets come; DATA ends behind the first CRLF.CRLF and nowhere else; the
/// octets kept are never more than the limit; what is good comes through a session unchanged.
pub fn bdat(input: &[u8]) {
    let (lengths, octets) = halves(input);
    for mut pieces in [Pieces::whole(), Pieces::new(lengths)] {
        by_data(octets, &mut pieces);
        by_chunks(octets, Framing::Chunks, &mut pieces);
        by_chunks(octets, Framing::Binary, &mut pieces);
    }
    through_a_session(lengths, octets);
}

fn by_data(octets: &[u8], pieces: &mut Pieces<'_>) {
    let (mut body, mut out, mut taken) = (Body::new(Framing::Dot, LIMITS), Vec::new(), 0);
    for piece in pieces.of(octets) {
        taken += body.take(piece, &mut out);
        assert!(out.len() as u64 <= LIMITS.size);
        if body.is_ended() {
            break;
        }
    }
    // RFC 5321 4.1.1.4: the CRLF of the command line counts as the first of the end.
    let whole = [b"\r\n", octets].concat();
    let end = memchr::memmem::find(&whole, b"\r\n.\r\n");
    assert_eq!(body.is_ended(), end.is_some());
    let Some(end) = end else {
        assert_eq!(taken, octets.len());
        return;
    };
    assert_eq!(taken, end + 3);
    let raw = &octets[..end];
    let unstuffed: Vec<u8> = raw
        .split_inclusive(|b| *b == b'\n')
        .flat_map(|line| line.strip_prefix(b".").unwrap_or(line))
        .copied()
        .collect();
    check(&body, &out, &unstuffed, &unstuffed);
}

fn by_chunks(octets: &[u8], framing: Framing, pieces: &mut Pieces<'_>) {
    let (mut body, mut out) = (Body::new(framing, LIMITS), Vec::new());
    for piece in pieces.of(octets) {
        assert_eq!(body.take(piece, &mut out), piece.len());
        assert!(!body.is_ended());
    }
    body.finish(&mut out);
    assert!(body.is_ended());
    // RFC 3030 3: behind the header of a binary message there are no lines.
    let whole = [b"\r\n", octets].concat();
    match memchr::memmem::find(&whole, b"\r\n\r\n") {
        Some(at) if framing == Framing::Binary => check(&body, &out, octets, &octets[..at + 2]),
        _ => check(&body, &out, &ended(octets), octets),
    }
}

/// With the CRLF that a last line without one gets.
fn ended(octets: &[u8]) -> Vec<u8> {
    let mut whole = octets.to_vec();
    if !octets.is_empty() && !octets.ends_with(b"\r\n") {
        whole.extend_from_slice(b"\r\n");
    }
    whole
}

/// `content` is what should be kept, `lines` so much of what came as has lines.
fn check(body: &Body, out: &[u8], content: &[u8], lines: &[u8]) {
    assert!(out.len() as u64 <= LIMITS.size);
    let wrong = [
        (bare_line_ends(lines) > 0, Fault::BareLineEnd),
        (content.len() as u64 > LIMITS.size, Fault::TooBig),
        (longest_line(lines) > MAX_LINE, Fault::LineTooLong),
        (hops(content) > LIMITS.hops, Fault::Loop),
    ];
    let worst = wrong
        .into_iter()
        .filter_map(|(is_so, fault)| is_so.then_some(fault))
        .max();
    assert_eq!(body.fault(), worst);
    if worst.is_none() {
        assert_eq!(out, content);
        assert_eq!(body.size(), content.len() as u64);
    }
}

/// Octets without the line's end.
fn longest_line(octets: &[u8]) -> usize {
    let lines = octets.split_inclusive(|b| *b == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r\n").unwrap_or(line).len());
    lines.max().unwrap_or(0)
}

/// Received fields of the header.
fn hops(content: &[u8]) -> usize {
    let lines = content.split_inclusive(|b| *b == b'\n');
    let header = lines.take_while(|line| *line != b"\r\n");
    header
        .filter(|line| {
            let name = line.get(..9).unwrap_or_default();
            name.eq_ignore_ascii_case(b"received:")
        })
        .count()
}

/// The same octets by both commands in a session, whose own checks see what is kept.
fn through_a_session(lengths: &[u8], octets: &[u8]) {
    // These stand for events there.
    if octets.iter().any(|b| (0x1c..0x20).contains(b)) {
        return;
    }
    let mut script = b"t ".to_vec();
    script.extend_from_slice(lengths);
    script.extend_from_slice(b"\nEHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n");
    script.extend_from_slice(&stuffed(&ended(octets)));
    script.extend_from_slice(b"MAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\n");
    for piece in Pieces::new(lengths).of(octets).iter().take(100) {
        let mut command = String::new();
        write!(command, "BDAT {}\r\n", piece.len()).unwrap();
        script.extend_from_slice(command.as_bytes());
        script.extend_from_slice(piece);
    }
    script.extend_from_slice(b"BDAT 0 LAST\r\nQUIT\r\n");
    let accepted = crate::session::fuzz::session(&script);
    let content = ended(octets);
    if is_good(&content) && bare_line_ends(octets) == 0 && !content.is_empty() {
        assert!(accepted.first() == Some(&content), "DATA");
        let chunks = Pieces::new(lengths).of(octets).len();
        assert!(chunks > 100 || accepted.get(1) == Some(&content), "BDAT");
    }
}

fn is_good(content: &[u8]) -> bool {
    content.len() as u64 <= LIMITS.size && hops(content) <= LIMITS.hops
}
