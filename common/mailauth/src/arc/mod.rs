//! ARC (RFC 8617): what those who handled a message before us say they saw, and whether the chain of
//! their seals is whole.
//!
//! [`Verifier`] judges the chain; [`vouches`] says whether a [`Sealer`] whom the operator trusts has
//! seen the message pass. There
//! are no temporary results (4.4, `cv`): where DNS does not answer, the chain fails, and
//! [`Chain::Fail`] says that it may pass later.

mod chain;
mod set;
mod trust;

pub use chain::{Chain, Sealer, Verifier};
pub use set::MAX_SETS;
pub use trust::vouches;
