//! What becomes of mail that the domain of its author does not vouch for: the operator's DMARC and
//! ARC_TRUST (RFC 9989 5.3.6, 5.4 and 7.2).
//!
//! A wish of the domain's owner is followed as far as the operator says; what cannot be known now is
//! put off, and only where it could end in a refusal.

use base::config::Dmarc;
use base::{Domain, Status};
use mailauth::dmarc::{Outcome, Policy};
use mailauth::results;

use crate::reply::Reply;

/// The operator's word.
#[derive(Debug, Clone)]
pub(crate) struct Handling {
    pub(crate) dmarc: Dmarc,
    /// Whose seals overrule DMARC.
    pub(crate) arc_trust: Vec<Domain>,
}

/// What is done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ruling {
    Take,
    /// Put aside, for this reason.
    Hold(String),
    Refuse(Reply),
}

/// What a ruling is called in RFC 9989's words.
pub(crate) fn disposition(ruling: &Ruling) -> Policy {
    match ruling {
        Ruling::Take => Policy::None,
        Ruling::Hold(_) => Policy::Quarantine,
        Ruling::Refuse(_) => Policy::Reject,
    }
}

impl Handling {
    /// `vouched`: a sealer whom we trust saw it pass.
    pub(crate) fn rule(&self, outcome: &Outcome, vouched: bool) -> Ruling {
        let holds = self.dmarc == Dmarc::Hold;
        if vouched || !matches!(self.dmarc, Dmarc::Reject | Dmarc::Hold) {
            return Ruling::Take;
        }
        let domain = match &outcome.from {
            Some(domain) => domain.to_string(),
            None => "its author".into(),
        };
        match (outcome.result, outcome.wish) {
            (results::Dmarc::Fail, Policy::Reject) => Ruling::Refuse(never(format!(
                "Rejected per DMARC policy of {domain} (p=reject): neither its SPF nor its DKIM \
                 vouches for this message"
            ))),
            (results::Dmarc::Fail, Policy::Quarantine) if holds => {
                Ruling::Hold(format!("DMARC policy of {domain} is quarantine"))
            }
            (results::Dmarc::TempError, Policy::Reject) => Ruling::Refuse(Reply::made(
                451,
                Some(Status::new(4, 7, 1)),
                format!("DMARC of {domain} cannot be checked now, try again later"),
            )),
            (results::Dmarc::PermError, Policy::Reject) => {
                let reason = outcome.reason.unwrap_or("From cannot be checked");
                Ruling::Refuse(never(format!("Rejected per DMARC: {reason}")))
            }
            _ => Ruling::Take,
        }
    }
}

fn never(text: String) -> Reply {
    Reply::made(550, Some(Status::new(5, 7, 1)), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(dmarc: Dmarc, result: results::Dmarc, wish: Policy, vouched: bool) -> String {
        let handling = Handling {
            dmarc,
            arc_trust: Vec::new(),
        };
        let outcome = Outcome {
            result,
            reason: None,
            from: "b.example".parse().ok(),
            policy: Some(wish),
            wish,
        };
        match handling.rule(&outcome, vouched) {
            Ruling::Take => "take".into(),
            Ruling::Hold(why) => why,
            Ruling::Refuse(reply) => reply.code().to_string(),
        }
    }

    #[test]
    fn as_far_as_the_operator_says() {
        use Policy::{None, Quarantine, Reject};
        use results::Dmarc::{Fail, Pass, PermError, TempError};
        let held = "DMARC policy of b.example is quarantine";
        let table = [
            (Dmarc::Results, Fail, Reject, false, "take"),
            (Dmarc::Reject, Fail, Reject, false, "550"),
            (Dmarc::Reject, Fail, Reject, true, "take"),
            (Dmarc::Reject, Fail, Quarantine, false, "take"),
            (Dmarc::Reject, Fail, None, false, "take"),
            (Dmarc::Reject, Pass, None, false, "take"),
            (Dmarc::Reject, TempError, Reject, false, "451"),
            (Dmarc::Reject, TempError, Quarantine, false, "take"),
            (Dmarc::Reject, PermError, Reject, false, "550"),
            (Dmarc::Reject, PermError, None, false, "take"),
            (Dmarc::Hold, Fail, Reject, false, "550"),
            (Dmarc::Hold, Fail, Quarantine, false, held),
            (Dmarc::Hold, Fail, Quarantine, true, "take"),
        ];
        for (dmarc, result, wish, vouched, wanted) in table {
            assert_eq!(
                say(dmarc, result, wish, vouched),
                wanted,
                "{dmarc:?} {result:?} {wish:?} {vouched}"
            );
        }
    }

    #[test]
    fn a_refusal_names_the_domain_and_its_policy() {
        let handling = Handling {
            dmarc: Dmarc::Reject,
            arc_trust: Vec::new(),
        };
        let outcome = Outcome {
            result: results::Dmarc::Fail,
            reason: None,
            from: "b.example".parse().ok(),
            policy: Some(Policy::Reject),
            wish: Policy::Reject,
        };
        let Ruling::Refuse(reply) = handling.rule(&outcome, false) else {
            panic!()
        };
        let text = reply.to_string();
        assert!(
            text.starts_with("550 5.7.1 Rejected per DMARC policy of b.example (p=reject)"),
            "{text}"
        );
    }
}
