//! Sessions on the loop: bytes in, actions carried out, answers brought back. Work on disk and
//! look-ups that may block are jobs; while one is under way its session takes no input.

mod asking;
mod stand_in;
mod turned_away;

use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use account::{Answer, Channel, Checkpw, Mechanism, Request};
use base::config::{Network, PlaintextLogin};
use base::{Fail, Filter, Recipient};
use mailauth::iprev::Iprev;
use net::{Accepted, Closed, Control, Encryption, Peer, Protocol, TlsInfo};
use queue::Queue;

use crate::gate::{Facts, Gate, Login, Ruling, Stage, Tls, Visit};
use crate::message::{Inspectors, Message, Sender, Whole};
use crate::policy::Policy;
use crate::porter::Porter;
use crate::proof::Prover;
use crate::reply::{self, Reply};
use crate::session::{
    Action, AuthAnswer, Client, Input, Queued, Session, Terms, Transaction, Verdict,
};
use asking::Asked;
use turned_away::{Later, Meeting};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) terms: Arc<Terms>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) queue: Queue,
    pub(crate) checkpw: Checkpw,
    /// Octets that must stay free on the queue's disk.
    pub(crate) spare: u64,
    pub(crate) plaintext_login: PlaintextLogin,
    /// How long strangers wait for our greeting.
    pub(crate) greet_delay: Duration,
    /// Who looks into strangers' messages.
    pub(crate) prover: Option<Prover>,
    /// Where all is done that may wait for others.
    pub(crate) gate: Gate,
    /// Who counts, and asks to come again.
    pub(crate) porter: Option<Porter>,
    /// Who may say by XCLIENT whose connection it brings.
    pub(crate) xclient_from: Vec<Network>,
    /// What all messages go through first.
    pub(crate) content_filter: Option<Filter>,
    pub(crate) way_back: WayBack,
}

/// For content filters that bring mail back.
pub(crate) struct WayBack {
    pub(crate) terms: Arc<Terms>,
    pub(crate) from: Vec<Network>,
}

impl WayBack {
    /// A client on a Unix socket was let in by its permissions.
    fn is_for(&self, ip: Option<IpAddr>) -> bool {
        ip.is_none_or(|ip| self.from.iter().any(|network| network.contains(ip)))
    }
}

/// The services, as systemd's FileDescriptorName has them.
pub(crate) const SMTP: &str = "smtp";
pub(crate) const SUBMISSION: &str = "submission";
pub(crate) const SMTPS: &str = "smtps";
/// Where content filters bring mail back.
pub(crate) const REINJECT: &str = "reinject";

/// A client that sends a message slower than this many octets in its patience is too slow.
const PROGRESS: usize = 16 * 1024;

/// An answer to a session's action.
pub(crate) enum Done {
    /// What becomes of an address; with the recipient that the doors are still to be asked about.
    Recipient(Verdict, Option<Box<Recipient>>),
    /// What was in memory is on disk, or could not be brought there.
    Spilled(Result<Box<Message>, Reply>),
    Queued(Result<Vec<Queued>, Reply>, Option<Box<Visit>>),
    /// Whether a domain's mail is asked for.
    Flush(Result<(), Reply>),
    /// Whether the sender's domain vouches for a stranger, and what is to be asked then.
    Vouched(bool, Asked),
    /// What the doors said.
    Ruled(Box<Visit>, Asked, Ruling),
    /// What checkpw said, and how long the client is to wait for it.
    Auth(AuthAnswer, Duration),
}

/// The message that is coming in.
enum Inbox {
    Empty,
    Open(Box<Message>),
    /// With a job, on its way to disk.
    Away,
    /// It could not be written: what follows is swallowed, and this is the answer in the end.
    Failed(Reply),
    /// It is swallowed and forgotten, because the doors say so.
    Thrown,
}

