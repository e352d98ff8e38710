//! What is asserted of any input at all, as plain functions: the engine of `make fuzz` calls them with
//! what it makes up, `cargo test` with the corpus. docs/fuzzing.md has the list.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a finding is a panic"
)]

mod bdat;
mod command;

pub use bdat::bdat;
pub use command::command;

/// See [`crate::session::fuzz`].
pub fn session(input: &[u8]) {
    crate::session::fuzz::session(input);
}

/// The first line of an input, which says how, and the rest, which says what.
pub(crate) fn halves(input: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'\n', input) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (&[], input),
    }
}

/// Cuts octets into pieces whose lengths an input says: `1` to `9` are that many, what is above in
/// ASCII is more, and the list is begun again at its end.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    lengths: &'a [u8],
    at: usize,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(lengths: &'a [u8]) -> Self {
        Self { lengths, at: 0 }
    }

    /// One piece.
    pub(crate) fn whole() -> Self {
        Self::new(&[])
    }

    pub(crate) fn length(&mut self) -> usize {
        if self.lengths.is_empty() {
            return usize::MAX;
        }
        let length = self.lengths[self.at % self.lengths.len()];
        self.at += 1;
        usize::from(length.wrapping_sub(b'0')).max(1)
    }

    pub(crate) fn of<'b>(&mut self, mut octets: &'b [u8]) -> Vec<&'b [u8]> {
        let mut pieces = Vec::new();
        while !octets.is_empty() {
            let (piece, rest) = octets.split_at(self.length().min(octets.len()));
            pieces.push(piece);
            octets = rest;
        }
        pieces
    }
}

/// CRs without LF and LFs without CR.
pub(crate) fn bare_line_ends(octets: &[u8]) -> usize {
    let ends = octets.windows(2).filter(|w| w == b"\r\n").count();
    octets.iter().filter(|b| matches!(b, b'\r' | b'\n')).count() - 2 * ends
}

/// A message as DATA has it: RFC 5321 4.5.2.
pub(crate) fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in content.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// Replies are lines as RFC 5321 4.2 and 4.5.3.1.5 have them: at most 512 octets, a code, the same on all
/// lines of a reply, and nothing that a terminal or a log would take for more than text.
pub(crate) fn check_replies(said: &[u8]) {
    let said = str::from_utf8(said).unwrap();
    let mut more = None;
    let mut rest = said;
    while !rest.is_empty() {
        let (line, after) = rest.split_once("\r\n").unwrap();
        rest = after;
        assert!(line.len() + 2 <= 512, "{line}");
        assert!(
            !line.chars().any(char::is_control),
            "{}",
            line.escape_debug()
        );
        let code: u16 = line[..3].parse().unwrap();
        assert!((200..600).contains(&code), "{line}");
        assert!(more.is_none_or(|first| first == code), "{line}");
        more = match line.as_bytes()[3] {
            b'-' => Some(code),
            b' ' => None,
            _ => panic!("neither the last line of a reply nor another: {line}"),
        };
    }
    assert_eq!(more, None, "a reply has no end: {said}");
}

#[cfg(test)]
mod tests {
    use fuzz_targets::replay;

    #[test]
    fn the_corpus_of_smtp_command() {
        replay("smtp_command", super::command);
    }

    #[test]
    fn the_corpus_of_bdat() {
        replay("bdat", super::bdat);
    }

    #[test]
    fn the_corpus_of_session() {
        replay("session", super::session);
    }
}
