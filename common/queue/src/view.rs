//! The queue as mailq shows it: read without locks, in the knowledge that everything may change or
//! vanish while one looks.

use std::fs::File;
use std::io;
use std::time::SystemTime;

use base::{Doing, Fail, Filter, Recipient, ReversePath};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::SFlag;

use crate::claim::{explain, never_written};
use crate::commit::is_marked;
use crate::entry::waits_until;
use crate::event::Record;
use crate::file::{self, Contents, Depth, Unreadable};
use crate::id::QueueId;
use crate::origin::Origin;
use crate::queue::{Lane, Place, Queue, modified};
use crate::state::{RecipientState, State};

/// One message, as it was when it was looked at.
#[derive(Debug, Clone)]
pub struct View {
    pub id: QueueId,
    pub place: Place,
    /// The lane it is in, or would be released into.
    pub lane: Option<Lane>,
    /// Somebody works on it now.
    pub active: bool,
    /// Of the content.
    pub size: u64,
    /// When it came; None for what is in `drop/` and for what cannot be read.
    pub arrived: Option<SystemTime>,
    /// The file's time: of the next attempt, for an entry of a lane.
    pub due: SystemTime,
    pub origin: Option<Origin>,
    pub reverse_path: Option<ReversePath>,
    pub recipients: Vec<RecipientState>,
    /// It waits until then, because its sender wants that.
    pub waits_until: Option<SystemTime>,
    /// The content filter that it goes to first.
    pub filter: Option<Filter>,
    /// Why it was put into `hold/`, when somebody said.
    pub held: Option<String>,
    /// Why it cannot be read. Then the fields above are empty.
    pub damage: Option<String>,
    /// The journal: only of [`Queue::view`], the last records where it is very long.
    pub history: Vec<Record>,
}

impl Queue {
    /// All messages of all places, oldest id first within a place.
    pub fn list(&self) -> Result<Vec<View>, Fail> {
        let mut all = Vec::new();
        self.each(|view| {
            all.push(view);
            true
        })?;
        Ok(all)
    }

    /// The same, one by one, until `with` has enough: of a large queue no more than the ids are held.
    /// What moves on while one looks is shown once.
    pub fn each(&self, mut with: impl FnMut(View) -> bool) -> Result<(), Fail> {
        // Of each place, in order.
        let mut shown: Vec<Vec<QueueId>> = Vec::new();
        for place in Place::ALL {
            let mut ids = Vec::new();
            self.dir(place)?.ids(|id| ids.push(id))?;
            ids.sort_unstable();
            let mut here = Vec::new();
            for id in ids {
                // What is being taken in lies in drop/ and in its lane for a moment.
                let again = match place {
                    Place::Drop => self.find(&id)?.is_some(),
                    _ => shown.iter().any(|ids| ids.binary_search(&id).is_ok()),
                };
                if again {
                    continue;
                }
                let Some(view) = self.look(place, &id, Depth::Skim)? else {
                    continue;
                };
                here.push(id);
                if !with(view) {
                    return Ok(());
                }
            }
            shown.push(here);
        }
        Ok(())
    }

    /// One message with its history, wherever it is.
    pub fn view(&self, id: &QueueId) -> Result<Option<View>, Fail> {
        for place in Place::ALL {
            if let Some(view) = self.look(place, id, Depth::History)? {
                return Ok(Some(view));
            }
        }
        Ok(None)
    }

    pub(crate) fn look(
        &self,
        place: Place,
        id: &QueueId,
        depth: Depth,
    ) -> Result<Option<View>, Fail> {
        let dir = self.dir(place)?;
        let doing = || format!("open {}", dir.name(id.as_str()));
        let file = match dir.open_entry(id, OFlag::O_RDONLY) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => {
                let stat = dir.stat(id.as_str()).doing(doing)?;
                return Ok(stat.map(|stat| unreadable(*id, place, modified(&stat), e.to_string())));
            }
        };
        let stat = nix::sys::stat::fstat(&file).doing(doing)?;
        let due = modified(&stat);
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
            return Ok(Some(unreadable(
                *id,
                place,
                due,
                "not a regular file".into(),
            )));
        }
        // Why something is in damaged/ is seen by reading it as its claimer did.
        let depth = if place == Place::Damaged {
            Depth::Verify
        } else {
            depth
        };
        Ok(Some(match file::read(&file, depth) {
            Ok(contents) => readable(*id, place, due, is_locked(&file), contents),
            // Being written, or never: that is no damage.
            Err(Unreadable::Damaged(_))
                if place == Place::Incoming || never_written(place, &stat) =>
            {
                return Ok(None);
            }
            Err(Unreadable::Damaged(reason)) => {
                unreadable(*id, place, due, explain(reason, is_marked(stat.st_mode)))
            }
            Err(reason) => unreadable(*id, place, due, reason.to_string()),
        }))
    }
}

