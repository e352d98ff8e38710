//! Where mail goes: the rules that turn an address into (mailer, host, user), and the aliases.
//!
//! Today the rules are compiled from yubin.def. Everybody asks [`Router::route`] and nothing else,
//! so that the rule engine of sendmail.cf can stand behind the same function.

pub mod aliases;
pub mod route;

pub use route::{Mailer, NextHop, Route, Router, own_addresses};
