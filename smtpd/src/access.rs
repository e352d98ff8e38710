//! Whom and what the operator does not want, or wants: the file `access`, with the actions of
//! Postfix's access(5).
//!
//! ```text
//! client 192.0.2.0/24      REJECT no mail from here
//! client .dyn.example      450 4.7.1 use your provider's relay
//! helo   .dialup.example   450 4.7.1 use your provider's relay
//! from   spam@example.com  DISCARD
//! to     old@example.org   REDIRECT new@example.org
//! to     boss@example.org  FILTER smtp:[127.0.0.1]:10026
//! ```
//!
//! It is asked at each RCPT: client, helo, from, to, in this order. What the first three say is for
//! strangers only, not for who may relay. OK ends the questions and does not open the host for
//! relaying; where the table says nothing all goes on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use base::config::Network;
use base::{Address, Domain, Fail, Filter, ReversePath, Status, international};
use mailauth::iprev::Iprev;

use crate::reply::Reply;
use crate::table;

/// What is done with a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Ok,
    Refuse(Reply),
    Discard,
    /// The message is put aside, for this reason.
    Hold(String),
    Redirect(Address),
    /// The message goes to this content filter.
    Filter(Filter),
    /// This field is put before the message.
    Prepend(String),
}

#[derive(Debug, Default)]
pub(crate) struct Access {
    clients: Vec<(Network, Action)>,
    /// For clients whose name is not known.
    unknown: Option<Unknown>,
    /// By class and pattern in lower case.
    names: HashMap<(Class, String), Action>,
}

/// What is done with clients whose name is not known.
#[derive(Debug)]
struct Unknown {
    action: Action,
    /// While DNS does not answer.
    for_now: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Class {
    Client,
    Helo,
    From,
    To,
}

/// What is asked at RCPT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) client: Option<IpAddr>,
    /// What its host is called, where that was looked up.
    pub(crate) name: Option<&'a Iprev>,
    pub(crate) helo: &'a str,
    pub(crate) from: &'a ReversePath,
    pub(crate) to: &'a Address,
    pub(crate) may_relay: bool,
}

/// What the table says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) ruling: Ruling,
    /// The table says OK: what keeps strangers out in general is not for this recipient.
    pub(crate) permitted: bool,
    /// Why the message is to be put aside, if it is.
    pub(crate) hold: Option<String>,
    /// The content filter that the message goes to; the last that is named.
    pub(crate) filter: Option<Filter>,
    /// Header fields to be put before the message, without line ends.
    pub(crate) prepend: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// Nothing that changes anything.
    #[default]
    GoOn,
    Refuse(Reply),
    Discard,
    Redirect(Address),
}

