//! Greylisting (RFC 6647): what sends junk seldom comes again, mail servers do.
//!
//! A stranger's network, sender and recipient that we have not met together are put off for a while;
//! who comes again after it is remembered, and a network that did so for several messages is known and
//! put off no more. A network is a /24 or a /64, because large senders try again from a neighbour; a
//! sender is what stays of the address when each message has another (VERP, SRS, BATV tags).
//!
//! Who has a whole pool of networks comes again from another one. Where his domain vouches for him (SPF,
//! [`super::vouched`]) he is met and known by this domain beside his network: he waits as long, and no
//! spammer wins by it that his own domain vouches for him.
//!
//! RFC 6647 5: 4xx at RCPT, after DATA for the null reverse-path, so that who only asks whether a
//! sender exists is answered.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use base::config::Config;
use base::{Address, Domain, ReversePath};
use tally::{Key, Slot, Tally, Worth};

/// Who has not come again by then begins anew: RFC 5321 4.5.4.1 has senders try for days.
const COME_AGAIN: Duration = Duration::from_secs(2 * 86_400);
/// It is written down anew that somebody was here when what is written is older.
const RENEW: Duration = Duration::from_secs(86_400);

/// What is said to a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Welcome,
    /// In so long.
    Later(Duration),
}

/// By what somebody is met and known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who<'a> {
    Network(IpAddr),
    /// Of the sender, which vouches for him.
    Domain(&'a Domain),
}

impl Who<'_> {
    /// The keys' names, of the one who is known and of what was met; and what makes them his.
    fn names(self) -> (&'static str, &'static str, Vec<u8>) {
        match self {
            Self::Network(ip) => ("greylist network", "greylist", network(ip)),
            Self::Domain(domain) => {
                let name = domain.as_str().to_ascii_lowercase();
                ("greylist domain", "greylist by domain", name.into_bytes())
            }
        }
    }
}

/// How long everybody waits and is remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Greylist {
    delay: Duration,
    keep: Duration,
    trust: u64,
}

impl Greylist {
    pub(super) fn new(config: &Config) -> Option<Self> {
        config.greylist.then_some(Self {
            delay: config.greylist_delay,
            keep: config.greylist_keep,
            trust: u64::try_from(config.greylist_trust).unwrap_or(u64::MAX),
        })
    }

    pub(super) fn ask(
        &self,
        tally: &Tally,
        who: Who<'_>,
        from: &ReversePath,
        to: &Address,
        now: SystemTime,
    ) -> Word {
        let (known, met, who) = who.names();
        let known = Key::new(known, [&who]);
        let trusted = |slot: &Slot| slot.numbers.first().is_some_and(|n| *n >= self.trust);
        if let Some(slot) = tally.look(&known, now).filter(trusted) {
            if slot.age(now) > RENEW {
                tally.update(&known, now, |slot| slot.keep(now, self.keep));
            }
            return Word::Welcome;
        }
        let from = sender(from);
        let to = to.to_string().to_ascii_lowercase();
        let triple = Key::new(met, [&who, from.as_bytes(), to.as_bytes()]);
        let met = tally.update(&triple, now, |slot| self.meet(slot, now));
        if met == Met::Again {
            tally.update(&known, now, |slot| {
                slot.worth = Worth::Reputation;
                slot.keep(now, self.keep);
                let [passed, ..] = slot.numbers;
                slot.numbers = [passed.saturating_add(1), 0, 0];
            });
        }
        match met {
            Met::Again | Met::Known => Word::Welcome,
            Met::TooSoon(wait) => Word::Later(wait),
        }
    }

    fn meet(&self, slot: &mut Slot, now: SystemTime) -> Met {
        if slot.is_new() {
            slot.keep(now, COME_AGAIN);
            return Met::TooSoon(self.delay);
        }
        if slot.worth == Worth::Reputation {
            if slot.age(now) > RENEW {
                slot.keep(now, self.keep);
            }
            return Met::Known;
        }
        let wait = self.delay.saturating_sub(slot.age(now));
        if !wait.is_zero() {
            return Met::TooSoon(wait);
        }
        slot.worth = Worth::Reputation;
        slot.keep(now, self.keep);
        Met::Again
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    TooSoon(Duration),
    /// For the first time after the wait.
    Again,
    Known,
}

fn network(ip: IpAddr) -> Vec<u8> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.octets().into_iter().take(3).collect(),
        IpAddr::V6(ip) => ip.octets().into_iter().take(8).collect(),
    }
}

