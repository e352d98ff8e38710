//! DMARC against zones: who passes, and what is wanted of who does not.

use std::io::Write;

use dns::Zone;
use tempfile::NamedTempFile;

use super::*;

/// Records divided by `|`: `NAME TAGS` is a DMARC record, `!LINE` a line of a zone file.
pub(super) fn zone(records: &str) -> (NamedTempFile, Zone) {
    let mut file = NamedTempFile::new().unwrap();
    for record in records.split('|').filter(|record| !record.is_empty()) {
        match (record.strip_prefix('!'), record.split_once(' ')) {
            (Some(line), _) => writeln!(file, "{line}").unwrap(),
            (None, Some((name, tags))) => {
                writeln!(file, "_dmarc.{name}. IN TXT \"v=DMARC1; {tags}\"").unwrap();
            }
            (None, None) => panic!("{record}"),
        }
    }
    let zone = Zone::load(file.path()).unwrap();
    (file, zone)
}

/// `spf:DOMAIN`, `dkim:DOMAIN`; with `?` behind it, for what is not known now; with `+` for a
/// signature that leaves the end open.
fn evidence(text: &str) -> (Option<spf::Outcome>, Vec<dkim::Verdict>) {
    let (mut of_spf, mut of_dkim) = (None, Vec::new());
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let (method, name) = word.split_once(':').unwrap();
        let domain: Option<Domain> = name.trim_end_matches(['?', '+']).parse().ok();
        let known = !name.ends_with('?');
        if method == "spf" {
            let verdict = if known {
                spf::Verdict::Pass
            } else {
                spf::Verdict::TempError
            };
            let explanation = None;
            of_spf = Some(spf::Outcome {
                verdict,
                domain,
                explanation,
            });
            continue;
        }
        let outcome = match known {
            true => dkim::Outcome::Pass,
            false => dkim::Outcome::TempError("later".into()),
        };
        of_dkim.push(dkim::Verdict {
            outcome,
            domain,
            selector: None,
            identity: None,
            algorithm: None,
            key_bits: None,
            testing: false,
            unsigned: u64::from(name.ends_with('+')),
            b: String::new(),
        });
    }
    (of_spf, of_dkim)
}

/// `RESULT from=DOMAIN p=POLICY wish=POLICY`
fn say(records: &str, from: &str, proof: &str) -> String {
    let (_file, dns) = zone(records);
    let (of_spf, of_dkim) = evidence(proof);
    let evidence = Evidence {
        spf: of_spf.as_ref(),
        dkim: &of_dkim,
    };
    let header = Header::new(format!("From: {from}\r\n").as_bytes());
    let outcome = judge(&dns, &header, evidence, &|| false);
    format!(
        "{} {} p={} wish={}",
        outcome.result.as_str(),
        outcome
            .from
            .map_or_else(String::new, |from| from.to_string()),
        outcome.policy.map_or("-", Policy::as_str),
        outcome.wish.as_str(),
    )
}

const REJECT: &str = "b.example p=reject";

#[test]
fn who_speaks_for_the_author() {
    let pass = "pass b.example p=reject wish=none";
    let fail = "fail b.example p=reject wish=reject";
    let strict = "b.example p=reject; adkim=s; aspf=s";
    let table = [
        (REJECT, "", fail),
        (REJECT, "spf:b.example", pass),
        (REJECT, "dkim:b.example", pass),
        (REJECT, "spf:other.example dkim:third.example", fail),
        (REJECT, "dkim:other.example dkim:b.example", pass),
        // Relaxed, both ways.
        (REJECT, "spf:bounce.b.example", pass),
        (REJECT, "dkim:x.y.b.example", pass),
        (REJECT, "spf:xb.example", fail),
        (strict, "spf:bounce.b.example dkim:x.b.example", fail),
        (strict, "spf:b.example", pass),
        ("b.example p=reject; adkim=s", "spf:x.b.example", pass),
        ("b.example p=reject; adkim=s", "dkim:x.b.example", fail),
        ("b.example p=reject; aspf=s", "spf:x.b.example", fail),
        // A part of the organization that is one of its own.
        (
            "b.example p=reject|own.b.example p=none; psd=n",
            "dkim:own.b.example",
            fail,
        ),
        (
            "b.example p=reject|hosts.b.example p=none; psd=y",
            "dkim:x.hosts.b.example",
            fail,
        ),
        // Whoever does not sign the whole body.
        (REJECT, "dkim:b.example+", fail),
        // Not known now.
        (
            REJECT,
            "dkim:b.example?",
            "temperror b.example p=reject wish=reject",
        ),
        (
            REJECT,
            "spf:x.b.example?",
            "temperror b.example p=reject wish=reject",
        ),
        (REJECT, "spf:other.example?", fail),
        (REJECT, "dkim:b.example? spf:b.example", pass),
        (
            "b.example p=reject|!_dmarc.x.b.example. IN FAIL",
            "spf:x.b.example",
            "temperror b.example p=reject wish=reject",
        ),
    ];
    for (records, proof, wanted) in table {
        assert_eq!(
            say(records, "a@b.example", proof),
            wanted,
            "{records}: {proof}"
        );
    }
}

