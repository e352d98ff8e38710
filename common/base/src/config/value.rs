//! The values of yubin.def: each reader takes the text and says what to write where it is wrong.
//! Its message follows the quoted text: `` `70000' is no port, ... ``.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::address::{Address, Domain};

/// DIRECT_DELIVER_DOMAINS: whom we deliver to by MX ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Direct {
    All,
    None,
    Within(Vec<Domain>),
}

/// A host that takes mail: `smtp:relay.example.org`, `smtp:[relay.example.org]:587`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NextHost {
    pub host: Domain,
    pub port: Option<u16>,
    /// Whether its MX records are looked up: not when it stands in brackets.
    pub mx: bool,
}

impl NextHost {
    /// The error says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        next_host(text)
    }
}

/// PLAINTEXT_LOGIN: where a password may travel without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaintextLogin {
    Yes,
    No,
    Loopback,
}

/// CHECKPASSWORD: who says whether a password is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckPassword {
    /// What is stored of the users; PAM for Unix users.
    Default,
    Pam,
    /// A checkpassword program, with its arguments.
    Program(Vec<String>),
}

/// RELAY_LOGIN_NEEDS: what a host must give before it gets a secret of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginNeeds {
    /// A certificate, or another proof of its name.
    Proof,
    Tls,
    Nothing,
}

/// DMARC: what is done with mail whose author's domain does not vouch for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dmarc {
    /// It is not asked.
    No,
    /// The result is written into the message.
    Results,
    /// And the message is refused where the domain wants that.
    Reject,
    /// And it is held where the domain wants it in quarantine.
    Hold,
}

/// RATE_...: so many in such a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU32,
    pub per: Duration,
}

/// RATE_PREFIXES: which addresses are one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    v4: u32,
    v6: u32,
}

impl Prefixes {
    /// The network's own address.
    pub fn network(self, ip: IpAddr) -> IpAddr {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - self.v4.min(32)).unwrap_or(0);
                Ipv4Addr::from_bits(ip.to_bits() & mask).into()
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - self.v6.min(128)).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & mask).into()
            }
        }
    }
}

/// Addresses with a common prefix: `192.0.2.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    mask: u128,
}

impl Network {
    /// `192.0.2.0/24`, `2001:db8::/32`, or one address; the error says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        network(text)
    }

    /// How many of its bits are common to its addresses, of 128: an IPv4 network has 96 more than it
    /// is written with.
    pub fn prefix(&self) -> u32 {
        self.mask.count_ones()
    }

    /// Whether `ip` is one of them. IPv4 in IPv6's mapped form counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        mapped(ip) & self.mask == self.bits
    }
}

/// Every address as 128 bits, IPv4 as `::ffff:a.b.c.d`.
fn mapped(ip: IpAddr) -> u128 {
    u128::from(match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    })
}

pub(super) fn login_needs(text: &str) -> Result<LoginNeeds, String> {
    match text {
        "proof" => Ok(LoginNeeds::Proof),
        "tls" => Ok(LoginNeeds::Tls),
        "nothing" => Ok(LoginNeeds::Nothing),
        _ => Err("is not what a host must give, write proof, tls or nothing".into()),
    }
}

pub(super) fn check_password(text: &str) -> Result<CheckPassword, String> {
    match text {
        "" => Ok(CheckPassword::Default),
        "pam" => Ok(CheckPassword::Pam),
        _ if text.starts_with('/') => Ok(CheckPassword::Program(
            text.split_ascii_whitespace().map(str::to_owned).collect(),
        )),
        _ => Err("checks no passwords, write pam, or the absolute path of a program".into()),
    }
}

pub(super) fn network(text: &str) -> Result<Network, String> {
    let bad = || "is no network, write 192.0.2.0/24 or 2001:db8::/32".to_owned();
    let (address, length) = match text.split_once('/') {
        Some((a, l)) => (a, Some(l.parse::<u32>().map_err(|_| bad())?)),
        None => (text, None),
    };
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let (bits, base) = match address.parse::<IpAddr>().map_err(|_| bad())? {
        ip @ IpAddr::V4(_) => (mapped(ip), 32),
        ip @ IpAddr::V6(_) => (mapped(ip), 128),
    };
    let length = length.unwrap_or(base);
    if length > base {
        return Err(bad());
    }
    let mask =
        u128::MAX.checked_shl(base - length).unwrap_or(0) | if base == 32 { !0 << 32 } else { 0 };
    if bits & !mask != 0 {
        return Err(format!(
            "has bits beyond its prefix length {length}, write the network's own address"
        ));
    }
    Ok(Network { bits, mask })
}

pub(super) fn domain(text: &str) -> Result<Domain, String> {
    Domain::parse(text).map_err(|_| "is no host name, write mail.example.org".into())
}

pub(super) fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|e| format!("is no address: {e}"))
}

/// CF: a short name is also meant with our domain behind it.
pub(super) fn alias(text: &str, my_domain: &str) -> Result<Vec<Domain>, String> {
    let mut names = vec![domain(text)?];
    if !text.contains('.') && !my_domain.is_empty() {
        names.push(domain(&format!("{text}.{my_domain}"))?);
    }
    Ok(names)
}

