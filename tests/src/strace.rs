//! Reads a log of `strace -f -y -xx`: every call with when it began and when it ended, so that
//! calls of several threads can be put in order.
//!
//! With `-xx` every string and every path is written in hex, so commas and brackets in the log are
//! strace's own.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is traced: everything that changes or syncs files, and what is said to the outside.
const CALLS: &str = "trace=openat,?openat2,?open,?creat,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,\
    lseek,ftruncate,truncate,fallocate,fsync,fdatasync,sync,syncfs,linkat,?link,?rename,renameat,\
    renameat2,?unlink,unlinkat,?rmdir,?mkdir,mkdirat,fchmod,fchmodat,?chmod,copy_file_range,\
    sendfile,splice,?clone,clone3,?fork,?vfork";

/// `strace` that writes to `log`; add what to run, or `-p PID`.
pub fn command(log: &Path) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-xx", "-s", "100000000", "-e", CALLS, "-o"])
        .arg(log);
    command
}

/// One system call that worked.
#[derive(Debug)]
pub struct Call {
    /// The line where it began.
    pub began: usize,
    /// The line where it ended.
    pub ended: usize,
    /// The process, whichever of its threads it was.
    pub process: u32,
    pub name: String,
    args: Vec<String>,
    result: String,
}

/// What a descriptor was open for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// A file or a directory.
    Path(PathBuf),
    /// A file without a name, by its inode number.
    Unnamed(PathBuf),
    /// A file whose name is gone.
    Deleted,
    /// A socket, a pipe ...
    Other,
}

/// All calls of a log that worked, in the order in which they ended.
pub fn read(log: &str) -> Vec<Call> {
    let mut begun: HashMap<u32, (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in log.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else {
            continue;
        };
        let thread = thread.parse().unwrap();
        let text = text.trim_start();
        if let Some(start) = text.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, (number, start.into()));
        } else if text.starts_with("<... ") {
            let rest = text.split_once(" resumed>").map_or("", |(_, rest)| rest);
            if let Some((began, start)) = begun.remove(&thread) {
                calls.extend(Call::parse(
                    thread,
                    began,
                    number,
                    &format!("{start}{rest}"),
                ));
            }
        } else {
            calls.extend(Call::parse(thread, number, number, text));
        }
    }
    let mut started_by = HashMap::new();
    for call in &calls {
        if call.name.starts_with("clone") && call.args.iter().any(|a| a.contains("CLONE_THREAD")) {
            started_by.insert(u32::try_from(call.result()).unwrap(), call.process);
        }
    }
    for call in &mut calls {
        while let Some(process) = started_by.get(&call.process) {
            call.process = *process;
        }
    }
    calls
}

impl Call {
    /// `None` for signals, exits and calls that failed.
    fn parse(process: u32, began: usize, ended: usize, text: &str) -> Option<Self> {
        let (call, result) = text.rsplit_once(" = ")?;
        let (name, args) = call.trim_end().strip_suffix(')')?.split_once('(')?;
        let worked = result.starts_with(|c: char| c.is_ascii_digit());
        worked.then(|| Self {
            began,
            ended,
            process,
            name: name.into(),
            args: split(args),
            result: result.into(),
        })
    }

