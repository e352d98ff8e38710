//! A message in work: its entry, and what has been found out about its recipients so far. Several
//! threads may hold it, one for each mailbox it goes to; the last one done concludes it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::envelope::Body;
use base::{Address, Doing, Fail, ReversePath, Status};
use mime::binary::{Converter, Plan};
use nix::sys::memfd::{MFdFlags, memfd_create};
use queue::{Announcement, Attempt, Entry, Event, Intent, QueueId};

use crate::header::Head;
use crate::plan::Step;

/// One message of which this process owns the entry.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: QueueId,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    entry: Option<Box<Entry>>,
    verdicts: Vec<(usize, Step)>,
    /// Deliveries that have not been answered.
    open: usize,
}

/// What is left to do when all deliveries have been answered.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) entry: Box<Entry>,
    pub(crate) verdicts: Vec<(usize, Step)>,
}

impl Message {
    /// `open` deliveries will be answered.
    pub(crate) fn new(entry: Box<Entry>, verdicts: Vec<(usize, Step)>, open: usize) -> Self {
        let id = *entry.id();
        Self {
            id,
            inner: Mutex::new(Inner {
                entry: Some(entry),
                verdicts,
                open,
            }),
        }
    }

    /// The message as it goes into a mailbox: by lines, whatever it came by.
    pub(crate) fn letter(&self, to: &Address) -> Result<File, Fail> {
        let inner = self.inner();
        let entry = inner.entry()?;
        let copy = || -> io::Result<File> {
            let mut content = entry.content();
            let from = &entry.envelope().reverse_path;
            match entry.envelope().body {
                Body::SevenBit | Body::EightBitMime => traced(content, from, to),
                Body::Binary => {
                    let plan = Plan::of(&mut content)?;
                    traced(Converter::new(&plan, content), from, to)
                }
            }
        };
        copy().doing(|| format!("copy message {}", self.id))
    }

    /// For the mailbox's From_ line.
    pub(crate) fn reverse_path(&self) -> String {
        self.inner()
            .entry()
            .map(|e| e.envelope().reverse_path.to_string())
            .unwrap_or_default()
    }

    /// The recipient as the envelope has it, and when the message arrived.
    pub(crate) fn recipient(&self, recipient: usize) -> Option<(Address, std::time::SystemTime)> {
        let inner = self.inner();
        let entry = inner.entry().ok()?;
        let state = entry.recipients().get(recipient)?;
        Some((state.recipient.address.clone(), entry.arrived()))
    }

    /// Announces what is about to be appended; durable with [`queue::announce`] of what comes back,
    /// or at once.
    pub(crate) fn intend(&self, intent: Intent) -> Result<Option<Announcement>, Fail> {
        self.inner().entry_mut()?.intend(intent)
    }

    /// Notes a delivery that is durable in the mailbox. If that cannot be written, the intent still
    /// stands, and the next attempt finds the message in the mailbox.
    pub(crate) fn delivered(&self, recipient: usize, mailbox: String) -> Result<(), Fail> {
        let attempt = Attempt {
            status: Status::OK,
            reply: "delivered to mailbox".to_owned(),
            host: Some(mailbox),
        };
        self.inner()
            .entry_mut()?
            .record(&[Event::Delivered { recipient, attempt }])
    }

    /// Answers one delivery: with what is left to do for this recipient, if anything is. The last
    /// answer gives what is left to do for the message.
    pub(crate) fn answer(&self, recipient: usize, step: Option<Step>) -> Option<Rest> {
        let mut inner = self.inner();
        inner.verdicts.extend(step.map(|step| (recipient, step)));
        inner.open = inner.open.saturating_sub(1);
        if inner.open > 0 {
            return None;
        }
        let entry = inner.entry.take()?;
        Some(Rest {
            entry,
            verdicts: std::mem::take(&mut inner.verdicts),
        })
    }

    /// A thread that ended with the lock left an entry that refuses everything or is sound.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A copy of a message with our trace fields.
fn traced(mut content: impl Read, from: &ReversePath, to: &Address) -> io::Result<File> {
    let head = Head::read(&mut content)?;
    let mut file = File::from(memfd_create(c"message", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&head.with_trace(from, to))?;
    io::copy(&mut content, &mut file)?;
    file.rewind()?;
    Ok(file)
}

impl Inner {
    fn entry(&self) -> Result<&Entry, Fail> {
        self.entry.as_deref().ok_or_else(concluded)
    }

    fn entry_mut(&mut self) -> Result<&mut Entry, Fail> {
        self.entry.as_deref_mut().ok_or_else(concluded)
    }
}

fn concluded() -> Fail {
    Fail::temp("message concluded already")
}
