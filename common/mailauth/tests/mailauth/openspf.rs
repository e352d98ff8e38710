//! The test suite for RFC 7208 that was made at openspf.org (its authors' BSD licence, three clauses),
//! as Debian's golang-blitiri-go-spf-dev has it: see `make needs-check`.
//!
//! Every case is run. Those where we say something else than the suite are listed, each with why.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use base::{Address, Domain, ReversePath};
use dns::{DnsError, Mx, MxAnswer, Resolve};
use mailauth::spf::{Question, check};

const SUITE: &str = "/usr/share/gocode/src/blitiri.com.ar/go/spf/testdata/rfc7208-tests.yml";

/// Scenario by scenario: `S`; then `R name type value` for its records, `T name helo host mailfrom
/// results explanation` for its cases; every word in hex.
const READ: &str = r#"
import sys, yaml
def h(text): return str(text).encode().hex() or '-'
for scenario in yaml.safe_load_all(open(sys.argv[1], encoding='utf-8')):
    print('S')
    for name, records in scenario['zonedata'].items():
        print('R', h(name), h('NAME'), '-')
        has_txt = any('TXT' in r for r in records)
        for record in records:
            for kind, value in record.items() if isinstance(record, dict) else [(record, '')]:
                if kind == 'SPF' and not has_txt: kind = 'TXT'
                if isinstance(value, list) and kind == 'TXT': value = ''.join(value)
                if isinstance(value, list): value = '%s %s' % tuple(value)
                if (kind, value) != ('TXT', 'NONE'): print('R', h(name), h(kind), h(value))
    for name, t in scenario['tests'].items():
        result = t['result'] if isinstance(t['result'], list) else [t['result']]
        print('T', h(name), h(t['helo']), h(t['host']), h(t['mailfrom']), h(','.join(result)), h(t.get('explanation', '-')))
"#;

/// What a domain's server says: the records in the order of the file, by name in lower case.
#[derive(Default)]
struct Fake(HashMap<String, Vec<(String, String)>>);

impl Fake {
    /// The values of a kind. A TIMEOUT behind an answer says nothing.
    fn find(&self, name: &str, kind: &str) -> Result<Vec<String>, DnsError> {
        let name = name.to_ascii_lowercase();
        let records = self.0.get(&name).ok_or(DnsError::NxDomain)?;
        let mut found = Vec::new();
        for (known, value) in records {
            match known.as_str() {
                "TIMEOUT" if found.is_empty() => {
                    return Err(DnsError::Temporary("timeout".into()));
                }
                "CNAME" => return self.find(value, kind),
                known if known == kind && value == "TIMEOUT" => {
                    return Err(DnsError::Temporary("timeout".into()));
                }
                known if known == kind => found.push(value.clone()),
                _ => {}
            }
        }
        match found.is_empty() {
            true => Err(DnsError::NoData),
            false => Ok(found),
        }
    }

    fn parsed<T: std::str::FromStr>(&self, name: &Domain, kind: &str) -> Result<Vec<T>, DnsError> {
        let found = self.find(name.as_str(), kind)?;
        let parsed: Vec<T> = found.iter().filter_map(|v| v.parse().ok()).collect();
        match parsed.is_empty() {
            true => Err(DnsError::NoData),
            false => Ok(parsed),
        }
    }
}

impl Resolve for Fake {
    fn mx(&self, domain: &Domain) -> Result<MxAnswer, DnsError> {
        let found = self.find(domain.as_str(), "MX")?;
        let exchanger = |value: &String| {
            let (preference, host) = value.split_once(' ')?;
            let preference = preference.parse().ok()?;
            let host = host.parse().ok()?;
            Some(Mx { preference, host })
        };
        let list: Vec<Mx> = found.iter().filter_map(exchanger).collect();
        Ok(match list.is_empty() {
            true => MxAnswer::NoHosts(found.concat()),
            false => MxAnswer::Found(list),
        })
    }

    fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, DnsError> {
        let v6 = self.ipv6(host).map(|v| v.into_iter().map(IpAddr::V6));
        let v4 = self.ipv4(host).map(|v| v.into_iter().map(IpAddr::V4));
        match (v6, v4) {
            (Ok(v6), Ok(v4)) => Ok(v6.chain(v4).collect()),
            (Ok(v6), Err(_)) => Ok(v6.collect()),
            (Err(_), Ok(v4)) => Ok(v4.collect()),
            (Err(why), Err(_)) => Err(why),
        }
    }

