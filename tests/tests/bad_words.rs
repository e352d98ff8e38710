//! Commands, logins and messages that are none, or odd. Each refusal says why, and the log says what
//! came.

use std::fs;

use tests::siege::{BARE, begun, serving, unharmed};
use tests::smtp::Smtp;
use tests::wait_for;

const MEGABYTE: usize = 1 << 20;

#[test]
fn commands_that_are_none() {
    let mut host = serving("");
    let long = |head: &str| [head.as_bytes(), &vec![b'A'; MEGABYTE], b"\r\n"].concat();
    // What is sent behind EHLO, the reply, what the log says, and whether the session goes on.
    let table: Vec<(Vec<u8>, &str, &str, bool)> = vec![
        (
            long("MAIL FROM:<"),
            "500 5.5.2 Line too long",
            "500 5.5.2 Line too long: MAIL FROM:<AAAA",
            true,
        ),
        (
            long("AUTH PLAIN "),
            "500 5.5.2 Line too long",
            "500 5.5.2 Line too long: AUTH (not shown)",
            true,
        ),
        (
            b"MAIL FROM:<a\0b@yubin.test>\r\n".to_vec(),
            "501 5.1.7 Bad sender address",
            "MAIL FROM:<a\\x00b@yubin.test>",
            true,
        ),
        (
            b"MAIL FROM:<bob@yubin.test>\0\r\n".to_vec(),
            "501 5.1.7 Bad sender address",
            "MAIL FROM:<bob@yubin.test>\\x00",
            true,
        ),
        (
            b"\0\0\0\r\n".to_vec(),
            "500 5.5.2 Command not recognized",
            "HELP lists them: \\x00\\x00\\x00",
            true,
        ),
        (
            b"MAIL FROM:<j\xc3\xb6rg@yubin.test>\r\n".to_vec(),
            "553 5.6.7 An address beyond ASCII needs SMTPUTF8",
            "",
            true,
        ),
        (
            b"MAIL FROM:<j\xf6rg@yubin.test> SMTPUTF8\r\n".to_vec(),
            "501 5.1.7 Bad sender address",
            "MAIL FROM:<j\\xf6rg@yubin.test> SMTPUTF8",
            true,
        ),
        (
            b"NOOP\rMAIL FROM:<bob@yubin.test>\r\n".to_vec(),
            "500 5.5.2 A line ends with CR LF",
            "never with one of them alone: NOOP\\x0d",
            false,
        ),
        (
            b"NOOP\nMAIL FROM:<bob@yubin.test>\n".to_vec(),
            "500 5.5.2 A line ends with CR LF",
            "never with one of them alone: NOOP\\x0a",
            false,
        ),
        (
            b"BDAT 18446744073709551616 LAST\r\n".to_vec(),
            "501 5.5.4",
            "BDAT 18446744073709551616 LAST",
            false,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: yubin.test\r\n\r\n".to_vec(),
            "554 5.5.1 This is an SMTP server",
            "This is an SMTP server: GET / HTTP/1.1",
            false,
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 60\r\n\r\nMAIL FROM:<bob@yubin.test>\r\n".to_vec(),
            "554 5.5.1 This is an SMTP server",
            "This is an SMTP server: POST / HTTP/1.1",
            false,
        ),
        (
            b"CONNECT elsewhere.net:25 HTTP/1.0\r\n\r\n".to_vec(),
            "554 5.5.1 This is an SMTP server",
            "This is an SMTP server: CONNECT elsewhere.net:25 HTTP/1.0",
            false,
        ),
    ];
    for (words, reply, logged, goes_on) in &table {
        let shown = words.get(..60).unwrap_or(words).escape_ascii();
        let mut smtp = Smtp::connect(host.smtp).unwrap();
        smtp.ask("EHLO test").unwrap();
        smtp.send(words).unwrap();
        let got = smtp.reply().unwrap();
        assert!(got.starts_with(reply), "{shown}: {got}");
        let next = smtp.ask("NOOP");
        assert_eq!(next.is_ok(), *goes_on, "{shown}: {next:?}");
        wait_for(&format!("`{logged}' in the log"), || {
            host.log().contains(logged).then_some(())
        });
    }
    unharmed(&mut host, 0, &[]);
}

/// RFC 4954 4: a line of an exchange has at most 12288 octets.
#[test]
fn megabytes_in_a_login() {
    let mut host = serving("");
    let megabyte = "A".repeat(MEGABYTE);
    for mechanism in ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"] {
        let mut smtp = Smtp::connect(host.smtp).unwrap();
        smtp.ask("EHLO test").unwrap();
        let reply = smtp.ask(&format!("AUTH {mechanism}")).unwrap();
        assert!(reply.starts_with("334"), "{mechanism}: {reply}");
        let reply = smtp.ask(&megabyte).unwrap();
        assert!(reply.starts_with("500 5.5.2 Line too long"), "{reply}");
        // The exchange is over: this is no response.
        let reply = smtp.ask("AUTH PLAIN AGFsaWNlAGFsaWNl").unwrap();
        assert!(reply.starts_with("235"), "{reply}");
    }
    assert!(!host.log().contains("AAAA"));
    unharmed(&mut host, 0, &["500 5.5.2 Line too long: (not shown)"]);
}

/// What is odd in a message and what becomes of it. Octets beyond ASCII and NUL are passed on as
/// they are, announced or not: so much honest mail has them. Whoever cannot take them is asked by
/// qrun.
#[test]
fn odd_content() {
    let mut host = serving("MESSAGE_SIZE_LIMIT=200K\n");
    let line = |n| [&b"Subject: x\r\n\r\n"[..], &vec![b'y'; n], b"\r\n"].concat();
    let table: Vec<(Vec<u8>, &str)> = vec![
        (b"Subject: x\r\n\r\na\0b\r\n".to_vec(), "250 2.0.0"),
        (
            b"Subject: \xf6\r\n\r\n\xc3\xb6\xff\r\n".to_vec(),
            "250 2.0.0",
        ),
        (b"\xff\xfe\0\0\r\n".to_vec(), "250 2.0.0"),
        (line(65_536), "250 2.0.0"),
        (
            line(65_537),
            "550 5.6.0 Message refused: it has a line that is too long",
        ),
        (b"Subject: x\r\n\r\na\rb\r\n".to_vec(), BARE),
        (b"Subject: x\r\n\r\na\nb\r\n".to_vec(), BARE),
        (
            line(300_000),
            "550 5.6.0 Message refused: it has a line that is too long",
        ),
        (
            b"0123456789\r\n".repeat(20_000),
            "552 5.3.4 Message size exceeds the limit of this server",
        ),
    ];
    let mut whole = 0;
    for (content, want) in &table {
        let mut smtp = begun(&host);
        smtp.ask("DATA").unwrap();
        smtp.send(content).unwrap();
        let reply = smtp.ask(".").unwrap();
        let shown = content.get(..40).unwrap_or(content).escape_ascii();
        assert!(reply.starts_with(want), "{shown}: {reply}");
        if let Some(id) = reply.trim_end().strip_prefix("250 2.0.0 Ok: queued as ") {
            whole += 1;
            let file = fs::read(host.path(&format!("var/spool/yubin/local/{id}"))).unwrap();
            let there = file.windows(content.len()).any(|w| w == content);
            assert!(there || content.len() > 60_000, "{shown}");
        }
        assert!(smtp.ask("NOOP").unwrap().starts_with("250"));
    }
    let rejected = "reject: END-OF-MESSAGE from unknown[127.0.0.1]: 550 5.6.0";
    unharmed(&mut host, whole, &[rejected]);
}
