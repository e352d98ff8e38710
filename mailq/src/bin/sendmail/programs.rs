//! The other programs of yubin, by their documented command lines.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base::sys::{self, Fork};
use base::{Doing, Fail, Root, Sysexit};

/// Where programs are, if not beside this one.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];
/// How long a daemon that is going to fail at its start takes for it.
const SETTLE: Duration = Duration::from_millis(700);

/// The program called `name`: beside this one, else where programs are installed.
fn find(name: &str) -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|me| me.parent().map(|dir| dir.join(name)));
    beside
        .into_iter()
        .chain(DIRECTORIES.map(|dir| Path::new(dir).join(name)))
        .find(|path| path.is_file())
        .unwrap_or_else(|| Path::new("/usr/sbin").join(name))
}

fn command(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(find(name));
    command.args(args);
    command
}

/// Becomes the program; comes back only with what went wrong.
pub(crate) fn exec(name: &str, args: &[&str]) -> Fail {
    let mut command = command(name, args);
    let error = command.exec();
    Fail::io(format!("run {}", command.get_program().display()), error)
        .with_code(Sysexit::Unavailable)
}

/// Runs the programs at the same time, waits for all, and fails with the first one's exit code
/// that is not 0. They have said what went wrong.
pub(crate) fn run_all(programs: &[(&str, &[&str])]) -> Result<Sysexit, Fail> {
    let mut children = Vec::new();
    for (name, args) in programs {
        let mut command = command(name, args);
        children.push((*name, command.spawn().doing(|| format!("run {name}"))?));
    }
    let mut worst = Sysexit::Ok;
    for (name, mut child) in children {
        let status = child.wait().doing(|| format!("wait for {name}"))?;
        if worst == Sysexit::Ok {
            worst = exit_code(status.code());
        }
    }
    Ok(worst)
}

fn exit_code(code: Option<i32>) -> Sysexit {
    code.and_then(Sysexit::from_code)
        .unwrap_or(Sysexit::Software)
}

/// Starts the daemons in the background, in a session of their own without a terminal. The
/// configuration is checked first, by each of them; one that ends at once is reported, and then
/// the others are stopped again.
pub(crate) fn start(root: &Root, names: &[&str]) -> Result<Sysexit, Fail> {
    for name in names {
        let doing = || format!("run {name} -n");
        let checked = command(name, &["-n"])
            .stdout(Stdio::null())
            .status()
            .doing(doing)?;
        if !checked.success() {
            return Ok(exit_code(checked.code()));
        }
    }
    match sys::fork().doing(|| "fork")? {
        Fork::Parent(child) => {
            let status = nix::sys::wait::waitpid(child, None).doing(|| "wait for the daemons")?;
            Ok(match status {
                nix::sys::wait::WaitStatus::Exited(_, code) => exit_code(Some(code)),
                _ => Sysexit::Software,
            })
        }
        Fork::Child => {
            nix::unistd::setsid().doing(|| "begin a session")?;
            launch(root, names)
        }
    }
}

/// In the child that leads the new session: starts them and sees whether they stay.
fn launch(root: &Root, names: &[&str]) -> Result<Sysexit, Fail> {
    let mut children: Vec<(&str, Child)> = Vec::new();
    for name in names {
        let mut command = command(name, &[]);
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(log) = log_of(root)? {
            command.stderr(log);
        }
        match command.spawn().doing(|| format!("run {name}")) {
            Ok(child) => children.push((name, child)),
            Err(fail) => {
                stop(&mut children);
                return Err(fail);
            }
        }
    }
    let begin = Instant::now();
    while begin.elapsed() < SETTLE {
        for (name, child) in &mut children {
            if let Some(status) = child.try_wait().doing(|| format!("wait for {name}"))? {
                let code = exit_code(status.code());
                let fail = Fail::new(code, format!("{name} ended at its start, see the log"));
                stop(&mut children);
                return Err(fail);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Sysexit::Ok)
}

/// Asks them to end, as an operator would.
fn stop(children: &mut [(&str, Child)]) {
    for (_, child) in children {
        if let Ok(id) = i32::try_from(child.id()) {
            let pid = nix::unistd::Pid::from_raw(id);
            // One that is gone already is what was wanted.
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        }
    }
}

/// Where a daemon without a terminal logs: a file of the private root; on an installed system
/// syslog, which a daemon takes where its stderr is a socket. `None`: where we do.
fn log_of(root: &Root) -> Result<Option<Stdio>, Fail> {
    if root.is_private() {
        let path = root.path("/var/log/mail.log");
        if !path.parent().is_some_and(Path::is_dir) {
            return Ok(None);
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .doing(|| format!("open {}", path.display()))?;
        return Ok(Some(file.into()));
    }
    if !Path::new("/dev/log").exists() {
        return Ok(None);
    }
    let socket = UnixDatagram::unbound().doing(|| "make a socket")?;
    Ok(Some(OwnedFd::from(socket).into()))
}
