//! Commands that write: `mail`, `reply` and their kin.

use base::Fail;
use mime::address::{self, Mailbox};
use mime::{header, words};
use store::Part;

use super::Reader;
use crate::compose::{self, Composer, Outcome};
use crate::mailbox::Mailbox as Messages;
use crate::outgoing::{self, Letter};
use crate::settings::Settings;
use crate::text;

impl Reader {
    /// `mail address ...`
    pub(super) fn mail(&mut self, to: &str) -> Result<(), Fail> {
        if to.is_empty() {
            return Err(Fail::usage("mail: say to whom"));
        }
        let to = compose::addresses(to);
        self.write_letter(Letter {
            to,
            ..Letter::default()
        })?;
        Ok(())
    }

    /// `reply [list]`: an answer to the first message of it.
    pub(super) fn reply(&mut self, list: &str, all: bool) -> Result<(), Fail> {
        let Some(at) = self.select(list)?.first().copied() else {
            return Ok(());
        };
        self.dot = at;
        self.shown = true;
        let head = self.mailbox.content(at, Part::Header, false)?;
        let own = self.own_addresses();
        let letter = reply_to(&head, all, &own, self.settings.is_set("metoo"));
        if !letter.has_recipients(&self.settings) {
            return Err(Fail::data("the message does not say whom to answer"));
        }
        self.terminal
            .show(&text::clean(&format!("To: {}\n", letter.to)))?;
        if !letter.cc.is_empty() {
            self.terminal
                .show(&text::clean(&format!("Cc: {}\n", letter.cc)))?;
        }
        self.terminal
            .show(&text::clean(&format!("Subject: {}\n\n", letter.subject)))?;
        if self.write_letter(letter)?
            && let Some(message) = self.message(at)
        {
            message.answered = true;
        }
        Ok(())
    }

    /// The user's own addresses, in lower case.
    fn own_addresses(&self) -> Vec<String> {
        let user = self.places.user.to_lowercase();
        let mut own: Vec<String> = self
            .settings
            .alternates
            .iter()
            .map(|a| a.to_lowercase())
            .collect();
        own.extend(self.here.as_ref().map(|here| format!("{user}@{here}")));
        own.push(user);
        own
    }

    /// Lets the user write it, and sends it; `false` when he gave it up.
    fn write_letter(&mut self, letter: Letter) -> Result<bool, Fail> {
        let dot = self.dot;
        let (mailbox, settings) = (&mut self.mailbox, &self.settings);
        let mut quote =
            |list: &str, indent: Option<&str>| quote(mailbox, settings, dot, list, indent);
        let mut composer = Composer {
            terminal: &mut self.terminal,
            settings,
            quote: &mut quote,
        };
        match composer.write(letter)? {
            Outcome::Send(letter) => {
                let ready = letter.ready(settings, self.here.as_ref(), outgoing::now())?;
                let sent = outgoing::send(&ready, settings, letter.from.as_deref());
                if sent.is_err() && !letter.body.is_empty() {
                    let path = compose::bury(settings, &letter.body)?;
                    self.terminal
                        .say(&format!("The text is in {}", path.display()))?;
                }
                sent?;
                Ok(true)
            }
            Outcome::Abort { keep, body } => {
                if keep && !body.is_empty() {
                    let path = compose::bury(settings, &body)?;
                    self.terminal
                        .say(&format!("The text is in {}", path.display()))?;
                }
                Ok(false)
            }
        }
    }
}

/// Messages as text in a message: `~m`, `~f`.
fn quote(
    mailbox: &mut Messages,
    settings: &Settings,
    dot: usize,
    list: &str,
    indent: Option<&str>,
) -> Result<String, Fail> {
    let list = if list.is_empty() { "." } else { list };
    let list = crate::list::List::parse(list).map_err(Fail::usage)?;
    let messages = mailbox.messages.clone();
    let mut heading = |at: usize| {
        let envelope = mailbox.envelope(at);
        (
            format!("{} {}", envelope.address, envelope.name),
            envelope.subject,
        )
    };
    let among = crate::list::Among::Undeleted;
    let places = list
        .select(&messages, dot, among, &mut heading)
        .map_err(Fail::usage)?;
    let mut out = String::new();
    for at in places {
        let bytes = mailbox.content(at, Part::Whole, false)?;
        let text = crate::render::message(&bytes, &settings.fields);
        match indent {
            None => out.push_str(&text),
            Some(indent) => {
                for line in text.lines() {
                    out.push_str(format!("{indent}{line}").trim_end());
                    out.push('\n');
                }
            }
        }
    }
    Ok(out)
}

