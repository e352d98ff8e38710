//! The TLSA records that count for a server: RFC 7672 2.2.
//!
//! They count where DNSSEC proves them and the addresses that lead there. Where the host's name is
//! an alias, the name at its end comes first, then the host's own.

use base::Domain;

use crate::proven::{Proven, ProvenError, State, Tlsa};
use crate::resolve::Resolve;

/// Records beyond this many are not looked at.
const MAX_RECORDS: usize = 32;

/// What a server's domain has published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dane {
    /// The name the records belong to: RFC 7672's TLSA base domain, a name that the server's
    /// certificate may bear, and the one that the server is asked for (SNI).
    pub base: Domain,
    /// At least one.
    pub records: Vec<Tlsa>,
}

/// The records of `host` at a TCP port. `None`: there are none that count, and that is known.
pub fn dane(dns: &dyn Resolve, host: &Domain, port: u16) -> Result<Option<Dane>, ProvenError> {
    if host.ip().is_some() {
        return Ok(None);
    }
    // RFC 7672 2.1.2: without secure addresses nobody is asked for TLSA records, because servers of
    // zones that are not signed may answer that with silence.
    let place = match dns.place(host) {
        Ok(place) => place,
        Err(ProvenError::None) => return Ok(None),
        Err(e) => return Err(e),
    };
    let ends_well = place.is_secure();
    let Proven { value: place, .. } = place;
    let mut bases = Vec::new();
    if ends_well {
        bases.extend(place.alias);
    }
    if place.first == State::Secure {
        bases.push(host.clone());
    }
    for base in bases {
        // A name that is too long with its prefix has no such records.
        let Ok(name) = Domain::parse(&format!("_{port}._tcp.{base}")) else {
            continue;
        };
        match dns.tlsa(&name) {
            Ok(mut found) if found.is_secure() => {
                found.value.truncate(MAX_RECORDS);
                return Ok(Some(Dane {
                    base,
                    records: found.value,
                }));
            }
            Ok(_) | Err(ProvenError::None) => (),
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::Zone;

    const ZONE: &str = "\
$SECURE signed
mx.signed A 192.0.2.1
_25._tcp.mx.signed TLSA 3 1 1 aabb
_25._tcp.mx.signed TLSA 2 0 1 AA BB
plain.signed A 192.0.2.1
alias.signed CNAME mx.signed
own.signed CNAME plain.signed
_25._tcp.own.signed TLSA 3 1 1 01
out.signed CNAME mx.open
_25._tcp.out.signed TLSA 3 1 1 02
lost.signed CNAME mx.open
mx.open A 192.0.2.2
_25._tcp.mx.open TLSA 3 1 1 03
in.open CNAME mx.signed
_25._tcp.in.open TLSA 3 1 1 04
forged.signed A 192.0.2.1
_25._tcp.forged.signed BOGUS
away.signed A 192.0.2.1
_25._tcp.away.signed FAIL
badaddress.signed BOGUS A
badaddress.signed A 192.0.2.1
tlsalias.signed A 192.0.2.1
_25._tcp.tlsalias.signed CNAME _25._tcp.mx.open
";

    #[test]
    fn the_base_domain_of_rfc_7672() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ZONE).unwrap();
        let zone = Zone::load(file.path()).unwrap();
        for (host, want) in [
            ("mx.signed", "mx.signed 3 1 1 aabb, 2 0 1 aabb"),
            ("alias.signed", "mx.signed 3 1 1 aabb, 2 0 1 aabb"),
            ("plain.signed", "none"),
            ("own.signed", "own.signed 3 1 1 01"),
            ("out.signed", "out.signed 3 1 1 02"),
            ("lost.signed", "none"),
            ("mx.open", "none"),
            ("in.open", "none"),
            ("nowhere.signed", "none"),
            ("tlsalias.signed", "none"),
            ("[192.0.2.1]", "none"),
            ("forged.signed", "bogus"),
            ("badaddress.signed", "bogus"),
            ("away.signed", "temporary"),
        ] {
            let said = match dane(&zone, &Domain::parse(host).unwrap(), 25) {
                Ok(Some(Dane { base, records })) => {
                    let all: Vec<_> = records.iter().map(ToString::to_string).collect();
                    format!("{base} {}", all.join(", "))
                }
                Ok(None) | Err(ProvenError::None) => "none".into(),
                Err(ProvenError::Bogus(_)) => "bogus".into(),
                Err(ProvenError::Temporary(_)) => "temporary".into(),
            };
            assert_eq!(said, want, "{host}");
        }
    }
}
