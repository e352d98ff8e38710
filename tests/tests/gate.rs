//! The checks at smtpd's door that take their time: who the client is, and what becomes of the
//! message.

use tests::host::DAEMONS;
use tests::smtp::Smtp;
use tests::{Host, wait_for};

/// A host that knows nobody on loopback.
fn host(def: &str, zone: &str) -> Host {
    let def = format!("MY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\n{def}");
    let mut host = Host::new(&def);
    host.write("etc/yubin/zone", zone);
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
    let host = Host::new("MY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\n");
    host.write(
        "etc/yubin/access",
        "from odd@else.where HOLD look at this\n",
    );
    let host = {
        let mut host = host;
        for program in DAEMONS {
            host.start(program);
        }
        host
    };
    let mut smtp = hello(&host);
    let to = ["alice@yubin.test"];
    let held = smtp.message("odd@else.where", &to, "Subject: odd\r\n\r\nx\r\n");
    assert!(held.unwrap().starts_with("250"));
    smtp.message("x@else.where", &to, "Subject: plain\r\n\r\nx\r\n")
        .unwrap();
    let mbox = host.wait_for_mail("alice", 1);
    assert!(mbox.contains("Subject: plain"), "{mbox}");
    let listed = wait_for("the message on hold", || {
        let listed = host.ok("mailq", &[], b"");
        listed.contains("look at this").then_some(listed)
    });
    let id = listed
        .split_whitespace()
        .map(|word| word.trim_end_matches(['!', '*', ':']))
        .find(|word| host.path("var/spool/yubin/hold").join(word).is_file());
    host.ok("mailq", &["release", id.unwrap()], b"");
    let mbox = host.wait_for_mail("alice", 2);
    assert!(mbox.contains("Subject: odd"), "{mbox}");
}

/// RFC 8601 2.7.3
#[test]
fn a_client_is_called_by_the_name_that_leads_back_to_it() {
    let host = host(
        "",
        "1.0.0.127.in-addr.arpa. IN PTR mail.friend.where.\nmail.friend.where. IN A 127.0.0.1\n",
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
