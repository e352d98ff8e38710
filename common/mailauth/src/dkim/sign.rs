//! We answer for a message: RFC 6376 5, relaxed/relaxed.
//!
//! A [`Signer`] is a private key with the names under which its public half stands in DNS. Any number
//! of them sign one message with one body hash. The field that comes out is folded, every line ends in
//! CRLF and is below 78 octets (but for a domain or selector that is longer than a line).

use std::fmt;
use std::path::Path;

use base::{Domain, Fail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};

use crate::dkim::body::{Bodies, Hashes};
use crate::dkim::canonical::Canonical;
use crate::dkim::der;
use crate::dkim::header::{Header, without_b};
use crate::dkim::pem;
use crate::dkim::signature::Algorithm;

/// How often a name stands in `h=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Often {
    /// Once more than there are fields, so that none can be added: what readers see of who wrote what
    /// to whom.
    More,
    /// The same where there is one: absent ones are often added on the way, by right (RFC 6409 8).
    MoreIfThere,
    /// As often as there are fields: those that mailing lists and resenders put above.
    Same,
}

/// RFC 6376 5.4.1, and what decides how a body is shown.
const SIGNED: [(&str, Often); 24] = [
    ("from", Often::More),
    ("reply-to", Often::More),
    ("subject", Often::More),
    ("date", Often::More),
    ("to", Often::More),
    ("cc", Often::More),
    ("sender", Often::MoreIfThere),
    ("message-id", Often::MoreIfThere),
    ("in-reply-to", Often::MoreIfThere),
    ("references", Often::MoreIfThere),
    ("mime-version", Often::MoreIfThere),
    ("content-type", Often::MoreIfThere),
    ("content-transfer-encoding", Often::MoreIfThere),
    ("resent-date", Often::Same),
    ("resent-from", Often::Same),
    ("resent-to", Often::Same),
    ("resent-cc", Often::Same),
    ("list-id", Often::Same),
    ("list-help", Often::Same),
    ("list-unsubscribe", Often::Same),
    ("list-unsubscribe-post", Often::Same),
    ("list-subscribe", Often::Same),
    ("list-post", Often::Same),
    ("list-archive", Often::Same),
];
/// Fields in one signature. Who sends more of them wants something else than mail.
const MAX_FIELDS: usize = 200;
/// Octets in a line of the field, without its CRLF.
const LINE: usize = 76;

/// Why a message was not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSigned {
    /// It has no From: there is nobody to answer for.
    NoFrom,
    TooManyFields,
    /// [`Signer::want`] was not called before the body came.
    NoBody,
    /// The cryptography failed: no random numbers.
    Crypto,
}

impl fmt::Display for NotSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFrom => "no From field to sign",
            Self::TooManyFields => "too many header fields to sign",
            Self::NoBody => "body not hashed",
            Self::Crypto => "signing failed",
        })
    }
}

impl std::error::Error for NotSigned {}

/// A key and its names.
pub struct Signer {
    domain: Domain,
    selector: Domain,
    key: Key,
}

enum Key {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

/// Without the key.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (selector, domain) = (&self.selector, &self.domain);
        write!(f, "Signer({selector}._domainkey.{domain})")
    }
}

impl Signer {
    /// `pem`: the content of the file `path`, which is only named in errors. PKCS #8 (RSA, Ed25519) or
    /// PKCS #1 (RSA), not encrypted; RSA with 2048 to 4096 bits, as RFC 8301 3.2 asks of signers.
    pub fn load(domain: &Domain, selector: &str, pem: &str, path: &Path) -> Result<Self, Fail> {
        let path = path.display();
        let fail = |what: String| Fail::config(format!("DKIM key {path}: {what}"));
        let names = Domain::parse(selector).ok().filter(|s| {
            let name = format!("{s}._domainkey.{domain}");
            s.ip().is_none() && domain.ip().is_none() && Domain::parse(&name).is_ok()
        });
        let selector_name = names.ok_or_else(|| {
            fail(format!(
                "{selector}._domainkey.{domain} is no name, write a selector like s2024"
            ))
        })?;
        let (label, der) = pem::first(pem).ok_or_else(|| {
            fail("no unencrypted PEM key, write one with: openssl genrsa -out FILE 2048".into())
        })?;
        Ok(Self {
            domain: domain.clone(),
            selector: selector_name,
            key: Key::read(label, &der).map_err(fail)?,
        })
    }

    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    pub fn selector(&self) -> &Domain {
        &self.selector
    }

