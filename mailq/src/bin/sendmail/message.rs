//! What is read on standard input, as it goes into the queue.
//!
//! Guarantees: every line ends in CRLF, and CR and LF stand nowhere else; there is no NUL; the
//! content ends with a line end. A CR alone, which no mail can carry (RFC 5322 2.2), becomes a
//! space, so that it cannot begin a header field; several before a LF are one line end. Nothing
//! else of the body changes.

use mime::address::Mailbox;
use mime::header;

/// Octets of a header, counted in CRLF form.
pub(crate) const MAX_HEADER: usize = 8 << 20;

/// Makes lines of whatever comes, in pieces of any size.
#[derive(Debug)]
pub(crate) struct Lines {
    dots_are_text: bool,
    at: At,
    /// CRs were read that may belong to a line end.
    cr: bool,
    ended: bool,
}

/// Where in a line we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    /// Behind a dot that began the line and has not been passed on.
    Dot,
    Text,
}

impl Lines {
    /// Without `dots_are_text`, a line of one dot ends the message.
    pub(crate) fn new(dots_are_text: bool) -> Self {
        Self {
            dots_are_text,
            at: At::Start,
            cr: false,
            ended: false,
        }
    }

    /// Whether the line with the dot was read: what follows is not looked at.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Appends to `out` what `bytes` become: less than twice as many, and two.
    pub(crate) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            match byte {
                _ if self.ended => return,
                0 => {}
                b'\r' => self.cr = true,
                b'\n' if self.at == At::Dot => self.ended = true,
                b'\n' => self.end_line(out),
                _ => self.text(byte, out),
            }
        }
    }

    /// The input is over.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.ended && (self.at == At::Text || self.cr && self.at == At::Start) {
            self.end_line(out);
        }
        self.ended = true;
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.at = At::Start;
        self.cr = false;
    }

    fn text(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.at == At::Dot {
            out.push(b'.');
            self.at = At::Text;
        }
        if std::mem::take(&mut self.cr) {
            out.push(b' ');
            self.at = At::Text;
        }
        if byte == b'.' && self.at == At::Start && !self.dots_are_text {
            self.at = At::Dot;
        } else {
            out.push(byte);
            self.at = At::Text;
        }
    }
}

/// Where the header ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Not in what has been read; look again from here.
    NotYet(usize),
    /// The header is up to `header`, the body from `body` on.
    End { header: usize, body: usize },
}

/// Looks for the end of the header in lines, from the begin of a line at `from` on. It ends with an
/// empty line, or before the first line that cannot be in a header: then somebody gave a body only.
pub(crate) fn find_end(lines: &[u8], from: usize) -> Found {
    let mut at = from;
    loop {
        let rest = lines.get(at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|b| *b == b'\n') else {
            return Found::NotYet(at);
        };
        let line = rest.get(..length).unwrap_or_default();
        let next = at + length + 1;
        match line {
            b"\r" | b"" => {
                return Found::End {
                    header: at,
                    body: next,
                };
            }
            [b' ' | b'\t', ..] if at > 0 => {}
            // An mbox's separator, from a message that was piped out of a mailbox.
            [b'F', b'r', b'o', b'm', b' ', ..] if at == 0 => {}
            _ if is_field(line) => {}
            _ => {
                return Found::End {
                    header: at,
                    body: at,
                };
            }
        }
        at = next;
    }
}

/// RFC 5322 3.6.8, with white space before the colon (4.5).
fn is_field(line: &[u8]) -> bool {
    header::fields(line).next().is_some()
}

/// Who is named in a header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// What `-t` sends to: To, Cc and Bcc, or, where the message is sent again (RFC 5322 3.6.6),
    /// those of the Resent fields.
    pub(crate) recipients: Vec<String>,
    pub(crate) has_from: bool,
}

/// Reads a header that [`find_end`] found.
pub(crate) fn named(header: &[u8]) -> Named {
    let (mut recipients, mut resent) = (Vec::new(), Vec::new());
    let mut has_from = false;
    for field in header::fields(header) {
        has_from |= field.is("From");
        let list = match () {
            () if ["To", "Cc", "Bcc"].iter().any(|n| field.is(n)) => &mut recipients,
            () if ["Resent-To", "Resent-Cc", "Resent-Bcc"]
                .iter()
                .any(|n| field.is(n)) =>
            {
                &mut resent
            }
            () => continue,
        };
        list.extend(spellings(&field.value()));
    }
    let recipients = if resent.is_empty() {
        recipients
    } else {
        resent
    };
    Named {
        recipients,
        has_from,
    }
}

/// The addresses of a word of the command line, or of `-f`.
pub(crate) fn addresses(text: &str) -> Vec<String> {
    let text = text.trim();
    if text.is_empty() || text.contains([',', '<', '"', '(', ';', ' ', '\t']) {
        return spellings(text.as_bytes());
    }
    // One address and nothing around it: as it stands, so that `ann@` is refused and not mended.
    vec![text.to_owned()]
}

