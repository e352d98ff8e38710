//! Sessions on the loop: octets in, actions carried out, answers brought back. While a session
//! waits for the store or for checkpw it takes no input; while a client is slow nothing more is
//! read from the store.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use account::{Answer as Verdict, Channel, Checkpw, Grant, Request as Login, StoreAccess};
use base::config::PlaintextLogin;
use base::escape::escape;
use base::{Config, Fail, Root, date};
use net::{Accepted, Closed, Control, Encryption, Peer, Protocol, TlsInfo};
use store::request::{Answer, Content, Expunge, Failed, Part, Request, Whole, Why};
use store::set::{Ranges, Set};
use store::{FolderName, Session as Store, Spool};
use tally::login::Logins;

use crate::ahead::{self, Ahead};
use crate::mail::Mail;
use crate::maildrop::{Listed, Maildrop};
use crate::multiline::Multiline;
use crate::session::{Action, Input, Login as Said, Question, Session, Terms, Trouble};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) root: Root,
    pub(crate) config: Config,
    pub(crate) checkpw: Checkpw,
    /// Where failed logins are counted.
    pub(crate) logins: Option<Logins>,
}

/// The services, as systemd's FileDescriptorName has them.
pub(crate) const POP3: &str = "pop3";
pub(crate) const POP3S: &str = "pop3s";

/// Octets of a message that are asked for at once.
const PIECE: u32 = 128 * 1024;

/// What comes from other threads.
pub(crate) enum Done {
    Login(Verdict),
    /// The user's spool was opened.
    Opened(Result<Box<Store>, Fail>),
    Store(Box<Store>, Answer),
}

/// What the store was asked for.
enum Task {
    None,
    Select,
    /// The messages so far.
    List {
        uidvalidity: u32,
        messages: Vec<Listed>,
    },
    /// A message with those behind it.
    Several(Sending),
    Send(Sending),
    Remove,
}

/// A message on its way to the client.
struct Sending {
    uid: u32,
    offset: u64,
    multiline: Multiline,
    retr: bool,
}

pub(crate) struct Connection {
    shared: Arc<Shared>,
    session: Session,
    mail: Mail,
    task: Task,
    ahead: Ahead,
    /// The next piece is asked for when this much has gone out.
    unfinished: Option<Sending>,
    shown: String,
    level: log::Level,
    conversation: Option<u64>,
    peer: Peer,
    /// A refusal that is held back.
    penalty: Option<Said>,
}

/// As Postfix writes a client.
fn shown(peer: Peer) -> String {
    match peer.ip() {
        Some(ip) => format!("unknown[{ip}]"),
        None => "localhost[local]".into(),
    }
}

