//! The command line, as callers of sendmail and Postfix write it: short options, their values
//! joined (`-odb`) or apart (`-o db`), several in one word (`-ti`).
//!
//! What had a meaning in sendmail and has none here is taken and passed over, because scripts of
//! forty years give it. What nobody knows is EX_USAGE.

use base::envelope::{Body, Notify, Ret};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Read a message and queue it: `-bm`, and what nobody said otherwise.
    Submit,
    /// `-bp`
    Mailq,
    /// `-bi`, `-I`
    Newaliases,
    /// `-bs`
    Smtp,
    /// `-bd`, `-bD`, and `-q30m`
    Daemon { smtp: bool },
    /// `-bv`
    Verify,
    /// `-q`
    RunQueue,
}

/// The command line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) mode: Mode,
    pub(crate) submit: Submit,
    /// What stands behind the options: recipients, or names to verify.
    pub(crate) operands: Vec<String>,
    pub(crate) verbose: bool,
    /// Options that were given and do nothing, worth a word to the caller.
    pub(crate) ignored: Vec<String>,
}

/// How a message is submitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Submit {
    /// `-i`, `-oi`: a line with a single dot is text.
    pub(crate) dots_are_text: bool,
    /// `-t`: the header names recipients too.
    pub(crate) header_recipients: bool,
    /// `-f`, `-r`
    pub(crate) reverse_path: Option<String>,
    /// `-F`
    pub(crate) full_name: Option<String>,
    /// `-B`; otherwise the content decides.
    pub(crate) body: Option<Body>,
    /// `-N`
    pub(crate) notify: Option<Notify>,
    /// `-R`
    pub(crate) ret: Option<Ret>,
    /// `-V`, not yet in xtext.
    pub(crate) envid: Option<String>,
}

/// What is wrong with a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadArgs(pub String);

/// Options that take a value: joined, or the next word.
const WITH_VALUE: &str = "ABCFLNORVXbdefhopr";
/// Options that stand alone. `q` may have a value, joined.
const ALONE: &str = "GIUimnstv";

impl Args {
    /// Reads the words behind the program's name.
    pub(crate) fn parse(words: &[String]) -> Result<Self, BadArgs> {
        let mut args = Self {
            mode: Mode::Submit,
            submit: Submit::default(),
            operands: Vec::new(),
            verbose: false,
            ignored: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.strip_prefix('-') {
                Some("-") => {
                    args.operands.extend(words.by_ref().cloned());
                }
                Some(letters) if !letters.is_empty() => args.letters(letters, &mut words)?,
                // Like getopt(3): the first operand ends the options.
                _ => {
                    args.operands.push(word.clone());
                    args.operands.extend(words.by_ref().cloned());
                }
            }
        }
        Ok(args)
    }

