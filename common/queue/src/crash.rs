//! Where a test can let the process die: between any two steps of a protocol.

/// In a test's child process: dies at the n-th call, when the environment says so.
#[cfg(test)]
pub(crate) fn point(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicI64, Ordering};
    static LEFT: LazyLock<AtomicI64> = LazyLock::new(|| {
        let at = std::env::var("QUEUE_TEST_CRASH_AT")
            .ok()
            .and_then(|n| n.parse().ok());
        AtomicI64::new(at.unwrap_or(i64::MAX))
    });
    if LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
        eprintln!("crash at {name}");
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).ok();
    }
}

/// Nothing.
#[cfg(not(test))]
#[inline]
pub(crate) fn point(_name: &str) {}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// In the child: the root it works in. `None` in an ordinary run of the test.
    pub(crate) fn role() -> Option<PathBuf> {
        std::env::var_os("QUEUE_TEST_ROOT").map(PathBuf::from)
    }

    /// Runs one test of this binary as a process of its own, which dies at the `at`-th crash point.
    /// `false` when it came to its end before that.
    pub(crate) fn dies_at(test: &str, root: &Path, at: usize) -> bool {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("QUEUE_TEST_ROOT", root)
            .env("QUEUE_TEST_CRASH_AT", at.to_string())
            .output()
            .unwrap();
        let died = output.status.signal() == Some(9);
        assert!(
            died || output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        died
    }
}
