//! Sessions on the loop: octets in, actions carried out, answers brought back. While a session waits
//! for the store or for checkpw it takes no input; while a client is slow nothing more is read from
//! the store.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use account::{
    Answer as Verdict, Channel, Checkpw, Grant, Mechanism, Request as Login, StoreAccess,
};
use base::config::PlaintextLogin;
use base::escape::escape;
use base::{Config, Fail, Root};
use net::{Accepted, Closed, Control, Encryption, Handle, Peer, Protocol, TlsInfo};
use store::request::{Answer, Failed, Why};
use store::{Session as Store, Spool, Watcher};
use tally::login::Logins;

use crate::login::{LoginAnswer, LoginRequest};
use crate::mail::{Mail, News, Worker};
use crate::session::{Action, Actions, Ended, Options, Session};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) host: String,
    pub(crate) message_size: u64,
    pub(crate) plaintext_login: PlaintextLogin,
    pub(crate) checkpw: Checkpw,
    /// Where failed logins are counted.
    pub(crate) logins: Option<Logins>,
    /// Where this process reads the mail itself.
    pub(crate) local: Option<(Root, Config)>,
    pub(crate) watcher: Option<Watcher>,
}

impl Shared {
    /// The user's mail, read in this process. The spool is opened for each login, so that one that
    /// is mounted later is found.
    fn open(&self, user: &str) -> Result<Box<Store>, Fail> {
        let Some((root, config)) = &self.local else {
            return Err(Fail::temp("a login without a way to the mail"));
        };
        Ok(Box::new(Spool::open(root, config)?.session(user)?))
    }
}

/// The services, as systemd's FileDescriptorName has them.
pub(crate) const IMAP: &str = "imap";
pub(crate) const IMAPS: &str = "imaps";

/// From the connection to the login.
const LOGIN_TIME: Duration = Duration::from_secs(180);
/// RFC 3501 5.4: at least 30 minutes.
const IDLE_TIME: Duration = Duration::from_secs(31 * 60);
/// In IDLE a sign of life goes out this often; after so many without one of the client it ends.
const TICK: Duration = Duration::from_secs(4 * 60);
const TICKS: u32 = 8;

/// What comes from other threads.
pub(crate) enum Done {
    Login(Verdict),
    /// The user's spool was opened.
    Opened(String, Result<Box<Store>, Fail>),
    Store(Box<Store>, Answer),
    Decided(bool),
    Changed,
}

/// A SASL exchange at `checkpw`.
struct Exchange {
    conversation: u64,
    /// The mechanism, until its first response has said who it is.
    named_by: Option<Mechanism>,
}

