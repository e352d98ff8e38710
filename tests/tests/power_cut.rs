//! The power fails, at every moment of a day at the queue.
//!
//! A process works with the queue under strace. From its system calls a model of the disk knows
//! what would be left if the power failed after any of them: only what was synced, or that and any
//! part of the rest, with torn writes. Each such disk is made real, recovered by the library, and
//! searched for every message whose acceptance had been said by then.
//!
//! There are two such days: one in which every file is synced, one with a commit log of very small
//! segments, which are filled, emptied and used again.
//!
//! The control: the same with one sync forgotten has to find something lost.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Envelope, Fail, Recipient, ReversePath, Root, Status};
use queue::drop::{Letter, Submission};
use queue::{
    Attempt, Claim, Client, Dropped, Entry, Event, Intake, Intent, Lane, Logging, Origin, Outcome,
    Place, Queue, QueueId, Report, Sealed, Source, Spawn, Verdict,
};
use tempfile::TempDir;
use tests::powercut::{Disk, Fate, Random, Tree, What, unlucky};
use tests::strace;

// The day at the queue.

/// In the process under strace: where it works.
const ROOT: &str = "POWER_CUT_ROOT";
/// And whether it keeps a commit log.
const LOG: &str = "POWER_CUT_LOG";
/// One batch in a segment.
const SEGMENT: u64 = 2 * 4096;
/// Messages that fill more segments than there may be.
const CROWD: usize = 14;

#[test]
fn a_day_at_the_queue() {
    if let Some(root) = std::env::var_os(ROOT) {
        let log = std::env::var_os(LOG).is_some();
        day(&Root::new(PathBuf::from(root)), log).unwrap();
    }
}

