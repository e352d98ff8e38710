//! Patterns for folder names, as LIST and LSUB have them (RFC 3501 6.3.8): `*` is anything, `%`
//! anything without a separator.
//!
//! A match takes at most the product of two short lengths, whatever the pattern: runs of wildcards
//! are one, and a pattern with more other characters than a name can have does not exist.

use crate::folder::FolderName;

/// What some folder name can match, in Unicode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<char>);

/// Where INBOX in any case ends: it is the first level of a name.
const INBOX: usize = "INBOX".len();

impl Pattern {
    /// `None` when no name can match it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut pattern: Vec<char> = Vec::new();
        let mut plain = 0;
        for c in text.chars() {
            match (pattern.last_mut(), c) {
                // What `*` matches needs nothing beside it.
                (Some('*'), '*' | '%') | (Some('%'), '%') => {}
                (Some(last @ '%'), '*') => *last = '*',
                _ => {
                    plain += usize::from(!is_wildcard(c));
                    pattern.push(c);
                }
            }
            if plain > FolderName::MAX {
                return None;
            }
        }
        Some(Self(pattern))
    }

    /// What every name matches.
    pub fn all() -> Self {
        Self(vec!['*'])
    }

    /// Whether a name matches. `INBOX` does in any case.
    pub fn matches(&self, name: &FolderName) -> bool {
        if self.0 == ['*'] {
            return true;
        }
        let first = name.as_str().split('/').next();
        let folded = if first == Some("INBOX") { INBOX } else { 0 };
        // Which prefixes of the pattern match the name so far.
        let mut reached = vec![false; self.0.len() + 1];
        let mut previous = reached.clone();
        if let Some(start) = previous.first_mut() {
            *start = true;
        }
        self.pass_wildcards(&mut previous);
        for (place, c) in name.as_str().chars().enumerate() {
            reached.fill(false);
            let here = previous.iter().zip(&self.0).enumerate();
            for (at, (_, wanted)) in here.filter(|(_, (reached, _))| **reached) {
                let next = match wanted {
                    '*' => Some(at),
                    '%' => (c != '/').then_some(at),
                    _ if *wanted == c => Some(at + 1),
                    _ => (place < folded && wanted.eq_ignore_ascii_case(&c)).then_some(at + 1),
                };
                if let Some(state) = next.and_then(|next| reached.get_mut(next)) {
                    *state = true;
                }
            }
            self.pass_wildcards(&mut reached);
            std::mem::swap(&mut reached, &mut previous);
        }
        previous.last().copied().unwrap_or(false)
    }

    /// Whether what matches may end before a separator: then LSUB shows levels that are not
    /// subscribed themselves (RFC 3501 6.3.9).
    pub(crate) fn ends_at_a_level(&self) -> bool {
        self.0.last() == Some(&'%')
    }

    /// A wildcard may match nothing: who stands before it also stands behind it.
    fn pass_wildcards(&self, states: &mut [bool]) {
        for (at, wanted) in self.0.iter().enumerate() {
            if is_wildcard(*wanted)
                && states.get(at).copied().unwrap_or(false)
                && let Some(next) = states.get_mut(at + 1)
            {
                *next = true;
            }
        }
    }
}

/// As it was written, but for runs of wildcards.
impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.iter().collect::<String>())
    }
}

fn is_wildcard(c: char) -> bool {
    matches!(c, '*' | '%')
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("%%*%", "a/b", true),
            ("%%", "a/b", false),
            ("a%b", "ab", true),
            ("", "a", false),
            ("日*", "日本", true),
            // RFC 3501 5.1: INBOX in any case, and nothing else.
            ("INBOX", "INBOX", true),
            ("inb*", "INBOX", true),
            ("inbox/x", "INBOX/x", true),
            ("inbox/X", "INBOX/x", false),
            ("inbox2", "INBOX2", false),
        ];
        for (pattern, name, want) in table {
            let name = FolderName::parse(name).unwrap();
            let matches = Pattern::parse(pattern).unwrap().matches(&name);
            assert_eq!(matches, want, "{pattern} {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_is_small() {
        let pattern = Pattern::parse(&("*%".repeat(400) + &"a%*".repeat(200) + "b"));
        assert_eq!(pattern, None);
        let pattern = Pattern::parse(&("*%".repeat(400) + &"a%*".repeat(199) + "b")).unwrap();
        assert_eq!(pattern.0.len(), 400);
        assert!(!pattern.matches(&FolderName::parse(&"a".repeat(200)).unwrap()));
        assert_eq!(Pattern::parse(&"a".repeat(201)), None);
    }
}
