//! A queue file that the first release wrote is read for ever. `version1.queue` is such a file:
//! never make it anew; a later format gets a file and a test of its own.

use std::error::Error;
use std::io::Read;
use std::path::Path;

use base::envelope::{Body, Notify, Ret};
use base::{Root, Status};
use queue::{Claim, Event, Lane, Outcome, Place, Queue, QueueId, Report, Source};

const FILE: &[u8] = include_bytes!("version1.queue");

/// A queue in `dir` with the stored file in its relay lane.
fn stored(dir: &Path) -> Result<(Queue, QueueId), Box<dyn Error>> {
    let queue = Queue::create(&Root::new(dir))?;
    let id = QueueId::parse("0cQ7dY2MZpBzXvTq4kLw")?;
    std::fs::write(queue.path().join("relay").join(id.as_str()), FILE)?;
    Ok((queue, id))
}

#[test]
fn a_stored_file_of_version_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, id) = stored(dir.path()).unwrap();
    let Claim::Entry(entry) = queue.claim(Lane::Relay, &id).unwrap() else {
        panic!("not claimed");
    };
    let Source::Network(client) = &entry.origin().source else {
        panic!("{:?}", entry.origin());
    };
    assert_eq!(client.ip, Some("192.0.2.7".parse().unwrap()));
    assert_eq!(
        (client.helo.as_str(), client.protocol.as_str()),
        ("client.example.org", "ESMTPSA")
    );
    assert_eq!(
        (client.name.as_deref(), client.login.as_deref()),
        (Some("c.example.org"), Some("ann"))
    );
    let envelope = entry.envelope();
    assert_eq!(envelope.reverse_path.to_string(), "ann@example.org");
    assert_eq!(
        (envelope.body, envelope.ret),
        (Body::EightBitMime, Some(Ret::Headers))
    );
    assert_eq!(envelope.envid.as_deref(), Some("QQ314159"));
    let names: Vec<_> = envelope
        .recipients
        .iter()
        .map(|r| r.address.to_string())
        .collect();
    assert_eq!(
        names,
        ["bob@example.net", "eve@example.net", "list@example.com"]
    );
    assert_eq!(envelope.recipients[0].notify, Notify::Never);
    assert_eq!(
        envelope.recipients[1].orcpt.as_deref(),
        Some("rfc822;eve@example.net")
    );
    let mut content = Vec::new();
    entry.content().read_to_end(&mut content).unwrap();
    assert_eq!(
        content,
        b"Subject: version 1\r\n\r\nA body with 8 bits: \xe9\r\n"
    );
}

#[test]
fn its_journal_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, id) = stored(dir.path()).unwrap();
    let view = queue.view(&id).unwrap().unwrap();
    assert_eq!(view.place, Place::Relay);
    let [bob, eve, list] = &view.recipients[..] else {
        panic!("{:?}", view.recipients);
    };
    let Outcome::Delivered { attempt, .. } = &bob.outcome else {
        panic!("{bob:?}");
    };
    assert_eq!(
        (attempt.status, attempt.host.as_deref()),
        (Status::OK, Some("mx.example.net[192.0.2.1]:25"))
    );
    assert!(
        matches!(&eve.outcome, Outcome::Failed { attempt, .. } if attempt.status == Status::NO_MAILBOX)
    );
    assert!(eve.failure_reported && eve.deferrals == 1);
    assert!(matches!(&list.outcome, Outcome::Became { children, .. } if children.len() == 2));
    assert_eq!(view.history.len(), 7);
    assert!(view.history.iter().all(|record| record.by == "qrun"));
    assert!(
        matches!(&view.history[1].event, Event::Intent(i) if i.offset == 17 && i.note == [0, 255])
    );
    assert!(matches!(
        &view.history[5].event,
        Event::Reported {
            report: Report::Failure,
            ..
        }
    ));
    assert!(matches!(
        &view.history[6].event,
        Event::HandedOver { lane: Lane::Relay }
    ));
}
