//! Clients that want to wear smtpd out: without an end, slowly, or with messages that are hard to read.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBuf;

use tests::siege::{entries, resident, serving, unharmed};
use tests::smtp::Smtp;
use tests::{Host, wait_for};

/// It ends, however it is done.
#[test]
fn endless_recipients() {
    let mut host = serving("RECIPIENT_LIMIT=50\n");
    let ways: [fn(usize) -> String; 3] = [
        |i| format!("RCPT TO:<alice+{i}@yubin.test>"),
        |_| "RCPT TO:<alice@yubin.test>".into(),
        |i| format!("RCPT TO:<nobody{i}@yubin.test>"),
    ];
    for way in ways {
        let mut smtp = Smtp::connect(host.smtp).unwrap();
        smtp.ask("EHLO test").unwrap();
        smtp.ask("MAIL FROM:<bob@yubin.test>").unwrap();
        let last = (0..2000).find_map(|i| {
            let reply = smtp.ask(&way(i)).ok()?;
            reply.starts_with("421").then_some((i, reply))
        });
        let (asked, reply) = last.unwrap_or_else(|| panic!("{} has no end", way(0)));
        assert!(asked < 1200, "{asked}");
        assert!(reply.contains("Too many errors"), "{reply}");
    }
    unharmed(
        &mut host,
        0,
        &["too many recipients from unknown[127.0.0.1]"],
    );
}

/// Who speaks or reads so slowly that it is an attack is sent away, whatever comes in between.
#[test]
fn slow_writers() {
    let mut host = serving("SMTP_TIMEOUT=2s\n");
    let message: &[&str] = &["MAIL FROM:<bob@yubin.test>", "RCPT TO:<alice@yubin.test>"];
    let ways: [(&[&str], &str, &[u8], &str); 5] = [
        (&[], "", b"NOOP and so on", "timeout after EHLO"),
        (&[], "AUTH PLAIN", b"AGFsaWNl", "timeout after AUTH"),
        (message, "DATA", b"Subject: x\r\n", "timeout after DATA"),
        (
            message,
            "BDAT 1000000",
            b"Subject: x\r\n",
            "timeout after BDAT",
        ),
        (message, "BDAT 5 LAST\r\nx", b"", "timeout after BDAT"),
    ];
    let clients: Vec<_> = ways
        .into_iter()
        .map(|(commands, last, drops, logged)| {
            let port = host.smtp;
            let client = std::thread::spawn(move || {
                let mut smtp = Smtp::connect(port).unwrap();
                smtp.ask("EHLO test").unwrap();
                for line in commands {
                    assert!(smtp.ask(line).unwrap().starts_with("250"));
                }
                if !last.is_empty() {
                    smtp.send(format!("{last}\r\n").as_bytes()).unwrap();
                }
                if matches!(last, "DATA" | "AUTH PLAIN") {
                    assert!(smtp.reply().unwrap().starts_with('3'));
                }
                let began = Instant::now();
                // One octet in a while, as long as it takes.
                for octet in drops.iter().cycle().take(200) {
                    if smtp.send(&[*octet]).is_err() || began.elapsed() > Duration::from_secs(4) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                (smtp.reply(), began.elapsed())
            });
            (client, logged)
        })
        .collect();
    for (client, logged) in clients {
        let (reply, after) = client.join().unwrap();
        let reply = reply.unwrap_or_else(|e| panic!("{logged}: {e} after {after:?}"));
        assert_eq!(
            reply, "421 4.4.2 Timeout, closing connection\r\n",
            "{logged}"
        );
        let line = format!("{logged} from unknown[127.0.0.1]");
        assert!(host.log().contains(&line), "{line}");
    }
    unharmed(&mut host, 0, &[]);
}

/// Whoever does not read replies is not read from, and gone after a while; half a minute is for our
/// last words.
#[test]
fn slow_readers() {
    let mut host = serving("SMTP_TIMEOUT=2s\n");
    let before = resident(&host);
    let mut deaf = TcpStream::connect(("127.0.0.1", host.smtp)).unwrap();
    setsockopt(&deaf, RcvBuf, &4096).unwrap();
    deaf.set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    // 30 KB of replies for each message, until nothing is taken any more.
    let mail = "MAIL FROM:<bob@yubin.test>\r\nRCPT TO:<alice@yubin.test>\r\nBDAT 2 LAST\r\n\r\n";
    let asked = "EHLO test\r\n".repeat(90) + mail;
    let sent = (0..20_000)
        .take_while(|_| deaf.write_all(asked.as_bytes()).is_ok())
        .count();
    assert!(sent < 20_000, "all was read");
    // The kernel may have room for our last words; then they are not waited for.
    let began = Instant::now();
    let is_gone = |line: &str| line.contains("disconnect") && !line.ends_with("messages=0");
    while !host.log().lines().any(is_gone) {
        assert!(began.elapsed() < Duration::from_secs(90), "it stays");
        std::thread::sleep(Duration::from_millis(100));
    }
    let grown = resident(&host).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown}");
    let queued = entries(&host);
    unharmed(&mut host, queued, &[]);
}

