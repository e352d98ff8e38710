//! How many connections there may be: in all, and from one client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Counts connections. Loopback and local peers count towards the whole only.
#[derive(Debug)]
pub(crate) struct Caps {
    most: usize,
    most_of_one: usize,
    all: usize,
    of_one: HashMap<IpAddr, usize>,
}

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Process,
    Client,
}

impl Caps {
    pub(crate) fn new(most: usize, most_of_one: usize) -> Self {
        Self {
            most,
            most_of_one,
            all: 0,
            of_one: HashMap::new(),
        }
    }

    /// Counts one more, or says why not.
    pub(crate) fn enter(&mut self, ip: Option<IpAddr>) -> Result<(), Full> {
        if self.all >= self.most {
            return Err(Full::Process);
        }
        if let Some(client) = ip.and_then(client) {
            let count = self.of_one.entry(client).or_default();
            if *count >= self.most_of_one {
                return Err(Full::Client);
            }
            *count = count.saturating_add(1);
        }
        self.all = self.all.saturating_add(1);
        Ok(())
    }

    /// One that entered has left.
    pub(crate) fn leave(&mut self, ip: Option<IpAddr>) {
        self.all = self.all.saturating_sub(1);
        if let Some(client) = ip.and_then(client)
            && let Some(count) = self.of_one.get_mut(&client)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_one.remove(&client);
            }
        }
    }
}

/// Whom we take for one client: an IPv4 address, or an IPv6 /64, which is what one customer gets.
fn client(ip: IpAddr) -> Option<IpAddr> {
    if ip.is_loopback() {
        return None;
    }
    Some(match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_all_and_each() {
        let ip = |s: &str| Some(s.parse::<IpAddr>().unwrap());
        let mut caps = Caps::new(4, 2);
        assert_eq!(caps.enter(ip("2001:db8::1")), Ok(()));
        assert_eq!(caps.enter(ip("2001:db8::2")), Ok(()));
        assert_eq!(caps.enter(ip("2001:db8::3")), Err(Full::Client));
        assert_eq!(caps.enter(ip("127.0.0.1")), Ok(()));
        assert_eq!(caps.enter(None), Ok(()));
        assert_eq!(caps.enter(ip("192.0.2.1")), Err(Full::Process));
        caps.leave(ip("2001:db8::1"));
        assert_eq!(caps.enter(ip("2001:db8::3")), Ok(()));
        for leaver in [ip("2001:db8::1"), ip("2001:db8::3"), ip("127.0.0.1"), None] {
            caps.leave(leaver);
        }
        assert!(caps.of_one.is_empty());
        assert_eq!(caps.all, 0);
    }
}
