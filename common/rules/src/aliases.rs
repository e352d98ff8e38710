//! The aliases files: local name to who gets its mail, in sendmail's form. See aliases(5).
//!
//! Guarantees: names are folded, a lookup is one hash; a file with a wrong line is not used at all
//! (the problems are named with file and line, and what was in force stays in force); an expansion
//! ends, whatever the files say. `postmaster` and `mailer-daemon` go to `root` where no line says
//! otherwise (RFC 5321 4.5.1: there is always a postmaster).
//!
//! Whether a name without an alias is a user, and what a remote address means, is for others.

mod expand;
mod parse;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base::escape::escape;
use base::{Address, Doing, Fail, LocalPart};

pub use expand::{Expansion, Leaf, What};

/// A file of aliases is read into memory: this many bytes at most.
pub const MAX_FILE: u64 = 64 << 20;

/// One entry of an alias's right-hand side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `ann@example.org`: may still be one of our domains.
    Address(Address),
    /// `ann`: looked up again.
    Local(LocalPart),
    /// `\ann`: the user, without another look at the aliases.
    User(LocalPart),
    /// `/var/log/mail-of-x`
    File(PathBuf),
    /// `|/usr/bin/program and its arguments`
    Program(String),
    /// `:include:/etc/lists/x`: read at each expansion.
    Include(PathBuf),
}

/// What is wrong in a file, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    /// 0 where it is about more than one line.
    pub line: usize,
    pub text: String,
    /// The file is not used while this stands in it.
    pub fatal: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.text),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.text),
        }
    }
}

/// All aliases of this host.
#[derive(Debug, Default)]
pub struct Aliases {
    table: HashMap<String, Vec<Target>>,
    sources: Vec<Source>,
    tallies: Vec<Tally>,
}

/// What is in one file, as `newaliases` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    pub file: PathBuf,
    /// Names.
    pub aliases: usize,
    /// Octets of the longest right-hand side.
    pub longest: usize,
    /// Octets of all names and right-hand sides.
    pub octets: usize,
}

/// A file and how it looked when it was read. A file that is not there is an empty one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    path: PathBuf,
    stamp: Option<Stamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &std::fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Tally {
    fn count(&mut self, name: &LocalPart, targets: &[Target]) {
        let separators = targets.len().saturating_sub(1).saturating_mul(2);
        let octets: usize = targets.iter().map(Target::octets).sum();
        let right = octets.saturating_add(separators);
        self.aliases = self.aliases.saturating_add(1);
        self.longest = self.longest.max(right);
        self.octets = self
            .octets
            .saturating_add(name.as_str().len())
            .saturating_add(right);
    }
}

impl Target {
    /// How long it is as it stands in the file.
    fn octets(&self) -> usize {
        match self {
            Self::Address(address) => address.to_string().len(),
            Self::Local(name) => name.to_string().len(),
            Self::User(name) => name.to_string().len().saturating_add(1),
            Self::File(path) => path.as_os_str().len(),
            Self::Program(command) => command.len().saturating_add(1),
            Self::Include(path) => path.as_os_str().len().saturating_add(":include:".len()),
        }
    }
}

impl Aliases {
    /// Reads the files in this order; the first line for a name counts. The second part are
    /// warnings. A file that does not exist is empty; one with a wrong line fails the whole load
    /// with EX_CONFIG.
    pub fn load(files: &[PathBuf]) -> Result<(Self, Vec<Problem>), Fail> {
        let (aliases, problems) = Self::read(files)?;
        let wrong: Vec<String> = problems
            .iter()
            .filter(|p| p.fatal)
            .map(ToString::to_string)
            .collect();
        match wrong.first() {
            None => Ok((aliases, problems)),
            Some(first) if wrong.len() == 1 => Err(Fail::config(first.as_str())),
            Some(first) => {
                let more = wrong.len().saturating_sub(1);
                Err(Fail::config(format!(
                    "{first} (and {more} more; newaliases lists them)"
                )))
            }
        }
    }