    fn letters<'a>(
        &mut self,
        letters: &str,
        words: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), BadArgs> {
        let mut rest = letters.chars();
        while let Some(letter) = rest.next() {
            if letter == 'q' {
                return self.queue_run(rest.as_str());
            }
            if ALONE.contains(letter) {
                self.alone(letter);
                continue;
            }
            if !WITH_VALUE.contains(letter) {
                return Err(BadArgs(format!("unknown option -{letter}")));
            }
            let joined = rest.as_str();
            // `-d` of old needs no value; a debugging level is none of the recipients.
            let value = match (joined, letter) {
                ("", 'd') => "",
                ("", _) => words
                    .next()
                    .ok_or_else(|| BadArgs(format!("-{letter} needs a value")))?,
                _ => joined,
            };
            return self.with_value(letter, value);
        }
        Ok(())
    }

    fn alone(&mut self, letter: char) {
        match letter {
            'i' => self.submit.dots_are_text = true,
            't' => self.submit.header_recipients = true,
            'v' => self.verbose = true,
            'I' => self.mode = Mode::Newaliases,
            // -G gateway, -U first submission, -m me too, -n no aliases, -s save From lines.
            _ => {}
        }
    }

    /// `-q`, `-qI...`, `-qR...`: run it once. `-q30m`: keep running it, which the daemons do by
    /// their own schedule.
    fn queue_run(&mut self, value: &str) -> Result<(), BadArgs> {
        let interval = value.starts_with(|c: char| c.is_ascii_digit());
        let selection = value.starts_with(['I', 'R', 'S', 'G', 'Q', 'L', 'p', 'f', '!']);
        if !value.is_empty() && !interval && !selection {
            return Err(BadArgs(format!("-q{value}: write -q, or -q30m with -bd")));
        }
        if selection && !matches!(value, "f" | "p") {
            self.ignored
                .push(format!("-q{value}: the whole queue is run"));
        }
        self.mode = match self.mode {
            Mode::Daemon { smtp } => Mode::Daemon { smtp },
            _ if interval => Mode::Daemon { smtp: false },
            _ => Mode::RunQueue,
        };
        Ok(())
    }

    fn with_value(&mut self, letter: char, value: &str) -> Result<(), BadArgs> {
        match letter {
            'b' => self.mode = self.mode_of(value)?,
            'f' | 'r' => self.submit.reverse_path = Some(value.into()),
            'F' => self.submit.full_name = Some(value.into()),
            'B' => self.submit.body = Some(body(value)?),
            'N' => self.submit.notify = Some(notify(value)?),
            'R' => self.submit.ret = Some(ret(value)?),
            // RFC 3461 4.4
            'V' if value.len() > 100 => {
                return Err(BadArgs("-V: longer than 100 characters".into()));
            }
            'V' => self.submit.envid = Some(value.into()),
            'o' => self.old_option(value),
            'O' => self.long_option(value),
            'C' => self.ignored.push(format!(
                "-C {value} is ignored: the configuration is /etc/yubin/yubin.def"
            )),
            'X' => self
                .ignored
                .push(format!("-X {value} is ignored: no traffic log is kept")),
            // -A submission or not, -d debugging, -e errors, -h hop count, -L log tag, -p protocol.
            _ => {}
        }
        Ok(())
    }

    fn mode_of(&self, value: &str) -> Result<Mode, BadArgs> {
        Ok(match value {
            "m" => Mode::Submit,
            "p" => Mode::Mailq,
            "i" => Mode::Newaliases,
            "s" => Mode::Smtp,
            "d" | "D" | "l" => Mode::Daemon { smtp: true },
            "v" => Mode::Verify,
            other => return Err(BadArgs(format!("unknown mode -b{other}"))),
        })
    }

    /// `-oi` and its kin: one letter, then its value. Of -od, -oe, -om and the rest the queue does
    /// what they ask for anyway, or they were about a sendmail of other times.
    fn old_option(&mut self, value: &str) {
        if value == "i" || value == "iTrue" || value == "iT" {
            self.submit.dots_are_text = true;
        }
    }

    /// `-O IgnoreDots=true`: names of sendmail.cf.
    fn long_option(&mut self, value: &str) {
        let (name, value) = value.split_once('=').unwrap_or((value, "true"));
        if name.trim().eq_ignore_ascii_case("IgnoreDots") {
            let yes = value.trim().starts_with(['t', 'T', 'y', 'Y', '1']);
            self.submit.dots_are_text = yes;
        }
    }
}

fn body(value: &str) -> Result<Body, BadArgs> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBitMime),
        _ => Err(BadArgs(format!("-B {value}: write 7BIT or 8BITMIME"))),
    }
}

/// RFC 3461 4.1
fn notify(value: &str) -> Result<Notify, BadArgs> {
    Notify::parse(value).ok_or_else(|| {
        BadArgs(format!(
            "-N {value}: write never, or a list of success, failure, delay"
        ))
    })
}

