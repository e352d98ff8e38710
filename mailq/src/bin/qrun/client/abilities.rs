//! What a server says it can do: the reply to EHLO, RFC 5321 4.1.1.1. Pure.

use crate::forward::Wanted;
use crate::reply::Reply;

/// What the server said it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Abilities {
    pub(super) pipelining: bool,
    pub(super) eight_bit: bool,
    pub(super) starttls: bool,
    pub(super) dsn: bool,
    pub(super) smtputf8: bool,
    pub(super) require_tls: bool,
    pub(super) chunking: bool,
    pub(super) binary: bool,
    /// RFC 1870: octets; `None` where it sets no limit or does not say.
    pub(super) size_limit: Option<u64>,
    pub(super) size: bool,
    /// What it wants to know of the client.
    pub(super) forward: Wanted,
}

impl Abilities {
    /// The lines behind the first: RFC 5321 4.1.1.1 `ehlo-keyword *( SP ehlo-param )`.
    pub(super) fn read(reply: &Reply) -> Self {
        let mut all = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else {
                continue;
            };
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => all.pipelining = true,
                "8BITMIME" => all.eight_bit = true,
                "STARTTLS" => all.starttls = true,
                "DSN" => all.dsn = true,
                "SMTPUTF8" => all.smtputf8 = true,
                "CHUNKING" => all.chunking = true,
                "BINARYMIME" => all.binary = true,
                "REQUIRETLS" => all.require_tls = true,
                "XFORWARD" => all.forward = Wanted::read(words),
                "SIZE" => {
                    all.size = true;
                    // RFC 1870 6.1: 0 is no limit.
                    all.size_limit = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                }
                _ => (),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_in_any_case_and_strange_parameters() {
        let read = |lines: &[&str]| {
            let lines = std::iter::once("mx")
                .chain(lines.iter().copied())
                .map(Into::into)
                .collect();
            Abilities::read(&Reply { code: 250, lines })
        };
        let all = read(&[
            "pipelining",
            "8BitMime",
            "STARTTLS",
            "dsn",
            "SmtpUTF8",
            "RequireTLS",
            "chunking",
            "BinaryMIME",
            "SIZE 1000",
            "X y z",
            "",
        ]);
        assert!(all.pipelining && all.eight_bit && all.starttls && all.dsn && all.size);
        assert!(all.smtputf8 && all.require_tls && all.chunking && all.binary);
        assert_eq!(all.size_limit, Some(1000));
        for line in [
            "SIZE",
            "SIZE 0",
            "SIZE x",
            "SIZE -1",
            "SIZE 99999999999999999999",
        ] {
            let read = read(&[line]);
            assert!(read.size && read.size_limit.is_none(), "{line}");
        }
        assert_eq!(read(&["XPIPELINING", "PIPELININGX"]), Abilities::default());
    }
}
