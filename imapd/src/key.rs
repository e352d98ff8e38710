//! What SEARCH can ask for (RFC 3501 6.4.4).

use nom::Parser;
use nom::branch::alt;
use nom::character::complete::char;
use nom::combinator::map;
use store::{Flags, Keyword, Ranges};

use crate::grammar::{Parsed, astring, atom, date, fail, number, ranges, sp};

/// `search-key`. Texts are as the client sent them: bytes in the charset of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    All,
    Flag(Flags),
    /// A word that can be no keyword is on no message.
    Keyword(Option<Keyword>),
    Recent,
    Seq(Ranges),
    Uid(Ranges),
    Larger(u32),
    Smaller(u32),
    /// INTERNALDATE, days since 1970
    Day(When, i64),
    /// the Date field
    Sent(When, i64),
    Header {
        name: Vec<u8>,
        text: Vec<u8>,
    },
    Body(Vec<u8>),
    Text(Vec<u8>),
    Not(Box<Self>),
    Or(Box<(Self, Self)>),
    And(Vec<Self>),
}

/// How a message's day relates to the one given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    On,
    Since,
}

impl When {
    pub(crate) fn holds(self, day: i64, given: i64) -> bool {
        match self {
            Self::Before => day < given,
            Self::On => day == given,
            Self::Since => day >= given,
        }
    }
}

/// How deep NOT, OR and parentheses may stand in each other, and how many keys there may be.
pub(crate) const MAX_DEPTH: usize = 32;
const MAX_KEYS: usize = 1000;

/// `search-key *(SP search-key)`
pub(crate) fn program(input: &[u8]) -> Parsed<'_, Key> {
    let mut left = MAX_KEYS;
    sequence(input, MAX_DEPTH, &mut left)
}

/// The recursion goes no deeper than `depth`.
fn sequence<'a>(input: &'a [u8], depth: usize, left: &mut usize) -> Parsed<'a, Key> {
    let (mut rest, first) = key(input, depth, left)?;
    let mut keys = vec![first];
    while let Ok((after, ())) = sp(rest) {
        let (after, next) = key(after, depth, left)?;
        keys.push(next);
        rest = after;
    }
    let all = match keys.pop() {
        Some(only) if keys.is_empty() => only,
        last => {
            keys.extend(last);
            Key::And(keys)
        }
    };
    Ok((rest, all))
}

fn key<'a>(input: &'a [u8], depth: usize, left: &mut usize) -> Parsed<'a, Key> {
    let (Some(depth), Some(fewer)) = (depth.checked_sub(1), left.checked_sub(1)) else {
        return fail(input);
    };
    *left = fewer;
    if let Some(inner) = input.strip_prefix(b"(") {
        let (rest, inner) = sequence(inner, depth, left)?;
        let (rest, _) = char(')').parse(rest)?;
        return Ok((rest, inner));
    }
    if let Ok(found) = map(ranges, Key::Seq).parse(input) {
        return Ok(found);
    }
    let (rest, word) = atom(input)?;
    let word = word.to_ascii_uppercase();
    match word.as_slice() {
        b"NOT" => {
            let (rest, ()) = sp(rest)?;
            let (rest, inner) = key(rest, depth, left)?;
            Ok((rest, Key::Not(Box::new(inner))))
        }
        b"OR" => {
            let (rest, ()) = sp(rest)?;
            let (rest, one) = key(rest, depth, left)?;
            let (rest, ()) = sp(rest)?;
            let (rest, other) = key(rest, depth, left)?;
            Ok((rest, Key::Or(Box::new((one, other)))))
        }
        word => match plain(word) {
            Some(found) => Ok((rest, found)),
            None => with_argument(word, rest),
        },
    }
}

/// Keys without an argument.
fn plain(word: &[u8]) -> Option<Key> {
    let flag = |flag| Some(Key::Flag(flag));
    let not = |key| Some(Key::Not(Box::new(key)));
    match word {
        b"ALL" => Some(Key::All),
        b"ANSWERED" => flag(Flags::ANSWERED),
        b"DELETED" => flag(Flags::DELETED),
        b"DRAFT" => flag(Flags::DRAFT),
        b"FLAGGED" => flag(Flags::FLAGGED),
        b"SEEN" => flag(Flags::SEEN),
        b"UNANSWERED" => not(Key::Flag(Flags::ANSWERED)),
        b"UNDELETED" => not(Key::Flag(Flags::DELETED)),
        b"UNDRAFT" => not(Key::Flag(Flags::DRAFT)),
        b"UNFLAGGED" => not(Key::Flag(Flags::FLAGGED)),
        b"UNSEEN" => not(Key::Flag(Flags::SEEN)),
        b"RECENT" => Some(Key::Recent),
        b"OLD" => not(Key::Recent),
        b"NEW" => Some(Key::And(vec![
            Key::Recent,
            Key::Not(Box::new(Key::Flag(Flags::SEEN))),
        ])),
        _ => None,
    }
}

