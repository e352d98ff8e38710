//! What we tell a milter of a session: the data of its steps.

use std::net::SocketAddr;

/// Ends the message; no answer.
pub const ABORT: u8 = b'A';
/// Ends the conversation; no answer.
pub const QUIT: u8 = b'Q';

/// Ends the conversation, and another client's follows on this connection; no answer.
pub const NEXT_CLIENT: u8 = b'K';

/// Who connected: the name that was found for him, and from where; `None` for no IP address.
pub fn connect(name: &str, from: Option<SocketAddr>) -> Vec<u8> {
    let mut data = texts(&[name]);
    match from {
        None => data.push(b'U'),
        Some(from) => {
            data.push(if from.is_ipv4() { b'4' } else { b'6' });
            data.extend_from_slice(&from.port().to_be_bytes());
            data.extend(texts(&[&from.ip().to_string()]));
        }
    }
    data
}

/// Texts, each with its NUL: a name, or an address in `<>` with its ESMTP parameters.
pub fn texts(texts: &[&str]) -> Vec<u8> {
    let mut data = Vec::new();
    for text in texts {
        data.extend(text.bytes().filter(|&b| b != 0));
        data.push(0);
    }
    data
}

/// A field of the header. `raw` is what stands behind the colon, with its line ends. Of a field that
/// is longer than `most` octets its end is left out.
pub fn field(name: &[u8], raw: &[u8], leading_space: bool, most: usize) -> Vec<u8> {
    let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
    let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
    let raw = match leading_space {
        true => raw,
        false => raw.strip_prefix(b" ").unwrap_or(raw),
    };
    let mut data = Vec::with_capacity(name.len() + raw.len().min(most) + 2);
    data.extend_from_slice(name);
    data.push(0);
    // Continuation lines are divided by LF alone, as Sendmail has them inside.
    let value = raw.iter().filter(|&&b| b != b'\r' && b != 0);
    data.extend(value.take(most.saturating_sub(data.len() + 1)));
    data.push(0);
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_a_name_and_an_address() {
        let v4 = connect("mx.example", Some("192.0.2.1:258".parse().unwrap()));
        assert_eq!(v4, b"mx.example\x004\x01\x02192.0.2.1\0");
        let v6 = connect("mx.example", Some("[2001:db8::1]:25".parse().unwrap()));
        assert_eq!(v6, b"mx.example\x006\0\x192001:db8::1\0");
        assert_eq!(connect("localhost", None), b"localhost\0U");
    }

    #[test]
    fn fields_lose_their_line_ends() {
        let table: [(&[u8], bool, &[u8]); 4] = [
            (b" a\r\n", false, b"A\0a\0"),
            (b" a\r\n", true, b"A\0 a\0"),
            (b"  a\r\n\tb\0\r\n", false, b"A\0 a\n\tb\0"),
            (b"", false, b"A\0\0"),
        ];
        for (raw, space, data) in table {
            assert_eq!(field(b"A", raw, space, 100), data);
        }
        assert_eq!(field(b"A", b"abcdef", false, 5), b"A\0ab\0");
    }
}
