//! XCLIENT: a proxy that speaks SMTP itself says whose connection it brings, as Postfix's
//! XCLIENT_README describes it.
//!
//! Pure: from the command's words to what they say. Nothing that is decoded can end a line, and every
//! value is of its type.

use std::net::{IpAddr, SocketAddr};

use base::Domain;

use crate::command::hello;
use crate::reply::{self, Reply};

/// As EHLO announces it.
pub(crate) const KEYWORD: &str = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";

/// What is said of a client. What is not said stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Xclient {
    /// Its host's name; `Some(None)` where it has none that could be found.
    pub(crate) name: Option<Option<Domain>>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    /// By EHLO.
    pub(crate) extended: bool,
    pub(crate) helo: Option<String>,
    pub(crate) login: Option<String>,
    /// Our end of it.
    pub(crate) to_address: Option<IpAddr>,
    pub(crate) to_port: Option<u16>,
}

/// `XCLIENT 1*( SP attribute-name "=" xtext )`
pub(crate) fn parse(rest: &[u8]) -> Result<Xclient, Reply> {
    let mut said = Xclient {
        extended: true,
        ..Xclient::default()
    };
    let words = rest.split(|b| *b == b' ').filter(|word| !word.is_empty());
    let mut any = false;
    for word in words {
        any = true;
        let at = memchr::memchr(b'=', word).ok_or(reply::BAD_XCLIENT)?;
        let (name, value) = word.split_at_checked(at).ok_or(reply::BAD_XCLIENT)?;
        let value = decode(value.get(1..).unwrap_or_default()).ok_or(reply::BAD_XCLIENT)?;
        let name = name.to_ascii_uppercase();
        said.set(&name, Some(&value).filter(|v| !is_nothing(v)))
            .ok_or(reply::BAD_XCLIENT)?;
    }
    match any {
        true => Ok(said),
        false => Err(reply::BAD_XCLIENT),
    }
}

/// Not known, for ever or for now.
pub(crate) fn is_nothing(value: &str) -> bool {
    value.eq_ignore_ascii_case("[UNAVAILABLE]") || value.eq_ignore_ascii_case("[TEMPUNAVAIL]")
}

impl Xclient {
    /// `None`: no such attribute, or no such value.
    fn set(&mut self, name: &[u8], value: Option<&String>) -> Option<()> {
        let port = |text: &String| text.parse::<u16>().ok();
        match (name, value) {
            (b"NAME", None) => self.name = Some(None),
            (b"NAME", Some(text)) => self.name = Some(Some(host(text)?)),
            (b"ADDR", Some(text)) => self.address = Some(address(text)?),
            (b"PORT", Some(text)) => self.port = Some(port(text)?),
            (b"PROTO", Some(text)) => {
                self.extended = match text.to_ascii_uppercase().as_str() {
                    "SMTP" => false,
                    "ESMTP" => true,
                    _ => return None,
                };
            }
            (b"HELO", Some(text)) => self.helo = Some(hello(text.as_bytes()).ok()?),
            (b"LOGIN", Some(text)) => self.login = Some(login(text)?),
            (b"DESTADDR", Some(text)) => self.to_address = Some(address(text)?),
            (b"DESTPORT", Some(text)) => self.to_port = Some(port(text)?),
            (
                b"ADDR" | b"PORT" | b"PROTO" | b"HELO" | b"LOGIN" | b"DESTADDR" | b"DESTPORT",
                None,
            ) => {}
            _ => return None,
        }
        Some(())
    }

    /// The client's end, where it was `old`.
    pub(crate) fn source(&self, old: Option<SocketAddr>) -> Option<SocketAddr> {
        end(self.address, self.port, old)
    }

    /// Our end, where it was `old`.
    pub(crate) fn destination(&self, old: Option<SocketAddr>) -> Option<SocketAddr> {
        end(self.to_address, self.to_port, old)
    }
}

