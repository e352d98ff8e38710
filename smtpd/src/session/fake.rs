//! A driver in miniature, for the transcripts: it answers the session's questions from a fixed world.

use std::time::SystemTime;

use base::{Domain, Recipient};

use super::*;
use crate::xclient::Xclient;

/// ann and bob live here at example.org; relaying needs the right; `full` makes the disk full.
pub(super) struct World {
    pub(super) session: Session,
    pub(super) full: bool,
    /// Messages taken, as envelope and content.
    pub(super) taken: Vec<String>,
    /// The same, to be looked at.
    pub(super) accepted: Vec<(Box<Transaction>, Vec<u8>)>,
    pub(super) open: Option<(Box<Transaction>, Vec<u8>)>,
    pub(super) closed: bool,
    pub(super) logged: Vec<String>,
    pub(super) acquainted: bool,
    pub(super) offences: Vec<&'static str>,
    pub(super) said: Vec<u8>,
    /// What the doors say of the client, and of DATA.
    pub(super) client: Admission,
    pub(super) data: Result<(), Reply>,
    /// Transactions that were given up.
    pub(super) forgotten: usize,
    /// Whose session it is to be.
    pub(super) became: Option<Box<Xclient>>,
    /// What came and was not taken yet.
    pub(super) pending: Vec<u8>,
    /// The client has said in the clear what belongs behind the handshake, as the loop finds out.
    pub(super) spoke_in_the_clear: bool,
}

pub(super) fn client() -> Client {
    Client {
        shown: "unknown[192.0.2.1]".into(),
        trusted: false,
        greet_delay: Duration::ZERO,
        plaintext_login: false,
        submission: false,
        tls_offered: true,
        xclient: false,
        filter: false,
    }
}

/// Nothing against it.
pub(super) fn admission() -> Admission {
    Admission {
        shown: "unknown[192.0.2.1]".into(),
        answer: Ok(()),
        took: Duration::ZERO,
        welcome: false,
    }
}

/// The longest that a submission may wait.
const WAIT: Duration = Duration::from_secs(86_400);

/// 2026-11-30T08:00:00Z, always.
fn now() -> SystemTime {
    base::date::system_time(1_796_025_600)
}

pub(super) fn terms() -> Terms {
    Terms {
        name: Domain::parse("mx.example.org").unwrap(),
        here: Domain::parse("example.org").unwrap(),
        size_limit: 1000,
        recipient_limit: 3,
        etrn_domains: Vec::new(),
        hop_limit: 5,
        future_release: WAIT,
        patience: Duration::from_secs(300),
        mechanisms: vec![Mechanism::Plain, Mechanism::Login],
    }
}

impl World {
    #[cfg(test)]
    pub(super) fn new(client: Client) -> Self {
        Self::on(terms(), client)
    }

    /// With logins by these mechanisms.
    #[cfg(test)]
    pub(super) fn offering(mechanisms: &[Mechanism], client: Client) -> Self {
        let mechanisms = mechanisms.to_vec();
        Self::on(
            Terms {
                mechanisms,
                ..terms()
            },
            client,
        )
    }

    /// Where mail waits for these domains.
    #[cfg(test)]
    pub(super) fn keeping_mail_for(domains: &[&str], client: Client) -> Self {
        let domains = domains.iter().map(|name| Domain::parse(name).unwrap());
        let etrn_domains = domains.collect();
        Self::on(
            Terms {
                etrn_domains,
                ..terms()
            },
            client,
        )
    }

    /// Where the doors say this of the client.
    #[cfg(test)]
    pub(super) fn answering(answer: Admission, client: Client) -> Self {
        Self::made(terms(), client, answer)
    }

    #[cfg(test)]
    fn on(terms: Terms, client: Client) -> Self {
        Self::made(terms, client, admission())
    }

