//! The checks at smtpd's door that take their time: who the client is, and what becomes of the
//! message.

use tests::host::DAEMONS;
use tests::smtp::Smtp;
use tests::{Host, wait_for};

/// A host that knows nobody on loopback, with these files below etc/yubin.
fn host(def: &str, zone: &str, files: &[(&str, &str)]) -> Host {
    let def = format!("MY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\n{def}");
    let mut host = Host::new(&def);
    for (name, text) in files.iter().chain([&("zone", zone)]) {
        host.write(&format!("etc/yubin/{name}"), text);
    }
    for program in DAEMONS {
        host.start(program);
    }
    host
}

fn hello(host: &Host) -> Smtp {
    let mut stranger = Smtp::connect(host.smtp).unwrap();
    stranger.ask("EHLO stranger").unwrap();
    stranger
}

/// yubin-access(5): HOLD
#[test]
fn what_is_held_waits_for_the_operator() {
    let table = "from odd@else.where HOLD look at this\n";
    let host = host("", "", &[("access", table)]);
    let mut smtp = hello(&host);
    let to = ["alice@yubin.test"];
    let reply = smtp
        .message("odd@else.where", &to, "Subject: odd\r\n\r\nx\r\n")
        .unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    let id = reply.trim_end().rsplit(' ').next().unwrap();
    smtp.message("x@else.where", &to, "Subject: plain\r\n\r\nx\r\n")
        .unwrap();
    let mbox = host.wait_for_mail("alice", 1);
    assert!(mbox.contains("Subject: plain"), "{mbox}");
    wait_for("the message to be held", || {
        let shown = host.ok("mailq", &[], b"");
        (shown.contains(id) && shown.contains("look at this")).then_some(())
    });
    host.ok("mailq", &["release", id], b"");
    let mbox = host.wait_for_mail("alice", 2);
    assert!(mbox.contains("Subject: odd"), "{mbox}");
}

/// RFC 8601 2.7.3
#[test]
fn a_client_is_called_by_the_name_that_leads_back_to_it() {
    let host = host(
        "",
        "1.0.0.127.in-addr.arpa. IN PTR mail.friend.where.\nmail.friend.where. IN A 127.0.0.1\n",
        &[],
    );
    let mut smtp = hello(&host);
    smtp.message(
        "x@else.where",
        &["alice@yubin.test"],
        "Subject: x\r\n\r\nx\r\n",
    )
    .unwrap();
    let mbox = host.wait_for_mail("alice", 1);
    let named = "Received: from stranger (mail.friend.where [127.0.0.1])";
    assert!(mbox.contains(named), "{mbox}");
    assert!(
        mbox.contains("\tiprev=pass policy.iprev=127.0.0.1"),
        "{mbox}"
    );
    let log = host.log();
    for want in [
        "connect from mail.friend.where[127.0.0.1]",
        ": client=mail.friend.where[127.0.0.1]",
    ] {
        assert!(log.contains(want), "{want}: {log}");
    }

    // The table knows it by its name, and strangers without one.
    host.write(
        "etc/yubin/access",
        "client .friend.where 550 5.7.1 no friend\nclient unknown 550 5.7.25 nobody\n",
    );
    let refused = |why: &str| {
        wait_for(why, || {
            let mut smtp = hello(&host);
            smtp.ask("MAIL FROM:<a@b.c>").unwrap();
            let reply = smtp.ask("RCPT TO:<alice@yubin.test>").unwrap();
            reply.contains(why).then_some(())
        });
    };
    refused("550 5.7.1 <alice@yubin.test>: no friend");
    // A name that leads elsewhere is none.
    host.write(
        "etc/yubin/zone",
        "1.0.0.127.in-addr.arpa. IN PTR mail.friend.where.\nmail.friend.where. IN A 127.0.0.9\n",
    );
    refused("550 5.7.25 <alice@yubin.test>: nobody");
    host.write(
        "etc/yubin/zone",
        "1.0.0.127.in-addr.arpa. IN PTR mail.friend.where.\nmail.friend.where. IN FAIL\n",
    );
    refused("450 4.7.25 <alice@yubin.test>: The name of your host cannot be looked up");
}

