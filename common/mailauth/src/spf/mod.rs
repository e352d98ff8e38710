//! SPF (RFC 7208): whether a host may send for a domain. [`check`] is `check_host()`.
//!
//! What it guarantees: it ends. At most ten terms ask DNS, and two answers may be void (4.6.4); each
//! look-up of the resolver is bounded, and before each the caller's clock is asked. What strangers
//! wrote into DNS breaks nothing: it is a permanent error, and the words that come out of it (an
//! explanation) are printable ASCII.
//!
//! A name that is no host name (`foo:bar.example.com`) is not asked for and matches nothing.

mod macros;
mod record;

use std::net::IpAddr;

use base::{Address, Domain, ReversePath};
use dns::{DnsError, MxAnswer, Resolve};

use crate::results;
use macros::{Text, Values, dotted};
use record::{Directive, Mechanism, Net, Prefixes, Qualifier, Record, is_spf};

/// Terms that ask DNS (RFC 7208 4.6.4).
const MAX_TERMS: u32 = 10;
/// Answers without a record (RFC 7208 4.6.4).
const MAX_VOID: u32 = 2;
/// Names of one MX or PTR answer (RFC 7208 4.6.4).
const MAX_NAMES: usize = 10;
/// Octets of an explanation.
const MAX_EXPLANATION: usize = 500;

/// RFC 7208 2.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    None,
    Neutral,
    Pass,
    Fail,
    SoftFail,
    TempError,
    PermError,
}

impl Verdict {
    /// In Authentication-Results.
    pub fn result(self) -> results::Spf {
        match self {
            Self::None => results::Spf::None,
            Self::Neutral => results::Spf::Neutral,
            Self::Pass => results::Spf::Pass,
            Self::Fail => results::Spf::Fail,
            Self::SoftFail => results::Spf::SoftFail,
            Self::TempError => results::Spf::TempError,
            Self::PermError => results::Spf::PermError,
        }
    }
}

/// What is known of a client.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub ip: IpAddr,
    /// What it said in HELO or EHLO.
    pub helo: &'a str,
    pub reverse_path: &'a ReversePath,
    /// Our own name, for explanations.
    pub receiver: &'a Domain,
    /// Seconds of the Unix clock, for explanations.
    pub now: u64,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Whose record was asked; `None` where there is no domain that could have one.
    pub domain: Option<Domain>,
    /// Of a fail: what the domain has to say about it (RFC 7208 6.2).
    pub explanation: Option<String>,
}

/// Asks whether the client may send under the reverse-path, or, where that is null, under the name of
/// its HELO (RFC 7208 2.4). `late` says when to give up.
pub fn check(dns: &dyn Resolve, question: Question<'_>, late: &dyn Fn() -> bool) -> Outcome {
    let sender = match question.reverse_path.address() {
        Some(address) => Some(address.clone()),
        None => Address::parse(&format!("postmaster@{}", question.helo)).ok(),
    };
    let Some(sender) = sender.filter(|sender| is_asked(sender.domain())) else {
        return Outcome {
            verdict: Verdict::None,
            domain: None,
            explanation: None,
        };
    };
    let mut check = Check {
        dns,
        question,
        ip: question.ip.to_canonical(),
        sender: &sender,
        late,
        terms: 0,
        void: 0,
        explain: None,
    };
    let domain = sender.domain().clone();
    let verdict = match check.host(&domain) {
        Ok(verdict) | Err(verdict) => verdict,
    };
    let explanation = match verdict {
        Verdict::Fail => check.explanation(),
        _ => None,
    };
    Outcome {
        verdict,
        domain: Some(domain),
        explanation,
    }
}

/// RFC 7208 4.3: a name of several labels.
fn is_asked(domain: &Domain) -> bool {
    domain.ip().is_none() && domain.as_str().contains('.')
}

struct Check<'a> {
    dns: &'a dyn Resolve,
    question: Question<'a>,
    ip: IpAddr,
    sender: &'a Address,
    late: &'a dyn Fn() -> bool,
    terms: u32,
    void: u32,
    /// Where the record that failed has its explanation, and whose record it is.
    explain: Option<(Text, Domain)>,
}

