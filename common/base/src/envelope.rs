//! The envelope of a message: RFC 5321 2.3.1, with what RFC 3461 (DSN), RFC 6152 (8BITMIME), RFC
//! 3030 (BINARYMIME), RFC 4865 (FUTURERELEASE), RFC 6531 (SMTPUTF8) and RFC 8689 (REQUIRETLS) add to
//! it. Pure data; the queue stores it, the sessions fill it.

use crate::address::{Address, ReversePath};
use crate::filter::Filter;
use crate::international;
use crate::release::Release;

/// Who sent it, to whom, and what the sender asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub reverse_path: ReversePath,
    pub recipients: Vec<Recipient>,
    pub body: Body,
    /// RFC 3461 4.3: how much of the message a failure report returns.
    pub ret: Option<Ret>,
    /// RFC 3461 4.4: the sender's own id of this envelope, in xtext as it came.
    pub envid: Option<String>,
    pub needs: Needs,
    /// RFC 4865: it waits here until then.
    pub release: Option<Release>,
    /// The host that it goes to first, for all its recipients.
    pub filter: Option<Filter>,
}

impl Envelope {
    /// An envelope with no wishes.
    pub fn new(reverse_path: ReversePath, recipients: Vec<Recipient>) -> Self {
        Self {
            reverse_path,
            recipients,
            body: Body::default(),
            ret: None,
            envid: None,
            needs: Needs::default(),
            release: None,
            filter: None,
        }
    }
}

/// What every host on the way has to be able to do, as the sender has declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// RFC 6531 3.4: addresses, or the header, are beyond ASCII.
    pub smtputf8: bool,
    /// RFC 8689 2: nobody may pass it on but over TLS with who has proven its name.
    pub require_tls: bool,
}

/// One forward-path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pub address: Address,
    /// RFC 3461 4.2: `rfc822;ann@example.org`, in xtext as it came; or RFC 6533 3:
    /// `utf-8;j\x{F6}rg@example.org`, always in its form for ASCII.
    pub orcpt: Option<String>,
    pub notify: Notify,
}

impl Recipient {
    /// A recipient with no wishes.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            orcpt: None,
            notify: Notify::default(),
        }
    }
}

/// RFC 3461 4.1: when the sender wants to hear of this recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notify {
    Never,
    On {
        success: bool,
        failure: bool,
        delay: bool,
    },
}

impl Default for Notify {
    /// No NOTIFY parameter: failures, and delays if we like.
    fn default() -> Self {
        Self::On {
            success: false,
            failure: true,
            delay: true,
        }
    }
}

impl Notify {
    /// `NEVER`, or a list of `SUCCESS`, `FAILURE`, `DELAY`: RFC 3461 4.1, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("never") {
            return Some(Self::Never);
        }
        let (mut success, mut failure, mut delay) = (false, false, false);
        for word in text.split(',') {
            match word.trim().to_ascii_lowercase().as_str() {
                "success" => success = true,
                "failure" => failure = true,
                "delay" => delay = true,
                _ => return None,
            }
        }
        Some(Self::On {
            success,
            failure,
            delay,
        })
    }

    /// Whether a failure is to be reported.
    pub fn wants_failure(self) -> bool {
        matches!(self, Self::On { failure: true, .. })
    }

    /// Whether a success is to be reported.
    pub fn wants_success(self) -> bool {
        matches!(self, Self::On { success: true, .. })
    }
}

/// RFC 3461 4.3
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    Full,
    Headers,
}

impl Ret {
    /// `FULL` or `HDRS`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "full" => Some(Self::Full),
            "hdrs" => Some(Self::Headers),
            _ => None,
        }
    }
}

/// Whether this is an ENVID: xtext of at most 100 octets, RFC 3461 4.4.
pub fn is_envid(text: &str) -> bool {
    !text.is_empty() && text.len() <= 100 && is_xtext(text)
}