pub(super) fn direct(text: &str) -> Result<Direct, String> {
    match text {
        "all" => Ok(Direct::All),
        "none" => Ok(Direct::None),
        list => list
            .split([' ', '\t', ','])
            .filter(|w| !w.is_empty())
            .map(|w| {
                Domain::parse(w)
                    .map_err(|_| "is neither all, none nor a list of domains".to_owned())
            })
            .collect::<Result<_, _>>()
            .map(Direct::Within),
    }
}

pub(super) fn next_host(text: &str) -> Result<NextHost, String> {
    let bad =
        || "is no relay, write smtp:relay.example.org or smtp:[relay.example.org]:587".to_owned();
    let rest = ["smtp:", "esmtp:", "relay:"]
        .iter()
        .find_map(|m| text.strip_prefix(m))
        .unwrap_or(text);
    let (name, port, mx) = if let Some(inner) = rest.strip_prefix('[') {
        let (name, after) = inner.split_once(']').ok_or_else(bad)?;
        let port = match after.strip_prefix(':') {
            Some(p) => Some(port(p)?),
            None if after.is_empty() => None,
            None => return Err(bad()),
        };
        (name, port, false)
    } else {
        match rest.split_once(':') {
            Some((name, p)) => (name, Some(port(p)?), true),
            None => (rest, None, true),
        }
    };
    let host = match name.parse::<IpAddr>() {
        Ok(ip) => Domain::from(ip),
        Err(_) => Domain::parse(name).map_err(|_| bad())?,
    };
    Ok(NextHost {
        mx: mx && host.ip().is_none(),
        host,
        port,
    })
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "is no port, write 1 to 65535, or 0 for none".into())
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| "is no number, write 1 or more".into())
}

pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        "*" => Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        _ => text
            .parse()
            .map_err(|_| "is no IP address, write 127.0.0.1 or ::1".into()),
    }
}

/// `52428800`, `51200K`, `50M`, `1G`
pub(super) fn size(text: &str) -> Result<u64, String> {
    let bad = || "is no size, write 52428800, 51200K, 50M or 1G".to_owned();
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (text.get(..at), 1 << 10),
        Some((at, 'm' | 'M')) => (text.get(..at), 1 << 20),
        Some((at, 'g' | 'G')) => (text.get(..at), 1 << 30),
        _ => (Some(text), 1),
    };
    let number: u64 = digits.and_then(|d| d.parse().ok()).ok_or_else(bad)?;
    number.checked_mul(unit).ok_or_else(bad)
}

/// Of a file of the commit log: 0, or what holds more than one message and less than a disk.
pub(super) fn log_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        0 => Ok(0),
        size if (64 << 10..=1 << 30).contains(&size) => Ok(size),
        _ => Err("is not between 64K and 1G, and not 0".into()),
    }
}

/// `30s`, `5m`, `4h`, `5d`, `1w`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "is no time, write 30s, 5m, 4h or 5d".to_owned();
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 's')) => (text.get(..at), 1),
        Some((at, 'm')) => (text.get(..at), 60),
        Some((at, 'h')) => (text.get(..at), 3600),
        Some((at, 'd')) => (text.get(..at), 86_400),
        Some((at, 'w')) => (text.get(..at), 7 * 86_400),
        _ => (Some(text), 1),
    };
    // Nobody waits ten years, and sums with it must not overflow.
    let number: u64 = digits.and_then(|d| d.parse().ok()).ok_or_else(bad)?;
    let seconds = number
        .checked_mul(unit)
        .filter(|s| *s <= 3650 * 86_400)
        .ok_or_else(bad)?;
    Ok(Duration::from_secs(seconds))
}

/// `32 64`: IPv4's and IPv6's.
pub(super) fn prefixes(text: &str) -> Result<Prefixes, String> {
    let mut words = text.split_ascii_whitespace().map(str::parse);
    match (words.next(), words.next(), words.next()) {
        (Some(Ok(v4 @ 8..=32)), Some(Ok(v6 @ 16..=128)), None) => Ok(Prefixes { v4, v6 }),
        _ => Err("is no pair of prefix lengths, write '32 64'".into()),
    }
}

/// `600/1m`, `50/10s`; `0` and `none` are no limit.
pub(super) fn rate(text: &str) -> Result<Option<Rate>, String> {
    let bad = || "is no rate, write 600/1m, 5000/1d, or none".to_owned();
    if matches!(text, "0" | "none") {
        return Ok(None);
    }
    let (count, per) = text.split_once('/').ok_or_else(bad)?;
    let per = duration(per).map_err(|_| bad())?;
    let count = count.parse::<u32>().map_err(|_| bad())?;
    let count = NonZeroU32::new(count).filter(|_| !per.is_zero());
    count.map(|count| Some(Rate { count, per })).ok_or_else(bad)
}

pub(super) fn yes_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("is neither yes nor no".into()),
    }
}

