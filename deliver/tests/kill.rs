//! `kill -9` at any moment, a hundred times: every message is in the mailbox exactly once.
#![cfg(test)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use base::{Envelope, Recipient, ReversePath, Root};
use queue::{Client, Lane, Origin, Queue, Source};

/// How often the program is killed, and how many messages come in meanwhile.
const KILLS: u32 = 100;
const MESSAGES: u32 = 150;

struct Host {
    dir: tempfile::TempDir,
    queue: Queue,
}

impl Host {
    fn new(format: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let at = |path: &str| root.path(path);
        for path in ["/etc/yubin", "/var/spool/mail", "/var/spool/yubin-mail"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        let config =
            format!("MY_NAME=mx\nMY_DOMAIN=test\nMY_ALIAS=here\nMAILBOX_FORMAT={format}\n");
        fs::write(at("/etc/yubin/yubin.def"), config).unwrap();
        let users: String = ["ann", "bob", "carl"]
            .iter()
            .map(|name| format!("{name}:{{PLAIN}}x:1000:1000::/home/{name}::\n"))
            .collect();
        fs::write(at("/etc/yubin/users"), users).unwrap();
        fs::write(
            at("/etc/aliases"),
            "root: ann\nteam: ann, bob\nteam2: carl, team\n",
        )
        .unwrap();
        let queue = Queue::create(&root).unwrap();
        Self { dir, queue }
    }

    fn path(&self, below: &str) -> PathBuf {
        Root::new(self.dir.path()).path(below)
    }

    /// A message whose number is in its body, at the beginning of a line.
    fn submit(&self, number: u32, to: &[&str]) {
        let recipients = to
            .iter()
            .map(|a| Recipient::new(a.parse().unwrap()))
            .collect();
        let sender = ReversePath::Address("sender@elsewhere.test".parse().unwrap());
        let origin = Origin::now(Source::Network(Client::default()));
        let envelope = Envelope::new(sender, recipients);
        let mut draft = self.queue.draft(Lane::Local, &envelope, &origin).unwrap();
        // A few are long, so that a kill meets a mailbox half written.
        let lines = if number.is_multiple_of(15) {
            100_000
        } else {
            usize::try_from(number % 50).unwrap()
        };
        let filling = "From here on nothing matters.\r\n".repeat(lines);
        let text = format!("Subject: {number}\r\n\r\n{filling}\r\nnumber {number}.\r\n");
        draft.write(text.as_bytes()).unwrap();
        self.queue.commit(vec![draft.finish().unwrap()]).unwrap();
    }

    fn deliver(&self, args: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_deliver"))
            .args(args)
            .env("YUBIN_ROOT", self.dir.path())
            .env("YUBIN_LOG", "error")
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Everything is due, whatever was deferred because of a killed holder's lock.
    fn hasten(&self) {
        for entry in fs::read_dir(self.path("/var/spool/yubin/local")).unwrap() {
            let file = fs::File::options().write(true).open(entry.unwrap().path());
            file.and_then(|f| f.set_modified(SystemTime::now())).ok();
        }
    }

    fn left(&self) -> usize {
        ["local", "relay", "hold", "damaged", "incoming"]
            .map(|lane| {
                fs::read_dir(self.path(&format!("/var/spool/yubin/{lane}")))
                    .unwrap()
                    .count()
            })
            .iter()
            .sum()
    }

    /// How often each number is in a user's mailbox.
    fn numbers(&self, user: &str) -> HashMap<u32, u32> {
        let mut counts = HashMap::new();
        for text in messages(&self.path(&format!("/var/spool/mail/{user}"))) {
            for line in text.lines() {
                let number = line
                    .strip_prefix("number ")
                    .and_then(|n| n.trim_end().strip_suffix('.'));
                if let Some(number) = number.and_then(|n| n.parse().ok()) {
                    *counts.entry(number).or_insert(0) += 1;
                }
            }
        }
        counts
    }
}

/// The texts in a mailbox: one mbox, or the files of a Maildir that are delivered.
fn messages(path: &Path) -> Vec<String> {
    let read =
        |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    if !path.is_dir() {
        return vec![read(path)];
    }
    ["new", "cur"]
        .iter()
        .flat_map(|d| fs::read_dir(path.join(d)).into_iter().flatten())
        .map(|entry| read(&entry.unwrap().path()))
        .collect()
}

/// A number that looks random enough, the same at each run.
fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn exactly_once(format: &str) {
    let host = Host::new(format);
    let mut seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut want: HashMap<&str, Vec<u32>> = HashMap::new();
    let mut sent = 0;
    for kill in 0..KILLS {
        while sent * KILLS < MESSAGES * (kill + 1) {
            sent += 1;
            let (to, users): (&[&str], &[&str]) = match sent % 6 {
                0 => (&["team@here"], &["ann", "bob"]),
                1 => (&["ann@here", "bob@here"], &["ann", "bob"]),
                2 => (&["team2@here"], &["ann", "bob", "carl"]),
                3 => (&["root@here"], &["ann"]),
                4 => (&["carl+x@here"], &["carl"]),
                _ => (&["ann@here"], &["ann"]),
            };
            host.submit(sent, to);
            for user in users {
                want.entry(user).or_default().push(sent);
            }
        }
        host.hasten();
        let mut child = host.deliver(&[]);
        std::thread::sleep(Duration::from_micros(2000 + random(&mut seed) % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let begin = Instant::now();
    while host.left() > 0 {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "{} left in the queue",
            host.left()
        );
        host.hasten();
        assert!(host.deliver(&["-q"]).wait().unwrap().success());
    }
    for user in ["ann", "bob", "carl"] {
        let got = host.numbers(user);
        let want = want.remove(user).unwrap_or_default();
        assert!(!want.is_empty());
        let wrong: Vec<(u32, u32)> = want
            .iter()
            .map(|n| (*n, got.get(n).copied().unwrap_or(0)))
            .filter(|(_, count)| *count != 1)
            .collect();
        assert!(wrong.is_empty(), "{user}: (message, copies) {wrong:?}");
        assert_eq!(got.len(), want.len(), "{user} got something else");
    }
}

#[test]
fn mbox_survives_kill() {
    exactly_once("mbox");
}

#[test]
fn maildir_survives_kill() {
    exactly_once("maildir");
}