pub(crate) struct Connection {
    shared: Arc<Shared>,
    session: Session,
    shown: String,
    level: log::Level,
    sender: Sender,
    service: &'static str,
    /// The two ends.
    client: Option<SocketAddr>,
    local: Option<SocketAddr>,
    /// It is in our networks.
    trusted: bool,
    /// A list of good clients has it.
    welcome: bool,
    /// The access table says OK to the recipient that is asked about.
    permitted: bool,
    inbox: Inbox,
    /// Octets of a message since the deadline was last set.
    progress: usize,
    /// The AUTH exchange that is under way with checkpw.
    conversation: Option<u64>,
    /// The mechanism that was last tried.
    mechanism: &'static str,
    /// What the access table and the doors want of the next message.
    ruling: Ruling,
    /// With its doors; `None` where there are none, and while they are being asked.
    visit: Option<Box<Visit>>,
    /// An answer that is held back for a while, against guessing and from who offends.
    penalty: Option<Later>,
    /// What may be put off, while a stranger's transaction is open and there is greylisting.
    meeting: Option<Box<Meeting>>,
    /// What its proxy says that its host is called.
    named: Option<Iprev>,
}

/// As Postfix writes a client whose name it does not know: `unknown[192.0.2.1]`.
fn shown(peer: Peer) -> String {
    match peer.ip() {
        Some(ip) => format!("unknown[{ip}]"),
        None => "localhost[local]".into(),
    }
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, accepted: &Accepted) -> Self {
        let (peer, by) = (accepted.peer, shared.terms.name.clone());
        let is_filter = accepted.service == REINJECT;
        let trusted = match is_filter {
            true => shared.way_back.is_for(peer.ip()),
            false => shared.policy.is_trusted(peer.ip()),
        };
        let may_wait = !trusted && accepted.service == SMTP && !accepted.check;
        let may_wait = may_wait && !shared.greet_delay.is_zero();
        let waits = may_wait && !turned_away::has_waited(&shared, peer.ip());
        let client = Client {
            shown: shown(peer),
            trusted,
            greet_delay: if waits {
                shared.greet_delay
            } else {
                Duration::ZERO
            },
            plaintext_login: match shared.plaintext_login {
                PlaintextLogin::Yes => true,
                PlaintextLogin::No => false,
                PlaintextLogin::Loopback => peer.is_loopback(),
            },
            submission: matches!(accepted.service, SUBMISSION | SMTPS),
            // A filter may show our keywords to qrun, and has no TLS of its own.
            tls_offered: accepted.tls && !(is_filter && peer.is_loopback()),
            xclient: !is_filter && shared.may_xclient(peer.ip()),
            filter: is_filter && trusted,
        };
        let tls = accepted.encryption == Encryption::Implicit;
        let facts = || Facts::new(accepted, shown(peer), trusted);
        // It was looked into before it went to the filter.
        let visit = match is_filter {
            true => None,
            false => shared.gate.visit(facts),
        };
        let terms = match is_filter {
            true => &shared.way_back.terms,
            false => &shared.terms,
        };
        let filter = shared.content_filter.clone().filter(|_| !is_filter);
        Self {
            session: Session::new(Arc::clone(terms), client, tls),
            shared,
            shown: shown(peer),
            level: accepted.level(),
            trusted,
            welcome: false,
            permitted: false,
            sender: Sender {
                ip: peer.ip(),
                name: None,
                tls: None,
                by,
                port: peer.address().map(|address| address.port()),
                filter,
                is_filter,
            },
            inbox: Inbox::Empty,
            progress: 0,
            conversation: None,
            service: accepted.service,
            client: peer.address(),
            local: accepted.local,
            penalty: None,
            meeting: None,
            named: None,
            mechanism: "",
            ruling: Ruling::default(),
            visit,
        }
    }

    fn step(&mut self, input: Input<'_>, control: &mut Control<'_, Done>) -> usize {
        let mut actions = Vec::new();
        let consumed = self.session.step(input, &mut actions);
        let moved = !actions.is_empty() || self.session.is_greeting();
        for action in actions {
            self.carry_out(action, control);
        }
        self.settle(moved, consumed, control);
        consumed
    }

    /// Pause and deadline, as the session's state wants them.
    fn settle(&mut self, moved: bool, consumed: usize, control: &mut Control<'_, Done>) {
        if let Inbox::Open(message) = &self.inbox
            && message.is_large()
            && self.session.is_in_body()
        {
            self.spill(control);
        }
        let busy = self.session.is_waiting() || matches!(self.inbox, Inbox::Away);
        if busy {
            control.pause();
        } else {
            control.resume();
        }
        self.progress = self.progress.saturating_add(consumed);
        match self.session.patience() {
            _ if self.penalty.is_some() => {}
            None => control.no_deadline(),
            Some(_) if matches!(self.inbox, Inbox::Away) => control.no_deadline(),
            // Who sends a message a few bytes at a time wins no time by it.
            Some(_) if self.session.is_in_body() && self.progress < PROGRESS && consumed > 0 => {}
            // Of a message that is refused already nothing moves, but it comes in.
            Some(patience) if moved || (self.session.is_in_body() && consumed > 0) => {
                self.progress = 0;
                control.deadline(patience);
            }
            Some(_) => {}
        }
    }

    fn carry_out(&mut self, action: Action, control: &mut Control<'_, Done>) {
        if self.is_turned_away(&action, control) {
            return;
        }
        match action {
            Action::Reply(reply) => {
                log::debug!("{}: {reply}", self.shown);
                let mut line = Vec::new();
                reply.encode(&mut line);
                control.write(&line);
            }
            Action::Log(text) => log::info!("{text}"),
            Action::LogEnd(text) => log::log!(self.level, "{text}"),
            Action::Offence(what) => self.offence(what),
            Action::Acquaint => {
                if let (Some(porter), Some(ip)) = (&self.shared.porter, self.sender.ip) {
                    porter.acquaint(ip, SystemTime::now());
                }
            }
            Action::Close => {
                self.inbox = Inbox::Empty;
                control.close();
            }
            Action::StartTls => control.start_tls(),
            Action::Become(said) => self.become_client(*said, control),
            Action::AskClient
            | Action::AskHello { .. }
            | Action::AskSender { .. }
            | Action::AskRecipient { .. }
            | Action::AskData
            | Action::AskUnknown(_) => self.ask(action, control),
            Action::AskFlush(flush) => self.ask_flush(flush, control),
            Action::Forget => self.forget(),
            Action::Authenticate { mechanism, initial } => {
                self.authenticate(mechanism, initial, control);
            }
            Action::Respond(response) => {
                let conversation = self.conversation.unwrap_or_default();
                self.ask_checkpw(
                    &Request::Continue {
                        conversation,
                        response,
                    },
                    control,
                );
            }
            Action::AbandonAuth => {
                if let Some(conversation) = self.conversation.take() {
                    self.shared
                        .checkpw
                        .submit(&Request::Cancel { conversation }, drop);
                }
            }
            Action::Begin(transaction) => {
                self.progress = PROGRESS;
                self.begin(transaction);
            }
            Action::Append(content) => {
                if let Inbox::Open(message) = &mut self.inbox {
                    message.append(&content);
                }
            }
            Action::Discard => self.inbox = Inbox::Empty,
            Action::Commit => self.commit(control),
        }
    }

    fn authenticate(
        &mut self,
        mechanism: Mechanism,
        initial: Option<Vec<u8>>,
        control: &mut Control<'_, Done>,
    ) {
        let conversation = self.shared.checkpw.conversation();
        self.conversation = Some(conversation);
        self.mechanism = mechanism.name();
        self.ask_checkpw(
            &Request::Begin {
                conversation,
                mechanism,
                channel: self.session.channel().clone(),
                initial,
            },
            control,
        );
    }

    fn ask_checkpw(&mut self, request: &Request, control: &mut Control<'_, Done>) {
        let handle = control.handle();
        self.shared.checkpw.submit(request, move |answer| {
            let (answer, delay) = understand(answer);
            handle.post(Done::Auth(answer, delay));
        });
    }

    fn begin(&mut self, transaction: Box<Transaction>) {
        let mut ruling = mem::take(&mut self.ruling);
        self.count_account(&transaction, &mut ruling);
        if ruling.discard {
            self.inbox = Inbox::Thrown;
            return;
        }
        let strange = !self.trusted && transaction.login.is_none();
        let proven = strange && self.shared.prover.is_some();
        let seen = self.visit.as_ref().is_some_and(|v| v.wants(Stage::Message));
        // Where it goes instead is looked up when it is whole.
        let apart = proven || seen || ruling.redirect.is_some();
        let mut message = Message::new(transaction, self.sender.clone(), ruling);
        if apart {
            message.keep_apart(strange);
        }
        self.inbox = Inbox::Open(Box::new(message));
    }

    fn spill(&mut self, control: &mut Control<'_, Done>) {
        if let Inbox::Open(mut message) = mem::replace(&mut self.inbox, Inbox::Away) {
            let queue = self.shared.queue.clone();
            control.job(move || {
                Done::Spilled(match message.spill(&queue) {
                    Ok(()) => Ok(message),
                    Err(fail) => Err(refusal(&fail)),
                })
            });
        }
    }

    /// The content is whole: to disk, durable, and only then the answer.
    fn commit(&mut self, control: &mut Control<'_, Done>) {
        let message = match mem::replace(&mut self.inbox, Inbox::Empty) {
            Inbox::Open(message) => message,
            Inbox::Failed(refusal) => {
                self.step(Input::Queued(Err(refusal)), control);
                return;
            }
            Inbox::Thrown => {
                self.step(Input::Queued(Ok(Vec::new())), control);
                return;
            }
            Inbox::Empty | Inbox::Away => {
                log::error!("{}: the end of a message that is not there", self.shown);
                self.step(Input::Queued(Err(reply::TRY_LATER)), control);
                return;
            }
        };
        let shared = Arc::clone(&self.shared);
        if message.is_apart() {
            let (handle, mut visit) = (control.handle(), self.visit.take());
            self.shared.gate.run(move || {
                let inspected = inspect(message, &shared, visit.as_deref_mut());
                let told = move |result| handle.post(Done::Queued(result, visit));
                match inspected {
                    Ok(message) => enqueue(*message, &shared.queue, told),
                    Err(refusal) => told(Err(refusal)),
                }
            });
        } else {
            let handle = control.handle();
            control.work(move || {
                enqueue(*message, &shared.queue, move |result| {
                    handle.post(Done::Queued(result, None));
                });
            });
        }
    }
}

