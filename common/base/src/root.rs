//! The private root: every path that yubin opens starts here, `YUBIN_ROOT` or `/` (DESIGN 10).
//!
//! With a root other than `/` the whole system runs as one unprivileged uid in a folder.

use std::path::{Path, PathBuf};

/// Where the file system of this instance begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// From the environment: `YUBIN_ROOT`, made absolute, or `/`.
    pub fn from_env() -> Self {
        match std::env::var_os("YUBIN_ROOT") {
            Some(dir) if !dir.is_empty() => Self::new(PathBuf::from(dir)),
            _ => Self(PathBuf::from("/")),
        }
    }

    /// A root at `dir`; a relative one is taken from the current directory.
    pub fn new(dir: impl AsRef<Path>) -> Self {
        let dir = dir.as_ref();
        Self(std::path::absolute(dir).unwrap_or_else(|_| dir.into()))
    }

    /// The place of an absolute path below this root: `/etc/yubin` is `ROOT/etc/yubin`.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let path = absolute.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The root itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Whether this is not `/`: then one uid runs everything and owns everything.
    pub fn is_private(&self) -> bool {
        self.0 != Path::new("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_land_below_the_root() {
        let root = Root::new("/tmp/run");
        assert_eq!(root.path("/etc/yubin"), Path::new("/tmp/run/etc/yubin"));
        assert_eq!(root.path("var"), Path::new("/tmp/run/var"));
        assert!(root.is_private());
        assert!(!Root::new("/").is_private());
        assert_eq!(Root::new("/").path("/etc"), Path::new("/etc"));
    }
}
