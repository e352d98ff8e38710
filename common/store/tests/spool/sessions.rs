//! What clients do, on both formats.

use store::{Answer, Change, Expunge, Flags, Keyword, Ranges, Request, Set, Status, Why};

use crate::house::{House, Reader, folder, houses, select};

fn store(reader: &mut Reader, uid: u32, change: Change, flags: Flags, keywords: &[&str]) {
    let keywords = keywords.iter().map(|k| Keyword::new(k).unwrap()).collect();
    reader.ask(Request::StoreFlags {
        set: Set::uid(uid),
        change,
        flags,
        keywords,
    });
}

fn append(reader: &mut Reader, to: &str, content: &[u8], flags: Flags, date: i64) -> (u32, u32) {
    reader.ask(Request::Append {
        folder: folder(to),
        flags,
        keywords: vec![Keyword::new("$Label1").unwrap()],
        date: Some(date),
        size: content.len() as u64,
    });
    for piece in content.chunks(5) {
        reader.ask(Request::AppendData(piece.to_vec()));
    }
    match reader.ask(Request::AppendEnd) {
        Answer::Appended { uidvalidity, uid } => (uidvalidity, uid),
        other => panic!("{other:?}"),
    }
}

fn status(reader: &mut Reader, name: &str) -> Status {
    match reader.ask(Request::Status(folder(name))) {
        Answer::Status(status) => status,
        other => panic!("{other:?}"),
    }
}

fn expunge(reader: &mut Reader, which: Expunge) -> Vec<u32> {
    match reader.ask(Request::Expunge(which)) {
        Answer::Updates(updates) => updates.expunged,
        other => panic!("{other:?}"),
    }
}

fn three(house: &House) -> Reader {
    for n in 1..=3 {
        house.deliver(
            &format!("d{n}"),
            format!("Subject: {n}\r\n\r\n{n}\r\n").as_bytes(),
        );
    }
    house.reader()
}

#[test]
fn flags_last_and_others_see_them() {
    for house in houses() {
        let mut one = three(&house);
        let uids = one.uids();
        let mut two = house.reader();
        assert_eq!((one.selected.recent, two.selected.recent), (3, 0));
        assert_eq!(one.selected.uidnext, uids[2] + 1);

        store(
            &mut one,
            uids[1],
            Change::Add,
            Flags::SEEN.with(Flags::FLAGGED),
            &["$Junk"],
        );
        let seen = two.poll();
        assert_eq!(seen.changed.len(), 1);
        assert_eq!(seen.changed[0].flags, Flags::SEEN.with(Flags::FLAGGED));
        assert_eq!(seen.changed[0].keywords, [Keyword::new("$Junk").unwrap()]);
        assert!(seen.keywords.is_some());
        // The one who did it is told of the new keyword only.
        assert!(one.poll().changed.is_empty());
        assert!(one.poll().is_empty());

        store(&mut two, uids[1], Change::Remove, Flags::SEEN, &[]);
        store(
            &mut two,
            uids[0],
            Change::Replace,
            Flags::DRAFT.with(Flags::ANSWERED),
            &["a", "b"],
        );
        let fresh = house.reader().messages();
        assert_eq!(fresh[0].flags, Flags::DRAFT.with(Flags::ANSWERED));
        assert_eq!(fresh[0].keywords.len(), 2);
        assert_eq!(fresh[1].flags, Flags::FLAGGED);
        assert_eq!(one.poll().changed.len(), 2);
    }
}

