//! Commands that decide what becomes of messages, and those that put them elsewhere.

use base::date::Date;
use base::{Fail, Sysexit};
use store::{Flags, Part};

use super::Reader;
use crate::list::{Among, List};
use crate::mailbox::{Message, State};
use crate::places::Place;
use crate::render;
use crate::save::{self, Saved};
use crate::text;

impl Reader {
    pub(super) fn delete(&mut self, list: &str) -> Result<(), Fail> {
        self.mark(list, |message| message.state = State::Deleted)?;
        // The current one is then the next that is left, or else the one before.
        let alive = |at: &usize| {
            let message = self.mailbox.messages.get(*at);
            message.is_some_and(|m| m.state != State::Deleted)
        };
        let behind = (self.dot..self.count()).find(alive);
        let Some(at) = behind.or_else(|| (0..self.dot).rev().find(alive)) else {
            self.shown = true;
            return Ok(());
        };
        self.dot = at;
        self.shown = false;
        if self.settings.is_set("autoprint") && behind.is_some() {
            return self.next("");
        }
        self.shown = behind.is_none();
        Ok(())
    }

    pub(super) fn undelete(&mut self, list: &str) -> Result<(), Fail> {
        for at in self.select_among(list, Among::Deleted)? {
            if let Some(message) = self.message(at) {
                message.state = State::Plain;
            }
            self.dot = at;
            self.shown = false;
        }
        Ok(())
    }

    /// Changes all messages of a list; the last one is the current one then.
    pub(super) fn mark(&mut self, list: &str, change: impl Fn(&mut Message)) -> Result<(), Fail> {
        for at in self.select(list)? {
            if let Some(message) = self.message(at) {
                change(message);
            }
            self.dot = at;
        }
        Ok(())
    }

    /// `save [list] file`, `copy [list] file`
    pub(super) fn save(&mut self, rest: &str, mark: bool) -> Result<(), Fail> {
        let (list, name) = split_file(rest);
        let places = self.select(list)?;
        self.save_to(&places, name.unwrap_or("&"), mark)
    }

    /// `Save`, `Copy`: the file has the name of the first message's sender.
    pub(super) fn save_by_name(&mut self, list: &str, mark: bool) -> Result<(), Fail> {
        let places = self.select(list)?;
        let sender = places.first().map(|at| self.mailbox.envelope(*at).address);
        let name = file_of(&sender.unwrap_or_default())?;
        self.save_to(&places, &name, mark)
    }

    fn save_to(&mut self, places: &[usize], name: &str, mark: bool) -> Result<(), Fail> {
        match self.places.parse(name, &self.settings)? {
            Place::Folder(folder) => {
                self.mailbox.copy_to(places, &folder)?;
                let plural = if places.len() == 1 { "" } else { "s" };
                self.terminal
                    .say(&format!("\"+{folder}\" {} message{plural}", places.len()))?;
            }
            Place::Inbox(_) => return Err(Fail::usage("% is no place to save to")),
            Place::File(path) => {
                let mut text = Vec::new();
                for at in places {
                    text.extend(self.as_mbox(*at)?);
                }
                let saved = save::append(&path, &text, true, self.locks())?;
                self.say_saved(&path.display().to_string(), saved)?;
            }
        }
        if mark {
            for at in places {
                if let Some(message) = self.message(*at) {
                    message.state = State::Saved;
                }
            }
        }
        Ok(())
    }

    /// `write [list] file`: the text without the header, decoded where it is one text.
    pub(super) fn write(&mut self, rest: &str) -> Result<(), Fail> {
        let (list, name) = split_file(rest);
        let Some(name) = name else {
            return Err(Fail::usage("write: say into which file"));
        };
        let places = self.select(list)?;
        let Place::File(path) = self.places.parse(name, &self.settings)? else {
            return Err(Fail::usage("write: say into which file"));
        };
        let mut text = Vec::new();
        for at in &places {
            let message = self.mailbox.content(*at, Part::Whole, true)?;
            text.extend(render::plain_body(&message));
        }
        let saved = save::append(&path, &text, false, self.locks())?;
        for at in places {
            if let Some(message) = self.message(at) {
                message.state = State::Saved;
            }
        }
        self.say_saved(&path.display().to_string(), saved)
    }

    fn say_saved(&self, name: &str, saved: Saved) -> Result<(), Fail> {
        let what = if saved.created {
            "[New file]"
        } else {
            "[Appended]"
        };
        let name = text::clean_line(name);
        self.terminal.say(&format!(
            "\"{name}\" {what} {}/{}",
            saved.lines, saved.octets
        ))
    }

