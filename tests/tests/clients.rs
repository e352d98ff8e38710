//! Clients that others wrote, each doing its ordinary work.

use std::fs;

use tests::foreign::{ok, python, run};
use tests::{Host, wait_for};

fn inbox(host: &Host, count: usize) -> String {
    host.wait_for_mail("alice", count)
}

#[test]
fn python_smtplib_submits_with_starttls_and_login() {
    let host = Host::new("MY_NETWORKS=192.0.2.0/24\n").with_tls();
    let host = start_all(host);
    python(
        "
import smtplib, ssl, sys
ctx = ssl.create_default_context(cafile=sys.argv[3])
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))
s.ehlo('client')
for ext in ('pipelining', 'size', '8bitmime', 'enhancedstatuscodes', 'starttls'): assert s.has_extn(ext), ext
s.starttls(context=ctx)
s.login('alice', 'alice')
s.sendmail('alice@yubin.test', ['alice@yubin.test'], b'Subject: one\\r\\n\\r\\nx\\r\\n')
try: s.sendmail('bob@yubin.test', ['alice@yubin.test'], b'Subject: forged\\r\\n\\r\\nx\\r\\n'); assert False
except smtplib.SMTPSenderRefused as e: assert e.smtp_code == 553, e
try:
    s.sendmail('alice@yubin.test', ['nobody@yubin.test'], b'x'); assert False
except smtplib.SMTPRecipientsRefused as e: assert e.recipients['nobody@yubin.test'][0] == 550
s.quit()
s = smtplib.SMTP_SSL('127.0.0.1', int(sys.argv[2]), context=ctx)
try: s.login('alice', 'wrong'); assert False
except smtplib.SMTPAuthenticationError as e: assert e.smtp_code == 535, e
# It has tried three mechanisms, which are enough wrong passwords for one connection.
s = smtplib.SMTP_SSL('127.0.0.1', int(sys.argv[2]), context=ctx)
s.login('alice', 'alice')
s.sendmail('alice@yubin.test', ['alice@yubin.test'], b'Subject: two\\r\\n\\r\\nx\\r\\n')
s.quit()
",
        &[&host.submission.to_string(), &host.smtps.to_string(), host.path("etc/yubin/tls/cert.pem").to_str().unwrap()],
    );
    let mbox = inbox(&host, 2);
    assert!(mbox.contains("with ESMTPSA"), "{mbox}");
    // RFC 6409 8: what was missing is there.
    for field in ["\nFrom: <alice@yubin.test>", "\nDate: ", "\nMessage-ID: <"] {
        assert_eq!(mbox.matches(field).count(), 2, "{field} {mbox}");
    }
}

#[test]
fn curl_speaks_smtp_pop3_and_imap() {
    let host = start_all(Host::new("").with_tls());
    let cert = host.path("etc/yubin/tls/cert.pem");
    let cert = cert.to_str().unwrap();
    let (smtp, submission) = (
        format!("smtp://localhost:{}", host.smtp),
        format!("smtps://localhost:{}", host.smtps),
    );
    for (url, extra) in [
        (&smtp, vec![]),
        (&submission, vec!["--cacert", cert, "-u", "bob:bob"]),
    ] {
        let mut args = vec![
            "-sS",
            "--mail-from",
            "bob@yubin.test",
            "--mail-rcpt",
            "alice@yubin.test",
            "-T",
            "-",
            url,
        ];
        args.extend(extra);
        ok("curl", &args, b"Subject: by curl\r\n\r\nhello\r\n");
    }
    inbox(&host, 2);
    let pop3 = format!("pop3s://localhost:{}/1", host.pop3s);
    assert!(
        ok(
            "curl",
            &["-sS", "--cacert", cert, "-u", "alice:alice", &pop3],
            b""
        )
        .contains("Subject: by curl")
    );
    let imap = format!("imaps://localhost:{}/INBOX;MAILINDEX=2", host.imaps);
    assert!(
        ok(
            "curl",
            &["-sS", "--cacert", cert, "-u", "alice:alice", &imap],
            b""
        )
        .contains("Subject: by curl")
    );
    let imap = format!("imap://localhost:{}/INBOX", host.imap);
    let found = ok(
        "curl",
        &[
            "-sS",
            "--ssl-reqd",
            "--cacert",
            cert,
            "-u",
            "alice:alice",
            &imap,
            "-X",
            "SEARCH SUBJECT curl",
        ],
        b"",
    );
    assert_eq!(found.trim(), "* SEARCH 1 2");
    // Upload into a folder.
    ok(
        "curl",
        &[
            "-sS",
            "-u",
            "alice:alice",
            &format!("imap://localhost:{}", host.imap),
            "-X",
            "CREATE Saved",
        ],
        b"",
    );
    let file = host.path("upload");
    fs::write(&file, "Subject: appended\r\n\r\nx\r\n").unwrap();
    ok(
        "curl",
        &[
            "-sS",
            "-u",
            "alice:alice",
            "-T",
            file.to_str().unwrap(),
            &format!("imap://localhost:{}/Saved", host.imap),
        ],
        b"",
    );
    let got = ok(
        "curl",
        &[
            "-sS",
            "-u",
            "alice:alice",
            &format!("imap://localhost:{}/Saved;MAILINDEX=1", host.imap),
        ],
        b"",
    );
    assert_eq!(got, "Subject: appended\r\n\r\nx\r\n");
}

