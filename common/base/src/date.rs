//! Dates as mail writes them: RFC 5322 3.3, the From_ line of mbox, ISO 8601 for logs and JSON.
//!
//! Counting days is ours (civil calendar, proleptic Gregorian); the local zone is the C library's.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sys;

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A point in time, broken into a calendar's parts at an offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    pub year: i64,
    /// 1 to 12
    pub month: u8,
    /// 1 to 31
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    /// 0 to 60
    pub second: u8,
    /// 0 is Sunday
    pub weekday: u8,
    /// Minutes east of UTC.
    pub offset: i32,
}

impl Date {
    /// At `unix` seconds, in UTC.
    pub fn utc(unix: i64) -> Self {
        Self::at(unix, 0)
    }

    /// At `unix` seconds, in the machine's own zone.
    pub fn local(unix: i64) -> Self {
        Self::at(unix, sys::local_offset(unix) / 60)
    }

    /// At `unix` seconds, `offset` minutes east of UTC.
    pub fn at(unix: i64, offset: i32) -> Self {
        // The bounds keep the arithmetic below from overflowing; they are beyond year 200,000,000.
        let local = unix.clamp(-(1 << 52), 1 << 52) + i64::from(offset) * 60;
        let (days, seconds) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        Self {
            year,
            month,
            day,
            hour: small(seconds / 3600),
            minute: small(seconds / 60 % 60),
            second: small(seconds % 60),
            weekday: small((days + 4).rem_euclid(7)),
            offset,
        }
    }

    /// Seconds since 1970.
    pub fn unix(&self) -> i64 {
        days_from_civil(self.year, self.month, self.day) * 86_400
            + i64::from(self.hour) * 3600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
            - i64::from(self.offset) * 60
    }

    /// `Sun, 22 Nov 2026 10:00:00 +0900`: RFC 5322 3.3.
    pub fn rfc5322(&self) -> impl fmt::Display + use<> {
        let d = *self;
        fmt::from_fn(move |f| {
            write!(
                f,
                "{}, {} {} {:04} {:02}:{:02}:{:02} {}",
                d.day_name(),
                d.day,
                d.month_name(),
                d.year,
                d.hour,
                d.minute,
                d.second,
                d.zone()
            )
        })
    }

    /// `Sun Nov 22 10:00:00 2026`: asctime(3), as the From_ line of mbox has it.
    pub fn asctime(&self) -> impl fmt::Display + use<> {
        let d = *self;
        fmt::from_fn(move |f| {
            write!(
                f,
                "{} {} {:2} {:02}:{:02}:{:02} {:04}",
                d.day_name(),
                d.month_name(),
                d.day,
                d.hour,
                d.minute,
                d.second,
                d.year
            )
        })
    }

    /// `22-Nov-2026 10:00:00 +0900` with the day in two columns: RFC 3501 date-time.
    pub fn imap(&self) -> impl fmt::Display + use<> {
        let d = *self;
        fmt::from_fn(move |f| {
            write!(
                f,
                "{:2}-{}-{:04} {:02}:{:02}:{:02} {}",
                d.day,
                d.month_name(),
                d.year,
                d.hour,
                d.minute,
                d.second,
                d.zone()
            )
        })
    }

    /// `2026-11-22T10:00:00+09:00`, or with `Z` in UTC.
    pub fn iso8601(&self) -> impl fmt::Display + use<> {
        let d = *self;
        fmt::from_fn(move |f| {
            write!(
                f,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
                d.year, d.month, d.day, d.hour, d.minute, d.second
            )?;
            match d.offset {
                0 => f.write_str("Z"),
                o => write!(f, "{}{:02}:{:02}", sign(o), o.abs() / 60, o.abs() % 60),
            }
        })
    }

    /// `+0900`
    pub fn zone(&self) -> impl fmt::Display + use<> {
        let o = self.offset;
        fmt::from_fn(move |f| write!(f, "{}{:02}{:02}", sign(o), o.abs() / 60, o.abs() % 60))
    }

    /// `Sun` to `Sat`.
    pub fn day_name(&self) -> &'static str {
        DAYS.get(usize::from(self.weekday))
            .copied()
            .unwrap_or("Sun")
    }

    /// `Jan` to `Dec`.
    pub fn month_name(&self) -> &'static str {
        MONTHS
            .get(usize::from(self.month).wrapping_sub(1))
            .copied()
            .unwrap_or("Jan")
    }
}

/// 1 to 12 for `Jan` to `Dec`, in any case.
pub fn month_number(name: &str) -> Option<u8> {
    let at = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(name))?;
    u8::try_from(at + 1).ok()
}

/// Seconds since 1970 of a civil date in UTC. Any month but 1 to 12 counts as the nearest of them.
pub fn days_from_civil(year: i64, month: u8, day: u8) -> i64 {
    let m = i64::from(month.clamp(1, 12));
    let y = year.clamp(-(1 << 40), 1 << 40) - i64::from(m <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (m + if m > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// The civil date of a day counted from 1970-01-01.
fn civil(days: i64) -> (i64, u8, u8) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (
        yoe + era * 400 + i64::from(month <= 2),
        small(month),
        small(doy - (153 * mp + 2) / 5 + 1),
    )
}

/// Days in a month, for parsers that check.
pub fn days_in_month(year: i64, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Now, in seconds since 1970.
pub fn now() -> i64 {
    unix(SystemTime::now())
}

/// Seconds since 1970 of a system time, rounded down; 0 for what lies before.
pub fn unix(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The system time of seconds since 1970; what lies before is 1970.
pub fn system_time(unix: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(unix).unwrap_or(0).min(1 << 40))
}

fn sign(offset: i32) -> char {
    if offset < 0 { '-' } else { '+' }
}

/// A value that the caller's arithmetic has put below 256.
fn small(n: i64) -> u8 {
    u8::try_from(n).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        let d = Date::at(1_795_309_200, 540);
        assert_eq!(d.rfc5322().to_string(), "Sun, 22 Nov 2026 10:00:00 +0900");
        assert_eq!(
            Date::utc(0).asctime().to_string(),
            "Thu Jan  1 00:00:00 1970"
        );
        assert_eq!(
            Date::utc(951_782_400).iso8601().to_string(),
            "2000-02-29T00:00:00Z"
        );
        assert_eq!(
            Date::at(0, -330).imap().to_string(),
            "31-Dec-1969 18:30:00 -0530"
        );
    }

    #[test]
    fn there_and_back_over_four_hundred_years() {
        for day in (-60_000..90_000).step_by(13) {
            let unix = day * 86_400 + 12_345;
            for offset in [-720, -90, 0, 540] {
                assert_eq!(Date::at(unix, offset).unix(), unix);
            }
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        for unix in [i64::MIN, i64::MAX] {
            assert!(!Date::utc(unix).rfc5322().to_string().is_empty());
        }
    }
}
