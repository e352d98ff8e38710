//! The words that commands are made of (RFC 3501 9): atoms, strings, numbers, sets, dates, flags.
//!
//! All of it works on a complete command in which the literals stand where they were sent. What fails
//! here is a BAD response; the bounds of the command are known before (see `framer`).

use base::date::{days_from_civil, month_number};
use nom::branch::alt;
use nom::bytes::complete::{tag, tag_no_case, take, take_while_m_n, take_while1};
use nom::character::complete::{char, digit1};
use nom::combinator::{map, map_opt, map_res, opt, recognize, value};
use nom::multi::{separated_list0, separated_list1};
use nom::sequence::{delimited, preceded, separated_pair, terminated};
use nom::{IResult, Parser};
use store::set::STAR;
use store::{Flags, FolderName, Keyword, Ranges};

use crate::utf7;

pub(crate) type Parsed<'a, T> = IResult<&'a [u8], T>;

/// `ATOM-CHAR = <any CHAR except atom-specials>`
fn is_atom_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"(){%*\"\\]".contains(&byte)
}

/// `ASTRING-CHAR = ATOM-CHAR / resp-specials`
fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']'
}

/// `atom = 1*ATOM-CHAR`
pub(crate) fn atom(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(is_atom_char).parse(input)
}

/// `tag = 1*<any ASTRING-CHAR except "+">`
pub(crate) fn command_tag(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while_m_n(1, 128, |b| is_astring_char(b) && b != b'+').parse(input)
}

/// `SP`; some clients send two.
pub(crate) fn sp(input: &[u8]) -> Parsed<'_, ()> {
    value((), take_while1(|b| b == b' ')).parse(input)
}

/// `number = 1*DIGIT`, 32 bits
pub(crate) fn number(input: &[u8]) -> Parsed<'_, u32> {
    map_res(digit1, |digits: &[u8]| {
        std::str::from_utf8(digits)
            .unwrap_or_default()
            .parse::<u32>()
    })
    .parse(input)
}

/// `nz-number`
pub(crate) fn nz_number(input: &[u8]) -> Parsed<'_, u32> {
    map_opt(number, |n| (n > 0).then_some(n)).parse(input)
}

/// `literal = "{" number ["+"] "}" CRLF *CHAR8` (RFC 7888 for the plus)
fn literal(input: &[u8]) -> Parsed<'_, Vec<u8>> {
    let (rest, length) =
        delimited(char('{'), terminated(number, opt(char('+'))), tag("}\r\n")).parse(input)?;
    let (rest, bytes) = take(length).parse(rest)?;
    Ok((rest, bytes.to_vec()))
}

/// `quoted = DQUOTE *QUOTED-CHAR DQUOTE`; UTF-8 in it is let through.
fn quoted(input: &[u8]) -> Parsed<'_, Vec<u8>> {
    let (mut rest, _) = char('"').parse(input)?;
    let mut text = Vec::new();
    loop {
        let Some((&byte, after)) = rest.split_first() else {
            return fail(input);
        };
        rest = after;
        match byte {
            b'"' => return Ok((rest, text)),
            b'\r' | b'\n' | 0 => return fail(input),
            b'\\' => match rest.split_first() {
                Some((escaped @ (b'"' | b'\\'), after)) => {
                    text.push(*escaped);
                    rest = after;
                }
                _ => return fail(input),
            },
            _ => text.push(byte),
        }
    }
}

/// The error of a parser that has none of its own.
pub(crate) fn fail<T>(input: &[u8]) -> Parsed<'_, T> {
    Err(nom::Err::Error(nom::error::Error::new(
        input,
        nom::error::ErrorKind::Fail,
    )))
}

/// `string = quoted / literal`
pub(crate) fn string(input: &[u8]) -> Parsed<'_, Vec<u8>> {
    alt((quoted, literal)).parse(input)
}

/// `astring = 1*ASTRING-CHAR / string`
pub(crate) fn astring(input: &[u8]) -> Parsed<'_, Vec<u8>> {
    alt((map(take_while1(is_astring_char), <[u8]>::to_vec), string)).parse(input)
}

