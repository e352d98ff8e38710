//! The grammar of commands: RFC 5321 4.1, with the parameters of RFC 1870 (SIZE), RFC 6152 (BODY),
//! RFC 1985 (ETRN), RFC 3030 (BDAT, BINARYMIME), RFC 3207 (STARTTLS), RFC 3461 (DSN), RFC 4865 (HOLDFOR, HOLDUNTIL), RFC 4954
//! (AUTH), RFC 6531 (SMTPUTF8) and RFC 8689 (REQUIRETLS). On nom, on bytes, one line without its CRLF.
//!
//! A [`Command`] that exists is well-formed; whether it is in order is the session's question.
//! More than the RFC says is allowed in two places, because so much of the world needs it: blanks
//! after `FROM:` and `TO:`, and blanks at the end of the line.

use base::address::{self, Address, LocalPart, MAX_LOCAL_PART, MAX_PATH, ReversePath};
use base::envelope::{Body, Needs, Notify, Ret, is_envid, orcpt};
use base::release::Hold;
use nom::branch::alt;
use nom::bytes::complete::{tag_no_case, take_while, take_while1};
use nom::character::complete::{char, digit1};
use nom::combinator::{all_consuming, map, map_res, opt, verify};
use nom::multi::many0;
use nom::sequence::{preceded, separated_pair};
use nom::{IResult, Parser};
use queue::Flush;

use crate::reply::{self, Reply};
use crate::xclient::{self, Xclient};
use crate::xforward::{self, Xforward};

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Helo(String),
    Ehlo(String),
    Mail(Mail),
    Rcpt(Rcpt),
    Data,
    Bdat(Chunk),
    Rset,
    Noop,
    Quit,
    Vrfy,
    Expn,
    Help,
    StartTls,
    Etrn(Node),
    Xclient(Box<Xclient>),
    Xforward(Box<Xforward>),
    Auth {
        mechanism: String,
        initial: Option<Vec<u8>>,
    },
}

/// What MAIL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mail {
    /// `None` for `<>`.
    pub(crate) from: Option<Path>,
    pub(crate) size: Option<u64>,
    pub(crate) body: Body,
    pub(crate) ret: Option<Ret>,
    pub(crate) envid: Option<String>,
    pub(crate) needs: Needs,
    pub(crate) hold: Option<Hold>,
}

/// What RCPT says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rcpt {
    pub(crate) to: Path,
    /// Whether all of it was written in ASCII: else it is only for a mail with SMTPUTF8.
    pub(crate) is_ascii: bool,
    pub(crate) notify: Notify,
    pub(crate) orcpt: Option<String>,
}

/// What ETRN names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Domain(Flush),
    /// A queue of that name, `#` included.
    Queue(String),
}

/// What BDAT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) size: u64,
    pub(crate) last: bool,
}

/// A mailbox, or a local-part alone: `<postmaster>`, and what our own users write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Path {
    Full(Address),
    Local(LocalPart),
}

/// Reads a command. `Err` is the reply to a bad one.
pub(crate) fn parse(line: &[u8]) -> Result<Command, Reply> {
    let line = line.trim_ascii_end();
    let (verb, rest) = line.split_at(line.iter().position(|b| *b == b' ').unwrap_or(line.len()));
    let rest = rest.trim_ascii_start();
    let alone = |command: Command| {
        if rest.is_empty() {
            Ok(command)
        } else {
            Err(reply::NO_PARAMETERS)
        }
    };
    match verb.to_ascii_uppercase().as_slice() {
        b"EHLO" => hello(rest).map(Command::Ehlo),
        b"HELO" => hello(rest).map(Command::Helo),
        b"MAIL" => mail(rest).map(Command::Mail),
        b"RCPT" => rcpt(rest).map(Command::Rcpt),
        b"DATA" => alone(Command::Data),
        b"BDAT" => bdat(rest).map(Command::Bdat),
        b"RSET" => alone(Command::Rset),
        b"QUIT" => alone(Command::Quit),
        b"NOOP" => Ok(Command::Noop), // NOOP = "NOOP" [ SP String ] CRLF
        b"HELP" => Ok(Command::Help), // HELP = "HELP" [ SP String ] CRLF
        b"VRFY" if rest.is_empty() => Err(reply::BAD_SYNTAX),
        b"VRFY" => Ok(Command::Vrfy),
        b"EXPN" if rest.is_empty() => Err(reply::BAD_SYNTAX),
        b"EXPN" => Ok(Command::Expn),
        b"ETRN" => etrn(rest).map(Command::Etrn),
        b"STARTTLS" => alone(Command::StartTls),
        b"AUTH" => auth(rest),
        b"XCLIENT" => xclient::parse(rest).map(|said| Command::Xclient(Box::new(said))),
        b"XFORWARD" => xforward::parse(rest).map(|said| Command::Xforward(Box::new(said))),
        _ => Err(reply::UNKNOWN_COMMAND),
    }
}

