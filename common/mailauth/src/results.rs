//! Authentication-Results: what we found out, written for those who read the message (RFC 8601).
//!
//! [`Results`] is written from [`Finding`]s, each one a method with the results that this method can
//! have. Values come from strangers: they are bounded, quoted where they are no token, and have no
//! control character, so a field stays one field. Beyond ASCII is `?` unless the message is an
//! internationalized one (RFC 8616 4).

pub(crate) mod authserv;
mod said;

use std::fmt::Write as _;
use std::net::IpAddr;

pub use authserv::is_ours;
pub use said::dmarc_passed;

use crate::arc::Chain;
use crate::dkim::{Algorithm, Outcome, Verdict};
use crate::dmarc;

/// Octets in a line, without its CRLF.
const LINE: usize = 76;
/// Characters of one value; RFC 5321 has no longer path.
const MAX_VALUE: usize = 320;

/// A result enumeration with its words of RFC 8601 2.7.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($variant),* }

        impl $name {
            /// As it is written.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

words! {
    /// 2.7.2.
    Spf {
        None "none", Pass "pass", Fail "fail", SoftFail "softfail", Neutral "neutral",
        Policy "policy", TempError "temperror", PermError "permerror",
    }
}
words! {
    /// 2.7.1.
    Dkim {
        None "none", Pass "pass", Fail "fail", Policy "policy", Neutral "neutral",
        TempError "temperror", PermError "permerror",
    }
}
words! {
    /// RFC 9989 9.
    Dmarc {
        None "none", Pass "pass", Fail "fail", TempError "temperror", PermError "permerror",
    }
}
words! {
    /// 2.7.4: the client's login.
    Auth {
        None "none", Pass "pass", Fail "fail", TempError "temperror", PermError "permerror",
    }
}
words! {
    /// 2.7.3: the client's name, forth and back.
    Iprev {
        Pass "pass", Fail "fail", TempError "temperror", PermError "permerror",
    }
}

/// One method and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// `mail_from`: the reverse-path that was checked, or `None` and the name of HELO.
    Spf {
        result: Spf,
        reason: Option<String>,
        mail_from: Option<String>,
        helo: Option<String>,
    },
    /// No signature.
    NoDkim,
    /// One signature.
    Dkim(Verdict),
    /// `done`: what became of the message for it, RFC 9989's disposition.
    Dmarc {
        outcome: dmarc::Outcome,
        done: dmarc::Policy,
    },
    /// `client`: who gave us the message (RFC 8617 10.2).
    Arc {
        chain: Chain,
        client: Option<IpAddr>,
    },
    /// `mailbox`: who logged in (smtp.auth).
    Auth {
        result: Auth,
        mailbox: Option<String>,
    },
    Iprev {
        result: Iprev,
        ip: IpAddr,
    },
}

/// One field.
#[derive(Debug, Clone)]
pub struct Results {
    text: String,
    line: usize,
    international: bool,
    empty: bool,
}

impl Results {
    /// `authserv_id`: our name. `international`: the message may have UTF-8 in its header.
    pub fn new(authserv_id: &str, international: bool) -> Self {
        let name = "Authentication-Results: ";
        let mut results = Self {
            text: name.into(),
            line: name.len(),
            international,
            empty: true,
        };
        let id = results.value(authserv_id);
        results.text.push_str(&id);
        results.line += id.len();
        results
    }

    /// Adds a finding, behind those before.
    pub fn add(&mut self, finding: &Finding) {
        match finding {
            Finding::Spf {
                result,
                reason,
                mail_from,
                helo,
            } => {
                self.method("spf", result.as_str(), reason.as_deref());
                self.property("smtp.mailfrom", mail_from.as_deref());
                self.property("smtp.helo", helo.as_deref());
            }
            Finding::NoDkim => self.method("dkim", Dkim::None.as_str(), None),
            Finding::Dkim(verdict) => self.dkim(verdict),
            Finding::Dmarc { outcome, done } => self.dmarc(outcome, *done),
            Finding::Arc { chain, client } => self.arc(chain, *client),
            Finding::Auth { result, mailbox } => {
                self.method("auth", result.as_str(), None);
                self.property("smtp.auth", mailbox.as_deref());
            }
            Finding::Iprev { result, ip } => {
                self.method("iprev", result.as_str(), None);
                self.property("policy.iprev", Some(&ip.to_string()));
            }
        }
    }

    /// The field, with its line end.
    pub fn field(mut self) -> String {
        if self.empty {
            self.text.push_str("; none");
        }
        self.text.push_str("\r\n");
        self.text
    }

