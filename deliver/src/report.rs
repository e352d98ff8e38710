//! A recipient's line in the log, in Postfix's words, so that the tools which read its logs read ours.

use std::fmt;
use std::time::SystemTime;

use base::escape::escape;
use base::{Address, LocalPart, Status};
use queue::{Entry, QueueId};

/// One outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    id: QueueId,
    to: Address,
    orig_to: Option<Address>,
    delay: u128,
    status: Status,
    text: String,
}

impl Line {
    /// For a recipient of this entry, as its envelope names it.
    pub(crate) fn new(
        entry: &Entry,
        recipient: usize,
        now: SystemTime,
        status: Status,
        text: &str,
    ) -> Option<Self> {
        let address = &entry.recipients().get(recipient)?.recipient.address;
        Some(Self::of(
            *entry.id(),
            address,
            None,
            (entry.ready_at(), now),
            status,
            text,
        ))
    }

    /// The address in the envelope, and `to`, to which an alias led.
    pub(crate) fn of(
        id: QueueId,
        address: &Address,
        to: Option<&Address>,
        (arrived, now): (SystemTime, SystemTime),
        status: Status,
        text: &str,
    ) -> Self {
        let named = plain(address);
        let to = to.map_or_else(|| named.clone(), Clone::clone);
        let orig_to = Some(named).filter(|n| *n != to);
        let delay = now.duration_since(arrived).unwrap_or_default().as_millis();
        Self {
            id,
            to,
            orig_to,
            delay,
            status,
            text: text.to_owned(),
        }
    }

    pub(crate) fn say(&self) {
        log::info!("{self}");
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status.class() {
            2 => "sent",
            4 => "deferred",
            _ => "bounced",
        };
        write!(f, "{}: to=<{}>, ", self.id, self.to)?;
        if let Some(orig_to) = &self.orig_to {
            write!(f, "orig_to=<{orig_to}>, ")?;
        }
        let (seconds, tenths) = (self.delay / 1000, self.delay % 1000 / 100);
        write!(
            f,
            "relay=local, delay={seconds}.{tenths}, dsn={}, ",
            self.status
        )?;
        write!(f, "status={status} ({})", escape(&self.text))
    }
}

/// Without the backslash that says that the aliases have been asked.
fn plain(address: &Address) -> Address {
    match address
        .local()
        .as_str()
        .strip_prefix('\\')
        .map(LocalPart::new)
    {
        Some(Ok(local)) => Address::new(local, address.domain().clone()),
        _ => address.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lines_are_as_postfix_writes_them() {
        let id = QueueId::generate().unwrap();
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let address = |s: &str| Address::parse(s).unwrap();
        let table = [
            (
                ("ann@here", None, 140, Status::OK, "delivered to mailbox"),
                "to=<ann@here>, relay=local, delay=0.1, dsn=2.0.0, status=sent (delivered to mailbox)",
            ),
            (
                (
                    "root@here",
                    Some("ann@here"),
                    61_000,
                    Status::SYSTEM,
                    "a\nb",
                ),
                "to=<ann@here>, orig_to=<root@here>, relay=local, delay=61.0, dsn=4.3.0, \
                 status=deferred (a\\x0ab)",
            ),
            (
                (
                    "\"\\\\ann\"@here",
                    Some("ann@here"),
                    0,
                    Status::NO_MAILBOX,
                    "x",
                ),
                "to=<ann@here>, relay=local, delay=0.0, dsn=5.1.1, status=bounced (x)",
            ),
        ];
        for ((named, to, ms, status, text), want) in table {
            let to = to.map(address);
            let line = Line::of(
                id,
                &address(named),
                to.as_ref(),
                (at(0), at(ms)),
                status,
                text,
            );
            assert_eq!(line.to_string(), format!("{id}: {want}"));
        }
    }
}
