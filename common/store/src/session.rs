//! One client's view of one user's mail.
use std::path::PathBuf;
use crate::request::{Answer, Request};
use crate::spool::Home;

/// One client's view of one user's mail: what is selected, and which numbers its messages have.
#[derive(Debug)]
pub struct Session { home: Home }

impl Session {
    pub(crate) fn new(home: Home) -> Self { Self { home } }
    /// Whose mail it is.
    pub fn user(&self) -> &str { self.home.user() }
    /// What to watch for changes of the selected folder: files and directories.
    pub fn paths(&self) -> Vec<PathBuf> { vec![] }
    /// Does it, blocking on locks and the disk.
    pub fn handle(&mut self, _request: Request) -> Answer { Answer::Done }
}
