//! Whether a message matches a SEARCH key: logic with three values, so that no more of a message is
//! read than decides it.
//!
//! Texts are compared as Unicode without regard to case: what the client sent from the charset of the
//! command, header fields with their encoded words decoded, bodies out of their transfer encoding and
//! charset.

use mime::structure::Structure;
use mime::{charset, date, header, words};
use store::request::Message;

use crate::key::Key;
use crate::response::internal_day;

/// The charset of a SEARCH is not known here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Charset;

/// A key ready for use.
#[derive(Debug)]
pub(crate) struct Matcher {
    key: Key,
    last_seq: u32,
    last_uid: u32,
}

/// What is known of a message.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    message: &'a Message,
    header: Option<&'a [u8]>,
    text: Option<Text>,
}

#[derive(Debug)]
struct Text {
    header: String,
    body: String,
}

impl<'a> Seen<'a> {
    /// Only what the list of messages tells.
    pub(crate) fn listed(message: &'a Message) -> Self {
        Self {
            message,
            header: None,
            text: None,
        }
    }

    /// The header too.
    pub(crate) fn header(message: &'a Message, header: &'a [u8]) -> Self {
        Self {
            message,
            header: Some(header),
            text: None,
        }
    }

    /// Everything.
    pub(crate) fn whole(message: &'a Message, header: &'a [u8], whole: &[u8]) -> Self {
        let text = Text {
            header: header_text(header),
            body: body_text(whole),
        };
        Self {
            message,
            header: Some(header),
            text: Some(text),
        }
    }
}

impl Matcher {
    pub(crate) fn new(key: Key, name: Option<&[u8]>) -> Result<Self, Charset> {
        let name = name.unwrap_or(b"UTF-8");
        if !charset::is_known(name) {
            return Err(Charset);
        }
        Ok(Self {
            key: decoded(key, name),
            last_seq: 0,
            last_uid: 0,
        })
    }

    /// What `*` means.
    pub(crate) fn last(&mut self, seq: u32, uid: u32) {
        (self.last_seq, self.last_uid) = (seq, uid);
    }

    /// `None` when more must be known.
    pub(crate) fn decide(&self, seen: &Seen<'_>) -> Option<bool> {
        self.key(&self.key, seen)
    }

    /// As deep as `key::MAX_DEPTH`.
    fn key(&self, key: &Key, seen: &Seen<'_>) -> Option<bool> {
        let message = seen.message;
        Some(match key {
            Key::All => true,
            Key::Flag(flag) => message.flags.has(*flag),
            Key::Keyword(keyword) => keyword
                .as_ref()
                .is_some_and(|k| message.keywords.iter().any(|has| has.is(k))),
            Key::Recent => message.recent,
            Key::Seq(ranges) => ranges.contains(message.seq, self.last_seq),
            Key::Uid(ranges) => ranges.contains(message.uid, self.last_uid),
            Key::Larger(size) => message.size > u64::from(*size),
            Key::Smaller(size) => message.size < u64::from(*size),
            Key::Day(when, day) => when.holds(internal_day(message.date), *day),
            Key::Sent(when, day) => {
                let field = header::value(seen.header?, "Date");
                let sent = field.and_then(|value| date::parse(&value));
                sent.is_some_and(|stamp| when.holds(stamp.day(), *day))
            }
            Key::Header { name, text } => {
                let fields = header::fields(seen.header?);
                let named = fields.filter(|f| f.name.eq_ignore_ascii_case(name));
                let text = as_text(text);
                let mut values = named.map(|f| fold(&words::decode(f.raw)));
                values.any(|value| value.contains(text))
            }
            Key::Body(text) => seen.text.as_ref()?.body.contains(as_text(text)),
            Key::Text(text) => {
                let all = seen.text.as_ref()?;
                all.header.contains(as_text(text)) || all.body.contains(as_text(text))
            }
            Key::Not(key) => !self.key(key, seen)?,
            Key::Or(both) => {
                let (one, other) = (self.key(&both.0, seen), self.key(&both.1, seen));
                return any([one, other]);
            }
            Key::And(keys) => {
                let none = any(keys.iter().map(|key| self.key(key, seen).map(|is| !is)));
                return none.map(|none| !none);
            }
        })
    }
}

/// True as soon as one is, unknown before false.
fn any(values: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    let mut known = true;
    for value in values {
        match value {
            Some(true) => return Some(true),
            Some(false) => {}
            None => known = false,
        }
    }
    known.then_some(false)
}

/// Without regard to case.
fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// The key's texts as folded UTF-8; names of fields stay.
fn decoded(key: Key, name: &[u8]) -> Key {
    let text = |bytes: Vec<u8>| fold(&charset::decode(name, &bytes)).into_bytes();
    match key {
        Key::Header {
            name: field,
            text: value,
        } => Key::Header {
            name: field,
            text: text(value),
        },
        Key::Body(value) => Key::Body(text(value)),
        Key::Text(value) => Key::Text(text(value)),
        Key::Not(key) => Key::Not(Box::new(decoded(*key, name))),
        Key::Or(both) => {
            let (one, other) = *both;
            Key::Or(Box::new((decoded(one, name), decoded(other, name))))
        }
        Key::And(keys) => Key::And(keys.into_iter().map(|key| decoded(key, name)).collect()),
        other => other,
    }
}

