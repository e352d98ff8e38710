//! The grammar of commands.
//!
//! An input is what a client says; each line of it is read for itself.

use base::address::{MAX_DOMAIN, MAX_LOCAL_PART, MAX_PATH};
use base::envelope::{Body, Needs, Notify, Ret, is_envid, is_orcpt};
use base::release::Hold;
use net::line::{self, Line};

use super::check_replies;
use crate::command::{Chunk, Command, Mail, Node, Path, Rcpt, is_foreign, parse};
use account::sasl::MAX_RESPONSE;

/// What is asserted: a verb is read alike in any case and with blanks behind the line; a refusal is a
/// reply; a command that is understood and written anew, from what was understood, is understood the
/// same; addresses have no octet that ends a line or a path in any program, and keep to their limits.
pub fn command(input: &[u8]) {
    let mut rest = input;
    while let Line::Complete(line, consumed) = line::next(rest, 2048) {
        one(line);
        rest = &rest[consumed..];
    }
    // What no framing lets through may not hurt either.
    one(input);
}

fn one(line: &[u8]) {
    is_foreign(line);
    let parsed = parse(line);
    let verb = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
    let mut other = line.to_vec();
    other[..verb].make_ascii_lowercase();
    other.extend_from_slice(b"  ");
    assert_eq!(parsed, parse(&other));
    match parsed {
        Err(refusal) => {
            assert!(refusal.code() >= 400);
            let mut said = Vec::new();
            refusal.encode(&mut said);
            check_replies(&said);
        }
        Ok(command) => {
            if let Some(spelled) = spell(&command) {
                let again = parse(spelled.as_bytes());
                assert_eq!(again.as_ref(), Ok(&command), "{spelled}");
            }
        }
    }
}

/// The command anew; `None` for one that cannot be said again: a proxy's, or a path that is longer than
/// the one it was read from, as a name with A-labels is than with U-labels.
fn spell(command: &Command) -> Option<String> {
    Some(match command {
        Command::Helo(name) => format!("HELO {}", bounded(name, MAX_DOMAIN)),
        Command::Ehlo(name) => format!("EHLO {}", bounded(name, MAX_DOMAIN)),
        Command::Mail(mail) => return spell_mail(mail),
        Command::Rcpt(rcpt) => return spell_rcpt(rcpt),
        Command::Data => "DATA".into(),
        Command::Bdat(Chunk { size, last: false }) => format!("BDAT {size}"),
        Command::Bdat(Chunk { size, last: true }) => format!("BDAT {size} LAST"),
        Command::Rset => "RSET".into(),
        Command::Noop => "NOOP".into(),
        Command::Quit => "QUIT".into(),
        Command::Vrfy => "VRFY x".into(),
        Command::Expn => "EXPN x".into(),
        Command::Help => "HELP".into(),
        Command::StartTls => "STARTTLS".into(),
        Command::Etrn(Node::Domain(domain)) => format!("ETRN {domain}"),
        Command::Etrn(Node::Queue(name)) => format!("ETRN {name}"),
        Command::Xclient(said) => {
            one_line(&[&said.helo, &said.login]);
            return None;
        }
        Command::Xforward(said) => {
            one_line(&[&said.protocol, &said.helo, &said.ident]);
            assert!(!said.to_string().contains(['\r', '\n']));
            return None;
        }
        Command::Auth { mechanism, initial } => {
            let mechanism = bounded(mechanism, 20);
            match initial {
                None => format!("AUTH {mechanism}"),
                Some(octets) if octets.is_empty() => format!("AUTH {mechanism} ="),
                Some(octets) => {
                    assert!(octets.len() <= MAX_RESPONSE);
                    format!("AUTH {mechanism} {}", crate::auth::encode(octets))
                }
            }
        }
    })
}

fn bounded(text: &str, most: usize) -> &str {
    assert!(!text.is_empty() && text.len() <= most);
    assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{text:?}");
    text
}

/// What was decoded can end no line of what is written with it.
fn one_line(words: &[&Option<String>]) {
    for word in words.iter().filter_map(|word| word.as_deref()) {
        assert!(
            !word.is_empty() && !word.chars().any(char::is_control),
            "{word:?}"
        );
    }
}

/// The path in its brackets.
fn spell_path(path: &Path) -> Option<String> {
    let (local, domain) = match path {
        Path::Full(address) => (address.local(), Some(address.domain())),
        Path::Local(local) => (local, None),
    };
    assert!((1..=MAX_LOCAL_PART).contains(&local.as_str().len()));
    assert!(domain.is_none_or(|d| (1..=MAX_DOMAIN).contains(&d.as_str().len())));
    assert!(domain.is_none_or(|d| d.as_str().is_ascii()));
    let path = match path {
        Path::Full(address) => format!("<{address}>"),
        Path::Local(local) => format!("<{local}>"),
    };
    assert!(!path.chars().any(char::is_control), "{path:?}");
    (path.len() <= MAX_PATH).then_some(path)
}

fn spell_mail(mail: &Mail) -> Option<String> {
    let mut out = String::from("MAIL FROM:");
    match &mail.from {
        Some(path) => out.push_str(&spell_path(path)?),
        None => out.push_str("<>"),
    }
    if let Some(size) = mail.size {
        out.push_str(&format!(" SIZE={size}"));
    }
    match mail.body {
        Body::SevenBit => {}
        Body::EightBitMime => out.push_str(" BODY=8BITMIME"),
        Body::Binary => out.push_str(" BODY=BINARYMIME"),
    }
    match mail.ret {
        Some(Ret::Full) => out.push_str(" RET=FULL"),
        Some(Ret::Headers) => out.push_str(" RET=HDRS"),
        None => {}
    }
    if let Some(envid) = &mail.envid {
        assert!(is_envid(envid));
        out.push_str(&format!(" ENVID={envid}"));
    }
    let Needs {
        smtputf8,
        require_tls,
    } = mail.needs;
    if smtputf8 {
        out.push_str(" SMTPUTF8");
    }
    if require_tls {
        out.push_str(" REQUIRETLS");
    }
    match mail.hold {
        Some(Hold::For(seconds)) => out.push_str(&format!(" HOLDFOR={seconds}")),
        Some(hold @ Hold::Until(_)) => {
            let release = hold.release(std::time::UNIX_EPOCH);
            out.push_str(&format!(" HOLDUNTIL={}", release.date()));
        }
        None => {}
    }
    Some(out)
}

fn spell_rcpt(rcpt: &Rcpt) -> Option<String> {
    let mut out = format!("RCPT TO:{}", spell_path(&rcpt.to)?);
    let words: Vec<&str> = match rcpt.notify {
        Notify::Never => vec!["NEVER"],
        Notify::On {
            success,
            failure,
            delay,
        } => [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")]
            .into_iter()
            .filter_map(|(is_wanted, word)| is_wanted.then_some(word))
            .collect(),
    };
    assert!(!words.is_empty());
    out.push_str(&format!(" NOTIFY={}", words.join(",")));
    if let Some(orcpt) = &rcpt.orcpt {
        assert!(is_orcpt(orcpt));
        out.push_str(&format!(" ORCPT={orcpt}"));
    }
    // How it was spelled is part of what was understood: written anew it may be ASCII.
    (rcpt.is_ascii == out.is_ascii()).then_some(out)
}