/// RFC 5782
#[test]
fn lists_in_dns_say_who_is_not_wanted() {
    let zone = "1.0.0.127.bl.where. IN A 127.0.0.2\n1.0.0.127.bl.where. IN TXT \"sends junk\"\n";
    let mut host = host("DNSBL='bl.where good.where*-2'\n", zone, &[]);
    let rcpt = |host: &Host| {
        let mut smtp = hello(host);
        smtp.ask("MAIL FROM:<a@b.c>").unwrap();
        smtp.ask("RCPT TO:<alice@yubin.test>").unwrap()
    };
    let want = "554 5.7.1 Service unavailable; Client host [127.0.0.1] blocked using bl.where; \
                sends junk";
    assert_eq!(rcpt(&host).trim_end(), want);
    let log = host.log();
    let line = format!(
        "NOQUEUE: reject: RCPT from unknown[127.0.0.1]: {want}; from=<a@b.c> \
         to=<alice@yubin.test> proto=ESMTP helo=<stranger>"
    );
    assert!(log.contains(&line), "{log}");
    assert!(
        log.contains("DNSBL rank 1 for [127.0.0.1]: bl.where*1"),
        "{log}"
    );

    // The operator knows better, and so may another list.
    host.write("etc/yubin/access", "client 127.0.0.1 OK\n");
    wait_for("the table", || rcpt(&host).starts_with("250").then_some(()));
    host.write("etc/yubin/access", "");
    wait_for("no table", || rcpt(&host).starts_with("554").then_some(()));
    host.stop("smtpd");
    let def = std::fs::read_to_string(host.path("etc/yubin/yubin.def")).unwrap();
    let def = def.replace("GREET_DELAY=0s", "GREET_DELAY=50s");
    host.write("etc/yubin/yubin.def", &def);
    host.write(
        "etc/yubin/zone",
        &format!("{zone}1.0.0.127.good.where. IN A 127.0.0.9\n"),
    );
    host.start("smtpd");
    // Nor does it wait for the greeting.
    assert!(rcpt(&host).starts_with("250"));
}

/// yubin-checks(5)
#[test]
fn patterns_decide_what_becomes_of_a_message() {
    let header = "/^Subject: .*money/ REJECT 5.7.1 no money\n/^Subject: odd/ HOLD odd subject\n\
                  /^X-Secret:/ IGNORE\n/^Subject: (re): (.*)/ REPLACE Subject: $2 ($1)\n\
                  /^X-Copy:/ BCC bob@yubin.test\n/^X-Old:/ REDIRECT bob@yubin.test\n";
    let body = "/^bad line/ REJECT\n/^last/ PREPEND but one\n/^swear/ REPLACE say\n";
    let files = [("header", header), ("body", body)];
    let host = host(
        "HEADER_CHECKS=/etc/yubin/header\nBODY_CHECKS=/etc/yubin/body\n",
        "",
        &files,
    );
    let mut smtp = hello(&host);
    let mut send = |text: &str| {
        let to = ["alice@yubin.test"];
        smtp.message("x@else.where", &to, text).unwrap()
    };
    let reply = send("Subject: easy\r\n Money\r\n\r\nx\r\n");
    assert!(reply.starts_with("550 5.7.1 no money"), "{reply}");
    let reply = send("Subject: x\r\n\r\nx\r\nbad line\r\n");
    assert!(
        reply.starts_with("550 5.7.1 Message content rejected"),
        "{reply}"
    );
    let reply = send("Subject: odd\r\n\r\nx\r\n");
    let id = reply.trim_end().rsplit(' ').next().unwrap();
    wait_for("the message to be held", || {
        let shown = host.ok("mailq", &[], b"");
        (shown.contains(id) && shown.contains("odd subject")).then_some(())
    });
    // More than memory holds.
    let long = "swear by it\r\n".to_owned() + &"all work\r\n".repeat(20_000);
    send(&format!(
        "Subject: Re: it\r\nX-Secret: 1\r\n\r\nlast\r\n{long}end\r\n"
    ));
    let mbox = host.wait_for_mail("alice", 1);
    let long = long.replace("swear by it", "say").replace("\r\n", "\n");
    let head = mbox.get(..800).unwrap();
    let field = "Subject: it (Re)\n";
    assert!(head.contains(field) && !head.contains("X-Secret"), "{head}");
    let body = format!("\n\nbut one\nlast\n{long}end\n");
    assert!(mbox.contains(&body), "{head}");
    send("Subject: both\r\nX-Copy: 1\r\n\r\nx\r\n");
    host.wait_for_mail("alice", 2);
    host.wait_for_mail("bob", 1);
    send("Subject: other\r\nX-Old: 1\r\n\r\nx\r\n");
    let bob = host.wait_for_mail("bob", 2);
    assert!(bob.contains("Subject: other"), "{bob}");
    assert!(!host.mbox("alice").contains("Subject: other"));

    let log = host.log();
    for want in [
        ": reject: header Subject: easy Money from unknown[127.0.0.1]; from=<x@else.where> \
         helo=<stranger>: 5.7.1 no money",
        ": reject: body, rule in line 1, from unknown[127.0.0.1]",
        ": hold: header Subject: odd from unknown[127.0.0.1]",
    ] {
        assert!(log.contains(want), "{want}: {log}");
    }
    assert!(!log.contains("bad line"), "{log}");
    host.write("etc/yubin/body", "/(/ REJECT\n");
    let out = host.run("smtpd", &["-n"], b"");
    assert_eq!(out.status.code(), Some(78), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("body:1: /(/: unclosed group"));
}
