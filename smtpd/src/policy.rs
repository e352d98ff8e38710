//! Ours or relay: what becomes of a recipient. RFC 5321 3.6 and 4.5.1.
//!
//! The rules decide where an address goes; this decides whether we take it. A local-part is never
//! taken apart for another host in it (`user%host`, `host!user`): it is one of our users or it is
//! refused. A source route has been dropped by the grammar already.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use base::config::{Config, Network};
use base::{Address, Domain, Fail, LocalPart};
use rules::aliases::{Aliases, Target};
use rules::{Mailer, Router};

use crate::access::{self, Access, Question};
use crate::relay_domains::RelayRecipients;
use crate::reply::{self, Reply};
use crate::senders::Senders;
use crate::session::Verdict;
use crate::table::Table;

/// Told whether a name is a user of this host, at once or later, on any thread.
pub(crate) type Told = Box<dyn FnOnce(Result<bool, Fail>) + Send>;
/// Asks whether a name is a user of this host. Never blocks.
pub(crate) type Exists = Box<dyn Fn(String, Told) + Send + Sync>;
type Then = Box<dyn FnOnce(Verdict) + Send>;

/// A user that was found is not looked up again for this time.
const REMEMBER: Duration = Duration::from_secs(10);
/// How many are remembered.
const REMEMBERED: usize = 10_000;
/// How long a thread waits for a verdict.
const ROUTE_TIME: Duration = Duration::from_secs(30);
/// The aliases files are looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The operator's files that sessions ask.
pub(crate) struct Tables {
    aliases: Aliases,
    access: Table<Access>,
    senders: Table<Senders>,
    relay_recipients: Table<RelayRecipients>,
}

impl Tables {
    pub(crate) fn open(config: &Config) -> Result<Self, Fail> {
        let (aliases, warnings) = Aliases::load(&config.alias_files)?;
        for warning in warnings {
            log::warn!("{warning}");
        }
        Ok(Self {
            aliases,
            access: Table::open(&config.access_file, Access::parse)?,
            senders: Table::open(&config.senders_file, Senders::parse)?,
            relay_recipients: Table::open(&config.relay_recipients, RelayRecipients::parse)?,
        })
    }
}

