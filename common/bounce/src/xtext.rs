//! xtext, the spelling of ORCPT and ENVID in the envelope: RFC 3461 4.

use base::international;

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

/// An ORCPT, decoded: its type and the address. One of the type `utf-8` has characters beyond ASCII as
/// `\x{F6}` (RFC 6533 3); those that an address may have are shown as themselves.
pub(crate) fn address(orcpt: &str) -> String {
    let text = decode(orcpt);
    let is_utf8 = |kind: &str| kind.eq_ignore_ascii_case("utf-8");
    if !text.split(';').next().is_some_and(is_utf8) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("\\x{") {
        out.push_str(before);
        let spelled = after.split_once('}').and_then(|(hex, behind)| {
            let is_hex = hex.bytes().all(|b| b.is_ascii_hexdigit());
            let c = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32)?;
            (is_hex && international::is_visible(c)).then_some((c, behind))
        });
        match spelled {
            Some((c, behind)) => {
                out.push(c);
                rest = behind;
            }
            None => {
                out.push_str("\\x{");
                rest = after;
            }
        }
    }
    out.push_str(rest);
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

    #[test]
    fn utf8_addresses() {
        for (text, want) in [
            ("utf-8;j\\x{F6}rg+40x", "utf-8;j\u{f6}rg@x"),
            ("UTF-8;\\x{1F600}\\x{5C}", "UTF-8;\u{1f600}\\"),
            ("utf-8;a\\x{0D}\\x{2028}\\x{", "utf-8;a\\x{0D}\\x{2028}\\x{"),
            ("utf-8;\\x{+F6}", "utf-8;\\x{+F6}"),
            ("rfc822;j\\x{F6}", "rfc822;j\\x{F6}"),
        ] {
            assert_eq!(super::address(text), want);
        }
    }
}
