//! The header list, a line a message, as mailx has always shown it:
//!
//! ```text
//! >N  1 ann@example.org     Sun Nov 22 10:00   12/345   "subject"
//! ```

use base::date::Date;

use crate::mailbox::{Message, State};
use crate::text;

/// Columns of the sender.
const SENDER: usize = 20;

/// What a line shows of a message's header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Heading {
    /// Who it is from: address, or the name with `set showname`.
    pub(crate) sender: String,
    pub(crate) subject: String,
    pub(crate) lines: usize,
}

/// One line, not longer than `columns`.
pub(crate) fn line(
    number: usize,
    message: &Message,
    heading: &Heading,
    dot: bool,
    columns: usize,
) -> String {
    let date = Date::local(message.date).asctime().to_string();
    let start = format!(
        "{}{}{number:>3} {}  {}  {:>4}/{:<5}",
        if dot { '>' } else { ' ' },
        mark(message),
        text::fit(&text::clean_line(&heading.sender), SENDER),
        text::cut(&date, 16),
        heading.lines,
        message.size,
    );
    let subject = text::clean_line(&heading.subject);
    let room = columns.saturating_sub(text::width(&start) + 3);
    if subject.is_empty() || room == 0 {
        return start.trim_end().to_owned();
    }
    format!("{start} \"{}\"", text::cut(&subject, room))
}

/// N new, U unread; `*` saved, P held, M on its way to mbox; nothing for a read one.
fn mark(message: &Message) -> char {
    match message.state {
        State::Saved => '*',
        State::Held => 'P',
        State::ToMbox => 'M',
        State::Deleted => 'D',
        State::Plain if message.seen => ' ',
        State::Plain if message.recent => 'N',
        State::Plain => 'U',
    }
}

/// `"/var/spool/mail/ann": 3 messages 2 new`
pub(crate) fn summary(place: &str, messages: &[Message], read_only: bool) -> String {
    let count = |f: fn(&Message) -> bool| messages.iter().filter(|m| f(m)).count();
    let total = messages.len();
    let mut line = format!(
        "\"{}\": {total} message{}",
        text::clean_line(place),
        if total == 1 { "" } else { "s" }
    );
    let new = count(|m| !m.seen && m.recent);
    let unread = count(|m| !m.seen && !m.recent);
    let deleted = count(|m| m.state == State::Deleted);
    for (number, what) in [(new, "new"), (unread, "unread"), (deleted, "deleted")] {
        if number > 0 {
            line.push_str(&format!(" {number} {what}"));
        }
    }
    if read_only {
        line.push_str(" [read only]");
    }
    line
}

/// The range of numbers (from 0) that a screen of `height` shows with `at` in it.
pub(crate) fn page(at: usize, total: usize, height: usize) -> std::ops::Range<usize> {
    let height = height.max(1);
    let first = at.min(total.saturating_sub(1)) / height * height;
    first..(first + height).min(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seen: bool, recent: bool, state: State) -> Message {
        Message {
            seen,
            recent,
            state,
            ..Message::new(1, 1_795_309_200, 345)
        }
    }

    fn heading(sender: &str, subject: &str, lines: usize) -> Heading {
        Heading {
            sender: sender.into(),
            subject: subject.into(),
            lines,
        }
    }

    #[test]
    fn the_list_as_it_looks() {
        // The tests' clock is in the zone of the machine: compare all but the date.
        let date = Date::local(1_795_309_200).asctime().to_string();
        let list = [
            (
                message(false, true, State::Plain),
                heading("ann@example.org", "Hello", 12),
            ),
            (
                message(false, false, State::Plain),
                heading("bob@a-very-long-domain.example.org", "", 3),
            ),
            (
                message(true, false, State::Saved),
                heading(
                    "山田太郎さんとその仲間たち",
                    "件名\u{1b}[31mは長い日本語で書かれている",
                    1,
                ),
            ),
        ];
        let screen: Vec<String> = list
            .iter()
            .enumerate()
            .map(|(at, (m, h))| {
                line(at + 1, m, h, at == 0, 80).replace(text::cut(&date, 16), "DATE")
            })
            .collect();
        assert_eq!(
            screen,
            [
                ">N  1 ann@example.org       DATE    12/345   \"Hello\"",
                " U  2 bob@a-very-long-doma  DATE     3/345",
                " *  3 山田太郎さんとその仲  DATE     1/345   \"件名は長い日本語で書\"",
            ]
        );
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        let wide = heading(&"件".repeat(50), &"名".repeat(200), 99_999);
        for columns in [1, 40, 57, 58, 59, 60, 61, 80, 132] {
            let shown = line(
                1000,
                &message(true, true, State::Plain),
                &wide,
                true,
                columns,
            );
            assert!(text::width(&shown) <= columns.max(58), "{columns}: {shown}");
        }
    }

    #[test]
    fn what_there_is() {
        let list = [
            message(false, true, State::Plain),
            message(false, false, State::Plain),
            message(true, false, State::Deleted),
        ];
        assert_eq!(
            summary("/var/spool/mail/ann", &list, false),
            "\"/var/spool/mail/ann\": 3 messages 1 new 1 unread 1 deleted"
        );
        assert_eq!(summary("x", &[], true), "\"x\": 0 messages [read only]");
    }

    #[test]
    fn pages() {
        for (at, total, height, wanted) in [
            (0, 50, 20, 0..20),
            (20, 50, 20, 20..40),
            (49, 50, 20, 40..50),
            (99, 50, 20, 40..50),
            (0, 0, 20, 0..0),
            (3, 5, 0, 3..4),
        ] {
            assert_eq!(page(at, total, height), wanted);
        }
    }
}
