//! Text of others made fit for a terminal, and measured in its columns.

use base::escape::is_control;
use unicode_width::UnicodeWidthChar;

/// Where a tab takes the cursor: to the next multiple of this.
const TAB: usize = 8;

/// Without control characters and without what they begin: colours, cursor movements, titles. Line
/// feeds and tabs stay. What a sender wrote can only ever be read.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut state = Escape::None;
    for c in text.chars() {
        state = state.next(c);
        let shown = matches!(c, '\n' | '\t') || !is_control(c);
        if state == Escape::None && shown {
            out.push(c);
        } else if state == Escape::Last {
            state = Escape::None;
        }
    }
    out
}

/// The same on one line: tabs and line feeds become spaces.
pub(crate) fn clean_line(text: &str) -> String {
    clean(text).replace(['\n', '\t'], " ")
}

/// Where in an escape sequence (ECMA-48 5.3, 5.4, 5.6) we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    /// ESC was read.
    Begun,
    /// Behind ESC [ or U+009B: up to a letter.
    Control,
    /// Behind ESC ] and its kin: a string up to BEL or ESC \.
    Text,
    /// The end of one.
    Last,
}

impl Escape {
    fn next(self, c: char) -> Self {
        match (self, c) {
            (_, '\u{1b}') => Self::Begun,
            (_, '\u{9b}') => Self::Control,
            (_, '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}') => Self::Text,
            (Self::Begun, '[') => Self::Control,
            (Self::Begun, ']' | 'P' | 'X' | '^' | '_') => Self::Text,
            // ESC ( B and the like have a byte in between.
            (Self::Begun, ' '..='/') => Self::Begun,
            // A sequence does not reach over a line's end: then it was none.
            (Self::None | Self::Begun | Self::Control | Self::Text, '\n') => Self::None,
            (Self::Begun, _) | (Self::Text, '\u{7}' | '\u{9c}') => Self::Last,
            (Self::Control, '@'..='~') => Self::Last,
            (Self::Control, ' '..='?') => Self::Control,
            (Self::Control, _) => Self::None,
            (Self::Text, _) => Self::Text,
            (Self::None | Self::Last, _) => Self::None,
        }
    }
}

/// How many columns a terminal gives a text of one line.
pub(crate) fn width(text: &str) -> usize {
    text.chars().fold(0, |at, c| at + advance(at, c))
}

fn advance(at: usize, c: char) -> usize {
    match c {
        '\t' => TAB - at % TAB,
        _ => c.width().unwrap_or(0),
    }
}

/// Cut to `columns` at a character's edge.
pub(crate) fn cut(text: &str, columns: usize) -> &str {
    let mut at = 0;
    for (index, c) in text.char_indices() {
        at += advance(at, c);
        if at > columns {
            return text.get(..index).unwrap_or_default();
        }
    }
    text
}

/// Cut to `columns` and filled up with spaces to just as many.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    let text = cut(text, columns);
    let mut out = text.to_owned();
    out.extend(std::iter::repeat_n(
        ' ',
        columns.saturating_sub(width(text)),
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        for (text, wanted) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]0;title\u{1b}\\after", "after"),
            ("\u{9b}2Jx", "x"),
            ("\u{1b}(Bx", "x"),
            ("\u{1b}cx", "x"),
            ("a\rb\u{8}c\0", "abc"),
            ("\u{1b}]never closed\nnext", "\nnext"),
            ("\u{1b}[31\nnext", "\nnext"),
            ("\u{202e}txt.exe", "txt.exe"),
            ("件名", "件名"),
            ("\u{1b}\u{1b}[1mx", "x"),
            ("\u{1b}[é", "é"),
        ] {
            assert_eq!(clean(text), wanted, "{text:?}");
            assert!(!clean(text).contains('\u{1b}'));
        }
        assert_eq!(clean_line("a\nb\tc"), "a b c");
    }

    #[test]
    fn columns_not_bytes() {
        for (text, columns, wanted) in [
            ("abc", 2, "ab"),
            ("件名だ", 4, "件名"),
            ("件名だ", 5, "件名"),
            ("e\u{301}x", 1, "e\u{301}"),
            ("", 3, ""),
        ] {
            assert_eq!(cut(text, columns), wanted);
        }
        assert_eq!(fit("件", 5), "件   ");
        assert_eq!(fit("abcdef", 3), "abc");
        assert_eq!(width("a\tb"), 9);
    }
}
