//! A file of patterns and what is done with what they match, in the form of Postfix's header_checks(5):
//!
//! ```text
//! /^Subject: .*make money/   REJECT no thanks
//! if /^Received:/
//! !/^Received: from mail\.example /i  PREPEND X-From-Afar: yes
//! endif
//! ```
//!
//! Patterns are those of the crate `regex`: their time is linear in the text, whatever they say, so that
//! no message can make one hang. They look at octets, and letters count the same in both cases unless the
//! flag `i` is given, as in Postfix.

use std::path::Path;

use base::escape::escape;
use base::{Address, Fail, Filter, Status};
use regex::bytes::{Captures, Regex, RegexBuilder};

/// More rules are a mistake, or a work for another program.
const MAX_RULES: usize = 2000;
/// `if` in `if`.
const MAX_DEPTH: usize = 20;
/// Octets of one compiled pattern.
const MAX_PATTERN: usize = 1 << 20;
/// Octets of what an action says, expanded.
const MAX_TEXT: usize = 2000;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// Nothing, and no later rule is asked.
    Dunno,
    Reject,
    Discard,
    Hold,
    Redirect,
    Filter,
    Bcc,
    Prepend,
    Replace,
    Ignore,
    Warn,
    Info,
}

impl Verb {
    const ALL: [(&'static str, Self); 12] = [
        ("DUNNO", Self::Dunno),
        ("REJECT", Self::Reject),
        ("DISCARD", Self::Discard),
        ("HOLD", Self::Hold),
        ("REDIRECT", Self::Redirect),
        ("FILTER", Self::Filter),
        ("BCC", Self::Bcc),
        ("PREPEND", Self::Prepend),
        ("REPLACE", Self::Replace),
        ("IGNORE", Self::Ignore),
        ("WARN", Self::Warn),
        ("INFO", Self::Info),
    ];

    /// As the log has it; nothing where the log says nothing.
    pub(super) fn logged(self) -> Option<&'static str> {
        Some(match self {
            Self::Dunno | Self::Ignore => return None,
            Self::Reject => "reject",
            Self::Discard => "discard",
            Self::Hold => "hold",
            Self::Redirect => "redirect",
            Self::Filter => "filter",
            Self::Bcc => "bcc",
            Self::Prepend => "prepend",
            Self::Replace => "replace",
            Self::Warn => "warning",
            Self::Info => "info",
        })
    }

    fn needs_text(self) -> bool {
        matches!(
            self,
            Self::Redirect | Self::Filter | Self::Bcc | Self::Prepend | Self::Replace
        )
    }
}

/// A file, read.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    line: usize,
    pattern: Regex,
    /// It counts where the pattern does not match.
    negated: bool,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Do(Verb, String),
    /// Otherwise go on at this rule.
    If(usize),
}

/// The first rule that matches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where in the file.
    pub(super) line: usize,
    pub(super) verb: Verb,
    /// What the action says, expanded.
    pub(super) text: Vec<u8>,
}

