//! Sessions as the RFCs write them: `C:` the client, `S:` the server, `#` what else happened.

mod extensions;

use proptest::prelude::{any, proptest};

use super::fake::{HELLO, World, admission, client, play};
use super::*;

/// RFC 5321 D.1
#[test]
fn a_typical_transaction() {
    let world = play(
        "
        C: MAIL FROM:<Smith@bar.com>
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: RCPT TO:<Green@example.org>
        S: 550 5.1.1 <Green@example.org>: No such user here
        C: RCPT TO:<bob@example.org>
        S: 250 2.1.5 Ok
        C: DATA
        S: 354 End data with <CR><LF>.<CR><LF>
        C: Blah blah blah...
        C: ..etc. etc. etc.
        C: .
        S: 250 2.0.0 Ok: queued as Q1
        C: QUIT
        S: 221 2.0.0 Bye
        ",
    );
    assert_eq!(
        world.taken,
        [
            "ESMTP <Smith@bar.com> local ann@example.org bob@example.org relay \
          \"Blah blah blah...\\r\\n.etc. etc. etc.\\r\\n\""
        ]
    );
    assert!(world.closed);
    assert_eq!(
        world.logged,
        [
            "NOQUEUE: reject: RCPT from unknown[192.0.2.1]: 550 5.1.1 <Green@example.org>: No such \
             user here; from=<Smith@bar.com> to=<Green@example.org> proto=ESMTP helo=<foo.com>",
            "Q1: client=unknown[192.0.2.1]",
            "Q1: from=<Smith@bar.com>, size=36, nrcpt=2 (queue active)",
        ]
    );
}

/// RFC 5321 D.2
#[test]
fn an_aborted_transaction() {
    let world = play(
        "
        C: MAIL FROM:<Smith@bar.com>
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: RCPT TO:<Green@example.org>
        S: 550 5.1.1 <Green@example.org>: No such user here
        C: RSET
        S: 250 2.0.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 503 5.5.1 MAIL first
        C: QUIT
        S: 221 2.0.0 Bye
        ",
    );
    assert!(world.taken.is_empty());
}

/// RFC 5321 D.3, from a client that may relay, with a recipient here and one elsewhere.
#[test]
fn a_relayed_message() {
    let mut world = World::new(Client {
        trusted: true,
        ..client()
    });
    world.play(HELLO);
    world.play(
        "
        C: MAIL FROM:<JQP@bar.com>
        S: 250 2.1.0 Ok
        C: RCPT TO:<@foo.com:Jones@XYZ.COM>
        S: 250 2.1.5 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: DATA
        S: 354 End data with <CR><LF>.<CR><LF>
        C: Date: Thu, 21 May 1998 05:33:22 -0700
        C:
        C: hi
        C: .
        S: 250 2.0.0 Ok: queued as Q1
        "
        .replace("C:\n", "C: \n")
        .as_str(),
    );
    assert_eq!(
        world.taken,
        [
            "ESMTP <JQP@bar.com> local ann@example.org relay Jones@xyz.com \
          \"Date: Thu, 21 May 1998 05:33:22 -0700\\r\\n\\r\\nhi\\r\\n\""
        ]
    );
}

