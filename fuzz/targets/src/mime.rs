//! Messages: their header, their parts, and what they are made into.
//!
//! An input is a line with the lengths of pieces, and then a message.

use std::io::{Cursor, Read};

use mime::binary::{Converter, Plan};
use mime::encoding::Encoding;
use mime::header;
use mime::structure::{Builder, MAX_DEPTH, MAX_PARTS, Structure};
use mime::submitted;
use mime::words::{self, Target};
use mime::{content, parameter};

use crate::pieces::cut;

/// What is asserted: parts lie within the message and within each other, in order, and are at most so
/// many and so deep; a message in pieces has the same parts; what decodes is no longer than it was, and
/// the same in pieces; what was encoded decodes to itself; nothing that we write for a header ends it;
/// a message is whole where binary parts are made ones that go by lines.
pub fn mime(input: &[u8]) {
    let (message, pieces) = cut(input);
    let structure = Structure::parse(message);
    tree(message, &structure);
    let mut builder = Builder::new();
    pieces.iter().for_each(|piece| builder.feed(piece));
    assert_eq!(builder.finish(), structure, "pieces make other parts");
    fields(message);
    decoded(message, &pieces);
    by_lines(message);
    if let Ok(text) = str::from_utf8(message) {
        written(text);
    }
}

fn tree(message: &[u8], structure: &Structure) {
    let length = message.len() as u64;
    assert!((1..=MAX_PARTS).contains(&structure.parts.len()));
    for (at, part) in structure.parts.iter().enumerate() {
        for range in [&part.header, &part.body] {
            assert!(range.start <= range.end && range.end <= length, "{range:?}");
        }
        assert!(part.header.end <= part.body.start);
        for &child in &part.children {
            assert!(child > at, "a part is in itself");
            let child = &structure.parts[child];
            assert_eq!(child.parent, Some(at));
            assert!(part.body.start <= child.header.start && child.body.end <= part.body.end);
        }
        for pair in part.children.windows(2) {
            let (one, next) = (&structure.parts[pair[0]], &structure.parts[pair[1]]);
            assert!(one.body.end <= next.header.start);
        }
        let mut depth = 0;
        let mut above = part.parent;
        while let Some(holder) = above {
            depth += 1;
            above = structure.parts[holder].parent;
        }
        assert!(depth <= MAX_DEPTH + 1, "{depth}");
    }
}

fn fields(message: &[u8]) {
    let (head, body) = header::split(message);
    assert_eq!([head, body].concat(), message);
    let mut end = 0;
    for field in header::fields(head) {
        assert!(field.range.start >= end && field.range.end <= head.len());
        end = field.range.end;
        assert!(!field.name.is_empty() && !field.name.contains(&b':'));
        let value = field.value();
        assert!(!value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        assert!(!words::decode(&value).contains(['\r', '\n', '\0']));
        mime::address::list(&value);
        let (_, parameters) = parameter::parse(&value);
        parameters
            .iter()
            .for_each(|parameter| drop(parameter.text()));
        mime::date::parse(&value);
    }
    let read = content::Content::read(head, false);
    read.charset();
    read.file_name();
    // Added to the front, it makes the header whole.
    let added = submitted::missing(head, Some("a@b.example"), "now", "x@y.example");
    let both = [added.as_bytes(), message].concat();
    let names = submitted::Names::of(&both);
    // RFC 5322 3.6.6: who sends it on again says who and when in fields of its own.
    let has = |name: &str| names.has(name) || names.has(&format!("Resent-{name}"));
    assert!(has("Date") && has("From") && has("Message-ID"));
}

fn decoded(text: &[u8], pieces: &[&[u8]]) {
    for encoding in [
        Encoding::Base64,
        Encoding::QuotedPrintable,
        Encoding::Identity,
    ] {
        let whole = encoding.decode(text);
        assert!(whole.len() <= text.len());
        let (mut decoder, mut plain) = (encoding.decoder(), Vec::new());
        pieces
            .iter()
            .for_each(|piece| decoder.feed(piece, &mut plain));
        decoder.finish(&mut plain);
        assert!(
            plain == whole,
            "{encoding:?}: pieces decode to something else"
        );
    }
    let base64 = mime::encoding::base64_lines(text, "\r\n");
    assert_eq!(Encoding::Base64.decode(base64.as_bytes()), text);
    assert!(base64.split("\r\n").all(|line| line.len() <= 76));
    let quoted = mime::encoding::quoted_printable(text, "\r\n");
    assert!(quoted.is_ascii() && quoted.split("\r\n").all(|line| line.len() <= 76));
}

/// RFC 3030: no octet of it is left that a way by lines changes.
fn by_lines(message: &[u8]) {
    let plan = Plan::of(&mut Cursor::new(message)).unwrap();
    let mut out = Vec::new();
    Converter::new(&plan, Cursor::new(message))
        .read_to_end(&mut out)
        .unwrap();
    assert!(!out.contains(&0));
    assert!(out.is_empty() || out.ends_with(b"\r\n"));
    let ends = out.windows(2).filter(|w| w == b"\r\n").count();
    let halves = out.iter().filter(|b| matches!(b, b'\r' | b'\n')).count();
    assert_eq!(halves, 2 * ends, "half a line end is left");
    // Once is enough.
    let plan = Plan::of(&mut Cursor::new(&out)).unwrap();
    let mut again = Vec::new();
    Converter::new(&plan, Cursor::new(&out))
        .read_to_end(&mut again)
        .unwrap();
    assert!(again == out, "what goes by lines is converted again");
}

fn written(text: &str) {
    let shown: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let shown = shown.replace('\u{feff}', "");
    for target in [Target::Utf8, Target::Iso2022Jp] {
        let value = words::encode(text, 9, target);
        one_value(&value);
        // Where words are encoded all of it is, so nothing is lost, but for the mark that UTF-8 may begin
        // with. Some characters of ISO-2022-JP are several of Unicode.
        if !text.is_ascii() && target == Target::Utf8 {
            let read = words::decode(value.as_bytes());
            assert_eq!(read.replace('\u{feff}', ""), shown);
        }
        one_value(&words::encode_phrase(text, 9, target));
    }
    let parameter = parameter::format("name", text);
    one_value(&parameter);
    let (_, read) = parameter::parse(format!("x; {parameter}").as_bytes());
    let read = parameter::text(&read, "name").map(|read| read.replace('\u{feff}', ""));
    let same = read.as_ref() == Some(&text.replace('\u{feff}', ""));
    // One that is not encoded is read as people write them: blanks around it are not part of it.
    let encoded = parameter.starts_with("name*=");
    assert!(same || !encoded || text.len() > 1000, "{read:?}");
}

/// Behind each line end stands a blank, so that no value adds a field.
fn one_value(value: &str) {
    let mut lines = value.split("\r\n");
    assert!(
        lines
            .next()
            .is_some_and(|line| !line.contains(['\r', '\n']))
    );
    for line in lines {
        assert!(
            line.starts_with([' ', '\t']) && !line.trim().is_empty(),
            "{value:?}"
        );
        assert!(!line.contains(['\r', '\n']));
    }
}
