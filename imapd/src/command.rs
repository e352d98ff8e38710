//! Commands (RFC 3501 6) as types that cannot hold what the grammar forbids, and their parser.
//!
//! Extensions: IDLE (2177), NAMESPACE (2342), ID (2971), UNSELECT (3691), UIDPLUS (4315), SASL-IR
//! (4959), MOVE (6851), LITERAL+ (7888).

use std::fmt;

use nom::branch::alt;
use nom::bytes::complete::tag_no_case;
use nom::character::complete::char;
use nom::combinator::{map, opt, value};
use nom::multi::{separated_list0, separated_list1};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};
use store::request::Change;
use store::{FolderName, Ranges, Set};

use crate::grammar::{
    FlagList, Parsed, astring, atom, command_tag, date_time, fail, flag_list, flags, list_mailbox,
    mailbox, nstring, ranges, sp,
};
use crate::item::{Item, items};
use crate::key::{Key, program};

/// A mailbox's name; `None` when no mailbox can have what was sent.
pub(crate) type Mailbox = Option<FolderName>;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Capability,
    Noop,
    Logout,
    Id,
    StartTls,
    Authenticate {
        mechanism: String,
        initial: Option<Secret>,
    },
    Login {
        user: Vec<u8>,
        password: Secret,
    },
    Select {
        mailbox: Mailbox,
        read_only: bool,
    },
    Create(Mailbox),
    Delete(Mailbox),
    Rename {
        from: Mailbox,
        to: Mailbox,
    },
    Subscribe(Mailbox),
    Unsubscribe(Mailbox),
    List {
        reference: Vec<u8>,
        pattern: Vec<u8>,
        subscribed: bool,
    },
    Namespace,
    Status {
        mailbox: Mailbox,
        items: Vec<StatusItem>,
    },
    Check,
    Close,
    Unselect,
    Expunge,
    UidExpunge(Set),
    Idle,
    Search {
        uid: bool,
        charset: Option<Vec<u8>>,
        key: Key,
    },
    Fetch {
        uid: bool,
        set: Set,
        items: Vec<Item>,
    },
    Store {
        uid: bool,
        set: Set,
        change: Change,
        silent: bool,
        flags: FlagList,
    },
    Copy {
        set: Set,
        to: Mailbox,
    },
    Move {
        set: Set,
        to: Mailbox,
    },
}

/// What is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("*")
    }
}

/// `status-att`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusItem {
    Messages,
    Recent,
    UidNext,
    UidValidity,
    Unseen,
}

impl StatusItem {
    /// As IMAP writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Messages => "MESSAGES",
            Self::Recent => "RECENT",
            Self::UidNext => "UIDNEXT",
            Self::UidValidity => "UIDVALIDITY",
            Self::Unseen => "UNSEEN",
        }
    }
}

/// The tag of a command line, when it has one: what the answer to a bad command begins with.
pub(crate) fn tag_of(line: &[u8]) -> Option<String> {
    let (rest, tag) = command_tag(line).ok()?;
    (rest.is_empty() || rest.starts_with(b" ")).then(|| String::from_utf8_lossy(tag).into_owned())
}

/// A whole command without its last CRLF; `Err` says what is wrong with it.
pub(crate) fn parse(line: &[u8]) -> Result<Command, &'static str> {
    let Ok((rest, _)) = (command_tag, sp).parse(line) else {
        return Err("tag missing");
    };
    let Ok((arguments, verb)) = atom(rest) else {
        return Err("command missing");
    };
    match command(verb, arguments) {
        None => Err("no such command"),
        Some(Ok((b"", command))) => Ok(command),
        Some(Ok(_)) => Err("too much behind the command"),
        Some(Err(_)) => Err("arguments do not fit the command"),
    }
}

