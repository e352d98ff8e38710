//! Reading an mbox: where its messages are, and what its header fields say of them.
//!
//! One pass over the file's octets in bounded pieces. Content-Length is not believed: a line that
//! is a From_ line begins a message, wherever it stands.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::bulk;
use super::field::{self, Field};
use super::from_line;
use crate::flags::Table;
use crate::lines::{Eol, Event, HEAD, Lines};
use crate::mailbox::Item;

/// Messages in a mailbox.
pub(crate) const MAX_MESSAGES: usize = 4_000_000;
/// Octets read at once.
pub(crate) const PIECE: usize = 256 << 10;

/// One message in the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) item: Item,
    /// Where its From_ line begins.
    pub(crate) start: u64,
    /// Where the line behind that begins.
    pub(crate) header: u64,
    /// Octets of the header as it is in the file, with the empty line if there is one.
    pub(crate) header_length: u64,
    /// Where the next message begins.
    pub(crate) end: u64,
    /// Of the served header: what a message is known by, whatever its flags are.
    pub(crate) hash: u64,
    /// Its X-UIDVALIDITY; 0 if it has none.
    pub(crate) uidvalidity: u32,
    /// `O` in Status: some session has seen it.
    pub(crate) old: bool,
    /// UW's first message that is no message and holds the X-IMAP field.
    pub(crate) pseudo: bool,
}

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) records: Vec<Record>,
    /// UIDVALIDITY and last UID of the first message's X-IMAPbase.
    pub(crate) base: Option<(u32, u32)>,
}

/// Why a file cannot be read as an mbox.
#[derive(Debug)]
pub(crate) enum Bad {
    /// There is something before the first From_ line.
    NotMbox,
    TooMany,
    Io(io::Error),
}

/// Reads `file` from `from` to `to`. What lies before, with `records`, was read already.
pub(crate) fn scan(
    file: &File,
    from: u64,
    to: u64,
    found: Found,
    table: &mut Table,
) -> Result<Found, Bad> {
    let mut scanner = Scanner {
        at: from,
        found,
        table,
        message: None,
        bad: None,
    };
    let mut lines = Lines::default();
    each_piece(file, from, to, |mut piece| {
        while !piece.is_empty() {
            let mut n = scanner.skip(&lines, piece);
            if n == 0 {
                n = memchr::memchr(b'\n', piece).map_or(piece.len(), |at| at + 1);
                let line = piece.get(..n).unwrap_or_default();
                lines.feed(line, &mut |event| scanner.event(event));
            }
            piece = piece.get(n..).unwrap_or_default();
        }
    })
    .map_err(Bad::Io)?;
    lines.finish(&mut |event| scanner.event(event));
    scanner.close();
    match scanner.bad {
        Some(bad) => Err(bad),
        None => Ok(scanner.found),
    }
}

/// The octets from `from` to `to`, or to the end of the file.
pub(crate) fn each_piece(
    file: &File,
    from: u64,
    to: u64,
    mut with: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE.min(usize::try_from(to.saturating_sub(from)).unwrap_or(PIECE))];
    let mut at = from;
    while at < to {
        let want = usize::try_from(to - at).unwrap_or(PIECE).min(buffer.len());
        let (space, _) = buffer.split_at_mut(want);
        let n = match file.read_at(space, at) {
            Ok(0) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            n => n?,
        };
        with(space.get(..n).unwrap_or_default());
        at += n as u64;
    }
    Ok(())
}

struct Scanner<'a> {
    /// The offset of what comes next.
    at: u64,
    found: Found,
    table: &'a mut Table,
    message: Option<Open>,
    bad: Option<Bad>,
}

/// The message that is being read.
#[derive(Default)]
struct Open {
    record: Record,
    /// On its From_ line.
    on_from: bool,
    in_header: bool,
    /// Whether the field that is being read is one of ours.
    hidden: bool,
    no_eol: bool,
    /// The last line was empty, and ended.
    blank: bool,
    header_size: u64,
    hash: Hash,
}

