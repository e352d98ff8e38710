//! The SASL exchanges as pure machines: SCRAM and SCRAM-PLUS (RFC 5802), CRAM-MD5 (RFC 2195), PLAIN
//! (RFC 4616), LOGIN, OAUTHBEARER (RFC 7628), XOAUTH2 and EXTERNAL (RFC 4422 A). What they give is a
//! claim; whether it holds is [`crate::server`]'s work.
//!
//! Randomness and the users' keys come from outside: [`Nonce`], [`Exchange::credential`].

pub mod client;
pub mod cram;
mod mechanism;
mod oauth;
pub mod prep;
pub mod scram;

use base::{Fail, Sysexit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::channel::Channel;
use crate::verifier::Hash;
pub use mechanism::Mechanism;
use scram::{Challenged, Credential, First, Wrong};

/// Octets of one response: what a line of 12288 octets holds in base64 (RFC 4954 4). Names and
/// passwords are short, tokens are not.
pub const MAX_RESPONSE: usize = 9216;

/// What a client claims.
#[derive(Clone, PartialEq, Eq)]
pub struct Claim {
    pub name: String,
    pub password: Vec<u8>,
}

/// Characters that nobody foresees, of base64's.
#[derive(Debug, Clone)]
pub struct Nonce(String);

impl Nonce {
    /// 144 bits from the operating system.
    pub fn new() -> Result<Self, Fail> {
        let mut bytes = [0; 18];
        getrandom::fill(&mut bytes)
            .map_err(|e| Fail::new(Sysexit::OsErr, format!("get random bytes: {e}")))?;
        Ok(Self(STANDARD.encode(bytes)))
    }
}

/// How an exchange goes on.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    Challenge(Vec<u8>),
    Claim(Claim),
    /// CRAM-MD5's claim.
    Digest(cram::Response),
    /// A token, and whose it is said to be. Where it is no good [`Exchange::denied`] goes on.
    Token {
        name: Option<String>,
        token: String,
    },
    /// Whoever the client's certificate says; the client may say whom it expects.
    Certificate {
        name: Option<String>,
    },
    /// What SCRAM has to know of this user: [`Exchange::credential`] goes on.
    Wants {
        name: String,
        hash: Hash,
    },
    /// This user's password is known to the client.
    Proven {
        name: String,
    },
    /// The proof is wrong.
    Refused,
    /// Somebody stands between us and the client: it heard, or is bound to, something else.
    Tampered(&'static str),
    /// The client does not speak the mechanism.
    Malformed(&'static str),
    /// authzid is not authcid: nobody acts for another.
    NotYours,
}

/// One exchange. Each state owns what only it has.
#[derive(Clone)]
pub struct Exchange(State);

#[derive(Clone)]
enum State {
    External,
    Plain,
    Bearer {
        mechanism: Mechanism,
    },
    /// A token is looked at.
    BearerAsked {
        why_not: &'static [u8],
    },
    /// The client was told why it is refused, and has nothing to say to it.
    BearerDenied,
    LoginName,
    LoginPassword {
        name: String,
    },
    Cram {
        challenge: String,
    },
    Scram {
        hash: Hash,
        nonce: Nonce,
        binding: scram::Binding,
    },
    ScramWants {
        first: First,
        nonce: Nonce,
    },
    ScramChallenged(Box<Challenged>),
    /// The client has our signature, and has nothing to say to it.
    ScramProven {
        name: String,
    },
    Done,
}

impl Exchange {
    /// The first step; `initial` is the client's initial response, where it sent one. `nonce` is for
    /// this exchange alone, `channel` is the connection that it goes by.
    pub fn begin(
        mechanism: Mechanism,
        channel: Channel,
        initial: Option<&[u8]>,
        nonce: Nonce,
    ) -> (Self, Step) {
        let (state, greeting) = match mechanism {
            Mechanism::External => (State::External, String::new()),
            Mechanism::Plain => (State::Plain, String::new()),
            Mechanism::OAuthBearer | Mechanism::XOAuth2 => {
                (State::Bearer { mechanism }, String::new())
            }
            Mechanism::Login => (State::LoginName, "Username:".into()),
            Mechanism::CramMd5 => {
                let challenge = cram::challenge(&nonce.0);
                let state = State::Cram {
                    challenge: challenge.clone(),
                };
                (state, challenge)
            }
            Mechanism::ScramSha1Plus => (bound(Hash::Sha1, nonce, channel), String::new()),
            Mechanism::ScramSha256Plus => (bound(Hash::Sha256, nonce, channel), String::new()),
            Mechanism::ScramSha1 => (unbound(Hash::Sha1, nonce, &channel), String::new()),
            Mechanism::ScramSha256 => (unbound(Hash::Sha256, nonce, &channel), String::new()),
        };
        let mut exchange = Self(state);
        let step = match (mechanism, initial) {
            (_, None) => Step::Challenge(greeting.into_bytes()),
            (Mechanism::CramMd5, Some(_)) => {
                exchange.0 = State::Done;
                Step::Malformed("CRAM-MD5 has no initial response")
            }
            (_, Some(response)) => exchange.step(response),
        };
        (exchange, step)
    }

    /// The client's next response.
    pub fn step(&mut self, response: &[u8]) -> Step {
        let state = std::mem::replace(&mut self.0, State::Done);
        if response.len() > MAX_RESPONSE {
            return Step::Malformed("response too long");
        }
        match state {
            State::External => external(response),
            State::Plain => plain(response),
            State::Bearer { mechanism } => self.bearer(mechanism, response),
            State::BearerDenied => Step::Refused,
            State::LoginName => match text(response) {
                Some(name) => {
                    self.0 = State::LoginPassword { name };
                    Step::Challenge(b"Password:".to_vec())
                }
                None => Step::Malformed("user name is not UTF-8"),
            },
            State::LoginPassword { name } if response.contains(&0) || name.is_empty() => {
                Step::Malformed("empty user name or NUL in the password")
            }
            State::LoginPassword { name } => Step::Claim(Claim {
                name,
                password: response.to_vec(),
            }),
            State::Cram { challenge } => match cram::response(challenge, response) {
                Ok(response) => Step::Digest(response),
                Err(what) => Step::Malformed(what),
            },
            State::Scram {
                hash,
                nonce,
                binding,
            } => match First::parse(response, &binding) {
                Ok(first) => {
                    let name = first.name.clone();
                    self.0 = State::ScramWants { first, nonce };
                    Step::Wants { name, hash }
                }
                Err(wrong) => wrong.into(),
            },
            State::ScramChallenged(challenged) => match challenged.finish(response) {
                Ok(Some((name, last))) => {
                    self.0 = State::ScramProven { name };
                    Step::Challenge(last)
                }
                Ok(None) => Step::Refused,
                Err(wrong) => wrong.into(),
            },
            State::ScramProven { name } if response.is_empty() => Step::Proven { name },
            State::ScramProven { .. } => Step::Malformed("nothing is to be said here"),
            State::BearerAsked { .. } | State::ScramWants { .. } | State::Done => {
                Step::Malformed("the exchange is over")
            }
        }
    }

    fn bearer(&mut self, mechanism: Mechanism, response: &[u8]) -> Step {
        let (claim, why_not) = match mechanism {
            Mechanism::XOAuth2 => (oauth::xoauth2(response), oauth::BAD_XOAUTH2),
            _ => (oauth::bearer(response), oauth::BAD_TOKEN),
        };
        match claim {
            Ok(oauth::Bearer { name, token }) => {
                self.0 = State::BearerAsked { why_not };
                Step::Token { name, token }
            }
            Err(what) => Step::Malformed(what),
        }
    }

    /// The answer to [`Step::Token`] where it is no: RFC 7628 3.2.3, the client hears why before it
    /// is refused.
    pub fn denied(&mut self) -> Step {
        match std::mem::replace(&mut self.0, State::BearerDenied) {
            State::BearerAsked { why_not } => Step::Challenge(why_not.to_vec()),
            _ => {
                self.0 = State::Done;
                Step::Malformed("nobody asked")
            }
        }
    }

    /// The answer to [`Step::Wants`].
    pub fn credential(&mut self, credential: Credential) -> Step {
        match std::mem::replace(&mut self.0, State::Done) {
            State::ScramWants { first, nonce } => {
                let (challenged, message) = first.challenge(&nonce.0, credential);
                self.0 = State::ScramChallenged(Box::new(challenged));
                Step::Challenge(message)
            }
            _ => Step::Malformed("nobody asked"),
        }
    }
}

fn bound(hash: Hash, nonce: Nonce, channel: Channel) -> State {
    let binding = scram::Binding::Wanted(channel);
    State::Scram {
        hash,
        nonce,
        binding,
    }
}

fn unbound(hash: Hash, nonce: Nonce, channel: &Channel) -> State {
    let announced = channel.binds();
    let binding = scram::Binding::None { announced };
    State::Scram {
        hash,
        nonce,
        binding,
    }
}

impl From<Wrong> for Step {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Form(what) => Self::Malformed(what),
            Wrong::NotYours => Self::NotYours,
            Wrong::Tampered(what) => Self::Tampered(what),
        }
    }
}