/// Shared by all sessions.
pub(crate) struct Policy {
    router: Router,
    networks: Vec<Network>,
    delimiter: Option<char>,
    aliases: Mutex<(Aliases, Instant)>,
    access: Table<Access>,
    senders: Table<Senders>,
    relay_domains: Vec<Domain>,
    relay_recipients: Table<RelayRecipients>,
    sender_must_be_own: bool,
    exists: Exists,
    found: Mutex<HashMap<String, Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Policy {
    pub(crate) fn new(config: &Config, tables: Tables, exists: Exists) -> Self {
        let Tables {
            aliases,
            access,
            senders,
            relay_recipients,
        } = tables;
        Self {
            router: Router::new(config),
            networks: config.my_networks.clone(),
            delimiter: config.recipient_delimiter,
            aliases: Mutex::new((aliases, Instant::now())),
            access,
            senders,
            relay_domains: config.relay_domains.clone(),
            relay_recipients,
            sender_must_be_own: config.sender_must_be_own,
            exists,
            found: Mutex::default(),
        }
    }

    /// Whether this client may relay by where it is. A client on a pipe or a Unix socket is a user
    /// of this host.
    pub(crate) fn is_trusted(&self, ip: Option<IpAddr>) -> bool {
        ip.is_none_or(|ip| self.networks.iter().any(|network| network.contains(ip)))
    }

    /// What the access table says of a recipient.
    pub(crate) fn access(&self, question: Question<'_>) -> access::Answer {
        self.access.get().ask(question)
    }

    /// Whether who logged in so may be the sender: the table says so, or it is the address of that
    /// user, or of an alias for him.
    pub(crate) fn may_send_as(&self, login: &str, address: &Address) -> bool {
        if !self.sender_must_be_own {
            return true;
        }
        let senders = self.senders.get();
        if let Some(gives) = senders.gives(address, login) {
            return gives;
        }
        let Mailer::Local { user } = self.router.route(address).mailer else {
            return senders.gives_all(login);
        };
        let names = self.names(&user);
        names.iter().any(|name| name.eq_ignore_ascii_case(login)) || self.is_for(&names, login)
    }

    /// Whether one of the names is an alias that has this user among others.
    fn is_for(&self, names: &[String], login: &str) -> bool {
        let aliases = self.aliases();
        let mut targets = names
            .iter()
            .filter_map(|name| aliases.0.lookup(&LocalPart::new(name).ok()?))
            .flatten();
        targets.any(|target| match target {
            Target::Local(user) | Target::User(user) => user.as_str().eq_ignore_ascii_case(login),
            Target::Address(address) => match self.router.route(address).mailer {
                Mailer::Local { user } => user.as_str().eq_ignore_ascii_case(login),
                _ => false,
            },
            _ => false,
        })
    }

    /// The verdict, where it can be had without a look-up that may block.
    pub(crate) fn judge(&self, address: &Address, may_relay: bool) -> Option<Verdict> {
        Some(match self.router.route(address).mailer {
            Mailer::Local { user } if self.is_known(&user) => Verdict::Local(address.clone()),
            Mailer::Local { .. } => return None,
            Mailer::Discard => Verdict::Discard(address.clone()),
            Mailer::Relay { .. } if self.is_relay_domain(address.domain()) => {
                let recipients = self.relay_recipients.get();
                match recipients.has(address, self.delimiter) {
                    true => Verdict::Relay(address.clone()),
                    false => Verdict::Refuse(reply::NO_SUCH_USER.about(&address.to_string())),
                }
            }
            Mailer::Relay { .. } if may_relay => Verdict::Relay(address.clone()),
            Mailer::Error { status, text } if may_relay => {
                Verdict::Refuse(Reply::refusal(status, &text).about(&address.to_string()))
            }
            // What the rules say of other hosts is no business of strangers.
            Mailer::Relay { .. } | Mailer::Error { .. } => {
                Verdict::Refuse(reply::NO_RELAY.about(&address.to_string()))
            }
        })
    }

    /// Whether we are another MX of this domain, or the way to it.
    fn is_relay_domain(&self, domain: &Domain) -> bool {
        self.relay_domains.iter().any(|of| domain.is_within(of))
    }

    /// The verdict on an address of ours that [`Policy::judge`] did not know, at once or later.
    pub(crate) fn look_up(
        self: &Arc<Self>,
        address: Address,
        then: impl FnOnce(Verdict) + Send + 'static,
    ) {
        let names = self.names(address.local());
        self.ask(names.into_iter(), address, Box::new(then));
    }

    /// The verdict on an address that the operator wants to have mail. Blocks, up to
    /// [`ROUTE_TIME`].
    pub(crate) fn judge_and_wait(self: &Arc<Self>, address: Address) -> Verdict {
        if let Some(verdict) = self.judge(&address, true) {
            return verdict;
        }
        let (told, verdict) = mpsc::sync_channel(1);
        self.look_up(address, move |found| {
            // Nobody listens any more? Then he has said so himself.
            drop(told.try_send(found));
        });
        let verdict = verdict.recv_timeout(ROUTE_TIME);
        verdict.unwrap_or(Verdict::Refuse(reply::TRY_LATER))
    }

    fn ask(self: &Arc<Self>, mut names: IntoIter<String>, address: Address, then: Then) {
        let Some(name) = names.next() else {
            return then(Verdict::Refuse(
                reply::NO_SUCH_USER.about(&address.to_string()),
            ));
        };
        let policy = Arc::clone(self);
        let asked = name.clone();
        let told = move |answer: Result<bool, Fail>| match answer {
            Ok(false) => policy.ask(names, address, then),
            Ok(true) => {
                policy.remember(name);
                then(Verdict::Local(address));
            }
            Err(fail) => {
                log::error!("look up {address}: {fail}");
                then(Verdict::Refuse(
                    reply::TRY_LATER.about(&address.to_string()),
                ));
            }
        };
        (self.exists)(asked, Box::new(told));
    }

    fn remember(&self, name: String) {
        let mut found = lock(&self.found);
        if found.len() >= REMEMBERED {
            found.clear();
        }
        found.insert(name, Instant::now());
    }

    /// Under which names a user may be known: the whole local-part, and without its detail; as it
    /// is written and in lower case, as deliver(8) looks him up.
    fn names(&self, local: &LocalPart) -> Vec<String> {
        let mut names = vec![local.as_str().to_owned(), local.fold()];
        if let Some((user, Some(_))) = self.delimiter.map(|d| local.split_detail(d)) {
            names.extend([user.as_str().to_owned(), user.fold()]);
        }
        names.dedup();
        names
    }

    fn is_known(&self, user: &LocalPart) -> bool {
        // RFC 5321 4.5.1: there is always a postmaster.
        let names = self.names(user);
        if names.iter().any(|name| name == "postmaster") {
            return true;
        }
        let aliases = self.aliases();
        let is_alias = |name: &String| {
            LocalPart::new(name).is_ok_and(|name| aliases.0.lookup(&name).is_some())
        };
        if names.iter().any(is_alias) {
            return true;
        }
        drop(aliases);
        let found = lock(&self.found);
        names
            .iter()
            .any(|name| found.get(name).is_some_and(|at| at.elapsed() < REMEMBER))
    }

    /// The aliases, read again where their files changed.
    fn aliases(&self) -> MutexGuard<'_, (Aliases, Instant)> {
        let mut aliases = lock(&self.aliases);
        if aliases.1.elapsed() >= LOOK_EVERY {
            aliases.1 = Instant::now();
            match aliases.0.refresh() {
                None => {}
                Some(Ok(warnings)) => {
                    log::info!("aliases read again");
                    for warning in warnings {
                        log::warn!("{warning}");
                    }
                }
                Some(Err(fail)) => log::error!("{fail}; the aliases read before stay in use"),
            }
        }
        aliases
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Root, Status};
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn policy(config: &str, exists: Exists) -> Arc<Policy> {
        let config = Config::parse(&Root::new("/r"), config, Path::new("yubin.def")).unwrap();
        let (aliases, _) = Aliases::from_text("aliases", b"staff: ann, bob\n");
        let dir = tempfile::tempdir().unwrap();
        let (access, senders) = (dir.path().join("access"), dir.path().join("senders"));
        std::fs::write(&senders, "sales@shop.example ann\n* bob\n").unwrap();
        let tables = Tables {
            aliases,
            access: Table::open(&access, Access::parse).unwrap(),
            senders: Table::open(&senders, Senders::parse).unwrap(),
            relay_recipients: Table::open(&dir.path().join("none"), RelayRecipients::parse)
                .unwrap(),
        };
        Arc::new(Policy::new(&config, tables, exists))
    }