/// RFC 5321 D.4, with 252 for its 250: we tell nobody who lives here.
#[test]
fn verifying_and_sending() {
    play(
        "
        C: VRFY Crispin
        S: 252 2.5.2 Cannot VRFY user; try RCPT to attempt delivery
        C: EXPN staff
        S: 502 5.5.1 Not offered here
        C: MAIL FROM:<EAK@bar.com>
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
}

#[test]
fn order_is_kept() {
    let mut world = World::new(client());
    world.play(
        "
        S: 220 mx.example.org ESMTP yubin
        C: MAIL FROM:<a@b>
        S: 503 5.5.1 Say EHLO or HELO first
        C: HELO foo.com
        S: 250 mx.example.org
        C: RCPT TO:<ann@example.org>
        S: 503 5.5.1 MAIL first
        C: DATA
        S: 503 5.5.1 MAIL first
        C: MAIL FROM:<a@b>
        S: 250 2.1.0 Ok
        C: MAIL FROM:<a@b>
        S: 503 5.5.1 Sender already given; RSET begins anew
        C: DATA
        S: 554 5.5.1 No valid recipients
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: AUTH PLAIN
        S: 503 5.5.1 AUTH not allowed in a mail transaction
        C: HELO again
        S: 250 mx.example.org
        C: DATA
        S: 503 5.5.1 MAIL first
        ",
    );
}

#[test]
fn relaying_needs_the_right() {
    play(
        "
        C: MAIL FROM:<ann@example.org>
        S: 250 2.1.0 Ok
        C: RCPT TO:<x@elsewhere.net>
        S: 550 5.7.1 <x@elsewhere.net>: Relay access denied
        C: RCPT TO:<@example.org:x@elsewhere.net>
        S: 550 5.7.1 <x@elsewhere.net>: Relay access denied
        C: RCPT TO:<x%elsewhere.net@example.org>
        S: 550 5.1.1 <x%elsewhere.net@example.org>: No such user here
        C: RCPT TO:<elsewhere.net!x@example.org>
        S: 550 5.1.1 <elsewhere.net!x@example.org>: No such user here
        C: RCPT TO:<ann>
        S: 501 5.1.3 Bad recipient address; write RCPT TO:<local-part@domain>
        C: RCPT TO:<Postmaster>
        S: 250 2.1.5 Ok
        ",
    );
}

#[test]
fn limits_have_their_replies() {
    let world = play(
        "
        C: MAIL FROM:<a@b> SIZE=1001
        S: 552 5.3.4 Message size exceeds the limit of this server
        C: MAIL FROM:<a@b> SIZE=1000 BODY=8BITMIME
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: RCPT TO:<bob@example.org>
        S: 250 2.1.5 Ok
        C: RCPT TO:<postmaster>
        S: 250 2.1.5 Ok
        C: RCPT TO:<bob@example.org>
        S: 452 4.5.3 Too many recipients, send the rest in another transaction
        C: RSET now
        S: 501 5.5.4 This command takes no parameters
        C: MAIL FROM:<a@b> FOO=BAR
        S: 555 5.5.4 Parameter not recognized or not offered
        ",
    );
    assert!(world.taken.is_empty());

    let mut world = play("");
    world.send(&[b'x'; 5000]);
    world.play(
        "
        C: x
        S: 500 5.5.2 Line too long
        C: NOOP
        S: 250 2.0.0 Ok
        ",
    );
}

#[test]
fn a_message_too_big_or_looping_or_bare_is_swallowed_and_refused() {
    let begin = "
        C: MAIL FROM:<a@b>
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: DATA
        S: 354 End data with <CR><LF>.<CR><LF>
        ";
    let mut world = play("");
    let table: &[(&[u8], &str)] = &[
        (
            &[b'x'; 1200],
            "S: 552 5.3.4 Message size exceeds the limit of this server",
        ),
        (
            b"Received:\r\nReceived:\r\nReceived:\r\nReceived:\r\nReceived:\r\nReceived:\r\n",
            "S: 554 5.4.6 Message refused: too many hops, this is a mail loop",
        ),
        (
            b"text\n.\r\nMAIL FROM:<evil@x>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\nfake",
            "S: 550 5.6.11 Message refused: it has a CR or LF alone, a line ends with CR LF",
        ),
    ];
    for (content, want) in table {
        world.play(begin);
        world.send(content);
        world.send(b"\r\n.\r\n");
        world.play(want);
        assert!(world.open.is_none());
    }
    world.play("C: NOOP\nS: 250 2.0.0 Ok");
    assert!(world.taken.is_empty());
}

#[test]
fn a_full_disk_is_told_before_the_message() {
    let mut world = play("");
    world.full = true;
    world.play(
        "
        C: MAIL FROM:<a@b>
        S: 452 4.3.1 Insufficient system storage, try again
        C: RCPT TO:<ann@example.org>
        S: 503 5.5.1 MAIL first
        ",
    );
}

#[test]
fn bad_line_ends_in_commands_part_us() {
    for bytes in [
        &b"NOOP\n"[..],
        b"NOOP\rNOOP\r\n",
        b"NOOP\r\r\n",
        b"\n",
        b"EHLO a\n.\r\n",
    ] {
        let mut world = play("");
        world.send(bytes);
        world.play("S: 500 5.5.2 A line ends with CR LF, never with one of them alone");
        assert!(world.closed, "{}", bytes.escape_ascii());
    }
}

/// Recipients that add nothing, and pieces without an octet, are counted.
#[test]
fn what_brings_no_mail_forward_has_an_end() {
    for line in [
        "RCPT TO:<ann@example.org>",
        "RCPT TO:<postmaster>",
        "BDAT 0",
    ] {
        let mut world = play(
            "
            C: MAIL FROM:<a@b>
            S: 250 2.1.0 Ok
            C: RCPT TO:<ann@example.org>
            S: 250 2.1.5 Ok
            C: RCPT TO:<bob@example.org>
            S: 250 2.1.5 Ok
            C: RCPT TO:<postmaster@mx.example.org>
            S: 250 2.1.5 Ok
            ",
        );
        let sent = (1..2000).find(|_| {
            world.send(format!("{line}\r\n").as_bytes());
            world.closed
        });
        assert!(sent.is_some_and(|n| n <= 1000), "{line}: {sent:?}");
        let last = String::from_utf8_lossy(&world.said);
        assert!(last.contains("\r\n421 4.7.0 Too many "), "{line}");
    }
    // The next message may have as many.
    let mut world = play("");
    for _ in 0..3 {
        world.send(b"MAIL FROM:<a@b>\r\n");
        for _ in 0..900 {
            world.send(b"RCPT TO:<ann@example.org>\r\n");
        }
        world.send(b"BDAT 2 LAST\r\n\r\n");
    }
    assert_eq!((world.taken.len(), world.closed), (3, false));
}

/// What came is in the log, escaped, and what may be a secret is not.
#[test]
fn the_log_says_what_came() {
    let long = format!("NOOP {}\r\n", "x".repeat(5000));
    let table: &[(&[u8], &str)] = &[
        (
            b"NOOP\nQUIT\n",
            "500 5.5.2 A line ends with CR LF, never with one of them alone: NOOP\\x0a",
        ),
        (
            b"NOOP\rx\r\n",
            "500 5.5.2 A line ends with CR LF, never with one of them alone: NOOP\\x0d",
        ),
        (
            b"\x1b[2J\r\n",
            "500 5.5.2 Command not recognized; HELP lists them: \\x1b[2J",
        ),
        (
            b"MAIL FROM:<a\0@b>\r\n",
            "501 5.1.7 Bad sender address; write MAIL FROM:<local-part@domain>: MAIL FROM:<a\\x00@b>",
        ),
        (
            b"BDAT x\r\n",
            "501 5.5.4 Syntax error in parameters: BDAT x",
        ),
        (
            b"GET / HTTP/1.1\r\n",
            "554 5.5.1 This is an SMTP server: GET / HTTP/1.1",
        ),
        (
            b"AUTH PLAIN c2VjcmV0!\r\n",
            "501 5.5.2 Not base64: AUTH (not shown)",
        ),
        (
            b"auth plain c2VjcmV0\n",
            "500 5.5.2 A line ends with CR LF, never with one of them alone: auth (not shown)",
        ),
    ];
    for (said, want) in table {
        let mut world = play("");
        world.send(said);
        let want = format!("improper command from unknown[192.0.2.1]: {want}");
        assert_eq!(world.logged, [want], "{}", said.escape_ascii());
    }
    let mut world = play("");
    world.send(long.as_bytes());
    let want = format!("500 5.5.2 Line too long: NOOP {}", "x".repeat(75));
    assert_eq!(
        world.logged,
        [format!("improper command from unknown[192.0.2.1]: {want}")]
    );
    // Words of a login that is refused, or was never begun.
    for said in [
        &b"EHLO a\r\nAUTH PLAIN c2VjcmV0\r\n"[..],
        b"AUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\n",
    ] {
        let mut world = play("");
        world.send(said);
        assert!(!world.logged.is_empty(), "{}", said.escape_ascii());
        assert!(
            !world.logged.concat().contains("c2VjcmV0"),
            "{:?}",
            world.logged
        );
    }
    let mut world = play("C: AUTH LOGIN\nS: 538 5.7.11 Encryption required, say STARTTLS first");
    world.send(b"c2VjcmV0\r\n");
    assert!(
        !world.logged.concat().contains("c2VjcmV0"),
        "{:?}",
        world.logged
    );
}

#[test]
fn other_protocols_are_shown_the_door() {
    for words in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x16\x03\x01\x02",
        b"\0\0",
        b"post /\r\nHELO a\r\n",
    ] {
        let mut world = World::new(client());
        world.said.clear();
        world.send(words);
        world.play("S: 554 5.5.1 This is an SMTP server");
        assert!(world.closed);
    }
}

