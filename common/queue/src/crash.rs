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
