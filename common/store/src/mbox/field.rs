//! The header fields in which an mbox keeps its state, and the quoting that keeps messages apart.
//!
//! | field | holds | known to |
//! |---|---|---|
//! | `Status` | `R` seen, `O` not new | every mailx, mutt |
//! | `X-Status` | `A` answered, `F` flagged, `T` draft, `D` deleted | c-client, Dovecot, mutt |
//! | `X-Keywords` | keywords, blanks between | c-client, Dovecot |
//! | `X-UID` | the UID | c-client, Dovecot |
//! | `X-IMAPbase` | in the first message: UIDVALIDITY, the last UID given, keywords | the same |
//! | `X-IMAP` | the same, in a first message that is no message | the same |
//! | `X-UIDVALIDITY` | to which UIDVALIDITY this X-UID belongs | us |
//! | `X-Delivery-Id` | which delivery wrote this message | us |
//! | `X-Mbox-Eol: none` | the message does not end with a line end | us |
//! | `Content-Length` | not believed, but hidden, since it counts what we change | some mailx |
//!
//! None of them is shown to a client. In mail that comes in they are forgeable, so an append puts
//! `X-Orig-` before their names.
//!
//! Quoting is mboxrd: every line of `>`s and `From ` gets one `>` more, and loses one when read, so
//! that what was submitted is what is served.

use crate::flags::{Flags, Keyword};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Status,
    XStatus,
    Keywords,
    Uid,
    Base,
    Pseudo,
    Validity,
    DeliveryId,
    Eol,
    ContentLength,
}

const NAMES: [(&[u8], Field); 10] = [
    (b"Status", Field::Status),
    (b"X-Status", Field::XStatus),
    (b"X-Keywords", Field::Keywords),
    (b"X-UID", Field::Uid),
    (b"X-IMAPbase", Field::Base),
    (b"X-IMAP", Field::Pseudo),
    (b"X-UIDVALIDITY", Field::Validity),
    (b"X-Delivery-Id", Field::DeliveryId),
    (b"X-Mbox-Eol", Field::Eol),
    (b"Content-Length", Field::ContentLength),
];

/// What an append puts before the names of such fields.
pub(crate) const RENAMED: &[u8] = b"X-Orig-";

/// Which of our fields a header line is, and its value with the blanks around it.
pub(crate) fn parse(line: &[u8]) -> Option<(Field, &[u8])> {
    // Most lines are decided by their first octet.
    if !matches!(line.first()?, b'S' | b's' | b'X' | b'x' | b'C' | b'c') {
        return None;
    }
    let colon = line.iter().take(40).position(|b| *b == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let name = name.trim_ascii_end();
    let (_, field) = NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
    Some((*field, value.get(1..)?))
}

/// The number in a value: digits between blanks, up to 4,294,967,295; 0 for anything else.
pub(crate) fn number(value: &[u8]) -> u32 {
    let digits = value.trim_ascii();
    if !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|d| d.parse().ok())
        .unwrap_or(0)
}

/// UIDVALIDITY and the last UID of an X-IMAPbase, if it has both, and what stands behind them.
pub(crate) fn base(value: &[u8]) -> Option<(u32, u32, &[u8])> {
    let value = value.trim_ascii();
    let (validity, rest) = value.split_at(value.iter().position(|b| *b == b' ')?);
    let rest = rest.trim_ascii_start();
    let (last, rest) = rest.split_at(rest.iter().position(|b| *b == b' ').unwrap_or(rest.len()));
    let digits = |d: &[u8]| !d.is_empty() && d.iter().all(u8::is_ascii_digit);
    let validity = number(validity);
    (validity > 0 && digits(last)).then(|| (validity, number(last), rest.trim_ascii_start()))
}

