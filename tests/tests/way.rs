//! The whole way of a message: in by sendmail and SMTP, out by the mailbox, mail, POP3 and IMAP.

use tests::foreign::{ForeignMta, python};
use tests::smtp::Smtp;
use tests::{Host, wait_for};

/// A body with everything that a mailbox could spoil.
const AWKWARD: &str = "Subject: awkward\r\nFrom: bob@yubin.test\r\n\r\n\
From the start of a line\r\n>From quoted already\r\n>>From twice\r\n\r\nFrom after an empty line\r\n\
.\u{20}dot first\r\n\u{ff}caf\u{e9} \u{4ef6}\u{540d}\r\n\r\n\r\nStatus: RO\r\nend without more\r\n";

#[test]
fn sendmail_to_mailbox_to_mail() {
    let host = Host::started("");
    host.ok(
        "sendmail",
        &["-f", "bob", "alice"],
        b"Subject: hello\n\nfirst line\n",
    );
    let mbox = host.wait_for_mail("alice", 1);
    assert!(mbox.starts_with("From bob@yubin.test "), "{mbox}");
    assert!(mbox.contains("\nSubject: hello\n"), "{mbox}");
    assert!(mbox.contains("\nfirst line\n"), "{mbox}");
    assert!(mbox.contains("Received: "), "{mbox}");
    assert!(mbox.contains("Return-Path: <bob@yubin.test>"), "{mbox}");
    let shown = host.ok("mail", &["-u", "alice"], b"print 1\nx\n");
    assert!(
        shown.contains("hello") && shown.contains("first line"),
        "{shown}"
    );
    assert!(host.ok("mailq", &[], b"").contains("queue is empty"));
}

#[test]
fn a_message_comes_out_byte_for_byte() {
    for format in ["mbox", "maildir"] {
        let host = Host::started(&format!("MAILBOX_FORMAT={format}\n"));
        let mut smtp = Smtp::connect(host.smtp).unwrap();
        smtp.ask("EHLO test").unwrap();
        let stuffed = AWKWARD.replace("\r\n.", "\r\n..");
        let reply = smtp
            .message("bob@yubin.test", &["alice@yubin.test"], &stuffed)
            .unwrap();
        assert!(reply.starts_with("250 2.0.0"), "{reply}");
        wait_for("the message", || {
            let seen = python(POP3_BODY, &[&host.pop3.to_string()]);
            (seen != "none\n").then_some(())
        });
        for script in [POP3_BODY, APOP_BODY, IMAP_BODY] {
            let port = if script == IMAP_BODY {
                host.imap
            } else {
                host.pop3
            };
            let hex = python(script, &[&port.to_string()]);
            let got: Vec<u8> = hex
                .trim()
                .as_bytes()
                .chunks(2)
                .map(|h| u8::from_str_radix(std::str::from_utf8(h).unwrap(), 16).unwrap())
                .collect();
            let got = String::from_utf8(got).unwrap();
            assert!(
                got.ends_with(AWKWARD),
                "{format}:\n{got:?}\nwanted at its end:\n{AWKWARD:?}"
            );
        }
    }
}

/// The first message as hex, by USER and PASS.
const POP3_BODY: &str = "
import poplib, sys
p = poplib.POP3('127.0.0.1', int(sys.argv[1]))
p.user('alice'); p.pass_('alice')
if p.stat()[0] == 0: print('none')
else:
    r = p.retr(1)
    body = b''.join(l + b'\\r\\n' for l in r[1])
    assert len(body) == int(p.list(1).split()[2]), (len(body), p.list(1))
    print(body.hex())
p.quit()
";

/// The same by APOP.
const APOP_BODY: &str = "
import poplib, sys
p = poplib.POP3('127.0.0.1', int(sys.argv[1]))
p.apop('alice', 'alice')
print(b''.join(l + b'\\r\\n' for l in p.retr(1)[1]).hex())
p.quit()
";