#[test]
fn numbers_stay_until_an_expunge_may_be_told() {
    for house in houses() {
        let mut one = three(&house);
        let mut two = house.reader();
        let uids = one.uids();
        store(&mut two, uids[0], Change::Add, Flags::DELETED, &[]);
        assert_eq!(expunge(&mut two, Expunge::Deleted), [1]);
        house.deliver("d4", b"Subject: 4\r\n\r\n");

        let Answer::Updates(updates) = one.ask(Request::Poll { expunges: false }) else {
            panic!()
        };
        assert_eq!((updates.exists, updates.expunged.len()), (Some(4), 0));
        assert_eq!(one.uids()[..3], uids[..]);
        let gone = Request::Content {
            uid: uids[0],
            part: store::Part::Whole,
            offset: 0,
            length: 9,
        };
        let Answer::Failed(failed) = one.session.handle(gone) else {
            panic!()
        };
        assert_eq!(failed.why, Why::Gone);
        let updates = one.poll();
        assert_eq!((updates.expunged, updates.exists), (vec![1], None));
        assert_eq!(one.uids().len(), 3);
    }
}

#[test]
fn uids_are_never_given_again_even_when_the_folder_was_empty() {
    for house in houses() {
        let mut reader = three(&house);
        let last = *reader.uids().last().unwrap();
        let validity = reader.selected.uidvalidity;
        assert_eq!(
            expunge(&mut reader, Expunge::Messages(Set::all())),
            [1, 1, 1]
        );
        assert!(house.reader().uids().is_empty());
        house.deliver("d4", b"Subject: 4\r\n\r\n");
        assert_eq!(reader.poll().exists, Some(1));
        assert!(reader.uids()[0] > last);
        let again = house.reader();
        assert_eq!(again.selected.uidvalidity, validity);
    }
}

#[test]
fn append_copy_and_move_give_their_uids() {
    for house in houses() {
        let mut reader = three(&house);
        let uids = reader.uids();
        reader.ask(Request::Create(folder("Work/2026")));
        let date = 1_700_000_000;
        let (validity, uid) = append(
            &mut reader,
            "Work/2026",
            b"A: b\r\n\r\nx",
            Flags::SEEN,
            date,
        );
        let set = Set::Seq(Ranges::new([(2, 3)]).unwrap());
        let copy = Request::Copy {
            set: set.clone(),
            to: folder("Work/2026"),
        };
        let Answer::Copied {
            uidvalidity,
            source,
            copies,
            updates,
        } = reader.ask(copy)
        else {
            panic!()
        };
        assert_eq!((uidvalidity, &source[..]), (validity, &uids[1..]));
        assert!(updates.is_empty() && copies[0] > uid);
        let to = folder("Work/2026");
        let Answer::Copied { updates, .. } = reader.ask(Request::Move { set, to }) else {
            panic!()
        };
        assert_eq!(updates.expunged, [2, 2]);
        assert_eq!(reader.uids(), uids[..1]);

        let is = status(&mut reader, "Work/2026");
        assert_eq!((is.exists, is.unseen, is.uidvalidity), (5, 4, validity));
        reader.selected = select(&mut reader.session, "Work/2026", true);
        let all = reader.read_all();
        assert_eq!(all[0], (uid, b"A: b\r\n\r\nx".to_vec()));
        assert_eq!(
            (all[1].0, &all[1].1[..]),
            (copies[0], &b"Subject: 2\r\n\r\n2\r\n"[..])
        );
        let messages = reader.messages();
        assert_eq!((messages[0].date, messages[0].flags), (date, Flags::SEEN));
        assert_eq!(messages[0].keywords, [Keyword::new("$Label1").unwrap()]);
    }
}

#[test]
fn the_selected_folder_is_a_target_too() {
    for house in houses() {
        let mut reader = three(&house);
        let (_, uid) = append(&mut reader, "INBOX", b"A: b\r\n\r\n", Flags::NONE, 0);
        assert_eq!(reader.poll().exists, Some(4));
        reader.ask(Request::Copy {
            set: Set::uid(uid),
            to: folder("inbox"),
        });
        assert_eq!(reader.poll().exists, Some(5));
        assert_eq!(reader.uids()[3], uid);
        assert_eq!(reader.read_all()[4].1, b"A: b\r\n\r\n");
    }
}

