//! A milter is told of one SMTP connection, and its messages.
//!
//! What it needs not be asked is not asked: after it accepted a message nothing more of this message,
//! after it accepted or refused the client nothing at all; the verdict is `Continue` then. After any
//! [`Trouble`] the conversation is over: what it was asked about is for the caller to decide, and who
//! wants to go on opens another.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base::config::Milter;

use crate::command;
use crate::link::{Link, Stream};
use crate::macros::{self, Stage, Values};
use crate::packet::{self, Garbage};
use crate::reply::{Modification, Reply, Verdict};
use crate::terms::{self, Step, Terms};

/// How long a milter may keep us waiting by saying that it is at work, when its time is shorter. RFC
/// 5321 4.5.3.2.6: the client waits ten minutes.
const LONGEST: Duration = Duration::from_mins(10);
/// Octets of steps without an answer that are collected before they are sent.
const MUCH: usize = 64 << 10;
/// Changes of one message, and octets of all but its body.
const MAX_CHANGES: usize = 10_000;
const MAX_CHANGED: usize = 1 << 20;
/// Octets of a piece of a new body that is no change to be counted.
const PIECE: usize = 4 << 10;

/// Why a milter is of no use any more.
#[derive(Debug)]
pub enum Trouble {
    /// It closed the connection.
    Gone,
    /// It did not answer in its time.
    Late,
    /// It sent what is none of the protocol, or what was not agreed.
    Garbage(Garbage),
    /// It says that it cannot do its work.
    Failed,
    /// It cannot be reached.
    Io(io::Error),
    /// It is not the milter's fault: the message could not be read, or a change not be kept.
    Ours(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Late,
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Self::Gone,
            _ => Self::Io(e),
        }
    }
}

impl From<Garbage> for Trouble {
    fn from(garbage: Garbage) -> Self {
        Self::Garbage(garbage)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => write!(f, "it closed the connection"),
            Self::Late => write!(f, "it does not answer in time"),
            Self::Garbage(Garbage(what)) => write!(f, "it sent {what}"),
            Self::Failed => write!(f, "it says that it cannot work"),
            Self::Io(e) => write!(f, "{e}"),
            Self::Ours(e) => write!(f, "read or write a message: {e}"),
        }
    }
}

/// What it is not asked about any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Settled {
    Nothing,
    Message,
    Connection,
}

/// What takes a milter's changes, one after the other.
pub type Changes<'a> = &'a mut dyn FnMut(Modification) -> io::Result<()>;

/// See the module.
#[derive(Debug)]
pub struct Conversation {
    link: Link,
    terms: Terms,
    command_timeout: Duration,
    content_timeout: Duration,
    settled: Settled,
    /// It knows of a message that has not ended.
    in_message: bool,
    /// The last that it said was that a whole message may go on.
    rests: bool,
}

impl Conversation {
    /// Connects and negotiates. Blocks, up to the milter's connect timeout for each of both.
    pub fn open(milter: &Milter) -> Result<Self, Trouble> {
        let stream = Stream::open(&milter.socket, milter.connect_timeout)?;
        Self::over(stream, milter)
    }

    pub(crate) fn over(stream: Stream, milter: &Milter) -> Result<Self, Trouble> {
        let mut link = Link::new(stream);
        let until = Instant::now() + milter.connect_timeout;
        *link.out() = terms::offer();
        link.send(until)?;
        let terms = Self::negotiate(&mut link, until)?;
        Ok(Self {
            link,
            terms,
            command_timeout: milter.command_timeout,
            content_timeout: milter.content_timeout,
            settled: Settled::Nothing,
            in_message: false,
            rests: false,
        })
    }

    /// The milter's answer to our offer. Its choice of macros may come with it, or before it.
    fn negotiate(link: &mut Link, until: Instant) -> Result<Terms, Trouble> {
        let mut lists = Vec::new();
        loop {
            let opening = link.receive(until, |packet| match packet.code {
                terms::CODE => Terms::parse(packet.data).map(Ok),
                terms::MACROS if lists.len() < Stage::COUNT => Ok(Err(packet.data.to_vec())),
                _ => Err(Garbage("another answer than its terms")),
            })?;
            match opening {
                Err(list) => lists.push(list),
                Ok(mut terms) => {
                    for list in &lists {
                        terms.set_macros(list)?;
                    }
                    return Ok(terms);
                }
            }
        }
    }

    /// Ends it and keeps the connection for another client, for whom it begins with
    /// [`Conversation::connect`] on the same terms. `None` where the milter does not know that, or would
    /// not hear it: libmilter passes it over, and hangs, but right behind a message that may go on. Blocks,
    /// up to the command timeout.
    pub fn next_client(mut self) -> Option<Self> {
        if !self.terms.knows_next_client() || !self.rests || !self.link.is_idle() {
            return None;
        }
        packet::write(command::NEXT_CLIENT, &[], self.link.out());
        self.link.send(Instant::now() + self.command_timeout).ok()?;
        self.rests = false;
        Some(self)
    }

