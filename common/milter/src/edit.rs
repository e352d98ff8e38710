//! What a milter's changes do to a header.
//!
//! A header is its fields in CRLF with the empty line that ends it, where there is one. Lines in it
//! that are no field are kept and not counted.

use std::ops::Range;

use mime::header::Field;

use crate::packet::Garbage;

/// Octets of a field's name.
const MAX_NAME: usize = 256;

/// A field as it stands in a header, with its line end. In a value LF begins a continuation line.
/// `leading_space`: the value says itself what follows the colon.
pub fn field(name: &[u8], value: &[u8], leading_space: bool) -> Result<Vec<u8>, Garbage> {
    let printable = |b: &u8| matches!(b, 33..=126) && *b != b':';
    if name.is_empty() || name.len() > MAX_NAME || !name.iter().all(printable) {
        return Err(Garbage("a header field whose name is none"));
    }
    let mut field = [name, b":"].concat();
    if !leading_space {
        field.push(b' ');
    }
    let mut lines = value.split(|&b| b == b'\n');
    push(lines.next().unwrap_or_default(), &mut field);
    for line in lines {
        // An empty line would end the header, and one that begins otherwise would be another field.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r')) {
            continue;
        }
        field.extend_from_slice(b"\r\n");
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            field.push(b'\t');
        }
        push(line, &mut field);
    }
    field.extend_from_slice(b"\r\n");
    Ok(field)
}

/// A CR alone is none in a message of ours.
fn push(line: &[u8], out: &mut Vec<u8>) {
    out.extend(line.iter().filter(|&&b| b != b'\r' && b != 0));
}

/// A header as a milter is shown it: what stands above our own Received, which it is not shown, and
/// what came with the message.
#[derive(Debug, Clone)]
pub struct Header {
    /// Fields only.
    above: Vec<u8>,
    own: Vec<u8>,
    /// Fields above when it was shown. Places are counted as the milter saw them.
    shown_above: usize,
}

impl Header {
    /// `above`: fields only. `own`: with the empty line, where there is one.
    pub fn new(above: Vec<u8>, own: Vec<u8>) -> Self {
        let shown_above = mime::header::fields(&above).count();
        Self {
            above,
            own,
            shown_above,
        }
    }

    /// What came with the message, as it is now.
    pub fn own(&self) -> &[u8] {
        &self.own
    }

    /// Both parts, the one above first.
    pub fn into_parts(self) -> (Vec<u8>, Vec<u8>) {
        (self.above, self.own)
    }

    /// All of it, in the order in which places are counted.
    pub fn shown(&self) -> Vec<u8> {
        [self.above.as_slice(), &self.own].concat()
    }

    /// Puts a field behind all others.
    pub fn add(&mut self, field: &[u8]) {
        let own = &mut self.own;
        // Without a field there was no empty line either, or nothing else.
        if own.is_empty() {
            own.extend_from_slice(b"\r\n");
        }
        let end = mime::header::body_start(own);
        let at = match own.get(..end).unwrap_or_default() {
            b"\r\n" => 0,
            text if text.ends_with(b"\r\n\r\n") => end - 2,
            _ => end,
        };
        put(own, at..at, field);
    }

    /// Puts a field before the so manyth, from 1; behind all where there are fewer. 0 is above our
    /// Received, and all else.
    pub fn insert(&mut self, index: u32, field: &[u8]) {
        let Some(before) = place(index) else {
            return put(&mut self.above, 0..0, field);
        };
        let (text, before) = match before.checked_sub(self.shown_above) {
            Some(before) => (&mut self.own, before),
            None => {
                let now = mime::header::fields(&self.above).count();
                let before = before + now.saturating_sub(self.shown_above);
                (&mut self.above, before)
            }
        };
        match mime::header::fields(text).nth(before) {
            Some(found) => {
                let at = found.range.start;
                put(text, at..at, field);
            }
            None => self.add(field),
        }
    }

    /// Replaces the so manyth field called `name`, from 1, or takes it away. A new one goes behind all
    /// where there are fewer.
    pub fn change(&mut self, index: u32, name: &[u8], field: Option<&[u8]>) {
        let is_it = |found: &Field<'_>| found.name.eq_ignore_ascii_case(name);
        let before = place(index).unwrap_or(0);
        let above = mime::header::fields(&self.above).filter(is_it).count();
        let (text, before) = match before.checked_sub(above) {
            Some(before) => (&mut self.own, before),
            None => (&mut self.above, before),
        };
        let found = mime::header::fields(text).filter(is_it).nth(before);
        match (found, field) {
            (Some(found), field) => {
                let range = found.range;
                put(text, range, field.unwrap_or_default());
            }
            (None, Some(field)) => self.add(field),
            (None, None) => {}
        }
    }

    /// Ends the header, where nothing did that yet.
    pub fn end(&mut self) {
        let ended = self.own.as_slice() == b"\r\n" || self.own.ends_with(b"\r\n\r\n");
        if !ended {
            self.own.extend_from_slice(b"\r\n");
        }
    }
}

/// How many are before the one with this number.
fn place(index: u32) -> Option<usize> {
    let before = index.checked_sub(1)?;
    Some(usize::try_from(before).unwrap_or(usize::MAX))
}

