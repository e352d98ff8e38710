//! smtpd with mail filters that others wrote: pymilter on libmilter, OpenDKIM, rspamd.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tests::foreign::python;
use tests::host::free_ports;
use tests::smtp::Smtp;
use tests::{Host, wait_for};

const SCRIPT: &str = include_str!("scripted_milter.py");
const MAIL: &str = "Subject: as it came\r\nX-Gone: x\r\n\r\nbody\r\n";

/// A milter process; it ends with its story.
struct Milter(Child);

impl Milter {
    /// Starts it and waits until somebody listens.
    fn start(command: &mut Command, listens: impl Fn() -> bool) -> Self {
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let milter = Self(child);
        wait_for("a milter", || listens().then_some(()));
        milter
    }

    /// The scripted one, on a Unix socket in the host's root.
    fn scripted(host: &Host, name: &str) -> Self {
        let socket = host.path(&format!("run/{name}.sock"));
        fs::create_dir_all(host.path("run")).unwrap();
        // A dead one leaves it behind.
        fs::remove_file(&socket).ok();
        let mut command = Command::new("/usr/bin/python3");
        command
            .args(["-c", SCRIPT, &format!("unix:{}", socket.display())])
            .arg(told_by(host, name))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self::start(&mut command, || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })
    }
}

impl Drop for Milter {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        killpg(group, Signal::SIGKILL).ok();
        self.0.wait().ok();
    }
}

fn told_by(host: &Host, name: &str) -> PathBuf {
    host.path(&format!("run/{name}.told"))
}

/// What the scripted milter was told.
fn told(host: &Host, name: &str) -> String {
    fs::read_to_string(told_by(host, name)).unwrap_or_default()
}

/// A host with all daemons and one scripted milter.
fn scripted(options: &str) -> (Host, Milter) {
    let mut host = Host::new(&format!(
        "MILTERS='{{ unix:/run/a.sock, name=scripted, {options} }}'\n"
    ));
    host.set_users(&["alice", "bob", "carl"]);
    let milter = Milter::scripted(&host, "a");
    for program in ["smtpd", "deliver", "qrun"] {
        host.start(program);
    }
    (host, milter)
}

fn hello(port: u16) -> Smtp {
    let mut smtp = Smtp::connect(port).unwrap();
    smtp.ask("EHLO client.example").unwrap();
    smtp
}

fn send(host: &Host, from: &str) -> String {
    let from = format!("{from}@yubin.test");
    let to = ["alice@yubin.test"];
    hello(host.smtp).message(&from, &to, MAIL).unwrap()
}

#[test]
fn every_change_is_made_and_later_milters_see_it() {
    let mut host = Host::new("MILTERS='unix:/run/a.sock, unix:/run/watch.sock'\n");
    host.set_users(&["alice", "bob", "carl"]);
    let _a = Milter::scripted(&host, "a");
    let _watch = Milter::scripted(&host, "watch");
    for program in ["smtpd", "deliver", "qrun"] {
        host.start(program);
    }
    let answer = send(&host, "plain");
    assert!(answer.starts_with("250"), "{answer}");
    host.wait_for_mail("alice", 1);
    let answer = send(&host, "change");
    assert!(answer.starts_with("250"), "{answer}");
    let mbox = host.wait_for_mail("bob", 1);
    host.wait_for_mail("carl", 1);
    assert_eq!(host.mbox("alice").matches("\nFrom ").count(), 0, "{mbox}");
    let place = |what: &str| {
        mbox.find(what)
            .unwrap_or_else(|| panic!("{what} in {mbox}"))
    };
    let order = [
        "From carl@yubin.test",
        "\nX-First: above\n",
        "\nReceived: from client.example",
        "\nX-Second: below\n",
        "\nSubject: changed\n",
        "\nX-Added: last\n and folded\n",
        "\nX-New: made by a change\n",
        "\n\nanother\nbody\n",
    ];
    assert!(order.map(place).is_sorted(), "{mbox}");
    assert!(
        !mbox.contains("X-Gone") && !mbox.contains("\n\nbody"),
        "{mbox}"
    );
    assert_eq!(mbox.matches("\nX-New").count(), 1, "{mbox}");
    let (a, later) = (told(&host, "a"), told(&host, "watch"));
    assert!(a.contains("\nfields Subject X-Gone\n"), "{a}");
    let seen = "\nfields X-First X-Second Subject X-Added X-New\nend size=15 ";
    assert!(later.contains(seen), "{later}");
    assert!(
        a.contains("end size=6 id=") && !a.contains("id=None"),
        "{a}"
    );
}

