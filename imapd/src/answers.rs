//! What a session does with the store's answers.

use store::request::{Answer, Messages, Request, Status, Updates, Why};

use crate::command::StatusItem;
use crate::dispatch::IMPOSSIBLE;
use crate::fetch::{self, unexpected};
use crate::list;
use crate::response::{self, line};
use crate::search;
use crate::session::{Action, Actions, Session, State, Task, refusal};

impl Session {
    pub(crate) fn answered(&mut self, answer: Answer, actions: &mut Actions) {
        match std::mem::replace(&mut self.task, Task::Ready) {
            Task::Fetching {
                tag,
                mut fetch,
                uid,
            } => {
                let step = fetch.answer(answer, &mut actions.output);
                self.task = Task::Fetching { tag, fetch, uid };
                self.fetch_step(step, actions);
            }
            Task::Searching {
                tag,
                mut search,
                uid,
            } => {
                let step = search.answer(answer);
                self.task = Task::Searching { tag, search, uid };
                self.search_step(step, actions);
            }
            Task::Polling { response, expunges } => {
                self.polled(answer, response, expunges, actions);
            }
            Task::Idling { tag, again, .. } => self.idle_answer(answer, tag, again, actions),
            Task::Appending(appending) => self.append_answer(appending, answer, actions),
            Task::Selecting { tag, read_only } => self.selected(&tag, read_only, answer, actions),
            Task::Ended => self.task = Task::Ended,
            task => self.plain_answer(task, answer, actions),
        }
    }

    /// The commands that are one request and one answer.
    fn plain_answer(&mut self, task: Task, answer: Answer, actions: &mut Actions) {
        let (tag, expunges, to_target) = match &task {
            Task::Storing { tag, uid, .. } => (tag.clone(), *uid, false),
            Task::Copying { tag, .. } => (tag.clone(), true, true),
            Task::Simple { tag, .. }
            | Task::Leaving { tag, .. }
            | Task::Deselecting { tag }
            | Task::Listing { tag, .. }
            | Task::Status { tag, .. }
            | Task::Expunging { tag } => (tag.clone(), true, false),
            _ => {
                unexpected(&answer);
                self.task = task;
                return;
            }
        };
        let out = &mut actions.output;
        let text = match (task, answer) {
            (_, Answer::Failed(failed)) if failed.why == Why::Replaced => {
                return self.replaced(actions);
            }
            (_, Answer::Failed(failed)) => refusal(&failed, to_target),
            (Task::Simple { verb, .. }, Answer::Done) => format!("OK {verb} completed"),
            (Task::Leaving { verb, .. }, Answer::Done) => {
                self.state = State::Authenticated;
                format!("OK {verb} completed")
            }
            (Task::Deselecting { .. }, Answer::Done) => {
                self.state = State::Authenticated;
                IMPOSSIBLE.into()
            }
            (Task::Listing { subscribed, .. }, Answer::Folders(folders)) => {
                list::respond(out, &folders, subscribed);
                if subscribed {
                    "OK LSUB completed".into()
                } else {
                    "OK LIST completed".into()
                }
            }
            (Task::Status { folder, items, .. }, Answer::Status(status)) => {
                status_response(out, folder.as_str(), &items, &status);
                "OK STATUS completed".into()
            }
            (Task::Storing { told, tag, uid }, Answer::Stored(changed))
            | (Task::Storing { told, tag, uid }, Answer::Messages(changed)) => {
                if let Some(set) = told {
                    flags_response(out, &changed, uid);
                    let last = changed.list.last().filter(|_| changed.more);
                    if let Some(last) = last {
                        let rest = fetch::behind(&set, (last.seq, last.uid));
                        let request = Request::Fetch(rest.clone());
                        let told = Some(rest);
                        return self.ask(Task::Storing { tag, told, uid }, request, actions);
                    }
                }
                "OK STORE completed".into()
            }
            (Task::Expunging { .. }, Answer::Updates(updates)) => {
                response::updates(out, &updates);
                "OK EXPUNGE completed".into()
            }
            (
                Task::Copying { moving, .. },
                Answer::Copied {
                    uidvalidity,
                    source,
                    copies,
                    updates,
                },
            ) => copied(out, moving, uidvalidity, (&source, &copies), &updates),
            (_, other) => refusal(&unexpected(&other), false),
        };
        self.finish(&tag, &text, expunges, actions);
    }

    fn selected(&mut self, tag: &str, read_only: bool, answer: Answer, actions: &mut Actions) {
        match answer {
            Answer::Selected(selected) => {
                let read_only = read_only || selected.read_only;
                response::selected(&mut actions.output, &selected);
                self.state = State::Selected {
                    read_only,
                    kept: None,
                };
                let code = if read_only { "READ-ONLY" } else { "READ-WRITE" };
                line(
                    &mut actions.output,
                    &format!("{tag} OK [{code}] Mailbox selected"),
                );
                self.task = Task::Ready;
            }
            // RFC 3501 6.3.1: then none is selected.
            Answer::Failed(failed) => {
                self.state = State::Authenticated;
                self.fail(tag, &failed, true, actions);
            }
            other => {
                self.state = State::Authenticated;
                self.fail(tag, &unexpected(&other), true, actions);
            }
        }
    }