pub(crate) struct Connection {
    shared: Arc<Shared>,
    session: Session,
    mail: Mail,
    peer: Peer,
    level: log::Level,
    local: String,
    encrypted: bool,
    /// The SASL exchange that is under way.
    exchange: Option<Exchange>,
    /// Who the client says it is, and how: for the log only.
    claimed: String,
    method: &'static str,
    /// Who it is.
    user: Option<String>,
    /// A refusal that is held back.
    penalty: Option<LoginAnswer>,
    ended: Option<Ended>,
    /// The session rests until the client has taken the output.
    wants_flush: bool,
    /// The client sends no more.
    eof: bool,
    draining: bool,
    ticks: u32,
    octets_in: u64,
    octets_out: u64,
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, accepted: &Accepted) -> Self {
        let encrypted = accepted.encryption == Encryption::Implicit;
        let plaintext = match shared.plaintext_login {
            PlaintextLogin::Yes => true,
            PlaintextLogin::No => false,
            PlaintextLogin::Loopback => accepted.peer.is_loopback(),
        };
        let session = Session::new(Options {
            host: shared.host.clone(),
            message_size: shared.message_size,
            mechanisms: shared.checkpw.mechanisms().to_vec(),
            login_allowed: encrypted || plaintext,
            starttls: accepted.tls && !encrypted,
        });
        Self {
            shared,
            session,
            mail: Mail::None,
            peer: accepted.peer,
            level: accepted.level(),
            local: accepted
                .local
                .map_or_else(String::new, |a| a.ip().to_canonical().to_string()),
            encrypted,
            exchange: None,
            claimed: String::new(),
            method: "",
            user: None,
            penalty: None,
            ended: None,
            wants_flush: false,
            eof: false,
            draining: false,
            ticks: 0,
            octets_in: 0,
            octets_out: 0,
        }
    }

    /// Lets the session act and carries out what it wants.
    fn step<T>(
        &mut self,
        control: &mut Control<'_, Done>,
        act: impl FnOnce(&mut Session, &mut Actions) -> T,
    ) -> T {
        let mut actions = Actions::default();
        let result = act(&mut self.session, &mut actions);
        self.octets_out = self.octets_out.saturating_add(actions.output.len() as u64);
        if !actions.output.is_empty() {
            control.write(&actions.output);
        }
        for action in actions.next {
            self.carry_out(action, control);
        }
        self.settle(control);
        result
    }

    fn carry_out(&mut self, action: Action, control: &mut Control<'_, Done>) {
        match action {
            Action::Ask(request) => {
                if !self.mail.ask(request, control) {
                    let text = "The mail is out of reach".to_owned();
                    let answer = Answer::Failed(Failed {
                        why: Why::Temporary,
                        text,
                    });
                    self.step(control, |session, actions| session.answer(answer, actions));
                }
            }
            Action::Login(request) => self.ask_checkpw(request, control),
            Action::Decide(thought) => control.job(move || Done::Decided(thought.decide())),
            Action::StartTls => control.start_tls(),
            Action::Watch(on) => self.mail.watch(on, control),
            Action::WhenFlushed => self.wants_flush = true,
            Action::Close(why) => {
                self.ended = Some(why);
                control.close();
            }
            Action::Abort => {
                log::error!("{}: a body ended before its length", self.name());
                control.abort();
            }
        }
    }

    /// Whether input is wanted now.
    fn settle(&mut self, control: &mut Control<'_, Done>) {
        if self.session.wants_input() {
            control.resume();
            if self.draining && self.ended.is_none() {
                self.draining = false;
                self.step(control, Session::drain);
            } else if self.eof {
                control.close();
            }
        } else {
            control.pause();
        }
    }

    fn ask_checkpw(&mut self, request: LoginRequest, control: &mut Control<'_, Done>) {
        let begins = matches!(
            request,
            LoginRequest::Password { .. } | LoginRequest::Begin { .. }
        );
        if let Some(logins) = self.shared.logins.as_ref().filter(|_| begins)
            && let Some(delay) = logins.shut_out(self.peer.ip(), SystemTime::now())
        {
            let from = self.where_from();
            log::info!("login refused: too many failed from there, {from}");
            return self.hold_back(LoginAnswer::NotNow, delay, control);
        }
        let request = match request {
            LoginRequest::Password { user, password } => {
                let name = String::from_utf8_lossy(&user).into_owned();
                (self.claimed, self.method) = (name.clone(), "LOGIN");
                Login::Password { name, password }
            }
            LoginRequest::Begin { mechanism, initial } => {
                let conversation = self.shared.checkpw.conversation();
                self.exchange = Some(Exchange {
                    conversation,
                    // What comes after the first response may be a secret.
                    named_by: initial.is_none().then_some(mechanism),
                });
                self.method = mechanism.name();
                let claimed = initial.as_deref().map(|first| mechanism.claimed(first));
                self.claimed = claimed.unwrap_or_default();
                Login::Begin {
                    conversation,
                    mechanism,
                    channel: self.session.channel.clone(),
                    initial,
                }
            }
            LoginRequest::Continue(response) => {
                let Some(exchange) = &mut self.exchange else {
                    return self.verdict(Verdict::Malformed("no exchange".into()), control);
                };
                if let Some(mechanism) = exchange.named_by.take() {
                    self.claimed = mechanism.claimed(&response);
                }
                let conversation = exchange.conversation;
                Login::Continue {
                    conversation,
                    response,
                }
            }
            LoginRequest::Cancel => return self.cancel(),
        };
        let handle: Handle<Done> = control.handle();
        self.shared
            .checkpw
            .submit(&request, move |answer| handle.post(Done::Login(answer)));
    }

    fn cancel(&mut self) {
        if let Some(Exchange { conversation, .. }) = self.exchange.take() {
            self.shared
                .checkpw
                .submit(&Login::Cancel { conversation }, |_| {});
        }
    }

    fn verdict(&mut self, verdict: Verdict, control: &mut Control<'_, Done>) {
        if !matches!(verdict, Verdict::Challenge(_)) {
            self.exchange = None;
        }
        let answer = match verdict {
            Verdict::Challenge(challenge) => LoginAnswer::Challenge(challenge),
            Verdict::Granted(Grant { user, store }) => {
                return self.granted(user.name.as_str().to_owned(), store, control);
            }
            Verdict::Refused { delay } => {
                self.log_login("login failed");
                let logins = self.shared.logins.as_ref();
                let more = logins.map(|logins| logins.refused(self.peer.ip(), SystemTime::now()));
                let delay = delay.max(more.unwrap_or_default());
                return self.hold_back(LoginAnswer::Refused, delay, control);
            }
            Verdict::Malformed(what) => {
                log::info!("login malformed: {}, {}", escape(&what), self.where_from());
                LoginAnswer::Malformed
            }
            Verdict::Unavailable(what) => {
                log::error!("login of <{}>: {what}", escape(&self.claimed));
                LoginAnswer::Unavailable
            }
            Verdict::Found(_) | Verdict::Unknown | Verdict::Mechanisms(_) => {
                LoginAnswer::Unavailable
            }
        };
        self.step(control, |session, actions| session.login(answer, actions));
    }

    fn hold_back(&mut self, answer: LoginAnswer, delay: Duration, control: &mut Control<'_, Done>) {
        self.penalty = Some(answer);
        control.deadline(delay.max(Duration::from_millis(1)));
    }

    fn granted(&mut self, user: String, store: StoreAccess, control: &mut Control<'_, Done>) {
        match store {
            StoreAccess::Worker(stream) => match control.attach(stream) {
                Ok(()) => {
                    self.mail = Mail::Worker(Worker::default());
                    self.logged_in(user, control);
                }
                Err(e) => {
                    self.no_mail(&Fail::io(format!("reach the worker of {user}"), e), control);
                }
            },
            StoreAccess::Pool => {
                let shared = Arc::clone(&self.shared);
                control.job(move || {
                    let opened = shared.open(&user);
                    Done::Opened(user, opened)
                });
            }
            StoreAccess::None => self.no_mail(&Fail::temp("a login without mail"), control),
        }
    }

    fn logged_in(&mut self, user: String, control: &mut Control<'_, Done>) {
        self.claimed.clone_from(&user);
        self.user = Some(user);
        self.log_login("login");
        control.deadline(IDLE_TIME);
        self.step(control, |session, actions| {
            session.login(LoginAnswer::Granted, actions);
        });
    }

    fn no_mail(&mut self, fail: &Fail, control: &mut Control<'_, Done>) {
        log::error!("{fail}");
        self.step(control, |session, actions| {
            session.login(LoginAnswer::Unavailable, actions);
        });
    }

    fn log_login(&self, what: &str) {
        log::info!(
            "{what}: user=<{}>, method={}, {}",
            escape(&self.claimed),
            self.method,
            self.where_from()
        );
    }

    fn where_from(&self) -> String {
        let remote = self
            .peer
            .ip()
            .map_or_else(|| "local".to_owned(), |ip| ip.to_string());
        let tls = if self.encrypted { ", TLS" } else { "" };
        format!("rip={remote}, lip={}{tls}", self.local)
    }

    fn name(&self) -> String {
        let name = self.user.as_deref().unwrap_or("-");
        format!("imap({})", escape(name))
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
        control.deadline(LOGIN_TIME);
        if let Some(info) = control.tls_info() {
            self.session.bind(channel(info));
        }
        self.step(control, Session::open);
    }

    fn input(&mut self, bytes: &[u8], control: &mut Control<'_, Done>) -> usize {
        let took = self.step(control, |session, actions| session.input(bytes, actions));
        self.octets_in = self.octets_in.saturating_add(took as u64);
        self.ticks = 0;
        if self.session.is_authenticated() {
            control.deadline(if self.session.is_idling() {
                TICK
            } else {
                IDLE_TIME
            });
        }
        took
    }

    fn done(&mut self, done: Done, control: &mut Control<'_, Done>) {
        match done {
            Done::Login(verdict) => self.verdict(verdict, control),
            Done::Opened(user, Ok(store)) => {
                let watcher = self.shared.watcher.clone();
                self.mail = Mail::Pool {
                    session: Some(store),
                    watcher,
                    watch: None,
                };
                self.logged_in(user, control);
            }
            Done::Opened(_, Err(fail)) => self.no_mail(&fail, control),
            Done::Store(store, answer) => {
                self.mail.back(store);
                self.step(control, |session, actions| session.answer(answer, actions));
            }
            Done::Decided(matches) => {
                self.step(control, |session, actions| {
                    session.decided(matches, actions);
                });
            }
            Done::Changed => self.step(control, Session::changed),
        }
    }

    fn timeout(&mut self, control: &mut Control<'_, Done>) {
        if let Some(answer) = self.penalty.take() {
            control.deadline(LOGIN_TIME);
            return self.step(control, |session, actions| session.login(answer, actions));
        }
        self.ticks = self.ticks.saturating_add(1);
        if self.session.is_idling() && self.ticks < TICKS {
            control.deadline(TICK);
            return self.step(control, Session::tick);
        }
        self.step(control, Session::timeout);
    }

    fn tls_up(&mut self, info: &TlsInfo, control: &mut Control<'_, Done>) {
        self.encrypted = true;
        self.session.bind(channel(info));
        self.step(control, |session, _| session.tls_up());
    }

    fn eof(&mut self, control: &mut Control<'_, Done>) {
        self.eof = true;
        self.settle(control);
    }

    fn drain(&mut self, control: &mut Control<'_, Done>) {
        self.draining = true;
        self.settle(control);
    }

    fn flushed(&mut self, control: &mut Control<'_, Done>) {
        if std::mem::take(&mut self.wants_flush) {
            self.step(control, Session::flushed);
        }
    }

    fn side(&mut self, bytes: &[u8], control: &mut Control<'_, Done>) -> usize {
        let mut news = Vec::new();
        let received = match &mut self.mail {
            Mail::Worker(worker) => worker.receive(bytes, &mut news),
            Mail::None | Mail::Pool { .. } => Ok(()),
        };
        for item in news {
            match item {
                News::Answer(answer) => {
                    self.step(control, |session, actions| session.answer(answer, actions));
                }
                News::Changed => self.step(control, Session::changed),
            }
        }
        if received.is_err() {
            log::error!("{}: the worker said what no worker says", self.name());
            control.abort();
        }
        bytes.len()
    }

    fn side_closed(&mut self, control: &mut Control<'_, Done>) {
        if self.ended.is_none() {
            log::error!("{}: the worker is gone", self.name());
            self.mail = Mail::None;
            self.step(control, Session::lost);
        }
    }

    fn closed(&mut self, why: &Closed) {
        self.cancel();
        let reason = match (self.ended, why) {
            (Some(ended), _) => ended.text().to_owned(),
            (None, Closed::ByUs) => "Connection closed".to_owned(),
            (None, why) => format!("Disconnected: {why}"),
        };
        if self.user.is_some() {
            let (read, written) = (self.octets_in, self.octets_out);
            log::info!("{}: {reason} in={read} out={written}", self.name());
        } else {
            log::log!(
                self.level,
                "{reason} (not logged in), {}",
                self.where_from()
            );
        }
    }
}