    fn users() -> Exists {
        Box::new(|name, told| {
            told(match name.as_str() {
                "ann" | "x+y" | "Carl" => Ok(true),
                "down" => Err(Fail::temp("directory is away")),
                _ => Ok(false),
            });
        })
    }

    fn verdict(policy: &Arc<Policy>, address: &Address, may_relay: bool) -> Verdict {
        if let Some(verdict) = policy.judge(address, may_relay) {
            return verdict;
        }
        let (send, receive) = mpsc::channel();
        policy.look_up(address.clone(), move |verdict| send.send(verdict).unwrap());
        receive.recv().unwrap()
    }

    const CONFIG: &str = "MY_NAME=mx\nMY_DOMAIN=example.org\nMY_ALIAS=example.org\n\
                          MY_NETWORKS='127.0.0.0/8 192.0.2.0/24'\n";

    #[test]
    fn ours_or_relay_or_neither() {
        let policy = policy(CONFIG, users());
        let table = [
            ("ann@example.org", false, "local"),
            ("ANN@MX.example.org", false, "local"),
            ("ann+detail@example.org", false, "local"),
            ("x+y@example.org", false, "local"),
            ("Carl@example.org", false, "local"),
            ("Carl+x@example.org", false, "local"),
            ("carl@example.org", false, "550"),
            ("staff@example.org", false, "local"),
            ("Postmaster@mx.example.org", false, "local"),
            ("nobody@example.org", false, "550"),
            ("nobody@example.org", true, "550"),
            ("down@example.org", false, "451"),
            ("x@elsewhere.net", false, "550"),
            ("x@elsewhere.net", true, "relay"),
            ("x%elsewhere.net@example.org", true, "550"),
            ("elsewhere.net!x@example.org", true, "550"),
            ("\"x@elsewhere.net\"@example.org", true, "550"),
            ("x@[203.0.113.1]", false, "550"),
            ("x@[203.0.113.1]", true, "relay"),
        ];
        for (address, may_relay, want) in table {
            let address = Address::parse(address).unwrap();
            let got = match verdict(&policy, &address, may_relay) {
                Verdict::Local(_) => "local".to_owned(),
                Verdict::Relay(_) => "relay".to_owned(),
                Verdict::Discard(_) => "discard".to_owned(),
                Verdict::Refuse(reply) => reply.code().to_string(),
            };
            assert_eq!(got, want, "{address} {may_relay}");
        }
    }

