//! Who is asked: the name servers of DNS_SERVERS or resolv.conf, and whether they let us validate.
//!
//! A name server between us and the world may drop signatures; then everything that is signed would
//! look forged. So with DNSSEC=auto the root is asked for first: where its own signature does not
//! come through, answers count as insecure, the log says so once, and it is tried again later. Who
//! is sure of his name servers writes DNSSEC=yes, and nobody on the way there can turn it off.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base::config::Dnssec;
use base::{Config, Fail, Root};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;

use super::Resolvers;
use super::validator::Validator;
use crate::proven::ProvenError;

/// How long one name server has for one question.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it is believed that signatures come through.
const BELIEVED: Duration = Duration::from_secs(3600);
/// And that they do not.
const DOUBTED: Duration = Duration::from_secs(600);

/// The name servers, and the resolvers made from them.
pub(super) struct Servers {
    from: Source,
    anchors: Arc<TrustAnchors>,
    /// Whether anything is ever validated.
    validates: bool,
    stamp: Option<SystemTime>,
    made: Option<Resolvers>,
}

enum Source {
    /// resolv.conf
    File(PathBuf),
    /// DNS_SERVERS
    List(Vec<SocketAddr>),
}

impl Servers {
    pub(super) fn new(root: &Root, config: &Config) -> Result<Self, Fail> {
        let own = root.path("/etc/resolv.conf");
        let from = match (config.dns_servers.is_empty(), own.exists()) {
            (false, _) => Source::List(config.dns_servers.clone()),
            (true, true) => Source::File(own),
            (true, false) => Source::File(PathBuf::from("/etc/resolv.conf")),
        };
        Ok(Self {
            from,
            anchors: Arc::new(anchors(config.dnssec_anchors.as_deref())?),
            validates: config.dnssec != Dnssec::No,
            stamp: None,
            made: None,
        })
    }

    /// Each is made when it is first wanted.
    pub(super) fn resolvers(&mut self, validates: bool) -> io::Result<Resolvers> {
        if let Source::File(path) = &self.from {
            let modified = fs::metadata(path).and_then(|m| m.modified()).ok();
            if self.stamp != modified {
                self.stamp = modified;
                self.made = None;
            }
        }
        let validates = validates && self.validates;
        match &self.made {
            Some(made) if made.validator.is_some() || !validates => return Ok(made.clone()),
            _ => (),
        }
        let (config, mut options) = self.read()?;
        options.timeout = SERVER_TIMEOUT;
        let plain = match &self.made {
            Some(made) => made.plain.clone(),
            None => {
                TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default())
                    .with_options(options.clone())
                    .build()
                    .map_err(io::Error::other)?
            }
        };
        let validator = match validates {
            true => {
                let servers = config.name_servers().to_vec();
                Some(Validator::new(servers, options, Arc::clone(&self.anchors))?)
            }
            false => None,
        };
        Ok(self.made.insert(Resolvers { plain, validator }).clone())
    }

    fn read(&self) -> io::Result<(ResolverConfig, ResolverOpts)> {
        Ok(match &self.from {
            Source::File(path) => {
                let at = |e: String| io::Error::other(format!("{}: {e}", path.display()));
                let text = fs::read(path).map_err(|e| at(e.to_string()))?;
                parse_resolv_conf(text).map_err(|e| at(e.to_string()))?
            }
            Source::List(servers) => (listed(servers), ResolverOpts::default()),
        })
    }
}

/// RFC 4035 5: where every chain of signatures ends; the root's keys are built in.
fn anchors(file: Option<&Path>) -> Result<TrustAnchors, Fail> {
    let Some(file) = file else {
        return Ok(TrustAnchors::default());
    };
    let bad = |what: String| {
        let file = file.display();
        Fail::config(format!("DNSSEC_ANCHORS: {file}: {what}"))
    };
    let anchors = TrustAnchors::from_file(file).map_err(|e| bad(e.to_string()))?;
    match anchors.is_empty() {
        true => Err(bad(
            "no key of the root, write `. IN DNSKEY 257 3 ...'".into()
        )),
        false => Ok(anchors),
    }
}

fn listed(servers: &[SocketAddr]) -> ResolverConfig {
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        let at_port = |mut connection: ConnectionConfig| {
            connection.port = server.port();
            connection
        };
        NameServerConfig::new(server.ip(), true, connections.map(at_port).into())
    });
    ResolverConfig::from_parts(None, Vec::new(), servers.collect())
}

/// Whether signatures come through.
#[derive(Debug)]
pub(super) struct Validation {
    wanted: Dnssec,
    /// What was found out, and until when it holds.
    known: tokio::sync::Mutex<Option<(bool, Instant)>>,
}

impl Validation {
    pub(super) fn new(wanted: Dnssec) -> Self {
        Self {
            wanted,
            known: tokio::sync::Mutex::new(None),
        }
    }

    /// Asks the root where that is not known.
    pub(super) async fn is_possible(&self, validator: &Validator) -> Result<bool, ProvenError> {
        if self.wanted != Dnssec::Auto {
            return Ok(self.wanted == Dnssec::Yes);
        }
        let mut known = self.known.lock().await;
        let before = match *known {
            Some((is_possible, until)) if Instant::now() < until => return Ok(is_possible),
            Some((is_possible, _)) => Some(is_possible),
            None => None,
        };
        let is_possible = match validator.lookup(Name::root(), RecordType::SOA).await {
            Ok(answer) => answer.is_secure(),
            Err(ProvenError::Bogus(_) | ProvenError::None) => false,
            // Nobody answers: that says nothing about signatures.
            Err(e @ ProvenError::Temporary(_)) => return Err(e),
        };
        match (before, is_possible) {
            (None | Some(true), false) => log::warn!(
                "DNSSEC: the name servers do not pass on the root's signatures, or the clock is wrong; DANE is not used. Ask a resolver that does (DNS_SERVERS), or write DNSSEC=no"
            ),
            (Some(false), true) => log::info!("DNSSEC: answers are validated again"),
            _ => (),
        }
        let holds = match is_possible {
            true => BELIEVED,
            false => DOUBTED,
        };
        *known = Some((is_possible, Instant::now() + holds));
        Ok(is_possible)
    }
}
