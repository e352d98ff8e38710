//! The porter: how much a network and an account may do, in all processes together, and who is asked
//! to come again.
//!
//! He is asked in the loop itself: what he knows is in the page cache and costs microseconds
//! ([`tally`]), less than a hop to another thread. Strangers alone come before him, and of our own
//! those who log in, for their account's sake; a client of our networks costs nothing.
//!
//! Who is over a rate is refused for now (4xx) and shut out for a while, longer each time. To who has
//! offended lately each refusal comes later than the one before; that is a timer of the loop's.

mod greylist;
mod notice;
mod vouched;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::config::{Config, Network, Prefixes, Rate};
use base::{Address, ReversePath};
use dns::Resolve;
use tally::login::{self, Logins};
use tally::penalty::Standing;
use tally::{Tally, Worth};

use crate::reply::{self, Reply};
use greylist::{Greylist, Who, Word};
pub(crate) use notice::Notice;
pub(crate) use vouched::{Client, Vouching};

/// How long it is remembered that somebody has waited, since he was last here.
const REMEMBER: Duration = Duration::from_secs(24 * 3600);
/// It is written down anew when what is written is older.
const RENEW: Duration = Duration::from_secs(3600);

/// An answer that is no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reply: Reply,
    /// It is held back for so long.
    pub(crate) after: Duration,
}

type Answer = Result<(), Refusal>;

/// What becomes of a message of somebody who logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    WithinLimits,
    /// It is held. One message is the first; then people are to be told.
    Over {
        first: bool,
    },
}

/// How much of something a network may do, and what it is told when that is over, and while it is
/// shut out.
struct Limit {
    what: &'static str,
    rate: Option<Rate>,
    over: Reply,
    shut_out: Reply,
}

/// See the module.
pub(crate) struct Porter {
    tally: Tally,
    prefixes: Prefixes,
    exempt: Vec<Network>,
    connections: Option<Rate>,
    messages: Option<Rate>,
    recipients: Option<Rate>,
    account_messages: Option<Rate>,
    account_recipients: Option<Rate>,
    penalty: Duration,
    tarpit: Duration,
    greylist: Option<Greylist>,
    vouching: Option<Vouching>,
    logins: Option<Logins>,
}

impl Porter {
    /// Whether anything is limited, or anybody put off or kept waiting.
    pub(crate) fn is_wanted(config: &Config) -> bool {
        let rates = [
            config.rate_connections,
            config.rate_messages,
            config.rate_recipients,
            config.rate_auth_failures,
            config.account_rate_messages,
            config.account_rate_recipients,
        ];
        let waits = !config.greet_delay.is_zero();
        waits || config.greylist || rates.iter().any(Option::is_some)
    }

    pub(crate) fn new(config: &Config, tally: &Tally, dns: &Arc<dyn Resolve>) -> Self {
        let vouching = || Vouching {
            name: config.official_name.clone(),
            dns: Arc::clone(dns),
        };
        Self {
            tally: tally.clone(),
            prefixes: config.rate_prefixes,
            // Those in the second may say whom they bring: he is counted.
            exempt: [&config.rate_exempt[..], &config.xclient_from].concat(),
            connections: config.rate_connections,
            messages: config.rate_messages,
            recipients: config.rate_recipients,
            account_messages: config.account_rate_messages,
            account_recipients: config.account_rate_recipients,
            penalty: config.penalty,
            tarpit: config.tarpit,
            greylist: Greylist::new(config),
            vouching: config.greylist.then(vouching),
            logins: Logins::new(config, tally),
        }
    }

    /// Whether what this stranger does is counted.
    pub(crate) fn counts(&self, ip: IpAddr) -> bool {
        !self.exempt.iter().any(|network| network.contains(ip))
    }

    /// His session had to be ended.
    pub(crate) fn offence(&self, ip: IpAddr, what: &str, now: SystemTime) {
        let penalties = login::network("penalties", self.prefixes, ip);
        let standing = self.tally.offence(&penalties, self.penalty, now);
        let (network, seconds) = (self.prefixes.network(ip), standing.shut_out.as_secs());
        log::info!("warning: offence: {what} from {network}, shut out for {seconds} s");
    }

    /// Whether he has waited for our greeting in the last day. Then it is remembered for another.
    pub(crate) fn knows(&self, ip: IpAddr, now: SystemTime) -> bool {
        let key = login::network("waited", self.prefixes, ip);
        let Some(slot) = self.tally.look(&key, now) else {
            return false;
        };
        if slot.age(now) > RENEW {
            self.acquaint(ip, now);
        }
        true
    }

