//! What can be proven of a message that a stranger brings: whether its sender's domain lets him send
//! (SPF), its signatures (DKIM, ARC), and whether its author's domain vouches for it (DMARC), written
//! into an Authentication-Results field for those who read it (RFC 8601). Fields that claim to be such
//! a one of ours are taken out, since the readers believe them.
//!
//! It asks DNS and so takes its time: nobody who must not wait may call it.

use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base::config::Dmarc;
use base::{Address, Domain, ReversePath};
use dns::Resolve;
use mailauth::arc::{self, Chain};
use mailauth::dkim::{Bodies, Header, Verifier};
use mailauth::dmarc::{self, Evidence};
use mailauth::iprev::Iprev;
use mailauth::results::{Finding, Results, is_ours};
use mailauth::spf::{self, Question};

use crate::disowned::{Handling, Ruling, disposition};

/// RFC 7208 4.6.4: at least 20 seconds.
const SPF_TIME: Duration = Duration::from_secs(20);
/// For all questions of DMARC.
const DMARC_TIME: Duration = Duration::from_secs(20);
/// Octets hashed at a time.
const PIECE: usize = 64 * 1024;

/// Who looks into messages.
#[derive(Clone)]
pub(crate) struct Prover {
    /// The name that our results bear.
    pub(crate) name: Domain,
    pub(crate) dns: Arc<dyn Resolve>,
    pub(crate) handling: Handling,
}

/// Who brought a message, and in whose name.
#[derive(Debug)]
pub(crate) struct Bringer<'a> {
    pub(crate) ip: Option<IpAddr>,
    /// What its host is called, where that was looked up.
    pub(crate) name: Option<&'a Iprev>,
    pub(crate) helo: &'a str,
    pub(crate) reverse_path: &'a ReversePath,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The field, with its line end.
    pub(crate) field: String,
    /// The header without forged fields.
    pub(crate) header: Vec<u8>,
    /// What is to be done with the message.
    pub(crate) ruling: Ruling,
}

impl Prover {
    /// Reads a message: its header with the empty line, and the rest.
    pub(crate) fn prove(
        &self,
        header: &[u8],
        body: &mut dyn Read,
        bringer: &Bringer<'_>,
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
        if let (Some(found), Some(ip)) = (bringer.name, bringer.ip) {
            let result = found.result();
            results.add(&Finding::Iprev { result, ip });
        }
        let spf = self.spf(bringer, now);
        if let Some(outcome) = &spf {
            results.add(&told(outcome, bringer));
        }
        if dkim.is_empty() {
            results.add(&Finding::NoDkim);
        }
        let dkim = dkim.finish(&hashes, &*self.dns, now);
        for verdict in &dkim {
            results.add(&Finding::Dkim(verdict.clone()));
        }
        let mut sealers = Vec::new();
        if chained {
            let verdict = chain.finish(&hashes, &*self.dns, now);
            if matches!(verdict, Chain::Pass { .. }) {
                sealers = chain.sealers();
            }
            let (chain, client) = (verdict, bringer.ip);
            results.add(&Finding::Arc { chain, client });
        }
        let (spf, dkim) = (spf.as_ref(), dkim.as_slice());
        let (finding, ruling) = self.dmarc(&parsed, Evidence { spf, dkim }, &sealers);
        if let Some(finding) = finding {
            results.add(&finding);
        }
        Ok(Proof {
            field: results.field(),
            header: without_forged(header, &name),
            ruling,
        })
    }
}

impl Prover {
    /// RFC 9989. `sealers`: of a chain that passes.
    fn dmarc(
        &self,
        header: &Header,
        evidence: Evidence<'_>,
        sealers: &[arc::Sealer],
    ) -> (Option<Finding>, Ruling) {
        if self.handling.dmarc == Dmarc::No {
            return (None, Ruling::Take);
        }
        let began = Instant::now();
        let late = || began.elapsed() > DMARC_TIME;
        let mut outcome = dmarc::judge(&*self.dns, header, evidence, &late);
        let author = outcome.from.as_ref();
        let trusted = &self.handling.arc_trust;
        let vouched = author.is_some_and(|author| arc::vouches(sealers, trusted, author).is_some());
        let ruling = self.handling.rule(&outcome, vouched);
        if vouched && outcome.result == mailauth::results::Dmarc::Fail {
            outcome.reason = Some("trusted ARC chain");
        }
        let done = disposition(&ruling);
        (Some(Finding::Dmarc { outcome, done }), ruling)
    }

    /// RFC 7208, of who has an address.
    fn spf(&self, bringer: &Bringer<'_>, now: u64) -> Option<spf::Outcome> {
        let began = Instant::now();
        Some(spf::check(
            &*self.dns,
            Question {
                ip: bringer.ip?,
                helo: bringer.helo,
                reverse_path: bringer.reverse_path,
                receiver: &self.name,
                now,
            },
            &|| began.elapsed() > SPF_TIME,
        ))
    }
}

fn told(outcome: &spf::Outcome, bringer: &Bringer<'_>) -> Finding {
    let sender = bringer.reverse_path.address().map(Address::to_string);
    let helo = sender.is_none().then(|| bringer.helo.to_owned());
    Finding::Spf {
        result: outcome.verdict.result(),
        reason: outcome.explanation.clone(),
        mail_from: sender,
        helo,
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
