//! Everything smtpd says, in one table: RFC 5321 4.2 codes with RFC 3463 enhanced status codes.
//!
//! A [`Reply`] cannot hold a CR or LF in its text, so nothing that is quoted from a peer can end a
//! line of ours.

use std::borrow::Cow;
use std::time::Duration;

use base::Status;

/// One reply; more than one line where the text has more than one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    code: u16,
    status: Option<Status>,
    text: Cow<'static, str>,
}

/// Octets of one reply line, with its CRLF: RFC 5321 4.5.3.1.5.
const MAX_LINE: usize = 512;

impl Reply {
    const fn plain(code: u16, text: &'static str) -> Self {
        Self {
            code,
            status: None,
            text: Cow::Borrowed(text),
        }
    }

    const fn new(code: u16, status: Status, text: &'static str) -> Self {
        Self {
            code,
            status: Some(status),
            text: Cow::Borrowed(text),
        }
    }

    /// A reply whose text is made at run time. Lines are divided by `\n`.
    pub(crate) fn made(code: u16, status: Option<Status>, text: String) -> Self {
        Self {
            code,
            status,
            text: Cow::Owned(text),
        }
    }

    /// The same reply about something: `<ann@x>: No such user here`. What comes from a peer is
    /// made printable.
    pub(crate) fn about(&self, subject: &str) -> Self {
        let text = format!("<{}>: {}", printable(subject), self.text);
        Self {
            code: self.code,
            status: self.status,
            text: Cow::Owned(text),
        }
    }

    /// The same with how long to wait.
    pub(crate) fn wait(&self, time: Duration) -> Self {
        let seconds = time.as_millis().div_ceil(1000).max(1);
        let text = format!("{}, try again in {seconds} seconds", self.text);
        Self {
            code: self.code,
            status: self.status,
            text: Cow::Owned(text),
        }
    }

    /// A refusal with a status of the rules: its class decides between 4xx and 5xx.
    pub(crate) fn refusal(status: Status, text: &str) -> Self {
        let code = if status.class() == 4 { 451 } else { 550 };
        Self::made(code, Some(status), printable(text))
    }

    pub(crate) fn code(&self) -> u16 {
        self.code
    }

    /// As it goes over the wire.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let mark = if lines.peek().is_some() { '-' } else { ' ' };
            let mut whole = format!("{}{mark}", self.code);
            if let Some(status) = self.status {
                whole.push_str(&format!("{status} "));
            }
            whole.extend(line.chars().filter(|c| !c.is_control()));
            let cut = whole.floor_char_boundary(MAX_LINE - 2);
            whole.truncate(cut);
            out.extend_from_slice(whole.trim_end().as_bytes());
            // RFC 5321 4.2: a code alone is followed by a space.
            if whole.trim_end().len() == 3 {
                out.push(b' ');
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// As in the log: `550 5.1.1 <ann@x>: No such user here`.
impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.text.replace('\n', "; ");
        match self.status {
            Some(status) => write!(f, "{} {status} {text}", self.code),
            None => write!(f, "{} {text}", self.code),
        }
    }
}

fn printable(text: &str) -> String {
    base::escape::escape(text).to_string()
}

// Yes.
pub(crate) const BYE: Reply = Reply::new(221, Status::OK, "Bye");
pub(crate) const AUTHENTICATED: Reply =
    Reply::new(235, Status::new(2, 7, 0), "Authentication successful");
pub(crate) const OK: Reply = Reply::new(250, Status::OK, "Ok");
pub(crate) const SENDER_OK: Reply = Reply::new(250, Status::new(2, 1, 0), "Ok");
pub(crate) const RECIPIENT_OK: Reply = Reply::new(250, Status::new(2, 1, 5), "Ok");
pub(crate) const CANNOT_VERIFY: Reply = Reply::new(
    252,
    Status::new(2, 5, 2),
    "Cannot VRFY user; try RCPT to attempt delivery",
);
pub(crate) const START_TLS: Reply = Reply::new(220, Status::OK, "Ready to start TLS");
pub(crate) const START_MAIL: Reply = Reply::plain(354, "End data with <CR><LF>.<CR><LF>");
pub(crate) const HELP: Reply = Reply::new(
    214,
    Status::OK,
    "Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY STARTTLS AUTH HELP QUIT\n\
     See RFC 5321; problems with this server: mail to postmaster",
);

