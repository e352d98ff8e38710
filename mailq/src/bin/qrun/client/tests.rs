//! Transcripts: `S:` is what the server writes, `C:` what we answer, `!` what the driver does
//! (`tls` the handshake, `content` the message, `close`, and `lost` what it tells).

use base::envelope::{Body, Needs, Notify, Ret};
use base::{Envelope, Recipient, ReversePath};

use super::*;

fn mail(to: &[&str]) -> Mail {
    let recipients: Vec<_> = to
        .iter()
        .map(|a| Recipient::new(a.parse().unwrap()))
        .collect();
    let path = ReversePath::Address("s@a.test".parse().unwrap());
    let mut envelope = Envelope::new(path, recipients.clone());
    envelope.body = Body::EightBitMime;
    envelope.ret = Some(Ret::Headers);
    envelope.envid = Some("id+2B1".into());
    let mail = Mail::new(&"mail.a.test".parse().unwrap(), &envelope, 1000);
    mail.to(recipients.iter().map(|r| (r, &r.address)))
}

/// Plays a transcript and gives the verdicts. The server's bytes come in pieces of `size`.
fn play(mail: Mail, tls: Tls, script: &str, size: usize) -> (Vec<String>, Outcome) {
    let mut client = Client::new(mail, "mx[1]:25".into(), tls);
    let mut expected = Vec::new();
    let mut got = Vec::new();
    for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let mut actions = Vec::new();
        match line.split_at_checked(2) {
            Some(("S:", text)) => {
                let bytes = format!("{}\r\n", text.trim_start());
                for piece in bytes.as_bytes().chunks(size) {
                    client.step(Input::Bytes(piece), &mut actions);
                }
            }
            Some(("C:", _) | ("! ", "tls" | "content" | "close")) => {
                expected.push(line.to_owned());
                match line {
                    "! tls" => client.step(Input::TlsUp, &mut actions),
                    "! content" => client.step(Input::ContentSent, &mut actions),
                    _ => (),
                }
            }
            Some(("! ", "lost")) => client.step(Input::Lost("lost connection"), &mut actions),
            _ => panic!("{line}"),
        }
        for action in actions {
            match action {
                Action::Send(text) => got.extend(text.lines().map(|l| format!("C: {l}"))),
                Action::StartTls => got.push("! tls".into()),
                Action::SendContent | Action::SendBinary(_) => got.push("! content".into()),
                Action::Close => got.push("! close".into()),
            }
        }
    }
    assert_eq!(got, expected, "in pieces of {size}: {script}");
    let outcome = client.outcome();
    let verdicts = outcome
        .verdicts
        .iter()
        .map(|v| format!("{} {}", v.status, v.text))
        .collect();
    (verdicts, outcome)
}

/// The same verdicts for every split.
fn verdicts(to: &[&str], script: &str) -> Vec<String> {
    let whole = play(mail(to), Tls::Failed, script, usize::MAX).0;
    for size in [1, 2, 5] {
        assert_eq!(play(mail(to), Tls::Failed, script, size).0, whole);
    }
    whole
}

const A: &[&str] = &["a@b.test"];
const AB: &[&str] = &["a@b.test", "b@b.test"];

#[test]
fn the_plain_case() {
    let script = "
        S: 220 mx.b.test ESMTP
        C: EHLO mail.a.test
        S: 250-mx.b.test
        S: 250-SIZE 5000
        S: 250-8BITMIME
        S: 250 DSN
        C: MAIL FROM:<s@a.test> SIZE=1000 BODY=8BITMIME RET=HDRS ENVID=id+2B1
        S: 250 2.1.0 ok
        C: RCPT TO:<a@b.test>
        S: 250 2.1.5 ok
        C: RCPT TO:<b@b.test>
        S: 550 5.1.1 no such user
        C: DATA
        S: 354 go on
        ! content
        S: 250 2.6.0 queued as 1
        C: QUIT
        ! close";
    let want = [
        "2.6.0 250 2.6.0 queued as 1",
        "5.1.1 550 5.1.1 no such user",
    ];
    assert_eq!(verdicts(AB, script), want);
}

