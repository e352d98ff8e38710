//! Modified UTF-7, in which IMAP writes names of mailboxes (RFC 3501 5.1.3).

/// The name in Unicode; `None` when it is not in the encoding's one right form. UTF-8, which some
/// clients send as it is, is taken for what it is.
pub(crate) fn decode(name: &[u8]) -> Option<String> {
    if !name.is_ascii() {
        return std::str::from_utf8(name).ok().map(str::to_owned);
    }
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'&' {
            if !(b' '..=b'~').contains(&byte) {
                return None;
            }
            text.push(char::from(byte));
            continue;
        }
        let end = rest.iter().position(|b| *b == b'-')?;
        let (shifted, after) = rest.split_at_checked(end)?;
        rest = after.get(1..)?;
        if shifted.is_empty() {
            text.push('&');
        } else {
            text.push_str(&shifted_text(shifted)?);
        }
    }
    // Two spellings of one name would be two mailboxes to some and one to others.
    (encode(&text).as_bytes() == name).then_some(text)
}

fn shifted_text(shifted: &[u8]) -> Option<String> {
    let (mut bits, mut count) = (0_u32, 0_u32);
    let mut units = Vec::new();
    for &symbol in shifted {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b',' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0x003f_ffff;
        count += 6;
        if count >= 16 {
            count -= 16;
            units.push(u16::try_from(bits >> count & 0xffff).ok()?);
        }
    }
    String::from_utf16(&units).ok()
}

/// The name as IMAP writes it.
pub(crate) fn encode(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    let mut pending = Vec::new();
    for c in text.chars() {
        if (' '..='~').contains(&c) {
            shift(&mut pending, &mut name);
            name.push_str(if c == '&' { "&-" } else { "" });
            if c != '&' {
                name.push(c);
            }
        } else {
            let mut units = [0; 2];
            pending.extend(
                c.encode_utf16(&mut units)
                    .iter()
                    .flat_map(|u| u.to_be_bytes()),
            );
        }
    }
    shift(&mut pending, &mut name);
    name
}

fn shift(pending: &mut Vec<u8>, name: &mut String) {
    if pending.is_empty() {
        return;
    }
    let base64 = mime::encoding::base64(pending);
    name.push('&');
    name.push_str(&base64.trim_end_matches('=').replace('/', ","));
    name.push('-');
    pending.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let table = [
            ("INBOX", "INBOX"),
            ("Entw&APw-rfe", "Entwürfe"),
            // RFC 3501 5.1.3
            ("~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"),
            ("a&-b", "a&b"),
            ("&-&AOk-&-", "&é&"),
            ("&2D3eAA-", "😀"),
        ];
        for (name, text) in table {
            assert_eq!(decode(name.as_bytes()).as_deref(), Some(text), "{name}");
            assert_eq!(encode(text), name);
        }
    }

    #[test]
    fn wrong_forms() {
        // not ended; ASCII shifted; shifted twice in a row (RFC 3501 5.1.3); half a surrogate pair
        for name in [
            "&",
            "&APw",
            "&AGE-",
            "&U,BTFw-&ZeVnLIqe-",
            "&2D0-",
            "a\x01",
            "&!!-",
        ] {
            assert_eq!(decode(name.as_bytes()), None, "{name}");
        }
        assert_eq!(decode("日本".as_bytes()).as_deref(), Some("日本"));
        assert_eq!(decode(b"\xff"), None);
    }
}