/// The same by IMAP.
const IMAP_BODY: &str = "
import imaplib, sys
m = imaplib.IMAP4('127.0.0.1', int(sys.argv[1]))
m.login('alice', 'alice')
m.select('INBOX')
typ, data = m.fetch('1', '(RFC822.SIZE BODY.PEEK[])')
size = int(data[0][0].split(b'RFC822.SIZE ')[1].split()[0])
assert size == len(data[0][1]), (size, len(data[0][1]))
print(data[0][1].hex())
m.logout()
";

#[test]
fn a_message_to_an_outside_domain_reaches_a_foreign_mta() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = ForeignMta::start(dir.path());
    let mut host = Host::new(&format!(
        "RELAY_PORT={}\nDNS_ZONE_FILE=/etc/yubin/zone\n",
        foreign.port
    ));
    host.write(
        "etc/yubin/zone",
        "else.where. IN MX 10 dead.else.where.\nelse.where. IN MX 20 mx.else.where.\n\
         dead.else.where. IN A 127.0.0.9\nmx.else.where. IN A 127.0.0.1\nnull.where. IN MX 0 .\n",
    );
    for program in tests::host::DAEMONS {
        host.start(program);
    }
    // One message to both sides: it is split.
    host.ok(
        "sendmail",
        &["-f", "bob", "alice", "carol@else.where"],
        b"Subject: both\n\nbody\n.dot\n",
    );
    let got = wait_for("the foreign MTA", || foreign.messages().into_iter().next());
    assert!(got.contains("Subject: both"), "{got}");
    assert!(got.contains("body\n.dot"), "{got}");
    assert!(host.wait_for_mail("alice", 1).contains("Subject: both"));
    // A domain that takes no mail: RFC 7505.
    host.ok(
        "sendmail",
        &["-f", "bob", "carol@null.where"],
        b"Subject: null\n\nx\n",
    );
    let bounce = host.wait_for_mail("bob", 1);
    assert!(bounce.contains("5.1.10"), "{bounce}");
    assert!(bounce.contains("carol@null.where"), "{bounce}");
    assert!(bounce.contains("multipart/report"), "{bounce}");
}

/// RFC 6376: what our users send carries a signature of each key of their domain, by which another's
/// program finds it unchanged; what a stranger has forwarded here carries none.
#[test]
fn what_our_users_send_is_signed() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = ForeignMta::start(dir.path());
    let mut host = Host::new(&format!(
        "RELAY_PORT={}\nDNS_ZONE_FILE=/etc/yubin/zone\nMY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\n",
        foreign.port
    ));
    host.write("etc/yubin/zone", "else.where. IN A 127.0.0.1\n");
    host.write("etc/aliases", "postmaster: alice\nfwd: carol@else.where\n");
    let keys = host.path("etc/yubin/dkim/yubin.test");
    std::fs::create_dir_all(&keys).unwrap();
    for (selector, algorithm) in [("r1", "RSA"), ("e1", "ED25519")] {
        let path = keys.join(format!("{selector}.pem"));
        let path = path.to_str().unwrap();
        tests::foreign::ok(
            "openssl",
            &["genpkey", "-algorithm", algorithm, "-out", path],
            b"",
        );
    }
    for program in tests::host::DAEMONS {
        host.start(program);
    }
    let records = host.ok("qrun", &["-n"], b"");
    let text = "Subject: signed  twice\nFrom: Bob <bob@yubin.test>\nTo: carol@else.where\n\n.dot \n\nend\n\n";
    host.ok("sendmail", &["-f", "bob", "-t", "-i"], text.as_bytes());
    let got = wait_for("the foreign MTA", || foreign.messages().into_iter().next());
    let said = python(
        "
import dkim, re, sys
records = {}
for line in sys.argv[1].splitlines():
    m = re.match(r'(\\S+) TXT (.*)', line)
    if m: records[m[1].encode()] = re.sub('\" \"', '', m[2]).strip('\"').encode()
message = sys.argv[2].replace('\\r\\n', '\\n').replace('\\n', '\\r\\n').encode()
d = dkim.DKIM(message)
for n in range(2):
    good = d.verify(idx=n, dnsfunc=lambda name, timeout=5: records[name])
    print(d.signature_fields[b'a'].decode(), good)
print(dkim.verify(message.replace(b'end', b'END'), dnsfunc=lambda name, timeout=5: records[name]))
",
        &[&records, &got],
    );
    assert_eq!(
        said, "ed25519-sha256 True\nrsa-sha256 True\nFalse\n",
        "{records}\n{got}"
    );

    let mut stranger = Smtp::connect(host.smtp).unwrap();
    stranger.ask("EHLO stranger").unwrap();
    let forged = "Subject: forged\r\nFrom: bob@yubin.test\r\n\r\nx\r\n";
    stranger
        .message("x@b.c", &["fwd@yubin.test"], forged)
        .unwrap();
    let got = wait_for("the forwarded message", || {
        foreign
            .messages()
            .into_iter()
            .find(|m| m.contains("Subject: forged"))
    });
    assert!(!got.contains("DKIM-Signature"), "{got}");
}

