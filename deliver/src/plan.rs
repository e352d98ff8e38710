//! What becomes of one recipient: a mailbox, new messages to others, another lane, a failure, or a
//! later attempt. Pure but for the look-ups it is given; nothing is done here.
//!
//! A recipient has exactly one step, so that the journal needs one outcome for it: a name that leads
//! to several becomes a message of its own (RFC 5321 3.9), whose recipients are written `\user` where
//! the aliases have been asked already.

use base::envelope::{Notify, Recipient};
use base::{Address, Fail, LocalPart, ReversePath, Status};
use queue::{Lane, MAX_RECIPIENTS};
use rules::aliases::{Aliases, Expansion, Leaf, What};
use rules::{Mailer, Router};

use crate::header::Head;

/// The last word on one recipient for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Into this user's mailbox. `to` is what Delivered-To and the log say.
    Deliver {
        user: String,
        to: Address,
    },
    /// To others, as new messages.
    Spread {
        children: Vec<Child>,
        to: Address,
        refused: Vec<String>,
    },
    /// Not ours any more: qrun's.
    Elsewhere,
    Fail {
        status: Status,
        text: String,
    },
    Defer {
        status: Status,
        text: String,
    },
    Discard,
}

impl Step {
    /// Our own trouble: never a reason to send mail back.
    pub(crate) fn later(fail: &Fail) -> Self {
        let status = fail.status().unwrap_or(Status::SYSTEM).with_class(4);
        Self::Defer {
            status,
            text: fail.to_string(),
        }
    }
}

/// A message to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) lane: Lane,
    /// `None`: the sender's own.
    pub(crate) reverse_path: Option<ReversePath>,
    pub(crate) recipients: Vec<Recipient>,
}

/// The host's answers.
pub(crate) struct Place<'a> {
    pub(crate) router: &'a Router,
    pub(crate) aliases: &'a Aliases,
    pub(crate) delimiter: Option<char>,
    /// The user's name as his mailbox has it; `None` where there is no such user.
    pub(crate) user: &'a dyn Fn(&str) -> Result<Option<String>, Fail>,
}

impl Place<'_> {
    /// What to do for `recipient` with a message that begins with `head`.
    pub(crate) fn step(&self, recipient: &Recipient, head: &Head) -> Step {
        let address = &recipient.address;
        let name = match self.router.route(address).mailer {
            Mailer::Local { user } => user,
            Mailer::Relay { .. } => return Step::Elsewhere,
            Mailer::Error { status, text } if status.class() == 4 => {
                return Step::Defer { status, text };
            }
            Mailer::Error { status, text } => return Step::Fail { status, text },
            Mailer::Discard => return Step::Discard,
        };
        // `\ann`: the aliases have been asked, as in sendmail.
        let Some(name) = name.as_str().strip_prefix('\\') else {
            return self.aliased(recipient, &name, head);
        };
        match LocalPart::new(name) {
            Ok(user) => self.user(&user, address, head),
            Err(e) => Step::Fail {
                status: Status::BAD_RECIPIENT_SYNTAX,
                text: e.to_string(),
            },
        }
    }

    fn aliased(&self, recipient: &Recipient, name: &LocalPart, head: &Head) -> Step {
        let ours = |a: &Address| match self.router.route(a).mailer {
            Mailer::Local { user } => Some(user),
            Mailer::Relay { .. } | Mailer::Error { .. } | Mailer::Discard => None,
        };
        let expansion = match self.aliases.expand(name, self.delimiter, &ours) {
            Ok(expansion) => expansion,
            Err(fail) => return Step::later(&fail),
        };
        let address = &recipient.address;
        if let [
            Leaf {
                what: What::User(user),
                owner: None,
            },
        ] = expansion.leaves.as_slice()
        {
            return self.user(user, address, head);
        }
        if head.was_delivered_to(address) {
            return circle(address);
        }
        spread(recipient, expansion, &|user| self.without_aliases(user))
    }

    /// How a user is written in a message whose aliases have been asked already. A name without
    /// room for the mark needs none where it is no alias.
    fn without_aliases(&self, user: LocalPart) -> Result<LocalPart, String> {
        let too_long = match LocalPart::new(&format!("\\{}", user.as_str())) {
            Ok(marked) => return Ok(marked),
            Err(e) => e,
        };
        match self.aliases.expand(&user, self.delimiter, &|_| None) {
            Ok(expansion) if !expansion.aliased => Ok(user),
            Ok(_) => Err(format!("{user}: with \\ before it: {too_long}")),
            Err(fail) => Err(fail.to_string()),
        }
    }

    /// The mailbox of a name that is no alias, or no alias any more.
    fn user(&self, name: &LocalPart, address: &Address, head: &Head) -> Step {
        let to = Address::new(name.clone(), address.domain().clone());
        if head.was_delivered_to(&to) {
            return circle(&to);
        }
        let bare = self.delimiter.map(|d| name.split_detail(d).0);
        let bare = bare.as_ref().filter(|b| *b != name);
        // As it was written, then in lower case: of Bob and bob each gets his own.
        let mut candidates = vec![name.as_str().to_owned(), name.fold()];
        candidates.extend(
            bare.into_iter()
                .flat_map(|b| [b.as_str().to_owned(), b.fold()]),
        );
        candidates.dedup();
        for candidate in candidates {
            match (self.user)(&candidate) {
                Ok(Some(user)) => return Step::Deliver { user, to },
                Ok(None) => {}
                Err(fail) => return Step::later(&fail),
            }
        }
        Step::Fail {
            status: Status::NO_MAILBOX,
            text: format!("unknown user: \"{}\"", base::escape::escape(name.as_str())),
        }
    }
}

