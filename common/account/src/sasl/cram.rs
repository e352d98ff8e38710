//! CRAM-MD5 (RFC 2195): the server's challenge, and the client's answer to it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use subtle::ConstantTimeEq as _;

/// The client's claim: who it is, and its HMAC of our challenge.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    pub name: String,
    pub challenge: String,
    /// In hexadecimal, lower case.
    pub digest: String,
}

/// `msg-id`, never the same twice. `nonce` is of characters that RFC 5322 lets stand there.
pub(super) fn challenge(nonce: &str) -> String {
    format!("<{nonce}@yubin>")
}

/// RFC 2195 2: the name, a space, and the digest in lower case.
pub(super) fn response(challenge: String, message: &[u8]) -> Result<Response, &'static str> {
    let message = std::str::from_utf8(message).map_err(|_| "user name is not UTF-8")?;
    let (name, digest) = message
        .rsplit_once(' ')
        .ok_or("CRAM-MD5 is a name, a space and a digest")?;
    let hexadecimal = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if digest.len() != 32 || !digest.bytes().all(hexadecimal) {
        return Err("the digest is no MD5 in lower-case hexadecimal");
    }
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err("no user name");
    }
    Ok(Response {
        name: name.into(),
        challenge,
        digest: digest.into(),
    })
}

/// Whether `digest` is the HMAC-MD5 of the challenge by `secret`.
pub fn verify(secret: &[u8], challenge: &str, digest: &str) -> bool {
    let Ok(mac) = Hmac::<Md5>::new_from_slice(secret) else {
        return false; // HMAC takes a key of any length
    };
    let mac = mac.chain_update(challenge).finalize().into_bytes();
    let ours: String = mac.iter().map(|b| format!("{b:02x}")).collect();
    ours.as_bytes().ct_eq(digest.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2195 2's own example.
    #[test]
    fn tim() {
        let challenge = "<1896.697170952@postoffice.reston.mci.net>";
        let said = b"tim b913a602c7eda7a495b4e6e7334d3890";
        let Ok(response) = response(challenge.into(), said) else {
            panic!("not understood");
        };
        assert_eq!(response.name, "tim");
        let fits = |secret: &[u8]| verify(secret, &response.challenge, &response.digest);
        assert!(fits(b"tanstaaftanstaaf"));
        assert!(!fits(b"tanstaaf") && !fits(b""));
        assert!(!verify(b"tanstaaftanstaaf", "<x>", &response.digest));
    }

    #[test]
    fn what_is_no_response() {
        let digest = "b913a602c7eda7a495b4e6e7334d3890";
        let table = [
            String::new(),
            digest.into(),
            format!(" {digest}"),
            format!("tim  {}", digest.to_uppercase()),
            format!("tim {digest}0"),
            format!("tim {digest} "),
            format!("t\0m {digest}"),
            format!("tim\t{digest}"),
        ];
        for said in table {
            assert!(response(String::new(), said.as_bytes()).is_err(), "{said}");
        }
        assert!(response(String::new(), b"\xff b913a602c7eda7a495b4e6e7334d3890").is_err());
    }
}
