//! The spool engine from outside: what is put in comes out, whatever others do to the files and
//! wherever a crash cuts.

mod crash;
mod folders;
mod foreign;
mod house;
mod many;
mod round_trip;
mod sessions;
mod worker;
