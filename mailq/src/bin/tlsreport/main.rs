//! tlsreport - tell other domains how their mail went by TLS. See tlsreport(8).

mod send;

use std::process::ExitCode;

use base::{Config, Fail, Root, privilege};
use getopts::Options;

const USAGE: &str = "usage: tlsreport [-hnV] [-f file]";

fn main() -> ExitCode {
    base::log::init_command("tlsreport");
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    run(&args).unwrap_or_else(|fail| fail.report())
}

fn run(args: &[std::ffi::OsString]) -> Result<ExitCode, Fail> {
    let mut options = Options::new();
    options.optflag("h", "help", "").optflag("V", "version", "");
    options.optflag("n", "", "").optopt("f", "", "", "");
    let given = options
        .parse(args)
        .map_err(|e| Fail::usage(format!("{e}; {USAGE}")))?;
    if let Some(extra) = given.free.first() {
        return Err(Fail::usage(format!("{extra}: not expected; {USAGE}")));
    }
    if given.opt_present("h") {
        base::say(USAGE);
        return Ok(ExitCode::SUCCESS);
    }
    if given.opt_present("V") {
        base::say(concat!("tlsreport (yubin) ", env!("CARGO_PKG_VERSION")));
        return Ok(ExitCode::SUCCESS);
    }
    let root = Root::from_env();
    let file = given.opt_str("f").map(std::path::PathBuf::from);
    let config = Config::load(&root, file.as_deref())?;
    let Some(from) = config.tls_report_from.clone() else {
        log::info!("TLS_REPORT_FROM is not set: nobody is told anything");
        return Ok(ExitCode::SUCCESS);
    };
    privilege::drop_to(&root, privilege::QUEUE_USER)?;
    let dns = dns::open(&root, &config)?;
    let sender = send::Sender {
        directory: root.path(tlspolicy::report::DIRECTORY),
        dns,
        from,
        submitter: config.official_name.clone(),
        is_rehearsal: given.opt_present("n"),
    };
    sender.run().map(ExitCode::from)
}
