//! The queue on paper: in the columns of `postqueue -p`, which scripts read, and as JSON, an object
//! a line, with everything that is known.
//!
//! It looks and touches nothing: no lock is taken, so an entry may be gone or another when it is
//! shown. What peers said is escaped.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use base::date::{self, Date};
use base::escape::escape;
use base::{Doing, Fail, Root, Sysexit, say};
use queue::{Outcome, Place, Queue, RecipientState, View};

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// Columns in which a reason ends, as Postfix has it.
const REASON_ENDS: usize = 76;

const USAGE: &str =
    "usage: mailq [-jvV], or mailq hold|release|remove queue-id ... or account=NAME";

/// What `mailq` is called with; `sendmail -bp` is the same.
pub(crate) fn command(words: &[String]) -> Result<ExitCode, Fail> {
    let mut form = Form::Text;
    for word in words {
        match word.as_str() {
            "-j" | "--json" => form = Form::Json,
            // sendmail's: say more, which queue, and that this is a list.
            "-v" | "-Ac" | "-Am" | "-bp" => {}
            "-V" | "--version" => {
                say(concat!("mailq (yubin) ", env!("CARGO_PKG_VERSION")));
                return Ok(ExitCode::SUCCESS);
            }
            "-h" | "--help" => {
                say(USAGE);
                return Ok(ExitCode::SUCCESS);
            }
            _ => return Err(Fail::usage(USAGE)),
        }
    }
    run(&Root::from_env(), form)
}

