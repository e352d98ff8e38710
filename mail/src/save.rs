//! Messages into a file of the user's: an mbox, under the locks that everybody takes on one.
//!
//! Guarantees: a message is in the file whole and synced, or the file is as it was. A line that
//! looks like the begin of a message gets a `>` before it. What was seen is told by Status and
//! X-Status, as every mail program reads them; fields in which a mailbox keeps its own numbers do
//! not go along, for in another file they mean nothing or something else.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base::date::Date;
use base::{Doing, Fail, Sysexit};
use store::Flags;
use store::lock::{Locks, MailLock};

/// Fields of a mailbox and not of a message.
const OF_A_MAILBOX: [&str; 10] = [
    "Status",
    "X-Status",
    "X-Keywords",
    "X-UID",
    "X-IMAP",
    "X-IMAPbase",
    "X-UIDVALIDITY",
    "X-Delivery-Id",
    "X-Mbox-Eol",
    // It counts octets that a `>` may add to.
    "Content-Length",
];

/// What one call put into the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    /// The file is new.
    pub(crate) created: bool,
    pub(crate) lines: usize,
    pub(crate) octets: usize,
}

/// Appends to the file at `path` what `text` holds, made by [`mbox`] or any other text.
pub(crate) fn append(path: &Path, text: &[u8], mailbox: bool, locks: Locks) -> Result<Saved, Fail> {
    let doing = || format!("save to {}", path.display());
    if path.is_dir() {
        return Err(Fail::new(
            Sysexit::CantCreat,
            format!("{}: is a directory", path.display()),
        ));
    }
    let created = match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(Fail::io(doing(), e).with_code(Sysexit::CantCreat)),
    };
    let lock = match MailLock::acquire(path, locks) {
        // A dotlock needs a directory that we may write; the file's own lock does not.
        Err(fail) if fail.kind() == Some(io::ErrorKind::PermissionDenied) => MailLock::acquire(
            path,
            Locks {
                dotlock: false,
                ..locks
            },
        )?,
        other => other?,
    };
    let mut file = lock.file();
    let end = file.seek(SeekFrom::End(0)).doing(doing)?;
    let gap = if mailbox {
        gap(file, end).doing(doing)?
    } else {
        ""
    };
    let written = file
        .seek(SeekFrom::End(0))
        .and_then(|_| file.write_all(gap.as_bytes()))
        .and_then(|()| file.write_all(text))
        .and_then(|()| file.sync_all());
    if let Err(e) = written {
        // As it was; if that fails too, the first error tells why.
        file.set_len(end).ok();
        return Err(Fail::io(doing(), e));
    }
    Ok(Saved {
        created,
        lines: text.iter().filter(|b| **b == b'\n').count(),
        octets: text.len(),
    })
}

/// What has to stand between the end of a mailbox and the next message.
fn gap(mut file: &std::fs::File, end: u64) -> io::Result<&'static str> {
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(end.saturating_sub(2)))?;
    file.take(2).read_to_end(&mut tail)?;
    Ok(match tail.as_slice() {
        [] | [b'\n', b'\n'] | [b'\n'] => "",
        [_, b'\n'] => "\n",
        _ => "\n\n",
    })
}

/// How far a message was dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) flags: Flags,
    /// It was there when the mailbox was opened before.
    pub(crate) old: bool,
}

impl Status {
    /// The fields; none for what nobody has seen.
    fn fields(self) -> String {
        let letters = |set: &[(bool, char)]| -> String {
            set.iter().filter(|(on, _)| *on).map(|(_, c)| c).collect()
        };
        let has = |flag| self.flags.has(flag);
        let seen = has(Flags::SEEN);
        let status = letters(&[(seen, 'R'), (self.old || seen, 'O')]);
        let more = letters(&[
            (has(Flags::ANSWERED), 'A'),
            (has(Flags::FLAGGED), 'F'),
            (has(Flags::DRAFT), 'T'),
        ]);
        let mut out = String::new();
        for (name, letters) in [("Status", status), ("X-Status", more)] {
            if !letters.is_empty() {
                out.push_str(&format!("{name}: {letters}\n"));
            }
        }
        out
    }
}

