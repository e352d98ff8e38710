//! Telling the sender what became of a message: the report of RFC 3464, made as a child of the
//! entry that it is about, so that `kill -9` neither loses nor doubles it.
//!
//! qrun and deliver record outcomes in the journal and then call [`Reporter::report`]; who is told,
//! and whether at all, follows from the envelope (RFC 3461) and the journal alone. What is reported
//! is recorded in the journal too, so asking twice reports once.
//!
//! A message with the null reverse-path is never answered: its failures go to our postmaster, and
//! the failure of that report goes nowhere but to the log.

mod reporter;
mod text;
mod xtext;

pub use reporter::{About, Reporter};
