//! The commands of RFC 1939 9, with those of RFC 2449 (CAPA), RFC 2595 (STLS) and RFC 5034 (AUTH).
//!
//! A keyword of three or four letters in any case, arguments divided by one space. The octets of a
//! line are at most 255 (RFC 2449 4), but a response of AUTH may be longer.

use nom::bytes::complete::take_while1;
use nom::character::complete::{char, digit1, space0};
use nom::combinator::{all_consuming, map, map_opt, opt, rest, verify};
use nom::sequence::{preceded, separated_pair, terminated};
use nom::{IResult, Parser};

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    User(String),
    /// All that follows the one space: a password may have spaces in it.
    Pass(Vec<u8>),
    Apop {
        name: String,
        digest: String,
    },
    /// Without a mechanism it asks for the list.
    Auth(Option<(String, Option<String>)>),
    Capa,
    Stls,
    Stat,
    List(Option<u32>),
    Retr(u32),
    Dele(u32),
    Noop,
    Rset,
    Top {
        number: u32,
        lines: u64,
    },
    Uidl(Option<u32>),
    Quit,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    Unknown,
    /// What would be right.
    Arguments(&'static str),
}

/// Reads a line without its CRLF.
pub(crate) fn parse(line: &[u8]) -> Result<Command, Bad> {
    let Ok((arguments, keyword)) = keyword(line) else {
        return Err(Bad::Unknown);
    };
    let right = |usage| move |_| Bad::Arguments(usage);
    match keyword.to_ascii_uppercase().as_slice() {
        b"USER" => one(map(word, Command::User), arguments).map_err(right("USER name")),
        b"PASS" => one(map(rest, |p: &[u8]| Command::Pass(p.into())), arguments)
            .map_err(right("PASS password")),
        b"APOP" => {
            let pair = separated_pair(word, char(' '), word);
            one(
                map(pair, |(name, digest)| Command::Apop { name, digest }),
                arguments,
            )
            .map_err(right("APOP name digest"))
        }
        b"AUTH" => auth(arguments).map_err(right("AUTH mechanism [initial-response]")),
        b"CAPA" => none(&Command::Capa, arguments).map_err(right("CAPA")),
        b"STLS" => none(&Command::Stls, arguments).map_err(right("STLS")),
        b"STAT" => none(&Command::Stat, arguments).map_err(right("STAT")),
        b"NOOP" => none(&Command::Noop, arguments).map_err(right("NOOP")),
        b"RSET" => none(&Command::Rset, arguments).map_err(right("RSET")),
        b"QUIT" => none(&Command::Quit, arguments).map_err(right("QUIT")),
        b"LIST" => maybe(Command::List, arguments).map_err(right("LIST [message]")),
        b"UIDL" => maybe(Command::Uidl, arguments).map_err(right("UIDL [message]")),
        b"RETR" => one(map(number, Command::Retr), arguments).map_err(right("RETR message")),
        b"DELE" => one(map(number, Command::Dele), arguments).map_err(right("DELE message")),
        b"TOP" => {
            let pair = separated_pair(number, char(' '), number);
            let top = map(pair, |(number, lines)| Command::Top {
                number,
                lines: lines.into(),
            });
            one(top, arguments).map_err(right("TOP message lines"))
        }
        _ => Err(Bad::Unknown),
    }
}

type Fault = nom::Err<nom::error::Error<()>>;

fn keyword(line: &[u8]) -> IResult<&[u8], &[u8]> {
    verify(
        take_while1(|b: u8| b.is_ascii_alphabetic()),
        |k: &[u8]| k.len() <= 4,
    )
    .parse(line)
}

/// `SP` and the argument, to the end of the line.
fn one<'a>(
    argument: impl Parser<&'a [u8], Output = Command, Error = nom::error::Error<&'a [u8]>>,
    line: &'a [u8],
) -> Result<Command, Fault> {
    finish(all_consuming(terminated(preceded(char(' '), argument), space0)).parse(line))
}

fn none(command: &Command, line: &[u8]) -> Result<Command, Fault> {
    finish(all_consuming(map(space0, |_| command.clone())).parse(line))
}

