//! What FETCH can ask for (RFC 3501 6.4.5).

use nom::Parser;
use nom::branch::alt;
use nom::bytes::complete::{tag, tag_no_case};
use nom::character::complete::char;
use nom::combinator::{map, opt, value};
use nom::multi::separated_list1;
use nom::sequence::{delimited, preceded, separated_pair, terminated};

use crate::grammar::{Parsed, astring, fail, number, nz_number, sp};

/// `fetch-att`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Envelope,
    Flags,
    InternalDate,
    Rfc822,
    Rfc822Header,
    Rfc822Size,
    Rfc822Text,
    /// `BODY`: the structure without extension data
    Body,
    BodyStructure,
    Uid,
    Section {
        peek: bool,
        section: Section,
        partial: Option<(u32, u32)>,
    },
}

impl Item {
    /// Whether fetching it sets `\Seen`.
    pub(crate) fn marks_seen(&self) -> bool {
        matches!(
            self,
            Self::Rfc822 | Self::Rfc822Text | Self::Section { peek: false, .. }
        )
    }
}

/// `section`: a part's number and which of its text
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) path: Vec<u32>,
    pub(crate) text: SectionText,
}

/// `section-text`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SectionText {
    /// Nothing said: the part's content, or the whole message.
    All,
    Header,
    HeaderFields {
        not: bool,
        names: Vec<Vec<u8>>,
    },
    Text,
    Mime,
}

/// The most items of one FETCH, field names of one item, and numbers of one part.
const MAX_ITEMS: usize = 200;
const MAX_NAMES: usize = 1000;
const MAX_PATH: usize = 100;

/// `("ALL" / "FULL" / "FAST" / fetch-att / "(" fetch-att *(SP fetch-att) ")")`
pub(crate) fn items(input: &[u8]) -> Parsed<'_, Vec<Item>> {
    let list = delimited(char('('), separated_list1(sp, item), char(')'));
    let fast = || vec![Item::Flags, Item::InternalDate, Item::Rfc822Size];
    let all = || [fast(), vec![Item::Envelope]].concat();
    let (rest, items) = alt((
        map(tag_no_case("ALL"), |_: &[u8]| all()),
        map(tag_no_case("FULL"), |_: &[u8]| {
            [all(), vec![Item::Body]].concat()
        }),
        map(tag_no_case("FAST"), |_: &[u8]| fast()),
        list,
        map(item, |one| vec![one]),
    ))
    .parse(input)?;
    if items.len() > MAX_ITEMS {
        fail(input)
    } else {
        Ok((rest, items))
    }
}

fn item(input: &[u8]) -> Parsed<'_, Item> {
    alt((
        value(Item::Envelope, tag_no_case("ENVELOPE")),
        value(Item::Flags, tag_no_case("FLAGS")),
        value(Item::InternalDate, tag_no_case("INTERNALDATE")),
        value(Item::Rfc822Header, tag_no_case("RFC822.HEADER")),
        value(Item::Rfc822Size, tag_no_case("RFC822.SIZE")),
        value(Item::Rfc822Text, tag_no_case("RFC822.TEXT")),
        value(Item::Rfc822, tag_no_case("RFC822")),
        value(Item::BodyStructure, tag_no_case("BODYSTRUCTURE")),
        map(
            (tag_no_case("BODY.PEEK"), section, opt(partial)),
            |(_, section, partial)| Item::Section {
                peek: true,
                section,
                partial,
            },
        ),
        map(
            (tag_no_case("BODY"), section, opt(partial)),
            |(_, section, partial)| Item::Section {
                peek: false,
                section,
                partial,
            },
        ),
        value(Item::Body, tag_no_case("BODY")),
        value(Item::Uid, tag_no_case("UID")),
    ))
    .parse(input)
}

/// `"<" number "." nz-number ">"`
fn partial(input: &[u8]) -> Parsed<'_, (u32, u32)> {
    delimited(
        char('<'),
        separated_pair(number, char('.'), nz_number),
        char('>'),
    )
    .parse(input)
}

/// `section = "[" [section-spec] "]"`
fn section(input: &[u8]) -> Parsed<'_, Section> {
    delimited(tag("["), spec, tag("]")).parse(input)
}