impl Access {
    /// From text; `path` is for the messages.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Fail> {
        let mut access = Self::default();
        for (number, line) in table::lines(text) {
            access
                .add(line)
                .map_err(|what| Fail::config(format!("{}:{number}: {what}", path.display())))?;
        }
        // The smallest network that a client is in says what becomes of it.
        access
            .clients
            .sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix()));
        Ok(access)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let (class, rest) = word(line);
        let (pattern, action) = word(rest);
        if action.is_empty() {
            return Err("write: client|helo|from|to pattern action".into());
        }
        let action = parse_action(action)?;
        let class = match class.to_ascii_lowercase().as_str() {
            "client" if is_network(pattern) => {
                let network = Network::parse(pattern).map_err(|e| format!("`{pattern}' {e}"))?;
                if matches!(action, Action::Redirect(_)) {
                    return Err("REDIRECT is for `to'".into());
                }
                self.clients.push((network, action));
                return Ok(());
            }
            "client" if pattern.eq_ignore_ascii_case("unknown") => return self.add_unknown(action),
            "client" => Class::Client,
            "helo" => Class::Helo,
            "from" => Class::From,
            "to" => Class::To,
            other => {
                return Err(format!(
                    "`{other}' is not known, write client, helo, from or to"
                ));
            }
        };
        if matches!(action, Action::Redirect(_)) && class != Class::To {
            return Err("REDIRECT is for `to'".into());
        }
        let pattern = canonical(pattern)?;
        if self
            .names
            .insert((class, pattern.clone()), action)
            .is_some()
        {
            return Err(format!("`{pattern}' stands here twice, remove one"));
        }
        Ok(())
    }

    fn add_unknown(&mut self, action: Action) -> Result<(), String> {
        if matches!(action, Action::Redirect(_)) {
            return Err("REDIRECT is for `to'".into());
        }
        let for_now = match &action {
            Action::Refuse(reply) if reply.code() >= 500 => refuse(
                450,
                Status::new(4, 7, 25),
                "The name of your host cannot be looked up now, try again later".into(),
            ),
            other => other.clone(),
        };
        match self.unknown.replace(Unknown { action, for_now }) {
            Some(_) => Err("`unknown' stands here twice, remove one".into()),
            None => Ok(()),
        }
    }

    pub(crate) fn ask(&self, question: Question<'_>) -> Answer {
        let mut answer = Answer::default();
        let of_client = || self.client(question.client?, question.name);
        let of_helo = || self.host(Class::Helo, &question.helo.to_lowercase());
        let of_sender = || match question.from.address() {
            Some(address) => self.address(Class::From, address),
            None => self.name(Class::From, "<>"),
        };
        let stranger = !question.may_relay;
        let found = [
            of_client().filter(|_| stranger),
            of_helo().filter(|_| stranger),
            of_sender().filter(|_| stranger),
            self.address(Class::To, question.to),
        ];
        for action in found.into_iter().flatten() {
            answer.ruling = match action {
                Action::Prepend(field) => {
                    answer.prepend.push(field.clone());
                    continue;
                }
                Action::Filter(filter) => {
                    answer.filter = Some(filter.clone());
                    continue;
                }
                Action::Hold(reason) => {
                    answer.hold.get_or_insert_with(|| reason.clone());
                    continue;
                }
                Action::Ok => {
                    answer.permitted = true;
                    Ruling::GoOn
                }
                Action::Refuse(reply) => Ruling::Refuse(reply.clone()),
                Action::Discard => Ruling::Discard,
                Action::Redirect(address) => Ruling::Redirect(address.clone()),
            };
            break;
        }
        answer
    }

    /// By name, by network, and what is said of those without a name.
    fn client(&self, ip: IpAddr, name: Option<&Iprev>) -> Option<&Action> {
        let known = name.and_then(Iprev::name);
        let by_name = || self.host(Class::Client, known?.as_str());
        let mut clients = self.clients.iter();
        let mut by_network = || clients.find(|(network, _)| network.contains(ip));
        let unknown = || match (name?, self.unknown.as_ref()?) {
            (Iprev::Pass(_), _) => None,
            (Iprev::TempError, unknown) => Some(&unknown.for_now),
            (Iprev::Fail | Iprev::PermError, unknown) => Some(&unknown.action),
        };
        by_name()
            .or_else(|| by_network().map(|c| &c.1))
            .or_else(unknown)
    }

    /// `user@domain`, `domain`, `.parent`, `user@`: as access(5) looks them up.
    fn address(&self, class: Class, address: &Address) -> Option<&Action> {
        let (local, domain) = (address.local().fold(), address.domain().as_str());
        self.name(class, &format!("{local}@{domain}"))
            .or_else(|| self.host(class, domain))
            .or_else(|| self.name(class, &format!("{local}@")))
    }

    /// The name itself, then `.parent` for each domain that it is in.
    fn host(&self, class: Class, name: &str) -> Option<&Action> {
        let parents = name.match_indices('.').filter_map(|(at, _)| name.get(at..));
        let own = std::iter::once(name);
        own.chain(parents).find_map(|name| self.name(class, name))
    }

    fn name(&self, class: Class, name: &str) -> Option<&Action> {
        self.names.get(&(class, name.to_owned()))
    }
}

/// An address or a network, not the name of a host.
fn is_network(pattern: &str) -> bool {
    let dotted = |b: u8| b.is_ascii_digit() || b == b'.';
    pattern.contains(['/', ':']) || pattern.bytes().all(dotted)
}

/// A pattern as addresses and names are held: in lower case, beyond ASCII a local-part in normal
/// form C and a domain as A-labels.
fn canonical(pattern: &str) -> Result<String, String> {
    if pattern.is_ascii() {
        return Ok(pattern.to_ascii_lowercase());
    }
    let (local, domain) = match pattern.rsplit_once('@') {
        Some((local, domain)) => (format!("{}@", international::fold(local)), domain),
        None => (String::new(), pattern),
    };
    let (dot, name) = match domain.strip_prefix('.') {
        Some(name) => (".", name),
        None => ("", domain),
    };
    if name.is_empty() {
        return Ok(local);
    }
    let name = Domain::parse(name).map_err(|e| format!("`{pattern}': {e}"))?;
    Ok(format!("{local}{dot}{}", name.as_str()))
}

