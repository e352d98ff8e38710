//! The one process of deliver that stays root. It reads no mail and no queue, and knows two
//! requests: whether a user exists, whose file only root may read; and a user's name with a socket,
//! for which it starts a process that becomes that user and serves the socket.
//!
//! Guarantees: nothing of a message, and nothing that a peer wrote but a name, which is looked up
//! again here, gets into a process with root's rights. It ends when deliver ends.
//!
//! A process that has become a user cannot become another, but it can serve that user again: it is
//! kept for a few seconds, because to start one costs as much as the delivery itself.

use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::escape::escape;
use base::sys::{self, Fork};
use base::{Doing, Fail};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use base::packet::Packets;

/// What the helper does with root's rights.
pub(crate) trait Root {
    /// The name of a user's mailbox, where there is such a user.
    fn user(&self, name: &str) -> Result<Option<String>, Fail>;

    /// The work of a started process, which has to become the user first.
    fn work(&self, user: &str, socket: &Packets) -> Result<(), Fail>;
}

/// A process with nothing to do is given work again for so long.
const KEPT: Duration = Duration::from_secs(3);
/// After this it ends by itself; later, so that none is given work while it ends.
pub(crate) const LINGER: Duration = Duration::from_secs(6);
/// Processes with nothing to do.
const MOST_KEPT: usize = 100;

// The two requests.
const USER: &[u8] = b"user";
const OPEN: &[u8] = b"open";

/// The way to the helper process.
#[derive(Debug)]
pub(crate) struct Helper {
    socket: Mutex<Packets>,
    gone: AtomicBool,
    /// Processes with nothing to do, by user, with the time since when.
    kept: Mutex<Vec<(String, Packets, Instant)>>,
}

/// A process that is a user, for one batch; then it is kept for another, where it can be.
#[derive(Debug)]
pub(crate) struct Process<'a> {
    helper: &'a Helper,
    user: String,
    /// `None` only while it is being dropped.
    socket: Option<Packets>,
    busy: Cell<bool>,
}

impl Process<'_> {
    /// The way to it. It counts as busy until [`Process::set_busy`] is told otherwise.
    pub(crate) fn socket(&self) -> Result<&Packets, Fail> {
        self.busy.set(true);
        self.socket.as_ref().ok_or_else(|| Fail::temp("no process"))
    }

    /// Whether it waits for more of the same request, after its last answer.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.set(busy);
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        // One that is in the middle of something sees the end of its socket, and ends.
        if let Some(socket) = self.socket.take()
            && !self.busy.get()
        {
            self.helper.keep(std::mem::take(&mut self.user), socket);
        }
    }
}

impl Helper {
    fn new(socket: Packets) -> Self {
        Self {
            socket: Mutex::new(socket),
            gone: AtomicBool::new(false),
            kept: Mutex::default(),
        }
    }

    /// Forks the helper. To be called while the process has one thread, and as root.
    pub(crate) fn start(root: &impl Root) -> Result<Self, Fail> {
        let (ours, its) = Packets::pair().doing(|| "make the helper's socket")?;
        match sys::fork().doing(|| "start the helper")? {
            Fork::Parent(_) => Ok(Self::new(ours)),
            Fork::Child => {
                drop(ours);
                std::process::exit(match serve(its, root) {
                    Ok(()) => 0,
                    Err(fail) => {
                        log::error!("helper: {fail}");
                        i32::from(fail.code().code())
                    }
                })
            }
        }
    }

    /// The name of a user's mailbox, where there is such a user: only root may read the users.
    pub(crate) fn user(&self, name: &str) -> Result<Option<String>, Fail> {
        let answer = self
            .ask(USER, name, &[])
            .doing(|| format!("look up user {}", escape(name)))?;
        Ok(answer.filter(|user| !user.is_empty()))
    }