#[test]
fn a_milter_is_told_of_the_session() {
    let mut host = Host::new("MILTERS=unix:/run/a.sock\nPLAINTEXT_LOGIN=no\n").with_tls();
    let _milter = Milter::scripted(&host, "a");
    host.start("smtpd");
    let script = "
import smtplib, ssl, sys
ctx = ssl.create_default_context(cafile=sys.argv[2])
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))
s.ehlo('one.example')
s.starttls(context=ctx)
s.login('alice', 'alice')
s.sendmail('alice@yubin.test', ['bob@yubin.test'], b'Subject: x\\r\\n\\r\\n' + b'0123456789abcd\\r\\n' * 12500,
           mail_options=['BODY=8BITMIME', 'ENVID=abc'], rcpt_options=['NOTIFY=SUCCESS,FAILURE'])
s.mail('alice@yubin.test'); s.rcpt('bob@yubin.test'); s.rset()
s.mail('alice@yubin.test'); s.rcpt('someone@elsewhere.example')
s.quit()
";
    let cert = host.path("etc/yubin/tls/cert.pem");
    python(
        script,
        &[&host.submission.to_string(), cert.to_str().unwrap()],
    );
    let told = wait_for("the milter to be left", || {
        Some(told(&host, "a"))
            .filter(|told| told.contains("elsewhere") && told.ends_with("close\n"))
    });
    for line in [
        "connect [127.0.0.1] 127.0.0.1 j=mail.yubin.test daemon=submission",
        "helo one.example tls=None cipher=None",
        "] tls=TLSv1.3 cipher=None",
        "mail <alice@yubin.test> SIZE=200014 BODY=8BITMIME ENVID=abc auth=alice",
        "rcpt <bob@yubin.test> NOTIFY=SUCCESS,FAILURE mailer=local",
        // RFC 6409 8: what was missing is there, for who signs.
        "fields From Date Message-ID Subject",
        "end size=200000 id=",
        "abort",
        "rcpt <someone@elsewhere.example>  mailer=esmtp",
        "close",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
}

