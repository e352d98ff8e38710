//! One user's mailbox for one batch: in this process where there is one uid, else in a process that
//! became the user. Both go the same way: lock, work out what will be written, have it made durable
//! in the queue, write, sync (DESIGN 4).
//!
//! Guarantees: nothing is written before `journal` said yes; on every error the caller may try
//! again with [`Mailbox::redo`] first. What is written and how a torn tail is found is the store's.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use base::{Config, Doing, Fail, Root, Status};
use store::append::{self, Intent, New, Redo};
use store::{Flags, FolderName, Spool};

use crate::helper::{Helper, LINGER, Process};
use base::packet::{MAX_FDS, Packet, Packets};

/// Letters in one batch.
pub(crate) const MAX_BATCH: usize = if MAX_FDS < 32 { MAX_FDS } else { 32 };

/// One message for one mailbox.
pub(crate) struct Item {
    /// The message with its trace fields, in a file of its own that can be handed to another
    /// process: it reads and seeks in it as it likes, and never sees the queue.
    pub(crate) content: File,
    pub(crate) delivery_id: String,
    pub(crate) reverse_path: String,
    /// Seconds since 1970, for the From_ line.
    pub(crate) date: i64,
}

impl Item {
    fn message(&mut self) -> New<'_> {
        New {
            content: &mut self.content,
            delivery_id: self.delivery_id.clone(),
            reverse_path: self.reverse_path.clone(),
            date: self.date,
            flags: Flags::default(),
            keywords: Vec::new(),
        }
    }
}

/// The spool, where one uid delivers to all. It is opened anew for each batch: one that is not
/// mounted puts its mail off, and what is mounted later is found.
pub(crate) struct Local {
    pub(crate) root: Root,
    pub(crate) config: Config,
}

/// Where a user's mail goes.
pub(crate) enum Mailbox<'a> {
    Here { spool: Spool, user: &'a str },
    There(Process<'a>),
}

impl<'a> Mailbox<'a> {
    /// The mailbox of `user`; nothing is locked yet.
    pub(crate) fn open(
        local: Option<&Local>,
        helper: Option<&'a Helper>,
        user: &'a str,
    ) -> Result<Self, Fail> {
        match (local, helper) {
            (_, Some(helper)) => Ok(Self::There(helper.open(user)?)),
            (Some(local), None) => {
                let spool = Spool::open(&local.root, &local.config)?;
                Ok(Self::Here { spool, user })
            }
            (None, None) => Err(Fail::temp("no spool")),
        }
    }

    /// Whether an append that was announced is in the mailbox.
    pub(crate) fn redo(&self, intent: &Intent, item: &mut Item) -> Result<Redo, Fail> {
        match self {
            Self::Here { spool, .. } => append::redo(spool, intent, &mut item.message()),
            Self::There(process) => {
                let mut parts = vec![REDO.to_vec(), intent.encode()];
                describe(item, &mut parts);
                match ask(process, &parts, &[&item.content])?.as_slice() {
                    [verb] if verb == DONE => Ok(Redo::Done),
                    [verb] if verb == NOT_THERE => Ok(Redo::NotThere),
                    _ => Err(strange()),
                }
            }
        }
    }

    /// Appends all or none. `journal` makes the intents durable, one for each item in order; on its
    /// error nothing is written.
    pub(crate) fn append(
        &self,
        items: &mut [Item],
        journal: impl FnOnce(&[Intent]) -> Result<(), Fail>,
    ) -> Result<(), Fail> {
        match self {
            Self::Here { spool, user } => {
                let new = items.iter_mut().map(Item::message).collect();
                let pending = append::begin(spool, user, &FolderName::inbox(), new)?;
                journal(pending.intents())?;
                pending.commit()
            }
            Self::There(process) => {
                let mut parts = vec![APPEND.to_vec()];
                items.iter().for_each(|item| describe(item, &mut parts));
                let files: Vec<&File> = items.iter().map(|item| &item.content).collect();
                let answer = ask(process, &parts, &files)?;
                let intents: Option<Vec<Intent>> = match answer.split_first() {
                    Some((verb, rest)) if verb == INTENTS && rest.len() == items.len() => {
                        rest.iter().map(|bytes| Intent::decode(bytes)).collect()
                    }
                    _ => None,
                };
                journal(&intents.ok_or_else(strange)?)?;
                match ask(process, &[COMMIT.to_vec()], &[])?.as_slice() {
                    [verb] if verb == DONE => Ok(()),
                    _ => Err(strange()),
                }
            }
        }
    }
}

// The words between the two processes.
const APPEND: &[u8] = b"append";
const REDO: &[u8] = b"redo";
const COMMIT: &[u8] = b"commit";
const INTENTS: &[u8] = b"intents";
const DONE: &[u8] = b"done";
const NOT_THERE: &[u8] = b"not there";
const FAILED: &[u8] = b"failed";

/// The other process's side: serves batches, as the user, until none comes for a while. When deliver
/// goes away before it said `commit`, nothing is written. The spool is opened for each batch: for one
/// that is out of reach deliver is told why.
pub(crate) fn serve(
    socket: &Packets,
    spool: impl Fn() -> Result<Spool, Fail>,
    user: &str,
) -> Result<(), Fail> {
    let doing = || "read a request";
    while socket.wait(LINGER).doing(doing)? {
        let Some(request) = socket.receive().doing(doing)? else {
            break;
        };
        let answer = spool().and_then(|spool| match request.parts.split_first() {
            Some((verb, _)) if verb == APPEND => appends(socket, request, &spool, user),
            Some((verb, _)) if verb == REDO => redoes(request, &spool, user),
            _ => Err(strange()),
        });
        match answer {
            Ok(Some(verb)) => reply(socket, &[verb])?,
            Ok(None) => return Ok(()),
            Err(fail) => failed(socket, &fail)?,
        }
    }
    Ok(())
}

fn failed(socket: &Packets, why: &Fail) -> Result<(), Fail> {
    let status = why.status().unwrap_or(Status::SYSTEM).to_string();
    reply(
        socket,
        &[FAILED, status.as_bytes(), why.to_string().as_bytes()],
    )
}

fn appends(
    socket: &Packets,
    request: Packet,
    spool: &Spool,
    user: &str,
) -> Result<Option<&'static [u8]>, Fail> {
    let mut items = read_items(request.parts.get(1..).unwrap_or_default(), request.fds)?;
    let new = items.iter_mut().map(Item::message).collect();
    let pending = append::begin(spool, user, &FolderName::inbox(), new)?;
    let intents: Vec<Vec<u8>> = pending.intents().iter().map(Intent::encode).collect();
    let mut parts = vec![INTENTS];
    parts.extend(intents.iter().map(Vec::as_slice));
    reply(socket, &parts)?;
    match socket.receive().doing(|| "wait for commit")? {
        Some(word) if word.parts == [COMMIT] => pending.commit().map(|()| Some(DONE)),
        _ => Ok(None),
    }
}