fn circle(address: &Address) -> Step {
    Step::Fail {
        status: Status::LOOP,
        text: format!("mail forwarding loop for {address}"),
    }
}

/// New messages for all who a name leads to: one for each lane and owner. `mark` says how a user is
/// written in them.
fn spread(
    recipient: &Recipient,
    expansion: Expansion,
    mark: &dyn Fn(LocalPart) -> Result<LocalPart, String>,
) -> Step {
    let address = &recipient.address;
    let mut children: Vec<Child> = Vec::new();
    let mut refused = Vec::new();
    let mut first = None;
    let single = expansion.leaves.len() == 1;
    for Leaf { what, owner } in expansion.leaves {
        let (lane, target) = match what {
            What::User(user) => match mark(user) {
                Ok(user) => (Lane::Local, Address::new(user, address.domain().clone())),
                Err(text) => {
                    refused.push(text.clone());
                    first.get_or_insert((Status::BAD_RECIPIENT_SYNTAX, text));
                    continue;
                }
            },
            What::Elsewhere(address) => (Lane::Relay, address),
            What::Refused {
                target,
                status,
                text,
            } => {
                let text = format!("{}: {text}", base::escape::escape(&target));
                refused.push(text.clone());
                first.get_or_insert((status, text));
                continue;
            }
        };
        let reverse_path =
            owner.map(|owner| ReversePath::Address(Address::new(owner, address.domain().clone())));
        let recipient = copy(recipient, target, single, reverse_path.is_some());
        match children
            .iter_mut()
            .find(|c| c.lane == lane && c.reverse_path == reverse_path)
        {
            Some(child) => child.recipients.push(recipient),
            None => children.push(Child {
                lane,
                reverse_path,
                recipients: vec![recipient],
            }),
        }
    }
    // No queue file can hold more, today or later.
    if children.iter().any(|c| c.recipients.len() > MAX_RECIPIENTS) {
        return Step::Fail {
            status: Status::new(5, 5, 3),
            text: format!("the list has more than {MAX_RECIPIENTS} members"),
        };
    }
    match first {
        Some((status, text)) if children.is_empty() => Step::Fail { status, text },
        _ => Step::Spread {
            children,
            to: address.clone(),
            refused,
        },
    }
}

