//! The last look at a message, before it is written: what can be proven of it, and what the doors say
//! of it and make of it.

use std::io::{Cursor, Read, Seek, Write};
use std::mem;
use std::time::SystemTime;

use base::{Address, Doing, Fail, Recipient, date};
use queue::{Queue, QueueId};

use super::{Message, SPILL, writing};
use crate::disowned;
use crate::gate::{Body, Content, Mail, Ruling, Visit};
use crate::proof::{Bringer, Prover};
use crate::reply::{self, Reply};
use crate::session::{Transaction, Verdict};

/// Octets copied at a time.
const PIECE: usize = 64 * 1024;

/// Who looks.
pub(crate) struct Inspectors<'a> {
    pub(crate) prover: Option<&'a Prover>,
    pub(crate) visit: Option<&'a mut Visit>,
    /// Where an address goes that the operator wants to have the message. May block.
    pub(crate) route: &'a dyn Fn(Address) -> Verdict,
}

fn reading() -> &'static str {
    "read a message again"
}

impl Message {
    /// Looks into a message that was kept apart, and writes it; the answer where it is refused.
    /// Blocks, as long as the doors and DNS like.
    pub(crate) fn inspect(
        &mut self,
        queue: &Queue,
        inspectors: Inspectors<'_>,
    ) -> Result<Option<Reply>, Fail> {
        let Some(apart) = self.apart.take() else {
            return Ok(None);
        };
        let buffer = mem::take(&mut self.buffer);
        let whole = match apart.file {
            None => Body::Memory(Cursor::new(buffer)),
            Some(mut file) => {
                file.write_all(&buffer).doing(writing)?;
                Body::File(file, 0)
            }
        };
        let Some(mut content) = Content::read(whole).doing(reading)? else {
            return Ok(Some(reply::HEADER_TOO_LONG));
        };
        if let Some(prover) = inspectors.prover.filter(|_| apart.strange) {
            match self.prove(prover, &mut content)? {
                disowned::Ruling::Take => {}
                disowned::Ruling::Hold(reason) => self.ruling.hold = Some(reason),
                disowned::Ruling::Refuse(refusal) => return Ok(Some(refusal)),
            }
        }
        let id = QueueId::generate()?;
        self.id = Some(id);
        self.complete(id, &mut content)?;
        let mut mail = Mail {
            content,
            above: mem::take(&mut self.above),
            reverse_path: self.transaction.reverse_path.clone(),
            added: Vec::new(),
            removed: Vec::new(),
        };
        let ruling = match inspectors.visit {
            Some(visit) => {
                if let Some(opened) = &mut visit.facts.transaction {
                    opened.queue_id = Some(id.to_string());
                }
                visit.message(&mut mail)?
            }
            None => Ruling::default(),
        };
        if ruling.refuse.is_some() {
            return Ok(ruling.refuse);
        }
        self.ruling.add(ruling);
        self.above = mem::take(&mut mail.above);
        if let Err(refusal) = self.readdress(&mut mail, inspectors.route) {
            return Ok(Some(refusal));
        }
        self.write(queue, mail.content).map(|()| None)
    }

    fn prove(&mut self, prover: &Prover, content: &mut Content) -> Result<disowned::Ruling, Fail> {
        let bringer = Bringer {
            ip: self.sender.ip,
            name: self.sender.name.as_ref(),
            helo: &self.transaction.helo,
            reverse_path: &self.transaction.reverse_path,
        };
        let proof = prover
            .prove(&content.header, &mut content.body, &bringer)
            .doing(reading)?;
        self.above.push(proof.field);
        content.header = proof.header;
        Ok(proof.ruling)
    }

    /// What our own users' message lacks it has before the doors see it: one of them may sign it.
    fn complete(&mut self, id: QueueId, content: &mut Content) -> Result<(), Fail> {
        self.complete = true;
        if !self.transaction.submitted {
            return Ok(());
        }
        let mut beginning = Vec::new();
        if content.header.is_empty() {
            content.body.rewind().doing(reading)?;
            let mut body = (&mut content.body).take(SPILL as u64);
            body.read_to_end(&mut beginning).doing(reading)?;
        } else {
            beginning.clone_from(&content.header);
        }
        let now = date::unix(SystemTime::now());
        let mut header = self.missing(&beginning, &id.to_string(), now).into_bytes();
        header.append(&mut content.header);
        content.header = header;
        Ok(())
    }

    /// The envelope as the doors want it. The answer is for an address that nobody can have.
    fn readdress(
        &mut self,
        mail: &mut Mail,
        route: &dyn Fn(Address) -> Verdict,
    ) -> Result<(), Reply> {
        let transaction = &mut *self.transaction;
        transaction.reverse_path = mail.reverse_path.clone();
        let stays = |recipient: &Recipient| !mail.removed.contains(&recipient.address);
        transaction.local.retain(stays);
        transaction.relay.retain(stays);
        let mut added = mem::take(&mut mail.added);
        if let Some(address) = self.ruling.redirect.take() {
            transaction.local.clear();
            transaction.relay.clear();
            added = vec![Recipient::new(address)];
        }
        for recipient in added {
            add(transaction, recipient, route)?;
        }
        if self.ruling.discard {
            transaction.local.clear();
            transaction.relay.clear();
        }
        Ok(())
    }

    fn write(&mut self, queue: &Queue, mut content: Content) -> Result<(), Fail> {
        self.drafts = self.open_drafts(queue)?;
        content.body.rewind().doing(reading)?;
        let mut piece = content.header;
        loop {
            for draft in &mut self.drafts {
                draft.write(&piece)?;
            }
            piece.resize(PIECE, 0);
            match content.body.read(&mut piece).doing(reading)? {
                0 => return Ok(()),
                n => piece.truncate(n),
            }
        }
    }
}

fn add(
    transaction: &mut Transaction,
    wishes: Recipient,
    route: &dyn Fn(Address) -> Verdict,
) -> Result<(), Reply> {
    if transaction.contains(&wishes.address) {
        return Ok(());
    }
    match route(wishes.address.clone()) {
        Verdict::Local(address) => transaction.local.push(Recipient { address, ..wishes }),
        Verdict::Relay(address) => transaction.relay.push(Recipient { address, ..wishes }),
        Verdict::Discard(_) => {}
        // The client has not asked for it, so it is not his fault.
        Verdict::Refuse(refusal) => {
            log::error!("a recipient that a check of ours adds cannot have the message: {refusal}");
            return Err(reply::TRY_LATER);
        }
    }
    Ok(())
}
