//! Who answers for a message: what a receiver may believe of its header, and how we sign our own.
//!
//! Nothing here has a clock, a socket or a file; DNS is asked through [`dns::Resolve`].

pub mod arc;
pub mod dkim;
pub mod dmarc;
pub mod iprev;
pub mod results;
pub mod spf;