/// RFC 4422 A.1: who the client wants to be, or nothing.
fn external(message: &[u8]) -> Step {
    match text(message) {
        Some(name) if name.contains('\0') => Step::Malformed("NUL in the user name"),
        Some(name) => Step::Certificate {
            name: (!name.is_empty()).then_some(name),
        },
        None => Step::Malformed("user name is not UTF-8"),
    }
}

/// RFC 4616 2: `message = [authzid] UTF8NUL authcid UTF8NUL passwd`
fn plain(message: &[u8]) -> Step {
    let parts: Vec<&[u8]> = message.split(|b| *b == 0).collect();
    let [authzid, authcid, password] = parts[..] else {
        return Step::Malformed("PLAIN is authzid NUL authcid NUL password");
    };
    let (Some(authzid), Some(name)) = (text(authzid), text(authcid)) else {
        return Step::Malformed("user name is not UTF-8");
    };
    if name.is_empty() || password.is_empty() {
        Step::Malformed("empty user name or password")
    } else if !authzid.is_empty() && authzid != name {
        Step::NotYours
    } else {
        Step::Claim(Claim {
            name,
            password: password.to_vec(),
        })
    }
}

/// A name, in the form of SASLprep where it has one.
fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(prep::prepare_or_keep(text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::verifier::{Salted, Verifier};

    fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> (Exchange, Step) {
        Exchange::begin(mechanism, Channel::default(), initial, Nonce("ours".into()))
    }

    fn shown(step: &Step) -> String {
        match step {
            Step::Challenge(c) => format!("? {}", String::from_utf8_lossy(c)),
            Step::Claim(c) => format!("{} {}", c.name, String::from_utf8_lossy(&c.password)),
            Step::Malformed(_) => "bad".into(),
            Step::Token { name, token } => format!("{name:?} has {token}"),
            Step::Certificate { name } => format!("{name:?} by certificate"),
            Step::NotYours => "not yours".into(),
            Step::Digest(d) => format!("{} {}", d.name, d.digest),
            Step::Wants { name, hash } => format!("{name} by {hash:?}?"),
            Step::Proven { name } => format!("{name} it is"),
            Step::Refused => "no".into(),
            Step::Tampered(_) => "tampered".into(),
        }
    }

    #[test]
    fn plain_in_one_message() {
        // RFC 4616 4's own examples, and what is none.
        let table: [(&[u8], &str); 10] = [
            (b"\0tim\0tanstaaftanstaaf", "tim tanstaaftanstaaf"),
            (b"Ursel\0Kurt\0xipj3plmq", "not yours"),
            (b"tim\0tim\0secret", "tim secret"),
            ("tim\0\u{ff54}im\0secret".as_bytes(), "tim secret"),
            (b"", "bad"),
            (b"tim", "bad"),
            (b"\0tim", "bad"),
            (b"\0\0x", "bad"),
            (b"\0tim\0a\0b", "bad"),
            (b"\0\xff\0x", "bad"),
        ];
        for (message, want) in table {
            assert_eq!(shown(&begin(Mechanism::Plain, Some(message)).1), want);
            let (mut exchange, first) = begin(Mechanism::Plain, None);
            assert_eq!(shown(&first), "? ");
            assert_eq!(shown(&exchange.step(message)), want);
        }
        let long = vec![b'x'; MAX_RESPONSE + 1];
        assert_eq!(shown(&begin(Mechanism::Plain, Some(&long)).1), "bad");
    }

    #[test]
    fn login_in_two() {
        let (mut exchange, first) = begin(Mechanism::Login, None);
        assert_eq!(shown(&first), "? Username:");
        assert_eq!(shown(&exchange.step(b"tim")), "? Password:");
        assert_eq!(shown(&exchange.step(b"secret")), "tim secret");
        assert_eq!(shown(&exchange.step(b"more")), "bad");
        assert_eq!(
            shown(&begin(Mechanism::Login, Some(b"tim")).1),
            "? Password:"
        );
    }

    /// RFC 7628 4.3: told why, then refused whatever is said.
    #[test]
    fn a_token_is_good_or_told_why_not() {
        let table = [
            (
                Mechanism::OAuthBearer,
                "n,a=ann,\u{1}auth=Bearer t\u{1}\u{1}",
                "invalid_token",
            ),
            (
                Mechanism::XOAuth2,
                "user=ann\u{1}auth=Bearer t\u{1}\u{1}",
                "401",
            ),
        ];
        for (mechanism, message, status) in table {
            for said in ["\u{1}", "", "anything"] {
                let (mut exchange, first) = begin(mechanism, None);
                assert_eq!(shown(&first), "? ");
                let asked = exchange.step(message.as_bytes());
                assert_eq!(shown(&asked), "Some(\"ann\") has t");
                let why = format!("? {{\"status\":\"{status}\",\"schemes\":\"bearer\"}}");
                assert_eq!(shown(&exchange.denied()), why);
                assert_eq!(shown(&exchange.step(said.as_bytes())), "no");
                assert_eq!(shown(&exchange.step(b"")), "bad");
                assert_eq!(shown(&exchange.denied()), "bad");
            }
            let (mut exchange, _) = begin(mechanism, Some(message.as_bytes()));
            assert_eq!(shown(&exchange.step(b"")), "bad");
            assert_eq!(shown(&begin(mechanism, Some(b"t")).1), "bad");
        }
    }

    #[test]
    fn external_names_nobody_or_one() {
        let table: [(&[u8], &str); 4] = [
            (b"", "None by certificate"),
            (b"ann", "Some(\"ann\") by certificate"),
            (b"a\0b", "bad"),
            (b"\xff", "bad"),
        ];
        for (said, want) in table {
            assert_eq!(shown(&begin(Mechanism::External, Some(said)).1), want);
        }
        assert_eq!(shown(&begin(Mechanism::External, None).1), "? ");
    }

    fn pencil() -> Credential {
        let salted = Salted {
            iterations: NonZeroU32::new(4096).unwrap(),
            salt: STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
        };
        Credential::Verifier(Verifier::derive(Hash::Sha256, salted, b"pencil"))
    }

    /// RFC 7677 3, with the empty response to the last message (RFC 4954 4).
    #[test]
    fn scram_in_three() {
        let nonce = Nonce("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into());
        let (mut exchange, first) =
            Exchange::begin(Mechanism::ScramSha256, Channel::default(), None, nonce);
        assert_eq!(shown(&first), "? ");
        let asked = exchange.step(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(shown(&asked), "user by Sha256?");
        assert!(matches!(exchange.credential(pencil()), Step::Challenge(_)));
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let signed = "? v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        let mut other = exchange.clone();
        assert_eq!(shown(&other.step(last)), signed);
        assert_eq!(shown(&other.step(b"more")), "bad");
        assert_eq!(shown(&exchange.step(last)), signed);
        assert_eq!(shown(&exchange.step(b"")), "user it is");
        assert_eq!(shown(&exchange.step(b"")), "bad");
        assert_eq!(shown(&exchange.credential(pencil())), "bad");
    }

    /// Who is asked for twice, or speaks before the answer, has ended it.
    #[test]
    fn scram_out_of_order() {
        let message: &[u8] = b"n,,n=ann,r=x";
        let start = || begin(Mechanism::ScramSha1, Some(message));
        assert_eq!(shown(&start().1), "ann by Sha1?");
        let (mut exchange, _) = start();
        assert_eq!(shown(&exchange.step(b"")), "bad");
        assert_eq!(shown(&exchange.credential(pencil())), "bad");
        let (mut exchange, _) = start();
        exchange.credential(pencil());
        assert_eq!(shown(&exchange.credential(pencil())), "bad");
        let theirs = begin(Mechanism::ScramSha1, Some(b"n,a=bob,n=ann,r=x"));
        assert_eq!(shown(&theirs.1), "not yours");
    }

    #[test]
    fn cram_md5_in_one() {
        let digest = "b913a602c7eda7a495b4e6e7334d3890";
        let (mut exchange, first) = begin(Mechanism::CramMd5, None);
        assert_eq!(shown(&first), "? <ours@yubin>");
        let said = format!("tim {digest}");
        assert_eq!(shown(&exchange.step(said.as_bytes())), said);
        assert_eq!(shown(&exchange.step(said.as_bytes())), "bad");
        let (mut early, step) = begin(Mechanism::CramMd5, Some(said.as_bytes()));
        assert_eq!(shown(&step), "bad");
        assert_eq!(shown(&early.step(said.as_bytes())), "bad");
    }

    #[test]
    fn nonces_differ() {
        let (one, other) = (Nonce::new().unwrap(), Nonce::new().unwrap());
        assert!(one.0.len() == 24 && one.0 != other.0);
    }

    proptest! {
        /// Whatever is said, in whatever order: no panic, an end that stays one, and nobody is let in
        /// by what is no proof.
        #[test]
        fn no_input_panics(
            mechanism in 0..Mechanism::ALL.len(),
            initial in option::of(said()),
            responses in vec(said(), 0..5),
        ) {
            let mechanism = Mechanism::ALL[mechanism];
            let (mut exchange, mut step) = begin(mechanism, initial.as_deref());
            for response in responses {
                if let Step::Wants { .. } = step {
                    exchange.credential(pencil());
                } else if let Step::Token { .. } = step {
                    exchange.denied();
                }
                let over = matches!(exchange.0, State::Done);
                step = exchange.step(&response);
                prop_assert!(!over || matches!(step, Step::Malformed(_)));
                let proven = matches!(step, Step::Proven { .. });
                prop_assert!(!proven);
            }
        }
    }

    /// Bytes, and what looks like messages.
    fn said() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            vec(any::<u8>(), 0..80),
            "[nyp]?,(a=[a-z=,]{0,5})?,n=[a-z=2C,\\x00-\\x20é]{0,9},r=[!-~]{0,9}(,[a-z]=[a-z,]{0,3})?"
                .prop_map(String::into_bytes),
            "c=(biws|eSws|[a-z=]{0,4}),r=[a-z]{0,4}ours,(m=1,)?p=[A-Za-z0-9+/]{0,28}={0,2}"
                .prop_map(String::into_bytes),
            "(n,(a=[a-z]{0,3})?,|user=[a-z]{0,3})\x01(auth=[Bb]earer [a-z]{0,3}\x01){0,2}\x01"
                .prop_map(String::into_bytes),
            "[a-z]{0,3} ?[0-9a-f]{31,33}".prop_map(String::into_bytes),
        ]
    }
}
