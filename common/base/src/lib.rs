//! What every other crate of yubin stands on: the words of the RFCs as types, one error type, the
//! configuration file, dates, logging, and the one module with `unsafe`.
//!
//! Nothing here knows a program, a protocol session or a queue; nothing here opens a socket.

pub mod address;
pub mod config;
pub mod date;
pub mod durable;
pub mod envelope;
pub mod escape;
pub mod fail;
pub mod filter;
pub mod international;
pub mod log;
pub mod packet;
pub mod privilege;
pub mod release;
pub mod root;
pub mod say;
pub mod status;
pub mod sys;

pub use address::{Address, Domain, LocalPart, ReversePath};
pub use config::Config;
pub use envelope::{Envelope, Recipient};
pub use fail::{Doing, Fail, Sysexit};
pub use filter::Filter;
pub use root::Root;
pub use say::say;
pub use status::Status;
