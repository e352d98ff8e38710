//! `-bs`: SMTP on standard input and output, with a mail program that runs us as its user.
//!
//! Nothing here has a privilege: each message goes into drop/ like one that was given on standard
//! input, so whoever may run sendmail may speak SMTP with it. Where standard input is a connection
//! from the network, smtpd speaks instead, which knows whom to relay for.
//!
//! Guarantees: 250 to the final dot says that the message survives power loss. A line ends with LF,
//! because people type here too; but where DATA was sent with CRLF only CRLF.CRLF ends the message,
//! so that nothing within it can.

use std::collections::HashSet;
use std::io::{BufRead, Read, Write};

use base::address;
use base::envelope::{Body, Needs};
use base::{Address, Config, Doing, Fail, Recipient, ReversePath, Root, Status, Sysexit};
use queue::QueueId;
use queue::drop::{Letter, Submission};
use rules::{Mailer, Router};

use crate::message::Lines;
use crate::submit::MAX_RECIPIENTS;

/// Octets of a command: RFC 5321 4.5.3.1.4 with room for parameters.
const MAX_COMMAND: u64 = 4096;
/// Octets of the message that are held at once.
const PIECE: u64 = 64 << 10;

/// One conversation.
pub(crate) struct Session<'a> {
    pub(crate) root: &'a Root,
    pub(crate) config: &'a Config,
    pub(crate) router: &'a Router,
    pub(crate) input: &'a mut dyn BufRead,
    pub(crate) output: &'a mut dyn Write,
}

/// A transaction under way.
struct Mail {
    sender: ReversePath,
    body: Body,
    smtputf8: bool,
    recipients: Vec<Recipient>,
    seen: HashSet<Address>,
}

/// A line of input.
struct Line {
    text: Vec<u8>,
    ends: Ends,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Crlf,
    Lf,
    /// It is longer than it may be, or the input is over.
    Not,
}

