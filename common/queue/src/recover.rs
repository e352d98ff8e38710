//! `incoming/` after a crash: what is finished, what is removed, what is kept for the operator.

use std::fs::File;
use std::time::{Duration, SystemTime};

use base::{Doing, Fail};
use nix::fcntl::OFlag;

use crate::claim::{Locked, lock};
use crate::event::Child;
use crate::file::{self, Depth, Unreadable};
use crate::id::QueueId;
use crate::origin::Source;
use crate::queue::{Place, Queue, modified};

/// What was being written longer ago than this is given up.
const ABANDONED: Duration = Duration::from_secs(36 * 60 * 60);

/// What [`Queue::recover`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Children put into their lanes.
    pub published: usize,
    /// What nobody was promised, removed.
    pub removed: usize,
    /// Children of unreadable or absent parents, put into `hold/`.
    pub held: usize,
    /// Moved to `damaged/`.
    pub damaged: usize,
}

impl Queue {
    /// Puts `incoming/` in order after a crash. Every runner calls it when it starts; it may run
    /// while everything else does, because what is being made is locked by its maker.
    pub fn recover(&self) -> Result<Recovered, Fail> {
        self.recover_logs()?;
        let incoming = self.dir(Place::Incoming)?;
        let (mut ids, mut others) = (Vec::new(), Vec::new());
        incoming.names(|name| {
            match QueueId::parse(name.as_encoded_bytes()) {
                Ok(id) => ids.push(id),
                Err(_) => others.push(name.to_owned()),
            }
            true
        })?;
        let mut done = Recovered::default();
        for name in others {
            // A copy on its way (Entry::adopt), or nothing of ours.
            let stat = incoming
                .stat(&name)
                .doing(|| format!("stat {}", incoming.name(&name)))?;
            if stat.is_some_and(|stat| is_old(modified(&stat)))
                && incoming
                    .unlink(&name)
                    .doing(|| format!("remove {}", incoming.name(&name)))?
            {
                done.removed += 1;
            }
        }
        for id in ids {
            if let Err(fail) = self.recover_one(&id, &mut done) {
                log::error!("{id}: recover: {fail}");
            }
        }
        Ok(done)
    }

    fn recover_one(&self, id: &QueueId, done: &mut Recovered) -> Result<(), Fail> {
        let incoming = self.dir(Place::Incoming)?;
        // Locked for as long as this function looks at it.
        let Locked::File(file, stat) = lock(incoming, id)? else {
            return Ok(());
        };
        let remove = || {
            incoming
                .unlink(id.as_str())
                .doing(|| format!("remove {}", incoming.name(id.as_str())))
        };
        if self.find(id)?.is_some() {
            // A move in two steps that stopped between, or its undoing.
            done.removed += usize::from(remove()?);
            return Ok(());
        }
        let parent = match file::read(&file, Depth::Verify) {
            Ok(contents) => match contents.origin.map(|origin| origin.source) {
                Some(Source::Child { parent }) => Some(parent),
                _ => None,
            },
            Err(Unreadable::Damaged(reason)) => {
                return self.recover_damaged(id, &file, reason, is_old(modified(&stat)), done);
            }
            Err(other) => {
                return Err(Fail::temp(format!(
                    "read {}: {other}",
                    incoming.name(id.as_str())
                )));
            }
        };
        match parent
            .map(|parent| self.ask_parent(&parent, id))
            .transpose()?
        {
            Some(Answer::Named(child)) => {
                self.publish_aside(&child)?;
                done.published += 1;
            }
            Some(Answer::Unnamed) => done.removed += usize::from(remove()?),
            Some(Answer::Unknown) => {
                let hold = self.dir(Place::Hold)?;
                hold.take(incoming, id)
                    .doing(|| format!("move {id} to {}", hold.path().display()))?;
                hold.sync()?;
                incoming.sync()?;
                log::warn!("{id}: its parent is not there or unreadable: put into hold");
                done.held += 1;
            }
            None if is_old(modified(&stat)) => done.removed += usize::from(remove()?),
            None => (),
        }
        Ok(())
    }

    /// A file that is not whole: half a message that was never accepted goes by age, but a child
    /// was whole once.
    fn recover_damaged(
        &self,
        id: &QueueId,
        file: &File,
        reason: &str,
        old: bool,
        done: &mut Recovered,
    ) -> Result<(), Fail> {
        let incoming = self.dir(Place::Incoming)?;
        let source = file::read_origin(file).map(|origin| origin.source);
        if matches!(source, Some(Source::Child { .. })) && old {
            let damaged = self.dir(Place::Damaged)?;
            damaged
                .take(incoming, id)
                .doing(|| format!("move {id} to {}", damaged.path().display()))?;
            damaged.sync()?;
            log::error!(
                "{id}: damaged: {reason}: moved to {}",
                damaged.name(id.as_str())
            );
            done.damaged += 1;
        } else if old
            && incoming
                .unlink(id.as_str())
                .doing(|| format!("remove incoming/{id}"))?
        {
            done.removed += 1;
        }
        Ok(())
    }

