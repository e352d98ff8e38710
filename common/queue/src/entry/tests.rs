//! One owner at a time, and what he leaves to the next.

use super::*;
use crate::claim::Claim;
use crate::event::Attempt;
use crate::queue::tests::{claimed, envelope, ids, put, scratch};
use crate::state::Outcome;
use base::Status;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) fn delivered(recipient: usize) -> Event {
    let attempt = Attempt {
        status: Status::OK,
        reply: "ok".into(),
        host: None,
    };
    Event::Delivered { recipient, attempt }
}

pub(crate) fn is_delivered(entry: &Entry, recipient: usize) -> bool {
    matches!(
        entry.recipients()[recipient].outcome,
        Outcome::Delivered { .. }
    )
}

#[test]
fn of_many_claimers_one_wins() {
    let (_dir, queue) = scratch();
    for _ in 0..20 {
        let id = put(&queue, Lane::Local, b"x");
        let wins = AtomicUsize::new(0);
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    loop {
                        match queue.claim(Lane::Local, &id).unwrap() {
                            Claim::Entry(entry) => {
                                wins.fetch_add(1, Ordering::SeqCst);
                                std::thread::sleep(Duration::from_millis(2));
                                entry.finish().unwrap();
                            }
                            Claim::Busy => std::thread::yield_now(),
                            Claim::Gone => break,
                            Claim::Damaged(reason) => panic!("{reason}"),
                        }
                    }
                });
            }
        });
        assert_eq!(wins.into_inner(), 1);
        assert!(matches!(queue.claim(Lane::Local, &id), Ok(Claim::Gone)));
    }
}

#[test]
fn the_journal_and_the_time_are_there_for_the_next_owner() {
    let (_dir, queue) = scratch();
    let id = put(&queue, Lane::Local, b"x");
    let later = SystemTime::now() + Duration::from_secs(3600);
    let mut entry = claimed(&queue, Lane::Local, &id);
    assert!(entry.due() <= SystemTime::now());
    entry.set_due(later).unwrap();
    entry.record_synced(&[delivered(1)]).unwrap();
    assert!(matches!(queue.claim(Lane::Local, &id), Ok(Claim::Busy)));
    drop(entry);
    let entry = claimed(&queue, Lane::Local, &id);
    assert!(is_delivered(&entry, 1) && !is_delivered(&entry, 0));
    let error = later.duration_since(entry.due()).unwrap_or_default();
    assert!(
        error < Duration::from_millis(1),
        "the journal record kept the time"
    );
    assert_eq!(queue.scan(Lane::Local).unwrap()[0].due, entry.due());
}

#[test]
fn a_torn_record_is_cut_off_by_the_next() {
    let (_dir, queue) = scratch();
    let id = put(&queue, Lane::Local, b"x");
    let path = queue.path().join("local").join(id.as_str());
    claimed(&queue, Lane::Local, &id)
        .record(&[delivered(0)])
        .unwrap();
    let entry = claimed(&queue, Lane::Local, &id);
    let end = entry.contents.end;
    drop(entry);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut record = [0; 60];
    file.read_exact_at(&mut record, end - 60).unwrap();
    file.write_all_at(&record, end).unwrap();
    let mut entry = claimed(&queue, Lane::Local, &id);
    entry.record(&[delivered(1)]).unwrap();
    drop(entry);
    let entry = claimed(&queue, Lane::Local, &id);
    assert!(is_delivered(&entry, 0) && is_delivered(&entry, 1));
    assert!(!entry.contents.torn);
}

#[test]
fn the_damaged_goes_to_damaged_and_comes_back_when_it_is_mended() {
    let (_dir, queue) = scratch();
    let id = put(&queue, Lane::Relay, b"hello");
    let path = queue.path().join("relay").join(id.as_str());
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[20] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    assert!(matches!(
        queue.claim(Lane::Relay, &id),
        Ok(Claim::Damaged(_))
    ));
    assert_eq!(ids(&queue, Place::Relay), []);
    assert_eq!(
        std::fs::read(queue.path().join("damaged").join(id.as_str())).unwrap(),
        bad
    );
    assert!(queue.list().unwrap()[0].damage.is_some());
    assert!(queue.release(&id).is_err());
    std::fs::write(queue.path().join("damaged").join(id.as_str()), &good).unwrap();
    assert_eq!(queue.release(&id).unwrap(), Some(Lane::Relay));
    assert_eq!(claimed(&queue, Lane::Relay, &id).size(), 5);
}