    fn dkim(&mut self, verdict: &Verdict) {
        let result = Dkim::from(&verdict.outcome);
        // What makes a pass less than one.
        let but = match verdict {
            Verdict { testing: true, .. } => Some("key is for testing"),
            Verdict { unsigned: 1.., .. } => Some("end of the body not signed"),
            _ => None,
        };
        self.method("dkim", result.as_str(), verdict.outcome.why().or(but));
        let name = |name: &Option<base::Domain>| name.as_ref().map(ToString::to_string);
        self.property("header.d", name(&verdict.domain).as_deref());
        let identity = verdict.identity.as_ref().map(ToString::to_string);
        self.property("header.i", identity.as_deref());
        self.property("header.s", name(&verdict.selector).as_deref());
        self.property("header.a", verdict.algorithm.map(Algorithm::as_str));
        self.property(
            "header.b",
            Some(verdict.b.as_str()).filter(|b| !b.is_empty()),
        );
    }

    /// The comment is as others write it, for programs that read theirs.
    fn dmarc(&mut self, outcome: &dmarc::Outcome, done: dmarc::Policy) {
        self.method("dmarc", outcome.result.as_str(), None);
        let policy = outcome.policy.map(dmarc::Policy::as_str);
        if let Some(policy) = policy {
            self.word(&format!("(p={policy} dis={})", done.as_str()), " ");
        }
        self.property("reason", outcome.reason);
        let from = outcome.from.as_ref().map(ToString::to_string);
        self.property("header.from", from.as_deref());
        self.property("policy.dmarc", policy);
    }

    fn arc(&mut self, chain: &Chain, client: Option<IpAddr>) {
        match chain {
            Chain::None => self.method("arc", "none", None),
            Chain::Fail { why, .. } => self.method("arc", "fail", Some(why)),
            Chain::Pass { oldest_pass } => {
                self.method("arc", "pass", None);
                self.property("header.oldest-pass", Some(&oldest_pass.to_string()));
            }
        }
        let ip = client.map(|ip| ip.to_string());
        self.property("smtp.remote-ip", ip.as_deref());
    }

    /// `; method=result [reason=value]`, on a line of its own.
    fn method(&mut self, method: &str, result: &str, reason: Option<&str>) {
        self.empty = false;
        self.text.push_str(";\r\n\t");
        self.line = 1;
        self.word(&format!("{method}={result}"), "");
        self.property("reason", reason);
    }

    fn property(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            let word = format!("{name}={}", self.value(value));
            self.word(&word, " ");
        }
    }

    fn word(&mut self, word: &str, before: &str) {
        if self.line + before.len() + word.len() > LINE && self.line > 1 {
            self.text.push_str("\r\n\t");
            self.line = 1;
        } else {
            self.text.push_str(before);
            self.line += before.len();
        }
        self.text.push_str(word);
        self.line += word.len();
    }

    /// ```text
    /// pvalue = [CFWS] ( ( value / [ [ local-part ] "@" ] domain-name ) ) [CFWS]
    /// value  = token / quoted-string
    /// ```
    fn value(&self, text: &str) -> String {
        let safe = |c: char| match c {
            ' '..='~' => c,
            _ if c.is_control() || !self.international => '?',
            _ => c,
        };
        let text: String = text.chars().take(MAX_VALUE).map(safe).collect();
        let token = |text: &str| !text.is_empty() && text.chars().all(is_token);
        let plain = match text.split_once('@') {
            Some((local, domain)) => (local.is_empty() || token(local)) && token(domain),
            None => token(&text),
        };
        if plain {
            return text;
        }
        let mut quoted = String::from("\"");
        for c in text.chars() {
            let escape = if matches!(c, '"' | '\\') { "\\" } else { "" };
            // Writing into a String does not fail.
            write!(quoted, "{escape}{c}").ok();
        }
        quoted.push('"');
        quoted
    }
}

impl From<&Outcome> for Dkim {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Pass => Self::Pass,
            Outcome::Fail(_) => Self::Fail,
            Outcome::Neutral(_) => Self::Neutral,
            Outcome::TempError(_) => Self::TempError,
            Outcome::PermError(_) => Self::PermError,
            Outcome::Policy(_) => Self::Policy,
        }
    }
}