    /// What the parent's journal says of a child. No lock is needed: only the child's creator could
    /// have added it, and is dead.
    fn ask_parent(&self, parent: &QueueId, child: &QueueId) -> Result<Answer, Fail> {
        let Some(place) = self.find(parent)? else {
            return Ok(Answer::Unknown);
        };
        let dir = self.dir(place)?;
        let doing = || format!("read {}", dir.name(parent.as_str()));
        let file = match dir.open_entry(parent, OFlag::O_RDWR) {
            Ok(file) => file,
            // It moved or was finished just now: next time.
            Err(e) => return Err(Fail::io(doing(), e)),
        };
        let contents = match file::read(&file, Depth::Verify) {
            Ok(contents) => contents,
            Err(Unreadable::Damaged(_)) => return Ok(Answer::Unknown),
            Err(other) => return Err(Fail::temp(format!("{}: {other}", doing()))),
        };
        let Some(named) = contents.state.children.iter().find(|c| c.id == *child) else {
            return Ok(Answer::Unnamed);
        };
        // What a dead process wrote may still be in memory only.
        file.sync_data().doing(doing)?;
        dir.sync()?;
        Ok(Answer::Named(*named))
    }
}

enum Answer {
    Named(Child),
    Unnamed,
    Unknown,
}

fn is_old(time: SystemTime) -> bool {
    time.elapsed().is_ok_and(|age| age > ABANDONED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Origin;
    use crate::queue::Lane;
    use crate::queue::tests::{envelope, ids, put, scratch};

    /// A child that is aside, as a crash between the steps leaves it.
    fn aside(queue: &Queue, parent: QueueId) -> QueueId {
        let origin = Origin::now(Source::Child { parent });
        let draft = queue
            .draft(Lane::Local, &envelope(&["x@y"]), &origin)
            .unwrap();
        let mut sealed = queue.filed(draft.finish().unwrap()).unwrap();
        queue
            .dir(Place::Incoming)
            .unwrap()
            .link(&sealed.file, sealed.id.as_str())
            .unwrap();
        sealed.aside.named = false;
        sealed.id
    }

    #[test]
    fn a_child_of_nobody_is_held() {
        let (_dir, queue) = scratch();
        let orphan = aside(&queue, QueueId::generate().unwrap());
        let parent = put(&queue, Lane::Relay, b"x");
        std::fs::write(
            queue.path().join("relay").join(parent.as_str()),
            b"not a queue file",
        )
        .unwrap();
        let of_damaged = aside(&queue, parent);
        let done = queue.recover().unwrap();
        assert_eq!(
            done,
            Recovered {
                held: 2,
                ..Recovered::default()
            }
        );
        let mut held = [orphan, of_damaged];
        held.sort();
        assert_eq!(ids(&queue, Place::Hold), held);
        assert_eq!(queue.release(&orphan).unwrap(), Some(Lane::Local));
    }

    #[test]
    fn what_is_being_made_is_left_alone_and_what_is_old_goes() {
        let (_dir, queue) = scratch();
        let incoming = queue.path().join("incoming");
        let (young, old, copy) = (
            QueueId::generate().unwrap(),
            QueueId::generate().unwrap(),
            "x.copy",
        );
        for name in [young.as_str(), old.as_str(), copy] {
            std::fs::write(incoming.join(name), b"yubin queue 1\n").unwrap();
        }
        let long_ago = SystemTime::now() - ABANDONED - Duration::from_secs(60);
        for name in [old.as_str(), copy] {
            let file = File::options()
                .write(true)
                .open(incoming.join(name))
                .unwrap();
            file.set_modified(long_ago).unwrap();
        }
        let parent = put(&queue, Lane::Local, b"x");
        let live = queue
            .draft(
                Lane::Local,
                &envelope(&["x@y"]),
                &Origin::now(Source::Child { parent }),
            )
            .unwrap();
        let mut live = queue.filed(live.finish().unwrap()).unwrap();
        queue
            .dir(Place::Incoming)
            .unwrap()
            .link(&live.file, live.id.as_str())
            .unwrap();
        live.aside.named = true;
        assert_eq!(
            queue.recover().unwrap(),
            Recovered {
                removed: 2,
                ..Recovered::default()
            }
        );
        let mut left = vec![young, live.id];
        left.sort();
        assert_eq!(ids(&queue, Place::Incoming), left);
    }
}
