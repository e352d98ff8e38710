//! `strace -f` of an accept: the syncs stand before the 250.

use std::fs;
use std::process::Command;

use tests::smtp::Smtp;
use tests::{Host, wait_for};

/// What smtpd does for one message.
fn traced(host: &mut Host) -> String {
    let trace = host.path("trace");
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-y",
            "-s",
            "64",
            "-e",
            "trace=fdatasync,fsync,syncfs,linkat,write,pwrite64,sendto,writev",
            "-o",
        ])
        .arg(&trace)
        .args(["-p", &host.pid("smtpd").to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for("strace", || {
        let threads = fs::read_dir(format!("/proc/{}/task", host.pid("smtpd"))).unwrap();
        let mut statuses = threads.map(|t| fs::read_to_string(t.unwrap().path().join("status")));
        let traced = |status: std::io::Result<String>| !status.unwrap().contains("TracerPid:\t0\n");
        statuses.all(traced).then_some(())
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
    fs::read_to_string(&trace).unwrap()
}

fn at(text: &str, what: &str) -> usize {
    let found = text.lines().position(|l| l.contains(what));
    found.unwrap_or_else(|| panic!("no {what} in\n{text}"))
}

#[test]
fn the_syncs_stand_before_the_250() {
    let mut host = Host::new("COMMIT_LOG=0\n");
    host.start("smtpd");
    let text = traced(&mut host);
    let at = |what| at(&text, what);
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

#[test]
fn with_a_commit_log_its_sync_stands_before_the_250_and_no_other() {
    let mut host = Host::new("");
    host.start("smtpd");
    // The first message has the log made.
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO test").unwrap();
    let to = ["alice@yubin.test"];
    smtp.message("bob@yubin.test", &to, "Subject: x\r\n\r\nx\r\n")
        .unwrap();
    wait_for("the log", || {
        let mut dir = fs::read_dir(host.path("var/spool/yubin/log")).unwrap();
        dir.next().map(|_| ())
    });
    let text = traced(&mut host);
    let lines = || text.lines().enumerate();
    let (written, line) = lines()
        .find(|(_, l)| l.contains("\"batch"))
        .unwrap_or_else(|| panic!("nothing in the log:\n{text}"));
    let segment = line.split(['<', '>']).nth(1).unwrap();
    let acknowledged = at(&text, "queued as");
    // The thread that makes the next segment syncs that one and its name whenever it is done with it.
    let others = |l: &str| l.contains("/spool/yubin/log") && !l.contains(segment);
    let syncs: Vec<usize> = lines()
        .take(acknowledged)
        .filter(|(_, l)| (l.contains("sync(") || l.contains("syncfs(")) && !others(l))
        .map(|(at, _)| at)
        .collect();
    assert!(syncs.len() == 1 && written < syncs[0], "{text}");
}
