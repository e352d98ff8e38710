//! Macro strings (RFC 7208 7): read once, expanded for each question.

use std::net::IpAddr;

use base::Domain;

/// Octets of a name that is asked for (RFC 7208 7.3).
const MAX_NAME: usize = 253;
/// Octets of anything that is expanded: a record cannot have more text than this makes sense for.
const MAX_TEXT: usize = 4096;

/// A macro string that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Plain(String),
    Macro(Macro),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Macro {
    /// In lower case.
    letter: char,
    /// It was in upper case: the value is URL-escaped.
    escaped: bool,
    /// So many parts from the right.
    parts: Option<usize>,
    reversed: bool,
    delimiters: String,
}

/// What macros stand for.
pub(crate) trait Values {
    /// The value of a letter.
    fn value(&mut self, letter: char) -> String;
}

/// A string that breaks the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bad;

impl Text {
    /// `explain`: the text of an explanation, where spaces and the letters `c`, `r` and `t` may be.
    pub(crate) fn parse(text: &str, explain: bool) -> Result<Self, Bad> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            if c != '%' {
                let visible = ('\x21'..='\x7e').contains(&c) || (explain && c == ' ');
                if !visible {
                    return Err(Bad);
                }
                plain.push(c);
                continue;
            }
            let second = rest.chars().next().ok_or(Bad)?;
            rest = rest.get(second.len_utf8()..).unwrap_or_default();
            match second {
                '%' => plain.push('%'),
                '_' => plain.push(' '),
                '-' => plain.push_str("%20"),
                '{' => {
                    let (inner, behind) = rest.split_once('}').ok_or(Bad)?;
                    rest = behind;
                    if !plain.is_empty() {
                        parts.push(Part::Plain(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Macro(Macro::parse(inner, explain)?));
                }
                _ => return Err(Bad),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Plain(plain));
        }
        Ok(Self(parts))
    }

    /// A `domain-spec` (RFC 7208 7.1): it ends in a macro, or in a dot and a top label.
    pub(crate) fn parse_domain(text: &str) -> Result<Self, Bad> {
        let parsed = Self::parse(text, false)?;
        let good = match parsed.0.last() {
            Some(Part::Macro(_)) => true,
            Some(Part::Plain(tail)) => {
                let tail = tail.strip_suffix('.').unwrap_or(tail);
                tail.rsplit_once('.')
                    .is_some_and(|(_, top)| is_top_label(top))
            }
            None => false,
        };
        if good { Ok(parsed) } else { Err(Bad) }
    }

    pub(crate) fn expand(&self, values: &mut dyn Values) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Plain(text) => out.push_str(text),
                Part::Macro(one) => out.push_str(&one.expand(values)),
            }
            if out.len() > MAX_TEXT {
                break;
            }
        }
        out
    }

    /// As a name; labels that are too many are dropped from the left. `None` where it is no name.
    pub(crate) fn name(&self, values: &mut dyn Values) -> Option<Domain> {
        let whole = self.expand(values);
        // RFC 8616 4: a local-part beyond ASCII matches nothing.
        if !whole.is_ascii() {
            return None;
        }
        let mut name = whole.strip_suffix('.').unwrap_or(&whole);
        while name.len() > MAX_NAME {
            name = name.split_once('.')?.1;
        }
        Domain::parse(name).ok().filter(|name| name.ip().is_none())
    }
}

impl Macro {
    fn parse(text: &str, explain: bool) -> Result<Self, Bad> {
        let first = text.chars().next().ok_or(Bad)?;
        let letter = first.to_ascii_lowercase();
        let known = "slodiphv".contains(letter) || (explain && "crt".contains(letter));
        if !known {
            return Err(Bad);
        }
        let rest = text.get(1..).ok_or(Bad)?;
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (digits, rest) = rest.split_at(end);
        let parts = match digits {
            "" => None,
            digits => Some(digits.parse::<usize>().unwrap_or(usize::MAX)),
        };
        let (reversed, delimiters) = match rest.strip_prefix(['r', 'R']) {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if parts == Some(0) || !delimiters.chars().all(|c| ".-+,/_=".contains(c)) {
            return Err(Bad);
        }
        Ok(Self {
            letter,
            escaped: first.is_ascii_uppercase(),
            parts,
            reversed,
            delimiters: if delimiters.is_empty() {
                "."
            } else {
                delimiters
            }
            .into(),
        })
    }

    fn expand(&self, values: &mut dyn Values) -> String {
        let value = values.value(self.letter);
        let mut parts: Vec<&str> = value.split(|c| self.delimiters.contains(c)).collect();
        if self.reversed {
            parts.reverse();
        }
        let most = self.parts.unwrap_or(usize::MAX);
        let from = parts.len().saturating_sub(most);
        let joined = parts.get(from..).unwrap_or_default().join(".");
        if !self.escaped {
            return joined;
        }
        let escape = |b: u8| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(b).to_string()
            }
            other => format!("%{other:02X}"),
        };
        joined.bytes().map(escape).collect()
    }
}

