#!/usr/bin/env python3
"""Mail server benchmark driver.

  ./bench.py disk                      physical limits of this disk
  ./bench.py S1 [--peers a,b] [-n 3]   one workload, alternating between peers
  ./bench.py all [-n 3]                everything
  ./bench.py table                     the lines of the README, with ratios
  ./bench.py report [--ref postfix]    medians, ranges and ratios from results.jsonl
Workloads: disk C1 D1 I0 S1 S2 S3 S4 P1 I1 I2 I3 M1 FS
Needs root.  Re-executes itself in a private network + mount + PID namespace: only loopback exists in there,
and every daemon dies with the driver.
"""
import argparse, glob, json, os, statistics, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import peers as P

WORK = P.WORK
LOADGEN = os.environ.get("LOADGEN", f"{WORK}/target/release/loadgen")
MTAS = ["postfix", "yubin"]
MAA = ["dovecot", "yubin"]


def namespace():
    if os.environ.get("BENCH_NS") != "1":
        env = dict(os.environ, BENCH_NS="1")
        os.execvpe("unshare", ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
                               sys.executable, os.path.abspath(__file__)] + sys.argv[1:], env)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    import resource, signal
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def lg(*args, timeout=300):
    """Run the load generator once, return its JSON."""
    try:
        r = subprocess.run([LOADGEN, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"errors": [f"no result within {timeout}s"]}
    if r.returncode or not r.stdout.strip():
        return {"errors": [r.stderr[-300:]]}
    return json.loads(r.stdout.strip().splitlines()[-1])


def lga(**kw):
    out = []
    for k, v in kw.items():
        out += ["--" + k.replace("_", "-"), str(v)]
    return out


def gen(kind, n, size):
    """A generated mailbox, made once."""
    os.makedirs(f"{WORK}/gen", exist_ok=True)
    p = f"{WORK}/gen/{kind}-{n}-{size}"
    if not os.path.exists(p):
        r = lg("genbox", *lga(kind=kind, path=p + ".tmp", n=n, size=size), timeout=600)
        assert "bytes" in r, r
        os.rename(p + ".tmp", p)
    return p


class Out:
    def __init__(self, path):
        self.path = path

    def put(self, workload, case, peer, run, result):
        rec = dict(ts=int(time.time()), workload=workload, case=case, peer=peer, run=run, load=os.getloadavg()[0], result=result)
        with open(self.path, "a") as f:
            f.write(json.dumps(rec) + "\n")
        brief = {k: (round(v["p50_us"]) if isinstance(v, dict) and "p50_us" in v else v) for k, v in result.items()
                 if k in ("acked_per_s", "delivered_per_s", "per_s", "e2e", "sessions_per_s", "mb_per_s", "total", "select", "fetch_all", "search",
                          "select_us", "append_to_seen", "kib_per_session", "push_from_start", "pss_kib", "delivered", "errors", "failed", "n_errors", "fsyncs_per_msg", "exists") and v not in ([], 0)}
        print(f"{workload:4} {case:34} {peer:12} #{run} {brief}", flush=True)


def rounds(n, names, fn):
    """n rounds over the peers, rotating the order."""
    for run in range(n):
        k = run % max(1, len(names))
        for name in names[k:] + names[:k]:
            p = P.make(name)
            if not p.installed():
                if run == 0:
                    print(f"{name}: not installed, skipped")
                continue
            try:
                p.stop(); p.clean()
                fn(p, run)
            except Exception as e:
                print(f"!! {name}: {type(e).__name__} {e}", flush=True)
            finally:
                p.stop(); p.clean()


def disk(o, a):
    d = f"{WORK}/fsync"
    for run in range(a.n):
        for mode in ("create", "spread", "append", "nosync"):
            for t in (1, 20, 100):
                o.put("disk", f"{mode} 4KiB x{t}", "-", run, lg("fsync", *lga(dir=d, threads=t, size=4096, secs=2, mode=mode)))
        o.put("disk", "create 100KiB x20", "-", run, lg("fsync", *lga(dir=d, threads=20, size=102400, secs=2)))


def S1(o, a):
    def one(p, run):
        p.start("hold", "mbox")
        base = dict(addr=f"127.0.0.1:{p.smtp_port}", rcpt="u%d@bench.test", users=50)
        lg("smtp", *lga(**base, conns=4, msgs=40, size=4096))
        for size, label in ((4096, "4K"), (102400, "100K")):
            for c in (1, 20, 100):
                for per in (1, 20):
                    # Long enough that nobody's start counts: some seconds of the fastest.
                    msgs = ({1: 1500, 20: 10000, 100: 10000} if size == 4096 else {1: 200, 20: 1000, 100: 1000})[c]
                    cpu = P.cpu_s(p.pids())
                    r = lg("smtp", *lga(**base, conns=c, msgs=msgs, size=size, per_session=per), timeout=120)
                    mb = r.get("acked", 0) * size / 1e6
                    r["cpu_ms_per_mb"] = round((P.cpu_s(p.pids()) - cpu) * 1000 / mb, 2) if mb else None
                    o.put("S1", f"{label} C={c} per={per}", p.label, run, r)
        if p.label == "stub":
            o.put("disk", "create 100KiB x20", "files", run, lg("fsync", *lga(dir=f"{WORK}/fsync", threads=20, size=102400, secs=2)))
    rounds(a.n, [x for x in a.peers or MTAS + ["stub"]], one)


def C1(o, a):
    """10,000 clients that are connected and say nothing: memory of all processes, and a new client's wait for its greeting."""
    def one(p, run):
        p.start("hold", "mbox")
        time.sleep(1)
        before = P.pss_kib(p.pids())
        q = subprocess.Popen([LOADGEN, "guests", *lga(addr=f"127.0.0.1:{p.smtp_port}", conns=10000)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        q.stdout.readline()
        time.sleep(2)
        after = P.pss_kib(p.pids())
        out, _ = q.communicate("go\n", timeout=300)
        r = json.loads(out.strip().splitlines()[-1])
        r.update(pss_before_kib=before, pss_kib=after)
        o.put("C1", "10,000 guests", p.label, run, r)
    rounds(a.n, a.peers or ["yubin"], one)      # Postfix has a process for each


def S2(o, a):
    def one(p, run):
        for fmt in ("mbox", "maildir"):
            for users in (1, 50):
                p.stop(); p.clean()
                p.start("local", fmt)
                smtp = "smtp" in p.serves
                base = dict(addr=f"127.0.0.1:{p.smtp_port if smtp else p.lmtp_port}", rcpt="u%d@bench.test", size=4096, lmtp=0 if smtp else 1)
                lg("smtp", *lga(**base, users=50, conns=4, msgs=50, watch=p.watch(50), timeout=30))
                o.put("S2", f"{fmt} rcpts={users} C=20", p.label, run,
                      lg("smtp", *lga(**base, users=users, conns=20, msgs=1000 if smtp else 200, watch=p.watch(users), timeout=60)))
    rounds(a.n, a.peers or MTAS, one)


def S3(o, a):
    def one(p, run):
        p.start("relay", "mbox")
        base = dict(addr=f"127.0.0.1:{p.smtp_port}", rcpt="r%d@dest.test", users=50, size=4096, sink_port=P.SINK_PORT)
        lg("smtp", *lga(**base, conns=4, msgs=40, timeout=30))
        o.put("S3", "relay 4K C=20 per=1", p.label, run, lg("smtp", *lga(**base, conns=20, msgs=1000, timeout=60)))
        p.stop(); p.clean(); p.start("relay", "mbox")    # leftovers of a throttled peer must not count as arrivals
        o.put("S3", "latency idle", p.label, run, lg("smtp", *lga(**base, seq=1, msgs=200, timeout=20)))
    rounds(a.n, a.peers or MTAS, one)


def S4(o, a):
    def one(p, run):
        p.start("hold", "mbox")
        lg("cli", *lga(root=p.root, n=5), "--", *p.sendmail, "u0@bench.test")
        o.put("S4", "sendmail -i 4K", p.label, run, lg("cli", *lga(root=p.root, n=200), "--", *p.sendmail, "u0@bench.test"))
    rounds(a.n, a.peers or MTAS, one)


def P1(o, a):
    def one(p, run):
        for fmt in p.formats:
            p.stop(); p.clean(); p.fmt = fmt
            g = gen(fmt, 1000, 4096)
            for i in range(20):
                p.populate(i, g)
            p.start("local", fmt)
            base = dict(addr=f"127.0.0.1:{p.pop3_port}")
            o.put("P1", f"{fmt} C=1 first", p.label, run, lg("pop3", *lga(**base, conns=1, users=1, sessions=1)))
            lg("pop3", *lga(**base, conns=20, users=20, sessions=20))
            o.put("P1", f"{fmt} C=1", p.label, run, lg("pop3", *lga(**base, conns=1, users=1, sessions=10)))
            o.put("P1", f"{fmt} C=20", p.label, run, lg("pop3", *lga(**base, conns=20, users=20, sessions=60)))
    rounds(a.n, a.peers or MAA, one)


def D1(o, a):
    """Accepted by SMTP and delivered to mbox, 4 KiB, one message a session; and one at a time through an idle system."""
    def one(p, run):
        p.start("local", "mbox")
        base = dict(addr=f"127.0.0.1:{p.smtp_port}", rcpt="u%d@bench.test", users=50, size=4096)
        lg("smtp", *lga(**base, conns=4, msgs=50, watch=p.watch(50), timeout=30))
        for c, msgs in ((1, 1000), (20, 5000), (100, 5000)):
            o.put("D1", f"mbox 4K C={c}", p.label, run,
                  lg("smtp", *lga(**base, conns=c, msgs=msgs, watch=p.watch(50), timeout=60)))
        o.put("D1", "latency to mbox, idle", p.label, run, lg("smtp", *lga(**base, seq=1, msgs=200, watch=p.watch(50), timeout=20)))
    rounds(a.n, a.peers or MTAS, one)


def I0(o, a):
    """IMAP: login, SELECT, fetch all of a mailbox of 1,000 messages."""
    def one(p, run):
        for fmt in p.formats:
            p.stop(); p.clean(); p.fmt = fmt
            g = gen(fmt, 1000, 4096)
            for i in range(20):
                p.populate(i, g)
            p.start("local", fmt)
            base = dict(addr=f"127.0.0.1:{p.imap_port}", expect=1000)
            lg("fetchall", *lga(**base, conns=20, users=20, sessions=20))
            for c, sessions in ((1, 10), (20, 60)):
                o.put("I0", f"{fmt} 1000 C={c}", p.label, run, lg("fetchall", *lga(**base, conns=c, users=20, sessions=sessions)))
    rounds(a.n, a.peers or MAA, one)


def I1(o, a):
    def one(p, run):
        for fmt in p.formats:
            p.stop(); p.clean(); p.fmt = fmt
            g = gen(fmt, 10000, 4096)
            for i in range(20):
                p.populate(i, g)
            p.start("local", fmt)
            base = dict(addr=f"127.0.0.1:{p.imap_port}")
            for c in (1, 20):
                for i in range(c):
                    p.drop_index(i)
                o.put("I1", f"{fmt} C={c} cold", p.label, run, lg("imap", *lga(**base, conns=c)))
                o.put("I1", f"{fmt} C={c} warm", p.label, run, lg("imap", *lga(**base, conns=c)))
    rounds(a.n, a.peers or MAA, one)


def I2(o, a):
    def one(p, run):
        for fmt in p.formats:
            p.stop(); p.clean(); p.fmt = fmt
            p.populate(0, gen(fmt, 100000, 2048))
            subprocess.run(["cat", p.mailbox(0)], stdout=subprocess.DEVNULL) if fmt == "mbox" else None
            p.start("local", fmt)
            base = dict(addr=f"127.0.0.1:{p.imap_port}", user="u0")
            p.drop_index(0)
            o.put("I2", f"{fmt} 100k cold", p.label, run, lg("select", *lga(**base)))
            o.put("I2", f"{fmt} 100k warm", p.label, run, lg("select", *lga(**base)))
            o.put("I2", f"{fmt} 100k append+noop", p.label, run, lg("select", *lga(**base, append=30)))
    rounds(a.n, a.peers or MAA, one)


def I3(o, a):
    def one(p, run):
        fmt = "maildir" if "maildir" in p.formats else p.formats[0]
        p.fmt = fmt
        g = gen(fmt, 100, 4096)
        for i in range(100):
            p.populate(i, g)
        p.start("local", fmt)
        before = P.pss_kib(p.pids())
        proto, port = ("lmtp", p.lmtp_port) if "lmtp" in p.serves else ("smtp", p.smtp_port)
        for deliver in (True,):
            q = subprocess.Popen([LOADGEN, "idle", *lga(addr=f"127.0.0.1:{p.imap_port}", conns=1000, users=100, n=50,
                                                        deliver=f"{proto}:127.0.0.1:{port}")],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            line = q.stdout.readline().split()
            time.sleep(8)
            n = int(line[1])
            after = P.pss_kib(p.pids())
            procs = len(p.pids())
            out, _ = q.communicate("go\n", timeout=300)
            r = json.loads(out.strip().splitlines()[-1])
            r.update(pss_idle_kib=before, pss_kib=after, procs=procs, kib_per_session=round((after - before) / max(1, n), 1))
            o.put("I3", f"{fmt} 1000 IDLE", p.label, run, r)
    rounds(a.n, a.peers or MAA + ["dovecot-hib"], one)


def M1(o, a):
    def one(p, run):
        p.start("local", "maildir")
        time.sleep(1)
        ps = p.pids()
        size, seen = 0, set()
        for pat in p.binaries:
            for f in glob.glob(p.path(pat)):
                f = os.path.realpath(f)
                if os.path.isfile(f) and f not in seen:
                    seen.add(f); size += os.path.getsize(f)
        o.put("M1", "idle", p.label, run, dict(pss_kib=P.pss_kib(ps), procs=len(ps), binary_bytes=size, binary_files=len(seen)))
    rounds(a.n, a.peers or MTAS + ["dovecot"], one)


def FS(o, a):
    """Not a speed test: counts fsync-family and other system calls per message with strace -f."""
    def one(p, run):
        for mode in ("hold", "local"):
            if mode == "hold" and "smtp" not in p.serves:
                continue
            p.stop(); p.clean(); p.start(mode, "mbox")
            smtp = "smtp" in p.serves
            base = dict(addr=f"127.0.0.1:{p.smtp_port if smtp else p.lmtp_port}", rcpt="u%d@bench.test", users=10, lmtp=0 if smtp else 1, size=4096)
            w = {} if mode == "hold" else dict(watch=p.watch(10), timeout=20)
            lg("smtp", *lga(**base, conns=2, msgs=20, **w))
            trace = f"{WORK}/strace.{p.label}.{mode}"
            args = ["strace", "-f", "-qq", "-c", "-U", "calls,name", "-o", trace]
            for q in p.pids():
                args += ["-p", str(q)]
            s = subprocess.Popen(args, stderr=subprocess.DEVNULL)
            time.sleep(1)
            if mode != "hold":
                w = dict(watch=p.watch(10), timeout=30)
            r = lg("smtp", *lga(**base, conns=2, msgs=100, **w))
            time.sleep(0.5)
            s.terminate(); s.wait(timeout=20)
            calls = {}
            for l in open(trace):
                f = l.split()
                if len(f) == 2 and f[0].isdigit():
                    calls[f[1]] = int(f[0])
            n = max(1, r.get("acked", 0))
            pick = {k: round(v / n, 2) for k, v in sorted(calls.items(), key=lambda x: -x[1])
                    if k in ("fsync", "fdatasync", "sync_file_range", "rename", "link", "unlink", "openat", "execve", "clone", "vfork", "fork", "connect", "accept")}
            o.put("FS", mode, p.label, run, dict(fsyncs_per_msg=round((calls.get("fsync", 0) + calls.get("fdatasync", 0)) / n, 2),
                                                per_msg=pick, total_per_msg=round(calls.get("total", sum(calls.values())) / n, 1)))
            print("    ", pick, flush=True)
    rounds(1, a.peers or MTAS, one)


KEYS = {"disk": ["per_s"], "D1": ["delivered_per_s", "acked_per_s", "e2e.p50_us", "e2e.p99_us"],
        "I0": ["sessions_per_s", "mb_per_s", "session.p50_us"], "S1": ["acked_per_s", "lat.p50_us", "lat.p99_us", "cpu_ms_per_mb"], "C1": ["guests", "pss_kib", "banner.p50_us", "banner.p99_us"], "S2": ["delivered_per_s", "acked_per_s"],
        "S3": ["delivered_per_s", "e2e.p50_us", "e2e.p99_us"], "S4": ["per_s", "lat.p50_us"],
        "P1": ["sessions_per_s", "mb_per_s", "login.p50_us"],
        "I1": [f"{s}.{q}_us" for s in ("login", "select", "fetch_all", "fetch_body", "store", "search", "logout", "total") for q in ("p50", "p99")],
        "I2": ["select_us", "append.p50_us", "noop.p50_us", "append_to_seen.p50_us"],
        "I3": ["kib_per_session", "push_from_start.p50_us", "push_from_start.p99_us", "push_from_ack.p50_us", "logged_in", "missing"],
        "M1": ["pss_kib", "procs", "binary_bytes"], "FS": ["fsyncs_per_msg", "total_per_msg"]}


def report(a):
    d = {}
    for l in open(a.out):
        r = json.loads(l)
        for k in KEYS.get(r["workload"], []):
            v = r["result"]
            for part in k.split("."):
                v = v.get(part) if isinstance(v, dict) else None
            if isinstance(v, (int, float)):
                d.setdefault((r["workload"], r["case"], k), {}).setdefault(r["peer"], []).append(v)
    print("| workload | case | metric | peer | median | min-max | n | ratio to ref |")
    print("|---|---|---|---|---|---|---|---|")
    for (w, c, k), by in d.items():
        ref = statistics.median(by[a.ref]) if a.ref in by else None
        for peer, v in by.items():
            m = statistics.median(v)
            f = lambda x: f"{x:.0f}" if abs(x) >= 100 else f"{x:.2f}"
            print(f"| {w} | {c} | {k} | {peer} | {f(m)} | {f(min(v))}-{f(max(v))} | {len(v)} | {f'{m / ref:.2f}' if ref else ''} |")


# The lines of the README: workload, case, metric, what it is, whether more is better, the peer we compare with.
LINES = [
    ("S1", "4K C=1 per=1", "acked_per_s", "accepted into the queue, 1 connection at a time, 1 message each (msg/s)", True, "postfix"),
    ("S1", "4K C=1 per=20", "acked_per_s", "the same, 20 messages each", True, "postfix"),
    ("S1", "4K C=20 per=1", "acked_per_s", "20 connections, 1 message each", True, "postfix"),
    ("S1", "4K C=20 per=20", "acked_per_s", "20 connections, 20 messages each", True, "postfix"),
    ("S1", "4K C=100 per=1", "acked_per_s", "100 connections, 1 message each", True, "postfix"),
    ("S1", "4K C=100 per=20", "acked_per_s", "100 connections, 20 messages each", True, "postfix"),
    ("S1", "4K C=20 per=1", "acked_per_s", "beside a stub: 20 connections, 1 message each", True, "stub"),
    ("S1", "4K C=20 per=20", "acked_per_s", "beside a stub: 20 connections, 20 messages each", True, "stub"),
    ("S1", "4K C=100 per=1", "acked_per_s", "beside a stub: 100 connections, 1 message each", True, "stub"),
    ("S1", "4K C=100 per=20", "acked_per_s", "beside a stub: 100 connections, 20 messages each", True, "stub"),
    ("S1", "100K C=20 per=20", "acked_per_s", "accepted, 100 KiB, 20 connections (msg/s)", True, "postfix"),
    ("S1", "100K C=20 per=20", "cpu_ms_per_mb", "the same, processor time (ms/MB)", False, "postfix"),
    ("C1", "10,000 guests", "pss_kib", "memory with 10,000 idle SMTP clients (KiB PSS of smtpd, pop3d, imapd, checkpw)", False, None),
    ("C1", "10,000 guests", "banner.p99_us", "a new client's wait for its greeting beside them, p99 (us)", False, None),
    ("D1", "mbox 4K C=1", "delivered_per_s", "accepted and delivered to mbox, 1 connection (msg/s)", True, "postfix"),
    ("D1", "mbox 4K C=20", "delivered_per_s", "accepted and delivered to mbox, 20 connections (msg/s)", True, "postfix"),
    ("D1", "mbox 4K C=100", "delivered_per_s", "accepted and delivered to mbox, 100 connections (msg/s)", True, "postfix"),
    ("D1", "latency to mbox, idle", "e2e.p50_us", "one message to mbox, idle system, p50 (us)", False, "postfix"),
    ("D1", "latency to mbox, idle", "e2e.p99_us", "one message to mbox, idle system, p99 (us)", False, "postfix"),
    ("S3", "relay 4K C=20 per=1", "delivered_per_s", "relayed to a sink, 20 connections (msg/s)", True, "postfix"),
    ("P1", "mbox C=1", "sessions_per_s", "POP3: all of 1,000 messages, mbox, 1 client (sessions/s)", True, "dovecot"),
    ("P1", "mbox C=20", "sessions_per_s", "POP3: the same, 20 clients (sessions/s)", True, "dovecot"),
    ("P1", "maildir C=20", "sessions_per_s", "POP3: the same, Maildir, 20 clients (sessions/s)", True, "dovecot"),
    ("I0", "mbox 1000 C=1", "sessions_per_s", "IMAP: all of 1,000 messages, mbox, 1 client (sessions/s)", True, "dovecot"),
    ("I0", "mbox 1000 C=20", "sessions_per_s", "IMAP: the same, 20 clients (sessions/s)", True, "dovecot"),
    ("I0", "maildir 1000 C=20", "sessions_per_s", "IMAP: the same, Maildir, 20 clients (sessions/s)", True, "dovecot"),
    ("M1", "idle", "pss_kib", "memory of all daemons at rest (KiB PSS)", False, "postfix+dovecot"),
]


def table(a):
    """The short table: medians, the spread, and how many times better we are than the peer."""
    d = {}
    for l in open(a.out):
        r = json.loads(l)
        d.setdefault((r["workload"], r["case"], r["peer"]), []).append(r["result"])

    def values(w, c, k, peer):
        if "+" in peer:      # the sum of two peers, round by round
            parts = [values(w, c, k, p) for p in peer.split("+")]
            return [sum(x) for x in zip(*parts)]
        out = []
        for v in d.get((w, c, peer), []):
            for part in k.split("."):
                v = v.get(part) if isinstance(v, dict) else None
            if isinstance(v, (int, float)):
                out.append(v)
        return out

    f = lambda x: f"{x:,.0f}" if abs(x) >= 100 else f"{x:.1f}"
    show = lambda v: f"{f(statistics.median(v))} ({f(min(v))}-{f(max(v))})"
    print("| what | yubin: median (min-max) | peer: median (min-max) | peer | times better | rounds |")
    print("|---|---|---|---|---|---|")
    for w, c, k, what, more, peer in LINES:
        ours = values(w, c, k, "yubin")
        if peer is None and ours:
            print(f"| {what} | {show(ours)} | | | | {len(ours)} |")
            continue
        theirs = values(w, c, k, peer) if peer else []
        if ours and theirs:
            ratio = statistics.median(ours) / statistics.median(theirs)
            print(f"| {what} | {show(ours)} | {show(theirs)} | {peer} | {ratio if more else 1 / ratio:.2f} | {min(len(ours), len(theirs))} |")


ALL = dict(disk=disk, C1=C1, D1=D1, I0=I0, S1=S1, S2=S2, S3=S3, S4=S4, P1=P1, I1=I1, I2=I2, I3=I3, M1=M1, FS=FS)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("workload", nargs="+")
    ap.add_argument("--peers", type=lambda s: s.split(","))
    ap.add_argument("-n", type=int, default=3)
    ap.add_argument("--out", default=f"{WORK}/results.jsonl")
    ap.add_argument("--ref", default="postfix")
    a = ap.parse_args()
    if a.workload == ["report"]:
        return report(a)
    if a.workload == ["table"]:
        return table(a)
    namespace()
    o = Out(a.out)
    for w in (ALL if a.workload == ["all"] else a.workload):
        t = time.time()
        ALL[w](o, a)
        print(f"-- {w} took {time.time() - t:.0f}s", flush=True)


if __name__ == "__main__":
    main()
