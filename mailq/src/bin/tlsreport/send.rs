//! The days that are over, a report for each domain that asks for one.
//!
//! `DAY.told` has the domains that are dealt with, a line each, so that a run that was cut off goes
//! on where it was; a report that was submitted just then is submitted twice, with the same
//! Report-ID. A day's files are removed when all of it is dealt with, or after three days.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use base::{Address, Doing, Domain, Fail, Sysexit, date};
use dns::Resolve;
use tlspolicy::report::day::{self, Counted};
use tlspolicy::report::mail;
use tlspolicy::report::render::{self, About};
use tlspolicy::report::rua::{self, Place};

/// How long a domain that cannot be looked up is tried, in seconds.
const GIVE_UP: i64 = 3 * 86_400;

pub(crate) struct Sender {
    pub(crate) directory: PathBuf,
    pub(crate) dns: Arc<dyn Resolve>,
    pub(crate) from: Address,
    pub(crate) submitter: Domain,
    /// Reports are shown and not sent.
    pub(crate) is_rehearsal: bool,
}

impl Sender {
    /// All days; the exit code says whether something is left.
    pub(crate) fn run(&self) -> Result<Sysexit, Fail> {
        if !self.directory.is_dir() {
            return Ok(Sysexit::Ok);
        }
        let lock = self.directory.join("lock");
        let doing = || format!("lock {}", lock.display());
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(&lock).doing(doing)?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                return Err(Fail::temp("another tlsreport is at work"));
            }
            Err(TryLockError::Error(e)) => return Err(Fail::io(doing(), e)),
        }
        let mut worst = Sysexit::Ok;
        for (start, path) in day::finished(&self.directory)? {
            if !self.day(start, &path)? {
                worst = Sysexit::TempFail;
            }
        }
        Ok(worst)
    }

    /// Whether nothing is left of it.
    fn day(&self, start: i64, path: &Path) -> Result<bool, Fail> {
        let told = told_beside(path);
        let known = fs::read_to_string(&told).unwrap_or_default();
        let known: HashSet<&str> = known.lines().collect();
        let mut all = true;
        for (domain, counted) in &day::read(path)? {
            if known.contains(domain.as_str()) {
                continue;
            }
            match self.tell(start, domain, counted) {
                Ok(()) if self.is_rehearsal => (),
                Ok(()) => note(&told, domain)?,
                Err(fail) => {
                    log::warn!("report to {domain}: {fail}");
                    all = false;
                }
            }
        }
        let is_over = all || date::now() - start > GIVE_UP;
        if is_over && !self.is_rehearsal {
            fs::remove_file(path).doing(|| format!("remove {}", path.display()))?;
            // Without its day it says nothing.
            fs::remove_file(told).ok();
        }
        Ok(is_over)
    }

    fn tell(&self, start: i64, domain: &Domain, counted: &Counted) -> Result<(), Fail> {
        let places = rua::places(self.dns.as_ref(), domain);
        let places = places.map_err(|e| Fail::temp(format!("look up _smtp._tls.{domain}: {e}")))?;
        if places.is_empty() {
            return Ok(());
        }
        let contact = self.from.to_string();
        let about = About {
            domain,
            submitter: &self.submitter,
            contact: &contact,
            start,
        };
        let json = render::json(about, counted);
        if self.is_rehearsal {
            base::say(&json);
            return Ok(());
        }
        let packed = render::gzip(&json).doing(|| "compress a report")?;
        let mut was_sent = false;
        for place in places {
            match place {
                Place::Mail(to) => {
                    let to = to.to_string();
                    let message = mail::message(about, &to, date::now(), &packed);
                    self.submit(&to, message.as_bytes())?;
                    log::info!("report on TLS for {domain} submitted to <{to}>");
                    was_sent = true;
                }
                Place::Https(_) => (),
            }
        }
        if !was_sent {
            log::info!("{domain} takes reports on TLS by HTTPS only, and gets none");
        }
        Ok(())
    }

    /// By sendmail, which is beside this program.
    fn submit(&self, to: &str, message: &[u8]) -> Result<(), Fail> {
        let sendmail = std::env::current_exe()
            .ok()
            .and_then(|me| Some(me.parent()?.join("sendmail")))
            .filter(|path| path.is_file())
            .unwrap_or_else(|| "/usr/sbin/sendmail".into());
        let doing = || format!("run {}", sendmail.display());
        let mut child = Command::new(&sendmail)
            .args(["-i", "-f", &self.from.to_string(), "--", to])
            .stdin(Stdio::piped())
            .spawn()
            .doing(doing)?;
        if let Some(mut stdin) = child.stdin.take() {
            // Where it does not read, its exit code says why.
            stdin.write_all(message).ok();
        }
        let status = child.wait().doing(doing)?;
        match status.success() {
            true => Ok(()),
            false => Err(Fail::temp(format!(
                "{} ended with {status}",
                sendmail.display()
            ))),
        }
    }
}

fn told_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".told");
    name.into()
}

/// Durable at once: a domain is not told every time that a run is cut off.
fn note(told: &Path, domain: &Domain) -> Result<(), Fail> {
    let doing = || format!("write {}", told.display());
    let mut options = OpenOptions::new();
    let options = options.append(true).create(true).mode(0o600);
    let mut file: File = options.open(told).doing(doing)?;
    file.write_all(format!("{domain}\n").as_bytes())
        .doing(doing)?;
    file.sync_data().doing(doing)
}
