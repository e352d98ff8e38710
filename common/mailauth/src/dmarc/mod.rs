//! DMARC (RFC 9989, which replaces RFC 7489): whether the domain that a message says it is from
//! vouches for it, and what that domain wants done where it does not.
//!
//! [`judge`] puts what SPF and DKIM found beside the domains of From. What it guarantees: it ends,
//! after a bounded number of questions to DNS; "fail" is never said where an answer is missing that
//! could make it a pass. What to do about it is for the caller: a policy is a wish.

mod author;
mod record;
mod walk;

use base::Domain;
use dns::Resolve;

use crate::dkim::{self, Header};
use crate::results::Dmarc;
use crate::spf;
use author::{Bad, authors};
pub use record::Policy;
use record::Record;
use walk::{Trouble, Walker};

/// What was found before, in whose name.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    pub spf: Option<&'a spf::Outcome>,
    pub dkim: &'a [dkim::Verdict],
}

/// What came out. Where From names several domains: of the one that wants the worst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub result: Dmarc,
    /// Why there is no plain result.
    pub reason: Option<&'static str>,
    /// The domain in From.
    pub from: Option<Domain>,
    /// What its owner publishes for it.
    pub policy: Option<Policy>,
    /// What its owner wants done with this message; of a temporary error, what he would want if it
    /// were a fail.
    pub wish: Policy,
}

impl Outcome {
    fn without(result: Dmarc, reason: Option<&'static str>, wish: Policy) -> Self {
        Self {
            result,
            reason,
            from: None,
            policy: None,
            wish,
        }
    }

    /// Of several, the one with the highest counts.
    fn weight(&self) -> (Policy, u8) {
        let kind = match self.result {
            Dmarc::None => 0,
            Dmarc::Pass => 1,
            Dmarc::PermError => 2,
            Dmarc::TempError => 3,
            Dmarc::Fail => 4,
        };
        (self.wish, kind)
    }
}

/// Judges a message by its header. `late` says when to give up. Blocks for each question to DNS.
pub fn judge(
    dns: &dyn Resolve,
    header: &Header,
    evidence: Evidence<'_>,
    late: &dyn Fn() -> bool,
) -> Outcome {
    let authors = match authors(header) {
        Ok(authors) => authors,
        Err(Bad::Nobody) => {
            let reason = Some("no domain in From");
            return Outcome::without(Dmarc::PermError, reason, Policy::None);
        }
        // RFC 9989 11.5: nobody who is honest writes so many.
        Err(Bad::Crowd) => {
            let reason = Some("too many domains in From");
            return Outcome::without(Dmarc::PermError, reason, Policy::Reject);
        }
    };
    let mut judge = Judge {
        walker: Walker::new(dns, late),
        identifiers: identifiers(evidence),
    };
    let several = authors.len() > 1;
    let outcomes = authors.iter().map(|author| {
        let mut outcome = judge.author(author);
        // Who names several domains may do so to keep us from judging one of them.
        let open = matches!(outcome.result, Dmarc::TempError | Dmarc::PermError);
        if several && open {
            outcome.wish = Policy::Reject;
        }
        outcome
    });
    outcomes
        .max_by_key(Outcome::weight)
        .unwrap_or_else(|| Outcome::without(Dmarc::None, None, Policy::None))
}

/// A domain that somebody proved to speak for, or might have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identifier {
    domain: Domain,
    method: Method,
    /// Else: it was not to be found out now.
    proven: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Spf,
    Dkim,
}

/// RFC 9989 4.4.1 and 4.4.2. A signature that leaves the end of the body open says nothing of what
/// stands there.
fn identifiers(evidence: Evidence<'_>) -> Vec<Identifier> {
    let of_spf = evidence.spf.and_then(|outcome| {
        let proven = match outcome.verdict {
            spf::Verdict::Pass => true,
            spf::Verdict::TempError => false,
            _ => return None,
        };
        Some(Identifier {
            domain: outcome.domain.clone()?,
            method: Method::Spf,
            proven,
        })
    });
    let of_dkim = evidence.dkim.iter().filter_map(|verdict| {
        let proven = match verdict.outcome {
            dkim::Outcome::Pass if verdict.unsigned == 0 => true,
            dkim::Outcome::TempError(_) => false,
            _ => return None,
        };
        Some(Identifier {
            domain: verdict.domain.clone()?,
            method: Method::Dkim,
            proven,
        })
    });
    let mut all: Vec<Identifier> = Vec::new();
    for identifier in of_spf.into_iter().chain(of_dkim) {
        if !all.contains(&identifier) {
            all.push(identifier);
        }
    }
    all
}