/// RFC 7208 7.1 `toplabel`: letters and digits, not digits only, hyphens within.
fn is_top_label(label: &str) -> bool {
    let inner = label
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let ends = !label.starts_with('-') && !label.ends_with('-') && !label.is_empty();
    inner && ends && !label.bytes().all(|b| b.is_ascii_digit())
}

/// `%{i}`: IPv4 as it is written, IPv6 as its 32 digits with dots.
pub(crate) fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let digits: Vec<char> = format!("{:032X}", ip.to_bits()).chars().collect();
            let digits: Vec<String> = digits.iter().map(char::to_string).collect();
            digits.join(".")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sample(&'static str);

    impl Values for Sample {
        fn value(&mut self, letter: char) -> String {
            match letter {
                's' => "strong-bad@email.example.com".into(),
                'l' => "strong-bad".into(),
                'o' | 'd' => "email.example.com".into(),
                'i' => dotted(self.0.parse().unwrap()),
                'v' => if self.0.contains(':') {
                    "ip6"
                } else {
                    "in-addr"
                }
                .into(),
                _ => "?".into(),
            }
        }
    }

    /// RFC 7208 7.4
    #[test]
    fn the_examples_of_the_rfc() {
        let table = [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            (
                "%{ir}.%{v}._spf.%{d2}",
                "3.2.0.192.in-addr._spf.example.com",
            ),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            (
                "%{lr-}.lp.%{ir}.%{v}._spf.%{d2}",
                "bad.strong.lp.3.2.0.192.in-addr._spf.example.com",
            ),
            (
                "%{d2}.trusted-domains.example.net",
                "example.com.trusted-domains.example.net",
            ),
            ("%{S}", "strong-bad%40email.example.com"),
            ("a%%b%_c%-", "a%b c%20"),
        ];
        for (text, want) in table {
            let got = Text::parse(text, false)
                .unwrap()
                .expand(&mut Sample("192.0.2.3"));
            assert_eq!(got, want, "{text}");
        }
        let text = Text::parse("%{ir}.%{v}._spf.%{d2}", false).unwrap();
        assert_eq!(
            text.expand(&mut Sample("2001:db8::cb01"))
                .to_ascii_lowercase(),
            "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
        );
    }

    #[test]
    fn what_is_no_macro_string() {
        for bad in [
            "%", "%a", "%{", "%{}", "%{x}", "%{d0}", "%{d!}", "%{c}", "a b", "ü", "%{d2rr}",
        ] {
            assert_eq!(Text::parse(bad, false), Err(Bad), "{bad}");
        }
        assert!(Text::parse("a b %{c} %{r} %{t}", true).is_ok());
        for (spec, good) in [
            ("example.com", true),
            ("example.com.", true),
            ("%{d}", true),
            ("x.%{d}", true),
            ("example", false),
            ("example.123", false),
            ("example.com-", false),
            ("%{d}x", false),
            ("", false),
        ] {
            assert_eq!(Text::parse_domain(spec).is_ok(), good, "{spec}");
        }
    }

    #[test]
    fn long_names_lose_their_first_labels() {
        let text = Text::parse(&format!("{}example.com", "abcdefghi.".repeat(30)), false).unwrap();
        let name = text.name(&mut Sample("192.0.2.3")).unwrap();
        assert!(name.as_str().len() <= 253 && name.as_str().starts_with("abcdefghi."));
        assert!(
            Text::parse("a..b", false)
                .unwrap()
                .name(&mut Sample("192.0.2.3"))
                .is_none()
        );
    }
}
