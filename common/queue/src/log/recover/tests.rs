//! Disks that have lost what was not synced, and processes that are no more.

use super::*;
use crate::logging::Logging;
use crate::queue::tests::{claimed, ids, scratch, sealed};
use crate::{Attempt, Intent, Outcome};
use base::{Root, Status};
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const SEGMENT: u64 = 64 * 1024;

fn logging(what: Logging) -> (tempfile::TempDir, Queue) {
    let (dir, queue) = scratch();
    queue.keep_log(what, SEGMENT);
    queue.work_log().unwrap().unwrap();
    (dir, queue)
}

/// Accepted through the log, one batch of the log each.
fn accept(queue: &Queue, lane: Lane, content: &[u8]) -> QueueId {
    let (said, heard) = mpsc::channel();
    queue.commit_soon(vec![sealed(queue, lane, content)], move |done| {
        said.send(done).unwrap();
    });
    heard.recv().unwrap().unwrap()[0]
}

/// A second queue that has only these files of the first one.
fn after_power_loss(from: &Queue, wanted: impl Fn(&Path) -> bool) -> (tempfile::TempDir, Queue) {
    let (dir, queue) = scratch();
    for entry in std::fs::read_dir(from.path()).unwrap() {
        let place = entry.unwrap().file_name();
        for file in std::fs::read_dir(from.path().join(&place)).unwrap() {
            let name = Path::new(&place).join(file.unwrap().file_name());
            if wanted(&name) {
                std::fs::copy(from.path().join(&name), queue.path().join(&name)).unwrap();
            }
        }
    }
    (dir, queue)
}

fn logs(name: &Path) -> bool {
    name.starts_with("log")
}

fn segments(queue: &Queue) -> Vec<std::path::PathBuf> {
    let dir = std::fs::read_dir(queue.path().join("log")).unwrap();
    dir.map(|entry| entry.unwrap().path()).collect()
}

