//! Several at once on one mailbox: deliverers, readers that mark and remove, and a program of
//! others that appends under its own locks. Nothing is lost, doubled or given another's UID.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base::sys::{LockKind, try_ofd_lock};
use store::{Change, Expunge, Flags, Part, Request, Set};

use crate::house::{House, Reader, houses};

const EACH: usize = 25;

fn subject(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    text.lines()
        .find_map(|l| l.strip_prefix("Subject: "))
        .unwrap_or("none")
        .to_owned()
}

/// Takes the dotlock first and the fcntl lock second, as procmail does; waits for each.
fn foreign_append(house: &House, n: usize) {
    let dotlock = house.path("mail/ann.lock");
    let begin = Instant::now();
    while File::options()
        .write(true)
        .create_new(true)
        .open(&dotlock)
        .is_err()
    {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "the dotlock is never free"
        );
        std::thread::sleep(Duration::from_millis(3));
    }
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(house.inbox())
        .unwrap();
    while !try_ofd_lock(&file, LockKind::Exclusive).unwrap() {
        std::thread::sleep(Duration::from_millis(3));
    }
    let text = format!("From eve Sun Nov 22 10:00:00 2026\nSubject: f{n}\n\nfrom eve\n\n");
    file.write_all(text.as_bytes()).unwrap();
    std::fs::remove_file(&dotlock).unwrap();
}

/// Reads everything new, remembers what each UID is, removes every third.
fn read_along(reader: &mut Reader, seen: &mut BTreeMap<u32, String>) {
    reader.poll();
    for uid in reader.uids() {
        let request = Request::Content {
            uid,
            part: Part::Whole,
            offset: 0,
            length: 1 << 20,
        };
        let store::Answer::Content(content) = reader.session.handle(request) else {
            continue;
        };
        let subject = subject(&content.bytes);
        let known = seen.entry(uid).or_insert_with(|| subject.clone());
        assert_eq!(*known, subject, "UID {uid} became another message");
        reader.ask(Request::StoreFlags {
            set: Set::uid(uid),
            change: Change::Add,
            flags: Flags::SEEN,
            keywords: vec![],
        });
    }
    let third = reader
        .uids()
        .into_iter()
        .filter(|uid| uid % 3 == 0)
        .collect::<Vec<_>>();
    for uid in third {
        if seen.contains_key(&uid) {
            reader.ask(Request::Expunge(Expunge::Messages(Set::uid(uid))));
        }
    }
}

fn all_at_once(house: &House, is_mbox: bool) {
    let done = AtomicBool::new(false);
    let mut seen: BTreeMap<u32, String> = BTreeMap::new();
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for name in ["a", "b"] {
            writers.push(scope.spawn(move || {
                for n in 0..EACH {
                    house.deliver(
                        &format!("{name}{n}"),
                        format!("Subject: {name}{n}\r\n\r\nx\r\n").as_bytes(),
                    );
                }
            }));
        }
        if is_mbox {
            writers.push(scope.spawn(|| (0..EACH).for_each(|n| foreign_append(house, n))));
        }
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = BTreeMap::new();
                    let mut reader = house.reader();
                    while !done.load(Ordering::SeqCst) {
                        read_along(&mut reader, &mut seen);
                    }
                    read_along(&mut reader, &mut seen);
                    seen
                })
            })
            .collect();
        writers.into_iter().for_each(|w| w.join().unwrap());
        done.store(true, Ordering::SeqCst);
        for reader in readers {
            for (uid, subject) in reader.join().unwrap() {
                let known = seen.entry(uid).or_insert_with(|| subject.clone());
                assert_eq!(*known, subject, "UID {uid}");
            }
        }
    });
    let left = house.reader().read_all();
    for (uid, content) in &left {
        assert_eq!(seen.get(uid), Some(&subject(content)));
    }
    let subjects: BTreeSet<&String> = seen.values().collect();
    assert_eq!(subjects.len(), seen.len(), "a message had two UIDs");
    let expected = EACH * if is_mbox { 3 } else { 2 };
    assert_eq!(seen.len(), expected, "{subjects:?}");
}

#[test]
fn nothing_is_lost_or_doubled() {
    for (house, is_mbox) in houses().into_iter().zip([true, false]) {
        all_at_once(&house, is_mbox);
    }
}
