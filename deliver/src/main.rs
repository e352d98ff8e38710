//! deliver - put the mail of this host's users into their mailboxes. See deliver(8).
//!
//! It works the queue's local lane: aliases are resolved, what goes elsewhere becomes messages of
//! the relay lane, the rest is appended to mailboxes, exactly once. It relays nothing itself.

mod conclude;
mod dispatch;
mod flight;
mod header;
mod helper;
mod mailbox;
mod message;
mod plan;
mod recipient;
mod report;
mod runner;
mod schedule;
mod signals;
mod worker;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use account::Users;
use base::{Config, Fail, Root, log as logging, privilege};
use getopts::Options;
use queue::Queue;
use rules::aliases::Aliases;

use crate::helper::Helper;
use crate::mailbox::Local;
use crate::recipient::Rights;
use crate::runner::{Mode, Runner};
use crate::signals::Signals;

fn main() -> ExitCode {
    logging::init("deliver");
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    run(&args).unwrap_or_else(|fail| fail.report())
}

/// In this order: a bad flag, file or directory is said before anything is begun; the helper is
/// forked while there is one thread, and root is given up before the queue is read.
fn run(args: &[OsString]) -> Result<ExitCode, Fail> {
    let wanted = match Wanted::parse(args)? {
        Parsed::Wanted(wanted) => wanted,
        Parsed::Said => return Ok(ExitCode::SUCCESS),
    };
    let root = Root::from_env();
    let config = Config::load(&root, wanted.config.as_deref())?;
    let (aliases, warnings) = Aliases::load(&config.alias_files)?;
    warnings.iter().for_each(|w| log::warn!("{w}"));
    if wanted.check {
        base::say("configuration good");
        return Ok(ExitCode::SUCCESS);
    }
    let signals = Signals::catch()?;
    let helper = match privilege::is_installed_root(&root) {
        true => Some(Helper::start(&Rights {
            root: &root,
            config: &config,
            users: Users::open(&root, &config)?,
            mail: privilege::unix_group(privilege::MAIL_GROUP)?,
        })?),
        false => None,
    };
    if helper.is_some() {
        Queue::create(&root)?;
        privilege::drop_to(&root, privilege::QUEUE_USER)?;
    }
    let local = helper.is_none().then(|| Local {
        root: root.clone(),
        config: recipient::patient(&config),
    });
    // Where there is a helper, it knows the users.
    let users = match helper {
        Some(_) => None,
        None => Some(Users::open(&root, &config)?),
    };
    let runner = Runner {
        queue: Queue::open(&root)?,
        users,
        config: &config,
        aliases,
        local,
        helper,
    };
    runner.run(wanted.mode, &signals)?;
    Ok(ExitCode::SUCCESS)
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    config: Option<PathBuf>,
    check: bool,
    mode: Mode,
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Wanted(Wanted),
    /// It asked for words, and has had them.
    Said,
}

impl Wanted {
    fn parse(args: &[OsString]) -> Result<Parsed, Fail> {
        let mut options = Options::new();
        options.optopt("f", "", "read this configuration", "FILE");
        options.optflag("n", "", "check configuration and aliases, and exit");
        options.optflag("q", "", "try everything that is due once, and exit");
        options.optflag("h", "help", "say this");
        options.optflag("V", "version", "say the version");
        let found = options
            .parse(args)
            .map_err(|e| Fail::usage(format!("{e}: see deliver --help")))?;
        if found.opt_present("h") {
            base::say(options.usage("usage: deliver [-nqV] [-f FILE]").trim_end());
            return Ok(Parsed::Said);
        }
        if found.opt_present("V") {
            base::say(concat!("deliver (yubin) ", env!("CARGO_PKG_VERSION")));
            return Ok(Parsed::Said);
        }
        if let Some(extra) = found.free.first() {
            return Err(Fail::usage(format!(
                "{extra}: deliver takes no operands, see deliver --help"
            )));
        }
        Ok(Parsed::Wanted(Self {
            config: found.opt_str("f").map(PathBuf::from),
            check: found.opt_present("n"),
            mode: if found.opt_present("q") {
                Mode::Once
            } else {
                Mode::Daemon
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line() {
        let parse = |line: &str| {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            Wanted::parse(&args)
        };
        let wanted = |config: Option<&str>, check, mode| {
            Parsed::Wanted(Wanted {
                config: config.map(PathBuf::from),
                check,
                mode,
            })
        };
        assert_eq!(parse("").unwrap(), wanted(None, false, Mode::Daemon));
        assert_eq!(
            parse("-q -f x").unwrap(),
            wanted(Some("x"), false, Mode::Once)
        );
        assert_eq!(parse("-nq").unwrap(), wanted(None, true, Mode::Once));
        for bad in ["-x", "-f", "ann", "-n -- x"] {
            assert_eq!(
                parse(bad).unwrap_err().code(),
                base::Sysexit::Usage,
                "{bad}"
            );
        }
    }
}
