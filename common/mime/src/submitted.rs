//! The fields that a message must have when it leaves its author's host (RFC 6409 8): From, Date and
//! Message-ID. Nothing that is there is changed.

/// The fields that `header`, the beginning of a message, lacks, each with CRLF; and the empty line
/// where it is a body without a header. Without `from` no From is made.
pub fn missing(header: &[u8], from: Option<&str>, date: &str, message_id: &str) -> String {
    let mut out = String::new();
    let names = Names::of(header);
    // RFC 5322 3.6.6: what was resent has its own author and date above the first ones.
    if let Some(from) = from
        && !names.has("From")
        && !names.has("Resent-From")
    {
        out.push_str(&format!("From: <{from}>\r\n"));
    }
    if !names.has("Date") && !names.has("Resent-Date") {
        out.push_str(&format!("Date: {date}\r\n"));
    }
    if !names.has("Message-ID") && !names.has("Resent-Message-ID") {
        out.push_str(&format!("Message-ID: <{message_id}>\r\n"));
    }
    if !names.separated {
        out.push_str("\r\n");
    }
    out
}

/// The names of a header's fields, as far as they are fields.
#[derive(Debug)]
pub struct Names<'a> {
    all: Vec<&'a [u8]>,
    /// An empty line ends the header. Without one the first line that is no field is the body's,
    /// and the empty line has to be ours, unless fields of its own would then be cut off.
    separated: bool,
}

impl<'a> Names<'a> {
    pub fn of(header: &'a [u8]) -> Self {
        let mut all = Vec::new();
        for line in header.split_inclusive(|b| *b == b'\n') {
            if line.trim_ascii().is_empty() {
                return Self {
                    all,
                    separated: true,
                };
            }
            if line.starts_with(b" ") || line.starts_with(b"\t") {
                continue;
            }
            let name = line
                .split(|b| *b == b':')
                .next()
                .unwrap_or_default()
                .trim_ascii_end();
            let is_field = name.len() < line.len()
                && !name.is_empty()
                && name.iter().all(|b| (0x21..=0x7e).contains(b));
            if !is_field || !line.contains(&b':') {
                break;
            }
            all.push(name);
        }
        // A header without a body needs no line; a body without a header does.
        let separated = !all.is_empty();
        Self { all, separated }
    }

    /// How many fields have this name.
    pub fn count(&self, name: &str) -> usize {
        let same = |n: &&&[u8]| n.eq_ignore_ascii_case(name.as_bytes());
        self.all.iter().filter(same).count()
    }

    pub fn has(&self, name: &str) -> bool {
        self.count(name) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_added_and_nothing_twice() {
        let all = "From: <a@b>\r\nDate: now\r\nMessage-ID: <x@y>\r\n";
        let bare = format!("{all}\r\n");
        let table = [
            ("Subject: x\r\n\r\nbody", all),
            ("from: a\r\nDATE: b\r\nmessage-id : c\r\n\r\n", ""),
            ("X: y\r\n From: no\r\n\r\nFrom: no", all),
            (
                "Resent-From: a\r\nFrom: b\r\nResent-Date: c\r\n\r\n",
                "Message-ID: <x@y>\r\n",
            ),
            ("\r\nbody", all),
            ("Subject: only\r\n", all),
            ("body without header\r\n", &bare),
            ("", &bare),
        ];
        for (header, want) in table {
            let got = missing(header.as_bytes(), Some("a@b"), "now", "x@y");
            assert_eq!(got, want, "{header:?}");
        }
        let got = missing(b"Date: x\r\nMessage-ID: y\r\n\r\n", None, "now", "x@y");
        assert_eq!(got, "");
    }
}
