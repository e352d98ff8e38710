//! The loop, with a protocol in miniature, over real sockets on loopback.
#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on panics

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use net::line::{self, Line};
use net::tls::{Acceptor, Connector, Verify};
use net::{Closed, Control, Encryption, Listen, Options, Protocol, TlsInfo, activate, poll};

/// Lines in, lines out. `slow` is a job, `tls` STARTTLS, `big N` N octets, `side` attaches a socket
/// whose other end is sent to the test, `nap` sets a short deadline, `quit` closes.
struct Parrot {
    sides: mpsc::Sender<UnixStream>,
    ends: mpsc::Sender<String>,
}

impl Protocol for Parrot {
    type Done = String;

    fn open(&mut self, control: &mut Control<'_, String>) {
        control.write(b"hello\r\n");
        control.deadline(Duration::from_secs(20));
    }

    fn input(&mut self, bytes: &[u8], control: &mut Control<'_, String>) -> usize {
        let Line::Complete(said, consumed) = line::next(bytes, 1000) else {
            return 0;
        };
        let said = String::from_utf8_lossy(said).into_owned();
        match said.split_once(' ').unwrap_or((&said, "")) {
            ("slow", what) => {
                control.pause();
                let what = what.to_owned();
                control.job(move || {
                    std::thread::sleep(Duration::from_millis(50));
                    what
                });
            }
            ("tls", _) => {
                control.write(b"go\r\n");
                control.start_tls();
            }
            ("big", n) => control.write(&vec![b'x'; n.parse().unwrap()]),
            ("side", _) => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                control.attach(ours).unwrap();
                self.sides.send(theirs).unwrap();
            }
            ("tell", what) => control.side_write(format!("{what}\n").as_bytes()),
            ("nap", _) => control.deadline(Duration::from_millis(50)),
            ("quit", _) => {
                control.write(b"bye\r\n");
                control.close();
            }
            _ => control.write(format!("{said}\r\n").as_bytes()),
        }
        consumed
    }

    fn done(&mut self, done: String, control: &mut Control<'_, String>) {
        control.write(format!("done {done}\r\n").as_bytes());
        control.resume();
    }

    fn timeout(&mut self, control: &mut Control<'_, String>) {
        control.write(b"timeout\r\n");
        control.close();
    }

    fn tls_up(&mut self, info: &TlsInfo, control: &mut Control<'_, String>) {
        assert!(info.exporter.is_some());
        control.write(b"secret\r\n");
    }

    fn eof(&mut self, control: &mut Control<'_, String>) {
        control.write(b"eof\r\n");
        control.close();
    }

    fn side(&mut self, bytes: &[u8], control: &mut Control<'_, String>) -> usize {
        control.write(bytes);
        bytes.len()
    }

    fn side_closed(&mut self, control: &mut Control<'_, String>) {
        control.write(b"side closed\r\n");
    }

    fn closed(&mut self, why: &Closed) {
        // The test may have ended.
        self.ends.send(why.to_string()).ok();
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

struct Served {
    addr: SocketAddr,
    sides: mpsc::Receiver<UnixStream>,
    ends: mpsc::Receiver<String>,
}

fn serve(encryption: Encryption, acceptor: Option<Acceptor>, most: usize) -> Served {
    let listens = Listen::each(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], 0, encryption, "parrot");
    let sockets = activate::listen(&listens, false).unwrap();
    let (addr, _) = sockets.addresses()[0];
    let (sides_send, sides) = mpsc::channel();
    let (ends_send, ends) = mpsc::channel();
    let factory = move |_: &net::Accepted| Parrot {
        sides: sides_send.clone(),
        ends: ends_send.clone(),
    };
    // It ends with the test's process.
    std::thread::spawn(move || {
        let options = Options {
            acceptor,
            max_connections: most,
            busy: b"busy\r\n",
            ..Options::default()
        };
        poll::run(sockets, factory, options).unwrap();
    });
    Served { addr, sides, ends }
}

fn plain() -> Served {
    serve(Encryption::OnRequest, None, 100)
}

fn with_tls(encryption: Encryption) -> Served {
    serve(
        encryption,
        Some(Acceptor::open(&data("cert.pem"), &data("key.pem")).unwrap()),
        100,
    )
}