impl Scanner<'_> {
    /// Takes the lines of a body that come next, all at once; how many octets those are.
    fn skip(&mut self, lines: &Lines, piece: &[u8]) -> usize {
        let body = self
            .message
            .as_mut()
            .filter(|open| lines.is_at_start() && !open.on_from && !open.in_header);
        let Some((open, many)) = body.zip(bulk::Lines::at_head(piece)) else {
            return 0;
        };
        open.hidden = false;
        open.blank = many.ends_blank();
        open.record.item.size += many.served() as u64;
        self.at += many.len() as u64;
        many.len()
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Head(head) => {
                if head.len() < HEAD
                    && head.first() == Some(&b'F')
                    && let Some(date) = from_line::parse(head)
                {
                    self.close();
                    self.open(date);
                } else {
                    self.head(head);
                }
                self.at += head.len() as u64;
            }
            Event::Rest(rest) => {
                self.at += rest.len() as u64;
                if let Some(open) = &mut self.message {
                    open.rest(rest);
                }
            }
            Event::End(eol) => {
                self.at += eol.len();
                let at = self.at;
                if let Some(open) = &mut self.message {
                    open.end(eol, at);
                }
            }
        }
    }

    fn open(&mut self, date: i64) {
        let mut open = Open {
            on_from: true,
            ..Open::default()
        };
        open.record.start = self.at;
        open.record.item.date = date;
        self.message = Some(open);
    }

    /// The present message ends here.
    fn close(&mut self) {
        let Some(open) = self.message.take() else {
            return;
        };
        if self.found.records.len() >= MAX_MESSAGES {
            self.bad = Some(Bad::TooMany);
            return;
        }
        self.found.records.push(open.close(self.at));
    }

    fn head(&mut self, head: &[u8]) {
        let first = self.found.records.is_empty();
        let Some(open) = &mut self.message else {
            // Empty lines before the first message are nobody's.
            if !head.is_empty() && self.bad.is_none() {
                self.bad = Some(Bad::NotMbox);
            }
            return;
        };
        open.blank = head.is_empty();
        if open.in_header && !head.is_empty() {
            match head.first() {
                Some(b' ' | b'\t') => {}
                _ => {
                    let field = field::parse(head);
                    open.hidden = field.is_some();
                    if let Some((field, value)) = field {
                        let base = open.field(field, value, self.table);
                        if first && base.is_some() {
                            self.found.base = base;
                        }
                        if field == Field::Pseudo {
                            open.record.pseudo = first;
                        }
                    }
                }
            }
        } else {
            open.hidden = false;
        }
        let quoted = field::is_quoted(head);
        open.octets(head.get(usize::from(quoted)..).unwrap_or_default());
    }
}

impl Open {
    /// Takes over what one of our fields says; gives what X-IMAPbase or X-IMAP says.
    fn field(&mut self, field: Field, value: &[u8], table: &mut Table) -> Option<(u32, u32)> {
        let item = &mut self.record.item;
        match field {
            Field::Status => self.record.old |= field::status(value, &mut item.flags),
            Field::XStatus => {
                field::status(value, &mut item.flags);
            }
            Field::Keywords => {
                item.keywords |= field::keywords(value).fold(0, |bits, k| bits | table.bit(&k));
            }
            Field::Uid => item.uid = field::number(value),
            Field::Validity => self.record.uidvalidity = field::number(value),
            Field::Eol => self.no_eol = value.trim_ascii() == b"none",
            Field::Base | Field::Pseudo => {
                return field::base(value).map(|(validity, last, _)| (validity, last));
            }
            Field::DeliveryId | Field::ContentLength => {}
        }
        None
    }

    fn rest(&mut self, rest: &[u8]) {
        if !self.on_from {
            self.octets(rest);
        }
    }

    /// Octets that are served.
    fn octets(&mut self, bytes: &[u8]) {
        if !self.hidden {
            self.record.item.size += bytes.len() as u64;
            if self.in_header {
                self.hash.add(bytes);
            }
        }
    }

    fn end(&mut self, eol: Eol, at: u64) {
        if self.on_from {
            self.on_from = false;
            self.in_header = true;
            self.record.header = at;
            return;
        }
        if !self.hidden {
            self.record.item.size += 2;
            if self.in_header {
                self.hash.add(b"\n");
            }
        }
        self.blank &= eol != Eol::None;
        if self.in_header {
            self.header_size = self.record.item.size;
            self.record.header_length = at - self.record.header;
            self.in_header = !self.blank;
        }
    }

    fn close(mut self, at: u64) -> Record {
        if self.on_from {
            self.record.header = at;
        }
        // The empty line before the next From_ line belongs to the mbox, not to the message.
        let size = &mut self.record.item.size;
        *size = size.saturating_sub(if self.blank { 2 } else { 0 });
        *size = size.saturating_sub(if self.no_eol { 2 } else { 0 });
        self.record.item.header_size = self.header_size.min(*size);
        self.record.item.recent = !self.record.old;
        self.record.end = at;
        self.record.hash = self.hash.0;
        self.record
    }
}

/// Turns a message as it is in the file into what is served: our fields hidden, quoting undone,
/// CRLF. What it gives beyond the message's size is to be cut.
#[derive(Default)]
pub(crate) struct Serve {
    lines: Lines,
    state: Serving,
}

#[derive(Default)]
struct Serving {
    in_body: bool,
    hidden: bool,
    /// The line that is being read is empty.
    blank: bool,
    hash: Hash,
    out: Vec<u8>,
}

impl Serve {
    /// What became of a piece of the file, beginning behind the From_ line.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        let state = &mut self.state;
        state.out.reserve(piece.len() + piece.len() / 16);
        self.lines.feed(piece, &mut |event| state.event(event));
        std::mem::take(&mut state.out)
    }

    /// What became of the end, and the header's hash.
    pub(crate) fn finish(mut self) -> (Vec<u8>, u64) {
        let state = &mut self.state;
        self.lines.finish(&mut |event| state.event(event));
        (self.state.out, self.state.hash.0)
    }
}

