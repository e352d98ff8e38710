//! `NAME=value` lines in the shell's writing, as CF's sendmail.def has them: no blanks round `=`,
//! `'...'` and `"..."` quote, `\` continues a line, an unquoted `#` starts a comment.
//!
//! Nothing is expanded: an unquoted `$` is an error, because the shell would have expanded it.

/// One assignment, with the line that it begins on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub line: usize,
    pub name: String,
    pub value: String,
}

/// What is wrong, on which line, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    pub line: usize,
    pub text: String,
}

/// Reads the whole file. The first bad line ends it.
pub fn read(text: &str) -> Result<Vec<Assignment>, BadLine> {
    let mut assignments = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, first)) = lines.next() {
        let line = at + 1;
        let mut logical = first.to_owned();
        // A backslash at the very end joins the next line, except inside a comment.
        while logical.ends_with('\\') && !first.trim_start().starts_with('#') {
            logical.pop();
            match lines.next() {
                Some((_, more)) => logical.push_str(more),
                None => break,
            }
        }
        let trimmed = logical.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let bad = |text: String| BadLine { line, text };
        let Some((name, rest)) = trimmed.split_once('=') else {
            return Err(bad(format!(
                "`{trimmed}' is no assignment, write NAME=value"
            )));
        };
        if name.ends_with([' ', '\t']) || rest.starts_with([' ', '\t']) {
            return Err(bad(format!(
                "blanks round `=', write {}={}",
                name.trim(),
                rest.trim()
            )));
        }
        if !is_name(name) {
            return Err(bad(format!(
                "`{name}' is no name, write letters, digits and `_'"
            )));
        }
        let value = value(rest).map_err(|what| bad(format!("{name}: {what}")))?;
        assignments.push(Assignment {
            line,
            name: name.into(),
            value,
        });
    }
    Ok(assignments)
}

fn is_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// One shell word, unquoted; a comment may follow it.
fn value(rest: &str) -> Result<String, String> {
    let mut value = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => loop {
                match chars.next() {
                    Some('\'') => break,
                    Some(c) => value.push(c),
                    None => return Err("quote not closed, write '...'".into()),
                }
            },
            '"' => loop {
                match chars.next() {
                    Some('"') => break,
                    Some('\\') => match chars.next() {
                        Some(c @ ('"' | '\\' | '$' | '`')) => value.push(c),
                        Some(c) => value.extend(['\\', c]),
                        None => return Err("quote not closed, write \"...\"".into()),
                    },
                    Some('$') => {
                        return Err("`$' is not expanded, write '$' in single quotes".into());
                    }
                    Some(c) => value.push(c),
                    None => return Err("quote not closed, write \"...\"".into()),
                }
            },
            '\\' => value.extend(chars.next()),
            '$' | '`' => return Err(format!("`{c}' is not expanded, write it in single quotes")),
            ' ' | '\t' => {
                let after = chars.as_str().trim_start();
                if after.is_empty() || after.starts_with('#') {
                    break;
                }
                return Err(format!(
                    "blank in the value, write '{}' in quotes",
                    rest.trim_end()
                ));
            }
            c if c.is_control() => return Err("control character in the value".into()),
            c => value.push(c),
        }
    }
    Ok(value)
}

/// The known name that is nearest to `name`, where one is near: a slip of at most a third of it.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_uppercase();
    known
        .into_iter()
        .map(|k| (distance(&name, k), k))
        .min()
        .filter(|(d, k)| *d <= k.len().div_ceil(3))
        .map(|(_, k)| k)
}

/// Levenshtein's distance in bytes; names are short.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let up = *cell;
            left = (diagonal + usize::from(x != y)).min(up + 1).min(left + 1);
            diagonal = up;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_shell_would_read() {
        let text = "# a host\nMY_NAME=mail\nOFFICIAL_NAME='$w.$m'  # quoted\n\nMY_ALIAS=\"a b\" \nX=a\\\nb\nE=\nS=it\\'s\n";
        let got: Vec<_> = read(text)
            .unwrap()
            .into_iter()
            .map(|a| (a.line, a.name, a.value))
            .collect();
        let want = [
            (2, "MY_NAME", "mail"),
            (3, "OFFICIAL_NAME", "$w.$m"),
            (5, "MY_ALIAS", "a b"),
            (6, "X", "ab"),
            (8, "E", ""),
            (9, "S", "it's"),
        ];
        assert_eq!(got, want.map(|(l, n, v)| (l, n.to_owned(), v.to_owned())));
    }

    #[test]
    fn says_line_and_mend() {
        let table = [
            ("A=1\nB = 2", 2, "blanks round `=', write B=2"),
            (
                "A=$w",
                1,
                "A: `$' is not expanded, write it in single quotes",
            ),
            ("A=a b", 1, "A: blank in the value, write 'a b' in quotes"),
            ("A='a", 1, "A: quote not closed, write '...'"),
            (
                "nonsense",
                1,
                "`nonsense' is no assignment, write NAME=value",
            ),
            ("1A=x", 1, "`1A' is no name, write letters, digits and `_'"),
        ];
        for (text, line, what) in table {
            assert_eq!(
                read(text),
                Err(BadLine {
                    line,
                    text: what.into()
                }),
                "{text}"
            );
        }
    }

    #[test]
    fn finds_the_nearest_name() {
        let known = ["MY_NAME", "MY_DOMAIN", "DEFAULT_RELAY"];
        assert_eq!(nearest("MY_DOMIAN", known), Some("MY_DOMAIN"));
        assert_eq!(nearest("default_relay", known), Some("DEFAULT_RELAY"));
        assert_eq!(nearest("XYZZY", known), None);
    }
}