/// RFC 8601: what another's program signed passes, what was changed fails, and nobody says our words
/// for us; however large the message is.
#[test]
fn strangers_signatures_are_looked_at() {
    let host =
        Host::new("DNS_ZONE_FILE=/etc/yubin/zone\nMY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\n");
    let key = host.path("home/key.pem");
    let key = key.to_str().unwrap();
    tests::foreign::ok("openssl", &["genrsa", "-out", key, "2048"], b"");
    let public = tests::foreign::ok("openssl", &["rsa", "-in", key, "-pubout"], b"");
    let public: String = public.lines().filter(|l| !l.starts_with('-')).collect();
    let (one, two) = public.split_at(200);
    host.write(
        "etc/yubin/zone",
        &format!(
            "s._domainkey.else.where. IN TXT \"v=DKIM1; p={one}\" \"{two}\"\n\
             else.where. IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n\
             fail.where. IN TXT \"v=spf1 -all\"\n"
        ),
    );
    let mut host = host;
    for program in tests::host::DAEMONS {
        host.start(program);
    }
    let signed = |body: &str| {
        let script = "
import dkim, sys
text = b'From: a@else.where\\r\\nSubject: x\\r\\nAuthentication-Results: mail.yubin.test; dkim=pass\\r\\n\\r\\n' + sys.argv[2].encode() * int(sys.argv[3])
key = open(sys.argv[1], 'rb').read()
sys.stdout.write((dkim.sign(text, b's', b'else.where', key, include_headers=[b'from', b'subject']) + text).decode())
";
        let (body, times) = body.split_once('*').unwrap();
        python(script, &[key, &format!("{body}\r\n"), times])
    };
    let mut stranger = Smtp::connect(host.smtp).unwrap();
    stranger.ask("EHLO stranger").unwrap();
    let (small, large) = (signed("hello*1"), signed("a line of a large message*20000"));
    let changed = small.replace("hello", "hallo");
    let bare = "From: a@else.where\r\n\r\nx\r\n";
    for (number, (message, want)) in [
        (
            small.as_str(),
            "dkim=pass header.d=else.where header.i=@else.where header.s=s",
        ),
        (
            large.as_str(),
            "dkim=pass header.d=else.where header.i=@else.where header.s=s",
        ),
        (changed.as_str(), "dkim=fail"),
        (bare, "dkim=none"),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = stranger
            .message("a@else.where", &["alice@yubin.test"], message)
            .unwrap();
        assert!(reply.starts_with("250"), "{reply}");
        let mbox = host.wait_for_mail("alice", number + 1);
        let last = mbox.split("\nReturn-Path: ").last().unwrap();
        let results: Vec<_> = last.matches("Authentication-Results: ").collect();
        assert_eq!(results.len(), 1, "{last:.2000}");
        let field = last.split("Authentication-Results: ").nth(1).unwrap();
        let field = field
            .split("\nReceived: ")
            .next()
            .unwrap()
            .replace("\n\t", " ")
            .replace("\n ", " ");
        assert!(
            field.starts_with("mail.yubin.test;") && field.contains(want),
            "{field}"
        );
    }
    assert!(
        host.mbox("alice")
            .contains(&"a line of a large message\n".repeat(20000))
    );
    // Our own users' mail bears none.
    host.ok("sendmail", &["-f", "bob", "alice"], b"Subject: ours\n\nx\n");
    let mbox = host.wait_for_mail("alice", 5);
    assert_eq!(mbox.matches("Authentication-Results: ").count(), 4);
}

