//! Sessions as the RFCs show them: `C:` and `S:` lines, and in brackets what the world answers.

use super::*;

fn terms() -> Terms {
    Terms {
        timestamp: "<1896.697170952@dbc.mtview.ca.us>".into(),
        tls_offered: true,
        plaintext_login: true,
        mechanisms: vec![Mechanism::CramMd5, Mechanism::Plain, Mechanism::Login],
    }
}

/// Plays the client's lines, cut into pieces of `step` octets; gives everything that was written
/// and done.
fn play(terms: Terms, client: &str, step: usize) -> String {
    let mut session = Session::new(terms, false);
    let mut world = World {
        text: String::new(),
    };
    let mut actions = Vec::new();
    session.step(Input::Open, &mut actions);
    world.carry_out(&mut session, actions);
    let mut unread: Vec<u8> = Vec::new();
    for piece in client.replace('\n', "\r\n").as_bytes().chunks(step) {
        unread.extend_from_slice(piece);
        loop {
            let mut actions = Vec::new();
            let consumed = session.step(Input::Bytes(&unread), &mut actions);
            unread.drain(..consumed);
            world.carry_out(&mut session, actions);
            if consumed == 0 || unread.is_empty() {
                break;
            }
        }
    }
    world.text
}

/// A maildrop of two messages, 120 and 200 octets, whose user is mrose with tanstaaf.
struct World {
    text: String,
}

impl World {
    fn carry_out(&mut self, session: &mut Session, actions: Vec<Action>) {
        for action in actions {
            let answer = match action {
                Action::Write(bytes) => {
                    self.text
                        .push_str(&String::from_utf8(bytes).unwrap().replace('\r', ""));
                    continue;
                }
                Action::Log(_) => continue,
                Action::Close => {
                    self.text.push_str("[close]\n");
                    continue;
                }
                Action::Abandon => {
                    self.text.push_str("[abandon]\n");
                    continue;
                }
                Action::StartTls => Input::TlsUp,
                Action::Ask(question) => Input::Login(match question {
                    Question::Password { name, password }
                        if name == "mrose" && password == b"tanstaaf" =>
                    {
                        Login::Granted(name)
                    }
                    Question::Apop { name, digest }
                        if digest == "c4c9334bac560ecc979e58001b3e22fb" =>
                    {
                        Login::Granted(name)
                    }
                    Question::Begin {
                        mechanism: Mechanism::Plain | Mechanism::CramMd5,
                        initial: None,
                    } => Login::Challenge(vec![]),
                    Question::Begin {
                        initial: Some(r), ..
                    }
                    | Question::Continue(r)
                        if r == b"\0mrose\0tanstaaf" =>
                    {
                        Login::Granted("mrose".into())
                    }
                    Question::Begin {
                        mechanism: Mechanism::Login,
                        initial: None,
                    } => Login::Unavailable,
                    _ => Login::Refused,
                }),
                Action::OpenMaildrop => Input::Opened(Ok(Maildrop::new(
                    1,
                    [Listed { uid: 1, size: 120 }, Listed { uid: 2, size: 200 }],
                ))),
                Action::Send { message, lines } => {
                    self.text
                        .push_str(&format!("[message {} {lines:?}]\n", message.uid));
                    match message.uid {
                        2 => Input::Sent(Err(Trouble {
                            code: "SYS/TEMP",
                            text: "it is\r\ngone".into(),
                        })),
                        _ => Input::Sent(Ok(())),
                    }
                }
                Action::Remove(uids) => {
                    self.text.push_str(&format!("[remove {uids:?}]\n"));
                    Input::Removed(Ok(()))
                }
            };
            let mut more = Vec::new();
            session.step(answer, &mut more);
            self.carry_out(session, more);
        }
    }
}

fn check(terms: &Terms, client: &str, want: &str) {
    let length = client.len() * 2;
    for step in [length, 1, 3, 7, 64] {
        let got = play(terms.clone(), client, step);
        assert_eq!(got, want, "in pieces of {step}");
    }
}

const GREETING: &str = "+OK yubin POP3 ready <1896.697170952@dbc.mtview.ca.us>\n";

/// RFC 1939 10.
#[test]
fn the_example_session() {
    check(
        &terms(),
        "APOP mrose c4c9334bac560ecc979e58001b3e22fb\nSTAT\nLIST\nRETR 1\nDELE 1\nDELE 2\nQUIT\n",
        &format!(
            "{GREETING}+OK 2 messages (320 octets)\n+OK 2 320\n+OK 2 messages (320 octets)\n1 120\n2 200\n.\n\
             [message 1 None]\n+OK message 1 deleted\n+OK message 2 deleted\n[remove [1, 2]]\n+OK bye\n[close]\n"
        ),
    );
}

