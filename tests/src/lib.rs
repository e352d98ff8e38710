//! What the stories in tests/ stand on: a private root with the real binaries in it, ports that
//! nobody else has, and programs that others wrote as clients.
//!
//! Each story makes its own [`Host`]; dropping it kills the daemons. When a story fails, the log
//! of its host is printed. Nothing here needs root, DNS or a fixed port.

pub mod foreign;
pub mod host;
pub mod logins;
pub mod name_server;
pub mod powercut;
mod powercut_record;
pub mod siege;
pub mod smtp;
pub mod strace;
pub mod tls_world;

pub use host::Host;

use std::time::{Duration, Instant};

/// Waits up to 20 s for `ready` to give something; says `what` was waited for when it does not.
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "waited 20 s in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
