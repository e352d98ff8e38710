//! Where commands and texts are typed, and where they show: lines of standard input with ^C in
//! between, standard output, the size of the screen, the pager.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use base::{Doing, Fail, Sysexit, sys};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A line longer than this comes as several.
const MAX_LINE: usize = 1 << 20;
/// A screen where nobody says how large it is.
const ROWS: usize = 24;
const COLUMNS: usize = 80;

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Without its line end.
    Line(String),
    /// ^D, or the end of the file.
    End,
    /// ^C
    Interrupt,
}

/// Standard input and output.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Somebody types.
    pub(crate) interactive: bool,
    buffer: Vec<u8>,
    ended: bool,
    /// Gets a byte for each ^C.
    interrupts: Option<UnixStream>,
}

impl Terminal {
    /// With `catch`, ^C is told by [`Terminal::line`] where somebody types; it ends the program
    /// otherwise.
    pub(crate) fn open(catch: bool) -> Result<Self, Fail> {
        let interactive = io::stdin().is_terminal();
        let interrupts = if catch && interactive {
            let doing = || "catch ^C";
            let (ours, theirs) = UnixStream::pair().doing(doing)?;
            ours.set_nonblocking(true).doing(doing)?;
            theirs.set_nonblocking(true).doing(doing)?;
            signal_hook::low_level::pipe::register(signal_hook::consts::SIGINT, theirs)
                .doing(doing)?;
            Some(ours)
        } else {
            None
        };
        Ok(Self {
            interactive,
            buffer: Vec::new(),
            ended: false,
            interrupts,
        })
    }

    /// The next line; before it, where somebody types, `prompt`.
    pub(crate) fn line(&mut self, prompt: &str) -> Result<Typed, Fail> {
        if self.interactive {
            self.show(prompt)?;
        }
        loop {
            let newline = self.buffer.iter().position(|b| *b == b'\n');
            let cut = match newline {
                Some(at) => Some(at + 1),
                None if self.buffer.len() >= MAX_LINE || self.ended => Some(self.buffer.len()),
                None => None,
            };
            match cut {
                Some(0) => {
                    // On a terminal ^D ends this question, not all that follow.
                    self.ended = !self.interactive;
                    return Ok(Typed::End);
                }
                Some(length) => {
                    let mut line: Vec<u8> = self.buffer.drain(..length).collect();
                    while matches!(line.last(), Some(b'\n' | b'\r')) {
                        line.pop();
                    }
                    return Ok(Typed::Line(mime::charset::guess(&line)));
                }
                None => {}
            }
            if !self.read()? {
                self.buffer.clear();
                return Ok(Typed::Interrupt);
            }
        }
    }

