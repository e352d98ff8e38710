//! What a daemon and its `checkpw` say to each other: one packet a message, a request id first.
//!
//! Both sides read what the other sent as they would read a stranger's bytes.

use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::channel::Channel;
use crate::sasl::Mechanism;
use crate::user::{User, UserName};

/// What a login is for; it decides whether there is a way to the mail in the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Smtp,
    Pop3,
    Imap,
}

impl Service {
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Pop3 => "pop3",
            Self::Imap => "imap",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Smtp, Self::Pop3, Self::Imap]
            .into_iter()
            .find(|s| s.name() == name)
    }
}

/// What a daemon asks. `conversation` is a number of the daemon's choosing, its own for each
/// exchange that is under way. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// A SASL exchange begins.
    Begin {
        conversation: u64,
        mechanism: Mechanism,
        channel: Channel,
        initial: Option<Vec<u8>>,
    },
    /// The client's response to a challenge.
    Continue {
        conversation: u64,
        response: Vec<u8>,
    },
    /// The client gave up, or is gone. There is no answer worth waiting for.
    Cancel { conversation: u64 },
    /// IMAP LOGIN, POP3 USER and PASS.
    Password { name: String, password: Vec<u8> },
    /// RFC 1939 7: the greeting's timestamp and the client's digest.
    Apop {
        name: String,
        timestamp: String,
        digest: String,
    },
    /// Whether the user exists, for RCPT and local delivery.
    Lookup { name: String },
    /// By which mechanisms everybody can log in.
    Mechanisms,
}

/// What it hears.
#[derive(Debug)]
pub enum Answer {
    Challenge(Vec<u8>),
    Granted(Grant),
    /// Wrong name or password; say so after this pause.
    Refused {
        delay: Duration,
    },
    /// The client does not speak the mechanism.
    Malformed(String),
    /// A doubt, not a no: try later.
    Unavailable(String),
    Found(User),
    Unknown,
    Mechanisms(Vec<Mechanism>),
}

/// Who logged in, and the way to the mail.
#[derive(Debug)]
pub struct Grant {
    pub user: User,
    pub store: StoreAccess,
}

/// The way to a user's mail.
#[derive(Debug)]
pub enum StoreAccess {
    /// A login for sending: none.
    None,
    /// One uid runs everything: the daemon opens the spool itself.
    Pool,
    /// A process that became the user serves the store's requests on this socket.
    Worker(UnixStream),
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { mechanism, .. } => write!(f, "Begin {}", mechanism.name()),
            Self::Continue { .. } => f.write_str("Continue"),
            Self::Cancel { .. } => f.write_str("Cancel"),
            Self::Password { name, .. } => write!(f, "Password {name:?}"),
            Self::Apop { name, .. } => write!(f, "Apop {name:?}"),
            Self::Lookup { name } => write!(f, "Lookup {name:?}"),
            Self::Mechanisms => f.write_str("Mechanisms"),
        }
    }
}

/// The packet of a request: id, verb, and its strings.
pub(crate) fn encode_request(id: u64, request: &Request) -> Vec<Vec<u8>> {
    let mut parts = vec![id.to_be_bytes().to_vec()];
    let mut add = |strings: &[&[u8]]| parts.extend(strings.iter().map(|s| s.to_vec()));
    match request {
        Request::Begin {
            conversation,
            mechanism,
            channel,
            initial,
        } => {
            add(&[
                b"begin",
                &conversation.to_be_bytes(),
                mechanism.name().as_bytes(),
                hash(channel.exporter.as_ref()),
                channel.end_point.as_deref().unwrap_or_default(),
                hash(channel.certificate.as_ref()),
            ]);
            if let Some(initial) = initial {
                add(&[initial]);
            }
        }
        Request::Continue {
            conversation,
            response,
        } => {
            add(&[b"continue", &conversation.to_be_bytes(), response]);
        }
        Request::Cancel { conversation } => add(&[b"cancel", &conversation.to_be_bytes()]),
        Request::Password { name, password } => add(&[b"password", name.as_bytes(), password]),
        Request::Apop {
            name,
            timestamp,
            digest,
        } => {
            add(&[
                b"apop",
                name.as_bytes(),
                timestamp.as_bytes(),
                digest.as_bytes(),
            ]);
        }
        Request::Lookup { name } => add(&[b"lookup", name.as_bytes()]),
        Request::Mechanisms => add(&[b"mechanisms"]),
    }
    parts
}

