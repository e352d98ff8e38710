//! The content of a message on its way in: RFC 5321 4.1.1.4 and 4.5.2, RFC 3030 2.
//!
//! With DATA only CRLF.CRLF ends it; with BDAT the client says where it ends, and with BINARYMIME what
//! stands behind the header is any octets. A CR or a LF alone ends nothing and makes the message refused,
//! because hosts that read it otherwise could be shown a second message inside the first (SMTP smuggling).
//! Whatever is wrong with the content, the framing goes on, so that session and client stay in step; up to
//! [`Limits::most`] octets, at which nobody can wait for its end any more.

/// Octets of a line, without CRLF. RFC 5321 4.5.3.1.6 promises 998; so much mail has longer lines
/// that refusing at that would refuse honest people. Nothing here stores a line.
pub(crate) const MAX_LINE: usize = 65_536;

/// Why a message cannot be taken. The worse comes later: of several, the worst is told, because which
/// was first depends on the pieces in which the octets come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    TooBig,
    LineTooLong,
    /// More Received fields than a message that does not loop can have: RFC 5321 6.3.
    Loop,
    /// A CR without LF or a LF without CR.
    BareLineEnd,
}

/// Where in a line we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    /// Behind a dot that began the line; it is not content.
    Dot,
    /// Behind a dot that began the line, and a CR.
    DotCr,
    Inside,
    /// Behind a CR.
    Cr,
    End,
}

/// How the end of the content is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// DATA: a line with a dot, and dots doubled at the start of lines.
    Dot,
    /// BDAT: by counted octets. [`Body::finish`] is called behind the last.
    Chunks,
    /// The same for BINARYMIME: behind the header any octet means itself, and nothing has lines.
    Binary,
}

/// The decoder of one message's content.
#[derive(Debug)]
pub(crate) struct Body {
    framing: Framing,
    at: At,
    /// Octets of the line so far.
    line: usize,
    size: u64,
    /// Octets taken, of content or not.
    taken: u64,
    limits: Limits,
    fault: Option<Fault>,
    hops: Hops,
}

/// What a message may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) size: u64,
    pub(crate) hops: usize,
}

impl Limits {
    /// Octets that are taken of a message which is refused: what is only a little too big, or somewhat
    /// more, comes to its end, so that its sender is told why.
    pub(crate) fn most(self) -> u64 {
        self.size.saturating_mul(10).max(16 << 20)
    }
}

impl Body {
    pub(crate) fn new(framing: Framing, limits: Limits) -> Self {
        Self {
            framing,
            at: At::Start,
            line: 0,
            size: 0,
            taken: 0,
            limits,
            fault: None,
            hops: Hops::default(),
        }
    }

    /// Takes input and appends the content in it to `out`. The number of bytes consumed: all, or up
    /// to the end of the content, or to [`Limits::most`].
    pub(crate) fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let room = self.limits.most().saturating_sub(self.taken);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let input = input.get(..room).unwrap_or(input);
        let consumed = self.take_all(input, out);
        self.taken = self.taken.saturating_add(consumed as u64);
        consumed
    }

    fn take_all(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let mut rest = input;
        while let Some((&first, after)) = rest.split_first() {
            match (self.at, first) {
                (At::End, _) => break,
                (At::Start, _) if self.framing == Framing::Binary && self.hops.header_over => {
                    self.emit(rest, out);
                    return input.len();
                }
                (At::Start, b'.') if self.framing == Framing::Dot => self.at = At::Dot,
                (At::Dot, b'\r') => self.at = At::DotCr,
                (At::DotCr, b'\n') => self.at = At::End,
                (At::Cr, b'\n') => {
                    self.emit(b"\r\n", out);
                    self.end_line();
                }
                (At::DotCr | At::Cr, _) => {
                    self.fail(Fault::BareLineEnd);
                    self.at = At::Inside;
                    continue;
                }
                (At::Start | At::Inside, b'\r') => self.at = At::Cr,
                (At::Start | At::Dot | At::Inside, b'\n') => {
                    self.fail(Fault::BareLineEnd);
                    self.at = At::Inside;
                }
                (At::Start | At::Dot | At::Inside, _) => {
                    let span = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    let (text, tail) = rest.split_at(span);
                    self.text(text, out);
                    self.at = At::Inside;
                    rest = tail;
                    continue;
                }
            }
            rest = after;
        }
        input.len().saturating_sub(rest.len())
    }

    /// There is no more: what does not end in CRLF gets one, since every line of the queue has it.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        match self.at {
            At::Cr => self.fail(Fault::BareLineEnd),
            At::Inside => self.emit(b"\r\n", out),
            At::Start | At::Dot | At::DotCr | At::End => (),
        }
        self.at = At::End;
    }

    /// Whether CRLF.CRLF has come.
    pub(crate) fn is_ended(&self) -> bool {
        self.at == At::End
    }

    /// Whether so much has come that its end is not waited for. Then something is wrong with it.
    pub(crate) fn is_endless(&self) -> bool {
        !self.is_ended() && self.taken >= self.limits.most()
    }

    /// What is wrong with it, if anything; once set, nothing more is appended.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Octets of content so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        self.hops.see(self.line, text);
        if self.hops.count > self.limits.hops {
            self.fail(Fault::Loop);
        }
        self.line = self.line.saturating_add(text.len());
        if self.line > MAX_LINE {
            self.fail(Fault::LineTooLong);
        }
        self.emit(text, out);
    }

    fn end_line(&mut self) {
        self.hops.line_ends(self.line == 0);
        self.line = 0;
        self.at = At::Start;
    }

    fn emit(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.size = self
            .size
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.size > self.limits.size {
            self.fail(Fault::TooBig);
        }
        if self.fault.is_none() {
            out.extend_from_slice(bytes);
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.fault = self.fault.max(Some(fault));
    }
}