    /// Like [`Aliases::load`], with every problem in the list and all good lines in the table:
    /// what `newaliases` shows.
    pub fn read(files: &[PathBuf]) -> Result<(Self, Vec<Problem>), Fail> {
        let mut aliases = Self::default();
        let mut problems = Vec::new();
        for path in files {
            let (stamp, text) = slurp(path)?;
            aliases.add(path, &text, &mut problems);
            aliases.sources.push(Source {
                path: path.clone(),
                stamp,
            });
        }
        aliases.find_loops(&mut problems);
        aliases.fill_in();
        Ok((aliases, problems))
    }

    /// From text alone: for tests and for `-bt`.
    pub fn from_text(name: &str, text: &[u8]) -> (Self, Vec<Problem>) {
        let mut aliases = Self::default();
        let mut problems = Vec::new();
        aliases.add(Path::new(name), text, &mut problems);
        aliases.find_loops(&mut problems);
        aliases.fill_in();
        (aliases, problems)
    }

    /// Reads the files again where one of them changed. `None`: nothing changed. On `Err` the
    /// aliases stay as they were, and the same broken file is not complained of twice.
    pub fn refresh(&mut self) -> Option<Result<Vec<Problem>, Fail>> {
        let now: Vec<Source> = self
            .sources
            .iter()
            .map(|s| Source {
                path: s.path.clone(),
                stamp: std::fs::metadata(&s.path).ok().map(|m| Stamp::of(&m)),
            })
            .collect();
        if now == self.sources {
            return None;
        }
        let files: Vec<PathBuf> = now.iter().map(|s| s.path.clone()).collect();
        match Self::load(&files) {
            Ok((aliases, warnings)) => {
                *self = aliases;
                Some(Ok(warnings))
            }
            Err(fail) => {
                self.sources = now;
                Some(Err(fail))
            }
        }
    }

