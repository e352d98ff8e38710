//! The power fails between the 250 and the mailbox: smtpd and deliver under strace, and after every
//! cut a deliver that has to bring each answered message to the mailbox, once. See power_cut.rs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tests::powercut::{Disk, Fate, Random, Tree, What, unlucky};
use tests::smtp::Smtp;
use tests::{Host, strace, wait_for};

/// Messages that are sent while strace looks on.
const SENT: usize = 4;

/// Messages come in by SMTP and go to a mailbox while strace looks on.
fn recorded_way(host: &Host, log: bool) -> Disk {
    let with_log = log;
    let outside = TempDir::new().unwrap();
    let (log, pids) = (outside.path().join("log"), outside.path().join("pids"));
    let before = Tree::read(host.root());
    let mut traced = strace::command(&log);
    for (name, value) in host.command("smtpd").get_envs() {
        traced.env(name, value.unwrap_or_default());
    }
    let mut traced = traced
        .args([
            "sh",
            "-c",
            "smtpd & echo $! >$0; deliver & echo $! >>$0; wait",
        ])
        .arg(&pids)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace has to be installed");
    let mut smtp = wait_for("smtpd", || Smtp::connect(host.smtp).ok());
    smtp.ask("EHLO test").unwrap();
    for number in 0..SENT {
        let filler = "x".repeat(number * 900);
        let content = format!("Subject: {number}\r\n\r\n{}\r\n{filler}\r\n", mark(number));
        let reply = smtp
            .message("bob@yubin.test", &["alice@yubin.test"], &content)
            .unwrap();
        assert!(reply.starts_with("250"), "{reply}");
        if with_log {
            // The first message goes its way without; the others are to find both of them.
            wait_for("the commit logs", || {
                let dir = fs::read_dir(host.path("var/spool/yubin/log")).unwrap();
                let names: Vec<_> = dir.map(|e| e.unwrap().file_name()).collect();
                let has = |side: &str| {
                    names
                        .iter()
                        .any(|name| name.to_string_lossy().starts_with(side))
                };
                (has("accept.") && has("work.")).then_some(())
            });
        }
    }
    wait_for("an empty queue", || {
        let left = fs::read_dir(host.path("var/spool/yubin/local"))
            .unwrap()
            .count();
        (left == 0 && mailbox(host.root()).contains(&mark(SENT - 1))).then_some(())
    });
    for pid in fs::read_to_string(&pids).unwrap().lines() {
        kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGTERM).unwrap();
    }
    traced.wait().unwrap();
    Disk::record(
        host.root(),
        before,
        &strace::read(&fs::read_to_string(&log).unwrap()),
    )
}

fn mark(number: usize) -> String {
    format!("mark-{number}-end")
}

/// All that alice has: one mbox, or all files of a Maildir.
fn mailbox(root: &Path) -> String {
    let path = root.join("var/spool/mail/alice");
    let read =
        |path: PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    if path.is_file() {
        return read(path);
    }
    let files = ["new", "cur"].map(|dir| fs::read_dir(path.join(dir)));
    files
        .into_iter()
        .flatten()
        .flatten()
        .flatten()
        .map(|entry| read(entry.path()))
        .collect()
}

/// How many messages smtpd had answered for when the power failed. They were sent one after the
/// other, so these are the first ones.
fn answered(disk: &Disk, moment: usize) -> usize {
    disk.said(moment)
        .filter(|text| text.starts_with(b"250 "))
        .map(|text| String::from_utf8_lossy(text).matches("queued as").count())
        .sum()
}