/// A message, given with CRLF line ends, as it stands in an mbox.
pub(crate) fn mbox(message: &[u8], sender: &str, date: Date, status: Status) -> Vec<u8> {
    let sender = match sender.split_whitespace().collect::<String>() {
        name if name.is_empty() => "MAILER-DAEMON".into(),
        name => name,
    };
    let mut out = format!("From {sender} {}\n", date.asctime()).into_bytes();
    let (mut in_header, mut dropping) = (true, false);
    for line in plain(message).split_inclusive(|b| *b == b'\n') {
        if in_header {
            let goes_on = line.starts_with(b" ") || line.starts_with(b"\t");
            let field = mime::header::fields(line).next();
            if !goes_on && field.is_none() {
                in_header = false;
                out.extend_from_slice(status.fields().as_bytes());
            } else if !goes_on {
                dropping = field.is_some_and(|f| OF_A_MAILBOX.iter().any(|name| f.is(name)));
            }
            if in_header && dropping {
                continue;
            }
        }
        let quotes = line.iter().take_while(|b| **b == b'>').count();
        if line
            .get(quotes..)
            .is_some_and(|rest| rest.starts_with(b"From "))
        {
            out.push(b'>');
        }
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    if in_header {
        out.extend_from_slice(status.fields().as_bytes());
    }
    out.push(b'\n');
    out
}

/// With the line ends of a file.
pub(crate) fn plain(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    let mut bytes = message.iter().peekable();
    while let Some(byte) = bytes.next() {
        if *byte != b'\r' || bytes.peek() != Some(&&b'\n') {
            out.push(*byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn locks() -> Locks {
        Locks {
            fcntl: true,
            dotlock: true,
            flock: false,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_message_in_an_mbox() {
        let date = Date::utc(0);
        let text = mbox(
            b"Subject: x\r\n\r\nFrom here\r\n>From there\r\nfrom\r\nend",
            "ann@x",
            date,
            NEW,
        );
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "From ann@x Thu Jan  1 00:00:00 1970\nSubject: x\n\n>From here\n>>From there\nfrom\nend\n\n"
        );
        assert!(mbox(b"", "a b\nc", date, NEW).starts_with(b"From abc Thu"));
        assert!(mbox(b"", "", date, NEW).starts_with(b"From MAILER-DAEMON "));
        assert_eq!(plain(b"a\r\nb\rc\r"), b"a\nb\rc\r");
    }

    const NEW: Status = Status {
        flags: Flags::NONE,
        old: false,
    };

    #[test]
    fn a_saved_message_has_its_status_and_nothing_else_of_the_mailbox() {
        let message = b"Subject: x\r\nX-UID: 7\r\nX-IMAPbase: 1 2\r\n\t3\r\nstatus: O\r\n\
            Content-Length: 3\r\nX-Mailer: y\r\n z\r\n\r\nX-UID: text\r\n";
        let seen = Status {
            flags: Flags::SEEN.with(Flags::ANSWERED).with(Flags::FLAGGED),
            old: false,
        };
        let old = Status { old: true, ..NEW };
        for (status, fields) in [
            (NEW, ""),
            (old, "Status: O\n"),
            (seen, "Status: RO\nX-Status: AF\n"),
        ] {
            let text = mbox(message, "a", Date::utc(0), status);
            assert_eq!(
                String::from_utf8(text).unwrap(),
                format!(
                    "From a Thu Jan  1 00:00:00 1970\nSubject: x\nX-Mailer: y\n z\n{fields}\n\
                     X-UID: text\n\n"
                )
            );
        }
        let bare = mbox(b"Subject: x\r\n", "a", Date::utc(0), old);
        assert!(bare.ends_with(b"\nSubject: x\nStatus: O\n\n"));
    }

    #[test]
    fn messages_are_apart() {
        let dir = tempfile::tempdir().unwrap();
        for (before, wanted) in [
            ("", "x\n"),
            ("a\n\n", "a\n\nx\n"),
            ("a\n", "a\n\nx\n"),
            ("a", "a\n\nx\n"),
            ("\n", "\nx\n"),
        ] {
            let path = dir.path().join("f");
            std::fs::write(&path, before).unwrap();
            append(&path, b"x\n", true, locks()).unwrap();
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                wanted,
                "{before:?}"
            );
        }
        let fresh = append(&dir.path().join("new"), b"x\ny\n", true, locks()).unwrap();
        assert_eq!(
            fresh,
            Saved {
                created: true,
                lines: 2,
                octets: 4
            }
        );
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            2,
            "no lock stays"
        );
        assert!(append(dir.path(), b"", true, locks()).is_err());
        assert!(append(&dir.path().join("no/where"), b"", true, locks()).is_err());
    }
}
