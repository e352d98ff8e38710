//! What is asserted of any input at all, as plain functions: the engine of `make fuzz` calls them with
//! what it makes up, `cargo test` with the corpus. docs/fuzzing.md has the list. Those that need what is
//! inside of smtpd are there, in `smtpd/src/fuzz.rs`, and so it is with `net`.

mod address;
mod mailauth;
mod milter;
mod mime;
mod pieces;

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

pub use address::address;
pub use mailauth::mailauth;
pub use milter::milter;
pub use mime::mime;

/// The directory of the corpora, one a target.
pub fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

/// Gives each file of the target's corpus to `body`.
///
/// # Panics
///
/// When there is no file, and when `body` panics; which file it was is said first.
pub fn replay(target: &str, body: fn(&[u8])) {
    let dir = corpus().join(target);
    let files = fs::read_dir(&dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    for file in files {
        let input = fs::read(&file).unwrap();
        if let Err(finding) = panic::catch_unwind(|| body(&input)) {
            eprintln!("{}: a finding, see above", file.display());
            panic::resume_unwind(finding);
        }
    }
}
