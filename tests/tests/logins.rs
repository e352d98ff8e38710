//! Logins: each mechanism by a client that somebody else wrote, and what must not work.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tests::foreign::{ok, python, run};
use tests::{Host, wait_for};

const SERVERS: [&str; 3] = ["smtpd", "pop3d", "imapd"];

/// A host with TLS and the three daemons that people log in to.
fn host(def: &str) -> Host {
    started(Host::new(def).with_tls())
}

fn started(mut host: Host) -> Host {
    for program in SERVERS {
        host.start(program);
    }
    host
}

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

/// A Python script that gets the ports of submission, POP3 and IMAP, and the certificate.
fn play(host: &Host, script: &str) -> String {
    let ports = [host.submission, host.pop3, host.imap].map(|port| port.to_string());
    let [smtp, pop3, imap] = &ports;
    let cert = host.path("etc/yubin/tls/cert.pem");
    python(script, &[smtp, pop3, imap, cert.to_str().unwrap()])
}

/// RFC 5802 by Python's hashlib: what binds, and what somebody in between would make of it.
const SCRAM: &str = "
import base64, hashlib, hmac, os, socket, ssl, sys, time
smtp, pop3, imap = map(int, sys.argv[1:4])
ctx = ssl.create_default_context(cafile=sys.argv[4])

class Line:
    def __init__(self, port, version):
        self.s = socket.create_connection(('127.0.0.1', port)); self.f = self.s.makefile('rwb')
        ctx.maximum_version = ctx.minimum_version = version
    def get(self):
        line = self.f.readline().decode().rstrip('\\r\\n'); return line
    def say(self, text):
        self.f.write(text.encode() + b'\\r\\n'); self.f.flush()
    def tls(self):
        self.s = ctx.wrap_socket(self.s, server_hostname='localhost'); self.f = self.s.makefile('rwb')
    def until(self, *ends):
        lines = []
        while True:
            lines.append(self.get())
            if lines[-1].startswith(ends) or not lines[-1]: return lines

def b64(x): return base64.b64encode(x).decode()

class Smtp(Line):
    def __init__(self, version=ssl.TLSVersion.TLSv1_3):
        super().__init__(smtp, version); self.until('220 ')
        self.clear = self.ehlo(); self.say('STARTTLS'); self.until('220 '); self.tls(); self.mechanisms = self.ehlo()
    def ehlo(self):
        self.say('EHLO x'); return [l[4:].split()[1:] for l in self.until('250 ') if l[4:].startswith('AUTH ')][0]
    def begin(self, m, first): self.say(f'AUTH {m} {b64(first)}'); return self.answer()
    def next(self, data): self.say(b64(data)); return self.answer()
    def answer(self):
        line = self.get()
        return (line[:3], base64.b64decode(line[4:]) if line.startswith('334') else line)
    more, good, bad = '334', '235', '535'

class Pop3(Line):
    def __init__(self, version=ssl.TLSVersion.TLSv1_3):
        super().__init__(pop3, version); self.get()
        self.clear = self.capa(); self.say('STLS'); self.get(); self.tls(); self.mechanisms = self.capa()
    def capa(self):
        self.say('CAPA'); return [l.split()[1:] for l in self.until('.') if l.startswith('SASL ')][0]
    def begin(self, m, first): self.say(f'AUTH {m} {b64(first)}'); return self.answer()
    def next(self, data): self.say(b64(data)); return self.answer()
    def answer(self):
        line = self.get(); word = line.split(' ')[0]
        return (word, base64.b64decode(line[2:]) if word == '+' else line)
    more, good, bad = '+', '+OK', '-ERR'

class Imap(Line):
    def __init__(self, version=ssl.TLSVersion.TLSv1_3):
        super().__init__(imap, version); self.get()
        self.clear = self.capa(); self.say('s STARTTLS'); self.get(); self.tls(); self.mechanisms = self.capa()
    def capa(self):
        self.say('c CAPABILITY')
        return [w[5:] for l in self.until('c ') if l.startswith('* CAP') for w in l.split() if w.startswith('AUTH=')]
    def begin(self, m, first): self.say(f'a AUTHENTICATE {m} {b64(first)}'); return self.answer()
    def next(self, data): self.say(b64(data)); return self.answer()
    def answer(self):
        line = self.get(); word = line.split(' ')[1] if not line.startswith('+') else '+'
        return (word, base64.b64decode(line[2:]) if word == '+' else line)
    more, good, bad = '+', 'OK', 'NO'