    pub(super) fn made(terms: Terms, client: Client, answer: Admission) -> Self {
        let mut world = Self {
            session: Session::new(Arc::new(terms), client, false),
            full: false,
            taken: Vec::new(),
            accepted: Vec::new(),
            open: None,
            closed: false,
            logged: Vec::new(),
            acquainted: false,
            offences: Vec::new(),
            said: Vec::new(),
            client: answer,
            data: Ok(()),
            forgotten: 0,
            became: None,
            pending: Vec::new(),
            spoke_in_the_clear: false,
        };
        world.happen(Input::Open);
        world
    }

    pub(super) fn happen(&mut self, input: Input<'_>) {
        let mut actions = Vec::new();
        self.session.step(input, &mut actions);
        self.act(actions);
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        loop {
            let pending = std::mem::take(&mut self.pending);
            let mut actions = Vec::new();
            let n = self.session.step(Input::Bytes(&pending), &mut actions);
            self.pending = pending[n..].to_vec();
            let moved = n > 0 || !actions.is_empty();
            self.act(actions);
            if self.spoke_in_the_clear {
                self.pending.clear();
            }
            if !moved || self.pending.is_empty() {
                return;
            }
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Reply(reply) => reply.encode(&mut self.said),
                Action::Log(line) | Action::LogEnd(line) => self.logged.push(line),
                Action::Become(said) => self.became = Some(said),
                Action::Close => self.closed = true,
                Action::StartTls if self.pending.is_empty() => self.happen(Input::TlsUp),
                Action::StartTls => {
                    self.spoke_in_the_clear = true;
                    self.closed = true;
                }
                Action::AskClient => {
                    let answer = self.client.clone();
                    self.happen(Input::Client(answer));
                }
                Action::AskHello { name, .. } => {
                    let answer = match name.as_str() {
                        "liar.example" => Err(reply::NOT_YOURS.about(&name)),
                        "worm.example" => Err(reply::SHUTTING_DOWN),
                        _ => Ok(now()),
                    };
                    self.happen(Input::Hello(answer));
                }
                Action::AskData => {
                    let answer = self.data.clone();
                    self.happen(Input::Data(answer));
                }
                Action::AskUnknown(line) => {
                    // What a milter would say.
                    let answer = match line.as_str() {
                        "XNO" => Some(reply::MILTER_REJECTS),
                        "XSTOP" => Some(reply::MILTER_SHUTDOWN),
                        _ => None,
                    };
                    self.happen(Input::Unknown(answer));
                }
                Action::AskFlush(_) => {
                    let answer = if self.full {
                        Err(reply::CANNOT_FLUSH)
                    } else {
                        Ok(())
                    };
                    self.happen(Input::Flush(answer));
                }
                Action::Forget => self.forgotten += 1,
                Action::AskSender {
                    reverse_path,
                    login,
                    hold,
                    ..
                } => {
                    let own = reverse_path
                        .address()
                        .is_none_or(|a| a.local().as_str() == "ann");
                    let verdict = match self.full {
                        true => Err(reply::NO_ROOM),
                        false if hold.is_some_and(|h| !h.is_within(now(), WAIT)) => {
                            Err(reply::HOLD_BEYOND)
                        }
                        false if login.is_some() && !own => Err(reply::NOT_YOURS.about("it")),
                        false => Ok(()),
                    };
                    self.happen(Input::Sender(verdict));
                }
                // The user whose look-up never ends.
                Action::AskRecipient { recipient, .. }
                    if recipient.address.local().as_str() == "slow" => {}
                Action::AskRecipient {
                    recipient,
                    may_relay,
                    ..
                } => {
                    let address = recipient.address;
                    let verdict = match (address.domain().as_str(), address.local().as_str()) {
                        ("example.org", "ann" | "bob") => Verdict::Local(address),
                        ("mx.example.org", name) if name.eq_ignore_ascii_case("postmaster") => {
                            Verdict::Local(address)
                        }
                        ("example.org" | "mx.example.org", _) => {
                            Verdict::Refuse(reply::NO_SUCH_USER.about(&address.to_string()))
                        }
                        _ if may_relay => Verdict::Relay(address),
                        _ => Verdict::Refuse(reply::NO_RELAY.about(&address.to_string())),
                    };
                    self.happen(Input::Recipient(verdict));
                }
                Action::Authenticate { mechanism, initial } => {
                    let answer = match (mechanism.name(), initial) {
                        ("PLAIN", Some(secret)) if secret == b"\0ann\0secret" => {
                            AuthAnswer::Granted("ann".into())
                        }
                        ("PLAIN", None) => AuthAnswer::Challenge(Vec::new()),
                        ("LOGIN", None) => AuthAnswer::Challenge(b"User Name".to_vec()),
                        _ => AuthAnswer::Refused,
                    };
                    self.happen(Input::Auth(answer));
                }
                Action::Respond(words) => self.happen(Input::Auth(match words.as_slice() {
                    b"\0ann\0secret" | b"secret" => AuthAnswer::Granted("ann".into()),
                    b"ann" => AuthAnswer::Challenge(b"Password".to_vec()),
                    b"?" => AuthAnswer::Unavailable,
                    b"??" => AuthAnswer::Malformed,
                    _ => AuthAnswer::Refused,
                })),
                Action::AbandonAuth => {}
                Action::Acquaint => self.acquainted = true,
                Action::Offence(what) => self.offences.push(what),
                Action::Begin(transaction) => self.open = Some((transaction, Vec::new())),
                Action::Append(bytes) => self.open.as_mut().unwrap().1.extend_from_slice(&bytes),
                Action::Discard => self.open = None,
                Action::Commit => {
                    let (t, content) = self.open.take().unwrap();
                    let to = |list: &[Recipient]| -> String {
                        list.iter().map(|r| format!(" {}", r.address)).collect()
                    };
                    self.taken.push(format!(
                        "{} <{}> local{} relay{} {:?}",
                        t.protocol,
                        t.reverse_path,
                        to(&t.local),
                        to(&t.relay),
                        String::from_utf8_lossy(&content),
                    ));
                    let queued = Queued {
                        id: "Q1".into(),
                        recipients: t.len(),
                    };
                    self.accepted.push((t, content));
                    self.happen(Input::Queued(Ok(vec![queued])));
                }
            }
        }
    }

    /// Plays a transcript; every `S:` line must come, and nothing else.
    #[cfg(test)]
    pub(super) fn play(&mut self, transcript: &str) {
        for line in transcript
            .lines()
            .map(str::trim_start)
            .filter(|l| !l.is_empty())
        {
            if let Some(words) = line.strip_prefix("C: ") {
                assert_eq!(String::from_utf8_lossy(&self.said), "", "before C: {words}");
                self.send(format!("{words}\r\n").as_bytes());
            } else if let Some(want) = line.strip_prefix("S: ") {
                let end = self.said.windows(2).position(|w| w == b"\r\n");
                let Some(end) = end else {
                    panic!("nothing said where S: {want}")
                };
                let got: Vec<u8> = self.said.drain(..end + 2).collect();
                assert_eq!(String::from_utf8_lossy(&got).trim_end(), want.trim_end());
            } else {
                assert!(line.starts_with('#'), "{line}");
            }
        }
        assert_eq!(String::from_utf8_lossy(&self.said), "", "said too much");
    }
}

#[cfg(test)]
pub(super) const HELLO: &str = "
    S: 220 mx.example.org ESMTP yubin
    C: EHLO foo.com
    S: 250-mx.example.org
    S: 250-PIPELINING
    S: 250-SIZE 1000
    S: 250-8BITMIME
    S: 250-STARTTLS
    S: 250-LIMITS RCPTMAX=3
    S: 250-ENHANCEDSTATUSCODES
    S: 250-DSN
    S: 250-CHUNKING
    S: 250-BINARYMIME
    S: 250-SMTPUTF8
    S: 250 HELP
";

#[cfg(test)]
pub(super) fn play(transcript: &str) -> World {
    let mut world = World::new(client());
    world.play(HELLO);
    world.play(transcript);
    world
}
