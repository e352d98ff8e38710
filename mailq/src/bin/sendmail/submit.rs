//! A message on standard input becomes a file in drop/: the caller's part of a submission.
//!
//! Guarantees: exit 0 says that the message survives power loss; any other exit says that nothing
//! of it is in the queue. An address that is none refuses the message as a whole, before it is in
//! the queue, so that the caller hears of it and not the sender of a bounce.
//!
//! Date and Message-ID, where they are missing, are qrun's to add.

use std::io::{self, Read};

use base::envelope::{Body, Needs};
use base::escape::escape;
use base::{Address, Config, Doing, Fail, LocalPart, Recipient, ReversePath, Root, Sysexit};
use mime::words::{self, Target};
use queue::QueueId;
use queue::drop::{Letter, Submission};
use rules::Router;

use crate::args::Submit;
use crate::message::{self, Found, Lines, MAX_HEADER};

/// Recipients of one message.
pub(crate) const MAX_RECIPIENTS: usize = 50_000;
/// Octets read at once.
const PIECE: usize = 64 << 10;
/// How much of the content is looked at for octets beyond ASCII before the envelope is written.
const LOOK_AHEAD: usize = 1 << 20;

/// Who runs us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) login: LocalPart,
    pub(crate) full_name: String,
    /// Whether qrun would find the same name from the file's owner.
    pub(crate) proven: bool,
}

/// What the message is submitted to and by.
pub(crate) struct Desk<'a> {
    pub(crate) root: &'a Root,
    pub(crate) config: &'a Config,
    pub(crate) router: &'a Router,
    pub(crate) caller: &'a Caller,
}

impl Desk<'_> {
    /// Reads the message and submits it.
    pub(crate) fn submit(
        &self,
        wishes: &Submit,
        operands: &[String],
        input: &mut dyn Read,
    ) -> Result<QueueId, Fail> {
        let mut text = Text::new(input, wishes.dots_are_text);
        let (header, body_start) = text.header()?;
        let named = message::named(&header);
        let mut spellings: Vec<String> = Vec::new();
        for operand in operands {
            let list = message::addresses(operand);
            if list.is_empty() {
                return Err(bad(operand, "not a mail address"));
            }
            spellings.extend(list);
        }
        if wishes.header_recipients {
            spellings.extend(named.recipients);
        }
        let letter = self.letter(wishes, &spellings)?;
        let from = (!named.has_from).then(|| self.from(wishes, letter.sender.as_ref()));
        text.fill(LOOK_AHEAD)?;
        let eight_bits = text.has_eight_bits();
        let letter = Letter {
            body: wishes.body.unwrap_or(match eight_bits {
                true => Body::EightBitMime,
                false => Body::SevenBit,
            }),
            ..letter
        };
        let mut submission = Submission::create(self.root, &letter)?;
        submission.write(&message::finished(&header, from.as_deref()))?;
        text.skip(body_start);
        loop {
            submission.write(&text.take())?;
            if submission.size() > self.config.message_size_limit {
                let limit = self.config.message_size_limit;
                let what = format!("message is larger than {limit} octets (MESSAGE_SIZE_LIMIT)");
                return Err(Fail::new(Sysexit::Unavailable, what));
            }
            if !text.more()? {
                break;
            }
        }
        submission.commit()
    }

    fn letter(&self, wishes: &Submit, spellings: &[String]) -> Result<Letter, Fail> {
        if spellings.is_empty() {
            return Err(Fail::usage(
                "no recipients: give addresses, or -t with a To field",
            ));
        }
        let mut recipients: Vec<Recipient> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for spelling in spellings {
            let address = self.address(spelling)?;
            if seen.insert(address.clone()) {
                let notify = wishes.notify.unwrap_or_default();
                recipients.push(Recipient {
                    notify,
                    ..Recipient::new(address)
                });
            }
        }
        if recipients.len() > MAX_RECIPIENTS {
            return Err(Fail::usage(format!(
                "more than {MAX_RECIPIENTS} recipients"
            )));
        }
        let sender = self.sender(wishes)?;
        // RFC 6531: declared for what cannot go without it. A header alone is let through as it always
        // was, as eight bits.
        let smtputf8 = !sender.as_ref().is_none_or(ReversePath::is_ascii)
            || recipients.iter().any(|to| !to.address.is_ascii());
        Ok(Letter {
            sender,
            recipients,
            body: Body::SevenBit,
            ret: wishes.ret,
            envid: wishes.envid.as_deref().map(xtext),
            needs: Needs {
                smtputf8,
                ..Needs::default()
            },
        })
    }

    fn address(&self, spelling: &str) -> Result<Address, Fail> {
        Address::parse_in(spelling, self.router.here()).map_err(|e| bad(spelling, &e.to_string()))
    }

    /// The reverse-path; `None` for the one that the owner of the file proves.
    fn sender(&self, wishes: &Submit) -> Result<Option<ReversePath>, Fail> {
        let Some(text) = wishes.reverse_path.as_deref() else {
            let login = self.caller.login.clone();
            let own = || ReversePath::Address(Address::new(login, self.router.here().clone()));
            return Ok((!self.caller.proven).then(own));
        };
        if matches!(text.trim(), "" | "<>") {
            return Ok(Some(ReversePath::Null));
        }
        match message::addresses(text).as_slice() {
            [one] => self.address(one).map(|a| Some(ReversePath::Address(a))),
            _ => Err(bad(text, "write one address behind -f")),
        }
    }

    /// The From field of a message that has none.
    fn from(&self, wishes: &Submit, sender: Option<&ReversePath>) -> String {
        let address = match sender.and_then(ReversePath::address) {
            Some(address) => address.clone(),
            None => Address::new(self.caller.login.clone(), self.router.here().clone()),
        };
        let name = match (&wishes.full_name, address.local() == &self.caller.login) {
            (Some(name), _) => name.trim(),
            (None, true) => self.caller.full_name.trim(),
            (None, false) => "",
        };
        if name.is_empty() {
            return address.to_string();
        }
        let phrase = words::encode_phrase(name, "From: ".len(), Target::Utf8);
        format!("{phrase} <{address}>")
    }
}

