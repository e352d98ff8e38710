//! What an operator does to single entries, through mailq: hold, release, remove, hasten.
//!
//! Each takes the entry's lock first, so none of it happens under the hands of deliver or qrun.
//! What comes back into a lane is a file that nobody else can write to, whoever made it.

use std::time::SystemTime;

use base::{Doing, Fail, Sysexit};

use crate::claim::{Claim, Locked, lock};
use crate::commit::is_marked;
use crate::entry::{Entry, touch};
use crate::event::Event;
use crate::id::QueueId;
use crate::queue::{Lane, Place, Queue};

impl Queue {
    /// Puts an entry aside. `false` when it is not there.
    pub fn hold(&self, lane: Lane, id: &QueueId, reason: &str) -> Result<bool, Fail> {
        match self.claim(lane, id)? {
            Claim::Entry(entry) => entry.hold(reason).map(|()| true),
            Claim::Gone => Ok(false),
            Claim::Busy => Err(busy(id)),
            Claim::Damaged(reason) => Err(damaged(id, &reason)),
        }
    }

    /// Puts an entry of `hold/` or `damaged/` back into its lane, due at once, and says into which; one
    /// in a lane that waits for its sender's time waits no longer. `None` for any other. What is still
    /// damaged is refused, and so is what a user of the host wrote himself: its origin is his word.
    pub fn release(&self, id: &QueueId) -> Result<Option<Lane>, Fail> {
        for place in [Place::Hold, Place::Damaged] {
            match self.claim_in(place, id)? {
                Claim::Entry(mut entry) => {
                    self.make_ours(&mut entry)?;
                    return entry.release().map(Some);
                }
                Claim::Gone => (),
                Claim::Busy => return Err(busy(id)),
                Claim::Damaged(reason) => return Err(damaged(id, &reason)),
            }
        }
        for lane in [Lane::Local, Lane::Relay] {
            if self.release_early(lane, id)? {
                return Ok(Some(lane));
            }
        }
        // Accepted to be held: whoever claims it first puts it aside, soon.
        match self.view(id)?.and_then(|view| view.held) {
            Some(_) => Err(busy(id)),
            None => Ok(None),
        }
    }

    /// Lets an entry go that waits for its sender's time. `false` when it does not, or is not there.
    fn release_early(&self, lane: Lane, id: &QueueId) -> Result<bool, Fail> {
        // Only what waits is locked: whoever delivers the others is not to be disturbed.
        if self
            .due(lane, id)?
            .is_none_or(|due| due <= SystemTime::now())
        {
            return Ok(false);
        }
        let mut entry = match self.claim(lane, id)? {
            Claim::Entry(entry) => entry,
            Claim::Gone => return Ok(false),
            Claim::Busy => return Err(busy(id)),
            Claim::Damaged(reason) => return Err(damaged(id, &reason)),
        };
        if entry.waits_until(SystemTime::now()).is_none() {
            return Ok(false);
        }
        entry.record_synced(&[Event::Released])?;
        drop(entry);
        // The lock first, then the wake-up: who wakes must find it free.
        self.hasten(lane, id)
    }

    /// An entry that smtpd made becomes a copy that it cannot write to any more. A lane's directory
    /// gives its group to what is made there, and nobody else can: any other stranger's file came
    /// from `drop/`.
    fn make_ours(&self, entry: &mut Entry) -> Result<(), Fail> {
        let made =
            nix::sys::stat::fstat(&entry.file).doing(|| format!("stat queue file {}", entry.id))?;
        let incoming = self.dir(Place::Incoming)?;
        let lanes = nix::sys::stat::fstat(incoming.fd())
            .doing(|| format!("stat {}", incoming.path().display()))?;
        if made.st_uid == lanes.st_uid || made.st_uid == nix::unistd::geteuid().as_raw() {
            return Ok(());
        }
        if made.st_gid == lanes.st_gid {
            return entry.adopt();
        }
        let (id, uid, path) = (entry.id, made.st_uid, self.path().display());
        let place = entry.place.as_str();
        let text = format!(
            "{id}: belongs to uid {uid} and not to the queue, so nothing that it says is proven; \
             to submit it for that user: mv {path}/{place}/{id} {path}/drop/"
        );
        Err(Fail::new(Sysexit::NoPerm, text))
    }