/// Strangers' mail is looked into.
const LOOKED_INTO: &str = "MY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\nCLIENT_NAMES=no\n\
    AUTHENTICATION_RESULTS=yes\n";

/// Messages that are hard to read: each is taken or refused within a moment.
/// Who is told that his message is too big and sends on is not read for ever, and can read why; others
/// are served meanwhile.
#[test]
fn messages_without_end() {
    let mut host = serving("MESSAGE_SIZE_LIMIT=100K\n");
    let port = host.smtp;
    let flood = |most: usize| {
        let mut smtp = Smtp::connect(port).unwrap();
        smtp.ask("EHLO client.example").unwrap();
        smtp.ask("MAIL FROM:<a@b.example>").unwrap();
        smtp.ask("RCPT TO:<bob@yubin.test>").unwrap();
        smtp.ask("DATA").unwrap();
        let lines = b"0123456789abcd\r\n".repeat(4096);
        let mut sent = 0;
        while sent < most && smtp.send(&lines).is_ok() {
            sent += lines.len();
        }
        (smtp, sent)
    };
    // Somewhat too big: it comes to its end.
    let (mut smtp, sent) = flood(10 << 20);
    assert_eq!(sent, 10 << 20);
    assert!(smtp.ask(".").unwrap().starts_with("552 5.3.4 "));
    assert!(smtp.ask("NOOP").unwrap().starts_with("250"));
    // Who stops and listens hears why.
    let (mut smtp, _) = flood(20 << 20);
    assert!(smtp.reply().unwrap().starts_with("552 5.3.4 "));
    assert!(smtp.reply().is_err());
    let began = Instant::now();
    let floods: Vec<_> = std::thread::scope(|scope| {
        let floods: Vec<_> = (0..4).map(|_| scope.spawn(|| flood(1 << 30).1)).collect();
        for _ in 0..20 {
            let began = Instant::now();
            let mut other = Smtp::connect(port).unwrap();
            assert!(other.ask("EHLO other.example").unwrap().starts_with("250"));
            assert!(began.elapsed() < Duration::from_secs(3));
        }
        floods
            .into_iter()
            .map(|flood| flood.join().unwrap())
            .collect()
    });
    assert!(began.elapsed() < Duration::from_secs(60));
    // 16 MiB, 64 MiB behind our last words, and what lies in the sockets.
    assert!(floods.iter().all(|sent| *sent < 128 << 20), "{floods:?}");
    unharmed(
        &mut host,
        0,
        &["reject: DATA from unknown[127.0.0.1]: 552 5.3.4"],
    );
}

