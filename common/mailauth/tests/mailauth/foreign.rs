//! Against dkimpy (Debian: python3-dkim, python3-authres): each verifies what the other signed.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailauth::arc;
use mailauth::dkim::{Bodies, Header};

use crate::{Keys, NOW, crlf, published, say, sign, verify};

/// Debian's own interpreter: another one does not have the module.
const PYTHON: &str = "/usr/bin/python3";

/// Runs a script with dkimpy loaded; `input` is its `message`, what it writes comes back.
fn dkimpy(script: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let script = format!("import sys, dkim\nmessage = sys.stdin.buffer.read()\n{script}");
    let mut child = Command::new(PYTHON)
        .args(["-c", &script])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("/usr/bin/python3 with dkimpy: see `make needs-check'");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "dkimpy (python3-dkim, python3-authres, see `make needs-check'): {said}"
    );
    done.stdout
}

const MESSAGE: &str = "\
Received: from a by b;
\tTue, 14 Nov 2023 22:13:20 +0000
From: Ann <ann@example.org>
To: bob@example.net,
 carol@example.net
Cc: dave@example.net
Subject:  Spaces \t and
 folds  
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit
Date: Tue, 14 Nov 2023 22:13:20 +0000
Message-ID: <1@example.org>

  Gr\u{fc}\u{df}e \t aus  M\u{fc}nchen \t

.dots

\t
";

#[test]
fn dkimpy_verifies_what_we_sign() {
    let keys = Keys::new();
    let signers = [keys.rsa(), keys.ed25519()];
    for text in [MESSAGE, "From: a@example.org\n\n"] {
        let signed = sign(&crlf(text), &[&signers[0], &signers[1]], NOW);
        for (n, signer) in signers.iter().enumerate() {
            let script = "record = sys.argv[2].encode()\n\
                          found = dkim.DKIM(message).verify(int(sys.argv[1]), \
                          dnsfunc=lambda name, timeout=5: record)\n\
                          print(found)";
            let said = dkimpy(script, &[&n.to_string(), &signer.record()], &signed);
            assert_eq!(said, b"True\n", "{}", signer.algorithm());
        }
    }
}

#[test]
fn we_verify_what_dkimpy_signs() {
    let keys = Keys::new();
    let (rsa, ed) = (keys.rsa(), keys.ed25519());
    let (_file, zone) = published(&[&rsa, &ed]);
    let seed = keys.0.path().join("seed");
    std::fs::write(&seed, STANDARD.encode(seed_of(&keys.0.path().join("ed")))).unwrap();
    let rsa_file = keys.0.path().join("rsa");
    let script = "selector, file, algorithm, header, body, length = sys.argv[1:]\n\
        field = dkim.sign(message, selector.encode(), b'example.org', open(file, 'rb').read(), \
        canonicalize=(header.encode(), body.encode()), signature_algorithm=algorithm.encode(), \
        length=length == 'l', identity=b'@mail.example.org')\n\
        sys.stdout.buffer.write(field + message)";
    for text in [MESSAGE, "From: a@example.org\n\n"] {
        for (selector, file, algorithm) in [
            ("rsa", &rsa_file, "rsa-sha256"),
            ("ed", &seed, "ed25519-sha256"),
        ] {
            for header in ["simple", "relaxed"] {
                for body in ["simple", "relaxed"] {
                    let file = file.to_str().unwrap();
                    let all = [selector, file, algorithm, header, body, ""];
                    let signed = dkimpy(script, &all, &crlf(text));
                    let later = u64::MAX;
                    assert_eq!(say(&verify(&signed, &zone, later)), ["pass"], "{all:?}");
                    // With l=, what is added behind does not count, and is counted. (Behind an empty
                    // body there is nothing to add: its one line end would be another one.)
                    if text != MESSAGE {
                        continue;
                    }
                    let all = [selector, file, algorithm, header, body, "l"];
                    let mut signed = dkimpy(script, &all, &crlf(text));
                    signed.extend_from_slice(b"More\r\n");
                    let verdicts = verify(&signed, &zone, later);
                    assert_eq!(say(&verdicts), ["pass"], "{all:?}");
                    assert!(
                        verdicts[0].unsigned >= 6,
                        "{all:?}: {}",
                        verdicts[0].unsigned
                    );
                }
            }
        }
    }
}

/// RFC 8410 7: the last 32 octets of the PKCS #8 form are the seed, which is what dkimpy reads.
fn seed_of(pem: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(pem).unwrap();
    let lines: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(lines).unwrap();
    der[der.len() - 32..].to_vec()
}

#[test]
fn chains_that_dkimpy_seals() {
    let keys = Keys::new();
    let rsa = keys.rsa();
    let (_file, zone) = published(&[&rsa]);
    let file = keys.0.path().join("rsa");
    let script = "fields = dkim.arc_sign(message, b'rsa', b'example.org', \
        open(sys.argv[1], 'rb').read(), b'mx.example.org', \
        include_headers=[b'from', b'to', b'subject', b'date', b'message-id'])\n\
        sys.stdout.buffer.write(b''.join(fields))";
    let mut message = crlf(MESSAGE);
    for hop in 1..=3u8 {
        let cv = if hop == 1 { "none" } else { "pass" };
        let seen = format!("Authentication-Results: mx.example.org; arc={cv}; spf=pass\r\n");
        let mut with = seen.into_bytes();
        with.extend_from_slice(&message);
        // The results of the hop before are gone, as RFC 8601 5 wants it.
        let mut sealed = dkimpy(script, &[file.to_str().unwrap()], &with);
        sealed.append(&mut message);
        message = sealed;
        let (header, body) = mime::header::split(&message);
        let mut bodies = Bodies::default();
        let verifier = arc::Verifier::new(&Header::new(header), &mut bodies);
        bodies.feed(body);
        let chain = verifier.finish(&bodies.finish(), &zone, u64::MAX);
        assert_eq!(chain, arc::Chain::Pass { oldest_pass: 0 }, "hop {hop}");
        let sealers = verifier.sealers();
        assert_eq!(sealers.len(), usize::from(hop));
        let last = sealers.last().unwrap();
        assert_eq!((last.instance, last.domain.as_str()), (hop, "example.org"));
        assert!(last.results.starts_with(b"mx.example.org;"), "{last:?}");
    }
}
