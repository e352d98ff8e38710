//! Header and body checks: the operator's patterns against each header field and each line of a
//! message, with the actions of Postfix's header_checks(5).
//!
//! Fields are looked at unfolded, also those of the parts of the message and of messages in it. Of each
//! stretch between headers the lines of the first [`MAX_BODY`] octets are looked at, as they came: what
//! is encoded is not decoded. A line in a header that is no field is one of the body.

mod edits;
mod table;

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use base::envelope::Notify;
use base::escape::escape;
use base::{Address, Config, Doing, Fail, Filter, Recipient, Status};
use mime::content::Content;
use mime::structure::Builder;
use queue::Queue;

use super::{Body, Door, Facts, Mail, Maker, Ruling, Stage};
use crate::reply::Reply;
use crate::table::{Parse, Table};
use edits::{Edits, line};
use table::{Checks, Found, Verb, status_and_text};

/// As Postfix's body_checks_size_limit.
const MAX_BODY: u64 = 51_200;
/// A line that begins before that is looked at up to its end, or so many octets of it.
const MAX_LINE: u64 = 65_536;
/// Octets of one header of a part.
const MAX_HEADER: u64 = 256 * 1024;
/// Octets of an unfolded field.
const MAX_FIELD: usize = 65_536;
/// Octets read at a time.
const PIECE: usize = 64 * 1024;
/// Octets of a field in the log.
const MAX_LOGGED: usize = 200;
/// Recipients that one message can get.
const MAX_BCC: usize = 100;

/// The operator's files.
pub(crate) struct Tables {
    header: Option<Table<Checks>>,
    body: Option<Table<Checks>>,
}

impl Tables {
    /// `None` where there is none. One that is named has to be there.
    pub(crate) fn open(conf: &Config) -> Result<Option<Self>, Fail> {
        let header = open(conf.header_checks.as_deref(), Checks::of_header)?;
        let body = open(conf.body_checks.as_deref(), Checks::parse)?;
        let tables = Self { header, body };
        Ok((tables.header.is_some() || tables.body.is_some()).then_some(tables))
    }
}

fn open(path: Option<&Path>, parse: Parse<Checks>) -> Result<Option<Table<Checks>>, Fail> {
    let Some(path) = path else { return Ok(None) };
    std::fs::metadata(path).map_err(|e| Fail::config(format!("read {}: {e}", path.display())))?;
    Table::open(path, parse).map(Some)
}

/// The same checks for everybody.
pub(crate) fn maker(tables: Tables, queue: Queue) -> Maker {
    let checker = Checker(Arc::new((tables, queue)));
    Box::new(move |_| Some(Box::new(checker.clone())))
}

#[derive(Clone)]
struct Checker(Arc<(Tables, Queue)>);

impl Door for Checker {
    fn wants(&self, stage: Stage) -> bool {
        stage == Stage::Message
    }

    fn message(&mut self, mail: &mut Mail, facts: &Facts) -> Result<Ruling, Fail> {
        let (tables, queue) = &*self.0;
        let mut look = Look {
            header: tables.header.as_ref().map(Table::get),
            body: tables.body.as_ref().map(Table::get),
            facts,
            ruling: Ruling::default(),
            bcc: Vec::new(),
        };
        look.mail(mail, queue).doing(|| "check a message")??;
        // The sender knows nothing of them.
        let silent = |address| Recipient {
            notify: Notify::Never,
            ..Recipient::new(address)
        };
        mail.added.extend(look.bcc.into_iter().map(silent));
        Ok(look.ruling)
    }
}

/// One look at one message.
struct Look<'a> {
    header: Option<Arc<Checks>>,
    body: Option<Arc<Checks>>,
    facts: &'a Facts,
    ruling: Ruling,
    bcc: Vec<Address>,
}