/// RFC 2045 5.1: `token`, all but space, control characters and tspecials.
fn is_token(c: char) -> bool {
    !c.is_control() && !"()<>@,;:\\\"/[]?= ".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(findings: &[Finding]) -> String {
        let mut results = Results::new("mx.example.org", false);
        findings.iter().for_each(|finding| results.add(finding));
        results.field()
    }

    fn verdict(outcome: Outcome) -> Verdict {
        Verdict {
            outcome,
            domain: "example.net".parse().ok(),
            selector: "s1".parse().ok(),
            identity: None,
            algorithm: Some(Algorithm::RsaSha256),
            key_bits: Some(2048),
            testing: false,
            unsigned: 0,
            b: "AuUoFEfD".into(),
        }
    }

    #[test]
    fn methods_with_their_properties() {
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        let spf = Finding::Spf {
            result: Spf::SoftFail,
            reason: None,
            mail_from: Some("joe@example.net".into()),
            helo: None,
        };
        let outcome = |result, reason| dmarc::Outcome {
            result,
            reason,
            from: "example.net".parse().ok(),
            policy: Some(dmarc::Policy::Reject),
            wish: dmarc::Policy::None,
        };
        let dmarc = Finding::Dmarc {
            outcome: outcome(Dmarc::Pass, None),
            done: dmarc::Policy::None,
        };
        let overruled = Finding::Dmarc {
            outcome: outcome(Dmarc::Fail, Some("trusted ARC chain")),
            done: dmarc::Policy::None,
        };
        let table = [
            (vec![], "; none\r\n"),
            (
                vec![spf, dmarc],
                ";\r\n\tspf=softfail smtp.mailfrom=joe@example.net\
                 ;\r\n\tdmarc=pass (p=reject dis=none) header.from=example.net policy.dmarc=reject\r\n",
            ),
            (
                vec![overruled],
                ";\r\n\tdmarc=fail (p=reject dis=none) reason=\"trusted ARC chain\"\
                 \r\n\theader.from=example.net policy.dmarc=reject\r\n",
            ),
            (
                vec![
                    Finding::Dkim(verdict(Outcome::Pass)),
                    Finding::Dkim(verdict(Outcome::Fail("body hash differs".into()))),
                ],
                ";\r\n\tdkim=pass header.d=example.net header.s=s1 header.a=rsa-sha256\
                 \r\n\theader.b=AuUoFEfD\
                 ;\r\n\tdkim=fail reason=\"body hash differs\" header.d=example.net header.s=s1\
                 \r\n\theader.a=rsa-sha256 header.b=AuUoFEfD\r\n",
            ),
            (
                vec![Finding::Dkim(Verdict {
                    unsigned: 7,
                    ..verdict(Outcome::Pass)
                })],
                ";\r\n\tdkim=pass reason=\"end of the body not signed\" header.d=example.net\
                 \r\n\theader.s=s1 header.a=rsa-sha256 header.b=AuUoFEfD\r\n",
            ),
            (vec![Finding::NoDkim], ";\r\n\tdkim=none\r\n"),
            (
                vec![
                    Finding::Arc {
                        chain: Chain::Pass { oldest_pass: 2 },
                        client: Some(ip),
                    },
                    Finding::Iprev {
                        result: Iprev::Fail,
                        ip,
                    },
                    Finding::Auth {
                        result: Auth::Pass,
                        mailbox: Some("ann".into()),
                    },
                ],
                ";\r\n\tarc=pass header.oldest-pass=2 smtp.remote-ip=\"2001:db8::1\"\
                 ;\r\n\tiprev=fail policy.iprev=\"2001:db8::1\"\
                 ;\r\n\tauth=pass smtp.auth=ann\r\n",
            ),
        ];
        for (findings, wanted) in table {
            let wanted = format!("Authentication-Results: mx.example.org{wanted}");
            assert_eq!(field(&findings), wanted);
        }
    }

    #[test]
    fn values_are_quoted_where_they_must() {
        let table = [
            ("a.b-c_d", "a.b-c_d"),
            ("joe@example.net", "joe@example.net"),
            ("@example.net", "@example.net"),
            ("", "\"\""),
            ("joe doe@example.net", "\"joe doe@example.net\""),
            ("a@b@c", "\"a@b@c\""),
            ("[192.0.2.1]", "\"[192.0.2.1]\""),
            ("x;y=z", "\"x;y=z\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("a\r\nEvil: b", "\"a??Evil: b\""),
            ("\u{fc}", "\"?\""),
            ("a\0\x7f", "\"a??\""),
        ];
        let results = Results::new("x", false);
        for (value, wanted) in table {
            assert_eq!(results.value(value), wanted);
        }
        assert_eq!(results.value(&"x".repeat(9999)).len(), MAX_VALUE);
        let results = Results::new("x", true);
        assert_eq!(
            results.value("j\u{f6}\u{85}@\u{fc}.example"),
            "\"j\u{f6}?@\u{fc}.example\""
        );
        assert_eq!(
            results.value("j\u{f6}@\u{fc}.example"),
            "j\u{f6}@\u{fc}.example"
        );
    }

    #[test]
    fn what_we_write_is_ours() {
        for id in ["mx.example.org", "x;y"] {
            let field = Results::new(id, false).field();
            let (name, value) = field.split_once(':').unwrap();
            assert!(is_ours(name.as_bytes(), value.as_bytes(), id), "{field}");
        }
    }
}
