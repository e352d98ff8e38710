//! Dialogues with a session over a small store in memory. Lines beginning `C:` are sent, `S:` lines
//! must come back, exactly; so the RFCs' examples can be pasted in.

use account::Mechanism;
use store::Flags;

use crate::fake::Store;
use crate::login::{LoginAnswer, LoginRequest};
use crate::session::{Action, Actions, Options, Session};

/// A session and its store.
struct Talk {
    session: Session,
    store: Store,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Closing, TLS and watches, as they were asked for.
    events: Vec<String>,
}

impl Talk {
    fn new(store: Store) -> Self {
        let options = Options {
            host: "mail.yubin.test".into(),
            message_size: 1000,
            mechanisms: vec![Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login],
            login_allowed: true,
            starttls: false,
        };
        let mut talk = Self {
            session: Session::new(options),
            store,
            input: vec![],
            output: vec![],
            events: vec![],
        };
        let mut actions = Actions::default();
        talk.session.open(&mut actions);
        talk.output = actions.output;
        talk
    }

    /// Does what the session wants until it wants octets.
    fn run(&mut self, mut actions: Actions) {
        loop {
            self.output.append(&mut actions.output);
            let mut next = Actions::default();
            for action in std::mem::take(&mut actions.next) {
                match action {
                    Action::Ask(request) => {
                        let answer = self.store.handle(request);
                        self.session.answer(answer, &mut next);
                    }
                    Action::Login(request) => {
                        if let Some(answer) = login(request) {
                            self.session.login(answer, &mut next);
                        }
                    }
                    Action::Decide(thought) => self.session.decided(thought.decide(), &mut next),
                    Action::WhenFlushed => self.session.flushed(&mut next),
                    other => self.events.push(format!("{other:?}")),
                }
            }
            if next.next.is_empty() && next.output.is_empty() {
                return;
            }
            actions = next;
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while !self.input.is_empty() && self.session.wants_input() {
            let mut actions = Actions::default();
            let took = self.session.input(&self.input, &mut actions);
            self.input.drain(..took);
            self.run(actions);
            if took == 0 {
                break;
            }
        }
    }

    fn act(&mut self, act: impl FnOnce(&mut Session, &mut Actions)) {
        let mut actions = Actions::default();
        act(&mut self.session, &mut actions);
        self.run(actions);
    }

    /// Plays a dialogue.
    fn play(&mut self, dialogue: &str) {
        for (number, line) in dialogue.lines().map(str::trim_start).enumerate() {
            if let Some(sent) = line.strip_prefix("C: ") {
                assert_eq!(self.take(), "", "unexpected before line {number}: {line}");
                self.send(format!("{sent}\r\n").as_bytes());
            } else if let Some(want) = line.strip_prefix("S: ") {
                let end = self
                    .output
                    .windows(2)
                    .position(|w| w == b"\r\n")
                    .unwrap_or(self.output.len());
                let rest = self.output.split_off((end + 2).min(self.output.len()));
                let mut got = std::mem::replace(&mut self.output, rest);
                got.truncate(end);
                assert_eq!(String::from_utf8_lossy(&got), want, "line {number}");
            }
        }
        assert_eq!(self.take(), "", "at the end");
    }

    fn take(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.output)).unwrap()
    }
}

fn login(request: LoginRequest) -> Option<LoginAnswer> {
    let granted = |good| {
        Some(if good {
            LoginAnswer::Granted
        } else {
            LoginAnswer::Refused
        })
    };
    match request {
        LoginRequest::Password { user, password } => {
            granted(user == b"mrc" && password == b"secret")
        }
        LoginRequest::Begin {
            initial: Some(text),
            ..
        }
        | LoginRequest::Continue(text) => granted(text == b"\0mrc\0secret"),
        LoginRequest::Begin { initial: None, .. } => Some(LoginAnswer::Challenge(vec![])),
        LoginRequest::Cancel => None,
    }
}

/// RFC 3501 8's message 12.
const GRAY: &str = "Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\n\
    From: Terry Gray <gray@cac.washington.edu>\r\n\
    Subject: IMAP4rev1 WG mtg summary and minutes\r\n\
    To: imap@cac.washington.edu\r\n\
    cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\n\
    Message-Id: <B27397-0100000@cac.washington.edu>\r\n\
    MIME-Version: 1.0\r\n\
    Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n\r\nhello\r\nworld\r\n";