/// `nstring = string / "NIL"`
pub(crate) fn nstring(input: &[u8]) -> Parsed<'_, Option<Vec<u8>>> {
    alt((value(None, tag_no_case("NIL")), map(string, Some))).parse(input)
}

/// `list-mailbox = 1*list-char / string`
pub(crate) fn list_mailbox(input: &[u8]) -> Parsed<'_, Vec<u8>> {
    let is_list_char = |b| is_astring_char(b) || matches!(b, b'%' | b'*') || b >= 0x80;
    alt((map(take_while1(is_list_char), <[u8]>::to_vec), string)).parse(input)
}

/// `mailbox`: a name that can be one, or `None` for one that cannot exist.
pub(crate) fn mailbox(input: &[u8]) -> Parsed<'_, Option<FolderName>> {
    map(astring, |name| {
        utf7::decode(&name).and_then(|text| FolderName::parse(&text))
    })
    .parse(input)
}

/// `sequence-set`
pub(crate) fn ranges(input: &[u8]) -> Parsed<'_, Ranges> {
    let one = |input| alt((nz_number, value(STAR, char('*')))).parse(input);
    let range = alt((separated_pair(one, char(':'), one), map(one, |n| (n, n))));
    map_opt(separated_list1(char(','), range), Ranges::new).parse(input)
}

/// `date = date-text / DQUOTE date-text DQUOTE`: days since 1970
pub(crate) fn date(input: &[u8]) -> Parsed<'_, i64> {
    let text = |input| {
        map_opt(
            (number, char('-'), take(3_usize), char('-'), number),
            |(d, _, m, _, y)| day(d, m, y),
        )
        .parse(input)
    };
    alt((delimited(char('"'), text, char('"')), text)).parse(input)
}

fn day(day: u32, month: &[u8], year: u32) -> Option<i64> {
    let day = u8::try_from(day).ok().filter(|d| (1..=31).contains(d))?;
    let month = month_number(std::str::from_utf8(month).ok()?)?;
    (year <= 9999).then(|| days_from_civil(i64::from(year), month, day))
}

/// `date-time = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE`: seconds
/// since 1970
pub(crate) fn date_time(input: &[u8]) -> Parsed<'_, i64> {
    let (input, _) = (char('"'), opt(char(' '))).parse(input)?;
    let (input, (d, _, m, _, y)) =
        (number, char('-'), take(3_usize), char('-'), number).parse(input)?;
    let (input, (_, h, _, min, _, s, _)) =
        (sp, number, char(':'), number, char(':'), number, sp).parse(input)?;
    let mut zone = (
        alt((char('+'), char('-'))),
        take_while_m_n(4, 4, |b: u8| b.is_ascii_digit()),
    );
    let (input, (sign, zone)) = zone.parse(input)?;
    let (input, _) = char('"').parse(input)?;
    let seconds = || {
        let zone: i64 = std::str::from_utf8(zone).ok()?.parse().ok()?;
        let offset = (zone / 100 * 60 + zone % 100) * if sign == '-' { -60 } else { 60 };
        let good = h < 24 && min < 60 && s <= 60 && zone % 100 < 60;
        let time = i64::from(h) * 3600 + i64::from(min) * 60 + i64::from(s);
        good.then_some(day(d, m, y)? * 86_400 + time - offset)
    };
    match seconds() {
        Some(unix) => Ok((input, unix)),
        None => fail(input),
    }
}

/// What a message is marked with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FlagList {
    pub(crate) flags: Flags,
    pub(crate) keywords: Vec<Keyword>,
}

/// The most keywords of one command.
const MAX_KEYWORDS: usize = 64;

/// `flag-list = "(" [flag *(SP flag)] ")"`
pub(crate) fn flag_list(input: &[u8]) -> Parsed<'_, FlagList> {
    map_opt(
        delimited(char('('), separated_list0(sp, flag), char(')')),
        collect,
    )
    .parse(input)
}

/// `flag *(SP flag)`, as STORE also takes them
pub(crate) fn flags(input: &[u8]) -> Parsed<'_, FlagList> {
    map_opt(separated_list1(sp, flag), collect).parse(input)
}

