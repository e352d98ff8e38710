//! The host of a content filter: where a message goes first, whoever its recipients are, to come back
//! as a new message (Postfix's FILTER_README, "advanced content filter"). Pure.

use std::fmt;

use crate::config::NextHost;

/// `smtp:[127.0.0.1]:10024`: kept in the queue with each message that goes there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter(NextHost);

impl Filter {
    /// Fails with what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WRITE: &str = "write smtp:[127.0.0.1]:10024";
        let (transport, _) = text.split_once(':').unwrap_or_default();
        if transport.eq_ignore_ascii_case("lmtp") {
            return Err(format!("is for LMTP, which is not spoken here, {WRITE}"));
        }
        if !["smtp", "esmtp", "relay"].contains(&transport) {
            return Err(format!("is no content filter, {WRITE}"));
        }
        let host = NextHost::parse(text).ok().filter(|h| h.port != Some(0));
        let host = host.ok_or_else(|| format!("is no content filter, {WRITE}"))?;
        Ok(Self(host))
    }

    pub fn host(&self) -> &NextHost {
        &self.0
    }
}

/// As [`Filter::parse`] reads it.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NextHost { host, port, mx } = &self.0;
        match (host.ip(), mx) {
            (Some(ip), _) => write!(f, "smtp:[{ip}]")?,
            (None, false) => write!(f, "smtp:[{host}]")?,
            (None, true) => write!(f, "smtp:{host}")?,
        }
        match port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for (text, want) in [
            ("smtp:[127.0.0.1]:10024", Some("smtp:[127.0.0.1]:10024")),
            ("relay:[::1]:10024", Some("smtp:[::1]:10024")),
            ("smtp:[Filter.example]", Some("smtp:[filter.example]")),
            ("smtp:filter.example:26", Some("smtp:filter.example:26")),
            ("smtp:127.0.0.1:10024", Some("smtp:[127.0.0.1]:10024")),
            ("lmtp:[127.0.0.1]:10024", None),
            ("lmtp:unix:/run/x", None),
            ("[127.0.0.1]:10024", None),
            ("scan:[127.0.0.1]:10024", None),
            ("smtp:", None),
            ("smtp:[127.0.0.1]:x", None),
            ("smtp:[127.0.0.1", None),
            ("smtp:[127.0.0.1]:0", None),
            ("", None),
        ] {
            let read = Filter::parse(text);
            let shown = read.as_ref().map(ToString::to_string);
            assert_eq!(shown.as_deref().ok(), want, "{text}");
            if let Ok(filter) = read {
                assert_eq!(Filter::parse(&filter.to_string()), Ok(filter));
            }
        }
        let said = Filter::parse("lmtp:[::1]:24").unwrap_err();
        assert!(said.contains("LMTP"), "{said}");
    }
}
