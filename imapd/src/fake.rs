//! A store in memory for the tests of sessions: a few mailboxes, every one with UIDVALIDITY 7.

#![allow(clippy::cast_possible_truncation)] // a test has few messages

use store::request::{
    Answer, Change, Content, Expunge, Failed, Folder, Message, Messages, Part, Request, Selected,
    Status, Updates, Whole, Why,
};
use store::{Flags, FolderName, Keyword, Pattern, Set};

#[derive(Clone)]
struct Mail {
    uid: u32,
    flags: Flags,
    keywords: Vec<Keyword>,
    date: i64,
    text: Vec<u8>,
}

struct Mailbox {
    name: String,
    uidnext: u32,
    mails: Vec<Mail>,
}

/// See above.
pub(crate) struct Store {
    mailboxes: Vec<Mailbox>,
    subscribed: Vec<String>,
    selected: Option<usize>,
    /// What the client has been told.
    told: usize,
    append: Option<(usize, Mail)>,
    /// Requests for octets of messages.
    pub(crate) reads: usize,
}

type Done = Result<Answer, Failed>;

fn failed<T>(why: Why, text: &str) -> Result<T, Failed> {
    Err(Failed {
        why,
        text: text.into(),
    })
}

impl Store {
    pub(crate) fn new() -> Self {
        let inbox = Mailbox {
            name: "INBOX".into(),
            uidnext: 1,
            mails: vec![],
        };
        Self {
            mailboxes: vec![inbox],
            subscribed: vec![],
            selected: None,
            told: 0,
            append: None,
            reads: 0,
        }
    }

    pub(crate) fn add(&mut self, folder: &str, text: &str, flags: Flags) {
        let at = self
            .mailboxes
            .iter()
            .position(|m| m.name == folder)
            .unwrap();
        let mailbox = &mut self.mailboxes[at];
        let (uid, text) = (mailbox.uidnext, text.as_bytes().to_vec());
        mailbox.uidnext += 1;
        mailbox.mails.push(Mail {
            uid,
            flags,
            keywords: vec![],
            date: 837_596_665,
            text,
        });
    }

    fn index(&self, name: &FolderName) -> Result<usize, Failed> {
        let at = self.mailboxes.iter().position(|m| m.name == name.as_str());
        at.map_or_else(
            || failed(Why::NoSuchFolder, &format!("{name}: no such mailbox")),
            Ok,
        )
    }

    fn current(&mut self) -> Result<&mut Mailbox, Failed> {
        match self.selected {
            Some(at) => Ok(&mut self.mailboxes[at]),
            None => failed(Why::NotSelected, "no mailbox is selected"),
        }
    }

    /// Indices into the selected mailbox's mails.
    fn of(&mut self, set: &Set) -> Result<Vec<usize>, Failed> {
        let mails = &self.current()?.mails;
        let (count, last) = (mails.len() as u32, mails.last().map_or(0, |m| m.uid));
        let within = |at: &usize| match set {
            Set::Seq(ranges) => ranges.contains(*at as u32 + 1, count),
            Set::Uid(ranges) => ranges.contains(mails[*at].uid, last),
        };
        Ok((0..mails.len()).filter(within).collect())
    }

    fn messages(&mut self, indices: &[usize]) -> Result<Messages, Failed> {
        let mails = &self.current()?.mails;
        let message = |at: &usize| {
            let mail = &mails[*at];
            Message {
                seq: *at as u32 + 1,
                uid: mail.uid,
                flags: mail.flags,
                recent: false,
                keywords: mail.keywords.clone(),
                date: mail.date,
                size: mail.text.len() as u64,
            }
        };
        // Few at once: the session must not care.
        Ok(Messages {
            list: indices.iter().take(2).map(message).collect(),
            more: indices.len() > 2,
        })
    }

    pub(crate) fn handle(&mut self, request: Request) -> Answer {
        self.try_handle(request).unwrap_or_else(Answer::Failed)
    }