#[test]
fn who_only_errs_or_idles_is_sent_away() {
    let mut world = play("");
    for _ in 0..MAX_ERRORS {
        assert!(!world.closed);
        world.send(b"XYZZY\r\n");
    }
    assert!(world.closed);
    assert!(String::from_utf8_lossy(&world.said).ends_with(
        "500 5.5.2 Command not recognized; HELP lists them\r\n\
         421 4.7.0 Too many errors, closing connection\r\n"
    ));
    assert_eq!(world.offences, ["too many errors"]);
    let mut world = play("");
    world.send(b"EHLO c.example\r\n");
    world.send(b"MAIL FROM:<a@b>\r\n");
    for _ in 0..MAX_REFUSED {
        assert!(!world.closed);
        world.send(b"RCPT TO:<nobody@example.org>\r\n");
    }
    assert!(world.closed);
    assert_eq!(world.offences, ["too many refused recipients"]);
    let mut world = play("");
    for _ in 0..99 {
        world.send(b"NOOP\r\n");
    }
    assert!(!world.closed);
    world.send(b"NOOP\r\n");
    assert!(world.closed);
}

#[test]
fn tls_forgets_what_was_said() {
    let world = play(
        "
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        C: MAIL FROM:<a@b>
        S: 503 5.5.1 Say EHLO or HELO first
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
        C: STARTTLS
        S: 503 5.5.1 TLS is already in use
        C: AUTH CRAM-MD5
        S: 504 5.5.4 Authentication mechanism not offered
        C: AUTH PLAIN AGFubgBzZWNyZXQ=
        S: 235 2.7.0 Authentication successful
        C: AUTH PLAIN AGFubgBzZWNyZXQ=
        S: 503 5.5.1 Already authenticated
        C: MAIL FROM:<ann>
        S: 250 2.1.0 Ok
        C: RCPT TO:<x@elsewhere.net>
        S: 250 2.1.5 Ok
        C: DATA
        S: 354 End data with <CR><LF>.<CR><LF>
        C: hi
        C: .
        S: 250 2.0.0 Ok: queued as Q1
        ",
    );
    assert_eq!(
        world.taken,
        ["ESMTPSA <ann@example.org> local relay x@elsewhere.net \"hi\\r\\n\""]
    );
    assert!(
        world
            .logged
            .contains(&"Q1: client=unknown[192.0.2.1], sasl_username=ann".into())
    );
}

