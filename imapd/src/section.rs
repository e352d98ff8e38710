//! `BODY[section]<partial>` (RFC 3501 6.4.5): which octets of the message it is.

use mime::header;
use mime::structure::Structure;
use store::request::Part;

use crate::item::{Item, Section, SectionText};
use crate::response::string;

/// Octets that are still in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) part: Part,
    pub(crate) start: u64,
    /// Where it ends; beyond the part's end where that is not known yet.
    pub(crate) end: u64,
}

impl Source {
    pub(crate) fn whole(part: Part) -> Self {
        Self {
            part,
            start: 0,
            end: u64::MAX,
        }
    }

    /// The part turned out to have `size` octets.
    pub(crate) fn bound(&mut self, size: u64) {
        self.start = self.start.min(size);
        self.end = self.end.clamp(self.start, size);
    }

    /// `<first.length>` of it.
    fn cut(self, partial: Option<(u32, u32)>) -> Self {
        let Some((first, length)) = partial else {
            return self;
        };
        let start = self.start.saturating_add(first.into()).min(self.end);
        let end = start.saturating_add(length.into()).min(self.end);
        Self { start, end, ..self }
    }
}

/// What a section is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is no such part.
    Nothing,
    Text(Vec<u8>),
    Stored(Source),
}

/// Whether an item can only be told by one who has seen the whole message.
pub(crate) fn needs_structure(item: &Item) -> bool {
    match item {
        Item::Body | Item::BodyStructure => true,
        Item::Section { section, .. } => !section.path.is_empty(),
        _ => false,
    }
}

/// Whether an item is made from the message's header.
pub(crate) fn needs_header(item: &Item) -> bool {
    match item {
        Item::Envelope => true,
        Item::Section { section, .. } => {
            section.path.is_empty() && matches!(section.text, SectionText::HeaderFields { .. })
        }
        _ => false,
    }
}

/// Where a section is; the fields of the message's own header are not looked for here.
pub(crate) fn find(structure: Option<&Structure>, section: &Section) -> Found {
    if section.path.is_empty() {
        let part = match section.text {
            SectionText::Header => Part::Header,
            SectionText::Text => Part::Text,
            _ => Part::Whole,
        };
        return Found::Stored(Source::whole(part));
    }
    let found = structure.and_then(|s| Some((s, s.find(&section.path)?)));
    let Some((structure, index)) = found else {
        return Found::Nothing;
    };
    let range = |range: &std::ops::Range<u64>| {
        Found::Stored(Source {
            part: Part::Whole,
            start: range.start,
            end: range.end,
        })
    };
    let Some(part) = structure.part(index) else {
        return Found::Nothing;
    };
    let embedded = structure.embedded(index);
    match (&section.text, embedded) {
        (SectionText::All, _) => range(&part.body),
        (SectionText::Mime, _) => range(&part.header),
        (SectionText::Header, Some(message)) => range(&message.header),
        (SectionText::Text, Some(message)) => range(&message.body),
        (SectionText::HeaderFields { not, names }, Some(message)) => {
            Found::Text(header_fields(&message.header_text, names, *not))
        }
        // RFC 3501 6.4.5: HEADER and TEXT are of messages only.
        (SectionText::Header | SectionText::Text | SectionText::HeaderFields { .. }, None) => {
            Found::Nothing
        }
    }
}

/// `BODY[1.HEADER.FIELDS (DATE)]<0>` as it stands in the response.
pub(crate) fn label(line: &mut Vec<u8>, section: &Section, partial: Option<(u32, u32)>) {
    line.extend_from_slice(b"BODY[");
    let path: Vec<String> = section.path.iter().map(u32::to_string).collect();
    line.extend_from_slice(path.join(".").as_bytes());
    let text = match &section.text {
        SectionText::All => "",
        SectionText::Header => "HEADER",
        SectionText::HeaderFields { not: false, .. } => "HEADER.FIELDS",
        SectionText::HeaderFields { not: true, .. } => "HEADER.FIELDS.NOT",
        SectionText::Text => "TEXT",
        SectionText::Mime => "MIME",
    };
    if !text.is_empty() && !section.path.is_empty() {
        line.push(b'.');
    }
    line.extend_from_slice(text.as_bytes());
    if let SectionText::HeaderFields { names, .. } = &section.text {
        for (at, name) in names.iter().enumerate() {
            line.extend_from_slice(if at == 0 { b" (" } else { b" " });
            let plain = !name.is_empty()
                && name
                    .iter()
                    .all(|b| b.is_ascii_graphic() && !b"(){%*\"\\]".contains(b));
            if plain {
                line.extend_from_slice(name);
            } else {
                string(line, name);
            }
        }
        line.push(b')');
    }
    line.push(b']');
    if let Some((first, _)) = partial {
        line.extend_from_slice(format!("<{first}>").as_bytes());
    }
}

