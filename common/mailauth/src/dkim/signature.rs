//! A DKIM-Signature field (RFC 6376 3.5), and an ARC-Message-Signature, which is one with another
//! meaning of `i=` (RFC 8617 4.1.2), as a type.
//!
//! A [`Signature`] is one that can be checked as soon as there are a key and a body hash: the algorithm
//! is one that we know, `h=` has From, `i=` is under `d=`. What is not so is a [`Bad`], which knows
//! whether it was not understood or not allowed.

use std::fmt;

use base::Domain;

use crate::dkim::canonical::Canonical;
use crate::dkim::tags::{Tags, base64, items, number, trim};

/// Names in `h=` that are looked at.
const MAX_NAMES: usize = 1000;
/// Octets of `b=`: RSA with 8192 bits.
const MAX_B: usize = 1024;

/// RFC 6376 3.3 as RFC 8301 and RFC 8463 left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    RsaSha256,
    Ed25519Sha256,
}

impl Algorithm {
    /// As in `a=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The agent or user of `i=`: `[ local-part ] "@" domain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Decoded, with nothing that is no printable character; may be empty.
    pub local: String,
    pub domain: Domain,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

/// A signature that can be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub algorithm: Algorithm,
    pub domain: Domain,
    pub selector: Domain,
    /// Where `i=` stands in a DKIM-Signature.
    pub identity: Option<Identity>,
    /// Of the header, of the body.
    pub canonical: (Canonical, Canonical),
    /// `l=`: octets of the canonical body.
    pub length: Option<u64>,
    /// `t=`, `x=`: seconds of the Unix clock.
    pub time: Option<u64>,
    pub expires: Option<u64>,
    pub body_hash: [u8; 32],
    pub(crate) signature: Vec<u8>,
    /// In lower case.
    pub(crate) names: Vec<Vec<u8>>,
}

/// Why a field is no signature for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// It cannot be read.
    Syntax(&'static str),
    /// It can be read, and will never be good (RFC 6376 6.1.1, RFC 8301 3.1).
    Refused(&'static str),
}

impl Bad {
    pub fn why(self) -> &'static str {
        match self {
            Self::Syntax(why) | Self::Refused(why) => why,
        }
    }
}

/// What `v=` and `i=` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Dkim,
    Arc,
}

impl Signature {
    /// The value of a DKIM-Signature field.
    pub fn parse(value: &[u8]) -> Result<Self, Bad> {
        let tags = Tags::parse(value).map_err(|_| Bad::Syntax("signature is no tag list"))?;
        Self::read(&tags, Form::Dkim)
    }

    pub(crate) fn read(tags: &Tags<'_>, form: Form) -> Result<Self, Bad> {
        if form == Form::Dkim {
            match tags.value("v") {
                Some(b"1") => (),
                Some(_) => return Err(Bad::Refused("unknown version")),
                None => return Err(Bad::Syntax("v= missing")),
            }
        }
        let signer = Signer::read(tags)?;
        let bh = tags.value("bh").ok_or(Bad::Syntax("bh= missing"))?;
        let bh = base64(bh).and_then(|octets| octets.try_into().ok());
        let signature = Self {
            algorithm: signer.algorithm,
            selector: signer.selector,
            identity: match form {
                Form::Dkim => identity(tags, &signer.domain)?,
                Form::Arc => None,
            },
            domain: signer.domain,
            canonical: canonical(tags.value("c"))?,
            length: match tags.value("l") {
                Some(l) => Some(number(l, 76).ok_or(Bad::Syntax("l= is no number"))?),
                None => None,
            },
            time: signer.time,
            expires: signer.expires,
            body_hash: bh.ok_or(Bad::Syntax("bh= is no SHA-256"))?,
            signature: signer.signature,
            names: names(tags)?,
        };
        let q = tags.value("q");
        if q.is_some_and(|q| !items(q).any(|m| m.eq_ignore_ascii_case(b"dns/txt"))) {
            return Err(Bad::Refused("unknown query method"));
        }
        Ok(signature)
    }

    /// Whether `h=` has this name, which is in lower case.
    pub fn signs(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name.as_bytes())
    }
}

/// What a signature and an ARC-Seal have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signer {
    pub(crate) algorithm: Algorithm,
    pub(crate) domain: Domain,
    pub(crate) selector: Domain,
    pub(crate) time: Option<u64>,
    pub(crate) expires: Option<u64>,
    pub(crate) signature: Vec<u8>,
}

