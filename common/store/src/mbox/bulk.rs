//! Bodies, many lines at once: what the line by line reader does with them, in fewer steps. Only
//! whole lines behind the header are given to it, and none that may be a From_ line.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::field;
use crate::lines::HEAD;

static FROM: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\nFrom "));
static CRLF: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n"));
static QUOTE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n>"));

/// Whole lines of a body.
pub(super) struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    /// Those that a piece, which begins with a line, has before one that begins with `From `.
    pub(super) fn at_head(piece: &'a [u8]) -> Option<Self> {
        if piece.starts_with(b"From ") {
            return None;
        }
        let end = match FROM.find(piece) {
            Some(at) => at + 1,
            None => memchr::memrchr(b'\n', piece)? + 1,
        };
        piece.get(..end).map(Self)
    }

    /// Octets in the file.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Octets as served: CRLF, one `>` less where there is one to lose.
    pub(super) fn served(&self) -> usize {
        let ends = memchr::memchr_iter(b'\n', self.0).count();
        let whole = CRLF.find_iter(self.0).count();
        self.0.len() + ends - whole - self.quoted()
    }

    fn quoted(&self) -> usize {
        let starts = QUOTE.find_iter(self.0).map(|at| at + 1);
        starts.chain([0]).filter(|at| self.is_quoted(*at)).count()
    }

    fn is_quoted(&self, at: usize) -> bool {
        let rest = self.0.get(at..).unwrap_or_default();
        let head = rest.get(..rest.len().min(HEAD)).unwrap_or_default();
        let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
        field::is_quoted(line)
    }

    /// Whether the last one is empty.
    pub(super) fn ends_blank(&self) -> bool {
        let line = self.0.strip_suffix(b"\n").unwrap_or(self.0);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.is_empty() || line.ends_with(b"\n")
    }
}

/// Appends a body as it is served, with a line end behind its last line.
pub(super) fn serve(body: &[u8], out: &mut Vec<u8>) {
    let mut rest = body;
    while !rest.is_empty() {
        let at = memchr::memchr(b'\n', rest);
        let line = rest.get(..at.unwrap_or(rest.len())).unwrap_or_default();
        // A CR is part of the line's end only before a LF.
        let line = match line.strip_suffix(b"\r") {
            Some(line) if at.is_some() => line,
            _ => line,
        };
        let quoted = line.first() == Some(&b'>')
            && field::is_quoted(line.get(..line.len().min(HEAD)).unwrap_or_default());
        out.extend_from_slice(line.get(usize::from(quoted)..).unwrap_or_default());
        out.extend_from_slice(b"\r\n");
        rest = at.and_then(|at| rest.get(at + 1..)).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::Serve;
    use super::*;

    #[test]
    fn many_lines_are_what_they_are_one_by_one() {
        let many = ">".repeat(5000);
        for body in [
            "",
            "\n",
            "\r\n",
            "a\n",
            "a\r\nb\n\n",
            "a\r\n\r\n",
            "\r\r\n",
            ">From x\n>>From y\r\n> From\n>x\n>\n",
            "x\n>From x",
            "x\r",
            ">From \r\n>From\n\n",
            "\n>\n>From >From \n",
            many.as_str(),
            &format!("{many}\n>{many}\r\n"),
        ] {
            let raw = format!("\n{body}");
            let mut one_by_one = Serve::default();
            let mut want = one_by_one.feed(raw.as_bytes());
            want.extend(one_by_one.finish().0);
            let mut out = b"\r\n".to_vec();
            serve(body.as_bytes(), &mut out);
            assert_eq!(out, want, "{body:?}");
            if let Some(lines) = Lines::at_head(body.as_bytes()) {
                let mut out = Vec::new();
                serve(&body.as_bytes()[..lines.len()], &mut out);
                assert_eq!(lines.served(), out.len(), "{body:?}");
                let blank = out == b"\r\n" || out.ends_with(b"\n\r\n");
                assert_eq!(lines.ends_blank(), blank, "{body:?}");
            }
        }
    }

    #[test]
    fn lines_end_before_what_may_be_a_from_line() {
        for (piece, length) in [
            ("From x\n", None),
            ("a\nFrom x\n", Some(2)),
            ("a\nb", Some(2)),
            ("a", None),
            ("", None),
            ("a\n\nFrom", Some(3)),
        ] {
            let lines = Lines::at_head(piece.as_bytes());
            assert_eq!(lines.map(|l| l.len()), length, "{piece:?}");
        }
    }
}
