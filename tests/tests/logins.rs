//! Logins: each mechanism by a client that somebody else wrote, and what must not work.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tests::Host;
use tests::foreign::run;
use tests::logins::{CLIENTS, host, play, started};

/// gsasl by this mechanism, after STARTTLS: how it ended, and what was said.
fn gsasl(
    host: &Host,
    protocol: &str,
    mechanism: &str,
    user: &str,
    password: &str,
) -> (bool, String) {
    let port = if protocol == "smtp" {
        host.submission
    } else {
        host.imap
    };
    let cert = host.path("etc/yubin/tls/cert.pem");
    let arguments = [
        "--verbose".to_owned(),
        format!("--{protocol}"),
        format!("--connect=localhost:{port}"),
        format!("--x509-ca-file={}", cert.display()),
        format!("--mechanism={mechanism}"),
        format!("--authentication-id={user}"),
        format!("--authorization-id={user}"),
        format!("--password={password}"),
        // Without this it will not hear of a login that could be bound and is not.
        "--no-cb".to_owned(),
    ];
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if mechanism.ends_with("-PLUS") {
        arguments.pop();
    }
    let out = run("gsasl", &arguments, b"");
    let said = [out.stdout, out.stderr].concat();
    (
        out.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// The -PLUS of GNU SASL binds to `tls-exporter` on TLS 1.3.
#[test]
fn gsasl_binds_its_login_to_the_channel() {
    let host = host("");
    for protocol in ["smtp", "imap"] {
        for mechanism in [
            "SCRAM-SHA-256-PLUS",
            "SCRAM-SHA-1-PLUS",
            "SCRAM-SHA-256",
            "SCRAM-SHA-1",
            "CRAM-MD5",
            "PLAIN",
            "LOGIN",
        ] {
            let (good, said) = gsasl(&host, protocol, mechanism, "alice", "alice");
            assert!(good, "{protocol} {mechanism}: {said}\n{}", host.log());
        }
        let (good, said) = gsasl(&host, protocol, "SCRAM-SHA-256-PLUS", "alice", "bob");
        assert!(!good, "{said}");
    }
    let log = host.log();
    assert!(log.contains("method=SCRAM-SHA-256-PLUS"), "{log}");
    assert!(!log.contains("in between"), "{log}");
}

/// A name and a password in letters beyond ASCII, by SASLprep (RFC 4013).
#[test]
fn gsasl_prepares_what_it_sends() {
    let host = Host::new("").with_tls();
    let users = fs::read_to_string(host.path("etc/yubin/users")).unwrap();
    host.write(
        "etc/yubin/users",
        &users.replace("{PLAIN}alice", "{PLAIN}pa\u{308}\u{2168}"),
    );
    let host = started(host);
    for mechanism in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "PLAIN"] {
        for password in ["p\u{e4}IX", "pa\u{308}\u{2168}"] {
            let (good, said) = gsasl(&host, "imap", mechanism, "al\u{ad}ice", password);
            assert!(good, "{mechanism} {password}: {said}\n{}", host.log());
        }
    }
}

#[test]
fn who_stands_in_between_gets_no_login() {
    let host = host("");
    let script = "
PLUS = ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-1-PLUS']
heard = set()
for kind in (Smtp, Pop3, Imap):
    # Both bindings; -PLUS only where there is TLS.
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        for mechanism in PLUS:
            c = kind(version)
            assert c.mechanisms[:2] == PLUS, c.mechanisms
            assert not set(PLUS) & set(c.clear), c.clear
            got = scram(c, mechanism, 'p=tls-server-end-point', end_point(c))
            assert got[0] == c.good, got
    heard.add(' '.join(c.mechanisms))
    # Bound to somebody else's certificate.
    c = kind(); begun = time.monotonic()
    got = scram(c, PLUS[0], 'p=tls-server-end-point', hashlib.sha256(b'their own').digest())
    assert got[0] == c.bad and time.monotonic() - begun > 1.9, got
    # The list was changed on its way: the client thinks that there is no -PLUS here.
    got = scram(kind(), 'SCRAM-SHA-256', 'y'); assert got[0] == c.bad, got
    got = scram(kind(), 'SCRAM-SHA-256', 'n'); assert got[0] == c.good, got
    # TLS 1.3 has no tls-unique; a bound name needs a bound mechanism, and the other way round.
    for mechanism, flag in ((PLUS[0], 'p=tls-unique'), (PLUS[0], 'n'), (PLUS[1], 'y'), ('SCRAM-SHA-1', 'p=tls-exporter')):
        got = scram(kind(), mechanism, flag); assert got[0] not in (c.good, c.more), got
    # tls-exporter is of TLS 1.3 only.
    got = scram(kind(ssl.TLSVersion.TLSv1_2), PLUS[0], 'p=tls-exporter', bytes(32)); assert got[0] not in (c.good, c.more), got
assert len(heard) == 1, heard
";
    play(&host, &format!("{CLIENTS}{script}"));
    let log = host.log();
    assert_eq!(
        log.matches("the client is bound to another channel")
            .count(),
        3,
        "{log}"
    );
    assert_eq!(log.matches("the client was not told").count(), 3, "{log}");
}

/// A program of the operator's, in the root.
fn script(host: &Host, name: &str, text: &str) -> String {
    let path = host.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Adds lines to yubin.def that have to name a path in the root.
fn configure(host: &Host, lines: &str) {
    let def = fs::read_to_string(host.path("etc/yubin/yubin.def")).unwrap();
    host.write("etc/yubin/yubin.def", &format!("{def}{lines}\n"));
}

/// It notes what anybody could see of it, and knows three tokens.
const OAUTH_CHECK: &str = "#!/bin/sh
read -r token
env | sort > SEEN; echo \"arguments: $*\" >> SEEN
case $token in
alices.token) echo alice ;;
bobs.token) echo bob ;;
nobodys.token) echo nobody ;;
broken) exit 9 ;;
long*) test ${#token} -gt 6000 && echo alice ;;
*) echo alice; exit 1 ;;
esac
";

