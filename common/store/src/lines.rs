//! A stream of octets cut into lines, whatever the chunks it comes in.
//!
//! LF or CRLF ends a line; a CR elsewhere is an octet like others. Of each line the head is given
//! in one piece, up to [`HEAD`] octets, which is what decides what kind of line it is; the rest of
//! a longer one comes in pieces. So memory is bounded, and short lines are not copied.

/// Octets of a line that are given at once.
pub(crate) const HEAD: usize = 4096;

/// What a line is made of: one `Head`, any number of `Rest`, one `End`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// The first octets. Fewer than [`HEAD`] means the line has no more.
    Head(&'a [u8]),
    Rest(&'a [u8]),
    End(Eol),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eol {
    Lf,
    CrLf,
    /// The stream ended.
    None,
}

impl Eol {
    /// Octets it takes.
    pub(crate) fn len(self) -> u64 {
        match self {
            Self::Lf => 1,
            Self::CrLf => 2,
            Self::None => 0,
        }
    }
}

/// The cutter. Feed it, then [`Lines::finish`].
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The beginning of a line whose head is not given yet.
    head: Vec<u8>,
    /// Whether the head of the present line was given.
    given: bool,
    /// A CR at the end of a chunk: of a CRLF, or not.
    cr: bool,
}

impl Lines {
    /// Whether the next octet begins a line.
    pub(crate) fn is_at_start(&self) -> bool {
        !self.given && self.head.is_empty() && !self.cr
    }

    pub(crate) fn feed(&mut self, mut chunk: &[u8], sink: &mut (impl FnMut(Event<'_>) + ?Sized)) {
        if self.cr && chunk.first().is_some_and(|b| *b != b'\n') {
            self.cr = false;
            self.octets(b"\r", sink);
        }
        while let Some(at) = memchr::memchr(b'\n', chunk) {
            let (line, rest) = chunk.split_at(at);
            let eol = match line.strip_suffix(b"\r") {
                _ if std::mem::take(&mut self.cr) => Eol::CrLf,
                Some(_) => Eol::CrLf,
                None => Eol::Lf,
            };
            self.end(line.strip_suffix(b"\r").unwrap_or(line), eol, sink);
            chunk = rest.get(1..).unwrap_or_default();
        }
        if let Some(line) = chunk.strip_suffix(b"\r") {
            self.cr = true;
            chunk = line;
        }
        if !chunk.is_empty() {
            self.octets(chunk, sink);
        }
    }

    /// The end of the stream: a line without an end gets [`Eol::None`].
    pub(crate) fn finish(&mut self, sink: &mut (impl FnMut(Event<'_>) + ?Sized)) {
        if std::mem::take(&mut self.cr) {
            self.octets(b"\r", sink);
        }
        if self.given || !self.head.is_empty() {
            self.end(b"", Eol::None, sink);
        }
    }

    /// Octets of a line that goes on.
    fn octets(&mut self, bytes: &[u8], sink: &mut (impl FnMut(Event<'_>) + ?Sized)) {
        if self.given {
            sink(Event::Rest(bytes));
            return;
        }
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD - self.head.len().min(HEAD)));
        self.head.extend_from_slice(head);
        if self.head.len() >= HEAD {
            sink(Event::Head(&self.head));
            self.head.clear();
            self.given = true;
            if !rest.is_empty() {
                sink(Event::Rest(rest));
            }
        }
    }

    /// The last octets of a line.
    fn end(&mut self, bytes: &[u8], eol: Eol, sink: &mut (impl FnMut(Event<'_>) + ?Sized)) {
        if self.given || !self.head.is_empty() || bytes.len() >= HEAD {
            if !bytes.is_empty() {
                self.octets(bytes, sink);
            }
            if !self.given {
                sink(Event::Head(&self.head));
                self.head.clear();
            }
            self.given = false;
        } else {
            sink(Event::Head(bytes));
        }
        sink(Event::End(eol));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &[u8], size: usize) -> (Vec<(Vec<u8>, Eol)>, bool) {
        let mut lines = Lines::default();
        let (mut out, mut line, mut heads) = (Vec::new(), Vec::new(), true);
        let mut sink = |event: Event<'_>| match event {
            Event::Head(h) => {
                heads &= line.is_empty();
                line.extend_from_slice(h);
            }
            Event::Rest(r) => {
                heads &= line.len() >= HEAD && !r.is_empty();
                line.extend_from_slice(r);
            }
            Event::End(eol) => out.push((std::mem::take(&mut line), eol)),
        };
        for chunk in text.chunks(size) {
            lines.feed(chunk, &mut sink);
        }
        lines.finish(&mut sink);
        (out, heads)
    }

    #[test]
    fn lines_are_the_same_however_they_come() {
        let long = [
            b"x".repeat(HEAD).as_slice(),
            b"\r",
            &b"y".repeat(HEAD + 1),
            b"\r\nz\r",
        ]
        .concat();
        for text in [
            b"a\r\n\nb\rc\r\r\n\r".as_slice(),
            b"",
            b"\n",
            b"\r\n",
            b"no end",
            &b"h".repeat(HEAD),
            &long,
        ] {
            let whole = cut(text, text.len().max(1));
            assert!(whole.1);
            for size in [1, 2, 3, 7, HEAD - 1, HEAD, HEAD + 1] {
                assert_eq!(cut(text, size), whole, "{size}");
            }
            let back: Vec<u8> = whole
                .0
                .iter()
                .flat_map(|(line, eol)| {
                    let end: &[u8] = match eol {
                        Eol::Lf => b"\n",
                        Eol::CrLf => b"\r\n",
                        Eol::None => b"",
                    };
                    [line.as_slice(), end].concat()
                })
                .collect();
            assert_eq!(back, text);
        }
    }
}
