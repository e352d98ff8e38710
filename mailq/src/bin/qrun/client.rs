//! The client's side of one SMTP transaction: RFC 5321, with PIPELINING (2920), SIZE (1870),
//! 8BITMIME (6152), CHUNKING and BINARYMIME (3030), STARTTLS (3207), DSN (3461), SMTPUTF8 (6531) and
//! REQUIRETLS (8689), and Postfix's XFORWARD for content filters. A pure state machine.
//!
//! It ends with a verdict for each recipient, taken from the server's own words. Silence, nonsense
//! and a lost connection are never more than "try later".
//!
//! Content with octets over 127 is sent as it is to a server without 8BITMIME: every server that
//! is left passes them on, and rewriting a message would break its signatures. Binary parts go as they are,
//! by BDAT, to a server with BINARYMIME alone; every other gets the message in its form by lines. Addresses beyond
//! ASCII, and what may travel over TLS only, never go to a server that has not announced that it
//! takes them: it is [`Outcome::unfit`].

mod abilities;

use std::time::Duration;

use base::Status;

use self::abilities::Abilities;
use crate::mail::{Mail, Notify};
use crate::reply::{Replies, Reply};

/// Recipients in one flight of pipelined commands: their replies fit the smallest socket buffer,
/// so that neither side can wait for the other to read (RFC 2920 3.1).
const FLIGHT: usize = 40;
/// REQUIRETLS support required: RFC 8689 4.2.1.
const NEEDS_TLS: Status = Status::new(5, 7, 30);
/// Cryptographic failure.
const NO_TLS_NOW: Status = Status::new(4, 7, 5);

/// What the driver tells.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    Bytes(&'a [u8]),
    /// The handshake that was asked for is through.
    TlsUp,
    /// The whole content and the final dot are written.
    ContentSent,
    /// The connection is of no more use: why, in words for the sender.
    Lost(&'a str),
}

/// What the driver does, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Send(String),
    StartTls,
    SendContent,
    /// By BDAT, as it is, in so many octets.
    SendBinary(u64),
    Close,
}

/// What the server made of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Its class says it all: 2 taken, 4 try later, 5 never.
    pub(crate) status: Status,
    pub(crate) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    /// The handshake.
    Tls,
    /// The answer to one of the commands that tell of the message's client.
    Forward,
    Mail,
    /// Replies to the recipients from `next` on; those before `sent` are asked.
    Rcpt {
        next: usize,
        sent: usize,
    },
    Data,
    Content,
    EndOfData,
    /// The end of a message that has no recipient left, which the server asked for too early.
    Nothing,
    Closed,
}

/// One transaction on one connection.
#[derive(Debug)]
pub(crate) struct Client {
    mail: Mail,
    /// `mx.example.org[192.0.2.1]:25`
    peer: String,
    tls: Tls,
    state: State,
    replies: Replies,
    abilities: Abilities,
    verdicts: Vec<Option<Verdict>>,
    /// What is still to be told of the message's client, the last first.
    forward: Vec<String>,
    /// DATA was pipelined behind the recipients.
    data_sent: bool,
    /// How many replies were read.
    heard: usize,
    tls_failed: bool,
    unfit: bool,
    progress: Progress,
}

/// Whether the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Wanted where it is offered.
    May,
    /// Not any more: it was tried with this server and failed.
    Failed,
    Up,
}

/// How far it came, for who decides what to try next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    Unreached,
    /// Not past the greeting: this host does not serve now.
    Connected,
    /// A server that speaks with us.
    Greeted,
    /// The final dot is written and no reply came: nobody knows what became of the message.
    Ended,
}

/// How it came out.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// One a recipient, in their order.
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) progress: Progress,
    /// The connection ended in the TLS handshake.
    pub(crate) tls_failed: bool,
    /// The server reports successes itself (RFC 3461).
    pub(crate) dsn: bool,
    /// It lacks what the message needs: another may have it.
    pub(crate) unfit: bool,
}

