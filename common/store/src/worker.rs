//! A session behind a socket: a process that became its user serves the front's requests here.
//!
//! One answer for each request, in order. Besides, after [`Request::Watch`]`(true)`, an
//! [`Answer::Changed`] comes whenever the selected folder may have changed since the last Poll: at
//! once after the Watch, so that nothing falls between, and then once until the next Poll.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Doing, Fail};

use crate::request::{Answer, Failed, Request, Why};
use crate::session::Session;
use crate::watch::{Watch, Watcher};
use crate::wire;

/// Serves until the other end closes.
pub fn serve(socket: UnixStream, mut session: Session) -> Result<(), Fail> {
    let mut from = socket.try_clone().doing(|| "serve store requests")?;
    let front = Arc::new(Front {
        socket: Mutex::new(socket),
        told: AtomicBool::new(false),
    });
    let mut watching = Watching::default();
    while let Some(frame) = wire::read_frame(&mut from).doing(|| "read a store request")? {
        let answer = match Request::decode(&frame) {
            None => Answer::Failed(Failed {
                why: Why::Bad,
                text: "not a store request".into(),
            }),
            Some(Request::Watch(on)) => {
                watching.on = on;
                Answer::Done
            }
            Some(request) => {
                if matches!(request, Request::Poll { .. } | Request::Select { .. }) {
                    front.told.store(false, Ordering::SeqCst);
                }
                session.handle(request)
            }
        };
        // Before the answer: what happens from here on is told.
        let fresh = watching.follow(&session, &front);
        front.send(&answer)?;
        if fresh {
            front.changed();
        }
    }
    Ok(())
}

/// The other end.
struct Front {
    socket: Mutex<UnixStream>,
    /// It was told of a change and has not polled since.
    told: AtomicBool,
}

impl Front {
    fn send(&self, answer: &Answer) -> Result<(), Fail> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        answer
            .write(&mut *socket)
            .doing(|| "answer a store request")
    }

    fn changed(&self) {
        if !self.told.swap(true, Ordering::SeqCst)
            && let Err(fail) = self.send(&Answer::Changed)
        {
            log::debug!("{fail}");
        }
    }
}

/// What is watched for the front.
#[derive(Default)]
struct Watching {
    on: bool,
    watcher: Option<Watcher>,
    now: Option<(Vec<PathBuf>, Watch)>,
}

impl Watching {
    /// Watches what is selected, if anything is to be watched. `true` if that is new.
    fn follow(&mut self, session: &Session, front: &Arc<Front>) -> bool {
        let paths = if self.on { session.paths() } else { Vec::new() };
        if paths.is_empty() {
            self.now = None;
            return false;
        }
        if self.now.as_ref().is_some_and(|(now, _)| *now == paths) {
            return false;
        }
        self.now = None;
        let watch = || -> Result<(Watcher, Watch), Fail> {
            let watcher = match &self.watcher {
                Some(watcher) => watcher.clone(),
                None => Watcher::start()?,
            };
            let front = Arc::clone(front);
            let watch = watcher.watch(&paths, move || front.changed())?;
            Ok((watcher, watch))
        };
        match watch() {
            Ok((watcher, watch)) => {
                self.watcher = Some(watcher);
                self.now = Some((paths, watch));
                true
            }
            Err(fail) => {
                log::warn!("{fail}; the client is not told of new mail while it idles");
                false
            }
        }
    }
}
