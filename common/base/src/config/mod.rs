//! `yubin.def`, the one configuration file (DESIGN 7): an empty one serves a single host, twenty
//! lines serve any.
//!
//! [`Config::load`] reads and checks the whole file, so that a program which has a `Config` never
//! meets a bad value later. [`KEYS`] is the list of names, with default and meaning; yubin.def(5)
//! says the same at length. The words of CF's sendmail.def keep CF's meaning.

mod content_filter;
mod dnsbl;
mod keys;
mod milter;
mod policy;
pub mod reader;
mod resolver;
mod value;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::{Address, Domain};
use crate::fail::Fail;
use crate::filter::Filter;
use crate::root::Root;
pub use dnsbl::Dnsbl;
pub use keys::{KEYS, Key};
pub use milter::{Milter, MilterDefault, MilterSocket};
pub use policy::{PolicyService, PolicyState};
pub use resolver::Dnssec;
pub use value::{
    CheckPassword, Direct, Dmarc, LoginNeeds, Network, NextHost, PlaintextLogin, Prefixes, Rate,
};

/// Where the file stands unless `-f` names another.
pub const PATH: &str = "/etc/yubin/yubin.def";

/// The configuration in force. One field a name of the file, in the order of [`KEYS`].
#[derive(Debug, Clone)]
pub struct Config {
    // Who we are
    /// `$w`, the host's own short name.
    pub my_name: String,
    /// `$m`, the domain it is in; empty on a host without one.
    pub my_domain: String,
    /// `$j`, the name we greet with and write into Received.
    pub official_name: Domain,
    /// Further names whose mail is ours.
    pub my_alias: Vec<Domain>,
    /// What stands behind `@` in addresses that local users write without one.
    pub from_address: Domain,

    // Where mail goes
    pub direct_deliver_domains: Direct,
    pub default_relay: Option<NextHost>,
    /// Whether MX records are followed (CF's word for a sendmail that can).
    pub mx_sendmail: bool,
    pub relay_port: u16,
    pub dns_zone_file: Option<PathBuf>,
    /// In place of resolv.conf's.
    pub dns_servers: Vec<SocketAddr>,
    pub dnssec: Dnssec,
    /// Keys in place of the root's.
    pub dnssec_anchors: Option<PathBuf>,
    /// What all mail goes through first, that comes from elsewhere or from our users.
    pub content_filter: Option<Filter>,
    /// Where it comes back.
    pub reinject: Vec<SocketAddr>,
    /// From whom.
    pub reinject_from: Vec<Network>,

    // Who may send
    pub my_networks: Vec<Network>,
    /// How long a stranger waits for the SMTP greeting, a minute at most.
    pub greet_delay: Duration,
    pub client_names: bool,
    // `None` is no limit
    pub rate_connections: Option<Rate>,
    pub rate_messages: Option<Rate>,
    pub rate_recipients: Option<Rate>,
    pub rate_auth_failures: Option<Rate>,
    pub rate_exempt: Vec<Network>,
    pub rate_prefixes: Prefixes,
    /// The first one.
    pub penalty: Duration,
    /// The longest, a minute at most.
    pub tarpit: Duration,
    pub account_rate_messages: Option<Rate>,
    pub account_rate_recipients: Option<Rate>,
    pub greylist: bool,
    pub greylist_delay: Duration,
    pub greylist_keep: Duration,
    pub greylist_trust: usize,
    pub dnsbl: Vec<Dnsbl>,
    pub dnsbl_limit: i32,
    pub sender_must_be_own: bool,
    pub senders_file: PathBuf,
    pub access_file: PathBuf,
    /// With the domains below them.
    pub relay_domains: Vec<Domain>,
    /// Whose waiting mail may be asked for (ETRN).
    pub etrn_domains: Vec<Domain>,
    pub relay_recipients: PathBuf,
    /// In the order in which they are asked.
    pub milters: Vec<Milter>,
    pub header_checks: Option<PathBuf>,
    pub body_checks: Option<PathBuf>,
    pub authentication_results: bool,
    pub dmarc: Dmarc,
    /// With those below them.
    pub arc_trust: Vec<Domain>,
    pub always_bcc: Vec<Address>,
    pub bcc_file: Option<PathBuf>,
    pub policy_services: Vec<PolicyService>,
    pub policy_states: Vec<PolicyState>,
    pub dkim_keys: PathBuf,
    pub plaintext_login: PlaintextLogin,

