//! Content filters that others wrote (aiosmtpd with smtplib, proxsmtp) between our queue and our way
//! back: all mail goes through them once, whatever happens to them on the way.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tests::foreign::{ForeignMta, ok, python};
use tests::host::{DAEMONS, free_ports};
use tests::smtp::Smtp;
use tests::{Host, wait_for};

const SCRIPT: &str = include_str!("content_filter.py");
const ZONE: &str = "else.where. IN MX 10 mx.else.where.\nmx.else.where. IN A 127.0.0.1\n";
const MAIL: &str = "From: alice@yubin.test\r\nSubject: as it came\r\n\r\nbody\r\n";

/// A filter's process; it ends with its story.
struct Filter(Child);

impl Filter {
    fn start(host: &Host, port: u16, back: u16, mark: &str) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command
            .args(["-c", SCRIPT, &port.to_string(), &back.to_string(), mark])
            .arg(host.path(&format!("{mark}.told")));
        Self::launch(&mut command, port)
    }

    fn launch(command: &mut Command, port: u16) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null());
        let filter = Self(child.stderr(Stdio::null()).spawn().unwrap());
        wait_for("the filter", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        filter
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What the filter was told.
fn told(host: &Host, mark: &str) -> String {
    fs::read_to_string(host.path(&format!("{mark}.told"))).unwrap_or_default()
}

/// Clients on loopback are strangers; the filter brings back to `back`.
fn host(def: &str, back: u16) -> Host {
    let host = Host::new(&format!(
        "MY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\nPLAINTEXT_LOGIN=yes\nMIN_BACKOFF=1s\nMAX_BACKOFF=2s\n\
         REINJECT=127.0.0.1:{back}\n{def}"
    ));
    host.write("etc/yubin/zone", ZONE);
    host
}

fn start(mut host: Host) -> Host {
    for program in DAEMONS {
        host.start(program);
    }
    host
}

fn stranger(host: &Host, to: &str, content: &str) -> String {
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO stranger.example").unwrap();
    smtp.message("someone@far.example", &[to], content).unwrap()
}

/// alice logs in and sends.
fn submit(host: &Host, to: &[&str], subject: &str) {
    let script = "
import smtplib, sys
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]), local_hostname='pc.example')
s.login('alice', 'alice')
s.sendmail('alice@yubin.test', sys.argv[3:], 'From: alice@yubin.test\\r\\nSubject: %s\\r\\n\\r\\nx\\r\\n' % sys.argv[2])
s.quit()
";
    let port = host.submission.to_string();
    python(script, &[&[port.as_str(), subject], to].concat());
}

fn wait_for_empty_queue(host: &Host) {
    wait_for("an empty queue", || {
        host.ok("mailq", &[], b"")
            .contains("is empty")
            .then_some(())
    });
}

fn key(host: &Host) {
    let keys = host.path("etc/yubin/dkim/yubin.test");
    fs::create_dir_all(&keys).unwrap();
    let pem = keys.join("s1.pem");
    ok(
        "openssl",
        &["genrsa", "-out", pem.to_str().unwrap(), "2048"],
        b"",
    );
}

