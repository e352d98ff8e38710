use crate::smtp::{smtp_message, Client};
use crate::util::{text, Args, Rng, Samples};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

type Res<T> = Result<T, String>;

pub struct Imap {
    r: BufReader<TcpStream>,
    w: TcpStream,
    line: Vec<u8>,
    scratch: Vec<u8>,
    tag: u32,
    pub exists: usize,
}

#[derive(Default)]
pub struct Reply {
    pub bytes: usize,
    pub fetches: usize,
    pub search_hits: usize,
}

impl Imap {
    pub fn connect(addr: &str) -> Res<Imap> {
        let s = TcpStream::connect(addr).map_err(|e| e.to_string())?;
        s.set_nodelay(true).ok();
        s.set_read_timeout(Some(Duration::from_secs(300))).ok();
        let mut c = Imap {
            r: BufReader::with_capacity(16 * 1024, s.try_clone().map_err(|e| e.to_string())?),
            w: s,
            line: vec![],
            scratch: vec![0; 64 * 1024],
            tag: 0,
            exists: 0,
        };
        c.read_logical(&mut Reply::default())?;
        Ok(c)
    }

    /// Reads one response line together with its literals; self.line holds the first physical line.
    fn read_logical(&mut self, rep: &mut Reply) -> Res<()> {
        let mut part = vec![];
        let mut first = true;
        loop {
            let buf = if first { &mut self.line } else { &mut part };
            buf.clear();
            let n = self.r.read_until(b'\n', buf).map_err(|e| e.to_string())?;
            if n == 0 {
                return Err("closed".into());
            }
            rep.bytes += n;
            let lit = literal_len(buf);
            first = false;
            match lit {
                None => return Ok(()),
                Some(mut k) => {
                    rep.bytes += k;
                    while k > 0 {
                        let want = k.min(self.scratch.len());
                        self.r.read_exact(&mut self.scratch[..want]).map_err(|e| e.to_string())?;
                        k -= want;
                    }
                }
            }
        }
    }

    fn untagged(&mut self, rep: &mut Reply) {
        let l = &self.line;
        if l.starts_with(b"* ") {
            let d = l[2..].iter().take_while(|c| c.is_ascii_digit()).count();
            if d > 0 {
                let rest = &l[2 + d..];
                if rest.starts_with(b" EXISTS") {
                    self.exists = String::from_utf8_lossy(&l[2..2 + d]).parse().unwrap_or(0);
                } else if rest.starts_with(b" FETCH") {
                    rep.fetches += 1;
                }
            } else if l.starts_with(b"* SEARCH") {
                rep.search_hits = String::from_utf8_lossy(&l[8..]).split_whitespace().count();
            }
        }
    }

    pub fn cmd(&mut self, c: &str) -> Res<Reply> {
        self.tag += 1;
        let tag = format!("a{} ", self.tag);
        self.w.write_all(format!("{tag}{c}\r\n").as_bytes()).map_err(|e| e.to_string())?;
        self.finish(&tag, c)
    }

    fn finish(&mut self, tag: &str, c: &str) -> Res<Reply> {
        let mut rep = Reply::default();
        loop {
            self.read_logical(&mut rep)?;
            if self.line.starts_with(tag.as_bytes()) {
                return if self.line[tag.len()..].starts_with(b"OK") {
                    Ok(rep)
                } else {
                    Err(format!("{c}: {}", String::from_utf8_lossy(&self.line).trim()))
                };
            }
            self.untagged(&mut rep);
        }
    }

    pub fn append(&mut self, mbox: &str, msg: &[u8]) -> Res<()> {
        self.tag += 1;
        let tag = format!("a{} ", self.tag);
        self.w.write_all(format!("{tag}APPEND {mbox} {{{}}}\r\n", msg.len()).as_bytes()).map_err(|e| e.to_string())?;
        let mut rep = Reply::default();
        loop {
            self.read_logical(&mut rep)?;
            if self.line.starts_with(b"+") {
                break;
            }
            if self.line.starts_with(tag.as_bytes()) {
                return Err(String::from_utf8_lossy(&self.line).trim().to_string());
            }
        }
        self.w.write_all(msg).and_then(|_| self.w.write_all(b"\r\n")).map_err(|e| e.to_string())?;
        self.finish(&tag, "APPEND").map(|_| ())
    }
}

fn literal_len(l: &[u8]) -> Option<usize> {
    let l = l.strip_suffix(b"\n")?;
    let l = l.strip_suffix(b"\r").unwrap_or(l);
    let l = l.strip_suffix(b"}")?;
    let p = l.iter().rposition(|c| *c == b'{')?;
    std::str::from_utf8(&l[p + 1..]).ok()?.trim_end_matches('+').parse().ok()
}

