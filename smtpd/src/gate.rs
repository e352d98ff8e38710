//! The doors of a session: checks that may take their time, because they ask DNS, another program
//! or a file. A [`Door`] is asked at each stage it wants, on threads of the gate's own, while its
//! session takes no input; the loop never waits.
//!
//! A connection has a [`Visit`] only where a door wants it: without doors nothing is allocated, no
//! thread is started and each stage is answered in the step that asks.
//!
//! What a door must keep to: an answer within [`PATIENCE`], whatever the other side does; all that it
//! keeps is bounded.

pub(crate) mod checks;
mod content;
pub(crate) mod copies;
pub(crate) mod dnsbl;
mod facts;
mod lookup;
pub(crate) mod milter;
pub(crate) mod names;
pub(crate) mod policy;

use std::fmt;
use std::time::{Duration, Instant};

use base::escape::escape;
use base::{Address, Fail, Filter, Recipient};
use mailauth::iprev::Iprev;
use net::pool::Pool;

use crate::reply::Reply;

pub(crate) use content::{Body, Content, Mail, header_end};
pub(crate) use facts::{Facts, Hello, Login, Opened, Tls};

/// Doors that are asked at the same time of clients that come, of other stages, and of messages;
/// others wait for a thread. Each has its own, because a stranger can make some answers slow, that of
/// DNS about his host for one, and those inside must not wait for those at the door.
const THREADS: usize = 200;
/// How long one door may take for one question. A client waits two minutes for the answer to DATA
/// and five for others (RFC 5321 4.5.3.2), and there is more than one door.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Before the greeting.
    Client,
    /// EHLO or HELO.
    Hello,
    /// MAIL: a transaction begins.
    Sender,
    /// RCPT, of a recipient that we would take.
    Recipient,
    /// DATA or the first BDAT.
    Data,
    /// The message is whole.
    Message,
    /// A command that is none, at any time.
    Unknown,
}

/// What a door is asked; the rest is in the [`Facts`], as it was before the question: a sender is in
/// them already, a recipient only after it was taken.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Question<'a> {
    Client,
    Hello,
    Sender,
    Recipient(&'a Recipient),
    Data,
    /// The line.
    Unknown(&'a str),
}

impl Question<'_> {
    pub(crate) fn stage(&self) -> Stage {
        match self {
            Self::Client => Stage::Client,
            Self::Hello => Stage::Hello,
            Self::Sender => Stage::Sender,
            Self::Recipient(_) => Stage::Recipient,
            Self::Data => Stage::Data,
            Self::Unknown(_) => Stage::Unknown,
        }
    }
}

/// For the log.
impl fmt::Display for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recipient(recipient) => {
                write!(f, "to=<{}>", escape(&recipient.address.to_string()))
            }
            other => write!(f, "{:?}", other.stage()),
        }
    }
}

/// What a door says: nothing (the default), or one or more of these, with the meaning that Postfix's
/// access(5) gives them. At [`Stage::Client`] and [`Stage::Hello`] only `refuse` counts; at
/// [`Stage::Unknown`] it is the answer to what is refused anyway. At the other
/// stages the rest, but for the name, is for the message that the transaction becomes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ruling {
    /// The answer is no, and no further door is asked. 421 and 521 end the session. At
    /// [`Stage::Recipient`] it is for this one recipient, and nothing else of the ruling counts.
    pub(crate) refuse: Option<Reply>,
    /// The message, for all its recipients, is taken and thrown away. No further door is asked.
    pub(crate) discard: bool,
    /// The message is put aside until the operator lets it go, for this reason.
    pub(crate) hold: Option<String>,
    /// The message goes there instead of to its recipients. At [`Stage::Recipient`] it is for this
    /// one recipient.
    pub(crate) redirect: Option<Address>,
    /// The message goes to this content filter, and to no other.
    pub(crate) filter: Option<Box<Filter>>,
    /// Header fields that go before the message's own, without line ends.
    pub(crate) prepend: Vec<String>,
    /// What the client's host is called; later doors find it in the [`Facts`].
    pub(crate) name: Option<Iprev>,
    /// Somebody whom we believe speaks for the client; later doors find it in the [`Facts`].
    pub(crate) welcome: bool,
}

impl Ruling {
    /// With what a later door says. Of two reasons to hold the first stays, of two redirections and
    /// of two filters the last.
    pub(crate) fn add(&mut self, later: Self) {
        let Self {
            refuse,
            discard,
            hold,
            redirect,
            filter,
            mut prepend,
            name,
            welcome,
        } = later;
        self.refuse = self.refuse.take().or(refuse);
        self.discard |= discard;
        self.hold = self.hold.take().or(hold);
        self.redirect = redirect.or_else(|| self.redirect.take());
        self.filter = filter.or_else(|| self.filter.take());
        prepend.retain(|field| !self.prepend.contains(field));
        self.prepend.append(&mut prepend);
        self.name = name.or_else(|| self.name.take());
        self.welcome |= welcome;
    }

