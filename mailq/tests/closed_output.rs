//! A caller that has gone away changes nothing of what sendmail says by its exit code.

use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn a_closed_standard_output_is_no_failure_of_a_message_that_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("etc/yubin");
    std::fs::create_dir_all(&etc).unwrap();
    std::fs::write(etc.join("yubin.def"), "MY_NAME=mx\nMY_DOMAIN=example.org\n").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut sendmail = Command::new(env!("CARGO_BIN_EXE_sendmail"))
        .args(["-v", "bob"])
        .env("YUBIN_ROOT", dir.path())
        .stdin(Stdio::piped())
        .stdout(writer)
        .spawn()
        .unwrap();
    let mut input = sendmail.stdin.take().unwrap();
    input.write_all(b"Subject: x\n\nx\n").unwrap();
    drop(input);
    assert_eq!(sendmail.wait().unwrap().code(), Some(0));
    let dropped = std::fs::read_dir(dir.path().join("var/spool/yubin/drop")).unwrap();
    assert_eq!(dropped.count(), 1);
}
