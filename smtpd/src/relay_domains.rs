//! Domains of other hosts whose mail is taken from everybody, by their second MX or the host in front of
//! them, and who lives there: the file `relay_recipients`.
//!
//! ```text
//! ann@example.org
//! @lists.example.org
//! ```
//!
//! Of a domain that stands there only these addresses are taken, so that what would come back is never
//! taken in; of one of which the file says nothing, all are.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use base::{Address, Domain, Fail};

use crate::table;

/// Who lives in the domains of others.
#[derive(Debug, Default)]
pub(crate) struct RelayRecipients {
    /// By domain in lower case.
    domains: HashMap<String, Inhabitants>,
}

#[derive(Debug, Default)]
struct Inhabitants {
    all: bool,
    /// Local-parts as they are compared.
    some: HashSet<String>,
}

impl RelayRecipients {
    /// From text; `path` is for the messages.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Fail> {
        let mut domains: HashMap<String, Inhabitants> = HashMap::new();
        for (number, line) in table::lines(text) {
            let bad = |e: String| {
                Fail::config(format!(
                    "{}:{number}: `{line}': {e}; @domain is for all of it",
                    path.display()
                ))
            };
            match line.strip_prefix('@') {
                Some(domain) => {
                    let domain = Domain::parse(domain).map_err(|e| bad(e.to_string()))?;
                    domains.entry(key(&domain)).or_default().all = true;
                }
                None => {
                    let address = Address::parse(line).map_err(|e| bad(e.to_string()))?;
                    let some = &mut domains.entry(key(address.domain())).or_default().some;
                    some.insert(address.local().fold());
                }
            }
        }
        Ok(Self { domains })
    }

    /// Whether somebody lives there, as far as the file says; with the detail taken off, too.
    pub(crate) fn has(&self, address: &Address, delimiter: Option<char>) -> bool {
        let Some(inhabitants) = self.domains.get(&key(address.domain())) else {
            return true;
        };
        let local = address.local();
        let plain = delimiter.map(|d| local.split_detail(d).0.fold());
        inhabitants.all
            || inhabitants.some.contains(&local.fold())
            || plain.is_some_and(|user| inhabitants.some.contains(&user))
    }
}

fn key(domain: &Domain) -> String {
    domain.as_str().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_there_lives_there() {
        let text = "# us\nAnn@example.org\n@lists.example.org\nbob@lists.example.org\n";
        let table = RelayRecipients::parse(Path::new("r"), text).unwrap();
        for (address, there) in [
            ("ann@example.org", true),
            ("ANN@EXAMPLE.org", true),
            ("ann+news@example.org", true),
            ("bob@example.org", false),
            ("anyone@lists.example.org", true),
            ("anyone@example.net", true),
            ("anyone@deep.example.org", true),
        ] {
            let has = table.has(&address.parse().unwrap(), Some('+'));
            assert_eq!(has, there, "{address}");
        }
        assert!(!table.has(&"ann+news@example.org".parse().unwrap(), None));
    }

    #[test]
    fn mistakes_are_named() {
        for line in ["ann", "@", "ann@b c", "@-"] {
            let text = format!("a@b.c\n{line}\n");
            let fail = RelayRecipients::parse(Path::new("/etc/r"), &text).unwrap_err();
            assert!(fail.to_string().contains("/etc/r:2: "), "{fail}");
        }
    }
}
