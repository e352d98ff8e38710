//! Who answers for a message: records and header fields that anybody may publish or write.
//!
//! An input is TXT records, a line each, an empty line, and a message. Every name that DNS is asked for
//! has all of these records, so a record may name itself.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{Domain, ReversePath};
use dns::{DnsError, Mx, MxAnswer, Resolve};
use mailauth::dkim::{Bodies, Header, Key, Signature, Verifier};
use mailauth::results::{Finding, Results};
use mailauth::{arc, dkim, dmarc, results, spf};

/// What is asserted: whatever records and fields say, the questions to DNS and the verdicts are bounded;
/// a message whose signatures nobody made does not pass; what is written into Authentication-Results
/// ends no field, and is known as ours, so that a stranger's is removed.
pub fn mailauth(input: &[u8]) {
    let end = memchr::memmem::find(input, b"\n\n");
    let (records, message) = match end {
        Some(at) => (&input[..at], &input[at + 2..]),
        None => (input, &b""[..]),
    };
    let dns = Answers {
        txt: records.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect(),
        asked: AtomicUsize::new(0),
    };
    for record in &dns.txt {
        let _ = Key::parse(record);
        let _ = Signature::parse(record);
        let _ = dkim::tags::Tags::parse(record);
    }
    let spf = judge_spf(&dns);
    judge_message(&dns, &spf, message);
}

struct Answers {
    txt: Vec<Vec<u8>>,
    asked: AtomicUsize,
}

impl Answers {
    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }

    fn answer<T>(&self, answer: T) -> Result<T, DnsError> {
        match self.asked.fetch_add(1, Ordering::Relaxed) % 7 {
            6 => Err(DnsError::NxDomain),
            _ => Ok(answer),
        }
    }
}

impl Resolve for Answers {
    fn mx(&self, domain: &Domain) -> Result<MxAnswer, DnsError> {
        let mx = Mx {
            preference: 0,
            host: domain.clone(),
        };
        self.answer(MxAnswer::Found(vec![mx; 12]))
    }

    fn addresses(&self, _: &Domain) -> Result<Vec<IpAddr>, DnsError> {
        self.answer(vec![Ipv4Addr::new(192, 0, 2, 9).into()])
    }

    fn ipv4(&self, _: &Domain) -> Result<Vec<Ipv4Addr>, DnsError> {
        self.answer(vec![Ipv4Addr::new(192, 0, 2, 9)])
    }

    fn ipv6(&self, _: &Domain) -> Result<Vec<Ipv6Addr>, DnsError> {
        self.answer(vec![Ipv6Addr::LOCALHOST])
    }

    fn ptr(&self, _: IpAddr) -> Result<Vec<Domain>, DnsError> {
        self.answer(vec![Domain::parse("host.example").unwrap(); 12])
    }

    fn txt(&self, _: &Domain) -> Result<Vec<Vec<u8>>, DnsError> {
        self.answer(self.txt.clone())
    }
}

fn judge_spf(dns: &Answers) -> spf::Outcome {
    let receiver = Domain::parse("mx.example.org").unwrap();
    let address = "ann+x@a.b.example".parse().unwrap();
    let question = spf::Question {
        ip: Ipv4Addr::new(192, 0, 2, 1).into(),
        helo: "c.example",
        reverse_path: &ReversePath::Address(address),
        receiver: &receiver,
        now: 1_800_000_000,
    };
    let outcome = spf::check(dns, question, &|| false);
    // RFC 7208 4.6.4: ten terms, of which an MX asks for the addresses of ten hosts; and PTR, once.
    assert!(dns.asked() <= 150);
    if let Some(text) = &outcome.explanation {
        assert!(
            text.len() <= 500 && !text.chars().any(char::is_control),
            "{text:?}"
        );
    }
    // It gives up when it is late.
    let calls = Cell::new(0);
    let late = || calls.replace(calls.get() + 1) > 2;
    spf::check(dns, question, &late);
    assert!(dns.asked() <= 50);
    outcome
}

fn judge_message(dns: &Answers, spf: &spf::Outcome, message: &[u8]) {
    let (head, body) = mime::header::split(message);
    let header = Header::new(head);
    let mut bodies = Bodies::default();
    let signatures = Verifier::new(&header, &mut bodies);
    let chain = arc::Verifier::new(&header, &mut bodies);
    assert!(chain.sealers().len() <= arc::MAX_SETS);
    bodies.feed(body);
    let hashes = bodies.finish();
    let verdicts = signatures.finish(&hashes, dns, 1_800_000_000);
    assert!(verdicts.len() <= dkim::MAX_SIGNATURES + 1);
    assert!(dns.asked() <= dkim::MAX_SIGNATURES);
    let chain = chain.finish(&hashes, dns, 1_800_000_000);
    assert!(dns.asked() <= 2 * arc::MAX_SETS);
    let evidence = dmarc::Evidence {
        spf: Some(spf),
        dkim: &verdicts,
    };
    let outcome = dmarc::judge(dns, &header, evidence, &|| false);
    assert!(dns.asked() <= 64);
    write(spf, verdicts, outcome, chain);
    for field in mime::header::fields(head) {
        let mine = results::is_ours(field.name, field.raw, "mx.example.org");
        let value = field.value();
        let same = results::is_ours(field.name, &value, "mx.example.org");
        assert!(
            mine == same || field.raw.len() > 1000,
            "folding hides that a field claims to be ours"
        );
        results::dmarc_passed(&value, &Domain::parse("a.example").unwrap());
    }
}

fn write(
    spf: &spf::Outcome,
    verdicts: Vec<dkim::Verdict>,
    outcome: dmarc::Outcome,
    chain: arc::Chain,
) {
    let mut field = Results::new("mx.example.org", false);
    field.add(&Finding::Spf {
        result: spf.verdict.result(),
        reason: spf.explanation.clone(),
        mail_from: Some("\"a\r\nb\"@x".into()),
        helo: None,
    });
    for verdict in verdicts {
        field.add(&Finding::Dkim(verdict));
    }
    field.add(&Finding::Dmarc {
        outcome,
        done: dmarc::Policy::None,
    });
    field.add(&Finding::Arc {
        chain,
        client: None,
    });
    let field = field.field();
    let (name, value) = field.split_once(':').unwrap();
    assert!(results::is_ours(
        name.as_bytes(),
        value.as_bytes(),
        "mx.example.org"
    ));
    let mut lines = field.strip_suffix("\r\n").unwrap().split("\r\n");
    assert!(
        lines
            .next()
            .is_some_and(|line| !line.contains(char::is_control))
    );
    assert!(
        lines.all(|line| line.starts_with([' ', '\t']) && !line[1..].contains(char::is_control)),
        "{field}"
    );
}
