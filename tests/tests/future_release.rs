//! Mail that is to wait (FUTURERELEASE, RFC 4865): from Python's smtplib, through restarts, to the moment
//! that its sender chose; or to the operator, who lets it go or removes it.

use std::time::{Duration, Instant};

use tests::foreign::{ForeignMta, python};
use tests::{Host, wait_for};

const ZONE: &str = "else.where. IN MX 10 mx.else.where.\nmx.else.where. IN A 127.0.0.1\n";

/// What all scripts begin with: alice has logged in, and sends with such parameters.
const CLIENT: &str = "
import smtplib, sys, time, datetime
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))
s.login('alice', 'alice')
s.ehlo('client.test')
limits = s.esmtp_features['futurerelease'].split()
def date(ahead): return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + ahead))
def send(subject, to, *options):
    code, text = s.mail('alice@yubin.test', options)
    if code != 250:
        s.rset()
        return code
    for one in to: assert s.rcpt(one)[0] in (250, 251)
    code, text = s.data('Subject: %s\\r\\n\\r\\nx\\r\\n' % subject)
    assert code == 250, text
    return text.split()[-1].decode()
";

fn client(host: &Host, script: &str) -> String {
    python(
        &format!("{CLIENT}{script}"),
        &[&host.submission.to_string(), &host.smtp.to_string()],
    )
}

/// Neither kill -9 of all that touch the queue nor a run of the queue by hand lets it go too early.
#[test]
fn what_is_to_wait_waits_and_then_goes() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = ForeignMta::start(dir.path());
    let mut host = Host::new(&format!("RELAY_PORT={}\n", foreign.port));
    host.write("etc/yubin/zone", ZONE);
    for program in tests::host::DAEMONS {
        host.start(program);
    }
    let sent = Instant::now();
    let id = client(
        &host,
        "
assert limits[0] == '2592000', limits
latest = datetime.datetime.strptime(limits[1], '%Y-%m-%dT%H:%M:%SZ')
assert abs((latest - datetime.datetime.utcnow()).total_seconds() - 2592000) < 60, limits
both = ['bob@yubin.test', 'ann@else.where']
for wrong in ['HOLDFOR=2592001', 'HOLDFOR=0', 'HOLDFOR=1d', 'HOLDUNTIL=tomorrow',
              'HOLDUNTIL=' + date(2592100), 'HOLDUNTIL=' + date(-60)]:
    assert send('wrong', both, wrong) == 501, wrong
assert send('wrong', both, 'HOLDFOR=5', 'HOLDUNTIL=' + date(5)) == 501
print(send('later', both, 'HOLDFOR=7'))
# The port for everybody's mail has none of it.
p = smtplib.SMTP('127.0.0.1', int(sys.argv[2])); p.ehlo('client.test')
assert not p.has_extn('futurerelease')
assert p.mail('bob@yubin.test', ['HOLDFOR=5'])[0] == 555
",
    );
    let id = id.trim();
    let shown = host.ok("mailq", &[], b"");
    assert_eq!(
        shown.matches("(waits until 20").count(),
        2,
        "local and relay: {shown}"
    );
    assert!(shown.contains("as its sender wants)\n"), "{shown}");
    let json = host.ok("mailq", &["-j"], b"");
    assert_eq!(json.matches("\"waits_until\":").count(), 2, "{json}");
    assert!(host.log().contains(&format!("{id}: waits until 20")));

    for program in ["smtpd", "qrun", "deliver"] {
        host.kill9(program);
    }
    host.ok("qrun", &["-q"], b"");
    host.ok("deliver", &["-q"], b"");
    for program in ["deliver", "qrun", "smtpd"] {
        host.start(program);
    }
    let waited = sent.elapsed();
    assert!(
        waited < Duration::from_secs(7),
        "too slow to tell: {waited:?}"
    );
    assert_eq!(
        (host.mbox("bob"), foreign.messages().len()),
        (String::new(), 0)
    );
    host.wait_for_mail("bob", 1);
    wait_for("the foreign MTA", || {
        (foreign.messages().len() == 1).then_some(())
    });
    assert!(sent.elapsed() >= Duration::from_secs(6));
    wait_for("an empty queue", || {
        let shown = host.ok("mailq", &[], b"");
        shown.contains("is empty").then_some(())
    });
}

/// `mailq release` and `mailq remove`; and what fails after its time comes back with the request.
#[test]
fn the_operator_and_the_report_know_of_it() {
    let host = Host::started("");
    let ids = client(
        &host,
        "
print(send('released', ['bob@yubin.test'], 'HOLDUNTIL=' + date(3600)))
print(send('removed', ['bob@yubin.test'], 'HOLDFOR=3600'))
print(send('held', ['bob@yubin.test'], 'HOLDFOR=3600'))
print(send('fails', ['ann@no.where'], 'HOLDFOR=1'))
",
    );
    let ids: Vec<&str> = ids.lines().collect();
    let [released, removed, held, fails] = ids[..] else {
        panic!("{ids:?}")
    };
    let said = host.ok("mailq", &["release", released], b"");
    assert_eq!(said, format!("{released}: released\n"));
    host.ok("mailq", &["remove", removed], b"");
    // Put aside and brought back it waits again.
    host.ok("mailq", &["hold", held], b"");
    host.ok("mailq", &["release", held], b"");
    let mbox = host.wait_for_mail("bob", 1);
    assert!(mbox.contains("Subject: released"), "{mbox}");
    let report = host.wait_for_mail("alice", 1);
    assert!(
        report.contains("\nFuture-Release-Request: for;1\n"),
        "{report}"
    );
    assert!(report.contains(fails), "{report}");
    let shown = wait_for("the others to be gone", || {
        let shown = host.ok("mailq", &[], b"");
        shown.contains("in 1 Request").then_some(shown)
    });
    assert!(
        shown.contains(held) && shown.contains("(waits until"),
        "{shown}"
    );
    assert!(!host.mbox("bob").contains("Subject: held"));
}

/// FUTURE_RELEASE=0
#[test]
fn it_can_be_turned_off() {
    let host = Host::started("FUTURE_RELEASE=0\n");
    let script = CLIENT.replace("limits =", "limits = not s.has_extn('futurerelease') #");
    python(
        &format!("{script}\nassert limits\nassert send('x', [], 'HOLDFOR=1') == 555"),
        &[&host.submission.to_string()],
    );
}
