//! The message that a report goes by: RFC 8460 5.3, of RFC 6522's kind. To be submitted with LF.

use base::date::Date;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::render::About;

/// RFC 2045 6.8
const LINE: usize = 76;

/// `to` is an address, `now` seconds since 1970, `report` the JSON, compressed.
pub fn message(about: About<'_>, to: &str, now: i64, report: &[u8]) -> String {
    let About {
        domain,
        submitter,
        contact,
        start,
    } = about;
    let (id, file) = (about.id(), about.file_name());
    let date = Date::utc(now).rfc5322();
    let day = super::name_of(start.div_euclid(86_400));
    let boundary = format!("=_tlsrpt_{start}_{now}");
    let mut body = String::new();
    for line in STANDARD.encode(report).as_bytes().chunks(LINE) {
        body.push_str(&String::from_utf8_lossy(line));
        body.push('\n');
    }
    // RFC 8689 3: a report is to arrive where nothing else does.
    format!(
        "From: {contact}
To: {to}
Date: {date}
Subject: Report Domain: {domain} Submitter: {submitter} Report-ID: <{id}>
Message-ID: <tlsrpt-{now}-{id}>
TLS-Report-Domain: {domain}
TLS-Report-Submitter: {submitter}
TLS-Required: No
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: multipart/report; report-type=\"tlsrpt\";
 boundary=\"{boundary}\"

This is a report in MIME format.

--{boundary}
Content-Type: text/plain; charset=us-ascii

This is a report of {submitter} on the TLS connections by which it sent mail
to {domain} on {day} (UTC), as the domain asks for in _smtp._tls.{domain}.

--{boundary}
Content-Type: application/tlsrpt+gzip
Content-Transfer-Encoding: base64
Content-Disposition: attachment;
 filename=\"{file}\"

{body}
--{boundary}--
"
    )
}
