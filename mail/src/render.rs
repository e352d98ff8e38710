//! A message as a person reads it: the fields that matter, decoded, and its text; of everything
//! else one line that says what it is. Whatever the sender wrote is cleaned of control characters.

use std::ops::Range;

use mime::header;
use mime::structure::{Part, Structure};
use mime::{charset, words};

use crate::{html, text};

/// Which fields are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fields {
    All,
    /// These only, in the message's order; names in lower case.
    Only(Vec<String>),
    /// All but these.
    Without(Vec<String>),
}

impl Default for Fields {
    /// What a reader wants to see.
    fn default() -> Self {
        let names = ["date", "from", "to", "cc", "bcc", "reply-to", "subject"];
        Self::Only(names.map(Into::into).to_vec())
    }
}

impl Fields {
    fn show(&self, name: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(&name),
            Self::Without(names) => !names.contains(&name),
        }
    }
}

/// The message as text, each line ended by LF.
pub(crate) fn message(bytes: &[u8], fields: &Fields) -> String {
    let mut out = head(header::split(bytes).0, fields);
    out.push('\n');
    out.push_str(&body(bytes, fields));
    out
}

/// The fields, decoded.
pub(crate) fn head(header: &[u8], fields: &Fields) -> String {
    let mut out = String::new();
    for field in header::fields(header).filter(|f| fields.show(f.name)) {
        let name = String::from_utf8_lossy(field.name);
        let value = text::clean_line(&words::decode(&field.value()));
        out.push_str(&format!("{}: {value}\n", text::clean_line(&name)));
    }
    out
}

/// What stands below the header.
pub(crate) fn body(bytes: &[u8], fields: &Fields) -> String {
    let structure = Structure::parse(bytes);
    let mut out = String::new();
    // What is still to be shown, the next one last. No recursion: a sender chooses the depth.
    let mut rest = vec![0];
    while let Some(at) = rest.pop() {
        let Some(part) = structure.part(at) else {
            continue;
        };
        if part.content.is_multipart() && !part.children.is_empty() {
            if part.content.subtype == "ALTERNATIVE" {
                rest.extend(best(&structure, part));
            } else {
                rest.extend(part.children.iter().rev());
            }
        } else if let Some(inner) = embedded(&structure, part) {
            separate(&mut out);
            out.push_str("[message]\n");
            let header = slice(bytes, &inner.header);
            out.push_str(&head(header, fields));
            out.push('\n');
            rest.extend(part.children.iter().rev());
        } else {
            separate(&mut out);
            out.push_str(&leaf(bytes, part, at == 0));
        }
    }
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// What `write` puts into a file: of a message that is one text, that text in UTF-8; of one with
/// parts, the body as it came. Lines end in LF.
pub(crate) fn plain_body(bytes: &[u8]) -> Vec<u8> {
    let structure = Structure::parse(bytes);
    let root = structure.root();
    let body = root.map_or(bytes, |part| slice(bytes, &part.body));
    match root.filter(|part| part.content.is_text()) {
        Some(part) => {
            let plain = part.content.transfer_encoding().decode(body);
            let text = charset::decode(&part.content.charset(), &plain);
            text.replace("\r\n", "\n").into_bytes()
        }
        None => crate::save::plain(body),
    }
}

fn slice<'a>(bytes: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    bytes
        .get(at(range.start)..at(range.end))
        .unwrap_or_default()
}

fn embedded<'a>(structure: &'a Structure, part: &Part) -> Option<&'a Part> {
    if !part.content.is_message() {
        return None;
    }
    structure.part(*part.children.first()?)
}

/// Of a multipart/alternative (RFC 2046 5.1.4): plain text, else what contains some, else HTML,
/// else the first.
fn best(structure: &Structure, part: &Part) -> Option<usize> {
    let rank = |at: usize| match structure.part(at) {
        Some(p) if p.content.is_text() && p.content.subtype == "PLAIN" => 0,
        Some(p) if p.content.is_multipart() => 1,
        Some(p) if p.content.is_text() && p.content.subtype == "HTML" => 2,
        Some(p) if p.content.is_text() => 3,
        _ => 4,
    };
    part.children.iter().copied().min_by_key(|at| rank(*at))
}