    fn is_final(&self) -> bool {
        self.refuse.is_some() || self.discard
    }
}

/// One check, for the time of one connection.
pub(crate) trait Door: Send {
    /// Whether it has something to say at this stage; elsewhere it is not called. Asked at any time,
    /// and cheap.
    fn wants(&self, stage: Stage) -> bool;

    /// What it says to a question. May block.
    fn ask(&mut self, question: Question<'_>, facts: &Facts) -> Ruling {
        let _ = (question, facts);
        Ruling::default()
    }

    /// What it says of a whole message, which it may change. May block. A failure is ours: the client
    /// shall try again.
    fn message(&mut self, mail: &mut Mail, facts: &Facts) -> Result<Ruling, Fail> {
        let _ = (mail, facts);
        Ok(Ruling::default())
    }

    /// A transaction is over, with a message or without one. It comes late, before the next
    /// question, and also to a door that knows of no transaction. May block.
    fn reset(&mut self) {}

    /// The connection is gone: the last call. May block.
    fn leave(&mut self) {}
}

/// Makes a door for a new connection; `None` where it has nothing to say to this client.
pub(crate) type Maker = Box<dyn Fn(&Facts) -> Option<Box<dyn Door>> + Send + Sync>;

/// Who makes the doors, and the threads that they are asked on.
pub(crate) struct Gate {
    makers: Vec<Maker>,
    arrivals: Pool,
    stages: Pool,
    messages: Pool,
}

impl Gate {
    /// The doors are asked in the order of their makers.
    pub(crate) fn new(makers: Vec<Maker>) -> Self {
        Self {
            makers,
            arrivals: Pool::new(THREADS),
            stages: Pool::new(THREADS),
            messages: Pool::new(THREADS),
        }
    }

    /// The visit of a new connection, where there is a door for it.
    pub(crate) fn visit(&self, facts: impl FnOnce() -> Facts) -> Option<Box<Visit>> {
        if self.makers.is_empty() {
            return None;
        }
        let facts = facts();
        let doors: Vec<_> = self.makers.iter().filter_map(|make| make(&facts)).collect();
        let over = false;
        let visit = Visit { facts, doors, over };
        (!visit.doors.is_empty()).then(|| Box::new(visit))
    }

    /// Runs what may block, at the end of a message.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.messages.submit(job);
    }

    /// Runs a question to the doors.
    pub(crate) fn ask(&self, stage: Stage, job: impl FnOnce() + Send + 'static) {
        let pool = match stage {
            Stage::Client => &self.arrivals,
            Stage::Hello | Stage::Sender | Stage::Recipient | Stage::Data | Stage::Unknown => {
                &self.stages
            }
            Stage::Message => &self.messages,
        };
        pool.submit(job);
    }

    /// The connection is gone.
    pub(crate) fn leave(&self, visit: Box<Visit>) {
        self.stages.submit(move || visit.leave());
    }
}

/// A connection before its doors. It is with the connection, or with a job that asks them.
pub(crate) struct Visit {
    pub(crate) facts: Facts,
    doors: Vec<Box<dyn Door>>,
    /// The doors are still to be told that the transaction is over.
    over: bool,
}

impl Visit {
    pub(crate) fn wants(&self, stage: Stage) -> bool {
        self.doors.iter().any(|door| door.wants(stage))
    }

    /// The transaction is over.
    pub(crate) fn forget(&mut self) {
        self.facts.transaction = None;
        self.over = true;
    }

    /// Asks the doors, until one refuses. Blocks.
    pub(crate) fn ask(&mut self, question: Question<'_>) -> Ruling {
        self.reset();
        log::debug!("{}, {question}?", self.facts);
        let mut whole = Ruling::default();
        for door in &mut self.doors {
            if door.wants(question.stage()) {
                let began = Instant::now();
                let ruling = door.ask(question, &self.facts);
                if let Some(name) = &ruling.name {
                    self.facts.learn(name);
                }
                self.facts.welcome |= ruling.welcome;
                whole.add(ruling);
                if began.elapsed() > PATIENCE {
                    let took = began.elapsed().as_secs();
                    log::warn!("{}: a check took {took} s: {question}", self.facts.shown);
                }
            }
            if whole.is_final() {
                break;
            }
        }
        whole
    }

    /// Shows the doors a whole message. Blocks.
    pub(crate) fn message(&mut self, mail: &mut Mail) -> Result<Ruling, Fail> {
        self.reset();
        log::debug!("{}, {:?}?", self.facts, Stage::Message);
        let mut whole = Ruling::default();
        for door in &mut self.doors {
            if door.wants(Stage::Message) {
                whole.add(door.message(mail, &self.facts)?);
            }
            if whole.is_final() {
                break;
            }
        }
        Ok(whole)
    }

