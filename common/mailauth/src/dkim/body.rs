//! The hashes of one body that all its signatures ask for, found in one reading.
//!
//! There is one SHA-256 for each of the two canonical forms, whatever number of signatures wants it:
//! a length (`l=`) is a look at the running hash when it comes by. So the work is bounded by the size
//! of the body, twice, however many lengths a stranger writes into a header.

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256};

use crate::dkim::canonical::{Body, Canonical};

/// What is to be found, and how far it is.
#[derive(Debug, Clone, Default)]
pub struct Bodies {
    simple: Option<Running>,
    relaxed: Option<Running>,
}

/// All of [`Bodies`], found.
#[derive(Debug, Clone, Default)]
pub struct Hashes {
    simple: Found,
    relaxed: Found,
}

/// One hash of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHash {
    pub sha256: [u8; 32],
    /// Octets of the canonical body that it does not cover.
    pub beyond: u64,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHash {
    /// The canonical body has fewer octets than `l=` says.
    Short,
    /// Nobody asked for it before the body came.
    NotWanted,
}

impl Bodies {
    /// Asks for a hash: of the whole body, or of its first `length` octets in canonical form. To be
    /// called before [`Bodies::feed`]; what came before is not in the hash otherwise.
    pub fn want(&mut self, canonical: Canonical, length: Option<u64>) {
        let running = match canonical {
            Canonical::Simple => &mut self.simple,
            Canonical::Relaxed => &mut self.relaxed,
        };
        let running = running.get_or_insert_with(|| Running::new(canonical));
        if let Some(length) = length {
            running.counter.lengths.insert(length, None);
        }
    }

    /// The next octets of the body.
    pub fn feed(&mut self, octets: &[u8]) {
        for running in [&mut self.simple, &mut self.relaxed].into_iter().flatten() {
            let counter = &mut running.counter;
            running
                .body
                .feed(octets, &mut |octets| counter.update(octets));
        }
    }

    /// The end of the body.
    pub fn finish(self) -> Hashes {
        Hashes {
            simple: self.simple.map(Running::finish).unwrap_or_default(),
            relaxed: self.relaxed.map(Running::finish).unwrap_or_default(),
        }
    }
}

impl Hashes {
    /// One that was asked for.
    pub fn hash(&self, canonical: Canonical, length: Option<u64>) -> Result<BodyHash, NoHash> {
        let found = match canonical {
            Canonical::Simple => &self.simple,
            Canonical::Relaxed => &self.relaxed,
        };
        let (whole, octets) = found.whole.ok_or(NoHash::NotWanted)?;
        let Some(length) = length else {
            return Ok(BodyHash {
                sha256: whole,
                beyond: 0,
            });
        };
        match found.lengths.get(&length) {
            Some(Some(sha256)) => Ok(BodyHash {
                sha256: *sha256,
                beyond: octets.saturating_sub(length),
            }),
            Some(None) => Err(NoHash::Short),
            None => Err(NoHash::NotWanted),
        }
    }
}

#[derive(Debug, Clone)]
struct Running {
    body: Body,
    counter: Counter,
}

/// Hashes and counts canonical octets.
#[derive(Clone)]
struct Counter {
    hash: Context,
    octets: u64,
    lengths: BTreeMap<u64, Option<[u8; 32]>>,
}

impl std::fmt::Debug for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Counter({} octets)", self.octets)
    }
}

#[derive(Debug, Clone, Default)]
struct Found {
    whole: Option<([u8; 32], u64)>,
    lengths: BTreeMap<u64, Option<[u8; 32]>>,
}

impl Running {
    fn new(canonical: Canonical) -> Self {
        Self {
            body: Body::new(canonical),
            counter: Counter {
                hash: Context::new(&SHA256),
                octets: 0,
                lengths: BTreeMap::new(),
            },
        }
    }

    fn finish(self) -> Found {
        let mut counter = self.counter;
        self.body.finish(&mut |octets| counter.update(octets));
        counter.update(b"");
        Found {
            whole: Some((sha256(counter.hash), counter.octets)),
            lengths: counter.lengths,
        }
    }
}

impl Counter {
    fn update(&mut self, octets: &[u8]) {
        let mut rest = octets;
        let end = self.octets.saturating_add(rest.len() as u64);
        // All lengths that this part reaches; the ones before it are found already.
        for (length, found) in self.lengths.range_mut(self.octets..=end) {
            if found.is_some() {
                continue;
            }
            let take = usize::try_from(length - self.octets).unwrap_or(rest.len());
            let (now, later) = rest.split_at_checked(take).unwrap_or((rest, b""));
            self.hash.update(now);
            self.octets += now.len() as u64;
            rest = later;
            *found = Some(sha256(self.hash.clone()));
        }
        self.hash.update(rest);
        self.octets = end;
    }
}

fn sha256(hash: Context) -> [u8; 32] {
    let mut octets = [0; 32];
    for (to, from) in octets.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    octets
}

#[cfg(test)]
mod tests {
    use ring::digest::digest;

    use super::*;

    fn of(octets: &[u8]) -> [u8; 32] {
        digest(&SHA256, octets).as_ref().try_into().unwrap()
    }

    #[test]
    fn lengths_are_looks_at_one_hash() {
        let text = b"one  two \r\nthree\r\n\r\n";
        let relaxed = b"one two\r\nthree\r\n";
        let simple = b"one  two \r\nthree\r\n";
        for part in [1, 2, 7, 100] {
            let mut bodies = Bodies::default();
            bodies.want(Canonical::Relaxed, None);
            for length in [0, 3, 4, 16, 17, u64::MAX] {
                bodies.want(Canonical::Relaxed, Some(length));
            }
            bodies.want(Canonical::Simple, Some(18));
            text.chunks(part).for_each(|octets| bodies.feed(octets));
            let hashes = bodies.finish();
            let relaxed_hash = |length| hashes.hash(Canonical::Relaxed, length);
            let some = |octets: &[u8], beyond| {
                Ok(BodyHash {
                    sha256: of(octets),
                    beyond,
                })
            };
            assert_eq!(relaxed_hash(None), some(relaxed, 0));
            assert_eq!(relaxed_hash(Some(0)), some(b"", 16));
            assert_eq!(relaxed_hash(Some(3)), some(b"one", 13));
            assert_eq!(relaxed_hash(Some(4)), some(b"one ", 12));
            assert_eq!(relaxed_hash(Some(16)), some(relaxed, 0));
            assert_eq!(relaxed_hash(Some(17)), Err(NoHash::Short));
            assert_eq!(relaxed_hash(Some(u64::MAX)), Err(NoHash::Short));
            assert_eq!(relaxed_hash(Some(5)), Err(NoHash::NotWanted));
            assert_eq!(hashes.hash(Canonical::Simple, Some(18)), some(simple, 0));
        }
    }

    /// RFC 6376 3.4.3 and 3.4.4 give the hashes of an empty body.
    #[test]
    fn the_hash_of_nothing() {
        let mut bodies = Bodies::default();
        bodies.want(Canonical::Simple, None);
        bodies.want(Canonical::Relaxed, None);
        let hashes = bodies.finish();
        let base64 = |canonical| {
            let hash = hashes.hash(canonical, None).unwrap();
            hash.sha256
        };
        let known = |text: &str| crate::dkim::tags::base64(text.as_bytes()).unwrap();
        let simple = known("frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=");
        let relaxed = known("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert_eq!(base64(Canonical::Simple).as_slice(), simple);
        assert_eq!(base64(Canonical::Relaxed).as_slice(), relaxed);
    }
}
