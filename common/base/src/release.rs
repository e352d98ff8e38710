//! When a message may go on: what a submission says by HOLDFOR or HOLDUNTIL, and the time that comes
//! of it. RFC 4865, with RFC 3339's date-time as erratum 2040 wants it. Pure; the clock is the caller's.

use std::time::{Duration, SystemTime};

use crate::date::{Date, days_in_month, system_time, unix};

/// What MAIL asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Seconds from the moment when the message is accepted, 1 to 999,999,999.
    For(u32),
    /// Whole seconds.
    Until(SystemTime),
}

impl Hold {
    /// `future-release-integer = %x31-39 *8DIGIT`
    pub fn parse_for(text: &str) -> Option<Self> {
        let digits = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let is_sound = digits && !text.starts_with('0');
        is_sound.then(|| text.parse().ok().map(Self::For)).flatten()
    }

    /// `future-release-date-time = date-time`, of RFC 3339 5.6. What lies before 1970 is 1970.
    pub fn parse_until(text: &str) -> Option<Self> {
        date_time(text).map(|unix| Self::Until(system_time(unix)))
    }

    /// Whether it ends after `now`, and within `limit` from then.
    pub fn is_within(self, now: SystemTime, limit: Duration) -> bool {
        match self {
            Self::For(seconds) => Duration::from_secs(seconds.into()) <= limit,
            Self::Until(at) => at.duration_since(now).is_ok_and(|left| left <= limit),
        }
    }

    /// The time that it means for a message accepted at `now`.
    pub fn release(self, now: SystemTime) -> Release {
        match self {
            Self::For(seconds) => Release {
                at: system_time(unix(now).saturating_add(seconds.into())),
                seconds: Some(seconds),
            },
            Self::Until(at) => Release { at, seconds: None },
        }
    }
}

/// Neither delivered nor passed on before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Whole seconds.
    pub at: SystemTime,
    /// What HOLDFOR said; where there is none it was HOLDUNTIL.
    pub seconds: Option<u32>,
}

impl Release {
    /// The value of Future-Release-Request in a report, as the sender asked: `for;600`,
    /// `until;2026-12-01T08:00:00Z`.
    pub fn request(&self) -> String {
        match self.seconds {
            Some(seconds) => format!("for;{seconds}"),
            None => format!("until;{}", self.date()),
        }
    }

    /// In UTC: `2026-12-01T08:00:00Z`.
    pub fn date(&self) -> String {
        Date::utc(unix(self.at)).iso8601().to_string()
    }
}

/// `date-time = full-date "T" full-time`, RFC 3339 5.6, in seconds since 1970; a fraction of a second
/// is dropped.
fn date_time(text: &str) -> Option<i64> {
    let (date, time) = (text.get(..10)?, text.get(11..)?);
    matches!(text.get(10..11)?, "T" | "t").then_some(())?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time.get(..8)?, ':', [2, 2, 2])?;
    let month = u8::try_from(month).ok().filter(|m| (1..=12).contains(m))?;
    let day = u8::try_from(day).ok()?;
    let in_month = (1..=days_in_month(year, month)).contains(&day);
    (in_month && hour < 24 && minute < 60 && second <= 60).then_some(())?;
    let rest = time.get(8..)?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            (zone.len() < fraction.len()).then_some(zone)?
        }
        None => rest,
    };
    let days = crate::date::days_from_civil(year, month, day);
    Some(days * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)? * 60)
}

/// `time-offset = "Z" / time-numoffset`, in minutes east of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
    (hours < 24 && minutes < 60).then_some(())?;
    let minutes = hours * 60 + minutes;
    match zone.get(..1)? {
        "+" => Some(minutes),
        "-" => Some(-minutes),
        _ => None,
    }
}

/// Numbers of exactly so many digits, divided by `between`.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut found = [0; N];
    let mut words = text.split(between);
    for (number, digits) in found.iter_mut().zip(digits) {
        let word = words.next()?;
        let sound = word.len() == digits && word.bytes().all(|b| b.is_ascii_digit());
        *number = sound.then(|| word.parse().ok()).flatten()?;
    }
    words.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unix: i64) -> SystemTime {
        system_time(unix)
    }

    #[test]
    fn what_the_parameters_may_say() {
        for (text, want) in [
            ("1", Some(1)),
            ("600", Some(600)),
            ("999999999", Some(999_999_999)),
            ("0", None),
            ("01", None),
            ("1000000000", None),
            ("-5", None),
            ("+5", None),
            ("5s", None),
            ("", None),
        ] {
            assert_eq!(Hold::parse_for(text), want.map(Hold::For), "{text}");
        }
        for (text, want) in [
            ("2026-12-01T08:00:00Z", Some(1_796_112_000)),
            ("2026-12-01t08:00:00z", Some(1_796_112_000)),
            ("2026-12-01T08:00:00.25Z", Some(1_796_112_000)),
            ("2026-12-01T17:00:00+09:00", Some(1_796_112_000)),
            ("2026-11-30T22:30:00-09:30", Some(1_796_112_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800)),
            ("1969-12-31T00:00:00Z", Some(0)),
            ("2026-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-00-01T00:00:00Z", None),
            ("2026-12-00T00:00:00Z", None),
            ("2026-12-01T24:00:00Z", None),
            ("2026-12-01T08:60:00Z", None),
            ("2026-12-01T08:00:61Z", None),
            ("2026-12-01T08:00:00", None),
            ("2026-12-01T08:00:00.Z", None),
            ("2026-12-01T08:00:00+0900", None),
            ("2026-12-01T08:00:00+24:00", None),
            ("2026-12-01 08:00:00Z", None),
            ("2026-12-1T08:00:00Z", None),
            ("+026-12-01T08:00:00Z", None),
            ("2026-12-01T08:00Z", None),
            ("2026-12-01T08:00:0\u{663}Z", None),
            ("", None),
        ] {
            let want = want.map(|unix| Hold::Until(at(unix)));
            assert_eq!(Hold::parse_until(text), want, "{text}");
        }
    }

    #[test]
    fn limits_and_times() {
        let (now, limit) = (at(1_000_000), Duration::from_secs(600));
        for (hold, within) in [
            (Hold::For(600), true),
            (Hold::For(601), false),
            (Hold::Until(at(1_000_600)), true),
            (Hold::Until(at(1_000_601)), false),
            (Hold::Until(at(999_999)), false),
        ] {
            assert_eq!(hold.is_within(now, limit), within, "{hold:?}");
        }
        let release = Hold::For(600).release(now + Duration::from_millis(900));
        assert_eq!(
            (release.at, release.request()),
            (at(1_000_600), "for;600".into())
        );
        let until = Hold::parse_until("2026-12-01T17:00:00+09:00").unwrap();
        assert_eq!(until.release(now).request(), "until;2026-12-01T08:00:00Z");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            Hold::parse_until(&text);
            Hold::parse_for(&text);
        }

        #[test]
        fn there_and_back(unix in 0_i64..250_000_000_000) {
            let text = Date::utc(unix).iso8601().to_string();
            proptest::prop_assert_eq!(Hold::parse_until(&text), Some(Hold::Until(at(unix))));
        }
    }
}
