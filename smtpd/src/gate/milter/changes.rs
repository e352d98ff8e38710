//! What a milter changes of a message: collected while it speaks, applied when it has said that the
//! message may go on.

use std::fs::File;
use std::io::{self, Cursor, Write};

use base::{Recipient, ReversePath};
use milter::Trouble;
use milter::edit::{self, Header};
use milter::packet::Garbage;
use milter::reply::Modification;
use queue::Queue;

use crate::command::{self, Command, Path};
use crate::gate::{Body, Mail};

/// A new body that is larger than this goes to disk.
const MEMORY: usize = 64 * 1024;

/// See the module.
pub(super) struct Changes<'a> {
    queue: &'a Queue,
    size_limit: u64,
    /// All but those of the body, in their order.
    list: Vec<Modification>,
    body: Option<NewBody>,
}

/// A header as milters see it: without our Received.
pub(super) fn shown(mail: &Mail) -> Header {
    let above = mail.above.concat().into_bytes();
    Header::new(above, mail.content.header.clone())
}

impl<'a> Changes<'a> {
    pub(super) fn new(queue: &'a Queue, size_limit: u64) -> Self {
        Self {
            queue,
            size_limit,
            list: Vec::new(),
            body: None,
        }
    }

    /// Keeps one. It fails where our disk does.
    pub(super) fn note(&mut self, change: Modification) -> io::Result<()> {
        match change {
            Modification::ReplaceBody(piece) => {
                let body = self.body.get_or_insert_default();
                if body.size <= self.size_limit {
                    body.append(&piece, self.queue)?;
                }
            }
            other => self.list.push(other),
        }
        Ok(())
    }

    /// Makes them, all or none; the reason where the message is to be held.
    pub(super) fn apply(
        self,
        mut header: Header,
        mail: &mut Mail,
        leading_space: bool,
    ) -> Result<Option<String>, Trouble> {
        let mut envelope = Envelope {
            reverse_path: mail.reverse_path.clone(),
            added: mail.added.clone(),
            removed: mail.removed.clone(),
        };
        let mut hold = None;
        for change in self.list {
            match change {
                Modification::AddHeader { name, value } => {
                    header.add(&edit::field(&name, &value, leading_space)?);
                }
                Modification::InsertHeader { index, name, value } => {
                    header.insert(index, &edit::field(&name, &value, leading_space)?);
                }
                Modification::ChangeHeader { index, name, value } => {
                    let field = edit::field(&name, &value, leading_space)?;
                    let field = (!value.is_empty()).then_some(field.as_slice());
                    header.change(index, &name, field);
                }
                Modification::Quarantine(reason) => hold = Some(reason),
                Modification::ReplaceBody(_) => {}
                other => envelope.change(&other)?,
            }
        }
        if let Some(body) = self.body {
            if body.size > self.size_limit {
                return Err(Garbage("a body that is larger than MESSAGE_SIZE_LIMIT").into());
            }
            header.end();
            mail.content.body = body.finish(self.queue).map_err(Trouble::Ours)?;
        }
        let (above, own) = header.into_parts();
        mail.above = match above.as_slice() {
            [] => Vec::new(),
            above => vec![String::from_utf8_lossy(above).into_owned()],
        };
        mail.content.header = own;
        mail.reverse_path = envelope.reverse_path;
        mail.added = envelope.added;
        mail.removed = envelope.removed;
        Ok(hold)
    }
}

struct Envelope {
    reverse_path: ReversePath,
    added: Vec<Recipient>,
    removed: Vec<base::Address>,
}

