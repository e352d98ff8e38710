//! MILTERS: which mail filters are asked, in the form of Postfix's smtpd_milters.

use std::path::PathBuf;
use std::time::Duration;

use super::value;
use crate::address::Domain;
use crate::root::Root;

/// A mail filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Milter {
    /// For the log: as it is written in the file, unless it has a name there.
    pub name: String,
    pub socket: MilterSocket,
    /// What is done where it is of no use.
    pub default: MilterDefault,
    pub connect_timeout: Duration,
    /// For an answer to all but the end of a message.
    pub command_timeout: Duration,
    /// For an answer to the end of a message.
    pub content_timeout: Duration,
    /// Whether a connection to it is kept for the next client.
    pub keep: bool,
}

/// Where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MilterSocket {
    Unix(PathBuf),
    /// A host name or an IP address, and a port.
    Inet(String, u16),
}

/// What happens to mail while a milter does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MilterDefault {
    Accept,
    TempFail,
    Reject,
    Quarantine,
}

/// The longest that a milter may be waited for, and with the end of a message: smtpd gives an answer
/// within a minute, and the client waits ten for the last one (RFC 5321 4.5.3.2.6).
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_CONTENT_TIMEOUT: Duration = Duration::from_mins(10);
/// More milters than anybody has.
const MOST: usize = 16;

/// The whole list: `unix:/path`, `inet:host:port`, `{ unix:/path, name=value, ... }`.
pub(super) fn milters(text: &str, root: &Root) -> Result<Vec<Milter>, String> {
    let mut milters = Vec::new();
    let mut rest = text.trim_start_matches(BETWEEN);
    while !rest.is_empty() {
        let (words, after) = match rest.strip_prefix('{') {
            Some(inner) => inner
                .split_once('}')
                .ok_or_else(|| "has a `{' without its `}'".to_owned())?,
            None => rest.split_at(rest.find(BETWEEN).unwrap_or(rest.len())),
        };
        milters.push(one(words, root)?);
        rest = after.trim_start_matches(BETWEEN);
    }
    if milters.len() > MOST {
        return Err(format!("has more than {MOST} milters"));
    }
    Ok(milters)
}

const BETWEEN: [char; 3] = [' ', '\t', ','];

fn one(words: &str, root: &Root) -> Result<Milter, String> {
    let mut words = words.split(BETWEEN).filter(|word| !word.is_empty());
    let place = words.next().unwrap_or_default();
    let mut milter = Milter {
        name: place.to_owned(),
        socket: socket(place, root)?,
        default: MilterDefault::TempFail,
        connect_timeout: Duration::from_secs(5),
        command_timeout: Duration::from_secs(30),
        content_timeout: Duration::from_mins(5),
        keep: false,
    };
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "name" if !value.is_empty() => value.clone_into(&mut milter.name),
            "default_action" => milter.default = default(value)?,
            "connect_timeout" => milter.connect_timeout = timeout(value, MAX_TIMEOUT)?,
            "command_timeout" => milter.command_timeout = timeout(value, MAX_TIMEOUT)?,
            "keep" => {
                milter.keep =
                    value::yes_no(value).map_err(|what| format!("has `{word}', {what}"))?;
            }
            "content_timeout" => milter.content_timeout = timeout(value, MAX_CONTENT_TIMEOUT)?,
            _ => {
                return Err(format!(
                    "has `{word}', which is none of name=, default_action=, connect_timeout=, \
                     command_timeout=, content_timeout= and keep="
                ));
            }
        }
    }
    Ok(milter)
}

