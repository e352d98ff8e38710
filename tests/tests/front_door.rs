//! The front door: rates and penalties that all processes share, accounts that are held, who is put
//! off, and that an ordinary stranger notices nothing of it.
//!
//! The clients come from 127.0.0.1, which is a stranger here: MY_NETWORKS names another network.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tests::smtp::Smtp;
use tests::{Host, wait_for};

const STRANGERS: &str = "MY_NETWORKS=192.0.2.0/24\nPLAINTEXT_LOGIN=yes\n";

/// Without waits that a story is not about.
fn hasty(def: &str) -> String {
    format!("{STRANGERS}GREET_DELAY=0s\nTARPIT=0s\n{def}")
}

fn connected(port: u16) -> Smtp {
    let mut smtp = Smtp::connect(port).unwrap();
    smtp.ask("EHLO client.example").unwrap();
    smtp
}

const TEXT: &str = "Subject: hello\r\n\r\nhello\r\n";

/// The limit that docs/operating.md states.
#[test]
fn a_first_stranger_delivers_within_six_seconds() {
    let host = Host::started(STRANGERS);
    let start = Instant::now();
    let mut smtp = connected(host.smtp);
    let reply = smtp
        .message("ann@stranger.example", &["bob@yubin.test"], TEXT)
        .unwrap();
    let took = start.elapsed();
    assert!(reply.starts_with("250"), "{reply}");
    assert!(took < Duration::from_secs(6), "{took:?}");
    host.wait_for_mail("bob", 1);
}

/// A session of inetd's, in a process of its own; what it says first.
fn greeting_of_another_process(host: &Host) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = Smtp::silent(port).unwrap();
    let (server, _): (TcpStream, _) = listener.accept().unwrap();
    let server: OwnedFd = server.into();
    let mut child = host
        .command("smtpd")
        .stdin(server.try_clone().unwrap())
        .stdout(server.try_clone().unwrap())
        .stderr(server)
        .spawn()
        .unwrap();
    let greeting = client.reply().unwrap();
    drop(client);
    child.wait().unwrap();
    greeting
}

#[test]
fn processes_share_penalties_and_a_restart_forgets_none() {
    let mut host = Host::new(&hasty("RATE_MESSAGES=2/1h\nPENALTY=10m\n"));
    host.start("smtpd");
    let mut smtp = connected(host.smtp);
    for _ in 0..2 {
        assert!(
            smtp.ask("MAIL FROM:<a@b.example>")
                .unwrap()
                .starts_with("250")
        );
        smtp.ask("RSET").unwrap();
    }
    let reply = smtp.ask("MAIL FROM:<a@b.example>").unwrap();
    assert!(reply.starts_with("450 4.7.1 Too many messages"), "{reply}");
    let refused = |greeting: String| {
        assert!(greeting.starts_with("421 4.7.0 "), "{greeting}");
        assert!(greeting.contains("try again in "), "{greeting}");
    };
    let greeting = |host: &Host| Smtp::silent(host.smtp).unwrap().reply().unwrap();
    refused(greeting(&host));
    refused(greeting_of_another_process(&host));
    host.kill9("smtpd");
    host.start("smtpd");
    refused(greeting(&host));
    let log = host.log();
    assert!(
        log.contains("warning: Rate limit exceeded: more than 2 messages in 3600 s from 127.0.0.1")
    );
    assert!(
        log.contains("NOQUEUE: reject: CONNECT from unknown[127.0.0.1]: 421 4.7.0"),
        "{log}"
    );

    // The file is a cache: without it everybody begins anew.
    host.stop("smtpd");
    std::fs::remove_file(host.path("var/spool/yubin/tally")).unwrap();
    host.start("smtpd");
    assert!(greeting(&host).starts_with("220 "));
    assert!(greeting_of_another_process(&host).starts_with("220 "));
}

#[test]
fn who_has_waited_for_the_greeting_is_known_to_all_processes() {
    let host = Host::started(&format!("{STRANGERS}GREET_DELAY=9s\n"));
    let start = Instant::now();
    let greeting = Smtp::silent(host.smtp).unwrap().reply().unwrap();
    assert!(greeting.starts_with("220 "), "{greeting}");
    assert!(start.elapsed() > Duration::from_secs(8));
    let start = Instant::now();
    assert!(greeting_of_another_process(&host).starts_with("220 "));
    assert!(start.elapsed() < Duration::from_secs(7));
}

#[test]
fn who_offends_is_answered_later_and_later() {
    let def = "GREET_DELAY=0s\nTARPIT=2s\nRATE_MESSAGES=1/1h\nPENALTY=1s\n";
    let host = Host::started(&format!("{STRANGERS}{def}"));
    let mut smtp = connected(host.smtp);
    smtp.ask("MAIL FROM:<a@b.example>").unwrap();
    smtp.ask("RSET").unwrap();
    for (wait, penalty) in [(1000, 1), (2000, 2), (2000, 0)] {
        let start = Instant::now();
        let reply = smtp.ask("MAIL FROM:<a@b.example>").unwrap();
        let took = start.elapsed();
        assert!(reply.starts_with("450"), "{reply}");
        assert!(took > Duration::from_millis(wait - 100), "{took:?} {wait}");
        std::thread::sleep(Duration::from_secs(penalty));
    }
}

