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
