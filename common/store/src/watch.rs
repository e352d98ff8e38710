//! Tells when a mailbox may have changed.
use std::path::PathBuf;
use std::sync::Arc;
use base::Fail;

/// One inotify instance and its thread, for all sessions of a process. Cheap to clone.
#[derive(Clone)]
pub struct Watcher { inner: Arc<()> }
/// Watches until dropped.
pub struct Watch { inner: Arc<()> }
impl Watcher {
    /// Starts the thread.
    pub fn start() -> Result<Self, Fail> { Ok(Self { inner: Arc::new(()) }) }
    /// Calls `changed` when one of `paths` (of [`crate::Session::paths`]) may have changed.
    pub fn watch(&self, _paths: &[PathBuf], _changed: impl Fn() + Send + Sync + 'static) -> Result<Watch, Fail> { Ok(Watch { inner: Arc::clone(&self.inner) }) }
}
impl Drop for Watch { fn drop(&mut self) { Arc::strong_count(&self.inner); } }