#[test]
fn an_organization_speaks_for_those_below() {
    let records = "b.example p=reject; sp=quarantine|!x.b.example. IN A 192.0.2.1";
    for (proof, wanted) in [
        ("", "fail x.b.example p=quarantine wish=quarantine"),
        ("dkim:b.example", "pass x.b.example p=quarantine wish=none"),
        ("spf:y.b.example", "pass x.b.example p=quarantine wish=none"),
        (
            "spf:example",
            "fail x.b.example p=quarantine wish=quarantine",
        ),
    ] {
        assert_eq!(say(records, "a@x.b.example", proof), wanted, "{proof}");
    }
}

#[test]
fn what_the_owner_wants() {
    let np = "b.example p=none; sp=quarantine; np=reject|!x.b.example. IN A 192.0.2.1";
    let table = [
        ("", "a@b.example", "none b.example p=- wish=none"),
        (
            "b.example p=none",
            "a@b.example",
            "fail b.example p=none wish=none",
        ),
        (
            "b.example p=reject; t=y",
            "a@b.example",
            "fail b.example p=reject wish=quarantine",
        ),
        (
            "b.example p=quarantine; t=y",
            "a@b.example",
            "fail b.example p=quarantine wish=none",
        ),
        (
            "b.example p=reject; pct=0",
            "a@b.example",
            "fail b.example p=reject wish=quarantine",
        ),
        (
            "b.example p=what",
            "a@b.example",
            "none b.example p=- wish=none",
        ),
        (
            "b.example p=reject|b.example p=none",
            "a@b.example",
            "none b.example p=- wish=none",
        ),
        (
            "b.example p=reject|!_dmarc.b.example. IN TXT \"x\"",
            "a@b.example",
            "fail b.example p=reject wish=reject",
        ),
        (np, "a@b.example", "fail b.example p=none wish=none"),
        (
            np,
            "a@x.b.example",
            "fail x.b.example p=quarantine wish=quarantine",
        ),
        (np, "a@y.b.example", "fail y.b.example p=reject wish=reject"),
        // A suffix that speaks for those who say nothing.
        (
            "example psd=y; p=reject",
            "a@b.example",
            "fail b.example p=reject wish=reject",
        ),
        (
            "example psd=y; p=reject|b.example p=none",
            "a@b.example",
            "fail b.example p=none wish=none",
        ),
        (
            "!_dmarc.b.example. IN FAIL",
            "a@b.example",
            "temperror b.example p=- wish=none",
        ),
        (
            "!_dmarc.example. IN FAIL",
            "a@b.example",
            "temperror b.example p=- wish=none",
        ),
        (
            "b.example p=none; np=reject|!x.b.example. IN FAIL",
            "a@x.b.example",
            "temperror x.b.example p=- wish=none",
        ),
    ];
    for (records, from, wanted) in table {
        assert_eq!(say(records, from, ""), wanted, "{records}: {from}");
    }
}

/// RFC 9989 11.5.
#[test]
fn several_authors_do_not_hide_one() {
    let records = "b.example p=reject|q.example p=quarantine|!_dmarc.slow.example. IN FAIL";
    let crowd: String = (0..9).map(|n| format!("a@d{n}.example, ")).collect();
    let table = [
        (
            "a@mine.example, x@b.example",
            "dkim:mine.example",
            "fail b.example p=reject wish=reject",
        ),
        (
            "a@q.example, x@b.example",
            "",
            "fail b.example p=reject wish=reject",
        ),
        (
            "a@q.example, x@b.example",
            "spf:b.example",
            "fail q.example p=quarantine wish=quarantine",
        ),
        (
            "x@b.example, y@b.example",
            "spf:b.example",
            "pass b.example p=reject wish=none",
        ),
        (
            "a@slow.example, x@none.example",
            "",
            "temperror slow.example p=- wish=reject",
        ),
        ("", "", "permerror  p=- wish=none"),
        (&crowd, "", "permerror  p=- wish=reject"),
    ];
    for (from, proof, wanted) in table {
        assert_eq!(say(records, from, proof), wanted, "{from}: {proof}");
    }
}
