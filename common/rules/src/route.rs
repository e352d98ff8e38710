//! One function from an address to what is done with it: [`Router::route`].
//!
//! The answer has sendmail's form, a triple of mailer, host and user. It depends on the address
//! and the configuration alone, and on this host's interfaces as they were when the configuration
//! was read: no look-up of users, no DNS. The same address always goes the same
//! way in smtpd, qrun, deliver and `sendmail -bv`, because they all ask here.

use std::fmt;
use std::net::IpAddr;

use base::config::{Config, Direct, NextHost};
use base::{Address, Domain, LocalPart, Status};

/// What is done with an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub mailer: Mailer,
    /// The address that the mailer is given.
    pub user: Address,
}

impl Route {
    /// By this host, whatever the address is.
    pub fn by(next: NextHop, user: &Address) -> Self {
        Self {
            mailer: Mailer::Relay { next },
            user: user.clone(),
        }
    }
}

/// Who takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mailer {
    /// deliver: the mail is ours. Aliases and `user+detail` are deliver's to resolve.
    Local { user: LocalPart },
    /// qrun: SMTP to another host.
    Relay { next: NextHop },
    /// Nobody: refuse it with this.
    Error { status: Status, text: String },
    /// Nobody, and nobody is told.
    Discard,
}

/// The host that a message goes to next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// The mail exchangers of a domain: RFC 5321 5.1.
    Mx { domain: Domain, port: u16 },
    /// This host, by its addresses, without a look at MX records.
    Host { name: Domain, port: u16 },
    /// This address.
    Ip { ip: IpAddr, port: u16 },
}

/// As sendmail writes a host: `example.org.` where MX records count, `[mx.example.org]` where not.
impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mx { domain, .. } => write!(f, "{domain}."),
            Self::Host { name, .. } => write!(f, "[{name}]"),
            Self::Ip { ip, .. } => write!(f, "{}", Domain::from(*ip)),
        }
    }
}

impl Mailer {
    /// The mailer's name, as sendmail.cf has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Local { .. } => "local",
            Self::Relay { .. } => "esmtp",
            Self::Error { .. } => "error",
            Self::Discard => "discard",
        }
    }
}

/// The configuration's answers, compiled once.
#[derive(Debug, Clone)]
pub struct Router {
    ours: Vec<Domain>,
    /// Whose literals are ours: RFC 5321 4.1.3.
    addresses: Vec<IpAddr>,
    /// Put behind a local-part that stands alone.
    here: Domain,
    direct: Direct,
    relay: Option<NextHop>,
    mx: bool,
    port: u16,
}

impl Router {
    pub fn new(config: &Config) -> Self {
        let mut ours = vec![config.official_name.clone()];
        let short = [config.my_name.as_str(), "localhost"];
        let long = short.map(|name| format!("{name}.{}", config.my_domain));
        ours.extend(
            short
                .iter()
                .copied()
                .chain(long.iter().map(String::as_str))
                .flat_map(Domain::parse),
        );
        ours.extend(config.my_alias.iter().cloned());
        ours.sort();
        ours.dedup();
        let mut addresses = config.listen.clone();
        if addresses.iter().any(IpAddr::is_unspecified) {
            addresses.retain(|ip| !ip.is_unspecified());
            addresses.extend(own_addresses());
        }
        Self {
            ours,
            addresses,
            here: config.from_address.clone(),
            direct: config.direct_deliver_domains.clone(),
            relay: config
                .default_relay
                .as_ref()
                .map(|relay| next_hop(relay, config.relay_port, config.mx_sendmail)),
            mx: config.mx_sendmail,
            port: config.relay_port,
        }
    }

    /// A host that the configuration names.
    pub fn host(&self, host: &NextHost) -> NextHop {
        next_hop(host, self.port, self.mx)
    }

    /// Where this address goes.
    pub fn route(&self, address: &Address) -> Route {
        let mailer = if self.is_local(address.domain()) {
            Mailer::Local {
                user: address.local().clone(),
            }
        } else if let Some(ip) = address.domain().ip() {
            Mailer::Relay {
                next: NextHop::Ip {
                    ip,
                    port: self.port,
                },
            }
        } else if self.is_direct(address.domain()) {
            let name = address.domain().clone();
            Mailer::Relay {
                next: match self.mx {
                    true => NextHop::Mx {
                        domain: name,
                        port: self.port,
                    },
                    false => NextHop::Host {
                        name,
                        port: self.port,
                    },
                },
            }
        } else if let Some(next) = &self.relay {
            Mailer::Relay { next: next.clone() }
        } else {
            Mailer::Error {
                status: Status::NO_HOST,
                text: format!(
                    "no way to {}: set DEFAULT_RELAY or DIRECT_DELIVER_DOMAINS",
                    address.domain()
                ),
            }
        };
        Route {
            mailer,
            user: address.clone(),
        }
    }

