//! AUTH as SMTP's client (RFC 4954): what is said to a server's replies, until it says yes or no. A
//! pure state machine; what it sends is never to be logged.

use base::Status;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::sasl::Mechanism;
use crate::sasl::client::{Broken, Exchange, Login};

/// RFC 4954 4: a longer command goes without its initial response.
const MAX_COMMAND: usize = 512;
/// Challenges in one login.
const MAX_ROUNDS: usize = 8;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Send this line, and give me the reply. Its end is there.
    Send(String),
    /// We are logged in.
    Yes,
    /// We are not. The status is of class 4: a login that fails is our own or the server's fault, and
    /// no reason to return anybody's mail.
    No { status: Status, text: String },
}

/// One login.
#[derive(Debug)]
pub struct SmtpLogin {
    mechanism: Mechanism,
    exchange: Exchange,
    rounds: usize,
    /// We have said `*`: why.
    gave_up: Option<Broken>,
}

impl SmtpLogin {
    /// By the best mechanism of `offered`, the words behind AUTH in the reply to EHLO. An error is for
    /// the log and the queue.
    pub fn new<'a>(
        login: &Login,
        offered: impl Iterator<Item = &'a str>,
        nonce: &str,
        host: &str,
        port: u16,
    ) -> Result<Self, &'static str> {
        let mechanism = login
            .mechanism(offered)
            .ok_or("offers no way to log in that we know")?;
        let exchange = Exchange::new(mechanism, login, nonce, (host, port)).map_err(|e| e.0)?;
        Ok(Self {
            mechanism,
            exchange,
            rounds: 0,
            gave_up: None,
        })
    }

    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The command.
    pub fn begin(&mut self) -> String {
        let name = self.mechanism.name();
        // Without a first word of ours the exchange gives it to the first challenge.
        let first = self.exchange_first();
        match first {
            Some(first) => format!("AUTH {name} {first}\r\n"),
            None => format!("AUTH {name}\r\n"),
        }
    }

    /// The initial response, where it fits into the command.
    fn exchange_first(&mut self) -> Option<String> {
        let room = MAX_COMMAND.saturating_sub(self.mechanism.name().len() + "AUTH  \r\n".len());
        match self.exchange.first_length() {
            Some(length) if length.div_ceil(3) * 4 <= room => {
                self.exchange.initial().map(|first| encode(&first))
            }
            _ => None,
        }
    }

    /// What follows from a reply; `text` is all that stands behind its code.
    pub fn reply(&mut self, code: u16, text: &str) -> Said {
        match code {
            235 if self.gave_up.is_none() && self.exchange.is_complete() => Said::Yes,
            235 => no(
                Status::new(4, 7, 8),
                "it says yes without having shown that it knows our password",
            ),
            334 => self.challenge(text),
            // RFC 4954 6: what the server means is in its text.
            _ => {
                let first = text.split_ascii_whitespace().next().unwrap_or_default();
                let status = Status::parse(first).unwrap_or(Status::new(5, 7, 8));
                match self.gave_up {
                    Some(Broken(why)) => no(Status::new(4, 7, 8), why),
                    None => no(status.with_class(4), &format!("{code} {text}")),
                }
            }
        }
    }

    fn challenge(&mut self, text: &str) -> Said {
        self.rounds += 1;
        if self.gave_up.is_some() || self.rounds > MAX_ROUNDS {
            return no(Status::new(4, 7, 8), "challenges without end");
        }
        let challenge = STANDARD.decode(text.trim());
        let challenge = challenge.map_err(|_| Broken("a challenge that is no base64"));
        match challenge.and_then(|challenge| self.exchange.answer(&challenge)) {
            Ok(answer) => Said::Send(format!("{}\r\n", STANDARD.encode(answer))),
            Err(why) => {
                self.gave_up = Some(why);
                Said::Send("*\r\n".into()) // RFC 4954 4: it answers 501
            }
        }
    }
}

fn no(status: Status, why: &str) -> Said {
    Said::No {
        status,
        text: format!("login failed: {why}"),
    }
}