    // Listeners; port 0 is off
    pub listen: Vec<IpAddr>,
    pub smtp_port: u16,
    pub submission_port: u16,
    pub smtps_port: u16,
    pub pop3_port: u16,
    pub pop3s_port: u16,
    pub imap_port: u16,
    pub imaps_port: u16,
    pub max_connections: usize,
    pub max_connections_per_client: usize,
    pub tls_cert_file: PathBuf,
    pub tls_key_file: PathBuf,
    pub tls_cert_dir: PathBuf,
    pub tls_client_ca_file: Option<PathBuf>,
    /// What the operator wants of the hosts that we send to.
    pub tls_policy: PathBuf,
    pub mta_sts: bool,
    pub mta_sts_port: u16,
    /// Our own logins at the hosts that we send to.
    pub relay_logins: PathBuf,
    pub relay_login_needs: LoginNeeds,
    /// Who tells domains about their TLS; nobody without.
    pub tls_report_from: Option<Address>,
    /// Authorities of servers, in place of the system's.
    pub tls_ca_file: Option<PathBuf>,
    pub cert_users: PathBuf,
    pub proxy_from: Vec<Network>,
    pub xclient_from: Vec<Network>,

    // Limits
    /// Octets of one message.
    pub message_size_limit: u64,
    pub recipient_limit: usize,
    /// How long an SMTP client may be silent.
    pub smtp_timeout: Duration,
    pub hop_limit: usize,
    /// Octets that must stay free on the queue's disk.
    pub min_free_space: u64,

    // The queue
    /// Octets of one file of the commit log; 0 for none.
    pub commit_log: u64,
    /// The longest that a submission may ask for; zero where that is not offered.
    pub future_release: Duration,
    pub queue_lifetime: Duration,
    pub min_backoff: Duration,
    pub max_backoff: Duration,

    // Local delivery
    pub users_file: PathBuf,
    pub checkpassword: CheckPassword,
    /// Of the host, not of the root: a program like any other.
    pub oauth_check: Option<PathBuf>,
    pub alias_files: Vec<PathBuf>,
    pub recipient_delimiter: Option<char>,
    pub maildir: bool,
    pub mailbox_locks: Vec<String>,
    pub mailbox_lock_timeout: Duration,
}

impl Config {
    /// The file of this root, or `file`. A file that does not exist is an empty one, so that a
    /// host works before anybody wrote it; one that cannot be read is an error.
    pub fn load(root: &Root, file: Option<&Path>) -> Result<Self, Fail> {
        let path = file.map_or_else(|| root.path(PATH), Path::to_path_buf);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(root, &text, &path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && file.is_none() => {
                Self::parse(root, "", &path)
            }
            Err(e) => Err(Fail::config(format!("read {}: {e}", path.display()))),
        }
    }

