//! Why something in the spool did not work: a `Fail` for the operator with the one word that a
//! session's client needs.

use std::io;

use base::{Fail, Status};

use crate::request::{Failed, Why};

pub(crate) type Result<T> = std::result::Result<T, Trouble>;

#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) why: Why,
    pub(crate) fail: Fail,
}

impl Trouble {
    pub(crate) fn new(why: Why, text: impl Into<String>) -> Self {
        Self {
            why,
            fail: Fail::temp(text),
        }
    }
}

impl From<Fail> for Trouble {
    fn from(fail: Fail) -> Self {
        let why = if fail.is_full() {
            Why::Full
        } else if fail.kind() == Some(io::ErrorKind::ReadOnlyFilesystem) {
            Why::ReadOnly
        } else {
            Why::Temporary
        };
        Self { why, fail }
    }
}

impl From<Trouble> for Fail {
    /// A mailbox in use has the status 4.2.0, so that a deliverer can come back soon.
    fn from(trouble: Trouble) -> Self {
        match trouble.why {
            Why::InUse => trouble.fail.with_status(Status::new(4, 2, 0)),
            _ => trouble.fail,
        }
    }
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self {
            why: trouble.why,
            text: trouble.fail.to_string(),
        }
    }
}