def scram(c, mechanism, flag, data=b'', password='alice'):
    name = hashlib.sha256 if '256' in mechanism else hashlib.sha1
    mac = lambda k, m: hmac.new(k, m, name).digest()
    header = f'{flag},,'.encode(); bare = b'n=alice,r=' + b64(os.urandom(12)).encode()
    code, first = c.begin(mechanism, header + bare)
    if code != c.more: return code, first
    fields = dict(f.split('=', 1) for f in first.decode().split(','))
    unproven = b'c=' + b64(header + data).encode() + b',r=' + fields['r'].encode()
    salted = hashlib.pbkdf2_hmac(name().name, password.encode(), base64.b64decode(fields['s']), int(fields['i']))
    key = mac(salted, b'Client Key'); whole = b','.join((bare, first, unproven))
    proof = bytes(a ^ b for a, b in zip(key, mac(name(key).digest(), whole)))
    code, last = c.next(unproven + b',p=' + b64(proof).encode())
    if code != c.more: return code, last
    assert last == b'v=' + b64(mac(mac(salted, b'Server Key'), whole)).encode(), last
    return c.next(b'')

def end_point(c):
    return hashlib.sha256(c.s.getpeercert(True)).digest()
";

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
    play(&host, &format!("{SCRAM}{script}"));
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
    # A program that fails is a doubt.
    got = kind().begin('OAUTHBEARER', bearer('a=alice', 'broken')); assert got[0] not in (c.good, c.more), got
    assert '454' in got or 'UNAVAILABLE' in got[1] or 'SYS/TEMP' in got[1], got
";
    play(&host, &format!("{SCRAM}{script}"));
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
    play(&host, &format!("{SCRAM}{script}"));
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
    play(host, &format!("{SCRAM}{}", script.replace("TAIL", tail)));
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
    play(&host, &format!("{SCRAM}{script}"));
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

/// openssl in the root's etc/yubin/tls.
fn openssl(host: &Host, args: &str) -> String {
    let dir = host.path("etc/yubin/tls");
    let dir = dir.to_str().unwrap();
    let line = format!("cd '{dir}' && openssl {args}");
    ok("sh", &["-c", &line], b"")
}

#[test]
fn a_certificate_logs_in_its_user() {
    let host = Host::new("TLS_CLIENT_CA_FILE=/etc/yubin/tls/ca.pem\n").with_tls();
    let new = "req -x509 -newkey rsa:2048 -nodes -days 2";
    for ca in ["ca", "other"] {
        openssl(
            &host,
            &format!("{new} -subj /CN={ca} -keyout {ca}.key -out {ca}.pem 2>&1"),
        );
    }
    host.write("etc/yubin/tls/v3", "basicConstraints=CA:FALSE\n");
    let mut table = String::from("# whose is whose\n");
    for (user, ca) in [
        ("alice", "ca"),
        ("carol", "ca"),
        ("mallory", "other"),
        ("guest", "ca"),
    ] {
        openssl(
            &host,
            &format!(
                "req -newkey rsa:2048 -nodes -subj /CN=alice -keyout {user}.key -out {user}.csr 2>&1"
            ),
        );
        openssl(
            &host,
            &format!(
                "x509 -req -extfile v3 -in {user}.csr -CA {ca}.pem -CAkey {ca}.key -days 2 -out {user}.pem 2>&1"
            ),
        );
        let print = openssl(
            &host,
            &format!("x509 -in {user}.pem -noout -fingerprint -sha256"),
        );
        if user != "guest" {
            let print = print.trim().split_once('=').unwrap().1;
            writeln!(table, "{print} {user}").unwrap();
        }
    }
    host.write("etc/yubin/cert-users", &table);
    let host = started(host);
    let tls = host.path("etc/yubin/tls");
    let tls = tls.to_str().unwrap();
    let script = "
here = 'HERE/'
def who(name):
    global ctx
    ctx = ssl.create_default_context(cafile=sys.argv[4])
    if name: ctx.load_cert_chain(here + name + '.pem', here + name + '.key')
for kind in (Smtp, Pop3, Imap):
    who(None); c = kind(); assert 'EXTERNAL' not in c.mechanisms, c.mechanisms
    got = c.begin('EXTERNAL', b'alice'); assert got[0] != c.good, got
    who('alice')
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        c = kind(version); assert c.mechanisms[0] == 'EXTERNAL' and 'EXTERNAL' not in c.clear, c.mechanisms
        got = c.begin('EXTERNAL', b'alice'); assert got[0] == c.good, got
    c = kind(); c.say({Smtp: 'AUTH EXTERNAL =', Pop3: 'AUTH EXTERNAL =', Imap: 'a AUTHENTICATE EXTERNAL ='}[kind])
    got = c.answer(); assert got[0] == c.good, got
    # Nobody acts for another, and the name in a certificate is nobody's.
    got = kind().begin('EXTERNAL', b'bob'); assert got[0] == c.bad, got
    for name in ('carol', 'guest'):
        who(name); got = kind().begin('EXTERNAL', b'alice'); assert got[0] == c.bad, got
    # Who has one of another authority has no connection at all.
    who('mallory')
    try: c = kind(); c.begin('EXTERNAL', b'mallory'); assert False
    except (ssl.SSLError, ConnectionError, IndexError, ValueError): pass
    who('alice'); got = scram(kind(), 'SCRAM-SHA-256', 'n'); assert got[0] == c.good, got
"
    .replace("HERE", tls);
    play(&host, &format!("{SCRAM}{script}"));
    // curl and msmtp do it of their own.
    let (cert, key) = (format!("{tls}/alice.pem"), format!("{tls}/alice.key"));
    let list = ok(
        "curl",
        &[
            "-sS",
            "--cacert",
            &format!("{tls}/cert.pem"),
            "--cert",
            &cert,
            "--key",
            &key,
            "--login-options",
            "AUTH=EXTERNAL",
            "-u",
            "alice:",
            &format!("imaps://localhost:{}/", host.imaps),
        ],
        b"",
    );
    assert!(list.contains("INBOX"), "{list}");
    ok(
        "msmtp",
        &[
            "--host=localhost",
            &format!("--port={}", host.submission),
            "--tls=on",
            &format!("--tls-trust-file={tls}/cert.pem"),
            &format!("--tls-cert-file={cert}"),
            &format!("--tls-key-file={key}"),
            "--auth=external",
            "--user=alice",
            "--from=alice@yubin.test",
            "bob@yubin.test",
        ],
        b"Subject: by certificate\n\nx\n",
    );
    // Other servers are asked for nothing: their certificates are none of ours.
    let asked = |port: u16, more: &str| {
        let line = format!("s_client -connect 127.0.0.1:{port} {more} </dev/null 2>/dev/null || :");
        openssl(&host, &line).contains("Acceptable client certificate CA names")
    };
    assert!(!asked(host.smtp, "-starttls smtp"));
    assert!(asked(host.submission, "-starttls smtp") && asked(host.imaps, ""));
}