#[test]
fn unknown_users_are_refused_at_rcpt_and_bounced_behind_it() {
    let host = Host::started("");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO test").unwrap();
    let reply = smtp.message("", &["nobody@yubin.test"], "").unwrap();
    assert!(reply.starts_with("550 5.1.1"), "{reply}");
    host.ok(
        "sendmail",
        &["-f", "bob", "nobody"],
        b"Subject: lost\n\nx\n",
    );
    let bounce = host.wait_for_mail("bob", 1);
    assert!(
        bounce.contains("5.1.1") && bounce.contains("nobody@yubin.test"),
        "{bounce}"
    );
    // No bounce of a bounce: the null reverse-path's report goes to nobody but the postmaster.
    host.ok("sendmail", &["-f", "<>", "nobody"], b"Subject: lost\n\nx\n");
    wait_for("an empty queue", || {
        host.ok("mailq", &[], b"")
            .contains("queue is empty")
            .then_some(())
    });
    assert_eq!(
        host.mbox("bob").matches("\nSubject: ").count(),
        bounce.matches("\nSubject: ").count()
    );
}

#[test]
fn aliases_details_and_lists() {
    let host = Host::new("");
    host.write(
        "etc/aliases",
        "postmaster: alice\nstaff: alice, bob\nself: self2\nself2: self\n",
    );
    let mut host = host;
    for program in tests::host::DAEMONS {
        host.start(program);
    }
    host.ok("sendmail", &["-f", "bob", "staff"], b"Subject: all\n\nx\n");
    host.wait_for_mail("alice", 1);
    host.wait_for_mail("bob", 1);
    host.ok(
        "sendmail",
        &["-f", "bob", "alice+lists"],
        b"Subject: detail\n\nx\n",
    );
    assert!(host.wait_for_mail("alice", 2).contains("Subject: detail"));
    host.ok("sendmail", &["-f", "bob", "self"], b"Subject: loop\n\nx\n");
    let bounce = host.wait_for_mail("bob", 2);
    assert!(bounce.contains("self@yubin.test"), "{bounce}");
}

/// yubin-access(5), yubin-senders(5)
#[test]
fn a_second_mx_takes_mail_for_those_who_live_there() {
    let host = Host::new(
        "MY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\nRELAY_DOMAINS='other.test more.test'\n",
    );
    host.write("etc/yubin/relay_recipients", "ann@other.test\n");
    let mut host = host;
    host.start("smtpd");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO stranger.example").unwrap();
    smtp.ask("MAIL FROM:<a@b.c>").unwrap();
    for (to, reply) in [
        ("ann+news@other.test", "250 "),
        ("bob@other.test", "550 5.1.1 <bob@other.test>: No such user"),
        ("who@more.test", "250 "),
        ("who@deep.more.test", "250 "),
        ("who@nomore.test", "550 5.7.1 "),
    ] {
        let said = smtp.ask(&format!("RCPT TO:<{to}>")).unwrap();
        assert!(said.starts_with(reply), "{to}: {said}");
    }
}

