//! Which command is valid in which state, and what is asked for it (RFC 3501 6).

use store::request::{Expunge, Request};
use store::{FolderName, Set};

use crate::command::{Command, Mailbox};
use crate::fetch::Fetch;
use crate::list;
use crate::response::line;
use crate::search::Search;
use crate::session::{Actions, Ended, Session, State, Task};

pub(crate) const IMPOSSIBLE: &str = "NO [CANNOT] No mailbox can have this name";

impl Session {
    /// A command that was read.
    pub(crate) fn command(&mut self, tag: String, command: Command, actions: &mut Actions) {
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
            command => match &self.state {
                State::NotAuthenticated => self.before_login(tag, command, actions),
                State::Authenticated => self.on_folders(tag, command, actions),
                State::Selected { read_only, .. } => {
                    let read_only = *read_only;
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
            Command::Select { mailbox, read_only } => {
                let (task, request) = match mailbox {
                    Some(folder) => (
                        Task::Selecting { tag, read_only },
                        Request::Select { folder, read_only },
                    ),
                    None => (Task::Deselecting { tag }, Request::Unselect),
                };
                return self.ask(task, request, actions);
            }
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
            None => self.finish(&tag, IMPOSSIBLE, true, actions),
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
                let kept = match &mut self.state {
                    State::Selected { kept, .. } => kept.take().map(|kept| *kept),
                    _ => None,
                };
                let (fetch, request) = Fetch::new(items, set, !read_only, kept);
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
                let told = (!silent).then(|| set.clone());
                let request = Request::StoreFlags {
                    set,
                    change,
                    flags,
                    keywords,
                };
                (Task::Storing { tag, told, uid }, request)
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
            None => self.finish(&tag, IMPOSSIBLE, true, actions),
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
                let tag = tag.into();
                let request = if subscribed {
                    Request::Lsub(pattern)
                } else {
                    Request::List(pattern)
                };
                self.ask(Task::Listing { tag, subscribed }, request, actions);
            }
            None => self.finish(tag, &format!("OK {verb} completed"), true, actions),
        }
    }
}