#[test]
fn a_token_logs_in_whom_it_belongs_to() {
    let host = Host::new("").with_tls();
    let seen = host.path("seen");
    let program = script(
        &host,
        "oauth-check",
        &OAUTH_CHECK.replace("SEEN", seen.to_str().unwrap()),
    );
    configure(&host, &format!("OAUTH_CHECK={program}"));
    let host = started(host);
    let cert = host.path("etc/yubin/tls/cert.pem");
    let curl = |url: &str, mechanism: &str, user: &str, token: &str| {
        let out = run(
            "curl",
            &[
                "-sS",
                "--cacert",
                cert.to_str().unwrap(),
                "--login-options",
                &format!("AUTH={mechanism}"),
                "-u",
                &format!("{user}:"),
                "--oauth2-bearer",
                token,
                url,
            ],
            b"",
        );
        out.status.success()
    };
    for mechanism in ["OAUTHBEARER", "XOAUTH2"] {
        for url in [
            format!("imaps://localhost:{}/INBOX", host.imaps),
            format!("pop3s://localhost:{}/", host.pop3s),
            format!("smtps://localhost:{}/x", host.smtps),
        ] {
            // curl asks an SMTP server for VRFY, which ours answers with 252.
            assert!(
                curl(&url, mechanism, "alice", "alices.token"),
                "{url} {}",
                host.log()
            );
            assert!(!curl(&url, mechanism, "bob", "alices.token"), "{url}");
            assert!(!curl(&url, mechanism, "alice", "stolen"), "{url}");
        }
    }
    let seen = fs::read_to_string(seen).unwrap();
    assert!(
        seen.contains("SERVICE=smtp\n") && seen.contains("arguments: alice\n"),
        "{seen}"
    );
    let foreign = |line: &&str| {
        let ours = [
            "PATH=",
            "PWD=/",
            "SERVICE=",
            "_=",
            "OLDPWD=",
            "SHLVL=",
            "arguments: alice",
        ];
        !ours.iter().any(|word| line.starts_with(word))
    };
    assert_eq!(seen.lines().find(foreign), None, "{seen}");
    assert!(!host.log().contains("token\u{1}") && !host.log().contains("alices.token"));
}

