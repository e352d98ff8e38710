//! What an operator does to single messages: `mailq hold ID ...`, `release`, `remove`.
//!
//! Each takes the message's lock, so nothing happens to one that is being delivered. Started by root
//! it works as the queue's owner, whose files all in the queue are.

use std::process::ExitCode;
use std::time::Duration;

use base::{Fail, Root, Sysexit, privilege, say};
use queue::{Lane, Place, Queue, QueueId};

/// How often what was busy is tried, and how long apart.
pub(crate) const PASSES: usize = 20;
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Hold,
    Release,
    Remove,
}

impl Verb {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word {
            "hold" => Some(Self::Hold),
            "release" => Some(Self::Release),
            "remove" => Some(Self::Remove),
            _ => None,
        }
    }
}

/// Does it to each of the messages; one that fails does not keep the others.
pub(crate) fn run(verb: Verb, ids: &[String]) -> Result<ExitCode, Fail> {
    if ids.is_empty() {
        return Err(Fail::usage(
            "usage: mailq hold|release|remove queue-id ... or account=NAME; mailq shows the ids",
        ));
    }
    let root = Root::from_env();
    let queue = Queue::open(&root)?;
    privilege::drop_to(&root, privilege::QUEUE_USER)?;
    let mut worst = ExitCode::SUCCESS;
    for id in ids {
        match patiently(&queue, verb, id) {
            Ok(done) => say(&format!("{id}: {done}")),
            Err(fail) => worst = fail.report(),
        }
    }
    Ok(worst)
}

/// What its owner is just putting aside, or lets go of, is waited for.
fn patiently(queue: &Queue, verb: Verb, id: &str) -> Result<&'static str, Fail> {
    for _ in 1..PASSES {
        match one(queue, verb, id) {
            Err(fail) if fail.code() == Sysexit::TempFail => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    one(queue, verb, id)
}

fn one(queue: &Queue, verb: Verb, id: &str) -> Result<&'static str, Fail> {
    let parsed = QueueId::parse(id).map_err(|e| Fail::usage(format!("{id}: {e}")))?;
    let done = match verb {
        Verb::Hold => {
            let mut done = false;
            for lane in [Lane::Local, Lane::Relay] {
                done = done || queue.hold(lane, &parsed, "by the operator")?;
            }
            done.then_some("held")
        }
        Verb::Release => queue.release(&parsed)?.map(|_| "released"),
        Verb::Remove => {
            let mut done = false;
            for place in [Place::Local, Place::Relay, Place::Hold, Place::Damaged] {
                done = done || queue.remove(place, &parsed)?;
            }
            done.then_some("removed")
        }
    };
    let place = match verb {
        Verb::Hold | Verb::Remove => "in the queue",
        Verb::Release => "put aside",
    };
    done.ok_or_else(|| Fail::new(Sysexit::Unavailable, format!("{id}: not {place}")))
}
