//! A message between the session and the queue: in memory while it is small, in drafts on disk
//! when it grows, and one entry for each lane in the end, committed together. One that is looked into
//! first is kept apart until then.

mod inspect;

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;

use base::date::Date;
use base::{Address, Doing, Domain, Envelope, Fail, Filter, Recipient, date};
use mailauth::iprev::Iprev;
use mime::submitted;
use queue::{Client, Draft, Lane, Origin, Queue, QueueId, Sealed, Source};

use crate::gate::{Ruling, header_end};
use crate::received::Trace;
use crate::session::{Queued, Transaction};

pub(crate) use inspect::Inspectors;

/// A message whose content in memory reaches this goes to disk: the bound of a session's memory.
pub(crate) const SPILL: usize = 64 * 1024;

/// What is the same for all messages of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) ip: Option<IpAddr>,
    /// What its host is called, where that was looked up.
    pub(crate) name: Option<Iprev>,
    /// What was agreed with TLS, in words.
    pub(crate) tls: Option<String>,
    pub(crate) by: Domain,
    pub(crate) port: Option<u16>,
    /// What its messages go through first, where nothing else is said.
    pub(crate) filter: Option<Filter>,
    /// It is a content filter, which brings mail back.
    pub(crate) is_filter: bool,
}

/// A message on its way in.
#[derive(Debug)]
pub(crate) struct Message {
    /// It will be looked into before it is written: until then it is kept apart.
    apart: Option<Apart>,
    transaction: Box<Transaction>,
    sender: Sender,
    /// What the operator's tables and the doors want.
    ruling: Ruling,
    /// Fields above our Received, with their line ends.
    above: Vec<String>,
    /// What was apart has what it lacked.
    complete: bool,
    /// Of the first entry, where it had to be known before.
    id: Option<QueueId>,
    buffer: Vec<u8>,
    drafts: Vec<Draft>,
}

#[derive(Debug)]
struct Apart {
    /// Content on the queue's disk, in a file without a name, once it is too much for memory.
    file: Option<File>,
    /// A stranger brings it: the Prover looks into it too.
    strange: bool,
}

impl Apart {
    fn file(&mut self, queue: &Queue) -> Result<&mut File, Fail> {
        let file = match self.file.take() {
            Some(file) => file,
            None => queue.scratch()?,
        };
        Ok(self.file.insert(file))
    }
}

fn writing() -> &'static str {
    "write a message to disk"
}

/// A whole message, ready for the commit.
pub(crate) struct Whole {
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) queued: Vec<Queued>,
}

impl Message {
    pub(crate) fn new(transaction: Box<Transaction>, sender: Sender, ruling: Ruling) -> Self {
        Self {
            transaction,
            sender,
            apart: None,
            ruling,
            above: Vec::new(),
            complete: false,
            id: None,
            buffer: Vec::new(),
            drafts: Vec::new(),
        }
    }

    pub(crate) fn is_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// Will be looked into by [`Message::inspect`].
    pub(crate) fn keep_apart(&mut self, strange: bool) {
        let file = None;
        self.apart = Some(Apart { file, strange });
    }

    pub(crate) fn append(&mut self, content: &[u8]) {
        self.buffer.extend_from_slice(content);
    }

    /// Whether [`Message::spill`] should be called.
    pub(crate) fn is_large(&self) -> bool {
        self.buffer.len() >= SPILL
    }

    /// Writes to disk what is in memory. Blocks.
    pub(crate) fn spill(&mut self, queue: &Queue) -> Result<(), Fail> {
        if let Some(apart) = &mut self.apart {
            apart.file(queue)?.write_all(&self.buffer).doing(writing)?;
            self.buffer = Vec::new();
            return Ok(());
        }
        if self.drafts.is_empty() {
            self.drafts = self.open_drafts(queue)?;
        }
        for draft in &mut self.drafts {
            draft.write(&self.buffer)?;
        }
        self.buffer = Vec::new();
        Ok(())
    }

    /// Writes the rest and seals the drafts. Blocks. What is sealed is not durable yet.
    pub(crate) fn finish(mut self, queue: &Queue) -> Result<Whole, Fail> {
        self.spill(queue)?;
        let mut whole = Whole {
            sealed: Vec::new(),
            queued: Vec::new(),
        };
        let lanes = self.lanes();
        for (draft, (_, recipients)) in self.drafts.into_iter().zip(lanes) {
            let id = draft.id().to_string();
            if let Some(reason) = &self.ruling.hold {
                log::info!("{id}: hold: END-OF-MESSAGE: {reason}");
            }
            whole.queued.push(Queued {
                id,
                recipients: recipients.len(),
            });
            whole.sealed.push(draft.finish()?);
        }
        Ok(whole)
    }