fn logged_in(store: Store) -> Talk {
    let mut talk = Talk::new(store);
    talk.take();
    talk.send(b"a LOGIN mrc secret\r\n");
    assert!(talk.take().contains("a OK"));
    talk
}

fn selected() -> Talk {
    let mut store = Store::new();
    store.add("INBOX", GRAY, Flags::NONE);
    store.add("INBOX", "Subject: two\r\n\r\nbody two\r\n", Flags::SEEN);
    store.add("INBOX", "Subject: three\r\n\r\nbody three\r\n", Flags::NONE);
    let mut talk = logged_in(store);
    talk.send(b"b SELECT INBOX\r\n");
    talk.take();
    talk
}

#[test]
fn rfc_3501_sample_session() {
    let mut store = Store::new();
    store.add("INBOX", GRAY, Flags::NONE);
    Talk::new(store).play(
        "S: * OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID IDLE NAMESPACE CHILDREN UIDPLUS UNSELECT MOVE AUTH=SCRAM-SHA-256 AUTH=PLAIN AUTH=LOGIN] mail.yubin.test yubin ready
         C: a001 login mrc secret
         S: a001 OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID IDLE NAMESPACE CHILDREN UIDPLUS UNSELECT MOVE] Logged in
         C: a002 select inbox
         S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)
         S: * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] Limited
         S: * 1 EXISTS
         S: * 0 RECENT
         S: * OK [UNSEEN 1] First unseen
         S: * OK [UIDVALIDITY 7] UIDs valid
         S: * OK [UIDNEXT 2] Predicted next UID
         S: a002 OK [READ-WRITE] Mailbox selected
         C: a003 fetch 1 (flags envelope rfc822.size body)
         S: * 1 FETCH (FLAGS () ENVELOPE (\"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\" \"IMAP4rev1 WG mtg summary and minutes\" ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) ((NIL NIL \"imap\" \"cac.washington.edu\")) ((NIL NIL \"minutes\" \"CNRI.Reston.VA.US\")(\"John Klensin\" NIL \"KLENSIN\" \"MIT.EDU\")) NIL NIL \"<B27397-0100000@cac.washington.edu>\") RFC822.SIZE 356 BODY (\"TEXT\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\") NIL NIL \"7BIT\" 14 2))
         S: a003 OK FETCH completed
         C: a004 fetch 1 body[header.fields (date from)]
         S: * 1 FETCH (BODY[HEADER.FIELDS (date from)] {91}
         S: Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)
         S: From: Terry Gray <gray@cac.washington.edu>
         S: \n         S:  FLAGS (\\Seen))
         S: a004 OK FETCH completed
         C: a005 store 1 +flags \\deleted
         S: * 1 FETCH (FLAGS (\\Deleted \\Seen))
         S: a005 OK STORE completed
         C: a006 logout
         S: * BYE Logging out
         S: a006 OK LOGOUT completed",
    );
}

