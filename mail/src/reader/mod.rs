//! Reading mail: a prompt, a command, what it does, until `quit` or `exit`.
//!
//! Commands come from whoever types, or from a pipe: then there is no prompt, and a command that
//! fails makes the exit status 1.

mod answer;
mod change;
mod show;

use base::{Domain, Fail};
use store::lock::Locks;

use crate::command::{self, COMMANDS, Line, Verb};
use crate::list::{Among, List};
use crate::mailbox::{Mailbox, Message, State};
use crate::places::{Place, Places};
use crate::save;
use crate::screen;
use crate::settings::Settings;
use crate::startup;
use crate::terminal::{Terminal, Typed};
use crate::text;

/// An open mailbox and somebody who reads it.
pub(crate) struct Reader {
    pub(crate) terminal: Terminal,
    pub(crate) settings: Settings,
    pub(crate) places: Places,
    /// Put behind names without a domain.
    pub(crate) here: Option<Domain>,
    place: Place,
    mailbox: Mailbox,
    /// The current message, from 0.
    dot: usize,
    /// The current message has been shown, or was deleted: `next` goes on from it.
    shown: bool,
    /// The first message of the screen.
    top: usize,
    failed: bool,
}

/// Whether another command is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    On,
    Leave,
}

impl Reader {
    pub(crate) fn new(
        terminal: Terminal,
        settings: Settings,
        places: Places,
        here: Option<Domain>,
        place: Place,
        mailbox: Mailbox,
    ) -> Self {
        let dot = first(&mailbox.messages);
        Self {
            terminal,
            settings,
            places,
            here,
            place,
            mailbox,
            dot,
            shown: false,
            top: dot,
            failed: false,
        }
    }

    /// How many messages there are.
    pub(crate) fn count(&self) -> usize {
        self.mailbox.messages.len()
    }

    /// Only the list: `-H`.
    pub(crate) fn list(&mut self) -> Result<(), Fail> {
        let all: Vec<usize> = (0..self.count()).collect();
        self.show_lines(&all)
    }

    /// Takes commands up to the end; gives the exit status.
    pub(crate) fn run(&mut self, list: bool) -> Result<u8, Fail> {
        if list {
            self.terminal.say(concat!(
                "yubin mail ",
                env!("CARGO_PKG_VERSION"),
                ".  Type ? for help."
            ))?;
            self.show_summary()?;
            self.show_screen(self.dot)?;
        }
        loop {
            if self.terminal.interactive {
                self.look_for_new()?;
            }
            let prompt = self.settings.value_or("prompt", "& ");
            let line = match self.terminal.line(&prompt)? {
                Typed::Line(line) => line,
                Typed::Interrupt => {
                    self.terminal.say("\nInterrupt")?;
                    continue;
                }
                Typed::End if self.terminal.interactive && self.settings.is_set("ignoreeof") => {
                    self.terminal.say("\nUse \"quit\" to quit.")?;
                    continue;
                }
                Typed::End => {
                    if self.terminal.interactive {
                        self.terminal.say("")?;
                    }
                    "quit".into()
                }
            };
            match self.command(&line) {
                Ok(Next::On) => {}
                Ok(Next::Leave) => return Ok(u8::from(self.failed)),
                Err(fail) if fail.kind() == Some(std::io::ErrorKind::BrokenPipe) => {
                    return Err(fail);
                }
                Err(fail) => {
                    self.failed |= !self.terminal.interactive;
                    log::error!("{}", text::clean_line(&fail.to_string()));
                }
            }
        }
    }

    fn command(&mut self, line: &str) -> Result<Next, Fail> {
        match command::parse(line) {
            Line::Empty if self.terminal.interactive => self.next("")?,
            Line::Empty | Line::Comment => {}
            Line::List(list) => self.print(list, false)?,
            Line::Unknown(word) => {
                let what = format!("{word}: unknown command, ? for help");
                return Err(Fail::usage(what));
            }
            Line::Command(verb, rest) => return self.verb(verb, rest),
        }
        Ok(Next::On)
    }