#[test]
fn messages_like_bombs() {
    let mut host = serving(&format!("{LOOKED_INTO}MESSAGE_SIZE_LIMIT=20M\n"));
    let from = "From: ann@remote.test\r\n";
    let signature = "DKIM-Signature: v=1; a=rsa-sha256; d=remote.test; s=x; h=from:from:from; \
         bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n";
    let nested: String = (0..20_000)
        .map(|i| format!("Content-Type: multipart/mixed; boundary=b{i}\r\n\r\n--b{i}\r\n"))
        .collect();
    let parts = "--b\r\nContent-Type: text/plain\r\n\r\nx\r\n".repeat(100_000);
    let sets: String = (1..=2000)
        .map(|i| {
            format!(
                "ARC-Seal: i={i}; a=rsa-sha256; cv=pass; d=remote.test; s=x; b=AAAA\r\n\
                 ARC-Message-Signature: i={i}; a=rsa-sha256; d=remote.test; s=x; h=from; bh=AAAA; b=AAAA\r\n\
                 ARC-Authentication-Results: i={i}; remote.test; spf=pass\r\n"
            )
        })
        .collect();
    let bombs = [
        ("nested parts", format!("{from}{nested}")),
        (
            "many parts",
            format!("{from}Content-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--b--\r\n"),
        ),
        (
            "one field",
            format!("{from}X: {}\r\n\r\n", "y ".repeat(30_000)),
        ),
        (
            "one folded field",
            format!("{from}X: y\r\n{}\r\n", " y\r\n".repeat(1_000_000)),
        ),
        (
            "many fields",
            format!("{from}{}\r\n", "X: y\r\n".repeat(500_000)),
        ),
        ("a header without end", "X: y\r\n".repeat(2_000_000)),
        ("many From fields", format!("{}\r\n", from.repeat(100_000))),
        (
            "many addresses",
            format!("From: {}x@y.test\r\n\r\n", "a@b.test,\r\n ".repeat(100_000)),
        ),
        (
            "nested comments",
            format!(
                "From: {}\r\n {}\r\n\r\n",
                "(".repeat(60_000),
                ")".repeat(60_000)
            ),
        ),
        (
            "many signatures",
            format!("{}{from}\r\nx\r\n", signature.repeat(20_000)),
        ),
        (
            "many signatures that fit",
            format!("{}{from}\r\nx\r\n", signature.repeat(1500)),
        ),
        (
            "one signature of many tags",
            format!(
                "DKIM-Signature: v=1;{}\r\n{from}\r\nx\r\n",
                " a=b;".repeat(12_000)
            ),
        ),
        (
            "a signature of many fields",
            format!(
                "DKIM-Signature: v=1; a=rsa-sha256; d=remote.test; s=x; bh=AAAA; b=AAAA; h=from{}\r\n{from}\r\nx\r\n",
                ":from".repeat(10_000)
            ),
        ),
        ("many ARC sets", format!("{sets}{from}\r\nx\r\n")),
        (
            "forged results",
            format!(
                "{}{from}\r\nx\r\n",
                "Authentication-Results: mail.yubin.test; spf=pass\r\n".repeat(4000)
            ),
        ),
        (
            "results in comments",
            format!(
                "Authentication-Results: {}\r\n{from}\r\nx\r\n",
                "(".repeat(60_000)
            ),
        ),
    ];
    let mut whole = 0;
    for (name, bomb) in &bombs {
        let mut smtp = Smtp::connect(host.smtp).unwrap();
        for line in [
            "EHLO remote.test",
            "MAIL FROM:<ann@remote.test>",
            "RCPT TO:<alice@yubin.test>",
        ] {
            assert!(smtp.ask(line).unwrap().starts_with("250"));
        }
        assert!(smtp.ask("DATA").unwrap().starts_with("354"));
        let began = Instant::now();
        smtp.send(bomb.as_bytes()).unwrap();
        let reply = smtp.ask(".").unwrap();
        let took = began.elapsed();
        assert!(
            reply.starts_with("250 ") || reply.starts_with("55"),
            "{name}: {reply}"
        );
        assert!(took < Duration::from_secs(10), "{name}: {took:?}");
        whole += usize::from(reply.starts_with("250 "));
    }
    let used = resident(&host);
    assert!(used < 150 << 20, "{used}");
    unharmed(&mut host, whole, &[]);
}

