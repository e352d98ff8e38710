//! Who exists: the users file where there is one, else the host's Unix users.
//!
//! The file is looked at on every question and read again when it changed. One that is broken or
//! gone leaves the last good one in force and says so in the log, once.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Config, Doing, Fail, Root, international};

use crate::passwd::{self, Entries, Entry};
use crate::salt::{self, Salts, Shape};
use crate::sasl::Mechanism;
use crate::sasl::cram;
use crate::sasl::scram::Credential;
use crate::secret::{self, Secret};
use crate::user::{User, UserName};
use crate::verifier::Hash;

/// The users of this host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Users(Arc<Source>);

#[derive(Debug)]
enum Source {
    File { path: PathBuf, state: Mutex<State> },
    Unix,
}

#[derive(Debug)]
struct State {
    stamp: Option<Stamp>,
    file: Arc<File>,
}

/// The users file as it was read.
#[derive(Debug)]
struct File {
    entries: Entries,
    /// What SCRAM's clients are told of these users, by hash.
    shapes: [(Hash, Vec<Shape>); 2],
}

impl File {
    fn load(path: &Path) -> Result<Self, Fail> {
        let entries = passwd::load(path)?;
        let shapes = Hash::ALL.map(|hash| {
            let of = |entry: &Entry| shape(hash, entry.secret.as_ref()?);
            let all: BTreeSet<Shape> = entries.values().filter_map(of).collect();
            (hash, all.into_iter().collect())
        });
        Ok(Self { entries, shapes })
    }

    fn shapes(&self, hash: Hash) -> &[Shape] {
        let mut shapes = self.shapes.iter();
        shapes.find(|s| s.0 == hash).map_or(&[], |s| &s.1)
    }
}

fn shape(hash: Hash, secret: &Secret) -> Option<Shape> {
    match secret {
        Secret::Plain(_) => Some(salt::PLAIN),
        Secret::Scram(verifier) if verifier.hash() == hash => {
            let salted = verifier.salted();
            Some((salted.iterations, salted.salt.len()))
        }
        Secret::Scram(_) | Secret::ShaCrypt(_) | Secret::Argon2(_) => None,
    }
}

/// What changes when a file is changed or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    mode: u32,
}

