//! What can be proven of a message that a stranger brings: its signatures (DKIM, ARC), written into
//! an Authentication-Results field for those who read it (RFC 8601). Fields that claim to be such a
//! one of ours are taken out, since the readers believe them.
//!
//! It asks DNS and so takes its time: nobody who must not wait may call it.

use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base::Domain;
use dns::Resolve;
use mailauth::arc;
use mailauth::dkim::{Bodies, Header, Verifier};
use mailauth::results::{Finding, Results, is_ours};

/// Octets hashed at a time.
const PIECE: usize = 64 * 1024;

/// Who looks into messages.
#[derive(Clone)]
pub(crate) struct Prover {
    /// The name that our results bear.
    pub(crate) name: Domain,
    pub(crate) dns: Arc<dyn Resolve>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The field, with its line end.
    pub(crate) field: String,
    /// The header without forged fields.
    pub(crate) header: Vec<u8>,
}

impl Prover {
    /// Reads a message: its header with the empty line, and the rest. `client`: who brought it.
    pub(crate) fn prove(
        &self,
        header: &[u8],
        body: &mut dyn Read,
        client: Option<IpAddr>,
    ) -> io::Result<Proof> {
        let parsed = Header::new(header);
        let mut bodies = Bodies::default();
        let dkim = Verifier::new(&parsed, &mut bodies);
        let chain = arc::Verifier::new(&parsed, &mut bodies);
        let chained = !chain.sealers().is_empty();
        if !dkim.is_empty() || chained {
            let mut piece = vec![0; PIECE];
            loop {
                match body.read(&mut piece)? {
                    0 => break,
                    n => bodies.feed(piece.get(..n).unwrap_or_default()),
                }
            }
        }
        let hashes = bodies.finish();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        let name = self.name.to_string();
        let mut results = Results::new(&name, false);
        if dkim.is_empty() {
            results.add(&Finding::NoDkim);
        }
        for verdict in dkim.finish(&hashes, &*self.dns, now) {
            results.add(&Finding::Dkim(verdict));
        }
        if chained {
            let chain = chain.finish(&hashes, &*self.dns, now);
            results.add(&Finding::Arc { chain, client });
        }
        Ok(Proof {
            field: results.field(),
            header: without_forged(header, &name),
        })
    }
}

fn without_forged(header: &[u8], name: &str) -> Vec<u8> {
    let mut kept = Vec::with_capacity(header.len());
    let mut from = 0;
    for field in mime::header::fields(header) {
        if is_ours(field.name, field.raw, name) {
            kept.extend_from_slice(header.get(from..field.range.start).unwrap_or_default());
            from = field.range.end;
        }
    }
    kept.extend_from_slice(header.get(from..).unwrap_or_default());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_results_go_and_others_stay() {
        let header = b"Authentication-Results: mx.example.org; dkim=pass\r\n\
            Subject: x\r\n\
            authentication-results: (a) MX.example.org 1;\r\n\tspf=pass\r\n\
            Authentication-Results: other.example; spf=pass\r\n\r\n";
        let kept = without_forged(header, "mx.example.org");
        assert_eq!(
            String::from_utf8_lossy(&kept),
            "Subject: x\r\nAuthentication-Results: other.example; spf=pass\r\n\r\n"
        );
    }
}
