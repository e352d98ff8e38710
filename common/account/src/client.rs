//! A daemon's end of its `checkpw`: started before the daemon gives up root, asked without waiting.
//!
//! Answers come on a thread of their own, by the callback that was given with the request. When
//! `checkpw` dies, everything that waits hears [`Answer::Unavailable`], and the next request starts
//! another. A daemon that has given up root meanwhile cannot: one started now would read no secret.
//! Then the next request ends the daemon in order, and its supervisor starts both again.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base::packet::Packets;
use base::{Doing, Fail, Root, Sysexit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, geteuid};

use crate::message::{Answer, Request, Service, decode_answer, encode_request};
use crate::sasl::Mechanism;

/// Where `make install` puts the program, for daemons that lie elsewhere.
const INSTALLED: &str = "/usr/sbin/checkpw";
/// The pause between two starts.
const RESTART: Duration = Duration::from_secs(1);
/// How long [`Checkpw::ask`] waits.
const PATIENCE: Duration = Duration::from_secs(30);

type Then = Box<dyn FnOnce(Answer) + Send>;

/// The daemon's `checkpw`. Cheap to clone.
#[derive(Clone)]
pub struct Checkpw(Arc<Inner>);

struct Inner {
    command: Mutex<Command>,
    link: Mutex<Option<Arc<Link>>>,
    started: Mutex<Instant>,
    next: AtomicU64,
    /// Who we were when we started it.
    uid: Uid,
    ending: AtomicBool,
    mechanisms: Vec<Mechanism>,
}

/// One running `checkpw`.
struct Link {
    socket: Packets,
    child: Mutex<Child>,
    waiting: Mutex<HashMap<u64, Then>>,
}

impl Checkpw {
    /// Starts it: the program beside our own, else the installed one. `config` is what `-f` named.
    pub fn start(root: &Root, config: Option<&Path>, service: Service) -> Result<Self, Fail> {
        Self::start_program(&program(), root, config, service)
    }

    /// Starts this program, and waits until it serves: a daemon without users does not come up.
    pub fn start_program(
        program: &Path,
        root: &Root,
        config: Option<&Path>,
        service: Service,
    ) -> Result<Self, Fail> {
        // It holds for each thread that starts from here on; the first is the one that hears checkpw.
        base::sys::no_new_privileges().doing(|| "set no_new_privs")?;
        let mut command = Command::new(program);
        command
            .env("YUBIN_ROOT", root.dir())
            .args(["--service", service.name()]);
        if let Some(file) = config {
            command.arg("-f").arg(file);
        }
        let link = launch(&mut command)?;
        let mut inner = Inner {
            command: Mutex::new(command),
            link: Mutex::new(Some(Arc::clone(&link))),
            started: Mutex::new(Instant::now()),
            next: AtomicU64::new(1),
            uid: geteuid(),
            ending: AtomicBool::new(false),
            mechanisms: Vec::new(),
        };
        match inner.ask(&Request::Mechanisms) {
            Answer::Mechanisms(mechanisms) => inner.mechanisms = mechanisms,
            _ => return Err(no_start(&link)),
        }
        Ok(Self(Arc::new(inner)))
    }

    /// What may be announced: by these everybody could log in when it was started.
    pub fn mechanisms(&self) -> &[Mechanism] {
        &self.0.mechanisms
    }

    /// A number for an exchange, that no other exchange of this daemon has.
    pub fn conversation(&self) -> u64 {
        self.0.number()
    }

    /// Asks; `then` gets the answer on another thread. Never blocks.
    pub fn submit(&self, request: &Request, then: impl FnOnce(Answer) + Send + 'static) {
        self.0.submit(request, then);
    }

    /// Asks and waits, for programs without a loop.
    pub fn ask(&self, request: &Request) -> Answer {
        self.0.ask(request)
    }
}

impl Inner {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn submit(&self, request: &Request, then: impl FnOnce(Answer) + Send + 'static) {
        let link = match self.link() {
            Ok(link) => link,
            Err(fail) => return then(Answer::Unavailable(fail.to_string())),
        };
        let id = self.number();
        lock(&link.waiting).insert(id, Box::new(then));
        let parts = encode_request(id, request);
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        if let Err(e) = link.socket.try_send(&slices, &[])
            && let Some(then) = lock(&link.waiting).remove(&id)
        {
            then(Answer::Unavailable(format!("ask checkpw: {e}")));
        }
    }