/// A queue of one who accepts or works, with a log that takes records if there is to be one.
fn open(root: &Root, what: Logging, log: bool) -> Result<Queue, Fail> {
    let queue = Queue::open(root)?;
    if log {
        queue.keep_log(what, SEGMENT);
        while !queue.has_log() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(queue)
}

/// One line to the world, in one write.
fn say(line: &str) {
    std::io::stdout()
        .write_all(format!("\n{line}\n").as_bytes())
        .unwrap();
    std::io::stdout().flush().unwrap();
}

fn envelope() -> Envelope {
    let recipients =
        ["bob@example.org", "eve@example.org"].map(|r| Recipient::new(r.parse().unwrap()));
    Envelope::new(
        ReversePath::Address("ann@example.org".parse().unwrap()),
        recipients.into(),
    )
}

fn sealed(queue: &Queue, lane: Lane, text: &str) -> Result<Sealed, Fail> {
    let origin = Origin::now(Source::Network(Client::default()));
    let mut draft = queue.draft(lane, &envelope(), &origin)?;
    draft.write(text.as_bytes())?;
    draft.finish()
}

fn accept(queue: &Queue, batch: &[(Lane, &str)]) -> Result<Vec<QueueId>, Fail> {
    let drafts = batch
        .iter()
        .map(|(lane, text)| sealed(queue, *lane, text))
        .collect::<Result<_, _>>()?;
    let (said, heard) = std::sync::mpsc::channel();
    queue.commit_soon(drafts, move |done| said.send(done).unwrap());
    let ids = heard.recv().unwrap()?;
    for (id, (_, text)) in ids.iter().zip(batch) {
        say(&format!("ack {id} {text}"));
    }
    Ok(ids)
}

fn claim(queue: &Queue, lane: Lane, id: &QueueId) -> Result<Entry, Fail> {
    match queue.claim(lane, id)? {
        Claim::Entry(entry) => Ok(*entry),
        other => Err(Fail::temp(format!("{id}: {other:?}"))),
    }
}

fn attempt(status: Status) -> Attempt {
    Attempt {
        status,
        reply: "so it is".into(),
        host: Some("mx.example.org".into()),
    }
}

fn take_in(dropped: &Dropped) -> Verdict {
    Verdict::Accept {
        lane: Lane::Local,
        envelope: dropped.envelope(ReversePath::Null),
    }
}

fn day(root: &Root, log: bool) -> Result<(), Fail> {
    let queue = open(root, Logging::Works, log)?;
    let smtpd = open(root, Logging::Accepts, log)?;
    queue.recover()?;
    // Accepted alone, as one message in two lanes, and many side by side.
    let alone = accept(&smtpd, &[(Lane::Local, "alone")])?;
    let large = "large ".repeat(12_000);
    let pair = accept(
        &smtpd,
        &[(Lane::Local, &large), (Lane::Relay, "other half")],
    )?;
    let side_by_side = side_by_side(&smtpd)?;
    if log {
        // Until segments are used again.
        for number in 0..CROWD {
            let text = format!("crowd {number}");
            while !smtpd.has_log() {
                std::thread::sleep(Duration::from_millis(1));
            }
            accept(&smtpd, &[(Lane::Relay, text.as_str())])?;
        }
    }
    // Submitted by a user, and taken in.
    for number in 0..3 {
        let text = format!("submission {number}");
        let letter = Letter {
            sender: None,
            recipients: envelope().recipients,
            body: base::envelope::Body::SevenBit,
            ret: None,
            envid: None,
            needs: base::envelope::Needs::default(),
        };
        let mut submission = Submission::create(root, &letter)?;
        submission.write(text.as_bytes())?;
        let id = submission.commit()?;
        say(&format!("ack {id} {text}"));
    }
    Intake::new(&queue, 1 << 20, 100).run(take_in)?;
    // One recipient delivered, the other deferred; later delivered too, and done.
    let mut entry = claim(&queue, Lane::Local, &alone[0])?;
    let intent = Intent {
        recipient: 0,
        delivery: "1".into(),
        path: "/var/spool/mail/bob".into(),
        offset: 0,
        length: 100,
        checksum: 7,
        note: Vec::new(),
    };
    queue::announce(entry.intend(intent)?.into_iter().collect())?;
    say(&format!("announced {} 0", alone[0]));
    let next = std::time::SystemTime::now();
    let deferred = Event::Deferred {
        recipient: 1,
        attempt: attempt(Status::NO_ANSWER),
        next,
    };
    entry.record_synced(&[
        Event::Delivered {
            recipient: 0,
            attempt: attempt(Status::OK),
        },
        deferred,
    ])?;
    say(&format!("delivered {} 0", alone[0]));
    entry.set_due(next)?;
    drop(entry);
    let mut entry = claim(&queue, Lane::Local, &alone[0])?;
    entry.record(&[Event::Delivered {
        recipient: 1,
        attempt: attempt(Status::OK),
    }])?;
    say(&format!("finishing {}", alone[0]));
    entry.finish()?;
    queue.flush();
    say(&format!("done {}", alone[0]));
    // Forwarded: the message becomes two others and is done itself.
    let mut entry = claim(&queue, Lane::Local, &pair[0])?;
    let children = [Lane::Local, Lane::Relay].map(|lane| {
        let mut draft = entry.child(lane, &envelope())?;
        draft.write(format!("child of {}", pair[0]).as_bytes())?;
        draft.finish()
    });
    let children = children.into_iter().collect::<Result<_, _>>()?;
    entry.spawn(
        children,
        Spawn::Became {
            recipients: vec![0, 1],
        },
    )?;
    say(&format!("forwarded {}", pair[0]));
    entry.finish()?;
    queue.flush();
    queue.sync(Lane::Local)?;
    // Handed over, failed and bounced, but not done.
    claim(&queue, Lane::Relay, &pair[1])?.hand_over(Lane::Local)?;
    let mut entry = claim(&queue, Lane::Local, &pair[1])?;
    entry.record(&[Event::Failed {
        recipient: 0,
        attempt: attempt(Status::NO_MAILBOX),
    }])?;
    let report = Spawn::Reported {
        recipients: vec![0],
        report: Report::Failure,
    };
    entry.spawn_one(Lane::Relay, &envelope(), &mut &b"a bounce"[..], report)?;
    drop(entry);
    // Held, and released.
    claim(&queue, Lane::Relay, &side_by_side[0])?.hold("by hand")?;
    queue.release(&side_by_side[0])?;
    if log {
        // The threads of the logs have their last word.
        queue.flush();
        smtpd.flush();
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

fn side_by_side(queue: &Queue) -> Result<Vec<QueueId>, Fail> {
    let one = |number| {
        let text = format!("side by side {number}");
        let mut ids = accept(queue, &[(Lane::Relay, text.as_str())])?;
        ids.pop().ok_or_else(|| Fail::temp("no id"))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| scope.spawn(move || one(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// The day, recorded.
fn recorded(log: bool) -> Disk {
    recorded_in(log.then_some((LOG, "yes")))
}

fn recorded_in(env: Option<(&str, &str)>) -> Disk {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("root");
    Queue::create(&Root::new(&root)).unwrap();
    let before = Tree::read(&root);
    let log = dir.path().join("log");
    let output = strace::command(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_day_at_the_queue", "--nocapture"])
        .env(ROOT, &root)
        .envs(env)
        .output()
        .expect("strace has to be installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let calls = strace::read(&fs::read_to_string(&log).unwrap());
    Disk::record(&root, before, &calls)
}

// After the power is back.

/// What the world had been told when the power failed.
#[derive(Debug, Default)]
struct Told {
    /// Accepted, with this content.
    accepted: BTreeMap<String, String>,
    /// An append to that recipient's mailbox is to be looked for first.
    announced: Vec<(String, usize)>,
    /// Delivered to that recipient: never again.
    delivered: Vec<(String, usize)>,
    /// It may be gone.
    finishing: Vec<String>,
    /// Nothing more to do.
    done: Vec<String>,
    forwarded: Vec<String>,
}

impl Told {
    fn by(disk: &Disk, moment: usize) -> Self {
        let mut told = Self::default();
        for text in disk.said(moment) {
            for line in String::from_utf8_lossy(text).lines() {
                let words: Vec<&str> = line.splitn(3, ' ').collect();
                match words[..] {
                    ["ack", id, content] => {
                        told.accepted.insert(id.into(), content.into());
                    }
                    ["announced", id, recipient] => {
                        told.announced.push((id.into(), recipient.parse().unwrap()));
                    }
                    ["delivered", id, recipient] => {
                        told.delivered.push((id.into(), recipient.parse().unwrap()));
                    }
                    ["finishing", id] => told.finishing.push(id.into()),
                    ["done", id] => told.done.push(id.into()),
                    ["forwarded", id] => told.forwarded.push(id.into()),
                    _ => (),
                }
            }
        }
        told
    }
}

/// One entry of the recovered queue.
struct Found {
    content: String,
    outcomes: Vec<Outcome>,
    announced: Vec<bool>,
    parent: Option<String>,
}

/// Recovers as the runners do when they start, and reads all there is.
fn recovered(root: &Path) -> Result<BTreeMap<String, Found>, Fail> {
    let queue = Queue::open(&Root::new(root))?;
    queue.recover()?;
    let mut intake = Intake::new(&queue, 1 << 20, 100);
    intake.run(take_in)?;
    let mut found = BTreeMap::new();
    for view in queue.list()? {
        let id = view.id;
        let lane = match view.place {
            Place::Local => Lane::Local,
            Place::Relay => Lane::Relay,
            // The operator's turn.
            Place::Hold => match queue.release(&id)? {
                Some(lane) => lane,
                None => return Err(Fail::temp(format!("{id}: not released"))),
            },
            // Half of what nobody was promised.
            Place::Damaged | Place::Drop => continue,
            Place::Incoming => return Err(Fail::temp(format!("{id}: still in incoming"))),
        };
        let mut claimed = queue.claim(lane, &id)?;
        if matches!(claimed, Claim::Gone) && queue.release(&id)?.is_some() {
            // Its journal says that it is held, its name did not yet.
            claimed = queue.claim(lane, &id)?;
        }
        let entry = match claimed {
            Claim::Entry(entry) => *entry,
            // A name without its data: nobody was promised it, or it is missed below.
            Claim::Damaged(_) => continue,
            other => return Err(Fail::temp(format!("{id}: {other:?}"))),
        };
        let mut content = String::new();
        entry
            .content()
            .read_to_string(&mut content)
            .map_err(|e| Fail::io(format!("read {id}"), e))?;
        let outcomes = entry
            .recipients()
            .iter()
            .map(|r| r.outcome.clone())
            .collect();
        let announced = entry
            .recipients()
            .iter()
            .map(|r| r.intent.is_some())
            .collect();
        let parent = match entry.origin().source {
            Source::Child { parent } => Some(parent.to_string()),
            _ => None,
        };
        if found
            .insert(
                id.to_string(),
                Found {
                    content,
                    outcomes,
                    announced,
                    parent,
                },
            )
            .is_some()
        {
            return Err(Fail::temp(format!("{id}: in two places")));
        }
    }
    Ok(found)
}

/// What is wrong with this disk, if anything.
fn wrong(tree: &Tree, told: &Told) -> Option<String> {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        TempDir::new_in(memory)
    } else {
        TempDir::new()
    }
    .unwrap();
    tree.write(dir.path());
    let found = match recovered(dir.path()) {
        Ok(found) => found,
        Err(fail) => return Some(fail.to_string()),
    };
    let children = |id: &str| {
        found
            .values()
            .filter(|f| f.parent.as_deref() == Some(id))
            .count()
    };
    for (id, content) in &told.accepted {
        let Some(entry) = found.get(id) else {
            let gone =
                told.finishing.contains(id) || (told.forwarded.contains(id) && children(id) == 2);
            if gone {
                continue;
            }
            return Some(format!("{id} is lost"));
        };
        if entry.content != *content {
            return Some(format!("{id} has other content"));
        }
    }
    for (id, entry) in &found {
        let became = entry
            .outcomes
            .iter()
            .any(|o| matches!(o, Outcome::Became { .. }));
        // All of them, or none; a parent that is still to do has none.
        let forwarded = found
            .values()
            .filter(|f| f.parent.as_deref() == Some(id) && f.content.starts_with("child of"));
        match (became, forwarded.count()) {
            (true, 2) | (false, 0) => (),
            (_, count) => return Some(format!("{id} has {count} children")),
        }
    }
    for (id, recipient) in &told.announced {
        let forgotten = found.get(id).is_some_and(|entry| {
            entry
                .outcomes
                .get(*recipient)
                .is_some_and(Outcome::is_pending)
                && entry.announced.get(*recipient) == Some(&false)
        });
        if forgotten {
            return Some(format!("{id}: the announced append is forgotten"));
        }
    }
    for id in &told.done {
        let again = found
            .get(id)
            .is_some_and(|entry| entry.outcomes.iter().any(Outcome::is_pending));
        if again {
            return Some(format!("{id} is done and would be delivered again"));
        }
    }
    for (id, recipient) in &told.delivered {
        let again = found
            .get(id)
            .and_then(|entry| entry.outcomes.get(*recipient))
            .is_some_and(Outcome::is_pending);
        if again {
            return Some(format!(
                "{id} would be delivered again to recipient {recipient}"
            ));
        }
    }
    None
}

/// Looks at every moment.
fn first_wrong(disk: &Disk) -> Option<String> {
    disk.moments().into_iter().find_map(|moment| {
        let tree = disk.cut(moment, None, &mut unlucky);
        wrong(&tree, &Told::by(disk, moment))
            .map(|what| format!("power cut after line {moment}: {what}"))
    })
}

/// Looks at every moment as if one sync had not been, where that leaves another disk.
fn wrong_without(disk: &Disk, forgotten: usize) -> Option<String> {
    disk.moments().into_iter().find_map(|moment| {
        let tree = disk.cut(moment, Some(forgotten), &mut unlucky);
        let differs = !tree.same(&disk.cut(moment, None, &mut unlucky));
        differs.then(|| wrong(&tree, &Told::by(disk, moment)))?
    })
}

#[test]
fn nothing_that_was_accepted_is_lost_in_any_power_cut() {
    nothing_is_lost(&recorded(false), 10);
}

#[test]
fn nothing_that_was_accepted_is_lost_with_a_commit_log() {
    nothing_is_lost(&recorded(true), 10 + CROWD);
}

fn nothing_is_lost(disk: &Disk, accepted: usize) {
    let moments = disk.moments();
    assert!(moments.len() > 150, "only {} moments", moments.len());
    let end = Told::by(disk, usize::MAX);
    assert_eq!(
        (end.accepted.len(), end.delivered.len(), end.done.len()),
        (accepted, 1, 1)
    );
    if let Some(what) = first_wrong(disk) {
        panic!("{what}");
    }
    // With some of the rest on the disk, in no order, and writes torn anywhere. The numbers come
    // from a fixed start, so a failure can be seen again.
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for moment in moments {
        let told = Told::by(disk, moment);
        for _ in 0..4 {
            let seed = random.0;
            let tree = disk.cut(moment, None, &mut |op| random.fate(op));
            if let Some(what) = wrong(&tree, &told) {
                panic!("power cut after line {moment}, seed {seed:#x}: {what}");
            }
        }
        // Nothing lost: kill -9.
        let tree = disk.cut(moment, None, &mut |_| Fate::Kept);
        assert_eq!(wrong(&tree, &told), None, "kill -9 after line {moment}");
    }
}

/// For each kind of sync how many were found to be needed, three at most, and how many were tried.
fn needed_syncs(disk: &Disk) -> BTreeMap<String, (usize, usize)> {
    let mut found = BTreeMap::new();
    for (at, op) in disk.ops.iter().enumerate().filter(|(_, op)| op.is_sync()) {
        let kind = match &op.what {
            What::SyncDir { path } => {
                format!("directory {}", path.file_name().unwrap().to_string_lossy())
            }
            What::SyncFile { path, .. } => {
                let place = path
                    .parent()
                    .and_then(Path::file_name)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                let named = !path.file_name().unwrap().to_string_lossy().starts_with('#');
                format!(
                    "{} file in {place}",
                    if named { "journal of a" } else { "new" }
                )
            }
            What::SyncAll => "everything".into(),
            _ => continue,
        };
        let (needed, tried) = found.entry(kind).or_insert((0, 0));
        if *needed < 3 {
            *tried += 1;
            *needed += usize::from(wrong_without(disk, at).is_some());
        }
    }
    found
}

#[test]
fn with_a_sync_forgotten_something_is_lost() {
    let found = needed_syncs(&recorded(false));
    println!("needed syncs by kind: {found:?}");
    let needed = |kind: &str| found.get(kind).map_or(0, |(needed, _)| *needed);
    // The data of a new message, in each lane; its name; what was submitted; what was recorded.
    for kind in [
        "new file in local",
        "new file in relay",
        "directory local",
        "directory relay",
        "new file in drop",
        "directory drop",
        "directory incoming",
        "journal of a file in local",
    ] {
        assert!(needed(kind) > 0, "a {kind} need not be synced? {found:?}");
    }
}

#[test]
fn with_a_sync_of_the_commit_log_forgotten_something_is_lost() {
    let found = needed_syncs(&recorded(true));
    println!("needed syncs by kind: {found:?}");
    let needed = |kind: &str| found.get(kind).map_or(0, |(needed, _)| *needed);
    // Its segments with their names, its records, and what allows to use a segment again.
    for kind in ["new file in log", "directory log", "everything"] {
        assert!(needed(kind) > 0, "a {kind} need not be synced? {found:?}");
    }
}