impl Checks {
    /// From text; `path` is for the messages.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Fail> {
        let mut checks = Self::default();
        // The rules that are an open `if`, with their lines.
        let mut open = Vec::new();
        for (number, line) in logical_lines(text) {
            checks
                .add(number, &line, &mut open)
                .map_err(|what| Fail::config(format!("{}:{number}: {what}", path.display())))?;
        }
        match open.pop().and_then(|at| checks.rules.get(at)) {
            None => Ok(checks),
            Some(Rule { line, .. }) => Err(Fail::config(format!(
                "{}:{line}: this `if' has no `endif'",
                path.display()
            ))),
        }
    }

    /// The same for header fields, of which only others can be made.
    pub(crate) fn of_header(path: &Path, text: &str) -> Result<Self, Fail> {
        let checks = Self::parse(path, text)?;
        let bad = checks.rules.iter().find_map(|rule| match &rule.then {
            Then::Do(Verb::Prepend | Verb::Replace, said) if !is_field(said) => {
                Some((rule.line, said))
            }
            _ => None,
        });
        match bad {
            None => Ok(checks),
            Some((line, said)) => Err(Fail::config(format!(
                "{}:{line}: `{said}' is no header field, write Name: text",
                path.display()
            ))),
        }
    }

    fn add(&mut self, line: usize, text: &str, open: &mut Vec<usize>) -> Result<(), String> {
        if text.eq_ignore_ascii_case("endif") {
            let at = open.pop().ok_or("`endif' without `if'")?;
            let end = self.rules.len();
            if let Some(rule) = self.rules.get_mut(at) {
                rule.then = Then::If(end);
            }
            return Ok(());
        }
        if self.rules.len() >= MAX_RULES {
            return Err(format!("more than {MAX_RULES} rules"));
        }
        let (is_if, rest) = match text.split_at_checked(2) {
            Some((word, rest))
                if word.eq_ignore_ascii_case("if") && rest.starts_with([' ', '\t']) =>
            {
                (true, rest.trim_start())
            }
            _ => (false, text),
        };
        let (negated, rest) = match rest.strip_prefix('!') {
            Some(rest) => (true, rest.trim_start()),
            None => (false, rest),
        };
        let (pattern, rest) = parse_pattern(rest)?;
        let then = match (is_if, rest.is_empty()) {
            (true, true) if open.len() >= MAX_DEPTH => {
                return Err(format!("more than {MAX_DEPTH} `if' in each other"));
            }
            (true, true) => {
                open.push(self.rules.len());
                Then::If(usize::MAX)
            }
            (true, false) => {
                return Err(format!("`{rest}' behind `if', write it into a line below"));
            }
            (false, _) => parse_action(
                rest,
                if negated {
                    0
                } else {
                    pattern.captures_len() - 1
                },
            )?,
        };
        self.rules.push(Rule {
            line,
            pattern,
            negated,
            then,
        });
        Ok(())
    }

    pub(super) fn ask(&self, text: &[u8]) -> Option<Found> {
        let mut at = 0;
        while let Some(rule) = self.rules.get(at) {
            let matches = rule.pattern.is_match(text) != rule.negated;
            at = match &rule.then {
                Then::If(end) if !matches => *end,
                Then::Do(verb, said) if matches => {
                    let captures = match said.contains('$') && !rule.negated {
                        true => rule.pattern.captures(text),
                        false => None,
                    };
                    return Some(Found {
                        line: rule.line,
                        verb: *verb,
                        text: expand(said, captures.as_ref()),
                    });
                }
                _ => at.saturating_add(1),
            };
        }
        None
    }
}

/// RFC 5322 2.2, as far as it is known before something is put into it.
fn is_field(text: &str) -> bool {
    let name = text.split([':', '$']).next().unwrap_or_default();
    let graphic = name.bytes().all(|b| b.is_ascii_graphic());
    graphic && name.len() < text.len() && (!name.is_empty() || text.starts_with('$'))
}

/// A line that begins with white space continues the one before.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = line.trim();
        if words.is_empty() || words.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some((_, before)) if line.starts_with([' ', '\t']) => {
                before.push(' ');
                before.push_str(words);
            }
            _ => lines.push((number + 1, words.to_owned())),
        }
    }
    lines
}