fn separate(out: &mut String) {
    if !out.is_empty() {
        if !out.ends_with('\n') {
            out.push('\n');
        }
        out.push('\n');
    }
}

/// A part that has no parts: its text, or what it is.
fn leaf(bytes: &[u8], part: &Part, root: bool) -> String {
    let body = slice(bytes, &part.body);
    let content = &part.content;
    let attached = content
        .disposition
        .as_ref()
        .is_some_and(|(kind, _)| kind.eq_ignore_ascii_case(b"ATTACHMENT"));
    if !content.is_text() || (attached && !root) {
        let size = content.transfer_encoding().decode(body).len();
        let kind = format!("{}/{}", content.kind, content.subtype).to_ascii_lowercase();
        let name = content
            .file_name()
            .map(|n| format!("{} ", text::clean_line(&n)));
        return format!(
            "[{}{}, {size} bytes]\n",
            name.unwrap_or_default(),
            text::clean_line(&kind)
        );
    }
    let plain = content.transfer_encoding().decode(body);
    let decoded = charset::decode(&content.charset(), &plain).replace("\r\n", "\n");
    let readable = match content.subtype.as_str() {
        "HTML" => html::to_text(&decoded),
        _ => decoded,
    };
    text::clean(&readable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(message: &str) -> String {
        super::message(message.replace('\n', "\r\n").as_bytes(), &Fields::default())
    }

    #[test]
    fn fields_and_text() {
        let shown = show(
            "Received: x\nFrom: =?ISO-2022-JP?B?GyRCOzNFRBsoQg==?= <y@x>\nSubject: a\u{1b}[31mb\n\nHi\n\u{1b}]0;t\u{7}there\n",
        );
        assert_eq!(shown, "From: 山田 <y@x>\nSubject: ab\n\nHi\nthere\n");
        let all = head(b"Received: x\r\nFrom: y\r\n", &Fields::All);
        assert_eq!(all, "Received: x\nFrom: y\n");
    }

    #[test]
    fn japanese_bodies() {
        let jis = b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n\x1b$B7oL>\x1b(B\r\n";
        assert_eq!(message(jis, &Fields::default()), "\n件名\n");
        let bare = b"\r\n\x1b$B7oL>\x1b(B\r\n";
        assert_eq!(message(bare, &Fields::default()), "\n件名\n");
        let qp = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n=E4=BB=B6\n";
        assert_eq!(show(qp), "\n件\n");
    }

    #[test]
    fn parts() {
        let shown = show(
            "Subject: s\nContent-Type: multipart/mixed; boundary=o\n\n--o\n\
             Content-Type: multipart/alternative; boundary=i\n\n--i\nContent-Type: text/html\n\n\
             <p>rich</p>\n--i\nContent-Type: text/plain\n\npoor\n--i--\n--o\n\
             Content-Type: application/pdf; name=\"a\u{1b}[1m.pdf\"\nContent-Transfer-Encoding: base64\n\
             \nQUJD\n--o\nContent-Type: message/rfc822\n\nSubject: inner\nX: y\n\nbody\n--o--\n",
        );
        assert_eq!(
            shown,
            "Subject: s\n\npoor\n\n[a.pdf application/pdf, 3 bytes]\n\n[message]\nSubject: inner\n\n\nbody\n"
        );
    }

    #[test]
    fn html_when_there_is_nothing_else() {
        let shown = show("Content-Type: text/html\n\n<b>a &amp; b</b><br>c\n");
        assert_eq!(shown, "\na & b\nc\n");
    }

    #[test]
    fn what_is_written() {
        let qp = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E4=BB=B6\r\n";
        assert_eq!(plain_body(qp), "件\n".as_bytes());
        assert_eq!(
            plain_body(b"Content-Type: image/png\r\n\r\na\r\nb"),
            b"a\nb"
        );
        assert_eq!(plain_body(b""), b"");
    }
}
