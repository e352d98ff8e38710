//! Callers of sendmail that are not as one thinks of them: gone already, or without a name.
#![cfg(test)]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_closed_standard_output_is_no_failure_of_a_message_that_is_queued() {
    let dir = root();
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
    assert_eq!(dropped(dir.path()), 1);
}

#[test]
fn a_uid_without_a_name_may_send() {
    // Only root can be somebody else.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = root();
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(dir.path(), open).unwrap();
    // A copy, because where we are built may be closed to others.
    let program = dir.path().join("sendmail");
    std::fs::copy(env!("CARGO_BIN_EXE_sendmail"), &program).unwrap();
    let sent = Command::new(program)
        .arg("bob")
        .env_clear()
        .env("YUBIN_ROOT", dir.path())
        .uid(54_321)
        .gid(54_321)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&sent.stderr);
    assert_eq!(sent.status.code(), Some(0), "{said}");
    assert_eq!(dropped(dir.path()), 1);
}

/// A private root.
fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("etc/yubin");
    std::fs::create_dir_all(&etc).unwrap();
    std::fs::write(etc.join("yubin.def"), "MY_NAME=mx\nMY_DOMAIN=example.org\n").unwrap();
    dir
}

/// How many messages were submitted.
fn dropped(root: &Path) -> usize {
    let drop = root.join("var/spool/yubin/drop");
    std::fs::read_dir(drop).unwrap().count()
}
