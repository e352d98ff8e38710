//! Whose login may send under which address (RFC 6409 6.1): the file `senders`.
//!
//! ```text
//! news@example.org    ann, bob
//! @shop.example       carl
//! *                   dan
//! ```
//!
//! An address that stands here belongs to those logins only, a domain to them beside the addresses
//! that stand here by themselves. For all others it is the address's own user who owns it; `*` gives the
//! addresses of other hosts.

use std::collections::HashMap;
use std::path::Path;

use base::{Address, Domain, Fail};

use crate::table;

#[derive(Debug, Default)]
pub(crate) struct Senders {
    /// By `local@domain` and by `@domain`, in lower case; `*` for who may use any foreign address.
    owners: HashMap<String, Vec<String>>,
}

impl Senders {
    /// From text; `path` is for the messages.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Fail> {
        let mut owners = HashMap::new();
        for (number, line) in table::lines(text) {
            let bad = |what: String| Fail::config(format!("{}:{number}: {what}", path.display()));
            let Some((address, logins)) = line.split_once([' ', '\t']) else {
                return Err(bad("write: address login, login".into()));
            };
            let key = match address.strip_prefix('@') {
                None if address == "*" => Ok("*".to_owned()),
                Some(domain) => Domain::parse(domain).map(|d| of_domain(&d)),
                None => Address::parse(address).map(|a| of_address(&a)),
            };
            let key = key.map_err(|e| bad(format!("`{address}': {e}")))?;
            let logins: Vec<String> = logins
                .split([' ', '\t', ','])
                .filter(|login| !login.is_empty())
                .map(str::to_lowercase)
                .collect();
            if owners.insert(key, logins).is_some() {
                return Err(bad(format!("{address} stands here twice, join the lines")));
            }
        }
        Ok(Self { owners })
    }

    /// Whether the file gives the address to this login; `None` where it says nothing of it.
    pub(crate) fn gives(&self, address: &Address, login: &str) -> Option<bool> {
        let owners = self
            .owners
            .get(&of_address(address))
            .or_else(|| self.owners.get(&of_domain(address.domain())))?;
        let login = login.to_lowercase();
        Some(owners.contains(&login))
    }
}

impl Senders {
    /// Whether this login may use any address that is not of this host.
    pub(crate) fn gives_all(&self, login: &str) -> bool {
        let login = login.to_lowercase();
        let all = self.owners.get("*");
        all.is_some_and(|owners| owners.contains(&login))
    }
}

fn of_address(address: &Address) -> String {
    format!("{}{}", address.local().fold(), of_domain(address.domain()))
}

fn of_domain(domain: &Domain) -> String {
    format!("@{}", domain.as_str().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Senders, Fail> {
        Senders::parse(Path::new("senders"), text)
    }

    #[test]
    fn addresses_before_domains() {
        let senders =
            parse("# x\nnews@Example.org ann, Bob\n@shop.example carl\nboss@shop.example dan\n");
        let senders = senders.unwrap();
        let table = [
            ("News@example.org", "ANN", Some(true)),
            ("news@example.org", "bob", Some(true)),
            ("news@example.org", "carl", Some(false)),
            ("ann@example.org", "ann", None),
            ("any@shop.example", "carl", Some(true)),
            ("boss@shop.example", "carl", Some(false)),
            ("boss@shop.example", "dan", Some(true)),
            ("x@sub.shop.example", "carl", None),
        ];
        for (address, login, want) in table {
            let address = Address::parse(address).unwrap();
            assert_eq!(senders.gives(&address, login), want, "{address} {login}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, want) in [
            ("a@b\n", "senders:1: write: address login"),
            ("\na@b c\nA@b d\n", "senders:3: A@b stands here twice"),
            ("a@@b c\n", "senders:1: `a@@b'"),
            ("@-b c\n", "senders:1: `@-b'"),
        ] {
            let fail = parse(text).unwrap_err().to_string();
            assert!(fail.contains(want), "{fail}");
        }
    }
}
