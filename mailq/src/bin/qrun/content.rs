//! A message as it goes over the wire between DATA and the final dot: RFC 5321 4.1.1.4, 4.5.2. Pure.
//!
//! Whatever the queue has, nothing but CRLF ends a line here, so that no server can see an end of
//! data that we did not mean. A message whose lines all end in CRLF goes out octet by octet, with
//! its dots doubled.

/// Makes the wire's form, piece by piece.
#[derive(Debug)]
pub(crate) struct Stuffing {
    /// At the beginning of a line.
    fresh: bool,
    /// The last octet was a CR, which is not written yet.
    cr: bool,
}

impl Stuffing {
    pub(crate) fn new() -> Self {
        Self {
            fresh: true,
            cr: false,
        }
    }

    /// The next octets of the message, appended to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &b in bytes {
            if std::mem::take(&mut self.cr) {
                self.end_line(out);
                if b == b'\n' {
                    continue;
                }
            }
            match b {
                b'\r' => self.cr = true,
                b'\n' => self.end_line(out),
                _ => {
                    if b == b'.' && self.fresh {
                        out.push(b'.');
                    }
                    self.fresh = false;
                    out.push(b);
                }
            }
        }
    }

    /// The end of data.
    pub(crate) fn finish(mut self, out: &mut Vec<u8>) {
        if self.cr || !self.fresh {
            self.end_line(out);
        }
        out.extend_from_slice(b".\r\n");
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.fresh = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_gives_the_same_octets() {
        let table: [(&[u8], &[u8]); 10] = [
            (b"", b".\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (
                b"a\r\n.\r\n..b\r\nc.d\r\n",
                b"a\r\n..\r\n...b\r\nc.d\r\n.\r\n",
            ),
            (b"a\n.\nb\n", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r.\rb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r\r\n\n", b"a\r\n\r\n\r\n.\r\n"),
            (b"a\r", b"a\r\n.\r\n"),
            (b"\r\n.\r\r\n", b"\r\n..\r\n\r\n.\r\n"),
        ];
        for (message, wire) in table {
            for size in 1..=message.len().max(1) {
                let (mut stuffing, mut out) = (Stuffing::new(), Vec::new());
                message
                    .chunks(size)
                    .for_each(|piece| stuffing.push(piece, &mut out));
                stuffing.finish(&mut out);
                assert_eq!(out, wire, "{message:?} in pieces of {size}");
            }
        }
    }
}
