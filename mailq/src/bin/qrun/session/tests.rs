use base::{Envelope, Recipient, ReversePath};

use super::*;
use crate::fake::{Fake, Say, usual};

fn mail(to: &[&str]) -> Mail {
    let recipients: Vec<_> = to
        .iter()
        .map(|a| Recipient::new(a.parse().unwrap()))
        .collect();
    let envelope = Envelope::new(ReversePath::Null, recipients.clone());
    let mail = Mail::new(&"mail.a.test".parse().unwrap(), &envelope, 10);
    mail.to(recipients.iter().map(|r| (r, &r.address)))
}

fn send(port: u16, content: &[u8]) -> Outcome {
    let target = Target {
        host: "mx.b.test".parse().unwrap(),
        ip: "127.0.0.1".parse().unwrap(),
    };
    let mail = mail(&["a@b.test"]);
    run(
        &target,
        port,
        &mail,
        &mut lines(&mut &*content, &mut io::empty()),
        &terms(1),
    )
    .unwrap()
}

/// A message that goes by lines only.
fn lines<'a>(content: &'a mut dyn Read, none: &'a mut io::Empty) -> Forms<'a> {
    Forms {
        by_lines: content,
        binary: none,
    }
}

fn terms(hurry: u32) -> Terms<'static> {
    Terms {
        tls: None,
        may_end: &|| true,
        hurry,
    }
}

fn verdict(outcome: &Outcome) -> String {
    let verdict = &outcome.verdicts[0];
    format!("{} {}", verdict.status, verdict.text)
}

#[test]
fn a_message_goes_over_as_it_is() {
    let fake = Fake::polite();
    let outcome = send(fake.port, b"Subject: x\r\n\r\n.dot\r\n..\r\nend");
    assert_eq!(verdict(&outcome), "2.6.0 250 2.6.0 queued");
    let want = [
        "EHLO mail.a.test",
        "MAIL FROM:<>",
        "RCPT TO:<a@b.test>",
        "DATA",
        "Subject: x",
        "",
        "..dot",
        "...",
        "end",
        ".",
    ];
    assert_eq!(fake.lines()[..want.len()], want);
}

#[test]
fn nobody_there() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let outcome = send(port, b"x\r\n");
    assert_eq!(outcome.progress, Progress::Unreached);
    assert_eq!(
        verdict(&outcome),
        format!("4.4.1 connect to mx.b.test[127.0.0.1]:{port}: Connection refused")
    );
}

#[test]
fn a_host_without_ipv6_tries_the_others() {
    let v6 = "2001:db8::1".parse().unwrap();
    let v4 = "192.0.2.1".parse().unwrap();
    let is_ours = |number, ip| is_ours(&io::Error::from_raw_os_error(number), ip);
    assert!(!is_ours(nix::libc::EADDRNOTAVAIL, v6));
    assert!(is_ours(nix::libc::EADDRNOTAVAIL, v4));
    assert!(is_ours(nix::libc::EMFILE, v6));
    assert!(!is_ours(nix::libc::ENETUNREACH, v4));
}

#[test]
fn servers_that_misbehave_only_defer() {
    let giant: Vec<u8> = b"250-"
        .iter()
        .copied()
        .chain(std::iter::repeat_n(b'x', 1 << 20))
        .collect();
    let table: Vec<(&str, Say, &str)> = vec![
        ("", Say::Close, "waiting for its greeting"),
        ("", Say::Reply("554 no service\r\n"), "554 no service"),
        (
            "",
            Say::Bytes(b"\x16\x03\x01garbage\r\n".to_vec()),
            "without a code",
        ),
        ("EHLO", Say::Bytes(giant), "a reply line without end"),
        (
            "EHLO",
            Say::Bytes(b"250-x\r\n".repeat(10_000)),
            "a reply without end",
        ),
        ("EHLO", Say::Close, "introducing ourselves"),
        ("MAIL", Say::Reply("451 4.3.0 later\r\n"), "451 4.3.0 later"),
        ("RCPT", Say::Reply("450 4.2.0 grey\r\n"), "450 4.2.0 grey"),
        ("RCPT", Say::Close, "sending RCPT TO"),
        ("DATA", Say::Reply("421 4.3.2 bye\r\n"), "421 4.3.2 bye"),
        ("DATA", Say::Close, "sending DATA"),
        (".", Say::Reply("452 4.3.1 full\r\n"), "452 4.3.1 full"),
        (".", Say::Close, "possible duplicate"),
    ];
    for (at, say, want) in table {
        let at = at.to_owned();
        let fake = Fake::start(move |line| {
            let here = line.get(..4).unwrap_or(line) == at;
            if here {
                say.clone()
            } else {
                Say::Reply(usual(line))
            }
        });
        let outcome = send(fake.port, b"Subject: x\r\n\r\nx\r\n");
        let got = verdict(&outcome);
        assert!(got.starts_with('4') && got.contains(want), "{got} / {want}");
        assert_eq!(
            outcome.progress == Progress::Ended,
            want == "possible duplicate"
        );
    }
}

#[test]
fn a_server_that_closes_in_mid_message_is_heard() {
    // It says its reason after the header and reads no more.
    let fake = Fake::start(|line| match line {
        "DATA" => Say::Bytes(b"354 go\r\n552 5.3.4 too long\r\n".to_vec()),
        "Subject: x" => Say::Close,
        _ => Say::Reply(usual(line)),
    });
    let content = [
        b"Subject: x\r\n\r\n".as_slice(),
        &b"0123456789\r\n".repeat(2_000_000),
    ]
    .concat();
    let outcome = send(fake.port, &content);
    assert_eq!(verdict(&outcome), "5.3.4 552 5.3.4 too long");
}

