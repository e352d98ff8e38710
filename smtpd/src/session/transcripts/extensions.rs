//! What may only be said where it was announced, and what it changes: SMTPUTF8, REQUIRETLS,
//! FUTURERELEASE, ETRN, BINARYMIME.

use super::*;

/// RFC 6531 3.4, 3.5 and 4.3
#[test]
fn addresses_beyond_ascii_need_smtputf8() {
    let mut world = World::new(Client {
        trusted: true,
        ..client()
    });
    world.play(HELLO);
    world.play(
        "
        C: MAIL FROM:<j\u{f6}rg@b\u{fc}cher.example>
        S: 553 5.6.7 An address beyond ASCII needs SMTPUTF8 in MAIL FROM
        C: MAIL FROM:<ann@b\u{fc}cher.example>
        S: 553 5.6.7 An address beyond ASCII needs SMTPUTF8 in MAIL FROM
        C: MAIL FROM:<ann@x.net>
        S: 250 2.1.0 Ok
        C: RCPT TO:<j\u{f6}rg@x.net>
        S: 553 5.6.7 An address beyond ASCII needs SMTPUTF8 in MAIL FROM
        C: RSET
        S: 250 2.0.0 Ok
        C: VRFY j\u{f6}rg SMTPUTF8
        S: 252 2.5.2 Cannot VRFY user; try RCPT to attempt delivery
        C: MAIL FROM:<j\u{f6}rg@b\u{fc}cher.example> BODY=8BITMIME SMTPUTF8
        S: 250 2.1.0 Ok
        C: RCPT TO:<\u{7530}\u{4e2d}@example.org> ORCPT=utf-8;\u{7530}@x
        S: 550 5.1.1 <\u{7530}\u{4e2d}@example.org>: No such user here
        C: RCPT TO:<\u{7530}\u{4e2d}@x.net> ORCPT=utf-8;\u{7530}@x
        S: 250 2.1.5 Ok
        C: DATA
        S: 354 End data with <CR><LF>.<CR><LF>
        C: Subject: \u{e4}
        C: .
        S: 250 2.0.0 Ok: queued as Q1
        ",
    );
    assert_eq!(
        world.taken,
        [
            "UTF8SMTP <j\u{f6}rg@xn--bcher-kva.example> local relay \u{7530}\u{4e2d}@x.net \
             \"Subject: \u{e4}\\r\\n\""
        ]
    );
}

/// As everybody does: a header beyond ASCII alone is eight bits, whatever was said of it.
#[test]
fn a_header_beyond_ascii_needs_nothing() {
    let world = play(
        "
        C: MAIL FROM:<a@x.net>
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: DATA
        S: 354 End data with <CR><LF>.<CR><LF>
        C: Subject: \u{e4}
        C: .
        S: 250 2.0.0 Ok: queued as Q1
        ",
    );
    assert_eq!(world.taken.len(), 1);
}

/// RFC 8689 2 and 4.1
#[test]
fn requiretls_is_for_tls() {
    let mut world = World::new(client());
    world.play(HELLO);
    world.play(
        "
        C: MAIL FROM:<a@x.net> REQUIRETLS
        S: 530 5.7.10 REQUIRETLS is for mail that comes over TLS, say STARTTLS first
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        C: EHLO foo.com
        S: 250-mx.example.org
        S: 250-PIPELINING
        S: 250-SIZE 1000
        S: 250-8BITMIME
        S: 250-AUTH PLAIN LOGIN
        S: 250-REQUIRETLS
        S: 250-LIMITS RCPTMAX=3
        S: 250-ENHANCEDSTATUSCODES
        S: 250-DSN
        S: 250-CHUNKING
        S: 250-BINARYMIME
        S: 250-SMTPUTF8
        S: 250 HELP
        C: MAIL FROM:<a@x.net> REQUIRETLS
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        ",
    );
}

/// RFC 4865 4: only for submissions, as long as EHLO says, and only one of its two parameters.
#[test]
fn a_submission_may_be_told_to_wait() {
    let mut world = World::new(Client {
        submission: true,
        trusted: true,
        ..client()
    });
    let hello = HELLO.replace(
        "S: 250-LIMITS",
        "S: 250-FUTURERELEASE 86400 2026-12-01T08:00:00Z\n    S: 250-LIMITS",
    );
    world.play(&hello);
    world.play(
        "
        C: MAIL FROM:<ann@example.org> HOLDFOR=86401
        S: 501 5.5.4 HOLDFOR or HOLDUNTIL is in the past, or beyond what EHLO tells
        C: MAIL FROM:<ann@example.org> HOLDUNTIL=2026-12-01T08:00:01Z
        S: 501 5.5.4 HOLDFOR or HOLDUNTIL is in the past, or beyond what EHLO tells
        C: MAIL FROM:<ann@example.org> HOLDUNTIL=2026-11-30T07:59:59Z
        S: 501 5.5.4 HOLDFOR or HOLDUNTIL is in the past, or beyond what EHLO tells
        C: MAIL FROM:<ann@example.org> HOLDFOR=60 HOLDUNTIL=2026-12-01T08:00:00Z
        S: 501 5.5.4 Syntax error in parameters
        C: MAIL FROM:<ann@example.org> HOLDFOR=soon
        S: 501 5.5.4 Write HOLDFOR=seconds or HOLDUNTIL=2026-12-01T08:00:00Z
        C: MAIL FROM:<ann@example.org> holdfor=60
        S: 250 2.1.0 Ok
        C: RSET
        S: 250 2.0.0 Ok
        C: MAIL FROM:<ann@example.org> HOLDUNTIL=2026-12-01T17:00:00+09:00
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        ",
    );
}