fn redoes(request: Packet, spool: &Spool, user: &str) -> Result<Option<&'static [u8]>, Fail> {
    let intent = request.parts.get(1).and_then(|bytes| Intent::decode(bytes));
    // This process is that user and no other; the check is for our own mistakes.
    let intent = intent.filter(|i| i.user == user).ok_or_else(strange)?;
    let mut items = read_items(request.parts.get(2..).unwrap_or_default(), request.fds)?;
    let item = items.first_mut().ok_or_else(strange)?;
    Ok(Some(
        match append::redo(spool, &intent, &mut item.message())? {
            Redo::Done => DONE,
            Redo::NotThere => NOT_THERE,
        },
    ))
}

/// What an item has besides its content.
fn describe(item: &Item, parts: &mut Vec<Vec<u8>>) {
    parts.push(item.delivery_id.clone().into_bytes());
    parts.push(item.reverse_path.clone().into_bytes());
    parts.push(item.date.to_be_bytes().to_vec());
}

fn read_items(parts: &[Vec<u8>], files: Vec<OwnedFd>) -> Result<Vec<Item>, Fail> {
    let (described, rest) = parts.as_chunks::<3>();
    if !rest.is_empty() || described.len() != files.len() || files.is_empty() {
        return Err(strange());
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| strange());
    described
        .iter()
        .zip(files)
        .map(|([id, path, date], file)| {
            let date: [u8; 8] = date.as_slice().try_into().map_err(|_| strange())?;
            Ok(Item {
                content: File::from(file),
                delivery_id: text(id)?,
                reverse_path: text(path)?,
                date: i64::from_be_bytes(date),
            })
        })
        .collect()
}

fn ask(process: &Process<'_>, parts: &[Vec<u8>], files: &[&File]) -> Result<Vec<Vec<u8>>, Fail> {
    let doing = || "talk to the mailbox's process";
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let fds: Vec<RawFd> = files.iter().map(|f| f.as_raw_fd()).collect();
    let socket = process.socket()?;
    socket.send(&parts, &fds).doing(doing)?;
    let answer = socket.receive().doing(doing)?;
    let parts = answer
        .ok_or_else(|| Fail::temp("the mailbox's process is gone"))?
        .parts;
    // Of all its answers only this one asks for something.
    process.set_busy(parts.first().is_some_and(|verb| verb == INTENTS));
    match parts.as_slice() {
        [verb, status, text] if verb == FAILED => {
            let status = std::str::from_utf8(status).ok().and_then(Status::parse);
            Err(Fail::temp(String::from_utf8_lossy(text))
                .with_status(status.unwrap_or(Status::SYSTEM)))
        }
        _ => Ok(parts),
    }
}