const STEPS: [&str; 8] = ["login", "select", "fetch_all", "fetch_body", "store", "search", "logout", "total"];

fn session(addr: &str, user: &str, pass: &str, seed: u64, bodies: usize, st: &mut [Samples], mut gate: impl FnMut()) -> Res<(usize, usize)> {
    let t_all = Instant::now();
    let t = Instant::now();
    let mut c = Imap::connect(addr)?;
    c.cmd(&format!("LOGIN {user} {pass}"))?;
    st[0].add(t.elapsed());
    gate();
    let t = Instant::now();
    c.cmd("SELECT INBOX")?;
    st[1].add(t.elapsed());
    let n = c.exists;
    if n == 0 {
        return Err("empty mailbox".into());
    }
    let t = Instant::now();
    let r = c.cmd("FETCH 1:* (FLAGS RFC822.SIZE ENVELOPE)")?;
    st[2].add(t.elapsed());
    if r.fetches < n {
        return Err(format!("FETCH answered {} of {n}", r.fetches));
    }
    let mut rng = Rng::new(seed + 11);
    for _ in 0..bodies {
        let i = 1 + rng.below(n);
        let t = Instant::now();
        let r = c.cmd(&format!("FETCH {i} BODY.PEEK[]"))?;
        st[3].add(t.elapsed());
        if r.bytes < 200 {
            return Err("short body".into());
        }
    }
    for _ in 0..20 {
        let i = 1 + rng.below(n);
        let sign = if rng.below(2) == 0 { '+' } else { '-' };
        let t = Instant::now();
        c.cmd(&format!("STORE {i} {sign}FLAGS (\\Flagged)"))?;
        st[4].add(t.elapsed());
    }
    let t = Instant::now();
    let r = c.cmd("SEARCH TEXT zanzibar")?;
    st[5].add(t.elapsed());
    let hits = r.search_hits;
    let t = Instant::now();
    c.cmd("LOGOUT")?;
    st[6].add(t.elapsed());
    st[7].add(t_all.elapsed());
    Ok((n, hits))
}

/// fetchall --addr A --conns C --sessions N --user u%d --users U --pass P --expect M
/// LOGIN, SELECT, FETCH 1:* BODY.PEEK[], LOGOUT; every session has to get all M messages.
pub fn fetch_all(a: &Args) {
    let addr = a.str("addr", "127.0.0.1:2143");
    let conns = a.num("conns", 1);
    let sessions = a.num("sessions", 10);
    let pat = a.str("user", "u%d");
    let users = a.num("users", conns);
    let pass = a.str("pass", "pw");
    let expect = a.num("expect", 1000);
    let next = Arc::new(AtomicUsize::new(0));
    let t0 = Instant::now();
    let threads: Vec<_> = (0..conns)
        .map(|k| {
            let (addr, pass, next) = (addr.clone(), pass.clone(), next.clone());
            let user = pat.replace("%d", &(k % users).to_string());
            std::thread::spawn(move || {
                let (mut whole, mut bytes, mut errs) = (Samples::default(), 0, vec![]);
                while next.fetch_add(1, Ordering::Relaxed) < sessions {
                    let t = Instant::now();
                    match fetch_session(&addr, &user, &pass, expect) {
                        Ok(n) => {
                            whole.add(t.elapsed());
                            bytes += n;
                        }
                        Err(e) => errs.push(e),
                    }
                }
                (whole, bytes, errs)
            })
        })
        .collect();
    let (mut whole, mut bytes, mut errs) = (Samples::default(), 0, vec![]);
    for thread in threads {
        let (w, b, e) = thread.join().unwrap();
        whole.0.extend(w.0);
        bytes += b;
        errs.extend(e);
    }
    let el = t0.elapsed().as_secs_f64();
    let n = whole.0.len();
    errs.truncate(3);
    println!(
        "{{\"conns\":{conns},\"sessions\":{n},\"elapsed_s\":{el:.4},\"sessions_per_s\":{:.2},\"mb_per_s\":{:.1},\"session\":{},\"errors\":{:?}}}",
        n as f64 / el,
        bytes as f64 / 1e6 / el,
        whole.json(),
        errs
    );
}

fn fetch_session(addr: &str, user: &str, pass: &str, expect: usize) -> Res<usize> {
    let mut c = Imap::connect(addr)?;
    c.cmd(&format!("LOGIN {user} {pass}"))?;
    c.cmd("SELECT INBOX")?;
    let r = c.cmd("FETCH 1:* BODY.PEEK[]")?;
    if c.exists != expect || r.fetches != expect {
        return Err(format!("{} exist and {} came, {expect} expected", c.exists, r.fetches));
    }
    c.cmd("LOGOUT")?;
    Ok(r.bytes)
}

