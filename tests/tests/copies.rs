//! Copies of mail that the operator wants.

use tests::Host;
use tests::host::DAEMONS;
use tests::smtp::Smtp;

#[test]
fn the_operator_has_his_copies() {
    let mut host = Host::new("ALWAYS_BCC=archive@yubin.test\nBCC_FILE=/etc/yubin/bcc\n");
    host.set_users(&["alice", "bob", "archive", "boss"]);
    host.write("etc/yubin/bcc", "to bob@yubin.test boss@yubin.test\n");
    for program in DAEMONS {
        host.start(program);
    }
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO x").unwrap();
    for to in ["alice@yubin.test", "bob@yubin.test"] {
        let text = format!("Subject: to {to}\r\n\r\nx\r\n");
        let reply = smtp.message("a@b.where", &[to], &text).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }
    host.wait_for_mail("alice", 1);
    host.wait_for_mail("bob", 1);
    host.wait_for_mail("archive", 2);
    let boss = host.wait_for_mail("boss", 1);
    assert!(boss.contains("Subject: to bob@yubin.test"), "{boss}");
    // Nobody sees who else has it.
    assert!(!host.mbox("alice").contains("archive"));
}
