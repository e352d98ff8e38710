//! One line an event, on stderr, or on syslog (facility mail) where fd 2 is a socket: inetd makes it
//! the peer's, and a line there would be part of the session. Without syslog nothing is said then.
//!
//! On stderr a line is `smtpd: text`; with a UTC stamp before it when a terminal or a file reads,
//! with `<N>` before it when journald does (`JOURNAL_STREAM`). The level comes from `YUBIN_LOG`
//! (error, warn, info, debug, trace), info unless told. Peers' bytes go through
//! [`crate::escape`] first; message bodies and secrets never come here.

use std::io::Write;
use std::os::unix::net::UnixDatagram;

use log::{Level, LevelFilter, Metadata, Record};
use nix::sys::stat::{FileStat, SFlag, fstat};

use crate::date::{self, Date};

/// RFC 5424's facility 2, mail.
const FACILITY_MAIL: u8 = 2 << 3;

/// For daemons: everything from `info` on. Safe to call more than once; the first wins.
pub fn init(program: &'static str) {
    start(program, LevelFilter::Info, true);
}

/// For commands that a person runs: warnings and errors, as `program: text`, no stamp.
pub fn init_command(program: &'static str) {
    start(program, LevelFilter::Warn, false);
}

fn start(program: &'static str, default: LevelFilter, stamp: bool) {
    let level = std::env::var("YUBIN_LOG")
        .ok()
        .and_then(|l| l.parse().ok())
        .unwrap_or(default);
    let journal = stderr_is_journal();
    if stamp && !journal && stderr_is_socket() {
        if let Some(syslog) = Syslog::connect(program, level)
            && log::set_boxed_logger(Box::new(syslog)).is_ok()
        {
            log::set_max_level(level);
        }
        return;
    }
    // The result says only whether a logger was there before.
    env_logger::Builder::new()
        .filter_level(level)
        .format(move |out, record| {
            if journal {
                write!(out, "<{}>", severity(record.level()))?;
            } else if stamp {
                write!(out, "{} ", Date::utc(date::now()).iso8601())?;
            }
            writeln!(out, "{program}: {}", record.args())
        })
        .try_init()
        .ok();
}

/// systemd.exec(5): the variable has the device and inode of journald's stream. It alone says
/// nothing: an inetd that systemd started hands it on to programs whose fd 2 is another.
fn stderr_is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    fstat(std::io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

fn stderr_is_socket() -> bool {
    let kind = |stat: FileStat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    fstat(std::io::stderr()).is_ok_and(|stat| kind(stat) == SFlag::S_IFSOCK)
}

/// RFC 5424's severities.
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

struct Syslog {
    program: &'static str,
    level: LevelFilter,
    socket: UnixDatagram,
}

impl Syslog {
    fn connect(program: &'static str, level: LevelFilter) -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect("/dev/log").ok()?;
        // A stuck syslog must not stop the mail.
        socket.set_nonblocking(true).ok()?;
        Some(Self {
            program,
            level,
            socket,
        })
    }
}

impl log::Log for Syslog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!(
                "<{}>{}[{}]: {}",
                FACILITY_MAIL | severity(record.level()),
                self.program,
                std::process::id(),
                record.args()
            );
            self.socket.send(line.as_bytes()).ok();
        }
    }

    fn flush(&self) {}
}
