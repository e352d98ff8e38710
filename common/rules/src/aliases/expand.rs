//! From a local name to all who get its mail.
//!
//! Guarantees: it ends (depth, count and size are bounded, a ring is found), nobody is named twice,
//! and the order is the files'. An included file that cannot be read or trusted is an error for
//! the whole name (try later), not a shorter list. Programs and files are refused.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base::{Address, Doing, Fail, LocalPart, Status};
use nix::fcntl::OFlag;

use super::{Aliases, Target, parse};

/// Names on the way from the first to a leaf.
const MAX_DEPTH: usize = 50;
/// Targets looked at in one expansion.
const MAX_STEPS: usize = 200_000;
/// Bytes of an included file.
const MAX_INCLUDE: u64 = 8 << 20;

/// Who gets the mail of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expansion {
    /// In the order of the files, nobody twice. Never empty for a name with an alias.
    pub leaves: Vec<Leaf>,
    /// Whether there was an alias at all; without one the only leaf is the user of that name.
    pub aliased: bool,
}

/// One who gets the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub what: What,
    /// The innermost list on the way that has an `owner-LIST` alias: that name is the reverse-path
    /// of what this leaf gets.
    pub owner: Option<LocalPart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A user of this host, with his detail if any; whether he exists is not known here.
    User(LocalPart),
    /// An address that is not ours.
    Elsewhere(Address),
    /// Nobody can have it.
    Refused {
        target: String,
        status: Status,
        text: String,
    },
}

/// A name on the way, and from where it was reached.
struct Node {
    name: String,
    parent: Option<usize>,
    depth: usize,
    owner: Option<LocalPart>,
}

impl Aliases {
    /// All who get the mail of `name`. `ours` tells for an address whether it is a local one, and
    /// under which name. `name+detail` is looked up whole first, then without its detail, which
    /// begins at `delimiter`.
    pub fn expand(
        &self,
        name: &LocalPart,
        delimiter: Option<char>,
        ours: &dyn Fn(&Address) -> Option<LocalPart>,
    ) -> Result<Expansion, Fail> {
        let run = Run {
            aliases: self,
            delimiter,
            ours,
            nodes: Vec::new(),
            opened: HashSet::new(),
            leaves: Vec::new(),
            told: HashSet::new(),
        };
        run.all(name)
    }

    /// The name under which an alias exists, with what it holds.
    fn entry(&self, name: &LocalPart, delimiter: Option<char>) -> Option<(String, &[Target])> {
        let whole = name.fold();
        if let Some(targets) = self.table.get(&whole) {
            return Some((whole, targets));
        }
        let (user, detail) = name.split_detail(delimiter?);
        detail?;
        let user = user.fold();
        self.table
            .get(&user)
            .map(|targets| (user.clone(), targets.as_slice()))
    }

    /// `owner-LIST`, where there is such an alias and the list is not itself an owner.
    fn owner_of(&self, list: &str) -> Option<LocalPart> {
        if list.starts_with("owner-") || list.ends_with("-request") {
            return None;
        }
        let owner = LocalPart::new(&format!("owner-{list}")).ok()?;
        self.table.contains_key(owner.as_str()).then_some(owner)
    }
}

struct Run<'a> {
    aliases: &'a Aliases,
    delimiter: Option<char>,
    ours: &'a dyn Fn(&Address) -> Option<LocalPart>,
    nodes: Vec<Node>,
    /// Names already taken apart.
    opened: HashSet<String>,
    leaves: Vec<Leaf>,
    /// What stands in `leaves`, for de-duplication.
    told: HashSet<String>,
}

impl<'a> Run<'a> {
    fn all(mut self, name: &LocalPart) -> Result<Expansion, Fail> {
        let mut steps: usize = 0;
        // A stack of what is still to do, the next one last. No recursion: its depth would be the
        // files' to choose.
        let mut work: Vec<(Target, Option<usize>)> = vec![(Target::Local(name.clone()), None)];
        while let Some((target, from)) = work.pop() {
            steps = steps.saturating_add(1);
            if steps > MAX_STEPS {
                let what = What::Refused {
                    target: name.to_string(),
                    status: Status::new(5, 5, 3),
                    text: format!("the list leads to more than {MAX_STEPS} names"),
                };
                return Ok(Expansion {
                    leaves: vec![Leaf { what, owner: None }],
                    aliased: true,
                });
            }
            match target {
                Target::Local(user) => {
                    if let Some((node, targets)) = self.open(user, from) {
                        work.extend(targets.iter().rev().map(|t| (t.clone(), Some(node))));
                    }
                }
                Target::Address(address) => match (self.ours)(&address) {
                    Some(user) => work.push((Target::Local(user), from)),
                    None => self.leaf(What::Elsewhere(address), from),
                },
                Target::User(user) => self.leaf(What::User(user), from),
                Target::Include(path) => {
                    let members = include(&path)?;
                    work.extend(members.into_iter().rev().map(|t| (t, from)));
                }
                Target::Program(command) => {
                    self.refuse(
                        format!("|{command}"),
                        "mail to programs is not allowed here",
                        from,
                    );
                }
                Target::File(path) => {
                    let path = path.display().to_string();
                    self.refuse(path, "mail to files is not allowed here", from);
                }
            }
        }
        if self.leaves.is_empty() {
            self.refuse(name.as_str().to_owned(), "the list has no members", None);
        }
        Ok(Expansion {
            leaves: self.leaves,
            aliased: !self.nodes.is_empty(),
        })
    }

