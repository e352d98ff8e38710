//! One line an event, on stderr, or on syslog (facility mail) where fd 2 is a socket or closed to us.
//!
//! On stderr a line is `smtpd: text`; with a UTC stamp before it when a terminal or a file reads,
//! with `<N>` before it when journald does (`JOURNAL_STREAM`). The level comes from `YUBIN_LOG`
//! (error, warn, info, debug, trace), info unless told. Peers' bytes go through
//! [`crate::escape`] first; message bodies and secrets never come here.

use std::io::Write;
use std::os::unix::net::UnixDatagram;

use log::{Level, LevelFilter, Metadata, Record};

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
    if stamp
        && stderr_is_socket()
        && std::env::var_os("JOURNAL_STREAM").is_none()
        && let Some(syslog) = Syslog::connect(program, level)
    {
        if log::set_boxed_logger(Box::new(syslog)).is_ok() {
            log::set_max_level(level);
        }
        return;
    }
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
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

/// inetd gives us the peer's socket as fd 2: a line there would be part of the session.
fn stderr_is_socket() -> bool {
    nix::sys::socket::getsockname::<()>(2).is_ok()
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
