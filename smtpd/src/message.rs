//! A message between the session and the queue: in memory while it is small, in drafts on disk
//! when it grows, and one entry for each lane in the end, committed together.

use std::net::IpAddr;

use base::date::Date;
use base::{Address, Domain, Envelope, Fail, Recipient, date};
use mime::submitted;
use queue::{Client, Draft, Lane, Origin, Queue, Sealed, Source};

use crate::received::Trace;
use crate::session::{Queued, Transaction};

/// A message whose content in memory reaches this goes to disk: the bound of a session's memory.
pub(crate) const SPILL: usize = 64 * 1024;

/// What is the same for all messages of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) ip: Option<IpAddr>,
    /// What was agreed with TLS, in words.
    pub(crate) tls: Option<String>,
    pub(crate) by: Domain,
}

/// A message on its way in.
#[derive(Debug)]
pub(crate) struct Message {
    transaction: Box<Transaction>,
    sender: Sender,
    prepend: Vec<String>,
    buffer: Vec<u8>,
    drafts: Vec<Draft>,
}

/// A whole message, ready for the commit.
pub(crate) struct Whole {
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) queued: Vec<Queued>,
}

impl Message {
    /// `prepend`: header fields that go before its own, without line ends.
    pub(crate) fn new(transaction: Box<Transaction>, sender: Sender, prepend: Vec<String>) -> Self {
        Self {
            transaction,
            sender,
            prepend,
            buffer: Vec::new(),
            drafts: Vec::new(),
        }
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
            whole.queued.push(Queued {
                id,
                recipients: recipients.len(),
            });
            whole.sealed.push(draft.finish()?);
        }
        Ok(whole)
    }

    /// The lanes that have a recipient.
    fn lanes(&self) -> Vec<(Lane, Vec<Recipient>)> {
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
        let origin = Origin::now(Source::Network(Client {
            ip: self.sender.ip,
            name: None,
            helo: self.transaction.helo.clone(),
            protocol: self.transaction.protocol.into(),
            login: self.transaction.login.clone(),
        }));
        let to = self.only_recipient();
        let open = |(lane, recipients): (Lane, Vec<Recipient>)| -> Result<Draft, Fail> {
            let mut envelope = Envelope::new(self.transaction.reverse_path.clone(), recipients);
            envelope.body = self.transaction.body;
            envelope.ret = self.transaction.ret;
            envelope.envid.clone_from(&self.transaction.envid);
            let mut draft = queue.draft(lane, &envelope, &origin)?;
            let trace = Trace {
                helo: &self.transaction.helo,
                ip: self.sender.ip,
                tls: self.sender.tls.as_deref(),
                by: &self.sender.by,
                protocol: self.transaction.protocol,
                id: &draft.id().to_string(),
                to,
                at: date::unix(origin.received_at),
            };
            let field = trace.field();
            draft.write(&field)?;
            if self.transaction.submitted {
                draft.write(self.missing(&draft.id().to_string(), trace.at).as_bytes())?;
            }
            for field in &self.prepend {
                draft.write(format!("{field}\r\n").as_bytes())?;
            }
            Ok(draft)
        };
        self.lanes().into_iter().map(open).collect()
    }

    /// The fields that a message of our own users must have (RFC 6409 8). Where its header has no end
    /// in what is in memory they may still come.
    fn missing(&self, id: &str, at: i64) -> String {
        if self.is_large() && !has_header_end(&self.buffer) {
            return String::new();
        }
        let from = self
            .transaction
            .reverse_path
            .address()
            .map(Address::to_string);
        let date = Date::local(at).rfc5322().to_string();
        let message_id = format!("{id}@{}", self.sender.by);
        submitted::missing(&self.buffer, from.as_deref(), &date, &message_id)
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

fn has_header_end(text: &[u8]) -> bool {
    text.starts_with(b"\r\n") || memchr::memmem::find(text, b"\r\n\r\n").is_some()
}
