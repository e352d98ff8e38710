//! Programs that others wrote, as the peers of our stories.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::host::{feed, free_ports};
use crate::wait_for;

const MAILBOX: &str = "aiosmtpd.handlers.Mailbox";

/// aiosmtpd on a port of its own, which puts what it gets into a Maildir.
pub struct ForeignMta {
    pub port: u16,
    maildir: PathBuf,
    child: Child,
}

impl ForeignMta {
    /// Started and listening.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// Keeps messages as they came, without fields of its own.
    pub fn start_raw(dir: &Path) -> Self {
        let module = "
import itertools, os
class Raw:
    def __init__(self, dir):
        self.dir = os.path.join(dir, 'new')
        self.names = itertools.count()
        os.makedirs(self.dir)
    @classmethod
    def from_cli(cls, parser, *args):
        return cls(args[0])
    async def handle_DATA(self, server, session, envelope):
        path = os.path.join(self.dir, str(next(self.names)))
        with open(self.dir + '.tmp', 'wb') as f: f.write(envelope.original_content)
        os.rename(self.dir + '.tmp', path)
        return '250 OK'
";
        std::fs::write(dir.join("raw_mta.py"), module).unwrap();
        let [port] = free_ports();
        Self::launch(dir, "raw_mta.Raw", &[], port)
    }

    /// On the port that a host without it was found at.
    pub fn start_at(dir: &Path, port: u16) -> Self {
        Self::launch(dir, MAILBOX, &[], port)
    }

    /// Takes addresses beyond ASCII.
    pub fn start_utf8(dir: &Path) -> Self {
        Self::start_with(dir, &["--smtputf8".to_owned()])
    }

    /// Takes mail only after STARTTLS, with the certificate in `tls`.
    pub fn start_tls(dir: &Path, tls: &Path) -> Self {
        let (cert, key) = (tls.join("cert.pem"), tls.join("key.pem"));
        let option = |name, path: &Path| format!("--{name}={}", path.display());
        Self::start_with(dir, &[option("tlscert", &cert), option("tlskey", &key)])
    }

    fn start_with(dir: &Path, options: &[String]) -> Self {
        let [port] = free_ports();
        Self::launch(dir, MAILBOX, options, port)
    }

    fn launch(dir: &Path, handler: &str, options: &[String], port: u16) -> Self {
        let maildir = dir.join("foreign");
        let child = Command::new("/usr/bin/python3")
            .args(["-m", "aiosmtpd", "-n", "-c", handler])
            .env("PYTHONPATH", dir)
            .arg(&maildir)
            .args(["-l", &format!("127.0.0.1:{port}")])
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 with aiosmtpd");
        wait_for("aiosmtpd", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self {
            port,
            maildir,
            child,
        }
    }

    /// What it has taken so far.
    pub fn messages(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.maildir.join("new")) else {
            return Vec::new();
        };
        entries
            .flatten()
            .map(|e| {
                String::from_utf8_lossy(&std::fs::read(e.path()).unwrap_or_default()).into_owned()
            })
            .collect()
    }
}

impl Drop for ForeignMta {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs a foreign program and insists that it succeeds; gives its standard output.
pub fn ok(program: &str, args: &[&str], input: &[u8]) -> String {
    let out = run(program, args, input);
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{program} {args:?}: {}\n{stdout}{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    stdout
}

/// Runs a foreign program to its end.
pub fn run(program: &str, args: &[&str], input: &[u8]) -> Output {
    feed(Command::new(program).args(args), input)
}

/// Runs a Python program with the standard library's own clients.
pub fn python(script: &str, args: &[&str]) -> String {
    let mut all = vec!["-c", script];
    all.extend(args);
    ok("/usr/bin/python3", &all, b"")
}
