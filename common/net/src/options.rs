//! The command line that smtpd(8), pop3d(8) and imapd(8) share.

use std::ffi::OsString;
use std::path::PathBuf;

use base::Fail;
use getopts::Options;

/// What a server was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Opts {
    /// `-n`: check the configuration and exit.
    pub check: bool,
    /// `-i`: the client is on standard input and output.
    pub inetd: bool,
    /// `-f`: another file than yubin.def.
    pub config: Option<PathBuf>,
}

impl Opts {
    /// Those of `program`. `None`: help was asked for and given.
    pub fn parse(program: &str, args: &[OsString]) -> Result<Option<Self>, Fail> {
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
        let brief = format!("usage: {program} [-in] [-f FILE]");
        let given = known
            .parse(args)
            .map_err(|e| Fail::usage(format!("{e}; {brief}")))?;
        if given.opt_present("h") {
            base::say(known.usage(&brief).trim_end());
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
        Opts::parse(
            "smtpd",
            &args.iter().map(OsString::from).collect::<Vec<_>>(),
        )
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
