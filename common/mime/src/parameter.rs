//! Parameters of Content-Type and Content-Disposition (RFC 2045 5.1), with RFC 2231: segments are
//! joined first and decoded then, so that a character or an escape state may cross segments.

use crate::encoding::hex;
use crate::token::{PARAMETER, Token, Tokens};
use crate::{charset, words};

/// The most parameters (segments counted) of one field.
pub const MAX_PARAMETERS: usize = 200;

/// One parameter, its RFC 2231 segments joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Without `*`, as it was written.
    pub name: Vec<u8>,
    /// As written; of an extended one `charset'language'percent-encoded`.
    pub value: Vec<u8>,
    /// Whether the value is in RFC 2231's encoding.
    pub extended: bool,
}

impl Parameter {
    /// The value as text: RFC 2231 decoded, or RFC 2047 where a sender put it (wrongly) there.
    pub fn text(&self) -> String {
        if !self.extended {
            return words::decode(&self.value);
        }
        let mut parts = self.value.splitn(3, |b| *b == b'\'');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(label), Some(_), Some(data)) => charset::decode(label, &percent_decode(data)),
            _ => charset::guess(&percent_decode(&self.value)),
        }
    }
}

/// What stands before the first `;` (comments and white space removed), and the parameters.
pub fn parse(value: &[u8]) -> (Vec<u8>, Vec<Parameter>) {
    let mut head = Vec::new();
    let mut segments: Vec<Segment> = Vec::new();
    let mut current: Option<Segment> = None;
    for spaced in Tokens::new(value, PARAMETER) {
        if segments.len() >= MAX_PARAMETERS {
            break;
        }
        match (spaced.token, &mut current) {
            (Token::Special(b';'), _) => segments.extend(current.replace(Segment::default())),
            (Token::Comment(_) | Token::Special(b')'), _) => {}
            (Token::Special(byte), None) => head.push(byte),
            (Token::Atom(t) | Token::Quoted(t) | Token::Literal(t), None) => head.extend(t),
            (Token::Special(b'='), Some(segment)) if segment.value.is_none() => {
                segment.value = Some(Vec::new());
            }
            (token, Some(segment)) => segment.push(&token, spaced.space),
        }
    }
    segments.extend(current);
    (head, join(&segments))
}

/// The text of the parameter `name`, decoded.
pub fn text(parameters: &[Parameter], name: &str) -> Option<String> {
    parameters
        .iter()
        .filter(|p| p.name.eq_ignore_ascii_case(name.as_bytes()))
        .max_by_key(|p| p.extended)
        .map(Parameter::text)
}

#[derive(Debug, Default)]
struct Segment {
    name: Vec<u8>,
    /// `None` until `=` was read.
    value: Option<Vec<u8>>,
}

impl Segment {
    fn push(&mut self, token: &Token, space: bool) {
        let target = self.value.as_mut().unwrap_or(&mut self.name);
        // `name=two words` without quotes is common enough to be kept whole.
        if space && !target.is_empty() {
            target.push(b' ');
        }
        match token {
            Token::Atom(t) | Token::Quoted(t) | Token::Literal(t) => target.extend_from_slice(t),
            Token::Special(byte) => target.push(*byte),
            Token::Comment(_) => {}
        }
    }

    /// RFC 2231 7: `attribute`, `attribute*`, `attribute*0`, `attribute*0*`.
    fn key(&self) -> (&[u8], Option<u16>, bool) {
        let (name, extended) = match self.name.strip_suffix(b"*") {
            Some(name) => (name, true),
            None => (self.name.as_slice(), false),
        };
        let star = name.iter().rposition(|b| *b == b'*');
        let number = star.and_then(|at| {
            let digits = name
                .get(at + 1..)
                .filter(|d| d.iter().all(u8::is_ascii_digit))?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        });
        match (star, number) {
            (Some(at), Some(number)) => {
                (name.get(..at).unwrap_or_default(), Some(number), extended)
            }
            _ => (name, None, extended),
        }
    }
}

/// At most [`MAX_PARAMETERS`] segments come in, so comparing each with each is bounded.
fn join(segments: &[Segment]) -> Vec<Parameter> {
    let mut joined: Vec<Parameter> = Vec::new();
    let mut done: Vec<&[u8]> = Vec::new();
    let named = segments
        .iter()
        .filter(|s| s.value.is_some() && !s.name.is_empty());
    for segment in named {
        let (name, number, extended) = segment.key();
        if number.is_none() {
            let value = segment.value.clone().unwrap_or_default();
            joined.push(Parameter {
                name: name.to_vec(),
                value,
                extended,
            });
        } else if !done.iter().any(|d| d.eq_ignore_ascii_case(name)) {
            done.push(name);
            joined.push(assemble(name, segments));
        }
    }
    joined
}

