//! The public key that a domain shows in DNS: RFC 6376 3.6.1, Ed25519 by RFC 8463.
//!
//! A [`Key`] is one that may be used for mail and for SHA-256 signatures; all others are a
//! [`KeyError`]. RSA keys below 1024 bits are refused (RFC 8301 3.2), those above 4096 as well: nobody
//! has to check them (RFC 8301 3.2 asks for 1024 to 4096), and they make us work for strangers.

use std::borrow::Cow;
use std::fmt;

use base::Domain;
use dns::{DnsError, Resolve};
use ring::digest::{SHA256, digest};
use ring::signature::{
    ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY as RSA_SHA256, UnparsedPublicKey,
};

use crate::dkim::der;
use crate::dkim::signature::Algorithm;
use crate::dkim::tags::{Tags, base64, items};

/// Modulus bits of RSA keys that are used.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 1024..=4096;
/// Records at one name that are looked at (RFC 6376 3.6.2.2: there should be one).
const MAX_RECORDS: usize = 5;

/// A key record that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    public: Public,
    /// `t=y`: the domain is testing, and the message is to be treated as if it were not signed.
    pub testing: bool,
    /// `t=s`: the domain in `i=` must be the one in `d=`, not one below it.
    pub strict: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Public {
    /// RFC 8017 A.1.1 RSAPublicKey in DER.
    Rsa {
        der: Vec<u8>,
        bits: usize,
    },
    Ed25519([u8; 32]),
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// DNS does not say now.
    Temporary(String),
    /// There is no record.
    Missing,
    /// `p=` is empty.
    Revoked,
    /// The record is not one, or forbids this use of it.
    Bad(&'static str),
    /// RSA, with this many bits of modulus.
    Size(usize),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            Self::Temporary(why) => Cow::Owned(format!("key not found now: {why}")),
            Self::Missing => "no key".into(),
            Self::Revoked => "key revoked".into(),
            Self::Bad(why) => (*why).into(),
            Self::Size(bits) => Cow::Owned(format!("RSA key of {bits} bits")),
        })
    }
}

impl std::error::Error for KeyError {}

impl Key {
    /// Asks DNS for `selector._domainkey.domain`. Blocks for one look-up.
    pub fn find(dns: &dyn Resolve, selector: &Domain, domain: &Domain) -> Result<Self, KeyError> {
        let name = format!("{selector}._domainkey.{domain}");
        // What is too long for a name is nowhere.
        let name = Domain::parse(&name).map_err(|_| KeyError::Missing)?;
        let records = match dns.txt(&name) {
            Ok(records) => records,
            Err(DnsError::NxDomain | DnsError::NoData) => return Err(KeyError::Missing),
            Err(DnsError::Temporary(why)) => return Err(KeyError::Temporary(why)),
        };
        let mut first_error = None;
        for record in records.iter().take(MAX_RECORDS) {
            match Self::parse(record) {
                Ok(key) => return Ok(key),
                Err(e) => first_error = first_error.or(Some(e)),
            }
        }
        Err(first_error.unwrap_or(KeyError::Missing))
    }

    /// One record. RFC 6376 3.6.1; tags that we do not know, and g= of RFC 4871, say nothing.
    pub fn parse(record: &[u8]) -> Result<Self, KeyError> {
        let tags = Tags::parse(record).map_err(|_| KeyError::Bad("key record not readable"))?;
        if tags.value("v").is_some() && tags.first() != Some((b"v", b"DKIM1")) {
            return Err(KeyError::Bad("key record of another version"));
        }
        let p = tags
            .value("p")
            .ok_or(KeyError::Bad("no key in the key record"))?;
        if p.is_empty() {
            return Err(KeyError::Revoked);
        }
        if tags
            .value("h")
            .is_some_and(|h| !items(h).any(|hash| hash == b"sha256"))
        {
            return Err(KeyError::Bad("key not for SHA-256"));
        }
        let for_mail = |s| items(s).any(|service| matches!(service, b"*" | b"email"));
        if tags.value("s").is_some_and(|s| !for_mail(s)) {
            return Err(KeyError::Bad("key not for mail"));
        }
        let p = base64(p).ok_or(KeyError::Bad("key is no base64"))?;
        let public = match tags.value("k") {
            None | Some(b"rsa") => rsa(&p)?,
            Some(b"ed25519") => {
                let octets = p.as_slice().try_into();
                Public::Ed25519(octets.map_err(|_| KeyError::Bad("Ed25519 key without 32 octets"))?)
            }
            Some(_) => return Err(KeyError::Bad("key of an unknown kind")),
        };
        let flag = |name: &[u8]| tags.value("t").is_some_and(|t| items(t).any(|f| f == name));
        Ok(Self {
            public,
            testing: flag(b"y"),
            strict: flag(b"s"),
        })
    }

