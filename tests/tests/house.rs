//! The house itself: `make run`, `make install`, and the pages that must agree with the programs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::foreign::ok;
use tests::host::{free_ports, programs};
use tests::wait_for;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

#[test]
fn make_run_gets_ready_and_stops_clean() {
    let dir = tempfile::tempdir().unwrap();
    let ports: [u16; 7] = free_ports();
    let names = [
        "SMTP_PORT",
        "SUBMISSION_PORT",
        "SMTPS_PORT",
        "POP3_PORT",
        "POP3S_PORT",
        "IMAP_PORT",
        "IMAPS_PORT",
    ];
    // Twice: a root that is there already starts as well.
    for _ in 0..2 {
        let mut run = Command::new(source().join("etc/run"));
        run.env("ROOT", dir.path().join("root"))
            .env("LISTEN", "127.0.0.1")
            .env("DOMAIN", "run.test")
            .env("PROGRAMS", programs())
            .stdout(Stdio::piped());
        for (name, port) in names.iter().zip(ports) {
            run.env(name, port.to_string());
        }
        let mut run = run.spawn().unwrap();
        // Held to the end, so that the last words have somewhere to go.
        let mut stdout = BufReader::new(run.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let lines: Vec<_> = stdout.by_ref().take_while(|l| l != "ready").collect();
        let said = lines.join("\n");
        assert!(said.contains("Subject: Welcome to yubin"), "{said}");
        let sink = format!("smtp://127.0.0.1:{}", ports[0]);
        ok(
            "curl",
            &[
                "-sS",
                "--mail-from",
                "a@b.test",
                "--mail-rcpt",
                "alice@run.test",
                "-T",
                "-",
                &sink,
            ],
            b"Subject: c\r\n\r\nx\r\n",
        );
        ok(
            "curl",
            &[
                "-sS",
                "-u",
                "bob:bob",
                &format!("pop3://127.0.0.1:{}/", ports[3]),
            ],
            b"",
        );
        let pid = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = wait_for("make run to stop", || run.try_wait().unwrap());
        assert!(status.success(), "{status}");
        for port in ports {
            assert!(
                std::net::TcpStream::connect(("127.0.0.1", port)).is_err(),
                "port {port} is still served"
            );
        }
    }
}

#[test]
fn make_install_puts_everything_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path();
    let status = Command::new(source().join("etc/install"))
        .env("DESTDIR", dest)
        .env("PREFIX", "/usr")
        .env("PROGRAMS", programs())
        .status()
        .unwrap();
    assert!(status.success());
    for file in [
        "usr/sbin/smtpd",
        "usr/sbin/qrun",
        "usr/sbin/deliver",
        "usr/sbin/pop3d",
        "usr/sbin/imapd",
        "usr/sbin/checkpw",
        "usr/sbin/sendmail",
        "usr/lib/sendmail",
        "usr/bin/mailq",
        "usr/bin/newaliases",
        "usr/bin/mail",
        "usr/lib/systemd/system/yubin-smtpd.service",
        "usr/lib/systemd/system/yubin.target",
        "usr/lib/sysusers.d/yubin.conf",
        "usr/lib/tmpfiles.d/yubin.conf",
        "etc/yubin/yubin.def",
        "etc/aliases",
        "usr/share/man/man8/smtpd.8",
        "usr/share/man/man8/qrun.8",
        "usr/share/man/man8/deliver.8",
        "usr/share/man/man8/pop3d.8",
        "usr/share/man/man8/imapd.8",
        "usr/share/man/man8/checkpw.8",
        "usr/share/man/man8/sendmail.8",
        "usr/share/man/man1/mailq.1",
        "usr/share/man/man1/newaliases.1",
        "usr/share/man/man1/mail.1",
        "usr/share/man/man5/yubin.def.5",
        "usr/share/man/man5/aliases.5",
        "usr/share/man/man5/yubin-users.5",
    ] {
        assert!(dest.join(file).exists(), "{file}");
    }
}

#[test]
fn yubin_def_5_names_every_key_and_no_other() {
    let page = std::fs::read_to_string(source().join("etc/man/yubin.def.5")).unwrap();
    let named: Vec<&str> = page
        .lines()
        .filter_map(|l| l.strip_prefix(".It Ev "))
        .filter(|n| !n.starts_with("YUBIN_"))
        .collect();
    let known: Vec<&str> = base::config::KEYS.iter().map(|k| k.name).collect();
    assert_eq!(named, known);
}

#[test]
fn the_sample_configuration_is_good() {
    let root = base::Root::new("/nonexistent");
    base::Config::load(&root, Some(&source().join("etc/yubin.def"))).unwrap();
    let text = std::fs::read_to_string(source().join("etc/yubin.def")).unwrap();
    let all: String = text
        .lines()
        .map(|l| l.strip_prefix('#').filter(|l| l.contains('=')).unwrap_or(l))
        .map(|l| format!("{l}\n"))
        .collect();
    base::Config::parse(&root, &all, Path::new("etc/yubin.def")).unwrap();
}