#[test]
fn the_exchanges_of_auth() {
    let mut world = play(
        "
        C: AUTH PLAIN AGFubgBzZWNyZXQ=
        S: 538 5.7.11 Encryption required, say STARTTLS first
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        C: HELO x
        S: 250 mx.example.org
        C: AUTH LOGIN
        S: 334 VXNlciBOYW1l
        C: YW5u
        S: 334 UGFzc3dvcmQ=
        C: *
        S: 501 5.7.0 Authentication cancelled
        C: AUTH PLAIN
        S: 334
        C: %%%
        S: 501 5.5.2 Not base64
        C: AUTH PLAIN
        S: 334
        C: Pw==
        S: 454 4.7.0 Temporary authentication failure, try again
        C: AUTH PLAIN
        S: 334
        C: Pz8=
        S: 501 5.5.2 Authentication response not understood
        C: AUTH PLAIN AGEAYg==
        S: 535 5.7.8 Authentication credentials invalid
        C: AUTH PLAIN AGEAYg==
        S: 535 5.7.8 Authentication credentials invalid
        ",
    );
    world.send(b"AUTH LOGIN\r\n");
    world.said.clear();
    world.send(&[b'A'; 13_000]);
    world.play(
        "
        C: A
        S: 500 5.5.2 Line too long
        C: AUTH PLAIN AGEAYg==
        S: 535 5.7.8 Authentication credentials invalid
        S: 421 4.7.0 Too many errors, closing connection
        ",
    );
}

/// RFC 5321 4.3.1
#[test]
fn strangers_wait_for_the_greeting() {
    let stranger = Client {
        greet_delay: Duration::from_secs(2),
        ..client()
    };
    let mut patient = World::new(stranger.clone());
    assert_eq!(patient.said, b"");
    assert_eq!(patient.session.patience(), Some(Duration::from_secs(2)));
    patient.happen(Input::Timeout);
    assert_eq!(patient.said, b"220 mx.example.org ESMTP yubin\r\n");
    assert!(patient.acquainted);
    assert_eq!(patient.session.patience(), Some(Duration::from_secs(300)));

    let mut hasty = World::new(stranger);
    hasty.send(b"EHLO spam");
    assert_eq!(
        String::from_utf8_lossy(&hasty.said),
        "554 5.5.0 SMTP protocol synchronization: wait for our reply\r\n"
    );
    assert!(hasty.closed && !hasty.acquainted);
    assert_eq!(
        hasty.logged,
        ["NOQUEUE: reject: CONNECT from unknown[192.0.2.1]: talks before our reply: EHLO spam"]
    );
}

