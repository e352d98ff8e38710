//! The two ways to write a message down so that small changes on its way do not count: RFC 6376 3.4.
//!
//! Header fields are turned over one by one. Bodies are turned over as they come: any way to cut a
//! body into parts gives the same octets, and however many empty lines are held back, they are a
//! number and not a buffer.
//!
//! Only CRLF ends a line. A CR or an LF alone is an octet like any other.

/// RFC 6376 3.4.1 to 3.4.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Canonical {
    Simple,
    Relaxed,
}

impl Canonical {
    /// As in `c=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Relaxed => "relaxed",
        }
    }

    /// Adds one field to `out`: `field` is all of it, name to line end. The result ends in CRLF
    /// where the field did.
    pub fn field(self, field: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Simple => out.extend_from_slice(field),
            Self::Relaxed => relaxed_field(field, out),
        }
    }
}

/// RFC 6376 3.4.2.
fn relaxed_field(field: &[u8], out: &mut Vec<u8>) {
    let (field, end) = match field.strip_suffix(b"\r\n") {
        Some(field) => (field, b"\r\n".as_slice()),
        None => (field, b"".as_slice()),
    };
    let colon = memchr::memchr(b':', field).unwrap_or(field.len());
    let (name, value) = field.split_at_checked(colon).unwrap_or((field, b""));
    out.extend(name.trim_ascii_end().iter().map(u8::to_ascii_lowercase));
    if value.is_empty() {
        out.extend_from_slice(end);
        return;
    }
    out.push(b':');
    let mut space = false;
    let mut begun = false;
    let mut rest = value.get(1..).unwrap_or_default();
    while let Some((byte, more)) = rest.split_first() {
        rest = more;
        match byte {
            // Unfolding takes the CRLF away and leaves the white space behind it.
            b'\r' if rest.first() == Some(&b'\n') => rest = rest.get(1..).unwrap_or_default(),
            b' ' | b'\t' => space = true,
            _ => {
                if space && begun {
                    out.push(b' ');
                }
                space = false;
                begun = true;
                out.push(*byte);
            }
        }
    }
    out.extend_from_slice(end);
}

/// Octets that are collected before they are given away.
const CHUNK: usize = 8 << 10;
/// Empty lines that are given away at once.
const LINES: [u8; 512] = {
    let mut lines = [b'\n'; 512];
    let mut at = 0;
    while at < 512 {
        lines[at] = b'\r';
        at += 2;
    }
    lines
};

/// A body on its way through one of the two.
#[derive(Debug, Clone)]
pub struct Body {
    canonical: Canonical,
    out: Vec<u8>,
    /// Line ends seen and not yet given away: at the end of the body all but one are dropped.
    line_ends: u64,
    /// White space before something that is not yet known (relaxed).
    space: bool,
    /// A CR at the end of what came so far.
    cr: bool,
    /// Something other than line ends has come.
    begun: bool,
}

impl Body {
    pub fn new(canonical: Canonical) -> Self {
        Self {
            canonical,
            out: Vec::with_capacity(CHUNK),
            line_ends: 0,
            space: false,
            cr: false,
            begun: false,
        }
    }

    /// Takes the next octets; `sink` gets the canonical ones that are certain, in parts of any size.
    pub fn feed(&mut self, input: &[u8], sink: &mut dyn FnMut(&[u8])) {
        let mut rest = input;
        while let Some((&byte, more)) = rest.split_first() {
            if std::mem::take(&mut self.cr) {
                if byte == b'\n' {
                    self.line_ends += 1;
                    self.space = false;
                    rest = more;
                    continue;
                }
                self.content(b"\r", sink);
            }
            match byte {
                b'\r' => {
                    self.cr = true;
                    rest = more;
                }
                b' ' | b'\t' if self.canonical == Canonical::Relaxed => {
                    self.space = true;
                    rest = more;
                }
                _ => {
                    let run = rest.split_at_checked(self.run(rest));
                    let (run, after) = run.unwrap_or((rest, b""));
                    self.content(run, sink);
                    rest = after;
                }
            }
        }
    }

    /// The end of the body.
    pub fn finish(mut self, sink: &mut dyn FnMut(&[u8])) {
        if std::mem::take(&mut self.cr) {
            self.content(b"\r", sink);
        }
        // 3.4.3: no body at all is one line end; 3.4.4: it is nothing.
        if self.begun || self.canonical == Canonical::Simple {
            self.out.extend_from_slice(b"\r\n");
        }
        sink(&self.out);
    }

    /// How many octets at the start of `text`, one at least, are as they are.
    fn run(&self, text: &[u8]) -> usize {
        let found = match self.canonical {
            Canonical::Simple => memchr::memchr(b'\r', text),
            Canonical::Relaxed => memchr::memchr3(b'\r', b' ', b'\t', text),
        };
        found.unwrap_or(text.len()).max(1)
    }

