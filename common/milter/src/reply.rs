//! What a milter says.

use base::Status;
use base::escape::is_control;

use crate::packet::{self, Garbage, Packet};

/// Octets of the text of a reply that a milter made up.
const MAX_TEXT: usize = 4096;

/// One packet from a milter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Verdict(Verdict),
    Modify(Modification),
    /// It needs no more of the body.
    Skip,
    /// It is at work: the wait begins anew.
    Progress,
    /// What it stands for cannot be reached.
    Failed,
}

/// What is to become of what it was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Continue,
    /// Good, and it needs to know no more.
    Accept,
    Reject,
    TempFail,
    /// The client hears yes, and nobody gets the message.
    Discard,
    /// Refused, in the milter's own words.
    Answer(Answer),
    /// Refused for now, and the connection ends.
    Shutdown,
}

/// A reply for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 400 to 599.
    pub code: u16,
    /// `5.7.1`: its class is the code's.
    pub status: Option<Status>,
    /// Lines divided by LF; no other control character.
    pub text: String,
}

/// A change of the message, at its end. Texts are as they came, and may be anything that has no NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Modification {
    AddHeader {
        name: Vec<u8>,
        value: Vec<u8>,
    },
    /// 0 is above our own Received; 1 is before all fields that came with the message.
    InsertHeader {
        index: u32,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    /// The so manyth field of this name, from 1. No value: it goes.
    ChangeHeader {
        index: u32,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    /// With its ESMTP parameters, where it was said in the way that has them.
    AddRecipient {
        address: String,
        args: Option<String>,
    },
    RemoveRecipient(String),
    ChangeSender {
        address: String,
        args: Option<String>,
    },
    /// A piece of the new body; the pieces of one answer follow each other.
    ReplaceBody(Vec<u8>),
    /// Put aside for the operator, and why.
    Quarantine(String),
}

impl Reply {
    /// Understands a packet.
    pub fn parse(packet: Packet<'_>) -> Result<Self, Garbage> {
        let data = packet.data;
        Ok(match packet.code {
            b'c' => Self::Verdict(Verdict::Continue),
            b'a' => Self::Verdict(Verdict::Accept),
            b'r' => Self::Verdict(Verdict::Reject),
            b't' => Self::Verdict(Verdict::TempFail),
            b'd' => Self::Verdict(Verdict::Discard),
            b'4' => Self::Verdict(Verdict::Shutdown),
            b'y' => Self::Verdict(Verdict::Answer(Answer::parse(packet::text(data)?.0)?)),
            b's' => Self::Skip,
            b'p' => Self::Progress,
            b'f' => Self::Failed,
            code => Self::Modify(modification(code, data)?),
        })
    }
}

impl Modification {
    /// Octets that it came with, those of a body not counted.
    pub fn octets(&self) -> usize {
        match self {
            Self::AddHeader { name, value }
            | Self::InsertHeader { name, value, .. }
            | Self::ChangeHeader { name, value, .. } => name.len() + value.len(),
            Self::AddRecipient { address, args } | Self::ChangeSender { address, args } => {
                address.len() + args.as_ref().map_or(0, String::len)
            }
            Self::RemoveRecipient(text) | Self::Quarantine(text) => text.len(),
            Self::ReplaceBody(_) => 0,
        }
    }
}

fn modification(code: u8, data: &[u8]) -> Result<Modification, Garbage> {
    Ok(match code {
        b'h' => {
            let (name, value) = pair(data)?;
            Modification::AddHeader { name, value }
        }
        b'i' => {
            let (index, rest) = packet::number(data)?;
            let (name, value) = pair(rest)?;
            Modification::InsertHeader { index, name, value }
        }
        b'm' => {
            let (index, rest) = packet::number(data)?;
            let (name, value) = pair(rest)?;
            Modification::ChangeHeader { index, name, value }
        }
        b'+' => Modification::AddRecipient {
            address: word(packet::text(data)?.0)?,
            args: None,
        },
        b'2' => {
            let (address, rest) = packet::text(data)?;
            Modification::AddRecipient {
                address: word(address)?,
                args: Some(optional(rest)?.unwrap_or_default()),
            }
        }
        b'-' => Modification::RemoveRecipient(word(packet::text(data)?.0)?),
        b'e' => {
            let (address, rest) = packet::text(data)?;
            Modification::ChangeSender {
                address: word(address)?,
                args: optional(rest)?,
            }
        }
        b'b' => Modification::ReplaceBody(data.to_vec()),
        b'q' => {
            let (reason, _) = packet::text(data)?;
            Modification::Quarantine(String::from_utf8_lossy(reason).into_owned())
        }
        _ => return Err(Garbage("a reply that is none")),
    })
}

fn pair(data: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Garbage> {
    let (name, rest) = packet::text(data)?;
    let (value, _) = packet::text(rest)?;
    Ok((name.to_vec(), value.to_vec()))
}

fn word(text: &[u8]) -> Result<String, Garbage> {
    let text = std::str::from_utf8(text).map_err(|_| Garbage("an address that is not UTF-8"))?;
    Ok(text.to_owned())
}

fn optional(rest: &[u8]) -> Result<Option<String>, Garbage> {
    match rest {
        [] => Ok(None),
        _ => word(packet::text(rest)?.0).map(Some),
    }
}

impl Answer {
    /// `550 5.7.1 text`, or several lines of that, as SMTP has them: `550-5.7.1 one`.
    fn parse(text: &[u8]) -> Result<Self, Garbage> {
        let bad = Garbage("a reply code that refuses nothing");
        let text = String::from_utf8_lossy(text);
        let code = text.get(..3).ok_or(bad)?;
        if !code.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad);
        }
        let number: u16 = code.parse().map_err(|_| bad)?;
        if !(400..600).contains(&number) {
            return Err(bad);
        }
        let mut answer = Self {
            code: number,
            status: None,
            text: String::new(),
        };
        for (count, line) in text.split('\n').enumerate() {
            let line = line.strip_prefix(code).unwrap_or(line);
            let line = line.strip_prefix(['-', ' ']).unwrap_or(line);
            let (status, line) = split_status(line, number / 100);
            if count == 0 {
                answer.status = status;
            } else {
                answer.text.push('\n');
            }
            // Sendmail has it as a format, in which a percent sign is written twice.
            let line = line.replace("%%", "%");
            answer.text.extend(line.chars().filter(|c| !is_control(*c)));
            if answer.text.len() > MAX_TEXT {
                break;
            }
        }
        let cut = answer.text.floor_char_boundary(MAX_TEXT);
        answer.text.truncate(cut);
        let end = answer.text.trim_end().len();
        answer.text.truncate(end);
        Ok(answer)
    }
}