    /// He has.
    pub(crate) fn acquaint(&self, ip: IpAddr, now: SystemTime) {
        let key = login::network("waited", self.prefixes, ip);
        self.tally.update(&key, now, |slot| {
            slot.worth = Worth::Count;
            slot.keep(now, REMEMBER);
        });
    }

    /// A stranger connects. `submission`: to a port where he has to log in.
    pub(crate) fn client(&self, ip: IpAddr, submission: bool, now: SystemTime) -> Answer {
        if submission && let Some(standing) = self.shut_out_of_logins(ip, now) {
            return Err(self.refusal(&reply::LOGINS_SHUT_OUT, standing));
        }
        let limit = Limit {
            what: "connections",
            rate: self.connections,
            over: reply::RATE_CONNECTIONS,
            shut_out: reply::SHUT_OUT,
        };
        self.spend(ip, &limit, now)
    }

    /// A stranger begins a message.
    pub(crate) fn sender(&self, ip: IpAddr, now: SystemTime) -> Answer {
        let limit = Limit {
            what: "messages",
            rate: self.messages,
            over: reply::RATE_MESSAGES,
            shut_out: reply::RATE_MESSAGES,
        };
        self.spend(ip, &limit, now)
    }

    /// He names a recipient, whoever that is.
    pub(crate) fn recipient(&self, ip: IpAddr, now: SystemTime) -> Answer {
        let limit = Limit {
            what: "recipients",
            rate: self.recipients,
            over: reply::RATE_RECIPIENTS,
            shut_out: reply::RATE_RECIPIENTS,
        };
        self.spend(ip, &limit, now)
    }

    /// Whether he has to come again with a message from this sender to a recipient of ours. `vouched`:
    /// the sender's domain speaks for him.
    pub(crate) fn greylist(
        &self,
        ip: IpAddr,
        vouched: bool,
        from: &ReversePath,
        to: &Address,
        now: SystemTime,
    ) -> Answer {
        let Some(greylist) = &self.greylist else {
            return Ok(());
        };
        let ask = |who| greylist.ask(&self.tally, who, from, to, now);
        let word = match (ask(Who::Network(ip)), from.address()) {
            (Word::Later(_), Some(address)) if vouched => ask(Who::Domain(address.domain())),
            (word, _) => word,
        };
        match word {
            Word::Welcome => Ok(()),
            Word::Later(wait) => Err(Refusal {
                reply: reply::GREYLISTED.about(&to.to_string()).wait(wait),
                after: Duration::ZERO,
            }),
        }
    }

    pub(crate) fn greylists(&self) -> bool {
        self.greylist.is_some()
    }

    /// Who can be asked whether a domain vouches for somebody, where that changes anything.
    pub(crate) fn vouching(&self) -> Option<&Vouching> {
        self.vouching.as_ref()
    }

    /// He wants to log in.
    pub(crate) fn login(&self, ip: IpAddr, now: SystemTime) -> Answer {
        match self.shut_out_of_logins(ip, now) {
            Some(standing) => Err(self.refusal(&reply::AUTH_SHUT_OUT, standing)),
            None => Ok(()),
        }
    }

    fn shut_out_of_logins(&self, ip: IpAddr, now: SystemTime) -> Option<Standing> {
        let standing = self.logins.as_ref()?.standing(Some(ip), now);
        standing.is_shut_out().then_some(standing)
    }

    /// His login failed; the answer is held back for so long, besides what checkpw wants.
    pub(crate) fn login_failed(&self, ip: IpAddr, now: SystemTime) -> Duration {
        let logins = self.logins.as_ref();
        logins.map_or(Duration::ZERO, |logins| logins.refused(Some(ip), now))
    }

    /// How long any refusal is held back from him.
    pub(crate) fn tarpit(&self, ip: IpAddr, now: SystemTime) -> Duration {
        let penalties = login::network("penalties", self.prefixes, ip);
        self.delay(self.tally.standing(&penalties, now))
    }

    /// Somebody who logged in sends a message to so many.
    pub(crate) fn account(&self, login: &str, recipients: u32, now: SystemTime) -> Account {
        if self.account_messages.is_none() && self.account_recipients.is_none() {
            return Account::WithinLimits;
        }
        if self.tally.is_held(login, now) {
            return Account::Over { first: false };
        }
        let over = |rate: Option<Rate>, key, amount| {
            rate.is_some_and(|rate| self.tally.spend(key, rate, amount, now).is_err())
        };
        let messages = tally::account::messages(login);
        let to = tally::account::recipients(login);
        if over(self.account_messages, &messages, 1)
            || over(self.account_recipients, &to, recipients)
        {
            return Account::Over {
                first: self.tally.hold_account(login, now),
            };
        }
        Account::WithinLimits
    }

