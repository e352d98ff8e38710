//! The real `checkpw` behind its socket, as a daemon uses it.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use account::verifier::{Hash, Salted, Verifier};
use account::{Answer, Channel, Checkpw, Mechanism, Request, Service, StoreAccess};
use base::packet::Packets;
use base::{Root, Sysexit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
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
    for sub in ["etc/yubin", "var/spool/mail", "var/spool/yubin-mail"] {
        std::fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    std::fs::write(dir.path().join("etc/yubin/users"), users).unwrap();
    dir
}

fn host(service: Service) -> Host {
    // tom's is `openssl passwd -6 -salt saltstring 'Hello world!'`, pam's is "pencil" (RFC 7677 3).
    let dir = folder(
        "tim:{PLAIN}tanstaaf:1:2:Tim:/home/tim\n\
         tom:{CRYPT}$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1:3:4\n\
         pam:{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=:5:6\n",
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
        channel: Channel::default(),
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
        channel: Channel::default(),
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

/// RFC 5802 3, the client's side.
fn proof(hash: Hash, salted: &Salted, password: &str, auth_message: &str) -> Vec<u8> {
    let key = hash.hmac(&hash.stretch(password.as_bytes(), salted), b"Client Key");
    let signature = hash.hmac(&hash.digest(&key), auth_message.as_bytes());
    key.iter().zip(signature).map(|(k, s)| k ^ s).collect()
}

/// A SCRAM client: what it hears at the end, after how many challenges, and with which salt.
fn scram(checkpw: &Checkpw, hash: Hash, name: &str, password: &str) -> (Answer, usize, Salted) {
    let conversation = checkpw.conversation();
    let begin = Request::Begin {
        conversation,
        mechanism: Mechanism::parse(hash.scheme()).unwrap(),
        channel: Channel::default(),
        initial: Some(format!("n,,n={name},r=theirs").into_bytes()),
    };
    let go_on = |response: String| {
        checkpw.ask(&Request::Continue {
            conversation,
            response: response.into_bytes(),
        })
    };
    let first = match checkpw.ask(&begin) {
        Answer::Challenge(first) => String::from_utf8(first).unwrap(),
        other => panic!("{name}: {other:?}"),
    };
    let fields: Vec<&str> = first.split(',').map(|f| f.get(2..).unwrap()).collect();
    let [nonce, salt, iterations] = fields[..] else {
        panic!("{first}");
    };
    assert!(nonce.starts_with("theirs") && nonce.len() == 30, "{nonce}");
    let salted = Salted {
        iterations: iterations.parse().unwrap(),
        salt: STANDARD.decode(salt).unwrap(),
    };
    let unproven = format!("c=biws,r={nonce}");
    let auth_message = format!("n={name},r=theirs,{first},{unproven}");
    let keys = Verifier::derive(hash, salted.clone(), password.as_bytes());
    let proof = STANDARD.encode(proof(hash, &salted, password, &auth_message));
    match go_on(format!("{unproven},p={proof}")) {
        Answer::Challenge(last) => {
            let signature = STANDARD.encode(keys.signature(auth_message.as_bytes()));
            assert_eq!(last, format!("v={signature}").into_bytes());
            (go_on(String::new()), 2, salted)
        }
        answer => (answer, 1, salted),
    }
}

#[test]
fn scram_by_each_secret_and_by_none() {
    let Host { checkpw, dir } = host(Service::Smtp);
    for (name, password, hashes) in [
        ("tim", "tanstaaf", &Hash::ALL[..]),
        ("TIM", "tanstaaf", &Hash::ALL),
        ("pam", "pencil", &[Hash::Sha256]),
    ] {
        for &hash in hashes {
            let (answer, challenges, _) = scram(&checkpw, hash, name, password);
            let Answer::Granted(grant) = answer else {
                panic!("{name} by {hash:?}: {answer:?}");
            };
            assert_eq!(grant.user.name.as_str(), name.to_lowercase());
            assert_eq!(challenges, 2);
        }
    }
    // pam has no keys of this hash, tom has none at all, nobody is nobody.
    for (name, password) in [
        ("tim", "pencil"),
        ("pam", "pencil"),
        ("tom", "Hello world!"),
        ("nobody", ""),
        ("no/body", "x"),
    ] {
        let (answer, challenges, salted) = scram(&checkpw, Hash::Sha1, name, password);
        assert!(matches!(answer, Answer::Refused { .. }), "{name}");
        assert_eq!((challenges, salted.iterations.get()), (1, 10_000));
        assert_eq!(salted.salt.len(), 16);
        // Another daemon's checkpw says the same.
        let root = Root::new(dir.path());
        let program = Path::new(PROGRAM);
        let other = Checkpw::start_program(program, &root, None, Service::Pop3).unwrap();
        assert_eq!(scram(&other, Hash::Sha1, name, password).2, salted);
    }
    let password = Request::Password {
        name: "pam".into(),
        password: b"pencil".to_vec(),
    };
    assert!(matches!(checkpw.ask(&password), Answer::Granted(_)));
}

#[test]
fn cram_md5_by_a_plain_secret_only() {
    let Host { checkpw, dir: _dir } = host(Service::Smtp);
    let mut seen = Vec::new();
    for (name, password, granted) in [
        ("tim", "tanstaaf", true),
        ("tim", "tanstaa", false),
        ("tom", "Hello world!", false),
        ("pam", "pencil", false),
        ("nobody", "\0nobody", false),
    ] {
        let conversation = checkpw.conversation();
        let begin = Request::Begin {
            conversation,
            mechanism: Mechanism::CramMd5,
            channel: Channel::default(),
            initial: None,
        };
        let Answer::Challenge(challenge) = checkpw.ask(&begin) else {
            panic!("no challenge");
        };
        let mac = Hmac::<Md5>::new_from_slice(password.as_bytes()).unwrap();
        let mac = mac.chain_update(&challenge).finalize().into_bytes();
        let digest: String = mac.iter().map(|b| format!("{b:02x}")).collect();
        let response = format!("{name} {digest}").into_bytes();
        let answer = checkpw.ask(&Request::Continue {
            conversation,
            response,
        });
        match answer {
            Answer::Granted(_) => assert!(granted, "{name}"),
            Answer::Refused { .. } => assert!(!granted, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(!seen.contains(&challenge));
        seen.push(challenge);
    }
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