fn collect(flags: Vec<&[u8]>) -> Option<FlagList> {
    let mut list = FlagList::default();
    for name in flags {
        match system_flag(name) {
            Some(flag) => list.flags = list.flags.with(flag),
            None if name.starts_with(b"\\") => return None,
            None => list
                .keywords
                .push(Keyword::new(std::str::from_utf8(name).ok()?)?),
        }
    }
    (list.keywords.len() <= MAX_KEYWORDS).then_some(list)
}

/// `flag`; `\Recent` cannot be set, and is taken for nothing.
fn flag(input: &[u8]) -> Parsed<'_, &[u8]> {
    recognize(alt((preceded(char('\\'), atom), atom))).parse(input)
}

fn system_flag(name: &[u8]) -> Option<Flags> {
    const NAMES: [(&str, Flags); 6] = [
        ("\\Seen", Flags::SEEN),
        ("\\Answered", Flags::ANSWERED),
        ("\\Flagged", Flags::FLAGGED),
        ("\\Deleted", Flags::DELETED),
        ("\\Draft", Flags::DRAFT),
        ("\\Recent", Flags::NONE),
    ];
    NAMES
        .iter()
        .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))
        .map(|(_, flag)| *flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        let table: &[(&str, Option<(&str, &str)>)] = &[
            ("abc def", Some(("abc", " def"))),
            ("a]b", Some(("a]b", ""))),
            ("\"a \\\"b\\\\\" x", Some(("a \"b\\", " x"))),
            ("\"\"", Some(("", ""))),
            ("{3}\r\na\r\nb", Some(("a\r\n", "b"))),
            ("{3+}\r\nabc", Some(("abc", ""))),
            ("{0}\r\n", Some(("", ""))),
            ("{4}\r\nabc", None),
            ("{99999999999}\r\nabc", None),
            ("\"abc", None),
            ("\"a\\b\"", None),
            ("(", None),
            ("", None),
        ];
        for (text, want) in table {
            let found = astring(text.as_bytes()).ok();
            let want = want.map(|(value, rest)| (rest.as_bytes(), value.as_bytes().to_vec()));
            assert_eq!(found, want, "{text}");
        }
    }

    #[test]
    fn sets() {
        type Want = Option<&'static [(u32, u32)]>;
        let table: &[(&str, Want)] = &[
            ("1", Some(&[(1, 1)])),
            ("2,4:7,9,12:*", Some(&[(2, 2), (4, 7), (9, 9), (12, STAR)])),
            ("*:4", Some(&[(4, STAR)])),
            ("*", Some(&[(STAR, STAR)])),
            ("0", None),
            ("4294967296", None),
            (",", None),
        ];
        for (text, want) in table {
            let found = ranges(text.as_bytes())
                .ok()
                .map(|(_, r)| r.as_slice().to_vec());
            assert_eq!(found.as_deref(), *want, "{text}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(date(b"1-Feb-1994").unwrap().1, 8797);
        assert_eq!(date(b"\"01-feb-1994\"").unwrap().1, 8797);
        for bad in ["32-Feb-1994", "1-Foo-1994", "1-Feb-19940"] {
            assert!(date(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(
            date_time(b"\"17-Jul-1996 02:44:25 -0700\"").unwrap().1,
            837_596_665
        );
        assert_eq!(
            date_time(b"\" 7-Jul-1996 02:44:25 +0000\"").unwrap().1,
            836_707_465
        );
        for bad in [
            "\"17-Jul-1996 4294967295:44:25 +0000\"",
            "\"17-Jul-1996 25:44:25 -0700\"",
            "\"17-Jul-1996\"",
            "17-Jul-1996 02:44:25 -0700",
        ] {
            assert!(date_time(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn flag_lists() {
        let (_, list) = flag_list(b"(\\seen $Work \\Recent)").unwrap();
        assert_eq!(list.flags, Flags::SEEN);
        assert_eq!(list.keywords, [Keyword::new("$Work").unwrap()]);
        assert!(flag_list(b"()").is_ok());
        assert!(flag_list(b"(\\Bogus)").is_err());
        assert!(flags(b"\\Seen \\Draft").is_ok());
    }
}
