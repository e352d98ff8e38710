//! Writing state into a message's header: over what is there if it fits, else as a new header.

use super::field::{self, Field};
use crate::flags::{Flags, Keyword};

/// Room that a new X-Keywords leaves for keywords to come.
const PADDING: usize = 50;

/// What a message's fields shall say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Want {
    /// 0 leaves the UID to the next reader.
    pub(crate) uid: u32,
    pub(crate) uidvalidity: u32,
    /// In the first message: the last UID given.
    pub(crate) last: Option<u32>,
    pub(crate) flags: Flags,
    pub(crate) old: bool,
    pub(crate) keywords: Vec<Keyword>,
}

/// Octets over others, at offsets in a header.
pub(crate) type Values = Vec<(usize, Vec<u8>)>;

/// How a header is changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// What is there has room.
    Values(Values),
    /// A new header, of the same length where padding allowed.
    Header(Vec<u8>),
}

impl Want {
    /// The fields of a new message, but for those of its delivery.
    pub(crate) fn block(&self, names: &str) -> Vec<u8> {
        let mut block = String::new();
        if self.uid > 0 {
            block += &format!("X-UIDVALIDITY: {}\n", self.uidvalidity);
            if let Some(last) = self.last {
                let blank = if names.is_empty() { "" } else { " " };
                block += &format!(
                    "X-IMAPbase: {} {last:010}{blank}{names}\n",
                    self.uidvalidity
                );
            }
            block += &format!("X-UID: {:<10}\n", self.uid);
        }
        block += &format!("Status: {:<2}\n", field::status_text(self.flags, self.old));
        block += &format!("X-Status: {:<4}\n", field::x_status_text(self.flags));
        block += &format!("X-Keywords: {:<PADDING$}\n", self.keyword_text());
        block.into_bytes()
    }

    fn keyword_text(&self) -> String {
        let words: Vec<&str> = self.keywords.iter().map(Keyword::as_str).collect();
        words.join(" ")
    }

    /// What a field shall say; `None` for a field that is not ours to set here.
    fn text(&self, field: Field, present: &[u8]) -> Option<String> {
        match field {
            Field::Status => Some(field::status_text(self.flags, self.old)),
            Field::XStatus => Some(field::x_status_text(self.flags)),
            Field::Keywords => Some(self.keyword_text()),
            Field::Uid => Some(self.uid.to_string()),
            Field::Validity => Some(self.uidvalidity.to_string()),
            Field::Base | Field::Pseudo => {
                let last = format!("{} {:010}", self.uidvalidity, self.last?);
                let names = names(present);
                Some(if names.is_empty() {
                    last
                } else {
                    format!("{last} {names}")
                })
            }
            Field::DeliveryId | Field::Eol | Field::ContentLength => None,
        }
    }
}

/// The keywords that an X-IMAPbase lists, which are others' and stay.
fn names(value: &[u8]) -> String {
    let rest = field::base(value).map_or(&b""[..], |(_, _, rest)| rest);
    String::from_utf8_lossy(rest).into_owned()
}

/// The change that makes `header` (up to and with its empty line) say what is wanted.
pub(crate) fn edit(header: &[u8], want: &Want) -> Edit {
    match values(header, want) {
        Some(values) => Edit::Values(values),
        None => Edit::Header(rebuild(header, want)),
    }
}

/// One line of a header, with its line end.
struct Line<'a> {
    at: usize,
    line: &'a [u8],
    /// Of what field of ours it is a part, and the value on its first line.
    field: Option<(Field, &'a [u8])>,
    /// Whether it continues the line before.
    goes_on: bool,
}

fn lines(header: &[u8]) -> Vec<Line<'_>> {
    let mut at = 0;
    let mut list: Vec<Line<'_>> = Vec::new();
    for line in header.split_inclusive(|b| *b == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let goes_on = matches!(text.first(), Some(b' ' | b'\t'));
        let field = if goes_on {
            list.last().and_then(|l| l.field)
        } else {
            field::parse(text)
        };
        list.push(Line {
            at,
            line,
            field,
            goes_on,
        });
        at += line.len();
    }
    list
}

/// The values over those that are there; `None` if one has no room or no line.
fn values(header: &[u8], want: &Want) -> Option<Values> {
    let mut out = Vec::new();
    let mut seen = Vec::new();
    for Line {
        at,
        line,
        field,
        goes_on,
    } in lines(header)
    {
        let Some((field, value)) = field else {
            continue;
        };
        let Some(text) = want.text(field, value) else {
            if field == Field::Base {
                return None;
            }
            continue;
        };
        if goes_on || seen.contains(&field) {
            return None;
        }
        seen.push(field);
        let colon = line.iter().position(|b| *b == b':')? + 1;
        let mut new = Vec::with_capacity(value.len());
        if !value.is_empty() {
            new.push(b' ');
            new.extend_from_slice(text.as_bytes());
        } else if !text.is_empty() {
            return None;
        }
        if new.len() > value.len() {
            // `Status:RO` and the like have room without the blank, if only just.
            new.remove(0);
        }
        if new.len() > value.len() {
            return None;
        }
        new.resize(value.len(), b' ');
        if new != value {
            out.push((at + colon, new));
        }
    }
    let has = |field| seen.contains(&field);
    let no_base = !has(Field::Base) && !has(Field::Pseudo);
    let missing = (!has(Field::Uid) && want.uid > 0)
        || (no_base && want.last.is_some())
        || (!has(Field::Status) && (want.old || want.flags.has(Flags::SEEN)))
        || (!has(Field::XStatus) && !field::x_status_text(want.flags).is_empty())
        || (!has(Field::Keywords) && !want.keywords.is_empty());
    (!missing).then_some(out)
}

