//! `checkpw` itself: reads requests from its daemon's socket, answers each, and ends with the
//! daemon.
//!
//! The main thread reads; a few threads answer, because hashing takes time and programs of the
//! operator take more. Who exists is asked on threads of its own: mail is not to wait for logins.
//! Garbage on the socket costs that packet only. Secrets stay in this process, and out of the log.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::TrySendError;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base::packet::Packets;
use base::{Config, Doing, Fail, Root};

use crate::cert_users::Certificates;
use crate::message::{Answer, Grant, Request, Service, StoreAccess, decode_request, encode_answer};
use crate::password::Passwords;
use crate::salt::Salts;
use crate::sasl::{Claim, Exchange, Mechanism, Nonce, Step, prep};
use crate::token::Tokens;
use crate::user::User;
use crate::users::Users;
use crate::worker::Workers;

/// Threads that hash. Argon2 takes 64 MiB in each.
const THREADS: usize = 4;
/// Threads that wait for programs, where there are some.
const PATIENT: usize = 24;
/// Threads that say who exists.
const QUICK: usize = 2;
/// Requests read and not yet answered, of each kind; one more is told to try later.
const BACKLOG: usize = 256;
/// Exchanges under way; a daemon with more has lost count.
const EXCHANGES: usize = 20_000;
/// When "wrong password" is said, counted from the question: whatever hash was or was not made
/// before, the refused cannot tell it by the clock. What took longer is said after a multiple of it.
const DELAY: Duration = Duration::from_secs(2);

/// Serves until the daemon is gone.
pub fn serve(socket: OwnedFd, root: &Root, config: &Config, service: Service) -> Result<(), Fail> {
    let users = Users::open(root, config)?;
    let passwords = Passwords::open(root, config, &users, service)?;
    let tokens = Tokens::open(root, config, service)?;
    let threads = match passwords.are_stored() && tokens.is_none() {
        true => THREADS,
        false => PATIENT,
    };
    let server = Arc::new(Server {
        socket: Packets::from(socket),
        users,
        passwords,
        tokens,
        certificates: Certificates::open(config)?,
        hashing: [const { Mutex::new(()) }; THREADS],
        turn: AtomicUsize::new(0),
        salts: Salts::open(root)?,
        service,
        workers: Workers::new(root, config, service)?,
        exchanges: Mutex::new(HashMap::new()),
    });
    let (quick, logins) = (crew(&server, QUICK)?, crew(&server, threads)?);
    server.read_all(&quick, &logins)
}

type Asked = (u64, Request);

/// Threads that answer what is sent here.
fn crew(server: &Arc<Server>, threads: usize) -> Result<SyncSender<Asked>, Fail> {
    let (work, todo) = sync_channel(BACKLOG);
    let todo = Arc::new(Mutex::new(todo));
    for _ in 0..threads {
        let (server, todo) = (Arc::clone(server), Arc::clone(&todo));
        thread::Builder::new()
            .spawn(move || server.answer_all(&todo))
            .doing(|| "start a thread")?;
    }
    Ok(work)
}

/// Everything that `checkpw -n` looks at.
pub fn check(root: &Root, config: &Config, service: Service) -> Result<(), Fail> {
    let users = Users::open(root, config)?;
    Passwords::open(root, config, &users, service)?;
    Tokens::open(root, config, service)?;
    Certificates::open(config)?;
    Ok(())
}

/// An exchange, and the client's certificate.
type UnderWay = (Exchange, Option<[u8; 32]>);

struct Server {
    socket: Packets,
    users: Users,
    passwords: Passwords,
    tokens: Option<Tokens>,
    certificates: Option<Certificates>,
    /// Who hashes, holds one of these.
    hashing: [Mutex<()>; THREADS],
    turn: AtomicUsize,
    salts: Salts,
    service: Service,
    workers: Workers,
    exchanges: Mutex<HashMap<u64, UnderWay>>,
}

