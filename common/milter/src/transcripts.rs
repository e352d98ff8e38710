//! Conversations with a milter that is told what to say.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use base::Status;
use base::config::MilterSocket;
use proptest::prelude::*;

use crate::fake::{Fake, agree, configured, packet, serve};
use crate::reply::{Answer, Modification, Verdict};
use crate::{Changes, Conversation, Trouble};

const MESSAGE: &[u8] = b"Subject: x\r\nTo: a,\r\n b\r\n\r\n";

fn none(_: &str) -> Option<String> {
    None
}

fn refuse(_: Modification) -> std::io::Result<()> {
    panic!("a change")
}

/// A whole session with one message; the first word that is not "go on".
fn run(talk: &mut Conversation, changes: Changes<'_>) -> Result<Verdict, Trouble> {
    let from = Some("192.0.2.1:258".parse().unwrap());
    let go_on = |verdict: &Verdict| *verdict == Verdict::Continue;
    for verdict in [
        talk.connect("mx", from, &none)?,
        talk.helo("mx", &none)?,
        talk.mail(&["<a@b>", "SIZE=1"], &none)?,
        talk.recipient(&["<c@d>"], &none)?,
        talk.data(&none)?,
    ] {
        if !go_on(&verdict) {
            return Ok(verdict);
        }
    }
    talk.content(MESSAGE, &mut &b"body\r\n"[..], &none, changes)
}

#[test]
fn a_session_in_its_order() {
    let mut fake = Fake::with(0, 0, |_| None);
    let mut talk = fake.open().unwrap();
    let values = |name: &str| (name == "j" || name == "i").then(|| format!("of-{name}"));
    let from = Some("192.0.2.1:258".parse().unwrap());
    talk.connect("mx", from, &values).unwrap();
    talk.helo("mx", &none).unwrap();
    talk.mail(&["<a@b>", "SIZE=1"], &values).unwrap();
    talk.recipient(&["<c@d>"], &none).unwrap();
    talk.data(&none).unwrap();
    let verdict = talk.content(MESSAGE, &mut &b"body\r\n"[..], &values, &mut refuse);
    assert_eq!(verdict.unwrap(), Verdict::Continue);
    assert_eq!(talk.unknown("NONSENSE", &none).unwrap(), Verdict::Continue);
    drop(talk);
    let heard = fake.heard();
    let want: [(u8, &[u8]); 16] = [
        (b'D', b"Cj\0of-j\0"),
        (b'C', b"mx\x004\x01\x02192.0.2.1\0"),
        (b'H', b"mx\0"),
        (b'D', b"Mi\0of-i\0"),
        (b'M', b"<a@b>\0SIZE=1\0"),
        (b'R', b"<c@d>\0"),
        (b'T', b""),
        (b'L', b"Subject\0x\0"),
        (b'L', b"To\0a,\n b\0"),
        (b'D', b"Ni\0of-i\0"),
        (b'N', b""),
        (b'B', b"body\r\n"),
        (b'D', b"Ei\0of-i\0"),
        (b'E', b""),
        (b'U', b"NONSENSE\0"),
        (b'Q', b""),
    ];
    let want: Vec<_> = want.map(|(code, data)| (code, data.to_vec())).into();
    assert_eq!(heard, want);
}

#[test]
fn what_is_not_wanted_is_not_sent_and_what_is_not_answered_not_waited_for() {
    for (flags, codes) in [
        (0x1, "HMRTLLNBEQ"),
        (0x37f, "EQ"),
        (0xf_f080, "CHMRTLLNBEQ"),
        (0x20, "CHMRTNBEQ"),
    ] {
        let mut fake = Fake::new(agree(0, flags), move |code, _| {
            let answered = flags & 0xf_f080 == 0 || code == b'E';
            let silent = matches!(code, b'Q' | b'D' | b'A') || !answered;
            Some(if silent {
                Vec::new()
            } else {
                packet(b'c', b"")
            })
        });
        let mut talk = fake.open().unwrap();
        assert_eq!(
            run(&mut talk, &mut refuse).unwrap(),
            Verdict::Continue,
            "{flags:#x}"
        );
        drop(talk);
        assert_eq!(fake.codes(), codes, "{flags:#x}");
    }
}

