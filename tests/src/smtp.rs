//! An SMTP client that does just what it is told, for the stories that ask odd things.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One connection.
pub struct Smtp {
    stream: BufReader<TcpStream>,
}

impl Smtp {
    /// Connects and reads the greeting.
    pub fn connect(port: u16) -> std::io::Result<Self> {
        let mut smtp = Self::silent(port)?;
        smtp.reply()?;
        Ok(smtp)
    }

    /// Connects and reads nothing yet.
    pub fn silent(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// One reply, all its lines.
    pub fn reply(&mut self) -> std::io::Result<String> {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let last = line.as_bytes().get(3) == Some(&b' ');
            all.push_str(&line);
            if last {
                return Ok(all);
            }
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends a line and reads its reply.
    pub fn ask(&mut self, line: &str) -> std::io::Result<String> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Sends a whole message; the reply to its final dot, or the first refusal. `content` is
    /// dot-stuffed already and ends in CRLF.
    pub fn message(&mut self, from: &str, to: &[&str], content: &str) -> std::io::Result<String> {
        let mut commands = vec![format!("MAIL FROM:<{from}>")];
        commands.extend(to.iter().map(|to| format!("RCPT TO:<{to}>")));
        for command in commands {
            let reply = self.ask(&command)?;
            if !reply.starts_with('2') {
                return Ok(reply);
            }
        }
        let go_on = self.ask("DATA")?;
        if !go_on.starts_with("354") {
            return Ok(go_on);
        }
        self.send(content.as_bytes())?;
        self.ask(".")
    }
}