/// `None` for what no daemon of ours sends.
pub(crate) fn decode_request(parts: &[Vec<u8>]) -> Option<(u64, Request)> {
    let (id, rest) = parts.split_first()?;
    let (verb, rest) = rest.split_first()?;
    let request = match (verb.as_slice(), rest) {
        (
            b"begin",
            [
                conversation,
                mechanism,
                exporter,
                end_point,
                certificate,
                initial @ ..,
            ],
        ) if initial.len() <= 1 => Request::Begin {
            conversation: number(conversation)?,
            mechanism: Mechanism::parse(std::str::from_utf8(mechanism).ok()?)?,
            channel: Channel {
                exporter: unhash(exporter)?,
                end_point: optional(end_point).map(<[u8]>::to_vec),
                certificate: unhash(certificate)?,
            },
            initial: initial.first().cloned(),
        },
        (b"continue", [conversation, response]) => Request::Continue {
            conversation: number(conversation)?,
            response: response.clone(),
        },
        (b"cancel", [conversation]) => Request::Cancel {
            conversation: number(conversation)?,
        },
        (b"password", [name, password]) => Request::Password {
            name: text(name)?,
            password: password.clone(),
        },
        (b"apop", [name, timestamp, digest]) => Request::Apop {
            name: text(name)?,
            timestamp: text(timestamp)?,
            digest: text(digest)?,
        },
        (b"lookup", [name]) => Request::Lookup { name: text(name)? },
        (b"mechanisms", []) => Request::Mechanisms,
        _ => return None,
    };
    Some((number(id)?, request))
}

/// The packet of an answer, and the socket that goes with it.
pub(crate) fn encode_answer(id: u64, answer: Answer) -> (Vec<Vec<u8>>, Option<OwnedFd>) {
    let mut socket = None;
    let mut parts = vec![id.to_be_bytes().to_vec()];
    match answer {
        Answer::Challenge(challenge) => parts.extend([b"challenge".to_vec(), challenge]),
        Answer::Granted(Grant { user, store }) => {
            let access = match store {
                StoreAccess::None => "none",
                StoreAccess::Pool => "pool",
                StoreAccess::Worker(stream) => {
                    socket = Some(stream.into());
                    "worker"
                }
            };
            parts.extend([b"granted".to_vec(), access.into()]);
            parts.extend(encode_user(&user));
        }
        Answer::Refused { delay } => {
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            parts.extend([b"refused".to_vec(), millis.to_be_bytes().to_vec()]);
        }
        Answer::Malformed(what) => parts.extend([b"malformed".to_vec(), what.into()]),
        Answer::Unavailable(what) => parts.extend([b"unavailable".to_vec(), what.into()]),
        Answer::Found(user) => {
            parts.push(b"found".to_vec());
            parts.extend(encode_user(&user));
        }
        Answer::Unknown => parts.push(b"unknown".to_vec()),
        Answer::Mechanisms(list) => {
            parts.push(b"mechanisms".to_vec());
            parts.extend(list.iter().map(|m| m.name().into()));
        }
    }
    (parts, socket)
}

/// `None` for what no `checkpw` of ours sends.
pub(crate) fn decode_answer(parts: &[Vec<u8>], socket: Option<OwnedFd>) -> Option<(u64, Answer)> {
    let (id, rest) = parts.split_first()?;
    let (verb, rest) = rest.split_first()?;
    let answer = match (verb.as_slice(), rest) {
        (b"challenge", [challenge]) => Answer::Challenge(challenge.clone()),
        (b"granted", [access, user @ ..]) => {
            let store = match (access.as_slice(), socket) {
                (b"none", None) => StoreAccess::None,
                (b"pool", None) => StoreAccess::Pool,
                (b"worker", Some(socket)) => StoreAccess::Worker(socket.into()),
                _ => return None,
            };
            Answer::Granted(Grant {
                user: decode_user(user)?,
                store,
            })
        }
        (b"refused", [delay]) => Answer::Refused {
            delay: Duration::from_millis(number(delay)?),
        },
        (b"malformed", [what]) => Answer::Malformed(text(what)?),
        (b"unavailable", [what]) => Answer::Unavailable(text(what)?),
        (b"found", user) => Answer::Found(decode_user(user)?),
        (b"unknown", []) => Answer::Unknown,
        (b"mechanisms", names) => {
            let each = |name: &Vec<u8>| Mechanism::parse(std::str::from_utf8(name).ok()?);
            Answer::Mechanisms(names.iter().map(each).collect::<Option<_>>()?)
        }
        _ => return None,
    };
    Some((number(id)?, answer))
}