    /// Looks a name up. Gives what it holds, once; or notes a leaf.
    fn open(&mut self, user: LocalPart, from: Option<usize>) -> Option<(usize, &'a [Target])> {
        let Some((key, targets)) = self.aliases.entry(&user, self.delimiter) else {
            self.leaf(What::User(user), from);
            return None;
        };
        let parent = from.and_then(|at| self.nodes.get(at));
        if parent.is_some_and(|p| p.name == key) {
            // `ann: ann, bob`: ann herself.
            self.leaf(What::User(user), from);
            return None;
        }
        let depth = parent.map_or(0, |p| p.depth.saturating_add(1));
        if depth > MAX_DEPTH || self.is_above(&key, from) {
            let text = if depth > MAX_DEPTH {
                "aliases too deep"
            } else {
                "aliases lead in a circle"
            };
            self.leaf(
                What::Refused {
                    target: key,
                    status: Status::LOOP,
                    text: text.to_owned(),
                },
                from,
            );
            return None;
        }
        if !self.opened.insert(key.clone()) {
            return None;
        }
        let owner = self
            .aliases
            .owner_of(&key)
            .or_else(|| parent.and_then(|p| p.owner.clone()));
        self.nodes.push(Node {
            name: key,
            parent: from,
            depth,
            owner,
        });
        Some((self.nodes.len().saturating_sub(1), targets))
    }

    /// Whether `name` is on the way to `from`.
    fn is_above(&self, name: &str, mut from: Option<usize>) -> bool {
        while let Some(node) = from.and_then(|at| self.nodes.get(at)) {
            if node.name == name {
                return true;
            }
            from = node.parent;
        }
        false
    }

    fn leaf(&mut self, what: What, from: Option<usize>) {
        let key = match &what {
            What::User(user) => user.fold(),
            What::Elsewhere(address) => address.to_string(),
            // A user or an address has no blank in front.
            What::Refused { target, .. } => format!(" {target}"),
        };
        if self.told.insert(key) {
            let owner = from
                .and_then(|at| self.nodes.get(at))
                .and_then(|n| n.owner.clone());
            self.leaves.push(Leaf { what, owner });
        }
    }

    fn refuse(&mut self, target: String, text: &str, from: Option<usize>) {
        let what = What::Refused {
            target,
            status: Status::NOT_AUTHORIZED,
            text: text.to_owned(),
        };
        self.leaf(what, from);
    }
}

