//! The queue: one file a message, from the moment it is accepted until every recipient is dealt
//! with. `docs/internals.md` has the table of file states; this crate is the only code that makes
//! them.
//!
//! What it guarantees:
//!
//! * after [`Queue::commit`] returned `Ok`, the message survives `kill -9` and power loss;
//! * an entry belongs to one process at a time, the one that holds its [`Entry`];
//! * no reader trusts a length it reads, and no file's content makes it panic;
//! * nothing is deleted that was accepted and is not finished: what cannot be read goes to
//!   `damaged/`, what cannot be placed goes to `hold/`.
//!
//! What it leaves to others: routing, retry times, bounces, the content of messages.
//!
//! | I want to | |
//! |---|---|
//! | accept a message | [`Queue::draft`], [`Draft::write`], [`Draft::finish`], [`Queue::commit`] |
//! | submit one as any user | [`drop::Letter`] |
//! | work on the queue | [`Watch`], [`Queue::scan`], [`Queue::claim`], [`Entry`] |
//! | make mail out of mail | [`Entry::child`], [`Entry::spawn`] |
//! | have a domain's mail tried now | [`Queue::request_flush`], [`Queue::flush_requests`] |
//! | look without touching | [`Queue::list`], [`Queue::view`] |

mod adopt;
mod claim;
mod commit;
mod content;
mod crash;
mod dir;
mod draft;
pub mod drop;
mod dropped;
mod entry;
mod event;
mod family;
mod fields;
mod file;
mod flush;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod id;
mod intake;
mod log;
mod logged;
mod logging;
mod operate;
mod origin;
mod queue;
mod records;
mod recover;
mod state;
mod view;
mod watch;
mod write;

pub use claim::Claim;
pub use commit::{Committed, Sealed};
pub use content::Content;
pub use draft::Draft;
pub use dropped::{Dropped, TakenIn, Verdict};
pub use entry::{Announcement, Entry, announce};
pub use event::{Attempt, Child, Event, Intent, Record, Report};
pub use family::Spawn;
pub use file::MAX_RECIPIENTS;
pub use flush::Flush;
pub use id::{BadId, QueueId};
pub use intake::Intake;
pub use logging::Logging;
pub use origin::{Client, Origin, Source};
pub use queue::{Lane, Listed, Place, Queue};
pub use recover::Recovered;
pub use state::{Outcome, RecipientState};
pub use view::View;
pub use watch::{Watch, Woken};