/// Neither a header that is too long to be looked into nor one without an end hides what is forged.
#[test]
fn nothing_forged_hides_in_an_odd_header() {
    let mut host = serving(LOOKED_INTO);
    let forged = "Authentication-Results: mail.yubin.test; dmarc=pass header.from=bank.test\r\n";
    let send = |message: String| {
        let mut smtp = Smtp::connect(host.smtp).unwrap();
        smtp.ask("EHLO remote.test").unwrap();
        let (from, to) = ("ann@remote.test", ["alice@yubin.test"]);
        smtp.message(from, &to, &message).unwrap()
    };
    let long = "X: y\r\n".repeat(100_000);
    let reply = send(format!("{forged}From: ann@remote.test\r\n{long}\r\nx\r\n"));
    assert!(
        reply.starts_with("552 5.3.4 Message refused: its header"),
        "{reply}"
    );
    let bodies = ["no field\r\n".to_owned(), format!("no field\r\n{long}")];
    for body in &bodies {
        let reply = send(format!("From: ann@remote.test\r\n{forged}{body}"));
        let id = reply.trim_end().strip_prefix("250 2.0.0 Ok: queued as ");
        let id = id.unwrap_or_else(|| panic!("{reply}"));
        let queued = std::fs::read(host.path(&format!("var/spool/yubin/local/{id}"))).unwrap();
        let queued = String::from_utf8_lossy(&queued);
        assert!(!queued.contains("dmarc=pass"), "{queued:.900}");
        assert!(queued.contains("header.from=remote.test"), "{queued:.900}");
    }
    let rejected = "reject: END-OF-MESSAGE from unknown[127.0.0.1]: 552 5.3.4 Message refused";
    unharmed(&mut host, 2, &[rejected]);
}

/// The processor time that smtpd has had, in ticks.
fn time_spent(host: &Host) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", host.pid("smtpd"))).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields = fields.split(' ').skip(11).take(2);
    fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Octets of memory that one session may have, without its recipients, and those for each of them:
/// docs/security.md states them.
const SESSION: usize = 1 << 20;
const RECIPIENT: usize = 2 << 10;

/// 500 sessions of each kind that keep as much in memory as they can.
#[test]
fn memory_is_bounded() {
    const SESSIONS: usize = 500;
    const RECIPIENTS: usize = 100;
    let mut host = Host::new(&format!("RECIPIENT_LIMIT={RECIPIENTS}\n")).with_tls();
    host.start("smtpd");
    let mail = "EHLO test\r\nMAIL FROM:<bob@yubin.test>\r\nRCPT TO:<alice@yubin.test>\r\n";
    let text = "x".repeat(997) + "\r\n";
    let recipients: String = (0..RECIPIENTS)
        .map(|i| {
            let domain = format!("{}.", "d".repeat(60)).repeat(3);
            let orcpt = "o".repeat(400);
            format!("RCPT TO:<{i}@{domain}test> ORCPT=rfc822;{orcpt}\r\n")
        })
        .collect();
    let hello = [
        &b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"[..],
        &[0; 16_000],
    ]
    .concat();
    let ways: [(&str, bool, Vec<u8>); 9] = [
        ("nothing", false, Vec::new()),
        ("a long command", false, "x".repeat(100_000).into()),
        (
            "a long login",
            false,
            format!("EHLO test\r\nAUTH PLAIN\r\n{}", "A".repeat(12_000)).into(),
        ),
        (
            "many recipients",
            false,
            format!("{mail}{recipients}").into(),
        ),
        (
            "a small message",
            false,
            format!("{mail}DATA\r\n{}", text.repeat(60)).into(),
        ),
        (
            "a message on disk",
            false,
            format!("{mail}DATA\r\n{}", text.repeat(170)).into(),
        ),
        (
            "counted octets",
            false,
            format!("{mail}BDAT 90000000\r\n{}", text.repeat(60)).into(),
        ),
        (
            "replies that are not read",
            false,
            "EHLO test\r\n".repeat(90).into(),
        ),
        ("half a hello of TLS", true, hello),
    ];
    let before = resident(&host);
    for (name, tls, words) in &ways {
        let port = if *tls { host.smtps } else { host.smtp };
        let clients: Vec<_> = (0..SESSIONS)
            .map(|_| {
                let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
                client.write_all(words).unwrap();
                client
            })
            .collect();
        let mut spent = 0;
        wait_for("smtpd to have nothing to do", || {
            let last = std::mem::replace(&mut spent, time_spent(&host));
            std::thread::sleep(Duration::from_millis(500));
            (last == spent).then_some(())
        });
        let used = resident(&host);
        let own = if *name == "many recipients" {
            RECIPIENTS * RECIPIENT
        } else {
            0
        };
        let grown = used.saturating_sub(before);
        assert!(grown < SESSIONS * (SESSION + own), "{name}: {grown}");
        drop(clients);
    }
    unharmed(&mut host, 0, &[]);
}