#[test]
fn each_name_has_its_certificate() {
    let host = Host::new("").with_tls();
    let make = |host: &Host, name: &str, cn: &str, files: [&str; 2]| {
        let dir = host.path("etc/yubin/tls/names").join(name);
        fs::create_dir_all(&dir).unwrap();
        let [cert, key] = files.map(|file| dir.join(file).display().to_string());
        openssl(
            host,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={cn} -keyout '{key}' -out '{cert}' 2>&1"
            ),
        );
    };
    let ours = ["cert.pem", "key.pem"];
    make(&host, "mail.example.org", "one", ours);
    make(
        &host,
        "*.example.org",
        "any",
        ["fullchain.pem", "privkey.pem"],
    );
    fs::write(host.path("etc/yubin/tls/names/README"), "").unwrap();
    let host = started(host);
    let shown = |port: u16, name: &str| {
        let line = format!(
            "s_client -connect 127.0.0.1:{port} {name} </dev/null 2>/dev/null | sed -n 's/^subject=CN *= *//p'"
        );
        openssl(&host, &line).trim().to_owned()
    };
    for port in [host.smtps, host.pop3s, host.imaps] {
        for (name, want) in [
            ("-servername mail.example.org", "one"),
            ("-servername MAIL.Example.ORG", "one"),
            ("-servername www.example.org", "any"),
            ("-servername a.b.example.org", "mail.yubin.test"),
            ("-servername example.org", "mail.yubin.test"),
            ("-noservername", "mail.yubin.test"),
        ] {
            assert_eq!(shown(port, name), want, "{name}");
        }
    }
    // Each of them is read again, and one that is broken costs nobody anything.
    make(&host, "mail.example.org", "two", ours);
    make(&host, "new.example.org", "new", ours);
    fs::write(
        host.path("etc/yubin/tls/names/*.example.org/fullchain.pem"),
        "none",
    )
    .unwrap();
    let renewed = |name: &str, want: &str| {
        wait_for(want, || (shown(host.smtps, name) == want).then_some(()));
    };
    renewed("-servername mail.example.org", "two");
    renewed("-servername new.example.org", "new");
    assert_eq!(shown(host.smtps, "-servername www.example.org"), "any");
    assert!(host.log().contains("fullchain.pem: "), "{}", host.log());
}
