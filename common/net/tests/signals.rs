//! SIGHUP and SIGTERM, in a process of their own, because they are for a whole process.
#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on panics

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use net::{Accepted, Control, Encryption, Listen, Options, Protocol, activate, poll};
use nix::sys::signal::{Signal, raise};

/// Finishes what it was asked, then ends.
struct Polite {
    busy: bool,
}

impl Protocol for Polite {
    type Done = ();

    fn open(&mut self, control: &mut Control<'_, ()>) {
        control.write(b"hello\n");
    }

    fn input(&mut self, bytes: &[u8], control: &mut Control<'_, ()>) -> usize {
        self.busy = true;
        control.pause();
        control.job(|| std::thread::sleep(Duration::from_millis(300)));
        bytes.len()
    }

    fn done(&mut self, (): (), control: &mut Control<'_, ()>) {
        control.write(b"done\n");
        control.close();
    }

    fn timeout(&mut self, control: &mut Control<'_, ()>) {
        control.close();
    }

    fn drain(&mut self, control: &mut Control<'_, ()>) {
        if !self.busy {
            control.write(b"ending\n");
            control.close();
        }
    }
}

#[test]
fn sigterm_lets_sessions_finish_and_sighup_calls_back() {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let listens = Listen::each(&[ip], 0, Encryption::OnRequest, "polite");
    let sockets = activate::listen(&listens, false).unwrap();
    let (addr, _) = sockets.addresses()[0];
    let (hangup, hangups) = mpsc::channel();
    let server = std::thread::spawn(move || {
        let options = Options {
            on_hangup: Some(Box::new(move || hangup.send(()).unwrap())),
            ..Options::default()
        };
        poll::run(sockets, |_: &Accepted| Polite { busy: false }, options)
    });

    let (mut idle, mut busy) = (
        TcpStream::connect(addr).unwrap(),
        TcpStream::connect(addr).unwrap(),
    );
    let mut hello = [0; 6];
    idle.read_exact(&mut hello).unwrap();
    busy.read_exact(&mut hello).unwrap();
    raise(Signal::SIGHUP).unwrap();
    hangups.recv_timeout(Duration::from_secs(10)).unwrap();

    busy.write_all(b"work").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    raise(Signal::SIGTERM).unwrap();
    let mut said = String::new();
    idle.read_to_string(&mut said).unwrap();
    assert_eq!(said, "ending\n");
    said.clear();
    busy.read_to_string(&mut said).unwrap();
    assert_eq!(said, "done\n");
    server.join().unwrap().unwrap();
    assert!(TcpStream::connect(addr).is_err());
}
