//! The mail filter protocol of Sendmail, version 6, from the mail server's side. No RFC has it: it
//! is what `libmilter/mfapi.h` and `mfdef.h` of Sendmail 8.14 and the documents beside them say.
//!
//! [`Conversation`] is what a server uses: it asks one milter about one SMTP connection, over a
//! stream that blocks, and every wait in it has an end. All else is pure: [`packet`] frames,
//! [`command`] writes what we say, [`reply`] reads what a milter says, [`terms`] is what both agreed
//! on, [`macros`] names what a milter may want to know, [`edit`] changes a header as it is told.
//!
//! A milter is another program, often another host's: nothing it sends is believed before it is
//! checked, no length of its is allocated before as many octets have come, and it may change only
//! what it announced.

pub mod command;
mod conversation;
pub mod edit;
#[cfg(test)]
mod fake;
mod link;
pub mod macros;
pub mod packet;
pub mod reply;
pub mod terms;
#[cfg(test)]
mod transcripts;

pub use conversation::{Changes, Conversation, Trouble};
