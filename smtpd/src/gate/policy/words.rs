//! What a policy server is told, and what its answer means.

use std::fmt;

use base::config::PolicyState;
use base::{Address, Status};

use crate::access::{self, Action};
use crate::gate::{Facts, Ruling};
use crate::reply::Reply;

/// What is known, as `name=value` lines and an empty one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report<'a> {
    pub(super) state: PolicyState,
    pub(super) facts: &'a Facts,
    pub(super) recipient: Option<&'a Address>,
    /// Of a whole message; else what MAIL announced.
    pub(super) size: Option<u64>,
    pub(super) instance: &'a str,
}

/// A value that is one line, whatever a client said.
struct Line<'a>(&'a str);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let safe = |c: char| if c.is_control() { '?' } else { c };
        self.0.chars().map(safe).try_for_each(|c| write!(f, "{c}"))
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.facts;
        let mut line = |name: &str, value: &dyn fmt::Display| {
            writeln!(f, "{name}={}", Line(&value.to_string()))
        };
        let extended = facts.hello.as_ref().is_some_and(|hello| hello.extended);
        let helo = facts.hello.as_ref().map_or("", |hello| &hello.name);
        let opened = facts.transaction.as_ref();
        line("request", &"smtpd_access_policy")?;
        line("protocol_state", &self.state.as_str())?;
        line("protocol_name", &if extended { "ESMTP" } else { "SMTP" })?;
        line("helo_name", &helo)?;
        let id = opened.and_then(|opened| opened.queue_id.as_deref());
        line("queue_id", &id.unwrap_or_default())?;
        let sender = opened.map(|opened| opened.reverse_path.to_string());
        line("sender", &sender.unwrap_or_default())?;
        self.recipients(&mut line)?;
        let (client, local) = (facts.client, facts.local);
        let ip = client.map_or_else(String::new, |client| client.ip().to_string());
        line("client_address", &ip)?;
        // Only names that lead back are known here.
        let name = facts.name.as_ref().and_then(|name| name.name());
        let name = name.map_or("unknown", |name| name.as_str());
        line("client_name", &name)?;
        line("reverse_client_name", &name)?;
        line("instance", &self.instance)?;
        let login = facts.login.as_ref();
        line("sasl_method", &login.map_or("", |login| login.mechanism))?;
        line("sasl_username", &login.map_or("", |login| &login.user))?;
        line("sasl_sender", &"")?;
        let announced = opened.map_or(0, |opened| opened.size);
        line("size", &self.size.unwrap_or(announced))?;
        for name in ["subject", "issuer", "fingerprint", "pubkey_fingerprint"] {
            line(&format!("ccert_{name}"), &"")?;
        }
        let tls = facts.tls.as_ref();
        line("encryption_protocol", &tls.map_or("", |tls| tls.version))?;
        line("encryption_cipher", &tls.map_or("", |tls| &tls.cipher))?;
        line("encryption_keysize", &tls.map_or(0, |tls| tls.bits))?;
        line("etrn_domain", &"")?;
        line("stress", &"")?;
        line("client_port", &client.map_or(0, |client| client.port()))?;
        line("policy_context", &"")?;
        let ip = local.map_or_else(String::new, |local| local.ip().to_canonical().to_string());
        line("server_address", &ip)?;
        line("server_port", &local.map_or(0, |local| local.port()))?;
        line("compatibility_level", &"3.8")?;
        line(
            "mail_version",
            &concat!("yubin-", env!("CARGO_PKG_VERSION")),
        )?;
        writeln!(f)
    }
}

impl Report<'_> {
    /// As Postfix counts: at RCPT there is one and it is not counted; later the only one is named.
    fn recipients(
        &self,
        line: &mut dyn FnMut(&str, &dyn fmt::Display) -> fmt::Result,
    ) -> fmt::Result {
        let taken = self.facts.transaction.as_ref();
        let taken = taken.map_or(&[][..], |opened| &opened.recipients);
        let whole = matches!(self.state, PolicyState::Data | PolicyState::EndOfMessage);
        let named = match (self.recipient, taken) {
            (Some(recipient), _) => Some(recipient),
            (None, [only]) if whole => Some(&only.address),
            _ => None,
        };
        let named = named.map_or_else(String::new, Address::to_string);
        line("recipient", &named)?;
        line("recipient_count", &if whole { taken.len() } else { 0 })
    }
}

