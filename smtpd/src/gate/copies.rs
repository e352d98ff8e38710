//! Copies that the operator wants of mail: of all of it (ALWAYS_BCC), and by sender or recipient
//! (BCC_FILE). Nobody is told: a copy is not reported on (RFC 3461 NOTIFY=NEVER).
//!
//! ```text
//! from  ann@example.org   archive@example.org
//! to    @shop.example     archive@example.org, boss@example.org
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use base::config::Config;
use base::envelope::Notify;
use base::{Address, Domain, Fail, Recipient};

use super::{Door, Facts, Mail, Maker, Ruling, Stage};
use crate::table::{self, Table};

/// Who has copies.
#[derive(Debug)]
pub(crate) struct Copies {
    always: Vec<Address>,
    by_envelope: Option<Table<ByEnvelope>>,
}

/// The file: by class and `user@domain` or `@domain`, in lower case.
#[derive(Debug, Default)]
struct ByEnvelope(HashMap<(Class, String), Vec<Address>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Class {
    From,
    To,
}

impl Copies {
    /// `None` where nobody wants any.
    pub(crate) fn open(config: &Config) -> Result<Option<Self>, Fail> {
        let by_envelope = match &config.bcc_file {
            Some(path) => Some(Table::open(path, ByEnvelope::parse)?),
            None => None,
        };
        let always = config.always_bcc.clone();
        let wanted = !always.is_empty() || by_envelope.is_some();
        Ok(wanted.then_some(Self {
            always,
            by_envelope,
        }))
    }

    fn of<'a>(
        &self,
        sender: Option<&Address>,
        recipients: impl Iterator<Item = &'a Address>,
    ) -> Vec<Address> {
        let mut copies = self.always.clone();
        if let Some(table) = &self.by_envelope {
            let table = table.get();
            let senders = sender.map(|sender| (Class::From, sender));
            let recipients = recipients.map(|recipient| (Class::To, recipient));
            for (class, address) in senders.into_iter().chain(recipients) {
                copies.extend_from_slice(table.find(class, address));
            }
        }
        copies.sort();
        copies.dedup();
        copies
    }
}

impl ByEnvelope {
    fn parse(path: &Path, text: &str) -> Result<Self, Fail> {
        let mut all = Self::default();
        for (number, line) in table::lines(text) {
            all.add(line)
                .map_err(|what| Fail::config(format!("{}:{number}: {what}", path.display())))?;
        }
        Ok(all)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
        let class = match words.next() {
            Some(word) if word.eq_ignore_ascii_case("from") => Class::From,
            Some(word) if word.eq_ignore_ascii_case("to") => Class::To,
            _ => return Err("write: from|to address copies".into()),
        };
        let pattern = words.next().ok_or("write: from|to address copies")?;
        let key = match pattern.strip_prefix('@') {
            Some(domain) => Domain::parse(domain).map(|domain| format!("@{domain}")),
            None => Address::parse(pattern).map(|address| key(&address)),
        };
        let key = key.map_err(|e| format!("`{pattern}': {e}"))?;
        let copies: Result<Vec<Address>, String> = words
            .map(|word| Address::parse(word).map_err(|e| format!("`{word}': {e}")))
            .collect();
        let copies = copies?;
        if copies.is_empty() {
            return Err(format!(
                "`{pattern}': nobody to have a copy, write an address"
            ));
        }
        match self.0.insert((class, key), copies) {
            Some(_) => Err(format!("{pattern} stands here twice, join the lines")),
            None => Ok(()),
        }
    }

    /// The address itself before its domain.
    fn find(&self, class: Class, address: &Address) -> &[Address] {
        let own = self.0.get(&(class, key(address)));
        let domain = || self.0.get(&(class, format!("@{}", address.domain())));
        own.or_else(domain).map(Vec::as_slice).unwrap_or_default()
    }
}

fn key(address: &Address) -> String {
    format!("{}@{}", address.local().fold(), address.domain())
}

/// For everybody, our own users too.
pub(crate) fn maker(copies: Copies) -> Maker {
    let copies = Arc::new(copies);
    Box::new(move |_| Some(Box::new(Copier(Arc::clone(&copies)))))
}

struct Copier(Arc<Copies>);

impl Door for Copier {
    fn wants(&self, stage: Stage) -> bool {
        stage == Stage::Message
    }

    fn message(&mut self, mail: &mut Mail, facts: &Facts) -> Result<Ruling, Fail> {
        let opened = facts.transaction.as_ref();
        let recipients = opened.map_or(&[][..], |opened| &opened.recipients);
        let recipients = recipients.iter().map(|recipient| &recipient.address);
        for address in self.0.of(mail.reverse_path.address(), recipients) {
            mail.added.push(Recipient {
                notify: Notify::Never,
                ..Recipient::new(address)
            });
        }
        Ok(Ruling::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn who_has_a_copy_of_what() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bcc");
        std::fs::write(
            &path,
            "# copies\nfrom Ann@x.example one@y.example\nfrom @x.example two@y.example\n\
             to @z.example one@y.example, three@y.example\n",
        )
        .unwrap();
        let copies = Copies {
            always: vec![a("all@y.example")],
            by_envelope: Some(Table::open(&path, ByEnvelope::parse).unwrap()),
        };
        let table = [
            (None, vec![], "all"),
            (Some("ann@X.example"), vec![], "all one"),
            (Some("bob@x.example"), vec!["q@other.example"], "all two"),
            (
                Some("ann@x.example"),
                vec!["q@z.example", "r@z.example"],
                "all one three",
            ),
        ];
        for (from, to, wanted) in table {
            let (from, to) = (from.map(a), to.into_iter().map(a).collect::<Vec<_>>());
            let got = copies.of(from.as_ref(), to.iter());
            let got: Vec<_> = got.iter().map(|one| one.local().as_str()).collect();
            assert_eq!(got.join(" "), wanted);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (line, wanted) in [
            ("about a@b c@d", "write: from|to address copies"),
            ("from", "write: from|to address copies"),
            ("from a@b", "nobody to have a copy"),
            ("from a@@b c@d", "`a@@b'"),
            ("to a@b c", "`c'"),
            ("to x@y z@y", "stands here twice"),
        ] {
            let text = format!("to x@y a@b\n{line}\n");
            let fail = ByEnvelope::parse(Path::new("bcc"), &text)
                .unwrap_err()
                .to_string();
            assert!(
                fail.contains(wanted) && fail.contains("bcc:2: "),
                "{line}: {fail}"
            );
        }
    }
}
