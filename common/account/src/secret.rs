//! A stored secret and the one question that can be asked of it: does this password fit?
//!
//! The schemes are Dovecot's: `{PLAIN}`, `{CRYPT}` and `{SHA512-CRYPT}`, `{SHA256-CRYPT}` for
//! crypt(3)'s `$6$` and `$5$`, `{ARGON2ID}` and `{ARGON2I}` for `$argon2...$`, `{SCRAM-SHA-1}` and
//! `{SCRAM-SHA-256}`. The hashes are the RustCrypto project's; comparing takes the same time wherever
//! two secrets differ.

use std::fmt;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordVerifier as _};
use md5::{Digest as _, Md5};
use sha_crypt::{PasswordHashRef, PasswordVerifier as _, ShaCrypt};
use subtle::ConstantTimeEq as _;

use crate::sasl::{Mechanism, cram, prep};
use crate::verifier::{Hash, Verifier};

/// A secret as it is stored. `Debug` does not show it.
#[derive(Clone)]
pub enum Secret {
    Plain(String),
    /// crypt(3): `$5$` or `$6$`.
    ShaCrypt(String),
    /// PHC form: `$argon2id$...`.
    Argon2(String),
    /// A password fits it too.
    Scram(Verifier),
}

impl Secret {
    /// `{SCHEME}text`. Without a scheme it is crypt's, as in Dovecot. The error says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, value) = match text.strip_prefix('{').and_then(|t| t.split_once('}')) {
            Some((scheme, value)) => (scheme.to_ascii_uppercase(), value),
            None => ("CRYPT".to_owned(), text),
        };
        match scheme.as_str() {
            "PLAIN" | "CLEAR" | "CLEARTEXT" => Ok(Self::Plain(value.into())),
            "CRYPT" if value.starts_with("$argon2") => Self::argon2(value),
            "CRYPT" | "SHA512-CRYPT" | "SHA256-CRYPT" => Self::sha_crypt(value),
            "ARGON2ID" | "ARGON2I" | "ARGON2" => Self::argon2(value),
            _ => match Hash::ALL.into_iter().find(|hash| hash.scheme() == scheme) {
                Some(hash) => Verifier::parse(hash, value).map(Self::Scram),
                None => Err(format!(
                    "{{{scheme}}} is not known, write {{PLAIN}}, {{CRYPT}}, {{SHA512-CRYPT}}, {{SHA256-CRYPT}}, {{ARGON2ID}} or {{SCRAM-SHA-256}}"
                )),
            },
        }
    }

    fn sha_crypt(value: &str) -> Result<Self, String> {
        let good = (value.starts_with("$5$") || value.starts_with("$6$"))
            && PasswordHashRef::new(value).is_ok();
        match good {
            true => Ok(Self::ShaCrypt(value.into())),
            false => {
                Err("no hash of crypt(3) that we know, make one with: openssl passwd -6".into())
            }
        }
    }

    fn argon2(value: &str) -> Result<Self, String> {
        match PasswordHash::new(value) {
            Ok(_) => Ok(Self::Argon2(value.into())),
            Err(_) => Err("no argon2 hash, make one with: argon2 SALT -id -e".into()),
        }
    }

    /// Whether enough is stored for this mechanism.
    pub fn allows(&self, mechanism: Mechanism) -> bool {
        match self {
            _ if matches!(mechanism, Mechanism::Plain | Mechanism::Login) => true,
            Self::Plain(password) => !password.is_empty() && mechanism.needs_secret(),
            Self::Scram(verifier) => mechanism.scram() == Some(verifier.hash()),
            Self::ShaCrypt(_) | Self::Argon2(_) => false,
        }
    }

    /// Whether `password` is the one, as it is or in the form of SASLprep (RFC 4616 2): what was
    /// hashed is one of these. May take a tenth of a second: that is what hashes are for.
    pub fn verify(&self, password: &[u8]) -> bool {
        let prepared = prep::prepare_octets(password);
        self.fits(password) || (*prepared != *password && self.fits(&prepared))
    }

    fn fits(&self, password: &[u8]) -> bool {
        match self {
            Self::Plain(secret) => {
                let prepared = prep::prepare_or_keep(secret);
                same(secret.as_bytes(), password) || same(prepared.as_bytes(), password)
            }
            Self::ShaCrypt(hash) => PasswordHashRef::new(hash)
                .is_ok_and(|hash| ShaCrypt::default().verify_password(password, hash).is_ok()),
            Self::Argon2(hash) => PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
            Self::Scram(verifier) => verifier.fits(password),
        }
    }

    /// RFC 1939 7: whether `digest` is the MD5 of timestamp and secret. Only a plain secret can say,
    /// and only to a timestamp: without one the digest would be as good as the password for ever.
    pub fn verify_apop(&self, timestamp: &str, digest: &[u8]) -> bool {
        let stamped = timestamp.starts_with('<') && timestamp.ends_with('>');
        match self {
            Self::Plain(secret) => same(&apop_digest(timestamp, secret), digest) && stamped,
            Self::ShaCrypt(_) | Self::Argon2(_) | Self::Scram(_) => false,
        }
    }

    /// RFC 2195 2: whether `response` is by who has this secret. Only a plain one can say.
    pub fn verify_cram(&self, response: &cram::Response) -> bool {
        match self {
            Self::Plain(secret) if !secret.is_empty() => {
                cram::verify(secret.as_bytes(), &response.challenge, &response.digest)
            }
            Self::Plain(_) | Self::ShaCrypt(_) | Self::Argon2(_) | Self::Scram(_) => false,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "{PLAIN}",
            Self::ShaCrypt(_) => "{CRYPT}",
            Self::Argon2(_) => "{ARGON2}",
            Self::Scram(verifier) => return verifier.fmt(f),
        })
    }
}