/// RFC 1939 7: never the same twice, and not to be guessed.
fn timestamp(config: &Config) -> Result<String, getrandom::Error> {
    let random = getrandom::u64()?;
    let (pid, now) = (std::process::id(), date::now());
    Ok(format!(
        "<{pid}.{now}.{random:016x}@{}>",
        config.official_name
    ))
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, accepted: &Accepted) -> Self {
        let peer = accepted.peer;
        let terms = Terms {
            // Without random numbers there is no APOP that could be trusted: none can succeed.
            timestamp: timestamp(&shared.config).unwrap_or_default(),
            tls_offered: accepted.tls,
            mechanisms: shared.checkpw.mechanisms().to_vec(),
            plaintext_login: match shared.config.plaintext_login {
                PlaintextLogin::Yes => true,
                PlaintextLogin::No => false,
                PlaintextLogin::Loopback => peer.is_loopback(),
            },
        };
        Self {
            session: Session::new(terms, accepted.encryption == Encryption::Implicit),
            shared,
            mail: Mail::Away,
            task: Task::None,
            ahead: Ahead::default(),
            unfinished: None,
            shown: shown(peer),
            level: accepted.level(),
            conversation: None,
            peer,
            penalty: None,
        }
    }

    fn step(&mut self, input: Input<'_>, control: &mut Control<'_, Done>) -> usize {
        let mut actions = Vec::new();
        let consumed = self.session.step(input, &mut actions);
        let mut todo = VecDeque::from(actions);
        while let Some(action) = todo.pop_front() {
            self.carry_out(action, control);
        }
        if self.session.is_waiting() {
            control.pause();
        } else {
            control.resume();
        }
        match self.session.patience() {
            _ if self.penalty.is_some() => {}
            Some(patience) => control.deadline(patience),
            None => control.no_deadline(),
        }
        consumed
    }

    fn carry_out(&mut self, action: Action, control: &mut Control<'_, Done>) {
        match action {
            Action::Write(bytes) => control.write(&bytes),
            Action::StartTls => control.start_tls(),
            Action::Ask(question) => self.ask_checkpw(question, control),
            Action::Abandon => {
                if let Some(conversation) = self.conversation.take() {
                    self.shared
                        .checkpw
                        .submit(&Login::Cancel { conversation }, drop);
                }
            }
            Action::OpenMaildrop => {
                let request = Request::Select {
                    folder: FolderName::inbox(),
                    read_only: false,
                };
                self.ask_store(Task::Select, request, control);
            }
            Action::Send { message, lines } => {
                let multiline = Multiline::new(lines);
                let sending = Sending {
                    uid: message.uid,
                    offset: 0,
                    multiline,
                    retr: lines.is_none(),
                };
                self.send(sending, control);
            }
            Action::Remove(uids) => {
                let set = Set::Uid(Ranges::of(uids));
                self.ask_store(
                    Task::Remove,
                    Request::Expunge(Expunge::Messages(set)),
                    control,
                );
            }
            Action::Log(text) => match self.session.user() {
                Some(user) => log::info!("{}: user={user}: {}", self.shown, escape(&text)),
                None => log::info!("{}: {}", self.shown, escape(&text)),
            },
            Action::Close => control.close(),
        }
    }

    fn ask_checkpw(&mut self, question: Question, control: &mut Control<'_, Done>) {
        let begins = !matches!(question, Question::Continue(_));
        if let Some(logins) = self.shared.logins.as_ref().filter(|_| begins)
            && let Some(delay) = logins.shut_out(self.peer.ip(), SystemTime::now())
        {
            return self.hold_back(Said::NotNow, delay, control);
        }
        let checkpw = &self.shared.checkpw;
        let request = match question {
            Question::Password { name, password } => Login::Password { name, password },
            Question::Apop { name, digest } => Login::Apop {
                name,
                timestamp: self.session.timestamp().to_owned(),
                digest,
            },
            Question::Begin { mechanism, initial } => {
                let conversation = checkpw.conversation();
                self.conversation = Some(conversation);
                Login::Begin {
                    conversation,
                    mechanism,
                    channel: self.session.channel().clone(),
                    initial,
                }
            }
            Question::Continue(response) => Login::Continue {
                conversation: self.conversation.unwrap_or(0),
                response,
            },
        };
        let handle = control.handle();
        checkpw.submit(&request, move |answer| handle.post(Done::Login(answer)));
    }

    fn verdict(&mut self, verdict: Verdict, control: &mut Control<'_, Done>) {
        let said = match verdict {
            Verdict::Challenge(challenge) => Said::Challenge(challenge),
            Verdict::Granted(grant) => return self.granted(grant, control),
            Verdict::Refused { delay } => {
                let logins = self.shared.logins.as_ref();
                let more = logins.map(|logins| logins.refused(self.peer.ip(), SystemTime::now()));
                let delay = delay.max(more.unwrap_or_default());
                return self.hold_back(Said::Refused, delay, control);
            }
            Verdict::Malformed(what) => Said::Malformed(what),
            Verdict::Unavailable(_)
            | Verdict::Found(_)
            | Verdict::Unknown
            | Verdict::Mechanisms(_) => Said::Unavailable,
        };
        self.step(Input::Login(said), control);
    }

    fn hold_back(&mut self, said: Said, delay: Duration, control: &mut Control<'_, Done>) {
        self.penalty = Some(said);
        control.deadline(delay.max(Duration::from_millis(1)));
    }

    fn granted(&mut self, grant: Grant, control: &mut Control<'_, Done>) {
        let user = grant.user.name.as_str().to_owned();
        match grant.store {
            StoreAccess::Worker(stream) => match control.attach(stream) {
                Ok(()) => self.mail = Mail::Worker(Vec::new()),
                Err(e) => {
                    log::error!("{}: attach the store worker: {e}", self.shown);
                    self.step(Input::Login(Said::Unavailable), control);
                    return;
                }
            },
            StoreAccess::Pool => {
                let shared = Arc::clone(&self.shared);
                control.job(move || {
                    let spool = Spool::open(&shared.root, &shared.config);
                    Done::Opened(spool.and_then(|s| s.session(&user)).map(Box::new))
                });
                // The session hears of the login when the spool is open.
                return;
            }
            StoreAccess::None => {
                self.step(Input::Login(Said::Unavailable), control);
                return;
            }
        }
        self.step(Input::Login(Said::Granted(user)), control);
    }

    /// Sends a message that was read ahead, or asks for it and for what is likely to be wanted next.
    fn send(&mut self, sending: Sending, control: &mut Control<'_, Done>) {
        if let Some(whole) = self.ahead.take(sending.uid) {
            return self.whole(sending, whole, control);
        }
        let uids = self.ahead.plan(self.session.following(sending.uid));
        if uids.is_empty() {
            return self.ask_piece(sending, control);
        }
        let request = Request::Contents {
            uids,
            headers: false,
            octets: ahead::MOST,
        };
        self.ask_store(Task::Several(sending), request, control);
    }

    fn whole(&mut self, sending: Sending, whole: Whole, control: &mut Control<'_, Done>) {
        let content = Content {
            uid: whole.uid,
            size: whole.bytes.len() as u64,
            bytes: whole.bytes,
        };
        self.piece(sending, &content, control);
    }

    fn ask_piece(&mut self, sending: Sending, control: &mut Control<'_, Done>) {
        let request = Request::Content {
            uid: sending.uid,
            part: Part::Whole,
            offset: sending.offset,
            length: PIECE,
        };
        self.ask_store(Task::Send(sending), request, control);
    }

    fn ask_store(&mut self, task: Task, request: Request, control: &mut Control<'_, Done>) {
        self.task = task;
        if !self.mail.ask(request, control) {
            let text = "no way to the mail".to_owned();
            self.answered(
                Answer::Failed(Failed {
                    why: Why::Temporary,
                    text,
                }),
                control,
            );
        }
    }

    fn answered(&mut self, answer: Answer, control: &mut Control<'_, Done>) {
        match (mem::replace(&mut self.task, Task::None), answer) {
            (task, Answer::Changed) => self.task = task,
            (Task::Select, Answer::Selected(selected)) => {
                let uidvalidity = selected.uidvalidity;
                let task = Task::List {
                    uidvalidity,
                    messages: Vec::new(),
                };
                self.ask_store(task, Request::Fetch(Set::all()), control);
            }
            (
                Task::List {
                    uidvalidity,
                    mut messages,
                },
                Answer::Messages(some),
            ) => {
                messages.extend(some.list.iter().map(|m| Listed {
                    uid: m.uid,
                    size: m.size,
                }));
                match messages.last() {
                    Some(last) if some.more => {
                        let rest = Ranges::new([(last.uid.saturating_add(1), u32::MAX)]);
                        let set = Set::Uid(rest.unwrap_or_default());
                        self.ask_store(
                            Task::List {
                                uidvalidity,
                                messages,
                            },
                            Request::Fetch(set),
                            control,
                        );
                    }
                    _ => {
                        let maildrop = Maildrop::new(uidvalidity, messages);
                        self.step(Input::Opened(Ok(maildrop)), control);
                    }
                }
            }
            (Task::Several(sending), Answer::Contents(list)) => {
                self.ahead.fill(list);
                match self.ahead.take(sending.uid) {
                    Some(whole) => self.whole(sending, whole, control),
                    // It is gone, or larger than it was said to be: asked for alone it answers so.
                    None => self.ask_piece(sending, control),
                }
            }
            (Task::Send(sending), Answer::Content(content)) => {
                self.piece(sending, &content, control);
            }
            (Task::Remove, Answer::Updates(_) | Answer::Done) => {
                self.step(Input::Removed(Ok(())), control);
            }
            (task, answer) => {
                let trouble = trouble(answer);
                self.failed(task, trouble, control);
            }
        }
    }

    fn failed(&mut self, task: Task, trouble: Trouble, control: &mut Control<'_, Done>) {
        log::warn!("{}: {}", self.shown, escape(&trouble.text));
        match task {
            Task::None => {}
            Task::Select | Task::List { .. } => {
                self.step(Input::Opened(Err(trouble)), control);
            }
            Task::Several(_) => {
                self.step(Input::Sent(Err(trouble)), control);
            }
            Task::Send(sending) if sending.offset == 0 => {
                self.step(Input::Sent(Err(trouble)), control);
            }
            // Half a message is out, and POP3 has no way to say that there is no other half.
            Task::Send(_) => control.abort(),
            Task::Remove => {
                self.step(Input::Removed(Err(trouble)), control);
            }
        }
    }

    fn piece(&mut self, mut sending: Sending, content: &Content, control: &mut Control<'_, Done>) {
        let mut out = Vec::with_capacity(content.bytes.len() + content.bytes.len() / 16 + 64);
        if sending.offset == 0 {
            let head = match sending.retr {
                true => format!("+OK {} octets\r\n", content.size),
                false => "+OK top follows\r\n".to_owned(),
            };
            out.extend_from_slice(head.as_bytes());
        }
        sending.offset += content.bytes.len() as u64;
        let more = sending.multiline.feed(&content.bytes, &mut out);
        if more && sending.offset < content.size && !content.bytes.is_empty() {
            control.write(&out);
            self.unfinished = Some(sending);
            // A client that stops reading keeps no message in memory, and no connection for ever.
            control.deadline(Duration::from_secs(600));
        } else if more && sending.offset < content.size {
            log::error!("{}: a message ended early", self.shown);
            control.abort();
        } else {
            sending.multiline.finish(&mut out);
            control.write(&out);
            self.step(Input::Sent(Ok(())), control);
        }
    }
}

