//! Wrong options, wrong lines, wrong bytes, no room: each gets a clear answer and loses nothing.

use std::fs;
use std::time::{Duration, Instant};

use tests::smtp::Smtp;
use tests::{Host, wait_for};

#[test]
fn every_program_names_the_bad_line_and_its_mend() {
    let host = Host::new("");
    let def = host.path("etc/yubin/yubin.def");
    let good = fs::read_to_string(&def).unwrap();
    fs::write(&def, format!("{good}MY_DOMIAN=x\n")).unwrap();
    let line = good.lines().count() + 1;
    for program in ["smtpd", "qrun", "deliver", "pop3d", "imapd"] {
        let out = host.run(program, &["-n"], b"");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(78), "{program}: {said}");
        assert!(
            said.contains(&format!("yubin.def:{line}: MY_DOMIAN")),
            "{program}: {said}"
        );
        assert!(said.contains("MY_DOMAIN"), "{program}: {said}");
    }
    fs::write(&def, good).unwrap();
    for program in ["smtpd", "qrun", "deliver", "pop3d", "imapd"] {
        assert!(
            host.run(program, &["-n"], b"").status.success(),
            "{program}"
        );
    }
}

#[test]
fn an_unknown_option_is_a_usage_error_and_help_is_not() {
    let host = Host::new("");
    for program in [
        "smtpd",
        "qrun",
        "deliver",
        "pop3d",
        "imapd",
        "sendmail",
        "mailq",
        "newaliases",
        "mail",
    ] {
        let out = host.run(program, &["-Z"], b"");
        assert_eq!(
            out.status.code(),
            Some(64),
            "{program}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(!out.stderr.is_empty(), "{program}");
        let out = host.run(program, &["--help"], b"");
        assert!(
            out.status.success(),
            "{program} --help: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(
            String::from_utf8_lossy(&out.stdout).contains(program),
            "{program}"
        );
    }
    let out = host.run("sendmail", &[], b"x\n");
    assert_eq!(
        out.status.code(),
        Some(64),
        "no recipients: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn a_bad_alias_line_is_named() {
    let host = Host::new("");
    host.write("etc/aliases", "postmaster: alice\nno colon here\n");
    let out = host.run("newaliases", &[], b"");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(65), "{said}");
    assert!(said.contains("aliases:2:"), "{said}");
}

#[test]
fn long_lines_many_commands_and_garbage_end_in_a_reply() {
    let mut host = Host::started("RECIPIENT_LIMIT=10\nMESSAGE_SIZE_LIMIT=100K\n");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    let reply = smtp.ask(&format!("EHLO {}", "x".repeat(70_000))).unwrap();
    assert!(reply.starts_with('5'), "{reply}");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO test").unwrap();
    assert!(
        smtp.ask("MAIL FROM:<bob@yubin.test> SIZE=999999")
            .unwrap()
            .starts_with("552 5.3.4")
    );
    assert!(
        smtp.ask("MAIL FROM:<bob@yubin.test> FOO=1")
            .unwrap()
            .starts_with("555")
    );
    assert!(
        smtp.ask("RCPT TO:<alice@yubin.test>")
            .unwrap()
            .starts_with("503")
    );
    smtp.ask("MAIL FROM:<bob@yubin.test>").unwrap();
    for i in 0..12 {
        let reply = smtp
            .ask(&format!("RCPT TO:<alice+{i}@yubin.test>"))
            .unwrap();
        assert_eq!(reply.starts_with("250"), i < 10, "{i}: {reply}");
    }
    assert!(smtp.ask("DATA").unwrap().starts_with("354"));
    let line = format!("{}\r\n", "y".repeat(998));
    for _ in 0..200 {
        smtp.send(line.as_bytes()).unwrap();
    }
    let reply = smtp.ask(".").unwrap();
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    assert!(
        smtp.ask("NOOP").unwrap().starts_with("250"),
        "the session goes on"
    );
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.send(&[0, 255, 13, 7, 10, 0, 13, 10, 200, 13, 10])
        .unwrap();
    assert!(smtp.reply().unwrap().starts_with('5'));
    assert!(host.is_running("smtpd"));
}

#[test]
fn a_full_disk_is_452_before_the_data() {
    let host = Host::started("MIN_FREE_SPACE=9000000G\n");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO test").unwrap();
    let reply = smtp.ask("MAIL FROM:<bob@yubin.test>").unwrap();
    assert!(reply.starts_with("452 4.3.1"), "{reply}");
}

#[test]
fn a_damaged_queue_file_is_put_aside_and_reported() {
    let mut host = Host::new("");
    host.start("smtpd");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO test").unwrap();
    let reply = smtp
        .message(
            "bob@yubin.test",
            &["alice@yubin.test"],
            "Subject: x\r\n\r\nbody\r\n",
        )
        .unwrap();
    let id = reply.trim().rsplit(' ').next().unwrap().to_owned();
    let file = host.path(&format!("var/spool/yubin/local/{id}"));
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, bytes).unwrap();
    // A sound one behind it is delivered all the same.
    smtp.message(
        "bob@yubin.test",
        &["alice@yubin.test"],
        "Subject: sound\r\n\r\nbody\r\n",
    )
    .unwrap();
    host.start("deliver");
    assert!(host.wait_for_mail("alice", 1).contains("Subject: sound"));
    assert!(host.path(&format!("var/spool/yubin/damaged/{id}")).exists());
    let listed = host.ok("mailq", &[], b"");
    assert!(
        listed.contains(&id) && listed.contains("damaged"),
        "{listed}"
    );
    let json = host.ok("mailq", &["--json"], b"");
    assert!(json.contains(&id) && json.contains("damaged"), "{json}");
}

