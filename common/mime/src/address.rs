//! Address lists of header fields (RFC 5322 3.4), with what real mail does to them: obsolete routes,
//! phrases with dots, missing domains, the name in a comment behind the address.
//!
//! The result is flat, in the order IMAP's ENVELOPE wants it (RFC 3501 7.4.2): a group is a start and
//! an end among the mailboxes. Names are left encoded (RFC 2047); see `words::decode`.

use crate::token::{ADDRESS, Spaced, Token, Tokens};

/// The most entries of one list; what follows is left out.
pub const MAX_ENTRIES: usize = 10_000;

/// One element of an address list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Mailbox(Mailbox),
    /// `name:` of a group.
    GroupStart(Vec<u8>),
    /// `;` of a group.
    GroupEnd,
}

/// One address of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// The display name, or the comment that stands for it; not decoded.
    pub name: Option<Vec<u8>>,
    /// The source route (RFC 5322 4.4): `@a,@b`.
    pub route: Option<Vec<u8>>,
    /// The local-part, unquoted.
    pub local: Vec<u8>,
    /// The domain; empty when the list does not say one.
    pub host: Vec<u8>,
}

impl Mailbox {
    /// `local@host` with the local-part quoted where it must be; `local` alone without a domain.
    pub fn address(&self) -> Vec<u8> {
        let mut address = quote_local(&self.local);
        if !self.host.is_empty() {
            address.push(b'@');
            address.extend_from_slice(&self.host);
        }
        address
    }
}

/// All entries of a field's value.
pub fn list(value: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::default();
    for spaced in Tokens::new(value, ADDRESS) {
        if reader.entries.len() >= MAX_ENTRIES {
            return reader.entries;
        }
        reader.token(spaced);
    }
    reader.finish_address();
    if reader.in_group {
        reader.entries.push(Entry::GroupEnd);
    }
    reader.entries
}

/// The mailboxes of a field's value, of groups too.
pub fn mailboxes(value: &[u8]) -> Vec<Mailbox> {
    let mailbox = |entry| match entry {
        Entry::Mailbox(mailbox) => Some(mailbox),
        Entry::GroupStart(_) | Entry::GroupEnd => None,
    };
    list(value).into_iter().filter_map(mailbox).collect()
}

/// The bare addresses of a field's value: what `sendmail -t` sends to. What is not UTF-8 is left out.
pub fn addresses(value: &[u8]) -> Vec<String> {
    mailboxes(value)
        .iter()
        .filter_map(|m| String::from_utf8(m.address()).ok())
        .collect()
}

#[derive(Debug, Default)]
struct Reader {
    entries: Vec<Entry>,
    in_group: bool,
    /// What stands outside angle brackets.
    words: Vec<Spaced>,
    comment: Option<Vec<u8>>,
    angle: Angle,
}

/// Where we are with respect to `<...>`.
#[derive(Debug, Default)]
enum Angle {
    #[default]
    Before,
    Inside(Vec<Spaced>),
    After(Mailbox),
}

impl Reader {
    fn token(&mut self, spaced: Spaced) {
        if let Token::Comment(text) = spaced.token {
            self.comment = Some(text);
            return;
        }
        if let Angle::Inside(inside) = &mut self.angle {
            if spaced.token == Token::Special(b'>') {
                let name = phrase(&self.words);
                let mut mailbox = spec(inside);
                mailbox.name = Some(name).filter(|n| !n.is_empty());
                self.angle = Angle::After(mailbox);
            } else {
                inside.push(spaced);
            }
            return;
        }
        match spaced.token {
            Token::Special(b',') => self.finish_address(),
            Token::Special(b';') => {
                self.finish_address();
                if std::mem::take(&mut self.in_group) {
                    self.entries.push(Entry::GroupEnd);
                }
            }
            Token::Special(b':') if !self.in_group && self.may_be_group() => {
                let name = phrase(&self.words);
                self.entries.push(Entry::GroupStart(name));
                self.in_group = true;
                self.clear();
            }
            Token::Special(b'<') => {
                if matches!(self.angle, Angle::Before) {
                    self.angle = Angle::Inside(Vec::new());
                }
            }
            Token::Special(b'>') => {}
            _ => self.words.push(spaced),
        }
    }

    fn may_be_group(&self) -> bool {
        matches!(self.angle, Angle::Before)
            && !self.words.iter().any(|w| w.token == Token::Special(b'@'))
    }

    fn clear(&mut self) {
        self.words.clear();
        self.comment = None;
        self.angle = Angle::Before;
    }

    fn finish_address(&mut self) {
        let mailbox = match std::mem::take(&mut self.angle) {
            Angle::Before if self.words.is_empty() => None,
            Angle::Before => Some(spec(&self.words)),
            // `<` was never closed.
            Angle::Inside(inside) => {
                let name = Some(phrase(&self.words)).filter(|n| !n.is_empty());
                Some(Mailbox {
                    name,
                    ..spec(&inside)
                })
            }
            Angle::After(mailbox) => Some(mailbox),
        };
        if let Some(mut mailbox) = mailbox {
            if mailbox.name.is_none() {
                mailbox.name = self
                    .comment
                    .take()
                    .map(|c| c.trim_ascii().to_vec())
                    .filter(|c| !c.is_empty());
            }
            if !mailbox.local.is_empty() || !mailbox.host.is_empty() || mailbox.name.is_some() {
                self.entries.push(Entry::Mailbox(mailbox));
            }
        }
        self.clear();
    }
}

