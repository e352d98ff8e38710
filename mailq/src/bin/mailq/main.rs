//! mailq - show the queue. See mailq(1).

mod show;

use std::process::ExitCode;

use base::log::init_command;

fn main() -> ExitCode {
    init_command("mailq");
    let words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    show::command(&words).unwrap_or_else(|fail| fail.report())
}