/// imap --addr A --conns C --rounds R --user u%d --users U --pass P --bodies 100
pub fn run(a: &Args) {
    let addr = a.str("addr", "127.0.0.1:2143");
    let conns = a.num("conns", 1);
    let rounds = a.num("rounds", 1);
    let pat = a.str("user", "u%d");
    let users = a.num("users", conns);
    let pass = a.str("pass", "pw");
    let bodies = a.num("bodies", 100);
    let t0 = Instant::now();
    let mut hs = vec![];
    for k in 0..conns {
        let (addr, pat, pass) = (addr.clone(), pat.clone(), pass.clone());
        hs.push(std::thread::spawn(move || {
            let mut st: Vec<Samples> = STEPS.iter().map(|_| Samples::default()).collect();
            let mut errs = vec![];
            let mut seen = (0, 0);
            for r in 0..rounds {
                let user = pat.replace("%d", &(k % users).to_string());
                match session(&addr, &user, &pass, (k * 1000 + r) as u64, bodies, &mut st, || {}) {
                    Ok(x) => seen = x,
                    Err(e) => errs.push(e),
                }
            }
            (st, errs, seen)
        }));
    }
    let mut all: Vec<Samples> = STEPS.iter().map(|_| Samples::default()).collect();
    let mut errs: Vec<String> = vec![];
    let mut seen = (0, 0);
    for h in hs {
        let (st, e, s) = h.join().unwrap();
        for (x, y) in all.iter_mut().zip(st) {
            x.0.extend(y.0);
        }
        errs.extend(e);
        if s.0 > 0 {
            seen = s;
        }
    }
    let el = t0.elapsed().as_secs_f64();
    errs.truncate(3);
    let steps: Vec<String> = STEPS.iter().zip(all.iter_mut()).map(|(n, s)| format!("\"{n}\":{}", s.json())).collect();
    println!(
        "{{\"conns\":{conns},\"rounds\":{rounds},\"elapsed_s\":{el:.4},\"exists\":{},\"search_hits\":{},{},\"errors\":{:?}}}",
        seen.0, seen.1, steps.join(","), errs
    );
}

/// select --addr A --user u0 --pass P [--append N]
/// One session: LOGIN, SELECT (timed), SELECT again in a second session (timed), then N times
/// append one message through a second session and NOOP until the first one sees it.
pub fn select(a: &Args) {
    let addr = a.str("addr", "127.0.0.1:2143");
    let user = a.str("user", "u0");
    let pass = a.str("pass", "pw");
    let n = a.num("append", 0);
    let go = || -> Res<String> {
        let mut c = Imap::connect(&addr)?;
        c.cmd(&format!("LOGIN {user} {pass}"))?;
        let t = Instant::now();
        c.cmd("SELECT INBOX")?;
        let sel = t.elapsed();
        let exists = c.exists;
        let t = Instant::now();
        c.cmd("STATUS INBOX (MESSAGES UNSEEN UIDNEXT)").ok();
        let status = t.elapsed();
        let (mut ap, mut np, mut seen) = (Samples::default(), Samples::default(), Samples::default());
        if n > 0 {
            let mut d = Imap::connect(&addr)?;
            d.cmd(&format!("LOGIN {user} {pass}"))?;
            let body = text(&mut Rng::new(7), 4400, "\r\n");
            for i in 0..n {
                let m = smtp_message(i, "u0@bench.test", 4096, &body);
                let m = &m[..m.len() - 3];
                let before = c.exists;
                let t0 = Instant::now();
                d.append("INBOX", m)?;
                ap.add(t0.elapsed());
                let t1 = Instant::now();
                c.cmd("NOOP")?;
                np.add(t1.elapsed());
                while c.exists <= before && t0.elapsed() < Duration::from_secs(20) {
                    c.cmd("NOOP")?;
                }
                seen.add(t0.elapsed());
            }
        }
        c.cmd("LOGOUT")?;
        Ok(format!(
            "{{\"exists\":{exists},\"select_us\":{:.1},\"status_us\":{:.1},\"append\":{},\"noop\":{},\"append_to_seen\":{}}}",
            sel.as_secs_f64() * 1e6, status.as_secs_f64() * 1e6, ap.json(), np.json(), seen.json()
        ))
    };
    match go() {
        Ok(s) => println!("{s}"),
        Err(e) => println!("{{\"errors\":[{:?}]}}", e),
    }
}