impl Client {
    /// For a connection that was just made. The server speaks first.
    pub(crate) fn new(mail: Mail, peer: String, tls: Tls) -> Self {
        let verdicts = vec![None; mail.recipients.len()];
        Self {
            mail,
            peer,
            tls,
            state: State::Greeting,
            replies: Replies::default(),
            abilities: Abilities::default(),
            verdicts,
            forward: Vec::new(),
            data_sent: false,
            heard: 0,
            tls_failed: false,
            unfit: false,
            progress: Progress::Connected,
        }
    }

    /// One event and what follows from it.
    pub(crate) fn step(&mut self, input: Input<'_>, actions: &mut Vec<Action>) {
        match input {
            Input::Bytes(bytes) => {
                self.replies.push(bytes);
                self.read(actions);
            }
            Input::TlsUp => {
                self.tls = Tls::Up;
                self.abilities = Abilities::default();
                self.ehlo(actions);
            }
            Input::ContentSent => {
                self.progress = Progress::Ended;
                self.enter(State::EndOfData);
            }
            Input::Lost(why) => {
                self.tls_failed = self.state == State::Tls;
                let text = format!("{why} with {} while {}", self.peer, self.doing());
                self.decide_rest(Status::BAD_CONNECTION, &text);
                self.enter(State::Closed);
                actions.push(Action::Close);
            }
        }
    }

    /// How long the server has for what is awaited now: RFC 5321 4.5.3.2.
    pub(crate) fn deadline(&self) -> Duration {
        let minutes = match self.state {
            State::Data => 2,
            State::Content => 3,
            State::EndOfData => 10,
            _ => 5,
        };
        Duration::from_secs(minutes * 60)
    }

    /// How many replies came: each of them has a time of its own.
    pub(crate) fn replies(&self) -> usize {
        self.heard
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The end. What is not known is to be tried again.
    pub(crate) fn outcome(mut self) -> Outcome {
        self.decide_rest(
            Status::BAD_CONNECTION,
            &format!("lost connection with {}", self.peer),
        );
        Outcome {
            verdicts: self.verdicts.into_iter().flatten().collect(),
            progress: self.progress,
            tls_failed: self.tls_failed,
            dsn: self.abilities.dsn,
            unfit: self.unfit,
        }
    }

    fn enter(&mut self, state: State) {
        log::trace!("{}: {:?}", self.peer, state);
        self.state = state;
    }

    fn read(&mut self, actions: &mut Vec<Action>) {
        while !matches!(self.state, State::Closed | State::Tls) {
            match self.replies.next() {
                Ok(Some(reply)) => {
                    log::debug!("{}: {}", self.peer, base::escape::escape(&reply.text()));
                    self.heard = self.heard.saturating_add(1);
                    self.reply(&reply, actions);
                }
                Ok(None) => return,
                Err(nonsense) => {
                    let text = format!("{} sent {nonsense} while {}", self.peer, self.doing());
                    self.decide_rest(Status::new(4, 5, 0), &text);
                    self.enter(State::Closed);
                    actions.push(Action::Close);
                }
            }
        }
    }

    /// RFC 5321 4.2.4.2 and 3.8: 421 may come at any time and ends everything.
    fn reply(&mut self, reply: &Reply, actions: &mut Vec<Action>) {
        if reply.code == 421 && self.state != State::Greeting {
            return self.refused_all(reply, actions);
        }
        match self.state {
            State::Greeting => self.greeting(reply, actions),
            State::Ehlo => self.greeted(reply, actions),
            State::Helo if reply.class() == 2 => self.begin(actions),
            State::StartTls => self.starttls(reply, actions),
            State::Forward => {
                if reply.class() != 2 {
                    // It will know less.
                    log::warn!("{} says to XFORWARD: {}", self.peer, reply.text());
                }
                self.introduce(actions);
            }
            State::Mail => self.mail(reply, actions),
            State::Rcpt { next, sent } => self.rcpt(next, sent, reply, actions),
            State::Data => self.data(reply, actions),
            State::EndOfData => self.end_of_data(reply, actions),
            State::Nothing => self.quit(actions),
            // Content: a server that has seen enough before the end, or shuts down.
            State::Helo | State::Content => self.refused_all(reply, actions),
            State::Tls | State::Closed => (),
        }
    }

    fn greeting(&mut self, reply: &Reply, actions: &mut Vec<Action>) {
        if reply.class() == 2 {
            self.progress = Progress::Greeted;
            self.ehlo(actions);
        } else {
            // Also 554 is only about this host (RFC 5321 3.1): another may take it.
            let status = reply.status().with_class(4);
            self.decide_rest(status, &reply.text());
            self.quit(actions);
        }
    }

    fn ehlo(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::Send(format!("EHLO {}\r\n", self.mail.helo)));
        self.enter(State::Ehlo);
    }

