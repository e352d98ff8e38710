//! Servers that mail goes to, each with its own way to be secure or not: SMTP on addresses of
//! loopback, one web server for the policies of MTA-STS, and the authority that has issued what is
//! good about their certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair,
    PublicKeyData as _, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use tempfile::TempDir;

use crate::wait_for;

/// What is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// A certificate of the authority, with the name of each exchanger.
    Good,
    /// For somebody else.
    WrongName,
    Expired,
    /// By itself, for nobody.
    SelfSigned,
    NoStarttls,
    /// Hangs up in the handshake.
    BrokenTls,
    /// As the good one, and offers REQUIRETLS.
    RequireTls,
    /// Nobody.
    Dead,
}

impl Server {
    const ALL: [Self; 8] = [
        Self::Good,
        Self::WrongName,
        Self::Expired,
        Self::SelfSigned,
        Self::NoStarttls,
        Self::BrokenTls,
        Self::RequireTls,
        Self::Dead,
    ];

    /// Where it is.
    pub fn ip(self) -> &'static str {
        match self {
            Self::Good => "127.0.0.2",
            Self::WrongName => "127.0.0.3",
            Self::Expired => "127.0.0.4",
            Self::SelfSigned => "127.0.0.5",
            Self::NoStarttls => "127.0.0.6",
            Self::BrokenTls => "127.0.0.7",
            Self::RequireTls => "127.0.0.8",
            Self::Dead => "127.0.0.9",
        }
    }

    fn certificate(self) -> &'static str {
        match self {
            Self::WrongName => "wrong",
            Self::Expired => "expired",
            Self::SelfSigned => "alone",
            _ => "good",
        }
    }
}

/// What the web server has for a domain's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Policy(&'static str),
    NotFound,
    Redirect,
    Html,
    /// The policy, by a server with another's certificate.
    BadCertificate(&'static str),
}

/// All of them, until it is dropped.
pub struct World {
    /// Of all SMTP servers.
    pub smtp: u16,
    pub https: u16,
    pub records: Records,
    dir: TempDir,
    child: Child,
}

const SERVERS: &str = r#"
import os, socket, ssl, sys, threading
here, hosts = sys.argv[1], [a.split('=') for a in sys.argv[2:]]
def context(name):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(here + '/' + name + '.pem', here + '/' + name + '.key')
    return c
def listen():
    while True:
        first = socket.create_server(('127.0.0.1', 0)); port = first.getsockname()[1]
        try:
            all = {ip: socket.create_server((ip, port), backlog=50) for ip, *_ in hosts if ip != '127.0.0.9'}
            first.close()
            return port, all
        except OSError:
            pass
def smtp(conn, ip, kind, cert):
    conn.settimeout(20)
    tls = 'clear'
    f = conn.makefile('rb')
    def say(text): conn.sendall(text.encode() + b'\r\n')
    say('220 sink ESMTP')
    while True:
        line = f.readline()
        if not line: return
        verb = line.split()[0].upper().decode() if line.split() else ''
        if verb == 'EHLO':
            words = ['sink', '8BITMIME', 'ENHANCEDSTATUSCODES']
            if tls == 'clear' and kind != 'NoStarttls': words.append('STARTTLS')
            if tls != 'clear' and kind == 'RequireTls': words.append('REQUIRETLS')
            for w in words[:-1]: say('250-' + w)
            say('250 ' + words[-1])
        elif verb == 'STARTTLS':
            say('220 go')
            if kind == 'BrokenTls': return
            conn = contexts[cert].wrap_socket(conn, server_side=True)
            f = conn.makefile('rb'); tls = 'tls'
        elif verb == 'DATA':
            say('354 go')
            while f.readline() not in (b'.\r\n', b''): pass
            with open(here + '/delivered', 'a') as log: log.write('%s %s %s\n' % (rcpt, kind, tls))
            say('250 2.0.0 taken')
        elif verb == 'QUIT':
            say('221 bye'); return
        else:
            if verb == 'RCPT': rcpt = line.decode().split('<')[1].split('>')[0]
            say('250 2.0.0 ok')
def web(conn):
    conn.settimeout(20)
    asked = []
    def choose(sock, name, ctx):
        asked.append(name or '')
        if os.path.exists(here + '/pages/' + (name or '') + '.bad'): sock.context = contexts['wrong']
    c = context('web'); c.sni_callback = choose
    conn = c.wrap_socket(conn, server_side=True)
    f = conn.makefile('rb')
    request = f.readline().decode().split()
    while f.readline() not in (b'\r\n', b''): pass
    assert request[1] == '/.well-known/mta-sts.txt', request
    page = here + '/pages/' + asked[0]
    body = open(page).read() if os.path.exists(page) else ''
    head = {'': '404 No', 'redirect': '302 There\r\nLocation: https://elsewhere.test/'}.get(body, '200 OK')
    kind = 'text/html' if body.startswith('<') else 'text/plain'
    conn.sendall(('HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s' % (head, kind, len(body), body)).encode())
    conn.unwrap()
def serve(sock, what, *args):
    def one(conn):
        try: what(conn, *args)
        except Exception as e: print(e, file=sys.stderr)
        finally: conn.close()
    while True:
        conn, _ = sock.accept()
        threading.Thread(target=one, args=(conn,), daemon=True).start()
