//! The spool engine from outside: what is put in comes out, whatever others do to the files and
//! wherever a crash cuts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    reason = "a test that fails is to stop"
)]

mod crash;
mod folders;
mod foreign;
mod house;
mod many;
mod round_trip;
mod sessions;
mod worker;