impl Users {
    /// USERS_FILE where it exists. In a private root there are no Unix users.
    pub fn open(root: &Root, config: &Config) -> Result<Self, Fail> {
        let path = &config.users_file;
        match stamp(path) {
            Ok(stamp) => {
                if !root.is_private() && stamp.mode & 0o007 != 0 {
                    let path = path.display();
                    log::warn!(
                        "{path}: everybody may read its secrets, mend with: chmod 640 {path}"
                    );
                }
                let file = Arc::new(File::load(path)?);
                let state = Mutex::new(State {
                    stamp: Some(stamp),
                    file,
                });
                Ok(Self(Arc::new(Source::File {
                    path: path.clone(),
                    state,
                })))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !root.is_private() => {
                Ok(Self(Arc::new(Source::Unix)))
            }
            Err(e) => Err(e).doing(|| format!("read {}", path.display())),
        }
    }

    /// The user of that name, as it is written or in lower case. An error is a doubt, not a no.
    pub fn lookup(&self, name: &str) -> Result<Option<User>, Fail> {
        Ok(self.entry(name)?.map(|entry| entry.user))
    }

    /// Whether the user exists and `password` fits, in a time that does not say which failed.
    pub fn verify(&self, name: &str, password: &[u8]) -> Result<Option<User>, Fail> {
        let entry = self.entry(name)?;
        match entry {
            Some(Entry {
                user,
                secret: Some(secret),
            }) => Ok(secret.verify(password).then_some(user)),
            Some(Entry { secret: None, .. }) | None => {
                secret::nobody(self.sample().as_ref()).verify(password);
                Ok(None)
            }
        }
    }

    /// RFC 1939 7.
    pub fn verify_apop(
        &self,
        name: &str,
        timestamp: &str,
        digest: &[u8],
    ) -> Result<Option<User>, Fail> {
        let entry = self.entry(name)?;
        let secret = entry.as_ref().and_then(|e| e.secret.clone());
        let fits = secret
            .unwrap_or_else(|| secret::nobody(None))
            .verify_apop(timestamp, digest);
        Ok(entry.filter(|_| fits).map(|e| e.user))
    }

    /// RFC 2195.
    pub fn verify_cram(&self, response: &cram::Response) -> Result<Option<User>, Fail> {
        let entry = self.entry(&response.name)?;
        let secret = entry.as_ref().and_then(|e| e.secret.clone());
        let fits = secret
            .unwrap_or_else(|| secret::nobody(None))
            .verify_cram(response);
        Ok(entry.filter(|_| fits).map(|e| e.user))
    }

    /// What a SCRAM client's proof is checked against. For a name without such keys it is made with
    /// as much work.
    pub(crate) fn credential(
        &self,
        salts: &Salts,
        hash: Hash,
        name: &str,
    ) -> Result<Credential, Fail> {
        let nobody = match &*self.0 {
            Source::File { path, state } => {
                salts.nobody(hash, name, current(path, state).shapes(hash))
            }
            Source::Unix => salts.nobody(hash, name, &[]),
        };
        let salted = salts.salted(hash, name);
        Ok(match self.entry(name)?.and_then(|e| e.secret) {
            Some(Secret::Plain(password)) if !password.is_empty() => Credential::Password {
                hash,
                salted,
                password,
            },
            Some(Secret::Scram(verifier)) if verifier.hash() == hash => {
                Credential::Verifier(verifier)
            }
            Some(_) | None => Credential::Nobody(nobody),
        })
    }

    /// By which mechanisms of those that need a secret everybody can log in who can at all, the
    /// strongest first. A client takes
    /// the strongest that is announced, and for a user of whom only a hash is known that must not be
    /// one that asks for more.
    pub(crate) fn mechanisms(&self) -> Vec<Mechanism> {
        let secrets: Vec<Secret> = match &*self.0 {
            Source::File { path, state } => {
                let file = current(path, state);
                file.entries
                    .values()
                    .filter_map(|e| e.secret.clone())
                    .collect()
            }
            Source::Unix => Vec::new(),
        };
        let all = Mechanism::ALL.into_iter();
        all.filter(|mechanism| {
            let fits = |secret: &Secret| secret.allows(*mechanism);
            let by_password = matches!(mechanism, Mechanism::Plain | Mechanism::Login);
            by_password || (!secrets.is_empty() && secrets.iter().all(fits))
        })
        .collect()
    }

    /// Root of the host itself logs in nowhere: his password opens more than a mailbox.
    pub(crate) fn may_be(&self, user: &User) -> bool {
        !self.are_unix() || user.uid != 0
    }

    /// Whether they are the host's Unix users, of whom nothing is stored here.
    pub(crate) fn are_unix(&self) -> bool {
        matches!(&*self.0, Source::Unix)
    }

    fn entry(&self, name: &str) -> Result<Option<Entry>, Fail> {
        let Some(exact) = UserName::parse(name) else {
            return Ok(None);
        };
        let folded = UserName::parse(&international::fold(name)).unwrap_or_else(|| exact.clone());
        match &*self.0 {
            Source::File { path, state } => {
                let file = current(path, state);
                let found = file.entries.get(&exact);
                Ok(found.or_else(|| file.entries.get(&folded)).cloned())
            }
            Source::Unix => match unix(&exact)? {
                Some(user) => Ok(Some(Entry { user, secret: None })),
                None => Ok(unix(&folded)?.map(|user| Entry { user, secret: None })),
            },
        }
    }

    /// Some user's secret: an unknown user's password is hashed in the same way.
    fn sample(&self) -> Option<Secret> {
        match &*self.0 {
            Source::File { path, state } => {
                let file = current(path, state);
                file.entries.values().find_map(|e| e.secret.clone())
            }
            Source::Unix => None,
        }
    }
}

/// The file as it is now, or as it last was good.
fn current(path: &Path, state: &Mutex<State>) -> Arc<File> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let now = stamp(path).ok();
    if now != state.stamp {
        match File::load(path) {
            Ok(file) => state.file = Arc::new(file),
            Err(fail) => log::error!("{fail}; the users stay what they were"),
        }
        state.stamp = now;
    }
    Arc::clone(&state.file)
}

pub(crate) fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let meta = std::fs::metadata(path)?;
    Ok(Stamp {
        ino: meta.ino(),
        size: meta.size(),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        mode: meta.mode(),
    })
}