fn content(queue: &Queue, lane: Lane, id: &QueueId) -> Vec<u8> {
    let mut content = Vec::new();
    let entry = claimed(queue, lane, id);
    entry.content().read_to_end(&mut content).unwrap();
    content
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_the_disk_has_lost_is_made_again() {
    let (_dir, queue) = logging(Logging::Accepts);
    let local = accept(&queue, Lane::Local, b"one");
    let relay = accept(&queue, Lane::Relay, &vec![b'x'; 5000]);
    let torn = accept(&queue, Lane::Local, b"three");
    assert_eq!(content(&queue, Lane::Local, &local), b"one");
    let (_after, queue) = after_power_loss(&queue, logs);
    // A name that was on the disk before its data.
    let path = queue.path().join("local").join(torn.as_str());
    std::fs::write(path, b"yubin queue 1\nO").unwrap();
    queue.recover().unwrap();
    assert_eq!(content(&queue, Lane::Local, &local), b"one");
    assert_eq!(content(&queue, Lane::Relay, &relay).len(), 5000);
    assert_eq!(content(&queue, Lane::Local, &torn), b"three");
    assert!(segments(&queue).is_empty());
    queue.recover().unwrap();
    assert_eq!(ids(&queue, Place::Local).len(), 2);
    assert_eq!(ids(&queue, Place::Damaged), []);
}

#[test]
fn cut_anywhere_every_batch_before_the_cut_is_there() {
    let (_dir, queue) = logging(Logging::Accepts);
    let accepted: Vec<_> = (0..6)
        .map(|n| accept(&queue, Lane::Local, &vec![b'x'; 1500 * (n + 1)]))
        .collect();
    let mut file = Vec::new();
    let mut name = None;
    for path in segments(&queue) {
        let bytes = std::fs::read(&path).unwrap();
        if memchr::memmem::find(&bytes, accepted[0].as_str().as_bytes()).is_some() {
            (file, name) = (bytes, Some(path.file_name().unwrap().to_owned()));
        }
    }
    let name = Path::new("log").join(name.unwrap());
    let mut ends: Vec<usize> = accepted
        .iter()
        .map(|id| {
            let at = memchr::memmem::find(&file, id.as_str().as_bytes()).unwrap();
            at / segment::BLOCK * segment::BLOCK
        })
        .collect();
    ends.push(file.len());
    // At the start of each batch, around it, and in the middle of it.
    let cuts = ends
        .windows(2)
        .flat_map(|w| [w[0], w[0] + 1, w[0] + 40, w[0] + 700]);
    for cut in cuts {
        let (_after, new) = after_power_loss(&queue, |_| false);
        let mut torn = file.clone();
        torn[cut..].fill(0);
        std::fs::write(new.path().join(&name), torn).unwrap();
        new.recover().unwrap();
        let whole = ends.iter().skip(1).filter(|end| **end <= cut).count();
        let mut wanted = accepted[..whole].to_vec();
        wanted.sort();
        assert_eq!(ids(&new, Place::Local), wanted, "cut at {cut}");
    }
}

#[test]
fn what_was_finished_does_not_come_back() {
    let (dir, acceptor) = logging(Logging::Accepts);
    let queue = Queue::open(&Root::new(dir.path())).unwrap();
    queue.keep_log(Logging::Works, SEGMENT);
    queue.work_log().unwrap();
    let (gone, stays, moved) = (
        accept(&acceptor, Lane::Local, b"gone"),
        accept(&acceptor, Lane::Local, b"stays"),
        accept(&acceptor, Lane::Local, b"moved"),
    );
    claimed(&queue, Lane::Local, &gone).finish().unwrap();
    claimed(&queue, Lane::Local, &moved)
        .hand_over(Lane::Relay)
        .unwrap();
    queue.flush();
    assert_eq!(ids(&queue, Place::Local), [stays]);
    // Nothing of the lanes is on the disk, but what was moved: that is durable.
    let (_after, new) = after_power_loss(&queue, |name| logs(name) || name.starts_with("relay"));
    new.recover().unwrap();
    assert_eq!(ids(&new, Place::Local), [stays]);
    assert_eq!(ids(&new, Place::Relay), [moved]);
    // Or all is on the disk, but not the removal.
    let (_after, new) = after_power_loss(&queue, |_| true);
    let back = new.path().join("local").join(gone.as_str());
    std::fs::copy(queue.path().join("local").join(stays.as_str()), back).unwrap();
    new.recover().unwrap();
    assert_eq!(ids(&new, Place::Local), [stays]);
}

#[test]
fn notes_of_the_dead_stay_while_messages_of_the_living_need_them() {
    let (dir, acceptor) = logging(Logging::Accepts);
    let root = Root::new(dir.path());
    let gone = accept(&acceptor, Lane::Relay, b"gone");
    let stays = accept(&acceptor, Lane::Relay, b"stays");
    let worker = "log::recover::tests::finishes_one_and_dies";
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", worker, "--nocapture"])
        .env("QUEUE_TEST_ROOT", dir.path())
        .env("QUEUE_TEST_ID", gone.as_str())
        .status()
        .unwrap();
    assert!(status.success());
    let queue = Queue::open(&root).unwrap();
    assert_eq!(ids(&queue, Place::Relay), [stays]);
    for _ in 0..3 {
        queue.recover().unwrap();
        let (_after, new) = after_power_loss(&queue, logs);
        new.recover().unwrap();
        assert_eq!(ids(&new, Place::Relay), [stays]);
    }
    // Its messages are on the disk: the notes go too.
    drop((acceptor, queue));
    let (_after, new) = after_power_loss(&Queue::open(&root).unwrap(), |name| {
        logs(name) && !name.to_string_lossy().contains("accept")
    });
    assert_eq!(segments(&new).len(), 1);
    new.recover().unwrap();
    assert!(segments(&new).is_empty());
}

/// The child process of the test before.
#[test]
fn finishes_one_and_dies() {
    let Some(root) = crash::tests::role() else {
        return;
    };
    let queue = Queue::open(&Root::new(root)).unwrap();
    let id = std::env::var("QUEUE_TEST_ID").unwrap().parse().unwrap();
    claimed(&queue, Lane::Relay, &id).finish().unwrap();
}

#[test]
fn an_announced_append_is_in_the_journal_again() {
    let (dir, acceptor) = logging(Logging::Accepts);
    let queue = Queue::open(&Root::new(dir.path())).unwrap();
    queue.keep_log(Logging::Works, SEGMENT);
    queue.work_log().unwrap();
    let id = accept(&acceptor, Lane::Local, b"x");
    let intent = |recipient| Intent {
        recipient,
        delivery: "d".into(),
        path: "/var/spool/mail/bob".into(),
        offset: 7,
        length: 8,
        checksum: 9,
        note: Vec::new(),
    };
    let mut entry = claimed(&queue, Lane::Local, &id);
    let announced = [0, 1].map(|r| entry.intend(intent(r)).unwrap().unwrap());
    crate::announce(announced.into()).unwrap();
    let attempt = Attempt {
        status: Status::OK,
        reply: "ok".into(),
        host: None,
    };
    let recipient = 1;
    entry
        .record(&[crate::Event::Delivered { recipient, attempt }])
        .unwrap();
    // What was not synced is lost: the journal, or the whole file.
    let (_after, without) = after_power_loss(&queue, logs);
    without.recover().unwrap();
    let found = claimed(&without, Lane::Local, &id);
    assert_eq!(found.recipients()[0].intent, Some(intent(0)));
    assert_eq!(found.recipients()[1].intent, Some(intent(1)));
    // Where it is there nothing is added.
    let (_after, with) = after_power_loss(&queue, |_| true);
    let size = || with.view(&id).unwrap().unwrap().history.len();
    let before = size();
    with.recover().unwrap();
    assert_eq!(size(), before);
    let found = claimed(&with, Lane::Local, &id);
    assert!(matches!(
        found.recipients()[1].outcome,
        Outcome::Delivered { .. }
    ));
}

#[test]
fn a_full_log_is_emptied_and_nothing_waits_for_it() {
    let (_dir, queue) = logging(Logging::Accepts);
    let content = vec![b'x'; 10_000];
    let first = accept(&queue, Lane::Local, &content);
    let mut all = vec![first];
    // More than all segments together hold.
    for _ in 0..150 {
        all.push(accept(&queue, Lane::Local, &content));
    }
    let large = accept(&queue, Lane::Local, &vec![b'y'; 100_000]);
    all.push(large);
    all.sort();
    assert_eq!(ids(&queue, Place::Local), all);
    assert!(segments(&queue).len() <= super::super::keeper::MAX_SEGMENTS);
    // What has been emptied is used again.
    wait_until(|| {
        segments(&queue).iter().any(|path| {
            let generation = segment::generation(&File::open(path).unwrap()).unwrap();
            generation.is_some_and(|generation| generation > 1)
        })
    });
}
