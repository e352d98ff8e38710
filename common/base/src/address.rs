//! Mail addresses as RFC 5321 4.1.2 and RFC 6531 3.3 write them, as types that cannot hold what is
//! illegal: no control character, no CR, LF or NUL, no empty local-part, no label over 63 octets.
//!
//! The grammar is on nom. What an address *means* (is it ours, where does it go) is `rules`' work.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while1};
use nom::character::complete::char;
use nom::combinator::{map, map_opt, recognize, verify};
use nom::multi::{many0_count, separated_list1};
use nom::sequence::{delimited, preceded, separated_pair, terminated};
use nom::{IResult, Parser};

use crate::international;

/// RFC 5321 4.5.3.1.1: octets in a local-part.
pub const MAX_LOCAL_PART: usize = 64;
/// RFC 5321 4.5.3.1.2: octets in a domain.
pub const MAX_DOMAIN: usize = 255;
/// RFC 5321 4.5.3.1.3: octets in a path, with its angle brackets.
pub const MAX_PATH: usize = 256;

/// Why something is not an address. The texts are for the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadAddress {
    Syntax,
    NoDomain,
    LocalPartTooLong,
    DomainTooLong,
    NotUtf8,
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "not a mail address, write local-part@domain",
            Self::NoDomain => "domain missing, write local-part@domain",
            Self::LocalPartTooLong => "local-part longer than 64 octets",
            Self::DomainTooLong => "domain longer than 255 octets",
            Self::NotUtf8 => "characters beyond ASCII that are not UTF-8",
        })
    }
}

impl std::error::Error for BadAddress {}

/// What stands before the `@`, without quoting: `"john doe"` is held as `john doe`.
/// Visible characters and space in UTF-8, 1 to 64 octets. Case and normal form are kept; see
/// [`LocalPart::fold`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPart(String);

impl LocalPart {
    /// From the meaning, not the spelling: `john doe` without quotes.
    pub fn new(text: &str) -> Result<Self, BadAddress> {
        if text.is_empty() {
            Err(BadAddress::Syntax)
        } else if text.len() > MAX_LOCAL_PART {
            Err(BadAddress::LocalPartTooLong)
        } else if text.chars().all(international::is_visible) {
            Ok(Self(text.into()))
        } else {
            Err(BadAddress::Syntax)
        }
    }

    /// Without quoting.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In lower case and normal form C, as user names and aliases are looked up.
    pub fn fold(&self) -> String {
        international::fold(&self.0)
    }

    /// Whether it can go to a server without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }

    /// `user+detail` into `user` and `detail`; no detail where the separator is first or absent.
    pub fn split_detail(&self, separator: char) -> (Self, Option<&str>) {
        match self.0.split_once(separator) {
            Some((user, detail)) if !user.is_empty() => (Self(user.into()), Some(detail)),
            _ => (self.clone(), None),
        }
    }
}

/// As it stands in a path: quoted where it has to be (RFC 5321 4.1.2 Quoted-string).
impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if dot_string(self.0.as_bytes()).is_ok_and(|(rest, _)| rest.is_empty()) {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

/// What stands behind the `@`: a host name in lower case, or an address literal. It is ASCII: a
/// name that was written with other characters is held as A-labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// A host name or an address literal in brackets. A single trailing dot is dropped, as people
    /// write absolute names with it.
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        let text = match text.strip_suffix('.') {
            Some(name) if !name.is_empty() => name,
            _ => text,
        };
        if text.len() > MAX_DOMAIN {
            return Err(BadAddress::DomainTooLong);
        }
        match domain(text.as_bytes()) {
            Ok(([], domain)) if domain.0.len() > MAX_DOMAIN => Err(BadAddress::DomainTooLong),
            Ok(([], domain)) => Ok(domain),
            _ => Err(BadAddress::Syntax),
        }
    }

    /// In lower case; a literal with its brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address of an address literal, `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    pub fn ip(&self) -> Option<IpAddr> {
        let inner = self.0.strip_prefix('[')?.strip_suffix(']')?;
        match inner.strip_prefix("ipv6:") {
            Some(v6) => v6.parse().ok().map(IpAddr::V6),
            None => inner.parse().ok().map(IpAddr::V4),
        }
    }

    /// Whether this is `other` or below it: `mx.example.org` is within `example.org`.
    pub fn is_within(&self, other: &Self) -> bool {
        match self.0.strip_suffix(other.as_str()) {
            Some("") => true,
            Some(head) => head.ends_with('.'),
            None => false,
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_prefix("[ipv6:") {
            Some(rest) => write!(f, "[IPv6:{rest}"),
            None => f.write_str(&self.0),
        }
    }
}