/// What is wrong in the mailbox after the power is back and deliver has run.
fn wrong_mailbox(host: &Host, tree: &Tree, answered: usize) -> Option<String> {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        TempDir::new_in(memory)
    } else {
        TempDir::new()
    }
    .unwrap();
    // A dotlock from before the power cut names a process of another boot, in full or torn; when it
    // is broken is not this test's question.
    let is_lock = |path: &Path| path.to_string_lossy().contains("/alice.lock");
    tree.clone().without(is_lock).write(dir.path());
    let output = host
        .command("deliver")
        .arg("-q")
        .env("YUBIN_ROOT", dir.path())
        .output()
        .unwrap();
    let mailbox = mailbox(dir.path());
    let said = String::from_utf8_lossy(&output.stderr);
    for number in 0..SENT {
        let count = mailbox.matches(&mark(number)).count();
        let right = if number < answered {
            count == 1
        } else {
            count <= 1
        };
        if !right {
            return Some(format!(
                "message {number} of {answered} is there {count} times\n{said}\n{mailbox}"
            ));
        }
    }
    let (ids, marks) = (
        mailbox.matches("Delivered-To: alice@").count(),
        mailbox.matches("-end").count(),
    );
    (ids != marks).then(|| format!("{ids} messages with {marks} bodies\n{said}\n{mailbox}"))
}

#[test]
fn from_the_250_to_the_mailbox_nothing_is_lost_or_doubled() {
    for (format, log) in [("mbox", "0"), ("mbox", "64K"), ("maildir", "64K")] {
        let config = format!("MAILBOX_FORMAT={format}\nCOMMIT_LOG={log}\n");
        let mut host = Host::new(&config);
        let needed: &[&str] = match log {
            "0" => &["new file", "lane", "journal", "mailbox"],
            _ => &["log", "mailbox"],
        };
        // A mailbox that is not new, and all that the first start makes.
        host.start("smtpd");
        host.start("deliver");
        let mut smtp = Smtp::connect(host.smtp).unwrap();
        smtp.ask("EHLO test").unwrap();
        let old = "Subject: old\r\n\r\nmark-old-end\r\n";
        smtp.message("bob@yubin.test", &["alice@yubin.test"], old)
            .unwrap();
        wait_for("the old message", || {
            mailbox(host.root()).contains("mark-old-end").then_some(())
        });
        host.stop("smtpd");
        host.stop("deliver");
        let disk = recorded_way(&host, log != "0");
        assert_eq!(answered(&disk, usize::MAX), SENT);
        every_cut(&host, &disk, &config);
        every_forgotten_sync(&host, &disk, &config, needed);
    }
}

fn every_cut(host: &Host, disk: &Disk, format: &str) {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for moment in disk.moments() {
        let answered = answered(disk, moment);
        let seed = random.0;
        let trees = [
            disk.cut(moment, None, &mut unlucky),
            disk.cut(moment, None, &mut |_| Fate::Kept),
            disk.cut(moment, None, &mut |op| random.fate(op)),
            disk.cut(moment, None, &mut |op| random.fate(op)),
        ];
        for tree in trees {
            if let Some(what) = wrong_mailbox(host, &tree, answered) {
                panic!("{format}: power cut after line {moment}, seed {seed:#x}: {what}");
            }
        }
    }
}

/// The control: the data and the name of what was accepted, and what deliver says before and after
/// it writes, have to be synced.
fn every_forgotten_sync(host: &Host, disk: &Disk, format: &str, kinds: &[&str]) {
    let mut needed = Vec::new();
    for (at, op) in disk.ops.iter().enumerate() {
        let kind = match &op.what {
            What::SyncFile { path, .. } if path.starts_with("var/spool/mail") => "mailbox",
            What::SyncFile { path, .. } if path.to_string_lossy().contains("local/#") => "new file",
            What::SyncFile { path, .. } if path.starts_with("var/spool/yubin/local") => "journal",
            What::SyncFile { path, .. } if path.starts_with("var/spool/yubin/log") => "log",
            What::SyncDir { path } if path.ends_with("local") => "lane",
            _ => continue,
        };
        if !kinds.contains(&kind) || needed.contains(&kind) {
            continue;
        }
        let lost = disk.moments().into_iter().any(|moment| {
            let tree = disk.cut(moment, Some(at), &mut unlucky);
            !tree.same(&disk.cut(moment, None, &mut unlucky))
                && wrong_mailbox(host, &tree, answered(disk, moment)).is_some()
        });
        if lost {
            needed.push(kind);
        }
    }
    for kind in kinds {
        assert!(
            needed.contains(kind),
            "{format}: a {kind} need not be synced? {needed:?}"
        );
    }
}
