//! One block of PEM (RFC 7468): a private key between its two lines.

use crate::dkim::tags::base64;

/// The first block: its label and its octets. Text around it says nothing.
pub(crate) fn first(text: &str) -> Option<(&str, Vec<u8>)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    if label.contains(['\r', '\n']) {
        return None;
    }
    // RFC 1421 headers (`Proc-Type: 4,ENCRYPTED`) are no base64 and make this none.
    Some((label, base64(body.as_bytes())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks() {
        let table = [
            (
                "x\n-----BEGIN A KEY-----\nYW\nI=\n-----END A KEY-----\n",
                Some("A KEY"),
            ),
            (
                "-----BEGIN A-----\r\nYWI=\r\n-----END A-----\r\n",
                Some("A"),
            ),
            (
                "-----BEGIN A-----\nProc-Type: 4,X\n\nYWI=\n-----END A-----\n",
                None,
            ),
            ("-----BEGIN A-----\nYWI=\n", None),
            ("", None),
        ];
        for (text, label) in table {
            let wanted = label.map(|label| (label, b"ab".to_vec()));
            assert_eq!(first(text), wanted, "{text:?}");
        }
    }
}
