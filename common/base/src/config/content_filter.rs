//! CONTENT_FILTER and REINJECT: the filter that mail goes through, and where it comes back.

use std::net::SocketAddr;

use super::{Config, Network};
use crate::filter::Filter;

/// Where a filter is listened to: `127.0.0.1:10025`, `[::1]:10025`.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let bad = || "is no address, write 127.0.0.1:10025".to_owned();
    let address: SocketAddr = text.parse().map_err(|_| bad())?;
    match address.port() {
        0 => Err(bad()),
        _ => Ok(address),
    }
}

/// Who may bring mail back: what comes from there may be relayed and is not looked into.
pub(super) fn network(text: &str) -> Result<Network, String> {
    let network = Network::parse(text)?;
    // An IPv4 network has 96 more.
    match network.prefix() {
        0 | 96 => Err("is everybody, write the address of the filter".into()),
        _ => Ok(network),
    }
}

/// A filter that is ourselves would never end. The name of the key, and what is wrong.
pub(super) fn check(config: &Config) -> Result<(), (&'static str, &'static str)> {
    let Some(filter) = &config.content_filter else {
        return Ok(());
    };
    if is_ours(filter, config) {
        let text = "is a port of ours: the mail would come back unfiltered, write the filter's";
        return Err(("CONTENT_FILTER", text));
    }
    Ok(())
}

fn is_ours(filter: &Filter, config: &Config) -> bool {
    let host = filter.host();
    let Some(ip) = host.host.ip() else {
        return false;
    };
    let port = host.port.unwrap_or(config.relay_port);
    let ports = [config.smtp_port, config.submission_port, config.smtps_port];
    let near = ip.is_loopback() || config.listen.contains(&ip);
    let back = |address: &SocketAddr| {
        address.port() == port && (address.ip() == ip || address.ip().is_unspecified())
    };
    (near && ports.contains(&port)) || config.reinject.iter().any(back)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::Config;
    use crate::root::Root;

    #[test]
    fn what_is_right_and_what_is_wrong() {
        for (text, want) in [
            ("CONTENT_FILTER=smtp:[127.0.0.1]:10024", ""),
            (
                "CONTENT_FILTER=smtp:[127.0.0.1]:10024\nREINJECT='127.0.0.1:10025 [::1]:10025'",
                "",
            ),
            ("CONTENT_FILTER=smtp:[192.0.2.1]", ""),
            ("REINJECT=127.0.0.1:10025\nREINJECT_FROM=192.0.2.0/24", ""),
            (
                "CONTENT_FILTER=lmtp:[127.0.0.1]:10024",
                "1: CONTENT_FILTER: `lmtp:",
            ),
            ("CONTENT_FILTER=smtp:[127.0.0.1]", "is a port of ours"),
            ("CONTENT_FILTER=smtp:[::1]:587", "is a port of ours"),
            (
                "CONTENT_FILTER=smtp:[127.0.0.1]:10025\nREINJECT=127.0.0.1:10025",
                "port of ours",
            ),
            (
                "CONTENT_FILTER=smtp:[127.0.0.1]:10025\nREINJECT=0.0.0.0:10025",
                "port of ours",
            ),
            (
                "REINJECT=10025",
                "1: REINJECT: `10025' is no address, write",
            ),
            ("REINJECT=127.0.0.1:0", "is no address"),
            ("REINJECT_FROM=0.0.0.0/0", "is everybody"),
            ("REINJECT_FROM=::/0", "is everybody"),
        ] {
            let parsed = Config::parse(&Root::new("/r"), text, Path::new("d"));
            match parsed {
                Ok(config) => {
                    assert_eq!(want, "", "{text}");
                    let filter = config.content_filter.map(|filter| filter.to_string());
                    assert_eq!(filter.is_some(), text.contains("CONTENT_FILTER"));
                }
                Err(fail) => {
                    let said = fail.to_string();
                    assert!(!want.is_empty() && said.contains(want), "{text}: {said}");
                }
            }
        }
    }
}
