//! Our own logins at the hosts that we send to: the operator's file of them, and programs that have a
//! token for us.
//!
//! ```text
//! [relay.example.net]:587  ann@example.net  the password, to the end of the line
//! smtp.example.com         ann@example.com  token:/usr/local/bin/our-token
//! ```

pub mod smtp;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::{Domain, Fail};

use crate::program;
pub use crate::sasl::client::{Login, Secret};

/// Octets of the file.
const MAX_FILE: u64 = 1024 * 1024;
/// Octets of a token.
const MAX_TOKEN: usize = 16 * 1024;
/// How long a token is used that its program gave. They live for an hour at most places.
const KEEP: Duration = Duration::from_secs(300);

/// The operator's file.
#[derive(Default)]
pub struct Logins {
    /// `example.org`, `[host]`, `[host]:587`, in lower case.
    known: HashMap<String, Kept>,
    tokens: Mutex<HashMap<Asked, (Instant, String)>>,
}

/// A program, and what it is asked: a user and a host.
type Asked = (PathBuf, String, String);

#[derive(Debug, PartialEq, Eq)]
struct Kept {
    user: String,
    from: Source,
}

#[derive(PartialEq, Eq)]
enum Source {
    Password(String),
    Program(PathBuf),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password(_) => f.write_str("password"),
            Self::Program(path) => write!(f, "token:{}", path.display()),
        }
    }
}

impl std::fmt::Debug for Logins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logins")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Logins {
    /// A file that is not there has none. One that others may read, or change, is an error.
    pub fn load(path: &Path) -> Result<Self, Fail> {
        let shown = path.display();
        let bad = |what: String| Fail::config(format!("{shown}: {what}"));
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(bad(e.to_string())),
        };
        let mode = file.metadata().map_err(|e| bad(e.to_string()))?.mode();
        if mode & 0o027 != 0 {
            return Err(bad(format!(
                "has passwords and may be read by all, or changed by others than its owner; mend with: chmod 640 {shown}"
            )));
        }
        let mut text = String::new();
        let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
        read.map_err(|e| bad(e.to_string()))?;
        if u64::try_from(text.len()).is_ok_and(|length| length > MAX_FILE) {
            return Err(bad(format!("longer than {MAX_FILE} octets")));
        }
        let known = parse(&text).map_err(|(line, what)| {
            // The line itself may have a password in it.
            Fail::config(format!("{shown}:{line}: {what}"))
        })?;
        for kept in known.values() {
            if let Source::Program(program) = &kept.from {
                program::check("token:", program)?;
            }
        }
        Ok(Self {
            known,
            tokens: Mutex::new(HashMap::new()),
        })
    }

    /// Whether there is a login for the domain whose exchangers are asked; never blocks.
    pub fn has_domain(&self, domain: &Domain) -> bool {
        !self.known.is_empty() && self.known.contains_key(domain.as_str())
    }

    /// Whether there is one for this host; never blocks.
    pub fn has_host(&self, host: &Domain, port: u16) -> bool {
        self.host(host, port).is_some()
    }

    /// The login for the domain whose exchangers are asked. Blocks while a program fetches a token.
    pub fn of_domain(&self, domain: &Domain) -> Result<Option<Login>, Fail> {
        self.known
            .get(domain.as_str())
            .map(|kept| self.login(kept, domain.as_str()))
            .transpose()
    }

    /// The login for a host that is named without a look at MX records. Blocks as well.
    pub fn of_host(&self, host: &Domain, port: u16) -> Result<Option<Login>, Fail> {
        self.host(host, port)
            .map(|kept| self.login(kept, host.as_str()))
            .transpose()
    }

    fn host(&self, host: &Domain, port: u16) -> Option<&Kept> {
        if self.known.is_empty() {
            return None;
        }
        let name = bracketed(host);
        let at_port = self.known.get(&format!("{name}:{port}"));
        at_port.or_else(|| self.known.get(&name))
    }

    /// The server said no: the next login asks the program again.
    pub fn refused(&self, login: &Login) {
        if let Secret::Token(used) = &login.secret {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.retain(|_, (_, token)| token != used);
        }
    }

    fn login(&self, kept: &Kept, host: &str) -> Result<Login, Fail> {
        let secret = match &kept.from {
            Source::Password(password) => Secret::Password(password.clone()),
            Source::Program(program) => Secret::Token(self.token(program, &kept.user, host)?),
        };
        Ok(Login {
            user: kept.user.clone(),
            secret,
        })
    }

    fn token(&self, program: &Path, user: &str, host: &str) -> Result<String, Fail> {
        // Who asks meanwhile waits for the same token.
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = (program.to_owned(), user.to_owned(), host.to_owned());
        if let Some((until, token)) = tokens.get(&asked)
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let shown = program.display();
        let mut command = program::command(program, "smtp");
        command.args([user, host]);
        let said = program::run_for(&mut command, b"", MAX_TOKEN)?;
        if said.code != Some(0) {
            return Err(Fail::temp(format!("{shown} has no token for {user}")));
        }
        let token = std::str::from_utf8(&said.output).ok().map(str::trim_end);
        let is_token = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let Some(token) = token.filter(is_token) else {
            return Err(Fail::temp(format!(
                "{shown} gives no token: one line of printable ASCII"
            )));
        };
        tokens.insert(asked, (Instant::now() + KEEP, token.to_owned()));
        Ok(token.to_owned())
    }
}

fn bracketed(host: &Domain) -> String {
    match host.ip() {
        Some(_) => host.as_str().to_owned(),
        None => format!("[{}]", host.as_str()),
    }
}

