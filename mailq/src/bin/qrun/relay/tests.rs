use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::envelope::Notify;
use base::{Config, Recipient, ReversePath, Root};
use queue::{Claim, Origin, Outcome as Stands, Queue, QueueId, Source};

use super::*;
use crate::fake::{Fake, Say, usual};

struct Host {
    dir: tempfile::TempDir,
    queue: Queue,
    world: World,
    board: Board,
}

/// A host that keeps here.test, sends to `port`, and believes `zone`.
fn host(port: u16, zone: &str, more: &str) -> Host {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    std::fs::write(dir.path().join("zone"), zone).unwrap();
    let def = format!(
        "MY_NAME=mail\nMY_DOMAIN=here.test\nMY_ALIAS=here.test\nRELAY_PORT={port}\n\
         DNS_ZONE_FILE=/zone\nMIN_BACKOFF=60s\nMAX_BACKOFF=600s\n{more}\n"
    );
    let config = Config::parse(&root, &def, Path::new("yubin.def")).unwrap();
    let queue = Queue::create(&root).unwrap();
    let world = World::new(&root, &config).unwrap();
    Host {
        dir,
        queue,
        world,
        board: Board::new(false),
    }
}

impl Host {
    fn put(&self, from: &str, to: &[&str], adjust: impl FnOnce(&mut Envelope)) -> QueueId {
        let path = match from {
            "" => ReversePath::Null,
            from => ReversePath::Address(from.parse().unwrap()),
        };
        let to = to
            .iter()
            .map(|a| Recipient::new(a.parse().unwrap()))
            .collect();
        let mut envelope = Envelope::new(path, to);
        adjust(&mut envelope);
        let origin = Origin::now(Source::Submission { uid: 0 });
        self.put_as(&envelope, &origin)
    }

    fn put_as(&self, envelope: &Envelope, origin: &Origin) -> QueueId {
        let mut draft = self.queue.draft(Lane::Relay, envelope, origin).unwrap();
        draft.write(b"Subject: x\r\n\r\nbody\r\n").unwrap();
        self.queue.commit(vec![draft.finish().unwrap()]).unwrap()[0]
    }

