//! Writing a message: lines of text, and lines that begin with `~` and do something (POSIX mailx,
//! "Command Escapes").

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base::{Doing, Fail};

use crate::list::words;
use crate::outgoing::Letter;
use crate::settings::Settings;
use crate::terminal::{Terminal, Typed};
use crate::text;

/// A file larger than this is no text of a message.
const MAX_FILE: u64 = 64 << 20;

/// The messages of the mailbox that is being read, for `~m` and `~f`: the list as typed, and
/// whether each line is indented.
pub(crate) type Quote<'a> = dyn FnMut(&str, Option<&str>) -> Result<String, Fail> + 'a;

/// What came of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    Send(Box<Letter>),
    /// Given up; `true` where what was written is to be kept in dead.letter.
    Abort {
        keep: bool,
        body: String,
    },
}

/// Somebody writes.
pub(crate) struct Composer<'a> {
    pub(crate) terminal: &'a mut Terminal,
    pub(crate) settings: &'a Settings,
    pub(crate) quote: &'a mut Quote<'a>,
}

/// What an escape line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    On,
    End,
    Abort { keep: bool },
}

impl Composer<'_> {
    /// Asks for the subject and the copies where that is set, then takes lines up to the end: a dot
    /// alone, `~.`, or the end of the input.
    pub(crate) fn write(&mut self, mut letter: Letter) -> Result<Outcome, Fail> {
        let interactive = self.terminal.interactive;
        let asks = |name: &str| interactive && self.settings.is_set(name);
        if letter.subject.is_empty() && (asks("asksub") || asks("ask")) {
            match self.terminal.line("Subject: ")? {
                Typed::Line(line) => letter.subject = line,
                Typed::End => {}
                Typed::Interrupt => {
                    return Ok(Outcome::Abort {
                        keep: false,
                        body: String::new(),
                    });
                }
            }
        }
        let escape = self
            .settings
            .value_or("escape", "~")
            .chars()
            .next()
            .unwrap_or('~');
        let mut interrupted = false;
        loop {
            let line = match self.terminal.line("")? {
                Typed::Line(line) => line,
                Typed::End if interactive && self.settings.is_set("ignoreeof") => {
                    self.terminal.say("Use \".\" to end the message.")?;
                    continue;
                }
                Typed::End => break,
                Typed::Interrupt if self.settings.is_set("ignore") => {
                    self.terminal.say("@")?;
                    continue;
                }
                Typed::Interrupt if interrupted => {
                    return Ok(Outcome::Abort {
                        keep: self.settings.is_set("save"),
                        body: letter.body,
                    });
                }
                Typed::Interrupt => {
                    interrupted = true;
                    self.terminal
                        .say("\n(Interrupt: once more to give up the message)")?;
                    continue;
                }
            };
            interrupted = false;
            if line == "." {
                break;
            }
            let Some(rest) = line.strip_prefix(escape) else {
                letter.body.push_str(&line);
                letter.body.push('\n');
                continue;
            };
            match self.escape(rest, escape, &mut letter) {
                Ok(Next::On) => {}
                Ok(Next::End) => break,
                Ok(Next::Abort { keep }) => {
                    return Ok(Outcome::Abort {
                        keep,
                        body: letter.body,
                    });
                }
                // A file that is not there is no reason to lose the message.
                Err(fail) => self.terminal.say(&text::clean_line(&fail.to_string()))?,
            }
        }
        if interactive && self.settings.is_set("askcc") {
            if let Typed::Line(line) = self.terminal.line("Cc: ")? {
                add(&mut letter.cc, &line);
            }
        } else if interactive {
            self.terminal.say("EOT")?;
        }
        Ok(Outcome::Send(Box::new(letter)))
    }

    fn escape(&mut self, rest: &str, escape: char, letter: &mut Letter) -> Result<Next, Fail> {
        let mut letters = rest.chars();
        let Some(what) = letters.next() else {
            return Ok(Next::On);
        };
        let argument = letters.as_str().trim();
        match what {
            c if c == escape => letter.body.push_str(&format!("{rest}\n")),
            '.' => return Ok(Next::End),
            'q' => return Ok(Next::Abort { keep: true }),
            'x' => return Ok(Next::Abort { keep: false }),
            'p' => self.print(letter)?,
            's' => letter.subject = argument.into(),
            't' => add(&mut letter.to, argument),
            'c' => add(&mut letter.cc, argument),
            'b' => add(&mut letter.bcc, argument),
            'h' => self.ask_header(letter)?,
            'a' | 'A' => self.sign(if what == 'a' { "sign" } else { "Sign" }, letter),
            'i' => self.sign(argument, letter),
            'r' | '<' | 'd' => self.read(what, argument, letter)?,
            'w' => self.save(argument, letter)?,
            'e' => self.edit("EDITOR", "ed", letter)?,
            'v' => self.edit("VISUAL", "vi", letter)?,
            'f' | 'F' | 'm' | 'M' => {
                let indent = self.settings.value_or("indentprefix", "> ");
                let indent = matches!(what, 'm' | 'M').then_some(indent.as_str());
                let quoted = (self.quote)(argument, indent)?;
                letter.body.push_str(&quoted);
                self.terminal.say("(continue)")?;
            }
            '!' => {
                self.terminal.run(argument)?;
                self.terminal.say("!")?;
            }
            '|' => {
                let filtered = self.terminal.pipe(argument, letter.body.as_bytes(), true)?;
                if filtered.is_empty() {
                    self.terminal
                        .say("(the command gave nothing: the text stays as it was)")?;
                } else {
                    letter.body = ended(mime::charset::guess(&filtered));
                }
            }
            '@' => letter
                .attachments
                .extend(words(argument).iter().map(PathBuf::from)),
            '?' => self.terminal.show(HELP)?,
            _ => self.terminal.say(&format!(
                "~{}: unknown, ~? for help",
                text::clean_line(rest)
            ))?,
        }
        Ok(Next::On)
    }

    fn print(&self, letter: &Letter) -> Result<(), Fail> {
        let mut out = String::from("-------\nMessage contains:\n");
        for (name, value) in [
            ("To", &letter.to),
            ("Cc", &letter.cc),
            ("Bcc", &letter.bcc),
            ("Subject", &letter.subject),
        ] {
            if !value.is_empty() {
                out.push_str(&format!("{name}: {value}\n"));
            }
        }
        for path in &letter.attachments {
            out.push_str(&format!("Attached: {}\n", path.display()));
        }
        self.terminal
            .show(&text::clean(&format!("{out}\n{}(continue)\n", letter.body)))
    }

    fn ask_header(&mut self, letter: &mut Letter) -> Result<(), Fail> {
        for (name, value) in [
            ("To", &mut letter.to),
            ("Subject", &mut letter.subject),
            ("Cc", &mut letter.cc),
            ("Bcc", &mut letter.bcc),
        ] {
            let prompt = format!("{name} [{}]: ", text::clean_line(value));
            match self.terminal.line(&prompt)? {
                Typed::Line(line) if !line.is_empty() => *value = line,
                _ => {}
            }
        }
        Ok(())
    }

    fn sign(&self, variable: &str, letter: &mut Letter) {
        if let Some(value) = self.settings.value(variable) {
            letter
                .body
                .push_str(&ended(value.replace("\\n", "\n").replace("\\t", "\t")));
        }
    }

    fn read(&mut self, what: char, argument: &str, letter: &mut Letter) -> Result<(), Fail> {
        let text = match argument.strip_prefix('!') {
            Some(command) => self.terminal.pipe(command, b"", true)?,
            None if what == 'd' => slurp(&dead_letter(self.settings))?,
            None if argument.is_empty() => return Err(Fail::usage("~r: say which file")),
            None => slurp(&self.settings.path(argument))?,
        };
        let text = ended(mime::charset::guess(&text).replace("\r\n", "\n"));
        let said = format!("\"{argument}\" {}/{}", text.lines().count(), text.len());
        letter.body.push_str(&text);
        self.terminal.say(&text::clean_line(&said))
    }

    fn save(&self, argument: &str, letter: &Letter) -> Result<(), Fail> {
        if argument.is_empty() {
            return Err(Fail::usage("~w: say which file"));
        }
        append(&self.settings.path(argument), &letter.body)?;
        self.terminal.say(&text::clean_line(&format!(
            "\"{argument}\" {}/{}",
            letter.body.lines().count(),
            letter.body.len()
        )))
    }

    fn edit(&mut self, variable: &str, default: &str, letter: &mut Letter) -> Result<(), Fail> {
        let editor = self.settings.value_or(variable, default);
        letter.body = edit(self.terminal, &editor, &letter.body)?;
        self.terminal.say("(continue)")
    }
}