#[test]
fn bodies_pass_in_pieces() {
    selected().play(
        "C: a FETCH 2:3 (UID BODY.PEEK[TEXT] BODY.PEEK[]<9.5>)
         S: * 2 FETCH (UID 2 BODY[TEXT] {10}
         S: body two
         S:  BODY[]<9> {5}
         S: two
         S: )
         S: * 3 FETCH (UID 3 BODY[TEXT] {12}
         S: body three
         S:  BODY[]<9> {5}
         S: three)
         S: a OK FETCH completed
         C: b UID FETCH 99:* FLAGS
         S: * 3 FETCH (UID 3 FLAGS ())
         S: b OK FETCH completed
         C: c FETCH 1 BODY.PEEK[1]<100000.5>
         S: * 1 FETCH (BODY[1]<100000> \"\")
         S: c OK FETCH completed
         C: d FETCH 1 BODY.PEEK[2]
         S: * 1 FETCH (BODY[2] NIL)
         S: d OK FETCH completed
         C: e FETCH 7 FLAGS
         S: e OK FETCH completed",
    );
}

#[test]
fn flags_searches_and_expunges() {
    selected().play(
        "C: a SEARCH UNSEEN
         S: * SEARCH 1 3
         S: a OK SEARCH completed
         C: b UID SEARCH CHARSET UTF-8 BODY {5+}
         C: THREE
         S: * SEARCH 3
         S: b OK SEARCH completed
         C: c SEARCH CHARSET X-NONE ALL
         S: c NO [BADCHARSET (US-ASCII UTF-8)] Unknown charset
         C: d SEARCH FROM nobody
         S: * SEARCH
         S: d OK SEARCH completed
         C: e SEARCH *
         S: * SEARCH 3
         S: e OK SEARCH completed
         C: f STORE 1,3 +FLAGS.SILENT (\\Deleted $Work)
         S: f OK STORE completed
         C: g UID FETCH 3 FLAGS
         S: * 3 FETCH (UID 3 FLAGS (\\Deleted $Work))
         S: g OK FETCH completed
         C: h UID EXPUNGE 3
         S: * 3 EXPUNGE
         S: h OK EXPUNGE completed
         C: i EXPUNGE
         S: * 1 EXPUNGE
         S: i OK EXPUNGE completed
         C: j CLOSE
         S: j OK CLOSE completed
         C: k FETCH 1 FLAGS
         S: k BAD Select a mailbox first",
    );
}

#[test]
fn folders_and_copies() {
    let mut talk = selected();
    talk.play(
        "C: a CREATE Work/
         S: a OK CREATE completed
         C: b CREATE work/&U,BTFw-
         S: b OK CREATE completed
         C: c LIST \"\" *
         S: * LIST (\\HasNoChildren) \"/\" INBOX
         S: * LIST (\\HasNoChildren) \"/\" Work
         S: * LIST (\\HasNoChildren) \"/\" work/&U,BTFw-
         S: c OK LIST completed
         C: d LIST \"\" \"\"
         S: * LIST (\\Noselect) \"/\" \"\"
         S: d OK LIST completed
         C: e COPY 1:2 Work
         S: e OK [COPYUID 7 1:2 1:2] COPY completed
         C: f COPY 1 Nowhere
         S: f NO [TRYCREATE] Nowhere: no such mailbox
         C: g UID MOVE 2 Work
         S: * OK [COPYUID 7 2 3] Moved
         S: * 2 EXPUNGE
         S: g OK MOVE completed
         C: h STATUS Work (MESSAGES UIDNEXT UIDVALIDITY UNSEEN RECENT)
         S: * STATUS Work (MESSAGES 3 UIDNEXT 4 UIDVALIDITY 7 UNSEEN 1 RECENT 0)
         S: h OK STATUS completed
         C: i SUBSCRIBE Work
         S: i OK SUBSCRIBE completed
         C: j LSUB \"\" *
         S: * LSUB () \"/\" Work
         S: j OK LSUB completed
         C: k CREATE Work
         S: k NO [ALREADYEXISTS] Work: is there already
         C: l SELECT Nowhere
         S: l NO [NONEXISTENT] Nowhere: no such mailbox
         C: m EXPUNGE
         S: m BAD Select a mailbox first
         C: n EXAMINE Work
         S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)
         S: * OK [PERMANENTFLAGS ()] Read-only mailbox
         S: * 3 EXISTS
         S: * 0 RECENT
         S: * OK [UNSEEN 1] First unseen
         S: * OK [UIDVALIDITY 7] UIDs valid
         S: * OK [UIDNEXT 4] Predicted next UID
         S: n OK [READ-ONLY] Mailbox selected
         C: o STORE 1 FLAGS ()
         S: o NO [READ-ONLY] The mailbox was opened read-only
         C: p NAMESPACE
         S: * NAMESPACE ((\"\" \"/\")) NIL NIL
         S: p OK NAMESPACE completed
         C: q UNSELECT
         S: q OK UNSELECT completed
         C: r CREATE &AGE-
         S: r NO [CANNOT] No mailbox can have this name",
    );
}

/// A failed SELECT left the mailbox of before selected where no mailbox can have the name.
#[test]
fn a_mailbox_that_cannot_be_leaves_none_selected() {
    let mut talk = selected();
    talk.play(
        "C: a SELECT a//b
         S: a NO [CANNOT] No mailbox can have this name
         C: b FETCH 1 FLAGS
         S: b BAD Select a mailbox first
         C: c LIST \"\" inb%
         S: * LIST (\\HasNoChildren) \"/\" INBOX
         S: c OK LIST completed",
    );
}

/// Each part of a message, and each piece of one, made the whole message be read again.
#[test]
fn parts_are_found_once() {
    let mut talk = selected();
    talk.send(b"a FETCH 1 (UID BODYSTRUCTURE)\r\n");
    talk.take();
    for _ in 0..3 {
        let before = talk.store.reads;
        talk.play(
            "C: b FETCH 1 BODY.PEEK[1]<2.3>
             S: * 1 FETCH (BODY[1]<2> {3}
             S: llo)
             S: b OK FETCH completed",
        );
        assert_eq!(talk.store.reads - before, 1);
    }
    // Another mailbox has other messages with the same UIDs.
    talk.play(
        "C: c CREATE Work
         S: c OK CREATE completed
         C: d COPY 2 Work
         S: d OK [COPYUID 7 2 1] COPY completed",
    );
    talk.send(b"e SELECT Work\r\n");
    talk.take();
    talk.play(
        "C: f FETCH 1 BODY.PEEK[1]
         S: * 1 FETCH (BODY[1] {10}
         S: body two
         S: )
         S: f OK FETCH completed",
    );
}

#[test]
fn appends() {
    let mut talk = selected();
    talk.play(
        "C: a APPEND INBOX (\\Seen) \"17-Jul-1996 02:44:25 -0700\" {12}
         S: + Ready for the message
         C: 0123456789
         C: 
         S: * 4 EXISTS
         S: a OK [APPENDUID 7 4] APPEND completed
         C: b APPEND Nowhere {3}
         S: b NO [TRYCREATE] Nowhere: no such mailbox
         C: c APPEND Nowhere {13+}
         S: c NO [TRYCREATE] Nowhere: no such mailbox
         C: d DELETE xx
         C: 
         C: e APPEND INBOX {1001}
         S: e NO [TOOBIG] A message may have 1000 octets
         C: f APPEND INBOX {13+}
         C: g NOOP abcd
         C:  {3+}
         C: abc
         S: f BAD Expected the end of the command
         C: h FETCH 4 (FLAGS INTERNALDATE BODY.PEEK[])
         S: * 4 FETCH (FLAGS (\\Seen) INTERNALDATE \"17-Jul-1996 09:44:25 +0000\" BODY[] {12}
         S: 0123456789
         S: )
         S: h OK FETCH completed",
    );
}

#[test]
fn idle_tells_what_is_new() {
    let mut talk = selected();
    talk.play("C: a IDLE\n S: + idling");
    talk.store.add("INBOX", "Subject: new\r\n\r\n", Flags::NONE);
    talk.act(Session::changed);
    talk.play("S: * 4 EXISTS\n C: DONE\n S: a OK IDLE completed");
    assert_eq!(talk.events, ["Watch(true)", "Watch(false)"]);
    talk.play("C: b IDLE\n S: + idling\n C: b NOOP\n S: b BAD Expected DONE");
}

#[test]
fn logins() {
    let mut talk = Talk::new(Store::new());
    talk.take();
    talk.play(
        "C: a SELECT INBOX
         S: a BAD Log in first
         C: b AUTHENTICATE PLAIN
         S: + \n         C: *
         S: b BAD Cancelled
         C: c AUTHENTICATE PLAIN AG1yYwB3cm9uZw==
         S: c NO [AUTHENTICATIONFAILED] Wrong user name or password
         C: d AUTHENTICATE X
         S: d NO [CANNOT] No such mechanism
         C: e AUTHENTICATE PLAIN !
         S: e BAD Not base64
         C: f STARTTLS
         S: f BAD TLS is not available here
         C: g LOGIN {3}
         S: + Ready for the literal
         C: mrc {6}
         S: + Ready for the literal
         C: secret
         S: g OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID IDLE NAMESPACE CHILDREN UIDPLUS UNSELECT MOVE] Logged in
         C: h LOGIN mrc secret
         S: h BAD Already logged in",
    );
}

#[test]
fn passwords_wait_for_tls() {
    let mut talk = Talk::new(Store::new());
    talk.take();
    talk.session.options.login_allowed = false;
    talk.session.options.starttls = true;
    talk.play(
        "C: a CAPABILITY
         S: * CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID IDLE NAMESPACE CHILDREN UIDPLUS UNSELECT MOVE STARTTLS AUTH=SCRAM-SHA-256 LOGINDISABLED
         S: a OK CAPABILITY completed
         C: b LOGIN mrc secret
         S: b NO [PRIVACYREQUIRED] Passwords are taken over TLS only
         C: b AUTHENTICATE PLAIN
         S: b NO [PRIVACYREQUIRED] Passwords are taken over TLS only
         C: c STARTTLS
         S: c OK Begin TLS negotiation now",
    );
    assert!(!talk.session.wants_input());
    assert_eq!(talk.events, ["StartTls"]);
    talk.session.tls_up();
    talk.play(
        "C: d CAPABILITY
         S: * CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID IDLE NAMESPACE CHILDREN UIDPLUS UNSELECT MOVE AUTH=SCRAM-SHA-256 AUTH=PLAIN AUTH=LOGIN
         S: d OK CAPABILITY completed",
    );
}

#[test]
fn three_refusals_end_it() {
    let mut talk = Talk::new(Store::new());
    for _ in 0..3 {
        talk.send(b"a LOGIN mrc wrong\r\n");
    }
    assert!(talk.take().ends_with("* BYE Too many login failures\r\n"));
    assert_eq!(talk.events, ["Close(LoginFailures)"]);
    assert!(!talk.session.wants_input());
}

#[test]
fn another_protocol_is_shown_the_door() {
    let mut talk = Talk::new(Store::new());
    for _ in 0..20 {
        talk.send(b"GET / HTTP/1.1\r\nHost: x\n");
    }
    assert!(talk.take().ends_with("* BYE This is an IMAP server\r\n"));
    assert_eq!(talk.events, ["Close(Nonsense)"]);
}

#[test]
fn any_split_gives_the_same() {
    let dialogue = b"a LOGIN {3+}\r\nmrc secret\r\nb SELECT INBOX\r\nc FETCH 1:* (BODY[] UID)\r\n\
        d APPEND INBOX {5+}\r\nx\r\ny\n\r\ne SEARCH TEXT {3+}\r\ntwo\r\nbad\nf IDLE\r\nDONE\r\n\
        g AUTHENTICATE PLAIN\r\nh LOGOUT\r\n";
    let talk = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut store = Store::new();
        store.add("INBOX", GRAY, Flags::NONE);
        store.add("INBOX", "Subject: two\r\n\r\nbody two\r\n", Flags::SEEN);
        let mut talk = Talk::new(store);
        pieces.for_each(|piece| talk.send(piece));
        (talk.take(), talk.events)
    };
    let whole = talk(&mut std::iter::once(&dialogue[..]));
    assert!(
        whole.0.ends_with("h OK LOGOUT completed\r\n"),
        "{}",
        whole.0
    );
    for size in 1..dialogue.len() {
        assert_eq!(talk(&mut dialogue.chunks(size)), whole, "pieces of {size}");
    }
    for at in 0..dialogue.len() {
        let (head, tail) = dialogue.split_at(at);
        assert_eq!(talk(&mut [head, tail].into_iter()), whole, "split at {at}");
    }
}