#[test]
fn a_token_that_is_no_good_is_told_why_not() {
    let host = Host::new("PLAINTEXT_LOGIN=no\n").with_tls();
    let program = script(
        &host,
        "oauth-check",
        &OAUTH_CHECK.replace("SEEN", "/dev/null"),
    );
    configure(&host, &format!("OAUTH_CHECK={program}"));
    let host = started(host);
    let script = "
def bearer(user, token): return f'n,{user},\\1auth=Bearer {token}\\1\\1'.encode()
for kind in (Smtp, Pop3, Imap):
    c = kind(); assert {'OAUTHBEARER', 'XOAUTH2'} <= set(c.mechanisms), c.mechanisms
    assert not {'OAUTHBEARER', 'XOAUTH2'} & set(c.clear), c.clear
    # RFC 7628 3.2.2 and 3.2.3, for a token of nobody here and for a user who is none.
    for user, token in (('a=alice', 'x'), ('a=bob', 'alices.token'), ('a=carol', 'x'), ('', 'nobodys.token'), ('', 'x')):
        c = kind(); begun = time.monotonic()
        got = c.begin('OAUTHBEARER', bearer(user, token))
        assert got == (c.more, b'{\"status\":\"invalid_token\",\"schemes\":\"bearer\"}'), got
        got = c.next(b'\\1'); assert got[0] == c.bad and time.monotonic() - begun > 1.9, got
    got = kind().begin('XOAUTH2', b'user=alice\\1auth=Bearer x\\1\\1')
    assert got == (c.more, b'{\"status\":\"401\",\"schemes\":\"bearer\"}'), got
    # Without a name it is the token that says who it is.
    got = kind().begin('OAUTHBEARER', bearer('', 'bobs.token')); assert got[0] == c.good, got
    # Some are long, and come with the command.
    got = kind().begin('OAUTHBEARER', bearer('a=alice', 'long' + 'x' * 6500)); assert got[0] == c.good, got
    # A program that fails is a doubt.
    got = kind().begin('OAUTHBEARER', bearer('a=alice', 'broken')); assert got[0] not in (c.good, c.more), got
    assert '454' in got or 'UNAVAILABLE' in got[1] or 'SYS/TEMP' in got[1], got
";
    play(&host, &format!("{CLIENTS}{script}"));
    assert!(
        host.log().contains("login: user=<bob>, method=OAUTHBEARER"),
        "{}",
        host.log()
    );
}

/// DJB's interface: the three strings on descriptor 3, and then the program in the arguments.
const CHECKPASSWORD: &str = "#!/usr/bin/python3 -I
import os, sys
name, password, stamp, rest = os.read(3, 513).split(b'\\0')
assert rest == b'' and stamp.isdigit() and os.environ['SERVICE'] and sys.argv[1] == '-x', sys.argv
assert not os.read(0, 1)
if name == b'bob': sys.exit(111)
if name + b'!' != password: sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
";

#[test]
fn a_checkpassword_program_checks_passwords() {
    let host = Host::new("").with_tls();
    let program = script(&host, "checkpassword", CHECKPASSWORD);
    configure(&host, &format!("CHECKPASSWORD='{program} -x'"));
    let host = started(host);
    passwords_by_program(&host, "!");
    let script = "
for kind in (Smtp, Pop3, Imap):
    got = kind().begin('PLAIN', b'\\0bob\\0bob!')
    assert '454' in got or 'UNAVAILABLE' in got[1] or 'SYS/TEMP' in got[1], got
";
    play(&host, &format!("{CLIENTS}{script}"));
    assert!(
        host.log().contains("CHECKPASSWORD: ended with 111"),
        "{}",
        host.log()
    );
}

