//! Message lists (POSIX mailx, "Specifying Messages"): `3`, `2-5`, `*`, `$`, `^`, `.`, `+`, `-`,
//! `/subject`, `ann`, `:n`, and several of them.
//!
//! Numbers add up. Names, subjects and states then select among the numbers given, or among all.

use crate::mailbox::{Message, State};

/// Sender (address and name) and subject of the message at a place. Asked for only where the list
/// speaks of them: the message's header has to be read.
pub(crate) type Heading<'a> = dyn FnMut(usize) -> (String, String) + 'a;

/// Which messages a command can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Among {
    Undeleted,
    /// For undelete.
    Deleted,
}

/// A list, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct List {
    numbers: Vec<Numbers>,
    senders: Vec<String>,
    subjects: Vec<String>,
    states: Vec<char>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    All,
    Range(Place, Place),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// From 1.
    Number(usize),
    First,
    Last,
    Dot,
    Next,
    Previous,
}

impl List {
    /// Reads the words of a list; an error says what is wrong with which.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut list = Self::default();
        for word in words(text) {
            list.word(&word)?;
        }
        Ok(list)
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if word == "*" {
            self.numbers.push(Numbers::All);
        } else if let Some(subject) = word.strip_prefix('/') {
            self.subjects.push(subject.to_lowercase());
        } else if let Some(states) = word.strip_prefix(':') {
            match states.chars().find(|c| !"dnorust".contains(*c)) {
                None if !states.is_empty() => self.states.extend(states.chars()),
                Some(c) => return Err(format!(":{c}: write one of :d :n :o :r :u :s")),
                None => return Err(": write one of :d :n :o :r :u :s".into()),
            }
        } else if let Some((from, to)) = range(word) {
            self.numbers.push(Numbers::Range(from, to));
        } else if word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains('@') {
            return Err(format!("{word}: not a message number"));
        } else {
            self.senders.push(word.to_lowercase());
        }
        Ok(())
    }

    /// The messages meant, by their place from 0, ascending. `dot` is the current message.
    pub(crate) fn select(
        &self,
        messages: &[Message],
        dot: usize,
        among: Among,
        heading: &mut Heading<'_>,
    ) -> Result<Vec<usize>, String> {
        let fits = |at: usize| {
            let deleted = messages.get(at).is_some_and(|m| m.state == State::Deleted);
            deleted == (among == Among::Deleted)
        };
        let mut chosen = vec![self.numbers.is_empty(); messages.len()];
        for numbers in &self.numbers {
            let (from, to) = match *numbers {
                Numbers::All => (0, messages.len().saturating_sub(1)),
                Numbers::Range(from, to) => (
                    place(from, messages.len(), dot, &fits)?,
                    place(to, messages.len(), dot, &fits)?,
                ),
            };
            if from > to {
                return Err("the range ends before it begins".into());
            }
            if from == to && !fits(from) && *numbers != Numbers::All {
                let is = if among == Among::Deleted {
                    "not deleted"
                } else {
                    "deleted"
                };
                return Err(format!("message {} is {is}", from + 1));
            }
            for slot in chosen.iter_mut().skip(from).take(to - from + 1) {
                *slot = true;
            }
        }
        let mut selected = Vec::new();
        for (at, message) in messages.iter().enumerate() {
            if chosen.get(at) == Some(&true) && self.admits(at, message, &fits, heading) {
                selected.push(at);
            }
        }
        if selected.is_empty() {
            return Err("no applicable messages".into());
        }
        Ok(selected)
    }

    fn admits(
        &self,
        at: usize,
        message: &Message,
        fits: &dyn Fn(usize) -> bool,
        heading: &mut Heading<'_>,
    ) -> bool {
        // `:d` names deleted messages also where they are not offered otherwise.
        if !fits(at) && !self.states.contains(&'d') {
            return false;
        }
        if !self.states.is_empty() && !self.states.iter().any(|s| is_in(message, *s)) {
            return false;
        }
        if self.senders.is_empty() && self.subjects.is_empty() {
            return true;
        }
        let (sender, subject) = heading(at);
        let has = |wanted: &[String], text: &str| {
            let text = text.to_lowercase();
            wanted.is_empty() || wanted.iter().any(|w| text.contains(w.as_str()))
        };
        has(&self.senders, &sender) && has(&self.subjects, &subject)
    }
}

fn is_in(message: &Message, state: char) -> bool {
    match state {
        'd' => message.state == State::Deleted,
        'n' => message.recent && !message.seen,
        'o' => !message.recent,
        'r' => message.seen,
        'u' => !message.seen,
        's' => message.state == State::Saved,
        _ => false,
    }
}

