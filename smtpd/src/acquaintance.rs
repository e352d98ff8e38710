//! Who has waited for our greeting before: he is greeted at once, for a day after he was last here.
//!
//! Kept in memory, for as many networks as fit: an IPv4 address, or an IPv6 /64, which is as small a
//! part as anybody gets. When it is forgotten a sender waits once more, which costs him seconds.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const REMEMBER: Duration = Duration::from_secs(24 * 3600);
/// 10 MB or so.
const MOST: usize = 100_000;

#[derive(Debug, Default)]
pub(crate) struct Acquaintances(Mutex<HashMap<IpAddr, Instant>>);

impl Acquaintances {
    /// Whether he is one; then he is remembered for another day.
    pub(crate) fn knows(&self, ip: IpAddr, now: Instant) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = known.get_mut(&network(ip)) else {
            return false;
        };
        let knows = now.saturating_duration_since(*seen) < REMEMBER;
        if knows {
            *seen = now;
        }
        knows
    }

    /// He has waited.
    pub(crate) fn add(&self, ip: IpAddr, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, seen| now.saturating_duration_since(*seen) < REMEMBER);
        }
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(network(ip), now);
    }
}

fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        IpAddr::V4(ip) => ip.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_a_day_and_by_network() {
        let known = Acquaintances::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let start = Instant::now();
        let later = |hours: u64| start + Duration::from_secs(hours * 3600);
        known.add(ip("192.0.2.1"), start);
        known.add(ip("2001:db8:1:2::9"), start);
        assert!(known.knows(ip("::ffff:192.0.2.1"), later(23)));
        assert!(!known.knows(ip("192.0.2.2"), start));
        assert!(known.knows(ip("2001:db8:1:2:3::1"), later(23)));
        assert!(!known.knows(ip("2001:db8:1:3::9"), start));
        assert!(known.knows(ip("192.0.2.1"), later(46)), "seen at 23");
        assert!(!known.knows(ip("192.0.2.1"), later(70)));
    }

    #[test]
    fn they_are_not_too_many() {
        let known = Acquaintances::default();
        let start = Instant::now();
        for n in 0..u32::try_from(MOST).unwrap() {
            known.add(IpAddr::V4(n.into()), start);
        }
        let next = IpAddr::V4([255, 0, 0, 1].into());
        known.add(next, start + Duration::from_secs(1));
        assert!(known.knows(next, start + Duration::from_secs(2)));
        assert!(known.0.lock().unwrap().len() <= MOST);
    }
}