/// Shows the whole queue, message by message: it may be larger than our memory.
fn run(root: &Root, form: Form) -> Result<ExitCode, Fail> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut list = List::default();
    let mut written = Ok(());
    Queue::open(root)
        .and_then(|queue| {
            queue.each(|view| {
                let shown = match form {
                    Form::Text => list.text(&view),
                    Form::Json => json(&view),
                };
                written = out.write_all(shown.as_bytes());
                written.is_ok()
            })
        })
        .map_err(|fail| match fail.kind() {
            Some(io::ErrorKind::PermissionDenied) => fail
                .with_code(Sysexit::NoPerm)
                .while_doing("show the queue (root and yubin may)"),
            _ => fail,
        })?;
    let end = match form {
        Form::Text => list.end(),
        Form::Json => String::new(),
    };
    let written = written
        .and_then(|()| out.write_all(end.as_bytes()))
        .and_then(|()| out.flush());
    match written {
        // `mailq | head`: who reads has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        other => other
            .doing(|| "write the list")
            .map_err(|f| f.with_code(Sysexit::IoErr))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What was shown as text so far.
#[derive(Debug, Default)]
struct List {
    messages: usize,
    octets: u64,
}

impl List {
    /// The next message; the first has the headline above it.
    fn text(&mut self, view: &View) -> String {
        let mut out = String::new();
        if self.messages == 0 {
            out.push_str("-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------\n");
        }
        entry(&mut out, view);
        out.push('\n');
        self.messages = self.messages.saturating_add(1);
        self.octets = self.octets.saturating_add(view.size);
        out
    }

    fn end(&self) -> String {
        let kbytes = self.octets / 1024;
        match self.messages {
            0 => "Mail queue is empty\n".into(),
            1 => format!("-- {kbytes} Kbytes in 1 Request.\n"),
            n => format!("-- {kbytes} Kbytes in {n} Requests.\n"),
        }
    }
}

fn entry(out: &mut String, view: &View) {
    let arrived = Date::local(date::unix(view.arrived.unwrap_or(view.due)))
        .asctime()
        .to_string();
    let mark = match view.place {
        Place::Hold | Place::Damaged => '!',
        _ if view.active => '*',
        _ => ' ',
    };
    line(
        out,
        &format!("{}{mark}", view.id),
        &view.size.to_string(),
        arrived.get(..19).unwrap_or(&arrived),
        &sender(view),
    );
    if let Some(damage) = &view.damage {
        reason(out, &format!("damaged: {damage}"));
    }
    if let Some(time) = view.waits_until {
        let time = Date::local(date::unix(time)).iso8601();
        reason(out, &format!("waits until {time}, as its sender wants"));
    }
    if let Some(filter) = &view.filter {
        reason(out, &format!("content filter {filter}"));
    }
    if let Some(held) = &view.held {
        reason(out, &format!("held: {held}"));
    }
    let mut said: Option<String> = None;
    for recipient in view.recipients.iter().filter(|r| r.outcome.is_pending()) {
        let why = last_reply(recipient);
        if why != said {
            // One reason for all that follow it, as Postfix groups them.
            if let Some(why) = &why {
                reason(out, why);
            }
            said = why;
        }
        line(out, "", "", "", &recipient.recipient.address.to_string());
    }
}

fn line(out: &mut String, id: &str, size: &str, time: &str, who: &str) {
    out.push_str(format!("{id:<21} {size:>8} {time:<19} {who}").trim_end());
    out.push('\n');
}

fn reason(out: &mut String, text: &str) {
    let text = format!("({})", escape(text));
    let indent = REASON_ENDS.saturating_sub(text.chars().count());
    out.push_str(&format!("{:indent$}{text}\n", ""));
}

fn sender(view: &View) -> String {
    match &view.reverse_path {
        Some(path) if path.is_null() => "MAILER-DAEMON".into(),
        Some(path) => path.to_string(),
        None if view.damage.is_some() => "(unreadable)".into(),
        // qrun finds out who owns the file.
        None => "(the file's owner)".into(),
    }
}

fn last_reply(recipient: &RecipientState) -> Option<String> {
    match &recipient.outcome {
        Outcome::Pending {
            last: Some((_, attempt)),
        } => Some(match &attempt.host {
            Some(host) => format!("host {host} said: {}", attempt.reply),
            None => attempt.reply.clone(),
        }),
        _ => None,
    }
}

/// One message as an object on one line, in Postfix's names where it has one.
fn json(view: &View) -> String {
    let mut object = Object::default();
    object.text("queue_name", view.place.as_str());
    object.text("queue_id", view.id.as_str());
    object.number("arrival_time", view.arrived.map(date::unix));
    object.number("message_size", i64::try_from(view.size).ok());
    object.optional(
        "sender",
        view.reverse_path
            .as_ref()
            .map(ToString::to_string)
            .as_deref(),
    );
    object.raw("active", if view.active { "true" } else { "false" });
    object.optional("lane", view.lane.map(queue::Lane::as_str));
    let queued = matches!(view.place, Place::Local | Place::Relay);
    object.number("next_attempt", queued.then(|| date::unix(view.due)));
    object.number("waits_until", view.waits_until.map(date::unix));
    let filter = view.filter.as_ref().map(ToString::to_string);
    object.optional("content_filter", filter.as_deref());
    object.optional("held", view.held.as_deref());
    object.optional("damage", view.damage.as_deref());
    match view.origin.as_ref().map(|o| &o.source) {
        Some(queue::Source::Network(client)) => {
            object.text("protocol", &client.protocol);
            object.text("helo", &client.helo);
            object.optional(
                "client_address",
                client.ip.map(|ip| ip.to_string()).as_deref(),
            );
            object.optional("client_name", client.name.as_deref());
            object.optional("login", client.login.as_deref());
        }
        Some(queue::Source::Submission { uid }) => object.number("uid", Some(i64::from(*uid))),
        Some(queue::Source::Child { parent }) => object.text("parent", parent.as_str()),
        None => {}
    }
    let recipients: Vec<String> = view.recipients.iter().map(recipient).collect();
    object.raw("recipients", &format!("[{}]", recipients.join(",")));
    object.finish() + "\n"
}

fn recipient(state: &RecipientState) -> String {
    let mut object = Object::default();
    object.text("address", &state.recipient.address.to_string());
    let (word, last) = match &state.outcome {
        Outcome::Pending { last: None } => ("pending", None),
        Outcome::Pending {
            last: Some((at, attempt)),
        } => ("deferred", Some((at, attempt))),
        Outcome::Delivered { at, attempt } => ("delivered", Some((at, attempt))),
        Outcome::Failed { at, attempt } => ("failed", Some((at, attempt))),
        Outcome::Became { at, children } => {
            object.text("status", "became");
            object.number("last_attempt", Some(date::unix(*at)));
            let ids: Vec<String> = children.iter().map(|c| quoted(c.id.as_str())).collect();
            object.raw("became", &format!("[{}]", ids.join(",")));
            return object.finish();
        }
    };
    object.text("status", word);
    object.number("deferrals", Some(i64::from(state.deferrals)));
    if let Some((at, attempt)) = last {
        attempted(&mut object, *at, attempt);
    }
    object.finish()
}

fn attempted(object: &mut Object, at: SystemTime, attempt: &queue::Attempt) {
    object.number("last_attempt", Some(date::unix(at)));
    object.text("delay_reason", &attempt.reply);
    object.text("dsn", &attempt.status.to_string());
    object.optional("relay", attempt.host.as_deref());
}

/// A JSON object (RFC 8259) being written.
#[derive(Default)]
struct Object(String);

impl Object {
    fn raw(&mut self, name: &str, value: &str) {
        let comma = if self.0.is_empty() { "" } else { "," };
        self.0.push_str(&format!("{comma}{}:{value}", quoted(name)));
    }

    fn text(&mut self, name: &str, value: &str) {
        self.raw(name, &quoted(value));
    }

    /// Nothing where there is nothing.
    fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn number(&mut self, name: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.raw(name, &value.to_string());
        }
    }

    fn finish(self) -> String {
        format!("{{{}}}", self.0)
    }
}

