//! CERT_USERS: whose client certificate is whose, for EXTERNAL (RFC 4422 A). A line is the SHA-256
//! of a certificate, as `openssl x509 -fingerprint -sha256` prints it, a blank and a user.
//!
//! No name in a certificate says who somebody is here: an authority that makes one too many gives
//! nobody another's mail. To take a certificate out of use, its line is taken out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base::{Config, Fail};

use crate::user::UserName;
use crate::users::{Stamp, stamp};

/// SHA-256 of a certificate in DER.
type Fingerprint = [u8; 32];
type Table = HashMap<Fingerprint, UserName>;

/// A table larger than this is none.
const MAX_FILE: u64 = 16 << 20;

/// The table, read again when its file changes. One that is broken or gone leaves the last good one
/// in force.
#[derive(Debug)]
pub(crate) struct Certificates {
    path: PathBuf,
    state: Mutex<(Option<Stamp>, Table)>,
}

impl Certificates {
    /// `None` where no client is asked for a certificate.
    pub(crate) fn open(config: &Config) -> Result<Option<Self>, Fail> {
        if config.tls_client_ca_file.is_none() {
            return Ok(None);
        }
        let path = config.cert_users.clone();
        let state = Mutex::new((stamp(&path).ok(), load(&path)?));
        Ok(Some(Self { path, state }))
    }

    /// Whose this certificate is.
    pub(crate) fn user(&self, fingerprint: &Fingerprint) -> Option<UserName> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.path).ok();
        if now != state.0 {
            match load(&self.path) {
                Ok(table) => state.1 = table,
                Err(fail) => log::error!("{fail}; the certificates' users stay what they were"),
            }
            state.0 = now;
        }
        state.1.get(fingerprint).cloned()
    }
}

fn load(path: &Path) -> Result<Table, Fail> {
    let unread = |e| {
        Fail::config(format!(
            "CERT_USERS: read {}: {e}; write lines of a SHA-256 fingerprint and a user",
            path.display()
        ))
    };
    let size = std::fs::metadata(path).map_err(unread)?.len();
    if size > MAX_FILE {
        let path = path.display();
        return Err(Fail::config(format!("{path}: {size} bytes are no table")));
    }
    parse(&std::fs::read_to_string(path).map_err(unread)?, path)
}

fn parse(text: &str, path: &Path) -> Result<Table, Fail> {
    let mut table = Table::new();
    for (at, line) in text.lines().enumerate() {
        let bad = |what: &str| Fail::config(format!("{}:{}: {what}", path.display(), at + 1));
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (print, name) = line
            .split_once([' ', '\t'])
            .ok_or_else(|| bad("write a fingerprint, a blank and a user"))?;
        let print = fingerprint(print).ok_or_else(|| {
            bad("no fingerprint; get it by: openssl x509 -noout -fingerprint -sha256 -in FILE")
        })?;
        let name = UserName::parse(name.trim_start())
            .ok_or_else(|| bad("no user's name, write letters, digits and ._-"))?;
        if table.insert(print, name).is_some() {
            return Err(bad(
                "this certificate stands in an earlier line, remove one",
            ));
        }
    }
    Ok(table)
}

/// 64 hexadecimal digits, with colons between pairs or without.
fn fingerprint(text: &str) -> Option<Fingerprint> {
    let digits: Vec<u8> = match text.contains(':') {
        false => text.bytes().collect(),
        true => {
            let mut pairs = text.split(':');
            pairs.all(|pair| pair.len() == 2).then_some(())?;
            text.bytes().filter(|b| *b != b':').collect()
        }
    };
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let octets: Vec<u8> = digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect::<Option<_>>()?;
    octets.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_as_openssl_prints_it_or_bare() {
        let bare = "00ff".repeat(16);
        let colons = ["00:FF"; 16].join(":");
        let want: Fingerprint = [0, 255].repeat(16).try_into().unwrap();
        assert_eq!(fingerprint(&bare), Some(want));
        assert_eq!(fingerprint(&colons), Some(want));
        for bad in [
            "",
            "00",
            bare.get(1..).unwrap(),
            &format!("{bare}00"),
            &"0g".repeat(32),
            colons.get(1..).unwrap(),
        ] {
            assert_eq!(fingerprint(bad), None, "{bad}");
        }
        assert_eq!(
            fingerprint(&format!("{}:0:0ff", colons.get(..89).unwrap())),
            None
        );
    }

    #[test]
    fn a_bad_line_says_where() {
        let print = "ab".repeat(32);
        let path = Path::new("cert-users");
        let good = parse(&format!("# ann's\n\n{print}\t ann\n"), path).unwrap();
        assert_eq!(good[&[0xab; 32]].as_str(), "ann");
        let table = [
            (print.clone(), "cert-users:1: write a fingerprint, a blank and a user".to_owned()),
            (format!("\n{print} ../x"), "cert-users:2: no user's name, write letters, digits and ._-".into()),
            (
                format!("{print} ann\n{print} bob"),
                "cert-users:2: this certificate stands in an earlier line, remove one".into(),
            ),
            (
                "ab ann".into(),
                "cert-users:1: no fingerprint; get it by: openssl x509 -noout -fingerprint -sha256 -in FILE".into(),
            ),
        ];
        for (text, want) in table {
            assert_eq!(parse(&text, path).unwrap_err().to_string(), want);
        }
    }
}