impl Envelope {
    fn change(&mut self, change: &Modification) -> Result<(), Garbage> {
        match change {
            Modification::AddRecipient { address, args } => {
                let recipient = recipient(address, args.as_deref())?;
                self.added.retain(|r| r.address != recipient.address);
                self.added.push(recipient);
            }
            Modification::RemoveRecipient(address) => {
                let gone = recipient(address, None)?.address;
                self.added.retain(|r| r.address != gone);
                self.removed.push(gone);
            }
            Modification::ChangeSender { address, args } => {
                self.reverse_path = sender(address, args.as_deref())?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// As a client would write it. A milter may leave the brackets out.
fn path(verb: &str, address: &str, args: Option<&str>) -> Result<Command, Garbage> {
    let address = address.trim();
    let inner = address.strip_prefix('<').and_then(|a| a.strip_suffix('>'));
    let inner = inner.unwrap_or(address);
    let line = format!("{verb}:<{inner}> {}", args.unwrap_or_default());
    command::parse(line.as_bytes()).map_err(|_| Garbage("an address or parameters that are none"))
}

fn recipient(address: &str, args: Option<&str>) -> Result<Recipient, Garbage> {
    match path("RCPT TO", address, args)? {
        Command::Rcpt(rcpt) => match rcpt.to {
            Path::Full(address) => Ok(Recipient {
                address,
                orcpt: rcpt.orcpt,
                notify: rcpt.notify,
            }),
            Path::Local(_) => Err(Garbage("a recipient without a domain")),
        },
        _ => Err(Garbage("no recipient")),
    }
}

fn sender(address: &str, args: Option<&str>) -> Result<ReversePath, Garbage> {
    match path("MAIL FROM", address, args)? {
        Command::Mail(mail) => match mail.from {
            None => Ok(ReversePath::Null),
            Some(Path::Full(address)) => Ok(ReversePath::Address(address)),
            Some(Path::Local(_)) => Err(Garbage("a sender without a domain")),
        },
        _ => Err(Garbage("no sender")),
    }
}

/// A body in pieces. Milters write LF or CRLF; a line of ours ends with CRLF, and with nothing else.
#[derive(Default)]
struct NewBody {
    size: u64,
    /// The last octet was a CR, whose LF may still come.
    cr: bool,
    /// It ends in the middle of a line.
    inside: bool,
    buffer: Vec<u8>,
    file: Option<File>,
}

impl NewBody {
    fn append(&mut self, piece: &[u8], queue: &Queue) -> io::Result<()> {
        let had = self.buffer.len();
        for &byte in piece {
            if std::mem::take(&mut self.cr) {
                self.end_line();
                if byte == b'\n' {
                    continue;
                }
            }
            match byte {
                b'\r' => self.cr = true,
                b'\n' => self.end_line(),
                _ => {
                    self.buffer.push(byte);
                    self.inside = true;
                }
            }
        }
        let grown = self.buffer.len().saturating_sub(had);
        self.size = self.size.saturating_add(grown as u64);
        if self.buffer.len() > MEMORY {
            self.spill(queue)?;
        }
        Ok(())
    }

    fn end_line(&mut self) {
        self.buffer.extend_from_slice(b"\r\n");
        self.inside = false;
    }

    fn spill(&mut self, queue: &Queue) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => queue.scratch().map_err(io::Error::other)?,
        };
        file.write_all(&self.buffer)?;
        self.buffer.clear();
        self.file = Some(file);
        Ok(())
    }

    fn finish(mut self, queue: &Queue) -> io::Result<Body> {
        if self.cr || self.inside {
            self.end_line();
        }
        if self.file.is_some() {
            self.spill(queue)?;
        }
        Ok(match self.file {
            Some(file) => Body::File(file, 0),
            None => Body::Memory(Cursor::new(self.buffer)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Content;
    use base::Root;
    use std::io::{Read, Seek};

    fn queue() -> (tempfile::TempDir, Queue) {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::open(&Root::new(dir.path())).unwrap();
        (dir, queue)
    }

    fn mail() -> Mail {
        let whole = b"A: 1\r\nB: 2\r\n\r\nbody\r\n".to_vec();
        Mail {
            content: Content::read(Body::Memory(Cursor::new(whole)))
                .unwrap()
                .unwrap(),
            above: vec!["Results: x\r\n".into()],
            reverse_path: ReversePath::Null,
            added: Vec::new(),
            removed: Vec::new(),
        }
    }

    fn apply(mail: &mut Mail, changes: &[Modification]) -> Result<Option<String>, String> {
        let (_dir, queue) = queue();
        let mut collected = Changes::new(&queue, 200_000);
        for change in changes {
            collected.note(change.clone()).unwrap();
        }
        let header = shown(mail);
        collected
            .apply(header, mail, false)
            .map_err(|trouble| trouble.to_string())
    }

    fn body(mail: &mut Mail) -> String {
        let mut text = String::new();
        mail.content.body.rewind().unwrap();
        mail.content.body.read_to_string(&mut text).unwrap();
        text
    }

    fn replace(text: &str) -> Modification {
        Modification::ReplaceBody(text.as_bytes().to_vec())
    }

    #[test]
    fn every_change_is_made() {
        let mut mail = mail();
        let (name, value) = (b"X".to_vec(), b"y".to_vec());
        let held = apply(
            &mut mail,
            &[
                Modification::AddHeader {
                    name: name.clone(),
                    value: value.clone(),
                },
                Modification::InsertHeader {
                    index: 2,
                    name: name.clone(),
                    value: b"z".to_vec(),
                },
                Modification::ChangeHeader {
                    index: 1,
                    name: b"b".to_vec(),
                    value: Vec::new(),
                },
                Modification::InsertHeader {
                    index: 0,
                    name,
                    value,
                },
                Modification::ChangeSender {
                    address: "<ann@example.org>".into(),
                    args: None,
                },
                Modification::AddRecipient {
                    address: "bob@example.org".into(),
                    args: Some("NOTIFY=NEVER".into()),
                },
                Modification::AddRecipient {
                    address: "<carl@example.org>".into(),
                    args: None,
                },
                Modification::RemoveRecipient("<carl@example.org>".into()),
                replace("new\r"),
                replace("\nbody\rend"),
                Modification::Quarantine("odd".into()),
            ],
        );
        assert_eq!(held, Ok(Some("odd".into())));
        assert_eq!(mail.above, ["X: y\r\nResults: x\r\n"]);
        let header = String::from_utf8(mail.content.header.clone()).unwrap();
        assert_eq!(header, "X: z\r\nA: 1\r\nX: y\r\n\r\n");
        assert_eq!(body(&mut mail), "new\r\nbody\r\nend\r\n");
        assert_eq!(mail.reverse_path.to_string(), "ann@example.org");
        let added: Vec<_> = mail.added.iter().map(|r| r.address.to_string()).collect();
        assert_eq!(added, ["bob@example.org"]);
        assert!(mail.added.iter().all(|r| !r.notify.wants_failure()));
        assert_eq!(mail.removed.len(), 1);
    }

    #[test]
    fn all_or_nothing() {
        let add = Modification::AddHeader {
            name: b"X".to_vec(),
            value: b"y".to_vec(),
        };
        let rcpt = |address: &str, args: Option<&str>| Modification::AddRecipient {
            address: address.into(),
            args: args.map(str::to_owned),
        };
        for bad in [
            Modification::AddHeader {
                name: b"X Y".to_vec(),
                value: Vec::new(),
            },
            rcpt("<ann>", None),
            rcpt("<a@b> <c@d>", None),
            rcpt("<a@b>\r\nDATA", None),
            rcpt("<a@b.example>", Some("NONSENSE=1")),
            rcpt("<a@b.example>", Some("NOTIFY=NEVER\r\nDATA")),
            Modification::ChangeSender {
                address: "x y".into(),
                args: None,
            },
            replace(&"x".repeat(200_001)),
        ] {
            let mut mail = mail();
            apply(&mut mail, &[add.clone(), bad]).unwrap_err();
            assert_eq!(mail.content.header, b"A: 1\r\nB: 2\r\n\r\n");
            assert_eq!(body(&mut mail), "body\r\n");
        }
    }

    #[test]
    fn a_field_goes_before_the_first_line_that_is_none() {
        for (text, header, rest) in [
            ("A: b\r\nhello\r\n", "A: b\r\nX: y\r\n", "hello\r\n"),
            ("hello\r\n", "X: y\r\n\r\n", "hello\r\n"),
        ] {
            let mut mail = mail();
            let whole = Body::Memory(Cursor::new(text.as_bytes().to_vec()));
            mail.content = Content::read(whole).unwrap().unwrap();
            let (name, value) = (b"X".to_vec(), b"y".to_vec());
            apply(&mut mail, &[Modification::AddHeader { name, value }]).unwrap();
            assert_eq!(mail.content.header, header.as_bytes());
            assert_eq!(body(&mut mail), rest);
        }
    }

    #[test]
    fn a_large_body_goes_to_disk_and_a_header_without_an_end_is_ended() {
        let mut mail = mail();
        mail.content.header = b"A: 1\r\n".to_vec();
        let line = format!("{}\n", "x".repeat(999));
        let pieces = vec![replace(&line); 150];
        apply(&mut mail, &pieces).unwrap();
        assert!(matches!(mail.content.body, Body::File(..)));
        assert_eq!(body(&mut mail).len(), 150 * 1001);
        assert_eq!(mail.content.header, b"A: 1\r\n\r\n");
    }
}