#[test]
fn swaks_sends_with_and_without_tls() {
    let host = start_all(Host::new("").with_tls());
    let server = format!("127.0.0.1:{}", host.smtp);
    let submission = format!("127.0.0.1:{}", host.submission);
    let base = [
        "--from",
        "bob@yubin.test",
        "--to",
        "alice@yubin.test",
        "--ehlo",
        "client",
    ];
    ok(
        "swaks",
        &[&base[..], &["--server", &server, "--pipeline"]].concat(),
        b"",
    );
    let login = [
        "--server",
        &submission,
        "-tls",
        "--auth",
        "PLAIN",
        "--auth-user",
        "bob",
        "--auth-password",
        "bob",
    ];
    ok("swaks", &[&base[..], &login].concat(), b"");
    let login = [
        "--server",
        &submission,
        "-tls",
        "--auth",
        "LOGIN",
        "--auth-user",
        "bob",
        "--auth-password",
        "bob",
    ];
    ok("swaks", &[&base[..], &login].concat(), b"");
    inbox(&host, 3);
    let wrong = [
        "--server",
        &submission,
        "-tls",
        "--auth",
        "PLAIN",
        "--auth-user",
        "bob",
        "--auth-password",
        "alice",
    ];
    assert_eq!(
        run("swaks", &[&base[..], &wrong].concat(), b"")
            .status
            .code(),
        Some(28)
    );
}

