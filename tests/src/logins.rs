//! What stories of logins share: the three daemons, and a client that speaks each mechanism by hand.

use crate::Host;
use crate::foreign::python;

const SERVERS: [&str; 3] = ["smtpd", "pop3d", "imapd"];

/// A host with TLS and the three daemons that people log in to.
pub fn host(def: &str) -> Host {
    started(Host::new(def).with_tls())
}

/// With those started.
pub fn started(mut host: Host) -> Host {
    for program in SERVERS {
        host.start(program);
    }
    host
}

/// A Python script that gets the ports of submission, POP3 and IMAP, and the certificate.
pub fn play(host: &Host, script: &str) -> String {
    let ports = [host.submission, host.pop3, host.imap].map(|port| port.to_string());
    let [smtp, pop3, imap] = &ports;
    let cert = host.path("etc/yubin/tls/cert.pem");
    python(script, &[smtp, pop3, imap, cert.to_str().unwrap()])
}

/// RFC 5802 by Python's hashlib: what binds, and what somebody in between would make of it.
pub const CLIENTS: &str = "
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
