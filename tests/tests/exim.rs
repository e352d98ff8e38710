//! Exim as the client of our smtpd: it sends by BDAT where CHUNKING is announced (RFC 3030). Only its
//! program runs, with a configuration and a spool of its own. That takes root, whom it trusts with that;
//! and where another mail system is installed Exim is not put in its place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::foreign::{ok, python};
use tests::{Host, wait_for};

const EXIM: &str = "/usr/sbin/exim4";

const CONFIG: &str = "
primary_hostname = exim.test
spool_directory = DIR/spool
log_file_path = DIR/log/%slog
tls_advertise_hosts =
keep_environment =
disable_ipv6
begin routers
all:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = out
begin transports
out:
  driver = smtp
  port = PORT
";

/// A directory with its configuration, for our port; `None` where it cannot be run.
fn exim(host: &Host) -> Option<tempfile::TempDir> {
    if !nix::unistd::geteuid().is_root() || !Path::new(EXIM).exists() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let user = nix::unistd::User::from_name("Debian-exim")
        .unwrap()
        .unwrap();
    for name in ["spool", "log"] {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        nix::unistd::chown(&path, Some(user.uid), Some(user.gid)).unwrap();
    }
    let config = CONFIG
        .replace("DIR", dir.path().to_str().unwrap())
        .replace("PORT", &host.smtp.to_string());
    fs::write(dir.path().join("conf"), config).unwrap();
    Some(dir)
}

/// Messages of one line, of lines with dots, and of more octets than one piece, to two users; each
/// comes out as it went in.
#[test]
fn exim_sends_in_pieces() {
    let host = Host::started("");
    let Some(dir) = exim(&host) else { return };
    let long = "..a line that a dot begins\n.\n0123456789\n".repeat(20_000);
    let bodies = ["x\n", ".\n..\n.x\nFrom here\n", &long];
    let conf = dir.path().join("conf");
    for (n, body) in bodies.iter().enumerate() {
        let text = format!("Subject: piece {n}\nFrom: bob@yubin.test\n\n{body}");
        let args = [
            "-C",
            conf.to_str().unwrap(),
            "-odi",
            "-i",
            "-f",
            "bob@yubin.test",
            "alice@yubin.test",
            "bob@yubin.test",
        ];
        ok(EXIM, &args, text.as_bytes());
    }
    let log = wait_for("Exim to be done", || {
        let log = fs::read_to_string(dir.path().join("log/mainlog")).unwrap_or_default();
        (log.matches("Completed").count() == bodies.len()).then_some(log)
    });
    // `K`: CHUNKING was used. `C=`: what we said to it.
    let sent: Vec<_> = log.lines().filter(|line| line.contains(" => ")).collect();
    assert_eq!(sent.len(), bodies.len(), "{log}");
    for line in sent {
        assert!(line.contains(" K C=\"250 2.0.0 Ok: queued as "), "{log}");
    }
    for user in ["alice", "bob"] {
        host.wait_for_mail(user, bodies.len());
    }
    let sizes = python(
        "
import poplib, sys
p = poplib.POP3('127.0.0.1', int(sys.argv[1])); p.user('alice'); p.pass_('alice')
for n in range(len(p.list()[1])):
    text = b'\\n'.join(p.retr(n + 1)[1])
    head, body = text.split(b'\\n\\n', 1)
    assert b'Subject: piece ' in head and b'from root by exim.test' in head, head
    print(len(body), body.count(b'..a line'))
",
        &[&host.pop3.to_string()],
    );
    let want: String = bodies
        .iter()
        .map(|body| format!("{} {}\n", body.len() - 1, body.matches("..a line").count()))
        .collect();
    assert_eq!(sizes, want);
}