impl From<IpAddr> for Domain {
    /// The address literal.
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self(format!("[{v4}]")),
            IpAddr::V6(v6) => Self(format!("[ipv6:{v6}]")),
        }
    }
}

impl FromStr for Domain {
    type Err = BadAddress;
    fn from_str(s: &str) -> Result<Self, BadAddress> {
        Self::parse(s)
    }
}

/// RFC 5321 Mailbox: `local-part@domain`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: LocalPart,
    domain: Domain,
}

impl Address {
    pub fn new(local: LocalPart, domain: Domain) -> Self {
        Self { local, domain }
    }

    /// A bare `local-part@domain`, with nothing around it.
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        Self::parse_or_local(text, None)
    }

    /// Like [`Address::parse`]; a local-part alone gets `default`'s domain.
    pub fn parse_in(text: &str, default: &Domain) -> Result<Self, BadAddress> {
        Self::parse_or_local(text, Some(default))
    }

    fn parse_or_local(text: &str, default: Option<&Domain>) -> Result<Self, BadAddress> {
        let (rest, local) = local_part(text.as_bytes()).map_err(|_| BadAddress::Syntax)?;
        if local.as_str().len() > MAX_LOCAL_PART {
            return Err(BadAddress::LocalPartTooLong);
        }
        match rest {
            [] => default.map_or(Err(BadAddress::NoDomain), |d| {
                Ok(Self::new(local, d.clone()))
            }),
            [b'@', domain @ ..] => {
                let domain = std::str::from_utf8(domain).map_err(|_| BadAddress::NotUtf8)?;
                Ok(Self::new(local, Domain::parse(domain)?))
            }
            _ => Err(BadAddress::Syntax),
        }
    }

    pub fn local(&self) -> &LocalPart {
        &self.local
    }

    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether it can go to a server without SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

impl FromStr for Address {
    type Err = BadAddress;
    fn from_str(s: &str) -> Result<Self, BadAddress> {
        Self::parse(s)
    }
}

/// The return address of the envelope: RFC 5321 4.1.2 Reverse-path. Null for bounces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    Null,
    Address(Address),
}

impl ReversePath {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }

    /// Whether it can go to a server without SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.address().is_none_or(Address::is_ascii)
    }
}

/// Without angle brackets; the null path is empty, as in `from=<>`.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Address(address) => address.fmt(f),
        }
    }
}

// The grammar of RFC 5321 4.1.2 and 4.1.3, on bytes, so that a command line need not be UTF-8.

/// `Path = "<" [ A-d-l ":" ] Mailbox ">"`. The source route is read and forgotten (RFC 5321 3.6.1,
/// appendix C). A local-part alone is no path; see [`bare_local`].
pub fn path(input: &[u8]) -> IResult<&[u8], Address> {
    delimited(char('<'), preceded(source_route, mailbox), char('>')).parse(input)
}

/// `"<" Local-part ">"`, for `RCPT TO:<postmaster>` (RFC 5321 4.1.1.3).
pub fn bare_local(input: &[u8]) -> IResult<&[u8], LocalPart> {
    delimited(char('<'), local_part, char('>')).parse(input)
}

/// `Reverse-path = Path / "<>"`
pub fn reverse_path(input: &[u8]) -> IResult<&[u8], ReversePath> {
    alt((
        map(tag("<>"), |_: &[u8]| ReversePath::Null),
        map(path, ReversePath::Address),
    ))
    .parse(input)
}

/// `Mailbox = Local-part "@" ( Domain / address-literal )`
pub fn mailbox(input: &[u8]) -> IResult<&[u8], Address> {
    map(
        separated_pair(
            verify(local_part, |l: &LocalPart| {
                l.as_str().len() <= MAX_LOCAL_PART
            }),
            char('@'),
            verify(domain, |d: &Domain| d.as_str().len() <= MAX_DOMAIN),
        ),
        |(local, domain)| Address::new(local, domain),
    )
    .parse(input)
}

/// `A-d-l = At-domain *( "," At-domain )`, with its colon; or nothing.
fn source_route(input: &[u8]) -> IResult<&[u8], ()> {
    match terminated(
        separated_list1(char(','), preceded(char('@'), domain)),
        char(':'),
    )
    .parse(input)
    {
        Ok((rest, _)) => Ok((rest, ())),
        Err(nom::Err::Error(_)) => Ok((input, ())),
        Err(e) => Err(e),
    }
}

/// `Local-part = Dot-string / Quoted-string`
fn local_part(input: &[u8]) -> IResult<&[u8], LocalPart> {
    alt((
        map_opt(dot_string, |s: &[u8]| visible(s.to_vec())),
        quoted_string,
    ))
    .parse(input)
}

/// Text that a local-part may have.
fn visible(text: Vec<u8>) -> Option<LocalPart> {
    let text = String::from_utf8(text).ok()?;
    text.chars()
        .all(international::is_visible)
        .then_some(LocalPart(text))
}

