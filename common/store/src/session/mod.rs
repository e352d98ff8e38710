//! One client's view of one user's mail.

mod folders;
mod messages;

pub(crate) use messages::{Slice, header_in};

use std::path::PathBuf;

use base::Fail;

use crate::beneath::Dir;
use crate::body::Body;
use crate::flags::{Flags, Keyword};
use crate::folder::FolderName;
use crate::mailbox::{self, Mailbox, Still};
use crate::request::{Answer, Expunge, MAX_PIECE, Messages, Request, Selected, Updates, Why};
use crate::set::Set;
use crate::spool::Home;
use crate::trouble::{Result, Trouble};
use crate::view::View;

/// One client's view of one user's mail: what is selected, and which numbers its messages have.
#[derive(Debug)]
pub struct Session {
    home: Home,
    open: Option<Open>,
    /// The message that pieces are asked of.
    reading: Option<Reading>,
    appending: Option<Appending>,
}

/// The selected folder.
#[derive(Debug)]
struct Open {
    folder: FolderName,
    mailbox: Mailbox,
    view: View,
    read_only: bool,
    uidvalidity: u32,
}

#[derive(Debug)]
struct Reading {
    uid: u32,
    header_size: u64,
    body: Body,
}

/// A message that a client brings.
#[derive(Debug)]
struct Appending {
    folder: FolderName,
    flags: Flags,
    keywords: Vec<Keyword>,
    date: Option<i64>,
    size: u64,
    body: Body,
}

impl Session {
    pub(crate) fn new(home: Home) -> Self {
        Self {
            home,
            open: None,
            reading: None,
            appending: None,
        }
    }

    /// Whose mail it is.
    pub fn user(&self) -> &str {
        self.home.user()
    }