/// Counts the Received fields of the header, byte by byte, in whatever pieces it comes.
#[derive(Debug, Default)]
struct Hops {
    count: usize,
    header_over: bool,
    differs: bool,
}

impl Hops {
    fn see(&mut self, column: usize, text: &[u8]) {
        const NAME: &[u8] = b"received:";
        let Some(wanted) = NAME.get(column..).filter(|w| !w.is_empty()) else {
            return;
        };
        if self.header_over || self.differs {
            return;
        }
        self.differs = wanted
            .iter()
            .zip(text)
            .any(|(w, b)| *w != b.to_ascii_lowercase());
        if !self.differs && text.len() >= wanted.len() {
            self.count = self.count.saturating_add(1);
        }
    }

    fn line_ends(&mut self, empty: bool) {
        self.header_over |= empty;
        self.differs = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Limits = Limits {
        size: 1 << 30,
        hops: 50,
    };

    /// Content, fault, and what is left behind the end (`None`: no end).
    fn run(input: &[u8], limits: Limits) -> (Vec<u8>, Option<Fault>, Option<Vec<u8>>) {
        let (mut body, mut out) = (Body::new(Framing::Dot, limits), Vec::new());
        let n = body.take(input, &mut out);
        (
            out,
            body.fault(),
            body.is_ended().then(|| input[n..].to_vec()),
        )
    }

    #[test]
    fn dots_are_unstuffed_and_only_crlf_dot_crlf_ends() {
        let table: &[(&[u8], &[u8], &[u8])] = &[
            (b".\r\n", b"", b""),
            (b"a\r\n.\r\n", b"a\r\n", b""),
            (b"a\r\n..\r\n.\r\nQUIT\r\n", b"a\r\n.\r\n", b"QUIT\r\n"),
            (b"..a\r\n.b\r\n.\r\n", b".a\r\nb\r\n", b""),
            (b"a.\r\n.\r\n", b"a.\r\n", b""),
            (b"\r\n\r\n.\r\n", b"\r\n\r\n", b""),
            (b"\xff\0\r\n.\r\n", b"\xff\0\r\n", b""),
        ];
        for (input, content, left) in table {
            let want = (content.to_vec(), None, Some(left.to_vec()));
            assert_eq!(run(input, ROOMY), want, "{}", input.escape_ascii());
        }
    }

    /// The variants of SMTP smuggling: none of them ends the message, all of them spoil it.
    #[test]
    fn no_smuggled_end_of_data() {
        let ends: &[&[u8]] = &[
            b"\n.\n",
            b"\n.\r\n",
            b"\r\n.\n",
            b"\r.\r",
            b"\r.\r\n",
            b"\r\n.\r",
            b"\n.\r",
            b"\r.\n",
            b"\r\n\0.\r\n",
            b"\r\n.\0\r\n",
            b"\r\n.\r\r\n",
            b"\r\r\n.\r\r\n",
            b"\r\n\r.\r\n",
            b"\n\n.\r\n",
            b"\r\n .\r\n",
            b"\r\n. \r\n",
            b"\r\n.\n\r\n",
            b"\r\n\x0b.\r\n",
        ];
        for end in ends {
            let mut input = b"From: a@b\r\n\r\ntext".to_vec();
            input.extend_from_slice(end);
            input
                .extend_from_slice(b"MAIL FROM:<evil@x>\r\nRCPT TO:<b@c>\r\nDATA\r\nfake\r\n.\r\n");
            let (content, fault, left) = run(&input, ROOMY);
            assert_eq!(
                left,
                Some(vec![]),
                "{}: one message to the very end",
                end.escape_ascii()
            );
            let is_bare = !end
                .windows(2)
                .any(|w| w == b"\0." || w == b".\0" || w == b" ." || w == b". " || w == b"\x0b.");
            assert_eq!(fault.is_some(), is_bare, "{}", end.escape_ascii());
            if fault.is_none() {
                assert!(content.windows(9).any(|w| w == b"MAIL FROM"));
            }
        }
    }

    #[test]
    fn limits_are_noticed_and_the_framing_goes_on() {
        let small = Limits { size: 10, hops: 1 };
        let (out, fault, left) = run(b"12345678\r\n12345\r\n.\r\nNOOP", small);
        assert_eq!((fault, left), (Some(Fault::TooBig), Some(b"NOOP".to_vec())));
        assert!(out.len() <= 10);
        assert_eq!(run(b"12345678\r\n.\r\n", small).1, None);

        let mut long = vec![b'x'; MAX_LINE];
        long.extend_from_slice(b"\r\n.\r\n");
        assert_eq!(run(&long, ROOMY).1, None);
        long.insert(0, b'x');
        assert_eq!(run(&long, ROOMY).1, Some(Fault::LineTooLong));
    }

    #[test]
    fn pieces_do_not_decide_which_fault_is_told() {
        let small = Limits { size: 10, hops: 0 };
        let long = [&[b'x'; MAX_LINE + 1][..], b"\r\n.\r\n"].concat();
        for (input, want) in [
            (&long[..], Fault::LineTooLong),
            (b"Received: and more\r\n.\r\n", Fault::Loop),
            (b"0123456789ab\n\r\n.\r\n", Fault::BareLineEnd),
        ] {
            let (mut body, mut out) = (Body::new(Framing::Dot, small), Vec::new());
            for octet in input {
                body.take(std::slice::from_ref(octet), &mut out);
            }
            assert_eq!(body.fault(), Some(want));
            assert_eq!(run(input, small).1, Some(want));
        }
    }

    #[test]
    fn hops_are_counted_in_the_header_only() {
        let limits = Limits {
            size: 1000,
            hops: 2,
        };
        let two = b"Received: a\r\nRECEIVED: b\r\n received: folded\r\nX-Received: c\r\nReceived-SPF: d\r\n\r\n";
        let mut ok = two.to_vec();
        ok.extend_from_slice(b"Received: quoted\r\n.\r\n");
        assert_eq!(run(&ok, limits).1, None);
        let mut three = b"received:\r\n".to_vec();
        three.extend_from_slice(two);
        three.extend_from_slice(b".\r\n");
        assert_eq!(run(&three, limits).1, Some(Fault::Loop));
    }

    proptest::proptest! {
        /// Any split of the input gives the same content, the same fault and the same end. (How
        /// much of a faulty message was handed out before is nobody's business: it is discarded.)
        #[test]
        fn any_split_is_the_same(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    &b"\r\n"[..], b".", b"..", b"\r", b"\n", b"\r\n.\r\n", b"a", b"Received:", b"Rec", b"eived: x",
                ]), 0..40),
            cuts in proptest::collection::vec(1usize..7, 1..30),
        ) {
            let limits = Limits { size: 60, hops: 2 };
            let input: Vec<u8> = pieces.concat();
            let mut whole = run(&input, limits);
            let (mut body, mut out, mut at) = (Body::new(Framing::Dot, limits), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(input.len());
                let n = body.take(&input[at..end], &mut out);
                at += n;
                if body.is_ended() || end == input.len() {
                    break;
                }
            }
            let left = body.is_ended().then(|| input[at..].to_vec());
            if body.fault().is_some() {
                out.clear();
                whole.0.clear();
            }
            proptest::prop_assert_eq!((out, body.fault(), left), whole);
        }
    }
}
