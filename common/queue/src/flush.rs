//! Requests to try the mail for a domain now (ETRN, RFC 1985): smtpd leaves them, qrun takes them.
//!
//! A request is an empty file in `flush/` that is called as its domain, with `@` before it where the
//! domains below count too; who asks again while it is there has asked already. The runner renames it
//! with `+` before it when it begins, so that who asks from then on asks anew, and removes it when all
//! messages of the domain are due: a runner that dies between is followed by one that begins again. A
//! request is a hint and not synced: what a power cut takes away comes at its own time.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use base::{Doing, Domain, Fail};

use crate::dir::Dir;
use crate::id::QueueId;
use crate::queue::{Lane, Queue};
use crate::view::View;

/// The directory, beside those of the messages.
pub(crate) const FLUSH: &str = "flush";
/// Requests that wait at a time; several processes that count at once may be over by their number.
const MAX_REQUESTS: usize = 1000;
/// Octets of a domain, as DNS has it. With both marks it is still a file name.
const MAX_DOMAIN: usize = 253;
const TAKEN: &str = "+";

/// Whose mail is to be tried.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flush {
    domain: Domain,
    /// And of those below it.
    below: bool,
}

impl Flush {
    /// `example.org`, or `@example.org` for those below it too. No address literal.
    pub fn parse(text: &str) -> Option<Self> {
        let (below, name) = match text.strip_prefix('@') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let domain = Domain::parse(name).ok()?;
        let named = !domain.as_str().starts_with('[') && domain.as_str().len() <= MAX_DOMAIN;
        named.then_some(Self { domain, below })
    }

    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether mail for this domain is meant.
    pub fn covers(&self, domain: &Domain) -> bool {
        match self.below {
            true => domain.is_within(&self.domain),
            false => *domain == self.domain,
        }
    }
}

/// As it is parsed, and as the file is called.
impl fmt::Display for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.below { "@" } else { "" };
        write!(f, "{mark}{}", self.domain)
    }
}