/// RFC 4954 4: an empty one is `=`.
fn encode(first: &[u8]) -> String {
    match first.is_empty() {
        true => "=".into(),
        false => STANDARD.encode(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sasl::client::Secret;

    fn login(secret: Secret) -> Login {
        Login {
            user: "tim".into(),
            secret,
        }
    }

    fn password() -> Login {
        login(Secret::Password("tanstaaftanstaaf".into()))
    }

    fn start(login: &Login, offered: &str) -> SmtpLogin {
        SmtpLogin::new(login, offered.split(' '), "abc", "mx.example.org", 25).unwrap()
    }

    /// `S:` is the server's reply, `C:` our line, `=` what came of it.
    fn transcript(login: &Login, offered: &str, lines: &str) {
        let mut session = start(login, offered);
        let mut said = Some(Said::Send(session.begin()));
        for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("S:", reply) => {
                    let (code, text) = reply.split_once(' ').unwrap_or((reply, ""));
                    said = Some(session.reply(code.parse().unwrap(), text));
                }
                ("C:", ours) => assert_eq!(said, Some(Said::Send(format!("{ours}\r\n")))),
                ("=", "yes") => assert_eq!(said, Some(Said::Yes)),
                ("=", want) => match &said {
                    Some(Said::No { status, text }) => {
                        assert_eq!(format!("{status} {text}"), want);
                    }
                    other => panic!("{other:?}, not {want}"),
                },
                _ => panic!("{line}"),
            }
        }
    }

    #[test]
    fn logins_as_the_rfcs_show_them() {
        transcript(
            &password(),
            "PLAIN",
            "C: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm
             S: 235 2.7.0 Authentication successful
             = yes",
        );
        transcript(
            &password(),
            "CRAM-MD5 PLAIN",
            "C: AUTH CRAM-MD5
             S: 334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+
             C: dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw
             S: 235 ok
             = yes",
        );
        transcript(
            &password(),
            "LOGIN",
            "C: AUTH LOGIN
             S: 334 VXNlcm5hbWU6
             C: dGlt
             S: 334 UGFzc3dvcmQ6
             C: dGFuc3RhYWZ0YW5zdGFhZg==
             S: 235 ok
             = yes",
        );
        let token = login(Secret::Token("t".into()));
        transcript(
            &token,
            "XOAUTH2",
            "C: AUTH XOAUTH2 dXNlcj10aW0BYXV0aD1CZWFyZXIgdAEB
             S: 334 eyJzdGF0dXMiOiI0MDEifQ==
             C:
             S: 535 5.7.8 Username and Password not accepted
             = 4.7.8 login failed: 535 5.7.8 Username and Password not accepted",
        );
    }

    #[test]
    fn a_server_that_says_no_or_nonsense() {
        for (lines, mechanisms) in [
            (
                "S: 535 5.7.8 no\n= 4.7.8 login failed: 535 5.7.8 no",
                "PLAIN",
            ),
            (
                "S: 454 4.7.0 later\n= 4.7.0 login failed: 454 4.7.0 later",
                "PLAIN",
            ),
            (
                "S: 534 5.7.9 too weak\n= 4.7.9 login failed: 534 5.7.9 too weak",
                "PLAIN",
            ),
            ("S: 500 what\n= 4.7.8 login failed: 500 what", "PLAIN"),
            (
                "S: 334 %%%\nC: *\nS: 501 5.5.2 cancelled\n= 4.7.8 login failed: a challenge that is no base64",
                "CRAM-MD5",
            ),
            (
                "S: 334 %%%\nC: *\nS: 334 %%%\n= 4.7.8 login failed: challenges without end",
                "CRAM-MD5",
            ),
            (
                "S: 334 cj14\nC: *\nS: 235 ok\n= 4.7.8 login failed: it says yes without having shown that it knows our password",
                "SCRAM-SHA-256",
            ),
            (
                "S: 235 ok\n= 4.7.8 login failed: it says yes without having shown that it knows our password",
                "SCRAM-SHA-256",
            ),
        ] {
            transcript(&password(), mechanisms, lines);
        }
        assert!(SmtpLogin::new(&password(), ["NTLM"].into_iter(), "abc", "h", 25).is_err());
    }

    #[test]
    fn a_long_token_waits_for_the_challenge() {
        let long = login(Secret::Token("t".repeat(2000)));
        let mut session = start(&long, "OAUTHBEARER");
        assert_eq!(session.begin(), "AUTH OAUTHBEARER\r\n");
        let Said::Send(line) = session.reply(334, "") else {
            panic!("not sent");
        };
        assert!(line.len() > 2000 && line.ends_with("\r\n"));
        assert_eq!(session.reply(235, ""), Said::Yes);
        let mut endless = start(&long, "XOAUTH2");
        endless.begin();
        let last = (0..20).map(|_| endless.reply(334, "")).last();
        assert!(matches!(last, Some(Said::No { .. })));
    }
}
