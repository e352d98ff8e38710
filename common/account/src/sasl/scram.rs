//! SCRAM and SCRAM-PLUS (RFC 5802, RFC 7677), the server's side: pure, the nonce, the keys and what
//! there is to bind to are given to it.
//!
//! A user whom nobody knows is asked as one who exists; what the client hears is the same until its
//! proof is wrong. Who proves the password and is bound to another channel than ours has somebody
//! in between, and so has who believes that we announce no -PLUS where we do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::prep;
use crate::channel::Channel;
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
            } => (
                Verifier::derive(hash, salted, prep::prepare_or_keep(&password).as_bytes()),
                true,
            ),
        };
        let proven = verifier.proven(auth_message, proof);
        (proven && exists).then(|| verifier.signature(auth_message))
    }
}

/// What the mechanism says of channel binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// -PLUS: the client has to name one of these.
    Wanted(Channel),
    /// The plain mechanism, beside -PLUS or not.
    None { announced: bool },
}

impl Binding {
    /// RFC 5802 6, by `gs2-cbind-flag`: the data that the client is to be bound to.
    fn data(&self, flag: &str) -> Result<Vec<u8>, Wrong> {
        match (self, flag, flag.strip_prefix("p=")) {
            (Self::Wanted(channel), _, Some(name)) => match channel.binding(name) {
                Some(data) => Ok(data.to_vec()),
                None => Err("a channel binding that is not supported here".into()),
            },
            (Self::Wanted(_), "n" | "y", _) => Err("-PLUS without channel binding".into()),
            (Self::None { .. }, _, Some(_)) => Err("channel binding without -PLUS".into()),
            (Self::None { announced: true }, "y", _) => Err(Wrong::Tampered(
                "the client was not told that channel binding is offered",
            )),
            (Self::None { .. }, "n" | "y", _) => Ok(Vec::new()),
            _ => Err("no gs2 header".into()),
        }
    }
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    Form(&'static str),
    /// authzid is not authcid.
    NotYours,
    /// Somebody stands in between.
    Tampered(&'static str),
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
    /// `cbind-input`, which comes back in `c=`: `gs2-header` and, behind it, the channel's data.
    header: String,
    data: Vec<u8>,
    bare: String,
    nonce: String,
}

impl First {
    pub(super) fn parse(message: &[u8], binding: &Binding) -> Result<Self, Wrong> {
        let message = text(message)?;
        let mut parts = message.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err("no gs2 header".into());
        };
        let data = binding.data(flag)?;
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
            data,
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
            header: self.header.into_bytes(),
            data: self.data,
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
    header: Vec<u8>,
    data: Vec<u8>,
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
        let input = next("c=").and_then(|c| STANDARD.decode(c).ok());
        let input = input.ok_or("no channel binding in base64")?;
        let data = input.strip_prefix(self.header.as_slice());
        let data = data.ok_or("not the gs2 header of the first message")?;
        if next("r=") != Some(&self.nonce) {
            return Err("not the nonce of this exchange".into());
        }
        extensions(attributes)?;
        let auth_message = format!("{},{unproven}", self.before);
        let Some(signature) = self.credential.check(auth_message.as_bytes(), &proof) else {
            return Ok(None);
        };
        match data == self.data {
            true => Ok(Some((
                self.name,
                format!("v={}", STANDARD.encode(signature)).into_bytes(),
            ))),
            // Only who knows the password can say so; anybody else is refused above.
            false => Err(Wrong::Tampered("the client is bound to another channel")),
        }
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

/// RFC 5802 5.1: `=2C` is a comma and `=3D` an equals sign; the rest in the form of SASLprep.
pub(super) fn saslname(encoded: &str) -> Result<String, Wrong> {
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
    match prep::prepare(&name) {
        Some(name) if !name.is_empty() => Ok(name.into_owned()),
        _ => Err("a user name that is empty or none by SASLprep".into()),
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

    const UNBOUND: Binding = Binding::None { announced: false };

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
        let first = First::parse(example.messages[0].as_bytes(), &UNBOUND).unwrap();
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
        let table: [(&[u8], &str); 34] = [
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
            (b"n,,n=\xc3\xa4nn,r=x", "\u{e4}nn n,,"),
            (b"n,a=ann,n=\xef\xbd\x81nn,r=x", "ann n,a=ann,"),
            (b"n,,n=\xc2\xad,r=x", form),
            (b"n,,n=\x07,r=x", form),
            (b"n,,n=\xff,r=x", form),
        ];
        for (message, want) in table {
            let got = match First::parse(message, &UNBOUND) {
                Ok(first) => format!("{} {}", first.name, first.header),
                Err(Wrong::NotYours) => "not yours".into(),
                Err(Wrong::Tampered(_)) => "tampered".into(),
                Err(Wrong::Form(_)) => form.into(),
            };
            assert_eq!(got, want, "{}", message.escape_ascii());
        }
        let long = format!("n,,n=ann,r={}", "x".repeat(MAX_NONCE + 1));
        assert!(First::parse(long.as_bytes(), &UNBOUND).is_err());
    }

    fn channel() -> Channel {
        Channel {
            exporter: Some([7; 32]),
            end_point: Some(b"hash of a certificate".to_vec()),
            certificate: None,
        }
    }

    /// RFC 5802 6, all that a client may say of binding.
    #[test]
    fn who_may_be_bound_to_what() {
        let wanted = Binding::Wanted(channel());
        let exporter_only = Binding::Wanted(Channel {
            end_point: None,
            ..channel()
        });
        let beside = Binding::None { announced: true };
        let (form, tampered) = ("form", "tampered");
        let table = [
            (&wanted, "p=tls-exporter", "\u{7}".repeat(32)),
            (
                &wanted,
                "p=tls-server-end-point",
                "hash of a certificate".into(),
            ),
            (&exporter_only, "p=tls-server-end-point", form.into()),
            (&wanted, "p=tls-unique", form.into()),
            (&wanted, "p=", form.into()),
            (&wanted, "p=TLS-EXPORTER", form.into()),
            (&wanted, "n", form.into()),
            (&wanted, "y", form.into()),
            (&beside, "n", String::new()),
            (&beside, "y", tampered.into()),
            (&beside, "p=tls-exporter", form.into()),
            (&UNBOUND, "y", String::new()),
            (&UNBOUND, "p=tls-exporter", form.into()),
            (&UNBOUND, "", form.into()),
        ];
        for (binding, flag, want) in table {
            let message = format!("{flag},,n=ann,r=x");
            let got = match First::parse(message.as_bytes(), binding) {
                Ok(first) => String::from_utf8(first.data).unwrap(),
                Err(Wrong::Tampered(_)) => tampered.into(),
                Err(Wrong::Form(_) | Wrong::NotYours) => form.into(),
            };
            assert_eq!(got, want, "{flag} {binding:?}");
        }
    }

    /// RFC 5802 3, the client's side.
    fn client_final(example: &Example, bare: &str, server_first: &str, cbind: &[u8]) -> String {
        let (hash, salted) = (example.hash, salted(example));
        let nonce = server_first.get(2..).unwrap().split(',').next().unwrap();
        let unproven = format!("c={},r={nonce}", STANDARD.encode(cbind));
        let key = hash.hmac(&hash.stretch(b"pencil", &salted), b"Client Key");
        let message = format!("{bare},{server_first},{unproven}");
        let signature = hash.hmac(&hash.digest(&key), message.as_bytes());
        let proof: Vec<u8> = key.iter().zip(signature).map(|(k, s)| k ^ s).collect();
        format!("{unproven},p={}", STANDARD.encode(proof))
    }

    #[test]
    fn a_login_holds_on_the_channel_it_is_bound_to_and_on_no_other() {
        let header = b"p=tls-exporter,,";
        let cbind = |data: &[u8]| [header, data].concat();
        for example in &EXAMPLES {
            let bare = "n=user,r=fyko";
            let said = |cbind: &[u8], credential: Credential| {
                let message = format!("p=tls-exporter,,{bare}");
                let wanted = Binding::Wanted(channel());
                let first = First::parse(message.as_bytes(), &wanted).unwrap();
                let (state, server_first) = first.challenge(example.ours, credential);
                let server_first = String::from_utf8(server_first).unwrap();
                let last = client_final(example, bare, &server_first, cbind);
                state.finish(last.as_bytes())
            };
            let good = || password(example, "pencil");
            let (name, _) = said(&cbind(&[7; 32]), good()).unwrap().unwrap();
            assert_eq!(name, "user");
            for other in [&[8; 32][..], b"", &[7; 31], &[7; 33]] {
                let tampered = said(&cbind(other), good());
                assert!(matches!(tampered, Err(Wrong::Tampered(_))), "{other:?}");
                // Who does not know the password hears the same as ever.
                let unknown = said(&cbind(other), password(example, "pencils"));
                assert_eq!(unknown, Ok(None));
            }
            assert!(matches!(said(b"n,,", good()), Err(Wrong::Form(_))));
        }
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