impl Server {
    fn read_all(&self, quick: &SyncSender<Asked>, logins: &SyncSender<Asked>) -> Result<(), Fail> {
        loop {
            match self.socket.receive() {
                Ok(Some(packet)) => {
                    let Some((id, request)) = decode_request(&packet.parts) else {
                        log::warn!("a request that is none from the daemon");
                        continue;
                    };
                    let crew = match request {
                        Request::Lookup { .. } | Request::Cancel { .. } | Request::Mechanisms => {
                            quick
                        }
                        _ => logins,
                    };
                    match crew.try_send((id, request)) {
                        Ok(()) => {}
                        Err(TrySendError::Full((id, _))) => {
                            let busy = "too many questions at once".to_owned();
                            self.reply(id, Answer::Unavailable(busy));
                        }
                        Err(TrySendError::Disconnected(_)) => {
                            return Err(Fail::temp("all threads are gone"));
                        }
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

    fn answer_all(&self, todo: &Mutex<Receiver<Asked>>) {
        loop {
            let next = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((id, request)) = next else { return };
            self.reply(id, self.timed(request));
        }
    }

    fn reply(&self, id: u64, answer: Answer) {
        let (parts, socket) = encode_answer(id, answer);
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let fds: Vec<_> = socket.iter().map(AsRawFd::as_raw_fd).collect();
        if let Err(e) = self.socket.send(&slices, &fds) {
            // The daemon is gone; the reading thread sees the same.
            log::debug!("answer to the daemon: {e}");
        }
    }

    /// The answer; a refusal's pause is what is left of [`DELAY`].
    fn timed(&self, request: Request) -> Answer {
        let asked = Instant::now();
        match self.answer(request) {
            Answer::Refused { .. } => Answer::Refused {
                delay: rest(asked.elapsed()),
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
                if mechanism.needs_secret() && !self.passwords.are_stored() {
                    return Answer::Malformed("not offered".into());
                }
                let certificate = channel.certificate;
                let (exchange, step) =
                    Exchange::begin(mechanism, channel, initial.as_deref(), nonce);
                return self.step(conversation, exchange, step, certificate.as_ref());
            }
            Request::Continue {
                conversation,
                response,
            } => {
                let exchange = self.exchanges().remove(&conversation);
                let Some((mut exchange, certificate)) = exchange else {
                    return Answer::Malformed("no exchange is under way".into());
                };
                let step = exchange.step(&response);
                return self.step(conversation, exchange, step, certificate.as_ref());
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
            Request::Mechanisms => return Answer::Mechanisms(self.mechanisms()),
            Request::Password { name, password } => {
                self.verify(&prep::prepare_or_keep(&name), &password)
            }
            Request::Apop {
                name,
                timestamp,
                digest,
            } => match self.passwords.are_stored() {
                true => self.users.verify_apop(&name, &timestamp, digest.as_bytes()),
                false => Ok(None),
            },
        };
        self.conclude(outcome)
    }

    /// By which everybody can log in who can at all.
    fn mechanisms(&self) -> Vec<Mechanism> {
        let stored = match self.passwords.are_stored() {
            true => self.users.mechanisms(),
            false => vec![Mechanism::Plain, Mechanism::Login],
        };
        let works = |mechanism: &Mechanism| match mechanism {
            Mechanism::External => self.certificates.is_some(),
            Mechanism::OAuthBearer | Mechanism::XOAuth2 => self.tokens.is_some(),
            other => stored.contains(other),
        };
        Mechanism::ALL.into_iter().filter(works).collect()
    }

    /// A password of whatever origin.
    fn verify(&self, name: &str, password: &[u8]) -> Result<Option<User>, Fail> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let place = self.hashing.get(turn % THREADS);
        let _held = match self.passwords.are_stored() {
            true => place.map(|place| place.lock().unwrap_or_else(PoisonError::into_inner)),
            false => None,
        };
        self.passwords.verify(&self.users, name, password)
    }

    fn step(
        &self,
        conversation: u64,
        mut exchange: Exchange,
        step: Step,
        certificate: Option<&[u8; 32]>,
    ) -> Answer {
        let step = match step {
            Step::Wants { name, hash } => match self.users.credential(&self.salts, hash, &name) {
                Ok(credential) => exchange.credential(credential),
                Err(fail) => return unavailable(&fail),
            },
            Step::Token { name, token } => match self.owner(name.as_deref(), &token) {
                Ok(None) => exchange.denied(),
                outcome => return self.conclude(outcome),
            },
            Step::Certificate { name } => {
                return self.conclude(self.certified(certificate, name.as_deref()));
            }
            step => step,
        };
        match step {
            Step::Challenge(challenge) => {
                let mut exchanges = self.exchanges();
                if exchanges.len() >= EXCHANGES {
                    return Answer::Unavailable("too many logins at once".into());
                }
                exchanges.insert(conversation, (exchange, certificate.copied()));
                Answer::Challenge(challenge)
            }
            Step::Claim(Claim { name, password }) => self.conclude(self.verify(&name, &password)),
            Step::Digest(response) => self.conclude(self.users.verify_cram(&response)),
            Step::Proven { name } => self.conclude(self.users.lookup(&name)),
            Step::Malformed(what) => Answer::Malformed(what.into()),
            Step::Wants { .. } | Step::Token { .. } | Step::Certificate { .. } => {
                Answer::Malformed("the exchange is over".into())
            }
            Step::Tampered(what) => {
                log::warn!("login refused: {what}: is somebody in between?");
                Answer::Refused { delay: DELAY }
            }
            Step::Refused | Step::NotYours => Answer::Refused { delay: DELAY },
        }
    }

    /// Whose token it is, where that is who the client says. Root's is nobody's, as his password.
    fn owner(&self, name: Option<&str>, token: &str) -> Result<Option<User>, Fail> {
        match &self.tokens {
            Some(tokens) => {
                let owner = tokens.verify(&self.users, name, token)?;
                Ok(owner.filter(|user| self.users.may_be(user)))
            }
            None => Ok(None),
        }
    }

    /// Whose certificate it is, where that is who the client says, if it says anything.
    fn certified(
        &self,
        certificate: Option<&[u8; 32]>,
        name: Option<&str>,
    ) -> Result<Option<User>, Fail> {
        let owner = self.certificates.as_ref().zip(certificate);
        let Some(owner) = owner.and_then(|(table, print)| table.user(print)) else {
            return Ok(None);
        };
        let user = self.users.lookup(owner.as_str())?;
        let wanted = match name {
            Some(name) => self.users.lookup(name)?.map(|user| user.name),
            None => user.as_ref().map(|user| user.name.clone()),
        };
        Ok(user.filter(|user| wanted.as_ref() == Some(&user.name) && self.users.may_be(user)))
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

    fn exchanges(&self) -> std::sync::MutexGuard<'_, HashMap<u64, UnderWay>> {
        self.exchanges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// From now until a refusal is said, where the question was asked so long ago.
fn rest(asked: Duration) -> Duration {
    let whole = asked.as_secs() / DELAY.as_secs() + 1;
    let until = DELAY.saturating_mul(u32::try_from(whole).unwrap_or(u32::MAX));
    until.saturating_sub(asked)
}

fn unavailable(fail: &Fail) -> Answer {
    log::error!("{fail}");
    Answer::Unavailable(fail.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_after_two_seconds_or_a_multiple() {
        for (asked, want) in [(0, 2000), (100, 1900), (1999, 1), (2000, 2000), (5500, 500)] {
            let rest = rest(Duration::from_millis(asked));
            assert_eq!(rest, Duration::from_millis(want), "{asked}");
        }
    }
}
