//! Small files that are replaced whole: after [`replace`] returns, power loss leaves the old or the
//! new content, never a mixture, and never neither.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::fail::{Doing, Fail};

/// Writes `content` to a new file beside `path`, syncs it, renames it over `path` and syncs the
/// directory. `mode` is in octal and subject to the umask.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), Fail> {
    let mut name: OsString = path.as_os_str().into();
    name.push(format!(".{}.tmp", std::process::id()));
    let temp = Path::new(&name);
    let write = || -> Result<(), Fail> {
        let doing = || format!("write {}", temp.display());
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(temp)
            .doing(doing)?;
        file.write_all(content).doing(doing)?;
        file.sync_all().doing(doing)?;
        std::fs::rename(temp, path)
            .doing(|| format!("rename {} to {}", temp.display(), path.display()))
    };
    let written = write();
    if written.is_err() {
        // The temporary file is ours and unfinished; if it cannot go either, the error says why.
        std::fs::remove_file(temp).ok();
    }
    written?;
    sync_directory_of(path)
}

/// Makes the names in `path`'s directory durable.
pub fn sync_directory_of(path: &Path) -> Result<(), Fail> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    sync_directory(dir)
}

/// Makes the names in `dir` durable.
pub fn sync_directory(dir: &Path) -> Result<(), Fail> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .doing(|| format!("sync directory {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(&dir.path().join("no/x"), b"", 0o600).is_err());
    }
}
