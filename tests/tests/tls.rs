//! TLS: to a foreign server that insists on it, no password in the clear, and nothing that was
//! said in the clear counts behind STARTTLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tests::Host;
use tests::foreign::{ForeignMta, python};
use tests::wait_for;

fn started(host: Host) -> Host {
    let mut host = host;
    for program in tests::host::DAEMONS {
        host.start(program);
    }
    host
}

#[test]
fn relays_by_starttls_to_a_server_that_insists_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Host::new("").with_tls();
    let foreign = ForeignMta::start_tls(dir.path(), &certificates.path("etc/yubin/tls"));
    let host = Host::new(&format!(
        "DEFAULT_RELAY=smtp:[127.0.0.1]:{}\n",
        foreign.port
    ));
    let host = started(host);
    host.ok(
        "sendmail",
        &["-f", "bob", "carol@else.where"],
        b"Subject: in secret\n\nx\n",
    );
    let got = wait_for("the foreign MTA", || foreign.messages().into_iter().next());
    assert!(got.contains("Subject: in secret"), "{got}");
}

#[test]
fn no_password_travels_in_the_clear() {
    let host = started(Host::new("PLAINTEXT_LOGIN=no\n").with_tls());
    python(
        "
import imaplib, poplib, smtplib, ssl, sys
smtp, pop3, imap = map(int, sys.argv[1:4])
ctx = ssl.create_default_context(cafile=sys.argv[4])
m = imaplib.IMAP4('127.0.0.1', imap)
assert 'LOGINDISABLED' in m.capabilities, m.capabilities
try: m.login('alice', 'alice'); assert False
except imaplib.IMAP4.error: pass
m.starttls(ssl_context=ctx)
assert 'LOGINDISABLED' not in m.capabilities, m.capabilities
m.login('alice', 'alice'); m.logout()
p = poplib.POP3('127.0.0.1', pop3)
assert 'USER' not in p.capa(), p.capa()
try: p.user('alice'); p.pass_('alice'); assert False
except poplib.error_proto: pass
p.stls(context=ctx)
p.user('alice'); p.pass_('alice'); p.quit()
s = smtplib.SMTP('127.0.0.1', smtp); s.ehlo()
assert 'PLAIN' not in s.esmtp_features['auth'] and 'LOGIN' not in s.esmtp_features['auth'], s.esmtp_features
code, text = s.docmd('AUTH PLAIN AGFsaWNlAGFsaWNl')
assert code >= 500, (code, text)
s.starttls(context=ctx); s.ehlo()
s.login('alice', 'alice'); s.quit()
",
        &[
            &host.submission.to_string(),
            &host.pop3.to_string(),
            &host.imap.to_string(),
            host.path("etc/yubin/tls/cert.pem").to_str().unwrap(),
        ],
    );
}

#[test]
fn what_was_said_before_the_handshake_is_never_read() {
    let host = started(Host::new("").with_tls());
    let table = [
        (
            host.smtp,
            "EHLO x\r\n",
            "STARTTLS\r\nRSET\r\nMAIL FROM:<a@b.test>\r\n",
            "250 2.1.0",
        ),
        (
            host.pop3,
            "",
            "STLS\r\nUSER alice\r\nPASS alice\r\n",
            "password",
        ),
        (
            host.imap,
            "",
            "a STARTTLS\r\nb LOGIN alice alice\r\n",
            "b OK",
        ),
    ];
    for (port, before, injected, wrong) in table {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        if !before.is_empty() {
            stream.write_all(before.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        // In one segment, so that the server has both when it reads the first.
        stream.write_all(injected.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).ok();
        assert!(!said.contains(wrong), "port {port}: {said}");
    }
}
