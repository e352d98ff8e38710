use std::fs;

use super::*;

const ZONE: &str = "\
$SECURE signed
$SECURE sts.open
mx.signed A 192.0.2.1
_25._tcp.mx.signed TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000001
plain.signed A 192.0.2.2
useless.signed A 192.0.2.3
_25._tcp.useless.signed TLSA 1 1 1 0000000000000000000000000000000000000000000000000000000000000001
alias.signed CNAME mx.signed
forged.signed A 192.0.2.4
_25._tcp.forged.signed BOGUS
silent.signed A 192.0.2.5
_25._tcp.silent.signed FAIL
mx.open A 192.0.2.6
other.open A 192.0.2.7
dane.signed MX 10 mx.signed
dane.signed MX 20 plain.signed
dane.signed MX 20 useless.signed
dane.signed MX 30 alias.signed
dane.signed MX 40 forged.signed
dane.signed MX 40 silent.signed
dane.signed MX 50 mx.open
both.signed MX 10 mx.signed
both.signed MX 20 plain.signed
_mta-sts.both.signed TXT \"v=STSv1; id=enforce\"
bogus.signed MX 10 mx.signed
bogus.signed BOGUS MX
fail.signed MX 10 mx.signed
fail.signed FAIL MX
half.open MX 10 mx.signed
open.open MX 10 mx.open
enforce.open MX 10 mx.open
_mta-sts.enforce.open TXT \"v=STSv1; id=enforce\"
testing.open MX 10 mx.open
_mta-sts.testing.open TXT \"v=STSv1; id=testing\"
none.open MX 10 mx.open
_mta-sts.none.open TXT \"v=STSv1; id=none\"
broken.open MX 10 mx.open
only.example MX 10 mx.open
encrypt.example MX 10 mx.open
verify.example MX 10 mx.open
secure.example MX 10 mx.open
print.example MX 10 mx.open
_mta-sts.broken.open TXT \"v=STSv1; id=broken\"
";

const TABLE: &str = "\
may.example may
none.example none
encrypt.example encrypt
only.example dane-only
dane.signed.example dane-only
verify.example verify
secure.example secure match=relay.example:dot-nexthop
print.example fingerprint match=0000000000000000000000000000000000000000000000000000000000000000
enforce.open.example auto
[hub.example] encrypt
[mx.signed]:587 none
";

fn decider(more: &str) -> (tempfile::TempDir, Decider) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    fs::write(dir.path().join("zone"), ZONE).unwrap();
    fs::write(dir.path().join("table"), TABLE).unwrap();
    let text = format!("DNS_ZONE_FILE=/zone\nTLS_POLICY=/table\n{more}");
    let config = Config::parse(&root, &text, Path::new("yubin.def")).unwrap();
    let fetch = |host: &str, _: &str| {
        let mode = host.split('.').nth(1).unwrap();
        match mode {
            "broken" => Err(sts::FetchError::Failed("404".into())),
            "none" => Ok(b"version: STSv1\nmode: none\nmax_age: 1000\n".to_vec()),
            _ => {
                let mode = if mode == "testing" { mode } else { "enforce" };
                let names = "mx: mx.open\nmx: mx.signed\nmx: plain.signed\n";
                Ok(format!("version: STSv1\nmode: {mode}\n{names}max_age: 1000\n").into_bytes())
            }
        }
    };
    let dns = dns::open(&root, &config).unwrap();
    let decider = Decider::with(&root, &config, dns, Box::new(fetch)).unwrap();
    (dir, decider)
}

/// Who wants what: `must dane`, `may any`.
fn say(answer: &Result<Security, Refused>) -> String {
    match answer {
        Ok(security) => {
            let tls = match security.tls {
                Tls::Never => "never",
                Tls::May => "may",
                Tls::Must => "must",
            };
            let proof = match &security.proof {
                Proof::Any => "any".to_owned(),
                Proof::Dane { names, .. } => format!("dane {}", names.join(" ")),
                Proof::Fingerprint(_) => "fingerprint".to_owned(),
                Proof::Pkix { names } => {
                    let all: Vec<_> = names
                        .iter()
                        .map(|name| match name {
                            Name::Is(name) => name.clone(),
                            Name::Below(name) => format!(".{name}"),
                        })
                        .collect();
                    format!("pkix {}", all.join(" "))
                }
            };
            assert_eq!(
                security.strict,
                security.proof != Proof::Any && security.tls == Tls::Must
            );
            format!("{}: {tls} {proof}", security.why.as_str())
        }
        Err(refused) => format!("{} {}", refused.status, refused.failure.as_str()),
    }
}

fn ask(decider: &Decider, next: &str, host: &str, port: u16, wish: Wish) -> String {
    ask_at(decider, next, host, "192.0.2.1", port, wish, false)
}

