//! What is known of the hosts that we send to: how many connections each takes, and which are dead.
//!
//! A destination starts with a few connections and earns more with each success. One that cannot be
//! reached is left alone for a while, which grows; its messages are deferred without a try, and
//! everybody else's go on. After the pause one message at a time finds out whether it is back.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::schedule::Backoff;

/// Connections to a destination of which nothing is known yet.
const FIRST: usize = 4;
/// And to one that takes everything.
const MOST: usize = 12;
/// Destinations that are remembered; beyond this, the quiet ones are forgotten.
const MAX_KNOWN: usize = 10_000;

/// What is known of each destination. `P` is what can wait for one.
#[derive(Debug)]
pub(crate) struct Destinations<D, P> {
    known: HashMap<D, Known<P>>,
}

#[derive(Debug)]
struct Known<P> {
    busy: usize,
    limit: usize,
    failures: u32,
    dead: Option<Dead>,
    waiting: Vec<P>,
}

#[derive(Debug, Clone)]
struct Dead {
    until: Instant,
    why: String,
}

/// Whether a connection may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// Yes; say [`Destinations::leave`] afterwards.
    Open,
    /// Enough are under way.
    Full,
    /// It was not to be reached a short while ago: what it was, and for how long it rests.
    Dead { why: String, left: Duration },
}

/// How a connection went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Somebody was there.
    Reached,
    /// Nobody was; why.
    Unreached(String),
    /// Nothing was found out.
    Unknown,
}

impl<P> Default for Known<P> {
    fn default() -> Self {
        Self {
            busy: 0,
            limit: FIRST,
            failures: 0,
            dead: None,
            waiting: Vec::new(),
        }
    }
}

impl<D: Hash + Eq + Clone, P> Destinations<D, P> {
    pub(crate) fn new() -> Self {
        Self {
            known: HashMap::new(),
        }
    }

    pub(crate) fn enter(&mut self, destination: &D, now: Instant) -> Entrance {
        if self.known.len() >= MAX_KNOWN {
            self.known.retain(|_, k| {
                k.busy > 0
                    || !k.waiting.is_empty()
                    || k.dead.as_ref().is_some_and(|dead| dead.until > now)
            });
        }
        let known = self.known.entry(destination.clone()).or_default();
        if let Some(dead) = &known.dead
            && now < dead.until
        {
            let left = dead.until.duration_since(now);
            return Entrance::Dead {
                why: dead.why.clone(),
                left,
            };
        }
        if known.busy >= known.limit {
            return Entrance::Full;
        }
        known.busy += 1;
        Entrance::Open
    }

    /// Somebody says that it is back: whoever comes first finds out.
    pub(crate) fn revive(&mut self, destination: &D) {
        if let Some(known) = self.known.get_mut(destination) {
            known.dead = None;
        }
    }

    /// Ends what [`Entrance::Open`] began; gives who may be tried next.
    pub(crate) fn leave(
        &mut self,
        destination: &D,
        visit: Visit,
        backoff: Backoff,
        now: Instant,
    ) -> Vec<P> {
        let known = self.known.entry(destination.clone()).or_default();
        known.busy = known.busy.saturating_sub(1);
        match visit {
            Visit::Reached => {
                known.dead = None;
                known.failures = 0;
                known.limit = (known.limit + 1).min(MOST);
            }
            Visit::Unreached(why) => {
                // Several at once that fail together are one failure.
                if known.dead.as_ref().is_none_or(|dead| dead.until <= now) {
                    known.failures = known.failures.saturating_add(1);
                }
                let until = now + backoff.pause(known.failures);
                known.dead = Some(Dead { until, why });
                known.limit = 1;
                return std::mem::take(&mut known.waiting);
            }
            Visit::Unknown => (),
        }
        let free = known.limit.saturating_sub(known.busy);
        let free = free.min(known.waiting.len());
        known.waiting.drain(..free).collect()
    }

    /// Somebody who was let in did not come; gives who may be tried instead. Where others are
    /// there, they let the next in when they leave.
    pub(crate) fn pass(&mut self, destination: &D) -> Vec<P> {
        match self.known.get_mut(destination) {
            Some(known) if known.busy == 0 => {
                let free = known.limit.min(known.waiting.len());
                known.waiting.drain(..free).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Somebody waits for a place there; given back at once where there is one.
    pub(crate) fn wait(&mut self, destination: &D, who: P) -> Option<P> {
        let known = self.known.entry(destination.clone()).or_default();
        if known.busy < known.limit {
            return Some(who);
        }
        known.waiting.push(who);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        min: Duration::from_secs(480),
        max: Duration::from_secs(600),
    };

    #[test]
    fn a_destination_earns_connections_one_by_one() {
        let mut all = Destinations::<_, u32>::new();
        let now = Instant::now();
        for _ in 0..FIRST {
            assert_eq!(all.enter(&"a", now), Entrance::Open);
        }
        assert_eq!(all.enter(&"a", now), Entrance::Full);
        assert_eq!(all.enter(&"b", now), Entrance::Open);
        assert_eq!(all.wait(&"a", 1), None);
        assert_eq!(all.wait(&"a", 2), None);
        assert_eq!(all.wait(&"a", 3), None);
        assert_eq!(all.leave(&"a", Visit::Reached, BACKOFF, now), [1, 2]);
        assert_eq!(all.wait(&"a", 4), Some(4));
        for _ in 0..MOST {
            all.leave(&"a", Visit::Reached, BACKOFF, now);
        }
        let open = (0..20)
            .take_while(|_| all.enter(&"a", now) == Entrance::Open)
            .count();
        assert_eq!(open, MOST);
    }

    #[test]
    fn the_dead_rest_and_come_back_one_by_one() {
        let mut all = Destinations::<_, u32>::new();
        let mut now = Instant::now();
        let gone = || Visit::Unreached("refused".into());
        all.enter(&"a", now);
        all.enter(&"a", now);
        all.leave(&"a", gone(), BACKOFF, now);
        all.leave(&"a", gone(), BACKOFF, now);
        let dead = |left| Entrance::Dead {
            why: "refused".into(),
            left: Duration::from_secs(left),
        };
        assert_eq!(all.enter(&"a", now), dead(60));
        now += Duration::from_secs(60);
        assert_eq!(all.enter(&"a", now), Entrance::Open);
        assert_eq!(all.enter(&"a", now), Entrance::Full);
        assert_eq!(all.wait(&"a", 1), None);
        assert_eq!(all.leave(&"a", gone(), BACKOFF, now), [1]);
        assert_eq!(all.enter(&"a", now), dead(120));
        now += Duration::from_secs(120);
        assert_eq!(all.enter(&"a", now), Entrance::Open);
        all.leave(&"a", gone(), BACKOFF, now);
        all.revive(&"a");
        assert_eq!(all.enter(&"a", now), Entrance::Open);
        assert_eq!(all.enter(&"a", now), Entrance::Full);
        all.leave(&"a", Visit::Reached, BACKOFF, now);
        assert_eq!(all.enter(&"a", now), Entrance::Open);
        assert_eq!(all.enter(&"a", now), Entrance::Open);
        assert_eq!(all.enter(&"a", now), Entrance::Full);
    }
}
