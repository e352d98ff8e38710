//! `-bv`: where mail to an address would go, in sendmail's words.
//!
//! It asks what smtpd and deliver ask, rules and aliases and users, and sends nothing.

use base::escape::escape;
use base::{Address, Config, Fail, LocalPart, Sysexit};
use rules::aliases::{Aliases, What};
use rules::{Mailer, Router};

use crate::message;

/// Whether a user of this name exists; an error is no answer.
pub(crate) type IsUser<'a> = dyn Fn(&LocalPart) -> Result<bool, Fail> + 'a;

/// What decides.
pub(crate) struct Verifier<'a> {
    pub(crate) router: &'a Router,
    pub(crate) aliases: &'a Aliases,
    pub(crate) delimiter: Option<char>,
    pub(crate) is_user: &'a IsUser<'a>,
}

/// One line of the answer, and what it says for the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) code: Sysexit,
}

impl<'a> Verifier<'a> {
    pub(crate) fn new(
        config: &Config,
        router: &'a Router,
        aliases: &'a Aliases,
        is_user: &'a IsUser<'a>,
    ) -> Self {
        Self {
            router,
            aliases,
            delimiter: config.recipient_delimiter,
            is_user,
        }
    }

    /// The lines for one word of the command line.
    pub(crate) fn word(&self, word: &str) -> Vec<Line> {
        let list = message::addresses(word);
        if list.is_empty() {
            return vec![bad(word, "not a mail address")];
        }
        list.iter().flat_map(|text| self.address(text)).collect()
    }

    fn address(&self, text: &str) -> Vec<Line> {
        let address = match Address::parse_in(text, self.router.here()) {
            Ok(address) => address,
            Err(e) => return vec![bad(text, &e.to_string())],
        };
        match self.router.route(&address).mailer {
            Mailer::Local { user } => self.local(text, &user),
            _ => vec![self.elsewhere(text, &address)],
        }
    }

    fn local(&self, text: &str, user: &LocalPart) -> Vec<Line> {
        let ours = |a: &Address| self.router.is_local(a.domain()).then(|| a.local().clone());
        let leaves = match self.aliases.expand(user, self.delimiter, &ours) {
            Ok(expansion) if expansion.aliased => expansion.leaves,
            Ok(_) => return vec![self.user(text, user)],
            Err(fail) => return vec![deferred(text, &fail)],
        };
        leaves
            .iter()
            .map(|leaf| match &leaf.what {
                What::User(user) => self.user(&user.to_string(), user),
                What::Elsewhere(address) => self.elsewhere(&address.to_string(), address),
                What::Refused { target, text, .. } => bad(target, text),
            })
            .collect()
    }

    fn user(&self, text: &str, user: &LocalPart) -> Line {
        let mut name = user.clone();
        let mut found = (self.is_user)(&name);
        if let (Ok(false), Some(delimiter)) = (&found, self.delimiter) {
            name = user.split_detail(delimiter).0;
            found = (self.is_user)(&name);
        }
        match found {
            Ok(true) => good(text, &format!("mailer local, user {name}")),
            Ok(false) => Line {
                text: format!("{}... User unknown", escape(text)),
                code: Sysexit::NoUser,
            },
            Err(fail) => deferred(text, &fail),
        }
    }

    fn elsewhere(&self, text: &str, address: &Address) -> Line {
        let route = self.router.route(address);
        match &route.mailer {
            Mailer::Local { user } => good(text, &format!("mailer local, user {user}")),
            Mailer::Relay { next } => good(
                text,
                &format!(
                    "mailer {}, host {next}, user {}",
                    route.mailer.name(),
                    route.user
                ),
            ),
            Mailer::Discard => good(text, &format!("mailer discard, user {}", route.user)),
            Mailer::Error { text: why, .. } => bad(text, why),
        }
    }
}

fn good(address: &str, what: &str) -> Line {
    let text = format!("{}... deliverable: {what}", escape(address));
    Line {
        text,
        code: Sysexit::Ok,
    }
}

fn bad(address: &str, why: &str) -> Line {
    Line {
        text: format!("{}... {why}", escape(address)),
        code: Sysexit::Unavailable,
    }
}

fn deferred(address: &str, fail: &Fail) -> Line {
    Line {
        text: format!("{}... Deferred: {fail}", escape(address)),
        code: Sysexit::TempFail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Root;
    use std::path::Path;

    #[test]
    fn in_the_words_of_sendmail() {
        let config = "MY_NAME=mx\nMY_DOMAIN=example.org\nMY_ALIAS=example.org\n";
        let config = Config::parse(&Root::new("/nowhere"), config, Path::new("t")).unwrap();
        let router = Router::new(&config);
        let aliases = "root: ann\nteam: ann, cid@elsewhere.org, nobody-there\npipe: |/bin/x\n";
        let (aliases, _) = Aliases::from_text("aliases", aliases.as_bytes());
        let is_user = |user: &LocalPart| match user.as_str() {
            "ann" => Ok(true),
            "tmp" => Err(Fail::temp("look up user tmp")),
            _ => Ok(false),
        };
        let verifier = Verifier::new(&config, &router, &aliases, &is_user);
        for (word, wanted) in [
            ("ann", vec!["ann... deliverable: mailer local, user ann"]),
            (
                "ann+x@mx.example.org",
                vec!["ann+x@mx.example.org... deliverable: mailer local, user ann"],
            ),
            ("root", vec!["ann... deliverable: mailer local, user ann"]),
            (
                "team",
                vec![
                    "ann... deliverable: mailer local, user ann",
                    "cid@elsewhere.org... deliverable: mailer esmtp, host elsewhere.org., user cid@elsewhere.org",
                    "nobody-there... User unknown",
                ],
            ),
            ("dan", vec!["dan... User unknown"]),
            ("tmp", vec!["tmp... Deferred: look up user tmp"]),
            (
                "@",
                vec!["@... not a mail address, write local-part@domain"],
            ),
            ("", vec!["... not a mail address"]),
        ] {
            let lines: Vec<String> = verifier.word(word).into_iter().map(|l| l.text).collect();
            assert_eq!(lines, wanted, "{word}");
        }
        assert_eq!(verifier.word("dan")[0].code, Sysexit::NoUser);
        assert_eq!(verifier.word("tmp")[0].code, Sysexit::TempFail);
    }
}
