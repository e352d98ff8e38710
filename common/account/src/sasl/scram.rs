//! SCRAM without channel binding (RFC 5802, RFC 7677), the server's side: pure, the nonce and the
//! keys are given to it.
//!
//! A user whom nobody knows is asked as one who exists; what the client hears is the same until its
//! proof is wrong. No -PLUS is offered, so that a client that binds to the channel is told no.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::verifier::{Hash, Salted, Verifier};

/// Octets of a client's nonce; it comes back in our challenge.
const MAX_NONCE: usize = 512;

/// Who the client says it is, and what its proof is to be checked against.
#[derive(Clone)]
pub enum Credential {
    Verifier(Verifier),
    /// The keys are made when the proof is there: before that, the clock would say who has some.
    Password {
        hash: Hash,
        salted: Salted,
        password: String,
    },
    /// No user, or none who can log in by this mechanism: no proof is right.
    Nobody(Verifier),
}

impl Credential {
    fn salted(&self) -> &Salted {
        match self {
            Self::Verifier(verifier) | Self::Nobody(verifier) => verifier.salted(),
            Self::Password { salted, .. } => salted,
        }
    }

    /// The server's signature, where the proof is right.
    fn check(self, auth_message: &[u8], proof: &[u8]) -> Option<Vec<u8>> {
        let (verifier, exists) = match self {
            Self::Verifier(verifier) => (verifier, true),
            Self::Nobody(verifier) => (verifier, false),
            Self::Password {
                hash,
                salted,
                password,
            } => (Verifier::derive(hash, salted, password.as_bytes()), true),
        };
        let proven = verifier.proven(auth_message, proof);
        (proven && exists).then(|| verifier.signature(auth_message))
    }
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    Form(&'static str),
    /// authzid is not authcid.
    NotYours,
}

impl From<&'static str> for Wrong {
    fn from(what: &'static str) -> Self {
        Self::Form(what)
    }
}

/// `client-first-message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct First {
    pub(super) name: String,
    /// `gs2-header`, which comes back in `c=`.
    header: String,
    bare: String,
    nonce: String,
}

impl First {
    pub(super) fn parse(message: &[u8]) -> Result<Self, Wrong> {
        let message = text(message)?;
        let mut parts = message.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err("no gs2 header".into());
        };
        match flag {
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err("channel binding is not offered".into()),
            _ => return Err("no gs2 header".into()),
        }
        let mut attributes = bare.split(',');
        let mut next = |name: &str| attributes.next().and_then(|a| a.strip_prefix(name));
        let name = saslname(next("n=").ok_or("no user name, or an extension that is not known")?)?;
        let nonce = next("r=").ok_or("no nonce")?;
        let printable = |b: u8| b.is_ascii_graphic(); // a comma cannot be there any more
        if !(1..=MAX_NONCE).contains(&nonce.len()) || !nonce.bytes().all(printable) {
            return Err("a nonce that is none".into());
        }
        extensions(attributes)?;
        if !authzid.is_empty() {
            let authzid = authzid.strip_prefix("a=").ok_or("no gs2 header")?;
            if saslname(authzid)? != name {
                return Err(Wrong::NotYours);
            }
        }
        Ok(Self {
            name,
            header: format!("{flag},{authzid},"),
            bare: bare.into(),
            nonce: nonce.into(),
        })
    }

    /// `server-first-message`, and the state in which its answer is waited for.
    pub(super) fn challenge(self, ours: &str, credential: Credential) -> (Challenged, Vec<u8>) {
        let nonce = format!("{}{ours}", self.nonce);
        let Salted { iterations, salt } = credential.salted();
        let server_first = format!("r={nonce},s={},i={iterations}", STANDARD.encode(salt));
        let message = server_first.clone().into_bytes();
        let challenged = Challenged {
            name: self.name,
            binding: STANDARD.encode(self.header),
            before: format!("{},{server_first}", self.bare),
            nonce,
            credential,
        };
        (challenged, message)
    }
}

/// The client has the salt, and is to prove that it knows the password.
#[derive(Clone)]
pub(super) struct Challenged {
    name: String,
    binding: String,
    /// AuthMessage up to `client-final-message-without-proof`.
    before: String,
    nonce: String,
    credential: Credential,
}

