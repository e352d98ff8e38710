//! Whatever a stranger writes into a header, a body or DNS: an answer, and no end of the program.

use dns::Zone;
use mailauth::arc;
use mailauth::dkim::{Bodies, Canonical, Header, Key, Signature, Verifier};
use mailauth::results::is_ours;
use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};
use proptest::strategy::Just;

use crate::{NOW, zone};

/// Octets, and what makes a parser go further than octets would.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "DKIM-Signature:",
        "ARC-Seal:",
        "ARC-Message-Signature:",
        "From: a\r\n",
        "v=1;",
        "ARC-Authentication-Results: i=1; x\r\n",
        "a=rsa-sha256;",
        "a=ed25519-sha256;",
        "i=1;",
        "d=example.org;",
        "s=s;",
        "h=from;",
        "bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;",
        "b=YWI=;",
        "c=relaxed/relaxed;",
        "cv=none;",
        "l=0;",
        "l=5;",
        "t=1;",
        "x=9;",
        "i=@a;",
        "\r\n",
        "\r\n ",
        "\r",
        "\n",
        "(",
        ")",
        "\"",
        "\\",
        "k=ed25519;",
        "p=",
        "v=DKIM1;",
    ];
    let word = prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    let octets = prop::collection::vec(any::<u8>(), 0..6);
    let part = prop_oneof![8 => word, 1 => octets, 1 => Just(b" ".to_vec())];
    prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
}

fn read(message: &[u8], zone: &Zone) {
    let (header, body) = mime::header::split(message);
    let header = Header::new(header);
    let mut bodies = Bodies::default();
    let dkim = Verifier::new(&header, &mut bodies);
    let arc = arc::Verifier::new(&header, &mut bodies);
    bodies.feed(body);
    let hashes = bodies.finish();
    let verdicts = dkim.finish(&hashes, zone, NOW);
    assert!(verdicts.iter().all(|v| !v.outcome.is_pass()));
    let chain = arc.finish(&hashes, zone, NOW);
    assert!(!matches!(chain, arc::Chain::Pass { .. }));
}

#[test]
fn nothing_that_is_made_up_passes() {
    let key = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let (_file, zone) = zone(&[("s._domainkey.example.org.", key)]);
    proptest!(|(message in text(), value in text())| {
        read(&message, &zone);
        Signature::parse(&value).ok();
        Key::parse(&value).ok();
        is_ours(b"Authentication-Results", &value, "mx.example.org");
    });
}

#[test]
fn parts_change_nothing() {
    proptest!(|(body in text(), size in 1..9usize, length in 0..40u64)| {
        let hashes = |size| {
            let mut bodies = Bodies::default();
            for canonical in [Canonical::Simple, Canonical::Relaxed] {
                bodies.want(canonical, Some(length));
            }
            body.chunks(size).for_each(|part| bodies.feed(part));
            let hashes = bodies.finish();
            [Canonical::Simple, Canonical::Relaxed]
                .map(|c| (hashes.hash(c, None), hashes.hash(c, Some(length))))
        };
        assert_eq!(hashes(size), hashes(usize::MAX));
    });
}
