//! Policy delegation: Debian's policyd-spf, which was written for Postfix, and a server of our own for
//! what it does not do.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tests::smtp::Smtp;
use tests::{Host, wait_for};

/// Gives each connection on a Unix socket to policyd-spf, as Postfix's spawn(8) does. Its DNS knows one
/// record.
const SPAWN: &str = "
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(10)
while True:
    connection, _ = server.accept()
    if os.fork() == 0:
        os.dup2(connection.fileno(), 0)
        os.dup2(connection.fileno(), 1)
        import spf
        from spf_engine.policyd_spf import main
        record = [(('fail.where', 'TXT'), [b'v=spf1 -all'])]
        spf.DNSLookup = lambda name, kind, *rest, **more: record if (name, kind) == ('fail.where', 'TXT') else []
        sys.argv = ['policyd-spf', sys.argv[2]]
        main()
        os._exit(0)
    connection.close()
";

/// Says what stands in a file, and writes what it was asked into another.
const SAYS: &str = "
import os, socket, sys, threading
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(10)
def serve(connection):
    words = connection.makefile('rw', newline='\\n')
    asked = ''
    for line in words:
        asked += line
        if line == '\\n':
            open(sys.argv[3], 'a').write(asked)
            answer = open(sys.argv[2]).read()
            if answer == 'close': return connection.shutdown(2)
            words.write(answer + '\\n\\n')
            words.flush()
            asked = ''
while True:
    connection, _ = server.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
";

/// A policy server, for as long as this lives.
struct Server(Child);

impl Server {
    fn start(script: &str, socket: &Path, args: &[&Path]) -> Self {
        let child = Command::new("/usr/bin/python3")
            .args(["-c", script])
            .arg(socket)
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the policy server", || socket.exists().then_some(()));
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn host(def: &str) -> Host {
    Host::new(&format!(
        "POLICY_SERVICES=unix:/policy\nMY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\n\
         AUTHENTICATION_RESULTS=no\nCLIENT_NAMES=no\n{def}"
    ))
}

fn start(host: &mut Host) {
    for program in tests::host::DAEMONS {
        host.start(program);
    }
}

#[test]
fn policyd_spf_says_what_becomes_of_it() {
    let mut host = host("");
    let config = host.path("spf.conf");
    std::fs::write(
        &config,
        "debugLevel = 0\nHELO_reject = Fail\nMail_From_reject = Fail\nskip_addresses = 192.0.2.0/24\n",
    )
    .unwrap();
    let _server = Server::start(SPAWN, &host.path("policy"), &[&config]);
    start(&mut host);
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO helo.where").unwrap();
    let text = "Subject: x\r\n\r\nx\r\n";
    let reply = smtp
        .message("a@fail.where", &["alice@yubin.test"], text)
        .unwrap();
    assert!(reply.starts_with("550 5.7.23 "), "{reply}");
    smtp.ask("RSET").unwrap();
    let reply = smtp
        .message("a@other.where", &["alice@yubin.test"], text)
        .unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    let mbox = host.wait_for_mail("alice", 1);
    assert!(mbox.contains("Received-SPF: None (mailfrom)"), "{mbox}");
}

#[test]
fn actions_states_and_a_server_that_is_away() {
    let mut host = host("POLICY_STATES='EHLO RCPT END-OF-MESSAGE'\n");
    let (answer, asked) = (host.path("answer"), host.path("asked"));
    std::fs::write(&answer, "action=DUNNO").unwrap();
    let server = Server::start(SAYS, &host.path("policy"), &[&answer, &asked]);
    start(&mut host);
    let say = |action: &str| std::fs::write(&answer, action).unwrap();
    let text = "Subject: x\r\n\r\nbody\r\n";
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO client.where").unwrap();
    let mut send = || {
        smtp.ask("RSET").unwrap();
        smtp.message("a@b.where", &["alice@yubin.test"], text)
            .unwrap()
    };
    assert!(send().starts_with("250"));
    host.wait_for_mail("alice", 1);
    for (action, want) in [
        ("action=REJECT no", "554 5.7.1"),
        ("action=DEFER_IF_PERMIT 4.2.0 Greylisted", "450 4.2.0 "),
        ("action=553 5.7.1 not you", "553 5.7.1 "),
        ("action=NONSENSE", "451 4.3.5 "),
        ("close", "451 4.3.5 "),
        ("action=WARN odd", "250 "),
        ("action=PREPEND X-Seen: yes", "250 "),
        ("action=REDIRECT bob@yubin.test", "250 "),
        ("action=DISCARD", "250 "),
        ("action=HOLD look at it", "250 "),
    ] {
        say(action);
        let reply = send();
        assert!(reply.starts_with(want), "{action}: {reply}");
    }
    assert!(host.wait_for_mail("alice", 3).contains("\nX-Seen: yes\n"));
    host.wait_for_mail("bob", 1);
    wait_for("the message to be held", || {
        host.ok("mailq", &[], b"")
            .contains("look at it")
            .then_some(())
    });
    assert!(host.log().contains("policy unix:"), "{}", host.log());
    assert_eq!(host.mbox("alice").matches("\nSubject: x").count(), 3);

    let seen = std::fs::read_to_string(&asked).unwrap();
    for line in [
        "request=smtpd_access_policy\nprotocol_state=EHLO\nprotocol_name=ESMTP\nhelo_name=client.where\n",
        "protocol_state=RCPT\n",
        "sender=a@b.where\nrecipient=alice@yubin.test\nrecipient_count=0\nclient_address=127.0.0.1\n",
        "protocol_state=END-OF-MESSAGE\n",
        "recipient=alice@yubin.test\nrecipient_count=1\n",
        "size=20\n",
    ] {
        assert!(seen.contains(line), "{line}\n{seen}");
    }
    assert!(!seen.contains("protocol_state=DATA"), "{seen}");

    // Nobody there: try again later, and nothing is lost.
    drop(server);
    assert!(send().starts_with("451 4.3.5 "));
}
