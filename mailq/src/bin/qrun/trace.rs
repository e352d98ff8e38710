//! Who sent a message here that a content filter brought back: our own trace field of that time says
//! it (RFC 5321 4.4). Pure.
//!
//! It is the second of our fields, below the one that was written when the message came back; what the
//! filter writes between them is not in our form. What stands below it may be forged and is not asked.

use std::net::IpAddr;

use base::Domain;
use mime::header;

/// Whether it was one of our own: who ran sendmail(1), who logged in, or a client that is `near`.
pub(crate) fn is_ours(fields: &[u8], host: &Domain, near: impl Fn(IpAddr) -> bool) -> bool {
    let mut written = header::fields(fields)
        .filter(|field| field.is("Received"))
        .filter_map(|field| read(&field.value(), host));
    match written.nth(1) {
        None => false,
        Some(Sender::User | Sender::Login | Sender::Client(None)) => true,
        Some(Sender::Client(Some(ip))) => near(ip),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Sender {
    User,
    Login,
    /// `None` on a pipe or a Unix socket.
    Client(Option<IpAddr>),
}

/// A field as smtpd and qrun write it; `None` for one of somebody else's.
fn read(value: &[u8], host: &Domain) -> Option<Sender> {
    let text = String::from_utf8_lossy(value);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let text = words.join(" ");
    if text.starts_with(&format!("by {host} (yubin, from userid ")) {
        return Some(Sender::User);
    }
    // The name that the client gave has neither blanks nor parentheses.
    let (helo, rest) = text.strip_prefix("from ")?.split_once(' ')?;
    let (client, rest) = rest.strip_prefix('(')?.split_once(") ")?;
    if helo.contains(['(', ')']) || client.contains('(') {
        return None;
    }
    let by = format!("by {host} (yubin) with ");
    let rest = match rest.strip_prefix("(using ") {
        Some(tls) => tls.split_once(&format!(") {by}"))?.1,
        None => rest.strip_prefix(&by)?,
    };
    let (protocol, rest) = rest.split_once(' ')?;
    if !rest.starts_with("id ") {
        return None;
    }
    if protocol.ends_with('A') {
        // RFC 3848
        return Some(Sender::Login);
    }
    if client == "localhost" {
        return Some(Sender::Client(None));
    }
    let (_, literal) = client.split_once(" [")?;
    let literal = Domain::parse(&format!("[{literal}")).ok()?;
    literal.ip().map(|ip| Sender::Client(Some(ip)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACK: &str = "Received: from filter (localhost [127.0.0.1])\r\n\
                        \tby mx.here.test (yubin) with ESMTP id A;\r\n\tdate\r\n";
    /// As amavis writes it, and as one writes it who shows a recipient that somebody chose.
    const FILTER: &str = "Received: from mx.here.test ([127.0.0.1])\r\n\
                          \tby localhost (mx.here.test [127.0.0.1]) (amavis, port 10024) with ESMTP\r\n\
                          \tid x for <\"from a (localhost) by mx.here.test (yubin) with ESMTPA id\"@b>; d\r\n";

    #[test]
    fn our_own_field_below_the_way_back_counts() {
        let tls = "\t(using TLSv1.3 with cipher X (256 bits))\r\n";
        for (client, tls, protocol, ours) in [
            ("unknown [203.0.113.1]", "", "ESMTP", false),
            ("mx.x.org [203.0.113.1]", tls, "ESMTPS", false),
            ("mx.x.org [203.0.113.1]", tls, "ESMTPSA", true),
            ("unknown [IPv6:2001:db8::1]", "", "UTF8SMTPA", true),
            ("unknown [IPv6:2001:db8::1]", "", "UTF8SMTP", false),
            ("localhost [127.0.0.1]", "", "ESMTP", true),
            ("localhost", "", "SMTP", true),
        ] {
            let field = format!(
                "Received: from pc ({client})\r\n{tls}\tby mx.here.test (yubin) with {protocol} id B\r\n\
                 \tfor <a@b.c>;\r\n\tdate\r\n"
            );
            let header = format!("X: y\r\n{BACK}{FILTER}{field}Subject: x\r\n\r\n");
            let near = |ip: IpAddr| ip.is_loopback();
            let host = "mx.here.test".parse().unwrap();
            assert_eq!(is_ours(header.as_bytes(), &host, near), ours, "{field}");
            let elsewhere = "other.test".parse().unwrap();
            assert!(!is_ours(header.as_bytes(), &elsewhere, near));
            // What a stranger put below his own.
            let forged = format!("{BACK}{FILTER}{field}{field}");
            let forged = forged.replacen("with ESMTPSA id B", "with ESMTPS id B", 1);
            if protocol == "ESMTPSA" {
                assert!(!is_ours(forged.as_bytes(), &host, near));
            }
        }
    }

    #[test]
    fn what_users_submit_and_what_is_in_no_form_of_ours() {
        let host: Domain = "mx.here.test".parse().unwrap();
        let submitted = "Received: by mx.here.test (yubin, from userid 1000)\r\n\tid C; date\r\n";
        let header = format!("{BACK}{submitted}");
        assert!(is_ours(header.as_bytes(), &host, |_| false));
        assert!(!is_ours(submitted.as_bytes(), &host, |_| true));
        for odd in [
            "from a b (localhost) by mx.here.test (yubin) with ESMTPA id x",
            "from a (localhost by mx.here.test (yubin) with ESMTPA id x",
            "from (x) (localhost) by mx.here.test (yubin) with ESMTPA id x",
            "from a (localhost) x by mx.here.test (yubin) with ESMTPA id x",
            "from a (localhost) by mx.here.test (yubin) with ESMTPA",
            "from a (x) by mx.here.test (yubin) with ESMTP id x",
            "by mx.here.test (yubin) with ESMTPA id x",
            "",
        ] {
            assert_eq!(read(odd.as_bytes(), &host), None, "{odd}");
        }
    }
}