fn parse(text: &str) -> Result<HashMap<String, Kept>, (usize, String)> {
    let mut known = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let at = |what: &str| (number, what.to_owned());
        let form = "write for example: [relay.example.net]:587 user password";
        let mut parts = line.trim_start().splitn(2, [' ', '\t']);
        let (host, rest) = (parts.next(), parts.next().unwrap_or_default());
        let mut parts = rest.trim_start().splitn(2, [' ', '\t']);
        let (user, secret) = (parts.next(), parts.next().unwrap_or_default().trim_start());
        let (Some(host), Some(user)) = (host, user.filter(|user| !user.is_empty())) else {
            return Err(at(&format!("no user, {form}")));
        };
        if secret.is_empty() {
            return Err(at(&format!("no secret, {form}")));
        }
        let from = match secret.strip_prefix("token:") {
            Some(program) if program.starts_with('/') => Source::Program(program.into()),
            Some(_) => return Err(at("token: needs the absolute path of a program")),
            None => Source::Password(secret.into()),
        };
        let host = host_key(host).ok_or_else(|| {
            at("the first word is no host, write [relay.example.net]:587, [relay.example.net] or example.org")
        })?;
        let kept = Kept {
            user: user.into(),
            from,
        };
        if known.insert(host, kept).is_some() {
            return Err(at("this host has a line already, remove one"));
        }
    }
    Ok(known)
}

fn host_key(word: &str) -> Option<String> {
    let Some(inner) = word.strip_prefix('[') else {
        return Domain::parse(word)
            .ok()
            .map(|domain| domain.as_str().to_owned());
    };
    let (host, port) = inner.split_once(']')?;
    let port = match port.strip_prefix(':') {
        Some(port) => format!(":{}", port.parse::<u16>().ok()?),
        None => port.is_empty().then(String::new)?,
    };
    let host = match Domain::parse(&format!("[{host}]")) {
        Ok(literal) => literal,
        Err(_) => Domain::parse(host).ok()?,
    };
    Some(format!("{}{port}", bracketed(&host)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn d(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, Result<Logins, Fail>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay-logins");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let logins = Logins::load(&path);
        (dir, logins)
    }

    #[test]
    fn hosts_and_their_logins() {
        let text = "# ours\n\n[Relay.example.net]:587 ann  two words \r\n[relay.example.net]\tbob x\nexample.org carl y\n[192.0.2.1] dan z\n";
        let (_dir, logins) = file(text, 0o640);
        let logins = logins.unwrap();
        let host = |name: &str, port| {
            let login = logins.of_host(&d(name), port).unwrap();
            assert_eq!(login.is_some(), logins.has_host(&d(name), port));
            login.map(|login| match login.secret {
                Secret::Password(password) => format!("{} {password}", login.user),
                Secret::Token(_) => "token".into(),
            })
        };
        assert_eq!(
            host("relay.example.net", 587).as_deref(),
            Some("ann two words ")
        );
        assert_eq!(host("relay.example.net", 25).as_deref(), Some("bob x"));
        assert_eq!(host("[192.0.2.1]", 25).as_deref(), Some("dan z"));
        assert_eq!(host("example.org", 25), None);
        assert!(logins.has_domain(&d("Example.org")));
        assert!(logins.of_domain(&d("example.org")).unwrap().is_some());
        assert!(!logins.has_domain(&d("relay.example.net")));
        assert!(!format!("{logins:?}").contains("two words"));
        let none = Logins::load(Path::new("/nonexistent")).unwrap();
        assert!(!none.has_host(&d("relay.example.net"), 25));
    }

    #[test]
    fn mistakes_have_a_line_and_no_secret_in_them() {
        for (text, part) in [
            ("[a]", ":1: no user"),
            ("\n[a] s3cret", ":2: no secret"),
            ("[a s3cret s3cret", ":1: the first word is no host"),
            ("[a]:x u s3cret", ":1: the first word is no host"),
            ("a@b u s3cret", ":1: the first word is no host"),
            (
                "[a] u s3cret\n[A] u s3cret",
                ":2: this host has a line already",
            ),
            ("[a] u token:s3cret", ":1: token: needs the absolute path"),
            ("[a] u token:/nonexistent/x", "/nonexistent/x"),
        ] {
            let fail = file(text, 0o600).1.unwrap_err().to_string();
            assert!(
                fail.contains(part) && !fail.contains("s3cret"),
                "{text}: {fail}"
            );
        }
        for mode in [0o644, 0o660, 0o602] {
            let fail = file("[a] u s", mode).1.unwrap_err().to_string();
            assert!(fail.contains("chmod 640"), "{mode:o}: {fail}");
        }
    }

    #[test]
    fn a_program_gives_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("token");
        let write = |script: &str| {
            fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let count = dir.path().join("count");
        let counted = count.display();
        write(&format!("echo x >> {counted}; echo \"$1-$2-$SERVICE\""));
        let text = format!("[relay.example.net] ann token:{}\n", program.display());
        let (_dir, logins) = file(&text, 0o600);
        let logins = logins.unwrap();
        let ask = || {
            logins
                .of_host(&d("relay.example.net"), 25)
                .map(Option::unwrap)
        };
        let login = ask().unwrap();
        assert!(login.secret == Secret::Token("ann-relay.example.net-smtp".into()));
        assert!(ask().unwrap() == login);
        assert_eq!(fs::read_to_string(&count).unwrap(), "x\n", "asked once");
        logins.refused(&login);
        ask().unwrap();
        assert_eq!(fs::read_to_string(&count).unwrap(), "x\nx\n");
        for bad in [
            "exit 1",
            "true",
            "echo a b",
            "head -c 20000 /dev/zero | tr '\\0' a",
            "printf '\\377'",
        ] {
            logins.refused(&login);
            write(bad);
            assert!(ask().is_err(), "{bad}");
        }
    }
}