impl Session<'_> {
    /// Until QUIT or the end of the input.
    pub(crate) fn run(mut self) -> Result<(), Fail> {
        let name = &self.config.official_name;
        self.say(&format!("220 {name} ESMTP"))?;
        let mut mail = None;
        while let Some(line) = self.line(MAX_COMMAND)? {
            if line.ends == Ends::Not && line.text.len() as u64 >= MAX_COMMAND {
                self.skip_line()?;
                self.say("500 5.5.6 Line too long")?;
                continue;
            }
            let text = String::from_utf8_lossy(&line.text).trim().to_owned();
            let (verb, rest) = text.split_once(' ').unwrap_or((&text, ""));
            let verb = verb.to_ascii_uppercase();
            if verb == "QUIT" {
                return self.say("221 2.0.0 Bye");
            }
            let reply = match verb.as_str() {
                "DATA" => match mail.take() {
                    Some(mail) => self.data(mail, line.ends)?,
                    None => "503 5.5.1 MAIL first".into(),
                },
                "MAIL" if mail.is_some() => "503 5.5.1 One sender is enough".into(),
                "MAIL" => match self.mail(rest) {
                    Ok(begun) => {
                        mail = Some(begun);
                        "250 2.1.0 Ok".into()
                    }
                    Err(reply) => reply,
                },
                "RCPT" => match &mut mail {
                    Some(mail) => self.rcpt(rest, mail).unwrap_or_else(|reply| reply),
                    None => "503 5.5.1 MAIL first".into(),
                },
                "HELO" | "EHLO" | "RSET" => {
                    mail = None;
                    self.greet(&verb)
                }
                "NOOP" => "250 2.0.0 Ok".into(),
                "HELP" => "214 2.0.0 See sendmail(8)".into(),
                "VRFY" => "252 2.5.0 Send some mail and see".into(),
                _ => "500 5.5.1 Unknown command".into(),
            };
            self.say(&reply)?;
        }
        Ok(())
    }

    fn greet(&self, verb: &str) -> String {
        let name = &self.config.official_name;
        match verb {
            "EHLO" => format!(
                "250-{name}\r\n250-PIPELINING\r\n250-SIZE {}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES",
                self.config.message_size_limit
            ),
            "HELO" => format!("250 {name}"),
            _ => "250 2.0.0 Ok".into(),
        }
    }

    /// `FROM:<path> [parameters]`; what is wrong is the reply.
    fn mail(&self, rest: &str) -> Result<Mail, String> {
        let rest = after(rest, "FROM:").ok_or("501 5.5.4 Write MAIL FROM:<address>")?;
        let (sender, parameters) = match address::reverse_path(rest.as_bytes()) {
            Ok((left, sender)) => (sender, left),
            Err(_) => {
                let (left, local) = address::bare_local(rest.as_bytes())
                    .map_err(|_| "501 5.1.7 Bad sender address syntax")?;
                let own = Address::new(local, self.router.here().clone());
                (ReversePath::Address(own), left)
            }
        };
        let is_ascii = spelled(rest, parameters).is_ascii();
        let mut smtputf8 = false;
        // What nobody said may have any octets.
        let mut body = Body::EightBitMime;
        for word in words(parameters)? {
            match word.split_once('=').unwrap_or((&word, "")) {
                ("SIZE", size) => {
                    let size: u64 = size.parse().map_err(|_| "501 5.5.4 SIZE of what?")?;
                    if size > self.config.message_size_limit {
                        return Err(self.too_big());
                    }
                }
                ("BODY", "7BIT") => body = Body::SevenBit,
                ("BODY", "8BITMIME") => (),
                ("SMTPUTF8", "") => smtputf8 = true,
                _ => return Err("555 5.5.4 Unknown parameter".into()),
            }
        }
        if !is_ascii && !smtputf8 {
            return Err(NEEDS_SMTPUTF8.into());
        }
        Ok(Mail {
            sender,
            body,
            smtputf8,
            recipients: Vec::new(),
            seen: HashSet::new(),
        })
    }

    /// `TO:<path>`
    fn rcpt(&self, rest: &str, mail: &mut Mail) -> Result<String, String> {
        let rest = after(rest, "TO:").ok_or("501 5.5.4 Write RCPT TO:<address>")?;
        let (parameters, address) = match address::path(rest.as_bytes()) {
            Ok(found) => found,
            Err(_) => {
                let (left, local) = address::bare_local(rest.as_bytes())
                    .map_err(|_| "501 5.1.3 Bad recipient address syntax")?;
                (left, Address::new(local, self.router.here().clone()))
            }
        };
        if !words(parameters)?.is_empty() {
            return Err("555 5.5.4 Unknown parameter".into());
        }
        if !mail.smtputf8 && !spelled(rest, parameters).is_ascii() {
            return Err(NEEDS_SMTPUTF8.into());
        }
        if let Mailer::Error { status, text } = self.router.route(&address).mailer {
            return Err(format!("{} {status} {text}", code(status)));
        }
        if mail.recipients.len() >= MAX_RECIPIENTS {
            return Err("452 4.5.3 Too many recipients".into());
        }
        if mail.seen.insert(address.clone()) {
            mail.recipients.push(Recipient::new(address));
        }
        Ok("250 2.1.5 Ok".into())
    }

    /// The message; gives the reply to its end.
    fn data(&mut self, mail: Mail, ends: Ends) -> Result<String, Fail> {
        if mail.recipients.is_empty() {
            return Ok("554 5.5.1 No valid recipients".into());
        }
        let letter = Letter {
            sender: Some(mail.sender),
            recipients: mail.recipients,
            body: mail.body,
            ret: None,
            envid: None,
            needs: Needs {
                smtputf8: mail.smtputf8,
                ..Needs::default()
            },
        };
        let submission = match Submission::create(self.root, &letter) {
            Ok(submission) => submission,
            Err(fail) => return Ok(refusal(&fail)),
        };
        self.say("354 End with a line of one dot")?;
        Ok(match self.content(submission, ends)? {
            Ok(id) => format!("250 2.0.0 Ok: queued as {id}"),
            Err(reply) => reply,
        })
    }

    /// Reads up to the end of the message in any case, so that what follows is commands again.
    fn content(
        &mut self,
        submission: Submission,
        ends: Ends,
    ) -> Result<Result<QueueId, String>, Fail> {
        let mut taken = Ok(submission);
        let mut lines = Lines::new(true);
        let mut held = Vec::new();
        let mut fresh = true;
        loop {
            let Some(line) = self.line(PIECE)? else {
                return Err(Fail::data("the input ended in mid-message"));
            };
            let whole = line.ends == Ends::Crlf || (line.ends == Ends::Lf && ends == Ends::Lf);
            if fresh && whole && line.text == b"." {
                break;
            }
            let text = match line.text.strip_prefix(b".") {
                Some(text) if fresh => text,
                _ => &line.text,
            };
            lines.feed(text, &mut held);
            lines.feed(line.ends.octets(), &mut held);
            fresh = whole;
            taken = taken.and_then(|submission| self.write(submission, &mut held));
            held.clear();
        }
        lines.finish(&mut held);
        let taken = taken.and_then(|submission| self.write(submission, &mut held));
        Ok(taken.and_then(|submission| submission.commit().map_err(|fail| refusal(&fail))))
    }

    fn write(&self, mut submission: Submission, bytes: &mut [u8]) -> Result<Submission, String> {
        submission.write(bytes).map_err(|fail| refusal(&fail))?;
        if submission.size() > self.config.message_size_limit {
            return Err(self.too_big());
        }
        Ok(submission)
    }

    fn too_big(&self) -> String {
        let limit = self.config.message_size_limit;
        format!("552 5.3.4 Message is larger than {limit} octets")
    }

    /// The next line without its end, or as much of it as `limit` allows. `None`: there is no more.
    fn line(&mut self, limit: u64) -> Result<Option<Line>, Fail> {
        let mut text = Vec::new();
        let mut input = (&mut *self.input).take(limit);
        let read = input
            .read_until(b'\n', &mut text)
            .doing(|| "read standard input")?;
        if read == 0 {
            return Ok(None);
        }
        let mut ends = Ends::Not;
        if text.pop_if(|b| *b == b'\n').is_some() {
            let crlf = text.pop_if(|b| *b == b'\r').is_some();
            ends = if crlf { Ends::Crlf } else { Ends::Lf };
        }
        Ok(Some(Line { text, ends }))
    }

    fn skip_line(&mut self) -> Result<(), Fail> {
        while let Some(line) = self.line(PIECE)? {
            if line.ends != Ends::Not {
                break;
            }
        }
        Ok(())
    }

    fn say(&mut self, reply: &str) -> Result<(), Fail> {
        let said = write!(self.output, "{reply}\r\n").and_then(|()| self.output.flush());
        said.doing(|| "write to standard output")
            .map_err(|fail| fail.with_code(Sysexit::IoErr))
    }
}

