//! Where a command begins and ends: lines that end in CRLF, and the literals that continue them
//! (RFC 3501 4.3, RFC 7888). Grammar is not known here, so a malformed command never loses the
//! client's place.
//!
//! One counter bounds a command with all its literals before anything is stored. What is too much is
//! refused at once and then passed over to its true end, literals included, so that no part of it is
//! ever taken for another command.

use memchr::{memchr, memchr2};

use crate::command::{Append, tag_of};

/// The most octets of a command, of all its lines and literals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// Of lines and literals together.
    pub(crate) command: usize,
    /// Of the literals alone.
    pub(crate) literal: usize,
}

impl Limit {
    /// Room for a token in AUTHENTICATE.
    pub(crate) const BEFORE_LOGIN: Self = Self {
        command: 16 << 10,
        literal: 4 << 10,
    };
    pub(crate) const AFTER_LOGIN: Self = Self {
        command: 512 << 10,
        literal: 256 << 10,
    };
}

/// What was found in the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Nothing whole yet.
    Partial,
    /// The client waits to be told to send a literal.
    Continue,
    /// A whole command without its last CRLF.
    Command(Vec<u8>),
    /// The message of an APPEND follows: `size` octets that the caller takes, then the rest of the
    /// line. `waits` when the client waits to be told.
    Append {
        append: Append,
        size: u64,
        waits: bool,
    },
    /// A command that was refused.
    Bad {
        tag: Option<String>,
        text: &'static str,
    },
}

#[derive(Debug)]
enum Mode {
    Line,
    Literal {
        left: usize,
    },
    /// The rest of a refused command; of its line the end is kept, to see a literal announced.
    SkipLine {
        tail: Vec<u8>,
    },
    SkipLiteral {
        left: u64,
    },
}

/// Collects commands.
#[derive(Debug)]
pub(crate) struct Framer {
    mode: Mode,
    buffer: Vec<u8>,
    /// Where the present line begins in the buffer.
    line: usize,
    literals: usize,
}

const TAIL: usize = 32;

impl Framer {
    pub(crate) fn new() -> Self {
        Self {
            mode: Mode::Line,
            buffer: Vec::new(),
            line: 0,
            literals: 0,
        }
    }

    /// Takes from `bytes` up to the next thing found; says how many octets that took. `plain` is for
    /// lines that are no commands (SASL answers, DONE): braces mean nothing there.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        limit: Limit,
        plain: bool,
        append: bool,
    ) -> (usize, Frame) {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            if rest.is_empty()
                && !matches!(
                    self.mode,
                    Mode::Literal { left: 0 } | Mode::SkipLiteral { left: 0 }
                )
            {
                return (at, Frame::Partial);
            }
            let (took, frame) = self.step(rest, limit, plain, append);
            at += took;
            if frame != Frame::Partial {
                return (at, frame);
            }
        }
    }

    fn step(&mut self, rest: &[u8], limit: Limit, plain: bool, append: bool) -> (usize, Frame) {
        match &mut self.mode {
            Mode::Literal { left } => {
                let take = rest.len().min(*left);
                *left -= take;
                self.buffer
                    .extend_from_slice(rest.get(..take).unwrap_or_default());
                if *left == 0 {
                    self.mode = Mode::Line;
                    self.line = self.buffer.len();
                }
                (take, Frame::Partial)
            }
            Mode::SkipLiteral { left } => {
                let take = u64::try_from(rest.len()).unwrap_or(u64::MAX).min(*left);
                *left -= take;
                if *left == 0 {
                    self.mode = Mode::SkipLine { tail: Vec::new() };
                }
                (usize::try_from(take).unwrap_or(rest.len()), Frame::Partial)
            }
            Mode::SkipLine { tail } => {
                let take = memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
                let part = rest.get(..take).unwrap_or_default();
                tail.extend_from_slice(
                    part.get(part.len().saturating_sub(TAIL)..)
                        .unwrap_or_default(),
                );
                tail.drain(..tail.len().saturating_sub(TAIL));
                if part.ends_with(b"\n") {
                    self.mode = match announced(tail) {
                        Some(Announced {
                            size, waits: false, ..
                        }) => Mode::SkipLiteral { left: size },
                        _ => Mode::Line,
                    };
                }
                (take, Frame::Partial)
            }
            Mode::Line => self.line(rest, limit, plain, append),
        }
    }

    fn line(&mut self, rest: &[u8], limit: Limit, plain: bool, append: bool) -> (usize, Frame) {
        let newline = memchr(b'\n', rest);
        let take = newline.map_or(rest.len(), |newline| newline + 1);
        let room = limit.command.saturating_sub(self.buffer.len());
        if take > room {
            self.buffer
                .extend_from_slice(rest.get(..room).unwrap_or_default());
            let bad = self.refuse("command too long");
            self.mode = Mode::SkipLine { tail: Vec::new() };
            return (room, bad);
        }
        self.buffer
            .extend_from_slice(rest.get(..take).unwrap_or_default());
        if newline.is_none() {
            return (take, Frame::Partial);
        }
        let line = self.buffer.get(self.line..).unwrap_or_default();
        let content = line.strip_suffix(b"\r\n");
        let Some(content) = content.filter(|c| memchr2(b'\r', 0, c).is_none()) else {
            return (
                take,
                self.refuse("a line ends in CRLF and has no other CR, LF or NUL"),
            );
        };
        let text = self.line + content.len();
        match announced(line).filter(|_| !plain) {
            Some(announced) => (take, self.literal(announced, limit, append)),
            None => {
                self.buffer.truncate(text);
                let command = std::mem::take(&mut self.buffer);
                self.reset();
                (take, Frame::Command(command))
            }
        }
    }

    /// The line that ends the buffer announces a literal.
    fn literal(&mut self, announced: Announced, limit: Limit, append: bool) -> Frame {
        let Announced { size, waits, brace } = announced;
        let head = self
            .buffer
            .get(..self.buffer.len().saturating_sub(brace))
            .unwrap_or_default();
        if append && let Some(append) = Append::parse(head) {
            self.reset();
            return Frame::Append {
                append,
                size,
                waits,
            };
        }
        let fits = usize::try_from(size).ok().filter(|size| {
            self.literals.saturating_add(*size) <= limit.literal
                && self.buffer.len().saturating_add(*size) <= limit.command
        });
        let Some(left) = fits else {
            let bad = self.refuse("literal too large");
            if !waits {
                self.mode = Mode::SkipLiteral { left: size };
            }
            return bad;
        };
        self.literals += left;
        self.mode = Mode::Literal { left };
        if waits {
            Frame::Continue
        } else {
            Frame::Partial
        }
    }

    fn refuse(&mut self, text: &'static str) -> Frame {
        let end = memchr2(b'\r', b'\n', &self.buffer).unwrap_or(self.buffer.len());
        let tag = self.buffer.get(..end).and_then(tag_of);
        self.reset();
        Frame::Bad { tag, text }
    }

    fn reset(&mut self) {
        *self = Self::new();
    }

    /// The client's next octets, `left` of them, belong to a message that nobody wants.
    pub(crate) fn discard(&mut self, left: u64) {
        self.reset();
        self.mode = Mode::SkipLiteral { left };
    }
}