impl Serving {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Head(head) => {
                let goes_on = matches!(head.first(), Some(b' ' | b'\t'));
                let ours = if goes_on {
                    self.hidden
                } else {
                    field::parse(head).is_some()
                };
                self.hidden = ours && !self.in_body;
                self.blank = head.is_empty();
                let quoted = field::is_quoted(head);
                self.octets(head.get(usize::from(quoted)..).unwrap_or_default());
            }
            Event::Rest(rest) => self.octets(rest),
            Event::End(_) => {
                if !self.hidden {
                    self.out.extend_from_slice(b"\r\n");
                    if !self.in_body {
                        self.hash.add(b"\n");
                    }
                }
                self.in_body |= self.blank;
            }
        }
    }

    fn octets(&mut self, bytes: &[u8]) {
        if !self.hidden {
            self.out.extend_from_slice(bytes);
            if !self.in_body {
                self.hash.add(bytes);
            }
        }
    }
}

/// FNV-1a over a stream of octets, however it is cut. It tells messages of one mailbox apart; that
/// nobody forges it does not matter, because a user can only fool himself.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::flags::Flags;

    fn read(text: &str) -> (Found, Vec<String>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let size = text.len() as u64;
        let found = scan(&file, 0, size, Found::default(), &mut Table::default()).unwrap();
        let served = found
            .records
            .iter()
            .map(|r| {
                let at = |n: u64| usize::try_from(n).unwrap();
                let raw = &text.as_bytes()[at(r.header)..at(r.end)];
                let mut serve = Serve::default();
                let mut out = Vec::new();
                for byte in raw.chunks(1) {
                    out.extend(serve.feed(byte));
                }
                let (rest, hash) = serve.finish();
                out.extend(rest);
                assert_eq!(hash, r.hash);
                out.truncate(at(r.item.size));
                assert_eq!(out.len() as u64, r.item.size);
                String::from_utf8(out).unwrap()
            })
            .collect();
        (found, served)
    }

    const FROM: &str = "From ann@example.org Thu Jan  1 00:00:00 1970\n";

    #[test]
    fn messages_as_others_write_them() {
        for (raw, served, header) in [
            ("Subject: x\n\nbody\n\n", "Subject: x\r\n\r\nbody\r\n", 14),
            (
                "Subject: x\nStatus: RO\n\n>From x\n>>From\n\n",
                "Subject: x\r\n\r\nFrom x\r\n>>From\r\n",
                14,
            ),
            (
                "X-Keywords: a\n b\nA: b\n c\n\n\n",
                "A: b\r\n c\r\n\r\n",
                12,
            ),
            ("Subject: x\n\n", "Subject: x\r\n", 12),
            (
                "Subject: x\r\n\r\nbody\r\n\r\n",
                "Subject: x\r\n\r\nbody\r\n",
                14,
            ),
            ("", "", 0),
            ("\n", "", 0),
            ("\n\n", "\r\n", 2),
            ("A: b\nX-Mbox-Eol: none\n\nx\n\n", "A: b\r\n\r\nx", 8),
            ("abc\nX-Mbox-Eol: none\n\n", "abc", 3),
            ("A: b\n\nFrom here\n\n", "A: b\r\n\r\nFrom here\r\n", 8),
            ("A: b\n\nStatus: RO\n\n", "A: b\r\n\r\nStatus: RO\r\n", 8),
        ] {
            let text = format!("{FROM}{raw}{FROM}X: y\n\n");
            let (found, all) = read(&text);
            assert_eq!(all, [served, "X: y\r\n"], "{raw:?}");
            assert_eq!(found.records[0].item.header_size, header, "{raw:?}");
            let (alone, _) = read(&format!("{FROM}{raw}"));
            assert_eq!(
                alone.records[0].item.size, found.records[0].item.size,
                "{raw:?}"
            );
        }
    }

    #[test]
    fn state_is_read_and_only_the_first_messages_base_counts() {
        let text = format!(
            "{FROM}X-IMAPbase: 17 0000000009 a\nX-UID: 5\nStatus: RO\nX-Status: FD\n\
             X-Keywords: $Junk work  \nX-UIDVALIDITY: 17\n\n\n{FROM}X-IMAPbase: 1 2\nX-IMAP: 1 2\n\n\n"
        );
        let (found, _) = read(&text);
        assert_eq!(found.base, Some((17, 9)));
        let first = &found.records[0];
        assert_eq!(
            (first.item.uid, first.uidvalidity, first.item.keywords),
            (5, 17, 3)
        );
        assert_eq!(
            first.item.flags,
            Flags::SEEN.with(Flags::FLAGGED).with(Flags::DELETED)
        );
        assert!(first.old && !first.item.recent);
        assert!(found.records[1].item.recent && !found.records[1].pseudo);
    }

    #[test]
    fn what_is_no_mbox_is_said_to_be_none() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"\nhello\n").unwrap();
        let found = scan(&file, 0, 7, Found::default(), &mut Table::default());
        assert!(matches!(found, Err(Bad::NotMbox)));
    }
}