#[test]
fn no_mutation_of_a_dialogue_breaks_it() {
    let dialogue = b"a LOGIN {3+}\r\nmrc \"secret\"\r\nb SELECT INBOX\r\nc FETCH 1:2,* (BODY[HEADER.FIELDS (A)]<0.9> UID)\r\n\
        d APPEND INBOX (\\Seen) {5+}\r\nx\r\ny\n\r\ne SEARCH OR TEXT {3+}\r\ntwo NOT ON 1-Feb-1994\r\nf IDLE\r\nDONE\r\n\
        g UID STORE 1 +FLAGS (\\Deleted)\r\nh LIST \"\" %\r\ni LOGOUT\r\n";
    for at in 0..dialogue.len() {
        for byte in *b"\0\r\n (){}\"%*\\<>[]09~\xff" {
            let mut changed = dialogue.to_vec();
            changed[at] = byte;
            let mut store = Store::new();
            store.add("INBOX", GRAY, Flags::NONE);
            let mut talk = Talk::new(store);
            talk.send(&changed);
            let mut actions = Actions::default();
            talk.session.drain(&mut actions);
            assert!(!actions.next.is_empty());
        }
    }
}

#[test]
fn nonsense_is_refused_and_nothing_lost() {
    let deep = format!("i SEARCH {}ALL{}", "(".repeat(5000), ")".repeat(5000));
    selected().play(&format!(
        "C: a
         S: a BAD tag missing
         C: b NONSENSE
         S: b BAD no such command
         C: c NOOP x
         S: c BAD too much behind the command
         C: d FETCH 0 FLAGS
         S: d BAD arguments do not fit the command
         C: (
         S: * BAD tag missing
         C: e STORE 1 FLAGS \\Bogus
         S: e BAD arguments do not fit the command
         C: {deep}
         S: i BAD arguments do not fit the command
         C: j SELECT {{999999}}
         S: j BAD literal too large
         C: k NOOP
         S: k OK NOOP completed"
    ));
}