    fn try_handle(&mut self, request: Request) -> Done {
        match request {
            Request::Select { folder, read_only } => self.select(&folder, read_only),
            Request::Unselect => {
                self.selected = None;
                Ok(Answer::Done)
            }
            Request::Close => {
                self.current()?
                    .mails
                    .retain(|m| !m.flags.has(Flags::DELETED));
                self.selected = None;
                Ok(Answer::Done)
            }
            Request::Status(name) => {
                let mailbox = &self.mailboxes[self.index(&name)?];
                let unseen = mailbox
                    .mails
                    .iter()
                    .filter(|m| !m.flags.has(Flags::SEEN))
                    .count();
                Ok(Answer::Status(Status {
                    uidvalidity: 7,
                    uidnext: mailbox.uidnext,
                    exists: mailbox.mails.len() as u32,
                    recent: 0,
                    unseen: unseen as u32,
                }))
            }
            Request::List(pattern) => {
                let names = self.mailboxes.iter().map(|m| m.name.as_str());
                Ok(folders(names, &pattern))
            }
            Request::Lsub(pattern) => {
                let names = self.subscribed.iter().map(String::as_str);
                Ok(folders(names, &pattern))
            }
            Request::Create(name) if self.index(&name).is_ok() => {
                failed(Why::Exists, &format!("{name}: is there already"))
            }
            Request::Create(name) => {
                let name = name.as_str().into();
                self.mailboxes.push(Mailbox {
                    name,
                    uidnext: 1,
                    mails: vec![],
                });
                Ok(Answer::Done)
            }
            Request::Delete(name) => {
                let at = self.index(&name)?;
                self.mailboxes.remove(at);
                Ok(Answer::Done)
            }
            Request::Rename { from, to } => {
                let at = self.index(&from)?;
                self.mailboxes[at].name = to.as_str().into();
                Ok(Answer::Done)
            }
            Request::Subscribe(name) => {
                self.subscribed.push(name.as_str().into());
                Ok(Answer::Done)
            }
            Request::Unsubscribe(name) => {
                self.subscribed.retain(|n| n != name.as_str());
                Ok(Answer::Done)
            }
            Request::Watch(_) => Ok(Answer::Done),
            other => self.on_messages(other),
        }
    }

    fn select(&mut self, folder: &FolderName, read_only: bool) -> Done {
        self.selected = Some(self.index(folder)?);
        let mailbox = self.current()?;
        let first = mailbox.mails.iter().position(|m| !m.flags.has(Flags::SEEN));
        let selected = Selected {
            uidvalidity: 7,
            uidnext: mailbox.uidnext,
            exists: mailbox.mails.len() as u32,
            recent: 0,
            first_unseen: first.map(|at| at as u32 + 1),
            keywords: vec![],
            new_keywords: true,
            read_only,
        };
        self.told = mailbox.mails.len();
        Ok(Answer::Selected(selected))
    }

