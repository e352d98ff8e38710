//! What a daemon knows of the connection that a login comes by: what a login may be bound to
//! (RFC 5056), and which mechanisms may be used on it, the same in all daemons.

use crate::sasl::Mechanism;

/// Of a connection without TLS, nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channel {
    /// `tls-exporter` (RFC 9266 2).
    pub exporter: Option<[u8; 32]>,
    /// `tls-server-end-point` (RFC 5929 4).
    pub end_point: Option<Vec<u8>>,
    /// SHA-256 of the client's certificate, which TLS has verified.
    pub certificate: Option<[u8; 32]>,
}

impl Channel {
    /// The data of a channel binding, by its registered name. `tls-unique` is not among them: in
    /// TLS 1.3 it says nothing (RFC 9266 4.1).
    pub(crate) fn binding(&self, name: &str) -> Option<&[u8]> {
        match name {
            "tls-exporter" => self.exporter.as_ref().map(<[u8; 32]>::as_slice),
            "tls-server-end-point" => self.end_point.as_deref(),
            _ => None,
        }
    }

    /// Whether -PLUS is announced.
    pub(crate) fn binds(&self) -> bool {
        self.exporter.is_some() || self.end_point.is_some()
    }

    /// Those of `all` that are announced and may be used here. `private` says that a secret may
    /// travel as it is: under TLS, from loopback, or because the operator says so.
    pub fn offers<'a>(
        &'a self,
        all: &'a [Mechanism],
        private: bool,
    ) -> impl Iterator<Item = Mechanism> + 'a {
        all.iter().copied().filter(move |mechanism| {
            (private || !mechanism.is_plaintext())
                && (self.binds() || !mechanism.is_bound())
                && (self.certificate.is_some() || *mechanism != Mechanism::External)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_is_offered_what_works_on_it() {
        let bare = Channel::default();
        let exporter = Channel {
            exporter: Some([1; 32]),
            ..Channel::default()
        };
        let end_point = Channel {
            end_point: Some(vec![1; 32]),
            ..Channel::default()
        };
        let certificate = Channel {
            certificate: Some([1; 32]),
            ..Channel::default()
        };
        let bearer = "OAUTHBEARER XOAUTH2 PLAIN LOGIN";
        let scram = "SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5";
        let plus = format!("SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS {scram} {bearer}");
        let table = [
            (&bare, false, scram.to_owned()),
            (&bare, true, format!("{scram} {bearer}")),
            (&exporter, true, plus.clone()),
            (&end_point, true, plus),
            (&certificate, true, format!("EXTERNAL {scram} {bearer}")),
        ];
        for (channel, private, want) in table {
            let names: Vec<_> = channel
                .offers(&Mechanism::ALL, private)
                .map(Mechanism::name)
                .collect();
            assert_eq!(names.join(" "), want);
        }
    }
}
