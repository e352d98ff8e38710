//! Behind a proxy: whose connection it is, by the PROXY protocol.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tests::foreign::run;
use tests::host::DAEMONS;
use tests::smtp::Smtp;
use tests::{Host, wait_for};

/// The address of the client that a connection is said to come from.
const CLIENT: &str = "203.0.113.7";

fn host(def: &str) -> Host {
    Host::started(&format!(
        "PROXY_FROM=127.0.0.0/8\nGREET_DELAY=0s\nAUTHENTICATION_RESULTS=no\n{def}"
    ))
}

/// Version 2: `command` 0 is LOCAL, 1 is PROXY over TCP and IPv4.
fn v2(command: u8, addresses: &[u8]) -> Vec<u8> {
    let family = if addresses.is_empty() { 0 } else { 0x11 };
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend(length);
    header.extend(addresses);
    header
}

const PROXIED: [u8; 12] = [203, 0, 113, 7, 198, 51, 100, 1, 0x10, 0x00, 0, 25];

fn connected(port: u16, header: &[u8]) -> Smtp {
    let mut smtp = Smtp::silent(port).unwrap();
    smtp.send(header).unwrap();
    smtp
}

/// curl sends version 1, with an address of our choice where it is new enough to be told one.
#[test]
fn curl_comes_through_to_all_three() {
    let mut host = Host::new("PROXY_FROM=127.0.0.0/8\nMY_NETWORKS=127.0.0.0/8\n").with_tls();
    for program in DAEMONS {
        host.launch(program);
    }
    wait_for("all daemons", || {
        let ports = [host.smtp, host.smtps, host.pop3, host.imap];
        let open = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
        ports.iter().all(open).then_some(())
    });
    let message = host.path("home/message");
    std::fs::write(&message, "Subject: by curl\r\n\r\nx\r\n").unwrap();
    let (smtp, pop3, imap) = (host.smtp, host.pop3, host.imap);
    let text = message.to_str().unwrap();
    let curl = |args: &[&str]| {
        let all = [&["-sS", "--max-time", "30", "--haproxy-protocol"], args].concat();
        let out = run("curl", &all, b"");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{args:?}: {said}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let from = [
        "--mail-from",
        "bob@yubin.test",
        "--mail-rcpt",
        "alice@yubin.test",
    ];
    let to = format!("smtp://127.0.0.1:{smtp}");
    curl(&[&from[..], &["-T", text, &to]].concat());
    host.wait_for_mail("alice", 1);
    let tls = format!("smtps://127.0.0.1:{}", host.smtps);
    curl(&[&from[..], &["-k", "-u", "bob:bob", "-T", text, &tls]].concat());
    host.wait_for_mail("alice", 2);
    let url = format!("pop3://127.0.0.1:{pop3}/1");
    assert!(curl(&["-u", "alice:alice", &url]).contains("Subject: by curl"));
    let url = format!("imap://127.0.0.1:{imap}/INBOX;MAILINDEX=2");
    assert!(curl(&["-u", "alice:alice", &url]).contains("Subject: by curl"));
    // Without a header nobody is served.
    let out = run(
        "curl",
        &[
            "-sS",
            "--max-time",
            "30",
            &format!("pop3://127.0.0.1:{pop3}/"),
        ],
        b"",
    );
    assert!(!out.status.success());
}

#[test]
fn the_client_is_who_the_proxy_says() {
    let host = host("MY_NETWORKS='127.0.0.0/8 192.0.2.0/24'\n");
    let text = format!("PROXY TCP4 {CLIENT} 198.51.100.1 4096 25\r\n");
    for (number, header) in [text.into_bytes(), v2(1, &PROXIED)].iter().enumerate() {
        // In one packet with what follows, and octet by octet.
        let mut all = header.clone();
        let mut smtp = connected(host.smtp, &[]);
        if number == 0 {
            smtp.send(&all).unwrap();
        } else {
            for octet in all.drain(..) {
                smtp.send(&[octet]).unwrap();
            }
        }
        assert!(smtp.reply().unwrap().starts_with("220 "));
        assert!(smtp.ask("EHLO client").unwrap().starts_with("250"));
        // The proxy may relay, its client may not.
        let reply = smtp.message("a@b.example", &["x@else.where"], "").unwrap();
        assert!(reply.starts_with("550 5.7.1"), "{reply}");
        smtp.ask("RSET").unwrap();
        let reply = smtp
            .message(
                "a@b.example",
                &["alice@yubin.test"],
                "Subject: x\r\n\r\nx\r\n",
            )
            .unwrap();
        assert!(reply.starts_with("250"), "{reply}");
        let mbox = host.wait_for_mail("alice", number + 1);
        assert!(mbox.contains(&format!("unknown [{CLIENT}]")), "{mbox}");
    }
    let log = host.log();
    assert!(
        log.contains(&format!("connect from unknown[{CLIENT}]")),
        "{log}"
    );
    assert!(
        !log.contains("smtpd: connect from unknown[127.0.0.1]"),
        "{log}"
    );
}

#[test]
fn health_checks_and_what_is_no_header() {
    let host = host("");
    // LOCAL: served in the proxy's name, and not worth a line.
    let mut smtp = connected(host.smtp, &v2(0, &[]));
    assert!(smtp.reply().unwrap().starts_with("220 "));
    assert!(smtp.ask("EHLO x").unwrap().starts_with("250"));
    smtp.ask("QUIT").unwrap();
    // No word at all.
    drop(TcpStream::connect(("127.0.0.1", host.smtp)).unwrap());
    // Something else: the end, and a line.
    for bad in ["EHLO x\r\n", "PROXY TCP4 1.2.3.4\r\n", "GET / HTTP/1.1\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", host.smtp)).unwrap();
        stream.write_all(bad.as_bytes()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut said = Vec::new();
        // A reset says the same as an end.
        stream.read_to_end(&mut said).ok();
        assert!(said.is_empty(), "{bad}: {}", said.escape_ascii());
    }
    // Silence.
    let began = Instant::now();
    let mut silent = TcpStream::connect(("127.0.0.1", host.smtp)).unwrap();
    silent
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    silent.write_all(b"PROXY TCP4 ").unwrap();
    assert_eq!(silent.read(&mut [0; 10]).unwrap_or(0), 0);
    assert!(
        began.elapsed() > Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    wait_for("the line in the log", || {
        host.log()
            .contains("proxy 127.0.0.1: no PROXY header in 10 s")
            .then_some(())
    });
    let log = host.log();
    assert!(
        log.contains("proxy 127.0.0.1: no PROXY header: EHLO x"),
        "{log}"
    );
    assert_eq!(log.matches("connect from").count(), 0, "{log}");
    // It serves on.
    let mut smtp = connected(host.smtp, b"PROXY UNKNOWN\r\n");
    assert!(smtp.reply().unwrap().starts_with("220 "));
}

/// inetd: the header comes over the socket that we are given.
#[test]
fn a_single_connection_has_its_header_too() {
    let host = Host::new("PROXY_FROM=127.0.0.0/8\nGREET_DELAY=0s\n");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let child = host
        .command("smtpd")
        .arg("-i")
        .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(
            server,
        )))
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut child = child.unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    client.write_all(&v2(1, &PROXIED)).unwrap();
    let mut greeting = [0; 4];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ");
    client.write_all(b"QUIT\r\n").unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert!(said.contains("\r\n221 "), "{said}");
    assert!(child.wait().unwrap().success());
}

