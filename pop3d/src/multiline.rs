//! A message as a multi-line response (RFC 1939 3): dots stuffed, at most so many lines of body
//! (TOP), a dot at the end. Takes the message in pieces, however it is cut.

/// The state between two pieces.
#[derive(Debug, Clone)]
pub(crate) struct Multiline {
    /// Lines of the body still to be given; `None` for all.
    left: Option<u64>,
    in_header: bool,
    /// Octets of the present line so far, counted up to 2: enough to know an empty one.
    line: u8,
    last: u8,
    ended: bool,
}

impl Multiline {
    /// `lines` as TOP has it; `None` for RETR.
    pub(crate) fn new(lines: Option<u64>) -> Self {
        Self {
            left: lines,
            in_header: true,
            line: 0,
            last: b'\n',
            ended: false,
        }
    }

    /// Appends what of this piece is to be sent. `false` once nothing more is.
    pub(crate) fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) -> bool {
        if self.left.is_none() {
            self.feed_all(piece, out);
            return true;
        }
        for line in piece.split_inclusive(|b| *b == b'\n') {
            if self.ended || (!self.in_header && self.left == Some(0)) {
                self.ended = true;
                return false;
            }
            if self.line == 0 && line.starts_with(b".") {
                out.push(b'.');
            }
            out.extend_from_slice(line);
            self.note(line);
        }
        !self.ended && (self.in_header || self.left != Some(0))
    }

    /// Without a limit it does not matter where the header ends: what lies between two dots that
    /// are stuffed is copied in one go.
    fn feed_all(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if self.last == b'\n' && piece.starts_with(b".") {
            out.push(b'.');
        }
        let mut copied = 0;
        for at in memchr::memmem::find_iter(piece, b"\n.") {
            let end = at + 1;
            out.extend_from_slice(piece.get(copied..end).unwrap_or_default());
            out.push(b'.');
            copied = end;
        }
        out.extend_from_slice(piece.get(copied..).unwrap_or_default());
        self.last = piece.last().copied().unwrap_or(self.last);
    }

    fn note(&mut self, part: &[u8]) {
        let visible = part
            .iter()
            .filter(|b| !matches!(b, b'\r' | b'\n'))
            .take(1)
            .count();
        self.last = part.last().copied().unwrap_or(self.last);
        let empty = self.line < 2 && visible == 0;
        self.line = if visible == 0 { self.line.max(1) } else { 2 };
        if self.last == b'\n' {
            if self.in_header {
                self.in_header = !empty;
            } else if let Some(left) = &mut self.left {
                *left = left.saturating_sub(1);
            }
            self.line = 0;
        }
    }

    /// The end: a last line without CRLF gets one, then the dot.
    pub(crate) fn finish(&self, out: &mut Vec<u8>) {
        if self.last != b'\n' {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"A: b\r\n.C: d\r\n\r\n.\r\n..\r\nx\r\nlast";

    fn send(message: &[u8], lines: Option<u64>, step: usize) -> String {
        let mut multiline = Multiline::new(lines);
        let mut out = Vec::new();
        for piece in message.chunks(step) {
            if !multiline.feed(piece, &mut out) {
                break;
            }
        }
        multiline.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn any_cut_gives_the_same() {
        let table = [
            (
                None,
                "A: b\r\n..C: d\r\n\r\n..\r\n...\r\nx\r\nlast\r\n.\r\n",
            ),
            (Some(0), "A: b\r\n..C: d\r\n\r\n.\r\n"),
            (Some(1), "A: b\r\n..C: d\r\n\r\n..\r\n.\r\n"),
            (Some(3), "A: b\r\n..C: d\r\n\r\n..\r\n...\r\nx\r\n.\r\n"),
            (
                Some(99),
                "A: b\r\n..C: d\r\n\r\n..\r\n...\r\nx\r\nlast\r\n.\r\n",
            ),
        ];
        for (lines, want) in table {
            for step in 1..=MESSAGE.len() {
                assert_eq!(
                    send(MESSAGE, lines, step),
                    want,
                    "{lines:?} in pieces of {step}"
                );
            }
        }
    }

    #[test]
    fn odd_messages() {
        for step in 1..4 {
            assert_eq!(send(b"", None, step), ".\r\n");
            assert_eq!(send(b"\r\n", Some(0), step), "\r\n.\r\n");
            assert_eq!(send(b"A: b\r\n", Some(0), step), "A: b\r\n.\r\n");
            assert_eq!(send(b"\r\n\r\n\r\n", Some(1), step), "\r\n\r\n.\r\n");
        }
    }
}