/// AUTH PLAIN
fn log_in(smtp: &mut Smtp, user: &str, password: &str) -> String {
    let words = match (user, password) {
        ("alice", "alice") => "AGFsaWNlAGFsaWNl",
        ("alice", "guess") => "AGFsaWNlAGd1ZXNz",
        ("bob", "bob") => "AGJvYgBib2I=",
        other => panic!("{other:?}"),
    };
    smtp.ask(&format!("AUTH PLAIN {words}")).unwrap()
}

#[test]
fn a_network_that_guesses_may_not_log_in() {
    let host = Host::started(&hasty("RATE_AUTH_FAILURES=2/1h\nPENALTY=10m\n"));
    let mut smtp = connected(host.submission);
    for _ in 0..2 {
        assert!(log_in(&mut smtp, "alice", "guess").starts_with("535"));
    }
    let mut smtp = connected(host.submission);
    assert!(log_in(&mut smtp, "alice", "guess").starts_with("535"));
    let reply = log_in(&mut smtp, "alice", "alice");
    assert!(
        reply.starts_with("454 4.7.0 Too many failed logins"),
        "{reply}"
    );
    let greeting = Smtp::silent(host.submission).unwrap().reply().unwrap();
    assert!(
        greeting.starts_with("421 4.7.0 Too many failed"),
        "{greeting}"
    );
    // Mail for us is another matter.
    let mut smtp = connected(host.smtp);
    let reply = smtp
        .message("a@b.example", &["bob@yubin.test"], TEXT)
        .unwrap();
    assert!(reply.starts_with("250"), "{reply}");
}

#[test]
fn failed_logins_count_in_all_servers_together() {
    let host = Host::started(&hasty("RATE_AUTH_FAILURES=2/1h\nPENALTY=10m\n"));
    let ask = |port: u16, lines: &[&str]| {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
        let wait = Some(Duration::from_secs(20));
        stream.get_ref().set_read_timeout(wait).unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        for line in lines {
            stream.get_mut().write_all(line.as_bytes()).unwrap();
            answer.clear();
            stream.read_line(&mut answer).unwrap();
        }
        answer
    };
    let pop3 = |password: &str| ask(host.pop3, &["USER bob\r\n", password]);
    let imap = |line: &str| ask(host.imap, &[line]);
    assert!(pop3("PASS guess\r\n").starts_with("-ERR [AUTH]"));
    assert!(imap("a LOGIN bob guess\r\n").starts_with("a NO [AUTHENTICATIONFAILED]"));
    assert!(imap("a LOGIN bob bob\r\n").starts_with("a OK"));
    assert!(pop3("PASS guess\r\n").starts_with("-ERR [AUTH]"));
    let shut_out = pop3("PASS bob\r\n");
    assert!(
        shut_out.starts_with("-ERR [SYS/TEMP] too many failed logins"),
        "{shut_out}"
    );
    let shut_out = imap("a LOGIN bob bob\r\n");
    assert!(
        shut_out.starts_with("a NO [UNAVAILABLE] Too many failed"),
        "{shut_out}"
    );
    let greeting = Smtp::silent(host.submission).unwrap().reply().unwrap();
    assert!(
        greeting.starts_with("421 4.7.0 Too many failed"),
        "{greeting}"
    );
}

#[test]
fn an_account_over_its_limit_is_held_and_people_are_told_once() {
    let host = Host::started(&hasty("ACCOUNT_RATE_MESSAGES=2/1h\n"));
    let send = |subject: &str| {
        let mut smtp = connected(host.submission);
        assert!(log_in(&mut smtp, "bob", "bob").starts_with("235"));
        let text = format!("Subject: {subject}\r\n\r\nhello\r\n");
        let reply = smtp.message("bob@yubin.test", &["alice@yubin.test"], &text);
        let reply = reply.unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    };
    for subject in ["one", "two", "three", "four"] {
        send(subject);
    }
    // The owner, and the postmaster, who is alice.
    let told = host.wait_for_mail("bob", 1);
    assert!(told.contains("Auto-Submitted: auto-generated"), "{told}");
    assert!(told.contains("mailq release account=bob"), "{told}");
    assert!(told.contains("Return-Path: <>"), "{told}");
    let mbox = host.wait_for_mail("alice", 3);
    assert!(mbox.contains("Subject: one") && mbox.contains("Subject: two"));
    assert!(mbox.contains("mailq release account=bob") && !mbox.contains("Subject: three"));
    let is_held = |count: usize| {
        wait_for("messages put aside", || {
            let shown = host.ok("mailq", &[], b"");
            let held = shown.matches("(held: account bob is held back)").count();
            (held == count).then_some(())
        });
    };
    is_held(2);

    let done = host.ok("mailq", &["release", "account=bob"], b"");
    assert_eq!(
        done,
        "account bob: 2 messages released, it may send again\n"
    );
    let mbox = host.wait_for_mail("alice", 5);
    assert!(mbox.contains("Subject: three") && mbox.contains("Subject: four"));
    let none = host.run("mailq", &["release", "account=bob"], b"");
    assert_eq!(none.status.code(), Some(69));

    for subject in ["five", "six", "seven"] {
        send(subject);
    }
    is_held(1);
    let done = host.ok("mailq", &["remove", "account=bob"], b"");
    assert_eq!(done, "account bob: 1 messages removed, it may send again\n");
    send("eight");
    let mbox = wait_for("the eighth", || {
        let mbox = host.mbox("alice");
        mbox.contains("Subject: eight").then_some(mbox)
    });
    assert!(!mbox.contains("Subject: seven"));
    wait_for("an empty queue", || {
        let shown = host.ok("mailq", &[], b"");
        shown.contains("Mail queue is empty").then_some(())
    });
}