    fn on_messages(&mut self, request: Request) -> Done {
        match request {
            Request::Fetch(set) => {
                let indices = self.of(&set)?;
                Ok(Answer::Messages(self.messages(&indices)?))
            }
            Request::Content {
                uid,
                part,
                offset,
                length,
            } => {
                self.reads += 1;
                let mail = self.current()?.mails.iter().find(|m| m.uid == uid);
                let Some(mail) = mail else {
                    return failed(Why::Gone, "gone");
                };
                let (header, text) = mime::header::split(&mail.text);
                let bytes = match part {
                    Part::Whole => &mail.text,
                    Part::Header => header,
                    Part::Text => text,
                };
                // Short pieces: the session must not care.
                let start = (offset as usize).min(bytes.len());
                let end = (start + (length as usize).min(50)).min(bytes.len());
                let (size, bytes) = (bytes.len() as u64, bytes[start..end].to_vec());
                Ok(Answer::Content(Content { uid, size, bytes }))
            }
            Request::Contents {
                uids,
                headers,
                octets,
            } => {
                self.reads += 1;
                let (mut list, mut left) = (vec![], octets as usize);
                for uid in uids {
                    let mail = self.current()?.mails.iter().find(|m| m.uid == uid);
                    let Some(mail) = mail else { break };
                    let (header, _) = mime::header::split(&mail.text);
                    let bytes = if headers { header } else { &mail.text };
                    // Few at once, and not every message: the session must not care.
                    if bytes.len() > left || list.len() == 3 || uid % 4 == 0 {
                        break;
                    }
                    left -= bytes.len();
                    list.push(Whole {
                        uid,
                        header: header.len() as u64,
                        bytes: bytes.to_vec(),
                    });
                }
                Ok(Answer::Contents(list))
            }
            Request::StoreFlags {
                set,
                change,
                flags,
                keywords,
            } => {
                let indices = self.of(&set)?;
                for &at in &indices {
                    let mail = &mut self.current()?.mails[at];
                    match change {
                        Change::Add => mail.flags = mail.flags.with(flags),
                        Change::Remove => mail.flags = mail.flags.without(flags),
                        Change::Replace => mail.flags = flags,
                    }
                    match change {
                        Change::Remove => mail.keywords.retain(|k| !keywords.contains(k)),
                        Change::Add => mail.keywords.extend(keywords.clone()),
                        Change::Replace => mail.keywords.clone_from(&keywords),
                    }
                }
                Ok(Answer::Stored(self.messages(&indices)?))
            }
            Request::Append {
                folder,
                flags,
                keywords,
                date,
                ..
            } => {
                let at = self.index(&folder)?;
                let mail = Mail {
                    uid: 0,
                    flags,
                    keywords,
                    date: date.unwrap_or(0),
                    text: vec![],
                };
                self.append = Some((at, mail));
                Ok(Answer::Done)
            }
            Request::AppendData(bytes) => {
                self.append.as_mut().unwrap().1.text.extend(bytes);
                Ok(Answer::Done)
            }
            Request::AppendAbort => {
                self.append = None;
                Ok(Answer::Done)
            }
            Request::AppendEnd => {
                let (at, mut mail) = self.append.take().unwrap();
                let mailbox = &mut self.mailboxes[at];
                mail.uid = mailbox.uidnext;
                mailbox.uidnext += 1;
                let uid = mail.uid;
                mailbox.mails.push(mail);
                Ok(Answer::Appended {
                    uidvalidity: 7,
                    uid,
                })
            }
            Request::Copy { set, to } => self.copy(&set, &to),
            Request::Move { set, to } => {
                let Answer::Copied {
                    uidvalidity,
                    source,
                    copies,
                    ..
                } = self.copy(&set, &to)?
                else {
                    unreachable!()
                };
                let updates = self.expunge(&source)?;
                Ok(Answer::Copied {
                    uidvalidity,
                    source,
                    copies,
                    updates,
                })
            }
            Request::Expunge(what) => {
                let indices = match &what {
                    Expunge::Deleted => self.of(&Set::all())?,
                    Expunge::DeletedIn(set) | Expunge::Messages(set) => self.of(set)?,
                };
                let mails = &self.current()?.mails;
                let gone = indices
                    .iter()
                    .filter(|at| mails[**at].flags.has(Flags::DELETED));
                let gone: Vec<u32> = gone.map(|at| mails[*at].uid).collect();
                Ok(Answer::Updates(self.expunge(&gone)?))
            }
            Request::Poll { .. } => {
                let count = self.current()?.mails.len();
                let exists = (count != self.told).then_some(count as u32);
                self.told = count;
                Ok(Answer::Updates(Updates {
                    exists,
                    ..Updates::default()
                }))
            }
            other => panic!("{other:?}"),
        }
    }

    fn copy(&mut self, set: &Set, to: &FolderName) -> Done {
        let target = self.index(to)?;
        let indices = self.of(set)?;
        let mails: Vec<Mail> = indices
            .iter()
            .map(|at| self.current().unwrap().mails[*at].clone())
            .collect();
        let source = mails.iter().map(|m| m.uid).collect();
        let mut copies = vec![];
        for mut mail in mails {
            let mailbox = &mut self.mailboxes[target];
            mail.uid = mailbox.uidnext;
            mailbox.uidnext += 1;
            copies.push(mail.uid);
            mailbox.mails.push(mail);
        }
        Ok(Answer::Copied {
            uidvalidity: 7,
            source,
            copies,
            updates: Updates::default(),
        })
    }

    fn expunge(&mut self, uids: &[u32]) -> Result<Updates, Failed> {
        let mut updates = Updates::default();
        for uid in uids {
            let mails = &mut self.current()?.mails;
            let at = mails.iter().position(|m| m.uid == *uid).unwrap();
            mails.remove(at);
            updates.expunged.push(at as u32 + 1);
            updates.expunged_uids.push(*uid);
        }
        self.told = self.current()?.mails.len();
        Ok(updates)
    }
}

fn folders<'a>(names: impl Iterator<Item = &'a str>, pattern: &Pattern) -> Answer {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let folder = |name: &&str| Folder {
        name: FolderName::parse(name).unwrap(),
        selectable: true,
        children: names.iter().any(|n| n.starts_with(&format!("{name}/"))),
    };
    let mut list: Vec<Folder> = names.iter().map(folder).collect();
    list.retain(|folder| pattern.matches(&folder.name));
    Answer::Folders(list)
}