    fn verb(&mut self, verb: Verb, rest: &str) -> Result<Next, Fail> {
        match verb {
            Verb::Quit => {
                self.leave()?;
                return Ok(Next::Leave);
            }
            Verb::Exit => return Ok(Next::Leave),
            Verb::Print => self.print(rest, false)?,
            Verb::PrintAll => self.print(rest, true)?,
            Verb::Next => self.next(rest)?,
            Verb::Top => self.top(rest)?,
            Verb::Headers => self.headers(rest)?,
            Verb::Screen => self.scroll(rest)?,
            Verb::From => {
                let places = self.select(rest)?;
                self.show_lines(&places)?;
            }
            Verb::Size => self.sizes(rest)?,
            Verb::Where => self.terminal.say(&format!("{}", self.dot + 1))?,
            Verb::Delete => self.delete(rest)?,
            Verb::DeletePrint => {
                self.delete(rest)?;
                self.next("")?;
            }
            Verb::Undelete => self.undelete(rest)?,
            Verb::Save => self.save(rest, true)?,
            Verb::Copy => self.save(rest, false)?,
            Verb::SaveByName => self.save_by_name(rest, true)?,
            Verb::CopyByName => self.save_by_name(rest, false)?,
            Verb::Write => self.write(rest)?,
            Verb::Pipe => self.pipe(rest)?,
            Verb::Hold => self.mark(rest, |m| m.state = State::Held)?,
            Verb::Mbox => self.mark(rest, |m| m.state = State::ToMbox)?,
            Verb::Touch => self.mark(rest, |m| m.seen = true)?,
            Verb::Unread => self.mark(rest, |m| m.seen = false)?,
            Verb::Reply => self.reply(rest, true)?,
            Verb::ReplySender => self.reply(rest, false)?,
            Verb::Mail => self.mail(rest)?,
            Verb::File => self.file(rest)?,
            Verb::Folders => {
                let folders = self.mailbox.folders()?;
                let lines = folders
                    .iter()
                    .fold(String::new(), |out, name| match name.as_str() {
                        "INBOX" => out + "%\n",
                        name => format!("{out}+{}\n", text::clean_line(name)),
                    });
                self.terminal.show(&lines)?;
            }
            Verb::Chdir => {
                let dir = self.settings.path(if rest.is_empty() { "~" } else { rest });
                std::env::set_current_dir(&dir)
                    .map_err(|e| Fail::io(format!("cd {}", dir.display()), e))?;
            }
            Verb::Echo => self.terminal.say(rest)?,
            Verb::Shell => {
                let shell = self.settings.value_or("SHELL", "/bin/sh");
                self.terminal.run(&shell)?;
            }
            Verb::ShellCommand => {
                self.terminal.run(rest)?;
                self.terminal.say("!")?;
            }
            Verb::Source => {
                let path = self.settings.path(rest);
                let terminal = self.terminal.interactive;
                for problem in startup::read(&mut self.settings, &path, false, terminal)? {
                    log::warn!("{}", text::clean_line(&problem));
                }
            }
            Verb::List => {
                let names: Vec<&str> = COMMANDS.iter().map(|c| c.name).collect();
                self.terminal.say(&names.join(", "))?;
            }
            Verb::Help => {
                let help = COMMANDS.iter().filter(|c| !c.help.is_empty());
                let help = help.fold(String::new(), |out, c| format!("{out}{}\n", c.help));
                self.terminal.show(&help)?;
            }
            Verb::Set
            | Verb::Unset
            | Verb::Alias
            | Verb::Unalias
            | Verb::Alternates
            | Verb::Ignore
            | Verb::Retain => {
                let said = startup::set(&mut self.settings, verb, rest).map_err(Fail::usage)?;
                self.terminal.show(&text::clean(&said))?;
            }
        }
        Ok(Next::On)
    }

    /// The messages of a list; the current one where nothing is said.
    fn select(&mut self, list: &str) -> Result<Vec<usize>, Fail> {
        self.select_among(list, Among::Undeleted)
    }

    fn select_among(&mut self, list: &str, among: Among) -> Result<Vec<usize>, Fail> {
        let list = if list.trim().is_empty() { "." } else { list };
        let list = List::parse(list).map_err(Fail::usage)?;
        // The list asks for headers while the messages are looked at: two parts of the mailbox.
        let messages = self.mailbox.messages.clone();
        let mailbox = &mut self.mailbox;
        let mut heading = |at: usize| {
            let envelope = mailbox.envelope(at);
            (
                format!("{} {}", envelope.address, envelope.name),
                envelope.subject,
            )
        };
        list.select(&messages, self.dot, among, &mut heading)
            .map_err(Fail::usage)
    }

    fn message(&mut self, at: usize) -> Option<&mut Message> {
        self.mailbox.messages.get_mut(at)
    }

