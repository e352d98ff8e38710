//! What DNSSEC makes of answers: zones that ldns signed and nsd serves, below a root of their own.

use base::Domain;
use dns::{MxAnswer, ProvenError, State, dane};
use tests::name_server::{NameServer, Signed, Zone};

const MAIL: &str = "\
@ IN MX 10 mx
mx IN A 127.0.0.1
_25._tcp.mx IN TLSA 3 1 1 00000000000000000000000000000000000000000000000000000000000000aa
plain IN A 127.0.0.1
alias IN CNAME mx
out IN CNAME mx.open.test.
_25._tcp.out IN TLSA 3 1 1 00000000000000000000000000000000000000000000000000000000000000bb
chain IN CNAME mx.nsec3.test.
*.wild IN A 127.0.0.1
*.wildmx IN MX 10 mx
*.wildtlsa IN TLSA 3 1 1 00000000000000000000000000000000000000000000000000000000000000cc
taken IN A 127.0.0.1
_25._tcp.taken IN CNAME x.wildtlsa
nothing IN TXT x
";

fn zones() -> Vec<Zone<'static>> {
    [
        ("nsec", Signed::Nsec),
        ("nsec3", Signed::Nsec3),
        ("open", Signed::No),
        ("expired", Signed::Expired),
        ("stripped", Signed::Stripped),
        ("another", Signed::ByAnother),
    ]
    .into_iter()
    .map(|(name, signed)| Zone {
        name,
        signed,
        text: MAIL,
    })
    .collect()
}

fn d(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

#[test]
fn secure_insecure_and_bogus_are_three_things() {
    let server = NameServer::start(&zones());
    let dns = server.resolver("");
    let say = |e: &ProvenError| match e {
        ProvenError::None => "none",
        ProvenError::Bogus(_) => "bogus",
        ProvenError::Temporary(_) => "temporary",
    };
    // Twice: what is remembered has the same state.
    for _ in 0..2 {
        for (domain, want) in [
            ("nsec.test", "secure"),
            ("nsec3.test", "secure"),
            ("open.test", "insecure"),
            ("expired.test", "bogus"),
            ("stripped.test", "bogus"),
            ("another.test", "bogus"),
            ("x.wildmx.nsec.test", "secure"),
            ("x.y.wildmx.nsec.test", "secure"),
            ("x.wildmx.nsec3.test", "secure"),
            ("x.wildmx.open.test", "insecure"),
            ("x.wildmx.expired.test", "bogus"),
            ("plain.nsec.test", "none"),
            ("plain.nsec3.test", "none"),
            ("plain.open.test", "none"),
            ("nowhere.nsec.test", "none"),
            ("nowhere.nsec3.test", "none"),
            ("nowhere.open.test", "none"),
            ("nowhere.test", "none"),
            ("plain.stripped.test", "bogus"),
            ("nowhere.expired.test", "bogus"),
        ] {
            let said = match dns.proven_mx(&d(domain)) {
                Ok(mx) => {
                    assert!(matches!(mx.value, MxAnswer::Found(_)), "{domain}");
                    match mx.state {
                        State::Secure => "secure",
                        State::Insecure => "insecure",
                    }
                }
                Err(e) => say(&e),
            };
            assert_eq!(said, want, "MX of {domain}");
        }
        for (host, want) in [
            ("mx.nsec.test", "mx.nsec.test aa"),
            ("mx.nsec3.test", "mx.nsec3.test aa"),
            ("mx.open.test", "none"),
            ("mx.expired.test", "bogus"),
            ("mx.stripped.test", "bogus"),
            ("mx.another.test", "bogus"),
            ("plain.nsec.test", "none"),
            ("plain.nsec3.test", "none"),
            ("alias.nsec.test", "mx.nsec.test aa"),
            ("alias.nsec3.test", "mx.nsec3.test aa"),
            ("alias.open.test", "none"),
            ("chain.nsec.test", "mx.nsec3.test aa"),
            ("chain.open.test", "none"),
            ("out.nsec.test", "out.nsec.test bb"),
            ("out.nsec3.test", "out.nsec3.test bb"),
            ("x.wild.nsec.test", "none"),
            ("y.x.wild.nsec.test", "none"),
            ("taken.nsec.test", "taken.nsec.test cc"),
            ("x.taken.nsec.test", "none"),
            ("x.wild.nsec3.test", "none"),
            ("nothing.nsec.test", "none"),
            ("nowhere.nsec3.test", "none"),
        ] {
            let said = match dane(dns.as_ref(), &d(host), 25) {
                Ok(Some(dane)) => {
                    let last = dane.records.first().and_then(|r| r.data.last());
                    format!("{} {:02x}", dane.base, last.unwrap())
                }
                Ok(None) => "none".into(),
                Err(e) => say(&e).into(),
            };
            assert_eq!(said, want, "TLSA of {host}");
        }
    }
    // Who does not ask for proof sees no difference.
    for domain in ["nsec.test", "open.test", "expired.test", "another.test"] {
        assert!(
            matches!(dns.mx(&d(domain)), Ok(MxAnswer::Found(_))),
            "{domain}"
        );
    }
}

/// The root's own keys do not vouch for ours: as where a name server drops signatures.
#[test]
fn without_validation_nothing_is_secure_and_all_mail_goes() {
    let server = NameServer::start(&zones());
    let anchors = "DNSSEC_ANCHORS=\n";
    let def: String = server
        .def()
        .lines()
        .filter(|line| !line.starts_with("DNSSEC_ANCHORS"))
        .map(|line| format!("{line}\n"))
        .collect();
    for (more, want) in [
        ("DNSSEC=auto\n", Some(State::Insecure)),
        ("DNSSEC=no\n", Some(State::Insecure)),
        ("DNSSEC=yes\n", None),
    ] {
        let root = base::Root::new("/nonexistent");
        let text = format!("{def}{anchors}{more}");
        let config = base::Config::parse(&root, &text, "yubin.def".as_ref()).unwrap();
        let dns = dns::open(&root, &config).unwrap();
        let found = dns.proven_mx(&d("nsec.test"));
        assert_eq!(
            found.as_ref().ok().map(|mx| mx.state),
            want,
            "{more}{found:?}"
        );
        assert!(dns.mx(&d("nsec.test")).is_ok());
    }
}
