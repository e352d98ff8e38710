//! The whole session under bytes that nobody sane sends, in whatever pieces they come.
//!
//! An input is a line that says how, and then what the client says. How: letters for the world (see
//! [`world`]), a blank, and the lengths of the pieces (see [`crate::fuzz::Pieces`]). In what the client
//! says, [`TURN`], [`SILENCE`], [`GONE`] and [`DRAIN`] stand for events. What comes between two of them
//! comes at once where the session is given it whole.

use std::time::Duration;

use account::Mechanism;
use base::Domain;
use base::envelope::Body as BodyType;

use super::fake::{World, admission, client, terms};
use super::{Admission, Client, Input, Terms};
use crate::auth;
use crate::fuzz::{Pieces, check_replies, halves};
use crate::reply;

/// The client waits for the reply.
const TURN: u8 = 0x1e;
/// It says nothing for as long as we wait, or has waited for the greeting.
const SILENCE: u8 = 0x1d;
/// It sends no more.
const GONE: u8 = 0x1c;
/// The daemon ends.
const DRAIN: u8 = 0x1f;

fn is_event(octet: u8) -> bool {
    matches!(octet, TURN | SILENCE | GONE | DRAIN)
}

/// What is asserted of any input:
///
/// * replies are as RFC 5321 4.2 has them, and none comes behind the last word;
/// * the same octets in other pieces get the same replies and make the same messages, but for who
///   speaks out of turn: that is known by what has come together;
/// * a message is accepted once for each `queued as`, only when its end has come, within the limits, and
///   with no line end but CRLF;
/// * nobody relays who is neither of our networks nor logged in;
/// * what waits to be read is no more than the longest line.
///
/// The contents of the messages that were accepted.
pub(crate) fn session(input: &[u8]) -> Vec<Vec<u8>> {
    let (how, what) = halves(input);
    let (letters, lengths) = match how.iter().position(|b| *b == b' ') {
        Some(at) => how.split_at(at),
        None => (how, &b""[..]),
    };
    let whole = play(letters, what, &mut Pieces::whole());
    let split = play(letters, what, &mut Pieces::new(lengths));
    for seen in [&whole, &split] {
        check_replies(&seen.said);
        check_messages(seen, letters, what);
    }
    let contents = |seen: &World| seen.accepted.iter().map(|(_, c)| c.clone()).collect();
    if is_hasty(&whole) {
        let before = match whole.logged.iter().any(|line| is_out_of_turn(line)) {
            true => without_last_line(&whole.said),
            false => &whole.said,
        };
        assert!(
            split.said.starts_with(before),
            "pieces make another beginning"
        );
        assert!(split.taken.starts_with(&whole.taken));
        return contents(&whole);
    }
    assert_eq!(
        whole.said.escape_ascii().to_string(),
        split.said.escape_ascii().to_string(),
        "pieces make another conversation"
    );
    assert_eq!(whole.taken, split.taken, "pieces make other messages");
    assert_eq!(whole.closed, split.closed);
    assert_eq!(whole.became, split.became);
    assert_eq!(whole.forgotten, split.forgotten);
    assert_eq!(whole.offences, split.offences);
    contents(&whole)
}

/// The world that the letters make; others mean nothing.
fn world(letters: &[u8]) -> World {
    let has = |letter: u8| letters.contains(&letter);
    let plain = terms();
    let terms = Terms {
        mechanisms: match has(b'm') {
            true => vec![Mechanism::Plain],
            false => plain.mechanisms.clone(),
        },
        etrn_domains: match has(b'e') {
            true => Domain::parse("example.org").into_iter().collect(),
            false => Vec::new(),
        },
        ..plain
    };
    let client = Client {
        trusted: has(b't'),
        greet_delay: Duration::from_secs(u64::from(has(b'g'))),
        plaintext_login: has(b'p'),
        submission: has(b's'),
        tls_offered: !has(b'n'),
        xclient: has(b'x'),
        filter: has(b'c'),
        ..client()
    };
    let admission = Admission {
        answer: match has(b'd') {
            true => Err(reply::DENIED),
            false => Ok(()),
        },
        ..admission()
    };
    let mut world = World::made(terms, client, admission);
    world.full = has(b'f');
    if has(b'r') {
        world.data = Err(reply::TRY_LATER);
    }
    world
}