    pub fn algorithm(&self) -> Algorithm {
        match self.key {
            Key::Rsa(_) => Algorithm::RsaSha256,
            Key::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// The TXT record that belongs at `selector._domainkey.domain`.
    pub fn record(&self) -> String {
        match &self.key {
            Key::Rsa(pair) => {
                let algorithm = [der::put(der::OID, der::RSA), der::put(der::NULL, b"")];
                let key = [&[0], pair.public_key().as_ref()].concat();
                let info = [
                    der::put(der::SEQUENCE, &algorithm.concat()),
                    der::put(der::BIT_STRING, &key),
                ];
                let info = der::put(der::SEQUENCE, &info.concat());
                format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(info))
            }
            Key::Ed25519(pair) => {
                let key = STANDARD.encode(pair.public_key().as_ref());
                format!("v=DKIM1; k=ed25519; p={key}")
            }
        }
    }

    /// Asks for the body hash that [`Signer::sign`] needs.
    pub fn want(&self, bodies: &mut Bodies) {
        bodies.want(Canonical::Relaxed, None);
    }

    /// The field to put above the header. `now`: seconds of the Unix clock.
    pub fn sign(&self, header: &Header, hashes: &Hashes, now: u64) -> Result<String, NotSigned> {
        let hash = hashes.hash(Canonical::Relaxed, None);
        let hash = hash.map_err(|_| NotSigned::NoBody)?.sha256;
        let names = names(header)?;
        let mut field = Folder::new("DKIM-Signature: ");
        field.word(&format!("v=1; a={}; ", self.algorithm()));
        field.word("c=relaxed/relaxed; ");
        field.word(&format!("d={}; ", self.domain));
        field.word(&format!("s={}; ", self.selector));
        field.word(&format!("t={now}; "));
        let last = names.len().saturating_sub(1);
        for (n, name) in names.iter().enumerate() {
            let before = if n == 0 { "h=" } else { "" };
            let behind = if n == last { "; " } else { ":" };
            field.word(&format!("{before}{name}{behind}"));
        }
        field.word(&format!("bh={}; ", STANDARD.encode(hash)));
        field.word("b=");

        let mut data = Vec::new();
        let chosen = names.iter().map(|name| name.as_bytes());
        header.choose(chosen, Canonical::Relaxed, &mut data);
        without_b(field.text.as_bytes(), Canonical::Relaxed, &mut data);
        field.split(&STANDARD.encode(self.key.sign(&data)?));
        field.text.push_str("\r\n");
        Ok(field.text)
    }
}

impl Key {
    fn read(label: &str, der: &[u8]) -> Result<Self, String> {
        let rsa = |pair: Result<RsaKeyPair, ring::error::KeyRejected>| {
            pair.map(|pair| Self::Rsa(Box::new(pair))).map_err(|e| {
                format!(
                    "RSA key not usable ({e}), it must have 2048 to 4096 bits: \
                     openssl genrsa -out FILE 2048"
                )
            })
        };
        match (label, kind(der)) {
            ("RSA PRIVATE KEY", _) => rsa(RsaKeyPair::from_der(der)),
            ("PRIVATE KEY", Some(der::RSA)) => rsa(RsaKeyPair::from_pkcs8(der)),
            ("PRIVATE KEY", Some(der::ED25519)) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
                .map(Self::Ed25519)
                .map_err(|e| format!("Ed25519 key not usable ({e})")),
            ("ENCRYPTED PRIVATE KEY", _) => Err(
                "encrypted, write it without a passphrase: openssl pkey -in FILE -out FILE".into(),
            ),
            _ => {
                Err("neither RSA nor Ed25519, write one with: openssl genrsa -out FILE 2048".into())
            }
        }
    }

