//! A message between the session and the queue: in memory while it is small, in drafts on disk
//! when it grows, and one entry for each lane in the end, committed together.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::mem;
use std::net::IpAddr;

use base::date::Date;
use base::{Address, Doing, Domain, Envelope, Fail, Recipient, date};
use mime::submitted;
use queue::{Client, Draft, Lane, Origin, Queue, Sealed, Source};

use crate::disowned::Ruling;
use crate::proof::{Bringer, Prover};
use crate::received::Trace;
use crate::reply::Reply;
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

/// A header that is longer is not looked into.
const MAX_HEADER: usize = 256 * 1024;
/// Octets copied at a time.
const PIECE: usize = 64 * 1024;

/// A message on its way in.
#[derive(Debug)]
pub(crate) struct Message {
    /// It will be looked into before it is written: until then it is kept apart.
    apart: Option<Apart>,
    transaction: Box<Transaction>,
    sender: Sender,
    prepend: Vec<String>,
    /// Our Authentication-Results, once it is there.
    results: String,
    /// Why it is put aside, if it is.
    held: Option<String>,
    buffer: Vec<u8>,
    drafts: Vec<Draft>,
}

/// Content on the queue's disk, in a file without a name, once it is too much for memory.
#[derive(Debug)]
struct Apart(Option<File>);

impl Apart {
    fn file(&mut self, queue: &Queue) -> Result<&mut File, Fail> {
        let file = match self.0.take() {
            Some(file) => file,
            None => queue.scratch()?,
        };
        Ok(self.0.insert(file))
    }
}

trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

fn writing() -> &'static str {
    "write a message to disk"
}

/// The header with its empty line; nothing where it has no end that is near enough.
fn read_header(content: &mut dyn ReadSeek) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        if let Some(end) = header_end(&text) {
            text.truncate(end);
            return Ok(text);
        }
        let n = content.read(&mut piece)?;
        if n == 0 || text.len() > MAX_HEADER {
            return Ok(Vec::new());
        }
        text.extend_from_slice(piece.get(..n).unwrap_or_default());
    }
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
            apart: None,
            prepend,
            results: String::new(),
            held: None,
            buffer: Vec::new(),
            drafts: Vec::new(),
        }
    }

    pub(crate) fn is_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// Will be looked into by [`Message::prove`].
    pub(crate) fn keep_apart(&mut self) {
        self.apart = Some(Apart(None));
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

    /// Looks into a message that was kept apart, and writes it, unless it is refused. Blocks, on DNS
    /// too.
    pub(crate) fn prove(
        &mut self,
        queue: &Queue,
        prover: &Prover,
    ) -> Result<Result<(), Reply>, Fail> {
        let Some(Apart(file)) = self.apart.take() else {
            return Ok(Ok(()));
        };
        let buffer = mem::take(&mut self.buffer);
        let mut content: Box<dyn ReadSeek> = match file {
            None => Box::new(Cursor::new(buffer)),
            Some(mut file) => {
                file.write_all(&buffer).doing(writing)?;
                Box::new(file)
            }
        };
        let reading = || "read a message again";
        content.rewind().doing(reading)?;
        let header = read_header(&mut content).doing(reading)?;
        let start = header.len() as u64;
        content.seek(SeekFrom::Start(start)).doing(reading)?;
        let bringer = Bringer {
            ip: self.sender.ip,
            helo: &self.transaction.helo,
            reverse_path: &self.transaction.reverse_path,
        };
        let proof = prover
            .prove(&header, &mut content, &bringer)
            .doing(reading)?;
        match proof.ruling {
            Ruling::Take => {}
            Ruling::Hold(reason) => self.held = Some(reason),
            Ruling::Refuse(reply) => return Ok(Err(reply)),
        }
        self.results = proof.field;
        content.seek(SeekFrom::Start(start)).doing(reading)?;
        self.drafts = self.open_drafts(queue)?;
        let mut piece = proof.header;
        loop {
            for draft in &mut self.drafts {
                draft.write(&piece)?;
            }
            piece.resize(PIECE, 0);
            match content.read(&mut piece).doing(reading)? {
                0 => return Ok(Ok(())),
                n => piece.truncate(n),
            }
        }
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
            if let Some(reason) = &self.held {
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
            if let Some(reason) = &self.held {
                draft.hold(reason);
            }
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
            draft.write(self.results.as_bytes())?;
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
        if self.is_large() && header_end(&self.buffer).is_none() {
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

/// Where the body begins.
fn header_end(text: &[u8]) -> Option<usize> {
    match text.starts_with(b"\r\n") {
        true => Some(2),
        false => memchr::memmem::find(text, b"\r\n\r\n").map(|at| at + 4),
    }
}
