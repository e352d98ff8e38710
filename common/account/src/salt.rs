//! The salts that SCRAM's client is told where none is stored: of users with a plain password, and
//! of names that nobody has. From outside the one cannot be told from the other.
//!
//! They are made of the name and of a key that stays with the host, so that every daemon says the
//! same today and tomorrow. Who has the key could tell such a salt from a stored one, and no more.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base::{Fail, Root, Sysexit, sys};
use nix::fcntl::OFlag;

use crate::verifier::{Hash, ITERATIONS, SALT, Salted, Verifier};

/// In the store's directory: no user's name begins with a dot.
const NAME: &str = ".salts";
/// Octets.
const KEY: usize = 32;

/// Iterations and octets of a salt, as some user of this host has them.
pub(crate) type Shape = (NonZeroU32, usize);

/// Of a user with a plain password.
pub(crate) const PLAIN: Shape = (ITERATIONS, SALT);

pub(crate) struct Salts {
    key: [u8; KEY],
}

impl Salts {
    /// This host's key, made where there is none. One that cannot be kept serves until the end of
    /// this process.
    pub(crate) fn open(root: &Root) -> Result<Self, Fail> {
        let dir = root.path(store::spool::STORE);
        let mut key = [0; KEY];
        getrandom::fill(&mut key)
            .map_err(|e| Fail::new(Sysexit::OsErr, format!("get random bytes: {e}")))?;
        match keep(&dir, &key) {
            Ok(key) => return Ok(Self { key }),
            // A host without mailboxes has no such directory.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => log::warn!(
                "{}: {e}; the salts of SCRAM change with each start",
                dir.join(NAME).display()
            ),
        }
        Ok(Self { key })
    }

    /// For the password of a user who has no salt.
    pub(crate) fn salted(&self, hash: Hash, name: &str) -> Salted {
        self.shaped(hash, name, PLAIN)
    }

    /// For a name that has no keys: like one of the host's users, always the same one.
    pub(crate) fn nobody(&self, hash: Hash, name: &str, shapes: &[Shape]) -> Verifier {
        let weight = |shape: &Shape| {
            let label = format!("shape {} {}", shape.0, shape.1);
            self.bytes(&label, hash, name, KEY)
        };
        let shape = shapes.iter().copied().max_by_key(weight).unwrap_or(PLAIN);
        Verifier::new(
            hash,
            self.shaped(hash, name, shape),
            self.bytes("stored", hash, name, hash.size()),
            self.bytes("server", hash, name, hash.size()),
        )
    }

    fn shaped(&self, hash: Hash, name: &str, (iterations, size): Shape) -> Salted {
        let salt = self.bytes("salt", hash, name, size);
        Salted { iterations, salt }
    }

    /// A name is known in lower case too, so that its salt does not depend on the case.
    fn bytes(&self, label: &str, hash: Hash, name: &str, size: usize) -> Vec<u8> {
        let name = name.to_ascii_lowercase();
        let scheme = hash.scheme();
        (0_u32..)
            .flat_map(|block| {
                let data = format!("{label}\0{scheme}\0{block}\0{name}");
                Hash::Sha256.hmac(&self.key, data.as_bytes())
            })
            .take(size)
            .collect()
    }
}

/// The key that is kept in `dir`: `new`, where none was.
fn keep(dir: &Path, new: &[u8; KEY]) -> io::Result<[u8; KEY]> {
    match read(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        result => return result,
    }
    // It has its name when it is whole: daemons start at the same time.
    let mut file = OpenOptions::new()
        .write(true)
        .mode(0o600)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .open(dir)?;
    file.write_all(new)?;
    file.sync_all()?;
    match sys::link_tmpfile(&file, File::open(dir)?, NAME) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        Ok(()) | Err(_) => read(dir),
    }
}

fn read(dir: &Path) -> io::Result<[u8; KEY]> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(dir.join(NAME))?;
    let mut key = [0; KEY];
    file.read_exact(&mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn root() -> (tempfile::TempDir, Root, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let store = root.path(store::spool::STORE);
        std::fs::create_dir_all(&store).unwrap();
        (dir, root, store)
    }

    #[test]
    fn the_key_stays_and_is_nobody_elses() {
        let (_dir, root, store) = root();
        let first = Salts::open(&root).unwrap();
        assert_eq!(Salts::open(&root).unwrap().key, first.key);
        assert_eq!(keep(&store, &[0; KEY]).unwrap(), first.key);
        let mode = store.join(NAME).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(first.key, [0; KEY]);
    }

    #[test]
    fn without_a_key_to_keep_it_works_until_the_end() {
        let (_dir, root, store) = root();
        std::fs::write(store.join(NAME), b"short").unwrap();
        let (one, other) = (Salts::open(&root).unwrap(), Salts::open(&root).unwrap());
        assert_ne!(one.key, other.key);
        let nowhere = Root::new(store.join("nowhere"));
        assert!(Salts::open(&nowhere).is_ok());
    }

    #[test]
    fn salts_are_stable_and_differ_by_name_and_hash() {
        let salts = Salts { key: [7; KEY] };
        let [one, two] = Hash::ALL;
        let ann = salts.salted(one, "ann");
        assert_eq!(ann, salts.salted(one, "ANN"));
        assert_eq!((ann.iterations, ann.salt.len()), PLAIN);
        assert_ne!(ann.salt, salts.salted(one, "bob").salt);
        assert_ne!(ann.salt, salts.salted(two, "ann").salt);
        // Nobody has what ann would have with a plain password.
        assert_eq!(*salts.nobody(one, "ann", &[]).salted(), ann);
    }

    #[test]
    fn nobody_looks_like_somebody() {
        let salts = Salts { key: [7; KEY] };
        let shapes = [PLAIN, (NonZeroU32::new(4096).unwrap(), 40)];
        let looks = |name: &str, shapes: &[Shape]| {
            let salted = salts.nobody(Hash::Sha256, name, shapes).salted().clone();
            (salted.iterations, salted.salt.len())
        };
        let names: Vec<String> = (0..50).map(|n| format!("user{n}")).collect();
        for shape in shapes {
            assert!(names.iter().any(|name| looks(name, &shapes) == shape));
        }
        let turned = [shapes[1], shapes[0]];
        for name in &names {
            assert_eq!(looks(name, &shapes), looks(name, &turned));
        }
    }
}
