//! One certificate of ours with its key, and the hash of it that a client may bind a login to:
//! `tls-server-end-point` (RFC 5929 4).

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::fail::{Fail, Sysexit};
use ring::digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::provider;

/// The files of one certificate, PEM.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) cert: PathBuf,
    key: PathBuf,
}

impl Pair {
    pub(super) fn new(cert: &Path, key: &Path) -> Self {
        Self {
            cert: cert.into(),
            key: key.into(),
        }
    }

    /// In a directory of their own, by our names or by certbot's.
    pub(super) fn within(dir: &Path) -> Self {
        let certbot = dir.join("fullchain.pem");
        match certbot.exists() {
            true => Self::new(&certbot, &dir.join("privkey.pem")),
            false => Self::new(&dir.join("cert.pem"), &dir.join("key.pem")),
        }
    }
}

/// What changes when a file is replaced or written again: for each, device, inode, mtime, size.
pub(super) type Stamp = [Option<(u64, u64, i64, i64, u64)>; 2];

pub(super) fn stamp(pair: &Pair) -> Stamp {
    [&pair.cert, &pair.key].map(|path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((
            meta.dev(),
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.size(),
        ))
    })
}

/// A chain and its key, which fit each other.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// `None` where RFC 5929 defines none, as for Ed25519.
    pub(crate) end_point: Option<Vec<u8>>,
    /// Of the files when they were read.
    pub(super) stamp: Stamp,
}

impl Certificate {
    /// Reads both files, PEM.
    pub(super) fn load(pair: &Pair) -> Result<Self, Fail> {
        let (cert, key) = (pair.cert.as_path(), pair.key.as_path());
        let stamp = stamp(pair);
        let bad = |path: &Path, why: &dyn fmt::Display| {
            Fail::new(Sysexit::Config, format!("{}: {why}", path.display()))
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect)
            .map_err(|e| bad(cert, &e))?;
        let Some(own) = chain.first() else {
            let mend = "no certificate in it; write a PEM chain, the server's own first";
            return Err(bad(cert, &mend));
        };
        let end_point = end_point(own);
        let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, &e))?;
        let key = CertifiedKey::from_der(chain, private, &provider())
            .map_err(|e| bad(cert, &format!("with key {}: {e}", key.display())))?;
        Ok(Self {
            key: Arc::new(key),
            end_point,
            stamp,
        })
    }
}

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
/// `[0]`, constructed.
const FIRST: u8 = 0xa0;

/// 1.2.840.113549.1.1, of RSA (RFC 8017 A.2): the last octet says which.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// 1.2.840.10045.4, ECDSA (RFC 5758 3.2).
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
/// 2.16.840.1.101.3.4.2, of hashes (RFC 8017 B.1).
const HASH: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// RFC 5929 4.1: the hash that the certificate was signed with, and SHA-256 in the place of MD5 and
/// SHA-1.
fn end_point(der: &[u8]) -> Option<Vec<u8>> {
    let (certificate, _) = take(SEQUENCE, der)?;
    let (_tbs, rest) = take(SEQUENCE, certificate)?;
    let (algorithm, _) = take(SEQUENCE, rest)?;
    let (oid, parameters) = take(OID, algorithm)?;
    let hash = match (oid.strip_prefix(RSA), oid.strip_prefix(ECDSA)) {
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => &digest::SHA256,
        (Some([12]), _) | (_, Some([3, 3])) => &digest::SHA384,
        (Some([13]), _) | (_, Some([3, 4])) => &digest::SHA512,
        (Some([10]), _) => pss(parameters)?,
        _ => return None,
    };
    Some(digest::digest(hash, der).as_ref().to_vec())
}

/// RSASSA-PSS names its hash in the parameters; without a name it is SHA-1 (RFC 8017 A.2.3).
fn pss(parameters: &[u8]) -> Option<&'static digest::Algorithm> {
    let (parameters, _) = take(SEQUENCE, parameters)?;
    let Some((first, _)) = take(FIRST, parameters) else {
        return Some(&digest::SHA256);
    };
    let (algorithm, _) = take(SEQUENCE, first)?;
    let (oid, _) = take(OID, algorithm)?;
    match oid.strip_prefix(HASH)? {
        [1] => Some(&digest::SHA256),
        [2] => Some(&digest::SHA384),
        [3] => Some(&digest::SHA512),
        _ => None,
    }
}

/// The content of the DER value with this tag at the start, and what follows it.
fn take(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x83 => {
            let (octets, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = octets.iter().fold(0, |n, o| n << 8 | usize::from(*o));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// What OpenSSL makes of the certificate that it made itself, by each way of signing.
    #[test]
    fn the_hash_is_the_one_it_was_signed_with() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let pss = "-sigopt rsa_padding_mode:pss";
        let table = [
            ("rsa:2048 -sha1", Some("sha256")),
            ("rsa:2048 -sha256", Some("sha256")),
            ("rsa:2048 -sha384", Some("sha384")),
            ("rsa:2048 -sha512", Some("sha512")),
            (&format!("rsa:2048 -sha512 {pss}"), Some("sha512")),
            (&format!("rsa:2048 -sha256 {pss}"), Some("sha256")),
            (
                "ec -pkeyopt ec_paramgen_curve:P-256 -sha384",
                Some("sha384"),
            ),
            (
                "ec -pkeyopt ec_paramgen_curve:P-256 -sha256",
                Some("sha256"),
            ),
            ("ed25519", None),
        ];
        for (how, want) in table {
            let openssl = |args: &str| {
                let output = Command::new("openssl")
                    .args(args.split_whitespace())
                    .current_dir(dir.path())
                    .stderr(Stdio::null())
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{args}");
                String::from_utf8(output.stdout).unwrap()
            };
            openssl(&format!(
                "req -x509 -nodes -days 2 -subj /CN=x -keyout key.pem -out cert.pem -newkey {how}"
            ));
            let got = Certificate::load(&Pair::new(&cert, &key))
                .unwrap()
                .end_point;
            let got = got.map(|hash| hash.iter().map(|b| format!("{b:02X}")).collect::<String>());
            let want = want.map(|hash| {
                let said = openssl(&format!("x509 -in cert.pem -noout -fingerprint -{hash}"));
                said.split_once('=').unwrap().1.trim().replace(':', "")
            });
            assert_eq!(got, want, "{how}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_none() {
        let table: [&[u8]; 6] = [
            b"",
            b"\x30",
            b"\x30\x82\xff\xff",
            b"\x30\x02\x30\x00",
            b"\x30\x04\x30\x00\x30\x00",
            b"\x30\x84\0\0\0\0",
        ];
        for der in table {
            assert_eq!(end_point(der), None, "{}", der.escape_ascii());
        }
    }
}
