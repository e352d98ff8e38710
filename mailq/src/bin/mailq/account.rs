//! All that smtpd put aside of one account: `mailq release account=NAME`, `remove`, and `hold`, which
//! puts aside what comes from it from now on.
//!
//! The mark goes first, so that what the account sends meanwhile is not held again behind our back.

use std::process::ExitCode;
use std::time::SystemTime;

use base::escape::escape;
use base::{Fail, Root, Sysexit, privilege, say};
use queue::{Lane, Place, Queue, QueueId, Source, View};
use tally::Tally;

use crate::operate::{PASSES, PAUSE, Verb};

/// The account that the words name instead of messages.
pub(crate) fn named(words: &[String]) -> Option<&str> {
    match words {
        [only] => only.strip_prefix("account="),
        _ => None,
    }
}

/// Does it to the account; a message that fails does not keep the others.
pub(crate) fn run(verb: Verb, login: &str) -> Result<ExitCode, Fail> {
    if login.is_empty() {
        return Err(Fail::usage(
            "whose? write account=NAME, as the user logs in",
        ));
    }
    let root = Root::from_env();
    let queue = Queue::open(&root)?;
    let shown = escape(login);
    let now = SystemTime::now();
    if verb == Verb::Hold {
        let tally = Tally::open(&root)?;
        privilege::drop_to(&root, privilege::QUEUE_USER)?;
        tally.hold_account(login, now);
        say(&format!(
            "account {shown}: what it sends is held from now on"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let tally = Tally::open_if_there(&root)?;
    privilege::drop_to(&root, privilege::QUEUE_USER)?;
    let was_marked = tally.is_some_and(|tally| tally.free_account(login, now));
    let (done, left) = all(&queue, verb, login)?;
    if done == 0 && left.is_empty() && !was_marked {
        let text = format!("account {shown}: nothing is held for it");
        return Err(Fail::new(Sysexit::Unavailable, text));
    }
    let mut worst = ExitCode::SUCCESS;
    for fail in left {
        worst = fail.report();
    }
    let what = match verb {
        Verb::Release => "released",
        Verb::Remove | Verb::Hold => "removed",
    };
    say(&format!(
        "account {shown}: {done} messages {what}, it may send again"
    ));
    Ok(worst)
}

/// Does it to all of its messages: how many, and what failed in the end. What is just being put
/// aside by its lane's owner is waited for.
fn all(queue: &Queue, verb: Verb, login: &str) -> Result<(usize, Vec<Fail>), Fail> {
    let mut done: usize = 0;
    let mut left = Vec::new();
    for _ in 0..PASSES {
        left.clear();
        for (place, id) in held(queue, login)? {
            match one(queue, verb, place, &id) {
                Ok(()) => done = done.saturating_add(1),
                Err(fail) => left.push(fail),
            }
        }
        if left.iter().all(|fail| fail.code() != Sysexit::TempFail) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Ok((done, left))
}

/// The account's messages that were put aside because of its limit, and not for another reason.
fn held(queue: &Queue, login: &str) -> Result<Vec<(Place, QueueId)>, Fail> {
    let reason = tally::account::reason(login);
    let mut found = Vec::new();
    queue.each(|view| {
        if view.held.as_ref() == Some(&reason) && is_from(&view, login) {
            found.push((view.place, view.id));
        }
        true
    })?;
    Ok(found)
}

fn is_from(view: &View, login: &str) -> bool {
    match view.origin.as_ref().map(|origin| &origin.source) {
        Some(Source::Network(client)) => client.login.as_deref() == Some(login),
        _ => false,
    }
}

fn one(queue: &Queue, verb: Verb, place: Place, id: &QueueId) -> Result<(), Fail> {
    let lane = [Lane::Local, Lane::Relay]
        .into_iter()
        .find(|lane| Place::from(*lane) == place);
    if let Some(lane) = lane {
        // It has just come: its maker asks for hold/, and nobody has put it there yet.
        queue.hold(lane, id, "by the operator")?;
    }
    let done = match verb {
        Verb::Release => queue.release(id)?.is_some(),
        Verb::Remove | Verb::Hold => queue.remove(Place::Hold, id)?,
    };
    match done {
        true => Ok(()),
        false => Err(Fail::temp(format!("{id}: has moved; try again"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Envelope, Recipient, ReversePath};
    use queue::{Client, Origin};

    fn put(queue: &Queue, login: &str, reason: &str) -> QueueId {
        let to = Recipient::new("ann@example.org".parse().unwrap());
        let envelope = Envelope::new(ReversePath::Null, vec![to]);
        let origin = Origin::now(Source::Network(Client {
            login: Some(login.into()),
            ..Client::default()
        }));
        let mut draft = queue.draft(Lane::Local, &envelope, &origin).unwrap();
        draft.write(b"a: b\r\n\r\n").unwrap();
        draft.hold(reason);
        let id = *draft.id();
        queue.commit(vec![draft.finish().unwrap()]).unwrap();
        id
    }

    fn aside(queue: &Queue) -> usize {
        let mut n = 0;
        let count = |view: View| {
            n += usize::from(view.held.is_some());
            true
        };
        queue.each(count).unwrap();
        n
    }

    #[test]
    fn words_name_an_account_or_messages() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(Into::into).collect() };
        assert_eq!(named(&words("account=ann")), Some("ann"));
        assert_eq!(named(&words("4F2c1b0000BCDFGHJKLM")), None);
        assert_eq!(named(&words("account=ann account=bob")), None);
    }

    #[test]
    fn only_what_its_limit_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::create(&Root::new(dir.path())).unwrap();
        let over = tally::account::reason("ann");
        for (login, reason) in [
            ("ann", over.as_str()),
            ("ann", over.as_str()),
            ("ann", "by the operator"),
            ("bob", over.as_str()),
        ] {
            put(&queue, login, reason);
        }
        let found = held(&queue, "ann").unwrap();
        assert_eq!(found.len(), 2);
        let [(first, a), (second, b)] = found[..] else {
            panic!()
        };
        one(&queue, Verb::Release, first, &a).unwrap();
        assert_eq!(held(&queue, "ann").unwrap().len(), 1);
        one(&queue, Verb::Remove, second, &b).unwrap();
        assert_eq!(held(&queue, "ann").unwrap(), []);
        assert_eq!(aside(&queue), 2);
        assert_eq!(queue.scan(Lane::Local).unwrap().len(), 3);
    }
}
