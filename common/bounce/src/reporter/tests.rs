use std::path::Path;

use base::envelope::Notify;
use base::{Root, Status};
use queue::{Attempt, Claim, Origin, Queue, Source};

use super::*;

const MESSAGE: &str = "From: s@far.test\r\nSubject: x\r\n\r\nbody \u{e9}\r\n..dot\r\n";

struct Host {
    _dir: tempfile::TempDir,
    queue: Queue,
    reporter: Reporter,
}

fn host() -> Host {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    let def = "MY_NAME=mail\nMY_DOMAIN=here.test\nMY_ALIAS=here.test\n";
    let config = Config::parse(&root, def, Path::new("yubin.def")).unwrap();
    let queue = Queue::create(&root).unwrap();
    Host {
        _dir: dir,
        queue,
        reporter: Reporter::new(&config),
    }
}

impl Host {
    /// An entry whose recipients all failed.
    fn failed(&self, from: &str, to: &[&str], adjust: impl FnOnce(&mut Envelope)) -> Entry {
        let path = match from {
            "" => ReversePath::Null,
            from => ReversePath::Address(from.parse().unwrap()),
        };
        let to = to
            .iter()
            .map(|a| Recipient::new(a.parse().unwrap()))
            .collect();
        let mut envelope = Envelope::new(path, to);
        adjust(&mut envelope);
        let origin = Origin::now(Source::Submission { uid: 0 });
        let mut draft = self.queue.draft(Lane::Relay, &envelope, &origin).unwrap();
        draft.write(MESSAGE.as_bytes()).unwrap();
        let id = self.queue.commit(vec![draft.finish().unwrap()]).unwrap()[0];
        let mut entry = self.claim(Lane::Relay, &id);
        fail_all(&mut entry);
        entry
    }

    fn claim(&self, lane: Lane, id: &QueueId) -> Entry {
        match self.queue.claim(lane, id).unwrap() {
            Claim::Entry(entry) => *entry,
            other => panic!("{other:?}"),
        }
    }

    fn waiting(&self, lane: Lane) -> Vec<QueueId> {
        self.queue
            .scan(lane)
            .unwrap()
            .iter()
            .map(|l| l.id)
            .collect()
    }

    fn text(&self, lane: Lane, id: &QueueId) -> String {
        let mut text = String::new();
        self.claim(lane, id)
            .content()
            .read_to_string(&mut text)
            .unwrap();
        text
    }
}

fn fail_all(entry: &mut Entry) {
    let events: Vec<_> = (0..entry.recipients().len())
        .map(|recipient| Event::Failed {
            recipient,
            attempt: Attempt {
                status: Status::NO_MAILBOX,
                reply: "550 5.1.1 nobody".into(),
                host: Some("mx.far.test[192.0.2.1]:25".into()),
            },
        })
        .collect();
    entry.record_synced(&events).unwrap();
}

#[test]
fn the_sender_is_told_once_and_gets_his_message_back_untouched() {
    let host = host();
    let mut entry = host.failed("s@here.test", &["a@far.test", "b@far.test"], |_| ());
    let id = host
        .reporter
        .report(&mut entry, About::Failures)
        .unwrap()
        .unwrap();
    assert_eq!(host.waiting(Lane::Local), [id]);
    assert_eq!(
        host.reporter.report(&mut entry, About::Failures).unwrap(),
        None
    );
    assert_eq!(host.waiting(Lane::Local), [id]);
    let text = host.text(Lane::Local, &id);
    assert!(
        text.contains(&format!("\r\n\r\n{MESSAGE}\r\n--=_yubin_")),
        "{text}"
    );
    assert!(text.contains("Content-Transfer-Encoding: 8bit"), "{text}");
    assert!(
        text.contains("<a@far.test>") && text.contains("<b@far.test>"),
        "{text}"
    );
    let report = host.claim(Lane::Local, &id);
    assert!(report.envelope().reverse_path.is_null());
    assert_eq!(
        report.recipients()[0].recipient.address.to_string(),
        "s@here.test"
    );
    assert_eq!(report.envelope().body, Body::EightBitMime);
}

#[test]
fn a_sender_elsewhere_gets_it_by_relay() {
    let host = host();
    let mut entry = host.failed("s@far.test", &["a@far.test"], |_| ());
    let report = host
        .reporter
        .report(&mut entry, About::Failures)
        .unwrap()
        .unwrap();
    let id = *entry.id();
    let mut both = vec![id, report];
    both.sort();
    let mut waiting = host.waiting(Lane::Relay);
    waiting.sort();
    assert_eq!(waiting, both);
}

