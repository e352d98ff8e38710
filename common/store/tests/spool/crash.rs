//! A crash between any two steps of a delivery: it is there once, whole, and nothing else changed.

use std::fs::{self, File};
use std::io::{Cursor, Write};

use store::append::{begin, redo};
use store::{Expunge, Intent, New, Redo, Request, Set};

use crate::house::{House, folder, houses};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nFrom here\r\nto there\r\n";

fn new<'a>(content: &'a mut Cursor<&'static [u8]>) -> New<'a> {
    New {
        date: 1_700_000_000,
        ..New::unmarked(content, "q1-1", "bob@example.org")
    }
}

/// The intent of a delivery, and the mailbox after it.
fn delivered(house: &House) -> (Intent, Vec<u8>) {
    let mut content = Cursor::new(MESSAGE);
    let pending = begin(
        &house.spool,
        "ann",
        &folder("INBOX"),
        vec![new(&mut content)],
    )
    .unwrap();
    let intent = Intent::decode(&pending.intents()[0].encode()).unwrap();
    pending.commit().unwrap();
    (intent, fs::read(house.inbox()).unwrap())
}

/// After the crash: once there if it was not.
fn finish(house: &House, intent: &Intent) -> Redo {
    let mut content = Cursor::new(MESSAGE);
    let found = redo(&house.spool, intent, &mut new(&mut content)).unwrap();
    if found == Redo::NotThere {
        let mut content = Cursor::new(MESSAGE);
        let again = begin(
            &house.spool,
            "ann",
            &folder("INBOX"),
            vec![new(&mut content)],
        )
        .unwrap();
        again.commit().unwrap();
    }
    found
}

fn count(house: &House) -> usize {
    let all = house.reader().read_all();
    all.iter().filter(|(_, content)| content == MESSAGE).count()
}

#[test]
fn an_append_cut_at_any_octet_is_made_whole_once() {
    let house = House::new("mbox");
    house.deliver("d1", b"Subject: before\r\n\r\n");
    let (intent, whole) = delivered(&house);
    let start = usize::try_from(intent.offset).unwrap();
    assert_eq!(whole.len(), start + usize::try_from(intent.length).unwrap());
    for cut in start..=whole.len() {
        fs::write(house.inbox(), &whole[..cut]).unwrap();
        let found = finish(&house, &intent);
        assert_eq!(found == Redo::Done, cut == whole.len(), "at {cut}");
        assert_eq!(
            (house.reader().uids().len(), count(&house)),
            (2, 1),
            "at {cut}"
        );
    }
}

#[test]
fn what_others_wrote_behind_a_torn_tail_is_not_cut() {
    let house = House::new("mbox");
    house.deliver("d1", b"Subject: before\r\n\r\n");
    let (intent, whole) = delivered(&house);
    let start = usize::try_from(intent.offset).unwrap();
    // Like a deliverer that ends the line it finds open.
    let foreign = b"\nFrom eve@example.org Sun Nov 22 10:00:00 2026\nSubject: eve\n\nhers\n\n";
    for cut in start..whole.len() {
        fs::write(house.inbox(), [&whole[..cut], foreign].concat()).unwrap();
        finish(&house, &intent);
        assert_eq!(count(&house), 1, "at {cut}");
        let all = house.reader().read_all();
        let eve = b"Subject: eve\r\n\r\nhers\r\n";
        assert_eq!(
            all.iter().filter(|(_, content)| content == eve).count(),
            1,
            "at {cut}"
        );
    }
}

#[test]
fn a_finished_append_is_found_wherever_others_moved_it() {
    let house = House::new("mbox");
    house.deliver("d1", b"Subject: before\r\n\r\n");
    house.deliver("d2", b"Subject: before, too\r\n\r\n");
    let (intent, _) = delivered(&house);
    house.deliver("d3", b"Subject: behind\r\n\r\n");
    assert_eq!(finish(&house, &intent), Redo::Done);
    // The user removes the first message and marks ours: it is elsewhere and has another Status.
    let mut reader = house.reader();
    let uids = reader.uids();
    reader.ask(Request::Expunge(Expunge::Messages(Set::uid(uids[0]))));
    let text = fs::read_to_string(house.inbox())
        .unwrap()
        .replace("Status: O ", "Status: RO");
    fs::write(house.inbox(), text).unwrap();
    assert_eq!(finish(&house, &intent), Redo::Done);
    assert_eq!(count(&house), 1);
    // A message that says it is ours and is not.
    reader.poll();
    reader.ask(Request::Expunge(Expunge::Messages(Set::uid(uids[2]))));
    let forged = "From x Sun Nov 22 10:00:00 2026\nSubject: x\nX-Delivery-Id: q1-1\n\nother\n\n";
    let mut file = File::options().append(true).open(house.inbox()).unwrap();
    file.write_all(forged.as_bytes()).unwrap();
    assert_eq!(finish(&house, &intent), Redo::NotThere);
    assert_eq!(count(&house), 1);
}

#[test]
fn a_maildir_delivery_is_found_by_its_name() {
    let house = House::new("maildir");
    let (intent, dir) = {
        let mut content = Cursor::new(MESSAGE);
        let pending = begin(
            &house.spool,
            "ann",
            &folder("INBOX"),
            vec![new(&mut content)],
        )
        .unwrap();
        (pending.intents()[0].clone(), house.inbox())
    };
    // Crash before anything was written, then in the middle of tmp/.
    let name = format!("tmp/{}.q1-1.", 1_700_000_000);
    assert_eq!(finish(&house, &intent), Redo::NotThere);
    assert_eq!(finish(&house, &intent), Redo::Done);
    let file = fs::read_dir(dir.join("new"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let file_name = file.file_name().unwrap().to_str().unwrap();
    let torn = file_name.split(',').next().unwrap();
    assert!(format!("tmp/{torn}").starts_with(&name));
    fs::remove_file(&file).unwrap();
    fs::write(dir.join("tmp").join(torn), "Subj").unwrap();
    assert_eq!(finish(&house, &intent), Redo::NotThere);
    assert_eq!(fs::read_dir(dir.join("tmp")).unwrap().count(), 0);
    // A reader gave it a UID and the user marked it.
    assert_eq!(count(&house), 1);
    assert_eq!(finish(&house, &intent), Redo::Done);
    assert_eq!(count(&house), 1);
}

#[test]
fn a_delivery_that_was_not_committed_leaves_nothing() {
    for house in houses() {
        let mut content = Cursor::new(MESSAGE);
        let pending = begin(
            &house.spool,
            "ann",
            &folder("INBOX"),
            vec![new(&mut content)],
        )
        .unwrap();
        drop(pending);
        assert_eq!(count(&house), 0);
    }
}
