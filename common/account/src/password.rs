//! Who says whether a password is right: what is stored of it, PAM, or the operator's checkpassword
//! program (<https://cr.yp.to/checkpwd/interface.html>).
//!
//! The two latter run as programs of their own, so that a module that hangs or crashes costs one
//! login. Whoever it is, he is asked for unknown users too: the answer takes as long.

use std::path::{Path, PathBuf};
use std::process::Command;

use base::config::CheckPassword;
use base::{Config, Doing, Fail, Root, date, sys};

use crate::message::Service;
use crate::program::{self, Said};
use crate::user::User;
use crate::users::Users;

/// Octets that a checkpassword program reads at most.
const MAX_INPUT: usize = 512;
/// PAM's name for us: `/etc/pam.d/yubin`.
const PAM_SERVICE: &str = "yubin";
const PAM_DIR: &str = "/etc/pam.d";

/// How passwords are checked.
#[derive(Debug)]
pub(crate) struct Passwords {
    how: How,
    service: Service,
}

#[derive(Debug)]
enum How {
    Stored,
    /// By `checkpw --pam` in this root.
    Pam {
        checkpw: PathBuf,
        root: PathBuf,
    },
    /// Its path and its arguments.
    Program(Vec<String>),
}

impl Passwords {
    /// As the operator wants it; without a word of his, Unix users are PAM's.
    pub(crate) fn open(
        root: &Root,
        config: &Config,
        users: &Users,
        service: Service,
    ) -> Result<Self, Fail> {
        let how = match &config.checkpassword {
            CheckPassword::Program(words) => {
                let path = words.first().map(String::as_str).unwrap_or_default();
                program::check("CHECKPASSWORD", Path::new(path))?;
                How::Program(words.clone())
            }
            CheckPassword::Pam => {
                pam_file(root).map_err(Fail::config)?;
                Self::pam(root)?
            }
            CheckPassword::Default if users.are_unix() => match pam_file(root) {
                Ok(()) => Self::pam(root)?,
                Err(what) => {
                    log::warn!("{what}: mail goes to Unix users, but nobody can log in");
                    How::Stored
                }
            },
            CheckPassword::Default => How::Stored,
        };
        Ok(Self { how, service })
    }

    fn pam(root: &Root) -> Result<How, Fail> {
        Ok(How::Pam {
            checkpw: std::env::current_exe().doing(|| "find my own program file")?,
            root: root.dir().into(),
        })
    }

    /// Whether what is stored of the users is what counts: then there is more than passwords.
    pub(crate) fn are_stored(&self) -> bool {
        matches!(self.how, How::Stored)
    }

    /// The user of that name, where `password` is his.
    pub(crate) fn verify(
        &self,
        users: &Users,
        name: &str,
        password: &[u8],
    ) -> Result<Option<User>, Fail> {
        if self.are_stored() {
            return users.verify(name, password);
        }
        let user = users.lookup(name)?;
        // The name as the system knows it, or the one that nobody has.
        let name = user.as_ref().map_or(name, |user| user.name.as_str());
        let good = self.ask(name, password)?;
        Ok(user.filter(|user| good && users.may_be(user)))
    }

    fn ask(&self, name: &str, password: &[u8]) -> Result<bool, Fail> {
        if name.is_empty() || name.contains('\0') || password.is_empty() || password.contains(&0) {
            return Ok(false); // it could not be said
        }
        let mut input = [name.as_bytes(), b"\0", password, b"\0"].concat();
        let (what, said) = match &self.how {
            How::Stored => return Ok(false),
            How::Pam { checkpw, root } => {
                let mut command = program::command(checkpw, self.service.name());
                command.env("YUBIN_ROOT", root).arg("--pam");
                ("PAM", program::run(&mut command, &input)?)
            }
            How::Program(words) => {
                input.extend_from_slice(format!("{}\0", date::now()).as_bytes());
                if input.len() > MAX_INPUT {
                    return Ok(false);
                }
                let said = program::run(&mut on_three(words, self.service), &input)?;
                ("CHECKPASSWORD", said)
            }
        };
        verdict(what, &said)
    }
}

/// 1 is no; 2 is a misuse of the program, 111 its own trouble.
fn verdict(what: &str, said: &Said) -> Result<bool, Fail> {
    match said.code {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        Some(code) => Err(Fail::temp(format!("{what}: ended with {code}, not 0 or 1"))),
        None => Err(Fail::temp(format!("{what}: was ended by a signal"))),
    }
}

/// The program reads descriptor 3, and runs another where the password is right: one that ends well.
fn on_three(words: &[String], service: Service) -> Command {
    let mut command = program::command(Path::new("/bin/sh"), service.name());
    command
        .args(["-c", "exec \"$0\" \"$@\" 3<&0 </dev/null >/dev/null"])
        .args(words)
        .arg("/bin/true");
    command
}

/// Without a file of ours PAM would take `other`, which on most hosts says no to everything.
fn pam_file(root: &Root) -> Result<(), String> {
    let file = root.path(PAM_DIR).join(PAM_SERVICE);
    match file.exists() {
        true => Ok(()),
        false => Err(format!("{} does not exist", file.display())),
    }
}

/// The life of `checkpw --pam`: a name and a password from standard input; the exit status is the
/// answer, as of a checkpassword program.
pub fn pam(root: &Root) -> Result<bool, Fail> {
    let mut input = Vec::new();
    let mut stdin = std::io::Read::take(std::io::stdin().lock(), 16 * 1024);
    std::io::Read::read_to_end(&mut stdin, &mut input).doing(|| "read a password")?;
    let usage = || Fail::usage("--pam is for checkpw itself");
    let mut parts = input.split(|b| *b == 0);
    let (Some(name), Some(password), Some(b""), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(usage());
    };
    let text = |octets: &[u8]| std::ffi::CString::new(octets).map_err(|_| usage());
    let dir = root.path(PAM_DIR);
    let dir = match root.is_private() {
        true => Some(text(dir.as_os_str().as_encoded_bytes())?),
        false => None,
    };
    let service = text(PAM_SERVICE.as_bytes())?;
    sys::pam(&service, &text(name)?, &text(password)?, dir.as_deref()).doing(|| "ask PAM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exit_status_has_its_meaning() {
        let of = |code| {
            let output = Vec::new();
            verdict("x", &Said { code, output }).ok()
        };
        let table = [
            (Some(0), Some(true)),
            (Some(1), Some(false)),
            (Some(2), None),
            (Some(111), None),
            (Some(127), None),
            (None, None),
        ];
        for (code, want) in table {
            assert_eq!(of(code), want, "{code:?}");
        }
    }

    #[test]
    fn descriptor_three_has_it_all_and_the_first_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("seen");
        let script = "cat <&3 >\"$1\"; cat >>\"$1\"; echo noise; exec \"$2\"";
        let words = ["/bin/sh", "-c", script, "sh", file.to_str().unwrap()];
        let words = words.map(str::to_owned);
        let input = b"ann\0a secret\x00123\0";
        let said = program::run(&mut on_three(&words, Service::Smtp), input).unwrap();
        assert_eq!((said.code, said.output), (Some(0), Vec::new()));
        assert_eq!(std::fs::read(file).unwrap(), input);
    }
}
