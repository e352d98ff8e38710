//! The operator's programs that know whether a login is right: run with a secret on their standard
//! input, never in arguments or environment, and with limits on their time and on what they say.
//!
//! What they say on standard error goes nowhere: in a session of inetd that would be the client.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base::{Doing, Fail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User, geteuid};

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Octets that it may say: a user's name.
const MAX_OUTPUT: usize = 512;
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// What became of a program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) output: Vec<u8>,
}

/// A command with nothing of our environment but a path and what the login is for.
pub(crate) fn command(program: &Path, service: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("SERVICE", service)
        .current_dir("/");
    command
}

/// Runs it to its end. An error is a doubt: it did not start, took too long or said too much.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Result<Said, Fail> {
    run_for(command, input, MAX_OUTPUT)
}

/// The same for one that may say so many octets.
pub(crate) fn run_for(command: &mut Command, input: &[u8], limit: usize) -> Result<Said, Fail> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .doing(|| format!("start {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It fits into a pipe, and who does not read it says no by the exit status.
        stdin.write_all(input).ok();
    }
    let ended = wait(&mut child, limit);
    if ended.is_err() {
        // Its children too: it is the first of its own group.
        if let Ok(pid) = i32::try_from(child.id()) {
            killpg(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        child.wait().ok();
    }
    ended.map_err(|what| Fail::temp(format!("{name} {what}")))
}

fn wait(child: &mut Child, limit: usize) -> Result<Said, String> {
    let until = Instant::now() + PATIENCE;
    let mut stdout = child.stdout.take();
    let mut output = Vec::new();
    loop {
        let ended = child.try_wait().map_err(|e| e.to_string())?;
        // What it said before its end is in the pipe.
        while let Some(pipe) = &mut stdout
            && is_ready(
                pipe,
                if ended.is_some() {
                    Duration::ZERO
                } else {
                    LOOK
                },
            )?
        {
            let mut chunk = [0; MAX_OUTPUT];
            let n = pipe.read(&mut chunk).map_err(|e| e.to_string())?;
            output.extend_from_slice(chunk.get(..n).unwrap_or_default());
            if output.len() > limit {
                return Err("says too much".into());
            }
            if n == 0 {
                stdout = None;
            }
        }
        if let Some(status) = ended {
            let code = status.code();
            return Ok(Said { code, output });
        }
        if Instant::now() > until {
            return Err(format!("did not end in {} s", PATIENCE.as_secs()));
        }
        if stdout.is_none() {
            thread::sleep(LOOK);
        }
    }
}

fn is_ready(pipe: &ChildStdout, wait: Duration) -> Result<bool, String> {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, timeout) {
        Ok(n) => Ok(n > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(e) => Err(e.to_string()),
    }
}

/// Whether it can be run, and whether nobody but its owner can change it: root runs it.
pub(crate) fn check(key: &str, program: &Path) -> Result<(), Fail> {
    let shown = program.display();
    let meta = std::fs::metadata(program)
        .map_err(|e| Fail::config(format!("{key}: open {shown}: {e}")))?;
    if !program.is_absolute() || !meta.is_file() || meta.mode() & 0o111 == 0 {
        return Err(Fail::config(format!(
            "{key}: {shown} is no program, write the absolute path of one that may be executed"
        )));
    }
    if geteuid().is_root() && meta.mode() & 0o022 != 0 {
        return Err(Fail::config(format!(
            "{key}: not only its owner may change {shown}, mend with: chmod go-w {shown}"
        )));
    }
    Ok(())
}

/// Gives up root for one that reads what strangers wrote: for the owner of its file, or, where that
/// is root, for `nobody`.
pub(crate) fn without_root(command: &mut Command) -> Result<(), Fail> {
    let meta = std::fs::metadata(command.get_program())
        .doing(|| format!("open {}", command.get_program().to_string_lossy()))?;
    let (uid, gid) = match meta.uid() {
        0 => {
            let nobody = User::from_name("nobody").doing(|| "look up user nobody")?;
            let nobody = nobody.ok_or_else(|| Fail::temp("user nobody does not exist"))?;
            (nobody.uid.as_raw(), nobody.gid.as_raw())
        }
        uid => (uid, meta.gid()),
    };
    // With a uid the groups go too.
    command.uid(uid).gid(gid);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, input: &[u8]) -> Result<Said, Fail> {
        run(
            command(Path::new("/bin/sh"), "imap").args(["-c", script]),
            input,
        )
    }

    #[test]
    fn a_program_reads_its_input_and_says_its_verdict() {
        let said = |code, output: &[u8]| Said {
            code: Some(code),
            output: output.to_vec(),
        };
        assert_eq!(sh("cat; exit 3", b"a\0b").unwrap(), said(3, b"a\0b"));
        assert_eq!(
            sh("exec <&- >&-; exit 1", &[b'x'; 8000]).unwrap(),
            said(1, b"")
        );
        assert_eq!(sh("kill -9 $$", b"").unwrap().code, None);
        // A child that keeps the pipe open keeps nobody waiting.
        let begun = Instant::now();
        assert_eq!(sh("sleep 15 & echo ann", b"").unwrap(), said(0, b"ann\n"));
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(sh("yes", b"").is_err());
        assert!(run(&mut command(Path::new("/nowhere"), "imap"), b"").is_err());
    }

    #[test]
    fn nothing_of_our_environment_is_in_its() {
        let said = sh("env | sort | cut -d= -f1 | tr '\\n' ' '; pwd", b"").unwrap();
        let said = String::from_utf8(said.output).unwrap();
        let words = said.replace("_ ", "");
        assert_eq!(words, "PATH PWD SERVICE /\n");
    }

    #[test]
    fn who_reads_what_strangers_wrote_is_not_root() {
        if !geteuid().is_root() {
            return; // there is nothing to give up
        }
        let mut command = command(Path::new("/bin/sh"), "imap");
        command.args(["-c", "id -u; id -G"]);
        without_root(&mut command).unwrap();
        let said = String::from_utf8(run(&mut command, b"").unwrap().output).unwrap();
        assert!(said.lines().all(|line| line != "0"), "{said}");
    }

    #[test]
    fn what_is_no_program_is_told_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        std::fs::write(&file, "").unwrap();
        assert!(check("KEY", Path::new("/bin/sh")).is_ok());
        for bad in [&file, dir.path(), Path::new("/nowhere"), Path::new("sh")] {
            assert!(check("KEY", bad).is_err(), "{}", bad.display());
        }
    }
}