/// `None` for a verb we do not know. (APPEND is not here, see [`Append`].)
fn command<'a>(verb: &[u8], input: &'a [u8]) -> Option<Parsed<'a, Command>> {
    let alone = |command| Ok((input, command));
    let verb = verb.to_ascii_uppercase();
    Some(match verb.as_slice() {
        b"CAPABILITY" => alone(Command::Capability),
        b"NOOP" => alone(Command::Noop),
        b"LOGOUT" => alone(Command::Logout),
        b"STARTTLS" => alone(Command::StartTls),
        b"NAMESPACE" => alone(Command::Namespace),
        b"CHECK" => alone(Command::Check),
        b"CLOSE" => alone(Command::Close),
        b"UNSELECT" => alone(Command::Unselect),
        b"EXPUNGE" => alone(Command::Expunge),
        b"IDLE" => alone(Command::Idle),
        b"ID" => id(input),
        b"AUTHENTICATE" => authenticate(input),
        b"LOGIN" => login(input),
        b"SELECT" => name(input, |mailbox| Command::Select {
            mailbox,
            read_only: false,
        }),
        b"EXAMINE" => name(input, |mailbox| Command::Select {
            mailbox,
            read_only: true,
        }),
        b"CREATE" => create(input),
        b"DELETE" => name(input, Command::Delete),
        b"SUBSCRIBE" => name(input, Command::Subscribe),
        b"UNSUBSCRIBE" => name(input, Command::Unsubscribe),
        b"RENAME" => map((sp, mailbox, sp, mailbox), |(_, from, _, to)| {
            Command::Rename { from, to }
        })
        .parse(input),
        b"LIST" => list(input, false),
        b"LSUB" => list(input, true),
        b"STATUS" => status(input),
        b"UID" => uid(input),
        _ => return on_messages(&verb, input, false),
    })
}

/// The commands that take message numbers, or UIDs behind `UID`.
fn on_messages<'a>(verb: &[u8], input: &'a [u8], uid: bool) -> Option<Parsed<'a, Command>> {
    Some(match verb {
        b"SEARCH" => search(input, uid),
        b"FETCH" => {
            let make = |(_, set, _, items)| Command::Fetch {
                uid,
                set: numbers(set, uid),
                items,
            };
            map((sp, ranges, sp, items), make).parse(input)
        }
        b"STORE" => store(input, uid),
        b"COPY" => {
            let make = |(_, set, _, to)| Command::Copy {
                set: numbers(set, uid),
                to,
            };
            map((sp, ranges, sp, mailbox), make).parse(input)
        }
        b"MOVE" => {
            let make = |(_, set, _, to)| Command::Move {
                set: numbers(set, uid),
                to,
            };
            map((sp, ranges, sp, mailbox), make).parse(input)
        }
        _ => return None,
    })
}

fn numbers(ranges: Ranges, uid: bool) -> Set {
    if uid {
        Set::Uid(ranges)
    } else {
        Set::Seq(ranges)
    }
}

/// `uid = "UID" SP (copy / fetch / search / store)`, and `UID EXPUNGE`
fn uid(input: &[u8]) -> Parsed<'_, Command> {
    let (rest, (_, verb)) = (sp, atom).parse(input)?;
    let verb = verb.to_ascii_uppercase();
    if verb == b"EXPUNGE" {
        let make = |(_, set)| Command::UidExpunge(Set::Uid(set));
        return map((sp, ranges), make).parse(rest);
    }
    on_messages(&verb, rest, true).unwrap_or_else(|| fail(input))
}

fn name(input: &[u8], make: impl Fn(Mailbox) -> Command) -> Parsed<'_, Command> {
    map(preceded(sp, mailbox), make).parse(input)
}

/// CREATE takes a name that ends in the separator: the client means to make folders below it, which
/// needs nothing done (RFC 3501 6.3.3).
fn create(input: &[u8]) -> Parsed<'_, Command> {
    let (rest, mut name) = preceded(sp, astring).parse(input)?;
    if let [_, .., b'/'] = name.as_slice() {
        name.pop();
    }
    let text = crate::utf7::decode(&name);
    Ok((
        rest,
        Command::Create(text.and_then(|text| FolderName::parse(&text))),
    ))
}

/// `id = "ID" SP id_params_list` (RFC 2971 3.3): at most 30 pairs, none of which we need.
fn id(input: &[u8]) -> Parsed<'_, Command> {
    let pairs = delimited(char('('), separated_list0(sp, nstring), char(')'));
    let (rest, _) =
        preceded(sp, alt((value((), tag_no_case("NIL")), value((), pairs)))).parse(input)?;
    Ok((rest, Command::Id))
}