/// Whether this is another protocol's first line: HTTP, or the first bytes of TLS, SSH and others.
/// Answering it line by line makes us a tool of cross-protocol attacks.
pub(crate) fn is_foreign(line: &[u8]) -> bool {
    const VERBS: [&[u8]; 9] = [
        b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"DELETE", b"PATCH", b"TRACE",
    ];
    let verb = line.split(|b| *b == b' ').next().unwrap_or_default();
    VERBS.contains(&verb.to_ascii_uppercase().as_slice())
        || line.starts_with(b"SSH-")
        || line.to_ascii_lowercase().starts_with(b"user-agent:")
        || line.to_ascii_lowercase().starts_with(b"host:")
}

type Parsed<'a, T> = IResult<&'a [u8], T>;

/// `ehlo = "EHLO" SP ( Domain / address-literal ) CRLF`
///
/// Any visible word is taken: RFC 5321 4.1.4 wants mail even from hosts that do not know their
/// name, and underscores are common.
pub(crate) fn hello(rest: &[u8]) -> Result<String, Reply> {
    let word: Parsed<'_, &[u8]> = all_consuming(verify(
        take_while1(|b: u8| b.is_ascii_graphic()),
        |word: &[u8]| word.len() <= address::MAX_DOMAIN,
    ))
    .parse(rest);
    match word {
        Ok((_, word)) => Ok(String::from_utf8_lossy(word).into_owned()),
        Err(_) => Err(reply::BAD_HELLO),
    }
}