struct Judge<'a> {
    walker: Walker<'a>,
    identifiers: Vec<Identifier>,
}

/// Whether one of the identifiers speaks for the author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alignment {
    Yes,
    No,
    /// One might, once DNS answers.
    Perhaps,
}

impl Judge<'_> {
    fn author(&mut self, author: &Domain) -> Outcome {
        let mut outcome = Outcome::without(Dmarc::None, None, Policy::None);
        outcome.from = Some(author.clone());
        if let Err(trouble) = self.fill(author, &mut outcome) {
            let (result, reason) = match trouble {
                Trouble::Temporary => (Dmarc::TempError, "DNS does not answer"),
                Trouble::TooMany => (Dmarc::PermError, "too many look-ups"),
            };
            outcome.result = result;
            outcome.reason = Some(reason);
        }
        outcome
    }

    fn fill(&mut self, author: &Domain, outcome: &mut Outcome) -> Result<(), Trouble> {
        let Some((record, policy)) = self.policy(author)? else {
            return Ok(());
        };
        outcome.policy = Some(policy);
        let wish = match record.testing {
            true => policy.milder(),
            false => policy,
        };
        // Also where what follows cannot be found out.
        outcome.wish = wish;
        (outcome.result, outcome.wish) = match self.alignment(author, &record)? {
            Alignment::Yes => (Dmarc::Pass, Policy::None),
            Alignment::No => (Dmarc::Fail, wish),
            Alignment::Perhaps => {
                outcome.reason = Some("DNS does not answer");
                (Dmarc::TempError, wish)
            }
        };
        Ok(())
    }

    /// The record that applies and what it wants: RFC 9989 4.10.1.
    fn policy(&mut self, author: &Domain) -> Result<Option<(Record, Policy)>, Trouble> {
        if let Some(record) = self.walker.record(author)? {
            return Ok(record.own().map(|policy| (record, policy)));
        }
        let path = self.walker.walk(author)?;
        let Some(record) = path.policy().cloned() else {
            return Ok(None);
        };
        let exists = !record.tells_missing() || self.walker.exists(author)?;
        Ok(record.below(exists).map(|policy| (record, policy)))
    }

    /// RFC 9989 4.10.2. Domains that are equal need no walk.
    fn alignment(&mut self, author: &Domain, record: &Record) -> Result<Alignment, Trouble> {
        let equal = |identifier: &&Identifier| identifier.domain == *author;
        if self.identifiers.iter().filter(equal).any(|one| one.proven) {
            return Ok(Alignment::Yes);
        }
        let mut perhaps = self.identifiers.iter().any(|one| equal(&one));
        let relaxed = |one: &&Identifier| match one.method {
            Method::Spf => !record.strict_spf,
            Method::Dkim => !record.strict_dkim,
        };
        let others: Vec<_> = self.identifiers.iter().filter(relaxed).cloned().collect();
        if !others.is_empty() {
            let organization = self.walker.walk(author)?.organization();
            // Only what is below it can belong to it.
            let near = |one: &Identifier| one.domain.is_within(&organization);
            for one in others.into_iter().filter(near) {
                match self.walker.walk(&one.domain) {
                    Ok(path) if path.organization() != organization => {}
                    Ok(_) if one.proven => return Ok(Alignment::Yes),
                    Ok(_) | Err(Trouble::Temporary) => perhaps = true,
                    Err(Trouble::TooMany) => {}
                }
            }
        }
        match perhaps {
            true => Ok(Alignment::Perhaps),
            false => Ok(Alignment::No),
        }
    }
}

#[cfg(test)]
mod tests;