/// RFC 3461 4.3
fn ret(value: &str) -> Result<Ret, BadArgs> {
    Ret::parse(value).ok_or_else(|| BadArgs(format!("-R {value}: write full or hdrs")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, BadArgs> {
        let words: Vec<String> = line.split_whitespace().map(Into::into).collect();
        Args::parse(&words)
    }

    #[test]
    fn what_callers_write() {
        // line, mode, dots, -t, reverse-path, operands
        type Row<'a> = (&'a str, Mode, bool, bool, Option<&'a str>, &'a [&'a str]);
        let table: &[Row<'_>] = &[
            ("", Mode::Submit, false, false, None, &[]),
            ("-i ann", Mode::Submit, true, false, None, &["ann"]),
            ("-oi -t", Mode::Submit, true, true, None, &[]),
            ("-ti", Mode::Submit, true, true, None, &[]),
            ("-tifann@x", Mode::Submit, true, true, Some("ann@x"), &[]),
            ("-o i ann", Mode::Submit, true, false, None, &["ann"]),
            (
                "-f <> ann",
                Mode::Submit,
                false,
                false,
                Some("<>"),
                &["ann"],
            ),
            (
                "-fbob -oem -odb ann",
                Mode::Submit,
                false,
                false,
                Some("bob"),
                &["ann"],
            ),
            (
                "-r bob ann,cid",
                Mode::Submit,
                false,
                false,
                Some("bob"),
                &["ann,cid"],
            ),
            ("-bm -- -i", Mode::Submit, false, false, None, &["-i"]),
            ("ann -t", Mode::Submit, false, false, None, &["ann", "-t"]),
            (
                "-FCronDaemon -i -odi -oem -oi -t -f root",
                Mode::Submit,
                true,
                true,
                Some("root"),
                &[],
            ),
            (
                "-O IgnoreDots=yes -h 3 -G -n -U -v x",
                Mode::Submit,
                true,
                false,
                None,
                &["x"],
            ),
            ("-bs", Mode::Smtp, false, false, None, &[]),
            ("-bp", Mode::Mailq, false, false, None, &[]),
            ("-bi", Mode::Newaliases, false, false, None, &[]),
            (
                "-bd -q30m",
                Mode::Daemon { smtp: true },
                false,
                false,
                None,
                &[],
            ),
            (
                "-q30m -bd",
                Mode::Daemon { smtp: true },
                false,
                false,
                None,
                &[],
            ),
            (
                "-q1h",
                Mode::Daemon { smtp: false },
                false,
                false,
                None,
                &[],
            ),
            ("-q", Mode::RunQueue, false, false, None, &[]),
            (
                "-bv ann bob",
                Mode::Verify,
                false,
                false,
                None,
                &["ann", "bob"],
            ),
            ("-d ann", Mode::Submit, false, false, None, &["ann"]),
        ];
        for (line, mode, dots, header, from, operands) in table {
            let args = parse(line).unwrap();
            assert_eq!(args.mode, *mode, "{line}");
            assert_eq!(args.submit.dots_are_text, *dots, "{line}");
            assert_eq!(args.submit.header_recipients, *header, "{line}");
            assert_eq!(args.submit.reverse_path.as_deref(), *from, "{line}");
            assert_eq!(args.operands, *operands, "{line}");
        }
    }

    #[test]
    fn what_nobody_knows() {
        for line in [
            "-Z", "-f", "-bx", "-N maybe", "-R some", "-B 9BIT", "-iZ", "-qx", "--help",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse(&format!("-V {}", "x".repeat(101))).is_err());
    }

    #[test]
    fn wishes_for_reports() {
        let args = parse("-N success,delay -R hdrs -V abc -B 8bitmime ann").unwrap();
        let wanted = Notify::On {
            success: true,
            failure: false,
            delay: true,
        };
        assert_eq!(args.submit.notify, Some(wanted));
        assert_eq!(args.submit.ret, Some(Ret::Headers));
        assert_eq!(args.submit.envid.as_deref(), Some("abc"));
        assert_eq!(args.submit.body, Some(Body::EightBitMime));
        assert_eq!(
            parse("-N never").unwrap().submit.notify,
            Some(Notify::Never)
        );
    }

    #[test]
    fn what_is_passed_over_with_a_word() {
        let args = parse("-C /etc/mail/x.cf -qRexample.org").unwrap();
        assert_eq!(args.ignored.len(), 2);
        assert_eq!(args.mode, Mode::RunQueue);
    }
}
