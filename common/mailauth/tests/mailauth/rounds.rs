//! Sign, change something, verify.

use mailauth::dkim::{Bodies, Hashes, Header, MAX_SIGNATURES, NotSigned, Outcome};

use crate::{Keys, NOW, crlf, published, say, sign, verify, zone};

/// Every field of it is signed, and no octet is white space that relaxed forgets.
const MESSAGE: &str = "\
From: Ann <ann@example.org>
To: bob@example.net
Subject: Plain text
Date: Tue, 14 Nov 2023 22:13:20 +0000
Message-ID: <1@example.org>

One line.

And another.
";

#[test]
fn all_kinds_of_keys_sign_and_verify() {
    let keys = Keys::new();
    let signers = [
        keys.rsa(),
        keys.signer(
            "pkcs8",
            "genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:2048",
        ),
        keys.signer("big", "genrsa -traditional 4096"),
        keys.ed25519(),
    ];
    let signers: Vec<_> = signers.iter().collect();
    let (_file, zone) = published(&signers);
    for text in [MESSAGE, "From: a@example.org\n\n", "From: a@example.org\n"] {
        let signed = sign(&crlf(text), &signers, NOW);
        let verdicts = verify(&signed, &zone, NOW);
        assert_eq!(say(&verdicts), ["pass"; 4]);
        let bits: Vec<_> = verdicts.iter().map(|v| v.key_bits.unwrap()).collect();
        assert_eq!(bits, [2048, 2048, 4096, 256]);
        let signed = String::from_utf8(signed).unwrap();
        for line in signed.split("\r\n") {
            assert!(line.len() < 78 && !line.contains('\n'), "{line:?}");
            assert_eq!(line, line.trim_end(), "{line:?}");
        }
    }
}

#[test]
fn keys_that_are_too_small_are_not_loaded() {
    let keys = Keys::new();
    let path = keys.file("small", "genrsa -traditional 1024");
    let pem = std::fs::read_to_string(&path).unwrap();
    let domain = "example.org".parse().unwrap();
    let fail = mailauth::dkim::Signer::load(&domain, "small", &pem, &path).unwrap_err();
    let said = fail.to_string();
    assert!(said.contains("openssl genrsa -out FILE 2048"), "{said}");
    assert!(said.contains(path.to_str().unwrap()), "{said}");
}

#[test]
fn each_octet_counts() {
    let keys = Keys::new();
    for signer in [keys.rsa(), keys.ed25519()] {
        let (_file, zone) = published(&[&signer]);
        let signed = sign(&crlf(MESSAGE), &[&signer], NOW);
        assert_eq!(say(&verify(&signed, &zone, NOW)), ["pass"]);
        for at in 0..signed.len() {
            for change in [1, 0x80] {
                let mut altered = signed.clone();
                altered[at] ^= change;
                let verdicts = verify(&altered, &zone, NOW);
                let passed = verdicts.iter().any(|v| v.outcome.is_pass());
                let context = altered[at.saturating_sub(9)..=at].escape_ascii();
                assert!(
                    !passed,
                    "octet {at} of {}: ...{context}",
                    signer.algorithm()
                );
            }
        }
    }
}

#[test]
fn what_relaxed_forgets_and_what_is_not_signed_may_change() {
    let keys = Keys::new();
    let signer = keys.ed25519();
    let (_file, zone) = published(&[&signer]);
    let signed = String::from_utf8(sign(&crlf(MESSAGE), &[&signer], NOW)).unwrap();
    let changes = [
        ("Subject: Plain text", "SUBJECT :  Plain\r\n\ttext \t"),
        ("One line.", "One \t line.  "),
        ("another.\r\n", "another.\r\n\r\n\r\n"),
        ("another.\r\n", "another."),
        ("From: Ann", "X-New: field\r\nFrom: Ann"),
    ];
    for (from, to) in changes {
        let changed = signed.replace(from, to);
        assert_ne!(changed, signed);
        assert_eq!(
            say(&verify(changed.as_bytes(), &zone, NOW)),
            ["pass"],
            "{to:?}"
        );
    }
    // Oversigned: nothing that readers see can be added.
    for name in [
        "From",
        "To",
        "Cc",
        "Reply-To",
        "Subject",
        "Date",
        "Message-ID",
    ] {
        let changed = format!("{name}: added\r\n{signed}");
        let wrong = "signature does not verify";
        assert_eq!(
            say(&verify(changed.as_bytes(), &zone, NOW)),
            [wrong],
            "{name}"
        );
    }
}