    fn look_for_new(&mut self) -> Result<(), Fail> {
        let before = self.count();
        let arrived = self.mailbox.arrived()?;
        if arrived > 0 {
            let plural = if arrived == 1 { "" } else { "s" };
            self.terminal.say(&format!(
                "New mail has arrived.\nLoaded {arrived} new message{plural}"
            ))?;
            let fresh: Vec<usize> = (before..self.count()).collect();
            self.show_lines(&fresh)?;
        }
        Ok(())
    }

    fn locks(&self) -> Locks {
        Locks::new(&self.places.config)
    }

    fn show_summary(&self) -> Result<(), Fail> {
        let mailbox = &self.mailbox;
        let line = screen::summary(&mailbox.place, &mailbox.messages, mailbox.read_only);
        self.terminal.say(&line)
    }

    /// `file`: says which mailbox this is, or leaves it and opens another.
    fn file(&mut self, name: &str) -> Result<(), Fail> {
        if name.is_empty() {
            return self.show_summary();
        }
        let place = self.places.parse(name, &self.settings)?;
        let Some(mailbox) = self.places.open(&place)? else {
            return Err(Fail::usage(format!(
                "No mail for {}",
                name.trim_start_matches('%')
            )));
        };
        self.leave()?;
        self.mailbox = mailbox;
        self.place = place;
        self.dot = first(&self.mailbox.messages);
        self.shown = false;
        self.show_summary()?;
        if self.settings.is_set("header") {
            self.show_screen(self.dot)?;
        }
        Ok(())
    }

    /// Does what was decided: the way out of a mailbox.
    fn leave(&mut self) -> Result<(), Fail> {
        if self.mailbox.read_only {
            return Ok(());
        }
        let inbox = matches!(self.place, Place::Inbox(_));
        let moved = self.move_to_mbox(inbox)?;
        let saved_go = inbox && !self.settings.is_set("keepsave");
        let goes = |m: &Message| match m.state {
            State::Deleted | State::ToMbox => true,
            State::Saved => saved_go,
            State::Held | State::Plain => false,
        };
        let left = self.mailbox.apply(&goes)?;
        let count = |n: usize| format!("{n} message{}", if n == 1 { "" } else { "s" });
        if moved > 0 {
            self.terminal
                .say(&format!("Saved {} in mbox", count(moved)))?;
        }
        let place = text::clean_line(&self.mailbox.place);
        match (inbox, left.kept, left.removed) {
            (true, kept, _) if kept > 0 => self
                .terminal
                .say(&format!("Held {} in {place}", count(kept))),
            (false, _, removed) if removed > 0 => self
                .terminal
                .say(&format!("\"{place}\" {} removed", count(removed))),
            _ => Ok(()),
        }
    }

    /// Appends what `mbox` marked, and without `hold` what was read, to the user's mbox.
    fn move_to_mbox(&mut self, inbox: bool) -> Result<usize, Fail> {
        let all_read = inbox && !self.settings.is_set("hold");
        let path = self.settings.path("&");
        let mut moved = 0;
        for at in 0..self.count() {
            let Some(message) = self.message(at) else {
                break;
            };
            let read = all_read && message.seen && message.state == State::Plain;
            if message.state == State::ToMbox || read {
                let text = self.as_mbox(at)?;
                save::append(&path, &text, true, self.locks())?;
                if let Some(message) = self.message(at) {
                    message.state = State::ToMbox;
                }
                moved += 1;
            }
        }
        Ok(moved)
    }
}

