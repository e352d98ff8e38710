//! kill -9, two hundred times for each daemon, under load: nothing that was acknowledged is lost,
//! nothing local comes twice.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tests::host::DAEMONS;
use tests::smtp::Smtp;
use tests::{Host, wait_for};

/// Kills of each daemon, half of them with either kind of mailbox.
const KILLS: usize = 200;

#[test]
fn survives_two_hundred_kills_of_each_daemon_with_mbox() {
    survives("mbox");
}

#[test]
fn survives_two_hundred_kills_of_each_daemon_with_maildir() {
    survives("maildir");
}

/// Marks of messages that were taken: by SMTP's 250 or by sendmail's exit code 0.
type Acknowledged = Arc<Mutex<Vec<String>>>;

fn survives(format: &str) {
    let def = format!("MAILBOX_FORMAT={format}\nMIN_BACKOFF=1s\nMAX_BACKOFF=2s\n");
    let mut host = Host::started(&def);
    let acknowledged = Acknowledged::default();
    let stop = Arc::new(AtomicBool::new(false));
    let mut load: Vec<_> = (0..3)
        .map(|n| by_smtp(n, host.smtp, &acknowledged, &stop))
        .collect();
    load.push(by_sendmail(&host, &acknowledged, &stop));
    load.push(reader(
        host.pop3,
        &["USER alice", "PASS alice", "STAT", "RETR 1", "QUIT"],
        &stop,
    ));
    let imap = [
        "a LOGIN alice alice",
        "b SELECT INBOX",
        "c FETCH 1:5 (FLAGS)",
        "d LOGOUT",
    ];
    load.push(reader(host.imap, &imap, &stop));

    let mut random = Random::new();
    let mut left: Vec<&str> = DAEMONS
        .iter()
        .flat_map(|d| [*d].repeat(KILLS / 2))
        .collect();
    while !left.is_empty() {
        let program = left.swap_remove(random.below(left.len()));
        std::thread::sleep(Duration::from_millis(random.below(60) as u64));
        host.kill9(program);
        host.launch(DAEMONS.into_iter().find(|d| *d == program).unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    for thread in load {
        thread.join().unwrap();
    }
    // Alone on the lane, so that -q tries what a kill made it put off.
    host.stop("deliver");
    wait_for("an empty queue", || {
        host.run("qrun", &["-q"], b"");
        host.run("deliver", &["-q"], b"");
        host.ok("mailq", &[], b"")
            .contains("queue is empty")
            .then_some(())
    });
    let acknowledged = acknowledged.lock().unwrap();
    assert!(
        acknowledged.len() > 200,
        "only {} acknowledged",
        acknowledged.len()
    );
    let counts = marks(&host);
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|m| !counts.contains_key(*m))
        .collect();
    let doubled: Vec<_> = counts.iter().filter(|(_, (_, most))| *most > 1).collect();
    assert!(
        lost.is_empty(),
        "{format}: of {} acknowledged, lost: {lost:?}",
        acknowledged.len()
    );
    assert!(
        doubled.is_empty(),
        "{format}: a queue id came more than once: {doubled:?}"
    );
}

/// One message after the other by SMTP.
fn by_smtp(
    n: usize,
    port: u16,
    acknowledged: &Acknowledged,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (acknowledged, stop) = (Arc::clone(acknowledged), Arc::clone(stop));
    std::thread::spawn(move || {
        for count in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let mark = format!("mark-{n}-{count}-end");
            // A connection that breaks was not acknowledged; the next one is new.
            if send(port, &mark).is_some() {
                acknowledged.lock().unwrap().push(mark);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

fn send(port: u16, mark: &str) -> Option<()> {
    let mut smtp = Smtp::connect(port).ok()?;
    smtp.ask("EHLO test").ok()?;
    let content = format!("Subject: {mark}\r\n\r\nbody\r\nFrom here on\r\n");
    let reply = smtp
        .message("bob@yubin.test", &["alice@yubin.test"], &content)
        .ok()?;
    reply.starts_with("250").then_some(())
}

/// One message after the other by sendmail, which needs no daemon to take one.
fn by_sendmail(host: &Host, acknowledged: &Acknowledged, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (acknowledged, stop) = (Arc::clone(acknowledged), Arc::clone(stop));
    let root = host.root().to_path_buf();
    std::thread::spawn(move || {
        for count in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let mark = format!("mark-s-{count}-end");
            let out = tests::host::feed(
                std::process::Command::new(tests::host::programs().join("sendmail"))
                    .args(["-f", "bob", "alice"])
                    .env("YUBIN_ROOT", &root),
                format!("Subject: {mark}\n\nbody\n").as_bytes(),
            );
            assert!(
                out.status.success(),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
            acknowledged.lock().unwrap().push(mark);
            std::thread::sleep(Duration::from_millis(50));
        }
    })
}

/// A client that reads the mailbox all the time, and does not mind that its server dies.
fn reader(port: u16, commands: &[&'static str], stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (commands, stop) = (commands.to_vec(), Arc::clone(stop));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(30));
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
                continue;
            };
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            for command in &commands {
                stream.write_all(format!("{command}\r\n").as_bytes()).ok();
            }
            // To the end: the last command closes.
            let lines = BufReader::new(stream).split(b'\n');
            lines.take_while(Result::is_ok).for_each(drop);
        }
    })
}

/// For each mark: how many messages have it, and the most that one queue id of it has.
///
/// A client that is not answered may send again, so a mark may come under two queue ids; one queue
/// id comes once. The queue id stands in the Received field.
fn marks(host: &Host) -> HashMap<String, (usize, usize)> {
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
    let mut ids: HashMap<String, HashMap<String, usize>> = HashMap::new();
    let mut id = String::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once(" id ") {
            id = rest.split([' ', ';']).next().unwrap_or_default().to_owned();
        } else if let Some(mark) = line.strip_prefix("Subject: mark-") {
            *ids.entry(format!("mark-{mark}"))
                .or_default()
                .entry(id.clone())
                .or_default() += 1;
        }
    }
    let most =
        |by_id: HashMap<String, usize>| (by_id.len(), by_id.into_values().max().unwrap_or(0));
    ids.into_iter()
        .map(|(mark, by_id)| (mark, most(by_id)))
        .collect()
}

/// Xorshift; each run kills at other moments, and says how it began.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64
            | 1;
        eprintln!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}