/// The fields called one of `names` (or not), and the empty line.
pub(crate) fn header_fields(text: &[u8], names: &[Vec<u8>], not: bool) -> Vec<u8> {
    let mut found = Vec::new();
    for field in header::fields(text) {
        let named = names
            .iter()
            .any(|name| field.name.eq_ignore_ascii_case(name));
        if named != not {
            found.extend_from_slice(text.get(field.range).unwrap_or_default());
        }
    }
    found.extend_from_slice(b"\r\n");
    found
}

/// Writes what is known; gives back what the store must be asked for.
pub(crate) fn write(
    line: &mut Vec<u8>,
    found: Found,
    partial: Option<(u32, u32)>,
) -> Option<Source> {
    match found {
        Found::Nothing => line.extend_from_slice(b"NIL"),
        Found::Text(text) => {
            let all = Source {
                part: Part::Header,
                start: 0,
                end: text.len() as u64,
            };
            let Source { start, end, .. } = all.cut(partial);
            let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
            let text = text.get(at(start)..at(end)).unwrap_or_default();
            line.extend_from_slice(format!("{{{}}}\r\n", text.len()).as_bytes());
            crate::response::body(line, text);
        }
        Found::Stored(source) => {
            let source = source.cut(partial);
            if source.start >= source.end {
                line.extend_from_slice(b"\"\"");
                return None;
            }
            return Some(source);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::items;

    const MESSAGE: &str = "Content-Type: multipart/mixed; boundary=b\r\nX: top\r\n\r\n\
        --b\r\nContent-Type: text/html\r\n\r\none\r\n\
        --b\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\nTo: x\r\n\r\nhi\r\n--b--\r\n";

    /// What `BODY[text]` is: the octets, or `NIL`.
    fn shown(text: &str) -> String {
        let (_, items) = items(format!("BODY[{text}]").as_bytes()).unwrap();
        let [
            Item::Section {
                section, partial, ..
            },
        ] = items.as_slice()
        else {
            panic!("{text}")
        };
        let structure = Structure::parse(MESSAGE.as_bytes());
        let mut line = Vec::new();
        match write(&mut line, find(Some(&structure), section), *partial) {
            None => String::from_utf8(line).unwrap(),
            Some(source) => {
                assert_eq!(source.part, Part::Whole);
                let slice = structure.slice(MESSAGE.as_bytes(), &(source.start..source.end));
                String::from_utf8(slice.to_vec()).unwrap()
            }
        }
    }

    #[test]
    fn sections() {
        let table = [
            ("1", "one"),
            ("1.MIME", "Content-Type: text/html\r\n\r\n"),
            ("1.HEADER", "NIL"),
            ("1.1", "NIL"),
            ("2", "Subject: in\r\nTo: x\r\n\r\nhi"),
            ("2.MIME", "Content-Type: message/rfc822\r\n\r\n"),
            ("2.HEADER", "Subject: in\r\nTo: x\r\n\r\n"),
            ("2.TEXT", "hi"),
            ("2.1", "hi"),
            ("2.HEADER.FIELDS (to)", "{9}\r\nTo: x\r\n\r\n"),
            ("2.HEADER.FIELDS.NOT (to)", "{15}\r\nSubject: in\r\n\r\n"),
            ("3", "NIL"),
        ];
        for (text, want) in table {
            assert_eq!(shown(text), want, "{text}");
        }
    }

    #[test]
    fn partials() {
        let table = [
            ((0, 2), (0, 2)),
            ((1, 99), (1, 3)),
            ((3, 1), (3, 3)),
            ((9, 9), (3, 3)),
        ];
        for ((first, length), (start, end)) in table {
            let source = Source {
                part: Part::Whole,
                start: 0,
                end: 3,
            };
            let cut = source.cut(Some((first, length)));
            assert_eq!((cut.start, cut.end), (start, end));
        }
        let mut unknown = Source::whole(Part::Text).cut(Some((5, 10)));
        unknown.bound(7);
        assert_eq!((unknown.start, unknown.end), (5, 7));
        unknown = Source::whole(Part::Text).cut(Some((9, 10)));
        unknown.bound(7);
        assert_eq!((unknown.start, unknown.end), (7, 7));
    }
}