    /// A process that is `user`.
    pub(crate) fn open(&self, user: &str) -> Result<Process<'_>, Fail> {
        let process = |socket| Process {
            helper: self,
            user: user.to_owned(),
            socket: Some(socket),
            busy: Cell::new(false),
        };
        if let Some(socket) = self.kept(user) {
            return Ok(process(socket));
        }
        let doing = || format!("start a process for {user}");
        let (ours, its) = Packets::pair().doing(doing)?;
        self.ask(OPEN, user, &[its.as_raw_fd()]).doing(doing)?;
        Ok(process(ours))
    }

    fn kept(&self, user: &str) -> Option<Packets> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, _, since)| since.elapsed() < KEPT);
        let at = kept.iter().position(|(of, ..)| of == user)?;
        Some(kept.remove(at).1)
    }

    fn keep(&self, user: String, socket: Packets) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, _, since)| since.elapsed() < KEPT);
        if kept.len() >= MOST_KEPT {
            kept.remove(0);
        }
        kept.push((user, socket, Instant::now()));
    }

    fn ask(&self, verb: &[u8], name: &str, fds: &[RawFd]) -> Result<Option<String>, Fail> {
        // One request at a time, so that the answer is to this one. Where a thread ended with the
        // lock the worst is an answer too much, which is refused below.
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = socket
            .send(&[verb, name.as_bytes()], fds)
            .and_then(|()| socket.receive());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match answer
            .doing(|| "ask the helper")?
            .map(|a| a.parts)
            .as_deref()
        {
            Some([asked, found, trouble]) if asked == name.as_bytes() && trouble.is_empty() => {
                Ok(Some(text(found)))
            }
            Some([asked, _, trouble]) if asked == name.as_bytes() => Err(Fail::temp(text(trouble))),
            _ => {
                self.gone.store(true, Ordering::Relaxed);
                Err(Fail::temp("the helper is gone"))
            }
        }
    }

    /// Whether the helper ended before deliver: nothing can be delivered without it.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

/// The helper's loop. In a process that it forked, this returns when that process is done.
fn serve(socket: Packets, root: &impl Root) -> Result<(), Fail> {
    while let Some(request) = socket.receive().doing(|| "read a request")? {
        reap();
        let (verb, name) = match request.parts.as_slice() {
            [verb, name] => (
                verb.as_slice(),
                std::str::from_utf8(name).unwrap_or_default(),
            ),
            _ => (&[][..], ""),
        };
        let answer = match (verb, request.fds.into_iter().next()) {
            (USER, None) => root.user(name),
            (OPEN, Some(given)) => match sys::fork() {
                Ok(Fork::Parent(_)) => Ok(None),
                Ok(Fork::Child) => {
                    // What becomes a user cannot ask for another.
                    drop(socket);
                    return root
                        .work(name, &given.into())
                        .doing(|| format!("for {name}"));
                }
                Err(e) => Err(Fail::io("fork", e)),
            },
            _ => Err(Fail::temp("not a request")),
        };
        let (found, trouble) = match answer {
            Ok(found) => (found.unwrap_or_default(), String::new()),
            Err(fail) => (String::new(), fail.to_string()),
        };
        let answer = [name.as_bytes(), found.as_bytes(), trouble.as_bytes()];
        socket.send(&answer, &[]).doing(|| "answer a request")?;
    }
    Ok(()) // deliver is gone
}

/// Forgets the processes that have ended. A bad end is told by the process itself; one that was
/// killed is told here.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        match status {
            WaitStatus::StillAlive => return,
            WaitStatus::Signaled(pid, signal, _) => log::error!("helper: {pid} ended by {signal}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Helper {
        /// One that starts nothing and has a process for `user`.
        pub(crate) fn with(user: &str, process: Packets) -> Self {
            let helper = Self::new(Packets::pair().unwrap().0);
            helper.keep(user.into(), process);
            helper
        }
    }

    /// As the helper does, with threads in the place of processes; gives how many it started.
    fn start_threads(socket: &Packets) -> usize {
        let mut started = 0;
        while let Some(request) = socket.receive().unwrap() {
            let process = Packets::from(request.fds.into_iter().next().unwrap());
            let name = request.parts[1].clone();
            std::thread::spawn(move || while process.receive().is_ok_and(|r| r.is_some()) {});
            started += 1;
            socket.send(&[&name, b"", b""], &[]).unwrap();
        }
        started
    }

    #[test]
    fn a_process_at_rest_is_kept_for_its_user() {
        let (ours, its) = Packets::pair().unwrap();
        let started = std::thread::spawn(move || start_threads(&its));
        let helper = Helper::new(ours);
        // One for ann, who comes back; one for bob; another for ann while hers is at work.
        drop(helper.open("ann").unwrap());
        drop(helper.open("bob").unwrap());
        let ann = helper.open("ann").unwrap();
        ann.socket().unwrap();
        drop(helper.open("ann").unwrap());
        // What was in the middle of something is not used again.
        drop(ann);
        assert_eq!(helper.kept.lock().unwrap().len(), 2);
        for user in 0..2 * MOST_KEPT {
            drop(helper.open(&user.to_string()).unwrap());
        }
        assert_eq!(helper.kept.lock().unwrap().len(), MOST_KEPT);
        for kept in &mut *helper.kept.lock().unwrap() {
            kept.2 -= KEPT;
        }
        drop(helper.open("63").unwrap());
        assert_eq!(helper.kept.lock().unwrap().len(), 1);
        drop(helper);
        assert_eq!(started.join().unwrap(), 3 + 2 * MOST_KEPT + 1);
    }
}