#[test]
fn python_poplib_and_imaplib_walk_through_their_protocols() {
    let host = start_all(Host::new("").with_tls());
    for i in 1..=3 {
        host.ok(
            "sendmail",
            &["-f", "bob", "alice"],
            format!("Subject: m{i}\n\nbody {i}\n").as_bytes(),
        );
        inbox(&host, i);
    }
    python(
        "
import poplib, sys, ssl
ctx = ssl.create_default_context(cafile=sys.argv[2])
p = poplib.POP3('127.0.0.1', int(sys.argv[1]))
assert '<' in p.getwelcome().decode()
assert 'UIDL' in p.capa() and 'TOP' in p.capa(), p.capa()
p.stls(context=ctx)
p.user('alice'); p.pass_('alice')
assert p.stat()[0] == 3
uids = [l.split()[1] for l in p.uidl()[1]]
assert len(set(uids)) == 3
head = p.top(2, 0)[1]
assert head[-1] == b'', head
assert not any(b'body' in l for l in head)
p.dele(2); p.rset(); p.dele(2)
assert p.stat()[0] == 2
p.quit()
p = poplib.POP3('127.0.0.1', int(sys.argv[1]))
p.apop('alice', 'alice')
assert p.stat()[0] == 2
assert [l.split()[1] for l in p.uidl()[1]] == [uids[0], uids[2]]
p.quit()
try:
    p = poplib.POP3('127.0.0.1', int(sys.argv[1])); p.apop('alice', 'wrong'); assert False
except poplib.error_proto: pass
",
        &[
            &host.pop3.to_string(),
            host.path("etc/yubin/tls/cert.pem").to_str().unwrap(),
        ],
    );
    python(
        "
import imaplib, sys, ssl, time
ctx = ssl.create_default_context(cafile=sys.argv[2])
def login():
    m = imaplib.IMAP4('127.0.0.1', int(sys.argv[1]))
    m.starttls(ssl_context=ctx); m.login('alice', 'alice'); return m
def ok(r):
    assert r[0] == 'OK', r
    return r[1]
m = login()
for c in ('IDLE', 'UIDPLUS', 'MOVE', 'NAMESPACE', 'UNSELECT'): assert c in m.capabilities, m.capabilities
assert ok(m.select('INBOX')) == [b'2']
assert ok(m.search(None, 'SUBJECT', 'm3')) == [b'2']
assert ok(m.uid('SEARCH', None, 'ALL')) == [b'1 3']
ok(m.store('1', '+FLAGS', r'(\\Flagged custom)'))
flags = ok(m.fetch('1', '(FLAGS)'))[0]
assert b'Flagged' in flags and b'custom' in flags, flags
body = ok(m.fetch('2', '(BODY.PEEK[TEXT]<2.3>)'))[0][1]
assert body == b'dy ', body
env = ok(m.fetch('2', '(ENVELOPE BODYSTRUCTURE)'))[0]
assert b'\"m3\"' in env and b'TEXT' in env.upper(), env
ok(m.create('Work/Sub'))
ok(m.subscribe('Work/Sub'))
assert any(b'Work/Sub' in l for l in ok(m.list()))
assert any(b'Work/Sub' in l for l in ok(m.lsub()))
ok(m.copy('1', 'Work/Sub'))
ok(m.append('Work/Sub', r'(\\Seen)', imaplib.Time2Internaldate(86400), b'Subject: app\\r\\n\\r\\nx\\r\\n'))
m2 = login()
assert ok(m2.select('Work/Sub')) == [b'2']
flags = ok(m2.fetch('1:2', '(FLAGS INTERNALDATE)'))
assert b'Flagged' in flags[0] and b'custom' in flags[0] and b'Seen' in flags[1], flags
ok(m.uid('MOVE', '3', 'Work/Sub'))
ok(m2.noop())
assert len(ok(m2.search(None, 'ALL'))[0].split()) == 3
ok(m.store('1', '+FLAGS', r'(\\Deleted)'))
ok(m.expunge())
assert ok(m.select('INBOX')) == [b'0']
ok(m2.close())
ok(m.rename('Work/Sub', 'Work/Done'))
assert ok(m.status('Work/Done', '(MESSAGES UIDNEXT UIDVALIDITY UNSEEN)'))
ok(m.delete('Work/Done'))
m.logout(); m2.logout()
",
        &[&host.imap.to_string(), host.path("etc/yubin/tls/cert.pem").to_str().unwrap()],
    );
}

/// RFC 3461: what was asked for at SMTP is in the report that comes back.
#[test]
fn smtplib_asks_for_a_report_of_success() {
    let host = Host::started("");
    let script = "
import smtplib, sys
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))
s.ehlo('client.test')
assert s.has_extn('dsn')
refused = s.sendmail('bob@yubin.test', ['alice@yubin.test'], 'Subject: tell me\\r\\n\\r\\nbody\\r\\n',
    mail_options=['RET=HDRS', 'ENVID=QQ+2B314'],
    rcpt_options=['NOTIFY=SUCCESS', 'ORCPT=rfc822;Alice+40old.example'])
assert refused == {}
s.mail('bob@yubin.test')
assert s.rcpt('alice@yubin.test', ['NOTIFY=NEVER,DELAY'])[0] == 501
assert s.rcpt('alice@yubin.test', ['ORCPT=alice'])[0] == 501
assert s.rcpt('alice@yubin.test', ['MT-PRIORITY=1'])[0] == 555
s.quit()
";
    python(script, &[&host.smtp.to_string()]);
    let report = host.wait_for_mail("bob", 1);
    for line in [
        "Original-Envelope-Id: QQ+314\n",
        "Original-Recipient: rfc822;Alice@old.example\n",
        "Final-Recipient: rfc822; alice@yubin.test\n",
        "Action: delivered\n",
        "Content-Type: text/rfc822-headers",
    ] {
        assert!(report.contains(line), "no {line} in\n{report}");
    }
    assert!(!host.mbox("alice").contains("Delivery Report"));
}

