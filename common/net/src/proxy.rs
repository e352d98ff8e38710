//! The header that a proxy puts before a connection, so that the server knows whose it is: the PROXY
//! protocol, versions 1 and 2, as HAProxy's proxy-protocol.txt describes it.
//!
//! Pure: from bytes to what they say. A header has a bound, and anything that is none is known as such
//! as early as that can be known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Octets of a header. Addresses take 52; the rest is for what proxies add (TLS, unique ids), which
/// nobody here asks for.
pub(crate) const MAX_HEADER: usize = 4096;
/// Octets of one of version 1, with its CRLF.
const MAX_V1: usize = 107;
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What stands at the start of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Not enough to tell.
    Partial,
    /// No header.
    Bad,
    /// A header of so many octets.
    Header(usize, Said),
}

/// What the proxy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// The connection is its own, to see whether we are well.
    Local,
    /// It does not know whose it is, or knows it by something else than IP addresses.
    Unknown,
    Proxied {
        source: SocketAddr,
        destination: SocketAddr,
    },
}

pub(crate) fn read(bytes: &[u8]) -> Start {
    let begins = |with: &[u8]| {
        let both = bytes.len().min(with.len());
        bytes.get(..both) == with.get(..both)
    };
    if begins(V1) {
        read_v1(bytes)
    } else if begins(V2) {
        read_v2(bytes)
    } else {
        Start::Bad
    }
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 56324 25 CRLF`
fn read_v1(bytes: &[u8]) -> Start {
    let head = bytes.get(..MAX_V1).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', head) else {
        return match head.len() {
            MAX_V1 => Start::Bad,
            _ => Start::Partial,
        };
    };
    let line = head.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let words = line
        .and_then(|line| std::str::from_utf8(line).ok())
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let said = match words.as_deref() {
        Some(["PROXY", "UNKNOWN", ..]) => Some(Said::Unknown),
        Some(["PROXY", "TCP4", from, to, from_port, to_port]) => {
            v1_addresses::<Ipv4Addr>(from, to, from_port, to_port)
        }
        Some(["PROXY", "TCP6", from, to, from_port, to_port]) => {
            v1_addresses::<Ipv6Addr>(from, to, from_port, to_port)
        }
        _ => None,
    };
    match said {
        Some(said) => Start::Header(end + 1, said),
        None => Start::Bad,
    }
}

fn v1_addresses<T>(from: &str, to: &str, from_port: &str, to_port: &str) -> Option<Said>
where
    T: std::str::FromStr,
    IpAddr: From<T>,
{
    let address = |ip: &str, port: &str| {
        let ip: IpAddr = ip.parse::<T>().ok()?.into();
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits)?;
        Some(SocketAddr::new(ip, port))
    };
    Some(Said::Proxied {
        source: address(from, from_port)?,
        destination: address(to, to_port)?,
    })
}

/// Signature, version and command, family and protocol, length, addresses, anything else.
fn read_v2(bytes: &[u8]) -> Start {
    let Some([command, family, high, low]) = bytes.get(V2.len()..).and_then(|b| b.first_chunk())
    else {
        return Start::Partial;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let whole = V2.len() + 4 + length;
    if whole > MAX_HEADER || command >> 4 != 2 {
        return Start::Bad;
    }
    let Some(addresses) = bytes.get(V2.len() + 4..whole) else {
        return Start::Partial;
    };
    let said = match (command & 0xf, *family) {
        (0, _) => Some(Said::Local),
        (1, 0x11) => v2_addresses::<4>(addresses),
        (1, 0x21) => v2_addresses::<16>(addresses),
        // Of no family, over UDP, from a Unix socket.
        (1, 0x00..=0x02 | 0x10 | 0x12 | 0x20 | 0x22 | 0x30..=0x32) => Some(Said::Unknown),
        _ => None,
    };
    match said {
        Some(said) => Start::Header(whole, said),
        None => Start::Bad,
    }
}

/// Two addresses of so many octets, then two ports.
fn v2_addresses<const N: usize>(bytes: &[u8]) -> Option<Said>
where
    IpAddr: From<[u8; N]>,
{
    let (from, rest) = bytes.split_first_chunk::<N>()?;
    let (to, rest) = rest.split_first_chunk::<N>()?;
    let (from_port, rest) = rest.split_first_chunk::<2>()?;
    let to_port = rest.first_chunk::<2>()?;
    let address = |ip: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port))
    };
    Some(Said::Proxied {
        source: address(from, from_port),
        destination: address(to, to_port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, addresses].concat()
    }

    fn say(bytes: &[u8]) -> String {
        match read(bytes) {
            Start::Header(
                length,
                Said::Proxied {
                    source,
                    destination,
                },
            ) => {
                format!("{length} {source} {destination}")
            }
            Start::Header(length, said) => format!("{length} {said:?}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn version_1() {
        let long = format!("PROXY UNKNOWN {}", "f".repeat(200));
        let table = [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.9 56324 25\r\nEHLO x",
                "44 192.0.2.1:56324 198.51.100.9:25",
            ),
            (
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
                "44 [2001:db8::1]:1 [2001:db8::2]:65535",
            ),
            ("PROXY UNKNOWN\r\n", "15 Unknown"),
            ("PROXY UNKNOWN ffff::1 x 1 2\r\n", "29 Unknown"),
            ("", "Partial"),
            ("PRO", "Partial"),
            ("PROXY TCP4 192.0.2.1", "Partial"),
            ("PROXY TCP4 192.0.2.1 198.51.100.9 1 2\r", "Partial"),
            ("PROXY TCP4 192.0.2.1 198.51.100.9 1 2\n", "Bad"),
            ("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", "Bad"),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", "Bad"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", "Bad"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", "Bad"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "Bad"),
            ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", "Bad"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", "Bad"),
            ("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", "Bad"),
            ("PROXYTCP4", "Bad"),
            ("EHLO x\r\n", "Bad"),
            (&long, "Bad"),
        ];
        for (text, wanted) in table {
            assert_eq!(say(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn version_2() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 9, 0x12, 0x34, 0, 25];
        let mut v6 = [0; 36];
        v6[0..2].copy_from_slice(&[0x20, 1]);
        v6[31] = 1;
        v6[35] = 110;
        let more = [v4.as_slice(), &[0x04, 0, 1, 0]].concat();
        let table = [
            (v2(0x21, 0x11, &v4), "28 192.0.2.1:4660 198.51.100.9:25"),
            (v2(0x21, 0x11, &more), "32 192.0.2.1:4660 198.51.100.9:25"),
            (v2(0x21, 0x21, &v6), "52 [2001::]:0 [::1]:110"),
            (v2(0x20, 0, &[]), "16 Local"),
            (v2(0x20, 0x11, &v4), "28 Local"),
            (v2(0x21, 0x31, &[0; 216]), "232 Unknown"),
            (v2(0x21, 0, &[]), "16 Unknown"),
            (v2(0x21, 0x11, &v4[..11]), "Bad"),
            (v2(0x21, 0x21, &v6[..35]), "Bad"),
            (v2(0x11, 0x11, &v4), "Bad"),
            (v2(0x22, 0x11, &v4), "Bad"),
            (v2(0x21, 0x41, &v4), "Bad"),
            (v2(0x20, 0, &[0; MAX_HEADER - 16]), "4096 Local"),
            (v2(0x20, 0, &[0; MAX_HEADER - 15]), "Bad"),
            (v2(0x21, 0x11, &v4)[..27].to_vec(), "Partial"),
            (v2(0x21, 0x11, &v4)[..3].to_vec(), "Partial"),
            (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), "Bad"),
        ];
        for (bytes, wanted) in table {
            assert_eq!(say(&bytes), wanted, "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        /// What is a header with so many octets is Partial with fewer and the same with more.
        #[test]
        fn a_header_is_known_when_it_is_whole(
            source: [u8; 4], destination: [u8; 4], ports: (u16, u16), behind: Vec<u8>, second: bool,
        ) {
            let (from, to) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
            let header = match second {
                true => {
                    let ports = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                    v2(0x21, 0x11, &[&source[..], &destination, &ports].concat())
                }
                false => format!("PROXY TCP4 {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes(),
            };
            let wanted = Start::Header(header.len(), Said::Proxied {
                source: SocketAddr::new(from.into(), ports.0),
                destination: SocketAddr::new(to.into(), ports.1),
            });
            for end in 0..header.len() {
                prop_assert_eq!(read(&header[..end]), Start::Partial);
            }
            prop_assert_eq!(read(&[header, behind].concat()), wanted);
        }

        /// Anything at all ends, and never asks for more than the bound.
        #[test]
        fn anything_has_an_answer(which in 0..3usize, rest: Vec<u8>) {
            let start: &[u8] = [&b""[..], V1, V2][which];
            let bytes = [start, &rest].concat();
            match read(&bytes) {
                Start::Header(length, _) => prop_assert!(length <= bytes.len().min(MAX_HEADER)),
                Start::Partial => prop_assert!(bytes.len() < MAX_HEADER),
                Start::Bad => {}
            }
        }
    }
}