fn place(
    place: Place,
    total: usize,
    dot: usize,
    fits: &dyn Fn(usize) -> bool,
) -> Result<usize, String> {
    let none = || "no applicable messages".to_owned();
    match place {
        Place::Number(number) if number >= 1 && number <= total => Ok(number - 1),
        Place::Number(number) => Err(format!("{number}: there is no such message")),
        Place::First => (0..total).find(|at| fits(*at)).ok_or_else(none),
        Place::Last => (0..total).rev().find(|at| fits(*at)).ok_or_else(none),
        Place::Dot if dot < total => Ok(dot),
        Place::Dot => Err(none()),
        Place::Next => (dot + 1..total)
            .find(|at| fits(*at))
            .ok_or_else(|| "no message behind this one".into()),
        Place::Previous => (0..dot.min(total))
            .rev()
            .find(|at| fits(*at))
            .ok_or_else(|| "no message before this one".into()),
    }
}

/// `n`, `n-m`, and the signs in the place of a number.
fn range(word: &str) -> Option<(Place, Place)> {
    if let Some(one) = single(word) {
        return Some((one, one));
    }
    let (from, to) = word.split_once('-')?;
    Some((single(from)?, single(to)?))
}

fn single(word: &str) -> Option<Place> {
    Some(match word {
        "^" => Place::First,
        "$" => Place::Last,
        "." => Place::Dot,
        "+" => Place::Next,
        "-" => Place::Previous,
        _ if word.bytes().all(|b| b.is_ascii_digit()) && !word.is_empty() => {
            Place::Number(word.parse().unwrap_or(usize::MAX))
        }
        _ => return None,
    })
}

/// Words between blanks or commas; quotes of either kind keep them.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t' | ',' | '\n') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading(at: usize) -> (String, String) {
        let sender = ["Ann <ann@x>", "bob@y", "ann@z", "cid@x", "dan@x"][at];
        let subject = ["Hello", "re: hello you", "件名です", "", "x"][at];
        (sender.into(), subject.into())
    }

    /// 1 new, 2 read, 3 deleted, 4 unread and old, 5 saved and read.
    fn messages() -> Vec<Message> {
        let m = |uid| Message::new(uid, 0, 10);
        vec![
            Message {
                recent: true,
                ..m(1)
            },
            Message { seen: true, ..m(2) },
            Message {
                seen: true,
                state: State::Deleted,
                ..m(3)
            },
            m(4),
            Message {
                seen: true,
                state: State::Saved,
                ..m(5)
            },
        ]
    }

    fn select(text: &str, dot: usize, among: Among) -> Result<Vec<usize>, String> {
        let found = List::parse(text)?.select(&messages(), dot - 1, among, &mut heading)?;
        Ok(found.into_iter().map(|at| at + 1).collect())
    }

    #[test]
    fn lists() {
        for (text, wanted) in [
            ("1", vec![1]),
            ("1 4", vec![1, 4]),
            ("1,4", vec![1, 4]),
            ("4 1 1", vec![1, 4]),
            ("1-4", vec![1, 2, 4]),
            ("*", vec![1, 2, 4, 5]),
            ("^", vec![1]),
            ("$", vec![5]),
            (".", vec![2]),
            ("+", vec![4]),
            ("-", vec![1]),
            (".-$", vec![2, 4, 5]),
            ("^-.", vec![1, 2]),
            ("ann", vec![1]),
            ("bob cid", vec![2, 4]),
            ("/hello", vec![1, 2]),
            ("/HELLO 2-5", vec![2]),
            ("\"/hello you\"", vec![2]),
            (":n", vec![1]),
            (":u", vec![1, 4]),
            (":o", vec![2, 4, 5]),
            (":r", vec![2, 5]),
            (":s", vec![5]),
            (":nr", vec![1, 2, 5]),
            (":u 2-5", vec![4]),
            (":d", vec![3]),
        ] {
            assert_eq!(select(text, 2, Among::Undeleted), Ok(wanted), "{text}");
        }
        assert_eq!(select("*", 1, Among::Deleted), Ok(vec![3]));
        assert_eq!(select("/件名", 1, Among::Deleted), Ok(vec![3]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, wanted) in [
            ("9", "9: there is no such message"),
            ("0", "0: there is no such message"),
            (
                "99999999999999999999999",
                "18446744073709551615: there is no such message",
            ),
            ("4-2", "the range ends before it begins"),
            ("3", "message 3 is deleted"),
            ("zed", "no applicable messages"),
            (":x", ":x: write one of :d :n :o :r :u :s"),
            ("1x", "1x: not a message number"),
        ] {
            assert_eq!(
                select(text, 1, Among::Undeleted),
                Err(wanted.into()),
                "{text}"
            );
        }
        assert_eq!(
            select("+", 5, Among::Undeleted),
            Err("no message behind this one".into())
        );
        assert_eq!(
            select("1", 1, Among::Deleted),
            Err("message 1 is not deleted".into())
        );
        assert!(
            List::parse("*")
                .unwrap()
                .select(&[], 0, Among::Undeleted, &mut heading)
                .is_err()
        );
    }

    #[test]
    fn words_and_quotes() {
        for (text, wanted) in [
            ("a b,c", vec!["a", "b", "c"]),
            ("'a b' \"c\"d", vec!["a b", "cd"]),
            ("''", vec![""]),
            ("  ", vec![]),
            ("'open", vec!["open"]),
        ] {
            assert_eq!(words(text), wanted);
        }
    }
}
