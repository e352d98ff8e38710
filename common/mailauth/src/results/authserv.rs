//! Whose Authentication-Results a field claims to be: RFC 8601 2.2 and 5.
//!
//! Readers believe fields that carry our authserv-id, so what strangers wrote under it must go before
//! we write ours. Forgers write it with comments, quotes and folds; where a field cannot be read and
//! our name stands in it anyway, it goes as well: one field lost is cheaper than one believed.

/// Octets of a value that are looked at; whoever needs more before the first `;` is up to something.
const MAX_HEAD: usize = 4096;
/// How deep comments may be in one another.
const MAX_DEPTH: usize = 64;

/// What stands before the first `;`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// Without comments, quotes and folds: each piece of white space or comment is one space.
    pub(crate) text: String,
    /// Octets up to the semicolon and with it.
    pub(crate) length: usize,
    pub(crate) semicolon: bool,
}

/// Reads it; `None` where a comment or a quoted string has no end.
pub(crate) fn head(value: &[u8]) -> Option<Head> {
    let mut text: Vec<u8> = Vec::new();
    let mut depth = 0usize;
    let mut quoted = false;
    let mut escaped = false;
    let mut length = 0;
    let mut semicolon = false;
    for byte in value.iter().take(MAX_HEAD) {
        length += 1;
        if std::mem::take(&mut escaped) {
            if depth == 0 {
                text.push(*byte);
            }
            continue;
        }
        match byte {
            b'\\' if quoted || depth > 0 => escaped = true,
            b'"' if depth == 0 => quoted = !quoted,
            _ if quoted => text.push(*byte),
            b'(' if depth == MAX_DEPTH => return None,
            b'(' => depth += 1,
            b')' if depth > 0 => {
                depth -= 1;
                text.push(b' ');
            }
            _ if depth > 0 => (),
            b';' => {
                semicolon = true;
                break;
            }
            b' ' | b'\t' | b'\r' | b'\n' => text.push(b' '),
            _ => text.push(*byte),
        }
    }
    let whole = semicolon || length == value.len();
    (whole && depth == 0 && !quoted && !escaped).then(|| Head {
        text: String::from_utf8_lossy(&text).trim().to_owned(),
        length,
        semicolon,
    })
}

/// Whether a field claims to be ours and must be removed from a message that comes from outside
/// (RFC 8601 5). `name` and `value`: before and behind the colon. `authserv_id`: ours, as it is written
/// by [`super::Results`].
///
/// ARC-Authentication-Results are not meant: they are sealed.
pub fn is_ours(name: &[u8], value: &[u8], authserv_id: &str) -> bool {
    if !name
        .trim_ascii()
        .eq_ignore_ascii_case(b"authentication-results")
    {
        return false;
    }
    let ours = plain(authserv_id);
    // As a reader has it: without line ends, and without a NUL, wherever they stand.
    let value = &mime::header::unfold(value);
    match head(value) {
        Some(head) => {
            // White space may stand where somebody reads over it: `mx . example.org`.
            let joined: String = head.text.split_whitespace().collect();
            let first = head.text.split_whitespace().next().unwrap_or_default();
            let version = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit());
            plain(first) == ours || plain(&joined).strip_prefix(&ours).is_some_and(version)
        }
        None => {
            let text = String::from_utf8_lossy(value);
            plain(&text).contains(&ours)
        }
    }
}

/// For comparing: names are the same in any case, with a dot at the end, as U-labels and as A-labels.
fn plain(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.is_ascii() {
        true => name.to_ascii_lowercase(),
        false => idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_in_all_spellings() {
        let table = [
            ("mx.example.org; spf=pass", true),
            (" mx.example.org;\r\n\tspf=pass", true),
            ("MX.Example.ORG ; none", true),
            ("mx.example.org 1; none", true),
            ("mx.example.org", true),
            ("mx.example.org.; none", true),
            ("\"mx.example.org\"; none", true),
            ("\"mx.ex\\ample.org\" 1; none", true),
            ("(hi) mx.example.org (there;) 1; none", true),
            ("(a (b) \\) c) mx.example.org; none", true),
            ("\r\n (a)\r\n mx.example.org\r\n ; none", true),
            ("mx . example . org; none", true),
            ("mx(x).example.org 1; none", true),
            ("mx.example.org spf=pass", true),
            ("mx.exam\0ple.org; spf=pass", true),
            ("\"mx.exam\0ple.org; spf=pass", true),
            ("(mx.example.org; spf=pass", true),
            ("\"mx.example.org; spf=pass", true),
            ("other.example.org; spf=pass", false),
            ("mx.example.org.other.example; spf=pass", false),
            ("xmx.example.org; spf=pass", false),
            ("(mx.example.org) other.example; spf=pass", false),
            ("other.example; mx.example.org", false),
            ("(other.example; spf=pass", false),
            ("", false),
            ("; mx.example.org", false),
        ];
        for (value, wanted) in table {
            let found = is_ours(
                b"Authentication-Results",
                value.as_bytes(),
                "mx.example.org",
            );
            assert_eq!(found, wanted, "{value:?}");
        }
        assert!(is_ours(b"AUTHENTICATION-RESULTS ", b"a; none", "A"));
        assert!(!is_ours(b"ARC-Authentication-Results", b"a; none", "a"));
        assert!(is_ours(
            b"Authentication-Results",
            "b\u{fc}cher.example;".as_bytes(),
            "xn--bcher-kva.example"
        ));
    }

    #[test]
    fn heads_have_bounds() {
        let deep = "(".repeat(MAX_DEPTH + 1) + &")".repeat(MAX_DEPTH + 1) + "mx; none";
        assert_eq!(head(deep.as_bytes()), None);
        assert!(is_ours(b"Authentication-Results", deep.as_bytes(), "mx"));
        let long = " ".repeat(MAX_HEAD) + "mx; none";
        assert_eq!(head(long.as_bytes()), None);
        assert!(is_ours(b"Authentication-Results", long.as_bytes(), "mx"));
    }
}