    fn claim(&self, lane: Lane, id: &QueueId) -> Box<Entry> {
        match self.queue.claim(lane, id).unwrap() {
            Claim::Entry(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    fn attempt(&self, id: &QueueId) -> Ended {
        Relay::new(&self.world, &self.board, self.claim(Lane::Relay, id), None)
            .run()
            .unwrap()
    }

    fn waiting(&self, lane: Lane) -> Vec<QueueId> {
        self.queue
            .scan(lane)
            .unwrap()
            .iter()
            .map(|l| l.id)
            .collect()
    }

    /// What the journal says of each recipient: `pending 4.2.0 450 grey`.
    fn stands(&self, id: &QueueId) -> Vec<String> {
        let entry = self.claim(Lane::Relay, id);
        entry
            .recipients()
            .iter()
            .map(|r| match &r.outcome {
                Stands::Pending { last: None } => "pending".into(),
                Stands::Pending { last: Some((_, a)) } => {
                    format!("pending {} {}", a.status, a.reply)
                }
                Stands::Delivered { attempt: a, .. } => {
                    format!("delivered {} {}", a.status, a.reply)
                }
                Stands::Failed { attempt: a, .. } => format!("failed {} {}", a.status, a.reply),
                Stands::Became { .. } => "became".into(),
            })
            .collect()
    }

    /// The only message in the local lane, as text.
    fn report(&self) -> String {
        let ids = self.waiting(Lane::Local);
        assert_eq!(ids.len(), 1);
        let entry = self.claim(Lane::Local, &ids[0]);
        let mut text = Vec::new();
        std::io::copy(&mut entry.content(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}

const ONE: &str = "b.test MX 10 mx.b.test\nmx.b.test A 127.0.0.1\n";

#[test]
fn what_is_taken_is_gone() {
    let fake = Fake::polite();
    let host = host(fake.port, ONE, "");
    let id = host.put("s@here.test", &["a@b.test", "b@b.test"], |_| ());
    assert_eq!(host.attempt(&id), Ended::Finished);
    assert_eq!(host.waiting(Lane::Relay), []);
    assert_eq!(host.waiting(Lane::Local), []);
    assert_eq!(
        (fake.count("MAIL"), fake.count("RCPT"), fake.count("body")),
        (1, 2, 1)
    );
}

#[test]
fn each_recipient_has_an_outcome_of_its_own() {
    let fake = Fake::start(|line| match line {
        "RCPT TO:<no@b.test>" => Say::Reply("550 5.1.1 no such user\r\n"),
        "RCPT TO:<later@b.test>" => Say::Reply("450 4.2.0 grey\r\n"),
        _ => Say::Reply(usual(line)),
    });
    let host = host(fake.port, ONE, "");
    let id = host.put(
        "s@here.test",
        &["yes@b.test", "no@b.test", "later@b.test"],
        |_| (),
    );
    let Ended::Due(due) = host.attempt(&id) else {
        panic!()
    };
    let pause = due.duration_since(SystemTime::now()).unwrap();
    assert!((50..75).contains(&pause.as_secs()), "{pause:?}");
    assert_eq!(
        host.stands(&id),
        [
            "delivered 2.6.0 250 2.6.0 queued",
            "failed 5.1.1 550 5.1.1 no such user",
            "pending 4.2.0 450 4.2.0 grey"
        ]
    );
    let report = host.report();
    assert!(
        report.contains("Final-Recipient: rfc822; no@b.test\r\nAction: failed"),
        "{report}"
    );
    assert!(report.contains("Remote-MTA: dns; mx.b.test"), "{report}");
    assert!(
        !report.contains("yes@b.test") && !report.contains("later@b.test"),
        "{report}"
    );
    // The next attempt is for the one that is left, and reports nothing again.
    host.attempt(&id);
    assert_eq!(
        (fake.count("RCPT TO:<yes"), fake.count("RCPT TO:<later")),
        (1, 2)
    );
    assert_eq!(host.waiting(Lane::Local).len(), 1);
}

#[test]
fn host_after_host() {
    let (one, two): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap());
    let first = Fake::at(one, 0, |line| match line.get(..4) {
        Some("RCPT") => Say::Reply("451 4.3.0 sick\r\n"),
        _ => Say::Reply(usual(line)),
    });
    let second = Fake::at(two, first.port, |line| Say::Reply(usual(line)));
    let zone = "b.test MX 10 gone.b.test\nb.test MX 20 one.b.test\nb.test MX 30 two.b.test\n\
        gone.b.test A 127.0.0.3\none.b.test A 127.0.0.1\ntwo.b.test A 127.0.0.2\n";
    let host = host(first.port, zone, "");
    let id = host.put("s@here.test", &["a@b.test"], |_| ());
    assert_eq!(host.attempt(&id), Ended::Finished);
    assert_eq!((first.count("RCPT"), second.count("body")), (1, 1));
}

#[test]
fn no_second_copy_where_the_answer_to_the_first_was_lost() {
    let (one, two): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap());
    let first = Fake::at(one, 0, |line| match line {
        "." => Say::Close,
        _ => Say::Reply(usual(line)),
    });
    let second = Fake::at(two, first.port, |line| Say::Reply(usual(line)));
    let zone = "b.test MX 10 one.b.test\nb.test MX 20 two.b.test\n\
        one.b.test A 127.0.0.1\ntwo.b.test A 127.0.0.2\n";
    let host = host(first.port, zone, "");
    let id = host.put("s@here.test", &["a@b.test"], |_| ());
    assert!(matches!(host.attempt(&id), Ended::Due(_)));
    assert!(
        host.stands(&id)[0].contains("possible duplicate"),
        "{:?}",
        host.stands(&id)
    );
    assert_eq!(second.lines().len(), 0);
}

#[test]
fn the_dead_are_left_alone() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let host = host(port, ONE, "");
    let (first, second) = (
        host.put("s@here.test", &["a@b.test"], |_| ()),
        host.put("s@here.test", &["b@b.test"], |_| ()),
    );
    assert!(matches!(host.attempt(&first), Ended::Due(_)));
    assert!(
        host.stands(&first)[0].contains("Connection refused"),
        "{:?}",
        host.stands(&first)
    );
    assert!(matches!(host.attempt(&second), Ended::Due(_)));
    assert!(
        host.stands(&second)[0].contains("delivery temporarily suspended: connect to mx.b.test")
    );
}

#[test]
fn who_waits_for_a_place_holds_up_nobody_and_is_tried_then() {
    let fake = Fake::start(|line| match line {
        "RCPT TO:<a@c.test>" => Say::Reply("450 4.2.0 grey\r\n"),
        _ => Say::Reply(usual(line)),
    });
    let zone = "b.test A 127.0.0.1\nc.test A 127.0.0.1\n";
    let host = host(fake.port, zone, "");
    let busy = NextHop::Mx {
        domain: "b.test".parse().unwrap(),
        port: fake.port,
    };
    let mut held = 0;
    while host.board.enter(&busy) == Entrance::Open {
        held += 1;
    }
    let id = host.put("s@here.test", &["a@b.test", "a@c.test"], |_| ());
    let since = SystemTime::now();
    assert_eq!(host.attempt(&id), Ended::Waits(busy.clone()));
    let grey = "pending 4.2.0 450 4.2.0 grey";
    assert_eq!(host.stands(&id), ["pending", grey]);
    let due = host.claim(Lane::Relay, &id).due();
    for _ in 0..held {
        let backoff = host.world.backoff;
        host.board
            .leave(&busy, crate::destinations::Visit::Unknown, backoff);
    }
    let turn = |since| {
        let entry = host.claim(Lane::Relay, &id);
        Relay::new(&host.world, &host.board, entry, Some(since)).run()
    };
    assert_eq!(turn(since).unwrap(), Ended::Due(due));
    assert_eq!(host.stands(&id), ["delivered 2.6.0 250 2.6.0 queued", grey]);
    assert_eq!(fake.count("RCPT TO:<a@c.test>"), 1);
    // A turn that begins soon after, because somebody asked for it, is another.
    turn(SystemTime::now()).unwrap();
    assert_eq!(fake.count("RCPT TO:<a@c.test>"), 2);
}

#[test]
fn what_dns_says_is_final_or_not() {
    let zone = "null.test MX 0 .\nbroken.test FAIL\nself.test MX 10 mail.here.test\n";
    let host = host(1, zone, "");
    let to = [
        "a@null.test",
        "a@broken.test",
        "a@nowhere.test",
        "a@self.test",
    ];
    let id = host.put("s@here.test", &to, |_| ());
    assert!(matches!(host.attempt(&id), Ended::Due(_)));
    let starts = [
        "failed 5.1.10",
        "pending 4.4.3",
        "failed 5.1.2",
        "failed 5.4.6",
    ];
    for (stands, start) in host.stands(&id).iter().zip(starts) {
        assert!(stands.starts_with(start), "{stands}");
    }
}

#[test]
fn a_relay_that_is_not_there_bounces_nothing() {
    for relay in ["smtp:nowhere.test", "smtp:[nowhere.test]", "smtp:null.test"] {
        let host = host(1, "null.test MX 0 .\n", &format!("DEFAULT_RELAY={relay}"));
        let id = host.put("s@here.test", &["a@b.test"], |_| ());
        assert!(matches!(host.attempt(&id), Ended::Due(_)), "{relay}");
        assert!(
            host.stands(&id)[0].starts_with("pending 4."),
            "{:?}",
            host.stands(&id)
        );
    }
}

#[test]
fn an_address_of_our_own_is_a_loop_and_not_a_relay() {
    for to in ["a@[127.0.0.1]", "a@[IPv6:::ffff:127.0.0.1]"] {
        let host = host(2525, "", "SMTP_PORT=2525\nLISTEN=192.0.2.1");
        let id = host.put("s@here.test", &[to], |_| ());
        assert_eq!(host.attempt(&id), Ended::Finished);
        assert!(host.report().contains("Status: 5.4.6"), "{}", host.report());
    }
}

#[test]
fn a_smarthost_takes_all_domains_in_one_go() {
    let fake = Fake::polite();
    let host = host(
        1,
        "",
        &format!("DEFAULT_RELAY=smtp:[127.0.0.1]:{}", fake.port),
    );
    let id = host.put("s@here.test", &["a@b.test", "a@c.test"], |_| ());
    assert_eq!(host.attempt(&id), Ended::Finished);
    assert_eq!((fake.count("MAIL"), fake.count("RCPT")), (1, 2));
}

#[test]
fn what_is_ours_by_now_is_handed_over() {
    let fake = Fake::polite();
    let host = host(fake.port, ONE, "");
    let id = host.put("s@b.test", &["a@here.test", "b@here.test"], |_| ());
    assert_eq!(host.attempt(&id), Ended::Finished);
    assert_eq!(host.waiting(Lane::Local), [id]);

    let mixed = host.put("s@b.test", &["c@here.test", "c@b.test"], |_| ());
    assert_eq!(host.attempt(&mixed), Ended::Finished);
    let local = host.waiting(Lane::Local);
    assert_eq!(local.len(), 2);
    let child = host.claim(Lane::Local, local.iter().find(|l| **l != id).unwrap());
    assert_eq!(child.recipients().len(), 1);
    assert_eq!(
        child.recipients()[0].recipient.address.to_string(),
        "c@here.test"
    );
    assert_eq!(child.size(), 20);
    assert_eq!(fake.count("RCPT TO:<c@b.test>"), 1);
}

#[test]
fn after_its_time_a_message_goes_back() {
    let fake = Fake::start(|line| match line.get(..4) {
        Some("RCPT") => Say::Reply("450 4.2.0 grey\r\n"),
        _ => Say::Reply(usual(line)),
    });
    let host = host(fake.port, ONE, "QUEUE_LIFETIME=5d");
    let envelope = Envelope::new(
        ReversePath::Address("s@here.test".parse().unwrap()),
        vec![Recipient::new("a@b.test".parse().unwrap())],
    );
    let old = SystemTime::now() - Duration::from_secs(6 * 86_400);
    let origin = Origin {
        received_at: old,
        source: Source::Submission { uid: 0 },
    };
    let id = host.put_as(&envelope, &origin);
    assert_eq!(host.attempt(&id), Ended::Finished);
    let report = host.report();
    assert!(report.contains("Status: 5.4.7"), "{report}");
    assert!(report.contains("450 4.2.0 grey"), "{report}");
}

#[test]
fn bounces_that_cannot_be_delivered_go_to_postmaster() {
    let fake = Fake::start(|line| match line.get(..4) {
        Some("RCPT") => Say::Reply("550 5.1.1 no\r\n"),
        _ => Say::Reply(usual(line)),
    });
    let host = host(fake.port, ONE, "");
    let id = host.put("", &["a@b.test"], |_| ());
    assert_eq!(host.attempt(&id), Ended::Finished);
    assert!(host.report().contains("To: <postmaster@mail.here.test>"));
}

#[test]
fn success_is_reported_for_servers_that_cannot() {
    let fake = Fake::polite();
    let host = host(fake.port, ONE, "");
    let wish = |e: &mut Envelope| {
        e.recipients[0].notify = Notify::On {
            success: true,
            failure: true,
            delay: false,
        };
    };
    let id = host.put("s@here.test", &["a@b.test", "b@b.test"], wish);
    assert_eq!(host.attempt(&id), Ended::Finished);
    let report = host.report();
    assert!(
        report.contains("Action: relayed") && report.contains("a@b.test"),
        "{report}"
    );
    assert!(!report.contains("b@b.test>"), "{report}");
}

#[test]
fn a_server_that_takes_few_recipients_at_a_time_gets_them_all() {
    let taken = AtomicUsize::new(0);
    let fake = Fake::start(move |line| match line.get(..4) {
        Some("MAIL") => {
            taken.store(0, Ordering::SeqCst);
            Say::Reply("250 ok\r\n")
        }
        Some("RCPT") if taken.fetch_add(1, Ordering::SeqCst) >= 3 => {
            Say::Reply("452 4.5.3 too many recipients\r\n")
        }
        _ => Say::Reply(usual(line)),
    });
    let host = host(fake.port, ONE, "");
    let to: Vec<String> = (0..10).map(|n| format!("u{n}@b.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let id = host.put("s@here.test", &to, |_| ());
    assert_eq!(host.attempt(&id), Ended::Finished);
    assert_eq!(fake.count("MAIL"), 4);
}

#[test]
fn a_failed_handshake_is_followed_by_plaintext() {
    let fake = Fake::start(|line| match line {
        "EHLO mail.here.test" => Say::Reply("250-fake\r\n250 STARTTLS\r\n"),
        "STARTTLS" => Say::Bytes(b"220 go\r\n".to_vec()),
        line if line.starts_with("\u{16}") || !line.is_ascii() => Say::Close,
        _ => Say::Reply(usual(line)),
    });
    let host = host(fake.port, ONE, "");
    let id = host.put("s@here.test", &["a@b.test"], |_| ());
    assert_eq!(host.attempt(&id), Ended::Finished);
    assert_eq!((fake.count("STARTTLS"), fake.count("MAIL")), (1, 1));
    drop(host.dir);
}

/// RFC 6531 3.2: the next host may have what this one lacks; those who need it not are not kept.
#[test]
fn a_server_gets_those_that_it_can_take() {
    let fake = Fake::polite();
    let host = host(fake.port, ONE, "");
    let to = ["j\u{f6}rg@b.test", "a@b.test", "\u{7530}@b.test"];
    let id = host.put("s@here.test", &to, |e| {
        e.needs.smtputf8 = true;
    });
    assert_eq!(host.attempt(&id), Ended::Finished);
    assert_eq!(
        (fake.count("RCPT"), fake.count("RCPT TO:<a@b.test>")),
        (1, 1)
    );
    let report = host.report();
    for part in [
        "Content-Type: message/global-delivery-status\r\n",
        "Final-Recipient: utf-8; j\u{f6}rg@b.test\r\n",
        "Final-Recipient: utf-8; \u{7530}@b.test\r\n",
        "Status: 5.6.7",
        "does not offer SMTPUTF8",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(!report.contains("a@b.test"), "{report}");
}

#[test]
fn what_is_ascii_after_all_goes_to_everybody() {
    let fake = Fake::polite();
    let host = host(fake.port, ONE, "");
    let id = host.put("s@here.test", &["a@b\u{fc}cher.test"], |e| {
        e.needs.smtputf8 = true;
    });
    std::fs::write(
        host.dir.path().join("zone"),
        "xn--bcher-kva.test MX 10 mx.b.test\nmx.b.test A 127.0.0.1\n",
    )
    .unwrap();
    assert_eq!(host.attempt(&id), Ended::Finished);
    assert_eq!(fake.count("RCPT TO:<a@xn--bcher-kva.test>"), 1);
    assert_eq!(fake.count("MAIL FROM:<s@here.test> BODY"), 0);
}

/// RFC 8689 4.2.1 and 5
#[test]
fn requiretls_is_kept_and_said_in_the_report() {
    let fake = Fake::polite();
    let host = host(fake.port, ONE, "");
    let id = host.put("s@here.test", &["a@b.test"], |e| {
        e.needs.require_tls = true;
    });
    assert_eq!(host.attempt(&id), Ended::Finished);
    assert_eq!(fake.count("MAIL"), 0);
    let report = host.report();
    assert!(report.contains("Status: 5.7.30"), "{report}");
    let report = host.claim(Lane::Local, &host.waiting(Lane::Local)[0]);
    assert!(report.envelope().needs.require_tls);
}

/// A filter that takes everything; its mail goes nowhere else, whoever its recipients are.
fn through(port: u16) -> impl FnOnce(&mut Envelope) {
    move |envelope| {
        let text = format!("smtp:[127.0.0.1]:{port}");
        envelope.filter = base::Filter::parse(&text).ok();
    }
}

#[test]
fn all_recipients_go_to_the_filter_together() {
    let fake = Fake::start(|line| match line.get(..4) {
        Some("EHLO") => Say::Reply("250-fake\r\n250-DSN\r\n250 XFORWARD PORT IDENT SOURCE\r\n"),
        _ => Say::Reply(usual(line)),
    });
    // Nothing is looked up for it, and our own domain is nobody's exception.
    let host = host(1, "", "");
    let to = ["ann@here.test", "a@b.test", "x@[127.0.0.1]"];
    let id = host.put("s@here.test", &to, |envelope| {
        through(fake.port)(envelope);
        envelope.recipients[1].notify = Notify::parse("SUCCESS").unwrap();
    });
    assert_eq!(host.attempt(&id), Ended::Finished);
    assert_eq!(
        (fake.count("MAIL"), fake.count("RCPT"), fake.count("body")),
        (1, 3, 1)
    );
    assert_eq!(fake.count("RCPT TO:<a@b.test> NOTIFY=SUCCESS"), 1);
    let told = format!("XFORWARD IDENT={id} SOURCE=LOCAL");
    assert_eq!(fake.count(&told), 1, "{:?}", fake.lines());
    // The filter reports, and we do not.
    assert_eq!(
        (host.waiting(Lane::Relay), host.waiting(Lane::Local)),
        (vec![], vec![])
    );
}

#[test]
fn a_filter_that_is_away_or_talks_nonsense_loses_nothing() {
    let mut at = 0;
    let fake = Fake::start(move |line| {
        at += usize::from(line.is_empty());
        match (at, line) {
            (1, "") => Say::Bytes(vec![0xff; 5000]),
            (2, "") => Say::Reply("554 5.7.1 who are you\r\n"),
            (3, "DATA") => Say::Close,
            (4, ".") => Say::Reply("451 4.5.0 the scanner died\r\n"),
            (5, ".") => Say::Reply("999 what\r\n"),
            (6, ".") => Say::Reply("550 5.7.1 virus\r\n"),
            _ => Say::Reply(usual(line)),
        }
    });
    let host = host(1, "", "");
    let id = host.put("s@here.test", &["ann@here.test"], through(fake.port));
    for _ in 1..=5 {
        assert!(matches!(host.attempt(&id), Ended::Due(_)));
        let stands = host.stands(&id);
        assert!(stands[0].starts_with("pending 4."), "{stands:?}");
        // What is dead rests; not in this test.
        let next = NextHop::Ip {
            ip: "127.0.0.1".parse().unwrap(),
            port: fake.port,
        };
        host.board.revive(&[next].into());
    }
    assert_eq!(host.attempt(&id), Ended::Finished);
    let report = host.report();
    assert!(
        report.contains("Action: failed") && report.contains("virus"),
        "{report}"
    );
    // A report goes its way without the filter.
    let report = host.claim(Lane::Local, &host.waiting(Lane::Local)[0]);
    assert_eq!(report.envelope().filter, None);
}
