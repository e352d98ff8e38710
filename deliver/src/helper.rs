//! The one process of deliver that stays root. It reads no mail and no queue, and knows two
//! requests: whether a user exists, whose file only root may read; and a user's name with a socket,
//! for which it starts a process that becomes that user and serves the socket.
//!
//! Guarantees: nothing of a message, and nothing that a peer wrote but a name, which is looked up
//! again here, gets into a process with root's rights. It ends when deliver ends.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

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

// The two requests.
const USER: &[u8] = b"user";
const OPEN: &[u8] = b"open";

/// The way to the helper process.
#[derive(Debug)]
pub(crate) struct Helper {
    socket: Mutex<Packets>,
    gone: AtomicBool,
}

impl Helper {
    /// Forks the helper. To be called while the process has one thread, and as root.
    pub(crate) fn start(root: &impl Root) -> Result<Self, Fail> {
        let (ours, its) = Packets::pair().doing(|| "make the helper's socket")?;
        match sys::fork().doing(|| "start the helper")? {
            Fork::Parent(_) => Ok(Self {
                socket: Mutex::new(ours),
                gone: AtomicBool::new(false),
            }),
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

    /// A process that is `user` and serves the other end of this socket.
    pub(crate) fn open(&self, user: &str) -> Result<Packets, Fail> {
        let doing = || format!("start a process for {user}");
        let (ours, its) = Packets::pair().doing(doing)?;
        self.ask(OPEN, user, &[its.as_raw_fd()]).doing(doing)?;
        Ok(ours)
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