    /// An argument as it stands.
    pub fn arg(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    /// A number; octal with its leading zero.
    pub fn number(&self, at: usize) -> u64 {
        let text = self.arg(at);
        let octal = text.strip_prefix('0').filter(|rest| !rest.is_empty());
        match octal {
            Some(digits) => u64::from_str_radix(digits, 8),
            None => text.parse(),
        }
        .unwrap_or_else(|_| panic!("not a number: {text} in {self:?}"))
    }

    /// What it returned.
    pub fn result(&self) -> u64 {
        let digits = self.result.split(|c: char| !c.is_ascii_digit()).next();
        digits
            .and_then(|d| d.parse().ok())
            .unwrap_or_else(|| panic!("{self:?}"))
    }

    /// The descriptor that it returned.
    pub fn result_open(&self) -> Open {
        open(&self.result)
    }

    /// The descriptor that an argument is.
    pub fn open(&self, at: usize) -> Open {
        open(self.arg(at))
    }

    /// The path that a directory descriptor and a name make, or that a name is.
    pub fn path(&self, dir: Option<usize>, name: usize) -> PathBuf {
        let name = PathBuf::from(OsString::from_vec(self.bytes(name)));
        match dir.map(|dir| self.open(dir)) {
            Some(Open::Path(dir)) => match name.strip_prefix(".") {
                Ok(rest) if rest.as_os_str().is_empty() => dir,
                _ => dir.join(name),
            },
            _ => name,
        }
    }

    /// A string; all strings of an array of them, joined.
    pub fn bytes(&self, at: usize) -> Vec<u8> {
        let text = self.arg(at);
        assert!(
            !text.contains("\"..."),
            "strace cut a string off: {}",
            self.name
        );
        text.split('"').skip(1).step_by(2).flat_map(unhex).collect()
    }
}

/// `3</path>`, `AT_FDCWD</path>`, `4</path/#123>(deleted)`, `5<socket:[77]>`.
fn open(text: &str) -> Open {
    let Some((_, rest)) = text.split_once('<') else {
        return Open::Other;
    };
    let Some((path, after)) = rest.rsplit_once('>') else {
        return Open::Other;
    };
    let mut path = unhex(path);
    let deleted = path.ends_with(b" (deleted)") || after.contains("deleted");
    if path.ends_with(b" (deleted)") {
        path.truncate(path.len() - " (deleted)".len());
    }
    if !path.starts_with(b"/") {
        return Open::Other;
    }
    let path = PathBuf::from(OsString::from_vec(path));
    let unnamed = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with('#'));
    match (unnamed, deleted) {
        (true, _) => Open::Unnamed(path),
        (false, true) => Open::Deleted,
        (false, false) => Open::Path(path),
    }
}

/// `\x2f\x74`; what is not in hex stays.
fn unhex(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = rest
            .strip_prefix(b"\\x")
            .and_then(|r| r.split_at_checked(2));
        let byte = hex.and_then(|(digits, after)| {
            Some((
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?,
                after,
            ))
        });
        let (byte, next) = byte.unwrap_or((*first, after));
        out.push(byte);
        rest = next;
    }
    out
}

/// Arguments, split at the commas that stand in no bracket.
fn split(args: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut depth = 0;
    for c in args.chars() {
        match c {
            '[' | '{' | '(' => depth += 1,
            ']' | '}' | ')' => depth -= 1,
            _ => (),
        }
        match (c, out.last_mut()) {
            (',', _) if depth == 0 => out.push(String::new()),
            (' ', Some(last)) if last.is_empty() => (),
            (c, Some(last)) => last.push(c),
            (_, None) => (),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_put_together() {
        let log = concat!(
            "10 openat(3<\\x2f\\x64>, \"\\x2e\", O_RDWR|O_CLOEXEC|O_TMPFILE, 0600) = 4<\\x2f\\x64\\x2f\\x23\\x37>(deleted)\n",
            "10 fsync(3<\\x2f\\x64> <unfinished ...>\n",
            "11 writev(1<\\x70\\x69\\x70\\x65:[7]>, [{iov_base=\"\\x61\", iov_len=1}, {iov_base=\"\\x2c\\x5d\", iov_len=2}], 2) = 3\n",
            "10 <... fsync resumed>)              = 0\n",
            "10 openat(AT_FDCWD<\\x2f>, \"\\x78\", O_RDONLY) = -1 ENOENT (No such file or directory)\n",
            "10 +++ exited with 0 +++\n",
        );
        let calls = read(log);
        let names: Vec<_> = calls
            .iter()
            .map(|c| (c.name.as_str(), c.began, c.ended))
            .collect();
        assert_eq!(names, [("openat", 0, 0), ("writev", 2, 2), ("fsync", 1, 3)]);
        assert_eq!(calls[0].path(Some(0), 1), Path::new("/d"));
        assert_eq!(calls[0].result_open(), Open::Unnamed("/d/#7".into()));
        assert_eq!(calls[0].number(3), 0o600);
        assert_eq!(calls[1].bytes(1), b"a,]");
        assert_eq!(calls[1].open(0), Open::Other);
        assert_eq!(calls[2].open(0), Open::Path("/d".into()));
    }
}
