//! Whether a sender's domain vouches for a client whom greylisting would put off: by SPF (RFC 7208), and
//! not in the way that it vouches for everybody.
//!
//! It asks DNS and so takes its time: nobody who must not wait may call it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Domain, ReversePath};
use dns::Resolve;
use mailauth::spf::{self, Question, Verdict};

/// For all of it. Who cannot be vouched for in time is put off, as without.
const TIME: Duration = Duration::from_secs(10);

/// Addresses from which nobody sends (RFC 5737, RFC 3849): who vouches for them does so for everybody, by
/// `+all` or a network that has no end.
const NOBODY: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(203, 0, 113, 254),
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1),
);

/// Who is asked.
#[derive(Clone)]
pub(crate) struct Vouching {
    /// Our own name.
    pub(crate) name: Domain,
    pub(crate) dns: Arc<dyn Resolve>,
}

/// A client, and in whose name it sends.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) ip: IpAddr,
    pub(crate) helo: String,
    pub(crate) from: ReversePath,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

impl Vouching {
    /// Blocks. A null reverse-path has no domain.
    pub(crate) fn vouches(&self, client: &Client) -> bool {
        let began = Instant::now();
        let ip = client.ip.to_canonical();
        let nobody = match ip {
            IpAddr::V4(_) => NOBODY.0.into(),
            IpAddr::V6(_) => NOBODY.1.into(),
        };
        let passes = |ip| {
            let question = Question {
                ip,
                helo: &client.helo,
                reverse_path: &client.from,
                receiver: &self.name,
                now: client.now,
            };
            let late = || began.elapsed() > TIME;
            spf::check(&*self.dns, question, &late).verdict == Verdict::Pass
        };
        client.from.address().is_some() && passes(ip) && !passes(nobody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Config, Root};
    use std::path::Path;

    #[test]
    fn a_domain_vouches_for_its_own_and_not_for_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let zone = "big.test. IN TXT \"v=spf1 ip4:198.51.100.0/24 ip6:2001:db8:1::/48 -all\"\n\
                    all.test. IN TXT \"v=spf1 +all\"\n\
                    wide.test. IN TXT \"v=spf1 ip4:128.0.0.0/1 -all\"\n\
                    soft.test. IN TXT \"v=spf1 ~all\"\n";
        std::fs::write(dir.path().join("zone"), zone).unwrap();
        let config = Config::parse(&root, "DNS_ZONE_FILE=/zone\n", Path::new("t")).unwrap();
        let vouching = Vouching {
            name: "mx.example".parse().unwrap(),
            dns: dns::open(&root, &config).unwrap(),
        };
        for (ip, from, want) in [
            ("198.51.100.7", "a@big.test", true),
            ("::ffff:198.51.100.7", "a@big.test", true),
            ("2001:db8:1::7", "a@big.test", true),
            ("192.0.2.7", "a@big.test", false),
            ("198.51.100.7", "a@all.test", false),
            ("198.51.100.7", "a@wide.test", false),
            ("198.51.100.7", "a@soft.test", false),
            ("198.51.100.7", "a@none.test", false),
            ("198.51.100.7", "", false),
        ] {
            let from = match from {
                "" => ReversePath::Null,
                from => ReversePath::Address(from.parse().unwrap()),
            };
            let client = Client {
                ip: ip.parse().unwrap(),
                helo: "big.test".into(),
                from,
                now: 0,
            };
            assert_eq!(vouching.vouches(&client), want, "{client:?}");
        }
    }
}
