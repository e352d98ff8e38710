//! What becomes of mail as its domain publishes this and its servers are that: DANE, MTA-STS, REQUIRETLS
//! and the operator's table, with zones that are signed or not, and a web server for the policies.
//!
//! Each row is a domain of its own. A client of a few lines does what is decided for it, so that a
//! row says what came of real servers, not only of a decision.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{Config, Domain, Root};
use dns::{Resolve, Target, Us};
use net::tls::Connector;
use tests::name_server::{NameServer, Signed, Zone};
use tests::tls_world::{Page, Records, Server, World};
use tlspolicy::{Asked, Decider, Next, Tls, Wish};

/// A domain `NAME.test`, and what becomes of a message to it.
struct Row {
    name: &'static str,
    signed: Signed,
    /// In the order of their preference; their names are mx0, mx1.
    servers: &'static [Server],
    /// What the TLSA records of the first and second exchanger say.
    tlsa: fn(&Records) -> [Option<&String>; 2],
    page: Option<Page>,
    /// In TLS_POLICY.
    level: &'static str,
    wish: Wish,
    want: Want,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// To this server, encrypted.
    Tls(Server),
    Clear(Server),
    Defer,
    Bounce,
}

const NOTHING: Row = Row {
    name: "",
    signed: Signed::No,
    servers: &[],
    tlsa: |_| [None, None],
    page: None,
    level: "",
    wish: Wish::Nothing,
    want: Want::Defer,
};

const ENFORCE: &str = "version: STSv1\nmode: enforce\nmx: *.NAME.test\nmax_age: 86400\n";
const UNLISTED: &str = "version: STSv1\nmode: enforce\nmx: other.test\nmax_age: 86400\n";
const SECOND: &str = "version: STSv1\nmode: enforce\nmx: mx1.NAME.test\nmax_age: 86400\n";
const TESTING: &str = "version: STSv1\nmode: testing\nmx: *.NAME.test\nmax_age: 86400\n";
const NONE: &str = "version: STSv1\nmode: none\nmax_age: 86400\n";

/// What is under test in most rows stands in few words.
fn dane(
    name: &'static str,
    server: &'static [Server],
    tlsa: fn(&Records) -> [Option<&String>; 2],
    want: Want,
) -> Row {
    Row {
        name,
        signed: Signed::Nsec,
        servers: server,
        tlsa,
        want,
        ..NOTHING
    }
}

fn sts(name: &'static str, servers: &'static [Server], page: Page, want: Want) -> Row {
    Row {
        name,
        servers,
        page: Some(page),
        want,
        ..NOTHING
    }
}