    #[test]
    fn strangers_are_not_told_of_our_routes() {
        let config = format!("{CONFIG}DIRECT_DELIVER_DOMAINS=none\n");
        let policy = policy(&config, users());
        let address = Address::parse("x@elsewhere.net").unwrap();
        let no_relay = Verdict::Refuse(reply::NO_RELAY.about("x@elsewhere.net"));
        assert_eq!(policy.judge(&address, false), Some(no_relay));
        let Some(Verdict::Refuse(reply)) = policy.judge(&address, true) else {
            panic!()
        };
        assert!(
            reply.to_string().contains(&Status::NO_HOST.to_string()),
            "{reply}"
        );
    }

    #[test]
    fn a_user_is_looked_up_once() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let policy = policy(
            CONFIG,
            Box::new(move |_, told| {
                count.fetch_add(1, Ordering::Relaxed);
                told(Ok(true));
            }),
        );
        let address = Address::parse("ann@example.org").unwrap();
        assert_eq!(policy.judge(&address, false), None);
        verdict(&policy, &address, false);
        assert!(policy.judge(&address, false).is_some());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_sender_belongs_to_the_login() {
        let policy = policy(CONFIG, users());
        for (login, address, want) in [
            ("ann", "ann@example.org", true),
            ("ann", "Ann+list@MX.example.org", true),
            ("ANN", "ann@example.org", true),
            ("ann", "bob@example.org", false),
            ("ann", "staff@example.org", true),
            ("carl", "staff@example.org", false),
            ("ann", "sales@shop.example", true),
            ("bob", "sales@shop.example", false),
            ("ann", "x@elsewhere.net", false),
            ("bob", "x@elsewhere.net", true),
            ("bob", "ann@example.org", false),
        ] {
            let address = Address::parse(address).unwrap();
            assert_eq!(
                policy.may_send_as(login, &address),
                want,
                "{login} {address}"
            );
        }
        let config = format!("{CONFIG}SENDER_MUST_BE_OWN=no\n");
        let free = self::policy(&config, users());
        let address = Address::parse("x@elsewhere.net").unwrap();
        assert!(free.may_send_as("ann", &address));
    }

    #[test]
    fn trust_is_a_matter_of_place() {
        let policy = policy(CONFIG, users());
        for (ip, want) in [
            ("192.0.2.9", true),
            ("::ffff:192.0.2.9", true),
            ("127.0.0.1", true),
            ("192.0.3.1", false),
            ("::1", false),
        ] {
            assert_eq!(policy.is_trusted(Some(ip.parse().unwrap())), want, "{ip}");
        }
        assert!(policy.is_trusted(None));
    }
}