    /// Reads some more; `false` for ^C.
    fn read(&mut self) -> Result<bool, Fail> {
        let doing = || "read standard input";
        let stdin = io::stdin();
        if let Some(interrupts) = &mut self.interrupts {
            let mut fds = [
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
                PollFd::new(interrupts.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e).doing(doing),
            }
            let typed = fds.first().and_then(PollFd::any) == Some(true);
            if interrupts.read(&mut [0; 64]).is_ok_and(|n| n > 0) {
                return Ok(false);
            }
            if !typed {
                return Ok(true);
            }
        }
        let mut piece = [0; 8192];
        match nix::unistd::read(stdin.as_fd(), &mut piece) {
            Ok(0) => self.ended = true,
            Ok(n) => self
                .buffer
                .extend_from_slice(piece.get(..n).unwrap_or_default()),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e).doing(doing),
        }
        Ok(true)
    }

    /// Forgets a ^C that was meant for a program that has ended.
    pub(crate) fn forget_interrupts(&mut self) {
        if let Some(interrupts) = &mut self.interrupts {
            while interrupts.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
        }
    }

    /// Everything that is still to be read, at most `limit` octets: a message from a pipe.
    pub(crate) fn rest(&mut self, limit: u64) -> Result<Vec<u8>, Fail> {
        let mut text = std::mem::take(&mut self.buffer);
        let read = io::stdin()
            .lock()
            .take(limit.saturating_add(1))
            .read_to_end(&mut text);
        read.doing(|| "read the message")?;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > limit {
            let what = format!("the message is larger than {limit} octets");
            return Err(Fail::new(Sysexit::Unavailable, what));
        }
        Ok(text)
    }

    /// Shows text as it is: whoever calls has cleaned it.
    pub(crate) fn show(&self, text: &str) -> Result<(), Fail> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .doing(|| "write to standard output")
            .map_err(|fail| fail.with_code(Sysexit::IoErr))
    }

    /// The same with a line end.
    pub(crate) fn say(&self, text: &str) -> Result<(), Fail> {
        self.show(&format!("{text}\n"))
    }

    /// Rows and columns.
    pub(crate) fn size(&self) -> (usize, usize) {
        let told = |name| std::env::var(name).ok()?.parse().ok().filter(|n| *n > 0);
        let (rows, columns) = sys::window_size(io::stdout()).unwrap_or((0, 0));
        let pick = |real: u16, name, default| match real {
            0 => told(name).unwrap_or(default),
            _ => usize::from(real),
        };
        (pick(rows, "LINES", ROWS), pick(columns, "COLUMNS", COLUMNS))
    }

    /// Shows a text of more than `crt` lines through the pager, if somebody is there to page.
    pub(crate) fn page(&mut self, text: &str, crt: Option<usize>, pager: &str) -> Result<(), Fail> {
        let long = crt.is_some_and(|crt| text.lines().count() > crt);
        if !long || !self.interactive || !io::stdout().is_terminal() {
            return self.show(text);
        }
        let child = shell(pager).stdin(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            return self.show(text);
        };
        if let Some(mut input) = child.stdin.take() {
            // A pager that is left early has shown enough.
            input.write_all(text.as_bytes()).ok();
        }
        child.wait().doing(|| format!("wait for {pager}"))?;
        self.forget_interrupts();
        Ok(())
    }

    /// Runs a command of the user's, with the terminal; not with the commands still to be read.
    pub(crate) fn run(&mut self, command: &str) -> Result<(), Fail> {
        let mut shell = shell(command);
        if !self.interactive {
            shell.stdin(Stdio::null());
        }
        let ended = shell.status().doing(|| format!("run {command}"));
        self.forget_interrupts();
        if !ended?.success() {
            return Err(Fail::new(
                Sysexit::Unavailable,
                format!("{command}: failed"),
            ));
        }
        Ok(())
    }

    /// Runs a command with a text on its standard input; gives what it wrote if `keep`.
    pub(crate) fn pipe(&mut self, command: &str, text: &[u8], keep: bool) -> Result<Vec<u8>, Fail> {
        let doing = || format!("run {command}");
        let mut shell = shell(command);
        shell.stdin(Stdio::piped());
        if keep {
            shell.stdout(Stdio::piped());
        }
        let mut child = shell.spawn().doing(doing)?;
        let input = child.stdin.take();
        // A filter may write before it has read all: one thread for each direction.
        let ended = std::thread::scope(|scope| {
            scope.spawn(move || input.map(|mut input| input.write_all(text)));
            child.wait_with_output()
        });
        self.forget_interrupts();
        let ended = ended.doing(doing)?;
        if !ended.status.success() {
            return Err(Fail::new(
                Sysexit::Unavailable,
                format!("{command}: failed"),
            ));
        }
        Ok(ended.stdout)
    }
}

/// A command line for the user's shell.
fn shell(command: &str) -> Command {
    let shell = std::env::var_os("SHELL").filter(|s| !s.is_empty());
    let mut shell = Command::new(shell.unwrap_or_else(|| "/bin/sh".into()));
    shell.arg("-c").arg(command);
    shell
}
