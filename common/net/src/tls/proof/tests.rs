use std::time::SystemTime;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};

use super::*;
use crate::tls::provider;

/// A private authority and what it has issued.
struct World {
    root: Certificate,
    other_root: Certificate,
    middle: Certificate,
    /// For mx.example.org, by the middle one.
    leaf: Certificate,
    expired: Certificate,
    future: Certificate,
    /// For *.example.org.
    wild: Certificate,
    /// For nobody.
    nameless: Certificate,
    /// By itself, for another.
    alone: Certificate,
    /// By itself, over since 2021.
    old: Certificate,
    garbage: CertificateDer<'static>,
}

fn params(names: &[&str], title: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, title);
    params
}

fn authority(title: &str) -> CertificateParams {
    let mut params = params(&[], title);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl World {
    fn new() -> Self {
        let root_key = KeyPair::generate().unwrap();
        let root = authority("root").self_signed(&root_key).unwrap();
        let top = Issuer::new(authority("root"), root_key);
        let middle_key = KeyPair::generate().unwrap();
        let middle = authority("middle").signed_by(&middle_key, &top).unwrap();
        let issuer = Issuer::new(authority("middle"), middle_key);
        let issue = |params: CertificateParams| {
            let key = KeyPair::generate().unwrap();
            params.signed_by(&key, &issuer).unwrap()
        };
        let alone =
            |params: CertificateParams| params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let named = || params(&["mx.example.org"], "leaf");
        let dated = |from: i32, to: i32| {
            let mut params = named();
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
            params
        };
        Self {
            root,
            other_root: alone(authority("other")),
            middle,
            leaf: issue(named()),
            expired: issue(dated(2020, 2021)),
            future: issue(dated(2100, 2101)),
            wild: issue(params(&["*.example.org"], "wild")),
            nameless: issue(params(&[], "mx.example.org")),
            alone: alone(params(&["elsewhere.example"], "alone")),
            old: alone(dated(2020, 2021)),
            garbage: CertificateDer::from(vec![0x30, 3, 1, 2, 3]),
        }
    }

    /// `more`: what is shown beside, m the middle one, r the root, o the other root.
    fn judge(&self, proof: &Proof, leaf: &CertificateDer<'_>, more: &str) -> Said {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone()).unwrap();
        let chain = more.chars().map(|letter| match letter {
            'm' => &self.middle,
            'r' => &self.root,
            _ => &self.other_root,
        });
        let intermediates: Vec<_> = chain.map(|c| c.der().clone()).collect();
        let provider = provider();
        let shown = Shown {
            end_entity: leaf,
            intermediates: &intermediates,
            now: SystemTime::UNIX_EPOCH.elapsed().unwrap(),
            algorithms: provider.signature_verification_algorithms.all,
        };
        match proof.judge(shown, &roots) {
            Ok(way) => Said::Way(way),
            Err(problem) => Said::problem(&problem),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Way(Way),
    NotTrusted,
    Expired,
    WrongName,
    NoTlsa,
    NoFingerprint,
    Malformed,
}

impl Said {
    fn problem(problem: &Problem) -> Self {
        assert!(problem.to_string().starts_with("certificate "));
        match problem {
            Problem::NotTrusted(_) => Self::NotTrusted,
            Problem::Expired => Self::Expired,
            Problem::WrongName => Self::WrongName,
            Problem::NoTlsa => Self::NoTlsa,
            Problem::NoFingerprint => Self::NoFingerprint,
            Problem::Malformed(_) => Self::Malformed,
        }
    }
}

/// A record that fits a certificate.
fn record(usage: u8, selector: u8, matching: u8, of: &Certificate) -> Tlsa {
    let certificate = EndEntityCert::try_from(of.der());
    let selected = match selector {
        FULL => of.der().to_vec(),
        _ => certificate.unwrap().subject_public_key_info().to_vec(),
    };
    let data = match matching {
        SHA2_256 => digest(&SHA256, &selected).as_ref().to_vec(),
        SHA2_512 => digest(&SHA512, &selected).as_ref().to_vec(),
        _ => selected,
    };
    Tlsa {
        usage,
        selector,
        matching,
        data,
    }
}

fn dane(records: Vec<Tlsa>) -> Proof {
    Proof::Dane {
        records,
        names: vec!["mx.example.org".into(), "example.org".into()],
    }
}

const EE: Said = Said::Way(Way::DaneEe);
const TA: Said = Said::Way(Way::DaneTa);
const UNASKED: Said = Said::Way(Way::Unasked);

#[test]
fn dane_as_rfc_7672_has_it() {
    let w = World::new();
    let (leaf, middle, root) = (&w.leaf, &w.middle, &w.root);
    let whole = "mr";
    let broken = |mut record: Tlsa| {
        record.data.pop();
        record
    };
    let unknown = |usage, selector, matching| Tlsa {
        usage,
        selector,
        matching,
        data: vec![1; 32],
    };
    // The records, what the server shows, and what that is worth.
    let table: Vec<(Vec<Tlsa>, &Certificate, &str, Said)> = vec![
        // Each selector and hash of the end entity's.
        (vec![record(3, 0, 0, leaf)], leaf, "", EE),
        (vec![record(3, 0, 1, leaf)], leaf, "", EE),
        (vec![record(3, 0, 2, leaf)], leaf, "", EE),
        (vec![record(3, 1, 0, leaf)], leaf, "", EE),
        (vec![record(3, 1, 1, leaf)], leaf, "", EE),
        (vec![record(3, 1, 2, leaf)], leaf, "", EE),
        // Neither dates nor names nor issuers count.
        (vec![record(3, 1, 1, &w.old)], &w.old, "", EE),
        (vec![record(3, 1, 1, &w.future)], &w.future, "", EE),
        (vec![record(3, 1, 1, &w.alone)], &w.alone, "", EE),
        (vec![record(3, 1, 1, &w.nameless)], &w.nameless, "", EE),
        // Another's.
        (vec![record(3, 1, 1, leaf)], &w.alone, "", Said::NoTlsa),
        (vec![record(3, 0, 0, &w.alone)], leaf, whole, Said::NoTlsa),
        (vec![record(3, 1, 1, middle)], leaf, whole, Said::NoTlsa),
        // One of several: while a key is changed.
        (
            vec![record(3, 1, 1, &w.alone), record(3, 1, 1, leaf)],
            leaf,
            "",
            EE,
        ),
        (
            vec![record(2, 1, 1, &w.other_root), record(3, 1, 1, leaf)],
            leaf,
            "",
            EE,
        ),
        (
            vec![record(3, 1, 1, &w.alone), record(2, 0, 1, root)],
            leaf,
            whole,
            TA,
        ),
        // Only the strongest hash of one kind.
        (
            vec![record(3, 1, 1, leaf), record(3, 1, 2, &w.alone)],
            leaf,
            "",
            Said::NoTlsa,
        ),
        (
            vec![record(3, 1, 1, leaf), record(3, 0, 2, &w.alone)],
            leaf,
            "",
            EE,
        ),
        (
            vec![record(3, 1, 1, leaf), broken(record(3, 1, 2, &w.alone))],
            leaf,
            "",
            EE,
        ),
        // Issuers, with the chain or in full.
        (vec![record(2, 0, 1, root)], leaf, whole, TA),
        (vec![record(2, 0, 2, root)], leaf, whole, TA),
        (vec![record(2, 1, 1, root)], leaf, whole, TA),
        (vec![record(2, 1, 2, middle)], leaf, "m", TA),
        (vec![record(2, 1, 0, middle)], leaf, "m", TA),
        (vec![record(2, 0, 0, middle)], leaf, "", TA),
        (vec![record(2, 0, 0, root)], leaf, "m", TA),
        (vec![record(2, 0, 1, root)], leaf, "m", Said::NoTlsa),
        (vec![record(2, 0, 0, root)], leaf, "", Said::NotTrusted),
        (
            vec![record(2, 0, 1, &w.other_root)],
            leaf,
            "mro",
            Said::NotTrusted,
        ),
        (vec![record(2, 1, 1, leaf)], leaf, whole, Said::NoTlsa),
        (vec![record(2, 1, 1, &w.alone)], &w.alone, "", Said::NoTlsa),
        // There dates and names count.
        (
            vec![record(2, 0, 1, root)],
            &w.expired,
            whole,
            Said::Expired,
        ),
        (vec![record(2, 0, 1, root)], &w.future, whole, Said::Expired),
        (vec![record(2, 0, 1, root)], &w.wild, whole, TA),
        (
            vec![record(2, 0, 1, root)],
            &w.nameless,
            whole,
            Said::WrongName,
        ),
        // Nothing that is usable: TLS, from whomever.
        (vec![record(0, 0, 1, root)], &w.alone, "", UNASKED),
        (vec![record(1, 1, 1, leaf)], &w.alone, "", UNASKED),
        (vec![unknown(3, 1, 3)], &w.alone, "", UNASKED),
        (vec![unknown(3, 2, 1)], &w.alone, "", UNASKED),
        (
            vec![unknown(4, 1, 1), unknown(255, 255, 255)],
            &w.alone,
            "",
            UNASKED,
        ),
        (vec![broken(record(3, 1, 1, leaf))], &w.alone, "", UNASKED),
        (
            vec![record(1, 1, 1, leaf), record(3, 1, 1, &w.alone)],
            leaf,
            "",
            Said::NoTlsa,
        ),
    ];
    assert!(table.len() >= 20);
    for (records, shown, more, want) in table {
        let said: Vec<_> = records
            .iter()
            .map(|r| (r.usage, r.selector, r.matching))
            .collect();
        assert_eq!(w.judge(&dane(records), shown.der(), more), want, "{said:?}");
    }
    let any = dane(vec![record(3, 1, 1, leaf)]);
    assert_eq!(w.judge(&any, &w.garbage, ""), Said::Malformed);
    let other = Proof::Dane {
        records: vec![record(2, 0, 1, root)],
        names: vec!["mx.example.net".into()],
    };
    assert_eq!(w.judge(&other, leaf.der(), whole), Said::WrongName);
}

#[test]
fn authorities_and_names() {
    let w = World::new();
    let is = |name: &str| Name::Is(name.into());
    let below = |name: &str| Name::Below(name.into());
    let good = Said::Way(Way::Authority);
    let table: Vec<(Vec<Name>, &Certificate, &str, Said)> = vec![
        (vec![is("mx.example.org")], &w.leaf, "m", good),
        (vec![is("MX.Example.ORG")], &w.leaf, "m", good),
        (vec![is("x.org"), is("mx.example.org")], &w.leaf, "m", good),
        (vec![below("example.org")], &w.leaf, "m", good),
        (vec![below("example.org")], &w.wild, "m", good),
        (vec![below("org")], &w.leaf, "m", good),
        (vec![below("ample.org")], &w.leaf, "m", Said::WrongName),
        (vec![below("mx.example.org")], &w.leaf, "m", good),
        (vec![is("example.org")], &w.leaf, "m", Said::WrongName),
        (vec![is("other.example.org")], &w.wild, "m", good),
        (vec![is("a.b.example.org")], &w.wild, "m", Said::WrongName),
        (
            vec![is("mx.example.org")],
            &w.nameless,
            "m",
            Said::WrongName,
        ),
        (vec![], &w.leaf, "m", Said::WrongName),
        (vec![is("mx.example.org")], &w.leaf, "", Said::NotTrusted),
        (vec![is("mx.example.org")], &w.expired, "m", Said::Expired),
        (vec![is("mx.example.org")], &w.future, "m", Said::Expired),
        (
            vec![is("elsewhere.example")],
            &w.alone,
            "",
            Said::NotTrusted,
        ),
    ];
    for (names, leaf, more, want) in table {
        let proof = Proof::Pkix {
            names: names.clone(),
        };
        assert_eq!(w.judge(&proof, leaf.der(), more), want, "{names:?}");
    }
}

#[test]
fn fingerprints_of_certificates_and_keys() {
    let w = World::new();
    let hash = |bytes: &[u8]| <[u8; 32]>::try_from(digest(&SHA256, bytes).as_ref()).unwrap();
    let certificate = EndEntityCert::try_from(w.old.der()).unwrap();
    let key = hash(&certificate.subject_public_key_info());
    let good = Said::Way(Way::Fingerprint);
    for (wanted, want) in [
        (vec![hash(w.old.der())], good),
        (vec![[0; 32], key], good),
        (vec![hash(w.leaf.der())], Said::NoFingerprint),
        (vec![], Said::NoFingerprint),
    ] {
        assert_eq!(w.judge(&Proof::Fingerprint(wanted), w.old.der(), ""), want);
    }
    assert_eq!(w.judge(&Proof::Any, &w.garbage, ""), UNASKED);
}
