//! The SASL exchanges as pure machines: PLAIN (RFC 4616) and LOGIN. What they give is a claim, a
//! name and a password; whether it holds is [`crate::server`]'s work.

/// The mechanisms that are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    Login,
}

impl Mechanism {
    pub const ALL: [Self; 2] = [Self::Plain, Self::Login];

    /// In any case, as the client wrote it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|m| m.name().eq_ignore_ascii_case(name))
    }

    /// As it is announced.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

/// Octets of one response; a name and a password are never longer.
pub const MAX_RESPONSE: usize = 4096;

/// What a client claims.
#[derive(Clone, PartialEq, Eq)]
pub struct Claim {
    pub name: String,
    pub password: Vec<u8>,
}

/// How an exchange goes on.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    Challenge(&'static [u8]),
    Claim(Claim),
    /// The client does not speak the mechanism.
    Malformed(&'static str),
    /// authzid is not authcid: nobody acts for another.
    NotYours,
}

/// One exchange. Each state owns what only it has.
#[derive(Clone)]
pub enum Exchange {
    Plain,
    LoginName,
    LoginPassword { name: String },
    Done,
}

impl Exchange {
    /// The first step; `initial` is the client's initial response, where it sent one.
    pub fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> (Self, Step) {
        let mut exchange = match mechanism {
            Mechanism::Plain => Self::Plain,
            Mechanism::Login => Self::LoginName,
        };
        let step = match (mechanism, initial) {
            (_, Some(response)) => exchange.step(response),
            (Mechanism::Plain, None) => Step::Challenge(b""),
            (Mechanism::Login, None) => Step::Challenge(b"Username:"),
        };
        (exchange, step)
    }

    /// The client's next response.
    pub fn step(&mut self, response: &[u8]) -> Step {
        if response.len() > MAX_RESPONSE {
            *self = Self::Done;
            return Step::Malformed("response too long");
        }
        match std::mem::replace(self, Self::Done) {
            Self::Plain => plain(response),
            Self::LoginName => match text(response) {
                Some(name) => {
                    *self = Self::LoginPassword { name };
                    Step::Challenge(b"Password:")
                }
                None => Step::Malformed("user name is not UTF-8"),
            },
            Self::LoginPassword { name } if response.contains(&0) || name.is_empty() => {
                Step::Malformed("empty user name or NUL in the password")
            }
            Self::LoginPassword { name } => Step::Claim(Claim {
                name,
                password: response.to_vec(),
            }),
            Self::Done => Step::Malformed("the exchange is over"),
        }
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

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(step: &Step) -> String {
        match step {
            Step::Challenge(c) => format!("? {}", String::from_utf8_lossy(c)),
            Step::Claim(c) => format!("{} {}", c.name, String::from_utf8_lossy(&c.password)),
            Step::Malformed(_) => "bad".into(),
            Step::NotYours => "not yours".into(),
        }
    }

    #[test]
    fn plain_in_one_message() {
        // RFC 4616 4's own examples, and what is none.
        let table: [(&[u8], &str); 9] = [
            (b"\0tim\0tanstaaftanstaaf", "tim tanstaaftanstaaf"),
            (b"Ursel\0Kurt\0xipj3plmq", "not yours"),
            (b"tim\0tim\0secret", "tim secret"),
            (b"", "bad"),
            (b"tim", "bad"),
            (b"\0tim", "bad"),
            (b"\0\0x", "bad"),
            (b"\0tim\0a\0b", "bad"),
            (b"\0\xff\0x", "bad"),
        ];
        for (message, want) in table {
            assert_eq!(
                shown(&Exchange::begin(Mechanism::Plain, Some(message)).1),
                want
            );
            let (mut exchange, first) = Exchange::begin(Mechanism::Plain, None);
            assert_eq!(shown(&first), "? ");
            assert_eq!(shown(&exchange.step(message)), want);
        }
        let long = vec![b'x'; MAX_RESPONSE + 1];
        assert_eq!(
            shown(&Exchange::begin(Mechanism::Plain, Some(&long)).1),
            "bad"
        );
    }

    #[test]
    fn login_in_two() {
        let (mut exchange, first) = Exchange::begin(Mechanism::Login, None);
        assert_eq!(shown(&first), "? Username:");
        assert_eq!(shown(&exchange.step(b"tim")), "? Password:");
        assert_eq!(shown(&exchange.step(b"secret")), "tim secret");
        assert_eq!(shown(&exchange.step(b"more")), "bad");
        assert_eq!(
            shown(&Exchange::begin(Mechanism::Login, Some(b"tim")).1),
            "? Password:"
        );
    }
}
