//! Certificates: ours by the name that a client asks for, and those that users log in by.

use std::fmt::Write as _;
use std::fs;

use tests::foreign::ok;
use tests::logins::{CLIENTS, play, started};
use tests::{Host, wait_for};

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
    play(&host, &format!("{CLIENTS}{script}"));
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
