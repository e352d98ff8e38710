//! A policy's text, and the hosts that it names: RFC 8461 3.2 and 4.1.

use std::fmt;
use std::time::Duration;

use base::Domain;

/// RFC 8461 3.2: about a year.
const MAX_AGE: u64 = 31_557_600;
/// Patterns beyond this many make a policy invalid: nobody has so many hosts.
const MAX_PATTERNS: usize = 200;

/// What a domain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub mode: Mode,
    /// How long it is to be believed.
    pub max_age: Duration,
    /// None only with [`Mode::None`].
    pub mx: Vec<Pattern>,
}

/// What becomes of mail for which it does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It waits.
    Enforce,
    /// It goes, and its domain is told (RFC 8460).
    Testing,
    /// The domain is about to have no policy.
    None,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        })
    }
}

/// A host, or the hosts one label below a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    name: Domain,
    wildcard: bool,
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let name = Domain::parse(name)
            .ok()
            .filter(|name| name.ip().is_none())?;
        Some(Self { name, wildcard })
    }

    /// RFC 8461 4.1: the wildcard is the whole of the first label, and no more.
    fn fits(&self, host: &Domain) -> bool {
        match (self.wildcard, host.as_str().split_once('.')) {
            (false, _) => *host == self.name,
            (true, Some((first, rest))) => !first.is_empty() && rest == self.name.as_str(),
            (true, None) => false,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.wildcard { "*." } else { "" };
        write!(f, "{star}{}", self.name)
    }
}

/// Why a text is no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invalid {
    TooLong,
    NotText,
    Line,
    Version,
    Mode,
    MaxAge,
    Mx,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "policy is longer than 64 KiB",
            Self::NotText => "policy is no text",
            Self::Line => "policy has a line without a colon",
            Self::Version => "policy is not of version STSv1",
            Self::Mode => "policy has no mode that is known",
            Self::MaxAge => "policy has no max_age",
            Self::Mx => "policy has no mx, or one that is no host",
        })
    }
}

impl Policy {
    /// RFC 8461 3.2. Of a field that is there twice the first counts, unless it is `mx`.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Invalid> {
        if text.len() > super::MAX_POLICY {
            return Err(Invalid::TooLong);
        }
        let text = std::str::from_utf8(text).map_err(|_| Invalid::NotText)?;
        let (mut version, mut mode, mut max_age) = (None, None, None);
        let mut mx = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or(Invalid::Line)?;
            let value = value.trim_start();
            match name {
                "version" => _ = version.get_or_insert(value),
                "mode" => _ = mode.get_or_insert(value),
                "max_age" => _ = max_age.get_or_insert(value),
                "mx" if mx.len() >= MAX_PATTERNS => return Err(Invalid::Mx),
                "mx" => mx.push(Pattern::parse(value).ok_or(Invalid::Mx)?),
                _ => (), // of a later version
            }
        }
        if version != Some("STSv1") {
            return Err(Invalid::Version);
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err(Invalid::Mode),
        };
        let is_number = |text: &&str| text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit());
        let max_age = max_age
            .filter(is_number)
            .and_then(|text| text.parse::<u64>().ok());
        let max_age = max_age.ok_or(Invalid::MaxAge)?.min(MAX_AGE);
        if mx.is_empty() && mode != Mode::None {
            return Err(Invalid::Mx);
        }
        Ok(Self {
            mode,
            max_age: Duration::from_secs(max_age),
            mx,
        })
    }

    /// Whether a mail exchanger is one that it names.
    pub fn names(&self, host: &Domain) -> bool {
        self.mx.iter().any(|pattern| pattern.fits(host))
    }

    /// Its lines, for a report.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {}", self.mode)];
        lines.extend(self.mx.iter().map(|mx| format!("mx: {mx}")));
        lines.push(format!("max_age: {}", self.max_age.as_secs()));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC: &str = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n";

    #[test]
    fn the_example_of_the_rfc() {
        let policy = Policy::parse(RFC.as_bytes()).unwrap();
        assert_eq!(
            (policy.mode, policy.max_age.as_secs()),
            (Mode::Enforce, 604_800)
        );
        let again = policy.lines().join("\n");
        assert_eq!(Policy::parse(again.as_bytes()), Ok(policy.clone()));
        for (host, want) in [
            ("mail.example.com", true),
            ("MAIL.Example.com", true),
            ("mail2.example.com", false),
            ("x.mail.example.com", false),
            ("a.example.net", true),
            ("a.b.example.net", false),
            ("example.net", false),
            ("aexample.net", false),
            ("[192.0.2.1]", false),
        ] {
            assert_eq!(policy.names(&Domain::parse(host).unwrap()), want, "{host}");
        }
    }

    #[test]
    fn what_is_a_policy_and_what_is_not() {
        let long = format!("{RFC}x: {}\n", "y".repeat(70_000));
        let many = format!("{RFC}{}", "mx: a.example\n".repeat(300));
        let table: &[(&str, Result<Mode, Invalid>)] = &[
            (
                "version: STSv1\nmode: testing\nmx: a.b\nmax_age: 1",
                Ok(Mode::Testing),
            ),
            ("version:STSv1\nmode:none\nmax_age:1\n\n", Ok(Mode::None)),
            (
                "mode: enforce \nmax_age: 86400 \nmx: a.b \nversion: STSv1\n",
                Ok(Mode::Enforce),
            ),
            (
                "version: STSv1\nmode: none\nmode: enforce\nmax_age: 1\n",
                Ok(Mode::None),
            ),
            (
                "version: STSv1\nmode: none\nnew: x\nmax_age: 9999999999\n",
                Ok(Mode::None),
            ),
            (
                "version: STSv1\nmode: none\nmax_age: 99999999999\n",
                Err(Invalid::MaxAge),
            ),
            (
                "version: STSv1\nmode: none\nmax_age: -1\n",
                Err(Invalid::MaxAge),
            ),
            ("version: STSv1\nmode: none\n", Err(Invalid::MaxAge)),
            (
                "version: STSv2\nmode: none\nmax_age: 1\n",
                Err(Invalid::Version),
            ),
            ("mode: none\nmax_age: 1\n", Err(Invalid::Version)),
            (
                "version: STSv1\nmode: Enforce\nmx: a\nmax_age: 1\n",
                Err(Invalid::Mode),
            ),
            (
                "version: STSv1\nmode: enforce\nmax_age: 1\n",
                Err(Invalid::Mx),
            ),
            (
                "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1\n",
                Err(Invalid::Mx),
            ),
            (
                "version: STSv1\nmode: enforce\nmx: a.*.b\nmax_age: 1\n",
                Err(Invalid::Mx),
            ),
            (
                "version: STSv1\nmode: enforce\nmx: [192.0.2.1]\nmax_age: 1\n",
                Err(Invalid::Mx),
            ),
            ("<html>\n<p>version STSv1\n", Err(Invalid::Line)),
            ("", Err(Invalid::Version)),
            (&long, Err(Invalid::TooLong)),
            (&many, Err(Invalid::Mx)),
        ];
        for (text, want) in table {
            let said = Policy::parse(text.as_bytes()).map(|policy| policy.mode);
            assert_eq!(said, *want, "{}", text.get(..60).unwrap_or(text));
        }
        assert_eq!(Policy::parse(b"version: \xff"), Err(Invalid::NotText));
        let year = Policy::parse(b"version: STSv1\nmode: none\nmax_age: 9999999999\n").unwrap();
        assert_eq!(year.max_age.as_secs(), MAX_AGE);
    }
}
