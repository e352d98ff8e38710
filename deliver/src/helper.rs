//! The one process of deliver that stays root: it starts, for a mailbox that has mail, a process
//! that becomes the mailbox's user. It reads no mail and no queue, and knows one request: a user's
//! name, with a socket that the new process serves.
//!
//! Guarantees: nothing of a message, and nothing that a peer wrote but a name, which is looked up
//! again here, gets into a process with root's rights. It ends when deliver ends.

use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

use base::sys::{self, Fork};
use base::{Doing, Fail};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::packet::Packets;

/// What a started process does: it has root's rights still, and has to become the user first.
pub(crate) trait Work: Fn(&str, Packets) -> Result<(), Fail> {}
impl<F: Fn(&str, Packets) -> Result<(), Fail>> Work for F {}

/// The way to the helper process.
#[derive(Debug)]
pub(crate) struct Helper {
    socket: Mutex<Packets>,
}

impl Helper {
    /// Forks the helper. To be called while the process has one thread, and as root.
    pub(crate) fn start(work: impl Work) -> Result<Self, Fail> {
        let (ours, its) = Packets::pair().doing(|| "make the helper's socket")?;
        match sys::fork().doing(|| "start the helper")? {
            Fork::Parent(_) => Ok(Self {
                socket: Mutex::new(ours),
            }),
            Fork::Child => {
                drop(ours);
                std::process::exit(match serve(its, work) {
                    Ok(()) => 0,
                    Err(fail) => {
                        log::error!("helper: {fail}");
                        i32::from(fail.code().code())
                    }
                })
            }
        }
    }

    /// A process that is `user` and serves the other end of this socket.
    pub(crate) fn open(&self, user: &str) -> Result<Packets, Fail> {
        let doing = || format!("start a process for {user}");
        let (ours, its) = Packets::pair().doing(doing)?;
        // One request at a time, so that the answer is to this one. Where a thread ended with the
        // lock the worst is an answer too much, which is refused below.
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket
            .send(&[user.as_bytes()], &[its.as_raw_fd()])
            .doing(doing)?;
        drop(its);
        let answer = socket
            .receive()
            .doing(doing)?
            .map(|a| a.parts)
            .unwrap_or_default();
        match answer.as_slice() {
            [asked, trouble] if asked == user.as_bytes() && trouble.is_empty() => Ok(ours),
            [asked, trouble] if asked == user.as_bytes() => {
                let trouble = String::from_utf8_lossy(trouble);
                Err(Fail::temp(format!("{}: {trouble}", doing())))
            }
            _ => Err(Fail::temp(format!("{}: the helper is gone", doing()))),
        }
    }
}

/// The helper's loop. In a process that it forked, this returns when that process is done.
fn serve(socket: Packets, work: impl Work) -> Result<(), Fail> {
    while let Some(request) = socket.receive().doing(|| "read a request")? {
        reap();
        let mut fds = request.fds.into_iter();
        let trouble = match (request.parts.as_slice(), fds.next()) {
            ([user], Some(given)) => match (std::str::from_utf8(user), sys::fork()) {
                (Ok(_), Ok(Fork::Parent(_))) => String::new(),
                (Ok(user), Ok(Fork::Child)) => {
                    // What becomes a user cannot ask for another.
                    drop(socket);
                    return work(user, given.into()).doing(|| format!("for {user}"));
                }
                (Err(_), Ok(Fork::Child)) => return Ok(()),
                (Err(_), Ok(Fork::Parent(_))) => "not a name".to_owned(),
                (_, Err(e)) => e.to_string(),
            },
            _ => "not a request".to_owned(),
        };
        let asked = request.parts.first().map(Vec::as_slice).unwrap_or_default();
        socket
            .send(&[asked, trouble.as_bytes()], &[])
            .doing(|| "answer a request")?;
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