/// `/pattern/flags`, and what follows. Any character that is no letter, digit or blank may stand for
/// the slash.
fn parse_pattern(text: &str) -> Result<(Regex, &str), String> {
    let bad = || format!("`{text}' is no rule, write /pattern/ ACTION");
    let mut chars = text.char_indices();
    let (_, fence) = chars.next().ok_or_else(bad)?;
    if fence.is_alphanumeric() || matches!(fence, '\\' | '!') {
        return Err(bad());
    }
    let mut escaped = false;
    let end = chars.find(|(_, c)| {
        let ends = *c == fence && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    let (end, _) = end.ok_or_else(bad)?;
    let pattern = text.get(fence.len_utf8()..end).ok_or_else(bad)?;
    let rest = text.get(end + fence.len_utf8()..).unwrap_or_default();
    let (flags, rest) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    let mut builder = RegexBuilder::new(pattern);
    builder
        .unicode(false)
        .case_insensitive(!flags.contains('i'))
        .multi_line(flags.contains('m'))
        .dot_matches_new_line(!flags.contains('s'))
        .ignore_whitespace(flags.contains('x'))
        .size_limit(MAX_PATTERN)
        .dfa_size_limit(MAX_PATTERN);
    if let Some(flag) = flags.chars().find(|flag| !"imsx".contains(*flag)) {
        return Err(format!("`{flag}' is no flag, write i, m, s or x"));
    }
    let regex = builder.build().map_err(|e| {
        // The library draws the place on lines of their own; the last one says what it is.
        let text = e.to_string();
        let why = text.lines().last().unwrap_or_default();
        format!("/{pattern}/: {}", why.trim_start_matches("error: "))
    })?;
    Ok((regex, rest.trim_start()))
}

/// `groups`: so many parts of the pattern can be named.
fn parse_action(text: &str, groups: usize) -> Result<Then, String> {
    let (word, said) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    let said = said.trim_start();
    let known = Verb::ALL
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word));
    let Some((name, verb)) = known else {
        let names: Vec<_> = Verb::ALL.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "`{word}' is no action, write one of {}",
            names.join(", ")
        ));
    };
    if said.is_empty() && verb.needs_text() {
        return Err(format!("{name} needs a text behind it"));
    }
    if said.len() > MAX_TEXT || said.chars().any(char::is_control) {
        return Err(format!(
            "{name}: a text that is too long, or has control characters"
        ));
    }
    let mut most = 0;
    for part in parts(said) {
        if let Part::Group(number) = part {
            most = most.max(number.ok_or("`$' needs a number behind it, or write `$$'")?);
        }
    }
    if most > groups {
        return Err(format!(
            "`${most}', but the pattern has {groups} parts in parentheses"
        ));
    }
    if matches!(verb, Verb::Redirect | Verb::Bcc) && !said.contains('$') {
        Address::parse(said).map_err(|e| format!("{name} `{said}': {e}"))?;
    }
    // What comes from a message must not choose a host.
    if *verb == Verb::Filter {
        Filter::parse(said).map_err(|what| format!("{name} `{said}' {what}"))?;
    }
    Ok(Then::Do(*verb, said.to_owned()))
}

/// Pieces of a text with `$1`, `${1}`, `$(1)` and `$$` in it.
enum Part<'a> {
    Text(&'a str),
    /// `None` where it is no number.
    Group(Option<usize>),
}

fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(after) = rest.strip_prefix('$') else {
            let end = rest.find('$').unwrap_or(rest.len());
            let (text, later) = rest.split_at_checked(end)?;
            rest = later;
            return Some(Part::Text(text));
        };
        if let Some(later) = after.strip_prefix('$') {
            rest = later;
            return Some(Part::Text("$"));
        }
        let fenced = [('{', '}'), ('(', ')')]
            .into_iter()
            .find_map(|(open, close)| after.strip_prefix(open)?.split_once(close));
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (number, later) = fenced.or_else(|| after.split_at_checked(digits))?;
        rest = later;
        Some(Part::Group(number.parse().ok()))
    })
}

fn expand(said: &str, captures: Option<&Captures<'_>>) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts(said) {
        match part {
            Part::Text(text) => out.extend_from_slice(text.as_bytes()),
            Part::Group(number) => {
                let found = number
                    .zip(captures)
                    .and_then(|(n, captures)| captures.get(n));
                // What comes from the message must stay within a line.
                let bytes = found.map_or(&b""[..], |found| found.as_bytes());
                out.extend(bytes.iter().copied().filter(|b| *b == b'\t' || *b >= b' '));
            }
        }
    }
    out.truncate(MAX_TEXT);
    out
}

