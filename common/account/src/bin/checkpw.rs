//! checkpw - the only program that sees a password. See checkpw(8).

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use account::{Service, password, server, worker};
use base::{Config, Doing, Fail, Root, sys};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};

const USAGE: &str = "usage: checkpw --service smtp|pop3|imap [-f file]   (started by a daemon, with its socket on fd 0)
       checkpw -n [-f file]                            check the configuration and the users file
       checkpw --help";

fn main() -> ExitCode {
    base::log::init("checkpw");
    match run(std::env::args_os().skip(1).collect()) {
        Ok(code) => code,
        Err(fail) => fail.report(),
    }
}

fn run(args: Vec<OsString>) -> Result<ExitCode, Fail> {
    let mut options = getopts::Options::new();
    options
        .optflag("n", "", "")
        .optopt("f", "", "", "FILE")
        .optopt("", "service", "", "NAME");
    options
        .optflag("", "worker", "")
        .optflag("", "pam", "")
        .optflag("h", "help", "");
    let given = options
        .parse(args)
        .map_err(|e| Fail::usage(format!("{e}\n{USAGE}")))?;
    if given.opt_present("help") {
        base::say(USAGE);
        return Ok(ExitCode::SUCCESS);
    }
    let root = Root::from_env();
    if given.opt_present("pam") {
        forbid_core_files()?;
        // As of a checkpassword program.
        return Ok(ExitCode::from(u8::from(!password::pam(&root)?)));
    }
    let file = given.opt_str("f").map(PathBuf::from);
    let config = Config::load(&root, file.as_deref())?;
    if given.opt_present("n") {
        return server::check(&root, &config, Service::Smtp).map(|()| ExitCode::SUCCESS);
    }
    let service = given
        .opt_str("service")
        .and_then(|name| Service::parse(&name))
        .ok_or_else(|| Fail::usage(USAGE))?;
    outlive_signals()?;
    match (given.opt_present("worker"), given.free.as_slice()) {
        (true, [name, uid, gid]) => worker::run(&root, &config, name, uid, gid),
        (false, []) => {
            forbid_core_files()?;
            let socket = sys::inherited(0).doing(|| "take the socket on fd 0")?;
            server::serve(socket, &root, &config, service)
        }
        _ => Err(Fail::usage(USAGE)),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// A core file would hold passwords.
fn forbid_core_files() -> Result<(), Fail> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).doing(|| "forbid core files")
}

/// Signals that end a daemon reach its `checkpw` and the workers too, from ^C or a supervisor. They
/// are needed until its last session is over, which the end of their sockets says.
fn outlive_signals() -> Result<(), Fail> {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
        .into_iter()
        .collect::<SigSet>()
        .thread_block()
        .doing(|| "block signals")
}