/// Whether this is an ORCPT: an address type, a semicolon and xtext, at most 500 octets in all,
/// RFC 3461 4.2.
pub fn is_orcpt(text: &str) -> bool {
    let is_type = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    text.len() <= 500
        && text.split_once(';').is_some_and(|(kind, address)| {
            is_type(kind) && !address.is_empty() && is_xtext(address)
        })
}

/// An ORCPT as it is kept: one of the type `utf-8` may be written in UTF-8 (utf-8-addr-unitext), and
/// is brought to the form that every server takes (utf-8-addr-xtext), RFC 6533 3. `None` for none.
pub fn orcpt(text: &str) -> Option<String> {
    let mut kept = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_ascii() {
            true => kept.push(c),
            false if !international::is_visible(c) => return None,
            false => kept.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
        }
    }
    let utf8 = text
        .get(..6)
        .is_some_and(|kind| kind.eq_ignore_ascii_case("utf-8;"));
    ((text.is_ascii() || utf8) && is_orcpt(&kept)).then_some(kept)
}

/// Visible ASCII without `+` and `=`, and octets as `+` with two upper-case hexadecimal digits.
fn is_xtext(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'+', [a, b, behind @ ..])
                if [a, b]
                    .iter()
                    .all(|d| matches!(**d, b'0'..=b'9' | b'A'..=b'F')) =>
            {
                behind
            }
            (b'+' | b'=', _) => return false,
            (b'!'..=b'~', _) => after,
            _ => return false,
        };
    }
    true
}

/// What the sender declared of the content: RFC 6152, RFC 3030 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Body {
    #[default]
    SevenBit,
    EightBitMime,
    /// Any octets: a CR or a LF alone ends no line and means itself.
    Binary,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_as_the_rfc_spells_them() {
        let on = |success, failure, delay| {
            Some(Notify::On {
                success,
                failure,
                delay,
            })
        };
        let table = [
            ("NEVER", Some(Notify::Never)),
            ("never", Some(Notify::Never)),
            ("SUCCESS", on(true, false, false)),
            ("FAILURE,DELAY", on(false, true, true)),
            ("delay,Failure,success", on(true, true, true)),
            ("NEVER,DELAY", None),
            ("", None),
            ("SUCCESS,", None),
            ("ALWAYS", None),
        ];
        for (text, want) in table {
            assert_eq!(Notify::parse(text), want, "{text}");
        }
        assert_eq!(Ret::parse("hdrs"), Some(Ret::Headers));
        assert_eq!(Ret::parse("Full"), Some(Ret::Full));
        assert_eq!(Ret::parse("none"), None);
    }

    #[test]
    fn only_xtext_is_kept() {
        let long = "a".repeat(101);
        for (text, good) in [
            ("QQ314159", true),
            ("a+2Bb+3D", true),
            ("a+2bb", false),
            ("a+", false),
            ("a\r\nDATA", false),
            ("a\0", false),
            ("a+2", false),
            ("a=b", false),
            ("a b", false),
            ("\u{e9}", false),
            ("", false),
            (long.as_str(), false),
        ] {
            assert_eq!(is_envid(text), good, "{text}");
        }
        for (text, kept) in [
            ("utf-8;j\u{f6}rg@x", Some("utf-8;j\\x{F6}rg@x")),
            ("UTF-8;\u{1f600}", Some("UTF-8;\\x{1F600}")),
            ("rfc822;a@b", Some("rfc822;a@b")),
            ("rfc822;j\u{f6}rg@x", None),
            ("utf-8;a\u{2028}", None),
            ("utf-8;", None),
        ] {
            assert_eq!(orcpt(text).as_deref(), kept, "{text}");
        }
        let long = format!("rfc822;{}", "a".repeat(494));
        for (text, good) in [
            ("rfc822;Bob@Example.COM", true),
            ("utf-8;a+5Cx", true),
            ("rfc822;a+0D+0A", true),
            ("rfc822;", false),
            (";a@b", false),
            ("rfc822", false),
            ("rf c;a", false),
            (long.as_str(), false),
        ] {
            assert_eq!(is_orcpt(text), good, "{text}");
        }
    }
}