fn readable(id: QueueId, place: Place, due: SystemTime, active: bool, contents: Contents) -> View {
    let waits_until = waits_until(&contents, SystemTime::now());
    let State {
        recipients,
        lane,
        held,
        ..
    } = contents.state;
    View {
        id,
        place,
        lane: match place {
            Place::Local => Some(Lane::Local),
            Place::Relay => Some(Lane::Relay),
            Place::Drop | Place::Incoming | Place::Hold | Place::Damaged => lane.or(contents.lane),
        },
        active,
        size: contents.content_length,
        arrived: contents.origin.as_ref().map(|origin| origin.received_at),
        due,
        origin: contents.origin,
        reverse_path: contents.reverse_path,
        recipients,
        waits_until,
        filter: contents.filter,
        held,
        damage: None,
        history: contents.history,
    }
}

fn unreadable(id: QueueId, place: Place, due: SystemTime, reason: String) -> View {
    View {
        id,
        place,
        lane: None,
        active: false,
        size: 0,
        arrived: None,
        due,
        origin: None,
        reverse_path: None,
        recipients: State::new(Vec::<Recipient>::new()).recipients,
        waits_until: None,
        filter: None,
        held: None,
        damage: Some(reason),
        history: Vec::new(),
    }
}

/// Whether somebody holds the entry's lock, asked without taking it.
fn is_locked(file: &File) -> bool {
    let mut lock = libc::flock {
        l_type: libc::c_short::try_from(libc::F_WRLCK).unwrap_or(0),
        l_whence: 0, // SEEK_SET
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock));
    asked.is_ok() && i32::from(lock.l_type) != libc::F_UNLCK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Attempt, Event};
    use crate::queue::tests::{claimed, put, scratch};
    use crate::state::Outcome;
    use base::Status;

    #[test]
    fn what_is_put_on_hold_while_one_looks_is_shown_once() {
        let (_dir, queue) = scratch();
        let id = put(&queue, Lane::Local, b"x");
        let name = |place: &str| queue.path().join(place).join(id.as_str());
        let mut seen = 0;
        queue
            .each(|view| {
                assert_eq!((view.id, view.place), (id, Place::Local));
                std::fs::rename(name("local"), name("hold")).unwrap();
                seen += 1;
                true
            })
            .unwrap();
        assert_eq!(seen, 1);
    }

    #[test]
    fn shows_recipients_reasons_and_who_is_at_it() {
        let (_dir, queue) = scratch();
        let id = put(&queue, Lane::Relay, b"hello");
        let attempt = Attempt {
            status: Status::NO_ANSWER,
            reply: "connection refused".into(),
            host: Some("mx.example.org[192.0.2.1]:25".into()),
        };
        let mut entry = claimed(&queue, Lane::Relay, &id);
        let next = SystemTime::now();
        entry
            .record(&[Event::Deferred {
                recipient: 0,
                attempt: attempt.clone(),
                next,
            }])
            .unwrap();
        let all = queue.list().unwrap();
        let view = &all[0];
        assert_eq!(
            (view.place, view.lane, view.size),
            (Place::Relay, Some(Lane::Relay), 5)
        );
        assert!(view.active && view.damage.is_none() && view.history.is_empty());
        let Outcome::Pending {
            last: Some((_, last)),
        } = &view.recipients[0].outcome
        else {
            panic!("{:?}", view.recipients[0]);
        };
        assert_eq!(*last, attempt);
        assert_eq!(
            view.reverse_path.as_ref().unwrap().to_string(),
            "ann@example.org"
        );
        drop(entry);
        let view = queue.view(&id).unwrap().unwrap();
        assert!(!view.active);
        assert_eq!(view.history.len(), 1);
        assert!(queue.view(&QueueId::generate().unwrap()).unwrap().is_none());
    }
}
