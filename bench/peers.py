"""Adapters: one class per server.  Each peer lives in its own chroot ($BENCH_WORK/roots/<name>) with the
same 100 users u0..u99 (uid 20000+i, gid 20000, home /home/uN).  Everything runs inside the private
network and PID namespace that bench.py makes, so only loopback exists and nothing survives the run."""
import glob, os, shutil, signal, socket, subprocess, tempfile, time

WORK = os.environ.get("BENCH_WORK", os.path.join(tempfile.gettempdir(), "bench"))
SINK_PORT = 19999
PW = "pw"


def port_open(port):
    s = socket.socket()
    s.settimeout(0.5)
    try:
        s.connect(("127.0.0.1", port))
        return True
    except OSError:
        return False
    finally:
        s.close()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def pss_kib(pids):
    total = 0
    for p in pids:
        try:
            with open(f"/proc/{p}/smaps_rollup") as f:
                for l in f:
                    if l.startswith("Pss:"):
                        total += int(l.split()[1])
        except OSError:
            pass
    return total


def cpu_s(pids):
    """Seconds of processor time of these processes and of their children that have ended."""
    ticks = 0
    for p in pids:
        try:
            with open(f"/proc/{p}/stat") as f:
                ticks += sum(int(n) for n in f.read().rsplit(")", 1)[1].split()[11:15])
        except OSError:
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