/// The first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (first, rest.trim_start())
}

/// An action with its words; the error says what to write.
pub(crate) fn parse_action(text: &str) -> Result<Action, String> {
    let (verb, rest) = word(text);
    let or = |default: &str| {
        if rest.is_empty() {
            default.into()
        } else {
            rest.to_owned()
        }
    };
    let upper = verb.to_ascii_uppercase();
    Ok(match upper.as_str() {
        "OK" => Action::Ok,
        "REJECT" => refuse(554, Status::new(5, 7, 1), or("Access denied")),
        "DEFER" => refuse(
            450,
            Status::new(4, 7, 1),
            or("Access denied for now, try again later"),
        ),
        "DISCARD" => Action::Discard,
        "HOLD" => Action::Hold(or("the access table says so")),
        "REDIRECT" => match Address::parse(rest) {
            Ok(address) => Action::Redirect(address),
            Err(e) => return Err(format!("REDIRECT `{rest}': {e}")),
        },
        "FILTER" => {
            Action::Filter(Filter::parse(rest).map_err(|what| format!("FILTER `{rest}' {what}"))?)
        }
        "PREPEND" => Action::Prepend(field(rest)?),
        _ => match verb.parse::<u16>() {
            Ok(code @ 400..=599) if verb.len() == 3 => coded(code, rest)?,
            _ => {
                return Err(format!(
                    "`{verb}' is no action, write OK, REJECT, DEFER, DISCARD, HOLD, REDIRECT, FILTER, PREPEND or a \
                     reply like `550 5.7.1 text'"
                ));
            }
        },
    })
}

fn refuse(code: u16, status: Status, text: String) -> Action {
    Action::Refuse(Reply::made(code, Some(status), text))
}

/// `550 5.7.1 text`; the status may be left out.
fn coded(code: u16, rest: &str) -> Result<Action, String> {
    // RFC 5321 3.8: these end a session.
    if matches!(code, 421 | 521) {
        return Err(format!("{code} would end the session, write another code"));
    }
    let (first, text) = word(rest);
    let class = if code < 500 { 4 } else { 5 };
    let (status, text) = match Status::parse(first) {
        Some(status) if status.class() == class => (status, text),
        Some(_) => return Err(format!("{first} does not go with {code}")),
        None => (Status::new(class, 7, 1), rest),
    };
    let text = if text.is_empty() {
        "Access denied"
    } else {
        text
    };
    Ok(refuse(code, status, text.to_owned()))
}

