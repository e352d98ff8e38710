//! Macros: what is known of a session, by the names that Sendmail gave it. Each goes before the
//! steps at which it is wanted: at those that the milter chose, else at those of [`Stage::usual`].

use crate::packet;

/// The code of the packet.
pub const CODE: u8 = b'D';
/// Names that a milter may want at one stage.
const MOST: usize = 128;

/// The value of a macro, by its name without braces. `None`: it is not sent.
pub type Values<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where macros are sent. The numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Connect = 0,
    Helo = 1,
    Mail = 2,
    Recipient = 3,
    Data = 4,
    EndOfMessage = 5,
    EndOfHeader = 6,
}

impl Stage {
    pub(crate) const COUNT: usize = 7;

    /// What is sent to a milter that does not choose: what Sendmail and Postfix send, together.
    pub fn usual(self) -> &'static [&'static str] {
        match self {
            Self::Connect => &[
                "j",
                "_",
                "v",
                "daemon_name",
                "daemon_addr",
                "daemon_port",
                "if_name",
                "if_addr",
                "client_addr",
                "client_name",
                "client_port",
                "client_ptr",
            ],
            Self::Helo => &["tls_version", "cipher", "cipher_bits"],
            Self::Mail => &[
                "i",
                "auth_type",
                "auth_authen",
                "auth_author",
                "mail_mailer",
                "mail_host",
                "mail_addr",
                "tls_version",
                "cipher",
                "cipher_bits",
            ],
            Self::Recipient => &["i", "rcpt_mailer", "rcpt_host", "rcpt_addr"],
            Self::Data | Self::EndOfHeader => &["i"],
            Self::EndOfMessage => &["i", "msg_id", "nrcpts"],
        }
    }

    /// The names in a milter's list: `j {client_addr}`.
    pub(crate) fn names(list: &[u8]) -> Vec<String> {
        String::from_utf8_lossy(list)
            .split([' ', '\t', ','])
            .map(|name| name.trim_start_matches('{').trim_end_matches('}'))
            .filter(|name| !name.is_empty())
            .take(MOST)
            .map(str::to_owned)
            .collect()
    }
}

/// Appends the macros that go before a step with `code`; nothing where none has a value.
pub(crate) fn write<'n>(
    code: u8,
    names: impl Iterator<Item = &'n str>,
    values: Values<'_>,
    most: usize,
    out: &mut Vec<u8>,
) {
    let mut data = vec![code];
    for name in names {
        let Some(value) = values(name) else { continue };
        let value = value.replace('\0', "");
        let pair = match name.len() {
            1 => format!("{name}\0{value}\0"),
            _ => format!("{{{name}}}\0{value}\0"),
        };
        if data.len() + pair.len() <= most {
            data.extend_from_slice(pair.as_bytes());
        }
    }
    if data.len() > 1 {
        packet::write(CODE, &[&data], out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(names: &[&str], most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let values = |name: &str| match name {
            "j" => Some("mail.example".into()),
            "client_addr" => Some("192.0.2.1\0x".into()),
            _ => None,
        };
        write(b'C', names.iter().copied(), &values, most, &mut out);
        out
    }

    #[test]
    fn names_of_one_letter_have_no_braces() {
        assert_eq!(
            written(&["j", "v", "client_addr"], 100),
            b"\0\0\0\x2aDCj\0mail.example\0{client_addr}\x00192.0.2.1x\0"
        );
    }

    #[test]
    fn what_has_no_value_or_no_room_is_left_out() {
        assert_eq!(written(&["v"], 100), b"");
        assert_eq!(written(&["client_addr", "j"], 20).len(), 4 + 2 + 15);
    }
}
