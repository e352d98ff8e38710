//! A file of the operator's that is read again when it changed. A file that is not there is an empty
//! one; one that cannot be used leaves what was read before in force, and says so once.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::Fail;

/// Larger tables are a mistake.
const MAX_FILE: u64 = 64 << 20;
/// It is looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) type Parse<T> = fn(&Path, &str) -> Result<T, Fail>;
/// Device, inode, size and time; nothing where there is no file.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

#[derive(Debug)]
pub(crate) struct Table<T> {
    path: PathBuf,
    parse: Parse<T>,
    now: Mutex<Now<T>>,
}

#[derive(Debug)]
struct Now<T> {
    stamp: Stamp,
    looked: Instant,
    value: Arc<T>,
}

impl<T> Table<T> {
    /// Reads it; what is wrong with it is an error with file, line and mend.
    pub(crate) fn open(path: &Path, parse: Parse<T>) -> Result<Self, Fail> {
        let (stamp, value) = read(path, parse)?;
        let now = Now {
            stamp,
            looked: Instant::now(),
            value: Arc::new(value),
        };
        Ok(Self {
            path: path.to_owned(),
            parse,
            now: Mutex::new(now),
        })
    }

    /// As it is now, or was a second ago.
    pub(crate) fn get(&self) -> Arc<T> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.looked.elapsed() >= LOOK_EVERY {
            now.looked = Instant::now();
            self.refresh(&mut now);
        }
        Arc::clone(&now.value)
    }

    fn refresh(&self, now: &mut Now<T>) {
        let stamp = stamp(&self.path);
        if stamp == now.stamp {
            return;
        }
        match read(&self.path, self.parse) {
            Ok((stamp, value)) => {
                log::info!("{} read again", self.path.display());
                now.stamp = stamp;
                now.value = Arc::new(value);
            }
            Err(fail) => {
                log::error!("{fail}; what was read before stays in force");
                now.stamp = stamp;
            }
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
    ))
}

fn read<T>(path: &Path, parse: Parse<T>) -> Result<(Stamp, T), Fail> {
    let stamp = stamp(path);
    if stamp.is_some_and(|stamp| stamp.2 > MAX_FILE) {
        let text = format!("{}: larger than {MAX_FILE} octets", path.display());
        return Err(Fail::config(text));
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((stamp, parse(path, &text)?)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok((None, parse(path, "")?)),
        Err(e) => Err(Fail::config(format!("read {}: {e}", path.display()))),
    }
}

/// The lines that say something, with their numbers: no comments, no empty ones.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &Path, text: &str) -> Result<usize, Fail> {
        match lines(text).find(|(_, line)| *line == "bad") {
            Some((number, _)) => Err(Fail::config(format!("{}:{number}: bad", path.display()))),
            None => Ok(lines(text).count()),
        }
    }

    #[test]
    fn it_is_read_again_and_a_bad_one_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table");
        let table = Table::open(&path, count).unwrap();
        let again = || {
            table.now.lock().unwrap().looked -= LOOK_EVERY;
            *table.get()
        };
        assert_eq!(again(), 0);
        std::fs::write(&path, "# one\n\n a \n").unwrap();
        assert_eq!(again(), 1);
        std::fs::write(&path, "a\nb\nbad\n").unwrap();
        assert_eq!(again(), 1);
        std::fs::write(&path, "a\nb\n").unwrap();
        assert_eq!(again(), 2);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(again(), 0);
        std::fs::write(&path, "bad\n").unwrap();
        let fail = Table::open(&path, count).unwrap_err();
        assert!(fail.to_string().contains("table:1: bad"), "{fail}");
    }
}