/// The text of a phrase: words with one space where there was white space.
fn phrase(words: &[Spaced]) -> Vec<u8> {
    let mut text = Vec::new();
    for word in words {
        if word.space && !text.is_empty() {
            text.push(b' ');
        }
        append(&mut text, &word.token);
    }
    text
}

fn append(text: &mut Vec<u8>, token: &Token) {
    match token {
        Token::Atom(t) | Token::Quoted(t) | Token::Literal(t) => text.extend_from_slice(t),
        Token::Special(b) => text.push(*b),
        Token::Comment(_) => {}
    }
}

/// `addr-spec`, or `[obs-route] addr-spec`: the last `@` divides.
fn spec(words: &[Spaced]) -> Mailbox {
    let mut mailbox = Mailbox::default();
    let mut rest = words;
    let starts_with_at = rest
        .first()
        .is_some_and(|w| w.token == Token::Special(b'@'));
    if starts_with_at && let Some(colon) = position(rest, b':') {
        let (route, after) = rest.split_at(colon);
        mailbox.route = Some(join(route));
        rest = after.get(1..).unwrap_or_default();
    }
    let at = rest.iter().rposition(|w| w.token == Token::Special(b'@'));
    let (local, host) = match at {
        Some(at) => (rest.get(..at), rest.get(at + 1..)),
        None => (Some(rest), None),
    };
    mailbox.local = local.map(phrase).unwrap_or_default();
    mailbox.host = host.map(join).unwrap_or_default();
    // `a @ b . c` is an obsolete form of `a@b.c`; spaces around dots vanish.
    if local.is_some_and(|l| l.iter().all(|w| !matches!(w.token, Token::Quoted(_)))) && at.is_some()
    {
        mailbox.local.retain(|b| *b != b' ');
    }
    mailbox
}

fn position(words: &[Spaced], special: u8) -> Option<usize> {
    words
        .iter()
        .position(|w| w.token == Token::Special(special))
}

fn join(words: &[Spaced]) -> Vec<u8> {
    let mut text = Vec::new();
    for word in words {
        append(&mut text, &word.token);
    }
    text
}

/// RFC 5322 3.4.1: a dot-atom stays, all else becomes a quoted-string.
fn quote_local(local: &[u8]) -> Vec<u8> {
    let dot_atom = !local.is_empty()
        && local.split(|b| *b == b'.').all(|atom| {
            !atom.is_empty()
                && atom
                    .iter()
                    .all(|b| !ADDRESS.contains(b) && *b > b' ' && *b != 127)
        });
    if dot_atom {
        return local.to_vec();
    }
    let mut quoted = vec![b'"'];
    for &byte in local {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// name|route|local|host, `G:name` and `;` for groups.
    fn show(value: &str) -> Vec<String> {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let option = |b: &Option<Vec<u8>>| b.as_deref().map_or_else(|| "-".into(), text);
        list(value.as_bytes())
            .iter()
            .map(|entry| match entry {
                Entry::Mailbox(m) => format!(
                    "{}|{}|{}|{}",
                    option(&m.name),
                    option(&m.route),
                    text(&m.local),
                    text(&m.host)
                ),
                Entry::GroupStart(name) => format!("G:{}", text(name)),
                Entry::GroupEnd => ";".into(),
            })
            .collect()
    }

    #[test]
    fn lists() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            (" , ,", &[]),
            ("ann@b.c", &["-|-|ann|b.c"]),
            ("Ann B <ann@b.c>", &["Ann B|-|ann|b.c"]),
            (
                "\"B, Ann\" <ann@b.c>, bob@d",
                &["B, Ann|-|ann|b.c", "-|-|bob|d"],
            ),
            ("ann@b.c (Ann B)", &["Ann B|-|ann|b.c"]),
            ("John Q. Public <jqp@x>", &["John Q. Public|-|jqp|x"]),
            ("<@a,@b:c@d>", &["-|@a,@b|c|d"]),
            (
                "Friends: a@b, \"C D\" <e@f>;, g@h",
                &["G:Friends", "-|-|a|b", "C D|-|e|f", ";", "-|-|g|h"],
            ),
            (
                "undisclosed-recipients:;",
                &["G:undisclosed-recipients", ";"],
            ),
            ("A: b@c", &["G:A", "-|-|b|c", ";"]),
            ("a . b @ c . d", &["-|-|a.b|c.d"]),
            ("\"a b\"@c", &["-|-|a b|c"]),
            ("user", &["-|-|user|"]),
            ("Ann <ann@b.c", &["Ann|-|ann|b.c"]),
            ("<>", &[]),
            ("ann@[192.0.2.1]", &["-|-|ann|[192.0.2.1]"]),
            ("=?UTF-8?B?44GC?= <a@b>", &["=?UTF-8?B?44GC?=|-|a|b"]),
            ("Ann (comment) B <a@b> (more)", &["Ann B|-|a|b"]),
            ("a@b@c", &["-|-|a@b|c"]),
        ];
        for (value, want) in table {
            assert_eq!(show(value), *want, "{value}");
        }
    }

    #[test]
    fn bare_addresses() {
        assert_eq!(
            addresses(b"Ann <ann@b.c>, \"odd one\"@d.e, F: g@h;, local"),
            ["ann@b.c", "\"odd one\"@d.e", "g@h", "local"]
        );
    }

    #[test]
    fn a_list_has_an_end() {
        let many = b"a@b,".repeat(MAX_ENTRIES * 2);
        assert_eq!(list(&many).len(), MAX_ENTRIES);
    }
}