impl Look<'_> {
    fn mail(&mut self, mail: &mut Mail, queue: &Queue) -> io::Result<Result<(), Fail>> {
        let content = &mut mail.content;
        let mut edits = Edits::default();
        self.fields(&content.header, 0, &mut edits);
        if !edits.is_empty() {
            content.header = edits.apply(&content.header);
        }
        if self.is_over(&edits) {
            return Ok(Ok(()));
        }
        let headers = self.headers(&content.header, &mut content.body)?;
        let mut edits = Edits::default();
        self.regions(&mut content.body, &headers, &mut edits)?;
        if edits.is_empty() || self.is_over(&edits) {
            return Ok(Ok(()));
        }
        let new = edits.apply_to(&mut content.body, queue);
        Ok(new.map(|new| content.body = new))
    }

    /// Nothing more needs to be looked at.
    fn is_over(&mut self, edits: &Edits) -> bool {
        if edits.overflow && self.ruling.refuse.is_none() {
            let text = "Message has too much that is to be changed".to_owned();
            self.ruling.refuse = Some(Reply::made(550, Some(Status::new(5, 6, 0)), text));
        }
        self.ruling.refuse.is_some() || self.ruling.discard
    }

    /// Where in the body the headers of parts are.
    fn headers(&self, header: &[u8], body: &mut Body) -> io::Result<Vec<Range<u64>>> {
        let whole = Content::read(header, false);
        if !header.is_empty() && !whole.is_multipart() && !whole.is_message() {
            return Ok(Vec::new());
        }
        let mut builder = Builder::new();
        builder.feed(header);
        body.rewind()?;
        let mut piece = vec![0; PIECE];
        loop {
            match body.read(&mut piece)? {
                0 => break,
                n => builder.feed(piece.get(..n).unwrap_or_default()),
            }
        }
        let length = header.len() as u64;
        let mut headers: Vec<_> = builder
            .finish()
            .parts
            .into_iter()
            .map(|part| part.header)
            .filter(|range| range.start >= length && range.end > range.start)
            .map(|range| range.start - length..range.end.saturating_sub(length))
            .collect();
        headers.sort_unstable_by_key(|range| range.start);
        Ok(headers)
    }

    fn regions(
        &mut self,
        body: &mut Body,
        headers: &[Range<u64>],
        edits: &mut Edits,
    ) -> io::Result<()> {
        let mut at = 0;
        for header in headers {
            self.stretch(body, at..header.start, edits)?;
            let wanted = header.end.saturating_sub(header.start).min(MAX_HEADER);
            let text = read(body, header.start, wanted)?;
            self.fields(&text, header.start, edits);
            if self.is_over(edits) {
                return Ok(());
            }
            at = header.end;
        }
        self.stretch(body, at..u64::MAX, edits)
    }

    /// Lines between headers.
    fn stretch(&mut self, body: &mut Body, range: Range<u64>, edits: &mut Edits) -> io::Result<()> {
        if self.body.is_none() || range.is_empty() || self.is_over(edits) {
            return Ok(());
        }
        let wanted = (range.end - range.start).min(MAX_BODY + MAX_LINE);
        let text = read(body, range.start, wanted)?;
        self.lines(&text, range.start, edits);
        Ok(())
    }

    /// The fields of a header that begins at `from`.
    fn fields(&mut self, text: &[u8], from: u64, edits: &mut Edits) {
        let mut at = 0;
        for field in mime::header::fields(text) {
            let between = text.get(at..field.range.start).unwrap_or_default();
            self.lines(between, from + at as u64, edits);
            at = field.range.end;
            let Some(checks) = self.header.clone() else {
                continue;
            };
            if self.is_over(edits) {
                return;
            }
            let raw = text.get(field.range.clone()).unwrap_or_default();
            let plain = raw.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n'));
            let plain: Vec<u8> = plain.take(MAX_FIELD).collect();
            if let Some(found) = checks.ask(&plain) {
                let range = from + field.range.start as u64..from + field.range.end as u64;
                let what = format!(
                    "header {}",
                    escape(plain.get(..MAX_LOGGED).unwrap_or(&plain))
                );
                self.obey(found, range, &what, edits);
            }
        }
        let rest = text.get(at..).unwrap_or_default();
        self.lines(rest, from + at as u64, edits);
    }

    /// Lines of a body that begin at `from`.
    fn lines(&mut self, text: &[u8], from: u64, edits: &mut Edits) {
        let Some(checks) = self.body.clone() else {
            return;
        };
        let mut at = 0;
        for whole in text.split_inclusive(|b| *b == b'\n') {
            if at >= MAX_BODY || self.is_over(edits) {
                return;
            }
            let range = from + at..from + at + whole.len() as u64;
            at += whole.len() as u64;
            let line = whole.strip_suffix(b"\n").unwrap_or(whole);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(found) = checks.ask(line) {
                // What stands in a body is no business of the log.
                let what = format!("body, rule in line {},", found.line);
                self.obey(found, range, &what, edits);
            }
        }
    }

    fn obey(&mut self, found: Found, range: Range<u64>, what: &str, edits: &mut Edits) {
        let Found { verb, text, .. } = found;
        if let Some(word) = verb.logged() {
            self.log(word, what, &text);
        }
        let said = || escape(&text).to_string();
        match verb {
            Verb::Dunno | Verb::Warn | Verb::Info => {}
            Verb::Reject => self.ruling.refuse = Some(refusal(&text)),
            Verb::Discard => self.ruling.discard = true,
            Verb::Hold => {
                let reason = match text.is_empty() {
                    true => what.to_owned(),
                    false => said(),
                };
                self.ruling.hold.get_or_insert(reason);
            }
            Verb::Redirect => {
                if let Some(address) = self.address(&text) {
                    self.ruling.redirect = Some(address);
                }
            }
            Verb::Filter => {
                let filter = Filter::parse(&String::from_utf8_lossy(&text)).ok();
                self.ruling.filter = filter.map(Box::new).or_else(|| self.ruling.filter.take());
            }
            Verb::Bcc => {
                let address = self.address(&text);
                self.bcc
                    .extend(address.filter(|_| self.bcc.len() < MAX_BCC));
            }
            Verb::Prepend => edits.replace(range.start..range.start, line(&text)),
            Verb::Replace => edits.replace(range, line(&text)),
            Verb::Ignore => edits.replace(range, Vec::new()),
        }
    }

    fn address(&self, text: &[u8]) -> Option<Address> {
        let text = String::from_utf8_lossy(text);
        Address::parse(&text)
            .inspect_err(|e| log::warn!("{}: `{}': {e}", self.facts.shown, escape(&*text)))
            .ok()
    }

    /// In Postfix's words.
    fn log(&self, word: &str, what: &str, text: &[u8]) {
        let opened = self.facts.transaction.as_ref();
        let id = opened.and_then(|opened| opened.queue_id.as_deref());
        let from = opened.map(|opened| opened.reverse_path.to_string());
        let helo = self.facts.hello.as_ref().map_or("", |hello| &hello.name);
        log::info!(
            "{}: {word}: {what} from {}; from=<{}> helo=<{}>: {}",
            id.unwrap_or("NOQUEUE"),
            self.facts.shown,
            escape(&from.unwrap_or_default()),
            escape(helo),
            escape(text)
        );
    }
}

