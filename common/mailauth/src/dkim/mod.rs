//! DKIM: RFC 6376 with RFC 8301 (no SHA-1, no short keys) and RFC 8463 (Ed25519).
//!
//! One message, any number of verifiers and signers, one reading of its body:
//!
//! ```text
//! let header = Header::new(&bytes);
//! let mut bodies = Bodies::default();
//! let verifier = Verifier::new(&header, &mut bodies);   // and arc::Verifier, and Signer::want
//! bodies.feed(part_of_body);                            // as often as there is some
//! let hashes = bodies.finish();
//! let verdicts = verifier.finish(&hashes, dns, now);
//! ```
//!
//! What it guarantees: work and memory are bounded by the size of the header and constants
//! ([`MAX_SIGNATURES`], [`tags::MAX_LIST`]), the body is hashed at most twice whatever the signatures
//! say, and how the body is cut into parts changes nothing.

pub mod body;
pub mod canonical;
mod der;
pub mod header;
pub mod key;
mod pem;
pub mod sign;
pub mod signature;
pub mod tags;
pub mod verify;

pub use body::{Bodies, Hashes};
pub use canonical::Canonical;
pub use header::Header;
pub use key::{Key, KeyError};
pub use sign::{NotSigned, Signer};
pub use signature::{Algorithm, Identity, Signature};
pub use verify::{MAX_SIGNATURES, Outcome, Verdict, Verifier};