impl Ends {
    fn octets(self) -> &'static [u8] {
        match self {
            Self::Crlf => b"\r\n",
            Self::Lf => b"\n",
            Self::Not => b"",
        }
    }
}

/// What stands behind `prefix`, which is written in any case, and behind blanks.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.trim_start().split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| rest.trim_start())
}

/// RFC 6531 3.5
const NEEDS_SMTPUTF8: &str = "553 5.6.7 An address beyond ASCII needs SMTPUTF8 in MAIL FROM";

/// What stands before the parameters.
fn spelled<'a>(rest: &'a str, parameters: &[u8]) -> &'a [u8] {
    let length = rest.len().saturating_sub(parameters.len());
    rest.as_bytes().get(..length).unwrap_or_default()
}

/// Parameters in capitals: none of those that are known here is told apart by case.
fn words(parameters: &[u8]) -> Result<Vec<String>, String> {
    let text = String::from_utf8_lossy(parameters).to_ascii_uppercase();
    if !text.is_empty() && !text.starts_with(' ') {
        return Err("501 5.5.4 Nothing but parameters may follow the address".into());
    }
    Ok(text.split_ascii_whitespace().map(Into::into).collect())
}

fn code(status: Status) -> u16 {
    if status.class() == 4 { 450 } else { 550 }
}

