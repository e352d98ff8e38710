//! Who the users are, and how one of them proves it.
//!
//! [`Users`] answers who exists. Secrets are seen by one program alone, `checkpw`: a daemon starts
//! it before it gives up root ([`Checkpw::start`]), hands it what the client said, and gets back
//! "go on", "no", or a [`Grant`]. With the grant comes the way to the user's mail, so that a front
//! never names a user whose mail it wants.
//!
//! [`relay`] is the other side: how we log in at a host that takes our mail.

mod cert_users;
mod channel;
mod client;
mod message;
mod passwd;
pub mod password;
mod program;
pub mod relay;
mod salt;
pub mod sasl;
pub mod secret;
pub mod server;
mod token;
mod user;
mod users;
pub mod verifier;
pub mod worker;

pub use channel::Channel;
pub use client::Checkpw;
pub use message::{Answer, Grant, Request, Service, StoreAccess};
pub use sasl::Mechanism;
pub use user::{User, UserName};
pub use users::Users;
