//! Postfix's policy delegation (SMTPD_POLICY_README): another program is told what is known of a
//! session and says what is to become of it, in the words of access(5).
//!
//! Connections are kept and used again, for all sessions. A server that does not answer, or says what
//! nobody understands, makes the client try again later: 451 4.3.5.

mod link;
mod words;

use std::io::{Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::config::{PolicyService, PolicyState};
use base::escape::escape;
use base::{Doing, Fail};

use super::{Door, Facts, Mail, Maker, Question, Ruling, Stage};
use crate::reply;
use link::Server;
use words::{Report, understand};

/// Gives each transaction another number.
static INSTANCE: AtomicU64 = AtomicU64::new(0);

/// The door of one connection.
struct Policy {
    servers: Arc<Vec<Server>>,
    states: Arc<Vec<PolicyState>>,
    instance: String,
}

/// For all clients: who is ours is said in what the server is told.
pub(crate) fn maker(services: &[PolicyService], states: &[PolicyState]) -> Maker {
    let servers: Vec<_> = services.iter().cloned().map(Server::new).collect();
    let (servers, states) = (Arc::new(servers), Arc::new(states.to_vec()));
    Box::new(move |_| {
        Some(Box::new(Policy {
            servers: Arc::clone(&servers),
            states: Arc::clone(&states),
            instance: instance(),
        }))
    })
}

fn instance() -> String {
    let number = INSTANCE.fetch_add(1, Ordering::Relaxed);
    let since = base::date::now();
    format!("{:x}.{since:x}.{number:x}.0", std::process::id())
}

fn state(stage: Stage) -> Option<PolicyState> {
    Some(match stage {
        Stage::Client => PolicyState::Connect,
        Stage::Hello => PolicyState::Ehlo,
        Stage::Sender => PolicyState::Mail,
        Stage::Recipient => PolicyState::Rcpt,
        Stage::Data => PolicyState::Data,
        Stage::Message => PolicyState::EndOfMessage,
        Stage::Unknown => return None,
    })
}

impl Policy {
    /// Asks one after the other, until one says no.
    fn tell(&self, report: &Report<'_>) -> Ruling {
        let request = report.to_string();
        let mut whole = Ruling::default();
        for server in self.servers.iter() {
            let said = server.ask(request.as_bytes());
            let ruling = said.and_then(|said| {
                understand(&said).map_err(|what| format!("{what}: {}", escape(&said)))
            });
            match ruling {
                Ok((ruling, warning)) => {
                    if let Some(text) = warning {
                        let shown = &report.facts.shown;
                        log::warn!("{shown}: policy {server}: {}", escape(&text));
                    }
                    whole.add(ruling);
                }
                Err(what) => {
                    log::warn!("policy {server}: {what}");
                    whole.refuse = Some(reply::NO_POLICY);
                }
            }
            if whole.is_final() {
                break;
            }
        }
        whole
    }
}

impl Door for Policy {
    fn wants(&self, stage: Stage) -> bool {
        state(stage).is_some_and(|state| self.states.contains(&state))
    }

    fn ask(&mut self, question: Question<'_>, facts: &Facts) -> Ruling {
        let recipient = match question {
            Question::Recipient(recipient) => Some(&recipient.address),
            _ => None,
        };
        let Some(state) = state(question.stage()) else {
            return Ruling::default();
        };
        self.tell(&Report {
            state,
            facts,
            recipient,
            size: None,
            instance: &self.instance,
        })
    }

    fn message(&mut self, mail: &mut Mail, facts: &Facts) -> Result<Ruling, Fail> {
        let body = mail.content.body.seek(SeekFrom::End(0));
        let body = body.doing(|| "measure a message")?;
        Ok(self.tell(&Report {
            state: PolicyState::EndOfMessage,
            facts,
            recipient: None,
            size: Some(body.saturating_add(mail.content.header.len() as u64)),
            instance: &self.instance,
        }))
    }

    fn reset(&mut self) {
        self.instance = instance();
    }
}
