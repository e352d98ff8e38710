//! How mail is protected on its way to another host.

pub mod sts;
