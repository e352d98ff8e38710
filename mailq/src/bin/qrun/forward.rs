//! XFORWARD: what a content filter is told of who brought the message here, as Postfix's XFORWARD_README
//! describes it. Pure.
//!
//! A value is xtext and cannot end its line; one that is too long or not known is `[UNAVAILABLE]`.

use std::fmt::Write as _;

use queue::{Origin, QueueId, Source};

/// The attributes, in two commands so that none is longer than 512 octets.
const NAMES: [&[&str]; 2] = [
    &["NAME", "ADDR", "PORT"],
    &["PROTO", "HELO", "IDENT", "SOURCE"],
];
/// Octets of one value.
const MAX_VALUE: usize = 255;
const UNAVAILABLE: &str = "[UNAVAILABLE]";

/// What is known, in the order of the attributes.
#[derive(Debug, Clone)]
pub(crate) struct Forward([Option<String>; 7]);

/// Which attributes a server wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wanted(u8);

impl Wanted {
    /// What stands behind XFORWARD in its reply to EHLO. Others are left out.
    pub(crate) fn read<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let known = || NAMES.concat().into_iter().enumerate();
        let bit = |word: &str| {
            let found = known().find(|(_, name)| name.eq_ignore_ascii_case(word));
            found.map_or(0, |(at, _)| 1 << at)
        };
        Self(words.map(bit).fold(0, |all, bit| all | bit))
    }

    fn has(self, at: usize) -> bool {
        u32::try_from(at).is_ok_and(|at| self.0.checked_shr(at).unwrap_or(0) & 1 == 1)
    }
}

impl Forward {
    /// `ours`: it was sent by one of our own users.
    pub(crate) fn new(id: &QueueId, origin: &Origin, ours: bool) -> Self {
        let id = Some(id.to_string());
        let source = Some(if ours { "LOCAL" } else { "REMOTE" }.to_owned());
        let Source::Network(client) = &origin.source else {
            return Self([None, None, None, None, None, id, source]);
        };
        // Mapped addresses are IPv4's; IPv6 is written as in an address literal.
        let ip = client.ip.map(|ip| match ip.to_canonical() {
            ip if ip.is_ipv4() => ip.to_string(),
            ip => format!("IPV6:{ip}"),
        });
        let protocol = match client.protocol.as_str() {
            plain @ ("SMTP" | "LMTP") => plain,
            // Which extensions were used is not told.
            _ => "ESMTP",
        };
        let helo = Some(client.helo.clone()).filter(|helo| !helo.is_empty());
        let port = client.port.map(|port| port.to_string());
        let (name, protocol) = (client.name.clone(), Some(protocol.to_owned()));
        Self([name, ip, port, protocol, helo, id, source])
    }

    /// The commands, with their ends.
    pub(crate) fn commands(&self, wanted: Wanted) -> Vec<String> {
        let mut values = self.0.iter().enumerate();
        let mut commands = Vec::new();
        for names in NAMES {
            let mut line = String::from("XFORWARD");
            for (name, (at, value)) in names.iter().zip(values.by_ref()) {
                if wanted.has(at) {
                    let value = value.as_deref().map(xtext);
                    let value = value.filter(|value| value.len() <= MAX_VALUE);
                    let value = value.as_deref().unwrap_or(UNAVAILABLE);
                    // Writing to a string cannot fail.
                    write!(line, " {name}={value}").ok();
                }
            }
            if line.contains('=') {
                commands.push(line + "\r\n");
            }
        }
        commands
    }
}

/// RFC 3461 4
fn xtext(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'!'..=b'~' if !matches!(byte, b'+' | b'=') => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => write!(out, "+{byte:02X}").unwrap_or_default(),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::Client;

    fn commands(source: Source, wanted: &str) -> Vec<String> {
        let id = QueueId::parse("4F2c1b0000BCDFGHJKLM").unwrap();
        let wanted = Wanted::read(wanted.split(' '));
        Forward::new(&id, &Origin::now(source), true).commands(wanted)
    }

    #[test]
    fn what_is_wanted_is_told_and_no_value_ends_a_line() {
        let client = Client {
            ip: Some("2001:db8::1".parse().unwrap()),
            name: Some("mx.example".into()),
            helo: "a+b=c \r\nDATA".into(),
            protocol: "ESMTPSA".into(),
            port: Some(4711),
            ..Client::default()
        };
        let all = "name ADDR PORT PROTO HELO IDENT SOURCE LOGIN";
        assert_eq!(
            commands(Source::Network(client.clone()), all),
            [
                "XFORWARD NAME=mx.example ADDR=IPV6:2001:db8::1 PORT=4711\r\n",
                "XFORWARD PROTO=ESMTP HELO=a+2Bb+3Dc+20+0D+0ADATA IDENT=4F2c1b0000BCDFGHJKLM \
                 SOURCE=LOCAL\r\n"
            ]
        );
        let few = commands(Source::Network(client), "HELO X ADDR");
        assert_eq!(few.len(), 2);
        assert_eq!(few[0], "XFORWARD ADDR=IPV6:2001:db8::1\r\n");
        let none = Client {
            ip: Some("::ffff:192.0.2.1".parse().unwrap()),
            helo: "x".repeat(256),
            protocol: "SMTP".into(),
            ..Client::default()
        };
        assert_eq!(
            commands(Source::Network(none), "NAME ADDR PROTO HELO"),
            [
                "XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1\r\n",
                "XFORWARD PROTO=SMTP HELO=[UNAVAILABLE]\r\n"
            ]
        );
        let local = commands(Source::Submission { uid: 0 }, "ADDR SOURCE");
        assert_eq!(
            local,
            [
                "XFORWARD ADDR=[UNAVAILABLE]\r\n",
                "XFORWARD SOURCE=LOCAL\r\n"
            ]
        );
        assert!(commands(Source::Submission { uid: 0 }, "").is_empty());
    }
}