    /// What to watch for changes of the selected folder: files and directories.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.open
            .as_ref()
            .map_or_else(Vec::new, |open| open.mailbox.paths())
    }

    /// Does it, blocking on locks and the disk. Nothing that a file or a client says makes it
    /// panic; what cannot be done is [`Answer::Failed`] and changes nothing.
    pub fn handle(&mut self, request: Request) -> Answer {
        self.answer(request).unwrap_or_else(|trouble| {
            log::debug!("{}: {}", self.user(), trouble.fail);
            Answer::Failed(trouble.into())
        })
    }

    fn answer(&mut self, request: Request) -> Result<Answer> {
        match request {
            Request::Select { folder, read_only } => self.select(&folder, read_only),
            Request::Unselect => {
                self.leave();
                Ok(Answer::Done)
            }
            Request::Close => self.close(),
            Request::Status(folder) => self.status(&folder),
            Request::List(pattern) => self.list(&pattern),
            Request::Lsub(pattern) => self.lsub(&pattern),
            Request::Create(folder) => self.create(&folder),
            Request::Delete(folder) => self.delete(&folder),
            Request::Rename { from, to } => self.rename(&from, &to),
            Request::Subscribe(folder) => self.subscribe(&folder, true),
            Request::Unsubscribe(folder) => self.subscribe(&folder, false),
            Request::Fetch(set) => {
                let open = self.open.as_ref().ok_or_else(not_selected)?;
                let (list, more) = open.view.messages(&set, open.mailbox.table());
                Ok(Answer::Messages(Messages { list, more }))
            }
            Request::Content {
                uid,
                part,
                offset,
                length,
            } => {
                let length = usize::try_from(length).unwrap_or(MAX_PIECE).min(MAX_PIECE);
                self.content(uid, part, offset, length)
            }
            Request::Contents {
                uids,
                headers,
                octets,
            } => {
                let octets = usize::try_from(octets).unwrap_or(MAX_PIECE).min(MAX_PIECE);
                self.contents(&uids, headers, octets)
            }
            Request::StoreFlags {
                set,
                change,
                flags,
                keywords,
            } => self.store(&set, change, flags, &keywords),
            Request::Append {
                folder,
                flags,
                keywords,
                date,
                size,
            } => self.begin_append(folder, flags, keywords, date, size),
            Request::AppendData(bytes) => self.append_data(&bytes),
            Request::AppendEnd => self.end_append(),
            Request::AppendAbort => {
                self.appending = None;
                Ok(Answer::Done)
            }
            Request::Copy { set, to } => self.copy(&set, &to, false),
            Request::Move { set, to } => self.copy(&set, &to, true),
            Request::Expunge(which) => self.expunge(&which),
            Request::Poll { expunges } => Ok(Answer::Updates(self.poll(expunges)?)),
            Request::Watch(_) => {
                let text = "only a worker watches; use Watcher in one process";
                Err(Trouble::new(Why::Bad, text))
            }
        }
    }

    fn leave(&mut self) {
        self.open = None;
        self.reading = None;
    }

    fn select(&mut self, folder: &FolderName, read_only: bool) -> Result<Answer> {
        self.leave();
        let mut mailbox = Mailbox::open(self.home.place(folder))?;
        mailbox.refresh(!read_only)?;
        let view = View::new(&mailbox.items(), mailbox.table());
        let selected = Selected {
            uidvalidity: mailbox.uidvalidity(),
            uidnext: mailbox.uidnext(),
            exists: view.exists(),
            recent: view.recent(),
            first_unseen: view.first(|item| !item.flags.has(Flags::SEEN)),
            keywords: mailbox.table().names().to_vec(),
            new_keywords: mailbox.takes_keywords() && !read_only,
            read_only,
        };
        let uidvalidity = selected.uidvalidity;
        self.open = Some(Open {
            folder: folder.clone(),
            mailbox,
            view,
            read_only,
            uidvalidity,
        });
        Ok(Answer::Selected(selected))
    }

    fn close(&mut self) -> Result<Answer> {
        if self.open.as_ref().is_some_and(|open| !open.read_only) {
            self.expunge(&Expunge::Deleted)?;
        }
        self.leave();
        Ok(Answer::Done)
    }

    fn poll(&mut self, expunges: bool) -> Result<Updates> {
        // Who polls is at rest, perhaps for long: a message is not kept in memory for that.
        self.reading = None;
        let open = self.open.as_mut().ok_or_else(not_selected)?;
        open.refresh()?;
        Ok(open
            .view
            .update(&open.mailbox.items(), expunges, open.mailbox.table()))
    }

    fn expunge(&mut self, which: &Expunge) -> Result<Answer> {
        let open = self.writable()?;
        open.refresh()?;
        let deleted = |uid: &u32| {
            open.mailbox
                .item(*uid)
                .is_some_and(|item| item.flags.has(Flags::DELETED))
        };
        let mut uids = match which {
            Expunge::Deleted => open.view.resolve(&Set::all()),
            Expunge::DeletedIn(set) | Expunge::Messages(set) => open.view.resolve(set),
        };
        if !matches!(which, Expunge::Messages(_)) {
            uids.retain(deleted);
        }
        if !uids.is_empty() {
            let still = Still {
                uidvalidity: open.uidvalidity,
                deleted: !matches!(which, Expunge::Messages(_)),
            };
            open.mailbox.expunge(&uids, still)?;
        }
        Ok(Answer::Updates(self.poll(true)?))
    }

    /// The selected folder, if it may be changed.
    fn writable(&mut self) -> Result<&mut Open> {
        let open = self.open.as_mut().ok_or_else(not_selected)?;
        if open.read_only {
            let text = format!("folder {} is selected read-only", open.folder);
            return Err(Trouble::new(Why::ReadOnly, text));
        }
        Ok(open)
    }

    /// Where temporary files are made.
    fn temporary(&self) -> &Dir {
        &self.home.journals
    }
}

impl Open {
    fn refresh(&mut self) -> Result<()> {
        self.mailbox.refresh(!self.read_only)?;
        self.check()
    }

    /// Whether these messages are certainly there.
    fn has_all(&mut self, uids: &[u32]) -> bool {
        let known = self.refresh().is_ok();
        known && uids.iter().all(|uid| self.mailbox.item(*uid).is_some())
    }

    /// UIDs of before must still mean the same messages.
    fn check(&self) -> Result<()> {
        let now = self.mailbox.uidvalidity();
        mailbox::same(&self.folder, self.uidvalidity, now)
    }
}

fn not_selected() -> Trouble {
    Trouble {
        why: Why::NotSelected,
        fail: Fail::usage("no folder is selected"),
    }
}
