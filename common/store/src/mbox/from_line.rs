//! The line that begins a message in an mbox: `From ann@example.org Sun Nov 22 10:00:00 2026`.
//!
//! Many programs wrote it in many ways: with a zone before or behind the year, without seconds,
//! with blanks in the sender. What counts is a date with a weekday; a line without one is text.

use std::io::Write;

use base::date::{self, Date};
use base::sys;

/// Octets of such a line; a longer one is text.
pub(crate) const MAX: usize = 1024;
const PREFIX: &[u8] = b"From ";

/// Seconds since 1970, if it is one. A date without a zone is local time, as everybody writes it.
pub(crate) fn parse(line: &[u8]) -> Option<i64> {
    let rest = line.strip_prefix(PREFIX).filter(|_| line.len() <= MAX)?;
    let text = rest.strip_suffix(b"\r").unwrap_or(rest);
    let words: Vec<&[u8]> = text
        .split(|b| *b == b' ' || *b == b'\t')
        .filter(|w| !w.is_empty())
        .collect();
    (0..words.len()).find_map(|at| date_at(words.get(at..)?))
}

/// `Sun Nov 22 10:00[:00] [zone ...] 2026 [zone]`
fn date_at(words: &[&[u8]]) -> Option<i64> {
    let [weekday, month, day, time, rest @ ..] = words else {
        return None;
    };
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let weekday = std::str::from_utf8(weekday)
        .ok()?
        .trim_end_matches(',')
        .to_ascii_lowercase();
    if !DAYS.contains(&weekday.as_str()) {
        return None;
    }
    let month = date::month_number(std::str::from_utf8(month).ok()?)?;
    let day = number(day).filter(|d| (1..=31).contains(d))?;
    let (hour, minute, second) = clock(time)?;
    let near = rest.get(..rest.len().min(4))?;
    let year = near
        .iter()
        .filter(|w| w.len() == 4)
        .find_map(|w| number(w))?;
    let days = date::days_from_civil(i64::from(year), month, u8::try_from(day).ok()?);
    let civil = days * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    Some(match near.iter().find_map(|w| offset(w)) {
        Some(offset) => civil - offset,
        None => local(civil),
    })
}

fn clock(text: &[u8]) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(|b| *b == b':');
    let hour = number(parts.next()?).filter(|n| *n < 24)?;
    let minute = number(parts.next()?).filter(|n| *n < 60)?;
    let second = parts.next().map_or(Some(0), number).filter(|n| *n < 62)?;
    parts.next().is_none().then_some((hour, minute, second))
}

/// 1 to 4 digits.
fn number(text: &[u8]) -> Option<u32> {
    let digits = (1..=4).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    digits.then(|| text.iter().fold(0, |n, b| n * 10 + u32::from(b - b'0')))
}

/// `+0900` in seconds.
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let n = i64::from(number(digits).filter(|_| digits.len() == 4)?);
    Some(sign * (n / 100 * 3600 + n % 100 * 60))
}

/// The time at which the local clock showed this. Twice, because the offset is that of the answer.
fn local(civil: i64) -> i64 {
    let guess = civil - i64::from(sys::local_offset(civil));
    civil - i64::from(sys::local_offset(guess))
}

/// The line for a message, with its LF. What of a reverse-path could break it becomes `_`.
pub(crate) fn format(reverse_path: &str, date: i64) -> Vec<u8> {
    let clean = |b: u8| if b.is_ascii_graphic() { b } else { b'_' };
    let sender: Vec<u8> = match reverse_path {
        "" => b"MAILER-DAEMON".to_vec(),
        path => path.bytes().take(400).map(clean).collect(),
    };
    let mut line = [PREFIX, &sender, b" "].concat();
    // A year beyond four digits would not be read back.
    let date = Date::local(date.clamp(0, 253_000_000_000));
    // Writing to a Vec does not fail.
    writeln!(line, "{}", date.asctime()).ok();
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_one_and_what_is_text() {
        for (line, is) in [
            ("From ann@example.org Thu Jan  1 00:00:00 1970", true),
            ("From MAILER-DAEMON Sun Nov 22 10:00 2026", true),
            ("From \"a b\"@x Sun Nov 22 10:00:00 2026", true),
            ("From - Sun Nov 22 10:00:00 2026", true),
            ("From x Sun Nov 22 10:00:00 JST 2026", true),
            ("From x Sun Nov 22 10:00:00 2026 +0900", true),
            ("From x Sun Nov 22 10:00:00 2026 remote from y", true),
            ("From x Sun Nov 22 10:00:00 2026\r", true),
            ("From here on it is text", false),
            ("From x", false),
            ("From ", false),
            ("from x Sun Nov 22 10:00:00 2026", false),
            (">From x Sun Nov 22 10:00:00 2026", false),
            ("From x Sun Nov 42 10:00:00 2026", false),
            ("From x Sun Nov 22 25:00:00 2026", false),
            ("From x Sun Nov 22 10:00:00", false),
        ] {
            assert_eq!(parse(line.as_bytes()).is_some(), is, "{line}");
        }
        let zone = b"From x Sun Nov 22 10:00:00 2026 +0900";
        assert_eq!(parse(zone), Some(1_795_309_200));
        assert_eq!(
            parse(&[b"From ".as_slice(), &b"x".repeat(MAX)].concat()),
            None
        );
    }

    #[test]
    fn dates_come_back_as_they_went() {
        for date in [0, 1_795_309_200, 951_782_400] {
            let line = format("ann@example.org", date);
            assert_eq!(parse(line.strip_suffix(b"\n").unwrap()), Some(date));
        }
        for path in ["", "a b\nFrom ", &"x".repeat(2000)] {
            let line = format(path, i64::MAX);
            assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            assert!(parse(line.strip_suffix(b"\n").unwrap()).is_some(), "{path}");
        }
    }
}