#[test]
fn read_only_changes_nothing() {
    for house in houses() {
        house.deliver("d1", b"Subject: 1\r\n\r\n");
        let mut session = house.session();
        let selected = select(&mut session, "INBOX", true);
        assert_eq!(selected.recent, 1);
        for request in [
            Request::Expunge(Expunge::Messages(Set::all())),
            Request::StoreFlags {
                set: Set::all(),
                change: Change::Add,
                flags: Flags::SEEN,
                keywords: vec![],
            },
            Request::Move {
                set: Set::all(),
                to: folder("INBOX"),
            },
        ] {
            let Answer::Failed(failed) = session.handle(request) else {
                panic!()
            };
            assert_eq!(failed.why, Why::ReadOnly);
        }
        session.handle(Request::Close);
        // Still new to the first who may change it.
        let mut first = house.reader();
        assert_eq!(first.selected.recent, 1);
        assert!(first.messages()[0].recent);
        assert_eq!(house.reader().selected.recent, 0);
    }
}

#[test]
fn an_append_that_is_not_as_announced_is_refused() {
    for house in houses() {
        let mut session = house.session();
        let begin = |size| Request::Append {
            folder: folder("INBOX"),
            flags: Flags::NONE,
            keywords: vec![],
            date: None,
            size,
        };
        let why = |answer| match answer {
            Answer::Failed(failed) => failed.why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(session.handle(Request::AppendEnd)), Why::Bad);
        assert_eq!(why(session.handle(begin(1 << 40))), Why::TooBig);
        session.handle(begin(5));
        assert_eq!(
            why(session.handle(Request::AppendData(vec![0; 6]))),
            Why::Bad
        );
        session.handle(begin(5));
        assert_eq!(why(session.handle(Request::AppendEnd)), Why::Bad);
        assert!(house.reader().uids().is_empty());
    }
}

#[test]
fn a_batch_is_delivered_in_one_go() {
    for house in houses() {
        let mut contents: Vec<std::io::Cursor<Vec<u8>>> = (0..20)
            .map(|n| std::io::Cursor::new(format!("Subject: {n}\r\n\r\n").into_bytes()))
            .collect();
        let new = contents
            .iter_mut()
            .enumerate()
            .map(|(n, c)| store::New::unmarked(c, &format!("b{n}"), ""))
            .collect();
        let pending = store::append::begin(&house.spool, "ann", &folder("INBOX"), new).unwrap();
        assert_eq!(pending.intents().len(), 20);
        pending.commit().unwrap();
        let mut reader = house.reader();
        let all = reader.read_all();
        assert_eq!(all.len(), 20);
        assert_eq!(all[19].1, b"Subject: 19\r\n\r\n");
    }
}

#[test]
fn a_second_login_writes_nothing() {
    for house in houses() {
        let inbox = house.inbox();
        for n in 1..=20 {
            house.deliver(
                &format!("d{n}"),
                format!("A: {n}\r\n\r\n{n}\r\n").as_bytes(),
            );
        }
        if inbox.is_dir() {
            std::fs::write(inbox.join("new/1.foreign"), "A: b\n\nc\n").unwrap();
        } else {
            let mut text = std::fs::read(&inbox).unwrap();
            text.extend(b"From x Sun Nov 22 10:00:00 2026\nA: b\n\nc\n\n");
            std::fs::write(&inbox, text).unwrap();
        }
        let all = house.reader().read_all();
        assert_eq!(all.len(), 21);
        let before = state(&inbox);
        assert_eq!(house.reader().read_all(), all);
        assert_eq!(state(&inbox), before);
    }
}

/// Names, inodes and times of what is there.
fn state(path: &std::path::Path) -> Vec<(std::path::PathBuf, u64, i64, i64, i64)> {
    use std::os::unix::fs::MetadataExt;

    let mut all = Vec::new();
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = std::fs::metadata(&path).unwrap();
        if meta.is_dir() {
            todo.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        let (time, nanos) = (meta.mtime(), meta.mtime_nsec());
        all.push((path, meta.ino(), time, nanos, meta.ctime_nsec()));
    }
    all.sort();
    all
}
