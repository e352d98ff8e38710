//! The real `checkpw` behind its socket, as a daemon uses it.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use std::path::Path;
use std::time::Duration;

use account::{Answer, Checkpw, Mechanism, Request, Service, StoreAccess};
use base::Root;

struct Host {
    dir: tempfile::TempDir,
    checkpw: Checkpw,
}

fn host(service: Service) -> Host {
    let dir = tempfile::tempdir().unwrap();
    for sub in ["etc/yubin", "var/spool/mail"] {
        std::fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    std::fs::write(
        dir.path().join("etc/yubin/users"),
        "tim:{PLAIN}tanstaaf:1:2:Tim:/home/tim\n",
    )
    .unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_checkpw"));
    let checkpw = Checkpw::start_program(program, &Root::new(dir.path()), None, service).unwrap();
    Host { dir, checkpw }
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
    assert!(matches!(lookup("tom"), Answer::Unknown));
    assert!(matches!(lookup("../tim"), Answer::Unknown));
}

#[test]
fn a_checkpw_that_dies_is_started_again() {
    let Host { checkpw, dir } = host(Service::Smtp);
    let lookup = Request::Lookup { name: "tim".into() };
    assert!(matches!(checkpw.ask(&lookup), Answer::Found(_)));
    std::thread::sleep(Duration::from_millis(1100));
    let mark = format!("YUBIN_ROOT={}", dir.path().display());
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let of = |file: &str| std::fs::read(process.path().join(file)).unwrap_or_default();
        if of("comm") == b"checkpw\n" && String::from_utf8_lossy(&of("environ")).contains(&mark) {
            let pid = process.file_name().to_str().unwrap().parse().unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL)
                .unwrap();
        }
    }
    let found = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        matches!(checkpw.ask(&lookup), Answer::Found(_))
    });
    assert!(found);
}