    fn ask(&self, request: &Request) -> Answer {
        let (send, receive) = sync_channel(1);
        self.submit(request, move |answer| {
            send.send(answer).ok();
        });
        receive
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| Answer::Unavailable("checkpw does not answer".into()))
    }

    /// The running one, or a new one.
    fn link(&self) -> Result<Arc<Link>, Fail> {
        let mut link = lock(&self.link);
        if let Some(link) = &*link
            && matches!(lock(&link.child).try_wait(), Ok(None))
        {
            return Ok(Arc::clone(link));
        }
        if geteuid() != self.uid {
            return Err(self.end());
        }
        let mut started = lock(&self.started);
        if started.elapsed() < RESTART {
            return Err(Fail::temp("checkpw has just died"));
        }
        *started = Instant::now();
        let new = launch(&mut lock(&self.command))?;
        log::warn!("checkpw had died and was started again");
        *link = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Ends this daemon as SIGTERM does; what it is in the middle of may be finished.
    fn end(&self) -> Fail {
        if !self.ending.swap(true, Ordering::Relaxed) {
            log::error!("checkpw died; ending, so that it can be started again with its rights");
            if let Err(e) = kill(Pid::this(), Signal::SIGTERM) {
                log::error!("end: {e}");
            }
        }
        Fail::temp("checkpw died")
    }
}

fn launch(command: &mut Command) -> Result<Arc<Link>, Fail> {
    let doing = || "start checkpw".to_owned();
    let (ours, theirs) = Packets::pair().doing(doing)?;
    let child = command
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .doing(|| format!("start {}", command.get_program().to_string_lossy()))?;
    // The command would keep its end of the socket open.
    command.stdin(Stdio::null());
    let reader = Packets::from(OwnedFd::from(ours));
    let socket = duplicate(&reader)?;
    let link = Arc::new(Link {
        socket,
        child: Mutex::new(child),
        waiting: Mutex::default(),
    });
    let told = Arc::clone(&link);
    thread::Builder::new()
        .name("checkpw".into())
        .spawn(move || read_all(&reader, &told))
        .doing(doing)?;
    Ok(link)
}

/// Why a new one does not serve; what it said itself is in the log.
fn no_start(link: &Link) -> Fail {
    let mut child = lock(&link.child);
    // Its socket may close a moment before it ends.
    for _ in 0..100 {
        if !matches!(child.try_wait(), Ok(None)) {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().ok();
    match child.wait().ok().and_then(|status| status.code()) {
        Some(code) if code == i32::from(Sysexit::Config.code()) => {
            Fail::config("checkpw does not start: mend what it says")
        }
        _ => Fail::temp("checkpw does not start: its own message says why"),
    }
}

fn duplicate(packets: &Packets) -> Result<Packets, Fail> {
    Ok(packets
        .as_fd()
        .try_clone_to_owned()
        .doing(|| "duplicate a socket")?
        .into())
}

/// Gives each answer to who waits for it, until the other end closes.
fn read_all(reader: &Packets, link: &Link) {
    loop {
        match reader.receive() {
            Ok(Some(packet)) => {
                let socket = packet.fds.into_iter().next();
                match decode_answer(&packet.parts, socket) {
                    Some((id, answer)) => {
                        let then = lock(&link.waiting).remove(&id);
                        if let Some(then) = then {
                            then(answer);
                        }
                    }
                    None => log::error!("checkpw sent what is no answer"),
                }
            }
            Ok(None) => break,
            Err(e) => {
                log::error!("read from checkpw: {e}");
                break;
            }
        }
    }
    let waiting: Vec<_> = lock(&link.waiting).drain().collect();
    for (_, then) in waiting {
        then(Answer::Unavailable("checkpw died".into()));
    }
}

/// Beside our own program, as in a build directory; else where it is installed.
fn program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|me| me.parent().map(|dir| dir.join("checkpw")))
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(INSTALLED))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