#[test]
fn nobody_else_may() {
    play(
        "
        C: MAIL FROM:<a@x.net> HOLDFOR=60
        S: 555 5.5.4 Parameter not recognized or not offered
        ",
    );
    // Who cannot log in here will never send.
    let mut world = World::new(Client {
        submission: true,
        ..client()
    });
    world.play(HELLO);
    world.play(
        "
        C: MAIL FROM:<ann@example.org> HOLDFOR=60
        S: 530 5.7.0 Authentication required
        ",
    );
}

/// RFC 1985 5
#[test]
fn a_domains_mail_may_be_asked_for() {
    let mut world = World::keeping_mail_for(&["far.example"], client());
    let hello = HELLO.replace("RCPTMAX=3\n", "RCPTMAX=3\n    S: 250-ETRN\n");
    world.play(
        "
        S: 220 mx.example.org ESMTP yubin
        C: ETRN far.example
        S: 503 5.5.1 Say EHLO or HELO first
        ",
    );
    world.play(
        hello
            .split_once('\n')
            .unwrap()
            .1
            .split_once('\n')
            .unwrap()
            .1,
    );
    world.play(
        "
        C: ETRN far.example
        S: 250 2.0.0 OK, queuing for node <far.example> started
        C: etrn @Deep.Far.example.
        S: 250 2.0.0 OK, queuing for node <@deep.far.example> started
        C: ETRN example.org
        S: 459 4.7.1 Node <example.org> not allowed: no mail is kept for it here
        C: ETRN @example
        S: 459 4.7.1 Node <@example> not allowed: no mail is kept for it here
        C: ETRN #far.example
        S: 459 4.7.1 Node <#far.example> not allowed: no such queue
        C: ETRN
        S: 501 5.5.4 Syntax error in parameters
        C: ETRN ../relay
        S: 501 5.5.4 Syntax error in parameters
        C: MAIL FROM:<a@x.net>
        S: 250 2.1.0 Ok
        C: ETRN far.example
        S: 503 5.5.1 ETRN not allowed in a mail transaction
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: RSET
        S: 250 2.0.0 Ok
        ",
    );
    world.full = true;
    world.play(
        "
        C: ETRN far.example
        S: 458 4.3.0 <far.example>: Unable to queue messages, try again later
        C: NOOP
        S: 250 2.0.0 Ok
        ",
    );
}

#[test]
fn where_no_mail_waits_there_is_no_etrn() {
    play(
        "
        C: ETRN example.org
        S: 502 5.5.1 Not offered here
        ",
    );
    let submission = Client {
        submission: true,
        ..client()
    };
    let mut world = World::keeping_mail_for(&["far.example"], submission);
    world.play(HELLO);
    world.play(
        "
        C: ETRN far.example
        S: 502 5.5.1 Not offered here
        ",
    );
}