#[test]
fn who_has_decided_is_asked_no_more() {
    let refused = || packet(b'y', b"550 5.7.1 Not you\0");
    let answer = Verdict::Answer(Answer {
        code: 550,
        status: Some(Status::new(5, 7, 1)),
        text: "Not you".into(),
    });
    // At which step, what it says, what comes of it, and what it heard of two messages.
    for (step, said, verdict, codes) in [
        (b'C', packet(b'a', b""), Verdict::Accept, "CQ"),
        (b'C', packet(b'r', b""), Verdict::Reject, "CQ"),
        (b'H', packet(b'a', b""), Verdict::Accept, "CHQ"),
        (b'M', packet(b'a', b""), Verdict::Accept, "CHMAMQ"),
        (b'M', packet(b't', b""), Verdict::TempFail, "CHMMQ"),
        (b'R', packet(b'a', b""), Verdict::Accept, "CHMRAMRQ"),
        (b'R', packet(b'd', b""), Verdict::Discard, "CHMRMRQ"),
        (b'R', refused(), answer.clone(), "CHMRRAMRRQ"),
        (b'T', refused(), answer.clone(), "CHMRRTMRRTQ"),
        (b'L', packet(b'r', b""), Verdict::Reject, "CHMRRTLMRRTLQ"),
        (
            b'N',
            packet(b'a', b""),
            Verdict::Accept,
            "CHMRRTLLNAMRRTLLNQ",
        ),
        (
            b'B',
            packet(b'd', b""),
            Verdict::Discard,
            "CHMRRTLLNBMRRTLLNBQ",
        ),
        (b'E', refused(), answer.clone(), "CHMRRTLLNBEMRRTLLNBEQ"),
        (b'E', packet(b'4', b""), Verdict::Shutdown, "CHMRRTLLNBEQ"),
    ] {
        let mut fake = Fake::with(0, 0, move |code| (code == step).then(|| said.clone()));
        let mut talk = fake.open().unwrap();
        let mut first = Verdict::Continue;
        let mut note = |verdict: Verdict| {
            if first == Verdict::Continue {
                first = verdict;
            }
        };
        note(talk.connect("mx", None, &none).unwrap());
        note(talk.helo("mx", &none).unwrap());
        for _ in 0..2 {
            note(talk.mail(&["<a@b>"], &none).unwrap());
            let one = talk.recipient(&["<c@d>"], &none).unwrap();
            let refused = matches!(one, Verdict::Answer(_));
            note(one);
            note(talk.recipient(&["<e@f>"], &none).unwrap());
            if !refused {
                note(talk.data(&none).unwrap());
                let mut body = &b"body\r\n"[..];
                note(
                    talk.content(MESSAGE, &mut body, &none, &mut refuse)
                        .unwrap(),
                );
            }
        }
        assert_eq!(first, verdict);
        drop(talk);
        assert_eq!(fake.codes(), codes, "at {}", char::from(step));
    }
}

#[test]
fn a_body_goes_in_pieces_until_it_has_seen_enough() {
    let body = vec![b'x'; 200_000];
    for (flags, sizes) in [
        (0x400, &[65_535][..]),
        (0, &[65_535, 65_535, 65_535, 3_395]),
        (0x1000_0000, &[200_000]),
    ] {
        let said = if flags == 0x400 { b's' } else { b'c' };
        let mut fake = Fake::with(0, flags, move |code| {
            (code == b'B').then(|| packet(said, b""))
        });
        let mut talk = fake.open().unwrap();
        talk.mail(&["<a@b>"], &none).unwrap();
        let verdict = talk.content(b"\r\n", &mut body.as_slice(), &none, &mut refuse);
        assert_eq!(verdict.unwrap(), Verdict::Continue);
        drop(talk);
        let heard = fake.heard();
        let got: Vec<_> = heard
            .iter()
            .filter(|(code, _)| *code == b'B')
            .map(|(_, data)| data.len())
            .collect();
        assert_eq!(got, sizes);
    }
}

/// What `content` gives with a milter that sends this at the end of a message.
fn at_the_end(actions: u32, said: &[&[u8]]) -> (Result<Verdict, Trouble>, Vec<Modification>) {
    let said = said.concat();
    let mut fake = Fake::with(actions, 0, move |code| (code == b'E').then(|| said.clone()));
    let mut talk = fake.open().unwrap();
    talk.mail(&["<a@b>"], &none).unwrap();
    let mut changes = Vec::new();
    let verdict = talk.content(MESSAGE, &mut &b"body\r\n"[..], &none, &mut |change| {
        changes.push(change);
        Ok(())
    });
    (verdict, changes)
}

#[test]
fn changes_come_before_the_verdict() {
    let said = [
        packet(b'p', b""),
        packet(b'h', b"X-A\0b\0"),
        packet(b'-', b"<a@b>\0"),
        packet(b'q', b"odd\0"),
        packet(b'a', b""),
    ]
    .concat();
    let (verdict, changes) = at_the_end(0x1ff, &[&said]);
    assert_eq!(verdict.unwrap(), Verdict::Accept);
    assert_eq!(
        changes,
        [
            Modification::AddHeader {
                name: b"X-A".to_vec(),
                value: b"b".to_vec()
            },
            Modification::RemoveRecipient("<a@b>".into()),
            Modification::Quarantine("odd".into()),
        ]
    );
}