impl Challenged {
    /// Reads `client-final-message`. `Ok(None)` where the proof is wrong; else the name that is
    /// proven and `server-final-message`.
    pub(super) fn finish(self, message: &[u8]) -> Result<Option<(String, Vec<u8>)>, Wrong> {
        let (unproven, proof) = text(message)?.rsplit_once(",p=").ok_or("no proof")?;
        let proof = STANDARD.decode(proof).map_err(|_| "a proof that is none")?;
        let mut attributes = unproven.split(',');
        let mut next = |name: &str| attributes.next().and_then(|a| a.strip_prefix(name));
        if next("c=") != Some(&self.binding) {
            return Err("not the gs2 header of the first message".into());
        }
        if next("r=") != Some(&self.nonce) {
            return Err("not the nonce of this exchange".into());
        }
        extensions(attributes)?;
        let auth_message = format!("{},{unproven}", self.before);
        let signature = self.credential.check(auth_message.as_bytes(), &proof);
        Ok(signature.map(|s| (self.name, format!("v={}", STANDARD.encode(s)).into_bytes())))
    }
}

/// RFC 5802 5.1: what is not known is passed over. `m` has to be understood, and the others that are
/// defined stand in their places only.
fn extensions<'a>(attributes: impl Iterator<Item = &'a str>) -> Result<(), Wrong> {
    for attribute in attributes {
        match attribute.split_once('=') {
            Some((name, value))
                if name.len() == 1
                    && !"aceimnprsv".contains(name)
                    && name.bytes().all(|b| b.is_ascii_alphabetic())
                    && !value.is_empty() => {}
            _ => return Err("an extension that is not known".into()),
        }
    }
    Ok(())
}

/// RFC 5802 5.1: `=2C` is a comma and `=3D` an equals sign. No user here has a name beyond ASCII, so
/// that what SASLprep would have to change is refused.
fn saslname(encoded: &str) -> Result<String, Wrong> {
    let mut parts = encoded.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (decoded, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            (None, None) => return Err("a user name with `=' for itself".into()),
        };
        name.push(decoded);
        name.push_str(rest);
    }
    let plain = |b: u8| b == b' ' || b.is_ascii_graphic();
    match !name.is_empty() && name.bytes().all(plain) {
        true => Ok(name),
        false => Err("a user name that is empty or not plain ASCII".into()),
    }
}