    pub(crate) fn fetch_step(&mut self, step: fetch::Step, actions: &mut Actions) {
        match step {
            fetch::Step::Ask(request) => actions.next.push(Action::Ask(request)),
            fetch::Step::Flush => actions.next.push(Action::WhenFlushed),
            fetch::Step::Broken => {
                self.state = State::Logout;
                self.task = Task::Ended;
                actions.next.push(Action::Abort);
            }
            fetch::Step::Done(outcome) => {
                let Task::Fetching { tag, uid, fetch } =
                    std::mem::replace(&mut self.task, Task::Ready)
                else {
                    return;
                };
                if let State::Selected { kept, .. } = &mut self.state {
                    *kept = fetch.into_kept().map(Box::new);
                }
                match outcome {
                    // RFC 3501 6.4.8: a UID that names no message is passed over.
                    fetch::Outcome::SomeGone if !uid => {
                        let text = "NO [EXPUNGEISSUED] Some of the messages were expunged";
                        self.finish(&tag, text, uid, actions);
                    }
                    fetch::Outcome::Complete | fetch::Outcome::SomeGone => {
                        self.finish(&tag, "OK FETCH completed", uid, actions);
                    }
                    fetch::Outcome::Failed(failed) => self.fail(&tag, &failed, uid, actions),
                }
            }
        }
    }

    pub(crate) fn search_step(&mut self, step: search::Step, actions: &mut Actions) {
        let done = match step {
            search::Step::Ask(request) => return actions.next.push(Action::Ask(request)),
            search::Step::Decide(thought) => return actions.next.push(Action::Decide(thought)),
            search::Step::Found(found) => Ok(found),
            search::Step::Failed(failed) => Err(failed),
        };
        let Task::Searching { tag, uid, .. } = std::mem::replace(&mut self.task, Task::Ready)
        else {
            return;
        };
        match done {
            Ok(found) => {
                actions.output.extend_from_slice(b"* SEARCH");
                for number in found {
                    actions
                        .output
                        .extend_from_slice(format!(" {number}").as_bytes());
                }
                line(&mut actions.output, "");
                self.finish(&tag, "OK SEARCH completed", uid, actions);
            }
            Err(failed) => self.fail(&tag, &failed, uid, actions),
        }
    }

    fn polled(&mut self, answer: Answer, response: String, expunges: bool, actions: &mut Actions) {
        match answer {
            Answer::Updates(updates) => {
                response::updates(&mut actions.output, &updates);
                if updates.more {
                    let task = Task::Polling { response, expunges };
                    return self.ask(task, Request::Poll { expunges }, actions);
                }
            }
            Answer::Failed(failed) if failed.why == Why::Replaced => return self.replaced(actions),
            // The command itself was done; the news can wait.
            Answer::Failed(failed) => log::debug!("poll: {}", failed.text),
            other => {
                unexpected(&other);
            }
        }
        line(&mut actions.output, &response);
        self.task = Task::Ready;
    }
}

fn status_response(out: &mut Vec<u8>, name: &str, items: &[StatusItem], status: &Status) {
    out.extend_from_slice(b"* STATUS ");
    response::mailbox(out, name);
    let words: Vec<String> = items
        .iter()
        .map(|item| {
            let value = match item {
                StatusItem::Messages => status.exists,
                StatusItem::Recent => status.recent,
                StatusItem::UidNext => status.uidnext,
                StatusItem::UidValidity => status.uidvalidity,
                StatusItem::Unseen => status.unseen,
            };
            format!("{} {value}", item.name())
        })
        .collect();
    line(out, &format!(" ({})", words.join(" ")));
}

fn flags_response(out: &mut Vec<u8>, stored: &Messages, uid: bool) {
    for message in &stored.list {
        let uid = if uid {
            format!("UID {} ", message.uid)
        } else {
            String::new()
        };
        line(
            out,
            &format!(
                "* {} FETCH ({uid}FLAGS {})",
                message.seq,
                response::flags(message)
            ),
        );
    }
}

/// RFC 4315 3 and RFC 6851 4.3: the UIDs are told before a move expunges.
fn copied(
    out: &mut Vec<u8>,
    moving: bool,
    uidvalidity: u32,
    (source, copies): (&[u32], &[u32]),
    updates: &Updates,
) -> String {
    let code = if source.is_empty() || copies.len() != source.len() {
        String::new()
    } else {
        let (source, copies) = (response::uid_set(source), response::uid_set(copies));
        format!("[COPYUID {uidvalidity} {source} {copies}] ")
    };
    if !moving {
        return format!("OK {code}COPY completed");
    }
    if !code.is_empty() {
        line(out, &format!("* OK {code}Moved"));
    }
    response::updates(out, updates);
    "OK MOVE completed".into()
}
