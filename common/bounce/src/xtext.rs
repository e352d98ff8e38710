//! xtext, the spelling of ORCPT and ENVID in the envelope: RFC 3461 4.

/// What `+HH` spells, where that is printable ASCII; everything else stays as it was written, so
/// that nothing decoded can end a line or a field.
pub(crate) fn decode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        let spelled = (c == '+')
            .then(|| after.get(..2).and_then(printable))
            .flatten();
        match spelled {
            Some(spelled) => {
                out.push(spelled);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(if (' '..='~').contains(&c) { c } else { '?' });
                rest = after;
            }
        }
    }
    out
}

fn printable(hex: &str) -> Option<char> {
    let bytes = hex
        .bytes()
        .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_lowercase());
    let byte = bytes.then(|| u8::from_str_radix(hex, 16).ok())??;
    (0x20..0x7f).contains(&byte).then(|| char::from(byte))
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_what_is_printable_is_decoded() {
        let table = [
            ("rfc822;ann+40example.org", "rfc822;ann@example.org"),
            ("a+2Bb+3Dc", "a+b=c"),
            ("a+0D+0Ab", "a+0D+0Ab"),
            ("a+4", "a+4"),
            ("a+4ü", "a+4?"),
            ("+2b", "+2b"),
            ("a\r\nb", "a??b"),
            ("", ""),
        ];
        for (text, want) in table {
            assert_eq!(super::decode(text), want);
        }
    }
}
