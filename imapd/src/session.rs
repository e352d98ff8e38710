//! An IMAP session (RFC 3501 3) as a pure machine: octets and answers in, [`Actions`] out.
//!
//! It knows no socket, file or clock. One command is at work at a time: while [`Session::wants_input`]
//! is false nothing is read, and what a client pipelines waits. Messages pass through in pieces; the
//! session keeps at most one command, one piece and one list of messages.

use store::request::{Answer, Expunge, Failed, Request, Why};
use store::{FolderName, Set};

use crate::append::Appending;
use crate::command::{self, Command, Mailbox, StatusItem};
use crate::fetch::Fetch;
use crate::framer::{Frame, Framer, Limit};
use crate::list;
use crate::login::{LoginAnswer, LoginRequest};
use crate::response::line;
use crate::search::Search;

/// What the driver is to do, in this order: the output, then the rest.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    pub(crate) output: Vec<u8>,
    pub(crate) next: Vec<Action>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask the store; [`Session::answer`] gets its answer.
    Ask(Request),
    /// Ask checkpw; [`Session::login`] gets its answer.
    Login(LoginRequest),
    /// Start TLS; [`Session::tls_up`] when it is there.
    StartTls,
    /// Tell [`Session::changed`] when the selected folder may have changed; or no longer.
    Watch(bool),
    /// Call [`Session::flushed`] when the client has taken the output.
    WhenFlushed,
    /// Close when the output has gone.
    Close(Ended),
    /// Close at once: the client waits for octets that we cannot give.
    Abort,
}

/// Why a session ends, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    LoggedOut,
    LoginFailures,
    Inactive,
    Replaced,
    ShuttingDown,
}

impl Ended {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::LoggedOut => "Logged out",
            Self::LoginFailures => "Too many login failures",
            Self::Inactive => "Disconnected for inactivity",
            Self::Replaced => "Mailbox was replaced",
            Self::ShuttingDown => "Server shutting down",
        }
    }
}

/// What a session is told once.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Who greets.
    pub(crate) host: String,
    /// Octets of a message that APPEND takes.
    pub(crate) message_size: u64,
    /// SASL mechanisms of checkpw.
    pub(crate) mechanisms: &'static [&'static str],
    /// Whether passwords may come as they are now: TLS, loopback, or the operator says so.
    pub(crate) login_allowed: bool,
    /// Whether STARTTLS can be had.
    pub(crate) starttls: bool,
}

pub(crate) struct Session {
    pub(crate) options: Options,
    pub(crate) state: State,
    pub(crate) task: Task,
    pub(crate) framer: Framer,
    pub(crate) failures: u8,
}

/// RFC 3501 3.
#[derive(Debug)]
pub(crate) enum State {
    NotAuthenticated,
    Authenticated,
    Selected { read_only: bool },
    Logout,
}

/// What the session waits for.
#[derive(Debug)]
pub(crate) enum Task {
    /// The next command.
    Ready,
    /// The client's next SASL answer.
    Sasl {
        tag: String,
    },
    LoggingIn {
        tag: String,
    },
    StartingTls,
    Selecting {
        tag: String,
        read_only: bool,
    },
    /// A request that is simply done or not.
    Simple {
        tag: String,
        verb: &'static str,
    },
    /// CLOSE and UNSELECT.
    Leaving {
        tag: String,
        verb: &'static str,
    },
    Listing {
        tag: String,
        pattern: String,
        subscribed: bool,
    },
    Status {
        tag: String,
        folder: FolderName,
        items: Vec<StatusItem>,
    },
    Fetching {
        tag: String,
        fetch: Box<Fetch>,
        uid: bool,
    },
    Searching {
        tag: String,
        search: Box<Search>,
        uid: bool,
    },
    Storing {
        tag: String,
        silent: bool,
        uid: bool,
    },
    Copying {
        tag: String,
        moving: bool,
    },
    Expunging {
        tag: String,
    },
    Appending(Appending),
    /// What is new is told before the tagged response, which is ready.
    Polling {
        response: String,
        expunges: bool,
    },
    /// IDLE; `asked` while the store tells what is new, `again` when more has changed meanwhile.
    Idling {
        tag: String,
        asked: bool,
        again: bool,
    },
    Ended,
}

