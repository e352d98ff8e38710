//! From `drop/` into the lanes: who sent it, where it goes, and the fields that a message must have
//! when it leaves its author's host (RFC 6409 8): Date, From, Message-ID; with a trace field above
//! them (RFC 5321 4.4). Nothing that is there is changed. What has been through more hosts than
//! HOP_LIMIT allows is qrun's, which bounces it.

use std::io::{BufRead, Read};
use std::time::SystemTime;

use base::date::{self, Date};
use base::{Address, Domain, Fail, LocalPart, ReversePath};
use mime::submitted::{self, Names};
use nix::unistd::{Uid, User};
use queue::{Dropped, Entry, Lane, Source, Verdict};
use rules::Mailer;

use crate::world::World;

/// How much of a message is searched for its header.
const MAX_HEADER: u64 = 256 * 1024;

/// What becomes of a submission, and what is put before its content.
pub(crate) fn judge(
    world: &World,
    dropped: &Dropped,
    content: &mut dyn BufRead,
) -> (Verdict, Vec<u8>) {
    let (host, router) = (&world.host, &world.router);
    if dropped.recipients.is_empty() {
        return (
            Verdict::Refuse {
                reason: "it has no recipient".into(),
            },
            Vec::new(),
        );
    }
    let user = user_name(dropped.uid);
    let Some(author) = author(&user, dropped.uid, router.here()) else {
        return (
            Verdict::Refuse {
                reason: "its sender cannot be named".into(),
            },
            Vec::new(),
        );
    };
    let mut header = Vec::new();
    if content.take(MAX_HEADER).read_to_end(&mut header).is_err() {
        // Copying it meets the same trouble and says which it is.
        header.clear();
    }
    let mut envelope = dropped.envelope(ReversePath::Address(author.clone()));
    // From may be of it.
    envelope.needs.smtputf8 |= !envelope.reverse_path.is_ascii();
    envelope.filter.clone_from(&world.content_filter);
    let ours = |address: &Address| matches!(router.route(address).mailer, Mailer::Local { .. });
    // Whatever is not surely ours goes to the lane that can relay, bounce and hand over.
    let looping = Names::of(&header).count("Received") > world.hop_limit;
    let stays = !looping && envelope.filter.is_none();
    let lane = match stays && envelope.recipients.iter().all(|r| ours(&r.address)) {
        true => Lane::Local,
        false => Lane::Relay,
    };
    let from = envelope.reverse_path.address().unwrap_or(&author);
    let now = SystemTime::now();
    let prologue = prologue(host, dropped.id.as_str(), dropped.uid, from, now, &header);
    log::info!(
        "{}: uid={}, from=<{}>, size={}, nrcpt={}",
        dropped.id,
        dropped.uid,
        envelope.reverse_path,
        dropped.size,
        envelope.recipients.len(),
    );
    (Verdict::Accept { lane, envelope }, prologue)
}

/// Whether a submission has been through too many hosts: it came back here through a program that
/// somebody's mail is piped to, say. Of other entries smtpd has asked this.
pub(crate) fn is_looping(entry: &Entry, hop_limit: usize) -> Result<bool, Fail> {
    if !matches!(entry.origin().source, Source::Submission { .. }) {
        return Ok(false);
    }
    let mut header = Vec::new();
    entry
        .content()
        .take(MAX_HEADER)
        .read_to_end(&mut header)
        .map_err(|e| Fail::io(format!("read message {}", entry.id()), e))?;
    // The one on top is ours.
    Ok(Names::of(&header).count("Received").saturating_sub(1) > hop_limit)
}

/// The name of a Unix user; None for a uid without one, or while nobody can say.
fn user_name(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map(|user| user.name)
}

/// The address of who runs sendmail(1). A name that is no local-part is replaced by the uid.
fn author(name: &Option<String>, uid: u32, here: &Domain) -> Option<Address> {
    let named = name.as_deref().and_then(|name| LocalPart::new(name).ok());
    let local = named.or_else(|| LocalPart::new(&format!("uid{uid}")).ok())?;
    Some(Address::new(local, here.clone()))
}

/// The trace field and what is missing.
fn prologue(
    host: &Domain,
    id: &str,
    uid: u32,
    from: &Address,
    now: SystemTime,
    header: &[u8],
) -> Vec<u8> {
    let date = Date::local(date::unix(now)).rfc5322().to_string();
    let mut out =
        format!("Received: by {host} (yubin, from userid {uid})\r\n\tid {id}; {date}\r\n");
    let from = from.to_string();
    let message_id = format!("{id}@{host}");
    out.push_str(&submitted::missing(header, Some(&from), &date, &message_id));
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(header: &str) -> String {
        let out = prologue(
            &"mail.here.test".parse().unwrap(),
            "ID",
            1000,
            &"ann@here.test".parse().unwrap(),
            SystemTime::UNIX_EPOCH,
            header.as_bytes(),
        );
        let out = String::from_utf8(out).unwrap();
        let (received, rest) = out.split_once("id ID; ").unwrap();
        assert_eq!(
            received,
            "Received: by mail.here.test (yubin, from userid 1000)\r\n\t"
        );
        let names = rest.split_inclusive("\r\n").skip(1);
        names
            .map(|l| l.split(' ').next().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn what_is_missing_is_added_and_nothing_twice() {
        let table = [
            ("Subject: x\r\n\r\nbody", "From: Date: Message-ID:"),
            ("from: a\r\nDATE: b\r\nmessage-id : c\r\n\r\n", ""),
            (
                "X: y\r\n From: no\r\n\r\nFrom: no",
                "From: Date: Message-ID:",
            ),
            (
                "Resent-From: a\r\nFrom: b\r\nResent-Date: c\r\n\r\n",
                "Message-ID:",
            ),
            ("\r\nbody", "From: Date: Message-ID:"),
            ("Subject: only\r\n", "From: Date: Message-ID:"),
            ("body without header\r\n", "From: Date: Message-ID: \r\n"),
            ("", "From: Date: Message-ID: \r\n"),
        ];
        for (header, want) in table {
            assert_eq!(before(header), want, "{header:?}");
        }
    }

    #[test]
    fn every_uid_has_an_address() {
        let here = "here.test".parse().unwrap();
        let table = [
            (Some("ann".to_owned()), "ann@here.test"),
            (Some("a b".to_owned()), "\"a b\"@here.test"),
            (Some("ü".to_owned()), "ü@here.test"),
            (Some("\u{202e}".to_owned()), "uid7@here.test"),
            (None, "uid7@here.test"),
        ];
        for (name, want) in table {
            assert_eq!(author(&name, 7, &here).unwrap().to_string(), want);
        }
    }
}
