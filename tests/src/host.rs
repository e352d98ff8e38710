//! One host: a private root in a temporary directory, and the daemons that run in it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::wait_for;

/// The daemons of a whole system.
pub const DAEMONS: [&str; 5] = ["qrun", "deliver", "smtpd", "pop3d", "imapd"];

/// A private root with its daemons.
pub struct Host {
    dir: TempDir,
    daemons: HashMap<&'static str, Child>,
    pub smtp: u16,
    pub submission: u16,
    pub smtps: u16,
    pub pop3: u16,
    pub pop3s: u16,
    pub imap: u16,
    pub imaps: u16,
}

impl Host {
    /// A host `mail.yubin.test` that keeps the mail of yubin.test, with users alice and bob, whose
    /// passwords are their names. `def` is appended to its yubin.def.
    pub fn new(def: &str) -> Self {
        let [smtp, submission, smtps, pop3, pop3s, imap, imaps] = free_ports();
        let host = Self {
            dir: TempDir::with_prefix("yubin-").unwrap(),
            daemons: HashMap::new(),
            smtp,
            submission,
            smtps,
            pop3,
            pop3s,
            imap,
            imaps,
        };
        for dir in [
            "etc/yubin/tls",
            "var/spool/mail",
            "var/spool/yubin-mail",
            "var/log",
            "home",
        ] {
            fs::create_dir_all(host.path(dir)).unwrap();
        }
        let mut text = String::from(
            "MY_NAME=mail\nMY_DOMAIN=yubin.test\nMY_ALIAS='yubin.test localhost'\nFROM_ADDRESS=yubin.test\nLISTEN=127.0.0.1\nMIN_FREE_SPACE=1M\nDNS_ZONE_FILE=/etc/yubin/zone\n",
        );
        for (name, port) in [
            ("SMTP", smtp),
            ("SUBMISSION", submission),
            ("SMTPS", smtps),
            ("POP3", pop3),
            ("POP3S", pop3s),
            ("IMAP", imap),
            ("IMAPS", imaps),
        ] {
            writeln!(text, "{name}_PORT={port}").unwrap();
        }
        // A name in `def` replaces ours: the file allows each once.
        let names: Vec<_> = def
            .lines()
            .filter_map(|l| Some(l.split_once('=')?.0))
            .collect();
        let mut all: String = text
            .lines()
            .filter(|l| !names.iter().any(|n| l.starts_with(&format!("{n}="))))
            .map(|l| format!("{l}\n"))
            .collect();
        all.push_str(def);
        host.write("etc/yubin/yubin.def", &all);
        host.write("etc/yubin/zone", "");
        host.set_users(&["alice", "bob"]);
        host.write("etc/aliases", "postmaster: alice\nroot: alice\n");
        host
    }

    /// A host with all daemons running.
    pub fn started(def: &str) -> Self {
        let mut host = Self::new(def);
        for program in DAEMONS {
            host.start(program);
        }
        host
    }

    /// Users whose passwords are their names.
    pub fn set_users(&self, names: &[&str]) {
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        let lines: String = names
            .iter()
            .map(|n| {
                format!(
                    "{n}:{{PLAIN}}{n}:{uid}:{gid}:{n}:{}\n",
                    self.path(&format!("home/{n}")).display()
                )
            })
            .collect();
        self.write("etc/yubin/users", &lines);
    }

