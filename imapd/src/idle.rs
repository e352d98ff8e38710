//! IDLE (RFC 2177): what is new in the selected folder is told when it happens.

use store::request::{Answer, Request, Why};

use crate::fetch::unexpected;
use crate::response::{self, line};
use crate::session::{Action, Actions, Session, State, Task};

impl Session {
    /// IDLE begins.
    pub(crate) fn idle(&mut self, tag: String, actions: &mut Actions) {
        line(&mut actions.output, "+ idling");
        let selected = matches!(self.state, State::Selected { .. });
        if let State::Selected { kept, .. } = &mut self.state {
            // This may last for hours.
            *kept = None;
        }
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

    pub(crate) fn idle_ends(&mut self, text: &[u8], actions: &mut Actions) {
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

    /// What is new was asked for.
    pub(crate) fn idle_answer(
        &mut self,
        answer: Answer,
        tag: String,
        again: bool,
        actions: &mut Actions,
    ) {
        let mut again = again;
        match answer {
            Answer::Updates(updates) => {
                response::updates(&mut actions.output, &updates);
                again |= updates.more;
            }
            Answer::Failed(failed) if failed.why == Why::Replaced => return self.replaced(actions),
            Answer::Failed(failed) => log::debug!("poll in IDLE: {}", failed.text),
            other => {
                unexpected(&other);
            }
        }
        self.task = Task::Idling {
            tag,
            asked: again,
            again: false,
        };
        if again {
            actions
                .next
                .push(Action::Ask(Request::Poll { expunges: true }));
        }
    }
}