/// `[x.y.z] text`, of REJECT.
pub(super) fn status_and_text(said: &[u8]) -> (Status, String) {
    let text = escape(said).to_string();
    let (first, rest) = text.split_once(' ').unwrap_or((&text, ""));
    match Status::parse(first) {
        Some(status) if matches!(status.class(), 4 | 5) => (status, rest.trim_start().to_owned()),
        _ => (Status::new(5, 7, 1), text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Checks, Fail> {
        Checks::parse(Path::new("checks"), text)
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let text = "# what\n/^Subject: .*money/     REJECT 5.7.1 no\n  thanks\n";
        let checks = parse(text).unwrap();
        let found = checks.ask(b"SUBJECT: easy Money").unwrap();
        assert_eq!((found.line, found.verb), (2, Verb::Reject));
        assert_eq!(found.text, b"5.7.1 no thanks");

        let checks = parse(
            "/^A: (\\w+) (.*)/ PREPEND X-$2: ${1} $(1) $$5\n\
             /^B: case/i WARN\n\
             !/^[A-Z]: / DISCARD\n\
             if /^C:/\n\
             if !/deep/\n\
             |a/b\\|c| HOLD\n\
             endif\n\
             /deep/ BCC x@example.org\n\
             endif\n\
             /^C/ INFO c\n\
             /^D: \\xff+$/ IGNORE\n",
        )
        .unwrap();
        for (text, want) in [
            (
                &b"A: one two\x07three"[..],
                Some((1, Verb::Prepend, "X-twothree: one one $5")),
            ),
            (b"B: case", Some((2, Verb::Warn, ""))),
            (b"b: CASE", None),
            (b"no field", Some((3, Verb::Discard, ""))),
            (b"C: a/b|c", Some((6, Verb::Hold, ""))),
            (b"C: deep a/b|c", Some((8, Verb::Bcc, "x@example.org"))),
            (b"C: else", Some((10, Verb::Info, "c"))),
            (b"E: a/b|c", None),
            (b"D: \xff\xff", Some((11, Verb::Ignore, ""))),
        ] {
            let want = want.map(|(line, verb, text): (usize, Verb, &str)| Found {
                line,
                verb,
                text: text.into(),
            });
            assert_eq!(checks.ask(text), want, "{}", escape(text));
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_mend() {
        for (line, want) in [
            ("subject REJECT", "write /pattern/ ACTION"),
            ("/open REJECT", "write /pattern/ ACTION"),
            ("/a(/ REJECT", "/a(/: unclosed group"),
            ("/(?!a)b/ REJECT", "look-around"),
            ("/(a{1000}){1000}/ REJECT", "size limit"),
            ("/a/q REJECT", "`q' is no flag"),
            ("/a/ DELETE", "`DELETE' is no action"),
            ("/a/", "`' is no action"),
            ("/a/ REPLACE", "REPLACE needs a text"),
            ("/a/ REDIRECT nobody", "REDIRECT `nobody'"),
            (
                "/(a)/ FILTER smtp:[$1]:25",
                "FILTER `smtp:[$1]:25' is no content filter",
            ),
            ("/a/ FILTER", "FILTER needs a text"),
            ("/(a)/ WARN $2", "`$2', but the pattern has 1"),
            ("!/(a)/ WARN $1", "`$1', but the pattern has 0"),
            ("/a/ WARN $x", "`$' needs a number"),
            ("endif", "`endif' without `if'"),
            ("if /a/", "this `if' has no `endif'"),
            ("if /a/ WARN", "`WARN' behind `if'"),
        ] {
            let fail = parse(&format!("/ok/ DUNNO\n{line}\n"))
                .unwrap_err()
                .to_string();
            assert!(
                fail.contains(want) && fail.contains("checks:2: "),
                "{line}: {fail}"
            );
        }
    }

    #[test]
    fn of_a_field_only_a_field_can_be_made() {
        for (text, good) in [
            ("/(a): b/ PREPEND X-A: $1", true),
            ("/(a): b/ REPLACE $1: c", true),
            ("/(a): b/ REPLACE X-$1: c", true),
            ("/a/ WARN no field", true),
            ("/a/ PREPEND no field: x", false),
            ("/a/ REPLACE nothing", false),
            ("/a/ REPLACE : x", false),
        ] {
            let checks = Checks::of_header(Path::new("checks"), text);
            assert_eq!(checks.is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_refusal_may_have_its_status() {
        for (said, status, text) in [
            ("go away", Status::new(5, 7, 1), "go away"),
            ("4.7.0 later", Status::new(4, 7, 0), "later"),
            ("2.0.0 fine", Status::new(5, 7, 1), "2.0.0 fine"),
            ("", Status::new(5, 7, 1), ""),
        ] {
            assert_eq!(status_and_text(said.as_bytes()), (status, text.to_owned()));
        }
    }
}
