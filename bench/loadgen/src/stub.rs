//! What a server on this machine could reach at best: it frames SMTP and nothing else, appends each
//! message to a preallocated log, syncs that once for all that wait, and makes an unsynced file for each.
use crate::util::Args;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

const LOG: u64 = 64 << 20;

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    /// Messages appended, and messages synced.
    taken: u64,
    synced: u64,
    syncing: bool,
    at: u64,
}

struct Stub {
    dir: String,
    log: File,
    state: Mutex<State>,
    done: Condvar,
    serial: AtomicU64,
}

impl Stub {
    /// Returns when the message is durable in the log. Who comes while nobody syncs does it for all.
    fn commit(&self, message: &[u8]) -> std::io::Result<()> {
        let n = self.serial.fetch_add(1, Ordering::Relaxed);
        fs::write(format!("{}/{n:012}", self.dir), message)?;
        let mut s = self.state.lock().unwrap();
        s.pending.extend_from_slice(message);
        s.taken += 1;
        let mine = s.taken;
        while s.synced < mine {
            if s.syncing {
                s = self.done.wait(s).unwrap();
                continue;
            }
            s.syncing = true;
            let mut batch = std::mem::take(&mut s.pending);
            batch.resize(batch.len().next_multiple_of(4096), 0);
            let upto = s.taken;
            if s.at + batch.len() as u64 > LOG {
                s.at = 0;
            }
            let at = s.at;
            s.at += batch.len() as u64;
            drop(s);
            self.log.write_all_at(&batch, at)?;
            self.log.sync_data()?;
            s = self.state.lock().unwrap();
            s.syncing = false;
            s.synced = upto;
            self.done.notify_all();
        }
        Ok(())
    }

    fn serve(&self, s: TcpStream) -> std::io::Result<()> {
        s.set_nodelay(true)?;
        let mut w = s.try_clone()?;
        let mut r = BufReader::with_capacity(64 * 1024, s);
        w.write_all(b"220 stub.bench.test ESMTP\r\n")?;
        let (mut line, mut message) = (Vec::new(), Vec::new());
        loop {
            line.clear();
            if r.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            match &line.get(..4).unwrap_or_default().to_ascii_uppercase()[..] {
                b"EHLO" => w.write_all(b"250-stub.bench.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n")?,
                b"DATA" => {
                    w.write_all(b"354 go\r\n")?;
                    message.clear();
                    loop {
                        let start = message.len();
                        if r.read_until(b'\n', &mut message)? == 0 {
                            return Ok(());
                        }
                        if &message[start..] == b".\r\n" {
                            message.truncate(start);
                            break;
                        }
                    }
                    self.commit(&message)?;
                    w.write_all(b"250 ok\r\n")?;
                }
                b"QUIT" => return w.write_all(b"221 bye\r\n"),
                _ => w.write_all(b"250 ok\r\n")?,
            }
        }
    }
}

/// stub --port P --dir D
pub fn run(a: &Args) {
    let dir = a.str("dir", "stub");
    fs::create_dir_all(&dir).unwrap();
    let log = File::options().read(true).write(true).create(true).truncate(true).open(format!("{dir}.log")).unwrap();
    let zeros = vec![0; 1 << 20];
    for at in 0..LOG >> 20 {
        log.write_all_at(&zeros, at << 20).unwrap();
    }
    log.sync_all().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", a.num("port", 2525) as u16)).expect("port");
    let stub = Arc::new(Stub { dir, log, state: Mutex::default(), done: Condvar::new(), serial: AtomicU64::new(0) });
    for s in listener.incoming().flatten() {
        let stub = stub.clone();
        let _ = std::thread::Builder::new().stack_size(128 * 1024).spawn(move || {
            let _ = stub.serve(s);
        });
    }
}