    /// From text; `path` is for the messages, which have the form `FILE:LINE: what`.
    pub fn parse(root: &Root, text: &str, path: &Path) -> Result<Self, Fail> {
        let at =
            |line: usize, what: String| Fail::config(format!("{}:{line}: {what}", path.display()));
        let mut given = HashMap::new();
        for a in reader::read(text).map_err(|bad| at(bad.line, bad.text))? {
            let Some(key) = KEYS.iter().find(|k| k.name == a.name) else {
                let hint = reader::nearest(&a.name, KEYS.iter().map(|k| k.name)).map_or_else(
                    || "see yubin.def(5)".to_owned(),
                    |k| format!("did you mean {k}?"),
                );
                return Err(at(a.line, format!("{} is not known, {hint}", a.name)));
            };
            if let Some((first, _)) = given.insert(key.name, (a.line, a.value)) {
                return Err(at(
                    a.line,
                    format!("{} is set in line {first} already, remove one", a.name),
                ));
            }
        }
        let get = Values { given, path };
        let host = host_name();
        let (short, rest) = host.split_once('.').unwrap_or((&host, ""));
        let my_name = get.text("MY_NAME").unwrap_or_else(|| short.to_owned());
        let my_domain = get.text("MY_DOMAIN").unwrap_or_else(|| rest.to_owned());
        let official = get
            .text("OFFICIAL_NAME")
            .unwrap_or_else(|| if my_domain.is_empty() { "$w" } else { "$w.$m" }.to_owned())
            .replace("$w", &my_name)
            .replace("$m", &my_domain);
        let official_name = get.parse("OFFICIAL_NAME", &official, value::domain)?;
        let my_alias = get.list("MY_ALIAS", |a| value::alias(a, &my_domain))?;
        let from_address = match get.text("FROM_ADDRESS") {
            Some(name) => get.parse("FROM_ADDRESS", &name, value::domain)?,
            None => official_name.clone(),
        };
        let default_relay = get.optional("DEFAULT_RELAY", value::next_host)?;
        let direct = match get.text("DIRECT_DELIVER_DOMAINS") {
            Some(text) => get.parse("DIRECT_DELIVER_DOMAINS", &text, value::direct)?,
            None if default_relay.is_some() => Direct::None,
            None => Direct::All,
        };
        let relay_domains = get.list("RELAY_DOMAINS", value::domain)?;
        let etrn_domains = match get.text("ETRN_DOMAINS").as_deref() {
            None => relay_domains.clone(),
            Some("none") => Vec::new(),
            Some(_) => get.list("ETRN_DOMAINS", value::domain)?,
        };
        let port = |name| get.one(name, value::port);
        let time = |name| get.one(name, value::duration);
        let rate = |name| get.one(name, value::rate);
        let config = Self {
            my_name,
            my_domain,
            official_name,
            my_alias: my_alias.into_iter().flatten().collect(),
            from_address,
            direct_deliver_domains: direct,
            default_relay,
            mx_sendmail: get.one("MX_SENDMAIL", value::yes_no)?,
            relay_port: port("RELAY_PORT")?,
            dns_zone_file: get.optional("DNS_ZONE_FILE", |p| Ok(root.path(p)))?,
            dns_servers: get.list("DNS_SERVERS", resolver::name_server)?,
            dnssec: get.one("DNSSEC", resolver::dnssec)?,
            dnssec_anchors: get.optional("DNSSEC_ANCHORS", |p| Ok(root.path(p)))?,
            content_filter: get.optional("CONTENT_FILTER", Filter::parse)?,
            reinject: get.list("REINJECT", content_filter::address)?,
            reinject_from: get.list("REINJECT_FROM", content_filter::network)?,
            my_networks: get.list("MY_NETWORKS", value::network)?,
            greet_delay: time("GREET_DELAY")?,
            client_names: get.one("CLIENT_NAMES", value::yes_no)?,
            rate_connections: rate("RATE_CONNECTIONS")?,
            rate_messages: rate("RATE_MESSAGES")?,
            rate_recipients: rate("RATE_RECIPIENTS")?,
            rate_auth_failures: rate("RATE_AUTH_FAILURES")?,
            rate_exempt: get.list("RATE_EXEMPT", value::network)?,
            rate_prefixes: get.one("RATE_PREFIXES", value::prefixes)?,
            penalty: time("PENALTY")?,
            tarpit: time("TARPIT")?,
            account_rate_messages: rate("ACCOUNT_RATE_MESSAGES")?,
            account_rate_recipients: rate("ACCOUNT_RATE_RECIPIENTS")?,
            greylist: get.one("GREYLIST", value::yes_no)?,
            greylist_delay: time("GREYLIST_DELAY")?,
            greylist_keep: time("GREYLIST_KEEP")?,
            greylist_trust: get.one("GREYLIST_TRUST", value::count)?,
            dnsbl: get.list("DNSBL", dnsbl::dnsbl)?,
            dnsbl_limit: get.one("DNSBL_LIMIT", dnsbl::limit)?,
            sender_must_be_own: get.one("SENDER_MUST_BE_OWN", value::yes_no)?,
            senders_file: get.one("SENDERS_FILE", |p| Ok(root.path(p)))?,
            relay_domains,
            etrn_domains,
            relay_recipients: get.one("RELAY_RECIPIENTS", |p| Ok(root.path(p)))?,
            access_file: get.one("ACCESS_FILE", |p| Ok(root.path(p)))?,
            milters: get.one("MILTERS", |list| milter::milters(list, root))?,
            header_checks: get.optional("HEADER_CHECKS", |p| Ok(root.path(p)))?,
            body_checks: get.optional("BODY_CHECKS", |p| Ok(root.path(p)))?,
            authentication_results: get.one("AUTHENTICATION_RESULTS", value::yes_no)?,
            dmarc: get.one("DMARC", value::dmarc)?,
            arc_trust: get.list("ARC_TRUST", value::domain)?,
            always_bcc: get.list("ALWAYS_BCC", value::address)?,
            bcc_file: get.optional("BCC_FILE", |p| Ok(root.path(p)))?,
            policy_services: get.list("POLICY_SERVICES", |text| policy::service(text, root))?,
            policy_states: get.list("POLICY_STATES", policy::state)?,
            dkim_keys: get.one("DKIM_KEYS", |p| Ok(root.path(p)))?,
            plaintext_login: get.one("PLAINTEXT_LOGIN", value::plaintext_login)?,
            listen: get.list("LISTEN", value::ip)?,
            smtp_port: port("SMTP_PORT")?,
            submission_port: port("SUBMISSION_PORT")?,
            smtps_port: port("SMTPS_PORT")?,
            pop3_port: port("POP3_PORT")?,
            pop3s_port: port("POP3S_PORT")?,
            imap_port: port("IMAP_PORT")?,
            imaps_port: port("IMAPS_PORT")?,
            max_connections: get.one("MAX_CONNECTIONS", value::count)?,
            max_connections_per_client: get.one("MAX_CONNECTIONS_PER_CLIENT", value::count)?,
            tls_cert_file: get.one("TLS_CERT_FILE", |p| Ok(root.path(p)))?,
            tls_key_file: get.one("TLS_KEY_FILE", |p| Ok(root.path(p)))?,
            tls_cert_dir: get.one("TLS_CERT_DIR", |p| Ok(root.path(p)))?,
            tls_client_ca_file: get.optional("TLS_CLIENT_CA_FILE", |p| Ok(root.path(p)))?,
            tls_policy: get.one("TLS_POLICY", |p| Ok(root.path(p)))?,
            mta_sts: get.one("MTA_STS", value::yes_no)?,
            mta_sts_port: port("MTA_STS_PORT")?,
            relay_logins: get.one("RELAY_LOGINS", |p| Ok(root.path(p)))?,
            relay_login_needs: get.one("RELAY_LOGIN_NEEDS", value::login_needs)?,
            tls_report_from: get.optional("TLS_REPORT_FROM", value::address)?,
            tls_ca_file: get.optional("TLS_CA_FILE", |p| Ok(root.path(p)))?,
            cert_users: get.one("CERT_USERS", |p| Ok(root.path(p)))?,
            proxy_from: get.list("PROXY_FROM", value::network)?,
            xclient_from: get.list("XCLIENT_FROM", value::network)?,
            message_size_limit: get.one("MESSAGE_SIZE_LIMIT", value::size)?,
            recipient_limit: get.one("RECIPIENT_LIMIT", value::count)?,
            smtp_timeout: time("SMTP_TIMEOUT")?,
            hop_limit: get.one("HOP_LIMIT", value::count)?,
            min_free_space: get.one("MIN_FREE_SPACE", value::size)?,
            commit_log: get.one("COMMIT_LOG", value::log_size)?,
            future_release: time("FUTURE_RELEASE")?,
            queue_lifetime: time("QUEUE_LIFETIME")?,
            min_backoff: time("MIN_BACKOFF")?,
            max_backoff: time("MAX_BACKOFF")?,
            users_file: get.one("USERS_FILE", |p| Ok(root.path(p)))?,
            checkpassword: get.one("CHECKPASSWORD", value::check_password)?,
            oauth_check: get.optional("OAUTH_CHECK", |p| Ok(PathBuf::from(p)))?,
            alias_files: get.list("ALIAS_FILES", |p| Ok(root.path(p)))?,
            recipient_delimiter: get.one("RECIPIENT_DELIMITER", value::delimiter)?,
            maildir: get.one("MAILBOX_FORMAT", value::maildir)?,
            mailbox_locks: get.list("MAILBOX_LOCKS", value::lock)?,
            mailbox_lock_timeout: time("MAILBOX_LOCK_TIMEOUT")?,
        };
        for (name, time) in [
            ("GREET_DELAY", config.greet_delay),
            ("TARPIT", config.tarpit),
        ] {
            if time > Duration::from_secs(60) {
                return Err(get.bad(name, "longer than a minute: senders would give up"));
            }
        }
        if config.greylist_delay > Duration::from_secs(3600) {
            return Err(get.bad(
                "GREYLIST_DELAY",
                "longer than an hour: senders would give up",
            ));
        }
        if !config.authentication_results && matches!(config.dmarc, Dmarc::Reject | Dmarc::Hold) {
            return Err(get.bad("DMARC", "needs AUTHENTICATION_RESULTS=yes"));
        }
        content_filter::check(&config).map_err(|(name, what)| get.bad(name, what))?;
        if config.min_backoff > config.max_backoff {
            return Err(get.bad("MIN_BACKOFF", "longer than MAX_BACKOFF"));
        }
        Ok(config)
    }
}

