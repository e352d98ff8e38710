//! The hosts to try for a domain, in order: RFC 5321 5.1.
//!
//! Mail exchangers by preference, equal ones in random order; the domain itself where it has none
//! (implicit MX); nobody where it says so (RFC 7505). We never send to ourselves: where we are one
//! of the exchangers, we and all that are not better than us are left out. The two address families
//! take turns, so that a host whose first family is out of reach is soon tried by the other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base::{Domain, Status};

use crate::resolve::{DnsError, Mx, MxAnswer, Resolve};

/// Exchangers of a domain whose addresses are looked up.
const MAX_HOSTS: usize = 10;
/// Addresses of one of them that are of use, so that the others have their turn.
const MAX_ADDRESSES: usize = 4;
/// Targets after which no worse host is looked up.
const MAX_TARGETS: usize = 10;

/// Somebody to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The name whose address it is.
    pub host: Domain,
    pub ip: IpAddr,
}

/// Why there is nobody to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTarget {
    /// The domain takes no mail.
    NullMx,
    /// There is no such domain, or it has no address.
    NoHost(String),
    /// Its exchangers are none: this is one of them.
    NotHosts(String),
    /// We are the best of its exchangers and yet do not keep its mail.
    Loop,
    /// DNS did not say.
    Temporary(String),
}

impl NoTarget {
    /// What the sender is told, in RFC 3463's numbers; class 4 means try again.
    pub fn status(&self) -> Status {
        match self {
            Self::NullMx => Status::NULL_MX,
            Self::NoHost(_) => Status::NO_HOST,
            Self::NotHosts(_) => Status::new(5, 4, 4),
            Self::Loop => Status::LOOP,
            Self::Temporary(_) => Status::NO_DNS,
        }
    }

    /// What the sender is told in words.
    pub fn text(&self, domain: &Domain) -> String {
        match self {
            Self::NullMx => format!("{domain} does not accept mail (null MX)"),
            Self::NoHost(why) => format!("{domain}: {why}"),
            Self::NotHosts(name) => {
                format!("{domain}: its mail exchanger {name} is not the name of a host")
            }
            Self::Loop => format!("mail for {domain} loops back to myself"),
            Self::Temporary(why) => format!("looking up {domain}: {why}"),
        }
    }
}

/// Who we are, so that we do not send to ourselves.
pub trait Us {
    fn is_our_name(&self, host: &Domain) -> bool;
    fn is_our_address(&self, ip: IpAddr) -> bool;
}

/// The targets of a domain by its MX records, in the order to try; at least one.
pub fn targets(dns: &dyn Resolve, domain: &Domain, us: &dyn Us) -> Result<Vec<Target>, NoTarget> {
    if let Some(ip) = domain.ip() {
        return literal(domain, ip);
    }
    let mut hosts = match dns.mx(domain) {
        Ok(MxAnswer::Found(hosts)) => hosts,
        Ok(MxAnswer::Null) => return Err(NoTarget::NullMx),
        Ok(MxAnswer::NoHosts(name)) => return Err(NoTarget::NotHosts(name)),
        // The implicit MX. A host of our own name is nobody else's.
        Err(DnsError::NoData) => vec![Mx {
            preference: 0,
            host: domain.clone(),
        }],
        Err(DnsError::NxDomain) => return Err(NoTarget::NoHost(DnsError::NxDomain.to_string())),
        Err(DnsError::Temporary(why)) => return Err(NoTarget::Temporary(why)),
    };
    shuffle(&mut hosts);
    hosts.sort_by_key(|mx| mx.preference);
    hosts.dedup_by(|a, b| a.host == b.host);
    find(dns, hosts, us)
}

/// The targets of one host, without a look at MX records: a smarthost, whoever it is.
pub fn host_targets(dns: &dyn Resolve, host: &Domain) -> Result<Vec<Target>, NoTarget> {
    if let Some(ip) = host.ip() {
        return literal(host, ip);
    }
    find(
        dns,
        vec![Mx {
            preference: 0,
            host: host.clone(),
        }],
        &Nobody,
    )
}

fn literal(host: &Domain, ip: IpAddr) -> Result<Vec<Target>, NoTarget> {
    Ok(vec![Target {
        host: host.clone(),
        ip,
    }])
}

struct Nobody;

impl Us for Nobody {
    fn is_our_name(&self, _: &Domain) -> bool {
        false
    }

    fn is_our_address(&self, _: IpAddr) -> bool {
        false
    }
}