/// swaks says by XCLIENT whose connection it brings.
#[test]
fn swaks_stands_in_for_its_client() {
    let host = Host::started(
        "XCLIENT_FROM=127.0.0.0/8\nMY_NETWORKS='127.0.0.0/8 192.0.2.0/24'\nAUTHENTICATION_RESULTS=no\n",
    );
    let swaks = |args: &[&str]| {
        let server = format!("127.0.0.1:{}", host.smtp);
        let common = ["--server", &server, "--from", "a@b.example"];
        let out = run("swaks", &[&common, args].concat(), b"");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let name = "NAME=mail.b.example PORT=4096 HELO=helo.b.example";
    let address = format!("ADDR={CLIENT} {name}");
    let stranger = ["--xclient", address.as_str()];
    // The proxy may relay; who comes through it may not.
    let said = swaks(&[&stranger[..], &["--to", "x@else.where"]].concat());
    assert!(
        said.contains("550 5.7.1 <x@else.where>: Relay access denied"),
        "{said}"
    );
    let said = swaks(&[&stranger[..], &["--to", "alice@yubin.test"]].concat());
    assert!(said.contains("250 2.0.0 Ok: queued"), "{said}");
    let mbox = host.wait_for_mail("alice", 1);
    let client = format!("(mail.b.example [{CLIENT}])");
    assert!(mbox.contains(&client), "{mbox}");
    let ours = [
        "--xclient",
        "ADDR=IPV6:::ffff:192.0.2.5",
        "--to",
        "x@else.where",
        "--quit-after",
        "RCPT",
    ];
    let said = swaks(&ours);
    assert!(said.contains("250 2.1.5 Ok"), "{said}");
    let login = format!("ADDR={CLIENT} LOGIN=bob");
    let bob = [
        "--xclient",
        login.as_str(),
        "--to",
        "x@else.where",
        "--quit-after",
        "RCPT",
    ];
    let said = swaks(&bob);
    assert!(
        said.contains("553 5.7.1 <a@b.example>: Sender address is not yours"),
        "{said}"
    );
    let log = host.log();
    assert!(log.contains(&format!("mail.b.example[{CLIENT}]")), "{log}");
}

/// Who is no proxy hears nothing of it.
#[test]
fn xclient_is_announced_to_proxies_only() {
    let host = Host::started("XCLIENT_FROM=192.0.2.1\n");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    let said = smtp.ask("EHLO x").unwrap();
    assert!(!said.contains("XCLIENT"), "{said}");
    let reply = smtp.ask("XCLIENT ADDR=192.0.2.1").unwrap();
    assert!(reply.starts_with("550 5.7.0"), "{reply}");
}