/// Adds the flags of a Status or X-Status; whether it has `O`.
pub(crate) fn status(value: &[u8], flags: &mut Flags) -> bool {
    for b in value {
        *flags = flags.with(match b {
            b'R' => Flags::SEEN,
            b'A' => Flags::ANSWERED,
            b'F' => Flags::FLAGGED,
            b'T' => Flags::DRAFT,
            b'D' => Flags::DELETED,
            _ => Flags::NONE,
        });
    }
    value.contains(&b'O')
}

/// The value of Status.
pub(crate) fn status_text(flags: Flags, old: bool) -> String {
    letters(&[(flags.has(Flags::SEEN), 'R'), (old, 'O')])
}

/// The value of X-Status.
pub(crate) fn x_status_text(flags: Flags) -> String {
    letters(&[
        (flags.has(Flags::ANSWERED), 'A'),
        (flags.has(Flags::FLAGGED), 'F'),
        (flags.has(Flags::DRAFT), 'T'),
        (flags.has(Flags::DELETED), 'D'),
    ])
}

fn letters(set: &[(bool, char)]) -> String {
    set.iter().filter(|(on, _)| *on).map(|(_, c)| c).collect()
}

/// The value of X-Keywords.
pub(crate) fn keywords(value: &[u8]) -> impl Iterator<Item = Keyword> {
    value
        .split(u8::is_ascii_whitespace)
        .filter_map(|word| std::str::from_utf8(word).ok().and_then(Keyword::new))
}

/// A line with this many `>`s is quoted whatever follows them, so that no more need be looked at.
const MANY: usize = 1000;

/// Whether a line gets one `>` more when it is written.
pub(crate) fn wants_quote(head: &[u8]) -> bool {
    quotes(head).is_some()
}

/// Whether a line loses one `>` when it is read: those that [`wants_quote`] gave one.
pub(crate) fn is_quoted(head: &[u8]) -> bool {
    head.strip_prefix(b">").is_some_and(wants_quote)
}

fn quotes(head: &[u8]) -> Option<usize> {
    if !matches!(head.first()?, b'>' | b'F') {
        return None;
    }
    let n = head.iter().take(MANY).take_while(|b| **b == b'>').count();
    (n == MANY || head.get(n..)?.starts_with(b"From ")).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_any_case() {
        for (line, field) in [
            ("Status: RO", Some(Field::Status)),
            ("x-uid : 5", Some(Field::Uid)),
            ("X-IMAP: 1 2", Some(Field::Pseudo)),
            ("X-IMAPbase: 1 2", Some(Field::Base)),
            ("X-Status", None),
            ("X-UIDL: 5", None),
            (" Status: RO", None),
            ("Subject: Status: RO", None),
            ("", None),
        ] {
            assert_eq!(parse(line.as_bytes()).map(|(f, _)| f), field, "{line}");
        }
    }

    #[test]
    fn numbers_are_digits_only() {
        for (text, n) in [
            (" 5 ", 5),
            ("05", 5),
            ("5x", 0),
            ("", 0),
            ("-1", 0),
            ("4294967296", 0),
        ] {
            assert_eq!(number(text.as_bytes()), n, "{text}");
        }
        assert_eq!(base(b" 17 0000000004 a b "), Some((17, 4, &b"a b"[..])));
        for bad in [" 17", "0 4", "x 4", "17 x", ""] {
            assert_eq!(base(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn quoting_is_undone_at_every_depth() {
        for n in [0, 1, 2, MANY - 1, MANY, MANY + 1, MANY + 2, 2000] {
            for end in ["From x", "", "x"] {
                let line = [">".repeat(n).as_str(), end].concat();
                let written = if wants_quote(line.as_bytes()) {
                    format!(">{line}")
                } else {
                    line.clone()
                };
                let read = if is_quoted(written.as_bytes()) {
                    written.strip_prefix('>').unwrap()
                } else {
                    &written
                };
                assert_eq!(read, line, "{n}");
                assert!(!written.starts_with("From "));
            }
        }
    }
}
