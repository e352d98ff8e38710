//! `strace -f` of an accept: the syncs stand before the 250.

use std::fs;
use std::process::Command;

use tests::smtp::Smtp;
use tests::{Host, wait_for};

#[test]
fn the_syncs_stand_before_the_250() {
    let mut host = Host::new("");
    host.start("smtpd");
    let trace = host.path("trace");
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-y",
            "-s",
            "64",
            "-e",
            "trace=fdatasync,fsync,linkat,write,sendto,writev",
            "-o",
        ])
        .arg(&trace)
        .args(["-p", &host.pid("smtpd").to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for("strace", || {
        let status = fs::read_to_string(format!("/proc/{}/status", host.pid("smtpd"))).unwrap();
        (!status.contains("TracerPid:\t0\n")).then_some(())
    });
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO test").unwrap();
    let reply = smtp
        .message(
            "bob@yubin.test",
            &["alice@yubin.test"],
            "Subject: x\r\n\r\nx\r\n",
        )
        .unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    wait_for("the trace", || {
        fs::read_to_string(&trace)
            .unwrap()
            .contains("queued as")
            .then_some(())
    });
    host.kill9("smtpd");
    strace.wait().unwrap();
    let text = fs::read_to_string(&trace).unwrap();
    let at = |what: &str| {
        let found = text.lines().position(|l| l.contains(what));
        found.unwrap_or_else(|| panic!("no {what} in\n{text}"))
    };
    let acknowledged = at("queued as");
    let file = at("fdatasync(");
    let link = at("linkat(");
    let directory = text
        .lines()
        .position(|l| l.contains("fsync(") && !l.contains("fdatasync(") && l.contains("/local>"));
    let directory = directory.unwrap_or_else(|| panic!("the directory is not synced:\n{text}"));
    assert!(
        link < file && file < directory && directory < acknowledged,
        "{text}"
    );
}
