//! The text of an aliases file: `name: target, target` with continuation lines (aliases(5)).
//!
//! Guarantees: any bytes give targets or problems, never a panic; each problem has the number of
//! the line its entry begins on. A quote never reaches over the end of an entry.

use std::path::{Path, PathBuf};

use base::address::BadAddress;
use base::escape::escape;
use base::{Address, Domain, LocalPart};

use super::{Problem, Target};

/// Targets in one right-hand side or one included file.
pub(super) const MAX_TARGETS: usize = 100_000;
/// Octets in the text of one target: a path, a command.
const MAX_TARGET: usize = 4096;

/// Calls `each` with line number, name and targets of every good entry.
pub(super) fn file(
    file: &Path,
    text: &[u8],
    problems: &mut Vec<Problem>,
    mut each: impl FnMut(usize, LocalPart, Vec<Target>, &mut Vec<Problem>),
) {
    for (line, entry) in entries(text) {
        match entry.and_then(|entry| self::entry(&entry)) {
            Ok((name, targets)) => each(line, name, targets, problems),
            Err(text) => problems.push(Problem {
                file: file.to_owned(),
                line,
                text,
                fatal: true,
            }),
        }
    }
}

/// The targets of an included file: like right-hand sides, one or more on each line.
pub(super) fn included(text: &[u8]) -> Result<Vec<Target>, String> {
    let mut all = Vec::new();
    for (at, line) in text.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let number = at.saturating_add(1);
        let line = std::str::from_utf8(line).map_err(|_| format!("line {number}: not UTF-8"))?;
        all.extend(targets(line).map_err(|e| format!("line {number}: {e}"))?);
        if all.len() > MAX_TARGETS {
            return Err(format!("more than {MAX_TARGETS} addresses"));
        }
    }
    Ok(all)
}

type Numbered = (usize, Result<String, String>);

/// Logical lines: comments and empty lines dropped, continuation lines joined.
fn entries(text: &[u8]) -> Vec<Numbered> {
    let mut all: Vec<Numbered> = Vec::new();
    for (at, line) in text.split(|b| *b == b'\n').enumerate() {
        let number = at.saturating_add(1);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"#") || line.trim_ascii().is_empty() {
            continue;
        }
        let continues = line.first().is_some_and(|b| matches!(b, b' ' | b'\t'));
        let text = match std::str::from_utf8(line) {
            Ok(text) if !text.contains('\0') => Ok(text),
            _ => Err("not UTF-8, or a NUL in it: write the name in ASCII".to_owned()),
        };
        match (continues, all.last_mut(), text) {
            (true, Some((_, Ok(entry))), Ok(text)) => {
                entry.push(' ');
                entry.push_str(text.trim_ascii());
            }
            // The entry is lost already, and has been said.
            (true, Some((_, Err(_))), _) => {}
            (true, Some((_, entry)), Err(e)) => *entry = Err(e),
            (true, None, _) => all.push((
                number,
                Err("a continuation line with nothing before it: begin it in column 1".into()),
            )),
            (false, _, text) => all.push((number, text.map(|t| t.trim_ascii_end().to_owned()))),
        }
    }
    all
}

/// `name: targets`
fn entry(text: &str) -> Result<(LocalPart, Vec<Target>), String> {
    let Some((name, right)) = split_outside_quotes(text, ':') else {
        return Err(if text.bytes().filter(|b| *b == b'"').count() % 2 == 1 {
            "a quote that does not end: add the second \"".into()
        } else {
            "no colon: write NAME: TARGET, TARGET".into()
        });
    };
    let name = self::name(name.trim_ascii())?;
    let targets = targets(right)?;
    if targets.is_empty() {
        return Err(format!(
            "nothing after {}: write who gets its mail, or delete the line",
            escape(name.as_str())
        ));
    }
    Ok((name, targets))
}

/// The left-hand side: a local-part, quoted where it has to be.
fn name(text: &str) -> Result<LocalPart, String> {
    match local(text) {
        Ok(Target::Local(name)) => Ok(name),
        Ok(_) => Err(format!(
            "{}: only local names have aliases, write it without its @ and what follows",
            escape(text)
        )),
        Err(BadAddress::LocalPartTooLong) => {
            Err(format!("{}: longer than 64 octets", escape(text)))
        }
        Err(_) => Err(format!(
            "{}: not a name, put it in \"quotes\"",
            escape(text)
        )),
    }
}

