//! Whether a domain wants reports, and where: RFC 8460 3.

use base::{Address, Domain};
use dns::{DnsError, Resolve};

/// Places of one domain.
const MAX_PLACES: usize = 5;

/// Where a report goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Mail(Address),
    /// A URL, whole.
    Https(String),
}

/// The places that a domain names; none where it wants no reports.
pub fn places(dns: &dyn Resolve, domain: &Domain) -> Result<Vec<Place>, DnsError> {
    let Ok(name) = Domain::parse(&format!("_smtp._tls.{domain}")) else {
        return Ok(Vec::new());
    };
    match dns.txt(&name) {
        Ok(texts) => Ok(record(&texts)),
        Err(DnsError::NxDomain | DnsError::NoData) => Ok(Vec::new()),
        Err(e @ DnsError::Temporary(_)) => Err(e),
    }
}

/// `v=TLSRPTv1; rua=mailto:reports@example.com`; there must be exactly one.
fn record(texts: &[Vec<u8>]) -> Vec<Place> {
    let is_ours = |text: &&Vec<u8>| {
        text.strip_prefix(b"v=TLSRPTv1")
            .is_some_and(|rest| rest.trim_ascii_start().starts_with(b";"))
    };
    let mut records = texts.iter().filter(is_ours);
    let (Some(text), None) = (records.next(), records.next()) else {
        return Vec::new();
    };
    let text = std::str::from_utf8(text).unwrap_or_default();
    let fields = text
        .split(';')
        .skip(1)
        .filter_map(|field| field.split_once('='));
    let rua = fields
        .map(|(name, value)| (name.trim(), value))
        .find(|(name, _)| *name == "rua");
    let uris = rua.map_or("", |(_, uris)| uris).split(',').map(str::trim);
    uris.filter_map(place).take(MAX_PLACES).collect()
}

fn place(uri: &str) -> Option<Place> {
    let (scheme, rest) = uri.split_once(':')?;
    match scheme.to_ascii_lowercase().as_str() {
        // RFC 6068: what stands behind `?` is for people's programs.
        "mailto" => Address::parse(rest.split('?').next()?)
            .ok()
            .map(Place::Mail),
        "https" if rest.starts_with("//") && uri.bytes().all(|b| b.is_ascii_graphic()) => {
            Some(Place::Https(uri.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_reports() {
        let table: &[(&[&str], &str)] = &[
            (
                &["v=TLSRPTv1;rua=mailto:reports@example.com"],
                "reports@example.com",
            ),
            (
                &["v=TLSRPTv1; rua=https://r.example.com/v1/tlsrpt"],
                "https://r.example.com/v1/tlsrpt",
            ),
            (
                &["v=TLSRPTv1; x=y; rua=mailto:a@b.c?subject=x , https://d.e/f;"],
                "a@b.c https://d.e/f",
            ),
            (&["v=spf1 -all", "v=TLSRPTv1; rua=mailto:a@b.c"], "a@b.c"),
            (
                &[
                    "v=TLSRPTv1; rua=mailto:a@b.c",
                    "v=TLSRPTv1; rua=mailto:a@b.c",
                ],
                "",
            ),
            (&["v=TLSRPTv1; rua=mailto:nobody"], ""),
            (&["v=TLSRPTv1; rua=http://a.b/c,ftp://x,https:x"], ""),
            (&["v=TLSRPTv1;"], ""),
            (&["v=TLSRPTv2; rua=mailto:a@b.c"], ""),
            (&[], ""),
        ];
        for (texts, want) in table {
            let texts: Vec<_> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
            let all: Vec<String> = record(&texts)
                .into_iter()
                .map(|place| match place {
                    Place::Mail(address) => address.to_string(),
                    Place::Https(url) => url,
                })
                .collect();
            assert_eq!(all.join(" "), *want, "{texts:?}");
        }
    }
}
