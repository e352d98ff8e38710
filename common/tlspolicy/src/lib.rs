//! How mail is protected on its way to another host, and who is told of it.
//!
//! [`Decider::policy_for`] says what each host of a destination must show: by the operator's
//! [`table`], by DANE (RFC 7672), by MTA-STS (RFC 8461), in this order; else TLS is taken where it is
//! offered. `net::tls` checks the proof; the only servers that are asked here are those that have the
//! policies of MTA-STS. [`report`] keeps what the domains are told of it (RFC 8460).

mod decide;
pub mod report;
mod security;
pub mod sts;
pub mod table;

pub use decide::{Asked, Decider, Next, STS_DIRECTORY, Wish};
pub use security::{Failure, Published, Refused, Security, Tls, Why};