fn unix(name: &UserName) -> Result<Option<User>, Fail> {
    let found =
        nix::unistd::User::from_name(name.as_str()).doing(|| format!("look up user {name}"))?;
    Ok(found.map(|u| User {
        name: name.clone(),
        uid: u.uid.as_raw(),
        gid: u.gid.as_raw(),
        gecos: u
            .gecos
            .to_string_lossy()
            .split(',')
            .next()
            .unwrap_or_default()
            .to_owned(),
        home: u.dir,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> (tempfile::TempDir, Users) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/yubin")).unwrap();
        std::fs::write(dir.path().join("etc/yubin/users"), text).unwrap();
        let root = Root::new(dir.path());
        let config = Config::parse(&root, "", Path::new("yubin.def")).unwrap();
        let users = Users::open(&root, &config).unwrap();
        (dir, users)
    }

    #[test]
    fn names_are_found_as_written_or_in_lower_case() {
        let (_dir, users) = users("ann:{PLAIN}pw:1:1\nBob:{PLAIN}pw:2:2\nnologin::3:3\n");
        assert_eq!(users.lookup("ANN").unwrap().unwrap().uid, 1);
        assert_eq!(users.lookup("Bob").unwrap().unwrap().uid, 2);
        assert!(users.lookup("bob").unwrap().is_none());
        assert!(users.lookup("../ann").unwrap().is_none());
        assert!(users.verify("ann", b"pw").unwrap().is_some());
        assert!(users.verify("ann", b"").unwrap().is_none());
        assert!(users.verify("nologin", b"").unwrap().is_none());
        assert!(users.verify("nobody", b"\0nobody").unwrap().is_none());
    }

    /// A client takes the strongest that it knows: who cannot log in by that would be shut out.
    #[test]
    fn only_what_everybody_can_use_is_announced() {
        let scram = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let hashed = "{CRYPT}$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5";
        let table = [
            (
                "a:{PLAIN}pw:1:1\nnologin::2:2\n".to_owned(),
                "SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN",
            ),
            (
                format!("a:{{PLAIN}}pw:1:1\nb:{scram}:2:2\n"),
                "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN",
            ),
            (
                format!("a:{{PLAIN}}pw:1:1\nb:{hashed}:2:2\n"),
                "PLAIN LOGIN",
            ),
            (String::new(), "PLAIN LOGIN"),
        ];
        for (text, want) in table {
            let (_dir, users) = users(&text);
            let names: Vec<_> = users
                .mechanisms()
                .into_iter()
                .map(Mechanism::name)
                .collect();
            assert_eq!(names.join(" "), want);
        }
    }

    /// An empty secret is a slip of who wrote it: no keys are made of it.
    #[test]
    fn an_empty_secret_has_no_keys() {
        let (dir, users) = users("ann:{PLAIN}pw:1:1\nbob:{PLAIN}:2:2\n");
        let salts = Salts::open(&Root::new(dir.path())).unwrap();
        let of = |name: &str| users.credential(&salts, Hash::Sha256, name).unwrap();
        assert!(matches!(of("ann"), Credential::Password { .. }));
        assert!(matches!(of("bob"), Credential::Nobody(_)));
        assert!(matches!(of("cy"), Credential::Nobody(_)));
        let response = cram::Response {
            name: "bob".into(),
            challenge: String::new(),
            digest: "74e6f7298a9c2d168935f58c001bad88".into(), // RFC 2104's HMAC-MD5 of nothing
        };
        assert!(users.verify_cram(&response).unwrap().is_none());
    }

    #[test]
    fn a_changed_file_counts_at_once_and_a_broken_one_does_not() {
        let (dir, users) = users("ann:{PLAIN}pw:1:1\n");
        let path = dir.path().join("etc/yubin/users");
        std::fs::write(&path, "ann:{PLAIN}new:1:1\ncy:{PLAIN}x:2:2\n").unwrap();
        assert!(users.verify("ann", b"new").unwrap().is_some());
        std::fs::write(&path, "broken").unwrap();
        assert!(users.lookup("cy").unwrap().is_some());
        std::fs::remove_file(&path).unwrap();
        assert!(users.lookup("cy").unwrap().is_some());
        std::fs::write(&path, "dan:{PLAIN}x:2:2\n").unwrap();
        assert!(users.lookup("cy").unwrap().is_none());
    }

    #[test]
    fn a_private_root_has_no_unix_users() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let config = Config::parse(&root, "", Path::new("yubin.def")).unwrap();
        assert!(Users::open(&root, &config).is_err());
        let users = Users(Arc::new(Source::Unix));
        assert_eq!(users.lookup("root").unwrap().unwrap().uid, 0);
    }
}