#[test]
fn refusals_are_the_milters_own_and_only_for_what_it_was_asked() {
    let (host, _milter) = scripted("default_action=tempfail");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    for (command, answer) in [
        ("EHLO tempfail.example", "451 4.7.1 "),
        ("EHLO client.example", "250-"),
        (
            "MAIL FROM:<own-words@yubin.test>",
            "554-5.7.9 In my own words, 100%\r\n554 5.7.9 and on two lines\r\n",
        ),
        ("MAIL FROM:<tempfail@yubin.test>", "451 4.7.1 "),
        ("MAIL FROM:<not-bob@yubin.test>", "250"),
        ("RCPT TO:<bob@yubin.test>", "550 5.7.1 "),
        ("RCPT TO:<alice@yubin.test>", "250"),
        ("DATA", "354"),
        ("Subject: for one\r\n\r\nx\r\n.", "250"),
        ("MAIL FROM:<not-data@yubin.test>", "250"),
        ("RCPT TO:<alice@yubin.test>", "250"),
        ("DATA", "550 5.7.1 "),
        ("MAIL FROM:<reject@yubin.test>", "250"),
        ("RCPT TO:<alice@yubin.test>", "250"),
        ("DATA", "354"),
        ("Subject: no\r\n\r\nx\r\n.", "550 5.7.1 "),
        ("MAIL FROM:<discard@yubin.test>", "250"),
        ("RCPT TO:<alice@yubin.test>", "250"),
        ("DATA", "354"),
        ("Subject: nowhere\r\n\r\nx\r\n.", "250 2.0.0 Ok: discarded"),
        ("MAIL FROM:<accept@yubin.test>", "250"),
        ("RCPT TO:<alice@yubin.test>", "250"),
        ("DATA", "354"),
        ("Subject: unseen\r\n\r\nx\r\n.", "250"),
    ] {
        let got = smtp.ask(command).unwrap();
        assert!(got.starts_with(answer), "{command}: {got}");
    }
    let mbox = host.wait_for_mail("alice", 2);
    assert!(mbox.contains("Subject: for one") && mbox.contains("Subject: unseen"));
    assert!(!mbox.contains("nowhere"), "{mbox}");
    // What it accepted at MAIL it was not shown.
    let told = told(&host, "a");
    let (_, last) = told.rsplit_once("mail <accept@").unwrap();
    assert!(!last.contains("rcpt") && !last.contains("end"), "{told}");
    let log = host.log();
    for line in [
        "milter scripted: Recipient of unknown[127.0.0.1]: 550 5.7.1 ",
        "milter scripted: Message of unknown[127.0.0.1]: discard id=",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
fn what_a_milter_puts_aside_is_held() {
    let (host, _milter) = scripted("");
    let answer = send(&host, "hold");
    assert!(answer.starts_with("250"), "{answer}");
    let id = answer.trim_end().rsplit(' ').next().unwrap().to_owned();
    let queue = host.ok("mailq", &[], b"");
    assert!(queue.contains(&id), "{queue}");
    assert!(host.log().contains("scripted: looks odd"), "{}", host.log());
    // A runner may just be looking at it.
    wait_for("the release", || {
        let out = host.run("mailq", &["release", &id], b"");
        out.status.success().then_some(())
    });
    host.wait_for_mail("alice", 1);
}

#[test]
fn a_body_that_is_replaced_may_be_large() {
    let (host, _milter) = scripted("");
    let answer = send(&host, "large");
    assert!(answer.starts_with("250"), "{answer}");
    let mbox = host.wait_for_mail("alice", 1);
    let line = format!("{}\n", "y".repeat(99));
    assert_eq!(mbox.matches(&line).count(), 2001);
}

#[test]
fn a_milter_that_dies_costs_no_mail_and_nothing_it_began_is_left() {
    let (host, mut milter) = scripted("default_action=tempfail");
    for from in ["die", "die-amid-changes"] {
        let mut smtp = hello(host.smtp);
        let message = |smtp: &mut Smtp, from: &str| {
            let from = format!("{from}@yubin.test");
            smtp.message(&from, &["alice@yubin.test"], MAIL).unwrap()
        };
        let answer = message(&mut smtp, from);
        assert!(answer.starts_with("451 4.7.1"), "{answer}");
        // It is not there: this session cannot go on, and the client keeps his message.
        let answer = message(&mut smtp, "plain");
        assert!(answer.starts_with("451 4.7.1"), "{answer}");
        milter = {
            drop(milter);
            Milter::scripted(&host, "a")
        };
        let answer = send(&host, "plain");
        assert!(answer.starts_with("250"), "{answer}");
    }
    let mbox = host.wait_for_mail("alice", 2);
    assert_eq!(mbox.matches("Subject: as it came").count(), 2);
    assert_eq!(host.mbox("bob"), "");
    assert!(host.log().contains("milter scripted: "), "{}", host.log());
}

#[test]
fn a_session_goes_on_with_a_milter_that_came_back() {
    let (host, milter) = scripted("default_action=tempfail");
    let mut smtp = hello(host.smtp);
    let mut message = |from: &str| smtp.message(from, &["alice@yubin.test"], MAIL).unwrap();
    let answer = message("die@yubin.test");
    assert!(answer.starts_with("451"), "{answer}");
    drop(milter);
    let _milter = Milter::scripted(&host, "a");
    let answer = message("plain@yubin.test");
    assert!(answer.starts_with("250"), "{answer}");
    let told = told(&host, "a");
    assert_eq!(told.matches("helo client.example").count(), 2, "{told}");
}

#[test]
fn its_default_action_is_what_the_operator_says() {
    for (action, answer, held) in [
        ("accept", "250", false),
        ("reject", "550 5.7.1", false),
        ("quarantine", "250", true),
    ] {
        let (host, milter) = scripted(&format!("default_action={action} content_timeout=1s"));
        // Too late with its answer, dead amid its changes, and not there at all.
        let mut milter = Some(milter);
        for from in ["sleep", "die-amid-changes", "plain"] {
            let got = send(&host, from);
            assert!(got.starts_with(answer), "{action}, {from}: {got}");
            if from != "sleep" {
                milter.take();
            }
        }
        if held {
            let queue = host.ok("mailq", &[], b"");
            assert_eq!(queue.matches("@yubin.test").count() / 2, 3, "{queue}");
        } else if answer == "250" {
            let mbox = host.wait_for_mail("alice", 3);
            assert!(!mbox.contains("X-Added"), "{mbox}");
            assert_eq!(host.mbox("bob"), "");
        }
    }
}

#[test]
fn who_says_that_he_is_at_work_is_waited_for() {
    let (host, _milter) = scripted("content_timeout=3s");
    let answer = send(&host, "sleep");
    assert!(answer.starts_with("451 4.7.1"), "{answer}");
    let answer = send(&host, "progress");
    assert!(answer.starts_with("250"), "{answer}");
}

/// A milter of our own for what those of others cannot: it answers nothing but the terms and the end
/// of a message, and each with what it is given, after a while.
fn odd_milter(terms: &'static [u8], end: &'static [u8], after: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move |mut stream: TcpStream| -> std::io::Result<()> {
        loop {
            let mut head = [0; 5];
            stream.read_exact(&mut head)?;
            let length = u32::from_be_bytes(*head.first_chunk().unwrap()) as usize;
            let mut data = vec![0; length - 1];
            stream.read_exact(&mut data)?;
            match head[4] {
                b'O' => stream.write_all(terms)?,
                b'E' => {
                    std::thread::sleep(after);
                    stream.write_all(end)?;
                }
                _ => {}
            }
        }
    };
    small_thread(move || {
        for stream in listener.incoming().flatten() {
            small_thread(move || serve(stream).ok());
        }
    });
    port
}

fn small_thread<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let small = std::thread::Builder::new().stack_size(128 << 10);
    small.spawn(run).unwrap()
}

/// Version 6, no actions, and no answer to anything but the end of a message.
const SILENT: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\x0f\xf0\x80";

#[test]
fn a_thousand_sessions_wait_for_a_slow_milter_and_nobody_else_does() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let milter = odd_milter(SILENT, b"\0\0\0\x01c", Duration::from_secs(2));
    let mut host = Host::new(&format!("MILTERS=inet:127.0.0.1:{milter}\n"));
    host.start("smtpd");
    let mut watcher = hello(host.smtp);
    let port = host.smtp;
    let all = Arc::new(Barrier::new(1001));
    let sessions: Vec<_> = (0..1000)
        .map(|_| {
            let all = Arc::clone(&all);
            small_thread(move || {
                let mut smtp = hello(port);
                all.wait();
                smtp.message("ann@yubin.test", &["alice@yubin.test"], MAIL)
            })
        })
        .collect();
    all.wait();
    let mut worst = Duration::ZERO;
    while !sessions.iter().all(|session| session.is_finished()) {
        let asked = Instant::now();
        // NOOP asks nobody; more than a hundred would end the session.
        watcher.ask("NOOP").unwrap();
        worst = worst.max(asked.elapsed());
        std::thread::sleep(Duration::from_secs(1));
    }
    for session in sessions {
        let answer = session.join().unwrap().unwrap();
        assert!(answer.starts_with("250"), "{answer}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid("smtpd"))).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap();
    println!("peak {peak} kB, longest NOOP {worst:?}");
    assert!(peak.parse::<u64>().unwrap() < 100_000, "{peak} kB");
    assert!(worst < Duration::from_secs(2), "the loop waits: {worst:?}");
}

#[test]
fn what_is_no_milter_is_none() {
    let changes: &[u8] = b"\0\0\0\x06hX\0y\0\0\0\0\0\x01c";
    for (terms, end) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &b""[..]),
        (b"\xff\xff\xff\xffO", b""),
        (b"\0\0\0\x0dO\0\0\0\x07\0\0\0\0\0\0\0\0", b""),
        (SILENT, b"\0\0\0\x01!"),
        (SILENT, b"\0\0\0\0"),
        // A header field that it did not announce.
        (SILENT, changes),
    ] {
        let milter = odd_milter(terms, end, Duration::ZERO);
        let mut host = Host::new(&format!("MILTERS=inet:127.0.0.1:{milter}\n"));
        host.start("smtpd");
        let answer = send(&host, "ann");
        assert!(answer.starts_with("451 4.7.1"), "{end:?}: {answer}");
        let log = host.log();
        assert!(log.contains(": it sent "), "{log}");
    }
}

