//! The report of one domain: RFC 8460 4.

use std::io::Write as _;

use base::Domain;
use base::date::Date;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::day::Counted;
use super::json::Json;
use super::line::Kind;

/// Who reports, and about when.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The domain that is told.
    pub domain: &'a Domain,
    /// Ours, as the organization that reports.
    pub submitter: &'a Domain,
    pub contact: &'a str,
    /// The first second of the day, since 1970.
    pub start: i64,
}

impl About<'_> {
    fn end(&self) -> i64 {
        self.start + 86_399
    }

    /// The same for the same day, so that a report that comes twice is known as one.
    pub fn id(&self) -> String {
        format!("{}-{}@{}", self.start, self.domain, self.submitter)
    }

    /// RFC 8460 5.1: `submitter!domain!begin!end.json.gz`
    pub fn file_name(&self) -> String {
        let (submitter, domain) = (self.submitter, self.domain);
        format!("{submitter}!{domain}!{}!{}.json.gz", self.start, self.end())
    }
}

/// As JSON.
pub fn json(about: About<'_>, counted: &Counted) -> String {
    let policies = counted.0.iter().map(|(policy, sessions)| {
        let mut described = vec![
            ("policy-type", Json::text(policy.name.as_str())),
            ("policy-string", Json::texts(&policy.strings)),
            ("policy-domain", Json::text(about.domain.as_str())),
        ];
        if !policy.mx.is_empty() {
            described.push(("mx-host", Json::texts(&policy.mx)));
        }
        let failures = sessions
            .failures
            .iter()
            .filter_map(|(kind, count)| failure(kind, *count));
        Json::Object(vec![
            ("policy", Json::Object(described)),
            (
                "summary",
                Json::Object(vec![
                    (
                        "total-successful-session-count",
                        Json::Number(sessions.successful),
                    ),
                    ("total-failure-session-count", Json::Number(sessions.failed)),
                ]),
            ),
            ("failure-details", Json::List(failures.collect())),
        ])
    });
    let at = |unix: i64| Json::text(Date::utc(unix).iso8601().to_string());
    Json::Object(vec![
        ("organization-name", Json::text(about.submitter.as_str())),
        (
            "date-range",
            Json::Object(vec![
                ("start-datetime", at(about.start)),
                ("end-datetime", at(about.end())),
            ]),
        ),
        ("contact-info", Json::text(about.contact)),
        ("report-id", Json::text(about.id())),
        ("policies", Json::List(policies.collect())),
    ])
    .write()
}

fn failure(kind: &Kind, count: u64) -> Option<Json> {
    let Kind::Failure {
        failure,
        host,
        ip,
        from,
        detail,
    } = kind
    else {
        return None;
    };
    let mut members = vec![("result-type", Json::text(failure.as_str()))];
    if let Some(from) = from {
        members.push(("sending-mta-ip", Json::text(from.to_string())));
    }
    members.extend([
        ("receiving-mx-hostname", Json::text(host.as_str())),
        ("receiving-ip", Json::text(ip.to_string())),
        ("failed-session-count", Json::Number(count)),
    ]);
    if !detail.is_empty() {
        members.push(("failure-reason-code", Json::text(detail)));
    }
    Some(Json::Object(members))
}

/// RFC 8460 5: reports are compressed.
pub fn gzip(text: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}
