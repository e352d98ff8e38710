use std::fs;
use std::io::Read as _;
use std::sync::Arc;

use super::render::About;
use super::*;
use crate::sts;

fn d(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn outcome<'a>(
    domain: &'a Domain,
    published: &'a Published,
    result: Result<(), (Failure, &'a str)>,
) -> Outcome<'a> {
    Outcome {
        domain,
        published,
        host: domain,
        ip: "192.0.2.1".parse().unwrap(),
        from: None,
        result,
    }
}

const START: i64 = 1_764_000_000 - 1_764_000_000 % 86_400;

#[test]
fn what_was_noted_is_in_the_report() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("tlsrpt");
    let domain = d("example.org");
    let policy = "version: STSv1\nmode: testing\nmx: *.example.org\nmax_age: 100\n";
    let policy = sts::Policy::parse(policy.as_bytes()).unwrap();
    let published = Published::Sts(Arc::new(policy));
    let reports = Reports::new(&place);
    let good = outcome(&domain, &published, Ok(()));
    reports.note(&good);
    reports.note(&good);
    let expired = Err((Failure::Expired, "it is \"over\""));
    reports.note(&outcome(&domain, &published, expired));
    assert!(!place.exists(), "nothing is written yet");
    reports.flush();
    // The next process, and what a crash has left.
    let again = Reports::new(&place);
    again.note(&good);
    let fetch = Published::UnknownSts(sts::FetchError::Failed("404".into()));
    again.note(&outcome(&domain, &fetch, Ok(())));
    let other = d("other.example");
    again.note(&outcome(&other, &Published::Nothing, Ok(())));
    drop(again);
    let file = place.join(name_of(today()));
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{whole}example.org\tsts\t\t\tok")).unwrap();
    let day = day::read(&file).unwrap();
    assert_eq!(
        day.keys().cloned().collect::<Vec<_>>(),
        [domain.clone(), other]
    );
    let about = About {
        domain: &domain,
        submitter: &d("mail.us.example"),
        contact: "tls@us.example",
        start: START,
    };
    assert_eq!(
        render::json(about, &day[&domain]),
        concat!(
            "{\"organization-name\":\"mail.us.example\",",
            "\"date-range\":{\"start-datetime\":\"2025-11-24T00:00:00Z\",\"end-datetime\":\"2025-11-24T23:59:59Z\"},",
            "\"contact-info\":\"tls@us.example\",",
            "\"report-id\":\"1763942400-example.org@mail.us.example\",",
            "\"policies\":[",
            "{\"policy\":{\"policy-type\":\"sts\",\"policy-string\":[],\"policy-domain\":\"example.org\"},",
            "\"summary\":{\"total-successful-session-count\":0,\"total-failure-session-count\":1},",
            "\"failure-details\":[{\"result-type\":\"sts-policy-fetch-error\",\"receiving-mx-hostname\":\"example.org\",",
            "\"receiving-ip\":\"192.0.2.1\",\"failed-session-count\":1,\"failure-reason-code\":\"404\"}]},",
            "{\"policy\":{\"policy-type\":\"sts\",\"policy-string\":[\"max_age: 100\",\"mode: testing\",\"mx: *.example.org\",\"version: STSv1\"],",
            "\"policy-domain\":\"example.org\",\"mx-host\":[\"*.example.org\"]},",
            "\"summary\":{\"total-successful-session-count\":3,\"total-failure-session-count\":1},",
            "\"failure-details\":[{\"result-type\":\"certificate-expired\",\"receiving-mx-hostname\":\"example.org\",",
            "\"receiving-ip\":\"192.0.2.1\",\"failed-session-count\":1,\"failure-reason-code\":\"it is \\\"over\\\"\"}]}]}"
        )
    );
}

#[test]
fn only_days_that_are_over() {
    let dir = tempfile::tempdir().unwrap();
    assert!(day::finished(&dir.path().join("none")).unwrap().is_empty());
    for day in [0, 1, 3, 500, -1] {
        fs::write(dir.path().join(name_of(today() - day)), "").unwrap();
    }
    fs::write(dir.path().join("x"), "").unwrap();
    let days = day::finished(dir.path()).unwrap();
    let back: Vec<i64> = days
        .iter()
        .map(|(start, _)| today() - start / 86_400)
        .collect();
    assert_eq!(back, [3, 1]);
}

#[test]
fn the_message_of_rfc_8460() {
    let about = About {
        domain: &d("example.org"),
        submitter: &d("mail.us.example"),
        contact: "tls@us.example",
        start: START,
    };
    let packed = render::gzip("{}").unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "{}");
    let message = mail::message(about, "reports@example.org", START + 90_000, &[7; 100]);
    for part in [
        "\nTo: reports@example.org\n",
        "\nSubject: Report Domain: example.org Submitter: mail.us.example Report-ID: <1763942400-example.org@mail.us.example>\n",
        "\nTLS-Report-Domain: example.org\nTLS-Report-Submitter: mail.us.example\n",
        "multipart/report; report-type=\"tlsrpt\";",
        "\nContent-Type: application/tlsrpt+gzip\n",
        "filename=\"mail.us.example!example.org!1763942400!1764028799.json.gz\"",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(
        message
            .lines()
            .all(|line| line.len() <= 120 && line.is_ascii())
    );
}