#[derive(Clone, Copy)]
struct Announced {
    size: u64,
    /// A synchronizing literal.
    waits: bool,
    /// How many octets before the end of the line the brace stands.
    brace: usize,
}

/// `"{" number ["+"] "}" CRLF` at the end of a line.
fn announced(line: &[u8]) -> Option<Announced> {
    let inner = line.strip_suffix(b"}\r\n")?;
    let (inner, waits) = match inner.strip_suffix(b"+") {
        Some(inner) => (inner, false),
        None => (inner, true),
    };
    let digits = inner
        .iter()
        .rev()
        .take_while(|b| b.is_ascii_digit())
        .count();
    let (before, number) = inner.split_at_checked(inner.len() - digits)?;
    if digits == 0 || digits > 18 || before.last() != Some(&b'{') {
        return None;
    }
    let size = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some(Announced {
        size,
        waits,
        brace: line.len() + 1 - before.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limit = Limit {
        command: 64,
        literal: 16,
    };

    /// Everything found in `input`, given in pieces of `step` octets.
    fn frames(input: &str, step: usize) -> Vec<String> {
        let mut framer = Framer::new();
        let mut found = Vec::new();
        let mut pending = Vec::new();
        for piece in input.as_bytes().chunks(step) {
            pending.extend_from_slice(piece);
            loop {
                let (took, frame) = framer.feed(&pending, SMALL, false, true);
                pending.drain(..took);
                match frame {
                    Frame::Partial => break,
                    Frame::Continue => found.push("+".into()),
                    Frame::Command(c) => found.push(String::from_utf8(c).unwrap()),
                    Frame::Append {
                        append,
                        size,
                        waits,
                    } => {
                        found.push(format!("append {} {size} {waits}", append.tag));
                    }
                    Frame::Bad { tag, text } => {
                        found.push(format!("{} BAD {text}", tag.as_deref().unwrap_or("*")));
                    }
                }
            }
        }
        found
    }

    #[test]
    fn commands_and_literals() {
        let long = "x".repeat(80);
        let table: &[(&str, &[&str])] = &[
            ("a NOOP\r\nb NOOP\r\n", &["a NOOP", "b NOOP"]),
            ("\r\n", &[""]),
            (
                "a LOGIN {3}\r\nann {2+}\r\npw\r\n",
                &["+", "a LOGIN {3}\r\nann {2+}\r\npw"],
            ),
            ("a LOGIN {0+}\r\n x\r\n", &["a LOGIN {0+}\r\n x"]),
            (
                "a X {17}\r\nb NOOP\r\n",
                &["a BAD literal too large", "b NOOP"],
            ),
            // a refused literal that was sent all the same is not taken for commands
            (
                "a X {18+}\r\nevil DELETE INBOX\r\r\nb NOOP\r\n",
                &["a BAD literal too large", "b NOOP"],
            ),
            (
                "a X {18+}\r\nevil DELETE INBOX\r {7+}\r\nevil x\n\r\nb NOOP\r\n",
                &["a BAD literal too large", "b NOOP"],
            ),
            (
                "a NOOP\nb NOOP\r\n",
                &[
                    "a BAD a line ends in CRLF and has no other CR, LF or NUL",
                    "b NOOP",
                ],
            ),
            (
                "a N\rP\r\nb NOOP\r\n",
                &[
                    "a BAD a line ends in CRLF and has no other CR, LF or NUL",
                    "b NOOP",
                ],
            ),
            (
                &format!("a {long}\r\nb NOOP\r\n"),
                &["a BAD command too long", "b NOOP"],
            ),
            (
                &format!("a {long} {{6+}}\r\nc d e \r\nb NOOP\r\n"),
                &["a BAD command too long", "b NOOP"],
            ),
            ("a APPEND x (\\Seen) {310}\r\n", &["append a 310 true"]),
            ("a APPEND {1}\r\nx {999+}\r\n", &["+", "append a 999 false"]),
        ];
        for (input, want) in table {
            for step in 1..=input.len() {
                assert_eq!(frames(input, step), *want, "{input:?} in {step}s");
            }
        }
    }
}