fn bad(text: &str, why: &str) -> Fail {
    Fail::data(format!("{}: {why}", escape(text)))
}

/// RFC 3461 4: printable ASCII but `+` and `=`, all else as `+` and two digits.
fn xtext(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_graphic() && !matches!(b, b'+' | b'=') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("+{b:02X}"));
        }
        out
    })
}

/// The input as lines in CRLF form, of which never more than a bounded part is held.
struct Text<'a> {
    input: &'a mut dyn Read,
    lines: Lines,
    held: Vec<u8>,
    done: bool,
}

impl<'a> Text<'a> {
    fn new(input: &'a mut dyn Read, dots_are_text: bool) -> Self {
        Self {
            input,
            lines: Lines::new(dots_are_text),
            held: Vec::new(),
            done: false,
        }
    }

    /// Reads some more; `false` at the end.
    fn more(&mut self) -> Result<bool, Fail> {
        if self.done {
            return Ok(false);
        }
        let mut piece = vec![0; PIECE];
        let read = loop {
            match self.input.read(&mut piece) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other.doing(|| "read the message")?,
            }
        };
        self.lines
            .feed(piece.get(..read).unwrap_or_default(), &mut self.held);
        if read == 0 || self.lines.ended() {
            self.lines.finish(&mut self.held);
            self.done = true;
        }
        Ok(true)
    }

    fn fill(&mut self, octets: usize) -> Result<(), Fail> {
        while self.held.len() < octets && self.more()? {}
        Ok(())
    }

    /// The header, and where in what is held the body begins.
    fn header(&mut self) -> Result<(Vec<u8>, usize), Fail> {
        let mut from = 0;
        loop {
            match message::find_end(&self.held, from) {
                Found::End { header, body } => {
                    return Ok((self.held.get(..header).unwrap_or_default().to_vec(), body));
                }
                Found::NotYet(at) => from = at,
            }
            if self.held.len() > MAX_HEADER {
                return Err(Fail::data(format!(
                    "the header is longer than {MAX_HEADER} octets"
                )));
            }
            if !self.more()? {
                return Ok((self.held.clone(), self.held.len()));
            }
        }
    }

    /// Whether there are octets beyond ASCII, or what has not been read might have some.
    fn has_eight_bits(&self) -> bool {
        !self.done || !self.held.is_ascii()
    }

    fn skip(&mut self, octets: usize) {
        self.held.drain(..octets.min(self.held.len()));
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use queue::{Place, Queue};
    use std::path::Path;

    struct Fixture {
        dir: tempfile::TempDir,
        config: Config,
        caller: Caller,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let text = "MY_NAME=mx\nMY_DOMAIN=example.org\nFROM_ADDRESS=example.org\n\
                        MESSAGE_SIZE_LIMIT=100K\n";
            let root = Root::new(dir.path());
            let config = Config::parse(&root, text, Path::new("t")).unwrap();
            let caller = Caller {
                login: LocalPart::new("ann").unwrap(),
                full_name: "Ann Example".into(),
                proven: false,
            };
            Queue::create(&root).unwrap();
            Self {
                dir,
                config,
                caller,
            }
        }

        fn submit(&self, line: &str, message: &[u8]) -> Result<queue::View, Fail> {
            let words: Vec<String> = line.split_whitespace().map(Into::into).collect();
            let args = Args::parse(&words).unwrap();
            let root = Root::new(self.dir.path());
            let router = Router::new(&self.config);
            let desk = Desk {
                root: &root,
                config: &self.config,
                router: &router,
                caller: &self.caller,
            };
            let id = desk.submit(&args.submit, &args.operands, &mut &message[..])?;
            Ok(Queue::open(&root).unwrap().view(&id).unwrap().unwrap())
        }

        /// What was written, found in the file between its frames.
        fn file(&self, view: &queue::View) -> String {
            let path = self
                .dir
                .path()
                .join("var/spool/yubin/drop")
                .join(view.id.as_str());
            String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
        }
    }

    fn to(view: &queue::View) -> Vec<String> {
        view.recipients
            .iter()
            .map(|r| r.recipient.address.to_string())
            .collect()
    }

    #[test]
    fn a_message_and_its_envelope() {
        let fixture = Fixture::new();
        let view = fixture
            .submit("-oi bob,cid@x.org", b"Subject: hi\n\nbody\n.\nmore\n")
            .unwrap();
        assert_eq!(view.place, Place::Drop);
        assert_eq!(to(&view), ["bob@example.org", "cid@x.org"]);
        assert_eq!(
            view.reverse_path.as_ref().unwrap().to_string(),
            "ann@example.org"
        );
        let wanted =
            "Subject: hi\r\nFrom: Ann Example <ann@example.org>\r\n\r\nbody\r\n.\r\nmore\r\n";
        assert!(fixture.file(&view).contains(wanted));
        assert_eq!(view.size, u64::try_from(wanted.len()).unwrap());
    }

    #[test]
    fn recipients_from_the_header() {
        let fixture = Fixture::new();
        let message = b"To: bob, Cid <cid@x.org>\nBcc: dan\nFrom: me@x\n\nx\n";
        let view = fixture.submit("-t eve bob -f <>", message);
        assert!(view.is_err(), "options end at the first operand");
        let view = fixture.submit("-t -f <> eve bob", message).unwrap();
        let wanted = [
            "eve@example.org",
            "bob@example.org",
            "cid@x.org",
            "dan@example.org",
        ];
        assert_eq!(to(&view), wanted);
        assert_eq!(view.reverse_path, Some(ReversePath::Null));
        assert!(!fixture.file(&view).contains("Bcc"));
    }

    #[test]
    fn names_are_encoded() {
        let fixture = Fixture::new();
        let view = fixture.submit("-F山田 -fbob@x.org ann", b"x").unwrap();
        let file = fixture.file(&view);
        assert!(
            file.contains("From: =?UTF-8?B?5bGx55Sw?= <bob@x.org>\r\n\r\nx\r\n"),
            "{file}"
        );
        let view = fixture.submit("-fbob@x.org ann", b"x").unwrap();
        assert!(fixture.file(&view).contains("From: bob@x.org\r\n"));
    }

    #[test]
    fn what_is_refused_leaves_nothing() {
        let fixture = Fixture::new();
        for (line, message, code) in [
            ("", &b"x"[..], Sysexit::Usage),
            ("-t", b"Subject: x\n\n", Sysexit::Usage),
            ("a@b@c", b"x", Sysexit::DataErr),
            ("ann@", b"x", Sysexit::DataErr),
            ("-t bob", b"To: \xff@x\n\n", Sysexit::DataErr),
            ("-f a,b bob", b"x", Sysexit::DataErr),
            ("bob", &[b'x'; 200_000], Sysexit::Unavailable),
        ] {
            assert_eq!(
                fixture.submit(line, message).unwrap_err().code(),
                code,
                "{line}"
            );
        }
        let root = Root::new(fixture.dir.path());
        assert!(Queue::open(&root).unwrap().list().unwrap().is_empty());
    }

    #[test]
    fn wishes_go_along() {
        let fixture = Fixture::new();
        let view = fixture
            .submit("-N never -R hdrs -V a+b bob", b"x\n")
            .unwrap();
        assert_eq!(
            view.recipients[0].recipient.notify,
            base::envelope::Notify::Never
        );
        assert_eq!(xtext("a+b c=é"), "a+2Bb+20c+3D+C3+A9");
    }
}
