//! The client's name: what its address is called, believed only where the name leads back to the
//! address (RFC 8601 3). Whoever has an address may call it anything; only the name's owner can make it
//! lead back.

use std::net::IpAddr;

use base::Domain;
use dns::{DnsError, Resolve};

use crate::results;

/// Names that are tried; the first good one counts.
const MAX_NAMES: usize = 10;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Iprev {
    /// It leads back.
    Pass(Domain),
    /// It has names, and none of them leads back.
    Fail,
    /// Nobody knows now.
    TempError,
    /// It has no name.
    PermError,
}

impl Iprev {
    /// The name that may be believed.
    pub fn name(&self) -> Option<&Domain> {
        match self {
            Self::Pass(name) => Some(name),
            Self::Fail | Self::TempError | Self::PermError => None,
        }
    }

    /// As Authentication-Results has it.
    pub fn result(&self) -> results::Iprev {
        match self {
            Self::Pass(_) => results::Iprev::Pass,
            Self::Fail => results::Iprev::Fail,
            Self::TempError => results::Iprev::TempError,
            Self::PermError => results::Iprev::PermError,
        }
    }
}

/// Looks a client's name up, with at most 11 questions. `late` is asked before each of them whether
/// there is no more time.
pub fn check(dns: &dyn Resolve, ip: IpAddr, late: &dyn Fn() -> bool) -> Iprev {
    let ip = ip.to_canonical();
    let names = match dns.ptr(ip) {
        Ok(names) => names,
        Err(e) if e.is_temporary() => return Iprev::TempError,
        Err(_) => return Iprev::PermError,
    };
    let mut nobody_knows = false;
    for name in names.into_iter().take(MAX_NAMES) {
        if late() {
            return Iprev::TempError;
        }
        match back(dns, &name, ip) {
            Ok(true) => return Iprev::Pass(name),
            Ok(false) => {}
            Err(e) => nobody_knows |= e.is_temporary(),
        }
    }
    if nobody_knows {
        Iprev::TempError
    } else {
        Iprev::Fail
    }
}

/// Only addresses of the same family are asked for.
fn back(dns: &dyn Resolve, name: &Domain, ip: IpAddr) -> Result<bool, DnsError> {
    Ok(match ip {
        IpAddr::V4(ip) => dns.ipv4(name)?.contains(&ip),
        IpAddr::V6(ip) => dns.ipv6(name)?.contains(&ip),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dns::Zone;

    fn zone() -> (tempfile::TempDir, Zone) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zone");
        let many: String = (0..11)
            .map(|n| format!("9.2.0.192.in-addr.arpa. IN PTR n{n}.example.\n"))
            .collect();
        std::fs::write(
            &path,
            format!(
                "1.2.0.192.in-addr.arpa. IN PTR mx.example.\nmx.example. IN A 192.0.2.1\n\
                 mx.example. IN AAAA 2001:db8::1\n\
                 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. IN PTR \
                 mx.example.\n\
                 2.2.0.192.in-addr.arpa. IN PTR mx.example.\n\
                 3.2.0.192.in-addr.arpa. IN PTR broken.example.\nbroken.example. IN FAIL\n\
                 3.2.0.192.in-addr.arpa. IN PTR mx.example.\n\
                 4.2.0.192.in-addr.arpa. IN FAIL\n\
                 5.2.0.192.in-addr.arpa. IN PTR other.example.\n\
                 5.2.0.192.in-addr.arpa. IN PTR five.example.\nfive.example. IN A 192.0.2.5\n\
                 {many}n10.example. IN A 192.0.2.9\n"
            ),
        )
        .unwrap();
        (dir, Zone::load(&path).unwrap())
    }

    #[test]
    fn a_name_counts_where_it_leads_back() {
        let (_dir, zone) = zone();
        let pass = |name: &str| Iprev::Pass(Domain::parse(name).unwrap());
        for (ip, want) in [
            ("192.0.2.1", pass("mx.example")),
            ("::ffff:192.0.2.1", pass("mx.example")),
            ("2001:db8::1", pass("mx.example")),
            ("192.0.2.2", Iprev::Fail),
            ("192.0.2.3", Iprev::TempError),
            ("192.0.2.4", Iprev::TempError),
            ("192.0.2.5", pass("five.example")),
            ("192.0.2.6", Iprev::PermError),
            // The eleventh is not tried.
            ("192.0.2.9", Iprev::Fail),
        ] {
            assert_eq!(check(&zone, ip.parse().unwrap(), &|| false), want, "{ip}");
        }
        let late = check(&zone, "192.0.2.1".parse().unwrap(), &|| true);
        assert_eq!(late, Iprev::TempError);
    }
}