/// The last look at a message.
fn inspect(
    mut message: Box<Message>,
    shared: &Shared,
    visit: Option<&mut Visit>,
) -> Result<Box<Message>, Reply> {
    let inspectors = Inspectors {
        prover: shared.prover.as_ref(),
        visit,
        route: &|address| shared.policy.judge_and_wait(address),
    };
    match message.inspect(&shared.queue, inspectors) {
        Ok(None) => Ok(message),
        Ok(Some(refusal)) => Err(refusal),
        Err(fail) => Err(refusal(&fail)),
    }
}

/// The end of a message's way in: when `told` hears of it, it is durable or refused.
fn enqueue(
    message: Message,
    queue: &Queue,
    told: impl FnOnce(Result<Vec<Queued>, Reply>) + Send + 'static,
) {
    match message.finish(queue) {
        Err(fail) => told(Err(refusal(&fail))),
        Ok(Whole { sealed, queued }) if sealed.is_empty() => told(Ok(queued)),
        Ok(Whole { sealed, queued }) => queue.commit_soon(sealed, move |done| {
            told(done.map(|_| queued).map_err(|fail| refusal(&fail)));
        }),
    }
}

/// Our own fault is never the sender's: 4xx.
fn refusal(fail: &Fail) -> Reply {
    log::error!("{fail}");
    if fail.is_full() {
        reply::NO_ROOM
    } else {
        reply::TRY_LATER
    }
}