    /// Whether mail for this domain is ours to keep.
    pub fn is_local(&self, domain: &Domain) -> bool {
        match domain.ip() {
            // `::ffff:192.0.2.1` is 192.0.2.1.
            Some(ip) => self.addresses.contains(&ip.to_canonical()),
            None => self.ours.binary_search(domain).is_ok(),
        }
    }

    /// What stands behind `@` when nothing was written there.
    pub fn here(&self) -> &Domain {
        &self.here
    }

    fn is_direct(&self, domain: &Domain) -> bool {
        match &self.direct {
            Direct::All => true,
            Direct::None => false,
            Direct::Within(list) => list.iter().any(|d| domain.is_within(d)),
        }
    }
}

/// The addresses of this host's interfaces, now. Where they cannot be had, our names still tell.
pub fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .collect()
}

fn next_hop(relay: &NextHost, port: u16, mx: bool) -> NextHop {
    let port = relay.port.unwrap_or(port);
    match (relay.host.ip(), relay.mx && mx) {
        (Some(ip), _) => NextHop::Ip { ip, port },
        (None, true) => NextHop::Mx {
            domain: relay.host.clone(),
            port,
        },
        (None, false) => NextHop::Host {
            name: relay.host.clone(),
            port,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use base::Root;

    use super::*;

    fn router(def: &str) -> Router {
        let text = format!("MY_NAME=mail\nMY_DOMAIN=example.org\n{def}");
        Router::new(&Config::parse(&Root::new("/r"), &text, Path::new("yubin.def")).unwrap())
    }

    /// The route in the words of `sendmail -bv`: mailer, host, user.
    fn say(router: &Router, address: &str) -> String {
        let route = router.route(&Address::parse_in(address, router.here()).unwrap());
        match &route.mailer {
            Mailer::Local { user } => format!("local {}", user.as_str()),
            Mailer::Relay { next } => format!("esmtp {next} {}", route.user),
            Mailer::Error { status, .. } => format!("error {status}"),
            Mailer::Discard => "discard".into(),
        }
    }

    #[test]
    fn each_address_has_one_way() {
        let table = [
            ("", "ann", "local ann"),
            ("", "ann@mail.example.org", "local ann"),
            ("", "ann@MAIL", "local ann"),
            ("", "ann@localhost", "local ann"),
            ("", "ann@example.org", "esmtp example.org. ann@example.org"),
            ("MY_ALIAS='example.org www'", "ann@example.org", "local ann"),
            (
                "MY_ALIAS='example.org www'",
                "ann@www.example.org",
                "local ann",
            ),
            ("", "ann@else.where", "esmtp else.where. ann@else.where"),
            ("", "ann@[192.0.2.1]", "esmtp [192.0.2.1] ann@[192.0.2.1]"),
            ("LISTEN=192.0.2.1", "ann@[192.0.2.1]", "local ann"),
            (
                "LISTEN=0.0.0.0",
                "postmaster@[127.0.0.1]",
                "local postmaster",
            ),
            ("", "ann@[IPv6:::ffff:127.0.0.1]", "local ann"),
            (
                "LISTEN=192.0.2.1",
                "ann@[127.0.0.1]",
                "esmtp [127.0.0.1] ann@[127.0.0.1]",
            ),
            (
                "MX_SENDMAIL=no",
                "ann@else.where",
                "esmtp [else.where] ann@else.where",
            ),
            (
                "DEFAULT_RELAY=smtp:hub.net",
                "ann@else.where",
                "esmtp hub.net. ann@else.where",
            ),
            (
                "DEFAULT_RELAY=smtp:[hub.net]:587",
                "ann@else.where",
                "esmtp [hub.net] ann@else.where",
            ),
            (
                "DEFAULT_RELAY=smtp:[192.0.2.9]",
                "ann@x.y",
                "esmtp [192.0.2.9] ann@x.y",
            ),
            (
                "DIRECT_DELIVER_DOMAINS=jp\nDEFAULT_RELAY=hub.net",
                "a@x.jp",
                "esmtp x.jp. a@x.jp",
            ),
            (
                "DIRECT_DELIVER_DOMAINS=jp\nDEFAULT_RELAY=hub.net",
                "a@x.uk",
                "esmtp hub.net. a@x.uk",
            ),
            ("DIRECT_DELIVER_DOMAINS=none", "a@x.uk", "error 5.1.2"),
            ("", "\"a b%c\"@mail.example.org", "local a b%c"),
        ];
        for (def, address, want) in table {
            assert_eq!(say(&router(def), address), want, "{def} {address}");
        }
    }
}
