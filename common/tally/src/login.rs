//! Failed logins of a network: SMTP's, POP3's and IMAP's count together.
//!
//! A network that fails too often may not try for a while: not even a right password is looked at,
//! so that there is nothing to guess by. Who logs in elsewhere is not touched by it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use base::config::{Config, Network, Prefixes, Rate};
use base::{Fail, Root};

use crate::penalty::Standing;
use crate::{Key, Tally};

/// What the operator allows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Logins {
    tally: Tally,
    rate: Rate,
    penalty: Duration,
    tarpit: Duration,
    prefixes: Prefixes,
    spared: Vec<Network>,
}

/// A key of this kind about the network of `ip`.
pub fn network(kind: &str, prefixes: Prefixes, ip: IpAddr) -> Key {
    match prefixes.network(ip) {
        IpAddr::V4(ip) => Key::new(kind, [&ip.octets()]),
        IpAddr::V6(ip) => Key::new(kind, [&ip.octets()]),
    }
}

impl Logins {
    /// `None` where failures are not counted. Networks of our own are spared: behind one address
    /// there may be many people, and a web mail.
    pub fn new(config: &Config, tally: &Tally) -> Option<Self> {
        Some(Self {
            tally: tally.clone(),
            rate: config.rate_auth_failures?,
            penalty: config.penalty,
            tarpit: config.tarpit,
            prefixes: config.rate_prefixes,
            spared: [&config.my_networks[..], &config.rate_exempt].concat(),
        })
    }

    /// How the network stands. Who has no address, on a Unix socket, is a user of this host.
    pub fn standing(&self, ip: Option<IpAddr>, now: SystemTime) -> Standing {
        match self.counted(ip) {
            Some(ip) => self.tally.standing(&self.penalties(ip), now),
            None => Standing::default(),
        }
    }

    /// Opens what the programs remember together, where failures are counted. Call it before root is
    /// given up.
    pub fn open(root: &Root, config: &Config) -> Result<Option<Self>, Fail> {
        match config.rate_auth_failures {
            Some(_) => Ok(Self::new(config, &Tally::open(root)?)),
            None => Ok(None),
        }
    }

    /// How long an answer is held back from a network that may not log in; `None` for one that may.
    pub fn shut_out(&self, ip: Option<IpAddr>, now: SystemTime) -> Option<Duration> {
        let standing = self.standing(ip, now);
        standing.is_shut_out().then(|| standing.delay(self.tarpit))
    }

    /// A login failed; the answer is held back for so long.
    pub fn refused(&self, ip: Option<IpAddr>, now: SystemTime) -> Duration {
        let standing = self.failed(ip, now);
        if let (true, Some(ip)) = (standing.is_shut_out(), ip) {
            let network = self.prefixes.network(ip);
            let seconds = standing.shut_out.as_secs();
            log::info!(
                "warning: Rate limit exceeded: failed logins from {network}, shut out for {seconds} s"
            );
        }
        standing.delay(self.tarpit)
    }

    /// A login failed.
    pub fn failed(&self, ip: Option<IpAddr>, now: SystemTime) -> Standing {
        let Some(ip) = self.counted(ip) else {
            return Standing::default();
        };
        let count = network("login failures", self.prefixes, ip);
        match self.tally.spend(&count, self.rate, 1, now) {
            Ok(()) => self.tally.standing(&self.penalties(ip), now),
            Err(_) => self.tally.offence(&self.penalties(ip), self.penalty, now),
        }
    }

    fn counted(&self, ip: Option<IpAddr>) -> Option<IpAddr> {
        ip.filter(|ip| !self.spared.iter().any(|network| network.contains(*ip)))
    }

    fn penalties(&self, ip: IpAddr) -> Key {
        network("login penalties", self.prefixes, ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn logins(config: &str) -> Option<Logins> {
        let config = Config::parse(&Root::new("/r"), config, Path::new("yubin.def")).unwrap();
        Logins::new(&config, &Tally::private().unwrap())
    }

    #[test]
    fn who_guesses_may_not_go_on() {
        let logins = logins("RATE_AUTH_FAILURES=3/1m\nPENALTY=10s\n").unwrap();
        let now = SystemTime::now();
        let ip = |text: &str| Some(text.parse().unwrap());
        for _ in 0..3 {
            assert!(!logins.failed(ip("192.0.2.1"), now).is_shut_out());
        }
        assert_eq!(logins.failed(ip("192.0.2.1"), now).shut_out.as_secs(), 10);
        assert!(logins.standing(ip("::ffff:192.0.2.1"), now).is_shut_out());
        assert!(!logins.standing(ip("192.0.2.2"), now).is_shut_out());
        let later = now + Duration::from_secs(10);
        assert!(!logins.standing(ip("192.0.2.1"), later).is_shut_out());
        assert_eq!(logins.failed(ip("192.0.2.1"), later).shut_out.as_secs(), 20);
    }

    #[test]
    fn who_is_exempt_is_not_counted() {
        let logins = logins("RATE_AUTH_FAILURES=1/1h\nRATE_EXEMPT=192.0.2.0/24\n").unwrap();
        for _ in 0..5 {
            let ip = Some("192.0.2.1".parse().unwrap());
            assert!(!logins.failed(ip, SystemTime::now()).is_shut_out());
        }
    }

    #[test]
    fn our_own_are_spared_and_none_is_no_limit() {
        let strict = logins("RATE_AUTH_FAILURES=1/1h\n").unwrap();
        let now = SystemTime::now();
        for ip in [Some("127.0.0.1".parse().unwrap()), None] {
            for _ in 0..5 {
                assert!(!strict.failed(ip, now).is_shut_out());
            }
        }
        assert!(logins("RATE_AUTH_FAILURES=none\n").is_none());
    }
}