/// What the sender asked for goes along with an alias (RFC 3461 5.2.7.1, 5.2.7.2), not with a list
/// that has an owner (5.2.7.3): its members are the owner's business.
fn copy(recipient: &Recipient, address: Address, single: bool, owned: bool) -> Recipient {
    if owned {
        return Recipient::new(address);
    }
    let notify = match recipient.notify {
        Notify::On { failure, delay, .. } if !single => Notify::On {
            success: false,
            failure,
            delay,
        },
        as_asked => as_asked,
    };
    Recipient {
        address,
        orcpt: recipient.orcpt.clone(),
        notify,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Config, Root};
    use std::path::Path;

    const CONFIG: &str = "MY_NAME=mx\nMY_DOMAIN=here\nMY_ALIAS=here\n";

    const ALIASES: &str = "\
root: ann
one: bob@x
two: ann, bob
mixed: ann, bob@x, carl@x
self: self, bob@x
ring: gnir
gnir: ring
prog: |/bin/x
half: ann, |/bin/x
team: ann, bob@x
owner-team: carl
lost: :include:/nonexistent/list
gone: nobody
";

    /// One line for a step, so that the table can be read.
    fn show(step: &Step) -> String {
        match step {
            Step::Deliver { user, to } => format!("deliver {user} {to}"),
            Step::Spread {
                children,
                to,
                refused,
            } => {
                let mut words = vec![format!("spread {to}")];
                for child in children {
                    words.push(format!("{:?}", child.lane).to_lowercase());
                    if let Some(path) = &child.reverse_path {
                        words.push(format!("from {path}"));
                    }
                    words.extend(child.recipients.iter().map(|r| r.address.to_string()));
                }
                words.extend(refused.iter().map(|r| format!("refused {r}")));
                words.join(" ")
            }
            Step::Elsewhere => "elsewhere".into(),
            Step::Fail { status, text } => format!("fail {status} {text}"),
            Step::Defer { status, text } => format!("defer {status} {text}"),
            Step::Discard => "discard".into(),
        }
    }

    fn step(recipient: &Recipient, header: &str) -> Step {
        let user = |name: &str| match name {
            "ann" | "bob" | "self" | "Carl" => Ok(Some(name.to_owned())),
            "slow" => Err(Fail::temp("users: no answer")),
            _ => Ok(None),
        };
        ask(ALIASES, &user, recipient, header)
    }

    fn step_in(aliases: &str, user: &Users<'_>, address: &str) -> Step {
        ask(aliases, user, &to(address), "")
    }

    type Users<'a> = dyn Fn(&str) -> Result<Option<String>, Fail> + 'a;

    fn ask(aliases: &str, user: &Users<'_>, recipient: &Recipient, header: &str) -> Step {
        let root = Root::new("/nonexistent");
        let config = Config::parse(&root, CONFIG, Path::new("yubin.def")).unwrap();
        let router = Router::new(&config);
        let (aliases, _) = Aliases::from_text("aliases", aliases.as_bytes());
        let place = Place {
            router: &router,
            aliases: &aliases,
            delimiter: Some('+'),
            user,
        };
        place.step(recipient, &Head::read(&mut header.as_bytes()).unwrap())
    }

    fn to(address: &str) -> Recipient {
        Recipient::new(Address::parse(address).unwrap())
    }

    #[test]
    fn each_recipient_has_one_step() {
        let table = [
            ("ann@here", "deliver ann ann@here"),
            ("Ann@HERE", "deliver ann Ann@here"),
            ("ann+lists@here", "deliver ann ann+lists@here"),
            ("carl@here", "fail 5.1.1 unknown user: \"carl\""),
            ("Carl@here", "deliver Carl Carl@here"),
            ("nobody@here", "fail 5.1.1 unknown user: \"nobody\""),
            ("gone@here", "fail 5.1.1 unknown user: \"nobody\""),
            ("slow@here", "defer 4.3.0 users: no answer"),
            ("Postmaster@here", "deliver ann ann@here"),
            ("one@here", "spread one@here relay bob@x"),
            (
                "two@here",
                "spread two@here local \"\\\\ann\"@here \"\\\\bob\"@here",
            ),
            (
                "mixed@here",
                "spread mixed@here local \"\\\\ann\"@here relay bob@x carl@x",
            ),
            (
                "self@here",
                "spread self@here local \"\\\\self\"@here relay bob@x",
            ),
            ("\"\\\\self\"@here", "deliver self self@here"),
            ("\"\\\\nobody\"@here", "fail 5.1.1 unknown user: \"nobody\""),
            ("ring@here", "fail 5.4.6 ring: aliases lead in a circle"),
            (
                "prog@here",
                "fail 5.7.1 |/bin/x: mail to programs is not allowed here",
            ),
            (
                "half@here",
                "spread half@here local \"\\\\ann\"@here \
                 refused |/bin/x: mail to programs is not allowed here",
            ),
            (
                "team@here",
                "spread team@here local from owner-team@here \"\\\\ann\"@here \
                 relay from owner-team@here bob@x",
            ),
            (
                "lost@here",
                "defer 4.3.0 read :include:/nonexistent/list: No such file or directory",
            ),
            ("ann@x", "elsewhere"),
        ];
        for (address, want) in table {
            assert_eq!(show(&step(&to(address), "")), want, "{address}");
        }
    }

    #[test]
    fn users_that_differ_in_case_have_their_own_mail() {
        let users = ["Bob", "bob", "Eve"];
        let known = |name: &str| Ok(users.contains(&name).then(|| name.to_owned()));
        let table = [
            ("Bob@here", "deliver Bob Bob@here"),
            ("bob@here", "deliver bob bob@here"),
            ("BOB@here", "deliver bob BOB@here"),
            ("Bob+x@here", "deliver Bob Bob+x@here"),
            ("Eve@here", "deliver Eve Eve@here"),
            ("eve@here", "fail 5.1.1 unknown user: \"eve\""),
        ];
        for (address, want) in table {
            assert_eq!(show(&step_in("", &known, address)), want, "{address}");
        }
    }

    #[test]
    fn a_list_that_no_queue_file_holds_fails_with_its_limit() {
        let members = |n: usize| (0..n).map(|i| format!("u{i}@x\n")).collect::<String>();
        let dir = tempfile::tempdir().unwrap();
        for (name, n) in [("a", 60_000), ("b", 60_000), ("c", 90_000)] {
            std::fs::write(dir.path().join(name), members(n).replace('u', name)).unwrap();
        }
        let at = |name| format!(":include:{}", dir.path().join(name).display());
        let (a, b, c) = (at("a"), at("b"), at("c"));
        let aliases = format!("l: {a}\nm: {a}, {b}\nn: {a}, {b}, {c}\n");
        let known = |_: &str| Ok(None);
        let table = [
            ("m@here", "fail 5.5.3 the list has more than 100000 members"),
            (
                "n@here",
                "fail 5.5.3 n: the list leads to more than 200000 names",
            ),
        ];
        assert!(matches!(
            step_in(&aliases, &known, "l@here"),
            Step::Spread { .. }
        ));
        for (address, want) in table {
            assert_eq!(show(&step_in(&aliases, &known, address)), want, "{address}");
        }
    }

    #[test]
    fn a_member_whose_name_has_no_room_for_the_mark_gets_his_mail() {
        let (long, known) = ("x".repeat(64), |_: &str| Ok(None));
        let aliases = format!("list: {long}, bob@x\n");
        let want = format!("spread list@here local {long}@here relay bob@x");
        assert_eq!(show(&step_in(&aliases, &known, "list@here")), want);
        let aliases = format!("{long}: \\{long}, bob@x\n");
        let shown = show(&step_in(&aliases, &known, &format!("{long}@here")));
        assert!(shown.contains("relay bob@x refused"), "{shown}");
    }

    #[test]
    fn a_circle_is_found_by_our_own_mark() {
        let table = [
            (
                "ann@here",
                "Delivered-To: Ann@here\r\n\r\n",
                "fail 5.4.6 mail forwarding loop for ann@here",
            ),
            (
                "root@here",
                "Delivered-To: ann@here\r\n\r\n",
                "fail 5.4.6 mail forwarding loop for ann@here",
            ),
            (
                "two@here",
                "Delivered-To: two@here\r\n\r\n",
                "fail 5.4.6 mail forwarding loop for two@here",
            ),
            (
                "ann@here",
                "Delivered-To: two@here\r\n\r\n",
                "deliver ann ann@here",
            ),
            (
                "\"\\\\ann\"@here",
                "Delivered-To: two@here\r\n\r\n",
                "deliver ann ann@here",
            ),
        ];
        for (address, header, want) in table {
            assert_eq!(
                show(&step(&to(address), header)),
                want,
                "{address} {header}"
            );
        }
    }

    #[test]
    fn wishes_go_along_with_an_alias_and_not_with_a_list() {
        let asked = |address: &str| Recipient {
            orcpt: Some("rfc822;o@y".into()),
            notify: Notify::On {
                success: true,
                failure: true,
                delay: false,
            },
            ..to(address)
        };
        let first = |address: &str| match step(&asked(address), "") {
            Step::Spread { children, .. } => children[0].recipients[0].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(first("one@here").notify, asked("x@y").notify);
        let two = first("two@here");
        assert_eq!(
            two.notify,
            Notify::On {
                success: false,
                failure: true,
                delay: false
            }
        );
        assert_eq!(two.orcpt.as_deref(), Some("rfc822;o@y"));
        let team = first("team@here");
        assert_eq!((team.orcpt, team.notify), (None, Notify::default()));
    }
}