#[test]
fn what_was_not_agreed_ends_the_conversation() {
    let many = packet(b'-', b"<a@b>\0").repeat(10_001);
    let long = packet(b'h', &[&b"X\0"[..], &vec![b'x'; 600_000], b"\0"].concat()).repeat(2);
    let small = packet(b'b', b"").repeat(10_001);
    for (actions, said) in [
        (0x1fe, packet(b'h', b"X-A\0b\0")),
        (0x17f, packet(b'2', b"<a@b>\0NOTIFY=NEVER\0")),
        (0x1ff, packet(b's', b"")),
        (0x1ff, packet(b'O', b"")),
        (0x1ff, packet(b'l', b"\0\0\0\0j\0")),
        (0x1ff, packet(b'y', b"250 yes\0")),
        (0x1ff, b"HTTP/1.0 200 OK\r\n".to_vec()),
        (0x1ff, many),
        (0x1ff, long),
        (0x1ff, small),
    ] {
        let (verdict, _) = at_the_end(actions, &[&said]);
        assert!(matches!(verdict, Err(Trouble::Garbage(_))), "{verdict:?}");
    }
    let (verdict, _) = at_the_end(0, &[&packet(b'f', b"")]);
    assert!(matches!(verdict, Err(Trouble::Failed)), "{verdict:?}");
}

#[test]
fn death_is_noticed_at_every_step() {
    for step in *b"OCHMRTLNBE" {
        let mut fake = Fake::new(agree(0, 0), move |code, _| {
            (code != step).then(|| match code {
                b'D' | b'A' | b'Q' => Vec::new(),
                _ => packet(b'c', b""),
            })
        });
        if step == b'O' {
            fake = Fake::new(packet(b'O', b"\0\0"), |_, _| None);
            assert!(matches!(fake.open(), Err(Trouble::Garbage(_))));
            continue;
        }
        let mut talk = fake.open().unwrap();
        let end = run(&mut talk, &mut refuse);
        assert!(matches!(end, Err(Trouble::Gone)), "{step}: {end:?}");
    }
}

#[test]
fn silence_and_drops_are_waited_for_no_longer_than_agreed() {
    // Nothing, and a packet that never becomes whole.
    for said in [&b""[..], b"\0\0"] {
        let said = said.to_vec();
        let mut fake = Fake::with(0, 0, move |code| (code == b'M').then(|| said.clone()));
        let mut talk = fake.open().unwrap();
        let began = Instant::now();
        let end = talk.mail(&["<a@b>"], &none);
        assert!(matches!(end, Err(Trouble::Late)), "{end:?}");
        assert!(began.elapsed() >= Duration::from_millis(190));
    }
}

#[test]
fn who_is_at_work_is_waited_for() {
    let (ours, its) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut late = its.try_clone().unwrap();
    let thread = std::thread::spawn(move || {
        serve(its, |code, _| match code {
            b'O' => Some(agree(0, 0x37f)),
            b'E' => {
                for said in [b'p', b'p', b'p', b'c'] {
                    std::thread::sleep(Duration::from_millis(250));
                    std::io::Write::write_all(&mut late, &packet(said, b"")).unwrap();
                }
                Some(Vec::new())
            }
            _ => Some(Vec::new()),
        })
    });
    let milter = configured(MilterSocket::Unix("/nowhere".into()));
    let stream = crate::link::Stream::Unix(ours);
    let mut talk = Conversation::over(stream, &milter).unwrap();
    talk.mail(&["<a@b>"], &none).unwrap();
    // A second in all, each wait shorter than its time.
    let verdict = talk.content(b"", &mut &b""[..], &none, &mut refuse);
    assert!(matches!(
        verdict,
        Err(Trouble::Late) | Ok(Verdict::Continue)
    ));
    drop(talk);
    thread.join().unwrap();
}

