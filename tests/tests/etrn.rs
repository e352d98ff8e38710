//! ETRN (RFC 1985): we keep the mail of a domain whose host is down; the host comes up and asks for
//! it, by fetchmail; and what was asked for while nobody ran the queue is not forgotten.

use std::process::Command;
use std::time::{Duration, Instant};

use tests::foreign::ForeignMta;
use tests::host::{feed, free_ports};
use tests::smtp::Smtp;
use tests::{Host, wait_for};

const ZONE: &str = "other.test. IN MX 10 mx.other.test.\nmore.test. IN MX 10 mx.other.test.\n\
                    deep.more.test. IN MX 10 mx.other.test.\nmx.other.test. IN A 127.0.0.1\n";

/// A second MX for domains whose host is at `port`.
fn second_mx(port: u16) -> Host {
    let mut host = Host::new(&format!(
        "RELAY_PORT={port}\nMY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\n\
         RELAY_DOMAINS='other.test more.test'\nMIN_BACKOFF=1h\nMAX_BACKOFF=4h\n"
    ));
    host.write("etc/yubin/zone", ZONE);
    for program in tests::host::DAEMONS {
        host.start(program);
    }
    host
}

fn bring(host: &Host, to: &[&str]) {
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO stranger.example").unwrap();
    for to in to {
        let reply = smtp.message("a@b.c", &[to], "Subject: x\r\n\r\nx\r\n");
        assert!(reply.unwrap().starts_with("250 "));
    }
}

/// All of them were tried and are put off.
fn wait_put_off(host: &Host, count: usize) {
    wait_for("deferrals", || {
        let shown = host.ok("mailq", &["-j"], b"");
        let tried = shown.matches("refused").count();
        (tried >= count).then_some(())
    });
}

fn etrn(host: &Host, node: &str) -> String {
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    let hello = smtp.ask("EHLO mx.other.test").unwrap();
    assert!(hello.contains("250-ETRN\r\n"), "{hello}");
    smtp.ask(&format!("ETRN {node}")).unwrap()
}

fn wait_for_messages(foreign: &ForeignMta, count: usize) -> String {
    wait_for("the foreign MTA", || {
        let got = foreign.messages();
        (got.len() == count).then(|| got.concat())
    })
}

#[test]
fn fetchmail_has_the_mail_of_its_host_sent_at_once() {
    let [port] = free_ports();
    let host = second_mx(port);
    bring(&host, &["ann@other.test"]);
    wait_put_off(&host, 1);
    // Its host is known to be dead now.
    bring(&host, &["bob@other.test", "who@more.test"]);
    wait_put_off(&host, 3);

    let dir = tempfile::tempdir().unwrap();
    let foreign = ForeignMta::start_at(dir.path(), port);
    let began = Instant::now();
    let rc = host.path("fetchmailrc");
    let text = format!(
        "poll 127.0.0.1 service {} protocol etrn timeout 20\n  user ann smtphost other.test fetchdomains other.test sslproto ''\n",
        host.smtp
    );
    std::fs::write(&rc, text).unwrap();
    std::fs::set_permissions(&rc, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let out = feed(
        Command::new("fetchmail")
            .args(["-f", rc.to_str().unwrap(), "--nosyslog", "-v", "--pidfile"])
            .arg(host.path("fetchmail.pid"))
            .env("HOME", host.path("home"))
            .env("FETCHMAILHOME", host.path("home")),
        b"",
    );
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("ETRN> ETRN other.test"), "{said}{out:?}");
    let got = wait_for_messages(&foreign, 2);
    assert!(got.contains("ann@other.test") && got.contains("bob@other.test"));
    assert!(began.elapsed() < Duration::from_secs(30));
    // Nobody has asked for the other domain's.
    assert!(host.ok("mailq", &[], b"").contains("who@more.test"));
    assert!(
        host.log()
            .contains("flush other.test: asked for by unknown[127.0.0.1]")
    );
}

#[test]
fn what_was_asked_for_is_not_forgotten_and_strangers_get_nothing() {
    let [port] = free_ports();
    let mut host = second_mx(port);
    bring(
        &host,
        &["ann@other.test", "who@more.test", "who@deep.more.test"],
    );
    wait_put_off(&host, 3);
    host.kill9("qrun");
    let dir = tempfile::tempdir().unwrap();
    let foreign = ForeignMta::start_at(dir.path(), port);
    for (node, reply) in [
        (
            "@more.test",
            "250 2.0.0 OK, queuing for node <@more.test> started",
        ),
        ("@MORE.test", "250 2.0.0 "),
        ("yubin.test", "459 4.7.1 "),
        ("#more.test", "459 4.7.1 "),
        ("../relay", "501 5.5.4 "),
    ] {
        let said = etrn(&host, node);
        assert!(said.starts_with(reply), "{node}: {said}");
    }
    let left = std::fs::read_dir(host.path("var/spool/yubin/flush")).unwrap();
    assert_eq!(left.count(), 1);
    host.start("qrun");
    let got = wait_for_messages(&foreign, 2);
    assert!(got.contains("who@more.test") && got.contains("who@deep.more.test"));
    // Who runs the queue by hand has all of it tried, as ever.
    host.ok("sendmail", &["-qRother.test"], b"");
    wait_for_messages(&foreign, 3);
    wait_for("an empty queue", || {
        host.ok("mailq", &[], b"")
            .contains("is empty")
            .then_some(())
    });
}

#[test]
fn who_wants_none_announces_none() {
    let mut host = Host::new("RELAY_DOMAINS=other.test\nETRN_DOMAINS=none\n");
    host.start("smtpd");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    assert!(!smtp.ask("EHLO mx.other.test").unwrap().contains("ETRN"));
    let said = smtp.ask("ETRN other.test").unwrap();
    assert!(said.starts_with("502 5.5.1 "), "{said}");
}