/// RFC 2920 3.1
#[test]
fn who_does_not_wait_for_a_reply_has_to_go() {
    let hello = "EHLO a\r\n";
    let group = "MAIL FROM:<a@b>\r\nRCPT TO:<ann@example.org>\r\n";
    let table: &[(&str, String, bool)] = &[
        ("a group", format!("{group}RSET\r\n{group}DATA\r\n"), true),
        (
            "chunks",
            format!("{group}BDAT 3\r\na\r\nBDAT 0 LAST\r\nQUIT\r\n"),
            true,
        ),
        (
            "content with DATA",
            format!("{group}DATA\r\nx\r\n.\r\n"),
            false,
        ),
        ("a command behind NOOP", "NOOP\r\nNOOP\r\n".into(), false),
        (
            "half a command behind AUTH",
            "AUTH LOGIN\r\nYW".into(),
            false,
        ),
        ("a command behind HELO", format!("HELO a\r\n{group}"), false),
        ("a command behind EHLO", format!("{hello}{group}"), false),
    ];
    for trusted in [false, true] {
        for (what, text, good) in table {
            let mut world = World::new(Client {
                trusted,
                ..client()
            });
            world.send(hello.as_bytes());
            world.said.clear();
            world.send(text.as_bytes());
            let said = String::from_utf8_lossy(&world.said).into_owned();
            let refused = said.contains("554 5.5.0");
            assert_eq!(refused, !trusted && !good, "{what}: {said}");
        }
        // Without EHLO there is no pipelining.
        let mut world = World::new(Client {
            trusted,
            ..client()
        });
        world.send(b"HELO a\r\n");
        world.said.clear();
        world.send(group.as_bytes());
        assert_eq!(world.said.starts_with(b"554 5.5.0"), !trusted);
    }
}

/// Only by what gives no password away without TLS.
#[test]
fn strong_logins_need_no_tls() {
    let both = [Mechanism::ScramSha256, Mechanism::Plain];
    let mut world = World::offering(&both, client());
    world.said.clear();
    world.play(
        "
        C: EHLO x
        S: 250-mx.example.org
        S: 250-PIPELINING
        S: 250-SIZE 1000
        S: 250-8BITMIME
        S: 250-STARTTLS
        S: 250-AUTH SCRAM-SHA-256
        S: 250-LIMITS RCPTMAX=3
        S: 250-ENHANCEDSTATUSCODES
        S: 250-DSN
        S: 250-CHUNKING
        S: 250-BINARYMIME
        S: 250-SMTPUTF8
        S: 250 HELP
        C: AUTH PLAIN AGFubgBzZWNyZXQ=
        S: 538 5.7.11 Encryption required, say STARTTLS first
        C: AUTH CRAM-MD5
        S: 504 5.5.4 Authentication mechanism not offered
        C: AUTH SCRAM-SHA-256 biws
        S: 535 5.7.8 Authentication credentials invalid
        ",
    );
}

#[test]
fn submission_is_for_our_own_users() {
    let mut world = World::new(Client {
        submission: true,
        plaintext_login: true,
        ..client()
    });
    world.said.clear();
    world.play(
        "
        C: HELO x
        S: 250 mx.example.org
        C: MAIL FROM:<ann@example.org>
        S: 530 5.7.0 Authentication required
        C: AUTH PLAIN AGFubgBzZWNyZXQ=
        S: 235 2.7.0 Authentication successful
        C: MAIL FROM:<bob@example.org>
        S: 553 5.7.1 <it>: Sender address is not yours
        C: MAIL FROM:<>
        S: 250 2.1.0 Ok
        C: RSET
        S: 250 2.0.0 Ok
        C: MAIL FROM:<ann@example.org>
        S: 250 2.1.0 Ok
        ",
    );
}

