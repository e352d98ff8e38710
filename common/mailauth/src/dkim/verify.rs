//! Which signatures of a message hold: RFC 6376 6.
//!
//! At most [`MAX_SIGNATURES`] are looked at, from the top; each key is asked for once. What DNS did not
//! say is a [`Outcome::TempError`] and never a failure. A signature whose body hash differs is not worth
//! a question to DNS.

use std::borrow::Cow;
use std::collections::HashMap;

use base::Domain;
use dns::Resolve;

use crate::dkim::body::{Bodies, Hashes, NoHash};
use crate::dkim::header::{Header, without_b};
use crate::dkim::key::{Key, KeyError};
use crate::dkim::signature::{Algorithm, Bad, Identity, Signature, name_tag};
use crate::dkim::tags::{Tags, is_space};

/// Signatures of one message that are looked at.
pub const MAX_SIGNATURES: usize = 10;
/// How far a clock may be ahead of ours, in seconds.
const CLOCKS: u64 = 3600;

/// Why, in words for a log or a header field. Never a peer's own octets.
pub type Why = Cow<'static, str>;

/// The results of RFC 8601 2.7.1, without `none`, which is a message without a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    /// The message is not what was signed, or not any more: hash, signature, expiry.
    Fail(Why),
    /// The field cannot be read.
    Neutral(Why),
    /// It may pass later.
    TempError(Why),
    /// It will never pass: no key, or one of the rules of RFC 6376 6.1.1 is broken.
    PermError(Why),
    /// It might pass, and is not good enough for us: the size of the key, a date in the future.
    Policy(Why),
}

impl Outcome {
    pub fn is_pass(&self) -> bool {
        matches!(self, Self::Pass)
    }

    /// Why not, when it is no pass.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Pass => None,
            Self::Fail(why)
            | Self::Neutral(why)
            | Self::TempError(why)
            | Self::PermError(why)
            | Self::Policy(why) => Some(why),
        }
    }
}

/// One signature, judged. Names are there where they could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub outcome: Outcome,
    pub domain: Option<Domain>,
    pub selector: Option<Domain>,
    pub identity: Option<Identity>,
    pub algorithm: Option<Algorithm>,
    /// Of the key, where it was read.
    pub key_bits: Option<usize>,
    /// The key says `t=y`: the message is to be treated as if this signature were not there
    /// (RFC 6376 3.6.1). Known only where the key was read.
    pub testing: bool,
    /// Octets at the end of the body that nobody signed (`l=`).
    pub unsigned: u64,
    /// The first eight characters of `b=`, to tell signatures apart (RFC 6008).
    pub b: String,
}

/// The signatures of one message.
#[derive(Debug, Clone)]
pub struct Verifier {
    header: Header,
    signatures: Vec<Result<Signature, Bad>>,
}

impl Verifier {
    /// Reads the signatures and asks `bodies` for the hashes that they need.
    pub fn new(header: &Header, bodies: &mut Bodies) -> Self {
        let fields = header.named("dkim-signature").take(MAX_SIGNATURES);
        let signatures: Vec<_> = fields.map(|f| Signature::parse(f.value)).collect();
        for signature in signatures.iter().flatten() {
            bodies.want(signature.canonical.1, signature.length);
        }
        Self {
            header: header.clone(),
            signatures,
        }
    }

    /// Whether there is nothing to verify.
    pub fn is_empty(&self) -> bool {
        self.signatures.is_empty()
    }

    /// Signatures that are not looked at, because there are too many.
    pub fn left_out(&self) -> usize {
        let all = self.header.count("dkim-signature");
        all.saturating_sub(self.signatures.len())
    }

    /// Judges them, from the top. `now`: seconds of the Unix clock. Blocks for one look-up for each
    /// different key.
    pub fn finish(&self, hashes: &Hashes, dns: &dyn Resolve, now: u64) -> Vec<Verdict> {
        let mut keys = Keys::new(dns, MAX_SIGNATURES);
        let fields = self.header.named("dkim-signature");
        fields
            .zip(&self.signatures)
            .map(|(field, signature)| {
                let mut verdict = named(field.value);
                match signature {
                    Ok(signature) => {
                        let message = Message {
                            header: &self.header,
                            hashes,
                            now,
                        };
                        verdict.algorithm = Some(signature.algorithm);
                        verdict.identity.clone_from(&signature.identity);
                        message.check(signature, field.all, &mut keys, &mut verdict);
                    }
                    Err(Bad::Syntax(why)) => verdict.outcome = Outcome::Neutral((*why).into()),
                    Err(Bad::Refused(why)) => verdict.outcome = Outcome::PermError((*why).into()),
                }
                verdict
            })
            .collect()
    }
}

