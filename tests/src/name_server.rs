//! A name server with a root of its own: zones signed by ldns-signzone, served by nsd.
//!
//! The root and `test.` are signed; below `test.` stands what a story wants, in the state it wants.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::{Config, Root};
use tempfile::TempDir;

use crate::foreign::ok;
use crate::host::free_ports;
use crate::wait_for;

/// What becomes of a zone's signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    Nsec,
    Nsec3,
    /// By nobody, as its parent says.
    No,
    /// Some years ago.
    Expired,
    /// By nobody, though its parent has a key of it.
    Stripped,
    /// By a key that its parent does not know.
    ByAnother,
}

/// A zone `NAME.test.`
pub struct Zone<'a> {
    pub name: &'a str,
    pub signed: Signed,
    /// Records, with names below the zone.
    pub text: &'a str,
}

/// nsd, until it is dropped.
pub struct NameServer {
    pub port: u16,
    dir: TempDir,
    child: Child,
}

impl NameServer {
    /// Started and answering.
    pub fn start(zones: &[Zone<'_>]) -> Self {
        let dir = TempDir::with_prefix("yubin-dns-").unwrap();
        let at = dir.path();
        let mut conf = String::new();
        let mut delegations = String::new();
        for zone in zones {
            let name = format!("{}.test.", zone.name);
            delegations.push_str(&format!("{name} IN NS ns.test.\n"));
            delegations.push_str(&add(at, &mut conf, &name, zone.signed, zone.text));
        }
        let ds = add(at, &mut conf, "test.", Signed::Nsec, &delegations);
        let top = format!("test. IN NS ns.test.\nns.test. IN A 127.0.0.1\n{ds}");
        add(at, &mut conf, ".", Signed::Nsec, &top);
        let [port] = free_ports();
        let dir_name = at.display();
        let server = format!(
            "server:\n ip-address: 127.0.0.1@{port}\n zonesdir: \"{dir_name}\"\n database: \"\"\n username: \"\"\n pidfile: \"\"\n xfrdfile: \"{dir_name}/xfrd\"\n zonelistfile: \"{dir_name}/list\"\n xfrdir: \"{dir_name}\"\n server-count: 1\n logfile: \"{dir_name}/log\"\nremote-control:\n control-enable: no\n"
        );
        fs::write(at.join("nsd.conf"), server + &conf).unwrap();
        let child = Command::new("/usr/sbin/nsd")
            .args(["-d", "-c"])
            .arg(at.join("nsd.conf"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsd");
        let new = Self { port, dir, child };
        wait_for("nsd", || new.answers().then_some(()));
        new
    }

    /// Asks for the root's SOA.
    fn answers(&self) -> bool {
        let question = [7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1];
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut answer = [0; 512];
        socket.send_to(&question, ("127.0.0.1", self.port)).is_ok()
            && socket.recv(&mut answer).is_ok_and(|n| n > question.len())
    }

    /// The keys of its root, for DNSSEC_ANCHORS.
    pub fn anchors(&self) -> PathBuf {
        self.dir.path().join("root.key")
    }

    /// The lines of yubin.def that have it asked.
    pub fn def(&self) -> String {
        let (port, anchors) = (self.port, self.anchors());
        // Paths in yubin.def lie below the root of the host; this one lies beside it.
        let up = "/..".repeat(20);
        format!(
            "DNS_SERVERS=127.0.0.1:{port}\nDNSSEC_ANCHORS={up}{}\n",
            anchors.display()
        )
    }

    /// A resolver of ours that asks it.
    pub fn resolver(&self, more: &str) -> std::sync::Arc<dyn dns::Resolve> {
        let root = Root::new(self.dir.path());
        let text = format!("{}{more}", self.def());
        let config = Config::parse(&root, &text, Path::new("yubin.def")).unwrap();
        dns::open(&root, &config).unwrap()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // It is asked to end, because it has children of its own.
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.child.wait().ok();
    }
}

/// Writes a zone's file and what nsd is to know of it; gives the DS records for its parent.
fn add(at: &Path, conf: &mut String, name: &str, signed: Signed, text: &str) -> String {
    let file = format!("{}zone", name.replace('.', "_"));
    let start = format!(
        "$ORIGIN {name}\n$TTL 300\n@ IN SOA ns.test. hostmaster.test. 1 3600 600 86400 300\n"
    );
    let ns = match name {
        "." => "@ IN NS ns.test.\n",
        "test." => "@ IN NS ns\nns IN A 127.0.0.1\n",
        _ => "@ IN NS ns.test.\n",
    };
    fs::write(at.join(&file), format!("{start}{ns}{text}")).unwrap();
    let mut serve = |file: &str| {
        conf.push_str(&format!(
            "zone:\n name: \"{name}\"\n zonefile: \"{file}\"\n"
        ));
    };
    if signed == Signed::No {
        serve(&file);
        return String::new();
    }
    let key = key(at, name);
    let ds = fs::read_to_string(at.join(format!("{key}.ds"))).unwrap_or_default();
    if name == "." {
        fs::copy(at.join(format!("{key}.key")), at.join("root.key")).unwrap();
    }
    let key = match signed {
        Signed::Stripped => {
            serve(&file);
            return ds;
        }
        Signed::ByAnother => self::key(at, name),
        _ => key,
    };
    let mut args: Vec<&str> = match signed {
        Signed::Nsec3 => vec!["-n", "-t", "0"],
        Signed::Expired => vec!["-i", "20200101", "-e", "20200201"],
        _ => vec![],
    };
    let (whole, key) = (at.join(&file), at.join(&key));
    args.extend(["-o", name, whole.to_str().unwrap(), key.to_str().unwrap()]);
    ok("ldns-signzone", &args, b"");
    serve(&format!("{file}.signed"));
    ds
}

/// A new key that signs keys and zone; its name.
fn key(at: &Path, name: &str) -> String {
    let out = Command::new("ldns-keygen")
        .args(["-a", "ECDSAP256SHA256", "-k", name])
        .current_dir(at)
        .output()
        .expect("ldns-keygen");
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}