// Not now.
pub(crate) const SHUTTING_DOWN: Reply = Reply::new(
    421,
    Status::SHUTTING_DOWN,
    "Service is shutting down, try again",
);
pub(crate) const TIMEOUT: Reply =
    Reply::new(421, Status::new(4, 4, 2), "Timeout, closing connection");
pub(crate) const NO_ANSWER: Reply = Reply::new(
    421,
    Status::new(4, 4, 3),
    "A look-up takes too long, try again",
);
pub(crate) const TOO_MANY_ERRORS: Reply = Reply::new(
    421,
    Status::new(4, 7, 0),
    "Too many errors, closing connection",
);
pub(crate) const TOO_MANY_COMMANDS: Reply = Reply::new(
    421,
    Status::new(4, 7, 0),
    "Too many commands without mail, closing connection",
);
pub(crate) const RATE_CONNECTIONS: Reply = Reply::new(
    421,
    Status::new(4, 7, 0),
    "Too many connections from your network",
);
pub(crate) const SHUT_OUT: Reply = Reply::new(
    421,
    Status::new(4, 7, 0),
    "Your network has done too much lately",
);
pub(crate) const LOGINS_SHUT_OUT: Reply = Reply::new(
    421,
    Status::new(4, 7, 0),
    "Too many failed logins from your network",
);
pub(crate) const AUTH_SHUT_OUT: Reply = Reply::new(
    454,
    Status::new(4, 7, 0),
    "Too many failed logins from your network",
);
pub(crate) const RATE_MESSAGES: Reply = Reply::new(
    450,
    Status::new(4, 7, 1),
    "Too many messages from your network",
);
pub(crate) const RATE_RECIPIENTS: Reply = Reply::new(
    450,
    Status::new(4, 7, 1),
    "Too many recipients from your network",
);
pub(crate) const GREYLISTED: Reply = Reply::new(451, Status::new(4, 7, 1), "Greylisted");
pub(crate) const NO_ROOM: Reply =
    Reply::new(452, Status::FULL, "Insufficient system storage, try again");
pub(crate) const TOO_MANY_RECIPIENTS: Reply = Reply::new(
    452,
    Status::new(4, 5, 3),
    "Too many recipients, send the rest in another transaction",
);
pub(crate) const TRY_LATER: Reply =
    Reply::new(451, Status::SYSTEM, "Local trouble, try again later");
/// As Postfix says it where a policy server does not answer.
pub(crate) const NO_POLICY: Reply = Reply::new(
    451,
    Status::new(4, 3, 5),
    "A check is not available now, try again later",
);
pub(crate) const AUTH_TROUBLE: Reply = Reply::new(
    454,
    Status::new(4, 7, 0),
    "Temporary authentication failure, try again",
);
/// RFC 1985 5.3
pub(crate) const CANNOT_FLUSH: Reply = Reply::new(
    458,
    Status::SYSTEM,
    "Unable to queue messages, try again later",
);
pub(crate) const NO_TLS: Reply = Reply::new(454, Status::new(4, 7, 0), "TLS not available");

pub(crate) const MILTER_PUTS_OFF: Reply = Reply::new(
    451,
    Status::new(4, 7, 1),
    "Service unavailable, try again later",
);
pub(crate) const MILTER_SHUTDOWN: Reply = Reply::new(
    421,
    Status::new(4, 7, 1),
    "Service unavailable, closing connection",
);

// Never.
pub(crate) const MILTER_REJECTS: Reply = Reply::new(550, Status::new(5, 7, 1), "Command rejected");
pub(crate) const MILTER_UNSERVED: Reply =
    Reply::new(554, Status::new(5, 7, 1), "No mail service for you here");
pub(crate) const UNKNOWN_COMMAND: Reply = Reply::new(
    500,
    Status::SYNTAX,
    "Command not recognized; HELP lists them",
);
pub(crate) const LINE_TOO_LONG: Reply = Reply::new(500, Status::SYNTAX, "Line too long");
pub(crate) const BARE_LINE_END: Reply = Reply::new(
    500,
    Status::SYNTAX,
    "A line ends with CR LF, never with one of them alone",
);
pub(crate) const OUT_OF_TURN: Reply = Reply::new(
    554,
    Status::new(5, 5, 0),
    "SMTP protocol synchronization: wait for our reply",
);
pub(crate) const NOT_SMTP: Reply = Reply::new(554, Status::new(5, 5, 1), "This is an SMTP server");
pub(crate) const BAD_XCLIENT: Reply =
    Reply::new(501, Status::new(5, 5, 4), "Bad XCLIENT attribute or value");
