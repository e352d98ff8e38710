//! The threads: one watches the directories and takes in submissions, some work on entries, and the
//! first one waits for signals.
//!
//! Guarantees: an entry is worked on by one thread; a destination that does not answer keeps only
//! the few threads that are let to it; with all wake-ups lost mail still moves, a few seconds later.

use std::collections::HashSet;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use base::{Doing, Fail};
use queue::{Claim, Intake, Lane, Place, Queue, Watch, Woken};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::board::{Board, Ended, Turn};
use crate::flush;
use crate::intake;
use crate::relay::Relay;
use crate::world::World;

/// Entries in work at once.
const WORKERS: usize = 40;
const STACK: usize = 1 << 20;
/// How often drop/ is looked at without being told.
const LOOK: Duration = Duration::from_secs(5);
/// How often the lane is read whole; more seldom where that takes long.
const SCAN: Duration = Duration::from_secs(30);
/// Submissions of one user that are taken in at a time.
const PER_USER: usize = 1000;
/// Of a submission's file.
const MAX_ENVELOPE: u64 = 32 << 20;
/// Free space without which nothing is sent: its outcome could not be recorded.
const SPARE: u64 = 1 << 20;
/// The pause after a trouble of our own.
const PAUSE: Duration = Duration::from_secs(5);
/// The pause of an entry that alone has trouble.
const REST: Duration = Duration::from_secs(60);
/// An entry that somebody else has, or that has trouble, is looked at again then.
const SOON: Duration = Duration::from_secs(2);
/// Conversations under way are given this long to end at SIGTERM; who is cut off is tried again.
const GRACE: Duration = Duration::from_secs(10);
/// Then those who wait for the answer to a final dot have this long: who is cut off there may be
/// sent twice. Both together are within the 90 seconds after which systemd kills.
const LAST_ANSWER: Duration = Duration::from_secs(60);

/// For ever, or once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Daemon,
    /// Everything is tried once, whenever it is due.
    Once,
}

type Reload = Arc<dyn Fn() -> Result<World, Fail> + Send + Sync>;

/// What all threads share.
pub(crate) struct Runner {
    queue: Queue,
    board: Board,
    mode: Mode,
    world: Mutex<Arc<World>>,
    reload: Reload,
}

impl Runner {
    pub(crate) fn new(queue: Queue, world: World, mode: Mode, reload: Reload) -> Arc<Self> {
        Arc::new(Self {
            queue,
            board: Board::new(mode == Mode::Once),
            mode,
            world: Mutex::new(Arc::new(world)),
            reload,
        })
    }

