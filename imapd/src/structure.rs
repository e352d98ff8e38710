//! ENVELOPE, BODY and BODYSTRUCTURE (RFC 3501 7.4.2) of what `mime` found.

use mime::address::{self, Entry};
use mime::content::Content;
use mime::header;
use mime::parameter::Parameter;
use mime::structure::{Part, Structure};

use crate::response::{nstring, string};

/// `envelope` of a message's header.
pub(crate) fn envelope(out: &mut Vec<u8>, header: &[u8]) {
    let fields: Vec<_> = header::fields(header).take(10_000).collect();
    let value = |name: &str| fields.iter().find(|f| f.is(name)).map(header::Field::value);
    let list = |name: &str| {
        let mut entries = Vec::new();
        for field in fields.iter().filter(|f| f.is(name)) {
            entries.extend(address::list(field.raw));
            entries.truncate(address::MAX_ENTRIES);
        }
        entries
    };
    let from = list("From");
    // RFC 3501 7.4.2: Sender and Reply-To default to From.
    let or_from = |name: &str| {
        let entries = list(name);
        if entries.is_empty() {
            from.clone()
        } else {
            entries
        }
    };
    out.push(b'(');
    nstring(out, value("Date").as_deref());
    out.push(b' ');
    nstring(out, value("Subject").as_deref());
    for entries in [
        &from,
        &or_from("Sender"),
        &or_from("Reply-To"),
        &list("To"),
        &list("Cc"),
        &list("Bcc"),
    ] {
        out.push(b' ');
        addresses(out, entries);
    }
    out.push(b' ');
    nstring(out, value("In-Reply-To").as_deref());
    out.push(b' ');
    nstring(out, value("Message-ID").as_deref());
    out.push(b')');
}

/// `"(" 1*address ")" / nil`; groups as RFC 3501 7.4.2 shows them.
fn addresses(out: &mut Vec<u8>, entries: &[Entry]) {
    if entries.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    out.push(b'(');
    for entry in entries {
        match entry {
            Entry::Mailbox(mailbox) => {
                let parts = [
                    mailbox.name.as_deref(),
                    mailbox.route.as_deref(),
                    Some(&mailbox.local),
                    Some(&mailbox.host),
                ];
                address_parts(out, parts);
            }
            Entry::GroupStart(name) => address_parts(out, [None, None, Some(name), None]),
            Entry::GroupEnd => address_parts(out, [None; 4]),
        }
    }
    out.push(b')');
}

fn address_parts(out: &mut Vec<u8>, parts: [Option<&[u8]>; 4]) {
    for (at, part) in parts.into_iter().enumerate() {
        out.push(if at == 0 { b'(' } else { b' ' });
        nstring(out, part);
    }
    out.push(b')');
}

/// `body`; with the extension data for BODYSTRUCTURE.
pub(crate) fn body(out: &mut Vec<u8>, structure: &Structure, extended: bool) {
    part(out, structure, 0, extended);
}

/// Recursion ends at `mime::structure::MAX_DEPTH`.
fn part(out: &mut Vec<u8>, structure: &Structure, index: usize, extended: bool) {
    let Some(this) = structure.part(index) else {
        out.extend_from_slice(b"NIL");
        return;
    };
    out.push(b'(');
    if this.content.is_multipart() {
        for &child in &this.children {
            part(out, structure, child, extended);
        }
        out.push(b' ');
        string(out, this.content.subtype.as_bytes());
        if extended {
            out.push(b' ');
            parameters(out, &this.content.parameters);
            common_extension(out, &this.content);
        }
    } else {
        single(out, structure, this, extended);
    }
    out.push(b')');
}

/// `body-type-1part`
fn single(out: &mut Vec<u8>, structure: &Structure, this: &Part, extended: bool) {
    let content = &this.content;
    string(out, content.kind.as_bytes());
    out.push(b' ');
    string(out, content.subtype.as_bytes());
    out.push(b' ');
    parameters(out, &content.parameters);
    out.push(b' ');
    nstring(out, content.id.as_deref());
    out.push(b' ');
    nstring(out, content.description.as_deref());
    out.push(b' ');
    string(out, content.encoding.as_bytes());
    let size = this.body.end.saturating_sub(this.body.start);
    out.extend_from_slice(format!(" {size}").as_bytes());
    if content.is_message()
        && let Some(&child) = this.children.first()
    {
        let header = structure
            .part(child)
            .map(|p| p.header_text.as_slice())
            .unwrap_or_default();
        out.push(b' ');
        envelope(out, header);
        out.push(b' ');
        part(out, structure, child, extended);
        out.extend_from_slice(format!(" {}", this.lines).as_bytes());
    } else if content.is_text() {
        out.extend_from_slice(format!(" {}", this.lines).as_bytes());
    }
    if extended {
        out.push(b' ');
        nstring(out, content.md5.as_deref());
        common_extension(out, content);
    }
}