pub(crate) const NO_XCLIENT: Reply =
    Reply::new(550, Status::new(5, 7, 0), "XCLIENT is not for this client");
pub(crate) const XCLIENT_IN_MAIL: Reply = Reply::new(
    503,
    Status::new(5, 5, 1),
    "XCLIENT not allowed in a mail transaction",
);
pub(crate) const BAD_XFORWARD: Reply =
    Reply::new(501, Status::new(5, 5, 4), "Bad XFORWARD attribute or value");
pub(crate) const NO_XFORWARD: Reply =
    Reply::new(550, Status::new(5, 7, 0), "XFORWARD is not for this client");
pub(crate) const XFORWARD_IN_MAIL: Reply = Reply::new(
    503,
    Status::new(5, 5, 1),
    "XFORWARD not allowed in a mail transaction",
);
pub(crate) const NOT_A_FILTER: Reply = Reply::new(
    521,
    Status::new(5, 7, 1),
    "This port is for the content filter only",
);
pub(crate) const BAD_SYNTAX: Reply =
    Reply::new(501, Status::new(5, 5, 4), "Syntax error in parameters");
pub(crate) const BAD_HOLD: Reply = Reply::new(
    501,
    Status::new(5, 5, 4),
    "Write HOLDFOR=seconds or HOLDUNTIL=2026-12-01T08:00:00Z",
);
pub(crate) const HOLD_BEYOND: Reply = Reply::new(
    501,
    Status::new(5, 5, 4),
    "HOLDFOR or HOLDUNTIL is in the past, or beyond what EHLO tells",
);
pub(crate) const NO_PARAMETERS: Reply = Reply::new(
    501,
    Status::new(5, 5, 4),
    "This command takes no parameters",
);
pub(crate) const BAD_HELLO: Reply = Reply::new(
    501,
    Status::new(5, 5, 4),
    "Say EHLO with the name of your host",
);
pub(crate) const BAD_SENDER: Reply = Reply::new(
    501,
    Status::BAD_SENDER_SYNTAX,
    "Bad sender address; write MAIL FROM:<local-part@domain>",
);
pub(crate) const BAD_RECIPIENT: Reply = Reply::new(
    501,
    Status::BAD_RECIPIENT_SYNTAX,
    "Bad recipient address; write RCPT TO:<local-part@domain>",
);
/// RFC 6531 3.5
pub(crate) const NEEDS_SMTPUTF8: Reply = Reply::new(
    553,
    Status::NOT_ASCII,
    "An address beyond ASCII needs SMTPUTF8 in MAIL FROM",
);
pub(crate) const BAD_BASE64: Reply = Reply::new(501, Status::SYNTAX, "Not base64");
pub(crate) const AUTH_MALFORMED: Reply = Reply::new(
    501,
    Status::SYNTAX,
    "Authentication response not understood",
);
pub(crate) const AUTH_CANCELLED: Reply =
    Reply::new(501, Status::new(5, 7, 0), "Authentication cancelled");
pub(crate) const NOT_OFFERED: Reply = Reply::new(502, Status::new(5, 5, 1), "Not offered here");
pub(crate) const DENIED: Reply = Reply::new(
    503,
    Status::new(5, 5, 1),
    "You are not served here, say QUIT",
);
pub(crate) const HELLO_FIRST: Reply =
    Reply::new(503, Status::new(5, 5, 1), "Say EHLO or HELO first");
pub(crate) const BDAT_HAS_BEGUN: Reply = Reply::new(
    503,
    Status::new(5, 5, 1),
    "The message is coming by BDAT, go on or say RSET",
);
/// RFC 3030 3
pub(crate) const BINARY_BY_BDAT: Reply = Reply::new(
    503,
    Status::new(5, 5, 1),
    "BINARYMIME comes by BDAT, not by DATA",
);
pub(crate) const MAIL_FIRST: Reply = Reply::new(503, Status::new(5, 5, 1), "MAIL first");
pub(crate) const NESTED_MAIL: Reply = Reply::new(
    503,
    Status::new(5, 5, 1),
    "Sender already given; RSET begins anew",
);
pub(crate) const NO_RECIPIENTS: Reply =
    Reply::new(554, Status::new(5, 5, 1), "No valid recipients");
