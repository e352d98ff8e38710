//! The trace field that we put before a message: RFC 5321 4.4, with RFC 3848's protocol names.

use std::net::IpAddr;

use base::date::Date;
use base::{Address, Domain};

/// What the field tells.
#[derive(Debug, Clone)]
pub(crate) struct Trace<'a> {
    pub(crate) helo: &'a str,
    /// `None` for a client on this host's pipe or Unix socket.
    pub(crate) ip: Option<IpAddr>,
    /// What its host is called.
    pub(crate) name: Option<&'a Domain>,
    /// What was agreed with TLS, in words.
    pub(crate) tls: Option<&'a str>,
    pub(crate) by: &'a Domain,
    pub(crate) protocol: &'a str,
    pub(crate) id: &'a str,
    /// Only where there is one recipient: others must not be shown to each other.
    pub(crate) to: Option<&'a Address>,
    /// Seconds since 1970.
    pub(crate) at: i64,
}

impl Trace<'_> {
    /// `Time-stamp-line = "Received:" FWS Stamp CRLF`
    pub(crate) fn field(&self) -> Vec<u8> {
        let client = match self.ip {
            Some(ip) => match self.name {
                Some(name) => format!("{name} {}", Domain::from(ip)),
                None => format!("unknown {}", Domain::from(ip)),
            },
            None => "localhost".into(),
        };
        let mut field = format!("Received: from {} ({client})\r\n", word(self.helo));
        if let Some(tls) = self.tls {
            field.push_str(&format!("\t(using {})\r\n", comment(tls)));
        }
        field.push_str(&format!(
            "\tby {} (yubin) with {} id {}",
            self.by, self.protocol, self.id
        ));
        if let Some(to) = self.to {
            field.push_str(&format!("\r\n\tfor <{to}>"));
        }
        field.push_str(&format!(";\r\n\t{}\r\n", Date::local(self.at).rfc5322()));
        field.into_bytes()
    }
}

/// `Extended-Domain`: what the client called itself, with anything that is no part of a name or a
/// literal replaced, so that it can neither end the field nor open a comment.
fn word(helo: &str) -> String {
    if helo.is_empty() {
        return "unknown".into();
    }
    let keep = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    helo.chars()
        .map(|c| if keep(c) { c } else { '_' })
        .collect()
}

fn comment(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .filter(|c| *c != '\\')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_who_how_and_when() {
        let by = Domain::parse("mx.example.org").unwrap();
        let to = Address::parse("ann@example.org").unwrap();
        let name = Domain::parse("mail.foo.com").unwrap();
        let trace = Trace {
            helo: "foo.com",
            ip: Some("2001:db8::1".parse().unwrap()),
            name: Some(&name),
            tls: Some("TLSv1.3 with cipher X (256/256 bits)"),
            by: &by,
            protocol: "ESMTPS",
            id: "Q1",
            to: Some(&to),
            at: 0,
        };
        let field = String::from_utf8(trace.field()).unwrap();
        let (head, date) = field.split_at(field.find(";\r\n\t").unwrap() + 4);
        assert_eq!(
            head,
            "Received: from foo.com (mail.foo.com [IPv6:2001:db8::1])\r\n\
             \t(using TLSv1.3 with cipher X (256/256 bits))\r\n\
             \tby mx.example.org (yubin) with ESMTPS id Q1\r\n\
             \tfor <ann@example.org>;\r\n\t"
        );
        assert!(date.contains("1970") || date.contains("1969"), "{date}");
        assert!(date.ends_with("\r\n"));
    }

    #[test]
    fn a_hostile_name_stays_one_word() {
        let by = Domain::parse("mx.example.org").unwrap();
        let trace = Trace {
            helo: "a(b)<c>;\"d\\",
            ip: None,
            name: None,
            tls: None,
            by: &by,
            protocol: "SMTP",
            id: "Q1",
            to: None,
            at: 0,
        };
        let field = String::from_utf8(trace.field()).unwrap();
        assert!(
            field.starts_with("Received: from a_b__c___d_ (localhost)\r\n\tby"),
            "{field}"
        );
    }
}