class Peer:
    """What a workload needs from a server.  Subclasses fill in configure() and launch()."""
    name = "?"
    serves = ()              # of: smtp lmtp cli pop3 imap
    formats = ("mbox", "maildir")
    smtp_port = lmtp_port = pop3_port = imap_port = None
    sendmail = None          # argv inside the chroot, recipient appended by the workload
    binaries = ()            # paths or globs inside the root, for M1
    spool_dirs = ()          # queue directories, emptied by clean()
    notes = ""
    pipeline = False

    def __init__(self):
        self.root = f"{WORK}/roots/{self.name}"

    # ---- to be written per server -------------------------------------------------------
    def configure(self, mode, fmt):
        """mode: hold (accept into the queue, deliver nothing), local, relay (all to 127.0.0.1:SINK_PORT)."""
        raise NotImplementedError

    def launch(self, mode):
        raise NotImplementedError

    def drop_index(self, user):
        """Remove whatever index or cache the IMAP server keeps for this user."""

    # ---- shared -------------------------------------------------------------------------
    def installed(self):
        return os.path.exists(self.root + "/.installed")

    def path(self, p):
        return self.root + p

    def write(self, p, text, mode=0o644):
        os.makedirs(os.path.dirname(self.path(p)), exist_ok=True)
        with open(self.path(p), "w") as f:
            f.write(text)
        os.chmod(self.path(p), mode)

    def sh(self, *argv, check=True):
        return subprocess.run(["chroot", self.root, *argv], check=check, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def spawn(self, *argv):
        """Start a daemon that stays in the foreground (or forks by itself)."""
        log = open(f"{WORK}/log-{self.name}", "a")
        return subprocess.Popen(["chroot", self.root, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def pids(self):
        """Every process whose root is this peer's chroot or lies below it (daemons chroot themselves again)."""
        r = os.path.realpath(self.root)
        out = []
        for d in os.listdir("/proc"):
            if d.isdigit():
                try:
                    at = os.readlink(f"/proc/{d}/root")
                    if (at == r or at.startswith(r + "/")) and alive(d):
                        out.append(int(d))
                except OSError:
                    pass
        return out

    def mounts(self):
        if not os.path.exists(self.path("/proc/self")):
            subprocess.run(["mount", "-t", "proc", "proc", self.path("/proc")], check=True)

    def ports(self):
        want = []
        if "smtp" in self.serves: want.append(self.smtp_port)
        if "lmtp" in self.serves: want.append(self.lmtp_port)
        if "pop3" in self.serves: want.append(self.pop3_port)
        if "imap" in self.serves: want.append(self.imap_port)
        return want

    def start(self, mode="local", fmt="mbox"):
        self.mode, self.fmt = mode, fmt
        self.mounts()
        self.configure(mode, fmt)
        self.launch(mode)
        end = time.time() + 20
        for p in self.ports():
            while not port_open(p):
                if time.time() > end:
                    self.stop()
                    raise RuntimeError(f"{self.name}: port {p} did not open; see {WORK}/log-{self.name}")
                time.sleep(0.05)
        time.sleep(0.5)

    def stop(self):
        for sig, wait in ((signal.SIGTERM, 4), (signal.SIGKILL, 4)):
            ps = self.pids()
            for p in ps:
                try:
                    os.kill(p, sig)
                except ProcessLookupError:
                    pass
            end = time.time() + wait
            while self.pids() and time.time() < end:
                time.sleep(0.05)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    def clean(self):
        """Empty queue and mailboxes (server stopped)."""
        for d in self.spool_dirs:
            for base, _, files in os.walk(self.path(d)):
                for f in files:
                    os.unlink(os.path.join(base, f))
        self.clean_mail()

    def clean_mail(self):
        for f in glob.glob(self.path("/var/mail/*")) + glob.glob(self.path("/var/mail/.*")):
            if os.path.isfile(f): os.unlink(f)
        for i in range(100):
            h = self.path(f"/home/u{i}")
            for e in os.listdir(h):
                p = f"{h}/{e}"
                shutil.rmtree(p) if os.path.isdir(p) else os.unlink(p)

    def mailbox(self, i):
        return self.path(f"/var/mail/u{i}") if self.fmt == "mbox" else self.path(f"/home/u{i}/Maildir")

    def watch(self, users):
        return ",".join(f"{self.fmt}:{self.mailbox(i)}" for i in range(users))

    def populate(self, i, gen):
        """Install a generated mailbox (see bench.gen) for user i."""
        uid = 20000 + i
        dst = self.mailbox(i)
        if self.fmt == "mbox":
            shutil.copyfile(gen, dst)
            os.chown(dst, uid, 8)
            os.chmod(dst, 0o660)
        else:
            shutil.rmtree(dst, ignore_errors=True)
            subprocess.run(["cp", "-al", gen, dst], check=True)      # hard links: same inodes, own names
            for d in ("", "/cur", "/new", "/tmp"):
                os.chown(dst + d, uid, 20000)

    def rcpt(self):
        return "u%d@bench.test"


class Postfix(Peer):
    name = "postfix"
    serves = ("smtp", "cli")
    smtp_port = 10025
    sendmail = ["/usr/sbin/sendmail", "-i"]
    binaries = ("/usr/sbin/post*", "/usr/sbin/sendmail", "/usr/lib/postfix/sbin/*", "/usr/lib/postfix/*.so*")
    spool_dirs = tuple("/var/spool/postfix/" + q for q in
                       ("incoming", "active", "deferred", "hold", "maildrop", "defer", "bounce", "corrupt", "trace"))
    notes = ("Debian 3.7, shipped defaults: queue file fsynced before 250 (cleanup), mailbox fsynced by local(8). "
             "hold = check_client_access static:HOLD. master.cf chroot flags off. No syslog socket (nobody listens).")

    def configure(self, mode, fmt):
        cf = f"""compatibility_level = 3.6
myhostname = mx.bench.test
mydestination = {'bench.test, localhost' if mode != 'relay' else ''}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
alias_maps =
alias_database =
biff = no
mailbox_size_limit = 0
smtpd_tls_security_level = none
smtp_tls_security_level = none
"""
        if mode == "hold":
            cf += "smtpd_client_restrictions = check_client_access static:HOLD\n"
        if mode == "relay":
            cf += f"relayhost = [127.0.0.1]:{SINK_PORT}\n"
        if fmt == "maildir":
            cf += "home_mailbox = Maildir/\n"
        self.write("/etc/postfix/main.cf", cf)
        m = self.path("/etc/postfix/master.cf")
        if not os.path.exists(m + ".orig"):
            shutil.copy(m if os.path.exists(m) else self.path("/usr/share/postfix/master.cf.dist"), m + ".orig")
        shutil.copy(m + ".orig", m)
        self.sh("postconf", "-F", "*/*/chroot=n")
        self.sh("postconf", "-MX", "smtp/inet", check=False)
        self.sh("postconf", "-M", f"{self.smtp_port}/inet={self.smtp_port} inet n - n - - smtpd")

    def launch(self, mode):
        self.sh("postfix", "start")


class OpenSMTPD(Peer):
    name = "opensmtpd"
    serves = ("smtp", "cli")
    smtp_port = 10027
    sendmail = ["/usr/sbin/sendmail", "-i"]
    binaries = ("/usr/sbin/smtpd", "/usr/sbin/smtpctl", "/usr/lib/*/opensmtpd/*", "/usr/libexec/opensmtpd/*")
    spool_dirs = tuple("/var/spool/smtpd/" + q for q in ("queue", "incoming", "temporary", "corrupt", "offline"))
    notes = "Debian 6.8p2, shipped defaults (listen backlog 5 is compiled in: bursts of new connections wait for SYN retries). hold = smtpd -P mda -P mta."

    def configure(self, mode, fmt):
        act = "mbox" if fmt == "mbox" else 'maildir "~/Maildir"'
        loc = 'match from any for domain "bench.test" action "local"\n' if mode != "relay" else ""
        self.write("/etc/smtpd.conf", f"""listen on 127.0.0.1 port {self.smtp_port} hostname mx.bench.test
action "local" {act}
action "out" relay host "smtp://127.0.0.1:{SINK_PORT}"
{loc}match from any for any action "out"
""")

    def launch(self, mode):
        self.spawn("/usr/sbin/smtpd", "-d", *(["-P", "mda", "-P", "mta"] if mode == "hold" else []))


class Exim(Peer):
    name = "exim"
    serves = ("smtp", "cli")
    smtp_port = 10026
    sendmail = ["/usr/sbin/sendmail", "-i"]
    binaries = ("/usr/sbin/exim4",)
    spool_dirs = ("/var/spool/exim4/input", "/var/spool/exim4/msglog", "/var/spool/exim4/db", "/var/log/exim4")
    notes = ("Debian 4.96 light, own minimal configure; limits that would reject load lifted (smtp_accept_max 0, "
             "smtp_accept_queue_per_connection 0, smtp_connect_backlog 200 instead of 20); hold = queue_only. Writes its own mainlog.")

    def configure(self, mode, fmt):
        if mode == "relay":
            router = "all:\n driver = manualroute\n transport = remote\n route_list = * 127.0.0.1\n self = send\n"
        else:
            router = "local:\n driver = accept\n check_local_user\n transport = local_delivery\n"
        dest = ("file = /var/mail/$local_part_data\n mode = 0660\n group = mail" if fmt == "mbox" else
                "directory = $home/Maildir\n maildir_format\n create_directory")
        self.write("/etc/exim4/exim4.conf", f"""primary_hostname = mx.bench.test
qualify_domain = bench.test
local_interfaces = 127.0.0.1.{self.smtp_port}
acl_smtp_rcpt = acl_ok
acl_smtp_data = acl_ok
tls_advertise_hosts =
keep_environment =
smtp_accept_max = 0
smtp_connect_backlog = 200
smtp_accept_queue_per_connection = 0
{'queue_only' if mode == 'hold' else ''}
begin acl
acl_ok:
 accept
begin routers
{router}
begin transports
remote:
 driver = smtp
 port = {SINK_PORT}
 allow_localhost
local_delivery:
 driver = appendfile
 {dest}
 delivery_date_add
 envelope_to_add
 return_path_add
begin retry
* * F,2h,1m
""")
        os.makedirs(self.path("/var/spool/exim4/db"), exist_ok=True)
        self.sh("chown", "-R", "Debian-exim:Debian-exim", "/var/spool/exim4", "/var/log/exim4")

    def launch(self, mode):
        self.spawn("/usr/sbin/exim4", "-bdf", *([] if mode == "hold" else ["-q1m"]))


class Dovecot(Peer):
    name = "dovecot"
    serves = ("lmtp", "pop3", "imap")
    lmtp_port, pop3_port, imap_port = 10024, 10110, 10143
    binaries = ("/usr/sbin/dovecot", "/usr/lib/dovecot/*", "/usr/lib/dovecot/modules/*.so")
    hibernate = "0"
    notes = ("Debian 2.3.19, shipped defaults (mail_fsync=optimized, one imap process per session), plaintext static "
             "passdb + passwd userdb, process/connection limits raised to fit the load.")

    def configure(self, mode, fmt):
        loc = "mbox:~/mail:INBOX=/var/mail/%n" if fmt == "mbox" else "maildir:~/Maildir"
        self.write("/etc/dovecot/dovecot.conf", f"""protocols = imap pop3 lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_username_format = %Ln
mail_location = {loc}
mail_privileged_group = mail
mail_access_groups = mail
mail_max_userip_connections = 0
log_path = /var/log/dovecot.log
default_process_limit = 2000
default_client_limit = 8000
imap_hibernate_timeout = {self.hibernate}
passdb {{
 driver = static
 args = password={PW}
}}
userdb {{
 driver = passwd
}}
namespace inbox {{
 inbox = yes
}}
service imap-login {{
 inet_listener imap {{
  port = {self.imap_port}
 }}
 inet_listener imaps {{
  port = 0
 }}
}}
service pop3-login {{
 inet_listener pop3 {{
  port = {self.pop3_port}
 }}
 inet_listener pop3s {{
  port = 0
 }}
}}
service imap {{
 process_limit = 4000
 unix_listener imap-master {{
  user = dovecot
 }}
}}
service imap-hibernate {{
 unix_listener imap-hibernate {{
  mode = 0666
 }}
}}
service lmtp {{
 inet_listener lmtp {{
  address = 127.0.0.1
  port = {self.lmtp_port}
 }}
}}
""")

    def launch(self, mode):
        self.spawn("/usr/sbin/dovecot", "-F")

    def drop_index(self, user):
        h = self.path(f"/home/u{user}")
        shutil.rmtree(h + "/mail/.imap", ignore_errors=True)
        for f in glob.glob(h + "/Maildir/dovecot*"):
            os.unlink(f)


class DovecotHibernate(Dovecot):
    """The same server with imap_hibernate_timeout = 5s (off by default)."""
    name = "dovecot"
    label = "dovecot-hib"
    hibernate = "5s"


class Yubin(Peer):
    """yubin as `make install` leaves it: started as root, each daemon becomes its own user, one store worker a login."""
    name = "yubin"
    serves = ("smtp", "cli", "pop3", "imap")
    smtp_port, pop3_port, imap_port = 12025, 12110, 12143
    sendmail = ["/opt/yubin/sendmail", "-i"]
    binaries = tuple("/opt/yubin/" + b for b in
                     ("smtpd", "qrun", "deliver", "pop3d", "imapd", "checkpw", "sendmail", "mailq", "newaliases", "mail"))
    spool_dirs = ("/var/spool/yubin",)
    notes = ("shipped defaults; users u0..u99 in /etc/yubin/users with {PLAIN}; connection limits raised to fit the load. "
             "hold = qrun and deliver not started.")
    bin_dir = os.environ.get("YUBIN_BIN", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "target", "release"))

    def installed(self):
        return os.path.exists(self.bin_dir + "/smtpd") and os.path.exists(self.root)

    def mounts(self):
        super().mounts()
        d = self.path("/opt/yubin")
        os.makedirs(d, exist_ok=True)
        if not os.path.ismount(d):
            subprocess.run(["mount", "--bind", self.bin_dir, d], check=True)   # private mount namespace

    def configure(self, mode, fmt):
        for user in ("yubin", "yubin-smtp", "yubin-front"):
            if self.sh("id", user, check=False).returncode:
                self.sh("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", user)
        self.sh("usermod", "-a", "-G", "yubin-smtp,mail", "yubin")
        for d, mode_, owner in (("", "0755", "yubin:yubin"), ("/drop", "3733", "yubin:yubin"), ("/incoming", "3730", "yubin:yubin-smtp"),
                                ("/local", "3730", "yubin:yubin-smtp"), ("/relay", "3730", "yubin:yubin-smtp"),
                                ("/hold", "0700", "yubin:yubin"), ("/damaged", "0700", "yubin:yubin")):
            self.sh("mkdir", "-p", "/var/spool/yubin" + d)
            self.sh("chown", owner, "/var/spool/yubin" + d)
            self.sh("chmod", mode_, "/var/spool/yubin" + d)
        self.sh("mkdir", "-p", "/var/spool/yubin-mail")
        self.sh("chown", "root:mail", "/var/mail/")
        self.sh("chmod", "3775", "/var/mail/")
        local = "bench.test" if mode != "relay" else "relay.bench.test"
        relay = f"DEFAULT_RELAY=smtp:[127.0.0.1]:{SINK_PORT}\n" if mode == "relay" else ""
        self.write("/etc/yubin/yubin.def", f"""MY_NAME=mx
MY_DOMAIN=bench.test
MY_ALIAS={local}
{relay}LISTEN=127.0.0.1
SMTP_PORT={self.smtp_port}
SUBMISSION_PORT=0
SMTPS_PORT=0
POP3_PORT={self.pop3_port}
POP3S_PORT=0
IMAP_PORT={self.imap_port}
IMAPS_PORT=0
MAX_CONNECTIONS=20000
MAX_CONNECTIONS_PER_CLIENT=20000
MAILBOX_FORMAT={fmt}
""")
        self.write("/etc/aliases", "postmaster: root\n")
        self.write("/etc/yubin/users", "".join(
            f"u{i}:{{PLAIN}}{PW}:{20000 + i}:20000::/home/u{i}\n" for i in range(100)), 0o600)

    def launch(self, mode):
        for d in ("smtpd", "pop3d", "imapd") + (() if mode == "hold" else ("qrun", "deliver")):
            self.spawn("/opt/yubin/" + d)

    def mailbox(self, i):
        return self.path(f"/var/mail/u{i}")

    def clean_mail(self):
        super().clean_mail()
        for d in glob.glob(self.path("/var/mail/*")) + glob.glob(self.path("/var/spool/yubin-mail/*")):
            if os.path.isdir(d):
                shutil.rmtree(d)

    def drop_index(self, user):
        shutil.rmtree(self.path(f"/var/spool/yubin-mail/u{user}/idx"), ignore_errors=True)


class Stub(Peer):
    """No mail server: the load generator's own stub, for what this machine and this generator allow at best."""
    name = "stub"
    serves = ("smtp",)
    smtp_port = 18025
    process = None

    def installed(self):
        return True

    def mounts(self):
        os.makedirs(self.root, exist_ok=True)

    def configure(self, mode, fmt):
        pass

    def launch(self, mode):
        self.process = subprocess.Popen([os.environ.get("LOADGEN", f"{WORK}/target/release/loadgen"), "stub", "--port",
                                         str(self.smtp_port), "--dir", self.root + "/files"])

    def pids(self):
        return [self.process.pid] if self.process and self.process.poll() is None else []

    def clean(self):
        shutil.rmtree(self.root, ignore_errors=True)


PEERS = {"stub": Stub, "postfix": Postfix, "opensmtpd": OpenSMTPD, "exim": Exim, "dovecot": Dovecot,
         "dovecot-hib": DovecotHibernate, "yubin": Yubin}


def make(name):
    p = PEERS[name]()
    p.label = name
    return p