    /// `pipe [list] command`: the messages as they are, one after the other.
    pub(super) fn pipe(&mut self, rest: &str) -> Result<(), Fail> {
        let (list, command) = split_command(rest);
        if command.is_empty() {
            return Err(Fail::usage("pipe: say into which command"));
        }
        let mut text = Vec::new();
        for at in self.select(list)? {
            text.extend(save::plain(&self.mailbox.content(at, Part::Whole, true)?));
            if let Some(message) = self.message(at) {
                message.seen = true;
            }
        }
        self.terminal.pipe(command, &text, false)?;
        Ok(())
    }

    /// A message as it stands in an mbox.
    pub(super) fn as_mbox(&mut self, at: usize) -> Result<Vec<u8>, Fail> {
        let message = self.mailbox.content(at, Part::Whole, true)?;
        let sender = self.mailbox.envelope(at).address;
        let Some(known) = self.mailbox.messages.get(at) else {
            return Err(Fail::data(format!("{}: there is no such message", at + 1)));
        };
        let mut flags = known.stored.without(Flags::SEEN);
        if known.seen {
            flags = flags.with(Flags::SEEN);
        }
        if known.answered {
            flags = flags.with(Flags::ANSWERED);
        }
        let status = save::Status {
            flags,
            old: !known.recent,
        };
        let date = Date::local(known.date);
        Ok(save::mbox(&message, &sender, date, status))
    }
}

/// The list, and the file that is the last word; quotes keep blanks in its name.
fn split_file(rest: &str) -> (&str, Option<&str>) {
    let rest = rest.trim();
    if rest.is_empty() {
        return ("", None);
    }
    for quote in ['"', '\''] {
        if let Some(inner) = rest.strip_suffix(quote)
            && let Some((list, name)) = inner.rsplit_once(quote)
        {
            return (list.trim(), Some(name));
        }
    }
    match rest.rsplit_once(char::is_whitespace) {
        Some((list, name)) => (list.trim(), Some(name)),
        None => ("", Some(rest)),
    }
}

/// The words that can only be a list, and the command behind them.
fn split_command(rest: &str) -> (&str, &str) {
    let rest = rest.trim();
    let mut at = 0;
    for word in rest.split_inclusive(char::is_whitespace) {
        let digits = word
            .trim()
            .starts_with(|c: char| c.is_ascii_digit() || "*$^.+-:/".contains(c));
        if !digits
            || List::parse(word).is_err()
            || word.trim().get(1..).is_some_and(|w| w.contains('/'))
        {
            break;
        }
        at += word.len();
    }
    let (list, command) = rest.split_at(at);
    (list.trim(), command.trim())
}

/// A safe file name from an address: its local part, without what is no letter or digit.
fn file_of(address: &str) -> Result<String, Fail> {
    let local = address.split('@').next().unwrap_or_default();
    let safe = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    let name: String = local
        .chars()
        .map(|c| if safe(c) { c } else { '_' })
        .collect();
    let name = name.trim_start_matches(['.', '+', '-']);
    if name.is_empty() {
        return Err(Fail::new(
            Sysexit::DataErr,
            "the message does not say who sent it",
        ));
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_files() {
        for (rest, list, file) in [
            ("file", "", Some("file")),
            ("1-3 file", "1-3", Some("file")),
            ("1 2 \"a file\"", "1 2", Some("a file")),
            ("'a file'", "", Some("a file")),
            ("* +work", "*", Some("+work")),
            ("", "", None),
        ] {
            assert_eq!(split_file(rest), (list, file), "{rest}");
        }
        for (rest, list, command) in [
            ("wc -l", "", "wc -l"),
            ("1-3 wc -l", "1-3", "wc -l"),
            ("* grep x", "*", "grep x"),
            ("/bin/cat", "", "/bin/cat"),
            ("", "", ""),
        ] {
            assert_eq!(split_command(rest), (list, command), "{rest}");
        }
    }

    #[test]
    fn names_of_senders_are_safe() {
        for (address, wanted) in [
            ("ann@x", "ann"),
            ("../../etc/passwd@x", "_.._etc_passwd"),
            ("+x@y", "x"),
            ("a b@y", "a_b"),
        ] {
            assert_eq!(file_of(address).unwrap(), wanted);
        }
        assert!(file_of("@x").is_err() && file_of("...").is_err());
    }
}
