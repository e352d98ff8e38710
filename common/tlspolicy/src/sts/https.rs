//! Getting a policy: one GET over TLS (RFC 8461 3.3, RFC 9112), bounded in octets and time, of a
//! server that proves its name. No redirection is followed, nothing is kept.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Domain;
use dns::Resolve;
use net::tls::{Connector, Judged, Name, Proof};

use super::{FETCH_TIMEOUT, Fetch, FetchError, MAX_POLICY};

/// Octets of a response's head.
const MAX_HEAD: usize = 16 * 1024;
/// Chunk sizes and the like, beside the policy.
const MAX_FRAMING: usize = 16 * 1024;
/// Addresses of a server that are tried, and how long to reach one.
const MAX_ADDRESSES: usize = 4;
const CONNECT: Duration = Duration::from_secs(10);

/// Asks web servers at `port`, which is 443 out in the world.
pub fn fetch(connector: Connector, dns: Arc<dyn Resolve>, port: u16) -> Box<Fetch> {
    Box::new(move |host, path| get(&connector, dns.as_ref(), host, path, port))
}

fn failed(what: impl Into<String>) -> FetchError {
    FetchError::Failed(what.into())
}

fn get(
    connector: &Connector,
    dns: &dyn Resolve,
    host: &str,
    path: &str,
    port: u16,
) -> Result<Vec<u8>, FetchError> {
    let until = Instant::now() + FETCH_TIMEOUT;
    let name = Domain::parse(host).map_err(|_| failed("no host name"))?;
    let ips = dns
        .addresses(&name)
        .map_err(|e| failed(format!("{host}: {e}")))?;
    let stream = Timed {
        stream: connect(host, &ips, port, until)?,
        until,
    };
    let proof = Proof::Pkix {
        names: vec![Name::Is(host.into())],
    };
    let mut stream = connector
        .connect_checked(stream, host, proof)
        .map_err(|(fail, judged)| match judged {
            Judged::Failed(problem) => FetchError::Certificate(format!("{host}: {problem}")),
            Judged::Unseen | Judged::Proven(_) => failed(fail.to_string()),
        })?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: yubin\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"
    );
    let at = |e: io::Error| failed(format!("{host}: {e}"));
    stream.write_all(request.as_bytes()).map_err(at)?;
    stream.flush().map_err(at)?;
    body(&read(&mut stream).map_err(at)?)
}

fn connect(host: &str, ips: &[IpAddr], port: u16, until: Instant) -> Result<TcpStream, FetchError> {
    let mut error = failed(format!("{host}: no address"));
    for ip in ips.iter().take(MAX_ADDRESSES) {
        let left = until.saturating_duration_since(Instant::now()).min(CONNECT);
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&SocketAddr::new(*ip, port), left) {
            Ok(stream) => return Ok(stream),
            Err(e) => error = failed(format!("{host}[{ip}]: {e}")),
        }
    }
    Err(error)
}

/// A socket whose time is up at some point, whatever trickles in.
#[derive(Debug)]
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(left),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buf)
    }
}

impl Write for Timed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// All that comes, up to a bound, until the response is whole or the server ends.
fn read(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    let mut chunk = [0; 8192];
    while whole.len() <= MAX_HEAD + MAX_POLICY + MAX_FRAMING {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(whole),
            Ok(n) => whole.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            // Without close_notify: whether it is whole, its own length says.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(whole),
            Err(e) => return Err(e),
        }
        if body(&whole).is_ok_and(|_| has_length(&whole)) {
            return Ok(whole);
        }
    }
    Err(io::Error::other("a response without end"))
}

/// Whether the response says where it ends.
fn has_length(whole: &[u8]) -> bool {
    Head::parse(whole).is_ok_and(|(head, _)| head.is_chunked || head.length.is_some())
}

#[derive(Debug, Default)]
struct Head {
    status: u16,
    length: Option<usize>,
    is_chunked: bool,
    is_text: bool,
}

impl Head {
    /// RFC 9112 4 and 5; and what stands behind it.
    fn parse(whole: &[u8]) -> Result<(Self, &[u8]), FetchError> {
        let bad = || failed("no HTTP response");
        let end = whole
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .ok_or_else(bad)?;
        let (head, rest) = whole.split_at_checked(end + 4).ok_or_else(bad)?;
        let head = std::str::from_utf8(head)
            .ok()
            .filter(|head| head.len() <= MAX_HEAD);
        let mut lines = head.ok_or_else(bad)?.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
        let status = words
            .next()
            .and_then(|word| word.parse().ok())
            .filter(|_| is_http);
        let mut parsed = Self {
            status: status.ok_or_else(bad)?,
            ..Self::default()
        };
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or_else(bad)?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => parsed.length = Some(value.parse().map_err(|_| bad())?),
                "transfer-encoding" => match value.eq_ignore_ascii_case("chunked") {
                    true => parsed.is_chunked = true,
                    false => return Err(failed("a transfer encoding that is not known")),
                },
                "content-type" => {
                    let kind = value.split(';').next().unwrap_or_default().trim();
                    parsed.is_text = kind.eq_ignore_ascii_case("text/plain");
                }
                _ => (),
            }
        }
        Ok((parsed, rest))
    }
}