    fn sign(&self, data: &[u8]) -> Result<Vec<u8>, NotSigned> {
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    data,
                    &mut signature,
                )
                .map_err(|_| NotSigned::Crypto)?;
                Ok(signature)
            }
            Self::Ed25519(pair) => {
                let hash = digest(&SHA256, data);
                Ok(pair.sign(hash.as_ref()).as_ref().to_vec())
            }
        }
    }
}

/// `PrivateKeyInfo ::= SEQUENCE { version, AlgorithmIdentifier, ... }` (RFC 5208 5): whose key it is.
fn kind(pkcs8: &[u8]) -> Option<&[u8]> {
    let (_version, rest) = der::take(der::INTEGER, der::only(der::SEQUENCE, pkcs8)?)?;
    let (algorithm, _) = der::take(der::SEQUENCE, rest)?;
    Some(der::take(der::OID, algorithm)?.0)
}

/// The names of `h=`.
fn names(header: &Header) -> Result<Vec<&'static str>, NotSigned> {
    if header.count("from") == 0 {
        return Err(NotSigned::NoFrom);
    }
    let mut names = Vec::new();
    for (name, often) in SIGNED {
        let there = header.count(name);
        let times = match often {
            Often::More => there + 1,
            Often::MoreIfThere if there > 0 => there + 1,
            Often::MoreIfThere | Often::Same => there,
        };
        if names.len() + times > MAX_FIELDS {
            return Err(NotSigned::TooManyFields);
        }
        names.extend(std::iter::repeat_n(name, times));
    }
    Ok(names)
}

/// A field that is written and folded where it gets too long.
struct Folder {
    text: String,
    line: usize,
}

impl Folder {
    fn new(name: &str) -> Self {
        Self {
            text: name.into(),
            line: name.len(),
        }
    }

    /// Something that stays in one piece. White space at its end does not count.
    fn word(&mut self, word: &str) {
        if self.line + word.trim_end().len() > LINE {
            let kept = self.text.trim_end().len();
            self.text.truncate(kept);
            self.text.push_str("\r\n\t");
            self.line = 1;
        }
        self.text.push_str(word);
        self.line += word.len();
    }

    /// Something that may be cut anywhere.
    fn split(&mut self, text: &str) {
        for c in text.chars() {
            if self.line >= LINE {
                self.text.push_str("\r\n\t");
                self.line = 1;
            }
            self.text.push(c);
            self.line += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_signed_as_often_as_there_is_need() {
        let header = Header::new(b"From: a\r\nTo: b\r\nTo: c\r\nMessage-ID: <1>\r\nList-ID: x\r\n");
        assert_eq!(
            names(&header).unwrap().join(":"),
            "from:from:reply-to:subject:date:to:to:to:cc:message-id:message-id:list-id"
        );
        assert_eq!(names(&Header::new(b"To: b\r\n")), Err(NotSigned::NoFrom));
        let many = "To: a\r\n".repeat(MAX_FIELDS) + "From: b\r\n";
        assert_eq!(
            names(&Header::new(many.as_bytes())),
            Err(NotSigned::TooManyFields)
        );
    }

    #[test]
    fn keys_that_are_none_are_named_with_their_mend() {
        let domain = Domain::parse("example.org").unwrap();
        let load = |selector: &str, pem: &str| {
            let fail = Signer::load(&domain, selector, pem, Path::new("/etc/k.pem"));
            fail.unwrap_err().to_string()
        };
        let block = |label: &str| format!("-----BEGIN {label}-----\nYWI=\n-----END {label}-----\n");
        let table = [
            ("s", "", "no unencrypted PEM key"),
            ("a b", "", "a b._domainkey.example.org is no name"),
            ("[192.0.2.1]", "", "is no name"),
            (
                "s",
                &block("RSA PRIVATE KEY"),
                "must have 2048 to 4096 bits",
            ),
            ("s", &block("ENCRYPTED PRIVATE KEY"), "openssl pkey"),
            ("s", &block("EC PRIVATE KEY"), "neither RSA nor Ed25519"),
            ("s", &block("PRIVATE KEY"), "neither RSA nor Ed25519"),
        ];
        for (selector, pem, wanted) in table {
            let said = load(selector, pem);
            assert!(said.contains(wanted), "{said}");
            assert!(said.contains("/etc/k.pem"), "{said}");
        }
    }
}
