//! The grammar of commands: RFC 5321 4.1, with the parameters of RFC 1870 (SIZE), RFC 6152 (BODY),
//! RFC 3030 (BDAT), RFC 3207 (STARTTLS), RFC 3461 (DSN) and RFC 4954 (AUTH). On nom, on bytes, one line without its CRLF.
//!
//! A [`Command`] that exists is well-formed; whether it is in order is the session's question.
//! More than the RFC says is allowed in two places, because so much of the world needs it: blanks
//! after `FROM:` and `TO:`, and blanks at the end of the line.

use base::address::{self, Address, LocalPart, MAX_LOCAL_PART, MAX_PATH, ReversePath};
use base::envelope::{Body, Notify, Ret, is_envid, is_orcpt};
use nom::branch::alt;
use nom::bytes::complete::{tag_no_case, take_while, take_while1};
use nom::character::complete::{char, digit1};
use nom::combinator::{all_consuming, map, map_res, opt, verify};
use nom::multi::many0;
use nom::sequence::{preceded, separated_pair};
use nom::{IResult, Parser};

use crate::reply::{self, Reply};
use crate::xclient::{self, Xclient};

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
    Xclient(Box<Xclient>),
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
}

/// What RCPT says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rcpt {
    pub(crate) to: Path,
    pub(crate) notify: Notify,
    pub(crate) orcpt: Option<String>,
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
        b"STARTTLS" => alone(Command::StartTls),
        b"AUTH" => auth(rest),
        b"XCLIENT" => xclient::parse(rest).map(|said| Command::Xclient(Box::new(said))),
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
    let (from, parameters) = path_and_parameters(rest, from, &reply::BAD_SENDER)?;
    let mut mail = Mail {
        from,
        size: None,
        body: Body::SevenBit,
        ret: None,
        envid: None,
    };
    each_once(parameters, |keyword, value| {
        match keyword {
            b"SIZE" => mail.size = Some(size_value(value.as_bytes())?),
            b"BODY" => mail.body = body_value(value)?,
            b"RET" => mail.ret = Some(Ret::parse(value).ok_or(reply::BAD_SYNTAX)?),
            b"ENVID" if is_envid(value) => mail.envid = Some(value.to_owned()),
            b"ENVID" => return Err(reply::BAD_SYNTAX),
            // RFC 4954 5: who wrote it first. We trust nobody with that, and say nothing.
            b"AUTH" => (),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(mail)
}

/// `rcpt = "RCPT TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path )
/// [SP Rcpt-parameters] CRLF`
fn rcpt(rest: &[u8]) -> Result<Rcpt, Reply> {
    let to = preceded(
        (tag_no_case("TO:"), take_while(|b| b == b' ')),
        alt((map(address::path, Path::Full), map(bare_local, Path::Local))),
    );
    let (to, parameters) = path_and_parameters(rest, to, &reply::BAD_RECIPIENT)?;
    let mut rcpt = Rcpt {
        to,
        notify: Notify::default(),
        orcpt: None,
    };
    each_once(parameters, |keyword, value| {
        match keyword {
            b"NOTIFY" => rcpt.notify = Notify::parse(value).ok_or(reply::BAD_SYNTAX)?,
            b"ORCPT" if is_orcpt(value) => rcpt.orcpt = Some(value.to_owned()),
            b"ORCPT" => return Err(reply::BAD_SYNTAX),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(rcpt)
}

/// Gives each parameter, its keyword in upper case, to `take`, which says whether it knows it. All
/// that we know have a value, and none may come twice.
fn each_once(
    parameters: Parameters<'_>,
    mut take: impl FnMut(&[u8], &str) -> Result<bool, Reply>,
) -> Result<(), Reply> {
    let mut seen = Vec::new();
    for (keyword, value) in parameters {
        let keyword = keyword.to_ascii_uppercase();
        let text = std::str::from_utf8(value.unwrap_or_default()).unwrap_or_default();
        let bad = value.is_none() || seen.contains(&keyword);
        match take(&keyword, text) {
            Ok(false) => return Err(reply::UNKNOWN_PARAMETER),
            Ok(true) if !bad => seen.push(keyword),
            Ok(true) | Err(_) => return Err(reply::BAD_SYNTAX),
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

/// A path and `*( SP esmtp-param )`; a path longer than RFC 5321 4.5.3.1.3 allows is a bad one.
fn path_and_parameters<'a, T>(
    input: &'a [u8],
    mut path: impl Parser<&'a [u8], Output = T, Error = nom::error::Error<&'a [u8]>>,
    bad_path: &Reply,
) -> Result<(T, Parameters<'a>), Reply> {
    let (rest, value) = path.parse(input).map_err(|_| bad_path.clone())?;
    if input.len().saturating_sub(rest.len()) > MAX_PATH + "FROM: ".len() {
        return Err(bad_path.clone());
    }
    if rest.first().is_some_and(|b| *b != b' ') {
        return Err(bad_path.clone());
    }
    match all_consuming(many0(preceded(take_while1(|b| b == b' '), parameter))).parse(rest) {
        Ok((_, parameters)) => Ok((value, parameters)),
        Err(_) => Err(reply::BAD_SYNTAX),
    }
}

/// `esmtp-param = esmtp-keyword ["=" esmtp-value]`,
/// `esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")`,
/// `esmtp-value = 1*(%d33-60 / %d62-126)`
fn parameter(input: &[u8]) -> Parsed<'_, (&[u8], Option<&[u8]>)> {
    let keyword = || {
        verify(
            take_while1(|b: u8| b.is_ascii_alphanumeric() || b == b'-'),
            |word: &[u8]| !word.starts_with(b"-"),
        )
    };
    let value = take_while1(|b: u8| b.is_ascii_graphic() && b != b'=');
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
    let size = size_value(number)?;
    match marker.trim_ascii_start() {
        b"" => Ok(Chunk { size, last: false }),
        marker if marker.eq_ignore_ascii_case(b"LAST") => Ok(Chunk { size, last: true }),
        _ => Err(reply::BAD_SYNTAX),
    }
}

/// `body-value = "7BIT" / "8BITMIME"`, RFC 6152 2
fn body_value(value: &str) -> Result<Body, Reply> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBitMime),
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
        })
    }

    fn rcpt_to(to: Path) -> Command {
        Command::Rcpt(Rcpt {
            to,
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
            ("MAIL FROM:<>", mail_from(None)),
            ("MAIL FROM:<root>", mail_from(Some(local("root")))),
            ("RCPT TO:<Jones@foo.com>", rcpt_to(full("Jones@foo.com"))),
            (
                "RCPT TO:<@hosta.int,@jkl.org:userc@d.bar.org>",
                rcpt_to(full("userc@d.bar.org")),
            ),
            ("RCPT TO:<Postmaster>", rcpt_to(local("Postmaster"))),
            ("RCPT TO:<\"a b\"@x.org>", rcpt_to(full("\"a b\"@x.org"))),
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
            }))
        );
        assert_eq!(
            parse(b"RCPT TO:<a@b> NOTIFY=SUCCESS,delay ORCPT=rfc822;A+40b@c"),
            Ok(Command::Rcpt(Rcpt {
                to: full("a@b"),
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
            ("MAIL FROM:<a@b> BODY=BINARYMIME", &reply::BAD_SYNTAX),
            ("MAIL FROM:<a@b> =", &reply::BAD_SYNTAX),
            ("MAIL FROM:<a@b> FOO=1", &reply::UNKNOWN_PARAMETER),
            ("MAIL FROM:<a@b> SMTPUTF8", &reply::UNKNOWN_PARAMETER),
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
