"""A milter that does what the envelope sender's local part says; pymilter and libmilter speak the
protocol. Arguments: its socket, and a file for what it was told. One on watch.sock only listens."""
import os
import sys
import time

import Milter


class Scripted(Milter.Base):
    what = "nothing"

    def note(self, text):
        with open(sys.argv[2], "a") as told:
            told.write(text + "\n")

    def negotiate(self, opts):
        # Base.setsymlist gives bytes where a text is wanted.
        self.note("negotiate")
        self._ctx.setsymlist(Milter.M_HELO, "{tls_version}")
        return super().negotiate(opts)

    def connect(self, name, family, address):
        self.note(f"connect {name} {address[0]} j={self.getsymval('j')} daemon={self.getsymval('{daemon_name}')}")
        return Milter.CONTINUE

    def hello(self, name):
        self.note(f"helo {name} tls={self.getsymval('{tls_version}')} cipher={self.getsymval('{cipher}')}")
        if name == "tempfail.example":
            return Milter.TEMPFAIL
        return Milter.CONTINUE

    def envfrom(self, sender, *args):
        if not sys.argv[1].endswith("watch.sock"):
            self.what = sender.strip("<>").split("@")[0]
        self.size, self.fields = 0, []
        self.note(f"mail {sender} {' '.join(args)} auth={self.getsymval('{auth_authen}')}")
        if self.what == "own-words":
            self.setreply("554", "5.7.9", "In my own words, 100%%", "and on two lines")
            return Milter.REJECT
        return {"tempfail": Milter.TEMPFAIL, "accept": Milter.ACCEPT}.get(self.what, Milter.CONTINUE)

    def envrcpt(self, recipient, *args):
        self.note(f"rcpt {recipient} {' '.join(args)} mailer={self.getsymval('{rcpt_mailer}')}")
        if self.what == "not-bob" and recipient == "<bob@yubin.test>":
            return Milter.REJECT
        return Milter.CONTINUE

    def data(self):
        self.note("data")
        return Milter.REJECT if self.what == "not-data" else Milter.CONTINUE

    def header(self, name, value):
        self.fields.append(name)
        return Milter.CONTINUE

    def eoh(self):
        self.note(f"fields {' '.join(self.fields)}")
        return Milter.CONTINUE

    def body(self, piece):
        self.size += len(piece)
        return Milter.CONTINUE

    def eom(self):
        self.note(f"end size={self.size} id={self.getsymval('i')}")
        if self.what == "change":
            self.addheader("X-Added", "last\n and folded")
            self.addheader("X-First", "above", 0)
            self.addheader("X-Second", "below", 1)
            self.chgheader("Subject", 1, "changed")
            self.chgheader("X-Gone", 1, "")
            self.chgheader("X-New", 1, "made by a change")
            self.chgfrom("<carl@yubin.test>")
            self.addrcpt("<bob@yubin.test>")
            self.addrcpt("<carl@yubin.test>", "NOTIFY=NEVER")
            self.delrcpt("<alice@yubin.test>")
            self.replacebody("another\nbody\n")
        elif self.what == "large":
            self.replacebody("y" * 99 + "\n")
            for _ in range(2000):
                self.replacebody("y" * 99 + "\n")
        elif self.what == "hold":
            self.quarantine("looks odd")
        elif self.what == "die":
            os._exit(1)
        elif self.what == "die-amid-changes":
            self.addheader("X-Added", "half")
            self.addrcpt("<bob@yubin.test>")
            os._exit(1)
        elif self.what == "sleep":
            time.sleep(4)
        elif self.what == "progress":
            for _ in range(4):
                time.sleep(1)
                self.progress()
        elif self.what == "nap":
            time.sleep(1)
        return {"discard": Milter.DISCARD, "reject": Milter.REJECT}.get(self.what, Milter.CONTINUE)

    def unknown(self, line):
        self.note(f"unknown {line}")
        if line == "XNO":
            self.setreply("550", "5.5.1", "Not in this house")
            return Milter.REJECT
        return Milter.CONTINUE

    def abort(self):
        self.note("abort")
        return Milter.CONTINUE

    def close(self):
        self.note("close")
        return Milter.CONTINUE


Milter.factory = Scripted
flags = (Milter.ADDHDRS, Milter.CHGBODY, Milter.ADDRCPT, Milter.DELRCPT, Milter.CHGHDRS,
         Milter.QUARANTINE, Milter.CHGFROM, Milter.ADDRCPT_PAR, Milter.SETSYMLIST)
Milter.set_flags(sum(flags))
Milter.runmilter("scripted", sys.argv[1], 60)
