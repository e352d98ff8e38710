//! A message on its way in: while it is small it is only in memory, and then its file has no name yet,
//! so a crash leaves nothing.
//!
//! Where the file system has no O_TMPFILE the file is `incoming/ID`, removed by the draft that is
//! given up, or by age. The draft holds the entry's lock from the start.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use base::sys::{self, LockKind};
use base::{Doing, Envelope, Fail};
use nix::sys::stat::Mode;

use crate::commit::{Contents, Filed, Sealed};
use crate::event::{Event, Record};
use crate::id::QueueId;
use crate::origin::Origin;
use crate::queue::{Lane, Place, Queue};
use crate::records::Wishes;
use crate::write::{Writer, Written};

/// A queue file while it is being made, readable and writable by its group.
pub(crate) const MODE: Mode = Mode::from_bits_truncate(0o660);

/// A message that is being written. Dropped, it never was.
#[derive(Debug)]
pub struct Draft {
    id: QueueId,
    lane: Lane,
    writer: Writer,
    due: Option<SystemTime>,
    held: Option<String>,
    aside: Aside,
}

/// The name in `incoming/`, while there is one; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Aside {
    pub(crate) queue: Queue,
    pub(crate) id: QueueId,
    pub(crate) named: bool,
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.named {
            // It cannot go? Then recovery finds it, and knows that nobody was promised anything.
            let gone = self
                .queue
                .dir(Place::Incoming)
                .map(|dir| dir.unlink(self.id.as_str()));
            if let Ok(Err(e)) = gone {
                log::warn!("{}: remove from incoming: {e}", self.id);
            }
        }
    }
}

impl Queue {
    /// Starts a message. It is in the queue when [`Queue::commit`] says so, and not before.
    pub fn draft(&self, lane: Lane, envelope: &Envelope, origin: &Origin) -> Result<Draft, Fail> {
        self.draft_as(QueueId::generate()?, lane, envelope, origin)
    }

    /// A file without a name on the queue's disk, for what is no queue file yet: it goes with its last
    /// descriptor.
    pub fn scratch(&self) -> Result<File, Fail> {
        let incoming = self.dir(Place::Incoming)?;
        let doing = || format!("make a file in {}", incoming.path().display());
        if let Some(file) = incoming.unnamed().doing(doing)? {
            return Ok(file);
        }
        let name = QueueId::generate()?;
        let file = incoming.named(name.as_str()).doing(doing)?;
        incoming.unlink(name.as_str()).doing(doing)?;
        Ok(file)
    }

    /// The same with an id that is known already. It must be new: [`QueueId::generate`].
    pub fn draft_as(
        &self,
        id: QueueId,
        lane: Lane,
        envelope: &Envelope,
        origin: &Origin,
    ) -> Result<Draft, Fail> {
        let name = self.dir(lane)?.name(id.as_str());
        let writer = Writer::new(
            None,
            name,
            Some(origin),
            &Wishes::of(envelope, lane),
            &envelope.recipients,
        )?;
        Ok(Draft {
            id,
            lane,
            writer,
            due: None,
            held: None,
            aside: self.aside(id),
        })
    }

    pub(crate) fn aside(&self, id: QueueId) -> Aside {
        Aside {
            queue: self.clone(),
            id,
            named: false,
        }
    }

    /// A file of our own, locked, without a name or with one in `incoming/`.
    fn new_file(&self, id: QueueId, lane: Lane) -> Result<(File, Aside), Fail> {
        let dir = self.dir(lane)?;
        let doing = || format!("create queue file {}", dir.name(id.as_str()));
        let mut aside = self.aside(id);
        let file = match dir.unnamed().doing(doing)? {
            Some(file) => file,
            None => {
                let file = self.dir(Place::Incoming)?.named(id.as_str()).doing(doing)?;
                aside.named = true;
                file
            }
        };
        // Whatever the umask says: the owner of the lane has to read and to append.
        nix::sys::stat::fchmod(&file, MODE).doing(doing)?;
        lock_own(&file).doing(doing)?;
        Ok((file, aside))
    }

    /// Everything in a file, without a name or with one in `incoming/`.
    pub(crate) fn filed(&self, sealed: Sealed) -> Result<Filed, Fail> {
        let Sealed { id, lane, contents } = sealed;
        let (file, aside) = match contents {
            Contents::File(file, aside) => (file, aside),
            Contents::Memory(image) => {
                let (mut file, aside) = self.new_file(id, lane)?;
                file.write_all(image.bytes())
                    .doing(|| format!("write queue file {id}"))?;
                (file, aside)
            }
        };
        Ok(Filed {
            id,
            lane,
            file,
            aside,
        })
    }
}

/// Locks a file that only this process should know. A recovery that looks at it just now lets go
/// at once, so a few short waits are enough.
pub(crate) fn lock_own(file: impl AsFd) -> Result<(), Fail> {
    for _ in 0..100 {
        if sys::try_ofd_lock(file.as_fd(), LockKind::Exclusive).doing(|| "lock")? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(Fail::temp("lock: held by another process"))
}

impl Draft {
    /// The id it will have, for the Received field.
    pub fn id(&self) -> &QueueId {
        &self.id
    }

    /// Appends content, as received: lines end in CRLF, and binary parts have none (BINARYMIME).
    pub fn write(&mut self, content: &[u8]) -> Result<(), Fail> {
        if self.writer.needs_file(content.len()) {
            let (file, aside) = self.aside.queue.new_file(self.id, self.lane)?;
            self.aside = aside;
            self.writer.set_file(file);
        }
        self.writer.write(content)
    }

    /// How much content was written.
    pub fn size(&self) -> u64 {
        self.writer.size()
    }

    /// Not to be tried before then. Without this it is due at once.
    pub fn set_due(&mut self, due: SystemTime) {
        self.due = Some(due);
    }

    /// Not to be tried at all until [`Queue::release`]: whoever claims it first puts it into `hold/`,
    /// where its maker may not write.
    pub fn hold(&mut self, reason: &str) {
        self.held = Some(reason.to_owned());
    }

    /// Ends the content. The message is complete, and still not in the queue.
    pub fn finish(self) -> Result<Sealed, Fail> {
        let (lane, queue) = (self.lane, self.aside.queue.clone());
        let held = self.held.map(|reason| Record {
            at: SystemTime::now(),
            by: self.aside.queue.by().to_owned(),
            event: Event::Held { lane, reason },
        });
        let contents = match self.writer.finish(held.as_slice())? {
            Written::File(file) => Contents::File(file, self.aside),
            Written::Memory(image) => Contents::Memory(image),
        };
        let mut sealed = Sealed {
            id: self.id,
            lane,
            contents,
        };
        if let Some(due) = self.due {
            // Which the commit log would not know: so it gets its file now.
            let Filed { file, aside, .. } = queue.filed(sealed)?;
            set_mtime(&file, due).doing(|| format!("set the time of queue file {}", self.id))?;
            sealed = Sealed {
                id: self.id,
                lane,
                contents: Contents::File(file, aside),
            };
        }
        Ok(sealed)
    }
}

/// Sets a file's mtime, the time of the next attempt.
pub(crate) fn set_mtime(file: &File, due: SystemTime) -> std::io::Result<()> {
    file.set_times(std::fs::FileTimes::new().set_modified(due))
}