/// The members in an included file. Only addresses and names count in it; the file has to be one
/// that nobody but its owner can write, in a directory that not everybody can write.
fn include(path: &Path) -> Result<Vec<Target>, Fail> {
    let shown = path.display();
    let doing = || format!("read :include:{shown}");
    // A link or a FIFO in the file's place is not followed and not waited for.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .doing(doing)?;
    let meta = file.metadata().doing(doing)?;
    if !meta.is_file() {
        return Err(Fail::temp(format!(":include:{shown}: not a regular file")));
    }
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let above = std::fs::metadata(directory).doing(doing)?;
    if meta.mode() & 0o022 != 0 {
        return Err(Fail::temp(format!(
            ":include:{shown}: others can write it: chmod go-w"
        )));
    }
    if above.mode() & 0o002 != 0 {
        let directory = directory.display();
        return Err(Fail::temp(format!(
            ":include:{shown}: everybody can write {directory}: keep the list elsewhere"
        )));
    }
    if meta.len() > MAX_INCLUDE {
        return Err(Fail::temp(format!(
            ":include:{shown}: larger than {MAX_INCLUDE} bytes"
        )));
    }
    let mut text = Vec::new();
    file.take(MAX_INCLUDE).read_to_end(&mut text).doing(doing)?;
    let members =
        parse::included(&text).map_err(|e| Fail::temp(format!(":include:{shown}: {e}")))?;
    for member in &members {
        if matches!(
            member,
            Target::Include(_) | Target::Program(_) | Target::File(_)
        ) {
            return Err(Fail::temp(format!(
                ":include:{shown}: only names and addresses can stand in it"
            )));
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn ours(a: &Address) -> Option<LocalPart> {
        (a.domain().as_str() == "here").then(|| a.local().clone())
    }

    /// Leaves in one line: `ann bob@x !target(5.4.6) carl[owner-l]`.
    fn show(text: &str, name: &str) -> String {
        let (aliases, _) = Aliases::from_text("aliases", text.as_bytes());
        match aliases.expand(&LocalPart::new(name).unwrap(), Some('+'), &ours) {
            Ok(e) => words(&e),
            Err(e) => format!("Err {e}"),
        }
    }

    fn words(e: &Expansion) -> String {
        let mut all = Vec::new();
        for leaf in &e.leaves {
            let what = match &leaf.what {
                What::User(u) => u.to_string(),
                What::Elsewhere(a) => a.to_string(),
                What::Refused { target, status, .. } => format!("!{target}({status})"),
            };
            all.push(match &leaf.owner {
                Some(owner) => format!("{what}[{owner}]"),
                None => what,
            });
        }
        all.join(" ")
    }

    #[test]
    fn names_lead_to_leaves() {
        let table = [
            ("", "ann", "ann"),
            ("", "Ann+x", "Ann+x"),
            ("", "postmaster", "root"),
            ("root: ann", "MAILER-DAEMON", "ann"),
            ("a: b, c@x, b, c@x, B", "a", "b c@x"),
            ("a: b\nb: c, d\nc: e", "A", "e d"),
            ("ann: ann, bob", "ann", "ann bob"),
            ("ann: \\ann, bob@x", "ann", "ann bob@x"),
            ("ann: ann@here, bob", "Ann", "ann bob"),
            ("ann: ann@x", "ann", "ann@x"),
            ("a: b\nb: a", "a", "!a(5.4.6)"),
            ("a: b, x\nb: c\nc: a, y", "a", "!a(5.4.6) y x"),
            ("l: a, b\na: c\nb: c", "l", "c"),
            ("l: a, b\na: m\nb: m\nm: x, y", "l", "x y"),
            ("a: b+d", "a", "b+d"),
            ("a: b+d\nb: c", "a", "c"),
            ("a+x: b\na: c", "a+x", "b"),
            ("a+x: b\na: c", "a+y", "c"),
            ("ann: ann+lists", "ann", "ann+lists"),
            ("l: a, b@x\nowner-l: o", "l", "a[owner-l] b@x[owner-l]"),
            (
                "l: a, m\nm: b\nowner-l: o\nowner-m: p",
                "l",
                "a[owner-l] b[owner-m]",
            ),
            ("l: a, m\nm: b\nowner-l: o", "l", "a[owner-l] b[owner-l]"),
            ("owner-l: o\nowner-owner-l: x", "owner-l", "o"),
            (
                "a: |/bin/x, /dev/null, b",
                "a",
                "!|/bin/x(5.7.1) !/dev/null(5.7.1) b",
            ),
        ];
        for (text, name, want) in table {
            assert_eq!(show(text, name), want, "{text:?} {name}");
        }
    }

    #[test]
    fn a_long_chain_ends() {
        let mut text = String::new();
        for i in 0..60 {
            text.push_str(&format!("a{i}: a{}\n", i + 1));
        }
        assert_eq!(show(&text, "a10"), "a60");
        assert_eq!(show(&text, "a0"), "!a51(5.4.6)");
    }

    #[test]
    fn lists_are_read_at_each_expansion_and_with_care() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list");
        let (aliases, _) =
            Aliases::from_text("a", format!("l: :include:{}\n", list.display()).as_bytes());
        let l = LocalPart::new("l").unwrap();
        let expand = || {
            aliases
                .expand(&l, Some('+'), &ours)
                .map(|e| words(&e))
                .map_err(|e| e.to_string())
        };

        assert!(expand().unwrap_err().contains("No such file"));
        fs::write(&list, "ann\n# gone: bob\ncarl@x, l\n").unwrap();
        fs::set_permissions(&list, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(expand().unwrap(), "ann carl@x l");
        fs::write(&list, "").unwrap();
        assert_eq!(expand().unwrap(), "!l(5.7.1)");

        for bad in [
            "ann bob\n",
            "|/bin/sh\n",
            "/tmp/x\n",
            ":include:/etc/passwd\n",
        ] {
            fs::write(&list, bad).unwrap();
            assert!(expand().is_err(), "{bad}");
        }
        fs::write(&list, "ann\n").unwrap();
        fs::set_permissions(&list, fs::Permissions::from_mode(0o664)).unwrap();
        assert!(expand().unwrap_err().contains("chmod go-w"));
        fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(expand().unwrap_err().contains("everybody can write"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(expand().is_ok());
        fs::remove_file(&list).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &list).unwrap();
        assert!(expand().is_err());
        fs::remove_file(&list).unwrap();
        nix::unistd::mkfifo(&list, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(expand().is_err());
    }
}