fn put(text: &mut Vec<u8>, range: Range<usize>, field: &[u8]) {
    drop(text.splice(range, field.iter().copied()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str = "A: 1\r\nb: 2\r\n c\r\nB: 3\r\n\r\n";

    fn after(own: &str, edit: impl FnOnce(&mut Header)) -> String {
        let mut header = Header::new(Vec::new(), own.as_bytes().to_vec());
        edit(&mut header);
        let above = String::from_utf8(header.above).unwrap();
        let bar = if above.is_empty() { "" } else { "|" };
        format!("{above}{bar}{}", String::from_utf8(header.own).unwrap())
    }

    #[test]
    fn fields_are_made_whole() {
        let table: [(&[u8], bool, &[u8]); 6] = [
            (b"a", false, b"X: a\r\n"),
            (b" a", true, b"X: a\r\n"),
            (b"a\n\tb\n c", false, b"X: a\r\n\tb\r\n c\r\n"),
            (b"a\r\nb", false, b"X: a\r\n\tb\r\n"),
            (b"a\n\n \nBcc: x\r", false, b"X: a\r\n\tBcc: x\r\n"),
            (b"", false, b"X: \r\n"),
        ];
        for (value, space, want) in table {
            let got = field(b"X", value, space).unwrap();
            assert_eq!(got, want, "{}", got.escape_ascii());
        }
        for name in [&b""[..], b"a b", b"a:", b"a\r\nB", &[b'x'; 300]] {
            assert!(field(name, b"x", false).is_err());
        }
    }

    #[test]
    fn fields_are_added_at_the_end() {
        for (header, want) in [
            (HEADER, "A: 1\r\nb: 2\r\n c\r\nB: 3\r\nX: y\r\n\r\n"),
            ("A: 1\r\n", "A: 1\r\nX: y\r\n"),
            ("\r\n", "X: y\r\n\r\n"),
            ("", "X: y\r\n\r\n"),
        ] {
            assert_eq!(after(header, |h| h.add(b"X: y\r\n")), want);
        }
    }

    #[test]
    fn fields_are_inserted_where_they_are_wanted() {
        for (index, want) in [
            (0, "X: y\r\n|A: 1\r\nb: 2\r\n c\r\nB: 3\r\n\r\n"),
            (1, "X: y\r\nA: 1\r\nb: 2\r\n c\r\nB: 3\r\n\r\n"),
            (3, "A: 1\r\nb: 2\r\n c\r\nX: y\r\nB: 3\r\n\r\n"),
            (4, "A: 1\r\nb: 2\r\n c\r\nB: 3\r\nX: y\r\n\r\n"),
            (u32::MAX, "A: 1\r\nb: 2\r\n c\r\nB: 3\r\nX: y\r\n\r\n"),
        ] {
            assert_eq!(after(HEADER, |h| h.insert(index, b"X: y\r\n")), want);
        }
    }

    #[test]
    fn fields_are_changed_by_name_and_place() {
        let new = Some(&b"B: new\r\n"[..]);
        for (index, field, want) in [
            (1, new, "A: 1\r\nB: new\r\nB: 3\r\n\r\n"),
            (2, new, "A: 1\r\nb: 2\r\n c\r\nB: new\r\n\r\n"),
            (3, new, "A: 1\r\nb: 2\r\n c\r\nB: 3\r\nB: new\r\n\r\n"),
            (1, None, "A: 1\r\nB: 3\r\n\r\n"),
            (2, None, "A: 1\r\nb: 2\r\n c\r\n\r\n"),
            (3, None, HEADER),
        ] {
            assert_eq!(after(HEADER, |h| h.change(index, b"B", field)), want);
        }
    }

    #[test]
    fn what_is_above_counts_first() {
        let above = b"B: 0\r\n".to_vec();
        let mut header = Header::new(above, HEADER.as_bytes().to_vec());
        assert!(header.shown().starts_with(b"B: 0\r\nA: 1\r\n"));
        header.insert(0, b"Top: x\r\n");
        header.insert(2, b"X: y\r\n");
        header.insert(1, b"Y: z\r\n");
        header.change(1, b"b", None);
        header.change(1, b"B", Some(b"B: new\r\n"));
        let (above, own) = header.into_parts();
        assert_eq!(above, b"Top: x\r\nY: z\r\n");
        assert_eq!(own, b"X: y\r\nA: 1\r\nB: new\r\nB: 3\r\n\r\n");
    }

    #[test]
    fn a_header_is_ended_once() {
        for (own, want) in [
            (HEADER, HEADER),
            ("\r\n", "\r\n"),
            ("", "\r\n"),
            ("A: 1\r\n", "A: 1\r\n\r\n"),
        ] {
            assert_eq!(after(own, Header::end), want);
        }
    }

    proptest! {
        #[test]
        fn a_value_never_makes_a_second_field(value: Vec<u8>, index: u32) {
            let made = field(b"X", &value, false).unwrap();
            let own = HEADER.as_bytes().to_vec();
            let mut header = Header::new(Vec::new(), own);
            header.insert(index, &made);
            let shown = header.shown();
            prop_assert_eq!(mime::header::fields(&shown).count(), 4);
            prop_assert_eq!(mime::header::body_start(&shown), shown.len());
        }
    }
}
