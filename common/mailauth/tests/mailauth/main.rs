//! The crate against the examples of the RFCs, against itself, and against another implementation.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

mod chains;
mod examples;
mod foreign;
mod garbage;
mod openspf;
mod rounds;
mod vectors;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use dns::Zone;
use mailauth::dkim::{Bodies, Header, Signer, Verdict, Verifier};
use tempfile::{NamedTempFile, TempDir};

/// Seconds of the Unix clock at which most signatures here are made.
const NOW: u64 = 1_700_000_000;

/// A resolver with TXT records. An empty text is a name whose server fails.
fn zone(records: &[(&str, &str)]) -> (NamedTempFile, Zone) {
    let mut text = String::new();
    for (name, record) in records {
        match *record {
            "" => writeln!(text, "{name} IN FAIL").unwrap(),
            _ => writeln!(text, "{name} IN TXT \"{record}\"").unwrap(),
        }
    }
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let zone = Zone::load(file.path()).unwrap();
    (file, zone)
}

fn verify(message: &[u8], zone: &Zone, now: u64) -> Vec<Verdict> {
    let (header, body) = mime::header::split(message);
    let mut bodies = Bodies::default();
    let verifier = Verifier::new(&Header::new(header), &mut bodies);
    bodies.feed(body);
    verifier.finish(&bodies.finish(), zone, now)
}

/// In one word each: `pass`, or why not.
fn say(verdicts: &[Verdict]) -> Vec<String> {
    let one = |v: &Verdict| v.outcome.why().unwrap_or("pass").to_owned();
    verdicts.iter().map(one).collect()
}

/// The message with the signatures of all signers above it.
fn sign(message: &[u8], signers: &[&Signer], now: u64) -> Vec<u8> {
    let (header, body) = mime::header::split(message);
    let mut bodies = Bodies::default();
    signers.iter().for_each(|signer| signer.want(&mut bodies));
    bodies.feed(body);
    let (header, hashes) = (Header::new(header), bodies.finish());
    let mut signed = Vec::new();
    for signer in signers {
        let field = signer.sign(&header, &hashes, now).unwrap();
        signed.extend_from_slice(field.as_bytes());
    }
    signed.extend_from_slice(message);
    signed
}

/// Keys written by openssl.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// Runs openssl, writing into a file, and gives the file.
    fn file(&self, name: &str, arguments: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let mut words = arguments.split(' ');
        let made = Command::new("openssl")
            .args(words.next())
            .arg("-out")
            .arg(&path)
            .args(words)
            .output()
            .expect("openssl: see `make needs-check'");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "openssl {arguments}: {said}");
        path
    }

    fn signer(&self, selector: &str, arguments: &str) -> Signer {
        let path = self.file(selector, arguments);
        let pem = std::fs::read_to_string(&path).unwrap();
        let domain = "example.org".parse().unwrap();
        Signer::load(&domain, selector, &pem, &path).unwrap()
    }

    fn rsa(&self) -> Signer {
        self.signer("rsa", "genrsa -traditional 2048")
    }

    fn ed25519(&self) -> Signer {
        self.signer("ed", "genpkey -algorithm ed25519")
    }
}

/// Zone records for signers.
fn published(signers: &[&Signer]) -> (NamedTempFile, Zone) {
    let records: Vec<(String, String)> = signers
        .iter()
        .map(|s| {
            (
                format!("{}._domainkey.{}.", s.selector(), s.domain()),
                s.record(),
            )
        })
        .collect();
    let borrowed: Vec<_> = records
        .iter()
        .map(|(n, r)| (n.as_str(), r.as_str()))
        .collect();
    zone(&borrowed)
}

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}