#[test]
fn an_old_server() {
    let script = "
        S: 220 old
        C: EHLO mail.a.test
        S: 500 what?
        C: HELO mail.a.test
        S: 250 hello
        C: MAIL FROM:<s@a.test>
        S: 250 ok
        C: RCPT TO:<a@b.test>
        S: 251 will forward
        C: DATA
        S: 354
        ! content
        S: 250
        C: QUIT
        ! close";
    assert_eq!(verdicts(A, script), ["2.0.0 250"]);
}

const PIPELINED: &str = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250-mx
        S: 250 PIPELINING
        C: MAIL FROM:<s@a.test>
        C: RCPT TO:<a@b.test>
        C: RCPT TO:<b@b.test>
        C: DATA";

#[test]
fn pipelined() {
    let script = format!(
        "{PIPELINED}
        S: 250 ok
        S: 450 4.2.0 grey
        S: 250 ok
        S: 354 go
        ! content
        S: 554 5.6.0 virus
        C: QUIT
        ! close"
    );
    assert_eq!(
        verdicts(AB, &script),
        ["4.2.0 450 4.2.0 grey", "5.6.0 554 5.6.0 virus"]
    );
}

#[test]
fn pipelined_to_nobody() {
    let nobody = "
        S: 250 ok
        S: 550 5.1.1 no
        S: 552 too many";
    // RFC 2920 3.1: both kinds of servers exist.
    let refuses = format!("{PIPELINED}{nobody}\nS: 503 no recipients\nC: QUIT\n! close");
    let waits = format!("{PIPELINED}{nobody}\nS: 354 go\nC: .\nS: 554 nobody\nC: QUIT\n! close");
    for script in [refuses, waits] {
        assert_eq!(
            verdicts(AB, &script),
            ["5.1.1 550 5.1.1 no", "4.0.0 552 too many"]
        );
    }
}

#[test]
fn refusals_at_each_step() {
    let greeted = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250 mx
        C: MAIL FROM:<s@a.test>";
    let table = [
        ("S: 554 5.7.1 go away\nC: QUIT\n! close".to_owned(), "4.7.1 554 5.7.1 go away"),
        ("S: 421 busy\nC: QUIT\n! close".into(), "4.0.0 421 busy"),
        ("S: 220 mx\nC: EHLO mail.a.test\nS: 450 x\nC: QUIT\n! close".into(), "4.0.0 450 x"),
        (
            "S: 220 mx\nC: EHLO mail.a.test\nS: 550 x\nC: HELO mail.a.test\nS: 550 y\nC: QUIT\n! close".into(),
            "5.0.0 550 y",
        ),
        (format!("{greeted}\nS: 553 5.1.8 who?\nC: QUIT\n! close"), "5.1.8 553 5.1.8 who?"),
        (format!("{greeted}\nS: 452 full\nC: QUIT\n! close"), "4.0.0 452 full"),
        (
            format!("{greeted}\nS: 250 ok\nC: RCPT TO:<a@b.test>\nS: 421 4.3.2 bye\nC: QUIT\n! close"),
            "4.3.2 421 4.3.2 bye",
        ),
        (
            format!("{greeted}\nS: 250 ok\nC: RCPT TO:<a@b.test>\nS: 250 ok\nC: DATA\nS: 550 no\nC: QUIT\n! close"),
            "5.0.0 550 no",
        ),
        (
            format!("{greeted}\nS: 250 ok\nC: RCPT TO:<a@b.test>\nS: 250 ok\nC: DATA\nS: 250 eh?\nC: QUIT\n! close"),
            "4.5.0 250 eh?",
        ),
    ];
    for (script, want) in table {
        assert_eq!(verdicts(A, &script), [want]);
    }
}

#[test]
fn a_message_that_is_too_long_is_not_sent() {
    let script = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250-mx
        S: 250 SIZE 999
        C: QUIT
        ! close";
    assert!(verdicts(A, script)[0].starts_with("5.3.4 "));
    let unlimited = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250-mx
        S: 250 SIZE 0
        C: MAIL FROM:<s@a.test> SIZE=1000";
    assert!(verdicts(A, unlimited)[0].starts_with("4.4.2 "));
}

