//! The command line of smtpd(8).

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use base::Fail;
use getopts::Options;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opts {
    /// `-n`
    pub(crate) check: bool,
    /// `-i`
    pub(crate) inetd: bool,
    /// `-f`
    pub(crate) config: Option<PathBuf>,
}

impl Opts {
    /// `None`: help was asked for and given.
    pub(crate) fn parse(args: &[OsString]) -> Result<Option<Self>, Fail> {
        let mut known = Options::new();
        known
            .optflag(
                "i",
                "",
                "serve the client on standard input and output, then exit",
            )
            .optflag("n", "", "check the configuration and exit")
            .optopt(
                "f",
                "",
                "read this file instead of /etc/yubin/yubin.def",
                "FILE",
            )
            .optflag("h", "help", "show this help");
        let brief = "usage: smtpd [-in] [-f FILE]";
        let given = known
            .parse(args)
            .map_err(|e| Fail::usage(format!("{e}; {brief}")))?;
        if given.opt_present("h") {
            // Who closed our output wants no help.
            io::stdout().write_all(known.usage(brief).as_bytes()).ok();
            return Ok(None);
        }
        if let Some(extra) = given.free.first() {
            return Err(Fail::usage(format!("`{extra}' is not understood; {brief}")));
        }
        Ok(Some(Self {
            check: given.opt_present("n"),
            inetd: given.opt_present("i"),
            config: given.opt_str("f").map(PathBuf::from),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Option<Opts>, Fail> {
        Opts::parse(&args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn flags_and_their_faults() {
        let opts = parse(&["-n", "-f", "x.def"]).unwrap().unwrap();
        assert_eq!(
            opts,
            Opts {
                check: true,
                inetd: false,
                config: Some("x.def".into())
            }
        );
        assert_eq!(parse(&["--help"]).unwrap(), None);
        for bad in [&["-x"][..], &["-f"], &["extra"]] {
            assert_eq!(
                parse(bad).unwrap_err().code(),
                base::Sysexit::Usage,
                "{bad:?}"
            );
        }
    }
}