fn ask_at(
    decider: &Decider,
    next: &str,
    host: &str,
    ip: &str,
    port: u16,
    wish: Wish,
    login: bool,
) -> String {
    let d = |name: &str| Domain::parse(name).unwrap();
    let (domain, is_host) = match next.strip_prefix('@') {
        Some(host) => (d(host), true),
        None => (d(next), false),
    };
    let targets = [Target {
        host: d(host),
        ip: ip.parse().unwrap(),
    }];
    let asked = Asked {
        next: match is_host {
            true => Next::Host(&domain),
            false => Next::Mx(&domain),
        },
        targets: &targets,
        port,
        wish,
        login,
    };
    let answers = decider.policy_for(&asked);
    assert_eq!(answers.len(), 1);
    // Remembered, it is the same.
    assert_eq!(decider.policy_for(&asked), answers);
    say(&answers[0])
}

#[test]
fn dane_then_mta_sts_then_whatever_there_is() {
    let (_dir, decider) = decider("");
    for (next, host, want) in [
        (
            "dane.signed",
            "mx.signed",
            "DANE: must dane mx.signed dane.signed",
        ),
        ("dane.signed", "plain.signed", "opportunistic: may any"),
        ("dane.signed", "useless.signed", "DANE: must any"),
        (
            "dane.signed",
            "alias.signed",
            "DANE: must dane mx.signed alias.signed dane.signed",
        ),
        ("dane.signed", "forged.signed", "4.7.5 dnssec-invalid"),
        ("dane.signed", "silent.signed", "4.7.5 validation-failure"),
        ("dane.signed", "mx.open", "opportunistic: may any"),
        ("dane.signed", "other.open", "4.7.5 dnssec-invalid"),
        (
            "both.signed",
            "mx.signed",
            "DANE: must dane mx.signed both.signed",
        ),
        (
            "both.signed",
            "plain.signed",
            "MTA-STS: must pkix plain.signed",
        ),
        ("bogus.signed", "mx.signed", "4.7.5 dnssec-invalid"),
        ("fail.signed", "mx.signed", "4.7.5 validation-failure"),
        ("half.open", "mx.signed", "opportunistic: may any"),
        ("mx.signed", "mx.signed", "DANE: must dane mx.signed"),
        ("open.open", "mx.open", "opportunistic: may any"),
        ("enforce.open", "mx.open", "MTA-STS: must pkix mx.open"),
        ("enforce.open", "other.open", "4.7.5 validation-failure"),
        ("testing.open", "mx.open", "MTA-STS: may pkix mx.open"),
        ("testing.open", "other.open", "MTA-STS: may pkix "),
        ("none.open", "mx.open", "opportunistic: may any"),
        ("broken.open", "mx.open", "opportunistic: may any"),
        ("[192.0.2.1]", "[192.0.2.1]", "opportunistic: may any"),
        ("@mx.signed", "mx.signed", "DANE: must dane mx.signed"),
        ("mx.signed", "mx.open", "4.7.5 dnssec-invalid"),
        ("@plain.signed", "plain.signed", "opportunistic: may any"),
        ("@enforce.open", "enforce.open", "opportunistic: may any"),
        // The operator's word.
        ("may.example", "mx.signed", "TLS_POLICY: may any"),
        ("none.example", "mx.signed", "TLS_POLICY: never any"),
        ("encrypt.example", "mx.open", "TLS_POLICY: must any"),
        ("only.example", "mx.open", "4.7.5 dane-required"),
        ("verify.example", "mx.open", "TLS_POLICY: must pkix mx.open"),
        (
            "secure.example",
            "mx.open",
            "TLS_POLICY: must pkix relay.example .secure.example",
        ),
        ("print.example", "mx.open", "TLS_POLICY: must fingerprint"),
        ("@hub.example", "hub.example", "TLS_POLICY: must any"),
    ] {
        assert_eq!(
            ask(&decider, next, host, 25, Wish::Nothing),
            want,
            "{next} {host}"
        );
    }
    let at_587 = ask(&decider, "@mx.signed", "mx.signed", 587, Wish::Nothing);
    assert_eq!(at_587, "TLS_POLICY: never any");
}