contexts = {n: context(n) for n in ('good', 'wrong', 'expired', 'alone', 'web')}
port, all = listen()
for ip, kind, cert in hosts:
    if ip in all: threading.Thread(target=serve, args=(all[ip], smtp, ip, kind, cert), daemon=True).start()
https = socket.create_server(('127.0.0.1', 0), backlog=50)
threading.Thread(target=serve, args=(https, web), daemon=True).start()
with open(here + '/ports.tmp', 'w') as out: out.write('%d %d' % (port, https.getsockname()[1]))
os.rename(here + '/ports.tmp', here + '/ports')
sys.stdin.read()
"#;

impl World {
    /// With certificates for these hosts; `pages` are those of the policies, by domain.
    pub fn start(hosts: &[String], pages: &[(String, Page)]) -> Self {
        let dir = TempDir::with_prefix("yubin-tls-").unwrap();
        let at = dir.path();
        let webs: Vec<String> = pages.iter().map(|(d, _)| format!("mta-sts.{d}")).collect();
        let records = certificates(at, hosts, &webs);
        fs::create_dir(at.join("pages")).unwrap();
        for (domain, page) in pages {
            let file = at.join("pages").join(format!("mta-sts.{domain}"));
            let text = match page {
                Page::Policy(text) | Page::BadCertificate(text) => text,
                Page::Redirect => "redirect",
                Page::Html => "<html>",
                Page::NotFound => "",
            };
            if let Page::BadCertificate(_) = page {
                fs::write(file.with_extension("test.bad"), "").unwrap();
            }
            fs::write(file, text).unwrap();
        }
        let servers = Server::ALL.map(|s| format!("{}={s:?}={}", s.ip(), s.certificate()));
        let child = Command::new("/usr/bin/python3")
            .args(["-c", SERVERS])
            .arg(at)
            .args(servers)
            .stdin(Stdio::piped())
            .stderr(fs::File::create(at.join("errors")).unwrap())
            .spawn()
            .expect("python3");
        let ports = wait_for("the servers", || fs::read_to_string(at.join("ports")).ok());
        let mut ports = ports.split(' ').map(|port| port.parse().unwrap());
        Self {
            smtp: ports.next().unwrap(),
            https: ports.next().unwrap(),
            records,
            child,
            dir,
        }
    }

    /// The authority that good certificates are from, in PEM.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// What they took: recipient, server, `tls` or `clear`.
    pub fn delivered(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("delivered")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What TLSA records can say, in their own form.
#[derive(Debug)]
pub struct Records {
    /// Of the good certificate's key.
    pub good: String,
    pub expired: String,
    pub alone: String,
    /// Of the self-signed certificate.
    pub alone_certificate: String,
    pub authority: String,
    /// Of nobody.
    pub other: String,
    /// Of a usage that means nothing here.
    pub unusable: String,
    /// The SHA-256 of the self-signed certificate.
    pub fingerprint: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

fn params(names: &[String], title: &str) -> CertificateParams {
    let mut params = CertificateParams::new(names.to_vec()).unwrap();
    params.distinguished_name.push(DnType::CommonName, title);
    params
}

/// Writes them as `NAME.pem` and `NAME.key`, with the authority's behind each but its own.
fn certificates(at: &Path, hosts: &[String], webs: &[String]) -> Records {
    let authority = || {
        let mut params = params(&[], "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let key = KeyPair::generate().unwrap();
    let top = authority().self_signed(&key).unwrap();
    let issuer = Issuer::new(authority(), key);
    fs::write(at.join("ca.pem"), top.pem()).unwrap();
    let keep = |name: &str, certificate: &Certificate, key: &KeyPair| {
        let chain = format!("{}{}", certificate.pem(), top.pem());
        fs::write(at.join(format!("{name}.pem")), chain).unwrap();
        fs::write(at.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        let spki = key.subject_public_key_info();
        format!("3 1 1 {}", sha256(&spki))
    };
    let issue = |name: &str, params: CertificateParams| {
        let key = KeyPair::generate().unwrap();
        keep(name, &params.signed_by(&key, &issuer).unwrap(), &key)
    };
    let good = issue("good", params(hosts, "good"));
    issue("wrong", params(&["elsewhere.test".into()], "wrong"));
    issue("web", params(webs, "web"));
    let mut old = params(hosts, "expired");
    old.not_before = date_time_ymd(2020, 1, 1);
    old.not_after = date_time_ymd(2021, 1, 1);
    let expired = issue("expired", old);
    let key = KeyPair::generate().unwrap();
    let alone = params(&["nobody.test".into()], "alone");
    let alone = alone.self_signed(&key).unwrap();
    Records {
        good,
        expired,
        alone: keep("alone", &alone, &key),
        alone_certificate: format!("3 0 0 {}", hex(alone.der())),
        authority: format!("2 0 1 {}", sha256(top.der())),
        other: format!("3 1 1 {}", "ab".repeat(32)),
        unusable: format!("1 1 1 {}", "ab".repeat(32)),
        fingerprint: sha256(alone.der()),
    }
}
