//! What SCRAM checks a client against (RFC 5802 3), from a stored verifier or from a password.
//!
//! HMAC, the hashes and PBKDF2 are ring's. Comparing takes the same time wherever two keys differ.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq as _;

/// RFC 7677 4 wants 4096 at least, and more where it can be had.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
/// Octets of a salt that we make.
pub const SALT: usize = 16;
/// What is stored with fewer is refused by clients, what has more blocks a thread for seconds.
const STORED_ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=5_000_000;
/// Octets of a salt that somebody else made.
const MAX_SALT: usize = 256;

/// The hash of a SCRAM mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    pub const ALL: [Self; 2] = [Self::Sha1, Self::Sha256];

    /// As it stands in a mechanism's and in a scheme's name.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Sha1 => "SCRAM-SHA-1",
            Self::Sha256 => "SCRAM-SHA-256",
        }
    }

    /// Octets of a digest.
    pub fn size(self) -> usize {
        match self {
            Self::Sha1 => digest::SHA1_OUTPUT_LEN,
            Self::Sha256 => digest::SHA256_OUTPUT_LEN,
        }
    }

    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        };
        digest::digest(algorithm, data).as_ref().to_vec()
    }

    pub fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        };
        let tag = hmac::sign(&hmac::Key::new(algorithm, key), data);
        tag.as_ref().to_vec()
    }

    /// `Hi()`, which is PBKDF2.
    pub fn stretch(self, password: &[u8], salted: &Salted) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        };
        let mut key = vec![0; self.size()];
        pbkdf2::derive(
            algorithm,
            salted.iterations,
            &salted.salt,
            password,
            &mut key,
        );
        key
    }
}

/// What the client is told, so that it can make the same keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salted {
    pub iterations: NonZeroU32,
    pub salt: Vec<u8>,
}

/// StoredKey and ServerKey. `Debug` shows neither.
#[derive(Clone)]
pub struct Verifier {
    hash: Hash,
    salted: Salted,
    stored: Vec<u8>,
    server: Vec<u8>,
}

impl Verifier {
    /// Keys of whatever origin.
    pub fn new(hash: Hash, salted: Salted, stored: Vec<u8>, server: Vec<u8>) -> Self {
        Self {
            hash,
            salted,
            stored,
            server,
        }
    }

    /// RFC 5802 3. The password is taken as it is: SASLprep is for who calls.
    pub fn derive(hash: Hash, salted: Salted, password: &[u8]) -> Self {
        let key = hash.stretch(password, &salted);
        let stored = hash.digest(&hash.hmac(&key, b"Client Key"));
        let server = hash.hmac(&key, b"Server Key");
        Self::new(hash, salted, stored, server)
    }

    /// Dovecot's `iterations,salt,StoredKey,ServerKey`, the last three in base64.
    pub fn parse(hash: Hash, text: &str) -> Result<Self, String> {
        let scheme = hash.scheme();
        let form = || {
            format!(
                "no verifier of {scheme}, make one with: doveadm pw -s {scheme}, or write {{PLAIN}}"
            )
        };
        let fields: Vec<&str> = text.split(',').collect();
        let [iterations, salt, stored, server] = fields[..] else {
            return Err(form());
        };
        let iterations: u32 = iterations.parse().map_err(|_| form())?;
        if !STORED_ITERATIONS.contains(&iterations) {
            let (least, most) = STORED_ITERATIONS.into_inner();
            return Err(format!(
                "{scheme} with {iterations} iterations, {least} to {most} are taken"
            ));
        }
        let iterations = NonZeroU32::new(iterations).ok_or_else(form)?;
        let bytes = |field: &str| STANDARD.decode(field).map_err(|_| form());
        let (salt, stored, server) = (bytes(salt)?, bytes(stored)?, bytes(server)?);
        let sizes = [stored.len(), server.len()];
        if sizes != [hash.size(); 2] || !(1..=MAX_SALT).contains(&salt.len()) {
            return Err(form());
        }
        let salted = Salted { iterations, salt };
        Ok(Self::new(hash, salted, stored, server))
    }

    pub fn hash(&self) -> Hash {
        self.hash
    }

    pub fn salted(&self) -> &Salted {
        &self.salted
    }

    /// Whether these keys are made of `password`.
    pub fn fits(&self, password: &[u8]) -> bool {
        let other = Self::derive(self.hash, self.salted.clone(), password);
        self.stored.ct_eq(&other.stored).into()
    }

    /// Whether ClientProof was made by one who has ClientKey.
    pub fn proven(&self, auth_message: &[u8], proof: &[u8]) -> bool {
        let signature = self.hash.hmac(&self.stored, auth_message);
        let key: Vec<u8> = proof.iter().zip(&signature).map(|(p, s)| p ^ s).collect();
        let same: bool = self.hash.digest(&key).ct_eq(&self.stored).into();
        same && proof.len() == signature.len()
    }

    /// ServerSignature: that we have the user's keys too.
    pub fn signature(&self, auth_message: &[u8]) -> Vec<u8> {
        self.hash.hmac(&self.server, auth_message)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.hash.scheme())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The password and salt of RFC 7677 3; the keys by Python's hashlib.
    const PENCIL: &str = "4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_stored_verifier_knows_its_password() {
        let verifier = Verifier::parse(Hash::Sha256, PENCIL).unwrap();
        assert!(verifier.fits(b"pencil"));
        assert!(!verifier.fits(b"pencils") && !verifier.fits(b""));
        let derived = Verifier::derive(Hash::Sha256, verifier.salted().clone(), b"pencil");
        assert_eq!(derived.server, verifier.server);
        assert_eq!(format!("{verifier:?}"), "{SCRAM-SHA-256}");
    }

    #[test]
    fn what_is_no_verifier_is_refused() {
        let table = [
            (Hash::Sha1, PENCIL.to_owned()),
            (Hash::Sha256, String::new()),
            (Hash::Sha256, PENCIL.replacen("4096", "4095", 1)),
            (Hash::Sha256, PENCIL.replacen("4096", "0", 1)),
            (Hash::Sha256, PENCIL.replacen("4096", "4294967295", 1)),
            (Hash::Sha256, PENCIL.replacen("4096", "4294967296", 1)),
            (Hash::Sha256, PENCIL.replacen("4096", "-1", 1)),
            (
                Hash::Sha256,
                PENCIL.replacen("W22ZaJ0SNY7soEsUEjb6gQ==", "", 1),
            ),
            (Hash::Sha256, PENCIL.replacen("==", "", 1)),
            (Hash::Sha256, format!("{PENCIL},")),
            (Hash::Sha256, PENCIL.replacen("WG5d8oPm", "", 1)),
        ];
        for (hash, text) in table {
            assert!(Verifier::parse(hash, &text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_proof_of_another_length_proves_nothing() {
        let verifier = Verifier::parse(Hash::Sha256, PENCIL).unwrap();
        for proof in [&b""[..], &[0; 31], &[0; 32], &[0; 33]] {
            assert!(!verifier.proven(b"message", proof));
        }
    }
}