/// Where reading begins: the first new message, else the first unread, else the first.
fn first(messages: &[Message]) -> usize {
    let new = messages.iter().position(|m| m.recent && !m.seen);
    new.or_else(|| messages.iter().position(|m| !m.seen))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Config, Root};
    use std::path::{Path, PathBuf};

    const BOX: &str = "From ann@x Sun Nov 22 10:00:00 2026\nFrom: Ann <ann@x>\nSubject: one\n\n1\n\n\
        From bob@x Sun Nov 22 10:00:00 2026\nFrom: bob@x\nSubject: two\n\n2\n\n\
        From cid@x Sun Nov 22 10:00:00 2026\nFrom: cid@x\nSubject: three\n\n3\n\n";

    struct Fixture {
        dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mail = dir.path().join("var/spool/mail");
            std::fs::create_dir_all(&mail).unwrap();
            std::fs::write(mail.join("ann"), BOX).unwrap();
            Self { dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn open(&self) -> Reader {
            let root = Root::new(self.dir.path());
            let text = "MY_NAME=mx\nMY_DOMAIN=example.org\n";
            let config = Config::parse(&root, text, Path::new("t")).unwrap();
            let places = Places {
                root,
                config,
                user: "ann".into(),
            };
            let place = Place::Inbox("ann".into());
            let mailbox = places.open(&place).unwrap().unwrap();
            let mut settings = Settings::default();
            settings.set(&format!("HOME={}", self.dir.path().display()));
            let terminal = Terminal::open(false).unwrap();
            Reader::new(terminal, settings, places, None, place, mailbox)
        }

        /// Does the commands; gives the subjects that the mailbox has then, with `R` for read.
        fn after(&self, commands: &[&str]) -> Vec<String> {
            let mut reader = self.open();
            for command in commands {
                let command = command.replace("DIR", &self.dir.path().display().to_string());
                reader.command(&command).unwrap();
            }
            drop(reader);
            let mut reader = self.open();
            (0..reader.count())
                .map(|at| {
                    let seen = reader.mailbox.messages[at].seen;
                    reader.mailbox.envelope(at).subject + if seen { " R" } else { "" }
                })
                .collect()
        }
    }

    #[test]
    fn quit_does_what_was_decided_and_exit_nothing() {
        for (commands, wanted) in [
            (&["d 1", "d 2", "x"][..], &["one", "two", "three"][..]),
            (&["d 1 3", "q"], &["two"]),
            (&["d *", "u 2", "q"], &["two"]),
            (&["p 2", "q"], &["one", "two R", "three"]),
            (&["p *", "unread 1", "q"], &["one", "two R", "three R"]),
            (&["dp", "q"], &["two R", "three"]),
            (&["s 1 DIR/saved", "q"], &["two", "three"]),
            (&["c 1 DIR/saved", "q"], &["one", "two", "three"]),
            (
                &["set keepsave", "s 1 DIR/saved", "q"],
                &["one", "two", "three"],
            ),
            (&["s 1 +work", "q"], &["two", "three"]),
            (&["s 1 DIR/saved", "hold 1", "q"], &["one", "two", "three"]),
            (&["mbox 3", "q"], &["one", "two"]),
            (
                &["unset hold", "p 1", "hold 1", "p 2", "q"],
                &["one R", "three"],
            ),
            (&["d ann", "d /two", "q"], &["three"]),
            (&["d 1", "file %", "x"], &["two", "three"]),
        ] {
            let fixture = Fixture::new();
            assert_eq!(fixture.after(commands), wanted, "{commands:?}");
        }
    }

    #[test]
    fn what_was_not_copied_is_not_saved() {
        let fixture = Fixture::new();
        let mut reader = fixture.open();
        fixture.after(&["d 2", "q"]);
        let saved = reader.command("s 1 2 +work");
        assert!(saved.is_err());
        assert_eq!(reader.mailbox.messages[0].state, State::Plain);
    }

    #[test]
    fn what_is_saved_is_there() {
        let fixture = Fixture::new();
        fixture.after(&[
            "s 1 DIR/saved",
            "c 2 DIR/saved",
            "mbox 3",
            "w 2 DIR/text",
            "x",
        ]);
        let saved = std::fs::read_to_string(fixture.path("saved")).unwrap();
        let subjects: Vec<&str> = saved.lines().filter(|l| l.starts_with("Subject")).collect();
        assert_eq!(subjects, ["Subject: one", "Subject: two"]);
        assert_eq!(
            std::fs::read_to_string(fixture.path("text")).unwrap(),
            "2\n"
        );
        assert!(!fixture.path("mbox").exists(), "exit moves nothing");
    }

    #[test]
    fn the_current_message_moves_as_it_should() {
        let fixture = Fixture::new();
        let mut reader = fixture.open();
        for (command, dot) in [
            ("h", 1),
            ("n", 1),
            ("n", 2),
            ("d", 3),
            ("d", 1),
            ("u 3", 3),
            ("f 1", 3),
            ("-", 1),
            ("$", 3),
        ] {
            reader.command(command).unwrap();
            assert_eq!(reader.dot + 1, dot, "{command}");
        }
        for command in ["9", "d 2", "nonsense", "set crt=", "w", "r 1-", "|"] {
            let failed = reader.command(command).is_err();
            assert_eq!(failed, command != "set crt=", "{command}");
        }
    }
}
