//! Who a message says it is from: the domains in its From field (RFC 9989 5.3.1).
//!
//! One field with one domain is the rule. Whatever else a mail program might show as the author
//! counts as one too, so that nobody gets past DMARC by writing more (RFC 9989 11.5).

use base::Domain;

use crate::dkim::Header;

/// Domains of one message that are looked at.
pub(crate) const MAX_AUTHORS: usize = 8;

/// Why there is no telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// No From field, or none with the name of a domain.
    Nobody,
    /// More than [`MAX_AUTHORS`] domains.
    Crowd,
}

/// All of them, each once, as A-labels; at least one.
pub(crate) fn authors(header: &Header) -> Result<Vec<Domain>, Bad> {
    let mut found: Vec<Domain> = Vec::new();
    for field in header.named("from") {
        for mailbox in mime::address::mailboxes(field.value) {
            let Some(domain) = name(&mailbox.host) else {
                continue;
            };
            if found.contains(&domain) {
                continue;
            }
            if found.len() == MAX_AUTHORS {
                return Err(Bad::Crowd);
            }
            found.push(domain);
        }
    }
    match found.is_empty() {
        true => Err(Bad::Nobody),
        false => Ok(found),
    }
}

fn name(host: &[u8]) -> Option<Domain> {
    let host = std::str::from_utf8(host).ok()?;
    let ascii = match host.is_ascii() {
        true => host.to_owned(),
        false => idna::domain_to_ascii(host).ok()?,
    };
    Domain::parse(&ascii)
        .ok()
        .filter(|name| name.ip().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(header: &str) -> String {
        match authors(&Header::new(header.as_bytes())) {
            Ok(found) => found
                .iter()
                .map(Domain::as_str)
                .collect::<Vec<_>>()
                .join(" "),
            Err(bad) => format!("{bad:?}"),
        }
    }

    #[test]
    fn every_domain_counts() {
        let crowd: String = (0..9).map(|n| format!("a@d{n}.example, ")).collect();
        let crowd = format!("From: {crowd}z@z.example\r\n");
        let table = [
            ("From: Ann <ann@Example.ORG>\r\n", "example.org"),
            ("From: ann@example.org (x@y.example)\r\n", "example.org"),
            ("From: \"bank@bank.example\" <a@b.example>\r\n", "b.example"),
            (
                "From: a@b.example, c@d.example, e@B.example\r\n",
                "b.example d.example",
            ),
            (
                "from: a@b.example\r\nFROM:\r\n c@d.example\r\n",
                "b.example d.example",
            ),
            ("From: team: a@b.example;\r\n", "b.example"),
            ("From: a@b\u{fc}cher.example\r\n", "xn--bcher-kva.example"),
            ("From: a@[192.0.2.1]\r\n", "Nobody"),
            ("From: ann\r\n", "Nobody"),
            ("From: undisclosed:;\r\n", "Nobody"),
            ("From:\r\n", "Nobody"),
            ("Subject: x\r\n", "Nobody"),
            (&crowd, "Crowd"),
        ];
        for (header, wanted) in table {
            assert_eq!(say(header), wanted, "{header}");
        }
    }
}
