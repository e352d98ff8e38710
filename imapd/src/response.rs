//! How responses are written (RFC 3501 7, 9): strings, flags, codes.

use base::date::Date;
use store::request::{Message, Selected, Updates};
use store::{Flags, Keyword};

/// A quoted string longer than this goes as a literal, which clients read without scanning.
const MAX_QUOTED: usize = 1000;

/// `nstring`
pub(crate) fn nstring(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// `string`: quoted where it can be, else a literal. A NUL, which IMAP cannot carry, becomes 0x80.
pub(crate) fn string(out: &mut Vec<u8>, text: &[u8]) {
    let quotable =
        text.len() <= MAX_QUOTED && text.iter().all(|b| matches!(b, b' '..=b'~' | b'\t'));
    if !quotable {
        out.extend_from_slice(format!("{{{}}}\r\n", text.len()).as_bytes());
        return body(out, text);
    }
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Octets of a literal.
pub(crate) fn body(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.extend_from_slice(bytes);
    if memchr::memchr(0, bytes).is_some() {
        for byte in out.iter_mut().skip(start).filter(|b| **b == 0) {
            *byte = 0x80;
        }
    }
}

/// `mailbox`: an atom where it can be, else a string.
pub(crate) fn mailbox(out: &mut Vec<u8>, name: &str) {
    let name = crate::utf7::encode(name);
    let atom = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_./+&,".contains(&b));
    if atom && !name.is_empty() && !name.eq_ignore_ascii_case("NIL") {
        out.extend_from_slice(name.as_bytes());
    } else {
        string(out, name.as_bytes());
    }
}

const NAMES: [(Flags, &str); 5] = [
    (Flags::ANSWERED, "\\Answered"),
    (Flags::FLAGGED, "\\Flagged"),
    (Flags::DELETED, "\\Deleted"),
    (Flags::SEEN, "\\Seen"),
    (Flags::DRAFT, "\\Draft"),
];

/// `(\Seen work)`
pub(crate) fn flags(message: &Message) -> String {
    let system = NAMES
        .iter()
        .filter(|(flag, _)| message.flags.has(*flag))
        .map(|(_, name)| *name);
    let recent = message.recent.then_some("\\Recent");
    let words: Vec<&str> = system
        .chain(recent)
        .chain(message.keywords.iter().map(Keyword::as_str))
        .collect();
    format!("({})", words.join(" "))
}

/// `* FLAGS (...)`, and the PERMANENTFLAGS that go with it.
pub(crate) fn mailbox_flags(out: &mut Vec<u8>, keywords: &[Keyword]) {
    let words: Vec<&str> = NAMES
        .iter()
        .map(|(_, name)| *name)
        .chain(keywords.iter().map(Keyword::as_str))
        .collect();
    line(out, &format!("* FLAGS ({})", words.join(" ")));
}

/// `* OK [PERMANENTFLAGS (...)]`
pub(crate) fn permanent_flags(out: &mut Vec<u8>, selected: &Selected) {
    let text = if selected.read_only {
        "* OK [PERMANENTFLAGS ()] Read-only mailbox".to_owned()
    } else {
        let mut words: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
        words.extend(selected.keywords.iter().map(Keyword::as_str));
        words.extend(selected.new_keywords.then_some("\\*"));
        format!("* OK [PERMANENTFLAGS ({})] Limited", words.join(" "))
    };
    line(out, &text);
}

/// The untagged responses of SELECT and EXAMINE (RFC 3501 6.3.1).
pub(crate) fn selected(out: &mut Vec<u8>, selected: &Selected) {
    mailbox_flags(out, &selected.keywords);
    permanent_flags(out, selected);
    line(out, &format!("* {} EXISTS", selected.exists));
    line(out, &format!("* {} RECENT", selected.recent));
    if let Some(unseen) = selected.first_unseen {
        line(out, &format!("* OK [UNSEEN {unseen}] First unseen"));
    }
    line(
        out,
        &format!("* OK [UIDVALIDITY {}] UIDs valid", selected.uidvalidity),
    );
    line(
        out,
        &format!("* OK [UIDNEXT {}] Predicted next UID", selected.uidnext),
    );
}

/// What changed, in the order in which it must be told.
pub(crate) fn updates(out: &mut Vec<u8>, updates: &Updates) {
    for number in &updates.expunged {
        line(out, &format!("* {number} EXPUNGE"));
    }
    if let Some(exists) = updates.exists {
        line(out, &format!("* {exists} EXISTS"));
    }
    if let Some(recent) = updates.recent {
        line(out, &format!("* {recent} RECENT"));
    }
    if let Some(keywords) = &updates.keywords {
        mailbox_flags(out, keywords);
    }
    for message in &updates.changed {
        line(
            out,
            &format!(
                "* {} FETCH (UID {} FLAGS {})",
                message.seq,
                message.uid,
                flags(message)
            ),
        );
    }
}

/// `"17-Jul-1996 02:44:25 -0700"` in this host's zone
pub(crate) fn internal_date(unix: i64) -> String {
    format!("\"{}\"", Date::local(unix).imap())
}

/// The day of an INTERNALDATE as [`internal_date`] shows it, since 1970.
pub(crate) fn internal_day(unix: i64) -> i64 {
    let date = Date::local(unix);
    base::date::days_from_civil(date.year, date.month, date.day)
}

/// A line.
pub(crate) fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `uid-set` of RFC 4315 in the given order, runs joined: `304,319:320`.
pub(crate) fn uid_set(uids: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &uid in uids {
        match runs.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(uid) => *end = uid,
            _ => runs.push((uid, uid)),
        }
    }
    let words: Vec<String> = runs
        .into_iter()
        .map(|(a, b)| {
            if a == b {
                a.to_string()
            } else {
                format!("{a}:{b}")
            }
        })
        .collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8]) -> String {
        let mut out = Vec::new();
        string(&mut out, text);
        out.escape_ascii().to_string()
    }

    #[test]
    fn strings() {
        let table: &[(&[u8], &str)] = &[
            (b"", "\\\"\\\""),
            (b"a b", "\\\"a b\\\""),
            (b"a\"\\", "\\\"a\\\\\\\"\\\\\\\\\\\""),
            (b"a\r\nb", "{4}\\r\\na\\r\\nb"),
            (b"\xe9\0", "{2}\\r\\n\\xe9\\x80"),
        ];
        for (text, want) in table {
            assert_eq!(written(text), *want);
        }
    }

    #[test]
    fn mailboxes() {
        for (name, want) in [
            ("INBOX", "INBOX"),
            ("a b", "\"a b\""),
            ("台", "&U,A-"),
            ("nil", "\"nil\""),
        ] {
            let mut out = Vec::new();
            mailbox(&mut out, name);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn uid_sets() {
        assert_eq!(uid_set(&[304, 319, 320, 5]), "304,319:320,5");
        assert_eq!(uid_set(&[]), "");
    }
}