fn text(message: &[u8]) -> Result<&str, Wrong> {
    Ok(std::str::from_utf8(message).map_err(|_| "not UTF-8")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    /// A published exchange: hash, our part of the nonce, salt, then the four messages.
    struct Example {
        hash: Hash,
        ours: &'static str,
        salt: &'static str,
        messages: [&'static str; 4],
    }

    const EXAMPLES: [Example; 2] = [
        // RFC 5802 5
        Example {
            hash: Hash::Sha1,
            ours: "3rfcNHYJY1ZVvWVs7j",
            salt: "QSXCR+Q6sek8bf92",
            messages: [
                "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
                "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ],
        },
        // RFC 7677 3
        Example {
            hash: Hash::Sha256,
            ours: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            salt: "W22ZaJ0SNY7soEsUEjb6gQ==",
            messages: [
                "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
                "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ],
        },
    ];

    fn salted(example: &Example) -> Salted {
        Salted {
            iterations: NonZeroU32::new(4096).unwrap(),
            salt: STANDARD.decode(example.salt).unwrap(),
        }
    }

    fn password(example: &Example, password: &str) -> Credential {
        Credential::Password {
            hash: example.hash,
            salted: salted(example),
            password: password.into(),
        }
    }

    fn verifier(example: &Example) -> Verifier {
        Verifier::derive(example.hash, salted(example), b"pencil")
    }

    fn challenged(example: &Example, credential: Credential) -> (Challenged, Vec<u8>) {
        let first = First::parse(example.messages[0].as_bytes()).unwrap();
        assert_eq!(first.name, "user");
        first.challenge(example.ours, credential)
    }

    #[test]
    fn the_rfcs_examples_byte_for_byte() {
        for example in &EXAMPLES {
            let [_, second, third, fourth] = example.messages;
            for credential in [
                password(example, "pencil"),
                Credential::Verifier(verifier(example)),
            ] {
                let (state, challenge) = challenged(example, credential);
                assert_eq!(challenge, second.as_bytes());
                let (name, last) = state.finish(third.as_bytes()).unwrap().unwrap();
                assert_eq!(
                    (name.as_str(), last.as_slice()),
                    ("user", fourth.as_bytes())
                );
            }
        }
    }

    /// Even the right proof is none of an unknown user's.
    #[test]
    fn a_wrong_password_and_nobody_hear_the_same() {
        for example in &EXAMPLES {
            for credential in [
                password(example, "pencils"),
                Credential::Nobody(verifier(example)),
            ] {
                let (state, challenge) = challenged(example, credential);
                assert_eq!(challenge, example.messages[1].as_bytes());
                assert_eq!(state.finish(example.messages[2].as_bytes()), Ok(None));
            }
        }
    }

    #[test]
    fn first_messages() {
        let form = "form";
        let table: [(&[u8], &str); 31] = [
            (b"n,,n=ann,r=x", "ann n,,"),
            (b"y,,n=ann,r=x", "ann y,,"),
            (b"n,a=ann,n=ann,r=x", "ann n,a=ann,"),
            (b"n,,n=a=2Cb=3Dc,r=x", "a,b=c n,,"),
            (b"n,a=a=2Cb,n=a=2Cb,r=x", "a,b n,a=a=2Cb,"),
            (b"n,,n=ann,r=x,z=more,y=\xc3\xa4", "ann n,,"),
            (b"n,a=bob,n=ann,r=x", "not yours"),
            (b"", form),
            (b"n", form),
            (b"n,", form),
            (b"n,,", form),
            (b"n=ann,r=x", form),
            (b"p=tls-unique,,n=ann,r=x", form),
            (b"p,,n=ann,r=x", form),
            (b"x,,n=ann,r=x", form),
            (b"N,,n=ann,r=x", form),
            (b"n,ann,n=ann,r=x", form),
            (b"n,a=,n=ann,r=x", form),
            (b"n,,m=1,n=ann,r=x", form),
            (b"n,,n=ann,r=x,m=1", form),
            (b"n,,n=ann,r=x,", form),
            (b"n,,n=ann,r=x,zz=1", form),
            (b"n,,n=ann", form),
            (b"n,,r=x,n=ann", form),
            (b"n,,n=,r=x", form),
            (b"n,,n=ann,r=", form),
            (b"n,,n=ann,r=a b", form),
            (b"n,,n=a=2cb,r=x", form),
            (b"n,,n=a\0b,r=x", form),
            (b"n,,n=\xc3\xa4nn,r=x", form),
            (b"n,,n=\xff,r=x", form),
        ];
        for (message, want) in table {
            let got = match First::parse(message) {
                Ok(first) => format!("{} {}", first.name, first.header),
                Err(Wrong::NotYours) => "not yours".into(),
                Err(Wrong::Form(_)) => form.into(),
            };
            assert_eq!(got, want, "{}", message.escape_ascii());
        }
        let long = format!("n,,n=ann,r={}", "x".repeat(MAX_NONCE + 1));
        assert!(First::parse(long.as_bytes()).is_err());
    }

    #[test]
    fn final_messages() {
        let example = &EXAMPLES[0];
        let good = example.messages[2];
        let table = [
            (good.to_owned(), true),
            (good.replace("c=biws", "c=eSws"), false),
            (good.replace("c=biws,", ""), false),
            (good.replace("7j,p=", "7k,p="), false),
            (good.replace("3rfcNHYJY1ZVvWVs7j,", ","), false),
            (good.replace(",p=", ",q="), false),
            (good.replace("4Ts=", "4Ts"), false),
            (good.replace(",p=", ",m=1,p="), false),
            (format!("{good},p="), false),
            (format!("{good},z=1"), false),
            (String::new(), false),
        ];
        for (message, understood) in table {
            let (state, _) = challenged(example, password(example, "pencil"));
            let got = state.finish(message.as_bytes());
            assert_eq!(got.is_ok(), understood, "{message}");
        }
        // Understood, and wrong: another proof, an extension that was not proven with.
        for message in [
            good.replace("v0X8", "v0X9"),
            good.replace(",p=", ",z=1,p="),
            good.replace("v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", ""),
        ] {
            let (state, _) = challenged(example, password(example, "pencil"));
            assert_eq!(state.finish(message.as_bytes()), Ok(None), "{message}");
        }
    }
}
