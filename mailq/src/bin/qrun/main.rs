//! qrun - run the mail queue: take in what users submitted, relay what goes elsewhere, defer and
//! bounce. See qrun(8).

mod board;
mod client;
mod content;
mod destinations;
#[cfg(test)]
mod fake;
mod flush;
mod forms;
mod forward;
mod intake;
mod mail;
mod needs;
mod relay;
mod reply;
mod report;
mod runner;
mod schedule;
mod session;
mod signing;
mod trace;
mod world;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use base::{Config, Fail, Root, privilege};
use getopts::{Options, ParsingStyle};
use queue::{Logging, Queue};

use crate::runner::{Mode, Runner};
use crate::signing::Signing;
use crate::world::World;

const USAGE: &str = "usage: qrun [-hnqV] [-f file]";

/// What the command line says.
enum Command {
    Run { mode: Mode, file: Option<PathBuf> },
    Check { file: Option<PathBuf> },
    Say(&'static str),
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match command(&args) {
        Ok(Command::Run { mode, file }) => {
            base::log::init("qrun");
            run(mode, file).map_or_else(|fail| fail.report(), |()| ExitCode::SUCCESS)
        }
        Ok(Command::Check { file }) => {
            base::log::init_command("qrun");
            check(file.as_deref()).map_or_else(|fail| fail.report(), |()| ExitCode::SUCCESS)
        }
        Ok(Command::Say(text)) => {
            base::say(text);
            ExitCode::SUCCESS
        }
        Err(fail) => {
            base::log::init_command("qrun");
            fail.report()
        }
    }
}

fn command(args: &[OsString]) -> Result<Command, Fail> {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::StopAtFirstFree);
    options.optflag("h", "help", "").optflag("V", "version", "");
    options
        .optflag("n", "", "")
        .optflag("q", "", "")
        .optopt("f", "", "", "");
    let given = options
        .parse(args)
        .map_err(|e| Fail::usage(format!("{e}; {USAGE}")))?;
    if let Some(extra) = given.free.first() {
        return Err(Fail::usage(format!("{extra}: not expected; {USAGE}")));
    }
    if given.opt_present("h") {
        return Ok(Command::Say(USAGE));
    }
    if given.opt_present("V") {
        return Ok(Command::Say(concat!(
            "qrun (yubin) ",
            env!("CARGO_PKG_VERSION")
        )));
    }
    let file = given.opt_str("f").map(PathBuf::from);
    if given.opt_present("n") {
        return Ok(Command::Check { file });
    }
    let mode = if given.opt_present("q") {
        Mode::Once
    } else {
        Mode::Daemon
    };
    Ok(Command::Run { mode, file })
}

/// Everything that the configuration can have wrong.
fn check(file: Option<&Path>) -> Result<(), Fail> {
    let root = Root::from_env();
    let config = Config::load(&root, file)?;
    if let Some(zone) = &config.dns_zone_file {
        dns::Zone::load(zone)?;
    }
    for record in Signing::open(&config)?.records() {
        base::say(&record);
    }
    base::say("configuration good");
    Ok(())
}

/// Everything that can fail before the first message; in this order, so that nothing is opened
/// after the privileges are gone and no thread was started before.
fn run(mode: Mode, file: Option<PathBuf>) -> Result<(), Fail> {
    let root = Root::from_env();
    let config = Config::load(&root, file.as_deref())?;
    let queue = Queue::open(&root)?;
    privilege::drop_to(&root, privilege::QUEUE_USER)?;
    // The log of one run is not worth its making: notes alone go into one.
    if mode == Mode::Daemon {
        queue.keep_log(Logging::Works, config.commit_log);
    }
    let world = World::new(&root, &config)?;
    let reload = move || {
        let config = Config::load(&root, file.as_deref())?;
        World::new(&root, &config)
    };
    Runner::new(queue, world, mode, Arc::new(reload)).run()
}
