//! mailq - show the queue, and put messages aside and back. See mailq(1).

mod account;
mod operate;
mod show;

use std::process::ExitCode;

use base::log::init_command;

use crate::operate::Verb;

fn main() -> ExitCode {
    init_command("mailq");
    let words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    let done = match words.split_first() {
        Some((word, ids)) if let Some(verb) = Verb::parse(word) => match account::named(ids) {
            Some(login) => account::run(verb, login),
            None => operate::run(verb, ids),
        },
        _ => show::command(&words),
    };
    done.unwrap_or_else(|fail| fail.report())
}
