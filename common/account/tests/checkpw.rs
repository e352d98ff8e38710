//! The real `checkpw` behind its socket, as a daemon uses it.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use account::{Answer, Checkpw, Mechanism, Request, Service, StoreAccess};
use base::packet::Packets;
use base::{Root, Sysexit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::Pid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_checkpw");

struct Host {
    dir: tempfile::TempDir,
    checkpw: Checkpw,
}

fn folder(users: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for sub in ["etc/yubin", "var/spool/mail"] {
        std::fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    std::fs::write(dir.path().join("etc/yubin/users"), users).unwrap();
    dir
}

fn host(service: Service) -> Host {
    // tom's is `openssl passwd -6 -salt saltstring 'Hello world!'`.
    let dir = folder(
        "tim:{PLAIN}tanstaaf:1:2:Tim:/home/tim\n\
         tom:{CRYPT}$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1:3:4\n",
    );
    let root = Root::new(dir.path());
    let checkpw = Checkpw::start_program(Path::new(PROGRAM), &root, None, service).unwrap();
    Host { dir, checkpw }
}

/// To every `checkpw` of this folder.
fn signal_all(dir: &tempfile::TempDir, signal: Signal) {
    let mark = format!("YUBIN_ROOT={}", dir.path().display());
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let of = |file: &str| std::fs::read(process.path().join(file)).unwrap_or_default();
        if of("comm") == b"checkpw\n" && String::from_utf8_lossy(&of("environ")).contains(&mark) {
            let pid = process.file_name().to_str().unwrap().parse().unwrap();
            kill(Pid::from_raw(pid), signal).unwrap();
        }
    }
}

#[test]
fn a_login_by_each_way_and_a_wrong_one() {
    let Host { checkpw, dir: _dir } = host(Service::Imap);
    let password = |p: &str| Request::Password {
        name: "tim".into(),
        password: p.into(),
    };
    match checkpw.ask(&password("tanstaaf")) {
        Answer::Granted(grant) => {
            assert_eq!(grant.user.name.as_str(), "tim");
            assert!(matches!(grant.store, StoreAccess::Pool));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        checkpw.ask(&password("x")),
        Answer::Refused { .. }
    ));
    let conversation = checkpw.conversation();
    let begin = Request::Begin {
        conversation,
        mechanism: Mechanism::Login,
        initial: None,
    };
    assert!(matches!(checkpw.ask(&begin), Answer::Challenge(c) if c == b"Username:"));
    let go_on = |response: &[u8]| Request::Continue {
        conversation,
        response: response.into(),
    };
    assert!(matches!(checkpw.ask(&go_on(b"tim")), Answer::Challenge(c) if c == b"Password:"));
    assert!(matches!(
        checkpw.ask(&go_on(b"tanstaaf")),
        Answer::Granted(_)
    ));
    assert!(matches!(
        checkpw.ask(&go_on(b"tanstaaf")),
        Answer::Malformed(_)
    ));
    let initial = Some(b"\0tim\0tanstaaf".to_vec());
    let plain = Request::Begin {
        conversation,
        mechanism: Mechanism::Plain,
        initial,
    };
    assert!(matches!(checkpw.ask(&plain), Answer::Granted(_)));
    let apop = |digest: &str| Request::Apop {
        name: "tim".into(),
        timestamp: "<1896.697170952@dbc.mtview.ca.us>".into(),
        digest: digest.into(),
    };
    assert!(matches!(
        checkpw.ask(&apop("c4c9334bac560ecc979e58001b3e22fb")),
        Answer::Granted(_)
    ));
    assert!(matches!(
        checkpw.ask(&apop("d4c9334bac560ecc979e58001b3e22fb")),
        Answer::Refused { .. }
    ));
}

#[test]
fn who_exists_is_known_without_a_password() {
    let Host { checkpw, dir: _dir } = host(Service::Smtp);
    let lookup = |name: &str| checkpw.ask(&Request::Lookup { name: name.into() });
    assert!(matches!(lookup("TIM"), Answer::Found(user) if user.uid == 1));
    assert!(matches!(lookup("nobody"), Answer::Unknown));
    assert!(matches!(lookup("../tim"), Answer::Unknown));
}

#[test]
fn a_checkpw_that_dies_is_started_again() {
    let Host { checkpw, dir } = host(Service::Smtp);
    let lookup = Request::Lookup { name: "tim".into() };
    assert!(matches!(checkpw.ask(&lookup), Answer::Found(_)));
    std::thread::sleep(Duration::from_millis(1100));
    signal_all(&dir, Signal::SIGKILL);
    let found = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        matches!(checkpw.ask(&lookup), Answer::Found(_))
    });
    assert!(found);
}