#[test]
fn parts_of_any_size_make_one_body() {
    let keys = Keys::new();
    let signer = keys.ed25519();
    let (_file, zone) = published(&[&signer]);
    let signed = sign(&crlf(MESSAGE), &[&signer], NOW);
    let (header, body) = mime::header::split(&signed);
    for size in 1..body.len() {
        let mut bodies = Bodies::default();
        let verifier = mailauth::dkim::Verifier::new(&Header::new(header), &mut bodies);
        body.chunks(size).for_each(|part| bodies.feed(part));
        assert_eq!(
            say(&verifier.finish(&bodies.finish(), &zone, NOW)),
            ["pass"]
        );
    }
}

#[test]
fn times() {
    let keys = Keys::new();
    let signer = keys.ed25519();
    let (_file, zone) = published(&[&signer]);
    let signed = sign(&crlf(MESSAGE), &[&signer], NOW);
    let table = [
        (NOW, "pass"),
        (NOW - 3600, "pass"),
        (NOW - 3601, "signature made in the future"),
        (u64::MAX, "pass"),
    ];
    for (now, wanted) in table {
        assert_eq!(say(&verify(&signed, &zone, now)), [wanted], "{now}");
    }
    let text = String::from_utf8(signed).unwrap();
    let expiring = text.replace("v=1;", &format!("v=1; x={};", NOW + 10));
    let wrong = "signature does not verify";
    assert_eq!(say(&verify(expiring.as_bytes(), &zone, NOW + 10)), [wrong]);
    assert_eq!(
        say(&verify(expiring.as_bytes(), &zone, NOW + 11)),
        ["signature expired"]
    );
}

#[test]
fn what_dns_says_of_a_key() {
    let keys = Keys::new();
    let signer = keys.ed25519();
    let record = signer.record();
    let with = |more: &str| format!("{record}; {more}");
    let signed = sign(&crlf(MESSAGE), &[&signer], NOW);
    let rsa = keys.rsa().record();
    let other = keys.signer("other", "genpkey -algorithm ed25519").record();
    let perm = |why: &str| Outcome::PermError(why.to_owned().into());
    let small = "v=DKIM1; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALVI635dLK4cJJAH3Lx6upo3X/L\
                 m1tQz3mezcWTA3BUBnyIsdnRf57aD5BtNmhPrYYDlWlzw3UgnKisIxktkk5kCAwEAAQ==";
    let table = [
        (record.clone(), Outcome::Pass),
        (with("t=y"), Outcome::Pass),
        (with("t=s"), Outcome::Pass),
        (with("s=tlsa"), perm("key not for mail")),
        (with("h=sha1"), perm("key not for SHA-256")),
        ("v=DKIM1; p=".into(), perm("key revoked")),
        (
            "v=DKIM1; k=ed25519; p=YWI=".into(),
            perm("Ed25519 key without 32 octets"),
        ),
        (rsa, perm("key of another algorithm")),
        (small.into(), Outcome::Policy("RSA key of 512 bits".into())),
        (other, Outcome::Fail("signature does not verify".into())),
    ];
    for (record, wanted) in table {
        let (_file, zone) = zone(&[("ed._domainkey.example.org.", &record)]);
        let verdicts = verify(&signed, &zone, NOW);
        assert_eq!(verdicts[0].outcome, wanted, "{record}");
        assert_eq!(verdicts[0].testing, record.contains("t=y"), "{record}");
    }
    let (_file, nothing) = zone(&[("elsewhere.", "x")]);
    assert_eq!(verify(&signed, &nothing, NOW)[0].outcome, perm("no key"));
    let (_file, broken) = zone(&[("ed._domainkey.example.org.", "")]);
    let outcome = verify(&signed, &broken, NOW).remove(0).outcome;
    assert!(matches!(outcome, Outcome::TempError(_)), "{outcome:?}");
    // Somebody's other TXT record at the same name is in nobody's way.
    let (_file, two) = zone(&[
        ("ed._domainkey.example.org.", "v=spf1 -all"),
        ("ed._domainkey.example.org.", &record),
    ]);
    assert_eq!(say(&verify(&signed, &two, NOW)), ["pass"]);
}