/// What is to be done for an answer `action=...`, and what is to be logged. Postfix's access(5).
pub(super) fn understand(answer: &str) -> Result<(Ruling, Option<String>), String> {
    let action = answer.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name == "action").then_some(value.trim())
    });
    let action = action.ok_or("an answer without an action")?;
    let (verb, rest) = match action.split_once([' ', '\t']) {
        Some((verb, rest)) => (verb, rest.trim()),
        None => (action, ""),
    };
    let text = (!rest.is_empty()).then(|| rest.to_owned());
    let nothing = Ruling::default();
    match verb.to_ascii_uppercase().as_str() {
        // All but a refusal is no obstacle to what comes behind.
        "DUNNO" | "RELAY" | "DEFER_IF_REJECT" => return Ok((nothing, None)),
        "WARN" | "INFO" => {
            return Ok((nothing, Some(text.unwrap_or_else(|| "look at this".into()))));
        }
        // It would be taken, so far as we know.
        "DEFER_IF_PERMIT" => return Ok((deferred(text), None)),
        "421" | "521" => return Ok((ends(verb, rest), None)),
        // A number that is no code of refusal is OK.
        _ if verb
            .parse::<u32>()
            .is_ok_and(|number| !(400..600).contains(&number)) =>
        {
            return Ok((nothing, None));
        }
        _ => {}
    }
    let ruling = match access::parse_action(action)? {
        Action::Ok => nothing,
        Action::Refuse(reply) => Ruling {
            refuse: Some(reply),
            ..nothing
        },
        Action::Discard => Ruling {
            discard: true,
            ..nothing
        },
        Action::Hold(reason) => Ruling {
            hold: Some(text.unwrap_or(reason)),
            ..nothing
        },
        Action::Redirect(address) => Ruling {
            redirect: Some(address),
            ..nothing
        },
        Action::Filter(filter) => Ruling {
            filter: Some(Box::new(filter)),
            ..nothing
        },
        Action::Prepend(field) => Ruling {
            prepend: vec![field],
            ..nothing
        },
    };
    Ok((ruling, None))
}

fn deferred(text: Option<String>) -> Ruling {
    let text = text.unwrap_or_else(|| "Service temporarily unavailable, try again later".into());
    // The server may have written a status of its own.
    let (status, text) = match text.split_once(' ') {
        Some((first, rest)) if Status::parse(first).is_some_and(|s| s.class() == 4) => {
            (Status::parse(first), rest.to_owned())
        }
        _ => (Some(Status::new(4, 7, 1)), text),
    };
    Ruling {
        refuse: Some(Reply::made(450, status, text)),
        ..Ruling::default()
    }
}

