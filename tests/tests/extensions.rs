//! What SMTP's extensions promise, all the way: from a client that others wrote through the queue to
//! the mailbox, to a server that others wrote, or back in a report.

use tests::foreign::{ForeignMta, ok, python};
use tests::{Host, wait_for};

const ZONE: &str = "else.where. IN MX 10 mx.else.where.\nmx.else.where. IN A 127.0.0.1\n\
                    xn--bcher-kva.where. IN MX 10 mx.else.where.\n";

fn started(mut host: Host) -> Host {
    for program in tests::host::DAEMONS {
        host.start(program);
    }
    host
}

fn relaying_to(foreign: &ForeignMta) -> Host {
    let host = Host::new(&format!("RELAY_PORT={}\n", foreign.port)).with_tls();
    host.write("etc/yubin/zone", ZONE);
    host
}

/// RFC 6531 and 6532: a user's name beyond ASCII, in another spelling than his mailbox has; an alias; a
/// server that takes such addresses, and one name that needs no such server.
#[test]
fn addresses_beyond_ascii_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = ForeignMta::start_utf8(dir.path());
    let host = relaying_to(&foreign);
    host.set_users(&["alice", "bob", "j\u{f6}rg"]);
    host.write(
        "etc/aliases",
        "postmaster: alice\n\u{7530}\u{4e2d}: alice\n",
    );
    let host = started(host);
    python(
        "
import smtplib, sys
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))
s.ehlo('client')
assert s.has_extn('smtputf8')
utf8 = ['SMTPUTF8', 'BODY=8BITMIME']
message = 'Subject: gr\\u00fc\\u00dfe\\r\\n\\r\\nx\\r\\n'.encode()
s.sendmail('bob@yubin.test', ['Jo\\u0308rg@yubin.test'], message, utf8)
s.sendmail('bob@yubin.test', ['\\u7530\\u4e2d@yubin.test'], message, utf8)
s.sendmail('j\\u00f6rg@yubin.test', ['\\u7530@b\\u00fccher.where', 'ann@else.where'], message, utf8)
try: s.sendmail('bob@yubin.test', ['\\u7530@yubin.test'], message, utf8); assert False
except smtplib.SMTPRecipientsRefused as e: assert e.recipients['\\u7530@yubin.test'][0] == 550, e
s.command_encoding = 'utf-8'
assert s.docmd('MAIL', 'FROM:<j\\u00f6rg@yubin.test>')[0] == 553
s.quit()
",
        &[&host.smtp.to_string()],
    );
    let mbox = host.wait_for_mail("j\u{f6}rg", 1);
    assert!(mbox.contains("with UTF8SMTP id"), "{mbox}");
    assert!(mbox.contains("Subject: gr\u{fc}\u{df}e"), "{mbox}");
    host.wait_for_mail("alice", 1);
    wait_for("the foreign MTA", || {
        let got = recipients(&foreign);
        (got == "\u{7530}@xn--bcher-kva.where\nann@else.where\n").then_some(())
    });
    // sendmail(1), from its operands and from the header.
    let text = "From: bob@yubin.test\nTo: J\u{f6}rg <J\u{d6}RG@yubin.test>, \u{7530}@else.where\nSubject: t\n\nx\n";
    host.ok("sendmail", &["-f", "bob", "-t"], text.as_bytes());
    host.ok(
        "sendmail",
        &["-f", "bob", "\u{7530}\u{4e2d}"],
        b"Subject: a\n\nx\n",
    );
    host.wait_for_mail("j\u{f6}rg", 2);
    host.wait_for_mail("alice", 2);
    wait_for("the foreign MTA", || {
        recipients(&foreign)
            .contains("\u{7530}@else.where")
            .then_some(())
    });
}

/// The envelopes' recipients, sorted.
fn recipients(foreign: &ForeignMta) -> String {
    let mut args = foreign.messages();
    args.sort();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    python(
        "
import email, sys
from email.header import decode_header, make_header
found = []
for text in sys.argv[1:]:
    field = email.message_from_string(text)['X-RcptTo']
    found += str(make_header(decode_header(field))).split(', ')
for address in sorted(found, key=lambda a: a.isascii()): print(address)
",
        &args,
    )
}