/// RFC 3030 4.2
#[test]
fn a_message_in_pieces() {
    let mut world = play(
        "
        C: MAIL FROM:<a@b>
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        ",
    );
    // Pipelined, with pieces that end anywhere, and what means something to DATA.
    world.send(b"BDAT 5\r\nab\r\n.BDAT 7\r\n\r\n\r\n.\r\nBDAT 0\r\nBDAT 4 LAST\r\nlastQUIT\r\n");
    world.play(
        "
        S: 250 2.0.0 Ok: 5 octets
        S: 250 2.0.0 Ok: 12 octets
        S: 250 2.0.0 Ok: 12 octets
        S: 250 2.0.0 Ok: queued as Q1
        S: 221 2.0.0 Bye
        ",
    );
    assert_eq!(
        world.taken,
        [r#"ESMTP <a@b> local ann@example.org relay "ab\r\n.\r\n\r\n.\r\nlast\r\n""#]
    );
}

#[test]
fn pieces_out_of_place_are_swallowed() {
    let mut world = play("");
    // What is in them is never a command.
    world.send(b"BDAT 6\r\nQUIT\r\nNOOP\r\n");
    world.play("S: 503 5.5.1 MAIL first\nS: 250 2.0.0 Ok");
    world.send(b"MAIL FROM:<a@b>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    world.play("S: 250 2.1.0 Ok\nS: 554 5.5.1 No valid recipients\nS: 250 2.0.0 Ok");
    world.send(b"RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ann@example.org>\r\nBDAT 6\r\na\nb\r\nxBDAT 6 LAST\r\nQUIT\r\n");
    world.play(
        "
        S: 250 2.0.0 Ok
        S: 250 2.1.0 Ok
        S: 250 2.1.5 Ok
        S: 550 5.6.11 Message refused: it has a CR or LF alone, a line ends with CR LF
        S: 503 5.5.1 MAIL first
        ",
    );
    assert!(world.open.is_none() && world.taken.is_empty());
    // DATA may not follow; RSET gives up; too much is refused when all of it is there.
    world.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<ann@example.org>\r\nBDAT 3\r\na\r\nDATA\r\n");
    world.send(b"RSET\r\nRCPT TO:<ann@example.org>\r\n");
    world.play(
        "
        S: 250 2.1.0 Ok
        S: 250 2.1.5 Ok
        S: 250 2.0.0 Ok: 3 octets
        S: 503 5.5.1 The message is coming by BDAT, go on or say RSET
        S: 250 2.0.0 Ok
        S: 503 5.5.1 MAIL first
        ",
    );
    assert!(world.open.is_none());
    world.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<ann@example.org>\r\nBDAT 1001 LAST\r\n");
    world.send(&[b'x'; 1001]);
    world.play(
        "
        S: 250 2.1.0 Ok
        S: 250 2.1.5 Ok
        S: 552 5.3.4 Message size exceeds the limit of this server
        ",
    );
    // Without a size nobody knows where the octets end.
    world.send(b"BDAT many LAST\r\nMAIL FROM:<a@b>\r\n");
    world.play("S: 501 5.5.4 Syntax error in parameters");
    assert!(world.closed && world.taken.is_empty());
}

/// Mailboxes in a directory service that hangs: the client is not left waiting for ever.
#[test]
fn a_look_up_that_hangs_ends_the_session() {
    let mut world = play("C: MAIL FROM:<a@b>\nS: 250 2.1.0 Ok");
    world.send(b"RCPT TO:<slow@example.org>\r\nDATA\r\n");
    assert!(world.session.patience().is_some());
    world.happen(Input::Timeout);
    world.play("S: 421 4.4.3 A look-up takes too long, try again");
    assert!(world.closed);
    let verdict = Verdict::Relay("slow@example.org".parse().unwrap());
    world.happen(Input::Recipient(verdict));
    world.play("");
    assert_eq!(
        world.logged,
        ["warning: no answer to the look-up after RCPT from unknown[192.0.2.1]"]
    );
}

#[test]
fn silence_and_endings() {
    let mut world = play("C: MAIL FROM:<a@b>\nS: 250 2.1.0 Ok");
    world.happen(Input::Timeout);
    world.play("S: 421 4.4.2 Timeout, closing connection");
    assert!(world.closed);

    // A message under way may be finished when the daemon ends.
    let mut world = play(
        "
        C: MAIL FROM:<a@b>
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        C: DATA
        S: 354 End data with <CR><LF>.<CR><LF>
        C: x
        ",
    );
    world.happen(Input::Drain);
    world.play(
        "
        C: .
        S: 250 2.0.0 Ok: queued as Q1
        S: 421 4.3.2 Service is shutting down, try again
        ",
    );
    assert!(world.closed && world.taken.len() == 1);

    let mut world = play("");
    world.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n");
    world.send(b"half");
    world.happen(Input::Eof);
    assert!(world.closed && world.open.is_none() && world.taken.is_empty());
    assert_eq!(
        world.logged,
        ["lost connection after DATA from unknown[192.0.2.1]"]
    );
}

/// What came together with the end of the last message is not obeyed any more, as it would not be if it
/// came behind.
#[test]
fn the_end_of_the_daemon_does_not_wait_for_what_came_together() {
    let mut world = play("C: MAIL FROM:<a@b>\nS: 250 2.1.0 Ok");
    world.send(b"RCPT TO:<ann@example.org>\r\nBDAT 2\r\nx");
    world.happen(Input::Drain);
    world.send(b"\nRSET\r\nMAIL FROM:<a@b>\r\n");
    world.play(
        "
        S: 250 2.1.5 Ok
        S: 550 5.6.11 Message refused: it has a CR or LF alone, a line ends with CR LF
        S: 421 4.3.2 Service is shutting down, try again
        ",
    );
    assert!(world.closed && world.forgotten == 1);
}

/// What one input leads to, in every respect.
fn outcome(bytes: &[u8], cuts: &[usize]) -> (String, Vec<String>, Vec<String>, bool) {
    let mut world = World::new(Client {
        trusted: true,
        plaintext_login: true,
        ..client()
    });
    let mut at = 0;
    for cut in cuts.iter().cycle() {
        let end = (at + cut).min(bytes.len());
        world.send(&bytes[at..end]);
        at = end;
        if at == bytes.len() {
            break;
        }
    }
    let said = String::from_utf8_lossy(&world.said).into_owned();
    (said, world.taken, world.logged, world.closed)
}

proptest! {
    #[test]
    fn any_split_of_the_input_is_the_same(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "EHLO a\r\n", "HELO b\r\n", "MAIL FROM:<a@b>\r\n", "RCPT TO:<ann@example.org>\r\n",
            "RCPT TO:<x@y>\r\n", "DATA\r\n", "text\r\n", ".\r\n", "..\r\n", "\n", "\r", "x", "RSET\r\n",
            "AUTH PLAIN\r\n", "AUTH LOGIN\r\n", "AGFubgBzZWNyZXQ=\r\n", "*\r\n", "NOOP", " ", "QUIT\r\n",
            "MAIL FROM:<a@b>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\nhi\r\n.\r\n", "GET /\r\n",
            "BDAT 3\r\n", "BDAT 7 LAST\r\n", "bdat 0\r\n", "BDAT 2\r\n\r\n", "BDAT\r\n",
        ]), 0..30),
        long in any::<bool>(),
        cuts in proptest::collection::vec(1usize..9, 1..20),
    ) {
        let mut bytes = b"EHLO c\r\n".to_vec();
        if long {
            bytes.extend_from_slice(&[b'z'; 3000]);
        }
        bytes.extend_from_slice(pieces.concat().as_bytes());
        let one = bytes.len();
        proptest::prop_assert_eq!(outcome(&bytes, &cuts), outcome(&bytes, &[one]));
    }
}