/// idle --addr A --conns 1000 --user u%d --users 100 --pass P --deliver smtp:ADDR|lmtp:ADDR --n 50
/// Logs in all sessions and puts them in IDLE, prints READY, waits for a line on stdin, then delivers
/// n messages one by one and reports when each watching session got its EXISTS.
pub fn idle(a: &Args) {
    let addr = a.str("addr", "127.0.0.1:2143");
    let conns = a.num("conns", 1000);
    let pat = a.str("user", "u%d");
    let users = a.num("users", 100);
    let pass = a.str("pass", "pw");
    let n = a.num("n", 50);
    let rcpt = a.str("rcpt", "u%d@bench.test");
    let deliver = a.str("deliver", "");
    let (tx, rx) = mpsc::channel::<(usize, usize, Instant)>();
    let (etx, erx) = mpsc::channel::<String>();
    let bar = Arc::new(Barrier::new(conns + 1));
    let ok = Arc::new(Mutex::new(0usize));
    let sem = Arc::new(Mutex::new(0usize)); // serialises part of the logins
    let t0 = Instant::now();
    for k in 0..conns {
        let (addr, pat, pass, tx, etx, bar, ok, sem) = (addr.clone(), pat.clone(), pass.clone(), tx.clone(), etx.clone(), bar.clone(), ok.clone(), sem.clone());
        std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(move || {
                let u = k % users;
                let go = || -> Res<Imap> {
                    let mut c = {
                        let _g = if k % 8 == 0 { None } else { Some(sem.lock().unwrap()) };
                        let mut c = Imap::connect(&addr)?;
                        c.cmd(&format!("LOGIN {} {pass}", pat.replace("%d", &u.to_string())))?;
                        c
                    };
                    c.cmd("SELECT INBOX")?;
                    c.w.write_all(b"i1 IDLE\r\n").map_err(|e| e.to_string())?;
                    loop {
                        c.read_logical(&mut Reply::default())?;
                        if c.line.starts_with(b"+") {
                            return Ok(c);
                        }
                        if c.line.starts_with(b"i1 ") {
                            return Err(String::from_utf8_lossy(&c.line).to_string());
                        }
                    }
                };
                let r = go();
                if r.is_ok() {
                    *ok.lock().unwrap() += 1;
                }
                bar.wait();
                match r {
                    Err(e) => {
                        let _ = etx.send(e);
                    }
                    Ok(mut c) => {
                        let mut rep = Reply::default();
                        while c.read_logical(&mut rep).is_ok() {
                            let now = Instant::now();
                            let before = c.exists;
                            c.untagged(&mut rep);
                            if c.exists != before && tx.send((u, k, now)).is_err() {
                                return;
                            }
                        }
                    }
                }
            })
            .unwrap();
    }
    bar.wait();
    let login_s = t0.elapsed().as_secs_f64();
    println!("READY {}", *ok.lock().unwrap());
    let mut s = String::new();
    std::io::stdin().read_line(&mut s).ok();
    let (mut from_start, mut from_ack, mut acks) = (Samples::default(), Samples::default(), Samples::default());
    let body = text(&mut Rng::new(7), 4400, "\r\n");
    let mut missing = 0;
    let mut errs: Vec<String> = erx.try_iter().take(3).collect();
    let per_user = conns / users.max(1);
    if let Some((proto, daddr)) = deliver.split_once(':') {
        for i in 0..n {
            let u = i % users;
            let to = rcpt.replace("%d", &u.to_string());
            let m = smtp_message(i, &to, 4096, &body);
            while rx.try_recv().is_ok() {}
            let t = Instant::now();
            let r = Client::connect(daddr, proto == "lmtp").and_then(|mut c| {
                c.send("sender@example.org", &to, &m, false)?;
                Ok(c)
            });
            let ack = Instant::now();
            match r {
                Ok(c) => c.quit(),
                Err(e) => {
                    errs.push(e.to_string());
                    continue;
                }
            }
            acks.add(ack - t);
            let mut got = 0;
            let end = Instant::now() + Duration::from_secs(a.num("push-timeout", 15) as u64);
            while got < per_user {
                match rx.recv_timeout(end.saturating_duration_since(Instant::now())) {
                    Ok((uu, _, at)) if uu == u => {
                        from_start.add(at.saturating_duration_since(t));
                        from_ack.add(at.saturating_duration_since(ack));
                        got += 1;
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            missing += per_user - got;
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    errs.truncate(3);
    println!(
        "{{\"conns\":{conns},\"logged_in\":{},\"login_s\":{login_s:.2},\"push_from_start\":{},\"push_from_ack\":{},\"ack\":{},\"missing\":{missing},\"errors\":{:?}}}",
        *ok.lock().unwrap(), from_start.json(), from_ack.json(), acks.json(), errs
    );
    std::process::exit(0);
}
