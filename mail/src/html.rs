//! HTML as plain text: the words, line breaks where blocks are, nothing fetched and nothing run.
//! Linear, without recursion, for any input.

/// The longest entity name that is one.
const MAX_ENTITY: usize = 10;

/// What a reader of the text wants to see of it.
pub(crate) fn to_text(html: &str) -> String {
    let mut out = Text::default();
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        let (words, tail) = rest.split_at(at);
        out.words(words);
        rest = if tail.starts_with('<') {
            tag(tail, &mut out)
        } else {
            entity(tail, &mut out)
        };
    }
    out.words(rest);
    out.finish()
}

#[derive(Default)]
struct Text {
    out: String,
    /// White space was read that may separate two words.
    space: bool,
}

impl Text {
    fn words(&mut self, text: &str) {
        text.chars().for_each(|c| self.char(c));
    }

    fn char(&mut self, c: char) {
        if c.is_ascii_whitespace() {
            self.space = true;
            return;
        }
        if std::mem::take(&mut self.space) && !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push(' ');
        }
        self.out.push(c);
    }

    /// Ends the line, and with `lines` 2 leaves one empty.
    fn end_line(&mut self, lines: usize) {
        self.space = false;
        let there = self.out.len() - self.out.trim_end_matches('\n').len();
        if !self.out.is_empty() {
            self.out
                .extend(std::iter::repeat_n('\n', lines.saturating_sub(there)));
        }
    }

    fn finish(mut self) -> String {
        self.out.truncate(self.out.trim_end_matches('\n').len());
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out
    }
}

/// Reads a tag or a comment at the begin of `text`; gives what is behind it.
fn tag<'a>(text: &'a str, out: &mut Text) -> &'a str {
    let behind = |end: &str| text.split_once(end).map_or("", |(_, rest)| rest);
    if text.starts_with("<!--") {
        return behind("-->");
    }
    let inner = text.get(1..).unwrap_or_default();
    if !inner.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
        out.char('<');
        return inner;
    }
    let end = inner.strip_prefix('/').unwrap_or(inner);
    let name: String = end
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .take(MAX_ENTITY)
        .collect::<String>()
        .to_ascii_lowercase();
    let rest = behind(">");
    match name.as_str() {
        // What is no text at all, up to its end tag.
        "script" | "style" | "head" | "title" if !inner.starts_with('/') => {
            return skip(rest, &name);
        }
        "br" => out.out.push('\n'),
        "p" | "h1" | "h2" | "h3" | "h4" | "table" | "ul" | "ol" | "blockquote" | "pre" => {
            out.end_line(2);
        }
        "div" | "tr" | "h5" | "h6" | "hr" | "dt" | "dd" => out.end_line(1),
        "li" if !inner.starts_with('/') => {
            out.end_line(1);
            out.words("* ");
        }
        "td" | "th" => out.space = true,
        _ => {}
    }
    if name == "br" {
        out.space = false;
    }
    rest
}

/// Behind `</name>`.
fn skip<'a>(text: &'a str, name: &str) -> &'a str {
    let mut rest = text;
    while let Some((_, tail)) = rest.split_once("</") {
        rest = tail;
        if tail
            .get(..name.len())
            .is_some_and(|n| n.eq_ignore_ascii_case(name))
        {
            return tail.split_once('>').map_or("", |(_, rest)| rest);
        }
    }
    ""
}

/// Reads an entity at the begin of `text`; gives what is behind it.
fn entity<'a>(text: &'a str, out: &mut Text) -> &'a str {
    let inner = text.get(1..).unwrap_or_default();
    let found = inner
        .char_indices()
        .take(MAX_ENTITY + 1)
        .find(|(_, c)| *c == ';')
        .and_then(|(at, _)| Some((inner.get(..at)?, inner.get(at + 1..)?)));
    if let Some((name, rest)) = found
        && let Some(c) = named(name)
    {
        // A no-break space is one to the eye, too.
        if c == '\u{a0}' {
            out.space = true;
        } else {
            out.char(c);
        }
        return rest;
    }
    out.char('&');
    inner
}

fn named(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        return char::from_u32(code.ok()?);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => '\u{a0}',
        "copy" => '©',
        "reg" => '®',
        "hellip" => '…',
        "mdash" => '—',
        "ndash" => '–',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "bull" => '•',
        "yen" => '¥',
        "euro" => '€',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_breaks() {
        for (html, wanted) in [
            ("<p>one</p><p>two\n three</p>", "one\n\ntwo three\n"),
            ("a<br>b<BR/>c", "a\nb\nc\n"),
            ("<head><title>t</title></head><body>x", "x\n"),
            ("<style>a < b</style>x<script>'</p>'</script>y", "xy\n"),
            (
                "1 &lt; 2 &amp;&amp; 3 &#x3e; 2&nbsp;&#39;q&unknown; &",
                "1 < 2 && 3 > 2 'q&unknown; &\n",
            ),
            ("<!-- c > d -->x<!-- open", "x\n"),
            ("<ul><li>a<li>b</ul>z", "* a\n* b\n\nz\n"),
            ("a < b <", "a < b <\n"),
            ("<a href=\"http://x\">link</a>", "link\n"),
            ("<b", ""),
            ("", ""),
            ("件<b>名</b>", "件名\n"),
            ("&#xffffffff;&#0x;", "&#xffffffff;&#0x;\n"),
        ] {
            assert_eq!(to_text(html), wanted, "{html}");
        }
    }
}