/// Another address has a port of its own.
fn end(ip: Option<IpAddr>, port: Option<u16>, old: Option<SocketAddr>) -> Option<SocketAddr> {
    let old_port = match ip {
        Some(_) => 0,
        None => old.map_or(0, |old| old.port()),
    };
    let ip = ip.or_else(|| old.map(|old| old.ip()))?;
    Some(SocketAddr::new(ip, port.unwrap_or(old_port)))
}

pub(crate) fn host(text: &str) -> Option<Domain> {
    Domain::parse(text).ok().filter(|name| name.ip().is_none())
}

/// `192.0.2.1`, `IPV6:2001:db8::1`, `2001:db8::1`
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    match text.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPV6:") => {
            let ip = text.get(5..)?.parse().ok()?;
            Some(IpAddr::V6(ip))
        }
        _ => text.parse().ok(),
    }
}

fn login(text: &str) -> Option<String> {
    let good = !text.is_empty() && !text.chars().any(char::is_control);
    good.then(|| text.to_owned())
}

/// RFC 3461 4: `+` and two capital digits are one octet.
pub(crate) fn decode(text: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => {
                let (hex, behind) = after.split_first_chunk::<2>()?;
                let upper = hex.iter().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
                let hex = std::str::from_utf8(hex).ok().filter(|_| upper)?;
                out.push(u8::from_str_radix(hex, 16).ok()?);
                rest = behind;
            }
            b'!'..=b'~' if *first != b'=' => out.push(*first),
            _ => return None,
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(text: &str) -> String {
        let said = match parse(text.as_bytes()) {
            Ok(said) => said,
            Err(reply) => return reply.code().to_string(),
        };
        let old = "192.0.2.250:9".parse().ok();
        let name = match &said.name {
            None => "-".into(),
            Some(None) => "unknown".into(),
            Some(Some(name)) => name.to_string(),
        };
        let ends = [said.source(old), said.destination(old)]
            .map(|end| end.map_or_else(String::new, |end| end.to_string()));
        let helo = said.helo.as_deref().unwrap_or("-");
        let login = said.login.as_deref().unwrap_or("-");
        format!(
            "{name} {} {} {helo} {} {login}",
            ends[0], ends[1], said.extended
        )
    }

    #[test]
    fn attributes_and_what_are_none() {
        let same = "192.0.2.250:9 192.0.2.250:9";
        let table = [
            (
                "NAME=a.example ADDR=192.0.2.1",
                "a.example 192.0.2.1:0 192.0.2.250:9 - true -",
            ),
            (
                "addr=IPV6:2001:db8::1 port=25 DESTADDR=2001:db8::2 DESTPORT=587",
                "- [2001:db8::1]:25 [2001:db8::2]:587 - true -",
            ),
            ("PORT=77", "- 192.0.2.250:77 192.0.2.250:9 - true -"),
            ("NAME=[UNAVAILABLE]", &format!("unknown {same} - true -")),
            (
                "NAME=[tempunavail] ADDR=[UNAVAILABLE]",
                &format!("unknown {same} - true -"),
            ),
            ("HELO=x PROTO=SMTP", &format!("- {same} x false -")),
            (
                "LOGIN=ann+40example.org",
                &format!("- {same} - true ann@example.org"),
            ),
            ("LOGIN=[UNAVAILABLE]", &format!("- {same} - true -")),
            ("LOGIN=a+20b", &format!("- {same} - true a b")),
            ("", "501"),
            ("NAME", "501"),
            ("NAME=", "501"),
            ("NAME=a..b", "501"),
            ("NAME=[192.0.2.1]", "501"),
            ("ADDR=1.2.3", "501"),
            ("ADDR=IPV6:192.0.2.1", "501"),
            ("PORT=65536", "501"),
            ("PROTO=LMTP", "501"),
            ("HELO=a+20b", "501"),
            ("LOGIN=a+0Ab", "501"),
            ("LOGIN=a+4", "501"),
            ("LOGIN=a+4a", "501"),
            ("LOGIN=+FF", "501"),
            ("OTHER=x", "501"),
        ];
        for (text, wanted) in table {
            assert_eq!(say(text), wanted, "{text}");
        }
    }
}
