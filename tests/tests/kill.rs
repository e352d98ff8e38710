//! kill -9, two hundred times, under load: nothing that was acknowledged is lost, nothing local
//! comes twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tests::smtp::Smtp;
use tests::{Host, wait_for};

const KILLS: usize = 200;

#[test]
fn survives_two_hundred_kills_under_load() {
    for format in ["mbox", "maildir"] {
        let mut host = Host::started(&format!(
            "MAILBOX_FORMAT={format}\nMIN_BACKOFF=1s\nMAX_BACKOFF=2s\n"
        ));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..4)
            .map(|n| {
                let (port, acknowledged, stop) =
                    (host.smtp, Arc::clone(&acknowledged), Arc::clone(&stop));
                std::thread::spawn(move || {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        count += 1;
                        let mark = format!("mark-{n}-{count}-end");
                        // A connection that breaks was not acknowledged; the next one is new.
                        if let Some(id) = send(port, &mark) {
                            acknowledged.lock().unwrap().push((mark, id));
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                })
            })
            .collect();
        for kill in 0..KILLS / 2 {
            // Deliver is where doubling could happen, so it falls most often.
            let program = ["deliver", "smtpd", "deliver", "qrun", "deliver"][kill % 5];
            std::thread::sleep(Duration::from_millis(10 + (kill as u64 * 37) % 90));
            host.kill9(program);
            host.launch(program);
        }
        stop.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.join().unwrap();
        }
        let acknowledged = Arc::into_inner(acknowledged).unwrap().into_inner().unwrap();
        assert!(
            acknowledged.len() > 50,
            "only {} acknowledged",
            acknowledged.len()
        );
        wait_for("an empty queue", || {
            host.ok("deliver", &["-q"], b"");
            host.ok("mailq", &[], b"")
                .contains("queue is empty")
                .then_some(())
        });
        let counts = marks(&host);
        let mut by_id: HashMap<&str, usize> = HashMap::new();
        for (mark, id) in &acknowledged {
            *by_id.entry(id).or_default() += counts.get(mark).copied().unwrap_or(0);
        }
        let lost: Vec<_> = by_id.iter().filter(|(_, n)| **n == 0).collect();
        let doubled: Vec<_> = counts.iter().filter(|(_, n)| **n > 1).collect();
        assert!(
            lost.is_empty(),
            "{format}: of {} acknowledged, lost: {lost:?}",
            acknowledged.len()
        );
        assert!(doubled.is_empty(), "{format}: doubled: {doubled:?}");
    }
}

/// Sends one message; its queue id when it was acknowledged.
fn send(port: u16, mark: &str) -> Option<String> {
    let mut smtp = Smtp::connect(port).ok()?;
    smtp.ask("EHLO test").ok()?;
    let content = format!("Subject: {mark}\r\n\r\nbody\r\nFrom here on\r\n");
    let reply = smtp
        .message("bob@yubin.test", &["alice@yubin.test"], &content)
        .ok()?;
    reply.starts_with("250").then(|| {
        reply
            .trim()
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .to_owned()
    })
}

/// How often each mark is in alice's mailbox.
fn marks(host: &Host) -> HashMap<String, usize> {
    let inbox = host.path("var/spool/mail/alice");
    let mut text = String::new();
    if inbox.is_dir() {
        for sub in ["new", "cur"] {
            for file in std::fs::read_dir(inbox.join(sub))
                .into_iter()
                .flatten()
                .flatten()
            {
                text.push_str(&String::from_utf8_lossy(
                    &std::fs::read(file.path()).unwrap(),
                ));
            }
        }
    } else {
        text = host.mbox("alice");
    }
    let mut counts = HashMap::new();
    for line in text.lines() {
        if let Some(mark) = line.strip_prefix("Subject: mark-") {
            *counts.entry(format!("mark-{mark}")).or_default() += 1;
        }
    }
    counts
}
