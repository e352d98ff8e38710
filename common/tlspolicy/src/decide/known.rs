//! What is found out for one destination, when it is first needed, and what follows from it.

use std::cell::OnceCell;
use std::sync::Arc;

use base::Domain;
use base::config::LoginNeeds;
use dns::{ProvenError, Target};
use net::tls::{Name, Proof, Tlsa};

use super::{Asked, Decider, Exchangers, Next, name_of};
use crate::security::{Failure, Published, Refused, Security, Tls, Why};
use crate::sts::{self, Mode, Sts};

/// What is found out for one destination, when it is first needed.
pub(super) struct Known<'a> {
    decider: &'a Decider,
    asked: &'a Asked<'a>,
    exchangers: OnceCell<Result<Exchangers, ProvenError>>,
    policy: OnceCell<Sts>,
}

impl<'a> Known<'a> {
    pub(super) fn new(decider: &'a Decider, asked: &'a Asked<'a>) -> Self {
        Self {
            decider,
            asked,
            exchangers: OnceCell::new(),
            policy: OnceCell::new(),
        }
    }

    fn exchangers(&self) -> Result<Exchangers, ProvenError> {
        let ask = || match self.asked.next {
            _ if !self.decider.proves => Ok(Exchangers::Unproven),
            Next::Host(_) => Ok(Exchangers::Itself),
            Next::Mx(domain) if domain.ip().is_some() => Ok(Exchangers::Itself),
            Next::Mx(domain) => self.decider.exchangers(domain),
        };
        self.exchangers.get_or_init(ask).clone()
    }

    fn policy(&self) -> &Sts {
        self.policy
            .get_or_init(|| match (&self.decider.sts, self.asked.next) {
                (Some(sts), Next::Mx(domain)) => sts.of(domain),
                // RFC 8461 is about a domain's exchangers; a host has none.
                _ => Sts::None,
            })
    }

    /// Whether nobody but the domain, or the operator, can have named this host; an error where that
    /// cannot be known, or where the domain has others.
    fn is_proven(&self, host: &Domain) -> Result<bool, Refused> {
        let domain = self.asked.next.domain();
        match self.exchangers() {
            Ok(Exchangers::Unproven) => Ok(false),
            // Without exchangers the domain is its own host, and a certificate says which it is.
            Ok(Exchangers::Itself) if host == domain => Ok(true),
            Ok(Exchangers::Proven(all)) if all.contains(host) => Ok(true),
            Ok(Exchangers::Itself | Exchangers::Proven(_)) => Err(Refused::later(
                Failure::DnssecInvalid,
                format!("{host} is no mail exchanger that {domain} has signed"),
                Published::Nothing,
            )),
            Err(e) => Err(unknown(domain, &e)),
        }
    }

    /// RFC 7672 2.2: what DANE wants; `None` where it does not apply.
    pub(super) fn dane(&self, target: &Target) -> Result<Option<Security>, Refused> {
        if !self.decider.proves || !self.is_proven(&target.host)? {
            return Ok(None);
        }
        let records = self.decider.records(&target.host, self.asked.port);
        let Some(dane) = records.map_err(|e| unknown(&target.host, &e))? else {
            return Ok(None);
        };
        let prefix = format!("_{}._tcp.{} IN TLSA", self.asked.port, dane.base);
        let published = dane
            .records
            .iter()
            .map(|record| format!("{prefix} {record}"));
        let published = Published::Tlsa(published.collect());
        let records: Vec<Tlsa> = dane.records.into_iter().map(tlsa).collect();
        // RFC 7672 3.2.2: the base domain, the host as it was named, the destination.
        let mut names = vec![dane.base.as_str().to_owned()];
        for name in [&target.host, self.asked.next.domain()] {
            if name.ip().is_none() && !names.iter().any(|known| known == name.as_str()) {
                names.push(name.as_str().to_owned());
            }
        }
        let is_usable = records.iter().any(Tlsa::is_usable);
        Ok(Some(Security {
            tls: Tls::Must,
            // RFC 7672 2.2: with none that is usable, TLS must be, and that is all.
            proof: match is_usable {
                true => Proof::Dane { records, names },
                false => Proof::Any,
            },
            strict: is_usable,
            name: dane.base.as_str().to_owned(),
            why: Why::Dane,
            published,
        }))
    }