    /// Deletes a message, wherever it is. `false` when it is not there.
    pub fn remove(&self, place: Place, id: &QueueId) -> Result<bool, Fail> {
        let dir = self.dir(place)?;
        // Held until the name is gone.
        let _locked = match place {
            // Its owner's file: qrun can read it and nobody locks it.
            Place::Drop => None,
            _ => match lock(dir, id)? {
                Locked::File(file, stat) => {
                    // Or the commit log brings it back.
                    if !is_marked(stat.st_mode)
                        && let Some(log) = self.work_log()?
                    {
                        log.left(*id)?;
                    }
                    Some(file)
                }
                Locked::Gone => return Ok(false),
                Locked::Busy => return Err(busy(id)),
                Locked::Strange => None,
            },
        };
        if matches!(place, Place::Local | Place::Relay | Place::Hold) {
            // What a crash left of its submission must not bring it back.
            let drop = self.dir(Place::Drop)?;
            if drop
                .unlink(id.as_str())
                .doing(|| format!("remove {}", drop.name(id.as_str())))?
            {
                drop.sync()?;
            }
        }
        let removed = dir
            .unlink(id.as_str())
            .doing(|| format!("remove {}", dir.name(id.as_str())))?;
        dir.sync()?;
        Ok(removed)
    }

    /// Makes an entry due now. `false` when it is not there.
    pub fn hasten(&self, lane: Lane, id: &QueueId) -> Result<bool, Fail> {
        let there = self.due(lane, id)?.is_some();
        if there {
            touch(self.dir(lane)?, id);
        }
        Ok(there)
    }
}

fn busy(id: &QueueId) -> Fail {
    Fail::temp(format!("{id}: is being delivered; try again"))
}

fn damaged(id: &QueueId, reason: &str) -> Fail {
    Fail::data(format!("{id}: damaged: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::{claimed, ids, put, scratch};
    use std::os::unix::fs::MetadataExt;

    const STRANGER: u32 = 65_534;

    /// The operator's hold and release leave the sender's wish as it is; his release of what waits does
    /// not.
    #[test]
    fn what_waits_for_its_time_goes_when_the_operator_says_so() {
        let (_dir, queue) = scratch();
        let now = base::date::system_time(base::date::now());
        let release = base::release::Hold::For(3600).release(now);
        let mut envelope = crate::queue::tests::envelope(&["a@x.org"]);
        envelope.release = Some(release);
        let origin = crate::Origin::now(crate::Source::Network(crate::Client::default()));
        let mut draft = queue.draft(Lane::Relay, &envelope, &origin).unwrap();
        draft.set_due(release.at);
        let id = queue.commit(vec![draft.finish().unwrap()]).unwrap()[0];
        assert_eq!(queue.due(Lane::Relay, &id).unwrap(), Some(release.at));
        assert_eq!(
            queue.view(&id).unwrap().unwrap().waits_until,
            Some(release.at)
        );

        assert!(queue.hold(Lane::Relay, &id, "look").unwrap());
        assert_eq!(queue.release(&id).unwrap(), Some(Lane::Relay));
        let mut entry = claimed(&queue, Lane::Relay, &id);
        assert_eq!(entry.waits_until(now), Some(release.at));
        assert_eq!(entry.ready_at(), release.at);
        entry.set_due(release.at).unwrap();
        drop(entry);

        assert_eq!(queue.release(&id).unwrap(), Some(Lane::Relay));
        assert_eq!(queue.release(&id).unwrap(), None);
        assert!(queue.due(Lane::Relay, &id).unwrap().unwrap() <= SystemTime::now());
        let entry = claimed(&queue, Lane::Relay, &id);
        assert_eq!(entry.waits_until(now), None);
        assert!(entry.ready_at() < release.at);
        assert_eq!(entry.envelope().release, Some(release));
        assert_eq!(queue.view(&id).unwrap().unwrap().waits_until, None);
    }

    #[test]
    fn a_strangers_file_is_not_released_and_smtpds_becomes_ours() {
        // Only root can make files of others.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (_dir, queue) = scratch();
        let file = |place: &str, id: &QueueId| queue.path().join(place).join(id.as_str());
        let (smtpds, users) = (
            put(&queue, Lane::Relay, b"smtpd's"),
            put(&queue, Lane::Relay, b"user's"),
        );
        for id in [&smtpds, &users] {
            claimed(&queue, Lane::Relay, id).hold("look").unwrap();
        }
        std::os::unix::fs::chown(file("hold", &smtpds), Some(STRANGER), None).unwrap();
        std::os::unix::fs::chown(file("hold", &users), Some(STRANGER), Some(STRANGER)).unwrap();
        let before = std::fs::File::options()
            .write(true)
            .open(file("hold", &smtpds))
            .unwrap();

        let fail = queue.release(&users).unwrap_err();
        assert_eq!(fail.code(), Sysexit::NoPerm);
        assert!(fail.to_string().contains("uid 65534"), "{fail}");
        assert!(ids(&queue, Place::Hold).contains(&users));

        assert_eq!(queue.release(&smtpds).unwrap(), Some(Lane::Relay));
        let now = std::fs::metadata(file("relay", &smtpds)).unwrap();
        assert_eq!(now.uid(), nix::unistd::geteuid().as_raw());
        assert_ne!(now.ino(), before.metadata().unwrap().ino());
        assert_eq!(claimed(&queue, Lane::Relay, &smtpds).size(), 7);
    }
}
