//! Other programs read and write the same files.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use base::sys::{self, LockKind};
use store::{Answer, Change, Expunge, Flags, Keyword, Part, Request, Set, Why};

use crate::house::{House, folder, houses, select};

/// As procmail appends.
fn append(house: &House, text: &str) {
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(house.inbox())
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

const FROM: &str = "From bob@example.org Sun Nov 22 10:00:00 2026\n";

/// As mutt writes a mailbox back: the same inode, Status fields made anew at the end of each
/// header, messages that `drop` names left out.
fn mutt(house: &House, drop: &[usize], seen: bool) {
    let text = fs::read_to_string(house.inbox()).unwrap();
    let mut out = String::new();
    let starts: Vec<usize> = text
        .match_indices("From bob@")
        .map(|(at, _)| at)
        .chain([text.len()])
        .collect();
    for (n, span) in starts.windows(2).enumerate() {
        if drop.contains(&n) {
            continue;
        }
        let message = &text[span[0]..span[1]];
        let (header, body) = message.split_once("\n\n").unwrap();
        let kept: Vec<&str> = header
            .lines()
            .filter(|l| !l.starts_with("Status:") && !l.starts_with("X-Status:"))
            .collect();
        out += &kept.join("\n");
        out += if seen {
            "\nStatus: RO\n\n"
        } else {
            "\nStatus: O\n\n"
        };
        out += body;
    }
    let file = File::options().write(true).open(house.inbox()).unwrap();
    file.write_all_at(out.as_bytes(), 0).unwrap();
    file.set_len(out.len() as u64).unwrap();
}

fn five() -> House {
    let house = House::new("mbox");
    for n in 1..=5 {
        house.deliver(
            &format!("d{n}"),
            format!("Subject: {n}\r\n\r\n{n}\r\n").as_bytes(),
        );
    }
    house
}

#[test]
fn what_others_append_gets_uids_that_last() {
    let house = House::new("mbox");
    append(
        &house,
        &format!("{FROM}Subject: 1\n\none\n\n{FROM}Subject: 2\nStatus: RO\n\ntwo\n\n"),
    );
    let mut reader = house.reader();
    let uids = reader.uids();
    assert_eq!(reader.messages()[1].flags, Flags::SEEN);
    append(&house, &format!("{FROM}Subject: 3\n\n>From three\n\n"));
    assert_eq!(reader.poll().exists, Some(3));
    assert_eq!(reader.uids()[..2], uids);
    assert_eq!(reader.read_all()[2].1, b"Subject: 3\r\n\r\nFrom three\r\n");
    let mut again = house.reader();
    assert_eq!(again.selected.uidvalidity, reader.selected.uidvalidity);
    assert_eq!(again.uids(), reader.uids());
    assert_eq!(again.read_all(), reader.read_all());
}

#[test]
fn uids_and_keywords_survive_what_mutt_does() {
    let house = five();
    let mut reader = house.reader();
    let (uids, all) = (reader.uids(), reader.read_all());
    let keywords = vec![Keyword::new("work").unwrap()];
    let set = Set::uid(uids[3]);
    reader.ask(Request::StoreFlags {
        set,
        change: Change::Add,
        flags: Flags::FLAGGED,
        keywords,
    });
    // It drops the first message, which holds X-IMAPbase, and the last.
    mutt(&house, &[0, 4], true);
    let updates = reader.poll();
    assert_eq!(updates.expunged_uids, [uids[0], uids[4]]);
    assert!(updates.changed.iter().all(|m| m.flags.has(Flags::SEEN)));
    assert_eq!(reader.read_all(), all[1..4]);
    assert_eq!(reader.messages()[2].keywords.len(), 1);
    // What it deleted at the end does not come back as another message.
    house.deliver("d6", b"Subject: 6\r\n\r\n");
    reader.poll();
    assert!(reader.uids()[3] > uids[4]);
    let mut again = house.reader();
    assert_eq!(again.selected.uidvalidity, reader.selected.uidvalidity);
    assert_eq!(again.uids(), reader.uids());
}

#[test]
fn uids_survive_when_mutt_empties_the_mailbox_and_removes_it() {
    let house = five();
    let mut reader = house.reader();
    let last = reader.uids()[4];
    fs::remove_file(house.inbox()).unwrap();
    assert_eq!(reader.poll().expunged.len(), 5);
    house.deliver("d6", b"Subject: 6\r\n\r\n");
    assert_eq!(reader.poll().exists, Some(1));
    assert!(reader.uids()[0] > last);
    assert_eq!(
        house.reader().selected.uidvalidity,
        reader.selected.uidvalidity
    );
}

#[test]
fn a_session_knows_messages_that_lost_their_uid() {
    let house = five();
    let mut reader = house.reader();
    let all = reader.read_all();
    let text = fs::read_to_string(house.inbox()).unwrap();
    let stripped: String = text
        .split_inclusive('\n')
        .filter(|l| !l.starts_with("X-U"))
        .collect();
    fs::write(house.inbox(), stripped).unwrap();
    let updates = reader.poll();
    assert!(
        updates.expunged.is_empty() && updates.exists.is_none(),
        "{updates:?}"
    );
    assert_eq!(reader.read_all(), all);
    assert_eq!(house.reader().read_all(), all);
}

#[test]
fn forged_fields_are_not_believed() {
    let house = House::new("mbox");
    let forged = b"X-IMAPbase: 1 4294967290\r\nX-UID: 4294967290\r\nX-UIDVALIDITY: 1\r\nStatus: RO\r\n\r\nx\r\n";
    house.deliver("d1", forged);
    let mut reader = house.reader();
    assert_eq!(reader.messages()[0].flags, Flags::NONE);
    assert!(reader.uids()[0] < 1000 && reader.selected.uidvalidity > 1000);
    // By a deliverer that lets them through.
    append(
        &house,
        &format!("{FROM}X-UID: 4000000000\nX-UIDVALIDITY: 7\n\nx\n\n"),
    );
    append(
        &house,
        &format!("{FROM}X-UID: 3000000000\nX-IMAPbase: 9 3000000001\n\nx\n\n"),
    );
    reader.poll();
    let uids = reader.uids();
    assert!(uids.len() == 3 && uids[2] < 1000, "{uids:?}");
    // Even in the first message: no room is no reason to stop.
    let house = House::new("mbox");
    append(
        &house,
        &format!("{FROM}X-IMAPbase: 9 4294967295\nX-UID: 4294967295\n\nx\n\n"),
    );
    let mut reader = house.reader();
    assert!(reader.uids()[0] < 1000 && reader.selected.uidvalidity != 9);
    assert_eq!(house.reader().uids(), reader.uids());
}

#[test]
fn dovecots_and_uws_mailboxes_keep_their_uids() {
    let house = House::new("mbox");
    append(
        &house,
        &format!(
            "{FROM}Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n\
             X-IMAP: 1234567890 0000000012 work\nStatus: RO\n\ninternal\n\n\
             {FROM}Subject: a\nX-UID: 5\nStatus: RO\nX-Keywords: work          \n\na\n\n\
             {FROM}Subject: b\nX-UID: 11\nStatus: O\n\nb\n\n"
        ),
    );
    let mut reader = house.reader();
    assert_eq!(
        (reader.selected.uidvalidity, reader.selected.uidnext),
        (1_234_567_890, 13)
    );
    assert_eq!(reader.uids(), [5, 11]);
    assert_eq!(
        reader.messages()[0].keywords,
        [Keyword::new("work").unwrap()]
    );
    house.deliver("d1", b"Subject: c\r\n\r\n");
    reader.poll();
    assert_eq!(reader.uids(), [5, 11, 13]);
    reader.ask(Request::Expunge(Expunge::Messages(Set::all())));
    let text = fs::read_to_string(house.inbox()).unwrap();
    assert!(
        text.contains("X-IMAP: 1234567890 0000000013 work"),
        "{text}"
    );
    assert!(house.reader().uids().is_empty());
}

#[test]
fn no_cache_is_needed_between_any_two_operations() {
    for house in houses() {
        for n in 0..6 {
            house.deliver(&format!("d{n}"), format!("Subject: {n}\r\n\r\n").as_bytes());
            house.forget();
        }
        let known = house.reader().messages();
        for message in &known {
            let mut reader = house.reader();
            house.forget();
            let flags = if message.seq % 2 == 0 {
                Flags::SEEN
            } else {
                Flags::DELETED
            };
            let keywords = vec![Keyword::new(&format!("k{}", message.seq)).unwrap()];
            let set = Set::uid(message.uid);
            reader.ask(Request::StoreFlags {
                set,
                change: Change::Add,
                flags,
                keywords,
            });
            house.forget();
            let now = house.reader().messages();
            let now = &now[message.seq as usize - 1];
            assert_eq!(
                (now.uid, now.flags, now.keywords.len()),
                (message.uid, flags, 1)
            );
        }
        let mut reader = house.reader();
        reader.ask(Request::Expunge(Expunge::Deleted));
        house.forget();
        let left: Vec<u32> = known
            .iter()
            .filter(|m| m.seq % 2 == 0)
            .map(|m| m.uid)
            .collect();
        assert_eq!(house.reader().uids(), left);
    }
}

#[test]
fn what_is_no_mailbox_is_refused_with_its_name() {
    let house = House::new("mbox");
    let elsewhere = house.path("elsewhere");
    fs::write(&elsewhere, "secret").unwrap();
    std::os::unix::fs::symlink(&elsewhere, house.inbox()).unwrap();
    let select = || Request::Select {
        folder: folder("INBOX"),
        read_only: false,
    };
    let Answer::Failed(failed) = house.session().handle(select()) else {
        panic!()
    };
    assert!(failed.text.contains("mail/ann"), "{}", failed.text);
    fs::remove_file(house.inbox()).unwrap();

    fs::write(house.inbox(), "no mbox\n").unwrap();
    let Answer::Failed(failed) = house.session().handle(select()) else {
        panic!()
    };
    assert_eq!(failed.why, Why::Temporary);
    assert!(failed.text.contains("not an mbox"), "{}", failed.text);
    assert_eq!(fs::read(house.inbox()).unwrap(), b"no mbox\n");
}

#[test]
fn a_maildir_that_others_use() {
    let house = House::new("maildir");
    house.deliver("d1", b"Subject: 1\r\n\r\n");
    let mut reader = house.reader();
    // As an old deliverer and as mutt write them.
    fs::write(house.inbox().join("new/1.foreign"), "Subject: 2\n\n2").unwrap();
    fs::write(
        house.inbox().join("cur/2.foreign:2,FS"),
        "Subject: 3\r\n\r\n3\r\n",
    )
    .unwrap();
    assert_eq!(reader.poll().exists, Some(3));
    let all = reader.read_all();
    assert_eq!(all[1].1, b"Subject: 2\r\n\r\n2");
    assert_eq!(all[2].1, b"Subject: 3\r\n\r\n3\r\n");
    assert_eq!(reader.messages()[2].flags, Flags::SEEN.with(Flags::FLAGGED));
    assert_eq!(house.reader().read_all(), all);
    // Another program marks, copies and removes.
    let find = |what: &str| {
        let names = fs::read_dir(house.inbox().join("cur")).unwrap();
        names
            .map(|e| e.unwrap().path())
            .find(|p| p.to_str().unwrap().contains(what))
            .unwrap()
    };
    let marked = find("2.foreign");
    let name = marked.to_str().unwrap();
    fs::rename(&marked, name.replace(":2,FS", ":2,FRS")).unwrap();
    let first = find("1.foreign");
    fs::copy(
        &first,
        first.to_str().unwrap().replace("1.foreign", "3.copy"),
    )
    .unwrap();
    fs::remove_file(find("d1")).unwrap();
    let updates = reader.poll();
    assert_eq!(updates.expunged_uids, [all[0].0]);
    assert!(updates.changed[0].flags.has(Flags::ANSWERED));
    assert_eq!(updates.exists, Some(3));
    let uids = reader.uids();
    assert_eq!(uids[..2], [all[1].0, all[2].0]);
    assert!(uids[2] > uids[1]);
    assert_eq!(house.reader().uids(), uids);
    // Its own file of UIDs lost: the names know them.
    fs::remove_file(house.inbox().join(".uidvalidity")).unwrap();
    let mut again = house.reader();
    assert_eq!(again.selected.uidvalidity, reader.selected.uidvalidity);
    assert_eq!(again.uids(), uids);
}

#[test]
fn a_large_mailbox_is_read_to_its_end_first_and_verified_soon() {
    let house = House::new("mbox");
    let line = "sixty octets of text or so, as they stand in many a message\n".repeat(300);
    let message = |n: usize| format!("{FROM}Subject: {n}\n\n{line}\n");
    let text: String = (0..1000).map(message).collect();
    assert!(text.len() > 17 << 20);
    append(&house, &text);
    let mut reader = house.reader();
    let uids = reader.uids();
    assert_eq!(uids.len(), 1000);
    // What we wrote ourselves is verified, too.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    reader.poll();
    // Another program marks an old message and appends a new one.
    let text = fs::read(house.inbox()).unwrap();
    let find = |what: &[u8], from: usize| {
        from + text[from..]
            .windows(what.len())
            .position(|w| w == what)
            .unwrap()
    };
    let at = find(b"\nStatus: ", find(b"Subject: 500\n", 0)) + 9;
    let file = File::options().write(true).open(house.inbox()).unwrap();
    file.write_all_at(b"RO", at as u64).unwrap();
    append(&house, &message(1000));
    assert_eq!(reader.poll().exists, Some(1001));
    assert_eq!(reader.uids()[..1000], uids);
    let last = reader.uids()[1000];
    assert!(last > uids[999]);
    assert!(reader.whole(last).starts_with(b"Subject: 1000\r\n"));
    assert!(reader.whole(uids[500]).starts_with(b"Subject: 500\r\n"));
    std::thread::sleep(std::time::Duration::from_millis(2100));
    reader.poll();
    assert!(reader.messages()[500].flags.has(Flags::SEEN));
    assert_eq!(house.reader().uids(), reader.uids());
}

/// A reader looked for a UID among records of which the last had none yet, and found nothing.
#[test]
fn messages_are_not_gone_because_another_program_appended() {
    let house = House::new("mbox");
    for n in 1..=10 {
        house.deliver(
            &format!("d{n}"),
            format!("Subject: {n}\r\n\r\n{n}\r\n").as_bytes(),
        );
    }
    let mut reader = house.reader();
    let uids = reader.uids();
    append(
        &house,
        &format!("{FROM}Subject: x\n\none\n\n{FROM}Subject: y\n\ntwo\n\n"),
    );
    for uid in uids {
        let (part, offset, length) = (Part::Whole, 0, 1000);
        let asked = Request::Content {
            uid,
            part,
            offset,
            length,
        };
        let answer = reader.session.handle(asked);
        assert!(matches!(answer, Answer::Content(_)), "{uid}: {answer:?}");
    }
}

/// The copies stayed where the messages could not be removed, and each try made more.
#[test]
fn a_move_that_cannot_remove_leaves_no_copies() {
    let house = House::patient("mbox", "1s");
    house.deliver("d1", b"Subject: 1\r\n\r\n");
    let mut reader = house.reader();
    reader.ask(Request::Create(folder("a")));
    let to_a = Request::Move {
        set: Set::all(),
        to: folder("a"),
    };
    let other = File::open(house.inbox()).unwrap();
    assert!(sys::try_ofd_lock(&other, LockKind::Shared).unwrap());
    match reader.session.handle(to_a.clone()) {
        Answer::Failed(failed) => assert_eq!(failed.why, Why::InUse),
        answer => panic!("{answer:?}"),
    }
    let mut target = house.reader();
    target.selected = select(&mut target.session, "a", false);
    assert_eq!(target.uids(), []);
    drop(other);
    assert!(matches!(reader.ask(to_a), Answer::Copied { .. }));
    assert_eq!(target.poll().exists, Some(1));
}

/// A UID was told that another delivery had got, where another program's X-IMAPbase has no room.
#[test]
fn no_uid_is_told_that_is_not_known() {
    let house = House::new("mbox");
    let mut reader = house.reader();
    reader.ask(Request::Create(folder("a")));
    let path = house.path("yubin-mail/ann/folders/a");
    fs::write(
        &path,
        format!("{FROM}X-IMAPbase: 1700000000 1\nX-UID: 1\nStatus: RO\n\none\n\n"),
    )
    .unwrap();
    let mut again = house.reader();
    for known in 1..4 {
        reader.ask(Request::Append {
            folder: folder("a"),
            flags: Flags::NONE,
            keywords: vec![],
            date: None,
            size: 4,
        });
        reader.ask(Request::AppendData(b"\r\nx\n".to_vec()));
        let Answer::Appended { uid, uidvalidity } = reader.ask(Request::AppendEnd) else {
            panic!()
        };
        again.selected = select(&mut again.session, "a", false);
        assert_eq!(uidvalidity, again.selected.uidvalidity);
        let uids = again.uids();
        assert_eq!(uids.len(), known + 1);
        assert!(uid == 0 || uid == *uids.last().unwrap(), "{uid} {uids:?}");
    }
}

/// The UIDs above the last one of a file from a backup were given out again.
#[test]
fn a_mailbox_from_a_backup_gives_no_uid_again() {
    for by_delivery in [true, false] {
        let house = five();
        let backup = fs::read(house.inbox()).unwrap();
        house.deliver("d6", b"Subject: 6\r\n\r\n");
        let mut reader = house.reader();
        let uids = reader.uids();
        assert_eq!(uids, [1, 2, 3, 4, 5, 6]);
        fs::write(house.inbox(), backup).unwrap();
        let mut new = Vec::new();
        for n in [7, 8] {
            if by_delivery {
                house.deliver(&format!("d{n}"), format!("Subject: {n}\r\n\r\n").as_bytes());
            } else {
                append(&house, &format!("{FROM}Subject: {n}\n\n\n"));
            }
            let updates = reader.poll();
            assert_eq!(updates.exists.map(|_| ()), Some(()));
            new.push(*reader.uids().last().unwrap());
        }
        assert!(new[0] > 6 && new[1] == new[0] + 1, "{new:?}");
        assert_eq!(reader.uids()[..5], uids[..5]);
        let again = house.reader();
        assert_eq!(again.selected.uidvalidity, reader.selected.uidvalidity);
        assert_eq!(again.selected.uidnext, new[1] + 1);
    }
}