#[test]
fn mail_of_all_ways_goes_through_the_filter_once_and_is_signed_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = ForeignMta::start_utf8(dir.path());
    let [port, back] = free_ports();
    let def = format!(
        "RELAY_PORT={}\nCONTENT_FILTER=smtp:[127.0.0.1]:{port}\nRELAY_DOMAINS=else.where\n",
        foreign.port
    );
    let host = host(&def, back);
    key(&host);
    let host = start(host);
    let _filter = Filter::start(&host, port, back, "one");

    assert!(stranger(&host, "alice@yubin.test", MAIL).starts_with("250 "));
    let mbox = host.wait_for_mail("alice", 1);
    assert_eq!(mbox.matches("\nX-Filtered: one\n").count(), 1, "{mbox}");
    let place = |what: &str| mbox.find(what).unwrap_or_else(|| panic!("{what}: {mbox}"));
    let order = [
        "From someone@far.example",
        "\nReceived: from filter.test (",
        "\nX-Filtered: one\n",
        "\nAuthentication-Results: mail.yubin.test;",
        "\nReceived: from stranger.example (",
        "\nSubject: as it came\n",
    ];
    assert!(order.map(place).is_sorted(), "{mbox}");
    assert_eq!(
        mbox.matches("\nAuthentication-Results:").count(),
        1,
        "{mbox}"
    );
    let said = told(&host, "one");
    assert!(
        said.contains("XFORWARD NAME=[UNAVAILABLE] ADDR=127.0.0.1 PORT="),
        "{said}"
    );
    assert!(
        said.contains("PROTO=ESMTP HELO=stranger.example IDENT="),
        "{said}"
    );
    assert!(said.contains(" SOURCE=REMOTE"), "{said}");
    let log = host.log();
    assert!(log.contains("127.0.0.1], orig_queue_id="), "{log}");
    assert!(log.contains(", orig_client=unknown[127.0.0.1]"), "{log}");

    // A login, to one of ours and to somebody else: one transaction with the filter.
    submit(&host, &["bob@yubin.test", "ann@else.where"], "submitted");
    let mbox = host.wait_for_mail("bob", 1);
    assert_eq!(mbox.matches("\nX-Filtered: one\n").count(), 1, "{mbox}");
    let got = wait_for("the foreign MTA", || foreign.messages().pop());
    assert_eq!(got.matches("\nX-Filtered: one\n").count(), 1, "{got}");
    assert_eq!(got.matches("DKIM-Signature:").count(), 1, "{got}");
    assert!(
        got.find("DKIM-Signature:") < got.find("X-Filtered"),
        "{got}"
    );
    let said = told(&host, "one");
    assert!(
        said.contains("\nTO bob@yubin.test ann@else.where\n"),
        "{said}"
    );
    assert!(said.contains(" SOURCE=LOCAL"), "{said}");

    // sendmail(1), with an address beyond ASCII.
    let mail = "Subject: by hand\n\nx\n";
    host.ok(
        "sendmail",
        &["-f", "bob@yubin.test", "alice", "j\u{f6}rg@else.where"],
        mail.as_bytes(),
    );
    wait_for_empty_queue(&host);
    let said = told(&host, "one");
    assert!(said.contains("MAIL bob@yubin.test\n"), "{said}");
    // Who can be told without SMTPUTF8 is told without it.
    for to in ["alice@yubin.test", "j\u{f6}rg@else.where"] {
        assert!(said.contains(&format!("\nTO {to}\n")), "{said}");
    }
    host.wait_for_mail("alice", 2);
    let got = wait_for("both", || Some(foreign.messages()).filter(|m| m.len() == 2));
    let by_hand = got.iter().find(|m| m.contains("Subject: by hand")).unwrap();
    assert_eq!(
        by_hand.matches("\nX-Filtered: one\n").count(),
        1,
        "{by_hand}"
    );

    // A stranger who says that it is alice's: it is relayed, and not as ours.
    assert!(
        stranger(
            &host,
            "ann@else.where",
            &MAIL.replace("as it came", "forged")
        )
        .starts_with("250 ")
    );
    let got = wait_for("all three", || {
        Some(foreign.messages()).filter(|m| m.len() == 3)
    });
    let forged = got.iter().find(|m| m.contains("Subject: forged")).unwrap();
    assert!(forged.contains("\nX-Filtered: one\n"), "{forged}");
    assert!(!forged.contains("DKIM-Signature"), "{forged}");
    // Whom we would not relay for, the filter does not see.
    assert!(stranger(&host, "x@other.example", MAIL).starts_with("550 5.7.1 "));
    wait_for_empty_queue(&host);
    assert_eq!(told(&host, "one").matches("MAIL ").count(), 5);
}

/// Nobody listens; then somebody who dies in the middle, puts off and refuses.
#[test]
fn nothing_is_lost_and_nothing_comes_twice_whatever_the_filter_does() {
    let [port, back] = free_ports();
    let host = start(host(
        &format!("CONTENT_FILTER=smtp:[127.0.0.1]:{port}\n"),
        back,
    ));
    for what in ["X-Later", "X-Die", "X-Nothing"] {
        let mail = format!("{what}: {what}\r\n{MAIL}");
        assert!(stranger(&host, "alice@yubin.test", &mail).starts_with("250 "));
    }
    wait_for("a first attempt", || {
        host.log().contains("status=deferred").then_some(())
    });
    let shown = host.ok("mailq", &[], b"");
    let line = format!("(content filter smtp:[127.0.0.1]:{port})\n");
    assert_eq!(shown.matches(&line).count(), 3, "{shown}");
    assert!(shown.contains("Connection refused"), "{shown}");
    let json = host.ok("mailq", &["-j"], b"");
    let member = format!("\"content_filter\":\"smtp:[127.0.0.1]:{port}\"");
    assert_eq!(json.matches(&member).count(), 3, "{json}");
    assert_eq!(json.matches("\"lane\":\"relay\"").count(), 3, "{json}");
    assert_eq!(host.mbox("alice"), "");

    // It is up, and cannot bring back: that is its refusal.
    let [nobody] = free_ports();
    let filter = Filter::start(&host, port, nobody, "deaf");
    wait_for("an attempt", || {
        host.ok("mailq", &[], b"")
            .contains("cannot bring it back")
            .then_some(())
    });
    drop(filter);

    let _filter = Filter::start(&host, port, back, "one");
    submit(&host, &["bob@yubin.test"], "virus\r\nX-Virus: yes");
    let mbox = host.wait_for_mail("alice", 4);
    wait_for_empty_queue(&host);
    for what in ["X-Later", "X-Die", "X-Nothing"] {
        let line = format!("\n{what}: {what}\n");
        assert_eq!(mbox.matches(&line).count(), 1, "{what}: {mbox}");
    }
    assert_eq!(mbox.matches("\nX-Filtered: one\n").count(), 3, "{mbox}");
    // alice hears of the virus, by a report that went through no filter.
    assert!(
        mbox.contains("there is a virus in it") && mbox.contains("5.7.1"),
        "{mbox}"
    );
    assert_eq!(host.mbox("bob"), "");
}

