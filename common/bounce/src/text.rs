//! The report itself, as text: multipart/report (RFC 6522) of words for people, fields for
//! programs (RFC 3464), and the message that it is about. Pure.
//!
//! The message follows untouched: it is never encoded, so that signatures in it stay whole. What
//! peers and senders wrote cannot end a line. The fields for programs are ASCII, as RFC 3464 has
//! them, but for addresses beyond it (RFC 6533); the words for people may be UTF-8, where a peer's
//! were.

use std::fmt::Write as _;
use std::time::SystemTime;

use base::date::{self, Date};
use base::escape::escape;
use base::release::Release;
use base::{Address, Domain, Status};
use queue::QueueId;

use crate::xtext;

/// What became of the recipients of a report: RFC 3464 2.3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Failed,
    Delivered,
    Relayed,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
        }
    }
}

/// One recipient and its outcome.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) address: Address,
    /// xtext
    pub(crate) orcpt: Option<String>,
    pub(crate) status: Status,
    pub(crate) reply: String,
    pub(crate) host: Option<String>,
    pub(crate) at: SystemTime,
}

/// The field that marks a report to our postmaster, so that its own failure makes no other.
const MARK: &str = "X-Yubin-Report";
const MARKED: &str = "no return address";

/// Whether a message with this header is such a report.
pub(crate) fn is_for_postmaster(header: &[u8]) -> bool {
    let mark = format!("{MARK}: {MARKED}\r\n");
    header
        .split_inclusive(|b| *b == b'\n')
        .any(|line| line == mark.as_bytes())
}

/// How much of the message goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Message,
    Header,
}

/// A report.
#[derive(Debug, Clone)]
pub(crate) struct Notice<'a> {
    pub(crate) action: Action,
    /// Our name.
    pub(crate) host: &'a Domain,
    /// Who reads this.
    pub(crate) to: &'a Address,
    /// Whether the reader is our postmaster, because the message itself had no sender.
    pub(crate) to_postmaster: bool,
    /// Of the message.
    pub(crate) id: &'a QueueId,
    /// Of the report.
    pub(crate) own_id: &'a QueueId,
    pub(crate) now: SystemTime,
    pub(crate) arrived: SystemTime,
    pub(crate) release: Option<Release>,
    /// xtext
    pub(crate) envid: Option<&'a str>,
    pub(crate) told: &'a [Told],
    pub(crate) part: Part,
    /// Whether what goes back has octets over 127.
    pub(crate) eight_bit: bool,
    /// The header of what goes back is beyond ASCII, and was declared to be: RFC 6532.
    pub(crate) international: bool,
    /// Random, so that nobody can write a message that ends its part.
    pub(crate) boundary: &'a str,
}