/// RFC 3463 2, where the line has it and its class is the code's.
fn split_status(line: &str, class: u16) -> (Option<Status>, &str) {
    let (word, rest) = line
        .split_once(' ')
        .unwrap_or_else(|| (line.trim_end(), ""));
    match Status::parse(word) {
        Some(status) if u16::from(status.class()) == class => (Some(status), rest),
        _ => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(code: u8, data: &[u8]) -> Result<Reply, Garbage> {
        Reply::parse(Packet { code, data })
    }

    #[test]
    fn what_a_milter_says() {
        for (code, data, want) in [
            (b'c', &b""[..], Reply::Verdict(Verdict::Continue)),
            (b'a', b"", Reply::Verdict(Verdict::Accept)),
            (b'd', b"", Reply::Verdict(Verdict::Discard)),
            (b'4', b"", Reply::Verdict(Verdict::Shutdown)),
            (b's', b"", Reply::Skip),
            (b'p', b"", Reply::Progress),
            (b'f', b"", Reply::Failed),
            (
                b'i',
                b"\0\0\0\x01X-A\0b\0",
                Reply::Modify(Modification::InsertHeader {
                    index: 1,
                    name: b"X-A".to_vec(),
                    value: b"b".to_vec(),
                }),
            ),
            (
                b'm',
                b"\0\0\0\x02X-A\0\0",
                Reply::Modify(Modification::ChangeHeader {
                    index: 2,
                    name: b"X-A".to_vec(),
                    value: Vec::new(),
                }),
            ),
            (
                b'2',
                b"<a@b>\0NOTIFY=NEVER\0",
                Reply::Modify(Modification::AddRecipient {
                    address: "<a@b>".into(),
                    args: Some("NOTIFY=NEVER".into()),
                }),
            ),
            (
                b'e',
                b"<a@b>\0",
                Reply::Modify(Modification::ChangeSender {
                    address: "<a@b>".into(),
                    args: None,
                }),
            ),
            (
                b'b',
                b"x\0y",
                Reply::Modify(Modification::ReplaceBody(b"x\0y".to_vec())),
            ),
        ] {
            assert_eq!(parse(code, data), Ok(want));
        }
    }

    #[test]
    fn what_is_no_reply() {
        for (code, data) in [
            (b'z', &b""[..]),
            (b'h', b"X-A\0b"),
            (b'h', b"X-A"),
            (b'i', b"\0\0\x01"),
            (b'+', b"<a@b>"),
            (b'+', b"\xff\0"),
            (b'q', b"why"),
            (b'y', b"250 yes\0"),
            (b'y', b"55\0"),
            (b'y', b"5x0 no\0"),
            (b'y', b"550 no"),
        ] {
            assert!(parse(code, data).is_err(), "{code} {}", data.escape_ascii());
        }
    }

    #[test]
    fn replies_in_its_own_words() {
        let long = format!("550 {}", "x".repeat(9000));
        for (text, code, status, words) in [
            (
                "550 5.7.1 Not here",
                550,
                Some(Status::new(5, 7, 1)),
                "Not here",
            ),
            ("451 Not now 100%%", 451, None, "Not now 100%"),
            ("550 4.7.1 Not here", 550, None, "4.7.1 Not here"),
            ("554", 554, None, ""),
            ("554 5.7.1", 554, Some(Status::new(5, 7, 1)), ""),
            ("550 5.7.1.2 x", 550, None, "5.7.1.2 x"),
            (
                "550-5.7.1 one\r\n550 5.7.1 two\x1b",
                550,
                Some(Status::new(5, 7, 1)),
                "one\ntwo",
            ),
            (&long, 550, None, &"x".repeat(MAX_TEXT)),
        ] {
            let answer = Answer::parse(text.as_bytes()).unwrap();
            let got = (answer.code, answer.status, answer.text.as_str());
            assert_eq!(got, (code, status, words));
        }
    }

    proptest! {
        #[test]
        fn anything_is_a_reply_or_none(code: u8, data: Vec<u8>) {
            if let Ok(Reply::Verdict(Verdict::Answer(answer))) = parse(code, &data) {
                prop_assert!((400..600).contains(&answer.code));
                prop_assert!(!answer.text.contains(|c: char| c != '\n' && c.is_control()));
            }
        }

        #[test]
        fn any_text_is_an_answer_or_none(text in "[245]?[0-9. -]{0,9}[a-z%\r\n.0-9-]{0,40}") {
            if let Ok(answer) = Answer::parse(text.as_bytes()) {
                prop_assert!((400..600).contains(&answer.code));
            }
        }
    }
}
