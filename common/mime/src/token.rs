//! The lexical tokens of structured fields (RFC 5322 3.2, RFC 2045 5.1), read tolerantly.
//!
//! Addresses, Content-Type and Content-Disposition share this reader; they differ in which bytes end
//! an atom. Comments nest by a counter, so depth costs nothing. A string, comment or domain literal
//! that is never closed ends with the text.

/// What the text is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A run of bytes that are neither white space nor special.
    Atom(Vec<u8>),
    /// The content of a quoted string, escapes removed.
    Quoted(Vec<u8>),
    /// The content of a comment, outer parentheses and escapes removed.
    Comment(Vec<u8>),
    /// A domain literal with its brackets.
    Literal(Vec<u8>),
    /// One special byte.
    Special(u8),
}

/// A token, and whether white space stood before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spaced {
    pub token: Token,
    pub space: bool,
}

/// Reads `text` (line ends count as white space) token by token.
#[derive(Debug)]
pub struct Tokens<'a> {
    text: &'a [u8],
    specials: &'static [u8],
}

/// RFC 5322 3.2.3 specials, the dot among them.
pub const ADDRESS: &[u8] = b"()<>[]:;@\\,.\"";
/// RFC 2045 5.1 tspecials, without those that real mail leaves unquoted inside values (`[]?:@\,/`
/// are taken into the atom; `/` and `,` are split by who needs it).
pub const PARAMETER: &[u8] = b"()\"=;";

impl<'a> Tokens<'a> {
    pub fn new(text: &'a [u8], specials: &'static [u8]) -> Self {
        Self { text, specials }
    }

    fn take(&mut self) -> Option<u8> {
        let (&byte, rest) = self.text.split_first()?;
        self.text = rest;
        Some(byte)
    }

    fn until(&mut self, close: u8) -> Vec<u8> {
        let mut content = Vec::new();
        while let Some(byte) = self.take() {
            match byte {
                b'\\' => content.extend(self.take()),
                b'\r' | b'\n' => {}
                _ if byte == close => break,
                _ => content.push(byte),
            }
        }
        content
    }

    fn comment(&mut self) -> Vec<u8> {
        let mut content = Vec::new();
        let mut depth = 1_usize;
        while let Some(byte) = self.take() {
            match byte {
                b'\\' => content.extend(self.take()),
                b'\r' | b'\n' => {}
                b'(' => {
                    depth += 1;
                    content.push(byte);
                }
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                    content.push(byte);
                }
                _ => content.push(byte),
            }
        }
        content
    }

    fn literal(&mut self) -> Vec<u8> {
        let mut content = vec![b'['];
        content.append(&mut self.until(b']'));
        content.push(b']');
        content
    }

    fn atom(&mut self, first: u8) -> Vec<u8> {
        let mut content = vec![first];
        while let Some(&byte) = self.text.first() {
            if is_space(byte) || self.specials.contains(&byte) {
                break;
            }
            content.push(byte);
            self.take();
        }
        content
    }
}

impl Iterator for Tokens<'_> {
    type Item = Spaced;

    fn next(&mut self) -> Option<Spaced> {
        let before = self.text.len();
        while self.text.first().is_some_and(|&b| is_space(b)) {
            self.take();
        }
        let space = self.text.len() < before;
        let first = self.take()?;
        let token = match first {
            b'"' => Token::Quoted(self.until(b'"')),
            b'(' => Token::Comment(self.comment()),
            b'[' if self.specials.contains(&b'[') => Token::Literal(self.literal()),
            _ if self.specials.contains(&first) => Token::Special(first),
            _ => Token::Atom(self.atom(first)),
        };
        Some(Spaced { token, space })
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_an_address() {
        let found: Vec<_> =
            Tokens::new(b"\"A \\\" b\" (x (y) \\) z) <a.b@[1.2\r\n .3]>", ADDRESS).collect();
        let want = [
            (Token::Quoted(b"A \" b".to_vec()), false),
            (Token::Comment(b"x (y) ) z".to_vec()), true),
            (Token::Special(b'<'), true),
            (Token::Atom(b"a".to_vec()), false),
            (Token::Special(b'.'), false),
            (Token::Atom(b"b".to_vec()), false),
            (Token::Special(b'@'), false),
            (Token::Literal(b"[1.2 .3]".to_vec()), false),
            (Token::Special(b'>'), false),
        ];
        assert_eq!(found, want.map(|(token, space)| Spaced { token, space }));
    }

    #[test]
    fn nothing_unclosed_hangs_or_fails() {
        for text in ["(((((", "\"abc\\", "[1", "(a\\", "\\"] {
            assert!(Tokens::new(text.as_bytes(), ADDRESS).count() >= 1, "{text}");
        }
    }
}
