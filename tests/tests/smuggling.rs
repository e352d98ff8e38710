//! A message that is to be taken for two, and commands that are to be taken for those of another.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use tests::Host;
use tests::siege::{BARE, begun, serving, unharmed};

/// What somebody would like to be taken for the end of a message, and whether it spoils it: what has
/// no CR or LF alone is content like any other.
const ENDS: [(&[u8], bool); 20] = [
    (b"\n.\n", true),
    (b"\n.\r\n", true),
    (b"\r\n.\n", true),
    (b"\r.\r", true),
    (b"\r.\r\n", true),
    (b"\r\n.\r", true),
    (b"\n.\r", true),
    (b"\r.\n", true),
    (b"\n\n.\r\n", true),
    (b"\r\r\n.\r\r\n", true),
    (b"\r\n.\r\r\n", true),
    (b"\r\n\r.\r\n", true),
    (b"\r\n.\n\r\n", true),
    (b"\n\0.\r\n", true),
    (b"\r\n\0.\r\n", false),
    (b"\r\n.\0\r\n", false),
    (b"\r\0\n.\r\0\n", true),
    (b"\r\n .\r\n", false),
    (b"\r\n. \r\n", false),
    (b"\r\n\x0b.\r\n", false),
];

const SMUGGLED: &[u8] =
    b"MAIL FROM:<bob@yubin.test>\r\nRCPT TO:<alice@yubin.test>\r\nDATA\r\nSubject: two\r\n\r\ny";

/// A message with another one smuggled into it behind `end`.
fn smuggling(end: &[u8]) -> Vec<u8> {
    [b"Subject: one\r\n\r\nx", end, SMUGGLED, b"\r\n"].concat()
}

#[test]
fn no_end_of_data_but_the_one() {
    let mut host = serving("");
    let mut whole = 0;
    for (end, bare) in ENDS {
        let content = smuggling(end);
        // At once, by octets, and divided at each place of what is to be mistaken.
        let mut ways: Vec<Vec<&[u8]>> = vec![vec![&content], content.chunks(1).collect()];
        for at in 0..end.len() {
            let (head, tail) = content.split_at(17 + at);
            ways.push(vec![head, tail]);
        }
        for way in ways {
            let mut smtp = begun(&host);
            assert!(smtp.ask("DATA").unwrap().starts_with("354"));
            for piece in way {
                smtp.send(piece).unwrap();
            }
            let reply = smtp.ask(".").unwrap();
            if bare {
                assert_eq!(reply.trim_end(), BARE, "{}", end.escape_ascii());
            } else {
                assert!(reply.starts_with("250 "), "{}: {reply}", end.escape_ascii());
                whole += 1;
            }
            // One message, one reply.
            let reply = smtp.ask("MAIL FROM:<bob@yubin.test>").unwrap();
            assert!(reply.starts_with("250 2.1.0"), "{reply}");
        }
    }
    let refused = format!("reject: END-OF-MESSAGE from unknown[127.0.0.1]: {BARE};");
    unharmed(&mut host, whole, &[&refused]);
}

/// RFC 3030 2: with BDAT no dot ends anything, but a CR or LF alone spoils the message all the same,
/// because who gets it from us may read it by DATA.
#[test]
fn no_end_of_data_in_counted_octets() {
    let mut host = serving("");
    let mut whole = 0;
    let ends = ENDS.into_iter().chain([(&b"\r\n.\r\n"[..], false)]);
    for (end, bare) in ends {
        let content = smuggling(end);
        for pieces in [1, 2, content.len() / 3] {
            let mut smtp = begun(&host);
            let mut refused = false;
            let mut chunks = content.chunks(content.len().div_ceil(pieces)).peekable();
            while let Some(chunk) = chunks.next() {
                let last = if chunks.peek().is_none() { " LAST" } else { "" };
                let command = format!("BDAT {}{last}\r\n", chunk.len());
                smtp.send(&[command.as_bytes(), chunk].concat()).unwrap();
                let reply = smtp.reply().unwrap();
                if !reply.starts_with("250") {
                    assert!(bare, "{}: {reply}", end.escape_ascii());
                    assert_eq!(reply.trim_end(), BARE);
                    refused = true;
                    break;
                }
            }
            assert_eq!(refused, bare, "{}", end.escape_ascii());
            whole += usize::from(!bare);
            let reply = smtp.ask("NOOP").unwrap();
            assert!(reply.starts_with("250 2.0.0"), "{reply}");
        }
    }
    unharmed(&mut host, whole, &[]);
}

/// Everything until the connection ends.
fn rest(mut stream: &TcpStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut all = Vec::new();
    // A reset ends it too.
    stream.read_to_end(&mut all).ok();
    String::from_utf8_lossy(&all).into_owned()
}

/// What comes back for these bytes, until the server ends the connection.
fn thrown(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // It may have hung up before the last of it.
    stream.write_all(bytes).ok();
    rest(&stream)
}

/// RFC 3207 4.2
#[test]
fn plaintext_behind_starttls_is_never_read() {
    let mut host = Host::new("").with_tls();
    host.start("smtpd");
    let said = thrown(
        host.smtp,
        b"EHLO a\r\nSTARTTLS\r\nMAIL FROM:<bob@yubin.test>\r\nRCPT TO:<alice@yubin.test>\r\nDATA\r\nx\r\n.\r\n",
    );
    assert!(!said.contains("2.1.0"), "{said}");
    assert!(!said.contains("354"), "{said}");
    unharmed(
        &mut host,
        0,
        &["plaintext after STARTTLS: unknown[127.0.0.1]"],
    );
}

#[test]
fn garbage_where_tls_should_be() {
    let mut host = Host::new("").with_tls();
    host.start("smtpd");
    for garbage in [
        &b"EHLO a\r\nQUIT\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 20_000],
        &[0xff; 20_000],
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x80\x2e\x01\x03\x01",
        b"\x15\x03\x01\x00\x02\x02\x28",
    ] {
        for starttls in [false, true] {
            let port = if starttls { host.smtp } else { host.smtps };
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            if starttls {
                stream.write_all(b"EHLO a\r\nSTARTTLS\r\n").unwrap();
                let mut said = Vec::new();
                while !said.ends_with(b"Ready to start TLS\r\n") {
                    let mut octet = [0];
                    stream.read_exact(&mut octet).unwrap();
                    said.extend_from_slice(&octet);
                }
            }
            stream.write_all(garbage).ok();
            stream.shutdown(Shutdown::Write).ok();
            let said = rest(&stream);
            // An alert at most.
            assert!(said.len() <= 7, "{}: {said:?}", garbage.escape_ascii());
        }
    }
    unharmed(&mut host, 0, &["TLS: handshake: ", ": unknown[127.0.0.1]"]);
}