impl Notice<'_> {
    /// Everything before the message.
    pub(crate) fn opening(&self) -> String {
        let mut out = String::new();
        let words = self.words();
        let international = self.told.iter().any(Told::is_international);
        let eight_bit = self.eight_bit || international || !words.is_ascii();
        self.header(&mut out, eight_bit);
        let _fits = write!(
            out,
            "--{}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Description: Notification\r\n\
             Content-Transfer-Encoding: {}\r\n\r\n{words}",
            self.boundary,
            encoding(!words.is_ascii()),
        );
        self.fields(&mut out);
        // RFC 6532 3.7, RFC 6533 6
        let kind = match (self.part, self.international) {
            (Part::Message, false) => ("message/rfc822", "Undelivered Message"),
            (Part::Message, true) => ("message/global", "Undelivered Message"),
            (Part::Header, false) => ("text/rfc822-headers", "Header of the Message"),
            (Part::Header, true) => ("message/global-headers", "Header of the Message"),
        };
        let _fits = write!(
            out,
            "--{}\r\nContent-Type: {}\r\nContent-Description: {}\r\nContent-Transfer-Encoding: {}\r\n\r\n",
            self.boundary,
            kind.0,
            if self.action == Action::Failed {
                kind.1
            } else {
                "Message"
            },
            encoding(self.eight_bit),
        );
        out
    }

    /// Everything behind it.
    pub(crate) fn closing(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }

    fn header(&self, out: &mut String, eight_bit: bool) {
        let host = self.host;
        let subject = match (self.action, self.to_postmaster) {
            (Action::Failed, false) => "Undelivered Mail Returned to Sender",
            (Action::Failed, true) => "Undeliverable Report",
            (Action::Delivered | Action::Relayed, _) => "Successful Mail Delivery Report",
        };
        line(
            out,
            "From",
            &format!("Mail Delivery System <MAILER-DAEMON@{host}>"),
        );
        line(out, "To", &format!("<{}>", self.to));
        line(out, "Subject", subject);
        line(out, "Date", &rfc5322(self.now));
        line(
            out,
            "Message-ID",
            &format!("<{}.report@{host}>", self.own_id),
        );
        // RFC 3834 5.
        line(out, "Auto-Submitted", "auto-replied");
        if self.to_postmaster {
            line(out, MARK, MARKED);
        }
        line(out, "MIME-Version", "1.0");
        line(
            out,
            "Content-Type",
            "multipart/report; report-type=delivery-status;",
        );
        let _fits = write!(out, "    boundary=\"{}\"\r\n", self.boundary);
        line(out, "Content-Transfer-Encoding", encoding(eight_bit));
        out.push_str("\r\nThis is a report on the delivery of a message, in MIME.\r\n\r\n");
    }

    /// For people: what happened to which address, in the words of who said so.
    fn words(&self) -> String {
        let mut out = String::new();
        let _fits = write!(
            out,
            "This is the mail system of {}.\r\n\r\n{}\r\n{}\r\n",
            self.host,
            match (self.action, self.to_postmaster) {
                (Action::Failed, false) => "Your message could not be delivered to",
                (Action::Failed, true) =>
                    "A message without a return address could not be delivered to",
                (Action::Delivered, _) => "Your message was delivered to",
                (Action::Relayed, _) =>
                    "Your message was passed on to a host that sends no such reports, for",
            },
            match self.told {
                [_] => "this address:",
                _ => "these addresses:",
            },
        );
        for told in self.told {
            let _fits = write!(out, "\r\n<{}>", told.address);
            if let Some(original) = told.original().filter(|o| *o != told.address.to_string()) {
                let _fits = write!(out, "\r\n    (you wrote to <{original}>)");
            }
            let said = match told.peer() {
                Some(host) => format!("{} said: {}", escape(host), escape(&told.reply)),
                None => escape(&told.reply).to_string(),
            };
            out.push_str("\r\n");
            fold(&mut out, "    ", "    ", &said);
        }
        let rest = match self.action {
            Action::Failed => {
                "\r\nIt is not tried any more. The words above are those of whoever refused it;\r\n\
                if they do not help, write to the postmaster there, or to <postmaster@"
            }
            Action::Delivered | Action::Relayed => "\r\nThe postmaster here is <postmaster@",
        };
        let _fits = write!(out, "{rest}{}>.\r\n\r\n", self.host);
        out
    }

    /// For programs: RFC 3464 2.
    fn fields(&self, out: &mut String) {
        // RFC 6533 4: fields that name an address beyond ASCII are no message/delivery-status.
        let kind = match self.told.iter().any(Told::is_international) {
            false => "delivery-status",
            true => "global-delivery-status\r\nContent-Transfer-Encoding: 8bit",
        };
        let _fits = write!(
            out,
            "--{}\r\nContent-Type: message/{kind}\r\nContent-Description: Delivery Report\r\n\r\n",
            self.boundary
        );
        line(out, "Reporting-MTA", &format!("dns; {}", self.host));
        if let Some(envid) = self.envid {
            line(out, "Original-Envelope-Id", &xtext::decode(envid));
        }
        line(out, "X-Queue-ID", self.id.as_str());
        line(out, "Arrival-Date", &rfc5322(self.arrived));
        // RFC 4865 4
        if let Some(release) = &self.release {
            line(out, "Future-Release-Request", &release.request());
        }
        for told in self.told {
            out.push_str("\r\n");
            if let Some(orcpt) = &told.orcpt {
                line(out, "Original-Recipient", &xtext::address(orcpt));
            }
            let kind = if told.address.is_ascii() {
                "rfc822"
            } else {
                "utf-8"
            };
            line(out, "Final-Recipient", &format!("{kind}; {}", told.address));
            line(out, "Action", self.action.as_str());
            line(out, "Status", &told.final_status(self.action).to_string());
            let said = ascii(&told.reply);
            match told.peer() {
                Some(host) => {
                    line(
                        out,
                        "Remote-MTA",
                        &format!("dns; {}", ascii(mta_name(host))),
                    );
                    line(out, "Diagnostic-Code", &format!("smtp; {said}"));
                }
                None => line(out, "Diagnostic-Code", &format!("X-Yubin; {said}")),
            }
            line(out, "Last-Attempt-Date", &rfc5322(told.at));
        }
        out.push_str("\r\n");
    }
}

