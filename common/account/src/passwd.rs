//! The users file: Dovecot's passwd-file form, `user:{SCHEME}secret:uid:gid:gecos:home:shell:extra`.
//!
//! A bad line is an error that names file, line and mend; no half of a users file is ever in force.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use base::Fail;

use crate::secret::Secret;
use crate::user::{User, UserName};

/// A file larger than this is not a users file.
const MAX_FILE: u64 = 64 << 20;

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) user: User,
    /// `None` where the user exists and nobody can log in.
    pub(crate) secret: Option<Secret>,
}

/// All lines, by name.
pub(crate) type Entries = HashMap<UserName, Entry>;

/// Reads the file.
pub(crate) fn load(path: &Path) -> Result<Entries, Fail> {
    let doing = || format!("read {}", path.display());
    let size = std::fs::metadata(path)
        .map_err(|e| Fail::io(doing(), e))?
        .len();
    if size > MAX_FILE {
        return Err(Fail::config(format!(
            "{}: {size} bytes are no users file",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Fail::io(doing(), e))?;
    parse(&text, path)
}

pub(crate) fn parse(text: &str, path: &Path) -> Result<Entries, Fail> {
    let mut entries = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.trim_start().is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = entry(line)
            .map_err(|what| Fail::config(format!("{}:{}: {what}", path.display(), at + 1)))?;
        let name = entry.user.name.clone();
        if entries.insert(name.clone(), entry).is_some() {
            let place = format!("{}:{}", path.display(), at + 1);
            return Err(Fail::config(format!(
                "{place}: {name} stands in an earlier line, remove one"
            )));
        }
    }
    Ok(entries)
}

fn entry(line: &str) -> Result<Entry, String> {
    let mut fields = line.split(':');
    let mut next = || fields.next().unwrap_or("");
    let name = next();
    let name = UserName::parse(name).ok_or_else(|| {
        format!(
            "`{}' can be no user's name, write letters, digits and ._-",
            base::escape::escape(name)
        )
    })?;
    let secret = match next() {
        "" | "*" | "!" | "x" => None,
        text => Some(Secret::parse(text).map_err(|what| format!("{name}: {what}"))?),
    };
    let mut id = |what: &str| match next().parse::<u32>() {
        Ok(id) => Ok(id),
        Err(_) => Err(format!(
            "{name}: {what} is missing, write user:{{SCHEME}}secret:uid:gid:name:home"
        )),
    };
    let (uid, gid) = (id("uid")?, id("gid")?);
    let gecos = next().to_owned();
    let home = PathBuf::from(next());
    Ok(Entry {
        user: User {
            name,
            uid,
            gid,
            gecos,
            home,
        },
        secret,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dovecots_form() {
        let text =
            "# users\nann:{PLAIN}a secret:1000:1001:Ann B:/home/ann:/bin/sh:extra\n\nbob:*:5:6\n";
        let entries = parse(text, Path::new("users")).unwrap();
        let ann = &entries[&UserName::parse("ann").unwrap()];
        assert_eq!((ann.user.uid, ann.user.gid), (1000, 1001));
        assert_eq!(ann.user.gecos, "Ann B");
        assert_eq!(ann.user.home, Path::new("/home/ann"));
        assert!(ann.secret.as_ref().unwrap().verify(b"a secret"));
        assert!(entries[&UserName::parse("bob").unwrap()].secret.is_none());
    }

    #[test]
    fn a_bad_line_says_where_and_what_instead() {
        let table = [
            (
                "ann:{PLAIN}x",
                "users:1: ann: uid is missing, write user:{SCHEME}secret:uid:gid:name:home",
            ),
            (
                "\n../x:{PLAIN}x:1:1",
                "users:2: `../x' can be no user's name, write letters, digits and ._-",
            ),
            (
                "a:{PLAIN}x:1:1\na:{PLAIN}y:1:1",
                "users:2: a stands in an earlier line, remove one",
            ),
            (
                "a:{ROT13}x:1:1",
                "users:1: a: {ROT13} is not known, write {PLAIN}, {CRYPT}, {SHA512-CRYPT}, {SHA256-CRYPT}, {ARGON2ID} or {SCRAM-SHA-256}",
            ),
        ];
        for (text, want) in table {
            assert_eq!(
                parse(text, Path::new("users")).unwrap_err().to_string(),
                want
            );
        }
    }
}