/// A verdict with the names that can be read in the value of a field, good or bad.
pub(crate) fn named(value: &[u8]) -> Verdict {
    let tags = Tags::parse(value).ok();
    let name = |tag| tags.as_ref().and_then(|tags| name_tag(tags, tag));
    let b = tags.as_ref().and_then(|tags| tags.value("b"));
    let octets = b.unwrap_or_default().iter().filter(|o| !is_space(**o));
    Verdict {
        outcome: Outcome::Neutral("not looked at".into()),
        domain: name("d"),
        selector: name("s"),
        identity: None,
        algorithm: None,
        key_bits: None,
        testing: false,
        unsigned: 0,
        b: octets.take(8).map(|o| char::from(*o)).collect(),
    }
}

/// What a signature is checked against.
pub(crate) struct Message<'m> {
    pub(crate) header: &'m Header,
    pub(crate) hashes: &'m Hashes,
    pub(crate) now: u64,
}

impl Message<'_> {
    /// RFC 6376 6.1.2 and 6.1.3. `field` is the signature's own, with its line end.
    pub(crate) fn check(
        &self,
        signature: &Signature,
        field: &[u8],
        keys: &mut Keys<'_>,
        verdict: &mut Verdict,
    ) {
        verdict.outcome = match self.judge(signature, field, keys, verdict) {
            Ok(()) => Outcome::Pass,
            Err(outcome) => outcome,
        };
    }

    fn judge(
        &self,
        signature: &Signature,
        field: &[u8],
        keys: &mut Keys<'_>,
        verdict: &mut Verdict,
    ) -> Result<(), Outcome> {
        times(signature.time, signature.expires, self.now)?;
        let hash = self.hashes.hash(signature.canonical.1, signature.length);
        let hash = hash.map_err(|none| match none {
            NoHash::Short => Outcome::Fail("body shorter than l=".into()),
            NoHash::NotWanted => Outcome::Neutral("body not read".into()),
        })?;
        if hash.sha256 != signature.body_hash {
            return Err(Outcome::Fail("body hash differs".into()));
        }
        verdict.unsigned = hash.beyond;
        let key = keys.usable(&signature.selector, &signature.domain, signature.algorithm)?;
        verdict.testing = key.testing;
        verdict.key_bits = Some(key.bits());
        // 3.6.1, t=s.
        let elsewhere = |identity: &Identity| identity.domain != signature.domain;
        if key.strict && signature.identity.as_ref().is_some_and(elsewhere) {
            return Err(Outcome::PermError(
                "key not for names below its domain".into(),
            ));
        }
        let mut data = Vec::new();
        let names = signature.names.iter().map(Vec::as_slice);
        self.header.choose(names, signature.canonical.0, &mut data);
        without_b(field, signature.canonical.0, &mut data);
        match key.verifies(&data, &signature.signature) {
            true => Ok(()),
            false => Err(Outcome::Fail("signature does not verify".into())),
        }
    }
}

/// `t=` and `x=`.
pub(crate) fn times(made: Option<u64>, expires: Option<u64>, now: u64) -> Result<(), Outcome> {
    if expires.is_some_and(|x| x < now) {
        return Err(Outcome::Fail("signature expired".into()));
    }
    if made.is_some_and(|t| t > now.saturating_add(CLOCKS)) {
        return Err(Outcome::Policy("signature made in the future".into()));
    }
    Ok(())
}

/// Keys that were asked for, each once, and so many at most.
pub(crate) struct Keys<'d> {
    dns: &'d dyn Resolve,
    found: HashMap<(Domain, Domain), Result<Key, KeyError>>,
    most: usize,
}

impl<'d> Keys<'d> {
    pub(crate) fn new(dns: &'d dyn Resolve, most: usize) -> Self {
        Self {
            dns,
            found: HashMap::new(),
            most,
        }
    }

    /// The key for an algorithm, or what the signature is without it.
    pub(crate) fn usable(
        &mut self,
        selector: &Domain,
        domain: &Domain,
        algorithm: Algorithm,
    ) -> Result<&Key, Outcome> {
        let name = (selector.clone(), domain.clone());
        if self.found.len() >= self.most && !self.found.contains_key(&name) {
            return Err(Outcome::Policy("too many keys".into()));
        }
        let dns = self.dns;
        let found = self.found.entry(name);
        match found.or_insert_with(|| Key::find(dns, selector, domain)) {
            Ok(key) if key.algorithm() == algorithm => Ok(key),
            Ok(_) => Err(Outcome::PermError("key of another algorithm".into())),
            Err(e @ KeyError::Temporary(_)) => Err(Outcome::TempError(e.to_string().into())),
            Err(e @ KeyError::Size(_)) => Err(Outcome::Policy(e.to_string().into())),
            Err(e) => Err(Outcome::PermError(e.to_string().into())),
        }
    }
}

// Tested in tests/, with signatures made by us and by others.