/// `section-spec = section-msgtext / (section-part ["." section-text])`
fn spec(input: &[u8]) -> Parsed<'_, Section> {
    let (rest, path) = opt(separated_list1(char('.'), nz_number)).parse(input)?;
    let path = path.unwrap_or_default();
    let (rest, text) = if path.is_empty() {
        opt(message_text).parse(rest)?
    } else {
        let mime = value(SectionText::Mime, tag_no_case("MIME"));
        opt(preceded(char('.'), alt((mime, message_text)))).parse(rest)?
    };
    if path.len() > MAX_PATH {
        return fail(input);
    }
    Ok((
        rest,
        Section {
            path,
            text: text.unwrap_or(SectionText::All),
        },
    ))
}

/// `section-msgtext = "HEADER" / "HEADER.FIELDS" [".NOT"] SP header-list / "TEXT"`
fn message_text(input: &[u8]) -> Parsed<'_, SectionText> {
    let not = map(opt(tag_no_case(".NOT")), |not: Option<&[u8]>| not.is_some());
    let names = delimited(char('('), separated_list1(sp, astring), char(')'));
    let fields = map(
        (tag_no_case("HEADER.FIELDS"), terminated(not, sp), names),
        |(_, not, names)| SectionText::HeaderFields { not, names },
    );
    let (rest, text) = alt((
        fields,
        value(SectionText::Header, tag_no_case("HEADER")),
        value(SectionText::Text, tag_no_case("TEXT")),
    ))
    .parse(input)?;
    match &text {
        SectionText::HeaderFields { names, .. } if names.len() > MAX_NAMES => fail(input),
        _ => Ok((rest, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(path: &[u32], text: SectionText) -> Section {
        Section {
            path: path.to_vec(),
            text,
        }
    }

    #[test]
    fn fetch_items() {
        let peek = |section, partial| Item::Section {
            peek: true,
            section,
            partial,
        };
        let read = |section, partial| Item::Section {
            peek: false,
            section,
            partial,
        };
        let fields = |not, names: &[&str]| SectionText::HeaderFields {
            not,
            names: names.iter().map(|n| n.as_bytes().to_vec()).collect(),
        };
        let table: &[(&str, Option<Vec<Item>>)] = &[
            (
                "FAST",
                Some(vec![Item::Flags, Item::InternalDate, Item::Rfc822Size]),
            ),
            ("flags", Some(vec![Item::Flags])),
            ("(UID BODY)", Some(vec![Item::Uid, Item::Body])),
            (
                "BODY[]",
                Some(vec![read(section(&[], SectionText::All), None)]),
            ),
            (
                "BODY.PEEK[]<0.10>",
                Some(vec![peek(section(&[], SectionText::All), Some((0, 10)))]),
            ),
            (
                "BODY[1.2.3]",
                Some(vec![read(section(&[1, 2, 3], SectionText::All), None)]),
            ),
            (
                "BODY[4.2.TEXT]",
                Some(vec![read(section(&[4, 2], SectionText::Text), None)]),
            ),
            (
                "BODY[1.MIME]",
                Some(vec![read(section(&[1], SectionText::Mime), None)]),
            ),
            (
                "BODY[HEADER]",
                Some(vec![read(section(&[], SectionText::Header), None)]),
            ),
            (
                "(BODY.PEEK[HEADER.FIELDS (Date \"From\")] RFC822.SIZE)",
                Some(vec![
                    peek(section(&[], fields(false, &["Date", "From"])), None),
                    Item::Rfc822Size,
                ]),
            ),
            (
                "BODY[3.HEADER.FIELDS.NOT (To)]",
                Some(vec![read(section(&[3], fields(true, &["To"])), None)]),
            ),
            ("BODY[MIME]", None),
            ("BODY[0]", None),
            ("BODY[]<1.0>", None),
            ("()", None),
            ("NONSENSE", None),
        ];
        for (text, want) in table {
            let found = items(text.as_bytes())
                .ok()
                .filter(|(rest, _)| rest.is_empty());
            assert_eq!(found.map(|(_, items)| items), *want, "{text}");
        }
    }
}
