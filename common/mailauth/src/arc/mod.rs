//! ARC (RFC 8617): what those who handled a message before us say they saw, and whether the chain of
//! their seals is whole.
//!
//! [`Verifier`] judges the chain; whom of the [`Sealer`]s to believe is for the caller's policy. There
//! are no temporary results (4.4, `cv`): where DNS does not answer, the chain fails, and
//! [`Chain::Fail`] says that it may pass later.

mod chain;
mod set;

pub use chain::{Chain, Sealer, Verifier};
pub use set::MAX_SETS;
