//! `checkpw` itself: reads requests from its daemon's socket, answers each, and ends with the
//! daemon.
//!
//! The main thread reads; a few threads answer, because hashing takes time and a lookup may block.
//! Garbage on the socket costs that packet only. Secrets stay in this process, and out of the log.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base::packet::{Packet, Packets};
use base::{Config, Doing, Fail, Root};

use crate::message::{Answer, Grant, Request, Service, StoreAccess, decode_request, encode_answer};
use crate::salt::Salts;
use crate::sasl::{Claim, Exchange, Nonce, Step, prep};
use crate::user::User;
use crate::users::Users;
use crate::worker::Workers;

/// Threads that answer. Argon2 takes 64 MiB in each.
const THREADS: usize = 4;
/// Requests read and not yet answered; beyond that the daemon waits.
const BACKLOG: usize = 256;
/// Exchanges under way; a daemon with more has lost count.
const EXCHANGES: usize = 20_000;
/// When "wrong password" is said, counted from the question: whatever hash was or was not made
/// before, the refused cannot tell it by the clock.
const DELAY: Duration = Duration::from_secs(2);

/// Serves until the daemon is gone.
pub fn serve(socket: OwnedFd, root: &Root, config: &Config, service: Service) -> Result<(), Fail> {
    let users = Users::open(root, config)?;
    if !users.has_secrets() {
        let path = config.users_file.display();
        log::warn!("{path} does not exist: mail goes to Unix users, but nobody can log in");
    }
    let server = Arc::new(Server {
        socket: Packets::from(socket),
        users,
        salts: Salts::open(root)?,
        service,
        workers: Workers::new(root, config, service)?,
        exchanges: Mutex::new(HashMap::new()),
    });
    let (work, todo) = sync_channel(BACKLOG);
    let todo = Arc::new(Mutex::new(todo));
    for _ in 0..THREADS {
        let (server, todo) = (Arc::clone(&server), Arc::clone(&todo));
        thread::Builder::new()
            .spawn(move || server.answer_all(&todo))
            .doing(|| "start a thread")?;
    }
    server.read_all(&work)
}

struct Server {
    socket: Packets,
    users: Users,
    salts: Salts,
    service: Service,
    workers: Workers,
    exchanges: Mutex<HashMap<u64, Exchange>>,
}

impl Server {
    fn read_all(&self, work: &SyncSender<Packet>) -> Result<(), Fail> {
        loop {
            match self.socket.receive() {
                Ok(Some(packet)) => {
                    if work.send(packet).is_err() {
                        return Err(Fail::temp("all threads are gone"));
                    }
                }
                Ok(None) => return Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                    log::warn!("garbage from the daemon: {e}");
                }
                Err(e) => return Err(Fail::io("read from the daemon", e)),
            }
            self.workers.reap();
        }
    }

    fn answer_all(&self, todo: &Mutex<Receiver<Packet>>) {
        loop {
            let next = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(packet) = next else { return };
            let Some((id, request)) = decode_request(&packet.parts) else {
                log::warn!("a request that is none from the daemon");
                continue;
            };
            let (parts, socket) = encode_answer(id, self.timed(request));
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let fds: Vec<_> = socket.iter().map(AsRawFd::as_raw_fd).collect();
            if let Err(e) = self.socket.send(&slices, &fds) {
                // The daemon is gone; the reading thread sees the same.
                log::debug!("answer to the daemon: {e}");
            }
        }
    }

    /// The answer; a refusal's pause is what is left of [`DELAY`].
    fn timed(&self, request: Request) -> Answer {
        let asked = Instant::now();
        match self.answer(request) {
            Answer::Refused { delay } => Answer::Refused {
                delay: delay.saturating_sub(asked.elapsed()),
            },
            answer => answer,
        }
    }

    fn answer(&self, request: Request) -> Answer {
        let outcome = match request {
            Request::Begin {
                conversation,
                mechanism,
                channel,
                initial,
            } => {
                let nonce = match Nonce::new() {
                    Ok(nonce) => nonce,
                    Err(fail) => return unavailable(&fail),
                };
                let (exchange, step) =
                    Exchange::begin(mechanism, channel, initial.as_deref(), nonce);
                return self.step(conversation, exchange, step);
            }
            Request::Continue {
                conversation,
                response,
            } => {
                let exchange = self.exchanges().remove(&conversation);
                let Some(mut exchange) = exchange else {
                    return Answer::Malformed("no exchange is under way".into());
                };
                let step = exchange.step(&response);
                return self.step(conversation, exchange, step);
            }
            Request::Cancel { conversation } => {
                self.exchanges().remove(&conversation);
                return Answer::Unknown;
            }
            Request::Lookup { name } => {
                return match self.users.lookup(&name) {
                    Ok(Some(user)) => Answer::Found(user),
                    Ok(None) => Answer::Unknown,
                    Err(fail) => unavailable(&fail),
                };
            }
            Request::Mechanisms => return Answer::Mechanisms(self.users.mechanisms()),
            Request::Password { name, password } => {
                self.users.verify(&prep::prepare_or_keep(&name), &password)
            }
            Request::Apop {
                name,
                timestamp,
                digest,
            } => self.users.verify_apop(&name, &timestamp, digest.as_bytes()),
        };
        self.conclude(outcome)
    }

    fn step(&self, conversation: u64, mut exchange: Exchange, step: Step) -> Answer {
        let step = match step {
            Step::Wants { name, hash } => match self.users.credential(&self.salts, hash, &name) {
                Ok(credential) => exchange.credential(credential),
                Err(fail) => return unavailable(&fail),
            },
            step => step,
        };
        match step {
            Step::Challenge(challenge) => {
                let mut exchanges = self.exchanges();
                if exchanges.len() >= EXCHANGES {
                    return Answer::Unavailable("too many logins at once".into());
                }
                exchanges.insert(conversation, exchange);
                Answer::Challenge(challenge)
            }
            Step::Claim(Claim { name, password }) => {
                self.conclude(self.users.verify(&name, &password))
            }
            Step::Digest(response) => self.conclude(self.users.verify_cram(&response)),
            Step::Proven { name } => self.conclude(self.users.lookup(&name)),
            Step::Malformed(what) => Answer::Malformed(what.into()),
            Step::Wants { .. } => Answer::Malformed("the exchange is over".into()),
            Step::Tampered(what) => {
                log::warn!("login refused: {what}: is somebody in between?");
                Answer::Refused { delay: DELAY }
            }
            Step::Refused | Step::NotYours => Answer::Refused { delay: DELAY },
        }
    }

    fn conclude(&self, outcome: Result<Option<User>, Fail>) -> Answer {
        match outcome {
            Ok(Some(user)) => match self.way_to_mail(&user) {
                Ok(store) => Answer::Granted(Grant { user, store }),
                Err(fail) => unavailable(&fail),
            },
            Ok(None) => Answer::Refused { delay: DELAY },
            Err(fail) => unavailable(&fail),
        }
    }

    fn way_to_mail(&self, user: &User) -> Result<StoreAccess, Fail> {
        match self.service {
            Service::Smtp => Ok(StoreAccess::None),
            Service::Pop3 | Service::Imap => self.workers.start(user),
        }
    }

    fn exchanges(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Exchange>> {
        self.exchanges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(fail: &Fail) -> Answer {
    log::error!("{fail}");
    Answer::Unavailable(fail.to_string())
}