#[test]
fn a_missing_spool_defers_and_creates_nothing() {
    let mut host = Host::new("");
    fs::remove_dir(host.path("var/spool/mail")).unwrap();
    host.start("smtpd");
    host.start("deliver");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO test").unwrap();
    smtp.message(
        "bob@yubin.test",
        &["alice@yubin.test"],
        "Subject: waits\r\n\r\nx\r\n",
    )
    .unwrap();
    let listed = wait_for("a reason in mailq", || {
        let listed = host.ok("mailq", &[], b"");
        listed.contains("spool/mail").then_some(listed)
    });
    assert!(listed.contains("alice@yubin.test"), "{listed}");
    assert!(!host.path("var/spool/mail").exists());
    // Mended, it goes on.
    fs::create_dir(host.path("var/spool/mail")).unwrap();
    host.stop("deliver");
    host.ok("deliver", &["-q"], b"");
    assert!(host.wait_for_mail("alice", 1).contains("Subject: waits"));
}

#[test]
fn a_mailbox_that_is_a_symlink_is_not_followed() {
    let mut host = Host::new("");
    let target = host.path("secret");
    fs::write(&target, "keep\n").unwrap();
    std::os::unix::fs::symlink(&target, host.path("var/spool/mail/alice")).unwrap();
    host.start("smtpd");
    host.start("deliver");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO test").unwrap();
    smtp.message(
        "bob@yubin.test",
        &["alice@yubin.test"],
        "Subject: x\r\n\r\nx\r\n",
    )
    .unwrap();
    wait_for("a deferral", || {
        host.ok("mailq", &[], b"").contains('(').then_some(())
    });
    assert_eq!(fs::read_to_string(&target).unwrap(), "keep\n");
}

/// RFC 5321 4.3.1: the client waits for the greeting. Who did is not kept waiting again.
#[test]
fn who_talks_before_the_greeting_is_refused() {
    let host = Host::started("MY_NETWORKS=192.0.2.0/24\nGREET_DELAY=1s\n");
    let greeted = |hasty: bool| {
        let began = Instant::now();
        let mut client = Smtp::silent(host.smtp).unwrap();
        if hasty {
            client.send(b"EHLO spam\r\n").unwrap();
        }
        (client.reply().unwrap(), began.elapsed())
    };
    let second = Duration::from_secs(1);
    let (reply, after) = greeted(true);
    assert!(reply.starts_with("554 5.5.0"), "{reply}");
    assert!(after < second, "{after:?}");
    let (reply, after) = greeted(false);
    assert!(reply.starts_with("220 "), "{reply}");
    assert!(after >= second, "{after:?}");
    // Known now.
    let (reply, after) = greeted(false);
    assert!(reply.starts_with("220 ") && after < second, "{after:?}");
    wait_for("the log", || {
        host.log()
            .contains("talks before our reply: EHLO spam")
            .then_some(())
    });
}