/// RFC 8259 7. What would move a terminal's cursor is written as `\u`, too.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            _ if base::escape::is_control(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    write!(out, "\\u{unit:04x}").ok();
                }
            }
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Recipient, ReversePath, Status};
    use queue::{Attempt, Lane, QueueId};
    use std::time::{Duration, UNIX_EPOCH};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn state(address: &str, outcome: Outcome) -> RecipientState {
        RecipientState {
            recipient: Recipient::new(address.parse().unwrap()),
            outcome,
            deferrals: 1,
            intent: None,
            failure_reported: false,
            delay_reported: false,
            success_reported: false,
        }
    }

    fn attempt(reply: &str) -> Attempt {
        let host = Some("mx.x.org[192.0.2.1]:25".into());
        Attempt {
            status: Status::new(4, 2, 0),
            reply: reply.into(),
            host,
        }
    }

    fn view(place: Place) -> View {
        let deferred = |reply| Outcome::Pending {
            last: Some((at(60), attempt(reply))),
        };
        View {
            id: QueueId::parse("4F2c1b0000BCDFGHJKLM").unwrap(),
            place,
            lane: Some(Lane::Relay),
            active: true,
            size: 2048,
            arrived: Some(at(0)),
            due: at(3600),
            origin: None,
            reverse_path: Some(ReversePath::Null),
            recipients: vec![
                state("a@x.org", deferred("450 4.2.0 later\r\n")),
                state("b@x.org", deferred("450 4.2.0 later\r\n")),
                state("c@x.org", Outcome::Pending { last: None }),
                state(
                    "d@x.org",
                    Outcome::Delivered {
                        at: at(9),
                        attempt: attempt("250 ok"),
                    },
                ),
            ],
            waits_until: None,
            filter: None,
            held: None,
            damage: None,
            history: Vec::new(),
        }
    }

    fn text(views: &[View]) -> String {
        let mut list = List::default();
        let shown: String = views.iter().map(|view| list.text(view)).collect();
        shown + &list.end()
    }

    #[test]
    fn in_the_columns_of_postqueue() {
        let day = Date::local(0).asctime().to_string();
        let day = day.get(..19).unwrap();
        let shown = text(&[view(Place::Relay)]);
        let wanted = format!(
            "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------\n\
             4F2c1b0000BCDFGHJKLM*     2048 {day} MAILER-DAEMON\n\
             {:17}(host mx.x.org[192.0.2.1]:25 said: 450 4.2.0 later\\x0d\\x0a)\n\
             {:51}a@x.org\n{:51}b@x.org\n{:51}c@x.org\n\n\
             -- 2 Kbytes in 1 Request.\n",
            "", "", "", ""
        );
        assert_eq!(shown, wanted);
        let mut filtered = view(Place::Relay);
        filtered.filter = base::Filter::parse("smtp:[127.0.0.1]:10024").ok();
        let shown = text(std::slice::from_ref(&filtered));
        let line = format!("{:35}(content filter smtp:[127.0.0.1]:10024)\n", "");
        assert!(shown.contains(&line), "{shown}");
        let shown = json(&filtered);
        let want = "\"content_filter\":\"smtp:[127.0.0.1]:10024\"";
        assert!(shown.contains(want), "{shown}");
        assert_eq!(text(&[]), "Mail queue is empty\n");
    }

    #[test]
    fn held_and_damaged_ones() {
        let mut held = view(Place::Hold);
        held.held = Some("operator".into());
        held.active = false;
        let mut broken = view(Place::Damaged);
        broken.damage = Some("checksum of record 3".into());
        broken.reverse_path = None;
        broken.recipients.clear();
        let shown = text(&[held, broken]);
        assert_eq!(shown.matches("4F2c1b0000BCDFGHJKLM! ").count(), 2);
        assert!(shown.contains("(held: operator)\n"));
        assert!(shown.contains(" (unreadable)\n"));
        assert!(shown.contains("(damaged: checksum of record 3)\n"));
        assert!(shown.ends_with("-- 4 Kbytes in 2 Requests.\n"));
    }

    #[test]
    fn an_object_a_line() {
        let shown = json(&view(Place::Relay));
        assert_eq!(shown.matches('\n').count(), 1);
        for part in [
            "{\"queue_name\":\"relay\",\"queue_id\":\"4F2c1b0000BCDFGHJKLM\",\"arrival_time\":0,",
            "\"message_size\":2048,\"sender\":\"\",\"active\":true,\"lane\":\"relay\",\"next_attempt\":3600,",
            "{\"address\":\"a@x.org\",\"status\":\"deferred\",\"deferrals\":1,\"last_attempt\":60,\
             \"delay_reason\":\"450 4.2.0 later\\u000d\\u000a\",\"dsn\":\"4.2.0\",\"relay\":\"mx.x.org[192.0.2.1]:25\"}",
            "{\"address\":\"c@x.org\",\"status\":\"pending\",\"deferrals\":1}",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        assert_eq!(
            quoted("a\"b\\c\u{1b}\u{202e}件"),
            "\"a\\\"b\\\\c\\u001b\\u202e件\""
        );
    }
}