    /// The right-hand side of a name, in any case of letters.
    pub fn lookup(&self, name: &LocalPart) -> Option<&[Target]> {
        self.table.get(&name.fold()).map(Vec::as_slice)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// What each file holds, in their order.
    pub fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    fn add(&mut self, file: &Path, text: &[u8], problems: &mut Vec<Problem>) {
        let mut tally = Tally {
            file: file.to_owned(),
            aliases: 0,
            longest: 0,
            octets: 0,
        };
        parse::file(
            file,
            text,
            problems,
            |line, name, targets, problems| match self.table.entry(name.fold()) {
                Entry::Vacant(slot) => {
                    tally.count(&name, &targets);
                    slot.insert(targets);
                }
                Entry::Occupied(_) => problems.push(Problem {
                    file: file.to_owned(),
                    line,
                    text: format!(
                        "{} stands above or in an earlier file already: this line is not used, \
                         delete one of them",
                        escape(name.as_str())
                    ),
                    fatal: false,
                }),
            },
        );
        self.tallies.push(tally);
    }

    /// The names that every host has.
    fn fill_in(&mut self) {
        if let Ok(root) = LocalPart::new("root") {
            for name in ["postmaster", "mailer-daemon"] {
                self.table
                    .entry(name.into())
                    .or_insert_with(|| vec![Target::Local(root.clone())]);
            }
        }
    }

    /// A warning for each ring of names that only lead to each other.
    fn find_loops(&self, problems: &mut Vec<Problem>) {
        let mut names: Vec<&String> = self.table.keys().collect();
        names.sort_unstable();
        let mut seen = std::collections::HashSet::new();
        for start in names {
            let mut path: Vec<&str> = Vec::new();
            let mut name = start.as_str();
            // Only chains of one name each are followed: a list that contains a ring still
            // delivers to its other members, and the expansion reports the ring.
            while seen.insert(name) {
                path.push(name);
                match self.table.get(name).map(Vec::as_slice) {
                    Some([Target::Local(next)]) => match self.table.get_key_value(&next.fold()) {
                        Some((next, _)) => name = next,
                        None => break,
                    },
                    _ => break,
                }
                let ring = path.iter().position(|p| *p == name);
                if let Some(ring) = ring.and_then(|at| path.get(at..)).filter(|r| r.len() > 1) {
                    problems.push(Problem {
                        file: self
                            .sources
                            .first()
                            .map_or_else(PathBuf::new, |s| s.path.clone()),
                        line: 0,
                        text: format!(
                            "{} lead in a circle: let one of them go to a user (\\name)",
                            escape(&ring.join(", "))
                        ),
                        fatal: false,
                    });
                }
            }
        }
    }
}

/// A file's bytes, with how it looked before they were read. No file: no bytes.
fn slurp(path: &Path) -> Result<(Option<Stamp>, Vec<u8>), Fail> {
    let doing = || format!("read aliases {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((None, Vec::new())),
        Err(e) => return Err(Fail::io(doing(), e)),
    };
    let meta = file.metadata().doing(doing)?;
    if !meta.is_file() {
        return Err(Fail::config(format!(
            "{}: not a regular file",
            path.display()
        )));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE.saturating_add(1))
        .read_to_end(&mut text)
        .doing(doing)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(Fail::config(format!(
            "{}: larger than {MAX_FILE} bytes",
            path.display()
        )));
    }
    Ok((Some(Stamp::of(&meta)), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn name(s: &str) -> LocalPart {
        LocalPart::new(s).unwrap()
    }

    #[test]
    fn there_is_always_a_postmaster() {
        let (a, problems) = Aliases::from_text("aliases", b"Root: ann\n");
        assert!(problems.is_empty());
        for n in ["postmaster", "MAILER-DAEMON", "PostMaster"] {
            assert_eq!(
                a.lookup(&name(n)),
                Some(&[Target::Local(name("root"))][..]),
                "{n}"
            );
        }
        assert_eq!(
            a.lookup(&name("ROOT")),
            Some(&[Target::Local(name("ann"))][..])
        );
        assert_eq!(a.lookup(&name("ann")), None);
        let (a, _) = Aliases::from_text("aliases", b"postmaster: bob\n");
        assert_eq!(
            a.lookup(&name("postmaster")),
            Some(&[Target::Local(name("bob"))][..])
        );
    }

    #[test]
    fn a_broken_file_is_not_used_and_the_old_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aliases");
        let files = [path.clone(), dir.path().join("none")];
        fs::write(&path, "a: b\n").unwrap();
        let (mut a, _) = Aliases::load(&files).unwrap();
        assert!(a.refresh().is_none());
        fs::write(&path, "a: c\nb c\n").unwrap();
        let said = a.refresh().unwrap().unwrap_err().to_string();
        assert!(said.contains("aliases:2: "), "{said}");
        assert!(a.refresh().is_none(), "said once");
        assert_eq!(a.lookup(&name("a")), Some(&[Target::Local(name("b"))][..]));
        fs::write(&path, "a: d\nb: c\n").unwrap();
        assert_eq!(a.refresh().unwrap().unwrap(), []);
        assert_eq!(a.lookup(&name("a")), Some(&[Target::Local(name("d"))][..]));
        fs::remove_file(&path).unwrap();
        assert!(a.refresh().unwrap().is_ok());
        assert_eq!(a.lookup(&name("a")), None);
    }

    #[test]
    fn the_first_line_counts_and_the_second_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::write(&one, "a: b\n").unwrap();
        fs::write(&two, "x: y\nA: c\n").unwrap();
        let (a, warnings) = Aliases::load(&[one, two.clone()]).unwrap();
        assert_eq!(a.lookup(&name("a")), Some(&[Target::Local(name("b"))][..]));
        assert_eq!(
            warnings
                .iter()
                .map(|p| (p.file.clone(), p.line))
                .collect::<Vec<_>>(),
            [(two, 2)]
        );
    }

    #[test]
    fn a_file_is_tallied_without_what_we_add() {
        let (a, _) = Aliases::from_text("aliases", b"a: b, c@x\nbb: \\bb\na: z\n");
        let [tally] = a.tallies() else { panic!() };
        assert_eq!(
            (tally.aliases, tally.longest, tally.octets),
            (2, "b, c@x".len(), "ab, c@xbb\\bb".len())
        );
    }

    #[test]
    fn circles_are_warned_of() {
        let table: [(&str, usize); 5] = [
            ("a: b\nb: c\nc: a\nd: a\n", 1),
            ("ann: ann\n", 0),
            ("ann: ann, bob\n", 0),
            ("a: b\nb: c\nc: d\n", 0),
            ("a: b\nb: a\nc: d\nd: c\n", 2),
        ];
        for (text, count) in table {
            let (_, problems) = Aliases::from_text("aliases", text.as_bytes());
            assert_eq!(problems.len(), count, "{text}: {problems:?}");
        }
    }
}