    /// What was agreed.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether it is to be told nothing more of this connection.
    pub fn is_over(&self) -> bool {
        self.settled == Settled::Connection
    }

    /// Whether it is to be told nothing more of this message.
    pub fn has_decided(&self) -> bool {
        self.settled != Settled::Nothing
    }

    /// A client came, from an IP address or from elsewhere.
    pub fn connect(
        &mut self,
        name: &str,
        from: Option<SocketAddr>,
        values: Values<'_>,
    ) -> Result<Verdict, Trouble> {
        let verdict = self.tell(Step::Connect, &command::connect(name, from), values)?;
        if verdict != Verdict::Continue {
            self.settle(Settled::Connection);
        }
        Ok(verdict)
    }

    /// It says who it is.
    pub fn helo(&mut self, name: &str, values: Values<'_>) -> Result<Verdict, Trouble> {
        self.abort()?;
        let verdict = self.tell(Step::Helo, &command::texts(&[name]), values)?;
        if matches!(verdict, Verdict::Accept | Verdict::Discard) {
            self.settle(Settled::Connection);
        }
        Ok(verdict)
    }

    /// A message begins: the reverse-path in `<>`, and its ESMTP parameters.
    pub fn mail(&mut self, args: &[&str], values: Values<'_>) -> Result<Verdict, Trouble> {
        self.abort()?;
        self.settled = match self.settled {
            Settled::Message => Settled::Nothing,
            other => other,
        };
        self.in_message = self.settled == Settled::Nothing;
        let verdict = self.tell(Step::Mail, &command::texts(args), values)?;
        Ok(self.message_settled(verdict))
    }

    /// A recipient in `<>`, and his ESMTP parameters. What is refused is refused him alone.
    pub fn recipient(&mut self, args: &[&str], values: Values<'_>) -> Result<Verdict, Trouble> {
        let verdict = self.tell(Step::Recipient, &command::texts(args), values)?;
        Ok(match verdict {
            Verdict::Accept | Verdict::Discard => self.message_settled(verdict),
            other => other,
        })
    }

    /// The client wants to send the content.
    pub fn data(&mut self, values: Values<'_>) -> Result<Verdict, Trouble> {
        let verdict = self.tell(Step::Data, b"", values)?;
        Ok(self.message_settled(verdict))
    }

    /// A command that we do not know, or that is wrong.
    pub fn unknown(&mut self, line: &str, values: Values<'_>) -> Result<Verdict, Trouble> {
        self.tell(Step::Unknown, &command::texts(&[line]), values)
    }

    /// The content: its fields, with the empty line or without, and what follows. What the milter
    /// changes goes to `changes`; it counts when the verdict is `Continue` or `Accept`.
    pub fn content(
        &mut self,
        header: &[u8],
        body: &mut dyn Read,
        values: Values<'_>,
        changes: Changes<'_>,
    ) -> Result<Verdict, Trouble> {
        for field in mime::header::fields(header) {
            let (space, most) = (self.terms.leading_space(), self.terms.most_data());
            let data = command::field(field.name, field.raw, space, most);
            let verdict = self.tell(Step::Header, &data, &|_| None)?;
            if verdict != Verdict::Continue {
                return Ok(self.message_settled(verdict));
            }
        }
        let verdict = self.tell(Step::EndOfHeader, b"", values)?;
        if verdict != Verdict::Continue {
            return Ok(self.message_settled(verdict));
        }
        let verdict = self.body(body)?;
        if verdict != Verdict::Continue {
            return Ok(self.message_settled(verdict));
        }
        self.end(values, changes)
    }

    /// The message is no more; the client may begin another.
    pub fn abort(&mut self) -> Result<(), Trouble> {
        if !self.in_message {
            return Ok(());
        }
        self.in_message = false;
        packet::write(command::ABORT, &[], self.link.out());
        self.link.send(Instant::now() + self.command_timeout)
    }

    fn body(&mut self, body: &mut dyn Read) -> Result<Verdict, Trouble> {
        if self.settled != Settled::Nothing || !self.terms.wants(Step::Body) {
            return Ok(Verdict::Continue);
        }
        let most = u64::try_from(self.terms.most_data()).unwrap_or(u64::MAX);
        let mut piece = Vec::new();
        loop {
            piece.clear();
            let mut rest = body.take(most);
            rest.read_to_end(&mut piece).map_err(Trouble::Ours)?;
            if piece.is_empty() {
                return Ok(Verdict::Continue);
            }
            self.write(Step::Body, &piece, &|_| None)?;
            if !self.terms.answers(Step::Body) {
                continue;
            }
            match self.answer(self.command_timeout)? {
                Heard::Skip if self.terms.may_skip() => return Ok(Verdict::Continue),
                Heard::Verdict(Verdict::Continue) => {}
                Heard::Verdict(verdict) => return Ok(verdict),
                Heard::Skip | Heard::Change(_) => return Err(OUT_OF_PLACE.into()),
            }
        }
    }

