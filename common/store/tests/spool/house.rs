//! A private spool in a temporary directory, and short words for what the tests do with it.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use base::{Config, Root};
use store::append::{self, New};
use store::{Answer, FolderName, Message, Part, Request, Selected, Session, Set, Spool, Updates};

pub(crate) struct House {
    dir: tempfile::TempDir,
    pub(crate) spool: Spool,
}

/// Both ways to keep mail.
pub(crate) fn houses() -> [House; 2] {
    [House::new("mbox"), House::new("maildir")]
}

impl House {
    pub(crate) fn new(format: &str) -> Self {
        Self::patient(format, "20s")
    }

    /// One that waits so long for locks.
    pub(crate) fn patient(format: &str, timeout: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("var/spool/mail")).unwrap();
        let root = Root::new(dir.path());
        let text = format!("MAILBOX_FORMAT={format}\nMAILBOX_LOCK_TIMEOUT={timeout}\n");
        let config = Config::parse(&root, &text, Path::new("yubin.def")).unwrap();
        let spool = Spool::open(&root, &config).unwrap();
        Self { dir, spool }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("var/spool").join(below)
    }

    pub(crate) fn inbox(&self) -> PathBuf {
        self.path("mail/ann")
    }

    pub(crate) fn session(&self) -> Session {
        self.spool.session("ann").unwrap()
    }

    /// A session with INBOX selected.
    pub(crate) fn reader(&self) -> Reader {
        let mut session = self.session();
        let selected = select(&mut session, "INBOX", false);
        Reader { session, selected }
    }

    /// As deliver does it.
    pub(crate) fn deliver(&self, id: &str, content: &[u8]) {
        let mut content = Cursor::new(content);
        let new = vec![New::unmarked(&mut content, id, "bob@example.org")];
        let pending = append::begin(&self.spool, "ann", &FolderName::inbox(), new).unwrap();
        assert_eq!(pending.intents().len(), 1);
        pending.commit().unwrap();
    }

    /// Removes all that is a cache.
    pub(crate) fn forget(&self) {
        fs::remove_dir_all(self.path("yubin-mail/ann/idx")).ok();
    }
}

pub(crate) struct Reader {
    pub(crate) session: Session,
    pub(crate) selected: Selected,
}

pub(crate) fn folder(name: &str) -> FolderName {
    FolderName::parse(name).unwrap()
}

pub(crate) fn select(session: &mut Session, name: &str, read_only: bool) -> Selected {
    match session.handle(Request::Select {
        folder: folder(name),
        read_only,
    }) {
        Answer::Selected(selected) => selected,
        other => panic!("{other:?}"),
    }
}

impl Reader {
    pub(crate) fn ask(&mut self, request: Request) -> Answer {
        match self.session.handle(request) {
            Answer::Failed(failed) => panic!("{failed:?}"),
            answer => answer,
        }
    }

    pub(crate) fn messages(&mut self) -> Vec<Message> {
        match self.ask(Request::Fetch(Set::all())) {
            Answer::Messages(messages) => messages.list,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn uids(&mut self) -> Vec<u32> {
        self.messages().iter().map(|m| m.uid).collect()
    }

    pub(crate) fn poll(&mut self) -> Updates {
        match self.ask(Request::Poll { expunges: true }) {
            Answer::Updates(updates) => updates,
            other => panic!("{other:?}"),
        }
    }

    /// A part of a message in pieces of `length`.
    pub(crate) fn part(&mut self, uid: u32, part: Part, length: u32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let offset = all.len() as u64;
            match self.ask(Request::Content {
                uid,
                part,
                offset,
                length,
            }) {
                Answer::Content(content) if content.bytes.is_empty() => {
                    assert_eq!(content.size, offset);
                    return all;
                }
                Answer::Content(content) => all.extend(content.bytes),
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn whole(&mut self, uid: u32) -> Vec<u8> {
        self.part(uid, Part::Whole, 1 << 20)
    }

    /// The same messages asked for together must be the same octets.
    fn check_together(&mut self, all: &[(u32, Vec<u8>)]) {
        for headers in [false, true] {
            let mut left: Vec<u32> = all.iter().map(|(uid, _)| *uid).collect();
            while let Some(first) = left.first().copied() {
                let request = Request::Contents {
                    uids: left.clone(),
                    headers,
                    octets: 5000,
                };
                let Answer::Contents(list) = self.ask(request) else {
                    panic!("no contents");
                };
                let mut took = list.len();
                for whole in &list {
                    let part = if headers { Part::Header } else { Part::Whole };
                    assert_eq!(whole.bytes, self.part(whole.uid, part, 1 << 20));
                    let header = self.part(whole.uid, Part::Header, 1 << 20);
                    assert_eq!(whole.header, header.len() as u64);
                }
                assert!(list.iter().map(|w| w.bytes.len()).sum::<usize>() <= 5000);
                if took == 0 {
                    // Too large to be had so.
                    let part = if headers { Part::Header } else { Part::Whole };
                    assert!(self.part(first, part, 1 << 20).len() > 2000);
                    took = 1;
                }
                left.drain(..took);
            }
        }
    }

    /// All messages' UIDs, sizes checked against the content.
    pub(crate) fn read_all(&mut self) -> Vec<(u32, Vec<u8>)> {
        let mut all = Vec::new();
        for message in self.messages() {
            let content = self.whole(message.uid);
            assert_eq!(
                content.len() as u64,
                message.size,
                "size of {}",
                message.uid
            );
            all.push((message.uid, content));
        }
        self.check_together(&all);
        all
    }
}