#[test]
fn what_is_no_file_is_put_aside_and_what_is_newer_stays() {
    let (_dir, queue) = scratch();
    let lane = queue.path().join("local");
    let new = || QueueId::generate().unwrap();
    let (link, dir, pipe, newer) = (new(), new(), new(), new());
    std::os::unix::fs::symlink("/etc/passwd", lane.join(link.as_str())).unwrap();
    std::fs::create_dir(lane.join(dir.as_str())).unwrap();
    nix::unistd::mkfifo(&lane.join(pipe.as_str()), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(lane.join(newer.as_str()), "yubin queue 7\nwhatever").unwrap();
    for id in [link, dir, pipe] {
        assert!(
            matches!(queue.claim(Lane::Local, &id), Ok(Claim::Damaged(_))),
            "{id}"
        );
    }
    let fail = queue.claim(Lane::Local, &newer).unwrap_err();
    assert!(fail.to_string().contains("version 7"), "{fail}");
    assert_eq!(ids(&queue, Place::Local), [newer]);
    assert_eq!(queue.list().unwrap().len(), 4);
}

#[test]
fn two_who_disagree_hand_it_to_and_fro_slowly() {
    let (_dir, queue) = scratch();
    let id = put(&queue, Lane::Local, b"x");
    let mut lanes = [Lane::Local, Lane::Relay].into_iter().cycle();
    let mut from = lanes.next().unwrap();
    for (turn, to) in lanes.take(5).enumerate() {
        claimed(&queue, from, &id).hand_over(to).unwrap();
        let waits = queue.due(to, &id).unwrap().unwrap() > SystemTime::now();
        assert_eq!(waits, turn >= 3, "{turn}");
        from = to;
    }
}

#[test]
fn handing_over_and_holding_move_it_whole() {
    let (_dir, queue) = scratch();
    let id = put(&queue, Lane::Local, b"x");
    claimed(&queue, Lane::Local, &id)
        .hand_over(Lane::Relay)
        .unwrap();
    assert_eq!(ids(&queue, Place::Local), []);
    let mut entry = claimed(&queue, Lane::Relay, &id);
    entry.record(&[delivered(0)]).unwrap();
    entry.hold("by hand").unwrap();
    assert_eq!(ids(&queue, Place::Relay), []);
    let view = queue.view(&id).unwrap().unwrap();
    assert_eq!(
        (view.place, view.held.as_deref()),
        (Place::Hold, Some("by hand"))
    );
    assert_eq!(queue.release(&id).unwrap(), Some(Lane::Relay));
    assert!(is_delivered(&claimed(&queue, Lane::Relay, &id), 0));
    assert_eq!(queue.release(&id).unwrap(), None);
    assert!(queue.remove(Place::Relay, &id).unwrap());
    assert!(!queue.remove(Place::Relay, &id).unwrap());
}

#[test]
fn a_draft_may_ask_to_be_held() {
    let (_dir, queue) = scratch();
    let origin = Origin::now(Source::Network(crate::Client::default()));
    let envelope = envelope(&["bob@example.org"]);
    let mut draft = queue.draft(Lane::Relay, &envelope, &origin).unwrap();
    draft.write(b"x").unwrap();
    draft.hold("policy of b.example");
    let id = queue.commit(vec![draft.finish().unwrap()]).unwrap()[0];
    assert_eq!(ids(&queue, Place::Relay), [id]);
    assert!(matches!(
        queue.claim(Lane::Relay, &id).unwrap(),
        Claim::Gone
    ));
    let view = queue.view(&id).unwrap().unwrap();
    assert_eq!(
        (view.place, view.held.as_deref()),
        (Place::Hold, Some("policy of b.example"))
    );
    assert_eq!(queue.release(&id).unwrap(), Some(Lane::Relay));
    assert_eq!(claimed(&queue, Lane::Relay, &id).size(), 1);
}