fn rows() -> Vec<Row> {
    use Server::{BrokenTls, Dead, Expired, Good, NoStarttls, RequireTls, SelfSigned, WrongName};
    use Want::{Bounce, Clear, Defer};
    let page = |text| Page::Policy(text);
    let alone: fn(&Records) -> [Option<&String>; 2] = |r| [Some(&r.alone), None];
    let other: fn(&Records) -> [Option<&String>; 2] = |r| [Some(&r.other), None];
    let authority: fn(&Records) -> [Option<&String>; 2] = |r| [Some(&r.authority), None];
    let unusable: fn(&Records) -> [Option<&String>; 2] = |r| [Some(&r.unusable), None];
    let none: fn(&Records) -> [Option<&String>; 2] = |_| [None, None];
    let open = |row: Row| Row {
        signed: Signed::No,
        ..row
    };
    let signed = |signed, row: Row| Row { signed, ..row };
    let level = |level, row: Row| Row { level, ..row };
    let wish = |wish, row: Row| Row { wish, ..row };
    let with_page = |page, row: Row| Row {
        page: Some(page),
        ..row
    };
    let plain = |name, servers, want| Row {
        name,
        servers,
        want,
        ..NOTHING
    };
    vec![
        // DANE: RFC 7672.
        dane("ee", &[SelfSigned], alone, Want::Tls(SelfSigned)),
        dane(
            "ee-exact",
            &[SelfSigned],
            |r| [Some(&r.alone_certificate), None],
            Want::Tls(SelfSigned),
        ),
        signed(
            Signed::Nsec3,
            dane("ee-nsec3", &[SelfSigned], alone, Want::Tls(SelfSigned)),
        ),
        dane(
            "ee-expired",
            &[Expired],
            |r| [Some(&r.expired), None],
            Want::Tls(Expired),
        ),
        dane("mismatch", &[SelfSigned], other, Defer),
        dane("mismatch-of-a-good-one", &[Good], other, Defer),
        dane(
            "second-fits",
            &[SelfSigned, Good],
            |r| [Some(&r.other), Some(&r.good)],
            Want::Tls(Good),
        ),
        dane(
            "second-has-none",
            &[SelfSigned, Good],
            other,
            Want::Tls(Good),
        ),
        dane("ta", &[Good], authority, Want::Tls(Good)),
        dane("ta-wrong-name", &[WrongName], authority, Defer),
        dane("ta-expired", &[Expired], authority, Defer),
        dane("ta-alone", &[SelfSigned], authority, Defer),
        dane("dane-no-starttls", &[NoStarttls], other, Defer),
        dane("dane-broken-tls", &[BrokenTls], other, Defer),
        dane("dane-dead", &[Dead], other, Defer),
        dane("unusable", &[SelfSigned], unusable, Want::Tls(SelfSigned)),
        dane("unusable-no-starttls", &[NoStarttls], unusable, Defer),
        signed(
            Signed::ByAnother,
            dane("another", &[SelfSigned], alone, Defer),
        ),
        signed(Signed::Expired, dane("stale", &[SelfSigned], alone, Defer)),
        signed(
            Signed::Stripped,
            dane("stripped", &[SelfSigned], alone, Defer),
        ),
        open(dane("open", &[SelfSigned], other, Want::Tls(SelfSigned))),
        open(dane(
            "open-no-starttls",
            &[NoStarttls],
            other,
            Clear(NoStarttls),
        )),
        dane("signed-without", &[SelfSigned], none, Want::Tls(SelfSigned)),
        dane("signed-no-starttls", &[NoStarttls], none, Clear(NoStarttls)),
        // MTA-STS: RFC 8461.
        sts("enforce", &[Good], page(ENFORCE), Want::Tls(Good)),
        sts("enforce-wrong-name", &[WrongName], page(ENFORCE), Defer),
        sts("enforce-alone", &[SelfSigned], page(ENFORCE), Defer),
        sts("enforce-expired", &[Expired], page(ENFORCE), Defer),
        sts("enforce-no-starttls", &[NoStarttls], page(ENFORCE), Defer),
        sts("enforce-broken-tls", &[BrokenTls], page(ENFORCE), Defer),
        sts("unlisted", &[Good], page(UNLISTED), Defer),
        sts(
            "second-listed",
            &[SelfSigned, Good],
            page(SECOND),
            Want::Tls(Good),
        ),
        sts(
            "enforce-second",
            &[SelfSigned, Good],
            page(ENFORCE),
            Want::Tls(Good),
        ),
        sts("testing", &[WrongName], page(TESTING), Want::Tls(WrongName)),
        sts(
            "testing-no-starttls",
            &[NoStarttls],
            page(TESTING),
            Clear(NoStarttls),
        ),
        sts(
            "mode-none",
            &[SelfSigned],
            page(NONE),
            Want::Tls(SelfSigned),
        ),
        sts(
            "not-found",
            &[SelfSigned],
            Page::NotFound,
            Want::Tls(SelfSigned),
        ),
        sts(
            "redirect",
            &[SelfSigned],
            Page::Redirect,
            Want::Tls(SelfSigned),
        ),
        sts("html", &[SelfSigned], Page::Html, Want::Tls(SelfSigned)),
        sts(
            "bad-web",
            &[SelfSigned],
            Page::BadCertificate(UNLISTED),
            Want::Tls(SelfSigned),
        ),
        // DANE goes first.
        with_page(
            page(UNLISTED),
            dane(
                "both-dane-fits",
                &[SelfSigned],
                alone,
                Want::Tls(SelfSigned),
            ),
        ),
        with_page(page(ENFORCE), dane("both-sts-fits", &[Good], other, Defer)),
        with_page(
            page(ENFORCE),
            dane("both-without", &[SelfSigned], none, Defer),
        ),
        // Neither.
        plain("broken-tls", &[BrokenTls], Clear(BrokenTls)),
        plain(
            "dead-then-alone",
            &[Dead, SelfSigned],
            Want::Tls(SelfSigned),
        ),
        // The sender: RFC 8689.
        wish(
            Wish::RequireTls,
            plain("require-open", &[RequireTls], Bounce),
        ),
        wish(
            Wish::RequireTls,
            dane(
                "require-dane",
                &[RequireTls],
                |r| [Some(&r.good), None],
                Want::Tls(RequireTls),
            ),
        ),
        wish(
            Wish::RequireTls,
            dane("require-signed", &[RequireTls], none, Want::Tls(RequireTls)),
        ),
        wish(
            Wish::RequireTls,
            dane(
                "require-unoffered",
                &[Good],
                |r| [Some(&r.good), None],
                Bounce,
            ),
        ),
        wish(
            Wish::RequireTls,
            sts(
                "require-sts",
                &[RequireTls],
                page(ENFORCE),
                Want::Tls(RequireTls),
            ),
        ),
        wish(
            Wish::TlsNotRequired,
            dane("free-dane", &[SelfSigned], other, Want::Tls(SelfSigned)),
        ),
        wish(
            Wish::TlsNotRequired,
            sts("free-sts", &[NoStarttls], page(ENFORCE), Clear(NoStarttls)),
        ),
        // The operator.
        level(
            "encrypt",
            plain("encrypt", &[SelfSigned], Want::Tls(SelfSigned)),
        ),
        level(
            "encrypt",
            plain("encrypt-no-starttls", &[NoStarttls], Defer),
        ),
        level("encrypt", plain("encrypt-broken-tls", &[BrokenTls], Defer)),
        level("verify", plain("verify", &[Good], Want::Tls(Good))),
        level("verify", plain("verify-wrong-name", &[WrongName], Defer)),
        level(
            "verify match=elsewhere.test",
            plain("verify-match", &[WrongName], Want::Tls(WrongName)),
        ),
        level("secure", plain("secure", &[Good], Want::Tls(Good))),
        level("secure", plain("secure-alone", &[SelfSigned], Defer)),
        level("dane-only", plain("dane-only-without", &[Good], Defer)),
        level(
            "dane-only",
            dane("dane-only", &[SelfSigned], alone, Want::Tls(SelfSigned)),
        ),
        level(
            "none",
            dane("none", &[SelfSigned], other, Clear(SelfSigned)),
        ),
        level(
            "may",
            sts("may", &[NoStarttls], page(ENFORCE), Clear(NoStarttls)),
        ),
        level(
            "fingerprint match=PRINT",
            plain("print", &[SelfSigned], Want::Tls(SelfSigned)),
        ),
        level(
            "fingerprint match=PRINT",
            plain("print-of-another", &[Good], Defer),
        ),
    ]
}