    fn content(&mut self, text: &[u8], sink: &mut dyn FnMut(&[u8])) {
        self.begun = true;
        while self.line_ends > 0 {
            let most = LINES.len() / 2;
            let now = usize::try_from(self.line_ends).map_or(most, |n| n.min(most));
            self.push(LINES.get(..now * 2).unwrap_or_default(), sink);
            self.line_ends = self.line_ends.saturating_sub(now as u64);
        }
        if std::mem::take(&mut self.space) {
            self.push(b" ", sink);
        }
        self.push(text, sink);
    }

    fn push(&mut self, text: &[u8], sink: &mut dyn FnMut(&[u8])) {
        if self.out.len() + text.len() > CHUNK {
            sink(&self.out);
            self.out.clear();
        }
        if text.len() > CHUNK {
            sink(text);
        } else {
            self.out.extend_from_slice(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(canonical: Canonical, text: &str) -> String {
        let mut out = Vec::new();
        canonical.field(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn body(canonical: Canonical, parts: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut body = Body::new(canonical);
        for part in parts {
            body.feed(part, &mut |octets| out.extend_from_slice(octets));
        }
        body.finish(&mut |octets| out.extend_from_slice(octets));
        String::from_utf8(out).unwrap()
    }

    /// RFC 6376 3.4.5, examples 1 to 3.
    #[test]
    fn the_examples_of_rfc_6376() {
        let header = ["A: X\r\n", "B : Y\t\r\n\tZ  \r\n"];
        let relaxed = ["a:X\r\n", "b:Y Z\r\n"];
        for (text, wanted) in header.iter().zip(relaxed) {
            assert_eq!(field(Canonical::Relaxed, text), wanted);
            assert_eq!(field(Canonical::Simple, text), *text);
        }
        let text = b" C \r\nD \t E\r\n\r\n\r\n";
        assert_eq!(body(Canonical::Relaxed, &[text]), " C\r\nD E\r\n");
        assert_eq!(body(Canonical::Simple, &[text]), " C \r\nD \t E\r\n");
    }

    #[test]
    fn fields() {
        let table = [
            ("SUBJect:\tAbC  dEf \r\n", "subject:AbC dEf\r\n"),
            ("a: b\r\n c\r\n\td\r\n", "a:b c d\r\n"),
            ("a:\r\n", "a:\r\n"),
            ("a: \r\n \r\n", "a:\r\n"),
            ("a:\r\n b\r\n", "a:b\r\n"),
            ("a:b", "a:b"),
            ("a: b: c\r\n", "a:b: c\r\n"),
            ("a\t : b\rc\nd\r\n", "a:b\rc\nd\r\n"),
            ("a", "a"),
            ("", ""),
        ];
        for (text, wanted) in table {
            assert_eq!(field(Canonical::Relaxed, text), wanted, "{text:?}");
        }
    }

    const BODIES: &[(&str, &str, &str)] = &[
        ("", "", "\r\n"),
        ("\r\n", "", "\r\n"),
        ("\r\n\r\n\r\n", "", "\r\n"),
        (" ", "", " \r\n"),
        (" \t\r\n\r\n", "", " \t\r\n"),
        ("a", "a\r\n", "a\r\n"),
        ("a\r\n", "a\r\n", "a\r\n"),
        ("a \r\n \r\n", "a\r\n", "a \r\n \r\n"),
        ("\r\n\r\na", "\r\n\r\na\r\n", "\r\n\r\na\r\n"),
        (
            "a\t \tb\r\n\r\nc  ",
            "a b\r\n\r\nc\r\n",
            "a\t \tb\r\n\r\nc  \r\n",
        ),
        ("a\rb\nc\r\r\n", "a\rb\nc\r\r\n", "a\rb\nc\r\r\n"),
        ("a \r", "a \r\r\n", "a \r\r\n"),
        ("\n", "\n\r\n", "\n\r\n"),
        ("a\r\n\r", "a\r\n\r\r\n", "a\r\n\r\r\n"),
    ];

    #[test]
    fn bodies_in_any_parts() {
        for (text, relaxed, simple) in BODIES {
            for (canonical, wanted) in [(Canonical::Relaxed, relaxed), (Canonical::Simple, simple)]
            {
                let bytes = text.as_bytes();
                assert_eq!(body(canonical, &[bytes]), *wanted, "{text:?}");
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                assert_eq!(body(canonical, &single), *wanted, "{text:?} in octets");
                for cut in 0..=bytes.len() {
                    let (a, b) = bytes.split_at(cut);
                    assert_eq!(body(canonical, &[a, b]), *wanted, "{text:?} at {cut}");
                }
            }
        }
    }

    #[test]
    fn more_than_fits_in_the_buffer() {
        let lines = "\r\n".repeat(3 * CHUNK);
        let long = "x".repeat(3 * CHUNK);
        let text = format!("{long}{lines}y z{lines}");
        let wanted = format!("{long}{lines}y z\r\n");
        for canonical in [Canonical::Relaxed, Canonical::Simple] {
            assert_eq!(body(canonical, &[text.as_bytes()]), wanted);
        }
    }
}