    /// The content filter that it goes to first.
    fn filter(&self) -> Option<&Filter> {
        self.ruling
            .filter
            .as_deref()
            .or(self.sender.filter.as_ref())
    }

    /// The lanes that have a recipient.
    fn lanes(&self) -> Vec<(Lane, Vec<Recipient>)> {
        if self.filter().is_some() {
            // All of them go to the filter.
            let all = self.transaction.local.iter().chain(&self.transaction.relay);
            let all: Vec<_> = all.cloned().collect();
            return Some((Lane::Relay, all))
                .filter(|(_, all)| !all.is_empty())
                .into_iter()
                .collect();
        }
        [
            (Lane::Local, &self.transaction.local),
            (Lane::Relay, &self.transaction.relay),
        ]
        .into_iter()
        .filter(|(_, recipients)| !recipients.is_empty())
        .map(|(lane, recipients)| (lane, recipients.clone()))
        .collect()
    }

    fn open_drafts(&self, queue: &Queue) -> Result<Vec<Draft>, Fail> {
        let origin = Origin::now(Source::Network(self.client()));
        let to = self.only_recipient();
        let mut given = self.id;
        let mut open = |(lane, recipients): (Lane, Vec<Recipient>)| -> Result<Draft, Fail> {
            let mut envelope = Envelope::new(self.transaction.reverse_path.clone(), recipients);
            envelope.body = self.transaction.body;
            envelope.ret = self.transaction.ret;
            envelope.envid.clone_from(&self.transaction.envid);
            envelope.needs = self.transaction.needs;
            envelope.filter = self.filter().cloned();
            let release = self.transaction.hold.map(|h| h.release(origin.received_at));
            envelope.release = release;
            let mut draft = match given.take() {
                Some(id) => queue.draft_as(id, lane, &envelope, &origin)?,
                None => queue.draft(lane, &envelope, &origin)?,
            };
            if let Some(release) = release {
                draft.set_due(release.at);
                log::info!("{}: waits until {}", draft.id(), release.date());
            }
            if let Some(reason) = &self.ruling.hold {
                draft.hold(reason);
            }
            let trace = Trace {
                helo: &self.transaction.helo,
                ip: self.sender.ip,
                name: self.name(),
                tls: self.sender.tls.as_deref(),
                by: &self.sender.by,
                protocol: self.transaction.protocol,
                id: &draft.id().to_string(),
                to,
                at: date::unix(origin.received_at),
            };
            let field = trace.field();
            for field in &self.above {
                draft.write(field.as_bytes())?;
            }
            draft.write(&field)?;
            if self.transaction.submitted && !self.complete {
                let missing = self.missing(&self.buffer, trace.id, trace.at);
                draft.write(missing.as_bytes())?;
            }
            for field in &self.ruling.prepend {
                draft.write(format!("{field}\r\n").as_bytes())?;
            }
            Ok(draft)
        };
        self.lanes().into_iter().map(&mut open).collect()
    }

    /// The fields that a message of our own users must have (RFC 6409 8). Where its header has no end
    /// in this beginning they may still come.
    fn missing(&self, beginning: &[u8], id: &str, at: i64) -> String {
        if beginning.len() >= SPILL && header_end(beginning).is_none() {
            return String::new();
        }
        let from = self
            .transaction
            .reverse_path
            .address()
            .map(Address::to_string);
        let date = Date::local(at).rfc5322().to_string();
        let message_id = format!("{id}@{}", self.sender.by);
        submitted::missing(beginning, from.as_deref(), &date, &message_id)
    }

    /// Who brought it here, or who a content filter says has done that.
    fn client(&self) -> Client {
        let (sender, transaction) = (&self.sender, &self.transaction);
        if let Some(said) = &transaction.forwarded {
            return Client {
                ip: said.address,
                name: said.name.as_ref().map(Domain::to_string),
                helo: said.helo.clone().unwrap_or_default(),
                protocol: said.protocol.clone().unwrap_or_default(),
                login: None,
                port: said.port,
                by_filter: true,
            };
        }
        Client {
            ip: sender.ip,
            name: self.name().map(Domain::to_string),
            helo: transaction.helo.clone(),
            protocol: transaction.protocol.into(),
            login: transaction.login.clone(),
            // Only filters want to know it.
            port: sender.port.filter(|_| self.filter().is_some()),
            by_filter: sender.is_filter,
        }
    }

    /// Of the client's host.
    fn name(&self) -> Option<&Domain> {
        self.sender.name.as_ref()?.name()
    }

    fn only_recipient(&self) -> Option<&Address> {
        match (
            self.transaction.local.as_slice(),
            self.transaction.relay.as_slice(),
        ) {
            ([only], []) | ([], [only]) => Some(&only.address),
            _ => None,
        }
    }
}