    fn greeted(&mut self, reply: &Reply, actions: &mut Vec<Action>) {
        match reply.class() {
            2 => self.abilities = Abilities::read(reply),
            // RFC 5321 3.2: an old server, or one that does not like the new verb.
            5 if self.tls != Tls::Up => {
                actions.push(Action::Send(format!("HELO {}\r\n", self.mail.helo)));
                return self.enter(State::Helo);
            }
            _ => return self.refused_all(reply, actions),
        }
        if self.abilities.starttls && self.tls == Tls::May {
            actions.push(Action::Send("STARTTLS\r\n".into()));
            self.enter(State::StartTls);
        } else {
            self.begin(actions);
        }
    }

    fn starttls(&mut self, reply: &Reply, actions: &mut Vec<Action>) {
        if reply.class() != 2 && self.mail.needs.require_tls {
            // Not now, it says: certificates are mended.
            let text = format!("{} says to STARTTLS: {}", self.peer, reply.text());
            self.decide_rest(NO_TLS_NOW, &text);
            return self.quit(actions);
        }
        if reply.class() != 2 {
            // Offered and refused: the rest goes in the clear, as without the offer.
            return self.begin(actions);
        }
        if !self.replies.is_empty() {
            // Bytes behind the reply would be taken for encrypted ones.
            let text = format!("{} sent plaintext after STARTTLS", self.peer);
            self.decide_rest(Status::new(4, 7, 5), &text);
            self.enter(State::Closed);
            actions.push(Action::Close);
            return;
        }
        actions.push(Action::StartTls);
        self.enter(State::Tls);
    }

    /// What the message needs and the server has not.
    fn lack(&self) -> Option<(Status, &'static str)> {
        let (needs, has) = (self.mail.needs, self.abilities);
        if needs.smtputf8 && !has.smtputf8 {
            // RFC 6531 3.2
            return Some((Status::NOT_ASCII, "does not offer SMTPUTF8"));
        }
        if needs.require_tls && self.tls != Tls::Up {
            return Some((NEEDS_TLS, "does not offer STARTTLS, which REQUIRETLS needs"));
        }
        if needs.require_tls && !has.require_tls {
            return Some((NEEDS_TLS, "does not offer REQUIRETLS"));
        }
        None
    }

    /// The transaction, if the server can have the message.
    fn begin(&mut self, actions: &mut Vec<Action>) {
        if let Some((status, what)) = self.lack() {
            self.unfit = true;
            let text = format!("{} {what}", self.peer);
            self.decide_rest(status, &text);
            return self.quit(actions);
        }
        let size = self.binary().unwrap_or(self.mail.size);
        if let Some(limit) = self.abilities.size_limit
            && size > limit
        {
            let text = format!(
                "message of {size} octets is longer than {} takes, which is {limit}",
                self.peer
            );
            self.decide_rest(Status::TOO_BIG, &text);
            return self.quit(actions);
        }
        if let Some(forward) = &self.mail.forward {
            self.forward = forward.commands(self.abilities.forward);
            self.forward.reverse();
        }
        self.introduce(actions);
    }

