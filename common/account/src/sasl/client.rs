//! SASL (RFC 4422) as its client: who we are, to a host that takes our mail. A pure state machine
//! over octets; the protocol around it puts them into base64.
//!
//! SCRAM is believed only with the server's own signature: a server that says yes without it has not
//! shown that it knows the password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use subtle::ConstantTimeEq as _;

use super::{Mechanism, prep};
use crate::verifier::{Hash, Salted};

/// A server that wants more rounds wants our time.
const MAX_ITERATIONS: u32 = 200_000;
/// Octets of a challenge.
const MAX_CHALLENGE: usize = 8192;

/// Who we are, and how we can show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub secret: Secret,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Password(String),
    /// OAuth's.
    Token(String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login {{ user: {:?} }}", self.user)
    }
}

impl Login {
    /// The best of what a server offers, that what we have is good for. What gives the secret away
    /// comes last.
    pub fn mechanism<'a>(&self, offered: impl Iterator<Item = &'a str>) -> Option<Mechanism> {
        let ours: &[Mechanism] = match self.secret {
            Secret::Password(_) => &[
                Mechanism::ScramSha256,
                Mechanism::ScramSha1,
                Mechanism::CramMd5,
                Mechanism::Plain,
                Mechanism::Login,
            ],
            Secret::Token(_) => &[Mechanism::OAuthBearer, Mechanism::XOAuth2],
        };
        let known: Vec<Mechanism> = offered.filter_map(Mechanism::parse).collect();
        ours.iter()
            .copied()
            .find(|mechanism| known.contains(mechanism))
    }
}

/// Why an exchange cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// One login, from our first words to the server's last.
pub struct Exchange {
    state: State,
    user: String,
}

enum State {
    /// A password or a token that needs no challenge, and is not said yet.
    First(Vec<u8>),
    /// LOGIN asks for the name, then for the password.
    LoginName(String),
    LoginPassword(String),
    Cram(String),
    ScramFirst(Scram),
    ScramChallenged(Scram),
    /// What the server is to sign.
    ScramProven(Vec<u8>),
    /// All is said; more of the server can only be why it says no, answered with this.
    Said(&'static [u8]),
}

struct Scram {
    hash: Hash,
    password: String,
    nonce: String,
    bare: String,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exchange {{ user: {:?} }}", self.user)
    }
}

impl Exchange {
    /// With a mechanism that [`Login::mechanism`] gave. `nonce` is random and printable; host and port
    /// are the server's, for OAUTHBEARER.
    pub fn new(
        mechanism: Mechanism,
        login: &Login,
        nonce: &str,
        (host, port): (&str, u16),
    ) -> Result<Self, Broken> {
        let user = prep::prepare_or_keep(&login.user).into_owned();
        // They divide the parts of what we say.
        let is_sound = |text: &str| !text.is_empty() && !text.contains(['\0', '\u{1}']);
        let secret = match &login.secret {
            Secret::Password(password) => prep::prepare_or_keep(password).into_owned(),
            Secret::Token(token) => token.clone(),
        };
        if !is_sound(&user) || !is_sound(&secret) {
            return Err(Broken(
                "user name or secret is empty, or has control characters",
            ));
        }
        let state = match (mechanism, &login.secret) {
            (Mechanism::Plain, Secret::Password(_)) => {
                State::First(format!("\0{user}\0{secret}").into_bytes())
            }
            (Mechanism::Login, Secret::Password(_)) => State::LoginName(secret),
            (Mechanism::CramMd5, Secret::Password(_)) => State::Cram(secret),
            (Mechanism::ScramSha256 | Mechanism::ScramSha1, Secret::Password(_)) => {
                State::ScramFirst(Scram {
                    hash: match mechanism {
                        Mechanism::ScramSha1 => Hash::Sha1,
                        _ => Hash::Sha256,
                    },
                    password: secret,
                    nonce: nonce.into(),
                    bare: format!("n={},r={nonce}", saslname(&user)),
                })
            }
            (Mechanism::OAuthBearer, Secret::Token(_)) => State::First(
                format!(
                    "n,a={},\u{1}host={host}\u{1}port={port}\u{1}auth=Bearer {secret}\u{1}\u{1}",
                    saslname(&user)
                )
                .into_bytes(),
            ),
            (Mechanism::XOAuth2, Secret::Token(_)) => {
                State::First(format!("user={user}\u{1}auth=Bearer {secret}\u{1}\u{1}").into_bytes())
            }
            _ => return Err(Broken("a mechanism that is not for what we have")),
        };
        Ok(Self { state, user })
    }