fn with_argument<'a>(word: &[u8], input: &'a [u8]) -> Parsed<'a, Key> {
    let (input, ()) = sp(input)?;
    let day = |when| map(date, move |day| Key::Day(when, day)).parse(input);
    let sent = |when| map(date, move |day| Key::Sent(when, day)).parse(input);
    let field = |name: &str| {
        let make = |text| Key::Header {
            name: name.into(),
            text,
        };
        map(astring, make).parse(input)
    };
    let keyword = |input| {
        let make = |word: &[u8]| Key::Keyword(Keyword::new(&String::from_utf8_lossy(word)));
        map(alt((atom, nom::bytes::complete::tag("\\*"))), make).parse(input)
    };
    match word {
        b"BCC" => field("Bcc"),
        b"CC" => field("Cc"),
        b"FROM" => field("From"),
        b"SUBJECT" => field("Subject"),
        b"TO" => field("To"),
        b"BODY" => map(astring, Key::Body).parse(input),
        b"TEXT" => map(astring, Key::Text).parse(input),
        b"HEADER" => {
            let make = |(name, (), text)| Key::Header { name, text };
            map((astring, sp, astring), make).parse(input)
        }
        b"KEYWORD" => keyword(input),
        b"UNKEYWORD" => map(keyword, |key| Key::Not(Box::new(key))).parse(input),
        b"LARGER" => map(number, Key::Larger).parse(input),
        b"SMALLER" => map(number, Key::Smaller).parse(input),
        b"UID" => map(ranges, Key::Uid).parse(input),
        b"BEFORE" => day(When::Before),
        b"ON" => day(When::On),
        b"SINCE" => day(When::Since),
        b"SENTBEFORE" => sent(When::Before),
        b"SENTON" => sent(When::On),
        b"SENTSINCE" => sent(When::Since),
        _ => fail(input),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Key> {
        program(text.as_bytes())
            .ok()
            .filter(|(rest, _)| rest.is_empty())
            .map(|(_, key)| key)
    }

    #[test]
    fn keys() {
        let not = |key| Key::Not(Box::new(key));
        let table: &[(&str, Option<Key>)] = &[
            ("ALL", Some(Key::All)),
            ("unseen", Some(not(Key::Flag(Flags::SEEN)))),
            (
                "FROM \"Smith\"",
                Some(Key::Header {
                    name: b"From".into(),
                    text: b"Smith".into(),
                }),
            ),
            ("TEXT {4}\r\nSm(h", Some(Key::Text(b"Sm(h".into()))),
            (
                "HEADER X \"\"",
                Some(Key::Header {
                    name: b"X".into(),
                    text: vec![],
                }),
            ),
            ("SINCE 1-Feb-1994", Some(Key::Day(When::Since, 8797))),
            ("2,4:5", Some(Key::Seq(Ranges::of([2, 4, 5])))),
            ("UID 7", Some(Key::Uid(Ranges::one(7)))),
            (
                "OR (SEEN LARGER 5) NOT DRAFT",
                Some(Key::Or(Box::new((
                    Key::And(vec![Key::Flag(Flags::SEEN), Key::Larger(5)]),
                    not(Key::Flag(Flags::DRAFT)),
                )))),
            ),
            ("KEYWORD $Work", Some(Key::Keyword(Keyword::new("$Work")))),
            ("", None),
            ("()", None),
            ("(ALL", None),
            ("OR ALL", None),
            ("NOSUCH x", None),
        ];
        for (text, want) in table {
            assert_eq!(parse(text), *want, "{text}");
        }
    }

    #[test]
    fn depth_and_number_have_limits() {
        for deep in ["(", "NOT ", "OR ALL "] {
            assert_eq!(parse(&(deep.repeat(1_000_000) + "ALL")), None);
        }
        assert_eq!(parse(&("ALL ".repeat(100_000) + "ALL")), None);
        assert!(parse(&("(".repeat(31) + "ALL" + &")".repeat(31))).is_some());
    }
}
