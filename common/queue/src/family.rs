//! Mail made out of mail: forwards, lists, bounces. A child is there exactly when its parent's
//! journal says so.
//!
//! 1. the children are written and made durable as `incoming/CHILD`;
//! 2. one record in the parent's journal says what they are for, and is made durable;
//! 3. the children are renamed into their lanes, which are synced.
//!
//! A crash before 2 leaves children that nobody speaks of: [`Queue::recover`] removes them, and the
//! parent makes new ones. A crash after 2 leaves children that the journal names: whoever claims
//! the parent next, or recovery, finishes step 3, and so before the parent can be removed.
//! A child whose parent is not there or cannot be read is never deleted: it goes to `hold/`.

use std::fs::File;
use std::io::Read;

use base::{Doing, Envelope, Fail};

use crate::commit::{Filed, Sealed, mark_durable, sync_files};
use crate::crash;
use crate::draft::Draft;
use crate::entry::{Entry, touch};
use crate::event::{Child, Event, Report};
use crate::id::QueueId;
use crate::origin::{Origin, Source};
use crate::queue::{Lane, Place, Queue};

/// What children are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spawn {
    /// They are sent on in the place of these recipients.
    Became { recipients: Vec<usize> },
    /// They tell the sender of these recipients.
    Reported {
        recipients: Vec<usize>,
        report: Report,
    },
}

impl Entry {
    /// Starts a child of this entry. Give it to [`Entry::spawn`] when it is finished.
    pub fn child(&self, lane: Lane, envelope: &Envelope) -> Result<Draft, Fail> {
        self.queue.draft(
            lane,
            envelope,
            &Origin::now(Source::Child { parent: self.id }),
        )
    }

    /// Queues the children and records what they are for, all of it or nothing: after `Ok` both are
    /// durable, after a crash both or neither are. After `Err` drop the entry: the next claim knows
    /// whether it was done.
    pub fn spawn(&mut self, children: Vec<Sealed>, what: Spawn) -> Result<Vec<QueueId>, Fail> {
        self.usable()?;
        let names: Vec<Child> = children
            .iter()
            .map(|c| Child {
                id: c.id,
                lane: c.lane,
            })
            .collect();
        let children = self.set_aside(children)?;
        crash::point("children aside");
        let event = match what {
            Spawn::Became { recipients } => Event::Became {
                recipients,
                children: names,
            },
            Spawn::Reported { recipients, report } => Event::Reported {
                recipients,
                report,
                children: names,
            },
        };
        // A record that could not be written is not there, and the children go with `children`.
        self.journal(&[event])?;
        let mut children = children;
        // From here on the journal names them: they must stay, whatever happens.
        for child in &mut children {
            child.aside.named = false;
        }
        let published = self
            .restore_due()
            .and_then(|()| self.sync())
            .and_then(|()| {
                crash::point("parent synced");
                self.publish(children)
            });
        if published.is_err() {
            self.give_up();
        }
        published
    }