/// The reply to what went wrong; what it was goes to stderr.
fn refusal(fail: &Fail) -> String {
    log::error!("{fail}");
    match fail.code() {
        _ if fail.is_full() => "452 4.3.1 No space left, try again later".into(),
        Sysexit::DataErr => "554 5.6.0 Message refused".into(),
        _ => "451 4.3.0 Cannot be queued now, try again later".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::{Place, Queue};
    use std::path::Path;

    /// What is answered to a whole conversation, its codes alone, and what is in drop/ then.
    fn play(input: &[u8]) -> (Vec<String>, Vec<String>, Result<(), Fail>) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let text = "MY_NAME=mx\nMY_DOMAIN=example.org\nFROM_ADDRESS=example.org\n\
                    MESSAGE_SIZE_LIMIT=1K\nDIRECT_DELIVER_DOMAINS=org\n";
        let config = Config::parse(&root, text, Path::new("t")).unwrap();
        let queue = Queue::create(&root).unwrap();
        let router = Router::new(&config);
        let mut output = Vec::new();
        let session = Session {
            root: &root,
            config: &config,
            router: &router,
            input: &mut &*input,
            output: &mut output,
        };
        let ended = session.run();
        let output = String::from_utf8(output).unwrap();
        let codes = output
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with("250-"))
            .filter_map(|line| Some(line.get(..3)?.to_owned()))
            .collect();
        let mut dropped = Vec::new();
        for view in queue.list().unwrap() {
            assert_eq!(view.place, Place::Drop);
            let file = dir
                .path()
                .join("var/spool/yubin/drop")
                .join(view.id.as_str());
            let to = view.recipients.iter();
            let to: Vec<_> = to.map(|r| r.recipient.address.to_string()).collect();
            let file = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
            let from = view.reverse_path.unwrap();
            dropped.push(format!("{from} {}\n{file}", to.join(",")));
        }
        (codes, dropped, ended)
    }

    #[test]
    fn each_accepted_message_is_a_submission() {
        let (codes, dropped, ended) = play(
            b"EHLO x\r\nMAIL FROM:<ann> SIZE=9 BODY=8BITMIME\r\nRCPT TO:<bob@x.org>\r\n\
              RCPT TO:<bob@x.org>\r\nRCPT TO:<eve>\r\nDATA\r\nSubject: s\r\n\r\n..\r\n\n.\nx\r\n.\r\n\
              mail from:<>\nrcpt to:<@a.org:bob@x.org>\ndata\nsecond\n.\nQUIT\r\nNOOP\r\n",
        );
        ended.unwrap();
        let wanted = "220 250 250 250 250 250 354 250 250 250 354 250 221";
        assert_eq!(codes.join(" "), wanted);
        assert_eq!(dropped.len(), 2);
        let first = dropped
            .iter()
            .find(|d| d.starts_with("ann@example.org "))
            .unwrap();
        assert!(
            first.starts_with("ann@example.org bob@x.org,eve@example.org\n"),
            "{first}"
        );
        assert!(
            first.contains("Subject: s\r\n\r\n.\r\n\r\n.\r\nx\r\n"),
            "{first}"
        );
        let second = dropped
            .iter()
            .find(|d| d.starts_with(" bob@x.org\n"))
            .unwrap();
        assert!(second.contains("second\r\n"), "{second}");
    }

    #[test]
    fn what_is_refused_leaves_nothing_and_the_session_goes_on() {
        let long = [b'x'; 5000];
        let body = [b'y'; 2000];
        let table: &[(&[&[u8]], &str)] = &[
            (
                &[b"DATA\r\n", b"RCPT TO:<a@x.org>\r\n", b"WHAT\r\n", b"\r\n"],
                "220 503 503 500 500",
            ),
            (
                &[b"MAIL FROM:<a b>\r\n", b"MAIL FROM:ann\r\n", b"MAIL\r\n"],
                "220 501 501 501",
            ),
            (
                &[
                    b"MAIL FROM:<a@x.org> SIZE=2000\r\n",
                    b"MAIL FROM:<a@x.org> X=Y\r\n",
                ],
                "220 552 555",
            ),
            (
                &[b"MAIL FROM:<>\r\n", b"RCPT TO:<a@x.com>\r\n", b"DATA\r\n"],
                "220 250 550 554",
            ),
            (&[b"NOOP ", &long, b"\r\nNOOP\r\n"], "220 500 250"),
            (
                &[
                    b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n",
                    &body,
                    b"\r\n.\r\nNOOP\r\n",
                ],
                "220 250 250 354 552 250",
            ),
            (
                &[b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nRSET\r\nDATA\r\n"],
                "220 250 250 250 503",
            ),
        ];
        for (input, wanted) in table {
            let (codes, dropped, ended) = play(&input.concat());
            ended.unwrap();
            assert_eq!(codes.join(" "), *wanted);
            assert!(dropped.is_empty());
        }
        let (_, dropped, ended) = play(b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\nx\r\n.");
        assert_eq!(ended.unwrap_err().code(), Sysexit::DataErr);
        assert!(dropped.is_empty());
    }
}
