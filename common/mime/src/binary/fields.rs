//! A header that says how the body is encoded now: rewritten as it passes, however long it is.

/// What the header is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Same,
    EightBit,
    Base64,
    /// Base64 of octets of which nothing is known.
    Opaque,
}

const ENCODING: &[u8] = b"content-transfer-encoding";
const TYPE: &[u8] = b"content-type";
/// More than any of these names, with blanks behind it.
const MAX_NAME: usize = 64;

/// Where in a line we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In its name, if it has one.
    Name,
    /// In a field that stays.
    Field,
    /// In one that goes.
    Gone,
}

/// The rewriter of one header.
#[derive(Debug)]
pub(super) struct Fields {
    label: Label,
    after_cr: bool,
    at: At,
    /// What continuation lines belong to.
    field: At,
    name: Vec<u8>,
    /// The empty line has come.
    ended: bool,
}

impl Fields {
    pub(super) fn new(label: Label) -> Self {
        Self {
            label,
            after_cr: false,
            at: At::Name,
            field: At::Field,
            name: Vec::new(),
            ended: false,
        }
    }

    pub(super) fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut after_cr = self.after_cr;
        for &byte in piece {
            tidy(&mut after_cr, byte, |octets| match octets {
                b"\r\n" => self.end_line(out),
                _ => octets.iter().for_each(|octet| self.octet(*octet, out)),
            });
        }
        self.after_cr = after_cr;
    }

    /// A header that has no empty line behind it has no body either.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        if self.after_cr {
            self.octet(b' ', out);
        }
        out.append(&mut self.name);
    }

    fn octet(&mut self, octet: u8, out: &mut Vec<u8>) {
        if self.at == At::Name {
            if self.name.is_empty() && matches!(octet, b' ' | b'\t') {
                self.at = self.field;
            } else {
                self.name.push(octet);
                if octet == b':' || self.name.len() >= MAX_NAME {
                    self.choose(out);
                }
                return;
            }
        }
        if self.at == At::Field {
            out.push(octet);
        }
    }

    /// A field's name is known, or is none that matters.
    fn choose(&mut self, out: &mut Vec<u8>) {
        let mut name = std::mem::take(&mut self.name);
        let word = name.strip_suffix(b":").unwrap_or(&name).trim_ascii_end();
        self.at = match self.label {
            Label::EightBit | Label::Base64 | Label::Opaque
                if word.eq_ignore_ascii_case(ENCODING) =>
            {
                At::Gone
            }
            Label::Opaque if word.eq_ignore_ascii_case(TYPE) => {
                out.extend_from_slice(b"X-Original-Content-Type:");
                name.clear();
                At::Field
            }
            _ => At::Field,
        };
        self.field = self.at;
        if self.at == At::Field {
            out.append(&mut name);
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        match self.at {
            At::Name if self.name.is_empty() && !self.ended => {
                self.ended = true;
                out.extend_from_slice(match self.label {
                    Label::Same => b"",
                    Label::EightBit => b"Content-Transfer-Encoding: 8bit\r\n",
                    Label::Base64 => b"Content-Transfer-Encoding: base64\r\n",
                    Label::Opaque => {
                        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
                    }
                });
                out.extend_from_slice(b"\r\n");
            }
            At::Name | At::Field => {
                out.append(&mut self.name);
                out.extend_from_slice(b"\r\n");
            }
            At::Gone => (),
        }
        self.at = At::Name;
    }
}

/// Gives on what an octet leads to: CRLF whole, and spaces for NUL and for a CR or LF alone.
pub(super) fn tidy(after_cr: &mut bool, byte: u8, mut give: impl FnMut(&[u8])) {
    if std::mem::take(after_cr) {
        if byte == b'\n' {
            return give(b"\r\n");
        }
        give(b" ");
    }
    match byte {
        b'\r' => *after_cr = true,
        b'\n' | 0 => give(b" "),
        _ => give(&[byte]),
    }
}