impl Signer {
    pub(crate) fn read(tags: &Tags<'_>) -> Result<Self, Bad> {
        let algorithm = match tags.value("a") {
            Some(b"rsa-sha256") => Algorithm::RsaSha256,
            Some(b"ed25519-sha256") => Algorithm::Ed25519Sha256,
            Some(b"rsa-sha1") => return Err(Bad::Refused("SHA-1 is no signature")),
            Some(_) => return Err(Bad::Refused("unknown algorithm")),
            None => return Err(Bad::Syntax("a= missing")),
        };
        let b = tags.value("b").and_then(base64).unwrap_or_default();
        if b.is_empty() || b.len() > MAX_B {
            return Err(Bad::Syntax("b= is no signature"));
        }
        let seconds = |name, why| match tags.value(name) {
            Some(text) => number(text, 12).map(Some).ok_or(Bad::Syntax(why)),
            None => Ok(None),
        };
        let signer = Self {
            algorithm,
            domain: name_tag(tags, "d").ok_or(Bad::Syntax("d= is no domain"))?,
            selector: name_tag(tags, "s").ok_or(Bad::Syntax("s= is no selector"))?,
            time: seconds("t", "t= is no time")?,
            expires: seconds("x", "x= is no time")?,
            signature: b,
        };
        match (signer.time, signer.expires) {
            (Some(t), Some(x)) if x <= t => Err(Bad::Refused("expires before it was made")),
            _ => Ok(signer),
        }
    }
}

/// `d=` or `s=`, where it can be read: also in signatures that are bad.
pub(crate) fn name_tag(tags: &Tags<'_>, name: &str) -> Option<Domain> {
    domain(tags.value(name)?)
}

/// A name; U-labels become A-labels (RFC 8616 5).
fn domain(text: &[u8]) -> Option<Domain> {
    let text = std::str::from_utf8(text).ok()?;
    if text.ends_with('.') || text.starts_with('[') {
        return None;
    }
    match text.is_ascii() {
        true => Domain::parse(text).ok(),
        false => Domain::parse(&idna::domain_to_ascii(text).ok()?).ok(),
    }
}

/// `sig-c-tag-alg = ("simple" / "relaxed") [ "/" ("simple" / "relaxed") ]`, simple by default.
fn canonical(c: Option<&[u8]>) -> Result<(Canonical, Canonical), Bad> {
    let one = |text: &[u8]| match text {
        b"simple" => Ok(Canonical::Simple),
        b"relaxed" => Ok(Canonical::Relaxed),
        _ => Err(Bad::Refused("unknown canonicalization")),
    };
    let Some(c) = c else {
        return Ok((Canonical::Simple, Canonical::Simple));
    };
    match memchr::memchr(b'/', c) {
        Some(at) => {
            let (header, body) = c.split_at_checked(at).unwrap_or((c, b""));
            Ok((one(header)?, one(body.get(1..).unwrap_or_default())?))
        }
        None => Ok((one(c)?, Canonical::Simple)),
    }
}

/// `sig-h-tag = %x68 [FWS] "=" [FWS] hdr-name *( [FWS] ":" [FWS] hdr-name )`; From must be among them
/// (RFC 6376 5.4).
fn names(tags: &Tags<'_>) -> Result<Vec<Vec<u8>>, Bad> {
    let h = tags.value("h").ok_or(Bad::Syntax("h= missing"))?;
    let mut names = Vec::new();
    for name in items(h) {
        if name.is_empty() || !name.iter().all(|b| matches!(b, 33..=126)) {
            return Err(Bad::Syntax("h= is no list of names"));
        }
        if names.len() == MAX_NAMES {
            return Err(Bad::Refused("too many names in h="));
        }
        names.push(name.to_ascii_lowercase());
    }
    match names.iter().any(|name| name == b"from") {
        true => Ok(names),
        false => Err(Bad::Refused("From is not signed")),
    }
}

/// `sig-i-tag = %x69 [FWS] "=" [FWS] [ Local-part ] "@" domain-name`, dkim-quoted-printable, its domain
/// the one in `d=` or below it.
fn identity(tags: &Tags<'_>, signer: &Domain) -> Result<Option<Identity>, Bad> {
    let Some(i) = tags.value("i") else {
        return Ok(None);
    };
    let read = || {
        let text = String::from_utf8(quoted_printable(i)?).ok()?;
        let (local, name) = text.rsplit_once('@')?;
        if local.len() > 256 || local.chars().any(char::is_control) {
            return None;
        }
        Some(Identity {
            local: local.into(),
            domain: domain(name.as_bytes())?,
        })
    };
    let identity = read().ok_or(Bad::Syntax("i= is no identity"))?;
    match identity.domain.is_within(signer) {
        true => Ok(Some(identity)),
        false => Err(Bad::Refused("i= is not under d=")),
    }
}

