//! What can be asked, and the answers there are.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::Domain;

use crate::proven::{Place, Proven, ProvenError, State, Tlsa};

/// Somebody who answers. All look-ups block, for a bounded time; names are absolute.
pub trait Resolve: Send + Sync {
    /// The mail exchangers of a domain, as DNS gives them, in no order.
    fn mx(&self, domain: &Domain) -> Result<MxAnswer, DnsError>;

    /// The addresses of a host, IPv6 and IPv4, never empty.
    fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, DnsError>;

    /// The IPv4 addresses of a host, never empty.
    fn ipv4(&self, host: &Domain) -> Result<Vec<Ipv4Addr>, DnsError>;

    /// The IPv6 addresses of a host, never empty.
    fn ipv6(&self, host: &Domain) -> Result<Vec<Ipv6Addr>, DnsError>;

    /// The names that an address is said to have, never empty. They may be anybody's.
    fn ptr(&self, ip: IpAddr) -> Result<Vec<Domain>, DnsError>;

    /// The TXT records of a name, the strings of each joined (RFC 7208 3.3), never empty.
    fn txt(&self, name: &Domain) -> Result<Vec<Vec<u8>>, DnsError>;

    // The same with the state of the answer. Who cannot tell says insecure.

    /// The mail exchangers of a domain.
    fn proven_mx(&self, domain: &Domain) -> Result<Proven<MxAnswer>, ProvenError> {
        Ok(Proven::insecure(self.mx(domain)?))
    }

    /// That a host has addresses, and where.
    fn place(&self, host: &Domain) -> Result<Proven<Place>, ProvenError> {
        self.addresses(host)?;
        Ok(Proven::insecure(Place {
            alias: None,
            first: State::Insecure,
        }))
    }

    /// The TLSA records of a name that has its prefix, `_25._tcp.mx.example.org`; never empty.
    fn tlsa(&self, _name: &Domain) -> Result<Proven<Vec<Tlsa>>, ProvenError> {
        Err(ProvenError::None)
    }
}

/// The name below in-addr.arpa or ip6.arpa that an address's names stand at (RFC 1035 3.5, RFC 3596
/// 2.5), without a dot at the end.
pub(crate) fn reverse(ip: IpAddr) -> String {
    let zone = match ip.to_canonical() {
        IpAddr::V4(_) => "in-addr.arpa",
        IpAddr::V6(_) => "ip6.arpa",
    };
    below(ip, zone)
}

/// The name that a list of addresses in DNS has for this one: RFC 5782 2.1 and 2.4. `None` where it
/// would be too long for a name.
pub fn listed(ip: IpAddr, zone: &Domain) -> Option<Domain> {
    Domain::parse(&below(ip, zone.as_str())).ok()
}

/// An address's octets or hexadecimal digits, backwards, below a zone.
fn below(ip: IpAddr, zone: &str) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.{zone}")
        }
        IpAddr::V6(ip) => {
            let digits = format!("{:032x}", ip.to_bits());
            let reversed = digits.chars().rev().map(|digit| format!("{digit}."));
            format!("{}{zone}", reversed.collect::<String>())
        }
    }
}

/// What a domain says about its mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MxAnswer {
    /// At least one.
    Found(Vec<Mx>),
    /// `MX 0 .`: this domain takes no mail (RFC 7505).
    Null,
    /// It has exchangers, and none of them is the name of a host; this is one. So there is no
    /// implicit one either (RFC 5321 5.1).
    NoHosts(String),
}

/// One mail exchanger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    pub preference: u16,
    pub host: Domain,
}

/// No answer, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsError {
    /// There is no such name.
    NxDomain,
    /// There is such a name, without a record of this kind.
    NoData,
    /// Nobody knows now. The text says why.
    Temporary(String),
}

impl DnsError {
    /// Whether asking again may help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary(_))
    }
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NxDomain => f.write_str("host not found"),
            Self::NoData => f.write_str("no data of requested type"),
            Self::Temporary(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for DnsError {}