/// These end the session (RFC 5321 3.8).
fn ends(verb: &str, rest: &str) -> Ruling {
    let code = if verb == "421" { 421 } else { 521 };
    let class = if code == 421 { 4 } else { 5 };
    let (status, text) = match rest.split_once(' ') {
        Some((first, text)) if Status::parse(first).is_some_and(|s| s.class() == class) => {
            (Status::parse(first), text)
        }
        _ => (Some(Status::new(class, 7, 1)), rest),
    };
    let text = if text.is_empty() {
        "Access denied"
    } else {
        text
    };
    Ruling {
        refuse: Some(Reply::made(code, status, text.to_owned())),
        ..Ruling::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Hello, Login, Opened, Tls};
    use base::envelope::Body;
    use base::{Recipient, ReversePath};
    use net::{Accepted, Encryption, Peer};

    fn facts() -> Facts {
        let accepted = Accepted {
            peer: Peer::Ip("[::ffff:192.0.2.1]:4321".parse().unwrap()),
            local: "198.51.100.1:25".parse().ok(),
            service: "smtp",
            encryption: Encryption::OnRequest,
            tls: true,
            check: false,
        };
        let mut facts = Facts::new(&accepted, "unknown[192.0.2.1]".into(), false);
        facts.hello = Some(Hello {
            name: "x\ny=z".into(),
            extended: true,
        });
        facts.login = Some(Login {
            user: "ann".into(),
            mechanism: "PLAIN",
        });
        facts.tls = Some(Tls {
            version: "TLSv1.3",
            cipher: "C".into(),
            bits: 256,
        });
        let recipient = |name: &str| Recipient::new(name.parse().unwrap());
        facts.transaction = Some(Opened {
            reverse_path: ReversePath::Address("a@b.example".parse().unwrap()),
            size: 77,
            body: Body::SevenBit,
            ret: None,
            envid: None,
            recipients: vec![recipient("one@x.example")],
            queue_id: Some("Q1".into()),
            lane: None,
            needs: Default::default(),
        });
        facts
    }

    #[test]
    fn all_attributes_one_a_line() {
        let facts = facts();
        let report = Report {
            state: PolicyState::Data,
            facts: &facts,
            recipient: None,
            size: None,
            instance: "1.2.3.0",
        };
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            report.to_string(),
            format!(
                "request=smtpd_access_policy\nprotocol_state=DATA\nprotocol_name=ESMTP\n\
                 helo_name=x?y=z\nqueue_id=Q1\nsender=a@b.example\nrecipient=one@x.example\n\
                 recipient_count=1\nclient_address=192.0.2.1\nclient_name=unknown\n\
                 reverse_client_name=unknown\ninstance=1.2.3.0\nsasl_method=PLAIN\n\
                 sasl_username=ann\nsasl_sender=\nsize=77\nccert_subject=\nccert_issuer=\n\
                 ccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\n\
                 encryption_cipher=C\nencryption_keysize=256\netrn_domain=\nstress=\n\
                 client_port=4321\npolicy_context=\nserver_address=198.51.100.1\n\
                 server_port=25\ncompatibility_level=3.8\nmail_version=yubin-{version}\n\n"
            )
        );
        let other = "two@x.example".parse().unwrap();
        let at_rcpt = Report {
            state: PolicyState::Rcpt,
            recipient: Some(&other),
            size: Some(5),
            ..report
        };
        let text = at_rcpt.to_string();
        assert!(
            text.contains("\nrecipient=two@x.example\nrecipient_count=0\n"),
            "{text}"
        );
        assert!(text.contains("\nsize=5\n"), "{text}");
    }

    fn say(answer: &str) -> String {
        match understand(answer) {
            Err(what) => format!("error {what}"),
            Ok((_, Some(text))) => format!("log {text}"),
            Ok((ruling, None)) => match ruling {
                ruling if ruling == Ruling::default() => "-".into(),
                Ruling {
                    refuse: Some(reply),
                    ..
                } => reply.to_string(),
                Ruling { discard: true, .. } => "discard".into(),
                Ruling {
                    hold: Some(reason), ..
                } => format!("hold {reason}"),
                Ruling {
                    redirect: Some(to), ..
                } => format!("to {to}"),
                Ruling {
                    filter: Some(filter),
                    ..
                } => format!("by {filter}"),
                ruling => ruling.prepend.concat(),
            },
        }
    }

    #[test]
    fn actions_of_access_5() {
        let table = [
            (
                "action=FILTER smtp:[127.0.0.1]:10026\n\n",
                "by smtp:[127.0.0.1]:10026",
            ),
            ("action=DUNNO\n\n", "-"),
            ("action=dunno text\n", "-"),
            ("action=OK", "-"),
            ("action=250", "-"),
            ("other=x\naction=REJECT\n\n", "554 5.7.1 Access denied"),
            ("action=reject  go away \n\n", "554 5.7.1 go away"),
            ("action=550 5.7.23 SPF fail", "550 5.7.23 SPF fail"),
            ("action=450 later", "450 4.7.1 later"),
            ("action=421 4.7.0 bye", "421 4.7.0 bye"),
            ("action=521 bye now", "521 5.7.1 bye now"),
            ("action=DEFER wait", "450 4.7.1 wait"),
            (
                "action=DEFER_IF_PERMIT 4.2.0 Greylisted, wait",
                "450 4.2.0 Greylisted, wait",
            ),
            (
                "action=defer_if_permit",
                "450 4.7.1 Service temporarily unavailable, try again later",
            ),
            ("action=DEFER_IF_REJECT x", "-"),
            ("action=DISCARD", "discard"),
            ("action=HOLD look", "hold look"),
            ("action=REDIRECT a@b.example", "to a@b.example"),
            ("action=PREPEND X-Spam: no", "X-Spam: no"),
            ("action=WARN odd", "log odd"),
            ("action=INFO seen", "log seen"),
            ("", "error an answer without an action"),
            ("actions=OK", "error an answer without an action"),
        ];
        for (answer, wanted) in table {
            assert_eq!(say(answer), wanted, "{answer}");
        }
        for answer in [
            "action=FILTER x:y",
            "action=",
            "action=PREPEND x",
            "action=550 4.1.1 x",
        ] {
            assert!(
                say(answer).starts_with("error "),
                "{answer}: {}",
                say(answer)
            );
        }
    }
}