/// RFC 5321 3.1
#[test]
fn who_is_not_served_says_quit() {
    let refusal = Reply::made(554, None, "No mail from there".into());
    let mut world = World::answering(
        Admission {
            answer: Err(refusal),
            ..admission()
        },
        client(),
    );
    world.play(
        "
        S: 554 No mail from there
        C: EHLO foo.com
        S: 503 5.5.1 You are not served here, say QUIT
        C: MAIL FROM:<a@b>
        S: 503 5.5.1 You are not served here, say QUIT
        C: BDAT 4 LAST
        ",
    );
    world.send(b"QUIT");
    world.play(
        "
        S: 503 5.5.1 You are not served here, say QUIT
        C: QUIT
        S: 221 2.0.0 Bye
        ",
    );
    assert!(world.closed);
    assert_eq!(
        world.logged,
        [
            "NOQUEUE: reject: CONNECT from unknown[192.0.2.1]: 554 No mail from there; proto=SMTP \
             helo=<>"
        ]
    );
}

/// RFC 5321 3.8 and RFC 7504 4
#[test]
fn who_is_not_served_now_is_sent_away() {
    for code in [421, 521] {
        let refusal = Reply::made(code, None, "Go away".into());
        let mut world = World::answering(
            Admission {
                answer: Err(refusal),
                ..admission()
            },
            client(),
        );
        world.play(&format!("S: {code} Go away"));
        assert!(world.closed);
    }
}

#[test]
fn what_a_look_up_takes_a_stranger_need_not_wait_again() {
    let waiting = || Client {
        greet_delay: Duration::from_secs(6),
        ..client()
    };
    for (took, left) in [
        (Duration::ZERO, Duration::from_secs(6)),
        (Duration::from_secs(2), Duration::from_secs(4)),
        (Duration::from_secs(9), GLANCE),
    ] {
        let mut world = World::answering(
            Admission {
                took,
                ..admission()
            },
            waiting(),
        );
        assert_eq!(world.session.patience(), Some(left));
        world.happen(Input::Timeout);
        world.play(HELLO);
    }
    let took = Duration::from_secs(9);
    let mut world = World::answering(
        Admission {
            took,
            ..admission()
        },
        waiting(),
    );
    world.send(b"EHLO foo.com\r\n");
    world.play("S: 554 5.5.0 SMTP protocol synchronization: wait for our reply");
    assert!(world.closed);
    let welcome = true;
    World::answering(
        Admission {
            welcome,
            ..admission()
        },
        waiting(),
    )
    .play(HELLO);
    // Who is known does not wait, however long a look-up took.
    World::answering(
        Admission {
            took,
            ..admission()
        },
        client(),
    )
    .play(HELLO);
}

