//! TLS reports: what was counted on a day that is over goes to who asks for it, once.

use std::time::{Duration, SystemTime};

use tests::Host;
use tests::foreign::python;

const ZONE: &str = "\
_smtp._tls.wants.example TXT \"v=TLSRPTv1; rua=mailto:alice@yubin.test\"
wants.example A 192.0.2.1
_smtp._tls.web.example TXT \"v=TLSRPTv1; rua=https://web.example/r\"
silent.example A 192.0.2.1
_smtp._tls.later.example FAIL
";

fn day(back: u64) -> String {
    let then = SystemTime::now() - Duration::from_secs(back * 86_400);
    let date = base::date::Date::utc(base::date::unix(then));
    format!("{:04}-{:02}-{:02}", date.year, date.month, date.day)
}

#[test]
fn a_domain_is_told_once_what_happened_yesterday() {
    let mut host = Host::new("TLS_REPORT_FROM=tls@yubin.test\n");
    host.write("etc/yubin/zone", ZONE);
    for program in tests::host::DAEMONS {
        host.start(program);
    }
    let ok = "no-policy-found\t\t\tok\t3\n";
    let failed = "tlsa\t_25._tcp.mx IN TLSA 3 1 1 aa\t\tvalidation-failure\tmx.wants.example\t192.0.2.1\t-\twrong key\t2\n";
    let lines = format!(
        "wants.example\t{ok}wants.example\t{failed}silent.example\t{ok}web.example\t{ok}wants.exam"
    );
    let spool = |name: &str| format!("var/spool/yubin/tlsrpt/{name}");
    host.write(&spool(&day(1)), &lines);
    host.write(&spool(&day(0)), &lines);
    let shown = host.ok("tlsreport", &["-n"], b"");
    assert_eq!(shown.lines().count(), 2, "{shown}");
    for _ in 0..2 {
        host.ok("tlsreport", &[], b"");
    }
    let mbox = tests::wait_for("the report", || {
        Some(host.mbox("alice")).filter(|mbox| mbox.contains("Report Domain"))
    });
    assert_eq!(
        mbox.matches("\nSubject: Report Domain: wants.example ")
            .count(),
        1,
        "{mbox}"
    );
    assert!(!host.path(&spool(&day(1))).exists());
    assert!(host.path(&spool(&day(0))).exists());
    // As other programs read it.
    let said = python(
        "
import gzip, json, mailbox, sys
(message,) = mailbox.mbox(sys.argv[1])
assert message.get_content_type() == 'multipart/report', message
assert message.get_param('report-type') == 'tlsrpt'
assert message['TLS-Report-Domain'] == 'wants.example'
(part,) = [p for p in message.walk() if p.get_content_type() == 'application/tlsrpt+gzip']
report = json.loads(gzip.decompress(part.get_payload(decode=True)))
none, dane = sorted(report['policies'], key=lambda p: p['policy']['policy-type'])
assert none['summary'] == {'total-successful-session-count': 3, 'total-failure-session-count': 0}, none
assert dane['summary']['total-failure-session-count'] == 2, dane
assert dane['failure-details'][0]['result-type'] == 'validation-failure', dane
print(report['organization-name'])
",
        &[host.path("var/spool/mail/alice").to_str().unwrap()],
    );
    assert_eq!(said.trim(), "mail.yubin.test");
}

#[test]
fn what_cannot_be_looked_up_waits_three_days() {
    let host = Host::new("TLS_REPORT_FROM=tls@yubin.test\n");
    host.write("etc/yubin/zone", ZONE);
    let path = |back| format!("var/spool/yubin/tlsrpt/{}", day(back));
    for back in [1, 5] {
        host.write(&path(back), "later.example\tno-policy-found\t\t\tok\t3\n");
    }
    let out = host.run("tlsreport", &[], b"");
    assert_eq!(out.status.code(), Some(75));
    assert!(host.path(&path(1)).exists());
    assert!(!host.path(&path(5)).exists());
    let off = Host::new("");
    off.write(&path(1), "later.example\tno-policy-found\t\t\tok\t3\n");
    off.ok("tlsreport", &[], b"");
    assert!(off.path(&path(1)).exists());
}
