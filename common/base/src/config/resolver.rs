//! DNS_SERVERS and DNSSEC: whom DNS's answers come from, and whether they are validated.

use std::net::{IpAddr, SocketAddr};

/// Whether signatures in DNS are checked, for who asks for proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dnssec {
    /// Where the name servers pass them on.
    Auto,
    /// Always: where they are dropped on the way, nothing is proven and mail waits.
    Yes,
    No,
}

pub(super) fn dnssec(text: &str) -> Result<Dnssec, String> {
    match text {
        "auto" => Ok(Dnssec::Auto),
        "yes" => Ok(Dnssec::Yes),
        "no" => Ok(Dnssec::No),
        _ => Err("is neither auto, yes nor no".into()),
    }
}

/// `127.0.0.1`, `::1`, `127.0.0.1:5353`, `[::1]:5353`
pub(super) fn name_server(text: &str) -> Result<SocketAddr, String> {
    let ip = text.trim_start_matches('[').trim_end_matches(']');
    ip.parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, 53))
        .or_else(|_| text.parse())
        .map_err(|_| "is no name server, write 127.0.0.1, 127.0.0.1:5353 or [::1]:5353".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_have_addresses() {
        for (text, want) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[::1]", "[::1]:53"),
            ("127.0.0.1:5353", "127.0.0.1:5353"),
            ("[::1]:5353", "[::1]:5353"),
        ] {
            assert_eq!(name_server(text).unwrap().to_string(), want);
        }
        for bad in ["ns.example.org", "127.0.0.1:x", ""] {
            assert!(name_server(bad).is_err(), "{bad}");
        }
        assert!(dnssec("true").is_err());
    }
}