#[test]
fn signatures_that_are_none_are_judged_without_dns() {
    let (_file, zone) = zone(&[("s._domainkey.example.org.", "")]);
    let good = "v=1; a=rsa-sha256; d=example.org; s=s; h=from; b=YWI=; \
                bh=frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=";
    let table = [
        (good.to_owned(), "temperror"),
        (good.replace("v=1", "v=2"), "permerror unknown version"),
        (
            good.replace("rsa-sha256", "rsa-sha1"),
            "permerror SHA-1 is no signature",
        ),
        (
            good.replace("h=from", "h=to"),
            "permerror From is not signed",
        ),
        (
            format!("{good}; i=@example.com"),
            "permerror i= is not under d=",
        ),
        (format!("{good}; q=x"), "permerror unknown query method"),
        (format!("{good}; l=3"), "fail body shorter than l="),
        (format!("{good}; l=2"), "temperror"),
        (good.replace("bh=f", "bh=g"), "fail body hash differs"),
        (format!("{good}; x=1"), "fail signature expired"),
        (
            format!("{good}; d=example.org"),
            "neutral signature is no tag list",
        ),
        ("nonsense".to_owned(), "neutral signature is no tag list"),
    ];
    for (signature, wanted) in table {
        let message = format!("DKIM-Signature: {signature}\r\nFrom: a\r\n\r\n");
        let said = match verify(message.as_bytes(), &zone, NOW).remove(0).outcome {
            Outcome::TempError(_) => "temperror".to_owned(),
            Outcome::PermError(why) => format!("permerror {why}"),
            Outcome::Fail(why) => format!("fail {why}"),
            Outcome::Neutral(why) => format!("neutral {why}"),
            other => format!("{other:?}"),
        };
        assert_eq!(said, wanted, "{signature}");
    }
}

#[test]
fn more_signatures_than_are_looked_at() {
    let keys = Keys::new();
    let signer = keys.ed25519();
    let (_file, zone) = published(&[&signer]);
    let signers = vec![&signer; MAX_SIGNATURES + 2];
    let signed = sign(&crlf(MESSAGE), &signers, NOW);
    let (header, body) = mime::header::split(&signed);
    let mut bodies = Bodies::default();
    let verifier = mailauth::dkim::Verifier::new(&Header::new(header), &mut bodies);
    bodies.feed(body);
    assert_eq!(verifier.left_out(), 2);
    let verdicts = verifier.finish(&bodies.finish(), &zone, NOW);
    assert_eq!(say(&verdicts), ["pass"; MAX_SIGNATURES]);
}

#[test]
fn what_cannot_be_signed() {
    let signer = Keys::new().ed25519();
    let header = Header::new(b"From: a\r\n");
    let none = Hashes::default();
    assert_eq!(signer.sign(&header, &none, NOW), Err(NotSigned::NoBody));
    let mut bodies = Bodies::default();
    signer.want(&mut bodies);
    let hashes = bodies.finish();
    let nobody = Header::new(b"To: a\r\n");
    assert_eq!(signer.sign(&nobody, &hashes, NOW), Err(NotSigned::NoFrom));
    assert!(signer.sign(&header, &hashes, NOW).is_ok());
}
