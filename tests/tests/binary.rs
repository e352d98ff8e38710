//! Binary parts (BINARYMIME, RFC 3030): any octets, from a client that says BDAT to the mailbox, to a
//! server that takes lines only, to one that takes them as they are, and back in a report. Python's
//! email package decodes what arrives.

use std::fs;

use tests::foreign::{ForeignMta, python};
use tests::{Host, wait_for};

const ZONE: &str = "else.where. IN MX 10 mx.else.where.\nmx.else.where. IN A 127.0.0.1\n";

/// What all scripts begin with: `parts` of octets that a seed decides, among which nothing is rare that
/// matters; `message` of them; `send`, by BDAT in pieces; `check`.
const TOOLS: &str = r"
import email, email.policy, random, smtplib, sys
def octets(seed):
    r = random.Random(seed)
    hard = [b'\r', b'\n', b'\r\n', b'\0', b'.', b'\r\n.\r\n', b'\n.\n', b'--', b'\n--binary\n', b'\r\r\n', b'From x\r\n', b'\xff']
    return b''.join(r.choice(hard) if r.random() < 0.4 else r.randbytes(r.randrange(40)) for _ in range(r.choice([0, 1, 30, 3000])))
def parts(seed): return [octets(seed * 10 + n) for n in range(4)]
def message(seed, head=b''):
    one, two, three, four = parts(seed)
    binary = b'Content-Transfer-Encoding: binary\r\n'
    return (head + b'Subject: binary\r\nFrom: bob@yubin.test\r\nMIME-Version: 1.0\r\n' + binary +
        b'Content-Type: multipart/mixed; boundary=\x22binary\x22\r\n\r\n--binary\r\n\r\ntext\r\n'
        b'--binary\r\nContent-Type: image/x-one\r\n' + binary + b'\r\n' + one +
        b'\r\n--binary\r\nContent-Type: message/rfc822\r\n' + binary + b'\r\nSubject: inside\r\nMIME-Version: 1.0\r\n' + binary +
        b'Content-Type: image/x-two\r\n\r\n' + two +
        b'\r\n--binary\r\nContent-Type: multipart/mixed; boundary=inner\r\n\r\n--inner\r\nContent-Type: image/x-three\r\n' + binary +
        b'\r\n' + three + b'\r\n--inner\r\n' + binary + b'Content-Type: image/x-four\r\n\r\n' + four + b'\r\n--inner--\r\n--binary--\r\n')
def send(port, sender, to, data, login=None):
    s = smtplib.SMTP('127.0.0.1', port)
    if login: s.login(login, login)
    s.ehlo('client.test')
    assert s.has_extn('binarymime') and s.has_extn('chunking')
    assert s.mail(sender, ['BODY=BINARYMIME'])[0] == 250
    for one in to: assert s.rcpt(one)[0] == 250, one
    assert s.docmd('DATA')[0] == 503
    at = 0
    while at < len(data):
        piece = data[at:at + random.choice([1, 1000, 70000])]
        at += len(piece)
        s.sock.sendall(b'BDAT %d%s\r\n' % (len(piece), b' LAST' if at == len(data) else b'') + piece)
        code, text = s.getreply()
        assert code == 250, text
    s.quit()
def check(seed, text):
    rest = text.replace(b'\r\n', b'')
    assert b'\r' not in rest and b'\n' not in rest and b'\0' not in rest
    found = email.message_from_bytes(text, policy=email.policy.SMTP)
    leaves = [p for p in found.walk() if p.get_content_maintype() == 'image']
    got = [p.get_payload(decode=True) for p in leaves]
    assert got == parts(seed), (seed, [len(p) for p in got], [len(p) for p in parts(seed)])
    assert not any(p.get('Content-Transfer-Encoding', '') == 'binary' for p in found.walk())
    assert not any(p.defects for p in leaves), [p.defects for p in leaves]
";

fn script(text: &str, args: &[&str]) -> String {
    python(&format!("{TOOLS}{text}"), args)
}

fn started(mut host: Host) -> Host {
    host.write("etc/yubin/zone", ZONE);
    for program in tests::host::DAEMONS {
        host.start(program);
    }
    host
}