    fn reset(&mut self) {
        if std::mem::take(&mut self.over) {
            for door in &mut self.doors {
                door.reset();
            }
        }
    }

    fn leave(mut self: Box<Self>) {
        for door in &mut self.doors {
            door.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply;
    use net::{Accepted, Encryption, Peer};
    use std::sync::mpsc::{Sender, channel};

    /// Tells what it is called with, and has this ruling at RCPT.
    struct Guard(&'static str, Ruling, Sender<String>);

    impl Guard {
        fn tell(&self, what: &str) {
            self.2.send(format!("{} {what}", self.0)).unwrap();
        }
    }

    impl Door for Guard {
        fn wants(&self, stage: Stage) -> bool {
            stage == Stage::Recipient
        }

        fn ask(&mut self, question: Question<'_>, _: &Facts) -> Ruling {
            self.tell(&question.to_string());
            self.1.clone()
        }

        fn reset(&mut self) {
            self.tell("reset");
        }

        fn leave(&mut self) {
            self.tell("leave");
        }
    }

    fn facts() -> Facts {
        let peer = Peer::Ip("[::ffff:192.0.2.1]:4321".parse().unwrap());
        let accepted = Accepted {
            peer,
            local: None,
            service: "smtp",
            encryption: Encryption::OnRequest,
            tls: false,
            check: false,
        };
        Facts::new(&accepted, "unknown[192.0.2.1]".into(), false)
    }

    /// A visit with a guard for each of these rulings, and what they tell.
    fn visit(rulings: &[Ruling]) -> (Box<Visit>, impl FnMut() -> Vec<String> + use<>) {
        let (send, told) = channel();
        let names = ["a", "b", "c"];
        let maker = |(name, ruling): (&'static str, &Ruling)| -> Maker {
            let (ruling, send) = (ruling.clone(), send.clone());
            Box::new(move |_| Some(Box::new(Guard(name, ruling.clone(), send.clone()))))
        };
        let gate = Gate::new(names.into_iter().zip(rulings).map(maker).collect());
        let visit = gate.visit(facts).unwrap();
        (visit, move || told.try_iter().collect())
    }

    fn refusing() -> Ruling {
        Ruling {
            refuse: Some(reply::TRY_LATER),
            ..Ruling::default()
        }
    }

    fn holding(reason: &str) -> Ruling {
        Ruling {
            hold: Some(reason.into()),
            prepend: vec!["X-A: b".into()],
            ..Ruling::default()
        }
    }

    #[test]
    fn without_a_door_there_is_no_visit() {
        assert!(Gate::new(Vec::new()).visit(facts).is_none());
        assert!(Gate::new(vec![Box::new(|_| None)]).visit(facts).is_none());
    }

    #[test]
    fn doors_are_asked_in_order_until_one_refuses() {
        let (mut visit, mut told) = visit(&[holding("a"), refusing(), holding("c")]);
        let recipient = Recipient::new("ann@example.org".parse().unwrap());
        let ruling = visit.ask(Question::Recipient(&recipient));
        assert_eq!(ruling.refuse, Some(reply::TRY_LATER));
        assert_eq!(told(), ["a to=<ann@example.org>", "b to=<ann@example.org>"]);
        assert!(!visit.wants(Stage::Data));
        assert_eq!(visit.ask(Question::Data), Ruling::default());
        assert!(told().is_empty());
    }

    #[test]
    fn the_first_reason_to_hold_stays_and_no_field_comes_twice() {
        let (mut visit, mut told) = visit(&[holding("a"), holding("b")]);
        let recipient = Recipient::new("ann@example.org".parse().unwrap());
        assert_eq!(visit.ask(Question::Recipient(&recipient)), holding("a"));
        assert_eq!(told().len(), 2);
    }

    #[test]
    fn of_two_filters_the_last_stays() {
        let through = |text: &str| Ruling {
            filter: Filter::parse(text).ok().map(Box::new),
            ..Ruling::default()
        };
        let (a, b) = (through("smtp:[::1]:1"), through("smtp:[::1]:2"));
        let (mut visit, _told) = visit(&[a, b.clone(), Ruling::default()]);
        let recipient = Recipient::new("ann@example.org".parse().unwrap());
        assert_eq!(visit.ask(Question::Recipient(&recipient)), b);
    }

    #[test]
    fn the_end_of_a_transaction_is_told_with_the_next_question() {
        let (mut visit, mut told) = visit(&[Ruling::default()]);
        visit.forget();
        visit.forget();
        assert!(told().is_empty());
        visit.ask(Question::Sender);
        visit.ask(Question::Sender);
        assert_eq!(told(), ["a reset"]);
        visit.forget();
        visit.leave();
        assert_eq!(told(), ["a leave"]);
    }
}
