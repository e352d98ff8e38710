//! LIST and LSUB (RFC 3501 6.3.8, 6.3.9): patterns, and the attributes of RFC 3348.

use store::Folder;

use crate::response::{line, mailbox};
use crate::utf7;

/// A pattern longer than any name matches nothing.
const MAX_PATTERN: usize = 1000;

/// Reference and pattern as one pattern in Unicode; `None` when it can match nothing.
pub(crate) fn pattern(reference: &[u8], pattern: &[u8]) -> Option<String> {
    let joined = [reference, pattern].concat();
    if joined.len() > MAX_PATTERN {
        return None;
    }
    let text = utf7::decode(&joined)?;
    let head = text.split('/').next().unwrap_or_default();
    if head.eq_ignore_ascii_case("INBOX") {
        let rest: String = text.chars().skip(head.chars().count()).collect();
        return Some(format!("INBOX{rest}"));
    }
    Some(text)
}

/// `*` is anything, `%` anything without a separator. Linear in both for one kind of wildcard, and
/// never worse than their product.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    // Which prefixes of the pattern match the name so far.
    let mut reached = vec![false; pattern.len() + 1];
    let mut previous = reached.clone();
    close(&pattern, &mut previous, true);
    for c in name.chars() {
        reached.fill(false);
        for (at, wanted) in pattern.iter().enumerate() {
            let from_here = previous.get(at).copied().unwrap_or(false);
            let (stays, steps) = match wanted {
                '*' => (from_here, false),
                '%' => (from_here && c != '/', false),
                _ => (false, from_here && *wanted == c),
            };
            if stays && let Some(state) = reached.get_mut(at) {
                *state = true;
            }
            if steps && let Some(state) = reached.get_mut(at + 1) {
                *state = true;
            }
        }
        close(&pattern, &mut reached, false);
        std::mem::swap(&mut reached, &mut previous);
    }
    previous.last().copied().unwrap_or(false)
}

/// A wildcard may match nothing: who stands before it also stands behind it.
fn close(pattern: &[char], states: &mut [bool], start: bool) {
    if start && let Some(first) = states.first_mut() {
        *first = true;
    }
    for (at, wanted) in pattern.iter().enumerate() {
        if matches!(wanted, '*' | '%')
            && states.get(at).copied().unwrap_or(false)
            && let Some(next) = states.get_mut(at + 1)
        {
            *next = true;
        }
    }
}

/// The responses for all folders that match. For LSUB a level that is not subscribed itself is shown
/// as `\Noselect` where the pattern's `%` ends at it (RFC 3501 6.3.9).
pub(crate) fn respond(out: &mut Vec<u8>, folders: &[Folder], pattern: &str, subscribed: bool) {
    let mut shown: Vec<&str> = Vec::new();
    for folder in folders {
        let name = folder.name.as_str();
        if matches(pattern, name) {
            one(out, name, subscribed, folder.selectable, folder.children);
            shown.push(name);
        } else if subscribed && pattern.ends_with('%') {
            let levels = name.match_indices('/').filter_map(|(at, _)| name.get(..at));
            for level in levels.filter(|level| matches(pattern, level)) {
                let known =
                    shown.contains(&level) || folders.iter().any(|f| f.name.as_str() == level);
                if !known {
                    one(out, level, subscribed, false, true);
                    shown.push(level);
                }
            }
        }
    }
}

fn one(out: &mut Vec<u8>, name: &str, subscribed: bool, selectable: bool, children: bool) {
    let mut attributes = Vec::new();
    if !selectable {
        attributes.push("\\Noselect");
    }
    if !subscribed {
        attributes.push(if children {
            "\\HasChildren"
        } else {
            "\\HasNoChildren"
        });
    }
    let verb = if subscribed { "LSUB" } else { "LIST" };
    out.extend_from_slice(format!("* {verb} ({}) \"/\" ", attributes.join(" ")).as_bytes());
    mailbox(out, name);
    line(out, "");
}

/// The answer to an empty pattern: the separator, and the root of the reference.
pub(crate) fn separator(out: &mut Vec<u8>) {
    line(out, "* LIST (\\Noselect) \"/\" \"\"");
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::FolderName;

    #[test]
    fn wildcards() {
        let table = [
            ("*", "a/b", true),
            ("%", "a/b", false),
            ("%", "a", true),
            ("a/%", "a/b", true),
            ("a/%", "a/b/c", false),
            ("a*", "a/b/c", true),
            ("*c", "a/b/c", true),
            ("%/%", "a/b", true),
            ("a%b", "ab", true),
            ("INBOX", "INBOX", true),
            ("", "a", false),
            ("日*", "日本", true),
        ];
        for (pattern, name, want) in table {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        assert!(!matches(&("*a".repeat(400) + "b"), &"a".repeat(200)));
    }

    #[test]
    fn patterns() {
        assert_eq!(pattern(b"", b"inbox").as_deref(), Some("INBOX"));
        assert_eq!(pattern(b"inbox/", b"%").as_deref(), Some("INBOX/%"));
        assert_eq!(pattern(b"", b"&U,BTFw-/*").as_deref(), Some("台北/*"));
        assert_eq!(pattern(b"", &[b'*'; 2000]), None);
    }

    #[test]
    fn responses() {
        let folder = |name: &str, selectable, children| Folder {
            name: FolderName::parse(name).unwrap(),
            selectable,
            children,
        };
        let folders = [
            folder("INBOX", true, false),
            folder("a", false, true),
            folder("a/b", true, false),
        ];
        let shown = |folders: &[Folder], pattern: &str, subscribed| {
            let mut out = Vec::new();
            respond(&mut out, folders, pattern, subscribed);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            shown(&folders, "%", false),
            "* LIST (\\HasNoChildren) \"/\" INBOX\r\n* LIST (\\Noselect \\HasChildren) \"/\" a\r\n"
        );
        assert_eq!(
            shown(
                &[folder("x/y", true, false), folder("x/z", true, false)],
                "%",
                true
            ),
            "* LSUB (\\Noselect) \"/\" x\r\n"
        );
    }
}