#[test]
fn an_action_names_another_filter() {
    let [one, two, three, back] = free_ports();
    let def =
        format!("CONTENT_FILTER=smtp:[127.0.0.1]:{one}\nHEADER_CHECKS=/etc/yubin/header_checks\n");
    let host = host(&def, back);
    host.set_users(&["alice", "bob", "carl"]);
    let access = format!("to bob@ FILTER smtp:[127.0.0.1]:{two}\n");
    host.write("etc/yubin/access", &access);
    let checks = format!("/^X-Way: three/ FILTER smtp:[127.0.0.1]:{three}\n");
    host.write("etc/yubin/header_checks", &checks);
    let host = start(host);
    let _filters = [
        Filter::start(&host, one, back, "one"),
        Filter::start(&host, two, back, "two"),
        Filter::start(&host, three, back, "three"),
    ];
    assert!(stranger(&host, "alice@yubin.test", MAIL).starts_with("250 "));
    assert!(stranger(&host, "bob@yubin.test", MAIL).starts_with("250 "));
    let way = format!("X-Way: three\r\n{MAIL}");
    // The last one that is named.
    assert!(stranger(&host, "bob@yubin.test", &way).starts_with("250 "));
    assert!(stranger(&host, "carl@yubin.test", &way).starts_with("250 "));
    let marks = |user, count| {
        let mbox = host.wait_for_mail(user, count);
        let marks = mbox.lines().filter_map(|l| l.strip_prefix("X-Filtered: "));
        let mut marks: Vec<_> = marks.map(ToOwned::to_owned).collect();
        marks.sort();
        marks.join(" ")
    };
    assert_eq!(marks("alice", 1), "one");
    assert_eq!(marks("bob", 2), "three two");
    assert_eq!(marks("carl", 1), "three");
    wait_for_empty_queue(&host);
}

#[test]
fn the_way_back_is_for_filters_only() {
    let [back] = free_ports();
    let mut host = host("REINJECT_FROM='192.0.2.7 ::1'\n", back);
    host.start("smtpd");
    let mut outsider = Smtp::silent(back).unwrap();
    let said = outsider.reply().unwrap();
    assert!(said.starts_with("521 5.7.1 "), "{said}");
    assert!(outsider.ask("EHLO x").is_err());
    assert!(
        host.log()
            .contains("reject: CONNECT from unknown[127.0.0.1]"),
        "{}",
        host.log()
    );
    let mut client = Smtp::connect(host.smtp).unwrap();
    let hello = client.ask("EHLO x").unwrap();
    assert!(!hello.contains("XFORWARD"), "{hello}");
    assert!(
        client
            .ask("XFORWARD ADDR=192.0.2.7")
            .unwrap()
            .starts_with("550 5.7.0 ")
    );
    host.stop("smtpd");
}

/// proxsmtp says to both sides what the other one says: our keywords are its own.
#[test]
fn through_proxsmtp_reports_are_made_where_the_mail_ends() {
    let [port, back] = free_ports();
    let def = format!("CONTENT_FILTER=smtp:[127.0.0.1]:{port}\n");
    let host = start(host(&def, back).with_tls());
    let conf = format!(
        "OutAddress: 127.0.0.1:{back}\nListen: 127.0.0.1:{port}\nFilterType: pipe\nHeader: X-Proxsmtp: yes\n\
         FilterCommand: /bin/sed s/^body/changed/\nTempDirectory: {}\n",
        host.path("home").display()
    );
    host.write("etc/proxsmtpd.conf", &conf);
    let mut command = Command::new("/usr/sbin/proxsmtpd");
    command
        .args(["-d", "1", "-f"])
        .arg(host.path("etc/proxsmtpd.conf"));
    let _filter = Filter::launch(&mut command, port);
    let script = "
import smtplib, sys
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]), local_hostname='pc.example')
s.login('alice', 'alice')
s.sendmail('alice@yubin.test', ['bob@yubin.test'], 'Subject: x\\r\\n\\r\\nbody\\r\\n.\\r\\n',
           ['ENVID=abc', 'RET=HDRS'], ['NOTIFY=SUCCESS', 'ORCPT=rfc822;robert@yubin.test'])
";
    python(script, &[&host.submission.to_string()]);
    let mbox = host.wait_for_mail("bob", 1);
    assert!(mbox.contains("\n\nchanged\n.\n"), "{mbox}");
    assert_eq!(mbox.matches("\nX-Proxsmtp: yes\n").count(), 1, "{mbox}");
    let report = host.wait_for_mail("alice", 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(host.mbox("alice"), report, "one report");
    for line in [
        "Action: delivered",
        "Original-Envelope-Id: abc",
        "Original-Recipient: rfc822;robert@yubin.test",
    ] {
        assert!(report.contains(line), "{line}: {report}");
    }
    let (own, _) = report.split_once("\n\n").unwrap();
    assert!(!own.contains("X-Proxsmtp"), "{report}");
    wait_for_empty_queue(&host);
    assert!(
        host.log().contains(", orig_client=unknown[127.0.0.1]"),
        "{}",
        host.log()
    );
}