/// RFC 6531 3.2 and RFC 6533: a server without SMTPUTF8 gets what it can take; of the rest the sender
/// is told, in a report that Python's parser reads.
#[test]
fn what_a_server_cannot_take_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = ForeignMta::start(dir.path());
    let host = started(relaying_to(&foreign));
    host.ok(
        "sendmail",
        &["-f", "bob", "\u{7530}@else.where", "ann@else.where"],
        b"Subject: both\n\nx\n",
    );
    wait_for("the foreign MTA", || {
        (recipients(&foreign) == "ann@else.where\n").then_some(())
    });
    let report = host.wait_for_mail("bob", 1);
    let said = python(
        "
import email, email.policy, sys
report = email.message_from_string(sys.argv[1], policy=email.policy.default)
for part in report.walk():
    print(part.get_content_type())
    if part.get_content_type() == 'message/global-delivery-status': print(part.as_string())
",
        &[&report],
    );
    for part in [
        "multipart/report",
        "message/global-delivery-status",
        "Final-Recipient: utf-8; \u{7530}@else.where",
        "Status: 5.6.7",
    ] {
        assert!(said.contains(part), "{part}: {said}\n{report}");
    }
    assert!(!report.contains("ann@else.where"), "{report}");
}

/// RFC 8689: a server that does not promise to keep to TLS does not get the message.
#[test]
fn requiretls_goes_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = ForeignMta::start(dir.path());
    let host = started(relaying_to(&foreign));
    python(
        "
import smtplib, ssl, sys
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))
s.ehlo('client')
assert not s.has_extn('requiretls')
s.starttls(context=ssl.create_default_context(cafile=sys.argv[2]))
s.ehlo('client')
assert s.has_extn('requiretls')
message = b'Subject: in secret\\r\\n\\r\\nx\\r\\n'
s.sendmail('bob@yubin.test', ['ann@else.where', 'alice@yubin.test'], message, ['REQUIRETLS'])
",
        &[
            &host.smtp.to_string(),
            host.path("etc/yubin/tls/cert.pem").to_str().unwrap(),
        ],
    );
    assert!(
        host.wait_for_mail("alice", 1)
            .contains("Subject: in secret")
    );
    let report = host.wait_for_mail("bob", 1);
    assert!(report.contains("Status: 5.7.30"), "{report}");
    assert!(foreign.messages().is_empty());
}

/// RFC 8689 4.2.1: over TLS to who proves its name and announces REQUIRETLS; while its certificate is
/// nobody's that is trusted here, the message waits.
#[test]
fn requiretls_goes_to_who_proves_its_name() {
    let far = Host::new("");
    let (key, trusted) = (
        far.path("etc/yubin/tls/key.pem"),
        far.path("etc/yubin/tls/cert.pem"),
    );
    let name = "-newkey rsa:2048 -nodes -days 30 -subj /CN=far -addext subjectAltName=IP:127.0.0.1";
    // A server is no authority: with the ordinary CA:TRUE nobody need believe it.
    let mut args = vec![
        "req",
        "-x509",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    args.extend(name.split(' '));
    args.extend([
        "-keyout",
        key.to_str().unwrap(),
        "-out",
        trusted.to_str().unwrap(),
    ]);
    ok("openssl", &args, b"");
    let far = started(far);
    let def = "MY_NAME=near\nMY_DOMAIN=near.test\nMY_ALIAS=near.test\nFROM_ADDRESS=near.test\n";
    let mut near = Host::new(&format!(
        "{def}DEFAULT_RELAY=smtp:[127.0.0.1]:{}\n",
        far.smtp
    ))
    .with_tls();
    near.start("smtpd");
    python(
        "
import smtplib, ssl, sys
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))
s.starttls(context=ssl.create_default_context(cafile=sys.argv[2]))
message = b'Subject: in secret\\r\\n\\r\\nx\\r\\n'
s.sendmail('bob@near.test', ['alice@yubin.test'], message, ['REQUIRETLS'])
",
        &[
            &near.smtp.to_string(),
            near.path("etc/yubin/tls/cert.pem").to_str().unwrap(),
        ],
    );
    near.ok("qrun", &["-q"], b"");
    let queue = near.ok("mailq", &[], b"");
    assert!(
        queue.contains("certificate that can be verified"),
        "{queue}"
    );
    let sent = near
        .command("qrun")
        .arg("-q")
        .env("SSL_CERT_FILE", trusted)
        .output()
        .unwrap();
    assert!(sent.status.success(), "{sent:?}");
    let mbox = far.wait_for_mail("alice", 1);
    assert!(mbox.contains("with ESMTPS id"), "{mbox}");
    assert!(near.ok("mailq", &[], b"").contains("Mail queue is empty"));
}