fn maybe(command: impl Fn(Option<u32>) -> Command, line: &[u8]) -> Result<Command, Fault> {
    let argument = terminated(opt(preceded(char(' '), number)), space0);
    finish(all_consuming(map(argument, command)).parse(line))
}

fn auth(line: &[u8]) -> Result<Command, Fault> {
    let arguments = opt((preceded(char(' '), word), opt(preceded(char(' '), word))));
    finish(all_consuming(map(terminated(arguments, space0), Command::Auth)).parse(line))
}

fn finish(parsed: IResult<&[u8], Command>) -> Result<Command, Fault> {
    let error = |kind| nom::Err::Error(nom::error::Error::new((), kind));
    match parsed {
        Ok((_, command)) => Ok(command),
        Err(nom::Err::Error(e) | nom::Err::Failure(e)) => Err(error(e.code)),
        Err(nom::Err::Incomplete(_)) => Err(error(nom::error::ErrorKind::Complete)),
    }
}

/// Printable characters without a space; UTF-8 is let through, names are checked elsewhere.
fn word(input: &[u8]) -> IResult<&[u8], String> {
    map_opt(take_while1(|b: u8| b > 0x20 && b != 0x7f), |w: &[u8]| {
        String::from_utf8(w.into()).ok()
    })
    .parse(input)
}

/// A number of at most ten digits that fits into 32 bits.
fn number(input: &[u8]) -> IResult<&[u8], u32> {
    let digits = verify(digit1, |d: &[u8]| d.len() <= 10);
    map_opt(digits, |d: &[u8]| std::str::from_utf8(d).ok()?.parse().ok()).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_rfc_1939() {
        let table: [(&[u8], Command); 17] = [
            (b"USER mrose", Command::User("mrose".into())),
            (b"pass a b ", Command::Pass(b"a b ".to_vec())),
            (
                b"APOP mrose c4c9334bac560ecc979e58001b3e22fb",
                Command::Apop {
                    name: "mrose".into(),
                    digest: "c4c9334bac560ecc979e58001b3e22fb".into(),
                },
            ),
            (b"AUTH", Command::Auth(None)),
            (b"AUTH PLAIN", Command::Auth(Some(("PLAIN".into(), None)))),
            (
                b"AUTH PLAIN =",
                Command::Auth(Some(("PLAIN".into(), Some("=".into())))),
            ),
            (b"CAPA", Command::Capa),
            (b"STLS", Command::Stls),
            (b"Stat ", Command::Stat),
            (b"LIST", Command::List(None)),
            (b"LIST 2", Command::List(Some(2))),
            (b"RETR 4294967295", Command::Retr(u32::MAX)),
            (b"DELE 1", Command::Dele(1)),
            (
                b"TOP 1 0",
                Command::Top {
                    number: 1,
                    lines: 0,
                },
            ),
            (b"UIDL 1", Command::Uidl(Some(1))),
            (b"quit", Command::Quit),
            (b"RSET", Command::Rset),
        ];
        for (line, want) in table {
            assert_eq!(parse(line), Ok(want), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn what_is_none_says_what_would_be_right() {
        let table: [(&[u8], Bad); 12] = [
            (b"", Bad::Unknown),
            (b"XYZZY", Bad::Unknown),
            (b"GET / HTTP/1.1", Bad::Unknown),
            (b"\xff", Bad::Unknown),
            (b"USER", Bad::Arguments("USER name")),
            (b"USER a b", Bad::Arguments("USER name")),
            (b"USER \xff", Bad::Arguments("USER name")),
            (b"RETR", Bad::Arguments("RETR message")),
            (b"RETR x", Bad::Arguments("RETR message")),
            (b"RETR -1", Bad::Arguments("RETR message")),
            (b"DELE 4294967296", Bad::Arguments("DELE message")),
            (b"TOP 1", Bad::Arguments("TOP message lines")),
        ];
        for (line, want) in table {
            assert_eq!(parse(line), Err(want), "{}", String::from_utf8_lossy(line));
        }
    }
}