/// A right-hand side.
fn targets(text: &str) -> Result<Vec<Target>, String> {
    let mut all = Vec::new();
    let mut rest = text;
    loop {
        let (item, after) = match split_outside_quotes(rest, ',') {
            Some((item, after)) => (item, Some(after)),
            None if quote_open(rest) => {
                return Err("a quote that does not end: add the second \"".into());
            }
            None => (rest, None),
        };
        let item = item.trim_ascii();
        // `a, b,` is common, and harmless.
        if !item.is_empty() {
            if item.len() > MAX_TARGET {
                return Err(format!("a target longer than {MAX_TARGET} octets"));
            }
            all.push(target(item)?);
            if all.len() > MAX_TARGETS {
                return Err(format!(
                    "more than {MAX_TARGETS} targets: use :include:/path"
                ));
            }
        }
        match after {
            Some(after) => rest = after,
            None => return Ok(all),
        }
    }
}

/// One target.
fn target(item: &str) -> Result<Target, String> {
    let whole = unquoted(item);
    let plain = whole.as_deref().unwrap_or(item);
    if let Some(command) = plain.strip_prefix('|') {
        let command = command.trim_ascii();
        let command = unquoted(command).unwrap_or_else(|| command.to_owned());
        return match command.is_empty() {
            true => Err("a | with no program after it".into()),
            false => Ok(Target::Program(command)),
        };
    }
    if plain.starts_with('/') {
        return Ok(Target::File(PathBuf::from(plain)));
    }
    if let Some(path) = strip_prefix_folded(plain, ":include:") {
        let path = path.trim_ascii();
        return match path.starts_with('/') {
            true => Ok(Target::Include(PathBuf::from(path))),
            false => Err(format!(
                "{}: write :include:/PATH, from the root",
                escape(plain)
            )),
        };
    }
    if let Some(user) = plain.strip_prefix('\\') {
        return LocalPart::new(user)
            .map(Target::User)
            .map_err(|e| format!("{}: {e}", escape(plain)));
    }
    // `Ann Lee <ann@example.org>`
    let address = match item
        .strip_suffix('>')
        .and_then(|head| head.rsplit_once('<'))
    {
        Some((_, inside)) => inside.trim_ascii(),
        None => item,
    };
    local(address).map_err(|e| {
        let shown = escape(address);
        match e {
            BadAddress::Syntax if address.contains('#') && address.contains(' ') => {
                format!("{shown}: a comment has its own line, beginning with #")
            }
            BadAddress::Syntax if address.contains(' ') => {
                format!("{shown}: write a comma between two addresses")
            }
            BadAddress::Syntax
            | BadAddress::NoDomain
            | BadAddress::LocalPartTooLong
            | BadAddress::DomainTooLong
            | BadAddress::NotUtf8 => format!("{shown}: {e}"),
        }
    })
}

/// `ann` or `ann@example.org`, `"ann lee"` or `"ann lee"@example.org`.
fn local(text: &str) -> Result<Target, BadAddress> {
    match Address::parse(text) {
        Ok(address) => Ok(Target::Address(address)),
        Err(BadAddress::NoDomain) => {
            let anywhere = Domain::parse("localhost")?;
            Address::parse_in(text, &anywhere).map(|a| Target::Local(a.local().clone()))
        }
        Err(e) => Err(e),
    }
}

/// The part before and after the first `at` that is not between double quotes.
fn split_outside_quotes(text: &str, at: char) -> Option<(&str, &str)> {
    let mut quoted = false;
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == at && !quoted => {
                let (before, after) = text.split_at_checked(i)?;
                return Some((before, after.strip_prefix(at)?));
            }
            _ => {}
        }
    }
    None
}

/// Whether the text ends inside a quote.
fn quote_open(text: &str) -> bool {
    let mut quoted = false;
    let mut escaped = false;
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
    }
    quoted
}

/// The inside of a text that is one quoted string from its first to its last character.
fn unquoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return None,
            // A backslash at the front is the `\user` form, not an escape.
            '\\' if !out.is_empty() => out.push(chars.next()?),
            c => out.push(c),
        }
    }
    Some(out)
}