#[test]
fn a_message_that_cannot_be_read_is_never_ended() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => {
                    into[..3].copy_from_slice(b"x\r\n");
                    Ok(3)
                }
                _ => Err(io::Error::other("disk")),
            }
        }
    }
    let fake = Fake::polite();
    let target = Target {
        host: "mx.b.test".parse().unwrap(),
        ip: "127.0.0.1".parse().unwrap(),
    };
    let result = run(
        &target,
        fake.port,
        &mail(&["a@b.test"]),
        &mut lines(&mut Broken(0), &mut io::empty()),
        &terms(1),
    );
    assert!(matches!(result, Err(Ours::Content(_))));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fake.count("."), 0);
}

#[test]
fn time_ends_everything() {
    let fake = Fake::start(|line| {
        if line.is_empty() {
            Say::Silence
        } else {
            Say::Close
        }
    });
    let socket = TcpStream::connect(("127.0.0.1", fake.port)).unwrap();
    let by = Cell::new(Instant::now() + Duration::from_millis(50));
    let mut timed = Timed { socket, by };
    let error = timed.read(&mut [0]).unwrap_err();
    assert!(matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    ));
    assert_eq!(
        timed.read(&mut [0]).unwrap_err().kind(),
        io::ErrorKind::TimedOut
    );
}

#[test]
fn each_reply_of_a_flight_has_its_own_time() {
    // 5 minutes for a reply to RCPT are 0.6 s here; all of them take 1.2 s.
    let fake = Fake::start(|line| {
        if line.starts_with("RCPT") {
            std::thread::sleep(Duration::from_millis(150));
        }
        Say::Reply(usual(line))
    });
    let target = Target {
        host: "mx.b.test".parse().unwrap(),
        ip: "127.0.0.1".parse().unwrap(),
    };
    let to: Vec<String> = (0..8).map(|n| format!("a{n}@b.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let outcome = run(
        &target,
        fake.port,
        &mail(&to),
        &mut lines(&mut &b"x\r\n"[..], &mut io::empty()),
        &terms(500),
    )
    .unwrap();
    assert_eq!(verdict(&outcome), "2.6.0 250 2.6.0 queued");
}

#[test]
fn a_message_whose_answer_nobody_would_wait_for_is_not_ended() {
    let fake = Fake::polite();
    let target = Target {
        host: "mx.b.test".parse().unwrap(),
        ip: "127.0.0.1".parse().unwrap(),
    };
    let terms = Terms {
        may_end: &|| false,
        ..terms(1)
    };
    let result = run(
        &target,
        fake.port,
        &mail(&["a@b.test"]),
        &mut lines(&mut &b"x\r\n"[..], &mut io::empty()),
        &terms,
    );
    assert!(matches!(result, Err(Ours::Stopping)));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fake.count("."), 0);
}

/// RFC 3030: to its octet, and not ended where that is not so.
#[test]
fn binary_octets_go_as_they_are() {
    const CONTENT: &[u8] = b"A: b\r\n\r\n.\r\n\0\xff\r\r";
    let rule = |line: &str| match line.get(..4).unwrap_or(line) {
        "EHLO" => Say::Reply("250-fake\r\n250-CHUNKING\r\n250 BINARYMIME\r\n"),
        "BDAT" | "A: b" => Say::Bytes(Vec::new()),
        // The last line of the message ends with our QUIT.
        last if last.starts_with('\0') => Say::Reply("250 2.6.0 queued\r\n"),
        "." | "" => Say::Bytes(Vec::new()),
        _ => Say::Reply("250 ok\r\n"),
    };
    let greeted = Cell::new(false);
    let fake = Fake::start(move |line| match line {
        "" if !greeted.replace(true) => Say::Reply("220 fake\r\n"),
        _ => rule(line),
    });
    let target = Target {
        host: "mx.b.test".parse().unwrap(),
        ip: "127.0.0.1".parse().unwrap(),
    };
    let mail = mail(&["a@b.test"]).or_binary(Some(CONTENT.len() as u64 + 2));
    let go = |mut content: &[u8]| {
        let forms = &mut Forms {
            by_lines: &mut io::empty(),
            binary: &mut content,
        };
        run(&target, fake.port, &mail, forms, &terms(1))
    };
    let whole = [CONTENT, b"\r\n"].concat();
    assert_eq!(verdict(&go(&whole).unwrap()), "2.6.0 250 2.6.0 queued");
    let want = [
        "EHLO mail.a.test",
        "MAIL FROM:<> BODY=BINARYMIME",
        "RCPT TO:<a@b.test>",
        "BDAT 17 LAST",
        "A: b",
        "",
        ".",
        "\0\u{fffd}",
    ];
    assert_eq!(fake.lines()[..want.len()], want);
}

#[test]
fn a_binary_message_that_is_too_short_is_not_ended() {
    let fake = Fake::start(|line| match line.get(..4).unwrap_or(line) {
        "EHLO" => Say::Reply("250-fake\r\n250-CHUNKING\r\n250 BINARYMIME\r\n"),
        _ => Say::Reply(usual(line)),
    });
    let target = Target {
        host: "mx.b.test".parse().unwrap(),
        ip: "127.0.0.1".parse().unwrap(),
    };
    let mail = mail(&["a@b.test"]).or_binary(Some(100_000));
    let forms = &mut Forms {
        by_lines: &mut io::empty(),
        binary: &mut &vec![b'x'; 99_999][..],
    };
    let result = run(&target, fake.port, &mail, forms, &terms(1));
    assert!(matches!(result, Err(Ours::Content(_))));
}
