//! What a part's header says of its content: the Content fields (RFC 2045, 1864, 2183, 2557, 3282).
//!
//! A type that cannot be read is text/plain (RFC 2045 5.2). Of a field that stands twice the first one
//! counts, as it does for those who filter mail.

use memchr::memchr;

use crate::encoding::Encoding;
use crate::header;
use crate::parameter::{self, Parameter};

/// How much of a part's header is looked at.
pub const MAX_HEADER: usize = 1 << 20;

/// What the part's header says of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// `TEXT`, `MULTIPART`: upper case.
    pub kind: String,
    /// `PLAIN`, `MIXED`: upper case.
    pub subtype: String,
    pub parameters: Vec<Parameter>,
    /// Content-Transfer-Encoding as written, upper case; `7BIT` without one.
    pub encoding: String,
    pub id: Option<Vec<u8>>,
    pub description: Option<Vec<u8>>,
    pub md5: Option<Vec<u8>>,
    /// Content-Disposition: its type, upper case, and parameters.
    pub disposition: Option<(Vec<u8>, Vec<Parameter>)>,
    /// Content-Language (RFC 3282).
    pub language: Vec<Vec<u8>>,
    pub location: Option<Vec<u8>>,
}

impl Content {
    /// text/plain in US-ASCII.
    pub(crate) fn plain() -> Self {
        Self {
            kind: "TEXT".into(),
            subtype: "PLAIN".into(),
            parameters: Vec::new(),
            encoding: "7BIT".into(),
            id: None,
            description: None,
            md5: None,
            disposition: None,
            language: Vec::new(),
            location: None,
        }
    }

    /// From a header; `digest` when the parent is a multipart/digest (RFC 2046 5.1.5).
    pub fn read(text: &[u8], digest: bool) -> Self {
        let mut content = Self::plain();
        if digest {
            content.set_type("MESSAGE", "RFC822");
        }
        let text = text.get(..text.len().min(MAX_HEADER)).unwrap_or_default();
        // The first of each name counts; a second one is what an attacker adds.
        let mut seen: Vec<String> = Vec::new();
        for field in header::fields(text) {
            let Some(name) = content_name(field.name).filter(|n| !seen.contains(n)) else {
                continue;
            };
            content.field(&name, &field.value());
            seen.push(name);
        }
        content
    }

    pub(crate) fn set_type(&mut self, kind: &str, subtype: &str) {
        self.kind = kind.into();
        self.subtype = subtype.into();
    }

    fn field(&mut self, name: &str, value: &[u8]) {
        let text = || Some(value.to_vec()).filter(|v| !v.is_empty());
        match name {
            "type" => {
                let (head, parameters) = parameter::parse(value);
                match media_type(&head) {
                    Some((kind, subtype)) => {
                        self.set_type(&kind, &subtype);
                        self.parameters = parameters;
                    }
                    None => self.set_type("TEXT", "PLAIN"),
                }
            }
            "transfer-encoding" => {
                let (head, _) = parameter::parse(value);
                if let Some(encoding) = token(&head) {
                    self.encoding = encoding;
                }
            }
            "id" => self.id = text(),
            "description" => self.description = text(),
            "md5" => self.md5 = text(),
            "location" => self.location = text(),
            "disposition" => {
                let (head, parameters) = parameter::parse(value);
                self.disposition = token(&head).map(|d| (d.into_bytes(), parameters));
            }
            "language" => {
                let tags = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                self.language = tags
                    .filter(|t| !t.is_empty())
                    .take(100)
                    .map(<[u8]>::to_vec)
                    .collect();
            }
            _ => {}
        }
    }

    /// How the body is encoded.
    pub fn transfer_encoding(&self) -> Encoding {
        Encoding::parse(self.encoding.as_bytes())
    }

    pub fn is_multipart(&self) -> bool {
        self.kind == "MULTIPART"
    }

    pub fn is_text(&self) -> bool {
        self.kind == "TEXT"
    }

    /// message/rfc822 or message/global (RFC 6532) in an encoding that can be looked into.
    pub fn is_message(&self) -> bool {
        self.kind == "MESSAGE"
            && matches!(self.subtype.as_str(), "RFC822" | "GLOBAL")
            && self.transfer_encoding() == Encoding::Identity
    }

    /// The charset of a text; empty when it does not say.
    pub fn charset(&self) -> Vec<u8> {
        let charset = self
            .parameters
            .iter()
            .find(|p| p.name.eq_ignore_ascii_case(b"charset"));
        charset.map(|p| p.value.clone()).unwrap_or_default()
    }

    /// The name to save it under, decoded; whoever makes a file of it must make it safe first.
    pub fn file_name(&self) -> Option<String> {
        let disposition = self
            .disposition
            .as_ref()
            .and_then(|(_, p)| parameter::text(p, "filename"));
        disposition.or_else(|| parameter::text(&self.parameters, "name"))
    }
}

/// What stands behind `Content-`, lower case.
fn content_name(name: &[u8]) -> Option<String> {
    let (prefix, rest) = name.split_at_checked(8)?;
    if !prefix.eq_ignore_ascii_case(b"content-") || rest.len() > 32 {
        return None;
    }
    Some(String::from_utf8_lossy(rest).to_ascii_lowercase())
}

fn media_type(head: &[u8]) -> Option<(String, String)> {
    let slash = memchr(b'/', head)?;
    let (kind, subtype) = head.split_at_checked(slash)?;
    Some((token(kind)?, token(subtype.get(1..)?)?))
}

/// RFC 2045 5.1 token, upper case.
fn token(text: &[u8]) -> Option<String> {
    let text = text.trim_ascii();
    let good = !text.is_empty()
        && text.len() <= 256
        && text
            .iter()
            .all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(b));
    good.then(|| String::from_utf8_lossy(text).to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_fields() {
        let content = Content::read(
            b"Content-Type: Text/Html; charset=\"utf-8\"\nContent-Transfer-Encoding: Base64\n\
              Content-ID: <1>\nContent-Disposition: inline; filename*=utf-8''%E3%81%82\n\
              Content-Language: de, en\nContent-Type: image/gif\n",
            false,
        );
        assert_eq!(
            (content.kind.as_str(), content.subtype.as_str()),
            ("TEXT", "HTML")
        );
        assert_eq!(content.charset(), b"utf-8");
        assert_eq!(content.transfer_encoding(), Encoding::Base64);
        assert_eq!(content.file_name().as_deref(), Some("あ"));
        assert_eq!(content.language, [b"de".to_vec(), b"en".to_vec()]);
    }
}
