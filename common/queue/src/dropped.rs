//! What an intake sees, asks and answers: a submission, the judge's verdict, the run's result.

use base::envelope::{Body, Needs, Ret};
use base::{Envelope, Recipient, ReversePath};

use crate::file::Contents;
use crate::id::QueueId;
use crate::queue::Lane;

/// A submission, as its file says and its owner proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    pub id: QueueId,
    /// Who wrote it.
    pub uid: u32,
    pub sender: Option<ReversePath>,
    pub recipients: Vec<Recipient>,
    pub body: Body,
    pub ret: Option<Ret>,
    pub envid: Option<String>,
    pub needs: Needs,
    /// Of the content.
    pub size: u64,
}

impl Dropped {
    pub(crate) fn read(id: QueueId, uid: u32, contents: &Contents) -> Self {
        Self {
            id,
            uid,
            sender: contents.reverse_path.clone(),
            recipients: contents
                .state
                .recipients
                .iter()
                .map(|r| r.recipient.clone())
                .collect(),
            body: contents.body,
            ret: contents.ret,
            envid: contents.envid.clone(),
            needs: contents.needs,
            size: contents.content_length,
        }
    }

    /// The envelope with the sender that it has, or else with `sender`.
    pub fn envelope(&self, sender: ReversePath) -> Envelope {
        Envelope {
            reverse_path: self.sender.clone().unwrap_or(sender),
            recipients: self.recipients.clone(),
            body: self.body,
            ret: self.ret,
            envid: self.envid.clone(),
            needs: self.needs,
            // Of our own users' only SMTP submission knows it.
            release: None,
            filter: None,
        }
    }
}

/// What is to become of a submission.
#[derive(Debug)]
pub enum Verdict {
    /// One entry, with this envelope. With recipients for both lanes choose qrun's: it hands the
    /// others on as a child.
    Accept { lane: Lane, envelope: Envelope },
    /// To `damaged/`, with a line in the log.
    Refuse { reason: String },
    /// Not now.
    Later,
}

/// What one run did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TakenIn {
    pub accepted: Vec<QueueId>,
    /// Moved to `damaged/`.
    pub refused: usize,
    /// Left for the next run: beyond a bound, not readable now, or told so by the judge.
    pub left: usize,
}