#[test]
fn an_operator_holds_an_account_by_hand() {
    let host = Host::started("");
    host.ok("mailq", &["hold", "account=bob"], b"");
    let mut smtp = connected(host.submission);
    assert!(log_in(&mut smtp, "bob", "bob").starts_with("235"));
    let reply = smtp
        .message("bob@yubin.test", &["alice@yubin.test"], TEXT)
        .unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    wait_for("it to be held", || {
        let shown = host.ok("mailq", &[], b"");
        shown
            .contains("(held: account bob is held back)")
            .then_some(())
    });
    host.ok("mailq", &["release", "account=bob"], b"");
    host.wait_for_mail("alice", 1);
}

#[test]
fn greylisting_puts_off_the_first_time_only() {
    let host = Host::started(&hasty("GREYLIST=yes\nGREYLIST_DELAY=3s\n"));
    let mut smtp = connected(host.smtp);
    let reply = smtp
        .message("a@b.example", &["bob@yubin.test"], TEXT)
        .unwrap();
    assert!(
        reply.starts_with("451 4.7.1 <bob@yubin.test>: Greylisted, try again in 3 seconds"),
        "{reply}"
    );
    // Who does not live here is not put off, but refused.
    assert!(
        smtp.ask("RCPT TO:<nobody@yubin.test>")
            .unwrap()
            .starts_with("550")
    );
    smtp.ask("RSET").unwrap();
    // A null reverse-path may be a question, which ends at RCPT.
    let reply = smtp.message("", &["bob@yubin.test"], TEXT).unwrap();
    assert!(reply.starts_with("451 4.7.1"), "{reply}");
    std::thread::sleep(Duration::from_millis(3100));
    let mut smtp = connected(host.smtp);
    for from in ["a@b.example", ""] {
        let reply = smtp.message(from, &["bob@yubin.test"], TEXT).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }
    host.wait_for_mail("bob", 2);
    // Our own users come at once.
    let mut smtp = connected(host.submission);
    assert!(log_in(&mut smtp, "alice", "alice").starts_with("235"));
    let reply = smtp
        .message("alice@yubin.test", &["bob@yubin.test"], TEXT)
        .unwrap();
    assert!(reply.starts_with("250"), "{reply}");
}

/// A sender with a pool of networks: it is met by its domain, where that vouches for it (SPF).
#[test]
fn greylisting_knows_who_comes_again_from_elsewhere() {
    let mut host = Host::new(&hasty(
        "GREYLIST=yes\nGREYLIST_DELAY=3s\nXCLIENT_FROM=127.0.0.1\n",
    ));
    host.write(
        "etc/yubin/zone",
        "big.example. IN TXT \"v=spf1 ip4:198.51.100.0/24 ip4:203.0.112.0/24 -all\"\n\
         all.example. IN TXT \"v=spf1 +all\"\n",
    );
    for program in ["smtpd", "deliver"] {
        host.start(program);
    }
    let port = host.smtp;
    let send = |ip: &str, from: &str| {
        let mut smtp = Smtp::connect(port).unwrap();
        smtp.ask(&format!("XCLIENT ADDR={ip}")).unwrap();
        smtp.ask("EHLO out.big.example").unwrap();
        let reply = smtp.message(from, &["bob@yubin.test"], TEXT).unwrap();
        reply.get(..3).unwrap().to_owned()
    };
    assert_eq!(send("198.51.100.1", "a@big.example"), "451");
    assert_eq!(send("198.51.100.1", "a@all.example"), "451");
    std::thread::sleep(Duration::from_millis(3100));
    assert_eq!(send("198.18.0.1", "a@big.example"), "451", "in its name");
    assert_eq!(send("203.0.112.1", "a@all.example"), "451", "like anybody");
    assert_eq!(send("203.0.112.1", "a@big.example"), "250");
    host.wait_for_mail("bob", 1);
}