impl Told {
    /// Whether one of its addresses is beyond ASCII.
    pub(crate) fn is_international(&self) -> bool {
        let original = self.orcpt.as_deref().map(xtext::address);
        !self.address.is_ascii() || original.is_some_and(|original| !original.is_ascii())
    }

    /// The address that the sender wrote, as far as ORCPT has it.
    fn original(&self) -> Option<String> {
        let decoded = xtext::address(self.orcpt.as_deref()?);
        let (kind, address) = decoded.split_once(';')?;
        let known = ["rfc822", "utf-8"]
            .iter()
            .any(|k| kind.eq_ignore_ascii_case(k));
        known.then(|| address.trim().to_owned())
    }

    /// The peer whose reply it is: what begins with a reply code was said by a host.
    fn peer(&self) -> Option<&str> {
        let host = self
            .host
            .as_deref()
            .filter(|h| !h.starts_with('/') && h.contains('['))?;
        let code = self.reply.get(..3)?;
        code.bytes().all(|b| b.is_ascii_digit()).then_some(host)
    }

    /// A delivery that expired was never refused, and yet has failed (RFC 3463 3.5, X.4.7).
    fn final_status(&self, action: Action) -> Status {
        match action {
            Action::Failed => self.status.with_class(5),
            Action::Delivered | Action::Relayed => self.status.with_class(2),
        }
    }
}

/// Of `mx.example.org[192.0.2.1]:25` the name; of `[192.0.2.1]:25`, which has none, the literal.
fn mta_name(host: &str) -> &str {
    match host.split_once('[') {
        Some(("", rest)) => rest
            .find(']')
            .and_then(|end| host.get(..end + 2))
            .unwrap_or(host),
        Some((name, _)) => name,
        None => host,
    }
}

fn encoding(eight_bit: bool) -> &'static str {
    if eight_bit { "8bit" } else { "7bit" }
}

/// Printable ASCII, everything else as `\xNN`.
fn ascii(text: &str) -> String {
    let mut out = String::new();
    for c in escape(text).to_string().chars() {
        match c.is_ascii() {
            true => out.push(c),
            false => {
                for b in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _fits = write!(out, "\\x{b:02x}");
                }
            }
        }
    }
    out
}

fn rfc5322(time: SystemTime) -> String {
    Date::local(date::unix(time)).rfc5322().to_string()
}

/// `Name: value`, folded between words (RFC 5322 2.2.3).
fn line(out: &mut String, name: &str, value: &str) {
    fold(out, &format!("{name}: "), "    ", value);
}

