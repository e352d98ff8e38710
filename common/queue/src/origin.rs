//! Where a message came from: recorded once, when it enters the queue.

use std::net::IpAddr;
use std::time::SystemTime;

use crate::fields::{self, Fields};
use crate::id::QueueId;

/// When and from whom this host got the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub received_at: SystemTime,
    pub source: Source,
}

/// Who handed the message to this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An SMTP or LMTP client.
    Network(Client),
    /// sendmail(1), run by this user: the owner of the file in `drop/`.
    Submission { uid: u32 },
    /// deliver or qrun made it out of another entry: a forward, a list, a bounce.
    Child { parent: QueueId },
}

/// What smtpd knows of its client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Client {
    /// None for a client on a pipe or a Unix socket.
    pub ip: Option<IpAddr>,
    /// The name that the address has in DNS, where it was looked up and confirmed.
    pub name: Option<String>,
    /// What it said in HELO, EHLO or LHLO.
    pub helo: String,
    /// RFC 3848: `SMTP`, `ESMTP`, `ESMTPSA`, `LMTP` ...
    pub protocol: String,
    /// The user who authenticated.
    pub login: Option<String>,
    pub port: Option<u16>,
    /// A content filter brought it back. What stands here is what it says of who sent it here first,
    /// or else the filter itself; whether that was one of our own only the trace fields tell.
    pub by_filter: bool,
}

impl Origin {
    /// A message that arrives now.
    pub fn now(source: Source) -> Self {
        Self {
            received_at: SystemTime::now(),
            source,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = fields::Writer::default();
        out.time(TIME, self.received_at);
        match &self.source {
            Source::Network(client) => {
                out.bytes(PROTOCOL, client.protocol.as_bytes());
                out.bytes(HELO, client.helo.as_bytes());
                if let Some(ip) = client.ip {
                    out.bytes(IP, ip.to_string().as_bytes());
                }
                if let Some(name) = &client.name {
                    out.bytes(NAME, name.as_bytes());
                }
                if let Some(login) = &client.login {
                    out.bytes(LOGIN, login.as_bytes());
                }
                if let Some(port) = client.port {
                    out.number(PORT, port.into());
                }
                if client.by_filter {
                    out.number(BY_FILTER, 1);
                }
            }
            Source::Submission { uid } => out.number(UID, u64::from(*uid)),
            Source::Child { parent } => out.bytes(PARENT, parent.as_str().as_bytes()),
        }
        out.finish()
    }

    /// `None` when a field is missing or is not what it should be.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let fields = Fields::read(payload)?;
        let source = if let Some(parent) = fields.bytes(PARENT) {
            Source::Child {
                parent: QueueId::parse(parent).ok()?,
            }
        } else if let Some(uid) = fields.number(UID) {
            Source::Submission {
                uid: u32::try_from(uid).ok()?,
            }
        } else {
            Source::Network(Client {
                ip: match fields.text(IP) {
                    Some(ip) => Some(ip.parse().ok()?),
                    None => None,
                },
                name: fields.text(NAME),
                helo: fields.text(HELO)?,
                protocol: fields.text(PROTOCOL)?,
                login: fields.text(LOGIN),
                port: match fields.number(PORT) {
                    Some(port) => Some(u16::try_from(port).ok()?),
                    None => None,
                },
                by_filter: fields.number(BY_FILTER).is_some(),
            })
        };
        Some(Self {
            received_at: fields.time(TIME)?,
            source,
        })
    }
}

// Fields of the origin record, version 1. A number is never used again for something else.
const TIME: u8 = 1;
const PROTOCOL: u8 = 2;
const HELO: u8 = 3;
const IP: u8 = 4;
const NAME: u8 = 5;
const LOGIN: u8 = 6;
const UID: u8 = 7;
const PARENT: u8 = 8;
const PORT: u8 = 9;
const BY_FILTER: u8 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn there_and_back() {
        let sources = [
            Source::Network(Client {
                ip: Some("2001:db8::1".parse().unwrap()),
                name: Some("mx.example.org".into()),
                helo: "mx".into(),
                protocol: "ESMTPSA".into(),
                login: Some("ann".into()),
                port: Some(65_535),
                by_filter: true,
            }),
            Source::Network(Client::default()),
            Source::Submission { uid: 1000 },
            Source::Child {
                parent: QueueId::generate().unwrap(),
            },
        ];
        for source in sources {
            let received_at = UNIX_EPOCH + Duration::from_micros(1_795_309_200_123_456);
            let origin = Origin {
                received_at,
                source,
            };
            assert_eq!(Origin::decode(&origin.encode()), Some(origin));
        }
    }

    #[test]
    fn what_is_missing_is_noticed() {
        assert_eq!(Origin::decode(b""), None);
        let whole = Origin::now(Source::Network(Client::default())).encode();
        for cut in 0..whole.len() {
            assert_eq!(Origin::decode(&whole[..cut]), None, "cut at {cut}");
        }
    }
}
