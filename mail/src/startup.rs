//! Start-up files, and the commands that only set something and so may stand in one.

use std::path::Path;

use base::{Doing, Fail};

use crate::command::{self, Line, Verb};
use crate::list::words;
use crate::render::Fields;
use crate::settings::Settings;

/// A start-up file larger than this is none.
const MAX_FILE: u64 = 1 << 20;
/// Files that one file may name, and those again.
const MAX_FILES: usize = 20;

/// Reads a file of commands, if it is there; what is wrong in it is returned, with file and line.
/// `sending` decides `if s`, `if r`; `terminal` decides `if t`.
pub(crate) fn read(
    settings: &mut Settings,
    path: &Path,
    sending: bool,
    terminal: bool,
) -> Result<Vec<String>, Fail> {
    let mut problems = Vec::new();
    // No recursion: a file that names itself ends at the bound.
    let mut files = vec![path.to_owned()];
    let mut read = 0;
    while let Some(path) = files.pop() {
        read += 1;
        if read > MAX_FILES {
            problems.push(format!("{}: more than {MAX_FILES} files", path.display()));
            break;
        }
        let Some(text) = slurp(&path)? else { continue };
        let mut shown = true;
        for (at, line) in text.lines().enumerate() {
            let mut fields = line.split_whitespace();
            match (fields.next(), fields.next()) {
                (Some("if"), Some(what)) => {
                    shown = match what {
                        "s" | "send" => sending,
                        "r" | "receive" => !sending,
                        "t" | "term" => terminal,
                        _ => false,
                    };
                    continue;
                }
                (Some("else"), None) => {
                    shown = !shown;
                    continue;
                }
                (Some("endif"), None) => {
                    shown = true;
                    continue;
                }
                _ if !shown => continue,
                _ => {}
            }
            let said = match command::parse(line) {
                Line::Empty | Line::Comment => None,
                Line::Command(Verb::Source, file) => {
                    files.push(settings.path(file));
                    None
                }
                Line::Command(verb, rest) if sets(verb) => set(settings, verb, rest).err(),
                _ => Some("not a command for a start-up file".into()),
            };
            problems.extend(said.map(|said| format!("{}:{}: {said}", path.display(), at + 1)));
        }
    }
    Ok(problems)
}

fn slurp(path: &Path) -> Result<Option<String>, Fail> {
    let doing = || format!("read {}", path.display());
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() <= MAX_FILE => {}
        Ok(_) => {
            return Err(Fail::config(format!(
                "{}: not a start-up file",
                path.display()
            )));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).doing(doing),
    }
    let text = std::fs::read(path).doing(doing)?;
    Ok(Some(mime::charset::guess(&text)))
}

/// Whether the command only sets something.
pub(crate) fn sets(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::Set
            | Verb::Unset
            | Verb::Alias
            | Verb::Unalias
            | Verb::Alternates
            | Verb::Ignore
            | Verb::Retain
    )
}

/// Does such a command; gives what there is to show.
pub(crate) fn set(settings: &mut Settings, verb: Verb, rest: &str) -> Result<String, String> {
    let words = words(rest);
    match (verb, words.as_slice()) {
        (Verb::Set, []) => return Ok(settings.list()),
        (Verb::Set, names) => names.iter().for_each(|name| settings.set(name)),
        (Verb::Unset, []) => return Err("say which variable".into()),
        (Verb::Unset, names) => names.iter().for_each(|name| settings.unset(name)),
        (Verb::Alias, []) => return Ok(settings.aliases()),
        (Verb::Alias, [_]) => return Err("say which addresses the name stands for".into()),
        (Verb::Alias, [name, ..]) => {
            // Behind the name it is an address list, commas and all.
            let list = rest.trim().get(name.len()..).unwrap_or_default();
            settings.alias(name, &[crate::compose::addresses(list)]);
        }
        (Verb::Unalias, names) => names.iter().for_each(|name| settings.unalias(name)),
        (Verb::Alternates, []) => return Ok(format!("{}\n", settings.alternates.join(" "))),
        (Verb::Alternates, names) => settings.alternates = names.to_vec(),
        (Verb::Retain, []) => settings.fields = Fields::All,
        (Verb::Ignore | Verb::Retain, names) => {
            let names = names.iter().map(|name| name.to_ascii_lowercase());
            settings.fields = fields(&settings.fields, verb, names);
        }
        _ => {}
    }
    Ok(String::new())
}

/// The fields shown when some more are retained or ignored. The first `retain` replaces what is
/// shown by default; `ignore` takes from what is shown.
fn fields(now: &Fields, verb: Verb, names: impl Iterator<Item = String>) -> Fields {
    let mut all: Vec<String> = names.collect();
    match (now, verb) {
        (Fields::Only(shown), Verb::Retain) if *now != Fields::default() => {
            all.extend(shown.iter().cloned());
            Fields::Only(all)
        }
        (_, Verb::Retain) => Fields::Only(all),
        (Fields::Only(shown), _) => Fields::Only(
            shown
                .iter()
                .filter(|name| !all.contains(name))
                .cloned()
                .collect(),
        ),
        (Fields::Without(hidden), _) => {
            all.extend(hidden.iter().cloned());
            Fields::Without(all)
        }
        (Fields::All, _) => Fields::Without(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> (Settings, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mailrc");
        std::fs::write(&path, text.replace("SELF", &path.display().to_string())).unwrap();
        let mut settings = Settings::default();
        let problems = read(&mut settings, &path, false, true).unwrap();
        let name = format!("{}:", path.display());
        (
            settings,
            problems.iter().map(|p| p.replace(&name, "")).collect(),
        )
    }

    #[test]
    fn what_may_stand_there() {
        let (settings, problems) = load(
            "# mine\nset crt=10 nohold\nalias team ann, Bob <bob@x>\nif s\nset sends\nelse\nset \
             reads\nendif\nretain subject from\nretain to\nignore from\ndelete 1\nunset\n",
        );
        assert_eq!(settings.number("crt"), Some(10));
        assert!(settings.is_set("reads") && !settings.is_set("sends") && !settings.is_set("hold"));
        assert_eq!(settings.expand("team").len(), 2);
        assert_eq!(
            settings.fields,
            Fields::Only(vec!["to".into(), "subject".into()])
        );
        let wanted = [
            "12: not a command for a start-up file",
            "13: say which variable",
        ];
        assert_eq!(problems, wanted);
    }

    #[test]
    fn a_file_that_names_itself_ends() {
        assert_eq!(load("source SELF\n").1.len(), 1);
        let mut settings = Settings::default();
        let none = read(&mut settings, Path::new("/nowhere/x"), false, false).unwrap();
        assert!(none.is_empty());
    }
}