/// `Dot-string = Atom *("." Atom)`
fn dot_string(input: &[u8]) -> IResult<&[u8], &[u8]> {
    recognize((atom, many0_count((char('.'), atom)))).parse(input)
}

fn atom(input: &[u8]) -> IResult<&[u8], &[u8]> {
    take_while1(is_atext).parse(input)
}

/// `atext =/ UTF8-non-ascii`, RFC 6531 3.3
fn is_atext(b: u8) -> bool {
    !b.is_ascii() || b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b)
}

/// `Quoted-string = DQUOTE *QcontentSMTP DQUOTE`, unquoted, with RFC 6531's `qtextSMTP =/
/// UTF8-non-ascii`. An empty one is refused: no mailbox
/// on Unix has an empty name.
fn quoted_string(input: &[u8]) -> IResult<&[u8], LocalPart> {
    let syntax = || nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::Char));
    let Some((b'"', mut rest)) = input.split_first().map(|(b, r)| (*b, r)) else {
        return Err(syntax());
    };
    let mut text = Vec::new();
    loop {
        rest = match rest {
            [b'"', after @ ..] if !text.is_empty() => {
                return match visible(text) {
                    Some(local) => Ok((after, local)),
                    None => Err(syntax()),
                };
            }
            [b'\\', b @ 0x20..=0x7e, after @ ..]
            | [
                b @ (0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e | 0x80..),
                after @ ..,
            ] => {
                text.push(*b);
                after
            }
            _ => return Err(syntax()),
        };
    }
}

/// `Domain / address-literal`
fn domain(input: &[u8]) -> IResult<&[u8], Domain> {
    alt((literal, international_name, host_name)).parse(input)
}

/// `sub-domain =/ U-label`, RFC 6531 3.3: a name with at least one such label.
fn international_name(input: &[u8]) -> IResult<&[u8], Domain> {
    let in_name = |b: u8| !b.is_ascii() || b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    map_opt(
        verify(take_while1(in_name), |name: &[u8]| !name.is_ascii()),
        |name: &[u8]| {
            let name = international::a_labels(std::str::from_utf8(name).ok()?)?;
            match host_name(name.as_bytes()) {
                Ok(([], domain)) => Some(domain),
                _ => None,
            }
        },
    )
    .parse(input)
}