/// What stays the same of a sender from message to message.
fn sender(path: &ReversePath) -> String {
    let Some(address) = path.address() else {
        return String::new();
    };
    let local = address.local().fold();
    // draft-levine-smtp-batv: prvs=tag=user
    let tagged = local.strip_prefix("prvs=").and_then(|l| l.split_once('='));
    let local = tagged.map_or(local.as_str(), |(_, user)| user);
    // VERP and SRS have the other address behind the first of these, and details change.
    let stem = local.find(['+', '=']).and_then(|at| local.get(..at));
    let stem = stem.filter(|stem| !stem.is_empty()).unwrap_or(local);
    let mut out = String::with_capacity(stem.len());
    for c in stem.chars() {
        // Numbers of lists and messages.
        let c = if c.is_ascii_digit() { '#' } else { c };
        if c != '#' || !out.ends_with('#') {
            out.push(c);
        }
    }
    format!("{out}@{}", address.domain()).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: Greylist = Greylist {
        delay: Duration::from_secs(300),
        keep: Duration::from_secs(36 * 86_400),
        trust: 3,
    };

    fn path(text: &str) -> ReversePath {
        match text {
            "" => ReversePath::Null,
            _ => ReversePath::Address(text.parse().unwrap()),
        }
    }

    #[test]
    fn senders_that_change_with_each_message_are_one() {
        for (text, want) in [
            ("", ""),
            ("Ann@Example.org", "ann@example.org"),
            ("ann+tag@example.org", "ann@example.org"),
            ("bounce-1234-567@l.example", "bounce-#-#@l.example"),
            (
                "list-bounces-bob=here.example@l.example",
                "list-bounces-bob@l.example",
            ),
            ("prvs=0123abcdef=ann@example.org", "ann@example.org"),
            ("SRS0=HHHH=TT=a.example=ann@f.example", "srs#@f.example"),
            ("+@x.example", "+@x.example"),
        ] {
            assert_eq!(sender(&path(text)), want, "{text}");
        }
    }

    #[test]
    fn who_comes_again_is_welcome_and_then_his_network() {
        let tally = Tally::private().unwrap();
        let start = SystemTime::now();
        let ask = |ip: &str, from: &str, to: &str, seconds: u64| {
            let (ip, to) = (ip.parse().unwrap(), to.parse().unwrap());
            let now = start + Duration::from_secs(seconds);
            match LIST.ask(&tally, Who::Network(ip), &path(from), &to, now) {
                Word::Welcome => 0,
                Word::Later(wait) => wait.as_secs(),
            }
        };
        let day = 86_400;
        for (ip, from, to, seconds, want) in [
            ("192.0.2.1", "a@x.org", "ann@y.org", 0, 300),
            ("192.0.2.1", "a@x.org", "ann@y.org", 100, 200),
            ("192.0.2.1", "a@x.org", "bob@y.org", 200, 300),
            ("192.0.3.1", "a@x.org", "ann@y.org", 300, 300),
            // From a neighbour.
            ("192.0.2.9", "A@X.org", "Ann@Y.org", 300, 0),
            ("192.0.2.9", "a@x.org", "ann@y.org", 301, 0),
            ("192.0.2.9", "c@x.org", "ann@y.org", 301, 300),
            // Too late is the first time.
            ("192.0.2.1", "a@x.org", "bob@y.org", 3 * day, 300),
            ("192.0.2.1", "a@x.org", "bob@y.org", 3 * day + 300, 0),
            ("192.0.2.1", "", "bob@y.org", 4 * day, 300),
            ("192.0.2.1", "", "bob@y.org", 4 * day + 300, 0),
            // Three have passed: the network is known, while it comes.
            ("192.0.2.77", "new@new.org", "carl@y.org", 5 * day, 0),
            ("192.0.2.77", "new@new.org", "carl@y.org", 40 * day, 0),
            ("192.0.2.77", "new@new.org", "carl@y.org", 77 * day, 300),
            // Who has passed once is remembered, while he comes.
            ("192.0.3.1", "a@x.org", "ann@y.org", 78 * day, 300),
            ("192.0.3.1", "a@x.org", "ann@y.org", 79 * day, 0),
            ("192.0.3.1", "a@x.org", "ann@y.org", 110 * day, 0),
            ("192.0.3.1", "a@x.org", "ann@y.org", 140 * day, 0),
            ("192.0.3.1", "a@x.org", "ann@y.org", 180 * day, 300),
        ] {
            assert_eq!(
                ask(ip, from, to, seconds),
                want,
                "{ip} {from} {to} {seconds}"
            );
        }
    }
    #[test]
    fn a_domain_is_met_and_known_as_a_network_is() {
        let tally = Tally::private().unwrap();
        let start = SystemTime::now();
        let ask = |domain: &str, from: &str, to: &str, seconds: u64| {
            let (domain, to) = (domain.parse().unwrap(), to.parse().unwrap());
            let now = start + Duration::from_secs(seconds);
            match LIST.ask(&tally, Who::Domain(&domain), &path(from), &to, now) {
                Word::Welcome => 0,
                Word::Later(wait) => wait.as_secs(),
            }
        };
        for (domain, from, to, seconds, want) in [
            ("big.org", "a@big.org", "ann@y.org", 0, 300),
            ("big.org", "a@big.org", "ann@y.org", 299, 1),
            ("BIG.org", "a@big.org", "ann@y.org", 300, 0),
            // Each recipient and sender by himself, until the domain is known.
            ("big.org", "a@big.org", "bob@y.org", 400, 300),
            ("big.org", "b@big.org", "ann@y.org", 400, 300),
            ("big.org", "a@big.org", "bob@y.org", 700, 0),
            ("big.org", "b@big.org", "ann@y.org", 700, 0),
            ("big.org", "c@big.org", "carl@y.org", 701, 0),
            ("small.org", "c@small.org", "carl@y.org", 701, 300),
        ] {
            assert_eq!(
                ask(domain, from, to, seconds),
                want,
                "{from} {to} {seconds}"
            );
        }
        // Which is no matter of networks that spell the same.
        let word = LIST.ask(
            &tally,
            Who::Network("192.0.2.1".parse().unwrap()),
            &path("c@big.org"),
            &"carl@y.org".parse().unwrap(),
            start,
        );
        assert_eq!(word, Word::Later(LIST.delay));
    }
}
