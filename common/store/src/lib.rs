//! The spool engine: mbox and Maildir behind requests and answers (DESIGN 5).
//!
//! The truth is in the mail: flags, UIDs and UIDVALIDITY stand in the mbox's header fields and in
//! the Maildir's file names, where other programs see and keep them. What is beside the mail is
//! either a cache (`idx/`, deletable at any time) or a promise that is not yet kept (`jnl/`).
//!
//! * [`Session`] is one client's view of one user's mail: [`Session::handle`] takes a [`Request`]
//!   and gives an [`Answer`]. It blocks on the disk, is `Send`, and does not panic on what a file
//!   holds. [`worker`] does the same over a socket.
//! * [`append`] is how mail gets in: exactly once across kill -9, for deliver.
//! * [`watch`] tells when a mailbox may have changed, for IDLE.
//!
//! What a message means (RFC 5322, MIME) is not known here, but for the header fields in which an
//! mbox keeps its state.

pub mod append;
mod base_file;
mod beneath;
mod body;
pub mod flags;
pub mod folder;
mod lines;
pub mod lock;
mod mailbox;
mod maildir;
mod mbox;
pub mod pattern;
pub mod request;
pub mod session;
pub mod set;
pub mod spool;
mod trouble;
mod view;
pub mod watch;
pub mod wire;
pub mod worker;

pub use append::{Intent, New, Pending, Redo};
pub use flags::{Flags, Keyword};
pub use folder::FolderName;
pub use pattern::Pattern;
pub use request::{
    Answer, Change, Content, Expunge, Failed, Folder, Message, Messages, Part, Request, Selected,
    Status, Updates, Whole, Why,
};
pub use session::Session;
pub use set::{Ranges, Set};
pub use spool::Spool;
pub use watch::Watcher;