/// Addresses for `hosts`, which are sorted.
fn find(dns: &dyn Resolve, hosts: Vec<Mx>, us: &dyn Us) -> Result<Vec<Target>, NoTarget> {
    let mut by_preference: BTreeMap<u16, Vec<Target>> = BTreeMap::new();
    let mut ours = None;
    let mut doubt = None;
    let mut missing = None;
    for mx in hosts.into_iter().take(MAX_HOSTS) {
        let enough = by_preference.values().map(Vec::len).sum::<usize>() >= MAX_TARGETS;
        if enough && !by_preference.contains_key(&mx.preference) {
            break;
        }
        if us.is_our_name(&mx.host) {
            ours = Some(mx.preference);
            break;
        }
        match dns.addresses(&mx.host) {
            Ok(ips) if ips.iter().any(|ip| us.is_our_address(*ip)) => {
                ours = Some(mx.preference);
                break;
            }
            Ok(ips) => by_preference.entry(mx.preference).or_default().extend(
                take_turns(ips)
                    .into_iter()
                    .take(MAX_ADDRESSES)
                    .map(|ip| Target {
                        host: mx.host.clone(),
                        ip,
                    }),
            ),
            Err(DnsError::Temporary(why)) => doubt = Some(why),
            Err(e) => missing = Some(format!("{e} ({})", mx.host)),
        }
    }
    if let Some(preference) = ours {
        by_preference.retain(|p, _| *p < preference);
    }
    let list: Vec<Target> = by_preference
        .into_values()
        .flatten()
        .take(MAX_TARGETS)
        .collect();
    match (list.is_empty(), doubt, ours) {
        (false, _, _) => Ok(list),
        (true, Some(why), _) => Err(NoTarget::Temporary(why)),
        (true, None, Some(_)) => Err(NoTarget::Loop),
        (true, None, None) => Err(NoTarget::NoHost(
            missing.unwrap_or_else(|| "no address".into()),
        )),
    }
}

/// IPv6, IPv4, IPv6, ... each family in its own order.
fn take_turns(ips: Vec<IpAddr>) -> Vec<IpAddr> {
    let all = ips.len();
    let (v6, v4): (Vec<_>, Vec<_>) = ips.into_iter().partition(IpAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    (0..all)
        .flat_map(|_| [v6.next(), v4.next()])
        .flatten()
        .collect()
}

/// Random order. Where the system has no random numbers, the order of DNS must do.
fn shuffle(hosts: &mut [Mx]) {
    for last in (1..hosts.len()).rev() {
        let random = getrandom::u32().unwrap_or(0);
        let bound = u32::try_from(last).unwrap_or(u32::MAX - 1) + 1;
        hosts.swap(last, usize::try_from(random % bound).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::Zone;

    struct Here;

    impl Us for Here {
        fn is_our_name(&self, host: &Domain) -> bool {
            host.as_str() == "mail.us"
        }

        fn is_our_address(&self, ip: IpAddr) -> bool {
            ip.to_string() == "192.0.2.99"
        }
    }

    const ZONE: &str = "\
two MX 20 b
two MX 10 a
a A 192.0.2.1
a AAAA 2001:db8::1
a AAAA 2001:db8::2
b A 192.0.2.2
implicit A 192.0.2.3
null MX 0 .
dangling MX 10 nowhere
half MX 10 broken
half MX 20 b
doubt MX 10 broken
doubt MX 20 nowhere
broken FAIL
mxfail FAIL MX
mxfail A 192.0.2.4
secondary MX 10 a
secondary MX 20 mail.us
secondary MX 20 b
secondary MX 30 c
best MX 10 mail.us
best MX 20 a
byaddress MX 10 our-other-name
byaddress MX 20 a
our-other-name A 192.0.2.99
alias CNAME two
txtonly TXT x
";

    fn say(domain: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ZONE).unwrap();
        let zone = Zone::load(file.path()).unwrap();
        match targets(&zone, &Domain::parse(domain).unwrap(), &Here) {
            Ok(t) => {
                let all: Vec<_> = t.iter().map(|t| format!("{}[{}]", t.host, t.ip)).collect();
                all.join(" ")
            }
            Err(e) => e.status().to_string(),
        }
    }

    #[test]
    fn the_order_of_rfc_5321() {
        let a = "a[2001:db8::1] a[192.0.2.1] a[2001:db8::2]";
        let table = [
            ("two", format!("{a} b[192.0.2.2]")),
            ("alias", format!("{a} b[192.0.2.2]")),
            ("implicit", "implicit[192.0.2.3]".into()),
            ("[192.0.2.7]", "[192.0.2.7][192.0.2.7]".into()),
            ("null", "5.1.10".into()),
            ("nowhere", "5.1.2".into()),
            ("dangling", "5.1.2".into()),
            ("txtonly", "5.1.2".into()),
            ("half", "b[192.0.2.2]".into()),
            ("doubt", "4.4.3".into()),
            ("mxfail", "4.4.3".into()),
            ("secondary", a.into()),
            ("best", "5.4.6".into()),
            ("byaddress", "5.4.6".into()),
        ];
        for (domain, want) in table {
            assert_eq!(say(domain), want, "{domain}");
        }
    }

    #[test]
    fn equal_preferences_take_turns_at_being_first() {
        let hosts = || {
            ["a", "b", "c"]
                .map(|h| Mx {
                    preference: 10,
                    host: Domain::parse(h).unwrap(),
                })
                .to_vec()
        };
        let mut first = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut list = hosts();
            shuffle(&mut list);
            first.insert(list[0].host.to_string());
            assert_eq!(list.len(), 3);
        }
        assert_eq!(first.len(), 3);
    }

    #[test]
    fn a_smarthost_may_be_anybody_and_needs_no_mx() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hub MX 10 other\nhub A 192.0.2.99\n").unwrap();
        let zone = Zone::load(file.path()).unwrap();
        let list = host_targets(&zone, &Domain::parse("hub").unwrap()).unwrap();
        assert_eq!(list.len(), 1);
        assert!(host_targets(&zone, &Domain::parse("nobody").unwrap()).is_err());
    }
}
