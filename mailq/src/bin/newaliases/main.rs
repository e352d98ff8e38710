//! newaliases - check the alias files. See newaliases(1).

mod check;

use std::process::ExitCode;

use base::log::init_command;

fn main() -> ExitCode {
    init_command("newaliases");
    let words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    check::command(&words).unwrap_or_else(|fail| fail.report())
}