    /// One child with this content: [`Entry::child`] and [`Entry::spawn`] in one.
    pub fn spawn_one(
        &mut self,
        lane: Lane,
        envelope: &Envelope,
        content: &mut dyn Read,
        what: Spawn,
    ) -> Result<QueueId, Fail> {
        let mut draft = self.child(lane, envelope)?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = content
                .read(&mut buffer)
                .doing(|| format!("read the content of a child of {}", self.id))?;
            match buffer.get(..n) {
                Some([]) | None => break,
                Some(part) => draft.write(part)?,
            }
        }
        let id = *draft.id();
        self.spawn(vec![draft.finish()?], what)?;
        Ok(id)
    }

    /// Step 1. The children's names in `incoming/` go when they are dropped.
    fn set_aside(&self, children: Vec<Sealed>) -> Result<Vec<Filed>, Fail> {
        let mut children = self.queue.all_filed(children)?;
        sync_files(&children, File::sync_data)?;
        let incoming = self.queue.dir(Place::Incoming)?;
        for child in &mut children {
            if !child.aside.named {
                incoming
                    .link(&child.file, child.id.as_str())
                    .doing(|| format!("link {}", incoming.name(child.id.as_str())))?;
                child.aside.named = true;
            }
        }
        if !children.is_empty() {
            incoming.sync()?;
        }
        Ok(children)
    }

    /// Step 3.
    fn publish(&self, children: Vec<Filed>) -> Result<Vec<QueueId>, Fail> {
        let incoming = self.queue.dir(Place::Incoming)?;
        for child in &children {
            let lane = self.queue.dir(child.lane)?;
            lane.take(incoming, &child.id)
                .doing(|| format!("move {} to {}", child.id, lane.path().display()))?;
            crash::point("child renamed");
        }
        for lane in [Lane::Local, Lane::Relay] {
            if children.iter().any(|child| child.lane == lane) {
                self.queue.dir(lane)?.sync()?;
            }
        }
        crash::point("children published");
        Ok(self.queue.let_go(children))
    }

    /// Finishes step 3 for children that the journal names: their creator died between 2 and 3.
    pub(crate) fn settle(&mut self) -> Result<(), Fail> {
        let incoming = self.queue.dir(Place::Incoming)?;
        let mut waiting = Vec::new();
        for child in self.children() {
            let doing = || format!("stat {}", incoming.name(child.id.as_str()));
            if incoming.stat(child.id.as_str()).doing(doing)?.is_some() {
                waiting.push(*child);
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        self.sync()?;
        for child in waiting {
            self.queue.publish_aside(&child)?;
        }
        Ok(())
    }
}

impl Queue {
    /// Moves a child whose parent's record is durable into its lane.
    pub(crate) fn publish_aside(&self, child: &Child) -> Result<(), Fail> {
        let (incoming, lane) = (self.dir(Place::Incoming)?, self.dir(child.lane)?);
        match lane.take(incoming, &child.id) {
            Ok(()) => (),
            // Somebody else was faster, or a file system that moves in two steps stopped between.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                incoming
                    .unlink(child.id.as_str())
                    .doing(|| format!("remove incoming/{}", child.id))?;
            }
            Err(e) => {
                return Err(Fail::io(
                    format!("move {} to {}", child.id, lane.path().display()),
                    e,
                ));
            }
        }
        lane.sync()?;
        log::info!("{}: recovered into {}", child.id, child.lane.as_str());
        mark_durable(lane, &child.id);
        touch(lane, &child.id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::tests::{dies_at, role};
    use crate::queue::tests::{claimed, envelope, ids, put, scratch};
    use crate::state::Outcome;
    use base::Root;

    const CHILD: &str = "family::tests::spawns_two_until_it_dies";

    /// The child process of the tests: the parent's first recipient becomes two.
    #[test]
    fn spawns_two_until_it_dies() {
        let Some(root) = role() else { return };
        let queue = Queue::open(&Root::new(root)).unwrap();
        let parent = ids(&queue, Place::Local)[0];
        let mut entry = claimed(&queue, Lane::Local, &parent);
        spawn_two(&mut entry);
    }

    fn spawn_two(entry: &mut Entry) {
        let children = [Lane::Local, Lane::Relay].map(|lane| {
            let mut draft = entry.child(lane, &envelope(&["next@example.org"])).unwrap();
            draft.write(b"child").unwrap();
            draft.finish().unwrap()
        });
        entry
            .spawn(
                children.into(),
                Spawn::Became {
                    recipients: vec![0],
                },
            )
            .unwrap();
    }

    fn is_done(entry: &Entry) -> bool {
        matches!(entry.recipients()[0].outcome, Outcome::Became { .. })
    }

    /// Kills a spawn at each of its steps; `mend` is what happens next. Then there are either both
    /// children and the record, or neither, and nothing is left aside.
    fn at_each_step(mend: impl Fn(&Queue, &QueueId)) {
        for at in 1.. {
            let (dir, queue) = scratch();
            let parent = put(&queue, Lane::Local, b"parent");
            let died = dies_at(CHILD, dir.path(), at);
            mend(&queue, &parent);
            let mut entry = claimed(&queue, Lane::Local, &parent);
            let children = ids(&queue, Place::Local).len() - 1 + ids(&queue, Place::Relay).len();
            assert_eq!(children, if is_done(&entry) { 2 } else { 0 }, "step {at}");
            if !is_done(&entry) {
                spawn_two(&mut entry);
            }
            entry.finish().unwrap();
            queue.recover().unwrap();
            assert_eq!(
                (
                    ids(&queue, Place::Local).len(),
                    ids(&queue, Place::Relay).len()
                ),
                (1, 1)
            );
            for lane in [Lane::Local, Lane::Relay] {
                let child = claimed(&queue, lane, &ids(&queue, lane.into())[0]);
                assert_eq!(child.size(), 5);
                assert_eq!(child.origin().source, Source::Child { parent });
            }
            assert!(ids(&queue, Place::Incoming).is_empty() && ids(&queue, Place::Hold).is_empty());
            if !died {
                assert!(at > 5, "only {at} steps");
                break;
            }
        }
    }

    #[test]
    fn killed_at_any_step_recovery_finishes_or_removes() {
        at_each_step(|queue, _| {
            queue.recover().unwrap();
            assert_eq!(ids(queue, Place::Incoming), []);
        });
    }

    #[test]
    fn killed_at_any_step_the_next_owner_finishes() {
        at_each_step(|queue, parent| {
            drop(claimed(queue, Lane::Local, parent));
            // What the journal does not name waits for recovery, which runs in at_each_step while
            // the parent is still there.
            let entry = claimed(queue, Lane::Local, parent);
            assert!(!is_done(&entry) || ids(queue, Place::Incoming).is_empty());
            drop(entry);
            queue.recover().unwrap();
        });
    }

    #[test]
    fn a_report_is_a_child_too() {
        let (_dir, queue) = scratch();
        let parent = put(&queue, Lane::Relay, b"x");
        let mut entry = claimed(&queue, Lane::Relay, &parent);
        let report = Spawn::Reported {
            recipients: vec![1],
            report: Report::Failure,
        };
        let bounce = entry
            .spawn_one(
                Lane::Relay,
                &envelope(&["ann@example.org"]),
                &mut &b"bounce"[..],
                report,
            )
            .unwrap();
        assert!(entry.recipients()[1].failure_reported && !entry.recipients()[0].failure_reported);
        entry.finish().unwrap();
        assert_eq!(ids(&queue, Place::Relay), [bounce]);
    }
}