fn play(letters: &[u8], what: &[u8], pieces: &mut Pieces<'_>) -> World {
    let mut world = world(letters);
    for part in what.split_inclusive(|b| is_event(*b)) {
        let (event, bytes) = match part.split_last() {
            Some((&event, bytes)) if is_event(event) => (event, bytes),
            _ => (TURN, part),
        };
        for piece in pieces.of(bytes) {
            if world.closed {
                break;
            }
            world.send(piece);
            let waits = world.pending.len();
            assert!(
                world.session.is_waiting() || waits <= auth::MAX_LINE,
                "{waits} octets wait"
            );
        }
        match event {
            SILENCE => world.happen(Input::Timeout),
            GONE => world.happen(Input::Eof),
            DRAIN => world.happen(Input::Drain),
            _ => {}
        }
    }
    if world.closed {
        let said = world.said.len();
        world.send(b"NOOP\r\nQUIT\r\n");
        world.happen(Input::Timeout);
        assert_eq!(
            said,
            world.said.len(),
            "something is said behind the last word"
        );
    }
    world
}

/// Whether it matters when what came.
fn is_hasty(seen: &World) -> bool {
    seen.spoke_in_the_clear || seen.logged.iter().any(|line| is_out_of_turn(line))
}

fn is_out_of_turn(line: &str) -> bool {
    line.contains("talks before our reply: ")
}

fn without_last_line(said: &[u8]) -> &[u8] {
    let inside = said.get(..said.len().saturating_sub(2)).unwrap_or_default();
    let end = inside.windows(2).rposition(|w| w == b"\r\n");
    said.get(..end.map_or(0, |at| at + 2)).unwrap_or_default()
}

fn check_messages(seen: &World, letters: &[u8], what: &[u8]) {
    let said = String::from_utf8_lossy(&seen.said);
    assert_eq!(said.matches("queued as").count(), seen.accepted.len());
    let terms = terms();
    let sent: Vec<u8> = what.iter().copied().filter(|b| !is_event(*b)).collect();
    // RFC 5321 4.5.2: the dot that begins a line goes, doubled or not.
    let lines: Vec<u8> = sent
        .split_inclusive(|b| *b == b'\n')
        .flat_map(|line| match line.strip_prefix(b".") {
            Some(text) if text != b"\r\n" => text,
            _ => line,
        })
        .copied()
        .collect();
    for (transaction, content) in &seen.accepted {
        assert!(content.len() as u64 <= terms.size_limit);
        assert!((1..=terms.recipient_limit).contains(&transaction.len()));
        let may_relay = letters.contains(&b't') || transaction.login.is_some();
        assert!(may_relay || transaction.relay.is_empty(), "an open relay");
        if transaction.body != BodyType::Binary {
            assert!(content.is_empty() || content.ends_with(b"\r\n"));
            assert_eq!(crate::fuzz::bare_line_ends(content), 0);
        }
        let ended = [content.as_slice(), b".\r\n"].concat();
        let by_data = memchr::memmem::find(&lines, &ended).is_some();
        assert!(
            by_data || has_ended_by_bdat(&sent, content),
            "its end has not come"
        );
    }
}

/// Whether these octets can be those of a message by BDAT: all of them came in this order (but for
/// the CRLF that is added behind a last line without), and so did a LAST.
fn has_ended_by_bdat(sent: &[u8], content: &[u8]) -> bool {
    let mut octets = sent.iter();
    let content = content.strip_suffix(b"\r\n").unwrap_or(content);
    content.iter().all(|wanted| octets.any(|b| b == wanted))
        && sent
            .windows(4)
            .any(|word| word.eq_ignore_ascii_case(b"LAST"))
        && sent
            .windows(4)
            .any(|word| word.eq_ignore_ascii_case(b"BDAT"))
}
