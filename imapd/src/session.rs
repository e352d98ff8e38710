//! An IMAP session (RFC 3501 3) as a pure machine: octets and answers in, [`Actions`] out.
//!
//! It knows no socket, file or clock. One command is at work at a time: while [`Session::wants_input`]
//! is false nothing is read, and what a client pipelines waits. Messages pass through in pieces; the
//! session keeps at most one command, one piece and one list of messages.

use account::{Channel, Mechanism};
use store::request::{Answer, Failed, Request, Why};
use store::{FolderName, Set};

use crate::append::Appending;
use crate::command::{self, StatusItem};
use crate::fetch::{Fetch, Kept};
use crate::framer::{Frame, Framer, Limit};
use crate::login::{LoginAnswer, LoginRequest};
use crate::response::line;
use crate::search::{Search, Thought};

/// What the driver is to do, in this order: the output, then the rest.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    pub(crate) output: Vec<u8>,
    pub(crate) next: Vec<Action>,
}

#[derive(Debug)]
pub(crate) enum Action {
    /// Ask the store; [`Session::answer`] gets its answer.
    Ask(Request),
    /// Ask checkpw; [`Session::login`] gets its answer.
    Login(LoginRequest),
    /// Search a message's text where that holds nobody up; [`Session::decided`] gets the result.
    Decide(Box<Thought>),
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
    Nonsense,
    Lost,
    Inactive,
    Replaced,
    ShuttingDown,
}

impl Ended {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::LoggedOut => "Logged out",
            Self::LoginFailures => "Too many login failures",
            Self::Nonsense => "Too many bad commands",
            Self::Lost => "Lost the way to the mail",
            Self::Inactive => "Disconnected for inactivity",
            Self::Replaced => "Mailbox was replaced",
            Self::ShuttingDown => "Server shutting down",
        }
    }
}

/// Bad commands that are answered before the login.
const MAX_NONSENSE: u8 = 10;

/// What a session is told once.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Who greets.
    pub(crate) host: String,
    /// Octets of a message that APPEND takes.
    pub(crate) message_size: u64,
    /// SASL mechanisms of checkpw.
    pub(crate) mechanisms: Vec<Mechanism>,
    /// Whether passwords may come as they are now: TLS, loopback, or the operator says so.
    pub(crate) login_allowed: bool,
    /// Whether STARTTLS can be had.
    pub(crate) starttls: bool,
}

pub(crate) struct Session {
    pub(crate) options: Options,
    /// What there is to bind a login to.
    pub(crate) channel: Channel,
    pub(crate) state: State,
    pub(crate) task: Task,
    pub(crate) framer: Framer,
    pub(crate) failures: u8,
    nonsense: u8,
}

/// RFC 3501 3.
#[derive(Debug)]
pub(crate) enum State {
    NotAuthenticated,
    Authenticated,
    Selected {
        read_only: bool,
        /// Of the last FETCH, unless one is at work.
        kept: Option<Box<Kept>>,
    },
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
    /// A mailbox that cannot be selected: none is, then.
    Deselecting {
        tag: String,
    },
    /// CLOSE and UNSELECT.
    Leaving {
        tag: String,
        verb: &'static str,
    },
    Listing {
        tag: String,
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
        /// What is to be told in untagged responses; `None` for `.SILENT`.
        told: Option<Set>,
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
            channel: Channel::default(),
            failures: 0,
            nonsense: 0,
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
                self.count_nonsense(actions);
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
                let (tag, why) = match (command::tag_of(text), command::parse(text)) {
                    (Some(tag), Ok(command)) => return self.command(tag, command, actions),
                    (Some(tag), Err(why)) => (tag, why),
                    (None, _) => ("*".to_owned(), "tag missing"),
                };
                line(&mut actions.output, &format!("{tag} BAD {why}"));
                self.count_nonsense(actions);
            }
        }
    }

    /// Who says nothing sensible before the login speaks another protocol, or tries what happens.
    fn count_nonsense(&mut self, actions: &mut Actions) {
        self.nonsense = self.nonsense.saturating_add(1);
        if self.nonsense >= MAX_NONSENSE && matches!(self.state, State::NotAuthenticated) {
            line(&mut actions.output, "* BYE This is an IMAP server");
            self.end(Ended::Nonsense, actions);
        }
    }

    /// The way to the mail is gone.
    pub(crate) fn lost(&mut self, actions: &mut Actions) {
        self.goodbye(
            "[UNAVAILABLE] The mail is out of reach, try again soon",
            actions,
        );
        self.end(Ended::Lost, actions);
    }

    /// BYE, unless a response is half written.
    fn goodbye(&self, text: &str, actions: &mut Actions) {
        if !matches!(self.task, Task::Fetching { .. }) {
            line(&mut actions.output, &format!("* BYE {text}"));
        }
    }

    /// Nothing came for too long (RFC 3501 5.4).
    pub(crate) fn timeout(&mut self, actions: &mut Actions) {
        self.goodbye("Disconnected for inactivity", actions);
        self.end(Ended::Inactive, actions);
    }

    /// The daemon ends.
    pub(crate) fn drain(&mut self, actions: &mut Actions) {
        self.goodbye(
            "[UNAVAILABLE] Server shutting down, try again soon",
            actions,
        );
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

    /// The result of the last [`Action::Decide`].
    pub(crate) fn decided(&mut self, matches: bool, actions: &mut Actions) {
        if let Task::Searching { search, .. } = &mut self.task {
            let step = search.decided(matches);
            self.search_step(step, actions);
        }
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