/// The verdict is final.
type Final = Verdict;

impl Check<'_> {
    /// The verdict of a domain's record. An error is the verdict of the whole.
    fn host(&mut self, domain: &Domain) -> Result<Verdict, Final> {
        let Some(record) = self.record(domain)? else {
            return Ok(Verdict::None);
        };
        for Directive {
            qualifier,
            mechanism,
        } in &record.directives
        {
            if self.matches(mechanism, domain)? {
                if *qualifier == Qualifier::Fail {
                    let explain = record.explain.clone();
                    self.explain = explain.map(|text| (text, domain.clone()));
                }
                return Ok(match qualifier {
                    Qualifier::Pass => Verdict::Pass,
                    Qualifier::Fail => Verdict::Fail,
                    Qualifier::SoftFail => Verdict::SoftFail,
                    Qualifier::Neutral => Verdict::Neutral,
                });
            }
        }
        let Some(redirect) = &record.redirect else {
            return Ok(Verdict::Neutral);
        };
        self.count()?;
        let other = self.name(redirect, domain).filter(is_asked);
        match self.host(&other.ok_or(Verdict::PermError)?)? {
            // RFC 7208 6.1
            Verdict::None => Err(Verdict::PermError),
            verdict => Ok(verdict),
        }
    }

    /// RFC 7208 4.4 and 4.5.
    fn record(&mut self, domain: &Domain) -> Result<Option<Record>, Final> {
        self.in_time()?;
        let texts = match self.dns.txt(domain) {
            Ok(texts) => texts,
            Err(DnsError::NxDomain | DnsError::NoData) => return Ok(None),
            Err(DnsError::Temporary(_)) => return Err(Verdict::TempError),
        };
        let mut records = texts.iter().filter(|text| is_spf(text));
        match (records.next(), records.next()) {
            (None, _) => Ok(None),
            (Some(text), None) => Record::parse(text)
                .map(Some)
                .map_err(|_| Verdict::PermError),
            (Some(_), Some(_)) => Err(Verdict::PermError),
        }
    }

    fn matches(&mut self, mechanism: &Mechanism, domain: &Domain) -> Result<bool, Final> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip(net) => Ok(net.contains(self.ip)),
            Mechanism::Include(target) => {
                self.count()?;
                let target = self.name(target, domain).filter(is_asked);
                match self.host(&target.ok_or(Verdict::PermError)?)? {
                    Verdict::Pass => Ok(true),
                    Verdict::Fail | Verdict::SoftFail | Verdict::Neutral => Ok(false),
                    Verdict::TempError => Err(Verdict::TempError),
                    Verdict::None | Verdict::PermError => Err(Verdict::PermError),
                }
            }
            Mechanism::A(target, prefixes) => {
                self.count()?;
                match self.target(target.as_ref(), domain) {
                    Some(host) => self.has_address(&host, *prefixes),
                    None => Ok(false),
                }
            }
            Mechanism::Mx(target, prefixes) => {
                self.count()?;
                match self.target(target.as_ref(), domain) {
                    Some(target) => self.exchanges(&target, *prefixes),
                    None => Ok(false),
                }
            }
            Mechanism::Ptr(target) => {
                self.count()?;
                let Some(target) = self.target(target.as_ref(), domain) else {
                    return Ok(false);
                };
                let names = self.validated()?;
                Ok(names.iter().any(|name| name.is_within(&target)))
            }
            Mechanism::Exists(target) => {
                self.count()?;
                match self.name(target, domain) {
                    Some(name) => {
                        self.in_time()?;
                        let found = self.dns.ipv4(&name);
                        self.found(found).map(|list| !list.is_empty())
                    }
                    None => Ok(false),
                }
            }
        }
    }

    fn has_address(&mut self, host: &Domain, prefixes: Prefixes) -> Result<bool, Final> {
        let (ip, prefix) = match self.ip {
            IpAddr::V4(_) => (self.ip, prefixes.v4),
            IpAddr::V6(_) => (self.ip, prefixes.v6),
        };
        let addresses = self.addresses(host)?;
        Ok(addresses.into_iter().any(|address| {
            let net = Net {
                ip: address,
                prefix,
            };
            net.contains(ip)
        }))
    }

    /// Of the client's family.
    fn addresses(&mut self, host: &Domain) -> Result<Vec<IpAddr>, Final> {
        self.in_time()?;
        let found = match self.ip {
            IpAddr::V4(_) => self
                .dns
                .ipv4(host)
                .map(|list| list.into_iter().map(IpAddr::V4).collect()),
            IpAddr::V6(_) => self
                .dns
                .ipv6(host)
                .map(|list| list.into_iter().map(IpAddr::V6).collect()),
        };
        self.found(found)
    }

    /// The exchangers of a domain; an implicit one does not count (RFC 7208 5.4).
    fn exchanges(&mut self, domain: &Domain, prefixes: Prefixes) -> Result<bool, Final> {
        self.in_time()?;
        let found = match self.dns.mx(domain) {
            Ok(MxAnswer::Found(list)) => Ok(list),
            Ok(MxAnswer::Null | MxAnswer::NoHosts(_)) => Ok(Vec::new()),
            Err(why) => Err(why),
        };
        let list = self.found(found)?;
        if list.len() > MAX_NAMES {
            return Err(Verdict::PermError);
        }
        for mx in list {
            if self.has_address(&mx.host, prefixes)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The names of the client that lead back to it (RFC 7208 5.5). Trouble is no name.
    fn validated(&mut self) -> Result<Vec<Domain>, Final> {
        self.in_time()?;
        let found = self.dns.ptr(self.ip);
        let names = match found {
            Err(DnsError::Temporary(_)) => return Ok(Vec::new()),
            found => self.found(found)?,
        };
        let mut good = Vec::new();
        for name in names.into_iter().take(MAX_NAMES) {
            self.in_time()?;
            let back = self.dns.addresses(&name).unwrap_or_default();
            if back.iter().any(|ip| ip.to_canonical() == self.ip) {
                good.push(name);
            }
        }
        Ok(good)
    }

    /// An answer; one without a record is void, and of these there may not be many.
    fn found<T>(&mut self, answer: Result<Vec<T>, DnsError>) -> Result<Vec<T>, Final> {
        match answer {
            Ok(list) => Ok(list),
            Err(DnsError::Temporary(_)) => Err(Verdict::TempError),
            Err(DnsError::NxDomain | DnsError::NoData) => {
                self.void += 1;
                if self.void > MAX_VOID {
                    return Err(Verdict::PermError);
                }
                Ok(Vec::new())
            }
        }
    }

    fn count(&mut self) -> Result<(), Final> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(Verdict::PermError);
        }
        Ok(())
    }

    fn in_time(&self) -> Result<(), Final> {
        if (self.late)() {
            return Err(Verdict::TempError);
        }
        Ok(())
    }

    fn target(&mut self, text: Option<&Text>, domain: &Domain) -> Option<Domain> {
        match text {
            Some(text) => self.name(text, domain),
            None => Some(domain.clone()),
        }
    }

    fn name(&mut self, text: &Text, domain: &Domain) -> Option<Domain> {
        text.name(&mut Letters {
            check: self,
            domain,
        })
    }

    /// RFC 7208 6.2: anything that goes wrong means that there is none.
    fn explanation(&mut self) -> Option<String> {
        let (text, domain) = self.explain.take()?;
        let name = self.name(&text, &domain)?;
        self.in_time().ok()?;
        let texts = self.dns.txt(&name).ok()?;
        let [text] = texts.as_slice() else {
            return None;
        };
        let text = Text::parse(std::str::from_utf8(text).ok()?, true).ok()?;
        let mut said = text.expand(&mut Letters {
            check: self,
            domain: &domain,
        });
        let good = said.chars().all(|c| (' '..='~').contains(&c));
        said.truncate(MAX_EXPLANATION);
        good.then_some(said)
    }
}