/// The rows' zones, below `test.`
fn zone_text(row: &Row, world: &World) -> String {
    let mut text = String::new();
    for (i, server) in row.servers.iter().enumerate() {
        text.push_str(&format!("@ IN MX {i} mx{i}\nmx{i} IN A {}\n", server.ip()));
        if let Some(Some(record)) = (row.tlsa)(&world.records).get(i) {
            text.push_str(&format!("_{}._tcp.mx{i} IN TLSA {record}\n", world.smtp));
        }
    }
    if row.page.is_some() {
        text.push_str("_mta-sts IN TXT \"v=STSv1; id=1\"\nmta-sts IN A 127.0.0.1\n");
    }
    text
}

struct Setting {
    world: World,
    name_server: NameServer,
    table: String,
}

impl Setting {
    fn new(rows: &[Row]) -> Self {
        let hosts = rows.iter().flat_map(|row| {
            let name = row.name;
            (0..row.servers.len()).map(move |i| format!("mx{i}.{name}.test"))
        });
        let pages = rows.iter().filter_map(|row| {
            let page = match row.page? {
                Page::Policy(text) => Page::Policy(text.replace("NAME", row.name).leak()),
                other => other,
            };
            Some((format!("{}.test", row.name), page))
        });
        let (hosts, pages): (Vec<_>, Vec<_>) = (hosts.collect(), pages.collect());
        let world = World::start(&hosts, &pages);
        let texts: Vec<String> = rows.iter().map(|row| zone_text(row, &world)).collect();
        let zones: Vec<Zone<'_>> = rows
            .iter()
            .zip(&texts)
            .map(|(row, text)| Zone {
                name: row.name,
                signed: row.signed,
                text,
            })
            .collect();
        let name_server = NameServer::start(&zones);
        let print = &world.records.fingerprint;
        let lines = rows.iter().filter(|row| !row.level.is_empty());
        let lines = lines.map(|row| format!("{}.test {}\n", row.name, row.level));
        let table = lines.collect::<String>().replace("PRINT", print);
        Self {
            table,
            world,
            name_server,
        }
    }