    fn world(&self) -> Arc<World> {
        Arc::clone(&self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn run(self: Arc<Self>) -> Result<(), Fail> {
        let recovered = self.queue.recover()?;
        if recovered != queue::Recovered::default() {
            log::info!("recovered: {recovered:?}");
        }
        let queue = self.queue.clone();
        let done = match self.mode {
            Mode::Once => self.once(),
            Mode::Daemon => self.serve(),
        };
        queue.flush();
        done
    }

    /// Takes in and tries everything once, also what comes of that. What cannot be taken in, with a
    /// full disk, say, is no reason to keep what is queued, whose end makes room.
    fn once(self: Arc<Self>) -> Result<(), Fail> {
        let mut intake = self.intake();
        let taking = Arc::clone(&self);
        self.once_with(move || taking.take_in(&mut intake))
    }

    fn once_with(
        self: Arc<Self>,
        mut take_in: impl FnMut() -> Result<bool, Fail>,
    ) -> Result<(), Fail> {
        let taken = loop {
            match take_in() {
                Ok(true) => (),
                Ok(false) => break Ok(()),
                Err(fail) => break Err(fail.while_doing("take in submissions")),
            }
        };
        // All is tried: also what somebody has asked for.
        let (queue, asked) = (self.queue.clone(), self.queue.flush_requests()?);
        for flush in &asked {
            queue.begin_flush(flush)?;
        }
        self.relay_once()?;
        for flush in &asked {
            queue.end_flush(flush)?;
        }
        taken
    }

    fn relay_once(self: Arc<Self>) -> Result<(), Fail> {
        let mut seen = HashSet::new();
        loop {
            let mut found = self.queue.scan(Lane::Relay)?;
            found.retain(|listed| !seen.contains(&listed.id));
            if found.is_empty() {
                return Ok(());
            }
            seen.extend(found.iter().map(|listed| listed.id));
            self.board.announce_all(&found);
            let workers = (0..WORKERS.min(found.len()))
                .map(|n| self.worker(n))
                .collect::<Result<Vec<_>, Fail>>()?;
            for worker in workers {
                if worker.join().is_err() {
                    return Err(Fail::temp("a worker broke"));
                }
            }
        }
    }

    fn serve(self: Arc<Self>) -> Result<(), Fail> {
        let mut signals = Signals::take()?;
        for n in 0..WORKERS {
            self.worker(n)?;
        }
        let (ask, asked) = mpsc::sync_channel(1);
        // What was asked for while nobody ran the queue.
        ask.try_send(()).ok();
        let (runner, flusher) = (Arc::clone(&self), Arc::clone(&self));
        let named = |name: &str| thread::Builder::new().name(name.into());
        named("watch")
            .spawn(move || runner.watch(&ask))
            .doing(|| "start a thread")?;
        named("flush")
            .spawn(move || flush::serve(&flusher.queue, &flusher.board, || flusher.world(), &asked))
            .doing(|| "start a thread")?;
        log::info!("running the queue in {}", self.queue.path().display());
        while signals.wait()? == Signal::Reload {
            self.reload();
        }
        self.board.stop();
        if !self.board.wait_idle(GRACE) {
            log::info!("stopping in mid-conversation; what was under way is tried again");
            if !self.board.wait_answered(LAST_ANSWER) {
                log::warn!(
                    "stopping before all ends of messages were answered: possible duplicates"
                );
            }
        }
        Ok(())
    }

    fn reload(&self) {
        match (self.reload)() {
            Ok(world) => {
                *self.world.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(world);
                log::info!("read the configuration again");
            }
            Err(fail) => log::error!("{fail}; the old configuration stays"),
        }
    }

    fn worker(self: &Arc<Self>, n: usize) -> Result<thread::JoinHandle<()>, Fail> {
        let runner = Arc::clone(self);
        thread::Builder::new()
            .name(format!("relay {n}"))
            .stack_size(STACK)
            .spawn(move || {
                while let Some(turn) = runner.board.take() {
                    let ended = runner.attempt(turn);
                    runner.board.done(turn.id, &ended);
                }
            })
            .doing(|| "start a thread")
    }

    /// One turn of one entry. Whatever goes wrong here is ours. Where it would meet every entry
    /// everybody rests a little, else this one does.
    fn attempt(&self, turn: Turn) -> Ended {
        self.try_once(turn).unwrap_or_else(|fail| {
            log::error!("{}: {fail}", turn.id);
            if !is_shared(&fail) {
                return Ended::Due(SystemTime::now() + REST);
            }
            self.board.pause(PAUSE);
            Ended::Due(SystemTime::now() + SOON + PAUSE)
        })
    }

    fn try_once(&self, turn: Turn) -> Result<Ended, Fail> {
        self.queue.has_space(0, SPARE)?;
        match self.queue.claim(Lane::Relay, &turn.id)? {
            Claim::Entry(mut entry) => {
                // Also where the queue is run once: its sender wants it to wait.
                if let Some(due) = entry.waits_until(SystemTime::now()) {
                    entry.set_due(due)?;
                    return Ok(Ended::Due(due));
                }
                // What another runner has just tried is not ours to try again.
                let due = entry.due();
                if self.mode == Mode::Daemon && turn.since.is_none() && due > SystemTime::now() {
                    return Ok(Ended::Due(due));
                }
                let world = self.world();
                Relay::new(&world, &self.board, entry, turn.since).run()
            }
            Claim::Busy => Ok(Ended::Due(SystemTime::now() + SOON)),
            // Damaged is in the log already.
            Claim::Gone | Claim::Damaged(_) => Ok(Ended::Finished),
        }
    }

    fn intake(&self) -> Intake {
        Intake::new(&self.queue, max_file(&self.world()), PER_USER)
    }

    /// Gives whether something is left for another run.
    fn take_in(&self, intake: &mut Intake) -> Result<bool, Fail> {
        let world = self.world();
        intake.set_max_size(max_file(&world));
        let taken = intake.run_with(|dropped, content| intake::judge(&world, dropped, content))?;
        // Wake-ups for these come too; saying it here saves the wait where they do not.
        for id in &taken.accepted {
            if let Some(due) = self.queue.due(Lane::Relay, id)? {
                self.board.announce(*id, due);
            }
        }
        Ok(taken.accepted.len() >= PER_USER)
    }

    /// What wakes the watcher up, where that is to be had.
    fn start_watch(&self) -> Option<Watch> {
        let places = [Place::Drop, Place::Relay];
        let warn = |fail| log::warn!("{fail}; looking every {} s instead", LOOK.as_secs());
        let mut watch = Watch::start(&self.queue, &places).map_err(warn).ok()?;
        watch.watch_requests(&self.queue).unwrap_or_else(warn);
        Some(watch)
    }

    /// The watcher's life. `asked` wakes up who looks for requests.
    fn watch(&self, asked: &mpsc::SyncSender<()>) {
        let watch = self.start_watch();
        let mut intake = self.intake();
        let (mut next_scan, mut next_look) = (Instant::now(), Instant::now());
        while !self.board.is_stopping() {
            if Instant::now() >= next_look {
                next_look = Instant::now() + LOOK;
                match self.take_in(&mut intake) {
                    Ok(true) => next_look = Instant::now(),
                    Ok(false) => (),
                    Err(fail) => log::error!("take in submissions: {fail}"),
                }
            }
            if Instant::now() >= next_scan {
                self.queue
                    .recover_logs()
                    .unwrap_or_else(|fail| log::error!("{fail}"));
                let took = self.scan();
                next_scan = Instant::now() + SCAN.max(took.saturating_mul(20));
            }
            let wait = next_look.saturating_duration_since(Instant::now());
            let woken = self.wait(watch.as_ref(), wait);
            if woken.overflow {
                next_scan = Instant::now();
            }
            if woken.requests {
                // One that is awake, or has ended, needs no waking.
                asked.try_send(()).ok();
            }
            if woken.overflow || woken.names.iter().any(|(place, _)| *place == Place::Drop) {
                next_look = Instant::now();
            }
            for (_, id) in woken
                .names
                .iter()
                .filter(|(place, _)| *place == Place::Relay)
            {
                match self.queue.due(Lane::Relay, id) {
                    Ok(Some(due)) => self.board.announce(*id, due),
                    Ok(None) => (),
                    Err(fail) => log::error!("{fail}"),
                }
            }
        }
    }

    fn wait(&self, watch: Option<&Watch>, time: Duration) -> Woken {
        let woken = match watch {
            Some(watch) => watch.wait(time),
            None => {
                thread::sleep(time);
                Ok(Woken {
                    overflow: true,
                    ..Woken::default()
                })
            }
        };
        woken.unwrap_or_else(|fail| {
            log::error!("{fail}");
            thread::sleep(LOOK);
            Woken {
                overflow: true,
                ..Woken::default()
            }
        })
    }

    /// Reads the whole lane; gives how long that took.
    fn scan(&self) -> Duration {
        let start = Instant::now();
        match self.queue.scan(Lane::Relay) {
            Ok(found) => self.board.announce_all(&found),
            Err(fail) => log::error!("{fail}"),
        }
        start.elapsed()
    }
}

/// What sendmail(1) hands in is never longer: the content, its frames, and 50,000 recipients.
fn max_file(world: &World) -> u64 {
    let content = world.message_size_limit.saturating_mul(2);
    content.saturating_add(MAX_ENVELOPE)
}

/// Whether a trouble of ours is every entry's: of the disk, of descriptors, of memory.
fn is_shared(fail: &Fail) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS};
    use std::io::ErrorKind::{
        AddrNotAvailable, OutOfMemory, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    let number = fail.io_error().and_then(std::io::Error::raw_os_error);
    number.is_some_and(|n| [EMFILE, ENFILE, ENOBUFS].contains(&n))
        || matches!(
            fail.kind(),
            Some(StorageFull | QuotaExceeded | ReadOnlyFilesystem | OutOfMemory | AddrNotAvailable)
        )
}

/// The signals that we take: each writes a byte, so that waiting for them is reading.
struct Signals {
    pipe: UnixStream,
    stop: Arc<AtomicBool>,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Stop,
    Reload,
}

impl Signals {
    fn take() -> Result<Self, Fail> {
        let doing = || "take signals";
        let (pipe, write) = UnixStream::pair().doing(doing)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The flag first: it is set when the byte comes.
            signal_hook::flag::register(signal, Arc::clone(&stop)).doing(doing)?;
        }
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            let write = write.try_clone().doing(doing)?;
            signal_hook::low_level::pipe::register(signal, write).doing(doing)?;
        }
        Ok(Self { pipe, stop })
    }

    fn wait(&mut self) -> Result<Signal, Fail> {
        self.pipe
            .read_exact(&mut [0])
            .doing(|| "wait for signals")?;
        Ok(if self.stop.load(Ordering::SeqCst) {
            Signal::Stop
        } else {
            Signal::Reload
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::envelope::{Body, Needs};
    use base::{Config, Recipient, Root};
    use queue::drop::{Letter, Submission};
    use std::path::Path;

    #[test]
    fn what_cannot_be_taken_in_keeps_nothing_that_is_queued() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let def = "MY_NAME=mail\nMY_DOMAIN=a.test\nDNS_ZONE_FILE=/zone\n";
        std::fs::write(dir.path().join("zone"), "").unwrap();
        let config = Config::parse(&root, def, Path::new("t")).unwrap();
        let world = World::new(&root, &config).unwrap();
        let queue = Queue::create(&root).unwrap();
        let to = vec![Recipient::new("b@nowhere.test".parse().unwrap())];
        let envelope = base::Envelope::new(base::ReversePath::Null, to);
        let origin = queue::Origin::now(queue::Source::Network(queue::Client::default()));
        let mut draft = queue.draft(Lane::Relay, &envelope, &origin).unwrap();
        draft.write(b"Subject: x\r\n\r\n").unwrap();
        let id = queue.commit(vec![draft.finish().unwrap()]).unwrap()[0];
        let runner = Runner::new(queue, world, Mode::Once, Arc::new(|| Err(Fail::temp(""))));
        let full = || Err(Fail::temp("disk full"));
        let said = Arc::clone(&runner).once_with(full).unwrap_err().to_string();
        assert!(said.starts_with("take in submissions"), "{said}");
        assert!(runner.queue.due(Lane::Relay, &id).unwrap().is_none());
    }

    #[test]
    fn a_submission_that_loops_comes_back_to_its_sender() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let def = "MY_NAME=mail\nMY_DOMAIN=a.test\nDNS_ZONE_FILE=/zone\nHOP_LIMIT=3\n";
        std::fs::write(dir.path().join("zone"), "").unwrap();
        let config = Config::parse(&root, def, Path::new("t")).unwrap();
        let world = World::new(&root, &config).unwrap();
        let queue = Queue::create(&root).unwrap();
        let reload = Arc::new(|| Err(Fail::temp("")));
        let runner = Runner::new(queue, world, Mode::Once, reload);
        let here = runner.world().router.here().clone();
        for (hops, failed) in [(3, false), (4, true)] {
            let letter = Letter {
                sender: Some(base::ReversePath::Address(
                    format!("ann@{here}").parse().unwrap(),
                )),
                recipients: vec![Recipient::new(format!("bob@{here}").parse().unwrap())],
                body: Body::SevenBit,
                ret: None,
                envid: None,
                needs: Needs::default(),
            };
            let mut submission = Submission::create(&root, &letter).unwrap();
            let header = "Received: by a\r\n\tb\r\n".repeat(hops) + "Subject: x\r\n\r\n";
            submission.write(header.as_bytes()).unwrap();
            let id = submission.commit().unwrap();
            Arc::clone(&runner).once().unwrap();
            let local = runner.queue.scan(Lane::Local).unwrap();
            assert!(runner.queue.due(Lane::Relay, &id).unwrap().is_none());
            assert_eq!(local.iter().any(|l| l.id == id), !failed);
            if failed {
                let report = local.last().unwrap().id;
                let Claim::Entry(report) = runner.queue.claim(Lane::Local, &report).unwrap() else {
                    panic!("busy");
                };
                let mut text = String::new();
                report.content().read_to_string(&mut text).unwrap();
                assert!(text.contains("Status: 5.4.6"), "{text}");
            }
        }
    }

    #[test]
    fn a_limit_that_was_raised_counts_for_submissions_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let world = |limit: &str| {
            let def = format!(
                "MY_NAME=mail\nMY_DOMAIN=a.test\nDNS_ZONE_FILE=/zone\nMESSAGE_SIZE_LIMIT={limit}\n"
            );
            let config = Config::parse(&Root::new(dir.path()), &def, Path::new("t"))?;
            World::new(&Root::new(dir.path()), &config)
        };
        std::fs::write(dir.path().join("zone"), "").unwrap();
        let queue = Queue::create(&root).unwrap();
        let (old, new) = (world("1K").unwrap(), world("64M").unwrap());
        let new = Mutex::new(Some(new));
        let reload = move || Ok(new.lock().unwrap().take().unwrap());
        let runner = Runner::new(queue, old, Mode::Daemon, Arc::new(reload));
        let mut intake = runner.intake();
        let letter = Letter {
            sender: None,
            recipients: vec![Recipient::new("b@b.test".parse().unwrap())],
            body: Body::SevenBit,
            ret: None,
            envid: None,
            needs: Needs::default(),
        };
        let mut submission = Submission::create(&root, &letter).unwrap();
        submission.write(&vec![b'x'; 40 << 20]).unwrap();
        let id = submission.commit().unwrap();
        runner.reload();
        runner.take_in(&mut intake).unwrap();
        assert!(runner.queue.due(Lane::Relay, &id).unwrap().is_some());
    }
}
