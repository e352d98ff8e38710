//! Whether a chain of seals is whole: RFC 8617 5.2.

use base::Domain;
use dns::Resolve;

use crate::arc::set::{Set, sets};
use crate::dkim::canonical::Canonical;
use crate::dkim::header::without_b;
use crate::dkim::verify::{Keys, Message, Outcome, Why, named, times};
use crate::dkim::{Bodies, Hashes, Header};

/// Different keys that are asked for. Chains of fifty sealers with two keys each are made to keep us
/// busy.
const MAX_KEYS: usize = 30;

/// The result of RFC 8617 4.4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chain {
    /// No ARC fields.
    None,
    /// `oldest_pass`: the first instance from which on the message is as it was signed; 0 when that is
    /// so for all of them (5.2 step 5).
    Pass { oldest_pass: u8 },
    /// `temporary`: DNS did not answer, it may pass later.
    Fail { why: Why, temporary: bool },
}

/// One of those who sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealer {
    /// From 1.
    pub instance: u8,
    /// `d=` of the seal.
    pub domain: Domain,
    pub selector: Domain,
    /// What it saw: ARC-Authentication-Results behind `i=N;`, as it stands there.
    pub results: Vec<u8>,
}

/// The ARC fields of one message.
#[derive(Debug, Clone)]
pub struct Verifier {
    header: Header,
    sets: Result<Vec<Set>, &'static str>,
}

impl Verifier {
    /// Reads the sets and asks `bodies` for the hashes that they need.
    pub fn new(header: &Header, bodies: &mut Bodies) -> Self {
        let sets = sets(header);
        for set in sets.iter().flatten() {
            bodies.want(set.message.canonical.1, set.message.length);
        }
        Self {
            header: header.clone(),
            sets,
        }
    }

    /// Who sealed, the first one first. To be believed only where the chain passes.
    pub fn sealers(&self) -> Vec<Sealer> {
        let sets = self.sets.iter().flatten();
        (1..)
            .zip(sets)
            .map(|(instance, set)| Sealer {
                instance,
                domain: set.seal.domain.clone(),
                selector: set.seal.selector.clone(),
                results: set.results.clone(),
            })
            .collect()
    }

    /// Judges the chain. `now`: seconds of the Unix clock. Blocks for one look-up for each different
    /// key, of which there is a bounded number.
    pub fn finish(&self, hashes: &Hashes, dns: &dyn Resolve, now: u64) -> Chain {
        let sets = match &self.sets {
            Ok(sets) if sets.is_empty() => return Chain::None,
            Ok(sets) => sets,
            Err(why) => {
                return Chain::Fail {
                    why: (*why).into(),
                    temporary: false,
                };
            }
        };
        let mut keys = Keys::new(dns, MAX_KEYS);
        let message = Message {
            header: &self.header,
            hashes,
            now,
        };
        match judge(&message, sets, &mut keys) {
            Ok(oldest_pass) => Chain::Pass { oldest_pass },
            Err(outcome) => Chain::Fail {
                temporary: matches!(outcome, Outcome::TempError(_)),
                why: outcome.why().unwrap_or_default().to_owned().into(),
            },
        }
    }
}

/// Steps 4 to 6.
fn judge(message: &Message<'_>, sets: &[Set], keys: &mut Keys<'_>) -> Result<u8, Outcome> {
    let Some((newest, older)) = sets.split_last() else {
        return Err(Outcome::Neutral("no set".into()));
    };
    signed(message, newest, keys)?;
    for (n, set) in sets.iter().enumerate().rev() {
        let before = sets.get(..n).unwrap_or_default();
        sealed(before, set, keys, message.now)?;
    }
    // The others need not hold: who changes a message breaks the signatures before.
    for (n, set) in older.iter().enumerate().rev() {
        if signed(message, set, keys).is_err() {
            // `n` counts from 0, and the next one is the first that holds.
            return Ok(u8::try_from(n.saturating_add(2)).unwrap_or(u8::MAX));
        }
    }
    Ok(0)
}

/// The ARC-Message-Signature of a set: a DKIM signature in all but name.
fn signed(message: &Message<'_>, set: &Set, keys: &mut Keys<'_>) -> Result<(), Outcome> {
    let [_, field, _] = &set.fields;
    let mut verdict = named(b"");
    message.check(&set.message, field, keys, &mut verdict);
    match verdict.outcome {
        Outcome::Pass => Ok(()),
        outcome => Err(outcome),
    }
}

/// The ARC-Seal of a set, over all sets before and its own (5.1.1), always relaxed.
fn sealed(before: &[Set], set: &Set, keys: &mut Keys<'_>, now: u64) -> Result<(), Outcome> {
    times(set.seal.time, set.seal.expires, now)?;
    let seal = &set.seal;
    let key = keys.usable(&seal.selector, &seal.domain, seal.algorithm)?;
    let mut data = Vec::new();
    for field in before.iter().flat_map(|set| &set.fields) {
        Canonical::Relaxed.field(field, &mut data);
    }
    let [results, message, own] = &set.fields;
    Canonical::Relaxed.field(results, &mut data);
    Canonical::Relaxed.field(message, &mut data);
    without_b(own, Canonical::Relaxed, &mut data);
    match key.verifies(&data, &seal.signature) {
        true => Ok(()),
        false => Err(Outcome::Fail("a seal does not verify".into())),
    }
}

// Tested in tests/arc.rs, with chains that are sealed there and by others.