/// Alice's password is her name and `tail`; what is stored of it is not asked.
fn passwords_by_program(host: &Host, tail: &str) {
    let script = "
import imaplib, poplib, smtplib
tail = 'TAIL'; times = {}
for kind in (Smtp, Pop3, Imap):
    c = kind(); assert c.mechanisms == ['PLAIN', 'LOGIN'], c.mechanisms
    assert kind().begin('PLAIN', f'\\0alice\\0alice{tail}'.encode())[0] == c.good
    assert kind().begin('PLAIN', f'bob\\0alice\\0alice{tail}'.encode())[0] == c.bad
    # Who does not exist waits as long as who has forgotten the password.
    for user, password in (('alice', 'alice'), ('carol', 'carol' + tail), ('../x', '../x' + tail), ('alice', '')):
        begun = time.monotonic(); got = kind().begin('PLAIN', f'\\0{user}\\0{password or chr(0xe4) * 40}'.encode())
        assert got[0] == c.bad, got
        times.setdefault(kind, []).append(time.monotonic() - begun)
for each in times.values(): assert min(each) > 1.9 and max(each) - min(each) < 0.5, times
m = imaplib.IMAP4('127.0.0.1', imap); m.login('alice', 'alice' + tail); m.logout()
p = poplib.POP3('127.0.0.1', pop3); p.user('alice'); p.pass_('alice' + tail); p.quit()
p = poplib.POP3('127.0.0.1', pop3)
try: p.apop('alice', 'alice'); assert False
except poplib.error_proto: pass
s = smtplib.SMTP('127.0.0.1', smtp); s.login('alice', 'alice' + tail); s.quit()
";
    play(host, &format!("{CLIENTS}{}", script.replace("TAIL", tail)));
}

/// The real PAM with modules of its own: `pam_exec` asks a script, `pam_listfile` locks bob out.
#[test]
fn pam_checks_passwords() {
    let host = Host::new("CHECKPASSWORD=pam\n").with_tls();
    let program = script(
        &host,
        "pam-exec",
        "#!/bin/sh\ntest \"$PAM_SERVICE:$PAM_USER-pam\" = \"yubin:$(tr -d '\\000')\"\n",
    );
    let locked = host.path("locked");
    fs::write(&locked, "bob\n").unwrap();
    host.write(
        "etc/pam.d/yubin",
        &format!(
            "auth [success=1 default=ignore] pam_exec.so quiet expose_authtok {program}\n\
             auth requisite pam_deny.so\n\
             auth required pam_permit.so\n\
             account required pam_listfile.so item=user sense=deny onerr=fail file={}\n",
            locked.display()
        ),
    );
    let host = started(host);
    passwords_by_program(&host, "-pam");
    let script = "
for kind in (Smtp, Pop3, Imap):
    got = kind().begin('PLAIN', b'\\0bob\\0bob-pam'); assert got[0] == kind.bad, got
";
    play(&host, &format!("{CLIENTS}{script}"));
}

/// What is wrong with a program is told before anybody is served.
#[test]
fn programs_that_cannot_be_run_are_told_at_the_start() {
    for (def, want) in [
        ("OAUTH_CHECK=/nowhere", "OAUTH_CHECK: open /nowhere"),
        ("CHECKPASSWORD=/etc", "CHECKPASSWORD: /etc is no program"),
        ("CHECKPASSWORD=crypt", "write pam, or the absolute path"),
        ("CHECKPASSWORD=pam", "etc/pam.d/yubin does not exist"),
        ("TLS_CLIENT_CA_FILE=/etc/ca.pem", "CERT_USERS: read"),
    ] {
        let host = Host::new(&format!("{def}\n"));
        let out = host.run("checkpw", &["-n"], b"");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(78), "{def}: {said}");
        assert!(said.contains(want), "{def}: {said}");
    }
}
