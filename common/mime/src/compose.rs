//! Making messages: header fields that fold and encode, a text body in the smallest encoding that
//! carries it, attachments in multipart/mixed.
//!
//! The caller gives the time, the host's name and random bytes: nothing here reads a clock. Lines end
//! in LF, as files and `sendmail` on standard input have them.

use base::date::Date;

use crate::encoding::{base64, base64_lines, quoted_printable};
use crate::words::{self, Target};
use crate::{charset, parameter};

/// The longest line that may go out unencoded (RFC 5322 2.1.1, without its line end).
const MAX_LINE: usize = 998;

/// A message being made.
#[derive(Debug, Clone)]
pub struct Draft {
    fields: String,
    target: Target,
    text: String,
    attachments: Vec<Attachment>,
}

/// A file that goes with the message.
#[derive(Debug, Clone)]
pub struct Attachment {
    pub file_name: String,
    /// `image/png`; what cannot be a media type is sent as application/octet-stream.
    pub media_type: String,
    pub bytes: Vec<u8>,
}

impl Draft {
    /// Without fields or text.
    pub fn new(target: Target) -> Self {
        Self {
            fields: String::new(),
            target,
            text: String::new(),
            attachments: Vec::new(),
        }
    }

    /// `Date` (RFC 5322 3.6.1) at the caller's local time.
    pub fn date(&mut self, now: Date) -> &mut Self {
        self.fields.push_str(&format!("Date: {}\n", now.rfc5322()));
        self
    }

    /// `Message-ID` (RFC 5322 3.6.4) of the time, 8 random bytes or more, and this host.
    pub fn message_id(&mut self, now: Date, random: &[u8], host: &str) -> &mut Self {
        self.fields
            .push_str(&format!("Message-ID: {}\n", message_id(now, random, host)));
        self
    }

    /// An unstructured field such as Subject; the text is encoded as needed. Without effect when
    /// `name` is no field name.
    pub fn field(&mut self, name: &str, text: &str) -> &mut Self {
        if is_field_name(name) {
            let value = words::encode(text, name.len() + 2, self.target).replace("\r\n", "\n");
            self.fields.push_str(&format!("{name}: {value}\n"));
        }
        self
    }

    /// An address field: display name and address of each.
    pub fn addresses(&mut self, name: &str, list: &[(Option<String>, String)]) -> &mut Self {
        if !is_field_name(name) || list.is_empty() {
            return self;
        }
        let mut line = format!("{name}:");
        for (at, (phrase, address)) in list.iter().enumerate() {
            let address = address.replace(char::is_control, "");
            let entry = match phrase {
                Some(phrase) => {
                    let phrase = words::encode_phrase(phrase, 1, self.target);
                    format!("{} <{address}>", phrase.replace("\r\n", "\n"))
                }
                None => address,
            };
            let column = line.len() - line.rfind('\n').map_or(0, |at| at + 1);
            line.push_str(if at > 0 && column + entry.len() > 74 {
                "\n "
            } else {
                " "
            });
            line.push_str(&entry);
            if at + 1 < list.len() {
                line.push(',');
            }
        }
        self.fields.push_str(&line);
        self.fields.push('\n');
        self
    }

    /// The text; its lines end in LF.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.text = text.into();
        self
    }

    /// A file that goes with it.
    pub fn attach(&mut self, attachment: Attachment) -> &mut Self {
        self.attachments.push(attachment);
        self
    }

    /// The message. `random` makes the boundary (16 bytes are enough).
    pub fn finish(&self, random: &[u8]) -> Vec<u8> {
        let (text_fields, text) = text_part(&self.text, self.target);
        let mut message = format!("{}MIME-Version: 1.0\n", self.fields).into_bytes();
        if self.attachments.is_empty() {
            message.extend_from_slice(text_fields.as_bytes());
            message.push(b'\n');
            message.extend(text);
            return message;
        }
        // `=_` occurs in no encoded text (RFC 2045 6.7), `_` and `.` keep it out of base64.
        let boundary = format!("=_{}.", base64(random).replace(['/', '+', '='], "_"));
        message.extend_from_slice(
            format!("Content-Type: multipart/mixed;\n boundary=\"{boundary}\"\n\n--{boundary}\n{text_fields}\n")
                .as_bytes(),
        );
        message.extend(text);
        for attachment in &self.attachments {
            message.extend_from_slice(format!("\n--{boundary}\n").as_bytes());
            message.extend(attachment.part(self.target));
        }
        message.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
        message
    }
}