#[test]
fn user_and_pass_in_order() {
    check(
        &terms(),
        "PASS x\nUSER mrose\nPASS wrong\nPASS tanstaaf\nSTAT\nUSER mrose\nPASS tanstaaf\nUIDL\nUIDL 2\nLIST 3\nTOP 1 0\nRETR 2\nDELE 1\nRETR 1\nRSET\nNOOP\nUSER x\nQUIT\n",
        &format!(
            "{GREETING}-ERR USER comes first\n+OK password, please\n-ERR [AUTH] wrong name or password\n\
             -ERR USER comes first\n-ERR log in first\n+OK password, please\n+OK 2 messages (320 octets)\n\
             +OK unique ids follow\n1 0000000100000001\n2 0000000100000002\n.\n+OK 2 0000000100000002\n\
             -ERR no such message, 2 in the maildrop\n[message 1 Some(0)]\n\
             [message 2 None]\n-ERR [SYS/TEMP] it is  gone\n+OK message 1 deleted\n\
             -ERR no such message, 1 in the maildrop\n+OK 2 messages (320 octets)\n+OK still here\n\
             -ERR you are logged in\n+OK bye\n[close]\n"
        ),
    );
}

/// RFC 5034 5, with our mechanisms.
#[test]
fn auth_with_and_without_initial_response() {
    let plain = "AG1yb3NlAHRhbnN0YWFm";
    check(
        &terms(),
        &format!(
            "AUTH\nAUTH PLAIN\n*\nAUTH PLAIN\n!!\nAUTH LOGIN\nAUTH X\nAUTH PLAIN {plain}\nQUIT\n"
        ),
        &format!(
            "{GREETING}+OK mechanisms follow\nCRAM-MD5\nPLAIN\nLOGIN\n.\n+ \n[abandon]\n-ERR given up\n+ \n[abandon]\n-ERR not base64\n\
             -ERR [SYS/TEMP] nobody can log in now, try later\n-ERR this mechanism is not known here\n\
             +OK 2 messages (320 octets)\n+OK bye\n[close]\n"
        ),
    );
    check(
        &terms(),
        &format!("AUTH PLAIN\n{plain}\nQUIT\n"),
        &format!("{GREETING}+ \n+OK 2 messages (320 octets)\n+OK bye\n[close]\n"),
    );
}

#[test]
fn no_password_in_the_clear() {
    let terms = Terms {
        plaintext_login: false,
        ..terms()
    };
    check(
        &terms,
        "CAPA\nUSER mrose\nAUTH PLAIN\nAUTH CRAM-MD5\n*\nSTLS\nCAPA\nSTLS\nUSER mrose\n",
        &format!(
            "{GREETING}+OK capabilities follow\nTOP\nUIDL\nSASL CRAM-MD5\nSTLS\nPIPELINING\nRESP-CODES\nAUTH-RESP-CODE\nEXPIRE NEVER\nIMPLEMENTATION yubin\n.\n\
             -ERR [AUTH] no login in the clear: use TLS or APOP\n-ERR [AUTH] no login in the clear: use TLS or APOP\n\
             + \n[abandon]\n-ERR given up\n+OK begin TLS\n+OK capabilities follow\nTOP\nUIDL\nUSER\nSASL CRAM-MD5 PLAIN LOGIN\nPIPELINING\nRESP-CODES\nAUTH-RESP-CODE\nEXPIRE NEVER\nIMPLEMENTATION yubin\n.\n\
             -ERR TLS is on already\n+OK password, please\n"
        ),
    );
}

#[test]
fn three_failures_and_garbage_end_it() {
    let wrong = "USER mrose\nPASS x\n".repeat(3);
    check(
        &terms(),
        &wrong,
        &format!(
            "{GREETING}+OK password, please\n-ERR [AUTH] wrong name or password\n+OK password, please\n\
             -ERR [AUTH] wrong name or password\n+OK password, please\n-ERR [AUTH] wrong name or password, good bye\n[close]\n"
        ),
    );
    let long = format!("USER {}\n", "x".repeat(300));
    check(
        &terms(),
        &long,
        &format!("{GREETING}-ERR line too long\n[close]\n"),
    );
    check(
        &terms(),
        "USER x\rPASS y\n",
        &format!("{GREETING}-ERR a line ends in CR LF\n[close]\n"),
    );
    let want = format!(
        "{GREETING}{}-ERR too many commands that are none\n[close]\n",
        "-ERR unknown command\n".repeat(19)
    );
    check(&terms(), &"XYZZY\n".repeat(25), &want);
}

#[test]
fn a_timeout_deletes_nothing() {
    let mut session = Session::new(terms(), true);
    let mut world = World {
        text: String::new(),
    };
    let mut actions = Vec::new();
    for line in ["USER mrose\r\n", "PASS tanstaaf\r\n", "DELE 1\r\n"] {
        session.step(Input::Bytes(line.as_bytes()), &mut actions);
        world.carry_out(&mut session, mem::take(&mut actions));
    }
    session.step(Input::Timeout, &mut actions);
    world.carry_out(&mut session, actions);
    assert!(
        world
            .text
            .ends_with("-ERR [SYS/TEMP] autologout\n[close]\n"),
        "{}",
        world.text
    );
    assert!(!world.text.contains("remove"));
}