/// What checkpw's answer means for the session.
fn understand(answer: Answer) -> (AuthAnswer, Duration) {
    let answer = match answer {
        Answer::Challenge(challenge) => AuthAnswer::Challenge(challenge),
        Answer::Granted(grant) => AuthAnswer::Granted(grant.user.name.to_string()),
        Answer::Refused { delay } => return (AuthAnswer::Refused, delay),
        Answer::Malformed(_) => AuthAnswer::Malformed,
        Answer::Unavailable(why) => {
            log::error!("log in: {why}");
            AuthAnswer::Unavailable
        }
        Answer::Found(_) | Answer::Unknown | Answer::Mechanisms(_) => {
            log::error!("log in: checkpw answers another question");
            AuthAnswer::Unavailable
        }
    };
    (answer, Duration::ZERO)
}

impl Protocol for Connection {
    type Done = Done;

    fn open(&mut self, control: &mut Control<'_, Done>) {
        if let Some(info) = control.tls_info() {
            self.note_tls(info);
        }
        self.step(Input::Open, control);
    }

    fn input(&mut self, bytes: &[u8], control: &mut Control<'_, Done>) -> usize {
        self.step(Input::Bytes(bytes), control)
    }

    fn done(&mut self, done: Done, control: &mut Control<'_, Done>) {
        match done {
            Done::Recipient(verdict, asked) => self.routed(verdict, asked, control),
            Done::Queued(result, visit) => {
                self.visit = visit.or_else(|| self.visit.take());
                self.step(Input::Queued(result), control);
            }
            Done::Flush(answer) => {
                self.step(Input::Flush(answer), control);
            }
            Done::Vouched(vouched, asked) => self.vouched(vouched, asked, control),
            Done::Ruled(visit, asked, ruling) => {
                self.visit = Some(visit);
                self.ruled(asked, ruling, control);
            }
            Done::Auth(answer, delay) => {
                if !matches!(answer, AuthAnswer::Challenge(_)) {
                    self.conversation = None;
                }
                if let (AuthAnswer::Granted(login), Some(visit)) = (&answer, &mut self.visit) {
                    visit.facts.login = Some(Login {
                        user: login.clone(),
                        mechanism: self.mechanism,
                    });
                }
                let delay = match answer {
                    AuthAnswer::Refused => self.login_failed(delay),
                    _ => delay,
                };
                self.later(Later::Auth(answer), delay, control);
            }
            Done::Spilled(result) => {
                self.inbox = match result {
                    Ok(message) => Inbox::Open(message),
                    Err(refusal) => Inbox::Failed(refusal),
                };
                self.progress = PROGRESS;
                self.settle(true, 0, control);
            }
        }
    }