/// RFC 5322 3.6.4, 3.6.2: whom an answer goes to, and what it belongs to.
fn reply_to(head: &[u8], all: bool, own: &[String], metoo: bool) -> Letter {
    let field = |name: &str| header::value(head, name).filter(|v| !v.is_empty());
    let list = |name: &str| {
        field(name)
            .map(|v| address::mailboxes(&v))
            .unwrap_or_default()
    };
    let is_own = |m: &Mailbox| {
        let address = String::from_utf8_lossy(&m.address()).to_lowercase();
        !metoo && own.contains(&address)
    };
    let mut to = match list("Reply-To") {
        reply if reply.is_empty() => list("From"),
        reply => reply,
    };
    let mut cc = Vec::new();
    if all {
        let known = |to: &[Mailbox], m: &Mailbox| to.iter().any(|t| t.address() == m.address());
        for mailbox in list("To") {
            if !is_own(&mailbox) && !known(&to, &mailbox) {
                to.push(mailbox);
            }
        }
        for mailbox in list("Cc") {
            if !is_own(&mailbox) && !known(&to, &mailbox) && !known(&cc, &mailbox) {
                cc.push(mailbox);
            }
        }
    }
    let text = |name: &str| field(name).map(|v| String::from_utf8_lossy(&v).into_owned());
    let id = text("Message-ID");
    let references = match (text("References").or_else(|| text("In-Reply-To")), &id) {
        (Some(before), Some(id)) => Some(format!("{before} {id}")),
        (None, id) => id.clone(),
        (before, None) => before,
    };
    Letter {
        to: spelled(&to),
        cc: spelled(&cc),
        subject: answer_subject(&words::decode(&field("Subject").unwrap_or_default())),
        in_reply_to: id,
        references,
        ..Letter::default()
    }
}

/// As a list that can be read again: names decoded, and quoted.
fn spelled(list: &[Mailbox]) -> String {
    let one = |m: &Mailbox| {
        let address = String::from_utf8_lossy(&m.address()).into_owned();
        match m
            .name
            .as_deref()
            .map(words::decode)
            .map(|n| text::clean_line(&n))
        {
            Some(name) if !name.is_empty() => {
                let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                format!("\"{name}\" <{address}>")
            }
            _ => address,
        }
    };
    list.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn answer_subject(subject: &str) -> String {
    let subject = text::clean_line(subject);
    let subject = subject.trim();
    match subject.get(..3) {
        Some(start) if start.eq_ignore_ascii_case("re:") => subject.into(),
        _ if subject.is_empty() => String::new(),
        _ => format!("Re: {subject}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"From: =?UTF-8?B?5bGx55Sw?= <y@x.org>\r\n\
        To: ann@example.org, \"Bob, B.\" <bob@x.org>\r\nCc: cid@x.org, Ann <ANN@example.org>\r\n\
        Subject: hello\r\nMessage-ID: <2@x>\r\nReferences: <1@x>\r\n\r\n";

    #[test]
    fn answers() {
        let own = ["ann".into(), "ann@example.org".into()];
        let all = reply_to(HEAD, true, &own, false);
        assert_eq!(all.to, "\"山田\" <y@x.org>, \"Bob, B.\" <bob@x.org>");
        assert_eq!(all.cc, "cid@x.org");
        assert_eq!(all.subject, "Re: hello");
        assert_eq!(all.in_reply_to.as_deref(), Some("<2@x>"));
        assert_eq!(all.references.as_deref(), Some("<1@x> <2@x>"));
        let one = reply_to(HEAD, false, &own, false);
        assert_eq!(
            (one.to.as_str(), one.cc.as_str()),
            ("\"山田\" <y@x.org>", "")
        );
        let metoo = reply_to(HEAD, true, &own, true);
        assert!(metoo.to.contains("ann@example.org") && metoo.cc.contains("ANN@"));
        let elsewhere = reply_to(b"From: a@x\r\nReply-To: list@y\r\n", false, &own, false);
        assert_eq!(elsewhere.to, "list@y");
        assert_eq!(reply_to(b"", true, &own, false).to, "");
    }

    #[test]
    fn subjects() {
        for (subject, wanted) in [
            ("x", "Re: x"),
            ("RE: x", "RE: x"),
            ("", ""),
            ("件名", "Re: 件名"),
        ] {
            assert_eq!(answer_subject(subject), wanted);
        }
    }
}