/// In an mbox and in a Maildir, by POP3 and by IMAP.
#[test]
fn any_octets_arrive_in_a_mailbox() {
    for format in ["mbox", "maildir"] {
        let host = Host::started(&format!("MAILBOX_FORMAT={format}\n"));
        script(
            "for seed in range(12): send(int(sys.argv[1]), 'bob@yubin.test', ['alice@yubin.test'], message(seed, b'X-Seed: %d\\r\\n' % seed))",
            &[&host.smtp.to_string()],
        );
        wait_for("an empty queue", || {
            host.ok("mailq", &[], b"")
                .contains("is empty")
                .then_some(())
        });
        script(
            r"
import poplib, imaplib
p = poplib.POP3('127.0.0.1', int(sys.argv[1])); p.user('alice'); p.pass_('alice')
i = imaplib.IMAP4('127.0.0.1', int(sys.argv[2])); i.login('alice', 'alice'); i.select()
seen = set()
for n in range(12):
    one = b'\r\n'.join(p.retr(n + 1)[1]) + b'\r\n'
    two = i.fetch(str(n + 1), '(BODY.PEEK[])')[1][0][1]
    for text in one, two:
        seed = int(email.message_from_bytes(text)['X-Seed'])
        check(seed, text)
        seen.add(seed)
assert seen == set(range(12)), seen
",
            &[&host.pop3.to_string(), &host.imap.to_string()],
        );
    }
}

/// A message that lies about itself is a message all the same: nothing of it is lost.
#[test]
fn what_is_no_good_mime_arrives_too() {
    let host = Host::started("");
    script(
        r"
head = b'Subject: x\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: binary\r\n'
for message in [
    head,
    head + b'\r\n',
    head + b'\r\n\0',
    head + b'Content-Type: multipart/mixed\r\n\r\n--b\r\n\0\r\n--b--',
    head + b'Content-Type: multipart/mixed; boundary=a\r\n\r\n--b\r\n\n\r\n--b--',
    head + b'Content-Type: message/rfc822\r\n\r\n\0',
    head + b'Content-Type: text/plain\r\n\r\nonly called so\r\n',
]: send(int(sys.argv[1]), 'bob@yubin.test', ['alice@yubin.test'], message)
",
        &[&host.smtp.to_string()],
    );
    host.wait_for_mail("alice", 7);
    let seen = script(
        r"
import poplib
p = poplib.POP3('127.0.0.1', int(sys.argv[1])); p.user('alice'); p.pass_('alice')
for n in range(7):
    m = email.message_from_bytes(b'\r\n'.join(p.retr(n + 1)[1]) + b'\r\n')
    part = m.get_payload(0) if m.is_multipart() else m
    print(m.get_content_type(), m['X-Original-Content-Type'], part.get('Content-Transfer-Encoding'), part.get_payload(decode=True))
",
        &[&host.pop3.to_string()],
    );
    assert_eq!(
        seen,
        "text/plain None None b''\n\
         text/plain None 8bit b''\n\
         text/plain None base64 b'\\x00'\n\
         application/octet-stream multipart/mixed base64 b'--b\\r\\n\\x00\\r\\n--b--'\n\
         application/octet-stream multipart/mixed; boundary=a base64 b'--b\\r\\n\\n\\r\\n--b--'\n\
         message/rfc822 None None b''\n\
         text/plain None 8bit b'only called so\\r\\n'\n"
    );
}

/// aiosmtpd knows no BDAT; and what we sign is signed as it is sent.
#[test]
fn a_server_that_takes_lines_gets_lines() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = ForeignMta::start_raw(dir.path());
    let host = Host::new(&format!("RELAY_PORT={}\n", foreign.port));
    fs::create_dir_all(host.path("etc/yubin/dkim/yubin.test")).unwrap();
    let key = host.path("etc/yubin/dkim/yubin.test/s.pem");
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "rsa", "-out"])
        .arg(&key)
        .output();
    assert!(made.unwrap().status.success());
    let host = started(host);
    script(
        "for seed in range(8): send(int(sys.argv[1]), 'bob@yubin.test', ['ann@else.where'], message(seed, b'X-Seed: %d\\r\\n' % seed), 'bob')",
        &[&host.submission.to_string()],
    );
    wait_for("the foreign MTA", || {
        (foreign.messages().len() == 8).then_some(())
    });
    let record = host.ok("qrun", &["-n"], b"");
    script(
        r"
import dkim, os
record = ''.join(sys.argv[2].split('\x22')[1::2]).encode()
new = sys.argv[1] + '/foreign/new/'
for name in os.listdir(new):
    text = open(new + name, 'rb').read()
    check(int(email.message_from_bytes(text)['X-Seed']), text)
    assert dkim.verify(text, dnsfunc=lambda name, timeout=5: record), text[:3000]
",
        &[dir.path().to_str().unwrap(), &record],
    );
}