/// The host's own name: `YUBIN_HOSTNAME`, or what gethostname(2) says, or `localhost`.
fn host_name() -> String {
    std::env::var("YUBIN_HOSTNAME")
        .ok()
        .or_else(|| nix::unistd::gethostname().ok()?.into_string().ok())
        .map(|name| name.trim_end_matches('.').to_ascii_lowercase())
        .filter(|name| Domain::parse(name).is_ok())
        .unwrap_or_else(|| "localhost".into())
}

/// What the file gave, with its lines, over the defaults.
struct Values<'a> {
    given: HashMap<&'static str, (usize, String)>,
    path: &'a Path,
}

impl Values<'_> {
    /// What the file says, or the default of [`KEYS`]; `None` where neither says anything.
    fn text(&self, name: &'static str) -> Option<String> {
        match self.given.get(name) {
            Some((_, value)) => Some(value.clone()),
            None => KEYS
                .iter()
                .find(|k| k.name == name)
                .map(|k| k.default.to_owned()),
        }
        .filter(|value| !value.is_empty())
    }

    fn one<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Fail> {
        self.parse(name, &self.text(name).unwrap_or_default(), read)
    }

    fn optional<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Fail> {
        self.text(name)
            .map(|text| self.parse(name, &text, read))
            .transpose()
    }

    /// Words divided by blanks or commas.
    fn list<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Fail> {
        self.text(name)
            .unwrap_or_default()
            .split([' ', '\t', ','])
            .filter(|word| !word.is_empty())
            .map(|word| self.parse(name, word, &read))
            .collect()
    }

    fn parse<T>(
        &self,
        name: &'static str,
        text: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Fail> {
        read(text).map_err(|what| self.bad(name, &format!("`{text}' {what}")))
    }

    fn bad(&self, name: &'static str, what: &str) -> Fail {
        let path = self.path.display();
        Fail::config(match self.given.get(name) {
            Some((line, _)) => format!("{path}:{line}: {name}: {what}"),
            None => format!("{path}: {name} is not set and its default {what}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Fail> {
        Config::parse(&Root::new("/r"), text, Path::new("yubin.def"))
    }

    #[test]
    fn an_empty_file_serves_a_host() {
        let c = parse("").unwrap();
        assert_eq!(c.smtp_port, 25);
        assert_eq!(c.direct_deliver_domains, Direct::All);
        assert_eq!(c.alias_files, [Path::new("/r/etc/aliases")]);
        assert_eq!(c.queue_lifetime, Duration::from_secs(5 * 86_400));
        assert_eq!(c.recipient_delimiter, Some('+'));
    }

    #[test]
    fn names_are_made_as_cf_makes_them() {
        let c = parse("MY_NAME=mail\nMY_DOMAIN=example.org\nMY_ALIAS='example.org www'\n").unwrap();
        assert_eq!(c.official_name.as_str(), "mail.example.org");
        let alias: Vec<_> = c.my_alias.iter().map(Domain::as_str).collect();
        assert_eq!(alias, ["example.org", "www", "www.example.org"]);
        let c = parse("MY_NAME=a\nMY_DOMAIN=b.c\nOFFICIAL_NAME='$m'\n").unwrap();
        assert_eq!(c.official_name.as_str(), "b.c");
    }

    #[test]
    fn bad_lines_say_where_and_what_instead() {
        let table = [
            (
                "MY_DOMIAN=x",
                "yubin.def:1: MY_DOMIAN is not known, did you mean MY_DOMAIN?",
            ),
            (
                "\nSMTP_PORT=70000",
                "yubin.def:2: SMTP_PORT: `70000' is no port, write 1 to 65535, or 0 for none",
            ),
            (
                "MAX_BACKOFF=soon",
                "yubin.def:1: MAX_BACKOFF: `soon' is no time, write 30s, 5m, 4h or 5d",
            ),
            (
                "MY_NAME=a\nMY_NAME=b",
                "yubin.def:2: MY_NAME is set in line 1 already, remove one",
            ),
            (
                "MIN_BACKOFF=3h",
                "yubin.def:1: MIN_BACKOFF: longer than MAX_BACKOFF",
            ),
            (
                "MAILBOX_FORMAT=mbx",
                "yubin.def:1: MAILBOX_FORMAT: `mbx' is no format, write mbox or maildir",
            ),
            ("MY_NAME='a b'", "yubin.def:1: OFFICIAL_NAME"),
        ];
        for (text, want) in table.iter().take(6) {
            assert_eq!(parse(text).unwrap_err().to_string(), *want);
        }
        assert!(parse("MY_NAME='a b'").is_err());
    }

    #[test]
    fn every_key_is_documented_once() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(!key.meaning.is_empty(), "{}", key.name);
            assert!(
                KEYS.iter().skip(i + 1).all(|k| k.name != key.name),
                "{}",
                key.name
            );
        }
    }
}