#[test]
fn wishes_of_the_sender() {
    let host = host();
    let never = |e: &mut Envelope| e.recipients[0].notify = Notify::Never;
    let mut entry = host.failed("s@here.test", &["a@far.test"], never);
    assert_eq!(
        host.reporter.report(&mut entry, About::Failures).unwrap(),
        None
    );
    assert!(entry.recipients()[0].failure_reported);

    let mut entry = host.failed("s@here.test", &["a@far.test", "b@far.test"], never);
    let id = host
        .reporter
        .report(&mut entry, About::Failures)
        .unwrap()
        .unwrap();
    let text = host.text(Lane::Local, &id);
    assert!(
        !text.contains("a@far.test") && text.contains("b@far.test"),
        "{text}"
    );

    let headers = |e: &mut Envelope| e.ret = Some(Ret::Headers);
    let mut entry = host.failed("s@here.test", &["a@far.test"], headers);
    let id = host
        .reporter
        .report(&mut entry, About::Failures)
        .unwrap()
        .unwrap();
    let text = host.text(Lane::Local, &id);
    let end = "rfc822-headers\r\nContent-Description: Header of the Message\r\n\
        Content-Transfer-Encoding: 7bit\r\n\r\nFrom: s@far.test\r\nSubject: x\r\n\r\n--=_yubin_";
    assert!(text.contains(end), "{text}");
}

#[test]
fn what_has_no_sender_goes_to_postmaster_and_that_goes_nowhere() {
    let host = host();
    let mut entry = host.failed("", &["a@far.test"], |_| ());
    let id = host
        .reporter
        .report(&mut entry, About::Failures)
        .unwrap()
        .unwrap();
    let mut report = host.claim(Lane::Local, &id);
    let to = report.recipients()[0].recipient.address.to_string();
    assert_eq!(to, "postmaster@mail.here.test");
    fail_all(&mut report);
    assert_eq!(
        host.reporter.report(&mut report, About::Failures).unwrap(),
        None
    );
    assert!(report.recipients()[0].failure_reported);
}

#[test]
fn success_is_told_to_who_asked() {
    let host = host();
    let mut envelope = Envelope::new(
        ReversePath::Address("s@here.test".parse().unwrap()),
        vec![
            Recipient::new("a@here.test".parse().unwrap()),
            Recipient::new("b@here.test".parse().unwrap()),
        ],
    );
    envelope.recipients[1].notify = Notify::On {
        success: true,
        failure: true,
        delay: false,
    };
    let origin = Origin::now(Source::Submission { uid: 0 });
    let mut draft = host.queue.draft(Lane::Local, &envelope, &origin).unwrap();
    draft.write(MESSAGE.as_bytes()).unwrap();
    let id = host.queue.commit(vec![draft.finish().unwrap()]).unwrap()[0];
    let mut entry = host.claim(Lane::Local, &id);
    let attempt = |to: &str| Attempt {
        status: Status::OK,
        reply: to.into(),
        host: None,
    };
    entry
        .record(&[
            Event::Delivered {
                recipient: 0,
                attempt: attempt("in a's mailbox"),
            },
            Event::Delivered {
                recipient: 1,
                attempt: attempt("in b's mailbox"),
            },
        ])
        .unwrap();
    let report = host
        .reporter
        .report(&mut entry, About::Deliveries)
        .unwrap()
        .unwrap();
    let text = host.text(Lane::Local, &report);
    assert!(
        text.contains("Action: delivered") && text.contains("b@here.test"),
        "{text}"
    );
    assert!(
        !text.contains("a@here.test") && !text.contains("body"),
        "{text}"
    );
    assert_eq!(
        host.reporter.report(&mut entry, About::Deliveries).unwrap(),
        None
    );
}

/// RFC 6533 3 and 4
#[test]
fn addresses_beyond_ascii_are_told_as_they_are() {
    let host = host();
    let wish = |e: &mut Envelope| {
        e.needs.smtputf8 = true;
        e.recipients[0].orcpt = Some("utf-8;\\x{7530}+40far.test".into());
    };
    let mut entry = host.failed("j\u{f6}rg@far.test", &["a@far.test"], wish);
    let id = host
        .reporter
        .report(&mut entry, About::Failures)
        .unwrap()
        .unwrap();
    assert!(host.claim(Lane::Relay, &id).envelope().needs.smtputf8);
    let text = host.text(Lane::Relay, &id);
    for part in [
        "To: <j\u{f6}rg@far.test>\r\n",
        "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n",
        "Original-Recipient: utf-8;\u{7530}@far.test\r\n",
        "Final-Recipient: rfc822; a@far.test\r\n",
        "(you wrote to <\u{7530}@far.test>)",
        "Content-Type: message/rfc822\r\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // A sender in ASCII can be told by every server.
    let mut entry = host.failed("s@far.test", &["j\u{f6}rg@far.test"], |_| ());
    let id = host
        .reporter
        .report(&mut entry, About::Failures)
        .unwrap()
        .unwrap();
    let report = host.claim(Lane::Relay, &id);
    assert!(!report.envelope().needs.smtputf8);
    assert_eq!(report.envelope().body, Body::EightBitMime);
}