#[test]
fn a_name_can_be_refused() {
    let mut world = World::new(client());
    world.play(
        "
        S: 220 mx.example.org ESMTP yubin
        C: EHLO liar.example
        S: 553 5.7.1 <liar.example>: Sender address is not yours
        C: MAIL FROM:<a@b>
        S: 503 5.5.1 Say EHLO or HELO first
        C: HELO foo.com
        S: 250 mx.example.org
        C: EHLO worm.example
        S: 421 4.3.2 Service is shutting down, try again
        ",
    );
    assert!(world.closed);
    assert!(
        world.logged[0].starts_with("NOQUEUE: reject: EHLO from unknown[192.0.2.1]: 553 5.7.1"),
        "{:?}",
        world.logged
    );
}

#[test]
fn a_message_can_be_refused_before_it_comes() {
    let mut world = World::new(client());
    world.data = Err(reply::TRY_LATER);
    world.play(HELLO);
    let begin = "
        C: MAIL FROM:<a@b>
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        ";
    world.play(begin);
    world.play(
        "
        C: DATA
        S: 451 4.3.0 Local trouble, try again later
        C: DATA
        S: 503 5.5.1 MAIL first
        ",
    );
    assert_eq!(world.forgotten, 1);
    world.play(begin);
    world.play("C: BDAT 6");
    world.send(b"QUIT\r\n");
    world.play("S: 451 4.3.0 Local trouble, try again later");
    world.play(begin);
    world.play(
        "
        C: BDAT 0 LAST
        S: 451 4.3.0 Local trouble, try again later
        ",
    );
    world.data = Ok(());
    world.play(begin);
    world.play(
        "
        C: BDAT 0 LAST
        S: 250 2.0.0 Ok: queued as Q1
        ",
    );
    assert!(world.open.is_none());
    assert_eq!((world.taken.len(), world.forgotten), (1, 4));
}

/// Whatever ends a transaction, its doors are told.
#[test]
fn the_end_of_a_transaction_is_told() {
    let begin = "
        C: MAIL FROM:<a@b>
        S: 250 2.1.0 Ok
        C: RCPT TO:<ann@example.org>
        S: 250 2.1.5 Ok
        ";
    let mut world = play(begin);
    world.play("C: RSET\nS: 250 2.0.0 Ok\nC: RSET\nS: 250 2.0.0 Ok");
    assert_eq!(world.forgotten, 1);
    world.play(begin);
    world.play(&HELLO.replace("S: 220 mx.example.org ESMTP yubin\n", ""));
    assert_eq!(world.forgotten, 2);
    world.play(begin);
    world.play("C: STARTTLS\nS: 220 2.0.0 Ready to start TLS");
    assert_eq!(world.forgotten, 3);
}

#[test]
fn a_client_has_its_name_in_the_log() {
    let shown = "mail.example.com[192.0.2.1]".into();
    let mut world = World::answering(
        Admission {
            shown,
            ..admission()
        },
        client(),
    );
    world.play(HELLO);
    world.happen(Input::Timeout);
    assert_eq!(
        world.logged,
        ["timeout after EHLO from mail.example.com[192.0.2.1]"]
    );
}

/// Only those that may, and not in a transaction; then the session is another's.
#[test]
fn xclient_is_for_proxies() {
    let mut world = play("C: XCLIENT ADDR=192.0.2.9\nS: 550 5.7.0 XCLIENT is not for this client");
    assert!(world.became.is_none());
    let proxy = Client {
        xclient: true,
        ..client()
    };
    world = World::new(proxy.clone());
    world.play(&HELLO.replace(
        "S: 250-ENHANCED",
        "S: 250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\nS: 250-ENHANCED",
    ));
    world.play(
        "
        C: XCLIENT ADDR=nowhere
        S: 501 5.5.4 Bad XCLIENT attribute or value
        C: MAIL FROM:<a@b>
        S: 250 2.1.0 Ok
        C: XCLIENT ADDR=192.0.2.9
        S: 503 5.5.1 XCLIENT not allowed in a mail transaction
        C: RSET
        S: 250 2.0.0 Ok
        C: XCLIENT ADDR=192.0.2.9
        ",
    );
    let said = world.became.unwrap();
    assert_eq!(said.address, "192.0.2.9".parse().ok());
}
