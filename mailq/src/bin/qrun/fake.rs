//! An SMTP server for tests: a thread on loopback that answers each line by a rule.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server does at a line, which is empty when the client connects, `DATA...` as the verbs
/// are, and `.` at the end of the message.
#[derive(Clone)]
pub(crate) enum Say {
    /// A whole reply, with its CRLF; after DATA with 354 the message follows.
    Reply(&'static str),
    Bytes(Vec<u8>),
    Close,
    /// Nothing at all, until the client goes.
    Silence,
}

/// A running server. Dropped, it takes no more connections.
pub(crate) struct Fake {
    pub(crate) port: u16,
    /// Every line of every connection, in order; of messages too.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// On 127.0.0.1 and a port of its own.
    pub(crate) fn start(rule: impl FnMut(&str) -> Say + Send + 'static) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), 0, rule)
    }

    pub(crate) fn at(
        ip: IpAddr,
        port: u16,
        mut rule: impl FnMut(&str) -> Say + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((ip, port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes is no trouble of the test.
                serve(stream, &mut rule, &lines).ok();
            }
        });
        Self { port, seen }
    }

    /// One that takes everything.
    pub(crate) fn polite() -> Self {
        Self::start(|line| Say::Reply(usual(line)))
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// How many lines begin so.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.lines().iter().filter(|l| l.starts_with(start)).count()
    }
}

/// What a polite server says.
pub(crate) fn usual(line: &str) -> &'static str {
    match line.get(..4).unwrap_or(line) {
        "" => "220 fake ESMTP\r\n",
        "EHLO" => "250-fake\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
        "DATA" => "354 go on\r\n",
        "QUIT" => "221 bye\r\n",
        "." => "250 2.6.0 queued\r\n",
        _ => "250 ok\r\n",
    }
}

fn serve(
    stream: TcpStream,
    rule: &mut impl FnMut(&str) -> Say,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    let mut in_message = false;
    loop {
        if !in_message || line == "." {
            in_message = false;
            match rule(&line) {
                Say::Reply(text) => {
                    out.write_all(text.as_bytes())?;
                    in_message = line == "DATA" && text.starts_with("354");
                }
                Say::Bytes(bytes) => out.write_all(&bytes)?,
                Say::Close => return Ok(()),
                Say::Silence => {
                    while lines.read_line(&mut line)? > 0 {}
                    return Ok(());
                }
            }
        }
        let mut bytes = Vec::new();
        if lines.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        line = String::from_utf8_lossy(&bytes)
            .trim_end_matches(['\r', '\n'])
            .to_owned();
        seen.lock().unwrap().push(line.clone());
    }
}