    fn spend(&self, ip: IpAddr, limit: &Limit, now: SystemTime) -> Answer {
        let what = limit.what;
        let penalties = login::network("penalties", self.prefixes, ip);
        let standing = self.tally.standing(&penalties, now);
        if standing.is_shut_out() {
            return Err(self.refusal(&limit.shut_out, standing));
        }
        let Some(rate) = limit.rate else {
            return Ok(());
        };
        let key = login::network(what, self.prefixes, ip);
        let Err(spent) = self.tally.spend(&key, rate, 1, now) else {
            return Ok(());
        };
        let standing = self.tally.offence(&penalties, self.penalty, now);
        let network = self.prefixes.network(ip);
        let (count, per) = (rate.count, rate.per.as_secs());
        let seconds = standing.shut_out.as_secs();
        log::info!(
            "warning: Rate limit exceeded: more than {count} {what} in {per} s from {network}, \
             shut out for {seconds} s"
        );
        let wait = standing.shut_out.max(spent.wait);
        Err(Refusal {
            reply: limit.over.wait(wait),
            after: self.delay(standing),
        })
    }

    fn refusal(&self, reply: &Reply, standing: Standing) -> Refusal {
        Refusal {
            reply: reply.wait(standing.shut_out),
            after: self.delay(standing),
        }
    }