#[test]
fn opendkim_signs_what_our_users_send() {
    let [port] = free_ports();
    let mut host = Host::new(&format!("MILTERS='inet:127.0.0.1:{port}'\n"));
    fs::create_dir_all(host.path("run")).unwrap();
    let (key, conf) = (host.path("run/key.pem"), host.path("run/opendkim.conf"));
    let key = key.to_str().unwrap();
    tests::foreign::ok("openssl", &["genrsa", "-out", key, "2048"], b"");
    let text = format!(
        "Socket inet:{port}@127.0.0.1\nDomain yubin.test\nSelector s\nKeyFile {key}\nMode s\n\
         Canonicalization relaxed/simple\nRequireSafeKeys no\nSyslog no\n\
         InternalHosts 127.0.0.1\n"
    );
    fs::write(&conf, text).unwrap();
    let mut command = Command::new("/usr/sbin/opendkim");
    command.arg("-f").arg("-x").arg(&conf);
    let _milter = Milter::start(&mut command, || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    for program in ["smtpd", "deliver"] {
        host.start(program);
    }
    let mail = "From: Alice <alice@yubin.test>\r\nSubject: sign\r\n this\r\n\r\nbody\r\n";
    let mut smtp = hello(host.smtp);
    let answer = smtp.message("alice@yubin.test", &["bob@yubin.test"], mail);
    assert!(answer.as_ref().unwrap().starts_with("250"), "{answer:?}");
    let mbox = host.wait_for_mail("bob", 1);
    // dkimpy believes it, with what openssl says the public key is.
    let public = ["rsa", "-in", key, "-pubout", "-outform", "DER"];
    let public = tests::foreign::run("openssl", &public, b"").stdout;
    fs::write(host.path("run/public.der"), public).unwrap();
    fs::write(host.path("run/message"), &mbox).unwrap();
    let script = "
import base64, dkim, sys
mail = open(sys.argv[1], 'rb').read().split(b'\\n', 1)[1].rstrip(b'\\n') + b'\\n'
key = b'v=DKIM1; k=rsa; p=' + base64.b64encode(open(sys.argv[2], 'rb').read())
mail = mail.replace(b'\\n', b'\\r\\n')
print(dkim.verify(mail, dnsfunc=lambda name, timeout=5: key))
";
    let (message, public) = (host.path("run/message"), host.path("run/public.der"));
    let verdict = python(
        script,
        &[message.to_str().unwrap(), public.to_str().unwrap()],
    );
    assert_eq!(verdict.trim(), "True", "{mbox}");
}

/// What rspamd needs to scan by one rule of ours, without DNS and without its many own.
const RSPAMD: &str = r#"
options {
    pidfile = "DIR/pid"; tempdir = "DIR"; cache_file = "DIR/symbols"; hs_cache_dir = "DIR";
    control_socket = "DIR/control mode=0600"; url_tld = "DIR/tld"; filters = "";
    dns { nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; }
}
logging { type = "file"; filename = "DIR/log"; level = "info"; }
worker "rspamd_proxy" {
    bind_socket = "DIR/sock mode=0600"; milter = yes; timeout = 10s; count = 1;
    upstream "local" { default = yes; self_scan = yes; }
}
actions { reject = 15; add_header = 6; }
lua = "DIR/rules.lua";
"#;
const RULES: &str = r#"
rspamd_config:register_symbol({ name = "SUSPECT", callback = function(task)
    local seen = task:get_helo() .. " " .. tostring(task:get_from_ip())
    task:set_milter_reply({ add_headers = { ["X-Seen"] = seen } })
    return task:get_subject() == "suspect"
end })
rspamd_config:set_metric_symbol("SUSPECT", 10, "ours")
"#;

#[test]
fn rspamd_refuses_and_marks_junk() {
    let mut host = Host::new("MILTERS='{ unix:/run/sock, name=rspamd, keep=yes }'\n");
    let dir = host.path("run");
    let dir = dir.to_str().unwrap();
    host.write("run/rspamd.conf", &RSPAMD.replace("DIR", dir));
    host.write("run/rules.lua", RULES);
    host.write("run/tld", "test\n");
    let mut command = Command::new("/usr/bin/rspamd");
    command.args(["-f", "-i", "-c", &format!("{dir}/rspamd.conf")]);
    let _rspamd = Milter::start(&mut command, || {
        std::os::unix::net::UnixStream::connect(host.path("run/sock")).is_ok()
    });
    for program in ["smtpd", "deliver"] {
        host.start(program);
    }
    let gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";
    let mut smtp = hello(host.smtp);
    for (subject, text, answer) in [
        ("junk", gtube, "554 5.7.1 Gtube pattern"),
        ("suspect", "x", "250"),
        ("plain", "x", "250"),
    ] {
        let mail = format!("From: a@b.test\r\nSubject: {subject}\r\n\r\n{text}\r\n");
        let got = smtp.message("a@b.test", &["alice@yubin.test"], &mail);
        assert!(got.as_ref().unwrap().starts_with(answer), "{got:?}");
    }
    let mbox = host.wait_for_mail("alice", 2);
    assert_eq!(mbox.matches("X-Seen: client.example 127.0.0.1").count(), 2);
    assert_eq!(mbox.matches("X-Spam: Yes").count(), 1, "{mbox}");
}

/// Sendmail's SMFIC_UNKNOWN and SMFIC_QUIT_NC.
#[test]
fn a_milter_hears_of_what_is_no_command_and_stays_for_the_next_client() {
    let (host, milter) = scripted("keep=yes, default_action=tempfail");
    let count = |what: &str| told(&host, "a").matches(what).count();
    let mut smtp = hello(host.smtp);
    assert!(smtp.ask("XYZZY plugh").unwrap().starts_with("500 5.5.2 "));
    assert_eq!(smtp.ask("XNO").unwrap(), "550 5.5.1 Not in this house\r\n");
    let bring = |mut smtp: Smtp, from: &str| {
        let answer = smtp.message(from, &["alice@yubin.test"], MAIL).unwrap();
        let closes = count("\nclose\n");
        drop(smtp);
        wait_for("the milter to be left", || {
            (count("\nclose\n") > closes).then_some(())
        });
        answer
    };
    assert!(bring(smtp, "plain@yubin.test").starts_with("250"));
    assert!(told(&host, "a").contains("\nunknown XYZZY plugh\n"));
    let (connects, negotiations) = (count("\nconnect "), count("negotiate\n"));
    for _ in 0..5 {
        assert!(bring(hello(host.smtp), "plain@yubin.test").starts_with("250"));
    }
    assert!(bring(hello(host.smtp), "reject@yubin.test").starts_with("550"));
    let said = told(&host, "a");
    assert_eq!(count("\nconnect "), connects + 6, "{said}");
    assert_eq!(count("negotiate\n"), negotiations, "{said}");
    assert!(bring(hello(host.smtp), "plain@yubin.test").starts_with("250"));
    assert_eq!(count("negotiate\n"), negotiations + 1, "it had refused");
    host.wait_for_mail("alice", 7);
    // It dies while its connection is kept, and is there again: nobody notices.
    drop(milter);
    let _milter = Milter::scripted(&host, "a");
    assert!(send(&host, "plain").starts_with("250"));
    host.wait_for_mail("alice", 8);
}
