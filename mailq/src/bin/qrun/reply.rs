//! Replies of an SMTP server: RFC 5321 4.2, read from any pieces, within bounds. Pure.
//!
//! A line ends in LF here, with or without CR: a server that forgets the CR confuses nobody but
//! itself. Lines of one reply must have one code. What is beyond a bound or no reply at all makes
//! the whole connection useless.

use base::Status;

/// RFC 5321 4.5.3.1.5 has 512; servers write more.
const MAX_LINE: usize = 2048;
/// Lines of one reply. EHLO of a large server has about 20.
const MAX_LINES: usize = 128;
/// Of a reply's text, this much is kept.
const MAX_TEXT: usize = 2048;

/// One whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    /// The lines' texts.
    pub(crate) lines: Vec<String>,
}

/// It is not SMTP that the peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nonsense {
    LineTooLong,
    TooManyLines,
    NoCode,
    MixedCodes,
}

impl std::fmt::Display for Nonsense {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LineTooLong => "a reply line without end",
            Self::TooManyLines => "a reply without end",
            Self::NoCode => "a reply without a code",
            Self::MixedCodes => "a reply with two codes",
        })
    }
}

/// Puts replies together.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    buffer: Vec<u8>,
    code: Option<u16>,
    lines: Vec<String>,
}

impl Replies {
    /// Takes bytes from the peer.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole reply, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Reply>, Nonsense> {
        loop {
            let Some(end) = self.buffer.iter().position(|b| *b == b'\n') else {
                let long = self.buffer.len() > MAX_LINE;
                return if long {
                    Err(Nonsense::LineTooLong)
                } else {
                    Ok(None)
                };
            };
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            if line.len() > MAX_LINE {
                return Err(Nonsense::LineTooLong);
            }
            if let Some(reply) = self.line(line.trim_ascii_end())? {
                return Ok(Some(reply));
            }
        }
    }

    /// Whether anything of a further reply is here.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.code.is_none()
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Reply>, Nonsense> {
        let (code, rest) = line.split_at_checked(3).ok_or(Nonsense::NoCode)?;
        let code: u16 = std::str::from_utf8(code)
            .ok()
            .filter(|c| c.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|c| c.parse().ok())
            .filter(|c| (200..600).contains(c))
            .ok_or(Nonsense::NoCode)?;
        if *self.code.get_or_insert(code) != code {
            return Err(Nonsense::MixedCodes);
        }
        let (more, text) = match rest {
            [b'-', text @ ..] => (true, text),
            [b' ', text @ ..] => (false, text),
            [] => (false, rest),
            _ => return Err(Nonsense::NoCode),
        };
        if self.lines.len() >= MAX_LINES {
            return Err(Nonsense::TooManyLines);
        }
        self.lines.push(String::from_utf8_lossy(text).into_owned());
        if more {
            return Ok(None);
        }
        self.code = None;
        Ok(Some(Reply {
            code,
            lines: std::mem::take(&mut self.lines),
        }))
    }
}

impl Reply {
    /// 2 to 5.
    pub(crate) fn class(&self) -> u16 {
        self.code / 100
    }

    /// The enhanced code that the peer gave, where it fits the reply's code (RFC 2034 4), or the
    /// vaguest of its class.
    pub(crate) fn status(&self) -> Status {
        let class = u8::try_from(self.class()).unwrap_or(5);
        self.lines
            .first()
            .and_then(|line| Status::parse(line.split(' ').next()?))
            .filter(|status| status.class() == class)
            .unwrap_or_else(|| Status::new(class, 0, 0))
    }

    /// All of it as one line, in the peer's words: `550 5.1.1 no such user, sorry`. An enhanced
    /// code is not repeated with every line.
    pub(crate) fn text(&self) -> String {
        let mut text = self.code.to_string();
        let mut last = None;
        for line in &self.lines {
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            let status = Status::parse(first);
            let words = if status.is_some() && status == last {
                rest
            } else {
                line
            };
            last = status;
            if text.len() + words.len() > MAX_TEXT {
                text.push_str(" ...");
                break;
            }
            if !words.trim().is_empty() {
                text.push(' ');
                text.push_str(words.trim());
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All replies in `bytes`, fed in pieces of `size`.
    fn read(bytes: &[u8], size: usize) -> Result<Vec<Reply>, Nonsense> {
        let mut replies = Replies::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(size) {
            replies.push(piece);
            while let Some(reply) = replies.next()? {
                found.push(reply);
            }
        }
        Ok(found)
    }

    #[test]
    fn any_split_gives_the_same_replies() {
        let bytes = b"220 mx ready\r\n250-mx\r\n250-SIZE 10\n250 HELP\r\n354\r\n421 \xff bye\r\n";
        let whole = read(bytes, bytes.len()).unwrap();
        assert_eq!(
            whole.iter().map(|r| r.code).collect::<Vec<_>>(),
            [220, 250, 354, 421]
        );
        assert_eq!(whole[1].lines, ["mx", "SIZE 10", "HELP"]);
        for size in 1..bytes.len() {
            assert_eq!(read(bytes, size).unwrap(), whole);
        }
    }

    #[test]
    fn what_is_no_reply_is_noticed() {
        let long = [b"250 ", vec![b'x'; 3000].as_slice()].concat();
        let many = b"250-x\r\n".repeat(200);
        let table: [(&[u8], Nonsense); 9] = [
            (b"hello\r\n", Nonsense::NoCode),
            (b"\r\n", Nonsense::NoCode),
            (b"25\r\n", Nonsense::NoCode),
            (b"199 x\r\n", Nonsense::NoCode),
            (b"600 x\r\n", Nonsense::NoCode),
            (b"250x\r\n", Nonsense::NoCode),
            (b"250-x\r\n550 y\r\n", Nonsense::MixedCodes),
            (&long, Nonsense::LineTooLong),
            (&many, Nonsense::TooManyLines),
        ];
        for (bytes, want) in table {
            assert_eq!(
                read(bytes, 7),
                Err(want),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn texts_and_codes() {
        let table: [(&[u8], &str, &str); 6] = [
            (
                b"550 5.1.1 no such user\r\n",
                "550 5.1.1 no such user",
                "5.1.1",
            ),
            (
                b"550-5.1.1 no\r\n550 5.1.1 such user\r\n",
                "550 5.1.1 no such user",
                "5.1.1",
            ),
            (b"450 busy\r\n", "450 busy", "4.0.0"),
            (b"450 5.1.1 liar\r\n", "450 5.1.1 liar", "4.0.0"),
            (b"250\r\n", "250", "2.0.0"),
            (b"250-a\r\n250-\r\n250 b\r\n", "250 a b", "2.0.0"),
        ];
        for (bytes, text, status) in table {
            let reply = &read(bytes, 100).unwrap()[0];
            assert_eq!(
                (reply.text().as_str(), reply.status().to_string().as_str()),
                (text, status)
            );
        }
    }
}