/// RFC 3030: pieces go through byte for byte, with lines of one dot and pieces of a megabyte.
#[test]
fn smtplib_sends_in_chunks() {
    let host = Host::started("");
    let script = "
import smtplib, sys
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))
s.ehlo('client.test')
assert s.has_extn('chunking')
s.mail('bob@yubin.test'); s.rcpt('alice@yubin.test')
def piece(data, last=b''):
    s.sock.sendall(b'BDAT %d%s\\r\\n' % (len(data), last) + data)
    return s.getreply()
assert piece(b'Subject: pieces\\r\\n\\r\\n.\\r')[0] == 250
assert piece(b'\\n' + b'0123456789abcde\\r\\n' * 70000)[0] == 250
reply = piece(b'the end', b' LAST')
assert reply[0] == 250 and b'queued as' in reply[1], reply
s.mail('bob@yubin.test')
assert piece(b'QUIT\\r\\n', b' LAST')[0] == 554
assert s.noop()[0] == 250
s.quit()
";
    python(script, &[&host.smtp.to_string()]);
    let mbox = host.wait_for_mail("alice", 1);
    let content = mbox.split_once("Subject: pieces\n").unwrap().1;
    let lines: Vec<&str> = content.lines().skip_while(|l| *l != ".").collect();
    assert_eq!(lines.len(), 70_002 + usize::from(content.ends_with("\n\n")));
    assert!(lines[1..70_001].iter().all(|l| *l == "0123456789abcde"));
    assert_eq!(lines[70_001], "the end");
}

#[test]
fn imap_idle_hears_of_new_mail() {
    let host = Host::started("");
    let script = "
import socket, sys, subprocess
s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); s.settimeout(20)
f = s.makefile('rwb')
def line(): return f.readline()
def ask(tag, text):
    f.write(tag + b' ' + text + b'\\r\\n'); f.flush()
    while True:
        l = line()
        if l.startswith(tag): assert b' OK' in l, l; return
line(); ask(b'a', b'LOGIN alice alice'); ask(b'b', b'SELECT INBOX')
f.write(b'c IDLE\\r\\n'); f.flush()
assert line().startswith(b'+')
subprocess.run([sys.argv[2], '-f', 'bob', 'alice'], input=b'Subject: wake\\n\\nx\\n', check=True)
while True:
    l = line()
    if b'1 EXISTS' in l: break