/// Lines of words, none longer than 76 unless a word is; a longer word is broken at 900.
fn fold(out: &mut String, first: &str, next: &str, text: &str) {
    out.push_str(first);
    let mut width = first.chars().count();
    let mut fresh = true;
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let length = word.chars().count();
        if !fresh && width + 1 + length > 76 {
            out.push_str("\r\n");
            out.push_str(next);
            width = next.len();
        } else if !fresh {
            out.push(' ');
            width += 1;
        }
        fresh = false;
        for c in word.chars() {
            if width >= 900 {
                out.push_str("\r\n");
                out.push_str(next);
                width = next.len();
            }
            out.push(c);
            width += 1;
        }
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn told() -> Vec<Told> {
        vec![
            Told {
                address: "ann@b.test".parse().unwrap(),
                orcpt: Some("rfc822;list+40a.test".into()),
                status: Status::NO_MAILBOX,
                reply: "550 5.1.1 no such user\r\nQUIT".into(),
                host: Some("mx.b.test[192.0.2.1]:25".into()),
                at: UNIX_EPOCH + Duration::from_secs(1_795_309_260),
            },
            Told {
                address: "bob@c.test".parse().unwrap(),
                orcpt: None,
                status: Status::EXPIRED,
                reply: "connect to mx.c.test[192.0.2.2]:25: Connection refused; given up after 5 days, and a long line it is".into(),
                host: None,
                at: UNIX_EPOCH + Duration::from_secs(1_795_309_320),
            },
        ]
    }

    fn opening(told: &[Told], to_postmaster: bool) -> String {
        let id = QueueId::parse("0123456789abcdefghjk")
            .or_else(|_| QueueId::generate().map_err(|_| queue::BadId));
        let id = id.unwrap();
        let release = Some(base::release::Hold::For(600).release(SystemTime::UNIX_EPOCH));
        let notice = Notice {
            release,
            action: Action::Failed,
            host: &"mail.a.test".parse().unwrap(),
            to: &"sender@a.test".parse().unwrap(),
            to_postmaster,
            id: &id,
            own_id: &id,
            now: UNIX_EPOCH + Duration::from_secs(1_795_309_380),
            arrived: UNIX_EPOCH + Duration::from_secs(1_795_309_200),
            envid: Some("env+2B1"),
            told,
            part: Part::Message,
            eight_bit: false,
            international: false,
            boundary: "=_b",
        };
        assert_eq!(notice.closing(), "\r\n--=_b--\r\n");
        notice.opening().replace(id.as_str(), "ID")
    }

    /// Dates without their zone, which is this machine's.
    fn dateless(text: &str) -> String {
        let date = |l: &str| l.starts_with("Date:") || l.contains("-Date:");
        text.split("\r\n")
            .map(|l| {
                if date(l) {
                    l.split(' ').next().unwrap()
                } else {
                    l
                }
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn a_host_without_a_name_is_its_literal() {
        assert_eq!(mta_name("mx.b.test[192.0.2.1]:25"), "mx.b.test");
        assert_eq!(mta_name("[192.0.2.1]:25"), "[192.0.2.1]");
        assert_eq!(mta_name("[IPv6:2001:db8::1]:25"), "[IPv6:2001:db8::1]");
        let mut told = told();
        told[0].host = Some("[192.0.2.1]:25".into());
        let text = opening(&told, false);
        assert!(
            text.contains("\r\nRemote-MTA: dns; [192.0.2.1]\r\n"),
            "{text}"
        );
    }

    #[test]
    fn golden() {
        assert_eq!(
            dateless(&opening(&told(), false)),
            "From: Mail Delivery System <MAILER-DAEMON@mail.a.test>
To: <sender@a.test>
Subject: Undelivered Mail Returned to Sender
Date:
Message-ID: <ID.report@mail.a.test>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
    boundary=\"=_b\"
Content-Transfer-Encoding: 7bit

This is a report on the delivery of a message, in MIME.

--=_b
Content-Type: text/plain; charset=utf-8
Content-Description: Notification
Content-Transfer-Encoding: 7bit

This is the mail system of mail.a.test.

Your message could not be delivered to
these addresses:

<ann@b.test>
    (you wrote to <list@a.test>)
    mx.b.test[192.0.2.1]:25 said: 550 5.1.1 no such user\\x0d\\x0aQUIT

<bob@c.test>
    connect to mx.c.test[192.0.2.2]:25: Connection refused; given up after 5
    days, and a long line it is

It is not tried any more. The words above are those of whoever refused it;
if they do not help, write to the postmaster there, or to <postmaster@mail.a.test>.

--=_b
Content-Type: message/delivery-status
Content-Description: Delivery Report

Reporting-MTA: dns; mail.a.test
Original-Envelope-Id: env+1
X-Queue-ID: ID
Arrival-Date:
Future-Release-Request: for;600

Original-Recipient: rfc822;list@a.test
Final-Recipient: rfc822; ann@b.test
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.b.test
Diagnostic-Code: smtp; 550 5.1.1 no such user\\x0d\\x0aQUIT
Last-Attempt-Date:

Final-Recipient: rfc822; bob@c.test
Action: failed
Status: 5.4.7
Diagnostic-Code: X-Yubin; connect to mx.c.test[192.0.2.2]:25: Connection
    refused; given up after 5 days, and a long line it is
Last-Attempt-Date:

--=_b
Content-Type: message/rfc822
Content-Description: Undelivered Message
Content-Transfer-Encoding: 7bit

"
        );
    }

    #[test]
    fn no_peer_can_break_a_line_or_make_one_too_long() {
        let mut evil = told();
        evil[0].reply = format!(
            "550 {}\u{2028}\u{85}\0{}",
            "x".repeat(3000),
            "ü ".repeat(300)
        );
        evil[0].orcpt = Some("rfc822;a+0D+0ABcc: x".into());
        evil[0].host = Some("mx\r\nX: y[1]".into());
        let text = opening(&evil[..1], true);
        for line in text.split("\r\n") {
            assert!(line.len() < 998, "{line}");
            assert!(!line.contains(['\r', '\n', '\0']), "{line}");
            assert!(
                !line.starts_with("Bcc") && !line.starts_with("X:"),
                "{line}"
            );
        }
        assert!(text.contains("Subject: Undeliverable Report"));
        assert!(is_for_postmaster(text.as_bytes()));
        assert!(!is_for_postmaster(opening(&evil[..1], false).as_bytes()));
    }
}
