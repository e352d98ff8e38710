//! What the user set: variables, aliases, the header fields to show (POSIX mailx, "Internal
//! Variables in mailx"). Names in capitals come from the environment where they are not set.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use crate::render::Fields;

/// Names that one alias may come to.
const MAX_NAMES: usize = 10_000;

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    variables: BTreeMap<String, String>,
    aliases: BTreeMap<String, Vec<String>>,
    /// Other addresses that are the user's.
    pub(crate) alternates: Vec<String>,
    pub(crate) fields: Fields,
}

impl Default for Settings {
    fn default() -> Self {
        let set = ["asksub", "header", "hold", "save"].map(|name| (name.into(), String::new()));
        Self {
            variables: set.into(),
            aliases: BTreeMap::new(),
            alternates: Vec::new(),
            fields: Fields::default(),
        }
    }
}

impl Settings {
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    /// The value of a variable that is set, or else of the environment.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        let own = self.variables.get(name).cloned();
        let told = || {
            let capitals = name.bytes().all(|b| b.is_ascii_uppercase());
            capitals.then(|| std::env::var(name).ok()).flatten()
        };
        own.or_else(told).filter(|v| !v.is_empty())
    }

    pub(crate) fn value_or(&self, name: &str, default: &str) -> String {
        self.value(name).unwrap_or_else(|| default.into())
    }

    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.value(name)?.parse().ok()
    }

    /// `name`, `name=value` or `noname`.
    pub(crate) fn set(&mut self, word: &str) {
        match (word.split_once('='), word.strip_prefix("no")) {
            (Some((name, value)), _) => {
                self.variables.insert(name.into(), value.into());
            }
            (None, Some(name)) if !name.is_empty() => self.unset(name),
            _ => {
                self.variables.insert(word.into(), String::new());
            }
        }
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// All variables, a line each.
    pub(crate) fn list(&self) -> String {
        self.variables
            .iter()
            .fold(String::new(), |out, (name, value)| match value.is_empty() {
                true => format!("{out}{name}\n"),
                false => format!("{out}{name}=\"{value}\"\n"),
            })
    }

    /// Adds names to an alias.
    pub(crate) fn alias(&mut self, name: &str, members: &[String]) {
        self.aliases
            .entry(name.into())
            .or_default()
            .extend(members.iter().cloned());
    }

    pub(crate) fn unalias(&mut self, name: &str) {
        self.aliases.remove(name);
    }

    /// The aliases, a line each.
    pub(crate) fn aliases(&self) -> String {
        self.aliases
            .iter()
            .fold(String::new(), |out, (name, members)| {
                format!("{out}{name}: {}\n", members.join(", "))
            })
    }

    /// A list of addresses with the aliases in it replaced by their members; a name never twice on
    /// its own way, so it ends.
    pub(crate) fn expand(&self, list: &str) -> Vec<mime::address::Mailbox> {
        let mut out = Vec::new();
        let mut opened = HashSet::new();
        let mut work = mime::address::mailboxes(list.as_bytes());
        work.reverse();
        while let Some(mailbox) = work.pop() {
            let name = String::from_utf8_lossy(&mailbox.local).into_owned();
            let alone = mailbox.host.is_empty() && mailbox.name.is_none();
            match self.aliases.get(&name).filter(|_| alone) {
                Some(members) if opened.insert(name) => {
                    let mut inner: Vec<_> = members
                        .iter()
                        .flat_map(|m| mime::address::mailboxes(m.as_bytes()))
                        .collect();
                    inner.reverse();
                    work.extend(inner);
                }
                _ if out.len() < MAX_NAMES => out.push(mailbox),
                _ => break,
            }
        }
        out
    }

    /// A file as the user names it: `~/x`, `&` for mbox. Folders (`+x`) are not files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match name {
            "&" => self.path(&self.value_or("MBOX", "~/mbox")),
            "~" => self.home(),
            _ => match name.strip_prefix("~/") {
                Some(rest) => self.home().join(rest),
                None => name.into(),
            },
        }
    }

    fn home(&self) -> PathBuf {
        self.value_or("HOME", "/").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let mut settings = Settings::default();
        for word in ["crt=20", "nohold", "askcc", "sign=Ann = me"] {
            settings.set(word);
        }
        assert_eq!(settings.number("crt"), Some(20));
        assert!(!settings.is_set("hold") && settings.is_set("askcc"));
        assert_eq!(settings.value("sign").as_deref(), Some("Ann = me"));
        settings.unset("crt");
        assert_eq!(settings.number("crt"), None);
        assert!(settings.list().contains("askcc\n"));
    }

    #[test]
    fn aliases_end() {
        let mut settings = Settings::default();
        let words = |s: &str| s.split(' ').map(String::from).collect::<Vec<_>>();
        settings.alias("team", &words("ann bob friends"));
        settings.alias("friends", &words("team cid@x.org"));
        let names: Vec<String> = settings
            .expand("team, Dan <team>")
            .iter()
            .map(|m| String::from_utf8(m.address()).unwrap())
            .collect();
        assert_eq!(names, ["ann", "bob", "team", "cid@x.org", "team"]);
    }

    #[test]
    fn files() {
        let mut settings = Settings::default();
        settings.set("HOME=/home/ann");
        for (name, wanted) in [
            ("~/x", "/home/ann/x"),
            ("x", "x"),
            ("/x", "/x"),
            ("&", "/home/ann/mbox"),
        ] {
            assert_eq!(settings.path(name), PathBuf::from(wanted));
        }
    }
}