    /// For yubin.def.
    fn def(&self) -> String {
        let up = "/..".repeat(20);
        format!(
            "{}RELAY_PORT={}\nMTA_STS_PORT={}\nTLS_CA_FILE={up}{}\nTLS_POLICY=/tls_policy\n",
            self.name_server.def(),
            self.world.smtp,
            self.world.https,
            self.world.authority().display(),
        )
    }
}

struct Nobody;

impl Us for Nobody {
    fn is_our_name(&self, _: &Domain) -> bool {
        false
    }

    fn is_our_address(&self, _: std::net::IpAddr) -> bool {
        false
    }
}

/// What came of one host, or of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Delivered,
    Later,
    Never,
}

/// A client of SMTP that keeps to what is decided.
struct Client {
    decider: Decider,
    connector: Connector,
    dns: Arc<dyn Resolve>,
    port: u16,
}

impl Client {
    fn new(dir: &Path, setting: &Setting) -> Self {
        std::fs::write(dir.join("tls_policy"), &setting.table).unwrap();
        let root = Root::new(dir);
        let config = Config::parse(&root, &setting.def(), Path::new("yubin.def")).unwrap();
        let dns = dns::open(&root, &config).unwrap();
        let connector = Connector::configured(&config).unwrap();
        let decider = Decider::open(&root, &config, Arc::clone(&dns), connector.clone()).unwrap();
        Self {
            decider,
            connector,
            dns,
            port: setting.world.smtp,
        }
    }

    fn send(&self, domain: &Domain, wish: Wish) -> Came {
        let targets = dns::targets(self.dns.as_ref(), domain, &Nobody).unwrap();
        let answers = self.decider.policy_for(&Asked {
            next: Next::Mx(domain),
            targets: &targets,
            port: self.port,
            wish,
            login: false,
        });
        let mut worst = Came::Never;
        for (target, answer) in targets.iter().zip(answers) {
            let came = match answer {
                Ok(security) => self.visit(target, domain, &security, wish),
                Err(refused) if refused.is_temporary() => Came::Later,
                Err(_) => Came::Never,
            };
            match came {
                Came::Delivered => return came,
                Came::Later => worst = came,
                Came::Never => (),
            }
        }
        worst
    }

    /// Where TLS only may be, it is tried in the clear after it failed.
    fn visit(
        &self,
        target: &Target,
        domain: &Domain,
        security: &tlspolicy::Security,
        wish: Wish,
    ) -> Came {
        match (
            self.attempt(target, domain, security, wish, true),
            security.tls,
        ) {
            (None, Tls::May) => self
                .attempt(target, domain, security, wish, false)
                .unwrap_or(Came::Later),
            (came, _) => came.unwrap_or(Came::Later),
        }
    }