/// What the letters stand for while a domain's record is asked (RFC 7208 7.2).
struct Letters<'a, 'b> {
    check: &'a mut Check<'b>,
    domain: &'a Domain,
}

impl Values for Letters<'_, '_> {
    fn value(&mut self, letter: char) -> String {
        let check = &mut *self.check;
        let sender = check.sender;
        match letter {
            's' => sender.to_string(),
            'l' => sender.local().as_str().to_owned(),
            'o' => sender.domain().to_string(),
            'd' => self.domain.to_string(),
            'i' => dotted(check.ip),
            'p' => self.validated_name(),
            'v' => match check.ip {
                IpAddr::V4(_) => "in-addr".into(),
                IpAddr::V6(_) => "ip6".into(),
            },
            'h' => check.question.helo.to_owned(),
            'c' => check.ip.to_string(),
            'r' => check.question.receiver.to_string(),
            't' => check.question.now.to_string(),
            _ => String::new(),
        }
    }
}

impl Letters<'_, '_> {
    /// The domain itself before one below it before any other.
    fn validated_name(&mut self) -> String {
        let names = self.check.validated().unwrap_or_default();
        let own = names.iter().find(|name| *name == self.domain);
        let below = || names.iter().find(|name| name.is_within(self.domain));
        let best = own.or_else(below).or_else(|| names.first());
        best.map_or_else(|| "unknown".into(), Domain::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Half of it is RFC 7208's appendix A.
    const ZONE: &str = "\
$ORIGIN example.com.
@          IN MX 10 mail-a
@          IN MX 20 mail-b
@          IN A 192.0.2.10
@          IN A 192.0.2.11
amy        IN A 192.0.2.65
bob        IN A 192.0.2.66
mail-a     IN A 192.0.2.129
mail-b     IN A 192.0.2.130
10.2.0.192.in-addr.arpa. IN PTR example.com.
65.2.0.192.in-addr.arpa. IN PTR amy.example.com.
all        IN TXT \"v=spf1 +all\"
a          IN TXT \"v=spf1 a:example.com -all\"
cidr       IN TXT \"v=spf1 a:example.com/30 -all\"
mx         IN TXT \"v=spf1 mx:example.com -all\"
two        IN TXT \"v=spf1 mx:example.com/30 mx:example.org/30 -all\"
ptr        IN TXT \"v=spf1 ptr:example.com -all\"
ip4        IN TXT \"v=spf1 ip4:192.0.2.128/28 -all\"
ip6        IN TXT \"v=spf1 ip6:2001:db8::/32 ~all\"
soft       IN TXT \"v=spf1 ~all\"
what       IN TXT \"v=spf1 ?all\"
end        IN TXT \"v=spf1\"
inc        IN TXT \"v=spf1 include:ip4.example.com -all\"
incnone    IN TXT \"v=spf1 include:amy.example.com -all\"
red        IN TXT \"v=spf1 redirect=ip4.example.com\"
rednone    IN TXT \"v=spf1 redirect=amy.example.com\"
twice      IN TXT \"v=spf1 a\"
twice      IN TXT \"v=spf1 mx\"
bad        IN TXT \"v=spf1 foo\"
other      IN TXT \"some text\"
loop       IN TXT \"v=spf1 include:loop.example.com -all\"
broken     IN FAIL TXT
slow       IN TXT \"v=spf1 a:broken2.example.com -all\"
broken2    IN FAIL A
void       IN TXT \"v=spf1 a:n1.example.com a:n2.example.com a:n3.example.com +all\"
void2      IN TXT \"v=spf1 a:n1.example.com a:n2.example.com +all\"
many       IN TXT \"v=spf1 a a a a a a a a a a a +all\"
many       IN A 192.0.2.99
exists     IN TXT \"v=spf1 exists:%{ir}.%{l1r+}.list.example.com -all\"
3.2.0.192.ann.list IN A 127.0.0.1
exp        IN TXT \"v=spf1 -all exp=why.example.com\"
why        IN TXT \"%{i} is not one of %{d}'s, says %{r}\"
helo       IN TXT \"v=spf1 a:amy.example.com -all\"
";

    fn ask(ip: &str, helo: &str, from: &str, late: bool) -> Outcome {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(ZONE.as_bytes()).unwrap();
        let dns = dns::Zone::load(file.path()).unwrap();
        let reverse_path = match from {
            "" => ReversePath::Null,
            from => ReversePath::Address(Address::parse(from).unwrap()),
        };
        let question = Question {
            ip: ip.parse().unwrap(),
            helo,
            reverse_path: &reverse_path,
            receiver: &Domain::parse("mx.example.net").unwrap(),
            now: 0,
        };
        check(&dns, question, &|| late)
    }

    #[test]
    fn who_may_send_for_whom() {
        use Verdict::*;
        let table = [
            ("192.0.2.1", "all", Pass),
            ("192.0.2.10", "a", Pass),
            ("::ffff:192.0.2.10", "a", Pass),
            ("192.0.2.12", "a", Fail),
            ("192.0.2.9", "cidr", Pass),
            ("192.0.2.130", "mx", Pass),
            ("192.0.2.131", "mx", Fail),
            ("192.0.2.131", "two", Pass),
            ("192.0.2.65", "ptr", Pass),
            ("192.0.2.10", "ptr", Pass),
            ("192.0.2.66", "ptr", Fail),
            ("192.0.2.135", "ip4", Pass),
            ("192.0.2.65", "ip4", Fail),
            ("2001:db8::1", "ip4", Fail),
            ("2001:db8::1", "ip6", Pass),
            ("192.0.2.1", "ip6", SoftFail),
            ("192.0.2.1", "soft", SoftFail),
            ("192.0.2.1", "what", Neutral),
            ("192.0.2.1", "end", Neutral),
            ("192.0.2.130", "inc", Pass),
            ("192.0.2.1", "inc", Fail),
            ("192.0.2.1", "incnone", PermError),
            ("192.0.2.130", "red", Pass),
            ("192.0.2.1", "red", Fail),
            ("192.0.2.1", "rednone", PermError),
            ("192.0.2.1", "twice", PermError),
            ("192.0.2.1", "bad", PermError),
            ("192.0.2.1", "other", None),
            ("192.0.2.1", "amy", None),
            ("192.0.2.1", "nowhere", None),
            ("192.0.2.1", "loop", PermError),
            ("192.0.2.1", "broken", TempError),
            ("192.0.2.1", "slow", TempError),
            ("192.0.2.1", "void", PermError),
            ("192.0.2.1", "void2", Pass),
            ("192.0.2.1", "many", PermError),
            ("192.0.2.3", "exists", Pass),
            ("192.0.2.4", "exists", Fail),
        ];
        for (ip, domain, want) in table {
            let outcome = ask(
                ip,
                "x.example",
                &format!("ann+list@{domain}.example.com"),
                false,
            );
            assert_eq!(outcome.verdict, want, "{ip} {domain}");
        }
        let late = ask("192.0.2.1", "x.example", "ann@a.example.com", true);
        assert_eq!(late.verdict, TempError);
    }

    #[test]
    fn the_null_path_has_the_name_of_helo() {
        let outcome = ask("192.0.2.65", "helo.example.com", "", false);
        assert_eq!(outcome.verdict, Verdict::Pass);
        assert_eq!(outcome.domain.unwrap().as_str(), "helo.example.com");
        for helo in ["localhost", "[192.0.2.65]", "not a name"] {
            let outcome = ask("192.0.2.65", helo, "", false);
            assert_eq!(
                (outcome.verdict, outcome.domain),
                (Verdict::None, None),
                "{helo}"
            );
        }
    }

    #[test]
    fn a_fail_is_explained() {
        let outcome = ask("192.0.2.1", "x.example", "ann@exp.example.com", false);
        assert_eq!(outcome.verdict, Verdict::Fail);
        assert_eq!(
            outcome.explanation.as_deref(),
            Some("192.0.2.1 is not one of exp.example.com's, says mx.example.net")
        );
    }
}