fn strip_prefix_folded<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entries = Vec<(usize, String, Vec<Target>)>;

    fn read(text: &[u8]) -> (Entries, Vec<Problem>) {
        let (mut all, mut problems) = (Vec::new(), Vec::new());
        file(
            Path::new("f"),
            text,
            &mut problems,
            |line, name, targets, _| {
                all.push((line, name.as_str().to_owned(), targets));
            },
        );
        (all, problems)
    }

    fn local(s: &str) -> Target {
        Target::Local(LocalPart::new(s).unwrap())
    }

    fn address(s: &str) -> Target {
        Target::Address(Address::parse(s).unwrap())
    }

    #[test]
    fn reads_what_sendmail_reads() {
        let table: [(&str, &str, Vec<Target>); 16] = [
            ("a: b", "a", vec![local("b")]),
            ("a:b,c", "a", vec![local("b"), local("c")]),
            (
                "Ann.Lee :\tann@example.org ,",
                "Ann.Lee",
                vec![address("ann@example.org")],
            ),
            (
                "\"ann lee\": \"c d\"@x",
                "ann lee",
                vec![address("\"c d\"@x")],
            ),
            ("a: \"c d\"", "a", vec![local("c d")]),
            ("\"a:b\": c", "a:b", vec![local("c")]),
            (
                "a: \\a, b",
                "a",
                vec![Target::User(LocalPart::new("a").unwrap()), local("b")],
            ),
            (
                "a: \"\\a\"",
                "a",
                vec![Target::User(LocalPart::new("a").unwrap())],
            ),
            ("a: /var/x", "a", vec![Target::File("/var/x".into())]),
            ("a: |/bin/p", "a", vec![Target::Program("/bin/p".into())]),
            (
                "a: \"|/bin/p x, y\"",
                "a",
                vec![Target::Program("/bin/p x, y".into())],
            ),
            (
                "a: |\"/bin/p x, y\"",
                "a",
                vec![Target::Program("/bin/p x, y".into())],
            ),
            (
                "a: \"|/bin/p \\\"x\\\"\"",
                "a",
                vec![Target::Program("/bin/p \"x\"".into())],
            ),
            (
                "a: :Include:/etc/l",
                "a",
                vec![Target::Include("/etc/l".into())],
            ),
            (
                "a: Ann Lee <ann@x>, \"Lee, Bo\" <bo>",
                "a",
                vec![address("ann@x"), local("bo")],
            ),
            ("a+b: c+d", "a+b", vec![local("c+d")]),
        ];
        for (text, name, targets) in table {
            let (all, problems) = read(text.as_bytes());
            assert_eq!(problems, [], "{text}");
            assert_eq!(all, [(1, name.to_owned(), targets)], "{text}");
        }
    }

    #[test]
    fn lines_are_joined_and_counted() {
        let text = b"# first\n\na: b,\r\n  c,\n# between\n\n\td\ne:\n f\n";
        let (all, problems) = read(text);
        assert_eq!(problems, []);
        assert_eq!(
            all,
            [
                (3, "a".into(), vec![local("b"), local("c"), local("d")]),
                (8, "e".into(), vec![local("f")])
            ]
        );
    }

    #[test]
    fn what_is_wrong_has_a_line_and_a_mend() {
        let table: [(&[u8], usize, &str); 15] = [
            (b"ok: x\n\nann bob\n", 3, "no colon"),
            (b"  b\n", 1, "column 1"),
            (b"a:\n", 1, "nothing after a"),
            (b"a: ,\n", 1, "nothing after a"),
            (b"a: b c\n", 1, "comma between"),
            (b"a: b # work\n", 1, "comment has its own line"),
            (b"a: \"b\n", 1, "quote that does not end"),
            (b"\"a: b\n", 1, "quote that does not end"),
            (b"a@x: b\n", 1, "only local names"),
            (b"a b: c\n", 1, "\"quotes\""),
            (b"a: |\n", 1, "no program"),
            (b"a: :include:x\n", 1, ":include:/PATH"),
            (b"a: b@-x\n", 1, "not a mail address"),
            (b"a: \xff\n", 1, "not UTF-8"),
            (b"a: \0\n", 1, "NUL"),
        ];
        for (text, line, words) in table {
            let (_, problems) = read(text);
            let shown = escape(text).to_string();
            assert_eq!(problems.len(), 1, "{shown}: {problems:?}");
            assert_eq!(problems[0].line, line, "{shown}");
            assert!(
                problems[0].text.contains(words),
                "{shown}: {}",
                problems[0].text
            );
        }
    }

    #[test]
    fn a_wrong_entry_takes_its_continuation_with_it_and_nothing_else() {
        let (all, problems) = read(b"a: b\xff,\n c\nd: e\n");
        assert_eq!(problems.len(), 1);
        assert_eq!(all, [(3, "d".into(), vec![local("e")])]);
    }

    #[test]
    fn included_files_are_lines_of_targets() {
        let all = included(b"# members\nann\n  bob@x, carl\n\n").unwrap();
        assert_eq!(all, [local("ann"), address("bob@x"), local("carl")]);
        assert!(included(b"ann\nb c\n").unwrap_err().starts_with("line 2: "));
    }

    #[test]
    fn any_bytes_are_survived() {
        for seed in 0_u32..2000 {
            let mut x = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
            let text: Vec<u8> = (0..40)
                .map(|_| {
                    x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    b"ab:,\"\\|/<>@ \n#\t\xff"[(x >> 24) as usize % 16]
                })
                .collect();
            read(&text);
            included(&text).ok();
        }
    }
}