    fn delay(&self, standing: Standing) -> Duration {
        standing.delay(self.tarpit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Root;
    use std::path::Path;

    fn config(text: &str) -> Config {
        Config::parse(&Root::new("/r"), text, Path::new("yubin.def")).unwrap()
    }

    fn porter(text: &str) -> Porter {
        let zone = tempfile::NamedTempFile::new().unwrap();
        let dns: Arc<dyn Resolve> = Arc::new(dns::Zone::load(zone.path()).unwrap());
        Porter::new(&config(text), &Tally::private().unwrap(), &dns)
    }

    #[test]
    fn who_is_vouched_for_comes_again_from_another_network() {
        let porter = porter("GREYLIST=yes\nGREYLIST_DELAY=5m\n");
        let start = SystemTime::now();
        let from = ReversePath::Address("a@big.example".parse().unwrap());
        let to = "ann@example.org".parse().unwrap();
        let ask = |client, vouched, seconds| {
            let now = start + Duration::from_secs(seconds);
            porter
                .greylist(ip(client), vouched, &from, &to, now)
                .is_ok()
        };
        assert!(porter.vouching().is_some());
        assert!(!ask("192.0.2.1", true, 0));
        assert!(!ask("198.51.100.1", true, 299));
        assert!(!ask("203.0.113.1", false, 301), "in his own name only");
        assert!(ask("203.0.113.1", true, 302));
        // His network has been here too, and waits by itself as ever.
        assert!(!ask("192.0.2.9", false, 200));
        assert!(ask("192.0.2.9", false, 301));
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const NONE: &str = "GREET_DELAY=0s\nRATE_CONNECTIONS=0\nRATE_MESSAGES=0\nRATE_RECIPIENTS=0\n\
                        RATE_AUTH_FAILURES=0\nACCOUNT_RATE_MESSAGES=0\nACCOUNT_RATE_RECIPIENTS=0\n";

    #[test]
    fn where_nothing_is_limited_there_is_no_porter() {
        assert!(!Porter::is_wanted(&config(NONE)));
        assert!(Porter::is_wanted(&config("")));
        assert!(Porter::is_wanted(&config(&format!("{NONE}GREYLIST=yes\n"))));
    }

    #[test]
    fn an_ordinary_host_notices_nothing() {
        let porter = porter("");
        let now = SystemTime::now();
        let sender = ip("192.0.2.1");
        // Five connections and fifty messages a second, for ten minutes.
        for second in 0..600 {
            let now = now + Duration::from_secs(second);
            for _ in 0..5 {
                assert_eq!(porter.client(sender, false, now), Ok(()));
                for _ in 0..2 {
                    assert_eq!(porter.sender(sender, now), Ok(()));
                    assert_eq!(porter.recipient(sender, now), Ok(()));
                }
            }
        }
    }

    #[test]
    fn who_is_over_is_shut_out_longer_each_time_and_answered_later() {
        let porter = porter("RATE_CONNECTIONS=2/10s\nPENALTY=30s\nTARPIT=3s\n");
        let mut now = SystemTime::now();
        let (one, other) = (ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        for (seconds, delay) in [(30, 1), (60, 2), (120, 3), (240, 3)] {
            assert_eq!(porter.client(one, false, now), Ok(()));
            assert_eq!(porter.client(one, false, now), Ok(()));
            let refusal = porter.client(one, false, now).unwrap_err();
            assert_eq!(refusal.after, Duration::from_secs(delay));
            let want = format!("try again in {seconds} seconds");
            assert!(refusal.reply.to_string().ends_with(&want), "{refusal:?}");
            assert_eq!(refusal.reply.code(), 421);
            assert_eq!(porter.sender(one, now).unwrap_err().reply.code(), 450);
            assert_eq!(porter.recipient(one, now).unwrap_err().reply.code(), 450);
            assert_eq!(porter.client(other, false, now), Ok(()), "another /64");
            now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn who_has_waited_is_known_for_a_day_and_by_network() {
        let porter = porter("");
        let start = SystemTime::now();
        let later = |hours: u64| start + Duration::from_secs(hours * 3600);
        porter.acquaint(ip("192.0.2.1"), start);
        porter.acquaint(ip("2001:db8:1:2::9"), start);
        assert!(porter.knows(ip("::ffff:192.0.2.1"), later(23)));
        assert!(!porter.knows(ip("192.0.2.2"), start));
        assert!(porter.knows(ip("2001:db8:1:2:3::1"), later(23)));
        assert!(!porter.knows(ip("2001:db8:1:3::9"), start));
        assert!(porter.knows(ip("192.0.2.1"), later(46)), "seen at 23");
        assert!(!porter.knows(ip("192.0.2.1"), later(70)));
    }

    #[test]
    fn a_session_that_had_to_be_ended_is_an_offence() {
        let porter = porter("RATE_EXEMPT=192.0.2.0/24\nXCLIENT_FROM=198.51.100.7\n");
        let now = SystemTime::now();
        let bad = ip("203.0.113.1");
        porter.offence(bad, "too many errors", now);
        assert_eq!(
            porter.client(bad, false, now).unwrap_err().reply.code(),
            421
        );
        assert_eq!(porter.tarpit(bad, now), Duration::from_secs(1));
        assert!(porter.counts(bad));
        assert!(!porter.counts(ip("::ffff:192.0.2.9")) && !porter.counts(ip("198.51.100.7")));
    }

    #[test]
    fn who_guesses_passwords_may_still_bring_mail() {
        let porter = porter("RATE_AUTH_FAILURES=1/1h\n");
        let now = SystemTime::now();
        let guesser = ip("192.0.2.1");
        assert_eq!(porter.login(guesser, now), Ok(()));
        assert!(porter.login_failed(guesser, now).is_zero());
        assert_eq!(porter.login_failed(guesser, now), Duration::from_secs(1));
        assert_eq!(porter.login(guesser, now).unwrap_err().reply.code(), 454);
        assert_eq!(
            porter.client(guesser, true, now).unwrap_err().reply.code(),
            421
        );
        assert_eq!(porter.client(guesser, false, now), Ok(()));
        assert_eq!(porter.login(ip("192.0.2.2"), now), Ok(()));
    }

    #[test]
    fn an_account_over_its_limit_stays_so() {
        let porter = porter("ACCOUNT_RATE_MESSAGES=3/1m\nACCOUNT_RATE_RECIPIENTS=10/1m\n");
        let now = SystemTime::now();
        let later = now + Duration::from_secs(86_400);
        for (login, recipients, now, want) in [
            ("ann", 1, now, Account::WithinLimits),
            ("ann", 1, now, Account::WithinLimits),
            ("ann", 1, now, Account::WithinLimits),
            ("ann", 1, now, Account::Over { first: true }),
            ("ann", 1, now, Account::Over { first: false }),
            ("ann", 1, later, Account::Over { first: false }),
            ("bob", 10, now, Account::WithinLimits),
            ("bob", 1, now, Account::Over { first: true }),
            ("carl", 11, now, Account::Over { first: true }),
        ] {
            assert_eq!(porter.account(login, recipients, now), want, "{login}");
        }
        porter.tally.free_account("ann", later);
        assert_eq!(porter.account("ann", 1, later), Account::WithinLimits);
    }
}
