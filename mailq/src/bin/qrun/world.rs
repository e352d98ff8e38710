//! Everything that follows from the configuration, made anew at SIGHUP.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Config, Domain, Fail, Filter, Root};
use bounce::Reporter;
use dns::{Resolve, Us};
use net::tls::Connector;
use rules::Router;

use crate::schedule::Backoff;
use crate::signing::Signing;

/// What an attempt needs besides the message.
pub(crate) struct World {
    /// Our name in EHLO and trace fields.
    pub(crate) host: Domain,
    pub(crate) router: Router,
    pub(crate) reporter: Reporter,
    pub(crate) dns: Arc<dyn Resolve>,
    pub(crate) tls: Connector,
    pub(crate) backoff: Backoff,
    pub(crate) lifetime: Duration,
    pub(crate) message_size_limit: u64,
    pub(crate) hop_limit: usize,
    pub(crate) signing: Signing,
    /// For what sendmail(1) submits.
    pub(crate) content_filter: Option<Filter>,
    smtp_port: u16,
    addresses: Vec<IpAddr>,
}

impl World {
    pub(crate) fn new(root: &Root, config: &Config) -> Result<Self, Fail> {
        Ok(Self {
            host: config.official_name.clone(),
            router: Router::new(config),
            reporter: Reporter::new(config),
            dns: dns::open(root, config)?,
            tls: Connector::new()?,
            backoff: Backoff {
                min: config.min_backoff,
                max: config.max_backoff,
            },
            lifetime: config.queue_lifetime,
            message_size_limit: config.message_size_limit,
            hop_limit: config.hop_limit,
            signing: Signing::open(config)?,
            content_filter: config.content_filter.clone(),
            smtp_port: config.smtp_port,
            addresses: rules::own_addresses(),
        })
    }

    /// We, as seen by who connects to `port`.
    pub(crate) fn us(&self, port: u16) -> Ourselves<'_> {
        Ourselves { world: self, port }
    }
}

/// Whether a host is this one: by its name, or by an address where our own smtpd listens.
pub(crate) struct Ourselves<'a> {
    world: &'a World,
    port: u16,
}

impl Us for Ourselves<'_> {
    fn is_our_name(&self, host: &Domain) -> bool {
        self.world.router.is_local(host)
    }

    fn is_our_address(&self, ip: IpAddr) -> bool {
        // `::ffff:127.0.0.1` is loopback too.
        let ip = ip.to_canonical();
        let ours = ip.is_loopback() || ip.is_unspecified() || self.world.addresses.contains(&ip);
        ours && self.port == self.world.smtp_port
    }
}
