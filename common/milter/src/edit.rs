//! What a milter's changes do to a header.
//!
//! A header is its fields in CRLF with the empty line that ends it, where there is one. Lines in it
//! that are no field are kept and not counted.

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

/// Puts a field behind all others.
pub fn add(header: &mut Vec<u8>, field: &[u8]) {
    // Without a field there was no empty line either, or nothing else.
    if header.is_empty() {
        header.extend_from_slice(b"\r\n");
    }
    let end = mime::header::body_start(header);
    let text = header.get(..end).unwrap_or_default();
    let at = match text {
        b"\r\n" => 0,
        _ if text.ends_with(b"\r\n\r\n") => end - 2,
        _ => end,
    };
    header.splice(at..at, field.iter().copied());
}

/// Puts a field before the so manyth, from 1; behind all where there are fewer.
pub fn insert(header: &mut Vec<u8>, index: u32, field: &[u8]) {
    let before = usize::try_from(index).unwrap_or(usize::MAX).max(1) - 1;
    let at = mime::header::fields(header)
        .nth(before)
        .map(|found| found.range.start);
    match at {
        Some(at) => drop(header.splice(at..at, field.iter().copied())),
        None => add(header, field),
    }
}

/// Replaces the so manyth field called `name`, from 1, or takes it away. A new one goes behind all
/// where there are fewer.
pub fn change(header: &mut Vec<u8>, index: u32, name: &[u8], field: Option<&[u8]>) {
    let before = usize::try_from(index).unwrap_or(usize::MAX).max(1) - 1;
    let range = mime::header::fields(header)
        .filter(|found| found.name.eq_ignore_ascii_case(name))
        .nth(before)
        .map(|found| found.range);
    match (range, field) {
        (Some(range), field) => {
            let field = field.unwrap_or_default();
            drop(header.splice(range, field.iter().copied()));
        }
        (None, Some(field)) => add(header, field),
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str = "A: 1\r\nb: 2\r\n c\r\nB: 3\r\n\r\n";

    fn after(header: &str, edit: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut header = header.as_bytes().to_vec();
        edit(&mut header);
        String::from_utf8(header).unwrap()
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
            assert_eq!(after(header, |h| add(h, b"X: y\r\n")), want);
        }
    }

    #[test]
    fn fields_are_inserted_where_they_are_wanted() {
        for (index, want) in [
            (0, "X: y\r\nA: 1\r\nb: 2\r\n c\r\nB: 3\r\n\r\n"),
            (1, "X: y\r\nA: 1\r\nb: 2\r\n c\r\nB: 3\r\n\r\n"),
            (3, "A: 1\r\nb: 2\r\n c\r\nX: y\r\nB: 3\r\n\r\n"),
            (4, "A: 1\r\nb: 2\r\n c\r\nB: 3\r\nX: y\r\n\r\n"),
            (u32::MAX, "A: 1\r\nb: 2\r\n c\r\nB: 3\r\nX: y\r\n\r\n"),
        ] {
            assert_eq!(after(HEADER, |h| insert(h, index, b"X: y\r\n")), want);
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
            assert_eq!(after(HEADER, |h| change(h, index, b"B", field)), want);
        }
    }

    proptest! {
        #[test]
        fn a_value_never_makes_a_second_field(value: Vec<u8>, index: u32) {
            let made = field(b"X", &value, false).unwrap();
            let mut header = HEADER.as_bytes().to_vec();
            insert(&mut header, index, &made);
            prop_assert_eq!(mime::header::fields(&header).count(), 4);
            prop_assert_eq!(mime::header::body_start(&header), header.len());
        }
    }
}