    /// Whose the message is, for who wants to know; then the message.
    fn introduce(&mut self, actions: &mut Vec<Action>) {
        match self.forward.pop() {
            Some(command) => {
                actions.push(Action::Send(command));
                self.enter(State::Forward);
            }
            None => self.start_mail(actions),
        }
    }

    /// MAIL, and with PIPELINING the first recipients behind it.
    fn start_mail(&mut self, actions: &mut Vec<Action>) {
        let binary = self.binary();
        let size = binary.unwrap_or(self.mail.size);
        let mut line = format!("MAIL FROM:<{}>", self.mail.reverse_path);
        if self.abilities.size {
            line.push_str(&format!(" SIZE={size}"));
        }
        if binary.is_some() {
            line.push_str(" BODY=BINARYMIME");
        } else if self.abilities.eight_bit && self.mail.eight_bit {
            line.push_str(" BODY=8BITMIME");
        }
        if self.mail.needs.smtputf8 {
            line.push_str(" SMTPUTF8");
        }
        if self.mail.needs.require_tls {
            line.push_str(" REQUIRETLS");
        }
        if self.abilities.dsn {
            line.push_str(&self.mail.dsn_parameters());
        }
        line.push_str("\r\n");
        if self.abilities.pipelining {
            let sent = self.add_recipients(0, &mut line);
            actions.push(Action::Send(line));
            // The reply to MAIL comes first; `mail` goes on with the recipients.
            self.enter(State::Mail);
            self.data_sent = binary.is_none() && sent == self.mail.recipients.len();
        } else {
            actions.push(Action::Send(line));
            self.enter(State::Mail);
        }
    }

    /// The octets of the message as it is, where the server takes it so.
    fn binary(&self) -> Option<u64> {
        let has = self.abilities;
        self.mail.binary.filter(|_| has.chunking && has.binary)
    }

    /// A flight of recipients from `next` on, and DATA behind the last; gives where it ends.
    fn add_recipients(&self, next: usize, line: &mut String) -> usize {
        let flight = if self.abilities.pipelining { FLIGHT } else { 1 };
        let mut sent = next;
        for recipient in self.mail.recipients.iter().skip(next).take(flight) {
            line.push_str(&format!("RCPT TO:<{}>", recipient.path));
            if self.abilities.dsn {
                if let Notify::Given(words) = &recipient.notify {
                    line.push_str(&format!(" NOTIFY={words}"));
                }
                if let Some(orcpt) = &recipient.orcpt {
                    line.push_str(&format!(" ORCPT={orcpt}"));
                }
            }
            line.push_str("\r\n");
            sent += 1;
        }
        let data = self.abilities.pipelining && self.binary().is_none();
        if data && sent == self.mail.recipients.len() {
            line.push_str("DATA\r\n");
        }
        sent
    }

    fn mail(&mut self, reply: &Reply, actions: &mut Vec<Action>) {
        if reply.class() != 2 {
            return self.refused_all(reply, actions);
        }
        if self.abilities.pipelining {
            let sent = FLIGHT.min(self.mail.recipients.len());
            self.enter(State::Rcpt { next: 0, sent });
        } else {
            self.ask_recipients(0, actions);
        }
    }

    fn ask_recipients(&mut self, next: usize, actions: &mut Vec<Action>) {
        let mut line = String::new();
        let sent = self.add_recipients(next, &mut line);
        let data = self.abilities.pipelining && self.binary().is_none();
        self.data_sent = data && sent == self.mail.recipients.len();
        actions.push(Action::Send(line));
        self.enter(State::Rcpt { next, sent });
    }