/// RFC 1939 7: in lower-case hexadecimal.
fn apop_digest(timestamp: &str, secret: &str) -> Vec<u8> {
    let digest = Md5::new()
        .chain_update(timestamp)
        .chain_update(secret)
        .finalize();
    digest
        .iter()
        .flat_map(|b| format!("{b:02x}").into_bytes())
        .collect()
}

/// Equality in a time that depends on the lengths alone.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// What an unknown user's password is compared with, so that the answer takes as long as for a
/// known one. Nobody's password gives this hash.
pub fn nobody(like: Option<&Secret>) -> Secret {
    match like {
        Some(Secret::ShaCrypt(hash)) => Secret::ShaCrypt(hash.clone()),
        Some(Secret::Argon2(hash)) => Secret::Argon2(hash.clone()),
        Some(Secret::Scram(verifier)) => Secret::Scram(verifier.clone()),
        Some(Secret::Plain(_)) | None => Secret::Plain(String::from("\0nobody")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl passwd -6 -salt saltstring`, `-5`, and `argon2 somesalt -id -e`.
    const KNOWN: [(&str, &str); 5] = [
        ("{PLAIN}Hello world!", "Hello world!"),
        (
            "{SHA512-CRYPT}$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
            "Hello world!",
        ),
        (
            "{CRYPT}$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
            "Hello world!",
        ),
        (
            "{ARGON2ID}$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "password",
        ),
        // The salt of RFC 7677 3.
        (
            "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            "pencil",
        ),
    ];

    #[test]
    fn known_hashes_verify() {
        for (stored, password) in KNOWN {
            let secret = Secret::parse(stored).unwrap_or_else(|e| panic!("{stored}: {e}"));
            assert!(secret.verify(password.as_bytes()), "{stored}");
            assert!(!secret.verify(b"other"), "{stored}");
            assert!(!secret.verify(b""), "{stored}");
        }
    }

    /// A password is the same in every writing that RFC 4013 3 makes one of.
    #[test]
    fn a_password_in_other_letters() {
        let hash = Verifier::derive(
            Hash::Sha256,
            crate::verifier::Salted {
                iterations: std::num::NonZeroU32::new(4096).unwrap(),
                salt: vec![1],
            },
            "p\u{e4}ss".as_bytes(),
        );
        let secrets = [
            Secret::Plain("p\u{e4}ss".into()),
            Secret::Plain("pa\u{308}ss".into()),
            Secret::Scram(hash),
        ];
        for secret in secrets {
            for same in ["p\u{e4}ss", "pa\u{308}ss", "p\u{ad}\u{e4}ss"] {
                assert!(secret.verify(same.as_bytes()), "{}", same.escape_unicode());
            }
            assert!(!secret.verify(b"pass") && !secret.verify(b"p\xe4ss"));
        }
    }

    #[test]
    fn what_is_no_hash_is_refused_with_its_mend() {
        for bad in [
            "{CRYPT}x",
            "plain",
            "{ARGON2ID}x",
            "{CRYPT}$1$salt$x",
            "{NONE}",
            "{SCRAM-SHA-1}x",
            "{SCRAM-SHA-512}x",
        ] {
            assert!(Secret::parse(bad).is_err(), "{bad}");
        }
        assert!(!format!("{:?}", Secret::parse("{PLAIN}s3cret").unwrap()).contains("s3cret"));
    }

    /// RFC 1939 7's own example.
    #[test]
    fn tanstaaf() {
        let secret = Secret::parse("{PLAIN}tanstaaf").unwrap();
        let stamp = "<1896.697170952@dbc.mtview.ca.us>";
        assert!(secret.verify_apop(stamp, b"c4c9334bac560ecc979e58001b3e22fb"));
        assert!(!secret.verify_apop(stamp, b"c4c9334bac560ecc979e58001b3e22fc"));
        assert!(!secret.verify_apop("<x>", b"c4c9334bac560ecc979e58001b3e22fb"));
        assert!(!secret.verify_apop("", &apop_digest("", "tanstaaf")));
        let hashed = Secret::parse(KNOWN[1].0).unwrap();
        assert!(!hashed.verify_apop(stamp, b"c4c9334bac560ecc979e58001b3e22fb"));
    }
}