/// RFC 6376 2.11: white space says nothing, `=` and two digits are an octet.
fn quoted_printable(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = trim(text);
    while let Some((&byte, more)) = rest.split_first() {
        rest = more;
        match byte {
            b'=' => {
                let (digits, more) = rest.split_at_checked(2)?;
                let digits = std::str::from_utf8(digits).ok()?;
                if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                out.push(u8::from_str_radix(digits, 16).ok()?);
                rest = more;
            }
            b' ' | b'\t' | b'\r' | b'\n' => (),
            _ => out.push(byte),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BH: &str = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=";

    /// A good one with some tags replaced (`x=` takes a tag away).
    fn say(change: &str) -> String {
        let mut tags = vec![
            ("v", "1"),
            ("a", "rsa-sha256"),
            ("d", "example.net"),
            ("s", "sel"),
            ("h", "From : To"),
            ("bh", BH),
            ("b", "YWI="),
        ];
        for tag in change.split(';').filter(|t| !t.is_empty()) {
            let (name, value) = tag.split_once('=').unwrap();
            tags.retain(|(known, _)| *known != name);
            if !value.is_empty() {
                tags.push((name, value));
            }
        }
        let text: Vec<_> = tags.iter().map(|(n, v)| format!("{n}={v}")).collect();
        match Signature::parse(text.join("; ").as_bytes()) {
            Ok(s) => format!(
                "{} {} {}/{}{}{}",
                s.domain,
                s.selector,
                s.canonical.0.as_str(),
                s.canonical.1.as_str(),
                s.length.map(|l| format!(" l={l}")).unwrap_or_default(),
                s.identity.map(|i| format!(" i={i}")).unwrap_or_default(),
            ),
            Err(Bad::Syntax(why)) => format!("syntax: {why}"),
            Err(Bad::Refused(why)) => format!("refused: {why}"),
        }
    }

    #[test]
    fn tags_of_rfc_6376_3_5() {
        let table = [
            ("", "example.net sel simple/simple"),
            ("a=ed25519-sha256", "example.net sel simple/simple"),
            ("c=relaxed", "example.net sel relaxed/simple"),
            ("c=simple/relaxed", "example.net sel simple/relaxed"),
            (
                "d=Example.NET;s=2024.A_b",
                "example.net 2024.a_b simple/simple",
            ),
            ("s=20240101", "example.net 20240101 simple/simple"),
            (
                "d=b\u{fc}cher.example",
                "xn--bcher-kva.example sel simple/simple",
            ),
            ("l=12", "example.net sel simple/simple l=12"),
            (
                "i=@a.example.net",
                "example.net sel simple/simple i=@a.example.net",
            ),
            ("i=jo=40x= 20@example.net", "syntax: i= is no identity"),
            (
                "i=jo=20e@Example.net",
                "example.net sel simple/simple i=jo e@example.net",
            ),
            (
                "q=x/y : dns/txt;z=From:a|To:b;y=unknown",
                "example.net sel simple/simple",
            ),
            ("t=1;x=2", "example.net sel simple/simple"),
            ("v=2", "refused: unknown version"),
            ("v=", "syntax: v= missing"),
            ("a=", "syntax: a= missing"),
            ("a=rsa-sha1", "refused: SHA-1 is no signature"),
            ("a=dsa-sha256", "refused: unknown algorithm"),
            ("b=", "syntax: b= is no signature"),
            ("b=!", "syntax: b= is no signature"),
            ("bh=", "syntax: bh= missing"),
            ("bh=YWI=", "syntax: bh= is no SHA-256"),
            ("c=nofws", "refused: unknown canonicalization"),
            ("c=simple/nofws", "refused: unknown canonicalization"),
            ("d=", "syntax: d= is no domain"),
            ("d=[192.0.2.1]", "syntax: d= is no domain"),
            ("d=a b", "syntax: d= is no domain"),
            ("s=", "syntax: s= is no selector"),
            ("s=..", "syntax: s= is no selector"),
            ("h=", "syntax: h= missing"),
            ("h=To : Subject", "refused: From is not signed"),
            ("h=From : : To", "syntax: h= is no list of names"),
            ("h=From : T o", "syntax: h= is no list of names"),
            ("i=joe", "syntax: i= is no identity"),
            ("i=@example.org", "refused: i= is not under d="),
            ("i=@xexample.net", "refused: i= is not under d="),
            ("i=@net", "refused: i= is not under d="),
            ("l=x", "syntax: l= is no number"),
            ("q=dns/other", "refused: unknown query method"),
            ("t=1;x=1", "refused: expires before it was made"),
            ("t=-1", "syntax: t= is no time"),
            ("t=1234567890123", "syntax: t= is no time"),
        ];
        for (change, wanted) in table {
            assert_eq!(say(change), wanted, "{change}");
        }
    }

    #[test]
    fn h_has_a_bound() {
        let names = "To:".repeat(MAX_NAMES);
        assert_eq!(
            say(&format!("h={names}From")),
            "refused: too many names in h="
        );
    }
}
