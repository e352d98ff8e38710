//! The log's line on a recipient, in Postfix's words, so that tools which read its log read ours.
//! Pure.

use std::time::Duration;

use base::escape::escape;
use base::{Recipient, Status};
use queue::QueueId;

/// `ID: to=<c@d>, relay=mx.d[192.0.2.1]:25, delay=3, dsn=2.0.0, status=sent (250 ok)`
pub(crate) fn line(
    id: &QueueId,
    to: Option<&Recipient>,
    host: Option<&str>,
    delay: Duration,
    status: Status,
    text: &str,
) -> String {
    let to = to.map_or_else(String::new, |r| r.address.to_string());
    let word = match status.class() {
        2 => "sent",
        4 => "deferred",
        _ => "bounced",
    };
    format!(
        "{id}: to=<{to}>, relay={}, delay={}, dsn={status}, status={word} ({})",
        host.map_or_else(|| "none".into(), |h| escape(h).to_string()),
        seconds(delay),
        escape(text),
    )
}

/// Two digits that matter: `0.12`, `3.4`, `17`.
fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        ..1.0 => format!("{seconds:.2}"),
        ..10.0 => format!("{seconds:.1}"),
        _ => format!("{seconds:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line() {
        let id = QueueId::generate().unwrap();
        let to = Recipient::new("c@d.test".parse().unwrap());
        let line = |status, text| {
            line(
                &id,
                Some(&to),
                Some("mx.d.test[192.0.2.1]:25"),
                Duration::from_millis(3400),
                status,
                text,
            )
            .replace(id.as_str(), "ID")
        };
        assert_eq!(
            line(Status::OK, "250 ok"),
            "ID: to=<c@d.test>, relay=mx.d.test[192.0.2.1]:25, delay=3.4, dsn=2.0.0, status=sent (250 ok)"
        );
        assert!(line(Status::SYSTEM, "x\ny").ends_with("dsn=4.3.0, status=deferred (x\\x0ay)"));
        assert!(line(Status::NULL_MX, "x").contains("status=bounced"));
    }

    #[test]
    fn delays_are_short() {
        let table = [
            (5, "0.01"),
            (120, "0.12"),
            (3440, "3.4"),
            (17_400, "17"),
            (400_000_000, "400000"),
        ];
        for (ms, want) in table {
            assert_eq!(seconds(Duration::from_millis(ms)), want);
        }
    }
}