    /// RFC 8461 4: what the domain's policy wants, or nothing in particular.
    pub(super) fn sts(&self, target: &Target) -> Result<Security, Refused> {
        let (host, name) = (&target.host, name_of(&target.host));
        let policy = match self.policy() {
            Sts::None => return Ok(Security::opportunistic(name, Published::Nothing)),
            Sts::Unknown(why) => {
                let published = Published::UnknownSts(why.clone());
                return Ok(Security::opportunistic(name, published));
            }
            Sts::Policy(policy) => policy,
        };
        let published = Published::Sts(Arc::clone(policy));
        let strict = match policy.mode {
            Mode::None => return Ok(Security::opportunistic(name, Published::Nothing)),
            Mode::Testing => false,
            Mode::Enforce => true,
        };
        if strict && !policy.names(host) {
            let domain = self.asked.next.domain();
            let text = format!("{host} is not in the MTA-STS policy of {domain}");
            return Err(Refused::later(Failure::Validation, text, published));
        }
        Ok(Security {
            tls: match strict {
                true => Tls::Must,
                false => Tls::May,
            },
            // In testing a host that is not named can have no certificate that would do.
            proof: Proof::Pkix {
                names: match policy.names(host) {
                    true => vec![Name::Is(name.clone())],
                    false => Vec::new(),
                },
            },
            strict,
            name,
            why: Why::Sts,
            published,
        })
    }

    /// A secret goes to who is proven, unless the operator says otherwise.
    pub(super) fn for_secret(
        &self,
        target: &Target,
        security: Security,
    ) -> Result<Security, Refused> {
        let is_clear = security.tls == Tls::Never;
        match self.decider.login_needs {
            LoginNeeds::Nothing => Ok(security),
            _ if is_clear => {
                let host = &target.host;
                let text = format!(
                    "TLS_POLICY has {host} reached without TLS, and it is to get a password; RELAY_LOGIN_NEEDS=nothing allows that"
                );
                Err(Refused::later(
                    Failure::Validation,
                    text,
                    Published::Nothing,
                ))
            }
            LoginNeeds::Proof if !security.strict => {
                // A name that anybody may have put into DNS is not whom the operator means.
                let next = self.asked.next.domain();
                let names = match self.is_operators(&target.host)? {
                    true => vec![Name::Is(name_of(&target.host))],
                    false => vec![Name::Is(name_of(next)), Name::Below(name_of(next))],
                };
                Ok(Security {
                    tls: Tls::Must,
                    proof: Proof::Pkix { names },
                    strict: true,
                    name: name_of(&target.host),
                    why: Why::Login,
                    published: security.published,
                })
            }
            LoginNeeds::Proof | LoginNeeds::Tls => Ok(Security {
                tls: Tls::Must,
                ..security
            }),
        }
    }

    /// Whether the operator named this host, or a domain whose word can be proven.
    fn is_operators(&self, host: &Domain) -> Result<bool, Refused> {
        let is_in = |policy: &sts::Policy| policy.mode != Mode::None && policy.names(host);
        match (self.asked.next, self.policy()) {
            (Next::Host(_), _) => Ok(true),
            (_, Sts::Policy(policy)) if is_in(policy) => Ok(true),
            _ => self.is_proven(host),
        }
    }

    /// RFC 8689 4.2.1: a host that the domain has named, as DNSSEC or MTA-STS proves, and that proves
    /// itself.
    pub(super) fn required(
        &self,
        target: &Target,
        security: Security,
    ) -> Result<Security, Refused> {
        let host = &target.host;
        let domain = self.asked.next.domain();
        let is_strict = security.strict && security.tls == Tls::Must;
        if is_strict && security.why != Why::Table {
            return Ok(security);
        }
        if security.tls == Tls::Never {
            let text =
                format!("TLS_POLICY has {domain} reached without TLS, and the sender requires it");
            return Err(Refused::unfit(text));
        }
        let is_in_policy =
            matches!(self.policy(), Sts::Policy(p) if p.mode != Mode::None && p.names(host));
        let is_operators = matches!(self.asked.next, Next::Host(_)) || is_strict;
        if !is_operators && !is_in_policy && !self.is_proven(host)? {
            let text = format!(
                "neither DNSSEC nor MTA-STS proves that {host} is a mail exchanger of {domain}, which REQUIRETLS needs"
            );
            return Err(Refused::unfit(text));
        }
        if is_strict {
            return Ok(security);
        }
        let name = name_of(host);
        Ok(Security {
            tls: Tls::Must,
            proof: Proof::Pkix {
                names: vec![Name::Is(name.clone())],
            },
            strict: true,
            name,
            why: Why::RequireTls,
            published: security.published,
        })
    }
}

/// RFC 7672 2.1.1: what DNSSEC proves to be wrong, or does not say, is no reason to go without.
fn unknown(name: &Domain, error: &ProvenError) -> Refused {
    let failure = match error {
        ProvenError::Bogus(_) => Failure::DnssecInvalid,
        ProvenError::None | ProvenError::Temporary(_) => Failure::Validation,
    };
    let text = format!("looking up the security of {name}: {error}");
    Refused::later(failure, text, Published::Nothing)
}

fn tlsa(record: dns::Tlsa) -> Tlsa {
    Tlsa {
        usage: record.usage,
        selector: record.selector,
        matching: record.matching,
        data: record.data,
    }
}