/// The policy in a whole response.
fn body(whole: &[u8]) -> Result<Vec<u8>, FetchError> {
    let (head, rest) = Head::parse(whole)?;
    if head.status != 200 {
        return Err(failed(format!("the web server says {}", head.status)));
    }
    // RFC 8461 3.2
    if !head.is_text {
        return Err(FetchError::Invalid(
            "the web server gives no text/plain".into(),
        ));
    }
    let cut = || failed("the response ends early");
    let body = match (head.is_chunked, head.length) {
        (true, _) => chunks(rest)?,
        (false, Some(length)) => rest.get(..length).ok_or_else(cut)?.to_vec(),
        (false, None) => rest.to_vec(),
    };
    match body.len() <= MAX_POLICY {
        true => Ok(body),
        false => Err(FetchError::Invalid(
            "the policy is longer than 64 KiB".into(),
        )),
    }
}

/// RFC 9112 7.1
fn chunks(mut rest: &[u8]) -> Result<Vec<u8>, FetchError> {
    let bad = || failed("chunks that do not fit");
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .ok_or_else(bad)?;
        let line = rest
            .get(..end)
            .and_then(|line| std::str::from_utf8(line).ok());
        let size = line
            .and_then(|line| line.split(';').next())
            .unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| bad())?;
        let from = end + 2;
        if size == 0 {
            return Ok(body);
        }
        let to = from.checked_add(size).ok_or_else(bad)?;
        body.extend_from_slice(rest.get(from..to).ok_or_else(bad)?);
        rest = rest
            .get(to..)
            .and_then(|rest| rest.strip_prefix(b"\r\n"))
            .ok_or_else(bad)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n";

    #[test]
    fn a_policy_or_why_there_is_none() {
        let table = [
            (format!("{OK}Content-Length: 4\r\n\r\nabcd"), "ok abcd"),
            (format!("{OK}content-length: 4\r\n\r\nabcdef"), "ok abcd"),
            (format!("{OK}\r\nabcd"), "ok abcd"),
            (
                format!(
                    "{OK}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"
                ),
                "ok abc0123456789",
            ),
            (format!("{OK}Content-Length: 5\r\n\r\nabcd"), "failed"),
            (format!("{OK}Content-Length: x\r\n\r\nabcd"), "failed"),
            (format!("{OK}Transfer-Encoding: gzip\r\n\r\nabcd"), "failed"),
            (
                format!("{OK}Transfer-Encoding: chunked\r\n\r\n3\r\nab"),
                "failed",
            ),
            (
                format!("{OK}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab"),
                "failed",
            ),
            (
                "HTTP/1.1 301 Moved\r\nContent-Type: text/plain\r\nLocation: /x\r\n\r\n".into(),
                "failed",
            ),
            ("HTTP/1.1 404 Not Found\r\n\r\n".into(), "failed"),
            (
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\nx".into(),
                "invalid",
            ),
            ("HTTP/1.1 200 OK\r\n\r\nx".into(), "invalid"),
            ("HTTP/2 200 OK\r\n\r\nx".into(), "failed"),
            ("220 mx ESMTP\r\n".into(), "failed"),
            (String::new(), "failed"),
            (format!("{OK}\r\n{}", "x".repeat(MAX_POLICY + 1)), "invalid"),
            (
                format!("{OK}X: {}\r\n\r\nx", "y".repeat(MAX_HEAD)),
                "failed",
            ),
        ];
        for (response, want) in table {
            let said = match body(response.as_bytes()) {
                Ok(body) => format!("ok {}", String::from_utf8(body).unwrap()),
                Err(FetchError::Invalid(_)) => "invalid".into(),
                Err(FetchError::Failed(_)) => "failed".into(),
                Err(FetchError::Certificate(_)) => "certificate".into(),
            };
            let shown: String = response.chars().take(120).collect();
            assert_eq!(said, want, "{shown}");
            // In whatever pieces it comes, and never without an end.
            let mut stream = response.as_bytes();
            assert_eq!(read(&mut stream).unwrap().is_empty(), response.is_empty());
        }
        assert!(read(&mut io::repeat(b'x')).is_err());
    }
}