#[test]
fn the_clock_does_not_tell_a_wrong_password_from_an_unknown_user() {
    let Host { checkpw, dir: _dir } = host(Service::Pop3);
    for name in ["tim", "tom", "nobody", "no/body", ""] {
        let begun = Instant::now();
        let request = Request::Password {
            name: name.into(),
            password: b"wrong".to_vec(),
        };
        let answer = checkpw.ask(&request);
        let Answer::Refused { delay } = answer else {
            panic!("{name}: {answer:?}");
        };
        let said = begun.elapsed() + delay;
        assert!(delay <= Duration::from_secs(2), "{name}: {delay:?}");
        assert!(said >= Duration::from_millis(1999), "{name}: {said:?}");
    }
}

#[test]
fn users_that_cannot_be_read_are_told_at_the_start() {
    let start = |dir: &tempfile::TempDir| {
        let root = Root::new(dir.path());
        let failed = Checkpw::start_program(Path::new(PROGRAM), &root, None, Service::Imap);
        failed.err().unwrap()
    };
    let broken = folder("tim:{ROT13}x:1:2\n");
    assert_eq!(start(&broken).code(), Sysexit::Config);
    let gone = folder("");
    std::fs::remove_file(gone.path().join("etc/yubin/users")).unwrap();
    assert_eq!(start(&gone).code(), Sysexit::TempFail);
}

#[test]
fn the_signal_for_its_daemon_does_not_end_it() {
    let Host { checkpw, dir } = host(Service::Smtp);
    signal_all(&dir, Signal::SIGTERM);
    signal_all(&dir, Signal::SIGINT);
    let lookup = Request::Lookup { name: "tim".into() };
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(10));
        assert!(matches!(checkpw.ask(&lookup), Answer::Found(_)));
    }
}

/// What is no request costs nothing but itself, and the end of the socket is the end.
#[test]
fn garbage_is_not_answered_and_kills_nothing() {
    let dir = folder("tim:{PLAIN}tanstaaf:1:2\n");
    let (ours, theirs) = Packets::pair().unwrap();
    let mut child = Command::new(PROGRAM)
        .env("YUBIN_ROOT", dir.path())
        .args(["--service", "pop3"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for garbage in [
        &b"\xff"[..],
        b"\xff\xff\xff\xff",
        &[b'x'; 70_000],
        b"\0\0\0\x01a",
    ] {
        send(ours.as_raw_fd(), garbage, MsgFlags::empty()).unwrap();
    }
    let id = 7_u64.to_be_bytes();
    for request in [
        &[&id[..]][..],
        &[&id, b"password", b"tim"],
        &[&id, b"begin", &id, b"GSSAPI", b"tanstaaf"],
        &[&id, b"lookup", b"\xff"],
        &[b"7", b"lookup", b"tim"],
        &[&id, b"reboot"],
    ] {
        ours.send(request, &[]).unwrap();
    }
    ours.send(&[&id, b"password", b"tim", b"tanstaaf"], &[])
        .unwrap();
    let answer = ours.receive().unwrap().unwrap();
    assert_eq!(
        answer.parts[..3],
        [id.to_vec(), b"granted".to_vec(), b"pool".to_vec()]
    );
    drop(ours);
    let (mut said, mut stderr) = (String::new(), child.stderr.take().unwrap());
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert!(
        said.contains("garbage") && !said.contains("tanstaaf"),
        "{said}"
    );
}