/// What [`decoded`] made is UTF-8.
fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn header_text(text: &[u8]) -> String {
    let mut folded = String::new();
    for field in header::fields(text) {
        folded.push_str(&fold(&String::from_utf8_lossy(field.name)));
        folded.push_str(": ");
        folded.push_str(&fold(&words::decode(field.raw)));
        folded.push('\n');
    }
    folded
}

/// The text of all text parts, and the headers of embedded messages.
fn body_text(whole: &[u8]) -> String {
    let structure = Structure::parse(whole);
    let mut folded = String::new();
    for (index, part) in structure.parts.iter().enumerate() {
        if index > 0 && !part.header_text.is_empty() {
            folded.push_str(&header_text(&part.header_text));
        }
        if part.children.is_empty() && (part.content.is_text() || part.content.kind == "MESSAGE") {
            let body = structure.slice(whole, &part.body);
            let plain = part.content.transfer_encoding().decode(body);
            folded.push_str(&fold(&charset::decode(&part.content.charset(), &plain)));
            folded.push('\n');
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::program;
    use store::{Flags, Keyword};

    const MESSAGE: &str = "From: Smith <smith@x.y>\r\nSubject: =?ISO-2022-JP?B?GyRCN29MPhsoQg==?= Caf\u{e9}\r\n\
        Date: Tue, 1 Feb 1994 23:30:00 -0800\r\nX-Empty:\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
        Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n\x1b$BF|K\\8l\x1b(B\r\n--b\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nSGVsbG8gV29ybGQ=\r\n--b\r\n\
        Content-Type: image/png\r\n\r\nsecret\r\n--b--\r\n";

    fn message() -> Message {
        Message {
            seq: 3,
            uid: 30,
            flags: Flags::SEEN,
            recent: true,
            keywords: vec![Keyword::new("Work").unwrap()],
            date: 760_000_000,
            size: 500,
        }
    }

    fn matches(key: &str, charset: &str) -> bool {
        let (rest, key) = program(key.as_bytes()).unwrap();
        assert!(rest.is_empty());
        let mut matcher = Matcher::new(key, Some(charset.as_bytes())).unwrap();
        matcher.last(3, 30);
        let end = header::body_start(MESSAGE.as_bytes());
        let message = message();
        let whole = Seen::whole(&message, &MESSAGE.as_bytes()[..end], MESSAGE.as_bytes());
        let decided = matcher.decide(&whole).unwrap();
        // What less knowledge decides is the same.
        let listed = matcher.decide(&Seen::listed(&message));
        assert!(listed.is_none_or(|d| d == decided));
        decided
    }

    #[test]
    fn keys() {
        let table = [
            ("ALL", true),
            ("SEEN", true),
            ("UNSEEN", false),
            ("RECENT SEEN", true),
            ("NEW", false),
            ("OLD", false),
            ("KEYWORD work", true),
            ("UNKEYWORD work", false),
            ("KEYWORD other", false),
            ("1:2", false),
            ("3", true),
            ("*", true),
            ("99:*", true),
            ("UID 30", true),
            ("UID 31", false),
            ("LARGER 499", true),
            ("LARGER 500", false),
            ("SMALLER 501", true),
            ("SENTON 1-Feb-1994", true),
            ("SENTBEFORE 1-Feb-1994", false),
            ("SENTSINCE 2-Feb-1994", false),
            ("ON 31-Jan-1994", true),
            ("BEFORE 31-Jan-1994", false),
            ("FROM smith", true),
            ("FROM \"SMITH@X\"", true),
            ("TO smith", false),
            ("SUBJECT 件名", true),
            ("SUBJECT \"CAFÉ\"", true),
            ("HEADER X-Empty \"\"", true),
            ("HEADER X-None \"\"", false),
            ("BODY 日本語", true),
            ("BODY \"hello world\"", true),
            ("BODY smith", false),
            ("TEXT smith", true),
            ("BODY secret", false),
            ("NOT FROM smith", false),
            ("OR FROM nobody BODY hello", true),
            ("OR UNSEEN DRAFT", false),
            ("(SEEN FROM smith) NOT DELETED", true),
        ];
        for (key, want) in table {
            let mut literal = String::new();
            for word in key.split(' ') {
                let word = word.trim_matches('"');
                let sent = if word.is_ascii() {
                    word.into()
                } else {
                    format!("{{{}}}\r\n{word}", word.len())
                };
                literal += &format!("{}{sent}", if literal.is_empty() { "" } else { " " });
            }
            let key = if key.contains('"') && key.is_ascii() {
                key.to_owned()
            } else {
                literal
            };
            assert_eq!(matches(&key, "UTF-8"), want, "{key}");
        }
    }

    #[test]
    fn charsets() {
        let (_, key) = program(b"BODY {6}\r\n\x93\xfa\x96\x7b\x8c\xea").unwrap();
        let matcher = Matcher::new(key, Some(b"Shift_JIS")).unwrap();
        let message = message();
        assert_eq!(
            matcher.decide(&Seen::whole(&message, b"", MESSAGE.as_bytes())),
            Some(true)
        );
        assert_eq!(Matcher::new(Key::All, Some(b"x-none")).err(), Some(Charset));
    }
}