    /// A self-signed certificate; call it before the daemons start.
    #[must_use]
    pub fn with_tls(self) -> Self {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "30",
                "-subj",
                "/CN=mail.yubin.test",
            ])
            .args([
                "-addext",
                "subjectAltName=DNS:mail.yubin.test,DNS:localhost,IP:127.0.0.1",
                "-keyout",
            ])
            .arg(self.path("etc/yubin/tls/key.pem"))
            .arg("-out")
            .arg(self.path("etc/yubin/tls/cert.pem"))
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        self
    }

    /// The certificate that the TLS port of smtpd shows, in PEM.
    pub fn listening_certificate(&self) -> String {
        let out = feed(
            Command::new("openssl")
                .args(["s_client", "-connect", &format!("127.0.0.1:{}", self.smtps)])
                .stderr(Stdio::null()),
            b"QUIT\r\n",
        );
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let from = text.find("-----BEGIN").unwrap_or(0);
        let to = text.find("-----END").unwrap_or(0);
        text.get(from..to).unwrap_or_default().to_owned()
    }

    /// The root's directory.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// A path below the root.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// A file below the root, whole.
    pub fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What is in the mailbox file of a user; empty where there is none yet.
    pub fn mbox(&self, user: &str) -> String {
        let path = self.path(&format!("var/spool/mail/{user}"));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Everything the daemons logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("var/log/mail.log")).unwrap_or_default()
    }

    /// A program of ours, to run in this root.
    pub fn command(&self, program: &str) -> Command {
        self.foreign(&programs().join(program))
    }

    /// Any program, with what ours find in their environment.
    pub fn foreign(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("YUBIN_ROOT", self.root())
            .env("YUBIN_HOSTNAME", "mail.yubin.test")
            .env(
                "PATH",
                format!(
                    "{}:{}",
                    programs().display(),
                    std::env::var("PATH").unwrap()
                ),
            )
            .env("USER", "alice")
            .env("LOGNAME", "alice")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("HOME", self.path("home"));
        command
    }

    /// Runs a program of ours to its end.
    pub fn run(&self, program: &str, args: &[&str], input: &[u8]) -> Output {
        feed(self.command(program).args(args), input)
    }

    /// Runs it and insists that it succeeds; gives its standard output.
    pub fn ok(&self, program: &str, args: &[&str], input: &[u8]) -> String {
        let out = self.run(program, args, input);
        assert!(
            out.status.success(),
            "{program} {args:?}: {}\n{}{}",
            out.status,
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Starts a daemon and waits until it serves.
    pub fn start(&mut self, program: &'static str) {
        self.launch(program);
        let ports: &[u16] = match program {
            "smtpd" => &[self.smtp, self.submission],
            "pop3d" => &[self.pop3],
            "imapd" => &[self.imap],
            _ => &[],
        };
        for port in ports {
            wait_for(&format!("{program} on port {port}"), || {
                if let Some(status) = self.daemons.get_mut(program).unwrap().try_wait().unwrap() {
                    panic!("{program} stopped: {status}\n{}", self.log());
                }
                TcpStream::connect(("127.0.0.1", *port)).ok()
            });
        }
    }

    /// Starts a daemon and does not wait.
    pub fn launch(&mut self, program: &'static str) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("var/log/mail.log"))
            .unwrap();
        let child = self
            .command(program)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}; run `cargo build --workspace` first"));
        self.daemons.insert(program, child);
    }

    /// kill -9, and wait until it is gone.
    pub fn kill9(&mut self, program: &str) {
        let mut child = self.daemons.remove(program).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; insists that it ends by itself with exit code 0.
    pub fn stop(&mut self, program: &str) {
        let mut child = self.daemons.remove(program).unwrap();
        signal(&child, Signal::SIGTERM);
        let status = wait_for(&format!("{program} to stop"), || child.try_wait().unwrap());
        assert!(status.success(), "{program}: {status}\n{}", self.log());
    }

    /// The process id of a running daemon.
    pub fn pid(&self, program: &str) -> u32 {
        self.daemons[program].id()
    }

    /// Whether a daemon still runs.
    pub fn is_running(&mut self, program: &str) -> bool {
        self.daemons
            .get_mut(program)
            .is_some_and(|c| c.try_wait().unwrap().is_none())
    }

    /// Waits until a user's mbox has `count` messages, and gives it.
    pub fn wait_for_mail(&self, user: &str, count: usize) -> String {
        wait_for(&format!("{count} messages for {user}"), || {
            let mbox = self.mbox(user);
            (mbox.lines().filter(|l| l.starts_with("From ")).count() >= count).then_some(mbox)
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in self.daemons.values() {
            signal(child, Signal::SIGTERM);
        }
        std::thread::sleep(Duration::from_millis(50));
        for child in self.daemons.values_mut() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- the log of {}\n{}", self.root().display(), self.log());
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).ok();
}

/// The longest that a program may take that a story runs to its end.
const PATIENCE: Duration = Duration::from_mins(2);

/// Runs a command to its end with `input` on its standard input. A command that does not end in
/// two minutes is killed with its children, and the story fails with what it said so far.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input).ok());
    let (ended, wait) = mpsc::channel::<()>();
    let warden = std::thread::spawn(move || {
        let late = wait.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            killpg(group, Signal::SIGKILL).ok();
        }
        late
    });
    let out = child.wait_with_output().unwrap();
    drop(ended);
    assert!(
        !warden.join().unwrap(),
        "{command:?} did not end in {PATIENCE:?}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    writer.join().unwrap();
    out
}

/// Where cargo put the programs: beside the test's own folder.
pub fn programs() -> PathBuf {
    let mut dir = std::env::current_exe().unwrap();
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    dir
}

/// Ports that nobody had a moment ago. All are held until all are chosen.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let held: Vec<_> = (0..N)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap())
        .collect();
    let ports: Vec<_> = held
        .iter()
        .map(|l| l.local_addr().unwrap().port())
        .collect();
    ports.try_into().unwrap()
}