    fn ipv4(&self, host: &Domain) -> Result<Vec<Ipv4Addr>, DnsError> {
        self.parsed(host, "A")
    }

    fn ipv6(&self, host: &Domain) -> Result<Vec<Ipv6Addr>, DnsError> {
        self.parsed(host, "AAAA")
    }

    fn ptr(&self, ip: IpAddr) -> Result<Vec<Domain>, DnsError> {
        let name = match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            IpAddr::V6(ip) => {
                let digits: String = format!("{:032x}", ip.to_bits());
                let reversed = digits.chars().rev().map(|digit| format!("{digit}."));
                format!("{}ip6.arpa", reversed.collect::<String>())
            }
        };
        self.parsed(&name.parse().unwrap(), "PTR")
    }

    fn txt(&self, name: &Domain) -> Result<Vec<Vec<u8>>, DnsError> {
        let found = self.find(name.as_str(), "TXT")?;
        Ok(found.into_iter().map(String::into_bytes).collect())
    }
}

/// Where we do not say what the suite says, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("nolocalpart", SENDER),
    ("dorky-sentinel", SENDER),
    ("a-colon-domain", NAME),
    ("a-colon-domain-ip4mapped", NAME),
    ("mx-colon-domain", NAME),
    ("mx-colon-domain-ip4mapped", NAME),
    ("macro-mania-in-domain", NAME),
];
const SENDER: &str = "no reverse-path by RFC 5321 4.1.2: smtpd answers 501";
const NAME: &str = "a name that no host can have is not asked for";

fn word(hex: &str) -> String {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    match hex {
        "-" => String::new(),
        hex => String::from_utf8(hex.as_bytes().chunks(2).map(byte).collect()).unwrap(),
    }
}

/// The result, and the explanation or `DEFAULT`. A sender that is no address never gets to SPF:
/// smtpd refuses it.
fn ask(dns: &Fake, helo: &str, host: &str, from: &str) -> (String, String) {
    let reverse_path = match from {
        "" => ReversePath::Null,
        from => match Address::parse(from) {
            Ok(address) => ReversePath::Address(address),
            Err(_) => return ("none".into(), "refused".into()),
        },
    };
    let question = Question {
        ip: host.parse().unwrap(),
        helo,
        reverse_path: &reverse_path,
        receiver: &Domain::parse("receiver.example.net").unwrap(),
        now: 0,
    };
    let outcome = check(dns, question, &|| false);
    let explanation = outcome.explanation.unwrap_or_else(|| "DEFAULT".into());
    (outcome.verdict.result().as_str().into(), explanation)
}

#[test]
fn the_suite_of_openspf() {
    let read = Command::new("/usr/bin/python3")
        .args(["-c", READ, SUITE])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(read.status.success(), "{said}\nsee `make needs-check'");
    let text = String::from_utf8(read.stdout).unwrap();
    let (mut dns, mut run, mut wrong) = (Fake::default(), 0, Vec::new());
    for line in text.lines() {
        let words: Vec<String> = line.split(' ').skip(1).map(word).collect();
        match (line.get(..1).unwrap(), words.as_slice()) {
            ("S", []) => dns = Fake::default(),
            ("R", [name, kind, value]) => {
                let records = dns.0.entry(name.to_ascii_lowercase()).or_default();
                if kind != "NAME" {
                    records.push((kind.clone(), value.clone()));
                }
            }
            ("T", [name, helo, host, from, results, explanation]) => {
                run += 1;
                let (result, said) = ask(&dns, helo, host, from);
                let same = results.split(',').any(|one| one == result)
                    && (explanation == "-" || result != "fail" || *explanation == said);
                let excused = EXCEPTIONS.iter().find(|(known, _)| known == name);
                if let (true, Some((_, why))) = (same, excused) {
                    wrong.push(format!("{name} is listed as different ({why}) and is not"));
                } else if !same && excused.is_none() {
                    wrong.push(format!(
                        "{name}: {result} {said:?}, not {results} {explanation:?}"
                    ));
                }
            }
            _ => panic!("{line}"),
        }
    }
    assert_eq!(run, 203);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