/// Segments 0, 1, 2 ... of `name` up to the first gap.
fn assemble(name: &[u8], segments: &[Segment]) -> Parameter {
    let mut mine: Vec<_> = segments
        .iter()
        .filter_map(|segment| match segment.key() {
            (n, Some(number), extended) if n.eq_ignore_ascii_case(name) => Some((
                number,
                extended,
                segment.value.as_deref().unwrap_or_default(),
            )),
            _ => None,
        })
        .collect();
    mine.sort_by_key(|(number, ..)| *number);
    let extended = mine.iter().any(|(_, extended, _)| *extended);
    let mut value = Vec::new();
    if extended && !mine.first().is_some_and(|(_, first, _)| *first) {
        value.extend_from_slice(b"''");
    }
    for (expected, (number, encoded, text)) in (0_u16..).zip(mine) {
        if number != expected {
            break;
        }
        if extended && !encoded {
            percent_encode(text, &mut value);
        } else {
            value.extend_from_slice(text);
        }
    }
    Parameter {
        name: name.to_vec(),
        value,
        extended,
    }
}

fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let pair = match (byte, after) {
            (b'%', [h, l, ..]) => hex(*h).zip(hex(*l)),
            _ => None,
        };
        match pair {
            Some((h, l)) => {
                plain.push(h << 4 | l);
                rest = after.get(2..).unwrap_or_default();
            }
            None => plain.push(byte),
        }
    }
    plain
}

fn percent_encode(text: &[u8], encoded: &mut Vec<u8>) {
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`{}~".contains(&byte) {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

/// `name="value"` for a header we write: plain, or RFC 2231 in UTF-8 when it is not ASCII.
pub fn format(name: &str, value: &str) -> String {
    if value.is_ascii() && !value.bytes().any(|b| b.is_ascii_control()) {
        let token = !value.is_empty()
            && value
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b));
        if token {
            return format!("{name}={value}");
        }
        return format!(
            "{name}=\"{}\"",
            value.replace('\\', "\\\\").replace('"', "\\\"")
        );
    }
    let mut encoded = Vec::new();
    percent_encode(value.as_bytes(), &mut encoded);
    format!("{name}*=UTF-8''{}", String::from_utf8_lossy(&encoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Head, then name=value with `*` for extended.
    fn show(value: &str) -> String {
        let (head, parameters) = parse(value.as_bytes());
        let mut text = String::from_utf8_lossy(&head).into_owned();
        for p in parameters {
            let star = if p.extended { "*" } else { "" };
            text += &format!(
                "|{}{star}={}",
                String::from_utf8_lossy(&p.name),
                String::from_utf8_lossy(&p.value)
            );
        }
        text
    }

    #[test]
    fn parameters() {
        let table: &[(&str, &str)] = &[
            ("text/plain", "text/plain"),
            (
                "text / plain (c); Charset=\"utf-8\"",
                "text/plain|Charset=utf-8",
            ),
            (
                "multipart/mixed; boundary==_a=b_",
                "multipart/mixed|boundary==_a=b_",
            ),
            ("a/b; name=two words.txt; x", "a/b|name=two words.txt"),
            ("a/b; name=\"a;\\\"b\"", "a/b|name=a;\"b"),
            (
                "attachment; filename*=UTF-8''%E3%81%82",
                "attachment|filename*=UTF-8''%E3%81%82",
            ),
            ("x; t*1=b; t*0=a; t*3=d", "x|t=ab"),
            (
                "x; t*0*=us-ascii'en'a%20; t*1=\"b c\"; t*2*=%21",
                "x|t*=us-ascii'en'a%20b%20c%21",
            ),
            ("", ""),
            (";;;=;", ""),
        ];
        for (value, want) in table {
            assert_eq!(show(value), *want, "{value}");
        }
    }

    #[test]
    fn texts() {
        let table: &[(&str, &str)] = &[
            ("x; n=plain", "plain"),
            ("x; n*=UTF-8''%E3%81%82.png", "あ.png"),
            // RFC 2231 3 and 4.1
            (
                "x; n*0*=us-ascii'en'This%20is%20even%20more%20; n*1*=%2A%2A%2Afun%2A%2A%2A%20; n*2=\"isn't it!\"",
                "This is even more ***fun*** isn't it!",
            ),
            // a character cut in two, and an ISO-2022-JP state that crosses segments
            ("x; n*0*=UTF-8''%E3%81; n*1*=%82", "あ"),
            (
                "x; n*0*=ISO-2022-JP''%1B%24B%24%22; n*1*=%24%24%1B%28B.png",
                "あい.png",
            ),
            ("x; n=\"=?UTF-8?B?44GC?=.png\"", "あ.png"),
            ("x; n*0=\"=?UTF-8?B?44\"; n*1=\"GC?=\"", "あ"),
            ("x; n=old; n*=UTF-8''new", "new"),
        ];
        for (value, want) in table {
            let (_, parameters) = parse(value.as_bytes());
            assert_eq!(text(&parameters, "N").as_deref(), Some(*want), "{value}");
        }
    }

    #[test]
    fn a_flood_is_cut() {
        let flood: String = (0..100_000).map(|n| format!(";a*{n}=x")).collect();
        let (_, parameters) = parse(flood.as_bytes());
        assert_eq!(parameters.len(), 1);
        assert!(parameters[0].value.len() <= MAX_PARAMETERS);
    }

    #[test]
    fn written_parameters_read_back() {
        for value in ["plain.txt", "two words \"x\".txt", "日本語 %.png", ""] {
            let text_form = format!("attachment; {}", format("filename", value));
            let (_, parameters) = parse(text_form.as_bytes());
            assert_eq!(
                text(&parameters, "filename").as_deref(),
                Some(value),
                "{text_form}"
            );
        }
    }
}
