//! The power fails, at every moment of a day at the queue.
//!
//! A process works with the queue under strace. From its system calls a model of the disk knows
//! what would be left if the power failed after any of them: only what was synced, or that and any
//! part of the rest, with torn writes. Each such disk is made real, recovered by the library, and
//! searched for every message whose acceptance had been said by then.
//!
//! The control: the same with one sync forgotten has to find something lost.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;

use base::{Envelope, Fail, Recipient, ReversePath, Root, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue::drop::{Letter, Submission};
use queue::{
    Attempt, Claim, Client, Committer, Dropped, Entry, Event, Intake, Lane, Origin, Outcome, Place,
    Queue, QueueId, Report, Sealed, Source, Spawn, Verdict,
};
use tempfile::TempDir;
use tests::powercut::{Disk, Fate, Op, Tree, What};
use tests::smtp::Smtp;
use tests::strace;
use tests::{Host, wait_for};

// The day at the queue.

/// In the process under strace: where it works.
const ROOT: &str = "POWER_CUT_ROOT";

#[test]
fn a_day_at_the_queue() {
    if let Some(root) = std::env::var_os(ROOT) {
        day(&Root::new(PathBuf::from(root))).unwrap();
    }
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
    let ids = queue.commit(drafts)?;
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

fn day(root: &Root) -> Result<(), Fail> {
    let queue = Queue::open(root)?;
    queue.recover()?;
    // Accepted alone, as one message in two lanes, and many side by side.
    let alone = accept(&queue, &[(Lane::Local, "alone")])?;
    let large = "large ".repeat(12_000);
    let pair = accept(
        &queue,
        &[(Lane::Local, &large), (Lane::Relay, "other half")],
    )?;
    let side_by_side = side_by_side(&queue)?;
    // Submitted by a user, and taken in.
    for number in 0..3 {
        let text = format!("submission {number}");
        let letter = Letter {
            sender: None,
            recipients: envelope().recipients,
            body: base::envelope::Body::SevenBit,
            ret: None,
            envid: None,
        };
        let mut submission = Submission::create(root, &letter)?;
        submission.write(text.as_bytes())?;
        let id = submission.commit()?;
        say(&format!("ack {id} {text}"));
    }
    Intake::new(&queue, 1 << 20, 100).run(take_in)?;
    // One recipient delivered, the other deferred; later delivered too, and done.
    let mut entry = claim(&queue, Lane::Local, &alone[0])?;
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
    entry.record_synced(&[Event::Delivered {
        recipient: 1,
        attempt: attempt(Status::OK),
    }])?;
    say(&format!("done {}", alone[0]));
    entry.finish()?;
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
    Ok(())
}

fn side_by_side(queue: &Queue) -> Result<Vec<QueueId>, Fail> {
    let committer = Committer::start(queue)?;
    let (tell, told) = mpsc::channel();
    for number in 0..4 {
        let text = format!("side by side {number}");
        let tell = tell.clone();
        committer.submit(vec![sealed(queue, Lane::Relay, &text)?], move |done| {
            if let Ok([id]) = done.as_deref() {
                say(&format!("ack {id} {text}"));
            }
            tell.send(done).ok();
        });
    }
    drop(tell);
    told.into_iter().try_fold(Vec::new(), |mut all, done| {
        all.extend(done?);
        Ok(all)
    })
}

/// The day, recorded.
fn recorded() -> Disk {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("root");
    Queue::create(&Root::new(&root)).unwrap();
    let before = Tree::read(&root);
    let log = dir.path().join("log");
    let output = strace::command(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_day_at_the_queue", "--nocapture"])
        .env(ROOT, &root)
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
    /// Delivered to that recipient: never again.
    delivered: Vec<(String, usize)>,
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
                    ["delivered", id, recipient] => {
                        told.delivered.push((id.into(), recipient.parse().unwrap()));
                    }
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
        let entry = claim(&queue, lane, &id)?;
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
            let gone = told.done.contains(id) || (told.forwarded.contains(id) && children(id) == 2);
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

/// Everything that was not synced is lost.
fn unlucky(_: &Op) -> Fate {
    Fate::Lost
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
    let disk = recorded();
    let moments = disk.moments();
    assert!(moments.len() > 150, "only {} moments", moments.len());
    let end = Told::by(&disk, usize::MAX);
    assert_eq!(
        (end.accepted.len(), end.delivered.len(), end.done.len()),
        (10, 1, 1)
    );
    if let Some(what) = first_wrong(&disk) {
        panic!("{what}");
    }
    // With some of the rest on the disk, in no order, and writes torn anywhere. The numbers come
    // from a fixed start, so a failure can be seen again.
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for moment in moments {
        let told = Told::by(&disk, moment);
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

#[test]
fn with_a_sync_forgotten_something_is_lost() {
    let disk = recorded();
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
            _ => continue,
        };
        let lost = wrong_without(&disk, at);
        let (needed, all) = found.entry(kind).or_insert((0, 0));
        *all += 1;
        *needed += usize::from(lost.is_some());
    }
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

// The same with the programs: from the client's connection to the mailbox.

/// Messages that are sent while strace looks on.
const SENT: usize = 3;

/// Messages come in by SMTP and go to a mailbox while strace looks on.
fn recorded_way(host: &Host) -> Disk {
    let outside = TempDir::new().unwrap();
    let (log, pids) = (outside.path().join("log"), outside.path().join("pids"));
    let before = Tree::read(host.root());
    let mut traced = strace::command(&log);
    for (name, value) in host.command("smtpd").get_envs() {
        traced.env(name, value.unwrap_or_default());
    }
    let mut traced = traced
        .args([
            "sh",
            "-c",
            "smtpd & echo $! >$0; deliver & echo $! >>$0; wait",
        ])
        .arg(&pids)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace has to be installed");
    let mut smtp = wait_for("smtpd", || Smtp::connect(host.smtp).ok());
    smtp.ask("EHLO test").unwrap();
    for number in 0..SENT {
        let filler = "x".repeat(number * 900);
        let content = format!("Subject: {number}\r\n\r\n{}\r\n{filler}\r\n", mark(number));
        let reply = smtp
            .message("bob@yubin.test", &["alice@yubin.test"], &content)
            .unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }
    wait_for("an empty queue", || {
        let left = fs::read_dir(host.path("var/spool/yubin/local"))
            .unwrap()
            .count();
        (left == 0 && mailbox(host.root()).contains(&mark(SENT - 1))).then_some(())
    });
    for pid in fs::read_to_string(&pids).unwrap().lines() {
        kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGTERM).unwrap();
    }
    traced.wait().unwrap();
    Disk::record(
        host.root(),
        before,
        &strace::read(&fs::read_to_string(&log).unwrap()),
    )
}

fn mark(number: usize) -> String {
    format!("mark-{number}-end")
}

/// All that alice has: one mbox, or all files of a Maildir.
fn mailbox(root: &Path) -> String {
    let path = root.join("var/spool/mail/alice");
    let read =
        |path: PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    if path.is_file() {
        return read(path);
    }
    let files = ["new", "cur"].map(|dir| fs::read_dir(path.join(dir)));
    files
        .into_iter()
        .flatten()
        .flatten()
        .flatten()
        .map(|entry| read(entry.path()))
        .collect()
}

/// How many messages smtpd had answered for when the power failed. They were sent one after the
/// other, so these are the first ones.
fn answered(disk: &Disk, moment: usize) -> usize {
    disk.said(moment)
        .filter(|text| text.starts_with(b"250 "))
        .map(|text| String::from_utf8_lossy(text).matches("queued as").count())
        .sum()
}

/// What is wrong in the mailbox after the power is back and deliver has run.
fn wrong_mailbox(host: &Host, tree: &Tree, answered: usize) -> Option<String> {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        TempDir::new_in(memory)
    } else {
        TempDir::new()
    }
    .unwrap();
    // A dotlock from before the power cut names a process of another boot, in full or torn; when it
    // is broken is not this test's question.
    let is_lock = |path: &Path| path.to_string_lossy().contains("/alice.lock");
    tree.clone().without(is_lock).write(dir.path());
    let output = host
        .command("deliver")
        .arg("-q")
        .env("YUBIN_ROOT", dir.path())
        .output()
        .unwrap();
    let mailbox = mailbox(dir.path());
    let said = String::from_utf8_lossy(&output.stderr);
    for number in 0..SENT {
        let count = mailbox.matches(&mark(number)).count();
        let right = if number < answered {
            count == 1
        } else {
            count <= 1
        };
        if !right {
            return Some(format!(
                "message {number} of {answered} is there {count} times\n{said}\n{mailbox}"
            ));
        }
    }
    let (ids, marks) = (
        mailbox.matches("Delivered-To: alice@").count(),
        mailbox.matches("-end").count(),
    );
    (ids != marks).then(|| format!("{ids} messages with {marks} bodies\n{said}\n{mailbox}"))
}

#[test]
fn from_the_250_to_the_mailbox_nothing_is_lost_or_doubled() {
    for format in ["mbox", "maildir"] {
        let mut host = Host::new(&format!("MAILBOX_FORMAT={format}\n"));
        // A mailbox that is not new, and all that the first start makes.
        host.start("smtpd");
        host.start("deliver");
        let mut smtp = Smtp::connect(host.smtp).unwrap();
        smtp.ask("EHLO test").unwrap();
        let old = "Subject: old\r\n\r\nmark-old-end\r\n";
        smtp.message("bob@yubin.test", &["alice@yubin.test"], old)
            .unwrap();
        wait_for("the old message", || {
            mailbox(host.root()).contains("mark-old-end").then_some(())
        });
        host.stop("smtpd");
        host.stop("deliver");
        let disk = recorded_way(&host);
        assert_eq!(answered(&disk, usize::MAX), SENT);
        every_cut(&host, &disk, format);
        every_forgotten_sync(&host, &disk, format);
    }
}

fn every_cut(host: &Host, disk: &Disk, format: &str) {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for moment in disk.moments() {
        let answered = answered(disk, moment);
        let seed = random.0;
        let trees = [
            disk.cut(moment, None, &mut unlucky),
            disk.cut(moment, None, &mut |_| Fate::Kept),
            disk.cut(moment, None, &mut |op| random.fate(op)),
            disk.cut(moment, None, &mut |op| random.fate(op)),
        ];
        for tree in trees {
            if let Some(what) = wrong_mailbox(host, &tree, answered) {
                panic!("{format}: power cut after line {moment}, seed {seed:#x}: {what}");
            }
        }
    }
}

/// The control: the data and the name of what was accepted, and what deliver says before and after
/// it writes, have to be synced.
fn every_forgotten_sync(host: &Host, disk: &Disk, format: &str) {
    let mut needed = Vec::new();
    for (at, op) in disk.ops.iter().enumerate() {
        let kind = match &op.what {
            What::SyncFile { path, .. } if path.starts_with("var/spool/mail") => "mailbox",
            What::SyncFile { path, .. } if path.to_string_lossy().contains("local/#") => "new file",
            What::SyncFile { path, .. } if path.starts_with("var/spool/yubin/local") => "journal",
            What::SyncDir { path } if path.ends_with("local") => "lane",
            _ => continue,
        };
        let lost = disk.moments().into_iter().any(|moment| {
            let tree = disk.cut(moment, Some(at), &mut unlucky);
            !tree.same(&disk.cut(moment, None, &mut unlucky))
                && wrong_mailbox(host, &tree, answered(disk, moment)).is_some()
        });
        if lost {
            needed.push(kind);
        }
    }
    for kind in ["new file", "lane", "journal", "mailbox"] {
        assert!(
            needed.contains(&kind),
            "{format}: a {kind} need not be synced? {needed:?}"
        );
    }
}

/// xorshift64: enough to scatter.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fate(&mut self, op: &Op) -> Fate {
        match (self.next() % 3, &op.what) {
            (0, _) => Fate::Lost,
            (1, What::Write { data, .. }) => {
                let length = u64::try_from(data.len()).unwrap().max(1);
                Fate::Torn(usize::try_from(self.next() % length).unwrap())
            }
            _ => Fate::Kept,
        }
    }
}