    /// How many octets [`Exchange::initial`] has; `None` where the server speaks first.
    pub(crate) fn first_length(&self) -> Option<usize> {
        match &self.state {
            State::First(message) => Some(message.len()),
            State::ScramFirst(scram) => Some("n,,".len() + scram.bare.len()),
            _ => None,
        }
    }

    /// What can be said before the server asks: RFC 4422 3.3.
    pub fn initial(&mut self) -> Option<Vec<u8>> {
        match std::mem::replace(&mut self.state, State::Said(b"")) {
            State::First(message) => {
                // RFC 7628 3.2.3 has this for an error; XOAUTH2 takes it too.
                if message.starts_with(b"n,") {
                    self.state = State::Said(b"\x01");
                }
                Some(message)
            }
            State::ScramFirst(scram) => {
                let message = format!("n,,{}", scram.bare).into_bytes();
                self.state = State::ScramChallenged(scram);
                Some(message)
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// The answer to a challenge.
    pub fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, Broken> {
        if challenge.len() > MAX_CHALLENGE {
            return Err(Broken("a challenge without end"));
        }
        // Where the first words were not said with the command, the challenge is empty.
        if let Some(first) = self.initial() {
            return Ok(first);
        }
        let (state, answer) = match std::mem::replace(&mut self.state, State::Said(b"")) {
            State::LoginName(password) => (
                State::LoginPassword(password),
                self.user.clone().into_bytes(),
            ),
            State::LoginPassword(password) => (State::Said(b""), password.into_bytes()),
            State::Cram(secret) => {
                let digest = cram(&secret, challenge)?;
                (
                    State::Said(b""),
                    format!("{} {digest}", self.user).into_bytes(),
                )
            }
            State::ScramChallenged(scram) => scram.prove(challenge)?,
            State::ScramProven(signature) => {
                let said = challenge
                    .strip_prefix(b"v=")
                    .ok_or(Broken("no signature of SCRAM"))?;
                let said = STANDARD
                    .decode(said)
                    .map_err(|_| Broken("no signature of SCRAM"))?;
                if !bool::from(said.ct_eq(&signature)) {
                    return Err(Broken("it does not know our password itself"));
                }
                (State::Said(b""), Vec::new())
            }
            State::Said(answer) => (State::Said(answer), answer.to_vec()),
            // Taken out above.
            State::First(_) | State::ScramFirst(_) => return Err(Broken("out of order")),
        };
        self.state = state;
        Ok(answer)
    }

    /// Whether a yes of the server may be believed.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Said(_))
    }
}

impl Scram {
    /// RFC 5802 3 and 5.1, without channel binding.
    fn prove(self, challenge: &[u8]) -> Result<(State, Vec<u8>), Broken> {
        let first = std::str::from_utf8(challenge).map_err(|_| Broken("no challenge of SCRAM"))?;
        let mut attributes = first.split(',');
        let mut next = |name: &str| attributes.next().and_then(|a| a.strip_prefix(name));
        let nonce = next("r=").ok_or(Broken("no challenge of SCRAM"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(Broken("a nonce that is not ours"));
        }
        let salt = next("s=").and_then(|salt| STANDARD.decode(salt).ok());
        let salt = salt
            .filter(|salt| !salt.is_empty())
            .ok_or(Broken("no salt"))?;
        let iterations = next("i=").and_then(|i| i.parse().ok());
        let iterations: std::num::NonZeroU32 = iterations.ok_or(Broken("no iteration count"))?;
        if iterations.get() > MAX_ITERATIONS {
            return Err(Broken("more iterations than we take"));
        }
        let salted = Salted { iterations, salt };
        let salted = self.hash.stretch(self.password.as_bytes(), &salted);
        let unproven = format!("c=biws,r={nonce}");
        let message = format!("{},{first},{unproven}", self.bare);
        let client = self.hash.hmac(&salted, b"Client Key");
        let signature = self
            .hash
            .hmac(&self.hash.digest(&client), message.as_bytes());
        let proof: Vec<u8> = client.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let server = self.hash.hmac(&salted, b"Server Key");
        let expected = self.hash.hmac(&server, message.as_bytes());
        let answer = format!("{unproven},p={}", STANDARD.encode(proof));
        Ok((State::ScramProven(expected), answer.into_bytes()))
    }
}

/// RFC 2195 2.
fn cram(secret: &str, challenge: &[u8]) -> Result<String, Broken> {
    let mac = Hmac::<Md5>::new_from_slice(secret.as_bytes());
    let mac = mac.map_err(|_| Broken("a secret that is no key"))?;
    let mac = mac.chain_update(challenge).finalize().into_bytes();
    Ok(mac.iter().map(|b| format!("{b:02x}")).collect())
}

/// RFC 5802 5.1
fn saslname(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, secret: &str) -> Login {
        Login {
            user: user.into(),
            secret: Secret::Password(secret.into()),
        }
    }

    fn token() -> Login {
        Login {
            user: "ann@example.org".into(),
            secret: Secret::Token("vF9dft4qmT".into()),
        }
    }

    const HOST: (&str, u16) = ("server.example.com", 587);

    fn begin(mechanism: Mechanism, login: &Login, nonce: &str) -> Exchange {
        Exchange::new(mechanism, login, nonce, HOST).unwrap()
    }

    #[test]
    fn the_strongest_that_is_offered() {
        let table = [
            (
                "PLAIN LOGIN SCRAM-SHA-256 CRAM-MD5",
                Some(Mechanism::ScramSha256),
            ),
            (
                "login plain scram-sha-1 scram-sha-256-plus",
                Some(Mechanism::ScramSha1),
            ),
            ("LOGIN PLAIN CRAM-MD5 XOAUTH2", Some(Mechanism::CramMd5)),
            ("LOGIN PLAIN", Some(Mechanism::Plain)),
            ("NTLM LOGIN", Some(Mechanism::Login)),
            ("NTLM GSSAPI EXTERNAL XOAUTH2 SCRAM-SHA-256-PLUS", None),
            ("", None),
        ];
        for (offered, want) in table {
            let ours = password("ann", "x").mechanism(offered.split(' '));
            assert_eq!(ours, want, "{offered}");
        }
        let best = |offered: &str| token().mechanism(offered.split(' '));
        assert_eq!(
            best("PLAIN XOAUTH2 OAUTHBEARER"),
            Some(Mechanism::OAuthBearer)
        );
        assert_eq!(best("PLAIN XOAUTH2"), Some(Mechanism::XOAuth2));
        assert_eq!(best("PLAIN LOGIN"), None);
    }

    /// RFC 4616 4, RFC 2195 2, RFC 7628 4.1.
    #[test]
    fn what_is_said_without_scram() {
        let tim = password("tim", "tanstaaftanstaaf");
        let mut plain = begin(Mechanism::Plain, &tim, "");
        assert_eq!(plain.initial().unwrap(), b"\0tim\0tanstaaftanstaaf");
        assert!(plain.is_complete());
        let mut late = begin(Mechanism::Plain, &tim, "");
        assert_eq!(late.answer(b"").unwrap(), b"\0tim\0tanstaaftanstaaf");

        let mut login = begin(Mechanism::Login, &tim, "");
        assert_eq!(login.initial(), None);
        assert_eq!(login.answer(b"Username:").unwrap(), b"tim");
        assert!(!login.is_complete());
        assert_eq!(login.answer(b"whatever").unwrap(), b"tanstaaftanstaaf");
        assert!(login.is_complete());

        let mut cram = begin(Mechanism::CramMd5, &tim, "");
        assert_eq!(cram.initial(), None);
        let answer = cram
            .answer(b"<1896.697170952@postoffice.reston.mci.net>")
            .unwrap();
        assert_eq!(answer, b"tim b913a602c7eda7a495b4e6e7334d3890");

        let mut bearer = begin(Mechanism::OAuthBearer, &token(), "");
        assert_eq!(
            bearer.initial().unwrap(),
            b"n,a=ann@example.org,\x01host=server.example.com\x01port=587\x01auth=Bearer vF9dft4qmT\x01\x01"
        );
        assert_eq!(
            bearer.answer(b"{\"status\":\"invalid_token\"}").unwrap(),
            b"\x01"
        );
        let mut old = begin(Mechanism::XOAuth2, &token(), "");
        assert_eq!(
            old.initial().unwrap(),
            b"user=ann@example.org\x01auth=Bearer vF9dft4qmT\x01\x01"
        );
        assert_eq!(old.answer(b"{\"status\":\"400\"}").unwrap(), b"");
    }

    /// RFC 5802 5 and RFC 7677 3.
    #[test]
    fn scram_as_the_rfcs_show_it() {
        for (mechanism, nonce, server_first, last, server_last) in [
            (
                Mechanism::ScramSha1,
                "fyko+d2lbbFgONRv9qkxdawL",
                "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
            (
                Mechanism::ScramSha256,
                "rOprNGfwEbeRWgbNEkqO",
                "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
        ] {
            let user = password("user", "pencil");
            let mut exchange = begin(mechanism, &user, nonce);
            let first = exchange.initial().unwrap();
            assert_eq!(first, format!("n,,n=user,r={nonce}").into_bytes());
            let answer = exchange.answer(server_first.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(answer).unwrap(), last);
            assert!(!exchange.is_complete(), "it has shown nothing yet");
            assert_eq!(exchange.answer(server_last.as_bytes()).unwrap(), b"");
            assert!(exchange.is_complete());
            // Who does not know the password.
            let mut other = begin(mechanism, &password("user", "pen"), nonce);
            other.initial();
            other.answer(server_first.as_bytes()).unwrap();
            assert!(other.answer(server_last.as_bytes()).is_err());
        }
    }

    #[test]
    fn what_is_no_challenge_of_scram() {
        let table = [
            "",
            "r=other,s=QSXCR+Q6sek8bf92,i=4096",
            "r=abc,s=QSXCR+Q6sek8bf92,i=4096",
            "r=abcd,s=,i=4096",
            "r=abcd,s=%,i=4096",
            "r=abcd,s=QSXCR+Q6sek8bf92,i=0",
            "r=abcd,s=QSXCR+Q6sek8bf92,i=100000000",
            "r=abcd,s=QSXCR+Q6sek8bf92",
            "m=x,r=abcd,s=QSXCR+Q6sek8bf92,i=4096",
        ];
        for challenge in table {
            let mut exchange = begin(Mechanism::ScramSha256, &password("a=b,c", "x"), "abc");
            assert_eq!(exchange.initial().unwrap(), b"n,,n=a=3Db=2Cc,r=abc");
            assert!(
                exchange.answer(challenge.as_bytes()).is_err(),
                "{challenge}"
            );
        }
        let mut exchange = begin(Mechanism::ScramSha256, &password("a", "x"), "abc");
        exchange.initial();
        assert!(exchange.answer(b"\xff").is_err());
        let mut long = begin(Mechanism::CramMd5, &password("a", "x"), "");
        assert!(long.answer(&[b'x'; MAX_CHALLENGE + 1]).is_err());
    }

    #[test]
    fn what_cannot_be_said() {
        for login in [password("", "x"), password("a", ""), password("a\0b", "x")] {
            assert!(Exchange::new(Mechanism::Plain, &login, "", HOST).is_err());
        }
        let mixed = Exchange::new(Mechanism::Plain, &token(), "", HOST);
        assert!(mixed.is_err());
        assert!(!format!("{:?}", password("ann", "s3cret")).contains("s3cret"));
    }
}