/// The text as the editor left it.
pub(crate) fn edit(terminal: &mut Terminal, editor: &str, body: &str) -> Result<String, Fail> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|e| Fail::temp(format!("get random bytes: {e}")))?;
    let name = format!("mail.{:016x}", u64::from_le_bytes(random));
    let path = std::env::temp_dir().join(name);
    let doing = || format!("write {}", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .doing(doing)?;
    let edited = file
        .write_all(body.as_bytes())
        .doing(doing)
        .and_then(|()| terminal.run(&format!("{editor} '{}'", path.display())))
        .and_then(|()| slurp(&path));
    // It is ours and of no more use.
    std::fs::remove_file(&path).ok();
    Ok(ended(mime::charset::guess(&edited?)))
}

fn slurp(path: &Path) -> Result<Vec<u8>, Fail> {
    use std::io::Read;
    let doing = || format!("read {}", path.display());
    let mut text = Vec::new();
    let file = std::fs::File::open(path).doing(doing)?;
    file.take(MAX_FILE + 1)
        .read_to_end(&mut text)
        .doing(doing)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(Fail::data(format!(
            "{}: larger than {MAX_FILE} octets",
            path.display()
        )));
    }
    Ok(text)
}

fn append(path: &Path, text: &str) -> Result<(), Fail> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .doing(|| format!("write {}", path.display()))
}