fn refusal(said: &[u8]) -> Reply {
    let (status, text) = status_and_text(said);
    let code = if status.class() == 4 { 451 } else { 550 };
    let text = match text.is_empty() {
        true => "Message content rejected".into(),
        false => text,
    };
    Reply::made(code, Some(status), text)
}

/// Up to `wanted` octets.
fn read(body: &mut Body, from: u64, wanted: u64) -> io::Result<Vec<u8>> {
    body.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    body.by_ref().take(wanted).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::{Accepted, Encryption, Peer};
    use std::io::{Cursor, Write};

    fn facts() -> Facts {
        let accepted = Accepted {
            peer: Peer::Local,
            local: None,
            service: "smtp",
            encryption: Encryption::OnRequest,
            tls: false,
            check: false,
        };
        Facts::new(&accepted, "localhost[local]".into(), false)
    }

    /// What becomes of a message, in memory and on disk; and what is ruled.
    fn check(header: &str, body: &str, message: &str) -> (String, Ruling, Vec<Address>) {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::create(&base::Root::new(dir.path())).unwrap();
        let parse = |text: &str| {
            let checks = Checks::parse(Path::new("checks"), text).unwrap();
            (!text.is_empty()).then(|| Arc::new(checks))
        };
        let facts = facts();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(message.as_bytes()).unwrap();
        let memory = Body::Memory(Cursor::new(message.as_bytes().to_vec()));
        let mut all = [memory, Body::File(file, 0)].map(|whole| {
            let mut mail = Mail {
                content: super::super::Content::read(whole).unwrap().unwrap(),
                above: Vec::new(),
                reverse_path: base::ReversePath::Null,
                added: Vec::new(),
                removed: Vec::new(),
            };
            let mut look = Look {
                header: parse(header),
                body: parse(body),
                facts: &facts,
                ruling: Ruling::default(),
                bcc: Vec::new(),
            };
            look.mail(&mut mail, &queue).unwrap().unwrap();
            let mut text = mail.content.header;
            mail.content.body.rewind().unwrap();
            mail.content.body.read_to_end(&mut text).unwrap();
            (String::from_utf8(text).unwrap(), look.ruling, look.bcc)
        });
        assert_eq!(all[0], all[1]);
        std::mem::take(&mut all[0])
    }

    const MULTI: &str = "Subject: one\r\n two\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
        before\r\n--b\r\nContent-Type: text/plain\r\nX-Part: a\r\n\r\nhello X-Part: b\r\n--b\r\n\
        Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nbye\r\n--b--\r\nbehind\r\n";

    #[test]
    fn fields_are_looked_at_wherever_they_are() {
        let refused = |checks: &str| {
            let refusal = check(checks, "", MULTI).1.refuse;
            refusal.map(|reply| reply.to_string())
        };
        for (checks, want) in [
            (
                "/^Subject: one two$/ REJECT",
                Some("550 5.7.1 Message content rejected"),
            ),
            (
                "/^Subject: inner$/ REJECT 4.7.0 later",
                Some("451 4.7.0 later"),
            ),
            ("/^X-Part: a/ REJECT no", Some("550 5.7.1 no")),
            ("/X-Part: b/ REJECT", None),
            ("/before|behind|bye/ REJECT", None),
        ] {
            assert_eq!(refused(checks).as_deref(), want, "{checks}");
        }
    }

    #[test]
    fn lines_are_looked_at_outside_of_headers() {
        for (word, want) in [
            ("before", true),
            ("behind", true),
            ("X-Part: b", true),
            ("bye", true),
            ("--b", true),
            ("X-Part: a", false),
            ("Subject", false),
        ] {
            let ruling = check("", &format!("/{word}/ DISCARD"), MULTI).1;
            assert_eq!(ruling.discard, want, "{word}");
        }
        // Where the header ends for one program it may not for another.
        let odd = "A: b\r\nno field\r\nC: d\r\n\r\nx\r\n";
        assert!(check("", "/no field/ DISCARD", odd).1.discard);
        assert!(
            check("", "/^hello/ DISCARD", "hello\r\n\r\nx\r\n")
                .1
                .discard
        );
    }

    #[test]
    fn the_last_filter_that_is_named_counts() {
        let ruling = |body| {
            let header = "/^Subject: one/ FILTER smtp:[127.0.0.1]:10026\n";
            let filter = check(header, body, MULTI).1.filter;
            filter.map(|filter| filter.to_string())
        };
        assert_eq!(ruling("").as_deref(), Some("smtp:[127.0.0.1]:10026"));
        let last = ruling("/^hello/ FILTER smtp:[127.0.0.1]:1\n/^bye/ FILTER smtp:[::1]:2\n");
        assert_eq!(last.as_deref(), Some("smtp:[::1]:2"));
    }

    #[test]
    fn the_message_is_changed_where_they_say_so() {
        let (text, ruling, bcc) = check(
            "/^Subject: (one) (.*)/ REPLACE Subject: $2 $1\n\
             /^X-Part: / IGNORE\n\
             /^Content-Type: text/ PREPEND X-Text: yes\n\
             /^Content-Type: multi/ BCC copy@example.org\n",
            "/^hello/ REPLACE good day\n/^bye/ PREPEND so\n/^behind/ IGNORE\n/^before/ HOLD odd\n",
            MULTI,
        );
        assert_eq!(
            text,
            "Subject: two one\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
             before\r\n--b\r\nX-Text: yes\r\nContent-Type: text/plain\r\n\r\ngood day\r\n--b\r\n\
             Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nso\r\nbye\r\n--b--\r\n"
        );
        assert_eq!(ruling.hold.as_deref(), Some("odd"));
        assert_eq!(bcc, ["copy@example.org".parse().unwrap()]);
    }

    #[test]
    fn of_a_body_the_beginning_is_looked_at() {
        let lines = |n: usize| format!("A: b\r\n\r\n{}here\r\n", "0123456789abcd\r\n".repeat(n));
        assert!(check("", "/here/ DISCARD", &lines(3199)).1.discard);
        assert!(!check("", "/here/ DISCARD", &lines(3200)).1.discard);
        // A message that wants too many changes is none of ours.
        let (_, ruling, _) = check("", "/^0/ REPLACE 1", &"0\r\n".repeat(10_001));
        assert!(ruling.refuse.is_some());
    }
}
