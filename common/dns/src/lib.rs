//! Names and addresses of other hosts: one trait, two who answer.
//!
//! [`Dns`] asks the name servers of resolv.conf; the library below it is asynchronous and stays
//! behind a thread and a channel, so that no caller sees a trace of it. [`Zone`] reads a file, for
//! tests and private roots. [`open`] takes the one that the configuration names.
//!
//! [`listed`] is the name of a client in a list of them (RFC 5782).
//!
//! [`dane()`] gives the TLSA records that count for a server (RFC 7672 2.2). Who rests on an answer asks
//! for its proof: [`Resolve::proven_mx`] and its kin give it with DNSSEC's state.
//!
//! [`targets`] is RFC 5321 5.1: from a domain to the hosts to try, in order.
//!
//! What it guarantees: every look-up ends (there is a deadline and a bound on alias chains), and
//! "does not exist" is never said where the answer is only missing.

mod dane;
mod hickory;
mod mx;
mod proven;
mod resolve;
mod zone;

pub use dane::{Dane, dane};
pub use hickory::Dns;
pub use mx::{NoTarget, Target, Us, host_targets, targets};
pub use proven::{Place, Proven, ProvenError, State, Tlsa};
pub use resolve::{DnsError, Mx, MxAnswer, Resolve, listed};
pub use zone::Zone;

use std::sync::Arc;

use base::{Config, Fail, Root};

/// The resolver that the configuration asks for: DNS_ZONE_FILE, or the system's name servers.
pub fn open(root: &Root, config: &Config) -> Result<Arc<dyn Resolve>, Fail> {
    Ok(match &config.dns_zone_file {
        Some(path) => Arc::new(Zone::load(path)?),
        None => Arc::new(Dns::new(root, config)?),
    })
}