impl Served {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }

    fn end(&self) -> String {
        self.ends.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

fn expect(stream: &mut impl Read, want: &str) {
    let mut got = vec![0; want.len()];
    stream
        .read_exact(&mut got)
        .unwrap_or_else(|e| panic!("{want:?}: {e}"));
    assert_eq!(String::from_utf8_lossy(&got), want);
}

fn rest(stream: &mut impl Read) -> String {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    String::from_utf8_lossy(&got).into_owned()
}

#[test]
fn pipelined_lines_are_answered_in_order_across_a_job() {
    let served = plain();
    let mut c = served.connect();
    c.write_all(b"a\r\nslow b\r\nc\r\nslow d\r\nquit\r\nignored\r\n")
        .unwrap();
    assert_eq!(
        rest(&mut c),
        "hello\r\na\r\ndone b\r\nc\r\ndone d\r\nbye\r\n"
    );
    assert_eq!(served.end(), "closed");
}

#[test]
fn one_byte_at_a_time_is_the_same() {
    let served = plain();
    let mut c = served.connect();
    c.set_nodelay(true).unwrap();
    for b in b"one\r\ntwo\r\nquit\r\n" {
        c.write_all(&[*b]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(rest(&mut c), "hello\r\none\r\ntwo\r\nbye\r\n");
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let served = plain();
    let mut c = served.connect();
    c.write_all(b"slow a\r\nb\r\nhalf").unwrap();
    c.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(rest(&mut c), "hello\r\ndone a\r\nb\r\neof\r\n");
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let served = plain();
    let mut c = served.connect();
    // 400 MB of answers are asked for; unread, they must not be made.
    for _ in 0..4000 {
        c.write_all(b"big 100000\r\n").unwrap();
    }
    c.write_all(b"quit\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let peak = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = peak
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap()
        .trim()
        .to_owned();
    let kilobytes: u64 = peak.trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 300_000, "{peak}");
    let mut count = 0;
    let mut chunk = vec![0; 1 << 20];
    loop {
        match c.read(&mut chunk).unwrap() {
            0 => break,
            n => count += n,
        }
    }
    assert_eq!(count, 4000 * 100_000 + "hello\r\nbye\r\n".len());
}

#[test]
fn input_without_an_end_ends_the_connection() {
    let served = plain();
    let mut c = served.connect();
    // The Parrot consumes nothing that is no line.
    let sent = (0..100).all(|_| c.write_all(&[b'x'; 4096]).is_ok());
    assert_eq!(served.end(), "input without an end");
    drop((c, sent));
}

#[test]
fn deadlines_come() {
    let served = plain();
    let mut c = served.connect();
    c.write_all(b"nap\r\n").unwrap();
    assert_eq!(rest(&mut c), "hello\r\ntimeout\r\n");
}

#[test]
fn one_too_many_is_told_so() {
    let served = serve(Encryption::OnRequest, None, 2);
    let (mut a, mut b) = (served.connect(), served.connect());
    expect(&mut a, "hello\r\n");
    expect(&mut b, "hello\r\n");
    assert_eq!(rest(&mut served.connect()), "busy\r\n");
    a.write_all(b"quit\r\n").unwrap();
    assert_eq!(rest(&mut a), "bye\r\n");
    assert_eq!(served.end(), "closed");
    expect(&mut served.connect(), "hello\r\n");
}

#[test]
fn starttls_and_data_over_it() {
    let served = with_tls(Encryption::OnRequest);
    let mut c = served.connect();
    expect(&mut c, "hello\r\n");
    c.write_all(b"tls\r\n").unwrap();
    expect(&mut c, "go\r\n");
    let mut c = Connector::new()
        .unwrap()
        .connect(c, "localhost", Verify::Never)
        .unwrap();
    assert_eq!(c.info().version, "TLSv1.3");
    expect(&mut c, "secret\r\n");
    c.write_all(b"a\r\nslow b\r\nbig 1000000\r\n").unwrap();
    expect(&mut c, "a\r\ndone b\r\n");
    let mut big = vec![0; 1_000_000];
    c.read_exact(&mut big).unwrap();
    c.write_all(b"quit\r\n").unwrap();
    // Ends cleanly: with close_notify, or this would be an error.
    assert_eq!(rest(&mut c), "bye\r\n");
}

#[test]
fn plaintext_behind_starttls_is_never_read() {
    let served = with_tls(Encryption::OnRequest);
    let mut c = served.connect();
    c.write_all(b"tls\r\ninjected\r\n").unwrap();
    let mut got = Vec::new();
    // The connection may be reset.
    c.read_to_end(&mut got).ok();
    assert!(!String::from_utf8_lossy(&got).contains("injected"));
    assert_eq!(served.end(), "plaintext after STARTTLS");

    // The same, arriving later: it is no TLS record.
    let mut c = served.connect();
    c.write_all(b"tls\r\n").unwrap();
    expect(&mut c, "hello\r\ngo\r\n");
    c.write_all(b"injected\r\n").unwrap();
    assert!(served.end().starts_with("TLS: handshake: "));
}

#[test]
fn implicit_tls_greets_inside_and_a_cut_is_no_end() {
    let served = with_tls(Encryption::Implicit);
    let connector = Connector::new().unwrap();
    let mut c = connector
        .connect(served.connect(), "localhost", Verify::Never)
        .unwrap();
    expect(&mut c, "hello\r\n");
    c.write_all(b"half").unwrap();
    c.close().unwrap();
    assert_eq!(rest(&mut c), "eof\r\n");
    assert_eq!(served.end(), "closed");

    let mut c = connector
        .connect(served.connect(), "localhost", Verify::Never)
        .unwrap();
    // All read, or the kernel would send a reset instead of an end.
    expect(&mut c, "hello\r\n");
    drop(c);
    assert_eq!(served.end(), "TLS: connection cut off");
}

#[test]
fn a_stranger_is_not_believed_when_names_count() {
    let served = with_tls(Encryption::Implicit);
    let connector = Connector::new().unwrap();
    assert!(
        connector
            .connect(served.connect(), "localhost", Verify::Name)
            .is_err()
    );
}

#[test]
fn a_new_certificate_is_read_and_a_bad_one_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::copy(data("cert.pem"), &cert).unwrap();
    std::fs::copy(data("key.pem"), &key).unwrap();
    let acceptor = Acceptor::open(&cert, &key).unwrap();
    let served = serve(Encryption::Implicit, Some(acceptor.clone()), 100);
    let connector = Connector::new().unwrap();
    let works = || {
        let stream = connector.connect(served.connect(), "localhost", Verify::Never);
        stream.is_ok_and(|mut c| {
            expect(&mut c, "hello\r\n");
            true
        })
    };
    assert!(works());
    std::fs::write(&cert, "no certificate").unwrap();
    acceptor.reload();
    assert!(works());
    // The second certificate alone does not fit the first key.
    std::fs::copy(data("cert2.pem"), &cert).unwrap();
    acceptor.reload();
    assert!(works());
    std::fs::copy(data("key2.pem"), &key).unwrap();
    acceptor.reload();
    assert!(works());
    assert!(Acceptor::open(&data("cert.pem"), &data("key2.pem")).is_err());
    let root = base::Root::new(dir.path());
    let config = base::Config::parse(&root, "", Path::new("yubin.def")).unwrap();
    assert!(Acceptor::configured(&config).unwrap().is_none());
}

#[test]
fn an_attached_socket_is_served_beside() {
    let served = plain();
    let mut c = served.connect();
    c.write_all(b"side\r\n").unwrap();
    expect(&mut c, "hello\r\n");
    let mut side = served.sides.recv_timeout(Duration::from_secs(10)).unwrap();
    c.write_all(b"tell it\r\n").unwrap();
    expect(&mut side, "it\n");
    // More than fits anywhere: it waits for the client to read.
    let writer = std::thread::spawn(move || {
        side.write_all(&vec![b'y'; 20_000_000]).unwrap();
        side
    });
    std::thread::sleep(Duration::from_millis(100));
    assert!(!writer.is_finished());
    let mut all = vec![0; 20_000_000];
    c.read_exact(&mut all).unwrap();
    drop(writer.join().unwrap());
    expect(&mut c, "side closed\r\n");
    c.write_all(b"quit\r\n").unwrap();
    assert_eq!(rest(&mut c), "bye\r\n");
}

#[test]
fn two_hundred_at_once() {
    let served = serve(Encryption::OnRequest, None, 1000);
    let mut clients: Vec<TcpStream> = (0..200).map(|_| served.connect()).collect();
    for (n, c) in clients.iter_mut().enumerate() {
        c.write_all(format!("slow {n}\r\nquit\r\n").as_bytes())
            .unwrap();
    }
    for (n, c) in clients.iter_mut().enumerate() {
        assert_eq!(rest(c), format!("hello\r\ndone {n}\r\nbye\r\n"));
    }
}
