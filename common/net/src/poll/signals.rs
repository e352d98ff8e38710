//! SIGTERM, SIGINT and SIGHUP.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::{Interest, Poll};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::SIGNALS;

/// SIGTERM, SIGINT and SIGHUP, as events of the loop.
pub(super) struct Signals {
    pub(super) terminate: Arc<AtomicBool>,
    pub(super) hangup: Arc<AtomicBool>,
    pipe: mio::net::UnixStream,
    registered: Vec<SigId>,
}

impl Signals {
    pub(super) fn register(poll: &Poll) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut pipe = mio::net::UnixStream::from_std(ours);
        poll.registry()
            .register(&mut pipe, SIGNALS, Interest::READABLE)?;
        let (terminate, hangup) = (Arc::default(), Arc::default());
        let mut registered = Vec::new();
        for (signal, flag) in [
            (SIGTERM, &terminate),
            (SIGINT, &terminate),
            (SIGHUP, &hangup),
        ] {
            // The flag first: when the pipe wakes the loop it must be up.
            registered.push(signal_hook::flag::register(signal, Arc::clone(flag))?);
            registered.push(signal_hook::low_level::pipe::register(
                signal,
                theirs.try_clone()?,
            )?);
        }
        Ok(Self {
            terminate,
            hangup,
            pipe,
            registered,
        })
    }

    pub(super) fn drain(&mut self) {
        let mut chunk = [0; 64];
        while matches!(self.pipe.read(&mut chunk), Ok(n) if n > 0) {}
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}
