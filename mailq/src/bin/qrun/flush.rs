//! Requests to try a domain's mail now (ETRN, RFC 1985): all its messages become due, and what is
//! known of its servers' death is forgotten.
//!
//! Guarantees: however often somebody asks, a domain's mail is hastened once a minute at most, and
//! reading the lane for it takes a twentieth of the time at most; a request that has to wait for that
//! waits in the queue's directory. What its sender wants to wait goes on waiting.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use base::{Address, Domain, Fail, LocalPart};
use queue::{Flush, Lane, Queue, QueueId, View};
use rules::{Mailer, NextHop};

use crate::board::Board;
use crate::world::World;

/// A domain's mail is hastened no more often than this.
const PAUSE: Duration = Duration::from_secs(60);
/// Between two looks that read the lane, and so many times what the last one took.
const BETWEEN: (Duration, u32) = (Duration::from_secs(1), 20);
/// How often somebody looks without being told.
const LOOK: Duration = Duration::from_secs(5);
/// Domains of the last minute that are remembered; others wait.
const MAX_RECENT: usize = 1000;

/// What was hastened when.
#[derive(Debug, Default)]
struct Recent(HashMap<Flush, Instant>);

impl Recent {
    /// Those whose turn it is; it counts as taken.
    fn admit(&mut self, wanted: Vec<Flush>, now: Instant) -> Vec<Flush> {
        self.0
            .retain(|_, since| now.saturating_duration_since(*since) < PAUSE);
        let mut admitted = Vec::new();
        for flush in wanted {
            if self.0.len() < MAX_RECENT && !self.0.contains_key(&flush) {
                self.0.insert(flush.clone(), now);
                admitted.push(flush);
            }
        }
        admitted
    }
}

/// The life of the thread that does it, until nobody can wake it any more.
pub(crate) fn serve(
    queue: &Queue,
    board: &Board,
    world: impl Fn() -> std::sync::Arc<World>,
    woken: &Receiver<()>,
) {
    let mut recent = Recent::default();
    loop {
        match woken.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(()) | Err(RecvTimeoutError::Timeout) => (),
        }
        let began = Instant::now();
        let done = queue.flush_requests().and_then(|wanted| {
            let admitted = recent.admit(wanted, began);
            hasten(queue, board, &world(), &admitted)
        });
        if let Err(fail) = done {
            log::error!("{fail}");
        }
        let (least, times) = BETWEEN;
        std::thread::sleep(least.max(began.elapsed().saturating_mul(times)));
    }
}

/// Makes all that is asked for due.
fn hasten(queue: &Queue, board: &Board, world: &World, wanted: &[Flush]) -> Result<(), Fail> {
    if wanted.is_empty() {
        return Ok(());
    }
    for flush in wanted {
        queue.begin_flush(flush)?;
    }
    let mut due: Vec<QueueId> = Vec::new();
    let mut hops = HashSet::new();
    for listed in queue.scan(Lane::Relay)? {
        let view = match queue.skim(Lane::Relay, &listed.id) {
            Ok(Some(view)) => view,
            Ok(None) => continue,
            // Its turn will show what it has.
            Err(fail) => {
                log::warn!("{}: {fail}", listed.id);
                continue;
            }
        };
        let found = domains(&view, wanted);
        if !found.is_empty() {
            hops.extend(found.into_iter().filter_map(|domain| hop(world, domain)));
            due.push(listed.id);
        }
    }
    // First, or their turn would find it dead still.
    board.revive(&hops);
    for id in &due {
        queue.hasten(Lane::Relay, id)?;
        if let Some(due) = queue.due(Lane::Relay, id)? {
            board.announce(*id, due);
        }
    }
    for flush in wanted {
        queue.end_flush(flush)?;
        log::info!("flush {flush}: asked for");
    }
    log::info!("flush: {} messages are tried now", due.len());
    Ok(())
}

/// The domains of those who are still to have it and are asked for.
fn domains<'a>(view: &'a View, wanted: &[Flush]) -> HashSet<&'a Domain> {
    let to_do = view
        .recipients
        .iter()
        .filter(|state| view.waits_until.is_none() && state.outcome.is_pending());
    to_do
        .map(|state| state.recipient.address.domain())
        .filter(|domain| wanted.iter().any(|flush| flush.covers(domain)))
        .collect()
}

/// Where a domain's mail goes, as far as its local-parts do not matter.
fn hop(world: &World, domain: &Domain) -> Option<NextHop> {
    let address = Address::new(LocalPart::new("postmaster").ok()?, domain.clone());
    match world.router.route(&address).mailer {
        Mailer::Relay { next, .. } => Some(next),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use base::{Config, Recipient, Root};

    fn flush(text: &str) -> Flush {
        Flush::parse(text).unwrap()
    }

    #[test]
    fn who_asks_too_often_waits() {
        let mut recent = Recent::default();
        let now = Instant::now();
        let both = || vec![flush("a.test"), flush("@b.test")];
        assert_eq!(recent.admit(both(), now), both());
        assert_eq!(recent.admit(both(), now + PAUSE / 2), []);
        assert_eq!(recent.admit(both(), now + PAUSE), both());
        let many = (0..2 * MAX_RECENT).map(|n| flush(&format!("n{n}.test")));
        assert_eq!(
            recent.admit(many.collect(), now + PAUSE).len(),
            MAX_RECENT - 2
        );
    }

    #[test]
    fn what_is_asked_for_is_due_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let def = "MY_NAME=mail\nMY_DOMAIN=a.test\nDNS_ZONE_FILE=/zone\n";
        std::fs::write(dir.path().join("zone"), "").unwrap();
        let config = Config::parse(&root, def, Path::new("t")).unwrap();
        let world = World::new(&root, &config).unwrap();
        let queue = Queue::create(&root).unwrap();
        let later = std::time::SystemTime::now() + Duration::from_secs(3600);
        let put = |to: &str, waits: bool| {
            let to = vec![Recipient::new(to.parse().unwrap())];
            let mut envelope = base::Envelope::new(base::ReversePath::Null, to);
            if waits {
                let hold = base::release::Hold::For(3600);
                envelope.release = Some(hold.release(std::time::SystemTime::now()));
            }
            let origin = queue::Origin::now(queue::Source::Network(queue::Client::default()));
            let mut draft = queue.draft(Lane::Relay, &envelope, &origin).unwrap();
            draft.set_due(later);
            queue.commit(vec![draft.finish().unwrap()]).unwrap()[0]
        };
        let asked = [put("a@x.test", false), put("a@deep.y.test", false)];
        let others = [
            put("a@deep.x.test", false),
            put("a@x.test", true),
            put("a@z.test", false),
        ];
        let wanted = [flush("x.test"), flush("@y.test"), flush("nobody.test")];
        wanted
            .iter()
            .for_each(|flush| queue.request_flush(flush).unwrap());
        hasten(&queue, &Board::new(false), &world, &wanted).unwrap();
        assert_eq!(queue.flush_requests().unwrap(), []);
        let is_due = |id: &QueueId| {
            let due = queue.due(Lane::Relay, id).unwrap().unwrap();
            due <= std::time::SystemTime::now()
        };
        assert!(asked.iter().all(is_due));
        assert!(!others.iter().any(is_due));
    }
}
