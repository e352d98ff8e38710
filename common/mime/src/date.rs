//! The dates of header fields (RFC 5322 3.3), read tolerantly: obsolete years and zones (4.3),
//! missing weekday, seconds or zone, comments, asctime order, `22-Nov-2026`.

use base::date::{days_from_civil, month_number};

use crate::token::{ADDRESS, Token, Tokens};

/// A date as the field says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Seconds since 1970.
    pub unix: i64,
    /// Minutes east of UTC.
    pub offset: i32,
}

impl Stamp {
    /// The day written in the field, counted from 1970-01-01, its zone ignored (RFC 3501 6.4.4).
    pub fn day(&self) -> i64 {
        (self.unix + i64::from(self.offset) * 60).div_euclid(86_400)
    }
}

/// The date in `value`; `None` when no day, month and year can be found.
pub fn parse(value: &[u8]) -> Option<Stamp> {
    let mut words = Vec::new();
    for spaced in Tokens::new(value, ADDRESS) {
        match spaced.token {
            Token::Atom(text) => words.push(text),
            Token::Special(byte) => words.push(vec![byte]),
            Token::Quoted(_) | Token::Comment(_) | Token::Literal(_) => {}
        }
        // Nothing a date needs stands so far behind.
        if words.len() > 32 {
            break;
        }
    }
    Parts::read(&words).stamp()
}

#[derive(Debug, Default)]
struct Parts {
    day: Option<u8>,
    month: Option<u8>,
    year: Option<i64>,
    time: Vec<i64>,
    offset: Option<i32>,
}

impl Parts {
    fn read(words: &[Vec<u8>]) -> Self {
        let mut parts = Self::default();
        let mut in_time = false;
        for (at, word) in words.iter().enumerate() {
            let colon_next = words.get(at + 1).is_some_and(|w| w == b":");
            match word.as_slice() {
                b":" => in_time = true,
                b"," | b"." => in_time = false,
                _ if word.first().is_some_and(u8::is_ascii_digit) && word.contains(&b'-') => {
                    for piece in word.split(|b| *b == b'-') {
                        parts.word(piece, false);
                    }
                }
                _ => {
                    parts.word(word, in_time || colon_next);
                    in_time = false;
                }
            }
        }
        parts
    }

    fn word(&mut self, word: &[u8], time: bool) {
        let Ok(text) = std::str::from_utf8(word) else {
            return;
        };
        if time && self.time.len() < 3 {
            self.time
                .extend(text.parse::<i64>().ok().filter(|n| (0..=60).contains(n)));
        } else if let Some(zone) = zone(text).filter(|_| self.offset.is_none()) {
            self.offset = Some(zone);
        } else if let Ok(number) = text.parse::<u32>() {
            self.number(number, text.len());
        } else if self.month.is_none() {
            self.month = month(text);
        }
    }

    fn number(&mut self, number: u32, digits: usize) {
        let day = u8::try_from(number)
            .ok()
            .filter(|n| (1..=31).contains(n) && digits <= 2);
        match day {
            Some(day) if self.day.is_none() => self.day = Some(day),
            _ if self.year.is_none() => self.year = year(number, digits),
            _ => {}
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let days = days_from_civil(self.year?, self.month?, self.day?);
        let time = |at: usize| self.time.get(at).copied().unwrap_or(0);
        let offset = self.offset.unwrap_or(0);
        let unix = days * 86_400 + time(0) * 3600 + time(1) * 60 + time(2) - i64::from(offset) * 60;
        Some(Stamp { unix, offset })
    }
}

fn month(text: &str) -> Option<u8> {
    month_number(text.get(..3)?)
}

/// RFC 5322 4.3: two digits are 1950 to 2049, three are added to 1900.
fn year(number: u32, digits: usize) -> Option<i64> {
    let number = i64::from(number);
    match digits {
        1 | 2 if number < 50 => Some(2000 + number),
        2 | 3 => Some(1900 + number),
        4 => Some(number),
        _ => None,
    }
}

fn zone(text: &str) -> Option<i32> {
    let named = |hours: i32| Some(hours * 60);
    match text {
        "UT" | "GMT" | "UTC" | "Z" => named(0),
        "EDT" => named(-4),
        "EST" | "CDT" => named(-5),
        "CST" | "MDT" => named(-6),
        "MST" | "PDT" => named(-7),
        "PST" => named(-8),
        "JST" => named(9),
        _ => {
            let (sign, digits) = match text.strip_prefix('+') {
                Some(digits) => (1, digits),
                None => (-1, text.strip_prefix('-')?),
            };
            let number: i32 = digits.parse().ok().filter(|_| digits.len() == 4)?;
            let (hours, minutes) = (number / 100, number % 100);
            (hours <= 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let table: &[(&str, Option<(i64, i32)>)] = &[
            ("Thu, 1 Jan 1970 00:00:00 +0000", Some((0, 0))),
            ("Fri, 21 Nov 1997 09:55:06 -0600", Some((880_127_706, -360))),
            ("21 Nov 97 09:55:06 GMT", Some((880_106_106, 0))),
            (
                "21 Nov 97 09(comment):   55  :  06 -0600",
                Some((880_127_706, -360)),
            ),
            (
                "Fri, 21 Nov 1997 09:55 -0600 (CST)",
                Some((880_127_700, -360)),
            ),
            ("Fri Nov 21 09:55:06 1997", Some((880_106_106, 0))),
            (
                "Fri, 21 November 1997 09:55:06 EST",
                Some((880_124_106, -300)),
            ),
            ("21-Nov-1997 09:55:06 +0900", Some((880_073_706, 540))),
            ("1 Jan 02 00:00:00 +0000", Some((1_009_843_200, 0))),
            ("Sat, 1 Jan 102 00:00:00 +0000", Some((1_009_843_200, 0))),
            ("", None),
            ("yesterday", None),
            ("99 Foo 1997", None),
        ];
        for (text, want) in table {
            let found = parse(text.as_bytes()).map(|s| (s.unix, s.offset));
            assert_eq!(found, *want, "{text}");
        }
    }

    #[test]
    fn the_written_day_ignores_the_zone() {
        let late = parse(b"Mon, 23 Nov 2026 00:30:00 +0900").unwrap();
        assert_eq!(late.day(), days_from_civil(2026, 11, 23));
    }
}