    /// `None`: TLS failed.
    fn attempt(
        &self,
        target: &Target,
        domain: &Domain,
        security: &tlspolicy::Security,
        wish: Wish,
        may_tls: bool,
    ) -> Option<Came> {
        let Ok(socket) = TcpStream::connect((target.ip, self.port)) else {
            return Some(Came::Later);
        };
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut plain = BufReader::new(socket);
        reply(&mut plain)?;
        let words = say(&mut plain, "EHLO us.test")?;
        if security.tls == Tls::Never || !may_tls || !words.contains("STARTTLS") {
            return match security.tls {
                Tls::Must => Some(Came::Later),
                Tls::May | Tls::Never => Some(message(&mut plain, domain, false)),
            };
        }
        say(&mut plain, "STARTTLS")?;
        let (proof, name) = (security.proof.clone(), &security.name);
        let mut session = self
            .connector
            .checked(name, proof, security.strict)
            .unwrap();
        let mut socket = plain.into_inner();
        while session.is_handshaking() {
            while session.wants_write() {
                session.write_tls(&mut socket).ok()?;
            }
            if session.is_handshaking() {
                match session.read_tls(&mut socket) {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => (),
                }
            }
        }
        assert!(!security.strict || session.judged().is_proven());
        let mut tls = BufReader::new(Encrypted { session, socket });
        let words = say(&mut tls, "EHLO us.test")?;
        if wish == Wish::RequireTls && !words.contains("REQUIRETLS") {
            return Some(Came::Never);
        }
        Some(message(&mut tls, domain, wish == Wish::RequireTls))
    }
}

struct Encrypted {
    session: net::tls::ClientSession,
    socket: TcpStream,
}

impl Read for Encrypted {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.session.read_plain(buf) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    self.session.read_tls(&mut self.socket)?;
                }
                other => return other,
            }
        }
    }
}

impl Write for Encrypted {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.session.write_plain(buf)?;
        self.flush()?;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

/// All of a reply; `None` for one that is no success.
fn reply<S: Read>(stream: &mut BufReader<S>) -> Option<String> {
    let mut whole = String::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|n| *n > 3)?;
        whole.push_str(&line);
        if line.as_bytes().get(3) == Some(&b' ') {
            return whole.starts_with(['2', '3']).then_some(whole);
        }
    }
}

fn say<S: Read + Write>(stream: &mut BufReader<S>, line: &str) -> Option<String> {
    stream
        .get_mut()
        .write_all(format!("{line}\r\n").as_bytes())
        .ok()?;
    reply(stream)
}

fn message<S: Read + Write>(stream: &mut BufReader<S>, domain: &Domain, require: bool) -> Came {
    let parameter = if require { " REQUIRETLS" } else { "" };
    let lines = [
        format!("MAIL FROM:<a@us.test>{parameter}"),
        format!("RCPT TO:<b@{domain}>"),
        "DATA".to_owned(),
        "Subject: x\r\n\r\nx\r\n.".to_owned(),
    ];
    match lines.iter().all(|line| say(stream, line).is_some()) {
        true => Came::Delivered,
        false => Came::Later,
    }
}

#[test]
fn each_row_gives_the_right_delivery() {
    let rows = rows();
    assert!(rows.len() >= 30);
    let setting = Setting::new(&rows);
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(dir.path(), &setting);
    let mut wrong = Vec::new();
    for row in &rows {
        let domain = Domain::parse(&format!("{}.test", row.name)).unwrap();
        let came = client.send(&domain, row.wish);
        let line = setting.world.delivered();
        let got = line
            .iter()
            .find_map(|line| line.strip_prefix(&format!("b@{domain} ")));
        let (want, where_to) = match row.want {
            Want::Tls(server) => (Came::Delivered, Some(format!("{server:?} tls"))),
            Want::Clear(server) => (Came::Delivered, Some(format!("{server:?} clear"))),
            Want::Defer => (Came::Later, None),
            Want::Bounce => (Came::Never, None),
        };
        if came != want || got != where_to.as_deref() {
            wrong.push(format!(
                "{}: {came:?} {got:?}, not {:?}",
                row.name, row.want
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
