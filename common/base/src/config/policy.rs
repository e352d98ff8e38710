//! POLICY_SERVICES and POLICY_STATES: programs that are asked what is to become of a message, by
//! Postfix's policy delegation protocol, and when.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::root::Root;

/// Another program that is asked what is to become of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyService {
    /// A Unix socket.
    Unix(PathBuf),
    Inet(SocketAddr),
}

impl fmt::Display for PolicyService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inet(address) => write!(f, "inet:{address}"),
        }
    }
}

/// When it is asked, in Postfix's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyState {
    Connect,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    EndOfMessage,
}

impl PolicyState {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Ehlo => "EHLO",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::EndOfMessage => "END-OF-MESSAGE",
        }
    }
}

/// `unix:/path`, `inet:127.0.0.1:10031`
pub(super) fn service(text: &str, root: &Root) -> Result<PolicyService, String> {
    let bad = || "is no service, write unix:/path or inet:127.0.0.1:10031".to_owned();
    if let Some(path) = text
        .strip_prefix("unix:")
        .filter(|path| path.starts_with('/'))
    {
        return Ok(PolicyService::Unix(root.path(path)));
    }
    let address = text.strip_prefix("inet:").ok_or_else(bad)?;
    let address = address.replacen("localhost:", "127.0.0.1:", 1);
    address.parse().map(PolicyService::Inet).map_err(|_| bad())
}

pub(super) fn state(text: &str) -> Result<PolicyState, String> {
    use PolicyState::{Connect, Data, Ehlo, EndOfMessage, Mail, Rcpt};
    let all = [Connect, Ehlo, Mail, Rcpt, Data, EndOfMessage];
    let found = all.into_iter().find(|state| state.as_str() == text);
    found.ok_or_else(|| {
        "is no state, write CONNECT, EHLO, MAIL, RCPT, DATA or END-OF-MESSAGE".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_states() {
        let root = Root::new("/r");
        let table = [
            ("unix:/var/run/p", "unix:/r/var/run/p"),
            ("inet:127.0.0.1:10031", "inet:127.0.0.1:10031"),
            ("inet:localhost:10031", "inet:127.0.0.1:10031"),
            ("inet:[::1]:10031", "inet:[::1]:10031"),
        ];
        for (text, wanted) in table {
            assert_eq!(service(text, &root).unwrap().to_string(), wanted);
        }
        for bad in ["unix:p", "/var/run/p", "inet:10031", "inet:host:1", ""] {
            assert!(service(bad, &root).is_err(), "{bad}");
        }
        assert_eq!(state("END-OF-MESSAGE"), Ok(PolicyState::EndOfMessage));
        assert!(state("rcpt").is_err());
    }
}