/// Also in the forms that milters are told theirs: `local:/path`, `inet:port@host`.
fn socket(place: &str, root: &Root) -> Result<MilterSocket, String> {
    let bad = || format!("has `{place}', write unix:/path or inet:host:port");
    let (kind, place) = place.split_once(':').ok_or_else(bad)?;
    match kind {
        "unix" | "local" if place.starts_with('/') => Ok(MilterSocket::Unix(root.path(place))),
        "inet" | "inet6" => {
            let (host, port) = match place.split_once('@') {
                Some((port, host)) => (host, port),
                None => place.rsplit_once(':').ok_or_else(bad)?,
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let is_address = host.parse::<std::net::IpAddr>().is_ok();
            if !is_address && Domain::parse(host).is_err() {
                return Err(bad());
            }
            let port = value::port(port).ok().filter(|port| *port != 0);
            Ok(MilterSocket::Inet(host.to_owned(), port.ok_or_else(bad)?))
        }
        _ => Err(bad()),
    }
}

fn default(text: &str) -> Result<MilterDefault, String> {
    match text {
        "accept" => Ok(MilterDefault::Accept),
        "tempfail" => Ok(MilterDefault::TempFail),
        "reject" => Ok(MilterDefault::Reject),
        "quarantine" => Ok(MilterDefault::Quarantine),
        _ => Err(format!(
            "has default_action={text}, write accept, tempfail, reject or quarantine"
        )),
    }
}

fn timeout(text: &str, most: Duration) -> Result<Duration, String> {
    let time = value::duration(text).map_err(|what| format!("has `{text}', which {what}"))?;
    if time.is_zero() || time > most {
        let most = most.as_secs();
        return Err(format!("has `{text}', write a time from 1s to {most}s"));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Milter>, String> {
        milters(text, &Root::new("/r"))
    }

    #[test]
    fn a_list_as_postfix_has_it() {
        let got = read(
            "unix:/run/a.sock, { inet:[::1]:11332, default_action=accept connect_timeout=2s,\
             command_timeout=3s, content_timeout=1m name=rspamd keep=yes } inet:8891@localhost",
        )
        .unwrap();
        let [a, b, c] = got.as_slice() else {
            panic!("{got:?}")
        };
        assert_eq!(a.socket, MilterSocket::Unix("/r/run/a.sock".into()));
        assert_eq!(a.name, "unix:/run/a.sock");
        assert_eq!(a.default, MilterDefault::TempFail);
        assert!(!a.keep && b.keep);
        assert_eq!(b.socket, MilterSocket::Inet("::1".into(), 11332));
        assert_eq!(
            (b.name.as_str(), b.default),
            ("rspamd", MilterDefault::Accept)
        );
        let times = (b.connect_timeout, b.command_timeout, b.content_timeout);
        assert_eq!(times, [2, 3, 60].map(Duration::from_secs).into());
        assert_eq!(c.socket, MilterSocket::Inet("localhost".into(), 8891));
        assert_eq!(read(" ,"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_and_what_to_write() {
        for (text, want) in [
            (
                "/run/a.sock",
                "has `/run/a.sock', write unix:/path or inet:host:port",
            ),
            (
                "unix:a.sock",
                "has `unix:a.sock', write unix:/path or inet:host:port",
            ),
            (
                "inet:localhost",
                "has `inet:localhost', write unix:/path or inet:host:port",
            ),
            (
                "inet:localhost:0",
                "has `inet:localhost:0', write unix:/path or inet:host:port",
            ),
            (
                "inet:a b:1",
                "has `inet:a', write unix:/path or inet:host:port",
            ),
            ("{ unix:/a", "has a `{' without its `}'"),
            (
                "{ unix:/a default_action=shrug }",
                "has default_action=shrug, write accept, tempfail, reject or quarantine",
            ),
            (
                "{ unix:/a content_timeout=1h }",
                "has `1h', write a time from 1s to 600s",
            ),
            (
                "{ unix:/a, timeout=1s }",
                "has `timeout=1s', which is none of name=, default_action=, connect_timeout=, \
                 command_timeout=, content_timeout= and keep=",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), want);
        }
        assert!(read(&"unix:/a ".repeat(17)).is_err());
    }
}