#[test]
fn the_operators_tables_decide_at_rcpt() {
    let host = Host::started("MY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\n");
    host.write(
        "etc/yubin/access",
        "helo liar.example 550 5.7.1 you are not\nfrom spam@else.where DISCARD\n\
         from else.where PREPEND X-Else: where\nto bob@yubin.test REDIRECT alice@yubin.test\n\
         to closed@yubin.test REDIRECT nobody@yubin.test\n",
    );
    wait_for("the table", || {
        let mut smtp = Smtp::connect(host.smtp).unwrap();
        smtp.ask("EHLO liar.example").unwrap();
        smtp.ask("MAIL FROM:<a@b.c>").unwrap();
        let reply = smtp.ask("RCPT TO:<alice@yubin.test>").unwrap();
        reply
            .starts_with("550 5.7.1 <alice@yubin.test>: you are not")
            .then_some(())
    });
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO honest.example").unwrap();
    let discarded = smtp.message(
        "spam@else.where",
        &["alice@yubin.test"],
        "Subject: spam\r\n\r\nx\r\n",
    );
    assert!(discarded.unwrap().contains("discarded"));
    let both = ["bob@yubin.test", "alice@yubin.test"];
    smtp.message("x@else.where", &both, "Subject: ham\r\n\r\nx\r\n")
        .unwrap();
    smtp.ask("MAIL FROM:<x@else.where>").unwrap();
    let reply = smtp.ask("RCPT TO:<closed@yubin.test>").unwrap();
    assert!(
        reply.starts_with("550 5.1.1 <nobody@yubin.test>"),
        "{reply}"
    );
    smtp.ask("RSET").unwrap();
    // What was put before one message is not put before the next.
    smtp.message(
        "x@b.c",
        &["alice@yubin.test"],
        "Subject: plain\r\n\r\nx\r\n",
    )
    .unwrap();
    let mbox = host.wait_for_mail("alice", 2);
    assert_eq!(mbox.matches("X-Else: where").count(), 1, "{mbox}");
    assert!(
        mbox.contains("Subject: ham") && !mbox.contains("Subject: spam"),
        "{mbox}"
    );
    assert_eq!(host.mbox("bob"), "");

    // A mistake is named, and what was read before stays.
    host.write("etc/yubin/access", "from x@y MAYBE\n");
    wait_for("the complaint", || {
        let mut smtp = Smtp::connect(host.smtp).unwrap();
        smtp.ask("EHLO liar.example").unwrap();
        smtp.ask("MAIL FROM:<a@b.c>").unwrap();
        let reply = smtp.ask("RCPT TO:<alice@yubin.test>").unwrap();
        assert!(reply.starts_with("550 5.7.1"), "{reply}");
        host.log()
            .contains("access:1: `MAYBE' is no action")
            .then_some(())
    });
    let out = host.run("smtpd", &["-n"], b"");
    assert_eq!(out.status.code(), Some(78), "{out:?}");
}

#[test]
fn nobody_relays_who_may_not() {
    let host = Host::started("MY_NETWORKS=192.0.2.0/24\n");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO test").unwrap();
    for to in [
        "a@else.where",
        "a%else.where@yubin.test",
        "\"a@else.where\"@yubin.test",
        "else.where!a@yubin.test",
    ] {
        smtp.ask("MAIL FROM:<bob@yubin.test>").unwrap();
        let reply = smtp.ask(&format!("RCPT TO:<{to}>")).unwrap();
        assert!(reply.starts_with("55"), "{to}: {reply}");
        smtp.ask("RSET").unwrap();
    }
    smtp.ask("MAIL FROM:<bob@yubin.test>").unwrap();
    let reply = smtp.ask("RCPT TO:<@yubin.test:a@else.where>").unwrap();
    assert!(reply.starts_with("55"), "{reply}");
    let reply = smtp.ask("RCPT TO:<alice@yubin.test>").unwrap();
    assert!(reply.starts_with("250"), "{reply}");
}