    /// What it can check.
    pub fn algorithm(&self) -> Algorithm {
        match self.public {
            Public::Rsa { .. } => Algorithm::RsaSha256,
            Public::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// Bits of an RSA modulus, or of an Ed25519 key.
    pub fn bits(&self) -> usize {
        match self.public {
            Public::Rsa { bits, .. } => bits,
            Public::Ed25519(_) => 256,
        }
    }

    /// Whether `signature` is one over `data`, which is hashed here (RFC 6376 3.3.2, RFC 8463 3).
    pub fn verifies(&self, data: &[u8], signature: &[u8]) -> bool {
        match &self.public {
            Public::Rsa { der, .. } => UnparsedPublicKey::new(&RSA_SHA256, der)
                .verify(data, signature)
                .is_ok(),
            Public::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key)
                .verify(digest(&SHA256, data).as_ref(), signature)
                .is_ok(),
        }
    }
}

/// Both forms that are in use: SubjectPublicKeyInfo (RFC 5280 4.1), and the RSAPublicKey alone, which
/// is what RFC 6376 3.6.1 says.
fn rsa(p: &[u8]) -> Result<Public, KeyError> {
    let bare = unwrapped(p).unwrap_or(p);
    let bits = modulus(bare).map(bits).ok_or(KeyError::Bad("no RSA key"))?;
    if !RSA_BITS.contains(&bits) {
        return Err(KeyError::Size(bits));
    }
    Ok(Public::Rsa {
        der: bare.to_vec(),
        bits,
    })
}

fn unwrapped(spki: &[u8]) -> Option<&[u8]> {
    let (algorithm, key) = der::take(der::SEQUENCE, der::only(der::SEQUENCE, spki)?)?;
    let (oid, _parameters) = der::take(der::OID, algorithm)?;
    match der::only(der::BIT_STRING, key)?.split_first()? {
        (0, key) if oid == der::RSA => Some(key),
        _ => None,
    }
}

/// `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }`
fn modulus(key: &[u8]) -> Option<&[u8]> {
    let (modulus, exponent) = der::take(der::INTEGER, der::only(der::SEQUENCE, key)?)?;
    der::only(der::INTEGER, exponent)?;
    Some(modulus)
}

fn bits(modulus: &[u8]) -> usize {
    let zeros = modulus.iter().take_while(|octet| **octet == 0).count();
    let first = modulus.get(zeros).map_or(8, |octet| octet.leading_zeros());
    let octets = modulus.len().saturating_sub(zeros);
    (octets * 8).saturating_sub(usize::try_from(first).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    const RSA: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3id\
        Y6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lx\
        j+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";

    fn say(record: &str) -> String {
        let record = record.replace("ED", ED).replace("RSA", RSA);
        match Key::parse(record.as_bytes()) {
            Ok(key) => format!(
                "{} {}{}{}",
                key.algorithm(),
                key.bits(),
                if key.testing { " y" } else { "" },
                if key.strict { " s" } else { "" }
            ),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn records() {
        let table = [
            ("v=DKIM1; k=rsa; p=RSA", "rsa-sha256 1024"),
            ("p=RSA", "rsa-sha256 1024"),
            ("v=DKIM1; k=ed25519; p=ED", "ed25519-sha256 256"),
            ("k=ed25519; p=ED; t=y:s", "ed25519-sha256 256 y s"),
            ("k=ed25519; p=ED; t= s : x", "ed25519-sha256 256 s"),
            (
                "k=ed25519; p=ED; h=sha1:sha256; s=email; n=a note; g=x",
                "ed25519-sha256 256",
            ),
            ("k=ed25519; p=ED; s=*", "ed25519-sha256 256"),
            ("v=DKIM1; p=", "key revoked"),
            ("v=DKIM1; k=rsa", "no key in the key record"),
            ("v=DKIM2; p=RSA", "key record of another version"),
            ("p=RSA; v=DKIM1", "key record of another version"),
            ("v=spf1 -all", "key record of another version"),
            ("p=RSA; h=sha1", "key not for SHA-256"),
            ("p=RSA; s=tlsa", "key not for mail"),
            ("p=RSA; k=dsa", "key of an unknown kind"),
            ("p=ED", "no RSA key"),
            ("k=ed25519; p=RSA", "Ed25519 key without 32 octets"),
            ("p=!!", "key is no base64"),
            ("p", "key record not readable"),
        ];
        for (record, wanted) in table {
            assert_eq!(say(record), wanted, "{record}");
        }
    }

    #[test]
    fn both_forms_of_rsa_are_one_key() {
        let spki = base64(RSA.as_bytes()).unwrap();
        let bare = unwrapped(&spki).unwrap();
        assert_eq!(rsa(&spki), rsa(bare));
        assert!(rsa(bare).is_ok());
    }

    #[test]
    fn sizes() {
        let sized = |bits: usize| {
            let mut modulus = vec![0u8];
            modulus.extend((0..bits.div_ceil(8)).map(|_| 0xffu8));
            modulus[1] >>= (8 - bits % 8) % 8;
            let both = [
                der::put(der::INTEGER, &modulus),
                der::put(der::INTEGER, &[1, 0, 1]),
            ];
            rsa(&der::put(der::SEQUENCE, &both.concat()))
        };
        for bits in [512, 1023, 4097, 8192] {
            assert_eq!(sized(bits), Err(KeyError::Size(bits)));
        }
        for bits in [1024, 1025, 2048, 4096] {
            assert!(sized(bits).is_ok(), "{bits}");
        }
    }
}