/// In the words of RFC 2449 8.1 and RFC 3206 4.
fn trouble(answer: Answer) -> Trouble {
    match answer {
        Answer::Failed(Failed { why, text }) => {
            let code = match why {
                Why::InUse => "IN-USE",
                Why::Gone | Why::Cannot | Why::NoSuchFolder | Why::TooBig | Why::Bad => "SYS/PERM",
                _ => "SYS/TEMP",
            };
            Trouble { code, text }
        }
        _ => Trouble {
            code: "SYS/TEMP",
            text: "the store answered something else".into(),
        },
    }
}

/// What a login may be bound to.
fn channel(info: &TlsInfo) -> Channel {
    Channel {
        exporter: info.exporter,
        end_point: info.end_point.clone(),
        certificate: info.client_certificate,
    }
}

impl Protocol for Connection {
    type Done = Done;

    fn open(&mut self, control: &mut Control<'_, Done>) {
        log::log!(self.level, "connect from {}", self.shown);
        if let Some(info) = control.tls_info() {
            self.session.bind(channel(info));
        }
        self.step(Input::Open, control);
    }

    fn input(&mut self, bytes: &[u8], control: &mut Control<'_, Done>) -> usize {
        self.step(Input::Bytes(bytes), control)
    }

    fn done(&mut self, done: Done, control: &mut Control<'_, Done>) {
        match done {
            Done::Login(verdict) => self.verdict(verdict, control),
            Done::Opened(Ok(store)) => {
                let user = store.user().to_owned();
                self.mail = Mail::Pool(store);
                self.step(Input::Login(Said::Granted(user)), control);
            }
            Done::Opened(Err(fail)) => {
                log::error!("{}: {fail}", self.shown);
                self.step(Input::Login(Said::Unavailable), control);
            }
            Done::Store(store, answer) => {
                self.mail = Mail::Pool(store);
                self.answered(answer, control);
            }
        }
    }