pub(crate) const TLS_ALREADY: Reply =
    Reply::new(503, Status::new(5, 5, 1), "TLS is already in use");
pub(crate) const AUTH_ALREADY: Reply =
    Reply::new(503, Status::new(5, 5, 1), "Already authenticated");
/// RFC 1985 5
pub(crate) const ETRN_IN_MAIL: Reply = Reply::new(
    503,
    Status::new(5, 5, 1),
    "ETRN not allowed in a mail transaction",
);
pub(crate) const AUTH_IN_MAIL: Reply = Reply::new(
    503,
    Status::new(5, 5, 1),
    "AUTH not allowed in a mail transaction",
);
pub(crate) const BAD_MECHANISM: Reply = Reply::new(
    504,
    Status::new(5, 5, 4),
    "Authentication mechanism not offered",
);
pub(crate) const AUTH_FIRST: Reply =
    Reply::new(530, Status::new(5, 7, 0), "Authentication required");
pub(crate) const NOT_YOURS: Reply =
    Reply::new(553, Status::new(5, 7, 1), "Sender address is not yours");
pub(crate) const AUTH_REFUSED: Reply = Reply::new(
    535,
    Status::new(5, 7, 8),
    "Authentication credentials invalid",
);
/// RFC 8689 4.1: the wish alone would have gone over the wire in the clear.
pub(crate) const REQUIRETLS_NEEDS_TLS: Reply = Reply::new(
    530,
    Status::new(5, 7, 10),
    "REQUIRETLS is for mail that comes over TLS, say STARTTLS first",
);
pub(crate) const AUTH_NEEDS_TLS: Reply = Reply::new(
    538,
    Status::new(5, 7, 11),
    "Encryption required, say STARTTLS first",
);
pub(crate) const NO_SUCH_USER: Reply = Reply::new(550, Status::NO_MAILBOX, "No such user here");
pub(crate) const NO_RELAY: Reply = Reply::new(550, Status::NOT_AUTHORIZED, "Relay access denied");
pub(crate) const BARE_IN_BODY: Reply = Reply::new(
    550,
    Status::new(5, 6, 11),
    "Message refused: it has a CR or LF alone, a line ends with CR LF",
);
pub(crate) const BODY_LINE_TOO_LONG: Reply = Reply::new(
    550,
    Status::new(5, 6, 0),
    "Message refused: it has a line that is too long",
);
pub(crate) const TOO_BIG: Reply = Reply::new(
    552,
    Status::TOO_BIG,
    "Message size exceeds the limit of this server",
);
pub(crate) const HEADER_TOO_LONG: Reply = Reply::new(
    552,
    Status::TOO_BIG,
    "Message refused: its header is longer than 256K",
);
pub(crate) const LOOP: Reply = Reply::new(
    554,
    Status::LOOP,
    "Message refused: too many hops, this is a mail loop",
);
pub(crate) const UNKNOWN_PARAMETER: Reply = Reply::new(
    555,
    Status::new(5, 5, 4),
    "Parameter not recognized or not offered",
);

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_carries_code_and_status() {
        assert_eq!(wire(&OK), "250 2.0.0 Ok\r\n");
        assert_eq!(wire(&START_MAIL), "354 End data with <CR><LF>.<CR><LF>\r\n");
        let help = wire(&HELP);
        assert!(help.starts_with("214-2.0.0 Commands"), "{help}");
        assert!(help.contains("\r\n214 2.0.0 See"), "{help}");
        let bare = Reply::made(250, None, String::new());
        assert_eq!(wire(&bare), "250 \r\n");
    }

    #[test]
    fn nothing_quoted_can_end_a_line_or_make_it_too_long() {
        let reply = NO_SUCH_USER.about("a\r\n250 Ok");
        assert_eq!(
            wire(&reply),
            "550 5.1.1 <a\\x0d\\x0a250 Ok>: No such user here\r\n"
        );
        let raw = Reply::made(550, None, "a\r\x1bb".into());
        assert_eq!(wire(&raw), "550 ab\r\n");
        assert!(wire(&NO_RELAY.about(&"x".repeat(2000))).len() <= 512);
    }

    #[test]
    fn a_refusal_takes_its_class_from_the_status() {
        assert_eq!(Reply::refusal(Status::NO_HOST, "no").code(), 550);
        assert_eq!(Reply::refusal(Status::NO_DNS, "later").code(), 451);
    }
}