/// `mail = "MAIL FROM:" Reverse-path [SP Mail-parameters] CRLF`
fn mail(rest: &[u8]) -> Result<Mail, Reply> {
    let from = preceded(
        (tag_no_case("FROM:"), take_while(|b| b == b' ')),
        alt((
            map(address::reverse_path, |path| match path {
                ReversePath::Null => None,
                ReversePath::Address(address) => Some(Path::Full(address)),
            }),
            map(bare_local, |local| Some(Path::Local(local))),
        )),
    );
    let (from, spelled, parameters) = path_and_parameters(rest, from, &reply::BAD_SENDER)?;
    let mut mail = Mail {
        from,
        size: None,
        body: Body::SevenBit,
        ret: None,
        envid: None,
        needs: Needs::default(),
        hold: None,
    };
    each_once(parameters, |keyword, value| {
        match (keyword, value) {
            (b"SIZE", Some(value)) => mail.size = Some(size_value(value.as_bytes())?),
            (b"BODY", Some(value)) => mail.body = body_value(value)?,
            (b"RET", Some(value)) => mail.ret = Some(Ret::parse(value).ok_or(reply::BAD_SYNTAX)?),
            (b"ENVID", Some(value)) if is_envid(value) => mail.envid = Some(value.to_owned()),
            // RFC 4954 5: who wrote it first. We trust nobody with that, and say nothing.
            (b"AUTH", Some(_)) => (),
            (b"SMTPUTF8", None) => mail.needs.smtputf8 = true,
            (b"REQUIRETLS", None) => mail.needs.require_tls = true,
            (b"HOLDFOR" | b"HOLDUNTIL", Some(value)) => {
                // RFC 4865 4: one of them, once.
                if mail.hold.is_some() {
                    return Err(reply::BAD_SYNTAX);
                }
                let hold = match keyword {
                    b"HOLDFOR" => Hold::parse_for(value),
                    _ => Hold::parse_until(value),
                };
                mail.hold = Some(hold.ok_or(reply::BAD_HOLD)?);
            }
            (
                b"SIZE" | b"BODY" | b"RET" | b"ENVID" | b"AUTH" | b"SMTPUTF8" | b"REQUIRETLS"
                | b"HOLDFOR" | b"HOLDUNTIL",
                _,
            ) => {
                return Err(reply::BAD_SYNTAX);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if !spelled.is_ascii() && !mail.needs.smtputf8 {
        return Err(reply::NEEDS_SMTPUTF8);
    }
    Ok(mail)
}

/// `rcpt = "RCPT TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path )
/// [SP Rcpt-parameters] CRLF`
fn rcpt(rest: &[u8]) -> Result<Rcpt, Reply> {
    let to = preceded(
        (tag_no_case("TO:"), take_while(|b| b == b' ')),
        alt((map(address::path, Path::Full), map(bare_local, Path::Local))),
    );
    let (to, _, parameters) = path_and_parameters(rest, to, &reply::BAD_RECIPIENT)?;
    let mut rcpt = Rcpt {
        to,
        is_ascii: rest.is_ascii(),
        notify: Notify::default(),
        orcpt: None,
    };
    each_once(parameters, |keyword, value| {
        let value = match keyword {
            b"NOTIFY" | b"ORCPT" => value.ok_or(reply::BAD_SYNTAX)?,
            _ => return Ok(false),
        };
        match keyword {
            b"NOTIFY" => rcpt.notify = Notify::parse(value).ok_or(reply::BAD_SYNTAX)?,
            _ => rcpt.orcpt = Some(orcpt(value).ok_or(reply::BAD_SYNTAX)?),
        }
        Ok(true)
    })?;
    Ok(rcpt)
}

/// Gives each parameter, its keyword in upper case, to `take`, which says whether it knows it. None
/// may come twice.
fn each_once(
    parameters: Parameters<'_>,
    mut take: impl FnMut(&[u8], Option<&str>) -> Result<bool, Reply>,
) -> Result<(), Reply> {
    let mut seen = Vec::new();
    for (keyword, value) in parameters {
        let keyword = keyword.to_ascii_uppercase();
        let text = match value.map(std::str::from_utf8) {
            Some(Err(_)) => return Err(reply::BAD_SYNTAX),
            Some(Ok(text)) => Some(text),
            None => None,
        };
        match take(&keyword, text)? {
            false => return Err(reply::UNKNOWN_PARAMETER),
            true if seen.contains(&keyword) => return Err(reply::BAD_SYNTAX),
            true => seen.push(keyword),
        }
    }
    Ok(())
}

/// A local-part alone, within RFC 5321 4.5.3.1.1: a longer one could not be read back from the queue.
fn bare_local(input: &[u8]) -> Parsed<'_, LocalPart> {
    verify(address::bare_local, |local: &LocalPart| {
        local.as_str().len() <= MAX_LOCAL_PART
    })
    .parse(input)
}

type Parameters<'a> = Vec<(&'a [u8], Option<&'a [u8]>)>;

/// A path, how it was spelled, and `*( SP esmtp-param )`; a path longer than RFC 5321 4.5.3.1.3
/// allows is a bad one.
fn path_and_parameters<'a, T>(
    input: &'a [u8],
    mut path: impl Parser<&'a [u8], Output = T, Error = nom::error::Error<&'a [u8]>>,
    bad_path: &Reply,
) -> Result<(T, &'a [u8], Parameters<'a>), Reply> {
    let (rest, value) = path.parse(input).map_err(|_| bad_path.clone())?;
    let spelled = input.len().saturating_sub(rest.len());
    let spelled = input.get(..spelled).unwrap_or_default();
    if spelled.len() > MAX_PATH + "FROM: ".len() {
        return Err(bad_path.clone());
    }
    if rest.first().is_some_and(|b| *b != b' ') {
        return Err(bad_path.clone());
    }
    match all_consuming(many0(preceded(take_while1(|b| b == b' '), parameter))).parse(rest) {
        Ok((_, parameters)) => Ok((value, spelled, parameters)),
        Err(_) => Err(reply::BAD_SYNTAX),
    }
}

/// `esmtp-param = esmtp-keyword ["=" esmtp-value]`,
/// `esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")`,
/// `esmtp-value = 1*(%d33-60 / %d62-126 / UTF8-non-ascii)`, RFC 6531 3.3
fn parameter(input: &[u8]) -> Parsed<'_, (&[u8], Option<&[u8]>)> {
    let keyword = || {
        verify(
            take_while1(|b: u8| b.is_ascii_alphanumeric() || b == b'-'),
            |word: &[u8]| !word.starts_with(b"-"),
        )
    };
    let value = take_while1(|b: u8| !b.is_ascii() || b.is_ascii_graphic() && b != b'=');
    alt((
        map(separated_pair(keyword(), char('='), value), |(k, v)| {
            (k, Some(v))
        }),
        map(keyword(), |k| (k, None)),
    ))
    .parse(input)
}

/// `size-value = 1*20DIGIT`, RFC 1870 3. One that is too big for us to count is too big.
fn size_value(value: &[u8]) -> Result<u64, Reply> {
    let number: Parsed<'_, &[u8]> =
        all_consuming(verify(digit1, |d: &[u8]| d.len() <= 20)).parse(value);
    let (_, digits) = number.map_err(|_| reply::BAD_SYNTAX)?;
    let digits = std::str::from_utf8(digits).map_err(|_| reply::BAD_SYNTAX)?;
    Ok(digits.parse().unwrap_or(u64::MAX))
}

/// `bdat-cmd = "BDAT" SP chunk-size [ SP end-marker ] CR LF`, `end-marker = "LAST"`, RFC 3030 2
fn bdat(rest: &[u8]) -> Result<Chunk, Reply> {
    let (number, marker) =
        rest.split_at(rest.iter().position(|b| *b == b' ').unwrap_or(rest.len()));
    // More than can be counted cannot be taken, nor passed over.
    let size = size_value(number)?;
    if size == u64::MAX {
        return Err(reply::BAD_SYNTAX);
    }
    match marker.trim_ascii_start() {
        b"" => Ok(Chunk { size, last: false }),
        marker if marker.eq_ignore_ascii_case(b"LAST") => Ok(Chunk { size, last: true }),
        _ => Err(reply::BAD_SYNTAX),
    }
}

/// `etrn-command = "ETRN" SP [option-character] node-name CRLF`, `option-character = "@" / "#"`, RFC 1985 5
fn etrn(rest: &[u8]) -> Result<Node, Reply> {
    let text = std::str::from_utf8(rest).map_err(|_| reply::BAD_SYNTAX)?;
    match text.strip_prefix('#') {
        Some(name) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(Node::Queue(text.to_owned()))
        }
        Some(_) => Err(reply::BAD_SYNTAX),
        None => Flush::parse(text)
            .map(Node::Domain)
            .ok_or(reply::BAD_SYNTAX),
    }
}