    fn flushed(&mut self, control: &mut Control<'_, Done>) {
        if let Some(sending) = self.unfinished.take() {
            control.no_deadline();
            self.ask_piece(sending, control);
        }
    }

    fn side(&mut self, bytes: &[u8], control: &mut Control<'_, Done>) -> usize {
        match self.mail.receive(bytes) {
            Ok(answers) => {
                for answer in answers {
                    self.answered(answer, control);
                }
            }
            Err(_) => {
                log::error!("{}: the store worker talks nonsense", self.shown);
                control.abort();
            }
        }
        bytes.len()
    }

    fn side_closed(&mut self, control: &mut Control<'_, Done>) {
        self.mail = Mail::Away;
        let text = "the store worker ended".to_owned();
        match mem::replace(&mut self.task, Task::None) {
            Task::None => control.abort(),
            task => self.failed(
                task,
                Trouble {
                    code: "SYS/TEMP",
                    text,
                },
                control,
            ),
        }
    }

    fn timeout(&mut self, control: &mut Control<'_, Done>) {
        if let Some(said) = self.penalty.take() {
            self.step(Input::Login(said), control);
        } else if self.unfinished.take().is_some() {
            control.abort();
        } else {
            self.step(Input::Timeout, control);
        }
    }

    fn tls_up(&mut self, info: &TlsInfo, control: &mut Control<'_, Done>) {
        self.session.bind(channel(info));
        self.step(Input::TlsUp, control);
    }

    fn eof(&mut self, control: &mut Control<'_, Done>) {
        self.step(Input::Eof, control);
    }

    fn drain(&mut self, control: &mut Control<'_, Done>) {
        self.step(Input::Drain, control);
    }

    fn closed(&mut self, why: &Closed) {
        if !matches!(why, Closed::ByUs) {
            log::log!(self.level, "{why}: {}", self.shown);
        }
        if let Some(conversation) = self.conversation.take() {
            self.shared
                .checkpw
                .submit(&Login::Cancel { conversation }, drop);
        }
        let (count, octets) = self.session.sent();
        let user = self.session.user().unwrap_or("-");
        log::log!(
            self.level,
            "disconnect from {} user={user} messages={count} octets={octets}",
            self.shown
        );
    }
}
