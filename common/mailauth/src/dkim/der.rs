//! The little of DER (X.690) that keys need: to look past the wrapping of a public key, to know one
//! kind of private key from another, and to wrap our own public key.
//!
//! Whether a key is a sound one is for the cryptography to say; here are only borders.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

/// 1.2.840.113549.1.1.1, rsaEncryption (RFC 8017 A).
pub(crate) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.3.101.112, id-Ed25519 (RFC 8410 3).
pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The content of the value with this tag at the start, and what follows it.
pub(crate) fn take(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81 | 0x82 => {
            let (octets, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = octets.iter().fold(0, |n, o| n << 8 | usize::from(*o));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The content of the one value that this is.
pub(crate) fn only(tag: u8, der: &[u8]) -> Option<&[u8]> {
    match take(tag, der)? {
        (content, []) => Some(content),
        _ => None,
    }
}

/// One value.
pub(crate) fn put(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    let [.., high, low] = content.len().to_be_bytes();
    match content.len() {
        0..=0x7f => der.push(low),
        0x80..=0xff => der.extend([0x81, low]),
        _ => der.extend([0x82, high, low]),
    }
    der.extend_from_slice(content);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_there_and_back() {
        for length in [0, 1, 127, 128, 255, 256, 65535] {
            let content = vec![7; length];
            let der = put(BIT_STRING, &content);
            assert_eq!(only(BIT_STRING, &der), Some(content.as_slice()));
            assert_eq!(only(INTEGER, &der), None);
            assert_eq!(only(BIT_STRING, &der[..der.len() - 1]), None);
            let more = [der.as_slice(), &[1]].concat();
            assert_eq!(only(BIT_STRING, &more), None);
            assert_eq!(
                take(BIT_STRING, &more),
                Some((content.as_slice(), &[1][..]))
            );
        }
        for wrong in [
            &[][..],
            &[2],
            &[2, 0x80],
            &[2, 0x83, 0, 0, 0],
            &[2, 0x82, 1],
        ] {
            assert_eq!(take(INTEGER, wrong), None);
        }
    }
}
