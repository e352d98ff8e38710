//! What a milter says, and what it does to a header.
//!
//! An input is what a milter sends: its terms, where it begins with them, and then packets.

use milter::edit::{self, Header};
use milter::packet::{self, Packet};
use milter::reply::{Modification, Reply, Verdict};
use milter::terms::{self, Terms};

/// What is asserted: packets are found in whatever pieces they come; an answer for a client is a reply
/// and nothing else; whatever fields are added, put between and changed, the header stays one: its lines
/// end in CRLF, the empty line is its last, and what is behind it stays there.
pub fn milter(input: &[u8]) {
    let above = b"Received: from a\r\n\tby b\r\n".to_vec();
    let own = b"From: a@b.example\r\nSubject: x\r\n y\r\nSubject: z\r\n\r\n".to_vec();
    let mut header = Header::new(above, own);
    let mut agreed: Option<Terms> = None;
    let mut rest = input;
    while let Ok(Some((packet, length))) = packet::first(rest) {
        assert!(length <= rest.len() && packet.data.len() + 5 == length);
        assert_eq!(packet::first(&rest[..length - 1]), Ok(None));
        let mut again = Vec::new();
        packet::write(packet.code, &[packet.data], &mut again);
        assert_eq!(again, &rest[..length]);
        rest = &rest[length..];
        if packet.code == terms::CODE {
            agreed = Terms::parse(packet.data).ok().or(agreed);
        } else if let Ok(reply) = Reply::parse(packet) {
            heard(&reply, packet, agreed.as_ref(), &mut header);
        }
    }
    sound(&header);
    header.end();
    sound(&header);
    let (above, own) = header.into_parts();
    assert!(mime::header::body_start(&above) == above.len());
    assert!(
        own.ends_with(b"\r\n\r\n") || own == b"\r\n",
        "{}",
        own.escape_ascii()
    );
}

fn heard(reply: &Reply, packet: Packet<'_>, agreed: Option<&Terms>, header: &mut Header) {
    if let Some(terms) = agreed {
        assert!(terms.most_data() < packet::MAX);
    }
    let change = match reply {
        Reply::Verdict(Verdict::Answer(answer)) => {
            assert!((400..600).contains(&answer.code));
            let class = answer.code / 100;
            assert!(answer.status.is_none_or(|s| u16::from(s.class()) == class));
            assert!(!answer.text.chars().any(|c| c.is_control() && c != '\n'));
            return;
        }
        Reply::Modify(change) => change,
        _ => return,
    };
    // An octet that is no UTF-8 is kept as three.
    assert!(change.octets() <= 3 * packet.data.len());
    let field = |name: &[u8], value: &[u8]| {
        let spaced = agreed.is_some_and(Terms::leading_space);
        let field = edit::field(name, value, spaced).ok()?;
        assert_eq!(
            mime::header::fields(&field).count(),
            1,
            "{}",
            field.escape_ascii()
        );
        Some(field)
    };
    match change {
        Modification::AddHeader { name, value } => {
            if let Some(field) = field(name, value) {
                header.add(&field);
            }
        }
        Modification::InsertHeader { index, name, value } => {
            if let Some(field) = field(name, value) {
                header.insert(*index, &field);
            }
        }
        Modification::ChangeHeader { index, name, value } if value.is_empty() => {
            header.change(*index, name, None);
        }
        Modification::ChangeHeader { index, name, value } => {
            if let Some(field) = field(name, value) {
                header.change(*index, name, Some(&field));
            }
        }
        Modification::AddRecipient { address, args }
        | Modification::ChangeSender { address, args } => {
            let words = [Some(address), args.as_ref()];
            assert!(words.into_iter().flatten().all(|w| !w.contains('\0')));
        }
        _ => {}
    }
}

fn sound(header: &Header) {
    let shown = header.shown();
    assert_eq!(mime::header::body_start(&shown), shown.len());
    let ends = shown.windows(2).filter(|w| w == b"\r\n").count();
    assert_eq!(
        shown.iter().filter(|b| matches!(b, b'\r' | b'\n')).count(),
        2 * ends
    );
    assert!(!shown.contains(&0));
}
