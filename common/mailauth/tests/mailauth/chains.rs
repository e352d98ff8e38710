//! Chains that are sealed here, to be broken in every way of RFC 8617 5.2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dns::Zone;
use mailauth::arc::{Chain, Verifier};
use mailauth::dkim::{Bodies, Canonical, Header};
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tempfile::NamedTempFile;

use crate::{NOW, crlf, zone};

/// What a chain of that message is.
pub(crate) fn judge(message: &[u8], zone: &Zone, now: u64) -> Chain {
    let (header, body) = mime::header::split(message);
    let mut bodies = Bodies::default();
    let verifier = Verifier::new(&Header::new(header), &mut bodies);
    bodies.feed(body);
    verifier.finish(&bodies.finish(), zone, now)
}

/// `none`, `pass` with the oldest pass, or why not.
pub(crate) fn say(chain: &Chain) -> String {
    match chain {
        Chain::None => "none".into(),
        Chain::Pass { oldest_pass } => format!("pass {oldest_pass}"),
        Chain::Fail { why, .. } => why.to_string(),
    }
}

const MESSAGE: &str = "\
From: Ann <ann@example.org>
To: list@example.net
Subject: Chains

One line.
";

/// A handler of mail with a key.
struct Handler {
    key: Ed25519KeyPair,
    /// Each instance has a selector of its own, else all have one.
    selectors: bool,
}

impl Handler {
    fn new() -> Self {
        Self {
            key: Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap(),
            selectors: false,
        }
    }

    fn zone(&self) -> (NamedTempFile, Zone) {
        let key = STANDARD.encode(self.key.public_key().as_ref());
        let record = format!("v=DKIM1; k=ed25519; p={key}");
        zone(&[
            ("s._domainkey.example.net.", &record),
            ("x._domainkey.example.net.", ""),
        ])
    }

    fn b(&self, data: &[u8]) -> String {
        STANDARD.encode(self.key.sign(digest(&SHA256, data).as_ref()).as_ref())
    }

    /// Adds a set. `more`: tags for the AMS and the AS.
    fn seal(&self, message: &str, i: usize, cv: &str, more: [&str; 2]) -> String {
        let (header, body) = mime::header::split(message.as_bytes());
        let header = Header::new(header);
        let mut bodies = Bodies::default();
        bodies.want(Canonical::Relaxed, None);
        bodies.feed(body);
        let hash = bodies.finish().hash(Canonical::Relaxed, None).unwrap();
        let bh = STANDARD.encode(hash.sha256);
        let s = if self.selectors {
            format!("s{i}")
        } else {
            "s".into()
        };
        let common = format!("i={i}; a=ed25519-sha256; d=example.net; s={s}; t={NOW}");

        let aar = format!("ARC-Authentication-Results: i={i}; mx.example.net; spf=pass\r\n");
        let [ams_more, seal_more] = more;
        let ams = format!(
            "ARC-Message-Signature: {common}; c=relaxed/relaxed; h=from:to:subject{ams_more};\r\n\
             \tbh={bh}; b="
        );
        let mut data = Vec::new();
        let names = ["from", "to", "subject"].map(str::as_bytes);
        header.choose(names, Canonical::Relaxed, &mut data);
        Canonical::Relaxed.field(ams.as_bytes(), &mut data);
        let ams = format!("{ams}{}\r\n", self.b(&data));

        let seal = format!("ARC-Seal: {common}; cv={cv}{seal_more}; b=");
        let mut data = Vec::new();
        for n in 1..i {
            for name in [
                "arc-authentication-results",
                "arc-message-signature",
                "arc-seal",
            ] {
                // Sets are put on top, so the first is the last.
                let field = header.named(name).nth(i - 1 - n).unwrap();
                Canonical::Relaxed.field(field.all, &mut data);
            }
        }
        for field in [&aar, &ams, &seal] {
            Canonical::Relaxed.field(field.as_bytes(), &mut data);
        }
        let seal = format!("{seal}{}\r\n", self.b(&data));
        format!("{seal}{ams}{aar}{message}")
    }

    /// A chain of `n` sets.
    fn chain(&self, n: usize) -> String {
        let mut message = String::from_utf8(crlf(MESSAGE)).unwrap();
        for i in 1..=n {
            let cv = if i == 1 { "none" } else { "pass" };
            message = self.seal(&message, i, cv, ["", ""]);
        }
        message
    }
}

#[test]
fn whole_chains_pass() {
    let handler = Handler::new();
    let (_file, zone) = handler.zone();
    for n in [1, 2, 3, 50] {
        assert_eq!(
            say(&judge(handler.chain(n).as_bytes(), &zone, NOW)),
            "pass 0",
            "{n}"
        );
    }
    assert_eq!(judge(&crlf(MESSAGE), &zone, NOW), Chain::None);
    let long = handler.chain(51);
    assert_eq!(
        say(&judge(long.as_bytes(), &zone, NOW)),
        "more than 50 ARC sets"
    );
}

