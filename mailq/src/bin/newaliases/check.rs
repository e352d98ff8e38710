//! Every problem of the alias files, and what is in them, in sendmail's words. There is no database
//! to make: deliver reads the files themselves, anew when they change.

use std::io::{self, Write};
use std::process::ExitCode;

use base::{Config, Fail, Root, Sysexit};
use rules::aliases::{Aliases, Tally};

const USAGE: &str = "usage: newaliases [-vV]";

/// What `newaliases` is called with; `sendmail -bi` is the same.
pub(crate) fn command(words: &[String]) -> Result<ExitCode, Fail> {
    for word in words {
        match word.as_str() {
            // sendmail's way to say more.
            "-v" => {}
            "-V" | "--version" => {
                base::say(concat!("newaliases (yubin) ", env!("CARGO_PKG_VERSION")));
                return Ok(ExitCode::SUCCESS);
            }
            "-h" | "--help" => {
                base::say(USAGE);
                return Ok(ExitCode::SUCCESS);
            }
            _ => return Err(Fail::usage(USAGE)),
        }
    }
    run(&Config::load(&Root::from_env(), None)?)
}

/// Reads the files of the configuration and says what it found.
fn run(config: &Config) -> Result<ExitCode, Fail> {
    let (aliases, problems) = Aliases::read(&config.alias_files)?;
    let wrong = problems.iter().filter(|p| p.fatal).count();
    for problem in &problems {
        let kind = if problem.fatal { "" } else { "warning: " };
        complain(&format!("{kind}{problem}"));
    }
    if wrong > 0 {
        complain("the file is not used until this is mended");
        return Ok(Sysexit::DataErr.into());
    }
    for tally in aliases.tallies() {
        writeln!(io::stdout(), "{}", line(tally)).ok();
    }
    Ok(ExitCode::SUCCESS)
}

/// Nobody may be there to read it; the exit code says the same.
fn complain(text: &str) {
    writeln!(io::stderr(), "newaliases: {text}").ok();
}

fn line(tally: &Tally) -> String {
    format!(
        "{}: {} aliases, longest {} bytes, {} bytes total",
        tally.file.display(),
        tally.aliases,
        tally.longest,
        tally.octets
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_words_of_sendmail() {
        let (aliases, _) = Aliases::from_text("/etc/aliases", b"root: ann\nteam: bob, cid\n");
        let lines: Vec<String> = aliases.tallies().iter().map(line).collect();
        assert_eq!(
            lines,
            ["/etc/aliases: 2 aliases, longest 8 bytes, 19 bytes total"]
        );
    }
}