/// What is no address shows as it was written, and is refused later by whoever parses it: no UTF-8,
/// or `a@b@c`, which a liberal reader would take for somebody at c.
fn spellings(list: &[u8]) -> Vec<String> {
    let quoted = list.contains(&b'"');
    let spelling = |mailbox: &Mailbox| {
        let address = if mailbox.local.contains(&b'@') && !quoted {
            [&mailbox.local, &b"@"[..], &mailbox.host].concat()
        } else {
            mailbox.address()
        };
        String::from_utf8_lossy(&address).into_owned()
    };
    mime::address::mailboxes(list)
        .iter()
        .map(spelling)
        .collect()
}

/// The header as it goes into the queue: without Bcc, whose readers are nobody's to know, without
/// an mbox's `From ` line, with `from` where there was no From; and the empty line.
pub(crate) fn finished(header: &[u8], from: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.len() + 128);
    for field in header::fields(header) {
        if !field.is("Bcc") && !field.is("Resent-Bcc") {
            out.extend_from_slice(header.get(field.range).unwrap_or_default());
        }
    }
    if let Some(from) = from {
        out.extend_from_slice(format!("From: {from}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8], dots: bool, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut lines = Lines::new(dots);
        for piece in input.chunks(step) {
            lines.feed(piece, &mut out);
        }
        lines.finish(&mut out);
        out
    }

    #[test]
    fn every_line_ends_in_crlf_and_nothing_else_has_one() {
        let table: &[(&[u8], bool, &[u8])] = &[
            (b"", false, b""),
            (b"a\nb\n", false, b"a\r\nb\r\n"),
            (b"a\r\nb\n", false, b"a\r\nb\r\n"),
            (b"a", false, b"a\r\n"),
            (b"a\r", false, b"a\r\n"),
            (b"a\r\r\n\r\r\nb", false, b"a\r\n\r\nb\r\n"),
            (b"Subject: x\rBcc: y\n", false, b"Subject: x Bcc: y\r\n"),
            (b"a\0b\n", false, b"ab\r\n"),
            (b"a\n.\nb\n", false, b"a\r\n"),
            (b"a\n.\r\nb\n", false, b"a\r\n"),
            (b"a\n.", false, b"a\r\n"),
            (b"a\n.\nb\n", true, b"a\r\n.\r\nb\r\n"),
            (b"..\n.b\n", false, b"..\r\n.b\r\n"),
            (b".\rb\n", false, b". b\r\n"),
            (b"\n\n", false, b"\r\n\r\n"),
            (b"\xff\n", false, b"\xff\r\n"),
        ];
        for (input, dots, wanted) in table {
            for step in 1..=input.len().max(1) {
                let got = lines(input, *dots, step);
                assert_eq!(got, *wanted, "{} by {step}", String::from_utf8_lossy(input));
            }
        }
    }

    #[test]
    fn where_the_header_ends() {
        let end = |header, body| Found::End { header, body };
        for (text, wanted) in [
            ("A: b\r\n\r\nx\r\n", end(6, 8)),
            ("A: b\r\n c\r\n\r\n", end(10, 12)),
            ("From x\r\nA: b\r\n\r\n", end(14, 16)),
            ("no header\r\n", end(0, 0)),
            (" text\r\n", end(0, 0)),
            ("A: b\r\ntext\r\n", end(6, 6)),
            ("\r\ntext", end(0, 2)),
            ("A: b\r\nB", Found::NotYet(6)),
            ("", Found::NotYet(0)),
        ] {
            assert_eq!(find_end(text.as_bytes(), 0), wanted, "{text:?}");
        }
    }

    #[test]
    fn who_is_named() {
        let header = b"To: Ann <ann@x>, bob\r\nCc: list: c@x, \"d e\"@x;\r\nBCC: f@x\r\n";
        let found = named(header);
        assert_eq!(
            found.recipients,
            ["ann@x", "bob", "c@x", "\"d e\"@x", "f@x"]
        );
        assert!(!found.has_from);
        let again = named(b"From: g\r\nTo: ann@x\r\nResent-To: h@x\r\nResent-Bcc: i@x\r\n");
        assert_eq!(again.recipients, ["h@x", "i@x"]);
        assert!(again.has_from);
    }

    #[test]
    fn blind_copies_stay_blind() {
        let header = b"From ann Sun Nov 22\r\nTo: a\r\nBcc: b,\r\n c\r\nSubject: s\r\n";
        assert_eq!(
            String::from_utf8(finished(header, Some("Ann <ann@x>"))).unwrap(),
            "To: a\r\nSubject: s\r\nFrom: Ann <ann@x>\r\n\r\n"
        );
        assert_eq!(finished(b"", None), b"\r\n");
    }
}