/// A header field as RFC 5322 2.2 has them.
fn field(text: &str) -> Result<String, String> {
    let name = text.split_once(':').map(|(name, _)| name);
    let good = name.is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
    });
    let good = good && text.len() <= 900 && !text.chars().any(char::is_control);
    match good {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "PREPEND `{text}' is no header field, write Name: text"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Access, Fail> {
        Access::parse(Path::new("access"), text)
    }

    fn ask(
        access: &Access,
        may_relay: bool,
        client: &str,
        helo: &str,
        from: &str,
        to: &str,
    ) -> String {
        let from = match Address::parse(from) {
            Ok(address) => ReversePath::Address(address),
            Err(_) => ReversePath::Null,
        };
        let answer = access.ask(Question {
            client: client.parse().ok(),
            name: None,
            helo,
            from: &from,
            to: &Address::parse(to).unwrap(),
            may_relay,
        });
        let ruling = match answer.ruling {
            Ruling::GoOn if answer.permitted => "ok".to_owned(),
            Ruling::GoOn => "-".to_owned(),
            Ruling::Refuse(reply) => reply.to_string(),
            Ruling::Discard => "discard".into(),
            Ruling::Redirect(address) => format!("to {address}"),
        };
        let hold = answer.hold.map(|why| format!(" hold: {why}"));
        format!(
            "{ruling}{}{}",
            hold.unwrap_or_default(),
            answer.prepend.concat()
        )
    }

    #[test]
    fn patterns_beyond_ascii() {
        let access = parse(
            "to JO\u{308}RG@B\u{fc}cher.example REJECT one\n\
             to \u{7530}@ REJECT two\n\
             from .b\u{fc}cher.example REJECT three\n",
        )
        .unwrap();
        let (ip, me) = ("203.0.113.1", "ann@example.org");
        for (from, to, want) in [
            (me, "j\u{f6}rg@b\u{fc}cher.example", "554 5.7.1 one"),
            (me, "j\u{f6}rg@xn--bcher-kva.example", "554 5.7.1 one"),
            (me, "\u{7530}@x.net", "554 5.7.1 two"),
            ("a@x.b\u{fc}cher.example", me, "554 5.7.1 three"),
            ("a@b\u{fc}cher.example", me, "-"),
        ] {
            assert_eq!(ask(&access, false, ip, "x", from, to), want, "{from} {to}");
        }
        assert!(parse("to a@\u{202e}b REJECT\n").is_err());
    }

    #[test]
    fn the_first_that_says_something_decides() {
        let access = parse(
            "# who\n\
             client 192.0.2.0/24 REJECT\n\
             client 192.0.2.9 OK\n\
             client 2001:db8::/32 450 4.7.0 not now\n\
             helo .dialup.example 550 go away\n\
             from <> DEFER\n\
             from spam@example.com DISCARD\n\
             from .bad.example REJECT bad\n\
             from boss@ PREPEND X-Boss: yes\n\
             from odd@ HOLD\n\
             to closed@example.org HOLD look at it\n\
             to old@example.org REDIRECT new@example.org\n\
             to closed.example.org 551 5.1.6 moved\n",
        )
        .unwrap();
        let (ip, me) = ("203.0.113.1", "ann@example.org");
        let table = [
            (ip, "mx.x", "a@x.y", me, "-"),
            ("192.0.2.1", "mx.x", "a@x.y", me, "554 5.7.1 Access denied"),
            (
                "::ffff:192.0.2.1",
                "mx.x",
                "a@x.y",
                me,
                "554 5.7.1 Access denied",
            ),
            (
                "192.0.2.9",
                "a.dialup.example",
                "spam@example.com",
                me,
                "ok",
            ),
            ("2001:db8::7", "mx.x", "a@x.y", me, "450 4.7.0 not now"),
            (ip, "P1.Dialup.example", "a@x.y", me, "550 5.7.1 go away"),
            (ip, "dialup.example", "a@x.y", me, "-"),
            (
                ip,
                "mx.x",
                "",
                me,
                "450 4.7.1 Access denied for now, try again later",
            ),
            (ip, "mx.x", "SPAM@Example.com", me, "discard"),
            (
                ip,
                "mx.x",
                "odd@x.y",
                me,
                "- hold: the access table says so",
            ),
            (
                ip,
                "mx.x",
                "a@x.y",
                "closed@example.org",
                "- hold: look at it",
            ),
            (
                ip,
                "mx.x",
                "odd@x.y",
                "old@example.org",
                "to new@example.org hold: the access table says so",
            ),
            (ip, "mx.x", "a@b.bad.example", me, "554 5.7.1 bad"),
            (ip, "mx.x", "a@bad.example", me, "-"),
            (
                ip,
                "mx.x",
                "boss@x.y",
                "Old@example.org",
                "to new@example.orgX-Boss: yes",
            ),
            (
                ip,
                "mx.x",
                "a@x.y",
                "any@closed.example.org",
                "551 5.1.6 moved",
            ),
        ];
        for (client, helo, from, to, want) in table {
            assert_eq!(
                ask(&access, false, client, helo, from, to),
                want,
                "{client} {helo} {from} {to}"
            );
        }
        // Who may relay is asked for `to' only.
        let relaying = |from, to| ask(&access, true, "192.0.2.1", "a.dialup.example", from, to);
        assert_eq!(relaying("spam@example.com", me), "-");
        assert_eq!(relaying("", "old@example.org"), "to new@example.org");
    }

    #[test]
    fn the_last_filter_that_is_named_counts_and_the_rest_goes_on() {
        let access = parse(
            "client 192.0.2.0/24 FILTER smtp:[127.0.0.1]:10026\n\
             from a@x.y FILTER smtp:[127.0.0.1]:10027\nfrom a@x.y FILTER smtp:[::1]:1\n",
        );
        assert!(access.is_err(), "stands here twice");
        let access = parse(
            "client 192.0.2.0/24 FILTER smtp:[127.0.0.1]:10026\n\
             from a@x.y FILTER smtp:[127.0.0.1]:10027\nto no@x.y REJECT\n",
        )
        .unwrap();
        for (from, to, may_relay, want) in [
            ("b@x.y", "c@x.y", false, Some("smtp:[127.0.0.1]:10026")),
            ("a@x.y", "c@x.y", false, Some("smtp:[127.0.0.1]:10027")),
            ("a@x.y", "c@x.y", true, None),
        ] {
            let answer = access.ask(Question {
                client: "192.0.2.1".parse().ok(),
                name: None,
                helo: "x",
                from: &ReversePath::Address(from.parse().unwrap()),
                to: &to.parse().unwrap(),
                may_relay,
            });
            let filter = answer.filter.map(|filter| filter.to_string());
            assert_eq!(filter.as_deref(), want);
            assert_eq!(answer.ruling, Ruling::GoOn);
        }
        let refused = ask(&access, false, "192.0.2.1", "x", "a@x.y", "no@x.y");
        assert_eq!(refused, "554 5.7.1 Access denied");
    }

    #[test]
    fn a_client_is_known_by_its_name() {
        let access = parse(
            "client 192.0.2.9 OK\nclient unknown 550 5.7.25 who are you\n\
             client .dyn.example REJECT dyn\nclient mx.dyn.example OK\n",
        )
        .unwrap();
        let pass = |name| Iprev::Pass(Domain::parse(name).unwrap());
        let later = "450 4.7.25 The name of your host cannot be looked up now, try again later";
        for (ip, name, want) in [
            ("192.0.2.1", Some(pass("p1.Dyn.example")), "554 5.7.1 dyn"),
            ("192.0.2.9", Some(pass("p1.dyn.example")), "554 5.7.1 dyn"),
            ("192.0.2.1", Some(pass("mx.dyn.example")), "-"),
            ("192.0.2.1", Some(pass("dyn.example")), "-"),
            ("192.0.2.1", Some(pass("unknown")), "-"),
            ("192.0.2.1", Some(Iprev::Fail), "550 5.7.25 who are you"),
            (
                "192.0.2.1",
                Some(Iprev::PermError),
                "550 5.7.25 who are you",
            ),
            ("192.0.2.1", Some(Iprev::TempError), later),
            ("192.0.2.9", Some(Iprev::Fail), "-"),
            ("192.0.2.1", None, "-"),
        ] {
            let answer = access.ask(Question {
                client: ip.parse().ok(),
                name: name.as_ref(),
                helo: "x",
                from: &ReversePath::Null,
                to: &Address::parse("ann@example.org").unwrap(),
                may_relay: false,
            });
            let got = match answer.ruling {
                Ruling::Refuse(reply) => reply.to_string(),
                _ => "-".into(),
            };
            assert_eq!(got, want, "{ip} {name:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_mend() {
        for (line, want) in [
            (
                "client 192.0.2.0/24",
                "access:2: write: client|helo|from|to pattern action",
            ),
            ("client 192.0.2.1/24 OK", "bits beyond its prefix"),
            ("client mx.example REDIRECT a@b", "REDIRECT is for `to'"),
            ("client unknown REDIRECT a@b", "REDIRECT is for `to'"),
            ("sender a@b OK", "`sender' is not known"),
            ("from a@b MAYBE", "`MAYBE' is no action"),
            ("from a@b 250 fine", "`250' is no action"),
            ("from a@b 550 4.1.1 x", "4.1.1 does not go with 550"),
            ("from a@b 421 x", "421 would end the session"),
            ("from a@b REDIRECT c@d", "REDIRECT is for `to'"),
            ("to a@b REDIRECT c", "REDIRECT `c'"),
            (
                "to a@b FILTER lmtp:[::1]:24",
                "FILTER `lmtp:[::1]:24' is for LMTP",
            ),
            (
                "to a@b FILTER",
                "FILTER `' is no content filter, write smtp:",
            ),
            ("to a@b PREPEND nothing", "write Name: text"),
        ] {
            let fail = parse(&format!("to x@y OK\n{line}\n"))
                .unwrap_err()
                .to_string();
            assert!(
                fail.contains(want) && fail.contains("access:2: "),
                "{line}: {fail}"
            );
        }
        let fail = parse("to a@b OK\nto A@b REJECT\n").unwrap_err().to_string();
        assert!(fail.contains("`a@b' stands here twice"), "{fail}");
    }
}