/// `Domain = sub-domain *("." sub-domain)`, `sub-domain = Let-dig [Ldh-str]`. The underscore is
/// allowed inside labels, because hosts with it exist and DNS does not mind.
fn host_name(input: &[u8]) -> IResult<&[u8], Domain> {
    let label = verify(
        take_while1(|b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
        |l: &[u8]| l.len() <= 63 && !l.starts_with(b"-") && !l.ends_with(b"-"),
    );
    map_opt(
        recognize(separated_list1(char('.'), label)),
        |name: &[u8]| {
            std::str::from_utf8(name)
                .ok()
                .map(|n| Domain(n.to_ascii_lowercase()))
        },
    )
    .parse(input)
}

/// `"[" ( IPv4-address-literal / "IPv6:" IPv6-addr ) "]"`, RFC 5321 4.1.3
fn literal(input: &[u8]) -> IResult<&[u8], Domain> {
    map_opt(
        delimited(
            char('['),
            take_while1(|b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b':'),
            char(']'),
        ),
        |inner: &[u8]| {
            let inner = std::str::from_utf8(inner).ok()?;
            match inner.get(..5) {
                Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => inner
                    .get(5..)?
                    .parse::<Ipv6Addr>()
                    .ok()
                    .map(|ip| IpAddr::V6(ip).into()),
                _ => inner
                    .parse::<Ipv4Addr>()
                    .ok()
                    .map(|ip| IpAddr::V4(ip).into()),
            }
        },
    )
    .parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_in_and_out() {
        let table = [
            ("ann@example.org", "ann@example.org"),
            ("Ann.B+c@EXAMPLE.org.", "Ann.B+c@example.org"),
            ("\"john doe\"@example.org", "\"john doe\"@example.org"),
            ("\"ann\"@example.org", "ann@example.org"),
            ("\"a\\\"b\"@x", "\"a\\\"b\"@x"),
            ("a@[192.0.2.1]", "a@[192.0.2.1]"),
            ("a@[ipv6:2001:DB8::1]", "a@[IPv6:2001:db8::1]"),
            ("user%host@example.org", "user%host@example.org"),
        ];
        for (input, want) in table {
            assert_eq!(
                Address::parse(input).map(|a| a.to_string()),
                Ok(want.into()),
                "{input}"
            );
        }
    }

    #[test]
    fn addresses_beyond_ascii() {
        let table = [
            ("j\u{f6}rg@example.org", "j\u{f6}rg@example.org", false),
            ("Jo\u{308}rg@x", "Jo\u{308}rg@x", false),
            ("ann@B\u{fc}cher.example", "ann@xn--bcher-kva.example", true),
            (
                "ann@bu\u{308}cher.example",
                "ann@xn--bcher-kva.example",
                true,
            ),
            (
                "\u{7530}\u{4e2d}@\u{4f8b}\u{3048}\u{3002}jp",
                "\u{7530}\u{4e2d}@xn--r8jz45g.jp",
                false,
            ),
            ("\"\u{e4} \u{f6}\"@x", "\"\u{e4} \u{f6}\"@x", false),
        ];
        for (input, want, is_ascii) in table {
            let address = Address::parse(input).unwrap();
            assert_eq!(
                (address.to_string().as_str(), address.is_ascii()),
                (want, is_ascii)
            );
            assert_eq!(Address::parse(want), Ok(address), "{input}");
        }
        let (_, path) = path("<j\u{f6}rg@b\u{fc}cher.example>".as_bytes()).unwrap();
        assert_eq!(path.to_string(), "j\u{f6}rg@xn--bcher-kva.example");
        assert!(super::path(b"<j\xf6rg@example.org>").is_err());
        assert!(super::path(b"<ann@b\xfccher.example>").is_err());
        let long = format!("{}@x", "\u{f6}".repeat(33));
        assert_eq!(Address::parse(&long), Err(BadAddress::LocalPartTooLong));
        let long = format!("a@{}", "\u{f6}".repeat(60));
        assert_eq!(Address::parse(&long), Err(BadAddress::Syntax));
    }

    #[test]
    fn what_is_illegal_does_not_exist() {
        let long_local = format!("{}@x", "a".repeat(65));
        let long_label = format!("a@{}", "b".repeat(64));
        let long_domain = format!("a@{}b", "b.".repeat(130));
        for bad in [
            "",
            "@",
            "a@",
            "@b",
            "a b@c",
            "a@b c",
            "a\r\n@b",
            "a@b\n",
            "a\0@b",
            "a..b@c",
            ".a@b",
            "a.@b",
            "a@b..c",
            "a@-b",
            "a@[1.2.3]",
            "a@[::1]",
            "\"a@b",
            "\"\"@b",
            "\"a\r\"@b",
            "a@b@c",
            "<a@b>",
            "\u{fffd}@b",
            "a\u{a0}b@c",
            "\"a\u{202e}\"@b",
            "a@\u{e4}..b",
            "a@-\u{e4}",
            "a@b\u{ff20}\u{e4}",
            "a@[\u{e4}]",
            long_local.as_str(),
            long_label.as_str(),
            long_domain.as_str(),
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Address::parse("ann"), Err(BadAddress::NoDomain));
    }

    #[test]
    fn a_local_part_alone_gets_the_default_domain() {
        let here = Domain::parse("my.host").unwrap();
        assert_eq!(
            Address::parse_in("ann", &here).unwrap().to_string(),
            "ann@my.host"
        );
        assert_eq!(
            Address::parse_in("ann@b", &here).unwrap().to_string(),
            "ann@b"
        );
    }

    #[test]
    fn paths_drop_the_source_route() {
        let (rest, a) = path(b"<@relay.a,@relay.b:ann@x.org> SIZE=3").unwrap();
        assert_eq!(
            (rest, a.to_string().as_str()),
            (&b" SIZE=3"[..], "ann@x.org")
        );
        assert_eq!(reverse_path(b"<>").unwrap().1, ReversePath::Null);
        assert!(path(b"<ann>").is_err());
        assert_eq!(
            bare_local(b"<Postmaster>").unwrap().1.as_str(),
            "Postmaster"
        );
        assert!(path(b"<ann@x.org").is_err());
        assert!(path(b"<ann@x.org\r>").is_err());
    }

    #[test]
    fn domains_know_their_parents_and_their_ip() {
        let d = |s: &str| Domain::parse(s).unwrap();
        assert!(d("mx.example.org").is_within(&d("example.org")));
        assert!(d("example.org").is_within(&d("Example.Org")));
        assert!(!d("badexample.org").is_within(&d("example.org")));
        assert_eq!(d("[127.0.0.1]").ip(), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(d("[IPv6:::1]").ip(), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(d("example.org").ip(), None);
    }

    #[test]
    fn details_are_split_off() {
        let l = LocalPart::new("ann+list+x").unwrap();
        assert_eq!(
            l.split_detail('+'),
            (LocalPart::new("ann").unwrap(), Some("list+x"))
        );
        let l = LocalPart::new("+x").unwrap();
        assert_eq!(l.split_detail('+'), (l.clone(), None));
    }
}