#[test]
fn lost_connections_say_where_and_what_may_follow() {
    let sent =
        format!("{PIPELINED}\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\n! content\n! lost\n");
    let mut client = Client::new(mail(AB), "mx[1]:25".into(), Tls::Failed);
    let mut actions = Vec::new();
    for line in sent.lines().map(str::trim) {
        match line.split_at_checked(3) {
            Some(("S: ", text)) => {
                client.step(Input::Bytes(format!("{text}\r\n").as_bytes()), &mut actions);
            }
            _ if line == "! content" => client.step(Input::ContentSent, &mut actions),
            _ if line == "! lost" => client.step(Input::Lost("lost connection"), &mut actions),
            _ => (),
        }
    }
    let outcome = client.outcome();
    assert_eq!(outcome.progress, Progress::Ended);
    for verdict in outcome.verdicts {
        assert_eq!(verdict.status, Status::BAD_CONNECTION);
        assert!(
            verdict.text.contains("possible duplicate"),
            "{}",
            verdict.text
        );
    }
}

#[test]
fn tls_where_it_is_offered_and_all_is_said_again() {
    let script = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250-mx
        S: 250-PIPELINING
        S: 250 STARTTLS
        C: STARTTLS
        S: 220 go
        ! tls
        C: EHLO mail.a.test
        S: 250-mx
        S: 250 STARTTLS
        C: MAIL FROM:<s@a.test>
        S: 250 ok
        C: RCPT TO:<a@b.test>
        S: 250 ok
        C: DATA
        S: 354
        ! content
        S: 250 ok
        C: QUIT
        ! close";
    assert_eq!(play(mail(A), Tls::May, script, 3).0, ["2.0.0 250 ok"]);
    let refused = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250-mx
        S: 250 STARTTLS
        C: STARTTLS
        S: 454 no certificate
        C: MAIL FROM:<s@a.test>
        S: 550 no
        C: QUIT
        ! close";
    assert_eq!(play(mail(A), Tls::May, refused, 3).0, ["5.0.0 550 no"]);
}

#[test]
fn plaintext_behind_starttls_is_no_reply() {
    let mut client = Client::new(mail(A), "mx[1]:25".into(), Tls::May);
    let mut actions = Vec::new();
    client.step(
        Input::Bytes(b"220 mx\r\n250-mx\r\n250 STARTTLS\r\n"),
        &mut actions,
    );
    client.step(Input::Bytes(b"220 go\r\n250 injected\r\n"), &mut actions);
    assert_eq!(actions.last(), Some(&Action::Close));
    assert!(!actions.contains(&Action::StartTls));
    assert_eq!(client.outcome().verdicts[0].status, Status::new(4, 7, 5));
}