pub(super) fn plaintext_login(text: &str) -> Result<PlaintextLogin, String> {
    match text {
        "yes" => Ok(PlaintextLogin::Yes),
        "no" => Ok(PlaintextLogin::No),
        "loopback" => Ok(PlaintextLogin::Loopback),
        _ => Err("is neither yes, no nor loopback".into()),
    }
}

pub(super) fn dmarc(text: &str) -> Result<Dmarc, String> {
    match text {
        "no" => Ok(Dmarc::No),
        "results" => Ok(Dmarc::Results),
        "reject" => Ok(Dmarc::Reject),
        "hold" => Ok(Dmarc::Hold),
        _ => Err("is neither no, results, reject nor hold".into()),
    }
}

pub(super) fn delimiter(text: &str) -> Result<Option<char>, String> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (None, _) => Ok(None),
        (Some(c @ ('+' | '-' | '=' | '_' | '.' | '#')), None) => Ok(Some(c)),
        _ => Err("is no delimiter, write one of + - = _ . #".into()),
    }
}

pub(super) fn maildir(text: &str) -> Result<bool, String> {
    match text {
        "mbox" => Ok(false),
        "maildir" => Ok(true),
        _ => Err("is no format, write mbox or maildir".into()),
    }
}

pub(super) fn lock(text: &str) -> Result<String, String> {
    match text {
        "fcntl" | "dotlock" | "flock" => Ok(text.into()),
        _ => Err("is no lock, write fcntl, dotlock or flock".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        let n = network("127.0.0.0/8").unwrap();
        assert!(n.contains("127.1.2.3".parse().unwrap()));
        assert!(n.contains("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!n.contains("128.0.0.1".parse().unwrap()));
        assert!(!n.contains("::1".parse().unwrap()));
        assert!(
            network("[::1]/128")
                .unwrap()
                .contains("::1".parse().unwrap())
        );
        assert!(
            network("0.0.0.0/0")
                .unwrap()
                .contains("192.0.2.1".parse().unwrap())
        );
        assert!(
            !network("0.0.0.0/0")
                .unwrap()
                .contains("2001:db8::1".parse().unwrap())
        );
        assert!(
            network("::/0")
                .unwrap()
                .contains("2001:db8::1".parse().unwrap())
        );
        for bad in ["", "x", "10.0.0.1/8", "10.0.0.0/33", "::/129", "10/8"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn relays_are_written_as_sendmail_and_postfix_write_them() {
        let table = [
            ("smtp:a.b", ("a.b", None, true)),
            ("a.b:587", ("a.b", Some(587), true)),
            ("relay:[a.b]:587", ("a.b", Some(587), false)),
            ("[192.0.2.1]", ("[192.0.2.1]", None, false)),
            ("[2001:db8::1]:25", ("[ipv6:2001:db8::1]", Some(25), false)),
        ];
        for (text, (host, port, mx)) in table {
            let got = next_host(text).unwrap();
            assert_eq!(
                (got.host.as_str(), got.port, got.mx),
                (host, port, mx),
                "{text}"
            );
        }
        for bad in ["", "smtp:", "[a.b", "[a.b]x", "a b", "a:b:c"] {
            assert!(next_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_so_many_in_such_a_time() {
        let of = |count, seconds| {
            Some(Rate {
                count: NonZeroU32::new(count).unwrap(),
                per: Duration::from_secs(seconds),
            })
        };
        assert_eq!(rate("600/1m"), Ok(of(600, 60)));
        assert_eq!(rate("1/30"), Ok(of(1, 30)));
        assert_eq!(rate("0"), Ok(None));
        assert_eq!(rate("none"), Ok(None));
        for bad in [
            "", "600", "0/1m", "1/0s", "1/", "/1m", "-1/1m", "1/1y", "a/1m",
        ] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_network_has_one_address() {
        let network = |text, ip: &str| {
            let prefixes = prefixes(text).unwrap();
            prefixes.network(ip.parse().unwrap()).to_string()
        };
        assert_eq!(network("32 64", "192.0.2.9"), "192.0.2.9");
        assert_eq!(network("24 64", "::ffff:192.0.2.9"), "192.0.2.0");
        assert_eq!(network("32 64", "2001:db8:1:2:3::9"), "2001:db8:1:2::");
        assert_eq!(network("32 48", "2001:db8:1:2:3::9"), "2001:db8:1::");
        assert_eq!(network("32 128", "2001:db8::9"), "2001:db8::9");
        for bad in ["", "32", "32 64 1", "0 64", "33 64", "32 129", "a b"] {
            assert!(prefixes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(size("50M"), Ok(50 << 20));
        assert_eq!(size("7"), Ok(7));
        assert_eq!(log_size("0"), Ok(0));
        assert_eq!(log_size("64K"), Ok(64 << 10));
        assert!(log_size("63K").is_err() && log_size("2G").is_err());
        assert!(size("99999999999G").is_err());
        assert_eq!(duration("5d"), Ok(Duration::from_secs(432_000)));
        assert!(duration("999999w").is_err());
        assert!(duration("-1s").is_err());
    }
}
