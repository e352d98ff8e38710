//! XFORWARD: a content filter that brings mail back says who brought it here first, as Postfix's
//! XFORWARD_README describes it. It is for the log and the queue; nothing is allowed or refused by it.
//!
//! Pure. Nothing that is decoded can end a line; a value that makes no sense is as good as none.

use std::fmt;
use std::net::IpAddr;

use base::Domain;
use base::escape::escape;

use crate::reply::{self, Reply};
use crate::xclient::{address, decode, host, is_nothing};

/// As EHLO announces it.
pub(crate) const KEYWORD: &str = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE";
/// Octets of one value.
const MAX_VALUE: usize = 255;

/// What was said, in one command or more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Xforward {
    pub(crate) name: Option<Domain>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Option<String>,
    pub(crate) helo: Option<String>,
    /// The queue id that the message had.
    pub(crate) ident: Option<String>,
}

/// `XFORWARD 1*( SP attribute-name "=" xtext )`
pub(crate) fn parse(rest: &[u8]) -> Result<Xforward, Reply> {
    let mut said = Xforward::default();
    let mut words = rest.split(|b| *b == b' ').filter(|word| !word.is_empty());
    let first = words.next().ok_or(reply::BAD_XFORWARD)?;
    for word in std::iter::once(first).chain(words) {
        let at = memchr::memchr(b'=', word).ok_or(reply::BAD_XFORWARD)?;
        let (name, value) = word.split_at_checked(at).ok_or(reply::BAD_XFORWARD)?;
        let value = decode(value.get(1..).unwrap_or_default()).ok_or(reply::BAD_XFORWARD)?;
        let good = !value.is_empty()
            && value.len() <= MAX_VALUE
            && !is_nothing(&value)
            && !value.chars().any(char::is_control);
        said.set(&name.to_ascii_uppercase(), Some(value).filter(|_| good))
            .ok_or(reply::BAD_XFORWARD)?;
    }
    Ok(said)
}

impl Xforward {
    /// `None`: no such attribute.
    fn set(&mut self, name: &[u8], value: Option<String>) -> Option<()> {
        match name {
            b"NAME" => self.name = value.and_then(|text| host(&text)),
            b"ADDR" => self.address = value.and_then(|text| address(&text)),
            b"PORT" => self.port = value.and_then(|text| text.parse().ok()),
            b"PROTO" => self.protocol = value,
            b"HELO" => self.helo = value,
            b"IDENT" => self.ident = value,
            // Whose it was our own trace field says.
            b"SOURCE" => {}
            _ => return None,
        }
        Some(())
    }

    /// What was said before, with what is said now.
    pub(crate) fn add(&mut self, later: Self) {
        self.name = later.name.or_else(|| self.name.take());
        self.address = later.address.or(self.address);
        self.port = later.port.or(self.port);
        self.protocol = later.protocol.or_else(|| self.protocol.take());
        self.helo = later.helo.or_else(|| self.helo.take());
        self.ident = later.ident.or_else(|| self.ident.take());
    }
}

/// For the log, in Postfix's words.
impl fmt::Display for Xforward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = &self.ident {
            write!(f, ", orig_queue_id={}", escape(id))?;
        }
        match (&self.name, self.address) {
            (Some(name), Some(ip)) => write!(f, ", orig_client={name}[{ip}]"),
            (None, Some(ip)) => write!(f, ", orig_client=unknown[{ip}]"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_filters_say() {
        let mut said = parse(b"NAME=mx.example ADDR=192.0.2.1 PORT=4711").unwrap();
        said.add(parse(b"proto=ESMTP HELO=a+2Bb IDENT=4F2c+0Ax SOURCE=REMOTE NAME=x.y").unwrap());
        assert_eq!(said.name.as_ref().map(Domain::as_str), Some("x.y"));
        assert_eq!((said.port, said.helo.as_deref()), (Some(4711), Some("a+b")));
        assert_eq!(said.protocol.as_deref(), Some("ESMTP"));
        assert_eq!(said.ident, None, "it has a line end");
        assert_eq!(said.to_string(), ", orig_client=x.y[192.0.2.1]");
        let said = parse(b"ADDR=IPV6:2001:db8::1 NAME=[UNAVAILABLE] IDENT=1").unwrap();
        let want = ", orig_queue_id=1, orig_client=unknown[2001:db8::1]";
        assert_eq!(said.to_string(), want);
        for nonsense in [
            "ADDR=nowhere",
            "PORT=70000",
            "NAME=-",
            "HELO=",
            "PORT=[TEMPUNAVAIL]",
        ] {
            assert_eq!(
                parse(nonsense.as_bytes()),
                Ok(Xforward::default()),
                "{nonsense}"
            );
        }
        let long = format!("HELO={}", "x".repeat(256));
        assert_eq!(parse(long.as_bytes()), Ok(Xforward::default()));
        for bad in [
            "",
            "NAME",
            "LOGIN=ann",
            "HELO=a=b",
            "HELO=+2",
            "HELO=a\tb",
            "=x",
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(reply::BAD_XFORWARD), "{bad}");
        }
    }
}
