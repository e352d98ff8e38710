//! What the stories of hostile clients stand on, and what they all insist on: nothing is queued of what
//! was refused, the log says what came, and the next client is served by the same process.

use std::fs;

use crate::smtp::Smtp;
use crate::{Host, wait_for};

/// A CR or LF alone spoils a message.
pub const BARE: &str =
    "550 5.6.11 Message refused: it has a CR or LF alone, a line ends with CR LF";

/// smtpd alone, for who may relay.
pub fn serving(def: &str) -> Host {
    let mut host = Host::new(def);
    host.start("smtpd");
    host
}

/// Messages in the queue, whole or not.
pub fn entries(host: &Host) -> usize {
    ["incoming", "local", "relay", "hold", "damaged"]
        .iter()
        .flat_map(|lane| fs::read_dir(host.path("var/spool/yubin").join(lane)))
        .flatten()
        .count()
}

/// What all stories end with: so many messages are queued, the log has all these, and the next
/// client is served.
#[track_caller]
pub fn unharmed(host: &mut Host, queued: usize, logged: &[&str]) {
    for text in logged {
        wait_for(&format!("`{text}' in the log"), || {
            host.log().contains(text).then_some(())
        });
    }
    assert!(host.is_running("smtpd"));
    assert_eq!(entries(host), queued);
    let mut next = begun(host);
    next.send(b"BDAT 17 LAST\r\nSubject: next\r\n\r\n").unwrap();
    let reply = next.reply().unwrap();
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    assert_eq!(entries(host), queued + 1);
    assert!(!host.log().contains("panicked"));
}

/// A client that has named its sender and its recipient.
pub fn begun(host: &Host) -> Smtp {
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    for line in [
        "EHLO test",
        "MAIL FROM:<bob@yubin.test>",
        "RCPT TO:<alice@yubin.test>",
    ] {
        let reply = smtp.ask(line).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }
    smtp
}

/// Octets of memory that smtpd has.
pub fn resident(host: &Host) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid("smtpd"))).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kilobytes = line.split_whitespace().nth(1).unwrap();
    kilobytes.parse::<usize>().unwrap() << 10
}