/// `authenticate = "AUTHENTICATE" SP auth-type [SP (base64 / "=")]` (RFC 4959)
fn authenticate(input: &[u8]) -> Parsed<'_, Command> {
    let (rest, (_, mechanism)) = (sp, atom).parse(input)?;
    let (rest, initial) = opt(preceded(sp, nom::combinator::rest)).parse(rest)?;
    let initial = initial.map(|text: &[u8]| Secret(text.to_vec()));
    let mechanism = String::from_utf8_lossy(mechanism).to_ascii_uppercase();
    Ok((rest, Command::Authenticate { mechanism, initial }))
}

fn login(input: &[u8]) -> Parsed<'_, Command> {
    let make = |(_, user, _, password)| Command::Login {
        user,
        password: Secret(password),
    };
    map((sp, astring, sp, astring), make).parse(input)
}

fn list(input: &[u8], subscribed: bool) -> Parsed<'_, Command> {
    let make = |(_, reference, _, pattern)| Command::List {
        reference,
        pattern,
        subscribed,
    };
    map((sp, astring, sp, list_mailbox), make).parse(input)
}

fn status(input: &[u8]) -> Parsed<'_, Command> {
    let item = alt((
        value(StatusItem::Messages, tag_no_case("MESSAGES")),
        value(StatusItem::Recent, tag_no_case("RECENT")),
        value(StatusItem::UidNext, tag_no_case("UIDNEXT")),
        value(StatusItem::UidValidity, tag_no_case("UIDVALIDITY")),
        value(StatusItem::Unseen, tag_no_case("UNSEEN")),
    ));
    let items = delimited(char('('), separated_list1(sp, item), char(')'));
    map((sp, mailbox, sp, items), |(_, mailbox, _, mut items)| {
        items.truncate(32);
        Command::Status { mailbox, items }
    })
    .parse(input)
}

/// `search = "SEARCH" [SP "CHARSET" SP astring] 1*(SP search-key)`
fn search(input: &[u8], uid: bool) -> Parsed<'_, Command> {
    let mut charset = opt(preceded((sp, tag_no_case("CHARSET"), sp), astring));
    let (rest, charset) = charset.parse(input)?;
    let (rest, key) = preceded(sp, program).parse(rest)?;
    Ok((rest, Command::Search { uid, charset, key }))
}

/// `store-att-flags = (["+" / "-"] "FLAGS" [".SILENT"]) SP (flag-list / (flag *(SP flag)))`
fn store(input: &[u8], uid: bool) -> Parsed<'_, Command> {
    let sign = map(opt(alt((char('+'), char('-')))), |sign| match sign {
        Some('+') => Change::Add,
        Some(_) => Change::Remove,
        None => Change::Replace,
    });
    let silent = map(opt(tag_no_case(".SILENT")), |s: Option<&[u8]>| s.is_some());
    let (rest, (_, set, _, change, _, silent, _, flags)) = (
        sp,
        ranges,
        sp,
        sign,
        tag_no_case("FLAGS"),
        silent,
        sp,
        alt((flag_list, flags)),
    )
        .parse(input)?;
    Ok((
        rest,
        Command::Store {
            uid,
            set: numbers(set, uid),
            change,
            silent,
            flags,
        },
    ))
}

/// `append = "APPEND" SP mailbox [SP flag-list] [SP date-time] SP literal`, up to the literal: the
/// message goes to the store in pieces and is never part of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Append {
    pub(crate) tag: String,
    pub(crate) mailbox: Mailbox,
    pub(crate) flags: FlagList,
    pub(crate) date: Option<i64>,
}

impl Append {
    /// Reads `line`, which ends where the literal's `{` stood; `None` when this literal is not the
    /// message of an APPEND.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let parsed: IResult<_, _> = (
            command_tag,
            sp,
            tag_no_case("APPEND"),
            sp,
            mailbox,
            opt(preceded(sp, flag_list)),
            opt(preceded(sp, date_time)),
            sp,
        )
            .parse(line);
        let (rest, (tag, _, _, _, mailbox, flags, date, ())) = parsed.ok()?;
        rest.is_empty().then(|| Self {
            tag: String::from_utf8_lossy(tag).into_owned(),
            mailbox,
            flags: flags.unwrap_or_default(),
            date,
        })
    }
}