fn encode_user(user: &User) -> [Vec<u8>; 5] {
    [
        user.name.as_str().into(),
        user.uid.to_be_bytes().to_vec(),
        user.gid.to_be_bytes().to_vec(),
        user.gecos.clone().into(),
        user.home.to_string_lossy().into_owned().into(),
    ]
}

fn decode_user(parts: &[Vec<u8>]) -> Option<User> {
    let [name, uid, gid, gecos, home] = parts else {
        return None;
    };
    Some(User {
        name: UserName::parse(std::str::from_utf8(name).ok()?)?,
        uid: u32::from_be_bytes(uid.as_slice().try_into().ok()?),
        gid: u32::from_be_bytes(gid.as_slice().try_into().ok()?),
        gecos: text(gecos)?,
        home: PathBuf::from(text(home)?),
    })
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn hash(octets: Option<&[u8; 32]>) -> &[u8] {
    octets.map_or(&[], <[u8; 32]>::as_slice)
}

/// What [`hash`] made; `None` for what it did not.
fn unhash(octets: &[u8]) -> Option<Option<[u8; 32]>> {
    match optional(octets) {
        Some(octets) => octets.try_into().ok().map(Some),
        None => Some(None),
    }
}

/// What is empty where there is none.
fn optional(octets: &[u8]) -> Option<&[u8]> {
    (!octets.is_empty()).then_some(octets)
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_there_and_back() {
        let table = [
            Request::Begin {
                conversation: 7,
                mechanism: Mechanism::ScramSha1Plus,
                channel: Channel {
                    exporter: Some([7; 32]),
                    end_point: Some(vec![8; 48]),
                    certificate: Some([9; 32]),
                },
                initial: None,
            },
            Request::Begin {
                conversation: 7,
                mechanism: Mechanism::Login,
                channel: Channel::default(),
                initial: Some(vec![]),
            },
            Request::Continue {
                conversation: 1,
                response: vec![0, 255],
            },
            Request::Cancel {
                conversation: u64::MAX,
            },
            Request::Password {
                name: "ann".into(),
                password: b"x y".to_vec(),
            },
            Request::Apop {
                name: "ann".into(),
                timestamp: "<1@x>".into(),
                digest: "00".into(),
            },
            Request::Lookup {
                name: String::new(),
            },
            Request::Mechanisms,
        ];
        for request in table {
            let parts = encode_request(3, &request);
            assert_eq!(decode_request(&parts), Some((3, request.clone())));
            for cut in 0..parts.len() {
                if let Some((_, other)) = decode_request(&parts[..cut]) {
                    assert!(matches!(other, Request::Begin { initial: None, .. }));
                }
            }
            assert!(!format!("{request:?}").contains("x y"));
        }
    }

    #[test]
    fn answers_go_there_and_back_with_their_socket() {
        let user = User {
            name: UserName::parse("ann").unwrap(),
            uid: 1,
            gid: 2,
            gecos: "Ann".into(),
            home: "/home/ann".into(),
        };
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let answers = [
            Answer::Challenge(b"Password:".to_vec()),
            Answer::Granted(Grant {
                user: user.clone(),
                store: StoreAccess::Pool,
            }),
            Answer::Granted(Grant {
                user: user.clone(),
                store: StoreAccess::Worker(ours),
            }),
            Answer::Refused {
                delay: Duration::from_millis(1500),
            },
            Answer::Found(user),
            Answer::Unknown,
            Answer::Mechanisms(vec![Mechanism::ScramSha256, Mechanism::Plain]),
            Answer::Unavailable("x".into()),
        ];
        for answer in answers {
            let before = format!("{answer:?}");
            let (parts, socket) = encode_answer(9, answer);
            let (id, after) = decode_answer(&parts, socket).unwrap();
            assert_eq!((id, format!("{after:?}")), (9, before));
        }
        // A worker without its socket is no grant.
        let parts = [
            b"\0\0\0\0\0\0\0\x01".to_vec(),
            b"granted".to_vec(),
            b"worker".to_vec(),
        ];
        assert!(decode_answer(&parts, None).is_none());
    }
}