/// Step 5: handlers may change the message; from whom on is it whole?
#[test]
fn the_oldest_pass() {
    let handler = Handler::new();
    let (_file, zone) = handler.zone();
    for changed_before in 2..=4usize {
        let mut message = handler.chain(1);
        for i in 2..=4 {
            if i == changed_before {
                message = message.replace("Subject: Chains", "Subject: [list] Chains");
            }
            message = handler.seal(&message, i, "pass", ["", ""]);
        }
        let said = say(&judge(message.as_bytes(), &zone, NOW));
        assert_eq!(said, format!("pass {changed_before}"));
    }
}

#[test]
fn broken_chains_fail() {
    let handler = Handler::new();
    let (_file, zone) = handler.zone();
    let good = handler.chain(2);
    let first = handler.chain(1);
    let no_seal = "a seal does not verify";
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    let table = [
        (changed("One line", "Two lines"), "body hash differs"),
        (
            changed("Subject: Chains", "Subject: Chain"),
            "signature does not verify",
        ),
        (
            changed(
                "i=1; mx.example.net; spf=pass",
                "i=1; mx.example.net; spf=fail",
            ),
            no_seal,
        ),
        (
            changed(
                "i=2; mx.example.net; spf=pass",
                "i=2; mx.example.net; spf=fail",
            ),
            no_seal,
        ),
        (
            changed("cv=none", "cv=pass"),
            "cv= does not fit its instance",
        ),
        (
            changed("cv=pass", "cv=fail"),
            "the last sealer found the chain broken",
        ),
        (changed("ARC-Seal: i=2", "X-Seal: i=2"), "ARC set not whole"),
        (
            changed("ARC-Seal: i=2", "ARC-Seal: i=3"),
            "ARC instances are no row",
        ),
        (changed("s=s;", "s=none;"), "no key"),
        (changed("d=example.net", "d=[192.0.2.1]"), "d= is no domain"),
        (
            changed("a=ed25519-sha256", "a=rsa-sha256"),
            "key of another algorithm",
        ),
        (
            changed("a=ed25519-sha256", "a=rsa-sha1"),
            "SHA-1 is no signature",
        ),
        // The first set taken away: the second says that there was one.
        (
            handler.seal(
                &String::from_utf8(crlf(MESSAGE)).unwrap(),
                1,
                "pass",
                ["", ""],
            ),
            "cv= does not fit its instance",
        ),
        (
            handler.seal(&first, 2, "none", ["", ""]),
            "cv= does not fit its instance",
        ),
        (
            handler.seal(&first, 2, "fail", ["", ""]),
            "the last sealer found the chain broken",
        ),
        (
            handler.seal(&first, 2, "pass", ["", "; h=from"]),
            "ARC-Seal with h=",
        ),
        (
            handler.seal(&first, 2, "pass", [":arc-seal", ""]),
            "ARC-Message-Signature signs a seal",
        ),
    ];
    for (message, wanted) in table {
        let chain = judge(message.as_bytes(), &zone, NOW);
        assert_eq!(say(&chain), wanted);
        assert!(matches!(
            chain,
            Chain::Fail {
                temporary: false,
                ..
            }
        ));
    }
    let unknown = changed("s=s;", "s=x;");
    let chain = judge(unknown.as_bytes(), &zone, NOW);
    assert!(
        matches!(
            chain,
            Chain::Fail {
                temporary: true,
                ..
            }
        ),
        "{chain:?}"
    );
}

/// Each octet of the sets and of what they sign.
#[test]
fn each_octet_counts() {
    let handler = Handler::new();
    let (_file, zone) = handler.zone();
    let good = handler.chain(2).into_bytes();
    for at in 0..good.len() {
        let mut altered = good.clone();
        altered[at] ^= 1;
        let said = say(&judge(&altered, &zone, NOW));
        let context = good[at.saturating_sub(9)..=at].escape_ascii().to_string();
        assert_ne!(said, "pass 0", "octet {at}: ...{context}");
    }
}

/// Fifty sealers with keys of their own are more than we ask for.
#[test]
fn keys_are_bounded() {
    let mut handler = Handler::new();
    handler.selectors = true;
    let key = STANDARD.encode(handler.key.public_key().as_ref());
    let record = format!("v=DKIM1; k=ed25519; p={key}");
    let names: Vec<_> = (1..=50)
        .map(|i| format!("s{i}._domainkey.example.net."))
        .collect();
    let records: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), record.as_str()))
        .collect();
    let (_file, zone) = zone(&records);
    for (n, wanted) in [(30, "pass 0"), (31, "too many keys"), (50, "too many keys")] {
        let chain = judge(handler.chain(n).as_bytes(), &zone, NOW);
        assert_eq!(say(&chain), wanted, "{n}");
    }
}
