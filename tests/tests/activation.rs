//! The same session on a socket of our own, from systemd, and from inetd; and what signals do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use tests::smtp::Smtp;
use tests::{Host, wait_for};

/// The servers and how their greetings begin.
const SERVERS: [(&str, &str); 3] = [("smtpd", "220 "), ("pop3d", "+OK "), ("imapd", "* OK ")];

#[test]
fn inetd_gives_one_session_on_fd_0() {
    let host = Host::new("");
    for (program, greeting) in SERVERS {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let server: OwnedFd = server.into();
        let mut child = host
            .command(program)
            .stdin(server.try_clone().unwrap())
            .stdout(server.try_clone().unwrap())
            .stderr(server)
            .spawn()
            .unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut first = [0; 4];
        client.read_exact(&mut first).unwrap();
        assert_eq!(first, greeting.as_bytes()[..4], "{program}");
        client
            .write_all(if program == "imapd" {
                b"a LOGOUT\r\n"
            } else {
                b"QUIT\r\n"
            })
            .unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert!(
            !rest.contains(program) || rest.lines().count() <= 3,
            "log lines on the wire: {rest}"
        );
        let status = wait_for(program, || child.try_wait().unwrap());
        assert!(status.success(), "{program}: {status}");
    }
}

#[test]
fn systemd_gives_a_listening_socket() {
    let host = Host::new("");
    for (program, greeting) in SERVERS {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut child = with_fd_3(&host, program, listener.into());
        for _ in 0..3 {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            let mut first = [0; 4];
            client.read_exact(&mut first).unwrap();
            assert_eq!(first, greeting.as_bytes()[..4], "{program}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn systemd_gives_an_accepted_connection() {
    let host = Host::new("");
    for (program, greeting) in SERVERS {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let mut child = with_fd_3(&host, program, server.into());
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut first = [0; 4];
        client.read_exact(&mut first).unwrap();
        assert_eq!(first, greeting.as_bytes()[..4], "{program}");
        drop(client);
        wait_for(program, || child.try_wait().unwrap());
    }
}

/// Starts a program as systemd does: the socket is fd 3, LISTEN_PID is its own process id.
fn with_fd_3(host: &Host, program: &str, socket: OwnedFd) -> Child {
    // A shell that execs knows its own process id, which the program then keeps.
    let mut command = Command::new("/bin/sh");
    let exe = tests::host::programs().join(program);
    command
        .args([
            "-c",
            "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" 3<&0 0</dev/null",
        ])
        .arg(exe)
        .env("YUBIN_ROOT", host.root())
        .env("YUBIN_HOSTNAME", "mail.yubin.test")
        .stdin(Stdio::from(socket))
        .stderr(Stdio::null())
        .process_group(0);
    command.spawn().unwrap()
}

#[test]
fn sigterm_lets_a_session_finish_its_message() {
    let mut host = Host::started("");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    smtp.ask("EHLO test").unwrap();
    smtp.ask("MAIL FROM:<bob@yubin.test>").unwrap();
    smtp.ask("RCPT TO:<alice@yubin.test>").unwrap();
    assert!(smtp.ask("DATA").unwrap().starts_with("354"));
    smtp.send(b"Subject: late\r\n\r\n").unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(host.pid("smtpd")).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(
        TcpStream::connect(("127.0.0.1", host.smtp)).is_err(),
        "still listens"
    );
    assert!(smtp.ask("x\r\n.").unwrap().starts_with("250"));
    host.stop("smtpd");
    assert!(host.wait_for_mail("alice", 1).contains("Subject: late"));
}

#[test]
fn a_new_certificate_is_served_without_a_restart() {
    let mut host = Host::new("").with_tls();
    host.start("smtpd");
    let mut smtp = Smtp::connect(host.smtp).unwrap();
    let before = host.listening_certificate();
    let host = host.with_tls();
    let after = wait_for("the new certificate", || {
        let now = host.listening_certificate();
        (now != before).then_some(now)
    });
    assert!(after.contains("BEGIN CERTIFICATE"));
    assert!(smtp.ask("NOOP").unwrap().starts_with("250"));
}

/// sd_notify(3): ready when the port is open, a sign of life in half the watchdog's time, and the end.
#[test]
fn systemd_hears_that_we_are_ready_and_alive() {
    let host = Host::new("");
    let path = host.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let said = || {
        let mut text = [0; 100];
        let n = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..n]).into_owned()
    };
    let mut child = host
        .command("smtpd")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .spawn()
        .unwrap();
    assert_eq!(said(), "READY=1");
    assert!(Smtp::connect(host.smtp).is_ok());
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(said(), "WATCHDOG=1");
    }
    assert!(
        began.elapsed() >= Duration::from_millis(250),
        "{:?}",
        began.elapsed()
    );
    let pid = Pid::from_raw(child.id().cast_signed());
    kill(pid, Signal::SIGTERM).unwrap();
    while said() != "STOPPING=1" {}
    assert!(child.wait().unwrap().success());
}