/// `body-fld-dsp`, `body-fld-lang`, `body-fld-loc`
fn common_extension(out: &mut Vec<u8>, content: &Content) {
    match &content.disposition {
        Some((kind, list)) => {
            out.extend_from_slice(b" (");
            string(out, kind);
            out.push(b' ');
            parameters(out, list);
            out.push(b')');
        }
        None => out.extend_from_slice(b" NIL"),
    }
    match content.language.as_slice() {
        [] => out.extend_from_slice(b" NIL"),
        [only] => {
            out.push(b' ');
            string(out, only);
        }
        several => {
            for (at, tag) in several.iter().enumerate() {
                out.extend_from_slice(if at == 0 { b" (" } else { b" " });
                string(out, tag);
            }
            out.push(b')');
        }
    }
    out.push(b' ');
    nstring(out, content.location.as_deref());
}

/// `body-fld-param`; RFC 2231 continuations are joined (RFC 2231 6), an encoded value keeps its `*`.
fn parameters(out: &mut Vec<u8>, list: &[Parameter]) {
    if list.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    for (at, parameter) in list.iter().enumerate() {
        out.push(if at == 0 { b'(' } else { b' ' });
        let mut name = parameter.name.clone();
        if parameter.extended {
            name.push(b'*');
        }
        string(out, &name);
        out.push(b' ');
        string(out, &parameter.value);
    }
    out.push(b')');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &str, extended: bool) -> String {
        let mut out = Vec::new();
        body(&mut out, &Structure::parse(message.as_bytes()), extended);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn envelopes() {
        // RFC 3501 8, the sample session's message
        let header = "Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\n\
            From: Terry Gray <gray@cac.washington.edu>\r\n\
            Subject: IMAP4rev1 WG mtg summary and minutes\r\n\
            To: imap@cac.washington.edu\r\n\
            cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\n\
            Message-Id: <B27397-0100000@cac.washington.edu>\r\n\r\n";
        let mut out = Vec::new();
        envelope(&mut out, header.as_bytes());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "(\"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\" \"IMAP4rev1 WG mtg summary and minutes\" \
             ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
             ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
             ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
             ((NIL NIL \"imap\" \"cac.washington.edu\")) \
             ((NIL NIL \"minutes\" \"CNRI.Reston.VA.US\")(\"John Klensin\" NIL \"KLENSIN\" \"MIT.EDU\")) \
             NIL NIL \"<B27397-0100000@cac.washington.edu>\")"
        );
    }

    #[test]
    fn bodies() {
        let nested = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
            Subject: in\r\n\r\nhi\r\n\r\n--b--\r\n";
        let table: &[(&str, bool, &str)] = &[
            // RFC 3501 8
            (
                "Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n\r\na\r\nb\r\n",
                false,
                "(\"TEXT\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\") NIL NIL \"7BIT\" 6 2)",
            ),
            (
                "\r\n",
                true,
                "(\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 0 0 NIL NIL NIL NIL)",
            ),
            (
                "Content-Type: image/png; name*0*=utf-8''%e3; name*1*=%81\r\nContent-Disposition: attachment; filename=x\r\n\
                 Content-Language: de, en\r\nContent-Location: here\r\n\r\nx",
                true,
                "(\"IMAGE\" \"PNG\" (\"name*\" \"utf-8''%e3%81\") NIL NIL \"7BIT\" 1 NIL \
                 (\"ATTACHMENT\" (\"filename\" \"x\")) (\"de\" \"en\") \"here\")",
            ),
            (
                nested,
                false,
                "((\"MESSAGE\" \"RFC822\" NIL NIL NIL \"7BIT\" 19 (NIL \"in\" NIL NIL NIL NIL NIL NIL NIL NIL) \
                 (\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 4 1) 3) \"MIXED\")",
            ),
        ];
        for (message, extended, want) in table {
            assert_eq!(shown(message, *extended), *want);
        }
    }
}
