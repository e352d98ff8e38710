//! Logins: each mechanism by a client that somebody else wrote, and what must not work.

use std::fs;

use tests::Host;
use tests::foreign::{python, run};

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
