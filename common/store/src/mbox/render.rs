//! A submitted message in the form it has in an mbox: LF, quoted, with our fields at the end of its
//! header and an empty line behind it. Reading it back gives exactly what was submitted, but for
//! forged fields of ours, which are renamed.
//!
//! A line that ends in a bare LF comes back with CRLF, and `CR CR LF` as `CR LF`: neither can come
//! in by SMTP.

use super::edit::Want;
use super::field;
use super::from_line;
use crate::lines::{Event, Lines};

/// Turns a stream of octets into an mbox message.
pub(crate) struct Render {
    lines: Lines,
    state: State,
}

struct State {
    in_header: bool,
    blank: bool,
    /// What goes to the end of the header; empty when it is written.
    block: Vec<u8>,
    out: Vec<u8>,
}

/// What a message's form depends on besides its octets.
pub(crate) struct Form<'a> {
    /// What the file lacks at its end before a From_ line can begin.
    pub(crate) before: &'a [u8],
    pub(crate) reverse_path: &'a str,
    pub(crate) date: i64,
    pub(crate) delivery_id: &'a str,
    pub(crate) no_eol: bool,
    pub(crate) want: Want,
}

impl Render {
    pub(crate) fn new(form: &Form<'_>) -> Self {
        let mut block = Vec::new();
        if !form.delivery_id.is_empty() {
            block.extend_from_slice(format!("X-Delivery-Id: {}\n", form.delivery_id).as_bytes());
        }
        if form.no_eol {
            block.extend_from_slice(b"X-Mbox-Eol: none\n");
        }
        block.extend_from_slice(&form.want.block(""));
        let out = [
            form.before,
            &from_line::format(form.reverse_path, form.date),
        ]
        .concat();
        let state = State {
            in_header: true,
            blank: false,
            block,
            out,
        };
        Self {
            lines: Lines::default(),
            state,
        }
    }

    /// What became of a piece.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        let state = &mut self.state;
        self.lines.feed(piece, &mut |event| state.event(event));
        std::mem::take(&mut state.out)
    }

    /// What became of the end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let state = &mut self.state;
        self.lines.finish(&mut |event| state.event(event));
        let block = std::mem::take(&mut state.block);
        state.out.extend_from_slice(&block);
        state.out.push(b'\n');
        self.state.out
    }
}

impl State {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Head(head) => {
                self.blank = head.is_empty();
                if self.in_header && self.blank {
                    let block = std::mem::take(&mut self.block);
                    self.out.extend_from_slice(&block);
                } else if self.in_header && field::parse(head).is_some() {
                    self.out.extend_from_slice(field::RENAMED);
                } else if field::wants_quote(head) {
                    self.out.push(b'>');
                }
                self.out.extend_from_slice(head);
            }
            Event::Rest(rest) => self.out.extend_from_slice(rest),
            Event::End(_) => {
                self.out.push(b'\n');
                self.in_header &= !self.blank;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> String {
        let no_eol = !text.is_empty() && !text.ends_with('\n');
        let form = Form {
            before: b"",
            reverse_path: "ann@example.org",
            date: 0,
            delivery_id: "d1",
            no_eol,
            want: Want::default(),
        };
        let mut render = Render::new(&form);
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(1) {
            out.extend(render.feed(piece));
        }
        out.extend(render.finish());
        let text = String::from_utf8(out).unwrap();
        text.split_once('\n').unwrap().1.to_owned()
    }

    #[test]
    fn our_fields_stand_at_the_end_of_the_header() {
        let block = format!(
            "X-Delivery-Id: d1\nStatus:   \nX-Status:     \nX-Keywords: {}\n",
            " ".repeat(50)
        );
        let bare = block.replacen('\n', "\nX-Mbox-Eol: none\n", 1);
        for (text, out) in [
            ("A: b\r\n\r\nc\r\n", format!("A: b\n{block}\nc\n\n")),
            ("A: b\r\n", format!("A: b\n{block}\n")),
            ("", format!("{block}\n")),
            (
                "\r\nFrom\r\nFrom x\r\n",
                format!("{block}\nFrom\n>From x\n\n"),
            ),
            (
                "X-UID: 7\r\n 8\r\nstatus: R\r\n\r\nStatus: R\r\n",
                format!("X-Orig-X-UID: 7\n 8\nX-Orig-status: R\n{block}\nStatus: R\n\n"),
            ),
            (" a\r\n\r\n", format!(" a\n{block}\n\n")),
            ("a", format!("a\n{bare}\n")),
        ] {
            assert_eq!(render(text), out, "{text:?}");
        }
    }
}