    fn rcpt(&mut self, next: usize, sent: usize, reply: &Reply, actions: &mut Vec<Action>) {
        if reply.class() != 2 {
            let status = match reply.code {
                // RFC 5321 4.5.3.1.10: too many recipients, which is no fault of this one.
                552 => reply.status().with_class(4),
                _ if reply.class() == 5 => reply.status(),
                _ => reply.status().with_class(4),
            };
            let text = reply.text();
            if let Some(slot @ None) = self.verdicts.get_mut(next) {
                *slot = Some(Verdict { status, text });
            }
        }
        let next = next + 1;
        if next < sent {
            self.enter(State::Rcpt { next, sent });
        } else if next < self.mail.recipients.len() {
            self.ask_recipients(next, actions);
        } else if self.data_sent {
            self.enter(State::Data);
        } else if self.verdicts.iter().all(Option::is_some) {
            self.quit(actions);
        } else if let Some(size) = self.binary() {
            actions.push(Action::SendBinary(size));
            self.enter(State::Content);
        } else {
            actions.push(Action::Send("DATA\r\n".into()));
            self.enter(State::Data);
        }
    }

    fn data(&mut self, reply: &Reply, actions: &mut Vec<Action>) {
        let nobody = self.verdicts.iter().all(Option::is_some);
        match (reply.code, nobody) {
            (354, false) => {
                actions.push(Action::SendContent);
                self.enter(State::Content);
            }
            // RFC 2920 3.1: nobody is left, but the server waits for a message.
            (354, true) => {
                actions.push(Action::Send(".\r\n".into()));
                self.enter(State::Nothing);
            }
            (_, true) => self.quit(actions),
            (_, false) => self.refused_all(reply, actions),
        }
    }

    fn end_of_data(&mut self, reply: &Reply, actions: &mut Vec<Action>) {
        self.progress = Progress::Greeted;
        let text = reply.text();
        let status = match reply.class() {
            2 | 5 => reply.status(),
            _ => reply.status().with_class(4),
        };
        self.decide_rest(status, &text);
        self.quit(actions);
    }

    /// A reply that decides about everybody who has no verdict yet.
    fn refused_all(&mut self, reply: &Reply, actions: &mut Vec<Action>) {
        let text = reply.text();
        let status = match reply.class() {
            4 | 5 => reply.status(),
            // 2 or 3 where that is no answer.
            _ => Status::new(4, 5, 0),
        };
        self.decide_rest(status, &text);
        // In mid-content there is no way back to commands.
        if self.state == State::Content {
            self.enter(State::Closed);
            actions.push(Action::Close);
        } else {
            self.quit(actions);
        }
    }

    /// RFC 5321 4.1.1.10 wants QUIT; nothing depends on its reply, so nobody waits for it.
    fn quit(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::Send("QUIT\r\n".into()));
        actions.push(Action::Close);
        self.enter(State::Closed);
    }

    /// A verdict for everybody who has none: also the good one.
    fn decide_rest(&mut self, status: Status, text: &str) {
        for verdict in self.verdicts.iter_mut().filter(|v| v.is_none()) {
            *verdict = Some(Verdict {
                status,
                text: text.to_owned(),
            });
        }
    }

    /// For the sender, who is told what we did when the connection broke.
    fn doing(&self) -> &'static str {
        match self.state {
            State::Greeting => "waiting for its greeting",
            State::Ehlo | State::Helo => "introducing ourselves",
            State::StartTls | State::Tls => "starting TLS",
            State::Forward => "sending XFORWARD",
            State::Mail => "sending MAIL FROM",
            State::Rcpt { .. } => "sending RCPT TO",
            State::Data => "sending DATA",
            State::Content => "sending the message",
            State::EndOfData => {
                "waiting for its answer to the end of the message, possible duplicate"
            }
            State::Nothing | State::Closed => "ending the session",
        }
    }
}

#[cfg(test)]
mod tests;