f.write(b'DONE\\r\\n'); f.flush()
while not line().startswith(b'c OK'): pass
";
    let mut client = host.foreign("/usr/bin/python3".as_ref());
    client
        .args(["-c", script, &host.imap.to_string()])
        .arg(tests::host::programs().join("sendmail"));
    let out = tests::host::feed(&mut client, b"");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn fetchmail_takes_mail_by_apop() {
    let host = Host::started("");
    host.ok(
        "sendmail",
        &["-f", "bob", "alice"],
        b"Subject: fetch me\n\nx\n",
    );
    inbox(&host, 1);
    let rc = host.path("fetchmailrc");
    let target = host.path("fetched");
    fs::write(
        &rc,
        format!(
            "poll 127.0.0.1 service {} protocol pop3 auth apop timeout 20 uidl no dns\n  user alice password alice mda \"cat >> {}\" sslproto '' fetchall\n",
            host.pop3,
            target.display()
        )
        .replace("protocol pop3 auth apop", "protocol apop"),
    )
    .unwrap();
    make_private(&rc);
    let out = tests::host::feed(
        std::process::Command::new("fetchmail")
            .args(["-f", rc.to_str().unwrap(), "--nosyslog", "-v", "--pidfile"])
            .arg(host.path("fetchmail.pid"))
            .env("HOME", host.path("home"))
            .env("FETCHMAILHOME", host.path("home")),
        b"",
    );
    assert!(
        out.status.success(),
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(
        fs::read_to_string(&target)
            .unwrap()
            .contains("Subject: fetch me")
    );
    wait_for("an empty mailbox", || {
        (!host.mbox("alice").contains("fetch me")).then_some(())
    });
}

#[test]
fn mbsync_keeps_a_maildir_in_step_both_ways() {
    let host = Host::started("");
    host.ok("sendmail", &["-f", "bob", "alice"], b"Subject: down\n\nx\n");
    inbox(&host, 1);
    let local = host.path("home/Mail");
    fs::create_dir_all(&local).unwrap();
    let rc = host.path("mbsyncrc");
    fs::write(
        &rc,
        format!(
            "IMAPAccount y\nHost 127.0.0.1\nPort {}\nUser alice\nPass alice\nSSLType None\nAuthMechs LOGIN\n\n\
             IMAPStore remote\nAccount y\n\nMaildirStore local\nPath {l}/\nInbox {l}/INBOX\nSubFolders Verbatim\n\n\
             Channel c\nFar :remote:\nNear :local:\nPatterns *\nCreate Both\nExpunge Both\nSync All\nSyncState *\n",
            host.imap,
            l = local.display()
        ),
    )
    .unwrap();
    let sync = || ok("mbsync", &["-c", rc.to_str().unwrap(), "c"], b"");
    sync();
    let new = local.join("INBOX/new");
    let name = fs::read_dir(&new).unwrap().next().unwrap().unwrap();
    assert!(
        fs::read_to_string(name.path())
            .unwrap()
            .contains("Subject: down")
    );
    // Seen here, and one more put here: both go up.
    let mut seen = local.join("INBOX/cur");
    seen.push(format!(
        "{}:2,S",
        name.file_name()
            .to_str()
            .unwrap()
            .split(":2,")
            .next()
            .unwrap()
    ));
    fs::rename(name.path(), &seen).unwrap();
    fs::write(
        local.join("INBOX/new/1.up.host"),
        "Subject: up\nFrom: a@b\n\ny\n",
    )
    .unwrap();
    sync();
    let seen = python(
        "
import imaplib, sys
m = imaplib.IMAP4('127.0.0.1', int(sys.argv[1])); m.login('alice', 'alice')
m.select('INBOX')
print(m.search(None, 'SUBJECT', 'down', 'SEEN')[1], m.search(None, 'SUBJECT', 'up', 'UNSEEN')[1])
m.store('1', '+FLAGS', r'(\\Deleted)'); m.expunge(); m.logout()
",
        &[&host.imap.to_string()],
    );
    assert_eq!(seen, "[b'1'] [b'2']\n");
    sync();
    assert_eq!(
        fs::read_dir(local.join("INBOX/cur")).unwrap().count()
            + fs::read_dir(&new).unwrap().count(),
        1
    );
}

#[test]
fn s_nail_and_mutt_read_the_mbox_that_imapd_serves() {
    let host = Host::started("");
    for i in 1..=3 {
        host.ok(
            "sendmail",
            &["-f", "bob", "alice"],
            format!("Subject: note {i}\n\nFrom here\n").as_bytes(),
        );
        inbox(&host, i);
    }
    let uids = "
import imaplib, sys
m = imaplib.IMAP4('127.0.0.1', int(sys.argv[1])); m.login('alice', 'alice')
m.select('INBOX')
print([d for d in m.fetch('1:*', '(UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])')[1] if d != b')'], m.response('UIDVALIDITY')[1])
m.logout()
";
    let before = python(uids, &[&host.imap.to_string()]);
    let mbox = host.path("var/spool/mail/alice");
    let mbox = mbox.to_str().unwrap();
    let headers = ok("s-nail", &["-n", "-R", "-H", "-f", mbox], b"");
    assert!(
        headers.contains("note 1") && headers.contains("note 3"),
        "{headers}"
    );
    // mutt deletes the second message and rewrites the file; it wants a terminal for that.
    fs::create_dir_all(host.path("home/Mail")).unwrap();
    let settings = "set quit=yes delete=yes move=no confirmappend=no mbox_type=mbox wait_key=no";
    let keys = "push \"<delete-pattern>note.2<enter><sync-mailbox><quit>\"";
    // Without --foreground, timeout(1) would put mutt into a process group that may not read it.
    let mutt = format!(
        "timeout --foreground 30 mutt -n -F /dev/null -f {mbox} -e '{settings}' -e '{keys}'"
    );
    let mut terminal = host.foreign("/usr/bin/script".as_ref());
    terminal
        .args(["-qec", &mutt, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm");
    let out = tests::host::feed(&mut terminal, b"");
    let left = host.mbox("alice");
    assert!(
        !left.contains("note 2") && left.contains("note 3"),
        "{left}\n{}",
        String::from_utf8_lossy(&out.stdout)
    );
    let after = python(uids, &[&host.imap.to_string()]);
    for message in ["note 1", "note 3"] {
        let uid = |text: &str| {
            let at = text.split("(b'").find(|p| p.contains(message)).unwrap();
            at.split("UID ")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .to_owned()
        };
        assert_eq!(uid(&before), uid(&after), "{before}\n{after}");
    }
}

/// Where passwords may not come in the clear and there is no TLS, by what gives none away.
#[test]
fn logins_that_show_no_password() {
    let host = Host::started("PLAINTEXT_LOGIN=no\nMY_NETWORKS=192.0.2.0/24\n");
    let ports = [host.submission, host.imap, host.pop3].map(|port| port.to_string());
    let said = python(
        "
import imaplib, smtplib, sys
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1])); s.ehlo()
print(s.esmtp_features['auth'].split())
s.login('alice', 'alice')
s.sendmail('alice@yubin.test', ['alice@yubin.test'], b'Subject: cram\\r\\n\\r\\nx\\r\\n'); s.quit()
m = imaplib.IMAP4('127.0.0.1', int(sys.argv[2]))
try: m.login('alice', 'alice'); assert False
except imaplib.IMAP4.error as e: assert 'PRIVACYREQUIRED' in str(e), e
try: m.login_cram_md5('alice', 'wrong'); assert False
except imaplib.IMAP4.error as e: assert 'AUTHENTICATIONFAILED' in str(e), e
m.login_cram_md5('alice', 'alice')
print(m.select('INBOX')[0]); m.logout()
",
        &[&ports[0], &ports[1]],
    );
    assert_eq!(said, "['SCRAM-SHA-256', 'SCRAM-SHA-1', 'CRAM-MD5']\nOK\n");
    for (method, password, good) in [
        ("scram-sha-256", "alice", true),
        ("scram-sha-1", "alice", true),
        ("cram-md5", "alice", true),
        ("scram-sha-256", "wrong", false),
    ] {
        let port = format!("--port={}", ports[0]);
        let auth = format!("--auth={method}");
        let password = format!("--passwordeval=echo {password}");
        let args = [
            "--host=127.0.0.1",
            &port,
            "--tls=off",
            &auth,
            "--user=alice",
            &password,
            "--from=alice@yubin.test",
            "alice@yubin.test",
        ];
        let text = format!("Subject: {method}\n\nx\n");
        let out = run("msmtp", &args, text.as_bytes());
        // 77 is sysexits' EX_NOPERM.
        assert_eq!(
            out.status.code(),
            Some(if good { 0 } else { 77 }),
            "{method} {out:?}"
        );
    }
    let mbox = inbox(&host, 4);
    assert!(
        mbox.contains("Subject: scram-sha-256") && mbox.contains("with ESMTPA"),
        "{mbox}"
    );

    // mutt reads by IMAP and POP3, and removes a message each.
    fs::create_dir_all(host.path("home/Mail")).unwrap();
    for (number, (folder, authenticators)) in [
        (
            format!("imap://alice@127.0.0.1:{}/INBOX", ports[1]),
            "imap_authenticators=scram-sha-256",
        ),
        (
            format!("pop://alice@127.0.0.1:{}", ports[2]),
            "pop_authenticators=scram-sha-1",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let settings = format!(
            "set quit=yes delete=yes move=no wait_key=no ssl_starttls=no ssl_force_tls=no \
             imap_pass=alice pop_pass=alice {authenticators}"
        );
        let keys = "push \"<first-entry><delete-message><sync-mailbox><quit>\"";
        let mutt = format!(
            "timeout --foreground 30 mutt -n -F /dev/null -f {folder} -e '{settings}' -e '{keys}'"
        );
        let mut terminal = host.foreign("/usr/bin/script".as_ref());
        terminal
            .args(["-qec", &mutt, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm");
        let out = tests::host::feed(&mut terminal, b"");
        let left = host.mbox("alice").matches("Subject: ").count();
        assert_eq!(
            left,
            3 - number,
            "{folder}\n{}",
            String::from_utf8_lossy(&out.stdout)
        );
    }
}

fn start_all(mut host: Host) -> Host {
    for program in tests::host::DAEMONS {
        host.start(program);
    }
    host
}

fn make_private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