/// RFC 3030 3: only by BDAT; octets of the body alone are free.
#[test]
fn binarymime_comes_by_bdat() {
    let mut world = play(
        "
        C: MAIL FROM:<a@x.net> BODY=BINARYMIME
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: DATA
        S: 503 5.5.1 BINARYMIME comes by BDAT, not by DATA
        ",
    );
    world.send(b"BDAT 7\r\nA: b\r\n\rBDAT 11\r\n\n\n\r.\r\n.\r\n\0\xffBDAT 0 LAST\r\n");
    world.play(
        "
        S: 250 2.0.0 Ok: 6 octets
        S: 250 2.0.0 Ok: 18 octets
        S: 250 2.0.0 Ok: queued as Q1
        ",
    );
    let taken = &world.taken[0];
    assert!(
        taken.contains(r#""A: b\r\n\r\n\n\r.\r\n.\r\n\0�""#),
        "{taken}"
    );
}

/// In the header nothing is: what is a line there must be one everywhere.
#[test]
fn the_header_of_binarymime_has_lines() {
    for header in [
        "A: b\nC: d\r\n\r\n",
        "A: b\rC: d\r\n\r\n",
        "A: b\r\n\n\0\r\n\r\n",
    ] {
        let mut world = play(
            "
            C: MAIL FROM:<a@x.net> BODY=BINARYMIME
            S: 250 2.1.0 Ok
            C: RCPT TO:<ann@example.org>
            S: 250 2.1.5 Ok
            ",
        );
        world.send(format!("BDAT {} LAST\r\n{header}", header.len()).as_bytes());
        world
            .play("S: 550 5.6.11 Message refused: it has a CR or LF alone, a line ends with CR LF");
        assert!(world.taken.is_empty(), "{header:?}");
    }
}

/// A content filter says whose message it brings back, for one message; nobody else does.
#[test]
fn xforward_is_for_filters() {
    play("C: XFORWARD ADDR=192.0.2.9\nS: 550 5.7.0 XFORWARD is not for this client");
    let mut world = World::new(Client {
        trusted: true,
        filter: true,
        ..client()
    });
    world.play(&HELLO.replace(
        "S: 250-CHUNKING\n    S: 250-BINARYMIME",
        "S: 250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
    ));
    world.play(
        "
        C: XFORWARD ADDR=192.0.2.9 NAME=mx.example.net PORT=4711
        S: 250 2.0.0 Ok
        C: XFORWARD IDENT=1a2B HELO=x+2By SOURCE=REMOTE
        S: 250 2.0.0 Ok
        C: XFORWARD LOGIN=ann
        S: 501 5.5.4 Bad XFORWARD attribute or value
        C: MAIL FROM:<a@b.c>
        S: 250 2.1.0 Ok
        C: XFORWARD ADDR=192.0.2.10
        S: 503 5.5.1 XFORWARD not allowed in a mail transaction
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: DATA
        S: 354 End data with <CR><LF>.<CR><LF>
        C: x
        C: .
        S: 250 2.0.0 Ok: queued as Q1
        C: XFORWARD ADDR=192.0.2.11
        S: 250 2.0.0 Ok
        C: RSET
        S: 250 2.0.0 Ok
        C: MAIL FROM:<a@b.c>
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: DATA
        S: 354 End data with <CR><LF>.<CR><LF>
        C: x
        C: .
        S: 250 2.0.0 Ok: queued as Q1
        ",
    );
    let came: Vec<_> = world
        .logged
        .iter()
        .filter(|l| l.contains("client="))
        .collect();
    assert_eq!(
        came,
        [
            "Q1: client=unknown[192.0.2.1], orig_queue_id=1a2B, orig_client=mx.example.net[192.0.2.9]",
            "Q1: client=unknown[192.0.2.1]"
        ]
    );
}

/// Others may say how a line is refused that is no command, in the middle of a message too.
#[test]
fn a_line_that_is_no_command_is_refused_by_who_likes_to() {
    let world = play(
        "
        C: XYZZY
        S: 500 5.5.2 Command not recognized; HELP lists them
        C: XNO
        S: 550 5.7.1 Command rejected
        C: MAIL FROM:<a@b.c>
        S: 250 2.1.0 Ok
        C: XNO
        S: 550 5.7.1 Command rejected
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: BDAT 0
        S: 250 2.0.0 Ok: 0 octets
        C: XSTOP
        S: 421 4.7.1 Service unavailable, closing connection
        ",
    );
    assert!(world.closed && world.taken.is_empty());
}

/// What is refused is read to its end, that its sender is told why, but not without end.
#[test]
fn a_refused_message_without_end_is_cut_off() {
    let begin = "
        C: MAIL FROM:<a@b.c>
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        ";
    let data = "C: DATA\nS: 354 End data with <CR><LF>.<CR><LF>";
    let too_big = "S: 552 5.3.4 Message size exceeds the limit of this server";
    let lines = b"0123456789abcd\r\n".repeat(64 * 1024);
    // Sixteen times its limit: it ends, and the session goes on.
    let mut world = play(begin);
    world.play(data);
    for _ in 0..15 {
        world.send(&lines);
    }
    world.send(b".\r\n");
    world.play(too_big);
    world.play("C: NOOP\nS: 250 2.0.0 Ok");
    // Neither do LFs alone come for nothing.
    for piece in [lines.clone(), vec![b'\n'; 1 << 20]] {
        let mut world = play(begin);
        world.play(data);
        let refusal = match piece[0] {
            b'\n' => {
                "S: 550 5.6.11 Message refused: it has a CR or LF alone, a line ends with CR LF"
            }
            _ => too_big,
        };
        for _ in 0..20 {
            world.send(&piece);
        }
        world.play(refusal);
        assert!(world.closed && world.taken.is_empty());
    }
    let mut world = play(begin);
    world.send(b"BDAT 99999999999999\r\n");
    for _ in 0..20 {
        world.send(&lines);
    }
    world.play(too_big);
    assert!(world.closed);
    let mut world = play("");
    world.send(b"BDAT 99999999999999\r\n");
    for _ in 0..20 {
        world.send(&[b'x'; 1 << 20]);
    }
    world.play("S: 503 5.5.1 MAIL first");
    assert!(world.closed);
}
