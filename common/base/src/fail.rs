//! The one error type: what was being done to which object, and what the caller should exit with.
//!
//! A `Fail` prints as `deliver: open /var/mail/ann: Permission denied`. Its code is a sysexits(3)
//! number; whatever we are not sure about is 75 (try later), so that our own fault never becomes a
//! bounce. Parsers have small enums of their own; the SMTP edge has `Refusal`.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::status::Status;

/// Exit codes of sysexits(3), as sendmail's callers know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Sysexit {
    Ok = 0,
    Usage = 64,
    DataErr = 65,
    NoInput = 66,
    NoUser = 67,
    NoHost = 68,
    Unavailable = 69,
    Software = 70,
    OsErr = 71,
    OsFile = 72,
    CantCreat = 73,
    IoErr = 74,
    TempFail = 75,
    Protocol = 76,
    NoPerm = 77,
    Config = 78,
}

impl Sysexit {
    /// The code as a number, 0 or 64 to 78.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The meaning of a program's exit status; `None` for a number sysexits(3) does not know.
    pub fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            0 => Self::Ok,
            64 => Self::Usage,
            65 => Self::DataErr,
            66 => Self::NoInput,
            67 => Self::NoUser,
            68 => Self::NoHost,
            69 => Self::Unavailable,
            70 => Self::Software,
            71 => Self::OsErr,
            72 => Self::OsFile,
            73 => Self::CantCreat,
            74 => Self::IoErr,
            75 => Self::TempFail,
            76 => Self::Protocol,
            77 => Self::NoPerm,
            78 => Self::Config,
            _ => return None,
        })
    }
}

impl From<Sysexit> for ExitCode {
    fn from(code: Sysexit) -> Self {
        Self::from(code.code())
    }
}

/// Something did not work. `doing` names the act and its object: `open /var/spool/mail/ann`.
#[derive(Debug)]
pub struct Fail {
    code: Sysexit,
    status: Option<Status>,
    doing: String,
    source: Option<io::Error>,
}

impl Fail {
    /// A failure with nothing below it. `doing` is the whole sentence then.
    pub fn new(code: Sysexit, doing: impl Into<String>) -> Self {
        Self {
            code,
            status: None,
            doing: doing.into(),
            source: None,
        }
    }

    /// Wrong command line: EX_USAGE.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Sysexit::Usage, what)
    }

    /// Wrong configuration: EX_CONFIG. Say file, line and what to write instead.
    pub fn config(what: impl Into<String>) -> Self {
        Self::new(Sysexit::Config, what)
    }

    /// Any doubt: EX_TEMPFAIL.
    pub fn temp(what: impl Into<String>) -> Self {
        Self::new(Sysexit::TempFail, what)
    }

    /// Bad input data: EX_DATAERR.
    pub fn data(what: impl Into<String>) -> Self {
        Self::new(Sysexit::DataErr, what)
    }

    /// An error of the system: EX_TEMPFAIL, because a full disk or a missing permission is mended
    /// by the operator and the mail waits for it.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self {
            code: Sysexit::TempFail,
            status: None,
            doing: doing.into(),
            source: Some(source),
        }
    }

    /// The same failure under another exit code.
    #[must_use]
    pub fn with_code(mut self, code: Sysexit) -> Self {
        self.code = code;
        self
    }

    /// The same failure with an enhanced status code (RFC 3463) for the reply or the bounce.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// The failure as part of a larger act: `outer: inner`.
    #[must_use]
    pub fn while_doing(mut self, outer: impl fmt::Display) -> Self {
        self.doing = format!("{outer}: {}", self.doing);
        self
    }

    /// The exit code.
    pub fn code(&self) -> Sysexit {
        self.code
    }

    /// The enhanced status code, where one was set.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// The error of the system below, where there is one.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.source.as_ref()
    }

    /// The kind of the system's error below, where there is one.
    pub fn kind(&self) -> Option<io::ErrorKind> {
        self.source.as_ref().map(io::Error::kind)
    }

    /// Whether the disk is full: ENOSPC or EDQUOT.
    pub fn is_full(&self) -> bool {
        matches!(
            self.kind(),
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        )
    }

    /// Say it as `PROGRAM: WHAT` on the log (stderr for a command) and give the exit code.
    pub fn report(&self) -> ExitCode {
        log::error!("{self}");
        self.code.into()
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        match &self.source {
            Some(source) => write!(f, ": {}", OsText(source)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fail {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

/// An io::Error in the words of strerror(3), without Rust's `(os error 13)`.
struct OsText<'a>(&'a io::Error);

impl fmt::Display for OsText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.split_once(" (os error ") {
            Some((words, _)) => f.write_str(words),
            None => f.write_str(&text),
        }
    }
}

/// `.doing(|| format!("open {}", path.display()))?` on any system call's result.
pub trait Doing<T> {
    /// Turn the error into a [`Fail`] that says what was being done.
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Fail>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Fail> {
        self.map_err(|e| Fail::io(what(), e))
    }
}

impl<T> Doing<T> for nix::Result<T> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Fail> {
        self.map_err(|e| Fail::io(what(), e.into()))
    }
}

impl<T> Doing<T> for Result<T, Fail> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Self {
        self.map_err(|f| f.while_doing(what().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_act_the_object_and_the_reason() {
        let fail = std::fs::File::open("/nonexistent/x")
            .doing(|| "open /nonexistent/x")
            .unwrap_err();
        assert_eq!(
            fail.to_string(),
            "open /nonexistent/x: No such file or directory"
        );
        assert_eq!(fail.code(), Sysexit::TempFail);
        assert_eq!(
            fail.while_doing("deliver to ann").to_string(),
            "deliver to ann: open /nonexistent/x: No such file or directory"
        );
    }

    #[test]
    fn exit_codes_go_there_and_back() {
        for code in [0, 64, 67, 75, 78] {
            assert_eq!(i32::from(Sysexit::from_code(code).unwrap().code()), code);
        }
        assert_eq!(Sysexit::from_code(1), None);
    }
}