impl Queue {
    /// Leaves a request. One that waits already is enough. Blocks.
    pub fn request_flush(&self, wanted: &Flush) -> Result<(), Fail> {
        let dir = self.flush_dir()?;
        let name = wanted.to_string();
        let doing = || format!("make {}", dir.name(&name));
        if dir.stat(&name).doing(doing)?.is_some() {
            return Ok(());
        }
        let mut waiting = 0_usize;
        dir.names(|_| {
            waiting = waiting.saturating_add(1);
            waiting < MAX_REQUESTS
        })?;
        if waiting >= MAX_REQUESTS {
            return Err(Fail::temp(format!("{}: too many requests wait", doing())));
        }
        match dir.named(&name) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).doing(doing),
            _ => Ok(()),
        }
    }

    /// What was asked for, in order. None where nobody can ask.
    pub fn flush_requests(&self) -> Result<Vec<Flush>, Fail> {
        let Some(dir) = &self.0.flush_dir else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        dir.names(|name| {
            let name = std::str::from_utf8(name.as_bytes()).unwrap_or_default();
            found.extend(Flush::parse(name.strip_prefix(TAKEN).unwrap_or(name)));
            found.len() < 2 * MAX_REQUESTS
        })?;
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// From now on it is asked for anew.
    pub fn begin_flush(&self, wanted: &Flush) -> Result<(), Fail> {
        let dir = self.flush_dir()?;
        let name = wanted.to_string();
        match nix::fcntl::renameat(
            dir.fd(),
            OsStr::new(&name),
            dir.fd(),
            OsStr::new(&format!("{TAKEN}{name}")),
        ) {
            // A runner that died had begun.
            Ok(()) | Err(nix::errno::Errno::ENOENT) => Ok(()),
            Err(e) => Err(Fail::io(format!("rename {}", dir.name(&name)), e.into())),
        }
    }

    /// All that it was about is due.
    pub fn end_flush(&self, wanted: &Flush) -> Result<(), Fail> {
        let dir = self.flush_dir()?;
        let name = format!("{TAKEN}{wanted}");
        let removed = dir.unlink(&name);
        removed
            .map(drop)
            .doing(|| format!("remove {}", dir.name(&name)))
    }

    /// One message of a lane without its history; `None` when it is not there.
    pub fn skim(&self, lane: Lane, id: &QueueId) -> Result<Option<View>, Fail> {
        self.look(lane.into(), id, crate::file::Depth::Skim)
    }

    fn flush_dir(&self) -> Result<&Dir, Fail> {
        let missing = || {
            let path = self.flush_path();
            let path = path.display();
            Fail::config(format!(
                "open {path}: make it with `install -d -o yubin -g yubin-smtp -m 3770 {path}'"
            ))
        };
        self.0.flush_dir.as_deref().ok_or_else(missing)
    }

    pub(crate) fn flush_path(&self) -> PathBuf {
        self.path().join(FLUSH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::scratch;

    fn flush(text: &str) -> Flush {
        Flush::parse(text).unwrap()
    }

    fn names(queue: &Queue) -> Vec<String> {
        let read = std::fs::read_dir(queue.flush_path()).unwrap();
        let mut names: Vec<String> = read
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn whose_mail_is_meant() {
        let d = |text: &str| Domain::parse(text).unwrap();
        for (text, domain, covers) in [
            ("example.org", "Example.ORG", true),
            ("example.org", "mx.example.org", false),
            ("@example.org", "example.org", true),
            ("@Example.org", "mx.example.org", true),
            ("@example.org", "badexample.org", false),
        ] {
            assert_eq!(flush(text).covers(&d(domain)), covers, "{text} {domain}");
        }
        let long = format!(
            "{}.{}.{}.{}",
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(63)
        );
        for bad in [
            "",
            "@",
            "@@a.b",
            "#queue",
            "../etc",
            "a/b",
            ".",
            "..",
            "+a",
            "[192.0.2.1]",
            &long,
        ] {
            assert_eq!(Flush::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_asks_twice_asks_once_and_who_asks_meanwhile_asks_anew() {
        let (_dir, queue) = scratch();
        for text in ["example.org", "example.org", "@example.org"] {
            queue.request_flush(&flush(text)).unwrap();
        }
        assert_eq!(names(&queue), ["@example.org", "example.org"]);
        assert_eq!(
            queue.flush_requests().unwrap(),
            [flush("example.org"), flush("@example.org")]
        );
        queue.begin_flush(&flush("example.org")).unwrap();
        queue.end_flush(&flush("@example.org")).unwrap();
        assert_eq!(names(&queue), ["+example.org", "@example.org"]);
        queue.request_flush(&flush("example.org")).unwrap();
        assert_eq!(queue.flush_requests().unwrap().len(), 2);
        queue.end_flush(&flush("example.org")).unwrap();
        assert_eq!(names(&queue), ["@example.org", "example.org"]);
        // The runner that had begun it died.
        queue.begin_flush(&flush("example.org")).unwrap();
        assert_eq!(queue.flush_requests().unwrap().len(), 2);
        queue.begin_flush(&flush("example.org")).unwrap();
        queue.end_flush(&flush("example.org")).unwrap();
        assert_eq!(names(&queue), ["@example.org"]);
    }

    #[test]
    fn what_is_asked_for_is_bounded() {
        let (_dir, queue) = scratch();
        for n in 0..MAX_REQUESTS {
            queue.request_flush(&flush(&format!("n{n}.test"))).unwrap();
        }
        assert!(queue.request_flush(&flush("one.more")).is_err());
        queue.request_flush(&flush("n5.test")).unwrap();
        assert_eq!(names(&queue).len(), MAX_REQUESTS);
    }

    #[test]
    fn a_queue_from_before_says_what_it_lacks() {
        let (dir, queue) = scratch();
        let path = queue.flush_path();
        drop(queue);
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        let queue = Queue::open(&base::Root::new(dir.path())).unwrap();
        assert_eq!(queue.flush_requests().unwrap(), []);
        let fail = queue.request_flush(&flush("a.test")).unwrap_err();
        assert!(fail.to_string().contains("-m 3770"), "{fail}");
    }
}