    fn timeout(&mut self, control: &mut Control<'_, Done>) {
        if !self.give_answer(control) {
            self.step(Input::Timeout, control);
        }
    }

    fn tls_up(&mut self, info: &TlsInfo, control: &mut Control<'_, Done>) {
        self.note_tls(info);
        if let Some(visit) = &mut self.visit {
            // RFC 3207 4.2
            visit.facts.hello = None;
            visit.facts.login = None;
        }
        self.step(Input::TlsUp, control);
    }

    fn eof(&mut self, control: &mut Control<'_, Done>) {
        self.step(Input::Eof, control);
    }

    fn drain(&mut self, control: &mut Control<'_, Done>) {
        self.step(Input::Drain, control);
    }

    fn closed(&mut self, why: &Closed) {
        if let Some(conversation) = self.conversation.take() {
            self.shared
                .checkpw
                .submit(&Request::Cancel { conversation }, drop);
        }
        if let Some(visit) = self.visit.take() {
            self.shared.gate.leave(visit);
        }
        if !matches!(why, Closed::ByUs) {
            log::log!(self.level, "{why}: {}", self.shown);
        }
        log::log!(
            self.level,
            "disconnect from {} messages={}",
            self.shown,
            self.session.messages()
        );
    }
}

impl Connection {
    fn note_tls(&mut self, info: &TlsInfo) {
        let text = info.to_string();
        log::info!("TLS connection established from {}: {text}", self.shown);
        self.sender.tls = Some(text);
        if let Some(visit) = &mut self.visit {
            visit.facts.tls = Some(Tls::from(info));
        }
        self.session.bind(Channel {
            exporter: info.exporter,
            end_point: info.end_point.clone(),
            certificate: info.client_certificate,
        });
    }
}