/// The header with our fields made anew at its end. If that is not longer, it is made as long.
fn rebuild(header: &[u8], want: &Want) -> Vec<u8> {
    let (mut kept, mut end, mut base) = (Vec::new(), &b""[..], String::new());
    for Line { line, field, .. } in lines(header) {
        match field {
            None if matches!(line, b"\n" | b"\r\n") => end = line,
            Some((Field::Base, value)) => base = names(value),
            None
            | Some((Field::Pseudo | Field::DeliveryId | Field::Eol | Field::ContentLength, _)) => {
                kept.extend_from_slice(line);
            }
            Some(_) => {}
        }
    }
    if !kept.is_empty() && !kept.ends_with(b"\n") {
        kept.push(b'\n');
    }
    let mut block = want.block(&base);
    let room = header.len().checked_sub(kept.len() + end.len());
    let least = block.len() - PADDING.saturating_sub(want.keyword_text().len());
    if let Some(room) = room.filter(|room| *room >= least) {
        block.pop();
        block.resize(room - 1, b' ');
        block.push(b'\n');
    }
    [kept.as_slice(), &block, end].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want() -> Want {
        Want {
            uid: 5,
            uidvalidity: 17,
            last: None,
            flags: Flags::SEEN.with(Flags::DELETED),
            old: true,
            keywords: vec![Keyword::new("work").unwrap()],
        }
    }

    fn apply(header: &[u8], edit: Edit) -> Vec<u8> {
        match edit {
            Edit::Header(header) => header,
            Edit::Values(values) => {
                let mut out = header.to_vec();
                for (at, bytes) in values {
                    out[at..at + bytes.len()].copy_from_slice(&bytes);
                }
                out
            }
        }
    }

    #[test]
    fn our_own_block_is_always_edited_in_place() {
        let fresh = Want {
            uid: 5,
            uidvalidity: 17,
            last: Some(5),
            ..Want::default()
        };
        let header = [b"Subject: x\n".as_slice(), &fresh.block("a b"), b"\n"].concat();
        let first = Want {
            last: Some(6),
            ..want()
        };
        let edit = edit(&header, &first);
        assert!(matches!(edit, Edit::Values(_)), "{edit:?}");
        let out = String::from_utf8(apply(&header, edit)).unwrap();
        assert_eq!(out.len(), header.len());
        for line in [
            "X-IMAPbase: 17 0000000006 a b\n",
            "X-UID: 5 ",
            "Status: RO\n",
            "X-Status: D ",
            "X-Keywords: work ",
        ] {
            assert!(out.contains(line), "{out}");
        }
    }

    #[test]
    fn what_has_no_room_gets_a_new_header() {
        for header in [
            "Subject: x\n\n",
            "Subject: x\nStatus: O\n\n",
            "Subject: x\nX-UID: 5\nX-UIDVALIDITY: 17\nStatus: RO\nX-Status:\n\n",
            "X-UID: 1\nX-UID: 2\nX-IMAPbase: 1 2\n\n",
            "X-Keywords: a\n b\n\n",
            "Subject: x",
            "",
        ] {
            let Edit::Header(out) = edit(header.as_bytes(), &want()) else {
                panic!("{header:?} was edited in place");
            };
            let out = String::from_utf8(out).unwrap();
            assert_eq!(
                out.starts_with("Subject: x\n"),
                header.starts_with("Subject"),
                "{out:?}"
            );
            assert_eq!(out.ends_with("\n\n"), header.ends_with("\n\n"), "{out:?}");
            assert_eq!(out.matches("X-UID: 5").count(), 1);
            assert!(!out.contains("X-IMAPbase"));
            assert!(matches!(edit(out.as_bytes(), &want()), Edit::Values(v) if v.is_empty()));
        }
    }

    #[test]
    fn a_new_header_is_as_long_as_the_old_one_where_padding_allows() {
        let header = format!(
            "S: x\nX-Keywords: {}\nX-UID: 5\nStatus: O\nX-UIDVALIDITY: 17\n\n",
            " ".repeat(50)
        );
        let Edit::Header(out) = edit(header.as_bytes(), &want()) else {
            panic!()
        };
        assert_eq!(out.len(), header.len());
    }
}
