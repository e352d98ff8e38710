//! Where each recipient stands: the journal, folded.

use std::time::SystemTime;

use base::Recipient;

use crate::event::{Attempt, Child, Event, Intent, Record, Report};

/// One recipient and what became of it so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientState {
    pub recipient: Recipient,
    pub outcome: Outcome,
    /// How often it was deferred.
    pub deferrals: u32,
    /// The last append that was announced and not concluded: redo it before anything else.
    pub intent: Option<Intent>,
    /// The sender was told of the failure.
    pub failure_reported: bool,
    /// The sender was told of the delay.
    pub delay_reported: bool,
    /// The sender was told of the success.
    pub success_reported: bool,
}

/// How it stands with a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Still to do; with what the last attempt came to and when it was.
    Pending {
        last: Option<(SystemTime, Attempt)>,
    },
    Delivered {
        at: SystemTime,
        attempt: Attempt,
    },
    Failed {
        at: SystemTime,
        attempt: Attempt,
    },
    /// Another entry's business now.
    Became {
        at: SystemTime,
        children: Vec<Child>,
    },
}

impl Outcome {
    /// Whether there is still something to try.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Pending { .. })
    }
}

/// What the whole journal says.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) recipients: Vec<RecipientState>,
    /// Every child that any record names.
    pub(crate) children: Vec<Child>,
    /// The last lane that a record names.
    pub(crate) lane: Option<crate::Lane>,
    /// How often it went from lane to lane.
    pub(crate) handed_over: u32,
    /// When the operator let it go before its time.
    pub(crate) released: Option<SystemTime>,
    /// Why it is in hold/, when the last word on that was Held.
    pub(crate) held: Option<String>,
}

impl State {
    pub(crate) fn new(recipients: Vec<Recipient>) -> Self {
        let fresh = |recipient| RecipientState {
            recipient,
            outcome: Outcome::Pending { last: None },
            deferrals: 0,
            intent: None,
            failure_reported: false,
            delay_reported: false,
            success_reported: false,
        };
        Self {
            recipients: recipients.into_iter().map(fresh).collect(),
            children: Vec::new(),
            lane: None,
            handed_over: 0,
            released: None,
            held: None,
        }
    }

    /// Takes one more record into account. An index that no recipient has is passed over: the
    /// record is sound, so a program wrote it by mistake, and the mail must still move.
    pub(crate) fn apply(&mut self, record: &Record) {
        let at = record.at;
        match &record.event {
            Event::Delivered { recipient, attempt } => {
                self.conclude(*recipient, || Outcome::Delivered {
                    at,
                    attempt: attempt.clone(),
                });
            }
            Event::Failed { recipient, attempt } => {
                self.conclude(*recipient, || Outcome::Failed {
                    at,
                    attempt: attempt.clone(),
                });
            }
            Event::Deferred {
                recipient, attempt, ..
            } => {
                if let Some(state) = self.pending(*recipient) {
                    state.outcome = Outcome::Pending {
                        last: Some((at, attempt.clone())),
                    };
                    state.deferrals = state.deferrals.saturating_add(1);
                }
            }
            Event::Intent(intent) => {
                if let Some(state) = self.pending(intent.recipient) {
                    state.intent = Some(intent.clone());
                }
            }
            Event::Became {
                recipients,
                children,
            } => {
                self.children.extend_from_slice(children);
                for recipient in recipients {
                    self.conclude(*recipient, || Outcome::Became {
                        at,
                        children: children.clone(),
                    });
                }
            }
            Event::Reported {
                recipients,
                report,
                children,
            } => {
                self.children.extend_from_slice(children);
                for recipient in recipients {
                    self.report(*recipient, *report);
                }
            }
            Event::HandedOver { lane } => {
                self.lane = Some(*lane);
                self.handed_over = self.handed_over.saturating_add(1);
            }
            Event::Held { lane, reason } => {
                self.lane = Some(*lane);
                self.held = Some(reason.clone());
            }
            Event::Released => {
                if self.held.take().is_none() {
                    self.released = Some(at);
                }
            }
        }
    }

    fn pending(&mut self, recipient: usize) -> Option<&mut RecipientState> {
        self.recipients
            .get_mut(recipient)
            .filter(|r| r.outcome.is_pending())
    }

    /// The first final outcome stays.
    fn conclude(&mut self, recipient: usize, outcome: impl FnOnce() -> Outcome) {
        if let Some(state) = self.pending(recipient) {
            state.outcome = outcome();
            state.intent = None;
        }
    }

    fn report(&mut self, recipient: usize, report: Report) {
        if let Some(state) = self.recipients.get_mut(recipient) {
            match report {
                Report::Failure => state.failure_reported = true,
                Report::Delay => state.delay_reported = true,
                Report::Success => state.success_reported = true,
                Report::Reply => (),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::samples;
    use std::time::UNIX_EPOCH;

    #[test]
    fn the_journal_folds_into_outcomes() {
        let names = ["a@x", "b@x", "c@x", "d@x", "e@x"];
        let recipients = names.map(|n| Recipient::new(n.parse().unwrap())).to_vec();
        let mut state = State::new(recipients);
        for event in samples() {
            state.apply(&Record {
                at: UNIX_EPOCH,
                by: "t".into(),
                event,
            });
        }
        let outcomes: Vec<_> = state
            .recipients
            .iter()
            .map(|r| match &r.outcome {
                Outcome::Pending { .. } => "pending",
                Outcome::Delivered { .. } => "delivered",
                Outcome::Failed { .. } => "failed",
                Outcome::Became { .. } => "became",
            })
            .collect();
        assert_eq!(
            outcomes,
            ["delivered", "failed", "became", "became", "pending"]
        );
        assert_eq!(state.recipients[1].deferrals, 1);
        assert!(state.recipients[1].failure_reported);
        assert_eq!(state.children.len(), 3);
        assert!(state.recipients[0].intent.is_none());
    }

    #[test]
    fn what_is_final_stays_and_strange_indexes_are_passed_over() {
        let mut state = State::new(vec![Recipient::new("a@x".parse().unwrap())]);
        let attempt = || Attempt {
            status: base::Status::OK,
            reply: "ok".into(),
            host: None,
        };
        for event in [
            Event::Delivered {
                recipient: 0,
                attempt: attempt(),
            },
            Event::Deferred {
                recipient: 0,
                attempt: attempt(),
                next: UNIX_EPOCH,
            },
            Event::Failed {
                recipient: 7,
                attempt: attempt(),
            },
            Event::Failed {
                recipient: 0,
                attempt: attempt(),
            },
        ] {
            state.apply(&Record {
                at: UNIX_EPOCH,
                by: "t".into(),
                event,
            });
        }
        assert!(matches!(
            state.recipients[0].outcome,
            Outcome::Delivered { .. }
        ));
    }
}
