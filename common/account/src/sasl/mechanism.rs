//! The mechanisms that are known, and what each gives away.

use super::oauth;
use crate::verifier::Hash;

/// The mechanisms that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// By the client's certificate.
    External,
    ScramSha256Plus,
    ScramSha1Plus,
    ScramSha256,
    ScramSha1,
    CramMd5,
    OAuthBearer,
    XOAuth2,
    Plain,
    Login,
}

impl Mechanism {
    /// Every one, the strongest first.
    pub const ALL: [Self; 10] = [
        Self::External,
        Self::ScramSha256Plus,
        Self::ScramSha1Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::CramMd5,
        Self::OAuthBearer,
        Self::XOAuth2,
        Self::Plain,
        Self::Login,
    ];

    /// In any case, as the client wrote it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|m| m.name().eq_ignore_ascii_case(name))
    }

    /// As it is announced.
    pub fn name(self) -> &'static str {
        match self {
            Self::External => "EXTERNAL",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::XOAuth2 => "XOAUTH2",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Self::ScramSha256 => Hash::Sha256.scheme(),
            Self::ScramSha1 => Hash::Sha1.scheme(),
            Self::CramMd5 => "CRAM-MD5",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// Who the first response says that it is, for the log: nothing of it that is a secret.
    pub fn claimed(self, response: &[u8]) -> String {
        let name = match self {
            // authzid NUL authcid NUL password (RFC 4616 2)
            Self::Plain => response.split(|b| *b == 0).nth(1),
            Self::Login | Self::External => Some(response),
            Self::OAuthBearer | Self::XOAuth2 => oauth::claimed(response),
            // name SP digest (RFC 2195 2)
            Self::CramMd5 => {
                let end = response.iter().rposition(|b| *b == b' ');
                end.and_then(|end| response.get(..end))
            }
            // gs2-header, then n=NAME (RFC 5802 7)
            Self::ScramSha1Plus | Self::ScramSha256Plus | Self::ScramSha1 | Self::ScramSha256 => {
                response
                    .split(|b| *b == b',')
                    .find_map(|part| part.strip_prefix(b"n="))
            }
        };
        let name = name.unwrap_or_default();
        String::from_utf8_lossy(name.get(..name.len().min(256)).unwrap_or_default()).into_owned()
    }

    /// Whether who listens has the password, or a token that is as good. Such a one is for connections under TLS only.
    pub fn is_plaintext(self) -> bool {
        match self {
            Self::ScramSha256Plus
            | Self::ScramSha1Plus
            | Self::ScramSha256
            | Self::ScramSha1
            | Self::External
            | Self::CramMd5 => false,
            Self::OAuthBearer | Self::XOAuth2 | Self::Plain | Self::Login => true,
        }
    }

    /// Whether it is bound to the channel below (RFC 5056): such a one is for TLS only.
    pub fn is_bound(self) -> bool {
        matches!(self, Self::ScramSha256Plus | Self::ScramSha1Plus)
    }

    /// Whether it wants more of a stored secret than that a password fits it.
    pub(crate) fn needs_secret(self) -> bool {
        self.scram().is_some() || self == Self::CramMd5
    }

    /// The hash, where it is one of SCRAM's.
    pub(crate) fn scram(self) -> Option<Hash> {
        match self {
            Self::ScramSha256Plus | Self::ScramSha256 => Some(Hash::Sha256),
            Self::ScramSha1Plus | Self::ScramSha1 => Some(Hash::Sha1),
            Self::External
            | Self::OAuthBearer
            | Self::XOAuth2
            | Self::CramMd5
            | Self::Plain
            | Self::Login => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_they_give_away() {
        let names = Mechanism::ALL.map(Mechanism::name).join(" ");
        assert_eq!(
            names,
            "EXTERNAL SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 OAUTHBEARER XOAUTH2 PLAIN LOGIN"
        );
        for mechanism in Mechanism::ALL {
            let lower = mechanism.name().to_lowercase();
            assert_eq!(Mechanism::parse(&lower), Some(mechanism));
            let gives = ["OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN"].contains(&mechanism.name());
            assert_eq!(mechanism.is_plaintext(), gives);
        }
        assert_eq!(Mechanism::parse("SCRAM-SHA-512"), None);
    }

    #[test]
    fn what_is_logged_of_a_response_is_the_name() {
        let table: [(Mechanism, &[u8], &str); 8] = [
            (Mechanism::Plain, b"\0ann\0secret", "ann"),
            (Mechanism::Plain, b"secret", ""),
            (Mechanism::Login, b"ann", "ann"),
            (Mechanism::CramMd5, b"ann lee 0123", "ann lee"),
            (Mechanism::CramMd5, b"0123", ""),
            (Mechanism::ScramSha256, b"n,,n=ann,r=abc", "ann"),
            (Mechanism::ScramSha1, b"y,a=x,n=ann,r=abc", "ann"),
            (Mechanism::ScramSha1, b"c=biws,r=abc,p=xyz", ""),
        ];
        for (mechanism, response, want) in table {
            assert_eq!(mechanism.claimed(response), want, "{mechanism:?}");
        }
        assert_eq!(Mechanism::Login.claimed(&[b'x'; 5000]).len(), 256);
    }
}