#[test]
fn what_the_sender_asks_for() {
    let (_dir, decider) = decider("");
    for (next, host, required, free) in [
        (
            "dane.signed",
            "mx.signed",
            "DANE: must dane mx.signed dane.signed",
            "opportunistic: may any",
        ),
        (
            "dane.signed",
            "plain.signed",
            "REQUIRETLS: must pkix plain.signed",
            "opportunistic: may any",
        ),
        (
            "dane.signed",
            "useless.signed",
            "REQUIRETLS: must pkix useless.signed",
            "opportunistic: may any",
        ),
        (
            "dane.signed",
            "forged.signed",
            "4.7.5 dnssec-invalid",
            "opportunistic: may any",
        ),
        (
            "bogus.signed",
            "mx.signed",
            "4.7.5 dnssec-invalid",
            "opportunistic: may any",
        ),
        (
            "enforce.open",
            "mx.open",
            "MTA-STS: must pkix mx.open",
            "opportunistic: may any",
        ),
        (
            "enforce.open",
            "other.open",
            "4.7.5 validation-failure",
            "opportunistic: may any",
        ),
        (
            "testing.open",
            "mx.open",
            "REQUIRETLS: must pkix mx.open",
            "opportunistic: may any",
        ),
        (
            "testing.open",
            "other.open",
            "5.7.30 validation-failure",
            "opportunistic: may any",
        ),
        (
            "none.open",
            "mx.open",
            "5.7.30 validation-failure",
            "opportunistic: may any",
        ),
        (
            "open.open",
            "mx.open",
            "5.7.30 validation-failure",
            "opportunistic: may any",
        ),
        (
            "@mx.open",
            "mx.open",
            "REQUIRETLS: must pkix mx.open",
            "opportunistic: may any",
        ),
        (
            "[192.0.2.1]",
            "[192.0.2.1]",
            "REQUIRETLS: must pkix 192.0.2.1",
            "opportunistic: may any",
        ),
        (
            "none.example",
            "mx.open",
            "5.7.30 validation-failure",
            "TLS_POLICY: never any",
        ),
        (
            "encrypt.example",
            "mx.open",
            "5.7.30 validation-failure",
            "TLS_POLICY: must any",
        ),
        (
            "verify.example",
            "mx.open",
            "TLS_POLICY: must pkix mx.open",
            "TLS_POLICY: must pkix mx.open",
        ),
        (
            "print.example",
            "mx.open",
            "TLS_POLICY: must fingerprint",
            "TLS_POLICY: must fingerprint",
        ),
    ] {
        let said = ask(&decider, next, host, 25, Wish::RequireTls);
        assert_eq!(said, required, "REQUIRETLS {next} {host}");
        let said = ask(&decider, next, host, 25, Wish::TlsNotRequired);
        assert_eq!(said, free, "TLS-Required: No {next} {host}");
    }
}

#[test]
fn all_threads_have_one() {
    fn is_shared<T: Send + Sync>(_: &T) {}
    let (_dir, decider) = decider("");
    is_shared(&decider);
}

#[test]
fn what_is_turned_off_is_not_asked() {
    let (dir, decider) = decider("DNSSEC=no\nMTA_STS=no\n");
    for (next, host) in [
        ("dane.signed", "mx.signed"),
        ("bogus.signed", "mx.signed"),
        ("enforce.open", "other.open"),
    ] {
        let said = ask(&decider, next, host, 25, Wish::Nothing);
        assert_eq!(said, "opportunistic: may any", "{next}");
    }
    assert!(decider.sts().is_none());
    assert!(!dir.path().join("var").exists());
}

#[test]
fn a_password_goes_to_who_is_proven() {
    for (needs, host, ip, want) in [
        (
            "proof",
            "@hub.open",
            "192.0.2.1",
            "RELAY_LOGINS: must pkix hub.open",
        ),
        (
            "proof",
            "@mx.signed",
            "192.0.2.1",
            "DANE: must dane mx.signed",
        ),
        (
            "proof",
            "@hub.example",
            "192.0.2.1",
            "RELAY_LOGINS: must pkix hub.example",
        ),
        ("proof", "@hub.open", "127.0.0.1", "opportunistic: may any"),
        (
            "proof",
            "none.example",
            "192.0.2.1",
            "4.7.5 validation-failure",
        ),
        (
            "proof",
            "enforce.open",
            "192.0.2.1",
            "MTA-STS: must pkix mx.open",
        ),
        (
            "proof",
            "testing.open",
            "192.0.2.1",
            "RELAY_LOGINS: must pkix mx.open",
        ),
        (
            "proof",
            "open.open",
            "192.0.2.1",
            "RELAY_LOGINS: must pkix open.open .open.open",
        ),
        ("tls", "@hub.open", "192.0.2.1", "opportunistic: must any"),
        (
            "tls",
            "none.example",
            "192.0.2.1",
            "4.7.5 validation-failure",
        ),
        (
            "nothing",
            "@hub.open",
            "192.0.2.1",
            "opportunistic: may any",
        ),
        (
            "nothing",
            "none.example",
            "192.0.2.1",
            "TLS_POLICY: never any",
        ),
    ] {
        let (_dir, decider) = decider(&format!("RELAY_LOGIN_NEEDS={needs}\n"));
        let target = host.strip_prefix('@').unwrap_or("mx.open");
        let said = ask_at(&decider, host, target, ip, 25, Wish::Nothing, true);
        assert_eq!(said, want, "{needs} {host}");
    }
}
