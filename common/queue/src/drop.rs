//! How any user of the host submits a message: a file in `drop/`, where everyone may make names and
//! nobody but yubin can read them. No program is setuid or setgid for this; who owns the file is
//! the proven sender.
//!
//! The file is a queue file without an origin; its name is the queue id that the message will have.
//! It gets its name only when it is complete, and after [`Submission::commit`] it survives power
//! loss: the file is synced after it got its name, which on journalling file systems writes the
//! name out too, because the caller may not sync a directory that he cannot read. Where he can,
//! that is done as well.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use base::envelope::{Body, Needs, Ret};
use base::{Doing, Fail, Recipient, ReversePath, Root};

use crate::crash;
use crate::dir::Dir;
use crate::id::QueueId;
use crate::queue::open_drop;
use crate::records::Wishes;
use crate::write::{Writer, Written};

/// The names of files that are being written, where the file system has no O_TMPFILE.
pub(crate) const UNFINISHED: &str = "new.";

/// What sendmail(1) knows of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// None: the user who runs the program, as qrun will find.
    pub sender: Option<ReversePath>,
    pub recipients: Vec<Recipient>,
    pub body: Body,
    pub ret: Option<Ret>,
    pub envid: Option<String>,
    pub needs: Needs,
}

/// A message on its way into `drop/`. Dropped, it never was.
#[derive(Debug)]
pub struct Submission {
    id: QueueId,
    dir: Arc<Dir>,
    writer: Option<Writer>,
    /// The name while it is being written, where it has one; it goes when this is dropped.
    unfinished: Option<String>,
}

impl Submission {
    /// Starts a message as the user who runs this process.
    pub fn create(root: &Root, letter: &Letter) -> Result<Self, Fail> {
        let dir = open_drop(root)?;
        let id = QueueId::generate()?;
        let doing = || format!("create {}", dir.name(id.as_str()));
        let (file, unfinished) = match dir.unnamed().doing(doing)? {
            Some(file) => (file, None),
            None => {
                let name = format!("{UNFINISHED}{id}");
                (dir.named(&name).doing(doing)?, Some(name))
            }
        };
        let wishes = Wishes {
            reverse_path: letter.sender.clone(),
            body: letter.body,
            ret: letter.ret,
            envid: letter.envid.clone(),
            needs: letter.needs,
            release: None,
            filter: None,
            lane: None,
        };
        let name = dir.name(id.as_str());
        let mut submission = Self {
            id,
            dir,
            writer: None,
            unfinished,
        };
        submission.writer = Some(Writer::new(
            Some(file),
            name,
            None,
            &wishes,
            &letter.recipients,
        )?);
        Ok(submission)
    }

    /// The id that the message will have in the queue.
    pub fn id(&self) -> &QueueId {
        &self.id
    }

    /// Appends content; lines end in CRLF.
    pub fn write(&mut self, content: &[u8]) -> Result<(), Fail> {
        self.writer
            .as_mut()
            .map_or(Ok(()), |writer| writer.write(content))
    }

    /// How much content was written.
    pub fn size(&self) -> u64 {
        self.writer.as_ref().map_or(0, Writer::size)
    }

    /// Hands the message in. After `Ok` it survives power loss; after `Err` it is not there.
    pub fn commit(mut self) -> Result<QueueId, Fail> {
        let name = self.dir.name(self.id.as_str());
        let writer = self
            .writer
            .take()
            .ok_or_else(|| Fail::temp(format!("submit {name}: handed in before")))?;
        let Written::File(file) = writer.finish(&[])? else {
            return Err(Fail::temp(format!("submit {name}: it has no file")));
        };
        // The directory's group, yubin, reads it.
        file.set_permissions(Permissions::from_mode(0o640))
            .doing(|| format!("submit {name}"))?;
        self.publish(&file).doing(|| format!("submit {name}"))?;
        let synced = file.sync_all().doing(|| format!("sync {name}"));
        crash::point("drop file synced");
        let synced = synced.and_then(|()| {
            if self.dir.can_sync() {
                self.dir.sync()
            } else {
                Ok(())
            }
        });
        if let Err(fail) = synced {
            if let Err(e) = self.dir.unlink(self.id.as_str()) {
                return Err(fail.while_doing(format!("{name} stays, it cannot be removed ({e})")));
            }
            return Err(fail);
        }
        Ok(self.id)
    }

    fn publish(&mut self, file: &File) -> std::io::Result<()> {
        match &self.unfinished {
            None => self.dir.link(file, self.id.as_str()),
            Some(name) => {
                file.sync_data()?;
                self.dir
                    .take_as(&self.dir, name.as_ref(), self.id.as_str().as_ref())?;
                self.unfinished = None;
                Ok(())
            }
        }
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if let Some(name) = &self.unfinished
            && let Err(e) = self.dir.unlink(name.as_str())
        {
            log::warn!("remove {}: {e}", self.dir.name(name.as_str()));
        }
    }
}