/// To a deliver that is gone nothing can be said; it will ask again.
fn reply(socket: &Packets, parts: &[&[u8]]) -> Result<(), Fail> {
    match socket.send(parts, &[]) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        sent => sent.doing(|| "answer deliver"),
    }
}

/// The two sides are one program; still neither believes the other.
fn strange() -> Fail {
    Fail::temp("the mailbox's process and deliver do not understand each other")
}

#[cfg(test)]
mod tests {
    use super::Mailbox::There;
    use super::*;
    use base::{Config, Root};
    use std::io::Write;
    use std::path::Path;

    fn item(id: &str, text: &str) -> Item {
        let mut content = tempfile::tempfile().unwrap();
        content.write_all(text.as_bytes()).unwrap();
        Item {
            content,
            delivery_id: id.into(),
            reverse_path: "s@x".into(),
            date: 1_000_000_000,
        }
    }

    /// A spool with an mbox for ann, here and on the other side of a socket.
    fn both(test: impl Fn(&Mailbox<'_>, &dyn Fn() -> String)) {
        for there in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let root = Root::new(dir.path());
            for path in ["/var/spool/mail", store::spool::STORE] {
                std::fs::create_dir_all(root.path(path)).unwrap();
            }
            let config = Config::parse(&root, "", Path::new("yubin.def")).unwrap();
            let spool = Spool::open(&root, &config).unwrap();
            let mbox = || std::fs::read_to_string(root.path("/var/spool/mail/ann")).unwrap();
            if there {
                let (ours, its) = Packets::pair().unwrap();
                std::thread::scope(|scope| {
                    let served = scope.spawn(|| {
                        let its = its;
                        serve(&its, || Ok(spool.clone()), "ann")
                    });
                    let helper = Helper::with("ann", ours);
                    test(&There(helper.open("ann").unwrap()), &mbox);
                    drop(helper);
                    served.join().unwrap().unwrap();
                });
            } else {
                test(
                    &Mailbox::Here {
                        spool: spool.clone(),
                        user: "ann",
                    },
                    &mbox,
                );
            }
        }
    }

    #[test]
    fn a_batch_is_appended_and_found_again() {
        both(|mailbox, mbox| {
            let mut items = [
                item("a-0", "A: 1\r\n\r\none\r\n"),
                item("b-0", "A: 2\r\n\r\ntwo\r\n"),
            ];
            let mut intents = Vec::new();
            let journal = |announced: &[Intent]| {
                intents = announced.to_vec();
                Ok(())
            };
            mailbox.append(&mut items, journal).unwrap();
            let text = mbox();
            assert_eq!(
                (
                    text.matches("\none\n").count(),
                    text.matches("\ntwo\n").count()
                ),
                (1, 1)
            );
            for (intent, item) in intents.iter().zip(&mut items) {
                assert_eq!(mailbox.redo(intent, item).unwrap(), Redo::Done);
            }
            assert_eq!(mbox(), text);
        });
    }

    #[test]
    fn a_mailbox_out_of_reach_says_why() {
        let (ours, its) = Packets::pair().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let its = its;
                let gone = || Err(Fail::temp("open directory /spool: gone"));
                serve(&its, gone, "ann").unwrap();
            });
            let helper = Helper::with("ann", ours);
            let mailbox = There(helper.open("ann").unwrap());
            for _ in 0..2 {
                let asked = mailbox.append(&mut [item("a-0", "A: 1\r\n\r\n")], |_| Ok(()));
                let text = asked.unwrap_err().to_string();
                assert!(text.contains("/spool: gone"), "{text}");
            }
        });
    }

    #[test]
    fn what_was_not_journaled_is_not_written() {
        both(|mailbox, mbox| {
            let refuse = |_: &[Intent]| Err(Fail::temp("the queue is full"));
            let refused = mailbox.append(&mut [item("a-0", "A: 1\r\n\r\none\r\n")], refuse);
            assert!(refused.unwrap_err().to_string().contains("queue is full"));
            // The other process is still waiting for the word, or gone: it has written nothing.
            assert!(!mbox().contains("one"));
        });
    }
}
