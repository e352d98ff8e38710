//! sendmail, mailq, newaliases and mail as their callers use them.

use tests::foreign::python;
use tests::{Host, wait_for};

#[test]
fn sendmail_takes_recipients_from_the_header_and_hides_bcc() {
    let host = Host::started("");
    let message =
        b"From: bob@yubin.test\nTo: Alice <alice@yubin.test>\nBcc: bob\nSubject: t\n\nx\n";
    host.ok("sendmail", &["-t", "-oi"], message);
    let got = host.wait_for_mail("alice", 1);
    assert!(!got.contains("Bcc"), "{got}");
    assert!(!host.wait_for_mail("bob", 1).contains("Bcc"));
}

#[test]
fn sendmail_ends_at_a_dot_unless_told_not_to() {
    let host = Host::started("");
    host.ok(
        "sendmail",
        &["-f", "bob", "alice"],
        b"Subject: one\n\nbefore\n.\nbehind\n",
    );
    assert!(!host.wait_for_mail("alice", 1).contains("behind"));
    host.ok(
        "sendmail",
        &["-i", "-f", "bob", "alice"],
        b"Subject: two\n\nbefore\n.\nbehind\n",
    );
    assert!(host.wait_for_mail("alice", 2).contains("\n.\nbehind\n"));
}

#[test]
fn sendmail_bv_says_where_an_address_goes() {
    let host = Host::new("DEFAULT_RELAY=smtp:[relay.test]\n");
    let said = host.ok("sendmail", &["-bv", "alice", "x@else.where"], b"");
    assert!(
        said.contains("alice... deliverable: mailer local, user alice"),
        "{said}"
    );
    assert!(
        said.contains("x@else.where... deliverable: mailer esmtp, host [relay.test]"),
        "{said}"
    );
    let out = host.run("sendmail", &["-bv", "nobody"], b"");
    assert_eq!(
        out.status.code(),
        Some(67),
        "{}",
        String::from_utf8_lossy(&out.stdout)
    );
}

#[test]
fn sendmail_bs_speaks_smtp_on_its_standard_input() {
    let host = Host::started("");
    let said = host.ok(
        "sendmail",
        &["-bs"],
        b"EHLO x\r\nMAIL FROM:<bob@yubin.test>\r\nRCPT TO:<alice@yubin.test>\r\nDATA\r\nSubject: s\r\n\r\nx\r\n.\r\nQUIT\r\n",
    );
    assert!(said.starts_with("220 "), "{said}");
    assert!(
        said.contains("250 2.0.0 Ok: queued as") && said.contains("221 "),
        "{said}"
    );
    host.wait_for_mail("alice", 1);
}

#[test]
fn mailq_shows_what_waits_as_scripts_and_programs_read_it() {
    let mut host = Host::new("DEFAULT_RELAY=smtp:[127.0.0.1]:1\n");
    host.ok(
        "sendmail",
        &["-f", "bob", "x@else.where"],
        b"Subject: waits\n\nx\n",
    );
    host.start("qrun");
    let text = wait_for("a reason", || {
        let text = host.ok("mailq", &[], b"");
        text.contains("refused").then_some(text)
    });
    assert!(text.starts_with("-Queue ID-"), "{text}");
    assert!(
        text.contains("bob@yubin.test") && text.contains("x@else.where"),
        "{text}"
    );
    assert!(text.trim_end().ends_with("in 1 Request."), "{text}");
    assert_eq!(text, host.ok("sendmail", &["-bp"], b""));
    let json = host.ok("mailq", &["--json"], b"");
    let read = "import json,sys\nfor l in sys.argv[1].splitlines():\n    d = json.loads(l); print(d['sender'], d['recipients'][0]['address'])";
    assert_eq!(python(read, &[&json]), "bob@yubin.test x@else.where\n");
}

#[test]
fn newaliases_counts() {
    let host = Host::new("");
    host.write("etc/aliases", "postmaster: alice\nstaff: alice, bob\n");
    let said = host.ok("newaliases", &[], b"");
    assert!(
        said.contains("aliases: 2 aliases, longest 10 bytes"),
        "{said}"
    );
}

#[test]
fn mail_sends_reads_replies_and_deletes() {
    let host = Host::started("");
    host.ok("mail", &["-s", "=?件名?=", "alice"], "本文\n".as_bytes());
    let mbox = host.wait_for_mail("alice", 1);
    assert!(
        mbox.contains("=?UTF-8?") || mbox.contains("=?utf-8?"),
        "{mbox}"
    );
    let listed = host.ok("mail", &["-H"], b"");
    assert!(listed.contains("=?件名?="), "{listed}");
    let saved = host.path("saved");
    let typed = format!("p 1\ns 1 {}\nr 1\nmy answer\n.\nd 1\nq\n", saved.display());
    let shown = host.ok("mail", &[], typed.as_bytes());
    assert!(
        std::fs::read_to_string(saved)
            .unwrap()
            .contains("\nSubject: ")
    );
    assert!(shown.contains("本文"), "{shown}");
    // To herself: the reply is what is left.
    let left = wait_for("the reply alone", || {
        let mbox = host.mbox("alice");
        (mbox.contains("Subject: ") && mbox.contains("my answer") && !mbox.contains("本文"))
            .then_some(mbox)
    });
    assert!(left.contains("In-Reply-To: "), "{left}");
    // Terminal sequences in a mail do not reach the terminal.
    host.ok(
        "sendmail",
        &["-f", "bob", "alice"],
        b"Subject: \x1b]0;title\x07\n\n\x1b[31mred\x9b2J\n",
    );
    host.wait_for_mail("alice", 2);
    let shown = host.ok("mail", &[], b"p $\nx\n");
    assert!(
        shown.contains("red") && !shown.contains('\x1b') && !shown.contains('\u{9b}'),
        "{shown:?}"
    );
}

#[test]
fn mailq_puts_messages_aside_and_back() {
    let mut host = Host::new("");
    for program in ["smtpd", "qrun"] {
        host.start(program);
    }
    let ids = ["one", "two"].map(|subject| {
        let text = format!("Subject: {subject}\n\nx\n");
        host.ok("sendmail", &["-f", "bob", "alice"], text.as_bytes());
        wait_for("the message in the queue", || {
            let shown = host.ok("mailq", &["-j"], b"");
            let line = shown
                .lines()
                .rfind(|line| line.contains("\"local\"") && !line.contains("\"held\""))?;
            let id = line.split("\"queue_id\":\"").nth(1)?.split('"').next()?;
            (host.run("mailq", &["hold", id], b"").status.success()).then(|| id.to_owned())
        })
    });
    let [one, two] = &ids;
    host.start("deliver");
    assert!(host.ok("mailq", &[], b"").contains("by the operator"));
    host.ok("mailq", &["remove", one], b"");
    host.ok("mailq", &["release", two], b"");
    assert!(host.wait_for_mail("alice", 1).contains("Subject: two"));
    for (words, code) in [
        (vec!["release", one], 69),
        (vec!["hold", "no-such-id!"], 64),
        (vec!["remove"], 64),
    ] {
        let out = host.run("mailq", &words, b"");
        assert_eq!(out.status.code(), Some(code), "{words:?}");
    }
    assert!(host.ok("mailq", &[], b"").contains("queue is empty"));
}