    fn end(&mut self, values: Values<'_>, changes: Changes<'_>) -> Result<Verdict, Trouble> {
        if self.settled != Settled::Nothing {
            return Ok(Verdict::Continue);
        }
        self.write(Step::EndOfMessage, b"", values)?;
        let (mut count, mut octets) = (0_usize, 0_usize);
        loop {
            let change = match self.answer(self.content_timeout)? {
                Heard::Verdict(verdict) => {
                    self.in_message = false;
                    self.rests = verdict == Verdict::Continue;
                    return Ok(self.message_settled(verdict));
                }
                Heard::Change(change) => change,
                Heard::Skip => return Err(OUT_OF_PLACE.into()),
            };
            if !self.terms.allows(&change) {
                return Err(Garbage("a change that it did not announce").into());
            }
            match &change {
                // Who takes the pieces of a body bounds what they are together.
                Modification::ReplaceBody(piece) if piece.len() >= PIECE => {}
                other => {
                    count = count.saturating_add(1);
                    octets = octets.saturating_add(other.octets());
                }
            }
            if count > MAX_CHANGES || octets > MAX_CHANGED {
                return Err(Garbage("more changes than a message may have").into());
            }
            changes(change).map_err(Trouble::Ours)?;
        }
    }

    /// A verdict on a message: all but "go on" ends it for this milter.
    fn message_settled(&mut self, verdict: Verdict) -> Verdict {
        if verdict != Verdict::Continue {
            // With any other word than yes it has forgotten the message already.
            self.in_message &= verdict == Verdict::Accept;
            self.settle(match verdict {
                Verdict::Shutdown => Settled::Connection,
                _ => Settled::Message,
            });
        }
        verdict
    }

    fn settle(&mut self, what: Settled) {
        self.settled = self.settled.max(what);
    }

    /// One step, with its answer where it has one.
    fn tell(&mut self, step: Step, data: &[u8], values: Values<'_>) -> Result<Verdict, Trouble> {
        if self.settled != Settled::Nothing {
            return Ok(Verdict::Continue);
        }
        self.write(step, data, values)?;
        if !self.terms.wants(step) || !self.terms.answers(step) {
            return Ok(Verdict::Continue);
        }
        match self.answer(self.command_timeout)? {
            Heard::Verdict(verdict) => Ok(verdict),
            Heard::Skip | Heard::Change(_) => Err(OUT_OF_PLACE.into()),
        }
    }

    /// A step with the macros before it. A milter may want the macros of a step and not the step.
    fn write(&mut self, step: Step, data: &[u8], values: Values<'_>) -> Result<(), Trouble> {
        self.rests = false;
        let most = self.terms.most_data();
        if let Some(stage) = step.stage() {
            let out = self.link.out();
            match self.terms.macros(stage) {
                Some(names) => {
                    let names = names.iter().map(String::as_str);
                    macros::write(step.code(), names, values, most, out);
                }
                None => {
                    let names = stage.usual().iter().copied();
                    macros::write(step.code(), names, values, most, out);
                }
            }
        }
        if self.terms.wants(step) {
            let data = data.get(..most).unwrap_or(data);
            packet::write(step.code(), &[data], self.link.out());
        }
        if self.link.out().len() > MUCH {
            self.link.send(Instant::now() + self.command_timeout)?;
        }
        Ok(())
    }

    /// Sends what waits, and listens; who is at work is waited for longer.
    fn answer(&mut self, patience: Duration) -> Result<Heard, Trouble> {
        let began = Instant::now();
        let last = began + patience.max(LONGEST);
        self.link.send(began + patience)?;
        let mut until = began + patience;
        loop {
            return Ok(match self.link.receive(until, Reply::parse)? {
                Reply::Progress => {
                    until = last.min(Instant::now() + patience);
                    continue;
                }
                Reply::Verdict(verdict) => Heard::Verdict(verdict),
                Reply::Modify(change) => Heard::Change(change),
                Reply::Skip => Heard::Skip,
                Reply::Failed => return Err(Trouble::Failed),
            });
        }
    }
}

const OUT_OF_PLACE: Garbage = Garbage("an answer that has no place there");

enum Heard {
    Verdict(Verdict),
    Change(Modification),
    Skip,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let mut quit = Vec::new();
        packet::write(command::QUIT, &[], &mut quit);
        self.link.leave(&quit);
    }
}
