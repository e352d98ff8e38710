//! What another host wrote into its results: as much of RFC 8601 2.2 as is wanted of an
//! ARC-Authentication-Results field.

use base::Domain;

use crate::results::authserv::head;

/// Methods of one field that are looked at.
const MAX_METHODS: usize = 100;

/// Whether the results (from the authserv-id on) say that DMARC passed for this author. A field that
/// says so in a doubtful way does not.
pub fn dmarc_passed(results: &[u8], author: &Domain) -> bool {
    let mut rest = results;
    for _ in 0..MAX_METHODS {
        let Some(part) = head(rest) else {
            return false;
        };
        if is_pass(&part.text, author) {
            return true;
        }
        match rest.get(part.length..) {
            Some(behind) if part.semicolon => rest = behind,
            _ => return false,
        }
    }
    false
}

/// `dmarc=pass header.from=example.org`: other words may stand between, these two once.
fn is_pass(text: &str, author: &Domain) -> bool {
    let text = text.split('=').map(str::trim).collect::<Vec<_>>().join("=");
    let mut words = text.split_ascii_whitespace();
    let method = words.next().and_then(|word| word.split_once('='));
    let passed = method.is_some_and(|(name, result)| {
        let name = name.split_once('/').map_or(name, |(name, _version)| name);
        name.eq_ignore_ascii_case("dmarc") && result.eq_ignore_ascii_case("pass")
    });
    let mut froms = words.filter_map(|word| {
        let (name, value) = word.split_once('=')?;
        name.eq_ignore_ascii_case("header.from").then_some(value)
    });
    let from = froms.next().and_then(|value| Domain::parse(value).ok());
    passed && from.as_ref() == Some(author) && froms.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_a_pass() {
        let table = [
            ("mx.test; dmarc=pass header.from=b.example", true),
            (
                "mx.test 1; spf=fail smtp.mailfrom=x; DMARC/1 = Pass (p=reject)\r\n header.from = B.example",
                true,
            ),
            (
                "mx.test; dmarc=pass header.from=\"b.example\" policy.dmarc=none; arc=none",
                true,
            ),
            ("mx.test; dmarc=fail header.from=b.example", false),
            ("mx.test; dmarc=pass header.from=c.example", false),
            ("mx.test; dmarc=pass", false),
            (
                "mx.test; dmarc=pass header.from=b.example header.from=c.example",
                false,
            ),
            (
                "mx.test; dmarc=pass reason=\"x header.from=b.example\" header.from=c.example",
                false,
            ),
            (
                "mx.test; spf=pass reason=\"; dmarc=pass header.from=b.example\"",
                false,
            ),
            ("mx.test; (dmarc=pass header.from=b.example)", false),
            ("mx.test; x dmarc=pass header.from=b.example", false),
            ("mx.test; (", false),
            ("", false),
        ];
        let author = Domain::parse("b.example").unwrap();
        for (text, wanted) in table {
            assert_eq!(dmarc_passed(text.as_bytes(), &author), wanted, "{text}");
        }
        let many = "x=y; ".repeat(MAX_METHODS) + "dmarc=pass header.from=b.example";
        assert!(!dmarc_passed(many.as_bytes(), &author));
    }
}
