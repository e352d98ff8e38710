//! Addresses beyond ASCII: RFC 6531 3.3 and RFC 6532, with IDNA (RFC 5891) for their domains. Pure.
//!
//! A local-part keeps the characters that its owner wrote, because only the host where the mailbox
//! is may say which of them mean the same (RFC 6531 3.2). Where that is this host, names are
//! compared in lower case and in normal form C (RFC 5198 3): [`fold`]. A domain is held in the form
//! that DNS has, as A-labels, so that there is one spelling of it for every look-up and comparison,
//! and an address whose local-part is ASCII can go to every server.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// Whether an address may have this character. None that is invisible or that could turn around or
/// break the line in which the address is shown; nor the one that stands for lost characters.
pub fn is_visible(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => false,
        '\u{2028}'..='\u{202e}' | '\u{fff0}'..='\u{fffd}' => false,
        _ => !c.is_control() && !c.is_whitespace(),
    }
}

/// Normal form C, which has one spelling for what looks the same: `o` with a diaeresis behind it is
/// `ö`.
pub fn normal(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    ComposingNormalizerBorrowed::new_nfc().normalize(text)
}

/// As names of users are compared: lower case, normal form C.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    normal(&normal(text).to_lowercase()).into_owned()
}

/// A host name with characters beyond ASCII in the form that DNS has; `None` for what is none.
/// Whether the rest of it is a host name is not asked.
pub(crate) fn a_labels(name: &str) -> Option<String> {
    let (deny, hyphens) = (AsciiDenyList::URL, Hyphens::CheckFirstLast);
    let labels = Uts46::new().to_ascii(name.as_bytes(), deny, hyphens, DnsLength::Ignore);
    labels.ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_for_what_is_the_same() {
        let table = [
            ("Ann", "ann"),
            ("J\u{d6}RG", "j\u{f6}rg"),
            ("JO\u{308}rg", "j\u{f6}rg"),
            (
                "\u{391}\u{398}\u{397}\u{39d}\u{391}",
                "\u{3b1}\u{3b8}\u{3b7}\u{3bd}\u{3b1}",
            ),
            ("\u{304b}\u{3099}", "\u{304c}"),
        ];
        for (text, want) in table {
            assert_eq!(fold(text), want, "{text}");
        }
    }

    #[test]
    fn nothing_invisible() {
        for c in "aZ~ \u{e9}\u{7530}\u{94d}\u{200d}\u{1f600}".chars() {
            assert!(is_visible(c), "{c:?}");
        }
        for c in "\u{7f}\u{85}\u{a0}\u{200b}\u{2028}\u{202e}\u{2066}\u{feff}\u{fffd}\t\n\0".chars()
        {
            assert!(!is_visible(c), "{c:?}");
        }
    }
}