/// `body-value = "7BIT" / "8BITMIME" / "BINARYMIME"`, RFC 6152 2, RFC 3030 3
fn body_value(value: &str) -> Result<Body, Reply> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBitMime),
        "BINARYMIME" => Ok(Body::Binary),
        _ => Err(reply::BAD_SYNTAX),
    }
}

/// `auth-command = "AUTH" SP sasl-mech [SP initial-response] *(CRLF [base64]) [CRLF cancel]`,
/// `initial-response = base64 / "="`, RFC 4954 8
fn auth(rest: &[u8]) -> Result<Command, Reply> {
    let mechanism = map_res(
        verify(
            take_while1(|b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
            |word: &[u8]| word.len() <= 20,
        ),
        |word: &[u8]| std::str::from_utf8(word).map(str::to_ascii_uppercase),
    );
    let initial = opt(preceded(
        take_while1(|b| b == b' '),
        take_while1(|b| b != b' '),
    ));
    let parsed: Parsed<'_, (String, Option<&[u8]>)> =
        all_consuming((mechanism, initial)).parse(rest);
    let (_, (mechanism, initial)) = parsed.map_err(|_| reply::BAD_SYNTAX)?;
    let initial = match initial {
        None => None,
        Some(b"=") => Some(Vec::new()),
        Some(text) => Some(crate::auth::decode(text).ok_or(reply::BAD_BASE64)?),
    };
    Ok(Command::Auth { mechanism, initial })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> Path {
        Path::Full(Address::parse(text).unwrap())
    }

    fn mail_from(from: Option<Path>) -> Command {
        Command::Mail(Mail {
            from,
            size: None,
            body: Body::SevenBit,
            ret: None,
            envid: None,
            needs: Needs::default(),
            hold: None,
        })
    }

    fn rcpt_to(to: Path) -> Command {
        Command::Rcpt(Rcpt {
            to,
            is_ascii: true,
            notify: Notify::default(),
            orcpt: None,
        })
    }

    #[test]
    fn what_the_rfc_writes_and_what_the_world_writes() {
        let local = |s: &str| Path::Local(LocalPart::new(s).unwrap());
        let table = [
            ("EHLO bar.com", Command::Ehlo("bar.com".into())),
            ("ehlo [192.0.2.1]", Command::Ehlo("[192.0.2.1]".into())),
            ("HELO my_host", Command::Helo("my_host".into())),
            (
                "MAIL FROM:<Smith@bar.com>",
                mail_from(Some(full("Smith@bar.com"))),
            ),
            (
                "mail from: <Smith@bar.com>  ",
                mail_from(Some(full("Smith@bar.com"))),
            ),
            (
                "MAIL FROM:<> BODY=BinaryMime",
                match mail_from(None) {
                    Command::Mail(mail) => Command::Mail(Mail {
                        body: Body::Binary,
                        ..mail
                    }),
                    other => other,
                },
            ),
            ("MAIL FROM:<>", mail_from(None)),
            ("MAIL FROM:<root>", mail_from(Some(local("root")))),
            ("RCPT TO:<Jones@foo.com>", rcpt_to(full("Jones@foo.com"))),
            (
                "RCPT TO:<@hosta.int,@jkl.org:userc@d.bar.org>",
                rcpt_to(full("userc@d.bar.org")),
            ),
            ("RCPT TO:<Postmaster>", rcpt_to(local("Postmaster"))),
            ("RCPT TO:<\"a b\"@x.org>", rcpt_to(full("\"a b\"@x.org"))),
            (
                "ETRN Example.org",
                Command::Etrn(Node::Domain(Flush::parse("example.org").unwrap())),
            ),
            (
                "etrn @example.org",
                Command::Etrn(Node::Domain(Flush::parse("@example.org").unwrap())),
            ),
            ("ETRN #uucp", Command::Etrn(Node::Queue("#uucp".into()))),
            ("DATA", Command::Data),
            ("data ", Command::Data),
            (
                "BDAT 1000",
                Command::Bdat(Chunk {
                    size: 1000,
                    last: false,
                }),
            ),
            (
                "bdat 0 last",
                Command::Bdat(Chunk {
                    size: 0,
                    last: true,
                }),
            ),
            ("NOOP anything", Command::Noop),
            ("VRFY Crispin", Command::Vrfy),
            (
                "AUTH PLAIN",
                Command::Auth {
                    mechanism: "PLAIN".into(),
                    initial: None,
                },
            ),
            (
                "AUTH plain =",
                Command::Auth {
                    mechanism: "PLAIN".into(),
                    initial: Some(vec![]),
                },
            ),
            (
                "AUTH PLAIN AGEAYg==",
                Command::Auth {
                    mechanism: "PLAIN".into(),
                    initial: Some(b"\0a\0b".to_vec()),
                },
            ),
        ];
        for (line, want) in table {
            assert_eq!(parse(line.as_bytes()), Ok(want), "{line}");
        }
        assert_eq!(
            parse(b"MAIL FROM:<a@b> SIZE=1000 BODY=8BITMIME AUTH=<>"),
            Ok(Command::Mail(Mail {
                from: Some(full("a@b")),
                size: Some(1000),
                body: Body::EightBitMime,
                ret: None,
                envid: None,
                needs: Needs::default(),
                hold: None,
            }))
        );
        assert_eq!(
            parse(b"MAIL FROM:<a@b> ret=HDRS ENVID=QQ+2B1"),
            Ok(Command::Mail(Mail {
                from: Some(full("a@b")),
                size: None,
                body: Body::SevenBit,
                ret: Some(Ret::Headers),
                envid: Some("QQ+2B1".into()),
                needs: Needs::default(),
                hold: None,
            }))
        );
        assert_eq!(
            parse(b"RCPT TO:<a@b> NOTIFY=SUCCESS,delay ORCPT=rfc822;A+40b@c"),
            Ok(Command::Rcpt(Rcpt {
                to: full("a@b"),
                is_ascii: true,
                notify: Notify::On {
                    success: true,
                    failure: false,
                    delay: true
                },
                orcpt: Some("rfc822;A+40b@c".into()),
            }))
        );
        assert!(matches!(
            parse(b"MAIL FROM:<a@b> SIZE=99999999999999999999"),
            Ok(Command::Mail(Mail {
                size: Some(u64::MAX),
                ..
            }))
        ));
    }

    /// RFC 6531 3.3, RFC 6533 3
    #[test]
    fn addresses_beyond_ascii() {
        let sender = parse("MAIL FROM:<j\u{f6}rg@b> SMTPUTF8".as_bytes());
        let Ok(Command::Mail(mail)) = sender else {
            panic!("{sender:?}")
        };
        assert_eq!(mail.from, Some(full("j\u{f6}rg@b")));
        assert!(mail.needs.smtputf8);
        let recipient =
            parse("RCPT TO:<ann@b\u{fc}cher.example> ORCPT=utf-8;j\u{f6}rg@b".as_bytes());
        let Ok(Command::Rcpt(rcpt)) = recipient else {
            panic!("{recipient:?}")
        };
        assert_eq!(rcpt.to, full("ann@xn--bcher-kva.example"));
        assert!(!rcpt.is_ascii);
        assert_eq!(rcpt.orcpt.as_deref(), Some("utf-8;j\\x{F6}rg@b"));
        for bytes in [
            &b"MAIL FROM:<j\xf6rg@b> SMTPUTF8"[..],
            b"RCPT TO:<j\xf6rg@b>",
        ] {
            assert!(parse(bytes).is_err());
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let long = format!("RCPT TO:<@{}:a@b>", ["a"; 200].join(".a,@"));
        // No entry of the queue could be read with it.
        let name = "a".repeat(MAX_LOCAL_PART + 1);
        let (sender, recipient) = (format!("MAIL FROM:<{name}>"), format!("RCPT TO:<{name}>"));
        let table: &[(&str, &Reply)] = &[
            (&sender, &reply::BAD_SENDER),
            (&recipient, &reply::BAD_RECIPIENT),
            ("", &reply::UNKNOWN_COMMAND),
            ("XYZZY", &reply::UNKNOWN_COMMAND),
            ("EHLO", &reply::BAD_HELLO),
            ("EHLO a b", &reply::BAD_HELLO),
            ("HELO a\x07b", &reply::BAD_HELLO),
            ("MAIL", &reply::BAD_SENDER),
            ("MAIL TO:<a@b>", &reply::BAD_SENDER),
            ("MAIL FROM:a@b", &reply::BAD_SENDER),
            ("MAIL FROM:<a@b", &reply::BAD_SENDER),
            ("MAIL FROM:<a@b>SIZE=1", &reply::BAD_SENDER),
            ("MAIL FROM:<a b@c>", &reply::BAD_SENDER),
            ("MAIL FROM:<a@b> SIZE=x", &reply::BAD_SYNTAX),
            ("MAIL FROM:<a@b> SIZE", &reply::BAD_SYNTAX),
            ("MAIL FROM:<a@b> SIZE=1 SIZE=2", &reply::BAD_SYNTAX),
            ("MAIL FROM:<a@b> BODY=9BIT", &reply::BAD_SYNTAX),
            ("MAIL FROM:<a@b> =", &reply::BAD_SYNTAX),
            ("MAIL FROM:<a@b> FOO=1", &reply::UNKNOWN_PARAMETER),
            ("MAIL FROM:<a@b> REQUIRETLS=yes", &reply::BAD_SYNTAX),
            ("MAIL FROM:<a@b> HOLDFOR=0", &reply::BAD_HOLD),
            ("MAIL FROM:<a@b> HOLDFOR=1h", &reply::BAD_HOLD),
            ("MAIL FROM:<a@b> HOLDUNTIL=tomorrow", &reply::BAD_HOLD),
            ("MAIL FROM:<a@b> HOLDFOR", &reply::BAD_SYNTAX),
            ("MAIL FROM:<a@b> HOLDFOR=1 HOLDFOR=1", &reply::BAD_SYNTAX),
            (
                "MAIL FROM:<a@b> HOLDFOR=1 HOLDUNTIL=2026-12-01T08:00:00Z",
                &reply::BAD_SYNTAX,
            ),
            ("MAIL FROM:<a@b> SMTPUTF8=yes", &reply::BAD_SYNTAX),
            ("MAIL FROM:<a@b> SMTPUTF8 SMTPUTF8", &reply::BAD_SYNTAX),
            ("MAIL FROM:<j\u{f6}rg@b>", &reply::NEEDS_SMTPUTF8),
            (
                "MAIL FROM:<ann@b\u{fc}cher.example>",
                &reply::NEEDS_SMTPUTF8,
            ),
            ("MAIL FROM:<a\u{202e}@b> SMTPUTF8", &reply::BAD_SENDER),
            ("RCPT TO:<a@b> ORCPT=utf-8;\u{202e}", &reply::BAD_SYNTAX),
            ("RCPT TO:<a@b> ORCPT=rfc822;j\u{f6}rg@b", &reply::BAD_SYNTAX),
            ("RCPT TO:<>", &reply::BAD_RECIPIENT),
            ("MAIL FROM:<a@b> RET=SOME", &reply::BAD_SYNTAX),
            ("MAIL FROM:<a@b> RET", &reply::BAD_SYNTAX),
            ("MAIL FROM:<a@b> ENVID=a+2", &reply::BAD_SYNTAX),
            ("RCPT TO:<a@b> NOTIFY=NEVER,SUCCESS", &reply::BAD_SYNTAX),
            (
                "RCPT TO:<a@b> NOTIFY=NEVER NOTIFY=NEVER",
                &reply::BAD_SYNTAX,
            ),
            ("RCPT TO:<a@b> NOTIFY", &reply::BAD_SYNTAX),
            ("RCPT TO:<a@b> ORCPT=a@b", &reply::BAD_SYNTAX),
            ("RCPT TO:<a@b> SIZE=1", &reply::UNKNOWN_PARAMETER),
            ("RCPT FROM:<a@b>", &reply::BAD_RECIPIENT),
            (&long, &reply::BAD_RECIPIENT),
            ("DATA now", &reply::NO_PARAMETERS),
            ("BDAT", &reply::BAD_SYNTAX),
            ("BDAT x", &reply::BAD_SYNTAX),
            ("BDAT -1", &reply::BAD_SYNTAX),
            ("BDAT 1 FIRST", &reply::BAD_SYNTAX),
            ("BDAT 123456789012345678901", &reply::BAD_SYNTAX),
            ("BDAT 18446744073709551616 LAST", &reply::BAD_SYNTAX),
            ("ETRN", &reply::BAD_SYNTAX),
            ("ETRN #", &reply::BAD_SYNTAX),
            ("ETRN @", &reply::BAD_SYNTAX),
            ("ETRN a b", &reply::BAD_SYNTAX),
            ("ETRN ../a", &reply::BAD_SYNTAX),
            ("ETRN [192.0.2.1]", &reply::BAD_SYNTAX),
            ("RSET x", &reply::NO_PARAMETERS),
            ("VRFY", &reply::BAD_SYNTAX),
            ("AUTH", &reply::BAD_SYNTAX),
            ("AUTH PLAIN ***", &reply::BAD_BASE64),
            ("AUTH PLAIN a b", &reply::BAD_SYNTAX),
        ];
        for (line, want) in table {
            assert_eq!(parse(line.as_bytes()).as_ref(), Err(*want), "{line}");
        }
    }

    #[test]
    fn other_protocols_are_known_by_their_first_words() {
        for line in [
            "GET / HTTP/1.1",
            "post /x",
            "Host: a",
            "SSH-2.0-x",
            "CONNECT a:25 HTTP/1.0",
        ] {
            assert!(is_foreign(line.as_bytes()), "{line}");
        }
        assert!(!is_foreign(b"EHLO get"));
        assert!(!is_foreign(b"HELP"));
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line: Vec<u8>) {
            parse(&line).ok();
            let mut mail = b"MAIL FROM:<".to_vec();
            mail.extend_from_slice(&line);
            parse(&mail).ok();
        }
    }
}