impl Session {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            state: State::NotAuthenticated,
            task: Task::Ready,
            framer: Framer::new(),
            failures: 0,
        }
    }

    /// The connection is there.
    pub(crate) fn open(&mut self, actions: &mut Actions) {
        let greeting = format!(
            "* OK [CAPABILITY {}] {} yubin ready",
            self.capabilities(),
            self.options.host
        );
        line(&mut actions.output, &greeting);
    }

    /// Whether octets of the client have a use now.
    pub(crate) fn wants_input(&self) -> bool {
        match &self.task {
            Task::Ready | Task::Sasl { .. } => true,
            Task::Idling { asked, .. } => !asked,
            Task::Appending(appending) => appending.wants_input(),
            _ => false,
        }
    }

    /// Whether a user has logged in.
    pub(crate) fn is_authenticated(&self) -> bool {
        matches!(self.state, State::Authenticated | State::Selected { .. })
    }

    /// Whether the session is in IDLE.
    pub(crate) fn is_idling(&self) -> bool {
        matches!(self.task, Task::Idling { .. })
    }

    /// Octets from the client: says how many it took. At most one command is begun.
    pub(crate) fn input(&mut self, bytes: &[u8], actions: &mut Actions) -> usize {
        if !self.wants_input() {
            return 0;
        }
        if let Task::Appending(_) = self.task {
            return self.append_input(bytes, actions);
        }
        let plain = !matches!(self.task, Task::Ready);
        let logged_in = self.is_authenticated();
        let limit = if logged_in {
            Limit::AFTER_LOGIN
        } else {
            Limit::BEFORE_LOGIN
        };
        let (took, frame) = self.framer.feed(bytes, limit, plain, logged_in && !plain);
        match frame {
            Frame::Partial => {}
            Frame::Continue => line(&mut actions.output, "+ Ready for the literal"),
            Frame::Bad { tag, text } => {
                let tag = tag.filter(|_| !plain);
                line(
                    &mut actions.output,
                    &format!("{} BAD {text}", tag.as_deref().unwrap_or("*")),
                );
            }
            Frame::Append {
                append,
                size,
                waits,
            } => self.append(append, size, waits, actions),
            Frame::Command(text) => self.line(&text, actions),
        }
        took
    }

    fn line(&mut self, text: &[u8], actions: &mut Actions) {
        match &self.task {
            Task::Sasl { .. } => self.sasl_answer(text, actions),
            Task::Idling { .. } => self.idle_ends(text, actions),
            _ => {
                let Some(tag) = command::tag_of(text) else {
                    return line(&mut actions.output, "* BAD tag missing");
                };
                match command::parse(text) {
                    Ok(command) => self.command(tag, command, actions),
                    Err(why) => line(&mut actions.output, &format!("{tag} BAD {why}")),
                }
            }
        }
    }

    /// RFC 3501 6: which commands are valid in which state.
    fn command(&mut self, tag: String, command: Command, actions: &mut Actions) {
        match command {
            Command::Capability => {
                let capabilities = self.capabilities();
                line(&mut actions.output, &format!("* CAPABILITY {capabilities}"));
                self.finish(&tag, "OK CAPABILITY completed", true, actions);
            }
            Command::Noop => self.finish(&tag, "OK NOOP completed", true, actions),
            Command::Id => {
                line(&mut actions.output, "* ID (\"name\" \"yubin\")");
                self.finish(&tag, "OK ID completed", true, actions);
            }
            Command::Logout => {
                line(&mut actions.output, "* BYE Logging out");
                line(&mut actions.output, &format!("{tag} OK LOGOUT completed"));
                self.end(Ended::LoggedOut, actions);
            }
            command => match self.state {
                State::NotAuthenticated => self.before_login(tag, command, actions),
                State::Authenticated => self.on_folders(tag, command, actions),
                State::Selected { read_only } => {
                    self.on_messages(tag, command, read_only, actions);
                }
                State::Logout => {}
            },
        }
    }

    /// RFC 3501 6.3.
    fn on_folders(&mut self, tag: String, command: Command, actions: &mut Actions) {
        let simple = |verb| Task::Simple {
            tag: tag.clone(),
            verb,
        };
        let named = |name: Mailbox, make: &dyn Fn(FolderName) -> Request, verb| {
            name.map(|name| (simple(verb), make(name)))
        };
        let asked = match command {
            Command::Select { mailbox, read_only } => mailbox.map(|folder| {
                (
                    Task::Selecting {
                        tag: tag.clone(),
                        read_only,
                    },
                    Request::Select { folder, read_only },
                )
            }),
            Command::Create(name) => named(name, &Request::Create, "CREATE"),
            Command::Delete(name) => named(name, &Request::Delete, "DELETE"),
            Command::Subscribe(name) => named(name, &Request::Subscribe, "SUBSCRIBE"),
            Command::Unsubscribe(name) => named(name, &Request::Unsubscribe, "UNSUBSCRIBE"),
            Command::Rename { from, to } => from
                .zip(to)
                .map(|(from, to)| (simple("RENAME"), Request::Rename { from, to })),
            Command::Status { mailbox, items } => mailbox.map(|folder| {
                let request = Request::Status(folder.clone());
                (
                    Task::Status {
                        tag: tag.clone(),
                        folder,
                        items,
                    },
                    request,
                )
            }),
            Command::List {
                reference,
                pattern,
                subscribed,
            } => {
                return self.list(&tag, &reference, &pattern, subscribed, actions);
            }
            Command::Namespace => {
                line(&mut actions.output, "* NAMESPACE ((\"\" \"/\")) NIL NIL");
                return self.finish(&tag, "OK NAMESPACE completed", true, actions);
            }
            Command::Idle => return self.idle(tag, actions),
            Command::Login { .. } | Command::Authenticate { .. } | Command::StartTls => {
                return self.finish(&tag, "BAD Already logged in", true, actions);
            }
            _ => return self.finish(&tag, "BAD Select a mailbox first", true, actions),
        };
        match asked {
            Some((task, request)) => self.ask(task, request, actions),
            None => self.finish(
                &tag,
                "NO [CANNOT] No mailbox can have this name",
                true,
                actions,
            ),
        }
    }

    /// RFC 3501 6.4; what is valid before SELECT stays so.
    fn on_messages(
        &mut self,
        tag: String,
        command: Command,
        read_only: bool,
        actions: &mut Actions,
    ) {
        let changes = matches!(
            command,
            Command::Expunge
                | Command::UidExpunge(_)
                | Command::Store { .. }
                | Command::Move { .. }
        );
        if changes && read_only {
            return self.finish(
                &tag,
                "NO [READ-ONLY] The mailbox was opened read-only",
                true,
                actions,
            );
        }
        let expunge = |what| (Task::Expunging { tag: tag.clone() }, Request::Expunge(what));
        let (task, request) = match command {
            Command::Check => return self.finish(&tag, "OK CHECK completed", true, actions),
            Command::Close => (Task::Leaving { tag, verb: "CLOSE" }, Request::Close),
            Command::Unselect => (
                Task::Leaving {
                    tag,
                    verb: "UNSELECT",
                },
                Request::Unselect,
            ),
            Command::Expunge => expunge(Expunge::Deleted),
            Command::UidExpunge(set) => expunge(Expunge::DeletedIn(set)),
            Command::Fetch { uid, set, items } => {
                let (fetch, request) = Fetch::new(items, set, !read_only);
                (
                    Task::Fetching {
                        tag,
                        fetch: Box::new(fetch),
                        uid,
                    },
                    request,
                )
            }
            Command::Search { uid, charset, key } => {
                match Search::new(key, charset.as_deref(), uid) {
                    Ok((search, request)) => (
                        Task::Searching {
                            tag,
                            search: Box::new(search),
                            uid,
                        },
                        request,
                    ),
                    Err(_) => {
                        let text = "NO [BADCHARSET (US-ASCII UTF-8)] Unknown charset";
                        return self.finish(&tag, text, uid, actions);
                    }
                }
            }
            Command::Store {
                uid,
                set,
                change,
                silent,
                flags,
            } => {
                let (flags, keywords) = (flags.flags, flags.keywords);
                let request = Request::StoreFlags {
                    set,
                    change,
                    flags,
                    keywords,
                };
                (Task::Storing { tag, silent, uid }, request)
            }
            Command::Copy { set, to } => return self.copy(tag, set, to, false, actions),
            Command::Move { set, to } => return self.copy(tag, set, to, true, actions),
            other => return self.on_folders(tag, other, actions),
        };
        self.ask(task, request, actions);
    }

    fn copy(&mut self, tag: String, set: Set, to: Mailbox, moving: bool, actions: &mut Actions) {
        match to {
            Some(to) if moving => {
                self.ask(
                    Task::Copying { tag, moving },
                    Request::Move { set, to },
                    actions,
                );
            }
            Some(to) => self.ask(
                Task::Copying { tag, moving },
                Request::Copy { set, to },
                actions,
            ),
            None => self.finish(
                &tag,
                "NO [CANNOT] No mailbox can have this name",
                true,
                actions,
            ),
        }
    }

    fn list(
        &mut self,
        tag: &str,
        reference: &[u8],
        pattern: &[u8],
        subscribed: bool,
        actions: &mut Actions,
    ) {
        let verb = if subscribed { "LSUB" } else { "LIST" };
        if pattern.is_empty() && !subscribed {
            list::separator(&mut actions.output);
            return self.finish(tag, "OK LIST completed", true, actions);
        }
        match list::pattern(reference, pattern) {
            Some(pattern) => {
                let request = if subscribed {
                    Request::Lsub
                } else {
                    Request::List
                };
                self.ask(
                    Task::Listing {
                        tag: tag.into(),
                        pattern,
                        subscribed,
                    },
                    request,
                    actions,
                );
            }
            None => self.finish(tag, &format!("OK {verb} completed"), true, actions),
        }
    }

    /// RFC 2177.
    fn idle(&mut self, tag: String, actions: &mut Actions) {
        line(&mut actions.output, "+ idling");
        let selected = matches!(self.state, State::Selected { .. });
        self.task = Task::Idling {
            tag,
            asked: selected,
            again: false,
        };
        if selected {
            actions.next.push(Action::Watch(true));
            actions
                .next
                .push(Action::Ask(Request::Poll { expunges: true }));
        }
    }

    fn idle_ends(&mut self, text: &[u8], actions: &mut Actions) {
        let Task::Idling { tag, .. } = std::mem::replace(&mut self.task, Task::Ready) else {
            return;
        };
        if matches!(self.state, State::Selected { .. }) {
            actions.next.push(Action::Watch(false));
        }
        if text.eq_ignore_ascii_case(b"DONE") {
            self.finish(&tag, "OK IDLE completed", true, actions);
        } else {
            self.finish(&tag, "BAD Expected DONE", true, actions);
        }
    }

    /// The selected folder may have changed (IDLE).
    pub(crate) fn changed(&mut self, actions: &mut Actions) {
        if let Task::Idling { asked, again, .. } = &mut self.task
            && matches!(self.state, State::Selected { .. })
        {
            if *asked {
                *again = true;
            } else {
                *asked = true;
                actions
                    .next
                    .push(Action::Ask(Request::Poll { expunges: true }));
            }
        }
    }

    /// Some time has passed in IDLE: the client is told that we are still there, and a change that
    /// no notice told of is found.
    pub(crate) fn tick(&mut self, actions: &mut Actions) {
        if self.is_idling() {
            line(&mut actions.output, "* OK Still here");
            self.changed(actions);
        }
    }

    /// Nothing came for too long (RFC 3501 5.4).
    pub(crate) fn timeout(&mut self, actions: &mut Actions) {
        if !matches!(self.task, Task::Fetching { .. }) {
            line(&mut actions.output, "* BYE Disconnected for inactivity");
        }
        self.end(Ended::Inactive, actions);
    }

    /// The daemon ends.
    pub(crate) fn drain(&mut self, actions: &mut Actions) {
        if !matches!(self.task, Task::Fetching { .. }) {
            line(
                &mut actions.output,
                "* BYE [UNAVAILABLE] Server shutting down, try again soon",
            );
        }
        self.end(Ended::ShuttingDown, actions);
    }

    /// The client has taken the output.
    pub(crate) fn flushed(&mut self, actions: &mut Actions) {
        if let Task::Fetching { fetch, .. } = &mut self.task {
            let step = fetch.flushed(&mut actions.output);
            self.fetch_step(step, actions);
        }
    }

    pub(crate) fn ask(&mut self, task: Task, request: Request, actions: &mut Actions) {
        self.task = task;
        actions.next.push(Action::Ask(request));
    }

    /// The tagged response; in the selected state what is new is told before it.
    pub(crate) fn finish(&mut self, tag: &str, text: &str, expunges: bool, actions: &mut Actions) {
        let response = format!("{tag} {text}");
        if matches!(self.state, State::Selected { .. }) {
            self.ask(
                Task::Polling { response, expunges },
                Request::Poll { expunges },
                actions,
            );
        } else {
            line(&mut actions.output, &response);
            self.task = Task::Ready;
        }
    }

    /// A request was not done.
    pub(crate) fn fail(
        &mut self,
        tag: &str,
        failed: &Failed,
        expunges: bool,
        actions: &mut Actions,
    ) {
        if failed.why == Why::Replaced {
            return self.replaced(actions);
        }
        let text = refusal(failed, false);
        self.finish(tag, &text, expunges, actions);
    }

    pub(crate) fn replaced(&mut self, actions: &mut Actions) {
        line(
            &mut actions.output,
            "* BYE The mailbox was replaced, its UIDs are no more; connect again",
        );
        self.end(Ended::Replaced, actions);
    }

    pub(crate) fn end(&mut self, why: Ended, actions: &mut Actions) {
        self.state = State::Logout;
        self.task = Task::Ended;
        actions.next.push(Action::Close(why));
    }

    /// The answer to the last [`Action::Ask`].
    pub(crate) fn answer(&mut self, answer: Answer, actions: &mut Actions) {
        self.answered(answer, actions);
    }

    /// The answer to the last [`Action::Login`].
    pub(crate) fn login(&mut self, answer: LoginAnswer, actions: &mut Actions) {
        self.login_answer(answer, actions);
    }
}

/// `NO [CODE] text` (RFC 5530); `target` when the folder that is missing is one to put messages in.
pub(crate) fn refusal(failed: &Failed, target: bool) -> String {
    let code = match failed.why {
        Why::NoSuchFolder if target => "NO [TRYCREATE]",
        Why::NoSuchFolder => "NO [NONEXISTENT]",
        Why::NotSelected => "NO [CLIENTBUG]",
        Why::Bad => "BAD",
        Why::ReadOnly => "NO [READ-ONLY]",
        Why::Exists => "NO [ALREADYEXISTS]",
        Why::Cannot => "NO [CANNOT]",
        Why::Gone => "NO [EXPUNGEISSUED]",
        Why::TooBig => "NO [TOOBIG]",
        Why::Full => "NO [OVERQUOTA]",
        Why::InUse => "NO [INUSE]",
        Why::Replaced | Why::Temporary => "NO [UNAVAILABLE]",
    };
    let text: String = failed
        .text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!(
        "{code} {}",
        if text.trim().is_empty() {
            "Cannot do that"
        } else {
            text.trim()
        }
    )
}
