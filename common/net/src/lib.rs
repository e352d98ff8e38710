//! What every daemon of yubin shares between its protocol and the kernel: sockets however they
//! come (inetd, systemd, our own bind), one mio loop for thousands of sessions, line framing,
//! timers, a small pool for work on disk, and TLS.
//!
//! A daemon implements [`Protocol`] and calls [`poll::run`]; no protocol is known here.

pub mod activate;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod line;
pub mod options;
pub mod poll;
pub mod pool;
pub mod protocol;
pub mod timer;
pub mod tls;

mod buffer;
mod caps;
mod connection;
mod proxy;
mod tls_client;

pub use activate::{Accepted, Encryption, Listen, Peer, Sockets};
pub use options::Opts;
pub use poll::Options;
pub use protocol::{Closed, Control, Handle, Protocol};
pub use tls::TlsInfo;