/// Where a message goes that was given up.
pub(crate) fn dead_letter(settings: &Settings) -> PathBuf {
    settings.path(&settings.value_or("DEAD", "~/dead.letter"))
}

/// Keeps what was given up: the last one only, as mailx does.
pub(crate) fn bury(settings: &Settings, body: &str) -> Result<PathBuf, Fail> {
    let path = dead_letter(settings);
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(body.as_bytes()))
        .doing(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn add(list: &mut String, more: &str) {
    if !list.is_empty() && !more.is_empty() {
        list.push_str(", ");
    }
    list.push_str(&addresses(more));
}

/// Addresses as they are typed: between blanks where there is no comma, quote or bracket.
pub(crate) fn addresses(text: &str) -> String {
    if text.contains([',', '<', '"', '(', ':']) {
        return text.trim().to_owned();
    }
    text.split_whitespace().collect::<Vec<_>>().join(", ")
}

fn ended(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

const HELP: &str = "\
~.              end the message, as a line with a dot or ^D does
~q, ~x          give it up, with or without a copy in dead.letter
~p              show it
~s text         set the subject
~t ~c ~b names  add to To, Cc, Bcc
~h              ask for all of these
~r file         read a file in (~r !command: what a command writes)
~d              read dead.letter in
~w file         append the text to a file
~e, ~v          edit the text with $EDITOR, $VISUAL
~m list, ~f list  quote messages, with or without indentation
~@ file         attach a file
~a ~A ~i name   insert the value of sign, Sign, name
~!command       run a command (~|command: put the text through it)
~~text          a line that begins with ~
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_typed() {
        for (text, wanted) in [
            ("ann bob", "ann, bob"),
            ("ann, bob", "ann, bob"),
            ("Ann Example <ann@x>", "Ann Example <ann@x>"),
            (" ", ""),
        ] {
            assert_eq!(addresses(text), wanted);
        }
        let mut list = String::from("ann");
        add(&mut list, "bob cid");
        add(&mut list, "");
        assert_eq!(list, "ann, bob, cid");
    }

    #[test]
    fn what_is_given_up_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.set(&format!("DEAD={}", dir.path().join("dead").display()));
        bury(&settings, "long first").unwrap();
        let path = bury(&settings, "second").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "second");
    }
}
