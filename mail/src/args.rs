//! The command line (POSIX mailx, "OPTIONS"): sending where there are addresses, reading where
//! there are none.

use getopts::{Options, ParsingStyle};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    Send(Send),
    Read(Read),
    Help,
    Version,
}

/// `mail [-s subject] ... address ...`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) subject: Option<String>,
    pub(crate) to: Vec<String>,
    pub(crate) cc: Vec<String>,
    pub(crate) bcc: Vec<String>,
    pub(crate) from: Option<String>,
    pub(crate) attachments: Vec<String>,
    /// `-E`: an empty body is not sent.
    pub(crate) not_empty: bool,
    pub(crate) common: Common,
}

/// `mail`, `mail -f file`, `mail -u user`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// `-e`: only whether there is mail.
    pub(crate) exists: bool,
    /// `-H`: only the list.
    pub(crate) list_only: bool,
    /// `-N`: without the list at the begin.
    pub(crate) no_list: bool,
    pub(crate) user: Option<String>,
    /// `-f`; without a name, the user's mbox.
    pub(crate) file: Option<Option<String>>,
    pub(crate) common: Common,
}

/// What both have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Common {
    /// `-n`: the system's start-up file is not read.
    pub(crate) no_system_file: bool,
    /// `-i`: ^C does not end a message.
    pub(crate) ignore: bool,
    /// `-v`: sendmail says more.
    pub(crate) verbose: bool,
    /// `-S name=value`
    pub(crate) settings: Vec<String>,
}

pub(crate) const USAGE: &str =
    "usage: mail [-Einv] [-s subject] [-c address] [-b address] [-r address] [-a file]
            [-S name[=value]] address ...
       mail [-eHiNnv] [-S name[=value]] [-u user]
       mail [-eHiNnv] [-S name[=value]] -f [file]";

fn options() -> Options {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::StopAtFirstFree);
    for flag in ["e", "H", "N", "n", "v", "E", "i", "h", "V"] {
        options.optflagmulti(flag, "", "");
    }
    options
        .optflagmulti("", "help", "")
        .optflagmulti("", "version", "")
        .optflagmulti("f", "", "");
    for value in ["s", "c", "b", "r", "a", "S", "u"] {
        options.optmulti(value, "", "", "");
    }
    options
}

/// Reads the words behind the program's name.
pub(crate) fn parse(words: &[String]) -> Result<Mode, String> {
    let given = options()
        .parse(words)
        .map_err(|e| format!("{e}\n{USAGE}"))?;
    if given.opt_present("h") || given.opt_present("help") {
        return Ok(Mode::Help);
    }
    if given.opt_present("V") || given.opt_present("version") {
        return Ok(Mode::Version);
    }
    let common = Common {
        no_system_file: given.opt_present("n"),
        ignore: given.opt_present("i"),
        verbose: given.opt_present("v"),
        settings: given.opt_strs("S"),
    };
    let last = |name| given.opt_strs(name).pop();
    let sends = ["s", "c", "b", "r", "a", "E"]
        .iter()
        .find(|name| given.opt_present(name));
    let reads = ["f", "u", "e", "H", "N"]
        .iter()
        .find(|name| given.opt_present(name));
    if let (Some(send), Some(read)) = (sends, reads) {
        return Err(format!(
            "-{send} is for sending and -{read} for reading\n{USAGE}"
        ));
    }
    if reads.is_some() || (given.free.is_empty() && sends.is_none()) {
        let mut free = given.free.iter().cloned();
        let file = given.opt_present("f").then(|| free.next());
        if free.next().is_some() {
            return Err(format!("too many operands\n{USAGE}"));
        }
        if file.is_some() && given.opt_present("u") {
            return Err(format!("-f and -u exclude each other\n{USAGE}"));
        }
        return Ok(Mode::Read(Read {
            exists: given.opt_present("e"),
            list_only: given.opt_present("H"),
            no_list: given.opt_present("N"),
            user: last("u"),
            file,
            common,
        }));
    }
    let send = Send {
        subject: last("s"),
        to: given.free.clone(),
        cc: given.opt_strs("c"),
        bcc: given.opt_strs("b"),
        from: last("r"),
        attachments: given.opt_strs("a"),
        not_empty: given.opt_present("E"),
        common,
    };
    if send.to.is_empty() && send.cc.is_empty() && send.bcc.is_empty() {
        return Err(format!("no recipients\n{USAGE}"));
    }
    Ok(Mode::Send(send))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Mode, String> {
        let words: Vec<String> = line.split_whitespace().map(Into::into).collect();
        super::parse(&words)
    }

    #[test]
    fn sending() {
        let Ok(Mode::Send(send)) = parse("-s hi -c bob -c cid -b dan -r me@x -Env ann eve") else {
            panic!()
        };
        assert_eq!(send.subject.as_deref(), Some("hi"));
        assert_eq!(send.to, ["ann", "eve"]);
        assert_eq!(send.cc, ["bob", "cid"]);
        assert_eq!(send.bcc, ["dan"]);
        assert_eq!(send.from.as_deref(), Some("me@x"));
        assert!(send.not_empty && send.common.no_system_file && send.common.verbose);
        for line in [
            "ann",
            "-s x ann -s y",
            "-shi ann",
            "-b ann",
            "-- -ann",
            "-i ann",
            "-S x=y ann",
        ] {
            assert!(matches!(parse(line), Ok(Mode::Send(_))), "{line}");
        }
    }

    #[test]
    fn reading() {
        let read = |line: &str| match parse(line) {
            Ok(Mode::Read(read)) => read,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(read(""), Read::default());
        assert_eq!(read("-u ann").user.as_deref(), Some("ann"));
        assert_eq!(read("-f").file, Some(None));
        assert_eq!(read("-f box").file, Some(Some("box".into())));
        assert_eq!(read("-Nf box").file, Some(Some("box".into())));
        assert!(read("-e").exists && read("-H").list_only && read("-N").no_list);
        assert!(read("-n").common.no_system_file);
    }

    #[test]
    fn neither() {
        for line in [
            "-s x",
            "-Z",
            "-s x -f",
            "-u ann bob",
            "-f a b",
            "-s",
            "-f x -u ann",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert_eq!(parse("--help"), Ok(Mode::Help));
        assert_eq!(parse("-V"), Ok(Mode::Version));
    }
}