#[test]
fn many_recipients_go_in_flights() {
    let to: Vec<String> = (0..100).map(|n| format!("u{n}@b.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mut client = Client::new(mail(&to), "mx[1]:25".into(), Tls::Failed);
    let mut actions = Vec::new();
    client.step(
        Input::Bytes(b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n"),
        &mut actions,
    );
    let mut seen = 0;
    while !actions.contains(&Action::SendContent) {
        let sent: usize = actions
            .drain(..)
            .map(|a| match a {
                Action::Send(text) => {
                    let lines = text.lines().filter(|l| l.starts_with("RCPT")).count();
                    assert!(lines <= FLIGHT);
                    if text.contains("MAIL") {
                        client.step(Input::Bytes(b"250 ok\r\n"), &mut Vec::new());
                    }
                    assert_eq!(text.contains("DATA"), seen + lines == 100);
                    lines
                }
                other => panic!("{other:?}"),
            })
            .sum();
        seen += sent;
        client.step(Input::Bytes(&b"250 ok\r\n".repeat(sent)), &mut actions);
        if seen == 100 {
            client.step(Input::Bytes(b"354 go\r\n"), &mut actions);
        }
    }
    client.step(Input::ContentSent, &mut actions);
    client.step(Input::Bytes(b"250 ok\r\n"), &mut actions);
    assert!(
        client
            .outcome()
            .verdicts
            .iter()
            .all(|v| v.status.class() == 2)
    );
}

#[test]
fn wishes_go_on_to_who_understands_them() {
    let mut to = Recipient::new("a@b.test".parse().unwrap());
    to.orcpt = Some("rfc822;list+40a.test".into());
    to.notify = Notify::On {
        success: true,
        failure: true,
        delay: false,
    };
    let mut bad = Recipient::new("b@b.test".parse().unwrap());
    bad.orcpt = Some("rfc822;x> DATA".into());
    bad.notify = Notify::Never;
    let mail = mail(&[]).to([(&to, &to.address), (&bad, &bad.address)]);
    let script = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250-mx
        S: 250 DSN
        C: MAIL FROM:<s@a.test> RET=HDRS ENVID=id+2B1
        S: 250 ok
        C: RCPT TO:<a@b.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;list+40a.test
        S: 250 ok
        C: RCPT TO:<b@b.test> NOTIFY=NEVER
        S: 250 ok
        C: DATA";
    assert!(play(mail, Tls::Failed, script, 100).1.dsn);
}

#[test]
fn nonsense_and_floods_end_it() {
    let flood = b"250-x\r\n".repeat(1000);
    let endless = vec![b'2'; 100_000];
    for bytes in [
        b"SSH-2.0-OpenSSH\r\n".as_slice(),
        b"\0\xff\r\n",
        &flood,
        &endless,
    ] {
        for size in [1, 1000] {
            let mut client = Client::new(mail(A), "mx[1]:25".into(), Tls::May);
            let mut actions = Vec::new();
            for piece in bytes.chunks(size) {
                if client.is_closed() {
                    break;
                }
                client.step(Input::Bytes(piece), &mut actions);
            }
            assert!(client.is_closed());
            let outcome = client.outcome();
            assert_eq!(outcome.progress, Progress::Connected);
            assert_eq!(outcome.verdicts[0].status.class(), 4);
        }
    }
}

/// RFC 6531 3.2: what is not announced is not sent, and nothing is made to fit.
#[test]
fn addresses_beyond_ascii_go_to_who_takes_them() {
    let beyond: &[&str] = &["j\u{f6}rg@b.test"];
    let taken = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250-mx
        S: 250-SMTPUTF8
        S: 250 8BITMIME
        C: MAIL FROM:<s@a.test> BODY=8BITMIME SMTPUTF8
        S: 250 ok
        C: RCPT TO:<j\u{f6}rg@b.test>
        S: 550 5.1.1 no
        C: QUIT
        ! close";
    let (verdicts, outcome) = play(mail(beyond), Tls::Failed, taken, 3);
    assert_eq!(verdicts, ["5.1.1 550 5.1.1 no"]);
    assert!(!outcome.unfit);
    let refused = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250-mx
        S: 250 8BITMIME
        C: QUIT
        ! close";
    let (verdicts, outcome) = play(mail(beyond), Tls::Failed, refused, 3);
    assert_eq!(verdicts, ["5.6.7 mx[1]:25 does not offer SMTPUTF8"]);
    assert!(outcome.unfit);
    let needs = Needs {
        smtputf8: true,
        require_tls: false,
    };
    let header = mail(A).needing(needs);
    let (verdicts, _) = play(header, Tls::Failed, refused, 3);
    assert_eq!(verdicts, ["5.6.7 mx[1]:25 does not offer SMTPUTF8"]);
}

/// RFC 8689 4.2.1
#[test]
fn requiretls_goes_on_over_tls_only() {
    let needs = Needs {
        smtputf8: false,
        require_tls: true,
    };
    let bare = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250-mx
        S: 250 REQUIRETLS
        C: QUIT
        ! close";
    let without = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250-mx
        S: 250 STARTTLS
        C: STARTTLS
        S: 220 go
        ! tls
        C: EHLO mail.a.test
        S: 250 mx
        C: QUIT
        ! close";
    let not_now = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250-mx
        S: 250 STARTTLS
        C: STARTTLS
        S: 454 no
        C: QUIT
        ! close";
    let taken = "
        S: 220 mx
        C: EHLO mail.a.test
        S: 250-mx
        S: 250 STARTTLS
        C: STARTTLS
        S: 220 go
        ! tls
        C: EHLO mail.a.test
        S: 250-mx
        S: 250 REQUIRETLS
        C: MAIL FROM:<s@a.test> REQUIRETLS
        S: 550 no
        C: QUIT
        ! close";
    let lacks = "5.7.30 mx[1]:25 does not offer";
    for (script, verdict, unfit) in [
        (
            bare,
            format!("{lacks} STARTTLS, which REQUIRETLS needs"),
            true,
        ),
        (without, format!("{lacks} REQUIRETLS"), true),
        (
            not_now,
            "4.7.5 mx[1]:25 says to STARTTLS: 454 no".into(),
            false,
        ),
        (taken, "5.0.0 550 no".into(), false),
    ] {
        let (verdicts, outcome) = play(mail(A).needing(needs), Tls::May, script, 3);
        assert_eq!((verdicts, outcome.unfit), (vec![verdict], unfit));
    }
}

/// RFC 3030: binary parts go by BDAT, which is not said before somebody is to have them; and only to
/// a server that has both words for it.
#[test]
fn binary_parts_go_to_who_takes_them() {
    let binary = || mail(&["a@b.test"]).or_binary(Some(900));
    let (verdicts, _) = play(
        binary(),
        Tls::May,
        "
        S:220 hello
        C: EHLO mail.a.test
        S:250-mx
        S:250-PIPELINING
        S:250-SIZE 950
        S:250-8BITMIME
        S:250-BINARYMIME
        S:250 CHUNKING
        C: MAIL FROM:<s@a.test> SIZE=900 BODY=BINARYMIME
        C: RCPT TO:<a@b.test>
        S:250 ok
        S:250 ok
        ! content
        S:250 2.6.0 queued
        C: QUIT
        ! close
        ",
        1,
    );
    assert_eq!(verdicts, ["2.6.0 250 2.6.0 queued"]);
    let (verdicts, _) = play(
        binary(),
        Tls::May,
        "
        S:220 hello
        C: EHLO mail.a.test
        S:250-mx
        S:250-PIPELINING
        S:250-BINARYMIME
        S:250 CHUNKING
        C: MAIL FROM:<s@a.test> BODY=BINARYMIME
        C: RCPT TO:<a@b.test>
        S:250 ok
        S:550 5.1.1 nobody
        C: QUIT
        ! close
        ",
        1,
    );
    assert_eq!(verdicts, ["5.1.1 550 5.1.1 nobody"]);
    for lacking in ["CHUNKING", "BINARYMIME"] {
        let script = format!(
            "
            S:220 hello
            C: EHLO mail.a.test
            S:250-mx
            S:250-8BITMIME
            S:250 {lacking}
            C: MAIL FROM:<s@a.test> BODY=8BITMIME
            S:250 ok
            C: RCPT TO:<a@b.test>
            S:250 ok
            C: DATA
            S:354 go
            ! content
            S:250 2.6.0 queued
            C: QUIT
            ! close
            "
        );
        play(binary(), Tls::May, &script, 1);
    }
}

#[test]
fn a_filter_is_told_whose_it_is_and_may_not_care() {
    let mut mail = mail(A);
    let client = queue::Client {
        ip: "192.0.2.1".parse().ok(),
        helo: "pc".into(),
        protocol: "ESMTP".into(),
        ..queue::Client::default()
    };
    let origin = queue::Origin::now(queue::Source::Network(client));
    let id = queue::QueueId::parse("4F2c1b0000BCDFGHJKLM").unwrap();
    mail.forward = Some(crate::forward::Forward::new(&id, &origin, false));
    let (verdicts, outcome) = play(
        mail.clone(),
        Tls::Failed,
        "S: 220 filter
        C: EHLO mail.a.test
        S: 250-filter
        S: 250-DSN
        S: 250 XFORWARD NAME ADDR HELO IDENT SOURCE
        C: XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1
        S: 250 ok
        C: XFORWARD HELO=pc IDENT=4F2c1b0000BCDFGHJKLM SOURCE=REMOTE
        S: 550 5.7.0 no
        C: MAIL FROM:<s@a.test> RET=HDRS ENVID=id+2B1
        S: 250 ok
        C: RCPT TO:<a@b.test>
        S: 250 ok
        C: DATA
        S: 354 go on
        ! content
        S: 250 2.0.0 passed
        C: QUIT
        ! close",
        3,
    );
    assert_eq!(verdicts, ["2.0.0 250 2.0.0 passed"]);
    assert!(outcome.dsn);
    let (verdicts, _) = play(
        mail,
        Tls::Failed,
        "S: 220 filter
        C: EHLO mail.a.test
        S: 250-filter
        S: 250 XFORWARD ADDR
        C: XFORWARD ADDR=192.0.2.1
        S: 421 4.3.0 ending
        C: QUIT
        ! close",
        usize::MAX,
    );
    assert_eq!(verdicts, ["4.3.0 421 4.3.0 ending"]);
}