impl Attachment {
    /// Field and body. The name goes out twice: RFC 2231 for who reads it, RFC 2047 for who does not.
    fn part(&self, target: Target) -> Vec<u8> {
        let good = self
            .media_type
            .split_once('/')
            .is_some_and(|(kind, subtype)| {
                let token = |t: &str| {
                    !t.is_empty()
                        && t.bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b"-.+_".contains(&b))
                };
                token(kind) && token(subtype) && !kind.eq_ignore_ascii_case("multipart")
            });
        let kind = if good {
            self.media_type.as_str()
        } else {
            "application/octet-stream"
        };
        let name = words::encode_phrase(&self.file_name, 7, target).replace("\r\n", "\n");
        let name = if name.starts_with('"') {
            name
        } else {
            format!("\"{name}\"")
        };
        format!(
            "Content-Type: {kind};\n name={name}\nContent-Transfer-Encoding: base64\n\
             Content-Disposition: attachment;\n {}\n\n{}",
            parameter::format("filename", &self.file_name),
            base64_lines(&self.bytes, "\n")
        )
        .into_bytes()
    }
}

/// `<time.random@host>`
pub fn message_id(now: Date, random: &[u8], host: &str) -> String {
    let random: String = random.iter().map(|b| format!("{b:02x}")).collect();
    format!("<{}.{random}@{host}>", now.unix())
}

/// RFC 5322 3.6.8
fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// The Content fields of a text, and the text encoded.
fn text_part(text: &str, target: Target) -> (String, Vec<u8>) {
    let long = text.lines().any(|line| line.len() > MAX_LINE);
    if text.is_ascii() && !long && !text.contains(['\r', '\0']) {
        let fields =
            "Content-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: 7bit\n";
        return (fields.into(), text.into());
    }
    let target = if text.is_ascii() {
        Target::Utf8
    } else {
        target.fitting(text)
    };
    let fields = |encoding: &str| {
        format!(
            "Content-Type: text/plain; charset={}\nContent-Transfer-Encoding: {encoding}\n",
            target.name()
        )
    };
    if target == Target::Iso2022Jp
        && let Some(bytes) = charset::encode(b"ISO-2022-JP", text)
        && bytes
            .split(|b| *b == b'\n')
            .all(|line| line.len() <= MAX_LINE)
    {
        return (fields("7bit"), bytes);
    }
    let mostly_ascii = text.bytes().filter(u8::is_ascii).count() > text.len() / 6 * 5;
    if mostly_ascii {
        let encoded = quoted_printable(text.as_bytes(), "\n");
        (
            fields("quoted-printable").replace("ISO-2022-JP", "UTF-8"),
            encoded.into(),
        )
    } else {
        let lines = text.replace("\r\n", "\n").replace('\n', "\r\n");
        let encoded = base64_lines(lines.as_bytes(), "\n");
        (
            fields("base64").replace("ISO-2022-JP", "UTF-8"),
            encoded.into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::Structure;
    use crate::{header, words};

    fn made(text: &str, target: Target) -> Vec<u8> {
        let mut draft = Draft::new(target);
        draft
            .date(Date::utc(0))
            .message_id(Date::utc(0), &[1, 2], "host");
        draft.addresses(
            "To",
            &[(Some("あ".into()), "a@b.c".into()), (None, "d@e".into())],
        );
        draft
            .field("Subject", "日本語\nBcc: x")
            .text(text)
            .finish(b"")
    }

    #[test]
    fn texts_come_back() {
        let table = [
            ("plain\n", Target::Utf8, "7BIT"),
            ("naïve plain text\n", Target::Utf8, "QUOTED-PRINTABLE"),
            ("日本語の本文\n", Target::Utf8, "BASE64"),
            ("日本語の本文\n", Target::Iso2022Jp, "7BIT"),
            ("日本語😀\n", Target::Iso2022Jp, "BASE64"),
        ];
        for (text, target, encoding) in table {
            let message = made(text, target);
            let structure = Structure::parse(&message);
            let part = structure.root().unwrap();
            assert_eq!(part.content.encoding, encoding);
            let body = part
                .content
                .transfer_encoding()
                .decode(structure.slice(&message, &part.body));
            let shown = charset::decode(&part.content.charset(), &body);
            assert_eq!(shown.replace("\r\n", "\n"), text);
        }
    }

    #[test]
    fn header_fields() {
        let message = made("x", Target::Utf8);
        let value = |name| words::decode(&header::value(&message, name).unwrap());
        assert_eq!(value("Date"), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(value("Message-ID"), "<0.0102@host>");
        assert_eq!(value("To"), "あ <a@b.c>, d@e");
        assert_eq!(value("Subject"), "日本語 Bcc: x");
        assert_eq!(header::value(&message, "Bcc"), None);
    }

    #[test]
    fn attachments_come_back() {
        let mut draft = Draft::new(Target::Utf8);
        draft.text("see below\n").attach(Attachment {
            file_name: "報告 \"1\".bin".into(),
            media_type: "bad type".into(),
            bytes: (0..=255).collect(),
        });
        let message = draft.finish(&[0, 255, 3]);
        let structure = Structure::parse(&message);
        assert_eq!(structure.parts.len(), 3);
        let part = structure.part(2).unwrap();
        assert_eq!(part.content.file_name().as_deref(), Some("報告 \"1\".bin"));
        assert_eq!(part.content.subtype, "OCTET-STREAM");
        let bytes = part
            .content
            .transfer_encoding()
            .decode(structure.slice(&message, &part.body));
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }
}
