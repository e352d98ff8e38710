//! Folders and subscriptions.

use store::{Answer, Expunge, Pattern, Request, Set, Why};

use crate::house::{Reader, folder, houses, select};

fn names(reader: &mut Reader, request: Request) -> Vec<(String, bool, bool)> {
    match reader.ask(request) {
        Answer::Folders(list) => list
            .into_iter()
            .map(|f| (f.name.as_str().to_owned(), f.selectable, f.children))
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn why(reader: &mut Reader, request: Request) -> Why {
    match reader.session.handle(request) {
        Answer::Failed(failed) => failed.why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn made_listed_renamed_removed() {
    for house in houses() {
        let mut reader = house.reader();
        reader.ask(Request::Create(folder("a/b/c")));
        reader.ask(Request::Create(folder("../x")));
        let listed: Vec<_> = names(&mut reader, Request::List(Pattern::all()));
        let listed: Vec<(&str, bool, bool)> = listed
            .iter()
            .map(|(n, s, c)| (n.as_str(), *s, *c))
            .collect();
        assert_eq!(
            listed,
            [
                ("INBOX", true, false),
                ("..", false, true),
                ("../x", true, false),
                ("a", false, true),
                ("a/b", false, true),
                ("a/b/c", true, false),
            ]
        );
        assert_eq!(
            why(&mut reader, Request::Create(folder("a/b/c"))),
            Why::Exists
        );
        assert_eq!(
            why(&mut reader, Request::Create(folder("inbox"))),
            Why::Exists
        );
        assert_eq!(
            why(&mut reader, Request::Delete(folder("INBOX"))),
            Why::Cannot
        );
        assert_eq!(
            why(&mut reader, Request::Delete(folder("no"))),
            Why::NoSuchFolder
        );
        assert_eq!(
            why(&mut reader, Request::Status(folder("no"))),
            Why::NoSuchFolder
        );
        let rename = |from: &str, to: &str| Request::Rename {
            from: folder(from),
            to: folder(to),
        };
        assert_eq!(why(&mut reader, rename("a", "a/b/d")), Why::Cannot);
        assert_eq!(why(&mut reader, rename("no", "x")), Why::NoSuchFolder);
        reader.ask(rename("a", "z"));
        let uidvalidity = select(&mut reader.session, "z/b/c", false).uidvalidity;
        reader.ask(Request::Delete(folder("z/b/c")));
        assert_eq!(names(&mut reader, Request::List(Pattern::all())).len(), 3);
        reader.ask(Request::Create(folder("z/b/c")));
        assert!(select(&mut reader.session, "z/b/c", false).uidvalidity > uidvalidity);
    }
}

#[test]
fn renaming_inbox_moves_its_messages() {
    for house in houses() {
        house.deliver("d1", b"Subject: 1\r\n\r\n");
        let mut reader = house.reader();
        reader.ask(Request::Rename {
            from: folder("INBOX"),
            to: folder("old"),
        });
        assert_eq!(reader.poll().expunged, [1]);
        reader.selected = select(&mut reader.session, "old", false);
        assert_eq!(reader.read_all()[0].1, b"Subject: 1\r\n\r\n");
    }
}

#[test]
fn subscriptions_outlive_folders() {
    for house in houses() {
        let mut reader = house.reader();
        for name in ["b", "a/x", "inbox"] {
            reader.ask(Request::Subscribe(folder(name)));
        }
        reader.ask(Request::Unsubscribe(folder("b")));
        let listed = names(&mut reader, Request::Lsub(Pattern::all()));
        assert_eq!(listed[0], ("INBOX".into(), true, false));
        assert_eq!(listed[1], ("a/x".into(), false, false));
        assert_eq!(listed.len(), 2);
    }
}

/// RFC 3501 6.3.9: a level that is not subscribed is shown where `%` ends at it, once.
#[test]
fn levels_of_subscriptions() {
    for house in houses() {
        let mut reader = house.reader();
        for name in ["a", "a/b", "x/y", "x/z/q", "xx"] {
            reader.ask(Request::Subscribe(folder(name)));
        }
        reader.ask(Request::Create(folder("a/b")));
        let mut lsub = |text: &str| {
            let pattern = Pattern::parse(text).unwrap();
            let listed = names(&mut reader, Request::Lsub(pattern)).into_iter();
            listed
                .map(|(n, s, c)| format!("{n} {s} {c}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            lsub("%"),
            ["a false true", "xx false false", "x false true"]
        );
        assert_eq!(lsub("x/%"), ["x/y false false", "x/z false true"]);
        assert_eq!(lsub("a*"), ["a false true", "a/b true false"]);
    }
}

#[test]
fn a_folder_keeps_its_uids_when_it_is_renamed() {
    for house in houses() {
        house.deliver("d1", b"Subject: 1\r\n\r\n");
        let mut reader = house.reader();
        reader.ask(Request::Create(folder("a")));
        for _ in 0..3 {
            reader.ask(Request::Copy {
                set: Set::all(),
                to: folder("a"),
            });
        }
        let before = select(&mut reader.session, "a", false);
        let uids = reader.uids();
        reader.ask(Request::Expunge(Expunge::Messages(Set::uid(uids[0]))));
        reader.ask(Request::Rename {
            from: folder("a"),
            to: folder("b"),
        });
        let after = select(&mut reader.session, "b", false);
        assert_eq!(
            (after.uidvalidity, after.uidnext),
            (before.uidvalidity, before.uidnext)
        );
        assert_eq!(reader.uids(), uids[1..]);
    }
}
