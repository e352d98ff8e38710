//! Commands that show something.

use base::Fail;
use store::Part;

use super::Reader;
use crate::mailbox::State;
use crate::render::{self, Fields};
use crate::screen::{self, Heading};

/// Rows that the prompt and the lines above it take from a screen of the list.
const MARGIN: usize = 4;

impl Reader {
    /// Shows messages, and marks them as read.
    pub(super) fn print(&mut self, list: &str, all_fields: bool) -> Result<(), Fail> {
        let fields = if all_fields {
            Fields::All
        } else {
            self.settings.fields.clone()
        };
        for at in self.select(list)? {
            self.show(at, &fields, None)?;
        }
        Ok(())
    }

    fn show(&mut self, at: usize, fields: &Fields, lines: Option<usize>) -> Result<(), Fail> {
        let bytes = self.mailbox.content(at, Part::Whole, false)?;
        let text = render::message(&bytes, fields);
        let text = match lines {
            Some(lines) => text.split_inclusive('\n').take(lines).collect(),
            None => text,
        };
        let heading = match self.settings.is_set("quiet") {
            true => String::new(),
            false => format!("Message {}:\n", at + 1),
        };
        let rows = self.terminal.size().0.saturating_sub(1);
        let crt = self.settings.number("crt").unwrap_or(rows);
        let pager = self.settings.value("PAGER").unwrap_or_else(default_pager);
        self.dot = at;
        self.shown = true;
        if let Some(message) = self.message(at).filter(|_| lines.is_none()) {
            message.seen = true;
        }
        self.terminal
            .page(&format!("{heading}{text}"), Some(crt), &pager)
    }

    /// The next message that is not deleted, or of a list the first behind the current one.
    pub(super) fn next(&mut self, list: &str) -> Result<(), Fail> {
        let fields = self.settings.fields.clone();
        if !list.trim().is_empty() {
            let places = self.select(list)?;
            let behind = places.iter().find(|at| **at > self.dot || !self.shown);
            let Some(at) = behind.or_else(|| places.first()) else {
                return Ok(());
            };
            return self.show(*at, &fields, None);
        }
        let from = self.dot + usize::from(self.shown);
        let alive = |at: &usize| {
            self.mailbox
                .messages
                .get(*at)
                .is_some_and(|m| m.state != State::Deleted)
        };
        match (from..self.count()).find(alive) {
            Some(at) => self.show(at, &fields, None),
            None => {
                self.terminal.say("At EOF")?;
                Ok(())
            }
        }
    }

    pub(super) fn top(&mut self, list: &str) -> Result<(), Fail> {
        let lines = self.settings.number("toplines").unwrap_or(5);
        let fields = self.settings.fields.clone();
        for at in self.select(list)? {
            self.show(at, &fields, Some(lines))?;
        }
        Ok(())
    }

    pub(super) fn sizes(&mut self, list: &str) -> Result<(), Fail> {
        for at in self.select(list)? {
            let lines = self.mailbox.lines(at);
            let size = self.mailbox.messages.get(at).map_or(0, |m| m.size);
            self.terminal.say(&format!("{}: {lines}/{size}", at + 1))?;
        }
        Ok(())
    }

    /// `headers [message]`
    pub(super) fn headers(&mut self, list: &str) -> Result<(), Fail> {
        if list.trim().is_empty() {
            return self.show_screen(self.dot);
        }
        match self.select(list)?.first() {
            Some(at) => {
                self.dot = *at;
                self.show_screen(*at)
            }
            None => Ok(()),
        }
    }

    /// `z`, `z+`, `z-`, with a number of screens.
    pub(super) fn scroll(&mut self, rest: &str) -> Result<(), Fail> {
        let (back, number) = match rest.strip_prefix('-') {
            Some(number) => (true, number),
            None => (false, rest.strip_prefix('+').unwrap_or(rest)),
        };
        let screens: usize = match number.trim() {
            "" => 1,
            number => number
                .parse()
                .map_err(|_| Fail::usage("z: write z, z+ or z-"))?,
        };
        let step = self.height().saturating_mul(screens);
        let to = match back {
            true if self.top == 0 => return self.terminal.say("On first screenful of messages"),
            true => self.top.saturating_sub(step),
            false => self.top.saturating_add(step),
        };
        if to >= self.count() {
            return self.terminal.say("On last screenful of messages");
        }
        self.dot = to;
        self.shown = false;
        self.show_screen(to)
    }

    fn height(&self) -> usize {
        let rows = self.terminal.size().0.saturating_sub(MARGIN);
        self.settings.number("screen").unwrap_or(rows).max(1)
    }

    /// The screen of the list that has this message in it.
    pub(super) fn show_screen(&mut self, at: usize) -> Result<(), Fail> {
        let page = screen::page(at, self.count(), self.height());
        self.top = page.start;
        let alive = |at: &usize| {
            self.mailbox
                .messages
                .get(*at)
                .is_some_and(|m| m.state != State::Deleted)
        };
        let places: Vec<usize> = page.filter(alive).collect();
        if places.is_empty() {
            return self.terminal.say("No messages");
        }
        self.show_lines(&places)
    }

    /// A line of the list for each.
    pub(super) fn show_lines(&mut self, places: &[usize]) -> Result<(), Fail> {
        let columns = self.terminal.size().1;
        for &at in places {
            let envelope = self.mailbox.envelope(at);
            let named = self.settings.is_set("showname") && !envelope.name.is_empty();
            let heading = Heading {
                sender: if named {
                    envelope.name
                } else {
                    envelope.address
                },
                subject: envelope.subject,
                lines: self.mailbox.lines(at),
            };
            if let Some(message) = self.mailbox.messages.get(at) {
                let line = screen::line(at + 1, message, &heading, at == self.dot, columns);
                self.terminal.say(&line)?;
            }
        }
        Ok(())
    }
}

fn default_pager() -> String {
    let less = std::path::Path::new("/usr/bin/less").is_file();
    if less { "less -R" } else { "more" }.into()
}