/// Another of our hosts: it goes there as it is, forwarded or not, and is made of lines only there.
#[test]
fn a_server_that_takes_binary_gets_it() {
    let mut far = Host::new("MY_DOMAIN=else.where\nMY_ALIAS=else.where\nFROM_ADDRESS=else.where\n");
    far.start("smtpd");
    let near = Host::new(&format!("RELAY_PORT={}\n", far.smtp));
    near.write("etc/aliases", "postmaster: alice\nfwd: alice@else.where\n");
    let near = started(near);
    script(
        "for seed in range(12): send(int(sys.argv[1]), 'bob@yubin.test', [['alice@else.where', 'fwd@yubin.test'][seed % 2]], message(seed, b'X-Seed: %d\\r\\n' % seed))",
        &[&near.smtp.to_string()],
    );
    wait_for("an empty queue", || {
        near.ok("mailq", &[], b"")
            .contains("is empty")
            .then_some(())
    });
    let lane = fs::read_dir(far.path("var/spool/yubin/local")).unwrap();
    let raw = lane.filter(|entry| {
        let text = fs::read(entry.as_ref().unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("base64"), "{text}");
        text.contains("Content-Transfer-Encoding: binary")
    });
    assert_eq!(raw.count(), 12);
    for program in ["deliver", "pop3d"] {
        far.start(program);
    }
    far.wait_for_mail("alice", 12);
    script(
        r"
import poplib
p = poplib.POP3('127.0.0.1', int(sys.argv[1])); p.user('alice'); p.pass_('alice')
for n in range(12):
    text = b'\r\n'.join(p.retr(n + 1)[1]) + b'\r\n'
    check(int(email.message_from_bytes(text)['X-Seed']), text)
",
        &[&far.pop3.to_string()],
    );
}

/// Who looks into strangers' mail (DMARC, checks, a filter of our own) leaves its octets as they are.
#[test]
fn checks_leave_it_as_it_is() {
    let host = Host::new(
        "MY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\nHEADER_CHECKS=/etc/yubin/header\nBODY_CHECKS=/etc/yubin/body\n",
    );
    host.write("etc/yubin/header", "/^Subject: inside/ WARN\n");
    host.write("etc/yubin/body", "/^text$/ PREPEND checked\n");
    let host = started(host);
    script(
        "for seed in range(6): send(int(sys.argv[1]), 'x@else.where', ['alice@yubin.test'], message(seed, b'X-Seed: %d\\r\\n' % seed))",
        &[&host.smtp.to_string()],
    );
    host.wait_for_mail("alice", 6);
    script(
        r"
import poplib
p = poplib.POP3('127.0.0.1', int(sys.argv[1])); p.user('alice'); p.pass_('alice')
for n in range(6):
    text = b'\r\n'.join(p.retr(n + 1)[1]) + b'\r\n'
    check(int(email.message_from_bytes(text)['X-Seed']), text)
    assert b'\r\n\r\nchecked\r\ntext\r\n' in text, text[:3000]
    assert b'Authentication-Results: ' in text
",
        &[&host.pop3.to_string()],
    );
}

/// What cannot be delivered comes back whole, in a report that is made of lines.
#[test]
fn a_report_has_all_of_it() {
    let host = Host::started("");
    script(
        "send(int(sys.argv[1]), 'bob@yubin.test', ['ann@no.where'], message(3))",
        &[&host.smtp.to_string()],
    );
    host.wait_for_mail("bob", 1);
    script(
        r"
import poplib
p = poplib.POP3('127.0.0.1', int(sys.argv[1])); p.user('bob'); p.pass_('bob')
text = b'\r\n'.join(p.retr(1)[1]) + b'\r\n'
report = email.message_from_bytes(text)
assert report.get_content_type() == 'multipart/report', text
check(3, text)
",
        &[&host.pop3.to_string()],
    );
}