#[test]
fn macros_may_be_chosen_before_the_terms_or_with_them() {
    let list = b"\0\0\0\x02i\0";
    let before = [packet(b'l', list), agree(0, 0)].concat();
    let with = packet(
        b'O',
        &[&[0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0], &list[..]].concat(),
    );
    for terms in [before, with] {
        let mut fake = Fake::new(terms, |code, _| {
            Some(match code {
                b'D' | b'Q' => Vec::new(),
                _ => packet(b'c', b""),
            })
        });
        let mut talk = fake.open().unwrap();
        talk.mail(&["<a@b>"], &|name| Some(name.into())).unwrap();
        drop(talk);
        assert_eq!(fake.heard().first(), Some(&(b'D', b"Mi\0i\0".to_vec())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever it sends, the session comes to an end.
    #[test]
    fn anything_ends_a_conversation(
        codes in prop::collection::vec(
            (prop::sample::select(b"catrdyspf4hmi+2-ebqlOX".as_slice()), prop::collection::vec(0_u8..4, 0..12)),
            0..12,
        ),
        noise: Vec<u8>,
    ) {
        let mut said: Vec<u8> = codes.iter().flat_map(|(code, data)| packet(*code, data)).collect();
        said.extend(noise);
        let mut sent = false;
        let mut fake = Fake::new(agree(0x1ff, 0), move |_, _| {
            let now = if sent { None } else { Some(said.clone()) };
            sent = true;
            now
        });
        fake.milter.command_timeout = Duration::from_millis(20);
        fake.milter.content_timeout = Duration::from_millis(20);
        if let Ok(mut talk) = fake.open() {
            let (began, mut changes) = (Instant::now(), 0);
            let ended = run(&mut talk, &mut |_| {
                changes += 1;
                Ok(())
            });
            prop_assert!(began.elapsed() < Duration::from_secs(2));
            prop_assert!(changes <= codes.len());
            if let Ok(Verdict::Answer(answer)) = ended {
                prop_assert!((400..600).contains(&answer.code));
            }
        }
    }
}

#[test]
fn both_kinds_of_sockets_are_reached() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let answer = |code, _: &[u8]| (code == b'O').then(|| agree(0, 0));
        serve(unix.accept().unwrap().0, answer);
        serve(tcp.accept().unwrap().0, answer);
    });
    for socket in [
        MilterSocket::Unix(path),
        MilterSocket::Inet("127.0.0.1".into(), port),
    ] {
        Conversation::open(&configured(socket)).unwrap();
    }
    thread.join().unwrap();
    let gone = MilterSocket::Unix(dir.path().join("none"));
    let trouble = Conversation::open(&configured(gone)).unwrap_err();
    assert!(matches!(trouble, Trouble::Io(_)), "{trouble:?}");
}

#[test]
fn a_full_backlog_is_not_waited_for_longer_than_agreed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.sock");
    let _busy = UnixListener::bind(&path).unwrap();
    let mut milter = configured(MilterSocket::Unix(path));
    milter.connect_timeout = Duration::from_millis(100);
    // The standard library's backlog on Linux is bounded by somaxconn; nobody accepts or answers.
    let began = Instant::now();
    let trouble = Conversation::open(&milter).unwrap_err();
    assert!(matches!(trouble, Trouble::Late), "{trouble:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn another_client_follows_on_the_same_connection() {
    let mut fake = Fake::with(0, 0, |_| None);
    let mut talk = fake.open().unwrap();
    for _ in 0..2 {
        run(&mut talk, &mut refuse).unwrap();
        talk = talk.next_client().unwrap();
    }
    drop(talk);
    let heard = fake.heard();
    let codes: String = heard.iter().map(|(code, _)| char::from(*code)).collect();
    let one = "CHMRTLNBE";
    let codes = codes.replace('D', "").replace("LL", "L");
    assert_eq!(codes, format!("{one}K{one}KQ"));
}

/// libmilter hears it behind a message that may go on, and nowhere else.
#[test]
fn who_would_not_hear_it_is_left() {
    let mut fake = Fake::with(0, 0, |_| None);
    let mut talk = fake.open().unwrap();
    run(&mut talk, &mut refuse).unwrap();
    talk.mail(&["<a@b>"], &none).unwrap();
    talk.abort().unwrap();
    assert!(talk.next_client().is_none());
    for (at, verdict) in [(b'C', b'a'), (b'E', b'r'), (b'E', b'd'), (b'H', b'c')] {
        let mut fake = Fake::with(0, 0, move |code| (code == at).then(|| packet(verdict, b"")));
        let mut talk = fake.open().unwrap();
        match at {
            b'H' => {
                talk.connect("one", None, &none).unwrap();
                talk.helo("x", &none).unwrap();
            }
            _ => {
                run(&mut talk, &mut refuse).unwrap();
            }
        }
        assert!(talk.next_client().is_none());
    }
    // An older one knows nothing of it.
    let terms = packet(
        crate::terms::CODE,
        &[4, 0, 0].map(u32::to_be_bytes).concat(),
    );
    let mut fake = Fake::new(terms, |_, _| Some(packet(b'c', b"")));
    let mut talk = fake.open().unwrap();
    run(&mut talk, &mut refuse).unwrap();
    assert!(talk.next_client().is_none());
}
