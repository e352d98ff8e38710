//! deliver dies while it writes two messages into one mailbox: what is left of the first is cut off,
//! whichever of them is looked for first.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use tests::smtp::Smtp;
use tests::{Host, wait_for};

/// Octets that a file may have: the mailbox would have more with the first message.
const LIMIT: usize = 1 << 20;

#[test]
fn what_comes_behind_a_torn_tail_waits_until_that_is_cut() {
    let mut host = Host::new("MAILBOX_FORMAT=mbox\n");
    host.start("smtpd");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO test").unwrap();
    let mut queued = |to: &str, subject: &str, lines: usize| {
        let content = format!("Subject: {subject}\r\n\r\n{}", "x\r\n".repeat(lines));
        let reply = smtp.message("bob@yubin.test", &[to], &content).unwrap();
        let id = reply.trim_end().rsplit(' ').next().unwrap().to_owned();
        host.path("var/spool/yubin/local").join(id)
    };
    queued("alice@yubin.test", "long before them", 400_000);
    host.ok("deliver", &["-q"], b"");
    queued("alice@yubin.test", "before them", 1);
    let first = queued("alice@yubin.test", "first", 200_000);
    let second = queued("alice@yubin.test", "second", 1);

    // While the mailbox is locked the two gather, to be written together.
    let lock = host.path("var/spool/mail/alice.lock");
    File::create(&lock).unwrap();
    let script = format!(
        "trap '' XFSZ; ulimit -f {}; exec strace -f -qq -o /dev/null -e trace=ftruncate \
         -e inject=ftruncate:signal=KILL deliver -q",
        LIMIT / 512
    );
    let mut deliver = std::process::Command::new("sh");
    for (name, value) in host.command("deliver").get_envs() {
        deliver.env(name, value.unwrap_or_default());
    }
    let mut deliver = deliver.args(["-c", &script]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    fs::remove_file(&lock).unwrap();
    deliver.wait().unwrap();
    let mailbox = fs::metadata(host.path("var/spool/mail/alice")).unwrap();
    assert_eq!(mailbox.len(), LIMIT as u64, "it is not torn");

    // The second is found before the first, and there is time between them.
    for number in 0..200 {
        queued("bob@yubin.test", &number.to_string(), 1);
    }
    let due = |path: &std::path::Path, ago: u64| {
        let file = File::options().write(true).open(path).unwrap();
        let time = SystemTime::now() - Duration::from_secs(ago);
        file.set_modified(time).unwrap();
    };
    due(&second, 3600);
    due(&first, 0);
    wait_for("an empty queue", || {
        host.run("deliver", &["-q"], b"");
        host.ok("mailq", &[], b"")
            .contains("queue is empty")
            .then_some(())
    });
    let mailbox = host.mbox("alice");
    let subjects: Vec<&str> = mailbox
        .lines()
        .filter_map(|line| line.strip_prefix("Subject: "))
        .collect();
    assert_eq!(subjects.len(), 4, "{subjects:?}");
}
