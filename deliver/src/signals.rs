//! SIGTERM and SIGINT end the loop after what is in work; SIGHUP makes it look around now. Nothing
//! happens in a handler but a flag and a byte in a pipe.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::{Doing, Fail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use queue::Watch;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// The signals that this process gets.
#[derive(Debug)]
pub(crate) struct Signals {
    stop: Arc<AtomicBool>,
    look: Arc<AtomicBool>,
    wake: UnixStream,
    nudge: UnixStream,
}

impl Signals {
    pub(crate) fn catch() -> Result<Self, Fail> {
        let stop = Arc::new(AtomicBool::new(false));
        let look = Arc::new(AtomicBool::new(false));
        let register = || -> io::Result<(UnixStream, UnixStream)> {
            let (ours, its) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            its.set_nonblocking(true)?;
            for signal in [SIGTERM, SIGINT] {
                signal_hook::flag::register(signal, Arc::clone(&stop))?;
            }
            signal_hook::flag::register(SIGHUP, Arc::clone(&look))?;
            for signal in [SIGTERM, SIGINT, SIGHUP] {
                pipe::register(signal, its.try_clone()?)?;
            }
            Ok((ours, its))
        };
        let (wake, nudge) = register().doing(|| "catch signals")?;
        Ok(Self {
            stop,
            look,
            wake,
            nudge,
        })
    }

    /// Whether the loop is to end.
    pub(crate) fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends the loop's wait: for a thread that has something new for it.
    pub(crate) fn nudge(&self) {
        // A full pipe is as good as one more byte.
        (&self.nudge).write_all(&[0]).ok();
    }

    /// Waits for a signal, a nudge or the queue. Whether a signal wants us to look around.
    pub(crate) fn wait(&self, watch: Option<&Watch>, timeout: Duration) -> Result<bool, Fail> {
        // Rounded up, so that the last millisecond is not spent in a busy loop.
        let millis = timeout.as_millis().saturating_add(1);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(watch.map(|w| PollFd::new(w.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Fail::io("wait for the queue", e.into())),
        }
        // All bytes: one is as good as many.
        let mut bytes = [0; 64];
        while matches!((&self.wake).read(&mut bytes), Ok(n) if n > 0) {}
        Ok(self.look.swap(false, Ordering::Relaxed))
    }
}
